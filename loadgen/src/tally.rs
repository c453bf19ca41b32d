//! What became of the payments: counted, explained, and kept for the digest.
//!
//! Owns: the counts of the report, and the proof that a failure was a matter of balance: the refusing node itself says
//! what it could have sent at that moment, and that is held against what the payer asked. The payer never sees it.
//!
//! Invariant: each payment is counted once; a failure is explained only by a number that is really too small.

use std::collections::{BTreeMap, HashMap};

use fulmen_proto::onion::FailureCode;
use fulmen_wire::units::{Msat, PaymentHash, Scid};

use crate::digest::Fate;
use crate::fault::FaultKind;
use crate::report::{Faulty, FaultyKind, Ordinary, Payments};
use crate::seed::Seed;
use crate::sender::{End, FailedAttempt, Outcome};

/// The name of a failed payment for which not one attempt could be made.
const NO_ROUTE: &str = "no_route";

/// What became of the payments.
#[derive(Debug)]
pub(crate) struct Tally {
    seed: Seed,
    succeeded: u64,
    attempts: u64,
    /// By payment number, so that the digest does not depend on the order they ended in.
    fates: BTreeMap<u64, Fate>,
    failures: BTreeMap<String, u64>,
    attempt_failures: BTreeMap<String, u64>,
    faulty: BTreeMap<&'static str, FaultyKind>,
    ordinary_succeeded: u64,
    ordinary_succeeded_at_once: u64,
    /// Ordinary payments that failed, and every failed attempt of an ordinary payment.
    ordinary_failed: Vec<u64>,
    ordinary_attempts: Vec<(u64, FailedAttempt)>,
    /// What each refusing node could have sent: the least it said for one payment, channel and amount.
    refusals: HashMap<(PaymentHash, Scid, Msat), Msat>,
}

impl Tally {
    /// Nothing counted yet.
    pub(crate) fn new(seed: Seed) -> Tally {
        Tally {
            seed,
            succeeded: 0,
            attempts: 0,
            fates: BTreeMap::new(),
            failures: BTreeMap::new(),
            attempt_failures: BTreeMap::new(),
            faulty: BTreeMap::new(),
            ordinary_succeeded: 0,
            ordinary_succeeded_at_once: 0,
            ordinary_failed: Vec::new(),
            ordinary_attempts: Vec::new(),
            refusals: HashMap::new(),
        }
    }

    /// A node refused to forward `amount` over `scid`, where it could have sent `available`.
    pub(crate) fn refused(&mut self, payment_hash: PaymentHash, scid: Scid, amount: Msat, available: Msat) {
        let least = self.refusals.entry((payment_hash, scid, amount)).or_insert(available);
        *least = available.min(*least);
    }

    /// A payment is over.
    pub(crate) fn resolved(&mut self, fault: Option<FaultKind>, outcome: Outcome) {
        self.attempts += u64::from(outcome.attempts);
        for failure in &outcome.failures {
            *self.attempt_failures.entry(failure.name.clone()).or_default() += 1;
        }
        let succeeded = matches!(outcome.end, End::Succeeded { .. });
        let last = outcome.failures.last();
        if succeeded {
            self.succeeded += 1;
        } else {
            let name = last.map_or(NO_ROUTE, |failure| failure.name.as_str());
            *self.failures.entry(name.to_owned()).or_default() += 1;
        }
        match fault {
            Some(kind) => {
                let counts = self.faulty.entry(kind.name()).or_default();
                counts.sent += 1;
                counts.as_expected += u64::from(outcome.end == End::FailedAsExpected);
            }
            None => {
                self.ordinary_succeeded += u64::from(succeeded);
                self.ordinary_succeeded_at_once += u64::from(succeeded && outcome.attempts == 1);
                if !succeeded {
                    self.ordinary_failed.push(outcome.payment);
                }
                let failures = outcome.failures.iter().cloned();
                self.ordinary_attempts.extend(failures.map(|failure| (outcome.payment, failure)));
            }
        }
        let fate = Fate {
            succeeded,
            attempts: outcome.attempts,
            code: last.filter(|_| !succeeded).and_then(|failure| failure.code).map_or(0, FailureCode::to_u16),
            hop: match &outcome.end {
                End::Succeeded { hops, .. } => *hops,
                _ => last.map_or(0, |failure| failure.node),
            },
            sent: outcome.sent(),
        };
        self.fates.insert(outcome.payment, fate);
    }

    /// How each payment ended, by its number.
    pub(crate) fn fates(&self) -> &BTreeMap<u64, Fate> {
        &self.fates
    }

    /// The payments of the report. To be asked when no refusal is still on its way.
    pub(crate) fn payments(&self) -> Payments {
        let sent = self.fates.len() as u64;
        Payments {
            sent,
            succeeded: self.succeeded,
            failed: sent - self.succeeded,
            attempts: self.attempts,
            failures: self.failures.clone(),
            attempt_failures: self.attempt_failures.clone(),
            ordinary: self.ordinary(),
        }
    }

    /// The payments made to fail, by kind.
    pub(crate) fn faulty(&self) -> Faulty {
        Faulty {
            sent: self.faulty.values().map(|kind| kind.sent).sum(),
            as_expected: self.faulty.values().map(|kind| kind.as_expected).sum(),
            kinds: self.faulty.clone(),
        }
    }

    fn ordinary(&self) -> Ordinary {
        let unexplained: Vec<u64> = self
            .ordinary_attempts
            .iter()
            .filter(|(payment, failure)| !self.is_explained(*payment, failure))
            .map(|(payment, _)| *payment)
            .collect();
        let failed = self.ordinary_failed.len() as u64;
        let by_balance = self.ordinary_failed.iter().filter(|payment| !unexplained.contains(payment)).count();
        Ordinary {
            sent: self.ordinary_succeeded + failed,
            succeeded: self.ordinary_succeeded,
            succeeded_at_once: self.ordinary_succeeded_at_once,
            failed,
            failed_by_balance: by_balance as u64,
            attempts_failed_by_balance: (self.ordinary_attempts.len() - unexplained.len()) as u64,
            attempts_unexplained: unexplained.len() as u64,
        }
    }

    /// Whether the failing channel really had too little.
    fn is_explained(&self, payment: u64, failure: &FailedAttempt) -> bool {
        if let Some(spendable) = failure.own_spendable {
            return spendable < failure.amount;
        }
        let Some(scid) = failure.channel.filter(|_| failure.is_balance()) else { return false };
        let key = (self.seed.payment_hash(payment), scid, failure.amount);
        self.refusals.get(&key).is_some_and(|available| *available < failure.amount)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn seed() -> Seed {
        Seed::new(1, b"")
    }

    fn failure(amount: u64) -> FailedAttempt {
        FailedAttempt {
            node: 2,
            code: Some(FailureCode::TemporaryChannelFailure),
            name: "temporary_channel_failure".to_owned(),
            channel: Some(Scid(7)),
            amount: Msat(amount),
            own_spendable: None,
            intended: false,
        }
    }

    fn outcome(payment: u64, end: End, failures: Vec<FailedAttempt>) -> Outcome {
        let attempts = failures.len() as u32 + u32::from(matches!(end, End::Succeeded { .. }));
        Outcome { payment, attempts, latency: Duration::ZERO, end, failures }
    }

    #[test]
    fn a_failure_is_explained_only_by_a_balance_below_it() {
        for (available, explained) in [(Some(999), 1), (Some(1000), 0), (None, 0)] {
            let mut tally = Tally::new(seed());
            if let Some(available) = available {
                tally.refused(seed().payment_hash(4), Scid(7), Msat(1000), Msat(available));
            }
            tally.refused(seed().payment_hash(4), Scid(8), Msat(1000), Msat(0));
            tally.resolved(None, outcome(4, End::Failed, vec![failure(1000)]));
            let ordinary = tally.payments().ordinary;
            assert_eq!((ordinary.failed, ordinary.failed_by_balance), (1, explained), "{available:?}");
            assert_eq!(ordinary.attempts_unexplained, 1 - explained);
        }
    }

    #[test]
    fn a_payer_short_of_money_is_explained_by_its_own_balance() {
        let own = |spendable| FailedAttempt {
            node: 0,
            code: None,
            own_spendable: Some(Msat(spendable)),
            ..failure(50)
        };
        let mut tally = Tally::new(seed());
        tally.resolved(None, outcome(1, End::Failed, vec![own(49)]));
        tally.resolved(None, outcome(2, End::Failed, vec![own(50)]));
        tally.resolved(None, outcome(3, End::Failed, vec![]));
        let ordinary = tally.payments().ordinary;
        assert_eq!((ordinary.failed, ordinary.failed_by_balance, ordinary.attempts_unexplained), (3, 2, 1));
        assert_eq!(tally.payments().failures[NO_ROUTE], 1);
    }

    #[test]
    fn counts_add_up_with_faulty_payments_among_them() {
        let mut tally = Tally::new(seed());
        tally.resolved(None, outcome(0, End::Succeeded { hops: 3, sent: Msat(10) }, vec![failure(9)]));
        tally.resolved(Some(FaultKind::FeeShort), outcome(1, End::FailedAsExpected, vec![failure(9)]));
        tally.resolved(Some(FaultKind::FeeShort), outcome(2, End::FailedOtherwise, vec![failure(9)]));
        let (payments, faulty) = (tally.payments(), tally.faulty());
        assert_eq!((payments.sent, payments.succeeded, payments.failed, payments.attempts), (3, 1, 2, 4));
        assert_eq!(payments.failures.values().sum::<u64>(), payments.failed);
        assert_eq!((faulty.sent, faulty.as_expected), (2, 1));
        assert_eq!(payments.ordinary.sent, 1);
    }
}
