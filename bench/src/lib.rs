//! What the benches share.
//!
//! Owns the nodes that a measured forwarder stands between, and signed gossip to take in. Does not measure: the benches and examples do.

pub mod gossip;
pub mod line;
pub mod transcript;
