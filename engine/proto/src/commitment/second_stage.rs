//! The fields of HTLC-success and HTLC-timeout transactions (BOLT 3, "HTLC-Timeout and HTLC-Success Transactions").
//!
//! Owns: sequence, lock time and output of the second-stage transaction of an HTLC, and the digest that the other side
//! signs. The digest is computed from these parts, because a `commitment_signed` needs one for every HTLC and the
//! transaction itself only when it is broadcast; see [`htlc`](super::htlc).

use bitcoin::{Amount, OutPoint, Script, Sequence, TxOut};
use fulmen_wire::units::{FeeratePerKw, Sat};

use super::fee::htlc_fee;
use super::sighash::{Covers, OnlyInput, digest, outputs_hash};
use super::{ChannelType, CommitmentHtlc, HtlcDirection};

/// The sequence of an HTLC transaction's input.
pub(super) const fn sequence(channel_type: ChannelType) -> Sequence {
    match channel_type {
        ChannelType::StaticRemotekey => Sequence(0),
        ChannelType::Anchors => Sequence(1),
    }
}

/// The lock time of an HTLC transaction: the expiry of HTLC-timeout, 0 for HTLC-success.
pub(super) const fn lock_time(htlc: &CommitmentHtlc) -> u32 {
    match htlc.direction {
        HtlcDirection::Offered => htlc.cltv_expiry.0,
        HtlcDirection::Received => 0,
    }
}

/// The output of an HTLC transaction: the HTLC's amount in whole satoshi, less the fee.
pub(super) fn second_stage_output(
    channel_type: ChannelType,
    feerate: FeeratePerKw,
    htlc: &CommitmentHtlc,
    script: &Script,
) -> TxOut {
    let amount = htlc.amount.floor_sat().saturating_sub(htlc_fee(channel_type, feerate, htlc.direction));
    TxOut { value: Amount::from_sat(amount.0), script_pubkey: script.to_owned() }
}

/// The digest of an HTLC transaction that the other side signs. `outpoint`, `amount` and `witness_script` are those of
/// the commitment's HTLC output.
pub(super) fn second_stage_digest(
    channel_type: ChannelType,
    feerate: FeeratePerKw,
    htlc: &CommitmentHtlc,
    (outpoint, amount, witness_script): (OutPoint, Sat, &Script),
    second_stage_script: &Script,
) -> [u8; 32] {
    let spent = second_stage_output(channel_type, feerate, htlc, second_stage_script);
    let input = OnlyInput { outpoint, sequence: sequence(channel_type), amount, witness_script };
    digest(&input, outputs_hash([&spent]), lock_time(htlc), Covers::of_peer_on_htlc(channel_type))
}
