//! `loadgen stress`: one forwarder in a process of its own, on a disk, between many peers that pay each other over it,
//! killed again and again.
//!
//! Owns: the course of it, the load, the moments of death, and the checks after each. The peers live in this process and
//! survive everything; the forwarder has nothing but its store.
//!
//! After each death the forwarder is started again on its store, misses a block that was mined meanwhile, is connected to
//! all peers, and no new payments are made until every HTLC is resolved; it may be killed again before that. Then every
//! channel's balance must be, at both its ends and to the millisatoshi, what the payments made it. Of what the forwarder
//! had written into the pipe when it died, either all is delivered or nothing.
//!
//! Invariant: a check that fails is a finding and makes the run fail; nothing is repaired.

mod course;
mod end;
mod forwarder;
mod frame;
mod life;
mod report;

pub(crate) use course::run;
pub(crate) use forwarder::run as run_forwarder;

use std::io;

use thiserror::Error;

use crate::report::WriteError;
use crate::treasury::TreasuryError;

/// Why a run came to nothing.
#[derive(Debug, Error)]
pub(crate) enum StressError {
    /// The chain's side failed.
    #[error(transparent)]
    Treasury(#[from] TreasuryError),
    /// The report cannot be written.
    #[error(transparent)]
    Report(#[from] WriteError),
    /// The forwarder's process cannot be had, or ended by itself.
    #[error("{when}: the forwarder's process: {cause}")]
    Forwarder {
        /// What was going on.
        when: &'static str,
        /// What is wrong.
        cause: io::Error,
    },
    /// There is no place for its store.
    #[error("no directory for the forwarder's store: {0}; give --store a directory you may write to")]
    Store(io::Error),
    /// Nothing goes on any more.
    #[error("{when}: {what} after {seconds} s; this is a bug")]
    Stalled {
        /// What was going on.
        when: &'static str,
        /// What is missing.
        what: String,
        /// How long that was waited for.
        seconds: u64,
    },
}
