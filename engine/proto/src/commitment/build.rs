//! The commitment transaction (BOLT 3, "Commitment Transaction", "Transaction Output Ordering", "Commitment Transaction
//! Construction").
//!
//! Owns: which outputs a commitment has, their order, which output belongs to which HTLC, and the digests that both
//! sides sign. Does not sign.
//!
//! Invariant: outputs plus fee equal the funding amount; a trimmed HTLC has no output.

use core::cmp::Ordering;

use bitcoin::absolute::LockTime;
use bitcoin::transaction::Version;
use bitcoin::{Amount, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Txid, Witness};
use fulmen_wire::units::{FeeratePerKw, Msat, Sat, Signature};
use secp256k1::PublicKey;
use thiserror::Error;

use super::fee::{ANCHOR_OUTPUT, commitment_fee, untrimmed};
use super::script::{self, HtlcScripts, p2wpkh, p2wsh};
use super::second_stage::second_stage_digest;
use super::sighash::{Covers, OnlyInput, digest, encode, outputs_hash, two_of_two};
use super::{ChannelType, CommitmentHtlc, CommitmentParams, CommitmentSpec};
use crate::keys::{CommitmentKeys, CommitmentNumber};

/// The upper byte of a commitment's lock time, and of its input's sequence, beside the obscured number.
const LOCK_TIME_MARK: u32 = 0x20 << 24;
const SEQUENCE_MARK: u32 = 0x80 << 24;

/// Why a commitment cannot be built.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum CommitmentError {
    /// Balances and HTLCs do not add up to the channel's capacity.
    #[error("the commitment holds {held}, the channel {funding}")]
    Unbalanced {
        /// The sum of balances and HTLCs.
        held: Msat,
        /// The channel's capacity.
        funding: Sat,
    },
    /// The opener's balance cannot pay for the anchors: outputs would hold more than the channel. (A balance too small
    /// for the fee alone lowers the fee instead.)
    #[error(
        "the outputs of the commitment hold {outputs}, the channel {funding}: the opener cannot pay for anchors"
    )]
    AnchorsUnaffordable {
        /// The sum of the outputs.
        outputs: Sat,
        /// The channel's capacity.
        funding: Sat,
    },
}

/// One HTLC's output on a commitment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HtlcOutput {
    /// The HTLC.
    pub htlc: CommitmentHtlc,
    /// The index of its output.
    pub vout: u32,
    /// The output's amount: the HTLC's in whole satoshi.
    pub amount: Sat,
    /// The output's witness script.
    pub witness_script: ScriptBuf,
    /// The digest that the other side signs in `commitment_signed.htlc_signature`, with its HTLC key.
    pub digest: [u8; 32],
}

/// A commitment, unsigned, and all that its signing, verifying and spending need.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommitmentTx {
    /// The kind of commitment.
    pub channel_type: ChannelType,
    /// Its number.
    pub number: CommitmentNumber,
    /// Its fee rate.
    pub feerate: FeeratePerKw,
    /// The transaction, without witness.
    pub tx: Transaction,
    /// Its id.
    pub txid: Txid,
    /// Its fee: everything that has no output.
    pub fee: Sat,
    /// The digest that both sides sign with their funding keys.
    pub digest: [u8; 32],
    /// Its HTLC outputs, in the order of the transaction's outputs, which is the order of `htlc_signature`s.
    pub htlcs: Vec<HtlcOutput>,
    /// The index of the owner's output.
    pub to_local: Option<u32>,
    /// The index of the other side's output.
    pub to_remote: Option<u32>,
    /// The index of the owner's anchor.
    pub local_anchor: Option<u32>,
    /// The index of the other side's anchor.
    pub remote_anchor: Option<u32>,
    /// The keys it was built with.
    pub keys: CommitmentKeys,
    /// The witness script of `to_local` and of all second-stage outputs.
    pub delayed_script: ScriptBuf,
}

/// The purpose of an output.
#[derive(Clone, Copy)]
enum Purpose<'a> {
    ToLocal,
    ToRemote,
    LocalAnchor,
    RemoteAnchor,
    Htlc(&'a CommitmentHtlc),
}

/// An output before its place is known.
struct Draft<'a> {
    amount: Sat,
    script: ScriptBuf,
    /// Of HTLC outputs, where the output script only holds its hash.
    witness_script: ScriptBuf,
    purpose: Purpose<'a>,
}

impl Draft<'_> {
    /// BIP 69, then `cltv_expiry`. The id, last, makes the order total; HTLCs that differ in nothing else have equal
    /// transactions, so that both sides agree whichever stands first.
    fn order(&self, other: &Draft<'_>) -> Ordering {
        let tie = |draft: &Draft<'_>| match draft.purpose {
            Purpose::Htlc(htlc) => (htlc.cltv_expiry.0, htlc.id),
            _ => (0, 0),
        };
        self.amount
            .cmp(&other.amount)
            .then_with(|| self.script.as_bytes().cmp(other.script.as_bytes()))
            .then_with(|| tie(self).cmp(&tie(other)))
    }
}

impl CommitmentParams {
    /// The witness of the funding output, which makes a commitment or closing transaction valid.
    ///
    /// # Errors
    /// If either signature is not a well-formed compact ECDSA signature.
    pub fn funding_witness(
        &self,
        local: &Signature,
        remote: &Signature,
    ) -> Result<Witness, MalformedSignature> {
        funding_witness(
            (&self.local_funding_pubkey, local),
            (&self.remote_funding_pubkey, remote),
            &self.funding_script,
        )
    }
}

/// Bytes that were to go into a witness are not a signature. Verified signatures never are such bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("{0} is not an ECDSA signature")]
pub struct MalformedSignature(pub Signature);

/// The witness of a funding output, its signatures in the order of the keys.
pub(super) fn funding_witness(
    one: (&PublicKey, &Signature),
    other: (&PublicKey, &Signature),
    funding_script: &bitcoin::Script,
) -> Result<Witness, MalformedSignature> {
    let encoded =
        |signature: &Signature| encode(signature, Covers::All).ok_or(MalformedSignature(*signature));
    let (first, second) =
        if one.0.serialize() < other.0.serialize() { (one.1, other.1) } else { (other.1, one.1) };
    Ok(two_of_two([encoded(first)?, encoded(second)?], None, funding_script))
}

impl CommitmentTx {
    /// Builds commitment `number`.
    ///
    /// # Errors
    /// If balances and HTLCs do not add up to the funding amount, or the opener cannot pay for both anchors.
    pub fn build(
        params: &CommitmentParams,
        keys: &CommitmentKeys,
        number: CommitmentNumber,
        spec: &CommitmentSpec,
    ) -> Result<CommitmentTx, CommitmentError> {
        let held = spec.total();
        if params.funding_amount.checked_msat() != Some(held) {
            return Err(CommitmentError::Unbalanced { held, funding: params.funding_amount });
        }
        let delayed_script =
            script::delayed(&keys.revocation_pubkey, params.to_self_delay, &keys.local_delayed_pubkey);
        let mut drafts = drafts(params, keys, spec, &delayed_script);
        drafts.sort_unstable_by(Draft::order);
        let outputs: Sat = drafts.iter().map(|draft| draft.amount).sum();
        let Some(fee) = params.funding_amount.checked_sub(outputs) else {
            return Err(CommitmentError::AnchorsUnaffordable { outputs, funding: params.funding_amount });
        };

        let obscured = (number.0 ^ params.obscure_factor) & 0xffff_ffff_ffff;
        let tx = Transaction {
            version: Version::TWO,
            lock_time: LockTime::from_consensus(LOCK_TIME_MARK | (obscured & 0xff_ffff) as u32),
            input: vec![TxIn {
                previous_output: params.funding_outpoint,
                script_sig: ScriptBuf::new(),
                sequence: Sequence(SEQUENCE_MARK | (obscured >> 24) as u32),
                witness: Witness::new(),
            }],
            output: drafts
                .iter_mut()
                .map(|draft| TxOut {
                    value: Amount::from_sat(draft.amount.0),
                    script_pubkey: core::mem::take(&mut draft.script),
                })
                .collect(),
        };
        let paid: u64 = tx.output.iter().map(|output| output.value.to_sat()).sum();
        assert_eq!(
            Some(params.funding_amount),
            fee.checked_add(Sat(paid)),
            "outputs and fee add up to the funding"
        );
        let funding = OnlyInput {
            outpoint: params.funding_outpoint,
            sequence: tx.input[0].sequence,
            amount: params.funding_amount,
            witness_script: &params.funding_script,
        };
        let digest = digest(&funding, outputs_hash(&tx.output), tx.lock_time.to_consensus_u32(), Covers::All);
        let mut commitment = CommitmentTx {
            channel_type: params.channel_type,
            number,
            feerate: spec.feerate,
            txid: tx.compute_txid(),
            tx,
            fee,
            digest,
            htlcs: Vec::new(),
            to_local: None,
            to_remote: None,
            local_anchor: None,
            remote_anchor: None,
            keys: keys.clone(),
            delayed_script,
        };
        commitment.place(drafts);
        Ok(commitment)
    }

    /// Notes where each output ended up, and computes the digests of the HTLC transactions.
    fn place(&mut self, drafts: Vec<Draft<'_>>) {
        let second_stage_script = p2wsh(&self.delayed_script);
        for (draft, vout) in drafts.into_iter().zip(0..) {
            match draft.purpose {
                Purpose::ToLocal => self.to_local = Some(vout),
                Purpose::ToRemote => self.to_remote = Some(vout),
                Purpose::LocalAnchor => self.local_anchor = Some(vout),
                Purpose::RemoteAnchor => self.remote_anchor = Some(vout),
                Purpose::Htlc(htlc) => {
                    let outpoint = OutPoint { txid: self.txid, vout };
                    let digest = second_stage_digest(
                        self.channel_type,
                        self.feerate,
                        htlc,
                        (outpoint, draft.amount, &draft.witness_script),
                        &second_stage_script,
                    );
                    let (amount, witness_script) = (draft.amount, draft.witness_script);
                    self.htlcs.push(HtlcOutput { htlc: *htlc, vout, amount, witness_script, digest });
                }
            }
        }
    }

    /// The transaction with both signatures, ready to broadcast.
    ///
    /// # Errors
    /// If either signature is not a well-formed compact ECDSA signature.
    pub fn signed(
        &self,
        params: &CommitmentParams,
        local: &Signature,
        remote: &Signature,
    ) -> Result<Transaction, MalformedSignature> {
        let mut tx = self.tx.clone();
        tx.input[0].witness = params.funding_witness(local, remote)?;
        Ok(tx)
    }
}

/// The outputs of a commitment, in no order yet.
fn drafts<'a>(
    params: &CommitmentParams,
    keys: &CommitmentKeys,
    spec: &'a CommitmentSpec,
    delayed_script: &ScriptBuf,
) -> Vec<Draft<'a>> {
    let scripts = HtlcScripts::new(params.channel_type, keys);
    let plain = |amount, script, purpose| Draft { amount, script, witness_script: ScriptBuf::new(), purpose };
    let mut drafts = Vec::with_capacity(spec.htlcs.len() + 4);
    for htlc in untrimmed(params.channel_type, spec.feerate, params.dust_limit, &spec.htlcs) {
        let witness_script = scripts.script(htlc);
        drafts.push(Draft {
            amount: htlc.amount.floor_sat(),
            script: p2wsh(&witness_script),
            witness_script,
            purpose: Purpose::Htlc(htlc),
        });
    }
    let has_htlcs = !drafts.is_empty();
    let (to_local, to_remote) = balances(params, spec, drafts.len());
    let has_local = to_local >= params.dust_limit;
    let has_remote = to_remote >= params.dust_limit;
    if has_local {
        drafts.push(plain(to_local, p2wsh(delayed_script), Purpose::ToLocal));
    }
    if has_remote {
        let script = match params.channel_type {
            ChannelType::StaticRemotekey => p2wpkh(&keys.remote_pubkey),
            ChannelType::Anchors => p2wsh(&script::to_remote_anchors(&keys.remote_pubkey)),
        };
        drafts.push(plain(to_remote, script, Purpose::ToRemote));
    }
    if params.channel_type == ChannelType::Anchors {
        let anchor = |key| p2wsh(&script::anchor(key));
        if has_local || has_htlcs {
            drafts.push(plain(ANCHOR_OUTPUT, anchor(&params.local_funding_pubkey), Purpose::LocalAnchor));
        }
        if has_remote || has_htlcs {
            drafts.push(plain(ANCHOR_OUTPUT, anchor(&params.remote_funding_pubkey), Purpose::RemoteAnchor));
        }
    }
    drafts
}

/// Both sides' balances in whole satoshi after the opener paid for fee and anchors, as far as its balance goes.
fn balances(params: &CommitmentParams, spec: &CommitmentSpec, untrimmed: usize) -> (Sat, Sat) {
    let fee = commitment_fee(params.channel_type, spec.feerate, untrimmed);
    let cost = match params.channel_type {
        ChannelType::StaticRemotekey => fee,
        ChannelType::Anchors => fee.saturating_add(ANCHOR_OUTPUT).saturating_add(ANCHOR_OUTPUT),
    };
    let (local, remote) = (spec.to_local.floor_sat(), spec.to_remote.floor_sat());
    if params.local_is_opener {
        (local.saturating_sub(cost), remote)
    } else {
        (local, remote.saturating_sub(cost))
    }
}

/// The number of the commitment that `tx` is, if it spends a funding output the way commitments do.
#[must_use]
pub fn commitment_number(tx: &Transaction, obscure_factor: u64) -> Option<CommitmentNumber> {
    const LOW_24: u32 = 0xff_ffff;
    let [input] = tx.input.as_slice() else { return None };
    let (lock_time, sequence) = (tx.lock_time.to_consensus_u32(), input.sequence.0);
    if lock_time & !LOW_24 != LOCK_TIME_MARK || sequence & !LOW_24 != SEQUENCE_MARK {
        return None;
    }
    let obscured = u64::from(sequence & LOW_24) << 24 | u64::from(lock_time & LOW_24);
    Some(CommitmentNumber(obscured ^ obscure_factor))
}
