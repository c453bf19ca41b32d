//! Compressed keys: the square roots of 32 at a time.
//!
//! Only finds y = (x^3 + 7)^((p + 1) / 4) with the parity asked for. Where x^3 + 7 is not a square, or x not below p,
//! the result is not a point, which libsecp256k1 finds when it parses the pair: nothing here decides what is a key.
//!
//! Budget: 0.3 us a key (bench `verify`, `parse/64`).

use super::field::{Factor, Fe, product, product_plus, square};
use super::lanes::{Ifma, LaneMask};
use super::point::each;
use crate::scalar::{bytes, words};

/// Appends the uncompressed form of each compressed key; of other bytes, a pair that is no point.
#[target_feature(enable = "avx512f,avx512ifma")]
pub(crate) fn uncompress(ifma: Ifma, keys: &[[u8; 33]], uncompressed: &mut Vec<[u8; 65]>) {
    for keys in keys.chunks(32) {
        match keys.len() {
            17.. => uncompress_4(ifma, keys, uncompressed),
            9.. => uncompress_2(ifma, keys, uncompressed),
            _ => uncompress_1(ifma, keys, uncompressed),
        }
    }
}

/// Eight keys, the last repeated where there are fewer: their x-coordinates and the lanes whose y is odd.
fn load(ifma: Ifma, keys: &[[u8; 33]], group: usize) -> (Fe, LaneMask) {
    let (mut x, mut odd) = ([[0; 4]; 8], 0);
    for (lane, x) in x.iter_mut().enumerate() {
        let key = &keys[(8 * group + lane).min(keys.len() - 1)];
        let (_, coordinate) = key.split_first_chunk::<1>().expect("33 bytes");
        *x = words(coordinate.first_chunk().expect("32 bytes"));
        odd |= (key[0] & 1) << lane;
    }
    (Fe::from_lanes(ifma, &x), LaneMask(odd))
}

fn store(y: Fe, keys: &[[u8; 33]], group: usize, uncompressed: &mut Vec<[u8; 65]>) {
    for (key, y) in keys.iter().skip(8 * group).zip(y.to_lanes()) {
        let mut pair = [4; 65];
        pair[1..33].copy_from_slice(&key[1..]);
        pair[33..].copy_from_slice(&bytes(&y));
        uncompressed.push(pair);
    }
}

macro_rules! uncompress {
    ($name:ident, $n:tt) => {
        #[target_feature(enable = "avx512f,avx512ifma")]
        fn $name(ifma: Ifma, keys: &[[u8; 33]], uncompressed: &mut Vec<[u8; 65]>) {
            #[target_feature(enable = "avx512f,avx512ifma")]
            fn squared(a: &[Factor; $n], times: u32) -> [Factor; $n] {
                let mut a = *a;
                for _ in 0..times {
                    a = each!($n, i => square(&a[i]).factor());
                }
                a
            }
            #[target_feature(enable = "avx512f,avx512ifma")]
            fn times(a: &[Factor; $n], b: &[Factor; $n]) -> [Factor; $n] {
                each!($n, i => product(&a[i], &b[i]).factor())
            }
            let loaded = each!($n, i => load(ifma, keys, i));
            let seven = Fe::small(ifma, 7);
            let a = each!($n, i => {
                let x = &loaded[i].0;
                product_plus(&square(x).factor(), x, seven.lazy()).factor()
            });
            // (p + 1) / 4 is, in binary, 223 ones, a zero, 22 ones, 0000, 11, 00. With ones(k) = a^(2^k - 1),
            // ones(j + k) is ones(j) squared k times, times ones(k).
            let ones_2 = times(&squared(&a, 1), &a);
            let ones_3 = times(&squared(&ones_2, 1), &a);
            let ones_6 = times(&squared(&ones_3, 3), &ones_3);
            let ones_9 = times(&squared(&ones_6, 3), &ones_3);
            let ones_11 = times(&squared(&ones_9, 2), &ones_2);
            let ones_22 = times(&squared(&ones_11, 11), &ones_11);
            let ones_44 = times(&squared(&ones_22, 22), &ones_22);
            let ones_88 = times(&squared(&ones_44, 44), &ones_44);
            let ones_176 = times(&squared(&ones_88, 88), &ones_88);
            let ones_220 = times(&squared(&ones_176, 44), &ones_44);
            let ones_223 = times(&squared(&ones_220, 3), &ones_3);
            let root = times(&squared(&ones_223, 23), &ones_22);
            let root = times(&squared(&root, 6), &ones_2);
            let root = squared(&root, 2);
            for group in 0..$n {
                let y = root[group].reduce().canonical();
                let wrong = LaneMask(y.odd_lanes().0 ^ loaded[group].1.0);
                let y = y.replaced(wrong, y.lazy().negated::<2>().reduce());
                store(y, keys, group, uncompressed);
            }
        }
    };
}
uncompress!(uncompress_1, 1);
uncompress!(uncompress_2, 2);
uncompress!(uncompress_4, 4);
