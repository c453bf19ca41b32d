//! Many inverses for the price of one: products are built up, one is inverted, and taken apart again (Montgomery).
//!
//! Invariant: a zero never spoils its neighbours. It is found in the product of all, reported with its lanes, and one
//! stands in for it. That costs a second pass over the values and a look at each: 4 products a value where 3 are usual,
//! however many zeros there are.
//!
//! Budget: 3 products a value, and 1 us.

use super::field::{Factor, Fe, product};
use super::lanes::{Ifma, LaneMask};
use super::point::each;
use crate::inverse::Modulus;

/// Independent products that are built side by side to hide latency.
const CHAINS: usize = 4;

static P: Modulus = Modulus::new([0xFFFF_FFFE_FFFF_FC2F, u64::MAX, u64::MAX, u64::MAX]);

/// Replaces each value by its inverse; reports the lanes of each value that were zero, which end as rubbish.
///
/// `products` is room to work in.
#[target_feature(enable = "avx512f,avx512ifma")]
pub(crate) fn invert_all(
    ifma: Ifma,
    values: &mut Vec<Factor>,
    products: &mut Vec<Factor>,
    mut zero: impl FnMut(usize, LaneMask),
) {
    let len = values.len();
    if len == 0 {
        return;
    }
    let one = Fe::small(ifma, 1).factor();
    values.resize(len.next_multiple_of(CHAINS), one);
    let mut ends = multiply_up(values, products);
    let mut total = product_of(&ends).reduce();
    if !total.zeros().is_empty() {
        for (index, value) in values.iter_mut().enumerate() {
            let zeros = value.reduce().zeros();
            if !zeros.is_empty() {
                *value = value.replaced(zeros, one);
                zero(index, zeros);
            }
        }
        ends = multiply_up(values, products);
        total = product_of(&ends).reduce();
    }
    let inverses = inverses_of(&ends, invert_lanes(ifma, total));
    take_apart(values, products, inverses);
    values.truncate(len);
}

/// Fills `products` with the product of every value and those a multiple of [`CHAINS`] before it; returns the last
/// ones.
#[target_feature(enable = "avx512f,avx512ifma")]
fn multiply_up(values: &[Factor], products: &mut Vec<Factor>) -> [Factor; CHAINS] {
    products.clear();
    let (blocks, _) = values.as_chunks::<CHAINS>();
    let mut ends = blocks[0];
    products.extend_from_slice(&ends);
    for block in &blocks[1..] {
        ends = each!(4, i => product(&ends[i], &block[i]).factor());
        products.extend_from_slice(&ends);
    }
    ends
}

#[inline(always)]
fn product_of(ends: &[Factor; CHAINS]) -> Factor {
    let first = product(&ends[0], &ends[1]).factor();
    let second = product(&ends[2], &ends[3]).factor();
    product(&first, &second).factor()
}

/// The inverse of each end, given that of their product.
#[inline(always)]
fn inverses_of(ends: &[Factor; CHAINS], inverse: Factor) -> [Factor; CHAINS] {
    let first = product(&ends[0], &ends[1]).factor();
    let second = product(&ends[2], &ends[3]).factor();
    let first_inverse = product(&inverse, &second).factor();
    let second_inverse = product(&inverse, &first).factor();
    [
        product(&first_inverse, &ends[1]).factor(),
        product(&first_inverse, &ends[0]).factor(),
        product(&second_inverse, &ends[3]).factor(),
        product(&second_inverse, &ends[2]).factor(),
    ]
}

#[target_feature(enable = "avx512f,avx512ifma")]
fn take_apart(values: &mut [Factor], products: &[Factor], mut inverses: [Factor; CHAINS]) {
    let (blocks, _) = values.as_chunks_mut::<CHAINS>();
    let (products, _) = products.as_chunks::<CHAINS>();
    for index in (1..blocks.len()).rev() {
        let (block, before) = (&mut blocks[index], &products[index - 1]);
        let found = each!(4, i => product(&inverses[i], &before[i]).factor());
        inverses = each!(4, i => product(&inverses[i], &block[i]).factor());
        *block = found;
    }
    blocks[0] = inverses;
}

/// The inverse in each lane; no lane may be zero.
#[target_feature(enable = "avx512f,avx512ifma")]
pub(crate) fn invert_lanes(ifma: Ifma, value: Fe) -> Factor {
    // Products of lanes four apart, then two, then one: the last is that of all eight lanes, in each.
    let by_four = product(&value, &value.rotated::<4>()).reduce();
    let by_two = product(&by_four, &by_four.rotated::<2>()).reduce();
    let all = product(&by_two, &by_two.rotated::<1>()).reduce();
    let inverse = P.invert(&all.to_lanes()[0]);
    let all = Fe::from_lanes(ifma, &[inverse; 8]);
    let by_two = product(&all, &by_two.rotated::<1>()).factor();
    let by_four = product(&by_two, &by_four.rotated::<2>()).factor();
    product(&by_four, &value.rotated::<4>()).factor()
}
