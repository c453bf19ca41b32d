//! Messages to peers.
//!
//! Owns: sealing the engine's messages, `ping`, writing, and the bound on unwritten bytes. All messages of a round are
//! sealed before any is written, so that those for one peer leave in one system call.
//!
//! Invariant: a connection with more than `unwritten_bytes_cut_off` bytes is closed.

use std::net::Shutdown;
use std::time::Instant;

use fulmen::runtime::Connection;

use super::EventLoop;
use crate::error::CloseReason;
use crate::socket::Stage;

/// A `ping` that asks for a `pong` without padding (BOLT 1): its type, two lengths of 0.
const PING: [u8; 6] = [0, 18, 0, 0, 0, 0];

impl EventLoop {
    /// Queues the engine's messages, and ends the connections that it ends.
    pub(super) fn effects(
        &mut self,
        send: &[(Connection, Vec<u8>)],
        disconnect: &[Connection],
        now: Instant,
    ) {
        for (connection, message) in send {
            // Messages for a connection that has ended are dropped.
            if let Some(token) = self.token_of(*connection) {
                self.seal(token, message, now);
            }
        }
        for connection in disconnect {
            if let Some(token) = self.token_of(*connection) {
                self.end(token, CloseReason::Engine, now);
            }
        }
    }

    /// Queues bytes as they are.
    pub(super) fn push(&mut self, token: usize, bytes: &[u8], now: Instant) {
        let Some(socket) = self.sockets.get_mut(&token).filter(|_| !bytes.is_empty()) else { return };
        if socket.outbox.is_empty() {
            socket.progress = now;
            self.unwritten.push(token);
        }
        socket.outbox.push(bytes, &mut self.spare);
    }

    /// Queues a message.
    pub(super) fn seal(&mut self, token: usize, message: &[u8], now: Instant) {
        let Some(socket) = self.sockets.get_mut(&token) else { return };
        let (Stage::Init(link) | Stage::Open(link, _)) = &mut socket.stage else { return };
        if socket.outbox.is_empty() {
            socket.progress = now;
            self.unwritten.push(token);
        }
        if let Err(error) = socket.outbox.seal(&mut link.sealer, message, &mut self.spare) {
            // The engine's messages are bounded far below this; without it the peer would wait in vain.
            tracing::error!(%error, "a message cannot be sent");
            return self.close(token, CloseReason::Engine, now);
        }
        let (unwritten, cut_off) = (socket.outbox.unwritten(), self.shared.limits.unwritten_bytes_cut_off);
        if unwritten > cut_off {
            self.close(token, CloseReason::NotReading { unwritten, cut_off }, now);
        }
    }

    /// Asks a silent peer for a sign of life.
    pub(super) fn ping(&mut self, token: usize, now: Instant) {
        self.seal(token, &PING, now);
        if let Some(socket) = self.sockets.get_mut(&token)
            && let Stage::Open(link, _) = &mut socket.stage
        {
            link.pinged = Some(now);
        }
    }

    /// Writes to every socket that was given bytes, or that accepts more of them.
    pub(super) fn write_all(&mut self, now: Instant) {
        while let Some(token) = self.unwritten.pop() {
            self.write(token, now);
        }
    }

    fn write(&mut self, token: usize, now: Instant) {
        let Some(socket) = self.sockets.get_mut(&token) else { return };
        if matches!(socket.stage, Stage::Connecting(..)) {
            return;
        }
        match socket.outbox.write(&mut socket.stream, &mut self.spare) {
            Ok(0) => {}
            Ok(_) => socket.progress = now,
            Err(error) => return self.close(token, CloseReason::Socket(error.kind()), now),
        }
        let is_empty = socket.outbox.is_empty();
        if let Stage::Lingering { is_shut } = &mut socket.stage
            && is_empty
            && !std::mem::replace(is_shut, true)
            && socket.stream.shutdown(Shutdown::Write).is_err()
        {
            // The peer has closed it already.
            return self.close(token, CloseReason::ClosedByPeer, now);
        }
        if !is_empty {
            self.arm(token);
        }
        // Reading may have stopped for the bytes that are written now.
        self.list(token);
    }
}
