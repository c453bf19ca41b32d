//! A graph that changes while it is searched: one writer's graph, and the snapshot that readers take.
//!
//! Owns [`LiveGraph`]. Readers take the current [`Snapshot`] without waiting for writers and keep it as long as they
//! need; writers never wait for readers. A batch of changes becomes visible as a whole. Does no I/O and starts no
//! threads; the caller decides how often changes become visible.

use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;

use crate::gossip::GraphChange;
use crate::graph::{ChannelGraph, DirectedChannel, GraphError, Policy};
use crate::snapshot::Snapshot;

/// A channel graph that can be searched while it changes.
#[derive(Debug)]
pub struct LiveGraph {
    /// The graph that the next snapshot is made from; one writer at a time holds the lock.
    graph: Mutex<ChannelGraph>,
    current: ArcSwap<Snapshot>,
}

impl LiveGraph {
    /// Starts with a graph.
    #[must_use]
    pub fn new(graph: ChannelGraph) -> LiveGraph {
        let current = ArcSwap::from_pointee(Snapshot::new(&graph));
        LiveGraph { graph: Mutex::new(graph), current }
    }

    /// The current graph. The snapshot does not change any more.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.current.load_full()
    }

    /// Sets policies (`None` for unknown ones) and publishes a snapshot with them.
    ///
    /// # Errors
    /// When a channel is not in the graph; then nothing is changed.
    pub fn set_policies(&self, policies: &[(DirectedChannel, Option<Policy>)]) -> Result<(), GraphError> {
        let mut graph = self.graph.lock().unwrap_or_else(PoisonError::into_inner);
        let next = self.current.load().with_policies(policies.iter().copied())?;
        for (directed, policy) in policies {
            graph.set_policy_of(directed.scid, directed.direction, *policy)?;
        }
        self.current.store(Arc::new(next));
        Ok(())
    }

    /// Applies changes by gossip in order and publishes a snapshot with them. Unless a channel is added, removed or
    /// changes its capacity, that costs as little as [`LiveGraph::set_policies`].
    ///
    /// # Errors
    /// When a change does not fit the graph, because the stream was not applied completely and in order. Some of the
    /// changes may have been applied.
    pub fn apply(&self, changes: &[GraphChange]) -> Result<(), GraphError> {
        let mut policies = Vec::new();
        for change in changes {
            match change {
                GraphChange::PolicySet { scid, direction, policy } => {
                    policies.push((DirectedChannel { scid: *scid, direction: *direction }, Some(*policy)));
                }
                GraphChange::PolicyRemoved { scid, direction } => {
                    policies.push((DirectedChannel { scid: *scid, direction: *direction }, None));
                }
                GraphChange::NodeAnnounced { .. } | GraphChange::NodeRemoved { .. } => {}
                GraphChange::ChannelAdded { .. }
                | GraphChange::CapacityChanged { .. }
                | GraphChange::ChannelRemoved { .. } => {
                    return self.rebuild(|graph| changes.iter().try_for_each(|change| graph.apply(change)));
                }
            }
        }
        self.set_policies(&policies)
    }

    /// Changes the graph in any way, lays it out anew and publishes the snapshot.
    ///
    /// Costs some milliseconds per ten thousand channels, so changes of channels should be collected.
    pub fn rebuild<T>(&self, change: impl FnOnce(&mut ChannelGraph) -> T) -> T {
        let mut graph = self.graph.lock().unwrap_or_else(PoisonError::into_inner);
        let outcome = change(&mut graph);
        self.current.store(Arc::new(Snapshot::new(&graph)));
        outcome
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::Direction;
    use fulmen_wire::units::{CltvDelta, Msat, NodeId, Sat, Scid};

    #[test]
    fn a_batch_is_seen_whole_or_not_at_all() {
        let mut graph = ChannelGraph::new();
        graph.add_channel(Scid(1), [NodeId([1; 33]), NodeId([2; 33])], Sat(10)).unwrap();
        let live = LiveGraph::new(graph);
        let before = live.snapshot();
        let policy = Policy {
            fee_base: Msat(1),
            fee_proportional_millionths: 1,
            cltv_expiry_delta: CltvDelta(1),
            htlc_minimum: Msat(1),
            htlc_maximum: Msat(1),
            disabled: false,
        };
        let [one, two] = Direction::BOTH.map(|direction| DirectedChannel { scid: Scid(1), direction });
        let missing = DirectedChannel { scid: Scid(2), ..one };
        assert!(live.set_policies(&[(one, Some(policy)), (missing, Some(policy))]).is_err());
        assert_eq!(live.snapshot().policy(one), None);
        live.set_policies(&[(one, Some(policy)), (two, Some(policy))]).unwrap();
        assert_eq!(live.snapshot().policy(one), Some(policy));
        assert_eq!(before.policy(one), None);
        // A later layout includes earlier updates.
        live.rebuild(|graph| graph.add_channel(Scid(2), [NodeId([3; 33]), NodeId([2; 33])], Sat(10)))
            .unwrap();
        assert_eq!(live.snapshot().policy(two), Some(policy));
        assert_eq!((live.snapshot().channel_count(), before.channel_count()), (2, 1));

        let removed = GraphChange::PolicyRemoved { scid: Scid(1), direction: Direction::OneToTwo };
        live.apply(std::slice::from_ref(&removed)).unwrap();
        assert_eq!((live.snapshot().policy(one), live.snapshot().policy(two)), (None, Some(policy)));
        live.apply(&[removed, GraphChange::ChannelRemoved { scid: Scid(1) }]).unwrap();
        assert_eq!(live.snapshot().channel_count(), 1);
    }
}
