//! Finding routes: Fulmen's searches against LDK's `find_route`, over the same network, in one run.
//!
//! Owns the command and its modes. [`compare`] runs a mode, [`evaluate`] judges the answers by formulas of its own,
//! [`network`] draws queries and updates; [`ldk`] and [`ours`] are the sides. A further mode is an entry of
//! [`modes`], and a way of asking in both sides.

use std::path::PathBuf;
use std::time::Instant;

use clap::Args;
use fulmen_graph::scoring::Weights;
use fulmen_graph::snapshot::Snapshot;
use fulmen_wire::units::Msat;
use serde_json::{Map, json};

use crate::measure::{Machine, Report, Row};
use crate::route::compare::{Sides, Updating};
use crate::route::ldk::{Ldk, Silence};
use crate::route::network::Network;
use crate::route::ours::{Ours, Seeker};

mod compare;
mod evaluate;
mod growth;
mod ldk;
mod mode;
mod network;
mod ours;
mod threads;
mod weights;

pub(crate) use mode::Mode;

/// The measurement and its network.
#[derive(Args)]
pub(crate) struct Options {
    /// A channel graph: describegraph JSON, plain or gzip.
    #[arg(long)]
    graph: Option<PathBuf>,
    /// Queries a mode.
    #[arg(long, default_value_t = 300)]
    queries: usize,
    /// Draws endpoints and updates.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Amounts, one after the other.
    #[arg(long, value_delimiter = ',', default_values_t = [10_000, 100_000, 1_000_000])]
    amounts_sat: Vec<u64>,
    /// Policy updates before each query.
    #[arg(long, default_value_t = 10)]
    updates: usize,
    /// Only modes whose name contains this.
    #[arg(long)]
    only: Option<String>,
    /// The price of halving the probability of success, in msat and in millionths of the amount.
    #[arg(long, value_delimiter = ',')]
    halving: Option<Vec<u64>>,
    /// The price of a hop, in msat and in millionths of the amount.
    #[arg(long, value_delimiter = ',')]
    hop: Option<Vec<u64>>,
    /// Instead of comparing with LDK: two threads against one, and a writer beside them.
    #[arg(long)]
    threads: bool,
    /// Instead of comparing times with LDK, compare the worth of routes under several weights.
    #[arg(long)]
    weights: bool,
    /// Generated networks of several sizes as well.
    #[arg(long)]
    growth: bool,
    /// The sizes.
    #[arg(long, value_delimiter = ',', default_values_t = [10_000, 100_000, 1_000_000])]
    growth_nodes: Vec<usize>,
    /// Prints JSON.
    #[arg(long)]
    json: bool,
}

/// Into how many parts a payment may be split: LDK's default.
const PARTS_MAX: usize = 10;

fn modes(options: &Options) -> Vec<Mode> {
    let mut weights = Weights::default();
    if let Some([fixed, millionths]) = options.halving.as_deref() {
        (weights.halving, weights.halving_millionths) = (Msat(*fixed), *millionths as u32);
    }
    if let Some([fixed, millionths]) = options.hop.as_deref() {
        (weights.hop, weights.hop_millionths) = (Msat(*fixed), *millionths as u32);
    }
    vec![
        Mode { name: "single/probabilistic", minds_success: true, weights, parts_max: 1 },
        Mode { name: "single/fee-only", minds_success: false, weights, parts_max: 1 },
        Mode { name: "multi/probabilistic", minds_success: true, weights, parts_max: PARTS_MAX },
        Mode { name: "multi/fee-only", minds_success: false, weights, parts_max: PARTS_MAX },
    ]
}

/// Runs the comparison.
pub(crate) fn run(options: &Options) {
    let mut rows = Vec::new();
    if let Some(path) = &options.graph {
        let topology = match fulmen_topology::import(path) {
            Ok(topology) => topology,
            Err(error) => {
                eprintln!("{error}");
                std::process::exit(2);
            }
        };
        let wanted = |mode: &Mode| options.only.as_ref().is_none_or(|part| mode.name.contains(part));
        let modes: Vec<Mode> = modes(options).into_iter().filter(wanted).collect();
        let mut network = Network::new(&topology, options.seed);
        if options.threads {
            rows.extend(modes.iter().take(1).flat_map(|mode| threads::run(options, &mut network, mode)));
        } else {
            rows.extend(against_ldk(options, &mut network, &modes));
        }
    }
    if options.growth {
        rows.extend(modes(options).iter().take(1).flat_map(|mode| growth::run(options, mode)));
    }
    Report { rows, machine: Machine::this("none".into()) }.print(options.json);
}

/// Every mode against LDK, and the preparations.
fn against_ldk(options: &Options, network: &mut Network, modes: &[Mode]) -> Vec<Row> {
    let silence = Silence;
    let graph = ldk::empty(&silence);
    let start = Instant::now();
    let peer = Ldk::new(&network.graph, &graph, &silence);
    let peer_us = start.elapsed().as_secs_f64() * 1e6;
    let start = Instant::now();
    let snapshot = Snapshot::new(&network.graph);
    let ours_us = start.elapsed().as_secs_f64() * 1e6;
    let further = json!({
        "nodes": snapshot.node_count(),
        "channels": snapshot.channel_count(),
        "endpoints": network.end_count(),
        "fulmen_bytes_a_channel": snapshot.bytes() as f64 / snapshot.channel_count() as f64,
        "what": "everything done before the first query: LDK's graph filled, Fulmen's snapshot laid out",
    });
    let mut rows =
        vec![row("route/prepare", (peer_us, ours_us), further.as_object().cloned().unwrap_or_default())];
    let mut sides = Sides {
        ldk: peer,
        silence: &silence,
        ours: Ours::new(network.graph.clone()),
        seeker: Seeker::default(),
    };
    let mut judge = network.judge();
    let mut updating = Updating::default();
    if options.weights {
        rows.extend(
            modes
                .iter()
                .take(1)
                .flat_map(|mode| weights::run(options, network, &mut sides, &mut judge, mode)),
        );
        return rows;
    }
    for mode in modes {
        rows.extend(compare::run(options, network, &mut sides, &mut judge, mode, &mut updating));
    }
    if updating.updates > 0 {
        let each = |us: f64| us / updating.updates as f64;
        let further = json!({ "updates": updating.updates, "batch": options.updates });
        let further = further.as_object().cloned().unwrap_or_default();
        rows.push(row("route/update", (each(updating.peer_us), each(updating.ours_us)), further));
    }
    rows
}

/// A row of single figures.
fn row(case: &str, (peer, fulmen): (f64, f64), further: Map<String, serde_json::Value>) -> Row {
    Row {
        case: case.into(),
        unit: "us",
        peer,
        peer_min: peer,
        peer_max: peer,
        fulmen,
        fulmen_min: fulmen,
        fulmen_max: fulmen,
        ratio: peer / fulmen,
        further,
    }
}
