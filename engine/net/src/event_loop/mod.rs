//! One thread with its share of the connections: waits for sockets, commands and timers, and passes messages on.
//!
//! Owns: the sockets of its peers, their timers, and the order of work. A node's connections all live on the loop that
//! its id selects, so that neither a message to a peer nor a second connection of a peer needs anything that loops
//! share. `accept` has inbound sockets up to authentication, `dial` outbound ones, `input` messages from peers,
//! `output` messages to them.
//!
//! **Fairness.** A round serves every ready connection once, for a bounded number of bytes, and authenticated ones
//! first; of the others it answers [`ACTS_MAX`] acts, since each costs a key agreement. So a flood of handshakes delays
//! a message by a few milliseconds at most.
//!
//! Invariant: after each round, a socket that may have input stands in a list, is paused, or will give an event.

mod accept;
mod dial;
mod input;
mod output;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap, VecDeque};
use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use fulmen::Engine;
use fulmen_wire::units::NodeId;
use mio::event::Event;
use mio::net::TcpListener;
use mio::{Events, Interest, Poll, Token};

use crate::error::{CloseReason, DialError};
use crate::link::{ReadBuffer, discard};
use crate::mailbox::{LoopCommand, Mailbox};
use crate::opening::NodeKey;
use crate::outbox::SpareChunks;
use crate::redial::DialPlan;
use crate::shared::{ConnectionEvent, Shared};
use crate::socket::{Deadline, PeerSocket, Stage};

/// The acts answered in a round: about 2 ms of key agreements.
const ACTS_MAX: usize = 16;
/// Events of one call to the system.
const EVENTS_MAX: usize = 1_024;
/// The token of the mailbox's waker. Listeners have the tokens behind it, sockets those behind these.
pub(crate) const WAKER: Token = Token(0);

/// An event loop; see the module.
pub(crate) struct EventLoop {
    shared: Arc<Shared>,
    engine: Arc<Engine>,
    node_key: NodeKey,
    index: usize,
    poll: Poll,
    listeners: Vec<TcpListener>,
    /// By token, which is never used again.
    sockets: HashMap<usize, PeerSocket>,
    next_token: usize,
    /// The token of each node's connection, in the stage `Open`.
    peers: HashMap<NodeId, usize>,
    /// Nodes to dial.
    plans: BTreeMap<NodeId, DialPlan>,
    /// Inbound sockets without a known peer, the oldest first.
    strangers: BTreeSet<usize>,
    timers: BinaryHeap<Reverse<(Instant, Timer)>>,
    /// Authenticated sockets with input.
    ready: VecDeque<usize>,
    /// Other sockets with input.
    opening: VecDeque<usize>,
    /// Sockets with bytes to write.
    unwritten: Vec<usize>,
    /// Listeners that may have more connections.
    accepting: BTreeSet<usize>,
    buffer: ReadBuffer,
    spare: SpareChunks,
    /// When a drain ends.
    drain_until: Option<Instant>,
}

/// What a timer is for: a token or a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    Socket(usize),
    Redial(NodeId),
    Accept(usize),
}

impl EventLoop {
    pub(crate) fn new(
        shared: Arc<Shared>,
        engine: Arc<Engine>,
        node_key: NodeKey,
        index: usize,
        poll: Poll,
        mut listeners: Vec<TcpListener>,
    ) -> io::Result<EventLoop> {
        for (listener, token) in listeners.iter_mut().zip(WAKER.0 + 1..) {
            poll.registry().register(listener, Token(token), Interest::READABLE)?;
        }
        let buffer = ReadBuffer::new(shared.limits.read_bytes_max);
        Ok(EventLoop {
            shared,
            engine,
            node_key,
            index,
            poll,
            next_token: WAKER.0 + 1 + listeners.len(),
            listeners,
            sockets: HashMap::new(),
            peers: HashMap::new(),
            plans: BTreeMap::new(),
            strangers: BTreeSet::new(),
            timers: BinaryHeap::new(),
            ready: VecDeque::new(),
            opening: VecDeque::new(),
            unwritten: Vec::new(),
            accepting: BTreeSet::new(),
            buffer,
            spare: SpareChunks::default(),
            drain_until: None,
        })
    }

    /// Runs until it is stopped or drained.
    pub(crate) fn run(mut self) {
        let mut events = Events::with_capacity(EVENTS_MAX);
        loop {
            let timeout = self.timeout(Instant::now());
            if let Err(error) = self.poll.poll(&mut events, timeout)
                && error.kind() != ErrorKind::Interrupted
            {
                tracing::error!(%error, "an event loop cannot wait for its sockets and ends");
                break;
            }
            let now = Instant::now();
            events.iter().for_each(|event| self.on_event(event, now));
            if !self.round(now) {
                break;
            }
        }
        let tokens: Vec<usize> = self.sockets.keys().copied().collect();
        tokens.into_iter().for_each(|token| self.close(token, CloseReason::ShutDown, Instant::now()));
    }

    /// Does what is due; false once the loop is to end.
    fn round(&mut self, now: Instant) -> bool {
        for command in self.mailbox().take() {
            if !self.command(command, now) {
                return false;
            }
        }
        self.expire(now);
        for _ in 0..self.ready.len() {
            if let Some(token) = self.ready.pop_front() {
                self.read(token, now);
            }
        }
        self.write_all(now);
        for _ in 0..self.opening.len().min(ACTS_MAX) {
            if let Some(token) = self.opening.pop_front() {
                self.open(token, now);
            }
        }
        for listener in std::mem::take(&mut self.accepting) {
            self.accept(listener, now);
        }
        self.write_all(now);
        self.drain_until.is_none_or(|until| now < until && !self.sockets.is_empty())
    }

    fn mailbox(&self) -> &Mailbox {
        &self.shared.mailboxes[self.index]
    }

    /// How long there is nothing to do; `None` without a bound.
    fn timeout(&self, now: Instant) -> Option<Duration> {
        if !(self.ready.is_empty() && self.opening.is_empty() && self.accepting.is_empty()) {
            return Some(Duration::ZERO);
        }
        let timer = self.timers.peek().map(|Reverse((at, _))| *at);
        let next = timer.into_iter().chain(self.drain_until).min();
        next.map(|at| at.saturating_duration_since(now))
    }

    fn on_event(&mut self, event: &Event, now: Instant) {
        let token = event.token().0;
        if token == WAKER.0 {
            return;
        }
        if token <= self.listeners.len() {
            self.accepting.insert(token - 1);
            return;
        }
        let Some(socket) = self.sockets.get_mut(&token) else { return };
        if matches!(socket.stage, Stage::Connecting(..)) {
            self.on_connecting(token, now);
            return;
        }
        if event.is_writable() && !socket.outbox.is_empty() {
            self.unwritten.push(token);
        }
        if event.is_readable() || event.is_read_closed() || event.is_error() {
            socket.is_readable = true;
            // The end of the stream gives no second event: it is read for after the last bytes.
            socket.is_read_closed |= event.is_read_closed();
            self.list(token);
        }
    }

    /// Puts a socket with input into the list from which it is read.
    fn list(&mut self, token: usize) {
        let Some(socket) = self.sockets.get_mut(&token) else { return };
        let may_read = socket.is_readable && !socket.is_paused(&self.shared.limits);
        if may_read && !std::mem::replace(&mut socket.is_listed, true) {
            let list = if socket.is_unauthenticated() { &mut self.opening } else { &mut self.ready };
            list.push_back(token);
        }
    }

    /// Carries out a command; false if the loop is to end.
    fn command(&mut self, command: LoopCommand, now: Instant) -> bool {
        match command {
            LoopCommand::Effects { send, disconnect, resume } => {
                self.effects(&send, &disconnect, now);
                resume.into_iter().for_each(|connection| self.resume(connection, now));
            }
            LoopCommand::Accepted(stream, remote, origin) => self.accepted(stream, remote, origin, now),
            LoopCommand::Adopt(socket) => self.adopt(*socket, now),
            LoopCommand::Dial { address, keep } => self.plan_dial(address, keep, now),
            LoopCommand::Resolved { peer, name, result } => self.resolved(peer, name, result, now),
            LoopCommand::Forget(peer) => drop(self.plans.remove(&peer)),
            LoopCommand::Disconnect(peer) => {
                if let Some(token) = self.peers.get(&peer) {
                    self.end(*token, CloseReason::Requested, now);
                }
            }
            LoopCommand::Drain(until) => self.drain(until, now),
            LoopCommand::Stop => return false,
        }
        true
    }

    /// Ends everything that is not a peer's unwritten bytes.
    fn drain(&mut self, until: Instant, now: Instant) {
        self.drain_until = Some(until);
        self.listeners.clear();
        self.accepting.clear();
        self.plans.clear();
        let tokens: Vec<usize> = self.sockets.keys().copied().collect();
        tokens.into_iter().for_each(|token| self.end(token, CloseReason::ShutDown, now));
    }

    /// Handles the timers that have expired.
    fn expire(&mut self, now: Instant) {
        while let Some(Reverse((at, timer))) = self.timers.peek().copied()
            && at <= now
        {
            self.timers.pop();
            match timer {
                Timer::Socket(token) => self.expire_socket(token, at, now),
                Timer::Redial(peer) => self.dial(peer, now),
                Timer::Accept(listener) => {
                    self.accepting.insert(listener);
                }
            }
        }
    }

    fn expire_socket(&mut self, token: usize, at: Instant, now: Instant) {
        let timeouts = self.shared.timeouts;
        let Some(socket) = self.sockets.get_mut(&token).filter(|socket| socket.armed == Some(at)) else {
            return;
        };
        socket.armed = None;
        let (due, deadline) = socket.deadline(&timeouts);
        if due <= now {
            // Bytes that wait in a socket that is not read show that the peer is there.
            let is_waiting = socket.is_readable;
            match deadline {
                Deadline::Dial => {
                    let error = DialError::TimedOut(timeouts.dial);
                    return self.dial_failed(token, error, now);
                }
                Deadline::Handshake => {
                    return self.close(token, CloseReason::HandshakeTimeout(timeouts.handshake), now);
                }
                Deadline::Stalled => {
                    return self.close(token, CloseReason::Stalled(timeouts.stalled_write), now);
                }
                Deadline::Linger => return drop(self.sockets.remove(&token)),
                Deadline::Pong if !is_waiting => {
                    return self.close(token, CloseReason::Unresponsive(timeouts.pong), now);
                }
                Deadline::Ping if !is_waiting => self.ping(token, now),
                Deadline::Ping | Deadline::Pong => {
                    if let Stage::Open(link, _) = &mut socket.stage {
                        (link.heard, link.pinged) = (now, None);
                    }
                }
            }
        }
        self.arm(token);
    }

    /// Sets the socket's timer, unless it is set for a time at least as early.
    fn arm(&mut self, token: usize) {
        let Some(socket) = self.sockets.get_mut(&token) else { return };
        let (due, _) = socket.deadline(&self.shared.timeouts);
        if socket.armed.is_none_or(|armed| due < armed) {
            socket.armed = Some(due);
            self.timers.push(Reverse((due, Timer::Socket(token))));
        }
    }

    /// Registers a socket and starts its timer; returns its token.
    fn insert(&mut self, mut socket: PeerSocket) -> Result<usize, io::Error> {
        let token = self.next_token;
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.poll.registry().register(&mut socket.stream, Token(token), interest)?;
        self.next_token += 1;
        self.sockets.insert(token, socket);
        self.arm(token);
        Ok(token)
    }

    /// Ends a connection for the engine and the embedder. Its unwritten bytes are still written.
    fn end(&mut self, token: usize, reason: CloseReason, now: Instant) {
        let Some(socket) = self.sockets.get_mut(&token) else { return };
        match &socket.stage {
            Stage::Lingering { .. } => {}
            Stage::Open(..) => {
                let (peer, stage) = (socket.peer, std::mem::replace(&mut socket.stage, LINGERING));
                (socket.since, socket.is_readable) = (now, true);
                (socket.permit, socket.origin) = (None, None);
                self.unwritten.push(token);
                self.arm(token);
                self.report_end(token, peer, stage, reason, now);
            }
            _ => self.close(token, reason, now),
        }
    }

    /// Closes a socket at once.
    fn close(&mut self, token: usize, reason: CloseReason, now: Instant) {
        let Some(PeerSocket { peer, stage, direction, stream, .. }) = self.sockets.remove(&token) else {
            return;
        };
        self.strangers.remove(&token);
        drop(stream);
        match &stage {
            Stage::Lingering { .. } => {}
            Stage::Open(..) => self.report_end(token, peer, stage, reason, now),
            _ => {
                tracing::debug!(?direction, %reason, "a connection ended before it was usable");
                self.shared.counters.count_refused(&reason);
                if let (Some(peer), crate::ConnectionDirection::Outbound) = (peer, direction) {
                    self.dial_ended(peer, DialError::Closed(reason), now);
                }
            }
        }
    }

    /// Tells engine and embedder that an open connection has ended.
    fn report_end(
        &mut self,
        token: usize,
        peer: Option<NodeId>,
        stage: Stage,
        reason: CloseReason,
        now: Instant,
    ) {
        let (Some(peer), Stage::Open(_, connection)) = (peer, stage) else { return };
        self.engine.disconnected(connection);
        if self.peers.get(&peer) == Some(&token) {
            self.peers.remove(&peer);
        }
        (self.shared.on_event)(ConnectionEvent::Disconnected { peer, connection, reason });
        self.schedule_redial(peer, now);
    }

    /// Reads and discards what comes on a socket that has ended, and closes it once the peer has.
    fn linger(&mut self, token: usize) {
        let Some(socket) = self.sockets.get_mut(&token) else { return };
        socket.is_readable = false;
        if discard(&mut socket.stream, &mut self.buffer) {
            self.sockets.remove(&token);
        }
    }
}

const LINGERING: Stage = Stage::Lingering { is_shut: false };
