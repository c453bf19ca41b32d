//! Many inverses for the price of one: products are built up, one is inverted, and taken apart again (Montgomery).
//!
//! Invariant: a zero never spoils its neighbours. It is found in the product of all, reported with its lanes, and one
//! stands in for it. That costs a second pass over the values and a look at each: 4 products a value where 3 are usual,
//! however many zeros there are.
//!
//! Budget: 3 products a value, and 1 us.

use super::field::{Field, LaneMask, each};

/// Independent products that are built side by side to hide latency.
const CHAINS: usize = 4;

/// Replaces each value by its inverse; reports the lanes of each value that were zero, which end as rubbish.
///
/// `products` is room to work in.
pub(crate) fn invert_all<F: Field>(
    f: F,
    values: &mut Vec<F::Factor>,
    products: &mut Vec<F::Factor>,
    zero: impl FnMut(usize, LaneMask),
) {
    let len = values.len();
    if len == 0 {
        return;
    }
    values.resize(len.next_multiple_of(CHAINS), *F::as_factor(&f.small(1)));
    let mut ends = multiply_up(f, values, products);
    let mut total = total(f, &ends);
    if !f.zeros(&total).is_empty() {
        replace_zeros(f, values, zero);
        ends = multiply_up(f, values, products);
        total = self::total(f, &ends);
    }
    let inverses = inverses_of(f, &ends, &total);
    take_apart(f, values, products, inverses);
    values.truncate(len);
}

/// Replaces zeros by ones and reports them.
fn replace_zeros<F: Field>(f: F, values: &mut [F::Factor], mut zero: impl FnMut(usize, LaneMask)) {
    f.enter(
        #[inline(always)]
        || {
            let one = f.small(1);
            for (index, value) in values.iter_mut().enumerate() {
                let zeros = f.zeros(&f.reduce(value));
                if !zeros.is_empty() {
                    *value = f.select(value, zeros, F::as_factor(&one));
                    zero(index, zeros);
                }
            }
        },
    );
}

/// Fills `products` with the product of every value and those a multiple of [`CHAINS`] before it; returns the last
/// ones.
fn multiply_up<F: Field>(f: F, values: &[F::Factor], products: &mut Vec<F::Factor>) -> [F::Factor; CHAINS] {
    f.enter(
        #[inline(always)]
        || {
            products.clear();
            let (blocks, _) = values.as_chunks::<CHAINS>();
            let mut ends = blocks[0];
            products.extend_from_slice(&ends);
            for block in &blocks[1..] {
                ends = f.product(each!(CHAINS, i => &ends[i]), each!(CHAINS, i => &block[i]));
                products.extend_from_slice(&ends);
            }
            ends
        },
    )
}

/// The product of all ends.
fn total<F: Field>(f: F, ends: &[F::Factor; CHAINS]) -> F::Fe {
    f.enter(
        #[inline(always)]
        || {
            let halves = f.product([&ends[0], &ends[2]], [&ends[1], &ends[3]]);
            let [total] = f.product_reduced([&halves[0]], [&halves[1]]);
            total
        },
    )
}

/// The inverse of each end, given their product.
fn inverses_of<F: Field>(f: F, ends: &[F::Factor; CHAINS], total: &F::Fe) -> [F::Factor; CHAINS] {
    f.enter(
        #[inline(always)]
        || {
            let inverse = f.invert_lanes(total);
            let halves = f.product([&ends[0], &ends[2]], [&ends[1], &ends[3]]);
            let [first, second] = f.product([&inverse, &inverse], [&halves[1], &halves[0]]);
            f.product([&first, &first, &second, &second], [&ends[1], &ends[0], &ends[3], &ends[2]])
        },
    )
}

fn take_apart<F: Field>(
    f: F,
    values: &mut [F::Factor],
    products: &[F::Factor],
    mut inverses: [F::Factor; CHAINS],
) {
    f.enter(
        #[inline(always)]
        || {
            let (blocks, _) = values.as_chunks_mut::<CHAINS>();
            let (products, _) = products.as_chunks::<CHAINS>();
            for index in (1..blocks.len()).rev() {
                let (block, before) = (&mut blocks[index], &products[index - 1]);
                let found = f.product(each!(CHAINS, i => &inverses[i]), each!(CHAINS, i => &before[i]));
                inverses = f.product(each!(CHAINS, i => &inverses[i]), each!(CHAINS, i => &block[i]));
                *block = found;
            }
            blocks[0] = inverses;
        },
    );
}
