//! Per-commitment secrets and their compact storage (BOLT 3, "Per-commitment Secret Requirements" and "Efficient
//! Per-commitment Secret Storage").
//!
//! Owns: generation of secrets from a seed, and the store of the secrets a peer has revealed. Does not turn secrets
//! into keys of a commitment; `derive` does.
//!
//! Invariant: a store holds the secrets of the commitments `0..next` and of no other, and each of them can be derived.

use core::fmt;

use bitcoin::hashes::{Hash, sha256};
use secp256k1::{PublicKey, SecretKey};
use thiserror::Error;

/// The index of the first commitment's secret; indexes fall from here.
const FIRST_INDEX: u64 = (1 << 48) - 1;

/// The number of a commitment: 0 for the first, one more for each that follows (BOLT 3, "commitment number").
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CommitmentNumber(pub u64);

impl CommitmentNumber {
    /// The commitment a channel opens with.
    pub const FIRST: CommitmentNumber = CommitmentNumber(0);
    /// The last commitment for which there is a secret.
    pub const LAST: CommitmentNumber = CommitmentNumber(FIRST_INDEX);

    /// The number after this one, held at the last: no channel lives to see 2^48 commitments.
    #[must_use]
    pub const fn next(self) -> CommitmentNumber {
        CommitmentNumber(if self.0 < FIRST_INDEX { self.0 + 1 } else { FIRST_INDEX })
    }

    /// The number before this one, or `None` before the first.
    #[must_use]
    pub const fn previous(self) -> Option<CommitmentNumber> {
        match self.0.checked_sub(1) {
            Some(number) => Some(CommitmentNumber(number)),
            None => None,
        }
    }

    /// The index of this commitment's secret, which counts down where the number counts up.
    const fn index(self) -> u64 {
        FIRST_INDEX.saturating_sub(self.0)
    }
}

impl fmt::Display for CommitmentNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "commitment {}", self.0)
    }
}

/// The secret behind one commitment's keys; revealing it revokes the commitment.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PerCommitmentSecret(SecretKey);

impl PerCommitmentSecret {
    /// Takes a secret as `revoke_and_ack` carries it; `None` when it is no valid secret key.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; 32]) -> Option<PerCommitmentSecret> {
        SecretKey::from_slice(bytes).ok().map(PerCommitmentSecret)
    }

    /// Generates the secret of commitment `number` from a channel's seed.
    #[must_use]
    pub fn generate(seed: &[u8; 32], number: CommitmentNumber) -> PerCommitmentSecret {
        PerCommitmentSecret(
            SecretKey::from_slice(&derive(*seed, 48, number.index()))
                .expect("a SHA-256 output outside the group's order has never been found"),
        )
    }

    /// The bytes that `revoke_and_ack` reveals.
    #[must_use]
    pub fn reveal(&self) -> [u8; 32] {
        self.0.secret_bytes()
    }

    /// The per-commitment point.
    #[must_use]
    pub fn point(&self) -> PublicKey {
        self.0.public_key(super::secp())
    }

    /// The secret as a key.
    pub(super) fn key(&self) -> &SecretKey {
        &self.0
    }
}

impl fmt::Debug for PerCommitmentSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PerCommitmentSecret(..)")
    }
}

/// Why a revealed secret was not taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SecretStoreError {
    /// Secrets are revealed one by one, in order.
    #[error("the secret of {found} was revealed where {expected} was due")]
    OutOfOrder {
        /// The commitment whose secret is due.
        expected: CommitmentNumber,
        /// The commitment whose secret was offered.
        found: CommitmentNumber,
    },
    /// An earlier secret does not follow from this one: they come from different seeds.
    #[error("the secret of {number} does not derive the secret of {earlier}")]
    NotFromTheSameSeed {
        /// The commitment whose secret was offered.
        number: CommitmentNumber,
        /// The commitment whose secret it should derive.
        earlier: CommitmentNumber,
    },
    /// A stored form holds another number of secrets than its commitments need.
    #[error("a store of {next} needs {needed} secrets and holds {found}")]
    WrongSize {
        /// The commitment whose secret is due.
        next: CommitmentNumber,
        /// How many secrets represent those before it.
        needed: usize,
        /// How many were given.
        found: usize,
    },
}

/// The secrets a peer has revealed, in at most 49 entries.
///
/// Because secrets arrive in order, the entry at position `b` belongs to the lowest known index with `b` trailing
/// zeros; positions need no indexes of their own.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct SecretStore {
    /// The commitment whose secret is due.
    next: CommitmentNumber,
    /// One secret for each number of trailing zeros seen.
    known: Vec<[u8; 32]>,
}

impl SecretStore {
    /// A store without secrets.
    #[must_use]
    pub const fn new() -> SecretStore {
        SecretStore { next: CommitmentNumber::FIRST, known: Vec::new() }
    }

    /// Rebuilds a store from its [`SecretStore::next`] and [`SecretStore::entries`].
    ///
    /// # Errors
    /// When the number of entries is not the one that `next` needs.
    pub fn from_entries(
        next: CommitmentNumber,
        entries: Vec<[u8; 32]>,
    ) -> Result<SecretStore, SecretStoreError> {
        // Entry `b` first appears with commitment `2^b - 1`.
        let needed = (u64::BITS - next.0.leading_zeros()) as usize;
        if entries.len() != needed || next.0 > CommitmentNumber::LAST.0 + 1 {
            return Err(SecretStoreError::WrongSize { next, needed, found: entries.len() });
        }
        Ok(SecretStore { next, known: entries })
    }

    /// The commitment whose secret is due.
    #[must_use]
    pub const fn next(&self) -> CommitmentNumber {
        self.next
    }

    /// The stored secrets, for persisting.
    #[must_use]
    pub fn entries(&self) -> &[[u8; 32]] {
        &self.known
    }

    /// Checks that `secret` may be taken in as that of commitment `number`, without changing the store.
    ///
    /// # Errors
    /// If the number is not the next one, or an earlier secret does not derive from this one.
    pub fn check(
        &self,
        number: CommitmentNumber,
        secret: &PerCommitmentSecret,
    ) -> Result<(), SecretStoreError> {
        if number != self.next || number > CommitmentNumber::LAST {
            return Err(SecretStoreError::OutOfOrder { expected: self.next, found: number });
        }
        let bits = position(number.index());
        for (b, known) in self.known.iter().enumerate().take(bits) {
            let index = self.index_at(b);
            if derive(secret.reveal(), bits, index) != *known {
                let earlier = CommitmentNumber(FIRST_INDEX - index);
                return Err(SecretStoreError::NotFromTheSameSeed { number, earlier });
            }
        }
        Ok(())
    }

    /// Takes in the secret of commitment `number`, which must be the next due and derive the earlier ones.
    ///
    /// # Errors
    /// If the number is not the next one, or an earlier secret does not derive from this one. The store is unchanged.
    pub fn insert(
        &mut self,
        number: CommitmentNumber,
        secret: &PerCommitmentSecret,
    ) -> Result<(), SecretStoreError> {
        self.check(number, secret)?;
        let bits = position(number.index());
        match self.known.get_mut(bits) {
            Some(entry) => *entry = secret.reveal(),
            None => self.known.push(secret.reveal()),
        }
        self.next = CommitmentNumber(number.0 + 1);
        Ok(())
    }

    /// The secret of commitment `number`, if it has been revealed.
    #[must_use]
    pub fn lookup(&self, number: CommitmentNumber) -> Option<PerCommitmentSecret> {
        if number >= self.next {
            return None;
        }
        let index = number.index();
        self.known
            .iter()
            .enumerate()
            .find(|&(b, _)| index >> b << b == self.index_at(b))
            .and_then(|(b, known)| PerCommitmentSecret::from_bytes(&derive(*known, b, index)))
    }

    /// The index whose secret stands at position `b`: the lowest known with `b` trailing zeros.
    fn index_at(&self, b: usize) -> u64 {
        let lowest = FIRST_INDEX + 1 - self.next.0;
        let aligned = lowest.div_ceil(1 << b) << b;
        // Position 48 holds the secret of index 0, which has no lowest bit set.
        if b == 48 || aligned >> b & 1 == 1 { aligned } else { aligned + (1 << b) }
    }
}

impl fmt::Debug for SecretStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SecretStore").field("next", &self.next).finish_non_exhaustive()
    }
}

/// Where in the store the secret of `index` stands: the number of its trailing zeros, 48 for index 0.
fn position(index: u64) -> usize {
    (index.trailing_zeros() as usize).min(48)
}

/// The secret of `index`, given one whose index agrees with it in bit `bits` and above (BOLT 3, `derive_secret`).
fn derive(base: [u8; 32], bits: usize, index: u64) -> [u8; 32] {
    let mut secret = base;
    for bit in (0..bits).rev().filter(|bit| index >> bit & 1 == 1) {
        secret[bit / 8] ^= 1 << (bit % 8);
        secret = sha256::Hash::hash(&secret).to_byte_array();
    }
    secret
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::keys::tests::{bytes, vectors};

    fn number(index: &serde_json::Value) -> CommitmentNumber {
        CommitmentNumber(FIRST_INDEX - index.as_u64().unwrap())
    }

    /// BOLT 3, appendix D, "Generation Tests".
    #[test]
    fn generation_vectors() {
        let vectors = vectors();
        let cases = vectors["generation"].as_array().unwrap();
        assert_eq!(cases.len(), 5);
        for case in cases {
            let secret = PerCommitmentSecret::generate(&bytes(&case["seed"]), number(&case["index"]));
            assert_eq!(secret.reveal(), bytes(&case["secret"]), "{}", case["name"]);
        }
    }

    /// BOLT 3, appendix D, "Storage Tests".
    #[test]
    fn storage_vectors() {
        let vectors = vectors();
        let cases = vectors["storage"].as_array().unwrap();
        assert_eq!(cases.len(), 9);
        for case in cases {
            let mut store = SecretStore::new();
            for step in case["steps"].as_array().unwrap() {
                let secret = PerCommitmentSecret::from_bytes(&bytes(&step["secret"])).unwrap();
                let (number, before) = (number(&step["index"]), store.clone());
                if step["accepted"].as_bool().unwrap() {
                    assert_eq!(store.insert(number, &secret), Ok(()), "{}", case["name"]);
                    assert_eq!(store.lookup(number), Some(secret));
                } else {
                    let refused = store.insert(number, &secret);
                    assert!(
                        matches!(refused, Err(SecretStoreError::NotFromTheSameSeed { .. })),
                        "{}: {refused:?}",
                        case["name"]
                    );
                    assert_eq!(store, before);
                }
            }
        }
    }

    fn filled(seed: &[u8; 32], count: u64) -> SecretStore {
        let mut store = SecretStore::new();
        for number in (0..count).map(CommitmentNumber) {
            store.insert(number, &PerCommitmentSecret::generate(seed, number)).unwrap();
        }
        store
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn store_gives_back_all_it_took_and_no_more(seed: [u8; 32], count in 0u64..300) {
            let store = filled(&seed, count);
            for number in (0..count).map(CommitmentNumber) {
                prop_assert_eq!(store.lookup(number), Some(PerCommitmentSecret::generate(&seed, number)));
            }
            prop_assert_eq!(store.lookup(CommitmentNumber(count)), None);
            prop_assert_eq!(store.lookup(CommitmentNumber::LAST), None);
            prop_assert!(store.entries().len() <= 9);
            let again = SecretStore::from_entries(store.next(), store.entries().to_vec());
            prop_assert_eq!(again, Ok(store));
        }

        #[test]
        fn store_refuses_a_secret_out_of_turn(seed: [u8; 32], count in 0u64..40, offered in 0u64..40) {
            let mut store = filled(&seed, count);
            let offered = CommitmentNumber(offered);
            let result = store.insert(offered, &PerCommitmentSecret::generate(&seed, offered));
            let expected = CommitmentNumber(count);
            if offered == expected {
                prop_assert_eq!(result, Ok(()));
            } else {
                prop_assert_eq!(result, Err(SecretStoreError::OutOfOrder { expected, found: offered }));
            }
        }
    }

    #[test]
    fn entries_must_fit_the_count() {
        let entries = filled(&[7; 32], 5).entries().to_vec();
        assert_eq!(entries.len(), 3);
        for (next, fits) in [(3, false), (4, true), (7, true), (8, false), (1 << 60, false)] {
            let store = SecretStore::from_entries(CommitmentNumber(next), entries.clone());
            assert_eq!(store.is_ok(), fits, "{next}");
        }
    }

    /// Jumps to the end of the sequence, which no test could reach one by one.
    #[test]
    fn the_last_secret_is_the_seed() {
        let seed = [9; 32];
        let entry = |b: usize| {
            if b == 48 { seed } else { derive(seed, 48, 1 << b) }
        };
        let last = CommitmentNumber::LAST;
        let mut store = SecretStore::from_entries(last, (0..48).map(entry).collect()).unwrap();
        let secret = PerCommitmentSecret::generate(&seed, last);
        assert_eq!(secret.reveal(), seed);
        store.insert(last, &secret).unwrap();
        assert_eq!(store.entries().len(), 49);
        for number in [0, 1, 2, 1 << 20, (1 << 48) - 2, (1 << 48) - 1].map(CommitmentNumber) {
            assert_eq!(store.lookup(number), Some(PerCommitmentSecret::generate(&seed, number)));
        }
        assert!(store.insert(CommitmentNumber(1 << 48), &secret).is_err());
    }

    #[test]
    fn secrets_do_not_print() {
        let secret = PerCommitmentSecret::generate(&[3; 32], CommitmentNumber::FIRST);
        assert_eq!(format!("{secret:?}"), "PerCommitmentSecret(..)");
        assert_eq!(format!("{:?}", filled(&[3; 32], 2)), "SecretStore { next: CommitmentNumber(2), .. }");
    }
}
