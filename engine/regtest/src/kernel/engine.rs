//! The validation engine behind its binding: open, hand in a block, read the best chain, run scripts.
//!
//! Owns the binding's objects and the directory they live in. Knows no mempool, no miner, no events.
//!
//! Invariant: verdicts are the engine's own; a failure of the engine itself (a full disk) is never
//! taken for an invalid block, nor the other way round.

use std::path::Path;
use std::sync::{Arc, Mutex, Once, PoisonError};

use bitcoin::{Block, Transaction, TxOut};
use bitcoinkernel::prelude::{BlockHashExt, BlockValidationStateExt, TransactionExt};
use bitcoinkernel::{
    ChainType, ChainstateManager, Context, ContextBuilder, KernelError, PrecomputedTransactionData,
    ProcessBlockResult, ScriptPubkey, TxCheckResult, ValidationMode,
};

use crate::RegtestError;
use crate::directory::ChainDirectory;

/// The engine and its directory. Fields drop in this order, which the binding asks for.
pub(super) struct Engine {
    manager: ChainstateManager,
    _context: Context,
    reports: Arc<Mutex<Reports>>,
    _directory: ChainDirectory,
}

/// The engine's verdict on a block.
#[derive(Debug)]
pub(super) enum Verdict {
    /// Valid, known before or not.
    Valid,
    /// Invalid, and why, as far as the engine tells.
    Invalid(String),
}

/// The reports of the engine's callbacks.
#[derive(Default)]
struct Reports {
    /// Why the block processed last is invalid.
    invalid: Option<String>,
    /// The engine's own failure, after which it must not be used.
    failure: Option<String>,
}

impl Engine {
    /// Opens the chain in `directory`, or a fresh one in memory.
    pub(super) fn open(directory: Option<&Path>) -> Result<Engine, RegtestError> {
        // The engine logs to a global buffer unless told not to; its verdicts reach us by return values.
        static QUIET: Once = Once::new();
        QUIET.call_once(bitcoinkernel::disable_logging);

        let in_memory = directory.is_none();
        let directory = ChainDirectory::make(directory)?;
        let path = directory.path().to_owned();
        ChainDirectory::make(Some(&path.join("blocks")))?;
        let refuse =
            |error: KernelError| RegtestError::Open { path: path.clone(), reason: error.to_string() };
        let reports = Arc::new(Mutex::new(Reports::default()));
        let context = context(&reports).map_err(refuse)?;
        let data = path_text(&path)?;
        let blocks = path_text(&path.join("blocks"))?;
        let manager = ChainstateManager::builder(&context, &data, &blocks)
            .map_err(refuse)?
            .block_tree_db_in_memory(in_memory)
            .chainstate_db_in_memory(in_memory)
            .build()
            .map_err(refuse)?;
        manager.import_blocks().map_err(refuse)?;
        Ok(Engine { manager, _context: context, reports, _directory: directory })
    }

    /// Hands in a block; a valid block may be one of a side branch.
    pub(super) fn process(&self, block: &Block) -> Result<Verdict, RegtestError> {
        let bytes = bitcoin::consensus::serialize(block);
        let Ok(block) = bitcoinkernel::Block::new(&bytes) else {
            return Ok(Verdict::Invalid("not a block".to_owned()));
        };
        self.reports().invalid = None;
        let result = self.manager.process_block(&block);
        let mut reports = self.reports();
        if let Some(reason) = reports.failure.clone() {
            return Err(RegtestError::Kernel { reason });
        }
        Ok(match (result, reports.invalid.take()) {
            (_, Some(reason)) => Verdict::Invalid(reason),
            (ProcessBlockResult::Rejected, None) => Verdict::Invalid("header or form refused".to_owned()),
            (ProcessBlockResult::NewBlock | ProcessBlockResult::Duplicate, None) => Verdict::Valid,
        })
    }

    /// The height of the best chain.
    pub(super) fn height(&self) -> u32 {
        u32::try_from(self.manager.active_chain().height()).unwrap_or(0)
    }

    /// The hash of the best chain's block at `height`.
    pub(super) fn hash_at(&self, height: u32) -> Option<[u8; 32]> {
        self.manager.active_chain().at_height(height as usize).map(|entry| entry.block_hash().to_bytes())
    }

    /// The best chain's block at `height`, from disk.
    pub(super) fn read(&self, height: u32) -> Result<Block, RegtestError> {
        let failed = |reason: String| RegtestError::Kernel { reason: format!("block {height}: {reason}") };
        let entry = self
            .manager
            .active_chain()
            .at_height(height as usize)
            .ok_or_else(|| failed("above the tip".to_owned()))?;
        let bytes = self
            .manager
            .read_block_data(&entry)
            .and_then(|block| block.consensus_encode())
            .map_err(|error| failed(error.to_string()))?;
        bitcoin::consensus::deserialize(&bytes).map_err(|error| failed(error.to_string()))
    }

    /// The directory the chain lives in.
    #[cfg(test)]
    pub(super) fn path(&self) -> &Path {
        self._directory.path()
    }

    fn reports(&self) -> std::sync::MutexGuard<'_, Reports> {
        self.reports.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A transaction whose form the engine has checked, ready to have its scripts run.
pub(super) struct Checked(bitcoinkernel::Transaction);

impl Checked {
    /// Checks the form, which does not depend on the chain; `None` when it is invalid.
    pub(super) fn new(transaction: &Transaction) -> Option<Checked> {
        // A transaction without inputs would be read as one with a witness flag.
        if transaction.input.is_empty() {
            return None;
        }
        let parsed = bitcoinkernel::Transaction::new(&bitcoin::consensus::serialize(transaction)).ok()?;
        (parsed.check() == TxCheckResult::Valid).then_some(Checked(parsed))
    }

    /// Runs every input's script against the outputs it spends, under all consensus rules in force; the error is the
    /// first input that fails.
    pub(super) fn run_scripts(&self, spent: &[TxOut]) -> Result<(), usize> {
        let mut outputs = Vec::with_capacity(spent.len());
        for (input, output) in spent.iter().enumerate() {
            let script = ScriptPubkey::new(output.script_pubkey.as_bytes()).map_err(|_| input)?;
            let value = i64::try_from(output.value.to_sat()).map_err(|_| input)?;
            outputs.push((bitcoinkernel::TxOut::new(&script, value), script, value));
        }
        let borrowed: Vec<_> = outputs.iter().map(|(output, _, _)| output.as_ref()).collect();
        let data = PrecomputedTransactionData::new(&self.0, &borrowed).map_err(|_| 0_usize)?;
        for (input, (_, script, value)) in outputs.iter().enumerate() {
            bitcoinkernel::verify(
                script,
                Some(*value),
                &self.0,
                input,
                Some(bitcoinkernel::VERIFY_ALL),
                &data,
            )
            .map_err(|_| input)?;
        }
        Ok(())
    }
}

/// The binding's context for regtest, reporting into `reports`.
fn context(reports: &Arc<Mutex<Reports>>) -> Result<Context, KernelError> {
    let note = |reports: &Arc<Mutex<Reports>>| {
        let reports = Arc::clone(reports);
        move |write: &dyn Fn(&mut Reports)| write(&mut reports.lock().unwrap_or_else(PoisonError::into_inner))
    };
    let (invalid, flush, fatal) = (note(reports), note(reports), note(reports));
    ContextBuilder::new()
        .chain_type(ChainType::Regtest)
        .notifications(|registry| {
            registry.register_flush_error(move |message: String| {
                flush(&|reports| reports.failure = Some(message.clone()));
            });
            registry.register_fatal_error(move |message: String| {
                fatal(&|reports| reports.failure = Some(message.clone()));
            });
        })
        .validation(|registry| {
            registry.register_block_checked(
                move |_block: bitcoinkernel::Block, state: bitcoinkernel::BlockValidationStateRef<'_>| {
                    if state.mode() != ValidationMode::Valid {
                        let reason = format!("{:?} ({:?})", state.result(), state.mode());
                        invalid(&|reports| reports.invalid = Some(reason.clone()));
                    }
                },
            );
        })
        .build()
}

/// The binding takes paths as text.
fn path_text(path: &Path) -> Result<String, RegtestError> {
    path.to_str().map(str::to_owned).ok_or_else(|| RegtestError::Open {
        path: path.to_owned(),
        reason: "the path is not UTF-8".to_owned(),
    })
}
