//! Fulmen's side of the route comparison: a [`Finder`] over snapshots of a [`LiveGraph`], or a [`PartFinder`] where
//! payments may be split.
//!
//! Asks under LDK's limits. A query takes the current snapshot, and remembers nothing of the one before.

use std::sync::Arc;

use fulmen_graph::ChannelGraph;
use fulmen_graph::live::LiveGraph;
use fulmen_graph::path::multi::PartFinder;
use fulmen_graph::path::search::Finder;
use fulmen_graph::path::{Knowledge, Limits, Query, Route};
use fulmen_graph::scoring::Weights;
use fulmen_wire::units::{BlockHeight, CltvDelta, Msat};

use crate::route::Mode;
use crate::route::evaluate::{Ask, CLTV_LIMIT, FINAL_CLTV_DELTA, HOPS_LIMIT, Part, PartHop, fee_limit};
use crate::route::network::Update;

/// A height in use now, so that expiries have their real length.
const HEIGHT: BlockHeight = BlockHeight(935_000);

/// Fulmen's graph, shared between threads.
pub(crate) struct Ours {
    pub(crate) live: LiveGraph,
    knowledge: Knowledge,
}

/// The state of one thread.
#[derive(Default)]
pub(crate) struct Seeker {
    finder: Finder,
    part_finder: PartFinder,
}

/// An answer: its parts.
pub(crate) type Routes = Vec<Route>;

impl Ours {
    pub(crate) fn new(graph: ChannelGraph) -> Ours {
        Ours { live: LiveGraph::new(graph), knowledge: Knowledge::default() }
    }

    /// Takes in policy updates, visible at once.
    pub(crate) fn update(&self, updates: &[Update]) {
        let policies: Vec<_> = updates.iter().map(|update| (update.directed, Some(update.policy))).collect();
        self.live.set_policies(&policies).expect("known channels");
    }

    /// Asks Fulmen.
    pub(crate) fn answer(&self, seeker: &mut Seeker, ask: &Ask, mode: &Mode) -> Option<Routes> {
        let snapshot = self.live.snapshot();
        let query = self.query(ask, mode);
        if mode.parts_max > 1 {
            return Some(seeker.part_finder.find(&snapshot, &query, mode.parts_max).ok()?.routes);
        }
        let route = seeker.finder.find(&Arc::clone(&snapshot), &query).ok()?;
        Some(vec![route])
    }

    fn query(&self, ask: &Ask, mode: &Mode) -> Query<'_> {
        Query {
            height: HEIGHT,
            final_cltv_delta: CltvDelta(FINAL_CLTV_DELTA),
            limits: Limits {
                max_fee: Msat(fee_limit(ask.amount_msat)),
                max_cltv_blocks: CLTV_LIMIT,
                max_hops: HOPS_LIMIT,
            },
            risk_billionths: if mode.minds_success { Query::RISK_BILLIONTHS } else { 0 },
            weights: if mode.minds_success { mode.weights } else { Weights::FEES },
            ..Query::new(ask.from, ask.to, Msat(ask.amount_msat), &self.knowledge)
        }
    }
}

/// Routes in the judge's words.
pub(crate) fn parts(routes: &[Route]) -> Vec<Part> {
    let hop =
        |hop: &fulmen_graph::path::PathHop| PartHop { scid: hop.scid, to: hop.to, amount_msat: hop.amount.0 };
    routes.iter().map(|route| Part { hops: route.hops.iter().map(hop).collect() }).collect()
}
