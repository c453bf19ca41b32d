//! Every leaf, and the models of leaves that the processor may lack, against the plain oracle.

use super::doubles::Doubles;
use super::field::{Field, LANES_MAX, LaneMask, each_lane};
use super::invert::invert_all;
use super::point::{Affine, Jacobian, sum, sum_denominator};
use super::words52::{Processor, Words52};
use super::words64::Words64;
use crate::oracle::{self, Big, P, Source};

/// Runs a check with each leaf that there is and with the models.
macro_rules! on_every_leaf {
    ($check:ident) => {{
        #[cfg(target_arch = "x86_64")]
        if let Some(ifma) = super::Ifma::detect() {
            $check(Words52(ifma));
        }
        #[cfg(target_arch = "x86_64")]
        if let Some(avx2) = super::Avx2::detect() {
            $check(Doubles(avx2));
        }
        $check(Words64);
        $check(Words52(super::words52::model::Model));
        $check(Doubles(super::doubles::model::Model));
    }};
}

fn numbers<F: Field>(source: &mut Source) -> [Big; LANES_MAX] {
    // Also numbers above p.
    each_lane::<F, _>(|_| match source.below(8) {
        0 => Big([u64::MAX - source.word() % (1 << 33), u64::MAX, u64::MAX, u64::MAX]),
        _ => source.number(P),
    })
}

fn load<F: Field>(f: F, values: &[Big; LANES_MAX]) -> F::Fe {
    f.load_lanes(|lane| values[lane].0)
}

#[track_caller]
fn check<F: Field>(f: F, found: &F::Fe, expected: impl Fn(usize) -> Big) {
    for (lane, value) in f.to_lanes(found).into_iter().enumerate().take(F::LANES) {
        assert_eq!(Big(value), expected(lane), "lane {lane}");
    }
}

#[track_caller]
fn check_factor<F: Field>(f: F, found: &F::Factor, expected: impl Fn(usize) -> Big) {
    check(f, &f.reduce(found), expected);
}

fn mul(a: Big, b: Big) -> Big {
    oracle::multiply(a, b, P)
}

fn sub(a: Big, b: Big) -> Big {
    oracle::subtract(a, b, P)
}

fn twice(a: Big) -> Big {
    oracle::add(a, a, P)
}

#[test]
fn products_are_the_oracles() {
    fn run<F: Field>(f: F) {
        let mut source = Source::new(11);
        for _ in 0..100 {
            let [a, b, c, d] = [(); 4].map(|()| numbers::<F>(&mut source));
            let [fa, fb, fc, fd] = [a, b, c, d].map(|values| load(f, &values));
            let [a, b, c, d] = [a, b, c, d].map(|values| values.map(|value| value.modulo(P)));
            let [pa, pb, pc, pd] = [&fa, &fb, &fc, &fd].map(|value| F::as_factor(value));
            check(f, &fa, |i| a[i]);
            let ab = f.product([pa, pb], [pb, pc]);
            check_factor(f, &ab[0], |i| mul(a[i], b[i]));
            check_factor(f, &ab[1], |i| mul(b[i], c[i]));
            check(f, &f.product_reduced([pa], [pb])[0], |i| mul(a[i], b[i]));
            check_factor(f, &f.square([pa])[0], |i| mul(a[i], a[i]));
            check_factor(f, &f.square_tripled([pa])[0], |i| {
                sub(twice(twice(mul(a[i], a[i]))), mul(a[i], a[i]))
            });
            let c_and_two_d = f.plus::<1, 1, 2>(&F::lazy(&fd), &F::lazy(&fd));
            let c_and_two_d = f.plus::<1, 2, 3>(&F::lazy(&fc), &c_and_two_d);
            let less = |i: usize| oracle::add(c[i], twice(d[i]), P);
            check(f, &f.product_minus([pa], [pb], [c_and_two_d])[0], |i| sub(mul(a[i], b[i]), less(i)));
            check(f, &f.square_minus([pa], [c_and_two_d])[0], |i| sub(mul(a[i], a[i]), less(i)));
            check_factor(f, &f.product_doubled_minus([pa], [pb], [&fc])[0], |i| {
                sub(twice(mul(a[i], b[i])), c[i])
            });
            let found = f.product_minus_product([pa, pc, pa, pa], [pb; 4], [pc, pa, pc, pc], [pd; 4]);
            check(f, &found[0], |i| sub(mul(a[i], b[i]), mul(c[i], d[i])));
            check(f, &found[1], |i| sub(mul(c[i], b[i]), mul(a[i], d[i])));
            check(f, &f.product_minus_square([pa], [pb], [pc])[0], |i| sub(mul(a[i], b[i]), mul(c[i], c[i])));
            let mask = LaneMask(source.word() as u8);
            let sign = |value: Big, lane| if mask.contains(lane) { sub(oracle::ZERO, value) } else { value };
            let (sc, ud) = (f.signed(&fc, mask), F::unsigned(&fd));
            check(f, &f.product_minus_signed([pa], [pb], [sc])[0], |i| sub(mul(a[i], b[i]), sign(c[i], i)));
            check_factor(f, &f.signed_difference(&sc, &ud), |i| sub(sign(c[i], i), d[i]));
            check_factor(f, &f.signed_difference(&ud, &sc), |i| sub(d[i], sign(c[i], i)));
            check_factor(f, &f.select(pa, mask, pb), |i| if mask.contains(i) { b[i] } else { a[i] });
        }
    }
    on_every_leaf!(run);
}

#[test]
fn sums_and_factors_made_of_them_are_the_oracles() {
    fn run<F: Field>(f: F) {
        let mut source = Source::new(16);
        for _ in 0..100 {
            let [a, b] = [(); 2].map(|()| numbers::<F>(&mut source));
            let [fa, fb] = [a, b].map(|values| load(f, &values));
            let [a, b] = [a, b].map(|values| values.map(|value| value.modulo(P)));
            let difference = f.minus::<1, 1, 2>(&F::lazy(&fa), &F::lazy(&fb));
            check_factor(f, &f.factor(&difference), |i| sub(a[i], b[i]));
            let doubled = f.doubled_factor(&difference);
            check_factor(f, &doubled, |i| twice(sub(a[i], b[i])));
            check_factor(f, &f.doubled_factor(&F::lazy(&fa)), |i| twice(a[i]));
            let square = f.square([&doubled]);
            check_factor(f, &square[0], |i| mul(twice(sub(a[i], b[i])), twice(sub(a[i], b[i]))));
            check_factor(f, &f.product([&square[0]], [&doubled])[0], |i| {
                let difference = twice(sub(a[i], b[i]));
                mul(mul(difference, difference), difference)
            });
        }
    }
    on_every_leaf!(run);
}

/// The widest bound a sum of 52-bit limbs may have, of the largest limbs.
#[test]
fn a_sum_of_128_reduces() {
    fn run<P: Processor>(f: Words52<P>) {
        let mut source = Source::new(12);
        for round in 0..20 {
            let values = each_lane::<Words52<P>, _>(|_| {
                if round == 0 { Big([u64::MAX; 4]) } else { source.number(oracle::P) }
            });
            let one = load(f, &values);
            let one = Words52::<P>::lazy(&one);
            let two = f.plus::<1, 1, 2>(&one, &one);
            let four = f.plus::<2, 2, 4>(&two, &two);
            let eight = f.plus::<4, 4, 8>(&four, &four);
            let sixteen = f.plus::<8, 8, 16>(&eight, &eight);
            let thirty_two = f.plus::<16, 16, 32>(&sixteen, &sixteen);
            let sixty_four = f.plus::<32, 32, 64>(&thirty_two, &thirty_two);
            let less = f.minus::<1, 64, 65>(&one, &sixty_four);
            let by = |i: usize, times: u64| mul(values[i].modulo(oracle::P), Big([times, 0, 0, 0]));
            check_factor(f, &f.factor(&sixty_four), |i| by(i, 64));
            check_factor(f, &f.doubled_factor(&sixty_four), |i| by(i, 128));
            check_factor(f, &f.square([&f.doubled_factor(&sixty_four)])[0], |i| mul(by(i, 128), by(i, 128)));
            check_factor(f, &f.factor(&less), |i| sub(by(i, 1), by(i, 64)));
        }
    }
    #[cfg(target_arch = "x86_64")]
    if let Some(ifma) = super::Ifma::detect() {
        run(Words52(ifma));
    }
    run(Words52(super::words52::model::Model));
}

#[test]
fn zero_is_found_in_both_forms() {
    fn run<F: Field>(f: F) {
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
        for (at, is_zero) in [true, true, false, false, true, false, true, false].into_iter().enumerate() {
            let lanes = f.load_lanes(|lane| values[(at + lane) % 8]);
            assert_eq!(f.zeros(&lanes).contains(0), is_zero);
            // The difference of equal numbers in both forms, and a product with zero.
            let same = f.load_lanes(|_| values[at]);
            let reduced = f.load_lanes(|_| Big(values[at]).modulo(P).0);
            let difference = f.minus::<1, 1, 2>(&F::lazy(&same), &F::lazy(&reduced));
            assert_eq!(f.zeros(&f.reduce(&f.factor(&difference))).0.count_ones() as usize, F::LANES);
            let [product] = f.product_reduced([F::as_factor(&same)], [F::as_factor(&f.small(5))]);
            assert_eq!(f.zeros(&product).contains(0), is_zero);
        }
    }
    on_every_leaf!(run);
}

#[test]
fn what_is_stored_is_loaded() {
    fn run<F: Field>(f: F) {
        let mut source = Source::new(17);
        for _ in 0..200 {
            let [a, b] = [(); 2].map(|()| numbers::<F>(&mut source));
            let [fa, fb] = [a, b].map(|values| load(f, &values));
            let [a, b] = [a, b].map(|values| values.map(|value| value.modulo(P)));
            // Products have other limbs than what is loaded.
            let [fb] = f.product_reduced([F::as_factor(&fb)], [F::as_factor(&fa)]);
            let mut entries = [super::field::Entry::ZERO; LANES_MAX];
            f.store(&fa, &fb, |lane, entry| entries[lane] = entry);
            let [x, y] = f.load(|lane| &entries[lane]);
            check(f, &x, |i| a[i]);
            check(f, &y, |i| mul(a[i], b[i]));
        }
    }
    on_every_leaf!(run);
}

#[test]
fn digits_are_the_plain_functions() {
    fn run<F: Field>(f: F) {
        let mut source = Source::new(18);
        for _ in 0..50 {
            let halves = super::field::Halves([(); 3].map(|()| core::array::from_fn(|_| source.word())));
            for position in 0..13 {
                let (found, plain) =
                    (f.digits::<10>(&halves, position), halves.digits::<10>(F::LANES, position));
                assert_eq!(found.index[..F::LANES], plain.index[..F::LANES]);
                assert_eq!(found.negative, plain.negative);
            }
            for position in 0..26 {
                let (found, plain) =
                    (f.digits::<5>(&halves, position), halves.digits::<5>(F::LANES, position));
                assert_eq!(found.index[..F::LANES], plain.index[..F::LANES]);
                assert_eq!(found.negative, plain.negative);
            }
        }
    }
    on_every_leaf!(run);
}

#[test]
fn inverses_and_their_zeros_are_found() {
    fn run<F: Field>(f: F) {
        let mut source = Source::new(13);
        for (count, with_zeros) in
            [1, 2, 3, 4, 5, 8, 11, 32, 40].into_iter().flat_map(|n| [(n, false), (n, true)])
        {
            let mut numbers: Vec<[Big; LANES_MAX]> =
                (0..count).map(|_| each_lane::<F, _>(|_| source.nonzero(P))).collect();
            let mut expected_zeros = vec![LaneMask::NONE; count];
            for _ in 0..if with_zeros { 3 } else { 0 } {
                let (index, lane) = (source.below(count), source.below(F::LANES));
                numbers[index][lane] = if source.word() & 1 == 0 { oracle::ZERO } else { P };
                expected_zeros[index] = expected_zeros[index].union(LaneMask(1 << lane));
            }
            let mut values: Vec<_> = numbers.iter().map(|values| *F::as_factor(&load(f, values))).collect();
            let mut zeros = vec![LaneMask::NONE; count];
            invert_all(f, &mut values, &mut Vec::new(), |index, lanes| zeros[index] = lanes);
            assert_eq!(zeros, expected_zeros);
            for ((value, numbers), zeros) in values.iter().zip(&numbers).zip(&zeros) {
                let [product] = f.product_reduced([value], [F::as_factor(&load(f, numbers))]);
                let products = f.to_lanes(&product);
                for lane in (0..F::LANES).filter(|lane| !zeros.contains(*lane)) {
                    assert_eq!(Big(products[lane]), oracle::ONE);
                }
            }
        }
    }
    on_every_leaf!(run);
}

/// Multiples of G, as the oracle and as a leaf has them.
struct Points<F: Field> {
    slow: [Option<(Big, Big)>; LANES_MAX],
    fast: Affine<F>,
}

impl<F: Field> Points<F> {
    fn new(f: F, slow: [Option<(Big, Big)>; LANES_MAX]) -> Points<F> {
        let x = load(f, &slow.map(|point| point.unwrap().0));
        let y = load(f, &slow.map(|point| point.unwrap().1));
        Points { slow, fast: Affine { x, y } }
    }

    fn random(f: F, source: &mut Source) -> Points<F> {
        Points::new(
            f,
            each_lane::<F, _>(|_| {
                oracle::multiply_point(Big([1 + source.word() % 1000, 0, 0, 0]), oracle::generator())
            }),
        )
    }
}

fn check_points<F: Field>(f: F, found: &Affine<F>, expected: impl Fn(usize) -> Option<(Big, Big)>) {
    check(f, &found.x, |lane| expected(lane).unwrap().0);
    check(f, &found.y, |lane| expected(lane).unwrap().1);
}

fn inverse<F: Field>(f: F, of: F::Factor) -> F::Factor {
    let mut values = vec![of];
    invert_all(f, &mut values, &mut Vec::new(), |_, _| {});
    values[0]
}

#[test]
fn affine_sums_and_doubles_are_the_oracles() {
    fn run<F: Field>(f: F) {
        let mut source = Source::new(14);
        for _ in 0..6 {
            let (p, q) = (Points::random(f, &mut source), Points::random(f, &mut source));
            let by = inverse(f, sum_denominator(f, &p.fast, &q.fast));
            let expected = |lane: usize| oracle::add_points(p.slow[lane], q.slow[lane]);
            if (0..F::LANES).all(|lane| p.slow[lane].unwrap().0 != q.slow[lane].unwrap().0) {
                for sum in sum(f, [&p.fast; 4], [&q.fast; 4], &[by; 4]) {
                    check_points(f, &sum, expected);
                }
            }
            let by = inverse(f, p.fast.double_denominator(f));
            check_points(f, &p.fast.double(f, &by), |lane| oracle::add_points(p.slow[lane], p.slow[lane]));
        }
    }
    on_every_leaf!(run);
}

/// Thirty-two times p, plus q, in groups of one and two; then a sum that fails in some lanes, which Z shows to the end.
#[test]
fn chains_are_the_oracles_and_mark_what_is_exceptional() {
    fn run<F: Field, const N: usize>(f: F, source: &mut Source) {
        let p: [Points<F>; N] = core::array::from_fn(|_| Points::random(f, source));
        let mut q: [Points<F>; N] = core::array::from_fn(|_| Points::random(f, source));
        let fast = |q: &[Points<F>; N]| {
            let start = Jacobian::start(f, p.each_ref().map(|p| &p.fast));
            start.doubled::<5>(f).plus(f, q.each_ref().map(|q| &q.fast))
        };
        let thirty_two =
            |group: usize, lane: usize| oracle::multiply_point(Big([32, 0, 0, 0]), p[group].slow[lane]);
        let found = fast(&q);
        for (group, q) in q.iter().enumerate() {
            let (x, y_twice, z) = (found.x[group], found.y_twice[group], found.z[group]);
            let single = Jacobian { x: [x], y_twice: [y_twice], z: [z] };
            let expected =
                each_lane::<F, _>(|lane| oracle::add_points(thirty_two(group, lane), q.slow[lane]));
            check_points(f, &single.to_affine(f, &inverse(f, z)), |lane| expected[lane]);
        }
        // One lane of the last group: 32 p is q; another: it is -q.
        let (equal, opposite) = (2 % F::LANES, 5 % F::LANES);
        let mut slow = q[N - 1].slow;
        slow[equal] = thirty_two(N - 1, equal);
        slow[opposite] = oracle::negate_point(thirty_two(N - 1, opposite));
        q[N - 1] = Points::new(f, slow);
        let marked = fast(&q);
        let later = marked.doubled::<5>(f).plus(f, q.each_ref().map(|q| &q.fast));
        for found in [marked, later] {
            let expected = LaneMask(1 << equal | 1 << opposite);
            assert_eq!(f.zeros(&f.reduce(&found.z[N - 1])), expected);
            assert!(found.z[..N - 1].iter().all(|z| f.zeros(&f.reduce(z)).is_empty()));
        }
    }
    fn both<F: Field>(f: F) {
        let mut source = Source::new(15);
        run::<F, 1>(f, &mut source);
        run::<F, 2>(f, &mut source);
    }
    on_every_leaf!(both);
}
