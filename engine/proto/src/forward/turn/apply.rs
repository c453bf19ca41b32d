//! Plans of channels applied, and the events of channels taken up.
//!
//! Owns the step from a channel's plan to the turn: its deltas into the record, its messages and transactions into the
//! output, its events into circuits. Does not plan anything.

use fulmen_wire::units::{ChannelId, NodeId, Scid, Signature};

use super::open_turn::{LockedIn, NewChannel, OpenTurn};
use super::output::Event;
use crate::channel::{ChannelEffects, ChannelEvent, Created, Delta, Plan, SignJob};
use crate::forward::shard::Shard;
use crate::forward::state::change::Change;
use crate::forward::state::channels::ChannelEntry;
use crate::forward::terms::ids::{IncomingHtlc, OutgoingHtlc};

impl Shard {
    /// Applies a plan whose checks have passed, making the signatures it needs.
    pub(crate) fn apply_plan(&mut self, turn: &mut OpenTurn, channel_id: ChannelId, plan: Plan) {
        let signatures: Vec<Signature> = plan.sign.iter().map(SignJob::sign).collect();
        self.counters.ecdsa_signed += signatures.len() as u64;
        self.apply_signed(turn, channel_id, plan, &signatures);
    }

    pub(crate) fn apply_signed(
        &mut self,
        turn: &mut OpenTurn,
        channel_id: ChannelId,
        mut plan: Plan,
        signatures: &[Signature],
    ) {
        if self.restrain(channel_id, &mut plan) {
            self.change(turn, Change::DoubtEnded { channel_id });
        }
        assert!(
            !turn.awaiting_verification.contains(&channel_id),
            "a plan waits that was made on this very state"
        );
        let Some(entry) = self.state.channels.get_mut(&channel_id) else {
            debug_assert!(false, "plans are made for channels of this shard");
            return;
        };
        if plan.deltas.iter().any(|delta| matches!(delta, Delta::RevocationReceived { .. })) {
            self.keyless.insert(channel_id);
        }
        let deltas = plan.deltas.iter().cloned();
        turn.out.record.changes.extend(deltas.map(|delta| Change::Channel { channel_id, delta }));
        let effects = entry.channel.apply(plan, signatures);
        let peer = entry.peer;
        self.absorb(turn, channel_id, peer, effects);
    }

    /// Adds a new channel.
    pub(crate) fn begin_channel(&mut self, turn: &mut OpenTurn, new_channel: NewChannel, created: Created) {
        let Created { channel, deltas, effects } = created;
        let NewChannel { peer, user_id, key_index, policy } = new_channel;
        let channel_id = channel.id();
        self.change(turn, Change::ChannelBegun { channel_id, peer, user_id, key_index, policy });
        let deltas = deltas.into_iter().map(|delta| Change::Channel { channel_id, delta });
        turn.out.record.changes.extend(deltas);
        let entry = ChannelEntry::begun(peer, user_id, key_index, policy, self.state.height, channel);
        self.state.channels.insert(channel_id, entry);
        self.absorb(turn, channel_id, peer, effects);
    }

    /// Adds the effects of an applied plan to the turn.
    pub(crate) fn absorb(
        &mut self,
        turn: &mut OpenTurn,
        channel_id: ChannelId,
        peer: NodeId,
        effects: ChannelEffects,
    ) {
        turn.touched.insert(channel_id);
        for message in effects.send {
            self.send(turn, peer, message);
        }
        turn.out.broadcast.extend(effects.broadcast);
        let mut channel_id = channel_id;
        for event in effects.events {
            if let ChannelEvent::IdAssigned { channel_id: permanent } = event {
                self.name_channel(turn, channel_id, permanent);
                channel_id = permanent;
            } else {
                self.channel_event(turn, channel_id, peer, event);
            }
        }
        if effects.disconnect {
            self.drop_peer(turn, peer);
        }
    }

    fn name_channel(&mut self, turn: &mut OpenTurn, temporary_channel_id: ChannelId, channel_id: ChannelId) {
        self.change(turn, Change::ChannelNamed { temporary_channel_id, channel_id });
        turn.touched.remove(&temporary_channel_id);
        turn.touched.insert(channel_id);
        // As opener we have an id before the peer has signed, and so no funded channel yet.
        self.report_funded(turn, channel_id);
    }

    fn report_funded(&self, turn: &mut OpenTurn, channel_id: ChannelId) {
        let Some(entry) = self.state.channels.get(&channel_id) else { return };
        if let Some(funding_outpoint) = entry.channel.funding_outpoint() {
            let (user_id, peer) = (entry.user_id, entry.peer);
            turn.out.events.push(Event::ChannelFunded { channel_id, user_id, peer, funding_outpoint });
        }
    }

    fn channel_event(
        &mut self,
        turn: &mut OpenTurn,
        channel_id: ChannelId,
        peer: NodeId,
        event: ChannelEvent,
    ) {
        let incoming = |htlc_id| IncomingHtlc { channel_id, htlc_id };
        let outgoing = |htlc_id| OutgoingHtlc { channel_id, htlc_id };
        match event {
            ChannelEvent::AddLockedIn { htlc, over_dust_exposure } => {
                turn.locked_in.push(LockedIn { incoming: incoming(htlc.id), htlc, over_dust_exposure });
            }
            ChannelEvent::Fulfilled { id, preimage } => self.outgoing_fulfilled(turn, outgoing(id), preimage),
            ChannelEvent::AddDropped { id } => self.outgoing_dropped(turn, outgoing(id)),
            ChannelEvent::FailLockedIn { id, removal } => self.outgoing_failed(turn, outgoing(id), removal),
            ChannelEvent::FulfillLockedIn { .. } => {}
            ChannelEvent::ShutdownStarted => self.announcer.mark(channel_id),
            ChannelEvent::FundingUnconfirmed { previous } => {
                tracing::warn!(%channel_id, %previous, "the funding left the best chain");
                self.state.unplace(channel_id, previous);
            }
            ChannelEvent::RemovalLockedIn { id, .. } => {
                self.change(turn, Change::CircuitClosed { incoming: incoming(id) });
            }
            ChannelEvent::FundingMoved { previous, scid } => {
                self.state.unplace(channel_id, previous);
                self.channel_placed(turn, channel_id, scid, peer);
            }
            ChannelEvent::Ready { scid } => self.channel_placed(turn, channel_id, scid, peer),
            ChannelEvent::FundingNeeded { script_pubkey, amount } => {
                let user_id = self.state.channels.get(&channel_id).map_or(0, |entry| entry.user_id);
                let (temporary_channel_id, script) = (channel_id, script_pubkey.into());
                turn.out.events.push(Event::FundingNeeded {
                    temporary_channel_id,
                    user_id,
                    peer,
                    amount,
                    script,
                });
            }
            ChannelEvent::FundingBroadcast { transaction } => {
                turn.out.broadcast.push(transaction);
                self.report_funded(turn, channel_id);
            }
            ChannelEvent::Closed { transaction } => {
                turn.out.events.push(Event::ChannelClosed { channel_id, transaction });
            }
            ChannelEvent::Failed { error, broadcast_allowed } => {
                turn.out.events.push(Event::ChannelFailed {
                    channel_id,
                    peer,
                    error: Box::new(error),
                    broadcast_allowed,
                });
                self.announcer.mark(channel_id);
                self.forget_unfunded(turn, channel_id);
            }
            ChannelEvent::IdAssigned { .. } => debug_assert!(false, "taken care of by the caller"),
        }
    }

    fn channel_placed(&mut self, turn: &mut OpenTurn, channel_id: ChannelId, scid: Scid, peer: NodeId) {
        self.change(turn, Change::ChannelReady { channel_id, scid });
        self.announcer.mark(channel_id);
        turn.out.events.push(Event::ChannelReady { channel_id, scid, peer });
    }

    /// Forgets a failed channel that holds nobody's money.
    fn forget_unfunded(&mut self, turn: &mut OpenTurn, channel_id: ChannelId) {
        if self
            .state
            .channels
            .get(&channel_id)
            .is_some_and(|entry| entry.channel.funding_outpoint().is_none())
        {
            self.change(turn, Change::ChannelForgotten { channel_id });
            turn.touched.remove(&channel_id);
        }
    }
}
