//! Blocks of our own making, for both backends.
//!
//! Owns the form of a regtest block: coinbase with its height (BIP 34), witness commitment (BIP 141), merkle root,
//! time and proof of work. Does not choose transactions nor decide whether they are valid.
//!
//! Invariant: a block assembled from valid transactions, in order, with the fees they pay, is valid on its parent.

use bitcoin::absolute::LockTime;
use bitcoin::block::{Header, Version};
use bitcoin::hashes::Hash;
use bitcoin::script::{Builder, PushBytesBuf};
use bitcoin::transaction;
use bitcoin::{
    Amount, Block, BlockHash, CompactTarget, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxMerkleNode,
    TxOut, Witness,
};
use fulmen_wire::units::{BlockHeight, Sat};

use crate::regtest_subsidy;

/// The place of a block and the receiver of its reward.
pub(super) struct Slot<'a> {
    /// The parent's hash.
    pub(super) parent: BlockHash,
    /// The block's own height.
    pub(super) height: BlockHeight,
    /// Its time in seconds since 1970: above the median of the last eleven.
    pub(super) time: u32,
    /// Who gets subsidy and fees.
    pub(super) reward_to: &'a ScriptBuf,
    /// Sets this block's coinbase apart from that of a sibling at the same height.
    pub(super) tag: [u8; 8],
}

/// The block at `slot` with `transactions`, which pay `fees` in total.
pub(super) fn block(slot: &Slot<'_>, transactions: Vec<Transaction>, fees: Sat) -> Block {
    let mut txdata = Vec::with_capacity(transactions.len() + 1);
    txdata.push(coinbase(slot, fees));
    txdata.extend(transactions);
    let header = Header {
        version: Version::from_consensus(0x2000_0000),
        prev_blockhash: slot.parent,
        merkle_root: TxMerkleNode::all_zeros(),
        time: slot.time,
        bits: CompactTarget::from_consensus(REGTEST_BITS),
        nonce: 0,
    };
    let mut block = Block { header, txdata };
    commit_to_witnesses(&mut block);
    block.header.merkle_root =
        block.compute_merkle_root().expect("a block with a coinbase has a merkle root");
    grind(&mut block.header);
    block
}

/// The tag of a branch that replaces the chain up to `tip`: it keeps the branch apart from the blocks it replaces, even
/// when the blocks of both are empty and pay the same script.
pub(super) fn branch_tag(tip: BlockHash) -> [u8; 8] {
    let mut tag = [0; 8];
    tag.copy_from_slice(&tip.as_byte_array()[..8]);
    tag
}

/// The coinbase without its witness commitment.
fn coinbase(slot: &Slot<'_>, fees: Sat) -> Transaction {
    let reward = regtest_subsidy(slot.height).saturating_add(fees);
    let height = Builder::new().push_int(i64::from(slot.height.0)).push_slice(slot.tag);
    Transaction {
        version: transaction::Version::TWO,
        lock_time: LockTime::ZERO,
        input: vec![TxIn {
            previous_output: OutPoint::null(),
            script_sig: height.into_script(),
            sequence: Sequence::MAX,
            witness: Witness::from_slice(&[WITNESS_NONCE]),
        }],
        output: vec![TxOut { value: Amount::from_sat(reward.0), script_pubkey: slot.reward_to.clone() }],
    }
}

/// Adds the output that commits to every witness of the block (BIP 141).
fn commit_to_witnesses(block: &mut Block) {
    let root = block.witness_root().expect("a block with a coinbase has a witness root");
    let commitment = Block::compute_witness_commitment(&root, &WITNESS_NONCE);
    let mut push = PushBytesBuf::new();
    push.extend_from_slice(&[0xaa, 0x21, 0xa9, 0xed]).expect("four bytes fit a push");
    push.extend_from_slice(commitment.as_byte_array()).expect("36 bytes fit a push");
    let output = TxOut { value: Amount::ZERO, script_pubkey: ScriptBuf::new_op_return(push) };
    block.txdata[0].output.push(output);
}

/// Finds the nonce: one in two will do on regtest.
fn grind(header: &mut Header) {
    let target = header.target();
    while !target.is_met_by(header.block_hash()) {
        header.nonce = header.nonce.checked_add(1).expect("every second nonce meets the regtest target");
    }
}

/// The one target of a regtest chain.
const REGTEST_BITS: u32 = 0x207f_ffff;

/// The reserved value the witness commitment covers besides the witnesses.
const WITNESS_NONCE: [u8; 32] = [0; 32];
