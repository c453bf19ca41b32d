//! A shard: the channels one lock owns, and the turn over everything that waits for them.
//!
//! Owns the order of a turn and the application of plans; what is decided stands in `messages`, `commands`, `decide`
//! and `resolve`. Does not execute effects, keep threads, read a clock or draw randomness.
//!
//! Invariant: whatever changes the durable state is in the turn's record, in order.

use std::collections::{BTreeMap, BTreeSet};

use fulmen_secp::Verifier;
use fulmen_wire::features::Features;
use fulmen_wire::message::Message;
use fulmen_wire::units::{BlockHeight, ChannelId, NodeId, Scid, Signature};
use secp256k1::SecretKey;

use crate::channel::{
    self, Channel, ChannelEvent, Context, Created, Delta, Effects, Htlc, HtlcEntry, Plan, Side, SignJob,
};
use crate::keys::{NodeSeed, secp};
use crate::onion::{Peeled, peel};

use super::config::{ForwardingPolicy, NodeConfig};
use super::deferred::DeferredCommitments;
use super::handoff::{Handoff, HandoffStep, IncomingHtlc, OutgoingHtlc, PaymentPart};
use super::input::{ChannelRef, Command, Confirmation, Input, Now};
use super::output::{Event, Turn};
use super::record::{Change, ChannelEntry, Policies, State};
use super::stats::{CryptoCounters, Occupancy};

/// The blocks after which a peer's channel without a confirmed funding is forgotten: BOLT 2's 2016, and a day for those
/// that confirm at the last moment.
pub(super) const FUNDING_TIMEOUT_BLOCKS: u32 = 2016 + 144;

/// The memory for tables of peers' keys: two tables a channel, so that about 180 channels of a shard may have theirs.
const KEY_TABLES_BYTES: usize = 16 << 20;

/// A set of channels of one node, with the circuits between them.
///
/// Drive it with [`Shard::turn`]: give it everything that happened since the last turn, then make the returned
/// [`Turn::record`] durable, then execute the turn's other parts in their order. Nothing else needs to be called.
#[derive(Debug)]
pub struct Shard {
    pub(super) config: NodeConfig,
    pub(super) seed: NodeSeed,
    pub(super) node_secret: SecretKey,
    pub(super) node_id: NodeId,
    pub(super) state: State,
    /// The peers there is a connection to, with their features.
    pub(super) peers: BTreeMap<NodeId, Features>,
    /// The channels that other shards of the node own.
    pub(super) siblings: BTreeSet<Scid>,
    /// After a restart: the HTLCs offered for other shards whose onions those are to repeat, by what they were offered for.
    pub(super) onions_awaited: BTreeMap<IncomingHtlc, OutgoingHtlc>,
    pub(super) counters: CryptoCounters,
    /// Whether the next turn tells of what is held for the embedder's word: after a restart.
    pub(super) reports_intercepted: bool,
    /// Channels whose peer's next commitment has no keys yet, though its point is known.
    pub(super) keyless: BTreeSet<ChannelId>,
    /// Checks signatures; knows the keys of the busiest channels well.
    pub(super) verifier: Verifier,
    /// Channels whose `commitment_signed` was put off.
    pub(super) deferred: DeferredCommitments,
}

/// A turn while it runs: what it gives back so far, and the steps still to come.
#[derive(Debug)]
pub(super) struct OpenTurn {
    pub(super) now: Now,
    /// What the turn returns.
    pub(super) out: Turn,
    /// HTLCs that became irrevocably committed, in order.
    pub(super) locked_in: Vec<LockedIn>,
    /// Channels with a plan that waits for its signatures to be verified: their state must stay as it is.
    pub(super) awaiting_verification: BTreeSet<ChannelId>,
    /// Received HTLCs whose resolution their channels are still to be told.
    pub(super) resolved: Vec<IncomingHtlc>,
    /// Channels that may have something to commit.
    pub(super) touched: BTreeSet<ChannelId>,
}

/// A channel that is being opened, as the shard sees it.
#[derive(Clone, Copy, Debug)]
pub(super) struct NewChannel {
    pub(super) peer: NodeId,
    pub(super) user_id: u64,
    pub(super) key_index: u64,
    pub(super) policy: ForwardingPolicy,
}

/// A received HTLC that waits for its decision.
#[derive(Debug)]
pub(super) struct LockedIn {
    pub(super) incoming: IncomingHtlc,
    pub(super) htlc: Htlc,
    pub(super) over_dust_exposure: bool,
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
            config,
            peers: BTreeMap::new(),
            siblings: BTreeSet::new(),
            onions_awaited: BTreeMap::new(),
            counters: CryptoCounters::default(),
            reports_intercepted: false,
            keyless: BTreeSet::new(),
            verifier: Verifier::new().with_key_cache(KEY_TABLES_BYTES),
            deferred: DeferredCommitments::default(),
        }
    }

    /// Runs one turn over everything that happened since the last.
    ///
    /// The order is fixed, so that the same inputs give the same turn bit for bit: connections and messages in the
    /// order given, in rounds that verify all signatures of a round at once; blocks; commands and handoffs; timeouts;
    /// the decisions on fresh HTLCs, their onions peeled at once; and last one `commitment_signed` for each channel
    /// that has something to commit and may, all signed at once.
    pub fn turn(&mut self, inputs: impl IntoIterator<Item = Input>, now: Now) -> Turn {
        let mut turn = OpenTurn {
            now,
            out: Turn::default(),
            locked_in: Vec::new(),
            resolved: Vec::new(),
            awaiting_verification: BTreeSet::new(),
            touched: BTreeSet::new(),
        };
        let sorted = Sorted::new(inputs);
        self.supply_repeated_onions(&sorted.handoffs);
        self.report_intercepted(&mut turn);
        self.run_messages(&mut turn, sorted.of_peers);
        self.remove_resolved(&mut turn);
        for (height, confirmations) in sorted.blocks {
            self.connect_block(&mut turn, height, &confirmations);
        }
        if let Some(siblings) = sorted.siblings {
            self.siblings = siblings.into_iter().collect();
        }
        self.siblings.extend(sorted.new_siblings);
        for command in sorted.commands {
            self.command(&mut turn, command);
        }
        for handoff in sorted.handoffs {
            self.handoff(&mut turn, handoff);
        }
        self.expire(&mut turn);
        self.decide(&mut turn);
        self.remove_resolved(&mut turn);
        self.defer_commitments(&mut turn, sorted.ticked);
        self.sign_commitments(&mut turn);
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

    /// When this shard wants a turn for the sake of time alone, be it one without inputs: something waits until then, and
    /// would otherwise wait until the next [`Input::Tick`].
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
            let htlc = self.state.received_htlc(incoming)?;
            let packet = htlc.onion_routing_packet.as_ref()?;
            match peel(&self.node_secret, packet, &htlc.payment_hash.0) {
                Ok(Peeled::Forward { next_packet, .. }) => {
                    let onion = next_packet.into_bytes();
                    Some(Handoff { incoming, step: HandoffStep::Offer { offer, onion } })
                }
                _ => None,
            }
        });
        let received = self.state.circuits.unresolved_parts().filter_map(|incoming| {
            let htlc = self.state.received_htlc(incoming)?;
            let packet = htlc.onion_routing_packet.as_ref()?;
            let (amount, cltv_expiry, payment_hash) = (htlc.amount, htlc.cltv_expiry, htlc.payment_hash);
            match peel(&self.node_secret, packet, &payment_hash.0) {
                Ok(Peeled::Final { payload, .. }) => {
                    let part = PaymentPart { amount, cltv_expiry, payment_hash, payload };
                    Some(Handoff { incoming, step: HandoffStep::Part(part) })
                }
                _ => None,
            }
        });
        offers.chain(received).chain(self.state.circuits.unacked_resolutions())
    }

    pub(super) fn context(&self) -> Context {
        Context { height: self.state.height, feerate: self.config.feerate }
    }

    /// Changes the state, and puts the change on record.
    pub(super) fn change(&mut self, turn: &mut OpenTurn, change: Change) {
        self.state.apply(&change);
        turn.out.record.changes.push(change);
    }

    /// Applies a plan whose checks have passed, making the signatures it needs.
    pub(super) fn apply_plan(&mut self, turn: &mut OpenTurn, channel_id: ChannelId, plan: Plan) {
        let signatures: Vec<Signature> = plan.sign.iter().map(SignJob::sign).collect();
        self.counters.ecdsa_signed += signatures.len() as u64;
        self.apply_signed(turn, channel_id, plan, &signatures);
    }

    pub(super) fn apply_signed(
        &mut self,
        turn: &mut OpenTurn,
        channel_id: ChannelId,
        plan: Plan,
        signatures: &[Signature],
    ) {
        assert!(
            !turn.awaiting_verification.contains(&channel_id),
            "a plan waits that was made on this very state"
        );
        let Some(entry) = self.state.channels.get_mut(&channel_id) else {
            debug_assert!(false, "plans are made for channels of this shard");
            return;
        };
        if plan.deltas.iter().any(|delta| matches!(delta, Delta::RevocationReceived { .. })) {
            self.keyless.insert(channel_id);
        }
        let deltas = plan.deltas.iter().cloned();
        turn.out.record.changes.extend(deltas.map(|delta| Change::Channel { channel_id, delta }));
        let effects = entry.channel.apply(plan, signatures);
        let peer = entry.peer;
        self.absorb(turn, channel_id, peer, effects);
    }

    /// Takes in a channel just made.
    pub(super) fn begin_channel(&mut self, turn: &mut OpenTurn, new_channel: NewChannel, created: Created) {
        let Created { channel, deltas, effects } = created;
        let NewChannel { peer, user_id, key_index, policy } = new_channel;
        let channel_id = channel.id();
        self.change(turn, Change::ChannelBegun { channel_id, peer, user_id, key_index, policy });
        let deltas = deltas.into_iter().map(|delta| Change::Channel { channel_id, delta });
        turn.out.record.changes.extend(deltas);
        let begun_at = self.state.height;
        let policies = Policies::new(policy);
        let entry = ChannelEntry { peer, user_id, key_index, policies, begun_at, channel };
        self.state.channels.insert(channel_id, entry);
        self.absorb(turn, channel_id, peer, effects);
    }

    /// Takes up what applying a plan brought about.
    pub(super) fn absorb(
        &mut self,
        turn: &mut OpenTurn,
        channel_id: ChannelId,
        peer: NodeId,
        effects: Effects,
    ) {
        turn.touched.insert(channel_id);
        turn.out.send.extend(effects.send.into_iter().map(|message| (peer, message)));
        turn.out.broadcast.extend(effects.broadcast);
        let mut channel_id = channel_id;
        for event in effects.events {
            if let ChannelEvent::IdAssigned { channel_id: permanent } = event {
                self.name_channel(turn, channel_id, permanent);
                channel_id = permanent;
            } else {
                self.channel_event(turn, channel_id, peer, event);
            }
        }
    }

    fn name_channel(&mut self, turn: &mut OpenTurn, temporary_channel_id: ChannelId, channel_id: ChannelId) {
        self.change(turn, Change::ChannelNamed { temporary_channel_id, channel_id });
        turn.touched.remove(&temporary_channel_id);
        turn.touched.insert(channel_id);
        // As opener we have an id before the peer has signed, and so no funded channel yet.
        self.report_funded(turn, channel_id);
    }

    fn report_funded(&self, turn: &mut OpenTurn, channel_id: ChannelId) {
        let Some(entry) = self.state.channels.get(&channel_id) else { return };
        if let Some(funding_outpoint) = entry.channel.funding_outpoint() {
            let (user_id, peer) = (entry.user_id, entry.peer);
            turn.out.events.push(Event::ChannelFunded { channel_id, user_id, peer, funding_outpoint });
        }
    }

    fn channel_event(
        &mut self,
        turn: &mut OpenTurn,
        channel_id: ChannelId,
        peer: NodeId,
        event: ChannelEvent,
    ) {
        let incoming = |htlc_id| IncomingHtlc { channel_id, htlc_id };
        let outgoing = |htlc_id| OutgoingHtlc { channel_id, htlc_id };
        match event {
            ChannelEvent::AddLockedIn { htlc, over_dust_exposure } => {
                turn.locked_in.push(LockedIn { incoming: incoming(htlc.id), htlc, over_dust_exposure });
            }
            ChannelEvent::Fulfilled { id, preimage } => self.outgoing_fulfilled(turn, outgoing(id), preimage),
            ChannelEvent::AddDropped { id } => self.outgoing_dropped(turn, outgoing(id)),
            ChannelEvent::FailLockedIn { id, removal } => self.outgoing_failed(turn, outgoing(id), removal),
            ChannelEvent::FulfillLockedIn { .. } | ChannelEvent::ShutdownStarted => {}
            ChannelEvent::RemovalLockedIn { id, .. } => {
                self.change(turn, Change::CircuitClosed { incoming: incoming(id) });
            }
            ChannelEvent::Ready { scid } => {
                self.change(turn, Change::ChannelReady { channel_id, scid });
                turn.out.events.push(Event::ChannelReady { channel_id, scid, peer });
            }
            ChannelEvent::FundingNeeded { script_pubkey, amount } => {
                let user_id = self.state.channels.get(&channel_id).map_or(0, |entry| entry.user_id);
                let (temporary_channel_id, script) = (channel_id, script_pubkey.into());
                turn.out.events.push(Event::FundingNeeded {
                    temporary_channel_id,
                    user_id,
                    peer,
                    amount,
                    script,
                });
            }
            ChannelEvent::FundingBroadcast { transaction } => {
                turn.out.broadcast.push(transaction);
                self.report_funded(turn, channel_id);
            }
            ChannelEvent::Closed { transaction } => {
                turn.out.events.push(Event::ChannelClosed { channel_id, transaction });
            }
            ChannelEvent::Failed { error, broadcast_allowed } => {
                turn.out.events.push(Event::ChannelFailed {
                    channel_id,
                    peer,
                    error: Box::new(error),
                    broadcast_allowed,
                });
                self.forget_unfunded(turn, channel_id);
            }
            ChannelEvent::IdAssigned { .. } => debug_assert!(false, "taken care of by the caller"),
        }
    }

    /// Forgets a failed channel that holds nobody's money.
    fn forget_unfunded(&mut self, turn: &mut OpenTurn, channel_id: ChannelId) {
        if self
            .state
            .channels
            .get(&channel_id)
            .is_some_and(|entry| entry.channel.funding_outpoint().is_none())
        {
            self.change(turn, Change::ChannelForgotten { channel_id });
            turn.touched.remove(&channel_id);
        }
    }

    fn connect_block(&mut self, turn: &mut OpenTurn, height: BlockHeight, confirmations: &[Confirmation]) {
        if height != self.state.height {
            self.change(turn, Change::Height(height));
        }
        for confirmation in confirmations {
            self.confirm(turn, confirmation);
        }
        self.forget_unconfirmed(turn);
        self.drop_late_additions(turn);
    }

    /// Gives up the HTLCs that were offered but could not be signed until their expiry came too near: the peer was slow
    /// to answer, or away. Signed later they might be claimed when those they were offered for have timed out.
    fn drop_late_additions(&mut self, turn: &mut OpenTurn) {
        let near = self.state.height.saturating_add(self.config.expiry.outgoing_min);
        let is_late = |entry: &HtlcEntry| {
            entry.offered_by == Side::Local
                && entry.added == channel::Stage::Proposed
                && entry.htlc.cltv_expiry <= near
        };
        let late = self.state.channels.iter().filter(|(_, entry)| entry.channel.htlcs().any(is_late));
        let late: Vec<(ChannelId, NodeId)> =
            late.map(|(channel_id, entry)| (*channel_id, entry.peer)).collect();
        for (channel_id, peer) in late {
            let is_connected =
                self.state.channels.get(&channel_id).is_some_and(|entry| entry.channel.is_connected());
            if is_connected {
                self.drop_peer(turn, peer);
            }
            self.command_channel_if_possible(turn, channel_id, channel::Command::DropAdditions);
        }
    }

    /// The channels that peers opened and whose funding was not seen to confirm.
    pub(super) fn unconfirmed(&self) -> impl Iterator<Item = (&ChannelId, &ChannelEntry)> {
        self.state.channels.iter().filter(|(_, entry)| entry.is_unconfirmed())
    }

    /// Forgets the channels whose funding has not confirmed in the time that BOLT 2 gives it (`channel_ready`).
    fn forget_unconfirmed(&mut self, turn: &mut OpenTurn) {
        let height = self.state.height;
        // A channel begun before the first block was told has no age yet.
        let over = |entry: &ChannelEntry| {
            entry.begun_at > BlockHeight(0) && height.blocks_above(entry.begun_at) > FUNDING_TIMEOUT_BLOCKS
        };
        let over: Vec<ChannelId> =
            self.unconfirmed().filter(|(_, entry)| over(entry)).map(|(channel_id, _)| *channel_id).collect();
        for channel_id in over {
            let reason = format!("the funding has not confirmed within {FUNDING_TIMEOUT_BLOCKS} blocks");
            self.command_channel_if_possible(turn, channel_id, channel::Command::Fail { reason });
            if self.state.channels.contains_key(&channel_id) {
                self.change(turn, Change::ChannelForgotten { channel_id });
            }
            turn.touched.remove(&channel_id);
        }
    }

    /// Gives up what has waited too long.
    fn expire(&mut self, turn: &mut OpenTurn) {
        self.expire_sets(turn);
        self.expire_intercepted(turn);
        if self.state.receiver.has_expired(turn.now) {
            self.change(turn, Change::ExpectedPaymentsPruned(turn.now));
        }
    }

    /// Tells a peer something.
    pub(super) fn send(&self, turn: &mut OpenTurn, peer: NodeId, message: impl Into<Message>) {
        turn.out.send.push((peer, message.into()));
    }
}

/// The inputs of a turn by kind, each kind in the order given.
#[derive(Default)]
struct Sorted {
    of_peers: Vec<PeerInput>,
    blocks: Vec<(BlockHeight, Vec<Confirmation>)>,
    siblings: Option<Vec<Scid>>,
    new_siblings: Vec<Scid>,
    commands: Vec<Command>,
    handoffs: Vec<Handoff>,
    ticked: bool,
}

/// What happened on one connection.
#[derive(Debug)]
pub(super) struct PeerInput {
    pub(super) peer: NodeId,
    pub(super) what: PeerEvent,
}

/// The kinds of [`PeerInput`].
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "nearly all of them are messages: boxing each would cost more")]
pub(super) enum PeerEvent {
    Connected(Features),
    Disconnected,
    Message(Message),
}

impl Sorted {
    fn new(inputs: impl IntoIterator<Item = Input>) -> Sorted {
        let mut sorted = Sorted::default();
        for input in inputs {
            match input {
                Input::PeerConnected { peer, features } => {
                    sorted.of_peers.push(PeerInput { peer, what: PeerEvent::Connected(features) });
                }
                Input::PeerDisconnected { peer } => {
                    sorted.of_peers.push(PeerInput { peer, what: PeerEvent::Disconnected });
                }
                Input::Message { peer, message } => {
                    sorted.of_peers.push(PeerInput { peer, what: PeerEvent::Message(message) });
                }
                Input::Command(command) => sorted.commands.push(command),
                Input::Block { height, confirmations } => sorted.blocks.push((height, confirmations)),
                Input::Handoff(handoff) => sorted.handoffs.push(handoff),
                Input::SiblingChannels(scids) => sorted.siblings = Some(scids),
                Input::SiblingChannel(scid) => sorted.new_siblings.push(scid),
                Input::Tick => sorted.ticked = true,
                Input::Wake => {}
            }
        }
        sorted
    }
}
