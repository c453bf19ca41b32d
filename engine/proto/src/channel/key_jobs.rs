//! Jobs that derive the keys of commitments to come (BOLT 3, "Key Derivation").
//!
//! Owns: which keys are not derived yet, and which of them the next message needs. A lone derivation fills one lane of
//! eight, so a driver of many channels collects their jobs into batches: the peer's next commitment as soon as its
//! point is known, our own as far ahead as lanes are free. Does not derive anything; the driver returns the keys.
//!
//! Invariant: no outcome depends on whether keys were derived ahead.

use std::ops::Range;

use super::funded::{Funded, Link};
use super::htlc::Side;
use super::{Channel, Phase};
use crate::keys::{CommitmentKeyJob, CommitmentKeys, CommitmentNumber};

/// How many of our commitments are kept ahead: as many as there are lanes.
const LOCAL_MAX: usize = 8;
/// How many of our commitments a `commitment_signed` of the peer needs: the keys of the next, the point of the one
/// after.
const LOCAL_NEEDED: usize = 2;

/// Our commitments to come that lack keys, counted from the next one.
#[derive(Debug)]
pub(crate) struct LackingKeys {
    /// Those that the peer's next `commitment_signed` cannot do without.
    pub(crate) needed: Range<usize>,
    /// Those after them, as far ahead as keys are kept.
    pub(crate) useful: Range<usize>,
}

/// Deriving ahead, for whoever drives many channels.
impl Channel {
    /// Whether a `commitment_signed` (of the peer, for [`Side::Local`]; of ours, for [`Side::Remote`]) that comes now
    /// would have to derive keys by itself.
    pub(crate) fn lacks_keys(&self, side: Side) -> bool {
        self.live().is_some_and(|funded| match side {
            Side::Local => funded.ahead.local.len() < LOCAL_NEEDED,
            Side::Remote => funded.commitment_signed_due() && funded.lacks_remote_keys(),
        })
    }

    /// The job that derives the keys of the peer's next commitment, if its point is known and the keys are not.
    pub(crate) fn remote_key_job(&self) -> Option<CommitmentKeyJob<'_>> {
        let funded = self.live().filter(|funded| funded.lacks_remote_keys())?;
        Some(CommitmentKeyJob {
            owner: &funded.params.agreed.remote_basepoints,
            other: funded.secrets.basepoints(),
            per_commitment_point: funded.remote_next_point?,
        })
    }

    /// Which of our commitments to come lack keys, counted from the next one; the first `needed` of them cannot wait
    /// for the peer's `commitment_signed`.
    pub(crate) fn local_keys_lacking(&self) -> LackingKeys {
        let known = self.live().map_or(LOCAL_MAX, |funded| funded.ahead.local.len());
        LackingKeys { needed: known..LOCAL_NEEDED.max(known), useful: LOCAL_NEEDED.max(known)..LOCAL_MAX }
    }

    /// The jobs that derive keys of our commitments to come.
    pub(crate) fn local_key_jobs(
        &self,
        after_next: Range<usize>,
    ) -> impl Iterator<Item = CommitmentKeyJob<'_>> {
        self.live().into_iter().flat_map(move |funded| {
            after_next.clone().map(|after_next| CommitmentKeyJob {
                owner: funded.secrets.basepoints(),
                other: &funded.params.agreed.remote_basepoints,
                per_commitment_point: funded
                    .secrets
                    .per_commitment_point(funded.local_number_after_next(after_next)),
            })
        })
    }

    /// Stores the keys that a job of [`Channel::remote_key_job`] derived.
    pub(crate) fn put_remote_keys(&mut self, keys: CommitmentKeys) {
        if let Some(funded) = self.live_mut() {
            funded.ahead.remote = Some(keys);
        }
    }

    /// Stores the keys that jobs of [`Channel::local_key_jobs`] derived: for the first commitments without keys, in
    /// order, on the state they were made on.
    pub(crate) fn put_local_keys(&mut self, keys: CommitmentKeys) {
        if let Some(funded) = self.live_mut() {
            funded.ahead.local.push_back(keys);
        }
    }

    /// The state, of a channel that still signs commitments.
    fn live(&self) -> Option<&Funded> {
        match &self.phase {
            Phase::Confirming(funded) | Phase::Normal(funded) => Some(funded),
            _ => None,
        }
    }

    fn live_mut(&mut self) -> Option<&mut Funded> {
        match &mut self.phase {
            Phase::Confirming(funded) | Phase::Normal(funded) => Some(funded),
            _ => None,
        }
    }
}

impl Funded {
    /// Whether we owe the peer a `commitment_signed` now.
    pub(super) fn commitment_signed_due(&self) -> bool {
        self.link == Link::Up && !self.awaiting_revocation && self.has_unsigned_updates()
    }

    fn lacks_remote_keys(&self) -> bool {
        self.remote_next_point.is_some_and(|point| self.ahead.remote(&point).is_none())
    }

    /// The number of our commitment `after_next` commitments after the next one.
    fn local_number_after_next(&self, after_next: usize) -> CommitmentNumber {
        (0..=after_next).fold(self.local_number, |number, _| number.next())
    }
}
