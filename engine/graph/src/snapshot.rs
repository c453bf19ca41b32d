//! The channel graph laid out for searching: nodes, channels and directions as dense numbers, and what a search reads of
//! a direction packed into 32 bytes (BOLT 7 `channel_update`).
//!
//! Owns: [`Snapshot`], which never changes. Whoever holds one sees the whole graph as it was at one moment, however long
//! the search takes. A policy update makes a new snapshot that shares all but a few kilobytes with the old one; a change
//! of channels lays the graph out anew. Does not know how the current snapshot is handed around ([`crate::live`]), nor
//! what is thought of channels beyond their policies ([`crate::scoring`]).
//!
//! Layout: nodes are numbered in ascending order of their ids, channels in that of their scids. An *edge* is one direction
//! of a channel. Edges are numbered by the node they lead into, then by scid, so that what a backward search looks at is
//! contiguous. They lie in chunks, all of one size, which snapshots share until one of them is written to.
//!
//! Invariant: numbers follow from the graph's content alone. Every channel has both its edges; one without a usable policy
//! takes no amount (`Edge::minimum`). Budget: 32 bytes an edge, about 120 bytes a channel in all.

use std::ops::Range;
use std::sync::Arc;

use fulmen_wire::units::{CltvDelta, Msat, NodeId, Sat, Scid};

use crate::graph::{ChannelGraph, DirectedChannel, Direction, GraphError, Policy};

/// Set in [`Edge::minimum`] while the direction is disabled: no amount is as large.
const DISABLED: u64 = 1 << 63;

/// [`Edge::minimum`] where no policy is known.
const UNKNOWN: u64 = u64::MAX;

/// The fewest edges of a chunk: 4 kB.
const CHUNK_EDGES_MIN: usize = 128;

/// The most chunks, as far as [`CHUNK_EDGES_MIN`] allows: each is counted when a snapshot follows another.
const CHUNKS_MAX: usize = 1024;

/// The whole public graph at one moment, laid out for searching.
#[derive(Clone, Debug)]
pub struct Snapshot {
    shape: Arc<Shape>,
    chunks: Box<[Arc<[Edge]>]>,
}

/// What policy updates do not change.
#[derive(Debug)]
pub(crate) struct Shape {
    /// In ascending order.
    node_ids: Vec<NodeId>,
    /// Where each node's incoming edges start; one more than there are nodes.
    incoming: Vec<u32>,
    /// For each edge, the other direction of its channel.
    reverse: Vec<u32>,
    /// For each edge, its channel.
    channel_of: Vec<u32>,
    /// In ascending order.
    scids: Vec<Scid>,
    capacities: Vec<Sat>,
    /// For each channel, its two edges in the order of [`Direction::BOTH`].
    edges_of: Vec<[u32; 2]>,
    /// An edge's chunk is its number shifted by this.
    chunk_shift: u32,
}

/// What a search reads of one direction of a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Edge {
    /// The least amount the direction takes in millisatoshi. Above any amount there can be when the direction is
    /// disabled or its policy is not known.
    pub(crate) minimum: u64,
    /// The most it takes: the lesser of `htlc_maximum` and the capacity.
    pub(crate) maximum: u64,
    /// The node it leaves.
    pub(crate) source: u32,
    /// `fee_base_msat`.
    pub(crate) fee_base: u32,
    /// `fee_proportional_millionths`.
    pub(crate) fee_millionths: u32,
    /// `cltv_expiry_delta`.
    pub(crate) cltv_expiry_delta: u16,
    /// The channel's capacity, rounded up.
    pub(crate) capacity: RoughCapacity,
}

impl Edge {
    /// An edge of a channel whose policy is not known.
    fn unknown(source: u32, capacity: Sat) -> Edge {
        Edge {
            minimum: UNKNOWN,
            maximum: 0,
            source,
            fee_base: 0,
            fee_millionths: 0,
            cltv_expiry_delta: 0,
            capacity: RoughCapacity::above(capacity),
        }
    }

    /// The same edge under another policy. A base fee that BOLT 7 has no room for counts as no policy.
    fn under(self, policy: Option<&Policy>, capacity: Sat) -> Edge {
        let unknown = Edge::unknown(self.source, capacity);
        let Some(policy) = policy else { return unknown };
        let Ok(fee_base) = u32::try_from(policy.fee_base.0) else { return unknown };
        let minimum = policy.htlc_minimum.0.min(DISABLED - 1) | if policy.disabled { DISABLED } else { 0 };
        let maximum = policy.htlc_maximum.min(capacity.to_msat()).min(Msat::MAX_MONEY);
        Edge {
            minimum,
            maximum: maximum.0,
            fee_base,
            fee_millionths: policy.fee_proportional_millionths,
            cltv_expiry_delta: policy.cltv_expiry_delta.0,
            ..unknown
        }
    }

    /// The policy as far as it matters to searches: its maximum is bounded by the capacity. `None` when unknown.
    pub(crate) fn policy(&self) -> Option<Policy> {
        (self.minimum != UNKNOWN).then_some(Policy {
            fee_base: Msat(u64::from(self.fee_base)),
            fee_proportional_millionths: self.fee_millionths,
            cltv_expiry_delta: CltvDelta(self.cltv_expiry_delta),
            htlc_minimum: Msat(self.minimum & !DISABLED),
            htlc_maximum: Msat(self.maximum),
            disabled: self.minimum & DISABLED != 0,
        })
    }

    /// Whether the direction can be used at all.
    #[inline]
    pub(crate) const fn enabled(&self) -> bool {
        self.minimum & DISABLED == 0
    }

    /// The fee in millisatoshi for forwarding `amount` over this edge (BOLT 7, "HTLC Fees"), held at `u64::MAX`.
    #[inline]
    pub(crate) fn fee(&self, amount: u64) -> u64 {
        let proportional = match amount.checked_mul(u64::from(self.fee_millionths)) {
            Some(product) => product / 1_000_000,
            None => {
                let wide = u128::from(amount) * u128::from(self.fee_millionths) / 1_000_000;
                u64::try_from(wide).unwrap_or(u64::MAX)
            }
        };
        proportional.saturating_add(u64::from(self.fee_base))
    }
}

/// A capacity in satoshi, rounded up to eleven significant bits: enough to guess by, in two bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RoughCapacity(u16);

impl RoughCapacity {
    /// The least such value that is no less than `capacity`, which is held at all money there is.
    pub(crate) fn above(capacity: Sat) -> RoughCapacity {
        let sat = capacity.0.min(Msat::MAX_MONEY.0 / 1000);
        if sat < 1024 {
            return RoughCapacity(sat as u16);
        }
        let exponent = sat.ilog2() - 10;
        let mantissa = sat.div_ceil(1 << exponent);
        let (exponent, mantissa) = if mantissa == 2048 { (exponent + 1, 1024) } else { (exponent, mantissa) };
        RoughCapacity(((exponent as u16 + 1) << 10) + (mantissa as u16 - 1024))
    }

    /// The capacity in millisatoshi.
    #[inline]
    pub(crate) fn msat(self) -> u64 {
        let (exponent, mantissa) = (self.0 >> 10, u64::from(self.0 & 1023));
        let sat = if exponent == 0 { mantissa } else { (1024 + mantissa) << (exponent - 1) };
        sat * 1000
    }
}

impl Snapshot {
    /// Lays a graph out.
    #[must_use]
    pub fn new(graph: &ChannelGraph) -> Snapshot {
        let (shape, edges) = Shape::new(graph);
        let size = 1_usize << shape.chunk_shift;
        let chunks = edges.chunks(size).map(Arc::from).collect();
        Snapshot { shape: Arc::new(shape), chunks }
    }

    /// This graph with other policies: `None` makes one unknown. Of several for one direction the last counts. Costs a few
    /// microseconds and some kilobytes for each part of the graph that is written to, so that many at once are cheaper
    /// than each for itself.
    ///
    /// # Errors
    /// When a channel is not in the graph.
    pub fn with_policies(
        &self,
        policies: impl IntoIterator<Item = (DirectedChannel, Option<Policy>)>,
    ) -> Result<Snapshot, GraphError> {
        let mut next = self.clone();
        for (directed, policy) in policies {
            let scid = directed.scid;
            let channel = self.channel_index(scid).ok_or(GraphError::UnknownChannel { scid })?;
            let edge = self.edge_of(channel, directed.direction);
            let capacity = self.shape.capacities[channel as usize];
            let chunk = &mut next.chunks[(edge >> self.shape.chunk_shift) as usize];
            let at = edge as usize & ((1 << self.shape.chunk_shift) - 1);
            Arc::make_mut(chunk)[at] = chunk[at].under(policy.as_ref(), capacity);
        }
        Ok(next)
    }

    /// The number of nodes.
    #[must_use]
    pub fn node_count(&self) -> usize {
        self.shape.node_ids.len()
    }

    /// The number of channels.
    #[must_use]
    pub fn channel_count(&self) -> usize {
        self.shape.scids.len()
    }

    /// The nodes in ascending order of their ids.
    #[must_use]
    pub fn nodes(&self) -> &[NodeId] {
        &self.shape.node_ids
    }

    /// The policy of one direction; its maximum is bounded by the capacity. `None` when there is none.
    #[must_use]
    pub fn policy(&self, directed: DirectedChannel) -> Option<Policy> {
        self.edge(self.edge_index(directed)?).policy()
    }

    /// The value of a channel's funding output.
    #[must_use]
    pub fn capacity(&self, scid: Scid) -> Option<Sat> {
        Some(self.shape.capacities[self.channel_index(scid)? as usize])
    }

    /// The bytes it takes, shared ones included.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let shape = &*self.shape;
        size_of_val(&*shape.node_ids)
            + size_of_val(&*shape.incoming)
            + size_of_val(&*shape.reverse)
            + size_of_val(&*shape.channel_of)
            + size_of_val(&*shape.scids)
            + size_of_val(&*shape.capacities)
            + size_of_val(&*shape.edges_of)
            + size_of_val(&*self.chunks)
            + self.chunks.iter().map(|chunk| 2 * size_of::<usize>() + size_of_val(&**chunk)).sum::<usize>()
    }

    /// The number of a node.
    pub(crate) fn node_index(&self, node: NodeId) -> Option<u32> {
        self.shape.node_ids.binary_search(&node).ok().map(|at| at as u32)
    }

    /// The id of a node.
    pub(crate) fn node_id(&self, node: u32) -> NodeId {
        self.shape.node_ids[node as usize]
    }

    /// The number of edges: numbers of edges are below it.
    pub(crate) fn edge_count(&self) -> usize {
        self.shape.reverse.len()
    }

    /// The numbers of the edges that lead into a node.
    #[inline]
    pub(crate) fn incoming(&self, node: u32) -> Range<u32> {
        self.shape.incoming[node as usize]..self.shape.incoming[node as usize + 1]
    }

    /// The edges of consecutive numbers, in runs: the number of a run's first edge, and the run.
    #[inline]
    pub(crate) fn runs(&self, edges: Range<u32>) -> impl Iterator<Item = (u32, &[Edge])> {
        let shift = self.shape.chunk_shift;
        let mask = (1_u32 << shift) - 1;
        let mut start = edges.start;
        std::iter::from_fn(move || {
            if start >= edges.end {
                return None;
            }
            let first = start;
            let chunk = &self.chunks[(first >> shift) as usize];
            let length = (edges.end - first).min(mask + 1 - (first & mask));
            start += length;
            Some((first, &chunk[(first & mask) as usize..][..length as usize]))
        })
    }

    /// The edge of a number.
    #[inline]
    pub(crate) fn edge(&self, edge: u32) -> &Edge {
        let shift = self.shape.chunk_shift;
        &self.chunks[(edge >> shift) as usize][edge as usize & ((1 << shift) - 1)]
    }

    /// The other direction of an edge's channel: it leads into the edge's source.
    #[inline]
    pub(crate) fn reverse(&self, edge: u32) -> u32 {
        self.shape.reverse[edge as usize]
    }

    /// The node an edge leads into.
    #[inline]
    pub(crate) fn target(&self, edge: u32) -> u32 {
        self.edge(self.reverse(edge)).source
    }

    /// The channel and direction of an edge.
    pub(crate) fn directed(&self, edge: u32) -> DirectedChannel {
        let channel = self.shape.channel_of[edge as usize] as usize;
        let [one_to_two, _] = self.shape.edges_of[channel];
        let direction = if one_to_two == edge { Direction::OneToTwo } else { Direction::TwoToOne };
        DirectedChannel { scid: self.shape.scids[channel], direction }
    }

    /// The value of the funding output of an edge's channel.
    pub(crate) fn capacity_of(&self, edge: u32) -> Sat {
        self.shape.capacities[self.shape.channel_of[edge as usize] as usize]
    }

    /// The number of a channel's edge.
    pub(crate) fn edge_index(&self, directed: DirectedChannel) -> Option<u32> {
        Some(self.edge_of(self.channel_index(directed.scid)?, directed.direction))
    }

    /// Both edges of a channel, in the order of [`Direction::BOTH`].
    pub(crate) fn edges_of(&self, scid: Scid) -> Option<[u32; 2]> {
        Some(self.shape.edges_of[self.channel_index(scid)? as usize])
    }

    /// Whether edges have the same numbers in both: only policies lie between them.
    pub(crate) fn same_shape(&self, other: &Snapshot) -> bool {
        Arc::ptr_eq(&self.shape, &other.shape)
    }

    fn channel_index(&self, scid: Scid) -> Option<u32> {
        self.shape.scids.binary_search(&scid).ok().map(|at| at as u32)
    }

    fn edge_of(&self, channel: u32, direction: Direction) -> u32 {
        self.shape.edges_of[channel as usize][direction.origin()]
    }
}

impl Shape {
    /// Numbers everything, and gives the edges in the order of their numbers.
    fn new(graph: &ChannelGraph) -> (Shape, Vec<Edge>) {
        let node_ids: Vec<NodeId> = graph.nodes().collect();
        let mut rank = vec![0_u32; node_ids.len()];
        for (at, node) in node_ids.iter().enumerate() {
            let index = graph.index_of(*node).expect("the graph lists its own nodes");
            rank[index as usize] = at as u32;
        }
        let edge_count = 2 * graph.channel_count();
        let mut incoming = vec![0_u32; node_ids.len() + 1];
        for channel in graph.channels() {
            for direction in Direction::BOTH {
                incoming[rank[channel.origin_index(direction) as usize] as usize + 1] += 1;
            }
        }
        for at in 1..incoming.len() {
            incoming[at] += incoming[at - 1];
        }
        let mut next = incoming.clone();
        let unknown = Edge::unknown(0, Sat::ZERO);
        let mut edges = vec![unknown; edge_count];
        let (mut reverse, mut channel_of) = (vec![0; edge_count], vec![0; edge_count]);
        let (mut scids, mut capacities, mut edges_of) = (Vec::new(), Vec::new(), Vec::new());
        for (number, channel) in graph.channels().enumerate() {
            let ends = Direction::BOTH.map(|direction| rank[channel.origin_index(direction) as usize]);
            let pair = Direction::BOTH.map(|direction| {
                let target = ends[1 - direction.origin()] as usize;
                next[target] += 1;
                next[target] - 1
            });
            for direction in Direction::BOTH {
                let [own, other] = [direction, direction.reversed()].map(|way| pair[way.origin()] as usize);
                let edge = Edge { source: ends[direction.origin()], ..unknown };
                edges[own] = edge.under(channel.policy(direction), channel.capacity());
                reverse[own] = other as u32;
                channel_of[own] = number as u32;
            }
            scids.push(channel.scid());
            capacities.push(channel.capacity());
            edges_of.push(pair);
        }
        let chunk = (edge_count / CHUNKS_MAX).max(CHUNK_EDGES_MIN).next_power_of_two();
        let chunk_shift = chunk.trailing_zeros();
        let shape =
            Shape { node_ids, incoming, reverse, channel_of, scids, capacities, edges_of, chunk_shift };
        (shape, edges)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(tag: u8) -> NodeId {
        NodeId([tag; 33])
    }

    fn policy(base: u64, disabled: bool) -> Policy {
        Policy {
            fee_base: Msat(base),
            fee_proportional_millionths: 7,
            cltv_expiry_delta: CltvDelta(20),
            htlc_minimum: Msat(3),
            htlc_maximum: Msat(9_000),
            disabled,
        }
    }

    /// A ring of enough nodes to fill several chunks, added in an order of its own.
    fn ring() -> ChannelGraph {
        let mut graph = ChannelGraph::new();
        for step in 0..250_u64 {
            let at = step * 7 % 250;
            let [one, two] = [at as u8, ((at + 1) % 250) as u8].map(node);
            graph.add_channel(Scid(1000 - at), [one, two], Sat(at)).unwrap();
            graph.set_policy(Scid(1000 - at), one, Some(policy(at, at % 3 == 0))).unwrap();
        }
        graph
    }

    #[test]
    fn says_what_the_graph_says() {
        let graph = ring();
        let snapshot = Snapshot::new(&graph);
        assert_eq!(snapshot.nodes(), graph.nodes().collect::<Vec<_>>());
        assert!(snapshot.chunks.len() > 2);
        for channel in graph.channels() {
            for direction in Direction::BOTH {
                let directed = DirectedChannel { scid: channel.scid(), direction };
                let edge = snapshot.edge_index(directed).unwrap();
                let target = snapshot.target(edge);
                assert_eq!(snapshot.node_id(snapshot.edge(edge).source), channel.origin(direction));
                assert_eq!(snapshot.node_id(target), channel.origin(direction.reversed()));
                assert!(snapshot.incoming(target).contains(&edge));
                assert_eq!(snapshot.directed(edge), directed);
                assert_eq!(snapshot.directed(snapshot.reverse(edge)).direction, direction.reversed());
                let policy = channel.policy(direction).map(|policy| Policy {
                    htlc_maximum: policy.htlc_maximum.min(channel.capacity().to_msat()),
                    ..*policy
                });
                assert_eq!(snapshot.policy(directed), policy);
                assert_eq!(snapshot.edge(edge).enabled(), policy.is_some_and(|policy| !policy.disabled));
            }
        }
        for at in 0..250 {
            let edges = snapshot.incoming(at);
            let runs = snapshot.runs(edges.clone()).flat_map(|(first, run)| (first..).zip(run));
            let single = edges.map(|edge| (edge, snapshot.edge(edge)));
            assert_eq!(runs.collect::<Vec<_>>(), single.collect::<Vec<_>>());
        }
    }

    #[test]
    fn an_update_is_seen_by_those_who_come_after() {
        let graph = ring();
        let before = Snapshot::new(&graph);
        let directed = DirectedChannel { scid: Scid(900), direction: Direction::OneToTwo };
        let after = before.with_policies([(directed, Some(policy(555, false)))]).unwrap();
        assert_eq!(before.policy(directed).unwrap().fee_base, Msat(100));
        assert_eq!(after.policy(directed).unwrap().fee_base, Msat(555));
        assert!(after.same_shape(&before));
        let shared = |(one, other): &(&Arc<[Edge]>, &Arc<[Edge]>)| Arc::ptr_eq(one, other);
        assert_eq!(before.chunks.iter().zip(&after.chunks).filter(shared).count() + 1, before.chunks.len());
        let unknown = after.with_policies([(directed, None)]).unwrap();
        assert_eq!(unknown.policy(directed), None);
        let missing = DirectedChannel { scid: Scid(1), ..directed };
        assert_eq!(
            after.with_policies([(missing, None)]).err(),
            Some(GraphError::UnknownChannel { scid: Scid(1) })
        );
    }

    #[test]
    fn a_fee_without_room_counts_as_no_policy() {
        let mut graph = ChannelGraph::new();
        graph.add_channel(Scid(1), [node(1), node(2)], Sat(10)).unwrap();
        graph.set_policy(Scid(1), node(1), Some(policy(1 << 32, false))).unwrap();
        let directed = DirectedChannel { scid: Scid(1), direction: Direction::OneToTwo };
        assert_eq!(Snapshot::new(&graph).policy(directed), None);
    }

    #[test]
    fn rough_capacities_are_close_and_never_below() {
        for sat in (0..3000).chain((11..51).flat_map(|bits| [(1 << bits) - 1, 1 << bits, (1 << bits) + 1])) {
            let rough = RoughCapacity::above(Sat(sat)).msat() / 1000;
            assert!(rough >= sat && rough <= sat + sat / 1024, "{sat} became {rough}");
        }
        let all_money = Sat(Msat::MAX_MONEY.0 / 1000);
        assert_eq!(RoughCapacity::above(Sat(u64::MAX)), RoughCapacity::above(all_money));
    }

    #[test]
    fn an_edge_takes_half_a_cache_line() {
        assert_eq!(size_of::<Edge>(), 32);
        let snapshot = Snapshot::new(&ring());
        assert!(snapshot.bytes() / snapshot.channel_count() < 200);
    }
}
