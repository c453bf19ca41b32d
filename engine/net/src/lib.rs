//! Connections to peers.
//!
//! Owns the address at which a node is dialled ([`PeerAddress`]) and the bounds of a connection ([`ConnectionLimits`]).
//! The event loops, BOLT 8 transport and reconnection that use both are not here yet. No other crate of the workspace
//! opens a socket to a peer.
//!
//! Invariant: a parsed address can be dialled: its key is a compressed public key by form, its host is not empty, its
//! port is not zero.

#![forbid(unsafe_code)]

mod address;
mod limits;

pub use address::{AddressError, Host, PeerAddress};
pub use limits::{ConnectionLimits, LimitsError};
