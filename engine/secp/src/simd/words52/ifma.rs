//! Eight 64-bit integers side by side: the only file that names processor instructions.
//!
//! Owns two types. [`Ifma`] is the proof that this processor has AVX-512 F and IFMA; nothing but [`Ifma::detect`] makes
//! one from nothing. [`Lanes`] is a 512-bit register; the first comes from an `Ifma`, others come from those, so a
//! `Lanes` is such a proof too.
//!
//! That is the invariant every `unsafe` block here rests on: **where a value of either type exists, the instructions
//! exist**. No function reads or writes memory other than through a reference to an array of the register's size.
//!
//! The functions are forced inline and carry no `target_feature` attribute: inlined into the stages, which do, each
//! is one instruction.
#![allow(unsafe_code, reason = "instructions are unsafe to name; each use rests on the proof types above")]

use core::arch::asm;
use core::arch::x86_64::{
    __m512i, _MM_HINT_T0, _mm_cvtsi64_si128, _mm_prefetch, _mm512_add_epi64, _mm512_alignr_epi64,
    _mm512_and_si512, _mm512_cmpeq_epi64_mask, _mm512_loadu_si512, _mm512_madd52hi_epu64,
    _mm512_madd52lo_epu64, _mm512_mask_mov_epi64, _mm512_or_si512, _mm512_set1_epi64, _mm512_setzero_si512,
    _mm512_shuffle_i64x2, _mm512_sll_epi64, _mm512_slli_epi64, _mm512_srl_epi64, _mm512_srli_epi64,
    _mm512_storeu_si512, _mm512_sub_epi64, _mm512_test_epi64_mask, _mm512_unpackhi_epi64,
    _mm512_unpacklo_epi64, _mm512_xor_si512,
};
use core::ops::{Add, BitAnd, BitOr, BitXor, Sub};

use super::{LaneMask, Processor, Words};

/// Proof that this processor has AVX-512 F and IFMA.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ifma(());

/// Eight 64-bit integers.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(crate) struct Lanes(__m512i);

impl Ifma {
    /// The proof, on a processor that has the instructions under a system that saves their registers.
    pub(crate) fn detect() -> Option<Ifma> {
        let present = is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512ifma");
        present.then_some(Ifma(()))
    }
}

impl Processor for Ifma {
    type Words = Lanes;

    fn enter<R>(self, stage: impl FnOnce() -> R) -> R {
        #[target_feature(enable = "avx512f,avx512ifma")]
        fn run<R>(stage: impl FnOnce() -> R) -> R {
            stage()
        }
        // SAFETY: `self` proves the features that `run` is compiled for.
        unsafe { run(stage) }
    }
    #[inline(always)]
    fn operate<R>(self, operation: impl FnOnce() -> R) -> R {
        operation()
    }
    #[inline(always)]
    fn zero(self) -> Lanes {
        // SAFETY: `self` proves AVX-512 F.
        Lanes(unsafe { _mm512_setzero_si512() })
    }

    #[inline(always)]
    fn splat(self, value: u64) -> Lanes {
        // SAFETY: `self` proves AVX-512 F.
        Lanes(unsafe { _mm512_set1_epi64(value.cast_signed()) })
    }

    #[inline(always)]
    fn prefetch(self, values: &[u64; 8]) {
        // SAFETY: every x86-64 processor has the instruction, which changes nothing that can be observed.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(values.as_ptr().cast()) }
    }

    #[inline(always)]
    fn load(self, values: &[u64; 8]) -> Lanes {
        // SAFETY: `self` proves AVX-512 F; the reference is good for reading 64 bytes, and alignment is not asked for.
        Lanes(unsafe { _mm512_loadu_si512(values.as_ptr().cast()) })
    }
}

impl Words for Lanes {
    type Proof = Ifma;

    #[inline(always)]
    fn proof(self) -> Ifma {
        Ifma(())
    }

    #[inline(always)]
    fn to_array(self) -> [u64; 8] {
        let mut values = [0; 8];
        // SAFETY: `self` proves AVX-512 F; the array is good for writing 64 bytes, and alignment is not asked for.
        unsafe { _mm512_storeu_si512(values.as_mut_ptr().cast(), self.0) }
        values
    }

    #[inline(always)]
    fn add_low(self, a: Lanes, b: Lanes) -> Lanes {
        // SAFETY: `self` proves IFMA.
        Lanes(unsafe { _mm512_madd52lo_epu64(self.0, a.0, b.0) })
    }

    #[inline(always)]
    fn add_high(self, a: Lanes, b: Lanes) -> Lanes {
        // SAFETY: `self` proves IFMA.
        Lanes(unsafe { _mm512_madd52hi_epu64(self.0, a.0, b.0) })
    }

    #[inline(always)]
    fn shr<const BITS: u32>(self) -> Lanes {
        // SAFETY: `self` proves AVX-512 F.
        Lanes(unsafe { _mm512_srli_epi64::<BITS>(self.0) })
    }

    #[inline(always)]
    fn shl<const BITS: u32>(self) -> Lanes {
        // SAFETY: `self` proves AVX-512 F.
        Lanes(unsafe { _mm512_slli_epi64::<BITS>(self.0) })
    }

    #[inline(always)]
    fn shr_by(self, bits: u32) -> Lanes {
        // SAFETY: `self` proves AVX-512 F, which every x86-64 processor extends from SSE2.
        Lanes(unsafe { _mm512_srl_epi64(self.0, _mm_cvtsi64_si128(i64::from(bits))) })
    }

    #[inline(always)]
    fn shl_by(self, bits: u32) -> Lanes {
        // SAFETY: `self` proves AVX-512 F, which every x86-64 processor extends from SSE2.
        Lanes(unsafe { _mm512_sll_epi64(self.0, _mm_cvtsi64_si128(i64::from(bits))) })
    }

    #[inline(always)]
    fn zeros(self) -> LaneMask {
        // SAFETY: `self` proves AVX-512 F.
        LaneMask(unsafe { _mm512_cmpeq_epi64_mask(self.0, _mm512_setzero_si512()) })
    }

    #[inline(always)]
    fn test(self, bits: Lanes) -> LaneMask {
        // SAFETY: `self` proves AVX-512 F.
        LaneMask(unsafe { _mm512_test_epi64_mask(self.0, bits.0) })
    }

    #[inline(always)]
    fn replaced(self, mask: LaneMask, other: Lanes) -> Lanes {
        // SAFETY: `self` proves AVX-512 F.
        Lanes(unsafe { _mm512_mask_mov_epi64(self.0, mask.0, other.0) })
    }

    #[inline(always)]
    fn rotated<const BY: i32>(self) -> Lanes {
        // SAFETY: `self` proves AVX-512 F.
        Lanes(unsafe { _mm512_alignr_epi64::<BY>(self.0, self.0) })
    }

    // No instruction: the arguments of one call are computed before the results of a later one are used.
    //
    // Left alone, LLVM sorts the instructions of a product by column, which saves registers but has each wait for the
    // one before it: verification takes 13 % longer.
    #[inline(always)]
    fn in_order(values: [Lanes; 5]) -> [Lanes; 5] {
        #[inline]
        #[target_feature(enable = "avx512f")]
        fn pass([mut a, mut b, mut c, mut d, mut e]: [Lanes; 5]) -> [Lanes; 5] {
            // SAFETY: there are no instructions, only registers to be filled before the next instructions.
            unsafe {
                asm!(
                    "/* {} {} {} {} {} */",
                    inout(zmm_reg) a.0, inout(zmm_reg) b.0, inout(zmm_reg) c.0, inout(zmm_reg) d.0, inout(zmm_reg) e.0,
                    options(nomem, nostack, preserves_flags)
                );
            }
            [a, b, c, d, e]
        }
        // SAFETY: the values prove AVX-512 F.
        unsafe { pass(values) }
    }

    #[inline(always)]
    fn transpose(rows: [Lanes; 8]) -> [Lanes; 8] {
        let r = rows;
        // SAFETY: the rows prove AVX-512 F.
        unsafe {
            // Pairs of rows, words interleaved: the even words of rows 0 and 1, the odd ones, and so on.
            let even01 = _mm512_unpacklo_epi64(r[0].0, r[1].0);
            let odd01 = _mm512_unpackhi_epi64(r[0].0, r[1].0);
            let even23 = _mm512_unpacklo_epi64(r[2].0, r[3].0);
            let odd23 = _mm512_unpackhi_epi64(r[2].0, r[3].0);
            let even45 = _mm512_unpacklo_epi64(r[4].0, r[5].0);
            let odd45 = _mm512_unpackhi_epi64(r[4].0, r[5].0);
            let even67 = _mm512_unpacklo_epi64(r[6].0, r[7].0);
            let odd67 = _mm512_unpackhi_epi64(r[6].0, r[7].0);
            // Rows 0 to 3 of columns 0 and 4, 2 and 6, 1 and 5, 3 and 7; then rows 4 to 7 of the same.
            let low04 = _mm512_shuffle_i64x2::<0x88>(even01, even23);
            let low26 = _mm512_shuffle_i64x2::<0xdd>(even01, even23);
            let low15 = _mm512_shuffle_i64x2::<0x88>(odd01, odd23);
            let low37 = _mm512_shuffle_i64x2::<0xdd>(odd01, odd23);
            let high04 = _mm512_shuffle_i64x2::<0x88>(even45, even67);
            let high26 = _mm512_shuffle_i64x2::<0xdd>(even45, even67);
            let high15 = _mm512_shuffle_i64x2::<0x88>(odd45, odd67);
            let high37 = _mm512_shuffle_i64x2::<0xdd>(odd45, odd67);
            [
                Lanes(_mm512_shuffle_i64x2::<0x88>(low04, high04)),
                Lanes(_mm512_shuffle_i64x2::<0x88>(low15, high15)),
                Lanes(_mm512_shuffle_i64x2::<0x88>(low26, high26)),
                Lanes(_mm512_shuffle_i64x2::<0x88>(low37, high37)),
                Lanes(_mm512_shuffle_i64x2::<0xdd>(low04, high04)),
                Lanes(_mm512_shuffle_i64x2::<0xdd>(low15, high15)),
                Lanes(_mm512_shuffle_i64x2::<0xdd>(low26, high26)),
                Lanes(_mm512_shuffle_i64x2::<0xdd>(low37, high37)),
            ]
        }
    }
}

macro_rules! lane_wise {
    ($operator:ident, $method:ident, $instruction:ident) => {
        impl $operator for Lanes {
            type Output = Lanes;
            #[inline(always)]
            fn $method(self, other: Lanes) -> Lanes {
                // SAFETY: `self` proves AVX-512 F.
                Lanes(unsafe { $instruction(self.0, other.0) })
            }
        }
    };
}
lane_wise!(Add, add, _mm512_add_epi64);
lane_wise!(Sub, sub, _mm512_sub_epi64);
lane_wise!(BitAnd, bitand, _mm512_and_si512);
lane_wise!(BitOr, bitor, _mm512_or_si512);
lane_wise!(BitXor, bitxor, _mm512_xor_si512);

#[cfg(test)]
mod tests {
    use super::*;

    const A: [u64; 8] = [0, 1, u64::MAX, 1 << 51, (1 << 52) - 1, 1 << 52, 0x0123_4567_89ab_cdef, 7];
    const B: [u64; 8] = [3, u64::MAX, 2, 1 << 51, (1 << 52) - 1, 5, 0xfedc_ba98_7654_3210, 0];

    fn each(f: impl Fn(u64, u64) -> u64) -> [u64; 8] {
        core::array::from_fn(|lane| f(A[lane], B[lane]))
    }

    #[test]
    fn every_operation_is_what_it_says_in_each_lane() {
        let Some(ifma) = Ifma::detect() else { return };
        let (a, b) = (ifma.load(&A), ifma.load(&B));
        let low = |x: u64| u128::from(x & ((1 << 52) - 1));
        assert_eq!((a + b).to_array(), each(u64::wrapping_add));
        assert_eq!((a - b).to_array(), each(u64::wrapping_sub));
        assert_eq!((a & b).to_array(), each(|a, b| a & b));
        assert_eq!((a | b).to_array(), each(|a, b| a | b));
        assert_eq!((a ^ b).to_array(), each(|a, b| a ^ b));
        let nine = ifma.splat(9);
        assert_eq!(
            nine.add_low(a, b).to_array(),
            each(|a, b| 9 + ((low(a) * low(b)) & ((1 << 52) - 1)) as u64)
        );
        assert_eq!(nine.add_high(a, b).to_array(), each(|a, b| 9 + ((low(a) * low(b)) >> 52) as u64));
        assert_eq!(a.shr::<12>().to_array(), each(|a, _| a >> 12));
        assert_eq!(a.shl::<12>().to_array(), each(|a, _| a << 12));
        assert_eq!(a.shr_by(63).to_array(), each(|a, _| a >> 63));
        assert_eq!(a.shl_by(64).to_array(), [0; 8]);
        assert_eq!(a.zeros(), LaneMask(1));
        assert_eq!(a.test(ifma.splat(1)), LaneMask(0b1101_0110));
        let mask = LaneMask(0b0101_0011);
        let expected: [u64; 8] =
            core::array::from_fn(|lane| if mask.contains(lane) { B[lane] } else { A[lane] });
        assert_eq!(a.replaced(mask, b).to_array(), expected);
        assert_eq!(a.rotated::<3>().to_array(), core::array::from_fn(|lane| A[(lane + 3) % 8]));
        assert_eq!(ifma.zero().to_array(), [0; 8]);
    }

    #[test]
    fn transposing_swaps_rows_and_lanes() {
        let Some(ifma) = Ifma::detect() else { return };
        let rows = core::array::from_fn(|row| {
            ifma.load(&core::array::from_fn(|lane| (10 * row + lane).try_into().unwrap()))
        });
        for (row, lanes) in Lanes::transpose(rows).into_iter().enumerate() {
            let expected: [u64; 8] = core::array::from_fn(|lane| (10 * lane + row).try_into().unwrap());
            assert_eq!(lanes.to_array(), expected);
        }
    }
}
