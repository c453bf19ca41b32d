//! Announcing the node (BOLT 7, "The `node_announcement` Message").
//!
//! Owns when one is made: by the first shard of the node, once a channel of any shard is announced; again when the
//! description changes, and when it grows old. Does not check the description; its type does.
//!
//! Invariant: `timestamp`s rise, over restarts too, since each announcement is in a record before it leaves.

use fulmen_wire::message::NodeAnnouncement;
use fulmen_wire::units::Signature;

use super::channel_update::{is_refresh_due, timestamp_after};
use super::open_turn::OpenTurn;
use crate::channel::digest;
use crate::forward::shard::Shard;
use crate::forward::state::change::Change;
use crate::forward::terms::description::NodeDescription;
use crate::forward::terms::peer::local_features;
use crate::keys::sign;

impl Shard {
    /// Replaces the node's description.
    pub(crate) fn describe_node(&mut self, description: NodeDescription) {
        self.config.description = Some(description);
        self.announcer.node_due = true;
    }

    /// Another shard has announced a channel.
    pub(crate) fn sibling_announced(&mut self) {
        self.announcer.sibling_announced = true;
        self.announcer.node_due = true;
    }

    /// Makes a new `node_announcement` if the last one does not hold any more; reports the latest once a run.
    pub(crate) fn announce_node(&mut self, turn: &mut OpenTurn) {
        if !std::mem::take(&mut self.announcer.node_due) || self.config.shard != 0 {
            return;
        }
        let has_channel = self.announcer.sibling_announced || !self.announcer.published.is_empty();
        let Some(description) = self.config.description.as_ref().filter(|_| has_channel) else { return };
        let mut wanted = self.unsigned_node_announcement(description);
        let refresh_ms = self.config.announcement_refresh_ms;
        let latest = self.state.node_announcement.as_deref();
        let holds = latest.is_some_and(|latest| {
            (wanted.signature, wanted.timestamp) = (latest.signature, latest.timestamp);
            wanted == *latest && !is_refresh_due(latest.timestamp, turn.now, refresh_ms)
        });
        if holds {
            if !std::mem::replace(&mut self.announcer.node_published, true) {
                self.report_gossip(turn, wanted);
            }
            return;
        }
        wanted.timestamp = timestamp_after(latest.map(|latest| latest.timestamp), turn.now);
        wanted.signature = sign(&digest(&wanted.signed_bytes()), &self.node_secret);
        self.counters.ecdsa_signed += 1;
        self.announcer.node_published = true;
        self.report_gossip(turn, wanted.clone());
        self.change(turn, Change::NodeAnnounced(Box::new(wanted)));
    }

    fn unsigned_node_announcement(&self, description: &NodeDescription) -> NodeAnnouncement {
        NodeAnnouncement {
            signature: Signature([0; 64]),
            features: description.features().cloned().unwrap_or_else(local_features),
            timestamp: 0,
            node_id: self.node_id,
            rgb_color: description.rgb_color(),
            alias: description.padded_alias(),
            addresses: description.addresses().clone(),
            extension: Vec::new(),
        }
    }
}
