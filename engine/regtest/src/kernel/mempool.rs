//! The mempool: transactions that may be in the next block.
//!
//! Owns the checks the engine makes when it connects a block, made beforehand on one transaction: form, locktime
//! (BIP 113), relative locktime (BIP 68), maturity, amounts, scripts; and the choice for a block. Scripts and form are
//! checked by the engine's own code. Relay policy (dust, lowest fee, standard forms) is deliberately absent: the
//! measure is whether a miner could mine it. A conflicting transaction is refused, whatever it pays.
//!
//! Invariant: the entries, in order of arrival, are a valid sequence on top of the tip. Blocks only make locktimes
//! pass, so this holds as the chain grows; a reorganisation refills the mempool through the same checks.

use std::collections::{BTreeMap, HashMap, HashSet};

use bitcoin::absolute::LockTime;
use bitcoin::{Block, OutPoint, ScriptBuf, Sequence, Transaction, TxOut, Txid};
use fulmen::chain::RefusalKind;
use fulmen_wire::units::{BlockHeight, Sat};

use super::engine::Checked;
use super::utxo::UtxoSet;
use crate::COINBASE_MATURITY_BLOCKS;

/// Why a transaction cannot be in the next block.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MempoolError {
    /// The engine refuses its form, or it is a coinbase.
    #[error(
        "its form is invalid on any chain: no inputs or outputs, one twice, an impossible amount, or a coinbase"
    )]
    Malformed,
    /// No block has room for it.
    #[error("weight {weight} and {sigops} signature operations exceed what a block holds")]
    TooLarge {
        /// Its weight.
        weight: u64,
        /// Its signature operations as blocks count them (BIP 141).
        sigops: u64,
    },
    /// Its locktime has not passed.
    #[error("locktime {lock_time} has not passed at {} with median time {median_time}", next.0)]
    Locktime {
        /// The locktime.
        lock_time: LockTime,
        /// The height it would be mined at.
        next: BlockHeight,
        /// The tip's median time past.
        median_time: u32,
    },
    /// A waiting transaction spends the same output.
    #[error("output {outpoint} is already spent by {by}, which waits to be mined")]
    DoubleSpend {
        /// The output.
        outpoint: OutPoint,
        /// The transaction that spends it.
        by: Txid,
    },
    /// An output is unknown, or spent in the chain.
    #[error("output {outpoint} is unknown or spent")]
    MissingInput {
        /// The output.
        outpoint: OutPoint,
    },
    /// A relative locktime has not passed.
    #[error("input {input} may be spent at height {height} and median time {median_time}, not yet")]
    SequenceLock {
        /// The input's index.
        input: usize,
        /// The first height at which it may be.
        height: i64,
        /// The median time past that is needed.
        median_time: i64,
    },
    /// A coinbase output is too young.
    #[error("coinbase output {outpoint} may be spent from height {} on", mature_at.0)]
    ImmatureCoinbase {
        /// The output.
        outpoint: OutPoint,
        /// The first height at which it may be spent.
        mature_at: BlockHeight,
    },
    /// More goes out than comes in.
    #[error("outputs of {outputs} exceed inputs of {inputs}")]
    Overspent {
        /// The sum of its inputs.
        inputs: Sat,
        /// The sum of its outputs.
        outputs: Sat,
    },
    /// A script fails.
    #[error("the script or signature of input {input}, which spends {outpoint}, fails")]
    Script {
        /// The input's index.
        input: usize,
        /// The output it spends.
        outpoint: OutPoint,
    },
}

impl MempoolError {
    /// The rule broken, as every backend names it.
    #[must_use]
    pub const fn kind(&self) -> RefusalKind {
        match self {
            MempoolError::Malformed | MempoolError::TooLarge { .. } => RefusalKind::Malformed,
            MempoolError::Locktime { .. } => RefusalKind::Locktime,
            MempoolError::DoubleSpend { .. } => RefusalKind::DoubleSpend,
            MempoolError::MissingInput { .. } => RefusalKind::MissingInput,
            MempoolError::SequenceLock { .. } => RefusalKind::SequenceLock,
            MempoolError::ImmatureCoinbase { .. } => RefusalKind::ImmatureCoinbase,
            MempoolError::Overspent { .. } => RefusalKind::Overspent,
            MempoolError::Script { .. } => RefusalKind::Script,
        }
    }
}

/// The chain a transaction is checked against.
pub(super) struct View<'a> {
    pub(super) utxos: &'a UtxoSet,
    pub(super) tip: BlockHeight,
    /// The median time past of the block at a height, which is not above the tip.
    pub(super) median_time: &'a dyn Fn(BlockHeight) -> u32,
}

/// A transaction that passed every check: proof that [`Mempool::insert`] may have it.
pub(super) struct Entry {
    transaction: Transaction,
    txid: Txid,
    fee: Sat,
    weight: u64,
    sigops: u64,
}

/// The transactions that may be in the next block.
#[derive(Default)]
pub(super) struct Mempool {
    /// By order of arrival: a parent comes before its children.
    entries: BTreeMap<u64, Entry>,
    arrivals: HashMap<Txid, u64>,
    /// Which arrival spends an output.
    spends: HashMap<OutPoint, u64>,
    next_arrival: u64,
}

/// An output about to be spent.
struct Spent {
    output: TxOut,
    /// The height of its block; one above the tip while it waits itself.
    height: BlockHeight,
    coinbase: bool,
}

impl Mempool {
    /// Checks whether the transaction can be in the next block. `None` when it waits already or is in the chain with
    /// an output unspent: there is nothing to insert.
    pub(super) fn check(
        &self,
        transaction: &Transaction,
        view: &View<'_>,
    ) -> Result<Option<Entry>, MempoolError> {
        let txid = transaction.compute_txid();
        if self.arrivals.contains_key(&txid) {
            return Ok(None);
        }
        let known = (0..transaction.output.len() as u32)
            .any(|vout| view.utxos.coin(&OutPoint { txid, vout }).is_some());
        if known {
            return Ok(None);
        }
        let checked = Checked::new(transaction).ok_or(MempoolError::Malformed)?;
        if transaction.is_coinbase() {
            return Err(MempoolError::Malformed);
        }
        check_locktime(transaction, view)?;
        let spent = self.inputs(transaction, view)?;
        check_sequence_locks(transaction, &spent, view)?;
        let fee = check_amounts(transaction, &spent, view)?;
        let (weight, sigops) = check_size(transaction, &spent)?;
        let outputs: Vec<TxOut> = spent.into_iter().map(|spent| spent.output).collect();
        checked.run_scripts(&outputs).map_err(|input| MempoolError::Script {
            input,
            outpoint: transaction.input[input].previous_output,
        })?;
        Ok(Some(Entry { transaction: transaction.clone(), txid, fee, weight, sigops }))
    }

    /// Takes in a checked transaction. Nothing may have changed since the check.
    pub(super) fn insert(&mut self, entry: Entry) {
        let arrival = self.next_arrival;
        self.next_arrival += 1;
        for input in &entry.transaction.input {
            let before = self.spends.insert(input.previous_output, arrival);
            assert!(before.is_none(), "a checked transaction conflicts with none");
        }
        self.arrivals.insert(entry.txid, arrival);
        self.entries.insert(arrival, entry);
    }

    /// Drops the transactions that a new block confirms, and those that conflict with it.
    pub(super) fn confirm(&mut self, block: &Block) {
        for transaction in block.txdata.iter().skip(1) {
            if let Some(arrival) = self.arrivals.get(&transaction.compute_txid()) {
                self.remove(*arrival);
                continue;
            }
            for input in &transaction.input {
                if let Some(arrival) = self.spends.get(&input.previous_output) {
                    self.remove_with_descendants(*arrival);
                }
            }
        }
    }

    /// The transactions of the next block, which pays `reward_to`, and their fees: first come, first mined.
    pub(super) fn select(&self, reward_to: &ScriptBuf) -> (Vec<Transaction>, Sat) {
        let mut weight = BLOCK_OVERHEAD_WEIGHT + 4 * reward_to.len() as u64;
        let mut sigops = 4 * reward_to.count_sigops_legacy() as u64;
        let mut fees = Sat::ZERO;
        let mut chosen = Vec::new();
        let mut left_out: HashSet<Txid> = HashSet::new();
        for entry in self.entries.values() {
            let orphaned =
                entry.transaction.input.iter().any(|input| left_out.contains(&input.previous_output.txid));
            if orphaned
                || weight + entry.weight > BLOCK_WEIGHT_MAX
                || sigops + entry.sigops > BLOCK_SIGOPS_MAX
            {
                left_out.insert(entry.txid);
                continue;
            }
            weight += entry.weight;
            sigops += entry.sigops;
            fees = fees.checked_add(entry.fee).expect("fees are part of the money there is");
            chosen.push(entry.transaction.clone());
        }
        (chosen, fees)
    }

    /// Empties the mempool; the transactions in order of arrival.
    pub(super) fn drain(&mut self) -> Vec<Transaction> {
        self.arrivals.clear();
        self.spends.clear();
        std::mem::take(&mut self.entries).into_values().map(|entry| entry.transaction).collect()
    }

    /// The ids of all transactions, in order of arrival.
    pub(super) fn txids(&self) -> Vec<Txid> {
        self.entries.values().map(|entry| entry.txid).collect()
    }

    fn remove(&mut self, arrival: u64) -> Option<Entry> {
        let entry = self.entries.remove(&arrival)?;
        self.arrivals.remove(&entry.txid);
        for input in &entry.transaction.input {
            self.spends.remove(&input.previous_output);
        }
        Some(entry)
    }

    fn remove_with_descendants(&mut self, arrival: u64) {
        let mut doomed = vec![arrival];
        while let Some(arrival) = doomed.pop() {
            let Some(entry) = self.remove(arrival) else { continue };
            let outputs = 0..entry.transaction.output.len() as u32;
            doomed.extend(
                outputs.filter_map(|vout| self.spends.get(&OutPoint { txid: entry.txid, vout }).copied()),
            );
        }
    }

    /// The outputs the transaction spends, in the chain or of transactions that wait.
    fn inputs(&self, transaction: &Transaction, view: &View<'_>) -> Result<Vec<Spent>, MempoolError> {
        let find = |outpoint: OutPoint| {
            if let Some(arrival) = self.spends.get(&outpoint) {
                let by = self.entries.get(arrival).expect("what spends an output waits").txid;
                return Err(MempoolError::DoubleSpend { outpoint, by });
            }
            if let Some(coin) = view.utxos.coin(&outpoint) {
                return Ok(Spent {
                    output: coin.output.clone(),
                    height: coin.height,
                    coinbase: coin.coinbase,
                });
            }
            self.arrivals
                .get(&outpoint.txid)
                .and_then(|arrival| self.entries.get(arrival))
                .and_then(|entry| entry.transaction.output.get(outpoint.vout as usize))
                .filter(|output| !output.script_pubkey.is_op_return())
                .map(|output| Spent { output: output.clone(), height: next(view), coinbase: false })
                .ok_or(MempoolError::MissingInput { outpoint })
        };
        transaction.input.iter().map(|input| find(input.previous_output)).collect()
    }
}

/// The height of the next block.
fn next(view: &View<'_>) -> BlockHeight {
    BlockHeight(view.tip.0 + 1)
}

/// Absolute locktime: against the next height, or the tip's median time past (BIP 113).
fn check_locktime(transaction: &Transaction, view: &View<'_>) -> Result<(), MempoolError> {
    let median_time = (view.median_time)(view.tip);
    let passed = match transaction.lock_time {
        LockTime::Blocks(height) => height.to_consensus_u32() < next(view).0,
        LockTime::Seconds(time) => time.to_consensus_u32() < median_time,
    };
    let ignored = transaction.input.iter().all(|input| input.sequence == Sequence::MAX);
    if passed || ignored || transaction.lock_time == LockTime::ZERO {
        return Ok(());
    }
    Err(MempoolError::Locktime { lock_time: transaction.lock_time, next: next(view), median_time })
}

/// Relative locktimes (BIP 68): from version 2 on, each input may ask for an age in blocks or in units of 512 s.
fn check_sequence_locks(
    transaction: &Transaction,
    spent: &[Spent],
    view: &View<'_>,
) -> Result<(), MempoolError> {
    // The version is an unsigned number to this rule.
    if (transaction.version.0 as u32) < 2 {
        return Ok(());
    }
    for (input, (txin, spent)) in transaction.input.iter().zip(spent).enumerate() {
        let sequence = txin.sequence.0;
        if sequence & SEQUENCE_DISABLED != 0 {
            continue;
        }
        let age = i64::from(sequence & SEQUENCE_AGE);
        let (mut height, mut median_time) = (0, 0);
        if sequence & SEQUENCE_SECONDS != 0 {
            let before = BlockHeight(spent.height.0.saturating_sub(1));
            median_time = i64::from((view.median_time)(before)) + (age << SEQUENCE_UNIT_BITS);
        } else {
            height = i64::from(spent.height.0) + age;
        }
        if height > i64::from(next(view).0) || median_time > i64::from((view.median_time)(view.tip)) {
            return Err(MempoolError::SequenceLock { input, height, median_time });
        }
    }
    Ok(())
}

/// Maturity and amounts; the fee.
fn check_amounts(transaction: &Transaction, spent: &[Spent], view: &View<'_>) -> Result<Sat, MempoolError> {
    let mut inputs = Sat::ZERO;
    for (txin, spent) in transaction.input.iter().zip(spent) {
        let mature_at = BlockHeight(spent.height.0.saturating_add(COINBASE_MATURITY_BLOCKS));
        if spent.coinbase && next(view) < mature_at {
            return Err(MempoolError::ImmatureCoinbase { outpoint: txin.previous_output, mature_at });
        }
        inputs = inputs.saturating_add(Sat(spent.output.value.to_sat()));
    }
    let outputs = transaction.output.iter().map(|output| Sat(output.value.to_sat())).sum();
    inputs.checked_sub(outputs).ok_or(MempoolError::Overspent { inputs, outputs })
}

/// The block space of a transaction.
fn check_size(transaction: &Transaction, spent: &[Spent]) -> Result<(u64, u64), MempoolError> {
    let weight = transaction.weight().to_wu();
    // Inputs are distinct: the form has been checked.
    let by_outpoint: HashMap<OutPoint, &TxOut> = transaction
        .input
        .iter()
        .map(|input| input.previous_output)
        .zip(spent.iter().map(|spent| &spent.output))
        .collect();
    let sigops = transaction.total_sigop_cost(|outpoint| by_outpoint.get(outpoint).copied().cloned()) as u64;
    if weight > BLOCK_WEIGHT_MAX - 2 * BLOCK_OVERHEAD_WEIGHT || sigops > BLOCK_SIGOPS_MAX {
        return Err(MempoolError::TooLarge { weight, sigops });
    }
    Ok((weight, sigops))
}

/// The weight a block may have (BIP 141).
const BLOCK_WEIGHT_MAX: u64 = 4_000_000;

/// The signature operations a block may have, as BIP 141 counts them.
const BLOCK_SIGOPS_MAX: u64 = 80_000;

/// More than header, counts and a coinbase weigh besides the script it pays.
const BLOCK_OVERHEAD_WEIGHT: u64 = 2_000;

/// An input with this bit asks for no age (BIP 68).
const SEQUENCE_DISABLED: u32 = 1 << 31;

/// With this bit the age is in units of 512 seconds, without it in blocks.
const SEQUENCE_SECONDS: u32 = 1 << 22;

/// The bits that hold the age.
const SEQUENCE_AGE: u32 = 0xffff;

/// The unit of time of an age: 2^9 seconds.
const SEQUENCE_UNIT_BITS: u32 = 9;
