//! How two implementations are timed against each other, and the form of the results.
//!
//! Owns the rows. Both sides take turns in one thread, each turn timed in thread CPU time, so that other processes
//! and the processor's changes of speed fall on both alike. A figure is the median over the rounds; a ratio is the
//! median of the rounds' ratios.

use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;
use serde_json::{Map, Value};

/// The output of a comparison.
#[derive(Serialize)]
pub(crate) struct Report {
    pub(crate) rows: Vec<Row>,
    pub(crate) machine: Machine,
}

/// One case.
#[derive(Serialize)]
pub(crate) struct Row {
    pub(crate) case: String,
    pub(crate) unit: &'static str,
    pub(crate) peer: f64,
    pub(crate) peer_min: f64,
    pub(crate) peer_max: f64,
    pub(crate) fulmen: f64,
    pub(crate) fulmen_min: f64,
    pub(crate) fulmen_max: f64,
    /// How many times better Fulmen is.
    pub(crate) ratio: f64,
    /// Further figures of this case.
    #[serde(flatten)]
    pub(crate) further: Map<String, Value>,
}

/// The machine of the measurement.
#[derive(Serialize)]
pub(crate) struct Machine {
    cpu: String,
    cores: usize,
    backend: String,
}

/// The clock of a measurement.
#[derive(Clone, Copy)]
pub(crate) enum Clock {
    /// CPU time of this thread.
    Thread,
    /// Wall-clock time, for work on several threads.
    Wall,
}

impl Machine {
    pub(crate) fn this(backend: String) -> Machine {
        let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let field = |name: &str| {
            let line = info.lines().find(|line| line.starts_with(name));
            line.and_then(|line| line.split(':').nth(1)).unwrap_or("unknown").trim().to_owned()
        };
        let cpu =
            format!("{} (family {}, model {})", field("model name"), field("cpu family"), field("model\t"));
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Machine { cpu, cores, backend }
    }
}

impl Report {
    pub(crate) fn print(&self, json: bool) {
        if json {
            println!("{}", serde_json::to_string_pretty(self).expect("a report has no odd keys"));
            return;
        }
        println!("{}; {} cores; {}", self.machine.cpu, self.machine.cores, self.machine.backend);
        println!("{:24} {:>4} {:>10} {:>10} {:>7}", "case", "unit", "peer", "fulmen", "ratio");
        for row in &self.rows {
            println!(
                "{:24} {:>4} {:>10.3} {:>10.3} {:>7.2}",
                row.case, row.unit, row.peer, row.fulmen, row.ratio
            );
            for (name, value) in &row.further {
                println!("{:28} {name} {value}", "");
            }
        }
    }
}

/// Times both sides in turn, `rounds` times after one round unmeasured; each call processes `items` items.
pub(crate) fn compare(
    case: impl Into<String>,
    rounds: usize,
    clock: Clock,
    (peer_items, mut peer): (usize, impl FnMut()),
    (fulmen_items, mut fulmen): (usize, impl FnMut()),
) -> Row {
    let case = case.into();
    peer();
    fulmen();
    let (mut peer_times, mut fulmen_times) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        peer_times.push(microseconds(clock, &mut peer) / peer_items as f64);
        fulmen_times.push(microseconds(clock, &mut fulmen) / fulmen_items as f64);
    }
    row(case, peer_times, fulmen_times)
}

/// The row of a case from the times of its rounds, in microseconds.
pub(crate) fn row(case: String, mut peer_times: Vec<f64>, mut fulmen_times: Vec<f64>) -> Row {
    let mut ratios: Vec<f64> =
        peer_times.iter().zip(&fulmen_times).map(|(peer, fulmen)| peer / fulmen).collect();
    let (peer_min, peer, peer_max) = spread(&mut peer_times);
    let (fulmen_min, fulmen, fulmen_max) = spread(&mut fulmen_times);
    let (_, ratio, _) = spread(&mut ratios);
    eprintln!("{case}: {ratio:.2}");
    Row {
        case,
        unit: "us",
        peer,
        peer_min,
        peer_max,
        fulmen,
        fulmen_min,
        fulmen_max,
        ratio,
        further: Map::new(),
    }
}

/// The least, the middle and the greatest.
pub(crate) fn spread(values: &mut [f64]) -> (f64, f64, f64) {
    values.sort_by(f64::total_cmp);
    (values[0], values[values.len() / 2], values[values.len() - 1])
}

pub(crate) fn microseconds(clock: Clock, work: &mut impl FnMut()) -> f64 {
    let id = match clock {
        Clock::Thread => ClockId::ThreadCPUTime,
        Clock::Wall => ClockId::Monotonic,
    };
    let now = || {
        let time = clock_gettime(id);
        time.tv_sec as f64 * 1e6 + time.tv_nsec as f64 / 1e3
    };
    let start = now();
    work();
    now() - start
}
