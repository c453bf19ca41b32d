//! Bytes for a socket that it has not accepted yet.
//!
//! Owns: sealing messages into chunks, gathering chunks into one system call, and counting. Does not bound itself: the
//! event loop compares [`Outbox::unwritten`] with the limits after each message.
//!
//! Invariant: bytes leave in the order in which they were pushed, each once.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSlice, Write};

use fulmen_proto::noise::{MessageTooLong, Sealer};

/// The length from which a chunk takes no further message. Small messages share a chunk, and leave in one call.
const CHUNK_BYTES: usize = 64 << 10;
/// The chunks of one system call.
const GATHERED_MAX: usize = 16;
/// The chunks kept for reuse by all connections of a loop: 2 MiB.
const SPARE_MAX: usize = 32;
/// A chunk that grew longer than this, by its last message, is not kept.
const SPARE_BYTES_MAX: usize = CHUNK_BYTES + (4 << 10);

/// Empty chunks, for reuse.
#[derive(Debug, Default)]
pub(crate) struct SpareChunks(Vec<Vec<u8>>);

/// The bytes that wait for a socket.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    chunks: VecDeque<Vec<u8>>,
    /// The bytes of the first chunk that the socket has accepted.
    written: usize,
    unwritten: usize,
}

impl SpareChunks {
    fn take(&mut self) -> Vec<u8> {
        self.0.pop().unwrap_or_default()
    }

    fn put(&mut self, mut chunk: Vec<u8>) {
        if self.0.len() < SPARE_MAX && chunk.capacity() <= SPARE_BYTES_MAX {
            chunk.clear();
            self.0.push(chunk);
        }
    }
}

impl Outbox {
    /// The bytes that the socket has not accepted.
    pub(crate) const fn unwritten(&self) -> usize {
        self.unwritten
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.unwritten == 0
    }

    /// Appends bytes as they are.
    pub(crate) fn push(&mut self, bytes: &[u8], spare: &mut SpareChunks) {
        self.chunk(spare).extend_from_slice(bytes);
        self.unwritten += bytes.len();
    }

    /// Appends a message, sealed.
    pub(crate) fn seal(
        &mut self,
        sealer: &mut Sealer,
        message: &[u8],
        spare: &mut SpareChunks,
    ) -> Result<(), MessageTooLong> {
        let chunk = self.chunk(spare);
        let before = chunk.len();
        sealer.seal(message, chunk)?;
        self.unwritten += chunk.len() - before;
        Ok(())
    }

    fn chunk(&mut self, spare: &mut SpareChunks) -> &mut Vec<u8> {
        if self.chunks.back().is_none_or(|chunk| chunk.len() >= CHUNK_BYTES) {
            self.chunks.push_back(spare.take());
        }
        self.chunks.back_mut().expect("a chunk was just appended")
    }

    /// Writes until nothing is left or the socket accepts no more; returns the number of bytes written.
    pub(crate) fn write(&mut self, socket: &mut impl Write, spare: &mut SpareChunks) -> io::Result<usize> {
        let mut total = 0;
        while self.unwritten > 0 {
            let mut slices = [IoSlice::new(&[]); GATHERED_MAX];
            let mut count = 0;
            for (slice, chunk) in slices.iter_mut().zip(&self.chunks) {
                *slice = IoSlice::new(if count == 0 { &chunk[self.written..] } else { chunk });
                count += 1;
            }
            match socket.write_vectored(&slices[..count]) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(bytes) => {
                    total += bytes;
                    self.advance(bytes, spare);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(total)
    }

    fn advance(&mut self, bytes: usize, spare: &mut SpareChunks) {
        self.unwritten -= bytes;
        self.written += bytes;
        while let Some(first) = self.chunks.front()
            && self.written >= first.len()
        {
            self.written -= first.len();
            spare.put(self.chunks.pop_front().expect("there is a first chunk"));
        }
        if self.chunks.is_empty() {
            // An idle connection keeps no buffer.
            self.chunks = VecDeque::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Accepts as many bytes as its next allowance.
    struct Trickle {
        accepted: Vec<u8>,
        allowances: VecDeque<usize>,
        slices_max: usize,
    }

    impl Write for Trickle {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.write_vectored(&[IoSlice::new(bytes)])
        }

        fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
            self.slices_max = self.slices_max.max(slices.len());
            let Some(mut room) = self.allowances.pop_front() else {
                return Err(ErrorKind::WouldBlock.into());
            };
            let before = self.accepted.len();
            for slice in slices {
                let now = slice.len().min(room);
                self.accepted.extend_from_slice(&slice[..now]);
                room -= now;
            }
            Ok(self.accepted.len() - before)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn bytes_leave_in_order_whatever_the_socket_accepts() {
        let (mut outbox, mut spare) = (Outbox::default(), SpareChunks::default());
        let mut expected = Vec::new();
        for byte in 0..100_u8 {
            let bytes = vec![byte; 5_000];
            outbox.push(&bytes, &mut spare);
            expected.extend(bytes);
        }
        let allowances = [1, 70_000, 0x1_0000, 3, 200_000].into();
        let mut socket = Trickle { accepted: Vec::new(), allowances, slices_max: 0 };
        assert_eq!(outbox.write(&mut socket, &mut spare).unwrap(), 335_540);
        assert_eq!(outbox.unwritten(), 500_000 - 335_540);
        assert!(socket.slices_max > 1, "chunks are gathered");
        outbox.push(&[7], &mut spare);
        expected.push(7);
        socket.allowances.push_back(usize::MAX);
        outbox.write(&mut socket, &mut spare).unwrap();
        assert!(outbox.is_empty() && outbox.chunks.capacity() == 0);
        assert_eq!(socket.accepted, expected);
        assert!(!spare.0.is_empty() && spare.0.iter().all(Vec::is_empty));
    }
}
