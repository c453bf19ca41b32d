//! The label search: partial routes from the payee backward, cheapest first, until one reaches the payer.
//!
//! Owns labels (a label states the amount that must arrive at a node for the payee to receive its amount) and the
//! rules of dominance between them. Does not decide how strict a search has to be; [`super`] does.
//!
//! A label may be dropped for one that dominates it, that is, can be extended wherever it can at no higher cost. The
//! conditions depend on [`Rules`]:
//!
//! - Always: no higher cost and no larger amount. Fees, costs and HTLC maximums then favour it on every extension.
//! - For each enforced limit: no more blocks, hops, or bytes in the onion.
//! - Where an `htlc_minimum` above the payment's amount may bind ([`Rules::lift`]): an equal amount, or one above all
//!   such minimums, and no node that the other does not pass, since a larger amount may pass where a smaller one does
//!   not.
//!
//! The lower bounds on the rest of a route rise during the search, and most channels of large nodes are never
//! examined: `sweep` decides the order.
//!
//! Invariant: the search ends when every remaining label, by its lower bound, costs no less than the best label at
//! the payer. Labels of equal estimates are ordered by expiry and age, so that the result is deterministic.

mod sweep;

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use fulmen_wire::units::Msat;

use crate::bit_set::BitSet;
use crate::path::Limits;
use crate::path::onion_room::{ONION_ROOM, forward_bytes};
use crate::path::search::bounds::{Bounds, Measure};
use crate::path::search::lazy::LazyBlocks;
use crate::path::search::prepared::{Objective, PreparedQuery};
use crate::snapshot::Edge;

/// No label.
const NONE: u32 = u32::MAX;

/// Queue entries from this number on are lazy lists, below it labels.
const LAZY: u32 = 1 << 31;

/// Marks a node that must not forward.
const BLOCKED: u32 = u32::MAX - 1;

/// The rules of one search.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    /// Enforced limits beside the one on the fee; the others are ignored.
    pub(super) blocks_max: Option<u32>,
    pub(super) hops_max: Option<u32>,
    pub(super) checks_onion: bool,
    /// The highest `htlc_minimum` above which the fees of later hops may lift the amount. When `None`, directions
    /// with a minimum above the payment's amount are left out.
    pub(super) lift: Option<u64>,
    /// Whether to ignore minimums that fees might reach. The result is then a lower bound and need not be a route.
    pub(super) waives_minimums: bool,
    /// An exclusive bound on the cost.
    pub(super) cost_max: u64,
    /// All limits, enforced or not: among routes of equal cost, one that keeps them ends the search.
    pub(super) limits: Limits,
}

impl Rules {
    /// Whether labels are compared by cost and amount alone.
    fn are_plain(&self) -> bool {
        self.blocks_max.is_none() && self.hops_max.is_none() && !self.checks_onion && self.lift.is_none()
    }
}

/// Lower bounds on the distance from the payer to each node, one for each measure that a search needs.
#[derive(Debug, Default)]
pub(super) struct LowerBounds {
    pub(super) cost: Bounds,
    pub(super) blocks: Bounds,
    pub(super) hops: Bounds,
}

impl LowerBounds {
    /// Forgets the last query.
    pub(super) fn start(&mut self, prepared: &PreparedQuery<'_>) {
        self.cost.start(prepared, prepared.amount);
        self.blocks.start(prepared, prepared.amount);
        self.hops.start(prepared, prepared.amount);
    }

    /// Settles every node under the measures of the enforced limits.
    fn complete(&mut self, prepared: &PreparedQuery<'_>) {
        self.blocks.complete(prepared, Measure::Blocks);
        self.hops.complete(prepared, Measure::Hops);
    }
}

/// A partial route.
#[derive(Clone, Copy, Debug)]
struct Label {
    cost: u64,
    /// The amount that must arrive at `node`, in millisatoshi.
    amount: u64,
    node: u32,
    /// The edge that leads on and the label at its far end. At the search's beginning the label is [`NONE`], and
    /// `edge` is the number of the start.
    edge: u32,
    next: u32,
    /// Another label at the same node.
    sibling: u32,
    blocks: u32,
    onion: u16,
    hops: u8,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Open,
    Expanded,
    Dominated,
}

/// The labels at one node. It repeats the figures of the cheapest one, which suffice to reject most newcomers.
#[derive(Clone, Copy, Debug)]
struct NodeFront {
    cost: u64,
    amount: u64,
    blocks: u32,
    first: u32,
    search: u32,
}

/// The route a search found.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found {
    label: u32,
    pub(super) cost: u64,
    pub(super) amount: u64,
    pub(super) blocks: u32,
    pub(super) hops: u32,
    pub(super) onion: u32,
}

/// One hop of a found route.
pub(super) struct FoundHop {
    pub(super) edge: u32,
    pub(super) from: u32,
    pub(super) to: u32,
    /// The amount on the hop, and the amount that its first node receives, in millisatoshi.
    pub(super) amount: u64,
    pub(super) amount_in: u64,
    pub(super) blocks: u32,
}

/// The search's memory, reused from query to query.
#[derive(Debug, Default)]
pub(super) struct Labels {
    labels: Vec<Label>,
    fronts: Vec<NodeFront>,
    search: u32,
    /// Labels at settled nodes by estimate; of equal estimates, the earliest expiry and then the oldest first.
    near: BinaryHeap<Reverse<(u64, u32, u32)>>,
    /// Other labels and, from [`LAZY`] on, lists of deferred blocks, in the same order. Their estimates leave out the
    /// distance to the payer, which is at least the radius.
    far: BinaryHeap<Reverse<(u64, u32, u32)>>,
    /// Nodes at which a label was expanded.
    expanded: BitSet,
    /// Labels with deferred blocks; numbered as the lists in `lazy`.
    lazy_lists: Vec<u32>,
    lazy: LazyBlocks,
    /// The best label at the payer so far.
    best: Option<u32>,
    /// The number of edges examined, roughly.
    work: usize,
    /// The lowest cost of a route over a direction that was left out for its minimum, if one was met.
    pub(super) lifted_cost: u64,
    /// Comparisons of partial routes, over all searches of a query.
    pub(super) comparisons: usize,
    /// An exclusive bound on estimates: the cost of the best route so far.
    cost_max: u64,
    /// The price of a block while the limit on blocks is enforced; it is not part of a route's cost.
    block_price: u64,
    /// The price of all blocks within that limit.
    block_price_max: u64,
    payer: u32,
}

/// The search reached its limit of comparisons.
pub(super) struct Exhausted;

impl Labels {
    /// Finds the cheapest route under the rules.
    pub(super) fn run(
        &mut self,
        prepared: &PreparedQuery<'_>,
        rules: &Rules,
        bounds: &mut LowerBounds,
        comparisons_max: usize,
    ) -> Result<Option<Found>, Exhausted> {
        if bounds.cost.amount() > prepared.amount {
            // The bounds were raised for the queue of an earlier search.
            bounds.cost.start(prepared, prepared.amount);
        }
        if !bounds.cost.is_settled(prepared.payer) {
            // Heads do not cover the payer's own channels; those are crossed when a label is expanded.
            bounds.cost.grow(prepared, Measure::Cost);
        }
        self.start(prepared, rules, bounds);
        if rules.are_plain() {
            self.sweep::<true>(prepared, rules, bounds, comparisons_max)
        } else {
            self.sweep::<false>(prepared, rules, bounds, comparisons_max)
        }
    }

    fn start(&mut self, prepared: &PreparedQuery<'_>, rules: &Rules, bounds: &LowerBounds) {
        let fresh = NodeFront { cost: 0, amount: 0, blocks: 0, first: NONE, search: 0 };
        self.fronts.resize(prepared.snapshot.node_count(), fresh);
        self.search = self.search.wrapping_add(1);
        if self.search == 0 {
            self.fronts.fill(fresh);
            self.search = 1;
        }
        self.labels.clear();
        self.near.clear();
        self.far.clear();
        self.expanded.clear(prepared.snapshot.node_count());
        self.lazy_lists.clear();
        self.lazy.clear();
        self.best = None;
        self.work = 0;
        self.lifted_cost = u64::MAX;
        self.block_price = if rules.blocks_max.is_some() { prepared.block_price } else { 0 };
        self.block_price_max = self.block_price.saturating_mul(u64::from(rules.blocks_max.unwrap_or(0)));
        self.cost_max = rules.cost_max.saturating_add(self.block_price_max);
        self.payer = prepared.payer;
        for node in prepared.excluded_nodes() {
            self.fronts[*node as usize] = NodeFront { first: BLOCKED, search: self.search, ..fresh };
        }
        for (at, start) in prepared.starts.iter().enumerate() {
            let front = &self.fronts[start.node as usize];
            let blocked = front.search == self.search && front.first == BLOCKED;
            if blocked || start.amount > prepared.amount_max {
                continue;
            }
            let cost = match prepared.objective {
                Objective::Cost => start.cost,
                Objective::Fee => start.amount - prepared.amount,
                Objective::Blocks => start.blocks.into(),
                Objective::Hops => start.hops.into(),
            };
            let label = Label {
                cost: cost.saturating_add(prepared.price(start.blocks)),
                amount: start.amount,
                node: start.node,
                edge: at as u32,
                next: NONE,
                sibling: NONE,
                blocks: start.blocks,
                onion: u16::try_from(start.onion).unwrap_or(u16::MAX),
                hops: u8::try_from(start.hops).unwrap_or(u8::MAX),
                stage: Stage::Open,
            };
            self.insert_if_useful::<false>(rules, bounds, label);
        }
    }

    /// The cost of a label without the price of its blocks.
    #[inline]
    fn unpriced(&self, label: &Label) -> u64 {
        label.cost.saturating_sub(self.block_price.saturating_mul(u64::from(label.blocks)))
    }

    /// The first label at a node; [`NONE`] when there is none.
    #[inline]
    fn first_at(&self, node: u32) -> u32 {
        let front = &self.fronts[node as usize];
        if front.search == self.search { front.first } else { NONE }
    }

    /// Extends a label by one edge.
    #[inline]
    fn extend<const PLAIN: bool>(
        &mut self,
        prepared: &PreparedQuery<'_>,
        rules: &Rules,
        bounds: &LowerBounds,
        (at, label): (u32, &Label),
        (number, edge): (u32, &Edge),
    ) {
        // Most directions are closed or too narrow, which the edge alone shows; everything else must be fetched.
        let forwards = edge.source != prepared.payer;
        if forwards && (edge.minimum > prepared.amount_max || label.amount > edge.maximum) {
            return;
        }
        let front = &self.fronts[edge.source as usize];
        if front.search == self.search && (front.first == BLOCKED || (PLAIN && front.dominates(label))) {
            return;
        }
        let least = match rules.lift {
            _ if rules.waives_minimums => prepared.amount_max,
            Some(_) => label.amount,
            None => prepared.amount,
        };
        let minimum = prepared.minimum(number, edge, edge.source);
        if minimum > least {
            return self.leave_out(prepared, bounds, label.cost, minimum, (number, edge));
        }
        let hops = label.hops.saturating_add(1);
        let longer = Label { edge: number, next: at, node: edge.source, hops, stage: Stage::Open, ..*label };
        if !forwards {
            // The payer charges nothing for its own channel.
            if let Some(cost) = prepared.first(number, edge, label.amount) {
                let cost = label.cost.saturating_add(cost);
                self.insert_if_useful::<PLAIN>(rules, bounds, Label { cost, ..longer });
            }
            return;
        }
        if label.cost.saturating_add(bounds.cost.of(edge.source)) >= self.cost_max {
            return;
        }
        let Some(step) = prepared.forward(number, edge, label.amount) else { return };
        let amount = label.amount.saturating_add(step.fee);
        if amount > prepared.amount_max {
            return;
        }
        let expiry = prepared.query.height.0.saturating_add(label.blocks);
        let longer = Label {
            cost: label.cost.saturating_add(step.cost),
            amount,
            blocks: label.blocks.saturating_add(step.blocks),
            onion: label.onion.saturating_add(forward_bytes(Msat(label.amount), expiry) as u16),
            ..longer
        };
        self.insert_if_useful::<PLAIN>(rules, bounds, longer);
    }

    /// Records a direction that was left out for its minimum, with a lower bound on the cost of a route over it.
    fn leave_out(
        &mut self,
        prepared: &PreparedQuery<'_>,
        bounds: &LowerBounds,
        cost: u64,
        minimum: u64,
        (number, edge): (u32, &Edge),
    ) {
        let lifting = prepared.lifting_cost(minimum).max(cost).saturating_add(bounds.cost.of(edge.source));
        if lifting >= self.lifted_cost {
            return;
        }
        let crossing = if edge.source == prepared.payer {
            prepared.first(number, edge, minimum)
        } else {
            prepared.forward(number, edge, minimum).map(|step| step.cost)
        };
        if let Some(crossing) = crossing {
            self.lifted_cost = self.lifted_cost.min(lifting.saturating_add(crossing));
        }
    }

    /// Inserts a label, unless it cannot lead to a better route or is dominated; removes the labels that it
    /// dominates.
    #[inline]
    fn insert_if_useful<const PLAIN: bool>(&mut self, rules: &Rules, bounds: &LowerBounds, label: Label) {
        let rest = bounds.cost.of(label.node);
        let estimate = label.cost.saturating_add(rest);
        if estimate >= self.cost_max || rest == u64::MAX {
            return;
        }
        let unpriced = self.unpriced(&label);
        if label.node == self.payer && unpriced.saturating_add(self.block_price_max) >= self.cost_max {
            return;
        }
        if !PLAIN && (!keeps(rules, bounds, &label) || (rules.lift.is_some() && self.passes_twice(&label))) {
            return;
        }
        self.comparisons += 1;
        let front = self.fronts[label.node as usize];
        if front.search == self.search {
            let mut previous = NONE;
            let mut other = front.first;
            while other != NONE {
                self.comparisons += 1;
                let known = self.labels[other as usize];
                if self.dominates::<PLAIN>(rules, &known, &label) {
                    return;
                }
                if self.dominates::<PLAIN>(rules, &label, &known) {
                    self.remove(label.node, previous, other);
                } else {
                    previous = other;
                }
                other = known.sibling;
            }
        }
        if label.node == self.payer {
            // Where this label exceeds a limit, another of equal cost may keep it.
            let keeps = label.keeps(&rules.limits);
            let cost_max = unpriced.saturating_add(self.block_price_max);
            self.cost_max = if keeps { cost_max } else { cost_max.saturating_add(1) };
            let better =
                |best: &Label| (unpriced, !keeps, label.blocks) < (self.unpriced(best), true, best.blocks);
            if self.best.is_none_or(|best| better(&self.labels[best as usize])) {
                self.best = Some(self.labels.len() as u32);
            }
        }
        self.insert(label, estimate, bounds.cost.is_settled(label.node));
    }

    /// Removes a label from its node's list.
    fn remove(&mut self, node: u32, previous: u32, label: u32) {
        let sibling = self.labels[label as usize].sibling;
        self.labels[label as usize].stage = Stage::Dominated;
        match self.labels.get_mut(previous as usize) {
            Some(previous) => previous.sibling = sibling,
            None => self.fronts[node as usize].first = sibling,
        }
    }

    /// Adds a label to its node's list, the cheapest first.
    fn insert(&mut self, mut label: Label, estimate: u64, is_settled: bool) {
        let at = self.labels.len() as u32;
        let front = &mut self.fronts[label.node as usize];
        let empty = front.search != self.search || front.first == NONE;
        if empty || label.cost < front.cost {
            label.sibling = if empty { NONE } else { front.first };
            let Label { cost, amount, blocks, .. } = label;
            *front = NodeFront { cost, amount, blocks, first: at, search: self.search };
        } else {
            let first = &mut self.labels[front.first as usize];
            (front.cost, front.amount, front.blocks) = (first.cost, first.amount, first.blocks);
            label.sibling = first.sibling;
            first.sibling = at;
        }
        self.labels.push(label);
        if is_settled {
            self.near.push(Reverse((estimate, label.blocks, at)));
        } else {
            self.far.push(Reverse((label.cost, label.blocks, at)));
        }
    }

    /// Whether `one` dominates `other` at the same node.
    #[inline]
    fn dominates<const PLAIN: bool>(&self, rules: &Rules, one: &Label, other: &Label) -> bool {
        if one.amount > other.amount {
            return false;
        }
        if PLAIN {
            return one.cost <= other.cost
                && (one.blocks <= other.blocks || (one.cost, one.amount) != (other.cost, other.amount));
        }
        if self.unpriced(one) > self.unpriced(other)
            || (rules.blocks_max.is_some() && one.blocks > other.blocks)
            || (rules.hops_max.is_some() && one.hops > other.hops)
            || (rules.checks_onion && one.onion > other.onion)
        {
            return false;
        }
        rules.lift.is_none_or(|highest| {
            (one.amount == other.amount || one.amount >= highest) && self.passes_no_more(one, other)
        })
    }

    /// Whether every node of `one`'s path is also on `other`'s.
    fn passes_no_more(&self, one: &Label, other: &Label) -> bool {
        self.way(one).all(|label| self.way(other).any(|passed| passed.node == label.node))
    }

    /// Whether the label's node occurs earlier on its own path to the payee.
    fn passes_twice(&self, label: &Label) -> bool {
        self.way(label).skip(1).any(|passed| passed.node == label.node)
    }

    /// A label and its successors up to the payee's.
    fn way<'s>(&'s self, label: &'s Label) -> impl Iterator<Item = &'s Label> {
        std::iter::successors(Some(label), |label| self.labels.get(label.next as usize))
    }

    /// The number of the start that a found route leads to.
    pub(super) fn start_of(&self, found: &Found) -> usize {
        self.way(&self.labels[found.label as usize]).last().map_or(0, |label| label.edge as usize)
    }

    /// The hops of a found route, from payer to payee.
    pub(super) fn hops(&self, found: &Found) -> impl Iterator<Item = FoundHop> {
        self.way(&self.labels[found.label as usize]).filter_map(|label| {
            let next = self.labels.get(label.next as usize)?;
            Some(FoundHop {
                edge: label.edge,
                from: label.node,
                to: next.node,
                amount: next.amount,
                amount_in: label.amount,
                blocks: next.blocks,
            })
        })
    }
}

impl NodeFront {
    /// Whether the cheapest label dominates every extension of `label`, by cost and amount.
    #[inline]
    fn dominates(&self, label: &Label) -> bool {
        self.cost <= label.cost
            && self.amount <= label.amount
            && (self.blocks <= label.blocks || (self.cost, self.amount) != (label.cost, label.amount))
    }
}

impl Label {
    /// Whether a label at the payer keeps all limits.
    fn keeps(&self, limits: &Limits) -> bool {
        self.blocks <= limits.max_cltv_blocks
            && usize::from(self.hops) <= limits.max_hops
            && u32::from(self.onion) <= ONION_ROOM
    }
}

/// Whether a label can still keep the enforced limits.
fn keeps(rules: &Rules, bounds: &LowerBounds, label: &Label) -> bool {
    let within = |used: u32, bounds: &Bounds, max: u32| {
        u64::from(used).saturating_add(bounds.of(label.node)) <= u64::from(max)
    };
    rules.blocks_max.is_none_or(|max| within(label.blocks, &bounds.blocks, max))
        && rules.hops_max.is_none_or(|max| within(u32::from(label.hops), &bounds.hops, max))
        && (!rules.checks_onion || u32::from(label.onion) <= ONION_ROOM)
}

impl Rules {
    /// Rules that enforce no limit but the one on the fee.
    pub(super) const fn plain(limits: Limits) -> Rules {
        let cost_max = u64::MAX;
        Rules {
            blocks_max: None,
            hops_max: None,
            checks_onion: false,
            lift: None,
            waives_minimums: false,
            cost_max,
            limits,
        }
    }
}
