//! Checkpoints: the whole durable state of a shard as bytes, in chunks.
//!
//! Owns: [`Shard::checkpoint`] and what its chunks hold. Does not store them, nor say when to take one; `restore` reads
//! them.
//!
//! Each chunk is a version byte and whole items, so that neither side ever holds more than a chunk besides the state
//! itself. The first item names the shard, the last says how many there were. What is finished leaves no item: resolved
//! circuits, expired onions and invoices, channels given up. A channel closed by agreement stays until the chain is
//! watched for good measure, which is not this crate's.
//!
//! Invariant: folding the chunks and the records written after them gives what folding all records gives.

use fulmen_wire::units::{BlockHeight, ChannelId, Msat, NodeId, PaymentHash};

use super::circuit::{Circuit, CircuitStage, Origin};
use super::handoff::{IncomingHtlc, OutgoingHtlc, Resolution};
use super::input::{ExpectedPayment, Now};
use super::record::{ChannelEntry, Policies};
use super::shard::Shard;
use crate::channel::Side;
use crate::durable::{Durable, Encoder, durable_enum};
use crate::onion::ReplayTag;

/// The version of chunks, their first byte.
pub(super) const CHUNK_VERSION: u8 = 1;
/// How large chunks are.
const CHUNK_BYTES: usize = 64 * 1024;

/// One item of a chunk. A channel's goes on behind it: with the channel itself.
#[derive(Clone, Debug)]
pub(super) enum CheckpointItem {
    Shard {
        node_id: NodeId,
        shard: u16,
        height: BlockHeight,
        next_key_index: u64,
    },
    Channel {
        peer: NodeId,
        user_id: u64,
        key_index: u64,
        policies: Policies,
        begun_at: BlockHeight,
        placed: bool,
    },
    Circuit {
        incoming: IncomingHtlc,
        circuit: Circuit,
    },
    Offered {
        outgoing: OutgoingHtlc,
        origin: Origin,
    },
    Handoff {
        incoming: IncomingHtlc,
        resolution: Option<Resolution>,
    },
    ExpectedPayment {
        payment: ExpectedPayment,
        paid: bool,
    },
    Set {
        payment_hash: PaymentHash,
        total: Msat,
        deadline: Now,
    },
    Part {
        payment_hash: PaymentHash,
        incoming: IncomingHtlc,
    },
    Onion {
        tag: ReplayTag,
        htlc: IncomingHtlc,
        cltv_expiry: BlockHeight,
    },
    End {
        items: u64,
    },
}

durable_enum!(CheckpointItem, "item of a checkpoint" {
    0 => Shard { node_id, shard, height, next_key_index },
    1 => Channel { peer, user_id, key_index, policies, begun_at, placed },
    2 => Circuit { incoming, circuit },
    3 => Offered { outgoing, origin },
    4 => Handoff { incoming, resolution },
    5 => ExpectedPayment { payment, paid },
    6 => Set { payment_hash, total, deadline },
    7 => Part { payment_hash, incoming },
    8 => Onion { tag, htlc, cltv_expiry },
    9 => End { items },
});

impl Shard {
    /// The whole durable state, in chunks of some 64 KiB that are made as they are asked for. They are to be stored in
    /// this order; [`Restoring`](super::Restoring) reads them.
    pub fn checkpoint(&self) -> impl Iterator<Item = Vec<u8>> + '_ {
        self.chunks(CHUNK_BYTES)
    }

    /// The same, each chunk closed when it has at least so many bytes.
    pub(super) fn chunks(&self, chunk_bytes: usize) -> impl Iterator<Item = Vec<u8>> + '_ {
        let mut items = self.items();
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
                self.state.circuits.origin(OutgoingHtlc { channel_id, htlc_id }),
                Some(Origin::Handoff(_))
            ),
            Side::Remote => {
                let circuit = self.state.circuits.received(IncomingHtlc { channel_id, htlc_id });
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
    fn items(&self) -> impl Iterator<Item = (CheckpointItem, Option<(ChannelId, &ChannelEntry)>)> {
        let state = &self.state;
        let head = CheckpointItem::Shard {
            node_id: self.node_id,
            shard: self.config.shard,
            height: state.height,
            next_key_index: state.next_key_index,
        };
        let channels = state.channels.iter().map(|(channel_id, entry)| {
            let ChannelEntry { peer, user_id, key_index, policies, begun_at, channel } = entry;
            let placed = channel.scid().is_some_and(|scid| state.scids.get(&scid) == Some(channel_id));
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
        let rest = state.circuits.items().chain(state.receiver.items()).chain(state.replay.items());
        std::iter::once((head, None)).chain(channels).chain(rest.map(|item| (item, None)))
    }
}
