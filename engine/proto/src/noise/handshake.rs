//! The three acts of the handshake, for both roles (BOLT 8 "Handshake Exchange").
//!
//! Owns: the handshake's hash and chaining key, the acts' bytes, and every way in which an act can be refused. Does not
//! read or write a socket: the caller gives whole acts, whose lengths are part of their types.
//!
//! Invariant: every operation on a secret scalar is libsecp256k1's. An act is answered only after its tag was checked.

use core::fmt;

use secp256k1::{PublicKey, SecretKey, ecdh};
use sha2::{Digest, Sha256};

use super::cipher::{Key, TAG_BYTES, WrongTag};
use super::transport::Transport;
use crate::keys::secp;

/// The bytes of act one: a version, an ephemeral key and a tag.
pub const ACT_ONE_BYTES: usize = 1 + 33 + TAG_BYTES;
/// The bytes of act two: as act one.
pub const ACT_TWO_BYTES: usize = ACT_ONE_BYTES;
/// The bytes of act three: a version, an encrypted key with its tag, and a tag.
pub const ACT_THREE_BYTES: usize = 1 + 33 + TAG_BYTES + TAG_BYTES;

const PROTOCOL_NAME: &[u8] = b"Noise_XK_secp256k1_ChaChaPoly_SHA256";
const PROLOGUE: &[u8] = b"lightning";
/// The one version of the handshake.
const VERSION: u8 = 0;

/// An act of the handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Act {
    /// From initiator to responder.
    One,
    /// From responder to initiator.
    Two,
    /// From initiator to responder.
    Three,
}

/// Why an act is refused. The connection is to be closed without another byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HandshakeError {
    /// Its version is unknown.
    #[error("act {act} has version {version}, not {VERSION}")]
    Version {
        /// The act.
        act: Act,
        /// Its first byte.
        version: u8,
    },
    /// Its public key is no point of the curve.
    #[error("act {act} has a key that is no point of secp256k1: {}", Hex(key))]
    Key {
        /// The act.
        act: Act,
        /// The key's bytes.
        key: [u8; 33],
    },
    /// The tag of the static key in act three is wrong.
    #[error("act three: the tag of the initiator's static key is wrong")]
    StaticKeyTag,
    /// The tag of the act is wrong. In act one, the initiator expects a node with another key.
    #[error("the tag of act {act} is wrong")]
    Tag {
        /// The act.
        act: Act,
    },
}

/// The side that dials, after act one.
pub struct Initiator {
    state: Symmetric,
    static_key: Secret,
    ephemeral: Secret,
}

/// The side that was dialled, after act two.
pub struct Responder {
    state: Symmetric,
    ephemeral: Secret,
    /// The key of act two, which act three's static key is sealed with.
    key: Key,
}

impl Initiator {
    /// Begins a handshake with the node `responder`; returns act one.
    #[must_use]
    pub fn new(
        node_secret: &SecretKey,
        ephemeral: SecretKey,
        responder: &PublicKey,
    ) -> (Initiator, [u8; ACT_ONE_BYTES]) {
        let (static_key, ephemeral) = (Secret(*node_secret), Secret(ephemeral));
        let mut state = Symmetric::new(responder);
        let (act, _) = state.write_ephemeral(&ephemeral, responder);
        (Initiator { state, static_key, ephemeral }, act)
    }

    /// Takes act two; returns the transport and act three.
    ///
    /// # Errors
    /// When act two is refused: the connection is to be closed.
    pub fn finish(
        mut self,
        act_two: &[u8; ACT_TWO_BYTES],
    ) -> Result<(Transport, [u8; ACT_THREE_BYTES]), HandshakeError> {
        let (remote, key) = self.state.read_ephemeral(Act::Two, act_two, &self.ephemeral)?;
        let mut act = [0; ACT_THREE_BYTES];
        act[0] = VERSION;
        let (sealed, tag) = act[1..].split_at_mut(33 + TAG_BYTES);
        let (public_key, public_key_tag) = sealed.split_at_mut(33);
        public_key.copy_from_slice(&self.static_key.0.public_key(secp()).serialize());
        public_key_tag.copy_from_slice(&key.seal(1, &self.state.hash, public_key));
        self.state.mix_hash(sealed);
        let key = self.state.mix_key(&self.static_key, &remote);
        tag.copy_from_slice(&key.seal(0, &self.state.hash, &mut []));
        let (sending, receiving) = self.state.chaining_key.expand(&[]);
        Ok((Transport::new(sending, receiving, &self.state.chaining_key), act))
    }
}

impl Responder {
    /// Answers act one; returns act two.
    ///
    /// # Errors
    /// When act one is refused: the connection is to be closed.
    pub fn new(
        node_secret: &SecretKey,
        ephemeral: SecretKey,
        act_one: &[u8; ACT_ONE_BYTES],
    ) -> Result<(Responder, [u8; ACT_TWO_BYTES]), HandshakeError> {
        let (static_key, ephemeral) = (Secret(*node_secret), Secret(ephemeral));
        let mut state = Symmetric::new(&static_key.0.public_key(secp()));
        let (remote, _) = state.read_ephemeral(Act::One, act_one, &static_key)?;
        let (act, key) = state.write_ephemeral(&ephemeral, &remote);
        Ok((Responder { state, ephemeral, key }, act))
    }

    /// Takes act three; returns the transport and the initiator's node id.
    ///
    /// # Errors
    /// When act three is refused: the connection is to be closed.
    pub fn finish(
        mut self,
        act_three: &[u8; ACT_THREE_BYTES],
    ) -> Result<(Transport, PublicKey), HandshakeError> {
        let act = Act::Three;
        check_version(act, act_three[0])?;
        let (sealed, tag) = split_tag(&act_three[1..]);
        let (public_key, public_key_tag) = split_tag(sealed);
        let mut static_key = [0; 33];
        static_key.copy_from_slice(public_key);
        self.key
            .open(1, &self.state.hash, &mut static_key, public_key_tag)
            .map_err(|WrongTag| HandshakeError::StaticKeyTag)?;
        self.state.mix_hash(sealed);
        let remote = parse_key(act, &static_key)?;
        let key = self.state.mix_key(&self.ephemeral, &remote);
        key.open(0, &self.state.hash, &mut [], tag).map_err(|WrongTag| HandshakeError::Tag { act })?;
        let (receiving, sending) = self.state.chaining_key.expand(&[]);
        Ok((Transport::new(sending, receiving, &self.state.chaining_key), remote))
    }
}

impl fmt::Debug for Initiator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Initiator(..)")
    }
}

impl fmt::Debug for Responder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Responder(..)")
    }
}

impl fmt::Display for Act {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Act::One => "one",
            Act::Two => "two",
            Act::Three => "three",
        })
    }
}

/// The hash over everything exchanged, and the key that chains the agreed secrets.
struct Symmetric {
    hash: [u8; 32],
    chaining_key: Key,
}

impl Symmetric {
    /// "Handshake State Initialization".
    fn new(responder: &PublicKey) -> Symmetric {
        let name = Sha256::digest(PROTOCOL_NAME).into();
        let mut state = Symmetric { hash: name, chaining_key: Key::new(name) };
        state.mix_hash(PROLOGUE);
        state.mix_hash(&responder.serialize());
        state
    }

    fn mix_hash(&mut self, bytes: &[u8]) {
        self.hash = Sha256::new().chain_update(self.hash).chain_update(bytes).finalize().into();
    }

    /// Mixes in an agreed secret; returns a temporary key.
    fn mix_key(&mut self, secret: &Secret, public: &PublicKey) -> Key {
        let mut agreed = ecdh::SharedSecret::new(public, &secret.0);
        let key;
        (self.chaining_key, key) = self.chaining_key.expand(agreed.as_ref());
        agreed.non_secure_erase();
        key
    }

    /// Act one or two: our ephemeral key, and a tag that proves ECDH with `remote`.
    fn write_ephemeral(&mut self, ephemeral: &Secret, remote: &PublicKey) -> ([u8; ACT_ONE_BYTES], Key) {
        let mut act = [0; ACT_ONE_BYTES];
        act[0] = VERSION;
        act[1..34].copy_from_slice(&ephemeral.0.public_key(secp()).serialize());
        self.mix_hash(&act[1..34]);
        let key = self.mix_key(ephemeral, remote);
        act[34..].copy_from_slice(&key.seal(0, &self.hash, &mut []));
        self.mix_hash(&act[34..]);
        (act, key)
    }

    /// Checks act one or two, whose tag proves ECDH with `local`; returns the peer's ephemeral key.
    fn read_ephemeral(
        &mut self,
        act: Act,
        bytes: &[u8; ACT_ONE_BYTES],
        local: &Secret,
    ) -> Result<(PublicKey, Key), HandshakeError> {
        check_version(act, bytes[0])?;
        let (key, tag) = split_tag(&bytes[1..]);
        let remote = parse_key(act, key)?;
        self.mix_hash(key);
        let key = self.mix_key(local, &remote);
        key.open(0, &self.hash, &mut [], tag).map_err(|WrongTag| HandshakeError::Tag { act })?;
        self.mix_hash(tag);
        Ok((remote, key))
    }
}

/// A secret scalar, overwritten when dropped.
struct Secret(SecretKey);

impl Drop for Secret {
    fn drop(&mut self) {
        self.0.non_secure_erase();
    }
}

fn check_version(act: Act, version: u8) -> Result<(), HandshakeError> {
    if version == VERSION { Ok(()) } else { Err(HandshakeError::Version { act, version }) }
}

fn split_tag(bytes: &[u8]) -> (&[u8], &[u8; TAG_BYTES]) {
    bytes.split_last_chunk().expect("every part of an act ends in a tag")
}

fn parse_key(act: Act, bytes: &[u8]) -> Result<PublicKey, HandshakeError> {
    PublicKey::from_slice(bytes).map_err(|_| {
        let mut key = [0; 33];
        key.copy_from_slice(bytes);
        HandshakeError::Key { act, key }
    })
}

/// Bytes in hexadecimal, for messages.
struct Hex<'a>(&'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}
