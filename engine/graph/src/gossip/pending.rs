//! Announcements with valid signatures whose funding outputs are being looked up ([`super::FundingCheck::First`]).
//!
//! Owns the announcements and their bound: [`super::GossipConfig::pending_bytes`]. Signatures by made-up keys cost an
//! attacker nothing, so neither the number nor the size of such announcements is limited by their validity.
//!
//! Invariant: the bytes kept never exceed the limits; an announcement that does not fit is refused, not one that was
//! accepted earlier.

use std::collections::BTreeMap;

use secp256k1::PublicKey;

use super::budget::{ByteLimit, ByteUsage};
use super::outcome::{FundingLookup, Refusal, Source};

/// The size of an entry beside the message: the lookup, two keys and the maps' nodes, rounded up.
const ENTRY_BYTES: usize = 512;

/// An announcement that waits for the answer to its lookup.
#[derive(Debug)]
pub(super) struct PendingAnnouncement {
    pub(super) bytes: Vec<u8>,
    /// The keys of the nodes, in their order.
    pub(super) keys: [PublicKey; 2],
    pub(super) from: Source,
    pub(super) since_seconds: u64,
}

/// All announcements that wait.
#[derive(Debug, Default)]
pub(super) struct PendingAnnouncements {
    by_lookup: BTreeMap<FundingLookup, PendingAnnouncement>,
    usage: ByteUsage,
}

impl PendingAnnouncements {
    pub(super) fn contains(&self, lookup: FundingLookup) -> bool {
        self.by_lookup.contains_key(&lookup)
    }

    /// The bytes in use.
    pub(super) fn bytes(&self) -> usize {
        self.usage.total()
    }

    /// Keeps an announcement whose lookup is not pending yet. Our own are never refused.
    pub(super) fn insert(
        &mut self,
        lookup: FundingLookup,
        announcement: PendingAnnouncement,
        limit: ByteLimit,
    ) -> Result<(), Refusal> {
        let (from, cost) = (announcement.from, cost(&announcement));
        let fits = self.usage.total() + cost <= limit.total && self.usage.of(from) + cost <= limit.per_source;
        if from != Source::Own && !fits {
            return Err(Refusal::TooManyLookups { bytes: self.usage.total() });
        }
        self.usage.add(from, cost);
        let previous = self.by_lookup.insert(lookup, announcement);
        assert!(previous.is_none(), "a lookup is pending once");
        Ok(())
    }

    /// Takes out the announcement that a lookup was for.
    pub(super) fn remove(&mut self, lookup: FundingLookup) -> Option<PendingAnnouncement> {
        let announcement = self.by_lookup.remove(&lookup)?;
        self.usage.remove(announcement.from, cost(&announcement));
        Some(announcement)
    }

    /// Drops announcements that have waited since before `since_seconds`.
    pub(super) fn expire(&mut self, since_seconds: u64) {
        let old =
            self.by_lookup.iter().filter(|(_, announcement)| announcement.since_seconds < since_seconds);
        let lookups: Vec<FundingLookup> = old.map(|(lookup, _)| *lookup).collect();
        for lookup in lookups {
            self.remove(lookup);
        }
    }
}

fn cost(announcement: &PendingAnnouncement) -> usize {
    announcement.bytes.len() + ENTRY_BYTES
}
