//! Queries of a channel for its owner, its forwarder and its chain watcher.
//!
//! Owns: the public queries. Does not: change or check anything. Invariant: every answer is derived when asked.

use bitcoin::{OutPoint, Transaction};
use fulmen_wire::units::{ChannelId, FeeratePerKw, Msat, Sat, Scid, Signature};
use secp256k1::PublicKey;

use super::error::{AwaitedAnswer, ChannelError};
use super::funded::{Funded, Link};
use super::htlc::{HtlcEntry, Side};
use super::params::Terms;
use super::state::State;
use super::updates::View;
use super::{Channel, Phase};
use crate::commitment::{ChannelType, CommitmentTx};
use crate::keys::{ChannelSecrets, CommitmentNumber};

/// Looking at a channel.
impl Channel {
    /// The channel's id: the temporary one until the funding outpoint is known.
    #[must_use]
    pub fn id(&self) -> ChannelId {
        match &self.phase {
            Phase::AwaitingAccept(phase) => phase.id(),
            Phase::AwaitingFunding(phase) => phase.id(),
            Phase::AwaitingFundingCreated(phase) => phase.id(),
            Phase::AwaitingFundingSigned(phase) => phase.id(),
            Phase::Confirming(funded) | Phase::Normal(funded) => funded.params.channel_id,
            Phase::Negotiating(negotiating) => negotiating.funded.params.channel_id,
            Phase::Failed(failed) => failed.channel_id,
            Phase::Changing => ChannelId([0; 32]),
        }
    }

    /// The channel's state.
    #[must_use]
    pub fn state(&self) -> State {
        match &self.phase {
            Phase::AwaitingAccept(_)
            | Phase::AwaitingFunding(_)
            | Phase::AwaitingFundingCreated(_)
            | Phase::AwaitingFundingSigned(_) => State::Opening,
            Phase::Confirming(_) => State::Confirming,
            Phase::Normal(funded) if funded.is_shutting_down() => State::ShuttingDown,
            Phase::Normal(_) => State::Normal,
            Phase::Negotiating(negotiating) if negotiating.agreed.is_some() => State::Closed,
            Phase::Negotiating(_) => State::Negotiating,
            Phase::Failed(_) | Phase::Changing => State::Failed,
        }
    }

    /// Why the channel failed, if it did.
    #[must_use]
    pub fn failure(&self) -> Option<&ChannelError> {
        match &self.phase {
            Phase::Failed(failed) => Some(&failed.error),
            _ => None,
        }
    }

    /// Whether an HTLC could be offered now, limits aside: funding confirmed, ready, connected, not shutting down.
    #[must_use]
    pub fn is_usable(&self) -> bool {
        let is_open = |funded: &Funded| funded.link == Link::Up && funded.is_ready();
        self.state() == State::Normal && self.funded().is_some_and(is_open)
    }

    /// Whether the peer is connected and the channel reestablished.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.funded().is_some_and(|funded| funded.link == Link::Up)
    }

    /// Where the funding output stands in the chain, once deep enough.
    #[must_use]
    pub fn scid(&self) -> Option<Scid> {
        self.funded().and_then(|funded| funded.scid)
    }

    /// The funding output.
    #[must_use]
    pub fn funding_outpoint(&self) -> Option<OutPoint> {
        self.funded().map(|funded| funded.params.agreed.outpoint)
    }

    /// The channel's capacity, once funded.
    #[must_use]
    pub fn capacity(&self) -> Option<Sat> {
        self.funded().map(|funded| funded.params.agreed.funding)
    }

    /// The confirmations that the funding transaction needs before the channel is ready, once funded.
    #[must_use]
    pub fn minimum_depth(&self) -> Option<u32> {
        self.funded().map(|funded| funded.params.agreed.minimum_depth)
    }

    /// Who opened the channel, and so pays its fees.
    #[must_use]
    pub fn opener(&self) -> Side {
        match &self.phase {
            Phase::AwaitingAccept(_) | Phase::AwaitingFunding(_) | Phase::AwaitingFundingSigned(_) => {
                Side::Local
            }
            Phase::AwaitingFundingCreated(_) => Side::Remote,
            _ => self.funded().map_or(Side::Remote, |funded| funded.params.agreed.opener),
        }
    }

    /// Whether the opener asked for the channel to be announced.
    #[must_use]
    pub fn is_announced(&self) -> bool {
        self.funded().is_some_and(|funded| funded.params.agreed.announce)
    }

    /// The commitment format.
    #[must_use]
    pub fn channel_type(&self) -> Option<ChannelType> {
        self.funded().map(|funded| funded.params.agreed.channel_type)
    }

    /// The terms that one side announced when the channel was opened.
    #[must_use]
    pub fn terms(&self, side: Side) -> Option<&Terms> {
        self.funded().map(|funded| funded.params.terms(side))
    }

    /// The keys of the funding output, ours first.
    #[must_use]
    pub fn funding_pubkeys(&self) -> Option<(PublicKey, PublicKey)> {
        let params = &self.funded()?.params;
        Some((params.local_commitment.local_funding_pubkey, params.local_commitment.remote_funding_pubkey))
    }

    /// The largest HTLC that we may offer now, balances, reserves, fees, slots and value in flight considered; an
    /// addition of up to this much is refused at most for its size (`htlc_minimum_msat`, dust exposure) or its expiry.
    /// Zero when none can be added.
    #[must_use]
    pub fn available_out(&self) -> Msat {
        self.funded().filter(|_| self.is_usable()).map_or(Msat::ZERO, Funded::available_out)
    }

    /// The largest HTLC that the peer may offer us, as far as we can know.
    #[must_use]
    pub fn receivable(&self) -> Msat {
        self.funded().filter(|_| self.is_usable()).map_or(Msat::ZERO, Funded::available_in)
    }

    /// Both balances, ours first, with each HTLC still counted for its offerer: the balances both sides would have if
    /// every HTLC failed.
    #[must_use]
    pub fn balances(&self) -> Option<(Msat, Msat)> {
        let funded = self.funded()?;
        let balances = funded.updates.reduce(View::IRREVOCABLE);
        let pending = |side| -> Msat {
            balances
                .htlcs
                .iter()
                .filter(|entry| entry.offered_by == side)
                .map(|entry| entry.htlc.amount)
                .sum()
        };
        Some((
            balances.local.saturating_add(pending(Side::Local)),
            balances.remote.saturating_add(pending(Side::Remote)),
        ))
    }

    /// Number and sum of the HTLCs that one side has offered.
    #[must_use]
    pub fn in_flight(&self, offered_by: Side) -> (usize, Msat) {
        let htlcs = self.htlcs().filter(|entry| entry.offered_by == offered_by);
        htlcs.fold((0, Msat::ZERO), |(count, sum), entry| (count + 1, sum.saturating_add(entry.htlc.amount)))
    }

    /// The sum of the HTLCs too small for one side's commitment.
    #[must_use]
    pub fn dust_exposure(&self, owner: Side) -> Msat {
        self.funded().map_or(Msat::ZERO, |funded| funded.dust_exposure(owner))
    }

    /// Every HTLC that is in a commitment or on its way there, ours first, each direction by id.
    pub fn htlcs(&self) -> impl Iterator<Item = &HtlcEntry> {
        self.funded().into_iter().flat_map(|funded| funded.updates.entries())
    }

    /// The HTLC that one side offered under this id, while it exists.
    #[must_use]
    pub fn htlc(&self, offered_by: Side, id: u64) -> Option<&HtlcEntry> {
        self.funded()?.updates.entry(offered_by, id)
    }

    /// The id that the next [`ChannelCommand::AddHtlc`](super::command::ChannelCommand::AddHtlc) gets.
    #[must_use]
    pub fn next_htlc_id(&self) -> u64 {
        self.funded().map_or(0, |funded| funded.updates.next_id(Side::Local))
    }

    /// The fee rate of our latest commitment.
    #[must_use]
    pub fn feerate(&self) -> Option<FeeratePerKw> {
        Some(self.funded()?.updates.reduce(View::LOCAL_LATEST).feerate)
    }

    /// The numbers of our latest commitment and of the peer's latest that we signed.
    #[must_use]
    pub fn commitment_numbers(&self) -> Option<(CommitmentNumber, CommitmentNumber)> {
        self.funded().map(|funded| (funded.local_number, funded.remote_number))
    }

    /// The message that the peer is to send next so that the channel can go on, if there is one. The channel keeps no
    /// time: an owner that has waited too long says so with
    /// [`ChannelCommand::AnswerOverdue`](super::command::ChannelCommand::AnswerOverdue).
    #[must_use]
    pub fn awaited_answer(&self) -> Option<AwaitedAnswer> {
        let of_link = |funded: &Funded| {
            (funded.link == Link::Reestablishing).then_some(AwaitedAnswer::ChannelReestablish)
        };
        match &self.phase {
            Phase::AwaitingAccept(_) => Some(AwaitedAnswer::AcceptChannel),
            Phase::AwaitingFundingCreated(_) => Some(AwaitedAnswer::FundingCreated),
            Phase::AwaitingFundingSigned(_) => Some(AwaitedAnswer::FundingSigned),
            Phase::Confirming(funded) | Phase::Normal(funded) => match (&funded.link, &funded.shutdown) {
                (Link::Up, _) if funded.awaiting_revocation => Some(AwaitedAnswer::RevokeAndAck),
                (Link::Up, shutdown) if shutdown.sent.is_some() && shutdown.received.is_none() => {
                    Some(AwaitedAnswer::Shutdown)
                }
                _ => of_link(funded),
            },
            Phase::Negotiating(negotiating) if negotiating.agreed.is_some() => None,
            Phase::Negotiating(_) => Some(AwaitedAnswer::ClosingSigned),
            Phase::AwaitingFunding(_) | Phase::Failed(_) | Phase::Changing => None,
        }
    }

    /// Whether updates wait to be signed, or the peer's answer to our `commitment_signed` is still due.
    #[must_use]
    pub fn is_settling(&self) -> bool {
        self.funded().is_some_and(|funded| funded.has_unsigned_updates() || funded.awaiting_revocation)
    }

    /// As opener, from `funding_signed` until it is deep enough: the funding transaction, to be broadcast (again).
    #[must_use]
    pub fn funding_transaction(&self) -> Option<&Transaction> {
        self.funded()?.funding_transaction.as_deref()
    }

    /// The closing transaction, once both sides have signed it.
    #[must_use]
    pub fn closing_transaction(&self) -> Option<&Transaction> {
        match &self.phase {
            Phase::Negotiating(negotiating) => {
                negotiating.agreed.as_ref().map(|(_, transaction)| &**transaction)
            }
            _ => None,
        }
    }

    /// Our latest commitment, with the transaction signed by both sides, to be broadcast when the peer is gone.
    /// `None` before the channel is funded, and when [`ChannelError::broadcast_allowed`] forbids it.
    #[must_use]
    pub fn signed_local_commitment(&self) -> Option<(CommitmentTx, Transaction)> {
        if self.failure().is_some_and(|error| !error.broadcast_allowed()) {
            return None;
        }
        self.funded()?.signed_local_commitment()
    }

    /// The peer's signatures for the HTLC transactions of our latest commitment, in the order of its HTLC outputs.
    #[must_use]
    pub fn local_htlc_signatures(&self) -> &[Signature] {
        self.funded().map_or(&[], |funded| &funded.local_htlc_signatures)
    }

    /// The channel's keys, for spending on chain.
    #[must_use]
    pub fn secrets(&self) -> Option<&ChannelSecrets> {
        self.funded().map(|funded| &funded.secrets)
    }

    pub(super) fn funded(&self) -> Option<&Funded> {
        match &self.phase {
            Phase::Confirming(funded) | Phase::Normal(funded) => Some(funded),
            Phase::Negotiating(negotiating) => Some(&negotiating.funded),
            Phase::Failed(failed) => failed.funded.as_deref(),
            _ => None,
        }
    }
}
