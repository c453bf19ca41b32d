//! Messages between shards of a node: the seam of a circuit whose two channels belong to different shards.
//!
//! Owns the messages between shards. Does not route them: the runtime knows which shard owns a channel, and gives
//! each shard the channels of the others by `Input::SiblingChannels`.
//!
//! Invariant: a handoff is idempotent. The incoming HTLC names the circuit on both sides, so an [`Handoff`] delivered
//! twice, also after a restart, changes nothing the second time. Its sender can repeat it from its durable state until
//! it is answered: an `Offer` or a `Part` by `Resolve`, a `Resolve` by `Ack`.

use fulmen_wire::onion::OnionPacket;
use fulmen_wire::units::{BlockHeight, Msat, PaymentHash};

use super::circuit::{Offer, Resolution};
use super::ids::IncomingHtlc;

/// A step of a circuit whose ends lie in two shards. `(incoming, kind of step)` is its idempotent id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Handoff {
    /// The HTLC that came in: the circuit's name.
    pub incoming: IncomingHtlc,
    /// The step.
    pub step: HandoffStep,
}

/// The kinds of steps of a [`Handoff`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HandoffStep {
    /// To the outgoing channel's shard: offer this HTLC if the channel's policy allows.
    Offer {
        /// The terms of the offer.
        offer: Offer,
        /// The onion for the peer.
        onion: OnionPacket,
    },
    /// To the shard that receives payments under this hash: an HTLC that pays this node.
    Part(PaymentPart),
    /// To the incoming channel's shard: how the HTLC is to be removed.
    Resolve(Resolution),
    /// To the shard that sent `Resolve`: the resolution is durable here and may be forgotten there.
    Ack,
}

/// An HTLC whose final hop is this node, with the payload as peeled by the shard of its channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PaymentPart {
    /// Its `amount_msat`.
    pub amount: Msat,
    /// Its `cltv_expiry`.
    pub cltv_expiry: BlockHeight,
    /// Its `payment_hash`.
    pub payment_hash: PaymentHash,
    /// The innermost payload of its onion.
    pub payload: Vec<u8>,
}
