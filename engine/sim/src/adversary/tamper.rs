//! Tampering: how a liar's messages differ from the engine's that makes them.
//!
//! A liar runs a real engine, so that its channels, signatures and HTLCs are valid; this is the place between that
//! engine and the victim where it lies: messages are withheld, repeated, damaged, or given the largest size that
//! their type allows. The reason of a failed HTLC is in no signature, so a stretched one still belongs to a valid
//! commitment.

use std::collections::BTreeSet;

use fulmen_wire::message::Message;

/// The way a liar's messages are changed on their way to the victim.
#[derive(Clone, Debug, Default)]
pub(super) struct Tampering {
    /// Nothing gets through.
    pub(super) silent: bool,
    /// The message types that are withheld.
    pub(super) withheld: BTreeSet<u16>,
    /// The length that the reasons of failed HTLCs are stretched to.
    pub(super) reason_bytes: u16,
    /// How many of the next messages are sent twice.
    pub(super) repeat: u8,
    /// The bit of the next message that is flipped.
    pub(super) flip: Option<u32>,
}

impl Tampering {
    /// The messages to deliver in place of `bytes`.
    pub(super) fn apply(&mut self, bytes: Vec<u8>) -> Vec<Vec<u8>> {
        let number = bytes.first_chunk().map_or(0, |number| u16::from_be_bytes(*number));
        if self.silent || self.withheld.contains(&number) {
            return Vec::new();
        }
        let mut bytes = self.stretched(bytes);
        if let Some(bit) = self.flip.take() {
            let at = bit as usize / 8 % bytes.len();
            bytes[at] ^= 1 << (bit % 8);
        }
        if self.repeat > 0 {
            self.repeat -= 1;
            return vec![bytes.clone(), bytes];
        }
        vec![bytes]
    }

    fn stretched(&self, bytes: Vec<u8>) -> Vec<u8> {
        if self.reason_bytes == 0 {
            return bytes;
        }
        match Message::decode(&bytes) {
            Ok(Message::UpdateFailHtlc(mut fail)) => {
                fail.reason.resize(usize::from(self.reason_bytes), 0x5a);
                Message::from(fail).encode()
            }
            _ => bytes,
        }
    }
}
