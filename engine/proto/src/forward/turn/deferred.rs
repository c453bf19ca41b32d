//! Deferred `commitment_signed`s: which HTLCs are young, and until when each channel waits.
//!
//! Owns: the pace of each channel (how far its updates had come when), the list of deferred channels, and the
//! `revoke_and_ack`s that wait with them. Does not decide which are deferred: `commitments` does. Nothing here is
//! durable: after a restart no HTLC is young, and no channel is deferred.
//!
//! Invariant: a briefly deferred channel keeps the first deadline it was given.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use fulmen_wire::message::Message;
use fulmen_wire::units::{ChannelId, NodeId};

use crate::channel::UpdateOrder;
use crate::forward::terms::time::Now;

/// How long an HTLC is young, in milliseconds: likely to be resolved before long.
const YOUNG_MS: u64 = 200;
/// Minimum age, in milliseconds, of a deferred commitment before a tick releases it, so that one deferred just before a
/// tick is not.
const LONG_MS: u64 = 1_000;
/// How finely a pace is remembered.
const STEP_MS: u64 = YOUNG_MS / 8;

/// How far a channel's updates had come at a few moments of the recent past.
#[derive(Debug, Default)]
struct Pace {
    /// Time and position of the latest update then, oldest first; one of them older than [`YOUNG_MS`] at most.
    marks: VecDeque<(u64, UpdateOrder)>,
}

impl Pace {
    /// The first place among the channel's updates that a young HTLC can have.
    fn young_from(&self, now: u64) -> UpdateOrder {
        let old = self.marks.iter().rev().find(|(at, _)| at + YOUNG_MS <= now);
        old.or(self.marks.front()).map_or(UpdateOrder(u64::MAX), |(_, place)| *place)
    }

    fn note(&mut self, now: u64, place: UpdateOrder) {
        while self.marks.get(1).is_some_and(|(at, _)| at + YOUNG_MS <= now) {
            self.marks.pop_front();
        }
        if let [.., before, last] = self.marks.make_contiguous()
            && before.0 + STEP_MS > last.0
        {
            *last = (now, place);
        } else {
            self.marks.push_back((now, place));
        }
    }
}

/// The channels whose `commitment_signed` is deferred, and the pace of each channel.
#[derive(Debug, Default)]
pub(crate) struct DeferredCommitments {
    paces: BTreeMap<ChannelId, Pace>,
    /// Channels deferred until a tick, and since when.
    until_tick: BTreeMap<ChannelId, u64>,
    briefly: BTreeMap<ChannelId, u64>,
    deadlines: BTreeSet<(u64, ChannelId)>,
    /// Held `revoke_and_ack`s, and their peers.
    revocations: BTreeMap<ChannelId, (NodeId, Message)>,
}

impl DeferredCommitments {
    /// The first place among a channel's updates that a young HTLC can have.
    pub(crate) fn young_from(&self, channel_id: ChannelId, now: Now) -> UpdateOrder {
        self.paces.get(&channel_id).map_or(UpdateOrder(u64::MAX), |pace| pace.young_from(now.unix_ms))
    }

    /// Remembers how far a channel's updates have come.
    pub(crate) fn note(&mut self, channel_id: ChannelId, now: Now, place: UpdateOrder) {
        self.paces.entry(channel_id).or_default().note(now.unix_ms, place);
    }

    /// Defers a channel until a tick, counted from when it was first deferred so.
    pub(crate) fn defer_until_tick(&mut self, channel_id: ChannelId, now: Now) {
        let since = self.until_tick.get(&channel_id).copied();
        self.cancel(channel_id);
        self.until_tick.insert(channel_id, since.unwrap_or(now.unix_ms));
    }

    /// Defers a channel for `ms` milliseconds, counted from when it was first deferred so.
    pub(crate) fn defer_briefly(&mut self, channel_id: ChannelId, now: Now, ms: u64) {
        self.until_tick.remove(&channel_id);
        let deadline = *self.briefly.entry(channel_id).or_insert(now.unix_ms + ms);
        self.deadlines.insert((deadline, channel_id));
    }

    /// Holds back a channel's `revoke_and_ack`, if there is one, from the messages to send.
    pub(crate) fn hold_revocation(&mut self, channel_id: ChannelId, send: &mut Vec<(NodeId, Message)>) {
        let is_answer = |message: &Message| match message {
            Message::RevokeAndAck(answer) => answer.channel_id == channel_id,
            _ => false,
        };
        if let Some(at) = send.iter().position(|(_, message)| is_answer(message)) {
            let before = self.revocations.insert(channel_id, send.remove(at));
            // Only a peer that did not wait for its answer can have two coming.
            send.extend(before);
        }
    }

    /// Sends a channel's held `revoke_and_ack`, if there is one.
    pub(crate) fn release_revocation(&mut self, channel_id: ChannelId, send: &mut Vec<(NodeId, Message)>) {
        send.extend(self.revocations.remove(&channel_id));
    }

    /// Drops a held `revoke_and_ack`: its channel is gone, or its connection, and `channel_reestablish` on the next one
    /// brings it.
    pub(crate) fn drop_revocation(&mut self, channel_id: ChannelId) {
        self.revocations.remove(&channel_id);
    }

    /// Ends the deferral of a channel.
    pub(crate) fn cancel(&mut self, channel_id: ChannelId) {
        self.until_tick.remove(&channel_id);
        if let Some(deadline) = self.briefly.remove(&channel_id) {
            self.deadlines.remove(&(deadline, channel_id));
        }
    }

    /// Removes and returns the channels whose deadline has passed.
    pub(crate) fn take_due(&mut self, now: Now) -> BTreeSet<ChannelId> {
        let mut overdue = BTreeSet::new();
        while let Some((deadline, channel_id)) = self.deadlines.first().copied()
            && deadline <= now.unix_ms
        {
            self.cancel(channel_id);
            overdue.insert(channel_id);
        }
        overdue
    }

    /// The same at a tick, which also releases those deferred until one. Paces of idle channels are forgotten.
    pub(crate) fn take_due_at_tick(&mut self, now: Now) -> BTreeSet<ChannelId> {
        self.paces.retain(|_, pace| pace.marks.back().is_some_and(|(at, _)| at + YOUNG_MS > now.unix_ms));
        let mut overdue = self.take_due(now);
        self.until_tick.retain(|channel_id, since| {
            let waits = now.unix_ms < *since + LONG_MS;
            if !waits {
                overdue.insert(*channel_id);
            }
            waits
        });
        overdue
    }

    /// The earliest deadline of the briefly deferred channels.
    pub(crate) fn first_deadline(&self) -> Option<Now> {
        self.deadlines.first().map(|(unix_ms, _)| Now { unix_ms: *unix_ms })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_within_the_time_is_young() {
        let mut pace = Pace::default();
        assert_eq!(pace.young_from(1_000), UpdateOrder(u64::MAX), "of a channel never seen nothing is known");
        for step in 0..100 {
            pace.note(1_000 + 10 * step, UpdateOrder(5 * step));
        }
        // The last mark stands at 1,990.
        assert!(pace.marks.len() <= 10, "{}", pace.marks.len());
        let UpdateOrder(young_from) = pace.young_from(1_990);
        assert!((5 * 76..=5 * 79).contains(&young_from), "{young_from}: older by no more than a step");
        assert_eq!(
            pace.young_from(1_990 + YOUNG_MS),
            UpdateOrder(5 * 99),
            "nothing that was there then is young"
        );
    }

    #[test]
    fn the_first_deadline_stands() {
        let (channel_id, other) = (ChannelId([1; 32]), ChannelId([2; 32]));
        let at = |unix_ms| Now { unix_ms };
        let mut deferred = DeferredCommitments::default();
        deferred.defer_briefly(channel_id, at(10), 40);
        deferred.defer_briefly(channel_id, at(30), 60);
        deferred.defer_until_tick(other, at(30));
        assert_eq!(deferred.first_deadline(), Some(at(50)));
        assert!(deferred.take_due(at(49)).is_empty());
        assert_eq!(deferred.take_due(at(50)), BTreeSet::from([channel_id]));
        assert_eq!(deferred.first_deadline(), None);
        deferred.defer_briefly(channel_id, at(50), 200);
        assert_eq!(deferred.first_deadline(), Some(at(250)));
        assert_eq!(deferred.take_due_at_tick(at(250)), BTreeSet::from([channel_id]));
        assert_eq!(deferred.take_due_at_tick(at(1_029)), BTreeSet::new());
        deferred.defer_until_tick(other, at(1_029));
        assert_eq!(deferred.take_due_at_tick(at(1_030)), BTreeSet::from([other]));
    }
}
