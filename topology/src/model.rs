//! The model of a topology: labelled nodes, channels between them, and each direction's policy as far as it is known.
//!
//! Does not generate or read anything. A node is known by its index; its label says where it came from.
//!
//! Invariants: every channel joins two different nodes of its topology, no two nodes share a label and no two channels
//! an id. A policy, or a part of one, that the source did not state is `None`; nothing here fills it in.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use fulmen_graph::{ChannelGraph, GraphError, Policy};
use fulmen_wire::units::{CltvDelta, Msat, NodeId, Sat, Scid};
use thiserror::Error;

/// Where a node came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Label {
    /// Imported: its public key in the snapshot.
    Key(NodeId),
    /// Generated: its number, from zero.
    Number(u32),
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Label::Key(key) => key.fmt(f),
            Label::Number(number) => write!(f, "#{number}"),
        }
    }
}

/// One direction's policy; each part may be unknown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PartialPolicy {
    /// The fixed part of the fee.
    pub fee_base: Option<Msat>,
    /// The part of the fee that grows with the amount, in millionths of it.
    pub fee_proportional_millionths: Option<u32>,
    /// By how much the incoming HTLC must expire after the outgoing one.
    pub cltv_expiry_delta: Option<CltvDelta>,
    /// The smallest HTLC the channel takes.
    pub htlc_minimum: Option<Msat>,
    /// The largest HTLC the channel takes.
    pub htlc_maximum: Option<Msat>,
    /// Whether the direction is switched off; a source that does not say so means that it is not.
    pub disabled: Option<bool>,
    /// The fee for HTLCs that come in over the channel, which lnd adds to that of the outgoing channel; `None` is zero.
    pub inbound: Option<InboundFee>,
}

/// A node's fee for HTLCs that come in over a channel. A negative one is a discount.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InboundFee {
    /// The fixed part, in millisatoshi.
    pub base_msat: i32,
    /// The proportional part, in millionths of the incoming HTLC.
    pub proportional_millionths: i32,
}

impl InboundFee {
    /// Whether some HTLC would have to pay more for it than without it.
    #[must_use]
    pub const fn is_charge(&self) -> bool {
        self.base_msat > 0 || self.proportional_millionths > 0
    }
}

impl PartialPolicy {
    /// The policy, when no term of it is missing. It may be disabled.
    #[must_use]
    pub fn complete(&self) -> Option<Policy> {
        Some(Policy {
            fee_base: self.fee_base?,
            fee_proportional_millionths: self.fee_proportional_millionths?,
            cltv_expiry_delta: self.cltv_expiry_delta?,
            htlc_minimum: self.htlc_minimum?,
            htlc_maximum: self.htlc_maximum?,
            disabled: self.disabled.unwrap_or(false),
        })
    }
}

impl From<Policy> for PartialPolicy {
    fn from(policy: Policy) -> PartialPolicy {
        PartialPolicy {
            fee_base: Some(policy.fee_base),
            fee_proportional_millionths: Some(policy.fee_proportional_millionths),
            cltv_expiry_delta: Some(policy.cltv_expiry_delta),
            htlc_minimum: Some(policy.htlc_minimum),
            htlc_maximum: Some(policy.htlc_maximum),
            disabled: Some(policy.disabled),
            inbound: None,
        }
    }
}

/// A channel between two nodes, given by their indices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Channel {
    /// The two nodes. Their order carries no meaning beyond that of `policies`.
    pub nodes: [usize; 2],
    /// The channel's id in the source, if it has one there.
    pub scid: Option<Scid>,
    /// The value of the funding output; where the source does not state it, the least that the policies allow.
    pub capacity: Sat,
    /// Whether the source states the capacity. Light clients do not know it, and rapid gossip does not carry it.
    pub is_capacity_stated: bool,
    /// The policy of the direction that leaves each of `nodes`, in their order; `None` when no update is known.
    pub policies: [Option<PartialPolicy>; 2],
}

impl Channel {
    /// The policy of the direction that leaves `nodes[end]`, when no term of it is missing. It may be disabled. A
    /// policy without a maximum, as exports had none before 2018, has the stated capacity as its maximum.
    #[must_use]
    pub fn policy(&self, end: usize) -> Option<Policy> {
        let policy = self.policies[end]?;
        let maximum = self.is_capacity_stated.then(|| self.capacity.to_msat());
        PartialPolicy { htlc_maximum: policy.htlc_maximum.or(maximum), ..policy }.complete()
    }

    /// The policy of the direction that leaves `nodes[end]`, when payments can be forwarded under it.
    #[must_use]
    pub fn enabled(&self, end: usize) -> Option<Policy> {
        self.policy(end).filter(|policy| !policy.disabled)
    }

    /// Whether payments can be forwarded both ways.
    #[must_use]
    pub fn enabled_both_ways(&self) -> bool {
        self.enabled(0).is_some() && self.enabled(1).is_some()
    }

    /// The least capacity, in whole satoshi, of a channel with these policies: no node announces a maximum above it.
    pub(crate) fn least_capacity(policies: &[Option<PartialPolicy>; 2]) -> Sat {
        let maxima = policies.iter().flatten().filter_map(|policy| policy.htlc_maximum);
        let largest = maxima.max().unwrap_or(Msat(0)).min(Msat::MAX_MONEY);
        Sat(largest.0.div_ceil(1000))
    }
}

/// Why nodes and channels are no topology.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ModelError {
    /// A channel names a node that is not there.
    #[error("channel {channel} names node {node}, but there are {nodes} nodes")]
    NoSuchNode {
        /// The channel's index.
        channel: usize,
        /// The node it names.
        node: usize,
        /// How many there are.
        nodes: usize,
    },
    /// A channel joins a node to itself.
    #[error("channel {channel} joins node {node} to itself")]
    SelfLoop {
        /// The channel's index.
        channel: usize,
        /// The node.
        node: usize,
    },
    /// Two nodes have one label.
    #[error("two nodes are labelled {label}")]
    DuplicateLabel {
        /// The label.
        label: Label,
    },
    /// Two channels have one id.
    #[error("channels {channels:?} both have the id {scid} ({}); remove one of them", scid.0)]
    DuplicateScid {
        /// The id.
        scid: Scid,
        /// The channels' indices.
        channels: [usize; 2],
    },
}

/// Why ids do not make a topology a channel graph.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ConversionError {
    /// Not one id per node.
    #[error("{given} node ids were given for {nodes} nodes")]
    NodeIdCount {
        /// How many ids.
        given: usize,
        /// How many nodes.
        nodes: usize,
    },
    /// Not one scid per channel.
    #[error("{given} scids were given for {channels} channels")]
    ScidCount {
        /// How many scids.
        given: usize,
        /// How many channels.
        channels: usize,
    },
    /// An id was given twice, so that a channel would join a node to itself or have another's scid.
    #[error(transparent)]
    Graph(#[from] GraphError),
}

/// Nodes and the channels between them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topology {
    nodes: Vec<Label>,
    channels: Vec<Channel>,
}

impl Topology {
    /// Puts nodes and channels together.
    ///
    /// # Errors
    /// When a channel's ends are not two different nodes of these, or two nodes share a label, or two channels an id.
    pub fn new(nodes: Vec<Label>, channels: Vec<Channel>) -> Result<Topology, ModelError> {
        let mut seen = BTreeSet::new();
        if let Some(label) = nodes.iter().find(|label| !seen.insert(**label)) {
            return Err(ModelError::DuplicateLabel { label: *label });
        }
        for (index, channel) in channels.iter().enumerate() {
            if let Some(node) = channel.nodes.into_iter().find(|node| *node >= nodes.len()) {
                return Err(ModelError::NoSuchNode { channel: index, node, nodes: nodes.len() });
            }
            if channel.nodes[0] == channel.nodes[1] {
                return Err(ModelError::SelfLoop { channel: index, node: channel.nodes[0] });
            }
        }
        let mut by_scid = BTreeMap::new();
        for (index, channel) in channels.iter().enumerate() {
            let Some(scid) = channel.scid else { continue };
            if let Some(first) = by_scid.insert(scid, index) {
                return Err(ModelError::DuplicateScid { scid, channels: [first, index] });
            }
        }
        Ok(Topology { nodes, channels })
    }

    /// The nodes' labels; a node's index is its place here.
    #[must_use]
    pub fn nodes(&self) -> &[Label] {
        &self.nodes
    }

    /// The channels, in the order of the source or the generator.
    #[must_use]
    pub fn channels(&self) -> &[Channel] {
        &self.channels
    }

    /// The public graph of this topology, with the given id for each node and scid for each channel, in their order.
    ///
    /// A policy becomes known only where every term of it is; the graph holds nothing else about a direction.
    ///
    /// # Errors
    /// When the numbers of ids do not match, or an id is given twice.
    pub fn channel_graph(&self, ids: &[NodeId], scids: &[Scid]) -> Result<ChannelGraph, ConversionError> {
        if ids.len() != self.nodes.len() {
            return Err(ConversionError::NodeIdCount { given: ids.len(), nodes: self.nodes.len() });
        }
        if scids.len() != self.channels.len() {
            return Err(ConversionError::ScidCount { given: scids.len(), channels: self.channels.len() });
        }
        let mut graph = ChannelGraph::new();
        for (channel, scid) in self.channels.iter().zip(scids) {
            let ends = channel.nodes.map(|node| ids[node]);
            graph.add_channel(*scid, ends, channel.capacity)?;
            for (end, from) in ends.into_iter().enumerate() {
                graph.set_policy(*scid, from, channel.policy(end))?;
            }
        }
        Ok(graph)
    }

    /// The nodes for which `keep` holds and the channels among them, both in their old order.
    #[must_use]
    pub fn induced(&self, keep: impl Fn(usize) -> bool) -> Topology {
        let mut places = vec![None; self.nodes.len()];
        let mut nodes = Vec::new();
        for (index, label) in self.nodes.iter().enumerate().filter(|(index, _)| keep(*index)) {
            places[index] = Some(nodes.len());
            nodes.push(*label);
        }
        let channels = self.channels.iter().filter_map(|channel| {
            let [one, two] = channel.nodes.map(|node| places[node]);
            Some(Channel { nodes: [one?, two?], ..channel.clone() })
        });
        Topology { nodes, channels: channels.collect() }
    }

    /// A name for a channel: its id in the source, or its index as `#7`.
    #[must_use]
    pub fn channel_name(&self, index: usize) -> String {
        let scid = self.channels.get(index).and_then(|channel| channel.scid);
        scid.map_or_else(|| format!("#{index}"), |scid| scid.to_string())
    }

    /// The channels for which `keep` holds and the nodes they join, both in their old order.
    #[must_use]
    pub fn with_channels(&self, keep: impl Fn(usize, &Channel) -> bool) -> Topology {
        let kept = self.channels.iter().enumerate().filter(|(index, channel)| keep(*index, channel));
        let channels: Vec<Channel> = kept.map(|(_, channel)| channel.clone()).collect();
        let joined: BTreeSet<usize> = channels.iter().flat_map(|channel| channel.nodes).collect();
        Topology { nodes: self.nodes.clone(), channels }.induced(|node| joined.contains(&node))
    }

    /// Counts and totals.
    #[must_use]
    pub fn summary(&self) -> Summary {
        let mut summary =
            Summary { nodes: self.nodes.len(), channels: self.channels.len(), ..Summary::default() };
        for channel in &self.channels {
            summary.capacity_total =
                summary.capacity_total.checked_add(channel.capacity).unwrap_or(Sat(u64::MAX));
            summary.capacity_max = summary.capacity_max.max(channel.capacity);
            summary.enabled_both_ways += usize::from(channel.enabled_both_ways());
            summary.capacities_unstated += usize::from(!channel.is_capacity_stated);
            for (end, policy) in channel.policies.iter().enumerate() {
                match policy {
                    None => summary.absent += 1,
                    Some(policy) if policy.disabled == Some(true) => summary.disabled += 1,
                    Some(_) if channel.policy(end).is_some() => summary.enabled += 1,
                    Some(_) => summary.incomplete += 1,
                }
            }
        }
        summary
    }
}

/// Counts and totals of a topology; the directions are counted in exactly one of four ways.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Nodes.
    pub nodes: usize,
    /// Channels.
    pub channels: usize,
    /// The sum of all capacities.
    pub capacity_total: Sat,
    /// The largest capacity.
    pub capacity_max: Sat,
    /// Channels whose capacity the source does not state.
    pub capacities_unstated: usize,
    /// Channels that payments can be forwarded over both ways.
    pub enabled_both_ways: usize,
    /// Directions with a complete policy that is not disabled.
    pub enabled: usize,
    /// Directions that are disabled.
    pub disabled: usize,
    /// Directions, not disabled, of whose policy some term is missing.
    pub incomplete: usize,
    /// Directions of which nothing is known.
    pub absent: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(base: u64) -> Policy {
        Policy {
            fee_base: Msat(base),
            fee_proportional_millionths: 5,
            cltv_expiry_delta: CltvDelta(40),
            htlc_minimum: Msat(1),
            htlc_maximum: Msat(1000),
            disabled: false,
        }
    }

    fn channel(nodes: [usize; 2], policies: [Option<PartialPolicy>; 2]) -> Channel {
        Channel { nodes, scid: None, capacity: Sat(100), is_capacity_stated: true, policies }
    }

    #[test]
    fn ids_may_turn_a_channel_around_but_policies_stay_with_their_node() {
        let nodes = vec![Label::Number(0), Label::Number(1)];
        let topology =
            Topology::new(nodes, vec![channel([0, 1], [Some(policy(7).into()), None])]).expect("valid");
        let graph = topology.channel_graph(&[NodeId([9; 33]), NodeId([2; 33])], &[Scid(1)]).expect("valid");
        let channel = graph.channel(Scid(1)).expect("added");
        let from_nine = channel.direction_from(NodeId([9; 33])).expect("an end");
        assert_eq!(channel.policy(from_nine), Some(&policy(7)));
        assert_eq!(channel.policy(from_nine.reversed()), None);
    }

    #[test]
    fn only_a_missing_maximum_is_taken_from_the_capacity() {
        let enabled = |partial: PartialPolicy| channel([0, 1], [Some(partial), None]).enabled(0);
        let known = PartialPolicy::from(policy(7));
        assert_eq!(enabled(known), Some(policy(7)));
        assert_eq!(enabled(PartialPolicy { disabled: None, ..known }), Some(policy(7)));
        let without = PartialPolicy { htlc_maximum: None, ..known };
        assert_eq!(enabled(without).map(|policy| policy.htlc_maximum), Some(Sat(100).to_msat()));
        let unstated = Channel { is_capacity_stated: false, ..channel([0, 1], [Some(without), None]) };
        assert_eq!(unstated.policy(0), None);
        assert_eq!(enabled(PartialPolicy { htlc_minimum: None, ..known }), None);
        let switched_off = channel([0, 1], [Some(PartialPolicy { disabled: Some(true), ..known }), None]);
        assert_eq!((switched_off.policy(0).is_some(), switched_off.enabled(0)), (true, None));
    }

    #[test]
    fn refused_models_name_their_cause() {
        let nodes = vec![Label::Number(0), Label::Number(1)];
        assert_eq!(
            Topology::new(nodes.clone(), vec![channel([0, 2], [None; 2])]),
            Err(ModelError::NoSuchNode { channel: 0, node: 2, nodes: 2 })
        );
        assert_eq!(
            Topology::new(nodes.clone(), vec![channel([1, 1], [None; 2])]),
            Err(ModelError::SelfLoop { channel: 0, node: 1 })
        );
        assert_eq!(
            Topology::new(vec![Label::Number(3); 2], vec![]),
            Err(ModelError::DuplicateLabel { label: Label::Number(3) })
        );
        let twin = Channel { scid: Some(Scid(7)), ..channel([0, 1], [None; 2]) };
        let turned = Channel { nodes: [1, 0], capacity: Sat(9), ..twin.clone() };
        assert_eq!(
            Topology::new(nodes.clone(), vec![twin, channel([0, 1], [None; 2]), turned]),
            Err(ModelError::DuplicateScid { scid: Scid(7), channels: [0, 2] })
        );
        let topology = Topology::new(nodes, vec![channel([0, 1], [None; 2])]).expect("valid");
        assert_eq!(
            topology.channel_graph(&[], &[]).err(),
            Some(ConversionError::NodeIdCount { given: 0, nodes: 2 })
        );
        let ids = [NodeId([2; 33]), NodeId([3; 33])];
        assert_eq!(
            topology.channel_graph(&ids, &[]).err(),
            Some(ConversionError::ScidCount { given: 0, channels: 1 })
        );
    }

    #[test]
    fn nodes_without_a_channel_go_with_their_last_one() {
        let nodes = (0..4).map(Label::Number).collect();
        let channels = [[0, 1], [1, 2], [2, 3]].map(|ends| channel(ends, [None; 2])).to_vec();
        let topology = Topology::new(nodes, channels).expect("valid").with_channels(|index, _| index > 0);
        assert_eq!(topology.nodes(), [Label::Number(1), Label::Number(2), Label::Number(3)]);
        assert_eq!((topology.channels()[0].nodes, topology.channels().len()), ([0, 1], 2));
    }

    #[test]
    fn induced_keeps_order_and_the_channels_among_the_kept() {
        let nodes = (0..4).map(Label::Number).collect();
        let channels = [[0, 1], [3, 1], [1, 2], [2, 3]].map(|ends| channel(ends, [None; 2])).to_vec();
        let topology = Topology::new(nodes, channels).expect("valid").induced(|node| node != 2);
        assert_eq!(topology.nodes(), [Label::Number(0), Label::Number(1), Label::Number(3)]);
        assert_eq!(
            topology.channels().iter().map(|channel| channel.nodes).collect::<Vec<_>>(),
            [[0, 1], [2, 1]]
        );
    }
}
