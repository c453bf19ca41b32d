//! `verify`: fulmen-secp against the current libsecp256k1, both on parsed keys and compact signatures unless the case
//! says otherwise.
//!
//! The inputs are made from a fixed seed. Each case first checks that both sides give the same answers.

use std::hint::black_box;

use clap::Args;
use fulmen_secp::{Backend, VerifyJob, parse_keys, verify_all};
use secp256k1::ecdsa::Signature;
use secp256k1::{Message, PublicKey, SecretKey};

use crate::measure::{Clock, Machine, Report, Row, compare};

/// What to measure.
#[derive(Args)]
pub(crate) struct Options {
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// Measured rounds a case.
    #[arg(long, default_value_t = 15)]
    rounds: usize,
    /// Only cases whose names contain this.
    #[arg(long, default_value = "")]
    only: String,
}

/// One signature, as each side takes it.
#[derive(Clone)]
struct Signed {
    key: PublicKey,
    message: Message,
    signature: [u8; 64],
    job: VerifyJob,
}

pub(crate) fn run(options: &Options) {
    let mut rows = Vec::new();
    let mut seed = Seed(7);
    let fresh: Vec<Signed> = (0..1024).map(|_| seed.signed_by_new_key()).collect();
    for batch in [1, 8, 16, 64, 256, 1024] {
        verification(options, &mut rows, format!("verify/fresh/{batch}"), &fresh, batch);
    }
    parsing(options, &mut rows, &fresh);
    let machine = Machine::this(format!("{:?}", Backend::selected()));
    Report { rows, machine }.print(options.json);
}

/// Both sides over all of `signed`, Fulmen in batches.
fn verification(options: &Options, rows: &mut Vec<Row>, case: String, signed: &[Signed], batch: usize) {
    if !case.contains(&options.only) {
        return;
    }
    let expected: Vec<bool> = signed.iter().map(Signed::peer_verify).collect();
    let jobs: Vec<VerifyJob> = signed.iter().map(|signed| signed.job).collect();
    let found = jobs.chunks(batch).flat_map(|jobs| {
        let verdicts = verify_all(jobs);
        (0..jobs.len()).map(move |index| verdicts.is_valid(index)).collect::<Vec<_>>()
    });
    assert!(found.eq(expected), "{case}: the sides disagree");
    let peer_count = signed.len().min(256);
    rows.push(compare(
        case,
        options.rounds,
        Clock::Thread,
        (peer_count, || {
            for signed in &signed[..peer_count] {
                black_box(signed.peer_verify());
            }
        }),
        (jobs.len(), || {
            for jobs in jobs.chunks(batch) {
                let _ = black_box(verify_all(jobs));
            }
        }),
    ));
}

/// Compressed keys, parsed.
fn parsing(options: &Options, rows: &mut Vec<Row>, signed: &[Signed]) {
    let keys: Vec<[u8; 33]> = signed.iter().map(|signed| signed.key.serialize()).collect();
    for batch in [8, 64] {
        let case = format!("parse/{batch}");
        if !case.contains(&options.only) {
            continue;
        }
        rows.push(compare(
            case,
            options.rounds,
            Clock::Thread,
            (keys.len(), || {
                for key in &keys {
                    black_box(PublicKey::from_slice(key).is_ok());
                }
            }),
            (keys.len(), || {
                for keys in keys.chunks(batch) {
                    black_box(parse_keys(keys));
                }
            }),
        ));
    }
}

impl Signed {
    fn peer_verify(&self) -> bool {
        Signature::from_compact(&self.signature)
            .is_ok_and(|signature| secp256k1::ecdsa::verify(&signature, self.message, &self.key).is_ok())
    }
}

/// A repeatable source of keys and digests.
#[derive(Clone)]
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
