//! The size of a route's payloads within the 1,300 bytes of an onion (BOLT 4, "Packet Structure" and "Payload
//! Format").
//!
//! Owns the sizes and builds no onion. Only the payee's payload holds more than amount, expiry and channel; the payer
//! states how much ([`crate::path::Query::payee_extra_bytes`]).
//!
//! Invariant: sizes never fall as amounts and expiries grow, on which the searches rely.

use fulmen_wire::units::Msat;

/// The bytes for the payloads of all hops.
pub const ONION_ROOM: u32 = 1300;

/// The HMAC of each payload.
const HMAC: u32 = 32;

/// A `short_channel_id`: type, length, eight bytes.
const SHORT_CHANNEL_ID: u32 = 10;

/// The size of a forwarding node's payload for `amount` and the expiry height `cltv_expiry`, length and HMAC
/// included.
#[inline]
#[must_use]
pub fn forward_bytes(amount: Msat, cltv_expiry: u32) -> u32 {
    let payload = figures(amount, cltv_expiry) + SHORT_CHANNEL_ID;
    1 + payload + HMAC
}

/// The size of the payee's payload, length and HMAC included, with `extra` bytes of TLVs beyond amount and expiry.
#[must_use]
pub fn payee_bytes(amount: Msat, cltv_expiry: u32, extra: u32) -> u32 {
    let payload = figures(amount, cltv_expiry).saturating_add(extra);
    let length = if payload < 0xfd { 1 } else { 3 };
    payload.saturating_add(length + HMAC)
}

/// `amt_to_forward` and `outgoing_cltv_value`: type, length, and as many bytes as the number has.
#[inline]
fn figures(amount: Msat, cltv_expiry: u32) -> u32 {
    4 + amount.0.checked_ilog2().map_or(0, |bits| bits / 8 + 1)
        + cltv_expiry.checked_ilog2().map_or(0, |bits| bits / 8 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_by_hand() {
        // Length, type and length and 5,000,000 in three bytes, the same with 800,018, type and length and scid,
        // HMAC.
        assert_eq!(forward_bytes(Msat(5_000_000), 800_018), 1 + (2 + 3) + (2 + 3) + (2 + 8) + 32);
        assert_eq!(forward_bytes(Msat(0), 0), 1 + 2 + 2 + 10 + 32);
        assert_eq!(payee_bytes(Msat(255), 256, 42), 1 + 3 + 4 + 42 + 32);
        assert_eq!(payee_bytes(Msat(256), 256, 244), 1 + 8 + 244 + 32);
        assert_eq!(payee_bytes(Msat(256), 256, 245), 3 + 8 + 245 + 32);
        assert_eq!(payee_bytes(Msat(u64::MAX), u32::MAX, u32::MAX), u32::MAX);
    }
}
