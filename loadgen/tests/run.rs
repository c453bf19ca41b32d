//! The program as its users meet it: small runs on a kernel chain, and mistakes.
//!
//! Owns: end-to-end checks of `loadgen run` and `loadgen stress`; those of `loadgen route` are in `route`. Does not
//! measure speed.

mod route;

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};

fn loadgen(flags: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_loadgen")).arg("run").args(flags).output().expect("loadgen starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("loadgen prints UTF-8")
}

/// The report of a run that succeeds.
fn report(flags: &[&str]) -> Value {
    let output = loadgen(&[flags, &["--json"]].concat());
    assert!(output.status.success(), "{flags:?}: {}{}", text(&output.stderr), text(&output.stdout));
    serde_json::from_slice(&output.stdout).expect("the report is JSON")
}

fn number(report: &Value, pointer: &str) -> u64 {
    report.pointer(pointer).and_then(Value::as_u64).unwrap_or_else(|| panic!("{pointer} in {report}"))
}

/// Checks that hold for every healthy run's report.
fn assert_sound(report: &Value) {
    assert_eq!(report["funds"]["conserved"], true, "{}", report["funds"]);
    assert_eq!(number(report, "/funds/nodes_balanced"), number(report, "/topology/nodes"));
    assert_eq!(
        number(report, "/funds/start_sat"),
        number(report, "/funds/end_sat") + number(report, "/funds/mining_fees_sat")
    );
    assert_eq!(number(report, "/chain/channels_opened"), number(report, "/topology/channels"));
    assert_eq!(number(report, "/chain/channels_closed"), number(report, "/topology/channels"));
    let (sent, succeeded) = (number(report, "/payments/sent"), number(report, "/payments/succeeded"));
    assert_eq!(sent, succeeded + number(report, "/payments/failed"));
    let failures = report["payments"]["failures"].as_object().expect("an object");
    assert_eq!(failures.values().filter_map(Value::as_u64).sum::<u64>(), number(report, "/payments/failed"));
    assert_eq!(number(report, "/faulty/as_expected"), number(report, "/faulty/sent"), "{}", report["faulty"]);
    assert_eq!(number(report, "/payments/ordinary/attempts_unexplained"), 0, "{}", report["payments"]);
    // A payment over n channels is forwarded n - 1 times.
    let hops = report["hops"].as_object().expect("an object").iter();
    let forwards: u64 = hops
        .map(|(hops, count)| (hops.parse::<u64>().expect("a number") - 1) * count.as_u64().expect("a count"))
        .sum();
    assert_eq!(number(report, "/forwards"), forwards);
}

#[test]
fn senders_who_learn_succeed_at_once_more_often() {
    let flags = [
        "--topology",
        "ba:12,m:3,economy:flat,capacity:100000",
        "--payments",
        "900",
        "--amount-msat",
        "1000000..20000000",
        "--in-flight",
        "8",
        "--faulty",
        "0",
        "--deterministic",
        "--hidden-liquidity",
    ];
    let report = report(&flags);
    assert_sound(&report);
    let share = |name: &str| report["learning"][name].as_f64().expect("a share");
    let (with, without) = (share("first_attempt_with"), share("first_attempt_without"));
    assert!(with > without, "{with} with learning, {without} without");
}

#[test]
fn a_small_network_pays_and_accounts_for_every_satoshi() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("report");
    let flags = [
        "--topology",
        "ba:8,m:2,economy:mainnet",
        "--payments",
        "80",
        "--in-flight",
        "20",
        "--faulty",
        "0.2",
    ];
    let report = report(&[&flags[..], &["--report", path.to_str().expect("UTF-8")]].concat());
    assert_sound(&report);
    assert_eq!((number(&report, "/payments/sent"), number(&report, "/faulty/sent")), (80, 16));
    assert!(number(&report, "/forwards") > 0 && number(&report, "/fees_earned_msat") > 0);
    let written: Value =
        serde_json::from_str(&fs::read_to_string(path.join("report.json")).expect("written")).expect("JSON");
    assert_eq!(written["digest"], report["digest"]);
    assert!(
        fs::read_to_string(path.join("report.html"))
            .expect("written")
            .contains(report["digest"].as_str().expect("text"))
    );
}

#[test]
fn the_same_seed_gives_the_same_digest_and_another_does_not() {
    let flags = ["--deterministic", "--topology", "ring:5", "--payments", "40", "--faulty", "0.1"];
    let run = |seed: &str| {
        let report = report(&[&flags[..], &["--seed", seed]].concat());
        assert_sound(&report);
        report["digest"].as_str().expect("text").to_owned()
    };
    let first = run("5");
    assert_eq!(first, run("5"));
    assert_ne!(first, run("6"));
}

#[test]
fn payments_above_single_channels_go_in_parts() {
    // Each side of a channel holds half a million satoshi: most of these payments need several.
    let flags = [
        "--deterministic",
        "--max-parts",
        "4",
        "--topology",
        "ba:8,m:3,economy:flat,capacity:1000000",
        "--payments",
        "60",
        "--amount-msat",
        "200000000..1200000000",
        "--in-flight",
        "4",
        "--faulty",
        "0.1",
    ];
    let first = report(&flags);
    assert_sound(&first);
    let (split, succeeded) = (number(&first, "/parts/split"), number(&first, "/payments/ordinary/succeeded"));
    assert!(split > 5, "{}", first["parts"]);
    let by_count = first["parts"]["by_count"].as_object().expect("an object");
    let counted = |number: u64| by_count.values().filter_map(Value::as_u64).sum::<u64>() == number;
    assert!(counted(succeeded), "{}", first["parts"]);
    assert!(by_count.keys().all(|count| count.parse::<u64>().is_ok_and(|count| (1..=4).contains(&count))));
    assert_eq!(report(&flags)["digest"], first["digest"], "the same seed gives the same payments");
}

#[test]
fn payments_too_large_for_balances_fail_and_are_explained() {
    // The middle channel runs dry one way or the other: balances, and nothing else, make payments fail.
    let flags =
        ["--topology", "line:4,capacity:200000", "--payments", "60", "--amount-msat", "20000000..60000000"];
    let report = report(&[&flags[..], &["--faulty", "0"]].concat());
    assert_sound(&report);
    let failed = number(&report, "/payments/ordinary/failed");
    assert!(failed > 0, "{}", report["payments"]);
    assert_eq!(number(&report, "/payments/ordinary/failed_by_balance"), failed);
}

#[test]
fn two_nodes_are_enough() {
    let report = report(&["--topology", "line:2", "--payments", "10", "--faulty", "0.5", "--workers", "7"]);
    assert_sound(&report);
    assert_eq!(
        report["faulty"]["kinds"]["unknown_hash"]["sent"], 5,
        "nothing else can go wrong without a forward"
    );
}

/// Asserts that `flags` end in one line with `parts` and a non-zero status.
fn assert_refused(flags: &[&str], parts: &[&str]) {
    let output = loadgen(flags);
    let line = text(&output.stderr);
    assert!(!output.status.success(), "{flags:?} went through");
    assert!(output.status.code().is_some(), "{flags:?} was killed");
    assert_eq!(line.trim_end().lines().count(), 1, "{flags:?} printed {line}");
    assert!(line.starts_with("error: ") && !line.contains("panicked"), "{line}");
    for part in parts {
        assert!(line.contains(part), "{flags:?} printed {line}");
    }
    assert!(output.stdout.is_empty(), "{}", text(&output.stdout));
}

#[test]
fn mistakes_in_flags_take_one_line() {
    assert_refused(&["--payments", "0"], &["--payments", "1 to"]);
    assert_refused(&["--payments", "1000000000000000000"], &["--payments", "too many"]);
    assert_refused(&["--in-flight", "0"], &["--in-flight"]);
    assert_refused(&["--amount-msat", "9..1"], &["1..9"]);
    assert_refused(&["--faulty", "2.0"], &["--faulty", "0 to 1"]);
    assert_refused(&["--chain", "bitcoin"], &["--chain", "kernel"]);
    assert_refused(&["--wrong"], &["--wrong"]);
}

#[test]
fn mistakes_in_topologies_take_one_line() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = |name: &str, content: &[u8]| {
        let path = directory.path().join(name);
        fs::write(&path, content).expect("written");
        format!("file:{}", path.display())
    };
    let topologies = [
        ("mesh:9".to_owned(), "mesh"),
        ("line:1000000000".to_owned(), "1000000000"),
        ("ring:50000".to_owned(), "50000"),
        ("file:/no/such/file.json".to_owned(), "/no/such/file.json"),
        (format!("file:{}", directory.path().display()), "--topology"),
        (file("broken.json", b"{\"nodes\": [}"), "broken.json"),
        (file("empty.json", b""), "empty.json"),
        (file("broken.json.gz", b"\x1f\x8b\x08nonsense"), "broken.json.gz"),
        (file("no-graph.json", b"[1, 2, 3]"), "no-graph.json"),
    ];
    for (topology, part) in &topologies {
        assert_refused(&["--topology", topology], &[part]);
    }
    assert_refused(&["--topology", "line:3", "--amount-msat", "90000000000000"], &["--amount-msat", "route"]);
}

/// A ring of five keyed nodes, and two more channels, as a describegraph whose edges `change` may edit.
fn ring(change: impl Fn(&mut Vec<Value>)) -> (tempfile::TempDir, String) {
    let key = |node: usize| format!("02{}", format!("{:02x}", 0xa0 + node).repeat(32));
    let policy = json!({
        "time_lock_delta": 40, "min_htlc": "1", "fee_base_msat": "1000", "fee_rate_milli_msat": "50",
        "disabled": false, "max_htlc_msat": "1000000000",
    });
    let ends = [[0, 1], [1, 2], [2, 3], [3, 4], [4, 0], [0, 2], [1, 3]].into_iter().enumerate();
    let edge = |(index, [one, two]): (usize, [usize; 2])| {
        json!({
            "channel_id": format!("800000x{index}x1"), "node1_pub": key(one), "node2_pub": key(two),
            "capacity": "3000000", "node1_policy": policy, "node2_policy": policy,
        })
    };
    let mut edges: Vec<Value> = ends.map(edge).collect();
    change(&mut edges);
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("ring,core:2.json");
    fs::write(&path, json!({ "nodes": [], "edges": edges }).to_string()).expect("written");
    (directory, format!("file:{}", path.display()))
}

#[test]
fn channels_that_cannot_be_opened_are_left_out_by_name() {
    let (_directory, file) = ring(|edges| {
        edges[5]["capacity"] = "1500".into();
        edges[6]["capacity"] = "700".into();
    });
    let output = loadgen(&["--topology", &file, "--payments", "50", "--json"]);
    let errors = text(&output.stderr);
    assert!(output.status.success() && errors.lines().count() == 1, "{errors}");
    assert!(errors.contains("800000x5x1, 800000x6x1"), "{errors}");
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_sound(&report);
    assert_eq!(number(&report, "/topology/channels"), 5);

    let (_directory, file) = ring(|edges| edges.iter_mut().for_each(|edge| edge["capacity"] = "0".into()));
    assert_refused(&["--topology", &file, "--payments", "50"], &["states no capacities"]);
    let (_directory, file) = ring(|edges| edges.iter_mut().for_each(|edge| edge["capacity"] = "700".into()));
    assert_refused(&["--topology", &file, "--payments", "50"], &["the least that can be opened"]);
}

#[test]
fn policies_that_no_node_announces_are_switched_off_by_name() {
    for (key, value, told) in [
        ("fee_rate_milli_msat", json!(1_000_001), "1000001"),
        ("time_lock_delta", json!(0), "cltv_expiry_delta is 0"),
        ("min_htlc", json!("2000000000"), "2000000000"),
    ] {
        let (_directory, file) = ring(|edges| edges[1]["node2_policy"][key] = value.clone());
        let output = loadgen(&["--topology", &file, "--payments", "50", "--faulty", "0", "--json"]);
        let errors = text(&output.stderr);
        assert!(output.status.success() && errors.lines().count() == 1, "{errors}");
        assert!(errors.contains("800000x1x1") && errors.contains(told), "{errors}");
        assert_sound(&serde_json::from_slice(&output.stdout).expect("JSON"));
    }
}

#[test]
fn a_report_that_does_not_fit_is_a_failure() {
    let full = fs::OpenOptions::new().write(true).open("/dev/full").expect("Linux has it");
    let output = Command::new(env!("CARGO_BIN_EXE_loadgen"))
        .args(["run", "--topology", "line:2", "--payments", "2", "--quiet"])
        .stdout(full)
        .output()
        .expect("loadgen starts");
    let errors = text(&output.stderr);
    assert_eq!((output.status.code(), errors.lines().count()), (Some(1), 1), "{errors}");
    assert!(errors.contains("standard output"), "{errors}");
}

#[test]
fn a_report_that_cannot_be_written_is_told_before_the_run() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("taken");
    fs::write(&file, "").expect("written");
    let file = file.to_str().expect("UTF-8");
    assert_refused(&["--topology", "line:2", "--payments", "1", "--report", file], &[file]);
    assert!(Path::new(file).is_file());
}

#[test]
fn an_rpc_that_is_not_there_or_not_a_bitcoind_takes_one_line() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("bound").port();
    let chain = format!("rpc:http://user:secret@127.0.0.1:{port}");
    let web_server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a client");
        let mut request = [0; 4096];
        let _ = stream.read(&mut request);
        let body = "<html>hello</html>";
        let _ = write!(
            stream,
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        );
        // Dropped here: from now on nobody listens on this port.
    });
    assert_refused(&["--topology", "line:2", "--chain", &chain], &["127.0.0.1"]);
    web_server.join().expect("served");
    let output = loadgen(&["--topology", "line:2", "--chain", &chain]);
    assert!(!text(&output.stderr).contains("secret"), "a password is never printed");
    assert_refused(&["--topology", "line:2", "--chain", &chain], &[&port.to_string(), "bitcoind"]);
}

#[test]
fn a_forwarder_that_is_killed_loses_nothing() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().to_str().expect("UTF-8");
    let flags =
        ["--duration", "4", "--kill-every", "0.4", "--peers", "3", "--in-flight", "30", "--store", path];
    let output = Command::new(env!("CARGO_BIN_EXE_loadgen"))
        .arg("stress")
        .args(flags)
        .args(["--report", path, "--json"])
        .output()
        .expect("loadgen starts");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
        panic!("{error}: {}{}", text(&output.stdout), text(&output.stderr));
    });
    assert!(output.status.success(), "{}", report["funds"]);
    assert_eq!(report["funds"]["conserved"], true, "{}", report["funds"]);
    let kills = number(&report, "/crash/kills");
    assert!(kills >= 2, "{kills} kills");
    assert!(number(&report, "/crash/checks") > kills - number(&report, "/crash/kills_in_recovery"));
    assert!(number(&report, "/crash/in_flight_at_kill") > 0);
    assert_eq!(number(&report, "/crash/resolved"), number(&report, "/crash/in_flight_at_kill"));
    assert_eq!((number(&report, "/crash/lost"), number(&report, "/crash/force_closes")), (0, 0));
    assert!(number(&report, "/payments/succeeded") > 0);
    // Each forward is an event, and so are three channels funded, ready and closed.
    assert!(number(&report, "/crash/events/delivered") > number(&report, "/payments/succeeded"));
    assert_eq!(number(&report, "/crash/events/missing"), 0);
    assert_eq!(number(&report, "/chain/channels_closed"), 3);
    let left: Vec<_> =
        fs::read_dir(path).expect("a directory").flatten().map(|entry| entry.file_name()).collect();
    assert_eq!(left, ["report.json"], "the store is removed");
}
