//! One LDK node in this process: bytes in, bytes out, no transport.
//!
//! Owns the `ChannelManager`, its chain monitor and the stand-ins LDK asks for; decides nothing about the scenario.
//! Messages cross the border serialized, so that LDK's own codec judges every byte we make.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use bitcoin::secp256k1::{self, PublicKey, Secp256k1};
use bitcoin::{Amount, Block, BlockHash, Network, Transaction};
use lightning::blinded_path::message::{BlindedMessagePath, MessageContext, MessageForwardNode};
use lightning::blinded_path::payment::{BlindedPaymentPath, ReceiveTlvs};
use lightning::chain::chaininterface::{BroadcasterInterface, ConfirmationTarget, FeeEstimator};
use lightning::chain::chainmonitor::{ChainMonitor, Persist};
use lightning::chain::channelmonitor::{ChannelMonitor, ChannelMonitorUpdate};
use lightning::chain::{BestBlock, ChannelMonitorUpdateStatus, Filter, Listen};
use lightning::events::{Event, EventsProvider};
use lightning::ln::channel_state::ChannelDetails;
use lightning::ln::channelmanager::{ChainParameters, ChannelManager, PaymentId, RecipientOnionFields};
use lightning::ln::msgs::{self, BaseMessageHandler, ChannelMessageHandler, MessageSendEvent};
use lightning::ln::wire::Type;
use lightning::onion_message::messenger::{Destination, MessageRouter, OnionMessagePath};
use lightning::routing::router::{InFlightHtlcs, Path, Route, RouteHop, RouteParameters, Router};
use lightning::sign::{InMemorySigner, KeysManager, NodeSigner, ReceiveAuthKey};
use lightning::types::features::ChannelFeatures;
use lightning::types::payment::{PaymentHash, PaymentSecret};
use lightning::util::config::{MaxDustHTLCExposure, UserConfig};
use lightning::util::logger::{Level, Logger, Record};
use lightning::util::persist::MonitorName;
use lightning::util::ser::{LengthReadable, Writeable};

use super::net::{Member, START_SECONDS, funding};

/// An LDK node that accepts every channel, funds its own and claims every payment.
pub(crate) struct LdkNode {
    id: PublicKey,
    pub(crate) manager: Manager,
    monitor: Arc<Monitor>,
    broadcasts: Arc<Broadcasts>,
    fees: Arc<Fees>,
    payments_made: u8,
    /// Every event LDK gave, in order.
    pub(crate) events: Vec<Event>,
    /// The gossip that LDK would broadcast, in order, as bytes; what it repeats with later blocks, once.
    pub(crate) gossip: Vec<Vec<u8>>,
}

/// Which channel type a node's own openings ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Anchors {
    Yes,
    No,
}

impl LdkNode {
    /// A node whose keys follow from `seed`, on an empty regtest chain whose tip is `tip` at `height`.
    pub(crate) fn new(seed: u8, anchors: Anchors, tip: BlockHash, height: u32) -> LdkNode {
        let keys = Arc::new(KeysManager::new(&[seed; 32], u64::from(seed), 0, true));
        let log = Arc::new(Log(seed));
        let fees = Arc::new(Fees(AtomicU32::new(253)));
        let broadcasts = Arc::new(Broadcasts(Mutex::new(Vec::new())));
        let monitor: Arc<Monitor> = Arc::new(ChainMonitor::new(
            None,
            broadcasts.clone(),
            log.clone(),
            fees.clone(),
            Arc::new(NoDisk),
            keys.clone(),
            keys.get_peer_storage_key(),
        ));
        let mut config = UserConfig::default();
        config.channel_handshake_config.minimum_depth = 1;
        config.channel_handshake_config.announce_for_forwarding = true;
        config.channel_handshake_config.our_max_accepted_htlcs = 483;
        config.channel_handshake_config.max_inbound_htlc_value_in_flight_percent_of_channel = 100;
        config.channel_handshake_config.negotiate_anchors_zero_fee_htlc_tx = anchors == Anchors::Yes;
        config.channel_handshake_limits.trust_own_funding_0conf = false;
        config.channel_handshake_limits.force_announced_channel_preference = false;
        config.channel_config.max_dust_htlc_exposure = MaxDustHTLCExposure::FixedLimitMsat(5_000_000_000);
        config.accept_forwards_to_priv_channels = true;
        config.manually_accept_inbound_channels = true;
        let router = Arc::new(NoRouter);
        let manager = ChannelManager::new(
            fees.clone(),
            monitor.clone(),
            broadcasts.clone(),
            router.clone(),
            router,
            log,
            keys.clone(),
            keys.clone(),
            keys,
            config,
            ChainParameters { network: Network::Regtest, best_block: BestBlock::new(tip, height) },
            *START_SECONDS,
        );
        LdkNode {
            id: manager.get_our_node_id(),
            manager,
            monitor,
            broadcasts,
            fees,
            payments_made: 0,
            events: Vec::new(),
            gossip: Vec::new(),
        }
    }

    /// Opens a channel to `peer` and funds it when asked.
    pub(crate) fn open(&self, peer: PublicKey, capacity_sat: u64, push_msat: u64) {
        self.manager
            .create_channel(peer, capacity_sat, push_msat, 1, None, None)
            .expect("LDK opens the channel");
    }

    /// A payment hash that this node can be paid to, and the secret that goes with it.
    pub(crate) fn invoice(&self, amount_msat: u64) -> (PaymentHash, PaymentSecret) {
        self.manager.create_inbound_payment(Some(amount_msat), 7200, None).expect("LDK makes an invoice")
    }

    /// Pays `hash` over hops of (node, scid, fee or final amount, delta), the last of them the payee.
    pub(crate) fn pay(
        &mut self,
        hops: &[(PublicKey, u64, u64, u32)],
        hash: PaymentHash,
        secret: PaymentSecret,
    ) {
        let hops = hops.iter().map(|&(pubkey, short_channel_id, fee_msat, cltv_expiry_delta)| RouteHop {
            pubkey,
            node_features: self.manager.node_features(),
            short_channel_id,
            channel_features: ChannelFeatures::empty(),
            fee_msat,
            cltv_expiry_delta,
            maybe_announced_channel: true,
        });
        let path = Path { hops: hops.collect(), blinded_tail: None };
        let route = Route { paths: vec![path], route_params: None };
        self.payments_made += 1;
        let id = PaymentId([self.payments_made; 32]);
        let onion = RecipientOnionFields::secret_only(secret);
        self.manager.send_payment_with_route(route, hash, onion, id).expect("LDK sends the payment");
    }

    /// Closes its only channel by agreement.
    pub(crate) fn close(&self) {
        let channel = self.channel();
        let peer = channel.counterparty.node_id;
        self.manager.close_channel(&channel.channel_id, &peer).expect("LDK closes the channel");
    }

    /// Sets the rate of LDK's fee estimator and lets LDK react, as its timer would.
    pub(crate) fn set_feerate(&self, sat_per_kw: u32) {
        self.fees.0.store(sat_per_kw, Ordering::Relaxed);
        self.manager.timer_tick_occurred();
    }

    /// Its only channel.
    pub(crate) fn channel(&self) -> ChannelDetails {
        let mut channels = self.manager.list_channels();
        assert_eq!(channels.len(), 1, "this node was to have one channel");
        channels.remove(0)
    }

    /// Reacts to each event as an operator would.
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
                let transaction = funding(Amount::from_sat(*channel_value_satoshis), output_script.clone());
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

impl Member for LdkNode {
    fn id(&self) -> PublicKey {
        self.id
    }

    fn init(&self) -> Vec<u8> {
        let features = self.manager.init_features();
        with_type(&msgs::Init { features, networks: None, remote_network_address: None })
    }

    fn connected(&mut self, peer: PublicKey, init: &[u8], inbound: bool) {
        let init: msgs::Init = read(&init[2..]);
        self.manager.peer_connected(peer, &init, inbound).expect("LDK accepts the peer's init");
    }

    fn disconnected(&mut self, peer: PublicKey) {
        self.manager.peer_disconnected(peer);
    }

    fn receive(&mut self, peer: PublicKey, message: &[u8]) {
        let manager = &self.manager;
        let number = u16::from_be_bytes([message[0], message[1]]);
        let body = &message[2..];
        match number {
            1 | 17 => panic!("a peer sent LDK {number}: {}", String::from_utf8_lossy(&body[34..])),
            32 => manager.handle_open_channel(peer, &read(body)),
            33 => manager.handle_accept_channel(peer, &read(body)),
            34 => manager.handle_funding_created(peer, &read(body)),
            35 => manager.handle_funding_signed(peer, &read(body)),
            36 => manager.handle_channel_ready(peer, &read(body)),
            38 => manager.handle_shutdown(peer, &read(body)),
            39 => manager.handle_closing_signed(peer, &read(body)),
            128 => manager.handle_update_add_htlc(peer, &read(body)),
            130 => manager.handle_update_fulfill_htlc(peer, read(body)),
            131 => manager.handle_update_fail_htlc(peer, &read(body)),
            132 => manager.handle_commitment_signed(peer, &read(body)),
            133 => manager.handle_revoke_and_ack(peer, &read(body)),
            134 => manager.handle_update_fee(peer, &read(body)),
            135 => manager.handle_update_fail_malformed_htlc(peer, &read(body)),
            136 => manager.handle_channel_reestablish(peer, &read(body)),
            258 => manager.handle_channel_update(peer, &read(body)),
            259 => manager.handle_announcement_signatures(peer, &read(body)),
            other if other % 2 == 1 => {}
            other => panic!("a peer sent LDK message type {other}, which it does not know"),
        }
    }

    fn block(&mut self, block: &Block, height: u32) {
        self.monitor.block_connected(block, height);
        self.manager.block_connected(block, height);
    }

    fn work(&mut self) -> (Vec<(PublicKey, Vec<u8>)>, Vec<Transaction>) {
        if self.manager.needs_pending_htlc_processing() {
            self.manager.process_pending_htlc_forwards();
        }
        let events = Mutex::new(Vec::new());
        let keep = |event| {
            events.lock().expect("no other thread").push(event);
            Ok(())
        };
        self.manager.process_pending_events(&keep);
        self.monitor.process_pending_events(&keep);
        for event in events.into_inner().expect("no other thread") {
            self.react(&event);
            self.events.push(event);
        }
        let pending = self.manager.get_and_clear_pending_msg_events();
        for message in pending.iter().flat_map(broadcast) {
            if !self.gossip.contains(&message) {
                self.gossip.push(message);
            }
        }
        let messages = pending.into_iter().flat_map(serialized).collect();
        (messages, std::mem::take(&mut self.broadcasts.0.lock().expect("no other thread")))
    }
}

/// Parses a message body with LDK's codec.
pub(super) fn read<M: LengthReadable>(mut body: &[u8]) -> M {
    let message = M::read_from_fixed_length_buffer(&mut body);
    message.unwrap_or_else(|error| panic!("LDK cannot read a {}: {error:?}", std::any::type_name::<M>()))
}

/// A message's bytes as they cross the border: its type, then its body.
fn with_type<M: Type + Writeable>(message: &M) -> Vec<u8> {
    let mut bytes = message.type_id().to_be_bytes().to_vec();
    bytes.extend(message.encode());
    bytes
}

/// The gossip of one of LDK's events.
fn broadcast(event: &MessageSendEvent) -> Vec<Vec<u8>> {
    match event {
        MessageSendEvent::BroadcastChannelAnnouncement { msg, update_msg } => {
            [with_type(msg)].into_iter().chain(update_msg.as_ref().map(with_type)).collect()
        }
        MessageSendEvent::BroadcastChannelUpdate { msg } => vec![with_type(msg)],
        _ => Vec::new(),
    }
}

/// The messages of one of LDK's events, in the order of BOLT 2; gossip broadcasts are left out.
fn serialized(event: MessageSendEvent) -> Vec<(PublicKey, Vec<u8>)> {
    use MessageSendEvent as E;
    let (to, messages) = match event {
        E::SendOpenChannel { node_id, msg } => (node_id, vec![with_type(&msg)]),
        E::SendAcceptChannel { node_id, msg } => (node_id, vec![with_type(&msg)]),
        E::SendFundingCreated { node_id, msg } => (node_id, vec![with_type(&msg)]),
        E::SendFundingSigned { node_id, msg } => (node_id, vec![with_type(&msg)]),
        E::SendChannelReady { node_id, msg } => (node_id, vec![with_type(&msg)]),
        E::SendAnnouncementSignatures { node_id, msg } => (node_id, vec![with_type(&msg)]),
        E::SendRevokeAndACK { node_id, msg } => (node_id, vec![with_type(&msg)]),
        E::SendShutdown { node_id, msg } => (node_id, vec![with_type(&msg)]),
        E::SendClosingSigned { node_id, msg } => (node_id, vec![with_type(&msg)]),
        E::SendChannelReestablish { node_id, msg } => (node_id, vec![with_type(&msg)]),
        E::SendChannelUpdate { node_id, msg } => (node_id, vec![with_type(&msg)]),
        E::UpdateHTLCs { node_id, updates, .. } => {
            let mut messages: Vec<_> = updates.update_add_htlcs.iter().map(with_type).collect();
            messages.extend(updates.update_fulfill_htlcs.iter().map(with_type));
            messages.extend(updates.update_fail_htlcs.iter().map(with_type));
            messages.extend(updates.update_fail_malformed_htlcs.iter().map(with_type));
            messages.extend(updates.update_fee.iter().map(with_type));
            messages.extend(updates.commitment_signed.iter().map(with_type));
            (node_id, messages)
        }
        E::HandleError { node_id, action } => panic!("LDK has an error for {node_id}: {action:?}"),
        _ => return Vec::new(),
    };
    messages.into_iter().map(|message| (to, message)).collect()
}

pub(crate) type Monitor = ChainMonitor<
    InMemorySigner,
    Arc<dyn Filter + Send + Sync>,
    Arc<Broadcasts>,
    Arc<Fees>,
    Arc<Log>,
    Arc<NoDisk>,
    Arc<KeysManager>,
>;

pub(crate) type Manager = ChannelManager<
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

/// Prints LDK's warnings and errors, which `cargo test` shows when the test fails.
pub(crate) struct Log(pub(crate) u8);

impl Logger for Log {
    fn log(&self, record: Record<'_>) {
        if record.level >= Level::Warn {
            println!("LDK {} {}: {}", self.0, record.level, record.args);
        }
    }
}

pub(crate) struct Fees(pub(crate) AtomicU32);

impl FeeEstimator for Fees {
    fn get_est_sat_per_1000_weight(&self, target: ConfirmationTarget) -> u32 {
        let usual = self.0.load(Ordering::Relaxed);
        match target {
            ConfirmationTarget::MaximumFeeEstimate | ConfirmationTarget::UrgentOnChainSweep => {
                usual.max(10_000)
            }
            ConfirmationTarget::MinAllowedAnchorChannelRemoteFee
            | ConfirmationTarget::MinAllowedNonAnchorChannelRemoteFee => 253,
            _ => usual,
        }
    }
}

pub(crate) struct Broadcasts(pub(crate) Mutex<Vec<Transaction>>);

impl BroadcasterInterface for Broadcasts {
    fn broadcast_transactions(&self, transactions: &[&Transaction]) {
        self.0.lock().expect("no other thread").extend(transactions.iter().map(|&tx| tx.clone()));
    }
}

pub(crate) struct NoDisk;

impl Persist<InMemorySigner> for NoDisk {
    fn persist_new_channel(
        &self,
        _: MonitorName,
        _: &ChannelMonitor<InMemorySigner>,
    ) -> ChannelMonitorUpdateStatus {
        ChannelMonitorUpdateStatus::Completed
    }

    fn update_persisted_channel(
        &self,
        _: MonitorName,
        _: Option<&ChannelMonitorUpdate>,
        _: &ChannelMonitor<InMemorySigner>,
    ) -> ChannelMonitorUpdateStatus {
        ChannelMonitorUpdateStatus::Completed
    }

    fn archive_persisted_channel(&self, _: MonitorName) {}
}

/// Routes are made by hand in these tests, so LDK never asks.
pub(crate) struct NoRouter;

impl Router for NoRouter {
    fn find_route(
        &self,
        _: &PublicKey,
        _: &RouteParameters,
        _: Option<&[&ChannelDetails]>,
        _: InFlightHtlcs,
    ) -> Result<Route, &'static str> {
        Err("routes are made by hand here")
    }

    fn create_blinded_payment_paths<T: secp256k1::Signing + secp256k1::Verification>(
        &self,
        _: PublicKey,
        _: Vec<ChannelDetails>,
        _: ReceiveTlvs,
        _: Option<u64>,
        _: &Secp256k1<T>,
    ) -> Result<Vec<BlindedPaymentPath>, ()> {
        Err(())
    }
}

impl MessageRouter for NoRouter {
    fn find_path(&self, _: PublicKey, _: Vec<PublicKey>, _: Destination) -> Result<OnionMessagePath, ()> {
        Err(())
    }

    fn create_blinded_paths<T: secp256k1::Signing + secp256k1::Verification>(
        &self,
        _: PublicKey,
        _: ReceiveAuthKey,
        _: MessageContext,
        _: Vec<MessageForwardNode>,
        _: &Secp256k1<T>,
    ) -> Result<Vec<BlindedMessagePath>, ()> {
        Err(())
    }
}
