//! How each type of a message's fields is written, and the macro that makes messages out of fields.
//!
//! Owns: [`Field`] (self-delimiting), [`TlvValue`] (a value that fills its TLV record), [`Payload`] (all of a message
//! after its type) and `message!`. The messages themselves are in [`crate::message`].
//!
//! Invariant: an encoded value decodes to itself, and decoded bytes encode to themselves; reading and writing a type
//! are therefore one impl.

use crate::codec::{DecodeError, Reader, Writer};
use crate::features::Features;
use crate::onion::OnionPacket;
use crate::units::{
    BlockHeight, ChainHash, ChannelId, CltvDelta, FeeBaseMsat, FeeProportionalMillionths, FeeratePerKw, Msat,
    NodeId, PaymentHash, PaymentPreimage, Point, Sat, Scid, Signature, Txid,
};

/// A field whose encoding is self-delimiting.
pub(crate) trait Field: Sized {
    /// Reads the field.
    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError>;
    /// Writes the field.
    fn write(&self, writer: &mut Writer<'_>);
}

/// A value that ends where its TLV record ends.
pub(crate) trait TlvValue: Sized {
    /// Reads the value. The caller refuses unread bytes.
    fn read_value(reader: &mut Reader<'_>) -> Result<Self, DecodeError>;
    /// Writes the value.
    fn write_value(&self, writer: &mut Writer<'_>);
}

/// All of a message after its type.
pub(crate) trait Payload: Sized {
    /// The message's type.
    const TYPE: u16;
    /// The message's name in the BOLTs.
    const NAME: &'static str;
    /// Reads all that is left.
    fn read_payload(reader: &mut Reader<'_>) -> Result<Self, DecodeError>;
    /// Writes everything after the type.
    fn write_payload(&self, writer: &mut Writer<'_>);
}

/// Implements [`Field`] by a method of the reader, a wrapper around its result, and a closure that writes.
macro_rules! field {
    ($($type:ty: $method:ident, $read:expr, $write:expr;)*) => {
        $(impl Field for $type {
            fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
                reader.$method().map($read)
            }

            fn write(&self, writer: &mut Writer<'_>) {
                let write: fn(&Self, &mut Writer<'_>) = $write;
                write(self, writer);
            }
        })*
    };
}

field! {
    u8: u8, |value| value, |value, writer| writer.u8(*value);
    u16: u16, |value| value, |value, writer| writer.u16(*value);
    u32: u32, |value| value, |value, writer| writer.u32(*value);
    u64: u64, |value| value, |value, writer| writer.u64(*value);
    bool: bool, |value| value, |value, writer| writer.u8(u8::from(*value));
    Msat: u64, Msat, |value, writer| writer.u64(value.0);
    Sat: u64, Sat, |value, writer| writer.u64(value.0);
    BlockHeight: u32, BlockHeight, |value, writer| writer.u32(value.0);
    CltvDelta: u16, CltvDelta, |value, writer| writer.u16(value.0);
    FeeratePerKw: u32, FeeratePerKw, |value, writer| writer.u32(value.0);
    FeeBaseMsat: u32, FeeBaseMsat, |value, writer| writer.u32(value.0);
    FeeProportionalMillionths: u32, FeeProportionalMillionths, |value, writer| writer.u32(value.0);
    Scid: u64, Scid, |value, writer| writer.u64(value.0);
    ChannelId: array, ChannelId, |value, writer| writer.bytes(&value.0);
    ChainHash: array, ChainHash, |value, writer| writer.bytes(&value.0);
    Txid: array, Txid, |value, writer| writer.bytes(&value.0);
    PaymentHash: array, PaymentHash, |value, writer| writer.bytes(&value.0);
    PaymentPreimage: array, PaymentPreimage, |value, writer| writer.bytes(&value.0);
    Point: point, |value| value, |value, writer| writer.bytes(&value.0);
    NodeId: node_id, |value| value, |value, writer| writer.bytes(&value.0);
    Signature: signature, |value| value, |value, writer| writer.bytes(&value.0);
    [u8; 3]: array, |value| value, |value, writer| writer.bytes(value);
    [u8; 32]: array, |value| value, |value, writer| writer.bytes(value);
    OnionPacket: array, |bytes| OnionPacket::from_bytes(Box::new(bytes)), |value, writer| writer.bytes(value.as_bytes());
    Vec<u8>: bytes_u16, |bytes| bytes.to_vec(), |value, writer| writer.bytes_u16(value);
    Features: bytes_u16, Features::from_bytes, |value, writer| writer.bytes_u16(value.as_bytes());
}

impl Field for Vec<Signature> {
    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let count = reader.u16()?;
        let mut signatures = reader.sub_reader(u64::from(count) * 64)?;
        let mut all = Vec::with_capacity(usize::from(count));
        while !signatures.is_empty() {
            all.push(signatures.signature()?);
        }
        Ok(all)
    }

    fn write(&self, writer: &mut Writer<'_>) {
        writer.u16(u16::try_from(self.len()).expect("a message has room for 1,023 signatures at most"));
        self.iter().for_each(|signature| signature.write(writer));
    }
}

/// Implements [`TlvValue`] for types whose [`Field`] form fills the record.
macro_rules! tlv_value_as_field {
    ($($type:ty),* $(,)?) => {
        $(impl TlvValue for $type {
            fn read_value(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
                Field::read(reader)
            }

            fn write_value(&self, writer: &mut Writer<'_>) {
                Field::write(self, writer);
            }
        })*
    };
}

tlv_value_as_field!(Point, Scid, Txid);

impl TlvValue for Vec<u8> {
    fn read_value(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(reader.take_rest().to_vec())
    }

    fn write_value(&self, writer: &mut Writer<'_>) {
        writer.bytes(self);
    }
}

impl TlvValue for Features {
    fn read_value(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Features::from_bytes(reader.take_rest()))
    }

    fn write_value(&self, writer: &mut Writer<'_>) {
        writer.bytes(self.as_bytes());
    }
}

/// Reads all that is left as elements of `SIZE` bytes each.
pub(crate) fn read_elements<T: Field, const SIZE: usize>(
    reader: &mut Reader<'_>,
) -> Result<Vec<T>, DecodeError> {
    let (offset, length) = (reader.offset(), reader.remaining());
    if length % SIZE != 0 {
        return Err(DecodeError::NotWholeElements { offset, length, element: SIZE });
    }
    let mut elements = Vec::with_capacity(length / SIZE);
    while !reader.is_empty() {
        elements.push(T::read(reader)?);
    }
    Ok(elements)
}

impl TlvValue for Vec<ChainHash> {
    fn read_value(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        read_elements::<ChainHash, 32>(reader)
    }

    fn write_value(&self, writer: &mut Writer<'_>) {
        self.iter().for_each(|chain| chain.write(writer));
    }
}

/// Declares a message: its fields in order, then one of two endings. With `tlvs`, the known TLV records become optional
/// fields and the unknown ones are kept in `unknown`. With `extension`, for signed announcements, all further bytes are
/// kept unparsed. `validate name` calls `name(offset)` on the decoded message.
macro_rules! message {
    (
        $(#[$doc:meta])*
        $name:ident = $number:literal, $bolt_name:literal {
            $($(#[$field_doc:meta])* $field:ident: $type:ty,)*
        }
        extension
    ) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct $name {
            $($(#[$field_doc])* pub $field: $type,)*
            /// The bytes after the fields: signed with them, so kept unchanged.
            pub extension: Vec<u8>,
        }

        impl crate::field::Payload for $name {
            const TYPE: u16 = $number;
            const NAME: &'static str = $bolt_name;

            fn read_payload(
                reader: &mut crate::codec::Reader<'_>,
            ) -> Result<Self, crate::codec::DecodeError> {
                Ok($name {
                    $($field: crate::field::Field::read(reader)?,)*
                    extension: reader.take_rest().to_vec(),
                })
            }

            fn write_payload(&self, writer: &mut crate::codec::Writer<'_>) {
                $(crate::field::Field::write(&self.$field, writer);)*
                writer.bytes(&self.extension);
            }
        }

        #[cfg(test)]
        impl crate::sample::Sample for $name {
            fn sample(sampler: &mut crate::sample::Sampler) -> Self {
                $name {
                    $($field: crate::sample::Sample::sample(sampler),)*
                    extension: crate::sample::Sample::sample(sampler),
                }
            }
        }

        #[cfg(test)]
        impl crate::sample::Described for $name {
            fn layout(&self) -> crate::sample::Layout {
                let fields = vec![$((
                    stringify!($field),
                    crate::sample::written(|writer| crate::field::Field::write(&self.$field, writer)),
                ),)*];
                crate::sample::Layout { fields, tlvs: Vec::new() }
            }
        }
    };
    (
        $(#[$doc:meta])*
        $name:ident = $number:literal, $bolt_name:literal {
            $($(#[$field_doc:meta])* $field:ident: $type:ty,)*
        }
        tlvs { $($(#[$tlv_doc:meta])* $tlv_type:literal => $tlv:ident: $value:ty,)* }
        $(validate $validate:ident)?
    ) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct $name {
            $($(#[$field_doc])* pub $field: $type,)*
            $($(#[$tlv_doc])* pub $tlv: Option<$value>,)*
            /// The odd TLV records that are not known here.
            pub unknown: crate::tlv::UnknownTlvs,
        }

        impl crate::field::Payload for $name {
            const TYPE: u16 = $number;
            const NAME: &'static str = $bolt_name;

            fn read_payload(
                reader: &mut crate::codec::Reader<'_>,
            ) -> Result<Self, crate::codec::DecodeError> {
                $(let $field = crate::field::Field::read(reader)?;)*
                $(let mut $tlv = None;)*
                let unknown = crate::tlv::read_stream(reader, |tlv_type, _value| match tlv_type {
                    $($tlv_type => {
                        $tlv = Some(crate::field::TlvValue::read_value(_value)?);
                        Ok(true)
                    })*
                    _ => Ok(false),
                })?;
                let message = $name { $($field,)* $($tlv,)* unknown };
                $(message.$validate(reader.offset())?;)?
                Ok(message)
            }

            fn write_payload(&self, writer: &mut crate::codec::Writer<'_>) {
                $(crate::field::Field::write(&self.$field, writer);)*
                #[allow(unused_mut, reason = "a message without TLV records writes none")]
                let mut stream = crate::tlv::StreamWriter::new(writer, &self.unknown);
                $(stream.optional($tlv_type, self.$tlv.as_ref(), crate::field::TlvValue::write_value);)*
                stream.finish();
            }
        }

        #[cfg(test)]
        impl crate::sample::Sample for $name {
            fn sample(sampler: &mut crate::sample::Sampler) -> Self {
                $name {
                    $($field: crate::sample::Sample::sample(sampler),)*
                    $($tlv: crate::sample::Sample::sample(sampler),)*
                    unknown: crate::sample::Sample::sample(sampler),
                }
            }
        }

        #[cfg(test)]
        impl crate::sample::Described for $name {
            fn layout(&self) -> crate::sample::Layout {
                let fields = vec![$((
                    stringify!($field),
                    crate::sample::written(|writer| crate::field::Field::write(&self.$field, writer)),
                ),)*];
                let tlvs = vec![$((
                    $tlv_type,
                    stringify!($tlv),
                    self.$tlv.as_ref().map(|value| {
                        crate::sample::written(|writer| crate::field::TlvValue::write_value(value, writer))
                    }),
                ),)*];
                crate::sample::Layout { fields, tlvs }
            }
        }
    };
}

pub(crate) use message;
