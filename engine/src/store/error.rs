//! Errors of a store: the file, the fault, and the remedy.
//!
//! Owns the one error type of the store. Every variant that an operator can mend says how.

use std::fmt;
use std::io;

use fulmen_wire::units::NodeId;

/// Why a store cannot be opened or used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The operating system refused something.
    #[error("cannot {operation} {file}: {source}")]
    Io {
        /// The operation.
        operation: Operation,
        /// With which file of the store.
        file: String,
        /// The system's error.
        source: io::Error,
    },
    /// There is no room left. Nothing is lost; the engine can be started again when there is.
    #[error("no room left to {operation} {file}: make room on its disk, then start again ({source})")]
    DiskFull {
        /// The operation.
        operation: Operation,
        /// With which file of the store.
        file: String,
        /// The system's error.
        source: io::Error,
    },
    /// Another process has the store open.
    #[error(
        "{directory} is in use by another process: two of them would sign different states of one channel"
    )]
    Locked {
        /// The store's directory.
        directory: String,
    },
    /// The store belongs to another node.
    #[error("{file} belongs to node {found}, this is node {expected}: give each node a directory of its own")]
    OtherNode {
        /// The file that says so.
        file: String,
        /// The node it belongs to.
        found: NodeId,
        /// The node that was to be started.
        expected: NodeId,
    },
    /// The store was written by a version that this one does not know.
    #[error("{file} has format version {found}, this engine reads {known}: start the engine that wrote it")]
    UnknownVersion {
        /// The file.
        file: String,
        /// Its version.
        found: u16,
        /// The version that is known.
        known: u16,
    },
    /// Bytes that were durable once have changed.
    #[error(
        "{file} is damaged at byte {offset}: {what}. Starting from it could lose money. Look for a fault of the disk; \
         bring back this very file if it was copied or cut; do not start from an older copy of the store"
    )]
    Damaged {
        /// The file.
        file: String,
        /// Where the first damaged byte stands, or the frame it is in.
        offset: u64,
        /// The fault.
        what: String,
    },
    /// A record is longer than its length field can say.
    #[error("a record of {bytes} bytes is longer than the {most} that a store takes")]
    TooLarge {
        /// The length given.
        bytes: usize,
        /// The longest possible.
        most: usize,
    },
    /// A checkpoint was given to another store than the one that began it: a bug of the caller.
    #[error("the checkpoint of shard {shard} was written by another kind of store")]
    ForeignCheckpoint {
        /// The checkpoint's shard.
        shard: u16,
    },
    /// An earlier call failed. Its bytes may or may not be there, so nothing may follow them.
    #[error("the store has stopped: {cause}")]
    Stopped {
        /// The first failure, in words.
        cause: String,
    },
}

/// An operation on a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Operation {
    /// To make a directory or look into it.
    List,
    /// To make a file.
    Create,
    /// To read a file.
    Read,
    /// To write to a file.
    Write,
    /// To make a file or a directory durable.
    Sync,
    /// To cut a file.
    Truncate,
    /// To give a file its name.
    Rename,
    /// To delete a file.
    Remove,
    /// To lock the directory.
    Lock,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Operation::List => "list",
            Operation::Create => "create",
            Operation::Read => "read",
            Operation::Write => "write to",
            Operation::Sync => "sync",
            Operation::Truncate => "cut",
            Operation::Rename => "rename",
            Operation::Remove => "remove",
            Operation::Lock => "lock",
        })
    }
}
impl StoreError {
    /// The error of an operation that the system refused.
    pub(super) fn io(operation: Operation, file: impl Into<String>, source: io::Error) -> StoreError {
        let file = file.into();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
                StoreError::DiskFull { operation, file, source }
            }
            _ => StoreError::Io { operation, file, source },
        }
    }
}
