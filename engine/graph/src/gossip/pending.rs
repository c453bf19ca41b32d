//! Announcements with valid signatures whose funding outputs are being looked up ([`super::FundingCheck::First`]).

use secp256k1::PublicKey;

/// An announcement that waits for the answer to its lookup.
#[derive(Debug)]
pub(super) struct PendingAnnouncement {
    pub(super) bytes: Vec<u8>,
    /// The keys of the nodes, in their order.
    pub(super) keys: [PublicKey; 2],
    pub(super) since_seconds: u64,
}
