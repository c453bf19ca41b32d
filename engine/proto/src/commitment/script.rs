//! The scripts of BOLT 3 ("Funding Transaction Output", "Commitment Transaction Outputs").
//!
//! Owns: witness scripts and the output scripts that commit to them. Does not know amounts.
//!
//! Invariant: each function gives the one script BOLT 3 names, byte for byte.

use bitcoin::hashes::{Hash, HashEngine, hash160, ripemd160, sha256};
use bitcoin::opcodes::all as op;
use bitcoin::script::Builder;
use bitcoin::{Script, ScriptBuf, WPubkeyHash};
use fulmen_wire::units::{BlockHeight, CltvDelta, PaymentHash};
use secp256k1::PublicKey;

use super::{ChannelType, CommitmentHtlc, HtlcDirection};
use crate::keys::CommitmentKeys;

/// The longest script here (a received HTLC with anchors), so that none is reallocated as it grows.
const LONGEST: usize = 144;

/// A builder with room for any of our scripts.
fn builder() -> Builder {
    Builder::from(Vec::with_capacity(LONGEST))
}

/// The P2WSH output script that commits to `witness_script`.
pub(super) fn p2wsh(witness_script: &Script) -> ScriptBuf {
    ScriptBuf::new_p2wsh(&witness_script.wscript_hash())
}

/// The P2WPKH output script of `key`.
pub(super) fn p2wpkh(key: &PublicKey) -> ScriptBuf {
    ScriptBuf::new_p2wpkh(&WPubkeyHash::hash(&key.serialize()))
}

/// The witness script of the funding output: both keys must sign; the lesser key stands first.
#[must_use]
pub fn funding_script(one: &PublicKey, other: &PublicKey) -> ScriptBuf {
    let (one, other) = (one.serialize(), other.serialize());
    let (lesser, greater) = if one < other { (one, other) } else { (other, one) };
    builder()
        .push_opcode(op::OP_PUSHNUM_2)
        .push_slice(lesser)
        .push_slice(greater)
        .push_opcode(op::OP_PUSHNUM_2)
        .push_opcode(op::OP_CHECKMULTISIG)
        .into_script()
}

/// The output script of the funding output.
#[must_use]
pub fn funding_output_script(one: &PublicKey, other: &PublicKey) -> ScriptBuf {
    p2wsh(&funding_script(one, other))
}

/// The mask of commitment numbers: the lower 48 bits of the hash of both payment basepoints, the opener's
/// first.
#[must_use]
pub fn obscure_factor(opener_payment: &PublicKey, accepter_payment: &PublicKey) -> u64 {
    let mut engine = sha256::Hash::engine();
    engine.input(&opener_payment.serialize());
    engine.input(&accepter_payment.serialize());
    let hash = sha256::Hash::from_engine(engine).to_byte_array();
    hash[26..].iter().fold(0, |factor, byte| factor << 8 | u64::from(*byte))
}

/// The script of `to_local` and of second-stage outputs: delayed for the owner, open to whoever can revoke.
pub(super) fn delayed(revocation: &PublicKey, delay: CltvDelta, delayed: &PublicKey) -> ScriptBuf {
    builder()
        .push_opcode(op::OP_IF)
        .push_slice(revocation.serialize())
        .push_opcode(op::OP_ELSE)
        .push_int(i64::from(delay.0))
        .push_opcode(op::OP_CSV)
        .push_opcode(op::OP_DROP)
        .push_slice(delayed.serialize())
        .push_opcode(op::OP_ENDIF)
        .push_opcode(op::OP_CHECKSIG)
        .into_script()
}

/// The script of `to_remote` with anchors: one block's delay.
pub(super) fn to_remote_anchors(remote: &PublicKey) -> ScriptBuf {
    builder()
        .push_slice(remote.serialize())
        .push_opcode(op::OP_CHECKSIGVERIFY)
        .push_opcode(op::OP_PUSHNUM_1)
        .push_opcode(op::OP_CSV)
        .into_script()
}

/// The script of an anchor: its side at once, anyone after 16 blocks.
pub(super) fn anchor(funding: &PublicKey) -> ScriptBuf {
    builder()
        .push_slice(funding.serialize())
        .push_opcode(op::OP_CHECKSIG)
        .push_opcode(op::OP_IFDUP)
        .push_opcode(op::OP_NOTIF)
        .push_opcode(op::OP_PUSHNUM_16)
        .push_opcode(op::OP_CSV)
        .push_opcode(op::OP_ENDIF)
        .into_script()
}

/// The parts shared by all HTLC scripts of one commitment: its keys, hashed and serialized once.
pub(super) struct HtlcScripts {
    channel_type: ChannelType,
    revocation_hash: [u8; 20],
    local_htlc: [u8; 33],
    remote_htlc: [u8; 33],
}

impl HtlcScripts {
    /// Prepares the scripts of a commitment with these keys.
    pub(super) fn new(channel_type: ChannelType, keys: &CommitmentKeys) -> HtlcScripts {
        HtlcScripts {
            channel_type,
            revocation_hash: hash160::Hash::hash(&keys.revocation_pubkey.serialize()).to_byte_array(),
            local_htlc: keys.local_htlc_pubkey.serialize(),
            remote_htlc: keys.remote_htlc_pubkey.serialize(),
        }
    }

    /// The witness script of `htlc`'s output.
    pub(super) fn script(&self, htlc: &CommitmentHtlc) -> ScriptBuf {
        match htlc.direction {
            HtlcDirection::Offered => self.offered(&htlc.payment_hash),
            HtlcDirection::Received => self.received(&htlc.payment_hash, htlc.cltv_expiry),
        }
    }

    /// The common beginning of both scripts: revocation, or the other side's key and the size of its witness element.
    fn start(&self) -> Builder {
        builder()
            .push_opcode(op::OP_DUP)
            .push_opcode(op::OP_HASH160)
            .push_slice(self.revocation_hash)
            .push_opcode(op::OP_EQUAL)
            .push_opcode(op::OP_IF)
            .push_opcode(op::OP_CHECKSIG)
            .push_opcode(op::OP_ELSE)
            .push_slice(self.remote_htlc)
            .push_opcode(op::OP_SWAP)
            .push_opcode(op::OP_SIZE)
            .push_int(32)
            .push_opcode(op::OP_EQUAL)
    }

    /// Where the two scripts meet again.
    fn end(&self, script: Builder) -> ScriptBuf {
        let script = script.push_opcode(op::OP_CHECKSIG).push_opcode(op::OP_ENDIF);
        let script = match self.channel_type {
            ChannelType::StaticRemotekey => script,
            ChannelType::Anchors => {
                script.push_opcode(op::OP_PUSHNUM_1).push_opcode(op::OP_CSV).push_opcode(op::OP_DROP)
            }
        };
        script.push_opcode(op::OP_ENDIF).into_script()
    }

    /// An offered HTLC: the owner by HTLC-timeout, the other side with the preimage.
    fn offered(&self, hash: &PaymentHash) -> ScriptBuf {
        let script = self
            .start()
            .push_opcode(op::OP_NOTIF)
            .push_opcode(op::OP_DROP)
            .push_opcode(op::OP_PUSHNUM_2)
            .push_opcode(op::OP_SWAP)
            .push_slice(self.local_htlc)
            .push_opcode(op::OP_PUSHNUM_2)
            .push_opcode(op::OP_CHECKMULTISIG)
            .push_opcode(op::OP_ELSE)
            .push_opcode(op::OP_HASH160)
            .push_slice(ripemd160::Hash::hash(&hash.0).to_byte_array())
            .push_opcode(op::OP_EQUALVERIFY);
        self.end(script)
    }

    /// A received HTLC: the owner by HTLC-success with the preimage, the other side after `expiry`.
    fn received(&self, hash: &PaymentHash, expiry: BlockHeight) -> ScriptBuf {
        let script = self
            .start()
            .push_opcode(op::OP_IF)
            .push_opcode(op::OP_HASH160)
            .push_slice(ripemd160::Hash::hash(&hash.0).to_byte_array())
            .push_opcode(op::OP_EQUALVERIFY)
            .push_opcode(op::OP_PUSHNUM_2)
            .push_opcode(op::OP_SWAP)
            .push_slice(self.local_htlc)
            .push_opcode(op::OP_PUSHNUM_2)
            .push_opcode(op::OP_CHECKMULTISIG)
            .push_opcode(op::OP_ELSE)
            .push_opcode(op::OP_DROP)
            .push_int(i64::from(expiry.0))
            .push_opcode(op::OP_CLTV)
            .push_opcode(op::OP_DROP);
        self.end(script)
    }
}
