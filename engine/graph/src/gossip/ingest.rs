//! One batch of gossip: classified, checked, verified together, accepted (BOLT 7).
//!
//! Owns the order of work in a batch: announcements, then updates, then node announcements. The order of arrival
//! therefore does not matter, and three calls of the verifier suffice for any number of messages. Messages about
//! unknown channels are held; they join the batch that brings the channel.
//!
//! Invariant: checks before the signatures are cheap and count no fault for messages that others may have signed;
//! every change comes after the signatures.

use std::borrow::Cow;
use std::collections::HashMap;

use crc32c::{crc32c, crc32c_append};
use fulmen_secp::{KeyError, VerifyJob, parse_keys_with};
use fulmen_wire::message::{ChannelAnnouncement, ChannelUpdate, Message, NodeAnnouncement, signed_region};
use fulmen_wire::units::{ChainHash, NodeId, Point, Sat, Scid, Signature};
use secp256k1::PublicKey;
use sha2::{Digest, Sha256};

use super::held::Topic;
use super::index::Update;
use super::outcome::{
    FundingLookup, GossipOutcome, GossipReaction, IncomingGossip, Refusal, Refused, Source,
};
use super::peer::{Peer, PeerQueries};
use super::pending::PendingAnnouncement;
use super::policy::capacity_for;
use super::store::{Location, Record, RecordKind};
use super::{FundingCheck, Gossip, GossipTime, GraphChange, Log};
use crate::gossip::limits::Bucket;
use crate::{Direction, Policy};

/// Limit on the nodes remembered as banned.
const BANNED_MAX: usize = 10_000;

/// A message that was not refused so far.
#[derive(Clone, Debug)]
struct Candidate<'a, M> {
    index: Option<usize>,
    from: Source,
    bytes: Cow<'a, [u8]>,
    message: M,
}

/// A batch in progress.
pub(super) struct Batch<'a> {
    pub(super) now: GossipTime,
    pub(super) outcome: GossipOutcome,
    announcements: Vec<Candidate<'a, Box<ChannelAnnouncement>>>,
    updates: Vec<Candidate<'a, ChannelUpdate>>,
    nodes: Vec<Candidate<'a, Box<NodeAnnouncement>>>,
}

/// An announcement with its keys: of the nodes, then of the funding output.
struct Keyed<'a> {
    candidate: Candidate<'a, Box<ChannelAnnouncement>>,
    keys: [PublicKey; 4],
}

impl Batch<'_> {
    pub(super) fn new(now: GossipTime) -> Self {
        Batch {
            now,
            outcome: GossipOutcome::default(),
            announcements: Vec::new(),
            updates: Vec::new(),
            nodes: Vec::new(),
        }
    }

    /// The current time as a timestamp.
    fn timestamp(&self) -> u32 {
        u32::try_from(self.now.unix_seconds).unwrap_or(u32::MAX)
    }
}

impl<L: Log> Gossip<L> {
    /// Takes in a batch of messages. Larger batches verify faster, up to some hundred messages.
    pub fn ingest(&mut self, messages: &[IncomingGossip<'_>], now: GossipTime) -> GossipOutcome {
        let mut batch = Batch::new(now);
        // By first signature: the last message with it.
        let mut seen: HashMap<&[u8], &[u8]> = HashMap::with_capacity(messages.len());
        for (index, incoming) in messages.iter().enumerate() {
            let key = &incoming.message[..incoming.message.len().min(66)];
            let known = seen.get(key).is_some_and(|known| *known == incoming.message);
            let judged = match self.admit(incoming, now) {
                Ok(()) if known => Err(Refusal::Known),
                Ok(()) => self.classify(&mut batch, index, incoming),
                Err(why) => Err(why),
            };
            match judged {
                Ok(()) => drop(seen.insert(key, incoming.message)),
                Err(why) => self.refuse(&mut batch, Some(index), incoming.from, why),
            }
        }
        self.finish(batch)
    }

    /// Everything after classification.
    pub(super) fn finish(&mut self, mut batch: Batch<'_>) -> GossipOutcome {
        self.take_announcements(&mut batch);
        self.take_updates(&mut batch);
        self.take_nodes(&mut batch);
        batch.outcome
    }

    /// Whether a message may be processed.
    fn admit(&mut self, incoming: &IncomingGossip<'_>, now: GossipTime) -> Result<(), Refusal> {
        let bytes = self.store.unwritten_bytes();
        if bytes > self.config.unwritten_bytes_max {
            return Err(Refusal::StoreBehind { bytes });
        }
        let Source::Peer(id) = incoming.from else { return Ok(()) };
        let rate = self.config.messages;
        let peer = self.peer(id, now).ok_or(Refusal::RateLimited)?;
        if peer.messages.take(rate, now.unix_seconds) { Ok(()) } else { Err(Refusal::RateLimited) }
    }

    /// The state of a peer; `None` when [`GossipConfig::peers_max`](super::GossipConfig::peers_max) peers are known.
    pub(super) fn peer(&mut self, id: NodeId, now: GossipTime) -> Option<&mut Peer> {
        if !self.peers.contains_key(&id) {
            if self.peers.len() >= self.config.peers_max {
                return None;
            }
            let messages = Bucket::full(self.config.messages, now.unix_seconds);
            let faults = Bucket::full(self.config.faults, now.unix_seconds);
            let queries = Bucket::full(self.config.queries, now.unix_seconds);
            let open_queries = PeerQueries::default();
            self.peers.insert(id, Peer { connected: true, messages, faults, queries, open_queries });
        }
        let peer = self.peers.get_mut(&id)?;
        peer.connected = true;
        Some(peer)
    }

    /// Decodes a message and makes the checks that need only the message.
    fn classify<'a>(
        &mut self,
        batch: &mut Batch<'a>,
        index: usize,
        incoming: &IncomingGossip<'a>,
    ) -> Result<(), Refusal> {
        let (index, from, bytes) = (Some(index), incoming.from, Cow::Borrowed(incoming.message));
        match Message::decode(incoming.message)? {
            Message::ChannelAnnouncement(message) => {
                self.check_announcement(&message, batch.now)?;
                batch.announcements.push(Candidate { index, from, bytes, message: Box::new(message) });
            }
            Message::ChannelUpdate(message) => {
                self.check_chain(message.chain_hash)?;
                self.check_timestamp(message.timestamp, batch.now)?;
                let now_seconds = batch.now.unix_seconds;
                let stale_at = u64::from(message.timestamp) + u64::from(self.config.stale_after_seconds);
                if stale_at < now_seconds {
                    return Err(Refusal::Stale { timestamp: message.timestamp, now_seconds });
                }
                if message.dont_forward() {
                    return Err(Refusal::DontForward { scid: message.short_channel_id });
                }
                batch.updates.push(Candidate { index, from, bytes, message });
            }
            Message::NodeAnnouncement(message) => {
                self.check_timestamp(message.timestamp, batch.now)?;
                self.check_not_banned(message.node_id)?;
                batch.nodes.push(Candidate { index, from, bytes, message: Box::new(message) });
            }
            other => return Err(Refusal::NotGossip { message_type: other.type_number() }),
        }
        Ok(())
    }

    fn check_chain(&self, chain_hash: ChainHash) -> Result<(), Refusal> {
        if chain_hash == self.config.chain_hash {
            Ok(())
        } else {
            Err(Refusal::OtherChain { found: chain_hash })
        }
    }

    fn check_timestamp(&self, timestamp: u32, now: GossipTime) -> Result<(), Refusal> {
        let now_seconds = now.unix_seconds;
        if u64::from(timestamp) > now_seconds + u64::from(self.config.future_max_seconds) {
            return Err(Refusal::TooFarAhead { timestamp, now_seconds });
        }
        Ok(())
    }

    fn check_not_banned(&self, node: NodeId) -> Result<(), Refusal> {
        if self.banned.contains(&node) { Err(Refusal::Banned { node }) } else { Ok(()) }
    }

    fn check_announcement(&self, message: &ChannelAnnouncement, now: GossipTime) -> Result<(), Refusal> {
        self.check_chain(message.chain_hash)?;
        let scid = message.short_channel_id;
        let nodes = [message.node_id_1, message.node_id_2];
        if nodes[0] >= nodes[1] {
            return Err(Refusal::NodesNotInOrder { scid, nodes });
        }
        nodes.into_iter().try_for_each(|node| self.check_not_banned(node))?;
        if let Some(tip) = now.tip {
            // An output in the tip's block has one confirmation; a block that we have not seen may add one.
            let confirmations = (u64::from(tip.0) + 2).saturating_sub(u64::from(scid.block()));
            if confirmations < u64::from(self.config.confirmations_min) {
                return Err(Refusal::Unconfirmed { scid, tip });
            }
        }
        if self.pending.contains(lookup_of(message)) {
            return Err(Refusal::Known);
        }
        match self.compare(message) {
            Some(Known::Same) => Err(Refusal::Known),
            Some(Known::OtherKeys) => Err(Refusal::Contradiction { scid }),
            Some(Known::OtherNodes) | None => Ok(()),
        }
    }

    /// How an announcement relates to the known channel of its scid, if there is one.
    fn compare(&self, message: &ChannelAnnouncement) -> Option<Known> {
        let channel = self.index.channel(message.short_channel_id)?;
        if self.index.ends(channel) == [message.node_id_1, message.node_id_2] {
            return Some(Known::Same);
        }
        let stored = self.store.message(channel.announcement).ok();
        match stored.and_then(|bytes| Message::decode(&bytes).ok()) {
            Some(Message::ChannelAnnouncement(stored)) if lookup_of(&stored) == lookup_of(message) => {
                Some(Known::OtherNodes)
            }
            _ => Some(Known::OtherKeys),
        }
    }

    fn take_announcements(&mut self, batch: &mut Batch<'_>) {
        let candidates = std::mem::take(&mut batch.announcements);
        let keyed = self.parse_announcement_keys(batch, candidates);
        let mut jobs = Vec::with_capacity(4 * keyed.len());
        for Keyed { candidate, keys } in &keyed {
            let digest = digest(&candidate.bytes);
            let message = &candidate.message;
            let signatures = [
                message.node_signature_1,
                message.node_signature_2,
                message.bitcoin_signature_1,
                message.bitcoin_signature_2,
            ];
            let pairs = signatures.into_iter().zip(keys);
            jobs.extend(pairs.map(|(Signature(signature), key)| VerifyJob { key: *key, digest, signature }));
        }
        let verdicts = self.verifier.verify(&jobs);
        for (number, Keyed { candidate, keys }) in keyed.into_iter().enumerate() {
            let (index, from) = (candidate.index, candidate.from);
            let judged = if verdicts.are_valid(4 * number..4 * number + 4) {
                self.accept_announcement(batch, candidate, [keys[0], keys[1]])
            } else {
                Err(Refusal::InvalidSignature)
            };
            if let Err(why) = judged {
                self.refuse(batch, index, from, why);
            }
        }
    }

    /// Parses the keys of all announcements together, except those of known nodes; refuses announcements with an
    /// invalid key.
    fn parse_announcement_keys<'a>(
        &mut self,
        batch: &mut Batch<'_>,
        candidates: Vec<Candidate<'a, Box<ChannelAnnouncement>>>,
    ) -> Vec<Keyed<'a>> {
        let mut unparsed = Vec::with_capacity(4 * candidates.len());
        let known = |id| self.index.node(id).and_then(|node| node.key);
        let slots: Vec<[Option<PublicKey>; 4]> = candidates
            .iter()
            .map(|Candidate { message, .. }| {
                let slots = [known(message.node_id_1), known(message.node_id_2), None, None];
                let keys = [
                    message.node_id_1.0,
                    message.node_id_2.0,
                    message.bitcoin_key_1.0,
                    message.bitcoin_key_2.0,
                ];
                let missing = slots.iter().zip(keys).filter(|(slot, _)| slot.is_none());
                unparsed.extend(missing.map(|(_, key)| key));
                slots
            })
            .collect();
        let mut parsed = parse_keys_with(self.verifier.backend(), &unparsed).into_iter();
        let mut keyed = Vec::with_capacity(candidates.len());
        for (candidate, slots) in candidates.into_iter().zip(slots) {
            let keys = slots.map(|slot| match slot {
                Some(key) => Ok(key),
                None => parsed.next().expect("each key was given to the parser"),
            });
            match keys {
                [Ok(one), Ok(two), Ok(three), Ok(four)] => {
                    keyed.push(Keyed { candidate, keys: [one, two, three, four] });
                }
                keys => {
                    let bad = keys.into_iter().find_map(Result::err).expect("one key at least is bad");
                    self.refuse(batch, candidate.index, candidate.from, Refusal::Key(bad));
                }
            }
        }
        keyed
    }

    /// Accepts an announcement with valid signatures, unless another of its batch contradicts it.
    fn accept_announcement(
        &mut self,
        batch: &mut Batch<'_>,
        candidate: Candidate<'_, Box<ChannelAnnouncement>>,
        keys: [PublicKey; 2],
    ) -> Result<(), Refusal> {
        let Candidate { from, bytes, message, .. } = candidate;
        let scid = message.short_channel_id;
        let nodes = [message.node_id_1, message.node_id_2];
        nodes.into_iter().try_for_each(|node| self.check_not_banned(node))?;
        match self.compare(&message) {
            Some(Known::Same) => return Err(Refusal::Known),
            Some(Known::OtherKeys) => return Err(Refusal::Contradiction { scid }),
            Some(Known::OtherNodes) => {
                self.ban(batch, scid, nodes);
                return Err(Refusal::ConflictingAnnouncements { scid });
            }
            None => {}
        }
        let lookup = lookup_of(&message);
        match self.config.funding_check {
            FundingCheck::Off => {}
            FundingCheck::Later => batch.outcome.lookups.push(lookup),
            FundingCheck::First => {
                if self.pending.contains(lookup) {
                    return Err(Refusal::Known);
                }
                let since_seconds = batch.now.unix_seconds;
                let announcement =
                    PendingAnnouncement { bytes: bytes.into_owned(), keys, from, since_seconds };
                self.pending.insert(lookup, announcement, self.config.pending_bytes)?;
                batch.outcome.lookups.push(lookup);
                return Ok(());
            }
        }
        self.insert_channel(batch, &bytes, &message, keys, None);
        Ok(())
    }

    /// Accepts an announcement whose funding output was found.
    pub(super) fn accept_pending(
        &mut self,
        batch: &mut Batch<'_>,
        announcement: PendingAnnouncement,
        value: Sat,
    ) {
        let message = Message::decode(&announcement.bytes);
        let Ok(Message::ChannelAnnouncement(message)) = message else { return };
        let banned = [message.node_id_1, message.node_id_2].map(|node| self.banned.contains(&node));
        if banned == [false; 2] && self.index.channel(message.short_channel_id).is_none() {
            self.insert_channel(batch, &announcement.bytes, &message, announcement.keys, Some(value));
        }
    }

    /// Adds a channel to store, index and graph, and adds the held messages about it to the batch.
    fn insert_channel(
        &mut self,
        batch: &mut Batch<'_>,
        bytes: &[u8],
        message: &ChannelAnnouncement,
        keys: [PublicKey; 2],
        value: Option<Sat>,
    ) {
        let (scid, nodes) = (message.short_channel_id, [message.node_id_1, message.node_id_2]);
        let location = self.store.append_message(batch.timestamp(), bytes);
        let position = self.index.add(scid, nodes, location, batch.timestamp());
        let channel = self.index.channel_at_mut(position);
        channel.routable = message.features.unknown_required().is_none();
        let (routable, ends) = (channel.routable, channel.nodes);
        for (node, key) in ends.into_iter().zip(keys) {
            self.index.node_at_mut(node).key = Some(key);
        }
        if let Some(value) = value {
            self.note_funding(position, value);
        }
        if routable {
            let capacity = value.unwrap_or_default();
            batch.outcome.changes.push(GraphChange::ChannelAdded { scid, nodes, capacity });
        }
        batch.outcome.accepted += 1;
        for (from, bytes) in self.held.take_channel(scid) {
            if let Ok(Message::ChannelUpdate(message)) = Message::decode(&bytes) {
                batch.updates.push(Candidate { index: None, from, bytes: Cow::Owned(bytes), message });
            }
        }
    }

    /// Records the value of a funding output in store and index.
    pub(super) fn note_funding(&mut self, position: usize, value: Sat) {
        let channel = self.index.channel_at_mut(position);
        channel.funding = Some(value);
        let mut payload = [0; 16];
        payload[..8].copy_from_slice(&channel.scid.0.to_le_bytes());
        payload[8..].copy_from_slice(&value.0.to_le_bytes());
        self.store.append(Record { kind: RecordKind::Funded, at: 0, payload: &payload });
    }

    /// Bans all nodes that signed one of two announcements of one channel, and removes their channels.
    fn ban(&mut self, batch: &mut Batch<'_>, scid: Scid, others: [NodeId; 2]) {
        let known = self.index.channel(scid).map(|channel| self.index.ends(channel));
        let mut positions = Vec::new();
        for node in known.into_iter().flatten().chain(others) {
            positions.extend(self.index.node_position(node));
            if self.banned.len() < BANNED_MAX && self.banned.insert(node) {
                self.store.append(Record {
                    kind: RecordKind::Banned,
                    at: batch.timestamp(),
                    payload: &node.0,
                });
            }
        }
        let channels = self.index.channels().iter();
        let theirs = channels.filter(|channel| channel.nodes.iter().any(|node| positions.contains(node)));
        let mut scids: Vec<Scid> = theirs.map(|channel| channel.scid).collect();
        scids.sort_unstable();
        scids.into_iter().for_each(|scid| self.remove_channel(&mut batch.outcome, scid));
    }

    fn take_updates(&mut self, batch: &mut Batch<'_>) {
        let mut candidates = std::mem::take(&mut batch.updates);
        candidates.retain(|candidate| match self.check_update(&candidate.message) {
            Ok(true) => true,
            Ok(false) => {
                let Candidate { from, bytes, message, .. } = candidate;
                let topic = Topic::Channel(message.short_channel_id, message.direction());
                self.hold(batch, (topic, *from), message.timestamp, bytes);
                false
            }
            Err(why) => {
                self.refuse(batch, candidate.index, candidate.from, why);
                false
            }
        });
        let signers: Vec<u32> = candidates.iter().map(|candidate| self.signer(&candidate.message)).collect();
        let signatures = candidates.iter().map(|candidate| (&*candidate.bytes, candidate.message.signature));
        let valid = self.verify(&signers, signatures);
        for (candidate, valid) in candidates.into_iter().zip(valid) {
            // An earlier update of the batch may have been newer.
            let judged = valid.and_then(|()| self.check_update(&candidate.message).map(|_| ()));
            match judged {
                Ok(()) => self.accept_update(batch, &candidate.bytes, &candidate.message),
                Err(why) => self.refuse(batch, candidate.index, candidate.from, why),
            }
        }
    }

    /// Whether an update is newer than the known one; `false` when the channel is unknown.
    fn check_update(&self, message: &ChannelUpdate) -> Result<bool, Refusal> {
        let scid = message.short_channel_id;
        let Some(channel) = self.index.channel(scid) else { return Ok(false) };
        if let Some(known) = channel.updates[message.direction().origin()]
            && message.timestamp <= known.timestamp
        {
            return Err(Refusal::NotNewer { timestamp: message.timestamp, known: known.timestamp });
        }
        match channel.spent_at {
            Some(at) if !message.is_disabled() => Err(Refusal::Spent { scid, at }),
            _ => Ok(true),
        }
    }

    /// The position of the node that must have signed an update of a known channel.
    fn signer(&self, message: &ChannelUpdate) -> u32 {
        let channel = self.index.channel(message.short_channel_id).expect("the channel was found just now");
        channel.nodes[message.direction().origin()]
    }

    fn accept_update(&mut self, batch: &mut Batch<'_>, bytes: &[u8], message: &ChannelUpdate) {
        let (scid, direction) = (message.short_channel_id, message.direction());
        let position = self.index.position(scid).expect("the channel was found just now");
        let location = self.store.append_message(batch.timestamp(), bytes);
        let channel = self.index.channel_at_mut(position);
        let before = channel.capacity();
        let old = channel.updates[direction.origin()].replace(update_of(message, bytes, location));
        let (capacity, routable) = (channel.capacity(), channel.routable);
        old.into_iter().for_each(|old| self.store.mark_dead(old.location));
        batch.outcome.accepted += 1;
        if routable && capacity != before {
            batch.outcome.changes.push(GraphChange::CapacityChanged { scid, capacity });
        }
        self.set_policy(&mut batch.outcome, position, direction, Policy::of(message));
        for node in self.index.publish(position, location.offset()) {
            for (from, bytes) in self.held.take_node(node) {
                if let Ok(Message::NodeAnnouncement(message)) = Message::decode(&bytes) {
                    let (bytes, message) = (Cow::Owned(bytes), Box::new(message));
                    batch.nodes.push(Candidate { index: None, from, bytes, message });
                }
            }
        }
    }

    fn take_nodes(&mut self, batch: &mut Batch<'_>) {
        let mut candidates = std::mem::take(&mut batch.nodes);
        candidates.retain(|candidate| match self.check_node(&candidate.message) {
            Ok(true) => true,
            Ok(false) => {
                let Candidate { from, bytes, message, .. } = candidate;
                self.hold(batch, (Topic::Node(message.node_id), *from), message.timestamp, bytes);
                false
            }
            Err(why) => {
                self.refuse(batch, candidate.index, candidate.from, why);
                false
            }
        });
        let node = |id| self.index.node_position(id).expect("the node was found just now");
        let signers: Vec<u32> = candidates.iter().map(|candidate| node(candidate.message.node_id)).collect();
        let signatures = candidates.iter().map(|candidate| (&*candidate.bytes, candidate.message.signature));
        let valid = self.verify(&signers, signatures);
        for (candidate, valid) in candidates.into_iter().zip(valid) {
            match valid.and_then(|()| self.check_node(&candidate.message).map(|_| ())) {
                Ok(()) => self.accept_node(batch, &candidate.bytes, &candidate.message),
                Err(why) => self.refuse(batch, candidate.index, candidate.from, why),
            }
        }
    }

    /// Whether an announcement is newer than the known one; `false` when the node has no public channel.
    fn check_node(&self, message: &NodeAnnouncement) -> Result<bool, Refusal> {
        self.check_not_banned(message.node_id)?;
        let node = self.index.node(message.node_id).filter(|node| node.public_channels > 0);
        let Some(node) = node else { return Ok(false) };
        if message.timestamp <= node.timestamp {
            return Err(Refusal::NotNewer { timestamp: message.timestamp, known: node.timestamp });
        }
        Ok(true)
    }

    fn accept_node(&mut self, batch: &mut Batch<'_>, bytes: &[u8], message: &NodeAnnouncement) {
        let position = self.index.node_position(message.node_id).expect("the node was found just now");
        // An announcement with several hostnames must not be relayed, so it is not kept.
        let hostnames = message.addresses.iter().filter(|address| address.descriptor_type() == 5).count();
        let location = (hostnames <= 1).then(|| self.store.append_message(batch.timestamp(), bytes));
        let node = self.index.node_at_mut(position);
        let old = std::mem::replace(&mut node.announcement, location);
        node.timestamp = message.timestamp;
        let routable = message.features.unknown_required().is_none();
        let turned = std::mem::replace(&mut node.routable, routable) != routable;
        old.into_iter().for_each(|location| self.store.mark_dead(location));
        batch.outcome.accepted += 1;
        let features = message.features.clone();
        batch.outcome.changes.push(GraphChange::NodeAnnounced { node: message.node_id, features });
        if turned {
            self.review_node(&mut batch.outcome, position);
        }
    }

    /// Sets or removes the policies of all directions that leave a node.
    fn review_node(&mut self, outcome: &mut GossipOutcome, node: u32) {
        let channels = self.index.channels().iter();
        let theirs = channels.filter(|channel| channel.nodes.contains(&node));
        let mut directions: Vec<(Scid, Direction)> = theirs
            .map(|channel| {
                let first = channel.nodes[0] == node;
                (channel.scid, if first { Direction::OneToTwo } else { Direction::TwoToOne })
            })
            .collect();
        directions.sort_unstable();
        for (scid, direction) in directions {
            let position = self.index.position(scid).expect("the channel was found just now");
            self.review_policy(outcome, position, direction);
        }
    }

    /// Verifies one signature of each message by the keys of these nodes.
    fn verify<'b>(
        &mut self,
        signers: &[u32],
        messages: impl Iterator<Item = (&'b [u8], Signature)>,
    ) -> Vec<Result<(), Refusal>> {
        self.parse_node_keys(signers);
        let mut jobs = Vec::with_capacity(signers.len());
        let checks: Vec<Result<usize, Refusal>> = signers
            .iter()
            .zip(messages)
            .map(|(signer, (bytes, Signature(signature)))| {
                let node = self.index.node_at(*signer);
                let key = node.key.ok_or(KeyError::NotAPoint(node.id.0))?;
                jobs.push(VerifyJob { key, digest: digest(bytes), signature });
                Ok(jobs.len() - 1)
            })
            .collect();
        let verdicts = self.verifier.verify(&jobs);
        let judge = |job| if verdicts.is_valid(job) { Ok(()) } else { Err(Refusal::InvalidSignature) };
        checks.into_iter().map(|check| check.and_then(judge)).collect()
    }

    /// Parses keys that were not needed since the store was opened.
    fn parse_node_keys(&mut self, nodes: &[u32]) {
        let mut missing: Vec<u32> = nodes.to_vec();
        missing.retain(|node| self.index.node_at(*node).key.is_none());
        missing.sort_unstable();
        missing.dedup();
        let ids: Vec<[u8; 33]> = missing.iter().map(|node| self.index.node_at(*node).id.0).collect();
        let keys = parse_keys_with(self.verifier.backend(), &ids);
        for (node, key) in missing.into_iter().zip(keys) {
            self.index.node_at_mut(node).key = key.ok();
        }
    }

    fn hold(&mut self, batch: &mut Batch<'_>, key: (Topic, Source), timestamp: u32, bytes: &[u8]) {
        let is_held = self.held.put(key, timestamp, bytes, batch.now.unix_seconds, self.config.held_bytes);
        batch.outcome.held += usize::from(is_held);
    }

    /// Refuses a message, and counts a fault of its sender if no honest peer would have relayed it.
    fn refuse(&mut self, batch: &mut Batch<'_>, index: Option<usize>, from: Source, why: Refusal) {
        let blame = why.reaction() == GossipReaction::CountFault;
        batch.outcome.refused.push(Refused { index, from, why });
        if let Source::Peer(id) = from
            && blame
            && let Some(peer) = self.peers.get_mut(&id)
            && !peer.faults.take(self.config.faults, batch.now.unix_seconds)
            && !batch.outcome.disconnect.contains(&id)
        {
            batch.outcome.disconnect.push(id);
        }
    }
}

/// The relation of an announcement to the known channel.
enum Known {
    Same,
    OtherKeys,
    OtherNodes,
}

/// The funding output that an announcement claims.
fn lookup_of(message: &ChannelAnnouncement) -> FundingLookup {
    let mut bitcoin_keys: [Point; 2] = [message.bitcoin_key_1, message.bitcoin_key_2];
    bitcoin_keys.sort_unstable();
    FundingLookup { scid: message.short_channel_id, bitcoin_keys }
}

/// The digest that a message's signatures sign.
fn digest(message: &[u8]) -> [u8; 32] {
    let region = signed_region(message).expect("a decoded announcement has all its signatures");
    Sha256::digest(Sha256::digest(region)).into()
}

/// The index entry of an update.
pub(super) fn update_of(message: &ChannelUpdate, bytes: &[u8], location: Location) -> Update {
    let capacity = capacity_for(message.htlc_maximum_msat);
    Update { location, timestamp: message.timestamp, checksum: checksum(bytes), capacity }
}

/// CRC32C of an update without type, signature and timestamp (BOLT 7, `reply_channel_range`).
fn checksum(update: &[u8]) -> u32 {
    /// Type and signature come first; chain and channel precede the timestamp.
    const START: usize = 2 + 64;
    const TIMESTAMP: usize = START + 32 + 8;
    match (update.get(START..TIMESTAMP), update.get(TIMESTAMP + 4..)) {
        (Some(before), Some(after)) => crc32c_append(crc32c(before), after),
        _ => 0,
    }
}
