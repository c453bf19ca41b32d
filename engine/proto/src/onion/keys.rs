//! Shared secrets of an onion and the keys drawn from them (BOLT 4, "Key Generation", "Shared Secret").
//!
//! Owns: ECDH with a hop, the blinding of ephemeral keys, the derived keys and their ChaCha20 streams. Does not know
//! packets or payloads.
//!
//! Invariant: every operation on a secret scalar is libsecp256k1's; a secret is never printed.

use core::fmt;

use chacha20::ChaCha20;
use chacha20::cipher::{KeyIvInit, StreamCipher};
use hmac::{Hmac, KeyInit, Mac};
use secp256k1::{PublicKey, Scalar, SecretKey, ecdh};
use sha2::{Digest, Sha256};

/// The secret of origin and hop, from which all keys of the hop's onion layer and of its failure packets derive.
///
/// A forwarding node keeps it with the HTLC, in memory and in its record, until the HTLC is resolved.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SharedSecret([u8; 32]);

impl SharedSecret {
    /// Restores a secret that [`SharedSecret::to_bytes`] wrote to a record.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> SharedSecret {
        SharedSecret(bytes)
    }

    /// The secret itself, for the record of the HTLC it belongs to and for nothing else.
    #[must_use]
    pub const fn to_bytes(&self) -> [u8; 32] {
        self.0
    }

    /// The tag that the replay memory keeps of an onion: equal for two onions only if they carry the same ephemeral key
    /// to this node, and useless for deriving the secret.
    #[must_use]
    pub fn replay_tag(&self) -> ReplayTag {
        let hash = Sha256::new().chain_update(b"onion replay").chain_update(self.0).finalize();
        let mut tag = [0; 16];
        tag.copy_from_slice(&hash[..16]);
        ReplayTag(tag)
    }

    /// ECDH as libsecp256k1 defines it: SHA-256 of the compressed product.
    pub(super) fn new(public_key: &PublicKey, secret_key: &SecretKey) -> SharedSecret {
        SharedSecret(ecdh::SharedSecret::new(public_key, secret_key).secret_bytes())
    }

    /// The factor by which the ephemeral key (as its 33 bytes) is multiplied for the next hop.
    ///
    /// `None` when the hash is no scalar, which nobody will ever see: its chance is 2^-128.
    pub(super) fn blinding_factor(&self, public_key: &[u8; 33]) -> Option<Scalar> {
        let hash = Sha256::new().chain_update(public_key).chain_update(self.0).finalize();
        Scalar::from_be_bytes(hash.into()).ok()
    }

    pub(super) fn derive(&self, kind: KeyKind) -> Key {
        Key::derive(kind, &self.0)
    }
}

impl fmt::Debug for SharedSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SharedSecret(..)")
    }
}

/// A short name of an onion for the replay memory; see [`SharedSecret::replay_tag`].
///
/// Sixteen bytes: finding two onions of one tag takes 2^64 work and fails only the finder's own HTLC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReplayTag(pub [u8; 16]);

/// The purposes keys are derived for.
#[derive(Clone, Copy)]
pub(super) enum KeyKind {
    /// Obfuscates the hop payloads.
    Rho,
    /// Authenticates the packet.
    Mu,
    /// Authenticates a failure.
    Um,
    /// Obfuscates a failure.
    Ammag,
    /// Fills a new packet; drawn from the session key, not from a shared secret.
    Pad,
}

impl KeyKind {
    const fn label(self) -> &'static [u8] {
        match self {
            KeyKind::Rho => b"rho",
            KeyKind::Mu => b"mu",
            KeyKind::Um => b"um",
            KeyKind::Ammag => b"ammag",
            KeyKind::Pad => b"pad",
        }
    }
}

/// A key for one purpose.
pub(super) struct Key([u8; 32]);

impl Key {
    /// HMAC-SHA-256 keyed with the purpose's name over `secret`.
    pub(super) fn derive(kind: KeyKind, secret: &[u8; 32]) -> Key {
        Key(keyed(kind.label()).chain_update(secret).finalize().into_bytes().into())
    }

    /// The stream under this key and the zero nonce, from its beginning; a key serves one stream only.
    pub(super) fn stream(&self) -> Stream {
        Stream(ChaCha20::new(&self.0.into(), &[0; 12].into()))
    }

    /// An HMAC-SHA-256 under this key, to be fed.
    pub(super) fn mac(&self) -> Hmac<Sha256> {
        keyed(&self.0)
    }

    #[cfg(test)]
    pub(super) const fn bytes(&self) -> [u8; 32] {
        self.0
    }
}

/// A pseudo-random byte stream, consumed as it is applied.
pub(super) struct Stream(ChaCha20);

impl Stream {
    /// Xors the next `bytes.len()` bytes of the stream into `bytes`.
    pub(super) fn apply(&mut self, bytes: &mut [u8]) {
        self.0.apply_keystream(bytes);
    }
}

fn keyed(key: &[u8]) -> Hmac<Sha256> {
    Hmac::new_from_slice(key).expect("HMAC takes keys of any length")
}
