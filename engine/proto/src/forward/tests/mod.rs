//! A network of shards in memory: every message travels as bytes, every turn's record is kept and replayed.
//!
//! Owns the harness, [`Net`]; the scenarios stand in the files beside it. It checks after every scenario: both
//! ends of a channel agree on its balances, no channel gains or loses a millisatoshi, and nothing is left pending.

mod announcing;
mod batching;
mod budgets;
mod channel_updates;
mod closing;
mod deadlines;
mod doubt;
mod failures;
mod feerates;
mod frozen;
mod handoffs;
mod hostile;
mod links;
mod overdue;
mod payments;
mod policies;
mod receiving;
mod records;
mod reorganisations;
mod send_bounds;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bitcoin::hashes::Hash;
use bitcoin::{Amount, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Witness};
use fulmen_wire::message::Message;
use fulmen_wire::units::{
    BlockHeight, ChainHash, ChannelId, CltvDelta, Msat, NodeId, PaymentHash, PaymentPreimage, PaymentSecret,
    Sat, Scid, Txid,
};
use secp256k1::SecretKey;
use sha2::{Digest, Sha256};

use super::{
    ChannelRef, Command, Confirmation, Event, ExpectedPayment, FailureReason, ForwardingPolicy, Input,
    NodeConfig, Now, OpenChannelRequest, Record, Restored, Restoring, SendHtlc, Shard, Turn, local_features,
};
use crate::forward::state::checkpoint::ChunkSize;
use crate::keys::NodeSeed;
use crate::onion::{Failure, PaymentData, ReturnedFailure};
use crate::payment::{OutgoingPayment, Recipient, RouteHop};

const CAPACITY: Sat = Sat(10_000_000);
const START: BlockHeight = BlockHeight(100);

/// Shards, the links between them, and the messages under way.
struct Net {
    shards: Vec<Shard>,
    seeds: Vec<NodeSeed>,
    /// Two shards that are one node.
    siblings: Option<(usize, usize)>,
    ids: Vec<NodeId>,
    /// Messages under way, by sender and receiver.
    wires: BTreeMap<(usize, usize), VecDeque<Vec<u8>>>,
    up: BTreeSet<(usize, usize)>,
    inputs: Vec<Vec<Input>>,
    events: Vec<Vec<Event>>,
    records: Vec<Vec<Record>>,
    /// Checkpoints of each node, with the number of records they stand for.
    checkpoints: Vec<Vec<(usize, Vec<Vec<u8>>)>>,
    /// Peers that shards asked to be disconnected from, when a scenario expects it.
    dropped: Option<Vec<(usize, NodeId)>>,
    channels: Vec<NetChannel>,
    attempts: BTreeMap<u64, OutgoingPayment>,
    now: Now,
    height: BlockHeight,
    /// Whether deferred commitments stay deferred when nothing else is under way.
    still: bool,
}

/// A channel of the network, from the one who opened it to the other.
#[derive(Clone, Copy)]
struct NetChannel {
    ends: (usize, usize),
    scid: Scid,
    channel_id: ChannelId,
}

/// The outcome of an attempt, as its sender reads it.
#[derive(Clone, Debug, PartialEq)]
enum Outcome {
    Settled(PaymentPreimage),
    /// The node at this place of the route (zero is the first after the sender) reports this.
    Failed(usize, Failure),
    Malformed(u16),
    Local,
}

impl Net {
    /// Nodes in a line, a channel between neighbours, each opened from the left with half pushed over.
    fn line(nodes: usize) -> Net {
        Net::line_with(nodes, |_, _| {})
    }

    fn line_with(nodes: usize, adjust: impl Fn(usize, &mut NodeConfig)) -> Net {
        let mut net = Net::unconnected(nodes, adjust);
        for left in 0..nodes - 1 {
            net.connect(left, left + 1);
            net.open(left, left + 1, CAPACITY, Msat(CAPACITY.to_msat().0 / 2));
        }
        net.events.iter_mut().for_each(Vec::clear);
        net
    }

    fn unconnected(nodes: usize, adjust: impl Fn(usize, &mut NodeConfig)) -> Net {
        let seeds = (0..nodes).map(|node| NodeSeed::new([node as u8 + 1; 32]));
        Net::of_seeds(seeds.collect(), adjust)
    }

    fn of_seeds(seeds: Vec<NodeSeed>, adjust: impl Fn(usize, &mut NodeConfig)) -> Net {
        let nodes = seeds.len();
        let shards: Vec<Shard> = seeds
            .iter()
            .enumerate()
            .map(|(node, seed)| {
                let mut script = vec![0, 20];
                script.extend([node as u8; 20]);
                let mut config = NodeConfig::new(ChainHash::REGTEST, script);
                config.channel.minimum_depth = 1;
                adjust(node, &mut config);
                Shard::new(seed.clone(), config)
            })
            .collect();
        let mut net = Net {
            seeds,
            siblings: None,
            ids: shards.iter().map(Shard::node_id).collect(),
            wires: BTreeMap::new(),
            up: BTreeSet::new(),
            inputs: vec![Vec::new(); nodes],
            events: vec![Vec::new(); nodes],
            records: vec![Vec::new(); nodes],
            checkpoints: vec![Vec::new(); nodes],
            dropped: None,
            channels: Vec::new(),
            attempts: BTreeMap::new(),
            now: Now { unix_ms: 1_000_000 },
            height: START,
            still: false,
            shards,
        };
        net.mine(START, &[]);
        net
    }

    fn connect(&mut self, one: usize, other: usize) {
        for (from, to) in [(one, other), (other, one)] {
            self.up.insert((from, to));
            let input = Input::connected(self.ids[to], local_features());
            self.inputs[from].push(input);
        }
        self.pump();
    }

    /// Breaks a link; messages under way on it are lost.
    fn cut(&mut self, one: usize, other: usize) {
        for (from, to) in [(one, other), (other, one)] {
            self.up.remove(&(from, to));
            self.wires.remove(&(from, to));
            self.inputs[from].push(Input::disconnected(self.ids[to]));
        }
        self.step();
    }

    fn open(&mut self, from: usize, to: usize, capacity: Sat, push: Msat) -> usize {
        let user_id = self.channels.len() as u64 + 1;
        let open = OpenChannelRequest { peer: self.ids[to], user_id, capacity, push, policy: None };
        self.command(from, Command::OpenChannel(open));
        let needed = self.events[from].iter().rev().find_map(|event| match event {
            Event::FundingNeeded { temporary_channel_id, amount, script, .. } => {
                Some((*temporary_channel_id, *amount, script.clone()))
            }
            _ => None,
        });
        let (temporary_channel_id, amount, script) = needed.expect("the peer accepts");
        let transaction = funding_transaction(user_id, amount, script);
        let txid = Txid(transaction.compute_txid().to_byte_array());
        let output = transaction.output[0].clone();
        self.command(from, Command::FundingTransaction { temporary_channel_id, transaction });
        let scid = Scid::new(START.0, user_id as u32, 0).expect("in range");
        let channel_id = ChannelId::from_funding(txid, 0);
        let height = BlockHeight(self.height.0 + 1);
        self.mine(height, &[Confirmation { txid, scid, depth: 6, output }]);
        self.channels.push(NetChannel { ends: (from, to), scid, channel_id });
        self.channels.len() - 1
    }

    fn mine(&mut self, height: BlockHeight, confirmations: &[Confirmation]) {
        self.height = height;
        for inputs in &mut self.inputs {
            inputs.push(Input::Block { height, confirmations: confirmations.to_vec() });
        }
        self.pump();
    }

    fn wait(&mut self, ms: u64) {
        self.now.unix_ms += ms;
        self.inputs.iter_mut().for_each(|inputs| inputs.push(Input::Tick));
        self.pump();
    }

    /// Advances the clock by `ms` milliseconds, and wakes the shards whose timers are due.
    fn wake_after(&mut self, ms: u64) {
        self.now.unix_ms += ms;
        self.wake();
        self.pump();
    }

    fn wake(&mut self) {
        for (shard, inputs) in self.shards.iter().zip(&mut self.inputs) {
            if shard.wake_at().is_some_and(|at| at <= self.now) {
                inputs.push(Input::Wake);
            }
        }
    }

    fn command(&mut self, node: usize, command: Command) {
        self.inputs[node].push(Input::Command(command));
        self.pump();
    }

    /// Runs turns until nothing is under way, and unless time stands still, nobody waits for a moment.
    fn pump(&mut self) {
        for _ in 0..10_000 {
            if self.step() {
                continue;
            }
            match self.shards.iter().filter_map(Shard::wake_at).min() {
                Some(at) if !self.still => {
                    self.now = self.now.max(at);
                    self.wake();
                }
                _ => return,
            }
        }
        panic!("the network does not come to rest");
    }

    /// Delivers all that is under way and gives each node with something to do one turn.
    fn step(&mut self) -> bool {
        let mut arrived = std::mem::take(&mut self.wires);
        for ((from, to), messages) in &mut arrived {
            for bytes in messages.drain(..) {
                let message = Message::decode(&bytes).expect("what a shard sends can be read");
                assert_eq!(message.encode(), bytes);
                self.inputs[*to].push(Input::message(self.ids[*from], message));
            }
        }
        let busy: Vec<usize> = (0..self.shards.len()).filter(|node| !self.inputs[*node].is_empty()).collect();
        for node in &busy {
            let inputs = std::mem::take(&mut self.inputs[*node]);
            let turn = self.shards[*node].turn(inputs, self.now);
            self.take_turn(*node, turn);
        }
        !busy.is_empty()
    }

    fn take_turn(&mut self, node: usize, turn: Turn) {
        match &mut self.dropped {
            Some(dropped) => dropped.extend(turn.disconnect.into_iter().map(|peer| (node, peer))),
            None => assert!(turn.disconnect.is_empty(), "node {node} drops a peer"),
        }
        for handoff in turn.handoffs {
            let (one, other) = self.siblings.expect("only siblings hand off");
            let to = if node == one { other } else { one };
            // Told twice, as after a restart: the second time changes nothing.
            self.inputs[to].extend([Input::Handoff(handoff.clone()), Input::Handoff(handoff)]);
        }
        if !turn.record.is_empty() {
            self.records[node].push(records::through_bytes(&turn.record));
            let checkpoint = self.shards[node].chunks(ChunkSize { aim: 500, max: 700 }).collect();
            self.checkpoints[node].push((self.records[node].len(), checkpoint));
        }
        for (peer, message) in turn.send {
            let linked = |to: &usize| self.ids[*to] == peer && self.up.contains(&(node, *to));
            if let Some(to) = (0..self.ids.len()).find(linked) {
                self.wires.entry((node, to)).or_default().push_back(message.encode());
            }
        }
        self.events[node].extend(turn.events);
    }

    /// The route from node to node, fees and expiries added up backwards as each node's default policy asks.
    fn route(&self, nodes: &[usize], amount: Msat, final_delta: u16) -> Vec<RouteHop> {
        let mut hops = Vec::new();
        let (mut amount, mut cltv_expiry) = (amount, self.height.saturating_add(CltvDelta(final_delta)));
        for pair in nodes.windows(2).rev() {
            let [from, to] = pair else { unreachable!("windows of two") };
            let channel = self.channel(*from, *to);
            let node_id = self.ids[*to];
            hops.push(RouteHop { node_id, short_channel_id: channel.scid, amount, cltv_expiry });
            let policy = ForwardingPolicy::default();
            amount = Msat(amount.0 + policy.fee(amount).0);
            cltv_expiry = cltv_expiry.saturating_add(policy.cltv_expiry_delta);
        }
        hops.reverse();
        hops
    }

    fn channel(&self, one: usize, other: usize) -> NetChannel {
        let between = |channel: &&NetChannel| channel.ends == (one, other) || channel.ends == (other, one);
        *self.channels.iter().find(between).expect("neighbours share a channel")
    }

    /// Queues an attempt without running the network.
    fn queue(&mut self, from: usize, hash: PaymentHash, route: &[RouteHop], recipient: &Recipient) -> u64 {
        let attempt_id = self.attempts.len() as u64;
        let mut key = [0x11; 32];
        key[24..].copy_from_slice(&attempt_id.to_be_bytes());
        let session_key = SecretKey::from_slice(&key).expect("a valid key");
        let payment = OutgoingPayment::new(&session_key, hash, route, recipient).expect("a route that fits");
        self.inputs[from].push(Input::Command(Command::SendHtlc(SendHtlc::new(attempt_id, &payment))));
        self.attempts.insert(attempt_id, payment);
        attempt_id
    }

    /// Sends an attempt and runs the network until it rests.
    fn send(&mut self, from: usize, hash: PaymentHash, route: &[RouteHop], recipient: &Recipient) -> u64 {
        let attempt_id = self.queue(from, hash, route, recipient);
        self.pump();
        attempt_id
    }

    /// Makes a hash payable at a node, and returns it with the payee's payload fields.
    fn invoice(&mut self, node: usize, number: u8, amount: Msat) -> (PaymentHash, Recipient) {
        let (preimage, payment_secret) = (PaymentPreimage([number; 32]), PaymentSecret([number ^ 0xff; 32]));
        let payment_hash = hash_of(preimage);
        let invoice = Command::ExpectPayment(ExpectedPayment {
            payment_hash,
            preimage,
            payment_secret,
            amount: Some(amount),
            min_final_cltv_expiry_delta: CltvDelta(18),
            expires_at_unix_ms: u64::MAX,
        });
        // A turn of its own, so that deferred commitments stay deferred.
        let turn = self.shards[node].turn([Input::Command(invoice)], self.now);
        self.take_turn(node, turn);
        let payment_data = Some(PaymentData { payment_secret, total_msat: amount });
        (payment_hash, Recipient { payment_data, ..Recipient::default() })
    }

    /// How an attempt ended; `None` while it has not. An attempt ends once.
    fn outcome(&self, from: usize, attempt: u64) -> Option<Outcome> {
        let mut ends = self.events[from].iter().filter_map(|event| match event {
            Event::HtlcSettled { attempt_id, preimage } if *attempt_id == attempt => {
                Some(Outcome::Settled(*preimage))
            }
            Event::HtlcFailed { attempt_id, reason } if *attempt_id == attempt => {
                Some(self.read(attempt, reason))
            }
            _ => None,
        });
        let end = ends.next();
        assert_eq!(ends.next(), None, "attempt {attempt} ended twice");
        end
    }

    fn read(&self, attempt: u64, reason: &FailureReason) -> Outcome {
        match reason {
            FailureReason::Malformed { failure_code } => Outcome::Malformed(*failure_code),
            FailureReason::Local(_) => Outcome::Local,
            FailureReason::Remote { packet } => match self.attempts[&attempt].read_failure(packet) {
                ReturnedFailure::From { hop, failure } => Outcome::Failed(hop, failure),
                ReturnedFailure::Unreadable => panic!("attempt {attempt} came back damaged"),
            },
        }
    }

    /// The balance of a node over all its channels.
    fn funds(&self, node: usize) -> Msat {
        let balances = self.shards[node].channels().filter_map(|channel| channel.balances());
        balances.map(|(ours, _)| ours).sum()
    }

    fn all_funds(&self) -> Vec<Msat> {
        (0..self.shards.len()).map(|node| self.funds(node)).collect()
    }

    /// Checks that both ends of each channel agree to the millisatoshi, that nothing is pending, and that folding the
    /// records gives the same state.
    fn check_at_rest(&self) {
        for NetChannel { ends, channel_id, .. } in &self.channels {
            let end = |node: usize| {
                let channel =
                    self.shards[node].channel(ChannelRef::Id(*channel_id)).expect("the channel lives");
                assert_eq!(channel.htlcs().count(), 0, "an HTLC is left at node {node}");
                channel.balances().expect("funded")
            };
            let (one, other) = (end(ends.0), end(ends.1));
            assert_eq!(one, (other.1, other.0), "the ends disagree");
            let capacity = one.0.checked_add(one.1).expect("no overflow");
            assert_eq!(capacity, CAPACITY.to_msat(), "money was made or lost");
        }
        for (node, shard) in self.shards.iter().enumerate() {
            let held = shard.occupancy();
            assert_eq!((held.circuits, held.offered, held.incomplete_sets), (0, 0, 0), "node {node}");
            assert_eq!(shard.unanswered_handoffs().count(), 0, "node {node}");
            self.check_restored(node, shard);
        }
    }

    /// Kills a node and brings it back from its records. Its links are down then.
    fn restart(&mut self, node: usize) {
        self.restart_with(node, Input::Tick);
    }

    /// As [`Net::restart`]; `first` becomes the node's first input.
    fn restart_with(&mut self, node: usize, first: Input) {
        let peers = self.kill(node);
        self.inputs[node].insert(0, first);
        for peer in peers {
            self.connect(node, peer);
        }
    }

    /// Kills a node and restores its shard; returns the peers it was connected to.
    fn kill(&mut self, node: usize) -> Vec<usize> {
        let peers: Vec<usize> = self.up.iter().filter(|(from, _)| *from == node).map(|(_, to)| *to).collect();
        for peer in &peers {
            for link in [(node, *peer), (*peer, node)] {
                self.up.remove(&link);
                self.wires.remove(&link);
            }
            self.inputs[*peer].push(Input::disconnected(self.ids[node]));
        }
        self.shards[node] = self.restored(node).shard;
        peers
    }

    /// A node's shard as its records give it back, and as some of its checkpoints and the records after them do.
    fn restored(&self, node: usize) -> Restored {
        let config = self.shards[node].config();
        let mut restored =
            Shard::restore(self.seeds[node].clone(), config.clone(), self.records[node].clone())
                .expect("its own records");
        let expected: Vec<Vec<u8>> = restored.shard.checkpoint().collect();
        let checkpoints = &self.checkpoints[node];
        // The last, and a few before it at growing distance.
        for back in [1, 2, 3, 5, 9, 17].into_iter().filter(|back| *back <= checkpoints.len()) {
            let (count, chunks) = &checkpoints[checkpoints.len() - back];
            let mut restoring = Restoring::new(self.seeds[node].clone(), config.clone());
            chunks.iter().for_each(|chunk| restoring.chunk(chunk).expect("its own checkpoint"));
            let records = self.records[node][*count..].iter().cloned();
            records.for_each(|record| restoring.record(record).expect("its own records"));
            let again = restoring.finish().expect("all that was stored");
            assert!(again.shard.checkpoint().eq(expected.iter().cloned()), "node {node}, {back} back");
            assert_eq!(again.broadcast, restored.broadcast);
            restored = again;
        }
        restored
    }

    /// Checks that the records of a node give back its shard.
    fn check_restored(&self, node: usize, shard: &Shard) {
        let restored = self.restored(node);
        assert_eq!(restored.broadcast, [], "node {node}");
        let restored_shard = restored.shard;
        assert_eq!(restored_shard.occupancy(), shard.occupancy(), "node {node}");
        let (now, then) = (&shard.state, &restored_shard.state);
        assert_eq!(
            (&now.circuits, &now.receiver, &now.replay),
            (&then.circuits, &then.receiver, &then.replay)
        );
        assert_eq!((&now.scids, now.next_key_index), (&then.scids, then.next_key_index));
        assert_eq!(now.node_announcement, then.node_announcement);
        for (live, restored) in shard.channels().zip(restored_shard.channels()) {
            assert_eq!(live.id(), restored.id());
            assert_eq!(live.balances(), restored.balances());
            assert_eq!(live.commitment_numbers(), restored.commitment_numbers());
            let name = ChannelRef::Id(live.id());
            assert_eq!(shard.policy(name), restored_shard.policy(name));
            let announcements = |shard: &Shard| shard.state.channels[&live.id()].announcements.clone();
            assert_eq!(announcements(shard), announcements(&restored_shard));
        }
    }

    fn count(&self, node: usize, wanted: impl Fn(&Event) -> bool) -> usize {
        self.events[node].iter().filter(|event| wanted(event)).count()
    }
}

fn hash_of(preimage: PaymentPreimage) -> PaymentHash {
    PaymentHash(Sha256::digest(preimage.0).into())
}

fn funding_transaction(number: u64, amount: Sat, script: ScriptBuf) -> Transaction {
    let mut previous = [0; 32];
    previous[..8].copy_from_slice(&number.to_le_bytes());
    Transaction {
        version: bitcoin::transaction::Version::TWO,
        lock_time: bitcoin::absolute::LockTime::ZERO,
        input: vec![TxIn {
            previous_output: OutPoint::new(bitcoin::Txid::from_byte_array(previous), 0),
            script_sig: ScriptBuf::new(),
            sequence: Sequence::MAX,
            witness: Witness::new(),
        }],
        output: vec![TxOut { value: Amount::from_sat(amount.0), script_pubkey: script }],
    }
}
