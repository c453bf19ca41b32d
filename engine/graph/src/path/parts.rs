//! Parts: a payment spread over several ways, judged and improved with the figures it will really have (BOLT 4,
//! "Basic Multi-Part Payments"; BOLT 7, "HTLC Fees").
//!
//! Owns the step from a flow to parts: its ways are taken apart, given amounts that add up to the millisatoshi, and
//! amounts are moved between ways, whole, as far as there is room or in steps, as long as that mends a broken limit or
//! lowers the cost. Amounts grow towards the payer by each part's own fees; what several parts put on one arc counts
//! together. Does not find ways ([`super::flow`] and the single-path search do), and knows nothing of the network but
//! [`Terms`].
//!
//! Invariant: the amounts of the ways always add up to the payment.

use fulmen_wire::units::Msat;

use crate::path::flow::Flow;
use crate::path::onion_room::{ONION_ROOM, forward_bytes, payee_bytes};
use crate::scoring::Bits;

/// What a part meets on its way. Arcs are numbered as in [`super::flow::Network`]; amounts are millisatoshis.
pub(crate) trait Terms {
    /// What the arc carries.
    fn bounds(&self, arc: u32) -> Bounds;

    /// What is asked for offering `amount` on the arc to the node after it; nothing on the payer's own channels.
    fn toll(&self, arc: u32, amount: u64) -> Toll;

    /// How unlikely it is that `together` gets over the arc.
    fn unlikely(&self, arc: u32, together: u64) -> Bits;

    /// What unlikeliness costs.
    fn price(&self, unlikely: Bits) -> u64;
}

/// Amounts an arc carries.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// The smallest part.
    pub(crate) minimum: u64,
    /// The largest part.
    pub(crate) maximum: u64,
    /// The most that all parts together may put on it.
    pub(crate) together: u64,
}

/// What crossing an arc adds.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Toll {
    /// To the amount.
    pub(crate) fee: u64,
    /// To the blocks until expiry.
    pub(crate) blocks: u32,
    /// To the cost: fee and price of delay.
    pub(crate) cost: u64,
}

/// A way, and what the payee gets over it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Way {
    /// From payer to payee.
    pub(crate) arcs: Vec<u32>,
    pub(crate) amount: u64,
}

/// What all parts together must keep.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Frame {
    pub(crate) parts_max: usize,
    pub(crate) fee_max: u64,
    /// From the height to the expiry of a first HTLC.
    pub(crate) blocks_max: u32,
    pub(crate) hops_max: usize,
    pub(crate) final_blocks: u32,
    pub(crate) height: u32,
    /// The payee's TLVs beyond amount and expiry.
    pub(crate) payee_extra_bytes: u32,
}

/// What parts are compared by: first by how far they break limits, then by their cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Verdict {
    /// By how many millisatoshis limits are broken; a part that is too long or too slow counts whole.
    pub(crate) over: u64,
    pub(crate) cost: u64,
    pub(crate) fee: u64,
    pub(crate) unlikely: Bits,
}

/// Takes a flow apart into ways, the widest first. `fits(arc)` is the most granules one part may put on an arc.
pub(crate) fn take_apart(
    flows: &[Flow],
    payer: u32,
    payee: u32,
    fits: impl Fn(u32) -> u32,
) -> Vec<(Vec<u32>, u32)> {
    let mut left: Vec<Flow> = flows.to_vec();
    left.sort_unstable_by_key(|flow| flow.arc);
    let mut ways = Vec::new();
    while let Some((arcs, width)) = widest(&left, payer, payee) {
        let part = arcs.iter().map(|at| fits(left[*at].arc)).fold(width, u32::min).max(1);
        // Parallel parts on one way, where a part may not be as large as what flows.
        let mut rest = width;
        while rest > 0 {
            let granules = rest.min(part);
            ways.push((arcs.iter().map(|at| left[*at].arc).collect(), granules));
            rest -= granules;
        }
        arcs.iter().for_each(|at| left[*at].granules -= width);
    }
    ways
}

/// The way that carries most, as positions in `flows`, and how much.
fn widest(flows: &[Flow], payer: u32, payee: u32) -> Option<(Vec<usize>, u32)> {
    // The best width known of each node that flow reaches, and the flow it comes by.
    let mut best: Vec<(u32, u32, usize)> = vec![(payer, u32::MAX, usize::MAX)];
    let width = |best: &[(u32, u32, usize)], node| {
        best.iter().find(|(at, ..)| *at == node).map_or(0, |(_, width, _)| *width)
    };
    let mut settled = Vec::new();
    loop {
        let open = best.iter().filter(|(node, ..)| !settled.contains(node));
        let (node, here, _) = *open.max_by_key(|(node, width, _)| (*width, std::cmp::Reverse(*node)))?;
        settled.push(node);
        if node == payee {
            break;
        }
        for (at, flow) in flows.iter().enumerate().filter(|(_, flow)| flow.from == node) {
            let through = here.min(flow.granules);
            if through > width(&best, flow.to) {
                best.retain(|(node, ..)| *node != flow.to);
                best.push((flow.to, through, at));
            }
        }
    }
    let found = width(&best, payee);
    let (mut way, mut at) = (Vec::new(), payee);
    while at != payer {
        let (_, _, by) = *best.iter().find(|(node, ..)| *node == at)?;
        way.push(by);
        at = flows[by].from;
    }
    way.reverse();
    Some((way, found))
}

/// Ways with amounts in proportion to their granules, adding up to `amount` exactly.
pub(crate) fn fill(ways: Vec<(Vec<u32>, u32)>, amount: u64) -> Vec<Way> {
    let granules: u64 = ways.iter().map(|(_, granules)| u64::from(*granules)).sum();
    let (mut before, mut given) = (0, 0);
    let share = |granules_before: u64| {
        let share = u128::from(amount) * u128::from(granules_before) / u128::from(granules.max(1));
        u64::try_from(share).unwrap_or(amount)
    };
    let mut filled = Vec::with_capacity(ways.len());
    for (arcs, granules) in ways {
        before += u64::from(granules);
        let end = share(before);
        filled.push(Way { arcs, amount: end - given });
        given = end;
    }
    filled
}

/// Judges parts again and again; keeps its memory.
#[derive(Debug, Default)]
pub(crate) struct Judge {
    /// What all parts put on each arc they use.
    loads: Vec<(u32, u64)>,
}

impl Judge {
    /// Judges ways; those without an amount do not count.
    pub(crate) fn judge(&mut self, terms: &impl Terms, frame: &Frame, ways: &[Way]) -> Verdict {
        self.loads.clear();
        let mut verdict = Verdict::default();
        let (mut parts, mut smallest) = (0, u64::MAX);
        for way in ways.iter().filter(|way| way.amount > 0) {
            parts += 1;
            smallest = smallest.min(way.amount);
            self.walk(terms, frame, way, &mut verdict);
        }
        for (arc, together) in &self.loads {
            let over = together.saturating_sub(terms.bounds(*arc).together);
            verdict.over = verdict.over.saturating_add(over);
            let unlikely = terms.unlikely(*arc, *together);
            verdict.unlikely.0 = verdict.unlikely.0.saturating_add(unlikely.0);
            verdict.cost = verdict.cost.saturating_add(terms.price(unlikely));
        }
        verdict.over = verdict.over.saturating_add(verdict.fee.saturating_sub(frame.fee_max));
        if parts > frame.parts_max {
            verdict.over = verdict.over.saturating_add(smallest);
        }
        verdict
    }

    /// Follows one part from the payee to the payer.
    fn walk(&mut self, terms: &impl Terms, frame: &Frame, way: &Way, verdict: &mut Verdict) {
        let (mut amount, mut blocks) = (way.amount, frame.final_blocks);
        let expiry = |blocks: u32| frame.height.saturating_add(blocks);
        let mut onion = payee_bytes(Msat(amount), expiry(blocks), frame.payee_extra_bytes);
        for (at, arc) in way.arcs.iter().enumerate().rev() {
            let bounds = terms.bounds(*arc);
            let outside = bounds.minimum.saturating_sub(amount).max(amount.saturating_sub(bounds.maximum));
            verdict.over = verdict.over.saturating_add(outside);
            match self.loads.iter_mut().find(|(other, _)| other == arc) {
                Some((_, load)) => *load = load.saturating_add(amount),
                None => self.loads.push((*arc, amount)),
            }
            if at > 0 {
                onion = onion.saturating_add(forward_bytes(Msat(amount), expiry(blocks)));
            }
            let toll = terms.toll(*arc, amount);
            amount = amount.saturating_add(toll.fee);
            blocks = blocks.saturating_add(toll.blocks);
            verdict.cost = verdict.cost.saturating_add(toll.cost);
        }
        verdict.fee = verdict.fee.saturating_add(amount - way.amount);
        if blocks > frame.blocks_max || way.arcs.len() > frame.hops_max || onion > ONION_ROOM {
            verdict.over = verdict.over.saturating_add(way.amount);
        }
    }

    /// Moves an amount from one way to another if that helps.
    fn shift(
        &mut self,
        terms: &impl Terms,
        frame: &Frame,
        ways: &mut [Way],
        (from, to, amount): (usize, usize, u64),
        best: &mut Verdict,
    ) -> bool {
        ways[from].amount -= amount;
        ways[to].amount += amount;
        let verdict = self.judge(terms, frame, ways);
        let helps = verdict < *best;
        if helps {
            *best = verdict;
        } else {
            ways[from].amount += amount;
            ways[to].amount -= amount;
        }
        helps
    }

    /// Spreads one way's amount over the room on the others if that helps.
    fn dissolve(
        &mut self,
        terms: &impl Terms,
        frame: &Frame,
        ways: &mut [Way],
        from: usize,
        best: &mut Verdict,
    ) -> bool {
        let before: Vec<u64> = ways.iter().map(|way| way.amount).collect();
        for to in (0..ways.len()).filter(|to| *to != from) {
            if before[to] > 0 {
                let amount = self.room(terms, frame, ways, (from, to));
                ways[from].amount -= amount;
                ways[to].amount += amount;
            }
        }
        let verdict = self.judge(terms, frame, ways);
        let helps = verdict < *best;
        if helps {
            *best = verdict;
        } else {
            ways.iter_mut().zip(before).for_each(|(way, amount)| way.amount = amount);
        }
        helps
    }

    /// How much of the amount of one way another has room for.
    pub(crate) fn room(
        &mut self,
        terms: &impl Terms,
        frame: &Frame,
        ways: &[Way],
        (from, to): (usize, usize),
    ) -> u64 {
        self.loads.clear();
        let mut verdict = Verdict::default();
        for (at, way) in ways.iter().enumerate().filter(|(_, way)| way.amount > 0) {
            if at != from && at != to {
                self.walk(terms, frame, way, &mut verdict);
            }
        }
        let loads = &self.loads;
        let most = |arc: u32| {
            let bounds = terms.bounds(arc);
            let load = loads.iter().find(|(other, _)| *other == arc).map_or(0, |(_, load)| *load);
            bounds.maximum.min(bounds.together.saturating_sub(load))
        };
        // What is left over on the narrowest arc, below zero where there is too much on it.
        let left = |amount: u64| {
            let (mut amount, mut left) = (amount, i64::MAX);
            for arc in ways[to].arcs.iter().rev() {
                let signed = |amount: u64| i64::try_from(amount).unwrap_or(i64::MAX);
                left = left.min(signed(most(*arc)).saturating_sub(signed(amount)));
                amount = amount.saturating_add(terms.toll(*arc, amount).fee);
            }
            left
        };
        let mut room = 0_u64;
        for _ in 0..ROOM_STEPS {
            room = room.saturating_add_signed(left(room));
        }
        // Fees only grow with the amount: less by what is too much fits.
        let room = room.saturating_add_signed(left(room).min(0));
        room.saturating_sub(ways[to].amount).min(ways[from].amount)
    }

    /// Moves amounts between ways as long as that helps, and drops those that end without one. Gives the last verdict.
    pub(crate) fn improve(&mut self, terms: &impl Terms, frame: &Frame, ways: &mut Vec<Way>) -> Verdict {
        let mut best = self.judge(terms, frame, ways);
        let total: u64 = ways.iter().map(|way| way.amount).sum();
        let mut judgements = 0;
        // Whole parts first, which saves base fees, or as much as fits; then ever smaller amounts.
        let mut step = total;
        while step > 0 {
            let mut moved = false;
            for from in 0..ways.len() {
                if step == total && ways[from].amount > 0 {
                    judgements += 2 * ways.len();
                    moved |= self.dissolve(terms, frame, ways, from, &mut best);
                }
                for to in 0..ways.len() {
                    let amount = ways[from].amount.min(step);
                    // The first step is the whole part, later ones leave something.
                    if from == to || amount == 0 || (step < total && amount < step) {
                        continue;
                    }
                    judgements += 1;
                    let mut helps = self.shift(terms, frame, ways, (from, to, amount), &mut best);
                    if !helps && step == total {
                        judgements += 2;
                        let amount = self.room(terms, frame, ways, (from, to));
                        helps = self.shift(terms, frame, ways, (from, to, amount), &mut best);
                    }
                    moved |= helps;
                }
            }
            if judgements > JUDGEMENTS_MAX {
                break;
            }
            if !moved {
                // Broken limits are mended to the millisatoshi; costs are not worth that.
                let least = if best.over > 0 { 1 } else { total / FINENESS };
                step /= 2;
                if step < least.max(1) {
                    break;
                }
            }
        }
        ways.retain(|way| way.amount > 0);
        best
    }
}

/// How many divisions of parts are tried at most: about a microsecond each.
const JUDGEMENTS_MAX: usize = 600;

/// How often the room on a way is narrowed down: each time to what fees make of the rest.
const ROOM_STEPS: usize = 4;

/// Amounts below this fraction of the payment are not moved to lower its cost.
const FINENESS: u64 = 32;
