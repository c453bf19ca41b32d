//! Checkpoints: the whole durable state of a shard as bytes, in chunks.
//!
//! Owns how items are put into chunks. Does not store them, nor say when to take one; `restore` reads them.
//!
//! Each chunk is two bytes of header and whole items, so that neither side ever holds more than a chunk besides the
//! state itself. Only items too long for one chunk span several. The first item names the shard, the last says how many
//! there were. Closed circuits, expired onions and payments, and forgotten channels leave no item. A channel closed by
//! agreement stays until the chain is watched for good measure, which is not this crate's.
//!
//! Invariant: folding the chunks and the records written after them gives the same state as folding all records.

use fulmen_wire::units::{ChannelId, NodeId};

use super::announcing::ChannelAnnouncements;
use super::channels::ChannelEntry;
use super::item::CheckpointItem;
use super::shard_state::State;
use crate::channel::Side;
use crate::durable::{Durable, Encoder};
use crate::forward::terms::circuit::{CircuitStage, Origin};
use crate::forward::terms::ids::{IncomingHtlc, OutgoingHtlc};

/// The version of chunks, their first byte.
pub(crate) const CHUNK_VERSION: u8 = 2;
/// The second byte of a chunk whose items end with it.
pub(crate) const CHUNK_ENDS: u8 = 0;
/// The second byte of a chunk whose items go on in the next one.
pub(crate) const CHUNK_CONTINUES: u8 = 1;

/// How many bytes chunks have.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ChunkSize {
    /// A chunk is closed behind the item that takes it to this many bytes.
    pub(crate) aim: usize,
    /// Items that take a chunk beyond this many bytes are split over several.
    pub(crate) max: usize,
}

impl ChunkSize {
    /// A channel with 966 pending HTLCs is an item of 5 MB; without, items have at most a few kB.
    pub(crate) const DEFAULT: ChunkSize = ChunkSize { aim: 64 << 10, max: 1 << 20 };
}

impl State {
    /// The state of shard `shard` of node `node_id` in chunks.
    pub(crate) fn chunks(
        &self,
        node_id: NodeId,
        shard: u16,
        size: ChunkSize,
    ) -> impl Iterator<Item = Vec<u8>> + '_ {
        let whole = self.whole_chunks(node_id, shard, size.aim);
        whole.flat_map(move |chunk| split(chunk, size.max))
    }

    /// As [`State::chunks`], without splitting an item between chunks.
    fn whole_chunks(
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
            out.raw().u8(CHUNK_ENDS);
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

    /// Whether the onion of an HTLC may be needed, and is not to be had elsewhere. That of a received one is until it
    /// is decided on, while it is intercepted, and while another shard may have to be given it again; that of an
    /// offered one unless it was offered for another shard, which repeats it.
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
            let ChannelEntry { peer, user_id, key_index, policies, begun_at, confirmed, channel, .. } = entry;
            let placed = channel.scid().is_some_and(|scid| self.scids.get(&scid) == Some(channel_id));
            let item = CheckpointItem::Channel {
                peer: *peer,
                user_id: *user_id,
                key_index: *key_index,
                policies: *policies,
                begun_at: *begun_at,
                placed,
                confirmed: *confirmed,
            };
            (item, Some((*channel_id, entry)))
        });
        let in_doubt = self.channels.iter().filter(|(_, entry)| entry.in_doubt);
        let in_doubt = in_doubt.map(|(channel_id, _)| CheckpointItem::InDoubt { channel_id: *channel_id });
        let rest =
            in_doubt.chain(self.circuits.items()).chain(self.receiver.items()).chain(self.replay.items());
        let rest = rest.chain(self.announcement_items());
        std::iter::once((head, None)).chain(channels).chain(rest.map(|item| (item, None)))
    }

    /// The announcements of channels that have any, and the node's.
    fn announcement_items(&self) -> impl Iterator<Item = CheckpointItem> + '_ {
        let of_channels = self.channels.values().filter_map(|entry| {
            let (channel_id, announcements) = (entry.channel.id(), entry.announcements.clone());
            let has_any = announcements != ChannelAnnouncements::default();
            has_any.then_some(CheckpointItem::Announcements { channel_id, announcements })
        });
        of_channels.chain(self.node_announcement.clone().map(CheckpointItem::NodeAnnouncement))
    }
}

/// Splits a chunk that is longer than `max` bytes, headers included.
fn split(chunk: Vec<u8>, max: usize) -> Vec<Vec<u8>> {
    if chunk.len() <= max {
        return vec![chunk];
    }
    let (header, body) = chunk.split_at(2);
    let pieces: Vec<&[u8]> = body.chunks(max.saturating_sub(header.len()).max(1)).collect();
    let last = pieces.len() - 1;
    let with_header = |(index, piece): (usize, &[u8])| {
        let end = if index == last { CHUNK_ENDS } else { CHUNK_CONTINUES };
        [&[CHUNK_VERSION, end], piece].concat()
    };
    pieces.into_iter().enumerate().map(with_header).collect()
}
