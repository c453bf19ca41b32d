//! The input of both sides: the network, the queries, and the policy updates that arrive between them.
//!
//! Owns the drawing of queries: endpoints are uniform over the largest strongly connected component over enabled
//! directions, every query is a fresh pair, and before each some enabled directions change their fee rate by up to
//! half. The same seed draws the same. A snapshot that has no scids is given ones by the place of each channel.

use std::collections::HashSet;

use fulmen_graph::{ChannelGraph, DirectedChannel, Direction, Policy};
use fulmen_topology::{Label, Topology};
use fulmen_wire::units::{NodeId, Scid};

use crate::route::evaluate::{Ask, Judge, KnownChannel};

/// A network, and the draws from it.
pub(crate) struct Network {
    pub(crate) graph: ChannelGraph,
    /// The nodes that queries are drawn from.
    ends: Vec<NodeId>,
    /// The directions that updates are drawn from.
    enabled: Vec<DirectedChannel>,
    draw: Draw,
    drawn: HashSet<(NodeId, NodeId)>,
}

/// A policy update.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Update {
    pub(crate) directed: DirectedChannel,
    pub(crate) policy: Policy,
}

impl Network {
    /// Ids for the nodes and channels of a topology.
    pub(crate) fn new(topology: &Topology, seed: u64) -> Network {
        let numbered = |number: u32| {
            let mut id = [0; 33];
            id[0] = 2;
            id[29..].copy_from_slice(&number.to_be_bytes());
            NodeId(id)
        };
        let ids: Vec<NodeId> = topology
            .nodes()
            .iter()
            .map(|label| match label {
                Label::Key(key) => *key,
                Label::Number(number) => numbered(*number),
            })
            .collect();
        let scids: Vec<Scid> = (0..topology.channels().len() as u32)
            .map(|at| Scid::new(500_000 + at / 1000, at % 1000, 1).expect("a few million channels"))
            .collect();
        let graph = topology.channel_graph(&ids, &scids).expect("ids differ");
        let members = topology.largest_strong_component();
        let ends = ids.iter().zip(members).filter(|(_, member)| *member).map(|(id, _)| *id).collect();
        let mut enabled = Vec::new();
        for channel in graph.channels() {
            for direction in Direction::BOTH {
                if channel.policy(direction).is_some_and(|policy| !policy.disabled) {
                    enabled.push(DirectedChannel { scid: channel.scid(), direction });
                }
            }
        }
        Network { graph, ends, enabled, draw: Draw(seed), drawn: HashSet::new() }
    }

    /// How many nodes queries are drawn from.
    pub(crate) fn end_count(&self) -> usize {
        self.ends.len()
    }

    /// A query between two nodes that no query was between before.
    pub(crate) fn ask(&mut self, amount_msat: u64) -> Ask {
        loop {
            let [from, to] = std::array::from_fn(|_| self.ends[self.draw.below(self.ends.len())]);
            if from != to && self.drawn.insert((from, to)) {
                return Ask { from, to, amount_msat };
            }
        }
    }

    /// A policy update of some direction, starting from the graph's first policy.
    pub(crate) fn update(&mut self) -> Update {
        let directed = self.enabled[self.draw.below(self.enabled.len())];
        let policy = self.graph.channel(directed.scid).and_then(|channel| channel.policy(directed.direction));
        let mut policy = *policy.expect("was enabled");
        let millionths = u64::from(policy.fee_proportional_millionths);
        let changed = millionths / 2 + self.draw.below(millionths as usize + 1) as u64;
        policy.fee_proportional_millionths = u32::try_from(changed).unwrap_or(u32::MAX);
        Update { directed, policy }
    }

    /// The judge's book of the network as it is at first.
    pub(crate) fn judge(&self) -> Judge {
        let channels = self.graph.channels().map(|channel| {
            let known = KnownChannel {
                nodes: channel.nodes(),
                capacity_msat: channel.capacity().to_msat().0,
                policies: Direction::BOTH.map(|direction| channel.policy(direction).copied()),
            };
            (channel.scid(), known)
        });
        Judge { channels: channels.collect() }
    }
}

/// Numbers that only look random: SplitMix64.
pub(crate) struct Draw(pub(crate) u64);

impl Draw {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        ((u128::from(self.next()) * bound as u128) >> 64) as usize
    }
}
