//! Random signatures, valid and corrupted, in batches of every size. A million of them:
//! `FULMEN_SECP_FULL=1 cargo test -p fulmen-secp differential`.

use secp256k1::SecretKey;

use super::{agree, count, random_secret, signed};
use crate::VerifyJob;
use crate::oracle::{self, Big, N, Source};

#[test]
fn differential() {
    let mut source = Source::new(31);
    let often: Vec<SecretKey> = (0..64).map(|_| random_secret(&mut source)).collect();
    let total = count(3_000, 1_000_000);
    let (mut done, mut valid) = (0, 0);
    while done < total {
        let size = 1 + source.below(200);
        let jobs: Vec<VerifyJob> = (0..size)
            .map(|_| {
                let by =
                    if source.word() & 1 == 0 { often[source.below(64)] } else { random_secret(&mut source) };
                let job = signed(&mut source, &by);
                if source.below(4) == 0 { corrupted(&mut source, job) } else { job }
            })
            .collect();
        valid += agree(&jobs);
        done += size;
    }
    assert!(valid > done / 2 && valid < done - done / 8, "{valid} of {done} valid");
    println!("{done} signatures, {valid} of them valid, no disagreement");
}

fn corrupted(source: &mut Source, mut job: VerifyJob) -> VerifyJob {
    let half = |job: &VerifyJob, at: usize| Big::from_bytes(job.signature[at..at + 32].try_into().unwrap());
    let bit = 1 << source.below(8);
    match source.below(12) {
        0 => job.digest[source.below(32)] ^= bit,
        1 => job.key = signed(source, &SecretKey::from_slice(&[9; 32]).unwrap()).key,
        2 => job.signature[source.below(64)] ^= bit,
        3 => job.signature[..32].fill(0),
        4 => job.signature[32..].fill(0),
        5 => job.signature[..32].copy_from_slice(&N.to_bytes()),
        6 => job.signature[32..].fill(0xff),
        7 => {
            let high = oracle::negate(half(&job, 32), N);
            job.signature[32..].copy_from_slice(&high.to_bytes());
        }
        8 => job.key = job.key.negate(&secp256k1::Secp256k1::new()),
        9 => job.signature.rotate_left(32),
        10 => job.signature[..31].fill(0),
        _ => job.signature[32..63].fill(0),
    }
    job
}
