//! A node under attack: 1,000 payments per second, undisturbed and then beside 50 adversaries that each offer 1 MB/s of
//! the messages that cost most per byte (`engine/sim/COSTS.md`).
//!
//! `cargo run --release -p fulmen-bench --example attack -- [seconds of each phase] [workers] [directory] [kind]`, for
//! example `10 1 /var/tmp`; `kind` (0 to 4) has all adversaries send the same message. The records are on disk, below
//! `target` unless a directory is given. Prints for both phases the payments per second and per CPU second of the node,
//! latencies of rounds of ten payments, and the adversaries' bytes offered, read and answered. The adversaries are
//! strangers; rows of `COSTS.md` that need a channel are not part of it.

use std::path::PathBuf;
use std::time::Duration;

use fulmen_bench::transcript::{Attacked, Phase, Setup, Transcript};

/// Pairs of payer and payee.
const PAIRS: usize = 10;
/// Payments that a pair makes at once.
const DEPTH: u64 = 10;
/// Rounds of a pair per second: 1,000 payments of all pairs.
const ROUNDS_PER_SECOND: u64 = 10;
const ADVERSARIES: usize = 50;
const BYTES_PER_SECOND: u64 = 1_000_000;
const KINDS: [&str; 5] = [
    "`ping` for 0 bytes",
    "`ping` for 65,531 bytes",
    "`open_channel`-like message of an unknown odd type",
    "`error` of 65 kB",
    "`channel_reestablish` of no channel",
];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let argument =
        |index: usize, default: &str| arguments.get(index).map_or(default.to_owned(), String::clone);
    let seconds: u64 = argument(0, "10").parse().expect("seconds");
    let workers: usize = argument(1, "1").parse().expect("a number of workers");
    let directory = PathBuf::from(argument(2, "target"));
    let kind: Option<usize> = arguments.get(3).map(|kind| kind.parse().expect("a kind"));
    let transcript = Transcript::record(workers, PAIRS, DEPTH, 2 * seconds * ROUNDS_PER_SECOND);
    let floods = (0..ADVERSARIES).map(|number| flood(kind.unwrap_or(number % KINDS.len()))).collect();
    let attacked = Attacked {
        round_period: Duration::from_millis(1_000 / ROUNDS_PER_SECOND),
        depth: DEPTH,
        bytes_per_second: BYTES_PER_SECOND,
        floods,
    };
    let kept = tempfile::tempdir_in(&directory).expect("a directory to write to");
    let [alone, attack] = transcript.attacked(Setup { workers, directory: Some(kept.path()) }, &attacked);
    println!("adversaries send {}", kind.map_or("all kinds", |kind| KINDS[kind]));
    println!(
        "phase        payments/s  per CPU s  p50 ms  p99 ms  offered MB/s  read MB/s  answered MB/s  disconnects"
    );
    row("undisturbed", &alone);
    row("attacked", &attack);
    println!(
        "payments per CPU second: {:.0}% of undisturbed; p99: {:.1} times",
        100.0 * per_cpu_second(&attack) / per_cpu_second(&alone),
        quantile(&attack, 0.99) / quantile(&alone, 0.99),
    );
}

fn row(name: &str, phase: &Phase) {
    let seconds = phase.took.as_secs_f64();
    let rate = |bytes: u64| bytes as f64 / 1e6 / seconds;
    println!(
        "{name:11} {:11.0} {:10.0} {:7.2} {:7.2} {:13.2} {:10.2} {:14.2} {:12}",
        phase.payments as f64 / seconds,
        per_cpu_second(phase),
        quantile(phase, 0.5),
        quantile(phase, 0.99),
        rate(phase.offered_bytes),
        rate(phase.read_bytes),
        rate(phase.answered_bytes),
        phase.disconnects,
    );
}

fn per_cpu_second(phase: &Phase) -> f64 {
    phase.payments as f64 / phase.node_cpu.as_secs_f64()
}

/// Milliseconds.
fn quantile(phase: &Phase, share: f64) -> f64 {
    let index = ((phase.latencies.len() as f64 * share) as usize).min(phase.latencies.len() - 1);
    phase.latencies[index].as_secs_f64() * 1e3
}

/// A message of this kind, from its type on (BOLT 1).
fn flood(kind: usize) -> Vec<u8> {
    let ping = |pong_bytes: u16| [&18_u16.to_be_bytes()[..], &pong_bytes.to_be_bytes(), &[0, 0]].concat();
    match kind {
        0 => ping(0),
        1 => ping(65_531),
        2 => [&0x8001_u16.to_be_bytes()[..], &[7; 320]].concat(),
        3 => {
            let text = vec![b'x'; 65_400];
            let length = 65_400_u16.to_be_bytes();
            [&17_u16.to_be_bytes()[..], &[9; 32], &length, &text].concat()
        }
        _ => [&136_u16.to_be_bytes()[..], &[9; 32], &[0, 0, 0, 0, 0, 0, 0, 1], &[0; 8], &[1; 32], &[2; 33]]
            .concat(),
    }
}
