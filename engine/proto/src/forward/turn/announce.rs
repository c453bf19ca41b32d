//! Announcing channels (BOLT 7): the exchange of `announcement_signatures`, our `channel_update`s, and the peer's.
//!
//! Owns the step of a turn that looks at channels whose announcements may have changed: after a block with their
//! funding, a connection, `channel_ready`, a new policy, a shutdown, and every minute for the passing of time. It does
//! nothing for HTLCs. What other nodes are to learn leaves as [`Event::OwnGossip`]. Does not build updates
//! (`channel_update`), nor announce the node (`announce_node`).
//!
//! Order. Signatures are sent once the funding output has six confirmations, once a connection, until both sides' are
//! exchanged, and whenever the peer sends its own. An announcement is public from then on. Until then, and in private
//! channels for ever, our updates go to the peer alone and say so (`dont_forward`).
//!
//! Invariants: nothing is signed before the chain is in step, nor for a place that the funding output does not have;
//! `timestamp`s of a channel's updates rise, over restarts too, since each update is in a record before it leaves.

use fulmen_wire::message::{AnnouncementSignatures, ChannelReady, ChannelUpdate, Direction, Message};
use fulmen_wire::units::{ChannelId, NodeId, Scid};
use secp256k1::PublicKey;

use super::channel_update::{UpdateTerms, is_refresh_due, same_terms, timestamp_after};
use super::open_turn::OpenTurn;
use super::output::Event;
use crate::channel::{AnnouncingNodes, ChannelError, Reaction, State, digest};
use crate::forward::shard::Shard;
use crate::forward::state::announcing::PeerForwardingPolicy;
use crate::forward::state::change::Change;
use crate::forward::state::channels::ChannelEntry;
use crate::forward::terms::time::Now;
use crate::keys::{sign, verify};

/// Channels looked at in a turn, so that a start with thousands of them holds up no HTLC: each takes at most four
/// signatures.
const CHANNELS_PER_TURN: usize = 16;
/// How often all channels are looked over for the passing of time, in milliseconds.
const SWEEP_MS: u64 = 60_000;
/// How far ahead of the present a peer's `timestamp` may be, in seconds.
const FUTURE_MAX_SECONDS: u32 = 24 * 60 * 60;

impl Shard {
    /// Looks at the channels whose announcements may have changed.
    pub(crate) fn announce(&mut self, turn: &mut OpenTurn) {
        if !self.in_step {
            return;
        }
        self.sweep(turn.now);
        for _ in 0..CHANNELS_PER_TURN {
            if !self.announcer.may_publish(turn.now) {
                break;
            }
            let Some(channel_id) = self.announcer.take() else { break };
            self.announce_channel(turn, channel_id);
        }
        self.announce_node(turn);
    }

    /// Finds the channels whose announcements are due for the passing of time; in the first turn, all of them.
    fn sweep(&mut self, now: Now) {
        let is_first = self.announcer.swept.is_none();
        // A clock that was set back must not hold up the next sweep.
        let is_recent = |at: Now| at <= now && now.unix_ms - at.unix_ms < SWEEP_MS;
        if self.announcer.swept.is_some_and(is_recent) {
            return;
        }
        let refresh_ms = self.config.announcement_refresh_ms;
        let is_due = |channel_id: &ChannelId, entry: &ChannelEntry| {
            let Some(update) = &entry.announcements.update else { return false };
            let is_away = self.announcer.away_ms(*channel_id, now) >= self.config.disable_after_ms;
            !update.dont_forward()
                && entry.channel.state() == State::Normal
                && (is_refresh_due(update.timestamp, now, refresh_ms) || (is_away && !update.is_disabled()))
        };
        let channels = self.state.channels.iter();
        let due = channels.filter(|(channel_id, entry)| is_first || is_due(channel_id, entry));
        let due: Vec<ChannelId> = due.map(|(channel_id, _)| *channel_id).collect();
        due.into_iter().for_each(|channel_id| self.announcer.mark(channel_id));
        self.announcer.swept = Some(now);
        self.announcer.node_due = true;
    }

    fn announce_channel(&mut self, turn: &mut OpenTurn, channel_id: ChannelId) {
        let Some(entry) = self.state.channels.get(&channel_id) else {
            return self.announcer.forget(channel_id);
        };
        if entry.channel.scid().is_none() {
            return;
        }
        self.announcer.note_presence(channel_id, entry.channel.is_connected(), turn.now);
        self.exchange_signatures(turn, channel_id);
        self.update_channel(turn, channel_id);
        self.publish(turn, channel_id);
    }

    /// Sends our `announcement_signatures` if BOLT 7 asks for them on this connection.
    fn exchange_signatures(&mut self, turn: &mut OpenTurn, channel_id: ChannelId) {
        let height = self.state.height;
        let may_be_announced =
            |entry: &&ChannelEntry| entry.channel.may_be_announced(height) && entry.channel.is_connected();
        if self.state.channels.get(&channel_id).filter(may_be_announced).is_none() {
            return;
        }
        if let Some(early) = self.announcer.link(channel_id).early.take()
            && let Err(error) = self.take_peer_signatures(turn, channel_id, &early)
        {
            // That they are for another place was said when they came.
            if self.reaction(channel_id, &error) == Reaction::Warn {
                self.refuse_announcement(turn, channel_id, &error);
            }
        }
        let Some(entry) = self.state.channels.get(&channel_id).filter(may_be_announced) else { return };
        let Some(scid) = entry.channel.scid() else { return };
        let was_public = entry.announcements.is_public_at(scid);
        let link = self.announcer.link(channel_id);
        if link.signatures_sent == Some(scid) || (was_public && !link.signatures_received) {
            return;
        }
        let (peer, nodes) = (entry.peer, self.nodes(entry.peer));
        let Some(signatures) = entry.channel.announcement_signatures(nodes) else { return };
        self.counters.ecdsa_signed += 2;
        self.announcer.link(channel_id).signatures_sent = Some(scid);
        self.send(turn, peer, signatures);
    }

    /// Takes the peer's `announcement_signatures`: kept, or if they cannot be checked yet, put aside.
    ///
    /// # Errors
    /// When they are for another place than the funding output has, or not valid.
    pub(crate) fn take_peer_signatures(
        &mut self,
        turn: &mut OpenTurn,
        channel_id: ChannelId,
        message: &AnnouncementSignatures,
    ) -> Result<(), ChannelError> {
        let Some(entry) = self.state.channels.get(&channel_id) else { return Ok(()) };
        let is_open = matches!(entry.channel.state(), State::Confirming | State::Normal);
        if !entry.channel.is_announced() || !is_open {
            return Ok(());
        }
        let known = entry.announcements.peer_signatures.map(|known| known.short_channel_id);
        if known == Some(message.short_channel_id) && known == entry.channel.scid() {
            self.announcer.link(channel_id).signatures_received = true;
            self.announcer.mark(channel_id);
            return Ok(());
        }
        match entry.channel.check_announcement_signatures(message, self.nodes(entry.peer)) {
            Ok(Some(signatures)) => {
                self.counters.ecdsa_verified += 2;
                self.change(turn, Change::AnnouncementSigned { channel_id, signatures });
                self.announcer.link(channel_id).signatures_received = true;
                self.announcer.mark(channel_id);
                Ok(())
            }
            Ok(None) => {
                self.announcer.link(channel_id).early = Some(message.clone());
                Ok(())
            }
            Err(error) => {
                if matches!(error, ChannelError::AnnouncementScid { .. }) {
                    self.announcer.link(channel_id).early = Some(message.clone());
                }
                Err(error)
            }
        }
    }

    /// Remembers the peer's alias for the channel.
    pub(crate) fn take_alias(&mut self, turn: &mut OpenTurn, channel_id: ChannelId, message: &ChannelReady) {
        let Some(entry) = self.state.channels.get(&channel_id).filter(|entry| is_live(entry)) else { return };
        if let Some(alias) = message.alias.filter(|alias| entry.announcements.alias != Some(*alias)) {
            self.change(turn, Change::AliasReceived { channel_id, alias });
        }
        self.announcer.mark(channel_id);
    }

    /// The channel with `peer` that the peer's own `channel_update` is about, if it is about one.
    pub(crate) fn updated_by_peer(&self, peer: NodeId, update: &ChannelUpdate) -> Option<ChannelId> {
        let channel_id = *self.state.scids.get(&update.short_channel_id)?;
        let of_peer = Direction::between(peer, self.node_id);
        let entry = self.state.channels.get(&channel_id).filter(|entry| is_live(entry))?;
        (entry.peer == peer && update.direction() == of_peer).then_some(channel_id)
    }

    /// Keeps the terms of the peer's `channel_update` if it is newer than the last.
    ///
    /// # Errors
    /// When its signature is not valid.
    pub(crate) fn take_peer_update(
        &mut self,
        turn: &mut OpenTurn,
        channel_id: ChannelId,
        update: &ChannelUpdate,
    ) -> Result<(), ChannelError> {
        let Some(entry) = self.state.channels.get(&channel_id) else { return Ok(()) };
        let latest = entry.announcements.peer_policy.map_or(0, |policy| policy.timestamp);
        let farthest = turn.now.unix_seconds().saturating_add(FUTURE_MAX_SECONDS);
        let is_ours = update.chain_hash == self.config.channel.chain_hash;
        if !is_ours || update.timestamp <= latest || update.timestamp > farthest {
            return Ok(());
        }
        self.counters.ecdsa_verified += 1;
        let digest = digest(&update.signed_bytes());
        let key = PublicKey::from_slice(&entry.peer.0);
        if !key.is_ok_and(|key| verify(&digest, &update.signature, &key)) {
            return Err(ChannelError::BadChannelUpdateSignature);
        }
        let policy = PeerForwardingPolicy::from(update);
        self.change(turn, Change::PeerPolicy { channel_id, policy });
        Ok(())
    }

    /// Makes a new `channel_update` if the last one does not hold any more, and sends the peer the latest.
    fn update_channel(&mut self, turn: &mut OpenTurn, channel_id: ChannelId) {
        let Some(entry) = self.state.channels.get(&channel_id) else { return };
        let latest = entry.announcements.update.as_deref();
        let refresh_ms = self.config.announcement_refresh_ms;
        let holds = |wanted: &ChannelUpdate| {
            latest.is_some_and(|latest| {
                let is_old = !latest.dont_forward() && is_refresh_due(latest.timestamp, turn.now, refresh_ms);
                same_terms(wanted, latest) && !(is_old && entry.channel.state() == State::Normal)
            })
        };
        let last_timestamp = latest.map(|latest| latest.timestamp);
        if let Some(wanted) = self.wanted_update(turn.now, channel_id, entry).filter(|wanted| !holds(wanted))
        {
            let mut update = wanted;
            update.timestamp = timestamp_after(last_timestamp, turn.now);
            update.signature = sign(&digest(&update.signed_bytes()), &self.node_secret);
            self.counters.ecdsa_signed += 1;
            let is_published = self.announcer.published.get(&channel_id) == Some(&update.short_channel_id);
            if is_published && !update.dont_forward() {
                self.report_gossip(turn, update.clone());
            }
            self.change(turn, Change::ChannelUpdated { channel_id, update: Box::new(update) });
        }
        let Some(entry) = self.state.channels.get(&channel_id).filter(|entry| entry.channel.is_connected())
        else {
            return;
        };
        let Some(update) = entry.announcements.update.as_deref() else { return };
        if self.announcer.link(channel_id).update_sent != Some(update.timestamp) {
            let (peer, update) = (entry.peer, update.clone());
            self.announcer.link(channel_id).update_sent = Some(update.timestamp);
            self.send(turn, peer, update);
        }
    }

    /// Our `channel_update` for a channel as it should be now, without timestamp and signature; `None` if there should
    /// be no new one.
    fn wanted_update(&self, now: Now, channel_id: ChannelId, entry: &ChannelEntry) -> Option<ChannelUpdate> {
        let (channel, announcements) = (&entry.channel, &entry.announcements);
        let scid = channel.scid()?;
        let was_public = announcements.is_public_at(scid);
        let is_open = channel.state() == State::Normal;
        if !is_open && !was_public {
            return None;
        }
        let is_public = was_public || self.is_announced_to_peer(channel_id, entry, scid);
        let is_away = is_public && self.announcer.away_ms(channel_id, now) >= self.config.disable_after_ms;
        let terms = UpdateTerms {
            chain_hash: self.config.channel.chain_hash,
            short_channel_id: match announcements.alias {
                Some(alias) if !channel.is_announced() => alias,
                _ => scid,
            },
            local: self.node_id,
            remote: entry.peer,
            policy: entry.policies.current,
            is_public,
            is_usable: is_open && !is_away,
        };
        Some(terms.update(channel))
    }

    /// Whether both sides' signatures for this place are exchanged.
    fn is_announced_to_peer(&self, channel_id: ChannelId, entry: &ChannelEntry, scid: Scid) -> bool {
        let signatures = entry.announcements.peer_signatures;
        entry.channel.may_be_announced(self.state.height)
            && signatures.is_some_and(|signatures| signatures.short_channel_id == scid)
            && self.announcer.has_sent_signatures(channel_id, scid)
    }

    /// Reports the announcement of a channel, and its latest update, once a run.
    fn publish(&mut self, turn: &mut OpenTurn, channel_id: ChannelId) {
        let Some(entry) = self.state.channels.get(&channel_id) else { return };
        let Some(scid) = entry.channel.scid() else { return };
        let is_published = self.announcer.published.get(&channel_id) == Some(&scid);
        if is_published || entry.channel.state() != State::Normal || !entry.announcements.is_public_at(scid) {
            return;
        }
        let signatures = entry.announcements.peer_signatures;
        let announcement =
            signatures.and_then(|theirs| entry.channel.channel_announcement(&theirs, self.nodes(entry.peer)));
        let (Some(announcement), Some(update)) = (announcement, entry.announcements.update.as_deref()) else {
            return;
        };
        let update = update.clone();
        self.counters.ecdsa_signed += 2;
        self.report_gossip(turn, announcement);
        self.report_gossip(turn, update);
        self.announcer.publish(channel_id, scid, turn.now);
    }

    pub(crate) fn report_gossip(&self, turn: &mut OpenTurn, message: impl Into<Message>) {
        turn.out.events.push(Event::OwnGossip { message: Box::new(message.into()) });
    }

    fn reaction(&self, channel_id: ChannelId, error: &ChannelError) -> Reaction {
        let entry = self.state.channels.get(&channel_id);
        entry.map_or(Reaction::Ignore, |entry| entry.channel.reaction(error))
    }

    /// Warns the peer and disconnects it.
    fn refuse_announcement(&mut self, turn: &mut OpenTurn, channel_id: ChannelId, error: &ChannelError) {
        let Some(entry) = self.state.channels.get(&channel_id) else { return };
        let (peer, plan) = (entry.peer, entry.channel.plan_reaction(error));
        self.apply_plan(turn, channel_id, plan);
        self.drop_peer(turn, peer);
    }

    fn nodes(&self, remote: NodeId) -> AnnouncingNodes<'_> {
        AnnouncingNodes { secret: &self.node_secret, local: self.node_id, remote }
    }
}

/// Whether a channel's peer may still say something about it.
fn is_live(entry: &ChannelEntry) -> bool {
    matches!(entry.channel.state(), State::Confirming | State::Normal | State::ShuttingDown)
}
