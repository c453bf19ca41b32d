//! Payments that are made to fail, with the hop and the code that each must fail with.
//!
//! Owns: the kinds of fault, the routes that cause them, and the expected failure (BOLT 4, "Failure Messages"). Does
//! not send anything: [`crate::paying`] does.
//!
//! Invariant: a faulty route breaks exactly one rule, at exactly one node; every hop before it is paid as its policy
//! asks. A payment that fails earlier met a balance that was too low.

use std::fmt;

use fulmen_graph::path::plain::find;
use fulmen_graph::path::{Cost, NoRoute, PathHop, Query, Route};
use fulmen_graph::scoring::Probability;
use fulmen_graph::{ChannelGraph, DirectedChannel, Direction, Policy};
use fulmen_proto::onion::FailureCode;
use fulmen_wire::units::{BlockHeight, CltvDelta, Msat};
use rand::RngExt;
use rand::seq::IndexedRandom;
use rand_chacha::ChaCha20Rng;

/// The rule a faulty payment breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum FaultKind {
    /// The payee has never heard of the payment hash.
    UnknownHash,
    /// A hop is asked to forward more than its `htlc_maximum_msat`.
    AboveMaximum,
    /// A hop is offered less than its fee.
    FeeShort,
    /// A hop is offered less than its `cltv_expiry_delta`.
    DeltaShort,
}

impl FaultKind {
    /// All kinds, in the order they are dealt.
    pub(crate) const ALL: [FaultKind; 4] =
        [FaultKind::UnknownHash, FaultKind::AboveMaximum, FaultKind::FeeShort, FaultKind::DeltaShort];

    /// The name in the report.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            FaultKind::UnknownHash => "unknown_hash",
            FaultKind::AboveMaximum => "above_maximum",
            FaultKind::FeeShort => "fee_short",
            FaultKind::DeltaShort => "delta_short",
        }
    }

    /// The code the erring node must answer with.
    pub(crate) const fn code(self) -> FailureCode {
        match self {
            FaultKind::UnknownHash => FailureCode::IncorrectOrUnknownPaymentDetails,
            FaultKind::AboveMaximum => FailureCode::TemporaryChannelFailure,
            FaultKind::FeeShort => FailureCode::FeeInsufficient,
            FaultKind::DeltaShort => FailureCode::IncorrectCltvExpiry,
        }
    }
}

impl fmt::Display for FaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The failure that a faulty route must meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Expected {
    /// The erring node: that at the end of the route's hop of this index.
    pub(crate) hop: usize,
    /// Its code.
    pub(crate) code: FailureCode,
}

/// A route that must fail.
#[derive(Clone, Debug)]
pub(crate) struct FaultyRoute {
    /// The HTLC on each channel.
    pub(crate) hops: Vec<PathHop>,
    /// Where it fails.
    pub(crate) expected: Expected,
}

/// Makes a route for `query` that breaks the rule of `kind`; `None` if no route between payer and payee can break it.
///
/// For [`FaultKind::AboveMaximum`] the payee and the amount are chosen here, as few pairs of nodes have such a route.
///
/// # Errors
/// When there is no route between payer and payee at all.
pub(crate) fn faulty_route(
    graph: &ChannelGraph,
    query: &Query<'_>,
    kind: FaultKind,
    rng: &mut ChaCha20Rng,
) -> Result<Option<FaultyRoute>, NoRoute> {
    let sound = || find(graph, query);
    Ok(match kind {
        FaultKind::UnknownHash => Some(unknown_hash(sound()?)),
        FaultKind::AboveMaximum => above_maximum(graph, query, rng),
        FaultKind::FeeShort => fee_short(graph, sound()?, rng),
        FaultKind::DeltaShort => delta_short(graph, sound()?, rng),
    })
}

/// The route of these hops, to be sent as it is: its cost and probability are not computed.
pub(crate) fn route(hops: Vec<PathHop>, height: BlockHeight) -> Route {
    let total_amount = hops.first().map_or(Msat::ZERO, |hop| hop.amount);
    let received = hops.last().map_or(Msat::ZERO, |hop| hop.amount);
    let expiry = hops.first().map_or(height, |hop| hop.cltv_expiry);
    Route {
        total_amount,
        fee: total_amount.saturating_sub(received),
        total_cltv_blocks: expiry.blocks_above(height),
        cost: Cost::default(),
        success: Probability::ONE,
        hops,
    }
}

fn policy<'a>(graph: &'a ChannelGraph, hop: &PathHop) -> Option<&'a Policy> {
    graph.channel(hop.scid)?.policy(hop.direction)
}

/// A sound route: the payee has issued no invoice for the hash.
fn unknown_hash(route: Route) -> FaultyRoute {
    let expected = Expected { hop: route.hops.len() - 1, code: FaultKind::UnknownHash.code() };
    FaultyRoute { hops: route.hops, expected }
}

/// Offers one forwarding node less than its fee.
fn fee_short(graph: &ChannelGraph, route: Route, rng: &mut ChaCha20Rng) -> Option<FaultyRoute> {
    let mut hops = route.hops;
    let paid: Vec<usize> = (1..hops.len()).filter(|index| hops[*index].fee > Msat::ZERO).collect();
    let victim = *paid.choose(rng)?;
    let short = rng.random_range(1..=hops[victim].fee.0);
    hops[victim - 1].amount = hops[victim - 1].amount.checked_sub(Msat(short))?;
    // Each node before the victim is paid its fee on the smaller amount.
    for index in (1..victim).rev() {
        let fee = policy(graph, &hops[index])?.fee(hops[index].amount)?;
        hops[index].fee = fee;
        hops[index - 1].amount = hops[index].amount.checked_add(fee)?;
    }
    let meets_minimums = hops[1..victim]
        .iter()
        .all(|hop| policy(graph, hop).is_some_and(|policy| hop.amount >= policy.htlc_minimum));
    meets_minimums.then_some(FaultyRoute {
        hops,
        expected: Expected { hop: victim - 1, code: FaultKind::FeeShort.code() },
    })
}

/// Offers one forwarding node less than its expiry delta.
fn delta_short(graph: &ChannelGraph, route: Route, rng: &mut ChaCha20Rng) -> Option<FaultyRoute> {
    let mut hops = route.hops;
    let delayed =
        |index: &usize| policy(graph, &hops[*index]).is_some_and(|policy| policy.cltv_expiry_delta.0 > 0);
    let victims: Vec<usize> = (1..hops.len()).filter(delayed).collect();
    let victim = *victims.choose(rng)?;
    let short = rng.random_range(1..=policy(graph, &hops[victim])?.cltv_expiry_delta.0);
    for hop in &mut hops[..victim] {
        hop.cltv_expiry = hop.cltv_expiry.saturating_sub(CltvDelta(short));
    }
    Some(FaultyRoute { hops, expected: Expected { hop: victim - 1, code: FaultKind::DeltaShort.code() } })
}

/// How many channels are tried before the payer counts as reaching none with more than its maximum.
const CANDIDATES: usize = 12;

/// Asks a node to forward more than the maximum of one of its channels: finds a channel whose maximum is small, a route
/// to the node in front of it for an amount just above, and adds the channel.
fn above_maximum(graph: &ChannelGraph, query: &Query<'_>, rng: &mut ChaCha20Rng) -> Option<FaultyRoute> {
    let mut candidates: Vec<(Msat, DirectedChannel)> = graph
        .channels()
        .flat_map(|channel| Direction::BOTH.map(|direction| (channel, direction)))
        .filter(|(channel, direction)| {
            !channel.nodes().contains(&query.from) && channel.policy(*direction).is_some()
        })
        .filter_map(|(channel, direction)| {
            let policy = channel.policy(direction).filter(|policy| !policy.disabled)?;
            Some((policy.htlc_maximum, DirectedChannel { scid: channel.scid(), direction }))
        })
        .collect();
    // The smaller the maximum, the likelier a route to the channel carries more.
    candidates.sort_unstable();
    let half = candidates.len().div_ceil(2);
    candidates.truncate(half);
    for _ in 0..CANDIDATES {
        let (maximum, directed) = *candidates.choose(rng)?;
        let above = Msat(maximum.0.checked_add(rng.random_range(1..=1 + maximum.0 / 50))?);
        let route = through(graph, query, directed, above);
        if route.is_some() {
            return route;
        }
    }
    None
}

/// A route of `amount` to the origin of `last` and over it, if its origin can be reached with that much.
fn through(
    graph: &ChannelGraph,
    query: &Query<'_>,
    last: DirectedChannel,
    amount: Msat,
) -> Option<FaultyRoute> {
    let channel = graph.channel(last.scid)?;
    let policy = channel.policy(last.direction)?;
    let (victim, payee) = (channel.origin(last.direction), channel.origin(last.direction.reversed()));
    let fee = policy.fee(amount)?;
    let mut knowledge = query.knowledge.clone();
    knowledge.excluded_nodes.insert(payee);
    let to_victim = Query {
        to: victim,
        amount: amount.checked_add(fee)?,
        final_cltv_delta: CltvDelta(query.final_cltv_delta.0.checked_add(policy.cltv_expiry_delta.0)?),
        knowledge: &knowledge,
        ..query.clone()
    };
    let mut hops = find(graph, &to_victim).ok()?.hops;
    let expected = Expected { hop: hops.len() - 1, code: FaultKind::AboveMaximum.code() };
    hops.push(PathHop {
        from: victim,
        to: payee,
        scid: last.scid,
        direction: last.direction,
        amount,
        cltv_expiry: query.height.saturating_add(query.final_cltv_delta),
        fee,
    });
    Some(FaultyRoute { hops, expected })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seed::{Purpose, Seed};
    use fulmen_graph::path::Knowledge;
    use fulmen_wire::units::{NodeId, Sat, Scid};

    fn node(number: u8) -> NodeId {
        NodeId([number; 33])
    }

    /// Nodes 1 to 5 in a row, channels 1 to 4; the maximum falls towards the end.
    fn graph(fee_base: u64, delta: u16) -> ChannelGraph {
        let mut graph = ChannelGraph::new();
        for number in 1..5 {
            let scid = Scid(u64::from(number));
            graph.add_channel(scid, [node(number), node(number + 1)], Sat(1_000_000)).unwrap();
            let policy = Policy {
                fee_base: Msat(fee_base),
                fee_proportional_millionths: if fee_base > 0 { 1_000 } else { 0 },
                cltv_expiry_delta: CltvDelta(delta),
                htlc_minimum: Msat(1_000),
                htlc_maximum: Msat(900_000_000 / u64::from(number)),
                disabled: false,
            };
            graph.set_policy(scid, node(number), Some(policy)).unwrap();
            graph.set_policy(scid, node(number + 1), Some(policy)).unwrap();
        }
        graph
    }

    fn faulty(graph: &ChannelGraph, kind: FaultKind, draw: u64) -> Option<FaultyRoute> {
        let knowledge = Knowledge::default();
        let query =
            Query { height: BlockHeight(700), ..Query::new(node(1), node(5), Msat(1_000_000), &knowledge) };
        let mut rng = Seed::new(9, b"").rng(Purpose::Fault, draw);
        faulty_route(graph, &query, kind, &mut rng).unwrap()
    }

    /// The rules that the forwarding nodes of a route find broken, each with the node's index on the route.
    fn broken_rules(graph: &ChannelGraph, hops: &[PathHop]) -> Vec<(usize, FaultKind)> {
        let mut found = Vec::new();
        for index in 1..hops.len() {
            let (before, hop) = (&hops[index - 1], &hops[index]);
            let policy = policy(graph, hop).unwrap();
            assert!(hop.amount >= policy.htlc_minimum);
            if before.amount < hop.amount.checked_add(policy.fee(hop.amount).unwrap()).unwrap() {
                found.push((index - 1, FaultKind::FeeShort));
            }
            if before.cltv_expiry < hop.cltv_expiry.saturating_add(policy.cltv_expiry_delta) {
                found.push((index - 1, FaultKind::DeltaShort));
            }
            if hop.amount > policy.htlc_maximum {
                found.push((index - 1, FaultKind::AboveMaximum));
            }
        }
        found
    }

    #[test]
    fn each_fault_breaks_its_rule_once_where_it_says() {
        let graph = graph(1_000, 40);
        let mut hops_seen = std::collections::BTreeSet::new();
        for kind in [FaultKind::AboveMaximum, FaultKind::FeeShort, FaultKind::DeltaShort] {
            for draw in 0..30 {
                let route = faulty(&graph, kind, draw).expect("this graph offers every fault");
                assert_eq!(
                    broken_rules(&graph, &route.hops),
                    [(route.expected.hop, kind)],
                    "{kind} draw {draw}"
                );
                assert_eq!(route.expected.code, kind.code());
                assert!(route.hops.windows(2).all(|pair| pair[0].to == pair[1].from));
                hops_seen.insert((kind, route.expected.hop));
            }
        }
        assert!(hops_seen.len() >= 7, "faults lie at several places: {hops_seen:?}");
    }

    #[test]
    fn an_unknown_hash_fails_at_the_payee_of_a_sound_route() {
        let graph = graph(1_000, 40);
        let route = faulty(&graph, FaultKind::UnknownHash, 0).unwrap();
        assert!(broken_rules(&graph, &route.hops).is_empty());
        assert_eq!(route.expected.hop, route.hops.len() - 1);
    }

    #[test]
    fn routes_without_fees_or_deltas_cannot_be_underpaid() {
        assert!(faulty(&graph(0, 40), FaultKind::FeeShort, 0).is_none());
        assert!(faulty(&graph(1_000, 0), FaultKind::DeltaShort, 0).is_none());
    }
}
