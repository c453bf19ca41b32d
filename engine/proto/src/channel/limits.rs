//! What either side may still add, and what fees it can pay (BOLT 2, "Adding an HTLC", "Updating Fees", "Bounding
//! exposure to trimmed in-flight HTLCs").
//!
//! Owns: the arithmetic of reserves, fees, the fee-spike buffer, anchors, slots, value in flight and dust exposure.
//! Does not: change anything.
//!
//! Invariants: what we send is measured on [`View::PRUDENT`], which is never more generous than any commitment the
//! peer will check; what the peer sends is measured on [`View::PEER_KNEW`], so that an honest peer is never refused for
//! what crossed its message. [`Funded::available_out`] and the check of an addition are the same computation.

use fulmen_wire::units::{FeeratePerKw, Msat, Sat};

use super::command::CommandError;
use super::error::ChannelError;
use super::funded::Funded;
use super::htlc::{HtlcEntry, Side};
use super::tally::Tally;
use super::updates::View;
use crate::commitment::ChannelType;

/// How many times its fee an opener without anchors keeps in reserve for a rise of the fee rate.
const FEE_SPIKE_MULTIPLE: u64 = 2;
/// HTLCs of the peer that may cross an `update_fee` of ours, for which the fee must do as well.
const CONCURRENT_HTLCS: usize = 2;

impl Funded {
    /// What we can count on, at the highest fee rate that a commitment has or may yet have.
    pub(super) fn prudent(&self) -> &Tally {
        let fresh = || self.tally(View::PRUDENT, self.highest_feerate());
        let tally = self.tallies.prudent.get_or_init(fresh);
        if cfg!(any(test, debug_assertions)) {
            assert_eq!(*tally, fresh(), "a tally kept is that of the log");
        }
        tally
    }

    /// What the peer knew when it sent an update, at the fee rate it knew.
    pub(super) fn peer_knew(&self) -> &Tally {
        let fresh = || self.tally(View::PEER_KNEW, self.updates.feerate(View::PEER_KNEW));
        let tally = self.tallies.peer_knew.get_or_init(fresh);
        if cfg!(any(test, debug_assertions)) {
            assert_eq!(*tally, fresh(), "a tally kept is that of the log");
        }
        tally
    }

    fn tally(&self, view: View, feerate: FeeratePerKw) -> Tally {
        Tally::of(&self.params, &self.updates, view, feerate)
    }

    /// The highest fee rate that a commitment has or may yet have.
    pub(super) fn highest_feerate(&self) -> FeeratePerKw {
        self.updates.feerates().max().unwrap_or_default()
    }
}

impl Funded {
    /// What we may offer in one more HTLC; zero if none.
    pub(super) fn available_out(&self) -> Msat {
        let tally = self.prudent();
        let in_flight = tally.offered(Side::Local);
        let theirs = &self.params.agreed.remote_terms;
        if tally.offered_count(Side::Local) >= usize::from(theirs.max_accepted_htlcs) {
            return Msat::ZERO;
        }
        let available =
            self.spendable(Side::Local).min(theirs.max_htlc_value_in_flight.saturating_sub(in_flight));
        if available < theirs.htlc_minimum { Msat::ZERO } else { available }
    }

    /// What the peer may offer us in one more HTLC, as far as we can know; zero if none.
    pub(super) fn available_in(&self) -> Msat {
        let tally = self.prudent();
        let in_flight = tally.offered(Side::Remote);
        let ours = &self.params.agreed.local_terms;
        if tally.offered_count(Side::Remote) >= usize::from(ours.max_accepted_htlcs) {
            return Msat::ZERO;
        }
        let available =
            self.spendable(Side::Remote).min(ours.max_htlc_value_in_flight.saturating_sub(in_flight));
        if available < ours.htlc_minimum { Msat::ZERO } else { available }
    }

    /// What `side` can pay in one more HTLC: its balance without the reserve, and, where it pays the fee, without
    /// fee, fee-spike buffer and anchors, on either commitment.
    fn spendable(&self, side: Side) -> Msat {
        let tally = self.prudent();
        let feerate = tally.feerate();
        let own = tally.balance(side).saturating_sub(self.params.reserve(side).to_msat());
        let limit = |owner: Side| {
            let threshold = tally.threshold(owner, side);
            let trimmed_at_most = Msat(threshold.0.saturating_sub(1));
            let untrimmed = tally.untrimmed(owner);
            if self.params.agreed.opener == side {
                // One more HTLC than this one must stay affordable, else the channel is stuck.
                let with_output = own.saturating_sub(self.buffered_cost(feerate, untrimmed + 2).to_msat());
                let without = own.saturating_sub(self.buffered_cost(feerate, untrimmed + 1).to_msat());
                if with_output >= threshold { with_output } else { trimmed_at_most.min(without) }
            } else {
                let opener = tally.balance(side.other());
                let reserve = self.params.reserve(side.other());
                let cost = self.params.commitment_cost(feerate, untrimmed + 1);
                let opener_can_pay = opener >= reserve.saturating_add(cost).to_msat();
                if opener_can_pay { own } else { trimmed_at_most.min(own) }
            }
        };
        limit(Side::Local).min(limit(Side::Remote))
    }

    /// Checks an HTLC that we want to offer.
    pub(super) fn check_add_out(&self, amount: Msat) -> Result<(), CommandError> {
        let theirs = &self.params.agreed.remote_terms;
        if amount == Msat::ZERO {
            return Err(CommandError::HtlcAmountZero);
        }
        if amount < theirs.htlc_minimum {
            return Err(CommandError::HtlcBelowMinimum { amount, min: theirs.htlc_minimum });
        }
        let tally = self.prudent();
        if tally.offered_count(Side::Local) >= usize::from(theirs.max_accepted_htlcs) {
            return Err(CommandError::TooManyHtlcs { max: theirs.max_accepted_htlcs });
        }
        let total = tally.offered(Side::Local).saturating_add(amount);
        if total > theirs.max_htlc_value_in_flight {
            return Err(CommandError::TooMuchInFlight { total, max: theirs.max_htlc_value_in_flight });
        }
        let available = self.available_out();
        if amount > available {
            return Err(CommandError::InsufficientBalance { amount, available });
        }
        match self.exposure_with(Side::Local, amount) {
            Some(exposure) if exposure > self.params.agreed.config.max_dust_htlc_exposure => {
                Err(CommandError::DustExposure {
                    exposure,
                    max: self.params.agreed.config.max_dust_htlc_exposure,
                })
            }
            _ => Ok(()),
        }
    }

    /// Checks an HTLC that the peer offers; says whether it takes the dust exposure over our limit.
    pub(super) fn check_add_in(&self, id: u64, amount: Msat) -> Result<bool, ChannelError> {
        let ours = &self.params.agreed.local_terms;
        if amount == Msat::ZERO {
            return Err(ChannelError::HtlcAmountZero { id });
        }
        if amount < ours.htlc_minimum {
            return Err(ChannelError::HtlcBelowMinimum { amount, min: ours.htlc_minimum });
        }
        let tally = self.peer_knew();
        let htlcs = tally.offered_count(Side::Remote) + 1;
        if htlcs > usize::from(ours.max_accepted_htlcs) {
            return Err(ChannelError::TooManyHtlcs { count: htlcs, max: ours.max_accepted_htlcs });
        }
        let total = tally.offered(Side::Remote).saturating_add(amount);
        if total > ours.max_htlc_value_in_flight {
            return Err(ChannelError::TooMuchInFlight { total, max: ours.max_htlc_value_in_flight });
        }
        let cost = if self.params.agreed.opener == Side::Remote {
            let has_output = amount >= tally.threshold(Side::Local, Side::Remote);
            let untrimmed = tally.untrimmed(Side::Local) + usize::from(has_output);
            self.params.commitment_cost(tally.feerate(), untrimmed)
        } else {
            Sat::ZERO
        };
        let reserve = self.params.reserve(Side::Remote);
        let balance = tally.balance(Side::Remote);
        let available = balance.saturating_sub(reserve.saturating_add(cost).to_msat());
        if amount > available {
            return Err(ChannelError::HtlcNotAffordable { amount, available, balance, reserve, cost });
        }
        let exposure = self.exposure_with(Side::Remote, amount);
        Ok(exposure.is_some_and(|exposure| exposure > self.params.agreed.config.max_dust_htlc_exposure))
    }

    /// Checks a fee rate that we want to set.
    pub(super) fn check_fee_out(&self, feerate: FeeratePerKw) -> Result<(), CommandError> {
        if self.params.agreed.opener != Side::Local {
            return Err(CommandError::NotOpener);
        }
        let limits = &self.params.agreed.config.limits;
        if feerate < limits.feerate_min || feerate > limits.feerate_max {
            let (min, max) = (limits.feerate_min, limits.feerate_max);
            return Err(CommandError::FeerateOutOfRange { found: feerate, min, max });
        }
        let balances = self.updates.reduce(View::PRUDENT);
        let reserve = self.params.reserve(Side::Local);
        for owner in [Side::Local, Side::Remote] {
            let untrimmed = self.untrimmed(owner, feerate, &balances.htlcs) + CONCURRENT_HTLCS;
            let cost = self.params.commitment_cost(feerate, untrimmed);
            if balances.local < reserve.saturating_add(cost).to_msat() {
                let balance = balances.local;
                return Err(CommandError::FeeNotAffordable { feerate, cost, reserve, balance });
            }
        }
        match self.exposure_at(feerate, &balances.htlcs) {
            Some((exposure, max)) => Err(CommandError::DustExposure { exposure, max }),
            None => Ok(()),
        }
    }

    /// Checks a fee rate that the peer sets.
    pub(super) fn check_fee_in(&self, feerate: FeeratePerKw) -> Result<(), ChannelError> {
        if self.params.agreed.opener != Side::Remote {
            return Err(ChannelError::UpdateFeeNotByOpener);
        }
        let limits = &self.params.agreed.config.limits;
        if feerate < limits.feerate_min {
            return Err(ChannelError::FeerateTooLow { found: feerate, min: limits.feerate_min });
        }
        if feerate > limits.feerate_max {
            return Err(ChannelError::FeerateTooHigh { found: feerate, max: limits.feerate_max });
        }
        let balances = self.updates.reduce(View::PEER_KNEW);
        let untrimmed = self.untrimmed(Side::Local, feerate, &balances.htlcs);
        let cost = self.params.commitment_cost(feerate, untrimmed);
        let reserve = self.params.reserve(Side::Remote);
        if balances.remote < reserve.saturating_add(cost).to_msat() {
            let balance = balances.remote;
            return Err(ChannelError::FeeNotAffordable { feerate, cost, reserve, balance });
        }
        match self.exposure_at(feerate, &balances.htlcs) {
            Some((exposure, max)) => Err(ChannelError::DustExposure { feerate, exposure, max }),
            None => Ok(()),
        }
    }

    /// What is in HTLCs too small for `owner`'s commitment, now or once what is pending is signed.
    pub(super) fn dust_exposure(&self, owner: Side) -> Msat {
        self.prudent().trimmed(owner)
    }

    /// The exposure that one more HTLC of `by` brings, where it is too small for a commitment; the larger of both.
    fn exposure_with(&self, by: Side, amount: Msat) -> Option<Msat> {
        let tally = self.prudent();
        [Side::Local, Side::Remote]
            .into_iter()
            .filter(|owner| amount < tally.threshold(*owner, by))
            .map(|owner| tally.trimmed(owner).saturating_add(amount))
            .max()
    }

    /// The exposure of these HTLCs at a higher fee rate and our limit, when it exceeds that. With anchors the rate does
    /// not matter. Of a peer's rate only what it knew is judged: our own additions under way are not its fault.
    fn exposure_at(&self, feerate: FeeratePerKw, htlcs: &[&HtlcEntry]) -> Option<(Msat, Msat)> {
        let raised = self.updates.feerates().all(|known| known < feerate);
        if self.params.agreed.channel_type == ChannelType::Anchors || !raised {
            return None;
        }
        let max = self.params.agreed.config.max_dust_htlc_exposure;
        [Side::Local, Side::Remote]
            .into_iter()
            .map(|owner| self.trimmed(owner, feerate, htlcs))
            .max()
            .filter(|exposure| *exposure > max)
            .map(|exposure| (exposure, max))
    }

    /// How many of these HTLCs have an output on `owner`'s commitment.
    pub(super) fn untrimmed(&self, owner: Side, feerate: FeeratePerKw, htlcs: &[&HtlcEntry]) -> usize {
        htlcs.iter().filter(|entry| !self.is_trimmed(owner, feerate, entry)).count()
    }

    fn trimmed(&self, owner: Side, feerate: FeeratePerKw, htlcs: &[&HtlcEntry]) -> Msat {
        let trimmed = htlcs.iter().filter(|entry| self.is_trimmed(owner, feerate, entry));
        trimmed.map(|entry| entry.htlc.amount).sum()
    }

    pub(super) fn is_trimmed(&self, owner: Side, feerate: FeeratePerKw, entry: &HtlcEntry) -> bool {
        entry.htlc.amount < self.params.trim_threshold(owner, entry.offered_by, feerate)
    }

    fn buffered_cost(&self, feerate: FeeratePerKw, untrimmed: usize) -> Sat {
        let fee = self.params.commitment_cost(feerate, untrimmed).saturating_sub(self.params.anchors_cost());
        let multiple = match self.params.agreed.channel_type {
            ChannelType::StaticRemotekey => FEE_SPIKE_MULTIPLE,
            ChannelType::Anchors => 1,
        };
        Sat(fee.0.saturating_mul(multiple)).saturating_add(self.params.anchors_cost())
    }
}
