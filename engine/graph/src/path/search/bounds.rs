//! Lower bounds on what lies between the payer and a node, found by searching forward from the payer.
//!
//! Owns: [`Bounds`]. Every channel is taken at the payment's bare amount, which underestimates it, since nothing gets
//! cheaper as the amount grows. The search is cut off after a while: what it has not reached is at least as far away as the
//! next node it would have settled, which is a bound as well. Does not know how partial routes are compared.
//!
//! Invariant: bounds are consistent: along every usable channel a bound grows by no more than the channel takes, so that a
//! search guided by them settles nothing twice.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::path::search::task::Task;
use crate::snapshot::Edge;

/// A bound for every node, in memory used again from query to query.
#[derive(Debug, Default)]
pub(super) struct Bounds {
    /// For each node the least found so far, if it is of this search.
    reached: Vec<Reached>,
    search: u32,
    /// What holds for every node that has no less.
    radius: u64,
    /// The least minimum above the allowed ones that was met: bounds hold as long as it does not matter.
    pub(super) least_minimum: u64,
    open: BinaryHeap<Reverse<(u64, u32)>>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Reached {
    distance: u64,
    search: u32,
}

/// What is summed up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Measure {
    /// What the search minimises.
    Cost,
    /// Each `cltv_expiry_delta`.
    Blocks,
    /// One for each channel.
    Hops,
}

impl Bounds {
    /// Searches forward over channels whose minimum is no more than `minimum_max`, until `edges_max` have been looked at.
    pub(super) fn search(&mut self, task: &Task<'_>, measure: Measure, minimum_max: u64, edges_max: usize) {
        self.reached.resize(task.snapshot.node_count(), Reached::default());
        self.search = self.search.wrapping_add(1);
        if self.search == 0 {
            self.reached.fill(Reached::default());
            self.search = 1;
        }
        self.open.clear();
        self.least_minimum = u64::MAX;
        self.reached[task.payer as usize] = Reached { distance: 0, search: self.search };
        self.open.push(Reverse((0, task.payer)));
        let mut edges = 0;
        while let Some(Reverse((distance, node))) = self.open.pop() {
            if distance > self.reached[node as usize].distance {
                continue;
            }
            if edges >= edges_max {
                self.radius = distance;
                return;
            }
            edges += task.snapshot.incoming(node).len();
            self.settle(task, measure, minimum_max, node, distance);
        }
        self.radius = u64::MAX;
    }

    /// The least that lies between the payer and a node; `u64::MAX` when no way leads there.
    #[inline]
    pub(super) fn of(&self, node: u32) -> u64 {
        let reached = self.reached[node as usize];
        if reached.search == self.search { reached.distance.min(self.radius) } else { self.radius }
    }

    /// Looks at every channel out of a node.
    fn settle(&mut self, task: &Task<'_>, measure: Measure, minimum_max: u64, node: u32, distance: u64) {
        for (first, run) in task.snapshot.runs(task.snapshot.incoming(node)) {
            for (inward, opposite) in (first..).zip(run) {
                let target = opposite.source;
                let reached = self.reached[target as usize];
                if reached.search == self.search && reached.distance <= distance {
                    continue;
                }
                let number = task.snapshot.reverse(inward);
                let edge = task.snapshot.edge(number);
                let minimum = task.minimum(number, edge, node);
                if minimum > minimum_max {
                    self.least_minimum = self.least_minimum.min(minimum);
                    continue;
                }
                let Some(length) = length(task, measure, number, edge, node) else { continue };
                let next = distance.saturating_add(length);
                if reached.search != self.search || next < reached.distance {
                    self.reached[target as usize] = Reached { distance: next, search: self.search };
                    self.open.push(Reverse((next, target)));
                }
            }
        }
    }
}

/// The measure of one edge out of a node at the payment's bare amount; `None` when it cannot be used.
#[inline]
fn length(task: &Task<'_>, measure: Measure, number: u32, edge: &Edge, node: u32) -> Option<u64> {
    if node == task.payer {
        let cost = task.first(number, edge, task.amount)?;
        return Some(match measure {
            Measure::Cost => cost,
            Measure::Blocks => 0,
            Measure::Hops => 1,
        });
    }
    let step = task.forward(number, edge, task.amount)?;
    Some(match measure {
        Measure::Cost => step.cost,
        Measure::Blocks => u64::from(step.delta),
        Measure::Hops => 1,
    })
}
