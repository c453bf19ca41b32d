//! Inverses modulo an odd 256-bit number, in variable time: for public data only.
//!
//! Owns the division steps of Bernstein and Yang ("Fast constant-time gcd computation and modular inversion"), taken 62
//! at a time on the low words of f and g, then applied to the whole numbers as one 2x2 matrix. Zero bits of g are
//! skipped at once, so the time depends on the number.
//!
//! Invariants: f and g shrink, f is odd, gcd(f, g) stays that of the modulus and the number; d * number = f and
//! e * number = g modulo the modulus, with d and e in (-2 modulus, modulus). When g is zero, f is 1 or -1.
//!
//! Budget: 0.9 us.

/// An odd modulus with the constants of its reduction.
pub(crate) struct Modulus {
    limbs: Limbs,
    /// 1 / modulus modulo 2^62.
    inverse: u64,
}

/// A signed number: the sum of limb k * 2^(62 k). Limbs 0 to 3 are in [0, 2^62), limb 4 has the sign.
#[derive(Clone, Copy)]
struct Limbs([i64; 5]);

/// The matrix of 62 division steps on (f, g), times 2^62.
struct Matrix {
    u: i64,
    v: i64,
    q: i64,
    r: i64,
}

/// Inverses in the field of secp256k1.
pub(crate) static FIELD: Modulus = Modulus::new([0xFFFF_FFFE_FFFF_FC2F, u64::MAX, u64::MAX, u64::MAX]);

const MASK_62: u64 = (1 << 62) - 1;

impl Modulus {
    /// A modulus, odd and below 2^256.
    pub(crate) const fn new(words: [u64; 4]) -> Modulus {
        assert!(words[0] & 1 == 1);
        // Newton's iteration doubles the number of right bits: 5, 10, 20, 40, 80.
        let mut inverse = words[0].wrapping_mul(3) ^ 2;
        let mut round = 0;
        while round < 4 {
            inverse = inverse.wrapping_mul(2u64.wrapping_sub(words[0].wrapping_mul(inverse)));
            round += 1;
        }
        Modulus { limbs: Limbs::new(words), inverse: inverse & MASK_62 }
    }

    /// 1 / number, for a number below the modulus and prime to it; of zero, zero.
    pub(crate) fn invert(&self, number: &[u64; 4]) -> [u64; 4] {
        let (mut f, mut g) = (self.limbs, Limbs::new(*number));
        let (mut d, mut e) = (Limbs([0; 5]), Limbs([1, 0, 0, 0, 0]));
        // Minus the paper's delta.
        let mut eta = -1i64;
        let mut len = 5;
        loop {
            let matrix = division_steps(&mut eta, f.0[0].cast_unsigned(), g.0[0].cast_unsigned());
            self.apply_modulo(&matrix, &mut d, &mut e);
            apply(&matrix, &mut f, &mut g, len);
            if g.0[..len].iter().all(|limb| *limb == 0) {
                break;
            }
            len = shortened(&mut f, &mut g, len);
        }
        self.canonical(d, f.0[len - 1] < 0)
    }

    /// (d, e) becomes (u d + v e, q d + r e) / 2^62 modulo the modulus.
    #[inline]
    fn apply_modulo(&self, m: &Matrix, d: &mut Limbs, e: &mut Limbs) {
        let modulus = &self.limbs.0;
        // Add the modulus to negative values, so that the results stay in (-2 modulus, modulus).
        let (d_sign, e_sign) = (d.0[4] >> 63, e.0[4] >> 63);
        let mut md = (m.u & d_sign) + (m.v & e_sign);
        let mut me = (m.q & d_sign) + (m.r & e_sign);
        let mut cd = wide(m.u, d.0[0]) + wide(m.v, e.0[0]);
        let mut ce = wide(m.q, d.0[0]) + wide(m.r, e.0[0]);
        // Then as many times the modulus as make the low 62 bits zero.
        md -= low(self.inverse.wrapping_mul(cd as u64).wrapping_add(md.cast_unsigned()));
        me -= low(self.inverse.wrapping_mul(ce as u64).wrapping_add(me.cast_unsigned()));
        cd = (cd + wide(modulus[0], md)) >> 62;
        ce = (ce + wide(modulus[0], me)) >> 62;
        for (k, modulus) in modulus.iter().enumerate().skip(1) {
            cd += wide(m.u, d.0[k]) + wide(m.v, e.0[k]) + wide(*modulus, md);
            ce += wide(m.q, d.0[k]) + wide(m.r, e.0[k]) + wide(*modulus, me);
            d.0[k - 1] = low(cd as u64);
            e.0[k - 1] = low(ce as u64);
            cd >>= 62;
            ce >>= 62;
        }
        d.0[4] = cd as i64;
        e.0[4] = ce as i64;
    }

    /// A number in (-2 modulus, modulus), negated if asked, in [0, modulus).
    fn canonical(&self, number: Limbs, negate: bool) -> [u64; 4] {
        let mut limbs = number.0;
        let add_if = |limbs: &mut [i64; 5], condition: bool| {
            if condition {
                limbs.iter_mut().zip(&self.limbs.0).for_each(|(limb, modulus)| *limb += modulus);
            }
        };
        let carry = |limbs: &mut [i64; 5]| {
            for k in 0..4 {
                limbs[k + 1] += limbs[k] >> 62;
                limbs[k] = low(limbs[k].cast_unsigned());
            }
        };
        let negative = limbs[4] < 0;
        add_if(&mut limbs, negative);
        if negate {
            limbs.iter_mut().for_each(|limb| *limb = -*limb);
        }
        carry(&mut limbs);
        let negative = limbs[4] < 0;
        add_if(&mut limbs, negative);
        carry(&mut limbs);
        let [a, b, c, d, e] = limbs.map(i64::cast_unsigned);
        [a | b << 62, b >> 2 | c << 60, c >> 4 | d << 58, d >> 6 | e << 56]
    }
}

impl Limbs {
    const fn new(w: [u64; 4]) -> Limbs {
        Limbs([
            (w[0] & MASK_62).cast_signed(),
            ((w[0] >> 62 | w[1] << 2) & MASK_62).cast_signed(),
            ((w[1] >> 60 | w[2] << 4) & MASK_62).cast_signed(),
            ((w[2] >> 58 | w[3] << 6) & MASK_62).cast_signed(),
            (w[3] >> 56).cast_signed(),
        ])
    }
}

/// Sixty-two division steps on the low words of f and g.
#[inline]
fn division_steps(eta: &mut i64, f: u64, g: u64) -> Matrix {
    let (mut f, mut g) = (f, g);
    // The matrix so far, times 2^(steps made); entries are at most 2^62 in size, kept modulo 2^64.
    let (mut u, mut v, mut q, mut r) = (1u64, 0u64, 0u64, 1u64);
    let mut left = 62u32;
    loop {
        // Halve g as often as it is even, but no more than there are steps left.
        let zeros = (g | u64::MAX << left).trailing_zeros();
        g >>= zeros;
        u <<= zeros;
        v <<= zeros;
        *eta -= i64::from(zeros);
        left -= zeros;
        if left == 0 {
            break;
        }
        let bits;
        let times;
        if *eta < 0 {
            // Swap, negating, and then cancel up to six low bits of g: f * (f^2 - 2) is -1 / f modulo 2^6.
            *eta = -*eta;
            (f, g) = (g, f.wrapping_neg());
            (u, q) = (q, u.wrapping_neg());
            (v, r) = (r, v.wrapping_neg());
            bits = steps_until_swap(*eta, left).min(6);
            times = f.wrapping_mul(g).wrapping_mul(f.wrapping_mul(f).wrapping_sub(2));
        } else {
            // Few steps until a swap are common here: four bits, with -1 / f modulo 2^4 from less arithmetic.
            bits = steps_until_swap(*eta, left).min(4);
            let inverse = f.wrapping_add((f.wrapping_add(1) & 4) << 1);
            times = inverse.wrapping_neg().wrapping_mul(g);
        }
        let times = times & (u64::MAX >> (64 - bits));
        g = g.wrapping_add(f.wrapping_mul(times));
        q = q.wrapping_add(u.wrapping_mul(times));
        r = r.wrapping_add(v.wrapping_mul(times));
    }
    Matrix { u: u.cast_signed(), v: v.cast_signed(), q: q.cast_signed(), r: r.cast_signed() }
}

/// How many steps can be made without a swap: eta + 1, if as many are left.
#[inline]
fn steps_until_swap(eta: i64, left: u32) -> u32 {
    u32::try_from(eta + 1).unwrap_or(u32::MAX).min(left)
}

/// (f, g) becomes (u f + v g, q f + r g) / 2^62, which is exact.
#[inline]
fn apply(m: &Matrix, f: &mut Limbs, g: &mut Limbs, len: usize) {
    let mut cf = (wide(m.u, f.0[0]) + wide(m.v, g.0[0])) >> 62;
    let mut cg = (wide(m.q, f.0[0]) + wide(m.r, g.0[0])) >> 62;
    for k in 1..len {
        cf += wide(m.u, f.0[k]) + wide(m.v, g.0[k]);
        cg += wide(m.q, f.0[k]) + wide(m.r, g.0[k]);
        f.0[k - 1] = low(cf as u64);
        g.0[k - 1] = low(cg as u64);
        cf >>= 62;
        cg >>= 62;
    }
    f.0[len - 1] = cf as i64;
    g.0[len - 1] = cg as i64;
}

/// Drops the top limb of both if it is but a sign, which the next limb then takes.
#[inline]
fn shortened(f: &mut Limbs, g: &mut Limbs, len: usize) -> usize {
    let (f_top, g_top) = (f.0[len - 1], g.0[len - 1]);
    let only_sign = |top: i64| top == 0 || top == -1;
    if len < 2 || !only_sign(f_top) || !only_sign(g_top) {
        return len;
    }
    f.0[len - 2] |= f_top << 62;
    g.0[len - 2] |= g_top << 62;
    len - 1
}

#[inline]
fn wide(a: i64, b: i64) -> i128 {
    i128::from(a) * i128::from(b)
}

/// The low 62 bits.
#[inline]
fn low(word: u64) -> i64 {
    (word & MASK_62).cast_signed()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oracle::{self, Big, Source};

    #[test]
    fn a_number_times_its_inverse_is_one() {
        let mut source = Source::new(2);
        for modulus in [oracle::P, oracle::N] {
            let fast = Modulus::new(modulus.0);
            assert_eq!(fast.invert(&[0; 4]), [0; 4]);
            for _ in 0..1_000 {
                let number = source.nonzero(modulus);
                let inverse = Big(fast.invert(&number.0));
                assert!(inverse < modulus);
                assert_eq!(oracle::multiply(number, inverse, modulus), oracle::ONE, "1 / {number:?}");
            }
        }
    }
}
