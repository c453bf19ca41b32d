//! Receiving: expected payments, the checks of the final node, and sets of HTLCs that pay together (BOLT 4 "Basic
//! Multi-Part Payments", the final node's part of "Failure Messages").
//!
//! Owns the expected payments and the incomplete sets. Does not own the HTLCs of a set: their circuits are `Held` until
//! the set is complete or failed, and sums are taken over those circuits.
//!
//! All HTLCs of one payment hash are received by one shard of a node ([`NodeConfig::receiver`]); the others hand theirs
//! over to it.
//!
//! Invariant: either all HTLCs of a set are fulfilled or none. A payment is received once: afterwards its hash is
//! unknown.

use std::collections::{BTreeMap, BTreeSet};

use fulmen_wire::units::{BlockHeight, CltvDelta, Msat, PaymentHash, PaymentPreimage, PaymentSecret};
use sha2::{Digest, Sha256};

use crate::onion::{Failure, FinalPayload, PaymentData};

use super::item::CheckpointItem;
use crate::forward::terms::config::NodeConfig;
use crate::forward::terms::ids::IncomingHtlc;
use crate::forward::terms::input::ExpectedPayment;
use crate::forward::terms::time::Now;

/// An HTLC whose final hop is this node.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FinalHtlc<'a> {
    pub(crate) amount: Msat,
    pub(crate) cltv_expiry: BlockHeight,
    pub(crate) payment_hash: PaymentHash,
    pub(crate) payload: &'a FinalPayload,
}

/// How the final node accepts an HTLC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Accepted {
    /// It is a part of an expected payment of this total.
    Part { total: Msat },
    /// It brought its own preimage.
    Keysend { preimage: PaymentPreimage },
}

/// A payment this node is willing to receive, and whether it was received.
#[derive(Clone, Debug, PartialEq, Eq)]
struct ExpectedEntry {
    payment: ExpectedPayment,
    paid: bool,
}

/// HTLCs that wait for the rest of their payment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HtlcSet {
    /// The `total_msat` all its parts name.
    pub(crate) total: Msat,
    /// When it is failed if still incomplete.
    pub(crate) deadline: Now,
    /// Its parts in the order they came.
    pub(crate) parts: Vec<IncomingHtlc>,
}

/// The expected payments and incomplete sets of a shard.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Receiver {
    expected: BTreeMap<PaymentHash, ExpectedEntry>,
    by_expiry: BTreeSet<(u64, PaymentHash)>,
    sets: BTreeMap<PaymentHash, HtlcSet>,
}

impl Receiver {
    /// Whether the hash was registered and is not forgotten.
    pub(crate) fn knows(&self, payment_hash: PaymentHash) -> bool {
        self.expected.contains_key(&payment_hash)
    }

    /// The amount expected under a hash, if one was named.
    pub(crate) fn amount(&self, payment_hash: PaymentHash) -> Option<Msat> {
        self.expected.get(&payment_hash).and_then(|entry| entry.payment.amount)
    }

    pub(crate) fn preimage(&self, payment_hash: PaymentHash) -> Option<PaymentPreimage> {
        self.expected.get(&payment_hash).map(|entry| entry.payment.preimage)
    }

    pub(crate) fn set(&self, payment_hash: PaymentHash) -> Option<&HtlcSet> {
        self.sets.get(&payment_hash)
    }

    pub(crate) fn sets(&self) -> impl Iterator<Item = (PaymentHash, &HtlcSet)> {
        self.sets.iter().map(|(payment_hash, set)| (*payment_hash, set))
    }

    pub(crate) fn sets_len(&self) -> usize {
        self.sets.len()
    }

    /// The checkpoint items of expected payments and sets; each set comes before its parts.
    pub(crate) fn items(&self) -> impl Iterator<Item = CheckpointItem> + '_ {
        let expected = self.expected.values();
        let expected = expected.map(|entry| CheckpointItem::ExpectedPayment {
            payment: entry.payment.clone(),
            paid: entry.paid,
        });
        let sets = self.sets.iter().flat_map(|(payment_hash, set)| {
            let HtlcSet { total, deadline, parts } = set;
            let payment_hash = *payment_hash;
            let set = CheckpointItem::Set { payment_hash, total: *total, deadline: *deadline };
            let parts = parts.iter().map(move |part| CheckpointItem::Part { payment_hash, incoming: *part });
            std::iter::once(set).chain(parts)
        });
        expected.chain(sets)
    }

    /// Restores an item of [`Receiver::items`].
    pub(crate) fn restore(&mut self, item: CheckpointItem) {
        match item {
            CheckpointItem::ExpectedPayment { payment, paid } => {
                let payment_hash = payment.payment_hash;
                self.register(payment);
                if let Some(entry) = self.expected.get_mut(&payment_hash) {
                    entry.paid = paid;
                }
            }
            CheckpointItem::Set { payment_hash, total, deadline } => {
                self.sets.insert(payment_hash, HtlcSet { total, deadline, parts: Vec::new() });
            }
            CheckpointItem::Part { payment_hash, incoming } => {
                if let Some(set) = self.sets.get_mut(&payment_hash) {
                    set.parts.push(incoming);
                }
            }
            _ => debug_assert!(false, "not of the receiver"),
        }
    }

    pub(crate) fn register(&mut self, payment: ExpectedPayment) {
        self.by_expiry.insert((payment.expires_at_unix_ms, payment.payment_hash));
        self.expected.insert(payment.payment_hash, ExpectedEntry { payment, paid: false });
    }

    /// Adds a part; the first one starts the clock.
    pub(crate) fn hold(&mut self, payment_hash: PaymentHash, part: IncomingHtlc, total: Msat, deadline: Now) {
        let new = || HtlcSet { total, deadline, parts: Vec::new() };
        self.sets.entry(payment_hash).or_insert_with(new).parts.push(part);
    }

    /// Forgets a set: its parts are resolved. If it was paid, its hash cannot be paid again.
    pub(crate) fn close_set(&mut self, payment_hash: PaymentHash, paid: bool) {
        self.sets.remove(&payment_hash);
        if paid && let Some(entry) = self.expected.get_mut(&payment_hash) {
            entry.paid = true;
        }
    }

    /// Whether [`Receiver::prune`] would forget something.
    pub(crate) fn has_expired(&self, now: Now) -> bool {
        self.expired(now).next().is_some()
    }

    /// Forgets the expired payments that have no parts waiting.
    pub(crate) fn prune(&mut self, now: Now) {
        let expired: Vec<(u64, PaymentHash)> = self.expired(now).collect();
        for (expires_at_unix_ms, payment_hash) in expired {
            self.by_expiry.remove(&(expires_at_unix_ms, payment_hash));
            self.expected.remove(&payment_hash);
        }
    }

    fn expired(&self, now: Now) -> impl Iterator<Item = (u64, PaymentHash)> + '_ {
        let expired = self.by_expiry.iter().take_while(move |(expires_at, _)| *expires_at <= now.unix_ms);
        expired.filter(|(_, payment_hash)| !self.sets.contains_key(payment_hash)).copied()
    }

    /// The checks of the final node on one HTLC.
    ///
    /// # Errors
    /// The failure for the sender.
    pub(crate) fn check(
        &self,
        htlc: FinalHtlc<'_>,
        config: &NodeConfig,
        height: BlockHeight,
        now: Now,
    ) -> Result<Accepted, Failure> {
        if htlc.cltv_expiry < htlc.payload.outgoing_cltv_value {
            return Err(Failure::FinalIncorrectCltvExpiry { cltv_expiry: htlc.cltv_expiry });
        }
        if htlc.amount < htlc.payload.amt_to_forward {
            return Err(Failure::FinalIncorrectHtlcAmount { incoming_htlc_amt: htlc.amount });
        }
        self.accept(htlc, config, height, now)
            .ok_or(Failure::IncorrectOrUnknownPaymentDetails { htlc_msat: htlc.amount, height })
    }

    /// Every fault past the first two has the same code, so that a prober learns nothing from it.
    fn accept(
        &self,
        htlc: FinalHtlc<'_>,
        config: &NodeConfig,
        height: BlockHeight,
        now: Now,
    ) -> Option<Accepted> {
        let entry = self.expected.get(&htlc.payment_hash);
        let Some(ExpectedEntry { payment, paid }) = entry else {
            return accept_keysend(htlc, config, height);
        };
        if *paid || now.unix_ms >= payment.expires_at_unix_ms {
            return None;
        }
        let PaymentData { payment_secret, total_msat: total } = htlc.payload.payment_data?;
        if !same_secret(&payment_secret, &payment.payment_secret) {
            return None;
        }
        if let Some(amount) = payment.amount
            && (total < amount || total.0 > amount.0.saturating_mul(2))
        {
            return None;
        }
        expires_late_enough(htlc, height, payment.min_final_cltv_expiry_delta)
            .then_some(Accepted::Part { total })
    }
}

fn accept_keysend(htlc: FinalHtlc<'_>, config: &NodeConfig, height: BlockHeight) -> Option<Accepted> {
    let preimage = htlc.payload.keysend_preimage.filter(|_| config.accept_keysend)?;
    let matches = hashes_to(preimage, htlc.payment_hash);
    // A multi-part keysend has nothing that ties its parts together but its preimage, which every part reveals.
    let whole = htlc.payload.total_msat() <= htlc.payload.amt_to_forward;
    let late_enough = expires_late_enough(htlc, height, config.keysend_min_final_cltv_expiry_delta);
    (matches && whole && late_enough).then_some(Accepted::Keysend { preimage })
}

fn expires_late_enough(
    htlc: FinalHtlc<'_>,
    height: BlockHeight,
    min_final_cltv_expiry_delta: CltvDelta,
) -> bool {
    htlc.cltv_expiry >= height.saturating_add(min_final_cltv_expiry_delta)
}

/// Whether the preimage unlocks the hash.
pub(crate) fn hashes_to(preimage: PaymentPreimage, payment_hash: PaymentHash) -> bool {
    Sha256::digest(preimage.0)[..] == payment_hash.0
}

/// Compares secrets in a time that does not depend on where they differ.
fn same_secret(one: &PaymentSecret, other: &PaymentSecret) -> bool {
    one.0.iter().zip(&other.0).fold(0, |differences, (a, b)| differences | (a ^ b)) == 0
}

#[cfg(test)]
mod tests {
    use fulmen_wire::units::ChainHash;

    use super::*;

    const HEIGHT: BlockHeight = BlockHeight(500);
    const NOW: Now = Now { unix_ms: 10_000 };
    const SECRET: PaymentSecret = PaymentSecret([5; 32]);
    const PREIMAGE: PaymentPreimage = PaymentPreimage([9; 32]);

    fn hash() -> PaymentHash {
        PaymentHash(Sha256::digest(PREIMAGE.0).into())
    }

    fn receiver() -> Receiver {
        let mut receiver = Receiver::default();
        receiver.register(ExpectedPayment {
            payment_hash: hash(),
            preimage: PREIMAGE,
            payment_secret: SECRET,
            amount: Some(Msat(1_000)),
            min_final_cltv_expiry_delta: CltvDelta(18),
            expires_at_unix_ms: 20_000,
        });
        receiver
    }

    fn payload(total: u64) -> FinalPayload {
        FinalPayload {
            amt_to_forward: Msat(1_000),
            outgoing_cltv_value: BlockHeight(518),
            payment_data: Some(PaymentData { payment_secret: SECRET, total_msat: Msat(total) }),
            payment_metadata: None,
            keysend_preimage: None,
            other_records: Vec::new(),
        }
    }

    fn check_at(
        htlc: (u64, u32),
        payload: &FinalPayload,
        receiver: &Receiver,
        now: Now,
    ) -> Result<Accepted, u16> {
        let htlc = FinalHtlc {
            amount: Msat(htlc.0),
            cltv_expiry: BlockHeight(htlc.1),
            payment_hash: hash(),
            payload,
        };
        let config = NodeConfig::new(ChainHash::REGTEST, Vec::new());
        receiver.check(htlc, &config, HEIGHT, now).map_err(|failure| failure.code().to_u16())
    }

    fn check(amount: u64, cltv_expiry: u32, payload: &FinalPayload) -> Result<Accepted, u16> {
        check_at((amount, cltv_expiry), payload, &receiver(), NOW)
    }

    const UNKNOWN: u16 = 0x400f;

    #[test]
    fn what_the_onion_promises_is_checked_first() {
        assert_eq!(check(1_000, 518, &payload(1_000)), Ok(Accepted::Part { total: Msat(1_000) }));
        assert_eq!(check(999, 518, &payload(1_000)), Err(19));
        assert_eq!(check(1_000, 517, &payload(1_000)), Err(18));
        assert_eq!(check(1, 1, &payload(1)), Err(18));
    }

    #[test]
    fn the_total_lies_between_the_invoice_and_its_double() {
        assert_eq!(check(1_000, 518, &payload(999)), Err(UNKNOWN));
        assert_eq!(check(1_000, 518, &payload(2_000)), Ok(Accepted::Part { total: Msat(2_000) }));
        assert_eq!(check(1_000, 518, &payload(2_001)), Err(UNKNOWN));
    }

    #[test]
    fn expiry_secret_and_age_are_checked() {
        let early = FinalPayload { outgoing_cltv_value: BlockHeight(0), ..payload(1_000) };
        assert!(check(1_000, 518, &early).is_ok());
        assert_eq!(check(1_000, 517, &early), Err(UNKNOWN));
        let wrong = PaymentData { payment_secret: PaymentSecret([6; 32]), total_msat: Msat(1_000) };
        assert_eq!(
            check(1_000, 518, &FinalPayload { payment_data: Some(wrong), ..early.clone() }),
            Err(UNKNOWN)
        );
        assert_eq!(check(1_000, 518, &FinalPayload { payment_data: None, ..early.clone() }), Err(UNKNOWN));
        let at = |unix_ms| check_at((1_000, 518), &early, &receiver(), Now { unix_ms });
        assert!(at(19_999).is_ok());
        assert_eq!(at(20_000), Err(UNKNOWN));
    }

    #[test]
    fn an_invoice_is_paid_once() {
        let mut receiver = receiver();
        let part = IncomingHtlc { channel_id: fulmen_wire::units::ChannelId([0; 32]), htlc_id: 0 };
        receiver.hold(hash(), part, Msat(1_000), NOW);
        receiver.close_set(hash(), true);
        assert_eq!(check_at((1_000, 518), &payload(1_000), &receiver, NOW), Err(UNKNOWN));
        assert!(receiver.knows(hash()), "its hash may not be registered again while it is remembered");
        receiver.prune(Now { unix_ms: 20_000 });
        assert!(!receiver.knows(hash()));
    }

    #[test]
    fn keysend_brings_its_own_preimage() {
        let none = Receiver::default();
        let keysend = FinalPayload { payment_data: None, keysend_preimage: Some(PREIMAGE), ..payload(0) };
        assert_eq!(
            check_at((1_000, 518), &keysend, &none, NOW),
            Ok(Accepted::Keysend { preimage: PREIMAGE })
        );
        let wrong = FinalPayload { keysend_preimage: Some(PaymentPreimage([8; 32])), ..keysend.clone() };
        assert_eq!(check_at((1_000, 518), &wrong, &none, NOW), Err(UNKNOWN));
        let part = FinalPayload { payment_data: payload(1_001).payment_data, ..keysend.clone() };
        assert_eq!(check_at((1_000, 518), &part, &none, NOW), Err(UNKNOWN));
        let early = FinalPayload { outgoing_cltv_value: BlockHeight(0), ..keysend };
        assert_eq!(check_at((1_000, 517), &early, &none, NOW), Err(UNKNOWN));
    }
}
