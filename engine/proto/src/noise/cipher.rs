//! ChaCha20-Poly1305 as BOLT 8 uses it, and the HKDF that its keys come from (BOLT 8 "Handshake State").
//!
//! Owns: the encoding of nonces and the one seam to the cipher's crate, which uses the processor's vectors. Does not
//! count nonces.
//!
//! Invariant: a key is erased when dropped and never printed; tags are compared in constant time, by the crate, before
//! anything is decrypted.

use chacha20poly1305::{AeadInOut, ChaCha20Poly1305, KeyInit};
use hmac::{Hmac, Mac};
use sha2::Sha256;
use zeroize::Zeroizing;

/// The bytes of a Poly1305 tag.
pub const TAG_BYTES: usize = 16;

/// A tag does not belong to the bytes before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct WrongTag;

/// 32 secret bytes: a key of the cipher, or a chaining key.
pub(super) struct Key(Zeroizing<[u8; 32]>);

impl Key {
    pub(super) fn new(bytes: [u8; 32]) -> Key {
        Key(Zeroizing::new(bytes))
    }

    /// Encrypts `text` in place and returns its tag.
    pub(super) fn seal(&self, nonce: u64, associated_data: &[u8], text: &mut [u8]) -> [u8; TAG_BYTES] {
        let sealed =
            self.cipher().encrypt_inout_detached(&nonce_bytes(nonce).into(), associated_data, text.into());
        sealed.expect("the cipher takes up to 256 GiB").into()
    }

    /// Checks the tag of `text`, then decrypts it in place. `text` is unchanged if the tag is wrong.
    pub(super) fn open(
        &self,
        nonce: u64,
        associated_data: &[u8],
        text: &mut [u8],
        tag: &[u8; TAG_BYTES],
    ) -> Result<(), WrongTag> {
        let nonce = nonce_bytes(nonce).into();
        self.cipher()
            .decrypt_inout_detached(&nonce, associated_data, text.into(), tag.into())
            .map_err(|_| WrongTag)
    }

    /// `HKDF(self, secret)`: two new keys.
    pub(super) fn expand(&self, secret: &[u8]) -> (Key, Key) {
        let extracted = Zeroizing::new(hmac(&*self.0, &[secret]));
        let first = hmac(&*extracted, &[&[1]]);
        let second = hmac(&*extracted, &[&first, &[2]]);
        (Key::new(first), Key::new(second))
    }

    pub(super) fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    fn cipher(&self) -> ChaCha20Poly1305 {
        ChaCha20Poly1305::new((&*self.0).into())
    }
}

/// 32 zero bits, then the counter, least significant byte first.
fn nonce_bytes(counter: u64) -> [u8; 12] {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&counter.to_le_bytes());
    nonce
}

fn hmac(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    let mut mac =
        <Hmac<Sha256> as hmac::KeyInit>::new_from_slice(key).expect("HMAC takes keys of any length");
    parts.iter().for_each(|part| mac.update(part));
    mac.finalize().into_bytes().into()
}
