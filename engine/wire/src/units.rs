//! The units and identifiers of the Lightning Network as distinct types.
//!
//! Owns: amounts, heights, deltas, fee rates, channel and node identifiers, and the byte forms of points and
//! signatures. Does not do cryptography: a [`Point`] or [`Signature`] here is only its bytes, which its user has to
//! parse.
//!
//! Invariant: no arithmetic on these types can wrap or mix units. Operations that may overflow return an `Option` or
//! saturate, as their names say.
//!
//! ```
//! use fulmen_wire::units::{FeeBaseMsat, FeeProportionalMillionths, Msat, Sat, Scid};
//!
//! let amount = Sat(10_000).to_msat();
//! let fee = FeeProportionalMillionths(200).forwarding_fee(FeeBaseMsat(1_000).msat(), amount);
//! assert_eq!(fee, Some(Msat(3_000)));
//! let scid = Scid::new(800_000, 12, 1).expect("block and transaction fit 24 bits");
//! assert_eq!(scid.to_string(), "800000x12x1");
//! ```

use core::fmt;
use core::iter::Sum;

/// The number of millisatoshi in all bitcoin that will ever exist; no valid amount is larger.
const MAX_MONEY_MSAT: u64 = 21_000_000 * 100_000_000 * 1000;

/// An amount in millisatoshi.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Msat(pub u64);

impl Msat {
    /// Nothing.
    pub const ZERO: Msat = Msat(0);
    /// All bitcoin there will ever be.
    pub const MAX_MONEY: Msat = Msat(MAX_MONEY_MSAT);

    /// The sum, or `None` past `u64`.
    #[must_use]
    pub const fn checked_add(self, other: Msat) -> Option<Msat> {
        match self.0.checked_add(other.0) {
            Some(sum) => Some(Msat(sum)),
            None => None,
        }
    }

    /// The difference, or `None` below zero.
    #[must_use]
    pub const fn checked_sub(self, other: Msat) -> Option<Msat> {
        match self.0.checked_sub(other.0) {
            Some(difference) => Some(Msat(difference)),
            None => None,
        }
    }

    /// The sum, held at `u64::MAX`: for limits and checks, never for balances.
    #[must_use]
    pub const fn saturating_add(self, other: Msat) -> Msat {
        Msat(self.0.saturating_add(other.0))
    }

    /// The difference, held at zero: for limits and checks, never for balances.
    #[must_use]
    pub const fn saturating_sub(self, other: Msat) -> Msat {
        Msat(self.0.saturating_sub(other.0))
    }

    /// Whole satoshi, rounded down as BOLT 3 rounds outputs.
    #[must_use]
    pub const fn floor_sat(self) -> Sat {
        Sat(self.0 / 1000)
    }
}

impl Sum for Msat {
    /// Sums amounts, held at `u64::MAX`; real money never comes near it.
    fn sum<I: Iterator<Item = Msat>>(amounts: I) -> Msat {
        amounts.fold(Msat::ZERO, Msat::saturating_add)
    }
}

impl fmt::Display for Msat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} msat", self.0)
    }
}

/// An amount in satoshi.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sat(pub u64);

impl Sat {
    /// Nothing.
    pub const ZERO: Sat = Sat(0);

    /// The sum, or `None` past `u64`.
    #[must_use]
    pub const fn checked_add(self, other: Sat) -> Option<Sat> {
        match self.0.checked_add(other.0) {
            Some(sum) => Some(Sat(sum)),
            None => None,
        }
    }

    /// The difference, or `None` below zero.
    #[must_use]
    pub const fn checked_sub(self, other: Sat) -> Option<Sat> {
        match self.0.checked_sub(other.0) {
            Some(difference) => Some(Sat(difference)),
            None => None,
        }
    }

    /// The sum, held at `u64::MAX`: for limits and checks, never for balances.
    #[must_use]
    pub const fn saturating_add(self, other: Sat) -> Sat {
        Sat(self.0.saturating_add(other.0))
    }

    /// The difference, held at zero: for limits and checks, never for balances.
    #[must_use]
    pub const fn saturating_sub(self, other: Sat) -> Sat {
        Sat(self.0.saturating_sub(other.0))
    }

    /// The same amount in millisatoshi, or `None` past `u64`.
    #[must_use]
    pub const fn checked_msat(self) -> Option<Msat> {
        match self.0.checked_mul(1000) {
            Some(msat) => Some(Msat(msat)),
            None => None,
        }
    }

    /// The same amount in millisatoshi, held at `u64::MAX`: exact for every amount of real bitcoin.
    #[must_use]
    pub const fn to_msat(self) -> Msat {
        Msat(self.0.saturating_mul(1000))
    }
}

impl Sum for Sat {
    /// Sums amounts, held at `u64::MAX`; real money never comes near it.
    fn sum<I: Iterator<Item = Sat>>(amounts: I) -> Sat {
        amounts.fold(Sat::ZERO, Sat::saturating_add)
    }
}

impl fmt::Display for Sat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} sat", self.0)
    }
}

/// A height in the block chain, or an absolute expiry (`cltv_expiry`) in the same unit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockHeight(pub u32);

impl BlockHeight {
    /// The height `delta` blocks later, held at `u32::MAX`.
    #[must_use]
    pub const fn saturating_add(self, delta: CltvDelta) -> BlockHeight {
        BlockHeight(self.0.saturating_add(delta.0 as u32))
    }

    /// The height `delta` blocks earlier, held at zero.
    #[must_use]
    pub const fn saturating_sub(self, delta: CltvDelta) -> BlockHeight {
        BlockHeight(self.0.saturating_sub(delta.0 as u32))
    }

    /// How many blocks `self` lies above `other`; zero when it does not.
    #[must_use]
    pub const fn blocks_above(self, other: BlockHeight) -> u32 {
        self.0.saturating_sub(other.0)
    }
}

impl fmt::Display for BlockHeight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "block {}", self.0)
    }
}

/// A number of blocks by which expiries fall, or by which a spend is delayed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CltvDelta(pub u16);

impl fmt::Display for CltvDelta {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} blocks", self.0)
    }
}

/// A fee rate in satoshi per 1,000 weight units, as BOLT 2 carries it (`feerate_per_kw`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FeeratePerKw(pub u32);

impl FeeratePerKw {
    /// The lowest rate Bitcoin nodes relay: 253 sat per 1,000 weight, one satoshi per virtual byte rounded up.
    pub const FLOOR: FeeratePerKw = FeeratePerKw(253);

    /// The fee of `weight` units, rounded down as BOLT 3 rounds it.
    #[must_use]
    pub const fn fee(self, weight: u64) -> Sat {
        Sat((self.0 as u64).saturating_mul(weight) / 1000)
    }
}

impl fmt::Display for FeeratePerKw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} sat/kw", self.0)
    }
}

/// The fixed part of a forwarding fee in millisatoshi, as BOLT 7 carries it (`fee_base_msat`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FeeBaseMsat(pub u32);

impl FeeBaseMsat {
    /// The fee as an amount.
    #[must_use]
    pub const fn msat(self) -> Msat {
        Msat(self.0 as u64)
    }
}

impl fmt::Display for FeeBaseMsat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} msat", self.0)
    }
}

/// The proportional part of a forwarding fee: millionths of the amount forwarded (BOLT 7).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FeeProportionalMillionths(pub u32);

impl FeeProportionalMillionths {
    /// The fee for forwarding `amount` over a channel with this proportional part and the fixed part `base` (BOLT 7,
    /// "HTLC Fees"): `base + amount * self / 1,000,000`, the division rounded down. `None` when the sum exceeds
    /// `u64::MAX` msat.
    #[must_use]
    pub const fn forwarding_fee(self, base: Msat, amount: Msat) -> Option<Msat> {
        let share = amount.0 as u128 * self.0 as u128 / 1_000_000;
        let fee = base.0 as u128 + share;
        if fee > u64::MAX as u128 { None } else { Some(Msat(fee as u64)) }
    }
}

impl fmt::Display for FeeProportionalMillionths {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ppm", self.0)
    }
}

/// A `short_channel_id`: where a channel's funding output stands in the chain (BOLT 7).
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Scid(pub u64);

impl Scid {
    /// Builds an id, or `None` when the block or transaction index needs more than 24 bits.
    #[must_use]
    pub const fn new(block: u32, transaction: u32, output: u16) -> Option<Scid> {
        if block >> 24 != 0 || transaction >> 24 != 0 {
            return None;
        }
        Some(Scid((block as u64) << 40 | (transaction as u64) << 16 | output as u64))
    }

    /// The height of the funding transaction's block.
    #[must_use]
    pub const fn block(self) -> u32 {
        (self.0 >> 40) as u32
    }

    /// The index of the funding transaction in its block.
    #[must_use]
    pub const fn transaction(self) -> u32 {
        (self.0 >> 16) as u32 & 0xff_ffff
    }

    /// The index of the funding output in its transaction.
    #[must_use]
    pub const fn output(self) -> u16 {
        self.0 as u16
    }
}

impl fmt::Display for Scid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}x{}", self.block(), self.transaction(), self.output())
    }
}

impl fmt::Debug for Scid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Declares a byte-array newtype that prints as hexadecimal.
macro_rules! bytes_type {
    ($(#[$doc:meta])* $name:ident, $length:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; $length]);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    };
}

bytes_type!(
    /// A compressed point of secp256k1, as its bytes: not known to be on the curve.
    Point, 33);
bytes_type!(
    /// A node's public key as its bytes; nodes are ordered by these (BOLT 7).
    NodeId, 33);
bytes_type!(
    /// A 64-byte compact ECDSA signature, as its bytes: not known to be valid.
    Signature, 64);
bytes_type!(
    /// A channel's id: its funding transaction's id, the last two bytes xored with the output index (BOLT 2).
    ChannelId, 32);
bytes_type!(
    /// The genesis block's hash, which names a chain, in the order it is hashed.
    ChainHash, 32);
bytes_type!(
    /// A transaction's id in the order it is hashed (the reverse of how explorers print it).
    Txid, 32);
bytes_type!(
    /// The hash that locks an HTLC: SHA-256 of its preimage.
    PaymentHash, 32);
bytes_type!(
    /// The 32 bytes that unlock an HTLC.
    PaymentPreimage, 32);
bytes_type!(
    /// The secret that ties the parts of a payment to an invoice (BOLT 4 `payment_data`).
    PaymentSecret, 32);

impl ChannelId {
    /// The id of the channel funded by output `output` of `txid` (BOLT 2, "Definition of `channel_id`").
    #[must_use]
    pub fn from_funding(txid: Txid, output: u16) -> ChannelId {
        let mut id = txid.0;
        let [high, low] = output.to_be_bytes();
        id[30] ^= high;
        id[31] ^= low;
        ChannelId(id)
    }
}

impl ChainHash {
    /// Bitcoin's main network.
    pub const BITCOIN: ChainHash =
        ChainHash(hash_from_hex(b"6fe28c0ab6f1b372c1a6a246ae63f74f931e8365e15a089c68d6190000000000"));
    /// Bitcoin's regression-test network.
    pub const REGTEST: ChainHash =
        ChainHash(hash_from_hex(b"06226e46111a0b59caaf126043eb5bbf28c34f3a5e332a1fc7b2b73cf188910f"));
}

/// Decodes 64 lower-case hexadecimal digits at compile time.
const fn hash_from_hex(hex: &[u8; 64]) -> [u8; 32] {
    const fn digit(byte: u8) -> u8 {
        match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'f' => byte - b'a' + 10,
            _ => panic!("not a lower-case hexadecimal digit"),
        }
    }
    let mut bytes = [0; 32];
    let mut i = 0;
    while i < 32 {
        bytes[i] = digit(hex[2 * i]) << 4 | digit(hex[2 * i + 1]);
        i += 1;
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scid_parts_and_limits() {
        let scid = Scid::new(539_268, 845, 1).expect("fits");
        assert_eq!(scid.to_string(), "539268x845x1");
        assert_eq!((scid.block(), scid.transaction(), scid.output()), (539_268, 845, 1));
        assert_eq!(Scid::new(1 << 24, 0, 0), None);
        assert_eq!(Scid::new(0, 1 << 24, 0), None);
        assert!(Scid::new((1 << 24) - 1, (1 << 24) - 1, u16::MAX).is_some());
    }

    #[test]
    fn channel_id_xors_the_output_index() {
        let id = ChannelId::from_funding(Txid([0xff; 32]), 0x0102);
        assert_eq!(id.0[29..], [0xff, 0xfe, 0xfd]);
    }

    #[test]
    fn forwarding_fees_round_down_and_do_not_wrap() {
        let fee =
            |rate, base, amount| FeeProportionalMillionths(rate).forwarding_fee(Msat(base), Msat(amount));
        assert_eq!(fee(2_000, 200, 4_999_999), Some(Msat(10_199)));
        assert_eq!(fee(2_000, 0, 499), Some(Msat(0)));
        assert_eq!(fee(1_000_000, 0, u64::MAX), Some(Msat(u64::MAX)));
        assert_eq!(fee(1_000_000, 1, u64::MAX), None);
        assert_eq!(fee(u32::MAX, 0, Msat::MAX_MONEY.0), None);
    }

    #[test]
    fn amounts_never_wrap() {
        assert_eq!(Msat(u64::MAX).checked_add(Msat(1)), None);
        assert_eq!(Msat(0).checked_sub(Msat(1)), None);
        assert_eq!(Sat(u64::MAX).checked_msat(), None);
        assert_eq!(Msat(1999).floor_sat(), Sat(1));
        assert_eq!(FeeratePerKw(15_000).fee(724), Sat(10_860));
        assert_eq!(Msat::MAX_MONEY.floor_sat().to_msat(), Msat::MAX_MONEY);
    }
}
