//! Tests of the reference path-finder: the BOLT 7 routing example, each limit by hand, and agreement with brute force
//! over every simple path of small random graphs.

use super::*;
use crate::path::check::check;
use crate::path::{FirstHop, Knowledge, Limits};
use crate::scoring::Weights;
use fulmen_wire::units::{NodeId, Sat, Scid};

pub(crate) fn node(tag: u8) -> NodeId {
    NodeId([tag; 33])
}

pub(crate) fn policy(base: u64, millionths: u32, delta: u16) -> Policy {
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

/// A graph from lines of (scid, from, to, policy), each of one direction, over channels of one bitcoin.
pub(crate) fn one_way(directions: &[(u64, u8, u8, Policy)]) -> ChannelGraph {
    let mut graph = ChannelGraph::new();
    for (scid, from, to, policy) in directions {
        graph.add_channel(Scid(*scid), [node(*from), node(*to)], Sat(100_000_000)).unwrap();
        graph.set_policy(Scid(*scid), node(*from), Some(*policy)).unwrap();
    }
    graph
}

pub(crate) fn scids(answer: &Result<Route, NoRoute>) -> Vec<u64> {
    answer.as_ref().unwrap().hops.iter().map(|hop| hop.scid.0).collect()
}

/// From 1 to 9: over 2 (cheapest, slow), over 3 (dearer, quick), over 4 and 5 (cheap, quick, long).
pub(crate) fn three_ways() -> ChannelGraph {
    one_way(&[
        (12, 1, 2, policy(0, 0, 0)),
        (29, 2, 9, policy(10, 0, 300)),
        (13, 1, 3, policy(0, 0, 0)),
        (39, 3, 9, policy(500, 0, 20)),
        (14, 1, 4, policy(0, 0, 0)),
        (45, 4, 5, policy(15, 0, 20)),
        (59, 5, 9, policy(15, 0, 20)),
    ])
}

#[test]
fn a_limit_that_binds_leaves_the_best_of_the_rest() {
    let graph = three_ways();
    let nothing = Knowledge::default();
    let ask = |limits| find(&graph, &Query { limits, ..Query::new(node(1), node(9), Msat(1000), &nothing) });
    let wide = Limits::default();
    assert_eq!(scids(&ask(wide)), [12, 29]);
    assert_eq!(scids(&ask(Limits { max_cltv_blocks: 317, ..wide })), [14, 45, 59]);
    assert_eq!(scids(&ask(Limits { max_cltv_blocks: 317, max_hops: 2, ..wide })), [13, 39]);
    assert_eq!(scids(&ask(Limits { max_cltv_blocks: 318, max_hops: 2, max_fee: Msat(10) })), [12, 29]);
    let none = Limits { max_cltv_blocks: 317, max_hops: 2, max_fee: Msat(499) };
    let over =
        NoRoute::OverLimits { amount: Msat(1000), max_fee: None, max_cltv_blocks: None, max_hops: None };
    assert_eq!(ask(none), Err(over));
}

#[test]
fn delay_has_its_price_but_is_not_paid_for() {
    let graph = three_ways();
    let nothing = Knowledge::default();
    let query = Query::new(node(1), node(9), Msat(50_000_000), &nothing);
    // 300 blocks for 10 msat against 40 for 30 msat: at 15 billionths a block, delay is worth 225 msat here.
    assert_eq!(scids(&find(&graph, &query)), [14, 45, 59]);
    assert_eq!(find(&graph, &query).unwrap().fee, Msat(30));
    assert_eq!(scids(&find(&graph, &Query { risk_billionths: 0, ..query })), [12, 29]);
}

#[test]
fn knowledge_closes_ways() {
    let graph = three_ways();
    let amount = Msat(1000);
    let ask = |knowledge: &Knowledge| find(&graph, &Query::new(node(1), node(9), amount, knowledge));
    let over_two = DirectedChannel { scid: Scid(29), direction: Direction::OneToTwo };
    let base = Knowledge::default();
    let mut failed = base.clone();
    failed.note_failure(over_two, Msat(1000));
    failed.note_failure(over_two, Msat(5000));
    for (knowledge, expected) in [
        (Knowledge { excluded_channels: [Scid(12)].into(), ..base.clone() }, vec![14, 45, 59]),
        (Knowledge { excluded_directions: [over_two].into(), ..base.clone() }, vec![14, 45, 59]),
        (Knowledge { excluded_nodes: [node(2), node(5)].into(), ..base.clone() }, vec![13, 39]),
        (failed, vec![14, 45, 59]),
        (Knowledge { failed_amounts: [(over_two, Msat(1001))].into(), ..base.clone() }, vec![12, 29]),
    ] {
        assert_eq!(scids(&ask(&knowledge)), expected, "{knowledge:?}");
    }
}

#[test]
fn the_payers_own_channels_follow_its_balances_not_its_policies() {
    let graph = three_ways();
    let first_hop = |spendable| FirstHop { spendable: Msat(spendable), htlc_minimum: Msat(1) };
    let ask = |hops: &[(u64, FirstHop)]| {
        let first_hops = hops.iter().map(|(scid, hop)| (Scid(*scid), *hop)).collect();
        let knowledge = Knowledge { first_hops: Some(first_hops), ..Knowledge::default() };
        find(&graph, &Query::new(node(1), node(9), Msat(1000), &knowledge))
    };
    assert_eq!(scids(&ask(&[(12, first_hop(1009)), (13, first_hop(1500))])), [13, 39]);
    assert_eq!(scids(&ask(&[(12, first_hop(1010)), (13, first_hop(1500))])), [12, 29]);
    assert_eq!(ask(&[(13, first_hop(1499))]), Err(NoRoute::Unreachable { amount: Msat(1000) }));
    assert_eq!(ask(&[]), Err(NoRoute::Unreachable { amount: Msat(1000) }));
    let picky = FirstHop { spendable: Msat(9999), htlc_minimum: Msat(1011) };
    assert_eq!(ask(&[(12, picky)]), Err(NoRoute::Unreachable { amount: Msat(1000) }));

    // The payer's own disabled policy does not matter when it states its channels.
    let mut disabled = graph.clone();
    disabled.set_policy(Scid(12), node(1), Some(Policy { disabled: true, ..policy(0, 0, 0) })).unwrap();
    let first_hops = Some([(Scid(12), first_hop(5000))].into());
    let knowing = Knowledge { first_hops, ..Knowledge::default() };
    let unknowing = Knowledge::default();
    let query = Query::new(node(1), node(9), Msat(1000), &knowing);
    assert_eq!(scids(&find(&disabled, &query)), [12, 29]);
    let query = Query { knowledge: &unknowing, ..query };
    assert_eq!(scids(&find(&disabled, &query)), [14, 45, 59]);
}

#[test]
fn a_dearer_hop_may_lift_the_amount_over_a_minimum() {
    let least = |minimum| Policy { htlc_minimum: Msat(minimum), ..policy(0, 0, 0) };
    // The route over 3 charges more, and so brings 1,100 msat to the channel whose minimum that is.
    let graph = one_way(&[
        (14, 1, 4, policy(0, 0, 0)),
        (42, 4, 2, least(1100)),
        (29, 2, 9, policy(10, 0, 0)),
        (23, 2, 3, policy(1, 0, 0)),
        (39, 3, 9, policy(99, 0, 0)),
    ]);
    let nothing = Knowledge::default();
    let query = Query::new(node(1), node(9), Msat(1000), &nothing);
    assert_eq!(scids(&find(&graph, &query)), [14, 42, 23, 39]);
    let limits = Limits { max_fee: Msat(99), ..Limits::default() };
    assert_eq!(find(&graph, &Query { limits, ..query }), Err(NoRoute::Unreachable { amount: Msat(1000) }));
}

#[test]
fn the_cheaper_way_may_bring_more_than_a_channel_carries() {
    // From 2 on, the route over 3 costs a fee of 100 msat, and the one over 4 a hundred blocks, whose price is
    // higher. But only the latter's 1,000 msat fit through the channel before.
    let narrow = Policy { htlc_maximum: Msat(1050), ..policy(0, 0, 0) };
    let graph = one_way(&[
        (15, 1, 5, policy(0, 0, 0)),
        (52, 5, 2, narrow),
        (23, 2, 3, policy(100, 0, 0)),
        (39, 3, 9, policy(0, 0, 0)),
        (24, 2, 4, policy(0, 0, 100)),
        (49, 4, 9, policy(0, 0, 0)),
    ]);
    let nothing = Knowledge::default();
    let query = Query { risk_billionths: 2_000_000, ..Query::new(node(1), node(9), Msat(1000), &nothing) };
    assert_eq!(scids(&find(&graph, &query)), [15, 52, 24, 49]);
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
fn the_checker_refuses_what_is_not_quite_right() {
    let graph = three_ways();
    let nothing = Knowledge::default();
    let query = Query::new(node(1), node(9), Msat(1000), &nothing);
    let good = find(&graph, &query).unwrap();
    check(&graph, &good, &query).unwrap();
    let changes: [fn(&mut Route); 12] = [
        |route| route.hops.clear(),
        |route| route.hops.truncate(1),
        |route| route.hops.reverse(),
        |route| route.hops[0].amount.0 += 1,
        |route| route.hops[1].amount.0 -= 1,
        |route| route.hops[0].cltv_expiry.0 += 1,
        |route| route.hops[1].fee.0 -= 1,
        |route| route.hops[1].scid = Scid(39),
        |route| route.hops[1].direction = Direction::TwoToOne,
        |route| route.total_amount.0 += 1,
        |route| route.total_cltv_blocks -= 1,
        |route| route.cost.0 -= 1,
    ];
    for (at, change) in changes.into_iter().enumerate() {
        let mut route = good.clone();
        change(&mut route);
        assert!(check(&graph, &route, &query).is_err(), "change {at} goes unnoticed");
    }
    let wide = Limits::default();
    for limits in [
        Limits { max_fee: Msat(9), ..wide },
        Limits { max_cltv_blocks: 317, ..wide },
        Limits { max_hops: 1, ..wide },
    ] {
        assert!(check(&graph, &good, &Query { limits, ..query.clone() }).is_err(), "{limits:?}");
    }
    let first_hops = |spendable| {
        let hop = FirstHop { spendable: Msat(spendable), htlc_minimum: Msat(1) };
        Knowledge { first_hops: Some([(Scid(12), hop)].into()), ..Knowledge::default() }
    };
    let over_two = good.hops[1].directed();
    for (knowledge, fine) in [
        (first_hops(1010), true),
        (first_hops(1009), false),
        (Knowledge { first_hops: Some([].into()), ..Knowledge::default() }, false),
        (Knowledge { excluded_channels: [Scid(29)].into(), ..Knowledge::default() }, false),
        (Knowledge { excluded_directions: [over_two].into(), ..Knowledge::default() }, false),
        (Knowledge { excluded_nodes: [node(2)].into(), ..Knowledge::default() }, false),
        (Knowledge { failed_amounts: [(over_two, Msat(1001))].into(), ..Knowledge::default() }, true),
        (Knowledge { failed_amounts: [(over_two, Msat(1000))].into(), ..Knowledge::default() }, false),
    ] {
        let query = Query { knowledge: &knowledge, ..query.clone() };
        // The payer's own channel is certain when its balance is known.
        let route = if fine { find(&graph, &query).unwrap() } else { good.clone() };
        assert_eq!(route.hops, good.hops);
        assert_eq!(check(&graph, &route, &query).is_ok(), fine, "{knowledge:?}");
    }
    for spoilt in [
        None,
        Some(Policy { disabled: true, ..policy(10, 0, 300) }),
        Some(Policy { htlc_minimum: Msat(1001), ..policy(10, 0, 300) }),
        Some(Policy { htlc_maximum: Msat(999), ..policy(10, 0, 300) }),
        Some(policy(11, 0, 300)),
        Some(policy(10, 1000, 300)),
        Some(policy(10, 0, 299)),
    ] {
        let mut graph = graph.clone();
        graph.set_policy(Scid(29), node(2), spoilt).unwrap();
        assert!(check(&graph, &good, &query).is_err(), "{spoilt:?}");
    }
}

/// The oracle of the searches: every simple path, checked one by one.
pub(crate) mod brute_force {
    use super::*;
    use proptest::prelude::*;

    pub(crate) const PAYER: u8 = 1;
    pub(crate) const PAYEE: u8 = 2;
    pub(crate) const AMOUNT: u64 = 1000;

    fn small_policy() -> impl Strategy<Value = Policy> {
        let fee_base = prop_oneof![Just(0), 0..30_u64, 0..400_u64];
        let millionths = prop_oneof![Just(0), 0..200_000_u32];
        let delta = prop_oneof![Just(0), 0..60_u16];
        let minimum = prop_oneof![4 => Just(1), 2 => AMOUNT..AMOUNT + 60, 1 => AMOUNT - 5..AMOUNT + 500];
        let maximum = prop_oneof![3 => Just(9999), 2 => AMOUNT..AMOUNT + 250];
        (fee_base, millionths, delta, minimum, maximum, prop::bool::weighted(0.05)).prop_map(
            |(base, millionths, delta, minimum, maximum, disabled)| Policy {
                htlc_minimum: Msat(minimum),
                htlc_maximum: Msat(maximum),
                disabled,
                ..policy(base, millionths, delta)
            },
        )
    }

    prop_compose! {
        pub(crate) fn small_graph()(
            channels in prop::collection::vec(
                (
                    (1..7_u8, 1..6_u8),
                    prop_oneof![4 => Just(10), 1 => 1..3_u64],
                    prop::option::weighted(0.95, small_policy()),
                    prop::option::weighted(0.95, small_policy()),
                ),
                4..13,
            ),
        ) -> ChannelGraph {
            let mut graph = ChannelGraph::new();
            // Both ends always exist, if only with a channel that carries nothing.
            graph.add_channel(Scid(0), [node(PAYER), node(PAYEE)], Sat(0)).unwrap();
            for (scid, ((one, step), capacity, of_one, of_two)) in channels.into_iter().enumerate() {
                let scid = Scid(scid as u64 + 1);
                let two = (one - 1 + step) % 6 + 1;
                graph.add_channel(scid, [node(one), node(two)], Sat(capacity)).unwrap();
                graph.set_policy(scid, node(one), of_one).unwrap();
                graph.set_policy(scid, node(two), of_two).unwrap();
            }
            graph
        }
    }

    fn directed() -> impl Strategy<Value = DirectedChannel> {
        let direction = prop_oneof![Just(Direction::OneToTwo), Just(Direction::TwoToOne)];
        (1..13_u64, direction).prop_map(|(scid, direction)| DirectedChannel { scid: Scid(scid), direction })
    }

    prop_compose! {
        pub(crate) fn knowledge()(
            first_hops in prop::option::weighted(0.3, prop::collection::btree_map(
                (1..13_u64).prop_map(Scid),
                (AMOUNT - 10..AMOUNT + 400, prop_oneof![3 => Just(1), 1 => AMOUNT..AMOUNT + 50]).prop_map(
                    |(spendable, minimum)| FirstHop { spendable: Msat(spendable), htlc_minimum: Msat(minimum) },
                ),
                4..12,
            )),
            failed_amounts in prop::collection::btree_map(
                directed(), prop_oneof![1 => Just(0), 9 => AMOUNT..AMOUNT + 200].prop_map(Msat), 0..3,
            ),
            in_flight in prop::collection::btree_map(directed(), (0..2 * AMOUNT).prop_map(Msat), 0..2),
            excluded_channels in prop::collection::btree_set((1..13_u64).prop_map(Scid), 0..2),
            excluded_directions in prop::collection::btree_set(directed(), 0..2),
            excluded_nodes in prop::collection::btree_set((3..12_u8).prop_map(node), 0..2),
        ) -> Knowledge {
            Knowledge { first_hops, failed_amounts, in_flight, excluded_channels, excluded_directions, excluded_nodes }
        }
    }

    /// The tightness of each limit: wide, exactly the need of one of the paths, or one less; and that path.
    #[derive(Clone, Debug)]
    pub(crate) struct Tightness {
        path: prop::sample::Index,
        fee: Option<u64>,
        cltv_blocks: Option<u32>,
        hops: Option<usize>,
    }

    prop_compose! {
        pub(crate) fn tightness()(
            path: prop::sample::Index,
            fee in prop::option::of(prop_oneof![4 => Just(0_u64), 1 => Just(1)]),
            cltv_blocks in prop::option::of(prop_oneof![4 => Just(0_u32), 1 => Just(1)]),
            hops in prop::option::of(prop_oneof![4 => Just(0_usize), 1 => Just(1)]),
        ) -> Tightness {
            Tightness { path, fee, cltv_blocks, hops }
        }
    }

    impl Tightness {
        /// The limits, set by a path that is usable without limits.
        pub(crate) fn limits(&self, graph: &ChannelGraph, query: &Query<'_>) -> Limits {
            let wide = Limits::default();
            let routes: Vec<Route> = usable(graph, &Query { limits: wide, ..query.clone() });
            if routes.is_empty() {
                return wide;
            }
            let route = self.path.get(&routes);
            Limits {
                max_fee: self.fee.map_or(wide.max_fee, |less| Msat(route.fee.0.saturating_sub(less))),
                max_cltv_blocks: self
                    .cltv_blocks
                    .map_or(2016, |less| route.total_cltv_blocks.saturating_sub(less)),
                max_hops: self.hops.map_or(20, |less| route.hops.len().saturating_sub(less)),
            }
        }
    }

    /// The routes along all paths that satisfy the query.
    pub(crate) fn usable(graph: &ChannelGraph, query: &Query<'_>) -> Vec<Route> {
        let routes = paths(graph).into_iter().filter_map(|path| along(graph, &path, query));
        routes.filter(|route| check(graph, route, query).is_ok()).collect()
    }

    /// Every simple path from payer to payee, as the directions it crosses.
    fn paths(graph: &ChannelGraph) -> Vec<Vec<(Scid, Direction)>> {
        fn walk(
            graph: &ChannelGraph,
            at: NodeId,
            passed: &mut Vec<NodeId>,
            path: &mut Vec<(Scid, Direction)>,
            found: &mut Vec<Vec<(Scid, Direction)>>,
        ) {
            if at == node(PAYEE) {
                found.push(path.clone());
                return;
            }
            for channel in graph.channels_of(at) {
                let direction = channel.direction_from(at).unwrap();
                let far = channel.origin(direction.reversed());
                if !passed.contains(&far) {
                    passed.push(far);
                    path.push((channel.scid(), direction));
                    walk(graph, far, passed, path, found);
                    path.pop();
                    passed.pop();
                }
            }
        }
        let mut found = Vec::new();
        walk(graph, node(PAYER), &mut vec![node(PAYER)], &mut Vec::new(), &mut found);
        found
    }

    /// The route along a path, with figures computed from the payee back. The checker decides whether it is usable.
    fn along(graph: &ChannelGraph, path: &[(Scid, Direction)], query: &Query<'_>) -> Option<Route> {
        let mut amount = query.amount.0;
        let mut blocks = u32::from(query.final_cltv_delta.0);
        let (mut cost, mut fees_and_delay) = (0, 0);
        let mut uncertainty = Vec::new();
        let mut hops = Vec::new();
        let prices = Prices::new(query);
        for (at, (scid, direction)) in path.iter().enumerate().rev() {
            let channel = graph.channel(*scid)?;
            let mut hop = PathHop {
                from: channel.origin(*direction),
                to: channel.origin(direction.reversed()),
                scid: *scid,
                direction: *direction,
                amount: Msat(amount),
                cltv_expiry: BlockHeight(query.height.0 + blocks),
                fee: Msat(0),
            };
            let mut delta = 0;
            if at > 0 {
                let policy = channel.policy(*direction)?;
                let millionths = u64::from(policy.fee_proportional_millionths);
                hop.fee = Msat(policy.fee_base.0 + amount * millionths / 1_000_000);
                delta = policy.cltv_expiry_delta.0;
            }
            let role = match (at, &query.knowledge.first_hops) {
                (0, Some(_)) => HopRole::OwnKnown,
                (0, None) => HopRole::OwnUnknown,
                _ => HopRole::Forward,
            };
            let priced = PricedHop {
                directed: hop.directed(),
                from: hop.from,
                capacity: channel.capacity(),
                amount: hop.amount,
                fee: hop.fee,
                delta: CltvDelta(delta),
            };
            cost += prices.cost(&priced, role)?.0;
            let delay = amount * u64::from(delta) * u64::from(query.risk_billionths) / 1_000_000;
            fees_and_delay += hop.fee.0 * 1000 + delay;
            uncertainty.push(prices.uncertainty(hop.directed(), channel.capacity(), hop.amount, role));
            amount += hop.fee.0;
            blocks += u32::from(delta);
            hops.insert(0, hop);
        }
        if query.weights == Weights::FEES && query.scorer.is_none() {
            assert_eq!(cost, fees_and_delay);
        }
        Some(Route {
            hops,
            total_amount: Msat(amount),
            fee: Msat(amount - query.amount.0),
            total_cltv_blocks: blocks,
            cost: Cost(cost),
            success: Uncertainty::sum(uncertainty.into_iter()).probability(),
        })
    }

    /// Compares, and returns which search the answer came from: the fast one, or another.
    fn outcome(graph: &ChannelGraph, query: &Query<'_>) -> Result<&'static str, TestCaseError> {
        let answer = find(graph, query);
        let best = usable(graph, query).into_iter().map(|route| route.cost).min();
        prop_assert_eq!(answer.as_ref().ok().map(|route| route.cost), best, "{:?}", answer);
        Ok(match answer {
            Ok(route) => {
                prop_assert_eq!(check(graph, &route, query), Ok(()));
                let problem = Problem::new(graph, query).expect("answered");
                let quick = Search::new(&problem, query.amount, None).run().expect("small");
                if quick.is_some_and(|(quick, _)| quick == route) { "quick" } else { "other" }
            }
            Err(NoRoute::OverLimits { .. }) => "over limits",
            Err(_) => "unreachable",
        })
    }

    #[test]
    fn agrees_over_thousands_of_small_graphs() {
        let config = ProptestConfig { cases: 4000, ..ProptestConfig::default() };
        let mut runner = proptest::test_runner::TestRunner::new(config);
        let counts = std::cell::RefCell::new(std::collections::BTreeMap::new());
        let risks = prop_oneof![Just(0), Just(Query::RISK_BILLIONTHS), Just(2_000_000_u32)];
        let inputs = (small_graph(), knowledge(), tightness(), risks);
        let run = runner.run(&inputs, |(graph, knowledge, tightness, risk_billionths)| {
            let query = Query {
                risk_billionths,
                height: BlockHeight(700),
                ..Query::new(node(PAYER), node(PAYEE), Msat(AMOUNT), &knowledge)
            };
            let query = Query { limits: tightness.limits(&graph, &query), ..query };
            *counts.borrow_mut().entry(outcome(&graph, &query)?).or_insert(0) += 1;
            Ok(())
        });
        run.unwrap();
        // The cases prove little unless they cover every search.
        for side in ["quick", "other", "over limits", "unreachable"] {
            assert!(counts.borrow().get(side) > Some(&50), "{:?}", counts.borrow());
        }
    }

    /// The same graph, its channels added in the opposite order.
    pub(crate) fn reversed(graph: &ChannelGraph) -> ChannelGraph {
        let mut reversed = ChannelGraph::new();
        for scid in (0..graph.channel_count() as u64).rev().map(Scid) {
            let channel = graph.channel(scid).unwrap();
            reversed.add_channel(scid, channel.nodes(), channel.capacity()).unwrap();
            for direction in Direction::BOTH {
                let policy = channel.policy(direction).copied();
                reversed.set_policy(scid, channel.origin(direction), policy).unwrap();
            }
        }
        reversed
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]
        #[test]
        fn the_order_of_arrival_does_not_matter(graph in small_graph(), tightness in tightness()) {
            let reversed = reversed(&graph);
            let nothing = Knowledge::default();
            let query = Query::new(node(PAYER), node(PAYEE), Msat(AMOUNT), &nothing);
            let query = Query { limits: tightness.limits(&graph, &query), ..query };
            prop_assert_eq!(find(&graph, &query), find(&reversed, &query));
        }
    }
}
