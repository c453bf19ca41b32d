//! Lightning units, TLV streams and the messages of BOLT 1, 2 and 7.
//!
//! Owns: how everything peers say is written as bytes, and nothing of what it means. Does no I/O and no cryptography:
//! points and signatures are bytes here.
//!
//! Invariant: no input makes this crate panic or allocate more than a small multiple of its length, and whatever it
//! accepts it writes back byte for byte.

#![forbid(unsafe_code)]

pub mod addresses;
pub mod codec;
pub mod features;
mod field;
pub mod message;
#[cfg(test)]
mod sample;
pub mod tlv;
pub mod units;
