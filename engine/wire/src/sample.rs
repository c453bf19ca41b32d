//! Random values of every type a message contains, for tests.
//!
//! Owns: [`Sampler`], a seeded generator; [`Sample`] and [`Described`], which `message!` implements for messages.
//! Values near the limits, where encodings change, are frequent.

use crate::addresses::NodeAddresses;
use crate::codec::Writer;
use crate::features::Features;
use crate::message::{
    ATTRIBUTION_HMACS, ATTRIBUTION_HOPS, AttributionData, ChannelUpdateChecksums, ChannelUpdateTimestamps,
    FeeRange, FundingRetransmission, QueryFlags, QueryOption,
};
use crate::onion::OnionPacket;
use crate::tlv::UnknownTlvs;
use crate::units::{
    BlockHeight, ChainHash, ChannelId, CltvDelta, FeeBaseMsat, FeeProportionalMillionths, FeeratePerKw, Msat,
    NodeId, PaymentHash, PaymentPreimage, Point, Sat, Scid, Signature, Txid,
};

/// A stream of numbers that its seed determines (SplitMix64).
pub(crate) struct Sampler(pub(crate) u64);

impl Sampler {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    pub(crate) fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    /// How long a list is: usually short, often empty.
    fn length(&mut self) -> usize {
        match self.below(4) {
            0 => 0,
            1 => self.below(300),
            _ => self.below(12),
        }
    }
}

/// The fields and records of a message in order, for comparison with the BOLTs.
pub(crate) struct Layout {
    /// Each field's name and bytes.
    pub(crate) fields: Vec<(&'static str, Vec<u8>)>,
    /// Each known TLV record's type and name, and its value when there is one.
    pub(crate) tlvs: Vec<(u64, &'static str, Option<Vec<u8>>)>,
}

/// A message with a layout; `message!` implements it.
pub(crate) trait Described {
    fn layout(&self) -> Layout;
}

/// The bytes that `write` writes.
pub(crate) fn written(write: impl FnOnce(&mut Writer<'_>)) -> Vec<u8> {
    let mut bytes = Vec::new();
    write(&mut Writer::new(&mut bytes));
    bytes
}

/// A type with random values.
pub(crate) trait Sample {
    fn sample(sampler: &mut Sampler) -> Self;
}

impl Sample for u64 {
    /// A number of a random width, so that every length of every encoding comes up.
    fn sample(sampler: &mut Sampler) -> u64 {
        let width = sampler.below(65) as u32;
        let number = sampler.next().checked_shr(64 - width).unwrap_or(0);
        if sampler.below(8) == 0 { u64::MAX.checked_shr(64 - width).unwrap_or(0) } else { number }
    }
}

impl Sample for bool {
    fn sample(sampler: &mut Sampler) -> bool {
        sampler.below(2) == 0
    }
}

macro_rules! sample_integer {
    ($($type:ty),*) => {
        $(impl Sample for $type {
            fn sample(sampler: &mut Sampler) -> $type {
                let number = u64::sample(sampler);
                <$type>::try_from(number).unwrap_or(number as $type)
            }
        })*
    };
}

sample_integer!(u8, u16, u32);

macro_rules! sample_wrapper {
    ($($type:ident),*) => {
        $(impl Sample for $type {
            fn sample(sampler: &mut Sampler) -> $type {
                $type(Sample::sample(sampler))
            }
        })*
    };
}

sample_wrapper!(
    Msat,
    Sat,
    BlockHeight,
    CltvDelta,
    FeeratePerKw,
    FeeBaseMsat,
    FeeProportionalMillionths,
    Scid,
    ChannelId,
    ChainHash,
    Txid,
    PaymentHash,
    PaymentPreimage,
    Signature,
    QueryFlags,
    QueryOption
);

impl<const N: usize> Sample for [u8; N] {
    fn sample(sampler: &mut Sampler) -> [u8; N] {
        core::array::from_fn(|_| sampler.next() as u8)
    }
}

impl Sample for Point {
    fn sample(sampler: &mut Sampler) -> Point {
        let mut bytes = <[u8; 33]>::sample(sampler);
        bytes[0] = 2 | bytes[0] & 1;
        Point(bytes)
    }
}

impl Sample for NodeId {
    fn sample(sampler: &mut Sampler) -> NodeId {
        NodeId(Point::sample(sampler).0)
    }
}

impl<T: Sample> Sample for Box<T> {
    fn sample(sampler: &mut Sampler) -> Box<T> {
        Box::new(T::sample(sampler))
    }
}

impl<T: Sample> Sample for Option<T> {
    fn sample(sampler: &mut Sampler) -> Option<T> {
        bool::sample(sampler).then(|| T::sample(sampler))
    }
}

impl<T: Sample> Sample for Vec<T> {
    fn sample(sampler: &mut Sampler) -> Vec<T> {
        (0..sampler.length()).map(|_| T::sample(sampler)).collect()
    }
}

impl Sample for Features {
    fn sample(sampler: &mut Sampler) -> Features {
        Features::from_bytes(&Vec::sample(sampler))
    }
}

impl Sample for OnionPacket {
    fn sample(sampler: &mut Sampler) -> OnionPacket {
        OnionPacket::from_bytes(Sample::sample(sampler))
    }
}

impl Sample for NodeAddresses {
    fn sample(sampler: &mut Sampler) -> NodeAddresses {
        let mut bytes = Vec::new();
        for _ in 0..sampler.below(6) {
            let kind = sampler.below(5) as u8 + 1;
            let length = match kind {
                1 => 6,
                2 => 18,
                3 => 12,
                4 => 37,
                _ => sampler.below(256) + 2,
            };
            bytes.push(kind);
            if kind == 5 {
                bytes.push((length - 2) as u8);
            }
            bytes.extend((0..length).map(|_| sampler.next() as u8));
        }
        if bool::sample(sampler) {
            bytes.push(6 + sampler.below(250) as u8);
            bytes.extend(Vec::<u8>::sample(sampler));
        }
        NodeAddresses::from_bytes(&bytes).expect("known descriptors are whole")
    }
}

impl Sample for UnknownTlvs {
    fn sample(sampler: &mut Sampler) -> UnknownTlvs {
        let mut unknown = UnknownTlvs::default();
        // Types below 16 may be known to the message.
        let mut tlv_type = 17;
        for _ in 0..sampler.below(4) {
            unknown.push(tlv_type, &Vec::sample(sampler)).expect("types rise and are odd");
            // Small enough that a few of them stay below the largest type.
            tlv_type += 2 + u64::sample(sampler) / 16 * 2;
        }
        unknown
    }
}

impl Sample for FeeRange {
    fn sample(sampler: &mut Sampler) -> FeeRange {
        FeeRange { min_fee_satoshis: Sample::sample(sampler), max_fee_satoshis: Sample::sample(sampler) }
    }
}

impl Sample for FundingRetransmission {
    fn sample(sampler: &mut Sampler) -> FundingRetransmission {
        FundingRetransmission { txid: Sample::sample(sampler), retransmit_flags: Sample::sample(sampler) }
    }
}

impl Sample for AttributionData {
    fn sample(sampler: &mut Sampler) -> AttributionData {
        let mut data = AttributionData {
            htlc_hold_times: [0; ATTRIBUTION_HOPS],
            truncated_hmacs: [[0; 4]; ATTRIBUTION_HMACS],
        };
        data.htlc_hold_times.fill_with(|| Sample::sample(sampler));
        data.truncated_hmacs.fill_with(|| Sample::sample(sampler));
        data
    }
}

impl Sample for ChannelUpdateTimestamps {
    fn sample(sampler: &mut Sampler) -> ChannelUpdateTimestamps {
        ChannelUpdateTimestamps {
            timestamp_node_id_1: Sample::sample(sampler),
            timestamp_node_id_2: Sample::sample(sampler),
        }
    }
}

impl Sample for ChannelUpdateChecksums {
    fn sample(sampler: &mut Sampler) -> ChannelUpdateChecksums {
        ChannelUpdateChecksums {
            checksum_node_id_1: Sample::sample(sampler),
            checksum_node_id_2: Sample::sample(sampler),
        }
    }
}
