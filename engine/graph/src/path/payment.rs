//! One payment from its first parts to its end: what is under way, what failed, and what is to be sent next.
//!
//! Owns the books of a payment that may take several attempts. Parts that are in flight stay there while the rest is planned
//! anew, under what the limits leave of fee and parts; what a failure teaches goes to the [`Scorer`], for all payments, and
//! is kept here too, for this one. Sends nothing and knows no time: the caller says what became of a part.
//!
//! How it is driven: [`Payment::plan`], send what it gives, [`Payment::failed`] for each part that comes back, and
//! [`Payment::plan`] again; [`Payment::settled`] when the payee takes them. The parts of one payment are settled all or
//! none (BOLT 4), so that the first settled one means that nothing more is to be planned.
//!
//! Invariant: what is in flight and what [`Payment::plan`] adds never exceed the payment, nor its limits.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use fulmen_wire::units::{Msat, NodeId};

use crate::graph::DirectedChannel;
use crate::path::multi::PartFinder;
use crate::path::reservations::{Reservation, Reservations};
use crate::path::{Knowledge, NoRoute, Query, Route};
use crate::scoring::Scorer;
use crate::snapshot::Snapshot;

/// How often parts are found again because others took the liquidity meanwhile.
const CONTENTIONS_MAX: usize = 4;

/// A payment under way.
#[derive(Debug)]
pub struct Payment {
    amount: Msat,
    parts_max: usize,
    reservations: Arc<Reservations>,
    flying: BTreeMap<u32, Flying>,
    next: u32,
    /// What this payment's own parts have shown, believed as long as it lives.
    failed_amounts: BTreeMap<DirectedChannel, Msat>,
    excluded_directions: BTreeSet<DirectedChannel>,
    excluded_nodes: BTreeSet<NodeId>,
    settled: bool,
}

/// A part under way.
#[derive(Debug)]
struct Flying {
    route: Route,
    /// Lets go when the part ends.
    _reservation: Reservation,
}

/// A part to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedPart {
    /// Its name: what [`Payment::failed`] and [`Payment::settled`] are told.
    pub part: u32,
    /// Its way.
    pub route: Route,
}

/// Why a part came back. Hops are counted from zero, the payer's own channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PartFailure {
    /// This hop's channel did not have the amount (BOLT 4 `temporary_channel_failure`).
    Liquidity {
        /// The hop.
        hop: usize,
    },
    /// This hop's channel cannot be used for another reason.
    Channel {
        /// The hop.
        hop: usize,
    },
    /// The node this hop leads to cannot be used.
    Node {
        /// The hop.
        hop: usize,
    },
    /// Nobody can tell.
    Unknown,
}

impl Payment {
    /// A payment of `amount` in at most `parts_max` parts at once.
    #[must_use]
    pub fn new(amount: Msat, parts_max: usize, reservations: Arc<Reservations>) -> Payment {
        Payment {
            amount,
            parts_max,
            reservations,
            flying: BTreeMap::new(),
            next: 0,
            failed_amounts: BTreeMap::new(),
            excluded_directions: BTreeSet::new(),
            excluded_nodes: BTreeSet::new(),
            settled: false,
        }
    }

    /// What is neither in flight nor settled.
    #[must_use]
    pub fn remaining(&self) -> Msat {
        if self.settled {
            return Msat::ZERO;
        }
        let flying =
            self.flying.values().map(|flying| flying.route.total_amount.saturating_sub(flying.route.fee));
        self.amount.saturating_sub(flying.sum())
    }

    /// How many parts are in flight.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.flying.len()
    }

    /// Plans what is to be sent now, beside what is in flight: nothing when all of it is. `query` says what the payer asks
    /// for and knows as of now; its amount is the payment's, its limits are those of all parts together.
    ///
    /// # Errors
    /// When no parts are found for what remains.
    pub fn plan(
        &mut self,
        finder: &mut PartFinder,
        snapshot: &Snapshot,
        query: &Query<'_>,
    ) -> Result<Vec<PlannedPart>, NoRoute> {
        let amount = self.remaining();
        if amount == Msat::ZERO {
            return Ok(Vec::new());
        }
        let spent: Msat = self.flying.values().map(|flying| flying.route.fee).sum();
        let slots = self.parts_max.saturating_sub(self.flying.len());
        let mut limits = query.limits;
        limits.max_fee = limits.max_fee.saturating_sub(spent);
        let mut knowledge = self.learned(query.knowledge);
        for _ in 0..CONTENTIONS_MAX {
            self.reservations.tell(&mut knowledge);
            let query = Query { amount, limits, knowledge: &knowledge, ..query.clone() };
            let parts = finder.find(snapshot, &query, slots)?;
            if let Some(reserved) = self.reservations.reserve(snapshot, &parts.routes) {
                return Ok(parts.routes.into_iter().zip(reserved).map(|part| self.launch(part)).collect());
            }
        }
        Err(NoRoute::Unreachable { amount })
    }

    /// A part came back: learns from it, and lets go what it held. `now_seconds` is on the scorer's clock. Does nothing for
    /// a part that is not in flight.
    pub fn failed(
        &mut self,
        part: u32,
        failure: PartFailure,
        snapshot: &Snapshot,
        scorer: &mut Scorer,
        now_seconds: u64,
    ) {
        let Some(Flying { route, .. }) = self.flying.remove(&part) else { return };
        let capacity = |directed: DirectedChannel| snapshot.capacity(directed.scid);
        let reached = match failure {
            PartFailure::Liquidity { hop } | PartFailure::Channel { hop } => hop,
            PartFailure::Node { hop } => hop + 1,
            PartFailure::Unknown => 0,
        };
        // Every hop before the failure had the amount. The payer knows its own channels better.
        for hop in route.hops.iter().take(reached).skip(1) {
            if let Some(capacity) = capacity(hop.directed()) {
                scorer.passed(hop.directed(), capacity, hop.amount, now_seconds);
            }
        }
        match failure {
            PartFailure::Liquidity { hop } => {
                let Some(hop) = route.hops.get(hop) else { return };
                let least = self.failed_amounts.entry(hop.directed()).or_insert(hop.amount);
                *least = hop.amount.min(*least);
                if let Some(capacity) = capacity(hop.directed()) {
                    scorer.failed(hop.directed(), capacity, hop.amount, now_seconds);
                }
            }
            PartFailure::Channel { hop } => {
                self.excluded_directions.extend(route.hops.get(hop).map(|hop| hop.directed()));
            }
            PartFailure::Node { hop } => {
                self.excluded_nodes.extend(route.hops.get(hop).map(|hop| hop.to));
            }
            // Somewhere on this way: it is not tried again just so.
            PartFailure::Unknown => {
                self.excluded_directions.extend(route.hops.get(1).map(|hop| hop.directed()));
            }
        }
    }

    /// A part was fulfilled: the payee has the payment, and the other parts follow.
    pub fn settled(&mut self, part: u32, snapshot: &Snapshot, scorer: &mut Scorer, now_seconds: u64) {
        let Some(Flying { route, .. }) = self.flying.remove(&part) else { return };
        self.settled = true;
        for hop in route.hops.iter().skip(1) {
            if let Some(capacity) = snapshot.capacity(hop.scid) {
                scorer.settled(hop.directed(), capacity, hop.amount, now_seconds);
            }
        }
    }

    fn launch(&mut self, (route, reservation): (Route, Reservation)) -> PlannedPart {
        let part = self.next;
        self.next += 1;
        self.flying.insert(part, Flying { route: route.clone(), _reservation: reservation });
        PlannedPart { part, route }
    }

    /// What the payer knows, and what this payment has shown.
    fn learned(&self, known: &Knowledge) -> Knowledge {
        let mut knowledge = known.clone();
        for (directed, amount) in &self.failed_amounts {
            knowledge.note_failure(*directed, *amount);
        }
        knowledge.excluded_directions.extend(&self.excluded_directions);
        knowledge.excluded_nodes.extend(&self.excluded_nodes);
        knowledge
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::path::multi::tests::{node, square};
    use crate::scoring::Fading;

    #[test]
    fn what_failed_is_planned_again_beside_what_flies() {
        let snapshot = Snapshot::new(&square());
        let reservations = Reservations::new();
        let mut finder = PartFinder::new();
        let mut scorer = Scorer::new(Fading::default());
        let known = Knowledge::default();
        let query = Query::new(node(0), node(3), Msat(1_500_000_000), &known);
        let mut payment = Payment::new(query.amount, 3, Arc::clone(&reservations));
        let first = payment.plan(&mut finder, &snapshot, &query).unwrap();
        assert_eq!((first.len(), payment.remaining()), (2, Msat::ZERO));
        assert_eq!(payment.plan(&mut finder, &snapshot, &query), Ok(Vec::new()));
        let [large, small] = [0, 1].map(|at| first[at].route.clone());
        let paid = |route: &Route| route.total_amount.saturating_sub(route.fee);
        assert_eq!(paid(&large).0 + paid(&small).0, 1_500_000_000);

        // The other part keeps its way; this one's second channel had too little, and nothing else leads there.
        payment.failed(first[1].part, PartFailure::Liquidity { hop: 1 }, &snapshot, &mut scorer, 9);
        assert_eq!((payment.in_flight(), payment.remaining()), (1, paid(&small)));
        assert_eq!(scorer.learned_channels(), 1);
        assert_eq!(reservations.held(small.hops[1].directed()), Msat::ZERO);
        assert_eq!(reservations.held(large.hops[1].directed()), large.hops[1].amount);
        let again = payment.plan(&mut finder, &snapshot, &query);
        // What failed over one way may go in two smaller parts, over that way or beside the part in flight.
        if let Ok(parts) = &again {
            assert!(parts.iter().all(|part| {
                let hop = part.route.hops[1];
                hop.directed() != small.hops[1].directed() || hop.amount < small.hops[1].amount
            }));
            assert_eq!(payment.remaining(), Msat::ZERO);
            assert!(payment.in_flight() <= 3);
        }
        payment.settled(first[0].part, &snapshot, &mut scorer, 10);
        assert_eq!(payment.remaining(), Msat::ZERO);
        drop(payment);
        assert_eq!(reservations.held(large.hops[1].directed()), Msat::ZERO);
    }

    #[test]
    fn nodes_and_channels_that_fail_are_left_out() {
        let snapshot = Snapshot::new(&square());
        let mut finder = PartFinder::new();
        let mut scorer = Scorer::new(Fading::default());
        let known = Knowledge::default();
        let query = Query::new(node(0), node(3), Msat(1_000_000), &known);
        for failure in [PartFailure::Node { hop: 0 }, PartFailure::Channel { hop: 1 }, PartFailure::Unknown] {
            let mut payment = Payment::new(query.amount, 1, Reservations::new());
            let first = payment.plan(&mut finder, &snapshot, &query).unwrap();
            assert_eq!(first[0].route.fee, Msat(10));
            payment.failed(first[0].part, failure, &snapshot, &mut scorer, 1);
            payment.failed(first[0].part, failure, &snapshot, &mut scorer, 1);
            let second = payment.plan(&mut finder, &snapshot, &query).unwrap();
            assert_eq!((second[0].route.fee, second[0].part), (Msat(20), 1), "{failure:?}");
            payment.failed(second[0].part, failure, &snapshot, &mut scorer, 2);
            assert!(payment.plan(&mut finder, &snapshot, &query).is_err());
        }
    }
}
