//! Engines with gossip services beside them: public channels become known to every node of the line.
//!
//! Owns the services' surroundings: their messages travel over the engines' connections, and lookups of funding outputs
//! are answered.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, Sender, unbounded};
use fulmen::gossip::{GossipInput, GossipService, Peers};
use fulmen::proto::forward::{Event, Now};
use fulmen::runtime::Clock;
use fulmen::wire::message::Message;
use fulmen::wire::units::{BlockHeight, ChainHash, NodeId};
use fulmen_graph::gossip::{FundingAnswer, FundingLookup, Gossip, GossipConfig};
use fulmen_graph::live::LiveGraph;
use fulmen_graph::{ChannelGraph, DirectedChannel, Direction};
use fulmen_secp::Verifier;

use super::net::{CAPACITY, Drive, Line, START};

/// How long the services may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// The time of the services.
#[derive(Clone, Debug)]
struct TestClock(Arc<AtomicU64>);

impl Clock for TestClock {
    fn now(&self) -> Now {
        Now { unix_ms: self.0.load(Ordering::Relaxed) }
    }

    fn elapsed(&self) -> Duration {
        Duration::from_millis(self.now().unix_ms)
    }
}

/// What a service wants done.
#[derive(Debug)]
enum Wish {
    Send(NodeId, Vec<u8>),
    LookUp(FundingLookup),
}

struct Wishes(Sender<Wish>);

impl Peers for Wishes {
    fn room(&self, _: NodeId) -> usize {
        1 << 20
    }

    fn send(&self, peer: NodeId, message: Vec<u8>) {
        self.0.send(Wish::Send(peer, message)).unwrap_or_default();
    }

    fn disconnect(&self, peer: NodeId) {
        panic!("no reason to disconnect {peer}");
    }

    fn look_up(&self, lookup: FundingLookup) {
        self.0.send(Wish::LookUp(lookup)).unwrap_or_default();
    }
}

/// A member's gossip service.
struct Companion {
    service: GossipService,
    graph: Arc<LiveGraph>,
    wishes: Receiver<Wish>,
    /// Events of the member that were passed on.
    passed_on: usize,
}

impl Companion {
    fn new(clock: &TestClock, peers: &[NodeId]) -> Companion {
        let graph = Arc::new(LiveGraph::new(ChannelGraph::new()));
        let (sender, wishes) = unbounded();
        let gossip = Gossip::open(GossipConfig::new(ChainHash::REGTEST), Verifier::new(), Vec::new(), |_| {});
        let service = GossipService::start(
            gossip.unwrap(),
            ChainHash::REGTEST,
            Arc::clone(&graph),
            Wishes(sender),
            clock.clone(),
        );
        let service = service.unwrap();
        peers.iter().for_each(|peer| assert!(service.offer(GossipInput::Connected(*peer))));
        Companion { service, graph, wishes, passed_on: 0 }
    }

    /// The channels it knows with both policies.
    fn channels(&self, line: &Line) -> usize {
        let snapshot = self.graph.snapshot();
        let is_known = |scid| {
            let has = |direction| snapshot.policy(DirectedChannel { scid, direction }).is_some();
            snapshot.capacity(scid) == Some(CAPACITY) && Direction::BOTH.into_iter().all(has)
        };
        line.scids().iter().filter(|scid| is_known(**scid)).count()
    }
}

/// Carries events, messages and answers until every companion knows both channels.
fn until_known(line: &mut Line, companions: &mut [(usize, Companion)], clock: &TestClock) {
    let begun = Instant::now();
    let ids: Vec<NodeId> = (0..3).map(|member| line.id(member)).collect();
    while companions.iter().any(|(_, companion)| companion.channels(line) < 2) {
        line.settle();
        for (member, companion) in companions.iter_mut() {
            let events: Vec<Event> = line.events(*member).skip(companion.passed_on).cloned().collect();
            companion.passed_on += events.len();
            let tip = GossipInput::Tip(BlockHeight(line.height()));
            let inputs = events.iter().filter_map(GossipInput::from_event);
            [tip].into_iter().chain(inputs).for_each(|input| assert!(companion.service.offer(input)));
            for wish in companion.wishes.try_iter() {
                match wish {
                    Wish::Send(peer, message) => {
                        let to = ids.iter().position(|id| *id == peer).unwrap();
                        line.deliver(*member, to, message);
                    }
                    Wish::LookUp(lookup) => {
                        let answer = FundingAnswer::Unspent { value: CAPACITY };
                        companion.service.offer(GossipInput::Funding(lookup, answer));
                    }
                }
            }
        }
        clock.0.fetch_add(5_000, Ordering::Relaxed);
        std::thread::sleep(Duration::from_millis(2));
        let known: Vec<usize> = companions.iter().map(|(_, companion)| companion.channels(line)).collect();
        assert!(begun.elapsed() < PATIENCE, "channels known: {known:?}");
    }
}

fn own_gossip(line: &Line, member: usize) -> Vec<Message> {
    let own = line.events(member).filter_map(|event| match event {
        Event::OwnGossip { message } => Some((**message).clone()),
        _ => None,
    });
    own.collect()
}

fn names(messages: &[Message]) -> BTreeSet<&'static str> {
    messages.iter().map(Message::name).collect()
}

#[test]
fn public_channels_are_known_to_every_node() {
    let mut line = Line::new(Drive::Inline, 2);
    for _ in 0..6 {
        line.mine();
        line.settle();
    }
    let clock = TestClock(Arc::new(AtomicU64::new(START.unix_ms)));
    let ids: Vec<NodeId> = (0..3).map(|member| line.id(member)).collect();
    let mut companions = vec![
        (0, Companion::new(&clock, &ids[1..2])),
        (1, Companion::new(&clock, &[ids[0], ids[2]])),
        (2, Companion::new(&clock, &ids[1..2])),
    ];
    until_known(&mut line, &mut companions, &clock);
    // The middle has two shards with a channel each, and is one node.
    let middle = own_gossip(&line, 1);
    let nodes = middle.iter().filter(|message| matches!(message, Message::NodeAnnouncement(_)));
    assert_eq!((middle.len(), nodes.count()), (5, 1), "{:?}", names(&middle));
    // Whatever is known is known alike: a payment over the line finds its way in each graph.
    for (_, companion) in &companions {
        assert_eq!(companion.graph.snapshot().channel_count(), 2);
    }
}

/// The middle restarts while its channels are young, and once more when they are announced.
#[test]
fn a_restart_loses_no_announcement() {
    let mut line = Line::durable(Drive::Inline, 2);
    for block in 0..7 {
        if block == 3 {
            line.crash_middle();
        }
        line.mine();
        line.settle();
    }
    let all = BTreeSet::from(["channel_announcement", "channel_update", "node_announcement"]);
    let before = own_gossip(&line, 1);
    assert_eq!((before.len(), names(&before)), (5, all.clone()));
    line.crash_middle();
    line.settle();
    let again = own_gossip(&line, 1);
    // Without the clock having moved, every message is the one of before.
    assert_eq!((again.len(), names(&again)), (5, all));
    assert!(again.iter().all(|message| before.contains(message)));
    // A service that lost its store learns them again; the updates of the peers come with their next gossip.
    let clock = TestClock(Arc::new(AtomicU64::new(START.unix_ms)));
    let ids: Vec<NodeId> = (0..3).map(|member| line.id(member)).collect();
    let mut companions = vec![(1, Companion::new(&clock, &[ids[0], ids[2]]))];
    until_known(&mut line, &mut companions, &clock);
}
