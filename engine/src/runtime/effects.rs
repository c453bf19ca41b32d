//! The effects of a turn, and the handler that carries them out.
//!
//! Owns the types that leave the engine. Does not execute anything.
//!
//! Invariant: the handler gets effects only after the record that justifies them is durable, those of one shard in the
//! order of its turns, and those of one turn in the order of the fields of [`Effects`].

use bitcoin::Transaction;
use fulmen_proto::forward::Event;

use super::connection::Connection;
use super::error::Fatal;
use super::events::EventId;

/// The effects of one turn of one shard, to be carried out in the order of the fields.
#[derive(Debug, Default)]
#[must_use]
pub struct Effects {
    /// The shard whose turn it was.
    pub shard: u16,
    /// Serialized messages, in order. Drop those for a connection that has ended.
    pub send: Vec<(Connection, Vec<u8>)>,
    /// Connections to close once their messages are sent.
    pub disconnect: Vec<Connection>,
    /// Transactions to broadcast.
    pub broadcast: Vec<Transaction>,
    /// Events for the operator.
    pub events: Vec<Event>,
    /// The id of the last durable event among `events`, if the engine keeps events
    /// ([`Builder::keep_events`](super::Builder::keep_events)); to be acknowledged once all of them are handled.
    pub last_event: Option<EventId>,
    /// Connections to read from again: their messages were refused with
    /// [`ReceiveError::WouldBlock`](super::ReceiveError::WouldBlock), and they have credit again.
    pub resume: Vec<Connection>,
}

impl Effects {
    /// The events, the durable ones with their ids.
    pub fn numbered_events(&self) -> impl Iterator<Item = (Option<EventId>, &Event)> {
        let durable = self.events.iter().filter(|event| event.is_durable()).count() as u64;
        let mut next = self.last_event.map(|last| EventId { number: last.number + 1 - durable, ..last });
        self.events.iter().map(move |event| {
            let id = next.filter(|_| event.is_durable());
            if let (Some(next), true) = (&mut next, event.is_durable()) {
                next.number += 1;
            }
            (id, event)
        })
    }

    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let Effects { shard: _, send, disconnect, broadcast, events, last_event: _, resume } = self;
        send.is_empty()
            && disconnect.is_empty()
            && broadcast.is_empty()
            && events.is_empty()
            && resume.is_empty()
    }
}

/// Carries out effects.
///
/// It is called on the engine's threads, by one at a time, and holds up everything that leaves until it returns: it
/// should put bytes into the buffers of sockets and wake whoever writes them, not wait for a peer. It may feed the
/// engine, whose feeding calls never wait; it must not call [`Engine::step`](super::Engine::step) or
/// [`Engine::shutdown`](super::Engine::shutdown).
///
/// Bytes for a peer that does not read pile up with the handler, not with the engine. In one turn they are bounded by
/// [`NodeConfig::send_bytes`](fulmen_proto::forward::NodeConfig::send_bytes). Over several turns, without an answer of
/// the peer, each of its channels is sent at most one `commitment_signed` and the updates that its slots have room for
/// (483 HTLCs of 1.5 kB added, as many removed at 4.2 kB at most): other peers' payments cannot make it more. Any more
/// is an answer to messages of the peer itself, which an embedder bounds by not reading from a peer to whom much is
/// unwritten. A peer that does not answer for two minutes is disconnected.
pub trait Handler: Send + Sync + 'static {
    /// Carries out the effects of one turn.
    fn effects(&self, effects: Effects);

    /// The engine has stopped for good; no effects follow.
    fn stopped(&self, fatal: &Fatal) {
        tracing::error!(%fatal, "the engine has stopped");
    }
}

impl<F: Fn(Effects) + Send + Sync + 'static> Handler for F {
    fn effects(&self, effects: Effects) {
        self(effects);
    }
}
