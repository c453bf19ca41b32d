//! The secrets of one channel and the basepoints they stand for (BOLT 3, "Keys"; BOLT 2, `open_channel`).
//!
//! Owns: how a channel's secrets follow from the node's seed, and the basepoints either side announces. Does not store
//! anything: a seed and a channel's key index are enough to find all of its secrets again.
//!
//! Invariant: two labels, or two indexes, never give the same secret.

use core::fmt;

use bitcoin::hashes::{Hash, HashEngine, Hmac, HmacEngine, sha256};
use fulmen_wire::units::{Point, Signature};
use secp256k1::{PublicKey, SecretKey};

use super::{
    CommitmentNumber, InvalidPoint, PerCommitmentSecret, derive_private_key, parse_point,
    revocation_private_key, secp, sign,
};

/// The seed from which all of a node's secrets follow.
#[derive(Clone, PartialEq, Eq)]
pub struct NodeSeed([u8; 32]);

impl NodeSeed {
    /// Takes 32 unguessable bytes.
    #[must_use]
    pub const fn new(bytes: [u8; 32]) -> NodeSeed {
        NodeSeed(bytes)
    }

    /// The secret key of the node's identity (its `node_id`).
    #[must_use]
    pub fn node_secret(&self) -> SecretKey {
        self.key(b"node", 0)
    }

    /// 32 secret bytes for `label` and `index`: HMAC-SHA256 keyed with the seed.
    #[must_use]
    pub fn bytes(&self, label: &[u8], index: u64) -> [u8; 32] {
        let mut engine = HmacEngine::<sha256::Hash>::new(&self.0);
        engine.input(&index.to_be_bytes());
        engine.input(label);
        Hmac::from_engine(engine).to_byte_array()
    }

    /// A secret key for `label` and `index`.
    #[must_use]
    pub fn key(&self, label: &[u8], index: u64) -> SecretKey {
        SecretKey::from_slice(&self.bytes(label, index))
            .expect("a SHA-256 output outside the group's order has never been found")
    }
}

impl fmt::Debug for NodeSeed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NodeSeed(..)")
    }
}

/// The public keys one side announces in `open_channel` or `accept_channel`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Basepoints {
    /// `funding_pubkey`.
    pub funding: PublicKey,
    /// `revocation_basepoint`.
    pub revocation: PublicKey,
    /// `payment_basepoint`.
    pub payment: PublicKey,
    /// `delayed_payment_basepoint`.
    pub delayed_payment: PublicKey,
    /// `htlc_basepoint`.
    pub htlc: PublicKey,
}

impl Basepoints {
    /// Parses the five points of a peer's message, in the order of the fields there.
    ///
    /// # Errors
    /// If one of the five is not a point of secp256k1; the error names the first.
    pub fn parse(
        funding_pubkey: &Point,
        revocation_basepoint: &Point,
        payment_basepoint: &Point,
        delayed_payment_basepoint: &Point,
        htlc_basepoint: &Point,
    ) -> Result<Basepoints, InvalidPoint> {
        Ok(Basepoints {
            funding: parse_point("funding_pubkey", funding_pubkey)?,
            revocation: parse_point("revocation_basepoint", revocation_basepoint)?,
            payment: parse_point("payment_basepoint", payment_basepoint)?,
            delayed_payment: parse_point("delayed_payment_basepoint", delayed_payment_basepoint)?,
            htlc: parse_point("htlc_basepoint", htlc_basepoint)?,
        })
    }
}

/// The secrets of our side of one channel.
#[derive(Clone, PartialEq, Eq)]
pub struct ChannelSecrets {
    funding: SecretKey,
    revocation: SecretKey,
    payment: SecretKey,
    delayed_payment: SecretKey,
    htlc: SecretKey,
    per_commitment_seed: [u8; 32],
    basepoints: Basepoints,
}

impl ChannelSecrets {
    /// The secrets of the node's channel with key index `index`. The index is the node's own count of channels ever
    /// opened; it must never be used twice.
    #[must_use]
    pub fn derive(seed: &NodeSeed, index: u64) -> ChannelSecrets {
        ChannelSecrets::from_parts(
            seed.key(b"channel/funding", index),
            seed.key(b"channel/revocation", index),
            seed.key(b"channel/payment", index),
            seed.key(b"channel/delayed_payment", index),
            seed.key(b"channel/htlc", index),
            seed.bytes(b"channel/per_commitment", index),
        )
    }

    /// As [`ChannelSecrets::derive`] in a fifth of the time, given the result of [`ChannelSecrets::basepoints`].
    #[must_use]
    pub(crate) fn derive_known(seed: &NodeSeed, index: u64, basepoints: Basepoints) -> ChannelSecrets {
        ChannelSecrets {
            funding: seed.key(b"channel/funding", index),
            revocation: seed.key(b"channel/revocation", index),
            payment: seed.key(b"channel/payment", index),
            delayed_payment: seed.key(b"channel/delayed_payment", index),
            htlc: seed.key(b"channel/htlc", index),
            per_commitment_seed: seed.bytes(b"channel/per_commitment", index),
            basepoints,
        }
    }

    /// Takes secrets chosen elsewhere.
    #[must_use]
    pub fn from_parts(
        funding: SecretKey,
        revocation: SecretKey,
        payment: SecretKey,
        delayed_payment: SecretKey,
        htlc: SecretKey,
        per_commitment_seed: [u8; 32],
    ) -> ChannelSecrets {
        let public = |secret: &SecretKey| secret.public_key(secp());
        let basepoints = Basepoints {
            funding: public(&funding),
            revocation: public(&revocation),
            payment: public(&payment),
            delayed_payment: public(&delayed_payment),
            htlc: public(&htlc),
        };
        ChannelSecrets {
            funding,
            revocation,
            payment,
            delayed_payment,
            htlc,
            per_commitment_seed,
            basepoints,
        }
    }

    /// The basepoints that we announce to the peer.
    #[must_use]
    pub const fn basepoints(&self) -> &Basepoints {
        &self.basepoints
    }

    /// The secret of our commitment `number`.
    #[must_use]
    pub fn per_commitment_secret(&self, number: CommitmentNumber) -> PerCommitmentSecret {
        PerCommitmentSecret::generate(&self.per_commitment_seed, number)
    }

    /// The point of our commitment `number`.
    #[must_use]
    pub fn per_commitment_point(&self, number: CommitmentNumber) -> PublicKey {
        self.per_commitment_secret(number).point()
    }

    /// Signs for the funding output: a commitment, a closing transaction, an announcement; also our anchors.
    #[must_use]
    pub fn sign_funding(&self, digest: &[u8; 32]) -> Signature {
        sign(digest, &self.funding)
    }

    /// The key of the funding output and of our anchor.
    #[must_use]
    pub const fn funding_key(&self) -> &SecretKey {
        &self.funding
    }

    /// The key of `to_remote` on the peer's commitments.
    #[must_use]
    pub const fn payment_key(&self) -> &SecretKey {
        &self.payment
    }

    /// Our key in the HTLC outputs of the commitment (of either side) with this point.
    #[must_use]
    pub fn htlc_key(&self, per_commitment_point: &PublicKey) -> SecretKey {
        derive_private_key(&self.htlc, &self.basepoints.htlc, per_commitment_point)
    }

    /// Our key in the delayed outputs of our own commitment with this point.
    #[must_use]
    pub fn delayed_key(&self, per_commitment_point: &PublicKey) -> SecretKey {
        derive_private_key(&self.delayed_payment, &self.basepoints.delayed_payment, per_commitment_point)
    }

    /// The key that punishes the peer's commitment, once it has revealed its secret.
    #[must_use]
    pub fn revocation_key(&self, revealed: &PerCommitmentSecret) -> SecretKey {
        revocation_private_key(&self.revocation, &self.basepoints.revocation, revealed)
    }
}

impl fmt::Debug for ChannelSecrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChannelSecrets").field("basepoints", &self.basepoints).finish_non_exhaustive()
    }
}
