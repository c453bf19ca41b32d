//! Fulmen: a Lightning Network engine for routing nodes, to be embedded.
//!
//! An [`Engine`] is fed the messages of peers, the blocks of the chain and the commands of the operator. It runs the
//! node's channels on its threads, makes every turn durable, and only then gives [`runtime::Effects`] to the embedder's
//! handler: messages to send, transactions to broadcast, events. It holds no sockets. Two engines without threads open
//! a channel:
//!
//! ```
//! use std::sync::mpsc;
//!
//! use fulmen::runtime::{Effects, Engine, Storage};
//! use fulmen::proto::forward::{Command, Event, NodeConfig, Now, OpenChannelRequest};
//! use fulmen::proto::keys::NodeSeed;
//! use fulmen::wire::units::{ChainHash, Msat, Sat};
//!
//! let closing_script = [&[0x00, 0x14][..], &[7; 20]].concat(); // where our money goes on mutual close
//! let config = NodeConfig::new(ChainHash::REGTEST, closing_script);
//! let node = |seed| {
//!     let (sender, effects) = mpsc::channel::<Effects>();
//!     // A real node keeps its records in a directory or a store of the embedder's.
//!     let builder = Engine::builder(NodeSeed::new([seed; 32]), config.clone(), Storage::Nowhere);
//!     builder.inline(move |effects| sender.send(effects).unwrap_or_default()).map(|engine| (engine, effects))
//! };
//! let ((alice, from_alice), (bob, from_bob)) = (node(1)?, node(2)?);
//! [&alice, &bob].map(|node| node.chain_in_step()); // a real node gives the blocks it missed first
//! let to_bob = alice.connected(bob.id(), &bob.init())?;
//! let to_alice = bob.connected(alice.id(), &alice.init())?;
//!
//! let (peer, capacity, push) = (bob.id(), Sat(1_000_000), Msat(0));
//! alice.command(Command::OpenChannel(OpenChannelRequest { peer, user_id: 1, capacity, push, policy: None }))?;
//! let asked = loop {
//!     alice.step(Now { unix_ms: 0 });
//!     let effects = from_alice.recv()?;
//!     if let Some(Event::FundingNeeded { amount, .. }) = effects.events.first() {
//!         break *amount; // answered with `Command::FundingTransaction`, which the wallet makes
//!     }
//!     for (connection, message) in &effects.send {
//!         assert_eq!(*connection, to_bob); // here an embedder looks up the socket
//!         bob.receive(to_alice, message)?;
//!     }
//!     bob.step(Now { unix_ms: 0 });
//!     for (_, message) in &from_bob.recv()?.send {
//!         alice.receive(to_bob, message)?;
//!     }
//! };
//! assert_eq!(asked, capacity);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! [`embedding`] is a program with threads and sockets. [`driver::ShardDriver`] is a single shard without any
//! runtime, for simulators and those who bring their own.
//!
//! [`graph`] finds the routes, [`proto::payment`] makes their onions, [`chain`] is the block chain, with a bitcoind
//! over JSON-RPC as its backend (feature `rpc`); the crate `fulmen-regtest` has Bitcoin Core's validation engine in
//! process, for tests. `ARCHITECTURE.md` beside this crate says how it all fits.

#![forbid(unsafe_code)]

pub mod chain;
pub mod driver;
pub mod gossip;
mod init;
mod monitor;
pub mod pay;
pub mod runtime;
pub mod store;

/// An embedder in under a hundred lines: two nodes, each an engine with a TCP socket, open a channel
/// (`cargo run -p fulmen --example embed`).
///
/// ```ignore
#[doc = include_str!("../examples/embed.rs")]
/// ```
pub mod embedding {}

pub use fulmen_graph as graph;
pub use fulmen_proto as proto;
pub use fulmen_wire as wire;
pub use init::FirstMessageError;
pub use runtime::Engine;
