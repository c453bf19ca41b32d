//! The chain's side of a run: the backend, the miner, every node's wallet, and the audit that reads every block.
//!
//! Owns: opening the chain, mining, funding wallets and channels, and handing each block to all who follow the chain.
//! Does not know channels beyond their funding script, nor nodes beyond their wallet.
//!
//! Invariant: every block reaches miner, wallets and audit exactly once and in order; the caller gets each of them
//! once, to tell the nodes.

use std::collections::BTreeSet;
use std::sync::Arc;

use bitcoin::{ScriptBuf, Transaction, Txid};
use fulmen::chain::{BroadcastError, ChainError, ChainEvent, RefusalKind};
use fulmen_regtest::kernel::KernelChain;
use fulmen_regtest::wallet::{Wallet, WalletError, mine_until};
use fulmen_regtest::{RegtestChain, RegtestError, daemon};
use fulmen_wire::units::Sat;
use thiserror::Error;

use crate::accounting::{ChainAudit, Owner};
use crate::cli::ChainSpec;
use crate::network::FEERATE;
use crate::seed::{Purpose, Seed};

/// The remedy for a refused transaction; a chain that could not be asked names its own.
fn remedy(cause: &BroadcastError) -> &'static str {
    match cause.kind() {
        None => "",
        Some(RefusalKind::Policy) => {
            "; the daemon's policy is stricter than its defaults: start it without minrelaytxfee, dustrelayfee and the \
             like"
        }
        Some(_) => "; this is a bug or a chain someone else is using",
    }
}

/// Why the chain's side failed.
#[derive(Debug, Error)]
pub(crate) enum TreasuryError {
    /// The chain could not be asked.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// The chain could not be opened or extended.
    #[error(transparent)]
    Regtest(#[from] RegtestError),
    /// A transaction of the run was refused.
    #[error("{what}: {cause}{}", remedy(cause))]
    Refused {
        /// The transaction's purpose.
        what: String,
        /// The chain's reason.
        cause: BroadcastError,
    },
    /// A wallet cannot pay.
    #[error("the wallet of {whose} cannot pay: {cause}")]
    Wallet {
        /// Whose.
        whose: String,
        /// Why not.
        cause: WalletError,
    },
    /// A block that had room left out a transaction of the run.
    #[error(
        "{count} transactions of the run, {txid} among them, are in no block, though the last one has room; give \
             loadgen a chain whose policy mines all valid transactions"
    )]
    Unconfirmed {
        /// How many.
        count: usize,
        /// The first of them by id.
        txid: Txid,
    },
    /// Blocks were taken back during the run.
    #[error("the chain was reorganised during the run; give loadgen a chain nobody else mines on")]
    Reorganised,
}

/// The chain, and everyone who has money on it.
pub(crate) struct Treasury {
    chain: Box<dyn RegtestChain>,
    miner: Wallet,
    wallets: Vec<Wallet>,
    audit: ChainAudit,
    /// The seed of everything: salted with the tip the run began on.
    seed: Seed,
    height_first: u32,
    height: u32,
    txids: Vec<Txid>,
    /// Transactions of the run that no block holds yet.
    unconfirmed: BTreeSet<Txid>,
}

impl Treasury {
    /// Opens the chain.
    ///
    /// # Errors
    /// When it cannot be opened or asked.
    pub(crate) fn open(spec: &ChainSpec, number: u64) -> Result<Treasury, TreasuryError> {
        let chain: Box<dyn RegtestChain> = match spec {
            ChainSpec::Kernel => Box::new(KernelChain::in_memory()?),
            ChainSpec::Rpc { url, .. } => Box::new(daemon::connect(url)?),
        };
        Treasury::on(chain, number, *spec == ChainSpec::Kernel)
    }

    /// Uses `chain`, which `is_fresh` if it begins and ends with the run.
    fn on(mut chain: Box<dyn RegtestChain>, number: u64, is_fresh: bool) -> Result<Treasury, TreasuryError> {
        let tip = chain.tip()?;
        // On a fresh chain a run depends on the seed alone. On one that lasts, keys must differ from run to run.
        let hash: [u8; 32] = *tip.hash.as_ref();
        let seed = Seed::new(number, if is_fresh { b"" } else { &hash });
        // One miner for all runs: on a chain that lasts, a later run spends an earlier one's coins, and need not
        // wait for a hundred blocks until its own coins are mature.
        let miner = Wallet::new(Seed::new(0, b"").bytes(Purpose::Miner, 0));
        let mut audit = ChainAudit::new();
        audit.own(miner.script_pubkey().clone(), Owner::Miner);
        let (height_first, height) = (tip.height.0, tip.height.0);
        Ok(Treasury {
            chain,
            miner,
            wallets: Vec::new(),
            audit,
            seed,
            height_first,
            height,
            txids: Vec::new(),
            unconfirmed: BTreeSet::new(),
        })
    }

    /// The seed of the run.
    pub(crate) fn seed(&self) -> Seed {
        self.seed
    }

    /// Makes a wallet for each node and gives the nodes their coins, confirmed; returns the blocks that hold them.
    ///
    /// # Errors
    /// When the chain yields too little, or refuses.
    pub(crate) fn fund_wallets(
        &mut self,
        nodes: usize,
        coins: impl Iterator<Item = (usize, Sat)>,
    ) -> Result<Vec<Arc<ChainEvent>>, TreasuryError> {
        self.wallets =
            (0..nodes as u64).map(|node| Wallet::new(self.seed.bytes(Purpose::Wallet, node))).collect();
        for (node, wallet) in self.wallets.iter().enumerate() {
            self.audit.own(wallet.script_pubkey().clone(), Owner::Node(node));
        }
        let outputs: Vec<(ScriptBuf, Sat)> =
            coins.map(|(node, coin)| (self.wallets[node].script_pubkey().clone(), coin)).collect();
        let total: Sat = outputs.iter().map(|(_, coin)| *coin).sum();
        // An output and its share of inputs weigh well below this.
        let fees = FEERATE.fee(1_000 * (outputs.len() as u64 + 100));
        let events = mine_until(&mut *self.chain, &mut self.miner, total.saturating_add(fees))?;
        self.follow(events.into_iter(), false)?;
        let spends = self
            .miner
            .fan_out(&outputs, FEERATE)
            .map_err(|cause| TreasuryError::Wallet { whose: "the miner".to_owned(), cause })?;
        for spend in &spends {
            self.broadcast(&spend.transaction, "giving the nodes their coins")?;
        }
        let events = self.confirm()?;
        self.audit.start();
        Ok(events)
    }

    /// Makes the transaction that funds channel `channel` of `node`.
    ///
    /// # Errors
    /// When the node's wallet cannot pay.
    pub(crate) fn fund(
        &mut self,
        node: usize,
        channel: usize,
        script: &ScriptBuf,
        amount: Sat,
    ) -> Result<Transaction, TreasuryError> {
        self.audit.own(script.clone(), Owner::Channel(channel));
        let outputs = [(script.clone(), amount)];
        let spend = self.wallets[node]
            .fund(&outputs, FEERATE)
            .map_err(|cause| TreasuryError::Wallet { whose: format!("node {node}"), cause })?;
        Ok(spend.transaction)
    }

    /// Offers a transaction to the chain.
    ///
    /// # Errors
    /// When the chain refuses it.
    pub(crate) fn broadcast(&mut self, transaction: &Transaction, what: &str) -> Result<(), TreasuryError> {
        self.chain
            .broadcast(transaction)
            .map_err(|cause| TreasuryError::Refused { what: what.to_owned(), cause })?;
        self.unconfirmed.insert(transaction.compute_txid());
        Ok(())
    }

    /// Mines until every transaction of the run is in a block, and returns the blocks.
    ///
    /// # Errors
    /// When the chain refuses, or a block confirms none of them.
    pub(crate) fn confirm(&mut self) -> Result<Vec<Arc<ChainEvent>>, TreasuryError> {
        let mut blocks = Vec::new();
        while let Some(txid) = self.unconfirmed.first().copied() {
            let count = self.unconfirmed.len();
            blocks.extend(self.mine(1)?);
            if self.unconfirmed.len() == count {
                return Err(TreasuryError::Unconfirmed { count, txid });
            }
        }
        Ok(blocks)
    }

    /// Mines `blocks` blocks and gives them back.
    ///
    /// # Errors
    /// When the chain refuses.
    pub(crate) fn mine(&mut self, blocks: u32) -> Result<Vec<Arc<ChainEvent>>, TreasuryError> {
        self.chain.mine(blocks, self.miner.script_pubkey())?;
        let mut followed = Vec::new();
        loop {
            let events = self.chain.poll()?;
            if events.is_empty() {
                return Ok(followed);
            }
            followed.extend(self.follow(events.into_iter(), true)?);
        }
    }

    /// Where a node's money goes.
    pub(crate) fn script_of(&self, node: usize) -> ScriptBuf {
        self.wallets[node].script_pubkey().clone()
    }

    /// The reading of all blocks.
    pub(crate) fn audit(&self) -> &ChainAudit {
        &self.audit
    }

    /// Blocks mined by the run.
    pub(crate) fn blocks(&self) -> u64 {
        u64::from(self.height - self.height_first)
    }

    /// The ids of all transactions of the run's blocks, in order.
    pub(crate) fn txids(&self) -> &[Txid] {
        &self.txids
    }

    fn follow(
        &mut self,
        events: impl Iterator<Item = ChainEvent>,
        tell_miner: bool,
    ) -> Result<Vec<Arc<ChainEvent>>, TreasuryError> {
        let mut followed = Vec::new();
        for event in events {
            let ChainEvent::Connected { height, block } = &event else {
                return Err(TreasuryError::Reorganised);
            };
            if tell_miner {
                self.miner.apply(&event);
            }
            self.wallets.iter_mut().for_each(|wallet| wallet.apply(&event));
            self.audit.connect(block);
            if height.0 > self.height_first {
                for txid in block.txdata.iter().map(Transaction::compute_txid) {
                    self.unconfirmed.remove(&txid);
                    self.txids.push(txid);
                }
            }
            self.height = height.0;
            followed.push(Arc::new(event));
        }
        Ok(followed)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use bitcoin::block::{Header, Version};
    use bitcoin::hashes::Hash;
    use bitcoin::{
        Amount, Block, BlockHash, CompactTarget, OutPoint, Sequence, TxIn, TxMerkleNode, TxOut, Witness,
    };
    use fulmen::chain::{Chain, Tip};
    use fulmen_wire::units::{BlockHeight, FeeratePerKw};

    use super::*;

    /// A chain whose blocks hold a few transactions each.
    struct SmallBlocks {
        capacity: usize,
        height: u32,
        mempool: VecDeque<Transaction>,
        events: Vec<ChainEvent>,
    }

    impl SmallBlocks {
        fn connect(&mut self, reward_to: &ScriptBuf) {
            self.height += 1;
            let coinbase = Transaction {
                version: bitcoin::transaction::Version::TWO,
                lock_time: bitcoin::absolute::LockTime::from_consensus(self.height),
                input: vec![TxIn {
                    previous_output: OutPoint::null(),
                    script_sig: ScriptBuf::new(),
                    sequence: Sequence::MAX,
                    witness: Witness::new(),
                }],
                output: vec![TxOut { value: Amount::from_int_btc(50), script_pubkey: reward_to.clone() }],
            };
            let count = self.capacity.min(self.mempool.len());
            let txdata = std::iter::once(coinbase).chain(self.mempool.drain(..count)).collect();
            let header = Header {
                version: Version::TWO,
                prev_blockhash: BlockHash::all_zeros(),
                merkle_root: TxMerkleNode::all_zeros(),
                time: self.height,
                bits: CompactTarget::from_consensus(0),
                nonce: 0,
            };
            let block = Arc::new(Block { header, txdata });
            self.events.push(ChainEvent::Connected { height: BlockHeight(self.height), block });
        }
    }

    impl Chain for SmallBlocks {
        fn tip(&mut self) -> Result<Tip, ChainError> {
            Ok(Tip { height: BlockHeight(self.height), hash: BlockHash::all_zeros() })
        }

        fn block(&mut self, _: BlockHeight) -> Result<Option<Arc<Block>>, ChainError> {
            Ok(None)
        }

        fn poll(&mut self) -> Result<Vec<ChainEvent>, ChainError> {
            Ok(std::mem::take(&mut self.events))
        }

        fn broadcast(&mut self, transaction: &Transaction) -> Result<(), BroadcastError> {
            self.mempool.push_back(transaction.clone());
            Ok(())
        }

        fn fee_estimate(&mut self) -> Result<FeeratePerKw, ChainError> {
            Ok(FEERATE)
        }
    }

    impl RegtestChain for SmallBlocks {
        fn mine(&mut self, blocks: u32, reward_to: &ScriptBuf) -> Result<Vec<BlockHash>, RegtestError> {
            (0..blocks).for_each(|_| self.connect(reward_to));
            Ok(vec![BlockHash::all_zeros(); blocks as usize])
        }

        fn reorganize(&mut self, _: u32, _: &ScriptBuf) -> Result<Vec<BlockHash>, RegtestError> {
            Ok(Vec::new())
        }

        fn mempool_txids(&mut self) -> Result<Vec<Txid>, RegtestError> {
            Ok(self.mempool.iter().map(Transaction::compute_txid).collect())
        }
    }

    /// A treasury of five nodes with a coin each, and their funding transactions.
    fn with_fundings(capacity: usize) -> Result<Treasury, TreasuryError> {
        let chain = SmallBlocks { capacity, height: 0, mempool: VecDeque::new(), events: Vec::new() };
        let mut treasury = Treasury::on(Box::new(chain), 1, true)?;
        treasury.fund_wallets(5, (0..5).map(|node| (node, Sat(110_000))))?;
        for node in 0..5 {
            let script = ScriptBuf::from(vec![0x51, node as u8]);
            let transaction = treasury.fund(node, node, &script, Sat(100_000))?;
            treasury.broadcast(&transaction, "funding a channel")?;
        }
        Ok(treasury)
    }

    #[test]
    fn transactions_that_fill_several_blocks_are_all_confirmed() {
        let mut treasury = with_fundings(2).unwrap();
        assert_eq!(treasury.confirm().unwrap().len(), 3);
        assert_eq!(treasury.audit().channels_opened(), 5);
        assert!(treasury.confirm().unwrap().is_empty());
    }

    #[test]
    fn a_transaction_that_no_block_takes_is_named() {
        let mut treasury = with_fundings(5).unwrap();
        let stranger = Transaction {
            version: bitcoin::transaction::Version::ONE,
            lock_time: bitcoin::absolute::LockTime::ZERO,
            input: Vec::new(),
            output: Vec::new(),
        };
        treasury.confirm().unwrap();
        treasury.unconfirmed.insert(stranger.compute_txid());
        let error = treasury.confirm().unwrap_err().to_string();
        assert!(error.contains(&stranger.compute_txid().to_string()), "{error}");
    }
}
