//! The report of a run, put together from the results of its stages.
//!
//! Owns: ending the nodes, both halves of the funds check, the digest, and the figures that need several stages. Does
//! not measure anything.

use std::time::Instant;

use fulmen_wire::units::Msat;

use super::{LiveNetwork, OpenChannels, Paid, RunError, workers};
use crate::accounting::{self, ChannelBooks};
use crate::cli::RunArgs;
use crate::digest::RunDigest;
use crate::network::{self, Network};
use crate::report::{self, Crypto, Report, Stage};
use crate::sim_node::SimNode;
use crate::treasury::Treasury;

impl LiveNetwork<'_> {
    /// Checks the funds and writes everything down.
    ///
    /// # Errors
    /// When a worker has panicked.
    pub(super) fn report(
        self,
        channels: &OpenChannels,
        paid: &Paid,
        stages: Vec<Stage>,
        begun: Instant,
    ) -> Result<Report, RunError> {
        let LiveNetwork { args, network, treasury, exec, .. } = self;
        let Paid { tally, metrics, cpu, wall } = paid;
        let nodes = exec.finish().map_err(|cause| RunError::Stalled {
            stage: "ending",
            cause,
            done: 0,
            wanted: 0,
        })?;
        let books = books(&network, channels);
        let funds = check_funds(&treasury, &nodes, &books);
        let digest =
            RunDigest { fates: tally.fates(), channels: &books, funds: &funds, txids: treasury.txids() }
                .hex();
        let forwards: u64 = nodes.iter().map(|node| node.ledger().forwards).sum();
        let seconds = wall.as_secs_f64().max(1e-9);
        let cpu = cpu.map(|cpu| cpu.as_secs_f64());
        Ok(Report {
            schema: report::SCHEMA,
            version: env!("CARGO_PKG_VERSION"),
            seed: args.seed,
            settings: settings(args, workers(args, network.nodes())),
            topology: report::Topology {
                spec: args.topology.to_string(),
                nodes: network.nodes() as u64,
                channels: channels.list.len() as u64,
                capacity_sat: network.capacity().0,
            },
            chain: report::ChainFigures {
                backend: args.chain.to_string(),
                blocks: treasury.blocks(),
                channels_opened: treasury.audit().channels_opened(),
                channels_closed: treasury.audit().channels_closed(),
            },
            payments: tally.payments(),
            parts: tally.parts(),
            faulty: tally.faulty(),
            forwards,
            fees_earned_msat: nodes.iter().map(|node| node.ledger().earned).sum::<Msat>().0,
            hops: metrics.hops(),
            throughput: report::Throughput {
                payments_per_s: args.payments as f64 / seconds,
                forwards_per_s: forwards as f64 / seconds,
            },
            latency_us: metrics.latency(),
            learning: None,
            funds,
            crypto: nodes.iter().map(SimNode::crypto).fold(Crypto::default(), Crypto::plus),
            cpu: report::Cpu {
                nodes_s: cpu,
                us_per_forward: cpu.filter(|_| forwards > 0).map(|cpu| cpu * 1e6 / forwards as f64),
            },
            digest,
            stages,
            wall_s: begun.elapsed().as_secs_f64(),
            plots: report::Plots {
                latency: metrics.latency_buckets(),
                timeline: metrics.timeline(),
                edges: edges(&network),
            },
        })
    }
}

/// The channels as the funds check needs them.
fn books(network: &Network, channels: &OpenChannels) -> Vec<ChannelBooks> {
    let pairs = network.channels().iter().zip(&channels.list);
    pairs
        .map(|(planned, opened)| ChannelBooks {
            opener: planned.opener,
            acceptor: planned.acceptor,
            push: planned.push,
            closing_balances: opened.balances[0].zip(opened.balances[1]).map(|(one, other)| [one, other]),
        })
        .collect()
}

/// Both halves of the funds check, and that no node still holds anything.
fn check_funds(treasury: &Treasury, nodes: &[SimNode], books: &[ChannelBooks]) -> report::Funds {
    let ledgers: Vec<_> = nodes.iter().map(|node| node.ledger().clone()).collect();
    let mut funds = accounting::check(treasury.audit(), &ledgers, books);
    for (index, node) in nodes.iter().enumerate().filter(|(_, node)| node.unresolved() > 0) {
        funds.conserved = false;
        funds.findings.push(format!("node {index} still holds {} HTLCs or payments", node.unresolved()));
    }
    funds
}

/// Networks with more channels are not drawn.
const EDGES_MAX: usize = 3_000;

/// The channels to draw; none for a network too large for it.
fn edges(network: &Network) -> Vec<report::Edge> {
    if network.channels().len() > EDGES_MAX {
        return Vec::new();
    }
    let index = |node: usize| u32::try_from(node).unwrap_or(u32::MAX);
    let edge = |channel: &network::PlannedChannel| report::Edge {
        a: index(channel.opener),
        b: index(channel.acceptor),
        capacity_sat: channel.capacity.0,
    };
    network.channels().iter().map(edge).collect()
}

fn settings(args: &RunArgs, workers: usize) -> report::Settings {
    report::Settings {
        payments: args.payments,
        in_flight: args.in_flight as u64,
        amount_min_msat: args.amount_msat.min.0,
        amount_max_msat: args.amount_msat.max.0,
        faulty_share: args.faulty,
        attempts: args.attempts,
        max_parts: args.max_parts as u64,
        hidden_liquidity: args.hidden_liquidity,
        deterministic: args.deterministic,
        workers: workers as u64,
    }
}
