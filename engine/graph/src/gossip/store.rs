//! The store file: all accepted gossip, one record after the other, and nothing that cannot be fetched again.
//!
//! Owns the bytes. A file starts with a header of 44 bytes: `FULMGSP` and the version (8), the chain's hash (32),
//! CRC32C of both (4). Records follow: CRC32C of the rest of the record (4), kind (1), zero (1), the payload's length
//! (2), a time or height (4), the payload. Numbers are little-endian. Does not know which records are live: the index
//! does, and the store is rewritten from it when too much of the file is dead.
//!
//! Does no I/O: the caller passes in a [`Log`]. Appended records wait in memory until [`Store::flush`].
//!
//! Invariant: the file is a prefix of the appended records. A torn or damaged record ends it: the file is cut there
//! when it is opened, and the rest is fetched by gossip again.

use std::io;
use std::num::NonZeroU64;
use std::ops::Range;

use crc32c::{crc32c, crc32c_append};
use fulmen_wire::message::Message;
use fulmen_wire::units::{ChainHash, Sat, Scid};
use thiserror::Error;

/// A file or its equivalent. Offsets count bytes from its start.
pub trait Log {
    /// The number of bytes.
    ///
    /// # Errors
    /// When the length cannot be determined.
    fn len(&self) -> io::Result<u64>;

    /// Whether it is empty.
    ///
    /// # Errors
    /// When the length cannot be determined.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Fills `buffer` with the bytes at `offset`.
    ///
    /// # Errors
    /// When the bytes cannot be read or do not exist.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()>;

    /// Writes at `offset`, which is at most the end, and truncates the log after the written bytes.
    ///
    /// # Errors
    /// When not everything was written; a part may have been.
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Replaces the whole log by `contents`, or changes nothing.
    ///
    /// # Errors
    /// When nothing was changed.
    fn replace(&mut self, contents: &[u8]) -> io::Result<()>;
}

/// A log in memory, for tests and for nodes without a file.
impl Log for Vec<u8> {
    fn len(&self) -> io::Result<u64> {
        Ok(self.as_slice().len() as u64)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let bytes = self.get(start..).and_then(|bytes| bytes.get(..buffer.len()));
        buffer.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let start = usize::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput)?;
        self.truncate(start);
        self.extend_from_slice(bytes);
        Ok(())
    }

    fn replace(&mut self, contents: &[u8]) -> io::Result<()> {
        self.clear();
        self.extend_from_slice(contents);
        Ok(())
    }
}

/// The reason why a store cannot be opened.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum OpenError {
    /// It cannot be read or truncated.
    #[error("the gossip store cannot be read: {0}")]
    Io(#[from] io::Error),
    /// It is not a gossip store.
    #[error("not a gossip store: it starts with {0:02x?}")]
    NotAStore([u8; 8]),
    /// It was written by another version of this program.
    #[error("the gossip store has version {found}; this program reads version {VERSION}")]
    Version {
        /// Its version.
        found: u8,
    },
    /// It belongs to another chain.
    #[error("the gossip store is of chain {found}, not {expected}")]
    OtherChain {
        /// Its chain.
        found: ChainHash,
        /// The configured chain.
        expected: ChainHash,
    },
}

/// The kind of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RecordKind {
    /// A gossip message was accepted, at the time of the record.
    Message = 1,
    /// A funding output was found: scid and value.
    Funded = 2,
    /// A funding output was spent, at the height of the record: scid.
    Spent = 3,
    /// The spend of a funding output was reverted: scid.
    Unspent = 4,
    /// A channel was removed: scid.
    Removed = 5,
    /// A node was banned: its id.
    Banned = 6,
}

impl RecordKind {
    const ALL: [RecordKind; 6] = [
        RecordKind::Message,
        RecordKind::Funded,
        RecordKind::Spent,
        RecordKind::Unspent,
        RecordKind::Removed,
        RecordKind::Banned,
    ];
}

/// A record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Record<'a> {
    pub(super) kind: RecordKind,
    pub(super) at: u32,
    pub(super) payload: &'a [u8],
}

/// The location of a message: the offset of its record and its length, in 48 and 16 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Location(NonZeroU64);

impl Location {
    fn new(offset: u64, length: u16) -> Location {
        assert!(offset >> 48 == 0, "no store has 256 TiB");
        Location(
            NonZeroU64::new(offset << 16 | u64::from(length)).expect("no record stands in the file's header"),
        )
    }

    /// The offset of its record.
    pub(super) const fn offset(self) -> u64 {
        self.0.get() >> 16
    }

    /// The length of the message.
    pub(super) const fn length(self) -> u16 {
        self.0.get() as u16
    }

    /// The length of its record.
    pub(super) const fn record_length(self) -> u64 {
        RECORD_HEADER as u64 + self.length() as u64
    }
}

/// The version of the format; [`OpenError::Version`] reports others.
const VERSION: u8 = 1;
const MAGIC: &[u8; 7] = b"FULMGSP";
pub(super) const FILE_HEADER: usize = 44;
const RECORD_HEADER: usize = 12;
const RECORD_MAX: usize = RECORD_HEADER + u16::MAX as usize;
/// Bytes read at a time.
const READ_BYTES: usize = 1 << 20;

/// The header of a file for a chain.
pub(super) fn file_header(chain_hash: ChainHash) -> [u8; FILE_HEADER] {
    let mut header = [0; FILE_HEADER];
    header[..7].copy_from_slice(MAGIC);
    header[7] = VERSION;
    header[8..40].copy_from_slice(&chain_hash.0);
    let crc = crc32c(&header[..40]);
    header[40..].copy_from_slice(&crc.to_le_bytes());
    header
}

/// Appends a record to `out`.
pub(super) fn write_record(out: &mut Vec<u8>, record: Record<'_>) {
    let length = u16::try_from(record.payload.len()).expect("no message is longer than 65,535 bytes");
    let mut header = [0; RECORD_HEADER];
    header[4] = record.kind as u8;
    header[6..8].copy_from_slice(&length.to_le_bytes());
    header[8..].copy_from_slice(&record.at.to_le_bytes());
    let crc = crc32c_append(crc32c(&header[4..]), record.payload);
    header[..4].copy_from_slice(&crc.to_le_bytes());
    out.extend_from_slice(&header);
    out.extend_from_slice(record.payload);
}

/// Writes a store without verifying anything, for graphs from another source such as a snapshot of another node.
/// [`Gossip::open`](super::Gossip::open) trusts its contents.
#[derive(Clone, Debug)]
pub struct StoreWriter {
    bytes: Vec<u8>,
}

impl StoreWriter {
    /// An empty store of a chain.
    #[must_use]
    pub fn new(chain_hash: ChainHash) -> StoreWriter {
        StoreWriter { bytes: file_header(chain_hash).to_vec() }
    }

    /// Adds a message. A channel's announcement must precede its updates, and its updates the announcements of its
    /// nodes.
    pub fn message(&mut self, message: &Message) {
        write_record(
            &mut self.bytes,
            Record { kind: RecordKind::Message, at: 0, payload: &message.encode() },
        );
    }

    /// Adds the value of a channel's funding output, after its announcement.
    pub fn funded(&mut self, scid: Scid, value: Sat) {
        let mut payload = [0; 16];
        payload[..8].copy_from_slice(&scid.0.to_le_bytes());
        payload[8..].copy_from_slice(&value.0.to_le_bytes());
        write_record(&mut self.bytes, Record { kind: RecordKind::Funded, at: 0, payload: &payload });
    }

    /// The store's bytes.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

/// The record at the start of `bytes` and its length, or `None` when there is no complete, undamaged one.
fn read_record(bytes: &[u8]) -> Option<(Record<'_>, usize)> {
    let (header, rest) = bytes.split_first_chunk::<RECORD_HEADER>()?;
    let [c0, c1, c2, c3, kind, zero, l0, l1, a0, a1, a2, a3] = *header;
    let kind = *RecordKind::ALL.get(usize::from(kind).checked_sub(1)?)?;
    let payload = rest.get(..usize::from(u16::from_le_bytes([l0, l1])))?;
    let crc = crc32c_append(crc32c(&header[4..]), payload);
    let sound = zero == 0 && crc == u32::from_le_bytes([c0, c1, c2, c3]);
    let record = Record { kind, at: u32::from_le_bytes([a0, a1, a2, a3]), payload };
    sound.then_some((record, RECORD_HEADER + payload.len()))
}

/// The location of a message whose record starts at `offset`.
pub(super) fn location_of(offset: u64, message: &[u8]) -> Location {
    Location::new(offset, u16::try_from(message.len()).expect("no message is longer than 65,535 bytes"))
}

/// The log, followed by the records that are not written yet.
#[derive(Debug)]
pub(super) struct Store<L> {
    log: L,
    /// The bytes of the log that count.
    written: u64,
    /// The records after them.
    tail: Vec<u8>,
    /// Bytes of records that are superseded or removed.
    dead_bytes: u64,
    chain_hash: ChainHash,
}

impl<L: Log> Store<L> {
    /// Opens a log, passes every record to `visit` with its offset, and truncates it after the last undamaged one. An
    /// empty log becomes a store.
    pub(super) fn open(
        mut log: L,
        chain_hash: ChainHash,
        visit: impl FnMut(u64, Record<'_>),
    ) -> Result<Store<L>, OpenError> {
        let length = log.len()?;
        let mut start = [0; FILE_HEADER];
        let expected = file_header(chain_hash);
        let present = usize::try_from(length).unwrap_or(FILE_HEADER).min(FILE_HEADER);
        log.read_at(0, &mut start[..present])?;
        if present < FILE_HEADER {
            // Torn when it was created: it never held anything.
            if !expected.starts_with(&start[..present]) {
                return Err(not_a_store(&start, chain_hash));
            }
            log.replace(&expected)?;
        } else if start != expected {
            return Err(not_a_store(&start, chain_hash));
        }
        let mut store =
            Store { log, written: FILE_HEADER as u64, tail: Vec::new(), dead_bytes: 0, chain_hash };
        let end = length.max(FILE_HEADER as u64);
        store.written = end;
        let sound = store.scan(FILE_HEADER as u64, visit)?;
        store.written = sound;
        if sound < end {
            store.log.write_at(sound, &[])?;
        }
        Ok(store)
    }

    /// Passes every record from `offset` on to `visit`; returns the end of the last undamaged one.
    fn scan(&self, mut offset: u64, mut visit: impl FnMut(u64, Record<'_>)) -> io::Result<u64> {
        let mut buffer = Vec::new();
        loop {
            let wanted = (self.end() - offset).min(READ_BYTES as u64) as usize;
            buffer.resize(wanted, 0);
            self.read_bytes(offset, &mut buffer)?;
            let mut rest = buffer.as_slice();
            let more = offset + (wanted as u64) < self.end();
            while !more || rest.len() >= RECORD_MAX {
                let Some((record, length)) = read_record(rest) else { return Ok(offset) };
                visit(offset, record);
                offset += length as u64;
                rest = &rest[length..];
            }
        }
    }

    /// The records from `offset` on within about `bytes_max` bytes.
    pub(super) fn window(&self, offset: u64, bytes_max: usize) -> io::Result<Window> {
        let wanted = (self.end().saturating_sub(offset)).min(bytes_max.max(RECORD_MAX) as u64) as usize;
        let mut bytes = vec![0; wanted];
        self.read_bytes(offset, &mut bytes)?;
        Ok(Window { bytes, offset, position: 0 })
    }

    /// Appends a record and returns its offset. It can be read at once and is written with the next flush.
    pub(super) fn append(&mut self, record: Record<'_>) -> u64 {
        let offset = self.end();
        write_record(&mut self.tail, record);
        offset
    }

    /// Appends a message.
    pub(super) fn append_message(&mut self, at: u32, message: &[u8]) -> Location {
        let offset = self.append(Record { kind: RecordKind::Message, at, payload: message });
        location_of(offset, message)
    }

    /// Counts a message as dead.
    pub(super) fn mark_dead(&mut self, location: Location) {
        self.dead_bytes += location.record_length();
    }

    /// The message at a location.
    pub(super) fn message(&self, location: Location) -> io::Result<Vec<u8>> {
        let mut message = vec![0; usize::from(location.length())];
        self.read_bytes(location.offset() + RECORD_HEADER as u64, &mut message)?;
        Ok(message)
    }

    /// Writes the appended records.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        if !self.tail.is_empty() {
            self.log.write_at(self.written, &self.tail)?;
            self.written += self.tail.len() as u64;
            self.tail.clear();
        }
        Ok(())
    }

    /// Replaces all records.
    pub(super) fn replace(&mut self, contents: &[u8]) -> io::Result<()> {
        self.log.replace(contents)?;
        self.written = contents.len() as u64;
        self.tail.clear();
        self.dead_bytes = 0;
        Ok(())
    }

    pub(super) const fn chain_hash(&self) -> ChainHash {
        self.chain_hash
    }

    pub(super) const fn dead_bytes(&self) -> u64 {
        self.dead_bytes
    }

    pub(super) fn set_dead_bytes(&mut self, bytes: u64) {
        self.dead_bytes = bytes;
    }

    pub(super) fn unwritten_bytes(&self) -> usize {
        self.tail.len()
    }

    /// The offset of the next record.
    pub(super) fn end(&self) -> u64 {
        self.written + self.tail.len() as u64
    }

    #[cfg(test)]
    pub(super) fn log_mut(&mut self) -> &mut L {
        &mut self.log
    }

    pub(super) fn into_log(self) -> L {
        self.log
    }

    /// Fills `buffer` from the log and the records that are not written yet.
    fn read_bytes(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let in_log = self.written.saturating_sub(offset).min(buffer.len() as u64) as usize;
        let (head, rest) = buffer.split_at_mut(in_log);
        if !head.is_empty() {
            self.log.read_at(offset, head)?;
        }
        let start = (offset + in_log as u64).saturating_sub(self.written);
        let range = usize::try_from(start).ok().map(|start| Range { start, end: start + rest.len() });
        let waiting = range.and_then(|range| self.tail.get(range)).ok_or(io::ErrorKind::UnexpectedEof)?;
        rest.copy_from_slice(waiting);
        Ok(())
    }
}

/// Consecutive records.
pub(super) struct Window {
    bytes: Vec<u8>,
    offset: u64,
    position: usize,
}

impl Window {
    /// The next record and its offset.
    pub(super) fn next(&mut self) -> Option<(u64, Record<'_>)> {
        let (record, length) = read_record(&self.bytes[self.position..])?;
        let offset = self.offset();
        self.position += length;
        Some((offset, record))
    }

    /// The offset of the next record.
    pub(super) const fn offset(&self) -> u64 {
        self.offset + self.position as u64
    }
}

fn not_a_store(start: &[u8; FILE_HEADER], expected: ChainHash) -> OpenError {
    let mut head = [0; 8];
    head.copy_from_slice(&start[..8]);
    let mut chain = [0; 32];
    chain.copy_from_slice(&start[8..40]);
    if !start.starts_with(MAGIC) {
        OpenError::NotAStore(head)
    } else if start[7] != VERSION {
        OpenError::Version { found: start[7] }
    } else if chain != expected.0 {
        OpenError::OtherChain { found: ChainHash(chain), expected }
    } else {
        // Only the checksum is wrong.
        OpenError::NotAStore(head)
    }
}
