//! Decisions on received HTLCs: peeled, checked, carried on, held, fulfilled or failed (BOLT 2 "Forwarding HTLCs",
//! BOLT 4).
//!
//! Owns the decisions on HTLCs that a channel reports irrevocably committed. Does not relay their resolutions (see
//! `resolve`), and commits nothing to a peer: the turn signs for all channels at its end.
//!
//! Invariant: an HTLC goes out only for one irrevocably committed in, and each received HTLC is decided once.

use fulmen_wire::onion::OnionPacket;
use fulmen_wire::units::{ChannelId, Msat, PaymentHash};
use sha2::{Digest, Sha256};

use crate::channel::{self, Htlc, HtlcEntry, Side};
use crate::onion::{
    Failure, FailureCode, FinalPayload, Payload, PeelJob, PeelReaction, Peeled, ReplayTag, SharedSecret,
    peel_batch,
};

use super::intercept::intercepted_event;
use super::offer::report_refusal;
use super::open_turn::{LockedIn, OpenTurn};
use super::output::{Event, RefusedOutgoing};
use crate::forward::shard::Shard;
use crate::forward::state::change::Change;
use crate::forward::state::receiver::{Accepted, FinalHtlc};
use crate::forward::terms::circuit::{Circuit, CircuitStage, Offer, Resolution};
use crate::forward::terms::handoff::{Handoff, HandoffStep, PaymentPart};
use crate::forward::terms::ids::IncomingHtlc;
use crate::forward::terms::time::Now;

impl Shard {
    /// Decides all HTLCs that became irrevocably committed this turn, their onions peeled as one batch.
    pub(crate) fn decide(&mut self, turn: &mut OpenTurn) {
        let mut fresh = std::mem::take(&mut turn.locked_in);
        if !self.in_step {
            // They are found again in their channels.
            return;
        }
        fresh.retain(|locked_in| self.state.circuits.received(locked_in.incoming).is_none());
        let jobs: Vec<PeelJob<'_>> = fresh
            .iter()
            .filter(|locked_in| locked_in.htlc.path_key.is_none())
            .map(|locked_in| PeelJob {
                packet: onion(&locked_in.htlc),
                associated_data: &locked_in.htlc.payment_hash.0,
            })
            .collect();
        let mut peeled = peel_batch(&self.node_secret, &jobs).into_iter();
        self.counters.onions_peeled += jobs.len() as u64;
        for locked_in in fresh {
            let onion = if locked_in.htlc.path_key.is_some() { None } else { peeled.next() };
            match onion {
                None => self.refuse_blinded(turn, &locked_in),
                Some(Err(error)) => self.refuse_onion(turn, &locked_in, error.reaction()),
                Some(Ok(peeled)) => self.decide_peeled(turn, locked_in, peeled),
            }
        }
    }

    /// Decides from now on: first on the HTLCs and handoffs that came before the chain was in step.
    pub(crate) fn get_in_step(&mut self, turn: &mut OpenTurn) {
        if std::mem::replace(&mut self.in_step, true) {
            return;
        }
        let channels = self.state.channels.iter();
        let undecided = channels.flat_map(|(channel_id, entry)| {
            let is_undecided = |entry: &&HtlcEntry| {
                let incoming = IncomingHtlc { channel_id: *channel_id, htlc_id: entry.htlc.id };
                entry.offered_by == Side::Remote
                    && entry.added == channel::Stage::Irrevocable
                    && entry.removal.is_none()
                    && self.state.circuits.received(incoming).is_none()
            };
            entry.channel.htlcs().filter(is_undecided).map(|entry| LockedIn {
                incoming: IncomingHtlc { channel_id: *channel_id, htlc_id: entry.htlc.id },
                htlc: entry.htlc.clone(),
                over_dust_exposure: entry.over_dust_exposure,
            })
        });
        turn.locked_in = undecided.collect();
        for handoff in std::mem::take(&mut self.early_handoffs) {
            self.handoff(turn, handoff);
        }
    }

    /// Route blinding is not supported: BOLT 4 asks for `invalid_onion_blinding` for any error inside a path.
    fn refuse_blinded(&mut self, turn: &mut OpenTurn, locked_in: &LockedIn) {
        let hash = sha256_of_onion(&locked_in.htlc);
        self.refuse(turn, locked_in, None, Refusal::malformed(FailureCode::InvalidOnionBlinding, hash));
    }

    /// HTLCs of a channel that is being closed are not forwarded (BOLT 2 "Closing Initiation"): failing them lets the
    /// channel close.
    fn is_closing(&self, channel_id: ChannelId) -> bool {
        let entry = self.state.channels.get(&channel_id);
        entry.is_some_and(|entry| !matches!(entry.channel.state(), channel::State::Normal))
    }

    fn refuse_onion(&mut self, turn: &mut OpenTurn, locked_in: &LockedIn, reaction: PeelReaction) {
        match reaction {
            PeelReaction::FailMalformed { failure_code, sha256_of_onion } => {
                self.refuse(turn, locked_in, None, Refusal::malformed(failure_code, sha256_of_onion));
            }
            PeelReaction::Fail { failure, shared_secret } => {
                self.refuse(turn, locked_in, Some(shared_secret), failure.into());
            }
        }
    }

    /// Records a circuit that is resolved with a failure from the start.
    fn refuse(
        &mut self,
        turn: &mut OpenTurn,
        locked_in: &LockedIn,
        shared_secret: Option<SharedSecret>,
        refusal: Refusal,
    ) {
        let Refusal { code, resolution, outgoing } = refusal;
        report_refusal(turn, locked_in.incoming, locked_in.htlc.payment_hash, code, outgoing);
        self.open_circuit(turn, locked_in, shared_secret, CircuitStage::Resolved(resolution));
        turn.resolved.push(locked_in.incoming);
    }

    fn open_circuit(
        &mut self,
        turn: &mut OpenTurn,
        locked_in: &LockedIn,
        shared_secret: Option<SharedSecret>,
        stage: CircuitStage,
    ) {
        let circuit = locked_in.circuit(shared_secret, stage);
        self.change(turn, Change::CircuitOpened { incoming: locked_in.incoming, circuit });
    }

    fn decide_peeled(&mut self, turn: &mut OpenTurn, locked_in: LockedIn, peeled: Peeled) {
        let secret = *peeled.shared_secret();
        let tag = secret.replay_tag();
        let is_known = self.state.replay.knows(tag, locked_in.incoming);
        if self.state.replay.is_replay(tag, locked_in.incoming)
            || !self.replay_claims.claim(tag, locked_in.incoming)
        {
            // Nothing is encrypted under a secret that was used before: the hop before us reports a bad onion.
            let hash = sha256_of_onion(&locked_in.htlc);
            let refusal = Refusal::malformed(FailureCode::InvalidOnionHmac, hash);
            return self.refuse(turn, &locked_in, None, refusal);
        }
        let outcome = match peeled {
            _ if self.is_closing(locked_in.incoming.channel_id) => {
                Err(Failure::TemporaryChannelFailure.into())
            }
            // An onion is never forgotten before its HTLC expires, so that no more are accepted than are remembered.
            _ if self.state.replay.len() >= self.config.replay_tags_max => {
                Err(Failure::TemporaryNodeFailure.into())
            }
            Peeled::Forward { payload, next_packet, .. } => {
                self.decide_forward(turn, &locked_in, secret, &payload, next_packet)
            }
            Peeled::Final { payload, .. } => {
                self.decide_final(turn, &locked_in, secret, payload).map_err(Refusal::from)
            }
        };
        match outcome {
            Ok(()) => self.remember_onion(turn, tag, &locked_in),
            // A refused HTLC moved nothing: its onion may come again, to be refused again.
            Err(refusal) => {
                if !is_known {
                    self.replay_claims.release(tag, locked_in.incoming);
                }
                self.refuse(turn, &locked_in, Some(secret), refusal);
            }
        }
    }

    fn remember_onion(&mut self, turn: &mut OpenTurn, tag: ReplayTag, locked_in: &LockedIn) {
        // A later expiry is refused, so that no memory is needed beyond this one.
        let farthest = self.state.height.saturating_add(self.config.expiry.max);
        let (htlc, cltv_expiry) = (locked_in.incoming, locked_in.htlc.cltv_expiry.min(farthest));
        self.change(turn, Change::OnionSeen { tag, htlc, cltv_expiry });
    }

    fn decide_forward(
        &mut self,
        turn: &mut OpenTurn,
        locked_in: &LockedIn,
        secret: SharedSecret,
        payload: &[u8],
        onion: OnionPacket,
    ) -> Result<(), Refusal> {
        let payload = Payload::decode(payload).and_then(Payload::into_forward).map_err(|e| e.failure())?;
        if locked_in.over_dust_exposure {
            return Err(Failure::TemporaryChannelFailure.into());
        }
        let incoming = locked_in.incoming;
        let offer = Offer {
            scid: payload.short_channel_id,
            incoming_amount: locked_in.htlc.amount,
            inbound_fee: self.inbound_fee(incoming.channel_id),
            incoming_cltv_expiry: locked_in.htlc.cltv_expiry,
            amount: payload.amt_to_forward,
            cltv_expiry: payload.outgoing_cltv_value,
            received_at: turn.now,
            payment_hash: locked_in.htlc.payment_hash,
        };
        let circuit = locked_in.circuit(Some(secret), CircuitStage::Intercepted(offer));
        if self.config.intercept {
            turn.out.events.push(intercepted_event(incoming, &offer));
            self.change(turn, Change::CircuitOpened { incoming, circuit });
            return Ok(());
        }
        let carried_on = self.carry_on(turn, incoming, circuit, offer, onion);
        carried_on
            .map_err(|failure| Refusal { outgoing: self.refused_outgoing(&offer), ..Refusal::from(failure) })
    }

    fn decide_final(
        &mut self,
        turn: &mut OpenTurn,
        locked_in: &LockedIn,
        secret: SharedSecret,
        payload: Vec<u8>,
    ) -> Result<(), Failure> {
        let decoded = decode_final(&payload)?;
        if locked_in.over_dust_exposure {
            // The final node may not blame a channel.
            return Err(Failure::TemporaryNodeFailure);
        }
        let incoming = locked_in.incoming;
        let Htlc { amount, cltv_expiry, payment_hash, .. } = locked_in.htlc;
        if self.config.receiver(payment_hash) != self.config.shard {
            self.open_circuit(turn, locked_in, Some(secret), CircuitStage::PartHandedOff);
            let part = PaymentPart { amount, cltv_expiry, payment_hash, payload };
            turn.out.handoffs.push(Handoff { incoming, step: HandoffStep::Part(part) });
            return Ok(());
        }
        let htlc = FinalHtlc { amount, cltv_expiry, payment_hash, payload: &decoded };
        match self.state.receiver.check(htlc, &self.config, self.state.height, turn.now)? {
            Accepted::Keysend { preimage } => {
                let resolution = Resolution::Fulfill(preimage);
                self.open_circuit(turn, locked_in, Some(secret), CircuitStage::Resolved(resolution));
                turn.resolved.push(incoming);
                turn.out.events.push(Event::PaymentReceived { payment_hash, amount, parts: 1 });
            }
            Accepted::Part { total } => {
                self.check_sum(payment_hash, amount)?;
                let stage = CircuitStage::Held { amt_to_forward: decoded.amt_to_forward };
                self.open_circuit(turn, locked_in, Some(secret), stage);
                self.hold_part(turn, incoming, payment_hash, total);
            }
        }
        Ok(())
    }

    /// Accepts or refuses an HTLC that pays us on a channel of another shard, which gets the resolution.
    pub(crate) fn accept_part(&mut self, turn: &mut OpenTurn, incoming: IncomingHtlc, part: &PaymentPart) {
        let PaymentPart { amount, cltv_expiry, payment_hash, ref payload } = *part;
        let accepted = decode_final(payload).and_then(|payload| {
            let htlc = FinalHtlc { amount, cltv_expiry, payment_hash, payload: &payload };
            let accepted = self.state.receiver.check(htlc, &self.config, self.state.height, turn.now)?;
            if let Accepted::Part { .. } = accepted {
                self.check_sum(payment_hash, amount)?;
            }
            Ok((accepted, payload.amt_to_forward))
        });
        match accepted {
            Err(failure) => self.resolve_handoff(turn, incoming, Resolution::Fail(failure)),
            Ok((Accepted::Keysend { preimage }, _)) => {
                turn.out.events.push(Event::PaymentReceived { payment_hash, amount, parts: 1 });
                self.resolve_handoff(turn, incoming, Resolution::Fulfill(preimage));
            }
            Ok((Accepted::Part { total }, amt_to_forward)) => {
                // Its shard has the key to failures, and encrypts them.
                let (shared_secret, stage) = (None, CircuitStage::Held { amt_to_forward });
                let circuit = Circuit { amount, cltv_expiry, payment_hash, shared_secret, stage };
                self.change(turn, Change::CircuitOpened { incoming, circuit });
                self.change(turn, Change::HandoffAccepted { incoming });
                self.hold_part(turn, incoming, payment_hash, total);
            }
        }
    }

    fn hold_part(
        &mut self,
        turn: &mut OpenTurn,
        incoming: IncomingHtlc,
        payment_hash: PaymentHash,
        total: Msat,
    ) {
        let agrees = self.state.receiver.set(payment_hash).is_none_or(|set| set.total == total);
        let deadline = Now { unix_ms: turn.now.unix_ms.saturating_add(self.config.mpp_timeout_ms) };
        self.change(turn, Change::PartHeld { payment_hash, incoming, total, deadline });
        if !agrees {
            self.fail_set(turn, payment_hash, SetFailure::Mismatch);
        } else if self.set_sum(payment_hash, |_, amt_to_forward| amt_to_forward) >= total {
            self.fulfill_set(turn, payment_hash);
        }
    }

    /// Checks that the parts held for a payment and one more of `amount` are at most twice the amount expected. BOLT 4
    /// ("Failure Messages") applies that bound to `total_msat`; a set may exceed its `total_msat`, but not the bound.
    fn check_sum(&self, payment_hash: PaymentHash, amount: Msat) -> Result<(), Failure> {
        let sum = self.set_sum(payment_hash, |circuit, _| circuit.amount).saturating_add(amount);
        match self.state.receiver.amount(payment_hash) {
            Some(expected) if sum.0 > expected.0.saturating_mul(2) => {
                let height = self.state.height;
                Err(Failure::IncorrectOrUnknownPaymentDetails { htlc_msat: amount, height })
            }
            _ => Ok(()),
        }
    }

    /// Sums something over the parts held for a payment.
    fn set_sum(&self, payment_hash: PaymentHash, value: impl Fn(&Circuit, Msat) -> Msat) -> Msat {
        let parts = self.state.receiver.set(payment_hash).map_or(&[][..], |set| &set.parts);
        parts
            .iter()
            .filter_map(|part| self.state.circuits.received(*part))
            .filter_map(|circuit| match circuit.stage {
                CircuitStage::Held { amt_to_forward } => Some(value(circuit, amt_to_forward)),
                _ => None,
            })
            .sum()
    }

    fn fulfill_set(&mut self, turn: &mut OpenTurn, payment_hash: PaymentHash) {
        let preimage = self.state.receiver.preimage(payment_hash);
        let preimage = preimage.expect("an invoice is kept while parts wait for it");
        let amount = self.set_sum(payment_hash, |circuit, _| circuit.amount);
        let total = self.state.receiver.set(payment_hash).map_or(Msat::ZERO, |set| set.total);
        assert!(amount >= total, "a set of HTLCs is fulfilled when they pay its total: {amount} of {total}");
        let parts = self.take_set(turn, payment_hash, true);
        turn.out.events.push(Event::PaymentReceived { payment_hash, amount, parts: parts.len() });
        for part in parts {
            self.end_part(turn, part, Resolution::Fulfill(preimage));
        }
    }

    /// Ends an HTLC that was held for a payment, or has the shard end it whose channel it came in on.
    fn end_part(&mut self, turn: &mut OpenTurn, part: IncomingHtlc, resolution: Resolution) {
        if self.state.circuits.accepted_handoff(part).is_none() {
            return self.resolve(turn, part, resolution);
        }
        self.change(turn, Change::CircuitClosed { incoming: part });
        self.resolve_handoff(turn, part, resolution);
    }

    /// Fails all parts held for a payment.
    pub(crate) fn fail_set(&mut self, turn: &mut OpenTurn, payment_hash: PaymentHash, reason: SetFailure) {
        let height = self.state.height;
        for part in self.take_set(turn, payment_hash, false) {
            let htlc_msat = self.state.circuits.received(part).map_or(Msat::ZERO, |circuit| circuit.amount);
            let failure = match reason {
                SetFailure::Mismatch => Failure::IncorrectOrUnknownPaymentDetails { htlc_msat, height },
                SetFailure::Timeout => Failure::MppTimeout,
            };
            // For another shard's HTLC, that shard reports it.
            if self.state.circuits.accepted_handoff(part).is_none() {
                report_refusal(turn, part, payment_hash, failure.code().to_u16(), None);
            }
            self.end_part(turn, part, Resolution::Fail(failure));
        }
    }

    fn take_set(&mut self, turn: &mut OpenTurn, payment_hash: PaymentHash, paid: bool) -> Vec<IncomingHtlc> {
        let parts = self.state.receiver.set(payment_hash).map(|set| set.parts.clone()).unwrap_or_default();
        self.change(turn, Change::SetClosed { payment_hash, paid });
        parts
    }

    /// Fails the sets that waited too long, or whose HTLCs come too near their expiry.
    pub(crate) fn expire_sets(&mut self, turn: &mut OpenTurn) {
        let near = self.state.height.saturating_add(self.config.expiry.outgoing_min);
        let expires = |part: &IncomingHtlc| {
            self.state.circuits.received(*part).is_some_and(|circuit| circuit.cltv_expiry <= near)
        };
        let over: Vec<PaymentHash> = self
            .state
            .receiver
            .sets()
            .filter(|(_, set)| turn.now >= set.deadline || set.parts.iter().any(expires))
            .map(|(payment_hash, _)| payment_hash)
            .collect();
        for payment_hash in over {
            self.fail_set(turn, payment_hash, SetFailure::Timeout);
        }
    }
}

/// Why this node does not take an HTLC.
struct Refusal {
    code: u16,
    resolution: Resolution,
    outgoing: Option<RefusedOutgoing>,
}

impl Refusal {
    fn malformed(code: FailureCode, sha256_of_onion: [u8; 32]) -> Refusal {
        let code = code.to_u16();
        let resolution = Resolution::Malformed { failure_code: code, sha256_of_onion };
        Refusal { code, resolution, outgoing: None }
    }
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Refusal {
        let code = failure.code().to_u16();
        Refusal { code, resolution: Resolution::Fail(failure), outgoing: None }
    }
}

/// Why a set of parts is failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SetFailure {
    /// Its parts name different totals.
    Mismatch,
    /// The rest did not come in time.
    Timeout,
}

fn decode_final(payload: &[u8]) -> Result<FinalPayload, Failure> {
    Payload::decode(payload).and_then(|payload| payload.into_final(&[])).map_err(|error| error.failure())
}

fn sha256_of_onion(htlc: &Htlc) -> [u8; 32] {
    Sha256::digest(onion(htlc).as_bytes()).into()
}

/// The onion of a received HTLC that waits for its decision.
fn onion(htlc: &Htlc) -> &OnionPacket {
    htlc.onion_routing_packet.as_ref().expect("an HTLC keeps its onion at least until it is decided on")
}
