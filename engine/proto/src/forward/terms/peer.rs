//! The negotiation of features before anything else (BOLT 1 `init`, BOLT 9).
//!
//! Owns the features this node offers, and the check of a peer's `init`. Does not exchange the messages: the owner of
//! the connection sends [`local_init`], gives the peer's answer to [`negotiate`], and the result to the shard with
//! [`Input::connected`](crate::forward::Input::connected).

use fulmen_wire::features::{Feature, Features};
use fulmen_wire::message::Init;
use fulmen_wire::units::ChainHash;

use crate::channel::NegotiatedFeatures;

use super::config::NodeConfig;

/// A peer that cannot be talked to: the connection is to be closed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InitError {
    /// It requires a feature this node does not know.
    #[error("the peer requires feature bit {bit}, which is not known here")]
    UnknownFeature {
        /// The bit.
        bit: u32,
    },
    /// It requires a feature this node does not have.
    #[error("the peer requires feature bit {bit}, which is not supported here")]
    UnsupportedFeature {
        /// The bit.
        bit: u32,
    },
    /// It sets a feature without another that it depends on.
    #[error("the peer sets {feature} without {needed}")]
    MissingDependency {
        /// The feature set.
        feature: Feature,
        /// The feature it needs.
        needed: Feature,
    },
    /// It lives on other chains.
    #[error("the peer does not know chain {ours}")]
    OtherChain {
        /// Our chain.
        ours: ChainHash,
    },
}

/// The features this node offers in `init`.
#[must_use]
pub fn local_features() -> Features {
    let required = [Feature::VarOnionOptin, Feature::StaticRemotekey, Feature::PaymentSecret];
    let optional = [
        Feature::DataLossProtect,
        Feature::UpfrontShutdownScript,
        Feature::GossipQueries,
        Feature::BasicMpp,
        Feature::SupportLargeChannel,
        Feature::Anchors,
        Feature::ShutdownAnysegwit,
        Feature::ChannelType,
    ];
    let features = required.into_iter().fold(Features::default(), Features::with_required);
    optional.into_iter().fold(features, Features::with_optional)
}

/// The `init` this node sends.
#[must_use]
pub fn local_init(config: &NodeConfig) -> Init {
    Init::new(local_features(), vec![config.channel.chain_hash])
}

/// Checks a peer's `init`, and returns its features.
///
/// # Errors
/// When the connection is to be closed.
pub fn negotiate(config: &NodeConfig, init: &Init) -> Result<Features, InitError> {
    let (ours, theirs) = (local_features(), init.combined_features());
    if let Some(bit) = theirs.unknown_required() {
        return Err(InitError::UnknownFeature { bit });
    }
    if let Some(bit) = theirs.unsupported_by(&ours) {
        return Err(InitError::UnsupportedFeature { bit });
    }
    if let Some((feature, needed)) = theirs.missing_dependency() {
        return Err(InitError::MissingDependency { feature, needed });
    }
    let chain = config.channel.chain_hash;
    if init.networks.as_ref().is_some_and(|networks| !networks.is_empty() && !networks.contains(&chain)) {
        return Err(InitError::OtherChain { ours: chain });
    }
    Ok(theirs)
}

/// The negotiated features that channels depend on.
pub(crate) fn channel_features(theirs: &Features) -> NegotiatedFeatures {
    let ours = local_features();
    let both = |feature| ours.has(feature) && theirs.has(feature);
    NegotiatedFeatures {
        large_channel: both(Feature::SupportLargeChannel),
        upfront_shutdown_script: both(Feature::UpfrontShutdownScript),
        shutdown_anysegwit: both(Feature::ShutdownAnysegwit),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(features: Features) -> Result<Features, InitError> {
        let config = NodeConfig::new(ChainHash::REGTEST, Vec::new());
        negotiate(&config, &Init::new(features, vec![ChainHash::REGTEST]))
    }

    #[test]
    fn a_node_can_talk_to_its_like() {
        assert_eq!(check(local_features()), Ok(local_features()));
        assert_eq!(local_features().missing_dependency(), None);
    }

    /// BOLT 9: features that are ASSUMED can be ignored, so that a peer may leave out their bits.
    #[test]
    fn an_init_without_assumed_features_is_taken() {
        let assumed = [
            Feature::DataLossProtect,
            Feature::VarOnionOptin,
            Feature::StaticRemotekey,
            Feature::PaymentSecret,
            Feature::ChannelType,
        ];
        for feature in assumed {
            let features = local_features().without(feature);
            assert!(features.has(Feature::BasicMpp));
            assert_eq!(check(features.clone()), Ok(features), "{feature}");
        }
    }

    #[test]
    fn what_cannot_be_agreed_on_is_refused() {
        let unsupported = local_features().with_required(Feature::DualFund);
        assert_eq!(check(unsupported), Err(InitError::UnsupportedFeature { bit: 28 }));
        let unknown =
            Features::from_bytes(&[0x40, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]).union(&local_features());
        assert_eq!(check(unknown), Err(InitError::UnknownFeature { bit: 102 }));
        let loose = local_features().without(Feature::ShutdownAnysegwit).with_optional(Feature::SimpleClose);
        let expected = InitError::MissingDependency {
            feature: Feature::SimpleClose,
            needed: Feature::ShutdownAnysegwit,
        };
        assert_eq!(check(loose), Err(expected));
        let config = NodeConfig::new(ChainHash::REGTEST, Vec::new());
        let init = Init::new(local_features(), vec![ChainHash::BITCOIN]);
        assert_eq!(negotiate(&config, &init), Err(InitError::OtherChain { ours: ChainHash::REGTEST }));
    }
}
