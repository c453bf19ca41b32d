//! Three engines in a line, and the network that carries messages and blocks between them.
//!
//! Owns delivery: in the order of a plain loop for engines without threads, as it comes for those with. The chain has
//! no consensus: a block holds every broadcast transaction.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use bitcoin::block::{Header, Version};
use bitcoin::hashes::Hash;
use bitcoin::{
    Amount, Block, BlockHash, CompactTarget, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxMerkleNode,
    TxOut, Txid, Witness,
};
use crossbeam::channel::{Receiver, unbounded};
use fulmen::Engine;
use fulmen::chain::ChainEvent;
use fulmen::proto::forward::{
    ChannelRef, Command, Event, NodeConfig, NodeDescription, Now, OpenChannelRequest, SendHtlc,
};
use fulmen::proto::keys::NodeSeed;
use fulmen::proto::payment::{OutgoingPayment, Recipient, RouteHop};
use fulmen::runtime::{Connection, Effects, EventId, ReceiveError, Storage, Unfinished};
use fulmen::wire::units::{
    BlockHeight, ChainHash, ChannelId, Msat, NodeId, PaymentHash, PaymentPreimage, Sat, Scid,
};
use secp256k1::SecretKey;
use sha2::{Digest, Sha256};
use tempfile::TempDir;

/// The fee of the middle for each payment.
pub(super) const FEE: Msat = Msat(2_000);
pub(super) const CAPACITY: Sat = Sat(100_000_000);
/// When engines without threads begin.
pub(super) const START: Now = Now { unix_ms: 1_700_000_000_000 };
/// How long nothing may happen in a network that has something to do.
const PATIENCE: Duration = Duration::from_secs(30);

/// How the engines run.
#[derive(Clone, Copy, Debug)]
pub(super) enum Drive {
    /// On the test's thread.
    Inline,
    /// On this many workers each.
    Threads(usize),
}

/// Outcomes of payments.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Settled {
    pub(super) settled: u64,
    pub(super) failed: u64,
}

/// An engine and everything it has said.
struct Member {
    engine: Engine,
    effects: Receiver<Effects>,
    events: Vec<Event>,
    /// Its connections with the others, by index.
    connections: [Option<Connection>; 3],
    /// Bytes that it had no credit for yet, by sender.
    refused: VecDeque<(usize, Vec<u8>)>,
}

/// Three nodes, the middle one with a channel to each of the others.
pub(super) struct Line {
    drive: Drive,
    /// The time, for engines without threads.
    now: Now,
    members: Vec<Member>,
    shards: [u16; 3],
    /// Where each member keeps its records, if anywhere.
    directories: Option<TempDir>,
    mempool: Vec<Transaction>,
    height: u32,
    channels: Vec<ChannelId>,
    scids: Vec<Scid>,
    attempts: u64,
    /// The durable events of the middle, each once, whichever process it was delivered by.
    handled: BTreeMap<EventId, Event>,
    /// Deliveries of events that had been handled before.
    repeated: usize,
}

impl Line {
    /// Opens both channels, half of each on either side. Nothing is kept.
    pub(super) fn new(drive: Drive, shards: u16) -> Line {
        Line::begin(drive, shards, None)
    }

    /// As [`Line::new`], with records on disk.
    pub(super) fn durable(drive: Drive, shards: u16) -> Line {
        Line::begin(drive, shards, Some(tempfile::tempdir().unwrap()))
    }

    fn begin(drive: Drive, shards: u16, directories: Option<TempDir>) -> Line {
        let (members, mempool, channels, scids) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let shards = [1, shards, 1];
        let (height, attempts) = (100, 0);
        let mut line = Line {
            drive,
            now: START,
            members,
            shards,
            directories,
            mempool,
            height,
            channels,
            scids,
            attempts,
            handled: BTreeMap::new(),
            repeated: 0,
        };
        line.members = (0..3).map(|member| line.start(member)).collect();
        for left in 0..2 {
            line.connect(left, left + 1);
            line.open(left);
        }
        line
    }

    /// Starts a member from its storage.
    fn start(&self, member: usize) -> Member {
        // The ids of the first and the third node fall into different shards of the middle one, if it has two.
        let seed = [1, 2, 4][member];
        let script = [[0x00, 0x14].as_slice(), &[seed; 20]].concat();
        let mut config = NodeConfig::new(ChainHash::REGTEST, script);
        config.channel.minimum_depth = 1;
        config.description = NodeDescription::new(&format!("member {member}"), [0; 3], &[]).ok();
        let storage = match &self.directories {
            Some(directories) => Storage::Directory(directories.path().join(member.to_string())),
            None => Storage::Nowhere,
        };
        let (sender, effects) = unbounded();
        let handler = move |effects| sender.send(effects).unwrap_or_default();
        let seed = NodeSeed::new([seed; 32]);
        let builder = Engine::builder(seed, config, storage).shards(self.shards[member]).keep_events();
        let engine = match self.drive {
            Drive::Inline => builder.inline(handler),
            Drive::Threads(workers) => builder.workers(workers).start(handler),
        };
        let (events, connections, refused) = (Vec::new(), [None; 3], VecDeque::new());
        let engine = engine.unwrap();
        engine.chain_in_step();
        Member { engine, effects, events, connections, refused }
    }

    /// The middle is killed at this point and restarts from its durable state.
    pub(super) fn crash_middle(&mut self) {
        for end in [0, 2] {
            let connection = self.members[end].connections[1].take().unwrap();
            self.members[end].engine.disconnected(connection);
            self.members[end].refused.clear();
        }
        // The store is locked while the old engine lives; its unsent messages are lost.
        let empty = self.start_nothing();
        drop(std::mem::replace(&mut self.members[1], empty));
        self.members[1] = self.start(1);
        self.connect(0, 1);
        self.connect(1, 2);
    }

    /// Something that stands in a member's place.
    fn start_nothing(&self) -> Member {
        let config = NodeConfig::new(ChainHash::REGTEST, Vec::new());
        let (sender, effects) = unbounded();
        let handler = move |effects| sender.send(effects).unwrap_or_default();
        let builder = Engine::builder(NodeSeed::new([9; 32]), config, Storage::Nowhere);
        let (events, connections, refused) = (Vec::new(), [None; 3], VecDeque::new());
        Member { engine: builder.inline(handler).unwrap(), effects, events, connections, refused }
    }

    pub(super) fn engine(&self, member: usize) -> &Engine {
        &self.members[member].engine
    }

    pub(super) fn events(&self, member: usize) -> impl Iterator<Item = &Event> {
        self.members[member].events.iter()
    }

    pub(super) fn id(&self, member: usize) -> NodeId {
        self.members[member].engine.id()
    }

    /// Connects two members, or connects them again.
    pub(super) fn connect(&mut self, one: usize, other: usize) {
        for (from, to) in [(one, other), (other, one)] {
            let (peer, init) = (self.id(from), self.members[from].engine.init());
            let connection = self.members[to].engine.connected(peer, &init).unwrap();
            self.members[to].connections[from] = Some(connection);
            self.members[to].refused.retain(|(said_by, _)| *said_by != from);
        }
    }

    fn open(&mut self, left: usize) {
        let (peer, push) = (self.id(left + 1), Msat(CAPACITY.to_msat().0 / 2));
        let open = OpenChannelRequest { peer, user_id: 1, capacity: CAPACITY, push, policy: None };
        self.members[left].engine.command(Command::OpenChannel(open)).unwrap();
        self.settle();
        let needed = self.members[left].events.iter().rev().find_map(|event| match event {
            Event::FundingNeeded { temporary_channel_id, amount, script, .. } => {
                Some((*temporary_channel_id, funding_transaction(left, *amount, script.clone())))
            }
            _ => None,
        });
        let (temporary_channel_id, transaction) = needed.unwrap();
        let fund = Command::FundingTransaction { temporary_channel_id, transaction };
        self.members[left].engine.command(fund).unwrap();
        self.settle();
        self.mine();
        self.settle();
        let ready = self.members[left].events.iter().rev().find_map(|event| match event {
            Event::ChannelReady { channel_id, scid, .. } => Some((*channel_id, *scid)),
            _ => None,
        });
        let (channel_id, scid) = ready.unwrap();
        self.channels.push(channel_id);
        self.scids.push(scid);
    }

    /// Connects a block with all broadcast transactions at every member.
    pub(super) fn mine(&mut self) {
        self.height += 1;
        let header = Header {
            version: Version::TWO,
            prev_blockhash: BlockHash::all_zeros(),
            merkle_root: TxMerkleNode::all_zeros(),
            time: self.height,
            bits: CompactTarget::from_consensus(0x207f_ffff),
            nonce: 0,
        };
        let block = Block { header, txdata: std::mem::take(&mut self.mempool) };
        let event = ChainEvent::Connected { height: BlockHeight(self.height), block: block.into() };
        self.members.iter().for_each(|member| member.engine.chain_event(&event));
    }

    /// The height of the chain.
    pub(super) fn height(&self) -> u32 {
        self.height
    }

    /// The places of the two channels in the chain.
    pub(super) fn scids(&self) -> &[Scid] {
        &self.scids
    }

    /// Each member's balance over its channels, HTLCs counted for the side that offered them.
    pub(super) fn balances(&self) -> [Msat; 3] {
        let local = |member: usize, channel: usize| {
            let channel = ChannelRef::Id(self.channels[channel]);
            self.engine(member).channel(channel, |channel| channel.balances().unwrap().0).unwrap()
        };
        [local(0, 0), local(1, 0).saturating_add(local(1, 1)), local(2, 1)]
    }

    /// Makes payments from one member to another, `in_flight` at a time.
    pub(super) fn pay(
        &mut self,
        payments: u64,
        in_flight: u64,
        amount: Msat,
        ends: (usize, usize),
    ) -> Settled {
        self.pay_through(payments, in_flight, amount, ends, 0)
    }

    /// As [`Line::pay`], while the middle node crashes `crashes` times, once all payments are under way.
    pub(super) fn pay_through(
        &mut self,
        payments: u64,
        in_flight: u64,
        amount: Msat,
        (from, to): (usize, usize),
        mut crashes: u32,
    ) -> Settled {
        let (mut begun, mut done, mut seen) = (0, Settled::default(), self.members[from].events.len());
        let mut moved = Instant::now();
        while done.settled + done.failed < payments {
            while begun < payments && begun - done.settled - done.failed < in_flight {
                self.begin_payment(amount, from, to);
                begun += 1;
            }
            if self.carry() {
                moved = Instant::now();
            }
            if begun == payments && crashes > 0 && done.settled + done.failed >= payments / 4 {
                crashes -= 1;
                self.crash_middle();
            }
            assert!(moved.elapsed() < PATIENCE, "{done:?} of {begun} payments are over, and nothing moves");
            for event in &self.members[from].events[seen..] {
                match event {
                    Event::HtlcSettled { .. } => done.settled += 1,
                    Event::HtlcFailed { .. } => done.failed += 1,
                    _ => {}
                }
            }
            seen = self.members[from].events.len();
        }
        self.settle();
        done
    }

    fn begin_payment(&mut self, amount: Msat, from: usize, to: usize) {
        self.attempts += 1;
        let mut bytes = [0x21; 32];
        bytes[24..].copy_from_slice(&self.attempts.to_be_bytes());
        let payment_hash = PaymentHash(Sha256::digest(bytes).into());
        let scids = if from == 0 { [self.scids[0], self.scids[1]] } else { [self.scids[1], self.scids[0]] };
        let hop = |node_id, short_channel_id, amount, blocks| {
            let cltv_expiry = BlockHeight(self.height + blocks);
            RouteHop { node_id, short_channel_id, amount, cltv_expiry }
        };
        let over_middle = [
            hop(self.id(1), scids[0], amount.saturating_add(FEE), 60),
            hop(self.id(to), scids[1], amount, 20),
        ];
        let to_middle = [hop(self.id(1), scids[0], amount, 20)];
        let route = if to == 1 { &to_middle[..] } else { &over_middle };
        let recipient = Recipient { keysend_preimage: Some(PaymentPreimage(bytes)), ..Recipient::default() };
        let session_key = SecretKey::from_slice(&bytes).unwrap();
        let payment = OutgoingPayment::new(&session_key, payment_hash, route, &recipient).unwrap();
        let send = SendHtlc::new(self.attempts, &payment);
        self.members[from].engine.command(Command::SendHtlc(send)).unwrap();
    }

    /// Carries on until nothing is under way and nothing waits for time to pass.
    pub(super) fn settle(&mut self) {
        let mut moved = Instant::now();
        loop {
            // A waiting or working engine may still emit effects: its effects are read after this check.
            let wake_at = self.wake_at();
            let idle = !self.members.iter().any(|member| member.engine.has_work());
            if self.carry() {
                moved = Instant::now();
            } else if idle {
                match wake_at {
                    None => return,
                    Some(at) => self.now = self.now.max(at),
                }
            }
            assert!(moved.elapsed() < PATIENCE, "an engine has work and does none");
        }
    }

    /// When the first shard that waits for time to pass will have waited enough.
    fn wake_at(&self) -> Option<Now> {
        let mut first: Option<Now> = None;
        for member in &self.members {
            member.engine.for_each_shard(|shard| first = first.into_iter().chain(shard.wake_at()).min());
        }
        first
    }

    /// Delivers queued messages; returns whether there were any.
    fn carry(&mut self) -> bool {
        let mut moved = false;
        for from in 0..3 {
            if let Drive::Inline = self.drive {
                self.members[from].engine.step(self.now);
            }
            let effects: Vec<Effects> = self.members[from].effects.try_iter().collect();
            for effects in effects {
                moved = true;
                self.execute(from, effects);
            }
            moved |= self.deliver_refused(from);
        }
        if !moved {
            std::thread::yield_now();
        }
        moved
    }

    fn execute(&mut self, from: usize, effects: Effects) {
        if from == 1 {
            self.handle(&effects);
        }
        let Effects { send, disconnect, broadcast, events, .. } = effects;
        for (connection, bytes) in send {
            let to = (0..3).find(|to| self.id(*to) == connection.peer).unwrap();
            if self.members[from].connections[to] == Some(connection) {
                self.deliver(from, to, bytes);
            }
        }
        assert_eq!(disconnect, [], "nobody here has a reason to hang up");
        self.mempool.extend(broadcast);
        for event in &events {
            let is_trouble = matches!(
                event,
                Event::ChannelFailed { .. } | Event::CommandRefused { .. } | Event::PeerWarning { .. }
            );
            assert!(!is_trouble, "node {from}: {event:?}");
        }
        self.members[from].events.extend(events);
    }

    /// Handles each durable event of the middle once, and acknowledges two of three turns.
    fn handle(&mut self, effects: &Effects) {
        for (id, event) in effects.numbered_events() {
            let Some(id) = id else { continue };
            if let Some(before) = self.handled.insert(id, event.clone()) {
                assert_eq!(before, *event, "{id:?} is another event");
                self.repeated += 1;
            }
        }
        if let Some(last) = effects.last_event.filter(|last| !last.number.is_multiple_of(3)) {
            self.members[1].engine.acknowledge(last);
        }
    }

    /// The durable events of the middle so far, each once.
    pub(super) fn handled(&self) -> impl Iterator<Item = &Event> {
        self.handled.values()
    }

    /// Acknowledges everything, restarts the middle, and counts the events it delivers again.
    pub(super) fn repeated_after_acknowledging(&mut self) -> usize {
        self.settle();
        for last in self.handled.keys().copied().collect::<Vec<_>>() {
            self.members[1].engine.acknowledge(last);
        }
        self.settle();
        self.members[1].engine.shutdown().unwrap();
        self.crash_middle();
        let before = self.repeated;
        self.settle();
        self.repeated - before
    }

    /// Hands bytes of one member to another, now or once there is credit for them.
    pub(super) fn deliver(&mut self, from: usize, to: usize, bytes: Vec<u8>) {
        let member = &mut self.members[to];
        let waits = member.refused.iter().any(|(said_by, _)| *said_by == from);
        let connection = member.connections[from].unwrap();
        match if waits {
            Err(ReceiveError::WouldBlock { accepted: 0 })
        } else {
            member.engine.receive(connection, &bytes)
        } {
            Ok(()) => {}
            Err(ReceiveError::WouldBlock { accepted: 0 }) => member.refused.push_back((from, bytes)),
            Err(error) => panic!("node {to} does not take what node {from} says: {error}"),
        }
    }

    /// Offers again the bytes that lacked credit.
    fn deliver_refused(&mut self, to: usize) -> bool {
        let refused = std::mem::take(&mut self.members[to].refused);
        let waiting = refused.len();
        for (from, bytes) in refused {
            self.deliver(from, to, bytes);
        }
        self.members[to].refused.len() < waiting
    }

    pub(super) fn shutdown(self) -> Vec<Unfinished> {
        self.members.iter().map(|member| member.engine.shutdown().unwrap()).collect()
    }
}

fn funding_transaction(number: usize, amount: Sat, script_pubkey: ScriptBuf) -> Transaction {
    let previous_output = OutPoint::new(Txid::from_byte_array([number as u8 + 1; 32]), 0);
    let (script_sig, witness) = (ScriptBuf::new(), Witness::new());
    Transaction {
        version: bitcoin::transaction::Version::TWO,
        lock_time: bitcoin::absolute::LockTime::ZERO,
        input: vec![TxIn { previous_output, script_sig, sequence: Sequence::MAX, witness }],
        output: vec![TxOut { value: Amount::from_sat(amount.0), script_pubkey }],
    }
}
