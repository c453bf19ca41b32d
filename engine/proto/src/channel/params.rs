//! The parameters of a channel that never change once its funding output is known.
//!
//! Owns: the terms both sides announced in `open_channel` and `accept_channel` (BOLT 2), and the parameters of both
//! sides' commitments that follow from them and the keys (BOLT 3). Does not check the terms; see
//! [`terms`](super::terms).
//!
//! Invariant: everything in [`Params`] except [`Agreed`] is derived from it and our basepoints.

use bitcoin::OutPoint;
use bitcoin::hashes::Hash;
use fulmen_wire::units::{ChannelId, CltvDelta, FeeratePerKw, Msat, Sat, Txid};

use super::config::{ChannelConfig, NegotiatedFeatures};
use super::htlc::Side;
use crate::commitment::{
    ANCHOR_OUTPUT, ChannelType, CommitmentParams, HtlcDirection, commitment_fee, funding_script,
    obscure_factor, trim_threshold,
};
use crate::keys::Basepoints;

/// The terms that one side announced when the channel was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// `dust_limit_satoshis`: for outputs of its own commitment.
    pub dust_limit: Sat,
    /// `max_htlc_value_in_flight_msat`: of HTLCs offered to it.
    pub max_htlc_value_in_flight: Msat,
    /// `channel_reserve_satoshis`: the balance that the other side has to keep.
    pub channel_reserve: Sat,
    /// `htlc_minimum_msat`: of HTLCs offered to it.
    pub htlc_minimum: Msat,
    /// `to_self_delay`: of the other side's own outputs.
    pub to_self_delay: CltvDelta,
    /// `max_accepted_htlcs`: of HTLCs offered to it.
    pub max_accepted_htlcs: u16,
}

/// The fixed parameters of a channel whose funding output is known.
#[derive(Clone, Debug)]
pub(super) struct Params {
    pub(super) channel_id: ChannelId,
    pub(super) agreed: Agreed,
    /// The parameters of our commitments.
    pub(super) local_commitment: CommitmentParams,
    /// The parameters of the peer's commitments.
    pub(super) remote_commitment: CommitmentParams,
}

/// The terms that both sides agreed on when the channel was opened, and the funding outpoint. [`Params`] follow from
/// these and our keys, so that a checkpoint stores no more.
#[derive(Clone, Debug)]
pub(super) struct Agreed {
    pub(super) opener: Side,
    pub(super) channel_type: ChannelType,
    pub(super) funding: Sat,
    pub(super) outpoint: OutPoint,
    pub(super) announce: bool,
    pub(super) minimum_depth: u32,
    pub(super) config: ChannelConfig,
    pub(super) features: NegotiatedFeatures,
    pub(super) local_terms: Terms,
    pub(super) remote_terms: Terms,
    pub(super) remote_basepoints: Basepoints,
    /// The closing script the peer committed to in its opening message, if any.
    pub(super) remote_shutdown_scriptpubkey: Option<Vec<u8>>,
}

impl Params {
    /// The parameters of the channel with our keys `local` that `agreed` describes.
    pub(super) fn new(agreed: Agreed, local: &Basepoints) -> Params {
        let Agreed { opener, channel_type, funding, outpoint, .. } = agreed;
        let remote = &agreed.remote_basepoints;
        let (openers, acceptors) = match opener {
            Side::Local => (&local.payment, &remote.payment),
            Side::Remote => (&remote.payment, &local.payment),
        };
        let local_commitment = CommitmentParams {
            channel_type,
            funding_outpoint: outpoint,
            funding_amount: funding,
            local_funding_pubkey: local.funding,
            remote_funding_pubkey: remote.funding,
            local_is_opener: opener == Side::Local,
            dust_limit: agreed.local_terms.dust_limit,
            to_self_delay: agreed.remote_terms.to_self_delay,
            obscure_factor: obscure_factor(openers, acceptors),
            funding_script: funding_script(&local.funding, &remote.funding),
        };
        let remote_commitment = CommitmentParams {
            local_funding_pubkey: remote.funding,
            remote_funding_pubkey: local.funding,
            local_is_opener: opener == Side::Remote,
            dust_limit: agreed.remote_terms.dust_limit,
            to_self_delay: agreed.local_terms.to_self_delay,
            ..local_commitment.clone()
        };
        // The output index fits: both `funding_created` and our own transaction give it as 16 bits.
        let output = u16::try_from(outpoint.vout).unwrap_or(u16::MAX);
        let channel_id = ChannelId::from_funding(Txid(outpoint.txid.to_byte_array()), output);
        Params { channel_id, agreed, local_commitment, remote_commitment }
    }

    /// The terms that one side announced.
    pub(super) fn terms(&self, side: Side) -> &Terms {
        match side {
            Side::Local => &self.agreed.local_terms,
            Side::Remote => &self.agreed.remote_terms,
        }
    }

    /// The balance that one side has to keep.
    pub(super) fn reserve(&self, side: Side) -> Sat {
        self.terms(side.other()).channel_reserve
    }

    /// The cost of both anchors to the opener.
    pub(super) fn anchors_cost(&self) -> Sat {
        match self.agreed.channel_type {
            ChannelType::StaticRemotekey => Sat::ZERO,
            ChannelType::Anchors => ANCHOR_OUTPUT.saturating_add(ANCHOR_OUTPUT),
        }
    }

    /// The cost of a commitment with `untrimmed` HTLC outputs to the opener, anchors included.
    pub(super) fn commitment_cost(&self, feerate: FeeratePerKw, untrimmed: usize) -> Sat {
        commitment_fee(self.agreed.channel_type, feerate, untrimmed).saturating_add(self.anchors_cost())
    }

    /// The least amount of an HTLC of `offered_by` that gets an output on `owner`'s commitment.
    pub(super) fn trim_threshold(&self, owner: Side, offered_by: Side, feerate: FeeratePerKw) -> Msat {
        let direction = direction(owner, offered_by);
        trim_threshold(self.agreed.channel_type, feerate, direction, self.terms(owner).dust_limit).to_msat()
    }
}

/// An HTLC's direction as the owner of a commitment sees it.
pub(super) fn direction(owner: Side, offered_by: Side) -> HtlcDirection {
    if owner == offered_by { HtlcDirection::Offered } else { HtlcDirection::Received }
}
