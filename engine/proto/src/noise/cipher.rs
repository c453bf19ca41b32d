//! ChaCha20-Poly1305 as BOLT 8 uses it, and the HKDF that its keys come from (BOLT 8 "Handshake State").
//!
//! Owns: the encoding of nonces and the one seam to the cipher's crate, which uses the processor's vectors. Does not
//! count nonces.
//!
//! Invariant: a key that is kept is erased when dropped, and never printed; tags are compared in constant time, by the
//! crate.

use hmac::{Hmac, KeyInit, Mac};
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, Tag, UnboundKey};
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
            self.cipher().seal_in_place_separate_tag(nonce_of(nonce), Aad::from(associated_data), text);
        let tag = sealed.expect("the cipher takes up to 256 GiB");
        tag.as_ref().try_into().expect("a Poly1305 tag has 16 bytes")
    }

    /// Decrypts `text` in place if its tag is right. Its bytes are lost otherwise.
    pub(super) fn open(
        &self,
        nonce: u64,
        associated_data: &[u8],
        text: &mut [u8],
        tag: &[u8; TAG_BYTES],
    ) -> Result<(), WrongTag> {
        let (nonce, associated_data) = (nonce_of(nonce), Aad::from(associated_data));
        let opened =
            self.cipher().open_in_place_separate_tag(nonce, associated_data, Tag::from(*tag), text, 0..);
        opened.map(drop).map_err(|_| WrongTag)
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

    /// The cipher under this key. It is made for each use, since the crate does not erase its copy of a key that lasts.
    fn cipher(&self) -> LessSafeKey {
        LessSafeKey::new(
            UnboundKey::new(&CHACHA20_POLY1305, &*self.0).expect("a key of the cipher has 32 bytes"),
        )
    }
}

/// 32 zero bits, then the counter, least significant byte first.
fn nonce_of(counter: u64) -> Nonce {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&counter.to_le_bytes());
    Nonce::assume_unique_for_key(nonce)
}

fn hmac(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    let mut mac: Hmac<Sha256> = Hmac::new_from_slice(key).expect("HMAC takes keys of any length");
    parts.iter().for_each(|part| mac.update(part));
    mac.finalize().into_bytes().into()
}
