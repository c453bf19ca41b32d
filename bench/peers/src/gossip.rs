//! `gossip`: LDK's `P2PGossipSync` and Fulmen's `Gossip` take in the same signed network, from bytes to a graph.
//!
//! LDK takes one message at a time, which is all it can; Fulmen takes batches. Neither looks funding outputs up. Each
//! round starts both on empty graphs, LDK first; signing is done before.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use bitcoin::Network;
use clap::Args;
use fulmen_bench::gossip::{Gossip as Sample, Shape};
use fulmen_graph::ChannelGraph;
use fulmen_graph::gossip::{FundingCheck, Gossip, GossipConfig, GossipTime, IncomingGossip, Source};
use fulmen_secp::{Backend, Verifier};
use lightning::ln::msgs::{ChannelAnnouncement, ChannelUpdate, RoutingMessageHandler};
use lightning::routing::gossip::{NetworkGraph, P2PGossipSync};
use lightning::routing::utxo::UtxoLookup;
use lightning::util::logger::{Logger, Record};
use lightning::util::ser::LengthReadable;

use crate::measure::{Clock, Machine, Report, Row, microseconds, row};

/// What to measure.
#[derive(Args)]
pub(crate) struct Options {
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// Channels of the network; each has one announcement and two updates.
    #[arg(long, default_value_t = 50_000)]
    channels: usize,
    /// Nodes of the network.
    #[arg(long, default_value_t = 5_000)]
    nodes: usize,
    /// Measured rounds.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Messages that Fulmen takes at once.
    #[arg(long, default_value_t = 256)]
    batch: usize,
    /// Memory for the tables of Fulmen's verifier, in MiB.
    #[arg(long, default_value_t = 64)]
    key_cache_mib: usize,
    /// The backend of Fulmen's verifier, by name; every one that the processor has if none is named.
    #[arg(long, value_parser = crate::verify::available)]
    backend: Option<Backend>,
    /// Which network.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// Microseconds for all announcements and for all updates.
#[derive(Clone, Copy)]
struct Times {
    announcements: f64,
    updates: f64,
}

pub(crate) fn run(options: &Options) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    let timestamp = u32::try_from(now - 3_600).expect("before 2106");
    let shape = Shape { channels: options.channels, nodes: options.nodes, seed: options.seed, timestamp };
    eprintln!("signing {} messages", 3 * options.channels);
    let sample = Sample::new(shape);
    let backends: Vec<Backend> = match options.backend {
        Some(backend) => vec![backend],
        None => Backend::ALL.into_iter().filter(|backend| backend.is_available()).collect(),
    };
    let (mut peer, mut fulmen) = (Vec::new(), vec![Vec::new(); backends.len()]);
    // The first round warms up and is not counted.
    for number in 0..=options.rounds {
        let times = ldk(&sample);
        peer.extend((number > 0).then_some(times));
        for (all, backend) in fulmen.iter_mut().zip(&backends) {
            let times = ours(options, &sample, *backend, now);
            all.extend((number > 0).then_some(times));
        }
        eprintln!("round {number} of {}", options.rounds);
    }
    let mut rows = Vec::new();
    for (backend, fulmen) in backends.iter().zip(&fulmen) {
        let channels = options.channels as f64;
        let mut add = |case: &str, count: f64, time: fn(&Times) -> f64| {
            let each = |times: &[Times]| times.iter().map(|times| time(times) / count).collect();
            rows.push(with_rates(row(format!("gossip/{case}/{backend}"), each(&peer), each(fulmen))));
        };
        add("announcements", channels, |times| times.announcements);
        add("updates", 2.0 * channels, |times| times.updates);
        add("all", 3.0 * channels, |times| times.announcements + times.updates);
    }
    let report = Report { rows, machine: Machine::this(Backend::selected().to_string()) };
    report.print(options.json);
}

fn with_rates(mut row: Row) -> Row {
    row.further.insert("peer_per_second".into(), (1e6 / row.peer).round().into());
    row.further.insert("fulmen_per_second".into(), (1e6 / row.fulmen).round().into());
    row
}

/// Drops every record before it is formatted.
struct NoLog;

impl Logger for NoLog {
    fn log(&self, _: Record<'_>) {}
}

fn ldk(sample: &Sample) -> Times {
    let graph = Arc::new(NetworkGraph::new(Network::Bitcoin, Arc::new(NoLog)));
    let sync = P2PGossipSync::new(graph.clone(), None::<Arc<dyn UtxoLookup>>, Arc::new(NoLog));
    let announcements = microseconds(Clock::Thread, &mut || {
        for bytes in &sample.announcements {
            let message = ChannelAnnouncement::read_from_fixed_length_buffer(&mut &bytes[2..]);
            let message = message.expect("a well-formed announcement");
            sync.handle_channel_announcement(None, &message).expect("a valid announcement");
        }
    });
    let updates = microseconds(Clock::Thread, &mut || {
        for bytes in &sample.updates {
            let message = ChannelUpdate::read_from_fixed_length_buffer(&mut &bytes[2..]);
            let message = message.expect("a well-formed update");
            sync.handle_channel_update(None, &message).expect("a valid update");
        }
    });
    assert_eq!(graph.read_only().channels().len(), sample.announcements.len());
    Times { announcements, updates }
}

fn ours(options: &Options, sample: &Sample, backend: Backend, now: u64) -> Times {
    let mut config = GossipConfig::new(fulmen::wire::units::ChainHash::BITCOIN);
    config.funding_check = FundingCheck::Off;
    let verifier =
        Verifier::new().with_backend(backend).expect("available").with_key_cache(options.key_cache_mib << 20);
    let mut gossip = Gossip::open(config, verifier, Vec::new(), |_| {}).expect("a log in memory");
    let mut graph = ChannelGraph::new();
    let mut take = |messages: &[Vec<u8>]| {
        microseconds(Clock::Thread, &mut || {
            for batch in messages.chunks(options.batch) {
                let batch: Vec<IncomingGossip<'_>> =
                    batch.iter().map(|message| IncomingGossip { from: Source::Own, message }).collect();
                let outcome = gossip.ingest(&batch, GossipTime { unix_seconds: now, tip: None });
                assert_eq!(outcome.accepted, batch.len(), "every message is valid");
                outcome.changes.iter().for_each(|change| graph.apply(change).expect("a sound stream"));
                gossip.flush().expect("a log in memory");
            }
        })
    };
    let times = Times { announcements: take(&sample.announcements), updates: take(&sample.updates) };
    assert_eq!(graph.channel_count(), sample.announcements.len());
    times
}
