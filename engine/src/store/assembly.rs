//! Records from the frames of a segment: whole ones as they stand, long ones put together from their parts.
//!
//! Owns the order of parts. Does not read files, and does not decide whether a record without its last part is the torn
//! tail of a log or damage: `recover` does, by where it stands.
//!
//! Invariant: a record is visited only when all its bytes are there, and the parts of one record are not mixed with
//! anything else. Memory grows with the bytes read, not with the lengths they claim.

use super::format::{Body, Frame, Part, Stored, decode_body, decode_records};

/// Puts records together, frame by frame.
#[derive(Debug, Default)]
pub(super) struct Assembly {
    unfinished: Option<Unfinished>,
}

/// A record whose last part has not come yet.
#[derive(Debug)]
pub(super) struct Unfinished {
    shard: u16,
    number: u64,
    record_bytes: usize,
    bytes: Vec<u8>,
    /// Where the frame of its first part begins.
    pub(super) offset: usize,
    /// That frame's sequence number.
    pub(super) sequence: u64,
}

impl Assembly {
    /// Takes the next frame of a segment, whose number is `sequence`, and visits the records that it completes.
    pub(super) fn frame(
        &mut self,
        frame: Frame<'_>,
        sequence: u64,
        visit: &mut dyn FnMut(Stored<'_>) -> Result<(), String>,
    ) -> Result<(), String> {
        match (decode_body(frame.body)?, &self.unfinished) {
            (Body::Records(records), None) => decode_records(records, visit),
            (Body::Records(_), Some(Unfinished { shard, number, .. })) => {
                Err(format!("the last parts of record {number} of shard {shard} are missing"))
            }
            (Body::Part(part), _) => self.part(part, frame.offset, sequence, visit),
        }
    }

    /// The record whose last part is still to come.
    pub(super) fn unfinished(&self) -> Option<&Unfinished> {
        self.unfinished.as_ref()
    }

    fn part(
        &mut self,
        part: Part<'_>,
        offset: usize,
        sequence: u64,
        visit: &mut dyn FnMut(Stored<'_>) -> Result<(), String>,
    ) -> Result<(), String> {
        let Part { shard, number, record_bytes, .. } = part;
        let begin = || Unfinished { shard, number, record_bytes, bytes: Vec::new(), offset, sequence };
        let unfinished = self.unfinished.get_or_insert_with(begin);
        let is_same =
            (unfinished.shard, unfinished.number, unfinished.record_bytes) == (shard, number, record_bytes);
        if !is_same || unfinished.bytes.len() != part.offset || part.bytes.len() > record_bytes - part.offset
        {
            return Err(format!("a part of record {number} of shard {shard} does not follow the one before"));
        }
        unfinished.bytes.extend(part.bytes);
        if unfinished.bytes.len() < record_bytes {
            return Ok(());
        }
        let Some(Unfinished { bytes: record, .. }) = self.unfinished.take() else { return Ok(()) };
        visit(Stored { shard, number, record: &record })
    }
}
