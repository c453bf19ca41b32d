//! Connections to peers: BOLT 8 over TCP, on event loops.
//!
//! Owns: addresses ([`PeerAddress`]), the bounds of connections ([`ConnectionLimits`], [`ConnectionTimeouts`]), and
//! [`PeerNetwork`], which listens, dials, authenticates and passes messages between peers and a
//! [`fulmen::Engine`]. The engine does not know it: it is an embedder like any other, and one with sockets of its own
//! needs none of this. No other crate of the workspace opens a socket to a peer.
//!
//! Everything that a peer can make this crate hold is bounded in number and bytes: unfinished handshakes, connections
//! in all and from one address, bytes read and not accepted, bytes not written. Two nodes on one machine, as an
//! example:
//!
//! ```
//! use std::sync::{Arc, mpsc};
//!
//! use fulmen::proto::forward::NodeConfig;
//! use fulmen::proto::keys::NodeSeed;
//! use fulmen::runtime::{Effects, Engine, Storage};
//! use fulmen::wire::units::ChainHash;
//! use fulmen_net::{Host, NetConfig, PeerAddress, ConnectionEvent, PeerNetwork};
//!
//! let node = |seed| {
//!     let (sender, events) = mpsc::channel();
//!     let config = NetConfig { listen: vec!["127.0.0.1:0".parse()?], ..NetConfig::default() };
//!     let network = PeerNetwork::bind(config, move |event| sender.send(event).unwrap_or_default())?;
//!     let seed = NodeSeed::new([seed; 32]);
//!     let config = NodeConfig::new(ChainHash::REGTEST, [&[0x00, 0x14][..], &[7; 20]].concat());
//!     // The rest of the effects: transactions to broadcast, events.
//!     let handler = network.handler(|_: Effects| {});
//!     let engine = Arc::new(Engine::builder(seed.clone(), config, Storage::Nowhere).start(handler)?);
//!     engine.chain_in_step();
//!     network.start(&engine, seed.node_secret())?;
//!     Ok::<_, Box<dyn std::error::Error>>((network, engine, events))
//! };
//! let ((alice, alice_engine, _), (bob, _, events)) = (node(1)?, node(2)?);
//! let address = alice.local_addresses()[0];
//! let (host, port) = (Host::Ip(address.ip()), address.port());
//! bob.keep_connected(PeerAddress { node_id: alice_engine.id(), host, port });
//! assert!(matches!(events.recv()?, ConnectionEvent::Connected { peer, .. } if peer == alice_engine.id()));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![forbid(unsafe_code)]

mod address;
mod admission;
mod config;
mod error;
mod event_loop;
mod limits;
mod link;
mod mailbox;
mod network;
mod opening;
mod outbox;
mod redial;
mod resolver;
mod shared;
mod socket;
mod socks;

pub use address::{AddressError, Host, PeerAddress};
pub use config::{NetConfig, ProxyScope, SocksProxy};
pub use error::{CloseReason, DialError, NetStartError};
pub use limits::{ConnectionLimits, ConnectionTimeouts, LimitsError};
pub use network::{NetHandler, PeerNetwork};
pub use shared::{ConnectionEvent, NetStats};
pub use socket::ConnectionDirection;
pub use socks::{ProxyLogin, SocksError};
