//! One direction of a channel as searches read it, in 32 bytes (BOLT 7 `channel_update`).
//!
//! Owns [`Edge`] and [`RoughCapacity`]. Does not know where edges lie.
//!
//! Invariant: an edge whose policy is disabled or unknown takes no possible amount.

use fulmen_wire::units::{CltvDelta, Msat, Sat};

use crate::graph::Policy;

/// Set in [`Edge::minimum`] while the direction is disabled: no amount is that large.
const DISABLED: u64 = 1 << 63;

/// [`Edge::minimum`] of an unknown policy.
const UNKNOWN: u64 = u64::MAX;

/// The amount by whose cost edges are ordered, in millisatoshi: a medium payment.
const RANK_AMOUNT: u64 = 100_000_000;

/// The penalty in the order of edges for a capacity of only [`RANK_AMOUNT`], in millisatoshi: about the extra fee
/// that a sender accepts for a wide channel instead of one that the payment fills.
const RANK_NARROW: u64 = 100_000;

/// The data of one direction of a channel that searches read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Edge {
    /// The least amount in millisatoshi. Above any possible amount when the direction is disabled or its policy
    /// unknown.
    pub(crate) minimum: u64,
    /// The largest amount in millisatoshi: the lesser of `htlc_maximum` and the capacity.
    pub(crate) maximum: u64,
    /// The node that the direction leaves.
    pub(crate) source: u32,
    /// `fee_base_msat`.
    pub(crate) fee_base: u32,
    /// `fee_proportional_millionths`.
    pub(crate) fee_millionths: u32,
    /// `cltv_expiry_delta`.
    pub(crate) cltv_expiry_delta: u16,
    /// The channel's capacity, rounded up.
    pub(crate) capacity: RoughCapacity,
}

impl Edge {
    /// An edge with an unknown policy.
    pub(super) fn unknown(source: u32, capacity: Sat) -> Edge {
        Edge {
            minimum: UNKNOWN,
            maximum: 0,
            source,
            fee_base: 0,
            fee_millionths: 0,
            cltv_expiry_delta: 0,
            capacity: RoughCapacity::above(capacity),
        }
    }

    /// The same edge under another policy. A base fee above 32 bits, which BOLT 7 has no room for, counts as no
    /// policy.
    pub(super) fn under(self, policy: Option<&Policy>, capacity: Sat) -> Edge {
        let unknown = Edge::unknown(self.source, capacity);
        let Some(policy) = policy else { return unknown };
        let Ok(fee_base) = u32::try_from(policy.fee_base.0) else { return unknown };
        let minimum = policy.htlc_minimum.0.min(DISABLED - 1) | if policy.disabled { DISABLED } else { 0 };
        let maximum = policy.htlc_maximum.min(capacity.to_msat()).min(Msat::MAX_MONEY);
        Edge {
            minimum,
            maximum: maximum.0,
            fee_base,
            fee_millionths: policy.fee_proportional_millionths,
            cltv_expiry_delta: policy.cltv_expiry_delta.0,
            ..unknown
        }
    }

    /// The policy with its maximum limited to the capacity; `None` when unknown.
    pub(crate) fn policy(&self) -> Option<Policy> {
        (self.minimum != UNKNOWN).then_some(Policy {
            fee_base: Msat(u64::from(self.fee_base)),
            fee_proportional_millionths: self.fee_millionths,
            cltv_expiry_delta: CltvDelta(self.cltv_expiry_delta),
            htlc_minimum: Msat(self.minimum & !DISABLED),
            htlc_maximum: Msat(self.maximum),
            disabled: self.minimum & DISABLED != 0,
        })
    }

    /// Whether the direction can be used.
    #[inline]
    pub(crate) const fn enabled(&self) -> bool {
        self.minimum & DISABLED == 0
    }

    /// The order of the edges at a node: roughly their cost to a payer, the cheapest first. Disabled ones come last.
    pub(super) fn rank(&self) -> u64 {
        if !self.enabled() {
            return u64::MAX;
        }
        let narrow = RANK_NARROW * RANK_AMOUNT / self.capacity.msat().max(1);
        self.fee(RANK_AMOUNT).saturating_add(narrow)
    }

    /// The fee in millisatoshi for forwarding `amount` over this edge (BOLT 7, "HTLC Fees"), saturating at
    /// `u64::MAX`. The fast form of [`Policy::fee`], which the tests compare it with.
    #[inline]
    pub(crate) fn fee(&self, amount: u64) -> u64 {
        let proportional = match amount.checked_mul(u64::from(self.fee_millionths)) {
            Some(product) => product / 1_000_000,
            None => {
                let wide = u128::from(amount) * u128::from(self.fee_millionths) / 1_000_000;
                u64::try_from(wide).unwrap_or(u64::MAX)
            }
        };
        proportional.saturating_add(u64::from(self.fee_base))
    }
}

/// A capacity in satoshi, rounded up to eleven significant bits, which suffices for probabilities and takes two
/// bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct RoughCapacity(u16);

impl RoughCapacity {
    /// Nothing at all.
    pub(super) const NONE: RoughCapacity = RoughCapacity(0);

    /// The least such value at or above `capacity`, which is limited to all money.
    pub(crate) fn above(capacity: Sat) -> RoughCapacity {
        let sat = capacity.0.min(Msat::MAX_MONEY.0 / 1000);
        if sat < 1024 {
            return RoughCapacity(sat as u16);
        }
        let exponent = sat.ilog2() - 10;
        let mantissa = sat.div_ceil(1 << exponent);
        let (exponent, mantissa) = if mantissa == 2048 { (exponent + 1, 1024) } else { (exponent, mantissa) };
        RoughCapacity(((exponent as u16 + 1) << 10) + (mantissa as u16 - 1024))
    }

    /// The capacity in millisatoshi.
    #[inline]
    pub(crate) fn msat(self) -> u64 {
        let (exponent, mantissa) = (self.0 >> 10, u64::from(self.0 & 1023));
        let sat = if exponent == 0 { mantissa } else { (1024 + mantissa) << (exponent - 1) };
        sat * 1000
    }
}
