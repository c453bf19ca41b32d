//! Every backend against libsecp256k1 and published vectors, through the public functions.
//!
//! A backend that the processor lacks is tested by its model, on fewer signatures.

use secp256k1::{Message, PublicKey, Secp256k1, SecretKey};

use crate::oracle::{Big, N, Source};
use crate::verify::verify_all_with;
use crate::{Backend, VerifyJob, fallback};

mod crafted;
mod derive;
mod differential;
mod keys;
mod verifier;
mod wycheproof;

/// The backends that this processor can run.
fn backends() -> Vec<Backend> {
    Backend::ALL.into_iter().filter(|backend| backend.is_available()).collect()
}

/// The models of leaves, which take milliseconds a signature.
const MODELS: [Backend; 2] = [Backend::Words52Model, Backend::DoublesModel];

/// The cases to run: few by default, many where `FULMEN_SECP_FULL` is set.
fn count(few: usize, many: usize) -> usize {
    if std::env::var_os("FULMEN_SECP_FULL").is_some() { many } else { few }
}

/// Checks that every backend says of every job what libsecp256k1 says; returns how many are valid.
#[track_caller]
fn agree(jobs: &[VerifyJob]) -> usize {
    let expected: Vec<bool> = jobs.iter().map(fallback::verify).collect();
    for backend in backends() {
        let verdicts = verify_all_with(backend, jobs);
        for (index, (job, expected)) in jobs.iter().zip(&expected).enumerate() {
            assert_eq!(verdicts.is_valid(index), *expected, "{backend:?}, job {index}: {job:x?}");
        }
    }
    for backend in MODELS {
        let some = &jobs[..jobs.len().min(count(9, 200))];
        let verdicts = verify_all_with(backend, some);
        assert!(
            (0..some.len()).all(|index| verdicts.is_valid(index) == expected[index]),
            "{backend:?}: {some:x?}"
        );
    }
    expected.into_iter().filter(|valid| *valid).count()
}

fn secret(number: Big) -> SecretKey {
    SecretKey::from_slice(&number.to_bytes()).expect("in [1, n)")
}

fn public(number: Big) -> PublicKey {
    PublicKey::from_secret_key(&Secp256k1::new(), &secret(number))
}

/// A valid signature of a random digest.
fn signed(source: &mut Source, by: &SecretKey) -> VerifyJob {
    let digest = source.bytes();
    let secp = Secp256k1::signing_only();
    let signature = secp.sign_ecdsa(&Message::from_digest(digest), by).serialize_compact();
    VerifyJob { key: by.public_key(&secp), digest, signature }
}

fn random_secret(source: &mut Source) -> SecretKey {
    secret(source.nonzero(N))
}
