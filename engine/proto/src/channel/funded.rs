//! A channel whose funding output is known: the state shared by all later phases.
//!
//! Owns: both sides' terms, the update log, commitment numbers, the peer's points and revealed secrets, our latest
//! signed commitment, and what either side said about shutting down. Does not: handle messages; the phases do.
//!
//! Invariant: every commitment is [`Funded::spec`] of a [`View`].

use bitcoin::hashes::Hash;
use bitcoin::{OutPoint, Transaction};
use fulmen_wire::units::{ChannelId, CltvDelta, FeeratePerKw, Msat, Sat, Scid, Signature, Txid};
use secp256k1::PublicKey;

use super::ahead::KeysAhead;
use super::config::{ChannelConfig, NegotiatedFeatures};
use super::htlc::{HtlcEntry, Side};
use super::tally::Tallies;
use super::updates::{Owed, Updates, View};
use crate::commitment::{
    ANCHOR_OUTPUT, ChannelType, CommitmentError, CommitmentParams, CommitmentSpec, CommitmentTx, Htlc,
    HtlcDirection, commitment_fee, funding_script, obscure_factor, trim_threshold,
};
use crate::keys::{Basepoints, ChannelSecrets, CommitmentKeys, CommitmentNumber, SecretStore};

/// What one side announced when the channel was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// `dust_limit_satoshis`: for outputs of its own commitment.
    pub dust_limit: Sat,
    /// `max_htlc_value_in_flight_msat`: of HTLCs offered to it.
    pub max_htlc_value_in_flight: Msat,
    /// `channel_reserve_satoshis`: what the other side has to keep.
    pub channel_reserve: Sat,
    /// `htlc_minimum_msat`: of HTLCs offered to it.
    pub htlc_minimum: Msat,
    /// `to_self_delay`: of the other side's own outputs.
    pub to_self_delay: CltvDelta,
    /// `max_accepted_htlcs`: of HTLCs offered to it.
    pub max_accepted_htlcs: u16,
}

/// What never changes once the funding output is known.
#[derive(Clone, Debug)]
pub(super) struct Params {
    pub(super) channel_id: ChannelId,
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
    /// The closing script the peer committed to, if it did.
    pub(super) remote_shutdown_scriptpubkey: Option<Vec<u8>>,
    /// How our commitments are built.
    pub(super) local_commitment: CommitmentParams,
    /// How the peer's commitments are built.
    pub(super) remote_commitment: CommitmentParams,
}

/// What both sides agreed on when the channel was opened, and where its funding output stands: all that [`Params`]
/// follow from, given our keys.
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
    pub(super) remote_shutdown_scriptpubkey: Option<Vec<u8>>,
}

impl Params {
    /// The parameters of the channel with our keys `local` that `agreed` describes.
    pub(super) fn new(agreed: Agreed, local: &Basepoints) -> Params {
        let Agreed { opener, channel_type, funding, outpoint, local_terms, remote_terms, .. } = agreed;
        let remote = agreed.remote_basepoints;
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
            dust_limit: local_terms.dust_limit,
            to_self_delay: remote_terms.to_self_delay,
            obscure_factor: obscure_factor(openers, acceptors),
            funding_script: funding_script(&local.funding, &remote.funding),
        };
        let remote_commitment = CommitmentParams {
            local_funding_pubkey: remote.funding,
            remote_funding_pubkey: local.funding,
            local_is_opener: opener == Side::Remote,
            dust_limit: remote_terms.dust_limit,
            to_self_delay: local_terms.to_self_delay,
            ..local_commitment.clone()
        };
        // The output index fits: both `funding_created` and our own transaction give it as 16 bits.
        let output = u16::try_from(outpoint.vout).unwrap_or(u16::MAX);
        Params {
            channel_id: ChannelId::from_funding(Txid(outpoint.txid.to_byte_array()), output),
            opener,
            channel_type,
            funding,
            outpoint,
            announce: agreed.announce,
            minimum_depth: agreed.minimum_depth,
            config: agreed.config,
            features: agreed.features,
            local_terms,
            remote_terms,
            remote_basepoints: remote,
            remote_shutdown_scriptpubkey: agreed.remote_shutdown_scriptpubkey,
            local_commitment,
            remote_commitment,
        }
    }

    /// What the parameters follow from.
    pub(super) fn agreed(&self) -> Agreed {
        Agreed {
            opener: self.opener,
            channel_type: self.channel_type,
            funding: self.funding,
            outpoint: self.outpoint,
            announce: self.announce,
            minimum_depth: self.minimum_depth,
            config: self.config.clone(),
            features: self.features,
            local_terms: self.local_terms,
            remote_terms: self.remote_terms,
            remote_basepoints: self.remote_basepoints,
            remote_shutdown_scriptpubkey: self.remote_shutdown_scriptpubkey.clone(),
        }
    }

    /// What one side announced.
    pub(super) fn terms(&self, side: Side) -> &Terms {
        match side {
            Side::Local => &self.local_terms,
            Side::Remote => &self.remote_terms,
        }
    }

    /// What one side has to keep.
    pub(super) fn reserve(&self, side: Side) -> Sat {
        self.terms(side.other()).channel_reserve
    }

    /// What both anchors cost the opener.
    pub(super) fn anchors_cost(&self) -> Sat {
        match self.channel_type {
            ChannelType::StaticRemotekey => Sat::ZERO,
            ChannelType::Anchors => ANCHOR_OUTPUT.saturating_add(ANCHOR_OUTPUT),
        }
    }

    /// What a commitment with so many HTLC outputs costs the opener, anchors included.
    pub(super) fn commitment_cost(&self, feerate: FeeratePerKw, untrimmed: usize) -> Sat {
        commitment_fee(self.channel_type, feerate, untrimmed).saturating_add(self.anchors_cost())
    }

    /// The least amount of an HTLC of `offered_by` that gets an output on `owner`'s commitment.
    pub(super) fn trim_threshold(&self, owner: Side, offered_by: Side, feerate: FeeratePerKw) -> Msat {
        let direction = direction(owner, offered_by);
        trim_threshold(self.channel_type, feerate, direction, self.terms(owner).dust_limit).to_msat()
    }
}

/// How the connection to the peer stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Link {
    /// None.
    Down,
    /// Both sides' `channel_reestablish` are not yet exchanged.
    Reestablishing,
    /// Messages flow.
    Up,
}

/// What was said about shutting down.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Shutdown {
    /// Our script, once we want to shut down; sent when our updates are signed.
    pub(super) wanted: Option<Vec<u8>>,
    /// Our script, as sent.
    pub(super) sent: Option<Vec<u8>>,
    /// The peer's script.
    pub(super) received: Option<Vec<u8>>,
}

/// A channel whose funding output is known.
#[derive(Clone, Debug)]
pub(super) struct Funded {
    pub(super) params: Params,
    pub(super) secrets: ChannelSecrets,
    pub(super) updates: Updates,
    /// Our latest commitment, all earlier ones being revoked.
    pub(super) local_number: CommitmentNumber,
    pub(super) local_signature: Signature,
    pub(super) local_htlc_signatures: Vec<Signature>,
    /// The peer's latest commitment that we signed.
    pub(super) remote_number: CommitmentNumber,
    /// Whether the peer still has to revoke the one before.
    pub(super) awaiting_revocation: bool,
    /// The point of the peer's oldest unrevoked commitment.
    pub(super) remote_point: PublicKey,
    /// The point after it, once known.
    pub(super) remote_next_point: Option<PublicKey>,
    /// The secrets that the peer revealed.
    pub(super) revealed: SecretStore,
    /// Whether our latest `commitment_signed` left after our latest `revoke_and_ack`.
    pub(super) commitment_sent_last: bool,
    pub(super) link: Link,
    pub(super) shutdown: Shutdown,
    pub(super) scid: Option<Scid>,
    /// As opener: what funds the channel, until it is deep enough.
    pub(super) funding_transaction: Option<Box<Transaction>>,
    /// Whether the peer's `channel_ready` came.
    pub(super) ready_received: bool,
    /// Keys of commitments to come.
    pub(super) ahead: KeysAhead,
    /// Sums over the update log.
    pub(super) tallies: Tallies,
}

impl Funded {
    /// A channel whose first commitments are about to be signed; `remote_point` is of the peer's.
    pub(super) fn begin(
        params: Params,
        secrets: ChannelSecrets,
        updates: Updates,
        remote_point: PublicKey,
    ) -> Funded {
        Funded {
            updates,
            params,
            secrets,
            local_number: CommitmentNumber::FIRST,
            local_signature: Signature([0; 64]),
            local_htlc_signatures: Vec::new(),
            remote_number: CommitmentNumber::FIRST,
            awaiting_revocation: false,
            remote_point,
            remote_next_point: None,
            revealed: SecretStore::new(),
            commitment_sent_last: false,
            link: Link::Up,
            shutdown: Shutdown::default(),
            scid: None,
            funding_transaction: None,
            ready_received: false,
            ahead: KeysAhead::default(),
            tallies: Tallies::default(),
        }
    }

    /// What a view's commitment holds, as its owner sees it.
    pub(super) fn spec(&self, owner: Side, view: View) -> CommitmentSpec {
        let balances = self.updates.reduce(view);
        let htlc = |entry: &&HtlcEntry| Htlc {
            id: entry.htlc.id,
            direction: direction(owner, entry.offered_by),
            amount: entry.htlc.amount,
            payment_hash: entry.htlc.payment_hash,
            cltv_expiry: entry.htlc.cltv_expiry,
        };
        CommitmentSpec {
            to_local: balances.of(owner),
            to_remote: balances.of(owner.other()),
            feerate: balances.feerate,
            htlcs: balances.htlcs.iter().map(htlc).collect(),
        }
    }

    /// The keys of our commitment with this point.
    fn derive_local_keys(&self, point: PublicKey) -> CommitmentKeys {
        CommitmentKeys::derive(self.secrets.basepoints(), &self.params.remote_basepoints, point)
    }

    /// The point of our commitment `number`, derived ahead if it is to come.
    pub(super) fn local_point(&self, number: CommitmentNumber) -> PublicKey {
        let after_next = number.0.checked_sub(self.local_number.0 + 1);
        let known = after_next.and_then(|after_next| self.ahead.local(usize::try_from(after_next).ok()?));
        known.map_or_else(|| self.secrets.per_commitment_point(number), |keys| keys.per_commitment_point)
    }

    /// The keys of the peer's commitment with this point.
    fn derive_remote_keys(&self, point: PublicKey) -> CommitmentKeys {
        CommitmentKeys::derive(&self.params.remote_basepoints, self.secrets.basepoints(), point)
    }

    /// Our next commitment, as the peer would sign it now.
    pub(super) fn next_local_commitment(&self) -> Result<CommitmentTx, CommitmentError> {
        let number = self.local_number.next();
        let keys = match self.ahead.local(0) {
            Some(keys) => keys,
            None => &self.derive_local_keys(self.secrets.per_commitment_point(number)),
        };
        let spec = self.spec(Side::Local, View::LOCAL_NEXT);
        CommitmentTx::build(&self.params.local_commitment, keys, number, &spec)
    }

    /// Our latest commitment.
    pub(super) fn local_commitment(&self) -> Result<CommitmentTx, CommitmentError> {
        let keys = self.derive_local_keys(self.local_point(self.local_number));
        let spec = self.spec(Side::Local, View::LOCAL_LATEST);
        CommitmentTx::build(&self.params.local_commitment, &keys, self.local_number, &spec)
    }

    /// Our latest commitment with both funding signatures.
    pub(super) fn signed_local_commitment(&self) -> Option<(CommitmentTx, Transaction)> {
        let commitment = self.local_commitment().ok()?;
        let ours = self.secrets.sign_funding(&commitment.digest);
        let signed = commitment.signed(&self.params.local_commitment, &ours, &self.local_signature).ok()?;
        Some((commitment, signed))
    }

    /// The peer's next commitment, as we would sign it now; `None` while its point is unknown.
    pub(super) fn next_remote_commitment(&self) -> Option<Result<CommitmentTx, CommitmentError>> {
        let point = self.remote_next_point?;
        let keys = match self.ahead.remote(&point) {
            Some(keys) => keys,
            None => &self.derive_remote_keys(point),
        };
        let spec = self.spec(Side::Remote, View::REMOTE_NEXT);
        let number = self.remote_number.next();
        Some(CommitmentTx::build(&self.params.remote_commitment, keys, number, &spec))
    }

    /// The peer's latest commitment that we signed: it is the next one after the oldest unrevoked while a revocation
    /// is due.
    pub(super) fn latest_remote_commitment(&self) -> Result<CommitmentTx, CommitmentError> {
        let point = match self.remote_next_point {
            Some(next) if self.awaiting_revocation => next,
            _ => self.remote_point,
        };
        let keys = self.derive_remote_keys(point);
        let spec = self.spec(Side::Remote, View::REMOTE_LATEST);
        CommitmentTx::build(&self.params.remote_commitment, &keys, self.remote_number, &spec)
    }

    /// The number of the next secret the peer has to reveal: its oldest unrevoked commitment.
    pub(super) fn next_revocation(&self) -> CommitmentNumber {
        self.revealed.next()
    }

    /// Whether updates wait to be signed for the peer's commitment.
    pub(super) fn owes_commitment(&self) -> bool {
        self.updates.owed() != Owed::default()
    }

    /// Whether HTLCs may be offered at all: both sides ready, neither shutting down.
    pub(super) fn is_ready(&self) -> bool {
        self.ready_received && self.scid.is_some()
    }

    /// Whether either side started to shut down, or we want to.
    pub(super) fn is_shutting_down(&self) -> bool {
        self.shutdown.wanted.is_some() || self.shutdown.sent.is_some() || self.shutdown.received.is_some()
    }

    /// Whether nothing is left but to agree on a closing transaction.
    pub(super) fn shutdown_complete(&self) -> bool {
        self.shutdown.sent.is_some()
            && self.shutdown.received.is_some()
            && self.updates.is_empty()
            && !self.awaiting_revocation
    }
}

/// An HTLC's direction as the owner of a commitment sees it.
pub(super) fn direction(owner: Side, offered_by: Side) -> HtlcDirection {
    if owner == offered_by { HtlcDirection::Offered } else { HtlcDirection::Received }
}
