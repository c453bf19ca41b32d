//! Batches of signatures: every backend agrees with libsecp256k1, with tables and without.
//!
//! The input describes each signature by the numbers behind it: with R = k G, the key q G and any s, the digest s k -
//! r q makes a valid one. So whatever sums the lanes meet can be brought about; then bits are flipped. Some keys are
//! derived from a basepoint, as those of HTLC signatures are.
#![no_main]

use fulmen_secp::{Batch, DeriveJob, Verifier, VerifyJob};
use libfuzzer_sys::fuzz_target;
use secp256k1::ecdsa::Signature;
use secp256k1::{Message, PublicKey, Scalar, Secp256k1, SecretKey};
use sha2::{Digest, Sha256};

/// The input, read from the front.
struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    /// A number in [1, n): small, a small multiple of lambda, the opposite of such, or any.
    fn number(&mut self) -> Option<SecretKey> {
        let (kind, small) = (self.byte()?, self.byte()?);
        let mut bytes = [0; 32];
        if kind & 3 == 0 {
            let (number, rest) = self.0.split_first_chunk::<32>()?;
            self.0 = rest;
            bytes = *number;
        } else {
            bytes[31 - usize::from(kind >> 4)] = small.max(1);
        }
        let mut number = SecretKey::from_slice(&bytes).ok()?;
        if kind & 3 == 2 {
            number = number.mul_tweak(&Scalar::from_be_bytes(LAMBDA).ok()?).ok()?;
        }
        Some(if kind & 4 == 4 { number.negate() } else { number })
    }

    fn job(&mut self) -> Option<(VerifyJob, Option<DeriveJob>)> {
        let secp = Secp256k1::new();
        let (k, mut q, s) = (self.number()?, self.number()?, self.number()?);
        let mut derived = None;
        if self.byte()? & 1 == 1 {
            let point = self.number()?.public_key(&secp);
            let from = DeriveJob { basepoint: q.public_key(&secp), per_commitment_point: point };
            let hash = Sha256::new().chain_update(point.serialize()).chain_update(from.basepoint.serialize());
            q = q.add_tweak(&Scalar::from_be_bytes(hash.finalize().into()).ok()?).ok()?;
            derived = Some(from);
        }
        let x = PublicKey::from_secret_key(&secp, &k).serialize();
        let r = SecretKey::from_slice(&x[1..]).ok()?;
        let r_q = r.mul_tweak(&Scalar::from(q)).ok()?;
        let s_k = s.mul_tweak(&Scalar::from(k)).ok()?;
        let digest =
            s_k.add_tweak(&Scalar::from(r_q.negate())).map_or([0; 32], |digest| digest.secret_bytes());
        let mut signature = [0; 64];
        signature[..32].copy_from_slice(&r.secret_bytes());
        signature[32..].copy_from_slice(&s.secret_bytes());
        let mut job = VerifyJob { key: PublicKey::from_secret_key(&secp, &q), digest, signature };
        let flip = self.byte()?;
        if flip & 0x80 != 0 {
            let at = usize::from(self.byte()?);
            match at {
                0..64 => job.signature[at] ^= flip & 0x7f,
                64..96 => job.digest[at - 64] ^= flip & 0x7f,
                _ => {}
            }
        }
        Some((job, derived))
    }
}

fuzz_target!(|bytes: &[u8]| {
    let mut input = Input(bytes);
    let (mut jobs, mut batch) = (Vec::new(), Batch::new());
    while let Some((job, derived)) = input.job() {
        jobs.push(job);
        match derived {
            None => {
                batch.push(job);
            }
            Some(from) => {
                batch.extend_derived([job], from);
            }
        }
    }
    let secp = Secp256k1::verification_only();
    let expected: Vec<bool> = jobs
        .iter()
        .map(|job| {
            Signature::from_compact(&job.signature).is_ok_and(|signature| {
                secp.verify_ecdsa(&Message::from_digest(job.digest), &signature, &job.key).is_ok()
            })
        })
        .collect();
    let verifier = Verifier::new;
    for mut verifier in [verifier(), verifier().with_key_cache(1 << 20)] {
        // By the tenth time every key has its table.
        for _ in 0..10 {
            for verdicts in [verifier.verify(&jobs), verifier.verify_batch(&batch)] {
                let found: Vec<bool> = (0..jobs.len()).map(|index| verdicts.is_valid(index)).collect();
                assert_eq!(found, expected);
            }
        }
    }
});

/// The cube root of one modulo the order that the endomorphism multiplies by.
const LAMBDA: [u8; 32] = [
    0x53, 0x63, 0xad, 0x4c, 0xc0, 0x5c, 0x30, 0xe0, 0xa5, 0x26, 0x1c, 0x02, 0x88, 0x12, 0x64, 0x5a, 0x12,
    0x2e, 0x22, 0xea, 0x20, 0x81, 0x66, 0x78, 0xdf, 0x02, 0x96, 0x7c, 0x1b, 0x23, 0xbd, 0x72,
];
