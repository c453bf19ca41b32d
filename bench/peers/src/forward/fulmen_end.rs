//! A Fulmen node without runtime or disk, as an end that pays and is paid, and as the peer of an idle channel.

use std::time::Instant;

use bitcoin::Block;
use bitcoin::hex::FromHex;
use fulmen::chain::ChainEvent;
use fulmen::driver::ShardDriver;
use fulmen::proto::forward::{ChannelRef, Command, Event, ExpectedPayment, NodeConfig, Now, SendHtlc};
use fulmen::proto::keys::NodeSeed;
use fulmen::proto::onion::PaymentData;
use fulmen::proto::payment::{OutgoingPayment, Recipient, RouteHop};
use fulmen::wire::units::{
    BlockHeight, ChainHash, ChannelId, CltvDelta, FeeratePerKw, Msat, NodeId, PaymentHash, PaymentPreimage,
    PaymentSecret, Scid,
};
use secp256k1_fulmen::SecretKey;
use sha2::{Digest, Sha256};

use super::member::{CLTV_DELTA, Endpoint, FEE_MSAT, Member, Payment};

/// The time of the first turn.
const START_MS: u64 = 1_700_000_000_000;

/// A Fulmen node in this thread.
pub(super) struct FulmenEnd {
    node: ShardDriver,
    start: Instant,
    outbox: Vec<(NodeId, Vec<u8>)>,
    channel: Option<(ChannelId, Scid)>,
    invoices: u64,
    payments: u64,
    settled: u64,
}

impl FulmenEnd {
    /// A node whose keys follow from `seed`.
    pub(super) fn new(seed: u64) -> FulmenEnd {
        FulmenEnd {
            node: ShardDriver::new(node_seed(seed), node_config()),
            start: Instant::now(),
            outbox: Vec::new(),
            channel: None,
            invoices: 0,
            payments: 0,
            settled: 0,
        }
    }

    /// Bytes that nobody else here makes.
    fn unique(&self, purpose: &[u8], number: u64) -> [u8; 32] {
        let mut hash = Sha256::new();
        hash.update(self.node.id().0);
        hash.update(purpose);
        hash.update(number.to_be_bytes());
        hash.finalize().into()
    }
}

/// The keys of a Fulmen node here.
pub(super) fn node_seed(seed: u64) -> NodeSeed {
    let mut bytes = [9; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    NodeSeed::new(bytes)
}

/// The settings of a Fulmen node here: LDK's where they shape the work.
pub(super) fn node_config() -> NodeConfig {
    let script = Vec::from_hex("00141111111111111111111111111111111111111111").expect("hexadecimal");
    let mut config = NodeConfig::new(ChainHash::REGTEST, script);
    config.feerate = FeeratePerKw(253);
    config.channel.minimum_depth = 1;
    config.channel.announce_channel = false;
    config.channel.max_dust_htlc_exposure = Msat(50_000_000_000);
    config
}

impl Member for FulmenEnd {
    fn id(&self) -> NodeId {
        self.node.id()
    }

    fn init(&self) -> Vec<u8> {
        self.node.init()
    }

    fn connected(&mut self, peer: NodeId, init: &[u8], _inbound: bool) {
        self.node.connected(peer, init).expect("the forwarder's init suits us");
    }

    fn block(&mut self, block: &Block, height: u32) {
        let event = ChainEvent::Connected { height: BlockHeight(height), block: block.clone().into() };
        self.node.chain_event(&event);
    }

    fn receive(&mut self, peer: NodeId, message: &[u8]) {
        self.node.receive(peer, message).expect("the forwarder's messages decode");
    }

    fn work(&mut self) -> bool {
        let passed_ms = u64::try_from(self.start.elapsed().as_millis()).expect("no run takes that long");
        let now = Now { unix_ms: START_MS + passed_ms };
        while self.node.has_work(now) {
            let outbox = self.node.turn(now);
            assert_eq!(outbox.disconnect, [], "the forwarder gave an end a reason to hang up");
            self.outbox.extend(outbox.send);
            for event in outbox.events {
                match event {
                    Event::ChannelReady { channel_id, scid, .. } => self.channel = Some((channel_id, scid)),
                    Event::HtlcSettled { .. } => self.settled += 1,
                    Event::HtlcFailed { .. }
                    | Event::HtlcRefused { .. }
                    | Event::ChannelFailed { .. }
                    | Event::CommandRefused { .. } => panic!("an end says {event:?}"),
                    _ => {}
                }
            }
        }
        !self.outbox.is_empty()
    }

    fn poll(&mut self) -> Vec<(NodeId, Vec<u8>)> {
        self.work();
        std::mem::take(&mut self.outbox)
    }
}

impl Endpoint for FulmenEnd {
    fn scid(&self) -> Option<Scid> {
        self.channel.map(|(_, scid)| scid)
    }

    fn invoice(&mut self) -> (PaymentHash, PaymentSecret) {
        self.invoices += 1;
        let preimage = PaymentPreimage(self.unique(b"preimage", self.invoices));
        let payment_secret = PaymentSecret(self.unique(b"secret", self.invoices));
        let payment_hash = PaymentHash(Sha256::digest(preimage.0).into());
        self.node.command(Command::ExpectPayment(ExpectedPayment {
            payment_hash,
            preimage,
            payment_secret,
            amount: None,
            min_final_cltv_expiry_delta: CltvDelta(18),
            expires_at_unix_ms: u64::MAX,
        }));
        (payment_hash, payment_secret)
    }

    fn pay(&mut self, payment: &Payment) {
        let &Payment { forwarder, payee, payee_scid, amount_msat, payment_hash, payment_secret, height } =
            payment;
        self.payments += 1;
        let (_, scid) = self.channel.expect("the channel is ready");
        let amount = Msat(amount_msat);
        let expiry = |deltas: u32| BlockHeight(height + 1 + deltas * CLTV_DELTA);
        let route = [
            RouteHop {
                node_id: forwarder,
                short_channel_id: scid,
                amount: Msat(amount_msat + FEE_MSAT),
                cltv_expiry: expiry(2),
            },
            RouteHop { node_id: payee, short_channel_id: payee_scid, amount, cltv_expiry: expiry(1) },
        ];
        let payment_data = Some(PaymentData { payment_secret, total_msat: amount });
        let recipient = Recipient { payment_data, ..Recipient::default() };
        let session_key = SecretKey::from_slice(&self.unique(b"session", self.payments));
        let session_key = session_key.expect("a hash is a scalar");
        let outgoing =
            OutgoingPayment::new(&session_key, payment_hash, &route, &recipient).expect("two hops fit");
        self.node.command(Command::SendHtlc(SendHtlc::new(self.payments, &outgoing)));
    }

    fn settled(&self) -> u64 {
        self.settled
    }

    fn htlcs(&self) -> usize {
        let Some((channel_id, _)) = self.channel else { return 0 };
        let channel = self.node.shard().channel(ChannelRef::Id(channel_id));
        channel.map_or(0, |channel| channel.htlcs().count())
    }
}
