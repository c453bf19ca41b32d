//! Seeded runs of the simulator over the whole engine: faults below, checkers above.
//!
//! `FULMEN_SIM_SEED=N` replays one seed and prints its trace; `FULMEN_SIM_RUNS=N` runs that many seeds, the
//! first being `FULMEN_SIM_FIRST`.

use fulmen_sim::{Options, Report, run, run_choices};

/// Few enough for every build; run thousands by hand after a change to channels or forwarding.
const RUNS: u64 = 12;

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|value| value.parse().expect("a number"))
}

fn simulate(seed: u64, options: Options) -> Report {
    run(seed, options).unwrap_or_else(|failure| panic!("{failure}"))
}

#[test]
fn no_checker_finds_anything_on_any_seed() {
    if let Some(seed) = number("FULMEN_SIM_SEED") {
        println!("{:?}", simulate(seed, Options { echo: true }));
        return;
    }
    let (first, runs) = (number("FULMEN_SIM_FIRST").unwrap_or(0), number("FULMEN_SIM_RUNS").unwrap_or(RUNS));
    let mut total = Report::default();
    for seed in first..first + runs {
        let report = simulate(seed, Options::default());
        total.attempts.0 += report.attempts.0;
        total.attempts.1 += report.attempts.1;
        total.forwards += report.forwards;
        total.messages += report.messages;
        total.disconnects += report.disconnects;
        total.crashes += report.crashes;
        total.fee_changes += report.fee_changes;
    }
    println!("{runs} runs: {total:?}");
    assert!(
        total.attempts.1 > 0 && total.forwards > 0 && total.disconnects > 0 && total.crashes > 0,
        "the runs do nothing: {total:?}"
    );
}

#[test]
fn a_seed_stands_for_one_run() {
    let (one, other) = (simulate(1, Options::default()), simulate(1, Options::default()));
    assert_eq!(one, other);
    assert_ne!(one.digest, simulate(2, Options::default()).digest);
}

#[test]
fn choices_given_as_bytes_stand_for_one_run() {
    let run = |choices: &[u8]| run_choices(choices, 2, Options::default());
    let run = |choices: &[u8]| run(choices).unwrap_or_else(|failure| panic!("{failure}"));
    let (none, zeros) = (run(&[]), run(&[0; 40]));
    assert_eq!(zeros, run(&[0; 40]));
    assert_ne!(none.digest, zeros.digest);
    assert!(none.nodes == 2 && zeros.attempts.0 > 0, "{none:?} {zeros:?}");
}
