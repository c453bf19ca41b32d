//! Honest payments over the victim, which must go on.
//!
//! Owns one payment after the other between the honest peers, both ways in turn, and their deadline. Also builds the
//! routes of liars' payments, which differ in their payee alone.

use fulmen_proto::forward::{Command, Event, SendHtlc};
use fulmen_proto::payment::OutgoingPayment;
use fulmen_wire::units::{Msat, Scid};

use super::messages;
use super::world::{HONEST, ROUND_MS, VICTIM, World};
use crate::payment::NumberedPayment;
use crate::violation::{Violation, ensure};

/// The amount of an honest payment: large enough for an output.
const AMOUNT: Msat = Msat(2_000_000);
/// How long an honest payment may take while the victim runs.
const SETTLED_WITHIN_MS: u64 = 20_000;
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
        let payment = NumberedPayment::new(0xaa, number, AMOUNT);
        world.command(to, Command::ExpectPayment(payment.invoice()));
        if world.pay(payment, from, Destination::Machine(to), FIRST_ATTEMPT + number) {
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
    Signer(usize),
    /// A channel that does not exist.
    Nowhere,
    Victim,
}

impl World {
    /// Commands the first HTLC of a payment. `false` when there is no channel to send it on.
    pub(super) fn pay(
        &mut self,
        payment: NumberedPayment,
        from: usize,
        to: Destination,
        attempt_id: u64,
    ) -> bool {
        let Some(first) = scid(self, from) else { return false };
        let Some(outgoing) = self.routed(payment, first, to) else { return false };
        self.command(from, Command::SendHtlc(SendHtlc::new(attempt_id, &outgoing)))
    }

    /// A payment whose first HTLC comes in on a channel of the victim.
    pub(super) fn routed(
        &self,
        payment: NumberedPayment,
        first: Scid,
        to: Destination,
    ) -> Option<OutgoingPayment> {
        let (height, victim) = (self.chain.height(), (self.id(VICTIM), first));
        match to {
            Destination::Victim => payment.keysend(height, victim),
            Destination::Machine(to) => payment.over(height, victim, (self.id(to), scid(self, to)?)),
            Destination::Signer(signer) => {
                let payee = (messages::signer(signer as u16), self.signers[signer].scid()?);
                payment.over(height, victim, payee)
            }
            Destination::Nowhere => payment.over(height, victim, (victim.0, Scid(1))),
        }
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
