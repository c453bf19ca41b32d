//! The bytes of the store's files, as `FORMAT.md` beside this file gives them: file headers, frames, entries.
//!
//! Owns encoding and decoding, and telling a torn tail from damage. Does not touch files, and trusts no byte it reads.
//!
//! Invariant: a frame that decodes is the frame that was written. A checksum binds it to its file by the file's salt,
//! so that bytes which a peer had us write inside a record are never taken for a frame.

use fulmen_wire::units::NodeId;

use super::error::StoreError;

/// The version this engine writes. It reads this one and [`VERSION_WHOLE_CHUNKS`].
pub(super) const VERSION: u16 = 2;

/// The version in which each frame of a checkpoint is a whole chunk, and each record is in one frame.
pub(super) const VERSION_WHOLE_CHUNKS: u16 = 1;

/// The length of a file header.
pub(super) const HEADER_BYTES: usize = 68;

/// The length of a frame's header.
pub(super) const FRAME_HEADER_BYTES: usize = 20;

/// The length of an entry's header.
pub(super) const ENTRY_HEADER_BYTES: usize = 14;

/// The length of one shard's position.
const POSITION_BYTES: usize = 10;

/// The longest body of a frame. A record or a chunk that does not fit is written in parts, one a frame.
pub(super) const BODY_BYTES_MAX: usize = 16 << 20;

/// The first byte of a body of records.
const BODY_RECORDS: u8 = 1;
/// The first byte of a body of positions.
const BODY_POSITIONS: u8 = 2;
/// The first byte of a body with a part of a record.
const BODY_PART: u8 = 3;

/// The first byte of a checkpoint's frame whose chunk goes on in the next frame.
const CHUNK_GOES_ON: u8 = 0;
/// The first byte of a checkpoint's frame that ends its chunk.
const CHUNK_ENDS: u8 = 1;

/// The length of the fields before a part of a record, the first byte included.
const PART_HEADER_BYTES: usize = 19;

/// The kind of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FileKind {
    /// A segment of the log.
    Segment,
    /// A checkpoint of a shard.
    Checkpoint,
}

impl FileKind {
    const fn magic(self) -> &'static [u8; 8] {
        match self {
            FileKind::Segment => b"FULMENLG",
            FileKind::Checkpoint => b"FULMENCP",
        }
    }
}

/// How a file begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FileHeader {
    pub(super) version: u16,
    pub(super) kind: FileKind,
    pub(super) node_id: NodeId,
    /// The shard of a checkpoint; zero in a segment.
    pub(super) shard: u16,
    /// The sequence number of a segment's first frame; how many records of its shard a checkpoint stands for.
    pub(super) number: u64,
    /// Part of every frame's checksum.
    pub(super) salt: u64,
}

/// Why a file's header is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum HeaderError {
    /// Too short, another kind of file, or damaged.
    Broken(&'static str),
    /// Intact, of another version.
    Version(u16),
}

impl FileHeader {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER_BYTES);
        bytes.extend(self.kind.magic());
        bytes.extend(self.version.to_be_bytes());
        bytes.extend(self.node_id.0);
        bytes.extend(self.shard.to_be_bytes());
        bytes.extend([0; 3]);
        bytes.extend(self.number.to_be_bytes());
        bytes.extend(self.salt.to_be_bytes());
        bytes.extend(crc32c::crc32c(&bytes).to_be_bytes());
        assert_eq!(bytes.len(), HEADER_BYTES, "the format fixes the length");
        bytes
    }

    pub(super) fn decode(kind: FileKind, bytes: &[u8]) -> Result<FileHeader, HeaderError> {
        let bytes: &[u8; HEADER_BYTES] =
            bytes.first_chunk().ok_or(HeaderError::Broken("it ends inside its header"))?;
        if bytes[..8] != *kind.magic() {
            return Err(HeaderError::Broken("it does not begin as a file of its kind does"));
        }
        // The version comes first: another one may have another header.
        let version = u16::from_be_bytes(array(bytes, 8));
        if !(VERSION_WHOLE_CHUNKS..=VERSION).contains(&version) {
            return Err(HeaderError::Version(version));
        }
        if crc32c::crc32c(&bytes[..64]) != u32::from_be_bytes(array(bytes, 64)) {
            return Err(HeaderError::Broken("its header does not match its checksum"));
        }
        Ok(FileHeader {
            version,
            kind,
            node_id: NodeId(array(bytes, 10)),
            shard: u16::from_be_bytes(array(bytes, 43)),
            number: u64::from_be_bytes(array(bytes, 48)),
            salt: u64::from_be_bytes(array(bytes, 56)),
        })
    }
}

/// Writes a frame: its header, then the body that `write` appends.
pub(super) fn encode_frame(out: &mut Vec<u8>, salt: u64, sequence: u64, write: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend([0; FRAME_HEADER_BYTES]);
    write(out);
    let body = start + FRAME_HEADER_BYTES;
    let bytes = out.len() - body;
    assert!(bytes <= BODY_BYTES_MAX, "callers keep bodies within the limit");
    let bytes = u32::try_from(bytes).expect("the limit is far below");
    let checksum = crc32c::crc32c(&out[body..]);
    out[start..start + 8].copy_from_slice(&sequence.to_be_bytes());
    out[start + 8..start + 12].copy_from_slice(&bytes.to_be_bytes());
    out[start + 12..start + 16].copy_from_slice(&checksum.to_be_bytes());
    let checksum = header_checksum(salt, &out[start..start + 16]);
    out[start + 16..start + 20].copy_from_slice(&checksum.to_be_bytes());
}

/// A frame that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Frame<'a> {
    pub(super) offset: usize,
    pub(super) body: &'a [u8],
}

/// The next thing in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step<'a> {
    /// The next frame.
    Frame(Frame<'a>),
    /// The end of the file.
    End,
    /// Something else than the next frame, from this offset on.
    Broken { offset: usize, what: &'static str },
}

/// Reads a file's frames, one after the other.
#[derive(Clone, Debug)]
pub(super) struct Frames<'a> {
    bytes: &'a [u8],
    offset: usize,
    salt: u64,
    sequence: u64,
}

impl<'a> Frames<'a> {
    /// The frames after a file's header, the first of which has this sequence number.
    pub(super) fn new(bytes: &'a [u8], salt: u64, sequence: u64) -> Frames<'a> {
        Frames { bytes, offset: HEADER_BYTES.min(bytes.len()), salt, sequence }
    }

    /// The sequence number of the next frame.
    pub(super) fn sequence(&self) -> u64 {
        self.sequence
    }

    pub(super) fn step(&mut self) -> Step<'a> {
        let offset = self.offset;
        if offset == self.bytes.len() {
            return Step::End;
        }
        match read_frame(&self.bytes[offset..], self.salt) {
            Ok((sequence, body)) if sequence == self.sequence => {
                self.sequence += 1;
                self.offset += FRAME_HEADER_BYTES + body.len();
                Step::Frame(Frame { offset, body })
            }
            Ok(_) => Step::Broken { offset, what: "a frame of another place stands here" },
            Err(what) => Step::Broken { offset, what },
        }
    }

    /// Whether an intact frame follows anywhere after this place. It was written after the bytes here were durable: if
    /// there is one, these bytes were damaged; if not, they may never have been written whole.
    pub(super) fn later_frame(&self) -> Option<usize> {
        let rest = &self.bytes[self.offset..];
        // Any frame has a number, and so begins before the room does.
        let begins = without_room(rest).len().min(rest.len().saturating_sub(FRAME_HEADER_BYTES));
        (1..begins).find_map(|at| {
            let candidate = &rest[at..];
            let sequence = u64::from_be_bytes(array(candidate, 0));
            let frames = (at / FRAME_HEADER_BYTES) as u64;
            let is_later = sequence > self.sequence && sequence - self.sequence <= frames;
            (is_later && read_frame(candidate, self.salt).is_ok()).then_some(self.offset + at)
        })
    }
}

/// The bytes without the zeros at their end.
pub(super) fn without_room(bytes: &[u8]) -> &[u8] {
    let written = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    &bytes[..written]
}

/// The frame at the start of these bytes: its sequence number and body.
fn read_frame(bytes: &[u8], salt: u64) -> Result<(u64, &[u8]), &'static str> {
    let header: &[u8; FRAME_HEADER_BYTES] = bytes.first_chunk().ok_or("a frame's header is cut")?;
    if header_checksum(salt, &header[..16]) != u32::from_be_bytes(array(header, 16)) {
        return Err("a frame's header does not match its checksum");
    }
    let length = u32::from_be_bytes(array(header, 8));
    let length = usize::try_from(length).map_err(|_| "a frame is longer than memory")?;
    let body = &bytes[FRAME_HEADER_BYTES..];
    let body = body.get(..length).ok_or("a frame is cut")?;
    if crc32c::crc32c(body) != u32::from_be_bytes(array(header, 12)) {
        return Err("a frame does not match its checksum");
    }
    Ok((u64::from_be_bytes(array(header, 0)), body))
}

fn header_checksum(salt: u64, header: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&salt.to_be_bytes()), header)
}

/// The longest part of a record in a body of at most `body_bytes_max` bytes.
pub(super) const fn part_bytes_max(body_bytes_max: usize) -> usize {
    body_bytes_max - PART_HEADER_BYTES
}

/// Writes a body with the part of the shard's `number`th record that begins at `offset`.
pub(super) fn encode_part(
    out: &mut Vec<u8>,
    shard: u16,
    number: u64,
    record: &[u8],
    offset: usize,
    end: usize,
) {
    let of = |length: usize| u32::try_from(length).expect("callers keep records below 4 GiB");
    out.push(BODY_PART);
    out.extend(shard.to_be_bytes());
    out.extend(number.to_be_bytes());
    out.extend(of(record.len()).to_be_bytes());
    out.extend(of(offset).to_be_bytes());
    out.extend(&record[offset..end]);
}

/// Writes the body of a checkpoint's frame: a chunk, or a part of it.
pub(super) fn encode_chunk(out: &mut Vec<u8>, part: &[u8], is_last: bool) {
    out.push(if is_last { CHUNK_ENDS } else { CHUNK_GOES_ON });
    out.extend(part);
}

/// Reads the body of a checkpoint's frame: the bytes, and whether the chunk ends with them.
pub(super) fn decode_chunk(version: u16, body: &[u8]) -> Result<(&[u8], bool), &'static str> {
    match body.split_first() {
        _ if version == VERSION_WHOLE_CHUNKS => Ok((body, true)),
        Some((&CHUNK_ENDS, part)) => Ok((part, true)),
        Some((&CHUNK_GOES_ON, part)) => Ok((part, false)),
        _ => Err("a frame holds no chunk"),
    }
}

/// Begins a body of records.
pub(super) fn encode_records(out: &mut Vec<u8>) {
    out.push(BODY_RECORDS);
}

/// Adds a record to a body: the shard's `number`th.
pub(super) fn encode_entry(out: &mut Vec<u8>, shard: u16, number: u64, record: &[u8]) {
    let bytes = u32::try_from(record.len()).expect("callers keep bodies within the limit");
    out.extend(shard.to_be_bytes());
    out.extend(number.to_be_bytes());
    out.extend(bytes.to_be_bytes());
    out.extend(record);
}

/// Writes a body of positions: how many records of each shard came before.
pub(super) fn encode_positions(out: &mut Vec<u8>, positions: impl Iterator<Item = (u16, u64)>) {
    out.push(BODY_POSITIONS);
    for (shard, number) in positions {
        out.extend(shard.to_be_bytes());
        out.extend(number.to_be_bytes());
    }
}

/// The length of a segment before its first batch: its header, and one position for each of `positions` shards.
pub(super) const fn segment_start_bytes(positions: usize) -> usize {
    HEADER_BYTES + FRAME_HEADER_BYTES + 1 + POSITION_BYTES * positions
}

/// One record of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stored<'a> {
    pub(super) shard: u16,
    pub(super) number: u64,
    pub(super) record: &'a [u8],
}

/// A part of a record that takes several frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Part<'a> {
    pub(super) shard: u16,
    pub(super) number: u64,
    /// The length of the whole record.
    pub(super) record_bytes: usize,
    /// Where in the record the part begins.
    pub(super) offset: usize,
    pub(super) bytes: &'a [u8],
}

/// The body of a log's frame after a segment's first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Body<'a> {
    /// Whole records, for [`decode_records`].
    Records(&'a [u8]),
    /// A part of one record.
    Part(Part<'a>),
}

pub(super) fn decode_body(body: &[u8]) -> Result<Body<'_>, &'static str> {
    match body.split_first() {
        Some((&BODY_RECORDS, records)) => Ok(Body::Records(records)),
        Some((&BODY_PART, _)) => {
            let header: &[u8; PART_HEADER_BYTES] = body.first_chunk().ok_or("a part's header is cut")?;
            let length = |at| usize::try_from(u32::from_be_bytes(array(header, at))).unwrap_or(usize::MAX);
            Ok(Body::Part(Part {
                shard: u16::from_be_bytes(array(header, 1)),
                number: u64::from_be_bytes(array(header, 3)),
                record_bytes: length(11),
                offset: length(15),
                bytes: &body[PART_HEADER_BYTES..],
            }))
        }
        _ => Err("a frame holds no records"),
    }
}

/// Reads the records of a body, handing each to `visit` until it fails.
pub(super) fn decode_records<'a>(
    records: &'a [u8],
    visit: &mut dyn FnMut(Stored<'a>) -> Result<(), String>,
) -> Result<(), String> {
    let mut rest = records;
    while !rest.is_empty() {
        let header: &[u8; ENTRY_HEADER_BYTES] = rest.first_chunk().ok_or("an entry's header is cut")?;
        let length = usize::try_from(u32::from_be_bytes(array(header, 10))).unwrap_or(usize::MAX);
        let record = rest[ENTRY_HEADER_BYTES..].get(..length).ok_or("an entry is cut")?;
        let (shard, number) = (u16::from_be_bytes(array(header, 0)), u64::from_be_bytes(array(header, 2)));
        visit(Stored { shard, number, record })?;
        rest = &rest[ENTRY_HEADER_BYTES + length..];
    }
    Ok(())
}

/// Reads a body of positions.
pub(super) fn decode_positions(body: &[u8]) -> Result<Vec<(u16, u64)>, &'static str> {
    let Some((&BODY_POSITIONS, rest)) = body.split_first() else {
        return Err("the first frame of the segment holds no positions");
    };
    let (pairs, left) = rest.as_chunks::<POSITION_BYTES>();
    if !left.is_empty() {
        return Err("a position is cut");
    }
    Ok(pairs
        .iter()
        .map(|pair| (u16::from_be_bytes(array(pair, 0)), u64::from_be_bytes(array(pair, 2))))
        .collect())
}

/// The name of a segment whose first frame has this sequence number.
pub(super) fn segment_name(sequence: u64) -> String {
    format!("{sequence:016x}.log")
}

/// The sequence number in a segment's name.
pub(super) fn segment_of(name: &str) -> Option<u64> {
    hexadecimal(name.strip_suffix(".log")?, 16)
}

/// The name of a shard's checkpoint over its first `covers` records.
pub(super) fn checkpoint_name(shard: u16, covers: u64) -> String {
    format!("{shard:04x}-{covers:016x}.checkpoint")
}

/// Shard and number of records in a checkpoint's name.
pub(super) fn checkpoint_of(name: &str) -> Option<(u16, u64)> {
    let (shard, covers) = name.strip_suffix(".checkpoint")?.split_once('-')?;
    Some((u16::try_from(hexadecimal(shard, 4)?).ok()?, hexadecimal(covers, 16)?))
}

/// The name of a checkpoint being written.
pub(super) fn partial_name(shard: u16, attempt: u64) -> String {
    format!("{shard:04x}-{attempt:016x}.partial")
}

/// Whether a file is a checkpoint that was never finished.
pub(super) fn is_partial(name: &str) -> bool {
    name.ends_with(".partial")
}

/// Refuses a record whose length does not fit its field: 4 GiB, far above any turn's record.
pub(super) fn check_record(bytes: usize) -> Result<(), StoreError> {
    match u32::try_from(bytes) {
        Ok(_) => Ok(()),
        Err(_) => Err(StoreError::TooLarge { bytes, most: u32::MAX as usize }),
    }
}

fn hexadecimal(digits: &str, length: usize) -> Option<u64> {
    let is_written_so = digits.len() == length && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    is_written_so.then(|| u64::from_str_radix(digits, 16).ok()).flatten()
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    *bytes[at..].first_chunk().expect("callers have checked the length")
}
