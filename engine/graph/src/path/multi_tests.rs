//! Tests of payments in parts: every answer on thousands of small random graphs is checked, and whether one is found
//! is compared with brute force over every split.

use fulmen_wire::units::{CltvDelta, NodeId, Sat, Scid};

use super::*;
use crate::graph::{ChannelGraph, DirectedChannel, Direction, Policy};
use crate::path::check_parts::check_parts;
use crate::path::{FirstHop, Limits};
use crate::scoring::Weights;

/// Pseudo-random numbers that are the same on every machine.
pub(crate) struct Numbers(pub(crate) u64);

impl Numbers {
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }

    pub(crate) fn one_in(&mut self, often: u64) -> bool {
        self.below(often) == 0
    }
}

pub(crate) fn node(tag: u64) -> NodeId {
    NodeId([tag as u8; 33])
}

/// The size of a unit; amounts and limits of the random graphs are a few units.
const UNIT: u64 = 1_000_000;

/// A graph of a few nodes with capacities of a few units. Without fees, a split exists exactly if one into whole
/// units does.
pub(crate) fn small(numbers: &mut Numbers, fees: bool) -> ChannelGraph {
    let nodes = 3 + numbers.below(4);
    let mut graph = ChannelGraph::new();
    for scid in 1..=nodes + numbers.below(6) {
        let one = numbers.below(nodes);
        let other = (one + 1 + numbers.below(nodes - 1)) % nodes;
        let units = 1 + numbers.below(8);
        graph.add_channel(Scid(scid), [node(one), node(other)], Sat(units * UNIT / 1000)).unwrap();
        for from in [one, other] {
            let policy = Policy {
                fee_base: Msat(if fees { numbers.below(3000) } else { 0 }),
                fee_proportional_millionths: if fees { numbers.below(20_000) as u32 } else { 0 },
                cltv_expiry_delta: CltvDelta(numbers.below(40) as u16),
                htlc_minimum: Msat(if numbers.one_in(6) { 2 * UNIT } else { 1 }),
                htlc_maximum: Msat(if numbers.one_in(4) {
                    UNIT * (1 + numbers.below(units))
                } else {
                    units * UNIT
                }),
                disabled: numbers.one_in(12),
            };
            graph.set_policy(Scid(scid), node(from), Some(policy)).unwrap();
        }
    }
    graph
}

pub(crate) fn knowledge(numbers: &mut Numbers, graph: &ChannelGraph) -> Knowledge {
    let mut known = Knowledge::default();
    let directions: Vec<_> = graph
        .channels()
        .flat_map(|channel| {
            Direction::BOTH.map(|direction| DirectedChannel { scid: channel.scid(), direction })
        })
        .collect();
    if numbers.one_in(3) {
        let own = graph.channels_of(node(0)).map(|channel| {
            let spendable = Msat(numbers.below(6) * UNIT);
            (channel.scid(), FirstHop { spendable, htlc_minimum: Msat(1) })
        });
        known.first_hops = Some(own.collect());
    }
    for directed in directions {
        match numbers.below(20) {
            0 => known.note_failure(directed, Msat(numbers.below(4) * UNIT + 1)),
            1 => drop(known.in_flight.insert(directed, Msat(numbers.below(3) * UNIT))),
            2 => drop(known.excluded_directions.insert(directed)),
            _ => {}
        }
    }
    known
}

pub(crate) fn query<'a>(numbers: &mut Numbers, known: &'a Knowledge, tight: bool) -> (Query<'a>, usize) {
    let limits = Limits {
        max_fee: Msat(if tight { numbers.below(60_000) } else { 5 * UNIT }),
        max_cltv_blocks: if tight { 30 + numbers.below(80) as u32 } else { 2016 },
        max_hops: if tight { 1 + numbers.below(4) as usize } else { 20 },
    };
    let weights = if numbers.one_in(4) { Weights::FEES } else { Weights::default() };
    let amount = Msat((1 + numbers.below(9)) * UNIT);
    (Query { limits, weights, ..Query::new(node(0), node(1), amount, known) }, 1 + numbers.below(4) as usize)
}

/// From 0 to 3 over 1 for 10 msat, and over 2 for 20 msat; each path carries at most a million satoshi.
pub(crate) fn square() -> ChannelGraph {
    let mut graph = ChannelGraph::new();
    for (scid, from, to, fee) in [(1, 0, 1, 0), (2, 1, 3, 10), (3, 0, 2, 0), (4, 2, 3, 20)] {
        graph.add_channel(Scid(scid), [node(from), node(to)], Sat(1_000_000)).unwrap();
        let policy = Policy {
            fee_base: Msat(fee),
            fee_proportional_millionths: 0,
            cltv_expiry_delta: CltvDelta(40),
            htlc_minimum: Msat(1),
            htlc_maximum: Msat(1_000_000_000),
            disabled: false,
        };
        graph.set_policy(Scid(scid), node(from), Some(policy)).unwrap();
    }
    graph
}

#[test]
fn what_is_too_much_for_each_way_goes_over_both() {
    let graph = square();
    let known = Knowledge::default();
    let query =
        Query { weights: Weights::default(), ..Query::new(node(0), node(3), Msat(1_500_000_000), &known) };
    let snapshot = Snapshot::new(&graph);
    assert!(matches!(PartFinder::new().find(&snapshot, &query, 1), Err(NoRoute::Unreachable { .. })));
    let parts = PartFinder::new().find(&snapshot, &query, 2).unwrap();
    assert_eq!((parts.routes.len(), parts.fee), (2, Msat(30)));
    assert_eq!(check_parts(&graph, &parts, &query, 2), Ok(()));
}

#[test]
fn every_answer_keeps_every_limit() {
    let mut numbers = Numbers(1);
    let mut finder = PartFinder::new();
    let (mut found, mut split) = (0, 0);
    for _ in 0..6000 {
        let graph = small(&mut numbers, true);
        let known = knowledge(&mut numbers, &graph);
        let tight = numbers.one_in(2);
        let (query, parts_max) = query(&mut numbers, &known, tight);
        if let Ok(parts) = finder.find(&Snapshot::new(&graph), &query, parts_max) {
            found += 1;
            split += usize::from(parts.routes.len() > 1);
            let judged = check_parts(&graph, &parts, &query, parts_max);
            assert_eq!(judged, Ok(()), "{query:?}\n{parts:?}");
        }
    }
    assert!(found > 1000 && split > 150, "{found} found, {split} of them split");
}

/// The limits of a direction in whole units: for one part, and for all together.
#[derive(Clone, Copy)]
struct StepLimits {
    directed: DirectedChannel,
    least: u64,
    most: u64,
    together: u64,
}

/// Whether some multiset of at most `parts_max` simple paths carries the amount in whole units.
struct BruteForce<'a> {
    graph: &'a ChannelGraph,
    query: &'a Query<'a>,
    paths: Vec<Vec<StepLimits>>,
}

impl<'a> BruteForce<'a> {
    fn new(graph: &'a ChannelGraph, query: &'a Query<'a>) -> BruteForce<'a> {
        let mut brute = BruteForce { graph, query, paths: Vec::new() };
        brute.walk(&mut vec![query.from], &mut Vec::new(), 18);
        brute
    }

    /// Collects the simple paths to the payee.
    fn walk(&mut self, nodes: &mut Vec<NodeId>, path: &mut Vec<StepLimits>, blocks: u32) {
        let at = nodes[nodes.len() - 1];
        if at == self.query.to {
            self.paths.push(path.clone());
            return;
        }
        if path.len() == self.query.limits.max_hops {
            return;
        }
        for channel in self.graph.channels_of(at) {
            let direction = channel.direction_from(at).unwrap();
            let next = channel.origin(direction.reversed());
            let directed = DirectedChannel { scid: channel.scid(), direction };
            let known = self.query.knowledge;
            if nodes.contains(&next) || known.excluded_directions.contains(&directed) {
                continue;
            }
            let capacity = channel.capacity().to_msat().0;
            let failed = known.failed_amounts.get(&directed).map_or(u64::MAX, |failed| failed.0 - 1);
            let first_hops = known.first_hops.as_ref().filter(|_| path.is_empty());
            let (least, most, together, delta) = if let Some(first_hops) = first_hops {
                let Some(first) = first_hops.get(&channel.scid()) else { continue };
                let together = failed.min(capacity).min(first.spendable.0);
                (first.htlc_minimum.0, together, together, 0)
            } else {
                let policy = channel.policy(direction).filter(|policy| !policy.disabled);
                let Some(policy) = policy else { continue };
                let held = known.in_flight.get(&directed).map_or(0, |held| held.0);
                let together = failed.min(capacity.saturating_sub(held));
                let delta = if path.is_empty() { 0 } else { policy.cltv_expiry_delta.0 };
                (policy.htlc_minimum.0, policy.htlc_maximum.0.min(together), together, delta)
            };
            let blocks = blocks + u32::from(delta);
            if blocks > self.query.limits.max_cltv_blocks {
                continue;
            }
            nodes.push(next);
            path.push(StepLimits {
                directed,
                least: least.div_ceil(UNIT),
                most: most / UNIT,
                together: together / UNIT,
            });
            self.walk(nodes, path, blocks);
            path.pop();
            nodes.pop();
        }
    }

    fn feasible(
        &self,
        first: usize,
        left: u64,
        slots: usize,
        loads: &mut Vec<(DirectedChannel, u64)>,
    ) -> bool {
        if left == 0 || slots == 0 {
            return left == 0;
        }
        for at in first..self.paths.len() {
            for units in 1..=left {
                let path = &self.paths[at];
                let fits = path.iter().all(|view| {
                    let on_it = loads.iter().filter(|(directed, _)| *directed == view.directed);
                    let load: u64 = on_it.map(|(_, load)| load).sum();
                    units >= view.least && units <= view.most && load + units <= view.together
                });
                if !fits {
                    continue;
                }
                let before = loads.len();
                loads.extend(path.iter().map(|view| (view.directed, units)));
                if self.feasible(at, left - units, slots - 1, loads) {
                    return true;
                }
                loads.truncate(before);
            }
        }
        false
    }
}

/// Measures how often a split exists and none is found. An answer where no split exists fails the test.
fn misses(cases: usize, tight: bool) -> (usize, usize) {
    let mut numbers = Numbers(7);
    let mut finder = PartFinder::new();
    let (mut feasible, mut missed) = (0, 0);
    for _ in 0..cases {
        let graph = small(&mut numbers, false);
        let known = knowledge(&mut numbers, &graph);
        let (query, parts_max) = query(&mut numbers, &known, tight);
        let query = Query { limits: Limits { max_fee: Msat(0), ..query.limits }, ..query };
        let answer = finder.find(&Snapshot::new(&graph), &query, parts_max);
        let exists =
            BruteForce::new(&graph, &query).feasible(0, query.amount.0 / UNIT, parts_max, &mut Vec::new());
        match answer {
            Ok(parts) => {
                assert_eq!(check_parts(&graph, &parts, &query, parts_max), Ok(()));
                assert!(exists, "brute force overlooked {parts:?}");
                feasible += 1;
            }
            Err(_) if exists => (feasible, missed) = (feasible + 1, missed + 1),
            Err(_) => {}
        }
    }
    (feasible, missed)
}

#[test]
fn splits_that_exist_are_found() {
    let (feasible, missed) = misses(3000, false);
    println!("{missed} of {feasible} feasible payments were not found");
    assert!(missed * 20 <= feasible, "{missed} of {feasible}");
    let (feasible, missed) = misses(3000, true);
    println!("{missed} of {feasible} feasible payments under tight limits were not found");
    assert!(missed * 10 <= feasible, "{missed} of {feasible}");
}

/// A graph of directions, each on a channel alone: from, to, capacity, base fee, millionths, `cltv_expiry_delta`.
fn directions(all: &[(u64, u64, u64, u64, u32, u16)]) -> ChannelGraph {
    let mut graph = ChannelGraph::new();
    for (at, (from, to, maximum, base, millionths, delta)) in all.iter().enumerate() {
        let scid = Scid(at as u64 + 1);
        graph.add_channel(scid, [node(*from), node(*to)], Sat(maximum / 1000)).unwrap();
        let policy = Policy {
            fee_base: Msat(*base),
            fee_proportional_millionths: *millionths,
            cltv_expiry_delta: CltvDelta(*delta),
            htlc_minimum: Msat(1000),
            htlc_maximum: Msat(*maximum),
            disabled: false,
        };
        graph.set_policy(scid, node(*from), Some(policy)).unwrap();
    }
    graph
}

/// The least fee for 100,000 sat from 0 to 9.
fn least_fee(graph: &ChannelGraph) -> (usize, Msat) {
    let known = Knowledge::default();
    let query = Query { risk_billionths: 0, ..Query::new(node(0), node(9), Msat(100_000_000), &known) };
    let parts = PartFinder::new().find(&Snapshot::new(graph), &query, 10).unwrap();
    assert_eq!(check_parts(graph, &parts, &query, 10), Ok(()));
    (parts.routes.len(), parts.fee)
}

/// Whether `amount` sat are found from 0 to 9 in at most `parts_max` parts, and in how many.
fn found_in(graph: &ChannelGraph, amount: u64, parts_max: usize) -> Option<usize> {
    let known = Knowledge::default();
    let query = Query::new(node(0), node(9), Msat(amount * 1000), &known);
    let parts = PartFinder::new().find(&Snapshot::new(graph), &query, parts_max).ok()?;
    assert_eq!(check_parts(graph, &parts, &query, parts_max), Ok(()));
    Some(parts.routes.len())
}

#[test]
fn a_larger_limit_on_parts_finds_all_that_a_smaller_one_does() {
    // Over 1 at most 170,000 sat, over 2 at most 250,000, and a part has at least 150,000.
    let mut graph = directions(&[
        (0, 1, 170_000_000, 0, 0, 40),
        (0, 2, 270_000_000, 0, 0, 40),
        (1, 9, 980_000_000, 1000, 100, 40),
        (2, 9, 250_000_000, 1000, 100, 40),
    ]);
    for (scid, from, maximum) in [(3, 1, 980_000_000), (4, 2, 250_000_000)] {
        let policy =
            graph.channel(Scid(scid)).unwrap().policy(Direction::between(node(from), node(9))).copied();
        let policy =
            Policy { htlc_minimum: Msat(150_000_000), htlc_maximum: Msat(maximum), ..policy.unwrap() };
        graph.set_policy(Scid(scid), node(from), Some(policy)).unwrap();
    }
    for parts_max in [2, 3, 4, 6, 8] {
        for amount in [300_000, 310_000, 350_000, 399_000, 410_000, 419_000, 419_982] {
            assert_eq!(found_in(&graph, amount, parts_max), Some(2), "{amount} in {parts_max}");
        }
        for amount in [260_000, 299_999, 419_983] {
            assert_eq!(found_in(&graph, amount, parts_max), None, "{amount} in {parts_max}");
        }
    }
}

#[test]
fn parts_that_fill_their_channels_are_found_with_no_slot_to_spare() {
    let graph = directions(&[
        (0, 1, 120_000_000, 500, 250, 40),
        (0, 1, 250_000_000, 500, 250, 40),
        (0, 1, 410_000_000, 500, 250, 40),
        (1, 9, 900_000_000, 500, 250, 40),
    ]);
    for parts_max in [3, 4, 8] {
        assert_eq!(found_in(&graph, 779_803, parts_max), Some(3), "in {parts_max}");
        assert_eq!(found_in(&graph, 763_036, parts_max), Some(3), "in {parts_max}");
        assert_eq!(found_in(&graph, 779_804, parts_max), None, "in {parts_max}");
    }
    assert_eq!(found_in(&graph, 763_036, 2), None);
}

#[test]
fn little_goes_where_no_base_fee_is_asked() {
    let wide = 99_000_000;
    let graph = directions(&[
        (0, 1, wide, 0, 0, 40),
        (1, 9, 2 * wide, 1000, 1, 40),
        (0, 2, wide, 0, 0, 40),
        (2, 9, 2 * wide, 1000, 1, 40),
        (0, 3, wide, 0, 0, 40),
        (3, 9, 2 * wide, 5, 15, 40),
    ]);
    // As much over 1 as fits with its fee, and the rest over 3.
    assert_eq!(least_fee(&graph), (2, Msat(1000 + 98 + 5 + 15)));
}

#[test]
fn parts_are_as_large_as_fits() {
    let half = 50_000_000;
    let graph = directions(&[
        (0, 1, 8 * half, 0, 0, 40),
        (1, 9, half, 1000, 1, 40),
        (1, 9, half, 1000, 1, 40),
        (0, 2, 8 * half, 0, 0, 40),
        (2, 9, half / 4, 500, 3, 40),
    ]);
    assert_eq!(least_fee(&graph), (2, Msat(2 * (1000 + 50))));
}

#[test]
fn a_way_that_is_too_slow_is_replaced() {
    let half = 50_000_000;
    let graph = directions(&[
        (0, 1, 8 * half, 0, 0, 40),
        (1, 9, half, 0, 1, 40),
        (1, 2, 8 * half, 0, 0, 2000),
        (1, 2, 8 * half, 10, 1, 40),
        (2, 9, half + 1_000_000, 0, 100, 40),
        (1, 9, 8 * half, 0, 2500, 40),
    ]);
    assert_eq!(least_fee(&graph), (2, Msat(50 + 10 + 50 + 5000)));
}

#[test]
fn a_narrow_way_takes_its_share() {
    let all = 100_000_000;
    let graph = directions(&[
        (0, 1, 4 * all, 0, 0, 40),
        (1, 9, 2 * all, 0, 4000, 40),
        (0, 2, 4 * all, 0, 0, 40),
        (2, 9, all / 10, 0, 1000, 40),
    ]);
    assert_eq!(least_fee(&graph), (2, Msat(360_000 + 10_000)));
}

#[test]
fn what_does_not_fit_goes_over_one_way() {
    let all = 100_000_000;
    let graph = directions(&[
        (0, 1, 4 * all, 0, 0, 40),
        (1, 9, all * 72 / 100, 1000, 1, 40),
        (0, 2, 4 * all, 0, 0, 40),
        (2, 9, all * 20 / 100, 1000, 1, 40),
        (0, 3, 4 * all, 0, 0, 40),
        (3, 9, all * 60 / 100, 1000, 3, 40),
    ]);
    // Not over 2 for a part of the rest, which would take a third base fee.
    assert_eq!(least_fee(&graph), (2, Msat(1000 + 72 + 1000 + 84)));
}

#[test]
fn fees_are_rounded_down_for_each_part() {
    let all = 100_000_000;
    let graph =
        directions(&[(0, 1, 4 * all, 0, 0, 40), (1, 2, 4 * all, 0, 500, 40), (2, 9, 4 * all, 0, 700, 40)]);
    // In one part 70,000 and 50,035.
    assert_eq!(least_fee(&graph), (2, Msat(70_000 + 50_035 - 2)));
    // A base fee is more than rounding saves.
    let graph = directions(&[(0, 1, 4 * all, 0, 0, 40), (1, 9, 4 * all, 1, 500, 40)]);
    assert_eq!(least_fee(&graph), (1, Msat(50_001)));
}
