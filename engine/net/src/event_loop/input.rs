//! Messages from peers, to the engine.
//!
//! Owns: a peer's `init`, reading within the engine's credit, and the rule for a second connection of a node.
//! Interprets no message but `init` and `pong`; the engine answers a `ping`.
//!
//! Invariant: messages reach the engine in order, each once. A socket is not read while the engine has refused one of
//! its messages, or while more than `unwritten_bytes_max` wait for the peer.

use std::time::Instant;

use fulmen::runtime::{Connection, ReceiveError};
use fulmen_wire::units::NodeId;

use super::EventLoop;
use crate::error::CloseReason;
use crate::link::{ReadBuffer, ReadEnd};
use crate::shared::ConnectionEvent;
use crate::socket::{PeerSocket, Stage, keeps_newer};

/// The type of `pong` (BOLT 1).
const PONG: [u8; 2] = 19_u16.to_be_bytes();

impl EventLoop {
    /// Reads once from an authenticated socket, and passes its messages on.
    pub(super) fn read(&mut self, token: usize, now: Instant) {
        let Some(socket) = self.sockets.get_mut(&token) else { return };
        socket.is_listed = false;
        let (Stage::Init(link) | Stage::Open(link, _)) = &mut socket.stage else {
            return if matches!(socket.stage, Stage::Lingering { .. }) {
                self.linger(token)
            };
        };
        let end = link.read(&mut socket.stream, &mut self.buffer, now);
        if matches!(end, ReadEnd::Drained) && !socket.is_read_closed {
            socket.is_readable = false;
        }
        let buffer = std::mem::replace(&mut self.buffer, ReadBuffer::new(0));
        let delivered = self.deliver(token, &buffer, now);
        self.buffer = buffer;
        match (delivered, end) {
            (Err(reason), _) | (Ok(()), ReadEnd::Closed(reason)) => self.close(token, reason, now),
            (Ok(()), ReadEnd::More | ReadEnd::Drained) => {
                // The next deadline may have come nearer: the handshake is over, or a ping was answered.
                self.arm(token);
                self.list(token);
            }
        }
    }

    /// Passes the messages of a read to the engine.
    fn deliver(&mut self, token: usize, buffer: &ReadBuffer, now: Instant) -> Result<(), CloseReason> {
        let mut skip = 0;
        let Some(socket) = self.sockets.get(&token) else { return Ok(()) };
        if let (Stage::Init(_), Some(peer)) = (&socket.stage, socket.peer) {
            let Some(init) = buffer.messages().next() else { return Ok(()) };
            self.begin(token, peer, init, now)?;
            skip = 1;
        }
        let Some(socket) = self.sockets.get_mut(&token) else { return Ok(()) };
        let Stage::Open(link, connection) = &mut socket.stage else { return Ok(()) };
        let messages = || buffer.messages().skip(skip).filter(|message| !message.starts_with(&PONG));
        if messages().next().is_none() {
            return Ok(());
        }
        match self.engine.receive_all(*connection, messages()) {
            Ok(()) => Ok(()),
            Err(error) => {
                let accepted = retained(error)?;
                link.refused.extend(messages().skip(accepted).map(<[u8]>::to_vec));
                Ok(())
            }
        }
    }

    /// Gives the engine a peer's `init`, unless an earlier connection of the peer is to be kept.
    fn begin(&mut self, token: usize, peer: NodeId, init: &[u8], now: Instant) -> Result<(), CloseReason> {
        let older = self.peers.get(&peer).copied();
        let Some(newer) = self.sockets.get(&token) else { return Ok(()) };
        if let Some(older) = older.and_then(|older| self.sockets.get(&older)) {
            let age = now.duration_since(older.since);
            if !keeps_newer(self.engine.id(), peer, newer.direction, older.direction, age) {
                return Err(CloseReason::Replaced);
            }
        }
        let connection = self.engine.connected(peer, init).map_err(CloseReason::Init)?;
        if let Some(older) = older {
            self.close(older, CloseReason::Replaced, now);
        }
        let Some(socket) = self.sockets.get_mut(&token) else { return Ok(()) };
        let PeerSocket { direction, remote, .. } = *socket;
        if let Stage::Init(link) = std::mem::replace(&mut socket.stage, super::LINGERING) {
            socket.stage = Stage::Open(link, connection);
            socket.since = now;
        }
        self.peers.insert(peer, token);
        self.plan_connected(peer, now);
        let our_address = self.shared.our_address(init);
        let event = ConnectionEvent::Connected { peer, connection, direction, remote, our_address };
        (self.shared.on_event)(event);
        Ok(())
    }

    /// Gives the engine the messages that it had refused, and reads on.
    pub(super) fn resume(&mut self, connection: Connection, now: Instant) {
        let Some(token) = self.token_of(connection) else { return };
        let Some(socket) = self.sockets.get_mut(&token) else { return };
        let Stage::Open(link, _) = &mut socket.stage else { return };
        let messages = link.refused.iter().map(Vec::as_slice);
        match self.engine.receive_all(connection, messages) {
            Ok(()) => link.refused.clear(),
            Err(error) => match retained(error) {
                Ok(accepted) => drop(link.refused.drain(..accepted)),
                Err(reason) => return self.close(token, reason, now),
            },
        }
        self.list(token);
    }

    /// The socket of a connection, if it has not ended.
    pub(super) fn token_of(&self, connection: Connection) -> Option<usize> {
        let token = *self.peers.get(&connection.peer)?;
        let socket = self.sockets.get(&token)?;
        (socket.connection() == Some(connection)).then_some(token)
    }
}

/// After how many accepted messages the rest is to be kept, or the end of a connection whose message is refused for
/// good.
///
/// An engine that shuts down accepts nothing more, and its last messages are still to be written.
fn retained(error: ReceiveError) -> Result<usize, CloseReason> {
    match error {
        ReceiveError::WouldBlock { accepted } => Ok(accepted),
        ReceiveError::Stopped(_) => Ok(0),
        ReceiveError::NotConnected(_) => Err(CloseReason::Engine),
        error => Err(CloseReason::Message(error)),
    }
}
