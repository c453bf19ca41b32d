//! Many queries at once, on all cores.
//!
//! Each thread has its own finder, and all search one snapshot. Invariant: answers are in the order of the queries,
//! and equal those that each query gets alone.

use rayon::prelude::*;

use crate::path::multi::{PartFinder, Parts};
use crate::path::search::Finder;
use crate::path::{NoRoute, Query, Route};
use crate::snapshot::Snapshot;

/// Finds a route for each query.
#[must_use]
pub fn find_each(snapshot: &Snapshot, queries: &[Query<'_>]) -> Vec<Result<Route, NoRoute>> {
    queries.par_iter().map_init(Finder::new, |finder, query| finder.find(snapshot, query)).collect()
}

/// Finds a payment in at most `parts_max` parts for each query.
#[must_use]
pub fn find_parts_each(
    snapshot: &Snapshot,
    queries: &[Query<'_>],
    parts_max: usize,
) -> Vec<Result<Parts, NoRoute>> {
    let parts = |finder: &mut PartFinder, query| finder.find(snapshot, query, parts_max);
    queries.par_iter().map_init(PartFinder::new, parts).collect()
}

#[cfg(test)]
mod tests {
    use fulmen_wire::units::Msat;

    use super::*;
    use crate::path::Knowledge;
    use crate::path::multi::tests::{node, square};

    #[test]
    fn answers_come_in_order() {
        let snapshot = Snapshot::new(&square());
        let known = Knowledge::default();
        let query = |amount| Query::new(node(0), node(3), Msat(amount), &known);
        let queries: Vec<_> = (1..200_u64).map(|at| query(at * 10_000_000)).collect();
        let routes = find_each(&snapshot, &queries);
        let parts = find_parts_each(&snapshot, &queries, 2);
        for (at, query) in queries.iter().enumerate() {
            assert_eq!(routes[at], Finder::new().find(&snapshot, query));
            assert_eq!(parts[at], PartFinder::new().find(&snapshot, query, 2));
        }
        assert!(routes[150].is_err() && parts[150].is_ok());
    }
}
