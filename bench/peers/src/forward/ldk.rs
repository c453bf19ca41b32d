//! An LDK node on one thread, driven through LDK's public API and exchanging encoded messages. It serves both as the
//! forwarder that Fulmen is compared with and as a payer or payee.
//!
//! Measured CPU time: the calls into `ChannelManager` that handle messages, forward pending HTLCs and collect events
//! and outgoing messages, with the `ChainMonitor` updates and monitor writes they cause. Not measured: encoding and
//! decoding of messages, `ChannelManager`'s own persistence, connecting, blocks, and the operator's calls (opening,
//! accepting and funding channels, invoicing, paying, claiming).

use std::cell::RefCell;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bitcoin::secp256k1::PublicKey;
use bitcoin::{Block, BlockHash, Network, Transaction};
use fulmen::wire::units::{NodeId, PaymentHash, PaymentSecret, Sat, Scid};
use lightning::chain::chainmonitor::ChainMonitor;
use lightning::chain::{BestBlock, Filter, Listen};
use lightning::events::{Event, EventsProvider};
use lightning::ln::channelmanager::{ChainParameters, ChannelManager, PaymentId, RecipientOnionFields};
use lightning::ln::msgs::{self, BaseMessageHandler, ChannelMessageHandler, MessageSendEvent};
use lightning::ln::wire::Type;
use lightning::routing::router::{Path, Route, RouteHop};
use lightning::sign::{InMemorySigner, KeysManager, NodeSigner};
use lightning::types::features::ChannelFeatures;
use lightning::util::config::{MaxDustHTLCExposure, UserConfig};
use lightning::util::ser::{LengthReadable, Writeable};

use super::clock::thread_cpu_ns;
use super::member::{CAPACITY, CLTV_DELTA, Endpoint, FEE_MSAT, Forwarder, Member, Payment, Usage, funding};
use super::stand_ins::{Disk, Fees, Files, NoBroadcast, NoLog, NoRouter, Nowhere, Written};

/// An LDK node that accepts every channel, funds its own and claims every payment.
pub(super) struct LdkNode {
    id: NodeId,
    manager: Manager,
    monitor: Arc<Monitor>,
    written: Arc<Written>,
    cpu_ns: u64,
    fundings: Vec<Transaction>,
    payments: u64,
    settled: u64,
}

type Monitor = ChainMonitor<
    InMemorySigner,
    Arc<dyn Filter + Send + Sync>,
    Arc<NoBroadcast>,
    Arc<Fees>,
    Arc<NoLog>,
    Disk,
    Arc<KeysManager>,
>;

type Manager = ChannelManager<
    Arc<Monitor>,
    Arc<NoBroadcast>,
    Arc<KeysManager>,
    Arc<KeysManager>,
    Arc<KeysManager>,
    Arc<Fees>,
    Arc<NoRouter>,
    Arc<NoRouter>,
    Arc<NoLog>,
>;

impl LdkNode {
    /// Creates a node with keys derived from `seed`, on a chain with block `tip` at `height`. Its monitors are written
    /// to `directory`; without one they are not persisted.
    pub(super) fn new(seed: u64, tip: BlockHash, height: u32, directory: Option<PathBuf>) -> LdkNode {
        let mut bytes = [7; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        let keys = Arc::new(KeysManager::new(&bytes, seed, 0, true));
        let (log, fees, broadcast) = (Arc::new(NoLog), Arc::new(Fees), Arc::new(NoBroadcast));
        let written = Arc::new(Written::default());
        let disk: Disk = match directory {
            Some(directory) => Arc::new(Files::new(directory, written.clone())),
            None => Arc::new(Nowhere),
        };
        let monitor: Arc<Monitor> = Arc::new(ChainMonitor::new(
            None,
            broadcast.clone(),
            log.clone(),
            fees.clone(),
            disk,
            keys.clone(),
            keys.get_peer_storage_key(),
        ));
        let router = Arc::new(NoRouter);
        let manager = ChannelManager::new(
            fees,
            monitor.clone(),
            broadcast,
            router.clone(),
            router,
            log,
            keys.clone(),
            keys.clone(),
            keys,
            config(),
            ChainParameters { network: Network::Regtest, best_block: BestBlock::new(tip, height) },
            1_700_000_000,
        );
        LdkNode {
            id: NodeId(manager.get_our_node_id().serialize()),
            manager,
            monitor,
            written,
            cpu_ns: 0,
            fundings: Vec::new(),
            payments: 0,
            settled: 0,
        }
    }

    /// Runs `call` and adds its CPU time to the node's usage.
    fn charged<T>(&mut self, call: impl FnOnce(&Manager) -> T) -> T {
        let start = thread_cpu_ns();
        let result = call(&self.manager);
        self.cpu_ns += thread_cpu_ns() - start;
        result
    }

    /// Decodes a message's body, which is not measured, and handles it, which is.
    fn handle<M: LengthReadable>(&mut self, body: &[u8], handle: impl FnOnce(&Manager, M)) {
        let message = read(body);
        self.charged(|manager| handle(manager, message));
    }

    /// Reacts to an event as an operator would.
    fn react(&mut self, event: Event) {
        match event {
            Event::OpenChannelRequest { temporary_channel_id, counterparty_node_id, .. } => self
                .manager
                .accept_inbound_channel(&temporary_channel_id, &counterparty_node_id, 1, None)
                .expect("LDK accepts the channel"),
            Event::FundingGenerationReady {
                temporary_channel_id,
                counterparty_node_id,
                channel_value_satoshis,
                output_script,
                ..
            } => {
                let transaction = funding(Sat(channel_value_satoshis), output_script);
                self.fundings.push(transaction.clone());
                self.manager
                    .funding_transaction_generated(temporary_channel_id, counterparty_node_id, transaction)
                    .expect("LDK funds the channel");
            }
            Event::PaymentClaimable { purpose, .. } => {
                self.manager.claim_funds(purpose.preimage().expect("it made the invoice itself"));
            }
            Event::PaymentSent { .. } => self.settled += 1,
            Event::PaymentFailed { .. } | Event::HTLCHandlingFailed { .. } | Event::ChannelClosed { .. } => {
                panic!("LDK says {event:?}")
            }
            _ => {}
        }
    }
}

impl Member for LdkNode {
    fn id(&self) -> NodeId {
        self.id
    }

    fn init(&self) -> Vec<u8> {
        let features = self.manager.init_features();
        with_type(&msgs::Init { features, networks: None, remote_network_address: None })
    }

    fn connected(&mut self, peer: NodeId, init: &[u8], inbound: bool) {
        let init: msgs::Init = read(&init[2..]);
        self.manager.peer_connected(key(peer), &init, inbound).expect("LDK accepts the peer's init");
    }

    fn block(&mut self, block: &Block, height: u32) {
        self.monitor.block_connected(block, height);
        self.manager.block_connected(block, height);
    }

    fn receive(&mut self, peer: NodeId, message: &[u8]) {
        let peer = key(peer);
        let number = u16::from_be_bytes([message[0], message[1]]);
        let body = &message[2..];
        match number {
            1 | 17 => panic!("a peer sent LDK {number}: {}", String::from_utf8_lossy(&body[34..])),
            32 => self.handle(body, |manager, m| manager.handle_open_channel(peer, &m)),
            33 => self.handle(body, |manager, m| manager.handle_accept_channel(peer, &m)),
            34 => self.handle(body, |manager, m| manager.handle_funding_created(peer, &m)),
            35 => self.handle(body, |manager, m| manager.handle_funding_signed(peer, &m)),
            36 => self.handle(body, |manager, m| manager.handle_channel_ready(peer, &m)),
            128 => self.handle(body, |manager, m| manager.handle_update_add_htlc(peer, &m)),
            130 => self.handle(body, |manager, m| manager.handle_update_fulfill_htlc(peer, m)),
            132 => self.handle(body, |manager, m| manager.handle_commitment_signed(peer, &m)),
            133 => self.handle(body, |manager, m| manager.handle_revoke_and_ack(peer, &m)),
            136 => self.handle(body, |manager, m| manager.handle_channel_reestablish(peer, &m)),
            258 => self.handle(body, |manager, m| manager.handle_channel_update(peer, &m)),
            259 => self.handle(body, |manager, m| manager.handle_announcement_signatures(peer, &m)),
            other if other % 2 == 1 => {}
            other => panic!("a peer sent LDK message type {other}, which has no place here"),
        }
    }

    fn work(&mut self) -> bool {
        let events = RefCell::new(Vec::new());
        let keep = |event| {
            events.borrow_mut().push(event);
            Ok(())
        };
        let processed = self.charged(|manager| {
            let waits = manager.needs_pending_htlc_processing();
            if waits {
                manager.process_pending_htlc_forwards();
            }
            manager.process_pending_events(&keep);
            waits
        });
        let events = events.into_inner();
        let busy = processed || !events.is_empty();
        events.into_iter().for_each(|event| self.react(event));
        busy
    }

    fn poll(&mut self) -> Vec<(NodeId, Vec<u8>)> {
        let events = self.charged(|manager| manager.get_and_clear_pending_msg_events());
        events.into_iter().flat_map(serialized).collect()
    }
}

impl Forwarder for LdkNode {
    fn open(&mut self, peer: NodeId, user_id: u64) {
        let push_msat = CAPACITY.to_msat().0 / 2;
        self.manager
            .create_channel(key(peer), CAPACITY.0, push_msat, u128::from(user_id), None, None)
            .expect("LDK opens the channel");
    }

    fn fundings(&mut self) -> Vec<Transaction> {
        std::mem::take(&mut self.fundings)
    }

    fn usage(&self) -> Usage {
        let load = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        // Each write syncs the new file and then the directory it is renamed in.
        let syncs = 2 * load(&self.written.writes);
        Usage { cpu_ns: self.cpu_ns, syncs, bytes_written: load(&self.written.bytes) }
    }
}

impl Endpoint for LdkNode {
    fn scid(&self) -> Option<Scid> {
        let channel = self.manager.list_usable_channels().into_iter().next()?;
        channel.short_channel_id.map(Scid)
    }

    fn invoice(&mut self) -> (PaymentHash, PaymentSecret) {
        let (hash, secret) =
            self.manager.create_inbound_payment(None, 7200, None).expect("LDK makes an invoice");
        (PaymentHash(hash.0), PaymentSecret(secret.0))
    }

    fn pay(&mut self, payment: &Payment) {
        let hop = |node: NodeId, scid: Scid, fee_msat: u64| RouteHop {
            pubkey: key(node),
            node_features: self.manager.node_features(),
            short_channel_id: scid.0,
            channel_features: ChannelFeatures::empty(),
            fee_msat,
            cltv_expiry_delta: CLTV_DELTA,
            maybe_announced_channel: true,
        };
        let own = self.scid().expect("the channel is usable");
        let hops = vec![
            hop(payment.forwarder, own, FEE_MSAT),
            hop(payment.payee, payment.payee_scid, payment.amount_msat),
        ];
        let route = Route { paths: vec![Path { hops, blinded_tail: None }], route_params: None };
        let mut id = [0; 32];
        id[..8].copy_from_slice(&self.payments.to_le_bytes());
        self.payments += 1;
        let hash = lightning::types::payment::PaymentHash(payment.payment_hash.0);
        let secret = lightning::types::payment::PaymentSecret(payment.payment_secret.0);
        self.manager
            .send_payment_with_route(route, hash, RecipientOnionFields::secret_only(secret), PaymentId(id))
            .expect("LDK sends the payment");
    }

    fn settled(&self) -> u64 {
        self.settled
    }

    fn htlcs(&self) -> usize {
        let channels = self.manager.list_channels();
        let held = channels
            .iter()
            .map(|channel| channel.pending_outbound_htlcs.len().max(channel.pending_inbound_htlcs.len()));
        held.max().unwrap_or(0)
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
    config.channel_config.max_dust_htlc_exposure = MaxDustHTLCExposure::FixedLimitMsat(50_000_000_000);
    config.accept_forwards_to_priv_channels = true;
    config.manually_accept_inbound_channels = true;
    config
}

fn key(node: NodeId) -> PublicKey {
    PublicKey::from_slice(&node.0).expect("a node's id is a point")
}

/// Parses a message body with LDK's codec.
fn read<M: LengthReadable>(mut body: &[u8]) -> M {
    let message = M::read_from_fixed_length_buffer(&mut body);
    message.unwrap_or_else(|error| panic!("LDK cannot read a {}: {error:?}", std::any::type_name::<M>()))
}

/// A message's bytes: its type, then its body.
fn with_type<M: Type + Writeable>(message: &M) -> Vec<u8> {
    let mut bytes = message.type_id().to_be_bytes().to_vec();
    bytes.extend(message.encode());
    bytes
}

/// Encodes the messages of one LDK event, each with its recipient, in the order BOLT 2 requires. Gossip is left out.
fn serialized(event: MessageSendEvent) -> Vec<(NodeId, Vec<u8>)> {
    use MessageSendEvent as E;
    let (to, messages) = match event {
        E::SendOpenChannel { node_id, msg } => (node_id, vec![with_type(&msg)]),
        E::SendAcceptChannel { node_id, msg } => (node_id, vec![with_type(&msg)]),
        E::SendFundingCreated { node_id, msg } => (node_id, vec![with_type(&msg)]),
        E::SendFundingSigned { node_id, msg } => (node_id, vec![with_type(&msg)]),
        E::SendChannelReady { node_id, msg } => (node_id, vec![with_type(&msg)]),
        E::SendAnnouncementSignatures { node_id, msg } => (node_id, vec![with_type(&msg)]),
        E::SendRevokeAndACK { node_id, msg } => (node_id, vec![with_type(&msg)]),
        E::SendChannelReestablish { node_id, msg } => (node_id, vec![with_type(&msg)]),
        E::UpdateHTLCs { node_id, updates, .. } => {
            assert!(updates.update_fail_htlcs.is_empty() && updates.update_fail_malformed_htlcs.is_empty());
            let mut messages: Vec<_> = updates.update_add_htlcs.iter().map(with_type).collect();
            messages.extend(updates.update_fulfill_htlcs.iter().map(with_type));
            messages.extend(updates.commitment_signed.iter().map(with_type));
            (node_id, messages)
        }
        E::HandleError { node_id, action } => panic!("LDK has an error for {node_id}: {action:?}"),
        _ => return Vec::new(),
    };
    let to = NodeId(to.serialize());
    messages.into_iter().map(|message| (to, message)).collect()
}
