//! TLV streams (BOLT 1, "Type-Length-Value Format").
//!
//! Owns: the rules of a stream: types strictly increase, types and lengths are minimal, a known record is read whole,
//! an unknown even record is refused and an unknown odd one kept. The caller knows the types and their values: see
//! [`read_stream`] and [`StreamWriter`].
//!
//! Invariant: a stream that was read is written back byte for byte.
//!
//! ```
//! use fulmen_wire::codec::{Reader, Writer};
//! use fulmen_wire::tlv::{StreamWriter, read_stream};
//!
//! // Record 2 is known, record 5 is not, but odd.
//! let bytes = [2, 1, 42, 5, 1, 7];
//! let mut known = None;
//! let unknown = read_stream(&mut Reader::new(&bytes), |tlv_type, value| match tlv_type {
//!     2 => {
//!         known = Some(value.tu64()?);
//!         Ok(true)
//!     }
//!     _ => Ok(false),
//! })?;
//! assert_eq!((known, unknown.value(5)), (Some(42), Some(&[7][..])));
//!
//! let mut written = Vec::new();
//! let mut writer = Writer::new(&mut written);
//! let mut stream = StreamWriter::new(&mut writer, &unknown);
//! stream.optional(2, known.as_ref(), |value, writer| writer.tu64(*value));
//! stream.finish();
//! assert_eq!(written, bytes);
//! # Ok::<(), fulmen_wire::codec::DecodeError>(())
//! ```

use core::fmt;

use crate::codec::{DecodeError, Reader, Writer};

/// One record of a stream, its value not yet decoded.
#[derive(Clone, Debug)]
pub struct TlvRecord<'a> {
    /// The record's type.
    pub tlv_type: u64,
    /// Its value, in a reader whose offsets go on from the stream's.
    pub value: Reader<'a>,
    /// Where the record starts.
    pub offset: usize,
}

/// The records of a stream in their order: an iterator that ends behind the first error.
#[derive(Clone, Debug)]
pub struct TlvRecords<'a> {
    reader: Reader<'a>,
    previous: Option<u64>,
    failed: bool,
}

impl<'a> TlvRecords<'a> {
    /// The records in all that is left of `reader`.
    #[must_use]
    pub const fn new(reader: Reader<'a>) -> TlvRecords<'a> {
        TlvRecords { reader, previous: None, failed: false }
    }

    fn read_record(&mut self) -> Result<TlvRecord<'a>, DecodeError> {
        let offset = self.reader.offset();
        let tlv_type = self.reader.bigsize()?;
        if let Some(previous) = self.previous
            && tlv_type <= previous
        {
            return Err(DecodeError::TlvNotIncreasing { offset, previous, tlv_type });
        }
        self.previous = Some(tlv_type);
        let length = self.reader.bigsize()?;
        let value = self.reader.sub_reader(length)?;
        Ok(TlvRecord { tlv_type, value, offset })
    }
}

impl<'a> Iterator for TlvRecords<'a> {
    type Item = Result<TlvRecord<'a>, DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed || self.reader.is_empty() {
            return None;
        }
        let record = self.read_record();
        self.failed = record.is_err();
        Some(record)
    }
}

/// Reads the rest of `reader` as a stream, and returns the unknown odd records.
///
/// `read_known` gets each record's type and a reader over its value. It reads the value and returns `true` when it
/// knows the type; it returns `false`, having read nothing, when it does not.
///
/// # Errors
/// [`DecodeError::TlvNotIncreasing`], [`DecodeError::UnknownEvenTlv`], [`DecodeError::Unread`] for bytes that
/// `read_known` leaves of a known value, and whatever `read_known` fails with.
pub fn read_stream<'a>(
    reader: &mut Reader<'a>,
    mut read_known: impl FnMut(u64, &mut Reader<'a>) -> Result<bool, DecodeError>,
) -> Result<UnknownTlvs, DecodeError> {
    let mut unknown = UnknownTlvs::default();
    let whole = reader.clone();
    reader.take_rest();
    for record in TlvRecords::new(whole) {
        let TlvRecord { tlv_type, mut value, offset } = record?;
        if read_known(tlv_type, &mut value)? {
            value.finish()?;
        } else if tlv_type.is_multiple_of(2) {
            return Err(DecodeError::UnknownEvenTlv { offset, tlv_type });
        } else {
            unknown.append(tlv_type, value.take_rest());
        }
    }
    Ok(unknown)
}

/// Writes a stream: the caller gives the known records in increasing order of type, the unknown ones are merged in.
#[derive(Debug)]
pub struct StreamWriter<'a, 'b> {
    writer: &'b mut Writer<'a>,
    unknown: core::iter::Peekable<UnknownRecords<'b>>,
    previous: Option<u64>,
}

impl<'a, 'b> StreamWriter<'a, 'b> {
    /// Starts a stream at the end of `writer` that will contain `unknown`.
    #[must_use]
    pub fn new(writer: &'b mut Writer<'a>, unknown: &'b UnknownTlvs) -> StreamWriter<'a, 'b> {
        StreamWriter { writer, unknown: unknown.iter().peekable(), previous: None }
    }

    /// Appends a record whose value `write` writes.
    ///
    /// # Panics
    ///
    /// When `tlv_type` is not above every type before it, or is among the unknown ones: both are mistakes of the
    /// caller that would make a stream nobody accepts.
    pub fn record(&mut self, tlv_type: u64, write: impl FnOnce(&mut Writer<'_>)) {
        while let Some((unknown_type, value)) = self.unknown.next_if(|(unknown, _)| *unknown <= tlv_type) {
            self.put(unknown_type, |writer| writer.bytes(value));
        }
        self.put(tlv_type, write);
    }

    /// Appends a record if there is a value for it.
    pub fn optional<T>(&mut self, tlv_type: u64, value: Option<&T>, write: impl FnOnce(&T, &mut Writer<'_>)) {
        if let Some(value) = value {
            self.record(tlv_type, |writer| write(value, writer));
        }
    }

    /// Ends the stream with the unknown records that are above every known one.
    pub fn finish(mut self) {
        while let Some((tlv_type, value)) = self.unknown.next() {
            self.put(tlv_type, |writer| writer.bytes(value));
        }
    }

    fn put(&mut self, tlv_type: u64, write: impl FnOnce(&mut Writer<'_>)) {
        assert!(
            self.previous.is_none_or(|previous| previous < tlv_type),
            "tlv type {tlv_type} written after {:?}",
            self.previous
        );
        self.previous = Some(tlv_type);
        self.writer.bigsize(tlv_type);
        self.writer.length_prefixed(write);
    }
}

/// The records of a stream that its reader did not know, kept so that the stream can be written back whole.
///
/// All their types are odd and strictly increase. They are kept in their encoded form: one allocation, and none when
/// there are no records.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct UnknownTlvs {
    encoded: Vec<u8>,
}

/// Why a record cannot be among the unknown ones.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("tlv type {tlv_type} is even or not above {previous:?}")]
pub struct PushError {
    /// The record's type.
    pub tlv_type: u64,
    /// The highest type there is.
    pub previous: Option<u64>,
}

impl UnknownTlvs {
    /// Whether there are no records.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.encoded.is_empty()
    }

    /// Adds a record of an odd type above all others.
    ///
    /// # Errors
    /// [`PushError`] for an even type, or one not above all others.
    pub fn push(&mut self, tlv_type: u64, value: &[u8]) -> Result<(), PushError> {
        let previous = self.iter().last().map(|(tlv_type, _)| tlv_type);
        if tlv_type.is_multiple_of(2) || previous.is_some_and(|previous| tlv_type <= previous) {
            return Err(PushError { tlv_type, previous });
        }
        self.append(tlv_type, value);
        Ok(())
    }

    /// Adds a record that is known to be odd and above all others.
    fn append(&mut self, tlv_type: u64, value: &[u8]) {
        let mut writer = Writer::new(&mut self.encoded);
        writer.bigsize(tlv_type);
        writer.bigsize(value.len() as u64);
        writer.bytes(value);
    }

    /// The records in increasing order of type, each with its value.
    #[must_use]
    pub fn iter(&self) -> UnknownRecords<'_> {
        UnknownRecords { records: TlvRecords::new(Reader::new(&self.encoded)) }
    }

    /// The value of the record of this type.
    #[must_use]
    pub fn value(&self, tlv_type: u64) -> Option<&[u8]> {
        self.iter().find(|(candidate, _)| *candidate == tlv_type).map(|(_, value)| value)
    }
}

impl<'a> IntoIterator for &'a UnknownTlvs {
    type Item = (u64, &'a [u8]);
    type IntoIter = UnknownRecords<'a>;

    fn into_iter(self) -> UnknownRecords<'a> {
        self.iter()
    }
}

impl fmt::Debug for UnknownTlvs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

/// Iterates over [`UnknownTlvs`].
#[derive(Clone, Debug)]
pub struct UnknownRecords<'a> {
    records: TlvRecords<'a>,
}

impl<'a> Iterator for UnknownRecords<'a> {
    type Item = (u64, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let TlvRecord { tlv_type, mut value, .. } =
            self.records.next()?.expect("only well-formed records are kept");
        Some((tlv_type, value.take_rest()))
    }
}
