//! Outbound connections up to the handshake.
//!
//! Owns: the plans of nodes to dial, addresses and names, the proxy, and dialling again. Names are resolved on the
//! thread of [`crate::resolver`].
//!
//! Invariant: a node is dialled once at a time, and not while it is connected.

use std::cmp::Reverse;
use std::io;
use std::net::SocketAddr;
use std::time::Instant;

use fulmen_wire::units::NodeId;
use mio::net::TcpStream;
use rand::TryRng;
use rand::rngs::SysRng;
use secp256k1::PublicKey;

use super::{EventLoop, Timer};
use crate::address::{Host, PeerAddress};
use crate::config::ProxyScope;
use crate::error::{CloseReason, DialError};
use crate::opening::Opening;
use crate::redial::DialPlan;
use crate::resolver::Lookup;
use crate::shared::ConnectionEvent;
use crate::socket::{ConnectionDirection, PeerSocket, Stage};
use crate::socks::SocksClient;

impl EventLoop {
    /// Takes an address of a node and dials it.
    pub(super) fn plan_dial(&mut self, address: PeerAddress, keep: bool, now: Instant) {
        let peer = address.node_id;
        if self.drain_until.is_some() {
            return;
        }
        let error = if peer == self.engine.id() {
            Some(DialError::OwnNode)
        } else if PublicKey::from_slice(&peer.0).is_err() {
            Some(DialError::NodeId(peer))
        } else if !keep && self.peers.contains_key(&peer) {
            Some(DialError::AlreadyConnected)
        } else {
            None
        };
        if let Some(error) = error {
            return (self.shared.on_event)(ConnectionEvent::DialFailed { peer, error, retry_after: None });
        }
        match self.plans.get_mut(&peer) {
            Some(plan) => plan.add(address, keep),
            None => drop(self.plans.insert(peer, DialPlan::new(address, keep))),
        }
        self.dial(peer, now);
    }

    /// Dials a node, unless it is connected, being dialled, or to be dialled later.
    pub(super) fn dial(&mut self, peer: NodeId, now: Instant) {
        let Some(plan) = self.plans.get_mut(&peer) else { return };
        let is_early = plan.due.is_some_and(|due| due > now);
        if plan.is_dialling || is_early || self.peers.contains_key(&peer) {
            return;
        }
        plan.is_dialling = true;
        let (host, port) = plan.next_host();
        let proxy = self.shared.proxy.clone();
        let is_onion = matches!(&host, Host::Name(name) if name.ends_with(".onion"));
        match (host, proxy) {
            (host, Some(proxy)) if is_onion || proxy.scope == ProxyScope::Everything => {
                let (client, greeting) = SocksClient::new(&host, port, proxy.login.as_ref());
                self.connect(peer, proxy.address, Some((client, greeting)), now);
            }
            (Host::Name(name), _) if is_onion => self.dial_ended(peer, DialError::NoProxy(name), now),
            (Host::Name(name), _) => {
                let (loop_index, resolver) = (self.index, &self.shared.resolver);
                if !resolver.look_up(Lookup { loop_index, peer, name: name.clone(), port }) {
                    let error = "too many names are being resolved".to_owned();
                    self.dial_ended(peer, DialError::Resolve { name, error }, now);
                }
            }
            (Host::Ip(ip), _) => self.connect(peer, SocketAddr::new(ip, port), None, now),
        }
    }

    /// The addresses of a node's name.
    pub(super) fn resolved(
        &mut self,
        peer: NodeId,
        name: String,
        result: io::Result<Vec<SocketAddr>>,
        now: Instant,
    ) {
        let Some(plan) = self.plans.get_mut(&peer) else { return };
        if self.peers.contains_key(&peer) {
            return;
        }
        match result {
            Ok(addresses) => {
                plan.resolved = addresses.into();
                self.connect_resolved(peer, now);
            }
            Err(error) => {
                let error = error.to_string();
                self.dial_ended(peer, DialError::Resolve { name, error }, now);
            }
        }
    }

    /// Connects to the next address that a name has; false if there is none.
    fn connect_resolved(&mut self, peer: NodeId, now: Instant) -> bool {
        let next = self.plans.get_mut(&peer).and_then(|plan| plan.resolved.pop_front());
        next.map(|address| self.connect(peer, address, None, now)).is_some()
    }

    /// Begins a TCP connection to a node, or to the proxy before it.
    fn connect(
        &mut self,
        peer: NodeId,
        address: SocketAddr,
        proxy: Option<(SocksClient, Vec<u8>)>,
        now: Instant,
    ) {
        let Ok(key) = PublicKey::from_slice(&peer.0) else {
            return self.dial_ended(peer, DialError::NodeId(peer), now);
        };
        let begun = match proxy {
            Some((client, greeting)) => Ok((Opening::proxied(client, key), greeting)),
            None => Opening::dial(&self.node_key, key),
        };
        let (opening, first) = match begun {
            Ok(begun) => begun,
            Err(reason) => return self.dial_ended(peer, DialError::Closed(reason), now),
        };
        let connected = TcpStream::connect(address).and_then(|stream| {
            stream.set_nodelay(true)?;
            let stage = Stage::Connecting(Box::new(opening), first);
            let mut socket = PeerSocket::new(stream, ConnectionDirection::Outbound, address, stage, now);
            socket.peer = Some(peer);
            self.insert(socket)
        });
        if let Err(error) = connected {
            let error = DialError::Connect { address, error: error.kind() };
            self.try_next(peer, error, now);
        }
    }

    /// A socket that was connecting has an event: it is connected, or has failed.
    pub(super) fn on_connecting(&mut self, token: usize, now: Instant) {
        let Some(socket) = self.sockets.get_mut(&token) else { return };
        let failed = match socket.stream.take_error() {
            Ok(None) => socket.stream.peer_addr().err(),
            Ok(Some(error)) | Err(error) => Some(error),
        };
        match failed {
            None => {
                let Stage::Connecting(opening, first) =
                    std::mem::replace(&mut socket.stage, super::LINGERING)
                else {
                    return;
                };
                socket.stage = Stage::Opening(opening);
                (socket.since, socket.armed, socket.is_readable) = (now, None, true);
                self.push(token, &first, now);
                self.arm(token);
                self.list(token);
            }
            Some(error) if error.kind() == io::ErrorKind::NotConnected => {}
            Some(error) => {
                let (address, error) = (socket.remote, error.kind());
                self.dial_failed(token, DialError::Connect { address, error }, now);
            }
        }
    }

    /// A TCP connection did not come about.
    pub(super) fn dial_failed(&mut self, token: usize, error: DialError, now: Instant) {
        let Some(socket) = self.sockets.remove(&token) else { return };
        if let Some(peer) = socket.peer {
            self.try_next(peer, error, now);
        }
    }

    /// Tries the next address of a name, or ends the dial.
    fn try_next(&mut self, peer: NodeId, error: DialError, now: Instant) {
        if !self.connect_resolved(peer, now) {
            self.dial_ended(peer, error, now);
        }
    }

    /// A dial has failed: it is reported, and tried again if the node is one to stay connected with.
    pub(super) fn dial_ended(&mut self, peer: NodeId, error: DialError, now: Instant) {
        let is_replaced = matches!(error, DialError::Closed(CloseReason::Replaced));
        if is_replaced {
            return self.plan_connected(peer, now);
        }
        let is_kept = self.plans.get(&peer).is_some_and(|plan| plan.keep);
        let retry_after = if is_kept { self.schedule_redial(peer, now) } else { None };
        if !is_kept && self.plans.remove(&peer).is_none() {
            return;
        }
        (self.shared.on_event)(ConnectionEvent::DialFailed { peer, error, retry_after });
    }

    /// The node is connected: its plan rests, or is fulfilled.
    pub(super) fn plan_connected(&mut self, peer: NodeId, now: Instant) {
        if let Some(plan) = self.plans.get_mut(&peer) {
            plan.connected(now);
            if !plan.keep {
                self.plans.remove(&peer);
            }
        }
    }

    /// Sets the timer after which a node to stay connected with is dialled again.
    pub(super) fn schedule_redial(&mut self, peer: NodeId, now: Instant) -> Option<std::time::Duration> {
        let timeouts = self.shared.timeouts;
        let plan = self.plans.get_mut(&peer)?;
        let wait = plan.ended(now, &timeouts, SysRng.try_next_u32().unwrap_or(u32::MAX / 2));
        self.timers.push(Reverse((now + wait, Timer::Redial(peer))));
        Some(wait)
    }
}
