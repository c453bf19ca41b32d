//! The public channel graph in memory: nodes, channels, and each direction's policy (BOLT 7 `channel_announcement`
//! and `channel_update`).
//!
//! Does not check signatures or funding outputs: the caller has accepted everything added here. A direction with an
//! unknown policy has none.
//!
//! Invariant: the `nodes` of a channel are in ascending order of their ids, as BOLT 7 orders them, and each node's
//! list of channels is sorted by scid, so that every visible order depends on the graph's content alone.

use std::collections::BTreeMap;

pub use fulmen_wire::message::Direction;
use fulmen_wire::units::{CltvDelta, FeeProportionalMillionths, Msat, NodeId, Sat, Scid};
use thiserror::Error;

/// One direction of one channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DirectedChannel {
    /// The channel.
    pub scid: Scid,
    /// Its direction.
    pub direction: Direction,
}

/// A node's policy for forwarding over one of its channels (BOLT 7 `channel_update`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// The fixed part of the fee, `fee_base_msat`.
    pub fee_base: Msat,
    /// The proportional part of the fee, in millionths of the forwarded amount.
    pub fee_proportional_millionths: u32,
    /// The number of blocks by which the incoming HTLC must expire after the outgoing one.
    pub cltv_expiry_delta: CltvDelta,
    /// The smallest HTLC that the channel takes.
    pub htlc_minimum: Msat,
    /// The largest HTLC that the channel takes.
    pub htlc_maximum: Msat,
    /// Whether the direction is disabled for now.
    pub disabled: bool,
}

impl Policy {
    /// The fee for forwarding `amount` over this channel (BOLT 7, "HTLC Fees"), or `None` past `u64`. See
    /// [`FeeProportionalMillionths::forwarding_fee`].
    #[must_use]
    pub fn fee(&self, amount: Msat) -> Option<Msat> {
        FeeProportionalMillionths(self.fee_proportional_millionths).forwarding_fee(self.fee_base, amount)
    }
}

/// A channel of the public graph.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GraphChannel {
    scid: Scid,
    nodes: [NodeId; 2],
    capacity: Sat,
    policies: [Option<Policy>; 2],
    /// The dense indices of `nodes`, in the same order.
    ends: [u32; 2],
}

impl GraphChannel {
    /// The channel's id.
    #[must_use]
    pub const fn scid(&self) -> Scid {
        self.scid
    }

    /// The two nodes, the lower id first.
    #[must_use]
    pub const fn nodes(&self) -> [NodeId; 2] {
        self.nodes
    }

    /// The value of the funding output, as far as is known.
    #[must_use]
    pub const fn capacity(&self) -> Sat {
        self.capacity
    }

    /// The policy of one direction, absent when no update is known.
    #[must_use]
    pub const fn policy(&self, direction: Direction) -> Option<&Policy> {
        self.policies[direction.origin()].as_ref()
    }

    /// The node that a direction leaves.
    #[must_use]
    pub const fn origin(&self, direction: Direction) -> NodeId {
        self.nodes[direction.origin()]
    }

    /// The direction that leaves `from`, or `None` when it is not one of the two nodes.
    #[must_use]
    pub fn direction_from(&self, from: NodeId) -> Option<Direction> {
        Direction::BOTH.into_iter().find(|direction| self.origin(*direction) == from)
    }

    /// The dense index of the node that a direction leaves.
    pub(crate) const fn origin_index(&self, direction: Direction) -> u32 {
        self.ends[direction.origin()]
    }
}

/// The reason why a change was refused. The graph is unchanged.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum GraphError {
    /// Both ends of the channel are the same node.
    #[error("channel {scid} joins node {node} to itself")]
    SelfLoop {
        /// The channel.
        scid: Scid,
        /// The node at both ends.
        node: NodeId,
    },
    /// The channel is in the graph already.
    #[error("channel {scid} is in the graph already")]
    DuplicateChannel {
        /// The channel.
        scid: Scid,
    },
    /// There is no such channel.
    #[error("channel {scid} is not in the graph")]
    UnknownChannel {
        /// The channel.
        scid: Scid,
    },
    /// The node is not an end of the channel.
    #[error("node {node} is not an end of channel {scid}")]
    NotAnEnd {
        /// The channel.
        scid: Scid,
        /// The node.
        node: NodeId,
    },
    /// The graph holds as many nodes or channels as 32-bit indices allow.
    #[error("the graph is full")]
    Full,
}

/// The public channel graph.
///
/// Nodes are added with their first channel and stay when their last one is removed. All iteration is in ascending
/// order of ids.
#[derive(Clone, Debug, Default)]
pub struct ChannelGraph {
    node_indices: BTreeMap<NodeId, u32>,
    node_ids: Vec<NodeId>,
    /// For each node, its channels as positions in `channels`, sorted by scid.
    adjacency: Vec<Vec<u32>>,
    channels: Vec<GraphChannel>,
    channel_positions: BTreeMap<Scid, u32>,
}

impl ChannelGraph {
    /// An empty graph.
    #[must_use]
    pub fn new() -> ChannelGraph {
        ChannelGraph::default()
    }

    /// Adds a channel between two nodes, given in either order, with unknown policies.
    ///
    /// # Errors
    /// When both ends are the same node, the scid is taken, or the graph is full.
    pub fn add_channel(&mut self, scid: Scid, ends: [NodeId; 2], capacity: Sat) -> Result<(), GraphError> {
        let nodes = if ends[0] < ends[1] { ends } else { [ends[1], ends[0]] };
        if nodes[0] == nodes[1] {
            return Err(GraphError::SelfLoop { scid, node: nodes[0] });
        }
        if self.channel_positions.contains_key(&scid) {
            return Err(GraphError::DuplicateChannel { scid });
        }
        let position = u32::try_from(self.channels.len()).map_err(|_| GraphError::Full)?;
        if u32::try_from(self.node_ids.len() + 2).is_err() {
            return Err(GraphError::Full);
        }
        let ends = nodes.map(|node| self.intern(node));
        self.channels.push(GraphChannel { scid, nodes, capacity, policies: [None; 2], ends });
        self.channel_positions.insert(scid, position);
        for end in ends {
            let channels = &self.channels;
            let list = &mut self.adjacency[end as usize];
            let at = list.partition_point(|other| channels[*other as usize].scid < scid);
            list.insert(at, position);
        }
        Ok(())
    }

    /// Sets the policy of the direction that leaves `from`; `None` makes it unknown again.
    ///
    /// # Errors
    /// When there is no such channel, or `from` is not one of its ends.
    pub fn set_policy(&mut self, scid: Scid, from: NodeId, policy: Option<Policy>) -> Result<(), GraphError> {
        let position = *self.channel_positions.get(&scid).ok_or(GraphError::UnknownChannel { scid })?;
        let channel = &mut self.channels[position as usize];
        let direction = channel.direction_from(from).ok_or(GraphError::NotAnEnd { scid, node: from })?;
        channel.policies[direction.origin()] = policy;
        Ok(())
    }

    /// Sets the policy of one direction; `None` makes it unknown again.
    ///
    /// # Errors
    /// When there is no such channel.
    pub fn set_policy_of(
        &mut self,
        scid: Scid,
        direction: Direction,
        policy: Option<Policy>,
    ) -> Result<(), GraphError> {
        let position = *self.channel_positions.get(&scid).ok_or(GraphError::UnknownChannel { scid })?;
        self.channels[position as usize].policies[direction.origin()] = policy;
        Ok(())
    }

    /// Sets the capacity of a channel.
    ///
    /// # Errors
    /// When there is no such channel.
    pub fn set_capacity(&mut self, scid: Scid, capacity: Sat) -> Result<(), GraphError> {
        let position = *self.channel_positions.get(&scid).ok_or(GraphError::UnknownChannel { scid })?;
        self.channels[position as usize].capacity = capacity;
        Ok(())
    }

    /// Removes a channel and returns it.
    ///
    /// # Errors
    /// When there is no such channel.
    pub fn remove_channel(&mut self, scid: Scid) -> Result<GraphChannel, GraphError> {
        let position = self.channel_positions.remove(&scid).ok_or(GraphError::UnknownChannel { scid })?;
        for end in self.channels[position as usize].ends {
            self.adjacency[end as usize].retain(|other| *other != position);
        }
        let removed = self.channels.swap_remove(position as usize);
        // The last channel has moved into the gap, and references to its position follow. Its scid, and so its place
        // in the sorted lists, is unchanged.
        if let Some(moved) = self.channels.get(position as usize) {
            let old = self.channels.len() as u32;
            self.channel_positions.insert(moved.scid, position);
            for end in moved.ends {
                for entry in self.adjacency[end as usize].iter_mut().filter(|entry| **entry == old) {
                    *entry = position;
                }
            }
        }
        Ok(removed)
    }

    /// The number of nodes.
    #[must_use]
    pub fn node_count(&self) -> usize {
        self.node_ids.len()
    }

    /// The number of channels.
    #[must_use]
    pub fn channel_count(&self) -> usize {
        self.channels.len()
    }

    /// Whether the node has, or has had, a channel here.
    #[must_use]
    pub fn contains_node(&self, node: NodeId) -> bool {
        self.node_indices.contains_key(&node)
    }

    /// The nodes, in ascending order of their ids.
    pub fn nodes(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.node_indices.keys().copied()
    }

    /// The channel of this id.
    #[must_use]
    pub fn channel(&self, scid: Scid) -> Option<&GraphChannel> {
        self.channel_positions.get(&scid).map(|position| &self.channels[*position as usize])
    }

    /// The channels, in ascending order of their scids.
    pub fn channels(&self) -> impl Iterator<Item = &GraphChannel> + '_ {
        self.channel_positions.values().map(|position| &self.channels[*position as usize])
    }

    /// The channels of one node, in ascending order of their scids; none for an unknown node.
    pub fn channels_of(&self, node: NodeId) -> impl Iterator<Item = &GraphChannel> + '_ {
        self.node_indices.get(&node).into_iter().flat_map(|index| self.channels_at(*index))
    }

    /// The dense index of a node.
    pub(crate) fn index_of(&self, node: NodeId) -> Option<u32> {
        self.node_indices.get(&node).copied()
    }

    /// The id of the node with this dense index.
    pub(crate) fn id_at(&self, index: u32) -> NodeId {
        self.node_ids[index as usize]
    }

    /// The channels of the node with this dense index, in ascending order of their scids.
    pub(crate) fn channels_at(&self, index: u32) -> impl Iterator<Item = &GraphChannel> + '_ {
        self.adjacency[index as usize].iter().map(|position| &self.channels[*position as usize])
    }

    fn intern(&mut self, node: NodeId) -> u32 {
        let next = self.node_ids.len() as u32;
        let index = *self.node_indices.entry(node).or_insert(next);
        if index == next {
            self.node_ids.push(node);
            self.adjacency.push(Vec::new());
        }
        index
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(tag: u8) -> NodeId {
        NodeId([tag; 33])
    }

    fn policy(base: u64) -> Policy {
        Policy {
            fee_base: Msat(base),
            fee_proportional_millionths: 2_000,
            cltv_expiry_delta: CltvDelta(20),
            htlc_minimum: Msat(1),
            htlc_maximum: Msat(1_000_000),
            disabled: false,
        }
    }

    #[test]
    fn fee_rounds_down_and_does_not_wrap() {
        assert_eq!(policy(200).fee(Msat(4_999_999)), Some(Msat(10_199)));
        assert_eq!(policy(0).fee(Msat(499)), Some(Msat(0)));
        let dear = Policy { fee_proportional_millionths: u32::MAX, ..policy(u64::MAX) };
        assert_eq!(dear.fee(Msat(u64::MAX)), None);
        assert_eq!(policy(u64::MAX).fee(Msat(1_000)), None);
    }

    #[test]
    fn order_comes_from_ids_not_from_arrival() {
        let mut graph = ChannelGraph::new();
        graph.add_channel(Scid(9), [node(3), node(1)], Sat(10)).unwrap();
        graph.add_channel(Scid(4), [node(1), node(2)], Sat(20)).unwrap();
        graph.add_channel(Scid(7), [node(2), node(3)], Sat(30)).unwrap();
        assert_eq!(graph.nodes().collect::<Vec<_>>(), [node(1), node(2), node(3)]);
        assert_eq!(graph.channels().map(GraphChannel::scid).collect::<Vec<_>>(), [Scid(4), Scid(7), Scid(9)]);
        assert_eq!(
            graph.channels_of(node(1)).map(GraphChannel::scid).collect::<Vec<_>>(),
            [Scid(4), Scid(9)]
        );
        assert_eq!(graph.channel(Scid(9)).unwrap().nodes(), [node(1), node(3)]);
    }

    #[test]
    fn policies_belong_to_a_direction_and_may_be_absent() {
        let mut graph = ChannelGraph::new();
        graph.add_channel(Scid(1), [node(2), node(1)], Sat(10)).unwrap();
        graph.set_policy(Scid(1), node(2), Some(policy(7))).unwrap();
        let channel = graph.channel(Scid(1)).unwrap();
        assert_eq!(channel.policy(Direction::OneToTwo), None);
        assert_eq!(channel.policy(Direction::TwoToOne), Some(&policy(7)));
        assert_eq!(channel.direction_from(node(2)), Some(Direction::TwoToOne));
        assert_eq!(channel.direction_from(node(9)), None);
        graph.set_policy(Scid(1), node(2), None).unwrap();
        assert_eq!(graph.channel(Scid(1)).unwrap().policy(Direction::TwoToOne), None);
    }

    #[test]
    fn refused_changes_name_their_cause() {
        let mut graph = ChannelGraph::new();
        let scid = Scid(1);
        assert_eq!(
            graph.add_channel(scid, [node(1), node(1)], Sat(1)),
            Err(GraphError::SelfLoop { scid, node: node(1) })
        );
        graph.add_channel(scid, [node(1), node(2)], Sat(1)).unwrap();
        assert_eq!(
            graph.add_channel(scid, [node(1), node(3)], Sat(1)),
            Err(GraphError::DuplicateChannel { scid })
        );
        assert!(!graph.contains_node(node(3)), "a refused channel brings no node");
        assert_eq!(graph.set_policy(scid, node(3), None), Err(GraphError::NotAnEnd { scid, node: node(3) }));
        assert_eq!(
            graph.set_policy(Scid(2), node(1), None),
            Err(GraphError::UnknownChannel { scid: Scid(2) })
        );
    }

    #[test]
    fn removal_leaves_the_others_in_place() {
        let mut graph = ChannelGraph::new();
        for (scid, a, b) in [(5, 1, 2), (6, 2, 3), (7, 1, 3), (8, 1, 2)] {
            graph.add_channel(Scid(scid), [node(a), node(b)], Sat(scid)).unwrap();
        }
        assert_eq!(graph.remove_channel(Scid(5)).unwrap().capacity(), Sat(5));
        assert_eq!(graph.remove_channel(Scid(5)), Err(GraphError::UnknownChannel { scid: Scid(5) }));
        assert_eq!(
            graph.channels_of(node(1)).map(|channel| channel.capacity()).collect::<Vec<_>>(),
            [Sat(7), Sat(8)]
        );
        assert_eq!(
            graph.channels_of(node(2)).map(|channel| channel.capacity()).collect::<Vec<_>>(),
            [Sat(6), Sat(8)]
        );
        graph.remove_channel(Scid(8)).unwrap();
        assert_eq!(graph.channel_count(), 2);
        assert_eq!(graph.channel(Scid(7)).unwrap().nodes(), [node(1), node(3)]);
    }
}
