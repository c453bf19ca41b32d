//! What is taken up in which order, and what is put off.
//!
//! Owns the pace of both searches and their meeting: where the forward search settles a node from which an edge leads to a
//! taken label, or a label is taken up at a node with an edge from a settled one, that edge is crossed at once. So whatever
//! is put off leaves nodes that are not settled, and costs no less than its block's least and the radius. Where either finds
//! a way to a node to which the other has found one as well, both make a whole route, which is looked at there and then: of
//! the many nodes that are equally far, where fees are nothing or the same, most need not be taken up once a route of that
//! cost is known. When a search takes long, the forward one starts anew with what fees have come to by then. Does not know
//! which labels may be dropped for which; [`super`] does.

use std::cmp::Reverse;
use std::ops::Range;

use crate::path::search::bounds::{Bounds, Measure};
use crate::path::search::labels::{BLOCKED, Exhausted, Found, Guides, Label, Labels, RESTS, Rules, Stage};
use crate::path::search::task::{Side, Task};

/// After how many comparisons a search in which labels do not easily stand in for each other is worth complete bounds.
const COMPARISONS_BEFORE_GUIDES: usize = 100_000;

/// How many times as much as the other that search may look at which has fewer things open: it is likely to be through
/// with what is of one cost sooner. Of one to four, three served best.
const PACE: usize = 3;

/// How much both searches may look at before the forward search starts anew with a larger amount. In tests so little that
/// small graphs get there.
const RAISE_WORK: usize = if cfg!(test) { 8 } else { 8000 };

impl Labels {
    /// Takes labels up in their order until none that is left can lead to a cheaper route.
    pub(super) fn sweep<const PLAIN: bool>(
        &mut self,
        task: &Task<'_>,
        rules: &Rules,
        guides: &mut Guides,
        comparisons_max: usize,
    ) -> Result<Option<Found>, Exhausted> {
        let complete_at = self.comparisons + COMPARISONS_BEFORE_GUIDES;
        let mut complete = PLAIN;
        // Where minimums are lifted, too many ways without a fee are worth a look.
        let mut raised = rules.lift.is_some();
        while let Some((estimate, blocks, at)) = self.next(guides.cost.radius()) {
            if self.is_decided(estimate, blocks) {
                break;
            }
            if at >= RESTS {
                self.resume::<PLAIN>(task, rules, guides, at - RESTS, estimate);
            } else {
                self.take::<PLAIN>(task, rules, guides, at, estimate);
            }
            if !complete && self.comparisons > complete_at {
                while guides.cost.is_growing() {
                    self.advance::<PLAIN>(task, rules, guides);
                }
                guides.complete(task);
                complete = true;
            }
            if self.comparisons > comparisons_max {
                return Err(Exhausted);
            }
            if !raised && self.work + guides.cost.work > RAISE_WORK {
                self.raise::<PLAIN>(task, rules, guides, comparisons_max);
                raised = true;
            }
            // The two searches keep pace: neither covers the graph where they can meet half way.
            while guides.cost.is_growing() && self.is_ahead(&guides.cost) {
                self.advance::<PLAIN>(task, rules, guides);
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

    /// Starts the forward search anew for no less than what all that is open carries. Until then it uses channels that are
    /// just wide enough for the payment, as many of a round capacity are for a round amount, but not for fees on top. Where
    /// such a one seems the only cheap way, the backward search goes through half the network before that is ruled out.
    fn raise<const PLAIN: bool>(
        &mut self,
        task: &Task<'_>,
        rules: &Rules,
        guides: &mut Guides,
        comparisons_max: usize,
    ) {
        // What bears no fee so far is taken up first, and looked at in full.
        for rest in 0..self.rests.len() {
            if self.labels[self.rests[rest] as usize].amount == task.amount {
                self.resume::<PLAIN>(task, rules, guides, rest as u32, u64::MAX);
            }
        }
        let mut at = 0;
        while let Some(label) = self.labels.get(at) {
            if label.amount == task.amount && label.node != task.payer {
                self.take::<PLAIN>(task, rules, guides, at as u32, u64::MAX);
            }
            if self.comparisons > comparisons_max {
                return;
            }
            at += 1;
        }
        let entries = self.near.iter().chain(&self.far).map(|Reverse((.., at))| *at);
        let amounts = entries.filter_map(|at| self.pending(at)).map(|label| label.amount);
        let Some(amount) = amounts.min().filter(|amount| *amount > task.amount) else { return };
        let labels = &self.labels;
        let unsettled =
            self.near.drain().map(|Reverse((_, blocks, at))| (labels[at as usize].cost, blocks, at));
        self.far.extend(unsettled.map(Reverse));
        self.work = 0;
        guides.cost.start(task, amount);
        self.advance::<PLAIN>(task, rules, guides);
    }

    /// The label that an entry of what is open has still to be looked at for.
    fn pending(&self, entry: u32) -> Option<&Label> {
        let (at, stage) = match entry.checked_sub(RESTS) {
            Some(rest) => {
                self.later.least(rest)?;
                (self.rests[rest as usize], Stage::Taken)
            }
            None => (entry, Stage::Open),
        };
        Some(&self.labels[at as usize]).filter(|label| label.stage == stage && label.node != self.payer)
    }

    /// Whether it is the forward search's turn: as long as that may spare something of what it has not met.
    #[inline]
    fn is_ahead(&self, forward: &Bounds) -> bool {
        let Some(Reverse((cost, ..))) = self.far.peek() else { return false };
        if cost.saturating_add(forward.radius()) >= self.cost_max {
            return false;
        }
        let leads = forward.open_count() < self.near.len() + self.far.len();
        forward.work < if leads { self.work * PACE } else { self.work / PACE }
    }

    /// Takes out what has the least estimate.
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

    /// Whether nothing from an estimate on can be better than what has been found.
    #[inline]
    fn is_decided(&self, estimate: u64, blocks: u32) -> bool {
        estimate >= self.cost_max
            || self.best.is_some_and(|best| {
                let best = &self.labels[best as usize];
                let least = self.unpriced(best).saturating_add(self.block_price_max);
                (estimate, blocks) >= (least, best.blocks)
            })
    }

    /// Lets the forward search go on. Where it settles a node from which an edge leads to a taken label, that edge is
    /// crossed at once: whatever is put off then leaves nodes that are not settled.
    fn advance<const PLAIN: bool>(&mut self, task: &Task<'_>, rules: &Rules, guides: &mut Guides) {
        let settled = guides.cost.grow(task, Measure::Cost);
        for node in guides.cost.news() {
            let first = self.first_at(*node);
            if (first as usize) < self.labels.len() {
                self.join::<PLAIN>(task, rules, guides, first);
            }
        }
        let Some(node) = settled else { return };
        let rest = guides.cost.of(node);
        let mut at = self.first_at(node);
        while let Some(label) = self.labels.get(at as usize) {
            if label.stage == Stage::Open {
                self.near.push(Reverse((label.cost.saturating_add(rest), label.blocks, at)));
            }
            at = label.sibling;
        }
        let edges = task.snapshot.incoming(node);
        for (inward, target) in edges.clone().zip(task.snapshot.sources(edges)) {
            if !self.taken.contains(*target) {
                continue;
            }
            let number = task.snapshot.reverse(inward);
            let mut at = self.first_at(*target);
            while let Some(label) = self.labels.get(at as usize).copied() {
                if label.stage == Stage::Taken {
                    self.meet::<PLAIN>(task, rules, guides, (at, &label), (number, node));
                }
                at = label.sibling;
            }
        }
    }

    /// Takes a label up, unless that has been done or another has taken its place.
    fn take<const PLAIN: bool>(
        &mut self,
        task: &Task<'_>,
        rules: &Rules,
        guides: &Guides,
        at: u32,
        estimate: u64,
    ) {
        let label = &mut self.labels[at as usize];
        if label.stage != Stage::Open {
            return;
        }
        label.stage = Stage::Taken;
        let label = *label;
        self.taken.insert(label.node);
        let edges = task.snapshot.incoming(label.node);
        self.work += edges.len() / 4;
        for (number, source) in edges.clone().zip(task.snapshot.sources(edges.clone())) {
            if guides.cost.is_settled(*source) {
                self.meet::<PLAIN>(task, rules, guides, (at, &label), (number, *source));
            }
        }
        let blocks = task.snapshot.blocks(label.node);
        if blocks.is_empty() {
            return self.scan::<PLAIN>(task, rules, guides, (at, &label), edges);
        }
        let heads = task.snapshot.inward_heads(blocks).flat_map(|(first, run)| (first..).zip(run));
        let rest =
            self.later.put(heads.filter_map(|(block, head)| {
                Some((task.least(Side::Inward, block, head, label.amount)?, block))
            }));
        self.rests.push(at);
        self.resume::<PLAIN>(task, rules, guides, rest, estimate);
    }

    /// Looks at the blocks put off whose turn it is, and puts off what is left.
    fn resume<const PLAIN: bool>(
        &mut self,
        task: &Task<'_>,
        rules: &Rules,
        guides: &Guides,
        rest: u32,
        estimate: u64,
    ) {
        let at = self.rests[rest as usize];
        let label = self.labels[at as usize];
        if label.stage == Stage::Replaced {
            return;
        }
        let least = label.cost.saturating_add(guides.cost.radius());
        if let Some(most) = estimate.checked_sub(least) {
            while let Some(block) = self.later.take(rest, most) {
                let edges = task.snapshot.block(label.node, block);
                self.scan::<PLAIN>(task, rules, guides, (at, &label), edges);
            }
        }
        let Some(rise) = self.later.least(rest) else { return };
        if least.saturating_add(rise) < self.cost_max {
            self.far.push(Reverse((label.cost.saturating_add(rise), label.blocks, RESTS + rest)));
        }
    }

    /// Offers the labels that are longer by some edges, leaving out those that were crossed when the searches met.
    fn scan<const PLAIN: bool>(
        &mut self,
        task: &Task<'_>,
        rules: &Rules,
        guides: &Guides,
        (at, label): (u32, &Label),
        edges: Range<u32>,
    ) {
        self.work += 2 * edges.len();
        for (first, run) in task.snapshot.runs(edges) {
            for (number, edge) in (first..).zip(run) {
                if !guides.cost.is_settled(edge.source) {
                    let next = self.labels.len();
                    self.cross::<PLAIN>(task, rules, guides, (at, label), (number, edge));
                    if self.labels.len() > next {
                        self.join::<PLAIN>(task, rules, guides, next as u32);
                    }
                }
            }
        }
    }

    /// Offers the label that is longer by an edge from a settled node, and those on from there to the payer.
    fn meet<const PLAIN: bool>(
        &mut self,
        task: &Task<'_>,
        rules: &Rules,
        guides: &Guides,
        (at, label): (u32, &Label),
        (number, source): (u32, u32),
    ) {
        let next = self.labels.len();
        if label.cost.saturating_add(guides.cost.of(source)) >= self.cost_max {
            return;
        }
        let front = &self.fronts[source as usize];
        if front.search == self.search && (front.first == BLOCKED || (PLAIN && front.outdoes(label))) {
            return;
        }
        let edge = task.snapshot.edge(number);
        self.cross::<PLAIN>(task, rules, guides, (at, label), (number, edge));
        if self.labels.len() > next {
            self.dive::<PLAIN>(task, rules, guides, next as u32);
        }
    }

    /// Follows a label to the payer where the forward search has found a way that would make the cheapest route so far.
    #[inline]
    fn join<const PLAIN: bool>(&mut self, task: &Task<'_>, rules: &Rules, guides: &Guides, at: u32) {
        let label = &self.labels[at as usize];
        if let Some(rest) = guides.cost.found(label.node)
            && label.cost.saturating_add(rest) < self.cost_max
        {
            self.dive::<PLAIN>(task, rules, guides, at);
        }
    }

    /// Follows the nearest known way to the payer, so that a cost to beat is soon known. What it finds on the way are
    /// labels like others.
    fn dive<const PLAIN: bool>(&mut self, task: &Task<'_>, rules: &Rules, guides: &Guides, mut at: u32) {
        loop {
            let label = self.labels[at as usize];
            let next = self.labels.len();
            let Some(number) = guides.cost.over(label.node).filter(|_| label.node != task.payer) else {
                return;
            };
            let edge = task.snapshot.edge(number);
            self.cross::<PLAIN>(task, rules, guides, (at, &label), (number, edge));
            if self.labels.len() == next {
                return;
            }
            at = next as u32;
        }
    }
}
