//! Routes per second over a snapshot: fees alone, and with a price for success; and policy updates.
//!
//! Checks the budget of `fulmen_graph::path::search` on a generated network; under `cargo test` a tiny one, once.
//! `bench/peers -- route` measures real networks beside LDK.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use fulmen_bench::is_measuring;
use fulmen_graph::path::search::Finder;
use fulmen_graph::path::{Knowledge, Query};
use fulmen_graph::scoring::Weights;
use fulmen_graph::snapshot::Snapshot;
use fulmen_graph::{ChannelGraph, DirectedChannel, Direction};
use fulmen_topology::Spec;
use fulmen_wire::units::{Msat, NodeId, Scid};

fn network() -> ChannelGraph {
    let spec = if is_measuring() { "ba:10000,m:4,economy:mainnet" } else { "ba:30,m:2,economy:mainnet" };
    let topology = spec.parse::<Spec>().expect("a valid form").build(7).expect("small enough");
    let ids: Vec<NodeId> = (0..topology.nodes().len() as u32)
        .map(|number| {
            let mut id = [2; 33];
            id[29..].copy_from_slice(&number.to_be_bytes());
            NodeId(id)
        })
        .collect();
    let scids: Vec<Scid> = (0..topology.channels().len() as u64).map(Scid).collect();
    topology.channel_graph(&ids, &scids).expect("ids differ")
}

fn routes(criterion: &mut Criterion) {
    let graph = network();
    let snapshot = Snapshot::new(&graph);
    let nodes = snapshot.nodes().to_vec();
    let nothing = Knowledge::default();
    let mut finder = Finder::new();
    let mut group = criterion.benchmark_group("route");
    group.throughput(Throughput::Elements(1));
    for (name, weights, risk_billionths) in
        [("single/fee-only", Weights::FEES, 0), ("single/probabilistic", Weights::default(), 15)]
    {
        // Every query is another pair, so that nothing of the last one helps.
        let mut at = 0_usize;
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                at += 1;
                let [from, to] = [at * 7919, at * 104_729 + 1].map(|place| nodes[place % nodes.len()]);
                let query = Query::new(from, to, Msat(10_000_000), &nothing);
                let query = Query { weights, risk_billionths, ..query };
                black_box(finder.find(&snapshot, &query).is_ok())
            });
        });
    }
    let directed = DirectedChannel { scid: Scid(1), direction: Direction::OneToTwo };
    let policy = snapshot.policy(directed);
    group.bench_function("update", |bencher| {
        bencher.iter(|| snapshot.with_policies([(directed, black_box(policy))]).expect("a known channel"));
    });
    group.finish();
}

criterion_group!(benches, routes);
criterion_main!(benches);
