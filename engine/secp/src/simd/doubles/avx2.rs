//! Four doubles side by side, in AVX2 registers, with FMA: the only file that names these instructions.
//!
//! Owns two types. [`Avx2`] is the proof that this processor has AVX2 and FMA; nothing but [`Avx2::detect`] makes one
//! from nothing. [`Quad`] is a 256-bit register; the first comes from an `Avx2`, others come from those, so a `Quad` is
//! such a proof too: **where a value of either type exists, the instructions exist**. Every `unsafe` block rests on it.
//!
//! The functions are forced inline and carry no `target_feature` attribute: inlined into stages and operations, which
//! do, each is a few instructions.
#![allow(unsafe_code, reason = "instructions are unsafe to name; each use rests on the proof types above")]

use core::arch::asm;
use core::arch::x86_64::{
    __m256d, __m256i, _CMP_EQ_OQ, _MM_HINT_T0, _mm_prefetch, _mm256_add_pd, _mm256_and_pd, _mm256_and_si256,
    _mm256_blendv_pd, _mm256_castpd_si256, _mm256_castsi256_pd, _mm256_cmp_pd, _mm256_fmadd_pd,
    _mm256_loadu_pd, _mm256_movemask_pd, _mm256_or_pd, _mm256_or_si256, _mm256_permute2f128_pd,
    _mm256_set_epi64x, _mm256_set1_epi64x, _mm256_set1_pd, _mm256_setzero_pd, _mm256_slli_epi64,
    _mm256_sllv_epi64, _mm256_srli_epi64, _mm256_storeu_pd, _mm256_sub_pd, _mm256_unpackhi_pd,
    _mm256_unpacklo_pd, _mm256_xor_pd,
};

use super::{E, Lanes, Limbs, Processor, power};
use crate::simd::field::{Entry, LaneMask};

/// Proof that this processor has AVX2 and FMA.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Avx2(());

/// Four doubles.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(crate) struct Quad(__m256d);

/// The bits of MXCSR that choose the rounding: none for to nearest.
const ROUNDING: u32 = 0x6000;

impl Avx2 {
    /// The proof, on a processor that has the instructions under a system that saves their registers.
    pub(crate) fn detect() -> Option<Avx2> {
        (is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")).then_some(Avx2(()))
    }

    /// From one double a lane.
    #[cfg(test)]
    pub(crate) fn load(self, values: &[f64; 4]) -> Quad {
        // SAFETY: `self` proves AVX; the reference is good for reading 32 bytes, and alignment is not asked for.
        Quad(unsafe { _mm256_loadu_pd(values.as_ptr()) })
    }

    /// The sign bit in the lanes of `mask`.
    #[inline(always)]
    fn signs(self, mask: LaneMask) -> __m256d {
        // SAFETY: `self` proves AVX2.
        unsafe {
            let shifted =
                _mm256_sllv_epi64(_mm256_set1_epi64x(mask.0.into()), _mm256_set_epi64x(60, 61, 62, 63));
            _mm256_and_pd(_mm256_castsi256_pd(shifted), _mm256_set1_pd(-0.0))
        }
    }
}

impl Processor for Avx2 {
    type Lanes = Quad;
    const LANES: usize = 4;

    fn enter<R>(self, stage: impl FnOnce() -> R) -> R {
        #[target_feature(enable = "avx2,fma")]
        fn run<R>(stage: impl FnOnce() -> R) -> R {
            stage()
        }
        let mut control = 0u32;
        // SAFETY: every x86-64 processor has the register, which is written to the reference's four bytes.
        unsafe { asm!("stmxcsr [{}]", in(reg) &raw mut control, options(nostack, preserves_flags)) }
        assert_eq!(control & ROUNDING, 0, "the calling thread rounds doubles other than to nearest");
        // SAFETY: `self` proves the features that `run` is compiled for.
        unsafe { run(stage) }
    }
    #[inline(always)]
    fn operate<R>(self, operation: impl FnOnce() -> R) -> R {
        #[inline(never)]
        #[target_feature(enable = "avx2,fma")]
        fn run<R>(operation: impl FnOnce() -> R) -> R {
            operation()
        }
        // SAFETY: `self` proves the features that `run` is compiled for.
        unsafe { run(operation) }
    }
    #[inline(always)]
    fn splat(self, value: f64) -> Quad {
        // SAFETY: `self` proves AVX.
        Quad(unsafe { _mm256_set1_pd(value) })
    }
    #[inline(always)]
    fn unpack<'a>(self, entry: impl Fn(usize) -> &'a Entry) -> [Limbs<Quad>; 2] {
        let entries = [entry(0), entry(1), entry(2), entry(3)];
        [unpack::<0>(self, entries), unpack::<4>(self, entries)]
    }
    #[inline(always)]
    fn to_array(self, lanes: Quad) -> [f64; 4] {
        let mut values = [0.0; 4];
        // SAFETY: `self` proves AVX; the array is good for writing 32 bytes, and alignment is not asked for.
        unsafe { _mm256_storeu_pd(values.as_mut_ptr(), lanes.0) }
        values
    }
    #[inline(always)]
    fn flipped(self, lanes: Quad, mask: LaneMask) -> Quad {
        // SAFETY: `self` proves AVX.
        Quad(unsafe { _mm256_xor_pd(lanes.0, self.signs(mask)) })
    }
    #[inline(always)]
    fn replaced(self, lanes: Quad, mask: LaneMask, other: Quad) -> Quad {
        // SAFETY: `self` proves AVX.
        Quad(unsafe { _mm256_blendv_pd(lanes.0, other.0, self.signs(mask)) })
    }
    #[inline(always)]
    fn zeros(self, limbs: &Limbs<Quad>) -> LaneMask {
        let a = &limbs.0;
        // SAFETY: `self` proves AVX. Bits of doubles that are zero or have their sign alone stay so when merged.
        let zeros = unsafe {
            let low = _mm256_or_pd(_mm256_or_pd(a[0].0, a[1].0), _mm256_or_pd(a[2].0, a[3].0));
            _mm256_movemask_pd(_mm256_cmp_pd::<_CMP_EQ_OQ>(_mm256_or_pd(low, a[4].0), _mm256_setzero_pd()))
        };
        LaneMask(zeros as u8)
    }
    #[inline(always)]
    fn prefetch(self, entry: &Entry) {
        // SAFETY: every x86-64 processor has the instruction, which changes nothing that can be observed.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(entry.0.as_ptr().cast()) }
    }
}

/// The balanced limbs of the four words from `FROM` on of each entry.
///
/// A digit becomes a double by its bits: under the exponent of 2^(52 + E) they stand for that plus the digit; both that
/// and half the digit's range are taken away.
#[inline(always)]
fn unpack<const FROM: usize>(_: Avx2, entries: [&Entry; 4]) -> Limbs<Quad> {
    // SAFETY: the argument proves AVX2; each entry has four words from `FROM`, which is 0 or 4, on.
    unsafe {
        let row = |lane: usize| _mm256_loadu_pd(entries[lane].0.as_ptr().add(FROM).cast());
        let (even01, odd01) = (_mm256_unpacklo_pd(row(0), row(1)), _mm256_unpackhi_pd(row(0), row(1)));
        let (even23, odd23) = (_mm256_unpacklo_pd(row(2), row(3)), _mm256_unpackhi_pd(row(2), row(3)));
        let w0 = _mm256_castpd_si256(_mm256_permute2f128_pd::<0x20>(even01, even23));
        let w1 = _mm256_castpd_si256(_mm256_permute2f128_pd::<0x20>(odd01, odd23));
        let w2 = _mm256_castpd_si256(_mm256_permute2f128_pd::<0x31>(even01, even23));
        let w3 = _mm256_castpd_si256(_mm256_permute2f128_pd::<0x31>(odd01, odd23));
        let both = |low: __m256i, high: __m256i| {
            _mm256_and_si256(_mm256_or_si256(low, high), _mm256_set1_epi64x((1 << 51) - 1))
        };
        let digits = [
            _mm256_and_si256(w0, _mm256_set1_epi64x((1 << 52) - 1)),
            both(_mm256_srli_epi64::<52>(w0), _mm256_slli_epi64::<12>(w1)),
            both(_mm256_srli_epi64::<39>(w1), _mm256_slli_epi64::<25>(w2)),
            both(_mm256_srli_epi64::<26>(w2), _mm256_slli_epi64::<38>(w3)),
            _mm256_srli_epi64::<13>(w3),
        ];
        let mut limbs = [Quad(_mm256_setzero_pd()); 5];
        for i in 0..5 {
            let base = power(52 + E[i] as i32);
            let half = power(E[i] as i32 + if i == 0 { 51 } else { 50 });
            let raised = _mm256_or_si256(digits[i], _mm256_set1_epi64x(base.to_bits().cast_signed()));
            limbs[i] = Quad(_mm256_sub_pd(_mm256_castsi256_pd(raised), _mm256_set1_pd(base + half)));
        }
        Limbs(limbs)
    }
}

impl Lanes for Quad {
    #[inline(always)]
    fn plus(self, other: Quad) -> Quad {
        // SAFETY: `self` proves AVX.
        Quad(unsafe { _mm256_add_pd(self.0, other.0) })
    }
    #[inline(always)]
    fn minus(self, other: Quad) -> Quad {
        // SAFETY: `self` proves AVX.
        Quad(unsafe { _mm256_sub_pd(self.0, other.0) })
    }
    #[inline(always)]
    fn times_plus(self, by: Quad, addend: Quad) -> Quad {
        // SAFETY: `self` proves FMA.
        Quad(unsafe { _mm256_fmadd_pd(self.0, by.0, addend.0) })
    }
    #[inline(always)]
    fn rounded_plus(self, other: Quad) -> Quad {
        self.plus(other)
    }
    #[inline(always)]
    fn rounded_minus(self, other: Quad) -> Quad {
        self.minus(other)
    }
    #[inline(always)]
    fn rounded_times_plus(self, by: Quad, addend: Quad) -> Quad {
        self.times_plus(by, addend)
    }
}
