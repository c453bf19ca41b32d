//! Any order, repetition and division into batches lead to the same graph, and the store opens with it again.
//!
//! The model computes the accepted ones of a set of messages regardless of order: every announced channel, and for
//! each of its directions the valid update with the highest timestamp.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::sample::Index;

use super::*;
use crate::Policy;
use fulmen_wire::units::Sat;

/// A message by its content.
#[derive(Clone, Debug)]
enum Said {
    Announcement { channel: usize },
    Update { channel: usize, second: bool, timestamp: u32, maximum: u64, forged: bool },
    Node { node: usize, timestamp: u32, strange: bool, forged: bool },
}

/// Channels between six nodes; the last requires an unknown feature.
const CHANNELS: [(u16, u16); 6] = [(1, 2), (2, 3), (3, 4), (1, 2), (4, 5), (5, 6)];
const STRANGE_CHANNEL: usize = 5;

fn channel_ends(channel: usize) -> Ends {
    ends(CHANNELS[channel].0, CHANNELS[channel].1)
}

impl Said {
    fn is_forged(&self) -> bool {
        matches!(self, Said::Update { forged: true, .. } | Said::Node { forged: true, .. })
    }

    fn bytes(&self) -> Vec<u8> {
        match *self {
            Said::Announcement { channel } => {
                let ends = channel_ends(channel);
                let mut message = unsigned_announcement(scid(channel as u32), ends);
                if channel == STRANGE_CHANNEL {
                    message.features = Features::from_bytes(&[1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
                }
                signed_announcement(message, ends)
            }
            Said::Update { channel, second, timestamp, maximum, forged } => {
                let direction = Direction::BOTH[usize::from(second)];
                let mut message = unsigned_update(scid(channel as u32), direction, TIMESTAMP + timestamp);
                message.htlc_maximum_msat = Msat(maximum);
                let signer = channel_ends(channel).nodes[direction.origin()];
                signed_update(message, if forged { 77 } else { signer })
            }
            Said::Node { node, timestamp, strange, forged } => {
                let node = node as u16 + 1;
                let mut message = unsigned_node(node, TIMESTAMP + timestamp);
                if strange {
                    message.features = Features::from_bytes(&[1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
                }
                signed_node(message, if forged { 77 } else { node })
            }
        }
    }
}

fn said() -> impl Strategy<Value = Said> {
    let maximum = prop_oneof![3 => 1_000_u64..5_000_000, 1 => Just(10), 1 => Just(u64::MAX)];
    prop_oneof![
        2 => (0..6_usize).prop_map(|channel| Said::Announcement { channel }),
        4 => (0..6_usize, any::<bool>(), 0..8_u32, maximum, prop::bool::weighted(0.15)).prop_map(
            |(channel, second, timestamp, maximum, forged)| {
                // One content per timestamp: which of two messages with one timestamp counts is not specified.
                let maximum = if maximum > 10 && maximum < u64::MAX { maximum / 8 * 8 + u64::from(timestamp) } else { maximum };
                Said::Update { channel, second, timestamp, maximum, forged }
            }
        ),
        2 => (0..6_usize, 1..6_u32, prop::bool::weighted(0.3), prop::bool::weighted(0.15))
            .prop_map(|(node, timestamp, strange, forged)| Said::Node { node, timestamp, strange, forged }),
    ]
}

/// The set without messages that differ from an earlier one with the same timestamp.
fn consistent(said: Vec<Said>) -> Vec<Said> {
    let mut seen = BTreeMap::new();
    said.into_iter()
        .filter(|said| {
            let key = match said {
                Said::Announcement { channel } => (0, *channel, false, 0, false),
                Said::Update { channel, second, timestamp, forged, .. } => {
                    (1, *channel, *second, *timestamp, *forged)
                }
                Said::Node { node, timestamp, forged, .. } => (2, *node, false, *timestamp, *forged),
            };
            seen.insert(key, ()).is_none()
        })
        .collect()
}

/// The accepted messages.
fn model(said: &[Said]) -> ChannelGraph {
    let announced = |wanted: usize| {
        said.iter().any(|said| matches!(said, Said::Announcement { channel } if *channel == wanted))
    };
    let newest = |wanted: usize, direction: Direction| {
        let updates = said.iter().filter_map(|said| match *said {
            Said::Update { channel, second, timestamp, maximum, forged: false }
                if channel == wanted && second == (direction == Direction::TwoToOne) =>
            {
                Some((timestamp, maximum))
            }
            _ => None,
        });
        updates.max()
    };
    let is_public = |node: u16| {
        (0..6).any(|channel| {
            let ends = channel_ends(channel);
            let updated = Direction::BOTH.iter().any(|direction| newest(channel, *direction).is_some());
            ends.nodes.contains(&node) && announced(channel) && updated
        })
    };
    let strange = |number: u16| {
        let announcements = said.iter().filter_map(|said| match *said {
            Said::Node { node, timestamp, strange, forged: false } if node as u16 + 1 == number => {
                Some((timestamp, strange))
            }
            _ => None,
        });
        is_public(number) && announcements.max().is_some_and(|(_, strange)| strange)
    };
    let mut graph = ChannelGraph::new();
    for channel in (0..6).filter(|channel| announced(*channel) && *channel != STRANGE_CHANNEL) {
        let (id, ends) = (scid(channel as u32), channel_ends(channel));
        let maxima =
            Direction::BOTH.map(|direction| newest(channel, direction).map_or(0, |(_, maximum)| maximum));
        let capacity = maxima.into_iter().filter(|maximum| *maximum != u64::MAX).max().unwrap_or(0);
        graph.add_channel(id, ends.nodes.map(node_id), Sat(capacity.div_ceil(1_000))).unwrap();
        for direction in Direction::BOTH {
            let Some((timestamp, maximum)) = newest(channel, direction) else { continue };
            let message = unsigned_update(id, direction, TIMESTAMP + timestamp);
            let usable = (1_000..u64::MAX).contains(&maximum) && !strange(ends.nodes[direction.origin()]);
            let policy = Policy {
                fee_base: message.fee_base_msat.msat(),
                fee_proportional_millionths: 100,
                cltv_expiry_delta: CltvDelta(40),
                htlc_minimum: Msat(1_000),
                htlc_maximum: Msat(maximum),
                disabled: false,
            };
            graph.set_policy_of(id, direction, usable.then_some(policy)).unwrap();
        }
    }
    graph
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]
    #[test]
    fn any_order_converges_to_the_model(
        said in prop::collection::vec(said(), 1..24).prop_map(consistent),
        repeats in prop::collection::vec(any::<Index>(), 0..12),
        locations in prop::collection::vec(any::<Index>(), 36),
        cuts in prop::collection::vec(1..12_usize, 36),
        reopen in any::<bool>(), rewrite in any::<bool>(),
    ) {
        // Forged messages come from one peer and valid ones from another. Of the messages of one peer about one
        // direction before its channel only the newest is held, so that a forgery displaces only its sender's
        // messages.
        let sent = |said: &Said| (peer(1 + u8::from(said.is_forged())), said.bytes());
        let mut messages: Vec<(Source, Vec<u8>)> = said.iter().map(sent).collect();
        let repeated: Vec<(Source, Vec<u8>)> = repeats.iter().map(|index| index.get(&messages).clone()).collect();
        messages.extend(repeated);
        for (from, location) in locations.iter().enumerate().take(messages.len()) {
            let to = location.index(messages.len());
            messages.swap(from, to);
        }
        let mut keeper = Keeper::plain();
        let (mut rest, mut cuts) = (messages.as_slice(), cuts.into_iter().cycle());
        while !rest.is_empty() {
            let (batch, after) = rest.split_at(rest.len().min(cuts.next().unwrap()));
            rest = after;
            let batch: Vec<IncomingGossip<'_>> =
                batch.iter().map(|(from, message)| IncomingGossip { from: *from, message }).collect();
            let outcome = keeper.ingest_all(&batch, NOW);
            prop_assert_eq!(outcome.unreadable, 0);
            if rewrite && rest.len() % 3 == 0 {
                keeper.gossip.rewrite().unwrap();
            }
            if reopen && rest.len() % 5 == 0 {
                let held = std::mem::take(&mut keeper.gossip.held);
                keeper = keeper.reopened();
                keeper.gossip.held = held;
            }
        }
        let expected = model(&said);
        prop_assert_eq!(described(&keeper.graph), described(&expected));
        let again = keeper.reopened();
        prop_assert_eq!(described(&again.graph), described(&expected));
        let mut rewritten = again;
        rewritten.gossip.rewrite().unwrap();
        prop_assert_eq!(rewritten.gossip.store.dead_bytes(), 0);
        let rewritten = rewritten.reopened();
        prop_assert_eq!(rewritten.gossip.store.dead_bytes(), 0);
        prop_assert_eq!(described(&rewritten.graph), described(&expected));
    }
}
