//! The report of `loadgen stress`: written as `report.json` and shown as a table.
//!
//! Owns its shape, documented in `loadgen/REPORT.md`. Does not measure anything.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use serde::Serialize;

use super::deliveries::EventCounts;
use crate::report::{
    ChainFigures, Funds, Latency, LatencyBucket, Stage, Throughput, TimelineSlot, WriteError, write_file,
};

/// The result of one run.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct StressReport {
    /// The version of the report's shape.
    pub(crate) schema: u32,
    /// The version of loadgen.
    pub(crate) version: &'static str,
    /// The seed of the run.
    pub(crate) seed: u64,
    /// The flags of the run.
    pub(crate) settings: Settings,
    /// The chain the run used.
    pub(crate) chain: ChainFigures,
    /// Payments by result.
    pub(crate) payments: Payments,
    /// Forwards that the forwarder reported before each kill, and at the end.
    pub(crate) forwards: u64,
    /// Payments and forwards per second of load.
    pub(crate) throughput: Throughput,
    /// From handing a payment to its payer until the payer has the preimage.
    pub(crate) latency_us: Latency,
    /// The effects of the kills.
    pub(crate) crash: Crash,
    /// The forwarder's resource use.
    pub(crate) forwarder: Forwarder,
    /// The check that the funds on the chain add up at the end.
    pub(crate) funds: Funds,
    /// Wall time of each stage.
    pub(crate) stages: Vec<Stage>,
    /// Wall time of the whole run.
    pub(crate) wall_s: f64,
    /// Data for plots.
    pub(crate) plots: Plots,
}

/// The flags of the run.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Settings {
    /// `--duration`.
    pub(crate) duration_s: f64,
    /// `--kill-every`; null when absent.
    pub(crate) kill_every_s: Option<f64>,
    /// `--peers`.
    pub(crate) peers: u64,
    /// `--capacity-sat`.
    pub(crate) capacity_sat: u64,
    /// `--in-flight`.
    pub(crate) in_flight: u64,
    /// The lower bound of `--amount-msat`.
    pub(crate) amount_min_msat: u64,
    /// The upper bound of `--amount-msat`.
    pub(crate) amount_max_msat: u64,
    /// `--workers`; null for one per core.
    pub(crate) workers: Option<u64>,
}

/// Payments by result.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Payments {
    /// Payments begun.
    pub(crate) sent: u64,
    /// Payments whose preimage reached the payer.
    pub(crate) succeeded: u64,
    /// Payments that failed.
    pub(crate) failed: u64,
    /// Failed ones by BOLT 4 code, or `own_channel`.
    pub(crate) failures: BTreeMap<String, u64>,
}

/// The effects of the kills.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Crash {
    /// Times the forwarder was killed.
    pub(crate) kills: u64,
    /// The kills during recovery from the previous kill.
    pub(crate) kills_in_recovery: u64,
    /// Payments under way at a kill.
    pub(crate) in_flight_at_kill: u64,
    /// Payments under way at a kill that succeeded or failed afterwards.
    pub(crate) resolved: u64,
    /// Payments under way at a kill that were never resolved.
    pub(crate) lost: u64,
    /// Durable events by how they were delivered.
    pub(crate) events: EventCounts,
    /// Channels that failed, by the report of either side.
    pub(crate) force_closes: u64,
    /// Times all balances were compared, with nothing under way.
    pub(crate) checks: u64,
    /// From starting a killed forwarder until it accepts input again, in microseconds.
    pub(crate) restart_us: Latency,
}

/// The forwarder's resource use, summed over restarts. Use after the last report before a kill is not counted.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Forwarder {
    /// CPU time of its threads per forward, in microseconds.
    pub(crate) cpu_us_per_forward: f64,
    /// Store syncs per forward.
    pub(crate) syncs_per_forward: f64,
    /// Bytes written per forward.
    pub(crate) bytes_per_forward: f64,
}

/// Data for plots.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Plots {
    /// Succeeded payments by latency.
    pub(crate) latency: Vec<LatencyBucket>,
    /// Payments over time.
    pub(crate) timeline: Vec<TimelineSlot>,
}

impl StressReport {
    /// Whether the run passed: funds conserved, no payment lost and no channel force-closed.
    pub(crate) fn is_sound(&self) -> bool {
        self.funds.conserved && self.crash.lost == 0 && self.crash.force_closes == 0
    }

    /// The report as JSON.
    ///
    /// # Errors
    /// When a figure has no JSON form.
    pub(crate) fn json(&self) -> Result<String, WriteError> {
        Ok(serde_json::to_string_pretty(self)?)
    }

    /// Writes `report.json` into `directory`.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn write(&self, directory: &Path) -> Result<(), WriteError> {
        write_file(&directory.join("report.json"), &format!("{}\n", self.json()?))
    }

    /// The report as a table.
    pub(crate) fn table(&self) -> String {
        let mut text = String::new();
        let mut row = |name: &str, value: String| {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{name:<18}{value}");
        };
        let Crash {
            kills,
            kills_in_recovery,
            in_flight_at_kill,
            resolved,
            lost,
            force_closes,
            checks,
            ref events,
            ..
        } = self.crash;
        row(
            "payments",
            format!(
                "{} sent, {} succeeded, {} failed",
                self.payments.sent, self.payments.succeeded, self.payments.failed
            ),
        );
        for (reason, count) in &self.payments.failures {
            row("", format!("{count:>8}  {reason}"));
        }
        row("throughput", format!("{:.0} payments/s under load", self.throughput.payments_per_s));
        let Latency { p50, p90, p99, p999, max } = self.latency_us;
        row("latency (us)", format!("p50 {p50}   p90 {p90}   p99 {p99}   p99.9 {p999}   max {max}"));
        for bar in histogram(&self.plots.latency) {
            row("", bar);
        }
        let Forwarder { cpu_us_per_forward, syncs_per_forward, bytes_per_forward } = self.forwarder;
        row(
            "forwarder",
            format!(
                "{cpu_us_per_forward:.0} us, {syncs_per_forward:.4} syncs, {bytes_per_forward:.0} bytes per forward"
            ),
        );
        row("kills", format!("{kills}, {kills_in_recovery} of them during recovery"));
        row("", format!("{in_flight_at_kill} payments under way: {resolved} resolved, {lost} lost"));
        let EventCounts { delivered, repeated, missing, after_acknowledgement } = events;
        row("events", format!("{delivered} delivered, {missing} missing"));
        row("", format!("{repeated} repeated, {after_acknowledgement} of them after their acknowledgement"));
        let Latency { p50, max, .. } = self.crash.restart_us;
        row("restart (us)", format!("p50 {p50}   max {max}"));
        row("force closes", force_closes.to_string());
        row("balance checks", checks.to_string());
        let funds = &self.funds;
        row(
            "funds on chain",
            format!(
                "{} sat = {} sat + {} sat mining fees",
                funds.start_sat, funds.end_sat, funds.mining_fees_sat
            ),
        );
        row(
            "funds",
            if funds.conserved { "conserved: nothing is missing" } else { "NOT CONSERVED" }.to_owned(),
        );
        for finding in &funds.findings {
            row("", finding.clone());
        }
        text
    }
}

/// The length of the longest bar, in characters.
const BAR: u64 = 50;

/// One line for each bucket that is not empty: its lower bound in microseconds, a bar, and its count.
fn histogram(buckets: &[LatencyBucket]) -> Vec<String> {
    let most = buckets.iter().map(|bucket| bucket.count).max().unwrap_or(0).max(1);
    let bar = |bucket: &LatencyBucket| {
        let length = (bucket.count * BAR).div_ceil(most);
        format!("{:>9} {:<50} {}", bucket.from_us, "#".repeat(length as usize), bucket.count)
    };
    buckets.iter().filter(|bucket| bucket.count > 0).map(bar).collect()
}
