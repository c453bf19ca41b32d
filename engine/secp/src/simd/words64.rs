//! Elements as four words of 64 bits, one at a time: the leaf of every 64-bit processor.
//!
//! An element is any number below 2^256, not canonical. Every sum is folded at once: where words have carries, lazy
//! bounds save nothing, so `Lazy<M>` is an element whatever M is.
//!
//! Products are `u128` multiplications, of which compilers make the one instruction that every 64-bit processor has.
//! They are called out of line: a call is lost in the time of sixteen multiplications.
//!
//! Budget: 18 ns a product on a 2.45 GHz Zen 3.

use super::field::{Entry, Field, LANES_MAX, LaneMask, each};
use crate::inverse::FIELD;
use crate::scalar::{add, less, subtract};

/// The leaf. Every processor has it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Words64;

/// A number below 2^256, little-endian words, which stands for its remainder modulo p.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fe([u64; 4]);

/// A sum, folded already.
#[derive(Clone, Copy)]
pub(crate) struct Lazy<const M: u64>(Fe);

const P: [u64; 4] = [0xFFFF_FFFE_FFFF_FC2F, u64::MAX, u64::MAX, u64::MAX];
/// 2^256 mod p.
const FOLD: u64 = 0x1_0000_03D1;

impl Fe {
    /// The sum: what passes 2^256 is folded, and passes it once more only if the sum was within [`FOLD`] of 2^257.
    #[inline(always)]
    fn plus(&self, other: &Fe) -> Fe {
        let (sum, passed) = add(&self.0, &other.0);
        let (sum, passed) = add(&sum, &[FOLD * u64::from(passed), 0, 0, 0]);
        // A sum that passes twice is small: no carry.
        Fe([sum[0].wrapping_add(FOLD * u64::from(passed)), sum[1], sum[2], sum[3]])
    }

    /// The difference, folded likewise.
    #[inline(always)]
    fn minus(&self, other: &Fe) -> Fe {
        let (difference, borrowed) = borrowing(&self.0, &other.0);
        let (difference, again) = borrowing(&difference, &[FOLD * u64::from(borrowed), 0, 0, 0]);
        // A difference that borrows twice is large: no borrow.
        let low = difference[0].wrapping_sub(FOLD * u64::from(again));
        Fe([low, difference[1], difference[2], difference[3]])
    }

    #[inline(always)]
    fn canonical(&self) -> [u64; 4] {
        if less(&self.0, &P) { self.0 } else { subtract(&self.0, &P) }
    }
}

/// a - b modulo 2^256 and whether it passed below zero.
#[inline(always)]
fn borrowing(a: &[u64; 4], b: &[u64; 4]) -> ([u64; 4], bool) {
    let (mut difference, mut borrow) = ([0; 4], false);
    for k in 0..4 {
        let (word, first) = a[k].overflowing_sub(b[k]);
        let (word, second) = word.overflowing_sub(u64::from(borrow));
        (difference[k], borrow) = (word, first || second);
    }
    (difference, borrow)
}

/// a b.
#[inline(never)]
fn product(a: &Fe, b: &Fe) -> Fe {
    let mut t = [0u64; 8];
    for (i, a) in a.0.iter().enumerate() {
        let mut carry = 0;
        for (j, b) in b.0.iter().enumerate() {
            (t[i + j], carry) = multiply_add(*a, *b, t[i + j], carry);
        }
        t[i + 4] = carry;
    }
    fold(&t)
}

/// a^2: the products of different words once, doubled.
#[inline(never)]
fn square(a: &Fe) -> Fe {
    let a = &a.0;
    let mut t = [0u64; 8];
    (t[1], t[2]) = multiply_add(a[0], a[1], 0, 0);
    (t[2], t[3]) = multiply_add(a[0], a[2], t[2], 0);
    (t[3], t[4]) = multiply_add(a[0], a[3], t[3], 0);
    let carry;
    (t[3], carry) = multiply_add(a[1], a[2], t[3], 0);
    (t[4], t[5]) = multiply_add(a[1], a[3], t[4], carry);
    (t[5], t[6]) = multiply_add(a[2], a[3], t[5], 0);
    t[7] = t[6] >> 63;
    for k in (2..7).rev() {
        t[k] = t[k] << 1 | t[k - 1] >> 63;
    }
    t[1] <<= 1;
    let mut carry = 0u64;
    for k in 0..4 {
        let square = u128::from(a[k]) * u128::from(a[k]);
        let low = u128::from(t[2 * k]) + u128::from(square as u64) + u128::from(carry);
        let high = u128::from(t[2 * k + 1]) + (square >> 64) + (low >> 64);
        (t[2 * k], t[2 * k + 1], carry) = (low as u64, high as u64, (high >> 64) as u64);
    }
    fold(&t)
}

/// A 512-bit number modulo p: the upper half is folded, then what that passes 2^256 by, below 2^34, then at most one.
#[inline(always)]
fn fold(t: &[u64; 8]) -> Fe {
    let mut r = [0; 4];
    let mut carry = 0;
    for k in 0..4 {
        (r[k], carry) = multiply_add(t[k + 4], FOLD, t[k], carry);
    }
    let (low, carry) = multiply_add(carry, FOLD, r[0], 0);
    r[0] = low;
    let (sum, passed) = add(&r, &[0, carry, 0, 0]);
    // If that passes, what is left is below 2^98.
    let (low, again) = sum[0].overflowing_add(FOLD * u64::from(passed));
    Fe([low, sum[1].wrapping_add(u64::from(again)), sum[2], sum[3]])
}

/// a b + c + d, which never passes 2^128: the low word and the high one.
#[inline(always)]
fn multiply_add(a: u64, b: u64, c: u64, d: u64) -> (u64, u64) {
    let sum = u128::from(a) * u128::from(b) + u128::from(c) + u128::from(d);
    (sum as u64, (sum >> 64) as u64)
}

/// The inverses of up to four numbers, none zero modulo p, with one inversion.
pub(crate) fn invert_each(values: &[[u64; 4]]) -> [[u64; 4]; LANES_MAX] {
    let mut before = [Fe([1, 0, 0, 0]); LANES_MAX];
    let mut all = Fe([1, 0, 0, 0]);
    for (before, value) in before.iter_mut().zip(values) {
        *before = all;
        all = product(&all, &Fe(*value));
    }
    let mut inverse = Fe(FIELD.invert(&all.canonical()));
    let mut inverses = [[0; 4]; LANES_MAX];
    for index in (0..values.len()).rev() {
        inverses[index] = product(&inverse, &before[index]).0;
        inverse = product(&inverse, &Fe(values[index]));
    }
    inverses
}

impl Field for Words64 {
    const LANES: usize = 1;
    type Fe = Fe;
    type Factor = Fe;
    type Signed = Fe;
    type Lazy<const M: u64> = Lazy<M>;

    #[inline(always)]
    fn enter<R>(self, stage: impl FnOnce() -> R) -> R {
        stage()
    }
    #[inline(always)]
    fn small(self, value: u32) -> Fe {
        Fe([value.into(), 0, 0, 0])
    }
    #[inline(always)]
    fn load_lanes(self, value: impl Fn(usize) -> [u64; 4]) -> Fe {
        Fe(value(0))
    }
    #[inline(always)]
    fn to_lanes(self, value: &Fe) -> [[u64; 4]; LANES_MAX] {
        [value.canonical(); LANES_MAX]
    }
    #[inline(always)]
    fn zeros(self, value: &Fe) -> LaneMask {
        LaneMask(u8::from(value.0 == [0; 4] || value.0 == P))
    }
    #[inline(always)]
    fn select(self, value: &Fe, mask: LaneMask, other: &Fe) -> Fe {
        if mask.contains(0) { *other } else { *value }
    }
    #[inline(always)]
    fn pack(entry: Entry) -> Entry {
        entry
    }
    #[inline(always)]
    fn load<'a>(self, entry: impl Fn(usize) -> &'a Entry) -> [Fe; 2] {
        entry(0).split().map(Fe)
    }
    #[inline(always)]
    fn store(self, x: &Fe, y: &Fe, mut put: impl FnMut(usize, Entry)) {
        put(0, Entry::join(x.canonical(), y.canonical()));
    }
    #[inline(always)]
    fn prefetch(self, _: &Entry) {}
    #[inline(always)]
    fn as_factor(value: &Fe) -> &Fe {
        value
    }
    #[inline(always)]
    fn lazy(value: &Fe) -> Lazy<1> {
        Lazy(*value)
    }
    #[inline(always)]
    fn signed(self, value: &Fe, mask: LaneMask) -> Fe {
        if mask.contains(0) { Fe([0; 4]).minus(value) } else { *value }
    }
    #[inline(always)]
    fn unsigned(value: &Fe) -> Fe {
        *value
    }
    #[inline(always)]
    fn plus<const M: u64, const N: u64, const R: u64>(self, a: &Lazy<M>, b: &Lazy<N>) -> Lazy<R> {
        const { assert!(M + N <= R) }
        Lazy(a.0.plus(&b.0))
    }
    #[inline(always)]
    fn minus<const M: u64, const N: u64, const R: u64>(self, a: &Lazy<M>, b: &Lazy<N>) -> Lazy<R> {
        const { assert!(M + N <= R) }
        Lazy(a.0.minus(&b.0))
    }
    #[inline(always)]
    fn factor<const M: u64>(self, value: &Lazy<M>) -> Fe {
        value.0
    }
    #[inline(always)]
    fn doubled_factor<const M: u64>(self, value: &Lazy<M>) -> Fe {
        value.0.plus(&value.0)
    }
    #[inline(always)]
    fn signed_difference(self, a: &Fe, b: &Fe) -> Fe {
        a.minus(b)
    }
    #[inline(always)]
    fn reduce(self, value: &Fe) -> Fe {
        *value
    }
    #[inline(always)]
    fn product<const N: usize>(self, a: [&Fe; N], b: [&Fe; N]) -> [Fe; N] {
        each!(N, i => product(a[i], b[i]))
    }
    #[inline(always)]
    fn product_reduced<const N: usize>(self, a: [&Fe; N], b: [&Fe; N]) -> [Fe; N] {
        self.product(a, b)
    }
    #[inline(always)]
    fn product_minus<const N: usize, const M: u64>(
        self,
        a: [&Fe; N],
        b: [&Fe; N],
        c: [Lazy<M>; N],
    ) -> [Fe; N] {
        each!(N, i => product(a[i], b[i]).minus(&c[i].0))
    }
    #[inline(always)]
    fn product_minus_signed<const N: usize>(self, a: [&Fe; N], b: [&Fe; N], c: [Fe; N]) -> [Fe; N] {
        each!(N, i => product(a[i], b[i]).minus(&c[i]))
    }
    #[inline(always)]
    fn product_doubled_minus<const N: usize>(self, a: [&Fe; N], b: [&Fe; N], c: [&Fe; N]) -> [Fe; N] {
        each!(N, i => {
            let ab = product(a[i], b[i]);
            ab.plus(&ab).minus(c[i])
        })
    }
    #[inline(always)]
    fn product_minus_product<const N: usize>(
        self,
        a: [&Fe; N],
        b: [&Fe; N],
        c: [&Fe; N],
        d: [&Fe; N],
    ) -> [Fe; N] {
        each!(N, i => product(a[i], b[i]).minus(&product(c[i], d[i])))
    }
    #[inline(always)]
    fn product_minus_square<const N: usize>(self, a: [&Fe; N], b: [&Fe; N], c: [&Fe; N]) -> [Fe; N] {
        each!(N, i => product(a[i], b[i]).minus(&square(c[i])))
    }
    #[inline(always)]
    fn square<const N: usize>(self, a: [&Fe; N]) -> [Fe; N] {
        each!(N, i => square(a[i]))
    }
    #[inline(always)]
    fn square_tripled<const N: usize>(self, a: [&Fe; N]) -> [Fe; N] {
        each!(N, i => {
            let aa = square(a[i]);
            aa.plus(&aa).plus(&aa)
        })
    }
    #[inline(always)]
    fn square_minus<const N: usize, const M: u64>(self, a: [&Fe; N], c: [Lazy<M>; N]) -> [Fe; N] {
        each!(N, i => square(a[i]).minus(&c[i].0))
    }
    #[inline(always)]
    fn invert_lanes(self, value: &Fe) -> Fe {
        Fe(FIELD.invert(&value.canonical()))
    }
}
