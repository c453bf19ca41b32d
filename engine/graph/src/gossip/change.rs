//! Changes of the channel graph by accepted gossip (BOLT 7), in the order in which they must be applied.
//!
//! Owns the changes, and their application to [`ChannelGraph`]. Any other consumer, such as a live graph or one of the
//! embedder's, applies the same stream. Channels with unknown required features never appear in it.
//!
//! Invariant: the stream is consistent by itself. A channel is added once, before any other change of it; a policy is
//! set only where routes may use it, so that no consumer has to look at features, limits or node announcements again.

use fulmen_wire::features::Features;
use fulmen_wire::units::{NodeId, Sat, Scid};

use crate::{ChannelGraph, Direction, GraphError, Policy};

/// One change of the public channel graph.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum GraphChange {
    /// A channel was announced; its policies are unknown.
    ChannelAdded {
        /// The channel.
        scid: Scid,
        /// Its two nodes, the lower id first.
        nodes: [NodeId; 2],
        /// The value of its funding output if that was looked up; else the larger `htlc_maximum_msat` of its last
        /// updates, which is zero before the first.
        capacity: Sat,
    },
    /// The funding output was looked up, or an update implies another capacity.
    CapacityChanged {
        /// The channel.
        scid: Scid,
        /// The new `capacity`, as in [`GraphChange::ChannelAdded`].
        capacity: Sat,
    },
    /// A direction has a new policy, which may disable it.
    PolicySet {
        /// The channel.
        scid: Scid,
        /// The direction.
        direction: Direction,
        /// The policy.
        policy: Policy,
    },
    /// A direction must not be used until a policy is set again: the limits of its last update contradict each other or
    /// exceed the capacity, the node it leaves requires unknown features, or the stored update cannot be read.
    PolicyRemoved {
        /// The channel.
        scid: Scid,
        /// The direction.
        direction: Direction,
    },
    /// A channel was removed: spent, unfunded, stale, or signed by a banned node.
    ChannelRemoved {
        /// The channel.
        scid: Scid,
    },
    /// A node was announced.
    NodeAnnounced {
        /// The node.
        node: NodeId,
        /// The features it supports and requires.
        features: Features,
    },
    /// An announced node lost its last channel; its announcement is removed too.
    NodeRemoved {
        /// The node.
        node: NodeId,
    },
}

impl ChannelGraph {
    /// Applies one change. `NodeAnnounced` and `NodeRemoved` change nothing here.
    ///
    /// # Errors
    /// When the change does not fit the graph, because the stream was not applied completely and in order.
    pub fn apply(&mut self, change: &GraphChange) -> Result<(), GraphError> {
        match change {
            GraphChange::ChannelAdded { scid, nodes, capacity } => self.add_channel(*scid, *nodes, *capacity),
            GraphChange::CapacityChanged { scid, capacity } => self.set_capacity(*scid, *capacity),
            GraphChange::PolicySet { scid, direction, policy } => {
                self.set_policy_of(*scid, *direction, Some(*policy))
            }
            GraphChange::PolicyRemoved { scid, direction } => self.set_policy_of(*scid, *direction, None),
            GraphChange::ChannelRemoved { scid } => self.remove_channel(*scid).map(|_| ()),
            GraphChange::NodeAnnounced { .. } | GraphChange::NodeRemoved { .. } => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use fulmen_wire::units::{CltvDelta, Msat};

    use super::*;

    #[test]
    fn a_stream_of_changes_makes_the_graph() {
        let (scid, nodes) = (Scid(7), [NodeId([2; 33]), NodeId([3; 33])]);
        let policy = Policy {
            fee_base: Msat(1),
            fee_proportional_millionths: 2,
            cltv_expiry_delta: CltvDelta(3),
            htlc_minimum: Msat(4),
            htlc_maximum: Msat(5),
            disabled: false,
        };
        let direction = Direction::TwoToOne;
        let mut graph = ChannelGraph::new();
        let set = GraphChange::PolicySet { scid, direction, policy };
        assert_eq!(graph.apply(&set), Err(GraphError::UnknownChannel { scid }));
        graph.apply(&GraphChange::ChannelAdded { scid, nodes, capacity: Sat(0) }).unwrap();
        graph.apply(&set).unwrap();
        graph.apply(&GraphChange::CapacityChanged { scid, capacity: Sat(9) }).unwrap();
        let channel = graph.channel(scid).unwrap();
        assert_eq!((channel.capacity(), channel.policy(direction)), (Sat(9), Some(&policy)));
        assert_eq!(channel.policy(direction.reversed()), None);
        graph.apply(&GraphChange::PolicyRemoved { scid, direction }).unwrap();
        assert_eq!(graph.channel(scid).unwrap().policy(direction), None);
        graph.apply(&GraphChange::NodeRemoved { node: nodes[0] }).unwrap();
        graph.apply(&GraphChange::ChannelRemoved { scid }).unwrap();
        assert_eq!(graph.channel_count(), 0);
    }
}
