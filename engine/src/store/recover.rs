//! Opening a directory after a crash: which files count, where the log ends, and the records in it.
//!
//! Owns the decision between a torn tail, which is cut, and damage, which is an error. Does not interpret records.
//!
//! Invariant: every record is accounted for. Each shard's records are numbered without gaps from its checkpoint on, a
//! segment has the number of records before it, and a checkpoint never stands for records that the log has not seen.

use std::collections::{BTreeMap, VecDeque};
use std::ops::ControlFlow;

use fulmen_wire::units::NodeId;

use super::Replayed;
use super::assembly::Assembly;
use super::disk::Disk;
use super::error::{Operation, StoreError};
use super::format::{
    FileHeader, FileKind, Frames, HeaderError, Step, Stored, VERSION, checkpoint_name, checkpoint_of,
    decode_chunk, decode_positions, is_partial, segment_name, segment_of, segment_start_bytes, without_room,
};
use super::index::{LogCheckpoint, Segment, ShardLog};

/// The contents of the disk.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) segments: VecDeque<Segment>,
    pub(super) next_sequence: u64,
    pub(super) shards: BTreeMap<u16, ShardLog>,
    pub(super) syncs: u64,
}

/// Reads all files, deletes superseded and unfinished ones, and cuts a torn tail.
pub(super) fn recover(disk: &dyn Disk, node_id: NodeId) -> Result<Found, StoreError> {
    let files = disk.list().map_err(|error| StoreError::io(Operation::List, "the directory", error))?;
    let mut superfluous: Vec<String> =
        files.iter().map(|(name, _)| name).filter(|name| is_partial(name)).cloned().collect();
    let mut shards = BTreeMap::new();
    find_checkpoints(disk, node_id, &files, &mut shards, &mut superfluous)?;
    let mut firsts: Vec<u64> = files.iter().filter_map(|(name, _)| segment_of(name)).collect();
    firsts.sort_unstable();
    let mut found = Found { segments: VecDeque::new(), next_sequence: 1, shards, syncs: 0 };
    for (index, &first) in firsts.iter().enumerate() {
        let is_last = index + 1 == firsts.len();
        let is_gap = first != found.next_sequence && index > 0;
        if is_gap {
            // Deleted segments may come back after a crash, and not all of them. The positions of the next one tell
            // whether anything is missing.
            superfluous.extend(found.segments.drain(..).map(|segment| segment_name(segment.first)));
        }
        if !read_segment(disk, node_id, first, is_last, &mut found)? {
            if is_gap {
                let what = format!("frames {} to {first} are missing before it", found.next_sequence);
                return Err(StoreError::Damaged { file: segment_name(first), offset: 0, what });
            }
            superfluous.push(segment_name(first));
        }
    }
    for (&shard, log) in &found.shards {
        if log.appended < log.covered() {
            let what = format!(
                "it stands for {} records of shard {shard}, of which the log has {}: the end of the log is missing",
                log.covered(),
                log.appended
            );
            return Err(StoreError::Damaged { file: checkpoint_name(shard, log.covered()), offset: 0, what });
        }
    }
    for name in &superfluous {
        disk.remove(name).map_err(|error| StoreError::io(Operation::Remove, name, error))?;
    }
    Ok(found)
}

/// Finds each shard's latest checkpoint, and holds it to its checksums.
fn find_checkpoints(
    disk: &dyn Disk,
    node_id: NodeId,
    files: &[(String, u64)],
    shards: &mut BTreeMap<u16, ShardLog>,
    superfluous: &mut Vec<String>,
) -> Result<(), StoreError> {
    for (name, bytes) in files {
        let Some((shard, covers)) = checkpoint_of(name) else { continue };
        let log: &mut ShardLog = shards.entry(shard).or_default();
        let older = match log.checkpoint {
            Some(known) if known.covers > covers => covers,
            _ => match log.checkpoint.replace(LogCheckpoint { covers, bytes: *bytes }) {
                Some(known) => known.covers,
                None => continue,
            },
        };
        superfluous.push(checkpoint_name(shard, older));
    }
    for (&shard, log) in shards.iter() {
        read_checkpoint(disk, Some(node_id), shard, log.covered(), &mut |_| ())?;
    }
    Ok(())
}

/// Reads a checkpoint's chunks. It was durable before it got its name, so that all of it must be there.
fn read_checkpoint(
    disk: &dyn Disk,
    node_id: Option<NodeId>,
    shard: u16,
    covers: u64,
    visit: &mut dyn FnMut(&[u8]),
) -> Result<(), StoreError> {
    let name = checkpoint_name(shard, covers);
    let damaged = |offset: usize, what: &str| StoreError::Damaged {
        file: name.clone(),
        offset: offset as u64,
        what: what.to_owned(),
    };
    let bytes = disk.read(&name).map_err(|error| StoreError::io(Operation::Read, &name, error))?;
    let header = FileHeader::decode(FileKind::Checkpoint, &bytes).map_err(|error| refuse(&name, error))?;
    check_node(&name, &header, node_id)?;
    if (header.shard, header.number) != (shard, covers) {
        return Err(damaged(0, "its name is not the one in its header"));
    }
    let mut frames = Frames::new(&bytes, header.salt, 1);
    let mut chunk = Vec::new();
    loop {
        match frames.step() {
            Step::Frame(frame) if frame.body.is_empty() && chunk.is_empty() => break,
            Step::Frame(frame) => {
                let (part, is_last) =
                    decode_chunk(header.version, frame.body).map_err(|what| damaged(frame.offset, what))?;
                chunk.extend(part);
                if is_last {
                    visit(&chunk);
                    chunk.clear();
                }
            }
            Step::End => return Err(damaged(bytes.len(), "its end is missing")),
            Step::Broken { offset, what } => return Err(damaged(offset, what)),
        }
    }
    match frames.step() {
        Step::End => Ok(()),
        Step::Frame(frame) => Err(damaged(frame.offset, "it goes on after its end")),
        Step::Broken { offset, .. } => Err(damaged(offset, "it goes on after its end")),
    }
}

/// Reads a segment into `found`. False if it was never begun, which only the last one may not have been.
fn read_segment(
    disk: &dyn Disk,
    node_id: NodeId,
    first: u64,
    is_last: bool,
    found: &mut Found,
) -> Result<bool, StoreError> {
    let name = segment_name(first);
    let damaged =
        |offset: usize, what: String| StoreError::Damaged { file: name.clone(), offset: offset as u64, what };
    let bytes = disk.read(&name).map_err(|error| StoreError::io(Operation::Read, &name, error))?;
    let header = match FileHeader::decode(FileKind::Segment, &bytes) {
        Ok(header) => header,
        // A segment is synced before the first batch goes in, so that an unfinished one is no longer than its start.
        Err(HeaderError::Broken(what)) if is_last && is_start(&bytes, found) => {
            tracing::warn!(file = name, what, "a crash left a segment that was never begun: removing it");
            return Ok(false);
        }
        Err(error) => return Err(refuse(&name, error)),
    };
    check_node(&name, &header, Some(node_id))?;
    if header.number != first {
        return Err(damaged(0, "its name is not the one in its header".to_owned()));
    }
    let mut frames = Frames::new(&bytes, header.salt, first);
    let mut segment = Segment { first, bytes: bytes.len() as u64, last: BTreeMap::new() };
    let (mut assembly, mut next_sequence) = (Assembly::default(), None);
    loop {
        match frames.step() {
            Step::End if frames.sequence() > first && assembly.unfinished().is_none() => break,
            Step::Frame(frame) if frames.sequence() == first + 1 => {
                let positions =
                    decode_positions(frame.body).map_err(|what| damaged(frame.offset, what.into()))?;
                let is_next = found.segments.back().is_some();
                check_positions(&positions, is_next, &mut found.shards)
                    .map_err(|what| damaged(frame.offset, what))?;
            }
            Step::Frame(frame) => {
                let sequence = frames.sequence() - 1;
                assembly
                    .frame(frame, sequence, &mut |stored| count(stored, &mut segment, &mut found.shards))
                    .map_err(|what| damaged(frame.offset, what))?;
            }
            step => {
                let (offset, what) = match step {
                    Step::Broken { offset, what } => (offset, what),
                    _ if frames.sequence() > first => (bytes.len(), "the last parts of a record are missing"),
                    _ => (bytes.len(), "its first frame is missing"),
                };
                check_torn(&frames, is_last, offset, what, &bytes, &name)?;
                if frames.sequence() == first {
                    return Ok(false);
                }
                let next = assembly.unfinished().map(|record| (record.offset, record.sequence));
                let (offset, sequence) = next.unwrap_or((offset, frames.sequence()));
                disk.truncate(&name, offset as u64)
                    .map_err(|error| StoreError::io(Operation::Truncate, &name, error))?;
                found.syncs += 1;
                segment.bytes = offset as u64;
                next_sequence = Some(sequence);
                break;
            }
        }
    }
    found.next_sequence = next_sequence.unwrap_or(frames.sequence());
    found.segments.push_back(segment);
    Ok(true)
}

/// Tells a torn tail, which only the last segment may have, from damage.
fn check_torn(
    frames: &Frames<'_>,
    is_last: bool,
    offset: usize,
    what: &str,
    bytes: &[u8],
    name: &str,
) -> Result<(), StoreError> {
    let damaged = |what| StoreError::Damaged { file: name.to_owned(), offset: offset as u64, what };
    if !is_last {
        return Err(damaged(what.to_owned()));
    }
    if let Some(later) = frames.later_frame() {
        return Err(damaged(format!("{what}, but an intact frame follows at {later}")));
    }
    if !without_room(&bytes[offset..]).is_empty() {
        tracing::warn!(file = name, offset, what, "a crash tore the last frame: cutting it off");
    }
    Ok(())
}

/// Whether `bytes` are short enough to be a segment's header and positions alone.
fn is_start(bytes: &[u8], found: &Found) -> bool {
    let positions = found.shards.values().filter(|log| log.appended > 0).count();
    without_room(bytes).len() <= segment_start_bytes(positions)
}

/// Checks a segment's positions: they equal those at the end of the segment before, and at the start of the log they do
/// not exceed the records that checkpoints stand for.
fn check_positions(
    positions: &[(u16, u64)],
    is_next: bool,
    shards: &mut BTreeMap<u16, ShardLog>,
) -> Result<(), String> {
    for &(shard, number) in positions {
        let log = shards.entry(shard).or_default();
        let known = if is_next { log.appended } else { log.covered() };
        if number > known || (is_next && number < known) {
            return Err(format!("records {known} to {number} of shard {shard} are missing"));
        }
        log.appended = number;
    }
    Ok(())
}

/// Counts a record, which must be its shard's next.
fn count(
    stored: Stored<'_>,
    segment: &mut Segment,
    shards: &mut BTreeMap<u16, ShardLog>,
) -> Result<(), String> {
    let Stored { shard, number, .. } = stored;
    let log = shards.entry(shard).or_default();
    if number != log.appended + 1 {
        return Err(format!("record {number} of shard {shard} follows record {}", log.appended));
    }
    log.appended = number;
    segment.last.insert(shard, number);
    Ok(())
}

/// Visits all chunks and records that [`recover`] found.
pub(super) fn replay(
    disk: &dyn Disk,
    segments: &VecDeque<Segment>,
    shards: &BTreeMap<u16, ShardLog>,
    visit: &mut dyn FnMut(Replayed<'_>) -> ControlFlow<()>,
) -> Result<(), StoreError> {
    let mut flow = ControlFlow::Continue(());
    for (&shard, log) in shards.iter().filter(|(_, log)| log.checkpoint.is_some()) {
        read_checkpoint(disk, None, shard, log.covered(), &mut |chunk| {
            if flow.is_continue() {
                flow = visit(Replayed::Chunk { shard, chunk });
            }
        })?;
        if flow.is_break() {
            return Ok(());
        }
    }
    for segment in segments {
        let name = segment_name(segment.first);
        let bytes = disk.read(&name).map_err(|error| StoreError::io(Operation::Read, &name, error))?;
        let header = FileHeader::decode(FileKind::Segment, &bytes).map_err(|error| refuse(&name, error))?;
        // Behind its frames there may be room.
        let written = usize::try_from(segment.bytes).unwrap_or(usize::MAX).min(bytes.len());
        let mut frames = Frames::new(&bytes[..written], header.salt, segment.first);
        let mut assembly = Assembly::default();
        loop {
            let (offset, result) = match frames.step() {
                Step::End => break,
                Step::Frame(_) if frames.sequence() == segment.first + 1 => continue,
                Step::Frame(frame) => {
                    let sequence = frames.sequence() - 1;
                    let result = assembly.frame(frame, sequence, &mut |Stored { shard, number, record }| {
                        let covered = shards.get(&shard).map_or(0, ShardLog::covered);
                        if number > covered && flow.is_continue() {
                            flow = visit(Replayed::Record { shard, record });
                        }
                        Ok(())
                    });
                    (frame.offset, result)
                }
                Step::Broken { offset, what } => (offset, Err(what.to_owned())),
            };
            let offset = offset as u64;
            result.map_err(|what| StoreError::Damaged { file: name.clone(), offset, what })?;
            if flow.is_break() {
                return Ok(());
            }
        }
    }
    Ok(())
}

fn check_node(file: &str, header: &FileHeader, node_id: Option<NodeId>) -> Result<(), StoreError> {
    match node_id.filter(|node_id| *node_id != header.node_id) {
        Some(expected) => {
            Err(StoreError::OtherNode { file: file.to_owned(), found: header.node_id, expected })
        }
        None => Ok(()),
    }
}

fn refuse(file: &str, error: HeaderError) -> StoreError {
    let file = file.to_owned();
    match error {
        HeaderError::Broken(what) => StoreError::Damaged { file, offset: 0, what: what.to_owned() },
        HeaderError::Version(found) => StoreError::UnknownVersion { file, found, known: VERSION },
    }
}
