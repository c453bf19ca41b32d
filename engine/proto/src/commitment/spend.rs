//! Spends of commitment and second-stage outputs (BOLT 3, BOLT 5).
//!
//! Owns: every way an output of a commitment or HTLC transaction can be spent other than by an HTLC transaction: by its
//! owner after the delay, by the other side, by whoever punishes a revoked commitment, by anyone. Builds the
//! transaction that sweeps a set of them, its digests and witnesses. Does not decide which to sweep, nor when.
//!
//! Invariant: a spend carries the sequence and lock time its script demands, so that a sweep cannot be final too early.

use bitcoin::absolute::LockTime;
use bitcoin::hashes::Hash;
use bitcoin::sighash::SighashCache;
use bitcoin::transaction::Version;
use bitcoin::{Amount, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Witness};
use fulmen_wire::units::{BlockHeight, FeeratePerKw, PaymentPreimage, Sat, Signature};
use secp256k1::{PublicKey, SecretKey};
use thiserror::Error;

use super::build::{CommitmentTx, HtlcOutput, MalformedSignature};
use super::fee::ANCHOR_OUTPUT;
use super::htlc::HtlcTx;
use super::script::{self, p2wpkh};
use super::sighash::{Covers, encode};
use super::{ChannelType, CommitmentParams, HtlcDirection};
use crate::keys::sign;

/// A signature's longest DER form, with the sighash byte.
const LONGEST_SIGNATURE: usize = 73;

/// Whose anchor, as the commitment's owner sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Anchor {
    /// The owner's.
    Local,
    /// The other side's.
    Remote,
}

/// One input of a sweep: an output, and the way it is spent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutputSpend {
    /// The output.
    pub outpoint: OutPoint,
    /// Its amount.
    pub amount: Sat,
    /// The sequence the input needs; it delays the spend where the script does.
    pub sequence: Sequence,
    /// The lock time the transaction needs, or zero.
    pub lock_time: BlockHeight,
    lock: Lock,
}

/// The script that locks an output, and the branch taken through it.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Lock {
    /// P2WPKH.
    Key(PublicKey),
    /// P2WSH.
    Script { witness_script: ScriptBuf, branch: Branch },
}

/// The elements of a witness besides the script.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Branch {
    /// A signature alone.
    Signature,
    /// A signature and an empty element: the delayed branch, or a timeout.
    SignatureAndNothing,
    /// A signature and `1`: revocation of a delayed output.
    SignatureAndOne,
    /// A signature and the revocation key: revocation of an HTLC output.
    SignatureAndKey(PublicKey),
    /// A signature and a preimage.
    SignatureAndPreimage(PaymentPreimage),
    /// An empty element, for anyone.
    Nothing,
}

/// A sequence that neither delays an input nor finalises its transaction.
const NO_DELAY: Sequence = Sequence::ENABLE_RBF_NO_LOCKTIME;

impl OutputSpend {
    /// Whether a signature is needed: all spends but anyone's of an anchor.
    #[must_use]
    pub fn needs_signature(&self) -> bool {
        !matches!(self.lock, Lock::Script { branch: Branch::Nothing, .. })
    }

    /// The script of the output that is spent.
    #[must_use]
    pub fn script_pubkey(&self) -> ScriptBuf {
        match &self.lock {
            Lock::Key(key) => p2wpkh(key),
            Lock::Script { witness_script, .. } => script::p2wsh(witness_script),
        }
    }

    /// The digest to sign for this spend as input `index` of `tx`; the signature covers the whole transaction.
    ///
    /// # Panics
    /// If `tx` has no input `index`.
    #[must_use]
    pub fn digest(&self, tx: &Transaction, index: usize) -> [u8; 32] {
        self.digest_cached(&mut SighashCache::new(tx), index)
    }

    /// As [`OutputSpend::digest`], sharing the hashes common to all inputs of one transaction.
    fn digest_cached(&self, cache: &mut SighashCache<&Transaction>, index: usize) -> [u8; 32] {
        let amount = Amount::from_sat(self.amount.0);
        let all = bitcoin::EcdsaSighashType::All;
        let digest = match &self.lock {
            Lock::Key(key) => cache.p2wpkh_signature_hash(index, &p2wpkh(key), amount, all).ok(),
            Lock::Script { witness_script, .. } => {
                cache.p2wsh_signature_hash(index, witness_script, amount, all).ok()
            }
        };
        digest.expect("the input exists and the script is the one it pays to").to_byte_array()
    }

    /// The witness, given the signature of [`OutputSpend::digest`]; it is ignored where none is needed.
    ///
    /// # Errors
    /// If a signature is needed and this one is not well-formed.
    pub fn witness(&self, signature: &Signature) -> Result<Witness, MalformedSignature> {
        let mut witness = Witness::new();
        if self.needs_signature() {
            let encoded = encode(signature, Covers::All).ok_or(MalformedSignature(*signature))?;
            witness.push_ecdsa_signature(&encoded);
        }
        match &self.lock {
            Lock::Key(key) => witness.push(key.serialize()),
            Lock::Script { witness_script, branch } => {
                match branch {
                    Branch::Signature => {}
                    Branch::SignatureAndNothing | Branch::Nothing => witness.push([]),
                    Branch::SignatureAndOne => witness.push([1]),
                    Branch::SignatureAndKey(key) => witness.push(key.serialize()),
                    Branch::SignatureAndPreimage(preimage) => witness.push(preimage.0),
                }
                witness.push(witness_script.as_bytes());
            }
        }
        Ok(witness)
    }

    /// The weight of the input with its witness, signatures at their longest.
    fn weight(&self) -> u64 {
        let signature = usize::from(self.needs_signature()) * (1 + LONGEST_SIGNATURE);
        let rest = match &self.lock {
            Lock::Key(_) => 1 + 33,
            Lock::Script { witness_script, branch } => {
                let selector = match branch {
                    Branch::Signature => 0,
                    Branch::SignatureAndNothing | Branch::Nothing => 1,
                    Branch::SignatureAndOne => 1 + 1,
                    Branch::SignatureAndKey(_) => 1 + 33,
                    Branch::SignatureAndPreimage(_) => 1 + 32,
                };
                selector + 1 + witness_script.len()
            }
        };
        // Outpoint, empty script and sequence count four times; the witness, with its count of elements, once.
        (41 * 4 + 1 + signature + rest) as u64
    }
}

impl CommitmentTx {
    /// A spend of output `vout` of this commitment.
    fn spend(&self, vout: u32, amount: Sat, sequence: Sequence, lock: Lock) -> OutputSpend {
        let outpoint = OutPoint { txid: self.txid, vout };
        OutputSpend { outpoint, amount, sequence, lock_time: BlockHeight(0), lock }
    }

    /// The amount of output `vout`.
    fn amount_at(&self, vout: u32) -> Sat {
        Sat(self.tx.output[vout as usize].value.to_sat())
    }

    /// The owner's spend of `to_local`, after the delay. Signed with the owner's delayed key.
    #[must_use]
    pub fn to_local_spend(&self, params: &CommitmentParams) -> Option<OutputSpend> {
        let vout = self.to_local?;
        let sequence = Sequence::from_height(params.to_self_delay.0);
        let lock =
            Lock::Script { witness_script: self.delayed_script.clone(), branch: Branch::SignatureAndNothing };
        Some(self.spend(vout, self.amount_at(vout), sequence, lock))
    }

    /// The other side's spend of `to_local` once the commitment is revoked. Signed with the revocation key.
    #[must_use]
    pub fn to_local_penalty(&self) -> Option<OutputSpend> {
        let vout = self.to_local?;
        let lock =
            Lock::Script { witness_script: self.delayed_script.clone(), branch: Branch::SignatureAndOne };
        Some(self.spend(vout, self.amount_at(vout), NO_DELAY, lock))
    }

    /// The other side's spend of `to_remote`; with anchors, one block late. Signed with its plain payment key.
    #[must_use]
    pub fn to_remote_spend(&self) -> Option<OutputSpend> {
        let vout = self.to_remote?;
        let (sequence, lock) = match self.channel_type {
            ChannelType::StaticRemotekey => (NO_DELAY, Lock::Key(self.keys.remote_pubkey)),
            ChannelType::Anchors => {
                let witness_script = script::to_remote_anchors(&self.keys.remote_pubkey);
                (Sequence(1), Lock::Script { witness_script, branch: Branch::Signature })
            }
        };
        Some(self.spend(vout, self.amount_at(vout), sequence, lock))
    }

    /// The output and key of an anchor, if it exists.
    fn anchor(&self, params: &CommitmentParams, anchor: Anchor) -> Option<(u32, ScriptBuf)> {
        let (vout, key) = match anchor {
            Anchor::Local => (self.local_anchor, &params.local_funding_pubkey),
            Anchor::Remote => (self.remote_anchor, &params.remote_funding_pubkey),
        };
        vout.map(|vout| (vout, script::anchor(key)))
    }

    /// An anchor's spend by the side it belongs to, at once. Signed with that side's funding key.
    #[must_use]
    pub fn anchor_spend(&self, params: &CommitmentParams, anchor: Anchor) -> Option<OutputSpend> {
        let (vout, witness_script) = self.anchor(params, anchor)?;
        let lock = Lock::Script { witness_script, branch: Branch::Signature };
        Some(self.spend(vout, ANCHOR_OUTPUT, NO_DELAY, lock))
    }

    /// An anchor's spend by anyone, 16 blocks after the commitment. Needs no signature.
    #[must_use]
    pub fn anchor_spend_by_anyone(&self, params: &CommitmentParams, anchor: Anchor) -> Option<OutputSpend> {
        let (vout, witness_script) = self.anchor(params, anchor)?;
        let lock = Lock::Script { witness_script, branch: Branch::Nothing };
        Some(self.spend(vout, ANCHOR_OUTPUT, Sequence(16), lock))
    }

    /// The other side's spend of an HTLC output once the commitment is revoked. Signed with the revocation key.
    #[must_use]
    pub fn htlc_penalty(&self, output: &HtlcOutput) -> OutputSpend {
        let branch = Branch::SignatureAndKey(self.keys.revocation_pubkey);
        let lock = Lock::Script { witness_script: output.witness_script.clone(), branch };
        self.spend(output.vout, output.amount, NO_DELAY, lock)
    }

    /// The other side's spend of an HTLC output by right: with the preimage if the owner offered the HTLC, after the
    /// timeout if the owner received it. Signed with the other side's HTLC key. `None` when a preimage is missing, or
    /// given where none belongs.
    #[must_use]
    pub fn htlc_spend_by_remote(
        &self,
        output: &HtlcOutput,
        preimage: Option<&PaymentPreimage>,
    ) -> Option<OutputSpend> {
        let (branch, lock_time) = match (output.htlc.direction, preimage) {
            (HtlcDirection::Offered, Some(preimage)) => {
                (Branch::SignatureAndPreimage(*preimage), BlockHeight(0))
            }
            (HtlcDirection::Received, None) => (Branch::SignatureAndNothing, output.htlc.cltv_expiry),
            (HtlcDirection::Offered, None) | (HtlcDirection::Received, Some(_)) => return None,
        };
        let sequence = match self.channel_type {
            ChannelType::StaticRemotekey => NO_DELAY,
            ChannelType::Anchors => Sequence(1),
        };
        let lock = Lock::Script { witness_script: output.witness_script.clone(), branch };
        Some(OutputSpend { lock_time, ..self.spend(output.vout, output.amount, sequence, lock) })
    }

    /// The owner's spend of an HTLC transaction's output, after the delay. Signed with the owner's delayed key.
    #[must_use]
    pub fn second_stage_spend(&self, params: &CommitmentParams, htlc: &HtlcTx) -> OutputSpend {
        let sequence = Sequence::from_height(params.to_self_delay.0);
        self.second_stage(
            OutPoint { txid: htlc.txid, vout: 0 },
            htlc.amount,
            sequence,
            Branch::SignatureAndNothing,
        )
    }

    /// The other side's spend of a second-stage output once the commitment is revoked. Signed with the revocation key.
    ///
    /// With anchors an HTLC transaction can be joined with others, so that its output is where the chain shows it: the
    /// output at the index of the input that spends the HTLC.
    #[must_use]
    pub fn second_stage_penalty(&self, outpoint: OutPoint, amount: Sat) -> OutputSpend {
        self.second_stage(outpoint, amount, NO_DELAY, Branch::SignatureAndOne)
    }

    /// A spend of a second-stage output.
    fn second_stage(
        &self,
        outpoint: OutPoint,
        amount: Sat,
        sequence: Sequence,
        branch: Branch,
    ) -> OutputSpend {
        let lock = Lock::Script { witness_script: self.delayed_script.clone(), branch };
        OutputSpend { outpoint, amount, sequence, lock_time: BlockHeight(0), lock }
    }
}

/// Why a sweep cannot be built.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SweepError {
    /// There is nothing to sweep.
    #[error("a sweep needs at least one output to spend")]
    Empty,
    /// The fee would take the whole amount.
    #[error("outputs worth {value} cannot pay a fee of {fee} and leave {dust_limit}")]
    Uneconomical {
        /// The sum of the outputs to spend.
        value: Sat,
        /// The fee.
        fee: Sat,
        /// The least that must remain.
        dust_limit: Sat,
    },
}

/// A transaction that sweeps outputs to one script, unsigned; a penalty transaction is a sweep of penalty spends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sweep {
    /// The transaction, without witnesses.
    pub tx: Transaction,
    /// Its fee.
    pub fee: Sat,
    spends: Vec<OutputSpend>,
}

/// Builds the transaction that sweeps `spends` to `destination` at `feerate`.
///
/// # Errors
/// If there is nothing to spend, or the fee would leave less than the dust limit of `destination`.
pub fn sweep(
    spends: Vec<OutputSpend>,
    destination: ScriptBuf,
    feerate: FeeratePerKw,
) -> Result<Sweep, SweepError> {
    if spends.is_empty() {
        return Err(SweepError::Empty);
    }
    let value: Sat = spends.iter().map(|spend| spend.amount).sum();
    let dust_limit = Sat(destination.minimal_non_dust().to_sat());
    // Version, lock time, counts of inputs (at most three bytes) and outputs; then the mark of a segwit transaction.
    let fixed = (4 + 4 + 3 + 1 + 8 + 1 + destination.len() as u64) * 4 + 2;
    let fee = feerate.fee(fixed + spends.iter().map(OutputSpend::weight).sum::<u64>());
    let kept = value.checked_sub(fee).filter(|kept| *kept >= dust_limit && *kept > Sat::ZERO);
    let Some(kept) = kept else {
        return Err(SweepError::Uneconomical { value, fee, dust_limit });
    };
    let lock_time = spends.iter().map(|spend| spend.lock_time.0).max().unwrap_or(0);
    let input = spends.iter().map(|spend| TxIn {
        previous_output: spend.outpoint,
        script_sig: ScriptBuf::new(),
        sequence: spend.sequence,
        witness: Witness::new(),
    });
    let tx = Transaction {
        version: Version::TWO,
        lock_time: LockTime::from_consensus(lock_time),
        input: input.collect(),
        output: vec![TxOut { value: Amount::from_sat(kept.0), script_pubkey: destination }],
    };
    Ok(Sweep { tx, fee, spends })
}

impl Sweep {
    /// The outputs it spends, in the order of its inputs.
    #[must_use]
    pub fn spends(&self) -> &[OutputSpend] {
        &self.spends
    }

    /// The digests to sign, one an input.
    #[must_use]
    pub fn digests(&self) -> Vec<[u8; 32]> {
        let mut cache = SighashCache::new(&self.tx);
        self.spends.iter().enumerate().map(|(index, spend)| spend.digest_cached(&mut cache, index)).collect()
    }

    /// Signs each input that needs it with the key `key_of` gives for it, and returns the transaction ready to
    /// broadcast.
    #[must_use]
    pub fn signed(&self, key_of: impl Fn(&OutputSpend) -> SecretKey) -> Transaction {
        let mut tx = self.tx.clone();
        for ((input, spend), digest) in tx.input.iter_mut().zip(&self.spends).zip(self.digests()) {
            let signature =
                if spend.needs_signature() { sign(&digest, &key_of(spend)) } else { Signature([0; 64]) };
            input.witness = spend.witness(&signature).expect("a signature just made is well-formed");
        }
        tx
    }
}
