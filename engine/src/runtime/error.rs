//! Why the engine cannot be fed, and why it stops.
//!
//! Owns the errors of the embedding API, one enum an operation. What a command or a peer's message does wrong in a channel
//! comes as an event instead, once the turn has seen it.

use std::sync::Arc;

use fulmen_proto::RecordError;
use fulmen_proto::forward::RestoreError;
use fulmen_wire::codec::DecodeError;
use fulmen_wire::units::{ChannelId, NodeId};

use super::connection::Connection;
use crate::init::FirstMessageError;
use crate::store::StoreError;

/// A peer that cannot be talked to: the connection is to be closed.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// Its first message is not an acceptable `init`.
    #[error(transparent)]
    FirstMessage(#[from] FirstMessageError),
    /// The engine has stopped, or is shutting down.
    #[error(transparent)]
    Stopped(#[from] Stopped),
}

/// Messages that were not all taken.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReceiveError {
    /// The connection is not the peer's last one, or was ended by the engine.
    #[error("the connection to {} is over", .0.peer)]
    NotConnected(Connection),
    /// The peer has used up its credit: stop reading from it until [`Effects::resume`](super::Effects::resume) names its
    /// connection, then give the messages from this one on again.
    #[error("after {accepted} messages the peer has more waiting than its credit")]
    WouldBlock {
        /// How many of the messages given were taken.
        accepted: usize,
    },
    /// A message does not decode; the connection is to be closed. Those before it were taken.
    #[error("message {accepted} is broken: {error}")]
    Broken {
        /// How many of the messages given were taken.
        accepted: usize,
        /// What is wrong with the next.
        error: DecodeError,
    },
    /// The engine has stopped, or is shutting down.
    #[error(transparent)]
    Stopped(#[from] Stopped),
}

/// A command that was not taken up.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SubmitError {
    /// No channel has this id, temporary or permanent.
    #[error("no channel {0}")]
    UnknownChannel(ChannelId),
    /// So many commands wait for the shard that it takes no more at present.
    #[error("{waiting} commands wait already")]
    WouldBlock {
        /// How many wait.
        waiting: usize,
    },
    /// The engine has stopped, or is shutting down.
    #[error(transparent)]
    Stopped(#[from] Stopped),
}

/// The engine takes nothing more.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Stopped {
    /// It was shut down.
    #[error("the engine was shut down")]
    ShutDown,
    /// It stopped itself; see [`Fatal`].
    #[error("the engine has stopped: {0}")]
    Failed(Arc<Fatal>),
}

/// What the engine cannot go on after. Nothing leaves it any more; a restart takes up from what is durable.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Fatal {
    /// A turn panicked: a bug. What the turn would have changed is not durable.
    #[error("a turn of shard {shard} panicked: {message}")]
    Panicked {
        /// The shard.
        shard: u16,
        /// What it said.
        message: String,
    },
    /// The handler panicked, or what calls it. What the last turns changed is durable, and part of it may have left.
    #[error("the handler panicked: {message}")]
    HandlerPanicked {
        /// What it said.
        message: String,
    },
    /// The store failed: what the last turns changed may not be durable, and nothing of it has left.
    #[error("the store failed: {0}")]
    Store(#[from] StoreError),
}

/// Why an engine does not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// A thread cannot be started.
    #[error("cannot start thread {name}: {error}")]
    Thread {
        /// The thread.
        name: String,
        /// What the system says.
        #[source]
        error: std::io::Error,
    },
    /// The shards asked for are none.
    #[error("an engine needs at least one shard")]
    NoShards,
    /// The store cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The store's channels are dealt out to another number of shards than was asked for.
    #[error("the store has {kept} shards, not {wanted}: a channel cannot change its shard")]
    OtherShards {
        /// How many there are.
        kept: u16,
        /// How many were asked for.
        wanted: u16,
    },
    /// The record that says how many shards there are is missing or is of a version not known here.
    #[error("the engine's own record in the store is missing or unknown: {found:?}")]
    EngineRecord {
        /// Its bytes.
        found: Vec<u8>,
    },
    /// The store has records of a shard that there is none of.
    #[error("the store has records of shard {shard}, and there are {shards} shards")]
    NoSuchShard {
        /// Whose records.
        shard: u16,
        /// How many shards there are.
        shards: u16,
    },
    /// A record does not decode.
    #[error("a record of shard {shard}: {error}")]
    Record {
        /// Whose record.
        shard: u16,
        /// What is wrong with it.
        #[source]
        error: RecordError,
    },
    /// The records do not make a shard.
    #[error("shard {shard}: {error}")]
    Restore {
        /// Which shard.
        shard: u16,
        /// What is wrong.
        #[source]
        error: RestoreError,
    },
}

/// Two channels of different peers named one funding output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("channel {channel_id} of {peer} is funded by an output that funds another channel")]
pub(super) struct FundingTaken {
    pub(super) channel_id: ChannelId,
    pub(super) peer: NodeId,
}
