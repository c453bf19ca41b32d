//! Taking in signed gossip: announcements and updates per second, and opening a store again.
//!
//! Checks the budgets of `fulmen_graph::gossip`: 15 us per announcement and 3 us per update in batches, and a store
//! of the size of the main network (50,000 channels) open in 100 ms. Under `cargo test` the network is tiny.

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use fulmen_bench::gossip::{Gossip as Sample, Shape};
use fulmen_bench::is_measuring;
use fulmen_graph::ChannelGraph;
use fulmen_graph::gossip::{FundingCheck, Gossip, GossipConfig, GossipTime, IncomingGossip, Source};
use fulmen_secp::{Backend, Verifier};
use fulmen_wire::units::ChainHash;

const TIMESTAMP: u32 = 1_750_000_000;

fn open(backend: Backend, log: Vec<u8>) -> (Gossip<Vec<u8>>, ChannelGraph) {
    let mut config = GossipConfig::new(ChainHash::BITCOIN);
    config.funding_check = FundingCheck::Off;
    let verifier = Verifier::new().with_backend(backend).expect("available").with_key_cache(64 << 20);
    let mut graph = ChannelGraph::new();
    let gossip = Gossip::open(config, verifier, log, |change| graph.apply(&change).expect("a sound stream"));
    (gossip.expect("a log in memory"), graph)
}

fn take(gossip: &mut Gossip<Vec<u8>>, graph: &mut ChannelGraph, messages: &[Vec<u8>]) {
    let now = GossipTime { unix_seconds: TIMESTAMP.into(), tip: None };
    for batch in messages.chunks(256) {
        let batch: Vec<IncomingGossip<'_>> =
            batch.iter().map(|message| IncomingGossip { from: Source::Own, message }).collect();
        let outcome = gossip.ingest(&batch, now);
        assert_eq!(outcome.accepted, batch.len());
        outcome.changes.iter().for_each(|change| graph.apply(change).expect("a sound stream"));
    }
    gossip.flush().expect("a log in memory");
}

fn ingestion(criterion: &mut Criterion) {
    let channels = if is_measuring() { 5_000 } else { 20 };
    let sample = Sample::new(Shape { channels, nodes: channels / 4, seed: 1, timestamp: TIMESTAMP });
    println!("digest of the gossip: {:02x?}", &sample.updates[channels][2..10]);
    let mut group = criterion.benchmark_group("gossip");
    group.sample_size(10);
    for (name, backend) in [("batched", Backend::selected()), ("scalar", Backend::Libsecp256k1)] {
        group.throughput(Throughput::Elements(channels as u64));
        group.bench_function(format!("announcements/{name}"), |bencher| {
            bencher.iter_batched(
                || open(backend, Vec::new()),
                |(mut gossip, mut graph)| {
                    take(&mut gossip, &mut graph, &sample.announcements);
                    (gossip, graph)
                },
                BatchSize::PerIteration,
            );
        });
        group.throughput(Throughput::Elements(2 * channels as u64));
        group.bench_function(format!("updates/{name}"), |bencher| {
            bencher.iter_batched(
                || {
                    let (mut gossip, mut graph) = open(backend, Vec::new());
                    take(&mut gossip, &mut graph, &sample.announcements);
                    (gossip, graph)
                },
                |(mut gossip, mut graph)| {
                    take(&mut gossip, &mut graph, &sample.updates);
                    (gossip, graph)
                },
                BatchSize::PerIteration,
            );
        });
    }
    group.finish();
}

fn opening(criterion: &mut Criterion) {
    let channels = if is_measuring() { 50_000 } else { 20 };
    let sample = Sample::new(Shape { channels, nodes: channels / 3, seed: 2, timestamp: TIMESTAMP });
    let (mut gossip, mut graph) = open(Backend::selected(), Vec::new());
    take(&mut gossip, &mut graph, &sample.announcements);
    take(&mut gossip, &mut graph, &sample.updates);
    let log = gossip.into_log();
    let mut group = criterion.benchmark_group("gossip/open");
    group.sample_size(10);
    group.throughput(Throughput::Elements(channels as u64));
    group.bench_function("store", |bencher| {
        bencher.iter_batched(
            || log.clone(),
            |log| {
                let mut changes = Vec::with_capacity(3 * channels);
                let config = GossipConfig::new(ChainHash::BITCOIN);
                let gossip = Gossip::open(config, Verifier::new(), log, |change| changes.push(change));
                assert_eq!(changes.len(), 3 * channels);
                (gossip.expect("a log in memory"), changes)
            },
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

criterion_group!(benches, ingestion, opening);
criterion_main!(benches);
