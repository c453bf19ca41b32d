//! Eight lanes in plain integers, which check that no sum passes its word and no difference falls below zero.
//!
//! Runs the code of the AVX-512 IFMA leaf on every machine, in tests. Operations are kept out of line: inlined
//! everywhere, they would take minutes to compile.

use core::array::from_fn;
use core::ops::{Add, BitAnd, BitOr, BitXor, Sub};

use super::{LaneMask, Processor, Words};

/// The model of a processor.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Model;

/// Eight integers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ModelLanes([u64; 8]);

/// The low 52 bits.
const LOW: u64 = (1 << 52) - 1;

impl Processor for Model {
    type Words = ModelLanes;

    fn enter<R>(self, stage: impl FnOnce() -> R) -> R {
        stage()
    }
    #[inline(never)]
    fn operate<R>(self, operation: impl FnOnce() -> R) -> R {
        operation()
    }
    fn zero(self) -> ModelLanes {
        ModelLanes([0; 8])
    }
    fn splat(self, value: u64) -> ModelLanes {
        ModelLanes([value; 8])
    }
    fn load(self, values: &[u64; 8]) -> ModelLanes {
        ModelLanes(*values)
    }
    fn prefetch(self, _: &[u64; 8]) {}
}

impl Words for ModelLanes {
    type Proof = Model;

    fn proof(self) -> Model {
        Model
    }
    fn to_array(self) -> [u64; 8] {
        self.0
    }
    #[inline(never)]
    fn add_low(self, a: ModelLanes, b: ModelLanes) -> ModelLanes {
        let product = |i: usize| (u128::from(a.0[i] & LOW) * u128::from(b.0[i] & LOW)) as u64 & LOW;
        ModelLanes(from_fn(|i| self.0[i].checked_add(product(i)).expect("a column stays in its word")))
    }
    #[inline(never)]
    fn add_high(self, a: ModelLanes, b: ModelLanes) -> ModelLanes {
        let product = |i: usize| ((u128::from(a.0[i] & LOW) * u128::from(b.0[i] & LOW)) >> 52) as u64;
        ModelLanes(from_fn(|i| self.0[i].checked_add(product(i)).expect("a column stays in its word")))
    }
    #[inline(never)]
    fn shr<const BITS: u32>(self) -> ModelLanes {
        ModelLanes(self.0.map(|value| value >> BITS))
    }
    #[inline(never)]
    fn shl<const BITS: u32>(self) -> ModelLanes {
        ModelLanes(self.0.map(|value| value << BITS))
    }
    #[inline(never)]
    fn shr_by(self, bits: u32) -> ModelLanes {
        ModelLanes(self.0.map(|value| value.checked_shr(bits).unwrap_or(0)))
    }
    #[inline(never)]
    fn shl_by(self, bits: u32) -> ModelLanes {
        ModelLanes(self.0.map(|value| value.checked_shl(bits).unwrap_or(0)))
    }
    fn zeros(self) -> LaneMask {
        LaneMask((0..8).map(|i| u8::from(self.0[i] == 0) << i).sum())
    }
    fn test(self, bits: ModelLanes) -> LaneMask {
        LaneMask((0..8).map(|i| u8::from(self.0[i] & bits.0[i] != 0) << i).sum())
    }
    #[inline(never)]
    fn replaced(self, mask: LaneMask, other: ModelLanes) -> ModelLanes {
        ModelLanes(from_fn(|i| if mask.contains(i) { other.0[i] } else { self.0[i] }))
    }
    fn rotated<const BY: i32>(self) -> ModelLanes {
        ModelLanes(from_fn(|i| self.0[(i + BY as usize) % 8]))
    }
    fn in_order(values: [ModelLanes; 5]) -> [ModelLanes; 5] {
        values
    }
    fn transpose(rows: [ModelLanes; 8]) -> [ModelLanes; 8] {
        from_fn(|i| ModelLanes(from_fn(|j| rows[j].0[i])))
    }
}

macro_rules! lane_wise {
    ($operator:ident, $method:ident, $value:expr) => {
        impl $operator for ModelLanes {
            type Output = ModelLanes;
            #[inline(never)]
            fn $method(self, other: ModelLanes) -> ModelLanes {
                let value: fn(u64, u64) -> u64 = $value;
                ModelLanes(from_fn(|i| value(self.0[i], other.0[i])))
            }
        }
    };
}
lane_wise!(Add, add, |a, b| a.checked_add(b).expect("a sum stays in its word"));
lane_wise!(Sub, sub, |a, b| a.checked_sub(b).expect("a difference is not negative"));
lane_wise!(BitAnd, bitand, |a, b| a & b);
lane_wise!(BitOr, bitor, |a, b| a | b);
lane_wise!(BitXor, bitxor, |a, b| a ^ b);
