//! secp256k1 over public data, in batches: signature verification, key parsing and BOLT 3 key derivation.
//!
//! All [`Backend`]s give the same answers: with AVX-512 IFMA eight jobs side by side, with AVX2 four, in 64-bit words
//! one but with shared inversions and tables; and libsecp256k1. The fastest is found by a probe at run time; no
//! compiler flag is needed.
//!
//! **Public data only.** Every backend's time depends on its input. Signing, ECDH and per-commitment secrets use
//! libsecp256k1 directly, where they are held: no type here takes a secret.
//!
//! Invariants: a job's result depends on that job alone, never on the rest of the batch; and it is libsecp256k1's,
//! bit for bit, whatever the backend and however hostile the input.
//!
//! ```
//! use fulmen_secp::{Batch, VerifyJob};
//! use secp256k1::{Message, Secp256k1, SecretKey};
//!
//! let secp = Secp256k1::new();
//! let secret = SecretKey::from_slice(&[7; 32])?;
//! let digest = [1; 32];
//! let signature = secp.sign_ecdsa(&Message::from_digest(digest), &secret).serialize_compact();
//!
//! let mut batch = Batch::new();
//! let job = VerifyJob { key: secret.public_key(&secp), digest, signature };
//! let good = batch.push(job);
//! let bad = batch.push(VerifyJob { digest: [2; 32], ..job });
//! let verdicts = batch.verify();
//! assert!(verdicts.is_valid(good) && !verdicts.is_valid(bad));
//! # Ok::<(), secp256k1::Error>(())
//! ```

#![deny(unsafe_code)]

pub use backend::{Backend, BackendError};
pub use derive::{
    DeriveJob, derive_pubkeys, derive_pubkeys_with, derive_revocation_pubkeys, derive_revocation_pubkeys_with,
};
pub use job::{CHUNK_MAX, VerifyJob};
pub use keys::{KeyError, parse_keys, parse_keys_with};
pub use multiply::{MultiplyJob, multiply_points, multiply_points_with};
pub use verifier::Verifier;
pub use verify::{Batch, Verdicts, verify_all};

mod backend;
mod derive;
mod fallback;
mod inverse;
mod job;
mod keys;
mod multiply;
#[cfg(test)]
mod oracle;
mod probe;
mod scalar;
mod simd;
#[cfg(test)]
mod tests;
mod verifier;
mod verify;
