//! `Features` of any two vectors: bits, changes and unions agree with each other.
#![no_main]

use fulmen_wire::features::{Feature, Features};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let (left, right) = bytes.split_at(bytes.first().map_or(0, |first| usize::from(*first).min(bytes.len())));
    let (left, right) = (Features::from_bytes(left), Features::from_bytes(right));
    let union = left.union(&right);
    assert_eq!(union, right.union(&left));
    assert!(union.as_bytes().first() != Some(&0), "a union is trimmed");
    let mut bits: Vec<_> = left.bits().chain(right.bits()).collect();
    bits.sort_unstable();
    bits.dedup();
    assert_eq!(union.bits().collect::<Vec<_>>(), bits);
    assert!(bits.iter().all(|bit| union.bit(*bit)));
    assert_eq!(left == right, left.bits().eq(right.bits()));
    if let Some(bit) = left.unknown_required() {
        assert!(left.bit(bit) && Feature::from_required_bit(bit).is_none());
    }
    assert_eq!(left.unsupported_by(&union), None);
    let _ = (format!("{union:?}"), union.missing_dependency());
    for feature in Feature::ALL {
        let with = union.clone().with_required(*feature);
        assert!(with.requires(*feature) && with.has(*feature));
        let optional = with.with_optional(*feature);
        assert!(!optional.requires(*feature) && optional.has(*feature));
        let without = optional.without(*feature);
        assert!(!without.has(*feature));
        if !union.has(*feature) {
            assert_eq!(without, union);
        }
    }
});
