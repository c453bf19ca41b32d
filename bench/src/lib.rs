//! What the benches share.
//!
//! Owns the nodes that a measured forwarder stands between. Does not measure: the benches and examples do.

pub mod line;
