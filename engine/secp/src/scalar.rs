//! Scalars modulo the order n of secp256k1, one at a time: what verification does before it has points.
//!
//! Owns parsing and the range checks of a signature, products (Montgomery's, radix 2^256), and the split of a scalar
//! into two odd halves of signed odd digits. In variable time: for public data only.
//!
//! Two types: [`Scalar`] is a number below n; [`Montgomery`] stands for the scalar that is it times 2^-256.
//! Invariant of both: below n.
//!
//! Budget: 17 ns a product, 30 ns a split.

use crate::inverse::Modulus;

/// A number below n, little-endian words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Scalar([u64; 4]);

/// A scalar times 2^256 modulo n.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Montgomery([u64; 4]);

/// Half a scalar as signed odd digits: the half h is odd, below 2^130 in size, and stored as (h + 2^130 - 1) / 2. So
/// for any w that divides 130, digit j in radix 2^w is 2 v - (2^w - 1), v being bits w j to w (j + 1) of what is
/// stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Half(pub(crate) [u64; 3]);

/// A scalar k as two halves: k = `plain` + `by_lambda` * lambda modulo n.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Split {
    pub(crate) plain: Half,
    pub(crate) by_lambda: Half,
}

/// The order of the group.
const N: [u64; 4] = [0xBFD2_5E8C_D036_4141, 0xBAAE_DCE6_AF48_A03B, u64::MAX - 1, u64::MAX];
/// (n - 1) / 2: the largest s that is accepted.
const HALF_N: [u64; 4] = [0xDFE9_2F46_681B_20A0, 0x5D57_6E73_57A4_501D, u64::MAX, u64::MAX >> 1];
/// -1 / n modulo 2^64.
const MINUS_INVERSE_N: u64 = {
    // Newton's iteration doubles the number of right bits: 5, 10, 20, 40, 80.
    let mut inverse = N[0].wrapping_mul(3) ^ 2;
    let mut round = 0;
    while round < 4 {
        inverse = inverse.wrapping_mul(2u64.wrapping_sub(N[0].wrapping_mul(inverse)));
        round += 1;
    }
    inverse.wrapping_neg()
};
/// 2^512 modulo n: 2^256 as a [`Montgomery`].
const R_SQUARED: [u64; 4] = {
    let mut value = [1, 0, 0, 0];
    let mut count = 0;
    while count < 512 {
        let (doubled, passed) = add(&value, &value);
        value = if passed || !less(&doubled, &N) { subtract(&doubled, &N) } else { doubled };
        count += 1;
    }
    value
};
static INVERTER: Modulus = Modulus::new(N);

/// The lattice of pairs (a, b) with a + b lambda = 0 modulo n has the short basis (A1, -B1), (A2, A1).
const A1: [u64; 2] = [0xE86C_90E4_9284_EB15, 0x3086_D221_A7D4_6BCD];
const B1: [u64; 2] = [0x6F54_7FA9_0ABF_E4C3, 0xE443_7ED6_010E_8828];
const A2: [u64; 3] = [0x57C1_108D_9D44_CFD8, 0x14CA_50F7_A8E2_F3F6, 1];
/// 2^384 A1 / n and 2^384 B1 / n, rounded: k times these, less 384 bits, are k's coordinates in that basis.
const G1: [u64; 4] =
    [0xE893_209A_45DB_B031, 0x3DAA_8A14_71E8_CA7F, 0xE86C_90E4_9284_EB15, 0x3086_D221_A7D4_6BCD];
const G2: [u64; 4] =
    [0x1571_B4AE_8AC4_7F71, 0x2212_08AC_9DF5_06C6, 0x6F54_7FA9_0ABF_E4C4, 0xE443_7ED6_010E_8828];

impl Split {
    /// Room for a split, no scalar's.
    pub(crate) const NONE: Split = Split { plain: Half([0; 3]), by_lambda: Half([0; 3]) };
}

impl Scalar {
    /// Whether two x-coordinates may come to this number modulo n: r and r + n, if r < p - n < 2^129.
    #[inline]
    pub(crate) fn may_be_of_two_points(&self) -> bool {
        self.0[3] == 0 && self.0[2] < 2
    }

    /// The number if it is in [1, n): a valid r.
    #[inline]
    pub(crate) fn parse_r(bytes: &[u8; 32]) -> Option<Scalar> {
        let words = words(bytes);
        (words != [0; 4] && less(&words, &N)).then_some(Scalar(words))
    }

    /// The number if it is in [1, n / 2]: a valid s.
    #[inline]
    pub(crate) fn parse_s(bytes: &[u8; 32]) -> Option<Scalar> {
        let words = words(bytes);
        (words != [0; 4] && !less(&HALF_N, &words)).then_some(Scalar(words))
    }

    /// The remainder of any 256-bit number: n is above 2^255, so one subtraction does it.
    #[inline]
    pub(crate) fn remainder(bytes: &[u8; 32]) -> Scalar {
        let words = words(bytes);
        Scalar(if less(&words, &N) { words } else { subtract(&words, &N) })
    }

    /// Little-endian words.
    #[inline]
    pub(crate) fn words(&self) -> &[u64; 4] {
        &self.0
    }

    /// The product of a scalar and one in Montgomery's form is a plain scalar.
    #[inline]
    pub(crate) fn times(&self, other: &Montgomery) -> Scalar {
        Scalar(montgomery_product(&self.0, &other.0))
    }

    /// The sum of two scalars.
    #[inline]
    pub(crate) fn plus(&self, other: &Scalar) -> Scalar {
        let (sum, passed) = add(&self.0, &other.0);
        Scalar(if passed || !less(&sum, &N) { subtract(&sum, &N) } else { sum })
    }

    /// The scalar in Montgomery's form.
    #[inline]
    pub(crate) fn montgomery(&self) -> Montgomery {
        Montgomery(montgomery_product(&self.0, &R_SQUARED))
    }

    /// The scalar as two halves of odd digits.
    #[inline]
    pub(crate) fn split(&self) -> Split {
        let k = &self.0;
        // The nearest lattice point, c1 (A1, -B1) + c2 (A2, A1), taken from (k, 0) leaves a short (a, b): both below
        // 2^128 in size. Arithmetic modulo 2^192 is enough for that.
        let (c1, c2) = (rounded_product(k, &G1), rounded_product(k, &G2));
        let a2_low = [A2[0], A2[1]];
        let mut c2_a2 = product(&c2, &a2_low);
        c2_a2[2] = c2_a2[2].wrapping_add(c2[0]);
        let mut a = subtract_192(&subtract_192(&[k[0], k[1], k[2]], &product(&c1, &A1)), &c2_a2);
        let mut b = subtract_192(&product(&c1, &B1), &product(&c2, &A1));
        // (A1, -B1) has parities (odd, odd) and (A2, A1) (even, odd): adding the first makes a odd, then the second b.
        // Sizes stay below 2^128 + 2^128 + 1.1 * 2^128 < 2^130.
        let a1 = [A1[0], A1[1], 0];
        if a[0] & 1 == 0 {
            a = add_192(&a, &a1);
            b = subtract_192(&b, &[B1[0], B1[1], 0]);
        }
        if b[0] & 1 == 0 {
            a = add_192(&a, &A2);
            b = add_192(&b, &a1);
        }
        Split { plain: Half::new(&a), by_lambda: Half::new(&b) }
    }
}

impl Half {
    /// From an odd number below 2^130 in size, two's complement.
    #[inline]
    fn new(half: &[u64; 3]) -> Half {
        let sum = add_192(half, &[u64::MAX, u64::MAX, 3]);
        let stored = [sum[0] >> 1 | sum[1] << 63, sum[1] >> 1 | sum[2] << 63, sum[2] >> 1];
        debug_assert!(half[0] & 1 == 1 && stored[2] < 4);
        Half(stored)
    }
}

/// The inverses of nonzero scalars, with one inversion for all: `found` gets each index, once, with its inverse.
///
/// `products` is room to work in.
pub(crate) fn invert_all(
    scalars: &[Scalar],
    products: &mut Vec<Montgomery>,
    mut found: impl FnMut(usize, Montgomery),
) {
    products.clear();
    let mut running = R_SQUARED;
    for scalar in scalars {
        products.push(Montgomery(running));
        running = montgomery_product(&running, &scalar.0);
    }
    // Throughout, inverse = 2^256 / running. With running' the product before a scalar s, running = running' s / 2^256:
    // inverse running' / 2^256 = 2^256 / s, and 2^256 / running' = inverse s / 2^256.
    let mut inverse = montgomery_product(&INVERTER.invert(&running), &R_SQUARED);
    for (index, (scalar, before)) in scalars.iter().zip(products.iter()).enumerate().rev() {
        found(index, Montgomery(montgomery_product(&inverse, &before.0)));
        inverse = montgomery_product(&inverse, &scalar.0);
    }
}

/// The big-endian bytes of 256-bit words.
pub(crate) fn bytes(words: &[u64; 4]) -> [u8; 32] {
    let mut bytes = [0; 32];
    for (chunk, word) in bytes.chunks_exact_mut(8).zip(words.iter().rev()) {
        chunk.copy_from_slice(&word.to_be_bytes());
    }
    bytes
}

/// The little-endian words of a big-endian 256-bit number.
#[inline]
pub(crate) fn words(bytes: &[u8; 32]) -> [u64; 4] {
    let (words, _) = bytes.as_chunks::<8>();
    [words[3], words[2], words[1], words[0]].map(u64::from_be_bytes)
}

/// a b / 2^256 modulo n, for a and b of which one is below n.
#[inline]
fn montgomery_product(a: &[u64; 4], b: &[u64; 4]) -> [u64; 4] {
    // After each word of a: t < 2 n, the multiple of n that makes the low word zero having been added.
    let mut t = [0u64; 5];
    for word in a {
        let mut carry = 0;
        for (t, b) in t.iter_mut().zip(b) {
            (*t, carry) = multiply_add(*word, *b, *t, carry);
        }
        let (top, over) = t[4].overflowing_add(carry);
        let times = t[0].wrapping_mul(MINUS_INVERSE_N);
        let (_, mut carry) = multiply_add(times, N[0], t[0], 0);
        for k in 1..4 {
            (t[k - 1], carry) = multiply_add(times, N[k], t[k], carry);
        }
        let (sum, over_again) = top.overflowing_add(carry);
        t[3] = sum;
        t[4] = u64::from(over) + u64::from(over_again);
    }
    let result = [t[0], t[1], t[2], t[3]];
    if t[4] != 0 || !less(&result, &N) { subtract(&result, &N) } else { result }
}

/// k g / 2^384, rounded to the nearest.
#[inline]
fn rounded_product(k: &[u64; 4], g: &[u64; 4]) -> [u64; 2] {
    let mut t = [0u64; 8];
    for (i, k) in k.iter().enumerate() {
        let mut carry = 0;
        for (j, g) in g.iter().enumerate() {
            (t[i + j], carry) = multiply_add(*k, *g, t[i + j], carry);
        }
        t[i + 4] = carry;
    }
    let (low, over) = t[6].overflowing_add(t[5] >> 63);
    [low, t[7] + u64::from(over)]
}

/// a b modulo 2^192.
#[inline]
fn product(a: &[u64; 2], b: &[u64; 2]) -> [u64; 3] {
    let (t0, carry) = multiply_add(a[0], b[0], 0, 0);
    let (t1, carry_a) = multiply_add(a[0], b[1], carry, 0);
    let (t1, carry_b) = multiply_add(a[1], b[0], t1, 0);
    [t0, t1, a[1].wrapping_mul(b[1]).wrapping_add(carry_a).wrapping_add(carry_b)]
}

/// a + b modulo 2^192.
#[inline]
fn add_192(a: &[u64; 3], b: &[u64; 3]) -> [u64; 3] {
    let (low, carry) = a[0].overflowing_add(b[0]);
    let middle = u128::from(a[1]) + u128::from(b[1]) + u128::from(carry);
    [low, middle as u64, a[2].wrapping_add(b[2]).wrapping_add((middle >> 64) as u64)]
}

/// a - b modulo 2^192.
#[inline]
fn subtract_192(a: &[u64; 3], b: &[u64; 3]) -> [u64; 3] {
    add_192(&add_192(a, &b.map(|word| !word)), &[1, 0, 0])
}

/// a b + c + d, which never passes 2^128: the low word and the high one.
#[inline]
fn multiply_add(a: u64, b: u64, c: u64, d: u64) -> (u64, u64) {
    let sum = u128::from(a) * u128::from(b) + u128::from(c) + u128::from(d);
    (sum as u64, (sum >> 64) as u64)
}

/// Whether a < b.
#[inline]
pub(crate) const fn less(a: &[u64; 4], b: &[u64; 4]) -> bool {
    let mut borrow = false;
    let mut k = 0;
    while k < 4 {
        let (difference, first) = a[k].overflowing_sub(b[k]);
        let (_, second) = difference.overflowing_sub(borrow as u64);
        borrow = first || second;
        k += 1;
    }
    borrow
}

/// a + b and whether it passed 2^256.
#[inline]
pub(crate) const fn add(a: &[u64; 4], b: &[u64; 4]) -> ([u64; 4], bool) {
    let (mut sum, mut carry) = ([0; 4], false);
    let mut k = 0;
    while k < 4 {
        let (word, first) = a[k].overflowing_add(b[k]);
        let (word, second) = word.overflowing_add(carry as u64);
        (sum[k], carry) = (word, first || second);
        k += 1;
    }
    (sum, carry)
}

/// a - b modulo 2^256.
#[inline]
pub(crate) const fn subtract(a: &[u64; 4], b: &[u64; 4]) -> [u64; 4] {
    let (mut result, mut borrow) = ([0; 4], false);
    let mut k = 0;
    while k < 4 {
        let (word, first) = a[k].overflowing_sub(b[k]);
        let (word, second) = word.overflowing_sub(borrow as u64);
        (result[k], borrow) = (word, first || second);
        k += 1;
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oracle::{self, Big, Source};

    const LAMBDA: &str = "5363ad4cc05c30e0a5261c028812645a122e22ea20816678df02967c1b23bd72";

    fn scalar(number: Big) -> Scalar {
        Scalar::remainder(&number.to_bytes())
    }

    #[test]
    fn ranges_are_those_of_a_signature() {
        let number = |words: [u64; 4]| Big(words).to_bytes();
        let one_more = |mut words: [u64; 4]| {
            words[0] += 1;
            words
        };
        let mut below_n = N;
        below_n[0] -= 1;
        assert_eq!(Scalar::parse_r(&[0; 32]), None);
        assert_eq!(Scalar::parse_r(&number(N)), None);
        assert_eq!(Scalar::parse_r(&[0xff; 32]), None);
        assert_eq!(Scalar::parse_r(&number(below_n)), Some(Scalar(below_n)));
        assert_eq!(Scalar::parse_s(&[0; 32]), None);
        assert_eq!(Scalar::parse_s(&number(HALF_N)), Some(Scalar(HALF_N)));
        assert_eq!(Scalar::parse_s(&number(one_more(HALF_N))), None);
        assert_eq!(Scalar::parse_s(&number(below_n)), None);
        assert_eq!(Scalar::remainder(&number(N)).words(), &[0; 4]);
        assert_eq!(Scalar::remainder(&number(one_more(N))).words(), &[1, 0, 0, 0]);
        assert_eq!(oracle::add(Big(HALF_N), Big(HALF_N), oracle::N), oracle::negate(oracle::ONE, oracle::N));
    }

    #[test]
    fn products_and_inverses_are_the_oracles() {
        let mut source = Source::new(3);
        let mut products = Vec::new();
        for count in [0, 1, 2, 9, 64] {
            let numbers: Vec<Big> = (0..count).map(|_| source.nonzero(oracle::N)).collect();
            let scalars: Vec<Scalar> = numbers.iter().copied().map(scalar).collect();
            let mut seen = 0;
            invert_all(&scalars, &mut products, |index, inverse| {
                let other = source.number(oracle::N);
                let quotient = Big(*scalar(other).times(&inverse).words());
                assert_eq!(oracle::multiply(quotient, numbers[index], oracle::N), other);
                seen += 1;
            });
            assert_eq!(seen, count);
        }
    }

    /// The number a stored half stands for, modulo n.
    fn value(half: Half) -> Big {
        assert!(half.0[2] < 4, "a half has 130 bits");
        let stored = Big([half.0[0], half.0[1], half.0[2], 0]);
        let offset = Big([u64::MAX, u64::MAX, 3, 0]);
        oracle::subtract(oracle::add(stored, stored, oracle::N), offset, oracle::N)
    }

    #[test]
    fn halves_add_up() {
        let mut source = Source::new(4);
        let lambda = Big::hex(LAMBDA);
        for _ in 0..4_000 {
            let number = source.number(oracle::N);
            let Split { plain, by_lambda } = scalar(number).split();
            let sum =
                oracle::add(value(plain), oracle::multiply(value(by_lambda), lambda, oracle::N), oracle::N);
            assert_eq!(sum, number);
        }
    }

    #[test]
    fn bytes_and_words_are_inverse() {
        let mut source = Source::new(5);
        let original = source.bytes();
        assert_eq!(bytes(&words(&original)), original);
        assert_eq!(words(&Big([1, 2, 3, 4]).to_bytes()), [1, 2, 3, 4]);
    }
}
