//! Compressed keys: the square roots of 32 at a time.
//!
//! Only finds y = (x^3 + 7)^((p + 1) / 4) with the parity asked for. Where x^3 + 7 is not a square, or x not below p,
//! the result is not a point, which libsecp256k1 finds when it parses the pair: nothing here decides what is a key.
//!
//! Budget: 0.3 us a key (bench `verify`, `parse/64`).

use super::field::{Field, LANES_MAX, each};
use crate::scalar::{bytes, subtract, words};

/// Appends the uncompressed form of each compressed key; of other bytes, a pair that is no point.
pub(crate) fn uncompress<F: Field>(f: F, keys: &[[u8; 33]], uncompressed: &mut Vec<[u8; 65]>) {
    for keys in keys.chunks(4 * F::LANES) {
        match keys.len().div_ceil(F::LANES) {
            3.. => uncompress_groups::<F, 4>(f, keys, uncompressed),
            2 => uncompress_groups::<F, 2>(f, keys, uncompressed),
            _ => uncompress_groups::<F, 1>(f, keys, uncompressed),
        }
    }
}

/// The x-coordinates of a group's keys, the last repeated where there are fewer.
#[inline(always)]
fn load<F: Field>(f: F, keys: &[[u8; 33]], group: usize) -> F::Fe {
    f.load_lanes(
        #[inline(always)]
        |lane| {
            let key = &keys[(F::LANES * group + lane).min(keys.len() - 1)];
            let (_, coordinate) = key.split_first_chunk::<1>().expect("33 bytes");
            words(coordinate.first_chunk().expect("32 bytes"))
        },
    )
}

fn uncompress_groups<F: Field, const N: usize>(f: F, keys: &[[u8; 33]], uncompressed: &mut Vec<[u8; 65]>) {
    let root = roots::<F, N>(f, keys);
    for (group, root) in root.iter().enumerate() {
        let y = with_parity(f, keys, group, root);
        for (key, y) in keys.iter().skip(F::LANES * group).take(F::LANES).zip(y) {
            let mut pair = [4; 65];
            pair[1..33].copy_from_slice(&key[1..]);
            pair[33..].copy_from_slice(&bytes(&y));
            uncompressed.push(pair);
        }
    }
}

/// Each lane's root, or its negation, with the parity that the key asks for.
fn with_parity<F: Field>(f: F, keys: &[[u8; 33]], group: usize, root: &F::Factor) -> [[u64; 4]; LANES_MAX] {
    f.enter(
        #[inline(always)]
        || {
            let mut y = f.to_lanes(&f.reduce(root));
            for (key, y) in keys.iter().skip(F::LANES * group).zip(&mut y) {
                if (key[0] ^ y[0] as u8) & 1 == 1 {
                    *y = negated(y);
                }
            }
            y
        },
    )
}

/// p - y, for y below p; of zero, p, which no key has for a coordinate.
fn negated(y: &[u64; 4]) -> [u64; 4] {
    const P: [u64; 4] = [0xFFFF_FFFE_FFFF_FC2F, u64::MAX, u64::MAX, u64::MAX];
    subtract(&P, y)
}

/// The power (p + 1) / 4 of x^3 + 7, for N groups: a square root where there is one.
fn roots<F: Field, const N: usize>(f: F, keys: &[[u8; 33]]) -> [F::Factor; N] {
    f.enter(
        #[inline(always)]
        || {
            let x = each!(N, i => load(f, keys, i));
            let squares = f.square(each!(N, i => F::as_factor(&x[i])));
            let cubes = f.product_reduced(each!(N, i => &squares[i]), each!(N, i => F::as_factor(&x[i])));
            let seven = f.small(7);
            let a = each!(N, i => f.factor(&f.plus::<1, 1, 2>(&F::lazy(&cubes[i]), &F::lazy(&seven))));
            // (p + 1) / 4 is, in binary, 223 ones, a zero, 22 ones, 0000, 11, 00. With ones(k) = a^(2^k - 1),
            // ones(j + k) is ones(j) squared k times, times ones(k).
            let ones_2 = squared_times(f, &a, 1, &a);
            let ones_3 = squared_times(f, &ones_2, 1, &a);
            let ones_6 = squared_times(f, &ones_3, 3, &ones_3);
            let ones_9 = squared_times(f, &ones_6, 3, &ones_3);
            let ones_11 = squared_times(f, &ones_9, 2, &ones_2);
            let ones_22 = squared_times(f, &ones_11, 11, &ones_11);
            let ones_44 = squared_times(f, &ones_22, 22, &ones_22);
            let ones_88 = squared_times(f, &ones_44, 44, &ones_44);
            let ones_176 = squared_times(f, &ones_88, 88, &ones_88);
            let ones_220 = squared_times(f, &ones_176, 44, &ones_44);
            let ones_223 = squared_times(f, &ones_220, 3, &ones_3);
            let root = squared_times(f, &ones_223, 23, &ones_22);
            let root = squared_times(f, &root, 6, &ones_2);
            let root = f.square(each!(N, i => &root[i]));
            f.square(each!(N, i => &root[i]))
        },
    )
}

/// a^(2^times) b.
fn squared_times<F: Field, const N: usize>(
    f: F,
    a: &[F::Factor; N],
    times: u32,
    b: &[F::Factor; N],
) -> [F::Factor; N] {
    f.enter(
        #[inline(always)]
        || {
            let mut a = *a;
            for _ in 0..times {
                a = f.square(each!(N, i => &a[i]));
            }
            f.product(each!(N, i => &a[i]), each!(N, i => &b[i]))
        },
    )
}
