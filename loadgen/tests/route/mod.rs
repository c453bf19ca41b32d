//! `loadgen route`: the files people have, and refusals whose remedy works.
//!
//! Owns: end-to-end checks of the answers and of the one line that says why there is none. Does not compare routes with
//! another search: the graph crate does.

use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};

use super::text;

/// A describegraph, built channel by channel. Nodes are named by one letter.
struct Graph {
    edges: Vec<Value>,
}

/// A channel's policy with these terms changed.
fn policy(changes: Value) -> Value {
    let mut policy = json!({
        "time_lock_delta": 40, "min_htlc": "1", "fee_base_msat": "1000", "fee_rate_milli_msat": "0",
        "disabled": false, "max_htlc_msat": "1000000000",
    });
    for (key, value) in changes.as_object().expect("terms") {
        policy[key] = value.clone();
    }
    policy
}

fn key(node: char) -> String {
    format!("02{}", format!("{:02x}", u32::from(node)).repeat(32))
}

impl Graph {
    fn new() -> Graph {
        Graph { edges: Vec::new() }
    }

    /// Adds a channel of 1,000,000 sat, whose id is 800000 and its place, with the same policy both ways.
    fn channel(self, ends: [char; 2], terms: Value) -> Graph {
        self.edge(ends, terms, json!({}))
    }

    fn edge(mut self, ends: [char; 2], terms: Value, changes: Value) -> Graph {
        let mut edge = json!({
            "channel_id": format!("800000x{}x0", self.edges.len() + 1),
            "node1_pub": key(ends[0]), "node2_pub": key(ends[1]), "capacity": "1000000",
            "node1_policy": policy(terms.clone()), "node2_policy": policy(terms),
        });
        for (key, value) in changes.as_object().expect("keys") {
            edge[key] = value.clone();
        }
        self.edges.push(edge);
        self
    }

    fn write(&self) -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("graph.json");
        fs::write(&path, json!({ "nodes": [], "edges": self.edges }).to_string()).expect("written");
        (directory, path)
    }

    /// Runs `route` from `a` with the flags given in one text. Returns its status, what it printed and its errors.
    fn route(&self, to: char, flags: &str) -> (i32, String, String) {
        let (_directory, path) = self.write();
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_loadgen"));
        command.args(["route", "--from", &key('a'), "--to", &key(to), "--graph"]).arg(path);
        let output = command.args(flags.split(' ')).output().expect("loadgen starts");
        (output.status.code().expect("an exit"), text(&output.stdout), text(&output.stderr))
    }

    fn found(&self, to: char, flags: &str) -> Value {
        let (status, out, errors) = self.route(to, &format!("{flags} --json"));
        assert_eq!(status, 0, "{flags}: {errors}");
        serde_json::from_str(&out).expect("JSON")
    }

    /// The one line with which the query is refused.
    fn refused(&self, to: char, flags: &str) -> String {
        let (status, out, errors) = self.route(to, flags);
        assert_eq!((status, out.as_str(), errors.lines().count()), (1, "", 1), "{flags}: {errors}");
        errors
    }
}

#[test]
fn channels_are_named_as_in_the_file() {
    let graph = Graph::new()
        .edge(['a', 'b'], json!({}), json!({ "channel_id": "893182773403385857" }))
        .edge(['b', 'c'], json!({}), json!({ "channel_id": "870011x977x3" }))
        .edge(['c', 'd'], json!({}), json!({ "channel_id": null }));
    let answer = graph.found('d', "--amount-sat 5000");
    let hops = answer["routes"][0]["parts"][0]["hops"].as_array().expect("hops").iter();
    let channels: Vec<&str> = hops.map(|hop| hop["channel"].as_str().expect("a string")).collect();
    assert_eq!(channels, ["812345x2101x1", "870011x977x3", "#2"]);
    assert!(graph.route('d', "--amount-sat 5000").1.contains("812345x2101x1"));
}

#[test]
fn a_graph_of_a_light_client_has_routes_up_to_the_policies_maxima() {
    let unstated = |graph: Graph, ends| {
        graph.edge(ends, json!({ "max_htlc_msat": "50000000" }), json!({ "capacity": "0" }))
    };
    let graph = unstated(unstated(Graph::new(), ['a', 'b']), ['b', 'c']);
    assert_eq!(graph.found('c', "--amount-sat 1000")["routes"][0]["fee_msat"], 1000);
    let line = graph.refused('c', "--amount-sat 50001");
    assert!(line.contains("--amount-sat 49999 would do"), "{line}");
    // Exports of before 2018 have no maximum.
    let old = Graph::new()
        .channel(['a', 'b'], json!({ "max_htlc_msat": null }))
        .channel(['b', 'c'], json!({ "max_htlc_msat": null }));
    assert_eq!(old.found('c', "--amount-sat 5000")["routes"][0]["fee_msat"], 1000);
}

#[test]
fn an_amount_below_every_minimum_is_told_to_be_raised() {
    let graph =
        Graph::new().channel(['a', 'b'], json!({})).channel(['b', 'c'], json!({ "min_htlc": "10000000" }));
    for flags in ["--amount-sat 10", "--amount-sat 9999", "--amount-sat 10 --max-parts 4"] {
        let line = graph.refused('c', flags);
        assert!(line.contains("htlc_minimum") && line.contains("--amount-sat 10000 would do"), "{line}");
    }
    graph.found('c', "--amount-sat 10000");
}

#[test]
fn parts_are_offered_only_where_they_help() {
    let one = Graph::new().channel(['a', 'b'], json!({})).channel(['b', 'c'], json!({}));
    let line = one.refused('c', "--amount-sat 1000000");
    assert!(line.contains("--amount-sat 999999 would do") && !line.contains("--max-parts"), "{line}");
    one.found('c', "--amount-sat 999999");
    let two = one.channel(['a', 'd'], json!({})).channel(['d', 'c'], json!({}));
    let line = two.refused('c', "--amount-sat 1500000 --max-fee-sat 10");
    assert!(line.contains("--max-parts 2 would do"), "{line}");
    two.found('c', "--amount-sat 1500000 --max-fee-sat 10 --max-parts 2");
    let line = two.refused('c', "--amount-sat 2500000 --max-fee-sat 10");
    assert!(line.contains("--amount-sat 999999 would do") && !line.contains("--max-parts"), "{line}");
}

#[test]
fn unknown_and_disabled_channels_are_named() {
    let graph = Graph::new().channel(['a', 'b'], json!({})).edge(
        ['b', 'c'],
        json!({}),
        json!({ "node1_policy": null }),
    );
    let line = graph.refused('c', "--amount-sat 5000");
    assert!(line.contains("lacks terms") && line.contains("800000x2x0"), "{line}");
    let graph = Graph::new().channel(['a', 'b'], json!({})).channel(['b', 'c'], json!({ "disabled": true }));
    let line = graph.refused('c', "--amount-sat 5000");
    assert!(line.contains("disabled") && line.contains("800000x2x0"), "{line}");
    let graph = Graph::new().channel(['a', 'b'], json!({})).channel(['d', 'c'], json!({}));
    assert!(graph.refused('c', "--amount-sat 5000").contains("no enabled channels"));
}

#[test]
fn a_way_longer_than_an_onion_is_told_as_such() {
    let nodes: Vec<char> = ('a'..='z').collect();
    let line =
        nodes.windows(2).fold(Graph::new(), |graph, ends| graph.channel([ends[0], ends[1]], json!({})));
    let far =
        line.refused('z', "--amount-sat 1 --max-hops 26 --max-fee-sat 100 --max-blocks 2016 --height 800000");
    assert!(far.contains("25 hops") && far.contains("room for 24"), "{far}");
    let (status, _, errors) =
        line.route('y', "--amount-sat 1 --max-hops 30 --max-fee-sat 100 --max-blocks 2016 --height 800000");
    assert_eq!(status, 0);
    assert!(errors.contains("searched with 26"), "{errors}");
}

#[test]
fn an_inbound_fee_on_the_way_is_told() {
    let graph = Graph::new()
        .channel(['a', 'b'], json!({ "inbound_fee_base_msat": 5000 }))
        .channel(['b', 'c'], json!({ "inbound_fee_base_msat": 5000, "inbound_fee_rate_milli_msat": -7 }));
    let (status, _, errors) = graph.route('c', "--amount-sat 100000");
    assert_eq!((status, errors.lines().count()), (0, 1), "a payee forwards nothing: {errors}");
    assert!(errors.contains("inbound fee") && errors.contains("800000x1x0"), "{errors}");
    let discount = Graph::new()
        .channel(['a', 'b'], json!({ "inbound_fee_rate_milli_msat": -7 }))
        .channel(['b', 'c'], json!({}));
    assert_eq!(discount.route('c', "--amount-sat 100000").2, "");
}

#[test]
fn values_out_of_range_are_refused_and_not_changed() {
    let graph = Graph::new().channel(['a', 'b'], json!({}));
    for flags in
        ["--height 4294967295", "--height 499999990", "--max-parts 0", "-k 0", "--max-blocks 1000001"]
    {
        let (status, out, errors) = graph.route('b', &format!("--amount-sat 5 {flags}"));
        assert_eq!((status, out.as_str(), errors.lines().count()), (2, "", 1), "{flags}: {errors}");
    }
}
