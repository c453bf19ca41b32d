//! Circuits: which received HTLC an offered one answers, and how each is to end (BOLT 2 "Forwarding HTLCs").
//!
//! Owns the pairing in both directions and each received HTLC's way to its end. Does not own the HTLCs: the channels
//! do, and neither amounts nor states of theirs are repeated here beyond the needs of a restart.
//!
//! Invariant: a received HTLC has one circuit from its decision until its removal is irrevocable; a circuit is
//! resolved at most once, and its first resolution stands. An offered HTLC has one origin until it is resolved.

use std::collections::{BTreeMap, BTreeSet};

use super::change::Change;
use super::item::CheckpointItem;
use crate::forward::terms::circuit::{Circuit, CircuitStage, Offer, Origin, Resolution};
use crate::forward::terms::handoff::{Handoff, HandoffStep};
use crate::forward::terms::ids::{IncomingHtlc, OutgoingHtlc};

/// All circuits of a shard.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Circuits {
    received: BTreeMap<IncomingHtlc, Circuit>,
    offered: BTreeMap<OutgoingHtlc, Origin>,
    /// The attempts among the origins, so that one is not offered twice.
    attempts: BTreeSet<u64>,
    /// The received HTLCs that wait for the embedder's decision.
    intercepted: BTreeSet<IncomingHtlc>,
    /// Handoffs of other shards that they have not acknowledged the resolution of; `None` while the HTLC is offered, or
    /// held as a part of a payment.
    accepted_handoffs: BTreeMap<IncomingHtlc, Option<Resolution>>,
}

impl Circuits {
    pub(crate) fn received(&self, incoming: IncomingHtlc) -> Option<&Circuit> {
        self.received.get(&incoming)
    }

    pub(crate) fn origin(&self, outgoing: OutgoingHtlc) -> Option<Origin> {
        self.offered.get(&outgoing).copied()
    }

    pub(crate) fn has_attempt(&self, attempt_id: u64) -> bool {
        self.attempts.contains(&attempt_id)
    }

    /// The handoff of another shard's HTLC if it was accepted here, with its resolution once there is one.
    pub(crate) fn accepted_handoff(&self, incoming: IncomingHtlc) -> Option<&Option<Resolution>> {
        self.accepted_handoffs.get(&incoming)
    }

    pub(crate) fn received_len(&self) -> usize {
        self.received.len()
    }

    pub(crate) fn offered_len(&self) -> usize {
        self.offered.len()
    }

    /// The HTLCs that wait for the embedder's decision.
    pub(crate) fn intercepted(&self) -> impl Iterator<Item = (IncomingHtlc, Offer)> + '_ {
        self.intercepted.iter().filter_map(|incoming| match &self.received.get(incoming)?.stage {
            CircuitStage::Intercepted(offer) => Some((*incoming, *offer)),
            _ => None,
        })
    }

    /// The offers that other shards have not answered.
    pub(crate) fn unresolved_offers(&self) -> impl Iterator<Item = (IncomingHtlc, Offer)> + '_ {
        self.received.iter().filter_map(|(incoming, circuit)| match &circuit.stage {
            CircuitStage::HandedOff(offer) => Some((*incoming, *offer)),
            _ => None,
        })
    }

    /// The HTLCs that pay us and that the shard which receives their payment has not answered.
    pub(crate) fn unresolved_parts(&self) -> impl Iterator<Item = IncomingHtlc> + '_ {
        let unresolved_parts =
            self.received.iter().filter(|(_, circuit)| circuit.stage == CircuitStage::PartHandedOff);
        unresolved_parts.map(|(incoming, _)| *incoming)
    }

    /// The resolutions that other shards have not acknowledged.
    pub(crate) fn unacked_resolutions(&self) -> impl Iterator<Item = Handoff> + '_ {
        self.accepted_handoffs.iter().filter_map(|(incoming, resolution)| {
            let step = HandoffStep::Resolve(resolution.clone()?);
            Some(Handoff { incoming: *incoming, step })
        })
    }

    /// The checkpoint items of the circuits.
    pub(crate) fn items(&self) -> impl Iterator<Item = CheckpointItem> + '_ {
        let received = self.received.iter();
        let received = received.map(|(incoming, circuit)| CheckpointItem::Circuit {
            incoming: *incoming,
            circuit: circuit.clone(),
        });
        let offered = self.offered.iter();
        let offered = offered
            .map(|(outgoing, origin)| CheckpointItem::Offered { outgoing: *outgoing, origin: *origin });
        let handoffs = self.accepted_handoffs.iter();
        let handoffs = handoffs.map(|(incoming, resolution)| CheckpointItem::Handoff {
            incoming: *incoming,
            resolution: resolution.clone(),
        });
        received.chain(offered).chain(handoffs)
    }

    /// Restores an item of [`Circuits::items`]. `Handoff` comes after `Offered`, which inserts one without a
    /// resolution.
    pub(crate) fn restore(&mut self, item: CheckpointItem) {
        match item {
            CheckpointItem::Circuit { incoming, circuit } => self.open(incoming, circuit),
            CheckpointItem::Offered { outgoing, origin } => self.offer(outgoing, origin),
            CheckpointItem::Handoff { incoming, resolution } => {
                self.accepted_handoffs.insert(incoming, resolution);
            }
            _ => debug_assert!(false, "not of the circuits"),
        }
    }

    /// Folds a change into the circuits; those of other parts of the state change nothing here.
    pub(crate) fn apply(&mut self, change: &Change) {
        match change {
            Change::CircuitOpened { incoming, circuit } => self.open(*incoming, circuit.clone()),
            Change::Offered { outgoing, origin } => self.offer(*outgoing, *origin),
            Change::OfferEnded { outgoing } => {
                if let Some(Origin::Attempt { attempt_id }) = self.offered.remove(outgoing) {
                    self.attempts.remove(&attempt_id);
                }
            }
            Change::Resolved { incoming, resolution } => {
                self.intercepted.remove(incoming);
                if let Some(circuit) = self.received.get_mut(incoming) {
                    circuit.stage = CircuitStage::Resolved(resolution.clone());
                }
            }
            Change::HandoffAccepted { incoming } => {
                self.accepted_handoffs.insert(*incoming, None);
            }
            Change::HandoffResolved { incoming, resolution } => {
                self.accepted_handoffs.insert(*incoming, Some(resolution.clone()));
            }
            Change::HandoffAcked { incoming } => {
                self.accepted_handoffs.remove(incoming);
            }
            Change::CircuitClosed { incoming } => {
                self.intercepted.remove(incoming);
                self.received.remove(incoming);
            }
            _ => {}
        }
    }

    fn open(&mut self, incoming: IncomingHtlc, circuit: Circuit) {
        if matches!(circuit.stage, CircuitStage::Intercepted(_)) {
            self.intercepted.insert(incoming);
        } else {
            self.intercepted.remove(&incoming);
        }
        self.received.insert(incoming, circuit);
    }

    fn offer(&mut self, outgoing: OutgoingHtlc, origin: Origin) {
        match origin {
            Origin::Attempt { attempt_id } => {
                self.attempts.insert(attempt_id);
            }
            Origin::Forward(_) => {}
            Origin::Handoff(forward) => {
                self.accepted_handoffs.insert(forward.incoming, None);
            }
        }
        self.offered.insert(outgoing, origin);
    }
}
