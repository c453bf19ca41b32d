//! A node's network: from settings to running event loops, and the handler that connects them to an engine.
//!
//! Owns: the start (limits, descriptors, listeners, threads), the embedder's calls, and the end. Connections are served
//! by [`crate::event_loop`].
//!
//! Invariant: nothing is accepted or dialled before [`PeerNetwork::start`], so that an engine has its handler first.

use std::net::SocketAddr;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam::channel::Receiver;
use fulmen::Engine;
use fulmen::runtime::{Connection, Effects, Fatal, Handler};
use fulmen_wire::units::NodeId;
use mio::net::TcpListener;
use mio::{Poll, Waker};
use rustix::process::{Resource, getrlimit};
use secp256k1::SecretKey;

use crate::address::PeerAddress;
use crate::admission::Admission;
use crate::config::NetConfig;
use crate::error::NetStartError;
use crate::event_loop::{EventLoop, WAKER};
use crate::mailbox::{LoopCommand, Mailbox};
use crate::opening::NodeKey;
use crate::resolver::{self, Lookup, Resolver};
use crate::shared::{ConnectionEvent, NetCounters, NetStats, Shared};

/// Descriptors that a process needs beside its sockets: standard streams, the store's files, event queues.
const OTHER_DESCRIPTORS: usize = 128;

/// The connections of a node to its peers: BOLT 8 over TCP, on threads of its own.
///
/// It is an embedder of the engine like any other. [`bind`](PeerNetwork::bind) it, start the engine with its
/// [`handler`](PeerNetwork::handler), then [`start`](PeerNetwork::start) it with the engine. To end, shut the engine
/// down first, so that its last messages are here, then [`shutdown`](PeerNetwork::shutdown). Dropping it closes all
/// connections at once.
///
/// A second connection of a node takes the place of the first, except that of two young connections that both nodes
/// dialled at once, the one dialled by the node with the lower id is kept.
#[derive(Debug)]
pub struct PeerNetwork {
    shared: Arc<Shared>,
    addresses: Vec<SocketAddr>,
    /// The parts of the loops, until they start.
    prepared: Mutex<Option<Prepared>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

#[derive(Debug)]
struct Prepared {
    polls: Vec<Poll>,
    listeners: Vec<TcpListener>,
    lookups: Receiver<Lookup>,
}

/// The part of an engine's effects that concerns connections goes to the network, the rest to another handler.
#[derive(Debug)]
pub struct NetHandler<H> {
    shared: Arc<Shared>,
    rest: H,
}

impl PeerNetwork {
    /// Checks the settings and takes the addresses to listen on. `on_event` is called on the loops' threads and must
    /// not wait for a peer.
    ///
    /// # Errors
    /// When the limits admit no peer or exceed the process's descriptors, or an address is taken.
    pub fn bind(
        config: NetConfig,
        on_event: impl Fn(ConnectionEvent) + Send + Sync + 'static,
    ) -> Result<PeerNetwork, NetStartError> {
        let NetConfig { listen, loops, proxy, limits, timeouts } = config;
        limits.check()?;
        check_descriptors(limits.descriptors().saturating_add(OTHER_DESCRIPTORS) as u64)?;
        let bind = |&address: &SocketAddr| {
            TcpListener::bind(address).map_err(|error| NetStartError::Listen { address, error })
        };
        let listeners = listen.iter().map(bind).collect::<Result<Vec<_>, _>>()?;
        let address = |listener: &TcpListener| listener.local_addr().map_err(NetStartError::Poll);
        let addresses = listeners.iter().map(address).collect::<Result<Vec<_>, _>>()?;
        let (mut polls, mut mailboxes) = (Vec::new(), Vec::new());
        for _ in 0..loops.max(1) {
            let poll = Poll::new().map_err(NetStartError::Poll)?;
            mailboxes.push(Mailbox::new(Waker::new(poll.registry(), WAKER).map_err(NetStartError::Poll)?));
            polls.push(poll);
        }
        let (resolver, lookups) = Resolver::new();
        let shared = Shared {
            limits,
            timeouts,
            proxy,
            mailboxes,
            admission: Admission::new(limits.connections_max, limits.connections_per_ip_max),
            resolver,
            counters: NetCounters::default(),
            on_event: Box::new(on_event),
            dealt: AtomicUsize::new(0),
        };
        Ok(PeerNetwork {
            shared: Arc::new(shared),
            addresses,
            prepared: Mutex::new(Some(Prepared { polls, listeners, lookups })),
            threads: Mutex::default(),
        })
    }

    /// The engine's handler: `rest` gets everything but messages and connections, once these are on their way.
    pub fn handler<H: Handler>(&self, rest: H) -> NetHandler<H> {
        NetHandler { shared: Arc::clone(&self.shared), rest }
    }

    /// Starts the event loops, on threads named `fulmen-net-0` and so on. `node_secret` is the key of the engine's node
    /// id ([`NodeSeed::node_secret`](fulmen::proto::keys::NodeSeed::node_secret)).
    ///
    /// # Errors
    /// When it was started before, or the system gives no thread.
    pub fn start(&self, engine: &Arc<Engine>, node_secret: SecretKey) -> Result<(), NetStartError> {
        let prepared = self.prepared.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Prepared { polls, mut listeners, lookups } = prepared.ok_or(NetStartError::Started)?;
        let node_key = NodeKey::new(node_secret);
        for (index, poll) in polls.into_iter().enumerate() {
            // The first loop accepts for all.
            let listeners = std::mem::take(&mut listeners);
            let (shared, engine) = (Arc::clone(&self.shared), Arc::clone(engine));
            let event_loop = EventLoop::new(shared, engine, node_key.clone(), index, poll, listeners);
            let event_loop = event_loop.map_err(NetStartError::Poll)?;
            let thread = std::thread::Builder::new().name(format!("fulmen-net-{index}"));
            let thread = thread.spawn(move || event_loop.run()).map_err(NetStartError::Thread)?;
            self.threads.lock().unwrap_or_else(PoisonError::into_inner).push(thread);
        }
        // Not joined: the system's resolver may block for long. It ends with the network.
        let network = Arc::downgrade(&self.shared);
        let answer = move |to: usize, command| {
            network.upgrade().map(|network| network.mailboxes[to].send(command)).is_some()
        };
        let thread = std::thread::Builder::new().name("fulmen-resolve".to_owned());
        thread.spawn(move || resolver::run(&lookups, answer)).map_err(NetStartError::Thread)?;
        Ok(())
    }

    /// The addresses listened on, with the ports that the system chose.
    #[must_use]
    pub fn local_addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Dials a node once. The outcome is a [`ConnectionEvent`].
    pub fn connect(&self, address: PeerAddress) {
        self.to_loop_of(address.node_id, LoopCommand::Dial { address, keep: false });
    }

    /// Dials a node, now and whenever there is no connection to it, after growing waits. The node may have several
    /// addresses, given one by one: the last is tried first. Its inbound connections are accepted beyond
    /// [`connections_max`](crate::ConnectionLimits::connections_max).
    pub fn keep_connected(&self, address: PeerAddress) {
        self.to_loop_of(address.node_id, LoopCommand::Dial { address, keep: true });
    }

    /// Forgets the addresses of a node: it is not dialled again. A connection to it stays.
    pub fn forget(&self, peer: NodeId) {
        self.to_loop_of(peer, LoopCommand::Forget(peer));
    }

    /// Ends the connection to a node, after the messages to it were written.
    pub fn disconnect(&self, peer: NodeId) {
        self.to_loop_of(peer, LoopCommand::Disconnect(peer));
    }

    /// Counts since the start.
    #[must_use]
    pub fn stats(&self) -> NetStats {
        self.shared.stats()
    }

    /// Stops accepting and dialling, writes the messages that wait, for at most `patience`, and closes all connections.
    pub fn shutdown(&self, patience: Duration) {
        let until = Instant::now() + patience;
        self.end(|| LoopCommand::Drain(until));
    }

    fn to_loop_of(&self, peer: NodeId, command: LoopCommand) {
        self.shared.mailboxes[self.shared.loop_of(peer)].send(command);
    }

    fn end(&self, command: impl Fn() -> LoopCommand) {
        self.shared.mailboxes.iter().for_each(|mailbox| mailbox.send(command()));
        for thread in self.threads.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            // The panic hook has reported a thread that panicked.
            let _ = thread.join();
        }
    }
}

impl Drop for PeerNetwork {
    fn drop(&mut self) {
        self.end(|| LoopCommand::Stop);
    }
}

impl<H: Handler> Handler for NetHandler<H> {
    fn effects(&self, mut effects: Effects) {
        let send = std::mem::take(&mut effects.send);
        let disconnect = std::mem::take(&mut effects.disconnect);
        let resume = std::mem::take(&mut effects.resume);
        self.dispatch(send, disconnect, resume);
        if !effects.is_empty() {
            self.rest.effects(effects);
        }
    }

    fn stopped(&self, fatal: &Fatal) {
        self.shared.mailboxes.iter().for_each(|mailbox| mailbox.send(LoopCommand::Stop));
        self.rest.stopped(fatal);
    }
}

impl<H> NetHandler<H> {
    /// Gives each loop the effects on its peers, in one command.
    fn dispatch(
        &self,
        send: Vec<(Connection, Vec<u8>)>,
        disconnect: Vec<Connection>,
        resume: Vec<Connection>,
    ) {
        if send.is_empty() && disconnect.is_empty() && resume.is_empty() {
            return;
        }
        let mailboxes = &self.shared.mailboxes;
        if let [mailbox] = mailboxes.as_slice() {
            return mailbox.send(LoopCommand::Effects { send, disconnect, resume });
        }
        let mut parts: Vec<_> = mailboxes.iter().map(|_| (Vec::new(), Vec::new(), Vec::new())).collect();
        let of = |connection: &Connection| self.shared.loop_of(connection.peer);
        send.into_iter().for_each(|message| parts[of(&message.0)].0.push(message));
        disconnect.into_iter().for_each(|connection| parts[of(&connection)].1.push(connection));
        resume.into_iter().for_each(|connection| parts[of(&connection)].2.push(connection));
        for (mailbox, (send, disconnect, resume)) in mailboxes.iter().zip(parts) {
            if !(send.is_empty() && disconnect.is_empty() && resume.is_empty()) {
                mailbox.send(LoopCommand::Effects { send, disconnect, resume });
            }
        }
    }
}

fn check_descriptors(needed: u64) -> Result<(), NetStartError> {
    match getrlimit(Resource::Nofile).current {
        Some(limit) if limit < needed => Err(NetStartError::Descriptors { needed, limit }),
        _ => Ok(()),
    }
}
