//! Gossip at work: a thread that believes what peers relay, keeps the graph up to date and tells others.
//!
//! Owns: the thread, the queue in front of it, and when what is done (believed in batches as they come, relayed once a
//! minute, pruned once an hour). The rules are `fulmen_graph::gossip`'s. Does not talk to sockets or the chain: [`Peers`]
//! does.
//!
//! An embedder hands on each [`Event::Gossip`](fulmen_proto::forward::Event::Gossip) of the engine, and says who comes and
//! goes and what the chain's height is. Whoever finds routes does so on the [`LiveGraph`] given here.
//!
//! Invariant: the queue is bounded; what does not fit is dropped, since gossip comes again. Channels are laid out anew at
//! most once a second.

mod file;

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, bounded};
use fulmen_graph::gossip::{
    FundingAnswer, FundingLookup, Gossip, GossipOutcome, GossipTime, GraphChange, IncomingGossip, Log,
    QueryRefusal, Source,
};
use fulmen_graph::live::LiveGraph;
use fulmen_wire::message::{GossipTimestampFilter, Message, Warning};
use fulmen_wire::tlv::UnknownTlvs;
use fulmen_wire::units::{BlockHeight, ChainHash, ChannelId, NodeId, Scid};

pub use file::FileLog;

use crate::runtime::Clock;

/// Does what comes of gossip. Called on the service's thread; it must not wait for a peer.
pub trait Peers: Send + 'static {
    /// How many more bytes may be sent to a peer now.
    fn room(&self, peer: NodeId) -> usize;

    /// Sends a message to a peer, if it is connected.
    fn send(&self, peer: NodeId, message: Vec<u8>);

    /// Disconnects a peer, once what was sent has gone out.
    fn disconnect(&self, peer: NodeId);

    /// Looks a funding output up, to be answered with [`GossipInput::Funding`].
    fn look_up(&self, lookup: FundingLookup);
}

/// What the service is told.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum GossipInput {
    /// A peer is connected, its `init` received.
    Connected(NodeId),
    /// A peer is gone.
    Disconnected(NodeId),
    /// A peer sent gossip or a query.
    Message {
        /// The peer.
        peer: NodeId,
        /// What it sent.
        message: Box<Message>,
    },
    /// An announcement of our own.
    Own(Box<Message>),
    /// The chain's height.
    Tip(BlockHeight),
    /// What was found of a funding output.
    Funding(FundingLookup, FundingAnswer),
    /// A channel's funding output was spent in this block.
    Spent(Scid, BlockHeight),
    /// That block is no longer of the chain.
    SpendReverted(Scid),
}

/// A running service. Dropping it ends its thread; what it believed is in the store.
#[derive(Debug)]
pub struct GossipService {
    queue: Option<Sender<GossipInput>>,
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
        let (queue, inputs) = bounded(QUEUE_MAX);
        let state = ServiceState::new(gossip, chain_hash, graph, peers);
        let thread = std::thread::Builder::new()
            .name("fulmen-gossip".into())
            .spawn(move || run(state, &inputs, &clock))?;
        Ok(GossipService { queue: Some(queue), thread: Some(thread) })
    }

    /// Tells the service something; says whether there was room for it.
    pub fn offer(&self, input: GossipInput) -> bool {
        self.queue.as_ref().is_some_and(|queue| queue.try_send(input).is_ok())
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

/// How much may wait.
const QUEUE_MAX: usize = 16_384;
/// How much is taken at once.
const BATCH_MAX: usize = 1_024;
const IDLE: Duration = Duration::from_millis(250);
const REBUILD_MS: u64 = 1_000;
const RELAY_MS: u64 = 60_000;
const PRUNE_MS: u64 = 3_600_000;
/// How many peers are asked for all they know, and not only for news.
const SYNC_PEERS_MAX: usize = 3;

fn run<L: Log, P: Peers>(mut state: ServiceState<L, P>, inputs: &Receiver<GossipInput>, clock: &impl Clock) {
    loop {
        let first = inputs.recv_timeout(IDLE);
        if matches!(first, Err(RecvTimeoutError::Disconnected)) {
            break;
        }
        let batch: Vec<GossipInput> = first.into_iter().chain(inputs.try_iter().take(BATCH_MAX)).collect();
        state.work(batch, clock.now().unix_ms);
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
    /// What the graph was not told yet.
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

    fn work(&mut self, inputs: Vec<GossipInput>, now_ms: u64) {
        let mut announcements: Vec<(Source, Vec<u8>)> = Vec::new();
        for input in inputs {
            let now = GossipTime { unix_seconds: now_ms / 1_000, tip: self.tip };
            match input {
                GossipInput::Connected(peer) => self.request_gossip(peer, now),
                GossipInput::Disconnected(peer) => {
                    self.connected.remove(&peer);
                    self.gossip.peer_disconnected(peer);
                }
                GossipInput::Own(message) => announcements.push((Source::Own, message.encode())),
                GossipInput::Message { peer, message } => match *message {
                    Message::ChannelAnnouncement(_)
                    | Message::ChannelUpdate(_)
                    | Message::NodeAnnouncement(_) => {
                        announcements.push((Source::Peer(peer), message.encode()));
                    }
                    message => self.query(peer, &message, now),
                },
                GossipInput::Tip(tip) => self.tip = Some(tip),
                GossipInput::Funding(lookup, answer) => {
                    let outcome = self.gossip.funding_answered(lookup, answer, now);
                    self.apply_outcome(outcome);
                }
                GossipInput::Spent(scid, at) => self.gossip.funding_spent(scid, at),
                GossipInput::SpendReverted(scid) => self.gossip.funding_restored(scid),
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

    /// What is done when its time has come.
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

    /// Asks a peer for what it will hear of, and the first few for all they know.
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
            // Replies to what we do not ask, and what is too much: the peer has to live without an answer.
            Err(QueryRefusal::NotAQuery { .. } | QueryRefusal::RateLimited) => {}
            Err(refusal) => self.disconnect(peer, &refusal.to_string()),
        }
    }

    /// Sends what a peer has asked for and may be told, as far as there is room.
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

    /// Whether a peer is being told what was believed long ago: that does not wait for the minute.
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

    /// Brings the graph up to date; changes of channels wait until a second's worth of them has gathered.
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
            tracing::error!(%error, "the graph and gossip have come apart");
        }
    }

    fn flush(&mut self) {
        if let Err(error) = self.gossip.flush() {
            tracing::warn!(%error, "the gossip store could not be written");
        }
    }
}

/// With more than this untold, a peer does not wait for the next minute.
const CATCH_UP_BYTES: u64 = 1 << 20;

#[cfg(test)]
mod tests;
