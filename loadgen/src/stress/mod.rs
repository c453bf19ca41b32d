//! `loadgen stress`: one forwarder in a separate process, on a disk, between many peers that pay each other over it,
//! killed again and again.
//!
//! Owns: the stages, the load, the moments of the kills, and the checks after each. The peers live in this process and
//! survive everything; the forwarder has nothing but its store.
//!
//! After each kill the forwarder is started again on its store, misses a block that was mined meanwhile, is connected
//! to all peers, and no new payments are made until every HTLC is resolved; it may be killed again before that. Then
//! every channel's balance must equal, at both its ends and to the millisatoshi, the sum of its payments. The frames
//! that the forwarder had written into the pipe when it died are delivered all or not at all.
//!
//! Invariant: a check that fails is a finding and makes the run fail; nothing is repaired.

mod course;
mod deliveries;
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
        /// The stage.
        when: &'static str,
        /// The error.
        cause: io::Error,
    },
    /// There is no place for its store.
    #[error("no directory for the forwarder's store: {0}; give --store a directory you may write to")]
    Store(io::Error),
    /// Nothing goes on any more.
    #[error("{when}: {what} after {seconds} s; this is a bug")]
    Stalled {
        /// The stage.
        when: &'static str,
        /// The condition that was not met.
        what: String,
        /// How long that was waited for.
        seconds: u64,
    },
}
