//! A simulator that drives the production code through bad weather, and checkers that watch it.
//!
//! Owns: virtual time, links that delay and break, a chain without consensus, random traffic, and the checkers. Drives
//! [`fulmen::node::Node`] through its public interface alone, so that whatever it finds is a fault of the engine (or of
//! the checkers). Does not replace any part of the engine.
//!
//! [`run`] is the only call: a seed stands for a whole run, and running it again gives the same run to the byte, so that
//! a seed and a commit replay any failure. A run opens channels between a few nodes; pays, in one part or several, on
//! good routes and flawed ones, while links break and lose what is under way, messages and blocks are late, fee rates
//! change and channels close; heals; and closes what is left. See [`Checker`] for what is watched.
//!
//! A disk that fails is to be put where records are made durable, in `store`.

#![forbid(unsafe_code)]

mod agenda;
mod chain;
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

pub use disk::{SimDisk, Survival};
pub use scenario::{Options, Report, run};
pub use violation::{Checker, Failure, Violation};
