//! The network: nodes, links between them, and the steps that move bytes, blocks and time.
//!
//! Owns the execution of a node's [`Outbox`] in its order, the delivery of messages over links that delay and break, and
//! the feeding of every checker. Does not decide what happens in a run; `scenario` does.
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
use crate::dance::{Dance, Said};
use crate::draw::Draw;
use crate::flow::{Flow, add_committed, removal_committed};
use crate::ledger::{Books, ChannelFacts};
use crate::store::MemoryStore;
use crate::trace::Trace;
use crate::violation::{Violation, ensure};

/// One thing that happens.
#[derive(Debug)]
pub(crate) enum Step {
    /// A link comes up, if it is down.
    Connect { link: usize },
    /// A link breaks, if faults are on: what is under way on it is lost.
    Sever { link: usize },
    /// One end notices that the connection of this epoch is gone.
    Notice { link: usize, end: usize, epoch: u64 },
    /// Bytes arrive at one end; the first of a connection are its `init`.
    Deliver { link: usize, end: usize, epoch: u64, bytes: Vec<u8> },
    /// A node does what waits.
    Turn { node: usize },
    /// A second has passed.
    Tick,
    /// A block is found.
    Mine,
    /// A node hears of a block.
    Block { node: usize, height: BlockHeight },
    /// Somebody wants something; what, is drawn when the time has come.
    Act(Act),
}

/// What somebody wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    Pay,
    ChangeFee,
    Close,
    Recall,
}

/// A node and what stands around it.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) node: ShardDriver,
    pub(crate) id: NodeId,
    pub(crate) seed: [u8; 32],
    pub(crate) config: NodeConfig,
    pub(crate) store: MemoryStore,
    pub(crate) books: Books,
    /// The longest a node lets inputs wait for its turn.
    pub(crate) lag_ms: u64,
    turn_due: bool,
    /// When its last block arrives, so that none overtakes another.
    last_block_ms: u64,
    /// The refusals it reported, by what they concern, that no sender has heard of yet.
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

/// How the network treats what it carries.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Weather {
    /// Whether links break.
    pub(crate) faults: bool,
    /// How long a link holds on average.
    pub(crate) uptime_ms: u64,
    /// How long it is down at most.
    pub(crate) downtime_ms: u64,
    /// How many messages of a hundred take long.
    pub(crate) slow_percent: u64,
    /// How late a block is at most.
    pub(crate) block_delay_ms: u64,
    /// After how many turns of a hundred a node dies.
    pub(crate) crash_percent: u64,
}

/// What is counted for the report.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) messages: u64,
    pub(crate) disconnects: u64,
    pub(crate) crashes: u64,
    pub(crate) fee_changes: u64,
    pub(crate) forwards: u64,
}

/// Everything there is in a run.
pub(crate) struct Network {
    pub(crate) draw: Draw,
    pub(crate) agenda: Agenda<Step>,
    pub(crate) places: Vec<Place>,
    pub(crate) links: Vec<Link>,
    pub(crate) weather: Weather,
    pub(crate) chain: SimChain,
    pub(crate) channels: Vec<ChannelFacts>,
    pub(crate) dances: Vec<Dance>,
    pub(crate) by_channel_id: BTreeMap<ChannelId, usize>,
    pub(crate) flow: Flow,
    pub(crate) trace: Trace,
    pub(crate) counts: Counts,
}

impl Network {
    pub(crate) fn new(draw: Draw, weather: Weather, trace: Trace) -> Network {
        Network {
            draw,
            agenda: Agenda::new(),
            places: Vec::new(),
            links: Vec::new(),
            weather,
            chain: SimChain::default(),
            channels: Vec::new(),
            dances: Vec::new(),
            by_channel_id: BTreeMap::new(),
            flow: Flow::default(),
            trace,
            counts: Counts::default(),
        }
    }

    pub(crate) fn add_node(&mut self, config: NodeConfig, lag_ms: u64) {
        let seed = self.draw.bytes();
        let node = ShardDriver::new(NodeSeed::new(seed), config.clone());
        self.places.push(Place {
            id: node.id(),
            node,
            seed,
            config,
            store: MemoryStore::default(),
            books: Books::default(),
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
        self.places[node].node.command(command);
        self.wake(node);
    }

    /// Does one step.
    pub(crate) fn step(&mut self, step: Step) -> Result<(), Violation> {
        match step {
            Step::Connect { link } => self.connect(link),
            Step::Sever { link } => self.sever(link),
            Step::Notice { link, end, epoch } => {
                if self.links[link].sessions[end] == Some(epoch) {
                    self.hang_up(link, end);
                }
            }
            Step::Deliver { link, end, epoch, bytes } => return self.deliver(link, end, epoch, &bytes),
            Step::Turn { node } => return self.turn(node),
            Step::Tick => (0..self.places.len()).for_each(|node| self.wake(node)),
            Step::Mine => self.mine(),
            Step::Block { node, height } => {
                let block = self.chain.block(height);
                self.places[node].node.chain_event(&ChainEvent::Connected { height, block });
                self.wake(node);
            }
            Step::Act(act) => return self.act(act),
        }
        Ok(())
    }

    fn now_ms(&self) -> u64 {
        self.agenda.now_ms()
    }

    fn wake(&mut self, node: usize) {
        if !self.places[node].turn_due {
            self.places[node].turn_due = true;
            let delay_ms = self.draw.between(0, self.places[node].lag_ms);
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
            let init = self.places[ends[1 - end]].node.init();
            self.transmit(link, end, init);
        }
        let (least, most) = (self.weather.uptime_ms / 4, self.weather.uptime_ms * 2);
        let uptime_ms = self.draw.between(least, most);
        self.agenda.after(uptime_ms, Step::Sever { link });
    }

    fn sever(&mut self, link: usize) {
        if !self.links[link].up || !self.weather.faults {
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
            self.agenda.after(delay_ms, Step::Notice { link, end, epoch });
        }
        let downtime_ms = self.draw.between(1, self.weather.downtime_ms);
        self.agenda.after(downtime_ms, Step::Connect { link });
    }

    fn hang_up(&mut self, link: usize, end: usize) {
        let node = self.links[link].ends[end];
        let peer = self.places[self.links[link].ends[1 - end]].id;
        self.trace.note(self.now_ms(), format_args!("node {node} lost {peer}"), &[]);
        self.links[link].sessions[end] = None;
        self.places[node].node.disconnected(peer);
        self.wake(node);
    }

    /// Puts bytes on their way to one end of a link.
    fn transmit(&mut self, link: usize, end: usize, bytes: Vec<u8>) {
        let slow = self.draw.percent(self.weather.slow_percent);
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
        let peer = self.places[sender].id;
        if sessions[end] != Some(epoch) {
            let connected = self.places[node].node.connected(peer, bytes);
            ensure!(connected.is_ok(), Peace, "node {node} refuses node {sender}: {connected:?}");
            self.links[link].sessions[end] = Some(epoch);
            self.wake(node);
            return Ok(());
        }
        let received = self.places[node].node.receive(peer, bytes);
        ensure!(received.is_ok(), Peace, "node {node} cannot take a message of node {sender}: {received:?}");
        self.wake(node);
        let Ok(message) = Message::decode(bytes) else { return Ok(()) };
        self.trace.note(self.now_ms(), format_args!("{sender} > {node} {}", brief(&message)), bytes);
        let Some(channel) = message.channel_id().and_then(|id| self.by_channel_id.get(&id).copied()) else {
            return Ok(());
        };
        self.dances[channel].delivered(self.channels[channel].end_of(sender), &message);
        if let Message::UpdateFulfillHtlc(fulfil) = message {
            self.flow.fulfil_delivered(channel, node, fulfil.id);
        }
        Ok(())
    }

    fn mine(&mut self) {
        let height = self.chain.mine();
        self.trace.note(self.now_ms(), format_args!("block {}", height.0), &[]);
        for node in 0..self.places.len() {
            let late_ms = if self.draw.percent(20) { self.weather.block_delay_ms } else { 300 };
            let delay_ms = self.draw.between(0, late_ms);
            let at_ms = (self.now_ms() + delay_ms).max(self.places[node].last_block_ms);
            self.places[node].last_block_ms = at_ms;
            self.agenda.at(at_ms, Step::Block { node, height });
        }
    }

    /// Has a node do what waits, and executes what comes out, in its order.
    fn turn(&mut self, node: usize) -> Result<(), Violation> {
        self.places[node].turn_due = false;
        let now = Now { unix_ms: self.now_ms() };
        let Outbox { record, send, disconnect, broadcast, events } = self.places[node].node.turn(now);
        self.places[node].store.persist(&record);
        for (peer, bytes) in send {
            self.sent(node, peer, bytes)?;
        }
        ensure!(disconnect.is_empty(), Peace, "node {node} drops {disconnect:?}");
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
            self.told(node, event)?;
        }
        self.check_channels(node)?;
        let Place { store, node: at, .. } = &mut self.places[node];
        if self.draw.percent(5) {
            store.checkpoint(at.shard());
        }
        if self.weather.faults && !at.has_work(now) && self.draw.percent(self.weather.crash_percent) {
            self.crash(node)?;
        }
        Ok(())
    }

    /// Has a node die and start again from what it stored. What was under way to and from it is lost.
    fn crash(&mut self, node: usize) -> Result<(), Violation> {
        self.counts.crashes += 1;
        self.trace.note(self.now_ms(), format_args!("node {node} dies"), &[]);
        let place = &mut self.places[node];
        let restored = place.store.restore(place.seed, &place.config)?;
        let height = restored.shard.occupancy().height;
        place.node = ShardDriver::restored(restored.shard);
        for height in (1..=height.0).map(BlockHeight) {
            let block = self.chain.block(height);
            place.node.chain_event(&ChainEvent::Connected { height, block });
        }
        for transaction in &restored.broadcast {
            let taken = self.chain.broadcast(transaction);
            ensure!(taken.is_ok(), Closing, "node {node} broadcasts, while {taken:?} spends the same");
        }
        for link in 0..self.links.len() {
            if let Some(end) = self.links[link].ends.iter().position(|end| *end == node) {
                self.sever(link);
                self.links[link].sessions[end] = None;
            }
        }
        self.wake(node);
        Ok(())
    }

    fn sent(&mut self, node: usize, peer: NodeId, bytes: Vec<u8>) -> Result<(), Violation> {
        let end_of = |link: &Link| link.ends.iter().position(|end| *end == node);
        let place_of = |id: NodeId| self.places.iter().position(|place| place.id == id);
        let receiver = place_of(peer).unwrap_or_default();
        let link =
            self.links.iter().position(|link| link.ends.contains(&node) && link.ends.contains(&receiver));
        let Some((link, end)) = link.and_then(|link| Some((link, end_of(&self.links[link])?))) else {
            return Err(Violation::new(crate::Checker::Peace, format!("node {node} writes to a stranger")));
        };
        self.counts.messages += 1;
        let message = Message::decode(&bytes);
        ensure!(message.is_ok(), Peace, "node {node} sends what does not decode: {message:?}");
        let Ok(message) = message else { return Ok(()) };
        self.trace.note(self.now_ms(), format_args!("{node} : {receiver} {}", brief(&message)), &bytes);
        // What is written to a connection that is gone in the same turn is as good as never sent.
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
        ensure!(complaint.is_none(), Peace, "node {node} complains: {}", complaint.unwrap_or_default());
        let Some(channel) = message.channel_id().and_then(|id| self.by_channel_id.get(&id).copied()) else {
            return Ok(());
        };
        let end = self.channels[channel].end_of(node);
        let said = self.dances[channel].sent(end, session, message, bytes)?;
        if said == Said::Again {
            return Ok(());
        }
        let dances = &self.dances;
        let channels = &self.channels;
        let failed = |channel: usize, at: usize, id: u64| {
            removal_committed(&dances[channel], channels[channel].end_of(at), id)
        };
        let committed = |channel: usize, at: usize, id: u64| {
            add_committed(&dances[channel], channels[channel].end_of(at), id)
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
            Message::UpdateFulfillHtlc(fulfil) => (fulfil.id, Some(fulfil.payment_preimage)),
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

    /// Compares all channels of a node with the ledger and with what was said on the wire.
    fn check_channels(&mut self, node: usize) -> Result<(), Violation> {
        let shard = self.places[node].node.shard();
        for (facts, dance) in self.channels.iter_mut().zip(&self.dances) {
            let Some(channel_id) = facts.channel_id.filter(|_| facts.ends.contains(&node)) else { continue };
            let Some(channel) = shard.channel(ChannelRef::Id(channel_id)) else { continue };
            let end = facts.end_of(node);
            facts.check(end, channel)?;
            let Some((local, remote)) = channel.commitment_numbers() else { continue };
            ensure!(
                dance.signed(end) == remote.0 && dance.revoked(end) <= local.0,
                Commitments,
                "node {node} counts commitments {local:?} and {remote:?} of {channel_id:?}, it signed {} and revoked {}",
                dance.signed(end),
                dance.revoked(end)
            );
        }
        Ok(())
    }

    /// Checks that a node's records bring back what it is.
    pub(crate) fn check_restart(&self, node: usize) -> Result<(), Violation> {
        let place = &self.places[node];
        let shard = place.node.shard();
        let restored = place.store.restore(place.seed, &place.config)?.shard;
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

    fn told(&mut self, node: usize, event: Event) -> Result<(), Violation> {
        self.trace.note(self.now_ms(), format_args!("{node} ! {}", brief_event(&event)), &[]);
        self.event(node, event)
    }
}

/// A message in a few words.
fn brief(message: &Message) -> String {
    match message {
        Message::UpdateAddHtlc(add) => format!("update_add_htlc {} of {}", add.id, add.amount_msat),
        Message::UpdateFulfillHtlc(fulfil) => format!("update_fulfill_htlc {}", fulfil.id),
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
