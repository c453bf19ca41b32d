//! Restarting: a checkpoint of idle channels written and read back.
//!
//! Checks the budgets of `fulmen_proto::forward`'s snapshot and restore: 10,000 idle channels restored in well under
//! a second, at most 1.5 kB of checkpoint and 8 kB of memory each. Prints the size of a checkpoint on disk and on the
//! heap.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use fulmen_bench::is_measuring;
use fulmen_bench::line::{FORWARDER, ForwardingLine, Schedule, restored, thread_time};
use fulmen_wire::units::Msat;

const AMOUNT: Msat = Msat(700_000);

fn restart(criterion: &mut Criterion) {
    let idle: u32 = if is_measuring() { 10_000 } else { 20 };
    let mut line = None;
    let live = allocation_counter::measure(|| {
        line = Some(ForwardingLine::new(AMOUNT, idle));
    });
    let mut line = line.expect("just made");
    line.forward(4, 4, Schedule::Waves, true);
    line.settle();
    let shard = line.shard(FORWARDER);
    let chunks: Vec<Vec<u8>> = shard.checkpoint().collect();
    let written: usize = chunks.iter().map(Vec::len).sum();
    let start = thread_time();
    drop(restored(FORWARDER, &chunks));
    let spent = thread_time() - start;
    let mut again = None;
    let heap = allocation_counter::measure(|| {
        again = Some(restored(FORWARDER, &chunks));
    });
    let again = again.expect("just made");
    assert!(again.checkpoint().map(|chunk| chunk.len()).eq(chunks.iter().map(Vec::len)), "the same state");
    println!(
        "{idle} idle channels: {} bytes of checkpoint each, in {} chunks; {} bytes of heap each after a \
         restart, {} before; restored in {} ms of CPU",
        written / idle as usize,
        chunks.len(),
        heap.bytes_current / i64::from(idle),
        // Both ends of each channel were made.
        live.bytes_current / i64::from(idle) / 2,
        spent.as_millis(),
    );
    let mut group = criterion.benchmark_group("restart");
    group.sample_size(10);
    group.throughput(Throughput::Elements(u64::from(idle)));
    group.bench_function("snapshot", |bencher| {
        bencher.iter(|| shard.checkpoint().map(|chunk| chunk.len()).sum::<usize>());
    });
    group.bench_function("restore", |bencher| bencher.iter(|| restored(FORWARDER, &chunks)));
}

criterion_group!(benches, restart);
criterion_main!(benches);
