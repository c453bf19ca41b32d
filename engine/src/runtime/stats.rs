//! Counters and latencies of the engine.
//!
//! Owns the counters and the latency histogram. Each shard has its own, so that no two workers write to one cache line
//! only to count; [`Engine::stats`](super::Engine::stats) adds them up. The histogram is not the library's: its buckets
//! are atomics, which workers increment without a lock.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use fulmen_proto::forward::{CryptoCounters, Occupancy};

use crate::store::StoreStats;

/// Counters of an engine since it started, and its present load.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Stats {
    /// Each shard, by number.
    pub shards: Vec<ShardStats>,
    /// Cryptographic operations of all shards together.
    pub crypto: CryptoCounters,
    /// The store: its syncs, and the bytes written.
    pub store: StoreStats,
    /// Turns whose records are not yet durable.
    pub unwritten_turns: u64,
    /// Time from the arrival of a turn's oldest input to the release of its effects.
    pub latency: LatencyHistogram,
}

/// Counters of one shard since the engine started, and its present load.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct ShardStats {
    /// Turns run.
    pub turns: u64,
    /// Inputs of those turns.
    pub inputs: u64,
    /// The most inputs of one turn.
    pub inputs_max: u64,
    /// Inputs in the queue.
    pub queued: u64,
    /// Bytes of messages in the queue.
    pub queued_bytes: u64,
    /// Handoffs sent to other shards.
    pub handoffs: u64,
    /// Channels, circuits and HTLCs it holds.
    pub occupancy: Occupancy,
}

/// A histogram of latencies whose buckets are at most an eighth wide.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LatencyHistogram {
    counts: Vec<u64>,
}

impl LatencyHistogram {
    /// The number of latencies counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The latency that `share` of all (0 to 1) do not exceed, rounded up to its bucket; zero when none was counted.
    #[must_use]
    pub fn quantile(&self, share: f64) -> Duration {
        let wanted = (self.count() as f64 * share).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                return Duration::from_micros(bucket_end_us(bucket));
            }
        }
        Duration::ZERO
    }

    /// The upper ends of the buckets that are not empty, each with its count.
    pub fn buckets(&self) -> impl Iterator<Item = (Duration, u64)> + '_ {
        let met = self.counts.iter().enumerate().filter(|(_, count)| **count > 0);
        met.map(|(bucket, count)| (Duration::from_micros(bucket_end_us(bucket)), *count))
    }

    pub(super) fn add(&mut self, counters: &ShardCounters) {
        self.counts.resize(BUCKETS, 0);
        for (count, counter) in self.counts.iter_mut().zip(&counters.latency) {
            *count += counter.load(Relaxed);
        }
    }
}

/// Buckets of one power of two.
const STEPS: usize = 8;
/// Up to 2^32 microseconds: more than an hour.
const BUCKETS: usize = 30 * STEPS;

fn bucket(latency: Duration) -> usize {
    let us = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
    if us < STEPS as u64 {
        return us as usize;
    }
    let power = us.ilog2() as usize;
    let step = (us >> (power - 3)) as usize - STEPS;
    ((power - 2) * STEPS + step).min(BUCKETS - 1)
}

/// The largest latency of a bucket.
fn bucket_end_us(bucket: usize) -> u64 {
    let (power, step) = (bucket / STEPS, (bucket % STEPS) as u64);
    match power {
        0 => step,
        power => ((STEPS as u64 + step + 1) << (power - 1)) - 1,
    }
}

/// The counters of one shard.
#[derive(Debug)]
pub(super) struct ShardCounters {
    pub(super) turns: AtomicU64,
    pub(super) inputs: AtomicU64,
    pub(super) inputs_max: AtomicU64,
    pub(super) handoffs: AtomicU64,
    latency: Box<[AtomicU64]>,
}

impl Default for ShardCounters {
    fn default() -> ShardCounters {
        ShardCounters {
            turns: AtomicU64::new(0),
            inputs: AtomicU64::new(0),
            inputs_max: AtomicU64::new(0),
            handoffs: AtomicU64::new(0),
            latency: (0..BUCKETS).map(|_| AtomicU64::new(0)).collect(),
        }
    }
}

impl ShardCounters {
    pub(super) fn turn(&self, inputs: usize, handoffs: usize) {
        self.turns.fetch_add(1, Relaxed);
        self.inputs.fetch_add(inputs as u64, Relaxed);
        self.inputs_max.fetch_max(inputs as u64, Relaxed);
        self.handoffs.fetch_add(handoffs as u64, Relaxed);
    }

    pub(super) fn released(&self, latency: Duration) {
        self.latency[bucket(latency)].fetch_add(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_an_eighth_wide_at_most() {
        for us in (0..5_000).chain([1 << 20, (1 << 30) + 12_345]) {
            let end = bucket_end_us(bucket(Duration::from_micros(us)));
            assert!(end >= us && end - us <= us / 8, "{us} us is counted as {end} us");
        }
        assert_eq!(bucket(Duration::MAX), BUCKETS - 1);
    }

    #[test]
    fn quantiles_come_from_the_sum_of_all_shards() {
        let (one, other) = (ShardCounters::default(), ShardCounters::default());
        (0..99).for_each(|_| one.released(Duration::from_micros(4)));
        other.released(Duration::from_micros(4_000));
        let mut histogram = LatencyHistogram::default();
        assert_eq!(histogram.quantile(0.5), Duration::ZERO);
        histogram.add(&one);
        histogram.add(&other);
        assert_eq!(histogram.count(), 100);
        assert_eq!(histogram.quantile(0.99), Duration::from_micros(4));
        assert_eq!(histogram.quantile(1.0), Duration::from_micros(4_095));
    }
}
