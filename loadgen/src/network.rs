//! The plan of a run's network: keys, channels, their openers, and the balances on both sides.
//!
//! Owns: the plan drawn from topology and seed, and the translation between nodes' indices and ids. Does not open
//! anything: [`crate::driver`] does.
//!
//! Invariant: the plan is a function of topology and seed. A policy the topology lacks stays absent: nobody routes
//! over that direction, and its node refuses to forward over it.

use std::collections::HashMap;
use std::sync::Arc;

use fulmen_graph::{ChannelGraph, Policy};
use fulmen_proto::channel::ChannelConfig;
use fulmen_proto::commitment::{ANCHOR_OUTPUT, ChannelType, commitment_fee};
use fulmen_proto::forward::{ForwardingPolicy, NodeConfig};
use fulmen_proto::keys::NodeSeed;
use fulmen_topology::{Channel, ConversionError, Topology};
use fulmen_wire::units::{ChainHash, FeeratePerKw, Msat, NodeId, Sat, Scid};
use rand::RngExt;

use crate::seed::{Purpose, Seed};

/// The fee rate of funding, commitment and closing transactions.
pub(crate) const FEERATE: FeeratePerKw = FeeratePerKw(500);
/// Blocks mined on top of the funding transactions: enough for any `minimum_depth` of a run.
pub(crate) const FUNDING_BLOCKS: u32 = 6;
/// The coins of a channel's opener beyond its capacity: the funding transaction's fee and change above dust.
pub(crate) const FUNDING_MARGIN: Sat = Sat(2_000);
/// The same where liquidity is hidden: anything that leaves both sides their reserves.
const PUSH_PERCENT_HIDDEN: std::ops::RangeInclusive<u64> = 3..=90;

/// The share of a channel pushed to its acceptor, in hundredths: about half.
const PUSH_PERCENT: std::ops::RangeInclusive<u64> = 45..=55;
/// Dust allowed in a channel's commitments: all slots of both sides full of it. Load is about balances; a real node
/// would be warier.
const DUST_EXPOSURE: Msat = Msat(2 * 483 * 354_000);

/// How long a payee waits for the rest of a payment. BOLT 4 asks for a minute at least; here all parts are under way
/// at once and cross a few nodes of one process, and the run would wait as long for each payment that cannot be
/// completed.
const MPP_TIMEOUT_MS: u64 = 10_000;

/// A network to be built.
#[derive(Debug)]
pub(crate) struct Network {
    topology: Topology,
    seeds: Vec<NodeSeed>,
    ids: Arc<Directory>,
    channels: Vec<PlannedChannel>,
}

/// Nodes by index and by id.
#[derive(Debug)]
pub(crate) struct Directory {
    ids: Vec<NodeId>,
    indices: HashMap<NodeId, usize>,
}

impl Directory {
    fn new(ids: Vec<NodeId>) -> Directory {
        let indices = ids.iter().enumerate().map(|(index, id)| (*id, index)).collect();
        Directory { ids, indices }
    }

    /// The id of a node.
    pub(crate) fn id(&self, index: usize) -> NodeId {
        self.ids[index]
    }

    /// The index of an id.
    pub(crate) fn index(&self, id: NodeId) -> Option<usize> {
        self.indices.get(&id).copied()
    }
}

/// A channel to be opened.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PlannedChannel {
    /// Who funds it.
    pub(crate) opener: usize,
    /// Who does not.
    pub(crate) acceptor: usize,
    /// Its capacity.
    pub(crate) capacity: Sat,
    /// The acceptor's share of it from the start.
    pub(crate) push: Msat,
    /// The policies of opener and acceptor.
    pub(crate) policies: [ForwardingPolicy; 2],
}

impl Network {
    /// Plans `topology` out of `seed`. With hidden liquidity, channels do not start balanced.
    pub(crate) fn new(topology: Topology, seed: &Seed, hidden_liquidity: bool) -> Network {
        let push_percent = if hidden_liquidity { PUSH_PERCENT_HIDDEN } else { PUSH_PERCENT };
        let numbers = 0..topology.nodes().len() as u64;
        let seeds: Vec<NodeSeed> =
            numbers.map(|number| NodeSeed::new(seed.bytes(Purpose::NodeKeys, number))).collect();
        let secp = bitcoin::secp256k1::Secp256k1::signing_only();
        let ids = seeds.iter().map(|seed| NodeId(seed.node_secret().public_key(&secp).serialize())).collect();
        let planned = topology.channels().iter().enumerate();
        let channels =
            planned.map(|(index, channel)| plan(channel, seed, index as u64, push_percent.clone()));
        let channels = channels.collect();
        Network { topology, seeds, ids: Arc::new(Directory::new(ids)), channels }
    }

    /// Nodes by index and by id.
    pub(crate) fn directory(&self) -> &Arc<Directory> {
        &self.ids
    }

    /// How many nodes.
    pub(crate) fn nodes(&self) -> usize {
        self.seeds.len()
    }

    /// A node's keys.
    pub(crate) fn seed_of(&self, node: usize) -> NodeSeed {
        self.seeds[node].clone()
    }

    /// The channels.
    pub(crate) fn channels(&self) -> &[PlannedChannel] {
        &self.channels
    }

    /// The sum of all capacities.
    pub(crate) fn capacity(&self) -> Sat {
        self.channels.iter().map(|channel| channel.capacity).sum()
    }

    /// The coins each node needs: one for each channel it opens, by node.
    pub(crate) fn coins(&self) -> impl Iterator<Item = (usize, Sat)> + '_ {
        self.channels.iter().map(|channel| (channel.opener, channel.capacity.saturating_add(FUNDING_MARGIN)))
    }

    /// The public graph, once every channel has its place in the chain.
    ///
    /// # Errors
    /// When two channels were given one place.
    pub(crate) fn graph(&self, scids: &[Scid]) -> Result<ChannelGraph, ConversionError> {
        self.topology.channel_graph(&self.ids.ids, scids)
    }
}

/// Decides who opens a channel, and how much is pushed.
fn plan(
    channel: &Channel,
    seed: &Seed,
    index: u64,
    push_percent: std::ops::RangeInclusive<u64>,
) -> PlannedChannel {
    let mut rng = seed.rng(Purpose::Push, index);
    let opener = usize::from(rng.random_bool(0.5));
    let [one, other] = [opener, 1 - opener];
    let percent = rng.random_range(push_percent);
    // Odd millisatoshi on purpose: closings must round.
    let push = Msat((channel.capacity.to_msat().0 / 100).saturating_mul(percent) + rng.random_range(0..1000));
    PlannedChannel {
        opener: channel.nodes[one],
        acceptor: channel.nodes[other],
        capacity: channel.capacity,
        push,
        policies: [one, other].map(|end| forwarding_policy(channel, end)),
    }
}

/// The least capacity of a channel whose opener can pay for the first commitment, whatever share is pushed.
pub(crate) fn least_capacity(hidden_liquidity: bool) -> Sat {
    let most_pushed = *if hidden_liquidity { PUSH_PERCENT_HIDDEN } else { PUSH_PERCENT }.end();
    let fee = commitment_fee(ChannelType::Anchors, FEERATE, 0);
    // The push is up to a satoshi above its percentage.
    let cost = fee.0 + 2 * ANCHOR_OUTPUT.0 + 1;
    Sat((cost * 100).div_ceil(100 - most_pushed))
}

/// The policy of the direction that leaves `channel.nodes[end]`.
pub(crate) fn forwarding_policy(channel: &Channel, end: usize) -> ForwardingPolicy {
    policy(channel.policy(end))
}

/// A node's forwarding policy: its public one, or without one a policy that forwards nothing.
fn policy(public: Option<Policy>) -> ForwardingPolicy {
    match public {
        Some(policy) => ForwardingPolicy {
            fee_base: policy.fee_base,
            fee_proportional_millionths: policy.fee_proportional_millionths,
            cltv_expiry_delta: policy.cltv_expiry_delta,
            htlc_minimum: policy.htlc_minimum,
            htlc_maximum: policy.htlc_maximum,
            disabled: policy.disabled,
            ..ForwardingPolicy::default()
        },
        None => ForwardingPolicy { disabled: true, ..ForwardingPolicy::default() },
    }
}

/// The settings of a node whose closed channels pay to `script`.
pub(crate) fn node_config(script: Vec<u8>) -> NodeConfig {
    let channel = ChannelConfig {
        max_dust_htlc_exposure: DUST_EXPOSURE,
        ..ChannelConfig::new(ChainHash::REGTEST, script)
    };
    NodeConfig {
        channel,
        feerate: FEERATE,
        channels_per_peer_max: usize::MAX,
        unfunded_channels_per_peer_max: usize::MAX,
        unconfirmed_channels_per_peer_max: usize::MAX,
        accept_keysend: false,
        // The expected failure of a faulty payment follows from the policy in force alone.
        policy_grace_ms: 0,
        mpp_timeout_ms: MPP_TIMEOUT_MS,
        ..NodeConfig::new(ChainHash::REGTEST, Vec::new())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fulmen_topology::{Label, PartialPolicy};

    fn topology() -> Topology {
        let known = PartialPolicy {
            fee_base: Some(Msat(7)),
            fee_proportional_millionths: Some(1),
            cltv_expiry_delta: Some(fulmen_wire::units::CltvDelta(40)),
            htlc_minimum: Some(Msat(1)),
            htlc_maximum: Some(Msat(1_000)),
            disabled: None,
            inbound: None,
        };
        let nodes = (0..3).map(Label::Number).collect();
        let channel = |nodes| Channel {
            nodes,
            scid: None,
            capacity: Sat(1_000_000),
            is_capacity_stated: true,
            policies: [Some(known), None],
        };
        Topology::new(nodes, vec![channel([0, 1]), channel([2, 1])]).unwrap()
    }

    #[test]
    fn policies_stay_with_their_node_whoever_opens() {
        for number in 0..20 {
            let network = Network::new(topology(), &Seed::new(number, b""), false);
            for (channel, ends) in network.channels().iter().zip([[0, 1], [2, 1]]) {
                let known = usize::from(channel.acceptor == ends[0]);
                assert_eq!(channel.policies[known].fee_base, Msat(7));
                assert!(!channel.policies[known].disabled);
                assert!(channel.policies[1 - known].disabled, "an absent policy forwards nothing");
                assert!((450_000_000..551_000_000).contains(&channel.push.0), "{}", channel.push);
            }
        }
    }

    #[test]
    fn coins_cover_each_opener_and_ids_go_both_ways() {
        let network = Network::new(topology(), &Seed::new(4, b""), false);
        assert_eq!(network.coins().count(), 2);
        assert!(network.coins().all(|(_, coin)| coin > Sat(1_000_000)));
        for node in 0..network.nodes() {
            assert_eq!(network.directory().index(network.directory().id(node)), Some(node));
        }
        assert_eq!(network.capacity(), Sat(2_000_000));
    }
}
