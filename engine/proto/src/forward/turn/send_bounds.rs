//! How many bytes of messages one turn may hold.
//!
//! Owns the sums of [`Turn::send`](super::output::Turn::send), by peer and in all, as the messages are put there. The
//! limits are [`NodeConfig::send_bytes`](crate::forward::NodeConfig::send_bytes). Does not bound a connection's
//! backlog over several turns: the embedder sees what it has not written, and stops reading from such a peer.
//!
//! A peer at its limit is read no further, and its connection ends with the turn's messages: what it is owed, it is
//! sent on the next one, and what has reached it by then is not sent again, so that even a peer with more to be
//! retransmitted than the limit gets on. No HTLC is offered to it either. While a turn is at its limit in all, no
//! `channel_reestablish` is answered. So a turn holds for a peer at most the limit and the answer to one message; that
//! is largest for a `channel_reestablish`, up to 2.7 MB for the updates of a channel with all slots taken. Removals of
//! a peer's HTLCs go beyond the limit: they are 4.2 kB at most, for each of the 483 slots of a channel.

use std::collections::{BTreeMap, BTreeSet};

use fulmen_wire::message::Message;
use fulmen_wire::onion::PACKET_LENGTH;
use fulmen_wire::units::NodeId;

use crate::forward::terms::config::SendLimits;

/// Bytes that count for any message: its fixed fields, and its place in memory.
const MESSAGE_BYTES: usize = 256;

/// The bytes of a turn's messages.
#[derive(Debug, Default)]
pub(crate) struct SentBytes {
    to_peers: BTreeMap<NodeId, usize>,
    total: usize,
    /// Peers whose connection ends for the bytes that wait for them.
    refused: BTreeSet<NodeId>,
}

impl SentBytes {
    pub(crate) fn count(&mut self, peer: NodeId, message: &Message) {
        let bytes = MESSAGE_BYTES + variable_bytes(message);
        *self.to_peers.entry(peer).or_default() += bytes;
        self.total += bytes;
    }

    /// The turn's messages to a peer were dropped.
    pub(crate) fn forget(&mut self, peer: NodeId) {
        self.total -= self.to_peers.remove(&peer).unwrap_or_default();
        self.refused.remove(&peer);
    }

    /// Removes the peers that were refused, and returns them.
    pub(crate) fn take_refused(&mut self) -> BTreeSet<NodeId> {
        std::mem::take(&mut self.refused)
    }

    /// Whether nothing more is to be sent to a peer in this turn.
    pub(crate) fn is_full(&self, peer: NodeId, limits: SendLimits) -> bool {
        self.to_peers.get(&peer).is_some_and(|bytes| *bytes >= limits.peer)
    }

    /// Whether a message of a peer is not to be read, since there is no room for the answer.
    pub(crate) fn refuses(&mut self, peer: NodeId, message: &Message, limits: SendLimits) -> bool {
        let is_refused = self.refused.contains(&peer)
            || self.is_full(peer, limits)
            || (self.total >= limits.turn && matches!(message, Message::ChannelReestablish(_)));
        if is_refused {
            self.refused.insert(peer);
        }
        is_refused
    }
}

/// The bytes of a message whose number is not fixed.
fn variable_bytes(message: &Message) -> usize {
    match message {
        Message::UpdateAddHtlc(_) => PACKET_LENGTH,
        Message::UpdateFailHtlc(fail) => fail.reason.len(),
        Message::CommitmentSigned(commitment) => 64 * commitment.htlc_signatures.len(),
        Message::Pong(pong) => pong.ignored.len(),
        Message::Warning(warning) => warning.data.len(),
        Message::ErrorMessage(error) => error.data.len(),
        _ => 0,
    }
}
