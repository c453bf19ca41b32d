//! Payments in parts: several paths with amounts, evaluated and improved with exact figures (BOLT 4, "Basic
//! Multi-Part Payments"; BOLT 7, "HTLC Fees").
//!
//! Owns the step from a flow to parts. A flow is decomposed into paths whose amounts add up to the payment to the
//! millisatoshi; then amounts move between paths, whole, as far as there is room or in steps, as long as that repairs
//! a broken limit or lowers the cost. Amounts grow towards the payer by the fees of their own part; the amounts that
//! several parts put on one arc count together. Does not find paths ([`super::flow`] and the single-path search do),
//! and knows nothing of the network beyond [`ArcCosts`].
//!
//! Invariant: the amounts of the paths always add up to the payment.

use fulmen_wire::units::Msat;

use crate::path::flow::Flow;
use crate::path::knowledge::EdgeLimit;
use crate::path::onion_room::{ONION_ROOM, forward_bytes, payee_bytes};
use crate::path::prices::HopCost;
use crate::scoring::Uncertainty;

/// Limits and costs of arcs, which are numbered as in [`super::flow::FlowGraph`]. Amounts are millisatoshis.
pub(crate) trait ArcCosts {
    /// The amounts that the arc carries.
    fn limit(&self, arc: u32) -> EdgeLimit;

    /// The cost of one part that offers `amount` on the arc, without its uncertainty. The payer's own channels charge
    /// no fee and add no blocks.
    fn hop_cost(&self, arc: u32, amount: u64) -> HopCost;

    /// The uncertainty of the arc when all parts together put `aggregate` on it.
    fn uncertainty(&self, arc: u32, aggregate: u64) -> Uncertainty;

    /// The price of an uncertainty.
    fn uncertainty_cost(&self, uncertainty: Uncertainty) -> u64;
}

/// The path of one part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PartPath {
    /// From payer to payee.
    pub(crate) arcs: Vec<u32>,
    /// The amount that the payee receives over it.
    pub(crate) amount: u64,
}

/// The limits of a payment, which its parts must keep together.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PaymentLimits {
    pub(crate) parts_max: usize,
    /// In millisatoshi, for all parts together.
    pub(crate) fee_max: u64,
    /// From the current height to the expiry of a part's first HTLC.
    pub(crate) blocks_max: u32,
    pub(crate) hops_max: usize,
    /// From the current height to the expiry of the last HTLC.
    pub(crate) final_blocks: u32,
    pub(crate) height: u32,
    /// Bytes of the payee's TLVs beyond amount and expiry.
    pub(crate) payee_extra_bytes: u32,
}

/// The figures that sets of parts are compared by: first how far they exceed limits, then their cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Evaluation {
    /// By how many millisatoshis limits are exceeded; a part that is too long or too slow counts with its whole
    /// amount.
    pub(crate) over: u64,
    pub(crate) cost: u64,
    pub(crate) fee: u64,
    pub(crate) uncertainty: Uncertainty,
}

/// Decomposes a flow into paths with granules, the widest first. `fits(arc)` is the most granules that one part may
/// put on an arc.
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
        // Several parts on one path where one part must not be as large as the flow.
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

/// The path with the largest flow, as positions in `flows`, and that flow in granules.
fn widest(flows: &[Flow], payer: u32, payee: u32) -> Option<(Vec<usize>, u32)> {
    // For each node reached: the best width so far and the flow that leads there.
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

/// Gives paths amounts in proportion to their granules, which add up to `amount` exactly.
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

/// Evaluates sets of parts; its memory is reused.
#[derive(Debug, Default)]
pub(crate) struct Evaluator {
    /// The sum that all parts put on each arc they use.
    loads: Vec<(u32, u64)>,
}

impl Evaluator {
    /// Evaluates paths; those without an amount do not count.
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
        for (arc, load) in &self.loads {
            let over = load.saturating_sub(costs.limit(*arc).aggregate_max);
            evaluation.over = evaluation.over.saturating_add(over);
            let uncertainty = costs.uncertainty(*arc, *load);
            evaluation.uncertainty.0 = evaluation.uncertainty.0.saturating_add(uncertainty.0);
            evaluation.cost = evaluation.cost.saturating_add(costs.uncertainty_cost(uncertainty));
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
            let limit = costs.limit(*arc);
            let outside = limit.minimum.saturating_sub(amount).max(amount.saturating_sub(limit.maximum));
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

    /// Moves an amount from one path to another if that improves the evaluation; returns whether it did.
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

    /// Spreads one path's amount over the room on the others if that improves the evaluation; returns whether it did.
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

    /// How much of the amount of one path fits onto another.
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
            let limit = costs.limit(arc);
            let load = loads.iter().find(|(other, _)| *other == arc).map_or(0, |(_, load)| *load);
            limit.maximum.min(limit.aggregate_max.saturating_sub(load))
        };
        // The room left on the narrowest arc; negative where the amount exceeds it.
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
        // Fees grow with the amount, so that reducing it by the excess makes it fit.
        let room = room.saturating_add_signed(left(room).min(0));
        room.saturating_sub(paths[to].amount).min(paths[from].amount)
    }

    /// Moves amounts between paths as long as that improves the evaluation, then drops paths without an amount.
    /// Returns the last evaluation.
    pub(crate) fn improve(
        &mut self,
        costs: &impl ArcCosts,
        limits: &PaymentLimits,
        paths: &mut Vec<PartPath>,
    ) -> Evaluation {
        let mut best = self.evaluate(costs, limits, paths);
        let total: u64 = paths.iter().map(|path| path.amount).sum();
        let mut evaluations = 0;
        // First whole parts, which saves base fees, or as much as fits; then ever smaller amounts.
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
                    // The first step moves whole parts, later ones less than the part.
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
                // Exceeded limits are repaired to the millisatoshi; lower costs are not worth that.
                let least = if best.over > 0 { 1 } else { total / FINENESS };
                step /= 2;
                if step < least.max(1) {
                    break;
                }
            }
        }
        paths.retain(|path| path.amount > 0);
        assert_eq!(
            paths.iter().map(|path| path.amount).sum::<u64>(),
            total,
            "moving amounts changed their sum"
        );
        best
    }
}

/// Bound on the divisions tried: about a microsecond each.
const EVALUATIONS_MAX: usize = 600;

/// Iterations towards the room on a path: each accounts for the fees of the amount that the last one found.
const ROOM_STEPS: usize = 4;

/// Amounts below this fraction of the payment are not moved to lower its cost.
const FINENESS: u64 = 32;
