//! Tests of the plain path-finder: the BOLT 7 routing example, each limit by hand, and agreement with brute force over
//! every simple path of small random graphs.

use super::*;
use crate::path::Knowledge;
use crate::path::check::check;
use fulmen_wire::units::{NodeId, Sat, Scid};

fn node(tag: u8) -> NodeId {
    NodeId([tag; 33])
}

fn policy(base: u64, millionths: u32, delta: u16) -> Policy {
    Policy {
        fee_base: Msat(base),
        fee_proportional_millionths: millionths,
        cltv_expiry_delta: CltvDelta(delta),
        htlc_minimum: Msat(1),
        htlc_maximum: Msat(u64::MAX),
        disabled: false,
    }
}

const A: u8 = 0xa;
const B: u8 = 0xb;
const C: u8 = 0xc;
const D: u8 = 0xd;

/// The four nodes of the specification's routing example, each with one fee scheme for both its channels.
fn bolt7_example() -> ChannelGraph {
    let schemes = [(A, 100, 1000, 10), (B, 200, 2000, 20), (C, 300, 3000, 30), (D, 400, 4000, 40)];
    let mut graph = ChannelGraph::new();
    for (scid, one, two) in [(1, A, B), (2, B, C), (3, A, D), (4, C, D)] {
        graph.add_channel(Scid(scid), [node(one), node(two)], Sat(1_000_000)).unwrap();
        for (tag, base, millionths, delta) in schemes {
            if tag == one || tag == two {
                graph.set_policy(Scid(scid), node(tag), Some(policy(base, millionths, delta))).unwrap();
            }
        }
    }
    graph
}

fn example_query(from: u8, knowledge: &Knowledge) -> Query<'_> {
    Query {
        height: BlockHeight(800_000),
        final_cltv_delta: CltvDelta(18 + 42),
        ..Query::new(node(from), node(C), Msat(4_999_999), knowledge)
    }
}

/// The hops' amounts and expiries over the height.
fn htlcs(route: &Route) -> Vec<(u64, u32)> {
    route.hops.iter().map(|hop| (hop.amount.0, hop.cltv_expiry.0 - 800_000)).collect()
}

#[test]
fn bolt7_routing_example() {
    let graph = bolt7_example();
    let everything = Knowledge::default();
    let direct = find(&graph, &example_query(B, &everything)).unwrap();
    assert_eq!(htlcs(&direct), [(4_999_999, 60)]);
    assert_eq!((direct.fee, direct.total_cltv_blocks), (Msat(0), 60));

    let over_b = find(&graph, &example_query(A, &everything)).unwrap();
    assert_eq!(htlcs(&over_b), [(5_010_198, 80), (4_999_999, 60)]);
    assert_eq!((over_b.fee, over_b.hops[1].fee), (Msat(10_199), Msat(10_199)));
    assert_eq!(over_b.hops.iter().map(|hop| hop.scid).collect::<Vec<_>>(), [Scid(1), Scid(2)]);

    let without_b = Knowledge { excluded_nodes: [node(B)].into(), ..Knowledge::default() };
    let over_d = find(&graph, &example_query(A, &without_b)).unwrap();
    assert_eq!(htlcs(&over_d), [(5_020_398, 100), (4_999_999, 60)]);
    for (route, knowledge) in [(&over_b, &everything), (&over_d, &without_b)] {
        check(&graph, route, &example_query(A, knowledge)).unwrap();
    }
}
