//! Messages of peers, routed to their channels in rounds (BOLT 1 `error`, `warning`, `ping`; BOLT 2).
//!
//! Owns the rounds: the messages of a round are planned, the signatures all plans depend on are verified as one batch,
//! and the plans are applied. A channel whose plan waits for the batch defers its later messages, and its peer's later
//! connection changes, to the next round. Does not know what a channel's messages mean.
//!
//! Invariant: the messages of one channel take effect in the order they came, each on the state the earlier ones left.
//! A bad signature fails its own channel only.

use std::collections::BTreeSet;
use std::ops::Range;

use bitcoin::hashes::Hash;
use fulmen_secp::Batch;
use fulmen_wire::features::Features;
use fulmen_wire::message::{ChannelUpdate, ErrorMessage, Message, OpenChannel, Warning};
use fulmen_wire::units::{ChannelId, NodeId, Txid};

use crate::channel::{
    self, AcceptRequest, Channel, ChannelError, Delta, Plan, Reaction, Side, channel_type_from_features,
};
use crate::commitment::ChannelType;
use crate::keys::ChannelSecrets;

use super::open_turn::{NewChannel, OpenTurn};
use super::output::Event;
use crate::forward::shard::Shard;
use crate::forward::terms::ids::OutgoingHtlc;
use crate::forward::terms::input::{PeerEvent, PeerInput};
use crate::forward::terms::peer::channel_features;

/// The channel id that means all channels of the peer.
const ALL_CHANNELS: ChannelId = ChannelId([0; 32]);

/// The channels that are sent a `commitment_signed`.
fn signed(inputs: &[PeerInput]) -> BTreeSet<ChannelId> {
    let message = |input: &PeerInput| match &input.event {
        PeerEvent::Message(Message::CommitmentSigned(message)) => Some(message.channel_id),
        _ => None,
    };
    inputs.iter().filter_map(message).collect()
}

/// One round of a turn.
#[derive(Default)]
struct Round {
    batch: Batch,
    /// Plans that wait for the batch.
    pending: Vec<PendingVerification>,
    /// Channels that have a plan waiting, or a message deferred.
    channels: BTreeSet<ChannelId>,
    /// Peers of such channels, whose connection changes have to wait.
    peers: BTreeSet<NodeId>,
    /// Peers with a connection change deferred, all of whose messages have to wait.
    barriers: BTreeSet<NodeId>,
    /// Peers to be dropped once the plans that wait are applied, each on the state it was made on.
    dropped: Vec<NodeId>,
    deferred: Vec<PeerInput>,
}

struct PendingVerification {
    channel_id: ChannelId,
    plan: Plan,
    jobs: Range<usize>,
}

impl Round {
    fn must_wait(&self, input: &PeerInput) -> bool {
        match &input.event {
            PeerEvent::Connected(_) | PeerEvent::Disconnected => self.peers.contains(&input.peer),
            PeerEvent::Message(message) => {
                // An error may name a channel by its temporary id: it waits for all of the peer's.
                let all = matches!(message, Message::ErrorMessage(_))
                    || message.channel_id().is_none_or(|channel_id| channel_id == ALL_CHANNELS);
                self.barriers.contains(&input.peer)
                    || (all && self.peers.contains(&input.peer))
                    || message.channel_id().is_some_and(|channel_id| self.channels.contains(&channel_id))
            }
        }
    }

    /// Adds the checks of a plan to the batch; the range finds their verdicts.
    fn add_jobs(&mut self, plan: &Plan) -> Range<usize> {
        let jobs = plan.verify.iter().copied();
        match plan.verify_by {
            None => self.batch.extend(jobs),
            Some(from) => {
                let first = self.batch.extend(jobs.clone().take(1));
                let others = self.batch.extend_derived(jobs.skip(1), from);
                first.start..others.end
            }
        }
    }

    fn defer(&mut self, input: PeerInput) {
        self.peers.insert(input.peer);
        if !matches!(input.event, PeerEvent::Message(_)) {
            self.barriers.insert(input.peer);
        }
        self.deferred.push(input);
    }
}

impl Shard {
    /// Runs rounds until no input of a peer is left. Each round applies at least one plan or defers nothing.
    pub(crate) fn run_messages(&mut self, turn: &mut OpenTurn, inputs: Vec<PeerInput>) {
        let mut inputs = inputs;
        while !inputs.is_empty() {
            let mut round = Round::default();
            self.derive_keys(&signed(&inputs), Side::Local);
            for input in inputs {
                if round.must_wait(&input) {
                    round.defer(input);
                    continue;
                }
                let PeerInput { peer, event } = input;
                match event {
                    PeerEvent::Connected(features) => self.connect(turn, peer, features),
                    PeerEvent::Disconnected => self.disconnect(turn, peer),
                    PeerEvent::Message(message) => self.message(turn, &mut round, peer, message),
                }
            }
            self.finish_round(turn, &mut round);
            inputs = round.deferred;
        }
        self.drop_refused(turn);
    }

    /// Ends the connections of the peers that too many bytes wait for.
    fn drop_refused(&mut self, turn: &mut OpenTurn) {
        for peer in turn.sent.take_refused() {
            if self.peers.contains_key(&peer) {
                tracing::debug!(%peer, "connection ended: too many bytes wait for the peer");
                self.drop_peer(turn, peer);
            }
        }
    }

    /// Verifies all signatures of a round at once, and applies the plans that depended on them.
    fn finish_round(&mut self, turn: &mut OpenTurn, round: &mut Round) {
        if round.pending.is_empty() {
            return;
        }
        self.counters.ecdsa_verified += round.batch.len() as u64;
        let verdicts = self.verifier.verify_batch(&round.batch);
        for PendingVerification { channel_id, plan, jobs } in std::mem::take(&mut round.pending) {
            turn.awaiting_verification.remove(&channel_id);
            match jobs.clone().position(|job| !verdicts.is_valid(job)) {
                None => match self.taken_funding(&plan) {
                    None => self.apply_plan(turn, channel_id, plan),
                    Some(error) => self.react(turn, round, channel_id, &error),
                },
                Some(index) => self.react(turn, round, channel_id, &plan.bad_signature(index)),
            }
        }
        for peer in std::mem::take(&mut round.dropped) {
            self.drop_peer(turn, peer);
        }
    }

    /// The error if a plan would fund a channel with an output that is another's: both would have the same id, and the
    /// other would be lost.
    fn taken_funding(&self, plan: &Plan) -> Option<ChannelError> {
        plan.deltas.iter().find_map(|delta| {
            let Delta::FundingCreatedReceived { outpoint, .. } = delta else { return None };
            let output = u16::try_from(outpoint.vout).ok()?;
            let channel_id = ChannelId::from_funding(Txid(outpoint.txid.to_byte_array()), output);
            self.state
                .channels
                .contains_key(&channel_id)
                .then_some(ChannelError::FundingOutpointTaken(*outpoint))
        })
    }

    /// Reacts to a channel's error: ignores it, warns and disconnects, or fails the channel.
    fn react(&mut self, turn: &mut OpenTurn, round: &mut Round, channel_id: ChannelId, error: &ChannelError) {
        let Some(entry) = self.state.channels.get(&channel_id) else { return };
        let peer = entry.peer;
        tracing::debug!(%channel_id, %peer, %error, "peer's message refused");
        let reaction = entry.channel.reaction(error);
        let plan = entry.channel.plan_reaction(error);
        self.apply_plan(turn, channel_id, plan);
        if reaction == Reaction::Warn {
            if round.peers.contains(&peer) {
                // A disconnection would change the state that a waiting plan of another channel was made on.
                round.barriers.insert(peer);
                round.dropped.push(peer);
            } else {
                self.drop_peer(turn, peer);
            }
        }
    }

    /// Breaks the connection to a peer: its messages are ignored until it is connected again.
    pub(crate) fn drop_peer(&mut self, turn: &mut OpenTurn, peer: NodeId) {
        self.end_connection(turn, peer);
        turn.out.disconnect.push(peer);
    }

    pub(crate) fn channels_of(&self, peer: NodeId) -> Vec<ChannelId> {
        self.state.channels.of(peer).collect()
    }

    fn connect(&mut self, turn: &mut OpenTurn, peer: NodeId, features: Features) {
        if self.peers.contains_key(&peer) {
            // The transport replaced the connection without saying that the old one broke.
            self.disconnect(turn, peer);
        }
        let awaits_onion = |outgoing: &OutgoingHtlc| {
            self.state.channels.get(&outgoing.channel_id).is_some_and(|entry| {
                entry.peer == peer && entry.channel.missing_onions().any(|id| id == outgoing.htlc_id)
            })
        };
        if self.onions_awaited.values().any(awaits_onion) {
            // An onion to be sent again is still missing; the peer will reconnect.
            turn.out.disconnect.push(peer);
            return;
        }
        let negotiated = channel_features(&features);
        self.peers.insert(peer, features);
        for channel_id in self.channels_of(peer) {
            let connected = channel::ChannelCommand::Connected { features: negotiated };
            self.command_channel_if_possible(turn, channel_id, connected);
        }
    }

    /// The connection to a peer broke. The turn's messages to it are dropped: the peer may be connected
    /// again in this very turn, and on a new connection nothing may come before its reestablishment.
    fn disconnect(&mut self, turn: &mut OpenTurn, peer: NodeId) {
        turn.out.send.retain(|(to, _)| *to != peer);
        turn.sent.forget(peer);
        self.end_connection(turn, peer);
    }

    fn end_connection(&mut self, turn: &mut OpenTurn, peer: NodeId) {
        if self.peers.remove(&peer).is_none() {
            return;
        }
        self.pongs.forget(peer);
        for channel_id in self.channels_of(peer) {
            self.deferred.drop_revocation(channel_id);
            self.announcer.end_connection(channel_id);
            self.command_channel_if_possible(turn, channel_id, channel::ChannelCommand::Disconnected);
            self.withdraw_unsigned(turn, channel_id);
        }
    }

    /// Fails the HTLCs that we offered to a peer without a connection and never signed: it has forgotten them (BOLT 2,
    /// "Message Retransmission"), and may not return before they expire. One that some `commitment_signed` of ours
    /// covers is not touched, nor one that an old copy of our state does not know to be covered.
    pub(crate) fn withdraw_unsigned(&mut self, turn: &mut OpenTurn, channel_id: ChannelId) {
        let entry = self.state.channels.get(&channel_id);
        if entry.is_some_and(|entry| entry.channel.has_unsigned_additions() && !entry.in_doubt) {
            self.command_channel_if_possible(turn, channel_id, channel::ChannelCommand::DropAdditions);
        }
    }

    /// Has a channel carry out a command that it may refuse in its present state, which changes nothing.
    pub(crate) fn command_channel_if_possible(
        &mut self,
        turn: &mut OpenTurn,
        channel_id: ChannelId,
        command: channel::ChannelCommand,
    ) {
        let Some(entry) = self.state.channels.get(&channel_id) else { return };
        match entry.channel.plan_command(&command) {
            Ok(plan) => self.apply_plan(turn, channel_id, plan),
            Err(error) => tracing::debug!(%channel_id, %error, "command refused"),
        }
    }

    fn message(&mut self, turn: &mut OpenTurn, round: &mut Round, peer: NodeId, message: Message) {
        if !self.peers.contains_key(&peer) || turn.sent.refuses(peer, &message, self.config.send_bytes) {
            return;
        }
        match message {
            Message::Ping(ping) => {
                if let Some(pong) = ping.pong()
                    && self.pongs.allows(peer, turn.now, &pong)
                {
                    self.send(turn, peer, pong);
                }
            }
            // The connection's owner exchanged `init`; a second one changes nothing (BOLT 1 allows to ignore it).
            Message::Init(_) | Message::Pong(_) | Message::Unknown { .. } => {}
            Message::Warning(warning) => {
                turn.out.events.push(Event::PeerWarning { peer, text: warning.text() });
            }
            Message::ErrorMessage(error) => self.peer_error(turn, round, peer, error),
            Message::OpenChannel(open) => self.accept_channel(turn, peer, open),
            Message::ChannelUpdate(update) => self.channel_update_message(turn, round, peer, update),
            message => match message.channel_id() {
                Some(channel_id) => self.channel_message(turn, round, peer, channel_id, message),
                None => turn.out.events.push(Event::Gossip { peer, message: Box::new(message) }),
            },
        }
    }

    fn channel_message(
        &mut self,
        turn: &mut OpenTurn,
        round: &mut Round,
        peer: NodeId,
        channel_id: ChannelId,
        message: Message,
    ) {
        let known = self.state.channels.get(&channel_id).filter(|entry| entry.peer == peer);
        let Some(entry) = known else {
            return self.refuse_channel(
                turn,
                peer,
                channel_id,
                &format!("{}: unknown channel", message.name()),
            );
        };
        let checked = match &message {
            Message::UpdateFee(update) => {
                self.check_peer_feerate(entry.channel.channel_type(), update.feerate_per_kw)
            }
            _ => Ok(()),
        };
        match checked.and_then(|()| entry.channel.plan(&message, &self.context())) {
            Err(error) => self.react(turn, round, channel_id, &error),
            Ok(plan) if plan.verify.is_empty() => {
                self.apply_plan(turn, channel_id, plan);
                self.announcing_message(turn, round, channel_id, &message);
            }
            Ok(plan) => {
                let jobs = round.add_jobs(&plan);
                round.channels.insert(channel_id);
                turn.awaiting_verification.insert(channel_id);
                round.peers.insert(peer);
                round.pending.push(PendingVerification { channel_id, plan, jobs });
            }
        }
    }

    /// Has announcing take part in a message that its channel has accepted.
    fn announcing_message(
        &mut self,
        turn: &mut OpenTurn,
        round: &mut Round,
        channel_id: ChannelId,
        message: &Message,
    ) {
        match message {
            Message::AnnouncementSignatures(signatures) => {
                if let Err(error) = self.take_peer_signatures(turn, channel_id, signatures) {
                    self.react(turn, round, channel_id, &error);
                }
            }
            Message::ChannelReady(ready) => self.take_alias(turn, channel_id, ready),
            Message::ChannelReestablish(_) => self.announcer.mark(channel_id),
            _ => {}
        }
    }

    /// An update of a peer: about its channel with us, for the graph, or both.
    fn channel_update_message(
        &mut self,
        turn: &mut OpenTurn,
        round: &mut Round,
        peer: NodeId,
        update: ChannelUpdate,
    ) {
        let channel_id = self.updated_by_peer(peer, &update);
        if let Some(channel_id) = channel_id
            && let Err(error) = self.take_peer_update(turn, channel_id, &update)
        {
            return self.react(turn, round, channel_id, &error);
        }
        if channel_id.is_none() || !update.dont_forward() {
            turn.out.events.push(Event::Gossip { peer, message: Box::new(update.into()) });
        }
    }

    /// Answers a message about an unknown channel. An error about all of its channels would fail those there are.
    fn refuse_channel(&self, turn: &mut OpenTurn, peer: NodeId, channel_id: ChannelId, text: &str) {
        if channel_id == ALL_CHANNELS {
            self.send(turn, peer, Warning::new(channel_id, text));
        } else {
            self.send(turn, peer, ErrorMessage::new(channel_id, text));
        }
    }

    /// A peer fails a channel, or all it has with us (BOLT 1).
    fn peer_error(&mut self, turn: &mut OpenTurn, round: &mut Round, peer: NodeId, error: ErrorMessage) {
        let meant = |channel_id: &ChannelId| {
            let channel = self.state.channels.get(channel_id).map(|entry| &entry.channel);
            error.channel_id == ALL_CHANNELS
                || channel.is_some_and(|channel| channel.answers_to(error.channel_id))
        };
        let channels: Vec<ChannelId> = self.channels_of(peer).into_iter().filter(meant).collect();
        if channels.is_empty() {
            turn.out.events.push(Event::PeerWarning { peer, text: error.text() });
        }
        let context = self.context();
        let message = Message::ErrorMessage(error);
        for channel_id in channels {
            let Some(entry) = self.state.channels.get(&channel_id) else { continue };
            // One that is closed by agreement has nothing left to fail.
            if let Err(error) = entry.channel.plan(&message, &context) {
                self.react(turn, round, channel_id, &error);
            }
        }
    }

    /// The reason why a peer may not open a channel now, its terms aside.
    fn refusal_of_opening(&self, peer: NodeId, open: &OpenChannel) -> Option<String> {
        let (channel_id, config) = (open.temporary_channel_id, &self.config);
        if self.state.channels.contains_key(&channel_id) || channel_id == ALL_CHANNELS {
            return Some("temporary_channel_id is taken".to_owned());
        }
        let of_peer = self.channels_of(peer);
        if of_peer.len() >= config.channels_per_peer_max {
            return Some("too many channels".to_owned());
        }
        let entries = || of_peer.iter().filter_map(|channel_id| self.state.channels.get(channel_id));
        if entries().filter(|entry| entry.is_unfunded()).count() >= config.unfunded_channels_per_peer_max {
            return Some("too many channels are being opened".to_owned());
        }
        let is_known = entries().any(|entry| entry.channel.scid().is_some());
        if entries().filter(|entry| entry.is_unconfirmed()).count()
            >= config.unconfirmed_channels_per_peer_max
            || (!is_known && self.unconfirmed().count() >= config.unconfirmed_channels_max)
        {
            return Some("too many channels wait for their funding to confirm".to_owned());
        }
        let (capacity, max) = (open.funding_satoshis, config.capacity_max);
        if capacity > max {
            return Some(format!("funding of {capacity} is above {max}"));
        }
        let channel_type = open.channel_type.as_ref().and_then(channel_type_from_features);
        if config.anchors_only && channel_type == Some(ChannelType::StaticRemotekey) {
            return Some("channels without anchors are not accepted".to_owned());
        }
        let checked = self.check_peer_feerate(channel_type, open.feerate_per_kw);
        checked.err().map(|error| error.to_string())
    }

    /// Answers a peer that opens a channel with us.
    fn accept_channel(&mut self, turn: &mut OpenTurn, peer: NodeId, open: OpenChannel) {
        let channel_id = open.temporary_channel_id;
        if let Some(text) = self.refusal_of_opening(peer, &open) {
            return self.refuse_channel(turn, peer, channel_id, &text);
        }
        let key_index = self.state.next_key_index;
        let request = AcceptRequest {
            config: self.config.channel.clone(),
            features: self.peers.get(&peer).map(channel_features).unwrap_or_default(),
            secrets: ChannelSecrets::derive(&self.seed, key_index),
        };
        match Channel::accept(&open, request) {
            Ok(created) => {
                let new_channel = NewChannel { peer, user_id: 0, key_index, policy: self.config.policy };
                self.begin_channel(turn, new_channel, created);
            }
            Err(error) => {
                self.send(turn, peer, ErrorMessage::new(channel_id, &error.to_string()));
                turn.out.events.push(Event::ChannelFailed {
                    channel_id,
                    peer,
                    error: Box::new(error),
                    broadcast_allowed: false,
                });
            }
        }
    }
}
