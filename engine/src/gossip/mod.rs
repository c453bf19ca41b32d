//! The gossip service: a thread that takes in the gossip of peers, keeps the graph up to date and answers peers.
//!
//! Owns: the thread, its bounded queue (`queue`), and its schedule: gossip is processed in batches as it arrives,
//! relayed once a minute, pruned once an hour. The rules are those of `fulmen_graph::gossip`. Does not use sockets or
//! the chain; [`Peers`] does.
//!
//! An embedder passes on the engine's events about gossip ([`GossipInput::from_event`]), and reports peers that connect
//! and disconnect, and the chain's height. This node's own announcements are among those events: they are verified,
//! stored and relayed like any other. Routes are searched on the [`LiveGraph`] given here.
//!
//! Invariant: the queue is bounded in bytes, for each peer and in all. Gossip that does not fit is dropped, since it
//! can be fetched again. Channels are laid out anew at most once a second.

mod file;
mod queue;

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam::channel::RecvTimeoutError;
use fulmen_graph::gossip::{
    FundingAnswer, FundingLookup, Gossip, GossipOutcome, GossipTime, GraphChange, IncomingGossip, Log,
    QueryRefusal, Source,
};
use fulmen_graph::live::LiveGraph;
use fulmen_proto::forward::Event;
use fulmen_wire::message::{GossipTimestampFilter, Message, Warning};
use fulmen_wire::tlv::UnknownTlvs;
use fulmen_wire::units::{BlockHeight, ChainHash, ChannelId, NodeId, Scid};

pub use file::FileLog;

use self::queue::{Queue, QueueReader, Queued};
use crate::runtime::Clock;

/// Carries out the service's decisions. Called on the service's thread; it must not wait for a peer.
pub trait Peers: Send + 'static {
    /// How many more bytes may be sent to the peer now.
    fn room(&self, peer: NodeId) -> usize;

    /// Sends a message to a peer, if it is connected.
    fn send(&self, peer: NodeId, message: Vec<u8>);

    /// Disconnects a peer after the messages sent to it have gone out.
    fn disconnect(&self, peer: NodeId);

    /// Looks up a funding output; [`GossipInput::Funding`] is the answer.
    fn look_up(&self, lookup: FundingLookup);
}

/// An input of the service.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum GossipInput {
    /// A peer has connected and sent its `init`.
    Connected(NodeId),
    /// A peer has disconnected.
    Disconnected(NodeId),
    /// A peer sent gossip or a query.
    Message {
        /// The peer.
        peer: NodeId,
        /// The message.
        message: Box<Message>,
    },
    /// An announcement by this node.
    Own(Box<Message>),
    /// The chain's height.
    Tip(BlockHeight),
    /// The answer to a lookup of a funding output.
    Funding(FundingLookup, FundingAnswer),
    /// The funding output of a channel was spent in the block of this height.
    Spent(Scid, BlockHeight),
    /// The block with that spend was disconnected from the chain.
    SpendReverted(Scid),
}

impl GossipInput {
    /// The input that an event of the engine is for the service: gossip or a query of a peer, or an announcement of
    /// this node. `None` for any other event.
    #[must_use]
    pub fn from_event(event: &Event) -> Option<GossipInput> {
        match event {
            Event::Gossip { peer, message } => {
                Some(GossipInput::Message { peer: *peer, message: message.clone() })
            }
            Event::OwnGossip { message } => Some(GossipInput::Own(message.clone())),
            _ => None,
        }
    }
}

/// A running service. Dropping it ends its thread, after the queued inputs were processed and the store was written.
#[derive(Debug)]
pub struct GossipService {
    queue: Option<Queue>,
    thread: Option<JoinHandle<()>>,
}

impl GossipService {
    /// Starts the thread, `fulmen-gossip`.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn start<L: Log + Send + 'static>(
        gossip: Gossip<L>,
        chain_hash: ChainHash,
        graph: Arc<LiveGraph>,
        peers: impl Peers,
        clock: impl Clock,
    ) -> io::Result<GossipService> {
        let (queue, inputs) = queue::bounded();
        let state = ServiceState::new(gossip, chain_hash, graph, peers);
        let thread = std::thread::Builder::new()
            .name("fulmen-gossip".into())
            .spawn(move || run(state, &inputs, &clock))?;
        Ok(GossipService { queue: Some(queue), thread: Some(thread) })
    }

    /// Queues an input; returns whether there was room for it. Messages of peers are refused when the peer or all
    /// peers together have too many bytes in the queue: 8 MiB and 32 MiB. Other inputs are refused only when 4,096 of
    /// them wait.
    pub fn offer(&self, input: GossipInput) -> bool {
        self.queue.as_ref().is_some_and(|queue| queue.offer(input))
    }
}

impl Drop for GossipService {
    fn drop(&mut self) {
        self.queue = None;
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has said so already.
            let _ = thread.join();
        }
    }
}

/// How many inputs are processed at once.
const BATCH_MAX: usize = 1_024;
const IDLE: Duration = Duration::from_millis(250);
const REBUILD_MS: u64 = 1_000;
const RELAY_MS: u64 = 60_000;
const PRUNE_MS: u64 = 3_600_000;
/// How many peers are asked for all their gossip; further ones for new gossip only.
const SYNC_PEERS_MAX: usize = 3;

fn run<L: Log, P: Peers>(mut state: ServiceState<L, P>, inputs: &QueueReader, clock: &impl Clock) {
    loop {
        match inputs.next_batch(BATCH_MAX, IDLE) {
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => state.work(Vec::new(), clock.now().unix_ms),
            Ok(batch) => state.work(batch, clock.now().unix_ms),
        }
    }
    state.flush();
}

/// The service without its thread.
#[derive(Debug)]
struct ServiceState<L, P> {
    gossip: Gossip<L>,
    chain_hash: ChainHash,
    graph: Arc<LiveGraph>,
    peers: P,
    connected: BTreeSet<NodeId>,
    tip: Option<BlockHeight>,
    /// Changes not yet applied to the graph.
    changes: Vec<GraphChange>,
    rebuilt_ms: u64,
    relayed_ms: u64,
    pruned_ms: u64,
}

impl<L: Log, P: Peers> ServiceState<L, P> {
    fn new(gossip: Gossip<L>, chain_hash: ChainHash, graph: Arc<LiveGraph>, peers: P) -> ServiceState<L, P> {
        ServiceState {
            gossip,
            chain_hash,
            graph,
            peers,
            connected: BTreeSet::new(),
            tip: None,
            changes: Vec::new(),
            rebuilt_ms: 0,
            relayed_ms: 0,
            pruned_ms: 0,
        }
    }

    fn work(&mut self, inputs: Vec<Queued>, now_ms: u64) {
        let mut announcements: Vec<(Source, Vec<u8>)> = Vec::new();
        for input in inputs {
            let now = GossipTime { unix_seconds: now_ms / 1_000, tip: self.tip };
            match input {
                Queued::Announcement { from, message } => announcements.push((from, message)),
                Queued::Query { peer, message, .. } => self.query(peer, &message, now),
                Queued::Control(GossipInput::Connected(peer)) => self.request_gossip(peer, now),
                Queued::Control(GossipInput::Disconnected(peer)) => {
                    self.connected.remove(&peer);
                    self.gossip.peer_disconnected(peer);
                }
                Queued::Control(GossipInput::Tip(tip)) => self.tip = Some(tip),
                Queued::Control(GossipInput::Funding(lookup, answer)) => {
                    let outcome = self.gossip.funding_answered(lookup, answer, now);
                    self.apply_outcome(outcome);
                }
                Queued::Control(GossipInput::Spent(scid, at)) => self.gossip.funding_spent(scid, at),
                Queued::Control(GossipInput::SpendReverted(scid)) => self.gossip.spend_reverted(scid),
                // The queue turns these into announcements and queries.
                Queued::Control(GossipInput::Message { .. } | GossipInput::Own(_)) => {}
            }
        }
        let now = GossipTime { unix_seconds: now_ms / 1_000, tip: self.tip };
        if !announcements.is_empty() {
            let incoming: Vec<IncomingGossip<'_>> =
                announcements.iter().map(|(from, message)| IncomingGossip { from: *from, message }).collect();
            let outcome = self.gossip.ingest(&incoming, now);
            self.apply_outcome(outcome);
        }
        self.run_timers(now, now_ms);
    }

    /// Does periodic work that is due.
    fn run_timers(&mut self, now: GossipTime, now_ms: u64) {
        if now_ms.saturating_sub(self.pruned_ms) >= PRUNE_MS {
            self.pruned_ms = now_ms;
            let outcome = self.gossip.prune(now);
            self.apply_outcome(outcome);
            if let Err(error) = self.gossip.compact() {
                tracing::warn!(%error, "the gossip store could not be rewritten");
            }
        }
        self.publish_changes(now_ms);
        self.flush();
        let flush = now_ms.saturating_sub(self.relayed_ms) >= RELAY_MS;
        if flush {
            self.relayed_ms = now_ms;
        }
        for peer in self.connected.clone() {
            self.send_pending(peer, flush);
        }
    }

    /// Asks a peer for new gossip, and the first few peers for all their gossip.
    fn request_gossip(&mut self, peer: NodeId, now: GossipTime) {
        let everything = self.connected.len() < SYNC_PEERS_MAX;
        self.connected.insert(peer);
        let first_timestamp =
            if everything { 0 } else { u32::try_from(now.unix_seconds).unwrap_or(u32::MAX) };
        let filter = GossipTimestampFilter {
            chain_hash: self.chain_hash,
            first_timestamp,
            timestamp_range: u32::MAX,
            unknown: UnknownTlvs::default(),
        };
        self.peers.send(peer, Message::from(filter).encode());
    }

    fn query(&mut self, peer: NodeId, message: &Message, now: GossipTime) {
        match self.gossip.query(peer, message, now) {
            Ok(()) => {}
            // Replies to queries that we never send, and queries above the rate limit, go unanswered.
            Err(QueryRefusal::NotAQuery { .. } | QueryRefusal::RateLimited) => {}
            Err(refusal) => self.disconnect(peer, &refusal.to_string()),
        }
    }

    /// Sends answers to a peer's queries, and new gossip that passes its filter, as far as there is room.
    fn send_pending(&mut self, peer: NodeId, relay: bool) {
        let room = self.peers.room(peer);
        let drawn = self.gossip.answer(peer, room).and_then(|answers| {
            let left = room.saturating_sub(answers.iter().map(Vec::len).sum());
            let news = if relay || answers.is_empty() && left > 0 && self.catches_up(peer) {
                self.gossip.relay(peer, left)?
            } else {
                Vec::new()
            };
            Ok(answers.into_iter().chain(news))
        });
        match drawn {
            Ok(messages) => messages.for_each(|message| self.peers.send(peer, message)),
            Err(error) => tracing::warn!(%error, %peer, "the gossip store could not be read"),
        }
    }

    /// Whether a peer is being sent old gossip, which does not wait for the next minute.
    fn catches_up(&self, peer: NodeId) -> bool {
        self.gossip.backlog_bytes(peer) > CATCH_UP_BYTES
    }

    fn apply_outcome(&mut self, outcome: GossipOutcome) {
        self.changes.extend(outcome.changes);
        outcome.lookups.into_iter().for_each(|lookup| self.peers.look_up(lookup));
        for peer in outcome.disconnect {
            self.disconnect(peer, "too much gossip with invalid signatures");
        }
    }

    fn disconnect(&mut self, peer: NodeId, why: &str) {
        tracing::info!(%peer, why, "disconnecting over gossip");
        let warning = Warning {
            channel_id: ChannelId([0; 32]),
            data: why.as_bytes().to_vec(),
            unknown: UnknownTlvs::default(),
        };
        self.peers.send(peer, Message::from(warning).encode());
        self.peers.disconnect(peer);
    }

    /// Applies changes to the graph. Changes of channels are collected for a second, since they need a new layout.
    fn publish_changes(&mut self, now_ms: u64) {
        let policies_only = self.changes.iter().all(|change| {
            matches!(change, GraphChange::PolicySet { .. } | GraphChange::PolicyRemoved { .. })
        });
        if self.changes.is_empty() || !policies_only && now_ms.saturating_sub(self.rebuilt_ms) < REBUILD_MS {
            return;
        }
        if !policies_only {
            self.rebuilt_ms = now_ms;
        }
        let changes = std::mem::take(&mut self.changes);
        if let Err(error) = self.graph.apply(&changes) {
            tracing::error!(%error, "the graph does not match the gossip store");
        }
    }

    fn flush(&mut self) {
        if let Err(error) = self.gossip.flush() {
            tracing::warn!(%error, "the gossip store could not be written");
        }
    }
}

/// A peer with a longer backlog does not wait for the next minute.
const CATCH_UP_BYTES: u64 = 1 << 20;

#[cfg(test)]
mod tests;
