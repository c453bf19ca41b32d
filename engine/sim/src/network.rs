//! The network: nodes, links between them, and the steps that move bytes, blocks and time.
//!
//! Owns the execution of a node's [`Outbox`] in its order, the delivery of messages over links that delay and break,
//! and the feeding of every checker. Does not decide the events of a run; `scenario` does.
//!
//! Invariant: everything that happens is a [`Step`] of the agenda, and every checker sees it before the next one.

use std::collections::BTreeMap;

use fulmen::chain::ChainEvent;
use fulmen::driver::{Outbox, ShardDriver};
use fulmen_proto::forward::{ChannelRef, Command, Event, NodeConfig, Now};
use fulmen_proto::keys::NodeSeed;
use fulmen_wire::message::Message;
use fulmen_wire::units::{BlockHeight, ChannelId, NodeId, PaymentHash, PaymentPreimage};

use crate::agenda::Agenda;
use crate::chain::SimChain;
use crate::commitments::{CommitmentModel, Sending};
use crate::draw::Draw;
use crate::flow::{Flow, add_committed, removal_committed};
use crate::ledger::{ChannelFacts, EventTotals};
use crate::store::MemoryStore;
use crate::trace::Trace;
use crate::violation::{Violation, ensure, violation};

/// One thing that happens.
#[derive(Debug)]
pub(crate) enum Step {
    /// A link comes up, if it is down.
    Connect { link: usize },
    /// A link breaks, if faults are on: its messages under way are lost.
    Sever { link: usize },
    /// One end notices that the connection of this epoch is gone.
    NoticeDisconnect { link: usize, end: usize, epoch: u64 },
    /// Bytes arrive at one end; the first of a connection are its `init`.
    Deliver { link: usize, end: usize, epoch: u64, bytes: Vec<u8> },
    /// A node runs a turn.
    Turn { node: usize },
    /// A second has passed.
    Tick,
    /// A block is found.
    Mine,
    /// A node hears of a block.
    Block { node: usize, height: BlockHeight },
    /// An operator acts; the details are drawn when the step comes.
    UserAction(UserAction),
}

/// An action of an operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum UserAction {
    Pay,
    ChangeFee,
    Close,
    Recall,
}

/// A node, its store and its bookkeeping.
#[derive(Debug)]
pub(crate) struct SimNode {
    pub(crate) driver: ShardDriver,
    pub(crate) id: NodeId,
    pub(crate) seed: [u8; 32],
    pub(crate) config: NodeConfig,
    pub(crate) store: MemoryStore,
    pub(crate) totals: EventTotals,
    /// The longest a node lets inputs wait for its turn.
    pub(crate) lag_ms: u64,
    turn_due: bool,
    /// When its last block arrives, so that none overtakes another.
    last_block_ms: u64,
    /// The refusals it reported that no sender has heard of yet, by payment hash and failure code.
    pub(crate) refusals: BTreeMap<(PaymentHash, u16), usize>,
}

/// A link between two nodes.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) ends: [usize; 2],
    pub(crate) up: bool,
    latency_ms: u64,
    epoch: u64,
    /// The connection each end believes in.
    sessions: [Option<u64>; 2],
    /// When the last message towards each end arrives: messages do not overtake one another.
    last_ms: [u64; 2],
}

/// The faults of links, blocks and nodes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LinkFaults {
    /// Whether links break.
    pub(crate) enabled: bool,
    /// How long a link holds on average.
    pub(crate) uptime_ms: u64,
    /// How long it is down at most.
    pub(crate) downtime_ms: u64,
    /// How many messages of a hundred take long.
    pub(crate) slow_percent: u64,
    /// How late a block is at most.
    pub(crate) block_delay_ms: u64,
    /// The percentage of turns after which the node crashes.
    pub(crate) crash_percent: u64,
}

/// Counters for the report.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) messages: u64,
    pub(crate) disconnects: u64,
    pub(crate) crashes: u64,
    pub(crate) fee_changes: u64,
    pub(crate) forwards: u64,
}

/// The whole state of a run.
pub(crate) struct Network {
    pub(crate) draw: Draw,
    pub(crate) agenda: Agenda<Step>,
    pub(crate) nodes: Vec<SimNode>,
    pub(crate) links: Vec<Link>,
    pub(crate) faults: LinkFaults,
    pub(crate) chain: SimChain,
    pub(crate) channels: Vec<ChannelFacts>,
    pub(crate) commitments: Vec<CommitmentModel>,
    pub(crate) by_channel_id: BTreeMap<ChannelId, usize>,
    pub(crate) flow: Flow,
    pub(crate) trace: Trace,
    pub(crate) counts: Counts,
}

impl Network {
    pub(crate) fn new(draw: Draw, faults: LinkFaults, trace: Trace) -> Network {
        Network {
            draw,
            agenda: Agenda::new(),
            nodes: Vec::new(),
            links: Vec::new(),
            faults,
            chain: SimChain::default(),
            channels: Vec::new(),
            commitments: Vec::new(),
            by_channel_id: BTreeMap::new(),
            flow: Flow::default(),
            trace,
            counts: Counts::default(),
        }
    }

    pub(crate) fn add_node(&mut self, config: NodeConfig, lag_ms: u64) {
        let seed = self.draw.bytes();
        let driver = ShardDriver::new(NodeSeed::new(seed), config.clone());
        self.nodes.push(SimNode {
            id: driver.id(),
            driver,
            seed,
            config,
            store: MemoryStore::default(),
            totals: EventTotals::default(),
            lag_ms,
            turn_due: false,
            last_block_ms: 0,
            refusals: BTreeMap::new(),
        });
    }

    /// The link between two nodes, made if there is none.
    pub(crate) fn link(&mut self, ends: [usize; 2]) -> usize {
        let same = |link: &Link| link.ends == ends || link.ends == [ends[1], ends[0]];
        if let Some(link) = self.links.iter().position(same) {
            return link;
        }
        let latency_ms = self.draw.pick(&[1, 10, 40, 200]);
        let link = Link { ends, up: false, latency_ms, epoch: 0, sessions: [None; 2], last_ms: [0; 2] };
        self.links.push(link);
        self.links.len() - 1
    }

    pub(crate) fn command(&mut self, node: usize, command: Command) {
        self.nodes[node].driver.command(command);
        self.wake(node);
    }

    /// Executes one step.
    pub(crate) fn step(&mut self, step: Step) -> Result<(), Violation> {
        match step {
            Step::Connect { link } => self.connect(link),
            Step::Sever { link } => self.sever(link),
            Step::NoticeDisconnect { link, end, epoch } => {
                if self.links[link].sessions[end] == Some(epoch) {
                    self.disconnect_end(link, end);
                }
            }
            Step::Deliver { link, end, epoch, bytes } => return self.deliver(link, end, epoch, &bytes),
            Step::Turn { node } => return self.turn(node),
            Step::Tick => (0..self.nodes.len()).for_each(|node| self.wake(node)),
            Step::Mine => self.mine(),
            Step::Block { node, height } => {
                let block = self.chain.block(height);
                self.nodes[node].driver.chain_event(&ChainEvent::Connected { height, block });
                self.wake(node);
            }
            Step::UserAction(act) => return self.act(act),
        }
        Ok(())
    }

    fn now_ms(&self) -> u64 {
        self.agenda.now_ms()
    }

    fn wake(&mut self, node: usize) {
        if !self.nodes[node].turn_due {
            self.nodes[node].turn_due = true;
            let delay_ms = self.draw.between(0, self.nodes[node].lag_ms);
            self.agenda.after(delay_ms, Step::Turn { node });
        }
    }

    fn connect(&mut self, link: usize) {
        if self.links[link].up {
            return;
        }
        self.links[link].up = true;
        self.links[link].epoch += 1;
        self.links[link].last_ms = [0; 2];
        let (ends, epoch) = (self.links[link].ends, self.links[link].epoch);
        self.trace.note(self.now_ms(), format_args!("link {ends:?} up, epoch {epoch}"), &[]);
        for end in 0..2 {
            let init = self.nodes[ends[1 - end]].driver.init();
            self.transmit(link, end, init);
        }
        let (least, most) = (self.faults.uptime_ms / 4, self.faults.uptime_ms * 2);
        let uptime_ms = self.draw.between(least, most);
        self.agenda.after(uptime_ms, Step::Sever { link });
    }

    fn sever(&mut self, link: usize) {
        if !self.links[link].up || !self.faults.enabled {
            return;
        }
        self.links[link].up = false;
        self.counts.disconnects += 1;
        let (ends, epoch) = (self.links[link].ends, self.links[link].epoch);
        self.trace.note(self.now_ms(), format_args!("link {ends:?} down"), &[]);
        for end in 0..2 {
            // Now and then an end learns of it only by the next connection.
            let late_ms = self.draw.pick(&[0, 0, 20, 200, 5_000]);
            let delay_ms = self.draw.between(0, late_ms);
            self.agenda.after(delay_ms, Step::NoticeDisconnect { link, end, epoch });
        }
        let downtime_ms = self.draw.between(1, self.faults.downtime_ms);
        self.agenda.after(downtime_ms, Step::Connect { link });
    }

    fn disconnect_end(&mut self, link: usize, end: usize) {
        let node = self.links[link].ends[end];
        let peer = self.nodes[self.links[link].ends[1 - end]].id;
        self.trace.note(self.now_ms(), format_args!("node {node} lost {peer}"), &[]);
        self.end_session(link, end);
        self.nodes[node].driver.disconnected(peer);
        self.wake(node);
    }

    /// Ends the connection that an end believes in, and with it all updates of that end which it has not signed.
    fn end_session(&mut self, link: usize, end: usize) {
        let Link { ends, sessions, .. } = &mut self.links[link];
        if sessions[end].take().is_none() {
            return;
        }
        let (node, ends) = (ends[end], *ends);
        for (channel, facts) in self.channels.iter().enumerate() {
            if ends.iter().all(|end| facts.ends.contains(end)) {
                for id in self.commitments[channel].disconnected(facts.end_of(node)) {
                    self.flow.withdrawn(channel, node, id);
                }
            }
        }
    }

    /// Puts bytes on their way to one end of a link.
    fn transmit(&mut self, link: usize, end: usize, bytes: Vec<u8>) {
        let slow = self.draw.percent(self.faults.slow_percent);
        let most_ms = if slow { 5_000 } else { self.links[link].latency_ms };
        let delay_ms = self.draw.between(self.links[link].latency_ms.min(most_ms) / 2, most_ms);
        let at_ms = (self.now_ms() + delay_ms).max(self.links[link].last_ms[end]);
        self.links[link].last_ms[end] = at_ms;
        let epoch = self.links[link].epoch;
        self.agenda.at(at_ms, Step::Deliver { link, end, epoch, bytes });
    }

    fn deliver(&mut self, link: usize, end: usize, epoch: u64, bytes: &[u8]) -> Result<(), Violation> {
        let Link { ends, up, epoch: current, sessions, .. } = self.links[link];
        if !up || epoch != current {
            return Ok(());
        }
        let (node, sender) = (ends[end], ends[1 - end]);
        let peer = self.nodes[sender].id;
        if sessions[end] != Some(epoch) {
            let connected = self.nodes[node].driver.connected(peer, bytes);
            ensure!(connected.is_ok(), NoComplaints, "node {node} refuses node {sender}: {connected:?}");
            self.end_session(link, end);
            self.links[link].sessions[end] = Some(epoch);
            self.wake(node);
            return Ok(());
        }
        let received = self.nodes[node].driver.receive(peer, bytes);
        ensure!(
            received.is_ok(),
            NoComplaints,
            "node {node} cannot take a message of node {sender}: {received:?}"
        );
        self.wake(node);
        let Ok(message) = Message::decode(bytes) else { return Ok(()) };
        self.trace.note(self.now_ms(), format_args!("{sender} > {node} {}", brief(&message)), bytes);
        let Some(channel) = message.channel_id().and_then(|id| self.by_channel_id.get(&id).copied()) else {
            return Ok(());
        };
        self.commitments[channel].delivered(self.channels[channel].end_of(sender), &message);
        if let Message::UpdateFulfillHtlc(fulfill) = message {
            self.flow.fulfill_delivered(channel, node, fulfill.id);
        }
        Ok(())
    }

    fn mine(&mut self) {
        let height = self.chain.mine();
        self.trace.note(self.now_ms(), format_args!("block {}", height.0), &[]);
        for node in 0..self.nodes.len() {
            let late_ms = if self.draw.percent(20) { self.faults.block_delay_ms } else { 300 };
            let delay_ms = self.draw.between(0, late_ms);
            let at_ms = (self.now_ms() + delay_ms).max(self.nodes[node].last_block_ms);
            self.nodes[node].last_block_ms = at_ms;
            self.agenda.at(at_ms, Step::Block { node, height });
        }
    }

    /// Runs a node's turn, and executes its outbox in order.
    fn turn(&mut self, node: usize) -> Result<(), Violation> {
        self.nodes[node].turn_due = false;
        let now = Now { unix_ms: self.now_ms() };
        let Outbox { record, send, disconnect, broadcast, events } = self.nodes[node].driver.turn(now);
        self.nodes[node].store.persist(&record);
        for (peer, bytes) in send {
            self.sent(node, peer, bytes)?;
        }
        ensure!(disconnect.is_empty(), NoComplaints, "node {node} drops {disconnect:?}");
        for transaction in &broadcast {
            let taken = self.chain.broadcast(transaction);
            ensure!(
                taken.is_ok(),
                Closing,
                "node {node} broadcasts {}, while {taken:?} spends the same",
                transaction.compute_txid()
            );
        }
        for event in events {
            self.emitted(node, event)?;
        }
        self.check_channels(node)?;
        let SimNode { store, driver: at, .. } = &mut self.nodes[node];
        if self.draw.percent(5) {
            store.checkpoint(at.shard());
        }
        if self.faults.enabled && !at.has_work(now) && self.draw.percent(self.faults.crash_percent) {
            self.crash(node)?;
        }
        Ok(())
    }

    /// Kills a node and starts it again from its store. Messages to and from it are lost.
    fn crash(&mut self, node: usize) -> Result<(), Violation> {
        self.counts.crashes += 1;
        self.trace.note(self.now_ms(), format_args!("node {node} dies"), &[]);
        let sim_node = &mut self.nodes[node];
        let restored = sim_node.store.restore(sim_node.seed, &sim_node.config)?;
        let height = restored.shard.occupancy().height;
        sim_node.driver = ShardDriver::restored(restored.shard);
        for height in (1..=height.0).map(BlockHeight) {
            let block = self.chain.block(height);
            sim_node.driver.chain_event(&ChainEvent::Connected { height, block });
        }
        for transaction in &restored.broadcast {
            let taken = self.chain.broadcast(transaction);
            ensure!(taken.is_ok(), Closing, "node {node} broadcasts, while {taken:?} spends the same");
        }
        for link in 0..self.links.len() {
            if let Some(end) = self.links[link].ends.iter().position(|end| *end == node) {
                self.sever(link);
                self.end_session(link, end);
            }
        }
        self.wake(node);
        Ok(())
    }

    fn sent(&mut self, node: usize, peer: NodeId, bytes: Vec<u8>) -> Result<(), Violation> {
        let end_of = |link: &Link| link.ends.iter().position(|end| *end == node);
        let node_of = |id: NodeId| self.nodes.iter().position(|sim_node| sim_node.id == id);
        let receiver = node_of(peer).unwrap_or_default();
        let link =
            self.links.iter().position(|link| link.ends.contains(&node) && link.ends.contains(&receiver));
        let Some((link, end)) = link.and_then(|link| Some((link, end_of(&self.links[link])?))) else {
            return violation!(NoComplaints, "node {node} writes to a stranger");
        };
        self.counts.messages += 1;
        let message = Message::decode(&bytes);
        ensure!(message.is_ok(), NoComplaints, "node {node} sends what does not decode: {message:?}");
        let Ok(message) = message else { return Ok(()) };
        self.trace.note(self.now_ms(), format_args!("{node} : {receiver} {}", brief(&message)), &bytes);
        // Messages to a connection that ends in the same turn count as never sent.
        let Some(session) = self.links[link].sessions[end] else { return Ok(()) };
        self.observe(node, session, &message, &bytes)?;
        if self.links[link].up && self.links[link].epoch == session {
            self.transmit(link, 1 - end, bytes);
        }
        Ok(())
    }

    /// Shows a message to the checkers.
    fn observe(
        &mut self,
        node: usize,
        session: u64,
        message: &Message,
        bytes: &[u8],
    ) -> Result<(), Violation> {
        let complaint = match message {
            Message::Warning(warning) => Some(warning.text()),
            Message::ErrorMessage(error) => Some(error.text()),
            _ => None,
        };
        ensure!(
            complaint.is_none(),
            NoComplaints,
            "node {node} complains: {}",
            complaint.unwrap_or_default()
        );
        let Some(channel) = message.channel_id().and_then(|id| self.by_channel_id.get(&id).copied()) else {
            return Ok(());
        };
        let end = self.channels[channel].end_of(node);
        let said = self.commitments[channel].sent(end, session, message, bytes)?;
        if said == Sending::Repeated {
            return Ok(());
        }
        let commitments = &self.commitments;
        let channels = &self.channels;
        let failed = |channel: usize, at: usize, id: u64| {
            removal_committed(&commitments[channel], channels[channel].end_of(at), id)
        };
        let committed = |channel: usize, at: usize, id: u64| {
            add_committed(&commitments[channel], channels[channel].end_of(at), id)
        };
        let (id, preimage): (u64, Option<PaymentPreimage>) = match message {
            Message::UpdateAddHtlc(add) => {
                let ends = channels[channel].ends;
                let alike = |other: &usize| {
                    let facts = &channels[*other];
                    *other != channel && (facts.ends == ends || facts.ends == [ends[1], ends[0]])
                };
                let parallel: Vec<usize> = (0..channels.len()).filter(alike).collect();
                return self.flow.added(channel, &parallel, node, add, committed);
            }
            Message::UpdateFulfillHtlc(fulfill) => (fulfill.id, Some(fulfill.payment_preimage)),
            Message::UpdateFailHtlc(fail) => (fail.id, None),
            Message::UpdateFailMalformedHtlc(fail) => (fail.id, None),
            _ => return Ok(()),
        };
        let from = channels[channel].ends[1 - end];
        let amount = self.flow.ended(channel, (node, from), id, preimage, failed)?;
        if preimage.is_some() {
            self.channels[channel].fulfilled(1 - end, id, amount);
        }
        Ok(())
    }

    /// Compares all channels of a node with the ledger and with the messages on the wire.
    fn check_channels(&mut self, node: usize) -> Result<(), Violation> {
        let shard = self.nodes[node].driver.shard();
        for (facts, model) in self.channels.iter_mut().zip(&self.commitments) {
            let Some(channel_id) = facts.channel_id.filter(|_| facts.ends.contains(&node)) else { continue };
            let Some(channel) = shard.channel(ChannelRef::Id(channel_id)) else { continue };
            let end = facts.end_of(node);
            facts.check(end, channel)?;
            let Some((local, remote)) = channel.commitment_numbers() else { continue };
            ensure!(
                model.signed(end) == remote.0 && model.revoked(end) <= local.0,
                Commitments,
                "node {node} counts commitments {local:?} and {remote:?} of {channel_id:?}, it signed {} and revoked {}",
                model.signed(end),
                model.revoked(end)
            );
        }
        Ok(())
    }

    /// Checks that a node's records restore its present state.
    pub(crate) fn check_restart(&self, node: usize) -> Result<(), Violation> {
        let sim_node = &self.nodes[node];
        let shard = sim_node.driver.shard();
        let restored = sim_node.store.restore(sim_node.seed, &sim_node.config)?.shard;
        ensure!(
            restored.occupancy() == shard.occupancy(),
            Restart,
            "node {node} comes back with {:?} instead of {:?}",
            restored.occupancy(),
            shard.occupancy()
        );
        for (then, now) in restored.channels().zip(shard.channels()) {
            let same = then.id() == now.id()
                && then.state() == now.state()
                && then.balances() == now.balances()
                && then.commitment_numbers() == now.commitment_numbers()
                && then.next_htlc_id() == now.next_htlc_id();
            ensure!(same, Restart, "channel {:?} of node {node} comes back different", now.id());
        }
        Ok(())
    }

    fn emitted(&mut self, node: usize, event: Event) -> Result<(), Violation> {
        self.trace.note(self.now_ms(), format_args!("{node} ! {}", brief_event(&event)), &[]);
        self.event(node, event)
    }
}

/// A message in a few words.
fn brief(message: &Message) -> String {
    match message {
        Message::UpdateAddHtlc(add) => format!("update_add_htlc {} of {}", add.id, add.amount_msat),
        Message::UpdateFulfillHtlc(fulfill) => format!("update_fulfill_htlc {}", fulfill.id),
        Message::UpdateFailHtlc(fail) => format!("update_fail_htlc {}", fail.id),
        Message::UpdateFailMalformedHtlc(fail) => format!("update_fail_malformed_htlc {}", fail.id),
        Message::UpdateFee(fee) => format!("update_fee {}", fee.feerate_per_kw.0),
        Message::ChannelReestablish(again) => {
            let (next, revoked) = (again.next_commitment_number, again.next_revocation_number);
            format!("channel_reestablish next {next}, revoked {revoked}")
        }
        Message::ClosingSigned(closing) => format!("closing_signed {}", closing.fee_satoshis),
        Message::Warning(warning) => format!("warning: {}", warning.text()),
        Message::ErrorMessage(error) => format!("error: {}", error.text()),
        other => other.name().to_owned(),
    }
}

/// An event in a few words, without its long parts.
fn brief_event(event: &Event) -> String {
    let mut text = format!("{event:?}");
    text.truncate(160);
    text
}
