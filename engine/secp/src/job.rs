//! A signature to check, and how many of them a thread takes at once.

use secp256k1::PublicKey;

/// One signature to check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VerifyJob {
    /// The signer's key.
    pub key: PublicKey,
    /// The 32 bytes that were signed.
    pub digest: [u8; 32],
    /// The signature in compact form: r, then s, big-endian.
    pub signature: [u8; 64],
}

/// The most jobs that one thread takes at once.
pub const CHUNK_MAX: usize = 64;
