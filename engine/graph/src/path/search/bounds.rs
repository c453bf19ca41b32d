//! Lower bounds on what lies between the payer and a node, found by searching forward from the payer.
//!
//! Owns: [`Bounds`]. Every channel is taken at the payment's bare amount, which underestimates it, since nothing gets
//! cheaper as the amount grows. The search may stop at any time: what it has not reached is at least as far away as the
//! next node it would settle, which is a bound as well. Does not know how partial routes are compared.
//!
//! Invariant: bounds are consistent: along every usable channel a bound grows by no more than the channel takes.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::path::search::task::Task;
use crate::snapshot::Edge;

/// A bound for every node, in memory used again from query to query.
#[derive(Debug, Default)]
pub(super) struct Bounds {
    /// For each node the least found so far, if it is of this search.
    reached: Vec<Reached>,
    search: u32,
    /// What holds for every node that has no less.
    radius: u64,
    /// How many channels have been looked at.
    pub(super) edges: usize,
    open: BinaryHeap<Reverse<(u64, u32)>>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Reached {
    distance: u64,
    search: u32,
    /// The edge over which it is reached; of no meaning at the payer.
    over: u32,
}

/// What is summed up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Measure {
    /// What the search minimises.
    Cost,
    /// Each `cltv_expiry_delta`.
    Blocks,
    /// One for each channel.
    Hops,
}

impl Bounds {
    /// Goes on until nothing is left to settle.
    pub(super) fn complete(&mut self, task: &Task<'_>, measure: Measure) {
        while self.is_growing() {
            self.grow(task, measure);
        }
    }

    /// Forgets the last search and starts at the payer, with nothing known beyond it.
    pub(super) fn start(&mut self, task: &Task<'_>) {
        self.reached.resize(task.snapshot.node_count(), Reached::default());
        self.search = self.search.wrapping_add(1);
        if self.search == 0 {
            self.reached.fill(Reached::default());
            self.search = 1;
        }
        self.open.clear();
        self.reached[task.payer as usize] = Reached { distance: 0, search: self.search, over: u32::MAX };
        self.open.push(Reverse((0, task.payer)));
        self.radius = 0;
        self.edges = 0;
    }

    /// Whether something is left to settle.
    pub(super) fn is_growing(&self) -> bool {
        self.radius < u64::MAX
    }

    /// Settles one more node. Bounds only rise by it. A minimum above the payment's amount keeps no channel out as long as
    /// fees might make up for it.
    pub(super) fn grow(&mut self, task: &Task<'_>, measure: Measure) {
        if let Some(Reverse((distance, node))) = self.open.pop()
            && distance == self.reached[node as usize].distance
        {
            self.edges += task.snapshot.incoming(node).len();
            self.settle(task, measure, node, distance);
        }
        self.radius = self.open.peek().map_or(u64::MAX, |Reverse((distance, _))| *distance);
    }

    /// The least that lies between the payer and a node; `u64::MAX` when no way leads there.
    #[inline]
    pub(super) fn of(&self, node: u32) -> u64 {
        let reached = self.reached[node as usize];
        if reached.search == self.search { reached.distance.min(self.radius) } else { self.radius }
    }

    /// The edge that leads to a node on a nearest way from the payer, when that way is known.
    #[inline]
    pub(super) fn over(&self, node: u32) -> Option<u32> {
        let reached = self.reached[node as usize];
        (reached.search == self.search && reached.distance <= self.radius).then_some(reached.over)
    }

    /// Looks at every channel out of a node.
    fn settle(&mut self, task: &Task<'_>, measure: Measure, node: u32, distance: u64) {
        for (first, run) in task.snapshot.runs(task.snapshot.incoming(node)) {
            for (inward, opposite) in (first..).zip(run) {
                let target = opposite.source;
                let reached = self.reached[target as usize];
                if reached.search == self.search && reached.distance <= distance {
                    continue;
                }
                let number = task.snapshot.reverse(inward);
                let edge = task.snapshot.edge(number);
                if task.minimum(number, edge, node) > task.amount_max {
                    continue;
                }
                let Some(length) = length(task, measure, number, edge, node) else { continue };
                let next = distance.saturating_add(length);
                if reached.search != self.search || next < reached.distance {
                    self.reached[target as usize] =
                        Reached { distance: next, search: self.search, over: number };
                    self.open.push(Reverse((next, target)));
                }
            }
        }
    }
}

/// The measure of one edge out of a node at the payment's bare amount; `None` when it cannot be used.
#[inline]
fn length(task: &Task<'_>, measure: Measure, number: u32, edge: &Edge, node: u32) -> Option<u64> {
    if node == task.payer {
        let cost = task.first(number, edge, task.amount)?;
        return Some(match measure {
            Measure::Cost => cost,
            Measure::Blocks => 0,
            Measure::Hops => 1,
        });
    }
    let step = task.forward(number, edge, task.amount)?;
    Some(match measure {
        Measure::Cost => step.cost,
        Measure::Blocks => u64::from(step.delta),
        Measure::Hops => 1,
    })
}
