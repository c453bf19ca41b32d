//! Updates and node announcements that came before the channel they are about (BOLT 7 allows any order of arrival).
//!
//! Nothing here was verified: the signer is not known yet. Each peer's messages are kept apart, so that what one invents
//! does not stand in the way of what another relays.
//!
//! Invariant: no more messages than the limits say; whoever has most makes room, oldest first.

use std::collections::BTreeMap;

use fulmen_wire::units::{NodeId, Scid};

use super::outcome::Source;
use crate::Direction;

/// What a message is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Topic {
    Channel(Scid, Direction),
    Node(NodeId),
}

#[derive(Debug)]
struct Message {
    bytes: Vec<u8>,
    timestamp: u32,
    sequence: u64,
    since_seconds: u64,
}

#[derive(Debug, Default)]
pub(super) struct HeldMessages {
    messages: BTreeMap<(Topic, Source), Message>,
    /// The same, each source's in the order in which they came.
    order: BTreeMap<(Source, u64), Topic>,
    counts: BTreeMap<Source, usize>,
    sequence: u64,
}

impl HeldMessages {
    pub(super) fn len(&self) -> usize {
        self.messages.len()
    }

    /// Holds a message unless the same source has sent a newer one on the topic.
    pub(super) fn put(
        &mut self,
        (topic, source): (Topic, Source),
        timestamp: u32,
        bytes: &[u8],
        now_seconds: u64,
        (all_max, source_max): (usize, usize),
    ) {
        let key = (topic, source);
        match self.messages.get(&key) {
            Some(known) if known.timestamp >= timestamp => return,
            Some(_) => drop(self.take(key)),
            None => {}
        }
        if all_max == 0 || source_max == 0 {
            return;
        }
        if self.counts.get(&source).is_some_and(|count| *count >= source_max) {
            self.drop_oldest(source);
        } else if self.messages.len() >= all_max {
            let greediest = self.counts.iter().max_by_key(|(_, count)| **count).map(|(source, _)| *source);
            self.drop_oldest(greediest.expect("whatever is held has a source"));
        }
        self.sequence += 1;
        let sequence = self.sequence;
        self.order.insert((source, sequence), topic);
        *self.counts.entry(source).or_default() += 1;
        let bytes = bytes.to_vec();
        self.messages.insert(key, Message { bytes, timestamp, sequence, since_seconds: now_seconds });
    }

    /// Gives out what is held about a channel, in an order that content alone decides.
    pub(super) fn take_channel(&mut self, scid: Scid) -> Vec<(Source, Vec<u8>)> {
        let mut taken = Vec::new();
        for direction in Direction::BOTH {
            self.take_topic(Topic::Channel(scid, direction), &mut taken);
        }
        taken
    }

    /// Gives out what is held about a node.
    pub(super) fn take_node(&mut self, id: NodeId) -> Vec<(Source, Vec<u8>)> {
        let mut taken = Vec::new();
        self.take_topic(Topic::Node(id), &mut taken);
        taken
    }

    /// Drops what came before `since_seconds`.
    pub(super) fn expire(&mut self, since_seconds: u64) {
        let old = self.messages.iter().filter(|(_, message)| message.since_seconds < since_seconds);
        let keys: Vec<(Topic, Source)> = old.map(|(key, _)| *key).collect();
        keys.into_iter().for_each(|key| drop(self.take(key)));
    }

    fn take_topic(&mut self, topic: Topic, taken: &mut Vec<(Source, Vec<u8>)>) {
        let first = (topic, Source::FIRST);
        let keys = self.messages.range(first..).map(|(key, _)| *key).take_while(|key| key.0 == topic);
        for key in keys.collect::<Vec<_>>() {
            taken.extend(self.take(key).map(|message| (key.1, message.bytes)));
        }
    }

    fn take(&mut self, key: (Topic, Source)) -> Option<Message> {
        let message = self.messages.remove(&key)?;
        self.order.remove(&(key.1, message.sequence));
        if let Some(count) = self.counts.get_mut(&key.1) {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&key.1);
            }
        }
        Some(message)
    }

    fn drop_oldest(&mut self, source: Source) {
        let oldest = self.order.range((source, 0)..).next().map(|(_, topic)| *topic);
        oldest.map(|topic| self.take((topic, source)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: (usize, usize) = (4, 3);

    fn source(tag: u8) -> Source {
        Source::Peer(NodeId([tag; 33]))
    }

    fn topic(scid: u64) -> Topic {
        Topic::Channel(Scid(scid), Direction::OneToTwo)
    }

    #[test]
    fn the_newest_of_each_source_is_kept() {
        let mut held = HeldMessages::default();
        for (tag, timestamp) in [(1, 5), (1, 4), (2, 3), (2, 9)] {
            held.put((topic(7), source(tag)), timestamp, &[timestamp as u8], 0, LIMITS);
        }
        assert_eq!(held.take_channel(Scid(7)), [(source(1), vec![5]), (source(2), vec![9])]);
        assert_eq!((held.len(), held.counts.len(), held.order.len()), (0, 0, 0));
    }

    #[test]
    fn whoever_has_most_makes_room() {
        let mut held = HeldMessages::default();
        for scid in 1..=5 {
            held.put((topic(scid), source(1)), 1, &[], 0, LIMITS);
        }
        assert_eq!(held.len(), 3, "no more than its share");
        held.put((topic(8), source(2)), 1, &[], 10, LIMITS);
        held.put((topic(9), source(3)), 1, &[], 10, LIMITS);
        assert_eq!(held.len(), 4);
        assert!(held.take_channel(Scid(3)).is_empty(), "the oldest of the greediest went");
        assert_eq!(held.take_channel(Scid(4)).len(), 1);
        held.expire(10);
        assert_eq!(held.len(), 2);
        held.put((Topic::Node(NodeId([4; 33])), Source::Own), 1, &[1], 10, LIMITS);
        assert_eq!(held.take_node(NodeId([4; 33])), [(Source::Own, vec![1])]);
        held.put((topic(1), source(1)), 1, &[], 0, (0, 0));
        assert!(held.take_channel(Scid(1)).is_empty());
    }
}
