//! `verify`: fulmen-secp against the current libsecp256k1, both on parsed keys and compact signatures unless the case
//! says otherwise.
//!
//! The inputs are made from a fixed seed. Each case first checks that both sides give the same answers.

use std::hint::black_box;
use std::sync::Arc;

use clap::Args;
use fulmen_secp::{
    Backend, BackendError, DeriveJob, KeyError, Verifier, VerifyJob, derive_pubkeys_with,
    derive_revocation_pubkeys_with, parse_keys_with,
};
use secp256k1::ecdsa::Signature;
use secp256k1::{Message, PublicKey, Scalar, SecretKey};
use sha2::{Digest, Sha256};

use crate::measure::{Clock, Machine, Report, Row, compare};

/// What to measure.
#[derive(Args)]
pub(crate) struct Options {
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// Measured rounds per case.
    #[arg(long, default_value_t = 15)]
    rounds: usize,
    /// Only cases whose names contain this.
    #[arg(long, default_value = "")]
    only: String,
    /// Fulmen's backend: avx512ifma, avx2, scalar or libsecp256k1. The process's if none is named.
    #[arg(long, value_parser = available)]
    backend: Option<Backend>,
}

/// The named backend, if the processor has it.
pub(crate) fn available(name: &str) -> Result<Backend, BackendError> {
    name.parse::<Backend>()?.available()
}

/// One signature, as each side takes it.
#[derive(Clone, Copy)]
struct Signed {
    key: PublicKey,
    message: Message,
    signature: [u8; 64],
    job: VerifyJob,
}

pub(crate) fn run(options: &Options) {
    let backend = options.backend.unwrap_or_else(Backend::selected);
    let verifier = || Verifier::new().with_backend(backend).expect("available");
    let mut rows = Rows { options, backend, rows: Vec::new() };
    let mut seed = Seed(7);
    let fresh: Vec<Signed> = (0..1024).map(|_| seed.signed_by_new_key()).collect();
    for batch in [1, 8, 16, 64, 256, 1024] {
        rows.verification(format!("verify/fresh/{batch}"), &fresh, batch, verifier);
    }
    for keys in [10, 100, 1_000, 10_000] {
        let secrets: Vec<SecretKey> = (0..keys).map(|_| seed.secret()).collect();
        let count = 20 * keys.clamp(100, 1_000);
        let signed: Vec<Signed> = (0..count).map(|_| seed.signed_by_one_of(&secrets)).collect();
        rows.cached(format!("verify/cached/{keys}"), &signed, &secrets);
    }
    let mixed: Vec<Signed> = fresh
        .iter()
        .enumerate()
        .map(|(i, signed)| if i % 100 == 50 { signed.spoilt() } else { *signed })
        .collect();
    rows.verification("verify/mixed/64".into(), &mixed, 64, verifier);
    let hostile: Vec<Signed> = (0..256).map(|_| seed.hostile()).collect();
    for batch in [8, 64] {
        rows.verification(format!("verify/hostile/{batch}"), &hostile, batch, verifier);
    }
    let without_lanes =
        || Verifier::new().with_backend(Backend::Libsecp256k1).expect("every processor has it");
    rows.verification("verify/without-lanes/64".into(), &fresh[..256], 64, without_lanes);
    rows.threads("verify/threads/2".into(), &fresh);
    rows.parsing(&fresh);
    rows.derivation(&fresh);
    let machine = Machine::this(backend.to_string());
    Report { rows: rows.rows, machine }.print(options.json);
}

/// The rows so far.
struct Rows<'a> {
    options: &'a Options,
    backend: Backend,
    rows: Vec<Row>,
}

impl Rows<'_> {
    fn skips(&self, case: &str) -> bool {
        !case.contains(&self.options.only)
    }

    fn verifier(&self) -> Verifier {
        Verifier::new().with_backend(self.backend).expect("available")
    }

    fn compare(
        &mut self,
        case: String,
        clock: Clock,
        peer: (usize, impl FnMut()),
        fulmen: (usize, impl FnMut()),
    ) {
        self.rows.push(compare(case, self.options.rounds, clock, peer, fulmen));
    }

    /// Both sides over `signed`, Fulmen in batches.
    fn verification(
        &mut self,
        case: String,
        signed: &[Signed],
        batch: usize,
        verifier: impl Fn() -> Verifier,
    ) {
        if self.skips(&case) {
            return;
        }
        let mut verifier = verifier();
        let jobs: Vec<VerifyJob> = signed.iter().map(|signed| signed.job).collect();
        for (jobs, signed) in jobs.chunks(batch).zip(signed.chunks(batch)) {
            let verdicts = verifier.verify(jobs);
            let agree =
                signed.iter().enumerate().all(|(i, signed)| verdicts.is_valid(i) == signed.peer_verify());
            assert!(agree, "{case}: the sides disagree");
        }
        let peer_count = signed.len().min(256);
        self.compare(
            case,
            Clock::Thread,
            (peer_count, || verify_by_peer(&signed[..peer_count])),
            (jobs.len(), || {
                for jobs in jobs.chunks(batch) {
                    let _ = black_box(verifier.verify(jobs));
                }
            }),
        );
    }

    /// Signatures in batches of 256 by keys that all have their tables.
    fn cached(&mut self, case: String, signed: &[Signed], secrets: &[SecretKey]) {
        if self.skips(&case) {
            return;
        }
        let mut verifier = self.verifier().with_key_cache(512 << 20);
        let mut seed = Seed(8);
        let warming: Vec<VerifyJob> = secrets.iter().map(|secret| seed.signed(secret).job).collect();
        for _ in 0..17 {
            assert!(verifier.verify(&warming).all_valid());
        }
        let jobs: Vec<VerifyJob> = signed.iter().map(|signed| signed.job).collect();
        self.compare(
            case,
            Clock::Thread,
            (256, || verify_by_peer(&signed[..256])),
            (jobs.len(), || {
                for jobs in jobs.chunks(256) {
                    assert!(verifier.verify(jobs).all_valid());
                }
            }),
        );
    }

    /// Fulmen on one thread against Fulmen on two, in wall-clock time.
    fn threads(&mut self, case: String, signed: &[Signed]) {
        if self.skips(&case) {
            return;
        }
        let jobs: Vec<VerifyJob> = signed.iter().cycle().take(8 * 1024).map(|signed| signed.job).collect();
        let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().expect("two threads");
        let (mut one, mut two) = (self.verifier(), self.verifier().with_pool(Arc::new(pool)));
        let count = jobs.len();
        self.compare(
            case,
            Clock::Wall,
            (count, || assert!(one.verify(&jobs).all_valid())),
            (count, || assert!(two.verify(&jobs).all_valid())),
        );
    }

    /// Compressed keys, parsed.
    fn parsing(&mut self, signed: &[Signed]) {
        let backend = self.backend;
        let keys: Vec<[u8; 33]> = signed.iter().map(|signed| signed.key.serialize()).collect();
        for batch in [8, 64, 1024] {
            let case = format!("parse/{batch}");
            if self.skips(&case) {
                continue;
            }
            assert!(
                parse_keys_with(backend, &keys)
                    .iter()
                    .zip(signed)
                    .all(|(key, signed)| *key == Ok(signed.job.key))
            );
            self.compare(
                case,
                Clock::Thread,
                (keys.len(), || {
                    for key in &keys {
                        black_box(PublicKey::from_slice(key).is_ok());
                    }
                }),
                (keys.len(), || {
                    for keys in keys.chunks(batch) {
                        black_box(parse_keys_with(backend, keys));
                    }
                }),
            );
        }
    }

    /// BOLT 3 derivation from parsed points.
    fn derivation(&mut self, signed: &[Signed]) {
        let backend = self.backend;
        let pairs: Vec<(PublicKey, PublicKey)> =
            signed.chunks_exact(2).map(|pair| (pair[0].key, pair[1].key)).collect();
        let jobs: Vec<DeriveJob> = signed
            .chunks_exact(2)
            .map(|pair| DeriveJob { basepoint: pair[0].job.key, per_commitment_point: pair[1].job.key })
            .collect();
        type Peer = fn(&(PublicKey, PublicKey)) -> PublicKey;
        type Fulmen = fn(Backend, &[DeriveJob]) -> Vec<Result<secp256k1_fulmen::PublicKey, KeyError>>;
        let sides: [(&str, Peer, Fulmen); 2] = [
            ("pubkey", peer_pubkey, derive_pubkeys_with),
            ("revocation", peer_revocation_pubkey, derive_revocation_pubkeys_with),
        ];
        for (name, peer, fulmen) in sides {
            for batch in [8, 16, 64] {
                let case = format!("derive/{name}/{batch}");
                if self.skips(&case) {
                    continue;
                }
                let same = fulmen(backend, &jobs).iter().zip(&pairs).all(|(key, pair)| {
                    key.as_ref().is_ok_and(|key| key.serialize() == peer(pair).serialize())
                });
                assert!(same, "{case}: the sides disagree");
                self.compare(
                    case,
                    Clock::Thread,
                    (128, || {
                        for pair in &pairs[..128] {
                            black_box(peer(pair));
                        }
                    }),
                    (jobs.len(), || {
                        for jobs in jobs.chunks(batch) {
                            black_box(fulmen(backend, jobs));
                        }
                    }),
                );
            }
        }
    }
}

fn verify_by_peer(signed: &[Signed]) {
    for signed in signed {
        black_box(signed.peer_verify());
    }
}

/// `basepoint + SHA256(per_commitment_point || basepoint) * G`.
fn peer_pubkey((basepoint, point): &(PublicKey, PublicKey)) -> PublicKey {
    basepoint.add_exp_tweak(&hash(point, basepoint)).expect("not at infinity")
}

/// The two-term sum of a revocation key.
fn peer_revocation_pubkey((basepoint, point): &(PublicKey, PublicKey)) -> PublicKey {
    let base = basepoint.mul_tweak(&hash(basepoint, point)).expect("not zero");
    let point = point.mul_tweak(&hash(point, basepoint)).expect("not zero");
    base.combine(&point).expect("not at infinity")
}

fn hash(first: &PublicKey, second: &PublicKey) -> Scalar {
    let mut hash = Sha256::new();
    hash.update(first.serialize());
    hash.update(second.serialize());
    Scalar::from_be_bytes(hash.finalize().into()).expect("below the order")
}

impl Signed {
    /// With a bit of the signature flipped.
    fn spoilt(mut self) -> Signed {
        self.signature[40] ^= 4;
        self.job.signature = self.signature;
        self
    }

    fn peer_verify(&self) -> bool {
        Signature::from_compact(&self.signature)
            .is_ok_and(|signature| secp256k1::ecdsa::verify(&signature, self.message, &self.key).is_ok())
    }
}

/// A repeatable source of keys and digests.
struct Seed(u64);

impl Seed {
    fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut word = self.0;
        word = (word ^ word >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        word = (word ^ word >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        word ^ word >> 31
    }

    fn bytes(&mut self) -> [u8; 32] {
        let mut bytes = [0; 32];
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&self.word().to_le_bytes());
        }
        bytes
    }

    fn secret(&mut self) -> SecretKey {
        loop {
            if let Ok(secret) = SecretKey::from_secret_bytes(self.bytes()) {
                return secret;
            }
        }
    }

    fn signed_by_new_key(&mut self) -> Signed {
        let secret = self.secret();
        self.signed(&secret)
    }

    fn signed_by_one_of(&mut self, secrets: &[SecretKey]) -> Signed {
        let index = self.word() as usize % secrets.len();
        self.signed(&secrets[index])
    }

    /// A signature whose sum is the point at infinity: with m = -r q it is (m / s) G + (r / s) q G for every s. The
    /// lanes see it at the end of their work and leave it to libsecp256k1.
    fn hostile(&mut self) -> Signed {
        let secret = self.secret();
        let Signed { key, signature, job, .. } = self.signed(&secret);
        let r = Scalar::from_be_bytes(*signature.first_chunk().expect("64 bytes")).expect("below the order");
        let digest = secret.mul_tweak(&r).expect("not zero").negate().to_secret_bytes();
        Signed { key, message: Message::from_digest(digest), signature, job: VerifyJob { digest, ..job } }
    }

    fn signed(&mut self, secret: &SecretKey) -> Signed {
        let digest = self.bytes();
        let message = Message::from_digest(digest);
        let key = PublicKey::from_secret_key(secret);
        let signature = secp256k1::ecdsa::sign(message, secret).serialize_compact();
        let fulmen_key = secp256k1_fulmen::PublicKey::from_slice(&key.serialize()).expect("a valid key");
        let job = VerifyJob { key: fulmen_key, digest, signature };
        Signed { key, message, signature, job }
    }
}
