//! `loadgen route`: how a payment would go over a channel graph, for people to read.
//!
//! Owns: the flags, the table and the JSON of an answer, and the sentence that says why there is none. Finds nothing
//! itself: [`fulmen_graph::path`] does.
//!
//! A describegraph need not name its channels; a channel is shown by its place in the file, from zero.
//!
//! Invariant: a mistake takes one line: the error and its remedy.

use std::fmt::Write;
use std::path::PathBuf;

use clap::Args;
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
    #[arg(long, value_name = "COUNT", default_value_t = 1)]
    max_parts: usize,

    /// How many routes to show, the best first.
    #[arg(short, value_name = "COUNT", default_value_t = 1, conflicts_with = "max_parts")]
    k: usize,

    /// The most all nodes on the way together may take [default: 1 % of the amount and 50 sat].
    #[arg(long, value_name = "SAT")]
    max_fee_sat: Option<u64>,

    /// The most blocks until the first HTLC expires.
    #[arg(long, value_name = "BLOCKS", default_value_t = 1008)]
    max_blocks: u32,

    /// The most channels of a route.
    #[arg(long, value_name = "COUNT", default_value_t = 20)]
    max_hops: usize,

    /// The payee's min_final_cltv_expiry_delta.
    #[arg(long, value_name = "BLOCKS", default_value_t = 18)]
    final_blocks: u16,

    /// The height now: expiries are shown as heights above it.
    #[arg(long, value_name = "BLOCK", default_value_t = 0)]
    height: u32,

    /// Print JSON instead of tables.
    #[arg(long)]
    json: bool,
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

/// Answers, as text.
///
/// # Errors
/// See [`RouteError`].
pub(crate) fn run(args: &RouteArgs) -> Result<String, RouteError> {
    let topology = fulmen_topology::import(&args.graph)?;
    let keys: Vec<NodeId> = topology.nodes().iter().filter_map(key).collect();
    let from = find_key("--from", &args.from, &keys)?;
    let to = find_key("--to", &args.to, &keys)?;
    let snapshot = lay_out(&topology, &keys)?;
    let knowledge = Knowledge::default();
    let amount = Sat(args.amount_sat).to_msat();
    let query = Query {
        height: BlockHeight(args.height),
        final_cltv_delta: CltvDelta(args.final_blocks),
        limits: Limits {
            max_fee: args.max_fee_sat.map_or(Msat(amount.0 / 100 + 50_000), |sat| Sat(sat).to_msat()),
            max_cltv_blocks: args.max_blocks,
            max_hops: args.max_hops.min(HOPS_MAX),
        },
        weights: Weights::default(),
        ..Query::new(from, to, amount, &knowledge)
    };
    let answers = if args.max_parts > 1 {
        PartFinder::new().find(&snapshot, &query, args.max_parts).map(|parts| vec![parts])
    } else {
        let routes = alternatives(&mut Finder::new(), &snapshot, &query, args.k.max(1));
        routes.map(|routes| routes.into_iter().map(Parts::from).collect())
    };
    let answers = answers.map_err(|reason| RouteError::NoRoute(explain(&reason, &query, args)))?;
    if args.json {
        let answers: Vec<Value> = answers.iter().map(|parts| as_json(&snapshot, &query, parts)).collect();
        return serde_json::to_string_pretty(&json!({ "routes": answers }))
            .map_err(|error| RouteError::NoRoute(error.to_string()));
    }
    let mut text = String::new();
    for (at, parts) in answers.iter().enumerate() {
        table(&mut text, &snapshot, &query, parts, (at + 1, answers.len()));
    }
    Ok(text)
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

/// The graph, each channel named by its place.
fn lay_out(topology: &Topology, keys: &[NodeId]) -> Result<Snapshot, ConversionError> {
    let scids: Vec<Scid> = (0..topology.channels().len() as u64).map(Scid).collect();
    Ok(Snapshot::new(&topology.channel_graph(keys, &scids)?))
}

/// Why there is no route, and the remedy.
fn explain(reason: &NoRoute, query: &Query<'_>, args: &RouteArgs) -> String {
    let sat = args.amount_sat;
    match reason {
        NoRoute::OverLimits { max_fee, max_cltv_blocks, max_hops, .. } => {
            let fee = max_fee.map(|fee| format!("--max-fee-sat {}", fee.0.div_ceil(1000)));
            let blocks = max_cltv_blocks.map(|blocks| format!("--max-blocks {blocks}"));
            let hops = max_hops.map(|hops| format!("--max-hops {hops}"));
            let enough: Vec<String> = [fee, blocks, hops].into_iter().flatten().collect();
            let limits = format!(
                "a fee of {} sat, {} blocks and {} hops",
                query.limits.max_fee.0 / 1000,
                query.limits.max_cltv_blocks,
                query.limits.max_hops
            );
            if enough.is_empty() {
                format!(
                    "no route for {sat} sat within {limits}; no one limit alone is to blame, loosen several"
                )
            } else {
                format!("no route for {sat} sat within {limits}; {} would do", enough.join(" or "))
            }
        }
        NoRoute::Unreachable { .. } if args.max_parts > 1 => format!(
            "no route and no split into {} parts found for {sat} sat; try a smaller --amount-sat",
            args.max_parts
        ),
        NoRoute::Unreachable { .. } => {
            format!(
                "no channels carry {sat} sat there in one part; try --max-parts 10 or a smaller --amount-sat"
            )
        }
        NoRoute::SelfPayment { .. } => "--from and --to are one node; give two".to_owned(),
        NoRoute::ZeroAmount => "a payment of nothing has no route; give --amount-sat 1 or more".to_owned(),
        NoRoute::SearchLimitReached { .. } => format!("{reason}; loosen --max-blocks or --max-hops"),
        other => format!("{other}; check --from and --to"),
    }
}

/// An amount of millisatoshis in satoshis.
fn in_sat(amount: Msat) -> String {
    format!("{}.{:03}", amount.0 / 1000, amount.0 % 1000)
}

/// One answer as a table: for each part its amount and its hops.
fn table(text: &mut String, snapshot: &Snapshot, query: &Query<'_>, parts: &Parts, (at, of): (usize, usize)) {
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
            "  {:>8}  {:66}  {:>16}  {:>12}  {:>8}  {:>7}",
            head[0], head[1], head[2], head[3], head[4], head[5]
        );
        let own = Query { amount: paid, ..query.clone() };
        for (hop, success) in route.hops.iter().zip(hop_successes(snapshot, &own, route)) {
            let _ = writeln!(
                text,
                "  {:>8}  {:66}  {:>16}  {:>12}  {:>8}  {:>5.1} %",
                hop.scid.0,
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
fn as_json(snapshot: &Snapshot, query: &Query<'_>, parts: &Parts) -> Value {
    let part = |route: &Route| {
        let paid = route.total_amount.saturating_sub(route.fee);
        let own = Query { amount: paid, ..query.clone() };
        let hops: Vec<Value> = route
            .hops
            .iter()
            .zip(hop_successes(snapshot, &own, route))
            .map(|(hop, success)| {
                json!({
                    "channel": hop.scid.0,
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
