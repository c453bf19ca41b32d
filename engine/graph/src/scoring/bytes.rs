//! Learned liquidity as bytes: saved, loaded, and merged with that of another scorer.
//!
//! Owns the format, all numbers little-endian: `FSC` and the version `1`; the number of channels (`u32`); then for
//! each channel in ascending order of its scid 64 bytes: scid, capacity, lower and upper bound in millisatoshi and
//! the time of the bounds in seconds (`u64` each), eight weights of the history (`u16` each), and the time of the
//! history (`u64`). Penalties and bans are the operator's and are not saved.
//!
//! Invariant: no bytes from outside make a record with inconsistent numbers.

use fulmen_wire::units::Scid;
use thiserror::Error;

use crate::scoring::Scorer;
use crate::scoring::liquidity::{BUCKETS, Fading, Liquidity};

/// The format's name and version.
const MAGIC: [u8; 4] = *b"FSC\x01";

/// The bytes of one channel.
const RECORD: usize = 6 * 8 + BUCKETS * 2;

/// The reason why bytes are not a saved scorer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ScorerError {
    /// The bytes do not start with this version's magic.
    #[error("the bytes start with {found:02x?}, not with {MAGIC:02x?}")]
    UnknownFormat {
        /// The first bytes; zeros where there are fewer.
        found: [u8; 4],
    },
    /// The length does not match the number of channels.
    #[error("{channels} channels take {expected} bytes, but there are {found}")]
    WrongLength {
        /// The number of channels stated.
        channels: u32,
        /// The bytes that they would take.
        expected: u64,
        /// The bytes present.
        found: usize,
    },
    /// The numbers of a channel contradict each other.
    #[error("what is said of channel {scid} contradicts itself")]
    Contradiction {
        /// The channel.
        scid: Scid,
    },
    /// The channels are not in ascending order, or one is there twice.
    #[error("channel {scid} is out of order")]
    OutOfOrder {
        /// The channel.
        scid: Scid,
    },
}

impl Scorer {
    /// The observations as bytes; equal for equal observations.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(8 + self.slots.len() * RECORD);
        bytes.extend(MAGIC);
        bytes.extend((self.slots.len() as u32).to_le_bytes());
        for (scid, slot) in &self.slots {
            let known = &self.liquidity[*slot as usize];
            for number in [scid.0, known.capacity, known.lower, known.upper, known.bounds_at] {
                bytes.extend(number.to_le_bytes());
            }
            for weight in known.history {
                bytes.extend((weight as u16).to_le_bytes());
            }
            bytes.extend(known.history_at.to_le_bytes());
        }
        bytes
    }

    /// A scorer with the observations that [`Scorer::to_bytes`] saved.
    ///
    /// # Errors
    /// When the bytes are not in this format, or are inconsistent.
    pub fn from_bytes(bytes: &[u8], fading: Fading) -> Result<Scorer, ScorerError> {
        let mut found = [0; 4];
        for (to, from) in found.iter_mut().zip(bytes) {
            *to = *from;
        }
        let Some(rest) = bytes.strip_prefix(&MAGIC) else { return Err(ScorerError::UnknownFormat { found }) };
        let channels = rest.first_chunk().map_or(0, |count| u32::from_le_bytes(*count));
        let expected = 8 + u64::from(channels) * RECORD as u64;
        if rest.len() < 4 || bytes.len() as u64 != expected {
            return Err(ScorerError::WrongLength { channels, expected, found: bytes.len() });
        }
        let mut scorer = Scorer::new(fading);
        for record in rest[4..].chunks_exact(RECORD) {
            let (scid, liquidity) = read_record(record);
            if !liquidity.is_sound() {
                return Err(ScorerError::Contradiction { scid });
            }
            if scorer.slots.last_key_value().is_some_and(|(last, _)| *last >= scid) {
                return Err(ScorerError::OutOfOrder { scid });
            }
            scorer.slots.insert(scid, scorer.liquidity.len() as u32);
            scorer.liquidity.push(liquidity);
        }
        Ok(scorer)
    }

    /// Adds the observations of another scorer: of each channel the younger bounds, and both histories.
    pub fn merge(&mut self, other: &Scorer) {
        for (scid, slot) in &other.slots {
            let theirs = other.liquidity[*slot as usize];
            match self.slots.get(scid) {
                Some(slot) => {
                    let ours = &mut self.liquidity[*slot as usize];
                    *ours = ours.merged(theirs);
                }
                None => {
                    self.slots.insert(*scid, self.liquidity.len() as u32);
                    self.liquidity.push(theirs);
                }
            }
        }
        self.indexed = None;
    }
}

/// One channel, unchecked.
fn read_record(record: &[u8]) -> (Scid, Liquidity) {
    let number = |at: usize| {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&record[at..at + 8]);
        u64::from_le_bytes(bytes)
    };
    let mut history = [0; BUCKETS];
    for (at, weight) in history.iter_mut().enumerate() {
        *weight = u32::from(u16::from_le_bytes([record[40 + 2 * at], record[41 + 2 * at]]));
    }
    let liquidity = Liquidity {
        capacity: number(8),
        lower: number(16),
        upper: number(24),
        bounds_at: number(32),
        history,
        history_at: number(RECORD - 8),
    };
    (Scid(number(0)), liquidity)
}
