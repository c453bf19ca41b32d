//! The judge: Bitcoin Core's validation of a block that holds exactly the transaction in question.
//!
//! A [`Case`] is a transaction that must be accepted at a height, refused one block earlier, and refused when a
//! signature is damaged, a key is wrong or a lock is shortened. The mempool must agree with the judge each time.

use std::collections::BTreeMap;
use std::sync::Arc;

use bitcoin::hashes::Hash;
use bitcoin::{Block, ScriptBuf, Transaction, Witness};
use fulmen::chain::{Chain, RefusalKind};
use fulmen_regtest::kernel::KernelChain;
use fulmen_regtest::{RegtestChain, RegtestError};

/// A transaction under judgement.
pub(super) struct Case {
    /// The case's name, for messages and for the count.
    pub(super) name: &'static str,
    pub(super) tx: Transaction,
    /// The first block it may be in; the block before, it must be refused for `early`.
    pub(super) earliest: Option<(u32, RefusalKind)>,
    /// Transactions that are signed otherwise, or demand less delay than the script: never valid.
    pub(super) wrong: Vec<Transaction>,
    /// Cases that can be judged once it is mined, given the height of its block.
    pub(super) then: Box<dyn FnOnce(u32) -> Vec<Case>>,
}

impl Case {
    pub(super) fn new(name: &'static str, tx: Transaction, wrong: Vec<Transaction>) -> Case {
        Case { name, tx, earliest: None, wrong, then: Box::new(|_| Vec::new()) }
    }

    pub(super) fn not_before(mut self, height: u32, early: RefusalKind) -> Case {
        self.earliest = Some((height, early));
        self
    }

    pub(super) fn then(mut self, then: impl FnOnce(u32) -> Vec<Case> + 'static) -> Case {
        self.then = Box::new(then);
        self
    }
}

pub(super) struct Court {
    chain: KernelChain,
    reward_to: ScriptBuf,
    /// How many transactions of each name were accepted.
    pub(super) accepted: BTreeMap<&'static str, u32>,
    /// How many blocks were refused.
    pub(super) refused: u32,
}

impl Court {
    /// A chain whose first coinbase pays `reward_to`.
    pub(super) fn new(reward_to: ScriptBuf) -> Court {
        let mut chain = KernelChain::in_memory().unwrap();
        chain.mine(1, &reward_to).unwrap();
        Court { chain, reward_to, accepted: BTreeMap::new(), refused: 0 }
    }

    pub(super) fn height(&mut self) -> u32 {
        self.chain.tip().unwrap().height.0
    }

    pub(super) fn first_coinbase(&mut self) -> Transaction {
        self.chain.block(fulmen_wire::units::BlockHeight(1)).unwrap().unwrap().txdata[0].clone()
    }

    pub(super) fn mine(&mut self, blocks: u32) {
        self.chain.mine(blocks, &self.reward_to.clone()).unwrap();
    }

    /// Judges the cases, and those that follow from them, each as soon as it may be mined.
    pub(super) fn judge(&mut self, cases: Vec<Case>) {
        let mut waiting = cases;
        while !waiting.is_empty() {
            let next = self.height() + 1;
            for case in &waiting {
                if let Some((earliest, early)) = case.earliest
                    && earliest == next + 1
                {
                    self.refuses(case.name, &case.tx, early);
                }
            }
            let due = |case: &Case| case.earliest.is_none_or(|(earliest, _)| earliest <= next);
            match waiting.iter().position(due) {
                Some(index) => {
                    let followers = self.judge_now(waiting.remove(index));
                    waiting.extend(followers);
                }
                None => self.mine(1),
            }
        }
    }

    /// Judges a case whose time has come: first the variants to be refused, then the transaction itself.
    fn judge_now(&mut self, case: Case) -> Vec<Case> {
        let height = self.height() + 1;
        for damaged in damaged(&case.tx) {
            self.refuses(case.name, &damaged, RefusalKind::Script);
        }
        for wrong in &case.wrong {
            self.refuses(case.name, wrong, RefusalKind::Script);
        }
        let followers = (case.then)(height);
        for follower in &followers {
            let (name, pair) = (follower.name, [case.tx.clone(), follower.tx.clone()]);
            match follower.earliest {
                Some((earliest, _)) if earliest == height + 1 => self.refuses_block(name, &pair),
                Some((earliest, _)) => assert!(earliest > height + 1, "{name} judged too late"),
                None => {}
            }
        }
        let block = self.block(std::slice::from_ref(&case.tx));
        let taken = self.chain.accept(&case.tx);
        assert!(taken.is_ok(), "{}: the mempool refuses: {taken:?}", case.name);
        let mined = self.chain.submit(&block);
        assert!(mined.is_ok(), "{}: the block is refused: {mined:?}", case.name);
        assert_eq!(self.height(), height);
        assert!(self.chain.mempool_txids().unwrap().is_empty());
        *self.accepted.entry(case.name).or_default() += 1;
        followers
    }

    /// Mempool and block validation refuse the transaction.
    fn refuses(&mut self, name: &str, tx: &Transaction, kind: RefusalKind) {
        let error = self.chain.accept(tx).expect_err(name);
        assert_eq!(error.kind(), kind, "{name}: {error}");
        self.refuses_block(name, std::slice::from_ref(tx));
    }

    /// A block with these transactions is refused, and moves nothing.
    pub(super) fn refuses_block(&mut self, name: &str, txs: &[Transaction]) {
        let tip = self.chain.tip().unwrap();
        let block = self.block(txs);
        let verdict = self.chain.submit(&block);
        assert!(matches!(verdict, Err(RegtestError::BlockRefused { .. })), "{name}: {verdict:?}");
        assert_eq!(self.chain.tip().unwrap(), tip, "{name}");
        self.refused += 1;
    }

    /// The next block, with exactly these transactions besides its coinbase.
    fn block(&self, txs: &[Transaction]) -> Arc<Block> {
        let mut block = self.chain.template(&self.reward_to);
        assert_eq!(block.txdata.len(), 1, "nothing waits in the mempool");
        block.txdata.extend_from_slice(txs);
        let root = block.witness_root().unwrap();
        let commitment = Block::compute_witness_commitment(&root, &[0; 32]);
        let mut script = vec![0x6a, 0x24, 0xaa, 0x21, 0xa9, 0xed];
        script.extend_from_slice(commitment.as_byte_array());
        block.txdata[0].output.last_mut().unwrap().script_pubkey = ScriptBuf::from_bytes(script);
        block.header.merkle_root = block.compute_merkle_root().unwrap();
        while !block.header.target().is_met_by(block.header.block_hash()) {
            block.header.nonce += 1;
        }
        Arc::new(block)
    }
}

/// The transaction with one byte of one signature changed: in the encoding, in r, in s, in its sighash type.
fn damaged(tx: &Transaction) -> Vec<Transaction> {
    let mut all = Vec::new();
    for (index, input) in tx.input.iter().enumerate() {
        let items = input.witness.to_vec();
        for (place, item) in items.iter().enumerate() {
            // A DER signature with its sighash byte; no script or key here looks like one.
            if item.first() != Some(&0x30) || !(68..=73).contains(&item.len()) {
                continue;
            }
            for byte in [1, 10, item.len() - 10, item.len() - 1] {
                let mut items = items.clone();
                items[place][byte] ^= 1;
                let mut tx = tx.clone();
                tx.input[index].witness = Witness::from_slice(&items);
                all.push(tx);
            }
        }
    }
    all
}
