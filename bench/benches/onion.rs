//! Onions: construction by the payer, peeling by a hop, failures on their way back.
//!
//! Checks the budget of `fulmen_proto::onion`: 56 us to peel one hop. `point multiplications` is the floor under a
//! peel: the ECDH and the blinding that libsecp256k1 does for it, and parsing the ephemeral key.

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use fulmen_proto::onion::{Failure, Peeled, create_failure, peel, wrap_failure};
use fulmen_proto::payment::{OutgoingPayment, Recipient, RouteHop};
use fulmen_wire::units::{BlockHeight, Msat, NodeId, PaymentHash, PaymentPreimage, Scid};
use secp256k1::ecdh::SharedSecret;
use secp256k1::{PublicKey, Scalar, Secp256k1, SecretKey};

const PAYMENT_HASH: PaymentHash = PaymentHash([0x42; 32]);

/// The key of node `index`; node 0 is the payer, whose key serves as session key.
fn secret_key(index: usize) -> SecretKey {
    SecretKey::from_slice(&[index as u8 + 1; 32]).expect("a small number repeated is a scalar")
}

fn route(hops: usize) -> Vec<RouteHop> {
    let secp = Secp256k1::new();
    let hop = |index: usize| RouteHop {
        node_id: NodeId(secret_key(index).public_key(&secp).serialize()),
        short_channel_id: Scid(0x0c_a000_0001_0000 + index as u64),
        amount: Msat(100_000_000 + 10_000 * (hops - index) as u64),
        cltv_expiry: BlockHeight(900_000 + 40 * (hops - index) as u32),
    };
    (1..=hops).map(hop).collect()
}

fn payment(route: &[RouteHop]) -> OutgoingPayment {
    let recipient = Recipient { keysend_preimage: Some(PaymentPreimage([0x43; 32])), ..Recipient::default() };
    OutgoingPayment::new(&secret_key(0), PAYMENT_HASH, route, &recipient).expect("twenty hops fit")
}

fn construct(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("onion/construct");
    for hops in [5, 20] {
        let route = route(hops);
        group.throughput(Throughput::Elements(hops as u64));
        group.bench_function(format!("{hops} hops"), |bencher| bencher.iter(|| payment(black_box(&route))));
    }
}

fn peeling(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("onion/peel");
    group.throughput(Throughput::Elements(1));
    let packet = payment(&route(5)).packet;
    println!("digest of the packet: {:02x?}", &packet.hmac()[..8]);
    let node_key = secret_key(1);
    let peeled = peel(&node_key, &packet, &PAYMENT_HASH.0);
    assert!(matches!(peeled, Ok(Peeled::Forward { .. })), "the first of five hops forwards");
    group.bench_function("forward", |bencher| {
        bencher.iter(|| peel(black_box(&node_key), black_box(&packet), &PAYMENT_HASH.0));
    });

    let last = payment(&route(1)).packet;
    let peeled = peel(&node_key, &last, &PAYMENT_HASH.0);
    assert!(matches!(peeled, Ok(Peeled::Final { .. })), "the only hop is the last");
    group.bench_function("final", |bencher| {
        bencher.iter(|| peel(black_box(&node_key), black_box(&last), &PAYMENT_HASH.0));
    });

    let secp = Secp256k1::new();
    group.bench_function("point multiplications", |bencher| {
        bencher.iter(|| {
            let key = PublicKey::from_slice(black_box(&packet.public_key().0)).expect("a point");
            let secret = SharedSecret::new(&key, &node_key).secret_bytes();
            let factor = Scalar::from_be_bytes(secret).expect("a scalar");
            key.mul_tweak(&secp, &factor).expect("a point").serialize()
        });
    });
}

fn failures(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("onion/failure");
    let payment = payment(&route(5));
    let secrets = payment.secrets.as_slice();
    let failure = Failure::FeeInsufficient { htlc_msat: Msat(100_000_000) };
    let reason = create_failure(&secrets[4], &failure);
    group.bench_function("create", |bencher| {
        bencher.iter(|| create_failure(black_box(&secrets[4]), &failure))
    });
    group.bench_function("wrap", |bencher| {
        let wrap = |mut reason: Vec<u8>| {
            wrap_failure(&secrets[3], &mut reason);
            reason
        };
        bencher.iter_batched(|| reason.clone(), wrap, BatchSize::SmallInput);
    });
    let mut returned = reason.clone();
    secrets[..4].iter().rev().for_each(|secret| wrap_failure(secret, &mut returned));
    group.bench_function("read", |bencher| bencher.iter(|| payment.read_failure(black_box(&returned))));
}

criterion_group!(benches, construct, peeling, failures);
criterion_main!(benches);
