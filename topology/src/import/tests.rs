//! Tests of the import: every oddity of the format by a small sample, every error by its words, and a real snapshot
//! when one is named.

use super::parse::parse_label;
use super::*;
use crate::model::{InboundFee, Label, PartialPolicy};
use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;
use fulmen_wire::units::{CltvDelta, Msat, Sat};
use proptest::prelude::*;

const ONE: &str = "021111111111111111111111111111111111111111111111111111111111111111";
const TWO: &str = "032222222222222222222222222222222222222222222222222222222222222222";
const THREE: &str = "033333333333333333333333333333333333333333333333333333333333333333";

fn graph(edges: &str) -> String {
    format!(
        "{{\"nodes\":[{{\"pub_key\":\"{ONE}\",\"alias\":\"x\"}},\n{{\"pub_key\":\"{TWO}\"}}],\n\"edges\":[\n{edges}]}}"
    )
}

fn edge(rest: &str) -> String {
    format!("{{\"node1_pub\":\"{ONE}\",\"node2_pub\":\"{TWO}\"{rest}}}")
}

fn key(hex: &str) -> Label {
    parse_label(hex).expect("a key")
}

fn message(text: &str) -> String {
    read(text.as_bytes(), "sample.json").expect_err(text).to_string()
}

#[test]
fn strings_numbers_nulls_and_absent_keys() {
    let full = r#"{"time_lock_delta":40,"min_htlc":"1000","fee_base_msat":0,"fee_rate_milli_msat":"250",
        "disabled":false,"max_htlc_msat":990000000,"last_update":17,"custom":{"a":[1,null]}}"#;
    let edges = [
        edge(&format!(r#","capacity":"1000000","node1_policy":{full},"node2_policy":null,"channel_id":"1""#)),
        edge(r#","capacity":20000,"node2_policy":{"disabled":true}"#),
        edge(r#","node1_policy":{"min_htlc":null},"capacity":"1""#).replace(TWO, THREE),
    ];
    let topology = read(graph(&edges.join(",\n")).as_bytes(), "sample").expect("readable");
    assert_eq!(topology.nodes(), [key(ONE), key(TWO), key(THREE)]);
    let [first, second, third] = topology.channels() else { panic!("three channels") };
    let policy = PartialPolicy {
        fee_base: Some(Msat(0)),
        fee_proportional_millionths: Some(250),
        cltv_expiry_delta: Some(CltvDelta(40)),
        htlc_minimum: Some(Msat(1000)),
        htlc_maximum: Some(Msat(990_000_000)),
        disabled: Some(false),
        inbound: None,
    };
    assert_eq!((first.nodes, first.capacity), ([0, 1], Sat(1_000_000)));
    assert_eq!(first.policies, [Some(policy), None]);
    let disabled = PartialPolicy { disabled: Some(true), ..PartialPolicy::default() };
    assert_eq!((second.capacity, second.policies), (Sat(20_000), [None, Some(disabled)]));
    assert_eq!((third.nodes, third.policies), ([0, 2], [Some(PartialPolicy::default()), None]));
    let summary = topology.summary();
    let directions = (summary.enabled, summary.disabled, summary.incomplete, summary.absent);
    assert_eq!(directions, (1, 1, 1, 3));
    assert_eq!((summary.capacity_total, summary.capacity_max), (Sat(1_020_001), Sat(1_000_000)));
}

#[test]
fn edges_may_come_before_nodes() {
    let text = format!(r#"{{"edges":[{}],"nodes":[{{"pub_key":"{THREE}"}}]}}"#, edge(r#","capacity":1"#));
    let topology = read(text.as_bytes(), "sample").expect("readable");
    assert_eq!(topology.nodes(), [key(ONE), key(TWO), key(THREE)]);
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).expect("compressed");
    encoder.finish().expect("compressed")
}

#[test]
fn gzip_is_known_by_its_content() {
    let text = graph(&edge(r#","capacity":1"#));
    let plain = read(text.as_bytes(), "sample").expect("readable");
    let compressed = gzip(text.as_bytes());
    assert_eq!(read(&compressed[..], "sample").expect("readable"), plain);
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("graph.json");
    std::fs::write(&path, &compressed).expect("written");
    assert_eq!(import(&path).expect("readable"), plain);

    let cut = read(&compressed[..compressed.len() / 2], "sample.gz").expect_err("cut short");
    assert!(matches!(cut, ImportError::Read { .. }), "{cut}");
    let mut flipped = compressed;
    let last = flipped.len() - 5;
    flipped[last] ^= 1;
    let flipped = read(&flipped[..], "sample.gz").expect_err("checksum");
    assert!(matches!(flipped, ImportError::Read { .. }), "{flipped}");
}

#[test]
fn errors_say_where_and_what() {
    let good = edge(r#","capacity":1"#);
    let second = |rest: &str| graph(&format!("{good},\n{}", edge(rest)));
    let policy = |term: &str| second(&format!(r#","capacity":1,"node1_policy":{{{term}}}"#));
    for (text, place, cause) in [
        (second(r#","capacity":"much""#), "line 5, column", r#"channel 1: `capacity` must be an amount"#),
        (second(r#","capacity":-1"#), "line 5", r#"not "-1""#),
        (second(r#","capacity":1.5"#), "line 5", r#"not "1.5""#),
        (second(r#","capacity":"+1""#), "line 5", r#"not "+1""#),
        (second(r#","capacity":2100000000000001"#), "line 5", "`capacity` must be"),
        (second(r#","capacity":[1]"#), "line 5", "channel 1: not a describegraph: invalid type: sequence"),
        (second(r#","capacity":1,"channel_id":"1x2""#), "line 5", "`channel_id` must be a channel id"),
        (second(r#","capacity":1,"node2_pub":"02zz""#), "line 5", r#"`node2_pub` must be a public key"#),
        (
            second(&format!(r#","capacity":1,"node2_pub":"{ONE}""#)),
            "line 5",
            "must be another node than node1_pub",
        ),
        (
            policy(r#""time_lock_delta":65536"#),
            "line 5",
            r#"`time_lock_delta` must be a whole number of 16 bits"#,
        ),
        (policy(r#""fee_base_msat":"4294967296""#), "line 5", "`fee_base_msat` must be"),
        (policy(r#""max_htlc_msat":"99999999999999999999""#), "line 5", "`max_htlc_msat` must be"),
        (policy(r#""disabled":0"#), "line 5", "`disabled` must be true or false"),
        (second(r#","capacity":1,"node1_policy":7"#), "line 5", "not a describegraph: invalid type: integer"),
        (graph(&good).replace(ONE, &ONE[1..]), "line 1, column", "node 0: `pub_key` must be a public key"),
        (graph(&good).replace("pub_key", "key"), "line 1", "node 0: `pub_key` is missing"),
        (graph(&good).replace("edges", "links"), "line 4", "`edges` is missing"),
        (graph(&good).replace("nodes", "knots"), "line 4", "`nodes` is missing"),
        (graph(&good) + "x", "line 4", "not valid JSON: trailing characters"),
        (graph(&good)[..300].to_owned(), "line 4", "channel 0: not valid JSON: EOF while parsing"),
        ("[1]".to_owned(), "line 1", "not a describegraph: invalid type: sequence"),
        (String::new(), "line 1", "not valid JSON: EOF"),
        ("\u{1}nonsense".to_owned(), "line 1", "not valid JSON: expected value"),
    ] {
        let message = message(&text);
        assert!(message.starts_with("sample.json, "), "{message}");
        assert!(message.contains(place) && message.contains(cause), "{message}\n{text}");
        assert!(!message.contains('\n'), "{message}");
    }
    assert_eq!(message(&graph("")), "sample.json: the graph has no channels");
    let missing = import(Path::new("no/such/graph.json")).expect_err("no such file").to_string();
    assert!(missing.starts_with("no/such/graph.json: cannot be opened: "), "{missing}");
}

#[test]
fn a_capacity_of_zero_or_none_is_not_stated() {
    let maximum = |msat: u64| format!(r#"{{"max_htlc_msat":"{msat}"}}"#);
    let edges = [
        edge(&format!(
            r#","capacity":"0","node1_policy":{},"node2_policy":{}"#,
            maximum(1000),
            maximum(50_001)
        )),
        edge(&format!(r#","node2_policy":{}"#, maximum(u64::MAX))),
        edge(r#","capacity":null"#),
        edge(r#","capacity":7"#),
    ];
    let topology = read(graph(&edges.join(",")).as_bytes(), "sample").expect("readable");
    let capacities =
        topology.channels().iter().map(|channel| (channel.capacity.0, channel.is_capacity_stated));
    let most = Msat::MAX_MONEY.floor_sat().0;
    assert_eq!(capacities.collect::<Vec<_>>(), [(51, false), (most, false), (0, false), (7, true)]);
    assert_eq!(topology.summary().capacities_unstated, 3);
}

#[test]
fn channel_ids_are_kept_in_both_notations_and_refused_twice() {
    let ids = |ids: [&str; 3]| {
        let edges = ids.map(|id| edge(&format!(r#","capacity":7{id}"#)));
        read(graph(&edges.join(",")).as_bytes(), "sample")
    };
    let ids_of = |topology: Topology| [0, 1, 2].map(|index| topology.channel_name(index));
    let both = ids([r#","channel_id":"893182773403385857""#, r#","channel_id":"870011x977x3""#, ""]);
    assert_eq!(ids_of(both.expect("readable")), ["812345x2101x1", "870011x977x3", "#2"]);
    let unknown = ids([r#","channel_id":"0""#, r#","channel_id":0"#, r#","channel_id":null"#]);
    assert_eq!(ids_of(unknown.expect("readable")), ["#0", "#1", "#2"]);
    let twins = ids([r#","channel_id":"893182773403385857""#, "", r#","channel_id":"812345x2101x1""#]);
    let message = twins.expect_err("twins").to_string();
    assert!(message.contains("[0, 2]") && message.contains("893182773403385857"), "{message}");
}

#[test]
fn inbound_fees_are_kept() {
    let policy = r#"{"inbound_fee_base_msat":-5,"inbound_fee_rate_milli_msat":"2000"}"#;
    let text = graph(&edge(&format!(r#","capacity":7,"node1_policy":{policy},"node2_policy":{{}}"#)));
    let topology = read(text.as_bytes(), "sample").expect("readable");
    let inbound = topology.channels()[0].policies.map(|policy| policy.and_then(|policy| policy.inbound));
    assert_eq!(inbound, [Some(InboundFee { base_msat: -5, proportional_millionths: 2000 }), None]);
}

#[test]
fn byte_order_marks_and_utf_16_are_read() {
    let text = graph(&edge(r#","capacity":7"#)).replace("\"x\"", "\"\u{1f4a9}\"");
    let plain = read(text.as_bytes(), "sample").expect("readable");
    let marked = [&[0xef, 0xbb, 0xbf], text.as_bytes()].concat();
    let wide = |order: fn(u16) -> [u8; 2]| -> Vec<u8> {
        std::iter::once(0xfeff).chain(text.encode_utf16()).flat_map(order).collect()
    };
    let (little, big) = (wide(u16::to_le_bytes), wide(u16::to_be_bytes));
    for bytes in [marked.clone(), little.clone(), big, gzip(&marked), gzip(&little)] {
        assert_eq!(read(&bytes[..], "sample").expect("readable"), plain);
    }
    let cut = read(&little[..little.len() - 1], "sample").expect_err("half a unit");
    assert!(matches!(cut, ImportError::Read { .. }), "{cut}");
}

#[test]
fn other_compressions_are_refused_by_name() {
    for (start, format) in [
        (&b"\xfd7zXZ\0rest"[..], "xz"),
        (b"\x28\xb5\x2f\xfdrest", "zstd"),
        (b"BZh9", "bzip2"),
        (b"PK\x03\x04", "zip"),
    ] {
        let message = read(start, "graph.json").expect_err(format).to_string();
        let expected = format!("graph.json: compressed with {format}; unpack it first");
        assert!(message.starts_with(&expected), "{message}");
    }
    let message = read(&b"plain words"[..], "graph.json.gz").expect_err("text").to_string();
    assert!(message.contains("neither gzip nor JSON"), "{message}");
}

proptest! {
    #[test]
    fn damaged_files_are_refused_or_read_but_never_panic(
        at: prop::sample::Index, byte: u8, cut: prop::sample::Index, compressed: bool,
    ) {
        let policy = r#"{"time_lock_delta":40,"min_htlc":"1000","fee_base_msat":0,"disabled":false}"#;
        let text = graph(&edge(&format!(r#","capacity":"1000000","node1_policy":{policy},"node2_policy":null"#)));
        let mut bytes = if compressed { gzip(text.as_bytes()) } else { text.into_bytes() };
        let at = at.index(bytes.len());
        bytes[at] = byte;
        bytes.truncate(bytes.len() - cut.index(3));
        if let Err(error) = read(&bytes[..], "damaged") {
            let message = error.to_string();
            prop_assert!(message.starts_with("damaged") && message.lines().count() == 1, "{}", message);
        }
    }
}

/// The counts of a mainnet snapshot of 2026-02-03, which is too large to carry along: `FULMEN_GRAPH` names it.
#[test]
fn a_real_snapshot_has_its_known_counts() {
    let Some(path) = std::env::var_os("FULMEN_GRAPH") else {
        // Straight to the descriptor: the test harness captures the output of the macros.
        let note =
            "\nSKIPPED: FULMEN_GRAPH does not name the snapshot of 2026-02-03, so nothing was imported\n";
        std::io::stderr().write_all(note.as_bytes()).expect("written");
        return;
    };
    let topology = import(Path::new(&path)).expect("readable");
    let summary = topology.summary();
    assert_eq!((summary.nodes, summary.channels, summary.enabled_both_ways), (17_324, 50_808, 31_917));
    let directions = (summary.enabled, summary.disabled, summary.incomplete, summary.absent);
    assert_eq!(directions, (65_809, 35_806, 0, 1));
    let strong = topology.largest_strong_component().into_iter().filter(|member| *member).count();
    assert_eq!(strong, 6191);
    let core = topology.core(40);
    let members = core.largest_strong_component();
    assert!(members.into_iter().all(|member| member));
    let mut json = Vec::new();
    topology.write_json(&mut json).expect("written");
    assert_eq!(read(&json[..], "exported").expect("readable"), topology);
}
