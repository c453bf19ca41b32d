//! Fundings that confirm slowly, are taken out of the chain, move, and are spent: the channel gets to know.

use std::sync::Arc;

use bitcoin::absolute::LockTime;
use bitcoin::constants::genesis_block;
use bitcoin::transaction::Version;
use bitcoin::{Network, ScriptBuf, Sequence, TxIn, Witness};
use fulmen_proto::channel::State;
use fulmen_proto::forward::{Command, NodeConfig, Now, OpenChannelRequest};
use fulmen_proto::keys::NodeSeed;
use fulmen_wire::units::{ChainHash, ChannelId, Msat, Sat};

use super::*;
use crate::driver::ShardDriver;

/// Two nodes with a channel whose funding is signed, and not in the chain yet.
struct Pair {
    nodes: [ShardDriver; 2],
    events: [Vec<Event>; 2],
    funding: Transaction,
    channel_id: ChannelId,
}

impl Pair {
    fn new(minimum_depth: u32) -> Pair {
        let nodes = [1, 2].map(|seed| {
            let script = [[0x00, 0x14].as_slice(), &[seed; 20]].concat();
            let mut config = NodeConfig::new(ChainHash::REGTEST, script);
            config.channel.minimum_depth = minimum_depth;
            ShardDriver::new(NodeSeed::new([seed; 32]), config)
        });
        let (funding, channel_id) = (genesis_block(Network::Regtest).txdata.remove(0), ChannelId([0; 32]));
        let mut pair = Pair { nodes, events: Default::default(), funding, channel_id };
        let [alice, bob] = &mut pair.nodes;
        let (of_alice, of_bob) = (alice.init(), bob.init());
        alice.connected(bob.id(), &of_bob).unwrap();
        bob.connected(alice.id(), &of_alice).unwrap();
        let (peer, capacity, push) = (bob.id(), Sat(1_000_000), Msat(0));
        alice.command(Command::OpenChannel(OpenChannelRequest {
            peer,
            user_id: 1,
            capacity,
            push,
            policy: None,
        }));
        pair.settle();
        let needed = pair.events[0].pop();
        let Some(Event::FundingNeeded { temporary_channel_id, amount, script, .. }) = needed else {
            panic!("{needed:?}")
        };
        pair.funding.output = vec![TxOut { value: Amount::from_sat(amount.0), script_pubkey: script }];
        let transaction = pair.funding.clone();
        pair.nodes[0].command(Command::FundingTransaction { temporary_channel_id, transaction });
        pair.settle();
        let funded = pair.events[0].pop();
        let Some(Event::ChannelFunded { channel_id, .. }) = funded else { panic!("{funded:?}") };
        Pair { channel_id, ..pair }
    }

    /// Delivers messages until both nodes are silent.
    fn settle(&mut self) {
        for _ in 0..20 {
            for (from, to) in [(0, 1), (1, 0)] {
                let outbox = self.nodes[from].turn(Now { unix_ms: 1 });
                self.events[from].extend(outbox.events);
                let sender = self.nodes[from].id();
                for (_, message) in outbox.send {
                    self.nodes[to].receive(sender, &message).unwrap();
                }
            }
        }
    }

    fn give(&mut self, event: &ChainEvent) {
        self.nodes.iter_mut().for_each(|node| node.chain_event(event));
        self.settle();
    }

    fn mine(&mut self, height: u32, transactions: Vec<Transaction>) {
        self.give(&block(height, transactions));
    }

    fn is_usable(&self) -> bool {
        self.nodes
            .iter()
            .all(|node| node.shard().channel(ChannelRef::Id(self.channel_id)).is_some_and(Channel::is_usable))
    }

    fn state(&self) -> State {
        let channel = self.nodes[0].shard().channel(ChannelRef::Id(self.channel_id));
        channel.map(Channel::state).unwrap()
    }
}

/// A block that holds these transactions behind its coinbase.
fn block(height: u32, transactions: Vec<Transaction>) -> ChainEvent {
    let mut block = genesis_block(Network::Regtest);
    block.header.time = height;
    block.txdata.extend(transactions);
    ChainEvent::Connected { height: BlockHeight(height), block: Arc::new(block) }
}

fn confirmations(inputs: &[Input]) -> Vec<(u32, Scid)> {
    let of = |input: &Input| match input {
        Input::Block { confirmations, .. } => {
            confirmations.iter().map(|confirmation| (confirmation.depth, confirmation.scid)).collect()
        }
        _ => Vec::new(),
    };
    inputs.iter().flat_map(of).collect()
}

#[test]
fn a_channel_that_needs_many_confirmations_becomes_ready() {
    for minimum_depth in [12, 13, 14, 49, 144] {
        let mut pair = Pair::new(minimum_depth);
        let funding = pair.funding.clone();
        pair.mine(1, vec![funding]);
        for height in 2..minimum_depth {
            pair.mine(height, Vec::new());
        }
        assert_eq!(pair.state(), State::Confirming, "{minimum_depth}");
        pair.mine(minimum_depth, Vec::new());
        assert_eq!(pair.state(), State::Normal, "{minimum_depth}");
    }
}

#[test]
fn a_funding_that_a_reorganisation_moves_is_reported_long_after_the_channel_is_ready() {
    let mut pair = Pair::new(3);
    let funding = pair.funding.clone();
    pair.mine(1, vec![funding.clone()]);
    (2..40).for_each(|height| pair.mine(height, Vec::new()));
    assert_eq!(pair.state(), State::Normal);
    // As after a restart: all that is known comes from the channels.
    let mut monitor = FundingMonitor::of(pair.nodes[0].shard());
    let first = Scid::new(1, 1, 0).unwrap();
    for height in (1..40).rev() {
        let hash = bitcoin::BlockHash::all_zeros();
        let inputs = monitor.chain_event(&ChainEvent::Disconnected { height: BlockHeight(height), hash });
        let expected = if height == 1 { vec![(0, first)] } else { Vec::new() };
        assert_eq!(confirmations(&inputs), expected, "block {height} is gone");
    }
    monitor.chain_event(&block(1, Vec::new()));
    let inputs = monitor.chain_event(&block(2, vec![funding]));
    assert_eq!(confirmations(&inputs), [(1, Scid::new(2, 1, 0).unwrap())], "it is found at its new place");
}

#[test]
fn a_channel_whose_funding_leaves_the_chain_waits_until_it_is_confirmed_again() {
    let mut pair = Pair::new(3);
    let funding = pair.funding.clone();
    pair.mine(1, vec![funding.clone()]);
    (2..15).for_each(|height| pair.mine(height, Vec::new()));
    assert!(pair.is_usable());
    for height in (1..15).rev() {
        assert!(pair.is_usable(), "its block is still there, {height} is gone");
        let hash = bitcoin::BlockHash::all_zeros();
        pair.give(&ChainEvent::Disconnected { height: BlockHeight(height), hash });
    }
    assert!(!pair.is_usable());
    pair.events.iter_mut().for_each(Vec::clear);
    pair.mine(1, Vec::new());
    pair.mine(2, vec![funding]);
    pair.mine(3, Vec::new());
    assert!(!pair.is_usable(), "two blocks deep of three");
    pair.mine(4, Vec::new());
    assert!(pair.is_usable());
    let moved = Scid::new(2, 1, 0).unwrap();
    for (node, events) in pair.nodes.iter().zip(&pair.events) {
        let ready = |event: &&Event| matches!(event, Event::ChannelReady { scid, .. } if *scid == moved);
        assert_eq!(events.iter().filter(ready).count(), 1, "{events:?}");
        assert!(node.shard().channel(ChannelRef::Scid(moved)).is_some(), "HTLCs find it at its new place");
    }
}

#[test]
fn a_channel_whose_funding_is_spent_carries_nothing_more() {
    let mut pair = Pair::new(3);
    let funding = pair.funding.clone();
    pair.mine(1, vec![funding.clone()]);
    (2..30).for_each(|height| pair.mine(height, Vec::new()));
    assert_eq!(pair.state(), State::Normal);
    let spend = Transaction {
        version: Version::TWO,
        lock_time: LockTime::ZERO,
        input: vec![TxIn {
            previous_output: OutPoint::new(funding.compute_txid(), 0),
            script_sig: ScriptBuf::new(),
            sequence: Sequence::MAX,
            witness: Witness::new(),
        }],
        output: Vec::new(),
    };
    pair.mine(30, vec![spend]);
    assert_eq!(pair.state(), State::Failed);
    for events in &pair.events {
        let failed = |event: &Event| matches!(event, Event::ChannelFailed { .. });
        assert_eq!(events.iter().filter(|event| failed(event)).count(), 1, "{events:?}");
    }
}
