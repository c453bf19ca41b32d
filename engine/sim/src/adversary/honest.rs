//! Honest payments over the victim, which must go on.
//!
//! Owns one payment after the other between the honest peers, both ways in turn, and their deadline. Also builds the
//! routes of liars' payments, which differ in their payee alone.

use bitcoin::hashes::{Hash, sha256};
use bitcoin::secp256k1::SecretKey;
use fulmen_proto::forward::{Command, Event, ExpectedPayment, ForwardingPolicy, SendHtlc};
use fulmen_proto::onion::PaymentData;
use fulmen_proto::payment::{OutgoingPayment, Recipient, RouteHop};
use fulmen_wire::units::{CltvDelta, Msat, NodeId, PaymentHash, PaymentPreimage, PaymentSecret, Scid};

use super::world::{HONEST, ROUND_MS, VICTIM, World};
use crate::violation::{Violation, ensure};

/// The amount of an honest payment: large enough for an output.
const AMOUNT: Msat = Msat(2_000_000);
/// How long an honest payment may take while the victim runs.
const SETTLED_WITHIN_MS: u64 = 20_000;
const FINAL_DELTA: CltvDelta = CltvDelta(18);
/// The attempt ids of honest payments start here; liars' are below.
const FIRST_ATTEMPT: u64 = 1 << 32;

/// The honest payments of a run.
#[derive(Clone, Debug, Default)]
pub(super) struct HonestPayments {
    pub(super) sent: u64,
    pub(super) settled: u64,
    pub(super) failed: u64,
    /// The payment under way, and when it was sent.
    current: Option<(u64, u64)>,
    seen_events: usize,
}

impl HonestPayments {
    pub(super) fn under_way(&self) -> bool {
        self.current.is_some()
    }

    /// Sends the next payment unless one is under way.
    pub(super) fn send(&mut self, world: &mut World) {
        if self.current.is_some() {
            return;
        }
        let number = self.sent;
        let [from, to] = if number.is_multiple_of(2) { HONEST } else { [HONEST[1], HONEST[0]] };
        let payment = Payment::new(0xaa, number, AMOUNT);
        world.command(to, Command::ExpectPayment(payment.invoice()));
        if payment.send(world, from, Destination::Machine(to), FIRST_ATTEMPT + number) {
            self.sent += 1;
            self.current = Some((FIRST_ATTEMPT + number, world.now().unix_ms));
        }
    }

    /// Takes in how payments ended, and checks that the one under way is not late. A payment may fail only if the
    /// victim died meanwhile.
    pub(super) fn check(&mut self, world: &World) -> Result<(), Violation> {
        for (machine, event) in &world.events[self.seen_events..] {
            let (attempt_id, settled) = match event {
                Event::HtlcSettled { attempt_id, .. } => (*attempt_id, true),
                Event::HtlcFailed { attempt_id, .. } => (*attempt_id, false),
                _ => continue,
            };
            if !HONEST.contains(machine) {
                continue;
            }
            ensure!(
                self.current.is_some_and(|(current, _)| current == attempt_id),
                Outcomes,
                "payment {attempt_id} ends twice"
            );
            self.current = None;
            self.settled += u64::from(settled);
            self.failed += u64::from(!settled);
            ensure!(
                settled || world.spent.restarts > 0,
                Outcomes,
                "the honest payment {attempt_id} fails: {event:?}"
            );
        }
        self.seen_events = world.events.len();
        if let Some((attempt_id, since)) = self.current {
            let late = world.now().unix_ms - since;
            ensure!(
                late <= SETTLED_WITHIN_MS,
                Progress,
                "the honest payment {attempt_id} has not settled after {late} ms ({} rounds)",
                late / ROUND_MS
            );
        }
        Ok(())
    }
}

/// Where a payment over the victim ends.
#[derive(Clone, Copy, Debug)]
pub(super) enum Destination {
    Machine(usize),
    /// A channel that does not exist.
    Nowhere,
    Victim,
}

/// A payment over the victim, or to it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Payment {
    preimage: PaymentPreimage,
    hash: PaymentHash,
    amount: Msat,
}

impl Payment {
    /// The payment of a series that a number stands for: the same numbers give the same onion.
    pub(super) fn new(series: u8, number: u64, amount: Msat) -> Payment {
        let mut preimage = [series; 32];
        preimage[..8].copy_from_slice(&number.to_be_bytes());
        let preimage = PaymentPreimage(preimage);
        Payment { preimage, hash: hash_of(preimage), amount }
    }

    pub(super) fn invoice(&self) -> ExpectedPayment {
        ExpectedPayment {
            payment_hash: self.hash,
            preimage: self.preimage,
            payment_secret: self.secret(),
            amount: Some(self.amount),
            min_final_cltv_expiry_delta: FINAL_DELTA,
            expires_at_unix_ms: u64::MAX,
        }
    }

    /// Commands the first HTLC. `false` when there is no channel to send it on.
    pub(super) fn send(&self, world: &mut World, from: usize, to: Destination, attempt_id: u64) -> bool {
        let Some(first) = scid(world, from) else { return false };
        let Some(outgoing) = self.outgoing(world, first, to) else { return false };
        world.command(from, Command::SendHtlc(SendHtlc::new(attempt_id, &outgoing)))
    }

    fn secret(&self) -> PaymentSecret {
        PaymentSecret(self.preimage.0.map(|byte| byte ^ 0x55))
    }

    fn outgoing(&self, world: &World, first: Scid, to: Destination) -> Option<OutgoingPayment> {
        let expiry = world.chain.height().saturating_add(FINAL_DELTA).saturating_add(CltvDelta(6));
        let hop = |node_id: NodeId, short_channel_id, amount, cltv_expiry| RouteHop {
            node_id,
            short_channel_id,
            amount,
            cltv_expiry,
        };
        let policy = ForwardingPolicy::default();
        let victim = world.id(VICTIM);
        let total = Msat(self.amount.0 + policy.fee(self.amount).0);
        let over = |id, last| {
            let before = expiry.saturating_add(policy.cltv_expiry_delta);
            vec![hop(victim, first, total, before), hop(id, last, self.amount, expiry)]
        };
        let route = match to {
            Destination::Victim => vec![hop(victim, first, self.amount, expiry)],
            Destination::Machine(to) => over(world.id(to), scid(world, to)?),
            Destination::Nowhere => over(victim, Scid(1)),
        };
        let keysend = matches!(to, Destination::Victim);
        let data = PaymentData { payment_secret: self.secret(), total_msat: self.amount };
        let recipient = Recipient {
            payment_data: (!keysend).then_some(data),
            payment_metadata: None,
            keysend_preimage: keysend.then_some(self.preimage),
        };
        let session_key = SecretKey::from_slice(&self.hash.0).ok()?;
        OutgoingPayment::new(&session_key, self.hash, &route, &recipient).ok()
    }
}

/// A usable channel of a machine, else any with a place in the chain.
fn scid(world: &World, machine: usize) -> Option<Scid> {
    let mut found: Vec<(bool, u64)> = Vec::new();
    world.machines[machine].engine.for_each_shard(|shard| {
        found.extend(shard.channels().filter_map(|channel| Some((!channel.is_usable(), channel.scid()?.0))));
    });
    found.into_iter().min().map(|(_, scid)| Scid(scid))
}

pub(super) fn hash_of(preimage: PaymentPreimage) -> PaymentHash {
    PaymentHash(sha256::Hash::hash(&preimage.0).to_byte_array())
}
