//! Gossip in (BOLT 7): what the network says about itself, believed only when its signatures are.
//!
//! Owns: the stream of [`GraphChange`]s that accepted gossip makes of the channel graph.

mod change;

pub use change::GraphChange;
