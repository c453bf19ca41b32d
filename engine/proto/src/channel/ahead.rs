//! The keys of commitments to come, derived before they are needed (BOLT 3, "Key Derivation").
//!
//! Owns: which keys are derived already, and which would be worth deriving next. A lone derivation fills one lane of
//! eight, so whoever drives many channels gathers theirs: the peer's next commitment as soon as its point is known, and
//! ours as far ahead as lanes are left. Does not: derive in bulk; the keys come from outside.
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
    /// Of a commitment of the peer, which its point tells.
    pub(super) remote: Option<CommitmentKeys>,
}

impl KeysAhead {
    /// The keys of our commitment that is so many after the next one.
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
