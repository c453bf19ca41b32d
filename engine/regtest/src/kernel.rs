//! A regtest chain in process, validated by Bitcoin Core's own engine (`bitcoinkernel`).
//!
//! Owns the parts that the engine lacks: a mempool over our own index of unspent outputs (`mempool`, `utxo`), a miner,
//! and the walk of events. The engine alone decides whether a block is valid; nothing here can make it accept more.
//! There is no network: the only blocks are those mined or handed in here, and the mempool is empty after a restart.
//!
//! Invariants: the index and the block list equal the engine's best chain after every call, and every block assembled
//! from the mempool is accepted. Time is virtual: a block is `seconds_per_block` later than its parent unless
//! [`KernelChain::set_time`] asks for more, so the same calls give the same chain, bit for bit.

use std::path::PathBuf;
use std::sync::Arc;

use bitcoin::hashes::Hash;
use bitcoin::{Block, BlockHash, ScriptBuf, Transaction, Txid};
use fulmen::chain::{BroadcastError, Chain, ChainError, ChainEvent, Tip};
use fulmen_wire::units::{BlockHeight, FeeratePerKw, Sat};

use crate::assemble::{self, Slot};
use crate::{RegtestChain, RegtestError};
use engine::{Engine, Verdict};
pub use mempool::MempoolError;
use mempool::{Mempool, View};
use utxo::{Undo, UtxoSet};

mod engine;
mod mempool;
mod utxo;

/// How to open a [`KernelChain`].
#[derive(Clone, Debug)]
pub struct KernelConfig {
    /// Where the chain lives; `None` keeps its databases in memory and its block files in a temporary directory that
    /// is removed when the chain is dropped.
    pub directory: Option<PathBuf>,
    /// How much later a block is than its parent. The chain begins in 2011, and a block's time must not run ahead of
    /// the system clock by more than two hours: with 600 s there is room for over 700,000 blocks.
    pub seconds_per_block: u32,
    /// The answer of [`Chain::fee_estimate`]: there is no market to ask.
    pub feerate: FeeratePerKw,
}

impl Default for KernelConfig {
    fn default() -> KernelConfig {
        KernelConfig { directory: None, seconds_per_block: 600, feerate: FeeratePerKw::FLOOR }
    }
}

/// A regtest chain in process.
pub struct KernelChain {
    engine: Engine,
    config: KernelConfig,
    genesis: Arc<Block>,
    /// The best chain above the genesis block, as far as it has been applied here: element 0 has height 1.
    applied: Vec<Applied>,
    utxos: UtxoSet,
    mempool: Mempool,
    events: Vec<ChainEvent>,
    time_floor: u32,
}

/// A block of the best chain, and how to take it back from the index.
struct Applied {
    hash: BlockHash,
    block: Arc<Block>,
    undo: Undo,
}

impl KernelChain {
    /// Opens the chain, or begins it.
    ///
    /// # Errors
    /// [`RegtestError::Directory`] and [`RegtestError::Open`] when the directory cannot be made or used.
    pub fn open(config: KernelConfig) -> Result<KernelChain, RegtestError> {
        let engine = Engine::open(config.directory.as_deref())?;
        let mut chain = KernelChain {
            engine,
            config,
            genesis: Arc::new(bitcoin::constants::genesis_block(bitcoin::Network::Regtest)),
            applied: Vec::new(),
            utxos: UtxoSet::default(),
            mempool: Mempool::default(),
            events: Vec::new(),
            time_floor: 0,
        };
        chain.follow(None)?;
        Ok(chain)
    }

    /// A fresh chain in memory.
    ///
    /// # Errors
    /// As [`open`](KernelChain::open).
    pub fn in_memory() -> Result<KernelChain, RegtestError> {
        KernelChain::open(KernelConfig::default())
    }

    /// Blocks mined from now on are at `unix_s` or later.
    pub fn set_time(&mut self, unix_s: u32) {
        self.time_floor = unix_s;
    }

    /// Hands a block to the engine as a peer would, with whatever is in it.
    ///
    /// # Errors
    /// [`RegtestError::BlockRefused`] when it is invalid; the tip is where it was.
    pub fn submit(&mut self, block: &Arc<Block>) -> Result<(), RegtestError> {
        let height = BlockHeight(self.applied.len() as u32 + 1);
        let verdict = self.engine.process(block)?;
        self.follow(Some(block))?;
        match verdict {
            Verdict::Valid => Ok(()),
            Verdict::Invalid(reason) => {
                Err(RegtestError::BlockRefused { height, hash: block.block_hash(), reason })
            }
        }
    }

    /// The block that [`RegtestChain::mine`] would mine next: valid, not submitted.
    #[must_use]
    pub fn template(&self, reward_to: &ScriptBuf) -> Block {
        let tip = self.tip_applied();
        let (transactions, fees) = self.mempool.select(reward_to);
        let slot = Slot {
            parent: tip.hash,
            height: BlockHeight(tip.height.0 + 1),
            time: self.time_above(tip.height),
            reward_to,
            tag: [0; 8],
        };
        assemble::block(&slot, transactions, fees)
    }

    /// Offers a transaction, with the rule and values of a refusal as data.
    ///
    /// # Errors
    /// The first rule of the next block that the transaction breaks.
    pub fn accept(&mut self, transaction: &Transaction) -> Result<(), MempoolError> {
        let tip = BlockHeight(self.applied.len() as u32);
        let view = View { utxos: &self.utxos, tip, median_time: &|height| self.median_time(height) };
        if let Some(entry) = self.mempool.check(transaction, &view)? {
            self.mempool.insert(entry);
        }
        Ok(())
    }

    /// Time for a block above the applied ones up to `height`: later than each of the last eleven, hence above their
    /// median whatever times a foreign block among them bears.
    fn time_above(&self, height: BlockHeight) -> u32 {
        let latest = self.last_times(height).into_iter().max().expect("the genesis block at least is there");
        latest.saturating_add(self.config.seconds_per_block.max(1)).max(self.time_floor)
    }

    /// The times of the last eleven blocks up to `height`.
    fn last_times(&self, height: BlockHeight) -> Vec<u32> {
        let heights = height.0.saturating_sub(10)..=height.0;
        heights.map(|height| self.block_applied(BlockHeight(height)).header.time).collect()
    }

    /// The median time past of the block at `height` (BIP 113).
    fn median_time(&self, height: BlockHeight) -> u32 {
        let mut times = self.last_times(height);
        times.sort_unstable();
        times[times.len() / 2]
    }

    fn tip_applied(&self) -> Tip {
        let hash = self.applied.last().map_or_else(|| self.genesis.block_hash(), |applied| applied.hash);
        Tip { height: BlockHeight(self.applied.len() as u32), hash }
    }

    /// The applied block at `height`, which is not above the tip.
    fn block_applied(&self, height: BlockHeight) -> &Arc<Block> {
        match height.0.checked_sub(1) {
            None => &self.genesis,
            Some(index) => &self.applied[index as usize].block,
        }
    }

    /// Brings index, mempool and events to the engine's best chain. `fresh` is a block just processed, to spare
    /// reading it back.
    fn follow(&mut self, fresh: Option<&Arc<Block>>) -> Result<(), RegtestError> {
        let mut returned = Vec::new();
        while let Some(last) = self.applied.last() {
            if self.engine.hash_at(self.applied.len() as u32) == Some(last.hash.to_byte_array()) {
                break;
            }
            returned.push(self.disconnect());
        }
        let reorganized = !returned.is_empty();
        let height = self.engine.height();
        while (self.applied.len() as u32) < height {
            self.connect_next(fresh)?;
        }
        if reorganized {
            self.refill(&returned);
        }
        Ok(())
    }

    /// Takes back the last applied block.
    fn disconnect(&mut self) -> Arc<Block> {
        let height = BlockHeight(self.applied.len() as u32);
        let last = self.applied.pop().expect("the caller saw a last block");
        self.utxos.disconnect(&last.block, last.undo);
        self.events.push(ChainEvent::Disconnected { height, hash: last.hash });
        last.block
    }

    /// Applies the engine's block above the last applied one.
    fn connect_next(&mut self, fresh: Option<&Arc<Block>>) -> Result<(), RegtestError> {
        let height = BlockHeight(self.applied.len() as u32 + 1);
        let hash = self.engine.hash_at(height.0).ok_or_else(|| RegtestError::Kernel {
            reason: format!("no block at height {} of its own best chain", height.0),
        })?;
        let block = match fresh {
            Some(block) if block.block_hash().to_byte_array() == hash => Arc::clone(block),
            _ => Arc::new(self.engine.read(height.0)?),
        };
        let undo = self.utxos.connect(height, &block);
        self.mempool.confirm(&block);
        self.events.push(ChainEvent::Connected { height, block: Arc::clone(&block) });
        self.applied.push(Applied { hash: BlockHash::from_byte_array(hash), block, undo });
        Ok(())
    }

    /// After a reorganisation: fills the mempool anew, first with the transactions of the blocks taken back (`blocks`,
    /// last block first), then with its former entries. Those that are no longer valid are dropped, as a bitcoind does.
    fn refill(&mut self, blocks: &[Arc<Block>]) {
        let waited = self.mempool.drain();
        let from_blocks = blocks.iter().rev().flat_map(|block| block.txdata.iter().skip(1).cloned());
        for transaction in from_blocks.chain(waited) {
            if let Err(error) = self.accept(&transaction) {
                tracing::debug!(txid = %transaction.compute_txid(), %error, "dropped in a reorganisation");
            }
        }
    }
}

impl Chain for KernelChain {
    fn tip(&mut self) -> Result<Tip, ChainError> {
        Ok(self.tip_applied())
    }

    fn block(&mut self, height: BlockHeight) -> Result<Option<Arc<Block>>, ChainError> {
        let known = height.0 as usize <= self.applied.len();
        Ok(known.then(|| Arc::clone(self.block_applied(height))))
    }

    fn poll(&mut self) -> Result<Vec<ChainEvent>, ChainError> {
        Ok(std::mem::take(&mut self.events))
    }

    fn broadcast(&mut self, transaction: &Transaction) -> Result<(), BroadcastError> {
        self.accept(transaction).map_err(|error| BroadcastError::Refused {
            txid: transaction.compute_txid(),
            kind: error.kind(),
            reason: error.to_string(),
        })
    }

    fn fee_estimate(&mut self) -> Result<FeeratePerKw, ChainError> {
        Ok(self.config.feerate.max(FeeratePerKw::FLOOR))
    }
}

impl RegtestChain for KernelChain {
    fn mine(&mut self, blocks: u32, reward_to: &ScriptBuf) -> Result<Vec<BlockHash>, RegtestError> {
        let mut hashes = Vec::new();
        for _ in 0..blocks {
            let block = Arc::new(self.template(reward_to));
            self.submit(&block)?;
            hashes.push(block.block_hash());
        }
        Ok(hashes)
    }

    fn reorganize(&mut self, depth: u32, reward_to: &ScriptBuf) -> Result<Vec<BlockHash>, RegtestError> {
        let tip = self.tip_applied();
        let Some(fork) = tip.height.0.checked_sub(depth) else {
            return Err(RegtestError::ReorgTooDeep { depth, height: tip.height });
        };
        let tag = assemble::branch_tag(tip.hash);
        let base = BlockHeight(fork);
        let mut parent = self.block_applied(base).block_hash();
        let mut time = self.time_above(base);
        let mut hashes = Vec::new();
        for height in fork + 1..=tip.height.0 + 1 {
            let slot = Slot { parent, height: BlockHeight(height), time, reward_to, tag };
            let block = assemble::block(&slot, Vec::new(), Sat::ZERO);
            parent = block.block_hash();
            if let Verdict::Invalid(reason) = self.engine.process(&block)? {
                return Err(RegtestError::BlockRefused { height: slot.height, hash: parent, reason });
            }
            time = time.saturating_add(self.config.seconds_per_block.max(1));
            hashes.push(parent);
        }
        self.follow(None)?;
        Ok(hashes)
    }

    fn mempool_txids(&mut self) -> Result<Vec<Txid>, RegtestError> {
        Ok(self.mempool.txids())
    }
}

#[cfg(test)]
mod tests;
