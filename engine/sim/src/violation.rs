//! Violations found by checkers, and the failure of a run.

use std::fmt;

/// The checkers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Checker {
    /// No millisatoshi is made or lost: balances, commitments, totals.
    Money,
    /// No commitment is signed twice, none is revoked before its successor is signed, nothing is sent again wrongly.
    Commitments,
    /// HTLCs move along their route: offered when irrevocable before, removed when irrevocable behind, once.
    Forwarding,
    /// Each attempt ends once, and payer, payee and forwarders agree.
    Outcomes,
    /// Honest nodes do not refuse, warn or disconnect one another, nor fail a channel.
    NoComplaints,
    /// Everything ends once the faults do.
    Progress,
    /// Closing transactions pay the ledger's balances.
    Closing,
    /// The records bring the node back.
    Restart,
    /// The engine runs, without a panic.
    Alive,
    /// Memory and files grow by no more than a multiple of the bytes received.
    Growth,
}

/// Something that must not happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The checker that found it.
    pub checker: Checker,
    /// Its description, with the values.
    pub what: String,
}

impl Violation {
    pub(crate) fn new(checker: Checker, what: impl Into<String>) -> Violation {
        Violation { checker, what: what.into() }
    }
}

/// A run that found a violation: run the seed again to see it again.
#[derive(Clone, Debug)]
pub struct RunFailure {
    /// The seed of the run.
    pub seed: u64,
    /// The virtual time.
    pub at_ms: u64,
    /// The violation.
    pub violation: Violation,
    /// The last lines of the trace.
    pub tail: Vec<String>,
}

impl fmt::Display for RunFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.tail {
            writeln!(f, "  {line}")?;
        }
        let Violation { checker, what } = &self.violation;
        write!(f, "seed {} at {} ms: {checker:?}: {what}", self.seed, self.at_ms)
    }
}

impl std::error::Error for RunFailure {}

/// Fails with a violation unless a condition holds.
macro_rules! ensure {
    ($condition:expr, $checker:ident, $($what:tt)+) => {
        if !$condition {
            return $crate::violation::violation!($checker, $($what)+);
        }
    };
}

/// An `Err` with a violation.
macro_rules! violation {
    ($checker:ident, $($what:tt)+) => {
        Err($crate::violation::Violation::new($crate::violation::Checker::$checker, format!($($what)+)))
    };
}

pub(crate) use {ensure, violation};
