//! The Fulmen engine: what an embedder depends on.

#![forbid(unsafe_code)]

pub mod chain;
pub mod node;
