//! Resolutions: the way of a preimage or a failure back to where the HTLC came from (BOLT 2 "Forwarding
//! HTLCs", BOLT 4 "Returning Errors").
//!
//! Owns resolutions: recording them, encrypting or wrapping failures, handing them to the channel or to another shard.
//! Does not decide on fresh HTLCs; see `decide`.
//!
//! Invariant: a failure goes back only when the removal downstream is irrevocably committed; a fulfillment goes back in
//! the turn that learns the preimage. Of several resolutions of one HTLC the first counts.

use fulmen_wire::units::PaymentPreimage;

use crate::channel::{self, Removal};
use crate::onion::{Failure, create_failure, wrap_failure};

use super::offer::report_refusal;
use super::open_turn::OpenTurn;
use super::output::{Event, FailureReason};
use crate::forward::shard::Shard;
use crate::forward::state::change::Change;
use crate::forward::terms::circuit::{CircuitStage, Forward, Origin, Resolution};
use crate::forward::terms::error::LocalFailure;
use crate::forward::terms::handoff::{Handoff, HandoffStep};
use crate::forward::terms::ids::{IncomingHtlc, OutgoingHtlc};
use crate::forward::terms::time::Now;

impl Shard {
    /// Records the resolution of a received HTLC, which its channel then removes. Only the first resolution counts.
    pub(crate) fn resolve(&mut self, turn: &mut OpenTurn, incoming: IncomingHtlc, resolution: Resolution) {
        let Some(circuit) = self.state.circuits.received(incoming) else { return };
        if matches!(circuit.stage, CircuitStage::Resolved(_)) {
            return;
        }
        self.change(turn, Change::Resolved { incoming, resolution });
        turn.resolved.push(incoming);
    }

    /// Has the channels remove the HTLCs resolved so far this turn. Not done on the spot: while messages are taken in,
    /// the other channel may have a plan waiting for its signatures, which is good for its present state only.
    pub(crate) fn remove_resolved(&mut self, turn: &mut OpenTurn) {
        for incoming in std::mem::take(&mut turn.resolved) {
            self.remove_htlc(turn, incoming);
        }
    }

    /// Has the channel remove a resolved HTLC. A channel takes this at any time while it lives; one that does not live
    /// any more leaves the HTLC to the chain.
    fn remove_htlc(&mut self, turn: &mut OpenTurn, incoming: IncomingHtlc) {
        let Some(circuit) = self.state.circuits.received(incoming) else { return };
        let CircuitStage::Resolved(resolution) = &circuit.stage else { return };
        let id = incoming.htlc_id;
        let command = match (resolution, circuit.shared_secret) {
            (Resolution::Fulfill(preimage), _) => {
                channel::ChannelCommand::FulfillHtlc { id, preimage: *preimage }
            }
            (Resolution::Malformed { failure_code, sha256_of_onion }, None) => {
                let (failure_code, sha256_of_onion) = (*failure_code, *sha256_of_onion);
                channel::ChannelCommand::FailMalformedHtlc { id, sha256_of_onion, failure_code }
            }
            (Resolution::Malformed { failure_code, sha256_of_onion }, Some(secret)) => {
                // Reported by the next hop, which cannot encrypt to the sender: we do it instead.
                let failure = Failure::from_malformed(*failure_code, *sha256_of_onion)
                    .unwrap_or(Failure::TemporaryChannelFailure);
                channel::ChannelCommand::FailHtlc { id, reason: create_failure(&secret, &failure) }
            }
            (Resolution::Fail(failure), Some(secret)) => {
                channel::ChannelCommand::FailHtlc { id, reason: create_failure(&secret, failure) }
            }
            (Resolution::Relay(reason), Some(secret)) => {
                let mut reason = reason.clone();
                wrap_failure(&secret, &mut reason);
                channel::ChannelCommand::FailHtlc { id, reason }
            }
            (Resolution::Fail(_) | Resolution::Relay(_), None) => {
                debug_assert!(false, "only a malformed onion leaves no secret");
                return;
            }
        };
        let Some(entry) = self.state.channels.get(&incoming.channel_id) else { return };
        match entry.channel.plan_command(&command) {
            Ok(plan) => self.apply_plan(turn, incoming.channel_id, plan),
            Err(error) => tracing::debug!(?incoming, %error, "removal left to the chain"),
        }
    }

    /// The peer showed the preimage of an HTLC we offered.
    pub(crate) fn outgoing_fulfilled(
        &mut self,
        turn: &mut OpenTurn,
        outgoing: OutgoingHtlc,
        preimage: PaymentPreimage,
    ) {
        let Some(origin) = self.state.circuits.origin(outgoing) else { return };
        self.change(turn, Change::OfferEnded { outgoing });
        match origin {
            Origin::Attempt { attempt_id } => {
                turn.out.events.push(Event::HtlcSettled { attempt_id, preimage });
            }
            Origin::Forward(forward) => {
                turn.out.events.push(forwarded(forward, outgoing, turn.now));
                self.resolve(turn, forward.incoming, Resolution::Fulfill(preimage));
            }
            Origin::Handoff(forward) => {
                turn.out.events.push(forwarded(forward, outgoing, turn.now));
                self.resolve_handoff(turn, forward.incoming, Resolution::Fulfill(preimage));
            }
        }
    }

    /// An HTLC we offered was dropped before any commitment held it.
    pub(crate) fn outgoing_dropped(&mut self, turn: &mut OpenTurn, outgoing: OutgoingHtlc) {
        let Some(origin) = self.state.circuits.origin(outgoing) else { return };
        self.change(turn, Change::OfferEnded { outgoing });
        let resolution = Resolution::Fail(Failure::TemporaryChannelFailure);
        match origin {
            Origin::Attempt { attempt_id } => {
                let (channel_id, error) = (outgoing.channel_id, channel::ChannelCommandError::NotConnected);
                let reason = FailureReason::Local(LocalFailure::Refused { channel_id, error });
                turn.out.events.push(Event::HtlcFailed { attempt_id, reason });
            }
            Origin::Forward(forward) => {
                if let Some(circuit) = self.state.circuits.received(forward.incoming) {
                    let code = Failure::TemporaryChannelFailure.code().to_u16();
                    report_refusal(turn, forward.incoming, circuit.payment_hash, code, None);
                }
                self.resolve(turn, forward.incoming, resolution);
            }
            Origin::Handoff(forward) => {
                // Its id may be used again, for an HTLC with another onion.
                self.onions_awaited.remove(&forward.incoming);
                self.resolve_handoff(turn, forward.incoming, resolution);
            }
        }
    }

    /// The failure of an HTLC we offered is irrevocably committed.
    pub(crate) fn outgoing_failed(&mut self, turn: &mut OpenTurn, outgoing: OutgoingHtlc, removal: Removal) {
        let Some(origin) = self.state.circuits.origin(outgoing) else { return };
        let (reason, resolution) = match removal {
            // The peer's reason was too long to be kept, or none.
            Removal::Fail(packet) if packet.is_empty() => {
                (FailureReason::Remote { packet }, Resolution::Fail(Failure::TemporaryChannelFailure))
            }
            Removal::Fail(packet) => {
                (FailureReason::Remote { packet: packet.clone() }, Resolution::Relay(packet))
            }
            Removal::FailMalformed { sha256_of_onion, failure_code } => (
                FailureReason::Malformed { failure_code },
                Resolution::Malformed { failure_code, sha256_of_onion },
            ),
            Removal::Fulfill(preimage) => return self.outgoing_fulfilled(turn, outgoing, preimage),
        };
        self.change(turn, Change::OfferEnded { outgoing });
        match origin {
            Origin::Attempt { attempt_id } => turn.out.events.push(Event::HtlcFailed { attempt_id, reason }),
            Origin::Forward(forward) => {
                turn.out.events.push(returned(forward, outgoing, turn.now));
                self.resolve(turn, forward.incoming, resolution);
            }
            Origin::Handoff(forward) => {
                turn.out.events.push(returned(forward, outgoing, turn.now));
                self.resolve_handoff(turn, forward.incoming, resolution);
            }
        }
    }

    /// Hands the resolution of an HTLC to the shard that handed the HTLC over.
    pub(crate) fn resolve_handoff(
        &mut self,
        turn: &mut OpenTurn,
        incoming: IncomingHtlc,
        resolution: Resolution,
    ) {
        self.change(turn, Change::HandoffResolved { incoming, resolution: resolution.clone() });
        turn.out.handoffs.push(Handoff { incoming, step: HandoffStep::Resolve(resolution) });
    }

    /// Takes from offers that are repeated after a restart the onions that the records left out.
    pub(crate) fn supply_repeated_onions(&mut self, handoffs: &[Handoff]) {
        if self.onions_awaited.is_empty() {
            return;
        }
        for Handoff { incoming, step } in handoffs {
            if let HandoffStep::Offer { onion, .. } = step
                && let Some(outgoing) = self.onions_awaited.remove(incoming)
                && let Some(entry) = self.state.channels.get_mut(&outgoing.channel_id)
            {
                entry.channel.supply_onion(outgoing.htlc_id, onion.clone());
            }
        }
    }

    /// Takes a step that another shard of this node asks for; see [`Handoff`] for why it may ask twice.
    pub(crate) fn handoff(&mut self, turn: &mut OpenTurn, handoff: Handoff) {
        let incoming = handoff.incoming;
        let accepted = self.state.circuits.accepted_handoff(incoming);
        // One that was accepted before a restart is answered at once: kept until later, it would be taken for a new one
        // after its resolution is acknowledged, and be offered although it has failed upstream.
        if !self.in_step
            && accepted.is_none()
            && matches!(handoff.step, HandoffStep::Offer { .. } | HandoffStep::Part(_))
        {
            self.early_handoffs.push(handoff);
            return;
        }
        match handoff.step {
            HandoffStep::Offer { .. } | HandoffStep::Part(_) if accepted.is_some() => {
                if let Some(Some(resolution)) = accepted {
                    let step = HandoffStep::Resolve(resolution.clone());
                    turn.out.handoffs.push(Handoff { incoming, step });
                }
            }
            HandoffStep::Offer { offer, onion } => match self.offer_checked(turn, &offer, onion) {
                Ok(outgoing) => {
                    let origin = Origin::Handoff(offer.forward(incoming));
                    self.change(turn, Change::Offered { outgoing, origin });
                }
                Err(failure) => self.resolve_handoff(turn, incoming, Resolution::Fail(failure)),
            },
            HandoffStep::Part(part) => self.accept_part(turn, incoming, &part),
            HandoffStep::Resolve(resolution) => {
                self.report_refused_handoff(turn, incoming, &resolution);
                self.resolve(turn, incoming, resolution);
                turn.out.handoffs.push(Handoff { incoming, step: HandoffStep::Ack });
            }
            HandoffStep::Ack => {
                if accepted.is_some() {
                    self.change(turn, Change::HandoffAcked { incoming });
                }
            }
        }
    }

    /// Reports that another shard refused an HTLC, once.
    fn report_refused_handoff(&self, turn: &mut OpenTurn, incoming: IncomingHtlc, resolution: &Resolution) {
        let Some(circuit) = self.state.circuits.received(incoming) else { return };
        if let (CircuitStage::HandedOff(_) | CircuitStage::PartHandedOff, Resolution::Fail(failure)) =
            (&circuit.stage, resolution)
        {
            report_refusal(turn, incoming, circuit.payment_hash, failure.code().to_u16(), None);
        }
    }
}

fn forwarded(forward: Forward, outgoing: OutgoingHtlc, now: Now) -> Event {
    assert!(forward.incoming_amount >= forward.outgoing_amount, "no forward is made at a loss: {forward:?}");
    Event::Forwarded {
        incoming_channel_id: forward.incoming.channel_id,
        outgoing_channel_id: outgoing.channel_id,
        incoming_amount: forward.incoming_amount,
        outgoing_amount: forward.outgoing_amount,
        fee: forward.incoming_amount.saturating_sub(forward.outgoing_amount),
        hold_ms: hold_ms(forward, now),
    }
}

fn returned(forward: Forward, outgoing: OutgoingHtlc, now: Now) -> Event {
    Event::ForwardFailed {
        incoming_channel_id: forward.incoming.channel_id,
        outgoing_channel_id: outgoing.channel_id,
        outgoing_amount: forward.outgoing_amount,
        hold_ms: hold_ms(forward, now),
    }
}

fn hold_ms(forward: Forward, now: Now) -> u64 {
    now.unix_ms.saturating_sub(forward.received_at.unix_ms)
}
