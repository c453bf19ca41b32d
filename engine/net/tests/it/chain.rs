//! One regtest chain for all nodes of a test, with a wallet that pays for everything.
//!
//! Owns: mining, the order of blocks, and funding transactions. Nodes give it transactions and are given its blocks.

use std::sync::{Arc, Mutex, MutexGuard};

use bitcoin::{Amount, BlockHash, ScriptBuf, Transaction};
use fulmen::chain::{Chain, ChainEvent};
use fulmen_regtest::RegtestChain;
use fulmen_regtest::kernel::KernelChain;
use fulmen_regtest::wallet::{Wallet, mine_until};
use fulmen_wire::units::{BlockHeight, FeeratePerKw, Sat};

/// A chain that threads share.
#[derive(Clone)]
pub(crate) struct SharedChain(Arc<Mutex<State>>);

struct State {
    chain: KernelChain,
    wallet: Wallet,
    /// Every step so far, for nodes that start later.
    history: Vec<ChainEvent>,
}

impl SharedChain {
    /// A fresh chain whose wallet can pay for some hundred channels.
    pub(crate) fn new() -> SharedChain {
        let mut chain = KernelChain::in_memory().expect("Bitcoin Core's validation starts");
        let mut wallet = Wallet::new([77; 32]);
        let history = mine_until(&mut chain, &mut wallet, Sat(100_000_000_000)).expect("blocks are mined");
        SharedChain(Arc::new(Mutex::new(State { chain, wallet, history })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no thread panicked with the chain")
    }

    /// A transaction that pays for a channel, not broadcast.
    pub(crate) fn fund(&self, amount: Amount, script: ScriptBuf) -> Transaction {
        let mut state = self.state();
        let spend = state.wallet.fund(&[(script, Sat(amount.to_sat()))], FeeratePerKw(1_000)).unwrap();
        state.wallet.sent(spend.transaction.compute_txid());
        spend.transaction
    }

    /// Offers transactions to be mined. Both sides of a channel may offer the same.
    pub(crate) fn broadcast(&self, transactions: &[Transaction]) {
        let mut state = self.state();
        for transaction in transactions {
            state.chain.broadcast(transaction).expect("nodes broadcast valid transactions");
        }
    }

    /// Mines blocks; returns the steps.
    pub(crate) fn mine(&self, blocks: u32) -> Vec<ChainEvent> {
        let mut state = self.state();
        let reward_to = state.wallet.script_pubkey().clone();
        state.chain.mine(blocks, &reward_to).unwrap();
        let events = state.chain.poll().unwrap();
        for event in &events {
            state.wallet.apply(event);
        }
        state.history.extend(events.iter().cloned());
        events
    }

    /// Every step so far.
    pub(crate) fn history(&self) -> Vec<ChainEvent> {
        self.state().history.clone()
    }

    /// The height and hash of the tip.
    pub(crate) fn tip(&self) -> (BlockHeight, BlockHash) {
        let tip = self.state().chain.tip().unwrap();
        (tip.height, tip.hash)
    }

    /// Whether the output of a transaction is in the chain's recent blocks, spent by one of them.
    pub(crate) fn mempool_len(&self) -> usize {
        self.state().chain.mempool_txids().unwrap().len()
    }
}
