//! The results of the payments: counted, explained, and kept for the digest.
//!
//! Owns: the counts of the report, and the proof that a failure was a matter of balance: the refusing node reports the
//! amount it could have sent at that moment, and that is compared with the amount the payer asked for. The payer never
//! sees it.
//!
//! Invariant: each payment is counted once; a failure is explained only by a number that is really too small.

use std::collections::{BTreeMap, HashMap};

use fulmen::pay::{FailedPart, FailureCause, PaymentOutcome};
use fulmen_proto::onion::FailureCode;
use fulmen_wire::units::{Msat, PaymentHash, Scid};

use crate::digest::Fate;
use crate::fault::FaultKind;
use crate::paying::{End, Outcome};
use crate::report::{Faulty, FaultyKind, Ordinary, Parts, Payments};
use crate::seed::Seed;

/// The name of a failed payment for which not one attempt could be made.
const NO_ROUTE: &str = "no_route";

/// The results of the payments.
#[derive(Debug)]
pub(crate) struct Tally {
    seed: Seed,
    counts: Counts,
}

#[derive(Debug, Default)]
struct Counts {
    succeeded: u64,
    attempts: u64,
    /// By payment number, so that the digest does not depend on the order they ended in.
    fates: BTreeMap<u64, Fate>,
    failures: BTreeMap<String, u64>,
    attempt_failures: BTreeMap<String, u64>,
    faulty: BTreeMap<&'static str, FaultyKind>,
    ordinary_succeeded: u64,
    ordinary_succeeded_at_once: u64,
    parts: Parts,
    /// The ordinary payments that failed, and every failed attempt of an ordinary payment.
    ordinary_failed: Vec<u64>,
    ordinary_attempts: Vec<(u64, FailedPart)>,
    /// The last failure of each faulty payment that did not fail as expected.
    faulty_otherwise: Vec<(u64, FailedPart)>,
    /// The amount each refusing node could have sent: the least it reported for one payment, channel and amount.
    refusals: HashMap<(PaymentHash, Scid, Msat), Msat>,
}

impl Tally {
    /// Nothing counted yet.
    pub(crate) fn new(seed: Seed) -> Tally {
        Tally { seed, counts: Counts::default() }
    }

    /// A node refused to forward `amount` over `scid`, where it could have sent `available`.
    pub(crate) fn refused(&mut self, payment_hash: PaymentHash, scid: Scid, amount: Msat, available: Msat) {
        let least = self.counts.refusals.entry((payment_hash, scid, amount)).or_insert(available);
        *least = available.min(*least);
    }

    /// A payment is over.
    pub(crate) fn resolved(&mut self, fault: Option<FaultKind>, outcome: &Outcome) {
        let (payment, payer) = (outcome.payment, &outcome.payer);
        self.counts.attempts += u64::from(payer.htlcs);
        for failure in &payer.failures {
            *self.counts.attempt_failures.entry(name_of(&failure.cause)).or_default() += 1;
        }
        let succeeded = outcome.end == End::Succeeded;
        // A part that its payee gave back because another was missing says nothing: that other one does.
        let is_cause = |failure: &&FailedPart| failure.cause.code() != Some(FailureCode::MppTimeout);
        let last = payer.failures.iter().rfind(is_cause).or(payer.failures.last());
        if succeeded {
            self.counts.succeeded += 1;
        } else {
            let name = last.map_or_else(|| NO_ROUTE.to_owned(), |failure| name_of(&failure.cause));
            *self.counts.failures.entry(name).or_default() += 1;
        }
        match fault {
            Some(kind) => {
                let counts = self.counts.faulty.entry(kind.name()).or_default();
                counts.sent += 1;
                counts.as_expected += u64::from(outcome.end == End::FailedAsExpected);
                if outcome.end == End::FailedOtherwise {
                    self.counts.faulty_otherwise.extend(last.map(|failure| (payment, failure.clone())));
                }
            }
            None => {
                self.counts.ordinary_succeeded += u64::from(succeeded);
                self.counts.ordinary_succeeded_at_once += u64::from(succeeded && payer.rounds == 1);
                if !succeeded {
                    self.counts.ordinary_failed.push(payment);
                }
                self.count_parts(succeeded, payer);
                let failures = payer.failures.iter().filter(is_cause).cloned();
                self.counts.ordinary_attempts.extend(failures.map(|failure| (payment, failure)));
            }
        }
        let crossed: usize = payer.settled.iter().map(|part| part.route.hops.len()).sum();
        let place = last.map_or(0, |failure| failure.place);
        let fate = Fate {
            succeeded,
            attempts: payer.htlcs,
            code: last
                .filter(|_| !succeeded)
                .and_then(|failure| failure.cause.code())
                .map_or(0, FailureCode::to_u16),
            hop: u32::try_from(if succeeded { crossed } else { place }).unwrap_or(u32::MAX),
            sent: payer.sent(),
        };
        self.counts.fates.insert(payment, fate);
    }

    fn count_parts(&mut self, succeeded: bool, payer: &PaymentOutcome) {
        let parts = &mut self.counts.parts;
        parts.tried_split += u64::from(payer.parts_at_once > 1);
        if succeeded {
            let count = payer.settled.len() as u64;
            parts.split += u64::from(count > 1);
            *parts.by_count.entry(count).or_default() += 1;
            parts.fulfilled += count;
            parts.retries += payer.failures.len() as u64;
        }
    }

    /// In how many parts ordinary payments went.
    pub(crate) fn parts(&self) -> Parts {
        let share = |part: u64, whole: u64| part as f64 / whole.max(1) as f64;
        Parts {
            split_share: share(self.counts.parts.split, self.counts.ordinary_succeeded),
            retries_per_part: share(self.counts.parts.retries, self.counts.parts.fulfilled),
            ..self.counts.parts.clone()
        }
    }

    /// How each payment ended, by its number.
    pub(crate) fn fates(&self) -> &BTreeMap<u64, Fate> {
        &self.counts.fates
    }

    /// The payments of the report. To be asked when no refusal is still on its way.
    pub(crate) fn payments(&self) -> Payments {
        let sent = self.counts.fates.len() as u64;
        Payments {
            sent,
            succeeded: self.counts.succeeded,
            failed: sent - self.counts.succeeded,
            attempts: self.counts.attempts,
            failures: self.counts.failures.clone(),
            attempt_failures: self.counts.attempt_failures.clone(),
            ordinary: self.ordinary(),
        }
    }

    /// The payments made to fail, by kind.
    pub(crate) fn faulty(&self) -> Faulty {
        let otherwise = self.counts.faulty_otherwise.iter();
        let by_balance = otherwise.filter(|(payment, failure)| self.is_explained(*payment, failure)).count();
        Faulty {
            failed_by_balance: by_balance as u64,
            sent: self.counts.faulty.values().map(|kind| kind.sent).sum(),
            as_expected: self.counts.faulty.values().map(|kind| kind.as_expected).sum(),
            kinds: self.counts.faulty.clone(),
        }
    }

    fn ordinary(&self) -> Ordinary {
        let unexplained: Vec<u64> = self
            .counts
            .ordinary_attempts
            .iter()
            .filter(|(payment, failure)| !self.is_explained(*payment, failure))
            .map(|(payment, _)| *payment)
            .collect();
        let failed = self.counts.ordinary_failed.len() as u64;
        let by_balance =
            self.counts.ordinary_failed.iter().filter(|payment| !unexplained.contains(payment)).count();
        Ordinary {
            sent: self.counts.ordinary_succeeded + failed,
            succeeded: self.counts.ordinary_succeeded,
            succeeded_at_once: self.counts.ordinary_succeeded_at_once,
            failed,
            failed_by_balance: by_balance as u64,
            attempts_failed_by_balance: (self.counts.ordinary_attempts.len() - unexplained.len()) as u64,
            attempts_unexplained: unexplained.len() as u64,
        }
    }

    /// Whether the failing channel really had too little.
    fn is_explained(&self, payment: u64, failure: &FailedPart) -> bool {
        if let Some(spendable) = failure.own_spendable {
            return spendable < failure.amount;
        }
        let is_balance = failure.cause.code() == Some(FailureCode::TemporaryChannelFailure);
        let Some(scid) = failure.channel.filter(|_| is_balance) else { return false };
        let key = (self.seed.payment_hash(payment), scid, failure.amount);
        self.counts.refusals.get(&key).is_some_and(|available| *available < failure.amount)
    }
}

/// The name of a failed attempt: its BOLT 4 code, or the kind of failure without one.
pub(crate) fn name_of(cause: &FailureCause) -> String {
    match cause.code() {
        Some(code @ FailureCode::Other(_)) => format!("code_{:#06x}", code.to_u16()),
        Some(code) => code.to_string(),
        None if matches!(cause, FailureCause::Local(_)) => "own_channel".to_owned(),
        None => "unreadable_failure".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    use fulmen::pay::{PaymentFailure, PaymentId, SettledPart};
    use fulmen_graph::path::{Cost, Route};
    use fulmen_graph::scoring::Probability;
    use fulmen_proto::forward::{ChannelRef, LocalFailure};
    use fulmen_wire::units::PaymentPreimage;

    fn seed() -> Seed {
        Seed::new(1, b"")
    }

    fn failure(amount: u64) -> FailedPart {
        FailedPart {
            attempt_id: 1,
            place: 2,
            cause: FailureCause::Remote(FailureCode::TemporaryChannelFailure),
            channel: Some(Scid(7)),
            amount: Msat(amount),
            own_spendable: None,
        }
    }

    fn outcome(payment: u64, end: End, failures: Vec<FailedPart>) -> Outcome {
        let route = Route {
            hops: Vec::new(),
            total_amount: Msat(10),
            fee: Msat(1),
            total_cltv_blocks: 9,
            cost: Cost::default(),
            success: Probability::ONE,
        };
        let is_paid = end == End::Succeeded;
        let settled = is_paid.then_some(SettledPart { attempt_id: 9, route });
        let attempts = failures.len() as u32 + u32::from(is_paid);
        let payer = PaymentOutcome {
            id: PaymentId::new(payment).unwrap(),
            payment_hash: PaymentHash([1; 32]),
            result: if is_paid { Ok(PaymentPreimage([1; 32])) } else { Err(PaymentFailure::Abandoned) },
            rounds: attempts,
            htlcs: attempts,
            parts_at_once: 1,
            settled: settled.into_iter().collect(),
            failures,
        };
        Outcome { payment, latency: Duration::ZERO, end, payer }
    }

    #[test]
    fn a_failure_is_explained_only_by_a_balance_below_it() {
        for (available, explained) in [(Some(999), 1), (Some(1000), 0), (None, 0)] {
            let mut tally = Tally::new(seed());
            if let Some(available) = available {
                tally.refused(seed().payment_hash(4), Scid(7), Msat(1000), Msat(available));
            }
            tally.refused(seed().payment_hash(4), Scid(8), Msat(1000), Msat(0));
            tally.resolved(None, &outcome(4, End::Failed, vec![failure(1000)]));
            let ordinary = tally.payments().ordinary;
            assert_eq!((ordinary.failed, ordinary.failed_by_balance), (1, explained), "{available:?}");
            assert_eq!(ordinary.attempts_unexplained, 1 - explained);
        }
    }

    #[test]
    fn a_payer_short_of_money_is_explained_by_its_own_balance() {
        let local = LocalFailure::UnknownChannel(ChannelRef::Scid(Scid(7)));
        let own = |spendable| FailedPart {
            place: 0,
            cause: FailureCause::Local(local.clone()),
            own_spendable: Some(Msat(spendable)),
            ..failure(50)
        };
        let mut tally = Tally::new(seed());
        tally.resolved(None, &outcome(1, End::Failed, vec![own(49)]));
        tally.resolved(None, &outcome(2, End::Failed, vec![own(50)]));
        tally.resolved(None, &outcome(3, End::Failed, vec![]));
        let ordinary = tally.payments().ordinary;
        assert_eq!((ordinary.failed, ordinary.failed_by_balance, ordinary.attempts_unexplained), (3, 2, 1));
        assert_eq!(tally.payments().failures[NO_ROUTE], 1);
    }

    #[test]
    fn counts_add_up_with_faulty_payments_among_them() {
        let mut tally = Tally::new(seed());
        tally.resolved(None, &outcome(0, End::Succeeded, vec![failure(9)]));
        tally.resolved(Some(FaultKind::FeeShort), &outcome(1, End::FailedAsExpected, vec![failure(9)]));
        tally.refused(seed().payment_hash(2), Scid(7), Msat(9), Msat(8));
        tally.resolved(Some(FaultKind::FeeShort), &outcome(2, End::FailedOtherwise, vec![failure(9)]));
        tally.resolved(Some(FaultKind::FeeShort), &outcome(3, End::FailedOtherwise, vec![failure(9)]));
        let (payments, faulty) = (tally.payments(), tally.faulty());
        assert_eq!((payments.sent, payments.succeeded, payments.failed, payments.attempts), (4, 1, 3, 5));
        assert_eq!(payments.failures.values().sum::<u64>(), payments.failed);
        assert_eq!((faulty.sent, faulty.as_expected, faulty.failed_by_balance), (3, 1, 1));
        assert_eq!(payments.ordinary.sent, 1);
    }
}
