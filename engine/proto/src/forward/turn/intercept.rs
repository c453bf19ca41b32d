//! Intercepted forwards: held until the embedder resumes or fails them.
//!
//! Owns: reporting a forward ([`Event::HtlcIntercepted`]), and carrying it on or failing it on command, or when its
//! expiry comes too near to wait. Does not know the embedder's reasons: a channel to open first, a limit, a policy that
//! BOLT 7 cannot express.
//!
//! Invariant: an HTLC held here is durable as such. The first turn after a restart reports each again, and a
//! command that comes too late is refused.

use super::offer::report_refusal;
use crate::onion::Failure;

use super::open_turn::OpenTurn;
use super::output::Event;
use crate::forward::shard::Shard;
use crate::forward::terms::circuit::{Circuit, CircuitStage, Offer, Resolution};
use crate::forward::terms::error::CommandError;
use crate::forward::terms::ids::IncomingHtlc;

impl Shard {
    /// An event for each HTLC that waits for the embedder's decision.
    pub fn intercepted(&self) -> impl Iterator<Item = Event> + '_ {
        let held = self.state.circuits.intercepted();
        held.map(|(incoming, offer)| intercepted_event(incoming, &offer))
    }

    /// Fails the HTLCs that cannot be held any longer: forwarded now they would be refused for their expiry.
    pub(crate) fn expire_intercepted(&mut self, turn: &mut OpenTurn) {
        let near = self.state.height.saturating_add(self.config.expiry.incoming_min);
        let late: Vec<IncomingHtlc> = self
            .state
            .circuits
            .intercepted()
            .filter(|(_, offer)| offer.incoming_cltv_expiry <= near)
            .map(|(incoming, _)| incoming)
            .collect();
        for incoming in late {
            self.refuse_intercepted(turn, incoming, Failure::ExpiryTooSoon);
        }
    }

    /// Carries a held HTLC on, as if it had been decided on now.
    pub(crate) fn resume_htlc(
        &mut self,
        turn: &mut OpenTurn,
        incoming: IncomingHtlc,
    ) -> Result<(), CommandError> {
        let (circuit, offer) = self.held(incoming)?;
        if !self.in_step {
            return Err(CommandError::ChainNotInStep);
        }
        let onion = self.next_onion(incoming).ok_or(CommandError::NotIntercepted(incoming))?;
        if let Err(failure) = self.carry_on(turn, incoming, circuit, offer, onion) {
            self.refuse_intercepted(turn, incoming, failure);
        }
        Ok(())
    }

    /// Fails a held HTLC.
    pub(crate) fn fail_htlc(
        &mut self,
        turn: &mut OpenTurn,
        incoming: IncomingHtlc,
        failure: Failure,
    ) -> Result<(), CommandError> {
        self.held(incoming)?;
        self.refuse_intercepted(turn, incoming, failure);
        Ok(())
    }

    fn held(&self, incoming: IncomingHtlc) -> Result<(Circuit, Offer), CommandError> {
        match self.state.circuits.received(incoming) {
            Some(circuit @ Circuit { stage: CircuitStage::Intercepted(offer), .. }) => {
                Ok((circuit.clone(), *offer))
            }
            _ => Err(CommandError::NotIntercepted(incoming)),
        }
    }

    fn refuse_intercepted(&mut self, turn: &mut OpenTurn, incoming: IncomingHtlc, failure: Failure) {
        let Some(circuit) = self.state.circuits.received(incoming) else { return };
        report_refusal(turn, incoming, circuit.payment_hash, failure.code().to_u16(), None);
        self.resolve(turn, incoming, Resolution::Fail(failure));
    }
}

/// The event for a held HTLC.
pub(crate) fn intercepted_event(incoming: IncomingHtlc, offer: &Offer) -> Event {
    Event::HtlcIntercepted { incoming, offer: *offer }
}
