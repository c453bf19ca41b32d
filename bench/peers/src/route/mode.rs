//! The ways in which both sides are asked for routes: scorer, prices, parts. Does not ask.

use fulmen_graph::scoring::Weights;

/// One way to ask both sides.
pub(crate) struct Mode {
    pub(crate) name: &'static str,
    /// The probabilistic scorer, or fees alone.
    pub(crate) minds_success: bool,
    pub(crate) weights: Weights,
    /// How many paths a route may have.
    pub(crate) parts_max: usize,
}
