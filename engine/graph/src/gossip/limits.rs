//! Rate limits of a peer: token buckets for its messages, its faults and its queries.
//!
//! Only reports when a limit is exceeded. Invariant: a bucket never holds more than its burst, and a clock that goes
//! backwards adds nothing.

use super::config::Rate;

/// The tokens left, in 3,600ths: the tokens of an hour accrue evenly, second by second.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bucket {
    parts: u64,
    filled_at: u64,
}

const PARTS: u64 = 3_600;

impl Bucket {
    pub(super) const fn full(rate: Rate, now_seconds: u64) -> Bucket {
        Bucket { parts: rate.burst as u64 * PARTS, filled_at: now_seconds }
    }

    /// Takes a token if there is one.
    pub(super) fn take(&mut self, rate: Rate, now_seconds: u64) -> bool {
        self.fill(rate, now_seconds);
        match self.parts.checked_sub(PARTS) {
            Some(parts) => {
                self.parts = parts;
                true
            }
            None => false,
        }
    }

    pub(super) fn is_full(&mut self, rate: Rate, now_seconds: u64) -> bool {
        self.fill(rate, now_seconds);
        self.parts == u64::from(rate.burst) * PARTS
    }

    fn fill(&mut self, rate: Rate, now_seconds: u64) {
        let elapsed = now_seconds.saturating_sub(self.filled_at);
        self.filled_at = self.filled_at.max(now_seconds);
        let added = elapsed.saturating_mul(u64::from(rate.per_hour));
        self.parts = self.parts.saturating_add(added).min(u64::from(rate.burst) * PARTS);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_run_out_and_come_back() {
        let rate = Rate { burst: 2, per_hour: 60 };
        let mut bucket = Bucket::full(rate, 100);
        assert!(bucket.is_full(rate, 100) && bucket.take(rate, 100) && bucket.take(rate, 100));
        assert!(!bucket.take(rate, 159), "a token a minute");
        assert!(!bucket.take(rate, 20), "an earlier time adds nothing");
        assert!(bucket.take(rate, 160) && !bucket.take(rate, 160));
        assert!(bucket.is_full(rate, u64::MAX), "and never holds more than its burst");
        assert!(bucket.take(rate, u64::MAX) && bucket.take(rate, u64::MAX) && !bucket.take(rate, u64::MAX));
    }
}
