//! Tests of alternatives: the order of costs agrees with brute force over every simple path of small random graphs.

use fulmen_wire::units::{Msat, NodeId};

use super::*;
use crate::graph::{ChannelGraph, Direction};
use crate::path::check::check;
use crate::path::multi::tests::{Numbers, knowledge, node, query, small};
use crate::path::{Limits, PathHop};
use crate::scoring::Probability;
use fulmen_wire::units::BlockHeight;

/// Every route that answers the query, found by checking every simple path.
fn every_route(graph: &ChannelGraph, query: &Query<'_>) -> Vec<Route> {
    let mut all = Vec::new();
    walk(graph, query, &mut vec![query.from], &mut Vec::new(), &mut all);
    all
}

fn walk(
    graph: &ChannelGraph,
    query: &Query<'_>,
    nodes: &mut Vec<NodeId>,
    path: &mut Vec<DirectedChannel>,
    all: &mut Vec<Route>,
) {
    let at = nodes[nodes.len() - 1];
    if at == query.to {
        all.extend(figures(graph, query, nodes, path).filter(|route| check(graph, route, query).is_ok()));
        return;
    }
    for channel in graph.channels_of(at) {
        let direction = channel.direction_from(at).unwrap();
        let next = channel.origin(direction.reversed());
        if !nodes.contains(&next) {
            nodes.push(next);
            path.push(DirectedChannel { scid: channel.scid(), direction });
            walk(graph, query, nodes, path, all);
            path.pop();
            nodes.pop();
        }
    }
}

/// The route of a path, usable or not.
fn figures(
    graph: &ChannelGraph,
    query: &Query<'_>,
    nodes: &[NodeId],
    path: &[DirectedChannel],
) -> Option<Route> {
    let prices = Prices::new(query);
    let own = if query.knowledge.first_hops.is_some() { HopRole::OwnKnown } else { HopRole::OwnUnknown };
    let (mut amount, mut blocks, mut cost) = (query.amount, u32::from(query.final_cltv_delta.0), Cost(0));
    let (mut hops, mut bits) = (Vec::new(), Vec::new());
    for (at, directed) in path.iter().enumerate().rev() {
        let channel = graph.channel(directed.scid)?;
        let policy = channel.policy(directed.direction);
        let (role, fee, delta) = match policy {
            Some(policy) if at > 0 => (HopRole::Forward, policy.fee(amount)?, policy.cltv_expiry_delta),
            None if at > 0 => return None,
            _ => (own, Msat(0), CltvDelta(0)),
        };
        let capacity = channel.capacity();
        let hop = PricedHop { directed: *directed, from: nodes[at], capacity, amount, fee, delta };
        cost = cost.saturating_add(prices.cost(&hop, role)?);
        bits.push(prices.uncertainty(*directed, capacity, amount, role));
        hops.insert(
            0,
            PathHop {
                from: nodes[at],
                to: nodes[at + 1],
                scid: directed.scid,
                direction: directed.direction,
                amount,
                cltv_expiry: BlockHeight(query.height.0 + blocks),
                fee,
            },
        );
        amount = amount.checked_add(fee)?;
        blocks += u32::from(delta.0);
    }
    Some(Route {
        hops,
        total_amount: amount,
        fee: amount.checked_sub(query.amount)?,
        total_cltv_blocks: blocks,
        cost,
        success: Uncertainty::sum(bits.into_iter()).probability(),
    })
}

#[test]
fn the_order_agrees_with_brute_force() {
    let mut numbers = Numbers(3);
    let mut finder = Finder::new();
    let mut several = 0;
    for case in 0..4000 {
        let graph = small(&mut numbers, true);
        let known = knowledge(&mut numbers, &graph);
        let tight = numbers.one_in(2);
        let (query, _) = query(&mut numbers, &known, tight);
        let query = Query { amount: Msat(query.amount.0 / 3), ..query };
        let mut expected = every_route(&graph, &query);
        expected.sort_by_key(|route| route.cost);
        let count = 1 + numbers.below(9) as usize;
        let found = alternatives(&mut finder, &Snapshot::new(&graph), &query, count).unwrap_or_default();
        for route in &found {
            assert_eq!(check(&graph, route, &query), Ok(()), "case {case}: {route:?}");
        }
        let costs = |routes: &[Route]| routes.iter().take(count).map(|route| route.cost).collect::<Vec<_>>();
        assert_eq!(costs(&found), costs(&expected), "case {case}: {query:?}");
        let different: BTreeSet<_> = found.iter().map(key).collect();
        assert_eq!(different.len(), found.len(), "case {case}");
        several += usize::from(found.len() > 2);
    }
    assert!(several > 500, "{several}");
}

#[test]
fn alternatives_of_a_square() {
    let graph = crate::path::multi::tests::square();
    let known = Knowledge::default();
    let query = Query { limits: Limits::default(), ..Query::new(node(0), node(3), Msat(100_000), &known) };
    let found = alternatives(&mut Finder::new(), &Snapshot::new(&graph), &query, 5).unwrap();
    let fees: Vec<u64> = found.iter().map(|route| route.fee.0).collect();
    assert_eq!(fees, [10, 20]);
    assert!(found.iter().all(|route| route.success < Probability::ONE));
    assert_eq!(found[0].hops[0].direction, Direction::OneToTwo);
}
