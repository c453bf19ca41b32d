//! `loadgen route`: how a payment would go over a channel graph, for people to read.
//!
//! Owns: the flags, the table and the JSON of an answer, and its warnings. Finds nothing itself:
//! [`fulmen_graph::path`] does. [`explain`] says why there is no answer.
//!
//! A channel is shown by its id in the file; a describegraph need not have ids, and then by its place there, as `#0`.
//!
//! Invariant: a mistake takes one line: the error and its remedy.

mod explain;

use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::PathBuf;

use clap::{Args, value_parser};
use fulmen_graph::path::alternatives::alternatives;
use fulmen_graph::path::multi::{PartFinder, Parts};
use fulmen_graph::path::prices::hop_successes;
use fulmen_graph::path::search::Finder;
use fulmen_graph::path::{HOPS_MAX, Knowledge, Limits, NoRoute, Query, Route};
use fulmen_graph::scoring::Weights;
use fulmen_graph::snapshot::Snapshot;
use fulmen_topology::{ConversionError, ImportError, Label, Topology};
use fulmen_wire::units::{BlockHeight, CltvDelta, Msat, NodeId, Sat, Scid};
use serde_json::{Value, json};
use thiserror::Error;

/// The flags of `route`.
#[derive(Args, Clone, Debug)]
pub(crate) struct RouteArgs {
    /// The channel graph: an lnd describegraph export, plain or .gz.
    #[arg(long, value_name = "FILE")]
    graph: PathBuf,

    /// The payer's public key, or as much of its beginning as no other node shares.
    #[arg(long, value_name = "KEY")]
    from: String,

    /// The payee's public key, or as much of its beginning as no other node shares.
    #[arg(long, value_name = "KEY")]
    to: String,

    /// The amount the payee is to receive.
    #[arg(long, value_name = "SAT")]
    amount_sat: u64,

    /// In how many parts the payment may go.
    #[arg(long, value_name = "COUNT", default_value = "1", value_parser = at_least_one)]
    max_parts: usize,

    /// How many routes to show, the best first.
    #[arg(short, value_name = "COUNT", default_value = "1", value_parser = at_least_one, conflicts_with = "max_parts")]
    k: usize,

    /// The most all nodes on the way together may take [default: 1 % of the amount and 50 sat].
    #[arg(long, value_name = "SAT")]
    max_fee_sat: Option<u64>,

    /// The most blocks until the first HTLC expires, --final-blocks among them.
    #[arg(long, value_name = "BLOCKS", default_value_t = 1008, value_parser = value_parser!(u32).range(..=BLOCKS_MAX))]
    max_blocks: u32,

    /// The most channels of a route; an onion has room for 26 at the most.
    #[arg(long, value_name = "COUNT", default_value_t = 20)]
    max_hops: usize,

    /// The payee's min_final_cltv_expiry_delta, which is part of --max-blocks.
    #[arg(long, value_name = "BLOCKS", default_value_t = 18)]
    final_blocks: u16,

    /// The height now: expiries are shown as heights above it.
    #[arg(long, value_name = "BLOCK", default_value_t = 0, value_parser = value_parser!(u32).range(..=HEIGHT_MAX))]
    height: u32,

    /// Print JSON instead of tables.
    #[arg(long)]
    json: bool,
}

/// The most blocks until an HTLC expires.
const BLOCKS_MAX: i64 = 1_000_000;
/// The greatest height, so that no expiry reaches 500,000,000, from where on a lock time is a time (BOLT 2).
const HEIGHT_MAX: i64 = 499_999_999 - BLOCKS_MAX;

fn at_least_one(text: &str) -> Result<usize, String> {
    text.parse()
        .ok()
        .filter(|count| *count > 0)
        .ok_or_else(|| "a whole number of at least 1 is needed".to_owned())
}

/// An answer for people or machines, and warnings about it.
#[derive(Debug)]
pub(crate) struct Answer {
    /// The tables, or JSON.
    pub(crate) text: String,
    /// One line each.
    pub(crate) warnings: Vec<String>,
}

/// Why there is nothing to show.
#[derive(Debug, Error)]
pub(crate) enum RouteError {
    /// The graph cannot be read.
    #[error("--graph: {0}")]
    Import(#[from] ImportError),
    /// The graph contradicts itself.
    #[error("--graph: {0}; take another export")]
    Conversion(#[from] ConversionError),
    /// No node has such a key.
    #[error(
        "{flag} {key}: none of the graph's {nodes} nodes has a key that starts so; check it, or take a newer graph"
    )]
    UnknownKey {
        /// Which end.
        flag: &'static str,
        /// The text given.
        key: String,
        /// How many nodes there are.
        nodes: usize,
    },
    /// Several nodes have.
    #[error("{flag} {key}: {count} nodes have keys that start so; give more digits")]
    AmbiguousKey {
        /// Which end.
        flag: &'static str,
        /// The text given.
        key: String,
        /// How many.
        count: usize,
    },
    /// There is no route.
    #[error("{0}")]
    NoRoute(String),
}

/// Answers.
///
/// # Errors
/// See [`RouteError`].
pub(crate) fn run(args: &RouteArgs) -> Result<Answer, RouteError> {
    let topology = fulmen_topology::import(&args.graph)?;
    let keys: Vec<NodeId> = topology.nodes().iter().filter_map(key).collect();
    let ends = (find_key("--from", &args.from, &keys)?, find_key("--to", &args.to, &keys)?);
    let snapshot = lay_out(&topology, &keys)?;
    let knowledge = Knowledge::default();
    let query = query(args, ends, args.amount_sat, &knowledge);
    let answers = match find(&snapshot, &query, args.max_parts, args.k) {
        Ok(answers) => answers,
        Err(reason) => {
            let asked = explain::Asked { topology: &topology, keys: &keys, snapshot: &snapshot, args, ends };
            return Err(RouteError::NoRoute(explain::explain(&reason, &asked)));
        }
    };
    let mut warnings = inbound_fees(&topology, &answers);
    if args.max_hops > HOPS_MAX {
        warnings.push(format!(
            "--max-hops {}: searched with {HOPS_MAX}, the most an onion has room for",
            args.max_hops
        ));
    }
    if args.json {
        let answers: Vec<Value> =
            answers.iter().map(|parts| as_json(&topology, &snapshot, &query, parts)).collect();
        let text = serde_json::to_string_pretty(&json!({ "routes": answers }))
            .map_err(|error| RouteError::NoRoute(error.to_string()))?;
        return Ok(Answer { text, warnings });
    }
    let mut text = String::new();
    for (at, parts) in answers.iter().enumerate() {
        table(&mut text, (&topology, &snapshot), &query, parts, (at + 1, answers.len()));
    }
    Ok(Answer { text, warnings })
}

/// The query that the flags ask for, with another amount.
fn query<'k>(
    args: &RouteArgs,
    (from, to): (NodeId, NodeId),
    amount_sat: u64,
    knowledge: &'k Knowledge,
) -> Query<'k> {
    let amount = Sat(amount_sat).to_msat();
    Query {
        height: BlockHeight(args.height),
        final_cltv_delta: CltvDelta(args.final_blocks),
        limits: Limits {
            max_fee: args.max_fee_sat.map_or(Msat(amount.0 / 100 + 50_000), |sat| Sat(sat).to_msat()),
            max_cltv_blocks: args.max_blocks,
            max_hops: args.max_hops.min(HOPS_MAX),
        },
        weights: Weights::default(),
        ..Query::new(from, to, amount, knowledge)
    }
}

/// The answers to a query: one in up to `max_parts` parts, or up to `k` in one part.
fn find(snapshot: &Snapshot, query: &Query<'_>, max_parts: usize, k: usize) -> Result<Vec<Parts>, NoRoute> {
    if max_parts > 1 {
        return PartFinder::new().find(snapshot, query, max_parts).map(|parts| vec![parts]);
    }
    let routes = alternatives(&mut Finder::new(), snapshot, query, k)?;
    Ok(routes.into_iter().map(Parts::from).collect())
}

/// Warnings of nodes on the way that charge for what comes in: lnd's inbound fees, which no gossip message of the BOLTs
/// carries and the search does not price.
fn inbound_fees(topology: &Topology, answers: &[Parts]) -> Vec<String> {
    let mut warnings = BTreeSet::new();
    for route in answers.iter().flat_map(|parts| &parts.routes) {
        for hop in route.hops.iter().rev().skip(1) {
            let index = hop.scid.0 as usize;
            let channel = &topology.channels()[index];
            let end = channel.nodes.iter().position(|node| key(&topology.nodes()[*node]) == Some(hop.to));
            let policy = end.and_then(|end| channel.policies[end]);
            if policy.and_then(|policy| policy.inbound).is_some_and(|fee| fee.is_charge()) {
                warnings.insert(format!(
                    "node {} has an inbound fee on channel {} that is not in this route's fee; it will refuse the HTLC",
                    hop.to,
                    topology.channel_name(index)
                ));
            }
        }
    }
    warnings.into_iter().collect()
}

fn key(label: &Label) -> Option<NodeId> {
    match label {
        Label::Key(key) => Some(*key),
        Label::Number(_) => None,
    }
}

/// The node whose key is, or alone begins with, `text`.
fn find_key(flag: &'static str, text: &str, keys: &[NodeId]) -> Result<NodeId, RouteError> {
    let key = text.trim().to_ascii_lowercase();
    let mut matching = keys.iter().filter(|node| node.to_string().starts_with(&key));
    let Some(first) = matching.next().filter(|_| !key.is_empty()) else {
        return Err(RouteError::UnknownKey { flag, key, nodes: keys.len() });
    };
    match matching.count() {
        0 => Ok(*first),
        others => Err(RouteError::AmbiguousKey { flag, key, count: others + 1 }),
    }
}

/// The graph, each channel numbered by its place in the topology.
fn lay_out(topology: &Topology, keys: &[NodeId]) -> Result<Snapshot, ConversionError> {
    let scids: Vec<Scid> = (0..topology.channels().len() as u64).map(Scid).collect();
    Ok(Snapshot::new(&topology.channel_graph(keys, &scids)?))
}

/// An amount of millisatoshis in satoshis.
fn in_sat(amount: Msat) -> String {
    format!("{}.{:03}", amount.0 / 1000, amount.0 % 1000)
}

/// One answer as a table: for each part its amount and its hops.
fn table(
    text: &mut String,
    (topology, snapshot): (&Topology, &Snapshot),
    query: &Query<'_>,
    parts: &Parts,
    (at, of): (usize, usize),
) {
    let ppm = u128::from(parts.fee.0) * 1_000_000 / u128::from(query.amount.0.max(1));
    let count = parts.routes.len();
    let title = if of > 1 { format!("route {at} of {of}") } else { "route".to_owned() };
    // Writing to a string cannot fail.
    let _ = writeln!(
        text,
        "{title}: {} sat for a fee of {} sat ({ppm} ppm), {}{:.1} % likely",
        in_sat(query.amount),
        in_sat(parts.fee),
        if count > 1 { format!("in {count} parts, ") } else { String::new() },
        parts.success.as_f64() * 100.0
    );
    for (number, route) in parts.routes.iter().enumerate() {
        let paid = route.total_amount.saturating_sub(route.fee);
        if count > 1 {
            let _ = writeln!(
                text,
                "part {}: {} sat, fee {} sat, {:.1} % likely",
                number + 1,
                in_sat(paid),
                in_sat(route.fee),
                route.success.as_f64() * 100.0
            );
        }
        let head = ["channel", "to", "amount sat", "fee sat", "expiry", "likely"];
        let _ = writeln!(
            text,
            "  {:>16}  {:66}  {:>16}  {:>12}  {:>8}  {:>7}",
            head[0], head[1], head[2], head[3], head[4], head[5]
        );
        let own = Query { amount: paid, ..query.clone() };
        for (hop, success) in route.hops.iter().zip(hop_successes(snapshot, &own, route)) {
            let _ = writeln!(
                text,
                "  {:>16}  {:66}  {:>16}  {:>12}  {:>8}  {:>5.1} %",
                topology.channel_name(hop.scid.0 as usize),
                hop.to.to_string(),
                in_sat(hop.amount),
                in_sat(hop.fee),
                hop.cltv_expiry.0,
                success.as_f64() * 100.0
            );
        }
    }
}

/// One answer as JSON.
fn as_json(topology: &Topology, snapshot: &Snapshot, query: &Query<'_>, parts: &Parts) -> Value {
    let part = |route: &Route| {
        let paid = route.total_amount.saturating_sub(route.fee);
        let own = Query { amount: paid, ..query.clone() };
        let hops: Vec<Value> = route
            .hops
            .iter()
            .zip(hop_successes(snapshot, &own, route))
            .map(|(hop, success)| {
                json!({
                    "channel": topology.channel_name(hop.scid.0 as usize),
                    "from": hop.from.to_string(),
                    "to": hop.to.to_string(),
                    "amount_msat": hop.amount.0,
                    "fee_msat": hop.fee.0,
                    "cltv_expiry": hop.cltv_expiry.0,
                    "success": success.as_f64(),
                })
            })
            .collect();
        json!({
            "amount_msat": paid.0,
            "fee_msat": route.fee.0,
            "cltv_blocks": route.total_cltv_blocks,
            "success": route.success.as_f64(),
            "hops": hops,
        })
    };
    json!({
        "amount_msat": query.amount.0,
        "total_msat": parts.total_amount.0,
        "fee_msat": parts.fee.0,
        "success": parts.success.as_f64(),
        "cost_msat": parts.cost.0 / 1000,
        "parts": parts.routes.iter().map(part).collect::<Vec<Value>>(),
    })
}
