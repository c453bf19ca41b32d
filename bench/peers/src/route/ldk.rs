//! LDK's side of the route comparison: `find_route` over a `NetworkGraph`, public API only.
//!
//! As a node of LDK would ask: payer in the graph, no first hops given, default limits (1 % + 50 sat, 1008 blocks),
//! final delta of 18. Its probabilistic scorer has default parameters and has seen no payment; its fee-only one is
//! `FixedPenaltyScorer` with no penalty.

use std::time::{SystemTime, UNIX_EPOCH};

use bitcoin::Network;
use bitcoin::constants::ChainHash;
use bitcoin::secp256k1::PublicKey;
use fulmen_graph::{ChannelGraph, Direction, Policy};
use lightning::ln::msgs::UnsignedChannelUpdate;
use lightning::routing::gossip::{NetworkGraph, NodeId};
use lightning::routing::router::{PaymentParameters, Route, RouteParameters, find_route};
use lightning::routing::scoring::{
    FixedPenaltyScorer, ProbabilisticScorer, ProbabilisticScoringDecayParameters,
    ProbabilisticScoringFeeParameters,
};
use lightning::types::features::{Bolt11InvoiceFeatures, ChannelFeatures};
use lightning::util::logger::{Logger, Record};

use crate::route::Mode;
use crate::route::evaluate::{Ask, FINAL_CLTV_DELTA, Part, PartHop};
use crate::route::network::Update;

/// Drops every line.
pub(crate) struct Silence;

impl Logger for Silence {
    fn log(&self, _record: Record<'_>) {}
}

type Graph<'a> = NetworkGraph<&'a Silence>;

/// LDK with its graph and scorers.
pub(crate) struct Ldk<'a> {
    graph: &'a Graph<'a>,
    probabilistic: ProbabilisticScorer<&'a Graph<'a>, &'a Silence>,
    parameters: ProbabilisticScoringFeeParameters,
    fee_only: FixedPenaltyScorer,
    /// Grows with every update.
    timestamp: u32,
}

/// An empty graph.
pub(crate) fn empty(silence: &Silence) -> Graph<'_> {
    NetworkGraph::new(Network::Bitcoin, silence)
}

fn key(id: fulmen_wire::units::NodeId) -> PublicKey {
    PublicKey::from_slice(&id.0).expect("endpoints have keys")
}

impl<'a> Ldk<'a> {
    /// Fills the graph.
    pub(crate) fn new(network: &ChannelGraph, graph: &'a Graph<'a>, silence: &'a Silence) -> Ldk<'a> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let decay = ProbabilisticScoringDecayParameters::default();
        let mut ldk = Ldk {
            graph,
            probabilistic: ProbabilisticScorer::new(decay, graph, silence),
            parameters: ProbabilisticScoringFeeParameters::default(),
            fee_only: FixedPenaltyScorer::with_penalty(0),
            timestamp: now as u32 - 5 * 24 * 3600,
        };
        for channel in network.channels() {
            let [one, two] = channel.nodes().map(|node| NodeId::from_slice(&node.0).expect("33 bytes"));
            let (scid, capacity) = (channel.scid().0, channel.capacity().0);
            let features = ChannelFeatures::empty();
            graph
                .add_channel_from_partial_announcement(scid, Some(capacity), now, features, one, two)
                .expect("a new channel");
            for direction in Direction::BOTH {
                if let Some(policy) = channel.policy(direction) {
                    ldk.set_policy(scid, direction, policy);
                }
            }
        }
        ldk
    }

    /// Takes in a policy update.
    pub(crate) fn update(&mut self, update: &Update) {
        self.timestamp += 1;
        self.set_policy(update.directed.scid.0, update.directed.direction, &update.policy);
    }

    fn set_policy(&mut self, scid: u64, direction: Direction, policy: &Policy) {
        let capacity = self.graph.read_only().channel(scid).and_then(|channel| channel.capacity_sats);
        let update = UnsignedChannelUpdate {
            chain_hash: ChainHash::using_genesis_block(Network::Bitcoin),
            short_channel_id: scid,
            timestamp: self.timestamp,
            message_flags: 1,
            channel_flags: direction.origin() as u8 | u8::from(policy.disabled) << 1,
            cltv_expiry_delta: policy.cltv_expiry_delta.0,
            htlc_minimum_msat: policy.htlc_minimum.0,
            // LDK refuses more than the capacity.
            htlc_maximum_msat: policy.htlc_maximum.0.min(capacity.unwrap_or(0) * 1000),
            fee_base_msat: u32::try_from(policy.fee_base.0).unwrap_or(u32::MAX),
            fee_proportional_millionths: policy.fee_proportional_millionths,
            excess_data: Vec::new(),
        };
        self.graph.update_channel_unsigned(&update).expect("a valid update");
    }

    /// LDK's form of the query, prepared beforehand.
    pub(crate) fn question(&self, ask: &Ask, mode: &Mode) -> (PublicKey, RouteParameters) {
        let mut features = Bolt11InvoiceFeatures::empty();
        features.set_variable_length_onion_required();
        features.set_payment_secret_required();
        features.set_basic_mpp_optional();
        let mut payment = PaymentParameters::from_node_id(key(ask.to), u32::from(FINAL_CLTV_DELTA))
            .with_bolt11_features(features)
            .expect("a payee known by its key");
        payment.max_path_count = mode.parts_max as u8;
        (key(ask.from), RouteParameters::from_payment_params_and_value(payment, ask.amount_msat))
    }

    /// Asks LDK.
    pub(crate) fn answer(
        &self,
        (payer, question): &(PublicKey, RouteParameters),
        mode: &Mode,
        silence: &Silence,
    ) -> Option<Route> {
        let seed = [7; 32];
        let graph = self.graph;
        let found = if mode.minds_success {
            let scorer = &self.probabilistic;
            find_route(payer, question, graph, None, silence, scorer, &self.parameters, &seed)
        } else {
            find_route(payer, question, graph, None, silence, &self.fee_only, &(), &seed)
        };
        found.ok()
    }
}

/// An LDK route in the judge's words.
pub(crate) fn parts(route: &Route) -> Vec<Part> {
    let part = |path: &lightning::routing::router::Path| {
        // A hop's `fee_msat` is the fee of the node at its end, the last one's the amount that arrives.
        let mut amount: u64 = path.hops.iter().map(|hop| hop.fee_msat).sum();
        let hops = path.hops.iter().map(|hop| {
            let offered = amount;
            amount -= hop.fee_msat;
            PartHop {
                scid: fulmen_wire::units::Scid(hop.short_channel_id),
                to: fulmen_wire::units::NodeId(hop.pubkey.serialize()),
                amount_msat: offered,
            }
        });
        Part { hops: hops.collect() }
    };
    route.paths.iter().map(part).collect()
}
