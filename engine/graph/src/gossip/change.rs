//! What accepted gossip changes in the channel graph (BOLT 7), as values in the order in which they are to be applied.
//!
//! Owns: the changes, and how [`ChannelGraph`] takes them. Whatever else holds a graph (a snapshot for path-finding) takes
//! the same stream.
//!
//! Invariant: the stream is sound by itself. A channel is added before anything is said of it and not added twice; a
//! policy is set only where routes may use it, so that whoever applies the stream need not look at features, limits or
//! node announcements again.

use fulmen_wire::features::Features;
use fulmen_wire::units::{NodeId, Sat, Scid};

use crate::{ChannelGraph, Direction, GraphError, Policy};

/// One change of the public channel graph.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum GraphChange {
    /// A channel was announced; no policy of it is known yet.
    ChannelAdded {
        /// The channel.
        scid: Scid,
        /// Its two nodes, the lower id first.
        nodes: [NodeId; 2],
        /// The value of its funding output where that was looked up; else the larger `htlc_maximum_msat` of its last
        /// updates, which is zero before the first.
        capacity: Sat,
    },
    /// The funding output was looked up later, or an update speaks for more or less than was thought to be there.
    CapacityChanged {
        /// The channel.
        scid: Scid,
        /// What `capacity` of [`GraphChange::ChannelAdded`] is from now on.
        capacity: Sat,
    },
    /// A direction has this policy from now on; it may be disabled by it.
    PolicySet {
        /// The channel.
        scid: Scid,
        /// Which way.
        direction: Direction,
        /// Under which conditions.
        policy: Policy,
    },
    /// A direction is not to be used until a policy is set again: its limits contradict each other, or the node it leaves
    /// requires what is not known here.
    PolicyRemoved {
        /// The channel.
        scid: Scid,
        /// Which way.
        direction: Direction,
    },
    /// A channel is gone: spent, stale or disbelieved.
    ChannelRemoved {
        /// The channel.
        scid: Scid,
    },
    /// A node described itself.
    NodeAnnounced {
        /// The node.
        node: NodeId,
        /// What it supports and requires.
        features: Features,
    },
    /// A node's last channel is gone, and what it said of itself with it.
    NodeRemoved {
        /// The node.
        node: NodeId,
    },
}

impl ChannelGraph {
    /// Applies one change. What nodes say of themselves is not held here and changes nothing.
    ///
    /// # Errors
    /// When the change does not fit the graph: the stream it comes from was not applied whole and in order.
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
