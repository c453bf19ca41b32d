//! One simulated node: an [`Engine`] without threads, its paying side, and its books.
//!
//! Owns: feeding work to the engine, and turning the engine's effects into messages and notices. Does not decide who
//! pays whom. Messages cross between nodes as the bytes that would cross a wire.
//!
//! Invariant: the books know payments only: they are kept from the engine's events, never from a channel's balance.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bitcoin::{ScriptBuf, Transaction};
use fulmen::chain::ChainEvent;
use fulmen::runtime::{Connection, Effects, Engine, ReceiveError, StartError, Storage};
use fulmen_graph::path::FirstHop;
use fulmen_proto::channel::State;
use fulmen_proto::forward::{ChannelRef, Command, Event, NodeConfig, Now};
use fulmen_proto::keys::NodeSeed;
use fulmen_wire::units::{BlockHeight, ChannelId, Msat, PaymentHash, Sat, Scid};

use crate::accounting::Ledger;
use crate::exec::{Actor, Outbox};
use crate::network::Directory;
use crate::paying::{Moment, Order, Outcome, OwnChannels, PayingSide, Routing, Steps};
use crate::report::Crypto;

/// Work for a node.
pub(crate) enum Work {
    /// Connect to this node.
    Connect(usize),
    /// The first message on a new connection from this node.
    Init(usize, Vec<u8>),
    /// A message of this node, as its bytes.
    Bytes(usize, Vec<u8>),
    /// A step of the chain.
    Chain(Arc<ChainEvent>),
    /// A command of the operator.
    Command(Box<Command>),
    /// The public graph and the settings of payments: from here on the node can pay.
    Graph(Box<Routing>),
    /// Make this payment.
    Pay(Order),
    /// Time has passed: payees fail HTLCs that have waited too long for the rest of their payment.
    Tick,
}

/// An event of a node for the driver.
#[derive(Debug)]
pub(crate) enum Notice {
    /// One of the two nodes of a connection has exchanged `init`.
    Connected,
    /// A channel this node opens waits for its funding transaction.
    FundingNeeded {
        /// The node.
        node: usize,
        /// The channel's number in the run.
        channel: u64,
        /// Its name until it is funded.
        temporary_channel_id: ChannelId,
        /// The output's amount.
        amount: Sat,
        /// The output's script.
        script: ScriptBuf,
    },
    /// A channel is ready for payments on this node's side.
    ChannelReady {
        /// The channel.
        channel_id: ChannelId,
        /// Its place in the chain.
        scid: Scid,
    },
    /// A channel was closed by agreement.
    ChannelClosed {
        /// The node that says so.
        node: usize,
        /// The channel.
        channel_id: ChannelId,
        /// The node's balance in it.
        balance: Option<Msat>,
    },
    /// A transaction is to be broadcast.
    Broadcast(Box<Transaction>),
    /// A payment is over.
    Outcome(Box<Outcome>),
    /// The node refused to forward an HTLC, for lack of balance or another reason.
    Refused {
        /// The hash that locks the HTLC.
        payment_hash: PaymentHash,
        /// The channel it was to go out on.
        scid: Scid,
        /// The amount to forward.
        amount: Msat,
        /// The amount that could have been forwarded at that moment.
        available: Msat,
    },
    /// An event that must not occur in a healthy run.
    Trouble {
        /// The node.
        node: usize,
        /// A description.
        what: String,
    },
}

/// A simulated node.
pub(crate) struct SimNode {
    index: usize,
    engine: Engine,
    /// Effects of the engine that are not executed yet.
    effects: Arc<Mutex<Vec<Effects>>>,
    /// The connections that stand, by the other node's index.
    connections: BTreeMap<usize, Connection>,
    directory: Arc<Directory>,
    paying: Option<PayingSide>,
    /// This node's channels by their place in the chain.
    channels: BTreeMap<Scid, ChannelId>,
    height: BlockHeight,
    ledger: Ledger,
}

impl SimNode {
    /// The node of this index; its records are kept in `directory`, if anywhere.
    ///
    /// # Errors
    /// When the directory holds another node's records, or cannot be read.
    pub(crate) fn new(
        index: usize,
        (seed, config): (NodeSeed, NodeConfig),
        directory: Option<PathBuf>,
        nodes: Arc<Directory>,
    ) -> Result<SimNode, StartError> {
        let effects: Arc<Mutex<Vec<Effects>>> = Arc::default();
        let done = Arc::clone(&effects);
        let storage = directory.map_or(Storage::Nowhere, Storage::Directory);
        let engine = Engine::builder(seed, config, storage)
            .inline(move |effects| done.lock().unwrap_or_else(PoisonError::into_inner).push(effects))?;
        engine.chain_in_step(); // blocks are mined by the run, which gives each to every node
        Ok(SimNode {
            index,
            engine,
            effects,
            connections: BTreeMap::new(),
            directory: nodes,
            paying: None,
            channels: BTreeMap::new(),
            height: BlockHeight(0),
            ledger: Ledger::default(),
        })
    }

    /// The amounts the node paid, received and earned.
    pub(crate) fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// The cryptography the node did.
    pub(crate) fn crypto(&self) -> Crypto {
        let counters = self.engine.stats().crypto;
        Crypto {
            ecdsa_verified: counters.ecdsa_verified,
            ecdsa_signed: counters.ecdsa_signed,
            onions_peeled: counters.onions_peeled,
        }
    }

    /// HTLCs and payments not resolved: zero at the end of a run.
    pub(crate) fn unresolved(&self) -> usize {
        let mut held = 0;
        self.engine.for_each_shard(|shard| held += shard.occupancy().circuits + shard.occupancy().offered);
        held + self.paying.as_ref().map_or(0, PayingSide::in_flight)
    }

    fn work(&mut self, work: Work, now: Duration, outbox: &mut Outbox<Work, Notice>) {
        match work {
            Work::Connect(to) => outbox.messages.push((to, Work::Init(self.index, self.engine.init()))),
            Work::Init(from, init) => match self.engine.connected(self.directory.id(from), &init) {
                Ok(connection) => {
                    self.connections.insert(from, connection);
                    outbox.notices.push(Notice::Connected);
                }
                Err(error) => self.trouble(outbox, error.to_string()),
            },
            Work::Bytes(from, bytes) => self.receive(from, &bytes, now, outbox),
            Work::Chain(event) => {
                if let ChainEvent::Connected { height, .. } = &*event {
                    self.height = *height;
                }
                self.engine.chain_event(&event);
            }
            Work::Command(command) => self.command(*command, outbox),
            Work::Graph(routing) => self.paying = Some(PayingSide::new(self.engine.id(), *routing)),
            Work::Tick => self.engine.tick(),
            Work::Pay(order) => {
                let steps = self.paying(now, |paying, moment| paying.begin(order, moment));
                self.steps(steps, outbox);
            }
        }
    }

    fn receive(&mut self, from: usize, bytes: &[u8], now: Duration, outbox: &mut Outbox<Work, Notice>) {
        let Some(connection) = self.connections.get(&from).copied() else {
            return self.trouble(outbox, format!("hears node {from}, to which it has no connection"));
        };
        let mut received = self.engine.receive(connection, bytes);
        if let Err(ReceiveError::WouldBlock { .. }) = received {
            // Running the queued work is the only way to make room on this thread.
            self.run(now, outbox);
            received = self.engine.receive(connection, bytes);
        }
        if let Err(error) = received {
            self.trouble(outbox, error.to_string());
        }
    }

    fn command(&self, command: Command, outbox: &mut Outbox<Work, Notice>) {
        if let Err(error) = self.engine.command(command) {
            self.trouble(outbox, error.to_string());
        }
    }

    /// Runs the engine until it has nothing left to do: a failed payment may be tried again at once.
    fn run(&mut self, now: Duration, outbox: &mut Outbox<Work, Notice>) {
        while self.engine.has_work() {
            self.engine.step(Now { unix_ms: u64::try_from(now.as_millis()).unwrap_or(u64::MAX) });
            let effects = std::mem::take(&mut *self.effects.lock().unwrap_or_else(PoisonError::into_inner));
            for done in effects {
                for (connection, bytes) in done.send {
                    if let Some(to) = self.directory.index(connection.peer) {
                        outbox.messages.push((to, Work::Bytes(self.index, bytes)));
                    }
                }
                outbox.notices.extend(done.broadcast.into_iter().map(|tx| Notice::Broadcast(Box::new(tx))));
                for connection in done.disconnect {
                    self.trouble(outbox, format!("disconnects {}", connection.peer));
                }
                for event in done.events {
                    self.event(event, now, outbox);
                }
            }
        }
    }

    fn event(&mut self, event: Event, now: Duration, outbox: &mut Outbox<Work, Notice>) {
        match event {
            Event::FundingNeeded { temporary_channel_id, user_id: channel, amount, script, .. } => {
                let node = self.index;
                outbox.notices.push(Notice::FundingNeeded {
                    node,
                    channel,
                    temporary_channel_id,
                    amount,
                    script,
                });
            }
            Event::ChannelReady { channel_id, scid, .. } => {
                self.channels.insert(scid, channel_id);
                outbox.notices.push(Notice::ChannelReady { channel_id, scid });
            }
            Event::ChannelClosed { channel_id, .. } => {
                let channel = ChannelRef::Id(channel_id);
                let balances = self.engine.channel(channel, |channel| channel.balances()).flatten();
                let balance = balances.map(|(local, _)| local);
                outbox.notices.push(Notice::ChannelClosed { node: self.index, channel_id, balance });
            }
            Event::HtlcSettled { attempt_id, preimage } => {
                let steps = self.paying(now, |paying, moment| paying.settled(attempt_id, preimage, moment));
                self.steps(steps, outbox);
            }
            Event::HtlcFailed { attempt_id, reason } => {
                let steps = self.paying(now, |paying, moment| paying.failed(attempt_id, &reason, moment));
                self.steps(steps, outbox);
            }
            Event::PaymentReceived { amount, .. } => {
                self.ledger.received = self.ledger.received.saturating_add(amount);
            }
            Event::Forwarded { fee, .. } => {
                self.ledger.earned = self.ledger.earned.saturating_add(fee);
                self.ledger.forwards += 1;
            }
            Event::HtlcRefused { payment_hash, outgoing: Some(outgoing), .. } => {
                let refused = Notice::Refused {
                    payment_hash,
                    scid: outgoing.scid,
                    amount: outgoing.amount,
                    available: outgoing.available,
                };
                outbox.notices.push(refused);
            }
            Event::HtlcRefused { .. }
            | Event::ForwardFailed { .. }
            | Event::ChannelFunded { .. }
            | Event::OwnGossip { .. }
            | Event::Gossip { .. } => {}
            Event::ChannelFailed { channel_id, error, .. } => {
                self.trouble(outbox, format!("channel {channel_id} failed: {error}"));
            }
            Event::CommandRefused { error } => self.trouble(outbox, format!("refused a command: {error}")),
            Event::PeerWarning { text, .. } => self.trouble(outbox, format!("was warned: {text}")),
            other => self.trouble(outbox, format!("told what nobody here understands: {other:?}")),
        }
    }

    /// Calls the paying side, which sees the node as it is now.
    fn paying<E: ToString>(
        &mut self,
        now: Duration,
        call: impl FnOnce(&mut PayingSide, Moment<'_>) -> Result<Steps, E>,
    ) -> Result<Steps, String> {
        let own = self.own_channels();
        let moment = Moment { now, height: self.height, own: &own };
        let paying = self.paying.as_mut().ok_or("is to pay before it has the graph")?;
        call(paying, moment).map_err(|error| error.to_string())
    }

    fn steps(&mut self, steps: Result<Steps, String>, outbox: &mut Outbox<Work, Notice>) {
        match steps {
            Ok(steps) => {
                for send in steps.send {
                    self.command(Command::SendHtlc(send), outbox);
                }
                for outcome in steps.ended {
                    self.ledger.paid = self.ledger.paid.saturating_add(outcome.payer.sent());
                    outbox.notices.push(Notice::Outcome(Box::new(outcome)));
                }
            }
            Err(what) => self.trouble(outbox, what),
        }
    }

    /// The amount that can be spent on each of this node's channels now.
    fn own_channels(&self) -> OwnChannels {
        let mut own = OwnChannels::default();
        self.engine.for_each_shard(|shard| {
            own.extend(self.channels.iter().filter_map(|(scid, channel_id)| {
                let channel = shard.channel(ChannelRef::Id(*channel_id))?;
                let spendable = (channel.state() == State::Normal).then(|| channel.available_out())?;
                Some((*scid, FirstHop { spendable, htlc_minimum: Msat(1) }))
            }));
        });
        own
    }

    fn trouble(&self, outbox: &mut Outbox<Work, Notice>, what: String) {
        outbox.notices.push(Notice::Trouble { node: self.index, what });
    }
}

impl Actor for SimNode {
    type Work = Work;
    type Notice = Notice;

    fn turn(&mut self, work: Vec<Work>, now: Duration) -> Outbox<Work, Notice> {
        let mut outbox = Outbox::default();
        for work in work {
            self.work(work, now, &mut outbox);
        }
        self.run(now, &mut outbox);
        outbox
    }
}
