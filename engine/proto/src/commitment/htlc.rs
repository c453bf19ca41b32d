//! HTLC-success and HTLC-timeout transactions (BOLT 3, "HTLC-Timeout and HTLC-Success Transactions").
//!
//! Owns: building the second-stage transaction of an HTLC output, its owner's digest and its witness. The digest that
//! the other side signs is computed without the transaction; see [`second_stage`](super::second_stage).
//!
//! Invariant: both digests are those of the transaction built here.

use bitcoin::absolute::LockTime;
use bitcoin::hashes::{Hash, sha256};
use bitcoin::sighash::SighashCache;
use bitcoin::transaction::Version;
use bitcoin::{Amount, EcdsaSighashType, OutPoint, ScriptBuf, Transaction, TxIn, Txid, Witness};
use fulmen_wire::units::{PaymentPreimage, Sat, Signature};
use thiserror::Error;

use super::build::{CommitmentTx, HtlcOutput, MalformedSignature};
use super::script::p2wsh;
use super::second_stage::{lock_time, second_stage_output, sequence};
use super::sighash::{Covers, OnlyInput, digest, encode, outputs_hash, two_of_two};
use super::{ChannelType, HtlcDirection};

/// Why an HTLC transaction's witness cannot be assembled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum HtlcWitnessError {
    /// HTLC-success needs the preimage.
    #[error("HTLC-success needs a preimage")]
    MissingPreimage,
    /// HTLC-timeout takes none.
    #[error("HTLC-timeout takes no preimage")]
    UnexpectedPreimage,
    /// The preimage belongs to another hash.
    #[error("the preimage does not hash to the HTLC's payment hash")]
    WrongPreimage,
    /// A signature is none.
    #[error(transparent)]
    Signature(#[from] MalformedSignature),
}

/// The second-stage transaction of one HTLC output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HtlcTx {
    /// The transaction, without witness.
    pub tx: Transaction,
    /// Its id (which holds only as long as no input or output is added, as anchors allow).
    pub txid: Txid,
    /// The amount of its output.
    pub amount: Sat,
    /// The digest that the owner signs with its HTLC key when it broadcasts the transaction as it is.
    pub local_digest: [u8; 32],
    channel_type: ChannelType,
    output: HtlcOutput,
}

impl CommitmentTx {
    /// The second-stage transaction of `output`, which must be one of this commitment's: HTLC-timeout for an offered
    /// HTLC, HTLC-success for a received one.
    #[must_use]
    pub fn htlc_tx(&self, output: &HtlcOutput) -> HtlcTx {
        let outpoint = OutPoint { txid: self.txid, vout: output.vout };
        let script = p2wsh(&self.delayed_script);
        let spent = second_stage_output(self.channel_type, self.feerate, &output.htlc, &script);
        let input = OnlyInput {
            outpoint,
            sequence: sequence(self.channel_type),
            amount: output.amount,
            witness_script: &output.witness_script,
        };
        let local_digest = digest(&input, outputs_hash([&spent]), lock_time(&output.htlc), Covers::All);
        let tx = Transaction {
            version: Version::TWO,
            lock_time: LockTime::from_consensus(lock_time(&output.htlc)),
            input: vec![TxIn {
                previous_output: outpoint,
                script_sig: ScriptBuf::new(),
                sequence: sequence(self.channel_type),
                witness: Witness::new(),
            }],
            output: vec![spent],
        };
        HtlcTx {
            txid: tx.compute_txid(),
            amount: Sat(tx.output[0].value.to_sat()),
            tx,
            local_digest,
            channel_type: self.channel_type,
            output: output.clone(),
        }
    }
}

impl HtlcTx {
    /// The HTLC output it spends.
    #[must_use]
    pub const fn spends(&self) -> &HtlcOutput {
        &self.output
    }

    /// The witness: the other side's signature of [`HtlcOutput::digest`], the owner's of [`HtlcTx::local_digest`], and
    /// the preimage if the HTLC was received.
    ///
    /// # Errors
    /// If the preimage is missing, superfluous or wrong, or a signature is not well-formed.
    pub fn witness(
        &self,
        remote: &Signature,
        local: &Signature,
        preimage: Option<&PaymentPreimage>,
    ) -> Result<Witness, HtlcWitnessError> {
        let selector: &[u8] = match (self.output.htlc.direction, preimage) {
            (HtlcDirection::Offered, None) => &[],
            (HtlcDirection::Offered, Some(_)) => return Err(HtlcWitnessError::UnexpectedPreimage),
            (HtlcDirection::Received, None) => return Err(HtlcWitnessError::MissingPreimage),
            (HtlcDirection::Received, Some(preimage)) => {
                if sha256::Hash::hash(&preimage.0).to_byte_array() != self.output.htlc.payment_hash.0 {
                    return Err(HtlcWitnessError::WrongPreimage);
                }
                &preimage.0
            }
        };
        let remote_covers = Covers::of_peer_on_htlc(self.channel_type);
        let remote = encode(remote, remote_covers).ok_or(MalformedSignature(*remote))?;
        let local = encode(local, Covers::All).ok_or(MalformedSignature(*local))?;
        Ok(two_of_two([remote, local], Some(selector), &self.output.witness_script))
    }

    /// The digest that the owner signs when input `index` of `tx` spends the HTLC output: with anchors, inputs and
    /// outputs may be added to pay a fee. `None` if `tx` has no such input, or it spends something else.
    #[must_use]
    pub fn local_digest_in(&self, tx: &Transaction, index: usize) -> Option<[u8; 32]> {
        let input = tx.input.get(index)?;
        if input.previous_output != self.tx.input[0].previous_output {
            return None;
        }
        let amount = Amount::from_sat(self.output.amount.0);
        SighashCache::new(tx)
            .p2wsh_signature_hash(index, &self.output.witness_script, amount, EcdsaSighashType::All)
            .ok()
            .map(|digest| digest.to_byte_array())
    }

    /// The transaction with its witness, ready to broadcast.
    ///
    /// # Errors
    /// If the preimage is missing, superfluous or wrong, or a signature is not well-formed.
    pub fn signed(
        &self,
        remote: &Signature,
        local: &Signature,
        preimage: Option<&PaymentPreimage>,
    ) -> Result<Transaction, HtlcWitnessError> {
        let mut tx = self.tx.clone();
        tx.input[0].witness = self.witness(remote, local, preimage)?;
        Ok(tx)
    }
}
