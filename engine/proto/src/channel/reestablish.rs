//! Reconnection (BOLT 2, "Message Retransmission").
//!
//! Owns: our `channel_reestablish`, the checks of the peer's, and the messages sent again. Does not: recover
//! lost state beyond refusing to go on.
//!
//! Invariant: messages are sent again in the order of the first time; commitments are signed anew, to the same
//! bytes, since no update that they hold can change while they are unanswered.

use fulmen_wire::message::{ChannelReestablish, Message};
use fulmen_wire::tlv::UnknownTlvs;

use super::config::NegotiatedFeatures;
use super::delta::Delta;
use super::effect::Plan;
use super::error::ChannelError;
use super::funded::Funded;
use super::htlc::Stage;
use super::updates::Unacknowledged;
use crate::keys::{CommitmentNumber, to_point};

/// The messages that the peer has not received.
struct Missing {
    commitment: bool,
    revocation: bool,
}

impl Funded {
    /// Plans our `channel_reestablish` on a new connection.
    pub(super) fn plan_connected(&self, features: NegotiatedFeatures) -> Plan {
        let next_revocation = self.next_revocation();
        let last_secret = next_revocation.previous().and_then(|number| self.revealed.lookup(number));
        let message = ChannelReestablish {
            channel_id: self.params.channel_id,
            next_commitment_number: self.local_number.next().0,
            next_revocation_number: next_revocation.0,
            your_last_per_commitment_secret: last_secret.map_or([0; 32], |secret| secret.reveal()),
            my_current_per_commitment_point: to_point(&self.secrets.per_commitment_point(self.local_number)),
            next_funding: None,
            my_current_funding_locked: None,
            unknown: UnknownTlvs::default(),
        };
        let mut plan = Plan::of(Delta::Connected);
        if features != self.params.agreed.features {
            plan.deltas.push(Delta::FeaturesChanged { features });
        }
        plan.send.push(message.into());
        plan
    }

    /// Plans the answer to the peer's `channel_reestablish`.
    pub(super) fn plan_reestablish(&self, message: &ChannelReestablish) -> Result<Plan, ChannelError> {
        let missing = self.check_reestablish(message)?;
        let mut plan = Plan::of(Delta::Reestablished);
        let nothing_signed_yet = message.next_commitment_number == 1 && self.local_number.0 == 0;
        if nothing_signed_yet && self.scid.is_some() {
            plan.send.push(self.channel_ready());
        }
        if missing.revocation && self.commitment_sent_last {
            self.send_revocation_again(&mut plan);
        }
        if missing.commitment {
            self.send_updates_again(Stage::InReceiver, &mut plan);
            let commitment = self.latest_remote_commitment()?;
            self.sign_remote_commitment(&commitment, &mut plan);
        }
        if missing.revocation && !self.commitment_sent_last {
            self.send_revocation_again(&mut plan);
        }
        if let Some(scriptpubkey) = &self.shutdown.sent {
            plan.send.push(self.shutdown_message(scriptpubkey));
        }
        self.send_updates_again(Stage::Proposed, &mut plan);
        Ok(plan)
    }

    /// Compares the peer's view of both commitments with ours.
    fn check_reestablish(&self, message: &ChannelReestablish) -> Result<Missing, ChannelError> {
        let (commitment, revocation) = (message.next_commitment_number, message.next_revocation_number);
        // Our latest revocation was of the commitment before this one.
        let ours = self.local_number;
        let knows_secret = revocation.checked_sub(1).map(|proven| {
            proven <= CommitmentNumber::LAST.0
                && self.secrets.per_commitment_secret(CommitmentNumber(proven)).reveal()
                    == message.your_last_per_commitment_secret
        });
        if revocation > ours.0 {
            return Err(match knows_secret {
                Some(true) => ChannelError::WeFellBehind { proven: revocation - 1, ours },
                _ => ChannelError::ReestablishRevocationNumber { expected: ours, found: revocation },
            });
        }
        let next = self.remote_number.next();
        let missing = commitment == self.remote_number.0 && self.awaiting_revocation;
        let is_old = revocation + 1 < ours.0 || (commitment < next.0 && !missing);
        if is_old && commitment > 0 && commitment <= next.0 && knows_secret == Some(true) {
            return Err(ChannelError::PeerFellBehind { commitment, revocation });
        }
        if revocation + 1 < ours.0 {
            return Err(ChannelError::ReestablishRevocationNumber { expected: ours, found: revocation });
        }
        match knows_secret {
            Some(false) => return Err(ChannelError::ReestablishSecret(revocation - 1)),
            None if message.your_last_per_commitment_secret != [0; 32] => {
                return Err(ChannelError::ReestablishSecret(0));
            }
            _ => {}
        }
        if commitment != next.0 && !missing {
            return Err(ChannelError::ReestablishCommitmentNumber { expected: next, found: commitment });
        }
        Ok(Missing { commitment: missing, revocation: revocation < ours.0 })
    }

    fn send_revocation_again(&self, plan: &mut Plan) {
        if let Some(revoked) = self.local_number.previous() {
            plan.send.push(self.revoke_and_ack(revoked));
        }
    }

    fn send_updates_again(&self, stage: Stage, plan: &mut Plan) {
        let messages = self.updates.unacknowledged(stage).into_iter().map(|update| -> Message {
            match update {
                Unacknowledged::Add(htlc) => self.update_add_htlc(htlc),
                Unacknowledged::Remove(id, removal) => self.removal_message(id, removal),
                Unacknowledged::Fee(feerate) => self.update_fee(feerate),
            }
        });
        plan.send.extend(messages);
    }
}
