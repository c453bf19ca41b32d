//! Errors of connections, and why they end.
//!
//! Owns one enum for each operation, with the offending values. The engine's own errors stand inside.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::time::Duration;

use fulmen::runtime::{ConnectError, ReceiveError};
use fulmen_proto::noise::{FrameError, HandshakeError};
use fulmen_wire::units::NodeId;

use crate::limits::LimitsError;
use crate::socks::SocksError;

/// Why a network does not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NetStartError {
    /// The limits admit no peer.
    #[error(transparent)]
    Limits(#[from] LimitsError),
    /// The process may open fewer files than the limits ask for.
    #[error(
        "the limits take {needed} file descriptors and the process may have {limit}: raise it (ulimit -n)"
    )]
    Descriptors {
        /// The descriptors needed, those of files included.
        needed: u64,
        /// `RLIMIT_NOFILE`, the soft limit.
        limit: u64,
    },
    /// An address cannot be listened on: another process has the port, or the address is not this machine's.
    #[error("cannot listen on {address}: {error}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The system's error.
        #[source]
        error: io::Error,
    },
    /// The system gives no event queue.
    #[error("cannot wait for sockets: {0}")]
    Poll(#[source] io::Error),
    /// A thread cannot be started.
    #[error("cannot start a thread: {0}")]
    Thread(#[source] io::Error),
    /// The network runs already, or has ended.
    #[error("the network has been started before")]
    Started,
}

/// Why a connection ended, or never came about.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CloseReason {
    /// The peer closed it.
    #[error("the peer closed the connection")]
    ClosedByPeer,
    /// The socket failed.
    #[error("the socket failed: {0}")]
    Socket(ErrorKind),
    /// The handshake failed.
    #[error(transparent)]
    Handshake(#[from] HandshakeError),
    /// A message's tag is wrong.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The proxy refused.
    #[error(transparent)]
    Proxy(#[from] SocksError),
    /// The system gave no randomness for a key.
    #[error("the system gives no randomness")]
    Randomness,
    /// The handshake, or the peer's `init`, took too long.
    #[error("the peer has not finished its handshake and init within {0:?}")]
    HandshakeTimeout(Duration),
    /// The peer's `init` is not acceptable.
    #[error(transparent)]
    Init(ConnectError),
    /// A message was not acceptable.
    #[error(transparent)]
    Message(ReceiveError),
    /// The peer did not answer a `ping`.
    #[error("no answer to a ping within {0:?}")]
    Unresponsive(Duration),
    /// The peer accepts no bytes.
    #[error("the peer has accepted nothing for {0:?}")]
    Stalled(Duration),
    /// The peer accepts fewer bytes than there are for it.
    #[error("{unwritten} bytes wait for the peer, and {cut_off} may")]
    NotReading {
        /// The bytes that wait.
        unwritten: usize,
        /// `unwritten_bytes_cut_off`.
        cut_off: usize,
    },
    /// A newer handshake took its place before it was finished.
    #[error("displaced by a newer connection: {0} had unfinished handshakes")]
    Displaced(usize),
    /// There are as many connections as may be.
    #[error("{0} connections exist already")]
    Full(usize),
    /// Another connection of the same node is kept.
    #[error("another connection of the same node is kept")]
    Replaced,
    /// Both ends have this node's key.
    #[error("the peer has this node's own key")]
    OwnNode,
    /// The engine ended it.
    #[error("the engine ended the connection")]
    Engine,
    /// The embedder ended it.
    #[error("disconnected on request")]
    Requested,
    /// The network shuts down.
    #[error("the network shuts down")]
    ShutDown,
}

/// Why a node could not be dialled.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DialError {
    /// The node id is no point of the curve.
    #[error("{0} is no point of secp256k1")]
    NodeId(NodeId),
    /// It is this node.
    #[error("the address is this node's own")]
    OwnNode,
    /// It is connected already.
    #[error("already connected")]
    AlreadyConnected,
    /// An onion service is reached by a proxy only.
    #[error("{0} is an onion service, and no proxy is configured")]
    NoProxy(String),
    /// The name does not resolve.
    #[error("cannot resolve {name}: {error}")]
    Resolve {
        /// The name.
        name: String,
        /// The system's error, in words.
        error: String,
    },
    /// No TCP connection came about.
    #[error("cannot connect to {address}: {error}")]
    Connect {
        /// The address, or the proxy's.
        address: SocketAddr,
        /// The kind of the system's error.
        error: ErrorKind,
    },
    /// Nothing happened in time.
    #[error("no connection within {0:?}")]
    TimedOut(Duration),
    /// A TCP connection came about and ended before the peer's `init`.
    #[error("{0}")]
    Closed(CloseReason),
}
