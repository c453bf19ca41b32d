//! The signatures that announce a channel (BOLT 7, "The `announcement_signatures` Message").
//!
//! Owns: the `channel_announcement` of a channel, our half of its signatures, and the checks of the peer's half. Does
//! not: decide when to send them, keep the peer's half, or hold the node's key; the forwarder does.
//!
//! Invariant: an announcement handed out carries four signatures that were made or checked for the place that the
//! funding output has now.

use bitcoin::hashes::{Hash, sha256d};
use fulmen_wire::features::Features;
use fulmen_wire::message::{AnnouncementSignatures, ChannelAnnouncement};
use fulmen_wire::tlv::UnknownTlvs;
use fulmen_wire::units::{BlockHeight, NodeId, Point, Scid, Signature};
use secp256k1::{PublicKey, SecretKey};

use super::Channel;
use super::error::ChannelError;
use super::state::State;
use crate::keys::{sign, to_point, verify};

/// The confirmations that a funding output needs before its channel is announced (BOLT 7).
pub const ANNOUNCEMENT_DEPTH: u32 = 6;

/// The two nodes of a channel, with the key of ours.
#[derive(Clone, Copy, Debug)]
pub struct AnnouncingNodes<'a> {
    /// Our node's secret key.
    pub secret: &'a SecretKey,
    /// Our node.
    pub local: NodeId,
    /// The channel's peer.
    pub remote: NodeId,
}

/// The peer's half of the signatures of a `channel_announcement`, checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerSignatures {
    /// The place of the funding output that they announce.
    pub short_channel_id: Scid,
    /// By the peer's node key.
    pub node_signature: Signature,
    /// By the peer's funding key.
    pub bitcoin_signature: Signature,
}

impl Channel {
    /// Whether BOLT 7 lets the channel be announced at this height of the chain: its opener asked for it, both sides
    /// are ready, neither shuts down, and the funding output has [`ANNOUNCEMENT_DEPTH`] confirmations.
    #[must_use]
    pub fn may_be_announced(&self, height: BlockHeight) -> bool {
        let is_deep = |scid: Scid| height.0 >= scid.block().saturating_add(ANNOUNCEMENT_DEPTH - 1);
        self.is_announced() && self.state() == State::Normal && self.scid().is_some_and(is_deep)
    }

    /// Our `announcement_signatures`; `None` while the funding output has no known place.
    #[must_use]
    pub fn announcement_signatures(&self, nodes: AnnouncingNodes<'_>) -> Option<AnnouncementSignatures> {
        let announcement = self.unsigned_announcement(nodes)?;
        let digest = digest(&announcement.signed_bytes());
        Some(AnnouncementSignatures {
            channel_id: self.id(),
            short_channel_id: announcement.short_channel_id,
            node_signature: sign(&digest, nodes.secret),
            bitcoin_signature: self.secrets()?.sign_funding(&digest),
            unknown: UnknownTlvs::default(),
        })
    }

    /// Checks the peer's `announcement_signatures`. `None` while the funding output has no known place, so that they
    /// cannot be checked yet.
    ///
    /// # Errors
    /// If they are for another place than the funding output has, or one of them is not valid.
    pub fn check_announcement_signatures(
        &self,
        message: &AnnouncementSignatures,
        nodes: AnnouncingNodes<'_>,
    ) -> Result<Option<PeerSignatures>, ChannelError> {
        let (Some(announcement), Some((_, funding))) =
            (self.unsigned_announcement(nodes), self.funding_pubkeys())
        else {
            return Ok(None);
        };
        let (expected, found) = (announcement.short_channel_id, message.short_channel_id);
        if found != expected {
            return Err(ChannelError::AnnouncementScid { expected, found });
        }
        let digest = digest(&announcement.signed_bytes());
        let signed_by_node = PublicKey::from_slice(&nodes.remote.0)
            .is_ok_and(|key| verify(&digest, &message.node_signature, &key));
        if !signed_by_node {
            return Err(ChannelError::BadAnnouncementSignature { signature: "node_signature" });
        }
        if !verify(&digest, &message.bitcoin_signature, &funding) {
            return Err(ChannelError::BadAnnouncementSignature { signature: "bitcoin_signature" });
        }
        let AnnouncementSignatures { short_channel_id, node_signature, bitcoin_signature, .. } = *message;
        Ok(Some(PeerSignatures { short_channel_id, node_signature, bitcoin_signature }))
    }

    /// The channel's `channel_announcement` with our signatures and the peer's; `None` unless those are for the present
    /// place of the funding output.
    #[must_use]
    pub fn channel_announcement(
        &self,
        theirs: &PeerSignatures,
        nodes: AnnouncingNodes<'_>,
    ) -> Option<ChannelAnnouncement> {
        let announcement = self.unsigned_announcement(nodes)?;
        if announcement.short_channel_id != theirs.short_channel_id {
            return None;
        }
        let ours = self.announcement_signatures(nodes)?;
        let ours = (ours.node_signature, ours.bitcoin_signature);
        let theirs = (theirs.node_signature, theirs.bitcoin_signature);
        let (one, two) = if nodes.local < nodes.remote { (ours, theirs) } else { (theirs, ours) };
        Some(ChannelAnnouncement {
            node_signature_1: one.0,
            node_signature_2: two.0,
            bitcoin_signature_1: one.1,
            bitcoin_signature_2: two.1,
            ..announcement
        })
    }

    /// The announcement with its signatures blank. No feature that BOLT 9 presents in it is negotiated here.
    fn unsigned_announcement(&self, nodes: AnnouncingNodes<'_>) -> Option<ChannelAnnouncement> {
        const BLANK: Signature = Signature([0; 64]);
        let funded = self.funded()?;
        let (ours, theirs) = self.funding_pubkeys()?;
        let ours: (NodeId, Point) = (nodes.local, to_point(&ours));
        let theirs = (nodes.remote, to_point(&theirs));
        let (one, two) = if nodes.local < nodes.remote { (ours, theirs) } else { (theirs, ours) };
        Some(ChannelAnnouncement {
            node_signature_1: BLANK,
            node_signature_2: BLANK,
            bitcoin_signature_1: BLANK,
            bitcoin_signature_2: BLANK,
            features: Features::default(),
            chain_hash: funded.params.agreed.config.chain_hash,
            short_channel_id: funded.scid?,
            node_id_1: one.0,
            node_id_2: two.0,
            bitcoin_key_1: one.1,
            bitcoin_key_2: two.1,
            extension: Default::default(),
        })
    }
}

/// The digest that the signatures of an announcement sign (BOLT 7): double SHA-256.
pub(crate) fn digest(signed_bytes: &[u8]) -> [u8; 32] {
    sha256d::Hash::hash(signed_bytes).to_byte_array()
}
