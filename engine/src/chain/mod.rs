//! The block chain as the engine sees it: a tip, blocks, a place to send transactions, and a fee estimate.
//!
//! Owns the [`Chain`] trait, its errors, and one backend: a bitcoind of any network over JSON-RPC (`rpc`, feature
//! `rpc`). The crate `fulmen-regtest` has another, Bitcoin Core's validation engine in process, and the extension for
//! chains whose blocks we mine; one conformance suite runs on both. Watching a channel's outputs (BOLT 5) is not done
//! here: it reads the events.
//!
//! Invariant: the events a chain reports form one unbroken walk. A `Connected` block extends the block reported last,
//! a `Disconnected` one takes exactly the last one back. [`Chain`] is small on purpose: a test that wants a failing
//! or reordering chain implements it around a real one.

use std::sync::Arc;

use bitcoin::{Block, BlockHash, Transaction, Txid};
use fulmen_wire::units::{BlockHeight, FeeratePerKw};

#[cfg(feature = "rpc")]
pub mod rpc;

/// A block chain.
///
/// Feed it with [`broadcast`](Chain::broadcast), drain it with [`poll`](Chain::poll). The first polls report every
/// block from height 1 on, so a consumer who starts at the genesis block and applies each event knows the chain.
///
/// # Examples
///
/// An embedder's loop gives each step to the engine, and each transaction of the engine's effects to the chain:
///
/// ```
/// use bitcoin::Transaction;
/// use fulmen::Engine;
/// use fulmen::chain::{BroadcastError, Chain, ChainError};
///
/// fn follow(engine: &Engine, chain: &mut dyn Chain) -> Result<(), ChainError> {
///     loop {
///         let events = chain.poll()?;
///         if events.is_empty() {
///             return Ok(()); // at the tip
///         }
///         events.iter().for_each(|event| engine.chain_event(event));
///     }
/// }
///
/// fn broadcast(chain: &mut dyn Chain, transaction: &Transaction) -> Result<(), ChainError> {
///     match chain.broadcast(transaction) {
///         Err(BroadcastError::Chain(error)) => Err(error), // try again later
///         _ => Ok(()), // in the mempool, in a block, or refused: its inputs are gone
///     }
/// }
/// ```
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

    /// The steps of the chain since the last poll, oldest first: after a reorganisation the old blocks from the tip
    /// down, then the new ones upwards. A backend may report only the first of many; an empty answer means that the
    /// tip is reached.
    ///
    /// # Errors
    /// When the backend cannot be asked; no event is lost, the next poll reports it.
    fn poll(&mut self) -> Result<Vec<ChainEvent>, ChainError>;

    /// Offers a transaction to be mined. `Ok` means that it waits to be mined or already is: sending a transaction
    /// twice is not an error, as both sides of a channel may do so. Only one that is mined and has all its outputs
    /// spent is no longer recognised: it is refused, since its inputs are gone.
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

/// Why a chain could not be reached or asked. Each message names a remedy.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChainError {
    /// The URL of a bitcoind is not one.
    #[error("{url:?} is not the URL of a bitcoind: {reason}; write http://user:password@127.0.0.1:18443")]
    Url {
        /// The URL, without its password.
        url: String,
        /// The fault.
        reason: &'static str,
    },
    /// Nothing answers.
    #[error(
        "no bitcoind answers at {url} ({reason}); start one with -regtest -server, and check host and port"
    )]
    Unreachable {
        /// The URL, without user and password.
        url: String,
        /// The system's error.
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
    /// The daemon forbids a call to this user or address.
    #[error(
        "bitcoind at {url} forbids {method} (HTTP 403): allow it with rpcwhitelist for this user, and this address \
         with rpcallowip"
    )]
    Forbidden {
        /// The URL, without user and password.
        url: String,
        /// The method called.
        method: &'static str,
    },
    /// The daemon, or a proxy before it, takes no calls at the moment. The call was not executed.
    #[error(
        "{url} is too busy for {method} (HTTP {status}), for a minute already; raise rpcworkqueue or call less often"
    )]
    Busy {
        /// The URL, without user and password.
        url: String,
        /// The method called.
        method: &'static str,
        /// 429 or 503.
        status: u16,
    },
    /// A proxy answers in place of the daemon. Whether the call was executed is not known.
    #[error(
        "{url} answers {method} with {answer}, as a proxy does whose bitcoind is down; start that, or give its own \
         address"
    )]
    Gateway {
        /// The URL, without user and password.
        url: String,
        /// The method called.
        method: &'static str,
        /// The status, 502 or 504, or the form of an answer that no bitcoind gives.
        answer: String,
    },
    /// The daemon has not finished its start.
    #[error("bitcoind at {url} is still starting: {message}; wait and run again")]
    Starting {
        /// The URL, without user and password.
        url: String,
        /// The daemon's words.
        message: String,
    },
    /// The bitcoind runs a network that Bitcoin Core does not know.
    #[error(
        "bitcoind at {url} runs network {network:?}, which is unknown; start it with -chain=main, test, signet or regtest"
    )]
    UnknownNetwork {
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
    /// An answer is not as the method documents it.
    #[error("unexpected answer to {method} from {url}: {reason}; check that a bitcoind listens there")]
    UnexpectedAnswer {
        /// The URL, without user and password.
        url: String,
        /// The method called.
        method: &'static str,
        /// The fault.
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
