//! Establishing a channel (BOLT 2, "Channel Establishment v1").
//!
//! Owns: the phases before the funding output is known, the checks of `open_channel` and `accept_channel`, and the
//! first commitments. Does not: build or publish the funding transaction; our owner does.
//!
//! Invariant: as opener, the funding transaction is handed out for broadcast only after `funding_signed` was verified.

use bitcoin::hashes::Hash;
use bitcoin::{OutPoint, Transaction};
use fulmen_wire::message::{
    AcceptChannel, ErrorMessage, FundingCreated, FundingSigned, Message, OpenChannel,
};
use fulmen_wire::tlv::UnknownTlvs;
use fulmen_wire::units::{ChannelId, Sat, Txid};
use secp256k1::PublicKey;

use super::command::{AcceptRequest, ChannelCommandError, OpenRequest};
use super::config::{ChannelConfig, NegotiatedFeatures, channel_type_features, channel_type_from_features};
use super::delta::Delta;
use super::effect::{ChannelEffects, ChannelEvent, Plan};
use super::error::ChannelError;
use super::funded::Funded;
use super::htlc::Side;
use super::params::{Agreed, Params};
use super::shutdown::is_allowed;
use super::terms::{
    RESERVE_MIN, accept_points, accept_terms, check_open, check_reserve, check_terms, check_upfront_script,
    millionths, open_points, open_terms,
};
use super::updates::Updates;
use super::{Channel, Phase};
use crate::commitment::funding_output_script;
use crate::keys::{Basepoints, ChannelSecrets, CommitmentNumber, InvalidPoint, to_point};

/// A channel just made, with its first deltas and effects.
#[must_use]
#[derive(Debug)]
pub struct Created {
    /// The channel.
    pub channel: Channel,
    /// The beginning of its record.
    pub deltas: Vec<Delta>,
    /// The first message.
    pub effects: ChannelEffects,
}

/// As opener: `open_channel` is sent.
#[derive(Clone, Debug)]
pub(super) struct AwaitingAccept {
    pub(super) config: ChannelConfig,
    pub(super) features: NegotiatedFeatures,
    pub(super) secrets: ChannelSecrets,
    pub(super) open: OpenChannel,
}

/// As opener: the funding transaction is wanted.
#[derive(Clone, Debug)]
pub(super) struct AwaitingFunding {
    opening: AwaitingAccept,
    accept: AcceptChannel,
}

/// As opener: `funding_created` is sent.
#[derive(Clone, Debug)]
pub(super) struct AwaitingFundingSigned {
    /// The channel to be, its first local commitment still without the peer's signature.
    pub(super) funded: Funded,
    /// Not to be broadcast before that signature came.
    pub(super) transaction: Transaction,
    /// By which the peer still calls the channel where it refuses `funding_created` (BOLT 1, `error`).
    pub(super) temporary_channel_id: ChannelId,
}

/// As acceptor: `accept_channel` is sent.
#[derive(Clone, Debug)]
pub(super) struct AwaitingFundingCreated {
    pub(super) config: ChannelConfig,
    pub(super) features: NegotiatedFeatures,
    pub(super) secrets: ChannelSecrets,
    pub(super) open: OpenChannel,
    pub(super) accept: AcceptChannel,
}

/// Making channels.
impl Channel {
    /// Opens a channel: sends `open_channel`.
    ///
    /// # Errors
    /// If our terms break a rule that the peer would refuse them for ([`ChannelCommandError::Terms`]).
    pub fn open(request: OpenRequest) -> Result<Created, ChannelCommandError> {
        let open = open_channel(&request);
        check_open(&open, &request.config.limits, &request.features).map_err(ChannelCommandError::Terms)?;
        check_own_script(&request.config, &request.features).map_err(ChannelCommandError::Terms)?;
        let OpenRequest { config, features, secrets, .. } = request;
        let delta = Delta::Opened { config: Box::new(config), features, open: Box::new(open.clone()) };
        Ok(created(secrets, delta, open.into()))
    }

    /// Accepts a channel that the peer opens: sends `accept_channel`. For an error, [`Channel::refusal`] is the
    /// answer.
    ///
    /// # Errors
    /// If the peer's `open_channel` breaks a rule of BOLT 2 or one of the limits in [`AcceptRequest::config`].
    pub fn accept(open: &OpenChannel, request: AcceptRequest) -> Result<Created, ChannelError> {
        let AcceptRequest { config, features, secrets } = request;
        if open.chain_hash != config.chain_hash {
            return Err(ChannelError::UnknownChain { expected: config.chain_hash, found: open.chain_hash });
        }
        check_open(open, &config.limits, &features)?;
        check_own_script(&config, &features)?;
        let accept = accept_channel(open, &config, &secrets);
        if accept.dust_limit_satoshis > open.channel_reserve_satoshis {
            return Err(ChannelError::ReserveBelowDustLimit {
                reserve: open.channel_reserve_satoshis,
                dust_limit: accept.dust_limit_satoshis,
            });
        }
        let delta = Delta::Accepted {
            config: Box::new(config),
            features,
            // Unknown TLVs of the peer are not stored: they mean nothing here, and may be as long as a message.
            open: Box::new(OpenChannel { unknown: UnknownTlvs::default(), ..open.clone() }),
            accept: Box::new(accept.clone()),
        };
        Ok(created(secrets, delta, accept.into()))
    }

    /// The `error` that answers an `open_channel` which [`Channel::accept`] refused.
    #[must_use]
    pub fn refusal(open: &OpenChannel, error: &ChannelError) -> Message {
        ErrorMessage::new(open.temporary_channel_id, &error.to_string()).into()
    }
}

impl Channel {
    /// Whether an `error` of the peer that names this id is about the channel.
    pub(crate) fn answers_to(&self, channel_id: ChannelId) -> bool {
        let refused = match &self.phase {
            Phase::AwaitingFundingSigned(phase) => Some(phase.temporary_channel_id),
            _ => None,
        };
        channel_id == self.id() || refused == Some(channel_id)
    }

    /// The `funding_created` of a peer that lies about the funding output.
    #[cfg(test)]
    pub(crate) fn forged_funding_created(&self, transaction: &Transaction, output: u16) -> Option<Message> {
        let Phase::AwaitingFunding(phase) = &self.phase else { return None };
        phase.plan_output(transaction, output).ok()?.send.pop()
    }
}

impl AwaitingAccept {
    pub(super) fn id(&self) -> ChannelId {
        self.open.temporary_channel_id
    }

    /// Plans the peer's `accept_channel`.
    pub(super) fn plan_accept(&self, accept: &AcceptChannel) -> Result<Plan, ChannelError> {
        let (open, limits) = (&self.open, &self.config.limits);
        let accepted = accept.channel_type.as_ref().ok_or(ChannelError::ChannelTypeMissing)?;
        if Some(accepted) != open.channel_type.as_ref() {
            return Err(ChannelError::ChannelTypeUnsuitable(accepted.clone()));
        }
        let terms = accept_terms(accept);
        check_terms(&terms, open.funding_satoshis, limits)?;
        check_reserve(accept.channel_reserve_satoshis, open.dust_limit_satoshis)?;
        check_reserve(open.channel_reserve_satoshis, accept.dust_limit_satoshis)?;
        if accept.minimum_depth > limits.minimum_depth_max {
            let (found, max) = (accept.minimum_depth, limits.minimum_depth_max);
            return Err(ChannelError::MinimumDepthTooLarge { found, max });
        }
        check_upfront_script(accept.upfront_shutdown_script.as_deref(), &self.features)?;
        accept_points(accept)?;
        let accept = AcceptChannel { unknown: UnknownTlvs::default(), ..accept.clone() };
        Ok(Plan::of(Delta::AcceptReceived { accept: Box::new(accept) }))
    }

    pub(super) fn accepted(self, accept: AcceptChannel) -> AwaitingFunding {
        AwaitingFunding { opening: self, accept }
    }
}

impl AwaitingFunding {
    pub(super) fn id(&self) -> ChannelId {
        self.opening.id()
    }

    pub(super) fn opening(&self) -> &AwaitingAccept {
        &self.opening
    }

    pub(super) fn accept(&self) -> &AcceptChannel {
        &self.accept
    }

    pub(super) fn funding_needed(&self) -> ChannelEvent {
        ChannelEvent::FundingNeeded {
            script_pubkey: self.script_pubkey().into_bytes(),
            amount: self.opening.open.funding_satoshis,
        }
    }

    fn script_pubkey(&self) -> bitcoin::ScriptBuf {
        let (theirs, _) = checked(accept_points(&self.accept));
        funding_output_script(&self.opening.secrets.basepoints().funding, &theirs.funding)
    }

    /// Plans our `funding_created`.
    pub(super) fn plan_fund(&self, transaction: &Transaction) -> Result<Plan, ChannelCommandError> {
        let (script, amount) = (self.script_pubkey(), self.opening.open.funding_satoshis);
        let output = transaction
            .output
            .iter()
            .position(|output| output.script_pubkey == script && output.value.to_sat() == amount.0)
            .and_then(|index| u16::try_from(index).ok())
            .ok_or(ChannelCommandError::NoFundingOutput { amount })?;
        self.plan_output(transaction, output)
    }

    fn plan_output(&self, transaction: &Transaction, output: u16) -> Result<Plan, ChannelCommandError> {
        let funded = self.funded(transaction, output);
        let commitment =
            funded.latest_remote_commitment().map_err(|error| ChannelCommandError::Terms(error.into()))?;
        let outpoint = funded.params.agreed.outpoint;
        let message = FundingCreated {
            temporary_channel_id: self.id(),
            funding_txid: Txid(outpoint.txid.to_byte_array()),
            funding_output_index: output,
            signature: funded.secrets.sign_funding(&commitment.digest),
            unknown: UnknownTlvs::default(),
        };
        let mut plan =
            Plan::of(Delta::FundingCreatedSent { transaction: Box::new(transaction.clone()), output });
        plan.send.push(message.into());
        Ok(plan)
    }

    /// The channel that output `output` of `transaction` funds.
    pub(super) fn funded(&self, transaction: &Transaction, output: u16) -> Funded {
        let outpoint = OutPoint { txid: transaction.compute_txid(), vout: u32::from(output) };
        let AwaitingAccept { config, features, secrets, open } = &self.opening;
        new_funded(Side::Local, config, *features, secrets, open, &self.accept, outpoint)
    }
}

impl AwaitingFundingSigned {
    pub(super) fn id(&self) -> ChannelId {
        self.funded.params.channel_id
    }

    /// Plans the peer's `funding_signed`.
    pub(super) fn plan_funding_signed(&self, message: &FundingSigned) -> Result<Plan, ChannelError> {
        let commitment = self.funded.local_commitment()?;
        let mut plan = Plan::of(Delta::FundingSignedReceived { signature: message.signature });
        plan.verify.push(self.funded.commitment_check(&commitment, &message.signature));
        Ok(plan)
    }
}

impl AwaitingFundingCreated {
    pub(super) fn id(&self) -> ChannelId {
        self.open.temporary_channel_id
    }

    /// Plans the peer's `funding_created`, and our `funding_signed`.
    pub(super) fn plan_funding_created(&self, message: &FundingCreated) -> Result<Plan, ChannelError> {
        let outpoint = OutPoint {
            txid: bitcoin::Txid::from_byte_array(message.funding_txid.0),
            vout: u32::from(message.funding_output_index),
        };
        let funded = self.funded(outpoint);
        let ours = funded.local_commitment()?;
        let theirs = funded.latest_remote_commitment()?;
        let signed = FundingSigned {
            channel_id: funded.params.channel_id,
            signature: funded.secrets.sign_funding(&theirs.digest),
            unknown: UnknownTlvs::default(),
        };
        let mut plan = Plan::of(Delta::FundingCreatedReceived { outpoint, signature: message.signature });
        plan.verify.push(funded.commitment_check(&ours, &message.signature));
        plan.send.push(signed.into());
        Ok(plan)
    }

    /// The channel that `outpoint` funds.
    pub(super) fn funded(&self, outpoint: OutPoint) -> Funded {
        let AwaitingFundingCreated { config, features, secrets, open, accept } = self;
        new_funded(Side::Remote, config, *features, secrets, open, accept, outpoint)
    }
}

/// A channel just begun, with its first message.
fn created(secrets: ChannelSecrets, first: Delta, message: Message) -> Created {
    let channel =
        Channel::begin(secrets, first.clone()).expect("an opening that was checked begins a record");
    Created {
        channel,
        deltas: vec![first],
        effects: ChannelEffects { send: vec![message], ..ChannelEffects::default() },
    }
}

/// The reserve we ask for.
fn reserve(config: &ChannelConfig, funding: Sat, their_dust_limit: Sat) -> Sat {
    millionths(funding, config.channel_reserve_millionths)
        .max(config.dust_limit)
        .max(their_dust_limit)
        .max(RESERVE_MIN)
}

/// Without a closing script of ours that the peer allows, the channel could not be closed by agreement.
fn check_own_script(config: &ChannelConfig, features: &NegotiatedFeatures) -> Result<(), ChannelError> {
    match is_allowed(&config.shutdown_scriptpubkey, features) {
        true => Ok(()),
        false => Err(ChannelError::OwnShutdownScriptForm),
    }
}

/// Our script, if we commit to it; empty when we do not but the feature asks for the record.
fn upfront_script(config: &ChannelConfig) -> Vec<u8> {
    if config.commit_shutdown_script { config.shutdown_scriptpubkey.clone() } else { Vec::new() }
}

fn open_channel(request: &OpenRequest) -> OpenChannel {
    let OpenRequest { config, secrets, funding, .. } = request;
    let points = secrets.basepoints();
    OpenChannel {
        chain_hash: config.chain_hash,
        temporary_channel_id: request.temporary_channel_id,
        funding_satoshis: *funding,
        push_msat: request.push,
        dust_limit_satoshis: config.dust_limit,
        max_htlc_value_in_flight_msat: config.max_htlc_value_in_flight,
        channel_reserve_satoshis: reserve(config, *funding, Sat::ZERO),
        htlc_minimum_msat: config.htlc_minimum,
        feerate_per_kw: request.feerate,
        to_self_delay: config.to_self_delay,
        max_accepted_htlcs: config.max_accepted_htlcs,
        funding_pubkey: to_point(&points.funding),
        revocation_basepoint: to_point(&points.revocation),
        payment_basepoint: to_point(&points.payment),
        delayed_payment_basepoint: to_point(&points.delayed_payment),
        htlc_basepoint: to_point(&points.htlc),
        first_per_commitment_point: to_point(&secrets.per_commitment_point(CommitmentNumber::FIRST)),
        channel_flags: u8::from(config.announce_channel),
        upfront_shutdown_script: Some(upfront_script(config)),
        channel_type: Some(channel_type_features(config.channel_type)),
        unknown: UnknownTlvs::default(),
    }
}

fn accept_channel(open: &OpenChannel, config: &ChannelConfig, secrets: &ChannelSecrets) -> AcceptChannel {
    let points = secrets.basepoints();
    AcceptChannel {
        temporary_channel_id: open.temporary_channel_id,
        dust_limit_satoshis: config.dust_limit,
        max_htlc_value_in_flight_msat: config.max_htlc_value_in_flight,
        channel_reserve_satoshis: reserve(config, open.funding_satoshis, open.dust_limit_satoshis),
        htlc_minimum_msat: config.htlc_minimum,
        minimum_depth: config.minimum_depth,
        to_self_delay: config.to_self_delay,
        max_accepted_htlcs: config.max_accepted_htlcs,
        funding_pubkey: to_point(&points.funding),
        revocation_basepoint: to_point(&points.revocation),
        payment_basepoint: to_point(&points.payment),
        delayed_payment_basepoint: to_point(&points.delayed_payment),
        htlc_basepoint: to_point(&points.htlc),
        first_per_commitment_point: to_point(&secrets.per_commitment_point(CommitmentNumber::FIRST)),
        upfront_shutdown_script: Some(upfront_script(config)),
        channel_type: open.channel_type.clone(),
        unknown: UnknownTlvs::default(),
    }
}

/// Points that a plan has parsed before.
fn checked(points: Result<(Basepoints, PublicKey), InvalidPoint>) -> (Basepoints, PublicKey) {
    points.expect("the plan parsed the points")
}

/// The channel that both messages and the funding output describe.
fn new_funded(
    opener: Side,
    config: &ChannelConfig,
    features: NegotiatedFeatures,
    secrets: &ChannelSecrets,
    open: &OpenChannel,
    accept: &AcceptChannel,
    outpoint: OutPoint,
) -> Funded {
    let (local_terms, remote_terms) = match opener {
        Side::Local => (open_terms(open), accept_terms(accept)),
        Side::Remote => (accept_terms(accept), open_terms(open)),
    };
    let ((remote_basepoints, remote_point), remote_script) = match opener {
        Side::Local => (checked(accept_points(accept)), &accept.upfront_shutdown_script),
        Side::Remote => (checked(open_points(open)), &open.upfront_shutdown_script),
    };
    let (pushed, kept) = (open.push_msat, open.funding_satoshis.to_msat().saturating_sub(open.push_msat));
    let local = match opener {
        Side::Local => kept,
        Side::Remote => pushed,
    };
    let channel_type = open.channel_type.as_ref().and_then(channel_type_from_features);
    let agreed = Agreed {
        opener,
        channel_type: channel_type.expect("the plan checked the channel type"),
        funding: open.funding_satoshis,
        outpoint,
        announce: open.announce_channel(),
        minimum_depth: accept.minimum_depth,
        config: config.clone(),
        features,
        local_terms,
        remote_terms,
        remote_basepoints,
        remote_shutdown_scriptpubkey: remote_script.clone().filter(|script| !script.is_empty()),
    };
    let params = Params::new(agreed, secrets.basepoints());
    let updates = Updates::new(open.funding_satoshis.to_msat(), opener, local, open.feerate_per_kw);
    Funded::begin(params, secrets.clone(), updates, remote_point)
}
