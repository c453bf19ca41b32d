//! What one shard of a node asks of another: the seam between a circuit's two ends when two locks own them.
//!
//! Owns the messages between shards. Does not route them: the runtime knows which shard owns a channel, and tells
//! each shard the channels of the others by `Input::SiblingChannels`.
//!
//! Invariant: a handoff is idempotent. The incoming HTLC names the circuit on both sides, so an [`Handoff`] delivered
//! twice, also after a restart, changes nothing the second time. Its sender can repeat it from its durable state until
//! it is answered: an `Offer` or a `Part` by `Resolve`, a `Resolve` by `Ack`.

use fulmen_wire::units::{BlockHeight, ChannelId, Msat, PaymentHash, PaymentPreimage, Scid};

use crate::onion::Failure;

use super::circuit::Forward;
use super::config::InboundFee;
use super::input::Now;

/// An HTLC that a peer offered us. It names its circuit.
///
/// Both directions of a channel count their HTLCs from 0 (BOLT 2, "Adding an HTLC": the offering node sets `id`), so
/// that an incoming and an [`OutgoingHtlc`] may have equal numbers; separate types keep them from being confused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IncomingHtlc {
    /// The channel.
    pub channel_id: ChannelId,
    /// The `id` that the peer gave it in `update_add_htlc`.
    pub htlc_id: u64,
}

/// An HTLC that we offered a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OutgoingHtlc {
    /// The channel.
    pub channel_id: ChannelId,
    /// The `id` that we gave it in `update_add_htlc`.
    pub htlc_id: u64,
}

/// A step of a circuit whose ends lie in two shards. `(incoming, kind of step)` is its idempotent id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Handoff {
    /// The HTLC that came in: the circuit's name.
    pub incoming: IncomingHtlc,
    /// What is asked.
    pub step: HandoffStep,
}

/// What a [`Handoff`] asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HandoffStep {
    /// To the outgoing channel's shard: offer this HTLC if the channel's policy allows.
    Offer {
        /// What to offer.
        offer: Offer,
        /// With which onion.
        onion: Box<[u8; 1366]>,
    },
    /// To the shard that receives payments under this hash: an HTLC that pays this node.
    Part(PaymentPart),
    /// To the incoming channel's shard: how the HTLC is to be removed.
    Resolve(Resolution),
    /// To the shard that sent `Resolve`: the resolution is durable here and may be forgotten there.
    Ack,
}

/// An HTLC for which this node is the last, as the shard of its channel peeled it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PaymentPart {
    /// What it pays.
    pub amount: Msat,
    /// When it expires.
    pub cltv_expiry: BlockHeight,
    /// What locks it.
    pub payment_hash: PaymentHash,
    /// The innermost payload of its onion.
    pub payload: Vec<u8>,
}

/// An HTLC to offer on another channel in return for one received: all of it but the onion, which follows from the one
/// that came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offer {
    /// The channel the sender asked for.
    pub scid: Scid,
    /// What the HTLC that came in pays.
    pub incoming_amount: Msat,
    /// The inbound fee of the channel it came in on.
    pub inbound_fee: InboundFee,
    /// When the HTLC that came in expires.
    pub incoming_cltv_expiry: BlockHeight,
    /// What to offer.
    pub amount: Msat,
    /// When the offered HTLC expires.
    pub cltv_expiry: BlockHeight,
    /// When the HTLC that came in was decided on.
    pub received_at: Now,
    /// What locks both.
    pub payment_hash: PaymentHash,
}

impl Offer {
    /// The circuit this offer makes for the HTLC that came in.
    pub(super) fn forward(&self, incoming: IncomingHtlc) -> Forward {
        let Offer { incoming_amount, amount: outgoing_amount, received_at, .. } = *self;
        Forward { incoming, incoming_amount, outgoing_amount, received_at }
    }
}

/// How an HTLC that was received is to be removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resolution {
    /// The payment arrived.
    Fulfill(PaymentPreimage),
    /// A failure of a node downstream, still to be wrapped for the way back.
    Relay(Vec<u8>),
    /// A failure of our own, still to be encrypted to the sender.
    Fail(Failure),
    /// The onion itself was bad: the previous hop reports it in our stead.
    Malformed {
        /// The BADONION code.
        failure_code: u16,
        /// The hash of the onion we were given.
        sha256_of_onion: [u8; 32],
    },
}
