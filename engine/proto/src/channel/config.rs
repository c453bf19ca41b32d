//! The settings of a channel: our terms, the limits of the peer's terms, the negotiated features, and the
//! circumstances of one call.
//!
//! Implements: the choices BOLT 2 leaves to a node ("MAY fail the channel if it considers ..."), and `channel_type`.
//! Does not: negotiate; see [`opening`](super::opening). Invariant: nothing here changes after the channel opened,
//! except [`NegotiatedFeatures`], which each connection renews, and [`Context`], an argument of every call.

use fulmen_wire::features::Features;
use fulmen_wire::units::{BlockHeight, ChainHash, CltvDelta, FeeratePerKw, Msat, Sat};

use super::error::ChannelError;
use crate::commitment::ChannelType;

/// The feature bits that a channel type stands for in `channel_type`.
#[must_use]
pub fn channel_type_features(channel_type: ChannelType) -> Features {
    match channel_type {
        ChannelType::StaticRemotekey => Features::channel_type_static_remotekey(),
        ChannelType::Anchors => Features::channel_type_anchors(),
    }
}

/// The channel type that exactly these feature bits stand for, or `None` for a type we do not offer (the
/// `option_scid_alias` and `option_zeroconf` variants included) and for a bitmap that is not the smallest.
#[must_use]
pub fn channel_type_from_features(features: &Features) -> Option<ChannelType> {
    [ChannelType::StaticRemotekey, ChannelType::Anchors]
        .into_iter()
        .find(|channel_type| channel_type_features(*channel_type).as_bytes() == features.as_bytes())
}

/// The negotiated features (BOLT 9) that concern a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NegotiatedFeatures {
    /// `option_support_large_channel`: 2^24 satoshi and more.
    pub large_channel: bool,
    /// `option_upfront_shutdown_script`.
    pub upfront_shutdown_script: bool,
    /// `option_shutdown_anysegwit`: witness versions 1 to 16 as closing scripts.
    pub shutdown_anysegwit: bool,
}

impl Default for NegotiatedFeatures {
    fn default() -> NegotiatedFeatures {
        NegotiatedFeatures { large_channel: true, upfront_shutdown_script: true, shutdown_anysegwit: true }
    }
}

/// Our terms of a channel, as `open_channel` or `accept_channel` announce them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChannelConfig {
    /// The chain the channel lives on.
    pub chain_hash: ChainHash,
    /// The commitment format we ask for as opener; as acceptor we take either.
    pub channel_type: ChannelType,
    /// Whether to advertise the channel (`announce_channel`), as opener.
    pub announce_channel: bool,
    /// Our `dust_limit_satoshis`.
    pub dust_limit: Sat,
    /// Our `max_htlc_value_in_flight_msat`: the most the peer may have in flight towards us.
    pub max_htlc_value_in_flight: Msat,
    /// The reserve we ask the peer to keep, in millionths of the funding; never below either dust limit.
    pub channel_reserve_millionths: u32,
    /// Our `htlc_minimum_msat`.
    pub htlc_minimum: Msat,
    /// Our `to_self_delay`: how long the peer's own outputs are delayed.
    pub to_self_delay: CltvDelta,
    /// Our `max_accepted_htlcs`, at most 483.
    pub max_accepted_htlcs: u16,
    /// Confirmations we ask for as acceptor.
    pub minimum_depth: u32,
    /// The most we tolerate in HTLCs too small for either commitment transaction.
    pub max_dust_htlc_exposure: Msat,
    /// Where our money goes on mutual close.
    pub shutdown_scriptpubkey: Vec<u8>,
    /// Whether we commit to that script up front.
    pub commit_shutdown_script: bool,
    /// The limits of the peer's terms.
    pub limits: PeerLimits,
}

/// The bounds outside which we refuse a peer's terms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerLimits {
    /// The smallest channel we accept.
    pub funding_min: Sat,
    /// The largest `dust_limit_satoshis` we accept.
    pub dust_limit_max: Sat,
    /// The longest `to_self_delay` we accept.
    pub to_self_delay_max: CltvDelta,
    /// The largest reserve we accept, in millionths of the funding.
    pub channel_reserve_millionths_max: u32,
    /// The largest `htlc_minimum_msat` we accept.
    pub htlc_minimum_max: Msat,
    /// The smallest `max_htlc_value_in_flight_msat` we accept.
    pub max_htlc_value_in_flight_min: Msat,
    /// The fewest `max_accepted_htlcs` we accept.
    pub max_accepted_htlcs_min: u16,
    /// The longest `minimum_depth` we accept.
    pub minimum_depth_max: u32,
    /// The lowest `feerate_per_kw` we accept.
    pub feerate_min: FeeratePerKw,
    /// The highest `feerate_per_kw` we accept.
    pub feerate_max: FeeratePerKw,
}

impl PeerLimits {
    /// Checks a fee rate that the opener sets.
    ///
    /// With anchors a child pays for the commitment's confirmation, so that 1 sat/vbyte is enough however it is
    /// rounded: 250 sat per 1,000 weight is as good as [`FeeratePerKw::FLOOR`].
    pub(super) fn check_feerate(
        &self,
        found: FeeratePerKw,
        channel_type: ChannelType,
    ) -> Result<(), ChannelError> {
        let min = match channel_type {
            ChannelType::Anchors if self.feerate_min == FeeratePerKw::FLOOR => FEERATE_MIN_ANCHORS,
            ChannelType::Anchors | ChannelType::StaticRemotekey => self.feerate_min,
        };
        if found < min {
            return Err(ChannelError::FeerateTooLow { found, min });
        }
        if found > self.feerate_max {
            return Err(ChannelError::FeerateTooHigh { found, max: self.feerate_max });
        }
        Ok(())
    }
}

impl Default for PeerLimits {
    fn default() -> PeerLimits {
        PeerLimits {
            funding_min: Sat(1000),
            dust_limit_max: Sat(10_000),
            to_self_delay_max: CltvDelta(2016),
            channel_reserve_millionths_max: 200_000,
            htlc_minimum_max: Msat(100_000_000),
            max_htlc_value_in_flight_min: Msat(1_000),
            max_accepted_htlcs_min: 1,
            minimum_depth_max: 144,
            feerate_min: FeeratePerKw::FLOOR,
            feerate_max: FeeratePerKw(250_000),
        }
    }
}

impl ChannelConfig {
    /// Customary terms: anchors, 1% reserve, 483 HTLCs, the whole channel in flight, announced.
    #[must_use]
    pub fn new(chain_hash: ChainHash, shutdown_scriptpubkey: Vec<u8>) -> ChannelConfig {
        ChannelConfig {
            chain_hash,
            channel_type: ChannelType::Anchors,
            announce_channel: true,
            dust_limit: DUST_LIMIT_MIN,
            max_htlc_value_in_flight: Msat::MAX_MONEY,
            channel_reserve_millionths: 10_000,
            htlc_minimum: Msat(1),
            to_self_delay: CltvDelta(144),
            max_accepted_htlcs: MAX_ACCEPTED_HTLCS_LIMIT,
            minimum_depth: 3,
            max_dust_htlc_exposure: Msat(5_000_000),
            shutdown_scriptpubkey,
            commit_shutdown_script: false,
            limits: PeerLimits::default(),
        }
    }
}

/// The circumstances of one call, which a channel cannot know by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Context {
    /// The height of the best block.
    pub height: BlockHeight,
    /// The estimated fee rate for a transaction that need not hurry; closing fees are proposed from it.
    pub feerate: FeeratePerKw,
}

/// 1 sat/vbyte, exactly.
const FEERATE_MIN_ANCHORS: FeeratePerKw = FeeratePerKw(250);
/// The smallest `dust_limit_satoshis` BOLT 2 allows.
pub const DUST_LIMIT_MIN: Sat = Sat(354);
/// The largest `max_accepted_htlcs` BOLT 2 allows: more would not fit a penalty transaction.
pub const MAX_ACCEPTED_HTLCS_LIMIT: u16 = 483;
/// The first `funding_satoshis` that needs `option_support_large_channel`.
pub const LARGE_CHANNEL: Sat = Sat(1 << 24);
/// The first `cltv_expiry` that would mean a time instead of a height.
pub const CLTV_EXPIRY_LIMIT: BlockHeight = BlockHeight(500_000_000);
