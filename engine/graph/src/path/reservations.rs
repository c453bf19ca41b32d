//! The liquidity of other nodes' channels that a payer's HTLCs in flight take, so that two payments at once do not count on
//! the same.
//!
//! Owns the sums. A payment reserves what it sends before it sends it; dropping the [`Reservation`] when the HTLC has ended
//! lets go. A payer's own channels say themselves what can be sent: what is held of them here is ignored wherever the
//! payer's knowledge names them.
//!
//! Invariant: what is held of a direction is the sum of the reservations alive.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use fulmen_wire::units::Msat;

use crate::graph::DirectedChannel;
use crate::path::{Knowledge, PathHop, Route};
use crate::snapshot::Snapshot;

/// What all payments under way hold, shared by all payers of a node.
#[derive(Debug, Default)]
pub struct Reservations {
    held: Mutex<BTreeMap<DirectedChannel, Msat>>,
}

/// What one HTLC holds, until it is dropped.
#[derive(Debug)]
#[must_use = "what is reserved is let go when this is dropped"]
pub struct Reservation {
    of: Arc<Reservations>,
    hops: Vec<(DirectedChannel, Msat)>,
}

impl Reservations {
    /// Nothing held.
    #[must_use]
    pub fn new() -> Arc<Reservations> {
        Arc::default()
    }

    /// Holds what `routes` put on their channels, all or nothing: one reservation each. `None` when together with what
    /// others have taken since the routes were found, a channel would carry more than its capacity; then they must be
    /// found again. Of channels that the snapshot does not know the capacity is not known either.
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

    /// Holds what `routes` put on their channels, whether there is room or not: one reservation each.
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

    /// Tells a payer what is in flight.
    pub fn tell(&self, knowledge: &mut Knowledge) {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        knowledge.in_flight.clone_from(&held);
    }

    /// What is held of one direction.
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
