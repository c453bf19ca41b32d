//! The cost of a restart: an engine on a store that another process left, started in a process of its own, so that its
//! memory can be measured.

use std::path::{Path, PathBuf};
use std::process::Command;

use clap::Args;
use fulmen::runtime::{Engine, Storage};
use serde_json::{Value, json};

use super::clock::wall_ns;
use super::fulmen_end::{node_config, node_seed};

/// The store to start on.
#[derive(Args)]
pub(crate) struct Options {
    /// Its directory.
    directory: PathBuf,
}

/// The name of the command that this file is.
const COMMAND: &str = "forward-restart";

/// Starts an engine and prints the cost.
pub(crate) fn run(options: &Options) {
    let (memory, start) = (resident_bytes(), wall_ns());
    let storage = Storage::Directory(options.directory.clone());
    let engine = Engine::builder(node_seed(0), node_config(), storage).start(drop);
    let engine = engine.unwrap_or_else(|error| panic!("the engine does not start: {error}"));
    let ns = wall_ns() - start;
    let channels: usize = engine.stats().shards.iter().map(|shard| shard.occupancy.channels).sum();
    let bytes = resident_bytes().saturating_sub(memory);
    println!("{}", json!({ "ms": ns as f64 / 1e6, "channels": channels, "bytes": bytes }));
}

/// Starts an engine on the store in a child process. Returns the milliseconds until it accepts input, and the bytes of
/// memory per channel.
pub(super) fn measure(directory: &Path) -> Option<(f64, f64)> {
    let output = Command::new(std::env::current_exe().ok()?).arg(COMMAND).arg(directory).output().ok()?;
    let told: Value = serde_json::from_slice(&output.stdout).ok()?;
    let channels = told["channels"].as_f64().filter(|channels| *channels > 0.0)?;
    Some((told["ms"].as_f64()?, told["bytes"].as_f64()? / channels))
}

/// The resident memory of this process.
fn resident_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm.split_whitespace().nth(1).and_then(|pages| pages.parse().ok()).unwrap_or(0);
    PAGE_BYTES * pages
}

/// Of memory, on the machines this is for.
const PAGE_BYTES: u64 = 4096;
