//! Forwarding: the CPU one shard spends on an HTLC from its addition to its fulfilment, both neighbours' work left out.
//!
//! Checks the budgets of `fulmen_proto::forward`, in memory: 700 us with one HTLC in flight, 150 us with 100, 100 us with
//! 400; and at most 2.5 signatures verified and 2.5 made a forward with 100 in flight. Non-dust HTLCs, anchors.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bitcoin::hashes::Hash;
use bitcoin::{Amount, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Witness};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use fulmen_proto::forward::{
    ChannelRef, Command, Confirmation, Event, Input, NodeConfig, Now, OpenChannel, SendHtlc, Shard, Turn,
    local_features,
};
use fulmen_proto::keys::NodeSeed;
use fulmen_proto::payment::{OutgoingPayment, Recipient, RouteHop};
use fulmen_wire::message::Message;
use fulmen_wire::units::{
    BlockHeight, ChainHash, Msat, NodeId, PaymentHash, PaymentPreimage, Sat, Scid, Txid,
};
use secp256k1::SecretKey;
use sha2::{Digest, Sha256};

const CAPACITY: Sat = Sat(100_000_000);
const AMOUNT: Msat = Msat(10_000_000);
const NOW: Now = Now { unix_ms: 1 };
const HEIGHT: BlockHeight = BlockHeight(100);
/// The shard that forwards.
const MIDDLE: usize = 1;

/// Three shards in a line; what the middle one does is timed.
struct Line {
    shards: Vec<Shard>,
    ids: Vec<NodeId>,
    inputs: Vec<Vec<Input>>,
    wires: VecDeque<(usize, usize, Message)>,
    events: Vec<Event>,
    scids: [Scid; 2],
    /// Attempts ever made: each has its own preimage and session key.
    attempts: u64,
    settled: u64,
    spent: Duration,
}

impl Line {
    fn new() -> Line {
        let shards: Vec<Shard> = (1..=3u8)
            .map(|node| {
                let script = [[0, 20].as_slice(), &[node; 20]].concat();
                let mut config = NodeConfig::new(ChainHash::REGTEST, script);
                config.channel.minimum_depth = 1;
                Shard::new(NodeSeed::new([node; 32]), config)
            })
            .collect();
        let mut line = Line {
            ids: shards.iter().map(Shard::node_id).collect(),
            inputs: vec![vec![Input::Block { height: HEIGHT, confirmations: Vec::new() }]; 3],
            shards,
            wires: VecDeque::new(),
            events: Vec::new(),
            scids: [Scid(1 << 40), Scid(2 << 40)],
            attempts: 0,
            settled: 0,
            spent: Duration::ZERO,
        };
        for left in 0..2 {
            line.open(left);
        }
        line
    }

    fn open(&mut self, left: usize) {
        for (from, to) in [(left, left + 1), (left + 1, left)] {
            let peer = self.ids[to];
            self.inputs[from].push(Input::PeerConnected { peer, features: local_features() });
        }
        let push = Msat(CAPACITY.to_msat().0 / 2);
        let open =
            OpenChannel { peer: self.ids[left + 1], user_id: 1, capacity: CAPACITY, push, policy: None };
        self.inputs[left].push(Input::Command(Command::OpenChannel(open)));
        self.rest();
        let needed = self.events.drain(..).find_map(|event| match event {
            Event::FundingNeeded { temporary_channel_id, amount, script, .. } => {
                Some((temporary_channel_id, funding_transaction(left, amount, script)))
            }
            _ => None,
        });
        let (temporary_channel_id, transaction) = needed.expect("the peer accepts");
        let txid = Txid(transaction.compute_txid().to_byte_array());
        let output = transaction.output[0].clone();
        let fund = Command::FundingTransaction { temporary_channel_id, transaction };
        self.inputs[left].push(Input::Command(fund));
        self.rest();
        let confirmations = vec![Confirmation { txid, scid: self.scids[left], depth: 6, output }];
        for inputs in &mut self.inputs {
            inputs.push(Input::Block { height: HEIGHT, confirmations: confirmations.clone() });
        }
        self.rest();
    }

    fn rest(&mut self) {
        while self.step() {}
    }

    /// Delivers what is under way and gives each shard with something to do a turn.
    fn step(&mut self) -> bool {
        for (from, to, message) in self.wires.drain(..) {
            self.inputs[to].push(Input::Message { peer: self.ids[from], message });
        }
        let mut busy = false;
        for node in 0..3 {
            let inputs = std::mem::take(&mut self.inputs[node]);
            if inputs.is_empty() {
                continue;
            }
            busy = true;
            let start = Instant::now();
            let turn = self.shards[node].turn(inputs, NOW);
            if node == MIDDLE {
                self.spent += start.elapsed();
            }
            self.take(node, turn);
        }
        busy
    }

    fn take(&mut self, node: usize, turn: Turn) {
        for (peer, message) in turn.send {
            let to = self.ids.iter().position(|id| *id == peer).expect("one of the three");
            self.wires.push_back((node, to, message));
        }
        for event in turn.events {
            match event {
                Event::HtlcSettled { .. } => self.settled += 1,
                Event::HtlcFailed { .. } => panic!("{event:?}"),
                Event::FundingNeeded { .. } => self.events.push(event),
                _ => {}
            }
        }
    }

    fn pay(&mut self, left_to_right: bool) {
        let mut bytes = [0x21; 32];
        bytes[24..].copy_from_slice(&self.attempts.to_be_bytes());
        let preimage = PaymentPreimage(bytes);
        let payment_hash = PaymentHash(Sha256::digest(bytes).into());
        let session_key = SecretKey::from_slice(&bytes).expect("a scalar");
        let (from, to, scids) = match left_to_right {
            true => (0, 2, self.scids),
            false => (2, 0, [self.scids[1], self.scids[0]]),
        };
        let route = [
            RouteHop {
                node_id: self.ids[MIDDLE],
                short_channel_id: scids[0],
                amount: Msat(AMOUNT.0 + 2_000),
                cltv_expiry: BlockHeight(HEIGHT.0 + 60),
            },
            RouteHop {
                node_id: self.ids[to],
                short_channel_id: scids[1],
                amount: AMOUNT,
                cltv_expiry: BlockHeight(HEIGHT.0 + 20),
            },
        ];
        let recipient = Recipient { keysend_preimage: Some(preimage), ..Recipient::default() };
        let payment =
            OutgoingPayment::new(&session_key, payment_hash, &route, &recipient).expect("two hops fit");
        self.inputs[from].push(Input::Command(Command::SendHtlc(SendHtlc {
            attempt_id: self.attempts,
            channel: ChannelRef::Scid(payment.short_channel_id),
            amount: payment.amount,
            cltv_expiry: payment.cltv_expiry,
            payment_hash,
            onion: payment.packet.into_bytes(),
        })));
        self.attempts += 1;
    }

    /// Makes `payments`, `in_flight` at a time, and gives the time the middle shard spent.
    fn forward(&mut self, payments: u64, in_flight: u64, left_to_right: bool) -> Duration {
        let (begun, done) = (self.attempts, self.settled);
        self.spent = Duration::ZERO;
        while self.settled - done < payments {
            while self.attempts - begun < payments
                && (self.attempts - begun) - (self.settled - done) < in_flight
            {
                self.pay(left_to_right);
            }
            assert!(self.step(), "the line came to rest with payments open");
        }
        self.rest();
        self.spent
    }
}

fn funding_transaction(number: usize, amount: Sat, script: ScriptBuf) -> Transaction {
    let previous_output = OutPoint::new(bitcoin::Txid::from_byte_array([number as u8 + 1; 32]), 0);
    let (script_sig, witness) = (ScriptBuf::new(), Witness::new());
    Transaction {
        version: bitcoin::transaction::Version::TWO,
        lock_time: bitcoin::absolute::LockTime::ZERO,
        input: vec![TxIn { previous_output, script_sig, sequence: Sequence::MAX, witness }],
        output: vec![TxOut { value: Amount::from_sat(amount.0), script_pubkey: script }],
    }
}

fn forwarding(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("forward");
    group.sample_size(10);
    // Without `--bench` this is a test: enough to see that it works.
    let measured = std::env::args().any(|argument| argument == "--bench");
    for (in_flight, payments) in [(1, 20), (100, 400), (400, 800)] {
        let payments = if measured { payments } else { 4 };
        let mut line = Line::new();
        let mut left_to_right = true;
        let before = line.shards[MIDDLE].counters();
        group.throughput(Throughput::Elements(payments));
        group.bench_function(format!("{in_flight} in flight, {payments} payments"), |bencher| {
            bencher.iter_custom(|rounds| {
                let mut spent = Duration::ZERO;
                for _ in 0..rounds {
                    spent += line.forward(payments, in_flight, left_to_right);
                    left_to_right = !left_to_right;
                }
                spent
            });
        });
        let counters = line.shards[MIDDLE].counters();
        println!(
            "{in_flight} in flight: {:.2} signatures verified and {:.2} made a forward",
            (counters.ecdsa_verified - before.ecdsa_verified) as f64 / line.settled as f64,
            (counters.ecdsa_signed - before.ecdsa_signed) as f64 / line.settled as f64,
        );
    }
}

criterion_group!(benches, forwarding);
criterion_main!(benches);
