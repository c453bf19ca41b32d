//! Commitment, HTLC, closing and penalty transactions (BOLT 3; spends of BOLT 5).
//!
//! Owns: the commitment transaction of given balances, HTLCs, fee rate and keys; the second-stage HTLC transactions;
//! the closing transaction; every way an output of these can be spent; their signature digests and witnesses. Derives
//! no balances and keeps no state: a [`CommitmentSpec`] lists a commitment's contents.
//!
//! As in BOLT 3, *local* is the commitment's owner (the side that may broadcast it) and *remote* the other side; an
//! HTLC is *offered* or *received* as the owner sees it. For the peer's commitment, the peer is *local*.
//!
//! Invariant: outputs and fee of every transaction built here add up to its inputs, to the satoshi.

mod build;
mod closing;
mod fee;
mod htlc;
mod script;
mod second_stage;
mod sighash;
mod spend;
#[cfg(test)]
mod tests;

use bitcoin::{OutPoint, ScriptBuf};
use fulmen_wire::units::{BlockHeight, CltvDelta, FeeratePerKw, Msat, PaymentHash, Sat};
use secp256k1::PublicKey;

pub use build::{CommitmentError, CommitmentTx, HtlcOutput, MalformedSignature, commitment_number};
pub use closing::{ClosingError, ClosingParams, ClosingTx, ClosingVariant};
pub use fee::{
    ANCHOR_OUTPUT, commitment_fee, commitment_weight, htlc_fee, htlc_weight, is_trimmed, trim_threshold,
};
pub use htlc::{HtlcTx, HtlcWitnessError};
pub use script::{funding_output_script, funding_script, obscure_factor};
pub use spend::{Anchor, OutputSpend, Sweep, SweepError, sweep};

/// The kind of commitment a channel uses, from its `channel_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ChannelType {
    /// `option_static_remotekey`.
    StaticRemotekey,
    /// `option_anchors`: anchors, and HTLC transactions without a fee of their own.
    Anchors,
}

/// Which way an HTLC goes, as the commitment's owner sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HtlcDirection {
    /// Offered by the owner to the other side.
    Offered,
    /// Received by the owner from the other side.
    Received,
}

/// One HTLC that a commitment holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommitmentHtlc {
    /// Its id, unique among the HTLCs of its direction.
    pub id: u64,
    /// Which way it goes.
    pub direction: HtlcDirection,
    /// Its amount.
    pub amount: Msat,
    /// The hash whose preimage settles it.
    pub payment_hash: PaymentHash,
    /// When it times out.
    pub cltv_expiry: BlockHeight,
}

/// The contents of one commitment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommitmentSpec {
    /// The owner's balance, before fee and anchors are taken, without the HTLCs.
    pub to_local: Msat,
    /// The other side's balance, before fee and anchors are taken, without the HTLCs.
    pub to_remote: Msat,
    /// The fee rate.
    pub feerate: FeeratePerKw,
    /// The HTLCs, in any order.
    pub htlcs: Vec<CommitmentHtlc>,
}

impl CommitmentSpec {
    /// Everything the spec holds; equal to the channel's capacity.
    #[must_use]
    pub fn total(&self) -> Msat {
        let htlcs: Msat = self.htlcs.iter().map(|htlc| htlc.amount).sum();
        self.to_local.saturating_add(self.to_remote).saturating_add(htlcs)
    }
}

/// The parameters shared by all commitments of one side of a channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommitmentParams {
    /// The kind of commitment.
    pub channel_type: ChannelType,
    /// The output that the commitments spend.
    pub funding_outpoint: OutPoint,
    /// Its amount.
    pub funding_amount: Sat,
    /// The owner's `funding_pubkey`.
    pub local_funding_pubkey: PublicKey,
    /// The other side's `funding_pubkey`.
    pub remote_funding_pubkey: PublicKey,
    /// Whether the owner opened the channel, and so pays for fee and anchors.
    pub local_is_opener: bool,
    /// The owner's `dust_limit_satoshis`.
    pub dust_limit: Sat,
    /// How long the owner's funds are delayed: the `to_self_delay` that the other side asked for.
    pub to_self_delay: CltvDelta,
    /// The mask of commitment numbers: [`obscure_factor`].
    pub obscure_factor: u64,
    /// The witness script of the funding output: [`funding_script`].
    pub funding_script: ScriptBuf,
}
