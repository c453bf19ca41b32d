//! Capacities and policies of generated channels: all alike, or distributed as on mainnet.
//!
//! The mainnet figures are quantiles measured on a snapshot of 2026-02-03 (50,808 channels; capacity over all channels,
//! policies over their 65,809 enabled directions). Does not model how capacity, fees and position in the graph go
//! together beyond giving backbone channels the larger capacities, nor disabled directions.
//!
//! Invariant: `htlc_minimum <= htlc_maximum <= 99%` of the capacity, the rest being the usual reserve.

use std::fmt;

use fulmen_graph::Policy;
use fulmen_wire::units::{CltvDelta, Msat, Sat};

use crate::generate::draw::Draw;

/// How capacities and policies are set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Economy {
    /// All channels alike.
    Flat {
        /// The capacity of each.
        capacity: Sat,
    },
    /// Drawn as distributed on mainnet.
    Mainnet,
}

/// The capacity of one channel, and a policy for each direction.
pub(crate) struct Terms {
    pub(crate) capacity: Sat,
    pub(crate) policies: [Policy; 2],
}

impl Economy {
    /// The capacity of flat channels when nobody says otherwise.
    pub(crate) const CAPACITY_DEFAULT: Sat = Sat(5_000_000);
    /// Below this, reserves and dust leave a channel next to nothing to forward.
    pub(crate) const CAPACITY_MIN: Sat = Sat(20_000);
    /// A thousand bitcoin: a hundred times the largest channel on mainnet.
    pub(crate) const CAPACITY_MAX: Sat = Sat(100_000_000_000);

    /// The terms of the next channel; a backbone channel is one between hubs.
    pub(crate) fn terms(self, draw: &mut Draw, backbone: bool) -> Terms {
        match self {
            Economy::Flat { capacity } => {
                let policy = Policy {
                    fee_base: Msat(1000),
                    fee_proportional_millionths: 100,
                    cltv_expiry_delta: CltvDelta(40),
                    htlc_minimum: Msat(1),
                    htlc_maximum: without_reserve(capacity),
                    disabled: false,
                };
                Terms { capacity, policies: [policy; 2] }
            }
            Economy::Mainnet => {
                let least = if backbone { MEDIAN } else { CAPACITY_LEAST };
                let capacity = Sat(CAPACITY_SAT.draw(draw, least, TOP));
                let policies = std::array::from_fn(|_| mainnet_policy(draw, capacity));
                Terms { capacity, policies }
            }
        }
    }
}

impl fmt::Display for Economy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Economy::Flat { capacity } => write!(f, "economy:flat,capacity:{}", capacity.0),
            Economy::Mainnet => f.write_str("economy:mainnet"),
        }
    }
}

fn mainnet_policy(draw: &mut Draw, capacity: Sat) -> Policy {
    let fee_proportional = FEE_PROPORTIONAL_MILLIONTHS.draw(draw, 0, USUAL);
    let delta = CLTV_EXPIRY_DELTA.draw(draw, 0, USUAL);
    Policy {
        fee_base: Msat(FEE_BASE_MSAT.draw(draw, 0, USUAL)),
        fee_proportional_millionths: u32::try_from(fee_proportional).unwrap_or(u32::MAX),
        cltv_expiry_delta: CltvDelta(u16::try_from(delta).unwrap_or(u16::MAX)),
        htlc_minimum: Msat(HTLC_MINIMUM_MSAT.draw(draw, 0, USUAL)),
        htlc_maximum: Msat(HTLC_MAXIMUM_MSAT.draw(draw, 0, TOP)).min(without_reserve(capacity)),
        disabled: false,
    }
}

/// All but the one percent of a channel that its reserve usually takes.
fn without_reserve(capacity: Sat) -> Msat {
    Msat(capacity.0 * 990)
}

/// Values at the shares of [`SHARES`].
struct Quantiles([u64; 9]);

/// The shares, in thousandths, at which [`Quantiles`] hold values: the least, 1, 5, 25, 50, 75, 95 and 99%, the most.
const SHARES: [usize; 9] = [0, 10, 50, 250, 500, 750, 950, 990, 1000];
/// The top of a distribution.
const TOP: usize = 1000;
/// Draws of prices end here: the last percent are settings meant to keep payments away, rather than prices.
const USUAL: usize = 990;
/// Draws of capacities begin here: smaller channels cannot be opened with reserves and anchors.
const CAPACITY_LEAST: usize = 50;
/// The middle of a distribution.
const MEDIAN: usize = 500;

const CAPACITY_SAT: Quantiles =
    Quantiles([1500, 1500, 20_000, 200_000, 1_283_260, 5_000_000, 40_000_000, 200_000_000, 1_000_000_000]);
const FEE_BASE_MSAT: Quantiles = Quantiles([0, 0, 0, 0, 33, 1000, 1000, 10_000, 10_000_000]);
const FEE_PROPORTIONAL_MILLIONTHS: Quantiles = Quantiles([0, 0, 0, 1, 100, 569, 3000, 10_000, 1_000_000]);
const CLTV_EXPIRY_DELTA: Quantiles = Quantiles([3, 18, 34, 40, 80, 100, 144, 200, 1444]);
const HTLC_MINIMUM_MSAT: Quantiles =
    Quantiles([0, 0, 1, 1000, 1000, 1000, 100_000, 1_000_000, 5_940_000_000]);
const HTLC_MAXIMUM_MSAT: Quantiles = Quantiles([
    5_000_000,
    5_000_000,
    19_800_000,
    990_000_000,
    2_475_000_000,
    8_410_000_000,
    49_500_000_000,
    219_000_000_000,
    712_800_000_000,
]);

impl Quantiles {
    /// Draws a value whose share lies between two given in thousandths.
    ///
    /// Between quantiles the value rises with the square of the share: amounts thin out towards the top of each
    /// interval, and a straight line would make the sum of all capacities half again as large as it is.
    fn draw(&self, draw: &mut Draw, from: usize, to: usize) -> u64 {
        const FINE: usize = 1000;
        let share = from * FINE + draw.below((to - from) * FINE);
        let upper = SHARES.iter().position(|known| share < known * FINE).unwrap_or(SHARES.len() - 1);
        let (low, high) = (SHARES[upper - 1] * FINE, SHARES[upper] * FINE);
        let (floor, ceiling) = (u128::from(self.0[upper - 1]), u128::from(self.0[upper]));
        let (part, whole) = ((share - low) as u128, (high - low) as u128);
        let value = floor + (ceiling - floor) * part * part / (whole * whole);
        u64::try_from(value).expect("a value between two of 64 bits")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_follow_the_quantiles() {
        let mut draw = Draw::new(1);
        for quantiles in
            [CAPACITY_SAT, FEE_BASE_MSAT, FEE_PROPORTIONAL_MILLIONTHS, CLTV_EXPIRY_DELTA, HTLC_MAXIMUM_MSAT]
        {
            let mut values: Vec<u64> = (0..20_000).map(|_| quantiles.draw(&mut draw, 0, TOP)).collect();
            values.sort_unstable();
            for (at, known) in SHARES.iter().enumerate().skip(2).take(5) {
                // Two percent of the draws to either side are far more than chance moves a quantile.
                let (low, high) = (values[(known - 20) * 20], values[(known + 20) * 20]);
                assert!((low..=high).contains(&quantiles.0[at]), "{at}: {low} {} {high}", quantiles.0[at]);
            }
        }
    }

    #[test]
    fn the_mean_capacity_is_near_that_of_the_snapshot() {
        let mut draw = Draw::new(2);
        let count = 50_000;
        let total: u64 = (0..count).map(|_| CAPACITY_SAT.draw(&mut draw, 0, TOP)).sum();
        // 5,361.7 bitcoin over 50,808 channels.
        let mean = 536_170_000_000 / 50_808;
        assert!(
            (mean * 3 / 4..mean * 3 / 2).contains(&(total / count)),
            "{} is not near {mean}",
            total / count
        );
    }

    #[test]
    fn backbone_channels_are_the_larger_ones() {
        let mut draw = Draw::new(3);
        let least = (0..500).map(|_| Economy::Mainnet.terms(&mut draw, true).capacity).min();
        assert!(least >= Some(Sat(1_283_260)), "{least:?}");
        let least = (0..500).map(|_| Economy::Mainnet.terms(&mut draw, false).capacity).min();
        assert!((Some(Sat(20_000))..Some(Sat(200_000))).contains(&least), "{least:?}");
    }
}
