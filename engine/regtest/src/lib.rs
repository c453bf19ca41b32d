//! Regtest chains for tests and load: chains whose blocks we mine ourselves.
//!
//! Owns the extension [`RegtestChain`] of [`Chain`] and its errors; Bitcoin Core's validation engine in process with
//! the mempool and miner that it lacks ([`kernel`]); the same extension for a bitcoind on regtest ([`daemon`]), and the
//! start of one ([`bitcoind`]); and the small P2WPKH wallet of miner and nodes ([`wallet`]). One conformance suite
//! (`engine/tests/it/chain_conformance.rs`) holds both chains to the same behaviour.
//!
//! This is the only crate of the workspace that builds C++, and it is not for real money: `fulmen` never depends on it
//! outside tests.
//!
//! Invariant: nothing here mines on, or signs for, another network than regtest.

#![forbid(unsafe_code)]

use std::path::PathBuf;

use bitcoin::{BlockHash, ScriptBuf, Txid};
use fulmen::chain::{Chain, ChainError};
use fulmen_wire::units::{BlockHeight, Sat};

mod assemble;
pub mod bitcoind;
pub mod daemon;
mod directory;
pub mod kernel;
pub mod wallet;

/// Blocks a coinbase output waits before it may be spent: spendable in the block this many above its own.
pub const COINBASE_MATURITY_BLOCKS: u32 = 100;

/// Blocks after which the subsidy of a regtest chain halves.
pub const REGTEST_HALVING_BLOCKS: u32 = 150;

/// A chain whose blocks we make ourselves: for tests and load.
pub trait RegtestChain: Chain {
    /// Mines `blocks` blocks from the mempool, the reward of each to `reward_to`; returns their hashes.
    ///
    /// # Errors
    /// When the backend refuses a block or cannot be asked.
    fn mine(&mut self, blocks: u32, reward_to: &ScriptBuf) -> Result<Vec<BlockHash>, RegtestError>;

    /// Replaces the last `depth` blocks by `depth + 1` empty ones, the reward of each to `reward_to`. Transactions of
    /// the replaced blocks wait to be mined again, as far as they are still valid.
    ///
    /// # Errors
    /// [`RegtestError::ReorgTooDeep`] when the chain is not that long, and as [`mine`](RegtestChain::mine).
    fn reorganize(&mut self, depth: u32, reward_to: &ScriptBuf) -> Result<Vec<BlockHash>, RegtestError>;

    /// The ids of the transactions in the mempool, in no particular order.
    ///
    /// # Errors
    /// When the backend cannot be asked.
    fn mempool_txids(&mut self) -> Result<Vec<Txid>, RegtestError>;
}

/// Why a regtest chain could not be opened or extended. Each message names a remedy.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RegtestError {
    /// A directory for the chain could not be made.
    #[error("cannot create the chain directory {}: {source}; name one that can be written to", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// The kernel does not open the directory.
    #[error(
        "cannot open the regtest chain in {}: {reason}; end the process that uses it, or name an empty directory",
        path.display()
    )]
    Open {
        /// The directory.
        path: PathBuf,
        /// The kernel's message.
        reason: String,
    },
    /// The kernel reported a failure of its own, such as a full disk.
    #[error("the validation engine failed: {reason}; check disk space and start again")]
    Kernel {
        /// The kernel's message.
        reason: String,
    },
    /// A block we assembled was refused: a bug of ours, or a clock far off.
    #[error("block {hash} at height {} was refused: {reason}; check the system clock, then report this", height.0)]
    BlockRefused {
        /// The height it was meant for.
        height: BlockHeight,
        /// Its hash.
        hash: BlockHash,
        /// The backend's message.
        reason: String,
    },
    /// More blocks were to be replaced than there are.
    #[error("cannot replace the last {depth} blocks of a chain of {}; ask for fewer", height.0)]
    ReorgTooDeep {
        /// How many were to be replaced.
        depth: u32,
        /// The tip's height.
        height: BlockHeight,
    },
    /// The subsidy still to come cannot make up the balance asked for.
    #[error(
        "{wanted} cannot be mined: this regtest chain (height {}) yields {available} at most with what the wallet has; \
         start on a fresh chain or ask for less",
        height.0
    )]
    SubsidyExhausted {
        /// The mature balance asked for.
        wanted: Sat,
        /// The most that can ever be had.
        available: Sat,
        /// The tip's height.
        height: BlockHeight,
    },
    /// The bitcoind runs another network.
    #[error("bitcoind at {url} runs network {network:?}, not regtest; start it with -regtest")]
    WrongNetwork {
        /// The URL, without user and password.
        url: String,
        /// The network it runs, as it calls it.
        network: &'static str,
    },
    /// The chain could not be asked.
    #[error(transparent)]
    Chain(#[from] ChainError),
}

/// The subsidy of the regtest block at `height`.
#[must_use]
pub const fn regtest_subsidy(height: BlockHeight) -> Sat {
    let halvings = height.0 / REGTEST_HALVING_BLOCKS;
    if halvings >= 64 { Sat::ZERO } else { Sat((50 * 100_000_000) >> halvings) }
}
