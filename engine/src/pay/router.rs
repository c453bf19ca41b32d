//! Where a payer's routes come from: the seam between a payment and path-finding.
//!
//! Owns [`Router`]. The router of production is [`PartFinder`]; load generators, tests and embedders with routes of
//! their own bring another. A payer holds whatever a router answers to the payment's limits.

use fulmen_graph::path::multi::PartFinder;
use fulmen_graph::path::{NoRoute, Query, Route};
use fulmen_graph::snapshot::Snapshot;

use super::failure::FailedPart;
use super::request::PaymentId;

/// One question of a payer to its router.
#[derive(Clone, Copy, Debug)]
pub struct RouteRequest<'a> {
    /// The payment.
    pub id: PaymentId,
    /// The public graph.
    pub snapshot: &'a Snapshot,
    /// The rest of the payment, within the rest of its fee limit. It carries the payer's knowledge, its own HTLCs in
    /// flight included.
    pub query: &'a Query<'a>,
    /// How many parts the answer may have.
    pub parts_max: usize,
    /// How many rounds of parts this payment has sent.
    pub rounds: u32,
    /// The HTLCs of this payment that failed, the latest last.
    pub failures: &'a [FailedPart],
}

/// Finds the routes of a payment's parts.
pub trait Router {
    /// Routes for `request`, one for each part, which together carry the amount of its query.
    ///
    /// # Errors
    /// When there are none.
    fn find_parts(&mut self, request: &RouteRequest<'_>) -> Result<Vec<Route>, NoRoute>;
}

impl Router for PartFinder {
    fn find_parts(&mut self, request: &RouteRequest<'_>) -> Result<Vec<Route>, NoRoute> {
        match self.find(request.snapshot, request.query, request.parts_max) {
            Ok(parts) => Ok(parts.routes),
            // Perhaps not the cheapest, but within the limits.
            Err(NoRoute::SearchLimitReached { best: Some(route), .. }) => Ok(vec![*route]),
            Err(error) => Err(error),
        }
    }
}
