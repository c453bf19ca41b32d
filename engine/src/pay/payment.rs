//! One payment: the parts in flight, the failures so far, and the parts to send next.
//!
//! Owns the books of a payment. Parts in flight stay there while the rest is planned anew, within the rest of the
//! limits on fee and parts. Where no routes are found for the rest, nothing is sent until the parts in flight have
//! come back, which they do when the payee has waited long enough (BOLT 4 `mpp_timeout`): then all of it is planned
//! anew, over channels that its own parts no longer block. That happens once in a payment, since it takes a minute or
//! more.
//!
//! Invariants: the parts in flight never take more than the amount and the largest fee, and are no more than the
//! limits allow, whatever the router answers. An amount is sent again only after the HTLC that carried it has failed,
//! and never once a part was fulfilled: so the payee is paid once at most.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use fulmen_graph::DirectedChannel;
use fulmen_graph::path::reservations::{Reservation, Reservations};
use fulmen_graph::path::{Knowledge, NoRoute, Query, Route};
use fulmen_proto::forward::{FailureReason, SendHtlc};
use fulmen_proto::onion::SharedSecrets;
use fulmen_proto::payment::{OutgoingPayment, RouteHop};
use fulmen_wire::units::{CltvDelta, Msat, NodeId, PaymentPreimage};

use super::failure::{self, FailedPart, Verdict};
use super::knowledge::Learned;
use super::outcome::{PaymentFailure, PaymentOutcome, PaymentUpdate, SettledPart};
use super::request::PaymentRequest;
use super::router::{RouteRequest, Router};
use super::{PayerConfig, PayerView};

/// How often parts are found again because other payers of the node took the liquidity meanwhile.
const CONTENTIONS_MAX: usize = 4;

/// The parts of a payer, and of the world, that a payment works with.
pub(super) struct Context<'a> {
    pub(super) node: NodeId,
    pub(super) config: &'a PayerConfig,
    pub(super) reservations: &'a Arc<Reservations>,
    pub(super) learned: &'a mut Learned,
    pub(super) view: &'a PayerView<'a>,
    pub(super) router: &'a mut dyn Router,
}

/// A payment under way.
#[derive(Debug)]
pub(super) struct Payment {
    pub(super) request: PaymentRequest,
    /// The payee's delta and the shadow offset.
    final_cltv_delta: CltvDelta,
    /// The parts in flight, by the number of their HTLC.
    in_flight: BTreeMap<u16, Part>,
    /// How many HTLCs were sent.
    htlcs: u16,
    rounds: u32,
    parts_at_once: usize,
    /// The least amount that failed over each direction in this payment, believed as long as it lives.
    failed_amounts: BTreeMap<DirectedChannel, Msat>,
    excluded_directions: BTreeSet<DirectedChannel>,
    excluded_nodes: BTreeSet<NodeId>,
    failures: Vec<FailedPart>,
    settled: Vec<SettledPart>,
    preimage: Option<PaymentPreimage>,
    phase: Phase,
    /// Whether it was planned anew once because no route was found beside its own parts.
    has_drained: bool,
}

/// Whether a payment that is not paid yet sends more.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Phase {
    /// Failed parts are sent again.
    Trying,
    /// No routes were found beside the parts in flight: all is planned again once they have come back.
    Draining,
    /// Nothing more is sent; it ends once its parts have come back.
    Stopped(PaymentFailure),
}

/// A part in flight.
#[derive(Debug)]
struct Part {
    route: Route,
    secrets: SharedSecrets,
    /// Lets go of the route's liquidity when the part ends.
    _reservation: Reservation,
}

impl Payment {
    pub(super) fn new(request: PaymentRequest, shadow_offset: CltvDelta) -> Payment {
        let final_cltv_delta = CltvDelta(request.final_cltv_delta.0.saturating_add(shadow_offset.0));
        Payment {
            request,
            final_cltv_delta,
            in_flight: BTreeMap::new(),
            htlcs: 0,
            rounds: 0,
            parts_at_once: 0,
            failed_amounts: BTreeMap::new(),
            excluded_directions: BTreeSet::new(),
            excluded_nodes: BTreeSet::new(),
            failures: Vec::new(),
            settled: Vec::new(),
            preimage: None,
            phase: Phase::Trying,
            has_drained: false,
        }
    }

    /// Whether this attempt is one of its parts in flight.
    pub(super) fn holds(&self, attempt_id: u64) -> bool {
        self.in_flight.contains_key(&htlc_of(attempt_id))
    }

    /// Whether it is over: no HTLC is in flight and none will be.
    pub(super) fn is_over(&self) -> bool {
        self.in_flight.is_empty() && (self.preimage.is_some() || matches!(self.phase, Phase::Stopped(_)))
    }

    /// How many parts are in flight.
    pub(super) fn parts_in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// No further parts are sent.
    pub(super) fn stop(&mut self, failure: PaymentFailure) {
        if !matches!(self.phase, Phase::Stopped(_)) {
            self.phase = Phase::Stopped(failure);
        }
    }

    /// A part was fulfilled: the payee has taken the payment, and the other parts follow.
    pub(super) fn settled(
        &mut self,
        attempt_id: u64,
        preimage: PaymentPreimage,
        learned: &mut Learned,
        view: &PayerView<'_>,
        updates: &mut Vec<PaymentUpdate>,
    ) {
        let Some(Part { route, .. }) = self.in_flight.remove(&htlc_of(attempt_id)) else { return };
        learned.settled(&route.hops, view.snapshot, view.now_seconds());
        self.settled.push(SettledPart { attempt_id, route });
        if self.preimage.replace(preimage).is_none() {
            updates.push(PaymentUpdate::Proven { id: self.request.id, preimage });
        }
    }

    /// A part failed: learns from it, and sends its amount again.
    pub(super) fn failed(
        &mut self,
        attempt_id: u64,
        reason: &FailureReason,
        context: &mut Context<'_>,
        updates: &mut Vec<PaymentUpdate>,
    ) {
        let Some(part) = self.in_flight.remove(&htlc_of(attempt_id)) else { return };
        let view = context.view;
        let hops = &part.route.hops;
        let (failed, verdict) = failure::read(attempt_id, reason, hops, &part.secrets, view.own_channels);
        let carried = hops.get(..verdict.reached(hops.len())).unwrap_or(hops);
        context.learned.passed(carried, view.snapshot, view.now_seconds());
        match verdict {
            Verdict::Liquidity { hop } => {
                if let Some(channel) = hops.get(hop) {
                    let least = self.failed_amounts.entry(channel.directed()).or_insert(channel.amount);
                    *least = channel.amount.min(*least);
                    if hop > 0 {
                        context.learned.failed(channel, view.snapshot, view.now_seconds());
                    }
                }
            }
            Verdict::Channel { hop } => {
                self.excluded_directions.extend(hops.get(hop).map(|hop| hop.directed()));
            }
            Verdict::Node { hop } => self.excluded_nodes.extend(hops.get(hop).map(|hop| hop.to)),
            Verdict::Unknown => {
                self.excluded_directions.extend(hops.get(1).map(|hop| hop.directed()));
            }
            Verdict::Overdue => {}
            Verdict::Refused => self.stop(PaymentFailure::Refused(failed.cause.code())),
        }
        self.failures.push(failed);
        // Lets go of its reservation, for the next round.
        drop(part);
        self.send_rest(context, updates);
    }

    /// Sends the amount that is neither in flight nor paid, or stops.
    pub(super) fn send_rest(&mut self, context: &mut Context<'_>, updates: &mut Vec<PaymentUpdate>) {
        if self.phase == Phase::Draining && self.in_flight.is_empty() {
            self.phase = Phase::Trying;
            self.has_drained = true;
        }
        let is_whole = self.remaining() == Msat::ZERO && !self.in_flight.is_empty();
        if self.preimage.is_some() || self.phase != Phase::Trying || is_whole {
            return;
        }
        if let Err(failure) = self.send_round(context, updates) {
            let is_blocked = matches!(failure, PaymentFailure::NoRoute(_))
                && !self.in_flight.is_empty()
                && !self.has_drained;
            self.phase = if is_blocked { Phase::Draining } else { Phase::Stopped(failure) };
        }
    }

    /// How the payment ended. To be asked when it is over.
    pub(super) fn outcome(self) -> PaymentOutcome {
        debug_assert!(self.is_over(), "parts are in flight");
        let result = match (self.preimage, self.phase) {
            (Some(preimage), _) => Ok(preimage),
            (None, Phase::Stopped(failure)) => Err(failure),
            (None, Phase::Trying | Phase::Draining) => Err(PaymentFailure::Abandoned),
        };
        PaymentOutcome {
            id: self.request.id,
            payment_hash: self.request.payment_hash,
            result,
            rounds: self.rounds,
            htlcs: u32::from(self.htlcs),
            parts_at_once: self.parts_at_once,
            settled: self.settled,
            failures: self.failures,
        }
    }

    /// The amount that no part in flight delivers.
    fn remaining(&self) -> Msat {
        let delivered: Msat = self.in_flight.values().map(|part| delivers(&part.route)).sum();
        self.request.amount.saturating_sub(delivered)
    }

    /// Plans the rest and sends it.
    fn send_round(
        &mut self,
        context: &mut Context<'_>,
        updates: &mut Vec<PaymentUpdate>,
    ) -> Result<(), PaymentFailure> {
        let limits = self.request.limits;
        let exhausted = PaymentFailure::RoundsExhausted { rounds: self.rounds };
        if limits.deadline_unix_ms.is_some_and(|deadline| context.view.unix_ms >= deadline) {
            return Err(PaymentFailure::DeadlinePassed);
        }
        if self.rounds >= limits.rounds_max {
            return Err(exhausted);
        }
        let (routes, reservations) = self.plan(context).map_err(PaymentFailure::NoRoute)?;
        self.check(&routes)?;
        // All onions first: of a set that cannot go as a whole, nothing goes.
        let onions: Vec<(u16, OutgoingPayment)> = (self.htlcs..u16::MAX)
            .zip(&routes)
            .map(|(htlc, route)| Ok((htlc, self.onion(htlc, route)?)))
            .collect::<Result<_, PaymentFailure>>()?;
        if onions.len() < routes.len() {
            return Err(exhausted);
        }
        self.rounds += 1;
        for (((htlc, onion), route), reservation) in onions.into_iter().zip(routes).zip(reservations) {
            updates.push(PaymentUpdate::Send(SendHtlc::new(self.request.id.attempt(htlc), &onion)));
            let part = Part { route, secrets: onion.secrets, _reservation: reservation };
            self.in_flight.insert(htlc, part);
            self.htlcs = htlc + 1;
        }
        self.parts_at_once = self.parts_at_once.max(self.in_flight.len());
        Ok(())
    }

    /// Finds routes for the rest beside the parts in flight, and reserves their liquidity.
    fn plan(&self, context: &mut Context<'_>) -> Result<(Vec<Route>, Vec<Reservation>), NoRoute> {
        let (view, config) = (context.view, context.config);
        let spent: Msat = self.in_flight.values().map(|part| part.route.fee).sum();
        let mut limits = self.request.limits.route;
        limits.max_fee = limits.max_fee.saturating_sub(spent);
        let mut knowledge = self.knowledge(context);
        for contention in 0..=CONTENTIONS_MAX {
            if config.is_reserving {
                context.reservations.tell(&mut knowledge);
            }
            let query = Query {
                height: view.height,
                final_cltv_delta: self.final_cltv_delta,
                limits,
                risk_billionths: config.risk_billionths,
                weights: config.weights,
                scorer: Some(&context.learned.scorer),
                now_seconds: view.now_seconds(),
                payee_extra_bytes: self.request.payee_extra_bytes(),
                ..Query::new(context.node, self.request.payee, self.remaining(), &knowledge)
            };
            let routes = context.router.find_parts(&RouteRequest {
                id: self.request.id,
                snapshot: view.snapshot,
                query: &query,
                parts_max: self.request.parts_max().saturating_sub(self.in_flight.len()),
                rounds: self.rounds,
                failures: &self.failures,
            })?;
            if let Some(reserved) = context.reservations.reserve(view.snapshot, &routes) {
                return Ok((routes, reserved));
            }
            if contention == CONTENTIONS_MAX {
                // Sent all the same, it is only likelier to fail.
                let reserved = context.reservations.hold(&routes);
                return Ok((routes, reserved));
            }
        }
        unreachable!("the loop returns")
    }

    /// The payer's knowledge beyond the graph.
    fn knowledge(&self, context: &Context<'_>) -> Knowledge {
        let mut knowledge =
            Knowledge { first_hops: Some(context.view.own_channels.clone()), ..Knowledge::default() };
        context.learned.add_to(&mut knowledge);
        for (directed, amount) in &self.failed_amounts {
            knowledge.note_failure(*directed, *amount);
        }
        knowledge.excluded_directions.clone_from(&self.excluded_directions);
        knowledge.excluded_nodes.clone_from(&self.excluded_nodes);
        knowledge
    }

    /// Checks a router's answer, together with the parts in flight, against the payment's limits.
    fn check(&self, routes: &[Route]) -> Result<(), PaymentFailure> {
        let parts = self.in_flight.len() + routes.len();
        let total: Msat = self.in_flight.values().map(|part| &part.route).chain(routes).map(total).sum();
        let most = self.request.amount.saturating_add(self.request.limits.route.max_fee);
        let is_sound = !routes.is_empty() && parts <= self.request.parts_max() && total <= most;
        if is_sound { Ok(()) } else { Err(PaymentFailure::OverLimits { parts, total }) }
    }

    /// The first HTLC of a route, with the onion for the rest of it.
    fn onion(&self, htlc: u16, route: &Route) -> Result<OutgoingPayment, PaymentFailure> {
        let hops = route.hops.iter().map(|hop| RouteHop {
            node_id: hop.to,
            short_channel_id: hop.scid,
            amount: hop.amount,
            cltv_expiry: hop.cltv_expiry,
        });
        let hops: Vec<RouteHop> = hops.collect();
        let exhausted = || PaymentFailure::RoundsExhausted { rounds: self.rounds };
        let session_key = self.request.session_key(htlc).ok_or_else(exhausted)?;
        OutgoingPayment::new(&session_key, self.request.payment_hash, &hops, &self.request.recipient())
            .map_err(PaymentFailure::Onion)
    }
}

/// The number of an HTLC within its payment.
const fn htlc_of(attempt_id: u64) -> u16 {
    // The low bits number the HTLCs of a payment.
    attempt_id as u16
}

/// The amount a part takes: that of its first HTLC, whatever the route claims.
fn total(route: &Route) -> Msat {
    route.hops.first().map_or(route.total_amount, |hop| hop.amount.max(route.total_amount))
}

/// The amount a part brings the payee.
fn delivers(route: &Route) -> Msat {
    route.hops.last().map_or(Msat::ZERO, |hop| hop.amount)
}
