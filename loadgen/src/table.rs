//! The summary printed at the end of a run.
//!
//! Owns: which figures are shown and how they are aligned. Does not compute figures beyond percentages.

use std::fmt::Write;
use std::path::Path;

use crate::report::{Faulty, Report};

/// The width of the column of names.
const NAME_WIDTH: usize = 18;

/// The summary of `report`, written to `directory` if there is one.
pub(crate) fn render(report: &Report, directory: Option<&Path>) -> String {
    let mut table = Table::default();
    network(&mut table, report);
    payments(&mut table, report);
    speed(&mut table, report);
    money(&mut table, report);
    table.row("digest", &report.digest);
    if let Some(directory) = directory {
        table.row("report", &format!("{}", directory.join("report.html").display()));
    }
    table.0
}

fn network(table: &mut Table, report: &Report) {
    let topology = &report.topology;
    table.row("topology", &format!("{} (seed {})", topology.spec, report.seed));
    table.row(
        "network",
        &format!(
            "{} nodes, {} channels, {:.4} BTC",
            count(topology.nodes),
            count(topology.channels),
            topology.capacity_sat as f64 / 1e8
        ),
    );
    let chain = &report.chain;
    table.row(
        "chain",
        &format!(
            "{}: {} blocks mined, {} channels opened, {} closed",
            chain.backend,
            count(chain.blocks),
            count(chain.channels_opened),
            count(chain.channels_closed)
        ),
    );
    table.gap();
}

fn payments(table: &mut Table, report: &Report) {
    let payments = &report.payments;
    let ordinary = &payments.ordinary;
    table.row(
        "payments",
        &format!(
            "{} sent in {} attempts: {} succeeded, {} failed",
            count(payments.sent),
            count(payments.attempts),
            count(payments.succeeded),
            count(payments.failed)
        ),
    );
    for (reason, number) in &payments.failures {
        table.row("", &format!("{:>8}  {reason}", count(*number)));
    }
    table.row(
        "  not faulty",
        &format!(
            "{} of {} succeeded ({}); {} of {} failures explained by a balance",
            count(ordinary.succeeded),
            count(ordinary.sent),
            percent(ordinary.succeeded, ordinary.sent),
            count(ordinary.failed_by_balance),
            count(ordinary.failed)
        ),
    );
    let attempts = ordinary.attempts_failed_by_balance + ordinary.attempts_unexplained;
    table.row(
        "  retried",
        &format!(
            "{} failed attempts, {} of them for a balance that was too low",
            count(attempts),
            count(ordinary.attempts_failed_by_balance)
        ),
    );
    if report.settings.max_parts > 1 {
        table.row("  in parts", &parts(report));
    }
    if let Some(learning) = &report.learning {
        table.row(
            "  at once",
            &format!(
                "{:.1} % with the first attempt by senders who learn, {:.1} % by those who do not",
                learning.first_attempt_with * 100.0,
                learning.first_attempt_without * 100.0
            ),
        );
    }
    faulty(table, &report.faulty);
    let total: u64 = report.hops.values().sum();
    let hops: Vec<String> =
        report.hops.iter().map(|(hops, number)| format!("{hops}: {}", percent(*number, total))).collect();
    table.row("hops", &hops.join("   "));
    table.gap();
}

fn faulty(table: &mut Table, faulty: &Faulty) {
    let mut line =
        format!("{} of {} failed where and as they had to", count(faulty.as_expected), count(faulty.sent));
    if faulty.failed_by_balance > 0 {
        let earlier = count(faulty.failed_by_balance);
        line.push_str(&format!("; {earlier} failed earlier for a balance that was too low"));
    }
    table.row("  faulty", &line);
    for (kind, counts) in &faulty.kinds {
        table.row(
            "",
            &format!("{:>8}  {kind}: {} as expected", count(counts.sent), count(counts.as_expected)),
        );
    }
}

/// In how many parts ordinary payments went.
fn parts(report: &Report) -> String {
    let (parts, succeeded) = (&report.parts, report.payments.ordinary.succeeded);
    let several = parts.by_count.iter().filter(|(count, _)| **count > 1);
    let in_split: u64 = several.map(|(count, payments)| count * payments).sum();
    format!(
        "{} of {} succeeded payments were split ({}), into {:.1} parts each; {:.2} retries a part",
        count(parts.split),
        count(succeeded),
        percent(parts.split, succeeded),
        in_split as f64 / parts.split.max(1) as f64,
        parts.retries_per_part
    )
}

fn speed(table: &mut Table, report: &Report) {
    table.row(
        "throughput",
        &format!(
            "{:.0} payments/s, {:.0} forwards/s ({} forwards)",
            report.throughput.payments_per_s,
            report.throughput.forwards_per_s,
            count(report.forwards)
        ),
    );
    let latency = &report.latency_us;
    let quantiles = [
        ("p50", latency.p50),
        ("p90", latency.p90),
        ("p99", latency.p99),
        ("p99.9", latency.p999),
        ("max", latency.max),
    ];
    let quantiles: Vec<String> = quantiles.iter().map(|(name, us)| format!("{name} {}", time(*us))).collect();
    let clock = if report.settings.deterministic { " (virtual)" } else { "" };
    table.row("latency", &format!("{}{clock}", quantiles.join("   ")));
    if let Some(us) = report.cpu.us_per_forward {
        table.row("processor", &format!("{us:.0} us per forward, all nodes together"));
    }
    let crypto = &report.crypto;
    table.row(
        "cryptography",
        &format!(
            "{} signatures verified, {} made, {} onions peeled",
            count(crypto.ecdsa_verified),
            count(crypto.ecdsa_signed),
            count(crypto.onions_peeled)
        ),
    );
    let stages: Vec<String> =
        report.stages.iter().map(|stage| format!("{} {:.1} s", stage.name, stage.wall_s)).collect();
    table.row("time", &format!("{:.1} s: {}", report.wall_s, stages.join(", ")));
    table.gap();
}

fn money(table: &mut Table, report: &Report) {
    let funds = &report.funds;
    table.row("fees earned", &format!("{} msat by forwarding", count(report.fees_earned_msat)));
    table.row(
        "funds on chain",
        &format!(
            "{} sat = {} sat + {} sat mining fees",
            count(funds.start_sat),
            count(funds.end_sat),
            count(funds.mining_fees_sat)
        ),
    );
    table.row(
        "funds by node",
        &format!(
            "{} of {} nodes balance to the millisatoshi; closings rounded away {} msat",
            count(funds.nodes_balanced),
            count(report.topology.nodes),
            count(funds.rounding_msat)
        ),
    );
    let verdict = if funds.conserved { "conserved: nothing is missing" } else { "NOT CONSERVED" };
    table.row("funds", verdict);
    for finding in &funds.findings {
        table.row("", finding);
    }
}

/// Rows of a name and a text.
#[derive(Default)]
struct Table(String);

impl Table {
    fn row(&mut self, name: &str, text: &str) {
        // Writing to a string cannot fail.
        let _ = writeln!(self.0, "{name:<NAME_WIDTH$}{text}");
    }

    fn gap(&mut self) {
        self.0.push('\n');
    }
}

/// A number with its thousands set apart.
fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn percent(part: u64, whole: u64) -> String {
    if whole == 0 {
        return "-".to_owned();
    }
    format!("{:.1} %", 100.0 * part as f64 / whole as f64)
}

fn time(us: u64) -> String {
    match us {
        0..1_000 => format!("{us} us"),
        1_000..1_000_000 => format!("{:.1} ms", us as f64 / 1e3),
        _ => format!("{:.2} s", us as f64 / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_readable() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(count), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!([999, 1_000, 2_500_000].map(time), ["999 us", "1.0 ms", "2.50 s"]);
        assert_eq!((percent(1, 8).as_str(), percent(0, 0).as_str()), ("12.5 %", "-"));
    }
}
