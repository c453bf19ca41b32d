//! Why a query has no route, and a remedy that works.
//!
//! Owns the diagnosis: it searches again with one thing changed at a time, and offers only a change with which it found
//! a route. Does not say why the limits of fee, blocks and hops exclude a route: the search reports those itself.
//!
//! Invariant: the command with the offered flag succeeds, and with the next smaller limit or larger amount it does not.

use std::collections::{BTreeMap, VecDeque};

use fulmen_graph::path::{HOPS_MAX, Knowledge, NoRoute};
use fulmen_graph::snapshot::Snapshot;
use fulmen_topology::{Channel, PartialPolicy, Topology};
use fulmen_wire::units::{CltvDelta, Msat, NodeId, Sat};

use super::{RouteArgs, find, lay_out, query};

/// The most parts that are tried as a remedy.
const PARTS_TRIED: usize = 10;
/// All bitcoin there will ever be, in satoshi.
const AMOUNT_MAX_SAT: u64 = 2_100_000_000_000_000;

/// A query without a route.
pub(super) struct Asked<'a> {
    pub(super) topology: &'a Topology,
    pub(super) keys: &'a [NodeId],
    pub(super) snapshot: &'a Snapshot,
    pub(super) args: &'a RouteArgs,
    /// Payer and payee.
    pub(super) ends: (NodeId, NodeId),
}

/// Why there is no route, and the remedy, in one line.
pub(super) fn explain(reason: &NoRoute, asked: &Asked<'_>) -> String {
    match reason {
        NoRoute::OverLimits { max_fee, max_cltv_blocks, max_hops, .. } => {
            let fee = max_fee.map(|fee| format!("--max-fee-sat {}", fee.0.div_ceil(1000)));
            let blocks = max_cltv_blocks.map(|blocks| format!("--max-blocks {blocks}"));
            let hops = max_hops.map(|hops| format!("--max-hops {hops}"));
            let enough: Vec<String> = [fee, blocks, hops].into_iter().flatten().collect();
            let remedy = if enough.is_empty() {
                "no one limit alone is to blame, loosen several".to_owned()
            } else {
                format!("{} would do", enough.join(" or "))
            };
            let (sat, limits) = (asked.args.amount_sat, asked.limits());
            format!("no route for {sat} sat within {limits}; {remedy}")
        }
        NoRoute::Unreachable { .. } => asked.unreachable(),
        NoRoute::SelfPayment { .. } => "--from and --to are one node; give two".to_owned(),
        NoRoute::ZeroAmount => "a payment of nothing has no route; give --amount-sat 1 or more".to_owned(),
        NoRoute::SearchLimitReached { .. } => format!("{reason}; loosen --max-blocks or --max-hops"),
        other => format!("{other}; check --from and --to"),
    }
}

impl Asked<'_> {
    fn limits(&self) -> String {
        let knowledge = Knowledge::default();
        let limits = query(self.args, self.ends, self.args.amount_sat, &knowledge).limits;
        format!(
            "a fee of {} sat, {} blocks and {} hops",
            limits.max_fee.0 / 1000,
            limits.max_cltv_blocks,
            limits.max_hops
        )
    }

    /// Whether the flags, with another amount and number of parts, find a route in `snapshot`.
    fn finds(&self, snapshot: &Snapshot, amount_sat: u64, max_parts: usize) -> bool {
        self.finds_to(snapshot, self.ends.1, amount_sat, max_parts)
    }

    fn finds_to(&self, snapshot: &Snapshot, to: NodeId, amount_sat: u64, max_parts: usize) -> bool {
        let knowledge = Knowledge::default();
        find(snapshot, &query(self.args, (self.ends.0, to), amount_sat, &knowledge), max_parts, 1).is_ok()
    }

    /// Why no channels carry the amount. Each cause is tried by itself, from the most to the least telling.
    fn unreachable(&self) -> String {
        let (sat, parts) = (self.args.amount_sat, self.args.max_parts);
        let found = if parts > 1 { format!("no split into {parts} parts") } else { "no route".to_owned() };
        let cause = self
            .more_parts()
            .or_else(|| self.smaller_amount())
            .or_else(|| self.larger_amount())
            .or_else(|| self.missing_terms())
            .or_else(|| self.too_long())
            .unwrap_or_else(|| "no enabled channels lead there; check --from and --to".to_owned());
        format!("{found} for {sat} sat: {cause}")
    }

    fn more_parts(&self) -> Option<String> {
        let mut allowed = self.args.max_parts + 1..=PARTS_TRIED;
        // One search tells most often that parts do not help.
        if !self.finds(self.snapshot, self.args.amount_sat, PARTS_TRIED) {
            return None;
        }
        let parts = allowed.find(|parts| self.finds(self.snapshot, self.args.amount_sat, *parts))?;
        Some(format!("no channels carry it in fewer parts; --max-parts {parts} would do"))
    }

    fn smaller_amount(&self) -> Option<String> {
        let fits = |sat: u64| self.finds(self.snapshot, sat, self.args.max_parts);
        let mut too_large = self.args.amount_sat;
        let mut enough = too_large / 2;
        while enough > 0 && !fits(enough) {
            (too_large, enough) = (enough, enough / 2);
        }
        if enough == 0 {
            return None;
        }
        let most = between(enough, too_large, fits);
        Some(format!("it is more than the channels there carry; --amount-sat {most} would do"))
    }

    fn larger_amount(&self) -> Option<String> {
        let without = self.with_policies(|policy| PartialPolicy { htlc_minimum: Some(Msat(0)), ..policy })?;
        if !self.finds(&without, self.args.amount_sat, self.args.max_parts) {
            return None;
        }
        let too_small = "it is less than a channel on the way takes (htlc_minimum)";
        let fits = |sat: u64| self.finds(self.snapshot, sat, self.args.max_parts);
        let mut too_low = self.args.amount_sat;
        let mut enough = too_low.saturating_mul(2);
        while enough < AMOUNT_MAX_SAT && !fits(enough) {
            (too_low, enough) = (enough, enough * 2);
        }
        if enough >= AMOUNT_MAX_SAT {
            return Some(too_small.to_owned());
        }
        let least = between(enough, too_low, fits);
        Some(format!("{too_small}; --amount-sat {least} would do"))
    }

    /// Directions without which there is no route and of which the file lacks a term, or which are disabled.
    fn missing_terms(&self) -> Option<String> {
        let unknown = |channel: &Channel, end: usize| {
            let maximum = channel.policies[end].and_then(|policy| policy.htlc_maximum);
            let (known, capacity) = (channel.policy(end), channel.capacity.to_msat());
            known.is_none().then(|| permissive(maximum.unwrap_or(capacity)))
        };
        if let Some(first) = self.first_needed(unknown) {
            return Some(format!(
                "the file lacks terms of channels on the way, the first is {first}; take a graph that has them"
            ));
        }
        let disabled = |channel: &Channel, end: usize| {
            channel.policy(end).filter(|policy| policy.disabled).map(|policy| permissive(policy.htlc_maximum))
        };
        let first = self.first_needed(disabled)?;
        Some(format!("channels on the way are disabled, the first is {first}; take a newer graph"))
    }

    /// Puts in the policies that `replace` gives; if there is a route then, the first channel on it that needed one.
    fn first_needed(&self, replace: impl Fn(&Channel, usize) -> Option<PartialPolicy>) -> Option<String> {
        let changed = self.with_channels(|channel| {
            for end in 0..2 {
                channel.policies[end] = replace(channel, end).or(channel.policies[end]);
            }
        })?;
        let knowledge = Knowledge::default();
        let query = query(self.args, self.ends, self.args.amount_sat, &knowledge);
        let answers = find(&changed, &query, self.args.max_parts, 1).ok()?;
        let hops = answers.iter().flat_map(|parts| &parts.routes).flat_map(|route| &route.hops);
        let index_of = |node: NodeId| self.keys.iter().position(|key| *key == node);
        let needed = hops.map(|hop| (hop.scid.0 as usize, index_of(hop.from))).find(|(index, from)| {
            let channel = &self.topology.channels()[*index];
            let end = channel.nodes.iter().position(|node| Some(*node) == *from);
            end.is_some_and(|end| replace(channel, end).is_some())
        });
        needed.map(|(index, _)| self.topology.channel_name(index))
    }

    fn with_policies(&self, change: impl Fn(PartialPolicy) -> PartialPolicy) -> Option<Snapshot> {
        self.with_channels(|channel| channel.policies = channel.policies.map(|policy| policy.map(&change)))
    }

    fn with_channels(&self, change: impl Fn(&mut Channel)) -> Option<Snapshot> {
        let mut channels = self.topology.channels().to_vec();
        channels.iter_mut().for_each(change);
        let changed = Topology::new(self.topology.nodes().to_vec(), channels).ok()?;
        lay_out(&changed, self.keys).ok()
    }

    /// Whether the shortest way has too many hops for an onion.
    fn too_long(&self) -> Option<String> {
        let way = self.shortest_way()?;
        let fitting = (1..way.len()).rev().find(|hops| {
            *hops <= HOPS_MAX && self.finds_to(self.snapshot, way[*hops], self.args.amount_sat, 1)
        });
        let hops = way.len() - 1;
        let room = fitting.filter(|fitting| *fitting < hops && hops > 20)?;
        Some(format!(
            "the shortest way has {hops} hops, and an onion (BOLT 4, 1,300 bytes of hop_payloads) has room for {room} \
             of these"
        ))
    }

    /// The nodes of a way of fewest hops over enabled channels, whatever these carry; payer and payee included.
    fn shortest_way(&self) -> Option<Vec<NodeId>> {
        let index_of = |node: NodeId| self.keys.iter().position(|key| *key == node);
        let (from, to) = (index_of(self.ends.0)?, index_of(self.ends.1)?);
        let mut next: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for channel in self.topology.channels() {
            for end in (0..2).filter(|end| channel.enabled(*end).is_some()) {
                next.entry(channel.nodes[end]).or_default().push(channel.nodes[1 - end]);
            }
        }
        let mut before = BTreeMap::from([(from, from)]);
        let mut queue = VecDeque::from([from]);
        while let Some(node) = queue.pop_front() {
            for neighbour in next.get(&node).into_iter().flatten() {
                before.entry(*neighbour).or_insert_with(|| {
                    queue.push_back(*neighbour);
                    node
                });
            }
        }
        let mut way = vec![to];
        while let Some(node) = way.last().filter(|node| **node != from) {
            way.push(*before.get(node)?);
        }
        Some(way.into_iter().rev().map(|node| self.keys[node]).collect())
    }
}

/// Terms that any HTLC up to `maximum` meets.
fn permissive(maximum: Msat) -> PartialPolicy {
    PartialPolicy {
        fee_base: Some(Msat(0)),
        fee_proportional_millionths: Some(0),
        cltv_expiry_delta: Some(CltvDelta(0)),
        htlc_minimum: Some(Msat(0)),
        htlc_maximum: Some(if maximum == Msat(0) { Sat(AMOUNT_MAX_SAT).to_msat() } else { maximum }),
        disabled: Some(false),
        inbound: None,
    }
}

/// The value nearest to `wrong` for which `holds`, which holds for `right`.
fn between(right: u64, wrong: u64, holds: impl Fn(u64) -> bool) -> u64 {
    let (mut right, mut wrong) = (right, wrong);
    while right.abs_diff(wrong) > 1 {
        let middle = right.min(wrong) + right.abs_diff(wrong) / 2;
        if holds(middle) {
            right = middle;
        } else {
            wrong = middle;
        }
    }
    right
}
