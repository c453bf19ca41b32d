//! The byte forms of numbers, units, ids and types of other crates.
//!
//! Owns: one implementation of [`Durable`] a type, both directions side by side. Invariant: a point is not checked to
//! be on the curve; the type that keeps it parsed does that.

use bitcoin::hashes::Hash;
use bitcoin::{OutPoint, Transaction};
use fulmen_wire::message::{AcceptChannel, ChannelUpdate, Message, NodeAnnouncement, OpenChannel};
use fulmen_wire::onion::OnionPacket;
use fulmen_wire::units::{
    BlockHeight, ChainHash, ChannelId, CltvDelta, FeeratePerKw, Msat, NodeId, PaymentHash, PaymentPreimage,
    PaymentSecret, Point, Sat, Scid, Signature,
};
use secp256k1::PublicKey;

#[cfg(test)]
use super::sample::{self, Sampler};
use super::{Decoder, Durable, Encoder, RecordError};
use crate::commitment::ChannelType;
use crate::keys::CommitmentNumber;
use crate::onion::{Failure, ReplayTag, SharedSecret};

/// Numbers, as `bigsize`s.
macro_rules! numbers {
    ($($type:ty),*) => {
        $(impl Durable for $type {
            fn write(&self, out: &mut Encoder<'_>) {
                out.raw().bigsize(u64::from(*self));
            }

            fn read(input: &mut Decoder<'_>) -> Result<Self, RecordError> {
                let value = input.number(u64::from(<$type>::MAX))?;
                Ok(<$type>::try_from(value).expect("at most the type's largest"))
            }

            #[cfg(test)]
            fn sample(sampler: &mut Sampler) -> Self {
                sampler.number(u64::from(<$type>::MAX)) as $type
            }
        })*
    };
}

numbers!(u16, u32, u64);

/// Newtypes, written as their content.
macro_rules! wrappers {
    ($($type:ident),*) => {
        $(impl Durable for $type {
            fn write(&self, out: &mut Encoder<'_>) {
                self.0.write(out);
            }

            fn read(input: &mut Decoder<'_>) -> Result<Self, RecordError> {
                Durable::read(input).map($type)
            }

            #[cfg(test)]
            fn sample(sampler: &mut Sampler) -> Self {
                $type(Durable::sample(sampler))
            }
        })*
    };
}

wrappers!(
    Msat,
    Sat,
    BlockHeight,
    CltvDelta,
    FeeratePerKw,
    CommitmentNumber,
    ReplayTag,
    Signature,
    ChainHash,
    PaymentSecret
);

/// Bytes of a fixed number.
impl<const N: usize> Durable for [u8; N] {
    fn write(&self, out: &mut Encoder<'_>) {
        out.raw().bytes(self);
    }

    fn read(input: &mut Decoder<'_>) -> Result<Self, RecordError> {
        Ok(input.raw().array()?)
    }

    #[cfg(test)]
    fn sample(sampler: &mut Sampler) -> Self {
        sampler.array()
    }
}

/// Ids and hashes of 32 bytes, written out once a record.
macro_rules! shared {
    ($($type:ident),*) => {
        $(impl Durable for $type {
            fn write(&self, out: &mut Encoder<'_>) {
                out.shared(&self.0);
            }

            fn read(input: &mut Decoder<'_>) -> Result<Self, RecordError> {
                input.shared().map($type)
            }

            #[cfg(test)]
            fn sample(sampler: &mut Sampler) -> Self {
                $type(sampler.shared())
            }
        })*
    };
}

shared!(ChannelId, PaymentHash, PaymentPreimage);

/// Types that the BOLT 1 reader and writer have a method for, with their test samples.
macro_rules! fields {
    ($($type:ty: $method:ident, $write:expr, $sample:expr;)*) => {
        $(impl Durable for $type {
            fn write(&self, out: &mut Encoder<'_>) {
                let write: fn(&Self, &mut Encoder<'_>) = $write;
                write(self, out);
            }

            fn read(input: &mut Decoder<'_>) -> Result<Self, RecordError> {
                Ok(input.raw().$method()?.into())
            }

            #[cfg(test)]
            fn sample(sampler: &mut Sampler) -> Self {
                let sample: fn(&mut Sampler) -> Self = $sample;
                sample(sampler)
            }
        })*
    };
}

fields! {
    bool: bool, |value, out| out.raw().u8(u8::from(*value)), |sampler| sampler.below(2) == 1;
    Point: point, |value, out| out.raw().bytes(&value.0), Sampler::point;
    NodeId: node_id, |value, out| out.raw().bytes(&value.0), |sampler| NodeId(sampler.point().0);
}

/// The sign in the lowest bit, so that numbers near zero are short.
impl Durable for i32 {
    fn write(&self, out: &mut Encoder<'_>) {
        let folded = (self.cast_unsigned() << 1) ^ (*self >> 31).cast_unsigned();
        folded.write(out);
    }

    fn read(input: &mut Decoder<'_>) -> Result<Self, RecordError> {
        let folded = u32::read(input)?;
        Ok((folded >> 1).cast_signed() ^ -((folded & 1).cast_signed()))
    }

    #[cfg(test)]
    fn sample(sampler: &mut Sampler) -> Self {
        u32::sample(sampler).cast_signed()
    }
}

impl Durable for Scid {
    fn write(&self, out: &mut Encoder<'_>) {
        out.raw().u64(self.0);
    }

    fn read(input: &mut Decoder<'_>) -> Result<Self, RecordError> {
        Ok(Scid(input.raw().u64()?))
    }

    #[cfg(test)]
    fn sample(sampler: &mut Sampler) -> Self {
        Scid(sampler.number(u64::MAX))
    }
}

impl Durable for SharedSecret {
    fn write(&self, out: &mut Encoder<'_>) {
        self.to_bytes().write(out);
    }

    fn read(input: &mut Decoder<'_>) -> Result<Self, RecordError> {
        Durable::read(input).map(SharedSecret::from_bytes)
    }

    #[cfg(test)]
    fn sample(sampler: &mut Sampler) -> Self {
        SharedSecret::from_bytes(sampler.array())
    }
}

impl<T: Durable> Durable for Option<T> {
    fn write(&self, out: &mut Encoder<'_>) {
        out.raw().u8(u8::from(self.is_some()));
        if let Some(value) = self {
            value.write(out);
        }
    }

    fn read(input: &mut Decoder<'_>) -> Result<Self, RecordError> {
        if bool::read(input)? { T::read(input).map(Some) } else { Ok(None) }
    }

    #[cfg(test)]
    fn sample(sampler: &mut Sampler) -> Self {
        bool::sample(sampler).then(|| T::sample(sampler))
    }
}

impl Durable for OnionPacket {
    fn write(&self, out: &mut Encoder<'_>) {
        out.raw().bytes(self.as_bytes());
    }

    fn read(input: &mut Decoder<'_>) -> Result<Self, RecordError> {
        Durable::read(input).map(OnionPacket::from_bytes)
    }

    #[cfg(test)]
    fn sample(sampler: &mut Sampler) -> Self {
        OnionPacket::from_bytes(Durable::sample(sampler))
    }
}

impl<T: Durable> Durable for Box<T> {
    fn write(&self, out: &mut Encoder<'_>) {
        (**self).write(out);
    }

    fn read(input: &mut Decoder<'_>) -> Result<Self, RecordError> {
        T::read(input).map(Box::new)
    }

    #[cfg(test)]
    fn sample(sampler: &mut Sampler) -> Self {
        Box::new(T::sample(sampler))
    }
}

impl<A: Durable, B: Durable> Durable for (A, B) {
    fn write(&self, out: &mut Encoder<'_>) {
        self.0.write(out);
        self.1.write(out);
    }

    fn read(input: &mut Decoder<'_>) -> Result<Self, RecordError> {
        Ok((A::read(input)?, B::read(input)?))
    }

    #[cfg(test)]
    fn sample(sampler: &mut Sampler) -> Self {
        (A::sample(sampler), B::sample(sampler))
    }
}

impl Durable for Vec<u8> {
    fn write(&self, out: &mut Encoder<'_>) {
        out.bytes(self);
    }

    fn read(input: &mut Decoder<'_>) -> Result<Self, RecordError> {
        input.bytes().map(<[u8]>::to_vec)
    }

    #[cfg(test)]
    fn sample(sampler: &mut Sampler) -> Self {
        sampler.bytes(300)
    }
}

impl Durable for String {
    fn write(&self, out: &mut Encoder<'_>) {
        out.bytes(self.as_bytes());
    }

    fn read(input: &mut Decoder<'_>) -> Result<Self, RecordError> {
        let offset = input.offset();
        String::from_utf8(input.bytes()?.to_vec()).map_err(|_| RecordError::NotText { offset })
    }

    #[cfg(test)]
    fn sample(sampler: &mut Sampler) -> Self {
        "µ".repeat(sampler.below(40))
    }
}

impl Durable for Vec<Signature> {
    fn write(&self, out: &mut Encoder<'_>) {
        out.list(self.iter());
    }

    fn read(input: &mut Decoder<'_>) -> Result<Self, RecordError> {
        input.list()
    }

    #[cfg(test)]
    fn sample(sampler: &mut Sampler) -> Self {
        (0..sampler.below(4)).map(|_| Signature::sample(sampler)).collect()
    }
}

impl Durable for OutPoint {
    fn write(&self, out: &mut Encoder<'_>) {
        out.raw().bytes(&self.txid.to_byte_array());
        self.vout.write(out);
    }

    fn read(input: &mut Decoder<'_>) -> Result<Self, RecordError> {
        let txid = bitcoin::Txid::from_byte_array(input.raw().array()?);
        Ok(OutPoint { txid, vout: u32::read(input)? })
    }

    #[cfg(test)]
    fn sample(sampler: &mut Sampler) -> Self {
        let txid = bitcoin::Txid::from_byte_array(sampler.array());
        OutPoint { txid, vout: u32::sample(sampler) }
    }
}

impl Durable for Transaction {
    fn write(&self, out: &mut Encoder<'_>) {
        out.bytes(&bitcoin::consensus::serialize(self));
    }

    fn read(input: &mut Decoder<'_>) -> Result<Self, RecordError> {
        let offset = input.offset();
        bitcoin::consensus::deserialize(input.bytes()?).map_err(|_| RecordError::Transaction { offset })
    }

    #[cfg(test)]
    fn sample(sampler: &mut Sampler) -> Self {
        sample::transaction(sampler)
    }
}

/// Messages of the wire, type and all.
macro_rules! messages {
    ($($type:ident = $number:literal, $sample:path;)*) => {
        $(impl Durable for $type {
            fn write(&self, out: &mut Encoder<'_>) {
                out.bytes(&Message::$type(self.clone()).encode());
            }

            fn read(input: &mut Decoder<'_>) -> Result<Self, RecordError> {
                let offset = input.offset();
                match Message::decode(input.bytes()?) {
                    Ok(Message::$type(message)) => Ok(message),
                    _ => Err(RecordError::Message { offset, expected: $number }),
                }
            }

            #[cfg(test)]
            fn sample(sampler: &mut Sampler) -> Self {
                $sample(sampler)
            }
        })*
    };
}

messages! {
    OpenChannel = 32, sample::open_channel;
    AcceptChannel = 33, sample::accept_channel;
    NodeAnnouncement = 257, sample::node_announcement;
    ChannelUpdate = 258, sample::channel_update;
}

/// Both coordinates: reading a compressed point takes a square root, and a restart reads a dozen points per channel.
impl Durable for PublicKey {
    fn write(&self, out: &mut Encoder<'_>) {
        out.raw().bytes(&self.serialize_uncompressed()[1..]);
    }

    fn read(input: &mut Decoder<'_>) -> Result<Self, RecordError> {
        let offset = input.offset();
        let mut bytes = [4; 65];
        bytes[1..].copy_from_slice(&input.raw().array::<64>()?);
        PublicKey::from_slice(&bytes).map_err(|_| RecordError::NotOnCurve { offset, what: "a point" })
    }

    #[cfg(test)]
    fn sample(sampler: &mut Sampler) -> Self {
        PublicKey::from_slice(&sampler.point().0).expect("a point of the curve")
    }
}

impl Durable for ChannelType {
    fn write(&self, out: &mut Encoder<'_>) {
        out.raw().u8(match self {
            ChannelType::StaticRemotekey => 0,
            ChannelType::Anchors => 1,
        });
    }

    fn read(input: &mut Decoder<'_>) -> Result<Self, RecordError> {
        match input.tag()? {
            (_, 0) => Ok(ChannelType::StaticRemotekey),
            (_, 1) => Ok(ChannelType::Anchors),
            (offset, tag) => Err(RecordError::UnknownTag { offset, what: "channel type", tag }),
        }
    }

    #[cfg(test)]
    fn sample(sampler: &mut Sampler) -> Self {
        [ChannelType::StaticRemotekey, ChannelType::Anchors][sampler.below(2)]
    }
}

/// As BOLT 4 writes it; every byte string stands for one.
impl Durable for Failure {
    fn write(&self, out: &mut Encoder<'_>) {
        out.bytes(&self.encode());
    }

    fn read(input: &mut Decoder<'_>) -> Result<Self, RecordError> {
        input.bytes().map(Failure::decode)
    }

    #[cfg(test)]
    fn sample(sampler: &mut Sampler) -> Self {
        Failure::decode(&sampler.bytes(60))
    }
}
