//! Pruning, and the state of funding outputs (BOLT 7, "Pruning the Network View").
//!
//! Invariant: a channel is removed from index, store and graph together, and a node with its last channel.

use std::collections::BTreeSet;

use fulmen_wire::units::{BlockHeight, Sat, Scid};

use super::ingest::Batch;
use super::outcome::{FundingAnswer, FundingLookup, GossipOutcome};
use super::store::{Record, RecordKind};
use super::{Gossip, GossipTime, GraphChange, Log};
use crate::Direction;

impl<L: Log> Gossip<L> {
    /// Removes outdated state: channels without an update for two weeks, channels spent 72 blocks ago, messages held
    /// too long, announcements whose lookup was not answered, peers that have disconnected.
    /// [`GossipConfig`](super::GossipConfig) holds the periods.
    pub fn prune(&mut self, now: GossipTime) -> GossipOutcome {
        let mut outcome = GossipOutcome::default();
        let stale_before = now.unix_seconds.saturating_sub(u64::from(self.config.stale_after_seconds));
        let spent_until =
            now.tip.and_then(|tip| tip.0.checked_sub(self.config.forget_spent_after_blocks)).map(BlockHeight);
        let channels = self.index.channels().iter();
        let old = channels.filter(|channel| {
            let last = |direction: Direction| {
                let update = channel.updates[direction.origin()];
                // A direction without an update is as old as the announcement's acceptance.
                u64::from(update.map_or(channel.announced_at, |update| update.timestamp))
            };
            let stale = Direction::BOTH.into_iter().any(|direction| last(direction) < stale_before);
            stale || channel.spent_at.is_some_and(|at| spent_until.is_some_and(|until| at <= until))
        });
        let scids: BTreeSet<Scid> = old.map(|channel| channel.scid).collect();
        scids.into_iter().for_each(|scid| self.remove_channel(&mut outcome, scid));
        let held_since = now.unix_seconds.saturating_sub(u64::from(self.config.held_seconds_max));
        self.held.expire(held_since);
        self.pending.expire(held_since);
        let (messages, faults, queries) = (self.config.messages, self.config.faults, self.config.queries);
        self.peers.retain(|_, peer| {
            peer.connected
                || !peer.messages.is_full(messages, now.unix_seconds)
                || !peer.faults.is_full(faults, now.unix_seconds)
                || !peer.queries.is_full(queries, now.unix_seconds)
        });
        outcome
    }

    /// Takes the answer to a lookup of [`GossipOutcome::lookups`]; an answer to any other lookup changes nothing.
    pub fn funding_answered(
        &mut self,
        lookup: FundingLookup,
        answer: FundingAnswer,
        now: GossipTime,
    ) -> GossipOutcome {
        let mut batch = Batch::new(now);
        if let Some(announcement) = self.pending.remove(lookup) {
            if let FundingAnswer::Unspent { value } = answer {
                self.accept_pending(&mut batch, announcement, value);
            }
            return self.finish(batch);
        }
        let Some(position) = self.index.position(lookup.scid) else { return batch.outcome };
        if self.index.channel_at(position).funding.is_some() {
            return batch.outcome;
        }
        match answer {
            FundingAnswer::Missing => self.remove_channel(&mut batch.outcome, lookup.scid),
            FundingAnswer::Unspent { value } => self.set_funded(&mut batch.outcome, position, value),
        }
        batch.outcome
    }

    /// The funding output of a channel was spent in the block of this height, by a closing or a splice.
    pub fn funding_spent(&mut self, scid: Scid, at: BlockHeight) {
        if let Some(position) = self.index.position(scid) {
            self.index.channel_at_mut(position).spent_at = Some(at);
            self.store.append(Record { kind: RecordKind::Spent, at: at.0, payload: &scid.0.to_le_bytes() });
        }
    }

    /// The block that spent the funding output was disconnected from the chain.
    pub fn spend_reverted(&mut self, scid: Scid) {
        if let Some(position) = self.index.position(scid) {
            self.index.channel_at_mut(position).spent_at = None;
            self.store.append(Record { kind: RecordKind::Unspent, at: 0, payload: &scid.0.to_le_bytes() });
        }
    }

    fn set_funded(&mut self, outcome: &mut GossipOutcome, position: usize, value: Sat) {
        self.note_funding(position, value);
        let channel = self.index.channel_at(position);
        if channel.routable {
            outcome.changes.push(GraphChange::CapacityChanged { scid: channel.scid, capacity: value });
            for direction in Direction::BOTH {
                self.review_policy(outcome, position, direction);
            }
        }
    }

    /// Removes a channel.
    pub(super) fn remove_channel(&mut self, outcome: &mut GossipOutcome, scid: Scid) {
        let Some(removed) = self.index.remove(scid) else { return };
        self.store.append(Record { kind: RecordKind::Removed, at: 0, payload: &scid.0.to_le_bytes() });
        let channel = removed.channel;
        self.store.mark_dead(channel.announcement);
        channel.updates.into_iter().flatten().for_each(|update| self.store.mark_dead(update.location));
        if channel.routable {
            outcome.changes.push(GraphChange::ChannelRemoved { scid });
        }
        for node in removed.nodes {
            node.announcement.into_iter().for_each(|location| self.store.mark_dead(location));
            if node.timestamp != 0 {
                outcome.changes.push(GraphChange::NodeRemoved { node: node.id });
            }
        }
    }
}
