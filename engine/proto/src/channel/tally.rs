//! Sums over the HTLCs of a view, continued from one addition to the next.
//!
//! Owns: [`Tally`], the sums of a view that the limits of an addition need (BOLT 2, "Adding an HTLC"): balances,
//! counts, and how much of it is too small for either commitment. Does not: judge them; see [`limits`](super::limits).
//!
//! Computed for each HTLC anew, these sums would make a turn quadratic in the HTLCs in flight. A tally is the reducer's
//! fold with its result kept: an addition continues it, every other change of the view discards it.
//!
//! Invariant: a tally kept equals the one computed from the log, which tests and debug builds check at every use.

use std::sync::OnceLock;

use fulmen_wire::units::{FeeratePerKw, Msat};

use super::delta::Delta;
use super::htlc::{HtlcEntry, Side};
use super::params::Params;
use super::updates::{Moved, Updates, View};

/// The sums of a view.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Tally {
    view: View,
    /// Balances without HTLCs, before fee and anchors.
    moved: Moved,
    /// Number and sum of the HTLCs of each side.
    pending: BySide<(usize, Msat)>,
    /// The fee rate that decides which HTLCs are trimmed.
    feerate: FeeratePerKw,
    /// By owner of a commitment and offerer of the HTLC: the least amount that has an output.
    thresholds: BySide<BySide<Msat>>,
    /// By owner of a commitment: how many have an output, and the sum of those that have none.
    outputs: BySide<(usize, Msat)>,
}

/// One thing for each side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct BySide<T> {
    local: T,
    remote: T,
}

impl<T> BySide<T> {
    fn new(of: impl Fn(Side) -> T) -> BySide<T> {
        BySide { local: of(Side::Local), remote: of(Side::Remote) }
    }

    const fn of(&self, side: Side) -> &T {
        match side {
            Side::Local => &self.local,
            Side::Remote => &self.remote,
        }
    }

    const fn of_mut(&mut self, side: Side) -> &mut T {
        match side {
            Side::Local => &mut self.local,
            Side::Remote => &mut self.remote,
        }
    }
}

impl Tally {
    /// The tally of a view of the log at a fee rate.
    pub(super) fn of(params: &Params, updates: &Updates, view: View, feerate: FeeratePerKw) -> Tally {
        let mut tally = Tally {
            view,
            moved: updates.settled(),
            pending: BySide::default(),
            feerate,
            thresholds: BySide::new(|owner| BySide::new(|by| params.trim_threshold(owner, by, feerate))),
            outputs: BySide::default(),
        };
        updates.entries().for_each(|entry| tally.count(entry));
        tally
    }

    fn count(&mut self, entry: &HtlcEntry) {
        if !self.moved.count(self.view, entry) {
            return;
        }
        let (by, amount) = (entry.offered_by, entry.htlc.amount);
        let (count, sum) = self.pending.of_mut(by);
        (*count, *sum) = (*count + 1, sum.saturating_add(amount));
        for owner in [Side::Local, Side::Remote] {
            let (untrimmed, trimmed) = self.outputs.of_mut(owner);
            if amount < *self.thresholds.of(owner).of(by) {
                *trimmed = trimmed.saturating_add(amount);
            } else {
                *untrimmed += 1;
            }
        }
    }

    /// One side's balance.
    pub(super) fn balance(&self, side: Side) -> Msat {
        self.moved.balance(side)
    }

    /// The fee rate that decides which HTLCs are trimmed.
    pub(super) const fn feerate(&self) -> FeeratePerKw {
        self.feerate
    }

    /// How many HTLCs one side has offered.
    pub(super) const fn offered_count(&self, by: Side) -> usize {
        self.pending.of(by).0
    }

    /// The sum of the HTLCs that one side has offered.
    pub(super) const fn offered(&self, by: Side) -> Msat {
        self.pending.of(by).1
    }

    /// How many HTLCs have an output on `owner`'s commitment.
    pub(super) const fn untrimmed(&self, owner: Side) -> usize {
        self.outputs.of(owner).0
    }

    /// The sum of the HTLCs without an output on `owner`'s commitment.
    pub(super) const fn trimmed(&self, owner: Side) -> Msat {
        self.outputs.of(owner).1
    }

    /// The least amount of an HTLC of `by` that has an output on `owner`'s commitment.
    pub(super) const fn threshold(&self, owner: Side, by: Side) -> Msat {
        *self.thresholds.of(owner).of(by)
    }
}

/// The tallies of the two views that additions are checked on.
#[derive(Clone, Debug, Default)]
pub(super) struct Tallies {
    pub(super) prudent: OnceLock<Tally>,
    pub(super) peer_knew: OnceLock<Tally>,
}

impl Tallies {
    /// An HTLC was added.
    pub(super) fn added(&mut self, entry: &HtlcEntry) {
        for tally in [self.prudent.get_mut(), self.peer_knew.get_mut()].into_iter().flatten() {
            tally.count(entry);
        }
    }

    /// Ends the tallies that a delta about to be folded changes, [`Tallies::added`] aside. The prudent view does not
    /// count on a removal that is only proposed; the peer knew its own proposals.
    pub(super) fn end(&mut self, delta: &Delta) {
        match delta {
            Delta::Added { .. } | Delta::Removed { by: Side::Local, .. } => {}
            Delta::Removed { by: Side::Remote, .. } => {
                self.peer_knew.take();
            }
            _ => self.clear(),
        }
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        *self = Tallies::default();
    }
}
