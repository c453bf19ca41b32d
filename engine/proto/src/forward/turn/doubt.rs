//! Channels whose state may be old: the node was started from a copy of its store (BOLT 2, "Message Retransmission": a
//! node that has fallen behind must not broadcast its commitment).
//!
//! Owns the doubt about a channel's state, from the first turn after such a start until the peer's
//! `channel_reestablish` fits that state, or the operator insists on it. The doubt is durable. Does not find out that a
//! store is a copy: the embedder says so.
//!
//! Invariant: of a channel in doubt, no commitment may be broadcast, whatever fails it, no deadline fails it, and no
//! HTLC that it may have signed since is failed upstream. A peer that wants us to go on with an old state can pretend
//! to have the same; that cannot be detected, and gives it nothing that we have not signed.

use fulmen_wire::units::ChannelId;

use super::open_turn::OpenTurn;
use crate::channel::{self, Channel, ChannelError, Delta, Plan};
use crate::forward::shard::Shard;
use crate::forward::state::change::Change;
use crate::forward::terms::error::CommandError;
use crate::forward::terms::ids::ChannelRef;

impl Shard {
    /// Doubts the state of every channel: this shard was restored from a copy of its store, which may be old. To be
    /// called before its first turn.
    pub fn doubt_state(&mut self) {
        self.doubts_state = true;
    }

    /// Puts the doubt on record, in the first turn.
    pub(crate) fn begin_doubt(&mut self, turn: &mut OpenTurn) {
        if !std::mem::take(&mut self.doubts_state) {
            return;
        }
        // One that may not be broadcast for another reason stays so.
        let is_doubtful = |channel: &Channel| {
            !matches!(channel.state(), channel::State::Opening | channel::State::Closed)
                && channel.failure().is_none_or(ChannelError::broadcast_allowed)
        };
        let channels = self.state.channels.iter().filter(|(_, entry)| is_doubtful(&entry.channel));
        let channels: Vec<ChannelId> = channels.map(|(channel_id, _)| *channel_id).collect();
        for channel_id in channels {
            self.change(turn, Change::StateDoubted { channel_id });
        }
    }

    /// Whether a channel's state may be old, so that nothing of it may be broadcast.
    #[must_use]
    pub fn is_in_doubt(&self, channel_id: ChannelId) -> bool {
        self.state.channels.get(&channel_id).is_some_and(|entry| entry.in_doubt)
    }

    /// Forbids a plan for a channel in doubt to allow a broadcast. Returns whether the plan ends the doubt: the peer's
    /// `channel_reestablish` fits the channel's state, or proves that it is old.
    pub(crate) fn restrain(&self, channel_id: ChannelId, plan: &mut Plan) -> bool {
        if !self.is_in_doubt(channel_id) {
            return false;
        }
        // They may have been signed since.
        plan.deltas.retain(|delta| !matches!(delta, Delta::AdditionsDropped));
        let mut ends = false;
        for delta in &mut plan.deltas {
            match delta {
                Delta::Reestablished => ends = true,
                Delta::Failed { error } if error.broadcast_allowed() => {
                    *error = ChannelError::StateInDoubt(error.to_string());
                }
                Delta::Failed { .. } => ends = true,
                _ => {}
            }
        }
        ends
    }

    /// The operator insists on a channel's state: deadlines hold from now on, and if the channel has failed meanwhile,
    /// its latest commitment may be broadcast.
    pub(crate) fn insist_on_state(
        &mut self,
        turn: &mut OpenTurn,
        channel_id: ChannelId,
    ) -> Result<(), CommandError> {
        let unknown = CommandError::UnknownChannel(ChannelRef::Id(channel_id));
        let entry = self.state.channels.get(&channel_id).ok_or(unknown)?;
        if !entry.in_doubt {
            return Err(CommandError::StateNotInDoubt(channel_id));
        }
        let failure = entry.channel.failure().map(ToString::to_string);
        self.change(turn, Change::DoubtEnded { channel_id });
        match failure {
            Some(text) => {
                let error = ChannelError::Recorded { text, broadcast_allowed: true };
                let plan = Plan { deltas: vec![Delta::Failed { error }], ..Plan::default() };
                self.apply_plan(turn, channel_id, plan);
            }
            None => self.fail_overdue(turn),
        }
        Ok(())
    }
}
