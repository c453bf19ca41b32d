//! Threads and a writer: Fulmen against itself.
//!
//! `route/threads/2`: queries per second of two threads against one, while a writer applies 10,000 policy updates per
//! second. `route/threads/writer/p99`: the 99th percentile of one thread's wall-clock query times, with that writer
//! against without. Every query is a fresh pair; on a machine with two cores the writer takes its share of them.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::measure::{Clock, Row, microseconds, spread};
use crate::route::compare::percentile;
use crate::route::evaluate::Ask;
use crate::route::network::{Network, Update};
use crate::route::ours::{Ours, Seeker};
use crate::route::{Mode, Options};

/// How often the writer applies a batch, and how many updates that is.
const BATCH_EVERY: Duration = Duration::from_millis(1);
const BATCH: usize = 10;

/// How often each setting is measured.
const ROUNDS: usize = 5;

/// The result of one run.
struct Run {
    queries_a_second: f64,
    p99_us: f64,
    /// CPU time of the readers alone, which tells whether they hold each other up even where other work takes
    /// processors from them.
    cpu_us_a_query: f64,
    updates_a_second: f64,
}

/// Gives the rows.
pub(crate) fn run(options: &Options, network: &mut Network, mode: &Mode) -> Vec<Row> {
    let ours = Ours::new(network.graph.clone());
    let amounts = &options.amounts_sat;
    let mut asks = |count: usize| -> Vec<Ask> {
        (0..count).map(|at| network.ask(amounts[at % amounts.len()] * 1000)).collect()
    };
    let asks = asks(options.queries * 50);
    let updates: Vec<Update> = (0..10_000).map(|_| network.update()).collect();
    let mut measured = [const { Vec::new() }; 3];
    for _ in 0..ROUNDS {
        for (runs, (threads, writes)) in measured.iter_mut().zip([(1, false), (1, true), (2, true)]) {
            runs.push(one(&ours, mode, &asks, threads, &updates, writes));
        }
    }
    let [quiet, one, two] = &measured;
    let speed = |runs: &[Run]| spread(&mut runs.iter().map(|run| run.queries_a_second).collect::<Vec<_>>());
    let p99 = |runs: &[Run]| spread(&mut runs.iter().map(|run| run.p99_us).collect::<Vec<_>>());
    let row = |case: &str, unit, peer: (f64, f64, f64), fulmen: (f64, f64, f64), ratio, further| Row {
        case: case.into(),
        unit,
        peer: peer.1,
        peer_min: peer.0,
        peer_max: peer.2,
        fulmen: fulmen.1,
        fulmen_min: fulmen.0,
        fulmen_max: fulmen.2,
        ratio,
        further,
    };
    let written: Vec<f64> = two.iter().chain(one).map(|run| run.updates_a_second).collect();
    let cpu = |runs: &[Run]| spread(&mut runs.iter().map(|run| run.cpu_us_a_query).collect::<Vec<_>>()).1;
    let further = json!({
        "updates_a_second": written,
        "cpu_us_a_query_without_writer": cpu(quiet),
        "cpu_us_a_query_one_thread": cpu(one),
        "cpu_us_a_query_two_threads": cpu(two),
    });
    let further = further.as_object().cloned().unwrap_or_default();
    let (single, double) = (speed(one), speed(two));
    let (without, with) = (p99(quiet), p99(one));
    vec![
        row("route/threads/2", "1/s", single, double, double.1 / single.1, further.clone()),
        row("route/threads/writer/p99", "us", without, with, without.1 / with.1, further),
    ]
}

/// So many threads that share the queries, and the writer beside them.
fn one(ours: &Ours, mode: &Mode, asks: &[Ask], threads: usize, updates: &[Update], writes: bool) -> Run {
    let next = AtomicUsize::new(0);
    let (done, written) = (AtomicBool::new(false), AtomicUsize::new(0));
    let start = Instant::now();
    let mut times: Vec<f64> = Vec::new();
    let mut cpu_us = 0.0;
    let mut seconds = 0.0;
    thread::scope(|scope| {
        if writes {
            scope.spawn(|| write(ours, updates, &done, &written));
        }
        let readers: Vec<_> = (0..threads).map(|_| scope.spawn(|| read(ours, mode, asks, &next))).collect();
        for reader in readers {
            let (walls, cpu) = reader.join().expect("readers do not panic");
            times.extend(walls);
            cpu_us += cpu;
        }
        seconds = start.elapsed().as_secs_f64();
        done.store(true, Ordering::Relaxed);
    });
    let queries = times.len() as f64;
    times.sort_by(f64::total_cmp);
    Run {
        queries_a_second: queries / seconds,
        p99_us: percentile(&times, 99),
        cpu_us_a_query: cpu_us / queries,
        updates_a_second: written.load(Ordering::Relaxed) as f64 / seconds,
    }
}

/// Takes queries from a shared counter until none is left, since their durations differ a thousandfold. Returns the
/// wall-clock time of each, and the CPU time of all.
fn read(ours: &Ours, mode: &Mode, asks: &[Ask], next: &AtomicUsize) -> (Vec<f64>, f64) {
    let mut seeker = Seeker::default();
    let mut times = Vec::new();
    let cpu = microseconds(Clock::Thread, &mut || {
        while let Some(ask) = asks.get(next.fetch_add(1, Ordering::Relaxed)) {
            times.push(microseconds(Clock::Wall, &mut || {
                std::hint::black_box(ours.answer(&mut seeker, ask, mode));
            }));
        }
    });
    (times, cpu)
}

/// Applies batches as they fall due, until told that it is enough.
fn write(ours: &Ours, updates: &[Update], done: &AtomicBool, written: &AtomicUsize) {
    let start = Instant::now();
    for (number, batch) in updates.chunks(BATCH).cycle().enumerate() {
        if done.load(Ordering::Relaxed) {
            return;
        }
        let due = BATCH_EVERY * number as u32;
        thread::sleep(due.saturating_sub(start.elapsed()));
        ours.update(batch);
        written.fetch_add(batch.len(), Ordering::Relaxed);
    }
}
