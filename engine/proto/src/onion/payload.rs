//! The TLV payload of one hop (BOLT 4, "`payload` format", "Payload for the Last Node").
//!
//! Owns: reading and writing the records, which of them a forwarding and a final node need, and the failure for the
//! origin when they are not there. Does not compare a payload with its HTLC: that is policy.
//!
//! Route blinding is not supported: its records are read, and refused when the payload's role is decided.
//!
//! Invariant: a payload that was read is written back byte for byte.

use fulmen_wire::codec::{DecodeError, Reader, Writer};
use fulmen_wire::tlv::{TlvRecord, TlvRecords};
use fulmen_wire::units::{BlockHeight, Msat, PaymentPreimage, PaymentSecret, Point, Scid};

use super::failure::Failure;

const AMT_TO_FORWARD: u64 = 2;
const OUTGOING_CLTV_VALUE: u64 = 4;
const SHORT_CHANNEL_ID: u64 = 6;
const PAYMENT_DATA: u64 = 8;
const ENCRYPTED_RECIPIENT_DATA: u64 = 10;
const CURRENT_PATH_KEY: u64 = 12;
const PAYMENT_METADATA: u64 = 16;
const TOTAL_AMOUNT_MSAT: u64 = 18;
/// Keysend's record: agreed upon outside the BOLTs.
const KEYSEND_PREIMAGE: u64 = 5_482_373_484;
/// From here on types belong to applications, even ones too.
const CUSTOM_RECORDS_MIN: u64 = 65_536;

/// A hop's payload with all its records, before its role is decided.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Payload {
    /// The amount of the outgoing HTLC, or of the final one.
    pub amt_to_forward: Option<Msat>,
    /// When the outgoing HTLC expires, or the final one.
    pub outgoing_cltv_value: Option<BlockHeight>,
    /// The channel to forward over.
    pub short_channel_id: Option<Scid>,
    /// The data that ties a final HTLC to an invoice.
    pub payment_data: Option<PaymentData>,
    /// Route blinding: the recipient's data for this hop.
    pub encrypted_recipient_data: Option<Vec<u8>>,
    /// Route blinding: the key to it, at the path's first node.
    pub current_path_key: Option<Point>,
    /// The metadata that an invoice asked to be sent along.
    pub payment_metadata: Option<Vec<u8>>,
    /// Route blinding: the total of a payment's parts.
    pub total_amount_msat: Option<Msat>,
    /// The preimage itself, in a payment without an invoice.
    pub keysend_preimage: Option<PaymentPreimage>,
    /// All other records, types strictly increasing: odd ones below 65536, any from there on.
    pub other_records: Vec<OtherRecord>,
}

/// `payment_data`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PaymentData {
    /// The invoice's secret.
    pub payment_secret: PaymentSecret,
    /// The sum of all parts of the payment.
    pub total_msat: Msat,
}

/// A record without a meaning here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OtherRecord {
    /// Its type.
    pub tlv_type: u64,
    /// Its value.
    pub value: Vec<u8>,
}

/// The payload of a forwarding node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ForwardPayload {
    /// The channel to forward over.
    pub short_channel_id: Scid,
    /// The amount of the outgoing HTLC.
    pub amt_to_forward: Msat,
    /// When the outgoing HTLC expires.
    pub outgoing_cltv_value: BlockHeight,
}

/// The payload of the final node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FinalPayload {
    /// The least amount of the HTLC.
    pub amt_to_forward: Msat,
    /// When the HTLC may expire at the earliest.
    pub outgoing_cltv_value: BlockHeight,
    /// The data that ties the HTLC to an invoice.
    pub payment_data: Option<PaymentData>,
    /// The metadata that the invoice asked to be sent along.
    pub payment_metadata: Option<Vec<u8>>,
    /// The preimage itself, in a payment without an invoice.
    pub keysend_preimage: Option<PaymentPreimage>,
    /// All other records, types strictly increasing.
    pub other_records: Vec<OtherRecord>,
}

/// Why a payload is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PayloadError {
    /// The bytes are no TLV stream.
    #[error("not a TLV stream: {error}")]
    Stream {
        /// The fault.
        error: DecodeError,
    },
    /// The value of a known record is not valid.
    #[error("tlv type {tlv_type} at offset {offset}: {error}")]
    Value {
        /// The record's type.
        tlv_type: u64,
        /// Where the record starts in the payload.
        offset: usize,
        /// The fault.
        error: DecodeError,
    },
    /// A record we would have to understand and do not.
    #[error("tlv type {tlv_type} at offset {offset} is even and not supported")]
    Unsupported {
        /// The record's type.
        tlv_type: u64,
        /// Where the record starts in the payload; zero when it is the role that does not support it.
        offset: usize,
    },
    /// A record the node's role requires is not there.
    #[error("tlv type {tlv_type} is missing")]
    Missing {
        /// The record's type.
        tlv_type: u64,
    },
}

impl PayloadError {
    /// The `invalid_onion_payload` to answer with.
    #[must_use]
    pub fn failure(&self) -> Failure {
        let (tlv_type, offset) = match *self {
            PayloadError::Stream { error: DecodeError::TlvNotIncreasing { offset, tlv_type, .. } } => {
                (tlv_type, offset)
            }
            PayloadError::Stream {
                error: DecodeError::Truncated { offset, .. } | DecodeError::BigSizeNotMinimal { offset, .. },
            } => (0, offset),
            PayloadError::Stream { .. } => (0, 0),
            PayloadError::Value { tlv_type, offset, .. } | PayloadError::Unsupported { tlv_type, offset } => {
                (tlv_type, offset)
            }
            PayloadError::Missing { tlv_type } => (tlv_type, 0),
        };
        // A payload inside an onion is shorter than 2^16 bytes, so that no offset is cut.
        Failure::InvalidOnionPayload { tlv_type, offset: u16::try_from(offset).unwrap_or(u16::MAX) }
    }
}

impl Payload {
    /// Reads a payload as an onion holds it, without the length in front.
    ///
    /// # Errors
    /// When the bytes are no TLV stream, a known record is not valid, or an even one below 65536 is not known.
    pub fn decode(bytes: &[u8]) -> Result<Payload, PayloadError> {
        let mut payload = Payload::default();
        for record in TlvRecords::new(Reader::new(bytes)) {
            payload.read_record(record.map_err(|error| PayloadError::Stream { error })?)?;
        }
        Ok(payload)
    }

    fn read_record(&mut self, record: TlvRecord<'_>) -> Result<(), PayloadError> {
        let TlvRecord { tlv_type, mut value, offset } = record;
        if let Err(error) = self.read_value(tlv_type, &mut value).and_then(|()| value.finish()) {
            return Err(match error {
                DecodeError::UnknownEvenTlv { .. } => PayloadError::Unsupported { tlv_type, offset },
                error => PayloadError::Value { tlv_type, offset, error },
            });
        }
        Ok(())
    }

    fn read_value(&mut self, tlv_type: u64, value: &mut Reader<'_>) -> Result<(), DecodeError> {
        match tlv_type {
            AMT_TO_FORWARD => self.amt_to_forward = Some(value.tu64_msat()?),
            OUTGOING_CLTV_VALUE => self.outgoing_cltv_value = Some(BlockHeight(value.tu32()?)),
            SHORT_CHANNEL_ID => self.short_channel_id = Some(Scid(value.u64()?)),
            PAYMENT_DATA => {
                let payment_secret = PaymentSecret(value.array()?);
                self.payment_data = Some(PaymentData { payment_secret, total_msat: value.tu64_msat()? });
            }
            ENCRYPTED_RECIPIENT_DATA => self.encrypted_recipient_data = Some(value.take_rest().to_vec()),
            CURRENT_PATH_KEY => self.current_path_key = Some(value.point()?),
            PAYMENT_METADATA => self.payment_metadata = Some(value.take_rest().to_vec()),
            TOTAL_AMOUNT_MSAT => self.total_amount_msat = Some(value.tu64_msat()?),
            KEYSEND_PREIMAGE => self.keysend_preimage = Some(PaymentPreimage(value.array()?)),
            unknown if unknown < CUSTOM_RECORDS_MIN && unknown.is_multiple_of(2) => {
                return Err(DecodeError::UnknownEvenTlv { offset: value.offset(), tlv_type });
            }
            _ => self.other_records.push(OtherRecord { tlv_type, value: value.take_rest().to_vec() }),
        }
        Ok(())
    }

    /// Writes the payload as it goes into an onion, without the length in front.
    ///
    /// Other records are written where their types belong, so that an origin may list them in any order; one of a type
    /// named in [`Payload`] makes a payload that is refused.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut records: Vec<(u64, Vec<u8>)> = Vec::with_capacity(4 + self.other_records.len());
        let mut record = |tlv_type, write: &dyn Fn(&mut Writer<'_>)| {
            let mut value = Vec::new();
            write(&mut Writer::new(&mut value));
            records.push((tlv_type, value));
        };
        if let Some(amount) = self.amt_to_forward {
            record(AMT_TO_FORWARD, &|value| value.tu64(amount.0));
        }
        if let Some(expiry) = self.outgoing_cltv_value {
            record(OUTGOING_CLTV_VALUE, &|value| value.tu32(expiry.0));
        }
        if let Some(scid) = self.short_channel_id {
            record(SHORT_CHANNEL_ID, &|value| value.u64(scid.0));
        }
        if let Some(data) = self.payment_data {
            record(PAYMENT_DATA, &|value| {
                value.bytes(&data.payment_secret.0);
                value.tu64(data.total_msat.0);
            });
        }
        if let Some(data) = &self.encrypted_recipient_data {
            record(ENCRYPTED_RECIPIENT_DATA, &|value| value.bytes(data));
        }
        if let Some(key) = self.current_path_key {
            record(CURRENT_PATH_KEY, &|value| value.bytes(&key.0));
        }
        if let Some(metadata) = &self.payment_metadata {
            record(PAYMENT_METADATA, &|value| value.bytes(metadata));
        }
        if let Some(amount) = self.total_amount_msat {
            record(TOTAL_AMOUNT_MSAT, &|value| value.tu64(amount.0));
        }
        if let Some(preimage) = self.keysend_preimage {
            record(KEYSEND_PREIMAGE, &|value| value.bytes(&preimage.0));
        }
        for other in &self.other_records {
            record(other.tlv_type, &|value| value.bytes(&other.value));
        }
        records.sort_by_key(|(tlv_type, _)| *tlv_type);
        let mut bytes = Vec::new();
        let mut writer = Writer::new(&mut bytes);
        for (tlv_type, value) in records {
            writer.bigsize(tlv_type);
            writer.bigsize(value.len() as u64);
            writer.bytes(&value);
        }
        bytes
    }

    /// The payload of a node that is to forward.
    ///
    /// # Errors
    /// When a required record is missing, or an even one is there that forwarding does not cover.
    pub fn into_forward(self) -> Result<ForwardPayload, PayloadError> {
        self.refuse_unsupported(&[])?;
        Ok(ForwardPayload {
            amt_to_forward: require(self.amt_to_forward, AMT_TO_FORWARD)?,
            outgoing_cltv_value: require(self.outgoing_cltv_value, OUTGOING_CLTV_VALUE)?,
            short_channel_id: require(self.short_channel_id, SHORT_CHANNEL_ID)?,
        })
    }

    /// The payload of the final node, whose applications know the custom records of the types in `known_types`.
    ///
    /// # Errors
    /// When a required record is missing, or an even one is there that nobody knows.
    pub fn into_final(self, known_types: &[u64]) -> Result<FinalPayload, PayloadError> {
        self.refuse_unsupported(known_types)?;
        Ok(FinalPayload {
            amt_to_forward: require(self.amt_to_forward, AMT_TO_FORWARD)?,
            outgoing_cltv_value: require(self.outgoing_cltv_value, OUTGOING_CLTV_VALUE)?,
            payment_data: self.payment_data,
            payment_metadata: self.payment_metadata,
            keysend_preimage: self.keysend_preimage,
            other_records: self.other_records,
        })
    }

    fn refuse_unsupported(&self, known_types: &[u64]) -> Result<(), PayloadError> {
        let blinding = [
            (ENCRYPTED_RECIPIENT_DATA, self.encrypted_recipient_data.is_some()),
            (CURRENT_PATH_KEY, self.current_path_key.is_some()),
        ];
        let blinding = blinding.into_iter().filter(|(_, present)| *present).map(|(tlv_type, _)| tlv_type);
        let custom = self.other_records.iter().map(|record| record.tlv_type);
        let custom = custom.filter(|tlv_type| tlv_type.is_multiple_of(2) && !known_types.contains(tlv_type));
        match blinding.chain(custom).next() {
            Some(tlv_type) => Err(PayloadError::Unsupported { tlv_type, offset: 0 }),
            None => Ok(()),
        }
    }
}

impl FinalPayload {
    /// The sum of all parts of the payment: this part's amount if the payload does not say.
    #[must_use]
    pub const fn total_msat(&self) -> Msat {
        match self.payment_data {
            Some(data) => data.total_msat,
            None => self.amt_to_forward,
        }
    }
}

impl From<ForwardPayload> for Payload {
    fn from(forward: ForwardPayload) -> Payload {
        Payload {
            amt_to_forward: Some(forward.amt_to_forward),
            outgoing_cltv_value: Some(forward.outgoing_cltv_value),
            short_channel_id: Some(forward.short_channel_id),
            ..Payload::default()
        }
    }
}

impl From<FinalPayload> for Payload {
    fn from(last: FinalPayload) -> Payload {
        Payload {
            amt_to_forward: Some(last.amt_to_forward),
            outgoing_cltv_value: Some(last.outgoing_cltv_value),
            payment_data: last.payment_data,
            payment_metadata: last.payment_metadata,
            keysend_preimage: last.keysend_preimage,
            other_records: last.other_records,
            ..Payload::default()
        }
    }
}

fn require<T>(value: Option<T>, tlv_type: u64) -> Result<T, PayloadError> {
    value.ok_or(PayloadError::Missing { tlv_type })
}
