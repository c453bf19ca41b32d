//! The price of a block at which routes keep a limit on blocks of themselves.
//!
//! Owns: the search for that price (Lagrange's multiplier, found by the secant: each search at a price gives a route that is
//! too slow or quick enough, and the price at which the last two of each kind cost the same is the next). A search that
//! minds the limit then orders and bounds labels by cost and price together. Without a price it goes through everything
//! that is cheaper and too slow.
//!
//! Invariant: changes which partial routes are looked at, never which route is the cheapest that keeps the limit.

use crate::path::search::Finder;
use crate::path::search::labels::{Found, Rules};
use crate::path::search::prepared::{Objective, PreparedQuery};
use crate::path::{Cost, Limits, Route};

/// How many prices are tried.
const PRICES_MAX: usize = 8;

/// The most a block may cost, so that what all of a route's cost stays far from the end of a word: a million satoshi.
const BLOCK_PRICE_MAX: u64 = 1_000_000_000_000;

/// The most a route may cost for its blocks to be priced, for the same reason.
const COST_MAX: u64 = 1 << 62;

/// A price, what the search that minds the limit need not exceed, and the cheapest route found that keeps all limits.
pub(super) struct Priced {
    pub(super) block_price: u64,
    pub(super) cost_max: u64,
    pub(super) best: Option<Route>,
}

/// A route as far as its price goes.
#[derive(Clone, Copy)]
struct Point {
    cost: u64,
    blocks: u32,
}

impl Point {
    /// What the route costs with its blocks priced.
    fn priced(&self, prepared: &PreparedQuery<'_>) -> u64 {
        self.cost.saturating_add(prepared.price(self.blocks))
    }
}

impl Finder {
    /// Finds a price of blocks at which the cheapest routes have about as many as the limit allows, `cheapest` being too
    /// slow without one. No price is given where no route is known that keeps all limits.
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
        // At the first price next to nothing but blocks counts: if that is too slow, all is.
        let mut price = BLOCK_PRICE_MAX;
        for _ in 0..PRICES_MAX {
            let prepared = prepared.pricing_blocks(price);
            self.bounds.start(&prepared);
            // What is known already has to be outdone.
            let known = slow.priced(&prepared).min(quick.map_or(u64::MAX, |quick| quick.priced(&prepared)));
            let rules = Rules { cost_max: known, ..Rules::plain(limits) };
            // Where that is cut off, so is the search that this is for.
            let Ok(found) = self.run(&prepared, &rules) else { break };
            // Nothing that keeps the limit costs less.
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
