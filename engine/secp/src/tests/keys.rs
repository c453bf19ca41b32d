//! Parsing compressed keys.

use secp256k1::PublicKey;

use super::{MODELS, backends, count, public};
use crate::oracle::{self, Big, P, Source};
use crate::{KeyError, parse_keys_with};

#[test]
fn what_is_a_key_is_what_libsecp256k1_says() {
    let mut source = Source::new(41);
    let mut keys = Vec::new();
    for _ in 0..count(600, 100_000) {
        let mut key = match source.below(4) {
            // Half of all x-coordinates are not on the curve.
            0 => compressed(source.number(P)),
            1 => compressed(oracle::add(source.number(P), Big([u64::MAX; 4]).modulo(P), P)),
            _ => public(source.nonzero(oracle::N)).serialize(),
        };
        match source.below(16) {
            0 => key[0] = source.word() as u8,
            1 => key[1..].fill(0xff),
            2 => key[1..].copy_from_slice(&P.to_bytes()),
            3 => key[0] ^= 1,
            _ => {}
        }
        keys.push(key);
    }
    // The same numbers with p added, where that fits.
    keys.extend((0..4).map(|less| {
        let mut words = [u64::MAX; 4];
        words[0] -= less;
        compressed(Big(words))
    }));
    let expected: Vec<_> =
        keys.iter().map(|key| PublicKey::from_slice(key).map_err(|_| KeyError::NotAPoint(*key))).collect();
    for backend in backends() {
        assert_eq!(parse_keys_with(backend, &keys), expected);
        for size in [1, 2, 7, 8, 9, 16, 17, 31, 33] {
            for (keys, expected) in keys.chunks(size).zip(expected.chunks(size)).take(10) {
                assert_eq!(parse_keys_with(backend, keys), expected);
            }
        }
        assert_eq!(parse_keys_with(backend, &[]), []);
    }
    for backend in MODELS {
        assert_eq!(parse_keys_with(backend, &keys[..65]), expected[..65]);
    }
    let valid = expected.iter().filter(|key| key.is_ok()).count();
    assert!(valid > keys.len() / 2 && valid < keys.len() - keys.len() / 8, "{valid} of {} valid", keys.len());
}

fn compressed(x: Big) -> [u8; 33] {
    let mut key = [2 + u8::from(x.bit(3)); 33];
    key[1..].copy_from_slice(&x.to_bytes());
    key
}
