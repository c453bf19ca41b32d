//! Liquidity of other nodes' channels reserved by HTLCs in flight, so that two payments at once do not count on the
//! same.
//!
//! Owns the sums. A payment reserves the amounts of a route before it sends the HTLC, and drops the [`Reservation`]
//! when the HTLC has ended. The payer states the spendable amounts of its own channels in its knowledge; reservations
//! on those are ignored.
//!
//! Invariant: the sum for a direction is that of its living reservations.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use fulmen_wire::units::Msat;

use crate::graph::DirectedChannel;
use crate::path::{Knowledge, PathHop, Route};
use crate::snapshot::Snapshot;

/// The amounts that all payments in flight reserve, shared by all payers of a node.
#[derive(Debug, Default)]
pub struct Reservations {
    held: Mutex<BTreeMap<DirectedChannel, Msat>>,
}

/// The amounts that one HTLC reserves until this is dropped.
#[derive(Debug)]
#[must_use = "dropping this releases the reserved amounts"]
pub struct Reservation {
    of: Arc<Reservations>,
    hops: Vec<(DirectedChannel, Msat)>,
}

impl Reservations {
    /// No reservations.
    #[must_use]
    pub fn new() -> Arc<Reservations> {
        Arc::default()
    }

    /// Reserves the amounts of `routes`, all or none: one reservation per route. `None` when a channel would carry
    /// more than its capacity together with amounts reserved since the routes were found; then find routes again.
    /// Channels unknown to the snapshot have no known capacity and are not checked.
    pub fn reserve(self: &Arc<Self>, snapshot: &Snapshot, routes: &[Route]) -> Option<Vec<Reservation>> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let mut added: BTreeMap<DirectedChannel, Msat> = BTreeMap::new();
        for hop in routes.iter().flat_map(|route| &route.hops) {
            let sum = added.entry(hop.directed()).or_default();
            *sum = sum.saturating_add(hop.amount);
        }
        for (directed, sum) in &added {
            let all = sum.saturating_add(held.get(directed).copied().unwrap_or_default());
            if snapshot.capacity(directed.scid).is_some_and(|capacity| all > capacity.to_msat()) {
                return None;
            }
        }
        Some(self.add(&mut held, routes))
    }

    /// Reserves the amounts of `routes` even beyond capacities: one reservation per route.
    pub fn hold(self: &Arc<Self>, routes: &[Route]) -> Vec<Reservation> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        self.add(&mut held, routes)
    }

    fn add(
        self: &Arc<Self>,
        held: &mut BTreeMap<DirectedChannel, Msat>,
        routes: &[Route],
    ) -> Vec<Reservation> {
        let mut hold = |hop: &PathHop| {
            let all = held.entry(hop.directed()).or_default();
            *all = all.saturating_add(hop.amount);
            (hop.directed(), hop.amount)
        };
        let reservation = |route: &Route| Reservation {
            of: Arc::clone(self),
            hops: route.hops.iter().map(&mut hold).collect(),
        };
        routes.iter().map(reservation).collect()
    }

    /// Sets the amounts in flight of a payer's knowledge.
    pub fn tell(&self, knowledge: &mut Knowledge) {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        knowledge.in_flight.clone_from(&held);
    }

    /// The amount reserved on one direction.
    #[must_use]
    pub fn held(&self, directed: DirectedChannel) -> Msat {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.get(&directed).copied().unwrap_or_default()
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let mut held = self.of.held.lock().unwrap_or_else(PoisonError::into_inner);
        for (directed, amount) in &self.hops {
            if let Some(all) = held.get_mut(directed) {
                *all = all.saturating_sub(*amount);
                if *all == Msat::ZERO {
                    held.remove(directed);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::path::Query;
    use crate::path::multi::tests::{node, square};
    use crate::path::search::Finder;

    #[test]
    fn two_payments_at_once_go_apart() {
        let snapshot = Snapshot::new(&square());
        let reservations = Reservations::new();
        let mut knowledge = Knowledge::default();
        let route = |knowledge: &Knowledge| {
            let query = Query::new(node(0), node(3), Msat(600_000_000), knowledge);
            Finder::new().find(&snapshot, &query)
        };
        let first = route(&knowledge).unwrap();
        let held = reservations.reserve(&snapshot, std::slice::from_ref(&first)).unwrap();
        assert_eq!(reservations.held(first.hops[1].directed()), Msat(600_000_000));
        assert!(
            reservations.reserve(&snapshot, std::slice::from_ref(&first)).is_none(),
            "there is no room twice"
        );
        reservations.tell(&mut knowledge);
        let second = route(&knowledge).unwrap();
        assert_ne!(second.hops[1].scid, first.hops[1].scid);
        let also = reservations.reserve(&snapshot, &[second]).unwrap();
        reservations.tell(&mut knowledge);
        assert!(route(&knowledge).is_err());
        drop((held, also));
        reservations.tell(&mut knowledge);
        assert_eq!(knowledge, Knowledge::default());
        assert_eq!(route(&knowledge).unwrap(), first);
    }

    #[test]
    fn threads_hold_no_more_than_there_is() {
        let snapshot = Snapshot::new(&square());
        let reservations = Reservations::new();
        let known = Knowledge::default();
        let query = Query::new(node(0), node(3), Msat(10_000_000), &known);
        let route = Finder::new().find(&snapshot, &query).unwrap();
        let got: usize = std::thread::scope(|scope| {
            let take = || {
                let take = |_| reservations.reserve(&snapshot, std::slice::from_ref(&route));
                (0..80).filter_map(take).collect::<Vec<_>>()
            };
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(take)).collect();
            let all: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
            all.iter().map(Vec::len).sum()
        });
        assert_eq!(got, 99, "a million satoshi less what the fee takes");
        assert_eq!(reservations.held(route.hops[1].directed()), Msat::ZERO);
    }
}
