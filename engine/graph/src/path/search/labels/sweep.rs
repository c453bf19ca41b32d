//! The order of the search: which labels are expanded when, and which blocks are deferred.
//!
//! Owns the pace of the backward and the forward search, and how they meet. An edge from a settled node to an
//! expanded label's node is crossed at once, whichever search reaches it last. All deferred blocks therefore leave
//! nodes that are not settled, and their cost is at least the block's lower bound plus the radius. When one search
//! reaches a node to which the other has a path, the two paths make a route, which is completed at once: where fees
//! are zero or equal, most of the many nodes at the same distance need not be expanded once a route of that cost is
//! known. When a search takes long, the forward search restarts with the amount that fees have reached. Does not know
//! the rules of dominance; [`super`] does.

use std::cmp::Reverse;
use std::ops::Range;

use crate::path::search::bounds::{Bounds, Measure};
use crate::path::search::labels::{
    BLOCKED, Exhausted, Found, LAZY, Label, Labels, LowerBounds, Rules, Stage,
};
use crate::path::search::prepared::{BlockSide, PreparedQuery};

/// Comparisons after which a search with weak dominance is worth complete bounds.
const COMPARISONS_BEFORE_GUIDES: usize = 100_000;

/// The factor by which the search with the shorter queue may lead in work: it is likely to finish a cost level
/// sooner. Of one to four, three performed best.
const PACE: usize = 3;

/// The work of both searches after which the forward search restarts with a larger amount. Small in tests, so that
/// small graphs reach it.
const RAISE_WORK: usize = if cfg!(test) { 8 } else { 8000 };

impl Labels {
    /// Expands labels in order until none left can lead to a cheaper route.
    pub(super) fn sweep<const PLAIN: bool>(
        &mut self,
        prepared: &PreparedQuery<'_>,
        rules: &Rules,
        bounds: &mut LowerBounds,
        comparisons_max: usize,
    ) -> Result<Option<Found>, Exhausted> {
        let complete_at = self.comparisons + COMPARISONS_BEFORE_GUIDES;
        let mut complete = PLAIN;
        // Where minimums are lifted, routes without fees must all be examined.
        let mut raised = rules.lift.is_some();
        while let Some((estimate, blocks, at)) = self.next(bounds.cost.radius()) {
            if self.is_decided(estimate, blocks) {
                break;
            }
            if at >= LAZY {
                self.resume::<PLAIN>(prepared, rules, bounds, at - LAZY, estimate);
            } else {
                self.expand::<PLAIN>(prepared, rules, bounds, at, estimate);
            }
            if !complete && self.comparisons > complete_at {
                while bounds.cost.is_growing() {
                    self.advance::<PLAIN>(prepared, rules, bounds);
                }
                bounds.complete(prepared);
                complete = true;
            }
            if self.comparisons > comparisons_max {
                return Err(Exhausted);
            }
            if !raised && self.work + bounds.cost.work > RAISE_WORK {
                self.raise::<PLAIN>(prepared, rules, bounds, comparisons_max);
                raised = true;
            }
            // Both searches keep pace, so that neither covers the graph when they can meet half way.
            while bounds.cost.is_growing() && self.is_ahead(&bounds.cost) {
                self.advance::<PLAIN>(prepared, rules, bounds);
            }
        }
        Ok(self.best.map(|at| {
            let label = &self.labels[at as usize];
            Found {
                label: at,
                cost: self.unpriced(label),
                amount: label.amount,
                blocks: label.blocks,
                hops: u32::from(label.hops),
                onion: u32::from(label.onion),
            }
        }))
    }

    /// Restarts the forward search with the least amount of any open label. Until then it uses channels that are just
    /// wide enough for the payment, as many round capacities are for a round amount, but not for fees on top. Where
    /// such a channel seems to be the only cheap one, the backward search would cover half the network before ruling
    /// it out.
    fn raise<const PLAIN: bool>(
        &mut self,
        prepared: &PreparedQuery<'_>,
        rules: &Rules,
        bounds: &mut LowerBounds,
        comparisons_max: usize,
    ) {
        // First expands in full the labels that bear no fee so far.
        for rest in 0..self.lazy_lists.len() {
            if self.labels[self.lazy_lists[rest] as usize].amount == prepared.amount {
                self.resume::<PLAIN>(prepared, rules, bounds, rest as u32, u64::MAX);
            }
        }
        let mut at = 0;
        while let Some(label) = self.labels.get(at) {
            if label.amount == prepared.amount && label.node != prepared.payer {
                self.expand::<PLAIN>(prepared, rules, bounds, at as u32, u64::MAX);
            }
            if self.comparisons > comparisons_max {
                return;
            }
            at += 1;
        }
        let entries = self.near.iter().chain(&self.far).map(|Reverse((.., at))| *at);
        let amounts = entries.filter_map(|at| self.pending(at)).map(|label| label.amount);
        let Some(amount) = amounts.min().filter(|amount| *amount > prepared.amount) else { return };
        let labels = &self.labels;
        let unsettled =
            self.near.drain().map(|Reverse((_, blocks, at))| (labels[at as usize].cost, blocks, at));
        self.far.extend(unsettled.map(Reverse));
        self.work = 0;
        bounds.cost.start(prepared, amount);
        self.advance::<PLAIN>(prepared, rules, bounds);
    }

    /// The label that an open queue entry stands for.
    fn pending(&self, entry: u32) -> Option<&Label> {
        let (at, stage) = match entry.checked_sub(LAZY) {
            Some(rest) => {
                self.lazy.least_cost(rest)?;
                (self.lazy_lists[rest as usize], Stage::Expanded)
            }
            None => (entry, Stage::Open),
        };
        Some(&self.labels[at as usize]).filter(|label| label.stage == stage && label.node != self.payer)
    }

    /// Whether the forward search should advance: as long as that may spare some of the backward search.
    #[inline]
    fn is_ahead(&self, forward: &Bounds) -> bool {
        let Some(Reverse((cost, ..))) = self.far.peek() else { return false };
        if cost.saturating_add(forward.radius()) >= self.cost_max {
            return false;
        }
        let leads = forward.open_count() < self.near.len() + self.far.len();
        forward.work < if leads { self.work * PACE } else { self.work / PACE }
    }

    /// Pops the entry with the lowest estimate.
    #[inline]
    fn next(&mut self, radius: u64) -> Option<(u64, u32, u32)> {
        let near = self.near.peek().map(|Reverse(near)| *near);
        let far =
            self.far.peek().map(|Reverse((cost, blocks, at))| (cost.saturating_add(radius), *blocks, *at));
        if near.is_some_and(|near| far.is_none_or(|far| near < far)) {
            self.near.pop();
            return near;
        }
        self.far.pop();
        far
    }

    /// Whether no entry from this estimate on can improve on the best route.
    #[inline]
    fn is_decided(&self, estimate: u64, blocks: u32) -> bool {
        estimate >= self.cost_max
            || self.best.is_some_and(|best| {
                let best = &self.labels[best as usize];
                let least = self.unpriced(best).saturating_add(self.block_price_max);
                (estimate, blocks) >= (least, best.blocks)
            })
    }

    /// Advances the forward search. An edge from the node it settles to an expanded label's node is crossed at once,
    /// so that all deferred blocks leave nodes that are not settled.
    fn advance<const PLAIN: bool>(
        &mut self,
        prepared: &PreparedQuery<'_>,
        rules: &Rules,
        bounds: &mut LowerBounds,
    ) {
        let settled = bounds.cost.grow(prepared, Measure::Cost);
        for node in bounds.cost.updated_nodes() {
            let first = self.first_at(*node);
            if (first as usize) < self.labels.len() {
                self.join::<PLAIN>(prepared, rules, bounds, first);
            }
        }
        let Some(node) = settled else { return };
        let rest = bounds.cost.of(node);
        let mut at = self.first_at(node);
        while let Some(label) = self.labels.get(at as usize) {
            if label.stage == Stage::Open {
                self.near.push(Reverse((label.cost.saturating_add(rest), label.blocks, at)));
            }
            at = label.sibling;
        }
        let edges = prepared.snapshot.incoming(node);
        for (inward, target) in edges.clone().zip(prepared.snapshot.sources(edges)) {
            if !self.expanded.contains(*target) {
                continue;
            }
            let number = prepared.snapshot.reverse(inward);
            let mut at = self.first_at(*target);
            while let Some(label) = self.labels.get(at as usize).copied() {
                if label.stage == Stage::Expanded {
                    self.meet::<PLAIN>(prepared, rules, bounds, (at, &label), (number, node));
                }
                at = label.sibling;
            }
        }
    }

    /// Expands a label, unless it was expanded or is dominated.
    fn expand<const PLAIN: bool>(
        &mut self,
        prepared: &PreparedQuery<'_>,
        rules: &Rules,
        bounds: &LowerBounds,
        at: u32,
        estimate: u64,
    ) {
        let label = &mut self.labels[at as usize];
        if label.stage != Stage::Open {
            return;
        }
        label.stage = Stage::Expanded;
        let label = *label;
        self.expanded.insert(label.node);
        let edges = prepared.snapshot.incoming(label.node);
        self.work += edges.len() / 4;
        for (number, source) in edges.clone().zip(prepared.snapshot.sources(edges.clone())) {
            if bounds.cost.is_settled(*source) {
                self.meet::<PLAIN>(prepared, rules, bounds, (at, &label), (number, *source));
            }
        }
        let blocks = prepared.snapshot.blocks(label.node);
        if blocks.is_empty() {
            return self.scan::<PLAIN>(prepared, rules, bounds, (at, &label), edges);
        }
        let heads = prepared.snapshot.inward_heads(blocks).flat_map(|(first, run)| (first..).zip(run));
        let rest = self.lazy.push_list(heads.filter_map(|(block, head)| {
            Some((prepared.least(BlockSide::Inward, block, head, label.amount)?, block))
        }));
        self.lazy_lists.push(at);
        self.resume::<PLAIN>(prepared, rules, bounds, rest, estimate);
    }

    /// Examines the deferred blocks whose lower bound has been reached, and queues the rest.
    fn resume<const PLAIN: bool>(
        &mut self,
        prepared: &PreparedQuery<'_>,
        rules: &Rules,
        bounds: &LowerBounds,
        rest: u32,
        estimate: u64,
    ) {
        let at = self.lazy_lists[rest as usize];
        let label = self.labels[at as usize];
        if label.stage == Stage::Dominated {
            return;
        }
        let least = label.cost.saturating_add(bounds.cost.radius());
        if let Some(most) = estimate.checked_sub(least) {
            while let Some(block) = self.lazy.pop_up_to(rest, most) {
                let edges = prepared.snapshot.block(label.node, block);
                self.scan::<PLAIN>(prepared, rules, bounds, (at, &label), edges);
            }
        }
        let Some(rise) = self.lazy.least_cost(rest) else { return };
        if least.saturating_add(rise) < self.cost_max {
            self.far.push(Reverse((label.cost.saturating_add(rise), label.blocks, LAZY + rest)));
        }
    }

    /// Extends a label by some edges, except those already crossed when the searches met.
    fn scan<const PLAIN: bool>(
        &mut self,
        prepared: &PreparedQuery<'_>,
        rules: &Rules,
        bounds: &LowerBounds,
        (at, label): (u32, &Label),
        edges: Range<u32>,
    ) {
        self.work += 2 * edges.len();
        for (first, run) in prepared.snapshot.runs(edges) {
            for (number, edge) in (first..).zip(run) {
                if !bounds.cost.is_settled(edge.source) {
                    let next = self.labels.len();
                    self.extend::<PLAIN>(prepared, rules, bounds, (at, label), (number, edge));
                    if self.labels.len() > next {
                        self.join::<PLAIN>(prepared, rules, bounds, next as u32);
                    }
                }
            }
        }
    }

    /// Extends a label by an edge from a settled node, and on from there to the payer.
    fn meet<const PLAIN: bool>(
        &mut self,
        prepared: &PreparedQuery<'_>,
        rules: &Rules,
        bounds: &LowerBounds,
        (at, label): (u32, &Label),
        (number, source): (u32, u32),
    ) {
        let next = self.labels.len();
        if label.cost.saturating_add(bounds.cost.of(source)) >= self.cost_max {
            return;
        }
        let front = &self.fronts[source as usize];
        if front.search == self.search && (front.first == BLOCKED || (PLAIN && front.dominates(label))) {
            return;
        }
        let edge = prepared.snapshot.edge(number);
        self.extend::<PLAIN>(prepared, rules, bounds, (at, label), (number, edge));
        if self.labels.len() > next {
            self.follow_to_payer::<PLAIN>(prepared, rules, bounds, next as u32);
        }
    }

    /// Follows a label to the payer where the forward search has found a path that would make the cheapest route so
    /// far.
    #[inline]
    fn join<const PLAIN: bool>(
        &mut self,
        prepared: &PreparedQuery<'_>,
        rules: &Rules,
        bounds: &LowerBounds,
        at: u32,
    ) {
        let label = &self.labels[at as usize];
        if let Some(rest) = bounds.cost.found(label.node)
            && label.cost.saturating_add(rest) < self.cost_max
        {
            self.follow_to_payer::<PLAIN>(prepared, rules, bounds, at);
        }
    }

    /// Follows the shortest path known from the payer, which gives a cost to beat early. The labels on it are
    /// ordinary ones.
    fn follow_to_payer<const PLAIN: bool>(
        &mut self,
        prepared: &PreparedQuery<'_>,
        rules: &Rules,
        bounds: &LowerBounds,
        mut at: u32,
    ) {
        loop {
            let label = self.labels[at as usize];
            let next = self.labels.len();
            let Some(number) = bounds.cost.over(label.node).filter(|_| label.node != prepared.payer) else {
                return;
            };
            let edge = prepared.snapshot.edge(number);
            self.extend::<PLAIN>(prepared, rules, bounds, (at, &label), (number, edge));
            if self.labels.len() == next {
                return;
            }
            at = next as u32;
        }
    }
}
