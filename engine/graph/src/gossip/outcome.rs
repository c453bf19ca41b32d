//! What comes of gossip that was taken in: changes of the graph, funding outputs to look up, and what was refused, why, and
//! who is to be disconnected for it (BOLT 7).
//!
//! Invariant: every message handed in is either believed, held or refused with its cause.

use fulmen_secp::KeyError;
use fulmen_wire::codec::DecodeError;
use fulmen_wire::units::{BlockHeight, ChainHash, NodeId, Point, Sat, Scid};
use sha2::{Digest, Sha256};
use thiserror::Error;

use super::GraphChange;

/// Where a message comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// We made it: no limits apply.
    Own,
    /// This peer sent it.
    Peer(NodeId),
}

impl Source {
    /// The first in the order of sources.
    pub(super) const FIRST: Source = Source::Own;
}

/// A message as it came.
#[derive(Clone, Copy, Debug)]
pub struct IncomingGossip<'a> {
    /// From whom.
    pub from: Source,
    /// All of it, from its type on.
    pub message: &'a [u8],
}

/// What to do about a refused message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GossipReaction {
    /// Nothing: it is old, known, or of no interest.
    Ignore,
    /// Count it: no honest peer relays what is malformed or wrongly signed.
    CountFault,
}

/// Why a message was refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Refusal {
    /// It is not a message.
    #[error("malformed: {0}")]
    Malformed(#[from] DecodeError),
    /// It is not gossip.
    #[error("message type {message_type} is no announcement")]
    NotGossip {
        /// Its type.
        message_type: u16,
    },
    /// It is of another chain.
    #[error("chain {found} is not ours")]
    OtherChain {
        /// The chain.
        found: ChainHash,
    },
    /// The nodes of a channel are one, or in the wrong order.
    #[error("channel {scid} has nodes {} and {}, which are not in ascending order", nodes[0], nodes[1])]
    NodesNotInOrder {
        /// The channel.
        scid: Scid,
        /// Its nodes.
        nodes: [NodeId; 2],
    },
    /// A key is no point of the curve.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// A signature is not by the key it should be by.
    #[error("invalid signature")]
    InvalidSignature,
    /// It is known already, or was earlier in the same batch.
    #[error("known already")]
    Known,
    /// There is one as new.
    #[error("timestamp {timestamp} is not above {known}")]
    NotNewer {
        /// Its timestamp.
        timestamp: u32,
        /// Of the one we have.
        known: u32,
    },
    /// Its timestamp is too far ahead.
    #[error("timestamp {timestamp} is too far ahead of {now_seconds}")]
    TooFarAhead {
        /// Its timestamp.
        timestamp: u32,
        /// Our clock.
        now_seconds: u64,
    },
    /// Its timestamp is so old that the channel would be forgotten.
    #[error("timestamp {timestamp} is too old at {now_seconds}")]
    Stale {
        /// Its timestamp.
        timestamp: u32,
        /// Our clock.
        now_seconds: u64,
    },
    /// It is for a channel's peer alone.
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
        /// In which block.
        at: BlockHeight,
    },
    /// The channel is known with other keys.
    #[error("channel {scid} is known with other keys")]
    Contradiction {
        /// The channel.
        scid: Scid,
    },
    /// Both signed announcements of one channel: its nodes are not believed any more.
    #[error("channel {scid} was announced for other nodes too: all of them are banned")]
    ConflictingAnnouncements {
        /// The channel.
        scid: Scid,
    },
    /// The node is not believed any more.
    #[error("node {node} is banned")]
    Banned {
        /// The node.
        node: NodeId,
    },
    /// Its funding output is not there, or not for these keys.
    #[error("channel {scid} has no such funding output")]
    NotFunded {
        /// The channel.
        scid: Scid,
    },
    /// The peer has sent more than it may.
    #[error("too many messages")]
    RateLimited,
    /// Too many bytes of announcements wait for their funding outputs to be looked up, of this peer or of all.
    #[error("{bytes} bytes of announcements wait for their funding outputs already")]
    TooManyLookups {
        /// The bytes of all sources.
        bytes: usize,
    },
    /// Too much waits to be written to the store.
    #[error("{bytes} bytes wait to be written already")]
    StoreBehind {
        /// How many bytes.
        bytes: usize,
    },
}

impl Refusal {
    /// What to do about it.
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

/// A message that was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Its index in the batch; none for one that was held until now.
    pub index: Option<usize>,
    /// Whose it was.
    pub from: Source,
    /// Why.
    pub why: Refusal,
}

/// A funding output to look up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FundingLookup {
    /// Where it is said to be.
    pub scid: Scid,
    /// The keys it is said to pay to, the lower first.
    pub bitcoin_keys: [Point; 2],
}

impl FundingLookup {
    /// The script the output must have: P2WSH of two of the two keys (BOLT 3, "Funding Transaction Output").
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

/// What was found of a funding output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FundingAnswer {
    /// It is there, unspent, with the script of [`FundingLookup::script_pubkey`].
    Unspent {
        /// Its value.
        value: Sat,
    },
    /// It is not.
    Missing,
}

/// What came of some gossip.
#[derive(Debug, Default)]
#[must_use = "the changes are told once"]
pub struct GossipOutcome {
    /// What changed in the graph, in this order.
    pub changes: Vec<GraphChange>,
    /// Funding outputs to look up; each is answered once.
    pub lookups: Vec<FundingLookup>,
    /// What was refused.
    pub refused: Vec<Refused>,
    /// Peers that have sent too much that no honest peer sends: to be warned and disconnected.
    pub disconnect: Vec<NodeId>,
    /// How many messages were believed.
    pub accepted: usize,
    /// How many wait for the channel they are about.
    pub held: usize,
    /// How often a message in the store could not be read; what depended on it was left out.
    pub unreadable: usize,
}
