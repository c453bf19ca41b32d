//! A chain without consensus: blocks of the broadcast transactions.
//!
//! Does not validate transactions, except that no output is spent twice, as by two different closing transactions of
//! one channel. Real consensus is tested with the engine's chain backends.

use std::collections::BTreeMap;
use std::sync::Arc;

use bitcoin::block::{Header, Version};
use bitcoin::hashes::Hash;
use bitcoin::{
    Amount, Block, BlockHash, CompactTarget, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxMerkleNode,
    TxOut, Txid, Witness,
};
use fulmen_wire::units::{BlockHeight, Sat};

/// The blocks, and the transactions for the next one.
#[derive(Clone, Debug, Default)]
pub(crate) struct SimChain {
    blocks: Vec<Arc<Block>>,
    waiting: Vec<Transaction>,
    spends: BTreeMap<OutPoint, Transaction>,
}

impl SimChain {
    /// The block at a height, the first one having height 1.
    pub(crate) fn block(&self, height: BlockHeight) -> Arc<Block> {
        Arc::clone(&self.blocks[height.0 as usize - 1])
    }

    /// Queues a transaction for the next block; fails with the id of another one that already spends the same output.
    pub(crate) fn broadcast(&mut self, transaction: &Transaction) -> Result<(), Txid> {
        let spent = transaction.input.iter().find_map(|input| self.spends.get(&input.previous_output));
        if let Some(known) = spent {
            let (known, found) = (known.compute_txid(), transaction.compute_txid());
            return if known == found { Ok(()) } else { Err(known) };
        }
        for input in &transaction.input {
            self.spends.insert(input.previous_output, transaction.clone());
        }
        self.waiting.push(transaction.clone());
        Ok(())
    }

    /// The transaction that spends an output, mined or waiting.
    pub(crate) fn spender(&self, outpoint: &OutPoint) -> Option<&Transaction> {
        self.spends.get(outpoint)
    }

    /// The height of the latest block; zero without one.
    pub(crate) fn height(&self) -> BlockHeight {
        BlockHeight(self.blocks.len() as u32)
    }

    pub(crate) fn mine(&mut self) -> BlockHeight {
        let height = self.blocks.len() as u32 + 1;
        let mut txdata = vec![coinbase(height)];
        txdata.append(&mut self.waiting);
        let prev_blockhash = self.blocks.last().map_or(BlockHash::all_zeros(), |block| block.block_hash());
        let header = Header {
            version: Version::TWO,
            prev_blockhash,
            merkle_root: TxMerkleNode::all_zeros(),
            time: height,
            bits: CompactTarget::from_consensus(0x207f_ffff),
            nonce: 0,
        };
        self.blocks.push(Arc::new(Block { header, txdata }));
        BlockHeight(height)
    }
}

/// The transaction that funds a channel; its input belongs to nobody and differs for each `number`.
pub(crate) fn funding_transaction(number: u64, amount: Sat, script_pubkey: ScriptBuf) -> Transaction {
    let mut previous = [0xfd; 32];
    previous[..8].copy_from_slice(&number.to_le_bytes());
    let outpoint = OutPoint::new(Txid::from_byte_array(previous), 0);
    transaction(outpoint, TxOut { value: Amount::from_sat(amount.0), script_pubkey })
}

fn coinbase(height: u32) -> Transaction {
    let mut outpoint = OutPoint::null();
    outpoint.vout = height;
    transaction(outpoint, TxOut { value: Amount::ZERO, script_pubkey: ScriptBuf::new() })
}

fn transaction(previous_output: OutPoint, output: TxOut) -> Transaction {
    Transaction {
        version: bitcoin::transaction::Version::TWO,
        lock_time: bitcoin::absolute::LockTime::ZERO,
        input: vec![TxIn {
            previous_output,
            script_sig: ScriptBuf::new(),
            sequence: Sequence::MAX,
            witness: Witness::new(),
        }],
        output: vec![output],
    }
}
