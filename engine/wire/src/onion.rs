//! The onion packet as `update_add_htlc` carries it (BOLT 4, "Packet Structure").
//!
//! Owns: the layout of its 1,366 bytes: version, ephemeral key, hop payloads, HMAC. Does no cryptography: none of the
//! parts is known to be valid before the packet is peeled.

use core::fmt;
use core::ops::Range;

use crate::units::Point;

/// The size of an onion packet, in bytes.
pub const PACKET_LENGTH: usize = 1 + 33 + HOP_PAYLOADS_LENGTH + HMAC_LENGTH;
/// The size of the hop payloads of all hops together, with their lengths and HMACs, in bytes.
pub const HOP_PAYLOADS_LENGTH: usize = 1300;
/// The size of an HMAC, in bytes.
pub const HMAC_LENGTH: usize = 32;

/// The position of the ephemeral key in a packet.
const PUBLIC_KEY: Range<usize> = 1..34;
/// The position of the hop payloads in a packet.
const HOP_PAYLOADS: Range<usize> = 34..34 + HOP_PAYLOADS_LENGTH;

/// An onion packet, `update_add_htlc.onion_routing_packet`. Its parts are not checked.
#[derive(Clone, PartialEq, Eq)]
pub struct OnionPacket(Box<[u8; PACKET_LENGTH]>);

impl OnionPacket {
    /// Wraps a packet's bytes without checking them.
    #[must_use]
    pub const fn from_bytes(bytes: Box<[u8; PACKET_LENGTH]>) -> OnionPacket {
        OnionPacket(bytes)
    }

    /// Joins the parts of a packet of version 0.
    #[must_use]
    pub fn from_parts(
        public_key: &Point,
        hop_payloads: &[u8; HOP_PAYLOADS_LENGTH],
        hmac: &[u8; HMAC_LENGTH],
    ) -> OnionPacket {
        let mut bytes = Box::new([0; PACKET_LENGTH]);
        bytes[PUBLIC_KEY].copy_from_slice(&public_key.0);
        bytes[HOP_PAYLOADS].copy_from_slice(hop_payloads);
        bytes[HOP_PAYLOADS.end..].copy_from_slice(hmac);
        OnionPacket(bytes)
    }

    /// The packet's bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; PACKET_LENGTH] {
        &self.0
    }

    /// The version byte; 0 is the only version that BOLT 4 defines.
    #[must_use]
    pub const fn version(&self) -> u8 {
        self.0[0]
    }

    /// The ephemeral key for the node that receives the packet.
    #[must_use]
    pub fn public_key(&self) -> Point {
        Point(self.0[PUBLIC_KEY].try_into().expect("33 bytes"))
    }

    /// Replaces the ephemeral key.
    pub fn set_public_key(&mut self, public_key: &Point) {
        self.0[PUBLIC_KEY].copy_from_slice(&public_key.0);
    }

    /// The obfuscated hop payloads.
    #[must_use]
    pub fn hop_payloads(&self) -> &[u8; HOP_PAYLOADS_LENGTH] {
        self.0[HOP_PAYLOADS].try_into().expect("1,300 bytes")
    }

    /// The HMAC for the node that receives the packet.
    #[must_use]
    pub fn hmac(&self) -> &[u8; HMAC_LENGTH] {
        self.0[HOP_PAYLOADS.end..].try_into().expect("32 bytes")
    }
}

impl fmt::Debug for OnionPacket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OnionPacket")
            .field("version", &self.version())
            .field("public_key", &self.public_key())
            .finish_non_exhaustive()
    }
}
