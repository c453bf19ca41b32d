//! Our node as an embedder runs it: an engine on threads with its records on disk, and a network.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bitcoin::{Amount, Transaction};
use crossbeam::channel::{Receiver, Sender, unbounded};
use fulmen::Engine;
use fulmen::chain::ChainEvent;
use fulmen::runtime::{Effects, Storage};
use fulmen_net::{
    ConnectionEvent, ConnectionLimits, ConnectionTimeouts, Host, NetConfig, PeerAddress, PeerNetwork,
};
use fulmen_proto::channel::Channel;
use fulmen_proto::forward::{
    ChannelRef, Command, Event, ForwardingPolicy, InboundFee, NodeConfig, OpenChannelRequest,
};
use fulmen_proto::keys::NodeSeed;
use fulmen_wire::units::{ChainHash, ChannelId, CltvDelta, Msat, NodeId, Sat, Scid};

use crate::chain::SharedChain;

/// The node's forwarding policy.
pub(crate) const POLICY: ForwardingPolicy = ForwardingPolicy {
    fee_base: Msat(1_000),
    fee_proportional_millionths: 500,
    cltv_expiry_delta: CltvDelta(40),
    htlc_minimum: Msat(1_000),
    htlc_maximum: Msat(500_000_000),
    disabled: false,
    inbound_fee: InboundFee { base_msat: 0, proportional_millionths: 0 },
};

/// The settings of a node for tests.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) seed: u8,
    pub(crate) directory: Option<PathBuf>,
    pub(crate) net: NetConfig,
    /// The engine's credit for a peer, in messages and bytes; then nothing else slows strangers.
    pub(crate) credit: Option<(usize, usize)>,
}

/// A running node.
pub(crate) struct FulmenNode {
    pub(crate) engine: Arc<Engine>,
    pub(crate) network: PeerNetwork,
    state: Arc<State>,
    chain: SharedChain,
}

#[derive(Default)]
struct State {
    events: Mutex<Vec<Event>>,
    peer_events: Mutex<Vec<ConnectionEvent>>,
    broadcast: Mutex<Vec<Transaction>>,
}

impl Settings {
    pub(crate) fn new(seed: u8) -> Settings {
        let timeouts = ConnectionTimeouts {
            redial_min: Duration::from_millis(50),
            redial_max: Duration::from_millis(400),
            ..ConnectionTimeouts::default()
        };
        let limits = ConnectionLimits { connections_max: 200, ..ConnectionLimits::default() };
        let listen = vec!["127.0.0.1:0".parse().unwrap()];
        let net = NetConfig { listen, limits, timeouts, ..NetConfig::default() };
        Settings { seed, directory: None, net, credit: None }
    }
}

impl FulmenNode {
    pub(crate) fn start(settings: Settings, chain: &SharedChain) -> FulmenNode {
        let Settings { seed, directory, net, credit } = settings;
        let state: Arc<State> = Arc::default();
        let record = Arc::clone(&state);
        let on_event = move |event| lock(&record.peer_events).push(event);
        let network = PeerNetwork::bind(net, on_event).unwrap();
        let mut config = NodeConfig::new(ChainHash::REGTEST, [&[0x00, 0x14][..], &[seed; 20]].concat());
        config.policy = POLICY;
        config.channel.minimum_depth = 1;
        let seed = NodeSeed::new([seed; 32]);
        let (sender, needs): (Sender<Event>, Receiver<Event>) = unbounded();
        let record = Arc::clone(&state);
        let handler = network.handler(move |effects: Effects| {
            lock(&record.broadcast).extend(effects.broadcast);
            for event in effects.events {
                if matches!(event, Event::FundingNeeded { .. }) {
                    sender.send(event.clone()).unwrap_or_default();
                }
                lock(&record.events).push(event);
            }
        });
        let storage = directory.map_or(Storage::Nowhere, Storage::Directory);
        let mut builder = Engine::builder(seed.clone(), config, storage).workers(2);
        if let Some((messages, bytes)) = credit {
            builder = builder.peer_credit(messages, bytes).allowance(u32::MAX, u32::MAX);
        }
        let engine = Arc::new(builder.start(handler).unwrap());
        chain.history().iter().for_each(|event| engine.chain_event(event));
        engine.chain_in_step();
        network.start(&engine, seed.node_secret()).unwrap();
        let (funder, wallet) = (Arc::downgrade(&engine), chain.clone());
        std::thread::spawn(move || {
            for need in needs {
                let Event::FundingNeeded { temporary_channel_id, amount, script, .. } = need else {
                    continue;
                };
                let transaction = wallet.fund(Amount::from_sat(amount.0), script);
                let Some(engine) = funder.upgrade() else { return };
                engine.command(Command::FundingTransaction { temporary_channel_id, transaction }).unwrap();
            }
        });
        FulmenNode { engine, network, state, chain: chain.clone() }
    }

    pub(crate) fn id(&self) -> NodeId {
        self.engine.id()
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.network.local_addresses()[0]
    }

    /// Dials a node, now and whenever it is away.
    pub(crate) fn keep_connected(&self, node_id: NodeId, address: SocketAddr) {
        let (host, port) = (Host::Ip(address.ip()), address.port());
        self.network.keep_connected(PeerAddress { node_id, host, port });
    }

    pub(crate) fn open(&self, peer: NodeId, capacity: Sat, push: Msat) {
        let open = OpenChannelRequest { peer, user_id: 1, capacity, push, policy: None };
        self.engine.command(Command::OpenChannel(open)).unwrap();
    }

    pub(crate) fn events(&self) -> MutexGuard<'_, Vec<Event>> {
        lock(&self.state.events)
    }

    pub(crate) fn peer_events(&self) -> MutexGuard<'_, Vec<ConnectionEvent>> {
        lock(&self.state.peer_events)
    }

    /// Whether the last report about a node is that it is connected.
    pub(crate) fn is_connected(&self, node: NodeId) -> bool {
        let events = self.peer_events();
        let last = events.iter().rev().find_map(|event| match event {
            ConnectionEvent::Connected { peer, .. } if *peer == node => Some(true),
            ConnectionEvent::Disconnected { peer, .. } if *peer == node => Some(false),
            _ => None,
        });
        last == Some(true)
    }

    /// The number of connections with a node so far.
    pub(crate) fn connections_with(&self, node: NodeId) -> usize {
        let is_one = |event: &&ConnectionEvent| matches!(event, ConnectionEvent::Connected { peer, .. } if *peer == node);
        self.peer_events().iter().filter(is_one).count()
    }

    /// The channel with a node that became ready last.
    pub(crate) fn channel_with(&self, node: NodeId) -> Option<(ChannelId, Scid)> {
        let mut found = None;
        self.engine.for_each_shard(|shard| {
            let with_node = |channel: &&Channel| {
                let policy = shard.policy(ChannelRef::Id(channel.id()));
                policy.is_some_and(|(peer, _)| peer == node)
            };
            let channels = shard.channels().filter(with_node);
            found = found.or(channels.filter_map(|channel| Some((channel.id(), channel.scid()?))).last());
        });
        found
    }

    pub(crate) fn channel<T>(&self, node: NodeId, look: impl FnOnce(&Channel) -> T) -> T {
        let (channel_id, _) = self.channel_with(node).expect("there is a channel with the node");
        self.engine.channel(ChannelRef::Id(channel_id), look).expect("the channel is known")
    }

    /// Gives the chain the transactions that the engine broadcast.
    pub(crate) fn publish(&self) {
        let transactions = std::mem::take(&mut *lock(&self.state.broadcast));
        self.chain.broadcast(&transactions);
    }

    pub(crate) fn block(&self, event: &ChainEvent) {
        self.engine.chain_event(event);
    }

    /// The fees it was paid, in order.
    pub(crate) fn fees(&self) -> Vec<Msat> {
        let fees = |event: &Event| match event {
            Event::Forwarded { fee, .. } => Some(*fee),
            _ => None,
        };
        self.events().iter().filter_map(fees).collect()
    }

    /// Ends it as an operator would.
    pub(crate) fn shutdown(self) {
        self.engine.shutdown().unwrap();
        self.network.shutdown(Duration::from_secs(5));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no thread panicked with it")
}
