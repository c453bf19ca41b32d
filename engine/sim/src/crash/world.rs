//! Machines with disks, the links between them, and observations on the links.
//!
//! Owns the execution of effects in rounds, the death and restart of the forwarder, and the notes that checks need.
//! Does not decide the order of events.
//!
//! Invariant: a message that leaves a machine was put out by its engine, whole and in order; a link that breaks loses a
//! tail of its messages under way.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use fulmen::Engine;
use fulmen::chain::ChainEvent;
use fulmen::runtime::{Connection, Effects, StartError};
use fulmen::store::LogOptions;
use fulmen_proto::forward::{Command, Event, Now};
use fulmen_wire::message::Message;
use fulmen_wire::units::{BlockHeight, ChannelId, NodeId, PaymentHash};

use super::CrashPoint;
use crate::chain::SimChain;
use crate::disk::{SimDisk, Survival};
use crate::draw::Draw;
use crate::machine::{Machine, MachineSpec};
use crate::violation::{Checker, Violation, ensure, violation};

/// The forwarder's place among the machines; the others are its peers.
pub(super) const FORWARDER: usize = 0;
/// How far a round moves the clock.
const ROUND_MS: u64 = 20;
/// The rounds per second, and so per tick.
const TICK_ROUNDS: u64 = 1_000 / ROUND_MS;
/// More deaths than a run can have.
const RESTARTS_MAX: usize = 4;

/// Small enough that segments fill and checkpoints come while the script runs.
const LOG: LogOptions =
    LogOptions { segment_bytes: 6_000, log_bytes_max: 24_000, frame_bytes_max: 16 << 20, salt: 0xC4A5 };

/// All machines at rest.
#[derive(Debug)]
pub(super) struct Image {
    pub(super) machines: Vec<(MachineSpec, SimDisk)>,
}

/// The link between the forwarder and a peer.
#[derive(Debug, Default)]
struct Link {
    is_up: bool,
    /// Under way to the forwarder, and to the peer.
    under_way: [VecDeque<Vec<u8>>; 2],
    /// The connection that each end believes in, the forwarder's first.
    connections: [Option<Connection>; 2],
}

/// Observations for the checks.
#[derive(Debug, Default)]
pub(super) struct Observations {
    /// The HTLCs that the forwarder offered for a payment: channel and id.
    pub(super) offered: BTreeMap<PaymentHash, BTreeSet<(ChannelId, u64)>>,
    /// The events of each machine.
    pub(super) events: Vec<(usize, Event)>,
    pub(super) in_flight: Option<usize>,
    pub(super) deaths: usize,
}

/// A forwarder and its peers.
pub(super) struct World {
    machines: Vec<Machine>,
    links: Vec<Link>,
    pub(super) chain: SimChain,
    pub(super) seen: Observations,
    round: u64,
    draw: Draw,
    crash_point: Option<CrashPoint>,
}

impl World {
    pub(super) fn new(machine_specs: Vec<MachineSpec>) -> Result<World, Violation> {
        let machines = machine_specs.into_iter().map(|spec| (spec, SimDisk::new()));
        World::start(machines.collect(), 0)
    }

    /// The machines of an image, started on copies of their disks.
    pub(super) fn from_image(image: &Image, seed: u64) -> Result<World, Violation> {
        let copy = |(spec, disk): &(MachineSpec, SimDisk)| (spec.clone(), disk.after_crash(Survival::All, 0));
        World::start(image.machines.iter().map(copy).collect(), seed)
    }

    fn start(machines: Vec<(MachineSpec, SimDisk)>, seed: u64) -> Result<World, Violation> {
        let machines: Result<Vec<Machine>, StartError> =
            machines.into_iter().map(|(spec, disk)| Machine::start(spec, disk, LOG)).collect();
        let machines =
            machines.map_err(|error| Violation::new(Checker::Restart, format!("no start: {error}")))?;
        let links = machines.iter().map(|_| Link::default()).collect();
        let (chain, seen) = (SimChain::default(), Observations::default());
        Ok(World { machines, links, chain, seen, round: 0, draw: Draw::new(seed), crash_point: None })
    }

    /// All disks as they are; the engines on them end.
    pub(super) fn into_image(self) -> Image {
        let image = |machine: Machine| (machine.spec, machine.disk);
        Image { machines: self.machines.into_iter().map(image).collect() }
    }

    /// Lets the forwarder's disk ignore syncs.
    #[cfg(test)]
    pub(super) fn ignore_syncs(&self) {
        self.machines[FORWARDER].disk.ignore_syncs();
    }

    /// Decides how the forwarder dies, counting operations from here.
    pub(super) fn crash_at(&mut self, point: CrashPoint) {
        self.machines[FORWARDER].disk.die_at(self.forwarder_operations() + point.operation);
        self.crash_point = Some(point);
    }

    /// How often the forwarder's disk was touched since it started.
    pub(super) fn forwarder_operations(&self) -> u64 {
        self.machines[FORWARDER].disk.operations()
    }

    pub(super) fn engine(&self, machine: usize) -> &Engine {
        &self.machines[machine].engine
    }

    pub(super) fn peers(&self) -> std::ops::Range<usize> {
        1..self.machines.len()
    }

    pub(super) fn id(&self, machine: usize) -> NodeId {
        self.machines[machine].engine.id()
    }

    /// Commands fail only on an engine that has stopped, or for a channel not there, which is the caller's mistake.
    pub(super) fn command(&self, machine: usize, command: Command) -> Result<(), Violation> {
        let taken = self.machines[machine].engine.command(command);
        taken.map_err(|error| Violation::new(Checker::NoComplaints, format!("machine {machine}: {error}")))
    }

    pub(super) fn mine(&mut self) {
        let height: BlockHeight = self.chain.mine();
        let event = ChainEvent::Connected { height, block: self.chain.block(height) };
        self.machines.iter().for_each(|machine| machine.engine.chain_event(&event));
    }

    pub(super) fn connect(&mut self, peer: usize) {
        if std::mem::replace(&mut self.links[peer].is_up, true) {
            return;
        }
        let inits = [self.machines[peer].engine.init(), self.machines[FORWARDER].engine.init()];
        for (queue, init) in self.links[peer].under_way.iter_mut().zip(inits) {
            queue.push_back(init);
        }
    }

    /// Breaks a link: some of the messages under way still arrive, each way.
    pub(super) fn sever(&mut self, peer: usize) -> Result<(), Violation> {
        if !std::mem::replace(&mut self.links[peer].is_up, false) {
            return Ok(());
        }
        for end in 0..2 {
            let arrives = self.draw.between(0, self.links[peer].under_way[end].len() as u64);
            self.deliver(peer, end, arrives as usize)?;
            self.links[peer].under_way[end].clear();
            if let Some(connection) = self.links[peer].connections[end].take() {
                self.machines[[FORWARDER, peer][end]].engine.disconnected(connection);
            }
        }
        Ok(())
    }

    /// Runs rounds until nothing happens any more, time aside.
    pub(super) fn rest(&mut self) -> Result<(), Violation> {
        for _ in 0..2_000 {
            if !self.round()? {
                return Ok(());
            }
        }
        violation!(Progress, "the network does not come to rest")
    }

    /// Steps every machine, and delivers all messages under way. Returns whether there was anything to do.
    pub(super) fn round(&mut self) -> Result<bool, Violation> {
        self.round += 1;
        let now = Now { unix_ms: 1_000_000 + self.round * ROUND_MS };
        let mut busy = false;
        for machine in 0..self.machines.len() {
            if self.round.is_multiple_of(TICK_ROUNDS) {
                self.machines[machine].engine.tick();
            }
            busy |= self.machines[machine].engine.has_work();
            self.machines[machine].engine.step(now);
            for effects in self.machines[machine].outbox.take() {
                self.execute(machine, effects)?;
            }
            if self.machines[machine].disk.is_dead() {
                self.restart()?;
                busy = true;
            }
        }
        for peer in self.peers() {
            for end in 0..2 {
                let waiting = self.links[peer].under_way[end].len();
                busy |= waiting > 0;
                self.deliver(peer, end, waiting)?;
            }
        }
        Ok(busy)
    }

    fn execute(&mut self, machine: usize, effects: Effects) -> Result<(), Violation> {
        let Effects { send, disconnect, broadcast, events, .. } = effects;
        for (connection, bytes) in send {
            let peer = if machine == FORWARDER { self.peer_with(connection.peer) } else { machine };
            let (end, other) = if machine == FORWARDER { (0, 1) } else { (1, 0) };
            if self.links[peer].connections[end] == Some(connection) {
                if machine == FORWARDER {
                    self.note(&bytes);
                }
                self.links[peer].under_way[other].push_back(bytes);
            }
        }
        ensure!(disconnect.is_empty(), NoComplaints, "machine {machine} drops {disconnect:?}");
        for transaction in &broadcast {
            let taken = self.chain.broadcast(transaction);
            ensure!(taken.is_ok(), Closing, "machine {machine} spends what {taken:?} spends");
        }
        for event in events {
            if let Event::ChannelFailed { channel_id, error, .. } = &event {
                return violation!(NoComplaints, "machine {machine} fails {channel_id}: {error}");
            }
            self.seen.events.push((machine, event));
        }
        Ok(())
    }

    fn peer_with(&self, id: NodeId) -> usize {
        self.peers().find(|peer| self.id(*peer) == id).unwrap_or(FORWARDER)
    }

    /// Records an HTLC that the forwarder offers.
    fn note(&mut self, bytes: &[u8]) {
        if let Ok(Message::UpdateAddHtlc(add)) = Message::decode(bytes) {
            self.seen.offered.entry(add.payment_hash).or_default().insert((add.channel_id, add.id));
        }
    }

    /// Delivers up to `messages` messages to one end of a link; the first of a connection is its `init`.
    fn deliver(&mut self, peer: usize, end: usize, messages: usize) -> Result<(), Violation> {
        let (to, from) = if end == 0 { (FORWARDER, peer) } else { (peer, FORWARDER) };
        for _ in 0..messages {
            let Some(bytes) = self.links[peer].under_way[end].pop_front() else { break };
            let engine = &self.machines[to].engine;
            let taken = match self.links[peer].connections[end] {
                Some(connection) => engine.receive(connection, &bytes).map_err(|error| error.to_string()),
                None => match engine.connected(self.machines[from].engine.id(), &bytes) {
                    Ok(connection) => {
                        self.links[peer].connections[end] = Some(connection);
                        Ok(())
                    }
                    Err(error) => Err(error.to_string()),
                },
            };
            ensure!(taken.is_ok(), NoComplaints, "machine {to} refuses a message of {from}: {taken:?}");
        }
        Ok(())
    }

    /// The forwarder is dead: its messages under way may arrive, and it starts again from its disk.
    fn restart(&mut self) -> Result<(), Violation> {
        let point =
            self.crash_point.ok_or_else(|| Violation::new(Checker::Restart, "a disk died unbidden"))?;
        let engine = &self.machines[FORWARDER].engine;
        if self.seen.in_flight.is_none() {
            let mut in_flight = 0;
            engine.for_each_shard(|shard| in_flight += shard.occupancy().circuits);
            self.seen.in_flight = Some(in_flight);
        }
        for peer in self.peers() {
            self.links[peer].connections[0] = None;
            self.links[peer].under_way[0].clear();
            self.sever(peer)?;
        }
        let spec = self.machines[FORWARDER].spec.clone();
        let mut disk = self.machines[FORWARDER].disk.clone();
        for attempt in 0..RESTARTS_MAX {
            self.seen.deaths += 1;
            disk = disk.after_crash(point.survival, point.seed + attempt as u64);
            if let Some(again) = point.again.filter(|_| self.seen.deaths == 1) {
                disk.die_at(again);
            }
            match Machine::start(spec.clone(), disk.clone(), LOG) {
                Ok(machine) => {
                    self.machines[FORWARDER] = machine;
                    self.peers().for_each(|peer| self.connect(peer));
                    return Ok(());
                }
                Err(_) if disk.is_dead() => {}
                Err(error) => return violation!(Restart, "no restart: {error}"),
            }
        }
        violation!(Restart, "the forwarder does not come back")
    }
}
