//! Messages and commands of a funded channel (BOLT 2, "Normal Operation"; `channel_ready`).
//!
//! Owns: the checks of every `update_` message, received or to be sent. Does not: commitments ([`commitment_signed`]),
//! shutdown ([`shutdown`]), reconnection ([`reestablish`]), nor the arithmetic of limits ([`limits`]).
//!
//! [`commitment_signed`]: super::commitment_signed
//! [`shutdown`]: super::shutdown
//! [`reestablish`]: super::reestablish
//! [`limits`]: super::limits

use bitcoin::TxOut;
use fulmen_wire::message::{
    ChannelReady, Message, UpdateAddHtlc, UpdateFailHtlc, UpdateFailMalformedHtlc, UpdateFee,
    UpdateFulfillHtlc,
};
use fulmen_wire::tlv::UnknownTlvs;
use fulmen_wire::units::{FeeratePerKw, Sat, Scid};

use super::command::{ChannelCommand, ChannelCommandError};
use super::config::CLTV_EXPIRY_LIMIT;
use super::delta::Delta;
use super::effect::Plan;
use super::error::ChannelError;
use super::funded::{Funded, Link};
use super::htlc::{Htlc, Removal, Side};
use super::removal::RemovalError;
use super::state::State;
use crate::commitment::{CommitmentParams, funding_output_script};
use crate::keys::{parse_point, to_point};

/// The longest failure reason that fits its message beside the other fields.
const REASON_BYTES_MAX: usize = 65_535 - 2 - 32 - 8 - 2;

/// Messages of the peer.
impl Funded {
    /// Plans a message while the funding confirms.
    pub(super) fn plan_confirming(&self, message: &Message) -> Result<Plan, ChannelError> {
        if let Some(plan) = self.plan_early(message) {
            return plan;
        }
        self.check_link(message, State::Confirming)?;
        match message {
            Message::ChannelReestablish(message) => self.plan_reestablish(message),
            Message::ChannelReady(message) => self.plan_channel_ready(message),
            Message::Shutdown(message) => self.plan_shutdown(message),
            // The peer may count more confirmations than we do.
            Message::AnnouncementSignatures(_) => Ok(Plan::default()),
            _ => Err(unexpected(message, State::Confirming)),
        }
    }

    /// Plans a message in normal operation.
    pub(super) fn plan_normal(&self, message: &Message) -> Result<Plan, ChannelError> {
        if let Some(plan) = self.plan_early(message) {
            return plan;
        }
        self.check_link(message, State::Normal)?;
        match message {
            Message::UpdateAddHtlc(message) => self.plan_add(message),
            Message::UpdateFulfillHtlc(message) => {
                self.plan_removal(message.id, Removal::Fulfill(message.payment_preimage))
            }
            Message::UpdateFailHtlc(message) => {
                self.plan_removal(message.id, Removal::failed_by_peer(&message.reason))
            }
            Message::UpdateFailMalformedHtlc(message) => {
                let UpdateFailMalformedHtlc { id, sha256_of_onion, failure_code, .. } = *message;
                self.plan_removal(id, Removal::FailMalformed { sha256_of_onion, failure_code })
            }
            Message::UpdateFee(message) => {
                self.check_fee_in(message.feerate_per_kw)?;
                Ok(Plan::of(Delta::FeeUpdated { feerate: message.feerate_per_kw }))
            }
            Message::CommitmentSigned(message) => self.plan_commitment_signed(message),
            Message::RevokeAndAck(message) => self.plan_revocation(message),
            Message::Shutdown(message) => self.plan_shutdown(message),
            Message::ChannelReestablish(message) => self.plan_reestablish(message),
            // Redundant after a reconnection, or with a new alias: nothing to us.
            Message::ChannelReady(_) | Message::AnnouncementSignatures(_) => Ok(Plan::default()),
            _ => Err(unexpected(message, State::Normal)),
        }
    }

    /// Plans a message that comes before the peer's `channel_reestablish` although BOLT 2 has the peer wait, and does
    /// no harm: refusing it would break every connection of a peer that always sends it early.
    pub(super) fn plan_early(&self, message: &Message) -> Option<Result<Plan, ChannelError>> {
        match message {
            _ if self.link != Link::Reestablishing => None,
            Message::ChannelReady(message) => Some(self.plan_channel_ready(message)),
            Message::AnnouncementSignatures(_) => Some(Ok(Plan::default())),
            _ => None,
        }
    }

    /// Before the channel is reestablished no other message may come, and afterwards no second reestablishment.
    pub(super) fn check_link(&self, message: &Message, state: State) -> Result<(), ChannelError> {
        let reestablish = matches!(message, Message::ChannelReestablish(_));
        match self.link {
            Link::Up if !reestablish => Ok(()),
            Link::Reestablishing if reestablish => Ok(()),
            _ => Err(unexpected(message, state)),
        }
    }

    fn plan_channel_ready(&self, message: &ChannelReady) -> Result<Plan, ChannelError> {
        if self.ready_received {
            return Ok(Plan::default());
        }
        let point = message.second_per_commitment_point;
        parse_point("second_per_commitment_point", &point)?;
        Ok(Plan::of(Delta::ChannelReadyReceived { second_per_commitment_point: point }))
    }

    fn plan_add(&self, message: &UpdateAddHtlc) -> Result<Plan, ChannelError> {
        let expected = self.updates.next_id(Side::Remote);
        if self.shutdown.received.is_some() {
            return Err(ChannelError::AddAfterShutdown { id: message.id });
        }
        if message.id != expected {
            return Err(ChannelError::HtlcIdOutOfOrder { expected, found: message.id });
        }
        if message.cltv_expiry >= CLTV_EXPIRY_LIMIT {
            return Err(ChannelError::CltvExpiryNotAHeight(message.cltv_expiry));
        }
        let over_dust_exposure = self.check_add_in(message.id, message.amount_msat)?;
        let htlc = Htlc {
            id: message.id,
            amount: message.amount_msat,
            payment_hash: message.payment_hash,
            cltv_expiry: message.cltv_expiry,
            onion_routing_packet: Some(message.onion_routing_packet.clone()),
            path_key: message.path_key,
        };
        Ok(Plan::of(Delta::Added { by: Side::Remote, htlc, over_dust_exposure }))
    }

    fn plan_removal(&self, id: u64, removal: Removal) -> Result<Plan, ChannelError> {
        RemovalError::check(self.updates.entry(Side::Local, id), id, &removal)?;
        Ok(Plan::of(Delta::Removed { by: Side::Remote, id, removal }))
    }
}

/// Commands of our side.
impl Funded {
    /// Plans a command.
    pub(super) fn plan_command(
        &self,
        command: &ChannelCommand,
        state: State,
    ) -> Result<Plan, ChannelCommandError> {
        match command {
            ChannelCommand::FundingConfirmed { scid, depth, .. } => {
                Ok(self.plan_funding_confirmed(*scid, *depth))
            }
            ChannelCommand::FundingUnconfirmed if self.scid.is_some() => Ok(Plan::of(Delta::FundingUnlocked)),
            ChannelCommand::FundingUnconfirmed => Ok(Plan::default()),
            ChannelCommand::AddHtlc { amount, payment_hash, cltv_expiry, onion_routing_packet, path_key } => {
                let htlc = Htlc {
                    id: self.updates.next_id(Side::Local),
                    amount: *amount,
                    payment_hash: *payment_hash,
                    cltv_expiry: *cltv_expiry,
                    onion_routing_packet: Some(onion_routing_packet.clone()),
                    path_key: *path_key,
                };
                self.plan_offer(htlc, command, state)
            }
            ChannelCommand::FulfillHtlc { id, preimage } => {
                self.plan_remove(*id, Removal::Fulfill(*preimage))
            }
            ChannelCommand::FailHtlc { reason, .. } if reason.len() > REASON_BYTES_MAX => {
                Err(ChannelCommandError::ReasonTooLong(reason.len()))
            }
            ChannelCommand::FailHtlc { id, reason } => self.plan_remove(*id, Removal::Fail(reason.clone())),
            ChannelCommand::FailMalformedHtlc { id, sha256_of_onion, failure_code } => self.plan_remove(
                *id,
                Removal::FailMalformed { sha256_of_onion: *sha256_of_onion, failure_code: *failure_code },
            ),
            ChannelCommand::UpdateFee { feerate } => self.plan_update_fee(*feerate, command, state),
            ChannelCommand::Shutdown { scriptpubkey } => self.plan_shutdown_wanted(scriptpubkey.as_deref()),
            ChannelCommand::DropAdditions if self.link == Link::Up => Err(not_possible(command, state)),
            ChannelCommand::DropAdditions => Ok(Plan::of(Delta::AdditionsDropped)),
            ChannelCommand::Disconnected => Ok(Plan::of(Delta::Disconnected)),
            ChannelCommand::Connected { features } => Ok(self.plan_connected(*features)),
            ChannelCommand::Fund { .. }
            | ChannelCommand::Fail { .. }
            | ChannelCommand::AnswerOverdue { .. } => Err(not_possible(command, state)),
        }
    }

    /// Nothing but the chain shows that the output which `funding_created` named funds this channel.
    pub(super) fn check_funding_output(&self, output: &TxOut) -> Result<(), ChannelError> {
        let (expected, found) = (self.params.agreed.funding, Sat(output.value.to_sat()));
        let CommitmentParams { local_funding_pubkey, remote_funding_pubkey, .. } =
            &self.params.local_commitment;
        let script = funding_output_script(local_funding_pubkey, remote_funding_pubkey);
        if found == expected && output.script_pubkey == script {
            return Ok(());
        }
        let script_pubkey = output.script_pubkey.clone();
        Err(ChannelError::FundingOutputWrong { expected, found, script_pubkey })
    }

    fn plan_funding_confirmed(&self, scid: Scid, depth: u32) -> Plan {
        let mut plan = self.plan_funding_seen(scid, depth);
        // Whether the peer has it already does not matter: a redundant one is ignored.
        let is_first = self.scid.is_none() && !self.has_been_ready();
        if is_first && !plan.deltas.is_empty() && self.link == Link::Up {
            plan.send.push(self.channel_ready());
        }
        plan
    }

    /// Plans to note the place of the funding output in the chain, once it is deep enough or after it moved.
    pub(super) fn plan_funding_seen(&self, scid: Scid, depth: u32) -> Plan {
        match self.scid {
            Some(known) if known == scid => Plan::default(),
            None if depth < self.params.agreed.minimum_depth.max(1) => Plan::default(),
            _ => Plan::of(Delta::FundingLocked { scid }),
        }
    }

    /// Whether either side has signed a commitment after the first: both have then sent `channel_ready`.
    fn has_been_ready(&self) -> bool {
        self.local_number.0 > 0 || self.remote_number.0 > 0
    }

    /// Our `channel_ready`.
    pub(super) fn channel_ready(&self) -> Message {
        let second = self.secrets.per_commitment_point(crate::keys::CommitmentNumber(1));
        let ready = ChannelReady {
            channel_id: self.params.channel_id,
            second_per_commitment_point: to_point(&second),
            alias: None,
            unknown: UnknownTlvs::default(),
        };
        ready.into()
    }

    /// Additions and fee changes want an open channel and a live link; past both `shutdown`s the peer may be agreeing
    /// on the closing transaction by the time one arrives.
    fn check_open_for_proposals(
        &self,
        command: &ChannelCommand,
        state: State,
    ) -> Result<(), ChannelCommandError> {
        if self.is_shutting_down() {
            return Err(ChannelCommandError::ShuttingDown);
        }
        if !self.is_ready() {
            return Err(not_possible(command, state));
        }
        if self.link != Link::Up {
            return Err(ChannelCommandError::NotConnected);
        }
        Ok(())
    }

    fn plan_offer(
        &self,
        htlc: Htlc,
        command: &ChannelCommand,
        state: State,
    ) -> Result<Plan, ChannelCommandError> {
        self.check_open_for_proposals(command, state)?;
        if htlc.cltv_expiry >= CLTV_EXPIRY_LIMIT {
            return Err(ChannelCommandError::CltvExpiryNotAHeight(htlc.cltv_expiry));
        }
        self.check_add_out(htlc.amount)?;
        let mut plan = Plan::default();
        plan.send.push(self.update_add_htlc(&htlc));
        plan.deltas.push(Delta::Added { by: Side::Local, htlc, over_dust_exposure: false });
        Ok(plan)
    }

    fn plan_remove(&self, id: u64, removal: Removal) -> Result<Plan, ChannelCommandError> {
        RemovalError::check(self.updates.entry(Side::Remote, id), id, &removal)?;
        let mut plan = Plan::default();
        // Without a connection it is sent with the reestablishment.
        if self.link == Link::Up {
            plan.send.push(self.removal_message(id, &removal));
        }
        plan.deltas.push(Delta::Removed { by: Side::Local, id, removal });
        Ok(plan)
    }

    fn plan_update_fee(
        &self,
        feerate: FeeratePerKw,
        command: &ChannelCommand,
        state: State,
    ) -> Result<Plan, ChannelCommandError> {
        self.check_open_for_proposals(command, state)?;
        self.check_fee_out(feerate)?;
        let mut plan = Plan::of(Delta::FeeUpdated { feerate });
        plan.send.push(self.update_fee(feerate));
        Ok(plan)
    }

    /// The `update_add_htlc` of an HTLC of ours.
    pub(super) fn update_add_htlc(&self, htlc: &Htlc) -> Message {
        let onion = htlc.onion_routing_packet.clone();
        let message = UpdateAddHtlc {
            channel_id: self.params.channel_id,
            id: htlc.id,
            amount_msat: htlc.amount,
            payment_hash: htlc.payment_hash,
            cltv_expiry: htlc.cltv_expiry,
            onion_routing_packet: onion.expect("an HTLC of ours keeps its onion until it is acknowledged"),
            path_key: htlc.path_key,
            unknown: UnknownTlvs::default(),
        };
        message.into()
    }

    /// The message that removes an HTLC of the peer.
    pub(super) fn removal_message(&self, id: u64, removal: &Removal) -> Message {
        let (channel_id, unknown) = (self.params.channel_id, UnknownTlvs::default());
        match removal {
            Removal::Fulfill(preimage) => {
                let payment_preimage = *preimage;
                let attribution_data = None;
                UpdateFulfillHtlc { channel_id, id, payment_preimage, attribution_data, unknown }.into()
            }
            Removal::Fail(reason) => {
                let reason = reason.clone();
                UpdateFailHtlc { channel_id, id, reason, attribution_data: None, unknown }.into()
            }
            Removal::FailMalformed { sha256_of_onion, failure_code } => {
                let (sha256_of_onion, failure_code) = (*sha256_of_onion, *failure_code);
                UpdateFailMalformedHtlc { channel_id, id, sha256_of_onion, failure_code, unknown }.into()
            }
        }
    }

    /// Our `update_fee`.
    pub(super) fn update_fee(&self, feerate: FeeratePerKw) -> Message {
        let unknown = UnknownTlvs::default();
        UpdateFee { channel_id: self.params.channel_id, feerate_per_kw: feerate, unknown }.into()
    }
}

/// The error for a message without a place in this state.
pub(super) fn unexpected(message: &Message, state: State) -> ChannelError {
    ChannelError::UnexpectedMessage { message: message.name(), state: state.name() }
}

fn not_possible(command: &ChannelCommand, state: State) -> ChannelCommandError {
    ChannelCommandError::NotPossible { command: command.name(), state: state.name() }
}
