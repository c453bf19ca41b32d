//! The cost of hostile messages to a node: heap kept, records written and CPU time for each byte of an attack.
//!
//! `cargo run -p fulmen-sim --example costs` prints the table of `engine/sim/COSTS.md`. Each row is a script of
//! the adversary; the honest payments beside it cost the same in every row and are subtracted.

use std::time::Duration;

use fulmen_sim::Violation;
use fulmen_sim::adversary::{Action, Adversary, AttackReport, Attacker, CallCost, Meter, Payee, Script};
use rustix::time::{ClockId, clock_gettime};

const STRANGER: Attacker = Attacker::Stranger(1);
/// Long enough for the slowest of the scripts to be processed.
const PAUSE: Action = Action::Wait { rounds: 100 };

fn main() -> Result<(), Violation> {
    let adversary = Adversary::new()?;
    let baseline = adversary.run(&script(Vec::new()), meter())?;
    println!(
        "| attack | bytes | heap kept per byte | heap at once per byte | written per byte | CPU, ns per byte |"
    );
    println!("|---|--:|--:|--:|--:|--:|");
    for (name, actions) in attacks() {
        match adversary.run(&script(actions), meter()) {
            Ok(report) => print_row(name, &report, &baseline),
            Err(violation) => println!("| {name} | {violation:?} | | | | |"),
        }
    }
    Ok(())
}

fn attacks() -> Vec<(&'static str, Vec<Action>)> {
    let pay = |payee, count, amount_msat| Action::Pay { liar: 0, payee, count, amount_msat, seed: 1 };
    let open = |count, padding| Action::OpenChannels { attacker: STRANGER, count, padding, seed: 1 };
    let pings = |pong_bytes| Action::Pings { attacker: STRANGER, count: 2_000, pong_bytes };
    let stretch = |reason_bytes| Action::Stretch { liar: 1, reason_bytes };
    let error = Action::Error { attacker: STRANGER, text_bytes: 65_400 };
    vec![
        ("`ping` for 0 bytes", vec![pings(0)]),
        ("`ping` for 65,531 bytes", vec![pings(65_531)]),
        ("`open_channel`", vec![open(300, 0)]),
        ("`open_channel`, `channel_type` padded to 60 kB", vec![open(20, 60_000)]),
        ("`error` of 65 kB about 300 openings", vec![open(300, 0), PAUSE, error]),
        ("HTLCs to an unknown channel, 1 msat", vec![pay(Payee::Nobody, 150, 1)]),
        ("HTLCs to an unknown channel, 3,000 sat", vec![pay(Payee::Nobody, 150, 3_000_000)]),
        ("HTLCs fulfilled by an accomplice", vec![pay(Payee::Accomplice, 150, 3_000_000)]),
        ("HTLCs failed by an accomplice", vec![pay(Payee::RefusingAccomplice, 150, 3_000_000)]),
        ("the same, reasons of 2 kB", vec![stretch(2_000), pay(Payee::RefusingAccomplice, 150, 3_000_000)]),
        ("the same, reasons of 65 kB", vec![stretch(65_491), pay(Payee::RefusingAccomplice, 150, 3_000_000)]),
        ("keysend to the node", vec![pay(Payee::Victim, 150, 3_000_000)]),
    ]
}

/// The actions, then a pause, so that each row has as many honest payments as actions.
fn script(mut actions: Vec<Action>) -> Script {
    actions.push(PAUSE);
    Script { shards: 1, actions }
}

fn print_row(name: &str, report: &AttackReport, baseline: &AttackReport) {
    let bytes = report.attack_bytes.saturating_sub(baseline.attack_bytes).max(1);
    let share = |cost: u64| cost as f64 / bytes as f64;
    let payments = report.settled.max(1) as f64 / baseline.settled.max(1) as f64;
    let beside = |cost: u64, base: u64| share(cost.saturating_sub((base as f64 * payments) as u64));
    println!(
        "| {name} | {bytes} | {:.1} | {:.1} | {:.2} | {:.0} |",
        beside(report.heap, baseline.heap),
        beside(report.heap_peak, baseline.heap_peak),
        beside(report.written, baseline.written),
        beside(report.cpu.as_nanos() as u64, baseline.cpu.as_nanos() as u64),
    );
}

fn meter() -> Option<Meter> {
    Some(Meter(|call| {
        let start = thread_time();
        let info = allocation_counter::measure(call);
        CallCost {
            heap_net_bytes: info.bytes_current,
            heap_peak_bytes: info.bytes_max,
            cpu: thread_time() - start,
        }
    }))
}

fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
