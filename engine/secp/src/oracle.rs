//! Plain arithmetic that the tests hold the fast one to: 256-bit numbers, one bit at a time, nothing clever.
//!
//! Owns the reference for fields, scalars and (through affine formulas with a division each) points.

use std::cmp::Ordering;
use std::fmt;

/// A 256-bit number, little-endian words.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Big(pub(crate) [u64; 4]);

/// The field's prime.
pub(crate) const P: Big = Big([0xFFFF_FFFE_FFFF_FC2F, u64::MAX, u64::MAX, u64::MAX]);
/// The group's order.
pub(crate) const N: Big = Big([0xBFD2_5E8C_D036_4141, 0xBAAE_DCE6_AF48_A03B, u64::MAX - 1, u64::MAX]);
/// Zero.
pub(crate) const ZERO: Big = Big([0; 4]);
/// One.
pub(crate) const ONE: Big = Big([1, 0, 0, 0]);

impl fmt::Debug for Big {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().rev().try_for_each(|word| write!(f, "{word:016x}"))
    }
}

impl PartialOrd for Big {
    fn partial_cmp(&self, other: &Big) -> Option<Ordering> {
        Some(self.0.iter().rev().cmp(other.0.iter().rev()))
    }
}

impl Big {
    /// From 64 hexadecimal digits.
    pub(crate) fn hex(digits: &str) -> Big {
        let word = |k: usize| u64::from_str_radix(&digits[16 * k..16 * k + 16], 16).unwrap();
        Big([word(3), word(2), word(1), word(0)])
    }

    pub(crate) fn from_bytes(bytes: [u8; 32]) -> Big {
        Big(core::array::from_fn(|k| u64::from_be_bytes(bytes[24 - 8 * k..32 - 8 * k].try_into().unwrap())))
    }

    pub(crate) fn to_bytes(self) -> [u8; 32] {
        let mut bytes = [0; 32];
        for (k, word) in self.0.iter().enumerate() {
            bytes[24 - 8 * k..32 - 8 * k].copy_from_slice(&word.to_be_bytes());
        }
        bytes
    }

    /// Whether bit `index` is set.
    pub(crate) fn bit(self, index: usize) -> bool {
        self.0[index / 64] >> (index % 64) & 1 == 1
    }

    /// The sum and whether it passed 2^256.
    fn sum(self, other: Big) -> (Big, bool) {
        let mut carry = false;
        let words = core::array::from_fn(|k| {
            let (sum, first) = self.0[k].overflowing_add(other.0[k]);
            let (sum, second) = sum.overflowing_add(carry.into());
            carry = first || second;
            sum
        });
        (Big(words), carry)
    }

    /// The difference modulo 2^256 and whether it passed below zero.
    fn difference(self, other: Big) -> (Big, bool) {
        let mut borrow = false;
        let words = core::array::from_fn(|k| {
            let (difference, first) = self.0[k].overflowing_sub(other.0[k]);
            let (difference, second) = difference.overflowing_sub(borrow.into());
            borrow = first || second;
            difference
        });
        (Big(words), borrow)
    }

    /// The remainder by a modulus above 2^255.
    pub(crate) fn modulo(self, modulus: Big) -> Big {
        if self < modulus { self } else { self.difference(modulus).0 }
    }
}

/// a + b, both below the modulus.
pub(crate) fn add(a: Big, b: Big, modulus: Big) -> Big {
    let (sum, passed) = a.sum(b);
    if passed || sum >= modulus { sum.difference(modulus).0 } else { sum }
}

/// -a.
pub(crate) fn negate(a: Big, modulus: Big) -> Big {
    if a == ZERO { a } else { modulus.difference(a).0 }
}

/// a - b.
pub(crate) fn subtract(a: Big, b: Big, modulus: Big) -> Big {
    add(a, negate(b, modulus), modulus)
}

/// a * b, by doubling and adding.
pub(crate) fn multiply(a: Big, b: Big, modulus: Big) -> Big {
    (0..256).rev().fold(ZERO, |product, index| {
        let doubled = add(product, product, modulus);
        if b.bit(index) { add(doubled, a, modulus) } else { doubled }
    })
}

/// a^exponent, by squaring and multiplying.
pub(crate) fn power(a: Big, exponent: Big, modulus: Big) -> Big {
    (0..256).rev().fold(ONE, |power, index| {
        let squared = multiply(power, power, modulus);
        if exponent.bit(index) { multiply(squared, a, modulus) } else { squared }
    })
}

/// 1 / a, by Fermat's little theorem; of zero, zero.
pub(crate) fn invert(a: Big, modulus: Big) -> Big {
    power(a, modulus.difference(Big([2, 0, 0, 0])).0, modulus)
}

/// The generator. Points are pairs of coordinates, `None` the point at infinity.
pub(crate) fn generator() -> Option<(Big, Big)> {
    Some((
        Big::hex("79be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798"),
        Big::hex("483ada7726a3c4655da4fbfc0e1108a8fd17b448a68554199c47d08ffb10d4b8"),
    ))
}

/// a + b on the curve, with a division.
pub(crate) fn add_points(a: Option<(Big, Big)>, b: Option<(Big, Big)>) -> Option<(Big, Big)> {
    let (Some((ax, ay)), Some((bx, by))) = (a, b) else { return a.or(b) };
    let slope = if ax != bx {
        multiply(subtract(by, ay, P), invert(subtract(bx, ax, P), P), P)
    } else if ay == by && ay != ZERO {
        let square = multiply(ax, ax, P);
        multiply(add(add(square, square, P), square, P), invert(add(ay, ay, P), P), P)
    } else {
        return None;
    };
    let x = subtract(subtract(multiply(slope, slope, P), ax, P), bx, P);
    Some((x, subtract(multiply(slope, subtract(ax, x, P), P), ay, P)))
}

/// -a.
pub(crate) fn negate_point(a: Option<(Big, Big)>) -> Option<(Big, Big)> {
    a.map(|(x, y)| (x, negate(y, P)))
}

/// scalar * a, by doubling and adding.
pub(crate) fn multiply_point(scalar: Big, a: Option<(Big, Big)>) -> Option<(Big, Big)> {
    (0..256).rev().fold(None, |sum, index| {
        let doubled = add_points(sum, sum);
        if scalar.bit(index) { add_points(doubled, a) } else { doubled }
    })
}

/// A repeatable source of operands: uniform ones, and ones with long runs of equal bits or near a modulus.
pub(crate) struct Source(u64);

impl Source {
    pub(crate) fn new(seed: u64) -> Source {
        Source(seed)
    }

    /// Sixty-four bits (splitmix64).
    pub(crate) fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut word = self.0;
        word = (word ^ word >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        word = (word ^ word >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        word ^ word >> 31
    }

    /// A number below `end`.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.word() % u64::try_from(end).unwrap()).unwrap()
    }

    pub(crate) fn bytes(&mut self) -> [u8; 32] {
        Big(core::array::from_fn(|_| self.word())).to_bytes()
    }

    /// A number below the modulus: uniform, in runs of bits, small, or within a small distance of the modulus.
    pub(crate) fn number(&mut self, modulus: Big) -> Big {
        let mut words = core::array::from_fn(|_| self.word());
        match self.below(8) {
            0 => words = core::array::from_fn(|_| if self.word() & 1 == 0 { 0 } else { u64::MAX }),
            1 => words = [self.word() % 4, 0, 0, 0],
            2 => {
                let less = Big([1 + self.word() % 4, 0, 0, 0]);
                words = modulus.difference(less).0.0;
            }
            3 => {
                let (from, to) = (self.below(256), self.below(256));
                words = [0; 4];
                for index in from.min(to)..from.max(to) {
                    words[index / 64] |= 1 << (index % 64);
                }
            }
            4 => words[0] = u64::MAX,
            _ => {}
        }
        Big(words).modulo(modulus)
    }

    /// As [`Source::number`], but not zero.
    pub(crate) fn nonzero(&mut self, modulus: Big) -> Big {
        let number = self.number(modulus);
        if number == ZERO { ONE } else { number }
    }
}

#[cfg(test)]
mod tests {
    use secp256k1::{PublicKey, Secp256k1, SecretKey};

    use super::*;

    /// The oracle itself agrees with libsecp256k1 about a few multiples of the generator.
    #[test]
    fn multiples_of_the_generator_are_libsecp256k1s() {
        let secp = Secp256k1::new();
        let mut source = Source::new(1);
        for _ in 0..8 {
            let scalar = source.nonzero(N);
            let key = PublicKey::from_secret_key(&secp, &SecretKey::from_slice(&scalar.to_bytes()).unwrap());
            let bytes = key.serialize_uncompressed();
            let (x, y) = multiply_point(scalar, generator()).unwrap();
            assert_eq!((x.to_bytes().as_slice(), y.to_bytes().as_slice()), bytes[1..].split_at(32));
        }
        assert_eq!(multiply_point(N, generator()), None);
        let lambda = Big::hex("5363ad4cc05c30e0a5261c028812645a122e22ea20816678df02967c1b23bd72");
        let beta = Big::hex("7ae96a2b657c07106e64479eac3434e99cf0497512f58995c1396c28719501ee");
        let (x, y) = generator().unwrap();
        assert_eq!(multiply_point(lambda, generator()), Some((multiply(x, beta, P), y)));
    }
}
