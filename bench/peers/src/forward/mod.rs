//! `forward`: compares LDK's `ChannelManager` with Fulmen's runtime as forwarders of the same HTLCs.
//!
//! Owns the command line, the order of trials and the rows. A row gives the CPU time per payment of each forwarder in
//! microseconds, and their ratio, LDK's over Fulmen's. For each case, each forwarder runs in a separate network with
//! the same kind of payers and payees. Trials alternate between the two forwarders, after one unmeasured trial each.
//! The direction of payments alternates from trial to trial, so that no channel runs dry.

mod clock;
mod engine;
mod fulmen_end;
mod ldk;
mod member;
mod net;
pub(crate) mod restart;
mod stand_ins;

use std::path::PathBuf;

use bitcoin::Network;
use bitcoin::constants::genesis_block;
use clap::{Args, ValueEnum};
use fulmen_secp::Backend;
use hdrhistogram::Histogram;
use serde_json::{Map, Value, json};
use tempfile::TempDir;

use crate::measure::{Machine, Report, Row, spread};
use engine::EngineForwarder;
use fulmen_end::FulmenEnd;
use ldk::LdkNode;
use member::{Endpoint, Forwarder};
use net::{HEIGHT, Load, Net, Trial};

/// The flags of `forward`.
#[derive(Args)]
pub(crate) struct Options {
    /// HTLCs in flight at once; one case for each number.
    #[arg(long, value_delimiter = ',', default_value = "1,10,100,400")]
    in_flight: Vec<usize>,
    /// The amount of each payment, in msat. 700000 is above both sides' dust limits, 10000 below.
    #[arg(long, default_value_t = 700_000)]
    amount_msat: u64,
    /// When the next payments start: one for each that is done, or all once the last are settled.
    #[arg(long, value_delimiter = ',', default_value = "closed-loop,waves")]
    pattern: Vec<Pattern>,
    /// Who pays and is paid.
    #[arg(long, value_delimiter = ',', default_value = "ldk")]
    endpoints: Vec<Ends>,
    /// Where Fulmen writes its records.
    #[arg(long, default_value = "disk")]
    store: Store,
    /// Whether LDK persists its monitors: never, or each one in full at every update, to a file that is synced.
    #[arg(long, default_value = "none")]
    ldk_persist: LdkPersist,
    /// Channels of the forwarder; two carry payments and the others are idle, unless --active.
    #[arg(long, value_delimiter = ',', default_value = "2")]
    channels: Vec<usize>,
    /// Use all channels for payments instead of two; with an odd number of channels, one stays idle.
    #[arg(long)]
    active: bool,
    /// Measured trials per case and forwarder.
    #[arg(long, default_value_t = 7)]
    trials: usize,
    /// Payments per trial; by default a number that grows with the HTLCs in flight, 100 at least.
    #[arg(long)]
    payments: Option<usize>,
    /// Fulmen's worker threads.
    #[arg(long, default_value_t = 1)]
    workers: usize,
    /// The directory for stores, by default the system's for temporary files. It should be on a disk, not in memory.
    #[arg(long)]
    directory: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Pattern {
    ClosedLoop,
    Waves,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Ends {
    Ldk,
    Fulmen,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Store {
    Memory,
    Disk,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum LdkPersist {
    None,
    Full,
}

/// The parameters of one row.
#[derive(Clone, Copy)]
struct Case {
    in_flight: usize,
    pattern: Pattern,
    ends: Ends,
    channels: usize,
}

/// HTLCs below this amount are dust on both sides.
const DUST_MSAT: u64 = 354_000;

pub(crate) fn run(options: &Options) {
    let mut rows = Vec::new();
    for &ends in &options.endpoints {
        for &channels in &options.channels {
            for &in_flight in &options.in_flight {
                for &pattern in &options.pattern {
                    rows.push(options.measure(Case { in_flight, pattern, ends, channels }));
                }
            }
        }
    }
    let machine = Machine::this(Backend::selected().to_string());
    Report { rows, machine }.print(options.json);
}

impl Options {
    fn measure(&self, case: Case) -> Row {
        let name = self.name(case);
        let directories = [self.temporary(), self.temporary()];
        let ldk = self.net(case, |tip| {
            let directory = directories[0].path().to_owned();
            let directory = (self.ldk_persist == LdkPersist::Full).then_some(directory);
            Box::new(LdkNode::new(0, tip, HEIGHT, directory))
        });
        let fulmen = self.net(case, |_| {
            let directory = directories[1].path().to_owned();
            let directory = (self.store == Store::Disk).then_some(directory);
            Box::new(EngineForwarder::new(self.workers, directory))
        });
        let mut nets = [ldk, fulmen];
        let mut trials = [Vec::new(), Vec::new()];
        for trial in 0..=self.trials {
            for (net, trials) in nets.iter_mut().zip(&mut trials) {
                let result = net.run(self.load(case, trial));
                if trial > 0 {
                    trials.push(result);
                }
            }
        }
        let [ldk, fulmen] = trials;
        let mut row = row(name, &ldk, &fulmen);
        drop(nets);
        if self.store == Store::Disk
            && case.channels != 2
            && let Some((ms, bytes)) = restart::measure(directories[1].path())
        {
            row.further.insert("fulmen_restart_ms".to_owned(), json!(ms));
            row.further.insert("fulmen_memory_bytes_per_channel".to_owned(), json!(bytes));
        }
        eprintln!("{}: {:.2}", row.case, row.ratio);
        row
    }

    /// The case's name: depth, pattern, then the differences from the command without options.
    fn name(&self, case: Case) -> String {
        let pattern = if case.pattern == Pattern::Waves { "waves" } else { "closed-loop" };
        let mut name = format!("forward/{}/{pattern}", case.in_flight);
        let mut add = |differs: bool, suffix: &str| {
            if differs {
                name += suffix;
            }
        };
        add(self.amount_msat < DUST_MSAT, "/dust");
        add(self.store == Store::Memory, "/store-memory");
        add(self.ldk_persist == LdkPersist::Full, "/persist-full");
        add(case.channels != 2, &format!("/channels-{}", case.channels));
        add(self.active, "/active");
        add(self.workers != 1, &format!("/workers-{}", self.workers));
        add(case.ends == Ends::Fulmen, "/fulmen-endpoints");
        name
    }

    fn load(&self, case: Case, trial: usize) -> Load {
        let payments = self.payments.unwrap_or(match case.in_flight {
            1 => 100,
            depth if depth < 100 => 30 * depth.clamp(8, 16),
            depth => (4 * depth).max(800),
        });
        Load {
            in_flight: case.in_flight,
            payments,
            waves: case.pattern == Pattern::Waves,
            amount_msat: self.amount_msat,
            backwards: trial % 2 == 1,
        }
    }

    /// A network around a forwarder. The peers of idle channels are Fulmen nodes in every case: they send nothing, so
    /// their implementation does not affect the result.
    fn net(&self, case: Case, forwarder: impl FnOnce(bitcoin::BlockHash) -> Box<dyn Forwarder>) -> Net {
        let tip = genesis_block(Network::Regtest).block_hash();
        let active = if self.active { case.channels & !1 } else { 2 };
        let ends = (1..=case.channels as u64).map(|seed| -> Box<dyn Endpoint> {
            match case.ends {
                Ends::Ldk if seed <= active as u64 => Box::new(LdkNode::new(seed, tip, HEIGHT, None)),
                _ => Box::new(FulmenEnd::new(seed)),
            }
        });
        Net::new(forwarder(tip), ends.collect(), active)
    }

    fn temporary(&self) -> TempDir {
        let made = match &self.directory {
            Some(directory) => tempfile::tempdir_in(directory),
            None => tempfile::tempdir(),
        };
        made.unwrap_or_else(|error| panic!("no directory for a store: {error}"))
    }
}

fn row(case: String, ldk: &[Trial], fulmen: &[Trial]) -> Row {
    let microseconds = |trials: &[Trial]| -> Vec<f64> {
        trials.iter().map(|trial| trial.usage.cpu_ns as f64 / 1e3 / trial.payments as f64).collect()
    };
    let (mut peer, mut ours) = (microseconds(ldk), microseconds(fulmen));
    let mut ratios: Vec<f64> = peer.iter().zip(&ours).map(|(peer, ours)| peer / ours).collect();
    let (peer_min, peer, peer_max) = spread(&mut peer);
    let (fulmen_min, fulmen_median, fulmen_max) = spread(&mut ours);
    let (_, ratio, _) = spread(&mut ratios);
    let mut further = Map::new();
    for (side, trials) in [("peer", ldk), ("fulmen", fulmen)] {
        for (name, value) in figures(trials) {
            further.insert(format!("{side}_{name}"), value);
        }
    }
    Row {
        case,
        unit: "us",
        peer,
        peer_min,
        peer_max,
        fulmen: fulmen_median,
        fulmen_min,
        fulmen_max,
        ratio,
        further,
    }
}

/// One forwarder's figures per payment: the median trial's counts, and quantiles of its wall-clock latencies.
fn figures(trials: &[Trial]) -> Vec<(&'static str, Value)> {
    let each = |count: fn(&Trial) -> u64| {
        let mut values: Vec<f64> =
            trials.iter().map(|trial| count(trial) as f64 / trial.payments as f64).collect();
        json!((spread(&mut values).1 * 1e4).round() / 1e4)
    };
    let mut figures = vec![
        ("htlc_signatures_verified", each(|trial| trial.signatures_in)),
        ("htlc_signatures_made", each(|trial| trial.signatures_out)),
        ("commitments_received", each(|trial| trial.commitments_in)),
        ("commitments_sent", each(|trial| trial.commitments_out)),
        ("syncs", each(|trial| trial.usage.syncs)),
        ("bytes_written", each(|trial| trial.usage.bytes_written)),
    ];
    let offered = histogram(trials.iter().flat_map(|trial| &trial.offered_ns));
    let held = histogram(trials.iter().flat_map(|trial| &trial.held_ns));
    figures.push(("offered_after_us_p50", quantile_us(&offered, 0.5)));
    figures.push(("offered_after_us_p99", quantile_us(&offered, 0.99)));
    figures.push(("held_us_p50", quantile_us(&held, 0.5)));
    figures.push(("held_us_p99", quantile_us(&held, 0.99)));
    figures
}

fn histogram<'a>(nanoseconds: impl Iterator<Item = &'a u64>) -> Histogram<u64> {
    let mut histogram = Histogram::new(3).expect("three digits are allowed");
    nanoseconds.for_each(|value| histogram.record(*value).expect("it grows by itself"));
    histogram
}

fn quantile_us(histogram: &Histogram<u64>, quantile: f64) -> Value {
    json!(histogram.value_at_quantile(quantile) as f64 / 1e3)
}
