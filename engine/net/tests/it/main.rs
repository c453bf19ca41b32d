//! Nodes over TCP on the loopback interface: operators' concerns, clients that misbehave, many connections.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

#[allow(dead_code, reason = "the tests with LDK use all of it")]
mod chain;
mod client;
mod connections;
#[allow(dead_code, reason = "the tests with LDK use all of it")]
mod fulmen_node;
mod hostile;
mod load;
mod wait;
