//! One channel as a sans-IO state machine (BOLT 2, version 1 establishment).
//!
//! Owns: everything a channel's two commitment transactions follow from, every BOLT 2 check of a peer's message and of
//! our own commands, and the messages due in answer. Does not: read onions, decide about forwards, watch the chain,
//! keep time, or make and check signatures in bulk (jobs go out, results come in). Rare single signatures (opening,
//! closing) are made and checked while planning.
//!
//! # Driving it
//!
//! 1. [`Channel::open`] or [`Channel::accept`] make a channel; its first deltas and effects come with it.
//! 2. For each message: [`Channel::plan`]. An error is answered with [`Channel::plan_reaction`], which never fails.
//!    For each command: [`Channel::plan_command`]; an error there changes nothing, and the peer does not learn of it.
//! 3. Check the plan's [`verify`](Plan::verify) jobs, any number of channels at once. If one is bad:
//!    [`Plan::bad_signature`], then [`Channel::plan_reaction`] with that.
//! 4. Execute the plan's [`sign`](Plan::sign) jobs, any number of channels at once.
//! 5. Make the plan's deltas durable together with the turn's other changes, call [`Channel::apply`] and, after both,
//!    execute the [`ChannelEffects`]: send, broadcast, notify. `apply` itself may run before the record is durable, the
//!    effects may not.
//! 6. When a turn's inputs are in: [`Channel::plan_turn_end`], until it gives `None`. That is where updates are signed,
//!    and `shutdown` and the first `closing_signed` leave.
//!
//! A plan is good for the state it was made on: plan, apply, plan again; never two plans of one state.
//!
//! ```
//! use fulmen_proto::channel::{Channel, ChannelConfig, NegotiatedFeatures, OpenRequest, State};
//! use fulmen_proto::keys::{ChannelSecrets, NodeSeed};
//! use fulmen_wire::message::Message;
//! use fulmen_wire::units::{ChainHash, ChannelId, FeeratePerKw, Msat, Sat};
//!
//! let closing_script = [&[0x00, 20][..], &[7; 20]].concat();
//! let created = Channel::open(OpenRequest {
//!     config: ChannelConfig::new(ChainHash::REGTEST, closing_script),
//!     features: NegotiatedFeatures::default(),
//!     secrets: ChannelSecrets::derive(&NodeSeed::new([1; 32]), 0),
//!     temporary_channel_id: ChannelId([9; 32]),
//!     funding: Sat(1_000_000),
//!     push: Msat::ZERO,
//!     feerate: FeeratePerKw(1_000),
//! })?;
//! assert_eq!(created.channel.state(), State::Opening);
//! // `created.deltas` are made durable before this message is sent.
//! assert!(matches!(created.effects.send[..], [Message::OpenChannel(_)]));
//! # Ok::<(), fulmen_proto::channel::ChannelCommandError>(())
//! ```
//!
//! # Reconnecting
//!
//! On disconnection the peer's unsigned updates are forgotten (BOLT 2, "Message Retransmission"). Ours are kept, signed
//! or not, and sent again with the same ids in the same order when the channel is reestablished. The additions not yet
//! signed can be withdrawn instead ([`ChannelCommand::DropAdditions`]): the peer has forgotten them too.
//! `commitment_signed` is made again rather than stored: signing is deterministic. Commands to fulfill, fail and shut
//! down are accepted while disconnected.
//!
//! Invariants: `plan*` change nothing; `apply` cannot fail; folding the deltas of all plans gives the same channel
//! ([`Channel::replay`]); no plan signs a commitment that the peer has revoked, nor reveals the secret of one that is
//! not replaced.

mod ahead;
mod announcement;
mod codec;
mod command;
mod commitment_signed;
mod config;
mod delta;
mod effect;
mod error;
mod fold;
mod funded;
mod htlc;
mod key_jobs;
mod limits;
mod negotiate;
mod normal;
mod opening;
mod params;
mod query;
mod reestablish;
mod removal;
mod shutdown;
mod snapshot;
mod state;
mod tally;
mod terms;
#[cfg(test)]
mod tests;
mod updates;

use fulmen_wire::message::Message;
use fulmen_wire::units::{ChannelId, Signature};

pub(crate) use announcement::digest;
pub use announcement::{ANNOUNCEMENT_DEPTH, AnnouncingNodes, PeerSignatures};
pub use command::{AcceptRequest, ChannelCommand, ChannelCommandError, OpenRequest};
pub use commitment_signed::CommitDelay;
pub use config::{
    CLTV_EXPIRY_LIMIT, ChannelConfig, Context, DUST_LIMIT_MIN, LARGE_CHANNEL, MAX_ACCEPTED_HTLCS_LIMIT,
    NegotiatedFeatures, PeerLimits, channel_type_features, channel_type_from_features,
};
pub use delta::Delta;
pub use effect::{ChannelEffects, ChannelEvent, Plan, SignJob};
pub use error::{AwaitedAnswer, ChannelError, Reaction};
pub use fold::ReplayError;

pub use htlc::{
    FAILURE_REASON_BYTES_MAX, Htlc, HtlcEntry, PendingRemoval, Removal, Side, Stage, UpdateOrder,
};

pub use opening::Created;
pub use params::Terms;
pub use removal::RemovalError;
pub use state::State;

use funded::Funded;
use negotiate::Negotiating;
use opening::{AwaitingAccept, AwaitingFunding, AwaitingFundingCreated, AwaitingFundingSigned};

/// A channel with one peer.
#[derive(Clone, Debug)]
pub struct Channel {
    phase: Phase,
}

/// The phase of a channel, one struct each; a change of phase consumes the old one.
#[derive(Clone, Debug)]
enum Phase {
    /// As opener: `open_channel` is sent.
    AwaitingAccept(Box<AwaitingAccept>),
    /// As opener: the funding transaction is wanted from our owner.
    AwaitingFunding(Box<AwaitingFunding>),
    /// As opener: `funding_created` is sent.
    AwaitingFundingSigned(Box<AwaitingFundingSigned>),
    /// As acceptor: `accept_channel` is sent.
    AwaitingFundingCreated(Box<AwaitingFundingCreated>),
    /// The funding transaction is to confirm, and both sides to say `channel_ready`.
    Confirming(Box<Funded>),
    /// In use, until shutdown is complete.
    Normal(Box<Funded>),
    /// Agreeing on the closing transaction, or done with it.
    Negotiating(Box<Negotiating>),
    /// Failed; only the chain can settle it.
    Failed(Box<Failed>),
    /// Between two phases, while a delta is folded; never seen outside of it.
    Changing,
}

/// A failed channel: it does nothing any more.
#[derive(Clone, Debug)]
struct Failed {
    channel_id: ChannelId,
    error: ChannelError,
    /// The state at failure, if the channel was funded.
    funded: Option<Box<Funded>>,
}

/// Planning and applying.
impl Channel {
    /// Plans a message of the peer. Changes nothing; an error goes to [`Channel::plan_reaction`].
    ///
    /// # Errors
    /// If the peer breaks a rule of BOLT 2, or one of the limits that our configuration sets; [`Channel::reaction`]
    /// says how to respond.
    pub fn plan(&self, message: &Message, context: &Context) -> Result<Plan, ChannelError> {
        match message {
            // Once the closing transaction is signed by both, the peer may have forgotten the channel.
            Message::ErrorMessage(_) if matches!(self.state(), State::Closed | State::Failed) => {
                return Ok(Plan::default());
            }
            Message::ErrorMessage(error) => return Err(ChannelError::PeerError(error.text())),
            Message::Warning(_) => return Ok(Plan::default()),
            _ => self.check_channel_id(message)?,
        }
        match (&self.phase, message) {
            (Phase::AwaitingAccept(phase), Message::AcceptChannel(accept)) => phase.plan_accept(accept),
            (Phase::AwaitingFundingCreated(phase), Message::FundingCreated(created)) => {
                phase.plan_funding_created(created)
            }
            (Phase::AwaitingFundingSigned(phase), Message::FundingSigned(signed)) => {
                phase.plan_funding_signed(signed)
            }
            (Phase::Confirming(funded), _) => funded.plan_confirming(message),
            (Phase::Normal(funded), _) => funded.plan_normal(message),
            (Phase::Negotiating(negotiating), _) => negotiating.plan(message, context),
            // A failed channel answers a reestablishment with its error and ignores everything else.
            (Phase::Failed(failed), Message::ChannelReestablish(_)) => Ok(failed.error_plan()),
            (Phase::Failed(_), _) => Ok(Plan::default()),
            _ => Err(self.unexpected(message)),
        }
    }

    /// How the channel responds to an error in its present phase.
    ///
    /// Before the funding output is known, failing the channel costs nothing and forgets it. Once the closing
    /// transaction is signed by both sides, nothing the peer sends undoes that.
    #[must_use]
    pub fn reaction(&self, error: &ChannelError) -> Reaction {
        match (self.state(), error.reaction()) {
            (State::Failed, _) | (State::Closed, Reaction::Fail) => Reaction::Ignore,
            (State::Opening, Reaction::Warn) if !matches!(error, ChannelError::UnexpectedMessage { .. }) => {
                Reaction::Fail
            }
            (_, reaction) => reaction,
        }
    }

    /// Plans the [reaction](Channel::reaction) to an error.
    pub fn plan_reaction(&self, error: &ChannelError) -> Plan {
        let mut plan = Plan::default();
        match self.reaction(error) {
            Reaction::Ignore => {}
            Reaction::Wait | Reaction::Warn => {
                // The peer sends the same update again, so that with the same HTLCs the exposure would stay.
                if matches!(
                    error,
                    ChannelError::DustExposure { .. } | ChannelError::CommitmentDustExposure { .. }
                ) && self.has_unsigned_additions()
                {
                    plan.deltas.push(Delta::AdditionsDropped);
                }
                plan.send.push(fulmen_wire::message::Warning::new(self.id(), &error.to_string()).into());
            }
            Reaction::Fail => {
                // Additions that no commitment holds never reach the chain. Where our state is old, they may have been
                // signed since.
                if self.has_unsigned_additions() && !matches!(error, ChannelError::WeFellBehind { .. }) {
                    plan.deltas.push(Delta::AdditionsDropped);
                }
                plan.deltas.push(Delta::Failed { error: error.clone() });
                if !matches!(error, ChannelError::PeerError(_) | ChannelError::DisconnectedWhileOpening) {
                    plan.send.push(error_message(self.id(), error));
                }
            }
        }
        plan
    }

    /// Plans a command of our own side. Changes nothing; an error concerns the command alone.
    ///
    /// # Errors
    /// If the command has no place in the channel's phase, or BOLT 2 or the peer's terms forbid it. The channel is
    /// unchanged.
    pub fn plan_command(&self, command: &ChannelCommand) -> Result<Plan, ChannelCommandError> {
        match command {
            ChannelCommand::Fail { .. } if self.state() == State::Closed => {
                return Err(self.not_possible(command));
            }
            ChannelCommand::Fail { reason } => {
                return Ok(self.plan_reaction(&ChannelError::OurDecision(reason.clone())));
            }
            ChannelCommand::AnswerOverdue { answer } => {
                return match self.awaited_answer() {
                    Some(awaited) if awaited == *answer => {
                        Ok(self.plan_reaction(&ChannelError::AnswerOverdue(awaited)))
                    }
                    _ => Err(self.not_possible(command)),
                };
            }
            _ => {}
        }
        if let (Some(funded), ChannelCommand::FundingConfirmed { output, .. }) = (self.funded(), command)
            && let Err(error) = funded.check_funding_output(output)
        {
            return Ok(self.plan_reaction(&error));
        }
        match (&self.phase, command) {
            (Phase::AwaitingFunding(phase), ChannelCommand::Fund { transaction }) => {
                phase.plan_fund(transaction)
            }
            (Phase::Confirming(funded) | Phase::Normal(funded), _) => {
                funded.plan_command(command, self.state())
            }
            (Phase::Negotiating(negotiating), _) => negotiating.plan_command(command),
            (Phase::Failed(failed), ChannelCommand::Connected { .. }) => Ok(failed.error_plan()),
            (Phase::Failed(failed), ChannelCommand::FundingConfirmed { scid, depth, .. }) => Ok(failed
                .funded
                .as_ref()
                .map_or_else(Plan::default, |funded| funded.plan_funding_seen(*scid, *depth))),
            (Phase::Failed(failed), ChannelCommand::FundingUnconfirmed) => {
                let is_known = failed.funded.as_ref().is_some_and(|funded| funded.scid.is_some());
                Ok(if is_known { Plan::of(Delta::FundingUnlocked) } else { Plan::default() })
            }
            (Phase::Failed(_), ChannelCommand::Disconnected) => Ok(Plan::default()),
            (_, ChannelCommand::Disconnected) => {
                Ok(self.plan_reaction(&ChannelError::DisconnectedWhileOpening))
            }
            _ => Err(self.not_possible(command)),
        }
    }

    /// Plans the messages due at the end of a turn: `commitment_signed` if updates wait and none is
    /// unanswered (never an empty one), `shutdown` once our updates are signed, the opener's first `closing_signed`.
    /// `None` when nothing is due.
    #[must_use]
    pub fn plan_turn_end(&self, context: &Context) -> Option<Plan> {
        match &self.phase {
            Phase::Confirming(funded) | Phase::Normal(funded) => {
                funded.plan_own_commitment_signed().or_else(|| funded.plan_shutdown_due())
            }
            Phase::Negotiating(negotiating) => negotiating.plan_first_offer(context),
            _ => None,
        }
    }

    /// Whether to defer a due `commitment_signed`, and for how long: it would sign many HTLCs again for few updates.
    /// HTLCs added at or after `young_from` count as young. The caller must still plan it eventually.
    #[must_use]
    pub fn commit_delay(&self, young_from: UpdateOrder) -> CommitDelay {
        match &self.phase {
            Phase::Normal(funded) => funded.commit_delay(young_from),
            _ => CommitDelay::None,
        }
    }

    /// The position of the latest update, of either side, among all updates of the channel; 0 if there was none.
    #[must_use]
    pub fn latest_update_order(&self) -> UpdateOrder {
        self.funded().map_or_else(UpdateOrder::default, |funded| funded.updates.latest_order)
    }

    /// Applies a plan made on this very state. `signatures` are those of [`Plan::sign`], in the same order.
    ///
    /// # Panics
    /// If the number of signatures is not that of the jobs: a fault of the driver.
    pub fn apply(&mut self, plan: Plan, signatures: &[Signature]) -> ChannelEffects {
        assert_eq!(plan.sign.len(), signatures.len(), "one signature for each job");
        let mut effects =
            ChannelEffects { send: plan.send, disconnect: plan.disconnect, ..ChannelEffects::default() };
        effect::fill_signatures(&mut effects.send, signatures);
        let before = self.commitment_numbers();
        let count = |is: fn(&Delta) -> bool| plan.deltas.iter().filter(|delta| is(delta)).count() as u64;
        let received = count(|delta| matches!(delta, Delta::CommitmentReceived { .. }));
        let sent = count(|delta| matches!(delta, Delta::CommitmentSent));
        for delta in plan.deltas {
            self.fold(delta, &mut effects).expect("what was planned on this very state folds into it");
        }
        if let (Some((local, remote)), Some((local_now, remote_now))) = (before, self.commitment_numbers()) {
            assert_eq!(local_now.0, local.0 + received, "our commitments are numbered one by one");
            assert_eq!(remote_now.0, remote.0 + sent, "the peer's commitments are numbered one by one");
            assert!(received <= 1 && sent <= 1, "a plan signs one commitment of a side at most");
        }
        effects
    }

    /// Whether an HTLC that we offered is in no commitment that we signed.
    #[must_use]
    pub fn has_unsigned_additions(&self) -> bool {
        self.funded().is_some_and(|funded| funded.updates.any_add_at(Side::Local, Stage::Proposed))
    }

    fn check_channel_id(&self, message: &Message) -> Result<(), ChannelError> {
        match message.channel_id() {
            Some(found) if found != self.id() => {
                Err(ChannelError::WrongChannel { expected: self.id(), found })
            }
            _ => Ok(()),
        }
    }

    fn not_possible(&self, command: &ChannelCommand) -> ChannelCommandError {
        ChannelCommandError::NotPossible { command: command.name(), state: self.state().name() }
    }

    fn unexpected(&self, message: &Message) -> ChannelError {
        ChannelError::UnexpectedMessage { message: message.name(), state: self.state().name() }
    }
}

impl Failed {
    /// The error once more, for a peer that reconnects.
    fn error_plan(&self) -> Plan {
        Plan { send: vec![error_message(self.channel_id, &self.error)], ..Plan::default() }
    }
}

/// The `error` message for an error.
fn error_message(channel_id: ChannelId, error: &ChannelError) -> Message {
    fulmen_wire::message::ErrorMessage::new(channel_id, &error.to_string()).into()
}
