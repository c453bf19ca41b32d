//! Recorded runs: replays the messages of a forwarder's peers to an engine, so that only the forwarder works.
//!
//! Owns the recording and the player. A recording is made with real peers, one pair of payer and payee after the
//! other. Replaying it costs next to nothing, so that the peers take no core from the engine. Signing is deterministic,
//! and the engine has the seed of the recorded one: it sends the same answers, and the peers' signatures are valid.
//! Within a pair each step waits for all answers to the one before; the pairs do not wait for each other.
//!
//! Invariant: the engine does the same work as with live peers, every signature check included; a missing or additional
//! answer ends the run.

mod attacked;

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use bitcoin::constants::genesis_block;
use bitcoin::hashes::Hash;
use bitcoin::{Amount, Network, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Witness};
use crossbeam::channel::{Receiver, unbounded};
use fulmen::chain::ChainEvent;
use fulmen::runtime::{Connection, Effects, Engine, ReceiveError, Stats, Storage};
use fulmen_proto::forward::{Command, Event, NodeConfig, Now, OpenChannelRequest, SendHtlc};
use fulmen_proto::keys::NodeSeed;
use fulmen_proto::payment::{OutgoingPayment, Recipient, RouteHop};
use fulmen_wire::units::{BlockHeight, ChainHash, Msat, NodeId, PaymentHash, PaymentPreimage, Sat, Scid};
use rustix::time::{ClockId, clock_gettime};
use secp256k1::SecretKey;
use sha2::{Digest, Sha256};

pub use attacked::{Attacked, Phase};

use crate::line::thread_time;

const CAPACITY: Sat = Sat(100_000_000);
const AMOUNT: Msat = Msat(700_000);
const FEE: Msat = Msat(2_000);
const NOW: Now = Now { unix_ms: 1 };
const HEIGHT: BlockHeight = BlockHeight(1);
/// The time without an answer after which a replay fails.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// The messages of a forwarder's peers, and the number of its answers.
#[derive(Debug)]
pub struct Transcript {
    shards: u16,
    /// Each peer's id and `init`.
    ends: Vec<(NodeId, Vec<u8>)>,
    /// The steps that open the channels, one channel after the other.
    opening: Vec<Step>,
    /// The payments of each pair.
    pairs: Vec<Vec<Step>>,
    /// The first step of each round, pair by pair.
    rounds: Vec<Vec<usize>>,
    forwards: u64,
}

/// One input of the forwarder, and the number of messages that it answers with.
#[derive(Debug)]
struct Step {
    input: StepInput,
    answers: usize,
}

#[derive(Debug)]
enum StepInput {
    /// The index of an end, and messages it sends at once.
    Messages(usize, Vec<Vec<u8>>),
    /// A block that confirms the funding transactions.
    Block(ChainEvent),
}

/// The result of a run.
#[derive(Clone, Debug)]
pub struct Played {
    /// From the first payment's first message to the last one's last answer.
    pub took: Duration,
    /// The CPU time of the engine's threads meanwhile, kernel included.
    pub engine_cpu: Duration,
    /// The CPU time of the playing thread.
    pub player_cpu: Duration,
    /// The engine's counters, opening the channels included.
    pub stats: Stats,
}

/// The storage and the threads of the engine that a run is played to.
#[derive(Clone, Copy, Debug)]
pub struct Setup<'a> {
    /// The engine's worker threads.
    pub workers: usize,
    /// An empty directory for the store; without one nothing is stored.
    pub directory: Option<&'a Path>,
}

/// An engine without threads, and its effects.
struct Member {
    engine: Engine,
    effects: Receiver<Effects>,
    connections: HashMap<NodeId, Connection>,
    events: Vec<Event>,
}

/// The network that is recorded: member 0 forwards.
struct Recorder {
    members: Vec<Member>,
    index: HashMap<NodeId, usize>,
    /// Each end's messages that the forwarder has not received.
    pending: Vec<Vec<Vec<u8>>>,
    attempts: u64,
}

impl Transcript {
    /// Records `pairs` pairs of payer and payee; each pair makes `depth` payments at once, `rounds` times. The
    /// forwarder has the default number of shards of an engine with `workers` workers.
    #[must_use]
    pub fn record(workers: usize, pairs: usize, depth: u64, rounds: u64) -> Transcript {
        let shards = shards_of(workers);
        let mut recorder = Recorder::new(shards, 2 * pairs);
        let mut opening = Vec::new();
        let scids = recorder.open_all(&mut opening);
        let (pairs, rounds): (Vec<Vec<Step>>, Vec<Vec<usize>>) = (0..pairs)
            .map(|pair| {
                let (mut steps, mut begins) = (Vec::new(), Vec::new());
                for _ in 0..rounds {
                    begins.push(steps.len());
                    (0..depth).for_each(|_| recorder.pay(2 * pair + 1, 2 * pair + 2, &scids));
                    recorder.listen(2 * pair + 1);
                    recorder.exchange(&mut steps);
                }
                (steps, begins)
            })
            .unzip();
        let forwards = recorder.members[0].events.iter();
        let forwards = forwards.filter(|event| matches!(event, Event::Forwarded { .. })).count() as u64;
        assert_eq!(
            forwards,
            rounds.iter().map(Vec::len).sum::<usize>() as u64 * depth,
            "every payment arrives"
        );
        let ends = recorder.members[1..].iter().map(|end| (end.engine.id(), end.engine.init())).collect();
        Transcript { shards, ends, opening, pairs, rounds, forwards }
    }

    /// How many HTLCs are forwarded.
    #[must_use]
    pub const fn forwards(&self) -> u64 {
        self.forwards
    }

    /// Replays the recording to a new engine.
    #[must_use]
    pub fn play(&self, setup: Setup<'_>) -> Played {
        let player = self.player(setup);
        let pairs: Vec<&Vec<Step>> = self.pairs.iter().collect();
        let (start, player_start, process_start) = (Instant::now(), thread_time(), process_time());
        player.play(&pairs, |pair| pair);
        let (took, player_cpu) = (start.elapsed(), thread_time() - player_start);
        let engine_cpu = (process_time() - process_start).saturating_sub(player_cpu);
        let stats = player.engine.stats();
        player.engine.shutdown().expect("nothing has failed");
        Played { took, engine_cpu, player_cpu, stats }
    }

    /// A new engine, to which all channels have been opened.
    fn player(&self, setup: Setup<'_>) -> Player {
        let storage = setup.directory.map_or(Storage::Nowhere, |path| Storage::Directory(path.to_owned()));
        let mailbox = Arc::new(Mailbox::default());
        let engine = Engine::builder(NodeSeed::new(seed(0)), config(0), storage)
            .workers(setup.workers)
            .shards(self.shards)
            .start({
                let mailbox = Arc::clone(&mailbox);
                move |effects| mailbox.put(effects)
            })
            .expect("an empty storage starts");
        engine.chain_in_step();
        let connections: Vec<Connection> = self
            .ends
            .iter()
            .map(|(id, init)| engine.connected(*id, init).expect("the ends' init suits"))
            .collect();
        let pair_of = self.ends.iter().enumerate().map(|(end, (id, _))| (*id, end / 2)).collect();
        let player = Player { engine, mailbox, connections, pair_of };
        player.play(&[&self.opening], |_| 0);
        // Drains unanswered inputs: every shard has to know all channels before the first payment.
        while player.engine.has_work() {
            std::thread::yield_now();
        }
        player
    }
}

/// The engine's answers that the player has not received.
///
/// Waiting on it blocks at once. A crossbeam channel spins and yields first: where every core has a worker, a yielding
/// player queues for a core with nothing to do, and answers that arrive meanwhile are read only after the worker ahead
/// of it gives up its core.
#[derive(Default)]
struct Mailbox {
    said: Mutex<Vec<Effects>>,
    more: Condvar,
}

impl Mailbox {
    fn put(&self, effects: Effects) {
        self.said.lock().expect("nobody panics with it").push(effects);
        self.more.notify_one();
    }

    /// Blocks until there are answers and takes them all; empty after [`ANSWER_TIMEOUT`].
    fn take(&self) -> Vec<Effects> {
        self.take_within(ANSWER_TIMEOUT)
    }

    fn take_within(&self, timeout: Duration) -> Vec<Effects> {
        let said = self.said.lock().expect("nobody panics with it");
        let waited = self.more.wait_timeout_while(said, timeout, |said| said.is_empty());
        std::mem::take(&mut *waited.expect("nobody panics with it").0)
    }
}

/// An engine and the state of a replay to it.
struct Player {
    engine: Engine,
    mailbox: Arc<Mailbox>,
    connections: Vec<Connection>,
    pair_of: HashMap<NodeId, usize>,
}

impl Player {
    /// Replays several lines of steps concurrently; `line_of` maps a pair to the line that waits for its answers.
    fn play(&self, lines: &[&Vec<Step>], line_of: impl Fn(usize) -> usize) {
        let mut next = vec![0; lines.len()];
        let mut owed = vec![0_usize; lines.len()];
        let mut open = lines.len();
        for line in 0..lines.len() {
            open -= usize::from(self.feed(lines[line], &mut next[line], &mut owed[line]));
        }
        while open > 0 {
            let said = self.mailbox.take();
            assert!(
                !said.is_empty(),
                "{owed:?} answers are missing at steps {next:?}: {:?}",
                self.engine.stats().shards
            );
            for effects in said {
                assert_eq!(effects.disconnect, [], "the engine does not know what was recorded with it");
                for (connection, _) in effects.send {
                    let line = line_of(self.pair_of[&connection.peer]);
                    owed[line] = owed[line].checked_sub(1).expect("an answer that was not recorded");
                    if owed[line] == 0 {
                        open -= usize::from(self.feed(lines[line], &mut next[line], &mut owed[line]));
                    }
                }
            }
        }
    }

    /// Replays a line's next steps, up to the first that expects answers; true if the line has ended.
    fn feed(&self, line: &[Step], next: &mut usize, owed: &mut usize) -> bool {
        while let Some(step) = line.get(*next) {
            match &step.input {
                StepInput::Messages(end, messages) => self.say(self.connections[*end], messages),
                StepInput::Block(block) => self.engine.chain_event(block),
            }
            *next += 1;
            *owed = step.answers;
            if step.answers > 0 {
                return false;
            }
        }
        true
    }

    fn say(&self, connection: Connection, messages: &[Vec<u8>]) {
        let mut rest = messages;
        while !rest.is_empty() {
            match self.engine.receive_all(connection, rest.iter().map(Vec::as_slice)) {
                Ok(()) => return,
                Err(ReceiveError::WouldBlock { accepted }) => {
                    rest = &rest[accepted..];
                    std::thread::yield_now();
                }
                Err(error) => panic!("{error}"),
            }
        }
    }
}

impl Recorder {
    fn new(shards: u16, ends: usize) -> Recorder {
        let mut members: Vec<Member> =
            (0..=ends).map(|member| new_member(member, if member == 0 { shards } else { 1 })).collect();
        let index = members.iter().enumerate().map(|(member, node)| (node.engine.id(), member)).collect();
        for end in 1..=ends {
            for (one, other) in [(0, end), (end, 0)] {
                let (peer, init) = (members[other].engine.id(), members[other].engine.init());
                let connection = members[one].engine.connected(peer, &init).expect("they are alike");
                members[one].connections.insert(peer, connection);
            }
        }
        Recorder { members, index, pending: vec![Vec::new(); ends + 1], attempts: 0 }
    }

    /// Opens a channel from every end to the forwarder. Returns each channel's short channel id by member.
    fn open_all(&mut self, steps: &mut Vec<Step>) -> HashMap<usize, Scid> {
        let mut block = genesis_block(Network::Regtest);
        block.txdata.clear();
        let ends = 1..self.members.len();
        for end in ends.clone() {
            let (peer, push) = (self.members[0].engine.id(), Msat(CAPACITY.to_msat().0 / 2));
            let open = OpenChannelRequest { peer, user_id: 1, capacity: CAPACITY, push, policy: None };
            self.command(end, Command::OpenChannel(open));
            self.exchange(steps);
            let needed = self.members[end].events.drain(..).find_map(|event| match event {
                Event::FundingNeeded { temporary_channel_id, amount, script, .. } => {
                    Some((temporary_channel_id, funding_transaction(end, amount, script)))
                }
                _ => None,
            });
            let (temporary_channel_id, transaction) = needed.expect("the forwarder accepts");
            block.txdata.push(transaction.clone());
            self.command(end, Command::FundingTransaction { temporary_channel_id, transaction });
            self.exchange(steps);
        }
        let event = ChainEvent::Connected { height: HEIGHT, block: Arc::new(block) };
        self.members[0].engine.chain_event(&event);
        let answers = self.answers();
        steps.push(Step { input: StepInput::Block(event.clone()), answers });
        for end in ends.clone() {
            self.members[end].engine.chain_event(&event);
            self.listen(end);
        }
        self.exchange(steps);
        let place = |end: usize| {
            let ready = self.members[end].events.iter().find_map(|event| match event {
                Event::ChannelReady { scid, .. } => Some(*scid),
                _ => None,
            });
            (end, ready.expect("the channel is ready"))
        };
        ends.map(place).collect()
    }

    fn command(&mut self, end: usize, command: Command) {
        self.members[end].engine.command(command).expect("nothing else waits");
        self.listen(end);
    }

    /// Steps an end and keeps its messages.
    fn listen(&mut self, end: usize) {
        for effects in self.members[end].work() {
            self.pending[end].extend(effects.send.into_iter().map(|(_, bytes)| bytes));
        }
    }

    /// Steps the forwarder and delivers its answers to the ends. Returns the number of answers.
    fn answers(&mut self) -> usize {
        let mut answers = 0;
        let mut heard: Vec<usize> = Vec::new();
        for effects in self.members[0].work() {
            assert_eq!(effects.disconnect, [], "the ends are honest");
            for (connection, bytes) in effects.send {
                let end = self.index[&connection.peer];
                let member = &mut self.members[end];
                let connection = *member.connections.values().next().expect("an end has one connection");
                member.engine.receive(connection, &bytes).expect("there is credit for one answer");
                answers += 1;
                if heard.last() != Some(&end) {
                    heard.push(end);
                }
            }
        }
        heard.into_iter().for_each(|end| self.listen(end));
        answers
    }

    /// Exchanges messages until none is pending.
    fn exchange(&mut self, steps: &mut Vec<Step>) {
        while let Some(end) = self.pending.iter().position(|pending| !pending.is_empty()) {
            let messages = std::mem::take(&mut self.pending[end]);
            let peer = self.members[end].engine.id();
            let connection = self.members[0].connections[&peer];
            let said = messages.iter().map(Vec::as_slice);
            self.members[0].engine.receive_all(connection, said).expect("there is credit for one round");
            let answers = self.answers();
            steps.push(Step { input: StepInput::Messages(end - 1, messages), answers });
        }
    }

    /// Commands one payment; its messages follow with the next [`Recorder::listen`].
    fn pay(&mut self, from: usize, to: usize, scids: &HashMap<usize, Scid>) {
        self.attempts += 1;
        let mut bytes = [0x21; 32];
        bytes[24..].copy_from_slice(&self.attempts.to_be_bytes());
        let payment_hash = PaymentHash(Sha256::digest(bytes).into());
        let hop = |node_id, short_channel_id, amount, blocks| {
            let cltv_expiry = BlockHeight(HEIGHT.0 + blocks);
            RouteHop { node_id, short_channel_id, amount, cltv_expiry }
        };
        let route = [
            hop(self.members[0].engine.id(), scids[&from], AMOUNT.saturating_add(FEE), 60),
            hop(self.members[to].engine.id(), scids[&to], AMOUNT, 20),
        ];
        let recipient = Recipient { keysend_preimage: Some(PaymentPreimage(bytes)), ..Recipient::default() };
        let session_key = SecretKey::from_slice(&bytes).expect("a scalar");
        let payment =
            OutgoingPayment::new(&session_key, payment_hash, &route, &recipient).expect("two hops fit");
        let send = SendHtlc::new(self.attempts, &payment);
        self.members[from].engine.command(Command::SendHtlc(send)).expect("nothing else waits");
    }
}

impl Member {
    /// Steps the engine and keeps its events.
    fn work(&mut self) -> Vec<Effects> {
        self.engine.step(NOW);
        let mut said: Vec<Effects> = self.effects.try_iter().collect();
        for effects in &mut said {
            self.events.append(&mut effects.events);
        }
        said
    }
}

/// The CPU time of all threads of this process.
fn process_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32)
}

/// The default number of shards of an engine with `workers` workers.
fn shards_of(workers: usize) -> u16 {
    let builder = Engine::builder(NodeSeed::new(seed(0)), config(0), Storage::Nowhere).workers(workers);
    builder.start(|_: Effects| {}).expect("an engine without storage starts").shards()
}

fn new_member(member: usize, shards: u16) -> Member {
    let (sender, effects) = unbounded();
    let engine = Engine::builder(NodeSeed::new(seed(member)), config(member), Storage::Nowhere)
        .shards(shards)
        .inline(move |effects: Effects| sender.send(effects).unwrap_or_default())
        .expect("an engine without storage starts");
    engine.chain_in_step();
    Member { engine, effects, connections: HashMap::new(), events: Vec::new() }
}

fn seed(member: usize) -> [u8; 32] {
    let mut seed = [7; 32];
    seed[..8].copy_from_slice(&(member as u64).to_be_bytes());
    seed
}

fn config(member: usize) -> NodeConfig {
    let script = [[0, 20].as_slice(), &seed(member)[..20]].concat();
    let mut config = NodeConfig::new(ChainHash::REGTEST, script);
    config.channel.minimum_depth = 1;
    config
}

fn funding_transaction(number: usize, amount: Sat, script_pubkey: ScriptBuf) -> Transaction {
    let previous_output = OutPoint::new(bitcoin::Txid::from_byte_array(seed(number)), 0);
    let (script_sig, witness) = (ScriptBuf::new(), Witness::new());
    Transaction {
        version: bitcoin::transaction::Version::TWO,
        lock_time: bitcoin::absolute::LockTime::ZERO,
        input: vec![TxIn { previous_output, script_sig, sequence: Sequence::MAX, witness }],
        output: vec![TxOut { value: Amount::from_sat(amount.0), script_pubkey }],
    }
}
