//! Many connections in one process: memory and processor time of the idle, delay of the busy.
//!
//! `FULMEN_NET_IDLE` sets the number of idle connections, two descriptors each: raise `ulimit -n`. Memory and processor
//! time are those of the whole process, and checked from 1,000 on: run such a test alone.

use std::time::{Duration, Instant};

use fulmen_net::ConnectionLimits;
use rustix::time::{ClockId, clock_gettime};

use crate::chain::SharedChain;
use crate::client::Client;
use crate::fulmen_node::{FulmenNode, Settings};
use crate::wait::wait;

const BUSY: u32 = 20;
const PINGS: u32 = 100;
/// The process's own memory for an idle connection, with the engine's part and this test's end of it.
const IDLE_BYTES_MAX: usize = 8 << 10;

/// The number of idle connections asked for.
pub(crate) fn idle_connections(by_default: usize) -> usize {
    std::env::var("FULMEN_NET_IDLE").map_or(by_default, |text| text.parse().expect("a number"))
}

/// Resident memory of this process.
fn resident_bytes() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux says it");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("with resident memory");
    let kilobytes: usize = line.trim().trim_end_matches(" kB").parse().expect("in kB");
    kilobytes << 10
}

fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(u64::try_from(time.tv_sec).unwrap(), u32::try_from(time.tv_nsec).unwrap())
}

/// The median and the slowest of a hundred round trips of busy peers.
fn ping_times(busy: &mut [Client]) -> (Duration, Duration) {
    let mut times: Vec<Duration> = std::thread::scope(|scope| {
        let threads: Vec<_> = busy
            .iter_mut()
            .map(|client| {
                scope.spawn(|| {
                    let ping = |_| {
                        let start = Instant::now();
                        client.ping().unwrap();
                        let time = start.elapsed();
                        std::thread::sleep(Duration::from_millis(10));
                        time
                    };
                    (0..PINGS).map(ping).collect::<Vec<_>>()
                })
            })
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    times.sort_unstable();
    (times[times.len() / 2], times[times.len() * 99 / 100])
}

#[test]
fn idle_connections_cost_little_and_delay_nobody() {
    let idle = idle_connections(100);
    let mut settings = Settings::new(1);
    settings.net.limits = ConnectionLimits {
        connections_max: idle + BUSY as usize,
        connections_per_ip_max: idle + 2 * BUSY as usize,
        ..ConnectionLimits::default()
    };
    let node = FulmenNode::start(settings, &SharedChain::new());
    let connect = |number| Client::connect(number, node.id(), node.address()).unwrap().0;
    let mut busy: Vec<Client> = (0..BUSY).map(connect).collect();
    let alone = ping_times(&mut busy);

    let before = resident_bytes();
    let streams: Vec<_> = (0..idle as u32).map(|number| connect(BUSY + number).stream).collect();
    wait("all are connected", || node.network.stats().connections == idle + BUSY as usize);
    let bytes = resident_bytes().saturating_sub(before) / idle.max(1);
    let (start, since) = (processor_time(), Instant::now());
    std::thread::sleep(Duration::from_secs(2));
    let load = (processor_time() - start).as_secs_f64() / since.elapsed().as_secs_f64();
    let beside = ping_times(&mut busy);
    println!(
        "{idle} idle connections: {bytes} bytes each, {:.2} % of a core; {BUSY} busy ones wait {:?} (median) and {:?} \
         (99 %) for a pong, without the idle {:?} and {:?}",
        load * 100.0,
        beside.0,
        beside.1,
        alone.0,
        alone.1
    );
    assert_eq!(node.network.stats().connections, streams.len() + busy.len(), "none was lost");
    if idle >= 1_000 {
        assert!(load < 0.01, "idle connections take {load} of a core");
        assert!(bytes <= IDLE_BYTES_MAX, "{bytes} bytes for an idle connection");
    }
}
