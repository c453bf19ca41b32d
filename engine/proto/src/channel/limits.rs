//! The limits of both sides' additions and fee rates (BOLT 2, "Adding an HTLC", "Updating Fees", "Bounding
//! exposure to trimmed in-flight HTLCs").
//!
//! Owns: the arithmetic of reserves, fees, the fee-spike buffer, anchors, slots, value in flight and dust exposure.
//! Does not: change anything.
//!
//! Invariants: our own updates are measured on [`View::PRUDENT`], which is never more generous than any commitment the
//! peer will check; the peer's are measured on [`View::PEER_KNEW`], so that an honest peer is never refused for
//! updates that crossed its message; and each commitment is checked as a whole when it is signed, by either side.
//! [`Funded::available_out`] and the check of an addition are the same computation.

use fulmen_wire::units::{FeeratePerKw, Msat, Sat};

use super::command::ChannelCommandError;
use super::error::ChannelError;
use super::funded::Funded;
use super::htlc::{HtlcEntry, Side, Stage};
use super::tally::Tally;
use super::updates::View;
use crate::commitment::{ChannelType, CommitmentTx, commitment_fee};

/// How many times its fee an opener without anchors keeps in reserve for a rise of the fee rate.
const FEE_SPIKE_MULTIPLE: u64 = 2;
/// HTLCs of the peer that may cross an `update_fee` of ours, for which the fee must do as well.
const CONCURRENT_HTLCS: usize = 2;

impl Funded {
    /// The sums of [`View::PRUDENT`], at the highest fee rate that a commitment has or may yet have.
    pub(super) fn prudent(&self) -> &Tally {
        let fresh = || self.tally(View::PRUDENT, self.highest_feerate());
        let tally = self.tallies.prudent.get_or_init(fresh);
        if cfg!(any(test, debug_assertions)) {
            assert_eq!(*tally, fresh(), "a tally kept is that of the log");
        }
        tally
    }

    /// The sums of the view that the peer had when it sent an update, at the fee rate it knew.
    pub(super) fn peer_knew(&self) -> &Tally {
        let view = self.peer_knew_view();
        let fresh = || self.tally(view, self.updates.feerate(view));
        let tally = self.tallies.peer_knew.get_or_init(fresh);
        if cfg!(any(test, debug_assertions)) {
            assert_eq!(*tally, fresh(), "a tally kept is that of the log");
        }
        tally
    }

    fn peer_knew_view(&self) -> View {
        if self.peer_may_repeat { View::PEER_KNEW_BEFORE } else { View::PEER_KNEW }
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
    /// The largest HTLC that we may offer next; zero if none.
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

    /// The largest HTLC that the peer may offer next, as far as we can know; zero if none.
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

    /// The largest HTLC that `side` can pay: its balance without the reserve, and, where it pays the fee, without
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
                if opener_can_pay && (side == Side::Remote || self.may_cross(reserve, feerate)) {
                    own
                } else {
                    trimmed_at_most.min(own)
                }
            }
        };
        limit(Side::Local).min(limit(Side::Remote))
    }

    /// Whether one more addition of ours may cross additions of the opener.
    ///
    /// The opener pays for each HTLC output, but learns of our additions late: meanwhile it may spend all it has beyond
    /// its reserve. So that the fee is always paid in full, the additions it has not acknowledged may cost no
    /// more than its reserve, [`CONCURRENT_HTLCS`] excepted.
    fn may_cross(&self, reserve: Sat, feerate: FeeratePerKw) -> bool {
        let channel_type = self.params.agreed.channel_type;
        let none = commitment_fee(channel_type, feerate, 0);
        let affordable =
            |htlcs: usize| commitment_fee(channel_type, feerate, htlcs).saturating_sub(none) <= reserve;
        // Most reserves pay for as many HTLCs as there can be: then they need not be counted.
        if affordable(usize::from(self.params.agreed.remote_terms.max_accepted_htlcs)) {
            return true;
        }
        let newest_first = self.updates.offered.values().rev();
        let unacknowledged = newest_first.take_while(|entry| entry.added < Stage::Acknowledged).count();
        unacknowledged < CONCURRENT_HTLCS || affordable(unacknowledged + 1)
    }

    /// Checks an HTLC that we want to offer.
    pub(super) fn check_add_out(&self, amount: Msat) -> Result<(), ChannelCommandError> {
        let theirs = &self.params.agreed.remote_terms;
        if amount == Msat::ZERO {
            return Err(ChannelCommandError::HtlcAmountZero);
        }
        if amount < theirs.htlc_minimum {
            return Err(ChannelCommandError::HtlcBelowMinimum { amount, min: theirs.htlc_minimum });
        }
        let tally = self.prudent();
        if tally.offered_count(Side::Local) >= usize::from(theirs.max_accepted_htlcs) {
            return Err(ChannelCommandError::TooManyHtlcs { max: theirs.max_accepted_htlcs });
        }
        let total = tally.offered(Side::Local).saturating_add(amount);
        if total > theirs.max_htlc_value_in_flight {
            return Err(ChannelCommandError::TooMuchInFlight { total, max: theirs.max_htlc_value_in_flight });
        }
        let available = self.available_out();
        if amount > available {
            return Err(ChannelCommandError::InsufficientBalance { amount, available });
        }
        match self.exposure_with(Side::Local, amount) {
            Some(exposure) if exposure > self.params.agreed.config.max_dust_htlc_exposure => {
                Err(ChannelCommandError::DustExposure {
                    exposure,
                    max: self.params.agreed.config.max_dust_htlc_exposure,
                })
            }
            _ => Ok(()),
        }
    }

    /// Checks an HTLC that the peer offers; returns whether it takes the dust exposure over our limit.
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
        let has_output = amount >= tally.threshold(Side::Local, Side::Remote);
        let untrimmed = tally.untrimmed(Side::Local) + usize::from(has_output);
        let commitment_cost = self.params.commitment_cost(tally.feerate(), untrimmed);
        let cost = match self.params.agreed.opener {
            Side::Remote => commitment_cost,
            Side::Local => Sat::ZERO,
        };
        let reserve = self.params.reserve(Side::Remote);
        let balance = tally.balance(Side::Remote);
        let available = balance.saturating_sub(reserve.saturating_add(cost).to_msat());
        if amount > available {
            return Err(ChannelError::HtlcNotAffordable { amount, available, balance, reserve, cost });
        }
        if self.params.agreed.opener == Side::Local && has_output {
            let (reserve, balance) = (self.params.reserve(Side::Local), tally.balance(Side::Local));
            if balance < reserve.saturating_add(commitment_cost).to_msat() {
                return Err(ChannelError::FeeOfOpenerNotAffordable {
                    cost: commitment_cost,
                    reserve,
                    balance,
                });
            }
        }
        let exposure = self.exposure_with(Side::Remote, amount);
        Ok(exposure.is_some_and(|exposure| exposure > self.params.agreed.config.max_dust_htlc_exposure))
    }

    /// Checks a fee rate that we want to set.
    pub(super) fn check_fee_out(&self, feerate: FeeratePerKw) -> Result<(), ChannelCommandError> {
        if self.params.agreed.opener != Side::Local {
            return Err(ChannelCommandError::NotOpener);
        }
        let limits = &self.params.agreed.config.limits;
        if feerate < limits.feerate_min || feerate > limits.feerate_max {
            let (min, max) = (limits.feerate_min, limits.feerate_max);
            return Err(ChannelCommandError::FeerateOutOfRange { found: feerate, min, max });
        }
        if feerate == self.updates.feerate(View::REMOTE_NEXT) {
            return Err(ChannelCommandError::FeerateUnchanged(feerate));
        }
        let balances = self.updates.reduce(View::PRUDENT);
        let reserve = self.params.reserve(Side::Local);
        for owner in [Side::Local, Side::Remote] {
            let untrimmed = self.untrimmed(owner, feerate, &balances.htlcs) + CONCURRENT_HTLCS;
            let cost = self.params.commitment_cost(feerate, untrimmed);
            if balances.local < reserve.saturating_add(cost).to_msat() {
                let balance = balances.local;
                return Err(ChannelCommandError::FeeNotAffordable { feerate, cost, reserve, balance });
            }
        }
        let max = self.params.agreed.config.max_dust_htlc_exposure;
        match self.exposure_at(feerate, &balances.htlcs, max) {
            Some((exposure, max)) => Err(ChannelCommandError::DustExposure { exposure, max }),
            None => Ok(()),
        }
    }

    /// Checks a fee rate that the peer sets.
    pub(super) fn check_fee_in(&self, feerate: FeeratePerKw) -> Result<(), ChannelError> {
        if self.params.agreed.opener != Side::Remote {
            return Err(ChannelError::UpdateFeeNotByOpener);
        }
        self.params.agreed.config.limits.check_feerate(feerate, self.params.agreed.channel_type)?;
        let balances = self.updates.reduce(self.peer_knew_view());
        let untrimmed = self.untrimmed(Side::Local, feerate, &balances.htlcs);
        let cost = self.params.commitment_cost(feerate, untrimmed);
        let reserve = self.params.reserve(Side::Remote);
        if balances.remote < reserve.saturating_add(cost).to_msat() {
            let balance = balances.remote;
            return Err(ChannelError::FeeNotAffordable { feerate, cost, reserve, balance });
        }
        let max = self.params.agreed.config.max_dust_htlc_exposure;
        // Our additions on their way count as well: they are in the peer's next commitment at this rate.
        let with_ours = self.updates.reduce(View::PRUDENT).htlcs;
        let known = self.exposure_at(feerate, &balances.htlcs, max);
        match known.or_else(|| self.exposure_at(feerate, &with_ours, crossing_exposure(max))) {
            Some((exposure, max)) => Err(ChannelError::DustExposure { feerate, exposure, max }),
            None => Ok(()),
        }
    }

    /// The sum of the HTLCs too small for `owner`'s commitment, now or once pending updates are signed.
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

    /// The exposure of these HTLCs at a higher fee rate and `max`, if it exceeds `max`. With anchors the rate decides
    /// no HTLC's output.
    fn exposure_at(&self, feerate: FeeratePerKw, htlcs: &[&HtlcEntry], max: Msat) -> Option<(Msat, Msat)> {
        let raised = self.updates.feerates().all(|known| known < feerate);
        if self.params.agreed.channel_type == ChannelType::Anchors || !raised {
            return None;
        }
        [Side::Local, Side::Remote]
            .into_iter()
            .map(|owner| self.trimmed(owner, feerate, htlcs))
            .max()
            .filter(|exposure| *exposure > max)
            .map(|exposure| (exposure, max))
    }

    /// Checks a commitment of `owner` as a whole before it is signed.
    ///
    /// The opener's balance may have been spent by messages that crossed, so that the commitment pays less than the fee
    /// rate (BOLT 3, "Fee Payment"). It must still pay the relay fee, or it could not be broadcast. A rise of the fee
    /// rate must not turn more HTLCs to dust than [`crossing_exposure`]. HTLCs that exceeded the limit when they were
    /// added do not count: they are failed as soon as they are committed.
    pub(super) fn check_commitment(
        &self,
        owner: Side,
        commitment: &CommitmentTx,
    ) -> Result<(), ChannelError> {
        let view = match owner {
            Side::Local => View::LOCAL_NEXT,
            Side::Remote => View::REMOTE_NEXT,
        };
        let feerate = commitment.feerate.min(FeeratePerKw::FLOOR);
        let min = commitment_fee(commitment.channel_type, feerate, commitment.htlcs.len());
        if commitment.fee < min {
            return Err(ChannelError::CommitmentFeeTooLow { found: commitment.fee, min });
        }
        if commitment.channel_type == ChannelType::Anchors {
            return Ok(());
        }
        let counted = |entry: &&HtlcEntry| {
            !entry.over_dust_exposure && self.is_trimmed(owner, commitment.feerate, entry)
        };
        let htlcs = self.updates.reduce(view).htlcs;
        let exposure: Msat = htlcs.into_iter().filter(counted).map(|entry| entry.htlc.amount).sum();
        let max = crossing_exposure(self.params.agreed.config.max_dust_htlc_exposure);
        if exposure > max {
            return Err(ChannelError::CommitmentDustExposure { exposure, max });
        }
        Ok(())
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

/// The limit of dust exposure when our additions crossed a rise of the fee rate. The sender of the rise did not know of
/// them, so both sides may have used their limit in full.
const fn crossing_exposure(max: Msat) -> Msat {
    Msat(max.0.saturating_mul(2))
}
