//! Two lanes of doubles, each operation checked: exact where it is called exact, and its result a normal double.
//!
//! Runs the code of the AVX2 leaf on every machine, in tests. The bounds of elements are checked wherever operations
//! take or return some. Kept out of line, like the other model.

use super::{E, Lanes, Limbs, Processor, power};
use crate::simd::field::{Entry, LaneMask};

/// The model of a processor.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Model;

/// Two doubles.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ModelLanes(pub(crate) [f64; 2]);

impl Processor for Model {
    type Lanes = ModelLanes;
    const LANES: usize = 2;

    fn enter<R>(self, stage: impl FnOnce() -> R) -> R {
        stage()
    }
    #[inline(never)]
    fn operate<R>(self, operation: impl FnOnce() -> R) -> R {
        operation()
    }
    fn check(self, limbs: Limbs<ModelLanes>) -> Limbs<ModelLanes> {
        for (i, limb) in limbs.0.iter().enumerate() {
            let bound = if i == 0 { (1u64 << 51) + (1 << 37) } else { (1 << 50) + 8 };
            for value in limb.0 {
                let units = value * power(-(E[i] as i32));
                assert!(units.abs() <= bound as f64, "limb {i} is {units} units");
                assert_eq!(units.fract(), 0.0, "limb {i} is no multiple of its unit");
            }
        }
        limbs
    }
    fn splat(self, value: f64) -> ModelLanes {
        ModelLanes([value; 2])
    }
    #[inline(never)]
    fn unpack<'a>(self, entry: impl Fn(usize) -> &'a Entry) -> [Limbs<ModelLanes>; 2] {
        let lanes = [entry(0), entry(1)].map(|entry| entry.split().map(|w| limbs(&w)));
        core::array::from_fn(|at| {
            self.check(Limbs(core::array::from_fn(|i| ModelLanes([lanes[0][at][i], lanes[1][at][i]]))))
        })
    }
    fn to_array(self, lanes: ModelLanes) -> [f64; 4] {
        [lanes.0[0], lanes.0[1], 0.0, 0.0]
    }
    fn flipped(self, lanes: ModelLanes, mask: LaneMask) -> ModelLanes {
        let sign = |lane| if mask.contains(lane) { -lanes.0[lane] } else { lanes.0[lane] };
        ModelLanes([sign(0), sign(1)])
    }
    fn replaced(self, lanes: ModelLanes, mask: LaneMask, other: ModelLanes) -> ModelLanes {
        let select = |lane| if mask.contains(lane) { other.0[lane] } else { lanes.0[lane] };
        ModelLanes([select(0), select(1)])
    }
    fn zeros(self, limbs: &Limbs<ModelLanes>) -> LaneMask {
        let zero = |lane: usize| u8::from(limbs.0.iter().all(|limb| limb.0[lane] == 0.0));
        LaneMask(zero(0) | zero(1) << 1)
    }
    fn prefetch(self, _: &Entry) {}
}

/// The balanced limbs of a packed coordinate, by plain bits.
fn limbs(words: &[u64; 4]) -> [f64; 5] {
    core::array::from_fn(|i| {
        let (from, width) = (E[i] as usize, E[i + 1] - E[i]);
        let above = words.get(from / 64 + 1).copied().unwrap_or(0);
        let bits = (u128::from(words[from / 64]) | u128::from(above) << 64) >> (from % 64);
        let digit = (bits as u64 & ((1 << width) - 1)) as i64;
        (digit - (1 << (width - 1))) as f64 * power(from as i32)
    })
}

/// The sum, and what rounding took away: exact for all doubles (Knuth).
fn two_sum(a: f64, b: f64) -> (f64, f64) {
    let sum = a + b;
    let part = sum - a;
    (sum, (a - (sum - part)) + (b - part))
}

/// a b + c, and whether it is exact.
fn fused(a: f64, b: f64, c: f64) -> (f64, bool) {
    let result = a.mul_add(b, c);
    let product = a * b;
    let product_rest = a.mul_add(b, -product);
    // product + product_rest + c - result is zero exactly if these partial sums cancel without a rest.
    let (sum, sum_rest) = two_sum(product, c);
    let (difference, difference_rest) = two_sum(sum, -result);
    let (rest, rest_rest) = two_sum(sum_rest, product_rest);
    (result, difference_rest == 0.0 && rest_rest == 0.0 && difference == -rest)
}

impl Lanes for ModelLanes {
    #[inline(never)]
    fn plus(self, other: ModelLanes) -> ModelLanes {
        ModelLanes(core::array::from_fn(|lane| {
            let (sum, rest) = two_sum(self.0[lane], other.0[lane]);
            assert!(rest == 0.0, "{:e} + {:e} is not exact", self.0[lane], other.0[lane]);
            sum
        }))
    }
    fn minus(self, other: ModelLanes) -> ModelLanes {
        self.plus(ModelLanes(other.0.map(|value| -value)))
    }
    #[inline(never)]
    fn times_plus(self, by: ModelLanes, addend: ModelLanes) -> ModelLanes {
        ModelLanes(core::array::from_fn(|lane| {
            let (result, exact) = fused(self.0[lane], by.0[lane], addend.0[lane]);
            assert!(exact, "{:e} * {:e} + {:e} is not exact", self.0[lane], by.0[lane], addend.0[lane]);
            result
        }))
    }
    #[inline(never)]
    fn rounded_plus(self, other: ModelLanes) -> ModelLanes {
        ModelLanes(core::array::from_fn(|lane| self.0[lane] + other.0[lane]))
    }
    #[inline(never)]
    fn rounded_minus(self, other: ModelLanes) -> ModelLanes {
        ModelLanes(core::array::from_fn(|lane| self.0[lane] - other.0[lane]))
    }
    #[inline(never)]
    fn rounded_times_plus(self, by: ModelLanes, addend: ModelLanes) -> ModelLanes {
        ModelLanes(core::array::from_fn(|lane| self.0[lane].mul_add(by.0[lane], addend.0[lane])))
    }
}
