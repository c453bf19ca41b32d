//! Reading and writing the fundamental types of BOLT 1.
//!
//! Owns: [`Reader`] and [`Writer`], the cursors every decoder and encoder of this crate is built from, BigSize,
//! truncated and signed integers, and [`DecodeError`], the one error of every decoder. Does not know any message or
//! TLV type.
//!
//! Invariant: a reader never reads past its bytes, never allocates, and accepts only minimal encodings, so that every
//! value it reads is written back as the same bytes.

use crate::units::{Msat, NodeId, Point, Signature};

/// The most bytes a message may have, its two-byte type included (BOLT 1, "Lightning Message Format").
pub const MESSAGE_MAX_BYTES: usize = 65_535;

/// Why bytes are not a message, TLV stream or field. Offsets count from the first byte given to the decoder; for a
/// message that is the first byte of its type.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The bytes end inside a field.
    #[error("at offset {offset}: {needed} bytes needed, {remaining} left")]
    Truncated {
        /// Where the field starts.
        offset: usize,
        /// How many bytes the field needs.
        needed: u64,
        /// How many bytes there are.
        remaining: usize,
    },
    /// Bytes are left over behind the last field.
    #[error("at offset {offset}: {unread} bytes behind the last field")]
    Unread {
        /// Where the first unread byte is.
        offset: usize,
        /// How many bytes were not read.
        unread: usize,
    },
    /// A BigSize uses more bytes than its value needs.
    #[error("at offset {offset}: bigsize of {value} is not minimal")]
    BigSizeNotMinimal {
        /// Where the BigSize starts.
        offset: usize,
        /// The value it encodes.
        value: u64,
    },
    /// A truncated integer starts with a zero byte.
    #[error("at offset {offset}: truncated integer starts with a zero byte")]
    TruncatedIntegerNotMinimal {
        /// Where the integer starts.
        offset: usize,
    },
    /// A truncated integer has more bytes than its type.
    #[error("at offset {offset}: truncated integer of {length} bytes, at most {max} allowed")]
    TruncatedIntegerTooLong {
        /// Where the integer starts.
        offset: usize,
        /// How many bytes it has.
        length: usize,
        /// How many bytes its type has.
        max: usize,
    },
    /// A truncated amount is larger than all bitcoin (BOLT 1, "Fundamental Types").
    #[error("at offset {offset}: {amount} is more than all bitcoin")]
    AmountTooLarge {
        /// Where the amount starts.
        offset: usize,
        /// The amount.
        amount: Msat,
    },
    /// A point does not start with 2 or 3, so that it cannot be a compressed point.
    #[error("at offset {offset}: a compressed point does not start with {prefix:#04x}")]
    PointPrefix {
        /// Where the point starts.
        offset: usize,
        /// Its first byte.
        prefix: u8,
    },
    /// A boolean byte is neither 0 nor 1.
    #[error("at offset {offset}: {value} is neither 0 nor 1")]
    NotBoolean {
        /// Where the byte is.
        offset: usize,
        /// The byte.
        value: u8,
    },
    /// A field whose length must be a multiple of its element's has another.
    #[error("at offset {offset}: {length} bytes are not a whole number of {element}-byte elements")]
    NotWholeElements {
        /// Where the elements start.
        offset: usize,
        /// How many bytes there are.
        length: usize,
        /// How many bytes an element has.
        element: usize,
    },
    /// A TLV record's type is not above the one before it.
    #[error("at offset {offset}: tlv type {tlv_type} after type {previous}")]
    TlvNotIncreasing {
        /// Where the record starts.
        offset: usize,
        /// The type of the record before.
        previous: u64,
        /// The type of this record.
        tlv_type: u64,
    },
    /// A TLV record of an even type that is not known here.
    #[error("at offset {offset}: unknown even tlv type {tlv_type}")]
    UnknownEvenTlv {
        /// Where the record starts.
        offset: usize,
        /// Its type.
        tlv_type: u64,
    },
    /// A message of an even type that is not known here.
    #[error("unknown even message type {message_type}")]
    UnknownEvenMessage {
        /// The type.
        message_type: u16,
    },
    /// More bytes than a message may have.
    #[error("message of {length} bytes; at most 65535 allowed")]
    MessageTooLong {
        /// How many bytes there are.
        length: usize,
    },
    /// An array of a gossip query is compressed with zlib, which BOLT 7 forbids.
    #[error("at offset {offset}: zlib-compressed array, which is forbidden")]
    CompressedArray {
        /// Where the encoding type is.
        offset: usize,
    },
    /// An array of a gossip query has an encoding type that BOLT 7 does not define.
    #[error("at offset {offset}: unknown array encoding {encoding}")]
    UnknownArrayEncoding {
        /// Where the encoding type is.
        offset: usize,
        /// The encoding type.
        encoding: u8,
    },
    /// An array that must have an element for each short channel id has another number of them.
    #[error("at offset {offset}: {actual} {array} for {expected} short channel ids")]
    ArrayCount {
        /// Where the message ends.
        offset: usize,
        /// Which array.
        array: &'static str,
        /// How many short channel ids there are.
        expected: usize,
        /// How many elements the array has.
        actual: usize,
    },
}

/// A cursor over bytes to decode. Each method reads one field and advances past it; after an error the position is
/// unspecified, so drop the reader.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
    offset: usize,
}

impl<'a> Reader<'a> {
    /// Reads `bytes` from their start.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { rest: bytes, offset: 0 }
    }

    /// The offset of the next byte from the start of the outermost reader.
    #[must_use]
    pub const fn offset(&self) -> usize {
        self.offset
    }

    /// How many bytes are left.
    #[must_use]
    pub const fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// Whether every byte was read.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The next `length` bytes. The length may be a peer's claim: it is checked before it is used.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`] with fewer bytes left.
    pub fn bytes(&mut self, length: u64) -> Result<&'a [u8], DecodeError> {
        let split = usize::try_from(length).ok().and_then(|length| self.rest.split_at_checked(length));
        let Some((head, rest)) = split else {
            return Err(DecodeError::Truncated {
                offset: self.offset,
                needed: length,
                remaining: self.rest.len(),
            });
        };
        self.rest = rest;
        self.offset += head.len();
        Ok(head)
    }

    /// A reader over the next `length` bytes, which are skipped here.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`] with fewer bytes left.
    pub fn sub_reader(&mut self, length: u64) -> Result<Reader<'a>, DecodeError> {
        let offset = self.offset;
        Ok(Reader { rest: self.bytes(length)?, offset })
    }

    /// All bytes that are left.
    pub fn take_rest(&mut self) -> &'a [u8] {
        let rest = self.rest;
        self.rest = &[];
        self.offset += rest.len();
        rest
    }

    /// Checks that every byte was read.
    ///
    /// # Errors
    /// [`DecodeError::Unread`] with the number of bytes left.
    pub fn finish(&self) -> Result<(), DecodeError> {
        match self.rest.len() {
            0 => Ok(()),
            unread => Err(DecodeError::Unread { offset: self.offset, unread }),
        }
    }

    /// The next `N` bytes.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`] with fewer bytes left.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let Some((head, rest)) = self.rest.split_first_chunk::<N>() else {
            return Err(DecodeError::Truncated {
                offset: self.offset,
                needed: N as u64,
                remaining: self.rest.len(),
            });
        };
        self.rest = rest;
        self.offset += N;
        Ok(*head)
    }

    /// A byte.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`] with fewer than 1 byte left.
    pub fn u8(&mut self) -> Result<u8, DecodeError> {
        self.array().map(u8::from_be_bytes)
    }

    /// A `u16`.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`] with fewer than 2 bytes left.
    pub fn u16(&mut self) -> Result<u16, DecodeError> {
        self.array().map(u16::from_be_bytes)
    }

    /// A `u32`.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`] with fewer than 4 bytes left.
    pub fn u32(&mut self) -> Result<u32, DecodeError> {
        self.array().map(u32::from_be_bytes)
    }

    /// A `u64`.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`] with fewer than 8 bytes left.
    pub fn u64(&mut self) -> Result<u64, DecodeError> {
        self.array().map(u64::from_be_bytes)
    }

    /// An `s8`.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`] with fewer than 1 byte left.
    pub fn s8(&mut self) -> Result<i8, DecodeError> {
        self.array().map(i8::from_be_bytes)
    }

    /// An `s16`.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`] with fewer than 2 bytes left.
    pub fn s16(&mut self) -> Result<i16, DecodeError> {
        self.array().map(i16::from_be_bytes)
    }

    /// An `s32`.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`] with fewer than 4 bytes left.
    pub fn s32(&mut self) -> Result<i32, DecodeError> {
        self.array().map(i32::from_be_bytes)
    }

    /// An `s64`.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`] with fewer than 8 bytes left.
    pub fn s64(&mut self) -> Result<i64, DecodeError> {
        self.array().map(i64::from_be_bytes)
    }

    /// A byte that must be 0 or 1.
    ///
    /// # Errors
    /// [`DecodeError::NotBoolean`] for another value, [`DecodeError::Truncated`] without a byte.
    pub fn bool(&mut self) -> Result<bool, DecodeError> {
        let offset = self.offset;
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            value => Err(DecodeError::NotBoolean { offset, value }),
        }
    }

    /// A minimally encoded `bigsize` (BOLT 1, appendix A).
    ///
    /// # Errors
    /// [`DecodeError::BigSizeNotMinimal`] for a longer form than the value needs, [`DecodeError::Truncated`] when bytes
    /// are missing.
    pub fn bigsize(&mut self) -> Result<u64, DecodeError> {
        let offset = self.offset;
        let (value, least) = match self.u8()? {
            0xfd => (u64::from(self.u16()?), 0xfd),
            0xfe => (u64::from(self.u32()?), 0x1_0000),
            0xff => (self.u64()?, 0x1_0000_0000),
            small => (u64::from(small), 0),
        };
        if value < least {
            return Err(DecodeError::BigSizeNotMinimal { offset, value });
        }
        Ok(value)
    }

    /// All bytes that are left as a minimally encoded `tu16`.
    ///
    /// # Errors
    /// [`DecodeError::TruncatedIntegerTooLong`] above 2 bytes, [`DecodeError::TruncatedIntegerNotMinimal`] for a
    /// leading zero.
    pub fn tu16(&mut self) -> Result<u16, DecodeError> {
        let [.., high, low] = self.truncated::<2>()?;
        Ok(u16::from_be_bytes([high, low]))
    }

    /// All bytes that are left as a minimally encoded `tu32`.
    ///
    /// # Errors
    /// [`DecodeError::TruncatedIntegerTooLong`] above 4 bytes, [`DecodeError::TruncatedIntegerNotMinimal`] for a
    /// leading zero.
    pub fn tu32(&mut self) -> Result<u32, DecodeError> {
        let [_, _, _, _, low @ ..] = self.truncated::<4>()?;
        Ok(u32::from_be_bytes(low))
    }

    /// All bytes that are left as a minimally encoded `tu64`.
    ///
    /// # Errors
    /// [`DecodeError::TruncatedIntegerTooLong`] above 8 bytes, [`DecodeError::TruncatedIntegerNotMinimal`] for a
    /// leading zero.
    pub fn tu64(&mut self) -> Result<u64, DecodeError> {
        self.truncated::<8>().map(u64::from_be_bytes)
    }

    /// All bytes that are left as a minimally encoded `tu64` amount, at most all bitcoin.
    ///
    /// # Errors
    /// [`DecodeError::AmountTooLarge`] above [`Msat::MAX_MONEY`], and those of [`Reader::tu64`].
    pub fn tu64_msat(&mut self) -> Result<Msat, DecodeError> {
        let offset = self.offset;
        let amount = Msat(self.tu64()?);
        if amount > Msat::MAX_MONEY {
            return Err(DecodeError::AmountTooLarge { offset, amount });
        }
        Ok(amount)
    }

    /// All bytes that are left, at most `MAX` and without a leading zero, padded in front to eight bytes.
    fn truncated<const MAX: usize>(&mut self) -> Result<[u8; 8], DecodeError> {
        let offset = self.offset;
        let bytes = self.take_rest();
        if bytes.len() > MAX {
            return Err(DecodeError::TruncatedIntegerTooLong { offset, length: bytes.len(), max: MAX });
        }
        if bytes.first() == Some(&0) {
            return Err(DecodeError::TruncatedIntegerNotMinimal { offset });
        }
        let mut padded = [0; 8];
        padded[8 - bytes.len()..].copy_from_slice(bytes);
        Ok(padded)
    }

    /// A compressed point: 33 bytes that start with 2 or 3. Whether they are on the curve is not checked.
    ///
    /// # Errors
    /// [`DecodeError::PointPrefix`] for another first byte, [`DecodeError::Truncated`] with fewer than 33 bytes left.
    pub fn point(&mut self) -> Result<Point, DecodeError> {
        let offset = self.offset;
        let bytes = self.array::<33>()?;
        match bytes[0] {
            2 | 3 => Ok(Point(bytes)),
            prefix => Err(DecodeError::PointPrefix { offset, prefix }),
        }
    }

    /// A node's key: a point, checked as [`Reader::point`] does.
    ///
    /// # Errors
    /// Those of [`Reader::point`].
    pub fn node_id(&mut self) -> Result<NodeId, DecodeError> {
        self.point().map(|point| NodeId(point.0))
    }

    /// A signature, unchecked.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`] with fewer than 64 bytes left.
    pub fn signature(&mut self) -> Result<Signature, DecodeError> {
        self.array().map(Signature)
    }

    /// Bytes behind their `u16` length.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`] when the length or the bytes are cut short.
    pub fn bytes_u16(&mut self) -> Result<&'a [u8], DecodeError> {
        let length = self.u16()?;
        self.bytes(u64::from(length))
    }
}

/// Appends fields to a buffer. Writing cannot fail: a value too long for its length prefix is a bug of the caller and
/// panics.
#[derive(Debug)]
pub struct Writer<'a> {
    out: &'a mut Vec<u8>,
}

impl<'a> Writer<'a> {
    /// Appends to `out`.
    #[must_use]
    pub const fn new(out: &'a mut Vec<u8>) -> Writer<'a> {
        Writer { out }
    }

    /// How many bytes the buffer holds.
    #[must_use]
    pub const fn position(&self) -> usize {
        self.out.len()
    }

    /// Bytes as they are.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }

    /// A byte.
    pub fn u8(&mut self, value: u8) {
        self.out.push(value);
    }

    /// A `u16`.
    pub fn u16(&mut self, value: u16) {
        self.bytes(&value.to_be_bytes());
    }

    /// A `u32`.
    pub fn u32(&mut self, value: u32) {
        self.bytes(&value.to_be_bytes());
    }

    /// A `u64`.
    pub fn u64(&mut self, value: u64) {
        self.bytes(&value.to_be_bytes());
    }

    /// An `s8`.
    pub fn s8(&mut self, value: i8) {
        self.bytes(&value.to_be_bytes());
    }

    /// An `s16`.
    pub fn s16(&mut self, value: i16) {
        self.bytes(&value.to_be_bytes());
    }

    /// An `s32`.
    pub fn s32(&mut self, value: i32) {
        self.bytes(&value.to_be_bytes());
    }

    /// An `s64`.
    pub fn s64(&mut self, value: i64) {
        self.bytes(&value.to_be_bytes());
    }

    /// A `bigsize` in its shortest form.
    pub fn bigsize(&mut self, value: u64) {
        let mut buffer = [0; 9];
        self.bytes(bigsize_bytes(value, &mut buffer));
    }

    /// A `tu16`, without leading zeros.
    pub fn tu16(&mut self, value: u16) {
        self.tu64(u64::from(value));
    }

    /// A `tu32`, without leading zeros.
    pub fn tu32(&mut self, value: u32) {
        self.tu64(u64::from(value));
    }

    /// A `tu64`, without leading zeros.
    pub fn tu64(&mut self, value: u64) {
        let zeros = value.leading_zeros() as usize / 8;
        self.bytes(&value.to_be_bytes()[zeros..]);
    }

    /// Bytes behind their `u16` length.
    ///
    /// # Panics
    ///
    /// With more than 65,535 bytes, which no message has room for.
    pub fn bytes_u16(&mut self, bytes: &[u8]) {
        let length = u16::try_from(bytes.len()).expect("a field is shorter than the longest message");
        self.u16(length);
        self.bytes(bytes);
    }

    /// The output of `write`, prefixed with its length as a `bigsize`.
    pub fn length_prefixed(&mut self, write: impl FnOnce(&mut Writer<'_>)) {
        let start = self.out.len();
        write(self);
        let mut buffer = [0; 9];
        let prefix = bigsize_bytes((self.out.len() - start) as u64, &mut buffer);
        self.out.splice(start..start, prefix.iter().copied());
    }
}

/// The shortest `bigsize` of a value, at the start of a buffer that has room for any.
fn bigsize_bytes(value: u64, buffer: &mut [u8; 9]) -> &[u8] {
    let big_endian = value.to_be_bytes();
    let (marker, width) = match value {
        0..0xfd => (None, 1),
        0xfd..0x1_0000 => (Some(0xfd), 2),
        0x1_0000..0x1_0000_0000 => (Some(0xfe), 4),
        _ => (Some(0xff), 8),
    };
    let start = usize::from(marker.is_some());
    if let Some(marker) = marker {
        buffer[0] = marker;
    }
    buffer[start..start + width].copy_from_slice(&big_endian[8 - width..]);
    &buffer[..start + width]
}
