//! Points of secp256k1, one a lane, in groups that are interleaved to hide the latency of products.
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

use super::field::{Field, each};

/// A point in each lane.
#[derive(Clone, Copy)]
pub(crate) struct Affine<F: Field> {
    pub(crate) x: F::Fe,
    pub(crate) y: F::Fe,
}

/// A point in each lane, to be added.
#[derive(Clone, Copy)]
pub(crate) struct Signed<F: Field> {
    pub(crate) x: F::Fe,
    pub(crate) y: F::Signed,
}

/// N points in each lane: (X, 2Y, Z).
#[derive(Clone, Copy)]
pub(crate) struct Jacobian<F: Field, const N: usize> {
    pub(crate) x: [F::Fe; N],
    pub(crate) y_twice: [F::Fe; N],
    pub(crate) z: [F::Factor; N],
}

/// A term of an affine sum.
pub(crate) trait Term<F: Field> {
    /// The x-coordinate.
    fn x(&self) -> &F::Fe;
    /// The y-coordinate.
    fn y(&self) -> F::Signed;
}

impl<F: Field> Term<F> for Affine<F> {
    #[inline(always)]
    fn x(&self) -> &F::Fe {
        &self.x
    }
    #[inline(always)]
    fn y(&self) -> F::Signed {
        F::unsigned(&self.y)
    }
}

impl<F: Field> Term<F> for Signed<F> {
    #[inline(always)]
    fn x(&self) -> &F::Fe {
        &self.x
    }
    #[inline(always)]
    fn y(&self) -> F::Signed {
        self.y
    }
}

impl<F: Field> Affine<F> {
    /// Twice the point, given 1 / (2 y).
    #[inline(always)]
    pub(crate) fn double(&self, f: F, inverse: &F::Factor) -> Affine<F> {
        let three_x_squared = f.square_tripled([F::as_factor(&self.x)]);
        let slope = f.product([&three_x_squared[0]], [inverse]);
        let [double] = third(f, &slope, [self], [&self.x]);
        double
    }

    /// The denominator of doubling.
    #[inline(always)]
    pub(crate) fn double_denominator(&self, f: F) -> F::Factor {
        f.doubled_factor(&F::lazy(&self.y))
    }
}

/// a - b, for multiplying.
#[inline(always)]
fn difference<F: Field>(f: F, a: &F::Fe, b: &F::Fe) -> F::Factor {
    f.factor(&f.minus::<1, 1, 2>(&F::lazy(a), &F::lazy(b)))
}

/// The denominator of p + q: zero where they are equal or opposite.
#[inline(always)]
pub(crate) fn sum_denominator<F: Field>(f: F, p: &impl Term<F>, q: &impl Term<F>) -> F::Factor {
    difference(f, q.x(), p.x())
}

/// p + q for N independent pairs, given the inverses of their denominators.
#[inline(always)]
pub(crate) fn sum<F: Field, const N: usize, P: Term<F>, Q: Term<F>>(
    f: F,
    p: [&P; N],
    q: [&Q; N],
    inverses: &[F::Factor; N],
) -> [Affine<F>; N] {
    let numerators = each!(N, i => f.signed_difference(&q[i].y(), &p[i].y()));
    let slopes = f.product(each!(N, i => &numerators[i]), each!(N, i => &inverses[i]));
    third(f, &slopes, p, each!(N, i => q[i].x()))
}

/// The sums of the points with x-coordinates p.x and `q_x` on lines of these slopes through p.
#[inline(always)]
fn third<F: Field, const N: usize, P: Term<F>>(
    f: F,
    slopes: &[F::Factor; N],
    p: [&P; N],
    q_x: [&F::Fe; N],
) -> [Affine<F>; N] {
    let less = each!(N, i => f.plus::<1, 1, 2>(&F::lazy(p[i].x()), &F::lazy(q_x[i])));
    let x = f.square_minus(each!(N, i => &slopes[i]), less);
    let runs = each!(N, i => difference(f, p[i].x(), &x[i]));
    let y =
        f.product_minus_signed(each!(N, i => &slopes[i]), each!(N, i => &runs[i]), each!(N, i => p[i].y()));
    each!(N, i => Affine { x: x[i], y: y[i] })
}

impl<F: Field, const N: usize> Jacobian<F, N> {
    /// The points as they are.
    #[inline(always)]
    pub(crate) fn start(f: F, points: [&Affine<F>; N]) -> Self {
        let one = f.small(1);
        Jacobian {
            x: each!(N, i => points[i].x),
            y_twice: each!(N, i => f.reduce(&points[i].double_denominator(f))),
            z: [*F::as_factor(&one); N],
        }
    }

    /// Two to the power of `TIMES` times the points.
    #[inline(always)]
    pub(crate) fn doubled<const TIMES: u32>(self, f: F) -> Self {
        let mut point = self;
        for _ in 0..TIMES {
            point = point.double(f);
        }
        point
    }

    /// Twice the points: with A = 3 X^2 and D = 4 X Y^2, X' = A^2 - 2 D, Z' = 2 Y Z, 2 Y' = 2 A (D - X') - 16 Y^4. Z',
    /// which nothing of this doubling or the next waits for, comes last.
    #[inline(always)]
    fn double(&self, f: F) -> Self {
        let p = self;
        let y_twice = each!(N, i => F::as_factor(&p.y_twice[i]));
        let four_y_squared = f.square(y_twice);
        let a = f.square_tripled(each!(N, i => F::as_factor(&p.x[i])));
        let d = f.product_reduced(each!(N, i => F::as_factor(&p.x[i])), each!(N, i => &four_y_squared[i]));
        let less = each!(N, i => f.plus::<1, 1, 2>(&F::lazy(&d[i]), &F::lazy(&d[i])));
        let x = f.square_minus(each!(N, i => &a[i]), less);
        let run = each!(N, i => doubled_difference(f, &d[i], &x[i]));
        let y_next = f.product_minus_square(
            each!(N, i => &a[i]),
            each!(N, i => &run[i]),
            each!(N, i => &four_y_squared[i]),
        );
        let z = f.product(y_twice, each!(N, i => &p.z[i]));
        Jacobian { x, y_twice: y_next, z }
    }

    /// The sum with affine points; Z becomes zero where they are equal or opposite.
    ///
    /// With H = x Z^2 - X, I = 4 H^2, J = H I, V = X I and R = 2 y Z^3 - 2 Y:
    /// X' = R^2 - J - 2 V, Z' = 2 Z H, 2 Y' = 2 R (V - X') - 4 Y J.
    #[inline(always)]
    pub(crate) fn plus(self, f: F, q: [&Affine<F>; N]) -> Self {
        let p = &self;
        let (p_x, p_z) = (each!(N, i => F::as_factor(&p.x[i])), each!(N, i => &p.z[i]));
        let zz = f.square(p_z);
        let h = f.product_minus(
            each!(N, i => F::as_factor(&q[i].x)),
            each!(N, i => &zz[i]),
            each!(N, i => F::lazy(&p.x[i])),
        );
        let zzz = f.product(p_z, each!(N, i => &zz[i]));
        let h_twice = each!(N, i => f.doubled_factor(&F::lazy(&h[i])));
        let i_ = f.square(each!(N, i => &h_twice[i]));
        let r = f.product_doubled_minus(
            each!(N, i => F::as_factor(&q[i].y)),
            each!(N, i => &zzz[i]),
            each!(N, i => &p.y_twice[i]),
        );
        let j = f.product_reduced(each!(N, i => F::as_factor(&h[i])), each!(N, i => &i_[i]));
        let v = f.product_reduced(p_x, each!(N, i => &i_[i]));
        let less = each!(N, i => {
            let v_twice = f.plus::<1, 1, 2>(&F::lazy(&v[i]), &F::lazy(&v[i]));
            f.plus::<1, 2, 3>(&F::lazy(&j[i]), &v_twice)
        });
        let x = f.square_minus(each!(N, i => &r[i]), less);
        let z = f.product(p_z, each!(N, i => &h_twice[i]));
        let run = each!(N, i => doubled_difference(f, &v[i], &x[i]));
        let j_twice = each!(N, i => f.doubled_factor(&F::lazy(&j[i])));
        let y_twice = f.product_minus_product(
            each!(N, i => &r[i]),
            each!(N, i => &run[i]),
            each!(N, i => F::as_factor(&p.y_twice[i])),
            each!(N, i => &j_twice[i]),
        );
        Jacobian { x, y_twice, z }
    }
}

/// 2 (a - b), for multiplying.
#[inline(always)]
fn doubled_difference<F: Field>(f: F, a: &F::Fe, b: &F::Fe) -> F::Factor {
    f.doubled_factor(&f.minus::<1, 1, 2>(&F::lazy(a), &F::lazy(b)))
}

impl<F: Field> Jacobian<F, 1> {
    /// The affine point, given 1 / Z.
    #[inline(always)]
    pub(crate) fn to_affine(self, f: F, inverse: &F::Factor) -> Affine<F> {
        // Half of 2Y / Z^3: with 1 / 2 = (p + 1) / 2.
        const HALF: [u64; 4] = [0xFFFF_FFFF_7FFF_FE18, u64::MAX, u64::MAX, u64::MAX >> 1];
        let half = f.load_lanes(
            #[inline(always)]
            |_| HALF,
        );
        let squared = f.square([inverse]);
        let cubed = f.product([&squared[0]], [inverse]);
        let [x] = f.product_reduced([F::as_factor(&self.x[0])], [&squared[0]]);
        let y_half = f.product([F::as_factor(&self.y_twice[0])], [F::as_factor(&half)]);
        let [y] = f.product_reduced([&y_half[0]], [&cubed[0]]);
        Affine { x, y }
    }
}
