//! Weights, fees and trimming (BOLT 3, "Fees" and "Trimmed Outputs").
//!
//! Owns: the expected weights, the fees that follow from them, and which HTLCs get an output. Does not know balances.
//!
//! Invariant: an HTLC is trimmed exactly when its amount, in whole satoshi, is below its trim threshold.

use fulmen_wire::units::{FeeratePerKw, Msat, Sat};

use super::{ChannelType, CommitmentHtlc, HtlcDirection};

/// The amount of each anchor output, 330 sat.
pub const ANCHOR_OUTPUT: Sat = Sat(330);

/// The expected weight of a commitment with `untrimmed` HTLC outputs.
#[must_use]
pub const fn commitment_weight(channel_type: ChannelType, untrimmed: usize) -> u64 {
    let base = match channel_type {
        ChannelType::StaticRemotekey => 724,
        ChannelType::Anchors => 1124,
    };
    base + 172 * untrimmed as u64
}

/// The base fee of a commitment with `untrimmed` HTLC outputs, which the opener pays.
#[must_use]
pub const fn commitment_fee(channel_type: ChannelType, feerate: FeeratePerKw, untrimmed: usize) -> Sat {
    feerate.fee(commitment_weight(channel_type, untrimmed))
}

/// The expected weight of the HTLC transaction: HTLC-timeout for offered HTLCs, HTLC-success for received ones.
#[must_use]
pub const fn htlc_weight(channel_type: ChannelType, direction: HtlcDirection) -> u64 {
    match (channel_type, direction) {
        (ChannelType::StaticRemotekey, HtlcDirection::Offered) => 663,
        (ChannelType::StaticRemotekey, HtlcDirection::Received) => 703,
        (ChannelType::Anchors, HtlcDirection::Offered) => 666,
        (ChannelType::Anchors, HtlcDirection::Received) => 706,
    }
}

/// The fee that the HTLC transaction carries: none with anchors, where whoever broadcasts it adds one.
#[must_use]
pub const fn htlc_fee(channel_type: ChannelType, feerate: FeeratePerKw, direction: HtlcDirection) -> Sat {
    match channel_type {
        ChannelType::StaticRemotekey => feerate.fee(htlc_weight(channel_type, direction)),
        ChannelType::Anchors => Sat::ZERO,
    }
}

/// The least amount at which an HTLC gets an output on the commitment of a side with this `dust_limit`.
#[must_use]
pub const fn trim_threshold(
    channel_type: ChannelType,
    feerate: FeeratePerKw,
    direction: HtlcDirection,
    dust_limit: Sat,
) -> Sat {
    dust_limit.saturating_add(htlc_fee(channel_type, feerate, direction))
}

/// Whether an HTLC of this amount is trimmed: too small for an output on that commitment.
#[must_use]
pub const fn is_trimmed(
    channel_type: ChannelType,
    feerate: FeeratePerKw,
    direction: HtlcDirection,
    dust_limit: Sat,
    amount: Msat,
) -> bool {
    amount.floor_sat().0 < trim_threshold(channel_type, feerate, direction, dust_limit).0
}

/// The HTLCs that get an output, in the order given.
pub(super) fn untrimmed(
    channel_type: ChannelType,
    feerate: FeeratePerKw,
    dust_limit: Sat,
    htlcs: &[CommitmentHtlc],
) -> impl Iterator<Item = &CommitmentHtlc> {
    htlcs
        .iter()
        .filter(move |htlc| !is_trimmed(channel_type, feerate, htlc.direction, dust_limit, htlc.amount))
}
