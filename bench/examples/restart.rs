//! How long a node takes to start again from its store, by channels and by payments since the last checkpoint.
//!
//! `cargo run --release -p fulmen-bench --example restart -- [channels] [payments] [directory]`, for example `10000
//! 20000 .`. Opens the channels with one peer, has the peer pay over them, drops the engine as a crash would, and
//! starts it again from its directory: twice, the first time from the log as it was left, the second time from
//! checkpoints. Checks that all channels and balances come back.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use bitcoin::block::{Header, Version};
use bitcoin::hashes::{Hash, sha256};
use bitcoin::{
    Amount, Block, BlockHash, CompactTarget, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxMerkleNode,
    TxOut, Txid, Witness,
};
use fulmen::Engine;
use fulmen::chain::ChainEvent;
use fulmen::runtime::{Connection, Effects, Storage};
use fulmen::store::{Directory, LogOptions, LogStore};
use fulmen_proto::forward::{Command, Event, NodeConfig, Now, OpenChannelRequest, SendHtlc};
use fulmen_proto::keys::NodeSeed;
use fulmen_proto::payment::{OutgoingPayment, Recipient, RouteHop};
use fulmen_wire::units::{BlockHeight, ChainHash, Msat, PaymentHash, PaymentPreimage, Sat, Scid};
use secp256k1::SecretKey;

const CAPACITY: Sat = Sat(1_000_000);
const AMOUNT: Msat = Msat(1_000_000);
/// How many channels are opened, and payments made, at once.
const AT_ONCE: usize = 200;
const NODE: usize = 0;
const PEER: usize = 1;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let mut number =
        |default: usize| arguments.next().map_or(default, |text| text.parse().expect("a number"));
    let (channels, payments) = (number(10_000), number(20_000));
    let directory = arguments.next().unwrap_or_else(|| ".".to_owned());
    let home = tempfile::tempdir_in(directory).expect("the directory can be written to");
    let mut pair = Pair::new(home.path());
    pair.open(channels);
    let scids = pair.scids();
    assert_eq!(scids.len(), channels, "all channels are open");
    report("opened", &pair);
    pair.pay(payments, &scids);
    report("paid", &pair);
    let before = pair.balances(NODE);
    drop(pair);
    let start = |options: LogOptions| {
        let begun = Instant::now();
        let engine = engine(NODE, Some((home.path(), options)), Outbox::default());
        (engine, begun.elapsed())
    };
    let (engine, spent) = start(LogOptions::default());
    assert_eq!(balances(&engine), before, "what was durable comes back");
    println!("started again in {} ms; {:?}", spent.as_millis(), engine.stats().store);
    // Everything that happens is durable with the next tick, and a checkpoint is due as soon as there is a log.
    drop(engine);
    let (engine, _) = start(LogOptions { segment_bytes: 1, log_bytes_max: 1, ..LogOptions::default() });
    for height in 3..12 {
        engine.chain_event(&ChainEvent::Connected { height: BlockHeight(height), block: block(Vec::new()) });
        engine.step(NOW);
        engine.tick();
    }
    println!("took checkpoints: {:?}", engine.stats().store);
    drop(engine);
    let (engine, spent) = start(LogOptions::default());
    assert_eq!(balances(&engine), before, "what was durable comes back");
    println!("started again from checkpoints in {} ms; {:?}", spent.as_millis(), engine.stats().store);
}

fn report(what: &str, pair: &Pair) {
    println!("{what} after {} s: {:?}", pair.begun.elapsed().as_secs(), pair.engines[NODE].stats().store);
}

const NOW: Now = Now { unix_ms: 1 };

/// The effects of an engine.
#[derive(Clone, Default)]
struct Outbox(Arc<Mutex<Vec<Effects>>>);

/// A node with a store, and its peer without.
struct Pair {
    engines: [Engine; 2],
    outboxes: [Outbox; 2],
    connections: [Connection; 2],
    events: [Vec<Event>; 2],
    begun: Instant,
}

fn engine(which: usize, store: Option<(&Path, LogOptions)>, outbox: Outbox) -> Engine {
    let seed = NodeSeed::new([which as u8 + 1; 32]);
    let mut config = NodeConfig::new(ChainHash::REGTEST, [&[0, 20][..], &[7; 20]].concat());
    config.channel.minimum_depth = 1;
    config.channels_per_peer_max = usize::MAX;
    config.unfunded_channels_per_peer_max = usize::MAX;
    config.unconfirmed_channels_per_peer_max = usize::MAX;
    config.unconfirmed_channels_max = usize::MAX;
    let id = fulmen_proto::forward::Shard::new(seed.clone(), config.clone()).node_id();
    let storage = store.map_or(Storage::Nowhere, |(home, options)| {
        let disk = Arc::new(Directory::open(home.join("store")).expect("a directory"));
        Storage::Store(Box::new(LogStore::open_on(disk, id, options).expect("a store")))
    });
    let handler = move |effects| outbox.0.lock().unwrap_or_else(PoisonError::into_inner).push(effects);
    let builder = Engine::builder(seed, config, storage).shards(1);
    let builder = builder.peer_credit(usize::MAX, usize::MAX).shard_queue(usize::MAX, usize::MAX);
    let engine = builder.inline(handler).expect("an engine");
    engine.chain_in_step();
    engine
}

impl Pair {
    fn new(home: &Path) -> Pair {
        let outboxes: [Outbox; 2] = Default::default();
        let store = |which| (which == NODE).then_some((home, LogOptions::default()));
        let engines = [NODE, PEER].map(|which| engine(which, store(which), outboxes[which].clone()));
        let connect = |to: usize, from: usize| {
            let init = engines[from].init();
            engines[to].connected(engines[from].id(), &init).expect("they understand each other")
        };
        let connections = [connect(NODE, PEER), connect(PEER, NODE)];
        Pair { engines, outboxes, connections, events: Default::default(), begun: Instant::now() }
    }

    /// Runs both until nothing moves.
    fn rest(&mut self) {
        loop {
            let mut moved = false;
            for which in [NODE, PEER] {
                self.engines[which].step(NOW);
                let put = std::mem::take(
                    &mut *self.outboxes[which].0.lock().unwrap_or_else(PoisonError::into_inner),
                );
                for Effects { send, events, .. } in put {
                    moved |= !send.is_empty();
                    let messages = send.iter().map(|(_, message)| message.as_slice());
                    let other = 1 - which;
                    let taken = self.engines[other].receive_all(self.connections[other], messages);
                    taken.expect("there is room");
                    self.events[which].extend(events);
                }
            }
            if !moved {
                return;
            }
        }
    }

    fn open(&mut self, channels: usize) {
        let mut transactions = Vec::new();
        for first in (0..channels).step_by(AT_ONCE) {
            for number in first..(first + AT_ONCE).min(channels) {
                let (peer, push) = (self.engines[PEER].id(), Msat(CAPACITY.0 * 1_000 / 2));
                let user_id = number as u64;
                let open = OpenChannelRequest { peer, user_id, capacity: CAPACITY, push, policy: None };
                self.engines[NODE].command(Command::OpenChannel(open)).expect("it runs");
            }
            self.rest();
            for event in std::mem::take(&mut self.events[NODE]) {
                if let Event::FundingNeeded { temporary_channel_id, user_id, amount, script, .. } = event {
                    let transaction = funding(user_id, amount, script);
                    transactions.push(transaction.clone());
                    let command = Command::FundingTransaction { temporary_channel_id, transaction };
                    self.engines[NODE].command(command).expect("it runs");
                }
            }
            self.rest();
        }
        let connected = ChainEvent::Connected { height: BlockHeight(1), block: block(transactions) };
        self.engines.iter().for_each(|engine| engine.chain_event(&connected));
        self.rest();
        let next = ChainEvent::Connected { height: BlockHeight(2), block: block(Vec::new()) };
        self.engines.iter().for_each(|engine| engine.chain_event(&next));
        self.rest();
    }

    fn scids(&self) -> Vec<Scid> {
        let mut scids = Vec::new();
        self.engines[PEER].for_each_shard(|shard| {
            scids.extend(shard.channels().filter(|channel| channel.is_usable()).filter_map(|it| it.scid()));
        });
        scids
    }

    /// The peer pays the node over all its channels, one after the other.
    fn pay(&mut self, payments: usize, scids: &[Scid]) {
        for first in (0..payments).step_by(AT_ONCE) {
            for number in first..(first + AT_ONCE).min(payments) {
                let scid = scids[number % scids.len()];
                let send = payment(number as u64, self.engines[NODE].id(), scid);
                self.engines[PEER].command(Command::SendHtlc(send)).expect("it runs");
            }
            self.rest();
        }
        let settled = self.events[PEER].iter().filter(|event| matches!(event, Event::HtlcSettled { .. }));
        assert_eq!(settled.count(), payments, "all payments arrive");
        // Turns that send nothing become durable with a tick.
        self.engines[NODE].tick();
        self.rest();
        self.engines[NODE].tick();
    }

    fn balances(&self, which: usize) -> Vec<(Msat, Msat)> {
        balances(&self.engines[which])
    }
}

fn balances(engine: &Engine) -> Vec<(Msat, Msat)> {
    let mut found = Vec::new();
    engine.for_each_shard(|shard| found.extend(shard.channels().filter_map(|channel| channel.balances())));
    found
}

fn payment(number: u64, to: fulmen_wire::units::NodeId, scid: Scid) -> SendHtlc {
    let mut preimage = [3; 32];
    preimage[..8].copy_from_slice(&number.to_be_bytes());
    let payment_hash = PaymentHash(sha256::Hash::hash(&preimage).to_byte_array());
    let hop = RouteHop { node_id: to, short_channel_id: scid, amount: AMOUNT, cltv_expiry: BlockHeight(100) };
    let recipient = Recipient {
        payment_data: None,
        payment_metadata: None,
        keysend_preimage: Some(PaymentPreimage(preimage)),
    };
    let session_key = SecretKey::from_slice(&payment_hash.0).expect("a hash is a key");
    let outgoing = OutgoingPayment::new(&session_key, payment_hash, &[hop], &recipient).expect("it fits");
    SendHtlc::new(number, &outgoing)
}

fn funding(number: u64, amount: Sat, script_pubkey: ScriptBuf) -> Transaction {
    let mut previous = [0xfd; 32];
    previous[..8].copy_from_slice(&number.to_le_bytes());
    Transaction {
        version: bitcoin::transaction::Version::TWO,
        lock_time: bitcoin::absolute::LockTime::ZERO,
        input: vec![TxIn {
            previous_output: OutPoint::new(Txid::from_byte_array(previous), 0),
            script_sig: ScriptBuf::new(),
            sequence: Sequence::MAX,
            witness: Witness::new(),
        }],
        output: vec![TxOut { value: Amount::from_sat(amount.0), script_pubkey }],
    }
}

fn block(txdata: Vec<Transaction>) -> Arc<Block> {
    let header = Header {
        version: Version::TWO,
        prev_blockhash: BlockHash::all_zeros(),
        merkle_root: TxMerkleNode::all_zeros(),
        time: 0,
        bits: CompactTarget::from_consensus(0x207f_ffff),
        nonce: 0,
    };
    Arc::new(Block { header, txdata })
}
