//! A forwarder between a sender and a receiver, in memory and in lockstep; only the forwarder's turns are timed.
//!
//! Owns the driver of the `forward` bench and of the example `turn`. Uses no store, no sockets and no threads.
//!
//! Each step delivers all messages under way and gives every node with inputs one turn. `bench/peers` uses the same
//! schedule, so batch sizes are comparable.

use std::collections::VecDeque;
use std::time::Duration;

use bitcoin::hashes::Hash;
use bitcoin::{Amount, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Witness};
use fulmen_proto::channel::Side;
use fulmen_proto::forward::{
    Command, Confirmation, Event, Input, NodeConfig, Now, OpenChannelRequest, PeerEvent, PeerInput,
    Restoring, SendHtlc, Shard, Turn, local_features,
};
use fulmen_proto::keys::NodeSeed;
use fulmen_proto::payment::{OutgoingPayment, Recipient, RouteHop};
use fulmen_wire::message::Message;
use fulmen_wire::units::{
    BlockHeight, ChainHash, Msat, NodeId, PaymentHash, PaymentPreimage, Sat, Scid, Txid,
};
use rustix::time::{ClockId, clock_gettime};
use secp256k1::SecretKey;
use sha2::{Digest, Sha256};

const CAPACITY: Sat = Sat(100_000_000);
const START: Now = Now { unix_ms: 1 };
const HEIGHT: BlockHeight = BlockHeight(100);
/// The most HTLCs a channel may hold per direction (BOLT 2), those whose removal is not yet committed included.
const SLOTS: usize = 483;
/// The index of the forwarder. 0 is the sender, 2 the receiver, and 3 the peer of the idle channels.
pub const FORWARDER: usize = 1;

/// How payments follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Schedule {
    /// A new payment starts for each one that is settled.
    ClosedLoop,
    /// A wave of payments starts at once, and the next wave when all are settled.
    Waves,
}

/// The forwarder's cost of one run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cost {
    /// Payments made.
    pub payments: u64,
    /// The CPU time of the forwarder's turns.
    pub spent: Duration,
    /// HTLC signatures that it checked.
    pub htlcs_verified: u64,
    /// HTLC signatures that it made.
    pub htlcs_signed: u64,
    /// `commitment_signed` messages that it received.
    pub commitments_in: u64,
    /// `commitment_signed` messages that it sent.
    pub commitments_out: u64,
    /// Turns that it was given.
    pub turns: u64,
}

/// Sender, forwarder, receiver, and the peer of the forwarder's idle channels.
#[derive(Debug)]
pub struct ForwardingLine {
    shards: Vec<Shard>,
    ids: Vec<NodeId>,
    inputs: Vec<Vec<Input>>,
    wires: VecDeque<(usize, usize, Message)>,
    events: Vec<Event>,
    scids: [Scid; 2],
    amount: Msat,
    now: Now,
    /// Attempts made so far: each has its own preimage and session key.
    attempts: u64,
    settled: u64,
    cost: Cost,
    /// The forwarder's inputs, turn by turn, if they are recorded.
    record: Option<Vec<Vec<Input>>>,
}

impl ForwardingLine {
    /// Opens the two channels that carry payments of `amount`, and `idle` others of the forwarder.
    #[must_use]
    pub fn new(amount: Msat, idle: u32) -> ForwardingLine {
        ForwardingLine::recorded(amount, idle, false)
    }

    /// As [`ForwardingLine::new`]; keeps all inputs of the forwarder for [`ForwardingLine::into_record`] if asked.
    #[must_use]
    pub fn recorded(amount: Msat, idle: u32, record: bool) -> ForwardingLine {
        let shards: Vec<Shard> = (0..4).map(new_shard).collect();
        let nodes = shards.len();
        let mut line = ForwardingLine {
            ids: shards.iter().map(Shard::node_id).collect(),
            inputs: vec![vec![Input::Block { height: HEIGHT, confirmations: Vec::new() }]; nodes],
            shards,
            wires: VecDeque::new(),
            events: Vec::new(),
            scids: [scid(0), scid(1)],
            amount,
            now: START,
            attempts: 0,
            settled: 0,
            cost: Cost::default(),
            record: record.then(Vec::new),
        };
        for (one, other) in [(0, 1), (1, 2), (1, 3)] {
            for (from, to) in [(one, other), (other, one)] {
                let peer = line.ids[to];
                line.inputs[from].push(Input::connected(peer, local_features()));
            }
        }
        line.open(0, 1, 0..1);
        line.open(1, 2, 1..2);
        line.open(1, 3, 2..2 + idle);
        line
    }

    /// Opens channels, numbered from `numbers`, in batches.
    fn open(&mut self, one: usize, other: usize, numbers: std::ops::Range<u32>) {
        let mut numbers = numbers.peekable();
        while numbers.peek().is_some() {
            let batch: Vec<u32> = numbers.by_ref().take(500).collect();
            for number in &batch {
                let (peer, push) = (self.ids[other], Msat(CAPACITY.to_msat().0 / 2));
                let open = OpenChannelRequest {
                    peer,
                    user_id: u64::from(*number),
                    capacity: CAPACITY,
                    push,
                    policy: None,
                };
                self.inputs[one].push(Input::Command(Command::OpenChannel(open)));
            }
            self.rest();
            let mut confirmations = Vec::new();
            for event in std::mem::take(&mut self.events) {
                if let Event::FundingNeeded { temporary_channel_id, user_id, amount, script, .. } = event {
                    let transaction = funding_transaction(user_id, amount, script);
                    confirmations.push(Confirmation {
                        txid: Txid(transaction.compute_txid().to_byte_array()),
                        scid: scid(u32::try_from(user_id).expect("a channel's number")),
                        depth: 6,
                        output: transaction.output[0].clone(),
                    });
                    let fund = Command::FundingTransaction { temporary_channel_id, transaction };
                    self.inputs[one].push(Input::Command(fund));
                }
            }
            assert_eq!(confirmations.len(), batch.len(), "the peer accepts");
            self.rest();
            for node in [one, other] {
                let confirmations = confirmations.clone();
                self.inputs[node].push(Input::Block { height: HEIGHT, confirmations });
            }
            self.rest();
        }
    }

    fn rest(&mut self) {
        while self.step() {}
    }

    /// Delivers all messages under way and gives each shard with inputs a turn.
    fn step(&mut self) -> bool {
        for (from, to, message) in self.wires.drain(..) {
            self.inputs[to].push(Input::message(self.ids[from], message));
        }
        let mut busy = false;
        for node in 0..self.shards.len() {
            let inputs = std::mem::take(&mut self.inputs[node]);
            if inputs.is_empty() {
                continue;
            }
            busy = true;
            if node == FORWARDER {
                let messages = inputs.iter().filter_map(|input| match input {
                    Input::Peer(PeerInput {
                        event: PeerEvent::Message(Message::CommitmentSigned(message)),
                        ..
                    }) => Some(message),
                    _ => None,
                });
                for message in messages {
                    self.cost.commitments_in += 1;
                    self.cost.htlcs_verified += message.htlc_signatures.len() as u64;
                }
                self.cost.turns += 1;
                if let Some(record) = &mut self.record {
                    record.push(inputs.clone());
                }
            }
            let start = thread_time();
            let turn = self.shards[node].turn(inputs, self.now);
            if node == FORWARDER {
                self.cost.spent += thread_time() - start;
            }
            self.take(node, turn);
        }
        busy
    }

    fn take(&mut self, node: usize, turn: Turn) {
        for (peer, message) in turn.send {
            if let (FORWARDER, Message::CommitmentSigned(message)) = (node, &message) {
                self.cost.commitments_out += 1;
                self.cost.htlcs_signed += message.htlc_signatures.len() as u64;
            }
            let to = self.ids.iter().position(|id| *id == peer).expect("one of the nodes");
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
                node_id: self.ids[FORWARDER],
                short_channel_id: scids[0],
                amount: Msat(self.amount.0 + 2_000),
                cltv_expiry: BlockHeight(HEIGHT.0 + 60),
            },
            RouteHop {
                node_id: self.ids[to],
                short_channel_id: scids[1],
                amount: self.amount,
                cltv_expiry: BlockHeight(HEIGHT.0 + 20),
            },
        ];
        let recipient = Recipient { keysend_preimage: Some(preimage), ..Recipient::default() };
        let payment =
            OutgoingPayment::new(&session_key, payment_hash, &route, &recipient).expect("two hops fit");
        self.inputs[from].push(Input::Command(Command::SendHtlc(SendHtlc::new(self.attempts, &payment))));
        self.attempts += 1;
    }

    /// How many more HTLCs may be sent: `in_flight` less the unsettled, or less where channels lack free slots.
    fn room(&self, begun: u64, done: u64, in_flight: u64) -> u64 {
        let room = in_flight.saturating_sub((self.attempts - begun) - (self.settled - done));
        if in_flight < 200 {
            return room;
        }
        let taken = self.shards[FORWARDER]
            .channels()
            .take(2)
            .map(|channel| channel.in_flight(Side::Local).0.max(channel.in_flight(Side::Remote).0));
        room.min(SLOTS.min(in_flight as usize).saturating_sub(taken.max().unwrap_or(0)) as u64)
    }

    /// A node of the line.
    #[must_use]
    pub fn shard(&self, node: usize) -> &Shard {
        &self.shards[node]
    }

    /// How many turns are recorded.
    #[must_use]
    pub fn recorded_turns(&self) -> usize {
        self.record.as_ref().map_or(0, Vec::len)
    }

    /// Makes `payments`, `in_flight` at a time; returns the forwarder's cost.
    pub fn forward(
        &mut self,
        payments: u64,
        in_flight: u64,
        schedule: Schedule,
        left_to_right: bool,
    ) -> Cost {
        let (begun, done) = (self.attempts, self.settled);
        self.cost = Cost { payments, ..Cost::default() };
        while self.settled - done < payments {
            let at_rest = self.attempts - begun == self.settled - done;
            if schedule == Schedule::ClosedLoop || at_rest {
                let room = self.room(begun, done, in_flight).min(payments - (self.attempts - begun));
                for _ in 0..room {
                    self.pay(left_to_right);
                }
            }
            assert!(self.step(), "the line came to rest with payments open");
            if schedule == Schedule::Waves {
                self.rest();
            }
        }
        self.rest();
        self.cost
    }

    /// Advances the clock until no shard has a timer. Later turns cannot be replayed: [`replay`] keeps the time fixed.
    pub fn settle(&mut self) {
        while let Some(at) = self.shards.iter().filter_map(Shard::wake_at).min() {
            self.now = self.now.max(at);
            self.inputs.iter_mut().for_each(|inputs| inputs.push(Input::Wake));
            self.rest();
        }
    }

    /// The inputs of all turns of the forwarder so far.
    #[must_use]
    pub fn into_record(self) -> Vec<Vec<Input>> {
        self.record.unwrap_or_default()
    }
}

/// Replays the turns of [`ForwardingLine::into_record`] on a new forwarder. Returns the CPU time of the turns from
/// number `from` on. Profile this function: only the forwarder runs in it.
#[must_use]
pub fn replay(record: Vec<Vec<Input>>, from: usize) -> Duration {
    let mut shard = new_shard(FORWARDER);
    let mut start = thread_time();
    for (number, inputs) in record.into_iter().enumerate() {
        if number == from {
            start = thread_time();
        }
        let _executed_by_nobody = shard.turn(inputs, START);
    }
    thread_time() - start
}

/// Restores the shard of a node of the line from the chunks of its checkpoint.
#[must_use]
pub fn restored(node: usize, chunks: &[Vec<u8>]) -> Shard {
    let (seed, config) = identity(node);
    let mut restoring = Restoring::new(seed, config);
    chunks.iter().for_each(|chunk| restoring.chunk(chunk).expect("a checkpoint of this node"));
    restoring.finish().expect("a whole checkpoint").shard
}

/// A shard without peers or channels.
fn new_shard(node: usize) -> Shard {
    let (seed, config) = identity(node);
    Shard::new(seed, config)
}

/// The seed and the settings of a node.
fn identity(node: usize) -> (NodeSeed, NodeConfig) {
    let seed = [node as u8 + 1; 32];
    let script = [[0, 20].as_slice(), &seed[..20]].concat();
    let mut config = NodeConfig::new(ChainHash::REGTEST, script);
    config.channel.minimum_depth = 1;
    config.channels_per_peer_max = usize::MAX;
    config.unfunded_channels_per_peer_max = usize::MAX;
    config.unconfirmed_channels_per_peer_max = usize::MAX;
    config.unconfirmed_channels_max = usize::MAX;
    (NodeSeed::new(seed), config)
}

/// The short channel id of the channel with this number.
const fn scid(number: u32) -> Scid {
    Scid((number as u64 + 1) << 40)
}

/// The CPU time of this thread.
#[must_use]
pub fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32)
}

fn funding_transaction(number: u64, amount: Sat, script: ScriptBuf) -> Transaction {
    let mut previous = [1; 32];
    previous[..8].copy_from_slice(&number.to_be_bytes());
    let previous_output = OutPoint::new(bitcoin::Txid::from_byte_array(previous), 0);
    let (script_sig, witness) = (ScriptBuf::new(), Witness::new());
    Transaction {
        version: bitcoin::transaction::Version::TWO,
        lock_time: bitcoin::absolute::LockTime::ZERO,
        input: vec![TxIn { previous_output, script_sig, sequence: Sequence::MAX, witness }],
        output: vec![TxOut { value: Amount::from_sat(amount.0), script_pubkey: script }],
    }
}
