//! The lanes against the plain oracle.
#![allow(unsafe_code, reason = "tests enter code compiled for the lanes where `Ifma` proves it can run")]

use super::field::{
    Factor, Fe, product, product_minus_product, product_minus_square, product_plus, square, square_plus,
};
use super::invert::invert_all;
use super::lanes::{Ifma, LaneMask};
use super::point::{Accumulator, Affine, Jacobian, sum, sum_4, sum_denominator};
use crate::oracle::{self, Big, P, Source};

fn eight(source: &mut Source) -> [Big; 8] {
    core::array::from_fn(|_| source.number(P))
}

fn load(ifma: Ifma, values: &[Big; 8]) -> Fe {
    Fe::from_lanes(ifma, &values.map(|value| value.0))
}

#[track_caller]
fn check(found: Fe, expected: impl Fn(usize) -> Big) {
    for (lane, value) in found.to_lanes().into_iter().enumerate() {
        assert_eq!(Big(value), expected(lane), "lane {lane}");
    }
}

#[test]
fn field_operations_are_the_oracles() {
    let Some(ifma) = Ifma::detect() else { return };
    let mut source = Source::new(11);
    let mul = |a, b| oracle::multiply(a, b, P);
    let (add, sub) = (|a, b| oracle::add(a, b, P), |a, b| oracle::subtract(a, b, P));
    for _ in 0..400 {
        let [a, b, c, d]: [[Big; 8]; 4] = core::array::from_fn(|_| eight(&mut source));
        let [fa, fb, fc, fd] = [a, b, c, d].map(|values| load(ifma, &values));
        check(fa, |i| a[i]);
        check(product(&fa, &fb).reduce(), |i| mul(a[i], b[i]));
        check(square(&fa).reduce(), |i| mul(a[i], a[i]));
        check(product_plus(&fa, &fb, fc.lazy()).reduce(), |i| add(mul(a[i], b[i]), c[i]));
        check(square_plus(&fa, fc.lazy()).reduce(), |i| add(mul(a[i], a[i]), c[i]));
        check(product_minus_product(&fa, &fb, &fc, &fd).reduce(), |i| sub(mul(a[i], b[i]), mul(c[i], d[i])));
        check(product_minus_square(&fa, &fb, &fc).reduce(), |i| sub(mul(a[i], b[i]), mul(c[i], c[i])));
        check(square(&fa).times::<3, 3>().reduce(), |i| mul(mul(a[i], a[i]), Big([3, 0, 0, 0])));
        check(product(&fa, &fb).times::<2, 2>().plus::<1, 3>(fc.lazy()).reduce(), |i| {
            add(add(mul(a[i], b[i]), mul(a[i], b[i])), c[i])
        });
        check(fa.lazy().plus::<2, 3>(fb.lazy().negated()).reduce(), |i| sub(a[i], b[i]));
        check(fa.lazy().doubled::<2>().negated::<3>().reduce(), |i| sub(oracle::ZERO, add(a[i], a[i])));
        let mask = LaneMask(source.word() as u8);
        check(fa.lazy().negated_in::<2>(mask).reduce(), |i| {
            if mask.contains(i) { sub(oracle::ZERO, a[i]) } else { a[i] }
        });
        check(fa.replaced(mask, fb), |i| if mask.contains(i) { b[i] } else { a[i] });
        // Products of unmasked and of lazily made factors.
        let factor = product(&fa, &fb).factor();
        check(product(&factor, &factor).reduce(), |i| mul(mul(a[i], b[i]), mul(a[i], b[i])));
        let factor = fa.lazy().plus::<2, 3>(fb.lazy().negated()).doubled::<6>().factor();
        check(product(&factor, &fc).reduce(), |i| mul(add(sub(a[i], b[i]), sub(a[i], b[i])), c[i]));
    }
}

/// The widest bound a sum may have, of the largest limbs.
#[test]
fn a_sum_of_255_reduces() {
    let Some(ifma) = Ifma::detect() else { return };
    let mut source = Source::new(12);
    for round in 0..20 {
        let values = core::array::from_fn(|_| if round == 0 { Big([u64::MAX; 4]) } else { source.number(P) });
        let one = load(ifma, &values).lazy();
        let (two, four, eight) = (one.doubled::<2>(), one.doubled::<2>().doubled::<4>(), one.doubled::<2>());
        let eight = eight.doubled::<4>().doubled::<8>();
        let (sixteen, thirty_two) = (eight.doubled::<16>(), eight.doubled::<16>().doubled::<32>());
        let (sixty_four, rest) = (thirty_two.doubled::<64>(), one.plus::<2, 3>(two).plus::<4, 7>(four));
        let rest = rest.plus::<8, 15>(eight).plus::<16, 31>(sixteen).plus::<32, 63>(thirty_two);
        let all = rest.plus::<64, 127>(sixty_four).plus::<128, 255>(sixty_four.doubled());
        let by_255 = |i: usize| oracle::multiply(values[i].modulo(P), Big([255, 0, 0, 0]), P);
        check(all.reduce(), by_255);
        let squared = |i: usize| oracle::multiply(by_255(i), by_255(i), P);
        check(square(&all.factor()).reduce(), squared);
        check(product(&all.factor(), &all.reduce()).reduce(), squared);
        check(product_minus_square(&all.factor(), &all.reduce(), &all.factor()).reduce(), |_| oracle::ZERO);
        check(
            product_minus_product(&all.reduce(), &one_of(ifma), &one_of(ifma), &all.factor()).reduce(),
            |_| oracle::ZERO,
        );
    }
}

fn one_of(ifma: Ifma) -> Fe {
    Fe::small(ifma, 1)
}

#[test]
fn zero_is_found_in_both_forms() {
    let Some(ifma) = Ifma::detect() else { return };
    let values = [
        oracle::ZERO.0,
        P.0,
        oracle::ONE.0,
        [u64::MAX; 4],
        P.0,
        [0, 0, 0, 1],
        oracle::ZERO.0,
        [P.0[0] - 1, P.0[1], P.0[2], P.0[3]],
    ];
    assert_eq!(Fe::from_lanes(ifma, &values).zeros(), LaneMask(0b0101_0011));
}

#[test]
fn inverses_and_their_zeros_are_found() {
    let mut source = Source::new(13);
    for count in [1, 2, 3, 4, 5, 8, 11, 32, 40] {
        for with_zeros in [false, true] {
            let Some(ifma) = Ifma::detect() else { return };
            let mut numbers: Vec<[Big; 8]> =
                (0..count).map(|_| core::array::from_fn(|_| source.nonzero(P))).collect();
            let mut expected_zeros = vec![LaneMask::NONE; count];
            if with_zeros {
                for _ in 0..3 {
                    let (index, lane) = (source.below(count), source.below(8));
                    numbers[index][lane] = if source.word() & 1 == 0 { oracle::ZERO } else { P };
                    expected_zeros[index] = expected_zeros[index].union(LaneMask(1 << lane));
                }
            }
            let mut values: Vec<_> = numbers.iter().map(|values| load(ifma, values).factor()).collect();
            let mut zeros = vec![LaneMask::NONE; count];
            // SAFETY: `ifma` proves the features.
            unsafe {
                invert_all(ifma, &mut values, &mut Vec::new(), |index, lanes| zeros[index] = lanes);
            }
            assert_eq!(zeros, expected_zeros);
            for ((value, numbers), zeros) in values.iter().zip(&numbers).zip(&zeros) {
                let products = product(value, &load(ifma, numbers)).reduce().to_lanes();
                for lane in (0..8).filter(|lane| !zeros.contains(*lane)) {
                    assert_eq!(Big(products[lane]), oracle::ONE);
                }
            }
        }
    }
}

/// Multiples of G, as the oracle and as the lanes have them.
struct Points {
    slow: [Option<(Big, Big)>; 8],
    fast: Affine,
}

impl Points {
    fn new(ifma: Ifma, slow: [Option<(Big, Big)>; 8]) -> Points {
        let x = load(ifma, &slow.map(|point| point.unwrap().0));
        let y = load(ifma, &slow.map(|point| point.unwrap().1));
        Points { slow, fast: Affine { x, y } }
    }

    fn random(ifma: Ifma, source: &mut Source) -> Points {
        Points::new(
            ifma,
            core::array::from_fn(|_| {
                oracle::multiply_point(Big([1 + source.word() % 1000, 0, 0, 0]), oracle::generator())
            }),
        )
    }
}

fn check_points(found: &Affine, expected: impl Fn(usize) -> Option<(Big, Big)>) {
    check(found.x, |lane| expected(lane).unwrap().0);
    check(found.y, |lane| expected(lane).unwrap().1);
}

fn inverse(ifma: Ifma, of: Factor) -> Factor {
    let mut values = vec![of];
    // SAFETY: `ifma` proves the features.
    unsafe { invert_all(ifma, &mut values, &mut Vec::new(), |_, _| {}) };
    values[0]
}

#[test]
fn affine_sums_and_doubles_are_the_oracles() {
    let Some(ifma) = Ifma::detect() else { return };
    let mut source = Source::new(14);
    for _ in 0..6 {
        let (p, q) = (Points::random(ifma, &mut source), Points::random(ifma, &mut source));
        let by = inverse(ifma, sum_denominator(&p.fast, &q.fast));
        let expected = |lane: usize| oracle::add_points(p.slow[lane], q.slow[lane]);
        if (0..8).all(|lane| p.slow[lane].unwrap().0 != q.slow[lane].unwrap().0) {
            check_points(&sum(&p.fast, &q.fast, &by), expected);
            for sum in sum_4([&p.fast; 4], [&q.fast; 4], &[by; 4]) {
                check_points(&sum, expected);
            }
        }
        let by = inverse(ifma, p.fast.double_denominator());
        check_points(&p.fast.double(&by), |lane| oracle::add_points(p.slow[lane], p.slow[lane]));
    }
}

/// Thirty-two times p, plus q, in groups of one, two and four; then a sum that fails in some lanes, which Z shows to
/// the end.
#[test]
fn chains_are_the_oracles_and_mark_what_is_exceptional() {
    fn run<const N: usize>(ifma: Ifma, source: &mut Source)
    where
        Jacobian<N>: Accumulator<N>,
    {
        let p: [Points; N] = core::array::from_fn(|_| Points::random(ifma, source));
        let mut q: [Points; N] = core::array::from_fn(|_| Points::random(ifma, source));
        let fast = |q: &[Points; N]| {
            let start = Jacobian::start(ifma, p.each_ref().map(|p| &p.fast));
            start.doubled::<5>().plus(q.each_ref().map(|q| &q.fast))
        };
        let thirty_two =
            |group: usize, lane: usize| oracle::multiply_point(Big([32, 0, 0, 0]), p[group].slow[lane]);
        let found = fast(&q);
        for (group, q) in q.iter().enumerate() {
            let (x, y_twice, z) = (found.x[group], found.y_twice[group], found.z[group]);
            let single = Jacobian { x: [x], y_twice: [y_twice], z: [z] };
            let expected: [_; 8] =
                core::array::from_fn(|lane| oracle::add_points(thirty_two(group, lane), q.slow[lane]));
            check_points(&single.to_affine(ifma, &inverse(ifma, z)), |lane| expected[lane]);
        }
        // Lane 2 of the last group: 32 p is q; lane 5: it is -q.
        let mut slow = q[N - 1].slow;
        slow[2] = thirty_two(N - 1, 2);
        slow[5] = oracle::negate_point(thirty_two(N - 1, 5));
        q[N - 1] = Points::new(ifma, slow);
        let marked = fast(&q);
        let later = marked.doubled::<5>().plus(q.each_ref().map(|q| &q.fast));
        for found in [marked, later] {
            assert_eq!(found.z[N - 1].reduce().zeros(), LaneMask(0b0010_0100));
            assert!(found.z[..N - 1].iter().all(|z| z.reduce().zeros().is_empty()));
        }
    }
    let Some(ifma) = Ifma::detect() else { return };
    let mut source = Source::new(15);
    run::<1>(ifma, &mut source);
    run::<2>(ifma, &mut source);
}
