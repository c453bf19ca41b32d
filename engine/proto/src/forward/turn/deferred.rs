//! What a shard needs to know of time to let a `commitment_signed` wait: which HTLCs are young, and who waits until when.
//!
//! Owns: the pace of each channel (how far its updates had come when), the list of those that wait, and the revocations that wait
//! with them. Does not decide who waits: `commit` does. Nothing here is durable: after a restart no HTLC is young, and nobody
//! waits.
//!
//! Invariant: whoever waits briefly is in the list with the first deadline it was given.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use fulmen_wire::message::Message;
use fulmen_wire::units::{ChannelId, NodeId};

use crate::channel::UpdateOrder;
use crate::forward::terms::time::Now;

/// How long an HTLC is young, in milliseconds: likely to be resolved before long.
const YOUNG_MS: u64 = 200;
/// How long a channel waits for a tick at least, in milliseconds: one that began to wait just before a tick has not waited.
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

/// The channels that wait, and what tells whether they may.
#[derive(Debug, Default)]
pub(crate) struct DeferredCommitments {
    paces: BTreeMap<ChannelId, Pace>,
    /// Those that wait for a tick, and since when.
    until_tick: BTreeMap<ChannelId, u64>,
    briefly: BTreeMap<ChannelId, u64>,
    deadlines: BTreeSet<(u64, ChannelId)>,
    /// The `revoke_and_ack`s that wait with them, and for whom.
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

    /// Has a channel wait for a tick, from when it first did.
    pub(crate) fn defer_until_tick(&mut self, channel_id: ChannelId, now: Now) {
        let since = self.until_tick.get(&channel_id).copied();
        self.cancel(channel_id);
        self.until_tick.insert(channel_id, since.unwrap_or(now.unix_ms));
    }

    /// Has a channel wait for so many milliseconds, from when it first did.
    pub(crate) fn defer_briefly(&mut self, channel_id: ChannelId, now: Now, ms: u64) {
        self.until_tick.remove(&channel_id);
        let deadline = *self.briefly.entry(channel_id).or_insert(now.unix_ms + ms);
        self.deadlines.insert((deadline, channel_id));
    }

    /// Takes a channel's `revoke_and_ack`, if there is one, out of what is to be sent.
    pub(crate) fn hold_revocation(&mut self, channel_id: ChannelId, send: &mut Vec<(NodeId, Message)>) {
        let is_answer = |message: &Message| match message {
            Message::RevokeAndAck(answer) => answer.channel_id == channel_id,
            _ => false,
        };
        if let Some(at) = send.iter().position(|(_, message)| is_answer(message)) {
            let before = self.revocations.insert(channel_id, send.remove(at));
            // Only a peer that did not wait for its answer is owed two.
            send.extend(before);
        }
    }

    /// Sends a channel's `revoke_and_ack`, if one waits.
    pub(crate) fn release_revocation(&mut self, channel_id: ChannelId, send: &mut Vec<(NodeId, Message)>) {
        send.extend(self.revocations.remove(&channel_id));
    }

    /// Gives up an answer: the channel is gone, or the connection to its peer, and what is owed is told at the next.
    pub(crate) fn drop_revocation(&mut self, channel_id: ChannelId) {
        self.revocations.remove(&channel_id);
    }

    /// A channel waits no longer.
    pub(crate) fn cancel(&mut self, channel_id: ChannelId) {
        self.until_tick.remove(&channel_id);
        if let Some(deadline) = self.briefly.remove(&channel_id) {
            self.deadlines.remove(&(deadline, channel_id));
        }
    }

    /// The channels that have waited as long as they may; they wait no longer.
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

    /// The same at a tick, which some wait for. What paces were long ago is forgotten.
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

    /// When the first of those that wait briefly is due.
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
