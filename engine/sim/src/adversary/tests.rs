//! Adversaries, reduced for every build and in full on request.
//!
//! `FULMEN_ADVERSARY=full cargo test --release -p fulmen-sim adversary -- --nocapture` runs 200 seeds with larger
//! budgets; `FULMEN_ADVERSARY_RUNS=N` sets their number and `FULMEN_ADVERSARY_FIRST=N` the first.
//! `FULMEN_ADVERSARY_SEED=N` runs one seed and shrinks its script if it fails.

use std::sync::atomic::{AtomicU64, Ordering};

use super::{
    Action, Adversary, AttackReport, Attacker, CallCost, Meter, Payee, Script, SignerAction, shrink_while,
};
use crate::violation::Violation;

/// Few enough for every build.
const RUNS: u64 = 12;
const BUDGET_BYTES: u64 = 200_000;
const RUNS_FULL: u64 = 200;
const BUDGET_BYTES_FULL: u64 = 2_000_000;

fn meter() -> Option<Meter> {
    Some(Meter(|call| {
        let info = allocation_counter::measure(call);
        CallCost {
            heap_net_bytes: info.bytes_current,
            heap_peak_bytes: info.bytes_max,
            ..CallCost::default()
        }
    }))
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|value| value.parse().expect("a number"))
}

fn adversary() -> Adversary {
    Adversary::new().unwrap_or_else(|violation| panic!("no network: {violation:?}"))
}

fn run(adversary: &Adversary, script: &Script) -> AttackReport {
    adversary.run(script, meter()).unwrap_or_else(|violation| panic!("{violation:?}"))
}

#[test]
fn no_invariant_breaks_on_any_seed() {
    let adversary = adversary();
    let full = std::env::var("FULMEN_ADVERSARY").is_ok_and(|value| value == "full");
    let (runs, budget) = if full { (RUNS_FULL, BUDGET_BYTES_FULL) } else { (RUNS, BUDGET_BYTES) };
    if let Some(seed) = number("FULMEN_ADVERSARY_SEED") {
        let script = Script::draw(seed, budget);
        let result = adversary.run(&script, meter());
        println!("{result:#?}");
        if result.is_err() {
            let shortest = adversary.shrink(&script, meter());
            println!("{shortest:#?}: {:?}", adversary.run(&shortest, meter()));
        }
        return;
    }
    let first = number("FULMEN_ADVERSARY_FIRST").unwrap_or(0);
    let runs = number("FULMEN_ADVERSARY_RUNS").unwrap_or(runs);
    let next = AtomicU64::new(first);
    let worker = || {
        let (mut total, mut violations) = (AttackReport::default(), Vec::new());
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= first + runs {
                return (total, violations);
            }
            match adversary.run(&Script::draw(seed, budget), meter()) {
                Ok(report) => {
                    total.attack_bytes += report.attack_bytes;
                    total.attack_messages += report.attack_messages;
                    total.settled += report.settled;
                    total.failed += report.failed;
                    total.restarts += report.restarts;
                    total.heap_peak = total.heap_peak.max(report.heap_peak);
                    total.written += report.written;
                }
                Err(violation) => violations.push((seed, violation)),
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let mut violations: Vec<(u64, Violation)> = Vec::new();
    let mut messages = 0;
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(worker)).collect();
        for thread in threads {
            let (total, found) = thread.join().expect("runs catch their panics");
            println!("{total:?}");
            messages += total.attack_messages;
            violations.extend(found);
        }
    });
    println!("{runs} seeds from {first}, {messages} messages, {} violations", violations.len());
    violations.sort_by_key(|(seed, _)| *seed);
    for (seed, violation) in &violations {
        println!("seed {seed}: {violation:?}");
    }
    assert!(violations.is_empty(), "{} of {runs} seeds, first {:?}", violations.len(), violations[0]);
}

fn script(actions: impl IntoIterator<Item = Action>) -> Script {
    Script { shards: 1, actions: actions.into_iter().collect() }
}

const STRANGER: Attacker = Attacker::Stranger(1);

#[test]
fn one_error_about_many_unfunded_channels_does_not_stop_the_engine() {
    let open = Action::OpenChannels { attacker: STRANGER, count: 300, padding: 0, seed: 1 };
    let error = Action::Error { attacker: STRANGER, text_bytes: 65_400 };
    let report = run(&adversary(), &script([open, Action::Wait { rounds: 5 }, error]));
    assert!(report.attack_bytes > 160_000, "{report:?}");
}

#[test]
fn long_failure_reasons_do_not_stop_the_engine() {
    let pay =
        Action::Pay { liar: 0, payee: Payee::RefusingAccomplice, count: 150, amount_msat: 400_000, seed: 1 };
    let stretch = Action::Stretch { liar: 1, reason_bytes: 65_491 };
    let report = run(&adversary(), &script([stretch, pay, Action::Wait { rounds: 100 }]));
    assert!(report.attack_bytes > 1_000_000, "the reasons were not sent: {report:?}");
}

#[test]
fn pings_are_answered_within_bounded_memory() {
    let pings = Action::Pings { attacker: STRANGER, count: 2_000, pong_bytes: 65_531 };
    run(&adversary(), &script([pings]));
}

#[test]
fn an_htlc_that_a_silent_peer_holds_is_not_offered_past_its_expiry() {
    let silence = Action::Silence { liar: 1, silent: true };
    let pay = Action::Pay { liar: 0, payee: Payee::Accomplice, count: 1, amount_msat: 3_000_000, seed: 1 };
    run(&adversary(), &script([silence, pay, Action::Wait { rounds: 50 }, Action::Mine { blocks: 150 }]));
}

/// A signer acts, then time passes.
fn signer(signer: usize, action: SignerAction) -> [Action; 2] {
    [Action::Sign { signer, action, seed: 1 }, Action::Wait { rounds: 20 }]
}

/// HTLCs that a peer has acknowledged and not signed count when it raises the fee rate or adds HTLCs of its own.
#[test]
fn a_peer_that_signs_nothing_cannot_turn_our_htlcs_to_dust_or_the_fee_to_nothing() {
    use SignerAction as S;
    let adversary = adversary();
    let receive = S::Receive { liar: 0, count: 60, amount_msat: 30_000_000 };
    for lie in [S::Fee { feerate: 250_000 }, S::Add { count: 400, amount_msat: 400_000 }] {
        for peer in [0, 1] {
            let actions =
                [S::Signs(false), receive, lie, S::Signs(true), S::SignBadly { htlcs: 60 }, S::Reconnect];
            let report =
                run(&adversary, &script(actions.into_iter().flat_map(|action| signer(peer, action))));
            assert_eq!(report.offered_to_signers, 60, "{report:?}");
        }
    }
}

#[test]
fn a_dance_that_stops_half_way_harms_nobody() {
    use SignerAction as S;
    let adversary = adversary();
    let receive = S::Receive { liar: 1, count: 10, amount_msat: 3_000_000 };
    let open = S::Open { anchors: true, funds: false };
    let dance = [S::Revokes(false), receive, open, S::Revokes(true), S::Reconnect, S::FailAll, S::ShutDown];
    for peer in [0, 1] {
        let waits = [Action::Wait { rounds: 7_000 }, Action::Crash { operation: 3, seed: 1 }];
        let actions = dance.into_iter().flat_map(|action| signer(peer, action)).chain(waits);
        run(&adversary, &script(actions));
    }
}

/// Both liars and both signers send the same onions, to shards of their own.
#[test]
fn an_onion_is_carried_on_once_over_whatever_shards_it_comes() {
    let adversary = adversary();
    let pay = |liar| Action::Pay { liar, payee: Payee::Honest, count: 10, amount_msat: 400_000, seed: 1 };
    let add = |peer| signer(peer, SignerAction::Add { count: 10, amount_msat: 400_000 });
    let crash = Action::Crash { operation: 4, seed: 1 };
    for shards in [1, 2, 3] {
        let again = [pay(1), Action::Wait { rounds: 20 }, crash, Action::Wait { rounds: 100 }];
        let actions = [pay(0), Action::Wait { rounds: 20 }].into_iter().chain(add(0)).chain(again);
        let actions = actions.chain(add(1)).chain(add(0)).collect();
        run(&adversary, &Script { shards, actions });
    }
}

#[test]
fn a_failing_script_shrinks_to_the_actions_that_matter() {
    let waits = |action: &Action| matches!(action, Action::Wait { rounds } if *rounds > 200);
    let script = Script::draw(3, 50_000);
    let actions = [&script.actions[..], &[Action::Wait { rounds: 1_000 }], &script.actions[..]].concat();
    let long = Script { actions, ..script };
    let shortest = shrink_while(&long, |script| script.actions.iter().any(waits));
    assert_eq!(shortest.actions, [Action::Wait { rounds: 250 }]);
}

#[test]
fn a_script_does_the_same_each_time() {
    let adversary = adversary();
    let script = Script::draw(3, 50_000);
    // Tables that all engines of a process share are allocated by the first that needs them.
    let without_heap = |report| AttackReport { heap: 0, heap_peak: 0, ..report };
    assert_eq!(without_heap(run(&adversary, &script)), without_heap(run(&adversary, &script)));
    assert_eq!(script, Script::draw(3, 50_000));
}
