//! The forwarder's cost of a forward, by depth and schedule: time, signatures, commitments.
//!
//! `cargo run --release -p fulmen-bench --example turn -- [depths] [amount_msat] [idle channels] [trials]`, for example
//! `1,10,100,400 700000 0 5`. With `replay` as fifth argument it records the forwarder's turns of closed loops and has
//! a fresh one go through them alone, for a profiler. Does not store; `bench/peers` measures the deployed engine.

use fulmen_bench::line::{Cost, ForwardingLine, Schedule, replay};
use fulmen_wire::units::Msat;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let argument =
        |index: usize, default: &str| arguments.get(index).map_or(default.to_owned(), String::clone);
    let number = |index, default| argument(index, default).parse::<u64>().expect("a number");
    let depths: Vec<u64> =
        argument(0, "1,10,100,400").split(',').map(|depth| depth.parse().expect("a depth")).collect();
    let (amount, idle, trials) = (Msat(number(1, "700000")), number(2, "0"), number(3, "5"));
    let idle = u32::try_from(idle).expect("a number of channels");
    if argument(4, "") == "replay" {
        return depths.into_iter().for_each(|depth| replay_forwards(depth, amount, idle, trials));
    }
    let memory = resident_bytes();
    let mut line = ForwardingLine::new(amount, idle);
    if idle > 0 {
        println!(
            "{idle} idle channels: {} bytes each, both ends",
            (resident_bytes() - memory) / u64::from(idle)
        );
    }
    line.forward(2, 1, Schedule::Waves, true);
    println!("depth schedule     us/forward [min..max]   HTLC signatures in+out  commitments in+out  turns");
    for depth in depths {
        for schedule in [Schedule::ClosedLoop, Schedule::Waves] {
            let payments = if depth < 10 { 100 } else { (4 * depth).max(400) };
            let mut left_to_right = true;
            let mut costs: Vec<Cost> = (0..trials)
                .map(|_| {
                    left_to_right = !left_to_right;
                    line.forward(payments, depth, schedule, left_to_right)
                })
                .collect();
            costs.sort_by_key(|cost| cost.spent);
            let each = |of: u64| of as f64 / payments as f64;
            let time = |cost: &Cost| cost.spent.as_secs_f64() * 1e6 / payments as f64;
            let median = costs[costs.len() / 2];
            println!(
                "{depth:5} {:<11} {:9.1} [{:.1}..{:.1}]   {:.2}+{:.2}   {:.3}+{:.3}   {:.3}",
                format!("{schedule:?}"),
                time(&median),
                time(&costs[0]),
                time(&costs[costs.len() - 1]),
                each(median.htlcs_verified),
                each(median.htlcs_signed),
                each(median.commitments_in),
                each(median.commitments_out),
                each(median.turns),
            );
        }
    }
}

/// Times the same turns of a forwarder that is alone, several times.
fn replay_forwards(depth: u64, amount: Msat, idle: u32, trials: u64) {
    let payments = if depth < 10 { 100 } else { (4 * depth).max(400) };
    let mut line = ForwardingLine::recorded(amount, idle, true);
    line.forward(depth, depth, Schedule::ClosedLoop, true);
    let from = line.recorded_turns();
    line.forward(payments, depth, Schedule::ClosedLoop, true);
    let record = line.into_record();
    let mut times: Vec<f64> =
        (0..trials).map(|_| replay(record.clone(), from).as_secs_f64() * 1e6 / payments as f64).collect();
    times.sort_by(f64::total_cmp);
    println!("{depth:5} replayed: {:.1} us/forward at best, median {:.1}", times[0], times[times.len() / 2]);
}

/// The resident memory of the process; zero where the system does not report it.
fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    status.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0) * 4096
}
