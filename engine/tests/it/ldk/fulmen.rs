//! Our node as a member of the net: it funds its channels, and keeps the events for the test to read.

use bitcoin::secp256k1::PublicKey;
use bitcoin::{Amount, Block, Transaction};
use fulmen::chain::ChainEvent;
use fulmen::driver::ShardDriver;
use fulmen_proto::channel::Channel;
use fulmen_proto::commitment::ChannelType;
use fulmen_proto::forward::{
    ChannelRef, Command, Event, ForwardingPolicy, InboundFee, NodeConfig, Now, OpenChannelRequest,
};
use fulmen_proto::keys::NodeSeed;
use fulmen_wire::units::{BlockHeight, ChainHash, ChannelId, CltvDelta, Msat, NodeId, Sat, Scid};

use super::net::{Member, START_SECONDS, funding};

/// Our node's forwarding policy.
pub(super) const POLICY: ForwardingPolicy = ForwardingPolicy {
    fee_base: Msat(1_000),
    fee_proportional_millionths: 500,
    cltv_expiry_delta: CltvDelta(40),
    htlc_minimum: Msat(1_000),
    htlc_maximum: Msat(500_000_000),
    disabled: false,
    inbound_fee: InboundFee { base_msat: 0, proportional_millionths: 0 },
};

/// A Fulmen node and all its events.
pub(super) struct FulmenNode {
    pub(super) node: ShardDriver,
    pub(super) events: Vec<Event>,
    now: Now,
}

impl FulmenNode {
    /// A node that opens channels of `channel_type`.
    pub(super) fn new(channel_type: ChannelType) -> FulmenNode {
        FulmenNode::with(channel_type, |_| {})
    }

    /// As [`FulmenNode::new`], with other settings.
    pub(super) fn with(channel_type: ChannelType, adjust: impl Fn(&mut NodeConfig)) -> FulmenNode {
        let closing_script = bitcoin::hex::FromHex::from_hex("00141111111111111111111111111111111111111111");
        let mut config = NodeConfig::new(ChainHash::REGTEST, closing_script.expect("hexadecimal"));
        config.policy = POLICY;
        config.channel.channel_type = channel_type;
        config.anchors_only = false;
        config.channel.minimum_depth = 1;
        adjust(&mut config);
        FulmenNode {
            node: ShardDriver::new(NodeSeed::new([42; 32]), config),
            events: Vec::new(),
            now: Now { unix_ms: u64::from(*START_SECONDS) * 1_000 },
        }
    }

    /// Opens a channel.
    pub(super) fn open(&mut self, peer: PublicKey, capacity: Sat, push: Msat) {
        let peer = node_id(peer);
        self.node.command(Command::OpenChannel(OpenChannelRequest {
            peer,
            user_id: 1,
            capacity,
            push,
            policy: None,
        }));
    }

    /// Its channel with `peer`.
    pub(super) fn channel_with(&self, peer: PublicKey) -> &Channel {
        let ready = self.events.iter().rev().find_map(|event| match event {
            Event::ChannelReady { channel_id, peer: with, .. } if *with == node_id(peer) => Some(*channel_id),
            _ => None,
        });
        let channel_id = ready.expect("the channel with this peer became ready");
        self.node.shard().channel(ChannelRef::Id(channel_id)).expect("a channel that is ready is known")
    }

    /// The place of its channel with `peer`.
    pub(super) fn scid_with(&self, peer: PublicKey) -> Scid {
        let scid = self.events.iter().rev().find_map(|event| match event {
            Event::ChannelReady { scid, peer: with, .. } if *with == node_id(peer) => Some(*scid),
            _ => None,
        });
        scid.expect("the channel with this peer became ready")
    }

    /// The id of its channel with `peer`.
    pub(super) fn channel_id_with(&self, peer: PublicKey) -> ChannelId {
        self.channel_with(peer).id()
    }

    /// The fees it was paid for carrying payments, in order.
    pub(super) fn fees(&self) -> Vec<Msat> {
        let fees = self.events.iter().filter_map(|event| match event {
            Event::Forwarded { fee, .. } => Some(*fee),
            _ => None,
        });
        fees.collect()
    }
}

impl FulmenNode {
    /// Reacts to each event as an operator would.
    fn react(&mut self, event: &Event) {
        match event {
            Event::FundingNeeded { temporary_channel_id, amount, script, .. } => {
                let transaction = funding(Amount::from_sat(amount.0), script.clone());
                let temporary_channel_id = *temporary_channel_id;
                self.node.command(Command::FundingTransaction { temporary_channel_id, transaction });
            }
            Event::ChannelFailed { .. } | Event::PeerWarning { .. } | Event::CommandRefused { .. } => {
                panic!("our node met LDK and says {event:?}")
            }
            _ => {}
        }
    }
}

impl Member for FulmenNode {
    fn id(&self) -> PublicKey {
        PublicKey::from_slice(&self.node.id().0).expect("a node's id is a point")
    }

    fn init(&self) -> Vec<u8> {
        self.node.init()
    }

    fn connected(&mut self, peer: PublicKey, init: &[u8], _inbound: bool) {
        self.node.connected(node_id(peer), init).expect("LDK's init suits us");
    }

    fn disconnected(&mut self, peer: PublicKey) {
        self.node.disconnected(node_id(peer));
    }

    fn receive(&mut self, peer: PublicKey, message: &[u8]) {
        self.node.receive(node_id(peer), message).expect("LDK's messages decode");
    }

    fn block(&mut self, block: &Block, height: u32) {
        let event = ChainEvent::Connected { height: BlockHeight(height), block: block.clone().into() };
        self.node.chain_event(&event);
    }

    fn work(&mut self) -> (Vec<(PublicKey, Vec<u8>)>, Vec<Transaction>) {
        let (mut messages, mut transactions) = (Vec::new(), Vec::new());
        let peer = |id: NodeId| PublicKey::from_slice(&id.0).expect("a peer's id is a point");
        while self.node.has_work(self.now) {
            let outbox = self.node.turn(self.now);
            assert_eq!(outbox.disconnect, [], "LDK gave us a reason to hang up");
            outbox.events.iter().for_each(|event| self.react(event));
            messages.extend(outbox.send.into_iter().map(|(to, message)| (peer(to), message)));
            transactions.extend(outbox.broadcast);
            self.events.extend(outbox.events);
        }
        (messages, transactions)
    }

    fn pass_time(&mut self) -> bool {
        let at = self.node.shard().wake_at();
        self.now = self.now.max(at.unwrap_or_default());
        at.is_some()
    }
}

/// A public key as our types have it.
pub(super) fn node_id(key: PublicKey) -> NodeId {
    NodeId(key.serialize())
}
