//! Points of secp256k1, eight lanes at a time, in groups that are interleaved to hide the latency of products.
//!
//! Three types: [`Affine`] has reduced coordinates; [`Signed`] is one from a table, its sign taken lazily, fit only to
//! be added; [`Jacobian`]`<N>` is the accumulator of N groups: (X, 2Y, Z) for the point (X / Z^2, Y / Z^3), 2Y because
//! it saves scalings in doublings.
//!
//! Affine sums take the inverse of the difference of the x-coordinates from the caller, who finds the exceptional cases
//! (equal x) when inverting. The mixed sum meets them as a Z of zero, and a Z of zero stays zero whatever comes after:
//! one look at the end finds every lane that went wrong. No point here is ever the one at infinity.
//!
//! Operations (M products, S squares): affine sum 2M + 1S; affine double 2M + 2S; Jacobian double 3M + 4S, one
//! reduction saved; mixed sum 8M + 3S, one reduction saved.

use super::field::{
    Factor, Fe, Lazy, Multiplicand, product, product_minus_product, product_minus_square, product_plus,
    square, square_plus,
};
use super::lanes::Ifma;

/// A point in each lane.
#[derive(Clone, Copy)]
pub(crate) struct Affine {
    pub(crate) x: Fe,
    pub(crate) y: Fe,
}

/// A point in each lane, to be added.
#[derive(Clone, Copy)]
pub(crate) struct Signed {
    pub(crate) x: Fe,
    pub(crate) y: Lazy<2>,
}

/// N points in each lane: (X, 2Y, Z).
#[derive(Clone, Copy)]
pub(crate) struct Jacobian<const N: usize> {
    pub(crate) x: [Fe; N],
    pub(crate) y_twice: [Fe; N],
    pub(crate) z: [Factor; N],
}

/// A term of an affine sum.
pub(crate) trait Term {
    /// The x-coordinate.
    fn x(&self) -> Fe;
    /// The y-coordinate.
    fn y(&self) -> Lazy<2>;
}

/// The steps of a chain of doublings and sums, for N groups at once.
pub(crate) trait Accumulator<const N: usize>: Copy {
    /// The points as they are.
    fn start(ifma: Ifma, points: [&Affine; N]) -> Self;
    /// Two to the power of `TIMES` times the points.
    fn doubled<const TIMES: u32>(self) -> Self;
    /// The sum with affine points; Z becomes zero where they are equal or opposite.
    fn plus(self, points: [&Affine; N]) -> Self;
}

/// An array of an expression at each index, written out: a closure would not be compiled for the lanes.
macro_rules! each {
    (1, $i:ident => $value:expr) => {
        [each!(@ 0, $i => $value)]
    };
    (2, $i:ident => $value:expr) => {
        [each!(@ 0, $i => $value), each!(@ 1, $i => $value)]
    };
    (4, $i:ident => $value:expr) => {
        [
            each!(@ 0, $i => $value),
            each!(@ 1, $i => $value),
            each!(@ 2, $i => $value),
            each!(@ 3, $i => $value),
        ]
    };
    (@ $index:literal, $i:ident => $value:expr) => {{
        let $i: usize = $index;
        $value
    }};
}
pub(super) use each;

impl Term for Affine {
    #[inline(always)]
    fn x(&self) -> Fe {
        self.x
    }
    #[inline(always)]
    fn y(&self) -> Lazy<2> {
        self.y.lazy().widened()
    }
}

impl Term for Signed {
    #[inline(always)]
    fn x(&self) -> Fe {
        self.x
    }
    #[inline(always)]
    fn y(&self) -> Lazy<2> {
        self.y
    }
}

impl Affine {
    /// Twice the point, given 1 / (2 y).
    #[inline(always)]
    pub(crate) fn double(&self, inverse: &Factor) -> Affine {
        let three_x_squared = square(&self.x).times::<3, 3>().factor();
        let slope = product(&three_x_squared, inverse).factor();
        third(&slope, self, self.x)
    }

    /// The denominator of doubling.
    #[inline(always)]
    pub(crate) fn double_denominator(&self) -> Factor {
        self.y.lazy().doubled::<2>().factor()
    }
}

/// The denominator of p + q: zero where they are equal or opposite.
#[inline(always)]
pub(crate) fn sum_denominator(p: &impl Term, q: &impl Term) -> Factor {
    q.x().lazy().plus::<2, 3>(p.x().lazy().negated()).factor()
}

/// p + q, given the inverse of their denominator.
#[inline(always)]
pub(crate) fn sum(p: &impl Term, q: &impl Term, inverse: &Factor) -> Affine {
    let slope = product(&slope_numerator(p, q), inverse).factor();
    third(&slope, p, q.x())
}

/// Four independent sums.
#[inline(always)]
pub(crate) fn sum_4<P: Term, Q: Term>(p: [&P; 4], q: [&Q; 4], inverses: &[Factor; 4]) -> [Affine; 4] {
    let slope = each!(4, i => product(&slope_numerator(p[i], q[i]), &inverses[i]).factor());
    let x = each!(4, i => third_x(&slope[i], p[i].x(), q[i].x()));
    each!(4, i => Affine { x: x[i], y: third_y(&slope[i], p[i], &x[i]) })
}

#[inline(always)]
fn slope_numerator(p: &impl Term, q: &impl Term) -> Factor {
    q.y().plus::<3, 5>(p.y().negated()).factor()
}

/// The sum of the points with x-coordinates p.x and `q_x` on the line through p.
#[inline(always)]
fn third(slope: &Factor, p: &impl Term, q_x: Fe) -> Affine {
    let x = third_x(slope, p.x(), q_x);
    Affine { x, y: third_y(slope, p, &x) }
}

#[inline(always)]
fn third_x(slope: &Factor, p_x: Fe, q_x: Fe) -> Fe {
    square_plus(slope, p_x.lazy().plus::<1, 2>(q_x.lazy()).negated::<3>()).reduce()
}

#[inline(always)]
fn third_y(slope: &Factor, p: &impl Term, x: &Fe) -> Fe {
    let run = p.x().lazy().plus::<2, 3>(x.lazy().negated()).factor();
    product_plus(slope, &run, p.y().negated::<3>()).reduce()
}

/// Twice the points: with A = 3 X^2 and D = 4 X Y^2, X' = A^2 - 2 D, Z' = 2 Y Z, 2 Y' = 2 A (D - X') - 16 Y^4. Z',
/// which nothing of this doubling or the next waits for, comes last.
macro_rules! double {
    ($n:tt, $p:expr) => {{
        let p: Jacobian<$n> = $p;
        let four_y_squared = each!($n, i => square(&p.y_twice[i]).factor());
        let a = each!($n, i => square(&p.x[i]).times::<3, 3>().factor());
        let d = each!($n, i => product(&p.x[i], &four_y_squared[i]).reduce());
        let x = each!($n, i => square_plus(&a[i], d[i].lazy().doubled::<2>().negated::<3>()).reduce());
        let run = each!($n, i => {
            d[i].lazy().plus::<2, 3>(x[i].lazy().negated()).doubled::<6>().factor()
        });
        let y_twice = each!($n, i => product_minus_square(&a[i], &run[i], &four_y_squared[i]).reduce());
        let z = each!($n, i => product(&p.y_twice[i], &p.z[i]).factor());
        Jacobian { x, y_twice, z }
    }};
}

/// The sum with affine points: with H = x Z^2 - X, I = 4 H^2, J = H I, V = X I and R = 2 y Z^3 - 2 Y:
/// X' = R^2 - J - 2 V, Z' = 2 Z H, 2 Y' = 2 R (V - X') - 4 Y J.
macro_rules! plus {
    ($n:tt, $p:expr, $q:expr) => {{
        let p: Jacobian<$n> = $p;
        let q: [&Affine; $n] = $q;
        let zz = each!($n, i => square(&p.z[i]).factor());
        let h = each!($n, i => product_plus(&q[i].x, &zz[i], p.x[i].lazy().negated::<2>()).reduce());
        let zzz = each!($n, i => product(&p.z[i], &zz[i]).factor());
        let h_twice = each!($n, i => h[i].lazy().doubled::<2>().factor());
        let i_ = each!($n, i => square(&h_twice[i]).factor());
        let r = each!($n, i => {
            let y_zzz = product(&q[i].y, &zzz[i]);
            y_zzz.times::<2, 2>().plus::<2, 3>(p.y_twice[i].lazy().negated()).factor()
        });
        let j = each!($n, i => product(&h[i], &i_[i]).reduce());
        let v = each!($n, i => product(&p.x[i], &i_[i]).reduce());
        let x = each!($n, i => {
            let less = j[i].lazy().plus::<2, 3>(v[i].lazy().doubled());
            square_plus(&r[i], less.negated::<4>()).reduce()
        });
        let z = each!($n, i => product(&p.z[i], &h_twice[i]).factor());
        let run = each!($n, i => {
            v[i].lazy().plus::<2, 3>(x[i].lazy().negated()).doubled::<6>().factor()
        });
        let j_twice = each!($n, i => j[i].lazy().doubled::<2>().factor());
        let y_twice = each!($n, i => {
            product_minus_product(&r[i], &run[i], &p.y_twice[i], &j_twice[i]).reduce()
        });
        Jacobian { x, y_twice, z }
    }};
}

macro_rules! start {
    ($n:tt, $ifma:expr, $points:expr) => {{
        let one = Fe::small($ifma, 1).factor();
        Jacobian {
            x: each!($n, i => $points[i].x),
            y_twice: each!($n, i => $points[i].y.lazy().doubled::<2>().reduce()),
            z: each!($n, i => {
                let _ = i;
                one
            }),
        }
    }};
}

macro_rules! accumulator {
    ($n:tt) => {
        impl Accumulator<$n> for Jacobian<$n> {
            #[inline(always)]
            fn start(ifma: Ifma, points: [&Affine; $n]) -> Self {
                start!($n, ifma, points)
            }
            #[inline(always)]
            fn doubled<const TIMES: u32>(self) -> Self {
                let mut point = self;
                for _ in 0..TIMES {
                    point = double!($n, point);
                }
                point
            }
            #[inline(always)]
            fn plus(self, points: [&Affine; $n]) -> Self {
                plus!($n, self, points)
            }
        }
    };
}
accumulator!(1);
accumulator!(2);

impl Jacobian<1> {
    /// The affine point, given 1 / Z.
    #[inline(always)]
    pub(crate) fn to_affine(self, ifma: Ifma, inverse: &impl Multiplicand) -> Affine {
        // Half of 2Y / Z^3: with 1 / 2 = (p + 1) / 2.
        const HALF: [u64; 4] = [0xFFFF_FFFF_7FFF_FE18, u64::MAX, u64::MAX, u64::MAX >> 1];
        let half = Fe::from_lanes(ifma, &[HALF; 8]);
        let squared = square(inverse).factor();
        let cubed = product(&squared, inverse).factor();
        let x = product(&self.x[0], &squared).reduce();
        let y_half = product(&self.y_twice[0], &half).factor();
        Affine { x, y: product(&y_half, &cubed).reduce() }
    }
}
