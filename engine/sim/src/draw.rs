//! Random draws of a run, all from its seed.
//!
//! Whole numbers from ChaCha20 only, so that a seed means the same run on every machine. Knows no distributions;
//! callers do.

use std::collections::VecDeque;

use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// A source of draws.
#[derive(Debug)]
pub(crate) struct Draw(Source);

#[derive(Debug)]
enum Source {
    Seeded(Box<ChaCha20Rng>),
    /// A fuzzer's bytes, as few of them for a draw as its range needs; zeros once they are used up.
    Given(VecDeque<u8>),
    /// A fuzzer's choices, one byte each for a small range. Secrets, and choices beyond them, come from a fixed seed:
    /// two payments never share a preimage.
    Chosen {
        choices: VecDeque<u8>,
        rest: Box<ChaCha20Rng>,
    },
}

impl Draw {
    pub(crate) fn new(seed: u64) -> Draw {
        Draw(Source::Seeded(seeded(seed)))
    }

    /// Draws choices from bytes as long as there are some, and everything else from a fixed seed.
    pub(crate) fn chosen(choices: &[u8]) -> Draw {
        Draw(Source::Chosen { choices: choices.iter().copied().collect(), rest: seeded(0) })
    }

    /// Draws from bytes instead of a seed.
    pub(crate) fn given(bytes: &[u8]) -> Draw {
        Draw(Source::Given(bytes.iter().copied().collect()))
    }

    /// Whether given bytes are used up.
    pub(crate) fn is_exhausted(&self) -> bool {
        matches!(&self.0, Source::Given(bytes) if bytes.is_empty())
    }

    /// A number between both, ends included. The bias of the remainder is too small for any test to notice.
    pub(crate) fn between(&mut self, least: u64, most: u64) -> u64 {
        let range = most - least + 1;
        let drawn = match &mut self.0 {
            Source::Seeded(rng) => rng.next_u64(),
            Source::Given(bytes) => number(bytes, range),
            Source::Chosen { choices, rest } if choices.is_empty() => rest.next_u64(),
            Source::Chosen { choices, .. } => number(choices, range),
        };
        least + drawn % range
    }

    /// An index into something of this length, which is not empty.
    pub(crate) fn index(&mut self, length: usize) -> usize {
        self.between(0, length as u64 - 1) as usize
    }

    /// Whether something with this chance in a hundred happens.
    pub(crate) fn percent(&mut self, chance: u64) -> bool {
        self.between(0, 99) < chance
    }

    pub(crate) fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.index(choices.len())]
    }

    pub(crate) fn bytes(&mut self) -> [u8; 32] {
        let mut bytes = [0; 32];
        match &mut self.0 {
            Source::Seeded(rng) | Source::Chosen { rest: rng, .. } => rng.fill_bytes(&mut bytes),
            Source::Given(given) => {
                let length = given.len().min(bytes.len());
                bytes.iter_mut().zip(given.drain(..length)).for_each(|(byte, given)| *byte = given);
            }
        }
        bytes
    }
}

fn seeded(seed: u64) -> Box<ChaCha20Rng> {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    Box::new(ChaCha20Rng::from_seed(key))
}

/// A number from as many bytes as a range needs.
fn number(bytes: &mut VecDeque<u8>, range: u64) -> u64 {
    let needed = (71 - (range - 1).leading_zeros() as usize) / 8;
    bytes.drain(..needed.min(bytes.len())).fold(0, |number, byte| number << 8 | u64::from(byte))
}
