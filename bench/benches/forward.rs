//! Forwarding: the CPU one shard spends on an HTLC from its addition to its fulfillment, without both neighbours' work.
//!
//! Checks the budgets of `fulmen_proto::forward`, in memory: 700 us with one HTLC in flight, 150 us with 100, 100 us
//! with 400; and at most 2.5 signatures verified and 2.5 made per forward with 100 in flight. Non-dust HTLCs, anchors.
//! The example `turn` prints the same figures with their counts, and takes other depths and amounts.

use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use fulmen_bench::is_measuring;
use fulmen_bench::line::{Cost, ForwardingLine, Schedule};
use fulmen_wire::units::Msat;

const AMOUNT: Msat = Msat(700_000);

fn forwarding(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("forward");
    group.sample_size(10);
    for (in_flight, payments) in [(1, 20), (100, 400), (400, 800)] {
        let payments = if is_measuring() { payments } else { 4 };
        let mut line = ForwardingLine::new(AMOUNT, 0);
        let mut left_to_right = true;
        let mut last = Cost::default();
        group.throughput(Throughput::Elements(payments));
        group.bench_function(format!("{in_flight} in flight, {payments} payments"), |bencher| {
            bencher.iter_custom(|rounds| {
                let mut spent = Duration::ZERO;
                for _ in 0..rounds {
                    last = line.forward(payments, in_flight, Schedule::ClosedLoop, left_to_right);
                    spent += last.spent;
                    left_to_right = !left_to_right;
                }
                spent
            });
        });
        println!(
            "{in_flight} in flight: {:.2} HTLC signatures verified and {:.2} made a forward",
            last.htlcs_verified as f64 / payments as f64,
            last.htlcs_signed as f64 / payments as f64,
        );
    }
}

criterion_group!(benches, forwarding);
criterion_main!(benches);
