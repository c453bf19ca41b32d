//! Our `channel_update` for a channel (BOLT 7, "The `channel_update` Message").
//!
//! Owns its fields and its `timestamp`. Does not decide when one is made, nor sign it; `announce` does.
//!
//! Invariant: `htlc_minimum_msat <= htlc_maximum_msat`, and the maximum is at most the capacity and what the peer
//! accepts in flight.

use fulmen_wire::message::{ChannelUpdate, Direction};
use fulmen_wire::units::{ChainHash, FeeBaseMsat, FeeProportionalMillionths, Msat, NodeId, Scid, Signature};

use crate::channel::{Channel, Side};
use crate::forward::terms::config::ForwardingPolicy;
use crate::forward::terms::time::Now;

/// What an update says beyond the channel's own terms.
#[derive(Clone, Copy, Debug)]
pub(crate) struct UpdateTerms {
    pub(crate) chain_hash: ChainHash,
    pub(crate) short_channel_id: Scid,
    pub(crate) local: NodeId,
    pub(crate) remote: NodeId,
    pub(crate) policy: ForwardingPolicy,
    /// Whether other nodes may see it.
    pub(crate) is_public: bool,
    /// Whether the channel carries HTLCs, its policy aside.
    pub(crate) is_usable: bool,
}

impl UpdateTerms {
    /// The update, its timestamp and signature blank. A policy that allows no amount which the channel can carry
    /// disables the channel.
    pub(crate) fn update(&self, channel: &Channel) -> ChannelUpdate {
        let policy = &self.policy;
        let capacity = channel.capacity().map_or(Msat::ZERO, |capacity| capacity.to_msat());
        let terms = channel.terms(Side::Remote);
        let in_flight = terms.map_or(Msat::ZERO, |terms| terms.max_htlc_value_in_flight);
        let maximum = policy.htlc_maximum.min(capacity).min(in_flight);
        let minimum = policy.htlc_minimum.max(terms.map_or(Msat::ZERO, |terms| terms.htlc_minimum));
        let disabled = policy.disabled || !self.is_usable || minimum > maximum;
        let dont_forward = if self.is_public { 0 } else { ChannelUpdate::DONT_FORWARD };
        let direction = match Direction::between(self.local, self.remote) {
            Direction::OneToTwo => 0,
            Direction::TwoToOne => ChannelUpdate::DIRECTION,
        };
        ChannelUpdate {
            signature: Signature([0; 64]),
            chain_hash: self.chain_hash,
            short_channel_id: self.short_channel_id,
            timestamp: 0,
            message_flags: ChannelUpdate::MUST_BE_ONE | dont_forward,
            channel_flags: direction | if disabled { ChannelUpdate::DISABLE } else { 0 },
            cltv_expiry_delta: policy.cltv_expiry_delta,
            htlc_minimum_msat: minimum.min(maximum),
            fee_base_msat: FeeBaseMsat(u32::try_from(policy.fee_base.0).unwrap_or(u32::MAX)),
            fee_proportional_millionths: FeeProportionalMillionths(policy.fee_proportional_millionths),
            htlc_maximum_msat: maximum,
            extension: Vec::new(),
        }
    }
}

/// Whether two updates differ in timestamp and signature at most.
pub(crate) fn same_terms(one: &ChannelUpdate, other: &ChannelUpdate) -> bool {
    let (signature, timestamp) = (other.signature, other.timestamp);
    ChannelUpdate { signature, timestamp, ..one.clone() } == *other
}

/// The timestamp of a message that replaces one with the timestamp `last`: the present, or one second more than the
/// last, so that it rises even if the clock was set back or two messages are made in a second.
pub(crate) fn timestamp_after(last: Option<u32>, now: Now) -> u32 {
    now.unix_seconds().max(last.map_or(1, |last| last.saturating_add(1)))
}

/// Whether a message of this timestamp is old enough to be made again.
pub(crate) fn is_refresh_due(timestamp: u32, now: Now, refresh_ms: u64) -> bool {
    now.unix_ms.saturating_sub(u64::from(timestamp) * 1_000) >= refresh_ms
}
