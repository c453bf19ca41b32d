//! How long it takes to come to the graph of the main network: from the gossip store, and from describegraph JSON.
//!
//! `cargo run --release -p fulmen-bench --example load -- FILE` with a describegraph JSON, plain or .gz. The store is
//! made from it with empty signatures, which opening does not look at. Prints medians of several runs in thread CPU
//! time.

use std::error::Error;
use std::fs;
use std::path::Path;

use fulmen::gossip::FileLog;
use fulmen_bench::gossip::unsigned_store;
use fulmen_graph::ChannelGraph;
use fulmen_graph::gossip::{Gossip, GossipConfig};
use fulmen_graph::snapshot::Snapshot;
use fulmen_secp::Verifier;
use fulmen_topology::{Label, Topology, import};
use fulmen_wire::units::{ChainHash, NodeId, Scid};
use rustix::time::{ClockId, clock_gettime};

const RUNS: usize = 11;

fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args().nth(1).ok_or("give the path of a describegraph JSON")?;
    let (json, topology) = timed(|| import(Path::new(&path)));
    let graph = channel_graph(&topology?)?;
    println!("{} channels, {} nodes", graph.channel_count(), graph.node_count());
    let store = std::env::temp_dir().join(format!("fulmen-load-{}", std::process::id()));
    fs::write(&store, unsigned_store(&graph))?;
    let (mut opened, mut graphs, mut snapshots) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..RUNS {
        let mut changes = Vec::new();
        let config = GossipConfig::new(ChainHash::BITCOIN);
        let (time, gossip) = timed(|| {
            Gossip::open(config, Verifier::new(), FileLog::open(&store)?, |change| changes.push(change))
                .map_err(Box::<dyn Error>::from)
        });
        assert_eq!(gossip?.channel_count(), graph.channel_count());
        opened.push(time);
        let mut again = ChannelGraph::new();
        let (time, ()) =
            timed(|| changes.iter().for_each(|change| again.apply(change).expect("a sound stream")));
        graphs.push(time);
        let (time, snapshot) = timed(|| Snapshot::new(&again));
        snapshots.push(time);
        assert_eq!(snapshot.channel_count(), graph.channel_count());
    }
    let (opened, graphs, snapshots) = (median(opened), median(graphs), median(snapshots));
    println!("store, {} bytes: open {opened:.1} ms", fs::metadata(&store)?.len());
    println!("ChannelGraph from its changes: {graphs:.1} ms; Snapshot from that: {snapshots:.1} ms");
    println!("from the store to a Snapshot: {:.1} ms", opened + graphs + snapshots);
    fs::remove_file(&store)?;
    let mut imports = vec![json];
    for _ in 0..4 {
        let (time, topology) = timed(|| import(Path::new(&path)));
        drop(topology?);
        imports.push(time);
    }
    println!("from describegraph JSON to a Topology: {:.1} ms", median(imports));
    Ok(())
}

/// The graph of a snapshot, with made-up scids.
fn channel_graph(topology: &Topology) -> Result<ChannelGraph, Box<dyn Error>> {
    let ids: Vec<NodeId> = topology
        .nodes()
        .iter()
        .map(|label| match label {
            Label::Key(key) => *key,
            Label::Number(number) => {
                let mut id = [2; 33];
                id[29..].copy_from_slice(&number.to_be_bytes());
                NodeId(id)
            }
        })
        .collect();
    let scid = |number: u32| Scid::new(500_000 + number / 1_000, number % 1_000, 0).expect("small enough");
    let scids: Vec<Scid> = (0..).take(topology.channels().len()).map(scid).collect();
    // In the file, policies may be missing, and stay so.
    Ok(topology.channel_graph(&ids, &scids)?)
}

fn timed<T>(work: impl FnOnce() -> T) -> (f64, T) {
    let now = || {
        let time = clock_gettime(ClockId::ThreadCPUTime);
        time.tv_sec as f64 * 1e3 + time.tv_nsec as f64 / 1e6
    };
    let start = now();
    let result = work();
    (now() - start, result)
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}
