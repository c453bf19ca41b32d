//! The output of a turn: the durable record first, then messages, transactions, events and handoffs.
//!
//! Owns the types that come out of [`Shard::turn`](crate::forward::Shard::turn). Does not execute anything.
//!
//! Invariant: the parts of a [`Turn`] are executed in the order of its fields, and none before the record is durable.

use bitcoin::{OutPoint, ScriptBuf, Transaction};
use fulmen_wire::message::Message;
use fulmen_wire::units::{ChannelId, Msat, NodeId, PaymentHash, PaymentPreimage, Sat, Scid};

use crate::channel::ChannelError;

use crate::forward::state::change::Record;
use crate::forward::terms::circuit::Offer;
use crate::forward::terms::error::{CommandError, LocalFailure};
use crate::forward::terms::handoff::Handoff;
use crate::forward::terms::ids::IncomingHtlc;

/// The effects of one turn of a shard, to be executed in the order of the fields.
#[derive(Debug, Default)]
pub struct Turn {
    /// The changes that must be durable before anything else happens.
    pub record: Record,
    /// Messages to peers, in order. To one peer they take at most 128 KiB of pongs, some 1 kB in answer to each message
    /// of it, and one retransmission of each channel's unacknowledged updates in a connection.
    pub send: Vec<(NodeId, Message)>,
    /// Peers to disconnect once their messages are sent.
    pub disconnect: Vec<NodeId>,
    /// Transactions to broadcast.
    pub broadcast: Vec<Transaction>,
    /// Events for the operator.
    pub events: Vec<Event>,
    /// Steps for other shards of this node.
    pub handoffs: Vec<Handoff>,
}

/// An event for the operator.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Event {
    /// The peer accepted our channel: it needs a transaction with an output of `amount` to `script`, answered by
    /// [`Command::FundingTransaction`](crate::forward::Command::FundingTransaction).
    FundingNeeded {
        /// The channel until it has its id.
        temporary_channel_id: ChannelId,
        /// The name the operator gave it.
        user_id: u64,
        /// The peer.
        peer: NodeId,
        /// The value of the output.
        amount: Sat,
        /// The output's script: the two-of-two.
        script: ScriptBuf,
    },
    /// Both first commitments are signed: the funding transaction may go, or is on its way, into the chain. As opener
    /// we broadcast it in this very turn.
    ChannelFunded {
        /// The channel.
        channel_id: ChannelId,
        /// The name the operator gave it; zero when the peer opened it.
        user_id: u64,
        /// The peer.
        peer: NodeId,
        /// The funding output to look for in blocks.
        funding_outpoint: OutPoint,
    },
    /// The channel can carry HTLCs. Reported again when a reorganisation has given the funding output another place, by
    /// whose name the channel is known from then on; its earlier name is not.
    ChannelReady {
        /// The channel.
        channel_id: ChannelId,
        /// Its place in the chain.
        scid: Scid,
        /// The peer.
        peer: NodeId,
    },
    /// The channel was closed by agreement.
    ChannelClosed {
        /// The channel.
        channel_id: ChannelId,
        /// The transaction that closes it, fully signed; it is also broadcast.
        transaction: Transaction,
    },
    /// The channel broke, or never came to be.
    ChannelFailed {
        /// The channel, or its temporary id.
        channel_id: ChannelId,
        /// The peer.
        peer: NodeId,
        /// The cause.
        error: Box<ChannelError>,
        /// Whether our latest commitment may be broadcast; when not, only the peer may close on chain.
        broadcast_allowed: bool,
    },
    /// An HTLC of ours was fulfilled.
    HtlcSettled {
        /// The operator's name for it.
        attempt_id: u64,
        /// The proof of payment.
        preimage: PaymentPreimage,
    },
    /// An HTLC of ours came to nothing; its amount is ours again.
    HtlcFailed {
        /// The operator's name for it.
        attempt_id: u64,
        /// Why.
        reason: FailureReason,
    },
    /// A payment to us is complete: all its HTLCs are being fulfilled.
    PaymentReceived {
        /// Its payment hash.
        payment_hash: PaymentHash,
        /// The sum of its HTLCs.
        amount: Msat,
        /// How many they are.
        parts: usize,
    },
    /// An HTLC was carried from one channel to another and fulfilled.
    Forwarded {
        /// The channel it came in on.
        incoming_channel_id: ChannelId,
        /// The channel it went out on.
        outgoing_channel_id: ChannelId,
        /// The amount of the incoming HTLC.
        incoming_amount: Msat,
        /// The amount of the outgoing HTLC.
        outgoing_amount: Msat,
        /// The fee earned: the difference.
        fee: Msat,
        /// For how long it was held here: from the decision on it to its preimage.
        hold_ms: u64,
    },
    /// A forwarded HTLC was failed downstream, and the failure is on its way back.
    ForwardFailed {
        /// The channel it came in on.
        incoming_channel_id: ChannelId,
        /// The channel it had gone out on.
        outgoing_channel_id: ChannelId,
        /// The amount of the outgoing HTLC.
        outgoing_amount: Msat,
        /// For how long it was held here.
        hold_ms: u64,
    },
    /// A forward is held until [`Command::ResumeHtlc`](crate::forward::Command::ResumeHtlc) or
    /// [`Command::FailHtlc`](crate::forward::Command::FailHtlc) decides on it, or its expiry comes too near. Reported
    /// again after a restart.
    HtlcIntercepted {
        /// The HTLC.
        incoming: IncomingHtlc,
        /// How it would be carried on.
        offer: Offer,
    },
    /// This node refused a received HTLC: one to be forwarded, one that pays this node, or a held part of an incomplete
    /// payment.
    HtlcRefused {
        /// The channel it came in on.
        incoming_channel_id: ChannelId,
        /// Its payment hash.
        payment_hash: PaymentHash,
        /// The BOLT 4 failure code it was refused with.
        code: u16,
        /// The channel that did not take it, if it was to go out on one of this shard.
        outgoing: Option<RefusedOutgoing>,
    },
    /// A command could not be done.
    CommandRefused {
        /// Why, with the values.
        error: CommandError,
    },
    /// A peer sent a warning, or an error that names no channel of ours.
    PeerWarning {
        /// The peer.
        peer: NodeId,
        /// Its text, with unprintable characters replaced.
        text: String,
    },
    /// An announcement of this node's own, signed: for its graph and for other nodes. A channel's announcement and its
    /// latest update are reported once in each run, the announcement first; later updates as they are made.
    OwnGossip {
        /// A `channel_announcement`, `channel_update` or `node_announcement`.
        message: Box<Message>,
    },
    /// A message that is not the shard's: gossip, for the graph.
    Gossip {
        /// The peer it came from.
        peer: NodeId,
        /// The message.
        message: Box<Message>,
    },
}

/// An HTLC that did not go out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RefusedOutgoing {
    /// The channel it was to go out on.
    pub scid: Scid,
    /// The amount to be offered.
    pub amount: Msat,
    /// The most the channel could have taken at that moment, its policy aside.
    pub available: Msat,
}

/// Why an HTLC of ours failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FailureReason {
    /// A node on the way sent this encrypted failure; the sender, who knows the onion's session key, decrypts it.
    Remote {
        /// The `reason` of the `update_fail_htlc` we were sent; empty if it was longer than
        /// [`FAILURE_REASON_BYTES_MAX`](crate::channel::FAILURE_REASON_BYTES_MAX).
        packet: Vec<u8>,
    },
    /// The first hop could not read the onion.
    Malformed {
        /// The BADONION code it gave.
        failure_code: u16,
    },
    /// The HTLC never left this node, or was dropped before it was committed.
    Local(LocalFailure),
}
