//! Tests of the fast path-finder: agreement with brute force over every simple path of small random graphs on whether
//! there is a route and its cost, under every kind of limit, knowledge and price; and the errors when there is none.

use std::cell::RefCell;
use std::collections::BTreeMap;

use fulmen_wire::units::{CltvDelta, Sat, Scid};
use proptest::prelude::*;

use super::*;
use crate::graph::{ChannelGraph, DirectedChannel, Direction, Policy};
use crate::path::check::check;
use crate::path::multi::PartFinder;
use crate::path::plain;
use crate::path::plain::tests::brute_force::{
    AMOUNT, PAYEE, PAYER, Tightness, knowledge, reversed, small_graph, tightness, usable,
};
use crate::path::plain::tests::{node, one_way, policy, scids, three_ways};
use crate::path::{FirstHop, Knowledge};
use crate::scoring::{Fading, Penalty, Scorer, Weights};

fn find(graph: &ChannelGraph, query: &Query<'_>) -> Result<Route, NoRoute> {
    Finder::new().find(&Snapshot::new(graph), query)
}

/// Drawn for a scorer: observations, a penalised direction, a penalised or banned node.
#[derive(Clone, Debug)]
struct Learned {
    observations: Vec<(u64, bool, u64, u8)>,
    penalty: Option<(u64, u64)>,
    node_penalty: Option<(u8, Option<u64>)>,
    bound: bool,
}

prop_compose! {
    fn learned()(
        observations in prop::collection::vec((1..13_u64, any::<bool>(), 0..12_000_u64, 0..3_u8), 0..6),
        penalty in prop::option::weighted(0.3, (1..13_u64, 0..300_u64)),
        node_penalty in prop::option::weighted(0.3, (3..7_u8, prop::option::of(0..300_u64))),
        bound: bool,
    ) -> Learned {
        Learned { observations, penalty, node_penalty, bound }
    }
}

impl Learned {
    fn scorer(&self, graph: &ChannelGraph) -> Scorer {
        let mut scorer = Scorer::new(Fading::default());
        if self.bound {
            scorer.bind(&Snapshot::new(graph));
        }
        for (at, (scid, forward, amount, kind)) in self.observations.iter().enumerate() {
            let direction = Direction::BOTH[usize::from(*forward)];
            let directed = DirectedChannel { scid: Scid(*scid), direction };
            let Some(channel) = graph.channel(Scid(*scid)) else { continue };
            let (capacity, now) = (channel.capacity(), 100 * at as u64);
            match kind {
                0 => scorer.passed(directed, capacity, Msat(*amount), now),
                1 => scorer.settled(directed, capacity, Msat(*amount), now),
                _ => scorer.failed(directed, capacity, Msat(*amount), now),
            }
        }
        if let Some((scid, msat)) = self.penalty {
            let directed = DirectedChannel { scid: Scid(scid), direction: Direction::OneToTwo };
            scorer.set_penalty(directed, Some(Penalty::Cost(Msat(msat))));
        }
        if let Some((tag, msat)) = self.node_penalty {
            let penalty = msat.map_or(Penalty::Ban, |msat| Penalty::Cost(Msat(msat)));
            scorer.set_node_penalty(node(tag), Some(penalty));
        }
        scorer
    }
}

fn weights() -> impl Strategy<Value = Weights> {
    let some = (0..400_u64, 0..20_000_u32, 0..100_u64).prop_map(|(halving, halving_millionths, hop)| {
        Weights { halving: Msat(halving), halving_millionths, hop: Msat(hop), hop_millionths: 0 }
    });
    prop_oneof![Just(Weights::FEES), some]
}

/// The part of the search that an answer came from.
fn side(
    finder: &mut Finder,
    snapshot: &Snapshot,
    query: &Query<'_>,
    answer: &Result<Route, NoRoute>,
) -> &'static str {
    match answer {
        Ok(route) => {
            let free = Query { limits: Limits::default(), payee_extra_bytes: 0, ..query.clone() };
            match finder.find(snapshot, &free) {
                Ok(other) if other.hops == route.hops => "found, limits aside",
                _ => "found, limits binding",
            }
        }
        Err(NoRoute::OverLimits { .. }) => "limited",
        Err(_) => "unreachable",
    }
}

/// The least of a figure over all routes that keep the given limits.
fn least<T: Ord>(
    graph: &ChannelGraph,
    query: &Query<'_>,
    limits: Limits,
    figure: impl Fn(&Route) -> T,
) -> Option<T> {
    usable(graph, &Query { limits, ..query.clone() }).iter().map(figure).min()
}

/// The graph laid out as it is or, for half of them, before any policy is known; the policies come as updates.
fn lay_out(graph: &ChannelGraph) -> Snapshot {
    if graph.channels().count().is_multiple_of(2) {
        return Snapshot::new(graph);
    }
    let mut bare = graph.clone();
    let mut policies = Vec::new();
    for channel in graph.channels() {
        for direction in Direction::BOTH {
            let directed = DirectedChannel { scid: channel.scid(), direction };
            policies.push((directed, channel.policy(direction).copied()));
            bare.set_policy_of(channel.scid(), direction, None).unwrap();
        }
    }
    Snapshot::new(&bare).with_policies(policies).unwrap()
}

/// The answer agrees with brute force, and the limits named in an error suffice.
fn agrees(
    finder: &mut Finder,
    graph: &ChannelGraph,
    query: &Query<'_>,
) -> Result<&'static str, TestCaseError> {
    let snapshot = lay_out(graph);
    let answer = finder.find(&snapshot, query);
    let best = usable(graph, query).into_iter().map(|route| route.cost).min();
    if let Ok(route) = &answer {
        prop_assert_eq!(check(graph, route, query), Ok(()));
    }
    prop_assert_eq!(answer.as_ref().ok().map(|route| route.cost), best, "{:?}", answer);
    prop_assert_eq!(plain::find(graph, query).ok().map(|route| route.cost), best);
    let limits = query.limits;
    match &answer {
        Ok(_) => {}
        Err(NoRoute::OverLimits { max_fee, max_cltv_blocks, max_hops, .. }) => {
            let wide = Limits { max_fee: Msat::MAX_MONEY, ..limits };
            prop_assert_eq!(*max_fee, least(graph, query, wide, |route| route.fee));
            let wide = Limits { max_cltv_blocks: u32::MAX, ..limits };
            prop_assert_eq!(*max_cltv_blocks, least(graph, query, wide, |route| route.total_cltv_blocks));
            let wide = Limits { max_hops: HOPS_MAX, ..limits };
            prop_assert_eq!(*max_hops, least(graph, query, wide, |route| route.hops.len()));
        }
        Err(NoRoute::Unreachable { .. }) => {
            let wide = Limits { max_fee: Msat::MAX_MONEY, max_cltv_blocks: u32::MAX, max_hops: HOPS_MAX };
            prop_assert_eq!(least(graph, query, wide, |route| route.fee), None);
        }
        Err(other) => prop_assert!(false, "{}", other),
    }
    Ok(side(finder, &snapshot, query, &answer))
}

#[test]
fn agrees_with_brute_force_over_thousands_of_small_graphs() {
    let config = ProptestConfig { cases: 8000, ..ProptestConfig::default() };
    let mut runner = proptest::test_runner::TestRunner::new(config);
    let counts = RefCell::new(BTreeMap::new());
    // One finder serves all queries, so that a result carried over from one to the next would show.
    let finder = RefCell::new(Finder::new());
    let risks = prop_oneof![Just(0), Just(Query::RISK_BILLIONTHS), Just(2_000_000_u32)];
    let extras = prop_oneof![3 => Just(42_u32), 1 => 900..1260_u32];
    let learned = prop::option::weighted(0.7, learned());
    let inputs = (small_graph(), knowledge(), tightness(), risks, (weights(), learned, extras));
    let run = runner.run(&inputs, |(graph, knowledge, tightness, risk_billionths, extra)| {
        let (weights, learned, payee_extra_bytes) = extra;
        let scorer = learned.map(|learned| learned.scorer(&graph));
        let query = Query {
            risk_billionths,
            weights,
            scorer: scorer.as_ref(),
            now_seconds: 1000,
            payee_extra_bytes,
            height: BlockHeight(700),
            ..Query::new(node(PAYER), node(PAYEE), Msat(AMOUNT), &knowledge)
        };
        let query = Query { limits: tightness.limits(&graph, &query), ..query };
        let side = agrees(&mut finder.borrow_mut(), &graph, &query)?;
        *counts.borrow_mut().entry(side).or_insert(0) += 1;
        Ok(())
    });
    run.unwrap();
    for side in ["found, limits aside", "found, limits binding", "limited", "unreachable"] {
        assert!(counts.borrow().get(side) > Some(&25), "{:?}", counts.borrow());
    }
}

#[test]
fn a_limit_on_blocks_leaves_the_cheapest_of_the_rest() {
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(3000));
    let (finder, bound, cut_off) = (RefCell::new(Finder::new()), RefCell::new(0), RefCell::new(0));
    let inputs = (small_graph(), small_graph(), any::<prop::sample::Index>(), weights(), 1..100_usize);
    let run = runner.run(&inputs, |(mut graph, more, limit, weights, comparisons)| {
        // The union of two graphs has routes to choose from.
        for channel in more.channels() {
            let scid = Scid(channel.scid().0 + 100);
            graph.add_channel(scid, channel.nodes(), channel.capacity()).unwrap();
            for direction in Direction::BOTH {
                graph.set_policy_of(scid, direction, channel.policy(direction).copied()).unwrap();
            }
        }
        // No minimums, since the search over them would hide a route missed here.
        for channel in graph.clone().channels() {
            for direction in Direction::BOTH {
                let policy =
                    channel.policy(direction).map(|policy| Policy { htlc_minimum: Msat(1), ..*policy });
                graph.set_policy_of(channel.scid(), direction, policy).unwrap();
            }
        }
        let nothing = Knowledge::default();
        let query = Query::new(node(PAYER), node(PAYEE), Msat(AMOUNT), &nothing);
        let query = Query { weights, ..query };
        let all = usable(&graph, &query);
        let cheapest = all.iter().min_by_key(|route| (route.cost, route.total_cltv_blocks));
        let slow = cheapest.map_or(0, |route| route.total_cltv_blocks);
        let quick: Vec<u32> =
            all.iter().map(|route| route.total_cltv_blocks).filter(|blocks| *blocks < slow).collect();
        if quick.is_empty() {
            return Ok(());
        }
        let query = Query { limits: Limits { max_cltv_blocks: *limit.get(&quick), ..query.limits }, ..query };
        *bound.borrow_mut() += 1;
        let cut = Finder::with_comparisons_max(comparisons).find(&Snapshot::new(&graph), &query);
        if let Err(NoRoute::SearchLimitReached { best: Some(route), .. }) = cut {
            *cut_off.borrow_mut() += 1;
            prop_assert_eq!(check(&graph, &route, &query), Ok(()));
        }
        agrees(&mut finder.borrow_mut(), &graph, &query).map(|_| ())
    });
    run.unwrap();
    let (bound, cut_off) = (bound.take(), cut_off.take());
    assert!(bound > 200 && cut_off > 20, "{cut_off} of {bound}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn the_order_of_arrival_does_not_matter(graph in small_graph(), tightness in tightness()) {
        let reversed = reversed(&graph);
        let nothing = Knowledge::default();
        let query = Query::new(node(PAYER), node(PAYEE), Msat(AMOUNT), &nothing);
        let query = Query { limits: Tightness::limits(&tightness, &graph, &query), ..query };
        prop_assert_eq!(find(&graph, &query), find(&reversed, &query));
    }
}

#[test]
fn says_what_each_limit_would_have_to_be() {
    let graph = three_ways();
    let nothing = Knowledge::default();
    let amount = Msat(1000);
    let ask = |limits| find(&graph, &Query { limits, ..Query::new(node(1), node(9), amount, &nothing) });
    let limits = Limits { max_cltv_blocks: 317, max_hops: 2, max_fee: Msat(499) };
    assert_eq!(
        ask(limits),
        Err(NoRoute::OverLimits {
            amount,
            max_fee: Some(Msat(500)),
            max_cltv_blocks: Some(318),
            max_hops: Some(3)
        })
    );
    // Here only two limits together could help.
    let limits = Limits { max_cltv_blocks: 37, max_hops: 2, max_fee: Msat(9) };
    let none = NoRoute::OverLimits { amount, max_fee: None, max_cltv_blocks: None, max_hops: None };
    assert_eq!(ask(limits), Err(none));
    assert_eq!(scids(&ask(Limits { max_cltv_blocks: 318, max_hops: 2, max_fee: Msat(10) })), [12, 29]);
}

#[test]
fn a_route_whose_cost_saturates_is_found() {
    let money = Msat::MAX_MONEY;
    let dear = Policy {
        fee_base: Msat(0),
        fee_proportional_millionths: u32::MAX,
        cltv_expiry_delta: CltvDelta(1),
        htlc_minimum: Msat(1),
        htlc_maximum: money,
        disabled: false,
    };
    let mut graph = ChannelGraph::new();
    for tag in 1..5 {
        graph.add_channel(Scid(tag.into()), [node(tag), node(tag + 1)], money.floor_sat()).unwrap();
        graph.set_policy(Scid(tag.into()), node(tag), Some(dear)).unwrap();
    }
    let snapshot = Snapshot::new(&graph);
    let nothing = Knowledge::default();
    for amount in [200_000, 438_000, 439_000, 10_000_000].map(Msat) {
        let query = Query::new(node(1), node(5), amount, &nothing);
        let route = Finder::new().find(&snapshot, &query).unwrap();
        assert_eq!(check(&graph, &route, &query), Ok(()));
        assert_eq!(route.cost == Cost(u64::MAX), amount > Msat(400_000));
        let parts = PartFinder::new().find(&snapshot, &query, 4).unwrap();
        assert!(parts.fee <= route.fee, "{parts:?}");
        // One millisatoshi less is refused, and the error names the fee.
        let limits = Limits { max_fee: Msat(route.fee.0 - 1), ..query.limits };
        let Err(NoRoute::OverLimits { max_fee, .. }) =
            Finder::new().find(&snapshot, &Query { limits, ..query.clone() })
        else {
            panic!("a route for {amount} above its limit")
        };
        assert_eq!(max_fee, Some(route.fee));
    }
}

#[test]
fn being_cut_off_is_an_answer_of_its_own() {
    let graph = three_ways();
    let nothing = Knowledge::default();
    let query = Query::new(node(1), node(9), Msat(1000), &nothing);
    let cut = Finder::with_comparisons_max(1).find(&Snapshot::new(&graph), &query);
    assert!(matches!(cut, Err(NoRoute::SearchLimitReached { comparisons: 2.., best: None })), "{cut:?}");
}

#[test]
fn queries_without_sense_are_told_so() {
    let graph = three_ways();
    let nothing = Knowledge::default();
    let ask = |from, to, amount| find(&graph, &Query::new(node(from), node(to), Msat(amount), &nothing));
    assert_eq!(ask(1, 1, 5), Err(NoRoute::SelfPayment { node: node(1) }));
    assert_eq!(ask(1, 77, 5), Err(NoRoute::UnknownNode { node: node(77) }));
    assert_eq!(ask(1, 9, 0), Err(NoRoute::ZeroAmount));
    assert_eq!(ask(9, 1, 5), Err(NoRoute::Unreachable { amount: Msat(5) }));
    assert_eq!(ask(1, 9, u64::MAX), Err(NoRoute::Unreachable { amount: Msat(u64::MAX) }));
    let excluded = Knowledge { excluded_nodes: [node(9)].into(), ..Knowledge::default() };
    let query = Query::new(node(1), node(9), Msat(5), &excluded);
    assert_eq!(find(&graph, &query), Err(NoRoute::ExcludedNode { node: node(9) }));
}

#[test]
fn the_onion_bounds_a_line() {
    // Each node forwards one satoshi at a height of three bytes: 1 + 4 + 5 + 10 + 32 bytes per hop.
    let nodes = 40;
    let lines: Vec<(u64, u8, u8, Policy)> =
        (1..nodes).map(|at| (u64::from(at), at, at + 1, policy(0, 0, 0))).collect();
    let graph = one_way(&lines);
    let nothing = Knowledge::default();
    let ask = |hops: u8, payee_extra_bytes| {
        let query = Query {
            height: BlockHeight(800_000),
            payee_extra_bytes,
            ..Query::new(node(1), node(1 + hops), Msat(1000), &nothing)
        };
        find(&graph, &query).is_ok()
    };
    // The payee's payload: 1 + 4 + 5 + 32 bytes and its own.
    for (hops, spare) in [(23_u8, 1300 - 22 * 52 - 42), (2, 1300 - 52 - 42 - 2)] {
        assert!(ask(hops, spare) && !ask(hops, spare + 1), "{hops}");
    }
    assert!(!ask(26, 0));
}

#[test]
fn a_liked_way_is_taken_and_a_banned_one_is_not() {
    let graph = three_ways();
    let nothing = Knowledge::default();
    let over_two = DirectedChannel { scid: Scid(29), direction: Direction::OneToTwo };
    let weights = Weights { halving: Msat(100), ..Weights::FEES };
    let mut scorer = Scorer::default();
    let ask = |scorer: &Scorer| {
        let query = Query::new(node(1), node(9), Msat(20_000_000), &nothing);
        find(&graph, &Query { scorer: Some(scorer), weights, risk_billionths: 0, ..query })
    };
    assert_eq!(scids(&ask(&scorer)), [12, 29]);
    scorer.failed(over_two, Sat(100_000_000), Msat(10_000_000), 0);
    assert_eq!(scids(&ask(&scorer)), [14, 45, 59]);
    scorer.passed(over_two, Sat(100_000_000), Msat(30_000_000), 0);
    assert_eq!(scids(&ask(&scorer)), [12, 29]);
    scorer.set_penalty(over_two, Some(Penalty::Cost(Msat(21))));
    assert_eq!(scids(&ask(&scorer)), [14, 45, 59]);
    scorer.set_node_penalty(node(4), Some(Penalty::Ban));
    assert_eq!(scids(&ask(&scorer)), [12, 29]);
    scorer.set_penalty(over_two, Some(Penalty::Ban));
    assert_eq!(scids(&ask(&scorer)), [13, 39]);
    let loaded = Scorer::from_bytes(&scorer.to_bytes(), Fading::default()).unwrap();
    assert_eq!(scids(&ask(&loaded)), [12, 29]);
}

#[test]
fn own_channels_follow_balances() {
    let graph = three_ways();
    let first_hop = |spendable| FirstHop { spendable: Msat(spendable), htlc_minimum: Msat(1) };
    let ask = |hops: &[(u64, FirstHop)]| {
        let first_hops = hops.iter().map(|(scid, hop)| (Scid(*scid), *hop)).collect();
        let knowledge = Knowledge { first_hops: Some(first_hops), ..Knowledge::default() };
        find(&graph, &Query::new(node(1), node(9), Msat(1000), &knowledge))
    };
    assert_eq!(scids(&ask(&[(12, first_hop(1009)), (13, first_hop(1500))])), [13, 39]);
    assert_eq!(scids(&ask(&[(12, first_hop(1010)), (13, first_hop(1500))])), [12, 29]);
    assert_eq!(ask(&[]), Err(NoRoute::Unreachable { amount: Msat(1000) }));
}

#[test]
fn a_dearer_hop_may_lift_the_amount_over_a_minimum() {
    let least = |minimum| Policy { htlc_minimum: Msat(minimum), ..policy(0, 0, 0) };
    let graph = one_way(&[
        (14, 1, 4, policy(0, 0, 0)),
        (42, 4, 2, least(1100)),
        (29, 2, 9, policy(10, 0, 0)),
        (23, 2, 3, policy(1, 0, 0)),
        (39, 3, 9, policy(99, 0, 0)),
    ]);
    let nothing = Knowledge::default();
    let query =
        Query { final_cltv_delta: CltvDelta(9), ..Query::new(node(1), node(9), Msat(1000), &nothing) };
    assert_eq!(scids(&find(&graph, &query)), [14, 42, 23, 39]);
}
