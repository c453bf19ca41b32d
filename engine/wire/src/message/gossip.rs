//! The announcements of BOLT 7: channels, nodes and updates, and the signatures that make the first.
//!
//! Owns: their fields, their bytes, and the region that their signatures sign. Does not check signatures; the gossip
//! store does.
//!
//! Invariant: an announcement is encoded to the bytes it was decoded from, unknown extensions included, so that its
//! signatures stay valid.

use crate::addresses::NodeAddresses;
use crate::codec::Writer;
use crate::features::Features;
use crate::field::{Payload, message};
use crate::units::{
    ChainHash, ChannelId, CltvDelta, FeeBaseMsat, FeeProportionalMillionths, Msat, NodeId, Point, Scid,
    Signature,
};

/// How many bytes a message's type has.
const TYPE_BYTES: usize = 2;
/// How many bytes a signature has.
const SIGNATURE_BYTES: usize = 64;

/// The part of an encoded announcement (type included) that its signatures sign: double SHA-256 of it is the message
/// they commit to. `None` for any other message and for bytes too short to contain the signatures.
#[must_use]
pub fn signed_region(message: &[u8]) -> Option<&[u8]> {
    let (message_type, payload) = message.split_first_chunk::<TYPE_BYTES>()?;
    let signatures = match u16::from_be_bytes(*message_type) {
        ChannelAnnouncement::TYPE => 4,
        NodeAnnouncement::TYPE | ChannelUpdate::TYPE => 1,
        _ => return None,
    };
    payload.get(signatures * SIGNATURE_BYTES..)
}

/// The bytes an announcement's signatures sign, which all stand behind `signatures` signatures.
fn signed_bytes(payload: &impl Payload, signatures: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    payload.write_payload(&mut Writer::new(&mut bytes));
    bytes.drain(..signatures * SIGNATURE_BYTES);
    bytes
}

message! {
    /// The sender's half of the signatures of a `channel_announcement`.
    AnnouncementSignatures = 259, "announcement_signatures" {
        /// The channel.
        channel_id: ChannelId,
        /// Where its funding output is.
        short_channel_id: Scid,
        /// By the sender's node key.
        node_signature: Signature,
        /// By the sender's funding key.
        bitcoin_signature: Signature,
    }
    tlvs {}
}

message! {
    /// Proves that a channel exists between two nodes.
    ChannelAnnouncement = 256, "channel_announcement" {
        /// By `node_id_1`.
        node_signature_1: Signature,
        /// By `node_id_2`.
        node_signature_2: Signature,
        /// By `bitcoin_key_1`.
        bitcoin_signature_1: Signature,
        /// By `bitcoin_key_2`.
        bitcoin_signature_2: Signature,
        /// The features that a user of the channel must support.
        features: Features,
        /// The chain it is funded on.
        chain_hash: ChainHash,
        /// Where its funding output is.
        short_channel_id: Scid,
        /// The node with the smaller key.
        node_id_1: NodeId,
        /// The other node.
        node_id_2: NodeId,
        /// The first node's funding key.
        bitcoin_key_1: Point,
        /// The second node's funding key.
        bitcoin_key_2: Point,
    }
    extension
}

impl ChannelAnnouncement {
    /// The bytes all four signatures sign, to be hashed twice with SHA-256.
    #[must_use]
    pub fn signed_bytes(&self) -> Vec<u8> {
        signed_bytes(self, 4)
    }
}

message! {
    /// Describes a node.
    NodeAnnouncement = 257, "node_announcement" {
        /// By `node_id`.
        signature: Signature,
        /// The features that the node supports or requires.
        features: Features,
        /// Orders the announcements of a node; usually seconds since 1970.
        timestamp: u32,
        /// The node.
        node_id: NodeId,
        /// Its colour on maps: red, green, blue.
        rgb_color: [u8; 3],
        /// Its name, padded with zeros. The node chose it: do not print it unescaped.
        alias: [u8; 32],
        /// Where it accepts connections.
        addresses: NodeAddresses,
    }
    extension
}

impl NodeAnnouncement {
    /// The bytes the signature signs, to be hashed twice with SHA-256.
    #[must_use]
    pub fn signed_bytes(&self) -> Vec<u8> {
        signed_bytes(self, 1)
    }
}

/// One of the two directions of a channel, as bit 0 of `channel_flags` in a `channel_update` distinguishes them. A
/// policy applies to the HTLCs that cross the channel in its direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// From `node_id_1`, the lower id, to `node_id_2`.
    OneToTwo,
    /// From `node_id_2` to `node_id_1`.
    TwoToOne,
}

impl Direction {
    /// Both directions, in order.
    pub const BOTH: [Direction; 2] = [Direction::OneToTwo, Direction::TwoToOne];

    /// The direction of an HTLC that `from` offers to `to` over a channel between them.
    #[must_use]
    pub fn between(from: NodeId, to: NodeId) -> Direction {
        if from < to { Direction::OneToTwo } else { Direction::TwoToOne }
    }

    /// The index of the node that offers HTLCs in this direction: 0 for `node_id_1`, 1 for `node_id_2`.
    #[must_use]
    pub const fn origin(self) -> usize {
        match self {
            Direction::OneToTwo => 0,
            Direction::TwoToOne => 1,
        }
    }

    /// The other direction.
    #[must_use]
    pub const fn reversed(self) -> Direction {
        match self {
            Direction::OneToTwo => Direction::TwoToOne,
            Direction::TwoToOne => Direction::OneToTwo,
        }
    }
}

message! {
    /// One node's conditions for forwarding over a channel.
    ChannelUpdate = 258, "channel_update" {
        /// By the node of this direction.
        signature: Signature,
        /// The chain the channel is funded on.
        chain_hash: ChainHash,
        /// The channel.
        short_channel_id: Scid,
        /// Orders the updates of a direction; usually seconds since 1970.
        timestamp: u32,
        /// Bit 0 is always one; bit 1: not to be passed on.
        message_flags: u8,
        /// Bit 0: the direction; bit 1: disabled.
        channel_flags: u8,
        /// The difference in blocks between the expiries of the incoming and the outgoing HTLC.
        cltv_expiry_delta: CltvDelta,
        /// The smallest HTLC the channel carries in this direction.
        htlc_minimum_msat: Msat,
        /// The fee for any HTLC.
        fee_base_msat: FeeBaseMsat,
        /// The fee for each million forwarded.
        fee_proportional_millionths: FeeProportionalMillionths,
        /// The largest HTLC the channel carries in this direction.
        htlc_maximum_msat: Msat,
    }
    extension
}

impl ChannelUpdate {
    /// Bit 0 of `message_flags`, which must be set.
    pub const MUST_BE_ONE: u8 = 1;
    /// Bit 1 of `message_flags`: for the channel's peer only.
    pub const DONT_FORWARD: u8 = 1 << 1;
    /// Bit 0 of `channel_flags`: the update is of `node_id_2`.
    pub const DIRECTION: u8 = 1;
    /// Bit 1 of `channel_flags`: the channel is disabled in this direction.
    pub const DISABLE: u8 = 1 << 1;

    /// Whose conditions these are.
    #[must_use]
    pub const fn direction(&self) -> Direction {
        if self.channel_flags & Self::DIRECTION == 0 { Direction::OneToTwo } else { Direction::TwoToOne }
    }

    /// Whether the channel is disabled in this direction.
    #[must_use]
    pub const fn is_disabled(&self) -> bool {
        self.channel_flags & Self::DISABLE != 0
    }

    /// Whether the update is for the channel's peer only.
    #[must_use]
    pub const fn dont_forward(&self) -> bool {
        self.message_flags & Self::DONT_FORWARD != 0
    }

    /// The bytes the signature signs, to be hashed twice with SHA-256.
    #[must_use]
    pub fn signed_bytes(&self) -> Vec<u8> {
        signed_bytes(self, 1)
    }
}
