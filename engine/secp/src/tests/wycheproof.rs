//! Project Wycheproof's ECDSA vectors for secp256k1 with SHA-256, in batches of a test group.

use secp256k1::PublicKey;
use secp256k1::ecdsa::Signature;
use sha2::{Digest, Sha256};
use wycheproof::TestResult;
use wycheproof::ecdsa::{TestName, TestSet};

use super::agree;
use crate::{VerifyJob, verify_all};

/// Runs one file of vectors. Where `low_s` is not part of its rules, a high s is made low first, as a caller would.
fn run(name: TestName, low_s: bool, parse: impl Fn(&[u8]) -> Option<Signature>) {
    let set = TestSet::load(name).unwrap();
    let (mut run, mut valid) = (0, 0);
    for group in &set.test_groups {
        let key = PublicKey::from_slice(&group.key.key).unwrap();
        let mut jobs = Vec::new();
        for test in &group.tests {
            let expected = test.result == TestResult::Valid;
            run += 1;
            let Some(mut signature) = parse(&test.sig) else {
                assert!(!expected, "test {} of {name:?} does not parse", test.tc_id);
                continue;
            };
            if !low_s {
                signature.normalize_s();
            }
            let digest = Sha256::digest(&test.msg).into();
            let job = VerifyJob { key, digest, signature: signature.serialize_compact() };
            jobs.push((job, expected, test.tc_id));
        }
        let plain: Vec<VerifyJob> = jobs.iter().map(|(job, _, _)| *job).collect();
        valid += agree(&plain);
        let verdicts = verify_all(&plain);
        for (index, (_, expected, id)) in jobs.iter().enumerate() {
            assert_eq!(verdicts.is_valid(index), *expected, "test {id} of {name:?}");
        }
    }
    assert!(run > 100 && valid > 100, "{run} tests of {name:?}, {valid} valid");
}

#[test]
fn der_signatures() {
    run(TestName::EcdsaSecp256k1Sha256, false, |bytes| Signature::from_der(bytes).ok());
}

#[test]
fn der_signatures_of_low_s_only() {
    run(TestName::EcdsaSecp256k1Sha256Bitcoin, true, |bytes| Signature::from_der(bytes).ok());
}

#[test]
fn compact_signatures() {
    run(TestName::EcdsaSecp256k1Sha256P1363, false, |bytes| Signature::from_compact(bytes).ok());
}
