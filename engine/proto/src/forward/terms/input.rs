//! The inputs of a shard: messages, commands, blocks, connections, time.
//!
//! Owns the types that go into [`Shard::turn`](crate::forward::Shard::turn). Nothing here is checked yet; a wrong
//! command is answered by [`Event::CommandRefused`](crate::forward::Event::CommandRefused), a wrong message by failing
//! its channel.

use bitcoin::{OutPoint, ScriptBuf, Transaction, TxOut};
use fulmen_wire::features::Features;
use fulmen_wire::message::Message;
use fulmen_wire::onion::OnionPacket;
use fulmen_wire::units::{
    BlockHeight, ChannelId, CltvDelta, FeeratePerKw, Msat, NodeId, PaymentHash, PaymentPreimage,
    PaymentSecret, Sat, Scid, Txid,
};

use crate::onion::Failure;
use crate::payment::OutgoingPayment;

use super::config::ForwardingPolicy;
use super::description::NodeDescription;
use super::handoff::Handoff;
use super::ids::{ChannelRef, IncomingHtlc};

/// One thing that happened to a shard.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant, reason = "nearly every input is a message: boxing each would cost more")]
pub enum Input {
    /// A connection to a peer changed, or brought a message. Those of one peer are given in the order they came.
    Peer(PeerInput),
    /// A command of the operator.
    Command(Command),
    /// The chain's tip is now at `height`.
    Block {
        /// The height of the tip.
        height: BlockHeight,
        /// The depths of funding transactions in the chain, for those that changed or still matter.
        confirmations: Vec<Confirmation>,
    },
    /// The fee rate at which a transaction is expected to confirm within a few blocks. Openings and closings use it,
    /// the commitments of channels we opened follow it, and the rates of peers are held against it.
    Feerate(FeeratePerKw),
    /// The height given so far is that of the chain: every block it had when the node started was input. Until then a
    /// shard with [`NodeConfig::awaits_chain`](crate::forward::NodeConfig::awaits_chain) decides on no HTLC and offers
    /// none.
    ChainInStep,
    /// A block has a transaction that spends the funding output of a channel.
    FundingSpent {
        /// The funding output.
        outpoint: OutPoint,
        /// The block's height.
        height: BlockHeight,
        /// The transaction.
        transaction: Transaction,
    },
    /// A step of a circuit that is shared with another shard of this node.
    Handoff(Handoff),
    /// The channels that other shards of this node own, replacing those of the last such input.
    SiblingChannels(Vec<Scid>),
    /// One more channel that another shard of this node owns.
    SiblingChannel(Scid),
    /// Another shard of this node has announced a channel, so that the node may be announced.
    SiblingAnnounced,
    /// Time has passed; nothing else happened. One tick per second keeps multi-part timeouts exact to a second.
    Tick,
    /// The time of [`Shard::wake_at`](crate::forward::Shard::wake_at) has come, or may have.
    Wake,
}

impl Input {
    /// A connection to `peer` stands and `init` was exchanged both ways; see [`negotiate`](crate::forward::negotiate).
    /// `features` are the peer's, as its `init` gave them.
    #[must_use]
    pub fn connected(peer: NodeId, features: Features) -> Input {
        Input::Peer(PeerInput { peer, event: PeerEvent::Connected(features) })
    }

    /// The connection to `peer` is gone.
    #[must_use]
    pub fn disconnected(peer: NodeId) -> Input {
        Input::Peer(PeerInput { peer, event: PeerEvent::Disconnected })
    }

    /// `peer` sent `message`.
    #[must_use]
    pub fn message(peer: NodeId, message: Message) -> Input {
        Input::Peer(PeerInput { peer, event: PeerEvent::Message(message) })
    }
}

/// An input from the connection to one peer.
#[derive(Clone, Debug)]
pub struct PeerInput {
    /// The peer.
    pub peer: NodeId,
    /// The change or the message.
    pub event: PeerEvent,
}

/// The kinds of [`PeerInput`].
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant, reason = "nearly all of them are messages: boxing each would cost more")]
pub enum PeerEvent {
    /// The connection stands and `init` was exchanged both ways; the peer's features.
    Connected(Features),
    /// The connection is gone.
    Disconnected,
    /// The peer sent a message.
    Message(Message),
}

/// A funding transaction in the chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Confirmation {
    /// The funding transaction.
    pub txid: Txid,
    /// Where its funding output stands.
    pub scid: Scid,
    /// The blocks that confirm it: one when it is in the tip, zero when a reorganisation has just taken it out of the
    /// chain.
    pub depth: u32,
    /// That output.
    pub output: TxOut,
}

/// A command of the operator to a shard.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Command {
    /// Opens a channel; [`Event::FundingNeeded`](crate::forward::Event::FundingNeeded) follows when the peer accepts.
    OpenChannel(OpenChannelRequest),
    /// Gives the signed transaction that funds a channel. It is broadcast as soon as the peer has signed our first
    /// commitment, and so must not fund another channel whose peer might never sign.
    FundingTransaction {
        /// The channel's temporary id, from `FundingNeeded`.
        temporary_channel_id: ChannelId,
        /// The transaction; one of its outputs pays `FundingNeeded`'s script its amount.
        transaction: Transaction,
    },
    /// Closes a channel by agreement, once its HTLCs are resolved.
    CloseChannel {
        /// The channel.
        channel_id: ChannelId,
        /// The script our balance is paid to; that of the channel's terms when `None`.
        script: Option<ScriptBuf>,
    },
    /// Fails a channel: the peer is sent an `error`, and only the chain can settle it. Refused while the channel's
    /// state may be old.
    FailChannel {
        /// The channel.
        channel_id: ChannelId,
        /// The text of the `error` to the peer.
        reason: String,
    },
    /// Insists on the state of a channel after a start from a copy of the store, when the peer does not return to
    /// confirm it: deadlines hold, and its latest commitment may be broadcast when it fails. If the peer has a later
    /// state, such a broadcast loses all of the channel.
    InsistOnState {
        /// The channel.
        channel_id: ChannelId,
    },
    /// Sets the forwarding policy of a channel.
    SetPolicy {
        /// The channel.
        channel_id: ChannelId,
        /// Its new policy.
        policy: ForwardingPolicy,
    },
    /// Sets the node's description, and with it the `node_announcement`. It is not kept over a restart:
    /// [`NodeConfig::description`](crate::forward::NodeConfig::description) is.
    DescribeNode(NodeDescription),
    /// Changes the fee rate of a channel we opened.
    UpdateFee {
        /// The channel.
        channel_id: ChannelId,
        /// Its new fee rate.
        feerate: FeeratePerKw,
    },
    /// Makes a payment hash payable.
    ExpectPayment(ExpectedPayment),
    /// Carries on an HTLC that [`Event::HtlcIntercepted`](crate::forward::Event::HtlcIntercepted) reported.
    ResumeHtlc {
        /// The HTLC.
        incoming: IncomingHtlc,
    },
    /// Fails an HTLC that [`Event::HtlcIntercepted`](crate::forward::Event::HtlcIntercepted) reported.
    FailHtlc {
        /// The HTLC.
        incoming: IncomingHtlc,
        /// The failure for its sender.
        failure: Failure,
    },
    /// Offers an HTLC of our own: one part of a payment we send.
    SendHtlc(SendHtlc),
}

/// The parameters of [`Command::OpenChannel`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenChannelRequest {
    /// The peer to open to; it must be connected.
    pub peer: NodeId,
    /// The operator's name for this channel, repeated in events.
    pub user_id: u64,
    /// The channel's capacity, all paid by us.
    pub capacity: Sat,
    /// The part of the capacity that is the peer's from the start.
    pub push: Msat,
    /// The policy to start with; the node's own when `None`.
    pub policy: Option<ForwardingPolicy>,
}

/// A payment that this node is willing to receive, as its invoice states it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExpectedPayment {
    /// The payment hash of its HTLCs.
    pub payment_hash: PaymentHash,
    /// The preimage of the payment hash.
    pub preimage: PaymentPreimage,
    /// The secret that proves that the payer has the invoice.
    pub payment_secret: PaymentSecret,
    /// The amount asked for; any amount if `None`.
    pub amount: Option<Msat>,
    /// The least number of blocks between the tip and the expiry of its HTLCs.
    pub min_final_cltv_expiry_delta: CltvDelta,
    /// When it expires, in milliseconds since the Unix epoch: its HTLCs are refused from then on.
    pub expires_at_unix_ms: u64,
}

/// The parameters of [`Command::SendHtlc`]. Each ends in exactly one
/// [`Event::HtlcSettled`](crate::forward::Event::HtlcSettled) or
/// [`Event::HtlcFailed`](crate::forward::Event::HtlcFailed), unless the command is refused because the attempt is known
/// already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SendHtlc {
    /// The operator's name for this HTLC, never used twice.
    pub attempt_id: u64,
    /// The channel to offer it on.
    pub channel: ChannelRef,
    /// Its amount.
    pub amount: Msat,
    /// Its absolute expiry.
    pub cltv_expiry: BlockHeight,
    /// Its payment hash.
    pub payment_hash: PaymentHash,
    /// The onion for the first hop.
    pub onion: OnionPacket,
}

impl SendHtlc {
    /// Offers the first HTLC of a route on the channel that the route names.
    #[must_use]
    pub fn new(attempt_id: u64, payment: &OutgoingPayment) -> SendHtlc {
        SendHtlc {
            attempt_id,
            channel: ChannelRef::Scid(payment.short_channel_id),
            amount: payment.amount,
            cltv_expiry: payment.cltv_expiry,
            payment_hash: payment.payment_hash,
            onion: payment.packet.clone(),
        }
    }
}
