//! Live LDK over TCP, in this process with a runtime of its own; its stand-ins are those of the engine's tests.
//!
//! A binary apart from the other tests, since LDK's generic code takes minutes to compile.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

#[path = "../it/chain.rs"]
mod chain;
#[path = "../it/fulmen_node.rs"]
mod fulmen_node;
mod line;
#[allow(dead_code, reason = "the engine's tests use all of it")]
mod memory;
mod node;
#[path = "../it/wait.rs"]
mod wait;
