//! Writing a checkpoint of one shard, apart from the log.
//!
//! Owns the file being written, under a name that recovery does not look at. Does not give it its name: the log does,
//! once the file is durable.

use std::sync::Arc;

use super::disk::{Disk, DiskFile};
use super::error::{Operation, StoreError};
use super::format::{FileHeader, encode_chunk, encode_frame, partial_name};
use super::{CheckpointWriter, WrittenCheckpoint};

/// How many bytes are gathered before they are given to the file.
const WRITE_BYTES: usize = 256 << 10;

/// A checkpoint that is durable under its partial name.
#[derive(Debug)]
pub(super) struct LogWritten {
    /// Which of all the log's checkpoints it is.
    pub(super) attempt: u64,
    pub(super) bytes: u64,
    /// Keeps the log from beginning another checkpoint of the shard.
    _alive: Option<Arc<()>>,
}

/// A checkpoint being written. Dropped before it is finished, it deletes its file.
#[derive(Debug)]
pub(super) struct Writer {
    disk: Arc<dyn Disk>,
    file: Box<dyn DiskFile>,
    name: String,
    shard: u16,
    attempt: u64,
    salt: u64,
    /// The longest part of a chunk in one frame.
    part_bytes_max: usize,
    /// The sequence number of the next frame.
    sequence: u64,
    buffer: Vec<u8>,
    bytes: u64,
    /// Tells the log that the checkpoint may still come. Gone once it is finished.
    alive: Option<Arc<()>>,
}

impl Writer {
    pub(super) fn begin(
        disk: Arc<dyn Disk>,
        header: &FileHeader,
        attempt: u64,
        frame_bytes_max: usize,
        alive: Arc<()>,
    ) -> Result<Writer, StoreError> {
        let FileHeader { shard, salt, .. } = *header;
        let name = partial_name(shard, attempt);
        let file = disk.create(&name).map_err(|error| StoreError::io(Operation::Create, &name, error))?;
        let (buffer, alive) = (header.encode(), Some(alive));
        let (part_bytes_max, sequence, bytes) = (frame_bytes_max - 1, 1, 0);
        Ok(Writer { disk, file, name, shard, attempt, salt, part_bytes_max, sequence, buffer, bytes, alive })
    }

    fn write(&mut self) -> Result<(), StoreError> {
        self.bytes += self.buffer.len() as u64;
        let written = self.file.append(&self.buffer);
        self.buffer.clear();
        written.map_err(|error| StoreError::io(Operation::Write, &self.name, error))
    }
}

impl CheckpointWriter for Writer {
    fn chunk(&mut self, chunk: &[u8]) -> Result<(), StoreError> {
        if chunk.is_empty() {
            // An empty frame ends a checkpoint, and an empty chunk says nothing.
            return Ok(());
        }
        let mut rest = chunk;
        while !rest.is_empty() {
            let (part, later) = rest.split_at(rest.len().min(self.part_bytes_max));
            rest = later;
            encode_frame(&mut self.buffer, self.salt, self.sequence, |body| {
                encode_chunk(body, part, rest.is_empty());
            });
            self.sequence += 1;
            if self.buffer.len() >= WRITE_BYTES {
                self.write()?;
            }
        }
        Ok(())
    }

    fn finish(mut self: Box<Self>) -> Result<WrittenCheckpoint, StoreError> {
        encode_frame(&mut self.buffer, self.salt, self.sequence, |_| {});
        self.write()?;
        self.file.sync().map_err(|error| StoreError::io(Operation::Sync, &self.name, error))?;
        let Writer { shard, attempt, bytes, .. } = *self;
        Ok(WrittenCheckpoint::new(shard, LogWritten { attempt, bytes, _alive: self.alive.take() }))
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if self.alive.is_some()
            && let Err(error) = self.disk.remove(&self.name)
        {
            // It does no harm: the next start deletes it.
            tracing::warn!(file = self.name, %error, "cannot delete a checkpoint that was given up");
        }
    }
}
