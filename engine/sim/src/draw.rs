//! Random draws of a run, all from its seed.
//!
//! Whole numbers from ChaCha20 only, so that a seed means the same run on every machine. Knows no distributions;
//! callers do.

use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// A source of draws.
#[derive(Debug)]
pub(crate) struct Draw(ChaCha20Rng);

impl Draw {
    pub(crate) fn new(seed: u64) -> Draw {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&seed.to_le_bytes());
        Draw(ChaCha20Rng::from_seed(key))
    }

    /// A number between both, ends included. The bias of the remainder is too small for any test to notice.
    pub(crate) fn between(&mut self, least: u64, most: u64) -> u64 {
        least + self.0.next_u64() % (most - least + 1)
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
        self.0.fill_bytes(&mut bytes);
        bytes
    }
}
