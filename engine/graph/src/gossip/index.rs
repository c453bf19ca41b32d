//! The index: channels and nodes, and the locations of their messages in the store.
//!
//! Owns the relation between channels and nodes, and the counts that decide when a node is removed. Does not hold
//! policies; the consumers of the changes do.
//!
//! Invariant: a node is present exactly while it has a channel. Hash maps are only looked up, never iterated. Budget:
//! 120 bytes per channel and per node, beside 16 and 40 bytes, plus slack, in the maps.

use std::collections::HashMap;

use fulmen_wire::units::{BlockHeight, NodeId, Sat, Scid};
use secp256k1::PublicKey;

use super::store::Location;
use crate::Direction;

/// The last update of a direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Update {
    pub(super) location: Location,
    pub(super) timestamp: u32,
    /// CRC32C of the message without signature and timestamp.
    pub(super) checksum: u32,
    /// The capacity that `htlc_maximum_msat` implies.
    pub(super) capacity: Sat,
}

/// An announced channel.
#[derive(Clone, Debug)]
pub(super) struct ChannelEntry {
    pub(super) scid: Scid,
    /// Positions of the nodes, the lower id first.
    pub(super) nodes: [u32; 2],
    pub(super) announcement: Location,
    pub(super) updates: [Option<Update>; 2],
    /// The offset of the record that made the channel public: its first update's.
    pub(super) public_at: Option<u64>,
    /// The value of the funding output, once it was looked up.
    pub(super) funding: Option<Sat>,
    /// When the announcement was accepted, in seconds since 1970.
    pub(super) announced_at: u32,
    pub(super) spent_at: Option<BlockHeight>,
    /// Whether routes may use it: it requires no unknown feature.
    pub(super) routable: bool,
    /// Which directions have a policy in the graph.
    pub(super) policy_set: [bool; 2],
}

impl ChannelEntry {
    /// The value of the funding output if it was looked up, else the capacity that the last updates imply.
    pub(super) fn capacity(&self) -> Sat {
        let implied = self.updates.iter().flatten().map(|update| update.capacity).max();
        self.funding.or(implied).unwrap_or_default()
    }
}

/// A node with at least one channel.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) id: NodeId,
    /// Its key, once it was parsed.
    pub(super) key: Option<PublicKey>,
    channels: u32,
    /// The number of its channels with an update.
    pub(super) public_channels: u32,
    pub(super) announcement: Option<Location>,
    /// Of the last accepted `node_announcement`, kept or not; 0 before the first.
    pub(super) timestamp: u32,
    /// Whether routes may lead through it.
    pub(super) routable: bool,
}

/// The index. A channel's position is stable until it is removed; then the last channel takes its place.
#[derive(Debug, Default)]
pub(super) struct Index {
    channels: Vec<ChannelEntry>,
    positions: HashMap<Scid, u32>,
    nodes: Vec<Node>,
    node_positions: HashMap<NodeId, u32>,
    /// Free positions in `nodes`.
    free: Vec<u32>,
    /// All scids in order, if they have not changed since the last sort.
    sorted: Option<Vec<Scid>>,
}

/// A removed channel, and the nodes removed with it.
pub(super) struct Removed {
    pub(super) channel: ChannelEntry,
    pub(super) position: usize,
    pub(super) nodes: Vec<Node>,
}

impl Index {
    pub(super) fn with_capacity(channels: usize) -> Index {
        Index {
            channels: Vec::with_capacity(channels),
            positions: HashMap::with_capacity(channels),
            ..Index::default()
        }
    }

    pub(super) fn channel_count(&self) -> usize {
        self.channels.len()
    }

    pub(super) fn node_count(&self) -> usize {
        self.node_positions.len()
    }

    pub(super) fn position(&self, scid: Scid) -> Option<usize> {
        self.positions.get(&scid).map(|position| *position as usize)
    }

    pub(super) fn channel(&self, scid: Scid) -> Option<&ChannelEntry> {
        self.position(scid).map(|position| &self.channels[position])
    }

    pub(super) fn channel_at(&self, position: usize) -> &ChannelEntry {
        &self.channels[position]
    }

    pub(super) fn channel_at_mut(&mut self, position: usize) -> &mut ChannelEntry {
        &mut self.channels[position]
    }

    /// The channels, in an order that depends on the history alone.
    pub(super) fn channels(&self) -> &[ChannelEntry] {
        &self.channels
    }

    pub(super) fn node_position(&self, id: NodeId) -> Option<u32> {
        self.node_positions.get(&id).copied()
    }

    pub(super) fn node(&self, id: NodeId) -> Option<&Node> {
        self.node_position(id).map(|position| self.node_at(position))
    }

    pub(super) fn node_at(&self, position: u32) -> &Node {
        &self.nodes[position as usize]
    }

    pub(super) fn node_at_mut(&mut self, position: u32) -> &mut Node {
        &mut self.nodes[position as usize]
    }

    /// The two nodes of a channel.
    pub(super) fn ends(&self, channel: &ChannelEntry) -> [NodeId; 2] {
        channel.nodes.map(|node| self.node_at(node).id)
    }

    /// The node that a direction of the channel leaves.
    pub(super) fn origin(&self, channel: &ChannelEntry, direction: Direction) -> &Node {
        self.node_at(channel.nodes[direction.origin()])
    }

    /// All scids in order.
    pub(super) fn sorted(&mut self) -> &[Scid] {
        let channels = &self.channels;
        self.sorted.get_or_insert_with(|| {
            let mut scids: Vec<Scid> = channels.iter().map(|channel| channel.scid).collect();
            scids.sort_unstable();
            scids
        })
    }

    /// Adds a new channel between nodes in ascending order; returns its position.
    pub(super) fn add(
        &mut self,
        scid: Scid,
        ends: [NodeId; 2],
        announcement: Location,
        announced_at: u32,
    ) -> usize {
        let position = self.channels.len();
        let previous = self.positions.insert(scid, position as u32);
        assert!(previous.is_none(), "channel {scid} is added once");
        let nodes = ends.map(|id| self.intern(id));
        self.channels.push(ChannelEntry {
            scid,
            nodes,
            announcement,
            updates: [None; 2],
            public_at: None,
            funding: None,
            announced_at,
            spent_at: None,
            routable: true,
            policy_set: [false; 2],
        });
        self.sorted = None;
        position
    }

    /// Makes a channel public with the update whose record is at `offset`, unless it is public already. Returns the
    /// nodes that became public with it.
    pub(super) fn publish(&mut self, position: usize, offset: u64) -> Vec<NodeId> {
        let channel = &mut self.channels[position];
        if channel.public_at.is_some() {
            return Vec::new();
        }
        channel.public_at = Some(offset);
        let nodes = channel.nodes;
        let mut first = Vec::new();
        for node in nodes {
            let node = &mut self.nodes[node as usize];
            node.public_channels += 1;
            if node.public_channels == 1 {
                first.push(node.id);
            }
        }
        first
    }

    /// Removes a channel; the last channel in the list takes its position.
    pub(super) fn remove(&mut self, scid: Scid) -> Option<Removed> {
        let position = self.positions.remove(&scid)? as usize;
        let channel = self.channels.swap_remove(position);
        if let Some(moved) = self.channels.get(position) {
            self.positions.insert(moved.scid, position as u32);
        }
        self.sorted = None;
        let mut gone = Vec::new();
        for index in channel.nodes {
            let node = &mut self.nodes[index as usize];
            node.channels -= 1;
            node.public_channels -= u32::from(channel.public_at.is_some());
            if node.channels == 0 {
                gone.push(node.clone());
                self.node_positions.remove(&node.id);
                self.free.push(index);
            }
        }
        Some(Removed { channel, position, nodes: gone })
    }

    fn intern(&mut self, id: NodeId) -> u32 {
        let next = self.free.last().copied().unwrap_or(self.nodes.len() as u32);
        let position = *self.node_positions.entry(id).or_insert(next);
        if position == next {
            let node = Node {
                id,
                key: None,
                channels: 0,
                public_channels: 0,
                announcement: None,
                timestamp: 0,
                routable: true,
            };
            match self.free.pop() {
                Some(free) => self.nodes[free as usize] = node,
                None => self.nodes.push(node),
            }
        }
        self.nodes[position as usize].channels += 1;
        position
    }
}
