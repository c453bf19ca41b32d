//! Sans-IO machines of the Lightning Network: channel keys and transactions, the onion, the channel, forwarding, and
//! the transport.
//!
//! Owns: the protocol's rules. Has no threads, clock, randomness or I/O of its own: time, randomness and messages
//! are arguments; records, messages and transactions are returned.

pub mod channel;
pub mod commitment;
mod durable;
pub mod forward;
pub mod keys;
pub mod noise;
pub mod onion;
pub mod payment;

pub use durable::RecordError;
