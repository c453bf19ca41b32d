//! One forwarder between ends that pay each other over it: delivery, the chain, the load, and the counters.
//!
//! Messages move in lockstep rounds, for every forwarder alike: a round collects the messages of all members that may
//! have some, delivers them all, then lets the recipients process them. Their answers travel in the next round. The
//! order depends on the members' messages only.
//!
//! Signatures and commitments are counted on the wire, so that no forwarder counts for itself.

use std::collections::HashMap;

use bitcoin::absolute::LockTime;
use bitcoin::block::{Block, Header, Version};
use bitcoin::constants::genesis_block;
use bitcoin::hashes::Hash;
use bitcoin::{BlockHash, CompactTarget, Network, Transaction, TxIn, TxMerkleNode};
use fulmen::wire::units::{NodeId, Scid};

use super::clock::wall_ns;
use super::member::{Endpoint, Forwarder, Member, Payment, Usage};

/// The chain's height at the start: LDK derives the scid aliases of its channels from lower heights.
pub(super) const HEIGHT: u32 = 800_000;
/// How many channels are opened at once: a forwarder's queues are bounded.
const OPENINGS: usize = 250;
/// The blocks over the fundings: enough for every channel to be ready and settled in its ways.
const DEPTH: u32 = 8;

/// A forwarder and its ends.
pub(super) struct Net {
    forwarder: Box<dyn Forwarder>,
    ends: Vec<Box<dyn Endpoint>>,
    index: HashMap<NodeId, usize>,
    scids: Vec<Scid>,
    tip: BlockHash,
    height: u32,
    /// Who may have something to send: members by index, the forwarder is 0 and end `i` is `i + 1`.
    dirty: Vec<usize>,
    is_dirty: Vec<bool>,
    counts: Counts,
    draws: u64,
}

/// The work of one trial.
#[derive(Clone, Copy, Debug)]
pub(super) struct Load {
    pub(super) in_flight: usize,
    pub(super) payments: usize,
    /// Whether `in_flight` payments are sent at once, and the next only when all are settled; else a new payment
    /// follows each settled one.
    pub(super) waves: bool,
    pub(super) amount_msat: u64,
    /// From the second half of the ends to the first.
    pub(super) backwards: bool,
}

/// The result of one trial; counts are totals.
#[derive(Clone, Debug)]
pub(super) struct Trial {
    pub(super) payments: usize,
    pub(super) usage: Usage,
    pub(super) commitments_in: u64,
    pub(super) commitments_out: u64,
    pub(super) signatures_in: u64,
    pub(super) signatures_out: u64,
    /// For each HTLC the forwarder's time from the `revoke_and_ack` that made it irrevocable to offering it on.
    pub(super) offered_ns: Vec<u64>,
    /// For each HTLC the forwarder's time from its `update_add_htlc` to its `update_fulfill_htlc`, all messages between
    /// included, the ends' time left out.
    pub(super) held_ns: Vec<u64>,
}

/// Counters of the forwarder's wires.
#[derive(Default)]
struct Counts {
    /// The wall-clock time spent in calls of the forwarder so far.
    forwarder_ns: u64,
    commitments: [u64; 2],
    signatures: [u64; 2],
    /// By end: when its last `revoke_and_ack` was delivered.
    revoked: Vec<u64>,
    /// By channel and id of the HTLC that came in: when it did.
    added: HashMap<([u8; 32], u64), u64>,
    /// By payment hash: the end it came from.
    payers: HashMap<[u8; 32], usize>,
    offered_ns: Vec<u64>,
    held_ns: Vec<u64>,
}

impl Net {
    /// Opens a channel between `forwarder` and every end. The first `active` ends take part in payments; the others go
    /// silent, with their channels open.
    pub(super) fn new(forwarder: Box<dyn Forwarder>, ends: Vec<Box<dyn Endpoint>>, active: usize) -> Net {
        let mut index: HashMap<NodeId, usize> = ends.iter().zip(1..).map(|(end, i)| (end.id(), i)).collect();
        index.insert(forwarder.id(), 0);
        let mut net = Net {
            is_dirty: vec![false; ends.len() + 1],
            counts: Counts { revoked: vec![0; ends.len()], ..Counts::default() },
            forwarder,
            ends,
            index,
            scids: Vec::new(),
            tip: genesis_block(Network::Regtest).block_hash(),
            height: HEIGHT,
            dirty: Vec::new(),
            draws: 0,
        };
        net.open();
        net.ends.truncate(active);
        net.scids = net.ends.iter().map(|end| end.scid().expect("its channel is usable")).collect();
        net
    }

    fn open(&mut self) {
        let mut transactions = Vec::new();
        for first in (0..self.ends.len()).step_by(OPENINGS) {
            for i in first..self.ends.len().min(first + OPENINGS) {
                let (end, forwarder) = (&mut self.ends[i], &mut self.forwarder);
                let (forwarder_init, end_init) = (forwarder.init(), end.init());
                forwarder.connected(end.id(), &end_init, false);
                end.connected(forwarder.id(), &forwarder_init, true);
                forwarder.open(end.id(), i as u64 + 1);
                self.mark(i + 1);
            }
            self.mark(0);
            self.settle();
            transactions.extend(self.forwarder.fundings());
        }
        assert_eq!(transactions.len(), self.ends.len(), "every channel is funded");
        self.connect_block(transactions);
        for _ in 0..DEPTH {
            self.connect_block(Vec::new());
        }
    }

    fn connect_block(&mut self, mut transactions: Vec<Transaction>) {
        transactions.insert(0, coinbase(self.height));
        let header = Header {
            version: Version::NO_SOFT_FORK_SIGNALLING,
            prev_blockhash: self.tip,
            merkle_root: TxMerkleNode::all_zeros(),
            time: 1_700_000_000 + self.height,
            bits: CompactTarget::from_consensus(0x207f_ffff),
            nonce: 0,
        };
        let block = Block { header, txdata: transactions };
        self.height += 1;
        self.tip = block.block_hash();
        for i in 0..=self.ends.len() {
            let height = self.height;
            self.member(i).block(&block, height);
            self.mark(i);
        }
        self.settle();
    }

    /// Makes the payments of one trial and lets everything come to rest.
    pub(super) fn run(&mut self, load: Load) -> Trial {
        let settled = self.settled();
        let before = self.forwarder.usage();
        let (commitments, signatures) = (self.counts.commitments, self.counts.signatures);
        self.counts.offered_ns.clear();
        self.counts.held_ns.clear();
        let mut sent = 0;
        loop {
            let done = self.settled() - settled;
            let room = self.room(load, sent - done);
            let now = room.min(load.payments - sent);
            for _ in 0..now {
                self.pay(load, sent);
                sent += 1;
            }
            if load.waves {
                self.settle();
                if sent == load.payments {
                    break;
                }
            } else if !self.round() && now == 0 {
                assert_eq!(sent, load.payments, "the net came to rest with payments unsent");
                break;
            }
        }
        assert_eq!(self.settled() - settled, load.payments, "every payment arrives");
        let after = self.forwarder.usage();
        Trial {
            payments: load.payments,
            usage: Usage {
                cpu_ns: after.cpu_ns - before.cpu_ns,
                syncs: after.syncs - before.syncs,
                bytes_written: after.bytes_written - before.bytes_written,
            },
            commitments_in: self.counts.commitments[0] - commitments[0],
            commitments_out: self.counts.commitments[1] - commitments[1],
            signatures_in: self.counts.signatures[0] - signatures[0],
            signatures_out: self.counts.signatures[1] - signatures[1],
            offered_ns: std::mem::take(&mut self.counts.offered_ns),
            held_ns: std::mem::take(&mut self.counts.held_ns),
        }
    }

    /// How many payments may be sent now. An HTLC keeps its place in a channel for a while after its payment is done;
    /// near the 483 that a channel holds, places are counted instead of payments.
    fn room(&self, load: Load, unfinished: usize) -> usize {
        if load.waves && unfinished > 0 {
            return 0;
        }
        let room = load.in_flight.saturating_sub(unfinished);
        if room == 0 || load.in_flight / (self.ends.len() / 2) <= 200 {
            return room;
        }
        let taken = self.ends.iter().map(|end| end.htlcs()).max().unwrap_or(0);
        room.min(load.in_flight.saturating_sub(taken))
    }

    fn pay(&mut self, load: Load, number: usize) {
        let half = self.ends.len() / 2;
        let (payers, payees) = if load.backwards { (half, 0) } else { (0, half) };
        let payer = payers + number % half;
        let payee = payees + self.draw(half);
        let (payment_hash, payment_secret) = self.ends[payee].invoice();
        let payment = Payment {
            forwarder: self.forwarder.id(),
            payee: self.ends[payee].id(),
            payee_scid: self.scids[payee],
            amount_msat: load.amount_msat,
            payment_hash,
            payment_secret,
            height: self.height,
        };
        self.ends[payer].pay(&payment);
        self.mark(payer + 1);
        self.mark(payee + 1);
    }

    fn settled(&self) -> usize {
        self.ends.iter().map(|end| end.settled() as usize).sum()
    }

    fn settle(&mut self) {
        while self.round() {}
    }

    /// Runs one round; returns false when no member has work left.
    fn round(&mut self) -> bool {
        let asked = std::mem::take(&mut self.dirty);
        let mut under_way = Vec::new();
        for &from in &asked {
            self.is_dirty[from] = false;
            let sent = self.timed(from, |member| member.poll());
            under_way.extend(sent.into_iter().map(|(to, message)| (from, to, message)));
        }
        let mut busy = !under_way.is_empty();
        for (from, to, message) in under_way {
            // The peer of an idle channel is gone by now.
            let Some(&to) = self.index.get(&to).filter(|to| **to <= self.ends.len()) else { continue };
            if to == 0 {
                self.counts.received(from - 1, &message);
            } else if from == 0 {
                self.counts.sent(&message);
            }
            let from = self.member(from).id();
            self.timed(to, |member| member.receive(from, &message));
            self.mark(to);
        }
        let mut all = asked;
        all.extend(&self.dirty);
        all.sort_unstable();
        all.dedup();
        for member in all {
            if self.timed(member, |member| member.work()) {
                self.mark(member);
                busy = true;
            }
        }
        busy
    }

    fn timed<T>(&mut self, member: usize, call: impl FnOnce(&mut dyn Member) -> T) -> T {
        if member > 0 {
            return call(self.member(member));
        }
        let start = wall_ns();
        let result = call(&mut *self.forwarder);
        self.counts.forwarder_ns += wall_ns() - start;
        result
    }

    fn mark(&mut self, member: usize) {
        if !self.is_dirty[member] {
            self.is_dirty[member] = true;
            self.dirty.push(member);
        }
    }

    fn member(&mut self, index: usize) -> &mut dyn Member {
        match index.checked_sub(1) {
            None => &mut *self.forwarder,
            Some(end) => &mut *self.ends[end],
        }
    }

    /// A number below `bound`, the same in every run.
    fn draw(&mut self, bound: usize) -> usize {
        self.draws =
            self.draws.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.draws >> 33) as usize % bound
    }
}

impl Counts {
    /// A message is about to be delivered to the forwarder.
    fn received(&mut self, from: usize, message: &[u8]) {
        self.count_commitment(0, message);
        match message_type(message) {
            UPDATE_ADD_HTLC => {
                self.added.insert(htlc(message), self.forwarder_ns);
                self.payers.insert(payment_hash(message), from);
            }
            REVOKE_AND_ACK => self.revoked[from] = self.forwarder_ns,
            _ => {}
        }
    }

    /// The forwarder sent a message.
    fn sent(&mut self, message: &[u8]) {
        self.count_commitment(1, message);
        match message_type(message) {
            UPDATE_ADD_HTLC => {
                if let Some(payer) = self.payers.remove(&payment_hash(message)) {
                    self.offered_ns.push(self.forwarder_ns - self.revoked[payer]);
                }
            }
            UPDATE_FULFILL_HTLC => {
                if let Some(added) = self.added.remove(&htlc(message)) {
                    self.held_ns.push(self.forwarder_ns - added);
                }
            }
            _ => {}
        }
    }

    fn count_commitment(&mut self, direction: usize, message: &[u8]) {
        if message_type(message) == COMMITMENT_SIGNED {
            self.commitments[direction] += 1;
            // After the type, the channel and the commitment's own signature: how many HTLCs are signed.
            self.signatures[direction] += u64::from(u16::from_be_bytes([message[98], message[99]]));
        }
    }
}

const UPDATE_ADD_HTLC: u16 = 128;
const UPDATE_FULFILL_HTLC: u16 = 130;
const COMMITMENT_SIGNED: u16 = 132;
const REVOKE_AND_ACK: u16 = 133;

fn message_type(message: &[u8]) -> u16 {
    u16::from_be_bytes([message[0], message[1]])
}

/// The channel and id that name an HTLC in `update_add_htlc` and `update_fulfill_htlc`.
fn htlc(message: &[u8]) -> ([u8; 32], u64) {
    let channel_id = message[2..34].try_into().expect("32 bytes");
    (channel_id, u64::from_be_bytes(message[34..42].try_into().expect("8 bytes")))
}

/// The `payment_hash` of an `update_add_htlc`, behind channel, id and amount.
fn payment_hash(message: &[u8]) -> [u8; 32] {
    message[50..82].try_into().expect("32 bytes")
}

/// The first transaction of the block above `height`; it only keeps the fundings from standing first.
fn coinbase(height: u32) -> Transaction {
    Transaction {
        version: bitcoin::transaction::Version::TWO,
        lock_time: LockTime::from_consensus(height),
        input: vec![TxIn::default()],
        output: vec![],
    }
}
