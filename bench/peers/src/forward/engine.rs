//! Fulmen's production runtime as the forwarder: its own threads, its own store.
//!
//! Its CPU time, as the operating system counts it, is that of all threads of this process but the driving one
//! (workers, persister, checkpoints, their pools) with the kernel time they cause, and in the driving thread that of
//! every call which feeds the engine. Left out: waiting for the engine to come to rest, which only lockstep rounds
//! need, and the operator's calls (opening channels).
//!
//! All messages of a peer in one round are fed with one call, as after one read of a socket.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::Thread;
use std::time::Duration;

use bitcoin::{Block, Transaction};
use fulmen::chain::ChainEvent;
use fulmen::proto::forward::{Command, Event, OpenChannelRequest};
use fulmen::runtime::{Connection, Effects, Engine, ReceiveError, Storage};
use fulmen::wire::units::{BlockHeight, Msat, NodeId};

use super::clock::{process_cpu_ns, thread_cpu_ns};
use super::fulmen_end::{node_config, node_seed};
use super::member::{CAPACITY, Forwarder, Member, Usage, funding};

/// How long the driving thread sleeps before it looks again whether the engine rests; it is woken when something
/// leaves.
const LOOK_AGAIN: Duration = Duration::from_micros(100);
/// How often it looks before it sleeps.
const LOOKS: usize = 20;

/// An engine with its sent messages that nobody has polled.
pub(super) struct EngineForwarder {
    engine: Engine,
    connections: HashMap<NodeId, Connection>,
    /// The messages of this round, peer by peer.
    received: Vec<(NodeId, Vec<Vec<u8>>)>,
    done: Arc<Mutex<Vec<Effects>>>,
    outbox: Vec<(NodeId, Vec<u8>)>,
    fundings: Vec<Transaction>,
    /// CPU time of this thread in calls that feed the engine.
    fed_ns: u64,
}

impl EngineForwarder {
    /// An engine on `workers` threads that writes to `directory`, or to memory.
    pub(super) fn new(workers: usize, directory: Option<PathBuf>) -> EngineForwarder {
        let storage = directory.map_or(Storage::Nowhere, Storage::Directory);
        let builder = Engine::builder(node_seed(0), node_config(), storage).workers(workers);
        let done = Arc::new(Mutex::new(Vec::new()));
        let handler = waking(std::thread::current(), Arc::clone(&done));
        let engine =
            builder.start(handler).unwrap_or_else(|error| panic!("the engine does not start: {error}"));
        engine.chain_in_step();
        EngineForwarder {
            engine,
            connections: HashMap::new(),
            received: Vec::new(),
            done,
            outbox: Vec::new(),
            fundings: Vec::new(),
            fed_ns: 0,
        }
    }

    /// Gives the engine the messages of this round.
    fn feed(&mut self) {
        for (peer, messages) in std::mem::take(&mut self.received) {
            let connection = self.connections[&peer];
            let mut rest = &messages[..];
            while !rest.is_empty() {
                let start = thread_cpu_ns();
                let fed = self.engine.receive_all(connection, rest.iter().map(Vec::as_slice));
                self.fed_ns += thread_cpu_ns() - start;
                match fed {
                    Ok(()) => break,
                    Err(ReceiveError::WouldBlock { accepted }) => {
                        rest = &rest[accepted..];
                        self.rest();
                    }
                    Err(error) => panic!("the engine does not take an end's messages: {error}"),
                }
            }
        }
    }

    /// Waits until the engine has nothing left to do.
    fn rest(&self) {
        loop {
            for _ in 0..LOOKS {
                if !self.engine.has_work() {
                    return;
                }
                std::hint::spin_loop();
            }
            std::thread::park_timeout(LOOK_AGAIN);
        }
    }

    /// Takes the engine's effects.
    fn execute(&mut self, effects: Effects) {
        let Effects { send, disconnect, events, .. } = effects;
        assert_eq!(disconnect, [], "the ends gave the engine a reason to hang up");
        self.outbox.extend(send.into_iter().map(|(connection, bytes)| (connection.peer, bytes)));
        for event in events {
            match event {
                Event::FundingNeeded { temporary_channel_id, amount, script, .. } => {
                    let transaction = funding(amount, script);
                    self.fundings.push(transaction.clone());
                    let command = Command::FundingTransaction { temporary_channel_id, transaction };
                    self.engine.command(command).expect("the engine takes the funding transaction");
                }
                Event::HtlcRefused { .. }
                | Event::ChannelFailed { .. }
                | Event::CommandRefused { .. }
                | Event::PeerWarning { .. } => panic!("the engine says {event:?}"),
                _ => {}
            }
        }
    }
}

/// Keeps the effects, and wakes `driver`.
fn waking(driver: Thread, done: Arc<Mutex<Vec<Effects>>>) -> impl Fn(Effects) + Send + Sync + 'static {
    move |effects| {
        done.lock().unwrap_or_else(PoisonError::into_inner).push(effects);
        driver.unpark();
    }
}

impl Member for EngineForwarder {
    fn id(&self) -> NodeId {
        self.engine.id()
    }

    fn init(&self) -> Vec<u8> {
        self.engine.init()
    }

    fn connected(&mut self, peer: NodeId, init: &[u8], _inbound: bool) {
        let connection = self.engine.connected(peer, init).expect("the end's init suits us");
        self.connections.insert(peer, connection);
    }

    fn block(&mut self, block: &Block, height: u32) {
        let event = ChainEvent::Connected { height: BlockHeight(height), block: block.clone().into() };
        self.engine.chain_event(&event);
    }

    fn receive(&mut self, peer: NodeId, message: &[u8]) {
        match self.received.iter_mut().find(|(from, _)| *from == peer) {
            Some((_, messages)) => messages.push(message.to_vec()),
            None => self.received.push((peer, vec![message.to_vec()])),
        }
    }

    fn work(&mut self) -> bool {
        self.feed();
        self.rest();
        let done = std::mem::take(&mut *self.done.lock().unwrap_or_else(PoisonError::into_inner));
        let busy = !done.is_empty();
        done.into_iter().for_each(|effects| self.execute(effects));
        busy
    }

    fn poll(&mut self) -> Vec<(NodeId, Vec<u8>)> {
        self.work();
        std::mem::take(&mut self.outbox)
    }
}

impl Forwarder for EngineForwarder {
    fn open(&mut self, peer: NodeId, user_id: u64) {
        let push = Msat(CAPACITY.to_msat().0 / 2);
        let open = OpenChannelRequest { peer, user_id, capacity: CAPACITY, push, policy: None };
        self.engine.command(Command::OpenChannel(open)).expect("the engine takes the command");
    }

    fn fundings(&mut self) -> Vec<Transaction> {
        std::mem::take(&mut self.fundings)
    }

    fn usage(&self) -> Usage {
        let others = process_cpu_ns() - thread_cpu_ns();
        let store = self.engine.stats().store;
        let bytes_written = store.record_bytes + store.checkpoint_bytes;
        Usage { cpu_ns: others + self.fed_ns, syncs: store.syncs, bytes_written }
    }
}
