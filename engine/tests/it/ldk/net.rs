//! Three nodes in a line over in-process links that carry serialized messages, and the blocks they all see.
//!
//! Owns delivery (one message at a time, in order per link), disconnection with loss of messages under way, and the
//! chain. The order of deliveries follows from the nodes' outputs alone.

use std::collections::{BTreeMap, VecDeque};
use std::sync::LazyLock;
use std::time::{SystemTime, UNIX_EPOCH};

use bitcoin::absolute::LockTime;
use bitcoin::block::{Block, Header, Version};
use bitcoin::hashes::Hash;
use bitcoin::secp256k1::PublicKey;
use bitcoin::{
    Amount, BlockHash, CompactTarget, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxMerkleNode, TxOut,
    Witness,
};

/// When these tests begin: an hour ago, since LDK's graph compares updates with the clock of the machine.
pub(crate) static START_SECONDS: LazyLock<u32> = LazyLock::new(|| {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    u32::try_from(now.saturating_sub(3_600)).unwrap_or(u32::MAX)
});

/// A node as the links see it.
pub(crate) trait Member {
    /// Its public key.
    fn id(&self) -> PublicKey;
    /// The `init` it would send.
    fn init(&self) -> Vec<u8>;
    /// A connection to `peer` stands; `init` is its first message.
    fn connected(&mut self, peer: PublicKey, init: &[u8], inbound: bool);
    /// The connection to `peer` broke.
    fn disconnected(&mut self, peer: PublicKey);
    /// A message came.
    fn receive(&mut self, peer: PublicKey, message: &[u8]);
    /// A block was connected.
    fn block(&mut self, block: &Block, height: u32);
    /// Lets it work; returns the messages to send and the transactions to broadcast.
    fn work(&mut self) -> (Vec<(PublicKey, Vec<u8>)>, Vec<Transaction>);
    /// Lets time pass until it wants to do something, if it waits for that.
    fn pass_time(&mut self) -> bool {
        false
    }
}

/// The links between members and the chain they share.
pub(crate) struct Net {
    tip: BlockHash,
    height: u32,
    /// How many blocks were mined here.
    blocks: u32,
    /// Messages under way, by sender and receiver (indices of members).
    links: BTreeMap<(usize, usize), VecDeque<Vec<u8>>>,
    /// Transactions broadcast and not yet in a block, each once.
    mempool: Vec<Transaction>,
    /// How many messages have been delivered.
    pub(crate) delivered: usize,
}

impl Net {
    /// A chain at `height` with the members that are neighbours in the list connected.
    pub(crate) fn new(tip: BlockHash, height: u32, members: &mut [&mut dyn Member]) -> Net {
        let mut net =
            Net { tip, height, blocks: 0, links: BTreeMap::new(), mempool: Vec::new(), delivered: 0 };
        for i in 1..members.len() {
            net.connect(members, i - 1, i);
        }
        net
    }

    /// Connects two members; `a` dials.
    pub(crate) fn connect(&mut self, members: &mut [&mut dyn Member], a: usize, b: usize) {
        let (init_a, init_b) = (members[a].init(), members[b].init());
        let (id_a, id_b) = (members[a].id(), members[b].id());
        self.links.insert((a, b), VecDeque::new());
        self.links.insert((b, a), VecDeque::new());
        members[a].connected(id_b, &init_b, false);
        members[b].connected(id_a, &init_a, true);
    }

    /// Breaks the connection of two members; messages under way between them are lost.
    pub(crate) fn disconnect(&mut self, members: &mut [&mut dyn Member], a: usize, b: usize) {
        self.collect(members);
        self.links.remove(&(a, b));
        self.links.remove(&(b, a));
        let (id_a, id_b) = (members[a].id(), members[b].id());
        members[a].disconnected(id_b);
        members[b].disconnected(id_a);
    }

    /// Delivers one message; false when none is under way and no member has anything to do.
    pub(crate) fn step(&mut self, members: &mut [&mut dyn Member]) -> bool {
        self.collect(members);
        let Some((&(from, to), queue)) = self.links.iter_mut().find(|(_, queue)| !queue.is_empty()) else {
            return false;
        };
        let message = queue.pop_front().expect("the queue was not empty");
        self.delivered += 1;
        members[to].receive(members[from].id(), &message);
        true
    }

    /// Delivers until nothing is under way and nobody waits for time to pass.
    pub(crate) fn settle(&mut self, members: &mut [&mut dyn Member]) {
        for _ in 0..100_000 {
            if !self.step(members) && !members.iter_mut().any(|member| member.pass_time()) {
                return;
            }
        }
        panic!("the members never come to rest");
    }

    /// Mines the broadcast transactions, then `more` empty blocks, letting the members settle after each.
    pub(crate) fn mine(&mut self, members: &mut [&mut dyn Member], more: usize) {
        self.settle(members);
        let mut transactions = vec![coinbase(self.height)];
        transactions.append(&mut self.mempool);
        self.connect_block(members, transactions);
        self.mine_empty(members, more);
    }

    /// Mines empty blocks, letting the members settle after each.
    pub(crate) fn mine_empty(&mut self, members: &mut [&mut dyn Member], blocks: usize) {
        for _ in 0..blocks {
            self.connect_block(members, vec![coinbase(self.height)]);
        }
    }

    /// The transactions that wait for a block.
    pub(crate) fn mempool(&self) -> &[Transaction] {
        &self.mempool
    }

    /// The height of the chain.
    pub(crate) fn height(&self) -> u32 {
        self.height
    }

    fn connect_block(&mut self, members: &mut [&mut dyn Member], txdata: Vec<Transaction>) {
        let header = Header {
            version: Version::NO_SOFT_FORK_SIGNALLING,
            prev_blockhash: self.tip,
            merkle_root: TxMerkleNode::all_zeros(),
            time: *START_SECONDS + self.blocks,
            bits: CompactTarget::from_consensus(0x207f_ffff),
            nonce: 0,
        };
        let block = Block { header, txdata };
        self.height += 1;
        self.blocks += 1;
        self.tip = block.block_hash();
        for member in members.iter_mut() {
            member.block(&block, self.height);
        }
        self.settle(members);
    }

    /// Lets every member work and puts its messages under way.
    fn collect(&mut self, members: &mut [&mut dyn Member]) {
        let ids: Vec<PublicKey> = members.iter().map(|member| member.id()).collect();
        for (from, member) in members.iter_mut().enumerate() {
            let (messages, transactions) = member.work();
            for (peer, message) in messages {
                let to = ids.iter().position(|id| *id == peer).expect("a member sends to members only");
                if let Some(queue) = self.links.get_mut(&(from, to)) {
                    queue.push_back(message);
                }
            }
            for transaction in transactions {
                if !self.mempool.contains(&transaction) {
                    self.mempool.push(transaction);
                }
            }
        }
    }
}

/// A transaction that pays `amount` to `script` out of nowhere: the chain of these tests checks no inputs.
pub(crate) fn funding(amount: Amount, script_pubkey: ScriptBuf) -> Transaction {
    Transaction {
        version: bitcoin::transaction::Version::TWO,
        lock_time: LockTime::ZERO,
        input: vec![TxIn {
            previous_output: OutPoint::new(bitcoin::Txid::from_byte_array([7; 32]), 0),
            script_sig: ScriptBuf::new(),
            sequence: Sequence::MAX,
            witness: Witness::from_slice(&[[1; 64]]),
        }],
        output: vec![TxOut { value: amount, script_pubkey }],
    }
}

/// The first transaction of the block above `height`; it only keeps real transactions from standing first.
fn coinbase(height: u32) -> Transaction {
    Transaction {
        version: bitcoin::transaction::Version::TWO,
        lock_time: LockTime::from_consensus(height),
        input: vec![TxIn::default()],
        output: vec![],
    }
}
