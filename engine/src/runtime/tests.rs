//! The engine's own promises: nothing leaves after a failure, peers are held to their credit, a panic is not a hang.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use crossbeam::channel::{Receiver, unbounded};
use fulmen_proto::forward::{Handoff, HandoffStep, IncomingHtlc, OpenChannelRequest, Resolution};
use fulmen_wire::message::{Message, Ping};
use fulmen_wire::units::{ChainHash, ChannelId, Msat, Sat};

use super::*;
use crate::store::{
    CheckpointWriter, Entry, MemoryStore, Replayed, Store, StoreError, StoreStats, WrittenCheckpoint,
};

const NOW: Now = Now { unix_ms: 1 };

/// A store that refuses its n-th append.
#[derive(Debug)]
struct Failing {
    store: MemoryStore,
    appends_left: usize,
}

impl Store for Failing {
    fn append(&mut self, batch: &[Entry<'_>]) -> Result<(), StoreError> {
        match self.appends_left.checked_sub(1) {
            Some(left) => self.appends_left = left,
            None => return Err(StoreError::Stopped { cause: "on purpose".to_owned() }),
        }
        self.store.append(batch)
    }

    fn replay(&mut self, visit: &mut dyn FnMut(Replayed<'_>) -> ControlFlow<()>) -> Result<(), StoreError> {
        self.store.replay(visit)
    }

    fn begin_checkpoint(&mut self, shard: u16) -> Result<Box<dyn CheckpointWriter>, StoreError> {
        self.store.begin_checkpoint(shard)
    }

    fn finish_checkpoint(&mut self, written: WrittenCheckpoint) -> Result<(), StoreError> {
        self.store.finish_checkpoint(written)
    }

    fn checkpoint_due(&self) -> Option<u16> {
        self.store.checkpoint_due()
    }

    fn stats(&self) -> StoreStats {
        self.store.stats()
    }
}

fn builder(seed: u8, storage: Storage) -> Builder {
    let script = [[0x00, 0x14].as_slice(), &[seed; 20]].concat();
    Engine::builder(NodeSeed::new([seed; 32]), NodeConfig::new(ChainHash::REGTEST, script), storage)
}

fn ping() -> Ping {
    Ping { num_pong_bytes: 4, ignored: Vec::new(), unknown: Default::default() }
}

fn inline(seed: u8, storage: Storage) -> (Engine, Receiver<Effects>) {
    let (sender, effects) = unbounded();
    let handler = move |effects| sender.send(effects).unwrap_or_default();
    let engine = builder(seed, storage).inline(handler).unwrap();
    engine.chain_in_step();
    (engine, effects)
}

#[test]
fn nothing_leaves_once_the_store_has_failed() {
    // The first append is the engine's own record; an opening has at least these two turns that say something.
    for appends in 1..3 {
        let store = Failing { store: MemoryStore::default(), appends_left: appends };
        let (alice, from_alice) = inline(1, Storage::Store(Box::new(store)));
        let (bob, from_bob) = inline(2, Storage::Nowhere);
        let to_bob = alice.connected(bob.id(), &bob.init()).unwrap();
        let to_alice = bob.connected(alice.id(), &alice.init()).unwrap();
        let open = OpenChannelRequest {
            peer: bob.id(),
            user_id: 1,
            capacity: Sat(1_000_000),
            push: Msat(0),
            policy: None,
        };
        alice.command(Command::OpenChannel(open)).unwrap();
        let mut left = 0;
        for _ in 0..4 {
            alice.step(NOW);
            for effects in from_alice.try_iter() {
                left += 1;
                effects.send.iter().for_each(|(_, bytes)| bob.receive(to_alice, bytes).unwrap());
            }
            bob.step(NOW);
            for (_, bytes) in from_bob.try_iter().flat_map(|effects| effects.send) {
                let _refused_once_stopped = alice.receive(to_bob, &bytes);
            }
        }
        assert_eq!(left, appends - 1, "what was appended has left, and nothing else");
        let refused = alice.receive(to_bob, &Message::from(ping()).encode());
        assert!(matches!(refused, Err(ReceiveError::Stopped(Stopped::Failed(_)))), "{refused:?}");
        assert!(matches!(alice.shutdown(), Err(Stopped::Failed(fatal)) if matches!(*fatal, Fatal::Store(_))));
    }
}

#[test]
fn a_peer_is_held_to_its_credit_and_told_when_it_has_some_again() {
    let (sender, effects) = unbounded();
    let handler = move |effects: Effects| sender.send(effects).unwrap_or_default();
    let alice = builder(1, Storage::Nowhere).peer_credit(3, 1 << 20).inline(handler).unwrap();
    alice.chain_in_step();
    let (bob, _from_bob) = inline(2, Storage::Nowhere);
    let (carol, _from_carol) = inline(3, Storage::Nowhere);
    let to_bob = alice.connected(bob.id(), &bob.init()).unwrap();
    let to_carol = alice.connected(carol.id(), &carol.init()).unwrap();
    let ping = Message::from(ping()).encode();
    let five = [ping.as_slice(); 5];
    let refused = alice.receive_all(to_bob, five);
    assert!(matches!(refused, Err(ReceiveError::WouldBlock { accepted: 3 })), "{refused:?}");
    alice.receive(to_carol, &ping).unwrap();
    alice.step(NOW);
    let effects: Vec<Effects> = effects.try_iter().collect();
    let pongs = effects.iter().map(|effects| effects.send.len()).sum::<usize>();
    assert_eq!(pongs, 4, "all that was taken was answered");
    let resumed: Vec<Connection> = effects.iter().flat_map(|effects| effects.resume.clone()).collect();
    assert_eq!(resumed, [to_bob], "only who was refused is told");
    alice.receive_all(to_bob, five.into_iter().take(3)).unwrap();
    let again = alice.connected(bob.id(), &bob.init()).unwrap();
    assert!(matches!(alice.receive(to_bob, &ping), Err(ReceiveError::NotConnected(_))), "it has a newer one");
    alice.disconnected(to_bob);
    alice.receive(again, &ping).unwrap();
}

#[test]
fn a_handler_that_panics_stops_the_engine() {
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let handler = move |_: Effects| {
        counted.fetch_add(1, Ordering::SeqCst);
        panic!("on purpose");
    };
    let alice = builder(1, Storage::Nowhere).workers(2).start(handler).unwrap();
    alice.chain_in_step();
    let (bob, _from_bob) = inline(2, Storage::Nowhere);
    let connection = alice.connected(bob.id(), &bob.init()).unwrap();
    let ping = Message::from(ping()).encode();
    alice.receive(connection, &ping).unwrap();
    let stopped = alice.shutdown();
    assert!(
        matches!(stopped, Err(Stopped::Failed(fatal)) if matches!(*fatal, Fatal::HandlerPanicked { .. }))
    );
    assert_eq!(calls.load(Ordering::SeqCst), 1, "nothing leaves after that");
}

#[test]
fn the_number_of_shards_is_for_ever() {
    let directory = tempfile::tempdir().unwrap();
    let start = |shards: Option<u16>| {
        let builder = builder(1, Storage::Directory(directory.path().to_owned()));
        let builder = shards.into_iter().fold(builder, Builder::shards);
        builder.inline(|_: Effects| {}).map(|engine| engine.shards())
    };
    assert_eq!(start(Some(3)).unwrap(), 3);
    assert_eq!(start(None).unwrap(), 3);
    assert!(matches!(start(Some(2)), Err(StartError::OtherShards { kept: 3, wanted: 2 })));
    assert!(matches!(start(Some(0)), Err(StartError::NoShards)));
}

#[test]
fn a_lone_worker_has_one_shard_and_several_two_each() {
    for (workers, shards) in [(1, 1), (2, 4), (3, 6)] {
        let engine = builder(1, Storage::Nowhere).workers(workers).start(|_: Effects| {}).unwrap();
        assert_eq!(engine.shards(), shards);
    }
    assert_eq!(builder(1, Storage::Nowhere).inline(|_: Effects| {}).unwrap().shards(), 1);
}

#[test]
fn short_messages_of_many_peers_count_for_the_memory_they_hold() {
    let room = 10 * shard_cell::message_cost(6);
    let alice = builder(1, Storage::Nowhere).shard_queue(room, 1).inline(|_: Effects| {}).unwrap();
    let ping = Message::from(ping()).encode();
    assert!(ping.len() < room / 100);
    let peers: Vec<Engine> = (2..5).map(|seed| inline(seed, Storage::Nowhere).0).collect();
    let mut queued = 0;
    for peer in &peers {
        let connection = alice.connected(peer.id(), &peer.init()).unwrap();
        match alice.receive_all(connection, [ping.as_slice(); 8]) {
            Ok(()) => queued += 8,
            Err(ReceiveError::WouldBlock { accepted }) => queued += accepted,
            Err(error) => panic!("{error}"),
        }
    }
    // One message is accepted from a peer with an empty queue, whatever the others hold.
    assert_eq!(queued, 8 + 2 + 1, "the queue holds ten, and one more of the last peer");
}

#[test]
fn a_stranger_with_300_channels_and_one_long_error_does_not_stop_the_engine() {
    let directory = tempfile::tempdir().unwrap();
    let (alice, from_alice) = inline(1, Storage::Directory(directory.path().to_owned()));
    let (bob, from_bob) = inline(2, Storage::Nowhere);
    let to_bob = alice.connected(bob.id(), &bob.init()).unwrap();
    bob.connected(alice.id(), &alice.init()).unwrap();
    for user_id in 0..300 {
        let (capacity, push) = (Sat(1_000_000), Msat(0));
        bob.command(Command::OpenChannel(OpenChannelRequest {
            peer: alice.id(),
            user_id,
            capacity,
            push,
            policy: None,
        }))
        .unwrap();
    }
    bob.step(NOW);
    for (_, message) in from_bob.try_iter().flat_map(|effects| effects.send) {
        alice.receive(to_bob, &message).unwrap();
    }
    alice.step(NOW);
    let accepted: usize = from_alice.try_iter().map(|effects| effects.send.len()).sum();
    assert_eq!(accepted, 300, "every opening is answered");
    // BOLT 1: type 17, all channels, as long as a message may be.
    let error = [&[0, 17][..], &[0; 32], &[0xff, 0xdb], &[b'x'; 0xffdb]].concat();
    alice.receive(to_bob, &error).unwrap();
    alice.step(NOW);
    let _unfinished = alice.shutdown().expect("a peer's error is no failure of the store");
    drop(alice);
    inline(1, Storage::Directory(directory.path().to_owned()));
}

#[test]
fn a_turn_takes_no_more_long_failure_reasons_than_its_bytes_allow() {
    let mut inbox = shard_cell::Inbox::default();
    let clock = SystemClock::default();
    let reason = vec![0; 65_491];
    for htlc_id in 0..300 {
        let incoming = IncomingHtlc { channel_id: ChannelId([1; 32]), htlc_id };
        let step = HandoffStep::Resolve(Resolution::Relay(reason.clone()));
        inbox.push(Item::Handoff { from: 1, handoff: Handoff { incoming, step } }, &clock);
    }
    let taken = inbox.take(NOW).items.len();
    assert_eq!(taken, 63, "4 MiB of reasons, and the one that crosses the bound");
}

#[test]
fn a_stranger_that_floods_is_read_slowly_and_delays_no_other() {
    let (alice, from_alice) = inline(1, Storage::Nowhere);
    let (bob, _from_bob) = inline(2, Storage::Nowhere);
    let (carol, _from_carol) = inline(3, Storage::Nowhere);
    let to_bob = alice.connected(bob.id(), &bob.init()).unwrap();
    let to_carol = alice.connected(carol.id(), &carol.init()).unwrap();
    let ping = Message::from(ping()).encode();
    let flood = |now: Now| {
        let mut accepted = 0;
        while alice.receive(to_bob, &ping).is_ok() {
            accepted += 1;
            alice.step(now);
        }
        accepted
    };
    let at_once = flood(NOW);
    assert!(at_once >= 100, "{at_once} messages before the first delay");
    let cost = shard_cell::message_cost(ping.len());
    assert!(at_once * cost <= (256 << 10) + cost);
    alice.receive(to_carol, &ping).unwrap();
    alice.step(NOW);
    let resumed = |effects: &Receiver<Effects>| -> Vec<Connection> {
        effects.try_iter().flat_map(|effects| effects.resume).collect()
    };
    assert_eq!(resumed(&from_alice), [], "no time has passed");
    let later = Now { unix_ms: NOW.unix_ms + 1_000 };
    alice.tick();
    alice.step(later);
    assert_eq!(resumed(&from_alice), [to_bob]);
    let a_second = flood(later);
    assert!((1..=1 + (32 << 10) / cost).contains(&a_second), "{a_second} messages in a second");
}
