//! The outcome of a batch of gossip: changes of the graph, funding outputs to look up, refused messages with their
//! causes, and peers to disconnect (BOLT 7).
//!
//! Invariant: every message is accepted, held, or refused with its cause.

use fulmen_secp::KeyError;
use fulmen_wire::codec::DecodeError;
use fulmen_wire::units::{BlockHeight, ChainHash, NodeId, Point, Sat, Scid};
use sha2::{Digest, Sha256};
use thiserror::Error;

use super::GraphChange;

/// The source of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// This node made it: no rate limit applies.
    Own,
    /// This peer sent it.
    Peer(NodeId),
}

impl Source {
    /// The first source in their order.
    pub(super) const FIRST: Source = Source::Own;
}

/// A received message.
#[derive(Clone, Copy, Debug)]
pub struct IncomingGossip<'a> {
    /// Its source.
    pub from: Source,
    /// The whole message, from its type on.
    pub message: &'a [u8],
}

/// The reaction to a refused message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GossipReaction {
    /// Nothing: the message is old, known, or of no interest.
    Ignore,
    /// Count a fault: no honest peer relays malformed or wrongly signed messages.
    CountFault,
}

/// The reason why a message was refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Refusal {
    /// It cannot be decoded.
    #[error("malformed: {0}")]
    Malformed(#[from] DecodeError),
    /// It is another kind of message.
    #[error("message type {message_type} is no announcement")]
    NotGossip {
        /// Its type.
        message_type: u16,
    },
    /// It belongs to another chain.
    #[error("chain {found} is not ours")]
    OtherChain {
        /// The chain.
        found: ChainHash,
    },
    /// The nodes of a channel are equal, or in the wrong order.
    #[error("channel {scid} has nodes {} and {}, which are not in ascending order", nodes[0], nodes[1])]
    NodesNotInOrder {
        /// The channel.
        scid: Scid,
        /// Its nodes.
        nodes: [NodeId; 2],
    },
    /// A key is not a point on the curve.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// A signature does not match its key.
    #[error("invalid signature")]
    InvalidSignature,
    /// It is known already, or was earlier in the same batch.
    #[error("known already")]
    Known,
    /// A message about the same subject is as new or newer.
    #[error("timestamp {timestamp} is not above {known}")]
    NotNewer {
        /// Its timestamp.
        timestamp: u32,
        /// The timestamp of the known message.
        known: u32,
    },
    /// Its timestamp is too far ahead.
    #[error("timestamp {timestamp} is too far ahead of {now_seconds}")]
    TooFarAhead {
        /// Its timestamp.
        timestamp: u32,
        /// The current time.
        now_seconds: u64,
    },
    /// Its timestamp is so old that the channel would be pruned.
    #[error("timestamp {timestamp} is too old at {now_seconds}")]
    Stale {
        /// Its timestamp.
        timestamp: u32,
        /// The current time.
        now_seconds: u64,
    },
    /// It is meant for the channel's peer alone.
    #[error("update of channel {scid} is not to be passed on")]
    DontForward {
        /// The channel.
        scid: Scid,
    },
    /// The funding output has too few confirmations.
    #[error("channel {scid} has too few confirmations at {tip}")]
    Unconfirmed {
        /// The channel.
        scid: Scid,
        /// The chain's height.
        tip: BlockHeight,
    },
    /// The funding output was spent.
    #[error("channel {scid} was spent at {at}")]
    Spent {
        /// The channel.
        scid: Scid,
        /// The height of the spending block.
        at: BlockHeight,
    },
    /// The channel is known with other keys.
    #[error("channel {scid} is known with other keys")]
    Contradiction {
        /// The channel.
        scid: Scid,
    },
    /// Both signed announcements of one channel for different nodes, all of which are banned now.
    #[error("channel {scid} was announced for other nodes too: all of them are banned")]
    ConflictingAnnouncements {
        /// The channel.
        scid: Scid,
    },
    /// The node is banned.
    #[error("node {node} is banned")]
    Banned {
        /// The node.
        node: NodeId,
    },
    /// The funding output does not exist, or not for these keys.
    #[error("channel {scid} has no such funding output")]
    NotFunded {
        /// The channel.
        scid: Scid,
    },
    /// The peer has exceeded its rate limit.
    #[error("too many messages")]
    RateLimited,
    /// Too many bytes of announcements wait for their funding outputs to be looked up, of this peer or of all.
    #[error("{bytes} bytes of announcements wait for their funding outputs already")]
    TooManyLookups {
        /// The bytes of all sources.
        bytes: usize,
    },
    /// Too many bytes wait to be written to the store.
    #[error("{bytes} bytes wait to be written already")]
    StoreBehind {
        /// The bytes that wait.
        bytes: usize,
    },
}

impl Refusal {
    /// The reaction to this refusal.
    #[must_use]
    pub const fn reaction(&self) -> GossipReaction {
        match self {
            Refusal::Malformed(_)
            | Refusal::NodesNotInOrder { .. }
            | Refusal::Key(_)
            | Refusal::InvalidSignature => GossipReaction::CountFault,
            _ => GossipReaction::Ignore,
        }
    }
}

/// A refused message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Its index in the batch; `None` for a message that was held before.
    pub index: Option<usize>,
    /// Its source.
    pub from: Source,
    /// The reason.
    pub why: Refusal,
}

/// A funding output to be looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FundingLookup {
    /// The claimed position of the output.
    pub scid: Scid,
    /// The two keys it is claimed to pay to, the lower first.
    pub bitcoin_keys: [Point; 2],
}

impl FundingLookup {
    /// The script that the output must have: P2WSH of two of the two keys (BOLT 3, "Funding Transaction Output").
    #[must_use]
    pub fn script_pubkey(&self) -> [u8; 34] {
        let mut hash = Sha256::new();
        // OP_2 and a push of 33 bytes; the same push; OP_2 OP_CHECKMULTISIG.
        hash.update([0x52, 33]);
        hash.update(self.bitcoin_keys[0].0);
        hash.update([33]);
        hash.update(self.bitcoin_keys[1].0);
        hash.update([0x52, 0xae]);
        let mut script = [0; 34];
        script[1] = 32;
        script[2..].copy_from_slice(&hash.finalize());
        script
    }
}

/// The result of a lookup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FundingAnswer {
    /// The output is unspent and has the script of [`FundingLookup::script_pubkey`].
    Unspent {
        /// Its value.
        value: Sat,
    },
    /// There is no such unspent output.
    Missing,
}

/// The outcome of a call that takes in gossip.
#[derive(Debug, Default)]
#[must_use = "the changes are told once"]
pub struct GossipOutcome {
    /// Changes of the graph, in order.
    pub changes: Vec<GraphChange>,
    /// Funding outputs to look up. Answer each once.
    pub lookups: Vec<FundingLookup>,
    /// Refused messages.
    pub refused: Vec<Refused>,
    /// Peers that exceeded their limit of faults: warn and disconnect them.
    pub disconnect: Vec<NodeId>,
    /// The number of accepted messages.
    pub accepted: usize,
    /// The number of messages held until their channel is announced.
    pub held: usize,
    /// How often a message in the store could not be read; its consequences were left out.
    pub unreadable: usize,
}
