//! The price of a block at which the cheapest routes keep the limit on blocks.
//!
//! Owns the search for that price, a Lagrange multiplier found by the secant method: each search at a price yields a
//! route that exceeds the limit or keeps it, and the next price is the one at which the last two of each kind cost
//! the same. The search that enforces the limit then orders and bounds labels by cost and price together. Without a
//! price it would examine every cheaper route that exceeds the limit.
//!
//! Invariant: pricing changes which partial routes are examined, never which route is the cheapest within the limit.

use crate::path::search::Finder;
use crate::path::search::labels::{Found, Rules};
use crate::path::search::prepared::{Objective, PreparedQuery};
use crate::path::{Cost, Limits, Route};

/// Limit on the prices tried.
const PRICES_MAX: usize = 8;

/// The highest price of a block, a million satoshi: the sum of a route's costs stays far from overflow.
const BLOCK_PRICE_MAX: u64 = 1_000_000_000_000;

/// The highest cost of a route whose blocks are priced, for the same reason.
const COST_MAX: u64 = 1 << 62;

/// A price, an exclusive bound on the cost for the search that enforces the limit, and the cheapest route found that
/// keeps all limits.
pub(super) struct Priced {
    pub(super) block_price: u64,
    pub(super) cost_max: u64,
    pub(super) best: Option<Route>,
}

/// The figures of a route that its price depends on.
#[derive(Clone, Copy)]
struct Point {
    cost: u64,
    blocks: u32,
}

impl Point {
    /// The cost including the price of blocks.
    fn priced(&self, prepared: &PreparedQuery<'_>) -> u64 {
        self.cost.saturating_add(prepared.price(self.blocks))
    }
}

impl Finder {
    /// Finds a price at which the cheapest routes have about as many blocks as the limit allows; `cheapest` exceeds
    /// it without a price. The price is zero when no route is found that keeps all limits.
    pub(super) fn price_blocks(
        &mut self,
        prepared: PreparedQuery<'_>,
        cheapest: &Found,
        limits: Limits,
    ) -> Priced {
        let mut priced = Priced { block_price: 0, cost_max: u64::MAX, best: None };
        if matches!(prepared.objective, Objective::Blocks | Objective::Hops) || cheapest.cost >= COST_MAX {
            return priced;
        }
        let mut slow = Point { cost: cheapest.cost, blocks: cheapest.blocks };
        let mut quick: Option<Point> = None;
        let mut highest = 0;
        // At the first price almost only blocks count: if its route exceeds the limit, every route does.
        let mut price = BLOCK_PRICE_MAX;
        for _ in 0..PRICES_MAX {
            let prepared = prepared.pricing_blocks(price);
            self.bounds.start(&prepared);
            // The next route must be cheaper than the known ones.
            let known = slow.priced(&prepared).min(quick.map_or(u64::MAX, |quick| quick.priced(&prepared)));
            let rules = Rules { cost_max: known, ..Rules::plain(limits) };
            // When this search reaches its limit of comparisons, so would the one that it prepares.
            let Ok(found) = self.run(&prepared, &rules) else { break };
            // A lower bound on the cost within the limit on blocks.
            let least = found
                .as_ref()
                .map_or(known, |found| found.cost)
                .saturating_sub(prepared.price(limits.max_cltv_blocks));
            if least >= highest {
                (highest, priced.block_price) = (least, price);
            }
            let Some(found) = found else { break };
            let cost = found.cost.saturating_sub(prepared.price(found.blocks));
            let point = Point { cost, blocks: found.blocks };
            if point.blocks > limits.max_cltv_blocks {
                slow = point;
            } else {
                quick = Some(point);
                let keeps = Finder::stricter(Rules::plain(limits), &found, limits).is_none();
                if keeps && cost < COST_MAX.min(priced.cost_max) {
                    priced.cost_max = cost + 1;
                    priced.best = Some(Route { cost: Cost(cost), ..self.route(&prepared, &found) });
                }
            }
            let Some(quick) = quick else { break };
            let next = quick.cost.saturating_sub(slow.cost) / u64::from(slow.blocks - quick.blocks);
            if next >= price {
                break;
            }
            price = next;
        }
        if priced.cost_max == u64::MAX {
            priced.block_price = 0;
        }
        priced
    }
}
