//! Errors of the embedding API, and the reasons for which an engine stops.
//!
//! Owns one enum for each operation. A command that a channel refuses and a peer that violates the protocol are not
//! here: both are events, since only the shard's turn finds them.

use std::sync::Arc;

use fulmen_proto::RecordError;
use fulmen_proto::forward::RestoreError;
use fulmen_wire::codec::DecodeError;
use fulmen_wire::units::{ChannelId, NodeId};

use super::connection::Connection;
use crate::init::FirstMessageError;
use crate::store::StoreError;

/// Why a connection cannot be used. Close it.
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

/// Why not all messages were accepted.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReceiveError {
    /// The peer has a newer connection, or the engine has ended this one.
    #[error("the connection to {} is over", .0.peer)]
    NotConnected(Connection),
    /// The peer has used up its credit. Stop reading from it until [`Effects::resume`](super::Effects::resume) names
    /// its connection, then give the messages again, beginning with the first that was not accepted.
    #[error("after {accepted} messages the peer has more waiting than its credit")]
    WouldBlock {
        /// The number of messages accepted.
        accepted: usize,
    },
    /// A message does not decode. Close the connection. The messages before it were accepted.
    #[error("message {accepted} is broken: {error}")]
    Broken {
        /// The number of messages accepted.
        accepted: usize,
        /// The error of the next message.
        error: DecodeError,
    },
    /// The engine has stopped, or is shutting down.
    #[error(transparent)]
    Stopped(#[from] Stopped),
}

/// Why a command was not accepted.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SubmitError {
    /// No channel has this id, temporary or permanent.
    #[error("no channel {0}")]
    UnknownChannel(ChannelId),
    /// The shard's queue of commands is full; try again once it has run a turn.
    #[error("{waiting} commands wait already")]
    WouldBlock {
        /// The commands in the queue.
        waiting: usize,
    },
    /// The engine has stopped, or is shutting down.
    #[error(transparent)]
    Stopped(#[from] Stopped),
}

/// Why the engine accepts nothing more.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Stopped {
    /// It was shut down, or is being shut down.
    #[error("the engine was shut down")]
    ShutDown,
    /// It stopped itself; see [`Fatal`].
    #[error("the engine has stopped: {0}")]
    Failed(Arc<Fatal>),
}

/// A failure that stops the engine. Nothing leaves it any more; a restart continues from its durable records.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Fatal {
    /// A turn panicked: a bug. The changes of that turn are not durable.
    #[error("a turn of shard {shard} panicked: {message}")]
    Panicked {
        /// The shard.
        shard: u16,
        /// The message of the panic.
        message: String,
    },
    /// The handler panicked, or the code that calls it. The last turns are durable, and part of their effects may have
    /// left.
    #[error("the handler panicked: {message}")]
    HandlerPanicked {
        /// The message of the panic.
        message: String,
    },
    /// The store failed. The last turns may not be durable, and none of their effects has left.
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
        /// The system's error.
        #[source]
        error: std::io::Error,
    },
    /// The shards asked for are none.
    #[error("an engine needs at least one shard")]
    NoShards,
    /// The store cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The store was made for another number of shards.
    #[error("the store has {kept} shards, not {wanted}: a channel cannot change its shard")]
    OtherShards {
        /// The number in the store.
        kept: u16,
        /// The number asked for.
        wanted: u16,
    },
    /// The record with the number of shards is missing or of an unknown version.
    #[error("the engine's own record in the store is missing or unknown: {found:?}")]
    EngineRecord {
        /// Its bytes.
        found: Vec<u8>,
    },
    /// The store has records of a shard above its number of shards.
    #[error("the store has records of shard {shard}, and there are {shards} shards")]
    NoSuchShard {
        /// The shard of the records.
        shard: u16,
        /// The number of shards.
        shards: u16,
    },
    /// A record does not decode.
    #[error("a record of shard {shard}: {error}")]
    Record {
        /// The shard of the record.
        shard: u16,
        /// The decoding error.
        #[source]
        error: RecordError,
    },
    /// The records do not fit together.
    #[error("shard {shard}: {error}")]
    Restore {
        /// The shard.
        shard: u16,
        /// The first contradiction.
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
