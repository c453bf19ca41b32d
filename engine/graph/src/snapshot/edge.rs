//! One direction of a channel as searches read it, in 32 bytes (BOLT 7 `channel_update`).
//!
//! Owns: [`Edge`], and the [`RoughCapacity`] in it. Does not know where edges lie.
//!
//! Invariant: an edge whose policy is disabled or not known takes no amount there can be.

use fulmen_wire::units::{CltvDelta, Msat, Sat};

use crate::graph::Policy;

/// Set in [`Edge::minimum`] while the direction is disabled: no amount is as large.
const DISABLED: u64 = 1 << 63;

/// [`Edge::minimum`] where no policy is known.
const UNKNOWN: u64 = u64::MAX;

/// The amount edges are ordered by, in millisatoshi: a middling payment.
const RANK_AMOUNT: u64 = 100_000_000;

/// What an edge is set back for being as narrow as [`RANK_AMOUNT`], in millisatoshi: about what a sender gives for
/// passing a channel of which a payment takes all instead of a wide one.
const RANK_NARROW: u64 = 100_000;

/// What a search reads of one direction of a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Edge {
    /// The least amount the direction takes in millisatoshi. Above any amount there can be when the direction is
    /// disabled or its policy is not known.
    pub(crate) minimum: u64,
    /// The most it takes: the lesser of `htlc_maximum` and the capacity.
    pub(crate) maximum: u64,
    /// The node it leaves.
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
    /// An edge of a channel whose policy is not known.
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

    /// The same edge under another policy. A base fee that BOLT 7 has no room for counts as no policy.
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

    /// The policy as far as it matters to searches: its maximum is bounded by the capacity. `None` when unknown.
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

    /// Whether the direction can be used at all.
    #[inline]
    pub(crate) const fn enabled(&self) -> bool {
        self.minimum & DISABLED == 0
    }

    /// What edges at a node are ordered by: roughly what a payer minds of them, the cheapest first. Closed ones come last.
    pub(super) fn rank(&self) -> u64 {
        if !self.enabled() {
            return u64::MAX;
        }
        let narrow = RANK_NARROW * RANK_AMOUNT / self.capacity.msat().max(1);
        self.fee(RANK_AMOUNT).saturating_add(narrow)
    }

    /// The fee in millisatoshi for forwarding `amount` over this edge (BOLT 7, "HTLC Fees"), held at `u64::MAX`.
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

/// A capacity in satoshi, rounded up to eleven significant bits: enough to guess by, in two bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct RoughCapacity(u16);

impl RoughCapacity {
    /// Nothing at all.
    pub(super) const NONE: RoughCapacity = RoughCapacity(0);

    /// The least such value that is no less than `capacity`, which is held at all money there is.
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
