//! Failure messages of an erring node to the origin (BOLT 4, "Failure Messages").
//!
//! Owns: the codes, their data, and the encoding of both. Does not encrypt; see `failure_packet`.
//!
//! The optional `channel_update` is written empty and skipped when read: applying one from an onion
//! would tell the network who is paying. Bytes behind a message's data are ignored.
//!
//! Invariant: every byte string decodes; a message we cannot make sense of keeps its code and bytes.

use core::fmt;

use fulmen_wire::codec::{DecodeError, Reader, Writer};
use fulmen_wire::units::{BlockHeight, Msat};

/// The flag of a code about an onion its receiver could not read: it travels in `update_fail_malformed_htlc`.
const BADONION: u16 = 0x8000;
/// The flag of a permanent failure.
const PERM: u16 = 0x4000;
/// The flag of a failure of the whole node.
const NODE: u16 = 0x2000;
/// The flag of a violated channel policy.
const UPDATE: u16 = 0x1000;

/// Declares the codes once: variant, number, BOLT name.
macro_rules! failure_codes {
    ($($(#[$doc:meta])* $variant:ident = $code:expr, $name:literal;)*) => {
        /// A `failure_code` of BOLT 4.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum FailureCode {
            $($(#[$doc])* $variant,)*
            /// A number without a meaning in BOLT 4.
            Other(u16),
        }

        impl FailureCode {
            /// All codes BOLT 4 defines.
            pub const ALL: &[FailureCode] = &[$(FailureCode::$variant,)*];

            /// The code of a number; those of BOLT 4 never become [`FailureCode::Other`].
            #[must_use]
            pub const fn from_u16(code: u16) -> FailureCode {
                $(if code == $code { return FailureCode::$variant; })*
                FailureCode::Other(code)
            }

            /// The number on the wire.
            #[must_use]
            pub const fn to_u16(self) -> u16 {
                match self {
                    $(FailureCode::$variant => $code,)*
                    FailureCode::Other(code) => code,
                }
            }

            /// The name in BOLT 4, or `unknown`.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(FailureCode::$variant => $name,)*
                    FailureCode::Other(_) => "unknown",
                }
            }
        }
    };
}

failure_codes! {
    /// A transient failure of the whole node.
    TemporaryNodeFailure = NODE | 2, "temporary_node_failure";
    /// A permanent failure of the whole node.
    PermanentNodeFailure = PERM | NODE | 2, "permanent_node_failure";
    /// The node requires a feature the onion lacks.
    RequiredNodeFeatureMissing = PERM | NODE | 3, "required_node_feature_missing";
    /// The onion's version is unknown.
    InvalidOnionVersion = BADONION | PERM | 4, "invalid_onion_version";
    /// The onion's HMAC does not match.
    InvalidOnionHmac = BADONION | PERM | 5, "invalid_onion_hmac";
    /// The onion's ephemeral key is no point.
    InvalidOnionKey = BADONION | PERM | 6, "invalid_onion_key";
    /// The outgoing channel cannot take the HTLC now.
    TemporaryChannelFailure = UPDATE | 7, "temporary_channel_failure";
    /// The outgoing channel takes no HTLCs.
    PermanentChannelFailure = PERM | 8, "permanent_channel_failure";
    /// The outgoing channel requires a feature the onion lacks.
    RequiredChannelFeatureMissing = PERM | 9, "required_channel_feature_missing";
    /// No channel of the node has the onion's `short_channel_id`.
    UnknownNextPeer = PERM | 10, "unknown_next_peer";
    /// Less than the outgoing channel's `htlc_minimum_msat`.
    AmountBelowMinimum = UPDATE | 11, "amount_below_minimum";
    /// Less than the outgoing channel's fee.
    FeeInsufficient = UPDATE | 12, "fee_insufficient";
    /// Less than the outgoing channel's `cltv_expiry_delta`.
    IncorrectCltvExpiry = UPDATE | 13, "incorrect_cltv_expiry";
    /// The expiry is too near to be safe.
    ExpiryTooSoon = UPDATE | 14, "expiry_too_soon";
    /// The final node does not take this payment.
    IncorrectOrUnknownPaymentDetails = PERM | 15, "incorrect_or_unknown_payment_details";
    /// The HTLC expires before the onion says.
    FinalIncorrectCltvExpiry = 18, "final_incorrect_cltv_expiry";
    /// The HTLC carries less than the onion says.
    FinalIncorrectHtlcAmount = 19, "final_incorrect_htlc_amount";
    /// The outgoing channel is disabled.
    ChannelDisabled = UPDATE | 20, "channel_disabled";
    /// The expiry is too far away.
    ExpiryTooFar = 21, "expiry_too_far";
    /// The payload was not understood.
    InvalidOnionPayload = PERM | 22, "invalid_onion_payload";
    /// The other parts of the payment did not come in time.
    MppTimeout = 23, "mpp_timeout";
    /// An error inside a blinded path.
    InvalidOnionBlinding = BADONION | PERM | 24, "invalid_onion_blinding";
}

impl FailureCode {
    /// Whether the failure is about the onion itself.
    #[must_use]
    pub const fn is_bad_onion(self) -> bool {
        self.to_u16() & BADONION != 0
    }

    /// Whether trying again is pointless.
    #[must_use]
    pub const fn is_permanent(self) -> bool {
        self.to_u16() & PERM != 0
    }

    /// Whether the whole node fails, not one channel.
    #[must_use]
    pub const fn is_node(self) -> bool {
        self.to_u16() & NODE != 0
    }

    /// Whether a channel's policy was violated, so that the origin's view of it may be old.
    #[must_use]
    pub const fn is_update(self) -> bool {
        self.to_u16() & UPDATE != 0
    }
}

impl fmt::Display for FailureCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FailureCode::Other(code) => write!(f, "unknown failure code {code:#06x}"),
            known => f.write_str(known.name()),
        }
    }
}

/// A failure message: a code and its data.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Failure {
    /// See [`FailureCode::TemporaryNodeFailure`].
    TemporaryNodeFailure,
    /// See [`FailureCode::PermanentNodeFailure`].
    PermanentNodeFailure,
    /// See [`FailureCode::RequiredNodeFeatureMissing`].
    RequiredNodeFeatureMissing,
    /// See [`FailureCode::InvalidOnionVersion`].
    InvalidOnionVersion {
        /// The hash of the onion as the complaining node received it.
        sha256_of_onion: [u8; 32],
    },
    /// See [`FailureCode::InvalidOnionHmac`].
    InvalidOnionHmac {
        /// The hash of the onion as the complaining node received it.
        sha256_of_onion: [u8; 32],
    },
    /// See [`FailureCode::InvalidOnionKey`].
    InvalidOnionKey {
        /// The hash of the onion as the complaining node received it.
        sha256_of_onion: [u8; 32],
    },
    /// See [`FailureCode::TemporaryChannelFailure`].
    TemporaryChannelFailure,
    /// See [`FailureCode::PermanentChannelFailure`].
    PermanentChannelFailure,
    /// See [`FailureCode::RequiredChannelFeatureMissing`].
    RequiredChannelFeatureMissing,
    /// See [`FailureCode::UnknownNextPeer`].
    UnknownNextPeer,
    /// See [`FailureCode::AmountBelowMinimum`].
    AmountBelowMinimum {
        /// The outgoing HTLC's amount.
        htlc_msat: Msat,
    },
    /// See [`FailureCode::FeeInsufficient`].
    FeeInsufficient {
        /// The incoming HTLC's amount.
        htlc_msat: Msat,
    },
    /// See [`FailureCode::IncorrectCltvExpiry`].
    IncorrectCltvExpiry {
        /// The outgoing HTLC's expiry.
        cltv_expiry: BlockHeight,
    },
    /// See [`FailureCode::ExpiryTooSoon`].
    ExpiryTooSoon,
    /// See [`FailureCode::IncorrectOrUnknownPaymentDetails`].
    IncorrectOrUnknownPaymentDetails {
        /// The amount of the HTLC.
        htlc_msat: Msat,
        /// The final node's best height when the HTLC came.
        height: BlockHeight,
    },
    /// See [`FailureCode::FinalIncorrectCltvExpiry`].
    FinalIncorrectCltvExpiry {
        /// The HTLC's expiry.
        cltv_expiry: BlockHeight,
    },
    /// See [`FailureCode::FinalIncorrectHtlcAmount`].
    FinalIncorrectHtlcAmount {
        /// The HTLC's amount.
        incoming_htlc_amt: Msat,
    },
    /// See [`FailureCode::ChannelDisabled`]; its flags have no meaning yet and are sent as zero.
    ChannelDisabled,
    /// See [`FailureCode::ExpiryTooFar`].
    ExpiryTooFar,
    /// See [`FailureCode::InvalidOnionPayload`].
    InvalidOnionPayload {
        /// The TLV record's type, or zero when no record is to blame.
        tlv_type: u64,
        /// Where the record begins in the payload.
        offset: u16,
    },
    /// See [`FailureCode::MppTimeout`].
    MppTimeout,
    /// See [`FailureCode::InvalidOnionBlinding`].
    InvalidOnionBlinding {
        /// The hash of the onion as the complaining node received it.
        sha256_of_onion: [u8; 32],
    },
    /// A code BOLT 4 does not define, or a message too short for its code.
    Other {
        /// The number on the wire; zero when not even that was there.
        failure_code: u16,
        /// All that followed.
        data: Vec<u8>,
    },
}

/// A peer's `update_fail_malformed_htlc` whose code lacks the BADONION bit: BOLT 2 has the channel failed for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("update_fail_malformed_htlc with {failure_code:#06x}, which is not BADONION")]
pub struct NotBadOnion {
    /// The peer's code.
    pub failure_code: u16,
}

impl Failure {
    /// The failure to give to the origin for an `update_fail_malformed_htlc` from the next peer: the node that
    /// receives one encrypts this under its own secret, for the peer could not.
    ///
    /// # Errors
    /// When the code lacks the BADONION bit.
    pub fn from_malformed(failure_code: u16, sha256_of_onion: [u8; 32]) -> Result<Failure, NotBadOnion> {
        match FailureCode::from_u16(failure_code) {
            code if !code.is_bad_onion() => Err(NotBadOnion { failure_code }),
            FailureCode::InvalidOnionVersion => Ok(Failure::InvalidOnionVersion { sha256_of_onion }),
            FailureCode::InvalidOnionHmac => Ok(Failure::InvalidOnionHmac { sha256_of_onion }),
            FailureCode::InvalidOnionKey => Ok(Failure::InvalidOnionKey { sha256_of_onion }),
            FailureCode::InvalidOnionBlinding => Ok(Failure::InvalidOnionBlinding { sha256_of_onion }),
            _ => Ok(Failure::Other { failure_code, data: sha256_of_onion.to_vec() }),
        }
    }

    /// The code of this message.
    #[must_use]
    pub const fn code(&self) -> FailureCode {
        match self {
            Failure::TemporaryNodeFailure => FailureCode::TemporaryNodeFailure,
            Failure::PermanentNodeFailure => FailureCode::PermanentNodeFailure,
            Failure::RequiredNodeFeatureMissing => FailureCode::RequiredNodeFeatureMissing,
            Failure::InvalidOnionVersion { .. } => FailureCode::InvalidOnionVersion,
            Failure::InvalidOnionHmac { .. } => FailureCode::InvalidOnionHmac,
            Failure::InvalidOnionKey { .. } => FailureCode::InvalidOnionKey,
            Failure::TemporaryChannelFailure => FailureCode::TemporaryChannelFailure,
            Failure::PermanentChannelFailure => FailureCode::PermanentChannelFailure,
            Failure::RequiredChannelFeatureMissing => FailureCode::RequiredChannelFeatureMissing,
            Failure::UnknownNextPeer => FailureCode::UnknownNextPeer,
            Failure::AmountBelowMinimum { .. } => FailureCode::AmountBelowMinimum,
            Failure::FeeInsufficient { .. } => FailureCode::FeeInsufficient,
            Failure::IncorrectCltvExpiry { .. } => FailureCode::IncorrectCltvExpiry,
            Failure::ExpiryTooSoon => FailureCode::ExpiryTooSoon,
            Failure::IncorrectOrUnknownPaymentDetails { .. } => FailureCode::IncorrectOrUnknownPaymentDetails,
            Failure::FinalIncorrectCltvExpiry { .. } => FailureCode::FinalIncorrectCltvExpiry,
            Failure::FinalIncorrectHtlcAmount { .. } => FailureCode::FinalIncorrectHtlcAmount,
            Failure::ChannelDisabled => FailureCode::ChannelDisabled,
            Failure::ExpiryTooFar => FailureCode::ExpiryTooFar,
            Failure::InvalidOnionPayload { .. } => FailureCode::InvalidOnionPayload,
            Failure::MppTimeout => FailureCode::MppTimeout,
            Failure::InvalidOnionBlinding { .. } => FailureCode::InvalidOnionBlinding,
            Failure::Other { failure_code, .. } => FailureCode::from_u16(*failure_code),
        }
    }

    /// The `failuremsg`: the code, its data, an empty `channel_update` where the code has one.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut writer = Writer::new(&mut bytes);
        writer.u16(self.code().to_u16());
        match self {
            Failure::InvalidOnionVersion { sha256_of_onion }
            | Failure::InvalidOnionHmac { sha256_of_onion }
            | Failure::InvalidOnionKey { sha256_of_onion }
            | Failure::InvalidOnionBlinding { sha256_of_onion } => writer.bytes(sha256_of_onion),
            Failure::AmountBelowMinimum { htlc_msat } | Failure::FeeInsufficient { htlc_msat } => {
                writer.u64(htlc_msat.0);
            }
            Failure::IncorrectCltvExpiry { cltv_expiry }
            | Failure::FinalIncorrectCltvExpiry { cltv_expiry } => {
                writer.u32(cltv_expiry.0);
            }
            Failure::IncorrectOrUnknownPaymentDetails { htlc_msat, height } => {
                writer.u64(htlc_msat.0);
                writer.u32(height.0);
            }
            Failure::FinalIncorrectHtlcAmount { incoming_htlc_amt } => {
                writer.u64(incoming_htlc_amt.0);
            }
            Failure::ChannelDisabled => writer.u16(0),
            Failure::InvalidOnionPayload { tlv_type, offset } => {
                writer.bigsize(*tlv_type);
                writer.u16(*offset);
            }
            Failure::Other { data, .. } => writer.bytes(data),
            _ => {}
        }
        if self.code().is_update() && !matches!(self, Failure::Other { .. }) {
            writer.u16(0);
        }
        bytes
    }

    /// Reads a `failuremsg`; bytes that do not parse become [`Failure::Other`].
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Failure {
        let mut reader = Reader::new(bytes);
        let Ok(failure_code) = reader.u16() else {
            return Failure::Other { failure_code: 0, data: bytes.to_vec() };
        };
        let known = Failure::decode_data(FailureCode::from_u16(failure_code), &mut reader.clone());
        known.unwrap_or_else(|_| Failure::Other { failure_code, data: reader.take_rest().to_vec() })
    }

    fn decode_data(code: FailureCode, data: &mut Reader<'_>) -> Result<Failure, DecodeError> {
        Ok(match code {
            FailureCode::TemporaryNodeFailure => Failure::TemporaryNodeFailure,
            FailureCode::PermanentNodeFailure => Failure::PermanentNodeFailure,
            FailureCode::RequiredNodeFeatureMissing => Failure::RequiredNodeFeatureMissing,
            FailureCode::InvalidOnionVersion => {
                Failure::InvalidOnionVersion { sha256_of_onion: data.array()? }
            }
            FailureCode::InvalidOnionHmac => Failure::InvalidOnionHmac { sha256_of_onion: data.array()? },
            FailureCode::InvalidOnionKey => Failure::InvalidOnionKey { sha256_of_onion: data.array()? },
            FailureCode::TemporaryChannelFailure => Failure::TemporaryChannelFailure,
            FailureCode::PermanentChannelFailure => Failure::PermanentChannelFailure,
            FailureCode::RequiredChannelFeatureMissing => Failure::RequiredChannelFeatureMissing,
            FailureCode::UnknownNextPeer => Failure::UnknownNextPeer,
            FailureCode::AmountBelowMinimum => Failure::AmountBelowMinimum { htlc_msat: Msat(data.u64()?) },
            FailureCode::FeeInsufficient => Failure::FeeInsufficient { htlc_msat: Msat(data.u64()?) },
            FailureCode::IncorrectCltvExpiry => {
                Failure::IncorrectCltvExpiry { cltv_expiry: BlockHeight(data.u32()?) }
            }
            FailureCode::ExpiryTooSoon => Failure::ExpiryTooSoon,
            FailureCode::IncorrectOrUnknownPaymentDetails => Failure::IncorrectOrUnknownPaymentDetails {
                htlc_msat: Msat(data.u64()?),
                height: BlockHeight(data.u32()?),
            },
            FailureCode::FinalIncorrectCltvExpiry => {
                Failure::FinalIncorrectCltvExpiry { cltv_expiry: BlockHeight(data.u32()?) }
            }
            FailureCode::FinalIncorrectHtlcAmount => {
                Failure::FinalIncorrectHtlcAmount { incoming_htlc_amt: Msat(data.u64()?) }
            }
            FailureCode::ChannelDisabled => Failure::ChannelDisabled,
            FailureCode::ExpiryTooFar => Failure::ExpiryTooFar,
            FailureCode::InvalidOnionPayload => {
                Failure::InvalidOnionPayload { tlv_type: data.bigsize()?, offset: data.u16()? }
            }
            FailureCode::MppTimeout => Failure::MppTimeout,
            FailureCode::InvalidOnionBlinding => {
                Failure::InvalidOnionBlinding { sha256_of_onion: data.array()? }
            }
            FailureCode::Other(failure_code) => {
                Failure::Other { failure_code, data: data.take_rest().to_vec() }
            }
        })
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.code().fmt(f)
    }
}
