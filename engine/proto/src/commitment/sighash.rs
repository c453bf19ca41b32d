//! Signature digests of BOLT 3 transactions (BIP 143).
//!
//! Owns: the digest of an input of a transaction with one input, from its parts, without building or serializing the
//! transaction. Sweeps with several inputs use the general code of the `bitcoin` crate.
//!
//! Invariant: the digest is the one Bitcoin's consensus code computes; tests compare it with the `bitcoin` crate's.

use bitcoin::consensus::Encodable;
use bitcoin::hashes::{Hash, HashEngine, sha256, sha256d};
use bitcoin::{OutPoint, Script, Sequence, TxOut, Witness, ecdsa};
use fulmen_wire::units::{Sat, Signature};

use super::ChannelType;

/// Why writing into a hash cannot fail.
const NEVER_FAILS: &str = "a hash engine takes all bytes";

/// Which parts of a transaction a signature covers; the value is the byte that follows the signature in a witness.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Covers {
    /// `SIGHASH_ALL`.
    All,
    /// `SIGHASH_SINGLE|SIGHASH_ANYONECANPAY`: this input, and the output at its index.
    OnlyItsPair,
}

impl Covers {
    /// The coverage of the peer's signature of an HTLC transaction.
    pub(super) const fn of_peer_on_htlc(channel_type: ChannelType) -> Covers {
        match channel_type {
            ChannelType::StaticRemotekey => Covers::All,
            ChannelType::Anchors => Covers::OnlyItsPair,
        }
    }

    /// This coverage as a type of the `bitcoin` crate.
    const fn sighash_type(self) -> bitcoin::EcdsaSighashType {
        match self {
            Covers::All => bitcoin::EcdsaSighashType::All,
            Covers::OnlyItsPair => bitcoin::EcdsaSighashType::SinglePlusAnyoneCanPay,
        }
    }
}

/// The only input of a transaction.
pub(super) struct OnlyInput<'a> {
    pub(super) outpoint: OutPoint,
    pub(super) sequence: Sequence,
    pub(super) amount: Sat,
    pub(super) witness_script: &'a Script,
}

/// The hash of a transaction's outputs, as digests commit to it.
pub(super) fn outputs_hash<'a>(outputs: impl IntoIterator<Item = &'a TxOut>) -> sha256d::Hash {
    let mut engine = sha256d::Hash::engine();
    for output in outputs {
        output.consensus_encode(&mut engine).expect(NEVER_FAILS);
    }
    sha256d::Hash::from_engine(engine)
}

/// The digest of the only input of a version 2 transaction.
pub(super) fn digest(
    input: &OnlyInput<'_>,
    outputs: sha256d::Hash,
    lock_time: u32,
    covers: Covers,
) -> [u8; 32] {
    let zero = sha256d::Hash::all_zeros();
    let (prevouts, sequences) = match covers {
        Covers::All => {
            let mut engine = sha256d::Hash::engine();
            input.outpoint.consensus_encode(&mut engine).expect(NEVER_FAILS);
            (sha256d::Hash::from_engine(engine), sha256d::Hash::hash(&input.sequence.0.to_le_bytes()))
        }
        Covers::OnlyItsPair => (zero, zero),
    };
    let mut engine = sha256::Hash::engine();
    engine.input(&2u32.to_le_bytes());
    engine.input(prevouts.as_ref());
    engine.input(sequences.as_ref());
    input.outpoint.consensus_encode(&mut engine).expect(NEVER_FAILS);
    input.witness_script.consensus_encode(&mut engine).expect(NEVER_FAILS);
    engine.input(&input.amount.0.to_le_bytes());
    engine.input(&input.sequence.0.to_le_bytes());
    engine.input(outputs.as_ref());
    engine.input(&lock_time.to_le_bytes());
    engine.input(&covers.sighash_type().to_u32().to_le_bytes());
    sha256::Hash::from_engine(engine).hash_again().to_byte_array()
}

/// A signature as a witness carries it: DER, then the sighash byte. `None` when the bytes are out of
/// range for a signature; a verified signature never is.
pub(super) fn encode(signature: &Signature, covers: Covers) -> Option<ecdsa::Signature> {
    let signature = secp256k1::ecdsa::Signature::from_compact(&signature.0).ok()?;
    Some(ecdsa::Signature { signature, sighash_type: covers.sighash_type() })
}

/// The witness that spends a two-of-two output: the empty element that `OP_CHECKMULTISIG` consumes, the signatures in
/// the order of the keys in the script, the branch selector, and the script.
pub(super) fn two_of_two(
    signatures: [ecdsa::Signature; 2],
    selector: Option<&[u8]>,
    witness_script: &Script,
) -> Witness {
    let mut witness = Witness::new();
    witness.push([]);
    for signature in &signatures {
        witness.push_ecdsa_signature(signature);
    }
    if let Some(selector) = selector {
        witness.push(selector);
    }
    witness.push(witness_script.as_bytes());
    witness
}
