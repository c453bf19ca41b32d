//! The closing transaction (BOLT 3, "Legacy Closing Transaction").
//!
//! Owns: the transaction both sides sign with `closing_signed`. Does not negotiate its fee.
//!
//! Invariant: outputs plus fee equal the funding amount; there is at least one output.

use bitcoin::absolute::LockTime;
use bitcoin::transaction::Version;
use bitcoin::{Amount, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Witness};
use fulmen_wire::units::{Msat, Sat, Signature};
use secp256k1::PublicKey;
use thiserror::Error;

use super::build::{MalformedSignature, funding_witness};
use super::script::funding_script;
use super::sighash::{Covers, OnlyInput, digest, outputs_hash};

/// The parameters of a closing transaction. *Local* and *remote* are the two sides in either order; the transaction is
/// the same when all of them are exchanged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClosingParams {
    /// The output to close.
    pub funding_outpoint: OutPoint,
    /// Its amount.
    pub funding_amount: Sat,
    /// Our `funding_pubkey`.
    pub local_funding_pubkey: PublicKey,
    /// The peer's `funding_pubkey`.
    pub remote_funding_pubkey: PublicKey,
    /// Whether we opened the channel, and so pay the fee.
    pub local_is_opener: bool,
    /// Our balance.
    pub to_local: Msat,
    /// The peer's balance.
    pub to_remote: Msat,
    /// The script of our `shutdown`.
    pub local_script: ScriptBuf,
    /// The script of the peer's `shutdown`.
    pub remote_script: ScriptBuf,
    /// Below this no output is made: the `dust_limit_satoshis` of the side that signs.
    pub dust_limit: Sat,
    /// `closing_signed.fee_satoshis`.
    pub fee: Sat,
}

/// Which outputs a closing transaction keeps, beyond those that dust removes: a side may drop its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClosingVariant {
    /// Both, as far as they are above dust.
    Both,
    /// Without ours.
    WithoutLocal,
    /// Without the peer's.
    WithoutRemote,
}

/// Why a closing transaction cannot be built.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ClosingError {
    /// The balances do not add up to the channel's capacity.
    #[error("the balances sum to {held}, the channel holds {funding}")]
    Unbalanced {
        /// The sum of the balances.
        held: Msat,
        /// The channel's capacity.
        funding: Sat,
    },
    /// The opener cannot pay the fee.
    #[error("a closing fee of {fee} exceeds the opener's {balance}")]
    FeeExceedsBalance {
        /// The fee.
        fee: Sat,
        /// The opener's balance.
        balance: Sat,
    },
    /// Nothing is left to pay out.
    #[error("no output of the closing transaction is above dust ({dust_limit})")]
    NoOutputs {
        /// The limit.
        dust_limit: Sat,
    },
}

/// A closing transaction, unsigned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClosingTx {
    /// The transaction, without witness.
    pub tx: Transaction,
    /// The fee it pays: `fee_satoshis`, outputs left out, and rounding.
    pub fee: Sat,
    /// The amount of our output, if there is one.
    pub to_local: Option<Sat>,
    /// The amount of the peer's output, if there is one.
    pub to_remote: Option<Sat>,
    /// The digest that both sides sign with their funding keys.
    pub digest: [u8; 32],
    funding_script: ScriptBuf,
    local_funding_pubkey: PublicKey,
    remote_funding_pubkey: PublicKey,
}

impl ClosingTx {
    /// Builds the closing transaction.
    ///
    /// # Errors
    /// If the balances do not add up to the funding amount, the opener cannot pay the fee, or no output is above the
    /// dust limit.
    pub fn build(params: &ClosingParams, variant: ClosingVariant) -> Result<ClosingTx, ClosingError> {
        let (to_local, to_remote) = outputs(params, variant)?;
        let kept = [(to_local, &params.local_script), (to_remote, &params.remote_script)];
        let mut output: Vec<TxOut> = kept
            .into_iter()
            .filter_map(|(amount, script)| {
                amount
                    .map(|amount| TxOut { value: Amount::from_sat(amount.0), script_pubkey: script.clone() })
            })
            .collect();
        output.sort_by(|a, b| {
            (a.value, a.script_pubkey.as_bytes()).cmp(&(b.value, b.script_pubkey.as_bytes()))
        });
        let funding_script = funding_script(&params.local_funding_pubkey, &params.remote_funding_pubkey);
        let input = OnlyInput {
            outpoint: params.funding_outpoint,
            sequence: Sequence::MAX,
            amount: params.funding_amount,
            witness_script: &funding_script,
        };
        let digest = digest(&input, outputs_hash(&output), 0, Covers::All);
        let paid: Sat = [to_local, to_remote].into_iter().flatten().sum();
        assert!(
            paid.0 + params.fee.0 <= params.funding_amount.0,
            "the opener pays the fee, and nothing is created"
        );
        Ok(ClosingTx {
            tx: Transaction {
                version: Version::TWO,
                lock_time: LockTime::ZERO,
                input: vec![TxIn {
                    previous_output: params.funding_outpoint,
                    script_sig: ScriptBuf::new(),
                    sequence: Sequence::MAX,
                    witness: Witness::new(),
                }],
                output,
            },
            fee: params.funding_amount.saturating_sub(paid),
            to_local,
            to_remote,
            digest,
            funding_script,
            local_funding_pubkey: params.local_funding_pubkey,
            remote_funding_pubkey: params.remote_funding_pubkey,
        })
    }

    /// The transaction with both signatures, ready to broadcast.
    ///
    /// # Errors
    /// If either signature is not a well-formed compact ECDSA signature.
    pub fn signed(&self, local: &Signature, remote: &Signature) -> Result<Transaction, MalformedSignature> {
        let mut tx = self.tx.clone();
        tx.input[0].witness = funding_witness(
            (&self.local_funding_pubkey, local),
            (&self.remote_funding_pubkey, remote),
            &self.funding_script,
        )?;
        Ok(tx)
    }
}

/// The amount of each side's output, if there is one.
fn outputs(
    params: &ClosingParams,
    variant: ClosingVariant,
) -> Result<(Option<Sat>, Option<Sat>), ClosingError> {
    let held = params.to_local.saturating_add(params.to_remote);
    if params.funding_amount.checked_msat() != Some(held) {
        return Err(ClosingError::Unbalanced { held, funding: params.funding_amount });
    }
    let (mut local, mut remote) = (params.to_local.floor_sat(), params.to_remote.floor_sat());
    let opener = if params.local_is_opener { &mut local } else { &mut remote };
    *opener = opener
        .checked_sub(params.fee)
        .ok_or(ClosingError::FeeExceedsBalance { fee: params.fee, balance: *opener })?;
    let keep = |amount: Sat, wanted: bool| {
        (wanted && amount >= params.dust_limit && amount > Sat::ZERO).then_some(amount)
    };
    let local = keep(local, variant != ClosingVariant::WithoutLocal);
    let remote = keep(remote, variant != ClosingVariant::WithoutRemote);
    if local.is_none() && remote.is_none() {
        return Err(ClosingError::NoOutputs { dust_limit: params.dust_limit });
    }
    Ok((local, remote))
}
