//! What payments under way hold of other nodes' channels, shared by all who pay: so that two payments at once do not count
//! on the same liquidity.
//!
//! Owns the sums. A payment reserves what it sends before it sends it, and lets go by dropping the [`Reservation`] when the
//! HTLC is settled or has failed. A payer's own channels say themselves what they can send; what is held of them here is
//! left out of account wherever the payer's knowledge names them.
//!
//! Invariant: what is held of a direction is the sum of the reservations alive.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use fulmen_wire::units::Msat;

use crate::graph::DirectedChannel;
use crate::path::{Knowledge, Route};
use crate::snapshot::Snapshot;

/// What all payments under way hold.
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
        for (directed, sum) in added {
            let all = held.entry(directed).or_default();
            *all = all.saturating_add(sum);
        }
        let reservation = |route: &Route| Reservation {
            of: Arc::clone(self),
            hops: route.hops.iter().map(|hop| (hop.directed(), hop.amount)).collect(),
        };
        Some(routes.iter().map(reservation).collect())
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
