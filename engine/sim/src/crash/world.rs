//! Machines with disks, wires between them, and what is seen on the wires.
//!
//! Owns the execution of effects in rounds, the death and restart of the forwarder, and the notes that checks need. Does
//! not decide what happens when.
//!
//! Invariant: a message that leaves a machine was put out by its engine, whole and in order; a wire that breaks loses a
//! tail of what is under way on it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use fulmen::Engine;
use fulmen::chain::ChainEvent;
use fulmen::runtime::{Connection, Effects, Fatal, Handler, StartError, Storage};
use fulmen::store::{LogOptions, LogStore};
use fulmen_proto::forward::{Command, Event, NodeConfig, Now};
use fulmen_proto::keys::NodeSeed;
use fulmen_wire::message::Message;
use fulmen_wire::units::{BlockHeight, ChannelId, NodeId, PaymentHash};

use super::CrashPoint;
use crate::chain::SimChain;
use crate::disk::{SimDisk, Survival};
use crate::draw::Draw;
use crate::violation::{Checker, Violation, ensure};

/// The forwarder's place among the machines; the others are its peers.
pub(super) const FORWARDER: usize = 0;
/// How far a round moves the clock.
const ROUND_MS: u64 = 20;
/// How many rounds a second has.
const TICK_ROUNDS: u64 = 1_000 / ROUND_MS;
/// More deaths than a run can have.
const RESTARTS_MAX: usize = 4;

/// Small enough that segments fill and checkpoints come while the script runs.
const LOG: LogOptions = LogOptions { segment_bytes: 6_000, log_bytes_max: 24_000, salt: 0xC4A5 };

/// What a machine is made of besides its disk.
#[derive(Clone, Debug)]
pub(super) struct Blueprint {
    pub(super) seed: [u8; 32],
    pub(super) config: NodeConfig,
    pub(super) shards: u16,
}

/// All machines at rest.
#[derive(Debug)]
pub(super) struct Image {
    pub(super) machines: Vec<(Blueprint, SimDisk)>,
}

/// What engines have put out and nobody has executed yet.
#[derive(Clone, Debug, Default)]
struct Outbox(Arc<Mutex<Vec<Effects>>>);

impl Outbox {
    fn take(&self) -> Vec<Effects> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Handler for Outbox {
    fn effects(&self, effects: Effects) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(effects);
    }

    fn stopped(&self, _: &Fatal) {}
}

struct Machine {
    blueprint: Blueprint,
    disk: SimDisk,
    engine: Engine,
    outbox: Outbox,
}

impl Machine {
    fn start(blueprint: Blueprint, disk: SimDisk) -> Result<Machine, StartError> {
        let outbox = Outbox::default();
        let seed = NodeSeed::new(blueprint.seed);
        let config = blueprint.config.clone();
        let id = fulmen_proto::forward::Shard::new(seed.clone(), config.clone()).node_id();
        let store = LogStore::open_on(Arc::new(disk.clone()), id, LOG)?;
        let builder = Engine::builder(seed, config, Storage::Store(Box::new(store)));
        let engine = builder.shards(blueprint.shards).inline(outbox.clone())?;
        Ok(Machine { blueprint, disk, engine, outbox })
    }
}

/// The wire between the forwarder and a peer.
#[derive(Debug, Default)]
struct Wire {
    is_up: bool,
    /// Under way to the forwarder, and to the peer.
    under_way: [VecDeque<Vec<u8>>; 2],
    /// The connection that each end believes in, the forwarder's first.
    connections: [Option<Connection>; 2],
}

/// What was seen.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// The HTLCs that the forwarder offered for a payment: channel and id.
    pub(super) offered: BTreeMap<PaymentHash, BTreeSet<(ChannelId, u64)>>,
    /// What each machine told its operator.
    pub(super) events: Vec<(usize, Event)>,
    pub(super) in_flight: Option<usize>,
    pub(super) deaths: usize,
}

/// A forwarder and its peers.
pub(super) struct World {
    machines: Vec<Machine>,
    wires: Vec<Wire>,
    pub(super) chain: SimChain,
    pub(super) seen: Seen,
    round: u64,
    draw: Draw,
    doom: Option<CrashPoint>,
}

impl World {
    pub(super) fn new(blueprints: Vec<Blueprint>) -> Result<World, Violation> {
        let machines = blueprints.into_iter().map(|blueprint| (blueprint, SimDisk::new()));
        World::start(machines.collect(), 0)
    }

    /// The machines of an image, started on copies of their disks.
    pub(super) fn from_image(image: &Image, seed: u64) -> Result<World, Violation> {
        let copy = |(blueprint, disk): &(Blueprint, SimDisk)| {
            (blueprint.clone(), disk.after_crash(Survival::All, 0))
        };
        World::start(image.machines.iter().map(copy).collect(), seed)
    }

    fn start(machines: Vec<(Blueprint, SimDisk)>, seed: u64) -> Result<World, Violation> {
        let machines: Result<Vec<Machine>, StartError> =
            machines.into_iter().map(|(blueprint, disk)| Machine::start(blueprint, disk)).collect();
        let machines =
            machines.map_err(|error| Violation::new(Checker::Restart, format!("no start: {error}")))?;
        let wires = machines.iter().map(|_| Wire::default()).collect();
        let (chain, seen) = (SimChain::default(), Seen::default());
        Ok(World { machines, wires, chain, seen, round: 0, draw: Draw::new(seed), doom: None })
    }

    /// All disks as they are; the engines on them end.
    pub(super) fn into_image(self) -> Image {
        let image = |machine: Machine| (machine.blueprint, machine.disk);
        Image { machines: self.machines.into_iter().map(image).collect() }
    }

    /// Has the forwarder's disk forget what it was told to sync.
    #[cfg(test)]
    pub(super) fn lie(&self) {
        self.machines[FORWARDER].disk.lie();
    }

    /// Decides how the forwarder dies, counting operations from here.
    pub(super) fn doom(&mut self, point: CrashPoint) {
        self.machines[FORWARDER].disk.die_at(self.forwarder_operations() + point.operation);
        self.doom = Some(point);
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
        taken.map_err(|error| Violation::new(Checker::Peace, format!("machine {machine}: {error}")))
    }

    pub(super) fn mine(&mut self) {
        let height: BlockHeight = self.chain.mine();
        let event = ChainEvent::Connected { height, block: self.chain.block(height) };
        self.machines.iter().for_each(|machine| machine.engine.chain_event(&event));
    }

    pub(super) fn connect(&mut self, peer: usize) {
        if std::mem::replace(&mut self.wires[peer].is_up, true) {
            return;
        }
        let inits = [self.machines[peer].engine.init(), self.machines[FORWARDER].engine.init()];
        for (queue, init) in self.wires[peer].under_way.iter_mut().zip(inits) {
            queue.push_back(init);
        }
    }

    /// Breaks a wire: a part of what is under way still arrives, each way.
    pub(super) fn sever(&mut self, peer: usize) -> Result<(), Violation> {
        if !std::mem::replace(&mut self.wires[peer].is_up, false) {
            return Ok(());
        }
        for end in 0..2 {
            let arrives = self.draw.between(0, self.wires[peer].under_way[end].len() as u64);
            self.deliver(peer, end, arrives as usize)?;
            self.wires[peer].under_way[end].clear();
            if let Some(connection) = self.wires[peer].connections[end].take() {
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
        Err(Violation::new(Checker::Progress, "the network does not come to rest"))
    }

    /// Everybody does what waits, and all that is under way arrives. Whether there was anything.
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
                let waiting = self.wires[peer].under_way[end].len();
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
            if self.wires[peer].connections[end] == Some(connection) {
                if machine == FORWARDER {
                    self.note(&bytes);
                }
                self.wires[peer].under_way[other].push_back(bytes);
            }
        }
        ensure!(disconnect.is_empty(), Peace, "machine {machine} drops {disconnect:?}");
        for transaction in &broadcast {
            let taken = self.chain.broadcast(transaction);
            ensure!(taken.is_ok(), Closing, "machine {machine} spends what {taken:?} spends");
        }
        for event in events {
            if let Event::ChannelFailed { channel_id, error, .. } = &event {
                return Err(Violation::new(
                    Checker::Peace,
                    format!("machine {machine} fails {channel_id}: {error}"),
                ));
            }
            self.seen.events.push((machine, event));
        }
        Ok(())
    }

    fn peer_with(&self, id: NodeId) -> usize {
        self.peers().find(|peer| self.id(*peer) == id).unwrap_or(FORWARDER)
    }

    /// Notes what the forwarder offers.
    fn note(&mut self, bytes: &[u8]) {
        if let Ok(Message::UpdateAddHtlc(add)) = Message::decode(bytes) {
            self.seen.offered.entry(add.payment_hash).or_default().insert((add.channel_id, add.id));
        }
    }

    /// Has so many messages arrive at one end of a wire; the first of a connection is its `init`.
    fn deliver(&mut self, peer: usize, end: usize, messages: usize) -> Result<(), Violation> {
        let (to, from) = if end == 0 { (FORWARDER, peer) } else { (peer, FORWARDER) };
        for _ in 0..messages {
            let Some(bytes) = self.wires[peer].under_way[end].pop_front() else { break };
            let engine = &self.machines[to].engine;
            let taken = match self.wires[peer].connections[end] {
                Some(connection) => engine.receive(connection, &bytes).map_err(|error| error.to_string()),
                None => match engine.connected(self.machines[from].engine.id(), &bytes) {
                    Ok(connection) => {
                        self.wires[peer].connections[end] = Some(connection);
                        Ok(())
                    }
                    Err(error) => Err(error.to_string()),
                },
            };
            ensure!(taken.is_ok(), Peace, "machine {to} refuses a message of {from}: {taken:?}");
        }
        Ok(())
    }

    /// The forwarder is dead: what it had put out may arrive, the rest is what its disk holds. It starts from that.
    fn restart(&mut self) -> Result<(), Violation> {
        let point = self.doom.ok_or_else(|| Violation::new(Checker::Restart, "a disk died unbidden"))?;
        let engine = &self.machines[FORWARDER].engine;
        if self.seen.in_flight.is_none() {
            let mut in_flight = 0;
            engine.for_each_shard(|shard| in_flight += shard.occupancy().circuits);
            self.seen.in_flight = Some(in_flight);
        }
        for peer in self.peers() {
            self.wires[peer].connections[0] = None;
            self.wires[peer].under_way[0].clear();
            self.sever(peer)?;
        }
        let blueprint = self.machines[FORWARDER].blueprint.clone();
        let mut disk = self.machines[FORWARDER].disk.clone();
        for attempt in 0..RESTARTS_MAX {
            self.seen.deaths += 1;
            disk = disk.after_crash(point.survival, point.seed + attempt as u64);
            if let Some(again) = point.again.filter(|_| self.seen.deaths == 1) {
                disk.die_at(again);
            }
            match Machine::start(blueprint.clone(), disk.clone()) {
                Ok(machine) => {
                    self.machines[FORWARDER] = machine;
                    self.peers().for_each(|peer| self.connect(peer));
                    return Ok(());
                }
                Err(_) if disk.is_dead() => {}
                Err(error) => return Err(Violation::new(Checker::Restart, format!("no restart: {error}"))),
            }
        }
        Err(Violation::new(Checker::Restart, "the forwarder does not come back"))
    }
}
