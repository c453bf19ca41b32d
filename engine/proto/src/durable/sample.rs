//! Any durable value, for tests: drawn from a seed, so that a failure can be repeated.
//!
//! Owns: the draws that the implementations of [`Durable`](super::Durable) share. Numbers are drawn by length, so that
//! every form of a `bigsize` is met; ids from a few, so that references are.

use bitcoin::hashes::Hash;
use bitcoin::{
    Amount, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Witness, absolute, transaction,
};
use fulmen_wire::addresses::NodeAddresses;
use fulmen_wire::features::Features;
use fulmen_wire::message::{AcceptChannel, ChannelUpdate, NodeAnnouncement, OpenChannel};
use fulmen_wire::tlv::UnknownTlvs;
use fulmen_wire::units::{FeeBaseMsat, FeeProportionalMillionths, Point};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use super::Durable;
use crate::keys::{NodeSeed, secp, to_point};

/// Where draws come from.
pub(crate) struct Sampler(ChaCha8Rng);

impl Sampler {
    pub(crate) fn new(seed: u64) -> Sampler {
        Sampler(ChaCha8Rng::seed_from_u64(seed))
    }

    /// A number below `end`.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        (self.0.next_u64() % end as u64) as usize
    }

    /// A number of any length up to `max`.
    pub(crate) fn number(&mut self, max: u64) -> u64 {
        let shift = self.below(64) as u32;
        (self.0.next_u64() >> shift).min(max)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.0.fill_bytes(&mut bytes);
        bytes
    }

    /// Up to `most` bytes.
    pub(crate) fn bytes(&mut self, most: usize) -> Vec<u8> {
        let mut bytes = vec![0; self.below(most + 1)];
        self.0.fill_bytes(&mut bytes);
        bytes
    }

    /// One of a few ids, or a new one.
    pub(crate) fn shared(&mut self) -> [u8; 32] {
        if self.below(2) == 0 { [self.below(4) as u8; 32] } else { self.array() }
    }

    /// A point of the curve.
    pub(crate) fn point(&mut self) -> Point {
        let seed = NodeSeed::new([self.below(16) as u8; 32]);
        to_point(&seed.key(b"sample", 0).public_key(secp()))
    }
}

pub(super) fn transaction(sampler: &mut Sampler) -> Transaction {
    let input = |sampler: &mut Sampler| TxIn {
        previous_output: OutPoint {
            txid: bitcoin::Txid::from_byte_array(sampler.array()),
            vout: u32::sample(sampler),
        },
        script_sig: ScriptBuf::new(),
        sequence: Sequence(u32::sample(sampler)),
        witness: Witness::from_slice(&[sampler.bytes(72), sampler.bytes(33)]),
    };
    let output = |sampler: &mut Sampler| TxOut {
        value: Amount::from_sat(u64::sample(sampler)),
        script_pubkey: ScriptBuf::from(sampler.bytes(34)),
    };
    Transaction {
        version: transaction::Version::TWO,
        lock_time: absolute::LockTime::from_consensus(u32::sample(sampler)),
        input: (0..=sampler.below(2)).map(|_| input(sampler)).collect(),
        output: (0..=sampler.below(2)).map(|_| output(sampler)).collect(),
    }
}

pub(super) fn open_channel(sampler: &mut Sampler) -> OpenChannel {
    OpenChannel {
        chain_hash: Durable::sample(sampler),
        temporary_channel_id: Durable::sample(sampler),
        funding_satoshis: Durable::sample(sampler),
        push_msat: Durable::sample(sampler),
        dust_limit_satoshis: Durable::sample(sampler),
        max_htlc_value_in_flight_msat: Durable::sample(sampler),
        channel_reserve_satoshis: Durable::sample(sampler),
        htlc_minimum_msat: Durable::sample(sampler),
        feerate_per_kw: Durable::sample(sampler),
        to_self_delay: Durable::sample(sampler),
        max_accepted_htlcs: Durable::sample(sampler),
        funding_pubkey: sampler.point(),
        revocation_basepoint: sampler.point(),
        payment_basepoint: sampler.point(),
        delayed_payment_basepoint: sampler.point(),
        htlc_basepoint: sampler.point(),
        first_per_commitment_point: sampler.point(),
        channel_flags: sampler.below(256) as u8,
        upfront_shutdown_script: Durable::sample(sampler),
        channel_type: bool::sample(sampler).then(Features::channel_type_anchors),
        unknown: UnknownTlvs::default(),
    }
}

pub(super) fn accept_channel(sampler: &mut Sampler) -> AcceptChannel {
    AcceptChannel {
        temporary_channel_id: Durable::sample(sampler),
        dust_limit_satoshis: Durable::sample(sampler),
        max_htlc_value_in_flight_msat: Durable::sample(sampler),
        channel_reserve_satoshis: Durable::sample(sampler),
        htlc_minimum_msat: Durable::sample(sampler),
        minimum_depth: Durable::sample(sampler),
        to_self_delay: Durable::sample(sampler),
        max_accepted_htlcs: Durable::sample(sampler),
        funding_pubkey: sampler.point(),
        revocation_basepoint: sampler.point(),
        payment_basepoint: sampler.point(),
        delayed_payment_basepoint: sampler.point(),
        htlc_basepoint: sampler.point(),
        first_per_commitment_point: sampler.point(),
        upfront_shutdown_script: Durable::sample(sampler),
        channel_type: bool::sample(sampler).then(Features::channel_type_anchors),
        unknown: UnknownTlvs::default(),
    }
}

pub(super) fn channel_update(sampler: &mut Sampler) -> ChannelUpdate {
    ChannelUpdate {
        signature: Durable::sample(sampler),
        chain_hash: Durable::sample(sampler),
        short_channel_id: Durable::sample(sampler),
        timestamp: Durable::sample(sampler),
        message_flags: sampler.below(256) as u8,
        channel_flags: sampler.below(256) as u8,
        cltv_expiry_delta: Durable::sample(sampler),
        htlc_minimum_msat: Durable::sample(sampler),
        fee_base_msat: FeeBaseMsat(Durable::sample(sampler)),
        fee_proportional_millionths: FeeProportionalMillionths(Durable::sample(sampler)),
        htlc_maximum_msat: Durable::sample(sampler),
        extension: sampler.bytes(8),
    }
}

pub(super) fn node_announcement(sampler: &mut Sampler) -> NodeAnnouncement {
    NodeAnnouncement {
        signature: Durable::sample(sampler),
        features: Features::channel_type_anchors(),
        timestamp: Durable::sample(sampler),
        node_id: Durable::sample(sampler),
        rgb_color: sampler.array(),
        alias: sampler.array(),
        addresses: NodeAddresses::default(),
        extension: sampler.bytes(8),
    }
}
