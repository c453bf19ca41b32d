//! Throughput: forwards per second by the runtime, in memory and durable, by depth and workers; onions; commitments.
//!
//! Owns the group `throughput`. The forwarder is the production engine on its threads; its peers are a recording,
//! which takes next to no processor (see `fulmen_bench::transcript`). Non-dust HTLCs, anchors; every pair of payer
//! and payee has its share of the depth in flight, in waves. `durable` writes to a directory below `target`, synced.

use std::hint::black_box;
use std::time::Duration;

use bitcoin::OutPoint;
use bitcoin::hashes::Hash;
use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};
use fulmen_bench::is_measuring;
use fulmen_bench::transcript::{Played, Setup, Transcript};
use fulmen_proto::commitment::{
    ChannelType, CommitmentHtlc, CommitmentParams, CommitmentSpec, CommitmentTx, HtlcDirection,
    funding_script,
};
use fulmen_proto::keys::{CommitmentKeys, CommitmentNumber, sign};
use fulmen_proto::onion::{PeelJob, peel_batch};
use fulmen_proto::payment::{OutgoingPayment, Recipient, RouteHop};
use fulmen_wire::units::{
    BlockHeight, CltvDelta, FeeratePerKw, Msat, NodeId, PaymentHash, PaymentPreimage, Sat, Scid,
};
use secp256k1::{Secp256k1, SecretKey};

/// Pairs, HTLCs that each has in flight, and rounds, by depth.
const DEPTHS: [(usize, u64, u64); 4] = [(1, 1, 40), (5, 2, 20), (10, 10, 4), (10, 40, 2)];
/// Onions peeled at once, and HTLCs in a commitment.
const BATCH: usize = 100;

fn throughput(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("throughput");
    group.sample_size(10);
    for workers in [1, 2] {
        for (pairs, each, rounds) in DEPTHS {
            let depth = pairs as u64 * each;
            let (pairs, each, rounds) =
                if is_measuring() { (pairs, each, rounds) } else { (pairs.min(2), 2, 1) };
            let transcript = Transcript::record(workers, pairs, each, rounds);
            forwards(&mut group, &transcript, workers, depth);
        }
    }
    onions(&mut group);
    commitments(&mut group);
    group.finish();
}

fn forwards(group: &mut BenchmarkGroup<'_, WallTime>, transcript: &Transcript, workers: usize, depth: u64) {
    group.throughput(Throughput::Elements(transcript.forwards()));
    for durable in [false, true] {
        let mut last = None;
        let store = if durable { "durable" } else { "memory" };
        group.bench_function(format!("forwards/{store}/{depth} in flight/{workers} workers"), |bencher| {
            bencher.iter_custom(|rounds| {
                let played = (0..rounds).map(|_| play(transcript, workers, durable));
                played.fold(Duration::ZERO, |sum, played| {
                    let took = played.took;
                    last = Some(played);
                    sum + took
                })
            });
        });
        if let Some(Played { stats, .. }) = last {
            let each = |of: u64| of as f64 / transcript.forwards() as f64;
            println!(
                "  {:.3} syncs and {:.0} bytes a forward, {:?} from input to effect (median)",
                each(stats.store.syncs),
                each(stats.store.record_bytes),
                stats.latency.quantile(0.5)
            );
        }
    }
}

fn play(transcript: &Transcript, workers: usize, durable: bool) -> Played {
    if !durable {
        return transcript.play(Setup { workers, directory: None });
    }
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("below target there is room");
    transcript.play(Setup { workers, directory: Some(directory.path()) })
}

fn onions(group: &mut BenchmarkGroup<'_, WallTime>) {
    let secp = Secp256k1::new();
    let key = |index: u8| SecretKey::from_slice(&[index; 32]).expect("a scalar");
    let hop = |index: u8| RouteHop {
        node_id: NodeId(key(index).public_key(&secp).serialize()),
        short_channel_id: Scid(u64::from(index) << 40),
        amount: Msat(1_000_000),
        cltv_expiry: BlockHeight(900_000),
    };
    let hash = PaymentHash([0x42; 32]);
    let recipient = Recipient { keysend_preimage: Some(PaymentPreimage([0x43; 32])), ..Recipient::default() };
    let packets: Vec<_> = (0..BATCH)
        .map(|number| {
            let mut session_key = [0x11; 32];
            session_key[..8].copy_from_slice(&(number as u64).to_be_bytes());
            let session_key = SecretKey::from_slice(&session_key).expect("a scalar");
            let payment = OutgoingPayment::new(&session_key, hash, &[hop(1), hop(2)], &recipient);
            payment.expect("two hops fit").packet
        })
        .collect();
    let jobs: Vec<PeelJob<'_>> =
        packets.iter().map(|packet| PeelJob { packet, associated_data: &hash.0 }).collect();
    let node_key = key(1);
    assert!(peel_batch(&node_key, &jobs).iter().all(Result::is_ok));
    group.throughput(Throughput::Elements(BATCH as u64));
    group.bench_function("onions", |bencher| bencher.iter(|| peel_batch(black_box(&node_key), &jobs)));
}

/// Commitments of a hundred HTLCs, built and signed.
fn commitments(group: &mut BenchmarkGroup<'_, WallTime>) {
    let secp = Secp256k1::new();
    let key = |index: u8| SecretKey::from_slice(&[index; 32]).expect("a scalar").public_key(&secp);
    let funding_script = funding_script(&key(1), &key(2));
    let params = CommitmentParams {
        channel_type: ChannelType::Anchors,
        funding_outpoint: OutPoint::new(bitcoin::Txid::from_byte_array([9; 32]), 0),
        funding_amount: Sat(10_000_000),
        local_funding_pubkey: key(1),
        remote_funding_pubkey: key(2),
        local_is_opener: true,
        dust_limit: Sat(354),
        to_self_delay: CltvDelta(144),
        obscure_factor: 0,
        funding_script,
    };
    let keys = CommitmentKeys {
        per_commitment_point: key(3),
        revocation_pubkey: key(4),
        local_delayed_pubkey: key(5),
        local_htlc_pubkey: key(6),
        remote_htlc_pubkey: key(7),
        remote_pubkey: key(8),
    };
    let htlc = |id: u64| CommitmentHtlc {
        id,
        direction: HtlcDirection::Offered,
        amount: Msat(1_000_000),
        payment_hash: PaymentHash([id as u8; 32]),
        cltv_expiry: BlockHeight(900_000),
    };
    let spec = CommitmentSpec {
        to_local: Msat(5_000_000_000),
        to_remote: Msat(5_000_000_000 - BATCH as u64 * 1_000_000),
        feerate: FeeratePerKw(1_000),
        htlcs: (0..BATCH as u64).map(htlc).collect(),
    };
    let secret = SecretKey::from_slice(&[6; 32]).expect("a scalar");
    group.throughput(Throughput::Elements(1));
    group.bench_function(format!("commitments of {BATCH} HTLCs, built and signed"), |bencher| {
        bencher.iter(|| {
            let number = CommitmentNumber::FIRST;
            let built = CommitmentTx::build(black_box(&params), &keys, number, &spec).expect("it adds up");
            assert_eq!(built.htlcs.len(), BATCH);
            let digests = built.htlcs.iter().map(|output| &output.digest).chain([&built.digest]);
            digests.map(|digest| sign(digest, &secret)).collect::<Vec<_>>()
        });
    });
}

criterion_group!(benches, throughput);
criterion_main!(benches);
