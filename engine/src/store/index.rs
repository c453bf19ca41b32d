//! The positions of the log: its segments, and how far each shard's records and checkpoint reach.
//!
//! Owns the counts that opening (`recover`) establishes and appending (`log`) continues. Does not read or write files.
//!
//! Invariant: a shard's checkpoint never stands for more records than the log has seen of it.

use std::collections::BTreeMap;
use std::sync::Weak;

use super::format::checkpoint_name;

/// A segment of the log.
#[derive(Debug)]
pub(super) struct Segment {
    /// The sequence number of its first frame.
    pub(super) first: u64,
    pub(super) bytes: u64,
    /// The last record of each shard in it.
    pub(super) last: BTreeMap<u16, u64>,
}

/// The positions of a shard in the log.
#[derive(Debug, Default)]
pub(super) struct ShardLog {
    /// How many records it has appended, ever.
    pub(super) appended: u64,
    pub(super) checkpoint: Option<LogCheckpoint>,
    pub(super) begun: Option<Begun>,
}

/// A checkpoint being written.
#[derive(Debug)]
pub(super) struct Begun {
    pub(super) attempt: u64,
    pub(super) covers: u64,
    /// Gone when its writer was dropped or failed.
    pub(super) alive: Weak<()>,
    /// The length of the log when it was begun.
    pub(super) log_bytes: u64,
}

impl ShardLog {
    /// How many of its records the last checkpoint stands for.
    pub(super) fn covered(&self) -> u64 {
        self.checkpoint.as_ref().map_or(0, |checkpoint| checkpoint.covers)
    }
}

/// A checkpoint that is durable.
#[derive(Clone, Copy, Debug)]
pub(super) struct LogCheckpoint {
    /// How many records of its shard it stands for.
    pub(super) covers: u64,
    pub(super) bytes: u64,
}

impl LogCheckpoint {
    pub(super) fn name(&self, shard: u16) -> String {
        checkpoint_name(shard, self.covers)
    }
}

/// The shards with records in a segment that no checkpoint stands for.
pub(super) fn pinning<'a>(
    segment: &'a Segment,
    shards: &'a BTreeMap<u16, ShardLog>,
) -> impl Iterator<Item = (u16, &'a ShardLog)> {
    segment.last.iter().filter_map(|(shard, last)| {
        let log = shards.get(shard)?;
        (log.covered() < *last).then_some((*shard, log))
    })
}
