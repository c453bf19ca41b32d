//! Public keys: parsing compressed ones, and the errors of keys.
//!
//! The lanes only find square roots; libsecp256k1 decides whether the pair of coordinates is a key.

use secp256k1::PublicKey;
use thiserror::Error;

use crate::Backend;
use crate::backend::Work;

/// A public key that cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The bytes are not a compressed point of the curve.
    #[error("not a compressed point of secp256k1: {}", Hex(.0))]
    NotAPoint([u8; 33]),
    /// The key derived from the basepoint would be the point at infinity.
    #[error("the key derived from basepoint {} is the point at infinity", Hex(.0))]
    Infinity([u8; 33]),
}

/// Parses compressed keys, each on its own.
#[must_use]
pub fn parse_keys(keys: &[[u8; 33]]) -> Vec<Result<PublicKey, KeyError>> {
    parse_keys_with(Backend::selected(), keys)
}

/// As [`parse_keys`], with a backend of the caller's choice.
#[must_use]
pub fn parse_keys_with(backend: Backend, keys: &[[u8; 33]]) -> Vec<Result<PublicKey, KeyError>> {
    if let Some(leaf) = backend.leaf_for(Work::Parse, keys.len()) {
        let uncompressed = leaf.uncompress(keys);
        let pairs = keys.iter().zip(&uncompressed);
        return pairs
            .map(|(key, uncompressed)| {
                let compressed = matches!(key[0], 2 | 3);
                let parsed = compressed.then(|| PublicKey::from_slice(uncompressed).ok()).flatten();
                parsed.ok_or(KeyError::NotAPoint(*key))
            })
            .collect();
    }
    keys.iter().map(|key| PublicKey::from_slice(key).map_err(|_| KeyError::NotAPoint(*key))).collect()
}

pub(crate) struct Hex<'a>(&'a [u8]);

impl std::fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}
