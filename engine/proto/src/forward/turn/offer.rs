//! Offering an HTLC for one received: on the channel its sender named or, where that cannot, on another to the same
//! peer (BOLT 4 "Non-strict Forwarding").
//!
//! Owns the choice of the outgoing channel. Does not check policies: see `policy`.
//!
//! Invariant: an offer satisfies the policy of the channel it names, whichever channel carries it; and that of the one
//! that does. The failure is always that of the named channel, so that it reveals
//! nothing about the others.

use fulmen_wire::onion::OnionPacket;
use fulmen_wire::units::{ChannelId, Msat, PaymentHash};

use crate::channel;
use crate::forward::state::change::Change;
use crate::forward::terms::handoff::{Handoff, HandoffStep};
use crate::onion::Failure;

use super::open_turn::OpenTurn;
use super::output::{Event, RefusedOutgoing};
use crate::forward::shard::Shard;
use crate::forward::state::channels::ChannelEntry;
use crate::forward::terms::circuit::{Circuit, CircuitStage, Offer, Origin};
use crate::forward::terms::config::InboundFee;
use crate::forward::terms::ids::{IncomingHtlc, OutgoingHtlc};
use crate::forward::terms::policy::check_forward;

impl Shard {
    /// Carries on an HTLC that is decided on: hands it to the shard that has the channel its sender named, or offers it
    /// on a channel of this one. Records its circuit with the stage that follows.
    ///
    /// # Errors
    /// The failure for the sender. Nothing is recorded then.
    pub(crate) fn carry_on(
        &mut self,
        turn: &mut OpenTurn,
        incoming: IncomingHtlc,
        circuit: Circuit,
        offer: Offer,
        onion: OnionPacket,
    ) -> Result<(), Failure> {
        if !self.state.scids.contains_key(&offer.scid) && self.siblings.contains(&offer.scid) {
            let circuit = Circuit { stage: CircuitStage::HandedOff(offer), ..circuit };
            self.change(turn, Change::CircuitOpened { incoming, circuit });
            turn.out.handoffs.push(Handoff { incoming, step: HandoffStep::Offer { offer, onion } });
            return Ok(());
        }
        let outgoing = self.offer_checked(turn, &offer, onion)?;
        let circuit = Circuit { stage: CircuitStage::Offered { outgoing }, ..circuit };
        self.change(turn, Change::CircuitOpened { incoming, circuit });
        let origin = Origin::Forward(offer.forward(incoming));
        self.change(turn, Change::Offered { outgoing, origin });
        Ok(())
    }

    /// Offers an HTLC for one received, if policies and means allow: on the named channel if it can, else on the one
    /// to the same peer that has the least to offer of those that have enough, so that larger HTLCs find room later.
    pub(crate) fn offer_checked(
        &mut self,
        turn: &mut OpenTurn,
        offer: &Offer,
        onion: OnionPacket,
    ) -> Result<OutgoingHtlc, Failure> {
        let named = *self.state.scids.get(&offer.scid).ok_or(Failure::UnknownNextPeer)?;
        let entry = self.state.channels.get(&named).ok_or(Failure::UnknownNextPeer)?;
        let (peer, command) = (entry.peer, add_command(offer, onion));
        if is_usable(entry) {
            self.check_policies(turn, entry, offer)?;
        }
        let failure = match self.offer_on(turn, named, offer, &command) {
            Ok(outgoing) => return Ok(outgoing),
            Err(failure) => failure,
        };
        let mut others: Vec<_> = self
            .channels_of(peer)
            .into_iter()
            .filter(|channel_id| *channel_id != named)
            .filter_map(|channel_id| {
                let entry = self.state.channels.get(&channel_id)?;
                let scid = entry.channel.scid()?;
                let available = entry.channel.available_out();
                let fits = available >= offer.amount && self.check_policies(turn, entry, offer).is_ok();
                fits.then_some((available, scid, channel_id))
            })
            .collect();
        others.sort_unstable();
        let offered =
            others.into_iter().find_map(|(.., other)| self.offer_on(turn, other, offer, &command).ok());
        offered.ok_or(failure)
    }

    fn check_policies(&self, turn: &OpenTurn, entry: &ChannelEntry, offer: &Offer) -> Result<(), Failure> {
        let mut outcome = Ok(());
        for policy in entry.policies.accepted(turn.now) {
            let checked = check_forward(offer, &policy, &self.config.expiry, self.state.height);
            if checked.is_ok() {
                return Ok(());
            }
            // The failure is that of the current policy, which comes first.
            outcome = outcome.and(checked);
        }
        outcome
    }

    fn offer_on(
        &mut self,
        turn: &mut OpenTurn,
        channel_id: ChannelId,
        offer: &Offer,
        command: &channel::ChannelCommand,
    ) -> Result<OutgoingHtlc, Failure> {
        let entry = self.state.channels.get(&channel_id).ok_or(Failure::UnknownNextPeer)?;
        if !is_usable(entry) {
            return Err(Failure::PermanentChannelFailure);
        }
        if turn.sent.is_full(entry.peer, self.config.send_bytes) {
            return Err(Failure::TemporaryChannelFailure);
        }
        assert!(
            offer.incoming_amount >= offer.amount && offer.incoming_cltv_expiry >= offer.cltv_expiry,
            "an HTLC that the policies allow pays at least as much, and as long, as the one offered for it: {offer:?}"
        );
        self.add_htlc(turn, channel_id, command).map_err(|error| failure_of_add(&error))
    }

    /// Has a channel offer an HTLC; returns its channel and id.
    pub(crate) fn add_htlc(
        &mut self,
        turn: &mut OpenTurn,
        channel_id: ChannelId,
        command: &channel::ChannelCommand,
    ) -> Result<OutgoingHtlc, channel::ChannelCommandError> {
        let entry = self.state.channels.get(&channel_id).expect("the caller has looked the channel up");
        let htlc_id = entry.channel.next_htlc_id();
        let plan = entry.channel.plan_command(command)?;
        self.apply_plan(turn, channel_id, plan);
        Ok(OutgoingHtlc { channel_id, htlc_id })
    }

    /// The inbound fee of a channel.
    pub(crate) fn inbound_fee(&self, channel_id: ChannelId) -> InboundFee {
        let entry = self.state.channels.get(&channel_id);
        entry.map_or(InboundFee::default(), |entry| entry.policies.current.inbound_fee)
    }

    /// The channel that did not take an offer, for the operator.
    pub(crate) fn refused_outgoing(&self, offer: &Offer) -> Option<RefusedOutgoing> {
        let entry = self.state.channels.get(self.state.scids.get(&offer.scid)?)?;
        let available = entry.channel.available_out();
        Some(RefusedOutgoing { scid: offer.scid, amount: offer.amount, available })
    }
}

/// Reports that this node refused a received HTLC.
pub(crate) fn report_refusal(
    turn: &mut OpenTurn,
    incoming: IncomingHtlc,
    payment_hash: PaymentHash,
    code: u16,
    outgoing: Option<RefusedOutgoing>,
) {
    let incoming_channel_id = incoming.channel_id;
    turn.out.events.push(Event::HtlcRefused { incoming_channel_id, payment_hash, code, outgoing });
}

fn is_usable(entry: &ChannelEntry) -> bool {
    matches!(entry.channel.state(), channel::State::Normal)
}

fn add_command(offer: &Offer, onion: OnionPacket) -> channel::ChannelCommand {
    channel::ChannelCommand::AddHtlc {
        amount: offer.amount,
        payment_hash: offer.payment_hash,
        cltv_expiry: offer.cltv_expiry,
        onion_routing_packet: onion,
        path_key: None,
    }
}

/// The failure for the sender when a channel cannot take an HTLC that its policy allows.
fn failure_of_add(error: &channel::ChannelCommandError) -> Failure {
    match error {
        channel::ChannelCommandError::HtlcBelowMinimum { amount, .. } => {
            Failure::AmountBelowMinimum { htlc_msat: *amount }
        }
        channel::ChannelCommandError::HtlcAmountZero => Failure::AmountBelowMinimum { htlc_msat: Msat(0) },
        channel::ChannelCommandError::ShuttingDown => Failure::PermanentChannelFailure,
        channel::ChannelCommandError::CltvExpiryNotAHeight(_) => Failure::ExpiryTooFar,
        _ => Failure::TemporaryChannelFailure,
    }
}
