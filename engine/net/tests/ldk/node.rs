//! A live LDK node: its channel and peer managers, over TCP by `lightning-net-tokio`, with a runtime of its own.
//!
//! Owns: the threads that drive LDK, its reactions as an operator's, and its state on a stand-in for a disk, so that it
//! can be restarted.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;

use bitcoin::secp256k1::PublicKey;
use bitcoin::{Amount, Network};
use fulmen::chain::ChainEvent;
use lightning::chain::chainmonitor::{ChainMonitor, Persist};
use lightning::chain::channelmonitor::{ChannelMonitor, ChannelMonitorUpdate};
use lightning::chain::{BestBlock, ChannelMonitorUpdateStatus, Filter, Listen};
use lightning::events::{Event, EventsProvider};
use lightning::ln::channel_state::ChannelDetails;
use lightning::ln::channelmanager::{
    ChainParameters, ChannelManager, ChannelManagerReadArgs, PaymentId, RecipientOnionFields,
};
use lightning::ln::peer_handler::{IgnoringMessageHandler, MessageHandler, PeerManager};
use lightning::routing::router::{Path, Route, RouteHop};
use lightning::sign::{InMemorySigner, KeysManager};
use lightning::types::features::ChannelFeatures;
use lightning::types::payment::{PaymentHash, PaymentSecret};
use lightning::util::config::{MaxDustHTLCExposure, UserConfig};
use lightning::util::persist::MonitorName;
use lightning::util::ser::{ReadableArgs, Writeable};
use lightning_net_tokio::SocketDescriptor;
use tokio::runtime::Runtime;

use crate::chain::SharedChain;
use crate::memory::node::{Broadcasts, Fees, Log, NoRouter};

type Monitor = ChainMonitor<
    InMemorySigner,
    Arc<dyn Filter + Send + Sync>,
    Arc<Broadcasts>,
    Arc<Fees>,
    Arc<Log>,
    Arc<MemoryDisk>,
    Arc<KeysManager>,
>;
type Manager = ChannelManager<
    Arc<Monitor>,
    Arc<Broadcasts>,
    Arc<KeysManager>,
    Arc<KeysManager>,
    Arc<KeysManager>,
    Arc<Fees>,
    Arc<NoRouter>,
    Arc<NoRouter>,
    Arc<Log>,
>;
type Peers = PeerManager<
    SocketDescriptor,
    Arc<Manager>,
    IgnoringMessageHandler,
    IgnoringMessageHandler,
    Arc<Log>,
    IgnoringMessageHandler,
    Arc<KeysManager>,
    IgnoringMessageHandler,
>;

/// A running node.
pub(crate) struct LdkNode {
    parts: Arc<Parts>,
    runtime: Option<Runtime>,
    thread: Option<JoinHandle<()>>,
    address: SocketAddr,
    payments_made: AtomicU64,
}

/// The parts that its threads share.
struct Parts {
    seed: u8,
    manager: Arc<Manager>,
    monitor: Arc<Monitor>,
    peers: Arc<Peers>,
    broadcasts: Arc<Broadcasts>,
    disk: Arc<MemoryDisk>,
    events: Mutex<Vec<Event>>,
    chain: SharedChain,
    ending: AtomicBool,
}

/// Monitors by name, as LDK last wrote them.
#[derive(Default)]
struct MemoryDisk(Mutex<HashMap<String, Vec<u8>>>);

/// A stopped node: as much as its disk has.
pub(crate) struct Stopped {
    seed: u8,
    manager: Vec<u8>,
    disk: Arc<MemoryDisk>,
    address: SocketAddr,
    events: Vec<Event>,
    payments_made: u64,
}

impl Persist<InMemorySigner> for MemoryDisk {
    fn persist_new_channel(
        &self,
        name: MonitorName,
        monitor: &ChannelMonitor<InMemorySigner>,
    ) -> ChannelMonitorUpdateStatus {
        lock(&self.0).insert(name.to_string(), monitor.encode());
        ChannelMonitorUpdateStatus::Completed
    }

    fn update_persisted_channel(
        &self,
        name: MonitorName,
        _: Option<&ChannelMonitorUpdate>,
        monitor: &ChannelMonitor<InMemorySigner>,
    ) -> ChannelMonitorUpdateStatus {
        self.persist_new_channel(name, monitor)
    }

    fn archive_persisted_channel(&self, _: MonitorName) {}
}

impl LdkNode {
    /// A node whose keys follow from `seed`.
    pub(crate) fn start(seed: u8, chain: &SharedChain) -> LdkNode {
        let (height, hash) = chain.tip();
        let parts = Parts::new(seed, chain, Arc::default(), |base, monitor| {
            let router = Arc::new(NoRouter);
            let best_block = BestBlock::new(hash, height.0);
            let parameters = ChainParameters { network: Network::Regtest, best_block };
            ChannelManager::new(
                base.fees.clone(),
                monitor.clone(),
                base.broadcasts.clone(),
                router.clone(),
                router,
                base.log.clone(),
                base.keys.clone(),
                base.keys.clone(),
                base.keys.clone(),
                config(),
                parameters,
                1_700_000_000,
            )
        });
        LdkNode::run(parts, "127.0.0.1:0".parse().unwrap(), Vec::new(), 0)
    }

    /// The node again after it was stopped. No block may have been mined meanwhile.
    pub(crate) fn restart(stopped: Stopped, chain: &SharedChain) -> LdkNode {
        let Stopped { seed, manager, disk, address, events, payments_made } = stopped;
        let parts = Parts::new(seed, chain, disk.clone(), |base, monitor| {
            let stored = lock(&disk.0).values().cloned().collect::<Vec<_>>();
            let read = |bytes: Vec<u8>| {
                let keys = (&*base.keys, &*base.keys);
                let read = <(_, ChannelMonitor<InMemorySigner>)>::read(&mut bytes.as_slice(), keys);
                read.expect("LDK reads its own monitor").1
            };
            let monitors: Vec<_> = stored.into_iter().map(read).collect();
            let router = Arc::new(NoRouter);
            let arguments = ChannelManagerReadArgs {
                entropy_source: base.keys.clone(),
                node_signer: base.keys.clone(),
                signer_provider: base.keys.clone(),
                fee_estimator: base.fees.clone(),
                chain_monitor: monitor.clone(),
                tx_broadcaster: base.broadcasts.clone(),
                router: router.clone(),
                message_router: router,
                logger: base.log.clone(),
                config: config(),
                channel_monitors: monitors.iter().map(|monitor| (monitor.channel_id(), monitor)).collect(),
            };
            let (_, manager) =
                <(_, Manager)>::read(&mut manager.as_slice(), arguments).expect("LDK reads itself");
            for channel in monitors {
                monitor.load_existing_monitor(channel.channel_id(), channel).expect("a monitor of its own");
            }
            manager
        });
        LdkNode::run(parts, address, events, payments_made)
    }

    fn run(parts: Parts, listen: SocketAddr, events: Vec<Event>, payments_made: u64) -> LdkNode {
        *lock(&parts.events) = events;
        let parts = Arc::new(parts);
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(tokio::net::TcpListener::bind(listen)).unwrap();
        let address = listener.local_addr().unwrap();
        let peers = Arc::clone(&parts.peers);
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(lightning_net_tokio::setup_inbound(peers.clone(), stream.into_std().unwrap()));
            }
        });
        let worker = Arc::clone(&parts);
        let thread = std::thread::spawn(move || {
            while !worker.ending.load(Ordering::SeqCst) {
                worker.work();
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        let (runtime, thread) = (Some(runtime), Some(thread));
        LdkNode { parts, runtime, thread, address, payments_made: AtomicU64::new(payments_made) }
    }

    /// Stops it at this point, as a crash would.
    pub(crate) fn stop(mut self) -> Stopped {
        self.end();
        let events = std::mem::take(&mut *lock(&self.parts.events));
        Stopped {
            seed: self.parts.seed,
            manager: self.parts.manager.encode(),
            disk: Arc::clone(&self.parts.disk),
            address: self.address,
            events,
            payments_made: self.payments_made.load(Ordering::SeqCst),
        }
    }

    fn end(&mut self) {
        self.parts.ending.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("LDK's thread has not panicked");
        }
        // Waits until no task runs, so that nothing changes LDK afterwards and its port is free.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(Duration::from_secs(5));
        }
    }

    pub(crate) fn id(&self) -> PublicKey {
        self.parts.manager.get_our_node_id()
    }

    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Dials a node once.
    pub(crate) fn dial(&self, node: PublicKey, address: SocketAddr) {
        let peers = Arc::clone(&self.parts.peers);
        self.runtime.as_ref().expect("it runs").spawn(async move {
            if let Some(connection) = lightning_net_tokio::connect_outbound(peers, node, address).await {
                connection.await;
            }
        });
    }

    pub(crate) fn is_connected(&self, node: PublicKey) -> bool {
        self.parts.peers.peer_by_node_id(&node).is_some()
    }

    pub(crate) fn open(&self, peer: PublicKey, capacity_sat: u64, push_msat: u64) {
        let opened = self.parts.manager.create_channel(peer, capacity_sat, push_msat, 1, None, None);
        opened.expect("LDK opens the channel");
    }

    /// Its only channel.
    pub(crate) fn channel(&self) -> ChannelDetails {
        let mut channels = self.parts.manager.list_channels();
        assert_eq!(channels.len(), 1, "this node was to have one channel");
        channels.remove(0)
    }

    pub(crate) fn has_channels(&self) -> bool {
        !self.parts.manager.list_channels().is_empty()
    }

    pub(crate) fn is_usable(&self) -> bool {
        self.parts.manager.list_channels().iter().any(|channel| channel.is_usable)
    }

    /// A payment hash that this node can be paid to, and the secret that goes with it.
    pub(crate) fn invoice(&self, amount_msat: u64) -> (PaymentHash, PaymentSecret) {
        let made = self.parts.manager.create_inbound_payment(Some(amount_msat), 7_200, None);
        made.expect("LDK makes an invoice")
    }

    /// Pays `hash` over hops of (node, scid, fee or final amount, delta), the last of them the payee.
    pub(crate) fn pay(&self, hops: &[(PublicKey, u64, u64, u32)], hash: PaymentHash, secret: PaymentSecret) {
        let hops = hops.iter().map(|&(pubkey, short_channel_id, fee_msat, cltv_expiry_delta)| RouteHop {
            pubkey,
            node_features: self.parts.manager.node_features(),
            short_channel_id,
            channel_features: ChannelFeatures::empty(),
            fee_msat,
            cltv_expiry_delta,
            maybe_announced_channel: true,
        });
        let path = Path { hops: hops.collect(), blinded_tail: None };
        let route = Route { paths: vec![path], route_params: None };
        let number = self.payments_made.fetch_add(1, Ordering::SeqCst);
        let mut id = [0; 32];
        id[..8].copy_from_slice(&number.to_be_bytes());
        let onion = RecipientOnionFields::secret_only(secret);
        let sent = self.parts.manager.send_payment_with_route(route, hash, onion, PaymentId(id));
        sent.expect("LDK sends the payment");
    }

    pub(crate) fn close(&self) {
        let channel = self.channel();
        let peer = channel.counterparty.node_id;
        self.parts.manager.close_channel(&channel.channel_id, &peer).expect("LDK closes the channel");
    }

    pub(crate) fn disconnect(&self, node: PublicKey) {
        self.parts.peers.disconnect_by_node_id(node);
    }

    /// The payments that succeeded and that failed.
    pub(crate) fn outcomes(&self) -> (usize, usize) {
        let events = lock(&self.parts.events);
        let count = |wanted: fn(&&Event) -> bool| events.iter().filter(wanted).count();
        (
            count(|event| matches!(event, Event::PaymentSent { .. })),
            count(|event| matches!(event, Event::PaymentFailed { .. })),
        )
    }

    pub(crate) fn block(&self, event: &ChainEvent) {
        let ChainEvent::Connected { height, block } = event else { panic!("these tests reorganise nothing") };
        self.parts.monitor.block_connected(block, height.0);
        self.parts.manager.block_connected(block, height.0);
    }

    /// Gives the chain the transactions that LDK broadcast.
    pub(crate) fn publish(&self) {
        let transactions = std::mem::take(&mut *lock(&self.parts.broadcasts.0));
        self.parts.chain.broadcast(&transactions);
    }
}

impl Drop for LdkNode {
    fn drop(&mut self) {
        self.end();
    }
}

/// The services that a channel manager is given.
struct Services {
    keys: Arc<KeysManager>,
    log: Arc<Log>,
    fees: Arc<Fees>,
    broadcasts: Arc<Broadcasts>,
}

impl Parts {
    fn new(
        seed: u8,
        chain: &SharedChain,
        disk: Arc<MemoryDisk>,
        manager: impl FnOnce(&Services, &Arc<Monitor>) -> Manager,
    ) -> Parts {
        let keys = Arc::new(KeysManager::new(&[seed; 32], u64::from(seed), 0, true));
        let services = Services {
            keys: keys.clone(),
            log: Arc::new(Log(seed)),
            fees: Arc::new(Fees(AtomicU32::new(253))),
            broadcasts: Arc::new(Broadcasts(Mutex::default())),
        };
        let Services { log, fees, broadcasts, .. } = &services;
        let (log, fees, broadcasts) = (log.clone(), fees.clone(), broadcasts.clone());
        let storage_key = lightning::sign::NodeSigner::get_peer_storage_key(&*keys);
        let monitor: Arc<Monitor> = Arc::new(ChainMonitor::new(
            None,
            broadcasts.clone(),
            log.clone(),
            fees,
            disk.clone(),
            keys.clone(),
            storage_key,
        ));
        let manager = Arc::new(manager(&services, &monitor));
        let handlers = MessageHandler {
            chan_handler: manager.clone(),
            route_handler: IgnoringMessageHandler {},
            onion_message_handler: IgnoringMessageHandler {},
            custom_message_handler: IgnoringMessageHandler {},
            send_only_message_handler: IgnoringMessageHandler {},
        };
        let peers = Arc::new(PeerManager::new(handlers, 1_700_000_000, &[seed; 32], log, keys));
        let (events, ending) = (Mutex::default(), AtomicBool::new(false));
        Parts { seed, manager, monitor, peers, broadcasts, disk, events, chain: chain.clone(), ending }
    }

    /// Lets LDK do what it has to, and reacts to its events as an operator would.
    fn work(&self) {
        if self.manager.needs_pending_htlc_processing() {
            self.manager.process_pending_htlc_forwards();
        }
        let handle = |event: Event| {
            self.react(&event);
            lock(&self.events).push(event);
            Ok(())
        };
        self.manager.process_pending_events(&handle);
        self.monitor.process_pending_events(&handle);
        self.peers.process_events();
    }

    fn react(&self, event: &Event) {
        match event {
            Event::OpenChannelRequest { temporary_channel_id, counterparty_node_id, .. } => self
                .manager
                .accept_inbound_channel(temporary_channel_id, counterparty_node_id, 1, None)
                .expect("LDK accepts the channel"),
            Event::FundingGenerationReady {
                temporary_channel_id,
                counterparty_node_id,
                channel_value_satoshis,
                output_script,
                ..
            } => {
                let amount = Amount::from_sat(*channel_value_satoshis);
                let transaction = self.chain.fund(amount, output_script.clone());
                self.manager
                    .funding_transaction_generated(*temporary_channel_id, *counterparty_node_id, transaction)
                    .expect("LDK funds the channel");
            }
            Event::PaymentClaimable { purpose, .. } => {
                self.manager.claim_funds(purpose.preimage().expect("it made the invoice itself"));
            }
            _ => {}
        }
    }
}

fn config() -> UserConfig {
    let mut config = UserConfig::default();
    config.channel_handshake_config.minimum_depth = 1;
    config.channel_handshake_config.our_max_accepted_htlcs = 483;
    config.channel_handshake_config.max_inbound_htlc_value_in_flight_percent_of_channel = 100;
    config.channel_handshake_config.negotiate_anchors_zero_fee_htlc_tx = true;
    config.channel_handshake_limits.trust_own_funding_0conf = false;
    config.channel_handshake_limits.force_announced_channel_preference = false;
    config.channel_config.max_dust_htlc_exposure = MaxDustHTLCExposure::FixedLimitMsat(5_000_000_000);
    config.accept_forwards_to_priv_channels = true;
    config.manually_accept_inbound_channels = true;
    config
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no thread panicked with it")
}
