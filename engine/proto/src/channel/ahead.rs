//! The keys of commitments to come, derived before they are needed (BOLT 3, "Key Derivation").
//!
//! Owns: the keys derived already, of our next commitments and of the peer's. Does not: derive them, or choose which to
//! derive next; see [`key_jobs`](super::key_jobs).
//!
//! Invariant: the keys kept here can be derived again at any time, and no outcome depends on whether they were.

use std::collections::VecDeque;

use secp256k1::PublicKey;

use crate::keys::CommitmentKeys;

/// Keys derived ahead of their use.
#[derive(Clone, Debug, Default)]
pub(super) struct KeysAhead {
    /// Of our commitments after the latest, one by one.
    pub(super) local: VecDeque<CommitmentKeys>,
    /// Of a commitment of the peer; its point identifies it.
    pub(super) remote: Option<CommitmentKeys>,
}

impl KeysAhead {
    /// The keys of our commitment `after_next` commitments after the next one.
    pub(super) fn local(&self, after_next: usize) -> Option<&CommitmentKeys> {
        self.local.get(after_next)
    }

    /// The keys of the peer's commitment with this point.
    pub(super) fn remote(&self, point: &PublicKey) -> Option<&CommitmentKeys> {
        self.remote.as_ref().filter(|keys| keys.per_commitment_point == *point)
    }

    /// Our next commitment has become the latest.
    pub(super) fn shift_local(&mut self) {
        self.local.pop_front();
    }

    /// Forgets everything.
    #[cfg(test)]
    pub(super) fn clear(&mut self) {
        *self = KeysAhead::default();
    }
}
