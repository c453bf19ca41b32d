//! The learned liquidity of one channel: bounds that fade, and a history that lasts longer.
//!
//! Owns [`Liquidity`], which covers both directions of a channel: one side can send exactly as much as the other
//! cannot, so that one pair of bounds serves both. Does not know the graph. Times are seconds, given by the caller; a
//! time before the last counts as no time passed.
//!
//! Invariant: `lower <= upper <= capacity`, and [`Liquidity::uncertainty`] never falls as the amount grows, on which
//! the searches rely.

use crate::graph::Direction;
use crate::scoring::logarithm::Uncertainty;

/// The buckets a channel's capacity is divided into for its history.
pub(crate) const BUCKETS: usize = 8;

/// The weight of one observation in the history.
const OBSERVATION: u32 = 64;

/// The largest weight of the history, eight observations; older ones give way to newer ones.
const HISTORY_MAX: u32 = 8 * OBSERVATION;

/// The weight of a fresh bound, 32 observations: an amount that failed just now is hardly tried again.
const FRESH: u64 = 32 * OBSERVATION as u64;

/// The weight of bounds that have faded completely, when they imply no more than the capacity does.
const FADED: u64 = OBSERVATION as u64;

/// The rate at which observations fade.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fading {
    /// After this many seconds a bound has moved half way back to the uninformed one.
    pub bounds_half_life_seconds: u64,
    /// After this many seconds an observation in the history weighs half.
    pub history_half_life_seconds: u64,
}

impl Default for Fading {
    /// Six hours for bounds, ten days for the history.
    fn default() -> Fading {
        Fading { bounds_half_life_seconds: 6 * 3600, history_half_life_seconds: 10 * 24 * 3600 }
    }
}

/// The liquidity of one channel, seen from its first node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Liquidity {
    /// In millisatoshi, as are the bounds.
    pub(crate) capacity: u64,
    /// A lower bound on the amount that the first node can send.
    pub(crate) lower: u64,
    /// An upper bound on it.
    pub(crate) upper: u64,
    /// When the bounds were last set, in seconds.
    pub(crate) bounds_at: u64,
    /// How often the liquidity was in each part of the capacity, in [`OBSERVATION`]ths.
    pub(crate) history: [u32; BUCKETS],
    /// When the history was last added to.
    pub(crate) history_at: u64,
}

/// The result of an HTLC on a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Observation {
    /// The HTLC passed and failed later: the amount was and is there.
    Passed,
    /// The HTLC was fulfilled: the amount was there and has changed sides.
    Settled,
    /// The HTLC could not be forwarded.
    Failed,
}

impl Liquidity {
    /// No observations.
    pub(crate) fn unknown(capacity: u64) -> Liquidity {
        Liquidity { capacity, lower: 0, upper: capacity, bounds_at: 0, history: [0; BUCKETS], history_at: 0 }
    }

    /// The same seen from the other node.
    #[inline]
    fn mirrored(mut self) -> Liquidity {
        (self.lower, self.upper) = (self.capacity - self.upper, self.capacity - self.lower);
        self.history.reverse();
        self
    }

    /// The same seen from the node the direction leaves.
    #[inline]
    fn seen_from(self, direction: Direction) -> Liquidity {
        match direction {
            Direction::OneToTwo => self,
            Direction::TwoToOne => self.mirrored(),
        }
    }

    /// Adds an observation of an HTLC of `amount` in this direction at `now`.
    pub(crate) fn observe(
        &mut self,
        direction: Direction,
        amount: u64,
        observation: Observation,
        now: u64,
        fading: Fading,
    ) {
        let mut seen = self.faded(now, fading).seen_from(direction);
        let amount = amount.min(seen.capacity);
        match observation {
            Observation::Passed | Observation::Settled => {
                seen.lower = seen.lower.max(amount);
                seen.upper = seen.upper.max(seen.lower);
            }
            Observation::Failed => {
                seen.upper = seen.upper.min(amount.saturating_sub(1));
                seen.lower = seen.lower.min(seen.upper);
            }
        }
        seen.remember();
        if observation == Observation::Settled {
            seen.lower = seen.lower.saturating_sub(amount);
            seen.upper = seen.upper.saturating_sub(amount);
        }
        seen.bounds_at = now;
        seen.history_at = now;
        *self = seen.seen_from(direction);
    }

    /// The same at a later time, with bounds moved apart and a lighter history.
    fn faded(self, now: u64, fading: Fading) -> Liquidity {
        let (lower, upper) = self.bounds(now, fading);
        let age = now.saturating_sub(self.history_at);
        let history = self
            .history
            .map(|weight| halved(u64::from(weight), age, fading.history_half_life_seconds) as u32);
        Liquidity { lower, upper, history, ..self }
    }

    /// The bounds as they stand at `now`.
    fn bounds(&self, now: u64, fading: Fading) -> (u64, u64) {
        let age = now.saturating_sub(self.bounds_at);
        let half_life = fading.bounds_half_life_seconds;
        let lower = halved(self.lower, age, half_life);
        (lower, self.capacity - halved(self.capacity - self.upper, age, half_life))
    }

    /// Adds one observation, spread over the buckets between the bounds.
    fn remember(&mut self) {
        let total: u32 = self.history.iter().sum();
        if total + OBSERVATION > HISTORY_MAX {
            // The old weights are reduced to leave room for the new one.
            let kept = u64::from(HISTORY_MAX - OBSERVATION);
            for weight in &mut self.history {
                *weight = (u64::from(*weight) * kept / u64::from(total)) as u32;
            }
        }
        let [first, last] = [self.lower, self.upper].map(|bound| self.bucket(bound));
        let share = OBSERVATION / (last - first + 1) as u32;
        for weight in &mut self.history[first..=last] {
            *weight += share;
        }
    }

    /// The bucket an amount is in.
    fn bucket(&self, amount: u64) -> usize {
        let at = u128::from(amount) * BUCKETS as u128 / (u128::from(self.capacity) + 1);
        (at as usize).min(BUCKETS - 1)
    }

    /// The same for a channel whose capacity is another than the one observed, after a splice or because the observer
    /// did not know it. Lower bounds on both sides stay when the channel grew, and shrink with it; the history is
    /// relative to the capacity.
    #[inline]
    fn with_capacity(self, capacity: u64) -> Liquidity {
        let scale = |bound: u64| {
            if capacity >= self.capacity {
                return bound;
            }
            (u128::from(bound) * u128::from(capacity) / u128::from(self.capacity)) as u64
        };
        let (lower, other_side) = (scale(self.lower), scale(self.capacity - self.upper));
        Liquidity { capacity, lower, upper: capacity - other_side, ..self }
    }

    /// The uncertainty of `amount` in this direction at `now`, over a channel that has `capacity` by now. Never falls
    /// as the amount grows.
    pub(crate) fn uncertainty(
        &self,
        direction: Direction,
        amount: u64,
        capacity: u64,
        now: u64,
        fading: Fading,
    ) -> Uncertainty {
        let seen = self.with_capacity(capacity).seen_from(direction);
        if amount > seen.capacity {
            return Uncertainty::MAX;
        }
        let (lower, upper) = seen.bounds(now, fading);
        // In 2^30ths, as are the weights' common scale below.
        let by_bounds =
            if amount <= lower { 1 << 30 } else { share(upper.saturating_sub(amount), upper - lower) };
        let age = now.saturating_sub(seen.bounds_at);
        let bounds_weight = FADED + halved(FRESH, age, fading.bounds_half_life_seconds);
        let (above, total) = seen.history_above(amount);
        let history_age = now.saturating_sub(seen.history_at);
        let history_weight = halved(total, history_age, fading.history_half_life_seconds);
        let by_history = share(above, total << 16);
        let sum = by_bounds * bounds_weight + by_history * history_weight;
        Uncertainty::of_ratio(sum, (bounds_weight + history_weight) << 30)
    }

    /// The weight of the history above an amount, in 2^16ths, and the weight of the whole history.
    fn history_above(&self, amount: u64) -> (u64, u64) {
        let total: u64 = self.history.iter().map(|weight| u64::from(*weight)).sum();
        let scaled = u128::from(amount) * BUCKETS as u128;
        let range = u128::from(self.capacity) + 1;
        let at = self.bucket(amount);
        // The part of the amount's own bucket that lies above it.
        let rest = ((1_u128 << 16) - ((scaled - at as u128 * range) << 16) / range).min(1 << 16) as u64;
        let higher: u64 = self.history[at + 1..].iter().map(|weight| u64::from(*weight)).sum();
        ((higher << 16) + u64::from(self.history[at]) * rest, total)
    }

    /// The observations of both: the younger bounds, and the sum of the histories.
    pub(crate) fn merged(self, other: Liquidity) -> Liquidity {
        let younger = if other.bounds_at > self.bounds_at { other } else { self };
        let mut merged = younger;
        merged.history_at = self.history_at.max(other.history_at);
        let sum: u32 = self.history.iter().chain(&other.history).sum();
        for (at, weight) in merged.history.iter_mut().enumerate() {
            let both = u64::from(self.history[at] + other.history[at]);
            *weight = (both * u64::from(HISTORY_MAX.min(sum)) / u64::from(sum.max(1))) as u32;
        }
        merged
    }

    /// Whether the numbers are consistent, for records read from outside.
    pub(crate) fn is_sound(&self) -> bool {
        self.lower <= self.upper
            && self.upper <= self.capacity
            && self.history.iter().all(|weight| *weight <= HISTORY_MAX)
            && self.history.iter().sum::<u32>() <= HISTORY_MAX
    }
}

/// `part` of `whole` in 2^30ths; zero of nothing.
fn share(part: u64, whole: u64) -> u64 {
    ((u128::from(part) << 30) / u128::from(whole.max(1))) as u64
}

/// The value left after `age` seconds of halving every `half_life`: exact at whole half-lives, linear in between.
fn halved(value: u64, age: u64, half_life: u64) -> u64 {
    let half_life = half_life.max(1);
    let halvings = age / half_life;
    if halvings >= 63 {
        return 0;
    }
    let value = value >> halvings;
    let lost = u128::from(value) * u128::from(age % half_life) / (2 * u128::from(half_life));
    value - lost as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const CAPACITY: u64 = 1_000_000_000;
    const HOUR: u64 = 3600;

    fn chance(liquidity: &Liquidity, direction: Direction, amount: u64, now: u64) -> f64 {
        liquidity.uncertainty(direction, amount, CAPACITY, now, Fading::default()).probability().as_f64()
    }

    #[test]
    fn nothing_known_is_the_uniform_prior() {
        let unknown = Liquidity::unknown(CAPACITY);
        for direction in Direction::BOTH {
            assert!((chance(&unknown, direction, CAPACITY / 4, 9) - 0.75).abs() < 1e-5);
            assert_eq!(chance(&unknown, direction, 0, 9), 1.0);
        }
        assert_eq!(
            unknown.uncertainty(Direction::OneToTwo, CAPACITY + 1, CAPACITY, 9, Fading::default()),
            Uncertainty::MAX
        );
    }

    #[test]
    fn a_failure_warns_and_fades() {
        let mut liquidity = Liquidity::unknown(CAPACITY);
        let fading = Fading::default();
        liquidity.observe(Direction::OneToTwo, CAPACITY / 2, Observation::Failed, HOUR, fading);
        assert!(chance(&liquidity, Direction::OneToTwo, CAPACITY / 2, HOUR) < 0.03);
        assert!(chance(&liquidity, Direction::OneToTwo, CAPACITY / 4, HOUR) > 0.45);
        assert!(chance(&liquidity, Direction::TwoToOne, CAPACITY / 2, HOUR) > 0.95);
        let later: Vec<f64> = (0..40)
            .map(|day| chance(&liquidity, Direction::OneToTwo, CAPACITY / 2, day * 24 * HOUR))
            .collect();
        // First the bounds fade, then the history.
        assert!(later[1..].iter().all(|chance| *chance > 0.2) && later[39] > 0.4, "{later:?}");
        assert!(later[3..].is_sorted(), "{later:?}");
    }

    #[test]
    fn what_settled_can_come_back_but_not_go_twice() {
        let mut liquidity = Liquidity::unknown(CAPACITY);
        liquidity.observe(Direction::TwoToOne, 600_000_000, Observation::Settled, 5, Fading::default());
        assert!(chance(&liquidity, Direction::OneToTwo, 600_000_000, 5) > 0.95);
        assert!(chance(&liquidity, Direction::TwoToOne, 600_000_000, 5) < 0.05);
    }

    #[test]
    fn observations_follow_the_channel_to_another_capacity() {
        let (fading, direction, year) = (Fading::default(), Direction::OneToTwo, 365 * 24 * HOUR);
        let chance = |liquidity: &Liquidity, amount, capacity, now| {
            liquidity.uncertainty(direction, amount, capacity, now, fading).probability().as_f64()
        };
        // Observed with 50,000 sat, of which 30,000 passed; the channel has 400,000.
        let mut grown = Liquidity::unknown(50_000_000);
        grown.observe(direction, 30_000_000, Observation::Passed, HOUR, fading);
        assert!(chance(&grown, 200_000_000, 400_000_000, HOUR) > 0.4);
        assert!((chance(&grown, 200_000_000, 400_000_000, year) - 0.5).abs() < 0.005);
        // Observed with 1,000,000 sat, of which 900,000 passed; the channel has 500,000.
        let mut shrunk = Liquidity::unknown(1_000_000_000);
        shrunk.observe(direction, 900_000_000, Observation::Passed, HOUR, fading);
        assert!(chance(&shrunk, 400_000_000, 500_000_000, HOUR) > 0.9);
        assert!((chance(&shrunk, 400_000_000, 500_000_000, year) - 0.2).abs() < 0.002);
    }

    prop_compose! {
        fn observation()(
            direction in prop_oneof![Just(Direction::OneToTwo), Just(Direction::TwoToOne)],
            amount in 0..CAPACITY + CAPACITY / 2,
            observation in prop_oneof![
                Just(Observation::Passed), Just(Observation::Settled), Just(Observation::Failed)
            ],
            step in 0..40 * HOUR,
        ) -> (Direction, u64, Observation, u64) {
            (direction, amount, observation, step)
        }
    }

    proptest! {
        #[test]
        fn stays_sound_and_never_likes_a_larger_amount_more(
            observations in prop::collection::vec(observation(), 0..30),
            amounts in prop::collection::vec(0..CAPACITY + 9, 2..20),
            direction in prop_oneof![Just(Direction::OneToTwo), Just(Direction::TwoToOne)],
        ) {
            let (mut liquidity, mut now) = (Liquidity::unknown(CAPACITY), 1_000_000);
            for (direction, amount, observation, step) in observations {
                now += step;
                liquidity.observe(direction, amount, observation, now, Fading::default());
                prop_assert!(liquidity.is_sound(), "{:?}", liquidity);
                prop_assert!(liquidity.merged(Liquidity::unknown(CAPACITY)).is_sound());
            }
            let mut amounts = amounts;
            amounts.sort_unstable();
            for later in [0, HOUR, 1000 * HOUR] {
                for capacity in [CAPACITY, CAPACITY / 3, 5 * CAPACITY] {
                    prop_assert!(liquidity.with_capacity(capacity).is_sound());
                    let uncertainty = |amount: &u64| {
                        liquidity.uncertainty(direction, *amount, capacity, now + later, Fading::default())
                    };
                    prop_assert!(amounts.is_sorted_by_key(uncertainty));
                }
            }
        }
    }
}
