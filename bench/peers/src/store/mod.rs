//! Fulmen's log against embedded databases, under the work a routing node gives its store.
//!
//! Owns the workload and the rows. Work and figures are those of `fulmen::store::Store`: batches of records of 0.3 to
//! 20 kB made durable together, a checkpoint that replaces a shard's records by a snapshot, a restart that reads
//! everything. Candidates take turns, since they share the disk. Times are wall-clock times; the CPU time of the whole
//! process and the bytes it caused to be written are reported beside them.

use std::path::Path;

use clap::Args;
use rustix::time::{ClockId, clock_gettime};
use serde_json::{Map, Value};
use tempfile::TempDir;

use crate::measure::{Machine, Report, Row, spread};

mod candidates;

use candidates::{Candidate, Fjall, Log, Redb};

/// How many shards write.
const SHARDS: u16 = 4;
/// The size of a snapshot's chunk.
const CHUNK_BYTES: usize = 256 << 10;

/// Options of `store`.
#[derive(Args)]
pub(crate) struct Options {
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// Rounds per case, besides one unmeasured.
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// Batches per round.
    #[arg(long, default_value_t = 100)]
    batches: usize,
    /// Bytes of a shard's snapshot.
    #[arg(long, default_value_t = 16 << 20)]
    snapshot_bytes: usize,
    /// Where to put the stores: on the disk in question.
    #[arg(long, default_value = ".")]
    directory: std::path::PathBuf,
    /// Only cases whose name contains this.
    #[arg(long)]
    only: Option<String>,
}

/// The figures of one round, per thing done.
#[derive(Clone, Copy, Default)]
struct Used {
    wall_us: f64,
    cpu_us: f64,
    written_bytes: f64,
}

pub(crate) fn run(options: &Options) {
    let mut rows = Vec::new();
    for peer in ["fjall", "redb"] {
        for records in [1, 8, 64] {
            rows.extend(
                options.case(&format!("store/append/{records}/{peer}"), |case| {
                    options.append(case, peer, records)
                }),
            );
        }
        rows.extend(options.case(&format!("store/checkpoint/{peer}"), |case| options.checkpoint(case, peer)));
        rows.extend(options.case(&format!("store/replay/{peer}"), |case| options.replay(case, peer)));
    }
    Report { rows, machine: Machine::this("disk as --directory says".to_owned()) }.print(options.json);
}

impl Options {
    fn case(&self, name: &str, measure: impl FnOnce(String) -> Row) -> Option<Row> {
        let wanted = self.only.as_ref().is_none_or(|only| name.contains(only));
        wanted.then(|| {
            let row = measure(name.to_owned());
            eprintln!("{}: {:.2}", row.case, row.ratio);
            row
        })
    }

    fn home(&self) -> TempDir {
        TempDir::new_in(&self.directory).expect("the directory can be written to")
    }

    /// Batches made durable, one after the other.
    fn append(&self, case: String, peer: &str, records: usize) -> Row {
        let homes = [self.home(), self.home()];
        let mut pair = [open(peer, homes[0].path()), open("log", homes[1].path())];
        let mut rounds = [Vec::new(), Vec::new()];
        for round in 0..=self.rounds {
            let batches: Vec<Batch> =
                (0..self.batches).map(|batch| Batch::new(round * self.batches + batch, records)).collect();
            for (candidate, rounds) in pair.iter_mut().zip(&mut rounds) {
                let used = measure(|| batches.iter().for_each(|batch| candidate.append(&batch.records)));
                if round > 0 {
                    rounds.push(used.per(self.batches));
                }
            }
        }
        let mut row = row(case, "us", 1.0, rounds);
        row.further.insert("record_bytes".to_owned(), Batch::new(0, records).bytes().into());
        row
    }

    /// A snapshot in the place of a shard's records, while nothing else happens.
    fn checkpoint(&self, case: String, peer: &str) -> Row {
        let homes = [self.home(), self.home()];
        let mut pair = [open(peer, homes[0].path()), open("log", homes[1].path())];
        let chunks = snapshot(self.snapshot_bytes);
        let mut rounds = [Vec::new(), Vec::new()];
        for round in 0..=self.rounds {
            let batches: Vec<Batch> = (0..20).map(|batch| Batch::new(round * 20 + batch, 64)).collect();
            for (candidate, rounds) in pair.iter_mut().zip(&mut rounds) {
                batches.iter().for_each(|batch| candidate.append(&batch.records));
                let shard = u16::try_from(round).unwrap_or(0) % SHARDS;
                let used = measure(|| candidate.checkpoint(shard, &chunks));
                if round > 0 {
                    rounds.push(used);
                }
            }
        }
        row(case, "ms", 1e-3, rounds)
    }

    /// Opening a store with snapshots and records, and reading all of it.
    fn replay(&self, case: String, peer: &str) -> Row {
        let homes = [self.home(), self.home()];
        let names = [peer, "log"];
        let chunks = snapshot(self.snapshot_bytes);
        for (name, home) in names.iter().zip(&homes) {
            let mut candidate = open(name, home.path());
            (0..SHARDS).for_each(|shard| candidate.checkpoint(shard, &chunks));
            (0..100).for_each(|batch| candidate.append(&Batch::new(batch, 64).records));
        }
        let mut rounds = [Vec::new(), Vec::new()];
        let mut seen = [(0, 0); 2];
        for round in 0..=self.rounds {
            for (which, rounds) in rounds.iter_mut().enumerate() {
                let used = measure(|| seen[which] = open(names[which], homes[which].path()).replay());
                if round > 0 {
                    rounds.push(used);
                }
            }
            assert_eq!(seen[0], seen[1], "both give back the same number of things and bytes");
        }
        let mut row = row(case, "ms", 1e-3, rounds);
        row.further.insert("bytes".to_owned(), seen[0].1.into());
        row
    }
}

fn open(name: &str, home: &Path) -> Box<dyn Candidate> {
    match name {
        "fjall" => Box::new(Fjall::open(home)),
        "redb" => Box::new(Redb::open(home)),
        _ => Box::new(Log::open(home)),
    }
}

/// Records to be made durable together: shard and bytes.
struct Batch {
    records: Vec<(u16, Vec<u8>)>,
}

impl Batch {
    /// A repeatable batch; sizes lie evenly between 0.3 and 20 kB on a logarithmic scale.
    fn new(number: usize, records: usize) -> Batch {
        let mut state = number as u64 + 1;
        let mut word = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            state >> 33
        };
        let records = (0..records).map(|index| {
            let scale = (word() % 1_000) as f64 / 1_000.0;
            let bytes = (300.0 * (20_000_f64 / 300.0).powf(scale)) as usize;
            let record = (0..bytes.div_ceil(4)).flat_map(|_| (word() as u32).to_le_bytes());
            (index as u16 % SHARDS, record.take(bytes).collect())
        });
        Batch { records: records.collect() }
    }

    fn bytes(&self) -> usize {
        self.records.iter().map(|(_, record)| record.len()).sum()
    }
}

fn snapshot(bytes: usize) -> Vec<Vec<u8>> {
    let random = Batch::new(0, 4_096).records.into_iter().flat_map(|(_, record)| record);
    let bytes: Vec<u8> = random.cycle().take(bytes).collect();
    bytes.chunks(CHUNK_BYTES).map(<[u8]>::to_vec).collect()
}

impl Used {
    fn per(self, things: usize) -> Used {
        let things = things as f64;
        Used {
            wall_us: self.wall_us / things,
            cpu_us: self.cpu_us / things,
            written_bytes: self.written_bytes / things,
        }
    }
}

fn measure(work: impl FnOnce()) -> Used {
    let now = |clock| {
        let time = clock_gettime(clock);
        time.tv_sec as f64 * 1e6 + time.tv_nsec as f64 / 1e3
    };
    let before = (now(ClockId::Monotonic), now(ClockId::ProcessCPUTime), written_bytes());
    work();
    Used {
        wall_us: now(ClockId::Monotonic) - before.0,
        cpu_us: now(ClockId::ProcessCPUTime) - before.1,
        written_bytes: written_bytes() - before.2,
    }
}

/// Bytes that this process has written to disks so far, as the system counts them.
fn written_bytes() -> f64 {
    let io = std::fs::read_to_string("/proc/self/io").unwrap_or_default();
    let line = io.lines().find_map(|line| line.strip_prefix("write_bytes: "));
    line.and_then(|bytes| bytes.trim().parse().ok()).unwrap_or(0.0)
}

/// A row of wall times, in microseconds times `scale`.
fn row(case: String, unit: &'static str, scale: f64, rounds: [Vec<Used>; 2]) -> Row {
    let column = |which: usize, of: fn(&Used) -> f64| -> Vec<f64> { rounds[which].iter().map(of).collect() };
    let wall = |which| column(which, |used| used.wall_us);
    let mut ratios: Vec<f64> = wall(0).iter().zip(wall(1)).map(|(peer, fulmen)| peer / fulmen).collect();
    let scaled = |which| spread(&mut wall(which).iter().map(|us| us * scale).collect::<Vec<_>>());
    let (peer_min, peer, peer_max) = scaled(0);
    let (fulmen_min, fulmen, fulmen_max) = scaled(1);
    let (_, ratio, _) = spread(&mut ratios);
    let mut further = Map::new();
    for (which, side) in ["peer", "fulmen"].into_iter().enumerate() {
        for (name, values) in [
            ("cpu_us", column(which, |used| used.cpu_us)),
            ("written_bytes", column(which, |used| used.written_bytes)),
        ] {
            let (_, median, _) = spread(&mut values.clone());
            further.insert(format!("{side}_{name}"), Value::from(median.round()));
        }
    }
    Row { case, unit, peer, peer_min, peer_max, fulmen, fulmen_min, fulmen_max, ratio, further }
}
