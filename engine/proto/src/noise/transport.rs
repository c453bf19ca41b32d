//! Messages after the handshake: sealing, opening and the rotation of keys (BOLT 8 "Lightning Message Specification").
//!
//! Owns: the nonces of both directions, and the framing of messages in a stream of bytes. Does not own a buffer: a
//! message is sealed into the caller's and opened in place in the caller's.
//!
//! Invariant: no nonce serves twice under a key. An opener that has met a wrong tag opens nothing more, since its place
//! in the stream is lost.

use core::fmt;
use core::ops::Range;

use super::cipher::{Key, TAG_BYTES, WrongTag};

/// The longest message, in bytes.
pub const MESSAGE_BYTES_MAX: usize = 65_535;
/// The bytes before each message: its encrypted length with a tag.
pub const LENGTH_BYTES: usize = 2 + TAG_BYTES;
/// The longest sealed message, in bytes.
pub const FRAME_BYTES_MAX: usize = LENGTH_BYTES + MESSAGE_BYTES_MAX + TAG_BYTES;

/// The uses after which a key is replaced: two for each message.
const USES_MAX: u64 = 1_000;

/// Both directions of a connection whose handshake is done.
#[derive(Debug)]
pub struct Transport {
    /// Seals messages to the peer.
    pub sealer: Sealer,
    /// Opens messages from the peer.
    pub opener: Opener,
}

/// Seals messages to a peer.
pub struct Sealer(Direction);

/// Opens messages from a peer.
pub struct Opener {
    direction: Direction,
    /// The length of the next message, once opened, or why nothing can be opened any more.
    next: Next,
}

/// The start of a buffer, as [`Opener::open`] finds it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum Opened {
    /// A message, opened in place.
    Message {
        /// Its place in the buffer.
        message: Range<usize>,
        /// Where the next one begins.
        end: usize,
    },
    /// The message is not whole yet.
    Incomplete {
        /// The least number of bytes, from the start of the buffer, with which there is progress.
        needed: usize,
    },
}

/// A message is longer than BOLT 8 allows; nothing was sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a message of {bytes} bytes: BOLT 8 allows {MESSAGE_BYTES_MAX}")]
pub struct MessageTooLong {
    /// Its length.
    pub bytes: usize,
}

/// Why bytes cannot be opened. The connection is to be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// The tag of a length is wrong.
    #[error("the tag of a message's length is wrong")]
    LengthTag,
    /// The tag of a message is wrong.
    #[error("the tag of a message of {bytes} bytes is wrong")]
    MessageTag {
        /// The message's length.
        bytes: u16,
    },
}

#[derive(Clone, Copy)]
enum Next {
    Length,
    Message(u16),
    Failed(FrameError),
}

impl Transport {
    pub(super) fn new(sending: Key, receiving: Key, chaining_key: &Key) -> Transport {
        let direction = |key| Direction { key, chaining_key: Key::new(*chaining_key.bytes()), nonce: 0 };
        let opener = Opener { direction: direction(receiving), next: Next::Length };
        Transport { sealer: Sealer(direction(sending)), opener }
    }

    /// The sending and the receiving key.
    #[cfg(test)]
    pub(super) fn keys(&self) -> (&[u8; 32], &[u8; 32]) {
        (self.sealer.0.key.bytes(), self.opener.direction.key.bytes())
    }
}

impl Sealer {
    /// Appends a message to `out`, sealed: [`LENGTH_BYTES`] and [`TAG_BYTES`] more than the message.
    ///
    /// # Errors
    /// When the message is too long.
    pub fn seal(&mut self, message: &[u8], out: &mut Vec<u8>) -> Result<(), MessageTooLong> {
        let Ok(length) = u16::try_from(message.len()) else {
            return Err(MessageTooLong { bytes: message.len() });
        };
        out.reserve(LENGTH_BYTES + message.len() + TAG_BYTES);
        for text in [&length.to_be_bytes(), message] {
            let start = out.len();
            out.extend_from_slice(text);
            let tag = self.0.seal(&mut out[start..]);
            out.extend_from_slice(&tag);
        }
        Ok(())
    }
}

impl Opener {
    /// Opens the message that `buffer` begins with, in place. Call it again with the buffer from `end` on; while the
    /// message is incomplete, with the same bytes and more behind them.
    ///
    /// # Errors
    /// When a tag is wrong, now or at an earlier call.
    pub fn open(&mut self, buffer: &mut [u8]) -> Result<Opened, FrameError> {
        let length = match self.next {
            Next::Failed(error) => return Err(error),
            Next::Message(length) => length,
            Next::Length => {
                let Some((first, _)) = buffer.split_first_chunk_mut::<LENGTH_BYTES>() else {
                    return Ok(Opened::Incomplete { needed: LENGTH_BYTES });
                };
                self.open_part(first, FrameError::LengthTag)?;
                let length = u16::from_be_bytes([first[0], first[1]]);
                self.next = Next::Message(length);
                length
            }
        };
        let message = LENGTH_BYTES..LENGTH_BYTES + usize::from(length);
        let end = message.end + TAG_BYTES;
        let Some(frame) = buffer.get_mut(message.start..end) else {
            return Ok(Opened::Incomplete { needed: end });
        };
        self.open_part(frame, FrameError::MessageTag { bytes: length })?;
        self.next = Next::Length;
        Ok(Opened::Message { message, end })
    }

    /// Opens a text that ends in its tag.
    fn open_part(&mut self, part: &mut [u8], error: FrameError) -> Result<(), FrameError> {
        let (text, tag) = part.split_last_chunk_mut().expect("a length or message ends in a tag");
        self.direction.open(text, tag).map_err(|WrongTag| {
            self.next = Next::Failed(error);
            error
        })
    }
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sealer(..)")
    }
}

impl fmt::Debug for Opener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Opener(..)")
    }
}

/// The keys of one direction.
struct Direction {
    key: Key,
    chaining_key: Key,
    nonce: u64,
}

impl Direction {
    fn seal(&mut self, text: &mut [u8]) -> [u8; TAG_BYTES] {
        let tag = self.key.seal(self.nonce, &[], text);
        self.advance();
        tag
    }

    fn open(&mut self, text: &mut [u8], tag: &[u8; TAG_BYTES]) -> Result<(), WrongTag> {
        self.key.open(self.nonce, &[], text, tag)?;
        self.advance();
        Ok(())
    }

    /// "Lightning Message Key Rotation".
    fn advance(&mut self) {
        self.nonce += 1;
        if self.nonce == USES_MAX {
            (self.chaining_key, self.key) = self.chaining_key.expand(self.key.bytes());
            self.nonce = 0;
        }
    }
}
