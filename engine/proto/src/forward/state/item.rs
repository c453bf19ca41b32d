//! The items of a checkpoint.
//!
//! Owns [`CheckpointItem`] and its byte form; `FORMAT.md` says it in words. `checkpoint` puts items into chunks.

use fulmen_wire::message::NodeAnnouncement;
use fulmen_wire::units::{BlockHeight, ChannelId, Msat, NodeId, PaymentHash};

use super::announcing::ChannelAnnouncements;
use super::channels::Policies;
use crate::durable::durable_enum;
use crate::forward::terms::circuit::{Circuit, Origin, Resolution};
use crate::forward::terms::ids::{IncomingHtlc, OutgoingHtlc};
use crate::forward::terms::input::ExpectedPayment;
use crate::forward::terms::time::Now;
use crate::onion::ReplayTag;

/// One item of a chunk. A channel's goes on behind it: with the channel itself.
#[derive(Clone, Debug)]
pub(crate) enum CheckpointItem {
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
        confirmed: bool,
    },
    InDoubt {
        channel_id: ChannelId,
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
    Announcements {
        channel_id: ChannelId,
        announcements: ChannelAnnouncements,
    },
    NodeAnnouncement(Box<NodeAnnouncement>),
}

durable_enum!(CheckpointItem, "item of a checkpoint" {
    0 => Shard { node_id, shard, height, next_key_index },
    1 => Channel { peer, user_id, key_index, policies, begun_at, placed, confirmed },
    2 => Circuit { incoming, circuit },
    3 => Offered { outgoing, origin },
    4 => Handoff { incoming, resolution },
    5 => ExpectedPayment { payment, paid },
    6 => Set { payment_hash, total, deadline },
    7 => Part { payment_hash, incoming },
    8 => Onion { tag, htlc, cltv_expiry },
    9 => End { items },
    10 => InDoubt { channel_id },
    11 => Announcements { channel_id, announcements },
    12 => NodeAnnouncement(announcement),
});
