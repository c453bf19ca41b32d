//! Tests of endings: a route over private channels agrees with one over a graph in which they are public; other
//! endings by hand.

use fulmen_wire::units::Sat;

use super::*;
use crate::graph::ChannelGraph;
use crate::path::check::check;
use crate::path::multi::tests::{Numbers, node, query, small, square};

fn policy(base: u64, delta: u16) -> Policy {
    Policy {
        fee_base: Msat(base),
        fee_proportional_millionths: 100,
        cltv_expiry_delta: CltvDelta(delta),
        htlc_minimum: Msat(0),
        htlc_maximum: Msat::MAX_MONEY,
        disabled: false,
    }
}

#[test]
fn private_channels_lead_where_public_ones_would() {
    let mut numbers = Numbers(5);
    let mut finder = Finder::new();
    let payee = node(200);
    let (mut found, mut missing) = (0, 0);
    for case in 0..3000 {
        let graph = small(&mut numbers, true);
        let known = Knowledge::default();
        let tight = numbers.one_in(2);
        let (query, _) = query(&mut numbers, &known, tight);
        // Fees only: the liquidity of a private channel is taken as certain, that of a public one is not.
        let weights = crate::scoring::Weights::FEES;
        let query = Query { to: payee, amount: Msat(query.amount.0 / 4), weights, ..query };
        let snapshot = Snapshot::new(&graph);
        let mut public: ChannelGraph = graph.clone();
        let mut endings = Vec::new();
        for number in 0..1 + numbers.below(3) {
            let entry = node(1 + numbers.below(3));
            let (scid, middle) = (Scid(1000 + 10 * number), node(210 + number));
            let mut hops = vec![PrivateHop { from: entry, scid, policy: policy(numbers.below(900), 7) }];
            if numbers.one_in(2) {
                let scid = Scid(scid.0 + 1);
                hops.push(PrivateHop { from: middle, scid, policy: policy(numbers.below(900), 9) });
            }
            for (at, hop) in hops.iter().enumerate() {
                let to = hops.get(at + 1).map_or(payee, |next| next.from);
                public.add_channel(hop.scid, [hop.from, to], Sat(1_000_000_000)).unwrap();
                public.set_policy(hop.scid, hop.from, Some(hop.policy)).unwrap();
            }
            endings.push(Ending::Private(hops));
        }
        let answer = find_with_endings(&mut finder, &snapshot, &query, &endings);
        let expected = finder.find(&Snapshot::new(&public), &query);
        match (answer, expected) {
            (Ok(ended), Ok(expected)) => {
                assert_eq!(
                    check(&public, &with_success(&ended.route, &Snapshot::new(&public), &query), &query),
                    Ok(()),
                    "case {case}"
                );
                assert_eq!(ended.route.cost, expected.cost, "case {case}");
                assert!(ended.ending.is_some());
                found += 1;
            }
            (Err(_), Err(_)) => missing += 1,
            (answer, expected) => panic!("case {case}: {answer:?} instead of {expected:?}"),
        }
    }
    assert!(found > 500 && missing > 50, "{found} {missing}");
}

/// The route with the success probability that it would have if all channels were public. Of several routes of equal
/// cost, the answer may be another one.
fn with_success(route: &Route, public: &Snapshot, query: &Query<'_>) -> Route {
    let success =
        crate::scoring::Uncertainty::sum(crate::path::prices::hop_uncertainties(public, query, route))
            .probability();
    Route { success, ..route.clone() }
}

#[test]
fn a_blinded_path_takes_what_its_payinfo_says() {
    let known = Knowledge::default();
    let query = Query::new(node(0), node(77), Msat(1_000_000), &known);
    let path = BlindedPath { introduction: node(3), policy: policy(5, 100), onion_bytes: 200 };
    let snapshot = Snapshot::new(&square());
    let find = |path| find_with_endings(&mut Finder::new(), &snapshot, &query, &[Ending::Blinded(path)]);
    let found = find(path).unwrap();
    // 5 + 100 millionths on the blinded path, 10 on the route there.
    assert_eq!((found.ending, found.route.fee), (Some(0), Msat(115)));
    let last = found.route.hops.last().unwrap();
    assert_eq!((last.to, last.amount, last.cltv_expiry), (node(3), Msat(1_000_105), BlockHeight(118)));
    assert_eq!(found.route.total_cltv_blocks, 118 + 40);
    let small = BlindedPath { policy: Policy { htlc_maximum: Msat(999_999), ..path.policy }, ..path };
    assert_eq!(find(small), Err(NoRoute::UnknownNode { node: node(77) }));
}

#[test]
fn a_circle_leaves_and_returns_as_asked() {
    let mut graph = square();
    for (scid, tag) in [(2_u64, 3_u64), (4, 3), (1, 1), (3, 2)] {
        graph.set_policy(Scid(scid), node(tag), Some(policy(7, 11))).unwrap();
    }
    let known = Knowledge::default();
    let query = Query::new(node(0), node(0), Msat(1_000_000), &known);
    let snapshot = Snapshot::new(&graph);
    let circle = |out, back| find_circular(&mut Finder::new(), &snapshot, &query, (Scid(out), Scid(back)));
    let scids = |route: &Route| route.hops.iter().map(|hop| hop.scid.0).collect::<Vec<_>>();
    let route = circle(1, 3).unwrap();
    assert_eq!(scids(&route), [1, 2, 4, 3]);
    assert_eq!((route.hops[0].from, route.hops[3].to), (node(0), node(0)));
    assert_eq!(route.hops[3].amount, Msat(1_000_000));
    assert_eq!(route.total_amount.0, route.hops[0].amount.0);
    assert_eq!(route.fee, Msat(10 + 7 + 7 + 2 * 100));
    assert_eq!(scids(&circle(3, 1).unwrap()), [3, 4, 2, 1]);
    assert!(circle(1, 1).is_err() && circle(2, 4).is_err() && circle(9, 1).is_err());
}
