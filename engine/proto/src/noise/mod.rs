//! The transport of BOLT 8: authenticated key agreement and sealed messages, without I/O.
//!
//! Owns: the three acts of the handshake for both roles ([`Initiator`], [`Responder`]), and the sealing and opening of
//! messages with key rotation ([`Sealer`], [`Opener`]). Does not hold a socket, wait or draw randomness: ephemeral keys
//! are arguments, and each must be fresh, since one that serves two handshakes exposes both.
//!
//! Each act consumes the state before it, so that no act can be repeated or skipped. After an error the connection is
//! to be closed without a further byte.
//!
//! Invariant: bytes that were not authenticated never leave this module as a message; nothing secret is printed, and
//! symmetric keys are erased when dropped.
//!
//! ```
//! use fulmen_proto::keys::{NodeSeed, secp};
//! use fulmen_proto::noise::{Initiator, Opened, Responder};
//!
//! let (alice, bob) = (NodeSeed::new([1; 32]).node_secret(), NodeSeed::new([2; 32]).node_secret());
//! let fresh = |byte| NodeSeed::new([byte; 32]).key(b"ephemeral", 0); // a node draws these at random
//! let (initiator, act_one) = Initiator::new(&alice, fresh(3), &bob.public_key(secp()));
//! let (responder, act_two) = Responder::new(&bob, fresh(4), &act_one)?;
//! let (mut to_bob, act_three) = initiator.finish(&act_two)?;
//! let (mut to_alice, peer) = responder.finish(&act_three)?;
//! assert_eq!(peer, alice.public_key(secp()));
//!
//! let mut sent = Vec::new();
//! to_bob.sealer.seal(b"ping", &mut sent)?;
//! let Opened::Message { message, .. } = to_alice.opener.open(&mut sent)? else { panic!("a whole message") };
//! assert_eq!(&sent[message], b"ping");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod cipher;
mod handshake;
#[cfg(test)]
mod tests;
mod transport;

pub use cipher::TAG_BYTES;
pub use handshake::{
    ACT_ONE_BYTES, ACT_THREE_BYTES, ACT_TWO_BYTES, Act, HandshakeError, Initiator, Responder,
};
pub use transport::{
    FRAME_BYTES_MAX, FrameError, LENGTH_BYTES, MESSAGE_BYTES_MAX, MessageTooLong, Opened, Opener, Sealer,
    Transport,
};
