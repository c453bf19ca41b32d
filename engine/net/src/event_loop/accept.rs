//! Inbound connections up to authentication, and the acts of the handshake for both directions.
//!
//! Owns: accepting within the limits, dealing accepted sockets out to the loops, answering acts, and handing a socket
//! to the loop of its peer.
//!
//! Invariant: inbound sockets without a known peer are bounded in number; when one more comes, the oldest goes.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use fulmen_proto::noise::Transport;
use fulmen_wire::units::NodeId;
use mio::net::TcpStream;

use super::{EventLoop, Timer};
use crate::admission::OriginPermit;
use crate::error::CloseReason;
use crate::link::Link;
use crate::mailbox::LoopCommand;
use crate::opening::{Opening, Progress};
use crate::socket::{ConnectionDirection, PeerSocket, Stage};

/// The connections accepted in a round.
const ACCEPTED_MAX: usize = 64;
/// The wait after the system refused to accept, for lack of descriptors or memory.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

impl EventLoop {
    /// Accepts connections of a listener and deals them out to the loops.
    pub(super) fn accept(&mut self, listener: usize, now: Instant) {
        for _ in 0..ACCEPTED_MAX {
            let Some(socket) = self.listeners.get(listener) else { return };
            match socket.accept() {
                Ok((stream, remote)) => {
                    self.shared.counters.count_accepted();
                    // Closed before it is dealt out: the queues between loops hold no more sockets than addresses may.
                    let Some(origin) = self.shared.admission.origin(remote.ip()) else {
                        self.shared.counters.count_over_origin();
                        continue;
                    };
                    let to = self.shared.next_loop();
                    if to == self.index {
                        self.accepted(stream, remote, origin, now);
                    } else {
                        self.shared.mailboxes[to].send(LoopCommand::Accepted(stream, remote, origin));
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error)
                    if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::ConnectionAborted) => {}
                Err(error) => {
                    tracing::warn!(%error, "cannot accept connections");
                    self.timers.push(std::cmp::Reverse((now + ACCEPT_RETRY, Timer::Accept(listener))));
                    return;
                }
            }
        }
        self.accepting.insert(listener);
    }

    /// Begins to wait for act one.
    pub(super) fn accepted(
        &mut self,
        stream: TcpStream,
        remote: SocketAddr,
        origin: OriginPermit,
        now: Instant,
    ) {
        if self.drain_until.is_some() {
            return;
        }
        let handshakes_max = self.shared.handshakes_per_loop();
        while self.strangers.len() >= handshakes_max
            && let Some(oldest) = self.strangers.first().copied()
        {
            self.close(oldest, CloseReason::Displaced(handshakes_max), now);
        }
        // Without it a message would wait for the acknowledgement of the one before.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "cannot set TCP_NODELAY");
        }
        let stage = Stage::Opening(Box::new(Opening::accept()));
        let mut socket = PeerSocket::new(stream, ConnectionDirection::Inbound, remote, stage, now);
        socket.origin = Some(origin);
        match self.insert(socket) {
            Ok(token) => {
                self.strangers.insert(token);
            }
            Err(error) => tracing::warn!(%error, "cannot wait for an accepted socket"),
        }
    }

    /// Reads and answers one part of a proxy's dialogue or of the handshake.
    pub(super) fn open(&mut self, token: usize, now: Instant) {
        let Some(socket) = self.sockets.get_mut(&token) else { return };
        socket.is_listed = false;
        let Stage::Opening(opening) = &mut socket.stage else { return self.list(token) };
        match opening.advance(&mut socket.stream, &self.node_key) {
            Ok(Progress::Waiting) => socket.is_readable = false,
            Ok(Progress::Answered(bytes)) => {
                self.push(token, &bytes, now);
                self.list(token);
            }
            Ok(Progress::Authenticated { peer, transport, answer }) => {
                self.push(token, &answer, now);
                self.authenticated(token, peer, transport, now);
            }
            Err(reason) => self.close(token, reason, now),
        }
    }

    fn authenticated(&mut self, token: usize, peer: NodeId, transport: Transport, now: Instant) {
        self.strangers.remove(&token);
        let Some(socket) = self.sockets.get_mut(&token) else { return };
        socket.peer = Some(peer);
        socket.stage = Stage::Init(Box::new(Link::new(transport, now)));
        let to = self.shared.loop_of(peer);
        if to == self.index {
            return self.await_init(token, now);
        }
        let Some(mut socket) = self.sockets.remove(&token) else { return };
        if let Err(error) = self.poll.registry().deregister(&mut socket.stream) {
            tracing::warn!(%error, "cannot hand a socket over");
            return;
        }
        (socket.armed, socket.is_listed) = (None, false);
        self.shared.mailboxes[to].send(LoopCommand::Adopt(Box::new(socket)));
    }

    /// Takes over a socket that another loop has authenticated.
    pub(super) fn adopt(&mut self, socket: PeerSocket, now: Instant) {
        if self.drain_until.is_some() {
            return;
        }
        match self.insert(socket) {
            Ok(token) => self.await_init(token, now),
            Err(error) => tracing::warn!(%error, "cannot wait for a socket of another loop"),
        }
    }

    /// Sends our `init` and waits for the peer's.
    fn await_init(&mut self, token: usize, now: Instant) {
        let Some(socket) = self.sockets.get_mut(&token) else { return };
        let is_kept = socket.peer.is_some_and(|peer| self.plans.contains_key(&peer));
        let is_ours = socket.direction == ConnectionDirection::Outbound;
        let Some(permit) = self.shared.admission.connection(is_ours || is_kept) else {
            let reason = CloseReason::Full(self.shared.limits.connections_max);
            return self.close(token, reason, now);
        };
        socket.permit = Some(permit);
        let remote = (socket.direction == ConnectionDirection::Inbound).then_some(socket.remote);
        let init = self.shared.init(&self.engine, remote);
        self.seal(token, &init, now);
        self.list(token);
    }
}
