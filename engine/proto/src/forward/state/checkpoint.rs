//! Checkpoints: the whole durable state of a shard as bytes, in chunks.
//!
//! Owns how items are put into chunks. Does not store them, nor say when to take one; `restore` reads them.
//!
//! Each chunk is a version byte and whole items, so that neither side ever holds more than a chunk besides the state
//! itself. The first item names the shard, the last says how many there were. What is finished leaves no item: resolved
//! circuits, expired onions and invoices, channels given up. A channel closed by agreement stays until the chain is
//! watched for good measure, which is not this crate's.
//!
//! Invariant: folding the chunks and the records written after them gives what folding all records gives.

use fulmen_wire::units::{ChannelId, NodeId};

use super::channels::ChannelEntry;
use super::item::CheckpointItem;
use super::shard_state::State;
use crate::channel::Side;
use crate::durable::{Durable, Encoder};
use crate::forward::terms::circuit::{CircuitStage, Origin};
use crate::forward::terms::ids::{IncomingHtlc, OutgoingHtlc};

/// The version of chunks, their first byte.
pub(crate) const CHUNK_VERSION: u8 = 1;
/// How large chunks are.
pub(crate) const CHUNK_BYTES: usize = 64 * 1024;

impl State {
    /// The state of shard `shard` of node `node_id` in chunks, each closed once it has at least `chunk_bytes` bytes.
    pub(crate) fn chunks(
        &self,
        node_id: NodeId,
        shard: u16,
        chunk_bytes: usize,
    ) -> impl Iterator<Item = Vec<u8>> + '_ {
        let mut items = self.items(node_id, shard);
        let mut written = 0;
        let mut ended = false;
        std::iter::from_fn(move || {
            if ended {
                return None;
            }
            let mut chunk = Vec::with_capacity(chunk_bytes + 4096);
            let mut out = Encoder::new(&mut chunk, CHUNK_VERSION);
            while out.raw().position() < chunk_bytes {
                let Some((item, channel)) = items.next() else {
                    CheckpointItem::End { items: written }.write(&mut out);
                    ended = true;
                    break;
                };
                item.write(&mut out);
                if let Some((channel_id, entry)) = channel {
                    entry.channel.write_snapshot(&mut out, &|side, htlc_id| {
                        self.keeps_onion(side, channel_id, htlc_id)
                    });
                }
                written += 1;
            }
            Some(chunk)
        })
    }

    /// Whether the onion of an HTLC may be needed, and is not to be had elsewhere. That of a received one is until it is
    /// decided on, while it waits for the embedder's word, and while another shard may have to be told of it again;
    /// that of an offered one unless it was offered for another shard, which repeats it.
    fn keeps_onion(&self, offered_by: Side, channel_id: ChannelId, htlc_id: u64) -> bool {
        match offered_by {
            Side::Local => !matches!(
                self.circuits.origin(OutgoingHtlc { channel_id, htlc_id }),
                Some(Origin::Handoff(_))
            ),
            Side::Remote => {
                let circuit = self.circuits.received(IncomingHtlc { channel_id, htlc_id });
                circuit.is_none_or(|circuit| {
                    matches!(
                        circuit.stage,
                        CircuitStage::HandedOff(_)
                            | CircuitStage::PartHandedOff
                            | CircuitStage::Intercepted(_)
                    )
                })
            }
        }
    }

    /// The items but the last, each channel's with the channel.
    fn items(
        &self,
        node_id: NodeId,
        shard: u16,
    ) -> impl Iterator<Item = (CheckpointItem, Option<(ChannelId, &ChannelEntry)>)> {
        let (height, next_key_index) = (self.height, self.next_key_index);
        let head = CheckpointItem::Shard { node_id, shard, height, next_key_index };
        let channels = self.channels.iter().map(|(channel_id, entry)| {
            let ChannelEntry { peer, user_id, key_index, policies, begun_at, channel } = entry;
            let placed = channel.scid().is_some_and(|scid| self.scids.get(&scid) == Some(channel_id));
            let item = CheckpointItem::Channel {
                peer: *peer,
                user_id: *user_id,
                key_index: *key_index,
                policies: *policies,
                begun_at: *begun_at,
                placed,
            };
            (item, Some((*channel_id, entry)))
        });
        let rest = self.circuits.items().chain(self.receiver.items()).chain(self.replay.items());
        std::iter::once((head, None)).chain(channels).chain(rest.map(|item| (item, None)))
    }
}
