//! Opening a store: rebuilding the index and the graph from its records, without verifying signatures again.
//!
//! Owns the reading of records. A record was true when it was written and is trusted; a record that does not fit the
//! ones before it (a message of a removed channel) is ignored.
//!
//! Invariant: an opened store equals the one that was closed: same channels, same nodes, same graph.

use std::collections::{BTreeMap, BTreeSet};

use fulmen_secp::Verifier;
use fulmen_wire::features::Features;
use fulmen_wire::message::{ChannelAnnouncement, ChannelUpdate, Message, NodeAnnouncement};
use fulmen_wire::units::{BlockHeight, NodeId, Sat, Scid};

use super::held::HeldMessages;
use super::index::Index;
use super::ingest::update_of;
use super::pending::PendingAnnouncements;
use super::policy::is_usable;
use super::store::{FILE_HEADER, Location, OpenError, Record, RecordKind, Store, location_of};
use super::{Gossip, GossipConfig, GraphChange, Log};
use crate::{Direction, Policy};

impl<L: Log> Gossip<L> {
    /// Opens a store, or creates one in an empty log. `apply` receives the whole graph as changes of an empty one:
    /// channels in ascending order of their ids, each with its policies, then the announced nodes.
    ///
    /// # Errors
    /// When the log cannot be read, or is not a store of this version and chain. A damaged store is not an error: it
    /// is truncated where the damage starts.
    pub fn open(
        config: GossipConfig,
        verifier: Verifier,
        log: L,
        mut apply: impl FnMut(GraphChange),
    ) -> Result<Gossip<L>, OpenError> {
        // A channel takes about 700 bytes of the file; one estimate saves growing step by step.
        let channels = usize::try_from(log.len()? / 700).unwrap_or(0).min(1 << 20);
        let mut loading = Loading { index: Index::with_capacity(channels), ..Loading::default() };
        let store = Store::open(log, config.chain_hash, |offset, record| loading.take(offset, record))?;
        let mut store = store;
        let dead = (store.end() - FILE_HEADER as u64).saturating_sub(loading.live_bytes());
        store.set_dead_bytes(dead);
        loading.emit_changes(&mut apply);
        Ok(Gossip {
            config,
            verifier,
            index: loading.index,
            store,
            held: HeldMessages::default(),
            pending: PendingAnnouncements::default(),
            banned: loading.banned,
            peers: BTreeMap::new(),
        })
    }
}

/// The state that the records so far amount to.
#[derive(Default)]
struct Loading {
    index: Index,
    /// For each channel, by position, the policies of its updates.
    policies: Vec<[Option<Policy>; 2]>,
    features: BTreeMap<NodeId, Features>,
    banned: BTreeSet<NodeId>,
}

impl Loading {
    fn take(&mut self, offset: u64, record: Record<'_>) {
        let scid = || record.payload.first_chunk().map(|bytes| Scid(u64::from_le_bytes(*bytes)));
        match record.kind {
            RecordKind::Message => match Message::decode(record.payload) {
                Ok(Message::ChannelAnnouncement(message)) => {
                    self.announcement(&message, location_of(offset, record.payload), record.at);
                }
                Ok(Message::ChannelUpdate(message)) => self.update(&message, offset, record.payload),
                Ok(Message::NodeAnnouncement(message)) => {
                    self.node(message, location_of(offset, record.payload));
                }
                _ => {}
            },
            RecordKind::Funded => {
                let value = record.payload.last_chunk().map(|bytes| Sat(u64::from_le_bytes(*bytes)));
                if let (Some(position), Some(value)) =
                    (scid().and_then(|scid| self.index.position(scid)), value)
                {
                    self.index.channel_at_mut(position).funding = Some(value);
                }
            }
            RecordKind::Spent | RecordKind::Unspent => {
                if let Some(position) = scid().and_then(|scid| self.index.position(scid)) {
                    let spent_at = (record.kind == RecordKind::Spent).then_some(BlockHeight(record.at));
                    self.index.channel_at_mut(position).spent_at = spent_at;
                }
            }
            RecordKind::Removed => {
                if let Some(removed) = scid().and_then(|scid| self.index.remove(scid)) {
                    self.policies.swap_remove(removed.position);
                    removed.nodes.iter().for_each(|node| drop(self.features.remove(&node.id)));
                }
            }
            RecordKind::Banned => {
                self.banned.extend(record.payload.first_chunk().map(|bytes| NodeId(*bytes)));
            }
        }
    }

    fn announcement(&mut self, message: &ChannelAnnouncement, location: Location, at: u32) {
        let nodes = [message.node_id_1, message.node_id_2];
        if self.index.channel(message.short_channel_id).is_some() || nodes[0] >= nodes[1] {
            return;
        }
        let position = self.index.add(message.short_channel_id, nodes, location, at);
        self.index.channel_at_mut(position).routable = message.features.unknown_required().is_none();
        self.policies.push([None; 2]);
    }

    fn update(&mut self, message: &ChannelUpdate, offset: u64, bytes: &[u8]) {
        let Some(position) = self.index.position(message.short_channel_id) else { return };
        let direction = message.direction();
        let channel = self.index.channel_at_mut(position);
        let location = location_of(offset, bytes);
        channel.updates[direction.origin()] = Some(update_of(message, bytes, location));
        self.policies[position][direction.origin()] = Some(Policy::of(message));
        self.index.publish(position, offset);
    }

    fn node(&mut self, message: NodeAnnouncement, location: Location) {
        let Some(position) = self.index.node_position(message.node_id) else { return };
        let node = self.index.node_at_mut(position);
        node.announcement = Some(location);
        node.timestamp = message.timestamp;
        node.routable = message.features.unknown_required().is_none();
        self.features.insert(message.node_id, message.features);
    }

    /// The bytes of live records.
    fn live_bytes(&self) -> u64 {
        let channels = self.index.channels().iter().map(|channel| {
            let updates: u64 =
                channel.updates.iter().flatten().map(|update| update.location.record_length()).sum();
            channel.announcement.record_length() + updates + 28 * u64::from(channel.funding.is_some())
        });
        let nodes = self.features.keys().filter_map(|node| self.index.node(*node)?.announcement);
        channels.sum::<u64>() + nodes.map(Location::record_length).sum::<u64>()
    }

    /// Passes the whole graph to `apply`.
    fn emit_changes(&mut self, apply: &mut impl FnMut(GraphChange)) {
        let scids = self.index.sorted().to_vec();
        for scid in scids {
            let position = self.index.position(scid).expect("the list is of known channels");
            let channel = self.index.channel_at(position);
            if !channel.routable {
                continue;
            }
            let (nodes, capacity) = (self.index.ends(channel), channel.capacity());
            apply(GraphChange::ChannelAdded { scid, nodes, capacity });
            let usable = Direction::BOTH.map(|direction| {
                let policy = self.policies[position][direction.origin()];
                let policy = policy.filter(|policy| is_usable(&self.index, channel, direction, policy));
                policy.into_iter().for_each(|policy| {
                    apply(GraphChange::PolicySet { scid, direction, policy });
                });
                policy.is_some()
            });
            self.index.channel_at_mut(position).policy_set = usable;
        }
        for (node, features) in std::mem::take(&mut self.features) {
            apply(GraphChange::NodeAnnounced { node, features });
        }
    }
}
