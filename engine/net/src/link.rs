//! An authenticated connection's input: from the socket's bytes to opened messages.
//!
//! Owns: reading into the loop's buffer, opening messages in place there, and the bytes of a message that is not whole
//! yet. Does not interpret messages.
//!
//! An idle connection holds no buffer: all connections of a loop read into one, and only the start of an incomplete
//! message is kept, in memory that is at most twice as long as the bytes received of it.
//!
//! Invariant: messages come out in order, each once; after an error none does.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSliceMut, Read};
use std::ops::Range;
use std::time::Instant;

use fulmen_proto::noise::{Opened, Opener, Sealer, Transport};

use crate::error::CloseReason;

/// The least memory for the start of a message, in bytes.
const PARTIAL_BYTES_MIN: usize = 1 << 10;

/// A connection after its handshake.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) sealer: Sealer,
    opener: Opener,
    /// The bytes of a message that is not whole yet.
    partial: Vec<u8>,
    /// The bytes that `partial` lacks until something can be opened.
    missing: usize,
    /// Opened messages that the engine has not accepted.
    pub(crate) refused: VecDeque<Vec<u8>>,
    /// When the last bytes came.
    pub(crate) heard: Instant,
    /// When the `ping` that no byte has followed was sent.
    pub(crate) pinged: Option<Instant>,
}

/// The buffer into which all connections of a loop are read, and the messages of the last one.
#[derive(Debug)]
pub(crate) struct ReadBuffer {
    bytes: Vec<u8>,
    /// The message that completed the bytes of earlier reads.
    first: Option<(Vec<u8>, Range<usize>)>,
    /// The messages in `bytes`.
    rest: Vec<Range<usize>>,
}

/// The end of a read, after its messages.
#[derive(Debug)]
pub(crate) enum ReadEnd {
    /// The socket may have more bytes.
    More,
    /// The socket had fewer bytes than there was room.
    Drained,
    /// The connection is over.
    Closed(CloseReason),
}

impl ReadBuffer {
    pub(crate) fn new(bytes: usize) -> ReadBuffer {
        ReadBuffer { bytes: vec![0; bytes], first: None, rest: Vec::new() }
    }

    /// The buffer itself, for bytes that nobody reads.
    pub(crate) fn scratch(&mut self) -> &mut [u8] {
        &mut self.bytes
    }

    /// The messages of the last read.
    pub(crate) fn messages(&self) -> impl Iterator<Item = &[u8]> {
        let first = self.first.iter().map(|(bytes, at)| &bytes[at.clone()]);
        first.chain(self.rest.iter().map(|at| &self.bytes[at.clone()]))
    }
}

impl Link {
    pub(crate) fn new(transport: Transport, now: Instant) -> Link {
        let Transport { sealer, opener } = transport;
        let (partial, refused) = (Vec::new(), VecDeque::new());
        Link { sealer, opener, partial, missing: 0, refused, heard: now, pinged: None }
    }

    /// Reads once, and opens every message that is whole.
    pub(crate) fn read(&mut self, socket: &mut impl Read, buffer: &mut ReadBuffer, now: Instant) -> ReadEnd {
        buffer.first = None;
        buffer.rest.clear();
        let had = self.partial.len();
        let tail = self.make_room();
        self.partial.resize(had + tail, 0);
        let slices = &mut [IoSliceMut::new(&mut self.partial[had..]), IoSliceMut::new(&mut buffer.bytes)];
        let read = socket.read_vectored(slices);
        let count = *read.as_ref().unwrap_or(&0);
        self.partial.truncate(had + count.min(tail));
        match read {
            Ok(0) => ReadEnd::Closed(CloseReason::ClosedByPeer),
            Ok(count) => {
                (self.heard, self.pinged) = (now, None);
                if let Err(reason) = self.open(buffer, count.saturating_sub(tail)) {
                    return ReadEnd::Closed(reason);
                }
                if count < tail + buffer.bytes.len() { ReadEnd::Drained } else { ReadEnd::More }
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => ReadEnd::Drained,
            Err(error) if error.kind() == ErrorKind::Interrupted => ReadEnd::More,
            Err(error) => ReadEnd::Closed(CloseReason::Socket(error.kind())),
        }
    }

    /// Room for more bytes of the partial message, in bytes: none if there is none, else what its memory has left,
    /// which is doubled when nearly full.
    fn make_room(&mut self) -> usize {
        let had = self.partial.len();
        if had == 0 {
            return 0;
        }
        let left = self.partial.capacity() - had;
        if left < self.missing.min(PARTIAL_BYTES_MIN / 2) {
            self.partial.reserve_exact(self.missing.min(had.max(PARTIAL_BYTES_MIN)));
        }
        self.missing.min(self.partial.capacity() - had)
    }

    /// Opens the partial message and those in the first `end` bytes of the buffer.
    fn open(&mut self, buffer: &mut ReadBuffer, end: usize) -> Result<(), CloseReason> {
        let mut start = 0;
        while !self.partial.is_empty() {
            match self.opener.open(&mut self.partial)? {
                Opened::Message { message, .. } => {
                    buffer.first = Some((std::mem::take(&mut self.partial), message));
                }
                Opened::Incomplete { needed } => {
                    let missing = needed - self.partial.len();
                    let now = missing.min(end - start);
                    if now == 0 {
                        self.missing = missing;
                        return Ok(());
                    }
                    self.partial.extend_from_slice(&buffer.bytes[start..start + now]);
                    start += now;
                }
            }
        }
        while start < end {
            match self.opener.open(&mut buffer.bytes[start..end])? {
                Opened::Message { message, end: next } => {
                    buffer.rest.push(start + message.start..start + message.end);
                    start += next;
                }
                Opened::Incomplete { needed } => {
                    self.missing = needed - (end - start);
                    self.partial.extend_from_slice(&buffer.bytes[start..end]);
                    break;
                }
            }
        }
        Ok(())
    }
}

/// Discards the input of a connection that only waits for the peer to close it; true once it has.
pub(crate) fn discard(socket: &mut impl Read, buffer: &mut ReadBuffer) -> bool {
    // A peer that keeps sending is cut off by the caller's timer; this bounds one call.
    for _ in 0..4 {
        match socket.read(buffer.scratch()) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) => return !matches!(error.kind(), io::ErrorKind::WouldBlock | ErrorKind::Interrupted),
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use fulmen_proto::keys::{NodeSeed, secp};
    use fulmen_proto::noise::{FRAME_BYTES_MAX, FrameError, Initiator, Responder};

    use super::*;

    /// Gives its bytes in pieces of the lengths given, over and over.
    struct Pieces<'a> {
        bytes: &'a [u8],
        lengths: Vec<usize>,
        at: usize,
    }

    impl Read for Pieces<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.read_vectored(&mut [IoSliceMut::new(buffer)])
        }

        fn read_vectored(&mut self, buffers: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
            if self.bytes.is_empty() {
                return Err(ErrorKind::WouldBlock.into());
            }
            let mut room = self.lengths[self.at % self.lengths.len()];
            self.at += 1;
            let mut total = 0;
            for buffer in buffers {
                let now = buffer.len().min(room).min(self.bytes.len());
                buffer[..now].copy_from_slice(&self.bytes[..now]);
                self.bytes = &self.bytes[now..];
                room -= now;
                total += now;
            }
            Ok(total)
        }
    }

    fn transports() -> (Transport, Transport) {
        let key = |index| NodeSeed::new([1; 32]).key(b"test", index);
        let (initiator, one) = Initiator::new(&key(1), key(2), &key(3).public_key(secp()));
        let (responder, two) = Responder::new(&key(3), key(4), &one).unwrap();
        let (ours, three) = initiator.finish(&two).unwrap();
        (ours, responder.finish(&three).unwrap().0)
    }

    #[test]
    fn messages_come_out_whole_whatever_the_pieces() {
        for lengths in [vec![1], vec![17, 18, 19], vec![5_000, 3], vec![1 << 20], vec![70_000, 1, 30]] {
            let (mut ours, theirs) = transports();
            let mut sealed = Vec::new();
            let messages: Vec<Vec<u8>> = [0, 3, 1_400, 65_535, 16, 1, 40_000, 0, 2]
                .into_iter()
                .zip(1..)
                .map(|(length, byte)| vec![byte; length])
                .collect();
            messages.iter().for_each(|message| ours.sealer.seal(message, &mut sealed).unwrap());
            let mut link = Link::new(theirs, Instant::now());
            let mut buffer = ReadBuffer::new(FRAME_BYTES_MAX);
            let mut socket = Pieces { bytes: &sealed, lengths, at: 0 };
            let mut opened = Vec::new();
            while !socket.bytes.is_empty() {
                let end = link.read(&mut socket, &mut buffer, Instant::now());
                assert!(!matches!(end, ReadEnd::Closed(_)), "{end:?}");
                opened.extend(buffer.messages().map(<[u8]>::to_vec));
                let bound = (2 * link.partial.len()).max(2 * PARTIAL_BYTES_MIN);
                assert!(
                    link.partial.capacity() <= bound,
                    "{} bytes for {}",
                    link.partial.capacity(),
                    bound / 2
                );
            }
            assert_eq!(opened, messages);
            assert_eq!(link.partial.capacity(), 0, "an idle connection holds no buffer");
        }
    }

    #[test]
    fn messages_before_damage_are_opened_and_none_after() {
        let (mut ours, theirs) = transports();
        let mut sealed = Vec::new();
        (0..3).for_each(|byte| ours.sealer.seal(&[byte; 10], &mut sealed).unwrap());
        sealed[2 * 44 + 20] ^= 1;
        let mut link = Link::new(theirs, Instant::now());
        let mut buffer = ReadBuffer::new(FRAME_BYTES_MAX);
        let mut socket = Pieces { bytes: &sealed, lengths: vec![1_000], at: 0 };
        let end = link.read(&mut socket, &mut buffer, Instant::now());
        let expected = FrameError::MessageTag { bytes: 10 };
        assert!(matches!(end, ReadEnd::Closed(CloseReason::Frame(error)) if error == expected), "{end:?}");
        assert_eq!(buffer.messages().count(), 2);
    }
}
