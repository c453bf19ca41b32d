//! Forwarding: one shard of a node's channels, and everything that happens between them (BOLT 2 "Forwarding HTLCs",
//! BOLT 4, the operator's policies of BOLT 7).
//!
//! Owns: the [`Shard`], which drives each channel's machine, peels onions, applies policies, pairs received HTLCs with
//! offered ones, receives payments, and gives back what is to be done. Does not: find routes, hold connections, know
//! the chain beyond its height and the depth of funding transactions, or settle anything on chain (BOLT 5).
//!
//! Driving contract: [`Shard::turn`] is the only call. Its [`Turn`] is executed in the order of its fields: the record
//! is made durable, then messages are sent, peers disconnected, transactions broadcast, events told, handoffs
//! delivered. The same inputs in the same order give the same turn, bit for bit. After a restart, [`Restoring`]
//! brings back the shard that wrote the records, from the last [`Shard::checkpoint`] on.
//!
//! Invariant: no millisatoshi is lost between two channels. An HTLC is offered only for one irrevocably committed in;
//! every HTLC received is fulfilled if the one offered for it was, and failed only once that one is irrevocably gone.

mod channels;
mod checkpoint;
mod circuit;
mod codec;
mod commands;
mod commitments;
mod config;
mod decide;
mod deferred;
mod error;
mod handoff;
mod input;
mod intercept;
mod keys;
mod messages;
mod offer;
mod output;
mod peer;
mod policy;
mod receiver;
mod record;
mod replay;
mod resolve;
mod restore;
mod shard;
mod stats;
#[cfg(test)]
mod tests;

pub use circuit::{Circuit, CircuitStage, Forward, Origin};
pub use config::{ExpiryLimits, ForwardingPolicy, InboundFee, NodeConfig, PolicyError};
pub use error::{CommandError, LocalFailure};
pub use handoff::{Handoff, HandoffStep, IncomingHtlc, Offer, OutgoingHtlc, PaymentPart, Resolution};
pub use input::{ChannelRef, Command, Confirmation, ExpectedPayment, Input, Now, OpenChannel, SendHtlc};
pub use output::{Event, FailureReason, RefusedOutgoing, Turn};
pub use peer::{InitError, local_features, local_init, negotiate};
pub use policy::check_forward;
pub use record::{Change, Record};
pub use restore::{RestoreError, Restored, Restoring};
pub use shard::Shard;
pub use stats::{CryptoCounters, Occupancy};
