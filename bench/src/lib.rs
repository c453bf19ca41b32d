//! Workloads that the benches and examples share.
//!
//! Owns the peers of a measured forwarder, recorded runs, signed gossip, and the switch between measuring and
//! testing. Does not measure; the benches and examples do.

pub mod gossip;
pub mod line;
mod mode;
pub mod transcript;

pub use mode::is_measuring;
