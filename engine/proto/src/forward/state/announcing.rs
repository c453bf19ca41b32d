//! The announcements of a channel: the peer's half of the signatures, both sides' updates, the peer's alias (BOLT 7).
//!
//! Owns [`ChannelAnnouncements`] and [`PeerForwardingPolicy`], values of the durable state. Does not decide when
//! something is announced; `turn::announce` does.
//!
//! Bound: 330 bytes a channel, whatever the peer sends: one pair of signatures, one update without its unknown fields,
//! one alias.

use fulmen_wire::message::ChannelUpdate;
use fulmen_wire::units::{CltvDelta, Msat, Scid};

use super::change::Change;
use crate::channel::PeerSignatures;
use crate::durable::durable_struct;

/// What was announced of a channel, and what its peer said for it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ChannelAnnouncements {
    /// The latest alias of the peer's `channel_ready`.
    pub(crate) alias: Option<Scid>,
    /// The peer's signatures, for the place that they name.
    pub(crate) peer_signatures: Option<PeerSignatures>,
    /// Our latest update, as it was sent.
    pub(crate) update: Option<Box<ChannelUpdate>>,
    /// The peer's latest update.
    pub(crate) peer_policy: Option<PeerForwardingPolicy>,
}

impl ChannelAnnouncements {
    /// Whether the channel was announced with its funding output at this place.
    pub(crate) fn is_public_at(&self, scid: Scid) -> bool {
        let is_public = |update: &ChannelUpdate| !update.dont_forward() && update.short_channel_id == scid;
        self.update.as_deref().is_some_and(is_public)
    }

    /// Folds a change of the channel's announcements; any other changes nothing.
    pub(crate) fn apply(&mut self, change: &Change) {
        match change {
            Change::AliasReceived { alias, .. } => self.alias = Some(*alias),
            Change::AnnouncementSigned { signatures, .. } => self.peer_signatures = Some(*signatures),
            Change::ChannelUpdated { update, .. } => self.update = Some(update.clone()),
            Change::PeerPolicy { policy, .. } => self.peer_policy = Some(*policy),
            _ => {}
        }
    }
}

/// A peer's terms for forwarding to this node over a channel, as its latest `channel_update` states them. Invoices
/// quote them for private channels (BOLT 11, field `r`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerForwardingPolicy {
    /// `timestamp` of the update.
    pub timestamp: u32,
    /// Whether the peer forwards nothing over the channel at present.
    pub disabled: bool,
    /// `cltv_expiry_delta`.
    pub cltv_expiry_delta: CltvDelta,
    /// `htlc_minimum_msat`.
    pub htlc_minimum: Msat,
    /// `htlc_maximum_msat`.
    pub htlc_maximum: Msat,
    /// `fee_base_msat`.
    pub fee_base: Msat,
    /// `fee_proportional_millionths`.
    pub fee_proportional_millionths: u32,
}

impl From<&ChannelUpdate> for PeerForwardingPolicy {
    fn from(update: &ChannelUpdate) -> PeerForwardingPolicy {
        PeerForwardingPolicy {
            timestamp: update.timestamp,
            disabled: update.is_disabled(),
            cltv_expiry_delta: update.cltv_expiry_delta,
            htlc_minimum: update.htlc_minimum_msat,
            htlc_maximum: update.htlc_maximum_msat,
            fee_base: update.fee_base_msat.msat(),
            fee_proportional_millionths: update.fee_proportional_millionths.0,
        }
    }
}

durable_struct! {
    ChannelAnnouncements { alias, peer_signatures, update, peer_policy }
    PeerSignatures { short_channel_id, node_signature, bitcoin_signature }
    PeerForwardingPolicy {
        timestamp, disabled, cltv_expiry_delta, htlc_minimum, htlc_maximum, fee_base, fee_proportional_millionths,
    }
}
