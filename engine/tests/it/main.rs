//! The one integration binary of the engine.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod chain_conformance;
mod kernel_transactions;
mod ldk;
mod runtime;
mod simulation;
mod store;
mod tidy;
