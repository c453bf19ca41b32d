//! The report of a run: one value, written as `report.json` and shown by the page and the table.
//!
//! Owns: the report's shape and version ([`SCHEMA`]), documented field by field in `loadgen/REPORT.md`, and writing
//! it to a directory. Does not measure anything: [`crate::metrics`] and [`crate::accounting`] do.
//!
//! Invariant: a change that removes a field, renames one or alters a meaning raises [`SCHEMA`]; one that adds a field
//! does not. `payments.sent = payments.succeeded + payments.failed`, faulty payments included.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;
use thiserror::Error;

use crate::page;

/// The version of the report's shape.
pub(crate) const SCHEMA: u32 = 1;

/// The results of one run.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Report {
    /// The version of this structure: [`SCHEMA`].
    pub(crate) schema: u32,
    /// The version of loadgen.
    pub(crate) version: &'static str,
    /// The seed of the run.
    pub(crate) seed: u64,
    /// The flags of the run.
    pub(crate) settings: Settings,
    /// The network.
    pub(crate) topology: Topology,
    /// The chain the run used.
    pub(crate) chain: ChainFigures,
    /// All payments, the faulty ones among them.
    pub(crate) payments: Payments,
    /// In how many parts ordinary payments went.
    pub(crate) parts: Parts,
    /// The payments made to fail.
    pub(crate) faulty: Faulty,
    /// HTLCs forwarded and fulfilled.
    pub(crate) forwards: u64,
    /// Fees all forwarding nodes earned.
    pub(crate) fees_earned_msat: u64,
    /// Fulfilled parts by the number of channels they crossed; a payment that was not split is one part.
    pub(crate) hops: BTreeMap<u32, u64>,
    /// Payments and forwards per second.
    pub(crate) throughput: Throughput,
    /// From handing a payment to its payer until the payer has the preimage, over succeeded payments.
    pub(crate) latency_us: Latency,
    /// The gain from learning, if `--hidden-liquidity` measured it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) learning: Option<Learning>,
    /// The check that the funds on the chain add up at the end.
    pub(crate) funds: Funds,
    /// The cryptography done.
    pub(crate) crypto: Crypto,
    /// Processor time.
    pub(crate) cpu: Cpu,
    /// SHA-256 over every payment's outcome, code and hop, all final balances and all transaction ids.
    pub(crate) digest: String,
    /// Wall time of each stage.
    pub(crate) stages: Vec<Stage>,
    /// Wall time of the whole run.
    pub(crate) wall_s: f64,
    /// The data of the page's plots.
    pub(crate) plots: Plots,
}

/// The flags of the run.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Settings {
    /// `--payments`.
    pub(crate) payments: u64,
    /// `--in-flight`.
    pub(crate) in_flight: u64,
    /// `--amount-msat`, the least.
    pub(crate) amount_min_msat: u64,
    /// `--amount-msat`, the most.
    pub(crate) amount_max_msat: u64,
    /// `--faulty`.
    pub(crate) faulty_share: f64,
    /// `--attempts`.
    pub(crate) attempts: u32,
    /// `--max-parts`.
    pub(crate) max_parts: u64,
    /// `--hidden-liquidity`.
    pub(crate) hidden_liquidity: bool,
    /// `--deterministic`.
    pub(crate) deterministic: bool,
    /// Worker threads used.
    pub(crate) workers: u64,
}

/// The network.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Topology {
    /// `--topology`.
    pub(crate) spec: String,
    /// Nodes.
    pub(crate) nodes: u64,
    /// Channels.
    pub(crate) channels: u64,
    /// The sum of the channels' capacities.
    pub(crate) capacity_sat: u64,
}

/// The chain the run used.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct ChainFigures {
    /// `kernel`, or `rpc:` and the address.
    pub(crate) backend: String,
    /// Blocks the run mined.
    pub(crate) blocks: u64,
    /// Funding transactions confirmed.
    pub(crate) channels_opened: u64,
    /// Closing transactions confirmed.
    pub(crate) channels_closed: u64,
}

/// All payments.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Payments {
    /// Payments begun: all of them.
    pub(crate) sent: u64,
    /// Payments whose preimage reached the payer.
    pub(crate) succeeded: u64,
    /// Payments that failed.
    pub(crate) failed: u64,
    /// HTLCs sent: routes tried, each part and each retry counted.
    pub(crate) attempts: u64,
    /// Failed payments by the reason of their last attempt; sums to `failed`.
    pub(crate) failures: BTreeMap<String, u64>,
    /// Failed attempts by their BOLT 4 code, retried ones included.
    pub(crate) attempt_failures: BTreeMap<String, u64>,
    /// The payments that were not made to fail.
    pub(crate) ordinary: Ordinary,
}

/// The payments that were not made to fail.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Ordinary {
    /// Payments begun.
    pub(crate) sent: u64,
    /// Payments that succeeded.
    pub(crate) succeeded: u64,
    /// Payments that succeeded with the first attempt.
    pub(crate) succeeded_at_once: u64,
    /// Payments that failed.
    pub(crate) failed: u64,
    /// Failed, and every attempt met a balance that was too low at that moment.
    pub(crate) failed_by_balance: u64,
    /// Failed attempts whose failing channel had too little at that moment, of all failed attempts.
    pub(crate) attempts_failed_by_balance: u64,
    /// Failed attempts without a balance that explains them.
    pub(crate) attempts_unexplained: u64,
}

impl Ordinary {
    /// The share of payments that succeeded with their first attempt.
    pub(crate) fn first_attempt_share(&self) -> f64 {
        self.succeeded_at_once as f64 / self.sent.max(1) as f64
    }
}

/// In how many parts ordinary payments went.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Parts {
    /// Payments with several parts in flight at once, whatever became of them.
    pub(crate) tried_split: u64,
    /// Succeeded payments that were fulfilled in several parts.
    pub(crate) split: u64,
    /// The same as a share of succeeded payments; zero without one.
    pub(crate) split_share: f64,
    /// Succeeded payments by the number of their parts.
    pub(crate) by_count: BTreeMap<u64, u64>,
    /// The parts of succeeded payments: all were fulfilled.
    pub(crate) fulfilled: u64,
    /// HTLCs of succeeded payments that failed and were sent again.
    pub(crate) retries: u64,
    /// `retries` over `fulfilled`; zero without a part.
    pub(crate) retries_per_part: f64,
}

/// Shares of ordinary payments that succeeded with their first attempt, in two runs of the same seed.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Learning {
    /// By payers who learn channels' balances from the results of their payments.
    pub(crate) first_attempt_with: f64,
    /// By payers who remember only the failures of the current payment.
    pub(crate) first_attempt_without: f64,
}

/// The payments made to fail.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Faulty {
    /// Payments begun.
    pub(crate) sent: u64,
    /// Failed at the hop and with the code known beforehand.
    pub(crate) as_expected: u64,
    /// Failed before they reached that hop, at a channel whose balance was too low.
    pub(crate) failed_by_balance: u64,
    /// By kind.
    pub(crate) kinds: BTreeMap<&'static str, FaultyKind>,
}

/// One kind of faulty payment.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct FaultyKind {
    /// Payments begun.
    pub(crate) sent: u64,
    /// Payments that failed as foreseen.
    pub(crate) as_expected: u64,
}

/// Rates over the payments stage.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Throughput {
    /// Payments resolved per second.
    pub(crate) payments_per_s: f64,
    /// Forwards fulfilled per second.
    pub(crate) forwards_per_s: f64,
}

/// Latency quantiles; zero without a succeeded payment.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Latency {
    /// Half are faster.
    pub(crate) p50: u64,
    /// 90 % are faster.
    pub(crate) p90: u64,
    /// 99 % are faster.
    pub(crate) p99: u64,
    /// 99.9 % are faster.
    pub(crate) p999: u64,
    /// The slowest.
    pub(crate) max: u64,
}

/// The funds check.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Funds {
    /// The sum of the nodes' wallets before the first channel, from the chain's outputs.
    pub(crate) start_sat: u64,
    /// The sum of wallets and channels after the last block.
    pub(crate) end_sat: u64,
    /// The fees of the transactions in between, from the chain's blocks.
    pub(crate) mining_fees_sat: u64,
    /// The part of `end_sat` that is still locked in channels.
    pub(crate) in_channels_sat: u64,
    /// The sum of outputs to scripts that belong to no node of the run.
    pub(crate) strayed_sat: u64,
    /// Nodes whose own equation holds to the millisatoshi.
    pub(crate) nodes_balanced: u64,
    /// The amounts that closing transactions rounded away, over all nodes.
    pub(crate) rounding_msat: u64,
    /// Both halves: the chain's equation, and every node's.
    pub(crate) conserved: bool,
    /// The errors found, a sentence each; empty when `conserved`.
    pub(crate) findings: Vec<String>,
    /// Each node's equation.
    pub(crate) nodes: Vec<NodeFunds>,
}

/// One node's equation: `end - start = received + pushed_in + earned - paid - pushed_out - onchain_fees - rounding`.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct NodeFunds {
    /// The node's index.
    pub(crate) node: u64,
    /// Its wallet before the first channel.
    pub(crate) start_sat: u64,
    /// Its wallet after the last block.
    pub(crate) end_sat: u64,
    /// Payments received.
    pub(crate) received_msat: u64,
    /// Received as `push_msat` of a channel another opened.
    pub(crate) pushed_in_msat: u64,
    /// Forwarding fees.
    pub(crate) earned_msat: u64,
    /// Payments made, routing fees included.
    pub(crate) paid_msat: u64,
    /// Given as `push_msat` of channels it opened.
    pub(crate) pushed_out_msat: u64,
    /// Mining fees of its funding and closing transactions.
    pub(crate) onchain_fees_sat: u64,
    /// Its balances' fractions of a satoshi (and outputs below dust) that closing transactions could not carry.
    pub(crate) rounding_msat: u64,
    /// The equation holds.
    pub(crate) balanced: bool,
}

/// The cryptography done, over all nodes and the whole run.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Crypto {
    /// ECDSA signatures verified.
    pub(crate) ecdsa_verified: u64,
    /// ECDSA signatures made.
    pub(crate) ecdsa_signed: u64,
    /// Onions peeled.
    pub(crate) onions_peeled: u64,
}

impl Crypto {
    /// Both together.
    pub(crate) fn plus(self, other: Crypto) -> Crypto {
        Crypto {
            ecdsa_verified: self.ecdsa_verified + other.ecdsa_verified,
            ecdsa_signed: self.ecdsa_signed + other.ecdsa_signed,
            onions_peeled: self.onions_peeled + other.onions_peeled,
        }
    }
}

/// Processor time of the payments stage.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Cpu {
    /// All worker threads; absent where the system does not tell.
    pub(crate) nodes_s: Option<f64>,
    /// `nodes_s` over `forwards`.
    pub(crate) us_per_forward: Option<f64>,
}

/// One stage of the run.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Stage {
    /// Its name.
    pub(crate) name: &'static str,
    /// Its wall time.
    pub(crate) wall_s: f64,
}

/// The data of the page's plots beyond the figures above.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Plots {
    /// Succeeded payments by latency, in buckets that grow by a constant factor.
    pub(crate) latency: Vec<LatencyBucket>,
    /// Payments resolved over time.
    pub(crate) timeline: Vec<TimelineSlot>,
    /// The channels as pairs of nodes with a capacity; empty for networks too large to draw.
    pub(crate) edges: Vec<Edge>,
}

/// One bar of the latency histogram.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct LatencyBucket {
    /// The lower bound of its latencies, inclusive.
    pub(crate) from_us: u64,
    /// The upper bound, exclusive.
    pub(crate) to_us: u64,
    /// The payments in between.
    pub(crate) count: u64,
}

/// One time slice of the payments stage.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct TimelineSlot {
    /// The slice's start.
    pub(crate) start_s: f64,
    /// The slice's length.
    pub(crate) length_s: f64,
    /// Payments succeeded.
    pub(crate) succeeded: u64,
    /// Payments failed.
    pub(crate) failed: u64,
    /// Forwards of the payments that succeeded.
    pub(crate) forwards: u64,
}

/// One channel of the sketch.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Edge {
    /// The index of one node.
    pub(crate) a: u32,
    /// The index of the other node.
    pub(crate) b: u32,
    /// Its capacity.
    pub(crate) capacity_sat: u64,
}

/// Why a report could not be written.
#[derive(Debug, Error)]
pub(crate) enum WriteError {
    /// The directory or a file in it.
    #[error("cannot write {}: {cause}; give --report a directory you may write to", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        cause: std::io::Error,
    },
    /// A figure JSON has no form for.
    #[error("cannot write the report as JSON: {0}; please report this as a bug")]
    Json(#[from] serde_json::Error),
}

impl Report {
    /// The report as JSON.
    ///
    /// # Errors
    /// When a figure has no JSON form.
    pub(crate) fn json(&self) -> Result<String, WriteError> {
        Ok(serde_json::to_string_pretty(self)?)
    }

    /// Writes `report.json` and `report.html` into `directory`, which [`prepare`] made.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub(crate) fn write(&self, directory: &Path) -> Result<(), WriteError> {
        let json = self.json()?;
        write_file(&directory.join("report.html"), &page::render(&json))?;
        write_file(&directory.join("report.json"), &format!("{json}\n"))
    }
}

/// Makes the report's directory and proves that it can be written to: before the run, not after it.
///
/// # Errors
/// When it cannot.
pub(crate) fn prepare(directory: &Path) -> Result<(), WriteError> {
    fs::create_dir_all(directory).map_err(|cause| WriteError::File { path: directory.to_owned(), cause })?;
    let probe = directory.join(".loadgen-probe");
    write_file(&probe, "")?;
    fs::remove_file(&probe).map_err(|cause| WriteError::File { path: probe, cause })
}

/// Writes one file of a report.
///
/// # Errors
/// When it cannot be written.
pub(crate) fn write_file(path: &Path, text: &str) -> Result<(), WriteError> {
    fs::write(path, text).map_err(|cause| WriteError::File { path: path.to_owned(), cause })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn sample_faulty() -> Faulty {
        Faulty {
            sent: 1,
            as_expected: 1,
            failed_by_balance: 0,
            kinds: BTreeMap::from([("fee_short", FaultyKind { sent: 1, as_expected: 1 })]),
        }
    }

    /// A report with something in every field.
    fn sample() -> Report {
        Report {
            schema: SCHEMA,
            version: "0.0.0",
            seed: 7,
            settings: Settings {
                payments: 3,
                in_flight: 2,
                amount_min_msat: 1,
                amount_max_msat: 9,
                faulty_share: 0.5,
                attempts: 4,
                max_parts: 2,
                hidden_liquidity: false,
                deterministic: false,
                workers: 2,
            },
            topology: Topology { spec: "line:3".to_owned(), nodes: 3, channels: 2, capacity_sat: 10_000_000 },
            chain: ChainFigures {
                backend: "kernel".to_owned(),
                blocks: 110,
                channels_opened: 2,
                channels_closed: 2,
            },
            payments: Payments {
                sent: 3,
                succeeded: 2,
                failed: 1,
                attempts: 5,
                failures: BTreeMap::from([("fee_insufficient".to_owned(), 1)]),
                attempt_failures: BTreeMap::from([("temporary_channel_failure".to_owned(), 3)]),
                ordinary: Ordinary {
                    sent: 2,
                    succeeded: 2,
                    succeeded_at_once: 1,
                    failed: 0,
                    failed_by_balance: 0,
                    attempts_failed_by_balance: 2,
                    attempts_unexplained: 0,
                },
            },
            parts: Parts {
                tried_split: 1,
                split: 1,
                split_share: 0.5,
                by_count: BTreeMap::from([(1, 1), (2, 1)]),
                fulfilled: 3,
                retries: 1,
                retries_per_part: 1.0 / 3.0,
            },
            faulty: sample_faulty(),
            forwards: 2,
            fees_earned_msat: 1_500,
            hops: BTreeMap::from([(2, 2)]),
            throughput: Throughput { payments_per_s: 1.5, forwards_per_s: 1.0 },
            latency_us: Latency { p50: 1, p90: 2, p99: 3, p999: 4, max: 5 },
            learning: Some(Learning { first_attempt_with: 0.5, first_attempt_without: 0.25 }),
            funds: sample_funds(),
            crypto: Crypto { ecdsa_verified: 1, ecdsa_signed: 2, onions_peeled: 3 },
            cpu: Cpu { nodes_s: None, us_per_forward: None },
            digest: "00".repeat(32),
            stages: vec![Stage { name: "paying", wall_s: 0.5 }],
            wall_s: 1.0,
            plots: Plots::default(),
        }
    }

    fn sample_funds() -> Funds {
        Funds {
            start_sat: 5,
            end_sat: 4,
            mining_fees_sat: 1,
            in_channels_sat: 0,
            strayed_sat: 0,
            nodes_balanced: 3,
            rounding_msat: 2_000,
            conserved: true,
            findings: vec![],
            nodes: vec![],
        }
    }

    #[test]
    fn the_shape_others_rely_on_is_there() {
        let json: Value = serde_json::from_str(&sample().json().unwrap()).unwrap();
        let promised = [
            "/schema",
            "/seed",
            "/topology/spec",
            "/topology/nodes",
            "/topology/channels",
            "/chain/backend",
            "/chain/blocks",
            "/chain/channels_opened",
            "/chain/channels_closed",
            "/payments/sent",
            "/payments/succeeded",
            "/payments/failed",
            "/payments/attempts",
            "/payments/failures/fee_insufficient",
            "/learning/first_attempt_with",
            "/learning/first_attempt_without",
            "/parts/split_share",
            "/parts/by_count/2",
            "/parts/retries_per_part",
            "/faulty/sent",
            "/faulty/as_expected",
            "/forwards",
            "/throughput/payments_per_s",
            "/throughput/forwards_per_s",
            "/latency_us/p50",
            "/latency_us/p90",
            "/latency_us/p99",
            "/latency_us/p999",
            "/latency_us/max",
            "/funds/start_sat",
            "/funds/end_sat",
            "/funds/mining_fees_sat",
            "/funds/nodes_balanced",
            "/funds/conserved",
            "/crypto/ecdsa_verified",
            "/crypto/ecdsa_signed",
            "/crypto/onions_peeled",
            "/wall_s",
        ];
        for pointer in promised {
            assert!(json.pointer(pointer).is_some(), "{pointer} is missing");
        }
        assert_eq!(json["schema"], 1);
        assert_eq!(json["hops"]["2"], 2);
    }

    #[test]
    fn every_field_is_documented() {
        let document = include_str!("../REPORT.md");
        let json: Value = serde_json::from_str(&sample().json().unwrap()).unwrap();
        for (name, value) in json.as_object().unwrap() {
            assert!(document.contains(&format!("`{name}")), "{name} is not in REPORT.md");
            let inner = value.as_object().into_iter().flat_map(|inner| inner.keys());
            let words = inner.filter(|word| word.parse::<u32>().is_err());
            for word in words {
                assert!(document.contains(word.as_str()), "{name}.{word} is not in REPORT.md");
            }
        }
    }

    #[test]
    fn both_files_are_written_and_a_bad_place_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("deep/er");
        prepare(&path).unwrap();
        sample().write(&path).unwrap();
        let json: Value =
            serde_json::from_str(&fs::read_to_string(path.join("report.json")).unwrap()).unwrap();
        assert_eq!(json["payments"]["sent"], 3);
        assert!(fs::read_to_string(path.join("report.html")).unwrap().contains("\"spec\": \"line:3\""));
        let error = prepare(&path.join("report.json")).unwrap_err().to_string();
        assert!(
            error.contains("report.json") && error.contains("--report") && !error.contains('\n'),
            "{error}"
        );
    }
}
