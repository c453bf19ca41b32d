//! Parts: a payment spread over several paths, judged and improved with the figures it will really have (BOLT 4,
//! "Basic Multi-Part Payments"; BOLT 7, "HTLC Fees").
//!
//! Owns the step from a flow to parts: its paths are taken apart, given amounts that add up to the millisatoshi, and
//! amounts are moved between paths, whole, as far as there is room or in steps, as long as that mends a broken limit or
//! lowers the cost. Amounts grow towards the payer by each part's own fees; what several parts put on one arc counts
//! aggregate_max. Does not find paths ([`super::flow`] and the single-path search do), and knows nothing of the graph but
//! [`ArcCosts`].
//!
//! Invariant: the amounts of the paths always add up to the payment.

use fulmen_wire::units::Msat;

use crate::path::flow::Flow;
use crate::path::onion_room::{ONION_ROOM, forward_bytes, payee_bytes};
use crate::scoring::Uncertainty;

/// What a part meets on its path. Arcs are numbered as in [`super::flow::FlowGraph`]; amounts are millisatoshis.
pub(crate) trait ArcCosts {
    /// What the arc carries.
    fn bounds(&self, arc: u32) -> Bounds;

    /// What is asked for offering `amount` on the arc to the node after it; nothing on the payer's own channels.
    fn hop_cost(&self, arc: u32, amount: u64) -> HopCost;

    /// How uncertainty it is that `together` gets over the arc.
    fn uncertainty(&self, arc: u32, aggregate_max: u64) -> Uncertainty;

    /// What unlikeliness costs.
    fn price(&self, uncertainty: Uncertainty) -> u64;
}

/// Amounts an arc carries.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// The smallest part.
    pub(crate) minimum: u64,
    /// The largest part.
    pub(crate) maximum: u64,
    /// The most that all parts together may put on it.
    pub(crate) aggregate_max: u64,
}

/// What crossing an arc adds.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct HopCost {
    /// To the amount.
    pub(crate) fee: u64,
    /// To the blocks until expiry.
    pub(crate) blocks: u32,
    /// To the cost: fee and price of delay.
    pub(crate) cost: u64,
}

/// A path, and what the payee gets over it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PartPath {
    /// From payer to payee.
    pub(crate) arcs: Vec<u32>,
    pub(crate) amount: u64,
}

/// What all parts together must keep.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PaymentLimits {
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
pub(crate) struct Evaluation {
    /// By how many millisatoshis limits are broken; a part that is too long or too slow counts whole.
    pub(crate) over: u64,
    pub(crate) cost: u64,
    pub(crate) fee: u64,
    pub(crate) uncertainty: Uncertainty,
}

/// Takes a flow apart into paths, the widest first. `fits(arc)` is the most granules one part may put on an arc.
pub(crate) fn decompose(
    flows: &[Flow],
    payer: u32,
    payee: u32,
    fits: impl Fn(u32) -> u32,
) -> Vec<(Vec<u32>, u32)> {
    let mut left: Vec<Flow> = flows.to_vec();
    left.sort_unstable_by_key(|flow| flow.arc);
    let mut paths = Vec::new();
    while let Some((arcs, width)) = widest(&left, payer, payee) {
        let part = arcs.iter().map(|at| fits(left[*at].arc)).fold(width, u32::min).max(1);
        // Parallel parts on one path, where a part may not be as large as what flows.
        let mut rest = width;
        while rest > 0 {
            let granules = rest.min(part);
            paths.push((arcs.iter().map(|at| left[*at].arc).collect(), granules));
            rest -= granules;
        }
        arcs.iter().for_each(|at| left[*at].granules -= width);
    }
    paths
}

/// The path that carries most, as positions in `flows`, and how much.
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
    let (mut path, mut at) = (Vec::new(), payee);
    while at != payer {
        let (_, _, by) = *best.iter().find(|(node, ..)| *node == at)?;
        path.push(by);
        at = flows[by].from;
    }
    path.reverse();
    Some((path, found))
}

/// Ways with amounts in proportion to their granules, adding up to `amount` exactly.
pub(crate) fn fill(paths: Vec<(Vec<u32>, u32)>, amount: u64) -> Vec<PartPath> {
    let granules: u64 = paths.iter().map(|(_, granules)| u64::from(*granules)).sum();
    let (mut before, mut given) = (0, 0);
    let share = |granules_before: u64| {
        let share = u128::from(amount) * u128::from(granules_before) / u128::from(granules.max(1));
        u64::try_from(share).unwrap_or(amount)
    };
    let mut filled = Vec::with_capacity(paths.len());
    for (arcs, granules) in paths {
        before += u64::from(granules);
        let end = share(before);
        filled.push(PartPath { arcs, amount: end - given });
        given = end;
    }
    filled
}

/// Judges parts again and again; keeps its memory.
#[derive(Debug, Default)]
pub(crate) struct Evaluator {
    /// What all parts put on each arc they use.
    loads: Vec<(u32, u64)>,
}

impl Evaluator {
    /// Judges paths; those without an amount do not count.
    pub(crate) fn evaluate(
        &mut self,
        costs: &impl ArcCosts,
        limits: &PaymentLimits,
        paths: &[PartPath],
    ) -> Evaluation {
        self.loads.clear();
        let mut evaluation = Evaluation::default();
        let (mut parts, mut smallest) = (0, u64::MAX);
        for path in paths.iter().filter(|path| path.amount > 0) {
            parts += 1;
            smallest = smallest.min(path.amount);
            self.walk(costs, limits, path, &mut evaluation);
        }
        for (arc, aggregate_max) in &self.loads {
            let over = aggregate_max.saturating_sub(costs.bounds(*arc).aggregate_max);
            evaluation.over = evaluation.over.saturating_add(over);
            let uncertainty = costs.uncertainty(*arc, *aggregate_max);
            evaluation.uncertainty.0 = evaluation.uncertainty.0.saturating_add(uncertainty.0);
            evaluation.cost = evaluation.cost.saturating_add(costs.price(uncertainty));
        }
        evaluation.over = evaluation.over.saturating_add(evaluation.fee.saturating_sub(limits.fee_max));
        if parts > limits.parts_max {
            evaluation.over = evaluation.over.saturating_add(smallest);
        }
        evaluation
    }

    /// Follows one part from the payee to the payer.
    fn walk(
        &mut self,
        costs: &impl ArcCosts,
        limits: &PaymentLimits,
        path: &PartPath,
        evaluation: &mut Evaluation,
    ) {
        let (mut amount, mut blocks) = (path.amount, limits.final_blocks);
        let expiry = |blocks: u32| limits.height.saturating_add(blocks);
        let mut onion = payee_bytes(Msat(amount), expiry(blocks), limits.payee_extra_bytes);
        for (at, arc) in path.arcs.iter().enumerate().rev() {
            let bounds = costs.bounds(*arc);
            let outside = bounds.minimum.saturating_sub(amount).max(amount.saturating_sub(bounds.maximum));
            evaluation.over = evaluation.over.saturating_add(outside);
            match self.loads.iter_mut().find(|(other, _)| other == arc) {
                Some((_, load)) => *load = load.saturating_add(amount),
                None => self.loads.push((*arc, amount)),
            }
            if at > 0 {
                onion = onion.saturating_add(forward_bytes(Msat(amount), expiry(blocks)));
            }
            let hop_cost = costs.hop_cost(*arc, amount);
            amount = amount.saturating_add(hop_cost.fee);
            blocks = blocks.saturating_add(hop_cost.blocks);
            evaluation.cost = evaluation.cost.saturating_add(hop_cost.cost);
        }
        evaluation.fee = evaluation.fee.saturating_add(amount - path.amount);
        if blocks > limits.blocks_max || path.arcs.len() > limits.hops_max || onion > ONION_ROOM {
            evaluation.over = evaluation.over.saturating_add(path.amount);
        }
    }

    /// Moves an amount from one path to another if that helps.
    fn shift(
        &mut self,
        costs: &impl ArcCosts,
        limits: &PaymentLimits,
        paths: &mut [PartPath],
        (from, to, amount): (usize, usize, u64),
        best: &mut Evaluation,
    ) -> bool {
        paths[from].amount -= amount;
        paths[to].amount += amount;
        let evaluation = self.evaluate(costs, limits, paths);
        let helps = evaluation < *best;
        if helps {
            *best = evaluation;
        } else {
            paths[from].amount += amount;
            paths[to].amount -= amount;
        }
        helps
    }

    /// Spreads one path's amount over the room on the others if that helps.
    fn dissolve(
        &mut self,
        costs: &impl ArcCosts,
        limits: &PaymentLimits,
        paths: &mut [PartPath],
        from: usize,
        best: &mut Evaluation,
    ) -> bool {
        let before: Vec<u64> = paths.iter().map(|path| path.amount).collect();
        for to in (0..paths.len()).filter(|to| *to != from) {
            if before[to] > 0 {
                let amount = self.room(costs, limits, paths, (from, to));
                paths[from].amount -= amount;
                paths[to].amount += amount;
            }
        }
        let evaluation = self.evaluate(costs, limits, paths);
        let helps = evaluation < *best;
        if helps {
            *best = evaluation;
        } else {
            paths.iter_mut().zip(before).for_each(|(path, amount)| path.amount = amount);
        }
        helps
    }

    /// How much of the amount of one path another has room for.
    pub(crate) fn room(
        &mut self,
        costs: &impl ArcCosts,
        limits: &PaymentLimits,
        paths: &[PartPath],
        (from, to): (usize, usize),
    ) -> u64 {
        self.loads.clear();
        let mut evaluation = Evaluation::default();
        for (at, path) in paths.iter().enumerate().filter(|(_, path)| path.amount > 0) {
            if at != from && at != to {
                self.walk(costs, limits, path, &mut evaluation);
            }
        }
        let loads = &self.loads;
        let most = |arc: u32| {
            let bounds = costs.bounds(arc);
            let load = loads.iter().find(|(other, _)| *other == arc).map_or(0, |(_, load)| *load);
            bounds.maximum.min(bounds.aggregate_max.saturating_sub(load))
        };
        // What is left over on the narrowest arc, below zero where there is too much on it.
        let left = |amount: u64| {
            let (mut amount, mut left) = (amount, i64::MAX);
            for arc in paths[to].arcs.iter().rev() {
                let signed = |amount: u64| i64::try_from(amount).unwrap_or(i64::MAX);
                left = left.min(signed(most(*arc)).saturating_sub(signed(amount)));
                amount = amount.saturating_add(costs.hop_cost(*arc, amount).fee);
            }
            left
        };
        let mut room = 0_u64;
        for _ in 0..ROOM_STEPS {
            room = room.saturating_add_signed(left(room));
        }
        // Fees only grow with the amount: less by what is too much fits.
        let room = room.saturating_add_signed(left(room).min(0));
        room.saturating_sub(paths[to].amount).min(paths[from].amount)
    }

    /// Moves amounts between paths as long as that helps, and drops those that end without one. Gives the last evaluation.
    pub(crate) fn improve(
        &mut self,
        costs: &impl ArcCosts,
        limits: &PaymentLimits,
        paths: &mut Vec<PartPath>,
    ) -> Evaluation {
        let mut best = self.evaluate(costs, limits, paths);
        let total: u64 = paths.iter().map(|path| path.amount).sum();
        let mut evaluations = 0;
        // Whole parts first, which saves base fees, or as much as fits; then ever smaller amounts.
        let mut step = total;
        while step > 0 {
            let mut moved = false;
            for from in 0..paths.len() {
                if step == total && paths[from].amount > 0 {
                    evaluations += 2 * paths.len();
                    moved |= self.dissolve(costs, limits, paths, from, &mut best);
                }
                for to in 0..paths.len() {
                    let amount = paths[from].amount.min(step);
                    // The first step is the whole part, later ones leave something.
                    if from == to || amount == 0 || (step < total && amount < step) {
                        continue;
                    }
                    evaluations += 1;
                    let mut helps = self.shift(costs, limits, paths, (from, to, amount), &mut best);
                    if !helps && step == total {
                        evaluations += 2;
                        let amount = self.room(costs, limits, paths, (from, to));
                        helps = self.shift(costs, limits, paths, (from, to, amount), &mut best);
                    }
                    moved |= helps;
                }
            }
            if evaluations > EVALUATIONS_MAX {
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
        paths.retain(|path| path.amount > 0);
        best
    }
}

/// How many divisions of parts are tried at most: about a microsecond each.
const EVALUATIONS_MAX: usize = 600;

/// How often the room on a path is narrowed down: each time to what fees make of the rest.
const ROOM_STEPS: usize = 4;

/// Amounts below this fraction of the payment are not moved to lower its cost.
const FINENESS: u64 = 32;
