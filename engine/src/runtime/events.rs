//! Durable events: kept in the records of their turns until the embedder acknowledges them.
//!
//! Owns the numbers of a shard's durable events, the events that are not acknowledged, and their bytes around a record
//! and in a checkpoint. Does not deliver them: effects do, and the builder after a restart.
//!
//! A turn with durable events, or with an acknowledgement, writes this in place of its plain record; a plain record
//! begins with the version byte 1, so the two are told apart by the first byte. Integers are big-endian:
//!
//! | bytes | field |
//! |---:|---|
//! | 1 | `e1` |
//! | 4 | length of the record |
//! | | the record; empty if the turn changed nothing |
//! | 8 | number of the last acknowledged event, 0 for none |
//! | 8 | number of the first event below |
//! | 4 | how many follow |
//! | 4 + | of each event: its length, its bytes |
//!
//! A checkpoint has one chunk of the same form, with `e2` in place of the first three fields.
//!
//! **Bound.** A shard whose unacknowledged events exceed [`KEPT_BYTES_MAX`] accepts no more messages from peers until
//! enough of them are acknowledged.
//!
//! Invariants: an event is durable exactly when its turn is; its number is never given to another event of the shard.

use std::collections::VecDeque;

use fulmen_proto::RecordError;
use fulmen_proto::forward::Event;

/// The first byte of a record with events.
const RECORD_WITH_EVENTS: u8 = 0xe1;
/// The first byte of a checkpoint's chunk with events.
const CHUNK_OF_EVENTS: u8 = 0xe2;

/// Bytes of unacknowledged events of a shard above which it accepts no messages.
pub(super) const KEPT_BYTES_MAX: usize = 16 << 20;

/// The name of a durable event: numbers of a shard are consecutive, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventId {
    /// The shard whose turn gave the event.
    pub shard: u16,
    /// Its number among the shard's durable events.
    pub number: u64,
}

/// The durable events of a shard that are not acknowledged.
#[derive(Debug, Default)]
pub(super) struct EventLog {
    /// The number of the last event.
    last: u64,
    /// The number of the last acknowledged event.
    acknowledged: u64,
    /// The events after that, encoded.
    kept: VecDeque<Vec<u8>>,
    kept_bytes: usize,
    /// Whether an acknowledgement is in no record yet.
    is_changed: bool,
}

impl EventLog {
    /// The number of the last event so far; 0 before the first.
    pub(super) fn last(&self) -> u64 {
        self.last
    }

    /// Whether so much is unacknowledged that the shard accepts no more messages.
    pub(super) fn is_full(&self) -> bool {
        self.kept_bytes > KEPT_BYTES_MAX
    }

    /// Acknowledges all events up to a number.
    pub(super) fn acknowledge(&mut self, number: u64) {
        while self.acknowledged < number.min(self.last)
            && let Some(event) = self.kept.pop_front()
        {
            self.kept_bytes -= event.len();
            self.acknowledged += 1;
            self.is_changed = true;
        }
    }

    /// Keeps the durable ones of a turn's events, and puts them into its record.
    pub(super) fn record(&mut self, record: Vec<u8>, events: &[Event]) -> Vec<u8> {
        let first = self.last + 1;
        for event in events.iter().filter(|event| event.is_durable()) {
            let mut bytes = Vec::new();
            event.encode(&mut bytes);
            self.keep(bytes);
        }
        let added = (self.last + 1 - first) as usize;
        if added == 0 && !std::mem::take(&mut self.is_changed) {
            return record;
        }
        self.is_changed = false;
        let mut out = vec![RECORD_WITH_EVENTS];
        push(&mut out, &record);
        self.write(&mut out, first, self.kept.len() - added);
        out
    }

    /// The chunk of a checkpoint; `None` while there was never an event.
    pub(super) fn chunk(&self) -> Option<Vec<u8>> {
        let mut out = vec![CHUNK_OF_EVENTS];
        self.write(&mut out, self.acknowledged + 1, 0);
        (self.last > 0).then_some(out)
    }

    /// Takes up the events of a checkpoint's chunk; false if it is a chunk of the shard's state.
    pub(super) fn restore_chunk(&mut self, chunk: &[u8]) -> Result<bool, RecordError> {
        match chunk.split_first() {
            Some((&CHUNK_OF_EVENTS, events)) => self.read(events).map(|()| true),
            _ => Ok(false),
        }
    }

    /// Restores the events in a stored record, and returns the shard's own record.
    pub(super) fn restore_record<'a>(&mut self, stored: &'a [u8]) -> Result<&'a [u8], RecordError> {
        let Some((&RECORD_WITH_EVENTS, mut rest)) = stored.split_first() else { return Ok(stored) };
        let record = take(&mut rest).ok_or(DAMAGED)?;
        self.read(rest)?;
        Ok(record)
    }

    /// The unacknowledged events.
    pub(super) fn unacknowledged(&self) -> Result<Vec<Event>, RecordError> {
        self.kept.iter().map(|event| Event::decode(event)).collect()
    }

    fn keep(&mut self, event: Vec<u8>) {
        self.kept_bytes += event.len();
        self.kept.push_back(event);
        self.last += 1;
    }

    /// Writes the acknowledgement, and the kept events from this one on, the first of which has number `first`.
    fn write(&self, out: &mut Vec<u8>, first: u64, from: usize) {
        out.extend(self.acknowledged.to_be_bytes());
        out.extend(first.to_be_bytes());
        let count = u32::try_from(self.kept.len() - from).expect("events are bounded in bytes");
        out.extend(count.to_be_bytes());
        self.kept.iter().skip(from).for_each(|event| push(out, event));
    }

    fn read(&mut self, bytes: &[u8]) -> Result<(), RecordError> {
        let (acknowledged, rest) = bytes.split_first_chunk().ok_or(DAMAGED)?;
        let (first, rest) = rest.split_first_chunk().ok_or(DAMAGED)?;
        let (count, mut rest) = rest.split_first_chunk().ok_or(DAMAGED)?;
        let (acknowledged, first) = (u64::from_be_bytes(*acknowledged), u64::from_be_bytes(*first));
        if self.last == 0 {
            // After a checkpoint the numbers begin where it says.
            (self.last, self.acknowledged) = (first.saturating_sub(1), first.saturating_sub(1));
        }
        if first != self.last + 1 {
            return Err(DAMAGED);
        }
        for _ in 0..u32::from_be_bytes(*count) {
            self.keep(take(&mut rest).ok_or(DAMAGED)?.to_vec());
        }
        if !rest.is_empty() {
            return Err(DAMAGED);
        }
        self.acknowledge(acknowledged);
        self.is_changed = false;
        Ok(())
    }
}

/// Bytes that are no events: the store has checked its checksums, so this is a bug or another engine's record.
const DAMAGED: RecordError = RecordError::Inconsistent { offset: 0, what: "the events around a record" };

fn push(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend(u32::try_from(bytes.len()).expect("records and events stay below 4 GiB").to_be_bytes());
    out.extend(bytes);
}

fn take<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, tail) = rest.split_first_chunk()?;
    let (bytes, tail) = tail.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).ok()?)?;
    *rest = tail;
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use fulmen_proto::forward::Event;
    use fulmen_wire::units::PaymentPreimage;

    use super::*;

    fn event(attempt_id: u64) -> Event {
        Event::HtlcSettled { attempt_id, preimage: PaymentPreimage([attempt_id as u8; 32]) }
    }

    fn numbers(log: &EventLog) -> (u64, Vec<Event>) {
        (log.acknowledged, log.unacknowledged().unwrap())
    }

    #[test]
    fn events_come_back_from_records_and_from_a_checkpoint() {
        let (mut log, mut restored) = (EventLog::default(), EventLog::default());
        assert_eq!(log.chunk(), None);
        assert_eq!(log.record(b"plain".to_vec(), &[]), b"plain");
        let first = log.record(b"one".to_vec(), &[event(1), event(2)]);
        let second = log.record(Vec::new(), &[event(3)]);
        assert_eq!(restored.restore_record(&first).unwrap(), b"one");
        assert_eq!(restored.restore_record(&second).unwrap(), b"");
        assert_eq!(numbers(&restored), (0, vec![event(1), event(2), event(3)]));
        log.acknowledge(2);
        let third = log.record(b"three".to_vec(), &[]);
        assert_eq!(restored.restore_record(&third).unwrap(), b"three");
        assert_eq!(numbers(&restored), (2, vec![event(3)]));
        assert_eq!(log.record(b"plain".to_vec(), &[]), b"plain", "an acknowledgement is written once");
        let chunk = log.chunk().unwrap();
        let mut from_checkpoint = EventLog::default();
        assert!(from_checkpoint.restore_chunk(&chunk).unwrap());
        let fourth = log.record(Vec::new(), &[event(4)]);
        from_checkpoint.restore_record(&fourth).unwrap();
        assert_eq!(numbers(&from_checkpoint), (2, vec![event(3), event(4)]));
        assert_eq!(from_checkpoint.last(), 4);
    }

    #[test]
    fn a_missing_record_is_noticed() {
        let mut log = EventLog::default();
        let first = log.record(Vec::new(), &[event(1)]);
        let _lost = log.record(Vec::new(), &[event(2)]);
        let third = log.record(Vec::new(), &[event(3)]);
        let mut restored = EventLog::default();
        restored.restore_record(&first).unwrap();
        assert!(restored.restore_record(&third).is_err());
        for length in 1..first.len() {
            assert!(EventLog::default().restore_record(&first[..length]).is_err(), "cut to {length}");
        }
    }

    #[test]
    fn acknowledged_events_make_room() {
        let mut log = EventLog::default();
        let large = Event::HtlcFailed {
            attempt_id: 1,
            reason: fulmen_proto::forward::FailureReason::Remote { packet: vec![0; 1 << 20] },
        };
        for _ in 0..16 {
            assert!(!log.is_full());
            log.record(Vec::new(), std::slice::from_ref(&large));
        }
        assert!(log.is_full());
        log.acknowledge(1);
        assert!(!log.is_full());
        log.acknowledge(u64::MAX);
        assert_eq!(numbers(&log), (16, Vec::new()));
    }
}
