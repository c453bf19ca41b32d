//! The victim, its honest peers, the liars and the strangers: machines, links and rounds.
//!
//! Owns the delivery of messages, the execution of effects, the death and restart of the victim, and the accounts of
//! the bytes that adversaries sent and of their cost. Does not decide the actions; see [`super::actions`].
//!
//! Invariant: honest peers receive and send exactly what their engines say, in order; whatever goes wrong with their
//! channels is a violation.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use fulmen::Engine;
use fulmen::chain::ChainEvent;
use fulmen::runtime::{Connection, Effects, ReceiveError};
use fulmen::store::LogOptions;
use fulmen_proto::forward::{Command, Event, Now};
use fulmen_wire::message::Message;
use fulmen_wire::units::{BlockHeight, ChannelId, NodeId, PaymentHash};

use super::checks::{Bounds, Watched};
use super::messages;
use super::meter::{CallCost, Meter};
use super::signer::{Said, Signer};
use super::tamper::Tampering;
use crate::chain::SimChain;
use crate::disk::{SimDisk, Survival};
use crate::draw::Draw;
use crate::machine::{Machine, MachineSpec};
use crate::payment::hash_of;
use crate::violation::{Violation, ensure, violation};

pub(super) const VICTIM: usize = 0;
pub(super) const HONEST: [usize; 2] = [1, 2];
pub(super) const LIARS: [usize; 2] = [3, 4];
/// How many signers there are.
pub(super) const SIGNERS: u16 = 2;
/// The virtual time of a round.
pub(super) const ROUND_MS: u64 = 20;
const TICK_ROUNDS: u64 = 1_000 / ROUND_MS;
/// The virtual time at the start.
const START_MS: u64 = 1_000_000;
/// More restarts in a row than any disk needs.
const RESTARTS_MAX: u64 = 4;
/// Segments fill and checkpoints become due while a run lasts.
const LOG: LogOptions =
    LogOptions { segment_bytes: 256 << 10, log_bytes_max: 1 << 20, frame_bytes_max: 1 << 20, salt: 0xADF0 };

/// The machines at rest, with their channels open.
#[derive(Debug)]
pub(super) struct Image {
    pub(super) machines: Vec<(MachineSpec, SimDisk)>,
    pub(super) blocks: SimChain,
    pub(super) signers: Vec<Signer>,
}

/// One connection of the victim.
#[derive(Debug, Default)]
struct Link {
    /// The machine at the other end; a stranger has none.
    machine: Option<usize>,
    is_up: bool,
    /// The victim's end and the peer's.
    connections: [Option<Connection>; 2],
    /// Messages on their way to the victim and to the peer.
    queues: [VecDeque<Vec<u8>>; 2],
    /// The victim refuses more until it says otherwise.
    is_blocked: bool,
}

/// The adversaries' bytes and their cost to the victim.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Spent {
    /// Bytes that adversaries had the victim take.
    pub(super) attack_bytes: u64,
    /// Messages of theirs.
    pub(super) attack_messages: u64,
    pub(super) restarts: u64,
    pub(super) offered_to_signers: usize,
    /// The victim's heap: now, its disk left out, and the most within one call.
    pub(super) heap: u64,
    pub(super) heap_peak: u64,
    pub(super) cpu: Duration,
    /// The heap that calls have kept since the victim started, its disk's included.
    live_bytes: i64,
}

pub(super) struct World {
    pub(super) machines: Vec<Machine>,
    links: BTreeMap<NodeId, Link>,
    pub(super) tampering: [Tampering; 2],
    pub(super) signers: Vec<Signer>,
    /// Messages of the victim to each signer that it has not taken.
    signers_inbox: Vec<VecDeque<Vec<u8>>>,
    pub(super) chain: SimChain,
    pub(super) events: Vec<(usize, Event)>,
    pub(super) known_hashes: BTreeSet<PaymentHash>,
    pub(super) spent: Spent,
    pub(super) budget_bytes: u64,
    pub(super) watched: Watched,
    pub(super) bounds: Bounds,
    round: u64,
    meter: Option<Meter>,
    disk_bytes_at_start: i64,
    draw: Draw,
}

impl World {
    pub(super) fn new(specs: Vec<MachineSpec>) -> Result<World, Violation> {
        let machines = specs.into_iter().map(|spec| (spec, SimDisk::new())).collect();
        let signers = (0..SIGNERS).map(Signer::new).collect();
        World::start(machines, SimChain::default(), signers, u64::MAX, None)
    }

    /// The machines of an image, started on copies of their disks.
    pub(super) fn from_image(
        image: &Image,
        budget_bytes: u64,
        meter: Option<Meter>,
    ) -> Result<World, Violation> {
        let copy = |(spec, disk): &(MachineSpec, SimDisk)| (spec.clone(), disk.after_crash(Survival::All, 0));
        let machines = image.machines.iter().map(copy).collect();
        World::start(machines, image.blocks.clone(), image.signers.clone(), budget_bytes, meter)
    }

    fn start(
        machines: Vec<(MachineSpec, SimDisk)>,
        chain: SimChain,
        signers: Vec<Signer>,
        budget_bytes: u64,
        meter: Option<Meter>,
    ) -> Result<World, Violation> {
        let mut world = World {
            machines: Vec::new(),
            links: BTreeMap::new(),
            tampering: Default::default(),
            signers_inbox: vec![VecDeque::new(); signers.len()],
            signers,
            chain,
            events: Vec::new(),
            known_hashes: BTreeSet::new(),
            spent: Spent::default(),
            budget_bytes,
            watched: Watched::default(),
            bounds: Bounds::default(),
            round: 0,
            meter,
            disk_bytes_at_start: 0,
            draw: Draw::new(0),
        };
        for (number, (spec, disk)) in machines.into_iter().enumerate() {
            let started = if number == VICTIM {
                world.disk_bytes_at_start = disk.heap_bytes() as i64;
                let start = || Machine::start(spec, disk, LOG);
                world.spent.measure(meter, start)
            } else {
                Machine::start(spec, disk, LOG)
            };
            match started {
                Ok(machine) => world.machines.push(machine),
                Err(error) => return violation!(Restart, "machine {number} does not start: {error}"),
            }
        }
        for number in 1..world.machines.len() {
            let link = Link { machine: Some(number), ..Link::default() };
            world.links.insert(world.id(number), link);
        }
        Ok(world)
    }

    pub(super) fn into_image(self) -> Image {
        let machines = self.machines.into_iter().map(|machine| (machine.spec, machine.disk)).collect();
        Image { machines, blocks: self.chain, signers: self.signers }
    }

    pub(super) fn id(&self, machine: usize) -> NodeId {
        self.machines[machine].engine.id()
    }

    pub(super) fn now(&self) -> Now {
        Now { unix_ms: START_MS + self.round * ROUND_MS }
    }

    /// Calls the victim's engine and accounts for the memory that it keeps.
    pub(super) fn victim<T>(&mut self, call: impl FnOnce(&Engine) -> T) -> T {
        let engine = &self.machines[VICTIM].engine;
        self.spent.measure(self.meter, || call(engine))
    }

    /// Gives a machine a command. A refusal is not an error: liars also command impossible things.
    pub(super) fn command(&mut self, machine: usize, command: Command) -> bool {
        if machine == VICTIM {
            return self.victim(|engine| engine.command(command)).is_ok();
        }
        self.machines[machine].engine.command(command).is_ok()
    }

    pub(super) fn mine(&mut self) {
        let height = self.chain.mine();
        let event = ChainEvent::Connected { height, block: self.chain.block(height) };
        self.victim(|engine| engine.chain_event(&event));
        self.machines.iter().skip(1).for_each(|machine| machine.engine.chain_event(&event));
        let block = self.chain.block(height);
        for signer in 0..self.signers.len() {
            let said = self.signers[signer].block(height, &block.txdata);
            self.utter(signer, said);
        }
    }

    /// Connects a signer (again).
    pub(super) fn connect_signer(&mut self, signer: usize) {
        let peer = messages::signer(signer as u16);
        self.open(peer);
        // Any node's features will do.
        let init = self.machines[HONEST[0]].engine.init();
        self.send(peer, init);
        let said = self.signers[signer].connected();
        self.utter(signer, said);
    }

    /// Sends what a signer says, and publishes what it funds.
    pub(super) fn utter(&mut self, signer: usize, said: Said) {
        let peer = messages::signer(signer as u16);
        said.send.into_iter().for_each(|bytes| self.send(peer, bytes));
        for transaction in &said.broadcast {
            let _ = self.chain.broadcast(transaction);
        }
    }

    /// Has the signers take what the victim sent them, and sign. Returns whether there was anything.
    fn run_signers(&mut self) -> bool {
        let mut busy = false;
        for signer in 0..self.signers.len() {
            while let Some(bytes) = self.signers_inbox[signer].pop_front() {
                busy = true;
                let said = self.signers[signer].take(&bytes);
                self.utter(signer, said);
            }
            let offered = self.signers[signer].offered();
            self.spent.offered_to_signers = self.spent.offered_to_signers.max(offered);
            if self.is_up(messages::signer(signer as u16)) {
                let said = self.signers[signer].commit();
                busy |= !said.send.is_empty();
                self.utter(signer, said);
            }
        }
        busy
    }

    /// Connects a machine to the victim, if it is not.
    pub(super) fn connect(&mut self, machine: usize) {
        let peer = self.id(machine);
        let inits = [self.machines[machine].engine.init(), self.machines[VICTIM].engine.init()];
        let link = self.links.entry(peer).or_default();
        if !std::mem::replace(&mut link.is_up, true) {
            for (queue, init) in link.queues.iter_mut().zip(inits) {
                queue.clear();
                queue.push_back(init);
            }
        }
    }

    /// Opens a connection of an id without an engine; the caller sends its first message.
    pub(super) fn open(&mut self, peer: NodeId) {
        self.disconnect(peer);
        self.links.entry(peer).or_default().is_up = true;
    }

    pub(super) fn is_up(&self, peer: NodeId) -> bool {
        self.links.get(&peer).is_some_and(|link| link.is_up)
    }

    /// Breaks a connection: whatever is under way on it is lost.
    pub(super) fn disconnect(&mut self, peer: NodeId) {
        if let Some(signer) = (0..SIGNERS).find(|signer| messages::signer(*signer) == peer) {
            self.signers_inbox[usize::from(signer)].clear();
        }
        let Some(link) = self.links.get_mut(&peer) else { return };
        let (machine, connections) = (link.machine, std::mem::take(&mut link.connections));
        *link = Link { machine, ..Link::default() };
        if let Some(connection) = connections[0] {
            self.victim(|engine| engine.disconnected(connection));
        }
        if let (Some(connection), Some(machine)) = (connections[1], machine) {
            self.machines[machine].engine.disconnected(connection);
        }
    }

    /// Puts bytes of an adversary on their way to the victim.
    pub(super) fn send(&mut self, peer: NodeId, bytes: Vec<u8>) {
        if let Some(link) = self.links.get_mut(&peer).filter(|link| link.is_up) {
            link.queues[0].push_back(bytes);
        }
    }

    /// Has the victim's disk die in one of its next operations.
    pub(super) fn crash_at(&mut self, operation: u64, seed: u64) {
        self.draw = Draw::new(seed);
        let disk = &self.machines[VICTIM].disk;
        disk.die_at(disk.operations() + operation);
    }

    /// Steps every machine, and delivers all messages under way. Returns whether there was anything to do.
    pub(super) fn round(&mut self) -> Result<bool, Violation> {
        self.round += 1;
        let now = self.now();
        let mut busy = false;
        for machine in 0..self.machines.len() {
            busy |= self.machines[machine].engine.has_work();
            let tick = self.round.is_multiple_of(TICK_ROUNDS);
            let turn = |engine: &Engine| {
                if tick {
                    engine.tick();
                }
                engine.step(now);
            };
            if machine == VICTIM {
                self.victim(turn)
            } else {
                turn(&self.machines[machine].engine)
            }
            if machine == VICTIM && self.machines[VICTIM].disk.is_dead() {
                self.restart()?;
                busy = true;
                continue;
            }
            if let Some(reason) = self.machines[machine].outbox.stopped() {
                return violation!(Alive, "the engine of machine {machine} has stopped: {reason}");
            }
            for mut effects in self.machines[machine].outbox.take() {
                self.execute(machine, &mut effects)?;
                if machine == VICTIM {
                    self.spent.measure(self.meter, || drop(effects));
                }
            }
        }
        let peers: Vec<NodeId> = self.links.keys().copied().collect();
        for peer in peers {
            busy |= self.deliver(peer)?;
        }
        busy |= self.run_signers();
        // The simulated disk is in memory too; it counts as disk.
        let grown = self.machines[VICTIM].disk.heap_bytes() as i64 - self.disk_bytes_at_start;
        self.spent.heap = u64::try_from(self.spent.live_bytes - grown).unwrap_or(0);
        Ok(busy)
    }

    fn execute(&mut self, machine: usize, effects: &mut Effects) -> Result<(), Violation> {
        for (connection, bytes) in &effects.send {
            if machine == VICTIM {
                self.note_offer(bytes)?;
            }
            self.transmit(machine, *connection, bytes);
        }
        for connection in &effects.disconnect {
            let honest =
                HONEST.contains(&machine) || HONEST.iter().any(|peer| self.id(*peer) == connection.peer);
            ensure!(!honest, NoComplaints, "machine {machine} drops an honest peer, {}", connection.peer);
            let peer = if machine == VICTIM { connection.peer } else { self.id(machine) };
            self.disconnect(peer);
        }
        for connection in &effects.resume {
            if let Some(link) = self.links.get_mut(&connection.peer).filter(|_| machine == VICTIM) {
                link.is_blocked = false;
            }
        }
        for transaction in &effects.broadcast {
            // Two ends of a liar's channel may spend it differently; that only one of them counts is the chain's doing.
            let _ = self.chain.broadcast(transaction);
        }
        for event in &effects.events {
            if let Event::ChannelFailed { channel_id, error, .. } = event {
                let honest = HONEST.contains(&machine) || self.watched.is_honest(*channel_id);
                ensure!(
                    !honest,
                    NoComplaints,
                    "machine {machine} fails the honest channel {channel_id}: {error}"
                );
            }
            self.events.push((machine, event.clone()));
        }
        Ok(())
    }

    /// Puts a message of an engine on its way, liars' after they have had their way with it.
    fn transmit(&mut self, machine: usize, connection: Connection, bytes: &[u8]) {
        let (peer, end) = if machine == VICTIM { (connection.peer, 0) } else { (self.id(machine), 1) };
        let Some(link) = self.links.get_mut(&peer) else { return };
        if link.connections[end] != Some(connection) {
            return;
        }
        match LIARS.iter().position(|liar| *liar == machine) {
            Some(liar) => link.queues[0].extend(self.tampering[liar].apply(bytes.to_vec())),
            // A stranger reads nothing, a signer does.
            None if link.machine.is_none() => {
                if let Some(signer) = (0..SIGNERS).find(|signer| messages::signer(*signer) == peer) {
                    self.signers_inbox[usize::from(signer)].push_back(bytes.to_vec());
                }
            }
            None => link.queues[1 - end].push_back(bytes.to_vec()),
        }
    }

    /// Delivers the messages under way on a link, as far as they are taken.
    fn deliver(&mut self, peer: NodeId) -> Result<bool, Violation> {
        let mut busy = false;
        for end in [0, 1] {
            let Some(link) = self.links.get_mut(&peer) else { return Ok(busy) };
            let mut waiting = std::mem::take(&mut link.queues[end]);
            while let Some(bytes) = waiting.pop_front() {
                if end == 0 && self.links.get(&peer).is_some_and(|link| link.is_blocked) {
                    waiting.push_front(bytes);
                    break;
                }
                busy = true;
                let taken = if end == 0 {
                    self.deliver_to_victim(peer, &bytes)?
                } else {
                    self.deliver_to_peer(peer, &bytes)?
                };
                if !taken {
                    if end == 0 && self.links.get(&peer).is_some_and(|link| link.is_blocked) {
                        waiting.push_front(bytes);
                    }
                    break;
                }
            }
            if let Some(link) = self.links.get_mut(&peer).filter(|link| link.is_up) {
                waiting.append(&mut link.queues[end]);
                link.queues[end] = waiting;
            }
        }
        Ok(busy)
    }

    /// Gives the victim a message. `false` when the connection takes no more.
    fn deliver_to_victim(&mut self, peer: NodeId, bytes: &[u8]) -> Result<bool, Violation> {
        let link = self.links.get(&peer);
        let (machine, connection) = link.map_or((None, None), |link| (link.machine, link.connections[0]));
        let honest = machine.is_some_and(|machine| HONEST.contains(&machine));
        if !honest {
            if self.spent.attack_bytes + bytes.len() as u64 > self.budget_bytes {
                return Ok(false);
            }
            self.spent.attack_bytes += bytes.len() as u64;
            self.spent.attack_messages += 1;
        }
        let Some(connection) = connection else {
            let connected = self.victim(|engine| engine.connected(peer, bytes));
            ensure!(
                !honest || connected.is_ok(),
                NoComplaints,
                "the victim refuses an honest peer: {connected:?}"
            );
            let Ok(connection) = connected else {
                self.disconnect(peer);
                return Ok(false);
            };
            if let Some(link) = self.links.get_mut(&peer) {
                link.connections[0] = Some(connection);
            }
            return Ok(true);
        };
        match self.victim(|engine| engine.receive(connection, bytes)) {
            Ok(()) => {
                if let Ok(Message::UpdateFulfillHtlc(fulfill)) = Message::decode(bytes) {
                    self.known_hashes.insert(hash_of(fulfill.payment_preimage));
                }
                Ok(true)
            }
            Err(ReceiveError::WouldBlock { .. }) if !honest => {
                // Given again once the victim resumes; until then it does not count.
                self.spent.attack_bytes -= bytes.len() as u64;
                self.spent.attack_messages -= 1;
                if let Some(link) = self.links.get_mut(&peer) {
                    link.is_blocked = true;
                }
                Ok(false)
            }
            Err(error) => {
                ensure!(!honest, NoComplaints, "the victim refuses a message of an honest peer: {error}");
                self.disconnect(peer);
                Ok(false)
            }
        }
    }

    fn deliver_to_peer(&mut self, peer: NodeId, bytes: &[u8]) -> Result<bool, Violation> {
        let victim = self.id(VICTIM);
        let Some(link) = self.links.get_mut(&peer) else { return Ok(false) };
        let Some(machine) = link.machine else { return Ok(true) };
        let engine = &self.machines[machine].engine;
        let taken = match link.connections[1] {
            Some(connection) => engine.receive(connection, bytes).map_err(|error| error.to_string()),
            None => engine
                .connected(victim, bytes)
                .map(|connection| link.connections[1] = Some(connection))
                .map_err(|error| error.to_string()),
        };
        ensure!(
            taken.is_ok() || !HONEST.contains(&machine),
            NoComplaints,
            "honest machine {machine} refuses a message of the victim: {taken:?}"
        );
        if taken.is_err() {
            self.disconnect(peer);
        }
        Ok(taken.is_ok())
    }

    /// The victim is dead: it starts again from its disk, and all links with it.
    fn restart(&mut self) -> Result<(), Violation> {
        let peers: Vec<NodeId> = self.links.keys().copied().collect();
        for peer in peers {
            if let Some(link) = self.links.get_mut(&peer) {
                link.connections[0] = None;
            }
            self.disconnect(peer);
        }
        for _ in 0..RESTARTS_MAX {
            self.spent.restarts += 1;
            let survival = self.draw.pick(&Survival::EACH);
            let seed = self.draw.between(0, u64::MAX - 1);
            let Machine { spec, disk, .. } = &self.machines[VICTIM];
            let (spec, disk) = (spec.clone(), disk.after_crash(survival, seed));
            (self.spent.live_bytes, self.disk_bytes_at_start) = (0, disk.heap_bytes() as i64);
            match self.spent.measure(self.meter, || Machine::start(spec, disk, LOG)) {
                Ok(machine) => {
                    self.replace_victim(machine);
                    return Ok(());
                }
                Err(_) if self.machines[VICTIM].disk.is_dead() => {}
                Err(error) => return violation!(Restart, "the victim does not start: {error}"),
            }
        }
        violation!(Restart, "the victim does not start")
    }

    fn replace_victim(&mut self, machine: Machine) {
        self.machines[VICTIM] = machine;
        let mut height = BlockHeight(u32::MAX);
        self.machines[VICTIM].engine.for_each_shard(|shard| height = height.min(shard.occupancy().height));
        let top = self.chain.height();
        for height in (height.0 + 1..=top.0).map(BlockHeight) {
            let event = ChainEvent::Connected { height, block: self.chain.block(height) };
            self.victim(|engine| engine.chain_event(&event));
        }
        HONEST.into_iter().chain(LIARS).for_each(|machine| self.connect(machine));
        (0..self.signers.len()).for_each(|signer| self.connect_signer(signer));
    }

    /// Bytes of records that the victim wrote since it started.
    pub(super) fn written(&self) -> u64 {
        self.machines[VICTIM].engine.stats().store.record_bytes
    }

    /// The channels of a machine that have a place in the chain.
    pub(super) fn channel_ids(&self, machine: usize) -> Vec<ChannelId> {
        let mut found = Vec::new();
        self.machines[machine].engine.for_each_shard(|shard| {
            found.extend(
                shard.channels().filter(|channel| channel.scid().is_some()).map(|channel| channel.id()),
            );
        });
        found
    }
}

impl Spent {
    /// Runs a call of the victim and adds its cost.
    fn measure<T>(&mut self, meter: Option<Meter>, call: impl FnOnce() -> T) -> T {
        let Some(Meter(measure)) = meter else { return call() };
        let (mut call, mut result) = (Some(call), None);
        let CallCost { heap_net_bytes, heap_peak_bytes, cpu } =
            measure(&mut || result = call.take().map(|call| call()));
        self.live_bytes += heap_net_bytes;
        self.heap_peak = self.heap_peak.max(heap_peak_bytes);
        self.cpu += cpu;
        result.expect("the meter runs the call it is given")
    }
}
