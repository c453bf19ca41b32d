//! The block chain as the engine sees it: a tip, blocks, a place to send transactions, and a fee estimate.
//!
//! Owns the [`Chain`] trait, its regtest extension [`RegtestChain`] and their errors, and the small P2WPKH wallet
//! that miner and nodes use ([`wallet`]). Two backends implement the traits: Bitcoin Core's validation engine in
//! process (`kernel`, feature `kernel`), and a bitcoind over JSON-RPC (`rpc`, feature `rpc`); one conformance suite
//! holds both to the same behaviour. Watching a channel's outputs (BOLT 5) is not done here: whoever watches reads
//! the events.
//!
//! Invariant: the events a chain reports form one unbroken walk. A `Connected` block extends the block reported last,
//! a `Disconnected` one takes exactly the last one back. [`Chain`] is small on purpose: a test that wants a failing
//! or reordering chain implements it around a real one.

use std::path::PathBuf;
use std::sync::Arc;

use bitcoin::{Block, BlockHash, ScriptBuf, Transaction, Txid};
use fulmen_wire::units::{BlockHeight, FeeratePerKw, Sat};

#[cfg(any(feature = "kernel", feature = "rpc"))]
mod assemble;
#[cfg(any(feature = "kernel", feature = "rpc"))]
mod directory;
#[cfg(feature = "kernel")]
pub mod kernel;
#[cfg(feature = "rpc")]
pub mod rpc;
pub mod wallet;

/// Blocks a coinbase output waits before it may be spent: spendable in the block this many above its own.
pub const COINBASE_MATURITY_BLOCKS: u32 = 100;

/// Blocks after which the subsidy of a regtest chain halves.
pub const REGTEST_HALVING_BLOCKS: u32 = 150;

/// A block chain.
///
/// Feed it with [`broadcast`](Chain::broadcast), drain it with [`poll`](Chain::poll). The first poll reports every
/// block from height 1 on, so a consumer who starts at the genesis block and applies each event knows the chain.
pub trait Chain: Send {
    /// The best block, as of now: possibly ahead of the events drained so far.
    ///
    /// # Errors
    /// When the backend cannot be asked.
    fn tip(&mut self) -> Result<Tip, ChainError>;

    /// The block of the best chain at `height`, or `None` above the tip.
    ///
    /// # Errors
    /// When the backend cannot be asked.
    fn block(&mut self, height: BlockHeight) -> Result<Option<Arc<Block>>, ChainError>;

    /// What happened since the last poll, oldest first: after a reorganisation the old blocks from the tip down,
    /// then the new ones upwards.
    ///
    /// # Errors
    /// When the backend cannot be asked; no event is lost, the next poll reports it.
    fn poll(&mut self) -> Result<Vec<ChainEvent>, ChainError>;

    /// Offers a transaction to be mined. `Ok` means that it waits to be mined or already is: sending a transaction
    /// twice is no error, as both sides of a channel may do so. Only one that is mined and has all its outputs spent
    /// is no longer recognised: it is refused, as its inputs are gone.
    ///
    /// # Errors
    /// [`BroadcastError::Refused`] when it cannot be in the next block; nothing is changed then.
    fn broadcast(&mut self, transaction: &Transaction) -> Result<(), BroadcastError>;

    /// A rate at which a transaction is mined soon; never below [`FeeratePerKw::FLOOR`].
    ///
    /// # Errors
    /// When the backend cannot be asked.
    fn fee_estimate(&mut self) -> Result<FeeratePerKw, ChainError>;
}

/// A chain whose blocks we make ourselves: for tests and load.
pub trait RegtestChain: Chain {
    /// Mines `blocks` blocks with what waits to be mined, the reward of each to `reward_to`; returns their hashes.
    ///
    /// # Errors
    /// When the backend refuses a block or cannot be asked.
    fn mine(&mut self, blocks: u32, reward_to: &ScriptBuf) -> Result<Vec<BlockHash>, ChainError>;

    /// Replaces the last `depth` blocks by `depth + 1` empty ones, the reward of each to `reward_to`. Transactions of
    /// the replaced blocks wait to be mined again, as far as they are still valid.
    ///
    /// # Errors
    /// [`ChainError::ReorgTooDeep`] when the chain is not that long, and as [`mine`](RegtestChain::mine).
    fn reorganize(&mut self, depth: u32, reward_to: &ScriptBuf) -> Result<Vec<BlockHash>, ChainError>;

    /// The transactions that wait to be mined, in no particular order.
    ///
    /// # Errors
    /// When the backend cannot be asked.
    fn waiting(&mut self) -> Result<Vec<Txid>, ChainError>;
}

/// The last block of the best chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tip {
    /// Its height; the genesis block has height 0.
    pub height: BlockHeight,
    /// Its hash.
    pub hash: BlockHash,
}

/// One step of the best chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChainEvent {
    /// A block extends the chain.
    Connected {
        /// Its height.
        height: BlockHeight,
        /// The block itself.
        block: Arc<Block>,
    },
    /// The last block is no longer part of the chain.
    Disconnected {
        /// The height it had.
        height: BlockHeight,
        /// Its hash.
        hash: BlockHash,
    },
}

/// Why a chain could not be opened, asked or extended. Each line says what to do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChainError {
    /// A directory for the chain could not be made.
    #[error("cannot create the chain directory {}: {source}; name one that can be written to", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What the system said.
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
        /// What the kernel said.
        reason: String,
    },
    /// The kernel reported a failure of its own, such as a full disk.
    #[error("the validation engine failed: {reason}; check disk space and start again")]
    Kernel {
        /// What it said.
        reason: String,
    },
    /// A block we assembled was refused: a bug of ours, or a clock far off.
    #[error("block {hash} at height {} was refused: {reason}; check the system clock, then report this", height.0)]
    BlockRefused {
        /// The height it was meant for.
        height: BlockHeight,
        /// Its hash.
        hash: BlockHash,
        /// What the backend said.
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
    /// The URL of a bitcoind is not one.
    #[error("{url:?} is not the URL of a bitcoind: {reason}; write http://user:password@127.0.0.1:18443")]
    Url {
        /// The URL, without its password.
        url: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Nothing answers.
    #[error(
        "no bitcoind answers at {url} ({reason}); start one with -regtest -server, and check host and port"
    )]
    Unreachable {
        /// The URL, without user and password.
        url: String,
        /// What the system said.
        reason: String,
    },
    /// The user or password is wrong.
    #[error(
        "bitcoind at {url} refuses user {user:?} with this password; use its rpcuser and rpcpassword, or the two \
         halves of its .cookie file"
    )]
    Unauthorized {
        /// The URL, without user and password.
        url: String,
        /// The user.
        user: String,
    },
    /// The bitcoind runs another network.
    #[error("bitcoind at {url} runs network {network:?}, not regtest; start it with -regtest")]
    WrongNetwork {
        /// The URL, without user and password.
        url: String,
        /// The network it named.
        network: String,
    },
    /// A call failed.
    #[error("bitcoind refused {method}: {message} (code {code}); check its version and its debug.log")]
    Rpc {
        /// The method called.
        method: &'static str,
        /// The JSON-RPC error code.
        code: i32,
        /// The JSON-RPC error message.
        message: String,
    },
    /// An answer was not what the method promises.
    #[error("unexpected answer to {method} from {url}: {reason}; check that a bitcoind listens there")]
    UnexpectedAnswer {
        /// The URL, without user and password.
        url: String,
        /// The method called.
        method: &'static str,
        /// What was wrong.
        reason: String,
    },
}

/// Why a transaction was not taken.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BroadcastError {
    /// The transaction cannot be in the next block.
    #[error("transaction {txid} refused: {reason}")]
    Refused {
        /// The transaction.
        txid: Txid,
        /// The rule it breaks.
        kind: RefusalKind,
        /// The rule and the offending values, in words; a bitcoind's own words when it refused.
        reason: String,
    },
    /// The chain could not be asked.
    #[error(transparent)]
    Chain(#[from] ChainError),
}

impl BroadcastError {
    /// The rule a refused transaction breaks; `None` when the chain could not be asked.
    #[must_use]
    pub const fn kind(&self) -> Option<RefusalKind> {
        match self {
            BroadcastError::Refused { kind, .. } => Some(*kind),
            BroadcastError::Chain(_) => None,
        }
    }
}

/// The rule a refused transaction breaks, the same for every backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RefusalKind {
    /// Its form is invalid whatever the chain: no inputs, an input twice, an impossible amount, too heavy.
    Malformed,
    /// An input is unknown or already spent in the chain.
    MissingInput,
    /// An input is already spent by a transaction that waits to be mined. A bitcoind may take the later one instead
    /// when it pays enough more; the kernel backend never does.
    DoubleSpend,
    /// An input is a coinbase output too young to be spent.
    ImmatureCoinbase,
    /// Its locktime lies in the future.
    Locktime,
    /// An input's relative locktime (BIP 68) has not passed.
    SequenceLock,
    /// It spends more than its inputs hold.
    Overspent,
    /// A script or signature check failed.
    Script,
    /// It pays less than the backend relays, or breaks another of its policies. Never from the kernel.
    Policy,
}

/// The subsidy of the regtest block at `height`.
#[must_use]
pub const fn regtest_subsidy(height: BlockHeight) -> Sat {
    let halvings = height.0 / REGTEST_HALVING_BLOCKS;
    if halvings >= 64 { Sat::ZERO } else { Sat((50 * 100_000_000) >> halvings) }
}
