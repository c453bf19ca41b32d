//! The unspent outputs of the best chain.
//!
//! Owns the index that the mempool checks against: the engine keeps its own and offers no way to ask it. Does not
//! validate: it only follows blocks the engine accepted.
//!
//! Invariant: `disconnect` with the `Undo` of `connect` restores the index exactly.

use std::collections::HashMap;

use bitcoin::{Block, OutPoint, TxOut};
use fulmen_wire::units::BlockHeight;

/// An unspent output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Coin {
    /// Amount and script.
    pub(super) output: TxOut,
    /// The height of its block.
    pub(super) height: BlockHeight,
    /// Whether a coinbase made it.
    pub(super) coinbase: bool,
}

/// The coins that a block spent, in its order.
#[derive(Debug)]
pub(super) struct Undo(Vec<(OutPoint, Coin)>);

/// The unspent outputs of the best chain.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct UtxoSet {
    coins: HashMap<OutPoint, Coin>,
}

impl UtxoSet {
    pub(super) fn coin(&self, outpoint: &OutPoint) -> Option<&Coin> {
        self.coins.get(outpoint)
    }

    /// Applies a block the engine accepted.
    pub(super) fn connect(&mut self, height: BlockHeight, block: &Block) -> Undo {
        let mut spent = Vec::new();
        for (index, transaction) in block.txdata.iter().enumerate() {
            let coinbase = index == 0;
            if !coinbase {
                for input in &transaction.input {
                    let coin = self.coins.remove(&input.previous_output);
                    spent.push((
                        input.previous_output,
                        coin.expect("the engine accepted a block that spends this"),
                    ));
                }
            }
            let txid = transaction.compute_txid();
            for (vout, output) in (0..).zip(&transaction.output) {
                if !unspendable(output) {
                    let coin = Coin { output: output.clone(), height, coinbase };
                    self.coins.insert(OutPoint { txid, vout }, coin);
                }
            }
        }
        Undo(spent)
    }

    /// Takes back the block applied last.
    pub(super) fn disconnect(&mut self, block: &Block, undo: Undo) {
        // Outputs made and spent within the block come back here, and go with the block's other outputs below.
        for (outpoint, coin) in undo.0 {
            self.coins.insert(outpoint, coin);
        }
        for transaction in &block.txdata {
            let txid = transaction.compute_txid();
            for vout in 0..transaction.output.len() as u32 {
                self.coins.remove(&OutPoint { txid, vout });
            }
        }
    }
}

/// Whether no script can spend the output, so that the engine does not index it either.
fn unspendable(output: &TxOut) -> bool {
    output.script_pubkey.is_op_return() || output.script_pubkey.len() > MAX_SCRIPT_BYTES
}

/// The longest script that can be run.
const MAX_SCRIPT_BYTES: usize = 10_000;
