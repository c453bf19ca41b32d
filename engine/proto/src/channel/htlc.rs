//! HTLCs and the five stages every update passes through (BOLT 2, "Normal Operation").
//!
//! Owns: the HTLC, its removal, and the stages of both its addition and removal. Does not: move anything
//! from stage to stage; see [`updates`](super::updates). Invariant: stages only advance, one at a time.

use fulmen_wire::onion::OnionPacket;
use fulmen_wire::units::{BlockHeight, Msat, PaymentHash, PaymentPreimage, Point};

/// One of the two ends of a channel, seen from ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Side {
    /// Us.
    Local,
    /// The peer.
    Remote,
}

impl Side {
    /// The other end.
    #[must_use]
    pub const fn other(self) -> Side {
        match self {
            Side::Local => Side::Remote,
            Side::Remote => Side::Local,
        }
    }
}

/// How far an update has come, from its sender to both commitments.
///
/// "Sender" is whoever sent the `update_` message; "receiver" the other side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stage {
    /// Sent, in no commitment yet; forgotten on disconnection by the receiver.
    Proposed,
    /// In the receiver's latest commitment: the sender's `commitment_signed` covers it.
    InReceiver,
    /// The receiver revoked its commitment without it; it is now pending on the sender.
    Acknowledged,
    /// In the sender's latest commitment too: the receiver's `commitment_signed` covers it.
    InSender,
    /// The sender revoked its commitment without it: irrevocably committed.
    Irrevocable,
}

/// The position of an update among all updates of its channel, counted from 1 over both sides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UpdateOrder(pub u64);

/// An HTLC as its `update_add_htlc` describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Htlc {
    /// Its `id`, counted per direction.
    pub id: u64,
    /// Its `amount_msat`.
    pub amount: Msat,
    /// Its `payment_hash`.
    pub payment_hash: PaymentHash,
    /// Its `cltv_expiry`.
    pub cltv_expiry: BlockHeight,
    /// Its `onion_routing_packet`, opaque to the channel. `None` in an HTLC of ours that the peer has acknowledged,
    /// since it is not sent again, and in a record from which it can be derived.
    pub onion_routing_packet: Option<OnionPacket>,
    /// Its `blinded_path` TLV, passed through.
    pub path_key: Option<Point>,
}

/// How an HTLC is removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Removal {
    /// `update_fulfill_htlc`.
    Fulfill(PaymentPreimage),
    /// `update_fail_htlc` with its `reason`.
    Fail(Vec<u8>),
    /// `update_fail_malformed_htlc`.
    FailMalformed {
        /// The hash of the onion that could not be read.
        sha256_of_onion: [u8; 32],
        /// The failure code, its BADONION bit set.
        failure_code: u16,
    },
}

/// The longest failure reason of a peer that is kept. A failure of BOLT 4 takes 292 bytes, and a few hundred more with
/// a `channel_update`; a channel's state holds up to 483 reasons, and one `revoke_and_ack` may put two
/// copies of each into one record.
pub const FAILURE_REASON_BYTES_MAX: usize = 4096;

impl Removal {
    /// The removal by a peer's `update_fail_htlc`. A reason longer than [`FAILURE_REASON_BYTES_MAX`] is kept as an
    /// empty one, in whose place the origin of a forwarded HTLC gets a failure of ours.
    #[must_use]
    pub fn failed_by_peer(reason: &[u8]) -> Removal {
        Removal::Fail(if reason.len() > FAILURE_REASON_BYTES_MAX { Vec::new() } else { reason.to_vec() })
    }

    /// Whether the amount goes to the HTLC's receiver.
    #[must_use]
    pub const fn is_fulfill(&self) -> bool {
        matches!(self, Removal::Fulfill(_))
    }
}

/// A removal on its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PendingRemoval {
    /// How the HTLC ends.
    pub removal: Removal,
    /// How far the removal has come.
    pub stage: Stage,
    /// The position of the removal among the channel's updates.
    pub(super) order: UpdateOrder,
}

/// An HTLC in the channel, with the progress of its addition and removal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HtlcEntry {
    /// The HTLC.
    pub htlc: Htlc,
    /// Who offered it.
    pub offered_by: Side,
    /// How far its addition has come.
    pub added: Stage,
    /// Its removal, once proposed (by the side that received the HTLC).
    pub removal: Option<PendingRemoval>,
    /// Whether it took the dust exposure over our limit when it arrived; such an HTLC is to be failed, and its
    /// preimage not to be revealed (BOLT 2, "Bounding exposure to trimmed in-flight HTLCs").
    pub over_dust_exposure: bool,
    /// The position of the addition among the channel's updates.
    pub(super) order: UpdateOrder,
}
