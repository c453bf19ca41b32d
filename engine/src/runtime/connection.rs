//! The name of a connection to a peer.
//!
//! Owns [`Connection`] alone. Does not hold a socket: the embedder maps the name to one.

use fulmen_wire::units::NodeId;

/// One connection to a peer. A peer that reconnects gets another.
///
/// A message for a connection that has ended must not be written to the next one, on which `init` and
/// `channel_reestablish` come first (BOLT 2). So each message that leaves the engine names its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Connection {
    /// The peer.
    pub peer: NodeId,
    /// The connection's number among all of this engine since it started.
    pub number: u64,
}
