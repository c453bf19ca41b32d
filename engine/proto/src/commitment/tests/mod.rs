//! Tests of the commitment module: BOLT 3's vectors, properties, and the spends against Bitcoin's digests.

mod properties;
mod spends;
mod vectors;

use bitcoin::{OutPoint, Transaction};
use fulmen_wire::units::{BlockHeight, CltvDelta, Msat, PaymentHash, Sat};
use secp256k1::SecretKey;

use super::{ChannelType, CommitmentHtlc, CommitmentParams, HtlcDirection, funding_script, obscure_factor};
use crate::keys::{ChannelSecrets, CommitmentKeys, CommitmentNumber, NodeSeed};

/// A channel of two sides made up of seeds; local opened it.
struct Channel {
    local: ChannelSecrets,
    remote: ChannelSecrets,
    params: CommitmentParams,
}

impl Channel {
    fn new(channel_type: ChannelType) -> Channel {
        let local = ChannelSecrets::derive(&NodeSeed::new([1; 32]), 0);
        let remote = ChannelSecrets::derive(&NodeSeed::new([2; 32]), 0);
        let (ours, theirs) = (*local.basepoints(), *remote.basepoints());
        let params = CommitmentParams {
            channel_type,
            funding_outpoint: OutPoint { txid: empty_tx().compute_txid(), vout: 3 },
            funding_amount: Sat(1_000_000),
            local_funding_pubkey: ours.funding,
            remote_funding_pubkey: theirs.funding,
            local_is_opener: true,
            dust_limit: Sat(354),
            to_self_delay: CltvDelta(144),
            obscure_factor: obscure_factor(&ours.payment, &theirs.payment),
            funding_script: funding_script(&ours.funding, &theirs.funding),
        };
        Channel { local, remote, params }
    }

    fn keys(&self, number: CommitmentNumber) -> CommitmentKeys {
        let point = self.local.per_commitment_point(number);
        CommitmentKeys::derive(self.local.basepoints(), self.remote.basepoints(), point)
    }
}

fn empty_tx() -> Transaction {
    Transaction {
        version: bitcoin::transaction::Version::TWO,
        lock_time: bitcoin::absolute::LockTime::ZERO,
        input: Vec::new(),
        output: Vec::new(),
    }
}

fn htlc(id: u64, direction: HtlcDirection, amount: Msat) -> CommitmentHtlc {
    CommitmentHtlc {
        id,
        direction,
        amount,
        payment_hash: PaymentHash([id as u8; 32]),
        cltv_expiry: BlockHeight(500),
    }
}

fn secret(hex: &str) -> SecretKey {
    hex.parse().unwrap()
}
