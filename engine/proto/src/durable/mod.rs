//! The byte form of durable state: the encoding of records and checkpoints.
//!
//! Owns: [`Durable`] (a value and its bytes), the [`Encoder`] and [`Decoder`] that values are written with and read
//! from, [`RecordError`], and the macros that make both directions out of one list of fields. Does not know the
//! stored types; the modules beside them do (`channel::codec`, `forward::codec`). `FORMAT.md` beside `Cargo.toml`
//! specifies the format to the byte.
//!
//! Integers are minimal `bigsize`s. Ids and hashes of 32 bytes tend to come several times in a record, so the first
//! time they are written out and afterwards named by their number of first appearance.
//!
//! Invariant: a written value is read as an equal one, and decoding any bytes ends in a value or a [`RecordError`],
//! having allocated no more than a constant times their number.

mod primitives;
#[cfg(test)]
pub(crate) mod sample;

use std::collections::HashMap;

use fulmen_wire::codec::{DecodeError, Reader, Writer};

/// Why bytes do not decode. Offsets count from the first byte given to the decoder.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// The first byte is no version that is known here.
    #[error("{what} of format version {found}; known here is {known}")]
    Version {
        /// The kind of thing expected.
        what: &'static str,
        /// The first byte.
        found: u8,
        /// The version written here.
        known: u8,
    },
    /// A field is cut off, or has a value that it cannot have.
    #[error(transparent)]
    Field(#[from] DecodeError),
    /// A tag that names no variant.
    #[error("at offset {offset}: there is no {what} {tag}")]
    UnknownTag {
        /// Where the byte is.
        offset: usize,
        /// The kind of thing.
        what: &'static str,
        /// The byte.
        tag: u8,
    },
    /// A number is larger than its field can hold.
    #[error("at offset {offset}: {value} is above {max}")]
    OutOfRange {
        /// Where the number is.
        offset: usize,
        /// The number.
        value: u64,
        /// The largest possible.
        max: u64,
    },
    /// An id or hash is named by a number that none has had yet.
    #[error("at offset {offset}: reference {reference}, though only {known} ids came before")]
    UnknownReference {
        /// Where the reference is.
        offset: usize,
        /// The reference.
        reference: u64,
        /// How many could be referred to.
        known: usize,
    },
    /// A text is not UTF-8.
    #[error("at offset {offset}: text that is not UTF-8")]
    NotText {
        /// Where the text starts.
        offset: usize,
    },
    /// A message does not decode, or is another than the one that belongs here.
    #[error("at offset {offset}: not a message of type {expected}")]
    Message {
        /// Where the message starts.
        offset: usize,
        /// The type of the message that belongs here.
        expected: u16,
    },
    /// A transaction does not decode.
    #[error("at offset {offset}: not a transaction")]
    Transaction {
        /// Where the transaction starts.
        offset: usize,
    },
    /// Bytes that stand for a point or a scalar of secp256k1 are none.
    #[error("at offset {offset}: {what} that is not of secp256k1")]
    NotOnCurve {
        /// Where the bytes start.
        offset: usize,
        /// The kind of thing expected.
        what: &'static str,
    },
    /// Parts that are each well formed do not belong together.
    #[error("at offset {offset}: {what}")]
    Inconsistent {
        /// Where the last of them ends.
        offset: usize,
        /// The contradiction.
        what: &'static str,
    },
}

/// A value with a durable byte form.
pub(crate) trait Durable: Sized {
    /// Appends the value.
    fn write(&self, out: &mut Encoder<'_>);
    /// Reads the value.
    fn read(input: &mut Decoder<'_>) -> Result<Self, RecordError>;
    /// Any value, for tests; every variant has the same chance.
    #[cfg(test)]
    fn sample(sampler: &mut sample::Sampler) -> Self;
}

/// Appends values to a buffer.
#[derive(Debug)]
pub(crate) struct Encoder<'a> {
    writer: Writer<'a>,
    known: HashMap<[u8; 32], u64>,
    omits_onions: bool,
}

impl<'a> Encoder<'a> {
    /// Appends to `out`, beginning with the version.
    pub(crate) fn new(out: &'a mut Vec<u8>, version: u8) -> Encoder<'a> {
        let mut writer = Writer::new(out);
        writer.u8(version);
        Encoder { writer, known: HashMap::new(), omits_onions: false }
    }

    /// Where fields without a meaning of their own are written.
    pub(crate) const fn raw(&mut self) -> &mut Writer<'a> {
        &mut self.writer
    }

    /// Has the onions of HTLCs left out from here on, or not.
    pub(crate) const fn omit_onions(&mut self, omit: bool) {
        self.omits_onions = omit;
    }

    /// Whether onions are left out.
    pub(crate) const fn omits_onions(&self) -> bool {
        self.omits_onions
    }

    /// Bytes behind their length.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.writer.bigsize(bytes.len() as u64);
        self.writer.bytes(bytes);
    }

    /// A list behind its length.
    pub(crate) fn list<'b, T: Durable + 'b>(&mut self, list: impl ExactSizeIterator<Item = &'b T>) {
        self.writer.bigsize(list.len() as u64);
        list.for_each(|element| element.write(self));
    }

    /// An id or hash that may come again.
    pub(crate) fn shared(&mut self, id: &[u8; 32]) {
        let next = self.known.len() as u64 + 1;
        let reference = *self.known.entry(*id).or_insert(next);
        if reference == next {
            self.writer.u8(0);
            self.writer.bytes(id);
        } else {
            self.writer.bigsize(reference);
        }
    }
}

/// Reads values.
#[derive(Debug)]
pub(crate) struct Decoder<'a> {
    reader: Reader<'a>,
    known: Vec<[u8; 32]>,
}

impl<'a> Decoder<'a> {
    /// Reads `bytes`, which begin with a version; `what` names the kind of thing in errors.
    pub(crate) fn new(bytes: &'a [u8], what: &'static str, version: u8) -> Result<Decoder<'a>, RecordError> {
        let mut reader = Reader::new(bytes);
        match reader.u8()? {
            found if found == version => Ok(Decoder { reader, known: Vec::new() }),
            found => Err(RecordError::Version { what, found, known: version }),
        }
    }

    /// Where fields without a meaning of their own are read.
    pub(crate) const fn raw(&mut self) -> &mut Reader<'a> {
        &mut self.reader
    }

    /// Where the next byte is.
    pub(crate) const fn offset(&self) -> usize {
        self.reader.offset()
    }

    /// Whether every byte was read.
    pub(crate) const fn is_empty(&self) -> bool {
        self.reader.is_empty()
    }

    /// The error for parts that contradict each other; the last of them ends here.
    pub(crate) const fn inconsistent(&self, what: &'static str) -> RecordError {
        RecordError::Inconsistent { offset: self.offset(), what }
    }

    /// Bytes behind their length.
    pub(crate) fn bytes(&mut self) -> Result<&'a [u8], RecordError> {
        let length = self.reader.bigsize()?;
        Ok(self.reader.bytes(length)?)
    }

    /// A list behind its length. Room is made as elements are read: the length is not to be trusted.
    pub(crate) fn list<T: Durable>(&mut self) -> Result<Vec<T>, RecordError> {
        let mut list = Vec::new();
        for _ in 0..self.reader.bigsize()? {
            list.push(T::read(self)?);
        }
        Ok(list)
    }

    /// An id or hash that may have come before.
    pub(crate) fn shared(&mut self) -> Result<[u8; 32], RecordError> {
        let offset = self.offset();
        let reference = self.reader.bigsize()?;
        if reference == 0 {
            let id = self.reader.array()?;
            self.known.push(id);
            return Ok(id);
        }
        let index = usize::try_from(reference - 1).ok();
        index.and_then(|index| self.known.get(index)).copied().ok_or(RecordError::UnknownReference {
            offset,
            reference,
            known: self.known.len(),
        })
    }

    /// A number up to `max`.
    pub(crate) fn number(&mut self, max: u64) -> Result<u64, RecordError> {
        let offset = self.offset();
        match self.reader.bigsize()? {
            value if value > max => Err(RecordError::OutOfRange { offset, value, max }),
            value => Ok(value),
        }
    }

    /// The byte that selects the variant that follows.
    pub(crate) fn tag(&mut self) -> Result<(usize, u8), RecordError> {
        Ok((self.offset(), self.reader.u8()?))
    }
}

/// Implements [`Durable`] for structs: their fields in this order.
macro_rules! durable_struct {
    ($($name:ident { $($field:ident),* $(,)? })*) => {
        $(impl $crate::durable::Durable for $name {
            fn write(&self, out: &mut $crate::durable::Encoder<'_>) {
                $($crate::durable::Durable::write(&self.$field, out);)*
            }

            fn read(
                input: &mut $crate::durable::Decoder<'_>,
            ) -> Result<Self, $crate::durable::RecordError> {
                Ok($name { $($field: $crate::durable::Durable::read(input)?,)* })
            }

            #[cfg(test)]
            fn sample(sampler: &mut $crate::durable::sample::Sampler) -> Self {
                $name { $($field: $crate::durable::Durable::sample(sampler),)* }
            }
        })*
    };
}

/// Implements [`Durable`] for an enum: a byte for the variant, then its fields in this order.
macro_rules! durable_enum {
    ($name:ident, $what:literal {
        $($tag:literal => $variant:ident $(( $($part:ident),* ))? $({ $($field:ident),* $(,)? })?,)*
    }) => {
        impl $crate::durable::Durable for $name {
            fn write(&self, out: &mut $crate::durable::Encoder<'_>) {
                match self {
                    $($name::$variant $(( $($part),* ))? $({ $($field),* })? => {
                        out.raw().u8($tag);
                        $($($crate::durable::Durable::write($part, out);)*)?
                        $($($crate::durable::Durable::write($field, out);)*)?
                    })*
                }
            }

            fn read(
                input: &mut $crate::durable::Decoder<'_>,
            ) -> Result<Self, $crate::durable::RecordError> {
                match input.tag()? {
                    $((_, $tag) => {
                        $($(let $part = $crate::durable::Durable::read(input)?;)*)?
                        $($(let $field = $crate::durable::Durable::read(input)?;)*)?
                        Ok($name::$variant $(( $($part),* ))? $({ $($field),* })?)
                    })*
                    (offset, tag) => {
                        Err($crate::durable::RecordError::UnknownTag { offset, what: $what, tag })
                    }
                }
            }

            #[cfg(test)]
            fn sample(sampler: &mut $crate::durable::sample::Sampler) -> Self {
                let samplers: &[fn(&mut $crate::durable::sample::Sampler) -> Self] = &[$(|_sampler| {
                    $($(let $part = $crate::durable::Durable::sample(_sampler);)*)?
                    $($(let $field = $crate::durable::Durable::sample(_sampler);)*)?
                    $name::$variant $(( $($part),* ))? $({ $($field),* })?
                },)*];
                samplers[sampler.below(samplers.len())](sampler)
            }
        }
    };
}

pub(crate) use {durable_enum, durable_struct};
