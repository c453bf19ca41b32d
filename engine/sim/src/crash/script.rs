//! The script of a run: channels, payments and broken links, round by round.
//!
//! Owns the script and its drive to the end. Amounts and routes follow from numbers, nothing is drawn, so that an
//! operation of the disk means the same in every run up to the death.

use std::collections::BTreeMap;

use fulmen_proto::forward::{Command, Event, NodeConfig, OpenChannelRequest, SendHtlc};
use fulmen_wire::units::{BlockHeight, ChainHash, ChannelId, FeeratePerKw, Msat, NodeId, Sat, Scid};

use super::world::{FORWARDER, Image, World};
use super::{CrashOutcome, ScriptLength};
use crate::chain::funding_transaction;
use crate::machine::MachineSpec;
use crate::payment::NumberedPayment;
use crate::violation::{Violation, ensure, violation};

/// How many peers each shard of the forwarder has.
const PEERS_PER_SHARD: usize = 2;
const SHARDS: u16 = 2;
/// The channels, by the peer they lead to: two peers have two of them.
const CHANNELS: [usize; 6] = [1, 2, 3, 4, 1, 3];
const CAPACITY: Sat = Sat(1_000_000);
/// A payment between two peers, over the forwarder.
#[derive(Clone, Debug)]
pub(super) struct Payment {
    pub(super) from: usize,
    pub(super) to: usize,
    pub(super) numbered: NumberedPayment,
    /// Whether the payee knows of it.
    pub(super) payable: bool,
    /// The round in which it is sent.
    round: u64,
}

/// A link that breaks.
#[derive(Clone, Copy, Debug)]
struct Break {
    peer: usize,
    round: u64,
}

/// All that happens.
#[derive(Debug)]
pub(super) struct Script {
    pub(super) payments: Vec<Payment>,
    breaks: Vec<Break>,
    rounds: u64,
}

impl Script {
    pub(super) fn new(length: ScriptLength) -> Script {
        let broken = |(peer, round)| Break { peer, round };
        let (payments, pause, breaks) = match length {
            ScriptLength::Short => (12, 4, [(3, 6)].map(broken).to_vec()),
            ScriptLength::Full => (64, 2, [(1, 5), (4, 12), (2, 19), (3, 26)].map(broken).to_vec()),
        };
        let payments: Vec<Payment> = (0..payments).map(|number| Payment::new(number, pause)).collect();
        let rounds = payments.last().map_or(0, |payment| payment.round) + 6;
        Script { payments, breaks, rounds }
    }

    /// Opens the channels and makes the payments payable.
    pub(super) fn open(&self) -> Result<Image, Violation> {
        let mut world = World::new(machine_specs())?;
        for peer in world.peers() {
            world.connect(peer);
        }
        world.rest()?;
        for (number, peer) in (0..).zip(CHANNELS) {
            open_channel(&mut world, number, peer)?;
        }
        for _ in 0..14 {
            world.mine();
            world.rest()?;
        }
        for payment in self.payments.iter().filter(|payment| payment.payable) {
            world.command(payment.to, Command::ExpectPayment(payment.numbered.invoice()))?;
        }
        world.rest()?;
        // Turns that send nothing become durable with time.
        for _ in 0..100 {
            world.round()?;
        }
        let usable = channels_of(&world, FORWARDER).len();
        ensure!(usable == CHANNELS.len(), Progress, "{usable} channels of the forwarder are open");
        Ok(world.into_image())
    }

    /// Runs it all, comes to rest, and checks everything.
    pub(super) fn run(&self, world: &mut World) -> Result<CrashOutcome, Violation> {
        for peer in world.peers() {
            world.connect(peer);
        }
        world.rest()?;
        let before = super::checks::Holdings::of(world);
        for round in 0..self.rounds {
            for (number, payment) in (0..).zip(&self.payments) {
                if payment.round == round {
                    self.pay(world, number, payment)?;
                }
            }
            for broken in &self.breaks {
                if broken.round == round {
                    world.sever(broken.peer)?;
                } else if broken.round + 2 == round {
                    world.connect(broken.peer);
                }
            }
            world.round()?;
        }
        self.settle(world)?;
        let ends = self.ends(world)?;
        super::checks::check_rest(world, &self.payments, &ends, &before)?;
        let refused = self.replay(world)?;
        super::checks::check_rest(world, &self.payments, &ends, &before)?;
        let settled = ends.values().filter(|settled| **settled).count();
        Ok(CrashOutcome {
            settled,
            failed: ends.len() - settled,
            in_flight: world.seen.in_flight.unwrap_or(0),
            refused,
            deaths: world.seen.deaths,
            checkpoints: world.engine(FORWARDER).stats().store.checkpoints,
        })
    }

    /// Without a death all payments that can arrive do.
    pub(super) fn expect_undisturbed(&self, outcome: &CrashOutcome) -> Result<(), Violation> {
        let payable = self.payments.iter().filter(|payment| payment.payable).count();
        let as_expected = outcome.settled + outcome.failed == self.payments.len()
            && outcome.settled <= payable
            && outcome.settled > payable / 2
            && outcome.refused > payable / 2
            && outcome.deaths == 0
            && outcome.checkpoints >= 2;
        ensure!(as_expected, Outcomes, "without a death: {outcome:?}, {payable} payable");
        Ok(())
    }

    /// Comes to rest, with a few seconds for timers.
    fn settle(&self, world: &mut World) -> Result<(), Violation> {
        for peer in world.peers() {
            world.connect(peer);
        }
        world.rest()?;
        for _ in 0..120 {
            world.round()?;
        }
        world.rest()
    }

    fn pay(&self, world: &World, attempt_id: u64, payment: &Payment) -> Result<(), Violation> {
        // Non-strict forwarding finds the last channel; any of the payee's will do to name it.
        let (first, last) = (first_scid(world, payment.from), first_scid(world, payment.to));
        let mut height = BlockHeight(0);
        world.engine(payment.from).for_each_shard(|shard| height = shard.occupancy().height);
        let (forwarder, payee) = ((world.id(FORWARDER), first), (world.id(payment.to), last));
        let Some(outgoing) = payment.numbered.over(height, forwarder, payee) else {
            return violation!(Outcomes, "payment {attempt_id} fits no onion");
        };
        let send = SendHtlc::new(attempt_id, &outgoing);
        world.command(payment.from, Command::SendHtlc(send))
    }

    /// Sends every onion again that the forwarder has carried on, with another HTLC of the same hash: none may leave
    /// it. The number of those refused.
    fn replay(&self, world: &mut World) -> Result<usize, Violation> {
        let before = world.seen.events.len();
        let carried: Vec<(u64, &Payment)> = (0..)
            .zip(&self.payments)
            .filter(|(_, payment)| world.seen.offered.contains_key(&payment.numbered.hash))
            .collect();
        for (number, payment) in &carried {
            self.pay(world, number + 10_000, payment)?;
            world.rest()?;
        }
        self.settle(world)?;
        let after = &world.seen.events[before..];
        let refused = after.iter().filter(
            |(_, event)| matches!(event, Event::HtlcFailed { attempt_id, .. } if *attempt_id >= 10_000),
        );
        let (refused, sent) = (refused.count(), carried.len());
        ensure!(refused == sent, Forwarding, "of {sent} onions sent again {refused} were refused");
        Ok(refused)
    }

    /// How each payment ended at its sender: whether it arrived.
    fn ends(&self, world: &World) -> Result<BTreeMap<u64, bool>, Violation> {
        let mut ends = BTreeMap::new();
        for (machine, event) in &world.seen.events {
            let (attempt_id, settled) = match event {
                Event::HtlcSettled { attempt_id, .. } => (*attempt_id, true),
                Event::HtlcFailed { attempt_id, .. } => (*attempt_id, false),
                _ => continue,
            };
            let before = ends.insert(attempt_id, settled);
            ensure!(before.is_none(), Outcomes, "payment {attempt_id} of {machine} ended twice");
        }
        for (number, payment) in (0..).zip(&self.payments) {
            let Some(settled) = ends.get(&number) else {
                return violation!(Progress, "payment {number} never ended: {payment:?}");
            };
            ensure!(!settled || payment.payable, Outcomes, "payment {number} was fulfilled by nobody");
        }
        Ok(ends)
    }
}

impl Payment {
    fn new(number: u64, pause_rounds: u64) -> Payment {
        // Within the first shard, within the second, and across both ways, in turn.
        let (from, to) =
            [(1, 2), (3, 4), (1, 3), (4, 2), (2, 1), (2, 4), (3, 1), (4, 3)][number as usize % 8];
        // Every fifth is too small for an output of its own.
        let amount = if number % 5 == 4 { Msat(50_000) } else { Msat(2_000_000 + 1_000 * number) };
        Payment {
            from,
            to,
            payable: number % 4 != 2,
            round: number / 4 * pause_rounds,
            numbered: NumberedPayment::new(0x77, number, amount),
        }
    }
}

/// The forwarder, and peers by whose ids each of its shards has as many.
fn machine_specs() -> Vec<MachineSpec> {
    let spec = |number: u8, shards| {
        let mut config = NodeConfig::new(ChainHash::REGTEST, [&[0, 20][..], &[number; 20]].concat());
        config.feerate = FeeratePerKw(253);
        config.channel.minimum_depth = 1;
        MachineSpec { seed: [number; 32], config, shards }
    };
    let mut peers: [Vec<MachineSpec>; SHARDS as usize] = Default::default();
    for number in 10..=u8::MAX {
        let spec = spec(number, 1);
        let shard = shard_of(spec.node_id());
        if peers[shard].len() < PEERS_PER_SHARD {
            peers[shard].push(spec);
        }
    }
    let forwarder = spec(1, SHARDS);
    std::iter::once(forwarder).chain(peers.into_iter().flatten()).collect()
}

/// The forwarder's shard that a peer belongs to, as its engine deals them out; `open` fails when it does otherwise.
fn shard_of(peer: NodeId) -> usize {
    let tail: [u8; 8] = peer.0.last_chunk().copied().unwrap_or_default();
    (u64::from_be_bytes(tail) % u64::from(SHARDS)) as usize
}

fn open_channel(world: &mut World, number: u64, peer: usize) -> Result<(), Violation> {
    let push = Msat(CAPACITY.0 * 1_000 / 2);
    let open =
        OpenChannelRequest { peer: world.id(peer), user_id: number, capacity: CAPACITY, push, policy: None };
    world.command(FORWARDER, Command::OpenChannel(open))?;
    world.rest()?;
    let needed = world.seen.events.iter().rev().find_map(|(_, event)| match event {
        Event::FundingNeeded { temporary_channel_id, user_id, amount, script, .. } if *user_id == number => {
            Some((*temporary_channel_id, *amount, script.clone()))
        }
        _ => None,
    });
    let Some((temporary_channel_id, amount, script)) = needed else {
        return violation!(Progress, "channel {number} is not accepted");
    };
    let transaction = funding_transaction(number, amount, script);
    world.command(FORWARDER, Command::FundingTransaction { temporary_channel_id, transaction })?;
    world.rest()
}

/// A machine's open channels: shard, id and place.
pub(super) fn channels_of(world: &World, machine: usize) -> Vec<(ChannelId, Scid)> {
    let mut found = Vec::new();
    world.engine(machine).for_each_shard(|shard| {
        found.extend(shard.channels().filter_map(|channel| Some((channel.id(), channel.scid()?))));
    });
    found
}

fn first_scid(world: &World, peer: usize) -> Scid {
    channels_of(world, peer).into_iter().map(|(_, scid)| scid).min().unwrap_or(Scid(0))
}
