//! Block inputs: confirmations of fundings, and deadlines of HTLCs and channels.
//!
//! Owns the steps that depend on the height alone. Does not watch the chain: confirmations are inputs.

use bitcoin::{OutPoint, Txid};
use fulmen_wire::units::{BlockHeight, ChannelId, NodeId};

use super::open_turn::OpenTurn;
use crate::channel::{self, ChannelError, HtlcEntry, Side, State};
use crate::forward::shard::Shard;
use crate::forward::state::change::Change;
use crate::forward::state::channels::ChannelEntry;
use crate::forward::terms::circuit::{CircuitStage, Resolution};
use crate::forward::terms::ids::IncomingHtlc;
use crate::forward::terms::input::Confirmation;

/// The blocks after which a peer's channel without a confirmed funding is forgotten: BOLT 2's 2016, and a day for those
/// that confirm at the last moment.
pub(crate) const FUNDING_TIMEOUT_BLOCKS: u32 = 2016 + 144;

impl Shard {
    pub(crate) fn connect_block(
        &mut self,
        turn: &mut OpenTurn,
        height: BlockHeight,
        confirmations: &[Confirmation],
    ) {
        if height != self.state.height {
            for (tag, htlc) in self.state.replay.expired(height) {
                self.replay_claims.release(tag, htlc);
            }
            self.change(turn, Change::Height(height));
        }
        for confirmation in confirmations {
            self.confirm(turn, confirmation);
        }
        self.forget_unconfirmed(turn);
        self.drop_late_additions(turn);
        self.fail_overdue(turn);
    }

    /// Fails the channels with an HTLC whose deadline has passed: the peer did not answer in time, and from now on only
    /// the chain settles it (BOLT 2, "`cltv_expiry_delta` Selection": MUST fail the channel). A channel whose state may
    /// be old waits until that is settled: to broadcast a revoked commitment would lose all of it.
    pub(crate) fn fail_overdue(&mut self, turn: &mut OpenTurn) {
        let channels = self.state.channels.iter();
        let overdue: Vec<(ChannelId, ChannelError)> = channels
            .filter_map(|(channel_id, entry)| Some((*channel_id, self.overdue(*channel_id, entry)?)))
            .collect();
        for (channel_id, error) in overdue {
            let Some(entry) = self.state.channels.get(&channel_id) else { continue };
            let plan = entry.channel.plan_reaction(&error);
            self.apply_plan(turn, channel_id, plan);
        }
    }

    /// The first HTLC of a channel whose deadline has passed.
    fn overdue(&self, channel_id: ChannelId, entry: &ChannelEntry) -> Option<ChannelError> {
        if entry.in_doubt || matches!(entry.channel.state(), channel::State::Failed | channel::State::Closed)
        {
            return None;
        }
        let (height, limits) = (self.state.height, self.config.expiry);
        entry.channel.htlcs().find_map(|entry| {
            let (id, cltv_expiry) = (entry.htlc.id, entry.htlc.cltv_expiry);
            match entry.offered_by {
                // An HTLC that the peer never signed is dropped instead.
                Side::Local if entry.added == channel::Stage::Proposed => None,
                Side::Local => (height >= cltv_expiry.saturating_add(limits.offered_grace))
                    .then_some(ChannelError::OfferedHtlcExpired { id, cltv_expiry, height }),
                Side::Remote => {
                    let circuit = self.state.circuits.received(IncomingHtlc { channel_id, htlc_id: id })?;
                    let fulfilled = matches!(circuit.stage, CircuitStage::Resolved(Resolution::Fulfill(_)));
                    (fulfilled && height.saturating_add(limits.fulfilled_min) >= cltv_expiry)
                        .then_some(ChannelError::FulfilledHtlcNearExpiry { id, cltv_expiry, height })
                }
            }
        })
    }

    /// Fails a channel whose funding output was spent by a transaction other than an agreed closing: nothing can be
    /// forwarded over it any more. While closing fees are negotiated the peer may have agreed and its answer be lost,
    /// so a channel in that state is left alone.
    pub(crate) fn funding_spent(&mut self, turn: &mut OpenTurn, outpoint: OutPoint, spender: Txid) {
        let funded = |entry: &ChannelEntry| entry.channel.funding_outpoint() == Some(outpoint);
        let Some((&channel_id, entry)) = self.state.channels.iter().find(|(_, entry)| funded(entry)) else {
            return;
        };
        if matches!(entry.channel.state(), State::Confirming | State::Normal | State::ShuttingDown) {
            let reason = format!("transaction {spender} has spent the funding output");
            self.command_channel_if_possible(turn, channel_id, channel::ChannelCommand::Fail { reason });
        }
    }

    /// Drops the HTLCs that were offered but could not be signed until their expiry came too near: the peer was slow
    /// to answer. Signed later they might be claimed when those they were offered for have timed out.
    fn drop_late_additions(&mut self, turn: &mut OpenTurn) {
        let near = self.state.height.saturating_add(self.config.expiry.outgoing_min);
        let is_late = |entry: &HtlcEntry| {
            entry.offered_by == Side::Local
                && entry.added == channel::Stage::Proposed
                && entry.htlc.cltv_expiry <= near
        };
        let late = self.state.channels.iter().filter(|(_, entry)| entry.channel.htlcs().any(is_late));
        let late: Vec<(ChannelId, NodeId)> =
            late.map(|(channel_id, entry)| (*channel_id, entry.peer)).collect();
        for (channel_id, peer) in late {
            let is_connected =
                self.state.channels.get(&channel_id).is_some_and(|entry| entry.channel.is_connected());
            if is_connected {
                self.drop_peer(turn, peer);
            }
            self.withdraw_unsigned(turn, channel_id);
        }
    }

    /// The channels that peers opened and whose funding was not seen to confirm.
    pub(crate) fn unconfirmed(&self) -> impl Iterator<Item = (&ChannelId, &ChannelEntry)> {
        self.state.channels.iter().filter(|(_, entry)| entry.is_unconfirmed())
    }

    /// Forgets the channels whose funding has not confirmed in the time that BOLT 2 gives it (`channel_ready`).
    fn forget_unconfirmed(&mut self, turn: &mut OpenTurn) {
        let height = self.state.height;
        let over = |entry: &ChannelEntry| height.blocks_above(entry.begun_at) > FUNDING_TIMEOUT_BLOCKS;
        let waits = |entry: &ChannelEntry| entry.is_unfunded() || entry.is_unconfirmed();
        let channels = self.state.channels.iter().filter(|(_, entry)| waits(entry) && over(entry));
        let over: Vec<ChannelId> = channels.map(|(channel_id, _)| *channel_id).collect();
        for channel_id in over {
            let reason = format!("the funding has not confirmed within {FUNDING_TIMEOUT_BLOCKS} blocks");
            self.command_channel_if_possible(turn, channel_id, channel::ChannelCommand::Fail { reason });
            if self.state.channels.contains_key(&channel_id) {
                self.change(turn, Change::ChannelForgotten { channel_id });
            }
            turn.touched.remove(&channel_id);
        }
    }
}
