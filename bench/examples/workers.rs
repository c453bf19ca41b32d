//! How the runtime scales with its workers: forwards per second of the forwarder alone, and its CPU time.
//!
//! `cargo run --release -p fulmen-bench --example workers -- [depths] [trials] [memory|durable] [workers]
//! [directory]`, for example `100,400 9 memory 1,2`. Prints medians. `durable` writes below the directory, `target`
//! unless given. The forwarder's peers are a recording (see `fulmen_bench::transcript`).

use std::path::PathBuf;

use fulmen_bench::transcript::{Played, Setup, Transcript};

/// Pairs of payer and payee; each has its share of the depth in flight.
const PAIRS: usize = 10;
/// Forwards of a trial, about.
const FORWARDS: u64 = 4_000;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let argument =
        |index: usize, default: &str| arguments.get(index).map_or(default.to_owned(), String::clone);
    let numbers = |index, default| -> Vec<u64> {
        argument(index, default).split(',').map(|number| number.parse().expect("a number")).collect()
    };
    let (depths, trials) = (numbers(0, "100,400"), numbers(1, "9")[0]);
    let workers: Vec<usize> =
        numbers(3, "1,2").into_iter().map(|workers| usize::try_from(workers).expect("few")).collect();
    let durable = argument(2, "memory") == "durable";
    let directory = PathBuf::from(argument(4, "target"));
    println!("depth workers  forwards/s [min..max]   engine us/forward  player us/forward  cores busy");
    for depth in depths {
        let each = (depth / PAIRS as u64).max(1);
        let rounds = (FORWARDS / (each * PAIRS as u64)).max(1);
        let transcripts: Vec<Transcript> =
            workers.iter().map(|workers| Transcript::record(*workers, PAIRS, each, rounds)).collect();
        let mut played: Vec<Vec<Played>> = vec![Vec::new(); workers.len()];
        // Alternating, so that other load on the machine affects all alike.
        for _ in 0..trials {
            for (index, transcript) in transcripts.iter().enumerate() {
                let kept =
                    durable.then(|| tempfile::tempdir_in(&directory).expect("a directory to write to"));
                let directory = kept.as_ref().map(tempfile::TempDir::path);
                played[index].push(transcript.play(Setup { workers: workers[index], directory }));
            }
        }
        for ((workers, transcript), mut played) in workers.iter().zip(&transcripts).zip(played) {
            played.sort_by_key(|played| std::cmp::Reverse(played.took));
            let forwards = transcript.forwards() as f64;
            let rate = |played: &Played| forwards / played.took.as_secs_f64();
            let median = &played[played.len() / 2];
            let (engine, player) = (median.engine_cpu.as_secs_f64(), median.player_cpu.as_secs_f64());
            println!(
                "{depth:5} {workers:7}  {:10.0} [{:.0}..{:.0}]   {:17.1}  {:17.1}  {:10.2}",
                rate(median),
                rate(&played[0]),
                rate(&played[played.len() - 1]),
                engine * 1e6 / forwards,
                player * 1e6 / forwards,
                (engine + player) / median.took.as_secs_f64(),
            );
            let Played { stats, .. } = median;
            println!(
                "      {:.2} signatures checked and {:.2} made, {:.3} turns, {:.3} syncs a forward, {:?} from input to effect",
                stats.crypto.ecdsa_verified as f64 / forwards,
                stats.crypto.ecdsa_signed as f64 / forwards,
                stats.shards.iter().map(|shard| shard.turns).sum::<u64>() as f64 / forwards,
                stats.store.syncs as f64 / forwards,
                stats.latency.quantile(0.5),
            );
        }
    }
}
