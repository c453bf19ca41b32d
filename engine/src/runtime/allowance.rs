//! How fast a shard reads from a connection messages that serve no channel with the peer.
//!
//! Owns the allowance of a connection, and which messages need it: `ping` and the like from anybody, and everything but
//! gossip from a stranger. Updates and commitments of a peer with a ready channel never need it, so that no payment
//! waits for it; gossip goes to the gossip service, which has bounds for it. Does not decide when it grows.
//!
//! A `ping` costs the node half a microsecond or more, and a sender 6 bytes: without this bound a few strangers keep
//! every worker busy. Each connection has an allowance of its own, so that strangers do not delay each other.

use fulmen_wire::message::Message;

/// The size of allowances, in bytes as `message_cost` counts them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Allowances {
    /// Bytes that a connection may have read at once.
    pub(super) bytes_max: u32,
    /// Bytes by which an allowance grows in a second.
    pub(super) bytes_per_second: u32,
}

impl Default for Allowances {
    fn default() -> Allowances {
        // Hundreds of openings at once.
        Allowances { bytes_max: 256 << 10, bytes_per_second: 32 << 10 }
    }
}

/// The bytes that are read from a connection without delay.
#[derive(Clone, Copy, Debug)]
pub(super) struct Allowance {
    bytes: i64,
}

impl Allowance {
    /// The allowance of a new connection.
    pub(super) fn new(sizes: Allowances) -> Allowance {
        Allowance { bytes: sizes.bytes_max.into() }
    }

    /// Takes a message's bytes; false if nothing is left. A message longer than the rest leaves a debt, so that any
    /// length is read in the end.
    pub(super) fn spend(&mut self, bytes: usize) -> bool {
        let has_some = self.bytes > 0;
        if has_some {
            self.bytes -= i64::try_from(bytes).unwrap_or(i64::MAX / 2);
        }
        has_some
    }

    /// Grows by the time that has passed, in milliseconds. Returns whether something is left.
    pub(super) fn grow(&mut self, elapsed_ms: u64, sizes: Allowances) -> bool {
        let elapsed_ms = i64::try_from(elapsed_ms).unwrap_or(i64::MAX);
        let grown = elapsed_ms.saturating_mul(sizes.bytes_per_second.into()) / 1_000;
        self.bytes = self.bytes.saturating_add(grown).min(sizes.bytes_max.into());
        self.bytes > 0
    }
}

/// Whether a message needs an allowance. `has_channel`: whether its sender has a channel that is ready, or was.
pub(super) fn needs_allowance(message: &Message, has_channel: bool) -> bool {
    match message {
        Message::ChannelAnnouncement(_)
        | Message::NodeAnnouncement(_)
        | Message::ChannelUpdate(_)
        | Message::QueryShortChannelIds(_)
        | Message::ReplyShortChannelIdsEnd(_)
        | Message::QueryChannelRange(_)
        | Message::ReplyChannelRange(_)
        | Message::GossipTimestampFilter(_) => false,
        Message::Ping(_)
        | Message::Pong(_)
        | Message::Warning(_)
        | Message::ErrorMessage(_)
        | Message::Init(_)
        | Message::OpenChannel(_)
        | Message::Unknown { .. } => true,
        _ => !has_channel,
    }
}
