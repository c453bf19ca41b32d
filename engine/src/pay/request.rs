//! The request for a payment: whom to pay, how much, and within which limits.
//!
//! Owns the parameters of a payment and the numbering of its HTLCs. Parses no invoice: the caller does, and fills in a
//! [`PaymentRequest`].
//!
//! Invariant: an attempt id names one HTLC of one payment, and says which ([`PaymentId::of_attempt`]).

use bitcoin::hashes::{Hash, sha256};
use bitcoin::secp256k1::SecretKey;
use fulmen_graph::path::{Limits, Query};
use fulmen_proto::onion::PaymentData;
use fulmen_proto::payment::Recipient;
use fulmen_wire::units::{CltvDelta, Msat, NodeId, PaymentHash, PaymentPreimage, PaymentSecret};

/// The name of a payment, chosen by the embedder and never used twice: the attempt ids of its HTLCs derive from it, and
/// the engine may know those for as long as it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PaymentId(u64);

impl PaymentId {
    /// The largest number of a payment. The other 16 bits of an attempt id number the payment's HTLCs.
    pub const MAX: u64 = (1 << (64 - HTLC_BITS)) - 1;

    /// The payment of this number; `None` above [`PaymentId::MAX`].
    #[must_use]
    pub const fn new(number: u64) -> Option<PaymentId> {
        if number <= PaymentId::MAX { Some(PaymentId(number)) } else { None }
    }

    /// Its number.
    #[must_use]
    pub const fn number(self) -> u64 {
        self.0
    }

    /// The payment that an HTLC belongs to. Attempt ids that an embedder chose for HTLCs of its own fall on some
    /// payment too; [`Payer::htlc_settled`](super::Payer::htlc_settled) and
    /// [`Payer::htlc_failed`](super::Payer::htlc_failed) tell them apart.
    #[must_use]
    pub const fn of_attempt(attempt_id: u64) -> PaymentId {
        PaymentId(attempt_id >> HTLC_BITS)
    }

    /// The attempt id of one of the payment's HTLCs.
    pub(super) fn attempt(self, htlc: u16) -> u64 {
        self.0 << HTLC_BITS | u64::from(htlc)
    }
}

/// The bits of an attempt id that number the HTLCs of a payment.
const HTLC_BITS: u32 = u16::BITS;

/// A payment to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PaymentRequest {
    /// Its name.
    pub id: PaymentId,
    /// The node to pay.
    pub payee: NodeId,
    /// The amount the payee is to receive, in all parts together.
    pub amount: Msat,
    /// The hash that locks its HTLCs.
    pub payment_hash: PaymentHash,
    /// The `payment_secret` of the invoice; without it a payment cannot go in parts (BOLT 4, "Basic Multi-Part
    /// Payments").
    pub payment_secret: Option<PaymentSecret>,
    /// The `payment_metadata` of the invoice, to be sent along.
    pub payment_metadata: Option<Vec<u8>>,
    /// The preimage, in a payment without an invoice.
    pub keysend_preimage: Option<PaymentPreimage>,
    /// The payee's `min_final_cltv_expiry_delta`, in blocks.
    pub final_cltv_delta: CltvDelta,
    /// The bounds on fee, parts, rounds and time.
    pub limits: PaymentLimits,
    /// Fresh random bytes, used for no other payment: the session keys of its onions derive from them, and so does the
    /// shadow offset. Kept with the request, they let the failures of its HTLCs be read after a restart.
    pub entropy: [u8; 32],
}

/// The bounds on a payment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PaymentLimits {
    /// The fee of all parts together; blocks and hops of each part.
    pub route: Limits,
    /// How many parts may be in flight at once.
    pub parts_max: usize,
    /// How many rounds of parts may be sent: the first one, and one after each failure. A round is up to
    /// [`PaymentLimits::parts_max`] HTLCs.
    pub rounds_max: u32,
    /// When no further round is sent, in milliseconds since 1970; HTLCs in flight then are waited for all the same, as
    /// nobody can call them back.
    pub deadline_unix_ms: Option<u64>,
}

impl PaymentLimits {
    /// Limits for a payment of `amount`: a fee of one per cent and 50 sat, eight parts, sixteen rounds, no deadline.
    #[must_use]
    pub fn new(amount: Msat) -> PaymentLimits {
        let max_fee = Msat(amount.0 / FEE_DIVISOR).saturating_add(FEE_FREE);
        PaymentLimits {
            route: Limits { max_fee, ..Limits::default() },
            parts_max: 8,
            rounds_max: 16,
            deadline_unix_ms: None,
        }
    }
}

/// A fee of one part in a hundred is allowed by default,
const FEE_DIVISOR: u64 = 100;
/// and this much for small amounts, where base fees weigh most.
const FEE_FREE: Msat = Msat(50_000);

impl PaymentRequest {
    /// A payment that an invoice asks for, with default limits; `final_cltv_delta` is the invoice's, in blocks.
    #[must_use]
    pub fn new(
        id: PaymentId,
        payee: NodeId,
        amount: Msat,
        (payment_hash, payment_secret): (PaymentHash, PaymentSecret),
        final_cltv_delta: CltvDelta,
        entropy: [u8; 32],
    ) -> PaymentRequest {
        PaymentRequest {
            id,
            payee,
            amount,
            payment_hash,
            payment_secret: Some(payment_secret),
            payment_metadata: None,
            keysend_preimage: None,
            final_cltv_delta,
            limits: PaymentLimits::new(amount),
            entropy,
        }
    }

    /// A payment to a node that has issued no invoice, with default limits. It goes in one part: its parts would have
    /// nothing in common but the preimage, which each of them reveals.
    #[must_use]
    pub fn keysend(
        id: PaymentId,
        payee: NodeId,
        amount: Msat,
        preimage: PaymentPreimage,
        final_cltv_delta: CltvDelta,
        entropy: [u8; 32],
    ) -> PaymentRequest {
        PaymentRequest {
            id,
            payee,
            amount,
            payment_hash: PaymentHash(sha256::Hash::hash(&preimage.0).to_byte_array()),
            payment_secret: None,
            payment_metadata: None,
            keysend_preimage: Some(preimage),
            final_cltv_delta,
            limits: PaymentLimits { parts_max: 1, ..PaymentLimits::new(amount) },
            entropy,
        }
    }

    /// How many parts may be in flight at once: without a `payment_secret`, one.
    pub(super) fn parts_max(&self) -> usize {
        if self.payment_secret.is_some() && self.keysend_preimage.is_none() {
            self.limits.parts_max
        } else {
            1
        }
    }

    /// The records of the payee's payload beyond amount and expiry.
    pub(super) fn recipient(&self) -> Recipient {
        let total_msat = self.amount;
        Recipient {
            payment_data: self
                .payment_secret
                .map(|payment_secret| PaymentData { payment_secret, total_msat }),
            payment_metadata: self.payment_metadata.clone(),
            keysend_preimage: self.keysend_preimage,
        }
    }

    /// The most bytes that [`PaymentRequest::recipient`] takes in an onion.
    pub(super) fn payee_extra_bytes(&self) -> u32 {
        // A type below 253 takes one byte, keysend's type nine, a length up to five.
        let data = self.payment_secret.map_or(0, |_| Query::PAYMENT_DATA_BYTES);
        let metadata = self.payment_metadata.as_ref().map_or(0, |bytes| bytes.len().saturating_add(1 + 5));
        let keysend = self.keysend_preimage.map_or(0, |_| 9 + 1 + 32);
        data.saturating_add(u32::try_from(metadata).unwrap_or(u32::MAX)).saturating_add(keysend)
    }

    /// The session key of an HTLC's onion; `None` with a probability of 2^-127, when the hash is no key.
    pub(super) fn session_key(&self, htlc: u16) -> Option<SecretKey> {
        let mut engine = sha256::Hash::engine();
        for bytes in [b"fulmen session key".as_slice(), &self.entropy, &htlc.to_be_bytes()] {
            bitcoin::hashes::HashEngine::input(&mut engine, bytes);
        }
        SecretKey::from_slice(sha256::Hash::from_engine(engine).as_byte_array()).ok()
    }

    /// The seed of the shadow offset: apart from the session keys, of which a node on the way sees the points.
    pub(super) fn shadow_seed(&self) -> u64 {
        let mut engine = sha256::Hash::engine();
        for bytes in [b"fulmen shadow offset".as_slice(), &self.entropy] {
            bitcoin::hashes::HashEngine::input(&mut engine, bytes);
        }
        let hash = sha256::Hash::from_engine(engine).to_byte_array();
        hash.iter().take(8).fold(0, |seed, byte| seed << 8 | u64::from(*byte))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempt_ids_name_their_payment() {
        for number in [0, 1, 77, PaymentId::MAX] {
            let id = PaymentId::new(number).unwrap();
            for htlc in [0, 1, u16::MAX] {
                assert_eq!(PaymentId::of_attempt(id.attempt(htlc)), id);
            }
        }
        assert_eq!(PaymentId::new(PaymentId::MAX + 1), None);
    }

    #[test]
    fn each_htlc_has_a_session_key_of_its_payment() {
        let request = |entropy| {
            let id = PaymentId::new(1).unwrap();
            PaymentRequest::keysend(
                id,
                NodeId([2; 33]),
                Msat(9),
                PaymentPreimage([3; 32]),
                CltvDelta(18),
                entropy,
            )
        };
        let keys = [0, 1, 256].map(|htlc| request([7; 32]).session_key(htlc).unwrap());
        assert_ne!(keys[0], keys[1]);
        assert_ne!(keys[1], keys[2]);
        assert_eq!(keys[1], request([7; 32]).session_key(1).unwrap());
        assert_ne!(keys[1], request([8; 32]).session_key(1).unwrap());
        assert_ne!(request([7; 32]).shadow_seed(), request([8; 32]).shadow_seed());
    }

    #[test]
    fn a_payment_that_nothing_ties_together_goes_in_one_part() {
        let id = PaymentId::new(1).unwrap();
        let hash = (PaymentHash([1; 32]), PaymentSecret([2; 32]));
        let request = PaymentRequest::new(id, NodeId([2; 33]), Msat(1_000_000), hash, CltvDelta(18), [0; 32]);
        assert_eq!(request.parts_max(), 8);
        assert_eq!(request.limits.route.max_fee, Msat(60_000));
        assert_eq!(PaymentRequest { payment_secret: None, ..request.clone() }.parts_max(), 1);
        let preimage = Some(PaymentPreimage([1; 32]));
        assert_eq!(PaymentRequest { keysend_preimage: preimage, ..request }.parts_max(), 1);
    }
}
