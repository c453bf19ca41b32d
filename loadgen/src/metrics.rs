//! Measurements of the payments stage: latencies, hops, throughput over time, processor time.
//!
//! Owns: the histogram, the timeline and the reading of a thread's processor time. Does not own the figures' form in
//! the report beyond producing it.
//!
//! Invariant: recording never fails and never grows without bound: latencies are held at an hour, the timeline at
//! [`SLOTS_MAX`] slots (it halves its resolution instead of growing).

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use hdrhistogram::Histogram;

use crate::paying::{End, Outcome};
use crate::report::{Latency, LatencyBucket, TimelineSlot};

/// The longest latency recorded as it is, in microseconds.
const LATENCY_MAX_US: u64 = 3_600_000_000;
/// How many slices the timeline has at most.
const SLOTS_MAX: usize = 120;
/// The timeline's first resolution.
const SLOT_FIRST: Duration = Duration::from_millis(50);

/// The measurements of the payments stage.
#[derive(Debug)]
pub(crate) struct Metrics {
    latency: Histogram<u64>,
    hops: BTreeMap<u32, u64>,
    slots: Vec<Slot>,
    slot_length: Duration,
}

#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    succeeded: u64,
    failed: u64,
    forwards: u64,
}

impl Slot {
    fn merge(self, other: Slot) -> Slot {
        Slot {
            succeeded: self.succeeded + other.succeeded,
            failed: self.failed + other.failed,
            forwards: self.forwards + other.forwards,
        }
    }
}

impl Metrics {
    /// Nothing measured yet.
    pub(crate) fn new() -> Metrics {
        let latency = Histogram::new_with_bounds(1, LATENCY_MAX_US, 3)
            .expect("the bounds are constants hdrhistogram accepts");
        Metrics { latency, hops: BTreeMap::new(), slots: Vec::new(), slot_length: SLOT_FIRST }
    }

    /// A payment is over, `at` since the stage began.
    pub(crate) fn resolved(&mut self, at: Duration, outcome: &Outcome) {
        if outcome.end == End::Succeeded {
            let parts = outcome.payer.settled.iter();
            let hops = parts.map(|part| u32::try_from(part.route.hops.len()).unwrap_or(u32::MAX));
            self.succeeded(at, outcome.latency, hops);
        } else {
            self.failed(at);
        }
    }

    /// A payment succeeded `at` (since the stage began), `latency` after it was handed to its payer, in parts over so
    /// many channels each.
    pub(crate) fn succeeded(&mut self, at: Duration, latency: Duration, parts: impl Iterator<Item = u32>) {
        let us = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        self.latency.saturating_record(us.clamp(1, LATENCY_MAX_US));
        let mut forwards = 0;
        for hops in parts {
            *self.hops.entry(hops).or_default() += 1;
            forwards += u64::from(hops.saturating_sub(1));
        }
        let slot = self.slot(at);
        slot.succeeded += 1;
        slot.forwards += forwards;
    }

    /// A payment failed `at`.
    pub(crate) fn failed(&mut self, at: Duration) {
        self.slot(at).failed += 1;
    }

    /// Fulfilled parts by the channels they crossed.
    pub(crate) fn hops(&self) -> BTreeMap<u32, u64> {
        self.hops.clone()
    }

    /// The quantiles of the report.
    pub(crate) fn latency(&self) -> Latency {
        if self.latency.is_empty() {
            return Latency::default();
        }
        let at = |quantile| self.latency.value_at_quantile(quantile);
        Latency { p50: at(0.5), p90: at(0.9), p99: at(0.99), p999: at(0.999), max: self.latency.max() }
    }

    /// The bars of the page's histogram: each a quarter wider than the one before, from the fastest to the slowest.
    pub(crate) fn latency_buckets(&self) -> Vec<LatencyBucket> {
        if self.latency.is_empty() {
            return Vec::new();
        }
        let (mut from, max) = (self.latency.min().max(1), self.latency.max());
        let mut buckets = Vec::new();
        while from <= max {
            let to = (from + from / 4).max(from + 1);
            buckets.push(LatencyBucket { from_us: from, to_us: to, count: 0 });
            from = to;
        }
        for cell in self.latency.iter_recorded() {
            let value = cell.value_iterated_to().min(max);
            let index = buckets.partition_point(|bucket: &LatencyBucket| bucket.to_us <= value);
            if let Some(bucket) = buckets.get_mut(index) {
                bucket.count += cell.count_at_value();
            }
        }
        buckets
    }

    /// The timeline of the report.
    pub(crate) fn timeline(&self) -> Vec<TimelineSlot> {
        let length_s = self.slot_length.as_secs_f64();
        let slots = self.slots.iter().enumerate();
        slots
            .map(|(index, slot)| TimelineSlot {
                start_s: index as f64 * length_s,
                length_s,
                succeeded: slot.succeeded,
                failed: slot.failed,
                forwards: slot.forwards,
            })
            .collect()
    }

    fn slot(&mut self, at: Duration) -> &mut Slot {
        let index =
            |length: Duration| usize::try_from(at.as_nanos() / length.as_nanos()).unwrap_or(usize::MAX);
        while index(self.slot_length) >= SLOTS_MAX {
            self.slot_length *= 2;
            self.slots = self
                .slots
                .chunks(2)
                .map(|pair| pair.iter().fold(Slot::default(), |sum, slot| sum.merge(*slot)))
                .collect();
        }
        let index = index(self.slot_length);
        if self.slots.len() <= index {
            self.slots.resize(index + 1, Slot::default());
        }
        &mut self.slots[index]
    }
}

/// The processor time the calling thread has used, where the system reports it (Linux).
pub(crate) fn thread_cpu() -> Option<Duration> {
    parse_schedstat(&fs::read_to_string("/proc/thread-self/schedstat").ok()?)
}

/// The time on a processor out of a `schedstat` file: its first number, in nanoseconds.
pub(crate) fn parse_schedstat(text: &str) -> Option<Duration> {
    text.split_whitespace().next()?.parse().ok().map(Duration::from_nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_and_buckets_hold_every_payment() {
        let mut metrics = Metrics::new();
        assert_eq!(metrics.latency().max, 0);
        assert!(metrics.latency_buckets().is_empty());
        for ms in 1..=1000 {
            metrics.succeeded(Duration::from_millis(ms), Duration::from_millis(ms), [3].into_iter());
        }
        let latency = metrics.latency();
        assert!(
            latency.p50.abs_diff(500_000) < 1_000 && latency.p99.abs_diff(990_000) < 2_000,
            "{latency:?}"
        );
        assert!(latency.p90 <= latency.p99 && latency.p99 <= latency.p999 && latency.p999 <= latency.max);
        let buckets = metrics.latency_buckets();
        assert!(buckets.windows(2).all(|pair| pair[0].to_us == pair[1].from_us));
        assert_eq!(buckets.iter().map(|bucket| bucket.count).sum::<u64>(), 1000);
        assert_eq!(metrics.hops(), BTreeMap::from([(3, 1000)]));
    }

    #[test]
    fn the_timeline_keeps_counts_when_it_coarsens() {
        let mut metrics = Metrics::new();
        for second in 0..600 {
            metrics.succeeded(Duration::from_secs(second), Duration::from_micros(5), [2].into_iter());
            metrics.failed(Duration::from_secs(second));
        }
        let timeline = metrics.timeline();
        assert!(timeline.len() <= SLOTS_MAX);
        assert_eq!(timeline.iter().map(|slot| slot.succeeded).sum::<u64>(), 600);
        assert_eq!(timeline.iter().map(|slot| slot.failed + slot.forwards).sum::<u64>(), 1200);
    }

    #[test]
    fn an_absurd_latency_is_held_not_lost() {
        let mut metrics = Metrics::new();
        metrics.succeeded(Duration::ZERO, Duration::from_secs(1 << 40), [1].into_iter());
        metrics.succeeded(Duration::ZERO, Duration::ZERO, [1].into_iter());
        assert!(metrics.latency().max >= LATENCY_MAX_US);
        assert_eq!(metrics.latency().p50, 1);
    }
}
