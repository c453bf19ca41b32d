//! A channel whose funding output is known: the state shared by all later phases.
//!
//! Owns: both sides' terms, the update log, commitment numbers, the peer's points and revealed secrets, our latest
//! signed commitment, and both sides' `shutdown`. Does not: handle messages; the phases do.
//!
//! Invariant: every commitment is [`Funded::spec`] of a [`View`].

use bitcoin::Transaction;
use fulmen_wire::units::{Scid, Signature};
use secp256k1::PublicKey;

use super::ahead::KeysAhead;
use super::htlc::{HtlcEntry, Side};
use super::params::{Params, direction};
use super::tally::Tallies;
use super::updates::{UnsignedUpdates, Updates, View};
use crate::commitment::{CommitmentError, CommitmentHtlc, CommitmentSpec, CommitmentTx};
use crate::keys::{ChannelSecrets, CommitmentKeys, CommitmentNumber, SecretStore};

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

/// The closing scripts of both sides' `shutdown`.
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
    /// Whether the peer's updates on this connection may be repeated from an earlier one: until it signs.
    pub(super) peer_may_repeat: bool,
    pub(super) shutdown: Shutdown,
    pub(super) scid: Option<Scid>,
    /// As opener: the funding transaction, until it is deep enough.
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
            peer_may_repeat: false,
            shutdown: Shutdown::default(),
            scid: None,
            funding_transaction: None,
            ready_received: false,
            ahead: KeysAhead::default(),
            tallies: Tallies::default(),
        }
    }

    /// The contents of a view's commitment, as its owner sees it.
    pub(super) fn spec(&self, owner: Side, view: View) -> CommitmentSpec {
        let balances = self.updates.reduce(view);
        let htlc = |entry: &&HtlcEntry| CommitmentHtlc {
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
        CommitmentKeys::derive(self.secrets.basepoints(), &self.params.agreed.remote_basepoints, point)
    }

    /// The point of our commitment `number`, derived ahead if it is to come.
    pub(super) fn local_point(&self, number: CommitmentNumber) -> PublicKey {
        let after_next = number.0.checked_sub(self.local_number.0 + 1);
        let known = after_next.and_then(|after_next| self.ahead.local(usize::try_from(after_next).ok()?));
        known.map_or_else(|| self.secrets.per_commitment_point(number), |keys| keys.per_commitment_point)
    }

    /// The keys of the peer's commitment with this point.
    fn derive_remote_keys(&self, point: PublicKey) -> CommitmentKeys {
        CommitmentKeys::derive(&self.params.agreed.remote_basepoints, self.secrets.basepoints(), point)
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
    pub(super) fn has_unsigned_updates(&self) -> bool {
        self.updates.unsigned() != UnsignedUpdates::default()
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
