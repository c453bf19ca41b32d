//! The channel graph and path-finding over it (BOLT 7, "HTLC Fees" and "Recommendations for Routing").
//!
//! Owns the public view of the network ([`ChannelGraph`]: nodes, channels, capacities and policies), its layout for
//! searching ([`snapshot`], [`live`]), the search for routes ([`path`]) with scores of channels ([`scoring`]), and
//! the gossip that the graph is made of ([`gossip`]). Knows nothing of channel state, secrets or the chain, does no
//! I/O, and reads no clock.
//!
//! Invariant: every answer is a function of the arguments alone. Visible order comes from ids, never from hash maps
//! or the order of arrival.

mod bit_set;
mod cost;
pub mod gossip;
mod graph;
pub mod live;
pub mod path;
pub mod scoring;
pub mod snapshot;

pub use graph::{ChannelGraph, DirectedChannel, Direction, GraphChannel, GraphError, Policy};
