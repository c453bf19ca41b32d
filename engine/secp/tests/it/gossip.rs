//! Real signatures: every message of a recorded stretch of gossip (BOLT 7) is valid, and none is after a bit flips.
//!
//! Where `FULMEN_GOSSIP` names the recording, a file of BigSize lengths and messages with its signers in a `.csv.gz`
//! beside it; without it the test says that it is skipped.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::ops::Range;
use std::path::Path;

use flate2::read::GzDecoder;
use fulmen_secp::{Batch, Verifier, VerifyJob, parse_keys};
use secp256k1::PublicKey;
use sha2::{Digest, Sha256};

const CHANNEL_ANNOUNCEMENT: u16 = 256;
const NODE_ANNOUNCEMENT: u16 = 257;

struct Message {
    bytes: Vec<u8>,
    signer: PublicKey,
}

#[test]
fn recorded_gossip_is_valid_and_not_with_a_flipped_bit() {
    let Some(path) = std::env::var_os("FULMEN_GOSSIP") else {
        println!("skipped: FULMEN_GOSSIP names no recording");
        return;
    };
    let messages = read(Path::new(&path));
    let mut batch = Batch::new();
    let ranges: Vec<Range<usize>> =
        messages.iter().map(|message| batch.extend(jobs(&message.bytes, message.signer).unwrap())).collect();
    let verdicts = batch.verify();
    assert_eq!(verdicts.invalid().collect::<Vec<_>>(), []);
    println!("{} signatures of {} messages valid", batch.len(), ranges.len());
    assert!(batch.len() > ranges.len() && ranges.iter().all(|range| verdicts.are_valid(range.clone())));

    for seed in 1..=3 {
        let mut verifier = Verifier::new().with_key_cache(64 << 20);
        let mut source = seed;
        for messages in messages.chunks(1_000) {
            let (mut flat, mut ranges) = (Vec::new(), Vec::new());
            for message in messages {
                let mut bytes = message.bytes.clone();
                // Splitmix64; the type, in the first two bytes, stays.
                source += 0x9E37_79B9_7F4A_7C15_u128;
                let mixed = (source ^ source >> 29).wrapping_mul(0xBF58_476D_1CE4_E5B9_94D0_49BB_1331_11EB);
                let bit = 16 + usize::try_from((mixed >> 64) % (8 * bytes.len() as u128 - 16)).unwrap();
                bytes[bit / 8] ^= 1 << (bit % 8);
                // A message that no longer parses is refused already.
                let Some(jobs) = jobs(&bytes, message.signer) else { continue };
                ranges.push(flat.len()..flat.len() + jobs.len());
                flat.extend(jobs);
            }
            let verdicts = verifier.verify(&flat);
            assert!(ranges.iter().all(|range| !verdicts.are_valid(range.clone())), "seed {seed}");
            assert!(ranges.len() > messages.len() / 2);
        }
    }
}

/// The signatures of a message; `signer` signed what does not name its signer.
fn jobs(message: &[u8], signer: PublicKey) -> Option<Vec<VerifyJob>> {
    let (kind, rest) = message.split_first_chunk::<2>()?;
    let kind = u16::from_be_bytes(*kind);
    let signatures = if kind == CHANNEL_ANNOUNCEMENT { 4 } else { 1 };
    let (signatures, signed) = rest.split_at_checked(64 * signatures)?;
    let digest = Sha256::digest(Sha256::digest(signed)).into();
    let after_features = |skip: usize| {
        let (length, rest) = signed.split_first_chunk::<2>()?;
        rest.get(usize::from(u16::from_be_bytes(*length)) + skip..)
    };
    let keys: Vec<PublicKey> = match kind {
        // The chain's hash and the short channel id come before the four keys, the timestamp before a node's.
        CHANNEL_ANNOUNCEMENT => keys(after_features(40)?, 4)?,
        NODE_ANNOUNCEMENT => keys(after_features(4)?, 1)?,
        _ => vec![signer],
    };
    let (signatures, _) = signatures.as_chunks::<64>();
    let job = |(signature, key): (&[u8; 64], PublicKey)| VerifyJob { key, digest, signature: *signature };
    Some(signatures.iter().zip(keys).map(job).collect())
}

fn keys(bytes: &[u8], count: usize) -> Option<Vec<PublicKey>> {
    let (keys, _) = bytes.get(..33 * count)?.as_chunks::<33>();
    parse_keys(keys).into_iter().map(Result::ok).collect()
}

fn read(path: &Path) -> Vec<Message> {
    let bytes = std::fs::read(path).unwrap();
    let mut rest = bytes.strip_prefix(b"GSP\x01").unwrap();
    let signers = BufReader::new(GzDecoder::new(File::open(path.with_extension("signers.csv.gz")).unwrap()));
    let mut messages = Vec::new();
    for line in signers.lines().skip(1) {
        let (length, after) = match rest[0] {
            0xfd => (usize::from(u16::from_be_bytes([rest[1], rest[2]])), &rest[3..]),
            length => (usize::from(length), &rest[1..]),
        };
        let (message, after) = after.split_at(length);
        rest = after;
        let signer = line.unwrap().split(',').nth(5).unwrap().parse();
        // A channel_announcement names its signers itself.
        let signer = signer.unwrap_or_else(|_| PublicKey::from_slice(&G).unwrap());
        messages.push(Message { bytes: message.to_vec(), signer });
    }
    assert!(rest.is_empty(), "a signer for each message");
    messages
}

/// Any point.
const G: [u8; 33] = [
    0x02, 0x79, 0xbe, 0x66, 0x7e, 0xf9, 0xdc, 0xbb, 0xac, 0x55, 0xa0, 0x62, 0x95, 0xce, 0x87, 0x0b, 0x07,
    0x02, 0x9b, 0xfc, 0xdb, 0x2d, 0xce, 0x28, 0xd9, 0x59, 0xf2, 0x81, 0x5b, 0x16, 0xf8, 0x17, 0x98,
];
