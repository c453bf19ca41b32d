//! A circuit: a received HTLC, the HTLC offered for it, and how the two end (BOLT 2 "Forwarding HTLCs").
//!
//! Owns the types that records, checkpoints, handoffs and events share. Does not keep circuits; `state::circuits` does.

use fulmen_wire::units::{BlockHeight, Msat, PaymentHash, PaymentPreimage, Scid};

use crate::onion::{Failure, SharedSecret};

use super::config::InboundFee;
use super::ids::{IncomingHtlc, OutgoingHtlc};
use super::time::Now;

/// A received HTLC on its way to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Circuit {
    /// Its `amount_msat`.
    pub amount: Msat,
    /// Its `cltv_expiry`.
    pub cltv_expiry: BlockHeight,
    /// Its `payment_hash`.
    pub payment_hash: PaymentHash,
    /// The key to failures; `None` when the onion could not be peeled.
    pub shared_secret: Option<SharedSecret>,
    /// Where it stands.
    pub stage: CircuitStage,
}

/// Where a circuit stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CircuitStage {
    /// It pays us and waits for the other parts of its payment.
    Held {
        /// The `amt_to_forward` of its onion, which counts towards the total.
        amt_to_forward: Msat,
    },
    /// It goes on, on a channel of this shard.
    Offered {
        /// The HTLC offered for it.
        outgoing: OutgoingHtlc,
    },
    /// It is forwarded on a channel of another shard, which has not resolved it yet.
    HandedOff(Offer),
    /// It pays us, and the shard that receives its payment has not resolved it yet.
    PartHandedOff,
    /// It waits for the embedder's decision, and is then carried on as this offer.
    Intercepted(Offer),
    /// It is to be removed, or is being removed.
    Resolved(Resolution),
}

/// For whom an HTLC was offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// For the operator.
    Attempt {
        /// The operator's name for it.
        attempt_id: u64,
    },
    /// For an HTLC received on a channel of this shard.
    Forward(Forward),
    /// For an HTLC received on a channel of another shard.
    Handoff(Forward),
}

/// A forwarded HTLC: the incoming one and the amounts on both sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forward {
    /// The HTLC that came in.
    pub incoming: IncomingHtlc,
    /// The amount of the incoming HTLC.
    pub incoming_amount: Msat,
    /// The amount of the HTLC offered for it.
    pub outgoing_amount: Msat,
    /// When the one that came in was decided on.
    pub received_at: Now,
}

/// An HTLC to offer on another channel in return for one received: all of it but the onion, which follows from the one
/// that came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offer {
    /// The channel the sender asked for.
    pub scid: Scid,
    /// The amount of the incoming HTLC.
    pub incoming_amount: Msat,
    /// The inbound fee of the channel it came in on.
    pub inbound_fee: InboundFee,
    /// When the HTLC that came in expires.
    pub incoming_cltv_expiry: BlockHeight,
    /// The amount to offer.
    pub amount: Msat,
    /// When the offered HTLC expires.
    pub cltv_expiry: BlockHeight,
    /// When the HTLC that came in was decided on.
    pub received_at: Now,
    /// The payment hash of both.
    pub payment_hash: PaymentHash,
}

impl Offer {
    /// The circuit this offer makes for the HTLC that came in.
    pub(crate) fn forward(&self, incoming: IncomingHtlc) -> Forward {
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
