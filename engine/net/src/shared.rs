//! State that a network's event loops share, and their reports to the embedder.
//!
//! Owns: the choice of a loop, the `init` of a connection, events and counters. All of it is set at the start or
//! counted by atomics; loops share no table of connections.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use fulmen::Engine;
use fulmen::runtime::Connection;
use fulmen_wire::addresses::{NodeAddress, NodeAddresses};
use fulmen_wire::message::Message;
use fulmen_wire::units::NodeId;

use crate::admission::Admission;
use crate::config::SocksProxy;
use crate::error::{CloseReason, DialError};
use crate::limits::{ConnectionLimits, ConnectionTimeouts};
use crate::mailbox::Mailbox;
use crate::resolver::Resolver;
use crate::socket::ConnectionDirection;

/// A report about connections. It is given on an event loop's thread, which serves no connection until the receiver
/// returns.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum ConnectionEvent {
    /// A node is connected: handshake and `init` are done, and the engine knows it.
    Connected {
        /// The node.
        peer: NodeId,
        /// The engine's name for the connection.
        connection: Connection,
        /// Which side dialled.
        direction: ConnectionDirection,
        /// The other end of the TCP connection: the node, or the proxy before it.
        remote: SocketAddr,
        /// This node's address as the peer sees it, if its `init` says so and the address is a public one.
        our_address: Option<NodeAddress>,
    },
    /// The connection to a node has ended.
    Disconnected {
        /// The node.
        peer: NodeId,
        /// The engine's name for the connection.
        connection: Connection,
        /// Why.
        reason: CloseReason,
    },
    /// Dialling a node failed.
    DialFailed {
        /// The node.
        peer: NodeId,
        /// Why.
        error: DialError,
        /// The wait before it is dialled again, if it is one to stay connected with.
        retry_after: Option<Duration>,
    },
}

/// Counts since the start. Those of connections that never became usable are all that is reported of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct NetStats {
    /// Authenticated connections at present.
    pub connections: usize,
    /// Inbound TCP connections accepted.
    pub accepted: u64,
    /// Those closed at once, since their address has as many as it may.
    pub over_ip_limit: u64,
    /// Unfinished handshakes displaced by newer ones.
    pub displaced: u64,
    /// Handshakes that were not finished in time.
    pub timed_out: u64,
    /// Authenticated connections closed for the limit on all of them.
    pub over_limit: u64,
    /// Other connections that ended before they were usable.
    pub failed: u64,
}

/// Counters behind [`NetStats`].
#[derive(Debug, Default)]
pub(crate) struct NetCounters {
    accepted: AtomicU64,
    over_ip_limit: AtomicU64,
    displaced: AtomicU64,
    timed_out: AtomicU64,
    over_limit: AtomicU64,
    failed: AtomicU64,
}

impl NetCounters {
    pub(crate) fn count_accepted(&self) {
        self.accepted.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn count_over_origin(&self) {
        self.over_ip_limit.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a connection that ended before it was usable.
    pub(crate) fn count_refused(&self, reason: &CloseReason) {
        let counter = match reason {
            CloseReason::Displaced(_) => &self.displaced,
            CloseReason::HandshakeTimeout(_) => &self.timed_out,
            CloseReason::Full(_) => &self.over_limit,
            _ => &self.failed,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// The state that loops share.
pub(crate) struct Shared {
    pub(crate) limits: ConnectionLimits,
    pub(crate) timeouts: ConnectionTimeouts,
    pub(crate) proxy: Option<SocksProxy>,
    pub(crate) mailboxes: Vec<Mailbox>,
    pub(crate) admission: Arc<Admission>,
    pub(crate) resolver: Resolver,
    pub(crate) counters: NetCounters,
    pub(crate) on_event: Box<dyn Fn(ConnectionEvent) + Send + Sync>,
    /// The loops that were given an accepted socket so far.
    pub(crate) dealt: AtomicUsize,
}

impl Shared {
    /// The loop for the next accepted socket, until its peer is known.
    pub(crate) fn next_loop(&self) -> usize {
        self.dealt.fetch_add(1, Ordering::Relaxed) % self.mailboxes.len()
    }

    /// The loop of a node's connections. The bytes are those of a point, which nobody chooses freely.
    pub(crate) fn loop_of(&self, peer: NodeId) -> usize {
        let [.., a, b, c, d] = peer.0;
        u32::from_be_bytes([a, b, c, d]) as usize % self.mailboxes.len()
    }

    /// The unfinished inbound handshakes that each loop may have.
    pub(crate) fn handshakes_per_loop(&self) -> usize {
        (self.limits.handshakes_max / self.mailboxes.len()).max(1)
    }

    /// Our `init`, with the peer's address as we see it, if the peer dialled (BOLT 1 `remote_addr`).
    pub(crate) fn init(&self, engine: &Engine, remote: Option<SocketAddr>) -> Vec<u8> {
        let bytes = engine.init();
        match (Message::decode(&bytes), remote) {
            (Ok(Message::Init(mut init)), Some(remote)) => {
                init.remote_addr = Some(NodeAddresses::new(&[descriptor(remote)]).as_bytes().to_vec());
                Message::from(init).encode()
            }
            _ => bytes,
        }
    }

    /// Our address as a peer's `init` tells it, unless it is of a private network.
    pub(crate) fn our_address(&self, init: &[u8]) -> Option<NodeAddress> {
        let Ok(Message::Init(init)) = Message::decode(init) else { return None };
        let address = NodeAddresses::from_bytes(&init.remote_addr?).ok()?.iter().next()?;
        let is_public = match &address {
            NodeAddress::Ipv4 { address, .. } => {
                !(address.is_private()
                    || address.is_loopback()
                    || address.is_link_local()
                    || address.is_unspecified())
            }
            NodeAddress::Ipv6 { address, .. } => {
                !(address.is_loopback() || address.is_unique_local() || address.is_unicast_link_local())
            }
            _ => true,
        };
        is_public.then_some(address)
    }

    pub(crate) fn stats(&self) -> NetStats {
        let NetCounters { accepted, over_ip_limit, displaced, timed_out, over_limit, failed } =
            &self.counters;
        let [accepted, over_ip_limit, displaced, timed_out, over_limit, failed] =
            [accepted, over_ip_limit, displaced, timed_out, over_limit, failed]
                .map(|counter| counter.load(Ordering::Relaxed));
        let connections = self.admission.connections();
        NetStats { connections, accepted, over_ip_limit, displaced, timed_out, over_limit, failed }
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("loops", &self.mailboxes.len()).finish_non_exhaustive()
    }
}

fn descriptor(address: SocketAddr) -> NodeAddress {
    let port = address.port();
    match address.ip().to_canonical() {
        IpAddr::V4(address) => NodeAddress::Ipv4 { address, port },
        IpAddr::V6(address) => NodeAddress::Ipv6 { address, port },
    }
}
