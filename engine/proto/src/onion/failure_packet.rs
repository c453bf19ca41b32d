//! Failure packets: how a failure travels back, encrypted to the origin (BOLT 4, "Returning Errors").
//!
//! Owns: sealing a failure at the erring node, wrapping it at each node on the way, opening it at the origin. Does not
//! read or write `attribution_data`; that field stands beside the packet and changes nothing here.
//!
//! Invariant: the origin does the same work wherever on the route the failure came from.

use hmac::Mac;

use super::failure::Failure;
use super::keys::{KeyKind, SharedSecret};

/// The least sum of `failure_len` and `pad_len`.
const PADDED_LENGTH_MIN: usize = 256;
/// The HMAC and the two lengths of a packet.
const OVERHEAD: usize = 32 + 2 + 2;
/// Rounds of decryption at the origin for a route of any length: the longest route a node would build.
const ROUNDS: usize = 27;

/// The secrets of a packet's hops, first hop first. The origin keeps them until the payment is resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SharedSecrets(Vec<SharedSecret>);

/// The result of reading a failed HTLC's `reason` at the origin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReturnedFailure {
    /// One of the hops wrote it and nobody changed it since.
    From {
        /// The hop's index in the route; 0 is our peer.
        hop: usize,
        /// Its message.
        failure: Failure,
    },
    /// No hop's key authenticates it: somebody on the way damaged it.
    Unreadable,
}

impl SharedSecrets {
    pub(super) const fn new(secrets: Vec<SharedSecret>) -> SharedSecrets {
        SharedSecrets(secrets)
    }

    /// Restores the secrets of a payment in flight.
    #[must_use]
    pub fn from_secrets(secrets: Vec<SharedSecret>) -> SharedSecrets {
        SharedSecrets(secrets)
    }

    /// The secrets, first hop first.
    #[must_use]
    pub fn as_slice(&self) -> &[SharedSecret] {
        &self.0
    }

    /// Reads an `update_fail_htlc.reason` that came back from this packet's first hop.
    #[must_use]
    pub fn read_failure(&self, reason: &[u8]) -> ReturnedFailure {
        // Rounds past the route's end peel with a constant, and rounds past the erring node go on: neither the time
        // taken nor the number of rounds tells how far away it is.
        let dummy = SharedSecret::from_bytes([0; 32]);
        let mut packet = reason.to_vec();
        let mut found = None;
        for hop in 0..ROUNDS.max(self.0.len()) {
            let secret = self.0.get(hop).unwrap_or(&dummy);
            wrap_failure(secret, &mut packet);
            let authentic = is_authentic(secret, &packet);
            if authentic && found.is_none() && hop < self.0.len() {
                found = Some((hop, message(&packet).map(Failure::decode)));
            }
        }
        match found {
            Some((hop, Some(failure))) => ReturnedFailure::From { hop, failure },
            // The hop is known but its lengths make no sense; there is nothing to read but that it was this hop.
            Some((hop, None)) => {
                ReturnedFailure::From { hop, failure: Failure::Other { failure_code: 0, data: Vec::new() } }
            }
            None => ReturnedFailure::Unreadable,
        }
    }
}

/// Makes the `update_fail_htlc.reason` with which this node fails an HTLC.
#[must_use]
pub fn create_failure(shared_secret: &SharedSecret, failure: &Failure) -> Vec<u8> {
    let mut message = failure.encode();
    // Only data received from elsewhere could be this long; the code in front survives.
    message.truncate(usize::from(u16::MAX));
    seal(shared_secret, &message, PADDED_LENGTH_MIN)
}

/// Adds or removes, for it is its own inverse, this hop's obfuscation of a `reason`. A node does so to the reason of
/// an HTLC it offered before it fails the HTLC it received.
pub fn wrap_failure(shared_secret: &SharedSecret, reason: &mut [u8]) {
    shared_secret.derive(KeyKind::Ammag).stream().apply(reason);
}

pub(super) fn seal(shared_secret: &SharedSecret, message: &[u8], padded_length: usize) -> Vec<u8> {
    let mut packet = unsealed(shared_secret, message, padded_length);
    wrap_failure(shared_secret, &mut packet);
    packet
}

/// The packet before obfuscation: HMAC, length, message, length, padding.
pub(super) fn unsealed(shared_secret: &SharedSecret, message: &[u8], padded_length: usize) -> Vec<u8> {
    let padding = padded_length.saturating_sub(message.len());
    let mut packet = vec![0; 32];
    packet.reserve_exact(OVERHEAD - 32 + message.len() + padding);
    packet.extend((message.len() as u16).to_be_bytes());
    packet.extend(message);
    packet.extend((padding as u16).to_be_bytes());
    packet.resize(packet.len() + padding, 0);
    let mac = shared_secret.derive(KeyKind::Um).mac().chain_update(&packet[32..]);
    packet[..32].copy_from_slice(&mac.finalize().into_bytes());
    packet
}

fn is_authentic(shared_secret: &SharedSecret, packet: &[u8]) -> bool {
    packet.split_at_checked(32).is_some_and(|(hmac, rest)| {
        shared_secret.derive(KeyKind::Um).mac().chain_update(rest).verify_slice(hmac).is_ok()
    })
}

/// The message in an authentic packet, without its padding.
fn message(packet: &[u8]) -> Option<&[u8]> {
    let (length, rest) = packet.get(32..)?.split_first_chunk()?;
    rest.get(..usize::from(u16::from_be_bytes(*length)))
}
