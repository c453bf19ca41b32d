//! Random draws that never change: whole numbers from ChaCha20, with no floating point and no library's idea of a
//! distribution in between.
//!
//! Does not hold any distribution of the network; see `economy`.

use std::fmt;

use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// A source of draws.
pub(crate) struct Draw(ChaCha20Rng);

impl Draw {
    /// The source that belongs to a seed: the seed's eight little-endian bytes, then zeros, are ChaCha20's key.
    pub(crate) fn new(seed: u64) -> Draw {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&seed.to_le_bytes());
        Draw(ChaCha20Rng::from_seed(key))
    }

    /// A number below `bound`, each equally likely; zero when `bound` is.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        let bound = bound as u64;
        if bound == 0 {
            return 0;
        }
        // Draws from the incomplete last round are thrown away: they would favour the low numbers.
        let usable = u64::MAX - u64::MAX % bound;
        loop {
            let drawn = self.0.next_u64();
            if drawn < usable {
                return (drawn % bound) as usize;
            }
        }
    }

    /// Whether an event of this probability happens.
    pub(crate) fn chance(&mut self, probability: Millionths) -> bool {
        self.below(1_000_000) < probability.0 as usize
    }
}

/// A probability in millionths, so that it is read, compared and printed exactly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Millionths(u32);

impl Millionths {
    /// Reads a decimal from 0 to 1 with at most six decimals.
    pub(crate) fn parse(text: &str) -> Option<Millionths> {
        let (whole, decimals) = text.split_once('.').unwrap_or((text, "0"));
        let digits =
            |part: &str| (1..=6).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit());
        if !digits(whole) || !digits(decimals) {
            return None;
        }
        let millionths =
            whole.parse::<u64>().ok()? * 1_000_000 + format!("{decimals:0<6}").parse::<u64>().ok()?;
        u32::try_from(millionths).ok().filter(|millionths| *millionths <= 1_000_000).map(Millionths)
    }

    /// How many of `trials` events of this probability happen on average.
    pub(crate) const fn of(self, trials: usize) -> usize {
        trials.saturating_mul(self.0 as usize) / 1_000_000
    }
}

impl fmt::Display for Millionths {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let decimals = format!("{:06}", self.0 % 1_000_000);
        match decimals.trim_end_matches('0') {
            "" => write!(f, "{}", self.0 / 1_000_000),
            decimals => write!(f, "{}.{decimals}", self.0 / 1_000_000),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probabilities_are_read_and_printed_exactly() {
        for text in ["0", "1", "0.5", "0.000001", "0.15"] {
            assert_eq!(Millionths::parse(text).map(|parsed| parsed.to_string()).as_deref(), Some(text));
        }
        for text in ["", ".", ".5", "1.", "1.000001", "2", "-0.5", "0.0000001", "1e-3", "99999999999"] {
            assert_eq!(Millionths::parse(text), None, "{text}");
        }
    }

    #[test]
    fn draws_are_even_and_within_bounds() {
        let mut draw = Draw::new(3);
        let mut counts = [0; 7];
        for _ in 0..7_000 {
            counts[draw.below(7)] += 1;
        }
        assert!(counts.iter().all(|count| (850..1150).contains(count)), "{counts:?}");
        assert_eq!((draw.below(0), draw.below(1)), (0, 0));
        let always = Millionths::parse("1").expect("valid");
        let never = Millionths::parse("0").expect("valid");
        assert!((0..100).all(|_| draw.chance(always) && !draw.chance(never)));
    }
}
