//! Lightning units, TLV streams and the messages of BOLT 1, 2 and 7.
//!
//! Owns: the encoding of every message between peers. Does not know their meaning, does no I/O and no cryptography:
//! points and signatures are bytes here.
//!
//! Invariant: no input makes a decoder panic or allocate more than a small multiple of its length, and every accepted
//! message is encoded to the same bytes again.
//!
//! ```
//! use fulmen_wire::message::{Message, Ping};
//!
//! let ping = Message::from(Ping { num_pong_bytes: 4, ignored: vec![0; 2], unknown: Default::default() });
//! let bytes = ping.encode();
//! assert_eq!(bytes, [0, 18, 0, 4, 0, 2, 0, 0]);
//! assert_eq!(Message::decode(&bytes), Ok(ping));
//! ```

#![forbid(unsafe_code)]

pub mod addresses;
pub mod codec;
pub mod features;
mod field;
pub mod message;
pub mod onion;
#[cfg(test)]
mod sample;
pub mod tlv;
pub mod units;
