//! The channel graph laid out for searching: nodes, channels and directions as dense numbers, and the data of a
//! direction packed into 32 bytes (BOLT 7 `channel_update`).
//!
//! Owns [`Snapshot`], which never changes: it shows the whole graph as of one moment, however long a search takes. A
//! policy update makes a new snapshot that shares all but some kilobytes with the old one; a change of channels lays
//! the graph out anew. Does not know how the current snapshot is published ([`crate::live`]), nor scores of channels
//! ([`crate::scoring`]).
//!
//! Layout: nodes are numbered in ascending order of their ids, channels in that of their scids. An *edge* is one
//! direction of a channel. Edges are numbered by the node they lead into, then by their cost at the time of the
//! layout: the edges that a backward search reads are contiguous, and those that it can skip come last. They lie in
//! chunks of equal size (`chunks`), which snapshots share until one of them writes to a chunk. At large nodes,
//! `heads` gives a lower bound on the cost of each block of edges.
//!
//! Invariant: numbers follow from the graph's content at the time of the layout. Every channel has two edges; one
//! without a usable policy takes no amount (`Edge::minimum`). Budget: 32 bytes per edge, about 150 bytes per channel
//! in all.

mod chunks;
mod edge;
mod heads;

use std::ops::Range;
use std::sync::Arc;

use fulmen_wire::units::{NodeId, Sat, Scid};

use crate::bit_set::BitSet;
use crate::graph::{ChannelGraph, DirectedChannel, Direction, GraphError, Policy};
use crate::snapshot::chunks::Chunks;
pub(crate) use crate::snapshot::edge::{Edge, RoughCapacity};
use crate::snapshot::heads::{BLOCK_EDGES, Heads, block_count};

/// The public graph as of one moment, laid out for searching. Cloning shares all data.
///
/// ```
/// use fulmen_graph::snapshot::Snapshot;
/// use fulmen_graph::{ChannelGraph, DirectedChannel, Direction, Policy};
/// use fulmen_wire::units::{CltvDelta, Msat, NodeId, Sat, Scid};
///
/// let mut graph = ChannelGraph::new();
/// graph.add_channel(Scid(1), [NodeId([2; 33]), NodeId([3; 33])], Sat(100_000))?;
/// let before = Snapshot::new(&graph);
///
/// let directed = DirectedChannel { scid: Scid(1), direction: Direction::OneToTwo };
/// let policy = Policy {
///     fee_base: Msat(1_000),
///     fee_proportional_millionths: 100,
///     cltv_expiry_delta: CltvDelta(40),
///     htlc_minimum: Msat(1),
///     htlc_maximum: Msat(100_000_000),
///     disabled: false,
/// };
/// let after = before.with_policies([(directed, Some(policy))])?;
/// assert_eq!((before.policy(directed), after.policy(directed)), (None, Some(policy)));
/// # Ok::<(), fulmen_graph::GraphError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Snapshot {
    shape: Arc<Shape>,
    edges: Chunks,
    /// The heads of the edges into each node, in the order of their numbers.
    inward: Heads,
    /// The heads of the edges out of each node, in the order of [`Shape::outgoing`].
    outward: Heads,
}

/// The part of a snapshot that policy updates do not change.
#[derive(Debug)]
pub(crate) struct Shape {
    /// In ascending order.
    node_ids: Vec<NodeId>,
    /// For each node the number of its first incoming edge, and the number of all edges at the end.
    incoming: Vec<u32>,
    /// For each node the number of its first block, and the number of all blocks at the end.
    blocks: Vec<u32>,
    /// For each edge the node it leaves.
    sources: Vec<u32>,
    /// For each edge the other direction of its channel.
    reverse: Vec<u32>,
    /// For each node its incoming edges, ordered by the cost of leaving the node over their reverse.
    outgoing: Vec<u32>,
    /// For each edge its channel.
    channel_of: Vec<u32>,
    /// In ascending order.
    scids: Vec<Scid>,
    capacities: Vec<Sat>,
    /// For each channel its two edges in the order of [`Direction::BOTH`].
    edges_of: Vec<[u32; 2]>,
}

impl Snapshot {
    /// Lays out a graph.
    #[must_use]
    pub fn new(graph: &ChannelGraph) -> Snapshot {
        let (shape, edges) = Shape::new(graph);
        let into = |number: u32| &edges[number as usize];
        let out_of = |at: u32| &edges[shape.reverse[shape.outgoing[at as usize] as usize] as usize];
        let (inward, outward) = (Heads::new(&shape.incoming, into), Heads::new(&shape.incoming, out_of));
        Snapshot { edges: Chunks::new(&edges), inward, outward, shape: Arc::new(shape) }
    }

    /// This graph with other policies; `None` makes a policy unknown. The last of several policies for one direction
    /// counts. Costs a few microseconds and some kilobytes for each chunk that is written to, so that many updates at
    /// once are cheaper than each alone.
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
            next.put(edge, next.edges.at(edge).under(policy.as_ref(), capacity));
        }
        Ok(next)
    }

    /// Replaces an edge by one under another policy.
    fn put(&mut self, number: u32, edge: Edge) {
        self.edges.put(number, edge);
        let [inward, outward] = self.shape.blocks_of(number);
        if let Some(block) = inward {
            self.inward.cover(block, &edge);
        }
        if let Some(block) = outward {
            self.outward.cover(block, &edge);
        }
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

    /// The policy of one direction, with its maximum limited to the capacity; `None` when it is unknown.
    #[must_use]
    pub fn policy(&self, directed: DirectedChannel) -> Option<Policy> {
        self.edge(self.edge_index(directed)?).policy()
    }

    /// The value of a channel's funding output; `None` for an unknown channel.
    #[must_use]
    pub fn capacity(&self, scid: Scid) -> Option<Sat> {
        Some(self.shape.capacities[self.channel_index(scid)? as usize])
    }

    /// The size in bytes, including data shared with other snapshots.
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
            + size_of_val(&*shape.blocks)
            + size_of_val(&*shape.sources)
            + size_of_val(&*shape.outgoing)
            + self.edges.bytes()
            + self.inward.bytes()
            + self.outward.bytes()
    }

    /// The number of a node.
    pub(crate) fn node_index(&self, node: NodeId) -> Option<u32> {
        self.shape.node_ids.binary_search(&node).ok().map(|at| at as u32)
    }

    /// The id of a node.
    pub(crate) fn node_id(&self, node: u32) -> NodeId {
        self.shape.node_ids[node as usize]
    }

    /// The number of edges, an exclusive upper bound on their numbers.
    pub(crate) fn edge_count(&self) -> usize {
        self.shape.reverse.len()
    }

    /// The numbers of the edges into a node.
    #[inline]
    pub(crate) fn incoming(&self, node: u32) -> Range<u32> {
        self.shape.incoming(node)
    }

    /// Edges of consecutive numbers in runs: the number of the run's first edge, and the run.
    #[inline]
    pub(crate) fn runs(&self, edges: Range<u32>) -> impl Iterator<Item = (u32, &[Edge])> {
        self.edges.runs(edges)
    }

    /// The edge of a number.
    #[inline]
    pub(crate) fn edge(&self, edge: u32) -> &Edge {
        self.edges.at(edge)
    }

    /// The node that an edge leaves.
    #[inline]
    pub(crate) fn source(&self, edge: u32) -> u32 {
        self.shape.sources[edge as usize]
    }

    /// The nodes that the edges of consecutive numbers leave.
    #[inline]
    pub(crate) fn sources(&self, edges: Range<u32>) -> &[u32] {
        &self.shape.sources[edges.start as usize..edges.end as usize]
    }

    /// A range of positions in the order of edges out of a node, as the incoming edges that they are the reverse of.
    #[inline]
    pub(crate) fn outgoing(&self, places: Range<u32>) -> &[u32] {
        &self.shape.outgoing[places.start as usize..places.end as usize]
    }

    /// The blocks of a node's edges; empty when they fit into one.
    #[inline]
    pub(crate) fn blocks(&self, node: u32) -> Range<u32> {
        self.shape.blocks[node as usize]..self.shape.blocks[node as usize + 1]
    }

    /// The numbers of the edges into a node that form one of its blocks; also the positions of the corresponding
    /// block of edges out of it.
    #[inline]
    pub(crate) fn block(&self, node: u32, block: u32) -> Range<u32> {
        let edges = self.incoming(node);
        let start = edges.start + (block - self.shape.blocks[node as usize]) * BLOCK_EDGES;
        start..edges.end.min(start + BLOCK_EDGES)
    }

    /// The heads of blocks of edges into a node, in runs: each covers the enabled edges of its block.
    #[inline]
    pub(crate) fn inward_heads(&self, blocks: Range<u32>) -> impl Iterator<Item = (u32, &[Edge])> {
        self.inward.runs(blocks)
    }

    /// The same for blocks of edges out of a node.
    #[inline]
    pub(crate) fn outward_heads(&self, blocks: Range<u32>) -> impl Iterator<Item = (u32, &[Edge])> {
        self.outward.runs(blocks)
    }

    /// The other direction of an edge's channel.
    #[inline]
    pub(crate) fn reverse(&self, edge: u32) -> u32 {
        self.shape.reverse[edge as usize]
    }

    /// The node that an edge leads into.
    #[inline]
    pub(crate) fn target(&self, edge: u32) -> u32 {
        self.shape.sources[self.reverse(edge) as usize]
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

    /// The number of a direction's edge.
    pub(crate) fn edge_index(&self, directed: DirectedChannel) -> Option<u32> {
        Some(self.edge_of(self.channel_index(directed.scid)?, directed.direction))
    }

    /// Both edges of a channel, in the order of [`Direction::BOTH`].
    pub(crate) fn edges_of(&self, scid: Scid) -> Option<[u32; 2]> {
        Some(self.shape.edges_of[self.channel_index(scid)? as usize])
    }

    /// Adds the blocks of an edge: to the first set the block of edges into its target, to the second the block of
    /// edges out of its source.
    pub(crate) fn mark_blocks(&self, edge: u32, sets: &mut [BitSet; 2]) {
        for (set, block) in sets.iter_mut().zip(self.shape.blocks_of(edge)) {
            if let Some(block) = block {
                set.insert_growing(block);
            }
        }
    }

    /// Whether edges have the same numbers in both, so that they differ by policies only.
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
    /// Numbers everything, and returns the edges in the order of their numbers.
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
        let mut by_scid = vec![unknown; edge_count];
        let (mut scids, mut capacities, mut edges_of) = (Vec::new(), Vec::new(), Vec::new());
        for channel in graph.channels() {
            let ends = Direction::BOTH.map(|direction| rank[channel.origin_index(direction) as usize]);
            let pair = Direction::BOTH.map(|direction| {
                let target = ends[1 - direction.origin()] as usize;
                next[target] += 1;
                next[target] - 1
            });
            for direction in Direction::BOTH {
                let edge = Edge { source: ends[direction.origin()], ..unknown };
                let edge = edge.under(channel.policy(direction), channel.capacity());
                by_scid[pair[direction.origin()] as usize] = edge;
            }
            scids.push(channel.scid());
            capacities.push(channel.capacity());
            edges_of.push(pair);
        }
        let order = ranked(&incoming, |at| by_scid[at as usize].rank());
        let mut numbers = vec![0; edge_count];
        for (number, at) in order.iter().enumerate() {
            numbers[*at as usize] = number as u32;
        }
        let edges: Vec<Edge> = order.iter().map(|at| by_scid[*at as usize]).collect();
        let (mut reverse, mut channel_of) = (vec![0; edge_count], vec![0; edge_count]);
        for (channel, pair) in edges_of.iter_mut().enumerate() {
            *pair = pair.map(|at| numbers[at as usize]);
            for (own, other) in [(pair[0], pair[1]), (pair[1], pair[0])] {
                reverse[own as usize] = other;
                channel_of[own as usize] = channel as u32;
            }
        }
        let outgoing = ranked(&incoming, |at| edges[reverse[at as usize] as usize].rank());
        let sources = edges.iter().map(|edge| edge.source).collect();
        let blocks = blocks(&incoming);
        let shape = Shape {
            node_ids,
            incoming,
            blocks,
            sources,
            reverse,
            outgoing,
            channel_of,
            scids,
            capacities,
            edges_of,
        };
        (shape, edges)
    }

    #[inline]
    fn incoming(&self, node: u32) -> Range<u32> {
        self.incoming[node as usize]..self.incoming[node as usize + 1]
    }

    /// The block of an edge among those into its target, and among those out of its source.
    fn blocks_of(&self, edge: u32) -> [Option<u32>; 2] {
        let opposite = self.reverse[edge as usize];
        let [target, source] = [opposite, edge].map(|edge| self.sources[edge as usize]);
        let inward = self.block(target, |_| edge);
        let outward = self.block(source, |edges| {
            let outgoing = &self.outgoing[edges.start as usize..edges.end as usize];
            let at = outgoing.iter().position(|inward| *inward == opposite);
            edges.start + at.expect("a node's channels are in both its orders") as u32
        });
        [inward, outward]
    }

    /// The block of a position among a node's edges, if the node has blocks.
    fn block(&self, node: u32, place: impl FnOnce(Range<u32>) -> u32) -> Option<u32> {
        let edges = self.incoming(node);
        let start = edges.start;
        (block_count(&edges) > 0).then(|| self.blocks[node as usize] + (place(edges) - start) / BLOCK_EDGES)
    }
}

/// The positions of each node's edges in ascending order of rank, ties in their original order.
fn ranked(nodes: &[u32], rank: impl Fn(u32) -> u64) -> Vec<u32> {
    let mut order: Vec<(u64, u32)> = (0..nodes[nodes.len() - 1]).map(|at| (rank(at), at)).collect();
    for pair in nodes.windows(2) {
        order[pair[0] as usize..pair[1] as usize].sort_unstable();
    }
    order.into_iter().map(|(_, at)| at).collect()
}

/// For each node the number of its first block, and the number of all blocks at the end.
fn blocks(nodes: &[u32]) -> Vec<u32> {
    let mut blocks = vec![0];
    let mut count = 0;
    for pair in nodes.windows(2) {
        count += block_count(&(pair[0]..pair[1]));
        blocks.push(count);
    }
    blocks
}

#[cfg(test)]
mod tests {
    use fulmen_wire::units::{CltvDelta, Msat};

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
        assert!(snapshot.edges.chunks().len() > 2);
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
        assert_eq!(
            before.edges.chunks().iter().zip(after.edges.chunks()).filter(shared).count() + 1,
            before.edges.chunks().len()
        );
        let unknown = after.with_policies([(directed, None)]).unwrap();
        assert_eq!(unknown.policy(directed), None);
        let missing = DirectedChannel { scid: Scid(1), ..directed };
        assert_eq!(
            after.with_policies([(missing, None)]).err(),
            Some(GraphError::UnknownChannel { scid: Scid(1) })
        );
    }

    #[test]
    fn heads_are_as_good_as_what_they_stand_for() {
        let graph = ring();
        let star = || (0..250).flat_map(|tag| [(3000 + u64::from(tag), tag), (4000 + u64::from(tag), tag)]);
        let graph = star().fold(graph, |mut graph, (scid, tag)| {
            graph.add_channel(Scid(scid), [node(tag), node(255)], Sat(scid)).unwrap();
            graph.set_policy(Scid(scid), node(tag), Some(policy(scid, tag % 3 == 0))).unwrap();
            graph.set_policy(Scid(scid), node(255), Some(policy(7 * scid % 1000, tag % 4 == 0))).unwrap();
            graph
        });
        let mut snapshot = Snapshot::new(&graph);
        let mut tight = 0;
        for round in 0..5_u64 {
            for at in 0..snapshot.node_count() as u32 {
                let inward =
                    snapshot.inward_heads(snapshot.blocks(at)).flat_map(|(first, run)| (first..).zip(run));
                let outward =
                    snapshot.outward_heads(snapshot.blocks(at)).flat_map(|(first, run)| (first..).zip(run));
                let mut counted = 0;
                for ((block, inward), (_, outward)) in inward.zip(outward) {
                    let edges = snapshot.block(at, block);
                    counted += edges.len();
                    let out_of = snapshot.outgoing(edges.clone()).iter().map(|edge| snapshot.reverse(*edge));
                    tight += usize::from(covered(inward, edges.map(|edge| snapshot.edge(edge))));
                    tight += usize::from(covered(outward, out_of.map(|edge| snapshot.edge(edge))));
                }
                assert!(counted == 0 || counted == snapshot.incoming(at).len());
            }
            assert_eq!(
                snapshot.blocks(snapshot.node_index(node(255)).unwrap()).len() as u32,
                500 / BLOCK_EDGES
            );
            assert!(tight > 100);
            let updates = star().map(|(scid, tag)| {
                let direction = Direction::BOTH[usize::from(tag % 2)];
                let policy = policy((scid + 100 * round) * 11 % 1000, u64::from(tag) % 5 == round);
                (DirectedChannel { scid: Scid(scid), direction }, Some(policy))
            });
            snapshot = snapshot.with_policies(updates).unwrap();
        }
    }

    /// Whether a head is exactly as good as the best of its open edges; it must not be worse.
    fn covered<'a>(head: &Edge, edges: impl Iterator<Item = &'a Edge>) -> bool {
        let (mut minimum, mut fee_base) = (u64::MAX, u32::MAX);
        for edge in edges.filter(|edge| edge.enabled()) {
            assert!(head.minimum <= edge.minimum && head.maximum >= edge.maximum);
            assert!(head.fee_base <= edge.fee_base && head.fee_millionths <= edge.fee_millionths);
            assert!(head.cltv_expiry_delta <= edge.cltv_expiry_delta && head.capacity >= edge.capacity);
            (minimum, fee_base) = (minimum.min(edge.minimum), fee_base.min(edge.fee_base));
        }
        (head.minimum, head.fee_base) == (minimum, fee_base)
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
