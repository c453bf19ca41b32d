//! The settings of a network.
//!
//! Owns the settings with their defaults. Checks nothing: [`PeerNetwork::bind`](crate::PeerNetwork::bind) does.

use std::net::SocketAddr;

use crate::limits::{ConnectionLimits, ConnectionTimeouts};
use crate::socks::ProxyLogin;

/// The settings of a [`PeerNetwork`](crate::PeerNetwork).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetConfig {
    /// Addresses to listen on; none for a node that only dials.
    pub listen: Vec<SocketAddr>,
    /// Threads that serve connections, at least one. A thread can pass on some hundred thousand messages a second, so
    /// one is enough for an engine with up to eight cores.
    pub loops: usize,
    /// A SOCKS5 proxy, such as Tor's. Without one, onion services cannot be dialled.
    pub proxy: Option<SocksProxy>,
    /// Bounds in bytes and number.
    pub limits: ConnectionLimits,
    /// Bounds in time.
    pub timeouts: ConnectionTimeouts,
}

/// A SOCKS5 proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocksProxy {
    /// Where the proxy listens.
    pub address: SocketAddr,
    /// Which nodes are dialled by it.
    pub scope: ProxyScope,
    /// The login, if the proxy asks for one or keeps the streams of different ones apart.
    pub login: Option<ProxyLogin>,
}

/// Which nodes are dialled by a proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ProxyScope {
    /// Onion services.
    OnionServices,
    /// All nodes. Names are resolved by the proxy, so that nothing shows which nodes are dialled.
    Everything,
}

impl Default for NetConfig {
    fn default() -> NetConfig {
        NetConfig {
            listen: Vec::new(),
            loops: 1,
            proxy: None,
            limits: ConnectionLimits::default(),
            timeouts: ConnectionTimeouts::default(),
        }
    }
}
