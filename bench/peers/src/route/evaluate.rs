//! The judge of both sides' answers, written apart from every search: it knows channels, policies and amounts, and
//! walks finished routes.
//!
//! Of a part (one path) it computes, from the payee back, `a` being the amount an HTLC carries and the payer's own
//! channel taking no fee and no delta:
//!
//! - fee of a hop after the first: `base + a * millionths / 1,000,000`, rounded down (BOLT 7); the HTLC before carries
//!   `a + fee`;
//! - blocks: [`FINAL_CLTV_DELTA`] plus every `cltv_expiry_delta` after the first hop (offsets that a sender adds to
//!   hide the payee's place are not counted, for neither side);
//! - probability of success: the product over all hops of `(c + 1 - a) / (c + 1)`, `c` being the capacity in
//!   millisatoshi: liquidity is anywhere with equal probability. Two parts over one channel direction count with their
//!   sum. Of a route in several parts it is the probability that all succeed.
//!
//! Violations are a path that is broken, loops, has more than 20 hops or a channel without an enabled
//! policy; an amount that is stated wrong, below `htlc_minimum`, above `htlc_maximum` or above the capacity (of all
//! parts together); parts that do not sum up; a fee above [`fee_limit`] or blocks above [`CLTV_LIMIT`].

use std::collections::{HashMap, HashSet};

use fulmen_graph::{Direction, Policy};
use fulmen_wire::units::{NodeId, Scid};

/// The payee's `min_final_cltv_expiry_delta`.
pub(crate) const FINAL_CLTV_DELTA: u16 = 18;

/// The most blocks from now to the first HTLC's expiry: LDK's default.
pub(crate) const CLTV_LIMIT: u32 = 1008;

/// The most hops: LDK's default.
pub(crate) const HOPS_LIMIT: usize = 20;

/// The most a payment may cost: 1 % and 50 sat, LDK's default.
pub(crate) fn fee_limit(amount_msat: u64) -> u64 {
    amount_msat / 100 + 50_000
}

/// The query to both sides.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ask {
    pub(crate) from: NodeId,
    pub(crate) to: NodeId,
    pub(crate) amount_msat: u64,
}

/// One path of an answer, as its sender would pay it.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    pub(crate) hops: Vec<PartHop>,
}

/// One channel of a path, and the HTLC that its sender would offer over it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PartHop {
    pub(crate) scid: Scid,
    pub(crate) to: NodeId,
    pub(crate) amount_msat: u64,
}

/// A channel as the judge knows it.
#[derive(Clone, Debug)]
pub(crate) struct KnownChannel {
    pub(crate) nodes: [NodeId; 2],
    pub(crate) capacity_msat: u64,
    pub(crate) policies: [Option<Policy>; 2],
}

/// The worth of an answer.
#[derive(Clone, Debug, Default)]
pub(crate) struct Worth {
    pub(crate) fee_msat: u64,
    /// The most of any part.
    pub(crate) blocks: u32,
    pub(crate) success: f64,
    pub(crate) hops: usize,
    pub(crate) parts: usize,
    pub(crate) violations: Vec<String>,
}

/// The judge's own book of the network.
#[derive(Clone, Debug, Default)]
pub(crate) struct Judge {
    pub(crate) channels: HashMap<Scid, KnownChannel>,
}

/// The flow over each direction, and the largest HTLC.
type Flows = HashMap<(Scid, usize), u64>;

impl Judge {
    /// Takes in a policy.
    pub(crate) fn set_policy(&mut self, scid: Scid, direction: Direction, policy: Policy) {
        if let Some(channel) = self.channels.get_mut(&scid) {
            channel.policies[direction.origin()] = Some(policy);
        }
    }

    /// Judges an answer.
    pub(crate) fn judge(&self, ask: &Ask, parts: &[Part]) -> Worth {
        let mut worth = Worth { parts: parts.len(), success: 1.0, ..Worth::default() };
        let mut flows = Flows::new();
        let mut arrived = 0;
        for part in parts {
            arrived += part.hops.last().map_or(0, |hop| hop.amount_msat);
            self.walk(ask, part, &mut flows, &mut worth);
        }
        if arrived != ask.amount_msat {
            worth.violations.push(format!("{arrived} msat arrive instead of {}", ask.amount_msat));
        }
        for ((scid, end), amount) in flows {
            let capacity = self.channels[&scid].capacity_msat;
            if amount > capacity {
                worth.violations.push(format!("{amount} msat over {scid} ({end}), which has {capacity}"));
            }
            worth.success *= (capacity as f64 + 1.0 - amount as f64).max(0.0) / (capacity as f64 + 1.0);
        }
        if worth.fee_msat > fee_limit(ask.amount_msat) {
            worth.violations.push(format!("a fee of {} msat", worth.fee_msat));
        }
        if worth.blocks > CLTV_LIMIT {
            worth.violations.push(format!("{} blocks", worth.blocks));
        }
        worth
    }

    /// Walks one path from the payee back.
    fn walk(&self, ask: &Ask, part: &Part, flows: &mut Flows, worth: &mut Worth) {
        let mut broken = |what: String| worth.violations.push(what);
        let mut from = ask.from;
        let mut directed = Vec::new();
        let mut passed = HashSet::from([ask.from]);
        for hop in &part.hops {
            let channel = self.channels.get(&hop.scid);
            let end = channel.and_then(|channel| channel.nodes.iter().position(|node| *node == from));
            let (Some(channel), Some(end)) = (channel, end) else {
                return broken(format!("{} does not leave {from}", hop.scid));
            };
            if channel.nodes[1 - end] != hop.to {
                return broken(format!("{} does not lead to {}", hop.scid, hop.to));
            }
            if !passed.insert(hop.to) {
                broken(format!("{} is passed twice", hop.to));
            }
            directed.push((channel, end, hop));
            from = hop.to;
        }
        if from != ask.to || part.hops.is_empty() || part.hops.len() > HOPS_LIMIT {
            broken(format!("{} hops to {from}", part.hops.len()));
        }
        let mut amount = part.hops.last().map_or(0, |hop| hop.amount_msat);
        let mut blocks = u32::from(FINAL_CLTV_DELTA);
        for (at, (channel, end, hop)) in directed.iter().enumerate().rev() {
            let Some(policy) = channel.policies[*end].filter(|policy| !policy.disabled) else {
                return broken(format!("{} is closed", hop.scid));
            };
            if hop.amount_msat != amount || amount < policy.htlc_minimum.0 || amount > policy.htlc_maximum.0 {
                broken(format!("{} msat over {}, needed {amount}", hop.amount_msat, hop.scid));
            }
            *flows.entry((hop.scid, *end)).or_default() += amount;
            if at > 0 {
                let millionths = u128::from(policy.fee_proportional_millionths);
                let fee = policy.fee_base.0 + (u128::from(amount) * millionths / 1_000_000) as u64;
                worth.fee_msat += fee;
                amount += fee;
                blocks += u32::from(policy.cltv_expiry_delta.0);
            }
        }
        worth.hops += part.hops.len();
        worth.blocks = worth.blocks.max(blocks);
    }
}
