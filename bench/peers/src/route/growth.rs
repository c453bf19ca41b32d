//! Growth: Fulmen on generated networks of ten thousand to a million nodes, 4.5 channels per node.
//!
//! A preferential-attachment network of five channels a new node, with every tenth channel left out, and policies as
//! distributed on mainnet. The peer's figures are those Core Lightning has published, where it has; none are measured
//! here.

use fulmen_graph::snapshot::Snapshot;
use fulmen_topology::{Spec, Topology};
use serde_json::json;

use crate::measure::{Clock, Row, microseconds};
use crate::route::compare::percentile;
use crate::route::network::Network;
use crate::route::ours::{Ours, Seeker};
use crate::route::{Mode, Options};

/// Core Lightning's published median for a network of `nodes` nodes, in microseconds.
fn published_us(nodes: usize) -> f64 {
    match nodes {
        100_000 => 970_000.0,
        1_000_000 => 2_060_000.0,
        _ => f64::NAN,
    }
}

/// Gives a row for each size.
pub(crate) fn run(options: &Options, mode: &Mode) -> Vec<Row> {
    options.growth_nodes.iter().map(|nodes| size(options, mode, *nodes)).collect()
}

fn size(options: &Options, mode: &Mode, nodes: usize) -> Row {
    let spec: Spec = format!("ba:{nodes},m:5,economy:mainnet").parse().expect("a valid form");
    let full = spec.build(options.seed).expect("generated");
    let kept = full.channels().iter().enumerate().filter(|(at, _)| at % 10 != 9);
    let topology = Topology::new(full.nodes().to_vec(), kept.map(|(_, channel)| channel.clone()).collect());
    let mut network = Network::new(&topology.expect("a part of one"), options.seed);
    let mut snapshot = None;
    let layout_us = microseconds(Clock::Thread, &mut || snapshot = Some(Snapshot::new(&network.graph)));
    let bytes = snapshot.map_or(0, |snapshot| snapshot.bytes());
    let channels = network.graph.channel_count();
    let ours = Ours::new(std::mem::take(&mut network.graph));
    let mut seeker = Seeker::default();
    let mut times = Vec::new();
    for at in 0..options.queries {
        let ask = network.ask(options.amounts_sat[at % options.amounts_sat.len()] * 1000);
        let mut found = None;
        let time = microseconds(Clock::Thread, &mut || found = ours.answer(&mut seeker, &ask, mode));
        if found.is_some() {
            times.push(time);
        }
    }
    times.sort_by(f64::total_cmp);
    let further = json!({
        "channels": channels,
        "found": times.len(),
        "p90": percentile(&times, 90),
        "p99": percentile(&times, 99),
        "bytes_a_channel": bytes as f64 / channels as f64,
        "layout_us": layout_us,
        "peer": "published by Core Lightning, not measured here",
    });
    let (peer, fulmen) = (published_us(nodes), percentile(&times, 50));
    eprintln!("route/growth/{nodes}: {fulmen:.0} us");
    Row {
        case: format!("route/growth/{nodes}/p50"),
        unit: "us",
        peer,
        peer_min: peer,
        peer_max: peer,
        fulmen,
        fulmen_min: percentile(&times, 0),
        fulmen_max: percentile(&times, 100),
        ratio: peer / fulmen,
        further: further.as_object().cloned().unwrap_or_default(),
    }
}
