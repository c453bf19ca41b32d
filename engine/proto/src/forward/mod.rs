//! Forwarding: one shard of a node's channels, and everything that happens between them (BOLT 2 "Forwarding HTLCs",
//! BOLT 4, the operator's policies of BOLT 7).
//!
//! Owns: the [`Shard`], which drives each channel's machine, peels onions, applies policies, pairs received HTLCs with
//! offered ones, receives payments, announces channels and the node, and returns the effects to execute. Does not: find
//! routes, hold connections, know the chain beyond its height and the depth of funding transactions, or settle anything
//! on chain (BOLT 5).
//!
//! Driving contract: [`Shard::turn`] is the only call. Its [`Turn`] is executed in the order of its fields: the record
//! is made durable, then messages are sent, peers disconnected, transactions broadcast, events reported, handoffs
//! delivered. The same inputs in the same order give the same turn, bit for bit. After a restart, [`Restoring`]
//! brings back the shard that wrote the records, from the last [`Shard::checkpoint`] on.
//!
//! Invariant: no millisatoshi is lost between two channels. An HTLC is offered only for one irrevocably committed in;
//! every HTLC received is fulfilled if the one offered for it was, and failed only once that one is irrevocably gone.

mod restore;
mod shard;
mod state;
mod stats;
mod terms;
#[cfg(test)]
mod tests;
mod turn;

pub use restore::{RestoreError, Restored, Restoring};
pub use shard::Shard;
pub use state::announcing::PeerForwardingPolicy;
pub use state::change::{Change, Record};
pub use state::replay::ReplayClaims;
pub use stats::{CryptoCounters, Occupancy};
pub use terms::circuit::{Circuit, CircuitStage, Forward, Offer, Origin, Resolution};
pub use terms::config::{
    AnswerTimeouts, ExpiryLimits, ForwardingPolicy, InboundFee, NodeConfig, PolicyError, SendLimits,
};
pub use terms::description::{DescriptionError, NodeDescription};
pub use terms::error::{CommandError, LocalFailure};
pub use terms::handoff::{Handoff, HandoffStep, PaymentPart};
pub use terms::ids::{ChannelRef, IncomingHtlc, OutgoingHtlc};
pub use terms::input::{
    Command, Confirmation, ExpectedPayment, Input, OpenChannelRequest, PeerEvent, PeerInput, SendHtlc,
};
pub use terms::peer::{InitError, local_features, local_init, negotiate};
pub use terms::policy::check_forward;
pub use terms::time::Now;
pub use turn::output::{Event, FailureReason, RefusedOutgoing, Turn};
