//! A simulator that drives the production code through faults and attacks, and checkers that watch it.
//!
//! Owns: virtual time, links that delay and break, a chain without consensus, random traffic, and the checkers. Drives
//! [`fulmen::driver::ShardDriver`] and [`fulmen::Engine`] through their public interfaces alone, so that every
//! violation is a bug of the engine (or of the checkers). Does not replace any part of the engine.
//!
//! Three entry points:
//!
//! - [`run`] simulates a network drawn from a seed. The same seed gives the same run to the byte, so that a seed and
//!   a commit replay any failure. A run opens channels between a few nodes; pays, in one part or several, on good
//!   routes and flawed ones, while links break and lose messages, messages and blocks are late, fee rates change and
//!   channels close; heals; and closes the rest. See [`Checker`] for the invariants.
//!   [`run_choices`] takes the choices from a fuzzer's bytes instead.
//! - [`CrashMatrix`] kills a routing node on a [`SimDisk`] at every operation of the disk.
//! - [`adversary`] attacks a routing node with scripts of hostile actions, which shrink when an invariant breaks.
//!
//! ```
//! let report = fulmen_sim::run(1, fulmen_sim::Options::default())?;
//! assert!(report.messages > 0);
//! # Ok::<(), Box<fulmen_sim::RunFailure>>(())
//! ```

#![forbid(unsafe_code)]

pub mod adversary;
mod agenda;
mod chain;
mod commitments;
mod crash;
mod disk;
mod draw;
mod events;
mod flow;
mod ledger;
mod machine;
mod network;
mod pay;
mod payment;
mod scenario;
mod store;
mod trace;
mod violation;

pub use crash::{CrashMatrix, CrashOutcome, CrashPoint, ScriptLength};
pub use disk::{SimDisk, Survival};
pub use scenario::{Options, Report, run, run_choices};
pub use violation::{Checker, RunFailure, Violation};
