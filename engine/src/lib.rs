//! Fulmen: a Lightning Network engine for routing nodes, to be embedded.
//!
//! A [`node::Node`] has no threads, no sockets and no clock. It is fed what peers send, what the chain does and what the
//! operator wants; each [`turn`](node::Node::turn) gives back what to make durable, then what to send, broadcast and
//! tell, in that order. Two of them, talking:
//!
//! ```
//! use fulmen::node::Node;
//! use fulmen::proto::forward::{Command, Event, NodeConfig, Now, OpenChannel};
//! use fulmen::proto::keys::NodeSeed;
//! use fulmen::wire::units::{ChainHash, Msat, Sat};
//!
//! let closing_script = [&[0x00, 0x14][..], &[7; 20]].concat(); // where our money goes on mutual close
//! let node = |seed| Node::new(NodeSeed::new([seed; 32]), NodeConfig::new(ChainHash::REGTEST, closing_script.clone()));
//! let (mut alice, mut bob) = (node(1), node(2));
//! alice.connected(bob.id(), &bob.init())?;
//! bob.connected(alice.id(), &alice.init())?;
//!
//! let (peer, capacity, push) = (bob.id(), Sat(1_000_000), Msat(0));
//! alice.command(Command::OpenChannel(OpenChannel { peer, user_id: 1, capacity, push, policy: None }));
//! let asked = loop {
//!     let outbox = alice.turn(Now { unix_ms: 0 });
//!     // A real embedder makes `outbox.record` durable here, before anything leaves.
//!     if let Some(Event::FundingNeeded { amount, .. }) = outbox.events.first() {
//!         break *amount; // answered with `Command::FundingTransaction`, which the wallet makes
//!     }
//!     for (_, message) in outbox.send {
//!         bob.receive(alice.id(), &message)?;
//!     }
//!     for (_, message) in bob.turn(Now { unix_ms: 0 }).send {
//!         alice.receive(bob.id(), &message)?;
//!     }
//! };
//! assert_eq!(asked, capacity);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! [`graph`] finds the routes, [`proto::payment`] makes their onions, [`chain`] is the block chain: Bitcoin Core's own
//! validation engine in process (feature `kernel`) or a bitcoind over JSON-RPC (feature `rpc`). `ARCHITECTURE.md` beside
//! this crate says how it all fits.

#![forbid(unsafe_code)]

pub mod chain;
pub mod engine;
pub mod node;
pub mod store;
mod watch;

pub use engine::Engine;
pub use fulmen_graph as graph;
pub use fulmen_proto as proto;
pub use fulmen_wire as wire;
