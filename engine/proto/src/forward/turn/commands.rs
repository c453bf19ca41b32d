//! Commands of the operator, and confirmations for channels.
//!
//! Owns the checks of commands that a channel cannot make itself. Does not decide on HTLCs of others; see `decide`.
//!
//! Invariant: a command is done or refused with a typed reason, and a refused one has changed nothing.

use fulmen_wire::units::ChannelId;

use crate::channel::{self, Channel, OpenRequest};
use crate::keys::ChannelSecrets;

use super::open_turn::{NewChannel, OpenTurn};
use super::output::{Event, FailureReason};
use crate::forward::shard::Shard;
use crate::forward::state::change::Change;
use crate::forward::state::channels::ChannelEntry;
use crate::forward::state::receiver::hashes_to;
use crate::forward::terms::circuit::Origin;
use crate::forward::terms::config::ForwardingPolicy;
use crate::forward::terms::error::{CommandError, LocalFailure};
use crate::forward::terms::ids::ChannelRef;
use crate::forward::terms::input::{Command, Confirmation, ExpectedPayment, OpenChannelRequest, SendHtlc};
use crate::forward::terms::peer::channel_features;
use crate::forward::terms::time::Now;

impl Shard {
    /// Executes a command, or reports why it is refused.
    pub(crate) fn command(&mut self, turn: &mut OpenTurn, command: Command) {
        let result = match command {
            Command::OpenChannel(open) => self.open_channel(turn, &open),
            Command::FundingTransaction { temporary_channel_id, transaction } => self.command_channel(
                turn,
                temporary_channel_id,
                channel::ChannelCommand::Fund { transaction },
            ),
            Command::CloseChannel { channel_id, script } => {
                let scriptpubkey = script.map(bitcoin::ScriptBuf::into_bytes);
                self.command_channel(turn, channel_id, channel::ChannelCommand::Shutdown { scriptpubkey })
            }
            Command::FailChannel { channel_id, .. } if self.is_in_doubt(channel_id) => {
                Err(CommandError::StateInDoubt(channel_id))
            }
            Command::FailChannel { channel_id, reason } => {
                self.command_channel(turn, channel_id, channel::ChannelCommand::Fail { reason })
            }
            Command::UpdateFee { channel_id, feerate } => {
                self.command_channel(turn, channel_id, channel::ChannelCommand::UpdateFee { feerate })
            }
            Command::InsistOnState { channel_id } => self.insist_on_state(turn, channel_id),
            Command::SetPolicy { channel_id, policy } => self.set_policy(turn, channel_id, policy),
            Command::DescribeNode(description) => {
                self.describe_node(description);
                Ok(())
            }
            Command::ResumeHtlc { incoming } => self.resume_htlc(turn, incoming),
            Command::FailHtlc { incoming, failure } => self.fail_htlc(turn, incoming, failure),
            Command::ExpectPayment(payment) => self.expect_payment(turn, payment),
            Command::SendHtlc(send) => self.send_htlc(turn, send),
        };
        if let Err(error) = result {
            turn.out.events.push(Event::CommandRefused { error });
        }
    }

    /// Has a channel carry out a command of the operator, who hears of a refusal.
    fn command_channel(
        &mut self,
        turn: &mut OpenTurn,
        channel_id: ChannelId,
        command: channel::ChannelCommand,
    ) -> Result<(), CommandError> {
        let unknown = CommandError::UnknownChannel(ChannelRef::Id(channel_id));
        let entry = self.state.channels.get(&channel_id).ok_or(unknown)?;
        let plan = entry
            .channel
            .plan_command(&command)
            .map_err(|error| CommandError::Channel { channel_id, error })?;
        self.apply_plan(turn, channel_id, plan);
        Ok(())
    }

    fn open_channel(&mut self, turn: &mut OpenTurn, open: &OpenChannelRequest) -> Result<(), CommandError> {
        let OpenChannelRequest { peer, user_id, capacity, push, policy } = *open;
        let features = self.peers.get(&peer).ok_or(CommandError::PeerNotConnected(peer))?;
        if capacity > self.config.capacity_max {
            return Err(CommandError::CapacityTooLarge { capacity, max: self.config.capacity_max });
        }
        let policy = policy.unwrap_or(self.config.policy);
        policy.check()?;
        let key_index = self.state.next_key_index;
        let temporary_channel_id = ChannelId(self.seed.bytes(b"channel/temporary_id", key_index));
        let request = OpenRequest {
            config: self.config.channel.clone(),
            features: channel_features(features),
            secrets: ChannelSecrets::derive(&self.seed, key_index),
            temporary_channel_id,
            funding: capacity,
            push,
            feerate: self.context().feerate,
        };
        let created = Channel::open(request)
            .map_err(|error| CommandError::Channel { channel_id: temporary_channel_id, error })?;
        self.begin_channel(turn, NewChannel { peer, user_id, key_index, policy }, created);
        Ok(())
    }

    fn set_policy(
        &mut self,
        turn: &mut OpenTurn,
        channel_id: ChannelId,
        policy: ForwardingPolicy,
    ) -> Result<(), CommandError> {
        if !self.state.channels.contains_key(&channel_id) {
            return Err(CommandError::UnknownChannel(ChannelRef::Id(channel_id)));
        }
        policy.check()?;
        let previous_until = Now { unix_ms: turn.now.unix_ms.saturating_add(self.config.policy_grace_ms) };
        self.change(turn, Change::Policy { channel_id, policy, previous_until });
        self.announcer.mark(channel_id);
        Ok(())
    }

    fn expect_payment(&mut self, turn: &mut OpenTurn, payment: ExpectedPayment) -> Result<(), CommandError> {
        let payment_hash = payment.payment_hash;
        if !hashes_to(payment.preimage, payment_hash) {
            return Err(CommandError::WrongPreimage(payment_hash));
        }
        if self.state.receiver.knows(payment_hash) {
            return Err(CommandError::DuplicatePaymentHash(payment_hash));
        }
        self.change(turn, Change::PaymentExpected(payment));
        Ok(())
    }

    /// Offers an HTLC of our own. If it cannot leave, the attempt fails, not the command.
    fn send_htlc(&mut self, turn: &mut OpenTurn, send: SendHtlc) -> Result<(), CommandError> {
        let attempt_id = send.attempt_id;
        if self.state.circuits.has_attempt(attempt_id) {
            return Err(CommandError::DuplicateAttempt(attempt_id));
        }
        if let Err(failure) = self.offer_own(turn, send) {
            let reason = FailureReason::Local(failure);
            turn.out.events.push(Event::HtlcFailed { attempt_id, reason });
        }
        Ok(())
    }

    fn offer_own(&mut self, turn: &mut OpenTurn, send: SendHtlc) -> Result<(), LocalFailure> {
        let unknown = LocalFailure::UnknownChannel(send.channel);
        let channel_id = self.channel(send.channel).ok_or(unknown)?.id();
        if !self.in_step {
            return Err(LocalFailure::ChainNotInStep);
        }
        let height = self.state.height;
        if send.cltv_expiry <= height.saturating_add(self.config.expiry.outgoing_min) {
            return Err(LocalFailure::ExpiryTooSoon { cltv_expiry: send.cltv_expiry, height });
        }
        let command = channel::ChannelCommand::AddHtlc {
            amount: send.amount,
            payment_hash: send.payment_hash,
            cltv_expiry: send.cltv_expiry,
            onion_routing_packet: send.onion,
            path_key: None,
        };
        let outgoing = self
            .add_htlc(turn, channel_id, &command)
            .map_err(|error| LocalFailure::Refused { channel_id, error })?;
        let origin = Origin::Attempt { attempt_id: send.attempt_id };
        self.change(turn, Change::Offered { outgoing, origin });
        Ok(())
    }

    /// Passes the depth of a funding transaction to its channel.
    pub(crate) fn confirm(&mut self, turn: &mut OpenTurn, confirmation: &Confirmation) {
        let Confirmation { txid, scid, depth, output } = confirmation;
        // A channel is named by its funding output.
        let channel_id = ChannelId::from_funding(*txid, scid.output());
        let is_funded = |entry: &ChannelEntry| entry.is_funded_by(*txid, scid.output());
        if self.state.channels.get(&channel_id).is_some_and(is_funded) {
            self.announcer.mark(channel_id);
            if *depth == 0 {
                let gone = channel::ChannelCommand::FundingUnconfirmed;
                return self.command_channel_if_possible(turn, channel_id, gone);
            }
            if self.state.channels.get(&channel_id).is_some_and(ChannelEntry::is_unconfirmed) {
                self.change(turn, Change::FundingConfirmed { channel_id });
            }
            let (scid, depth, output) = (*scid, *depth, output.clone());
            self.command_channel_if_possible(
                turn,
                channel_id,
                channel::ChannelCommand::FundingConfirmed { scid, depth, output },
            );
        }
    }
}
