//! Commitments and revocations (BOLT 2, "Committing Updates So Far", "Completing the Transition to the Updated State").
//!
//! Owns: `commitment_signed` and `revoke_and_ack` in both directions. Does not: make or check the signatures; they go
//! out as jobs.
//!
//! Invariants: our `revoke_and_ack` is part of the plan that takes the new commitment in, so our earlier commitments
//! are all revoked at rest; a `commitment_signed` leaves only when the one before is answered and updates wait.

use bitcoin::hashes::Hash;
use fulmen_secp::{DeriveJob, VerifyJob};
use fulmen_wire::message::{CommitmentSigned, Message, RevokeAndAck, Warning};
use fulmen_wire::tlv::UnknownTlvs;
use fulmen_wire::units::{Signature, Txid};

use super::delta::Delta;
use super::effect::{Plan, SignJob};
use super::error::ChannelError;
use super::funded::Funded;
use super::htlc::{HtlcEntry, Side, Stage, UpdateOrder};
use super::updates::{UnsignedUpdates, View};
use crate::commitment::CommitmentTx;
use crate::keys::{CommitmentNumber, PerCommitmentSecret, parse_point, to_point};

/// The number of fulfillments that are signed without delay, unless that signs more HTLCs again than it removes.
const WORTH_SIGNING: usize = 8;
/// The number of young HTLCs signed again for each update, fulfillments aside, from which a commitment is deferred.
const YOUNG_EACH: usize = 16;
/// The longest brief delay for each young HTLC, and in all, in milliseconds.
const BRIEFLY_EACH_MS: u64 = 2;
const BRIEFLY_MAX_MS: u64 = 200;

/// How long to defer a `commitment_signed` that is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommitDelay {
    /// Not at all, or none is due.
    None,
    /// For at most `ms` milliseconds.
    Brief {
        /// Milliseconds from when it was first deferred.
        ms: u64,
        /// Whether to defer a due `revoke_and_ack` along with it.
        answer: bool,
    },
    /// Until the next tick: only the channel's free slots and balances depend on it.
    Long,
}

impl Funded {
    /// Plans a `commitment_signed` of the peer, and our `revoke_and_ack`.
    pub(super) fn plan_commitment_signed(&self, message: &CommitmentSigned) -> Result<Plan, ChannelError> {
        // One without updates breaks a rule of its sender's, but BOLT 2 asks its receiver for nothing but the answer,
        // and some peers are known to send one after a reconnection.
        let commitment = self.next_local_commitment()?;
        let (expected, found) = (commitment.htlcs.len(), message.htlc_signatures.len());
        if expected != found {
            return Err(ChannelError::HtlcSignatureCount { expected, found });
        }
        self.check_commitment(Side::Local, &commitment)?;
        let mut plan = Plan::of(Delta::CommitmentReceived {
            signature: message.signature,
            htlc_signatures: message.htlc_signatures.clone(),
        });
        plan.verify.reserve_exact(1 + expected);
        plan.verify.push(self.commitment_check(&commitment, &message.signature));
        let checks = commitment.htlcs.iter().zip(&message.htlc_signatures);
        plan.verify.extend(checks.map(|(output, signature)| VerifyJob {
            key: commitment.keys.remote_htlc_pubkey,
            digest: output.digest,
            signature: signature.0,
        }));
        plan.verify_by = Some(DeriveJob {
            basepoint: self.params.agreed.remote_basepoints.htlc,
            per_commitment_point: commitment.keys.per_commitment_point,
        });
        plan.send.push(self.revoke_and_ack(self.local_number));
        Ok(plan)
    }

    /// The check of the peer's signature under one of our commitments.
    pub(super) fn commitment_check(&self, commitment: &CommitmentTx, signature: &Signature) -> VerifyJob {
        VerifyJob {
            key: self.params.agreed.remote_basepoints.funding,
            digest: commitment.digest,
            signature: signature.0,
        }
    }

    /// The `revoke_and_ack` that revokes our commitment `number`, the one after it being signed.
    pub(super) fn revoke_and_ack(&self, number: CommitmentNumber) -> Message {
        let message = RevokeAndAck {
            channel_id: self.params.channel_id,
            per_commitment_secret: self.secrets.per_commitment_secret(number).reveal(),
            next_per_commitment_point: to_point(&self.local_point(number.next().next())),
            unknown: UnknownTlvs::default(),
        };
        message.into()
    }

    /// Plans a `revoke_and_ack` of the peer.
    pub(super) fn plan_revocation(&self, message: &RevokeAndAck) -> Result<Plan, ChannelError> {
        if !self.awaiting_revocation {
            return Err(ChannelError::UnexpectedRevocation);
        }
        let number = self.next_revocation();
        let secret = PerCommitmentSecret::from_bytes(&message.per_commitment_secret)
            .filter(|secret| secret.point() == self.remote_point)
            .ok_or(ChannelError::WrongRevocationSecret(number))?;
        self.revealed.check(number, &secret)?;
        parse_point("next_per_commitment_point", &message.next_per_commitment_point)?;
        Ok(Plan::of(Delta::RevocationReceived {
            per_commitment_secret: message.per_commitment_secret,
            next_per_commitment_point: message.next_per_commitment_point,
        }))
    }

    /// Plans our `commitment_signed`, if one is due.
    pub(super) fn plan_own_commitment_signed(&self) -> Option<Plan> {
        if !self.commitment_signed_due() {
            return None;
        }
        // The specification of the peer's commitment always adds up to the capacity: the reducer moves amounts, it
        // makes none.
        let commitment = self.next_remote_commitment()?.ok()?;
        if let Err(error) = self.check_commitment(Side::Remote, &commitment) {
            return Some(self.plan_unsignable(&error));
        }
        let mut plan = Plan::of(Delta::CommitmentSent);
        self.sign_remote_commitment(&commitment, &mut plan);
        Some(plan)
    }

    /// Plans to begin again on a new connection, without our unsigned additions: updates that crossed make a commitment
    /// of the peer that must not be signed.
    fn plan_unsignable(&self, error: &ChannelError) -> Plan {
        let mut plan = Plan { disconnect: true, ..Plan::default() };
        if self.updates.any_add_at(Side::Local, Stage::Proposed) {
            plan.deltas.push(Delta::AdditionsDropped);
        }
        plan.deltas.push(Delta::Disconnected);
        plan.send.push(Warning::new(self.params.channel_id, &error.to_string()).into());
        plan
    }

    /// How long to defer our due `commitment_signed`. One for fulfillments alone waits until the tick while they are
    /// fewer than the HTLCs it would sign again, and briefly while they are few. One that would sign many young HTLCs
    /// again, which are about to be resolved, waits briefly.
    pub(super) fn commit_delay(&self, young_from: UpdateOrder) -> CommitDelay {
        if !self.commitment_signed_due() || self.is_shutting_down() {
            return CommitDelay::None;
        }
        let UnsignedUpdates { fulfilled, others } = self.updates.unsigned();
        let balances = self.updates.reduce(View::REMOTE_NEXT);
        let signed = |entry: &&&HtlcEntry| !self.is_trimmed(Side::Remote, balances.feerate, entry);
        let signed = balances.htlcs.iter().filter(signed);
        if others == 0 {
            let signatures = signed.count();
            return match fulfilled {
                _ if signatures >= WORTH_SIGNING && signatures > fulfilled => CommitDelay::Long,
                ..WORTH_SIGNING => CommitDelay::Brief { ms: BRIEFLY_MAX_MS, answer: false },
                _ => CommitDelay::None,
            };
        }
        let young = |entry: &&&HtlcEntry| entry.order >= young_from && !is_new(entry);
        let young = signed.filter(young).count();
        // Fulfillments beside them do not count: nobody waits for those.
        let ms = (young as u64).saturating_mul(BRIEFLY_EACH_MS).min(BRIEFLY_MAX_MS);
        // Until it is answered the peer signs nothing more, and may hold back the preimages it learns.
        let answer = !self.updates.any_offered_unresolved();
        if young >= YOUNG_EACH * others { CommitDelay::Brief { ms, answer } } else { CommitDelay::None }
    }

    /// Adds the `commitment_signed` for a commitment of the peer and the jobs that sign it.
    pub(super) fn sign_remote_commitment(&self, commitment: &CommitmentTx, plan: &mut Plan) {
        let blank = Signature([0; 64]);
        let message = CommitmentSigned {
            channel_id: self.params.channel_id,
            signature: blank,
            htlc_signatures: vec![blank; commitment.htlcs.len()],
            funding_txid: Some(Txid(self.params.agreed.outpoint.txid.to_byte_array())),
            unknown: UnknownTlvs::default(),
        };
        plan.send.push(message.into());
        plan.sign.push(SignJob::new(*self.secrets.funding_key(), commitment.digest));
        if commitment.htlcs.is_empty() {
            return;
        }
        let htlc_key = self.secrets.htlc_key(&commitment.keys.per_commitment_point);
        plan.sign.extend(commitment.htlcs.iter().map(|output| SignJob::new(htlc_key, output.digest)));
    }
}

/// Whether our next `commitment_signed` is the first to cover an HTLC's addition.
fn is_new(entry: &HtlcEntry) -> bool {
    let at = match entry.offered_by {
        Side::Local => Stage::Proposed,
        Side::Remote => Stage::Acknowledged,
    };
    entry.added == at
}
