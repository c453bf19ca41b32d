//! The scenario of a run: its topology and its payments, checked before anything is built.
//!
//! Owns: the topology's reading and its limits, the payments that are drawn, and which of them are faulty. Does not
//! open chains or nodes.
//!
//! Invariant: every payment drawn has a route in the public graph, so that one that finds none was kept from it by
//! balances.

use fulmen_graph::ChannelGraph;
use fulmen_graph::path::multi::PartFinder;
use fulmen_graph::path::plain::find;
use fulmen_graph::path::{FirstHop, Knowledge, Query};
use fulmen_graph::snapshot::Snapshot;
use fulmen_topology::{BuildError, Channel, PartialPolicy, Topology};
use fulmen_wire::units::{Msat, NodeId, Sat};
use rand::RngExt;
use thiserror::Error;

use crate::cli::{AmountRange, RunArgs};
use crate::fault::FaultKind;
use crate::network::{Directory, forwarding_policy, least_capacity};
use crate::paying::FINAL_CLTV_DELTA;
use crate::seed::{Purpose, Seed};

/// The most nodes a run can have: each is an engine.
const NODES_MAX: usize = 2_000;
/// The most channels a run can have: each is funded and closed on chain.
const CHANNELS_MAX: usize = 20_000;
/// How many channels a line names.
const NAMED_MAX: usize = 5;
/// How many pairs are drawn before none is said to be able to pay.
const DRAWS_MAX: u64 = 2_000;
/// How many draws a kind of fault gets before another kind takes its place.
const DRAWS_PER_KIND: u64 = 16;

/// Why a run cannot begin.
#[derive(Debug, Error)]
pub(crate) enum ScenarioError {
    /// The topology cannot be built.
    #[error("--topology: {0}")]
    Build(#[from] BuildError),
    /// Too many nodes or channels.
    #[error(
        "--topology: {nodes} nodes and {channels} channels are more than the {NODES_MAX} nodes and {CHANNELS_MAX} \
         channels a run can hold; make it smaller, or take core:K of the file"
    )]
    TooLarge {
        /// How many nodes.
        nodes: usize,
        /// How many channels.
        channels: usize,
    },
    /// No channel of the file has a stated capacity.
    #[error(
        "--topology: the file states no capacities (0 or none, as light clients export them), so no channel can be \
         funded; take a graph that has them"
    )]
    NoCapacities,
    /// No channel is large enough.
    #[error(
        "--topology: every channel has less than {least} sat, the least that can be opened; take larger ones"
    )]
    AllTooSmall {
        /// The least capacity, in satoshi.
        least: u64,
    },
    /// Nobody can pay anybody.
    #[error(
        "no two nodes of this topology have a route for {range} msat; lower --amount-msat or choose another --topology"
    )]
    NoRoutes {
        /// The amounts asked for.
        range: AmountRange,
    },
}

/// Builds the topology of a run, and says in a line each which parts of the file it leaves out.
///
/// # Errors
/// When it cannot be read, built, or held.
pub(crate) fn topology(args: &RunArgs) -> Result<(Topology, Vec<String>), ScenarioError> {
    let topology = args.topology.build(args.seed)?;
    let (nodes, channels) = (topology.nodes().len(), topology.channels().len());
    if nodes > NODES_MAX || channels > CHANNELS_MAX {
        return Err(ScenarioError::TooLarge { nodes, channels });
    }
    let mut notes = Vec::new();
    let topology = without_invalid_policies(topology, &mut notes);
    let topology = without_unopenable(topology, least_capacity(args.hidden_liquidity), &mut notes)?;
    let is_charge = |policy: &PartialPolicy| policy.inbound.is_some_and(|fee| fee.is_charge());
    let policies = topology.channels().iter().flat_map(|channel| channel.policies.iter().flatten());
    let charging = policies.filter(|policy| is_charge(policy)).count();
    if charging > 0 {
        notes.push(format!("{charging} policies have inbound fees, which no payer here knows of: left out"));
    }
    Ok((topology, notes))
}

/// Switches off the directions whose policies a node refuses to announce.
fn without_invalid_policies(topology: Topology, notes: &mut Vec<String>) -> Topology {
    let mut channels = topology.channels().to_vec();
    let mut invalid = Vec::new();
    for (index, channel) in channels.iter_mut().enumerate() {
        for end in 0..2 {
            if let Err(error) = forwarding_policy(channel, end).check() {
                invalid.push(format!(
                    "{} from {} ({error})",
                    topology.channel_name(index),
                    topology.nodes()[channel.nodes[end]]
                ));
                channel.policies[end] = None;
            }
        }
    }
    let Some(first) = invalid.first() else { return topology };
    notes.push(match invalid.len() {
        1 => format!("no node would announce the policy of channel {first}: switched off"),
        count => format!("no node would announce the policies of {count} directions, the first of channel {first}: switched off"),
    });
    Topology::new(topology.nodes().to_vec(), channels).unwrap_or(topology)
}

/// Leaves out the channels that cannot be funded, and the nodes that only they join.
fn without_unopenable(
    topology: Topology,
    least: Sat,
    notes: &mut Vec<String>,
) -> Result<Topology, ScenarioError> {
    let channels = topology.channels();
    let unstated = channels.iter().filter(|channel| !channel.is_capacity_stated).count();
    if unstated == channels.len() {
        return Err(ScenarioError::NoCapacities);
    }
    if unstated > 0 {
        notes.push(format!("{unstated} channels have no stated capacity: left out"));
    }
    let is_small = |channel: &Channel| channel.is_capacity_stated && channel.capacity < least;
    let small = channels.iter().enumerate().filter(|(_, channel)| is_small(channel));
    let small: Vec<String> = small.map(|(index, _)| topology.channel_name(index)).collect();
    if small.is_empty() && unstated == 0 {
        return Ok(topology);
    }
    if small.len() + unstated == channels.len() {
        return Err(ScenarioError::AllTooSmall { least: least.0 });
    }
    if !small.is_empty() {
        let more = small.len().saturating_sub(NAMED_MAX);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        let named = small[..small.len().min(NAMED_MAX)].join(", ");
        notes.push(format!(
            "channels below {} sat, the least that can be opened: {named}{more}: left out",
            least.0
        ));
    }
    Ok(topology.with_channels(|_, channel| channel.is_capacity_stated && !is_small(channel)))
}

/// A payment as it was drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DrawnPayment {
    /// The payer's index.
    pub(crate) from: usize,
    /// The payee's id.
    pub(crate) to: NodeId,
    /// The payee's index.
    pub(crate) to_index: usize,
    /// The amount.
    pub(crate) amount: Msat,
    /// The rule to break, if any.
    pub(crate) fault: Option<FaultKind>,
}

/// Draws payments.
#[derive(Debug)]
pub(crate) struct PaymentDraw<'a> {
    seed: Seed,
    graph: &'a ChannelGraph,
    snapshot: &'a Snapshot,
    directory: &'a Directory,
    nodes: usize,
    range: AmountRange,
    faulty_share: f64,
    parts_max: usize,
    finder: PartFinder,
}

impl<'a> PaymentDraw<'a> {
    /// Draws from `seed` for this network.
    pub(crate) fn new(
        seed: Seed,
        (graph, snapshot): (&'a ChannelGraph, &'a Snapshot),
        directory: &'a Directory,
        nodes: usize,
        args: &RunArgs,
    ) -> PaymentDraw<'a> {
        PaymentDraw {
            seed,
            graph,
            snapshot,
            directory,
            nodes,
            range: args.amount_msat,
            faulty_share: args.faulty,
            parts_max: args.max_parts,
            finder: PartFinder::new(),
        }
    }

    /// Payment number `payment`; `redraw` numbers the draws for one payment: a fault may find no route.
    ///
    /// # Errors
    /// When no pair has a route.
    pub(crate) fn draw(&mut self, payment: u64, redraw: u64) -> Result<DrawnPayment, ScenarioError> {
        let fault = self.fault(payment, redraw);
        let mut rng = self.seed.rng(Purpose::Payment, payment | redraw << 40);
        for _ in 0..DRAWS_MAX {
            let from = rng.random_range(0..self.nodes);
            let to_index = (from + rng.random_range(1..self.nodes)) % self.nodes;
            let amount = Msat(rng.random_range(self.range.min.0..=self.range.max.0));
            let to = self.directory.id(to_index);
            // Where a faulty payment fails is foreseen for one route.
            let parts_max = if fault.is_some() { 1 } else { self.parts_max };
            if self.has_route(self.directory.id(from), to, amount, parts_max) {
                return Ok(DrawnPayment { from, to, to_index, amount, fault });
            }
        }
        Err(ScenarioError::NoRoutes { range: self.range })
    }

    /// Whether the payment is faulty, and how: spread evenly over the run, the kinds in turn.
    fn fault(&self, payment: u64, redraw: u64) -> Option<FaultKind> {
        let before = |number: u64| (number as f64 * self.faulty_share).floor() as u64;
        let nth = before(payment);
        let kinds = FaultKind::ALL.len() as u64;
        (before(payment + 1) > nth)
            .then(|| FaultKind::ALL[((nth + redraw / DRAWS_PER_KIND) % kinds) as usize])
    }

    fn has_route(&mut self, from: NodeId, to: NodeId, amount: Msat, parts_max: usize) -> bool {
        let mut knowledge = Knowledge::default();
        // The payer's own public limits do not bind it; its balances do, and they are not judged here.
        let own = self.graph.channels_of(from).map(|channel| {
            let spendable = channel.capacity().to_msat();
            (channel.scid(), FirstHop { spendable, htlc_minimum: Msat(1) })
        });
        knowledge.first_hops = Some(own.collect());
        let query = Query { final_cltv_delta: FINAL_CLTV_DELTA, ..Query::new(from, to, amount, &knowledge) };
        find(self.graph, &query).is_ok()
            || parts_max > 1 && self.finder.find(self.snapshot, &query, parts_max).is_ok()
    }
}
