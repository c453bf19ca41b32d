//! Min-cost flow over convex costs: the cheapest way to spread an amount, cut into granules, over a graph.
//!
//! Owns the solver. The cost and the capacity of an arc come from a [`FlowGraph`]: the cost of one further granule
//! over an arc that carries some already, which never falls. That makes costs convex. With fees and -log of the
//! success probability in them, the cheapest flow is the most reliable one at its price (Pickhardt and Richter,
//! "Optimally Reliable & Cheap Payment Flows"). Does not know fees that grow along a route, expiries, hops or HTLC
//! limits: [`super::parts`] makes payments out of flows.
//!
//! The algorithm is successive shortest paths with potentials. Each path is searched from both ends at once over
//! residual arcs; the side that has done less work continues, until no path can be shorter than the best one that
//! joins both. Potentials carry the distances learned by one search over to the next.
//!
//! Invariant: the flow into a node equals the flow out of it, except at payer and payee, and the flow is the cheapest
//! of its size. Budget: the first search costs as much as a single path, each further granule a tenth of that;
//! benched as `route/multi` in `bench/peers`.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// The graph as the solver reads it. Nodes and arcs are dense numbers; an arc has one direction.
pub(crate) trait FlowGraph {
    /// An exclusive upper bound on node numbers.
    fn node_count(&self) -> usize;

    /// Visits every arc into `node` with its number, its origin, and the cost of a first granule. Arcs that cannot
    /// take one are left out.
    fn arcs_into(&self, node: u32, visit: impl FnMut(u32, u32, u64));

    /// Visits every arc out of `node` with its number and its target.
    fn arcs_out_of(&self, node: u32, visit: impl FnMut(u32, u32));

    /// The cost of one more granule over an arc that carries `carried` granules, or `None` when it takes no more.
    /// Never less than for fewer.
    fn cost(&self, arc: u32, carried: u32) -> Option<u64>;
}

/// The flow over one arc.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Flow {
    pub(crate) arc: u32,
    pub(crate) from: u32,
    pub(crate) to: u32,
    pub(crate) granules: u32,
}

/// The solver; its memory is reused from query to query.
#[derive(Debug, Default)]
pub(crate) struct FlowSolver {
    /// The search from the payer along arcs, and that from the payee against them.
    sides: [Side; 2],
    /// For each node its potential and the query that set it; zero where no search came.
    potentials: Vec<(u32, i64)>,
    query: u32,
    flows: Vec<Flow>,
    /// The cheapest path for the next granule, when it is known.
    steps: Vec<Step>,
    payer: u32,
    payee: u32,
    /// The number of arcs examined.
    pub(crate) work: u64,
}

/// One of the two ends of a search.
#[derive(Debug, Default)]
struct Side {
    marks: Vec<Mark>,
    /// Marks of earlier searches have another number.
    search: u32,
    open: BinaryHeap<Reverse<(u64, u32)>>,
    settled: Vec<u32>,
    work: u64,
}

/// The best path that a side has found to a node.
#[derive(Clone, Copy, Debug, Default)]
struct Mark {
    search: u32,
    settled: bool,
    /// The arc of the path's last step and the next node towards the side's end; `back` removes a granule from the
    /// arc.
    back: bool,
    arc: u32,
    next: u32,
    distance: u64,
}

/// One step of an augmenting path; `back` removes a granule from the arc instead of adding one.
#[derive(Clone, Copy, Debug)]
struct Step {
    arc: u32,
    from: u32,
    to: u32,
    back: bool,
}

impl FlowSolver {
    /// Searches the cheapest path for one granule and prepares [`FlowSolver::push`]. Returns the granule's cost, a
    /// lower bound on the average cost of a granule in any flow between the two nodes; `None` when no path below
    /// `cost_max` leads from payer to payee.
    pub(crate) fn begin(
        &mut self,
        graph: &impl FlowGraph,
        (payer, payee): (u32, u32),
        cost_max: u64,
    ) -> Option<u64> {
        let nodes = graph.node_count().max(self.potentials.len());
        self.potentials.resize(nodes, (0, 0));
        self.sides.iter_mut().for_each(|side| side.marks.resize(nodes, Mark::default()));
        self.query = match self.query.checked_add(1) {
            Some(next) => next,
            None => {
                self.potentials.fill((0, 0));
                1
            }
        };
        self.flows.clear();
        (self.payer, self.payee, self.work) = (payer, payee, 0);
        self.find_next(graph, cost_max)
    }

    /// Adds one granule over the cheapest path, after [`FlowSolver::begin`]. Returns the added cost, or `None` when
    /// the graph takes no more.
    pub(crate) fn push(&mut self, graph: &impl FlowGraph) -> Option<u64> {
        if self.steps.is_empty() {
            self.find_next(graph, u64::MAX)?;
        }
        let (mut dearer, mut cheaper) = (0_u64, 0_u64);
        while let Some(step) = self.steps.pop() {
            let at = self.flows.iter().position(|flow| flow.arc == step.arc);
            let carried = at.map_or(0, |at| self.flows[at].granules);
            if step.back {
                cheaper = cheaper.saturating_add(graph.cost(step.arc, carried.saturating_sub(1))?);
            } else {
                dearer = dearer.saturating_add(graph.cost(step.arc, carried)?);
            }
            match at {
                Some(at) if step.back && carried == 1 => drop(self.flows.swap_remove(at)),
                Some(at) if step.back => self.flows[at].granules -= 1,
                Some(at) => self.flows[at].granules += 1,
                None => {
                    self.flows.push(Flow { arc: step.arc, from: step.from, to: step.to, granules: 1 });
                }
            }
        }
        Some(dearer.saturating_sub(cheaper))
    }

    /// The flow so far, in no particular order.
    pub(crate) fn flows(&self) -> &[Flow] {
        &self.flows
    }

    /// Finds the cheapest path for another granule over the residual graph and updates the potentials. Returns the
    /// path's length under the potentials before, if that is below `cost_max`.
    fn find_next(&mut self, graph: &impl FlowGraph, cost_max: u64) -> Option<u64> {
        for (side, end) in self.sides.iter_mut().zip([self.payer, self.payee]) {
            side.begin(end);
        }
        let mut best: Option<(u64, u32)> = None;
        let forward = loop {
            let tops = [self.sides[0].nearest(), self.sides[1].nearest()];
            let [Some(forward), Some(backward)] = tops else {
                // One side has explored all that it can reach.
                let (total, _) = best?;
                break tops[0].map_or(total, |top| top.min(total));
            };
            if forward.saturating_add(backward) >= cost_max {
                return None;
            }
            if best.is_some_and(|(total, _)| forward.saturating_add(backward) >= total) {
                break forward;
            }
            if self.sides[0].work <= self.sides[1].work {
                self.extend_forward(graph, &mut best);
            } else {
                self.extend_backward(graph, &mut best);
            }
        };
        let (total, meeting) = best?;
        self.work += self.sides[0].work + self.sides[1].work;
        self.raise_potentials(forward.min(total), total);
        self.trace(meeting);
        Some(total)
    }

    /// Expands the nearest node of the payer's side.
    fn extend_forward(&mut self, graph: &impl FlowGraph, best: &mut Option<(u64, u32)>) {
        let [near, far] = &mut self.sides;
        let Some((distance, node)) = near.settle() else { return };
        let here = potential(&self.potentials, self.query, node);
        let (potentials, query, payer) = (&self.potentials, self.query, self.payer);
        let mut meet = |near: &mut Side, target, cost: i64, arc, back| {
            // Potentials keep every reduced cost at zero or above.
            let reduced = (cost - here + potential(potentials, query, target)).max(0) as u64;
            near.reach(
                far,
                best,
                target,
                distance + reduced,
                Mark { arc, back, next: node, ..Mark::default() },
            );
        };
        let flows = &self.flows;
        let touched = flows.iter().any(|flow| flow.from == node);
        graph.arcs_out_of(node, |arc, target| {
            near.work += 1;
            if target == payer {
                return;
            }
            let on_it = if touched { flows.iter().find(|flow| flow.arc == arc) } else { None };
            if let Some(cost) = graph.cost(arc, on_it.map_or(0, |flow| flow.granules)) {
                meet(near, target, cost as i64, arc, false);
            }
        });
        for flow in flows.iter().filter(|flow| flow.to == node && flow.from != payer) {
            if let Some(saved) = graph.cost(flow.arc, flow.granules - 1) {
                meet(near, flow.from, -(saved as i64), flow.arc, true);
            }
        }
    }

    /// Expands the nearest node of the payee's side.
    fn extend_backward(&mut self, graph: &impl FlowGraph, best: &mut Option<(u64, u32)>) {
        let [far, near] = &mut self.sides;
        let Some((distance, node)) = near.settle() else { return };
        let here = potential(&self.potentials, self.query, node);
        let (potentials, query, payee) = (&self.potentials, self.query, self.payee);
        let mut meet = |near: &mut Side, origin, cost: i64, arc, back| {
            let reduced = (cost - potential(potentials, query, origin) + here).max(0) as u64;
            near.reach(
                far,
                best,
                origin,
                distance + reduced,
                Mark { arc, back, next: node, ..Mark::default() },
            );
        };
        let flows = &self.flows;
        let touched = flows.iter().any(|flow| flow.to == node);
        graph.arcs_into(node, |arc, origin, first| {
            near.work += 1;
            if origin == payee {
                return;
            }
            let on_it = if touched { flows.iter().find(|flow| flow.arc == arc) } else { None };
            if let Some(cost) = on_it.map_or(Some(first), |flow| graph.cost(arc, flow.granules)) {
                meet(near, origin, cost as i64, arc, false);
            }
        });
        for flow in flows.iter().filter(|flow| flow.from == node && flow.to != payee) {
            if let Some(saved) = graph.cost(flow.arc, flow.granules - 1) {
                meet(near, flow.to, -(saved as i64), flow.arc, true);
            }
        }
    }

    /// Turns potentials into distances, within `forward` of the payer and within the rest of `total` of the payee.
    /// The path found then has reduced cost zero, and no arc a negative one.
    fn raise_potentials(&mut self, forward: u64, total: u64) {
        for (side, (radius, sign)) in self.sides.iter().zip([(forward, 1), (total - forward, -1)]) {
            for node in &side.settled {
                let distance = side.marks[*node as usize].distance;
                if distance < radius {
                    let before = potential(&self.potentials, self.query, *node);
                    let after = before + sign * (radius - distance) as i64;
                    self.potentials[*node as usize] = (self.query, after);
                }
            }
        }
    }

    /// Records the steps of the path through `meeting`.
    fn trace(&mut self, meeting: u32) {
        self.steps.clear();
        let mut at = meeting;
        while at != self.payer {
            let mark = self.sides[0].marks[at as usize];
            self.steps.push(Step { arc: mark.arc, from: mark.next, to: at, back: mark.back });
            at = mark.next;
        }
        at = meeting;
        while at != self.payee {
            let mark = self.sides[1].marks[at as usize];
            self.steps.push(Step { arc: mark.arc, from: at, to: mark.next, back: mark.back });
            at = mark.next;
        }
    }
}

fn potential(potentials: &[(u32, i64)], query: u32, node: u32) -> i64 {
    let (of, potential) = potentials[node as usize];
    if of == query { potential } else { 0 }
}

impl Side {
    fn begin(&mut self, end: u32) {
        self.open.clear();
        self.settled.clear();
        self.work = 0;
        self.search = match self.search.checked_add(1) {
            Some(next) => next,
            None => {
                self.marks.fill(Mark::default());
                1
            }
        };
        self.marks[end as usize] = Mark { search: self.search, ..Mark::default() };
        self.open.push(Reverse((0, end)));
    }

    /// The distance of the nearest node that is not settled.
    fn nearest(&mut self) -> Option<u64> {
        while let Some(Reverse((distance, node))) = self.open.peek() {
            if !self.marks[*node as usize].settled {
                return Some(*distance);
            }
            self.open.pop();
        }
        None
    }

    fn settle(&mut self) -> Option<(u64, u32)> {
        let Reverse((distance, node)) = self.open.pop()?;
        self.marks[node as usize].settled = true;
        self.settled.push(node);
        Some((distance, node))
    }

    /// Records a path to `node` if it is shorter, and joins it with the other side's if that makes the best path.
    fn reach(&mut self, far: &Side, best: &mut Option<(u64, u32)>, node: u32, distance: u64, by: Mark) {
        let mark = &mut self.marks[node as usize];
        if mark.search == self.search && mark.distance <= distance {
            return;
        }
        *mark = Mark { search: self.search, settled: false, distance, ..by };
        self.open.push(Reverse((distance, node)));
        let other = &far.marks[node as usize];
        if other.search == far.search {
            let total = distance + other.distance;
            if best.is_none_or(|(least, at)| (total, node) < (least, at)) {
                *best = Some((total, node));
            }
        }
    }
}

#[cfg(test)]
#[path = "flow_tests.rs"]
mod tests;
