//! Updates and node announcements that arrived before the channel they refer to (BOLT 7 allows any order of arrival).
//!
//! None of these messages is verified, since their signer is not known yet. The messages of each peer are kept apart,
//! so that a peer's forgeries do not displace the messages that another relays.
//!
//! Invariant: the bytes held never exceed [`super::GossipConfig::held_bytes`]. The source with the most bytes loses
//! its oldest messages first.

use std::collections::BTreeMap;

use fulmen_wire::units::{NodeId, Scid};

use super::budget::{ByteLimit, ByteUsage};
use super::outcome::Source;
use crate::Direction;

/// The size of an entry beside the message: its keys and the nodes of two maps, rounded up.
const ENTRY_BYTES: usize = 256;

/// The subject of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Topic {
    Channel(Scid, Direction),
    Node(NodeId),
}

#[derive(Debug)]
struct HeldMessage {
    bytes: Vec<u8>,
    timestamp: u32,
    sequence: u64,
    since_seconds: u64,
}

#[derive(Debug, Default)]
pub(super) struct HeldMessages {
    messages: BTreeMap<(Topic, Source), HeldMessage>,
    /// The topics of each source in the order of arrival.
    order: BTreeMap<(Source, u64), Topic>,
    usage: ByteUsage,
    sequence: u64,
}

impl HeldMessages {
    pub(super) fn len(&self) -> usize {
        self.messages.len()
    }

    /// The bytes in use.
    pub(super) fn bytes(&self) -> usize {
        self.usage.total()
    }

    /// Holds a message unless the same source has sent a newer one on the topic, or the message alone exceeds a
    /// limit. Returns whether it is held.
    pub(super) fn put(
        &mut self,
        (topic, source): (Topic, Source),
        timestamp: u32,
        bytes: &[u8],
        now_seconds: u64,
        limit: ByteLimit,
    ) -> bool {
        let (key, cost) = ((topic, source), bytes.len() + ENTRY_BYTES);
        if self.messages.get(&key).is_some_and(|known| known.timestamp >= timestamp) {
            return false;
        }
        if cost > limit.total.min(limit.per_source) {
            return false;
        }
        self.take(key);
        while self.usage.of(source) + cost > limit.per_source {
            self.drop_oldest(source);
        }
        while self.usage.total() + cost > limit.total {
            self.drop_oldest(self.usage.largest().expect("held bytes have a source"));
        }
        self.sequence += 1;
        let sequence = self.sequence;
        self.order.insert((source, sequence), topic);
        self.usage.add(source, cost);
        let bytes = bytes.to_vec();
        self.messages.insert(key, HeldMessage { bytes, timestamp, sequence, since_seconds: now_seconds });
        true
    }

    /// Takes out the messages about a channel, in an order that depends on their content alone.
    pub(super) fn take_channel(&mut self, scid: Scid) -> Vec<(Source, Vec<u8>)> {
        let mut taken = Vec::new();
        for direction in Direction::BOTH {
            self.take_topic(Topic::Channel(scid, direction), &mut taken);
        }
        taken
    }

    /// Takes out the messages about a node.
    pub(super) fn take_node(&mut self, id: NodeId) -> Vec<(Source, Vec<u8>)> {
        let mut taken = Vec::new();
        self.take_topic(Topic::Node(id), &mut taken);
        taken
    }

    /// Drops messages that arrived before `since_seconds`.
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

    fn take(&mut self, key: (Topic, Source)) -> Option<HeldMessage> {
        let message = self.messages.remove(&key)?;
        self.order.remove(&(key.1, message.sequence));
        self.usage.remove(key.1, message.bytes.len() + ENTRY_BYTES);
        Some(message)
    }

    fn drop_oldest(&mut self, source: Source) {
        let oldest = self.order.range((source, 0)..).next().map(|(_, topic)| *topic);
        let oldest = oldest.expect("a source with bytes has messages");
        self.take((oldest, source));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Room for four messages without content, three of one source.
    const LIMIT: ByteLimit = ByteLimit { total: 4 * ENTRY_BYTES + 40, per_source: 3 * ENTRY_BYTES + 20 };

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
            held.put((topic(7), source(tag)), timestamp, &[timestamp as u8], 0, LIMIT);
        }
        assert_eq!(held.take_channel(Scid(7)), [(source(1), vec![5]), (source(2), vec![9])]);
        assert_eq!((held.len(), held.bytes(), held.order.len()), (0, 0, 0));
    }

    #[test]
    fn the_source_with_the_most_bytes_makes_room() {
        let mut held = HeldMessages::default();
        for scid in 1..=5 {
            assert!(held.put((topic(scid), source(1)), 1, &[], 0, LIMIT));
        }
        assert_eq!(held.len(), 3, "no more than its share");
        held.put((topic(8), source(2)), 1, &[], 10, LIMIT);
        held.put((topic(9), source(3)), 1, &[], 10, LIMIT);
        assert_eq!(held.len(), 4);
        assert!(held.take_channel(Scid(3)).is_empty(), "the oldest of the largest source went");
        assert_eq!(held.take_channel(Scid(4)).len(), 1);
        held.expire(10);
        assert_eq!(held.len(), 2);
        held.put((Topic::Node(NodeId([4; 33])), Source::Own), 1, &[1], 10, LIMIT);
        assert_eq!(held.take_node(NodeId([4; 33])), [(Source::Own, vec![1])]);
        assert!(!held.put((topic(1), source(1)), 1, &[], 0, ByteLimit { total: 0, per_source: 0 }));
        assert!(held.take_channel(Scid(1)).is_empty());
    }

    #[test]
    fn padded_messages_count_with_their_bytes() {
        let limit = ByteLimit { total: 200_000, per_source: 100_000 };
        let mut held = HeldMessages::default();
        for scid in 0..100 {
            for tag in 1..5 {
                held.put((topic(scid), source(tag)), 1, &[0; 40_000], 0, limit);
                assert!(held.bytes() <= limit.total);
            }
        }
        assert_eq!(held.len(), 4);
        assert!(!held.put((topic(7), source(5)), 1, &[0; 100_000], 0, limit), "larger than a peer's share");
        // A message that replaces a smaller one of its topic is counted with its new size.
        let mut held = HeldMessages::default();
        held.put((topic(1), source(1)), 1, &[0; 10], 0, limit);
        held.put((topic(1), source(1)), 2, &[0; 90_000], 0, limit);
        assert_eq!(held.bytes(), 90_000 + ENTRY_BYTES);
    }
}
