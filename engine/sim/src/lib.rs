//! A simulator that drives the production code through bad weather, and checkers that watch it.
//!
//! Owns: virtual time, links that delay and break, a chain without consensus, random traffic, and the checkers. Drives
//! [`fulmen::driver::ShardDriver`] and [`fulmen::Engine`] through their public interfaces alone, so that whatever it finds is a fault
//! of the engine (or of the checkers). Does not replace any part of the engine.
//!
//! [`run`] is one entrance: a seed stands for a whole run, and running it again gives the same run to the byte, so that
//! a seed and a commit replay any failure. A run opens channels between a few nodes; pays, in one part or several, on
//! good routes and flawed ones, while links break and lose what is under way, messages and blocks are late, fee rates
//! change and channels close; heals; and closes what is left. See [`Checker`] for what is watched.
//!
//! [`CrashMatrix`] is the other entrance: a routing node on a [`SimDisk`], killed at every point at which it touches it.

#![forbid(unsafe_code)]

mod agenda;
mod chain;
mod crash;
mod dance;
mod disk;
mod draw;
mod events;
mod flow;
mod ledger;
mod network;
mod pay;
mod scenario;
mod store;
mod trace;
mod violation;

pub use crash::{CrashMatrix, CrashPoint, Length, Outcome};
pub use disk::{SimDisk, Survival};
pub use scenario::{Options, Report, run};
pub use violation::{Checker, Failure, Violation};
