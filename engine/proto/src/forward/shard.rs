//! A shard: the channels one lock owns, and the turn over everything that waits for them.
//!
//! Owns the order of a turn and the application of plans; decisions are made in `messages`, `commands`, `decide`
//! and `resolve`. Does not execute effects, keep threads, read a clock or draw randomness.
//!
//! Invariant: every change of the durable state is in the turn's record, in order.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use fulmen_secp::Verifier;
use fulmen_wire::features::Features;
use fulmen_wire::message::{ChannelUpdate, Message};
use fulmen_wire::onion::OnionPacket;
use fulmen_wire::units::{ChannelId, FeeratePerKw, NodeId, Scid};
use secp256k1::SecretKey;

use crate::channel::{self, Channel, Context, Htlc};
use crate::keys::{NodeSeed, secp};
use crate::onion::{Peeled, peel};

use super::state::announcing::PeerForwardingPolicy;
use super::state::change::Change;
use super::state::channels::ChannelEntry;
use super::state::checkpoint::ChunkSize;
use super::state::replay::{LoneShard, ReplayClaims};
use super::state::shard_state::State;
use super::stats::{CryptoCounters, Occupancy};
use super::terms::config::{ForwardingPolicy, NodeConfig};
use super::terms::handoff::{Handoff, HandoffStep, PaymentPart};
use super::terms::ids::{ChannelRef, IncomingHtlc, OutgoingHtlc};
use super::terms::input::Input;
use super::terms::time::Now;
use super::turn::announcer::Announcer;
use super::turn::answers::AwaitedAnswers;
use super::turn::deferred::DeferredCommitments;
use super::turn::open_turn::{OpenTurn, Sorted};
use super::turn::output::Turn;
use super::turn::pongs::PongBudgets;
use super::turn::send_bounds::SentBytes;

/// The memory for tables of peers' keys: two tables per channel, enough for about 180 channels of a shard.
const KEY_TABLES_BYTES: usize = 16 << 20;

/// A set of channels of one node, with the circuits between them.
///
/// Drive it with [`Shard::turn`]: give it everything that happened since the last turn, then make the returned
/// [`Turn::record`] durable, then execute the turn's other parts in their order. Nothing else needs to be called.
///
/// ```
/// use fulmen_proto::forward::{Command, Event, Input, NodeConfig, Now, OpenChannelRequest, Shard, local_features};
/// use fulmen_proto::keys::NodeSeed;
/// use fulmen_wire::units::{ChainHash, Msat, Sat};
///
/// let script = [&[0x00, 0x14][..], &[7; 20]].concat(); // where our money goes when a channel closes
/// let config = NodeConfig::new(ChainHash::REGTEST, script);
/// let mut alice = Shard::new(NodeSeed::new([1; 32]), config.clone());
/// let mut bob = Shard::new(NodeSeed::new([2; 32]), config);
/// let now = Now { unix_ms: 0 };
///
/// // Both have sent `init`, and `negotiate` has accepted it.
/// let connected = |peer| Input::connected(peer, local_features());
/// let (peer, capacity, push) = (bob.node_id(), Sat(1_000_000), Msat(0));
/// let open = Command::OpenChannel(OpenChannelRequest { peer, user_id: 1, capacity, push, policy: None });
/// let turn = alice.turn([connected(peer), Input::Command(open)], now);
/// // Here `turn.record` is made durable. Only then do its messages leave.
/// let peer = alice.node_id();
/// let messages = turn.send.into_iter().map(|(_, message)| Input::message(peer, message));
/// let turn = bob.turn([connected(peer)].into_iter().chain(messages), now);
///
/// let peer = bob.node_id();
/// let turn = alice.turn(turn.send.into_iter().map(|(_, message)| Input::message(peer, message)), now);
/// assert!(matches!(turn.events[..], [Event::FundingNeeded { amount: Sat(1_000_000), .. }]));
/// ```
#[derive(Debug)]
pub struct Shard {
    pub(crate) config: NodeConfig,
    pub(crate) seed: NodeSeed,
    pub(crate) node_secret: SecretKey,
    pub(crate) node_id: NodeId,
    pub(crate) state: State,
    /// The peers there is a connection to, with their features.
    pub(crate) peers: BTreeMap<NodeId, Features>,
    /// The channels that other shards of the node own.
    pub(crate) siblings: BTreeSet<Scid>,
    /// After a restart: outgoing HTLCs whose onion another shard must resend, keyed by the incoming HTLC.
    pub(crate) onions_awaited: BTreeMap<IncomingHtlc, OutgoingHtlc>,
    /// The latest [`Input::Feerate`], if there was one.
    pub(crate) feerate: Option<FeeratePerKw>,
    /// Whether HTLCs may be decided on and offered.
    pub(crate) in_step: bool,
    /// Handoffs that wait until then.
    pub(crate) early_handoffs: Vec<Handoff>,
    pub(crate) counters: CryptoCounters,
    /// Whether the next turn is the first after a restart.
    pub(crate) restored: bool,
    /// Channels whose peer's next commitment has no keys yet, though its point is known.
    pub(crate) keyless: BTreeSet<ChannelId>,
    /// The onions of all shards of the node.
    pub(crate) replay_claims: Arc<dyn ReplayClaims>,
    /// Checks signatures; knows the keys of the busiest channels well.
    pub(crate) verifier: Verifier,
    /// Channels whose `commitment_signed` is deferred.
    pub(crate) deferred: DeferredCommitments,
    pub(crate) pongs: PongBudgets,
    pub(crate) answers: AwaitedAnswers,
    /// Whether the first turn begins to doubt the state of all channels.
    pub(crate) doubts_state: bool,
    pub(crate) announcer: Announcer,
}

impl Shard {
    /// A shard without channels, of the node with this seed.
    #[must_use]
    pub fn new(seed: NodeSeed, config: NodeConfig) -> Shard {
        let node_secret = seed.node_secret();
        let node_id = NodeId(node_secret.public_key(secp()).serialize());
        Shard {
            seed,
            node_secret,
            node_id,
            state: State::new(config.shard),
            feerate: None,
            in_step: !config.awaits_chain,
            early_handoffs: Vec::new(),
            config,
            peers: BTreeMap::new(),
            siblings: BTreeSet::new(),
            onions_awaited: BTreeMap::new(),
            counters: CryptoCounters::default(),
            restored: false,
            keyless: BTreeSet::new(),
            replay_claims: Arc::new(LoneShard),
            verifier: Verifier::new().with_key_cache(KEY_TABLES_BYTES),
            deferred: DeferredCommitments::default(),
            pongs: PongBudgets::default(),
            answers: AwaitedAnswers::default(),
            doubts_state: false,
            announcer: Announcer::default(),
        }
    }

    /// Shares the memory of accepted onions with the other shards of the node, and claims this shard's. To be given to
    /// every shard of a node that has several, before the first turn of any.
    pub fn share_replay_claims(&mut self, claims: Arc<dyn ReplayClaims>) {
        for (tag, htlc) in self.state.replay.owners() {
            if !claims.claim(tag, htlc) {
                tracing::warn!(?htlc, "two shards have accepted one onion");
            }
        }
        self.replay_claims = claims;
    }

    /// Runs one turn over everything that happened since the last.
    ///
    /// The order is fixed, so that the same inputs give the same turn bit for bit: connections and messages in the
    /// order given, in rounds that verify all signatures of a round at once; blocks; commands and handoffs; timeouts;
    /// the decisions on fresh HTLCs, their onions peeled at once; announcements; and last one `commitment_signed` for
    /// each channel that has something to commit and may, all signed at once.
    pub fn turn(&mut self, inputs: impl IntoIterator<Item = Input>, now: Now) -> Turn {
        let mut turn = OpenTurn {
            now,
            out: Turn::default(),
            locked_in: Vec::new(),
            resolved: Vec::new(),
            awaiting_verification: BTreeSet::new(),
            touched: BTreeSet::new(),
            sent: SentBytes::default(),
        };
        let sorted = Sorted::new(inputs);
        self.supply_repeated_onions(&sorted.handoffs);
        self.begin_doubt(&mut turn);
        self.resume(&mut turn);
        self.run_messages(&mut turn, sorted.of_peers);
        self.remove_resolved(&mut turn);
        for (height, confirmations) in sorted.blocks {
            self.connect_block(&mut turn, height, &confirmations);
        }
        for (outpoint, spender) in sorted.spent {
            self.funding_spent(&mut turn, outpoint, spender);
        }
        if let Some(siblings) = sorted.siblings {
            self.siblings = siblings.into_iter().collect();
        }
        self.siblings.extend(sorted.new_siblings);
        if sorted.sibling_announced {
            self.sibling_announced();
        }
        for command in sorted.commands {
            self.command(&mut turn, command);
        }
        if let Some(feerate) = sorted.feerate {
            self.set_feerate(&mut turn, feerate);
        }
        if sorted.in_step {
            self.get_in_step(&mut turn);
        }
        for handoff in sorted.handoffs {
            self.handoff(&mut turn, handoff);
        }
        if sorted.ticked {
            self.demand_answers(&mut turn);
        }
        self.expire(&mut turn);
        self.decide(&mut turn);
        self.remove_resolved(&mut turn);
        self.announce(&mut turn);
        self.defer_commitments(&mut turn, sorted.ticked);
        self.sign_commitments(&mut turn);
        assert!(turn.awaiting_verification.is_empty(), "every plan of a turn is applied or refused in it");
        turn.out
    }

    /// The node's public key.
    #[must_use]
    pub const fn node_id(&self) -> NodeId {
        self.node_id
    }

    /// The settings.
    #[must_use]
    pub const fn config(&self) -> &NodeConfig {
        &self.config
    }

    /// When this shard wants a turn for the sake of time alone, be it one without inputs: something waits until then,
    /// and would otherwise wait until the next [`Input::Tick`].
    #[must_use]
    pub fn wake_at(&self) -> Option<Now> {
        self.deferred.first_deadline()
    }

    /// How much cryptography was done so far.
    #[must_use]
    pub const fn counters(&self) -> CryptoCounters {
        self.counters
    }

    /// How much the shard holds.
    #[must_use]
    pub fn occupancy(&self) -> Occupancy {
        Occupancy {
            height: self.state.height,
            channels: self.state.channels.len(),
            circuits: self.state.circuits.received_len(),
            offered: self.state.circuits.offered_len(),
            replay_tags: self.state.replay.len(),
            incomplete_sets: self.state.receiver.sets_len(),
        }
    }

    /// The channels, by id, in any phase.
    pub fn channels(&self) -> impl Iterator<Item = &Channel> {
        self.state.channels.values().map(|entry| &entry.channel)
    }

    /// The peers of the channels that are ready or were, once for each channel.
    pub fn channel_peers(&self) -> impl Iterator<Item = NodeId> {
        let placed = self.state.channels.values().filter(|entry| entry.channel.scid().is_some());
        placed.map(|entry| entry.peer)
    }

    /// The channel with this name.
    #[must_use]
    pub fn channel(&self, channel: ChannelRef) -> Option<&Channel> {
        self.entry(channel).map(|entry| &entry.channel)
    }

    /// The policy of a channel and the peer it leads to.
    #[must_use]
    pub fn policy(&self, channel: ChannelRef) -> Option<(NodeId, ForwardingPolicy)> {
        self.entry(channel).map(|entry| (entry.peer, entry.policies.current))
    }

    /// The peer's terms for forwarding to us over a channel, if it sent a `channel_update`: with
    /// [`Shard::peer_alias`] the content of a route hint (BOLT 11, field `r`).
    #[must_use]
    pub fn peer_policy(&self, channel: ChannelRef) -> Option<PeerForwardingPolicy> {
        self.entry(channel)?.announcements.peer_policy
    }

    /// The name that the peer gave a channel in `channel_ready`, if it did: invoices name a private channel by it
    /// (BOLT 2, "The `channel_ready` Message").
    #[must_use]
    pub fn peer_alias(&self, channel: ChannelRef) -> Option<Scid> {
        self.entry(channel)?.announcements.alias
    }

    /// Our latest `channel_update` for a channel.
    #[must_use]
    pub fn channel_update(&self, channel: ChannelRef) -> Option<&ChannelUpdate> {
        self.entry(channel)?.announcements.update.as_deref()
    }

    fn entry(&self, channel: ChannelRef) -> Option<&ChannelEntry> {
        let channel_id = match channel {
            ChannelRef::Id(channel_id) => channel_id,
            ChannelRef::Scid(scid) => *self.state.scids.get(&scid)?,
        };
        self.state.channels.get(&channel_id)
    }

    /// The handoffs not yet answered. After a restart they are to be delivered again, before any peer is connected.
    pub fn unanswered_handoffs(&self) -> impl Iterator<Item = Handoff> + '_ {
        let offers = self.state.circuits.unresolved_offers().filter_map(|(incoming, offer)| {
            let onion = self.next_onion(incoming)?;
            Some(Handoff { incoming, step: HandoffStep::Offer { offer, onion } })
        });
        let received = self.state.circuits.unresolved_parts().filter_map(|incoming| {
            let Htlc { amount, cltv_expiry, payment_hash, .. } = *self.state.received_htlc(incoming)?;
            let Some(Peeled::Final { payload, .. }) = self.peel_again(incoming) else { return None };
            let part = PaymentPart { amount, cltv_expiry, payment_hash, payload };
            Some(Handoff { incoming, step: HandoffStep::Part(part) })
        });
        offers.chain(received).chain(self.state.circuits.unacked_resolutions())
    }

    /// Peels the onion of a received HTLC once more, while its channel has it.
    fn peel_again(&self, incoming: IncomingHtlc) -> Option<Peeled> {
        let htlc = self.state.received_htlc(incoming)?;
        let packet = htlc.onion_routing_packet.as_ref()?;
        peel(&self.node_secret, packet, &htlc.payment_hash.0).ok()
    }

    /// The onion for the next hop of a received HTLC that is to be forwarded.
    pub(crate) fn next_onion(&self, incoming: IncomingHtlc) -> Option<OnionPacket> {
        match self.peel_again(incoming)? {
            Peeled::Forward { next_packet, .. } => Some(next_packet),
            Peeled::Final { .. } => None,
        }
    }

    /// The whole durable state, in chunks of some 64 KiB, 1 MiB at most, that are made as they are asked for. They are
    /// to be stored in this order; [`Restoring`](super::Restoring) reads them.
    pub fn checkpoint(&self) -> impl Iterator<Item = Vec<u8>> + '_ {
        self.chunks(ChunkSize::DEFAULT)
    }

    /// As [`Shard::checkpoint`], in chunks of another size.
    pub(crate) fn chunks(&self, size: ChunkSize) -> impl Iterator<Item = Vec<u8>> + '_ {
        self.state.chunks(self.node_id, self.config.shard, size)
    }

    pub(crate) fn context(&self) -> Context {
        Context { height: self.state.height, feerate: self.feerate.unwrap_or(self.config.feerate) }
    }

    /// Changes the state, and puts the change on record.
    pub(crate) fn change(&mut self, turn: &mut OpenTurn, change: Change) {
        self.state.apply(&change);
        turn.out.record.changes.push(change);
    }

    /// Takes up after a restart, in the first turn: reports the HTLCs held for the embedder again, withdraws the HTLCs
    /// that were offered and not signed, and ends the channels that were being opened. Their peers have forgotten both
    /// with the connection (BOLT 2, "Message Retransmission").
    fn resume(&mut self, turn: &mut OpenTurn) {
        if !std::mem::take(&mut self.restored) {
            return;
        }
        turn.out.events.extend(self.intercepted());
        let is_opening = |entry: &ChannelEntry| entry.channel.state() == channel::State::Opening;
        let opening = self.state.channels.iter().filter(|(_, entry)| is_opening(entry));
        let opening: Vec<ChannelId> = opening.map(|(channel_id, _)| *channel_id).collect();
        for channel_id in opening {
            self.command_channel_if_possible(turn, channel_id, channel::ChannelCommand::Disconnected);
        }
        let channels: Vec<ChannelId> = self.state.channels.keys().copied().collect();
        for channel_id in channels {
            self.withdraw_unsigned(turn, channel_id);
        }
    }

    /// Fails sets and intercepted HTLCs that waited too long, and forgets expired payments.
    fn expire(&mut self, turn: &mut OpenTurn) {
        self.expire_sets(turn);
        self.expire_intercepted(turn);
        if self.state.receiver.has_expired(turn.now) {
            self.change(turn, Change::ExpectedPaymentsPruned(turn.now));
        }
    }

    /// Sends a message to a peer.
    pub(crate) fn send(&self, turn: &mut OpenTurn, peer: NodeId, message: impl Into<Message>) {
        let message = message.into();
        turn.sent.count(peer, &message);
        turn.out.send.push((peer, message));
    }
}
