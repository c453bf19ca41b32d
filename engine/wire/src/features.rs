//! Feature bits (BOLT 9).
//!
//! Owns: [`Features`], a bit vector as messages carry it, [`Feature`], the features with a name, and the checks of a
//! peer's vector: [`Features::unknown_required`], [`Features::unsupported_by`] and [`Features::missing_dependency`].
//! Does not decide which features a node offers.
//!
//! Invariant: a vector keeps the bytes it came in, because announcements are signed with them; two vectors are equal
//! when the same bits are set.

use core::fmt;
use core::hash::{Hash, Hasher};

/// Declares the features: name, even bit, dependencies.
macro_rules! features {
    ($($(#[$doc:meta])* $name:ident = $bit:literal $bolt_name:literal $([$($needs:ident),*])?,)*) => {
        /// A feature of BOLT 9 or a widespread one beside it: its value is its even, compulsory bit.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum Feature {
            $($(#[$doc])* $name = $bit,)*
        }

        impl Feature {
            /// All features, by bit.
            pub const ALL: &[Feature] = &[$(Feature::$name),*];

            /// The feature's name in the BOLTs.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Feature::$name => $bolt_name,)*
                }
            }

            /// The features that must be set along with this one. Features that BOLT 9 calls ASSUMED are left out:
            /// their bits can be ignored.
            #[must_use]
            pub const fn dependencies(self) -> &'static [Feature] {
                match self {
                    $(Feature::$name => &[$($(Feature::$needs),*)?],)*
                }
            }
        }
    };
}

features! {
    /// Help a peer that lost its state (assumed of everybody).
    DataLossProtect = 0 "option_data_loss_protect",
    /// Commit to the closing script when opening.
    UpfrontShutdownScript = 4 "option_upfront_shutdown_script",
    /// Worth asking for gossip.
    GossipQueries = 6 "gossip_queries",
    /// Onions of variable length (assumed of everybody).
    VarOnionOptin = 8 "var_onion_optin",
    /// Gossip queries may ask for timestamps and checksums.
    GossipQueriesEx = 10 "gossip_queries_ex",
    /// An untweaked key in `to_remote` (assumed of everybody).
    StaticRemotekey = 12 "option_static_remotekey",
    /// Payment secrets (assumed of everybody).
    PaymentSecret = 14 "payment_secret",
    /// Receives payments in several parts.
    BasicMpp = 16 "basic_mpp",
    /// Channels of 2^24 satoshi and more.
    SupportLargeChannel = 18 "option_support_large_channel",
    /// Anchor outputs, and HTLC transactions without a fee.
    Anchors = 22 "option_anchors",
    /// Blinded paths.
    RouteBlinding = 24 "option_route_blinding",
    /// Any segwit version in `shutdown`.
    ShutdownAnysegwit = 26 "option_shutdown_anysegwit",
    /// Channels funded from both sides.
    DualFund = 28 "option_dual_fund",
    /// Channels can be brought to rest.
    Quiesce = 34 "option_quiesce",
    /// Attribution data in failures and fulfillments.
    AttributionData = 36 "option_attribution_data",
    /// Onion messages.
    OnionMessages = 38 "option_onion_messages",
    /// Stores data for peers.
    ProvideStorage = 42 "option_provide_storage",
    /// Explicit channel types (assumed of everybody).
    ChannelType = 44 "option_channel_type",
    /// Aliases instead of short channel ids in routes.
    ScidAlias = 46 "option_scid_alias",
    /// Payment metadata in invoices.
    PaymentMetadata = 48 "option_payment_metadata",
    /// Channels usable before they confirm.
    Zeroconf = 50 "option_zeroconf" [ScidAlias],
    /// Receives payments nobody invoiced.
    Keysend = 54 "keysend",
    /// The simpler negotiation of closing transactions.
    SimpleClose = 60 "option_simple_close" [ShutdownAnysegwit],
    /// A channel's funding transaction can be replaced.
    Splice = 62 "option_splice",
}

impl Feature {
    /// The bit that makes the feature compulsory.
    #[must_use]
    pub const fn required_bit(self) -> u32 {
        self as u32
    }

    /// The bit that offers the feature.
    #[must_use]
    pub const fn optional_bit(self) -> u32 {
        self as u32 + 1
    }

    /// The feature of an even bit, if it has a name here.
    #[must_use]
    pub fn from_required_bit(bit: u32) -> Option<Feature> {
        Feature::ALL.iter().copied().find(|feature| feature.required_bit() == bit)
    }
}

impl fmt::Display for Feature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A vector of feature bits. Bit 0 is the least significant bit of the last byte.
#[derive(Clone, Default)]
pub struct Features {
    bytes: Vec<u8>,
}

impl Features {
    /// The vector these bytes are, leading zeros kept.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Features {
        Features { bytes: bytes.to_vec() }
    }

    /// The vector as messages carry it: in as few bytes as possible, unless it came in more.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The type of a channel with `option_static_remotekey` and no anchors.
    #[must_use]
    pub fn channel_type_static_remotekey() -> Features {
        Features::default().with_required(Feature::StaticRemotekey)
    }

    /// The type of a channel with `option_anchors`.
    #[must_use]
    pub fn channel_type_anchors() -> Features {
        Features::channel_type_static_remotekey().with_required(Feature::Anchors)
    }

    /// These features and `feature`, compulsory.
    #[must_use]
    pub fn with_required(mut self, feature: Feature) -> Features {
        self.clear(feature);
        self.set_bit(feature.required_bit());
        self
    }

    /// These features and `feature`, offered but not compulsory.
    #[must_use]
    pub fn with_optional(mut self, feature: Feature) -> Features {
        self.clear(feature);
        self.set_bit(feature.optional_bit());
        self
    }

    /// These features without `feature`.
    #[must_use]
    pub fn without(mut self, feature: Feature) -> Features {
        self.clear(feature);
        self
    }

    /// Whether the feature is set, compulsory or not.
    #[must_use]
    pub fn has(&self, feature: Feature) -> bool {
        self.bit(feature.required_bit()) || self.bit(feature.optional_bit())
    }

    /// Whether the feature is compulsory.
    #[must_use]
    pub fn requires(&self, feature: Feature) -> bool {
        self.bit(feature.required_bit())
    }

    /// Whether the bit is set.
    #[must_use]
    pub fn bit(&self, bit: u32) -> bool {
        let from_end = bit as usize / 8;
        match self.bytes.len().checked_sub(from_end + 1) {
            Some(index) => self.bytes[index] >> (bit % 8) & 1 != 0,
            None => false,
        }
    }

    /// The bits that are set, from the lowest.
    pub fn bits(&self) -> impl Iterator<Item = u32> + '_ {
        self.bytes.iter().rev().zip((0u32..).step_by(8)).flat_map(|(byte, base)| {
            (0..8).filter(move |bit| byte >> bit & 1 != 0).map(move |bit| base + bit)
        })
    }

    /// Whether no bit is set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.trimmed().is_empty()
    }

    /// The bits of both.
    #[must_use]
    pub fn union(&self, other: &Features) -> Features {
        let (longer, shorter) =
            if self.bytes.len() >= other.bytes.len() { (self, other) } else { (other, self) };
        let mut union = longer.trimmed().to_vec();
        for (mine, theirs) in union.iter_mut().rev().zip(shorter.bytes.iter().rev()) {
            *mine |= theirs;
        }
        // The longer vector may have been all padding where the shorter has bits.
        if union.len() < shorter.trimmed().len() {
            return shorter.union(&Features { bytes: union });
        }
        Features { bytes: union }
    }

    /// The lowest compulsory bit without a name here. BOLT 1 closes the connection to a peer that sets one.
    #[must_use]
    pub fn unknown_required(&self) -> Option<u32> {
        self.bits().find(|bit| bit.is_multiple_of(2) && Feature::from_required_bit(*bit).is_none())
    }

    /// The lowest compulsory bit here of a feature that `ours` does not set at all.
    #[must_use]
    pub fn unsupported_by(&self, ours: &Features) -> Option<u32> {
        self.bits().find(|bit| bit.is_multiple_of(2) && !ours.bit(*bit) && !ours.bit(bit + 1))
    }

    /// A feature that is set and one it depends on that is not (BOLT 1: close the connection).
    #[must_use]
    pub fn missing_dependency(&self) -> Option<(Feature, Feature)> {
        Feature::ALL.iter().filter(|feature| self.has(**feature)).find_map(|feature| {
            feature.dependencies().iter().find(|needed| !self.has(**needed)).map(|needed| (*feature, *needed))
        })
    }

    /// Clears both bits of a feature.
    fn clear(&mut self, feature: Feature) {
        for bit in [feature.required_bit(), feature.optional_bit()] {
            if let Some(index) = self.bytes.len().checked_sub(bit as usize / 8 + 1) {
                self.bytes[index] &= !(1 << (bit % 8));
            }
        }
        self.trim();
    }

    /// Sets a bit, growing the vector as far as needed.
    fn set_bit(&mut self, bit: u32) {
        let length = bit as usize / 8 + 1;
        if self.bytes.len() < length {
            self.bytes.splice(0..0, core::iter::repeat_n(0, length - self.bytes.len()));
        }
        let index = self.bytes.len() - length;
        self.bytes[index] |= 1 << (bit % 8);
    }

    /// The bytes without leading zeros.
    fn trimmed(&self) -> &[u8] {
        let zeros = self.bytes.iter().take_while(|byte| **byte == 0).count();
        &self.bytes[zeros..]
    }

    /// Drops leading zeros.
    fn trim(&mut self) {
        let zeros = self.bytes.len() - self.trimmed().len();
        self.bytes.drain(..zeros);
    }
}

impl PartialEq for Features {
    fn eq(&self, other: &Features) -> bool {
        self.trimmed() == other.trimmed()
    }
}

impl Eq for Features {}

impl Hash for Features {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.trimmed().hash(state);
    }
}

impl fmt::Debug for Features {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut list = f.debug_list();
        for bit in self.bits() {
            match Feature::from_required_bit(bit & !1) {
                Some(feature) => {
                    list.entry(&format_args!("{feature}{}", if bit % 2 == 0 { " (required)" } else { "" }));
                }
                None => {
                    list.entry(&bit);
                }
            }
        }
        list.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_sit_at_the_end_of_as_few_bytes_as_possible() {
        let features =
            Features::default().with_optional(Feature::BasicMpp).with_required(Feature::PaymentSecret);
        assert_eq!(features.as_bytes(), [0x02, 0x40, 0x00]);
        assert_eq!(features.bits().collect::<Vec<_>>(), [14, 17]);
        assert_eq!(features.without(Feature::BasicMpp).as_bytes(), [0x40, 0x00]);
        assert_eq!(Features::channel_type_anchors().as_bytes(), [0x40, 0x10, 0x00]);
        assert_eq!(Features::channel_type_static_remotekey().as_bytes(), [0x10, 0x00]);
    }

    #[test]
    fn has_and_requires() {
        let optional = Features::default().with_optional(Feature::Anchors);
        assert!(optional.has(Feature::Anchors) && !optional.requires(Feature::Anchors));
        let required = optional.with_required(Feature::Anchors);
        assert!(required.has(Feature::Anchors) && required.requires(Feature::Anchors));
        assert!(!required.bit(Feature::Anchors.optional_bit()));
        assert!(!required.has(Feature::Splice));
    }

    #[test]
    fn padding_is_kept_but_does_not_count() {
        let padded = Features::from_bytes(&[0, 0, 0x10, 0]);
        assert_eq!(padded, Features::channel_type_static_remotekey());
        assert_eq!(padded.as_bytes().len(), 4);
        assert_ne!(padded, Features::channel_type_anchors());
        assert!(Features::from_bytes(&[0, 0]).is_empty());
    }

    #[test]
    fn unions_of_any_lengths() {
        let low = Features::from_bytes(&[0, 0, 0, 1]);
        let high = Features::from_bytes(&[0x80, 2]);
        assert_eq!(low.union(&high).as_bytes(), [0x80, 3]);
        assert_eq!(high.union(&low).as_bytes(), [0x80, 3]);
        assert_eq!(low.union(&Features::default()), low);
    }

    #[test]
    fn what_a_peer_requires_is_checked() {
        let ours =
            Features::default().with_optional(Feature::Anchors).with_optional(Feature::DataLossProtect);
        assert_eq!(Features::from_bytes(&[0x01]).unknown_required(), None);
        assert_eq!(Features::from_bytes(&[0x55]).unknown_required(), Some(2));
        assert_eq!(Features::from_bytes(&[0xaa]).unknown_required(), None);
        assert_eq!(Features::default().with_required(Feature::Anchors).unsupported_by(&ours), None);
        assert_eq!(Features::default().with_required(Feature::DualFund).unsupported_by(&ours), Some(28));
        assert_eq!(Features::default().with_optional(Feature::DualFund).unsupported_by(&ours), None);
        let lonely = Features::default().with_optional(Feature::Zeroconf);
        assert_eq!(lonely.missing_dependency(), Some((Feature::Zeroconf, Feature::ScidAlias)));
        assert_eq!(lonely.with_optional(Feature::ScidAlias).missing_dependency(), None);
    }

    #[test]
    fn even_bits_in_rising_order() {
        assert!(Feature::ALL.is_sorted());
        assert!(Feature::ALL.iter().all(|feature| feature.required_bit() % 2 == 0));
    }
}
