//! The checks of both sides' terms when a channel is opened (BOLT 2, `open_channel` and `accept_channel`).
//!
//! Owns: the checks of both messages. Does not: the order of the messages; see [`opening`](super::opening).
//!
//! Invariant: terms that pass leave room for a first commitment with an output, and for the reserve to be no dust.

use fulmen_wire::message::{AcceptChannel, OpenChannel};
use fulmen_wire::units::{Msat, Sat};
use secp256k1::PublicKey;

use super::config::{
    DUST_LIMIT_MIN, LARGE_CHANNEL, MAX_ACCEPTED_HTLCS_LIMIT, NegotiatedFeatures, PeerLimits,
    channel_type_from_features,
};
use super::error::ChannelError;
use super::params::Terms;
use super::shutdown::is_allowed;
use crate::commitment::{ANCHOR_OUTPUT, ChannelType, commitment_fee};
use crate::keys::{Basepoints, InvalidPoint, parse_point};

/// The least reserve we ask for, so that no customary dust limit of the peer exceeds it.
pub(super) const RESERVE_MIN: Sat = Sat(1000);

/// The checks of an `open_channel` that do not depend on our side's terms, and the limits we set.
pub(super) fn check_open(
    open: &OpenChannel,
    limits: &PeerLimits,
    features: &NegotiatedFeatures,
) -> Result<(), ChannelError> {
    let asked = open.channel_type.as_ref().ok_or(ChannelError::ChannelTypeMissing)?;
    let channel_type = channel_type_from_features(asked)
        .ok_or_else(|| ChannelError::ChannelTypeUnsuitable(asked.clone()))?;
    let funding = open.funding_satoshis;
    if funding < limits.funding_min {
        return Err(ChannelError::FundingTooSmall { funding, min: limits.funding_min });
    }
    if funding.to_msat() > Msat::MAX_MONEY || (funding >= LARGE_CHANNEL && !features.large_channel) {
        return Err(ChannelError::FundingTooLarge { funding });
    }
    if open.push_msat > funding.to_msat() {
        return Err(ChannelError::PushTooLarge { push: open.push_msat, funding });
    }
    limits.check_feerate(open.feerate_per_kw, channel_type)?;
    check_terms(&open_terms(open), funding, limits)?;
    check_first_commitment(open, channel_type)?;
    check_upfront_script(open.upfront_shutdown_script.as_deref(), features)?;
    open_points(open)?;
    Ok(())
}

/// The checks of the terms that either message announces for its sender.
pub(super) fn check_terms(terms: &Terms, funding: Sat, limits: &PeerLimits) -> Result<(), ChannelError> {
    let found = terms.dust_limit;
    if found < DUST_LIMIT_MIN {
        return Err(ChannelError::DustLimitTooSmall { found, min: DUST_LIMIT_MIN });
    }
    if found > limits.dust_limit_max {
        return Err(ChannelError::DustLimitTooLarge { found, max: limits.dust_limit_max });
    }
    check_reserve(terms.channel_reserve, terms.dust_limit)?;
    let max = millionths(funding, limits.channel_reserve_millionths_max).max(RESERVE_MIN);
    if terms.channel_reserve > max {
        return Err(ChannelError::ReserveTooLarge { found: terms.channel_reserve, max });
    }
    let (found, max, min) =
        (terms.max_accepted_htlcs, MAX_ACCEPTED_HTLCS_LIMIT, limits.max_accepted_htlcs_min);
    if found > max {
        return Err(ChannelError::MaxAcceptedHtlcsTooLarge { found, max });
    }
    if found < min {
        return Err(ChannelError::MaxAcceptedHtlcsTooSmall { found, min });
    }
    let (found, max) = (terms.htlc_minimum, limits.htlc_minimum_max);
    if found > max {
        return Err(ChannelError::HtlcMinimumTooLarge { found, max });
    }
    let (found, min) = (terms.max_htlc_value_in_flight, limits.max_htlc_value_in_flight_min);
    if found < min {
        return Err(ChannelError::MaxHtlcValueInFlightTooSmall { found, min });
    }
    let (found, max) = (terms.to_self_delay, limits.to_self_delay_max);
    if found > max {
        return Err(ChannelError::ToSelfDelayTooLong { found, max });
    }
    Ok(())
}

pub(super) fn check_reserve(reserve: Sat, dust_limit: Sat) -> Result<(), ChannelError> {
    if reserve < dust_limit {
        return Err(ChannelError::ReserveBelowDustLimit { reserve, dust_limit });
    }
    Ok(())
}

/// The opener must be able to pay for the first commitment, and somebody must hold more than the reserve.
pub(super) fn check_first_commitment(
    open: &OpenChannel,
    channel_type: ChannelType,
) -> Result<(), ChannelError> {
    let fee = commitment_fee(channel_type, open.feerate_per_kw, 0);
    let cost = match channel_type {
        ChannelType::StaticRemotekey => fee,
        ChannelType::Anchors => fee.saturating_add(ANCHOR_OUTPUT).saturating_add(ANCHOR_OUTPUT),
    };
    let balance = open.funding_satoshis.to_msat().saturating_sub(open.push_msat);
    let opener =
        balance.checked_sub(cost.to_msat()).ok_or(ChannelError::OpenerCannotPay { balance, cost })?;
    let (acceptor, reserve) = (open.push_msat, open.channel_reserve_satoshis);
    if opener <= reserve.to_msat() && acceptor <= reserve.to_msat() {
        return Err(ChannelError::BothWithinReserve { opener, acceptor, reserve });
    }
    Ok(())
}

pub(super) fn check_upfront_script(
    script: Option<&[u8]>,
    features: &NegotiatedFeatures,
) -> Result<(), ChannelError> {
    match script {
        Some(script) if !script.is_empty() && !is_allowed(script, features) => {
            Err(ChannelError::UpfrontScriptForm(script.to_vec()))
        }
        _ => Ok(()),
    }
}

pub(super) fn open_terms(open: &OpenChannel) -> Terms {
    Terms {
        dust_limit: open.dust_limit_satoshis,
        max_htlc_value_in_flight: open.max_htlc_value_in_flight_msat,
        channel_reserve: open.channel_reserve_satoshis,
        htlc_minimum: open.htlc_minimum_msat,
        to_self_delay: open.to_self_delay,
        max_accepted_htlcs: open.max_accepted_htlcs,
    }
}

pub(super) fn accept_terms(accept: &AcceptChannel) -> Terms {
    Terms {
        dust_limit: accept.dust_limit_satoshis,
        max_htlc_value_in_flight: accept.max_htlc_value_in_flight_msat,
        channel_reserve: accept.channel_reserve_satoshis,
        htlc_minimum: accept.htlc_minimum_msat,
        to_self_delay: accept.to_self_delay,
        max_accepted_htlcs: accept.max_accepted_htlcs,
    }
}

pub(super) fn open_points(open: &OpenChannel) -> Result<(Basepoints, PublicKey), InvalidPoint> {
    let basepoints = Basepoints::parse(
        &open.funding_pubkey,
        &open.revocation_basepoint,
        &open.payment_basepoint,
        &open.delayed_payment_basepoint,
        &open.htlc_basepoint,
    )?;
    Ok((basepoints, parse_point("first_per_commitment_point", &open.first_per_commitment_point)?))
}

pub(super) fn accept_points(accept: &AcceptChannel) -> Result<(Basepoints, PublicKey), InvalidPoint> {
    let basepoints = Basepoints::parse(
        &accept.funding_pubkey,
        &accept.revocation_basepoint,
        &accept.payment_basepoint,
        &accept.delayed_payment_basepoint,
        &accept.htlc_basepoint,
    )?;
    Ok((basepoints, parse_point("first_per_commitment_point", &accept.first_per_commitment_point)?))
}

/// That many millionths of an amount, rounded down.
pub(super) fn millionths(amount: Sat, millionths: u32) -> Sat {
    let part = u128::from(amount.0) * u128::from(millionths) / 1_000_000;
    Sat(u64::try_from(part).unwrap_or(u64::MAX))
}
