//! The names of HTLCs and channels.
//!
//! Owns the identifiers that circuits, commands and events are keyed by.

use fulmen_wire::units::{ChannelId, Scid};

/// An HTLC that a peer offered us. It names its circuit.
///
/// Both directions of a channel count their HTLCs from 0 (BOLT 2, "Adding an HTLC": the offering node sets `id`), so
/// that an incoming and an [`OutgoingHtlc`] may have equal numbers; separate types keep them from being confused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IncomingHtlc {
    /// The channel.
    pub channel_id: ChannelId,
    /// The `id` that the peer gave it in `update_add_htlc`.
    pub htlc_id: u64,
}

/// An HTLC that we offered a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OutgoingHtlc {
    /// The channel.
    pub channel_id: ChannelId,
    /// The `id` that we gave it in `update_add_htlc`.
    pub htlc_id: u64,
}

/// A channel by either of its names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ChannelRef {
    /// By its BOLT 2 id.
    Id(ChannelId),
    /// By its place in the chain.
    Scid(Scid),
}
