//! A payer's memory of the results of its payments.
//!
//! Owns the [`Scorer`] that results are noted in, and the amounts that failed lately: a channel that had too little a
//! few payments ago is not tried with as much again, whatever the scorer thinks of it. Decides nothing about a
//! payment.
//!
//! Bounds: a scorer knows each channel of the graph at most once; of amounts that failed, those of the last
//! [`BELIEVED_PAYMENTS`] payments are kept.

use std::collections::BTreeMap;

use fulmen_graph::DirectedChannel;
use fulmen_graph::path::{Knowledge, PathHop};
use fulmen_graph::scoring::{Fading, Scorer};
use fulmen_graph::snapshot::Snapshot;
use fulmen_wire::units::Msat;

/// For how many further payments an amount that failed is believed; balances move.
pub(super) const BELIEVED_PAYMENTS: u64 = 8;

/// The memory of a payer.
#[derive(Debug)]
pub(super) struct Learned {
    pub(super) scorer: Scorer,
    /// Whether results are noted at all.
    is_kept: bool,
    /// The latest amount that failed over each direction, and how many payments had begun then.
    failed: BTreeMap<DirectedChannel, (Msat, u64)>,
    begun: u64,
}

impl Learned {
    pub(super) fn new(is_kept: bool) -> Learned {
        Learned { scorer: Scorer::new(Fading::default()), is_kept, failed: BTreeMap::new(), begun: 0 }
    }

    /// One more payment begins: forgets the failures that are no longer believed.
    pub(super) fn payment_begins(&mut self, snapshot: &Snapshot) {
        self.scorer.bind(snapshot);
        self.begun += 1;
        let begun = self.begun;
        self.failed.retain(|_, (_, at)| begun - *at <= BELIEVED_PAYMENTS);
    }

    /// Adds the failures that are still believed to a payer's knowledge.
    pub(super) fn add_to(&self, knowledge: &mut Knowledge) {
        for (directed, (amount, _)) in &self.failed {
            knowledge.note_failure(*directed, *amount);
        }
    }

    /// `hops` of a route carried an HTLC that failed later on. The first one is the payer's own channel, which it knows
    /// better.
    pub(super) fn passed(&mut self, hops: &[PathHop], snapshot: &Snapshot, now_seconds: u64) {
        if self.is_kept {
            for (hop, capacity) in others(hops, snapshot) {
                self.scorer.passed(hop.directed(), capacity, hop.amount, now_seconds);
            }
        }
    }

    /// An HTLC over `hops` was fulfilled.
    pub(super) fn settled(&mut self, hops: &[PathHop], snapshot: &Snapshot, now_seconds: u64) {
        if self.is_kept {
            for (hop, capacity) in others(hops, snapshot) {
                self.scorer.settled(hop.directed(), capacity, hop.amount, now_seconds);
            }
        }
    }

    /// Another node's channel did not have the amount.
    pub(super) fn failed(&mut self, hop: &PathHop, snapshot: &Snapshot, now_seconds: u64) {
        if !self.is_kept {
            return;
        }
        self.failed.insert(hop.directed(), (hop.amount, self.begun));
        if let Some(capacity) = snapshot.capacity(hop.scid) {
            self.scorer.failed(hop.directed(), capacity, hop.amount, now_seconds);
        }
    }
}

/// The hops after the payer's own, with the capacities of their channels.
fn others<'a>(
    hops: &'a [PathHop],
    snapshot: &'a Snapshot,
) -> impl Iterator<Item = (&'a PathHop, fulmen_wire::units::Sat)> {
    hops.iter().skip(1).filter_map(|hop| Some((hop, snapshot.capacity(hop.scid)?)))
}
