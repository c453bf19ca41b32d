//! The interface between the algorithm and its arithmetic: elements of the field of secp256k1, p = 2^256 - 2^32 - 977,
//! several side by side.
//!
//! Owns [`Field`], which every leaf implements, and the plain types that leaves share: sets of lanes, digits, packed
//! points. The algorithm above is written once over this trait; `FIELDS.md` lists the leaves and argues their bounds.
//!
//! An element has four types, which the compiler keeps apart, and a bound that grows with a sum is a const parameter:
//!
//! * `Fe`, reduced: what products end in, what is stored and added.
//! * `Factor`, an operand of products: every `Fe` is one, other sums become one by carrying.
//! * `Signed`, an `Fe` or its negation.
//! * `Lazy<M>`, a sum of `M` elements, each taken with either sign.
//!
//! Products take arrays of N operands, one for each group of lanes: a leaf may interleave them or call a function for
//! all of them. N is 1, 2 or 4.
//!
//! Stages, the functions of some length, run their bodies through [`Field::enter`], which compiles them for the
//! leaf's instructions. All they call in between is forced inline, closures included, or is a stage too.

use std::hash::{Hash, Hasher};

use secp256k1::PublicKey;

use crate::scalar::{Half, words};

/// The most lanes of any leaf.
pub(crate) const LANES_MAX: usize = 8;

/// A set of lanes: bit `i` is lane `i`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct LaneMask(pub(crate) u8);

/// A point in 64 bytes, one cache line: x, then y, as little-endian words in the leaf's packing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(64))]
pub(crate) struct Entry(pub(crate) [u64; 8]);

/// The same half of the scalar of each lane: word k of lane i at `[k][i]`.
#[derive(Clone, Copy)]
pub(crate) struct Halves(pub(crate) [[u64; LANES_MAX]; 3]);

/// A digit in each lane: where its size is in a table, and whether it is negative.
#[derive(Clone, Copy)]
pub(crate) struct Digits {
    pub(crate) index: [u64; LANES_MAX],
    pub(crate) negative: LaneMask,
}

/// Arithmetic on [`Field::LANES`] elements at a time. A value of the type is the proof that the processor has the
/// leaf's instructions.
pub(crate) trait Field: Copy + Sized + 'static {
    /// Elements side by side.
    const LANES: usize;
    /// Reduced elements.
    type Fe: Copy;
    /// Operands of products.
    type Factor: Copy;
    /// Elements, negated in some lanes.
    type Signed: Copy;
    /// Sums of up to `M` elements, each with either sign.
    type Lazy<const M: u64>: Copy;

    /// Runs a stage, compiled for the leaf's instructions if the closure is forced inline.
    fn enter<R>(self, stage: impl FnOnce() -> R) -> R;

    /// The same small number in every lane.
    fn small(self, value: u32) -> Self::Fe;
    /// Lane `i` gets `value(i)`, any 256-bit number, little-endian words.
    fn load_lanes(self, value: impl Fn(usize) -> [u64; 4]) -> Self::Fe;
    /// The canonical value of each lane, little-endian words.
    fn to_lanes(self, value: &Self::Fe) -> [[u64; 4]; LANES_MAX];
    /// The lanes that hold zero modulo p.
    fn zeros(self, value: &Self::Fe) -> LaneMask;
    /// `other` in the lanes of `mask`, `value` elsewhere.
    fn select(self, value: &Self::Factor, mask: LaneMask, other: &Self::Factor) -> Self::Factor;

    /// Canonical coordinates in the leaf's packing.
    fn pack(entry: Entry) -> Entry;
    /// Lane `i` gets the coordinates that `entry(i)` has packed.
    fn load<'a>(self, entry: impl Fn(usize) -> &'a Entry) -> [Self::Fe; 2];
    /// Calls `put` with each lane's coordinates, packed.
    fn store(self, x: &Self::Fe, y: &Self::Fe, put: impl FnMut(usize, Entry));
    /// Asks for a cache line that will be read soon.
    fn prefetch(self, entry: &Entry);

    /// Digit `position` in radix 2^`BITS` of each half.
    #[inline(always)]
    fn digits<const BITS: u32>(self, halves: &Halves, position: usize) -> Digits {
        halves.digits::<BITS>(Self::LANES, position)
    }

    /// For multiplying.
    fn as_factor(value: &Self::Fe) -> &Self::Factor;
    /// For adding.
    fn lazy(value: &Self::Fe) -> Self::Lazy<1>;
    /// Negated in the lanes of `mask`.
    fn signed(self, value: &Self::Fe, mask: LaneMask) -> Self::Signed;
    /// Negated nowhere.
    fn unsigned(value: &Self::Fe) -> Self::Signed;
    /// The sum; M + N is at most R.
    fn plus<const M: u64, const N: u64, const R: u64>(
        self,
        a: &Self::Lazy<M>,
        b: &Self::Lazy<N>,
    ) -> Self::Lazy<R>;
    /// The difference; M + N is at most R.
    fn minus<const M: u64, const N: u64, const R: u64>(
        self,
        a: &Self::Lazy<M>,
        b: &Self::Lazy<N>,
    ) -> Self::Lazy<R>;
    /// Carried, for multiplying.
    fn factor<const M: u64>(self, value: &Self::Lazy<M>) -> Self::Factor;
    /// Twice the value, carried, for multiplying.
    fn doubled_factor<const M: u64>(self, value: &Self::Lazy<M>) -> Self::Factor;
    /// a - b, carried, for multiplying.
    fn signed_difference(self, a: &Self::Signed, b: &Self::Signed) -> Self::Factor;
    /// The same value reduced.
    fn reduce(self, value: &Self::Factor) -> Self::Fe;

    /// a b.
    fn product<const N: usize>(self, a: [&Self::Factor; N], b: [&Self::Factor; N]) -> [Self::Factor; N];
    /// a b, reduced.
    fn product_reduced<const N: usize>(self, a: [&Self::Factor; N], b: [&Self::Factor; N]) -> [Self::Fe; N];
    /// a b - c, reduced.
    fn product_minus<const N: usize, const M: u64>(
        self,
        a: [&Self::Factor; N],
        b: [&Self::Factor; N],
        c: [Self::Lazy<M>; N],
    ) -> [Self::Fe; N];
    /// a b - c, reduced.
    fn product_minus_signed<const N: usize>(
        self,
        a: [&Self::Factor; N],
        b: [&Self::Factor; N],
        c: [Self::Signed; N],
    ) -> [Self::Fe; N];
    /// 2 a b - c.
    fn product_doubled_minus<const N: usize>(
        self,
        a: [&Self::Factor; N],
        b: [&Self::Factor; N],
        c: [&Self::Fe; N],
    ) -> [Self::Factor; N];
    /// a b - c d, reduced.
    fn product_minus_product<const N: usize>(
        self,
        a: [&Self::Factor; N],
        b: [&Self::Factor; N],
        c: [&Self::Factor; N],
        d: [&Self::Factor; N],
    ) -> [Self::Fe; N];
    /// a b - c^2, reduced.
    fn product_minus_square<const N: usize>(
        self,
        a: [&Self::Factor; N],
        b: [&Self::Factor; N],
        c: [&Self::Factor; N],
    ) -> [Self::Fe; N];
    /// a^2.
    fn square<const N: usize>(self, a: [&Self::Factor; N]) -> [Self::Factor; N];
    /// 3 a^2.
    fn square_tripled<const N: usize>(self, a: [&Self::Factor; N]) -> [Self::Factor; N];
    /// a^2 - c, reduced.
    fn square_minus<const N: usize, const M: u64>(
        self,
        a: [&Self::Factor; N],
        c: [Self::Lazy<M>; N],
    ) -> [Self::Fe; N];
    /// The inverse in each lane; no lane may be zero.
    fn invert_lanes(self, value: &Self::Fe) -> Self::Factor;
}

/// An array of N elements from an expression at each index, written out: a closure would not be compiled for the
/// leaf's instructions, and a loop might stay one. N is at most 4.
macro_rules! each {
    ($n:expr, $i:ident => $value:expr) => {{
        const { assert!($n == 1 || $n == 2 || $n == 4) }
        let mut values = [each!(@ 0, $i => $value); $n];
        if $n > 1 {
            values[1] = each!(@ 1, $i => $value);
        }
        if $n > 2 {
            values[2] = each!(@ 2, $i => $value);
            values[3] = each!(@ 3, $i => $value);
        }
        values
    }};
    (@ $index:literal, $i:ident => $value:expr) => {{
        let $i: usize = $index;
        $value
    }};
}
pub(super) use each;

/// The value of each lane of a leaf, in an array for the most lanes: those the leaf lacks repeat the first.
#[inline(always)]
pub(crate) fn each_lane<F: Field, T: Copy>(mut value: impl FnMut(usize) -> T) -> [T; LANES_MAX] {
    let mut values = [value(0); LANES_MAX];
    for (lane, slot) in values.iter_mut().enumerate().take(F::LANES).skip(1) {
        *slot = value(lane);
    }
    values
}

impl LaneMask {
    /// No lane.
    pub(crate) const NONE: LaneMask = LaneMask(0);

    /// Whether no lane is in the set.
    #[inline(always)]
    pub(crate) fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether a lane is in the set.
    #[inline(always)]
    pub(crate) fn contains(self, lane: usize) -> bool {
        self.0 >> lane & 1 == 1
    }

    /// The lanes in either set.
    #[inline(always)]
    pub(crate) fn union(self, other: LaneMask) -> LaneMask {
        LaneMask(self.0 | other.0)
    }
}

/// Half of the x-coordinate is as good as all of it to tell points apart, and the hasher is keyed.
impl Hash for Entry {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.0[0]);
        state.write_u64(self.0[1]);
    }
}

impl Entry {
    pub(crate) const ZERO: Entry = Entry([0; 8]);

    /// The canonical coordinates of a key.
    pub(crate) fn of(key: &PublicKey) -> Entry {
        let bytes = key.serialize_uncompressed();
        let (coordinates, _) = bytes[1..].as_chunks::<32>();
        Entry::join(words(&coordinates[0]), words(&coordinates[1]))
    }

    /// From the words of both coordinates.
    #[inline(always)]
    pub(crate) fn join(x: [u64; 4], y: [u64; 4]) -> Entry {
        Entry([x[0], x[1], x[2], x[3], y[0], y[1], y[2], y[3]])
    }

    /// The words of both coordinates.
    #[inline(always)]
    pub(crate) fn split(&self) -> [[u64; 4]; 2] {
        let [x0, x1, x2, x3, y0, y1, y2, y3] = self.0;
        [[x0, x1, x2, x3], [y0, y1, y2, y3]]
    }
}

impl Halves {
    /// Lane i gets `half(i)`.
    #[inline(always)]
    pub(crate) fn new<F: Field>(half: impl Fn(usize) -> Half) -> Halves {
        let mut words = [[0; LANES_MAX]; 3];
        for lane in 0..F::LANES {
            let half = half(lane);
            for (word, values) in words.iter_mut().enumerate() {
                values[lane] = half.0[word];
            }
        }
        Halves(words)
    }

    /// Digit `position` in radix 2^`BITS` of the first `lanes` halves.
    ///
    /// The digit is 2 v - (2^BITS - 1): negative where the top bit of v is clear, and then the lower bits of v, which
    /// are (|d| - 1) / 2 of a positive one, are inverted.
    #[inline(always)]
    pub(crate) fn digits<const BITS: u32>(&self, lanes: usize, position: usize) -> Digits {
        let from = BITS as usize * position;
        let (word, shift) = (from / 64, (from % 64) as u32);
        let mut digits = Digits { index: [0; LANES_MAX], negative: LaneMask::NONE };
        for lane in 0..lanes {
            let above = if word < 2 { self.0[word + 1][lane] } else { 0 };
            let value = (u128::from(self.0[word][lane]) | u128::from(above) << 64) >> shift;
            let value = value as u64;
            let negative = !value >> (BITS - 1) & 1;
            digits.index[lane] = (value ^ negative.wrapping_neg()) & ((1 << (BITS - 1)) - 1);
            digits.negative.0 |= (negative as u8) << lane;
        }
        digits
    }
}
