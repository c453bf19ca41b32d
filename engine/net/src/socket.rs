//! One connection as an event loop holds it.
//!
//! Owns: the socket's stage, what it waits for, and until when. Does not know other connections.
//!
//! Invariant: a connection that the engine knows is in the stage `Open`.

use std::net::SocketAddr;
use std::time::Instant;

use fulmen::runtime::Connection;
use fulmen_wire::units::NodeId;
use mio::net::TcpStream;

use crate::admission::{ConnectionPermit, OriginPermit};
use crate::limits::{ConnectionLimits, ConnectionTimeouts};
use crate::link::Link;
use crate::opening::Opening;
use crate::outbox::Outbox;

/// Which side dialled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ConnectionDirection {
    /// The peer.
    Inbound,
    /// This node.
    Outbound,
}

/// A socket with its stage.
#[derive(Debug)]
pub(crate) struct PeerSocket {
    pub(crate) stream: TcpStream,
    pub(crate) direction: ConnectionDirection,
    /// The other end: the peer, or the proxy before it.
    pub(crate) remote: SocketAddr,
    /// The node, as far as it is known: from the start if this side dialled.
    pub(crate) peer: Option<NodeId>,
    pub(crate) stage: Stage,
    pub(crate) outbox: Outbox,
    /// When the connection was begun; once it is open, when that was.
    pub(crate) since: Instant,
    /// When the socket last accepted bytes, or was first given some.
    pub(crate) progress: Instant,
    /// The time of this socket's entry among the timers. Other entries are stale.
    pub(crate) armed: Option<Instant>,
    /// Whether the socket may have bytes to read.
    pub(crate) is_readable: bool,
    /// Whether the stream ends behind the bytes that wait.
    pub(crate) is_read_closed: bool,
    /// Whether the socket stands in one of the loop's lists.
    pub(crate) is_listed: bool,
    pub(crate) origin: Option<OriginPermit>,
    pub(crate) permit: Option<ConnectionPermit>,
}

/// How far a connection is.
#[derive(Debug)]
pub(crate) enum Stage {
    /// TCP is connecting.
    Connecting(Box<Opening>, Vec<u8>),
    /// Proxy and handshake.
    Opening(Box<Opening>),
    /// Authenticated; the peer's `init` is awaited.
    Init(Box<Link>),
    /// The engine knows it.
    Open(Box<Link>, Connection),
    /// It has ended for everyone else. The bytes that wait are written, then the peer is to close its side.
    Lingering {
        /// Whether the peer was told that nothing follows.
        is_shut: bool,
    },
}

/// A deadline of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Deadline {
    Dial,
    Handshake,
    Ping,
    Pong,
    Stalled,
    Linger,
}

/// How long a peer may take to accept the last bytes and close its side.
const LINGER: std::time::Duration = std::time::Duration::from_secs(2);

impl PeerSocket {
    pub(crate) fn new(
        stream: TcpStream,
        direction: ConnectionDirection,
        remote: SocketAddr,
        stage: Stage,
        now: Instant,
    ) -> PeerSocket {
        PeerSocket {
            stream,
            direction,
            remote,
            peer: None,
            stage,
            outbox: Outbox::default(),
            since: now,
            progress: now,
            armed: None,
            is_readable: false,
            is_read_closed: false,
            is_listed: false,
            origin: None,
            permit: None,
        }
    }

    /// Whether the peer is not known yet.
    pub(crate) const fn is_unauthenticated(&self) -> bool {
        matches!(self.stage, Stage::Connecting(..) | Stage::Opening(_))
    }

    /// The engine's name for it.
    pub(crate) const fn connection(&self) -> Option<Connection> {
        match &self.stage {
            Stage::Open(_, connection) => Some(*connection),
            _ => None,
        }
    }

    /// Whether input waits in the socket until the engine or the peer has made room.
    pub(crate) fn is_paused(&self, limits: &ConnectionLimits) -> bool {
        let is_refused = matches!(&self.stage, Stage::Open(link, _) if !link.refused.is_empty());
        is_refused || self.outbox.unwritten() > limits.unwritten_bytes_max
    }

    /// The next time at which something is to be done without an event.
    pub(crate) fn deadline(&self, timeouts: &ConnectionTimeouts) -> (Instant, Deadline) {
        let stalled = (self.progress + timeouts.stalled_write, Deadline::Stalled);
        let next = match &self.stage {
            Stage::Connecting(..) => return (self.since + timeouts.dial, Deadline::Dial),
            Stage::Opening(_) | Stage::Init(_) => {
                return (self.since + timeouts.handshake, Deadline::Handshake);
            }
            Stage::Lingering { .. } => return (self.since + LINGER, Deadline::Linger),
            Stage::Open(link, _) => match link.pinged {
                Some(pinged) => (pinged + timeouts.pong, Deadline::Pong),
                None => (link.heard + timeouts.ping_after, Deadline::Ping),
            },
        };
        if self.outbox.is_empty() || stalled.0 > next.0 { next } else { stalled }
    }
}

/// The age at which a connection counts as settled in [`keeps_newer`].
const SIMULTANEOUS: std::time::Duration = std::time::Duration::from_secs(5);

/// Whether a second connection of a node takes the place of the first, which stands since `age`.
///
/// It does: a peer that dials again has usually lost the first, and this side has not noticed yet. The exception is two
/// nodes that dial each other at the same time, where each would end the connection that the other keeps: of two young
/// connections in opposite directions, both nodes keep the one that the node with the lower id dialled.
pub(crate) fn keeps_newer(
    ours: NodeId,
    peer: NodeId,
    newer: ConnectionDirection,
    older: ConnectionDirection,
    age: std::time::Duration,
) -> bool {
    if newer == older || age >= SIMULTANEOUS {
        return true;
    }
    (newer == ConnectionDirection::Outbound) == (ours < peer)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::ConnectionDirection::{Inbound, Outbound};
    use super::*;

    #[test]
    fn two_nodes_that_dial_each_other_keep_the_same_connection() {
        let (low, high) = (NodeId([2; 33]), NodeId([3; 33]));
        let young = Duration::from_millis(10);
        // The connection that `low` dialled is kept, whichever finished first, by both ends.
        for low_dialled_is_newer in [true, false] {
            let (newer, older) = if low_dialled_is_newer { (Outbound, Inbound) } else { (Inbound, Outbound) };
            assert_eq!(keeps_newer(low, high, newer, older, young), low_dialled_is_newer);
            let (newer, older) = if low_dialled_is_newer { (Inbound, Outbound) } else { (Outbound, Inbound) };
            assert_eq!(keeps_newer(high, low, newer, older, young), low_dialled_is_newer);
        }
        assert!(keeps_newer(low, high, Inbound, Inbound, young), "the peer dialled again");
        assert!(keeps_newer(low, high, Inbound, Outbound, SIMULTANEOUS), "the older one is settled");
    }
}
