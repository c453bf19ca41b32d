//! Folding deltas into a channel: the only place where its state changes.
//!
//! Owns: the effect of each [`Delta`], the events that follow, and the changes of phase. Does not: check anything;
//! plans did, and only a record that no plan wrote does not fold. Invariant: folding is deterministic, so the same
//! deltas give the same channel, whenever they are folded.

use fulmen_wire::units::{Point, Signature};
use secp256k1::PublicKey;
use thiserror::Error;

use super::config::channel_type_from_features;
use super::effect::{ChannelEffects, ChannelEvent};
use super::funded::{Funded, Link};
use super::htlc::{Removal, Side};
use super::negotiate::{Negotiating, Offer};
use super::opening::{self, AwaitingAccept, AwaitingFundingCreated};
use super::terms::{accept_points, open_points};
use super::{Channel, Delta, Failed, Phase};
use crate::keys::{ChannelSecrets, CommitmentNumber, InvalidPoint, PerCommitmentSecret, parse_point};

/// A record that cannot be replayed.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ReplayError {
    /// A record begins with [`Delta::Opened`] or [`Delta::Accepted`]; this one does not.
    #[error("the record does not begin with a channel's opening")]
    NoBeginning,
    /// A message of the opening has fields that no plan would have let pass.
    #[error("the record opens the channel with a message that is not acceptable")]
    Opening,
    /// A recorded point is not on the curve.
    #[error(transparent)]
    Point(#[from] InvalidPoint),
    /// An HTLC without the next id of its direction.
    #[error("the record adds HTLC {found} where {expected} is next")]
    HtlcId {
        /// The next id.
        expected: u64,
        /// The record's.
        found: u64,
    },
    /// A revocation without a commitment to revoke, or with a secret that is not its.
    #[error("the record revokes commitment {0} with a secret that is not its")]
    Revocation(CommitmentNumber),
}

impl Channel {
    /// Rebuilds a channel from its record and its keys. The channel comes back without a connection. One that is still
    /// [`State::Opening`](super::State::Opening) is of no use any more: both sides forget it.
    ///
    /// # Errors
    /// If the record does not begin with an opening, or holds a point or a secret that no plan would have let pass.
    pub fn replay(
        secrets: ChannelSecrets,
        record: impl IntoIterator<Item = Delta>,
    ) -> Result<Channel, ReplayError> {
        let mut record = record.into_iter();
        let first = record.next().ok_or(ReplayError::NoBeginning)?;
        let mut channel = Channel::begin(secrets, first)?;
        for delta in record {
            channel.replay_delta(delta)?;
        }
        channel.replay_end();
        Ok(channel)
    }

    /// Folds one more delta of a record.
    pub(crate) fn replay_delta(&mut self, delta: Delta) -> Result<(), ReplayError> {
        self.fold(delta, &mut ChannelEffects::default())
    }

    /// Ends a record: the channel comes back without a connection.
    pub(crate) fn replay_end(&mut self) {
        let ended = self.fold(Delta::Disconnected, &mut ChannelEffects::default());
        debug_assert!(ended.is_ok(), "a connection can be lost at any time");
    }

    /// The channel that a record's first delta stands for.
    pub(crate) fn begin(secrets: ChannelSecrets, first: Delta) -> Result<Channel, ReplayError> {
        if let Delta::Opened { open, .. } | Delta::Accepted { open, .. } = &first {
            open_points(open)?;
            let channel_type = open.channel_type.as_ref().and_then(channel_type_from_features);
            channel_type.ok_or(ReplayError::Opening)?;
        }
        let phase = match first {
            Delta::Opened { config, features, open } => Phase::AwaitingAccept(Box::new(AwaitingAccept {
                config: *config,
                features,
                secrets,
                open: *open,
            })),
            Delta::Accepted { config, features, open, accept } => {
                accept_points(&accept)?;
                Phase::AwaitingFundingCreated(Box::new(AwaitingFundingCreated {
                    config: *config,
                    features,
                    secrets,
                    open: *open,
                    accept: *accept,
                }))
            }
            _ => return Err(ReplayError::NoBeginning),
        };
        Ok(Channel { phase })
    }

    /// Folds one delta and adds the events that follow from it.
    pub(super) fn fold(&mut self, delta: Delta, effects: &mut ChannelEffects) -> Result<(), ReplayError> {
        match delta {
            Delta::Opened { .. }
            | Delta::Accepted { .. }
            | Delta::AcceptReceived { .. }
            | Delta::FundingCreatedSent { .. }
            | Delta::FundingCreatedReceived { .. }
            | Delta::FundingSignedReceived { .. } => self.fold_opening(delta, effects)?,
            Delta::ClosingOffered { .. } | Delta::ClosingReceived { .. } | Delta::ClosingAgreed { .. } => {
                if let Phase::Negotiating(negotiating) = &mut self.phase {
                    negotiating.fold(delta, effects);
                }
            }
            Delta::Failed { error } => self.fail(error, effects),
            _ => self.fold_funded(delta, effects)?,
        }
        self.advance_phase(effects);
        Ok(())
    }

    fn fold_opening(&mut self, delta: Delta, effects: &mut ChannelEffects) -> Result<(), ReplayError> {
        if let Delta::AcceptReceived { accept } = &delta {
            accept_points(accept)?;
        }
        let phase = std::mem::replace(&mut self.phase, Phase::Changing);
        self.phase = match (phase, delta) {
            (Phase::AwaitingAccept(phase), Delta::AcceptReceived { accept }) => {
                let next = phase.accepted(*accept);
                effects.events.push(next.funding_needed());
                Phase::AwaitingFunding(Box::new(next))
            }
            (Phase::AwaitingFunding(phase), Delta::FundingCreatedSent { transaction, output }) => {
                let next = opening::AwaitingFundingSigned {
                    funded: phase.funded(&transaction, output),
                    temporary_channel_id: phase.id(),
                    transaction: *transaction,
                };
                effects.events.push(ChannelEvent::IdAssigned { channel_id: next.id() });
                Phase::AwaitingFundingSigned(Box::new(next))
            }
            (Phase::AwaitingFundingSigned(phase), Delta::FundingSignedReceived { signature }) => {
                let opening::AwaitingFundingSigned { mut funded, transaction, .. } = *phase;
                funded.local_signature = signature;
                funded.funding_transaction = Some(Box::new(transaction.clone()));
                effects.events.push(ChannelEvent::FundingBroadcast { transaction });
                Phase::Confirming(Box::new(funded))
            }
            (Phase::AwaitingFundingCreated(phase), Delta::FundingCreatedReceived { outpoint, signature }) => {
                let mut funded = phase.funded(outpoint);
                funded.local_signature = signature;
                effects.events.push(ChannelEvent::IdAssigned { channel_id: funded.params.channel_id });
                Phase::Confirming(Box::new(funded))
            }
            (phase, _) => phase,
        };
        Ok(())
    }

    fn fold_funded(&mut self, delta: Delta, effects: &mut ChannelEffects) -> Result<(), ReplayError> {
        match &mut self.phase {
            Phase::Confirming(funded) => funded.fold(delta, effects),
            Phase::Normal(funded) => {
                let was_unconfirmed = funded.scid.is_none();
                funded.fold(delta, effects)?;
                // Confirmed again after a reorganisation, perhaps at another place.
                if let Some(scid) = funded.scid.filter(|_| was_unconfirmed) {
                    effects.events.push(ChannelEvent::Ready { scid });
                }
                Ok(())
            }
            Phase::Negotiating(negotiating) => {
                if matches!(delta, Delta::Disconnected | Delta::Connected) {
                    negotiating.restart();
                }
                negotiating.funded.fold(delta, effects)
            }
            Phase::Failed(failed) => match (&mut failed.funded, delta) {
                (Some(funded), delta @ (Delta::FundingLocked { .. } | Delta::FundingUnlocked)) => {
                    funded.fold(delta, effects)
                }
                _ => Ok(()),
            },
            _ => Ok(()),
        }
    }

    fn fail(&mut self, error: super::ChannelError, effects: &mut ChannelEffects) {
        let channel_id = self.id();
        let funded = match std::mem::replace(&mut self.phase, Phase::Changing) {
            Phase::Confirming(funded) | Phase::Normal(funded) => Some(funded),
            Phase::Negotiating(negotiating) => Some(negotiating.funded),
            Phase::Failed(failed) => failed.funded,
            _ => None,
        };
        effects.events.push(ChannelEvent::Failed {
            error: error.clone(),
            broadcast_allowed: funded.is_some() && error.broadcast_allowed(),
        });
        self.phase = Phase::Failed(Box::new(Failed { channel_id, error, funded }));
    }

    /// Changes to the phase that the state has reached.
    fn advance_phase(&mut self, effects: &mut ChannelEffects) {
        let phase = std::mem::replace(&mut self.phase, Phase::Changing);
        self.phase = match phase {
            Phase::Confirming(funded) | Phase::Normal(funded) if funded.shutdown_complete() => {
                Phase::Negotiating(Box::new(Negotiating::new(funded)))
            }
            Phase::Confirming(funded) if funded.is_ready() => {
                if let Some(scid) = funded.scid {
                    effects.events.push(ChannelEvent::Ready { scid });
                }
                Phase::Normal(funded)
            }
            phase => phase,
        };
    }
}

impl Funded {
    fn fold(&mut self, delta: Delta, effects: &mut ChannelEffects) -> Result<(), ReplayError> {
        self.tallies.end(&delta);
        match delta {
            Delta::FundingLocked { scid } => {
                if let Some(previous) = self.scid.replace(scid).filter(|previous| *previous != scid) {
                    effects.events.push(ChannelEvent::FundingMoved { previous, scid });
                }
                self.funding_transaction = None;
            }
            Delta::FundingUnlocked => {
                if let Some(previous) = self.scid.take() {
                    effects.events.push(ChannelEvent::FundingUnconfirmed { previous });
                }
            }
            Delta::FeaturesChanged { features } => self.params.agreed.features = features,
            Delta::ChannelReadyReceived { second_per_commitment_point } => {
                self.ready_received = true;
                self.remote_next_point = Some(point(&second_per_commitment_point)?);
            }
            Delta::Added { by, htlc, over_dust_exposure } => {
                let (expected, found) = (self.updates.next_id(by), htlc.id);
                if found != expected {
                    return Err(ReplayError::HtlcId { expected, found });
                }
                let entry = self.updates.add(by, htlc, over_dust_exposure);
                self.tallies.added(entry);
            }
            Delta::Removed { by, id, removal } => {
                if let (Side::Remote, Removal::Fulfill(preimage)) = (by, &removal) {
                    effects.events.push(ChannelEvent::Fulfilled { id, preimage: *preimage });
                }
                self.updates.remove(by, id, removal);
            }
            Delta::FeeUpdated { feerate } => self.updates.set_fee(feerate),
            Delta::CommitmentSent => {
                self.updates.commitment_signed(Side::Local);
                self.remote_number = self.remote_number.next();
                self.awaiting_revocation = true;
                self.commitment_sent_last = true;
            }
            Delta::CommitmentReceived { signature, htlc_signatures } => {
                self.fold_commitment(signature, htlc_signatures, effects);
            }
            Delta::RevocationReceived { per_commitment_secret, next_per_commitment_point } => {
                self.fold_revocation(&per_commitment_secret, &next_per_commitment_point)?;
                self.updates.revoke_and_ack(Side::Remote, &mut effects.events);
            }
            Delta::ShutdownWanted { scriptpubkey } => {
                self.announce_shutdown(effects);
                self.shutdown.wanted = Some(scriptpubkey);
            }
            Delta::Shutdown { by, scriptpubkey } => {
                self.announce_shutdown(effects);
                match by {
                    Side::Local => self.shutdown.sent = Some(scriptpubkey),
                    Side::Remote => self.shutdown.received = Some(scriptpubkey),
                }
            }
            Delta::AdditionsDropped => self.updates.drop_unsigned_additions(&mut effects.events),
            of_link => self.fold_link(&of_link),
        }
        Ok(())
    }

    /// A commitment of ours: the peer has signed it, and our answer revokes the one before.
    fn fold_commitment(
        &mut self,
        signature: Signature,
        htlc_signatures: Vec<Signature>,
        effects: &mut ChannelEffects,
    ) {
        self.updates.commitment_signed(Side::Remote);
        self.local_number = self.local_number.next();
        self.local_signature = signature;
        self.local_htlc_signatures = htlc_signatures;
        self.peer_may_repeat = false;
        self.ahead.shift_local();
        self.updates.revoke_and_ack(Side::Local, &mut effects.events);
        self.commitment_sent_last = false;
    }

    fn fold_link(&mut self, delta: &Delta) {
        match delta {
            Delta::Disconnected => {
                self.updates.forget_proposals_of_peer();
                self.link = Link::Down;
                self.peer_may_repeat = false;
            }
            Delta::Connected => {
                self.updates.forget_proposals_of_peer();
                self.link = Link::Reestablishing;
            }
            Delta::Reestablished => {
                self.link = Link::Up;
                self.peer_may_repeat = true;
            }
            // The rest is folded by the phases it belongs to.
            _ => {}
        }
    }

    fn fold_revocation(&mut self, secret: &[u8; 32], next_point: &Point) -> Result<(), ReplayError> {
        let number = self.revealed.next();
        let wrong = ReplayError::Revocation(number);
        let secret = PerCommitmentSecret::from_bytes(secret).ok_or(wrong)?;
        self.revealed.insert(number, &secret).map_err(|_| wrong)?;
        self.remote_point = self.remote_next_point.ok_or(wrong)?;
        self.remote_next_point = Some(point(next_point)?);
        self.awaiting_revocation = false;
        Ok(())
    }

    fn announce_shutdown(&self, effects: &mut ChannelEffects) {
        if !self.is_shutting_down() {
            effects.events.push(ChannelEvent::ShutdownStarted);
        }
    }
}

impl Negotiating {
    fn fold(&mut self, delta: Delta, effects: &mut ChannelEffects) {
        match delta {
            Delta::ClosingOffered { fee, range } => self.offered = Some(Offer { fee, range }),
            Delta::ClosingReceived { fee } => {
                self.received = Some(fee);
                self.rounds += 1;
            }
            Delta::ClosingAgreed { fee, transaction } => {
                effects.broadcast.push((*transaction).clone());
                effects.events.push(ChannelEvent::Closed { transaction: (*transaction).clone() });
                self.agreed = Some((fee, transaction));
                self.agreed_on_connection = true;
            }
            _ => {}
        }
    }
}

fn point(point: &Point) -> Result<PublicKey, InvalidPoint> {
    parse_point("per_commitment_point", point)
}
