//! The search itself: partial routes from the payee backward, cheapest first, until one reaches the payer.
//!
//! Owns labels (what must arrive at a node so that the payee gets its amount) and which of them may be dropped for which
//! others. Does not decide how strict a search has to be; [`super`] does.
//!
//! A label may be dropped for one that can do whatever it can, and what that takes depends on [`Rules`]:
//!
//! - Always: no dearer and no larger. Fees, costs and HTLC maximums then favour it on any way on.
//! - For each limit that binds: no more blocks, hops, or bytes in the onion.
//! - Where an `htlc_minimum` above the payment's amount may bind ([`Rules::lift`]): of the same amount or above all such
//!   minimums, and passing no other nodes, since a larger amount then does what a smaller one cannot.
//!
//! The bounds on the rest grow while the search goes on, and most of a large node's channels are never looked at: `sweep`
//! says in which order things are taken up.
//!
//! Invariant: the search ends when all that is left costs, by its lower bound, no less than the best label at the payer;
//! what is of one estimate is taken up by expiry and age, so that it is always the same label.

mod sweep;

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use fulmen_wire::units::Msat;

use crate::bit_set::BitSet;
use crate::path::onion_room::{ONION_ROOM, forward_bytes};
use crate::path::search::bounds::{Bounds, Measure};
use crate::path::search::lazy::LazyBlocks;
use crate::path::search::prepared::{Objective, PreparedQuery};
use crate::path::{Cost, Limits};
use crate::snapshot::Edge;

/// No label.
const NONE: u32 = u32::MAX;

/// From this number on, what is open is not a label but the rest of one.
const LAZY: u32 = 1 << 31;

/// At a node that may not be passed.
const BLOCKED: u32 = u32::MAX - 1;

/// What a search has to mind.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    /// Limits that bind, beyond the fee's; the others are left out of account.
    pub(super) blocks_max: Option<u32>,
    pub(super) hops_max: Option<u32>,
    pub(super) checks_onion: bool,
    /// The highest `htlc_minimum` that the fees of later hops may lift the amount over. Without, directions with a minimum
    /// above the payment's amount are left out.
    pub(super) lift: Option<u64>,
    /// Whether to leave minimums out of account that fees might make up for. What is found need not be a route then; but
    /// no route is cheaper.
    pub(super) waives_minimums: bool,
    /// Only lower costs are of interest.
    pub(super) cost_max: u64,
    /// All limits, those that do not bind as well: among ways of one cost, one that keeps them ends the search.
    pub(super) limits: Limits,
}

impl Rules {
    /// Whether cost and amount are all that labels are compared by.
    fn are_plain(&self) -> bool {
        self.blocks_max.is_none() && self.hops_max.is_none() && !self.checks_onion && self.lift.is_none()
    }
}

/// Bounds on what lies between the payer and a node, for each of what a search minds.
#[derive(Debug, Default)]
pub(super) struct LowerBounds {
    pub(super) cost: Bounds,
    pub(super) blocks: Bounds,
    pub(super) hops: Bounds,
}

impl LowerBounds {
    /// Starts anew, with nothing known.
    pub(super) fn start(&mut self, prepared: &PreparedQuery<'_>) {
        self.cost.start(prepared, prepared.amount);
        self.blocks.start(prepared, prepared.amount);
        self.hops.start(prepared, prepared.amount);
    }

    /// Finds out everything there is to know of what limits bind.
    fn complete(&mut self, prepared: &PreparedQuery<'_>) {
        self.blocks.complete(prepared, Measure::Blocks);
        self.hops.complete(prepared, Measure::Hops);
    }
}

/// A partial route.
#[derive(Clone, Copy, Debug)]
struct Label {
    cost: u64,
    /// What must arrive at `node`, in millisatoshi.
    amount: u64,
    node: u32,
    /// The edge that leads on, and the label at its far end. Where the search began there is [`NONE`], and `edge` is the
    /// number of the start.
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

/// The labels at one node. The cheapest one's figures are here, so that most newcomers are turned away at a glance.
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
    /// What the hop carries and what its first node is given.
    pub(super) amount: u64,
    pub(super) amount_in: u64,
    pub(super) blocks: u32,
}

/// The search's memory, used again from query to query.
#[derive(Debug, Default)]
pub(super) struct Labels {
    labels: Vec<Label>,
    fronts: Vec<NodeFront>,
    search: u32,
    /// Labels at settled nodes, by estimate; of one estimate, the soonest to expire and then the oldest first.
    near: BinaryHeap<Reverse<(u64, u32, u32)>>,
    /// Other labels and, from [`LAZY`] on, what was put off, in the same order. What lies beyond them is no less than the
    /// radius for all, and not counted.
    far: BinaryHeap<Reverse<(u64, u32, u32)>>,
    /// Nodes at which a label has been taken up.
    expanded: BitSet,
    /// Labels with blocks put off; numbered as the lists in `lazy`.
    lazy_lists: Vec<u32>,
    lazy: LazyBlocks,
    /// The best label at the payer so far.
    best: Option<u32>,
    /// How much has been looked at.
    work: usize,
    /// The least that a route over a direction left out for its minimum would cost, as far as one was met.
    pub(super) lifted_cost: u64,
    /// How many partial routes have been compared, over all searches of a query.
    pub(super) comparisons: usize,
    /// Only estimates below this are of interest: the cheapest way to the payer so far.
    cost_max: u64,
    /// What each block has been priced at, where a limit on them is minded: it is no part of what the route costs.
    block_price: u64,
    /// What all blocks within that limit would cost.
    block_price_max: u64,
    payer: u32,
}

/// The search was cut off.
pub(super) struct Exhausted;

impl Labels {
    /// Finds the cheapest way that keeps the rules.
    pub(super) fn run(
        &mut self,
        prepared: &PreparedQuery<'_>,
        rules: &Rules,
        bounds: &mut LowerBounds,
        comparisons_max: usize,
    ) -> Result<Option<Found>, Exhausted> {
        if bounds.cost.amount() > prepared.amount {
            // That was for what an earlier search had open.
            bounds.cost.start(prepared, prepared.amount);
        }
        if !bounds.cost.is_settled(prepared.payer) {
            // Heads say nothing of the payer's own channels: they have to be crossed when a label is taken up.
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
                Objective::Fee => (start.amount - prepared.amount).saturating_mul(Cost::PER_MSAT),
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

    /// What a label costs without the price of its blocks.
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

    /// Offers the label that is longer by one edge.
    #[inline]
    fn extend<const PLAIN: bool>(
        &mut self,
        prepared: &PreparedQuery<'_>,
        rules: &Rules,
        bounds: &LowerBounds,
        (at, label): (u32, &Label),
        (number, edge): (u32, &Edge),
    ) {
        // Closed and narrow directions are many, and what says so is at hand; all else has to be fetched.
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
            // The payer pays nobody for its own channel.
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

    /// Notes a direction that was left out for its minimum: what a route over it costs at least.
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

    /// Takes a label in, unless it cannot lead to the payer or another does all it could; replaces those it dominates.
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
            // Where it breaks a limit, another of the same cost may keep it.
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

    /// Takes a label out of its node's list.
    fn remove(&mut self, node: u32, previous: u32, label: u32) {
        let sibling = self.labels[label as usize].sibling;
        self.labels[label as usize].stage = Stage::Dominated;
        match self.labels.get_mut(previous as usize) {
            Some(previous) => previous.sibling = sibling,
            None => self.fronts[node as usize].first = sibling,
        }
    }

    /// Puts a label into its node's list, the cheapest first.
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

    /// Whether `one` can do everything that `other`, at the same node, can.
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

    /// Whether every node on the way of `one` is also on that of `other`.
    fn passes_no_more(&self, one: &Label, other: &Label) -> bool {
        self.way(one).all(|label| self.way(other).any(|passed| passed.node == label.node))
    }

    /// Whether the label's node is already on its own way to the payee.
    fn passes_twice(&self, label: &Label) -> bool {
        self.way(label).skip(1).any(|passed| passed.node == label.node)
    }

    /// A label and those after it up to the payee's.
    fn way<'s>(&'s self, label: &'s Label) -> impl Iterator<Item = &'s Label> {
        std::iter::successors(Some(label), |label| self.labels.get(label.next as usize))
    }

    /// Which start a found route leads to.
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
    /// Whether the cheapest label does all that any longer than `label` can, as far as cost and amount go.
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

/// Whether a label can still keep the limits that bind.
fn keeps(rules: &Rules, bounds: &LowerBounds, label: &Label) -> bool {
    let within = |used: u32, bounds: &Bounds, max: u32| {
        u64::from(used).saturating_add(bounds.of(label.node)) <= u64::from(max)
    };
    rules.blocks_max.is_none_or(|max| within(label.blocks, &bounds.blocks, max))
        && rules.hops_max.is_none_or(|max| within(u32::from(label.hops), &bounds.hops, max))
        && (!rules.checks_onion || u32::from(label.onion) <= ONION_ROOM)
}

impl Rules {
    /// No limit is minded but that on the fee.
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
