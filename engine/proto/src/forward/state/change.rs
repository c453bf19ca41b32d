//! The durable form of a turn: the changes it made to a shard's state, in order.
//!
//! Owns [`Record`] and [`Change`]. Does not fold them; `shard_state` does. Bytes are `codec`'s.

use fulmen_wire::message::{ChannelUpdate, NodeAnnouncement};
use fulmen_wire::units::{BlockHeight, ChannelId, Msat, NodeId, PaymentHash, Scid};

use super::announcing::PeerForwardingPolicy;
use crate::channel::{Delta, PeerSignatures};
use crate::forward::terms::circuit::{Circuit, Origin, Resolution};
use crate::forward::terms::config::ForwardingPolicy;
use crate::forward::terms::ids::{IncomingHtlc, OutgoingHtlc};
use crate::forward::terms::input::ExpectedPayment;
use crate::forward::terms::time::Now;
use crate::onion::ReplayTag;

/// The changes of a turn, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// The changes.
    pub changes: Vec<Change>,
}

impl Record {
    /// Whether the turn changed nothing, so that nothing needs to be made durable.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }
}

/// One change of a shard's state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The chain grew or shrank to this height.
    Height(BlockHeight),
    /// A channel was begun; its first delta follows.
    ChannelBegun {
        /// Its temporary id.
        channel_id: ChannelId,
        /// The peer.
        peer: NodeId,
        /// The operator's name for it; zero when the peer opened it.
        user_id: u64,
        /// Which of the node's channel keys it uses.
        key_index: u64,
        /// Its policy.
        policy: ForwardingPolicy,
    },
    /// A channel moved on.
    Channel {
        /// The channel.
        channel_id: ChannelId,
        /// How.
        delta: Delta,
    },
    /// A channel got its permanent id.
    ChannelNamed {
        /// Its temporary id.
        temporary_channel_id: ChannelId,
        /// Its permanent id.
        channel_id: ChannelId,
    },
    /// The funding transaction of a channel that a peer opened is in the chain.
    FundingConfirmed {
        /// The channel.
        channel_id: ChannelId,
    },
    /// A channel can carry HTLCs.
    ChannelReady {
        /// The channel.
        channel_id: ChannelId,
        /// Its place in the chain.
        scid: Scid,
    },
    /// The node was started from a copy of its store: the channel's state may be old.
    StateDoubted {
        /// The channel.
        channel_id: ChannelId,
    },
    /// It is known whether a channel's state is old, or the operator insists on it.
    DoubtEnded {
        /// The channel.
        channel_id: ChannelId,
    },
    /// A channel that was never funded was forgotten.
    ChannelForgotten {
        /// The channel.
        channel_id: ChannelId,
    },
    /// A channel's policy was set.
    Policy {
        /// The channel.
        channel_id: ChannelId,
        /// Its policy.
        policy: ForwardingPolicy,
        /// Until when the policy before is good too.
        previous_until: Now,
    },
    /// The peer sent `channel_ready` with an alias for the channel.
    AliasReceived {
        /// The channel.
        channel_id: ChannelId,
        /// The alias.
        alias: Scid,
    },
    /// The peer signed the channel's announcement.
    AnnouncementSigned {
        /// The channel.
        channel_id: ChannelId,
        /// Its signatures.
        signatures: PeerSignatures,
    },
    /// We made a `channel_update`.
    ChannelUpdated {
        /// The channel.
        channel_id: ChannelId,
        /// The update.
        update: Box<ChannelUpdate>,
    },
    /// The peer sent a `channel_update` for its direction.
    PeerPolicy {
        /// The channel.
        channel_id: ChannelId,
        /// The terms in it.
        policy: PeerForwardingPolicy,
    },
    /// We made a `node_announcement`.
    NodeAnnounced(Box<NodeAnnouncement>),
    /// A payment hash became payable.
    PaymentExpected(ExpectedPayment),
    /// The expected payments that expired by this time were forgotten.
    ExpectedPaymentsPruned(Now),
    /// The onion of an HTLC that is carried on or held is remembered against replay.
    OnionSeen {
        /// The onion.
        tag: ReplayTag,
        /// The HTLC it came with.
        htlc: IncomingHtlc,
        /// Until when it is remembered.
        cltv_expiry: BlockHeight,
    },
    /// A received HTLC was decided on, or an intercepted one was carried on.
    CircuitOpened {
        /// The HTLC.
        incoming: IncomingHtlc,
        /// Its circuit.
        circuit: Circuit,
    },
    /// A received HTLC joined a set.
    PartHeld {
        /// The payment hash of the set.
        payment_hash: PaymentHash,
        /// The HTLC.
        incoming: IncomingHtlc,
        /// The total of the set.
        total: Msat,
        /// When the set is failed if it is still incomplete; of its first part.
        deadline: Now,
    },
    /// All HTLCs of a set were resolved alike.
    SetClosed {
        /// The payment hash of the set.
        payment_hash: PaymentHash,
        /// Whether they were fulfilled.
        paid: bool,
    },
    /// An HTLC was offered.
    Offered {
        /// The HTLC.
        outgoing: OutgoingHtlc,
        /// On whose behalf.
        origin: Origin,
    },
    /// An offered HTLC was fulfilled, failed or dropped.
    OfferEnded {
        /// The HTLC.
        outgoing: OutgoingHtlc,
    },
    /// The resolution of a received HTLC is decided.
    Resolved {
        /// The HTLC.
        incoming: IncomingHtlc,
        /// How.
        resolution: Resolution,
    },
    /// Another shard's HTLC is held here, as a part of a payment to us.
    HandoffAccepted {
        /// The HTLC.
        incoming: IncomingHtlc,
    },
    /// This shard decided how another shard's HTLC is to be removed.
    HandoffResolved {
        /// The HTLC.
        incoming: IncomingHtlc,
        /// How.
        resolution: Resolution,
    },
    /// The other shard has recorded the resolution of its HTLC, which is forgotten here.
    HandoffAcked {
        /// The HTLC.
        incoming: IncomingHtlc,
    },
    /// The removal of a received HTLC is irrevocable.
    CircuitClosed {
        /// The HTLC.
        incoming: IncomingHtlc,
    },
}
