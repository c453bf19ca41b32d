//! Extreme limbs, which no number that is loaded has: the model checks each operation and the oracle the result; the
//! processor gives the model's limbs bit for bit.

use super::model::{Model, ModelLanes};
use super::{Doubles, E, Lazy, Limbs, canonical, packed, power};
use crate::oracle::{self, Big, P, Source};
use crate::simd::field::Field;

const F: Doubles<Model> = Doubles(Model);

/// Limbs at or near their bounds, of either sign, in both lanes.
fn extreme(source: &mut Source) -> Limbs<ModelLanes> {
    let mut limb = |i: usize| {
        let bound = if i == 0 { (1i64 << 51) + (1 << 37) } else { (1 << 50) + 8 };
        let size = match source.below(4) {
            0 => (source.word() >> 1) as i64 % bound,
            1 => 1 << source.below(50),
            _ => bound - source.below(3) as i64,
        };
        (if source.word() & 1 == 0 { -size } else { size }) as f64 * power(E[i] as i32)
    };
    Limbs(core::array::from_fn(|i| ModelLanes([limb(i), limb(i)])))
}

/// Limbs that all have their largest size, and signs from the bits of `signs`.
fn largest(signs: usize) -> Limbs<ModelLanes> {
    Limbs(core::array::from_fn(|i| {
        let bound = if i == 0 { (1u64 << 51) + (1 << 37) } else { (1 << 50) + 8 } as f64 * power(E[i] as i32);
        ModelLanes([if signs >> i & 1 == 1 { -bound } else { bound }; 2])
    }))
}

fn value(limbs: &Limbs<ModelLanes>) -> Big {
    Big(canonical(&packed(limbs.0.map(|limb| limb.0[0]))))
}

fn widest(c: &Limbs<ModelLanes>) -> Lazy<ModelLanes, 3> {
    let two = F.plus::<1, 1, 2>(&Lazy(c.0), &Lazy(c.0));
    F.plus::<2, 1, 3>(&two, &Lazy(c.0))
}

/// Every operation on these three, held to the oracle; returns the limbs of all results.
fn check(a: &Limbs<ModelLanes>, b: &Limbs<ModelLanes>, c: &Limbs<ModelLanes>) -> [Limbs<ModelLanes>; 6] {
    let (x, y, z) = (value(a), value(b), value(c));
    let mul = |a, b| oracle::multiply(a, b, P);
    let (add, sub) = (|a, b| oracle::add(a, b, P), |a, b| oracle::subtract(a, b, P));
    let three_z = add(add(z, z), z);
    let found = [
        F.product([a], [b])[0],
        F.square([a])[0],
        F.product_minus([a], [b], [widest(c)])[0],
        F.square_minus([a], [widest(c)])[0],
        F.factor(&widest(c)),
        F.doubled_factor(&F.minus::<1, 1, 2>(&Lazy(a.0), &Lazy(b.0))),
    ];
    let difference = sub(x, y);
    let expected = [
        mul(x, y),
        mul(x, x),
        sub(mul(x, y), three_z),
        sub(mul(x, x), three_z),
        three_z,
        add(difference, difference),
    ];
    assert_eq!(found.each_ref().map(value), expected, "{a:?} {b:?} {c:?}");
    found
}

/// All signs of the largest limbs of both operands of a product.
#[test]
fn largest_limbs_of_all_signs_are_exact() {
    for signs in 0..1024 {
        check(&largest(signs), &largest(signs >> 5), &largest(signs ^ signs >> 5));
    }
}

#[test]
fn extreme_limbs_are_exact_and_the_processors() {
    let mut source = Source::new(71);
    for _ in 0..2_000 {
        let [a, b, c] = [(); 3].map(|()| extreme(&mut source));
        let found = check(&a, &b, &c);
        #[cfg(target_arch = "x86_64")]
        if let Some(avx2) = super::avx2::Avx2::detect() {
            let f = Doubles(avx2);
            let load = |limbs: &Limbs<ModelLanes>| {
                Limbs(limbs.0.map(|limb| avx2.load(&[limb.0[0], limb.0[1], limb.0[0], limb.0[1]])))
            };
            let [a, b, c] = [&a, &b, &c].map(load);
            let two = f.plus::<1, 1, 2>(&Lazy(c.0), &Lazy(c.0));
            let three_c = f.plus::<2, 1, 3>(&two, &Lazy(c.0));
            let fast = [
                f.product([&a], [&b])[0],
                f.square([&a])[0],
                f.product_minus([&a], [&b], [three_c])[0],
                f.square_minus([&a], [three_c])[0],
                f.factor(&three_c),
                f.doubled_factor(&f.minus::<1, 1, 2>(&Lazy(a.0), &Lazy(b.0))),
            ];
            for (fast, model) in fast.iter().zip(&found) {
                let [first, second, third, _] = f.limbs_of(fast);
                let lane = |at: usize| model.0.map(|limb| limb.0[at]);
                assert_eq!([first, second, third], [lane(0), lane(1), lane(0)]);
            }
        }
    }
}
