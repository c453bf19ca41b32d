//! The onion packet and its construction by the origin (BOLT 4, "Packet Structure", "Packet Construction", "Filler
//! Generation").
//!
//! Owns: the accounting of hop sizes, and building a packet from opaque payloads. Does not parse payloads; the layout
//! of a packet is [`fulmen_wire::onion`].
//!
//! Invariant: a packet is built only if every payload fits whole; the same session key, hops and associated data give
//! the same bytes. A session key must never be used twice.

use fulmen_wire::onion::{HMAC_LENGTH, HOP_PAYLOADS_LENGTH, OnionPacket};
use fulmen_wire::units::NodeId;
use hmac::Mac;
use secp256k1::{PublicKey, SecretKey};

use super::failure_packet::SharedSecrets;
use super::keys::{Key, KeyKind, SharedSecret};
use crate::keys::{secp, to_point};

/// The shortest payload: lengths 0 (the legacy format) and 1 are reserved.
pub const PAYLOAD_LENGTH_MIN: usize = 2;

/// One hop of a packet to be built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OnionHop {
    /// The node that will peel this layer.
    pub node_id: NodeId,
    /// Its TLV payload, without the length in front.
    pub payload: Vec<u8>,
}

/// Why a packet cannot be built.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OnionBuildError {
    /// A route needs a hop.
    #[error("a route without hops")]
    NoHops,
    /// The payloads, with their lengths and HMACs, take more than [`HOP_PAYLOADS_LENGTH`].
    #[error("payloads of {size} bytes do not fit into an onion's 1300")]
    TooLarge {
        /// [`payload_size`] of the hops.
        size: usize,
    },
    /// Payloads of less than [`PAYLOAD_LENGTH_MIN`] bytes are reserved.
    #[error("the payload of hop {hop} has {length} bytes, less than 2")]
    PayloadTooShort {
        /// The hop's index.
        hop: usize,
        /// Its payload's length.
        length: usize,
    },
    /// A hop's id is no point of the curve.
    #[error("the node id of hop {hop}, {node_id}, is not a point")]
    InvalidNodeId {
        /// The hop's index.
        hop: usize,
        /// Its node's id.
        node_id: NodeId,
    },
    /// The session key meets a hash that is no scalar; take another one. The chance is 2^-128.
    #[error("the session key cannot be blinded")]
    UnusableSessionKey,
}

/// The bytes of [`HOP_PAYLOADS_LENGTH`] that a hop with a payload of `payload_length` bytes takes.
#[must_use]
pub const fn hop_size(payload_length: usize) -> usize {
    length_prefix(payload_length).saturating_add(payload_length).saturating_add(HMAC_LENGTH)
}

/// The bytes that these hops take; a packet can be built if they are at most [`HOP_PAYLOADS_LENGTH`].
#[must_use]
pub fn payload_size(hops: &[OnionHop]) -> usize {
    hops.iter().fold(0, |size, hop| size.saturating_add(hop_size(hop.payload.len())))
}

/// Builds the packet to give to the first of `hops`, and the secrets needed to read a failure that comes back.
///
/// `associated_data` is the payment hash, which each hop must present to peel. `session_key` must be fresh and random.
///
/// # Errors
/// When the hops do not fit or are not valid; see [`OnionBuildError`].
pub fn build(
    session_key: &SecretKey,
    hops: &[OnionHop],
    associated_data: &[u8],
) -> Result<(OnionPacket, SharedSecrets), OnionBuildError> {
    check_sizes(hops)?;
    let secrets = shared_secrets(session_key, hops)?;
    let filler = filler(hops, &secrets);

    let mut hop_payloads = [0; HOP_PAYLOADS_LENGTH];
    Key::derive(KeyKind::Pad, &session_key.secret_bytes()).stream().apply(&mut hop_payloads);
    let mut hmac = [0; HMAC_LENGTH];
    for (index, (hop, secret)) in hops.iter().zip(&secrets).enumerate().rev() {
        let size = hop_size(hop.payload.len());
        hop_payloads.copy_within(..HOP_PAYLOADS_LENGTH - size, size);
        write_hop(&mut hop_payloads[..size], &hop.payload, &hmac);
        secret.derive(KeyKind::Rho).stream().apply(&mut hop_payloads);
        if index == hops.len() - 1 {
            hop_payloads[HOP_PAYLOADS_LENGTH - filler.len()..].copy_from_slice(&filler);
        }
        let mac = secret.derive(KeyKind::Mu).mac();
        hmac = mac.chain_update(hop_payloads).chain_update(associated_data).finalize().into_bytes().into();
    }
    let packet = OnionPacket::from_parts(&to_point(&session_key.public_key(secp())), &hop_payloads, &hmac);
    Ok((packet, SharedSecrets::new(secrets)))
}

fn check_sizes(hops: &[OnionHop]) -> Result<(), OnionBuildError> {
    if hops.is_empty() {
        return Err(OnionBuildError::NoHops);
    }
    for (hop, length) in hops.iter().map(|hop| hop.payload.len()).enumerate() {
        if length < PAYLOAD_LENGTH_MIN {
            return Err(OnionBuildError::PayloadTooShort { hop, length });
        }
    }
    match payload_size(hops) {
        size if size > HOP_PAYLOADS_LENGTH => Err(OnionBuildError::TooLarge { size }),
        _ => Ok(()),
    }
}

/// ECDH with each hop, blinding the ephemeral key in between.
fn shared_secrets(session_key: &SecretKey, hops: &[OnionHop]) -> Result<Vec<SharedSecret>, OnionBuildError> {
    let mut secrets = Vec::with_capacity(hops.len());
    let mut ephemeral = *session_key;
    for (index, hop) in hops.iter().enumerate() {
        let node_key = PublicKey::from_slice(&hop.node_id.0)
            .map_err(|_| OnionBuildError::InvalidNodeId { hop: index, node_id: hop.node_id })?;
        let secret = SharedSecret::new(&node_key, &ephemeral);
        secrets.push(secret);
        if index + 1 < hops.len() {
            let factor = secret.blinding_factor(&ephemeral.public_key(secp()).serialize());
            let blinded = factor.and_then(|factor| ephemeral.mul_tweak(&factor).ok());
            ephemeral = blinded.ok_or(OnionBuildError::UnusableSessionKey)?;
        }
    }
    Ok(secrets)
}

/// The end of the packet at the last hop: the zeros that each earlier hop appended, as later hops obfuscated them.
fn filler(hops: &[OnionHop], secrets: &[SharedSecret]) -> Vec<u8> {
    let mut filler = Vec::with_capacity(HOP_PAYLOADS_LENGTH);
    let mut skipped = [0; HOP_PAYLOADS_LENGTH];
    let forwarding = hops.len().saturating_sub(1);
    for (hop, secret) in hops.iter().zip(secrets).take(forwarding) {
        // A hop xors its stream over the payloads and the zeros behind them: the filler grown so far is the payloads'
        // tail, so it begins that far before the stream's byte 1300.
        let mut stream = secret.derive(KeyKind::Rho).stream();
        stream.apply(&mut skipped[..HOP_PAYLOADS_LENGTH - filler.len()]);
        filler.resize(filler.len() + hop_size(hop.payload.len()), 0);
        stream.apply(&mut filler);
    }
    filler
}

/// Writes length, payload and the next hop's HMAC, which together fill `bytes`.
fn write_hop(bytes: &mut [u8], payload: &[u8], hmac: &[u8; HMAC_LENGTH]) {
    let prefix = length_prefix(payload.len());
    if prefix == 1 {
        bytes[0] = payload.len() as u8;
    } else {
        bytes[0] = 0xfd;
        bytes[1..3].copy_from_slice(&(payload.len() as u16).to_be_bytes());
    }
    bytes[prefix..prefix + payload.len()].copy_from_slice(payload);
    bytes[prefix + payload.len()..].copy_from_slice(hmac);
}

/// The bytes of a payload's BigSize length; no payload that fits a packet needs more than three.
const fn length_prefix(payload_length: usize) -> usize {
    if payload_length < 0xfd { 1 } else { 3 }
}
