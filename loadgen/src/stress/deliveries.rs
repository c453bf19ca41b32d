//! The durable events of the forwarder, as the driver receives them over its lives.
//!
//! Owns the numbers seen and acknowledged, and the rules: numbers of a shard have no gap, every event comes at least
//! once, and none again whose acknowledgement is durable. Does not know what an event says.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use serde::Serialize;

/// When an acknowledgement is durable for sure: a second and a sync later, and a machine under load takes longer.
const ACKNOWLEDGED_AFTER: Duration = Duration::from_secs(2);

/// Events by how they were delivered.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct EventCounts {
    /// Different events.
    pub(crate) delivered: u64,
    /// Deliveries of an event that had been delivered before.
    pub(crate) repeated: u64,
    /// Numbers that were left out.
    pub(crate) missing: u64,
    /// Deliveries of an event whose acknowledgement was durable.
    pub(crate) after_acknowledgement: u64,
}

/// The deliveries of all shards.
#[derive(Debug, Default)]
pub(super) struct Deliveries {
    shards: BTreeMap<u16, Shard>,
    pub(super) counts: EventCounts,
}

#[derive(Debug, Default)]
struct Shard {
    /// The greatest number seen.
    last: u64,
    /// Acknowledgements that may not be durable yet, with their times.
    acknowledged: VecDeque<(Instant, u64)>,
    /// The greatest number whose acknowledgement is durable.
    durable: u64,
    /// The last event is to be acknowledged.
    is_due: bool,
}

impl Deliveries {
    /// An event arrives. Returns whether it does so for the first time.
    pub(super) fn deliver(&mut self, shard: u16, number: u64) -> bool {
        let shard = self.shards.entry(shard).or_default();
        shard.is_due = true;
        if number <= shard.last {
            self.counts.repeated += 1;
            self.counts.after_acknowledgement += u64::from(number <= shard.durable);
            return false;
        }
        self.counts.missing += number - shard.last - 1;
        self.counts.delivered += 1;
        shard.last = number;
        true
    }

    /// The shards and numbers to acknowledge now: everything that was delivered.
    pub(super) fn acknowledge(&mut self, now: Instant) -> Vec<(u16, u64)> {
        let due = self.shards.iter_mut().filter_map(|(number, shard)| {
            std::mem::take(&mut shard.is_due).then(|| {
                shard.acknowledged.push_back((now, shard.last));
                (*number, shard.last)
            })
        });
        due.collect()
    }

    /// The forwarder is killed: acknowledgements of the last seconds may be lost.
    pub(super) fn killed(&mut self, now: Instant) {
        for shard in self.shards.values_mut() {
            for (at, number) in shard.acknowledged.drain(..) {
                if now.saturating_duration_since(at) >= ACKNOWLEDGED_AFTER {
                    shard.durable = shard.durable.max(number);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_repetitions_and_forgotten_acknowledgements_are_told_apart() {
        let begun = Instant::now();
        let mut deliveries = Deliveries::default();
        assert!((1..=3).all(|number| deliveries.deliver(0, number)) && deliveries.deliver(1, 1));
        assert_eq!(deliveries.acknowledge(begun), [(0, 3), (1, 1)]);
        assert_eq!(deliveries.acknowledge(begun), []);
        assert!(deliveries.deliver(0, 4));
        assert_eq!(deliveries.acknowledge(begun + ACKNOWLEDGED_AFTER), [(0, 4)]);
        deliveries.killed(begun + ACKNOWLEDGED_AFTER);
        // The acknowledgement of 4 may be lost, that of 3 may not; 5 is left out.
        assert!(!deliveries.deliver(0, 4) && !deliveries.deliver(0, 3) && deliveries.deliver(0, 6));
        let EventCounts { delivered, repeated, missing, after_acknowledgement } = deliveries.counts;
        assert_eq!((delivered, repeated, missing, after_acknowledgement), (6, 2, 1, 1));
    }
}
