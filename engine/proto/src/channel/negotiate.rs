//! Agreeing on the closing transaction (BOLT 2, "Legacy Closing Negotiation: `closing_signed`").
//!
//! Owns: which fees we propose and accept, with fee ranges and without, and the closing transaction once both signed.
//! Does not: watch it confirm.
//!
//! Invariants: a proposal of ours is within the range we gave; the fee never exceeds the opener's balance; the
//! transaction handed out carries two signatures that were checked. No output is too small to relay: all scripts we
//! allow are segregated-witness ones, whose thresholds lie below every dust limit. Signatures are checked while
//! planning, not as jobs: the peer may leave out its own output, so one of several transactions has to fit.

use bitcoin::{ScriptBuf, Transaction};
use fulmen_wire::message::{ClosingSigned, FeeRange, Message};
use fulmen_wire::tlv::UnknownTlvs;
use fulmen_wire::units::{FeeratePerKw, Msat, Sat, Signature};

use super::Context;
use super::command::{ChannelCommand, ChannelCommandError};
use super::delta::Delta;
use super::effect::Plan;
use super::error::ChannelError;
use super::funded::{Funded, Link};
use super::htlc::Side;
use super::normal::unexpected;
use super::state::State;
use super::updates::View;
use crate::commitment::{ClosingParams, ClosingTx, ClosingVariant};
use crate::keys::verify;

/// How many times the estimated fee an opener pays at most.
const FEE_MULTIPLE_MAX: u64 = 3;

/// How many proposals of a peer without fee ranges are answered on one connection: each costs a record and a message.
const CLOSING_ROUNDS_MAX: u32 = 64;

/// A fee we proposed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Offer {
    pub(super) fee: Sat,
    pub(super) range: (Sat, Sat),
}

/// A channel without HTLCs whose two sides agree on how to close it, or did.
#[derive(Clone, Debug)]
pub(super) struct Negotiating {
    pub(super) funded: Box<Funded>,
    /// Our latest proposal on this connection.
    pub(super) offered: Option<Offer>,
    /// The peer's latest proposal on this connection.
    pub(super) received: Option<Sat>,
    /// The fee agreed on and the transaction; the negotiation may run again on a new connection, since the peer may
    /// not know.
    pub(super) agreed: Option<(Sat, Box<Transaction>)>,
    /// Whether the agreement was reached, or repeated, on this connection.
    pub(super) agreed_on_connection: bool,
    /// How many proposals of the peer we answered with another fee on this connection.
    pub(super) rounds: u32,
}

impl Negotiating {
    pub(super) fn new(funded: Box<Funded>) -> Negotiating {
        Negotiating {
            funded,
            offered: None,
            received: None,
            agreed: None,
            agreed_on_connection: false,
            rounds: 0,
        }
    }

    /// Negotiation starts over with each connection.
    pub(super) fn restart(&mut self) {
        self.offered = None;
        self.received = None;
        self.agreed_on_connection = false;
        self.rounds = 0;
    }

    /// Plans a message of the peer.
    pub(super) fn plan(&self, message: &Message, context: &Context) -> Result<Plan, ChannelError> {
        if let Some(plan) = self.funded.plan_early(message) {
            return plan;
        }
        self.funded.check_link(message, State::Negotiating)?;
        match message {
            // One agreement a connection is enough: each further one would cost a record, an event and a broadcast.
            Message::ClosingSigned(_) if self.agreed_on_connection => Ok(Plan::default()),
            Message::ClosingSigned(message) => self.plan_closing_signed(message, context),
            Message::Shutdown(message) => self.funded.plan_shutdown(message),
            Message::ChannelReestablish(message) => {
                let plan = self.funded.plan_reestablish(message);
                // A peer that has forgotten the channel says so with impossible numbers; the closing transaction is
                // signed, so nothing is to be done about it.
                if self.agreed.is_some() { Ok(plan.unwrap_or_default()) } else { plan }
            }
            Message::ChannelReady(_) | Message::AnnouncementSignatures(_) => Ok(Plan::default()),
            _ => Err(unexpected(message, State::Negotiating)),
        }
    }

    /// Plans a command; only those about the connection and the chain are possible here.
    pub(super) fn plan_command(&self, command: &ChannelCommand) -> Result<Plan, ChannelCommandError> {
        match command {
            ChannelCommand::Disconnected => Ok(Plan::of(Delta::Disconnected)),
            ChannelCommand::Connected { features } => Ok(self.funded.plan_connected(*features)),
            ChannelCommand::FundingConfirmed { scid, depth, .. } => {
                Ok(self.funded.plan_funding_seen(*scid, *depth))
            }
            ChannelCommand::FundingUnconfirmed if self.funded.scid.is_some() => {
                Ok(Plan::of(Delta::FundingUnlocked))
            }
            ChannelCommand::FundingUnconfirmed => Ok(Plan::default()),
            ChannelCommand::Shutdown { .. } => Err(ChannelCommandError::AlreadyShuttingDown),
            ChannelCommand::AddHtlc { .. } => Err(ChannelCommandError::ShuttingDown),
            _ => Err(ChannelCommandError::NotPossible {
                command: command.name(),
                state: State::Negotiating.name(),
            }),
        }
    }

    /// Plans the opener's first `closing_signed` on this connection.
    pub(super) fn plan_first_offer(&self, context: &Context) -> Option<Plan> {
        let opener = self.funded.params.agreed.opener == Side::Local;
        if !opener || self.offered.is_some() || self.funded.link != Link::Up {
            return None;
        }
        let range = self.range(context);
        let fee = self.preferred(context, range);
        let mut plan = Plan::default();
        self.offer(fee, range, &mut plan).ok()?;
        Some(plan)
    }

    fn plan_closing_signed(&self, message: &ClosingSigned, context: &Context) -> Result<Plan, ChannelError> {
        let fee = message.fee_satoshis;
        let closing = self.check_signature(fee, &message.signature)?;
        let ours = self.offered.map_or_else(|| self.range(context), |offer| offer.range);
        if self.offered.is_some_and(|offer| offer.fee == fee) {
            return self.agree(fee, ours, &closing, &message.signature, false);
        }
        let within = |(min, max): (Sat, Sat)| min <= fee && fee <= max;
        if let Some(theirs) = message.fee_range {
            let theirs = (theirs.min_fee_satoshis, theirs.max_fee_satoshis);
            let overlap = (ours.0.max(theirs.0), ours.1.min(theirs.1));
            if overlap.0 > overlap.1 {
                return Err(ChannelError::ClosingFeeRangesDisjoint { ours, theirs });
            }
            let opener = self.funded.params.agreed.opener == Side::Local;
            if within(overlap) && (opener || self.offered.is_none()) {
                return self.agree(fee, ours, &closing, &message.signature, true);
            }
            if opener || self.offered.is_some() {
                return Err(ChannelError::ClosingFeeOutsideOverlap { fee, min: overlap.0, max: overlap.1 });
            }
            return self.counter(fee, fee.clamp(overlap.0, overlap.1), ours);
        }
        if within(ours) {
            return self.agree(fee, ours, &closing, &message.signature, true);
        }
        self.plan_legacy(fee, ours, context)
    }

    /// Answers a fee outside our range by one strictly between it and our last, as peers without fee ranges do. At the
    /// limit of our range there is no such fee: our last one is repeated, as long as the peer comes towards it.
    fn plan_legacy(&self, fee: Sat, ours: (Sat, Sat), context: &Context) -> Result<Plan, ChannelError> {
        let last = self.offered.map_or_else(|| self.preferred(context, ours), |offer| offer.fee);
        if let (Some(_), Some(received)) = (self.offered, self.received) {
            let (min, max) = (last.min(received), last.max(received));
            if fee <= min || fee >= max {
                return Err(ChannelError::ClosingFeeOutOfRange { fee, min, max });
            }
        }
        if self.rounds >= CLOSING_ROUNDS_MAX {
            return Err(ChannelError::ClosingRoundsExceeded(self.rounds));
        }
        self.counter(fee, Sat(fee.0.midpoint(last.0)).clamp(ours.0, ours.1), ours)
    }

    fn counter(&self, received: Sat, fee: Sat, range: (Sat, Sat)) -> Result<Plan, ChannelError> {
        let mut plan = Plan::of(Delta::ClosingReceived { fee: received });
        self.offer(fee, range, &mut plan)?;
        Ok(plan)
    }

    /// Adds our `closing_signed` with this fee.
    fn offer(&self, fee: Sat, range: (Sat, Sat), plan: &mut Plan) -> Result<(), ChannelError> {
        let closing = self.build(fee, Side::Local, ClosingVariant::Both)?;
        plan.deltas.push(Delta::ClosingOffered { fee, range });
        plan.send.push(self.closing_signed(fee, range, &closing));
        Ok(())
    }

    /// Agrees to the peer's fee: both have signed the same transaction now.
    fn agree(
        &self,
        fee: Sat,
        range: (Sat, Sat),
        closing: &ClosingTx,
        theirs: &Signature,
        reply: bool,
    ) -> Result<Plan, ChannelError> {
        let ours = self.funded.secrets.sign_funding(&closing.digest);
        let signed = closing.signed(&ours, theirs).map_err(|_| ChannelError::BadClosingSignature { fee })?;
        let mut plan = Plan::default();
        if reply {
            plan.deltas.push(Delta::ClosingOffered { fee, range });
            plan.send.push(self.closing_signed(fee, range, closing));
        }
        plan.deltas.push(Delta::ClosingAgreed { fee, transaction: Box::new(signed) });
        Ok(plan)
    }

    fn closing_signed(&self, fee: Sat, range: (Sat, Sat), closing: &ClosingTx) -> Message {
        let message = ClosingSigned {
            channel_id: self.funded.params.channel_id,
            fee_satoshis: fee,
            signature: self.funded.secrets.sign_funding(&closing.digest),
            fee_range: Some(FeeRange { min_fee_satoshis: range.0, max_fee_satoshis: range.1 }),
            unknown: UnknownTlvs::default(),
        };
        message.into()
    }

    /// The closing transaction with this fee that the peer signed: with its dust limit or ours, with its own output or
    /// without.
    fn check_signature(&self, fee: Sat, signature: &Signature) -> Result<ClosingTx, ChannelError> {
        let key = &self.funded.params.agreed.remote_basepoints.funding;
        let variants = [
            (Side::Remote, ClosingVariant::Both),
            (Side::Remote, ClosingVariant::WithoutRemote),
            (Side::Local, ClosingVariant::Both),
        ];
        let mut impossible = None;
        for (signer, variant) in variants {
            match self.build(fee, signer, variant) {
                Ok(closing) if verify(&closing.digest, signature, key) => return Ok(closing),
                Ok(_) => {}
                Err(error) if variant == ClosingVariant::Both => impossible = Some(error),
                Err(_) => {}
            }
        }
        Err(impossible.unwrap_or(ChannelError::BadClosingSignature { fee }))
    }

    fn build(&self, fee: Sat, signer: Side, variant: ClosingVariant) -> Result<ClosingTx, ChannelError> {
        let params = &self.funded.params;
        let balances = self.funded.updates.reduce(View::IRREVOCABLE);
        let balance = balances.of(params.agreed.opener);
        if fee > balance.floor_sat() {
            return Err(ChannelError::ClosingFeeTooLarge { fee, balance });
        }
        let script = |script: &Option<Vec<u8>>| ScriptBuf::from(script.clone().unwrap_or_default());
        let closing = ClosingParams {
            funding_outpoint: params.agreed.outpoint,
            funding_amount: params.agreed.funding,
            local_funding_pubkey: params.local_commitment.local_funding_pubkey,
            remote_funding_pubkey: params.local_commitment.remote_funding_pubkey,
            local_is_opener: params.agreed.opener == Side::Local,
            to_local: balances.local,
            to_remote: balances.remote,
            local_script: script(&self.funded.shutdown.sent),
            remote_script: script(&self.funded.shutdown.received),
            dust_limit: params.terms(signer).dust_limit,
            fee,
        };
        Ok(ClosingTx::build(&closing, variant)?)
    }

    /// The fees we accept: the least that relays, and, where we pay, a multiple of the estimate.
    fn range(&self, context: &Context) -> (Sat, Sat) {
        let opener = self.funded.updates.reduce(View::IRREVOCABLE).of(self.funded.params.agreed.opener);
        let affordable = self.most_affordable(opener);
        let min = self.fee(FeeratePerKw::FLOOR).min(affordable);
        let max = match self.funded.params.agreed.opener {
            Side::Local => Sat(self.fee(context.feerate).0.saturating_mul(FEE_MULTIPLE_MAX)).max(min),
            Side::Remote => affordable,
        };
        (min, max.min(affordable))
    }

    /// The highest fee the opener can pay: its whole balance, unless no output would be left.
    fn most_affordable(&self, opener: Msat) -> Sat {
        let params = &self.funded.params;
        let other = params.agreed.funding.to_msat().saturating_sub(opener).floor_sat();
        let least = params.agreed.local_terms.dust_limit.max(params.agreed.remote_terms.dust_limit);
        if other >= least { opener.floor_sat() } else { opener.floor_sat().saturating_sub(least) }
    }

    /// The fee we propose: the one agreed on before, else the estimate.
    fn preferred(&self, context: &Context, range: (Sat, Sat)) -> Sat {
        let estimate = self.fee(context.feerate);
        self.agreed.as_ref().map_or(estimate, |(fee, _)| *fee).clamp(range.0, range.1)
    }

    fn fee(&self, feerate: FeeratePerKw) -> Sat {
        let scripts = [&self.funded.shutdown.sent, &self.funded.shutdown.received];
        let outputs: usize = scripts.iter().map(|script| 9 + script.as_ref().map_or(0, Vec::len)).sum();
        // Version, counts, one input, lock time; then the witness of a two-of-two spend.
        feerate.fee(4 * (51 + outputs as u64) + 222)
    }
}
