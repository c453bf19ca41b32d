//! A random walk: both sides add, remove, change fees, sign, lose messages, connections and processes at random; a
//! model knows everybody's balance in the end.
//!
//! The harness checks at every step that each commitment adds up and that the signatures one side makes are those the
//! other expects, which they are only if both derive the same commitment. The seed is in every failure.

use std::collections::BTreeMap;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::*;
use crate::channel::Removal;

/// The planned outcome of an HTLC that its receiver has locked in.
struct Open {
    id: u64,
    number: u64,
}

struct Walk {
    pair: Pair,
    rng: ChaCha8Rng,
    seed: u64,
    connected: bool,
    next_number: u64,
    /// HTLCs locked in at `a` and `b`, not yet answered.
    open: [Vec<Open>; 2],
    /// Per side and id, the numbers of the HTLCs it offered.
    offered: [BTreeMap<u64, (u64, Msat)>; 2],
    /// The gain of `a`, in millisatoshi, once everything is settled.
    a_gains: i64,
    /// Whether somebody has asked to close.
    shutting_down: bool,
    /// How many HTLCs each side has seen end.
    ended: [usize; 2],
    htlcs: usize,
}

impl Walk {
    fn new(seed: u64) -> Walk {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let channel_type = if rng.random() { ChannelType::Anchors } else { ChannelType::StaticRemotekey };
        let mut setup = Setup::new(channel_type);
        setup.funding = if rng.random() { FUNDING } else { Sat(30_000) };
        setup.push = Msat(setup.funding.0 * rng.random_range(0..900));
        setup.a.dust_limit = Sat(rng.random_range(354..600));
        setup.b.dust_limit = Sat(rng.random_range(354..600));
        setup.b.max_accepted_htlcs = rng.random_range(1..30);
        setup.b.max_htlc_value_in_flight = Msat(setup.funding.0 * rng.random_range(100..1000));
        Walk {
            pair: Pair::ready(&setup),
            rng,
            seed,
            connected: true,
            next_number: 0,
            open: [Vec::new(), Vec::new()],
            offered: [BTreeMap::new(), BTreeMap::new()],
            a_gains: 0,
            shutting_down: false,
            ended: [0, 0],
            htlcs: 0,
        }
    }

    fn node(&mut self, side: usize) -> &mut Node {
        if side == 0 { &mut self.pair.a } else { &mut self.pair.b }
    }

    fn step(&mut self) {
        let side = self.rng.random_range(0..2);
        match self.rng.random_range(0..100) {
            0..18 => self.add(side),
            18..36 => self.answer(side),
            36..40 => self.update_fee(),
            40..43 => self.toggle_connection(),
            43..44 if !self.connected => self.restart(side),
            44..58 => {
                if let Some(plan) = self.node(side).channel.plan_turn_end(&CONTEXT) {
                    self.node(side).run(plan).expect("nothing to verify");
                }
            }
            _ => self.deliver(side),
        }
        self.observe();
    }

    fn add(&mut self, side: usize) {
        let available = self.node(side).channel.available_out();
        if !self.connected {
            return;
        }
        let amount = match self.rng.random_range(0..10) {
            0 => available,
            1..4 => Msat(self.rng.random_range(1..700_000)),
            _ => Msat(self.rng.random_range(1..=available.0 / 3 + 1)),
        };
        let number = self.next_number;
        let id = self.node(side).channel.next_htlc_id();
        match self.node(side).command(&add(amount, number)) {
            Ok(()) => {
                self.next_number += 1;
                self.htlcs += 1;
                self.offered[side].insert(id, (number, amount));
            }
            Err(ChannelCommandError::ShuttingDown) => assert!(self.shutting_down, "seed {}", self.seed),
            // Connected here means that messages flow; the channels may not have reestablished themselves yet.
            Err(
                ChannelCommandError::HtlcAmountZero
                | ChannelCommandError::DustExposure { .. }
                | ChannelCommandError::NotConnected,
            ) => {}
            Err(error) => assert!(amount > available, "seed {}: {error} though {available}", self.seed),
        }
    }

    fn answer(&mut self, side: usize) {
        if self.open[side].is_empty() {
            return;
        }
        let index = self.rng.random_range(0..self.open[side].len());
        let Open { id, number } = self.open[side].swap_remove(index);
        let command = match self.rng.random_range(0..4) {
            0 => ChannelCommand::FailHtlc { id, reason: vec![3; (id % 50) as usize] },
            1 => ChannelCommand::FailMalformedHtlc { id, sha256_of_onion: [1; 32], failure_code: 0xc004 },
            _ => {
                let (_, amount) = self.offered[1 - side][&id];
                let amount = i64::try_from(amount.0).unwrap();
                self.a_gains += if side == 0 { amount } else { -amount };
                ChannelCommand::FulfillHtlc { id, preimage: preimage(number) }
            }
        };
        let seed = self.seed;
        self.node(side).command(&command).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    }

    fn update_fee(&mut self) {
        let feerate = FeeratePerKw(self.rng.random_range(253..3000));
        match self.node(0).command(&ChannelCommand::UpdateFee { feerate }) {
            Ok(())
            | Err(
                ChannelCommandError::NotConnected
                | ChannelCommandError::FeeNotAffordable { .. }
                | ChannelCommandError::DustExposure { .. },
            ) => {}
            Err(ChannelCommandError::ShuttingDown | ChannelCommandError::NotPossible { .. }) => {
                assert!(self.shutting_down, "seed {}", self.seed);
            }
            Err(error) => panic!("seed {}: {error}", self.seed),
        }
    }

    fn shut_down(&mut self, side: usize) {
        match self.node(side).command(&ChannelCommand::Shutdown { scriptpubkey: None }) {
            Ok(()) => self.shutting_down = true,
            Err(error) => assert_eq!(error, ChannelCommandError::AlreadyShuttingDown, "seed {}", self.seed),
        }
    }

    fn toggle_connection(&mut self) {
        if self.connected {
            self.pair.disconnect();
        } else {
            self.pair.connect();
        }
        self.connected = !self.connected;
    }

    /// The process dies and comes back from its record.
    fn restart(&mut self, side: usize) {
        let node = self.node(side);
        node.channel = Channel::replay(node.secrets.clone(), node.record.clone()).expect("a record");
    }

    fn deliver(&mut self, from: usize) {
        let Some(message) = self.node(from).sent.pop_front() else { return };
        let (seed, to) = (self.seed, 1 - from);
        if let Err(error) = self.node(to).receive(&message) {
            panic!("seed {seed}: {to} refuses {:?}: {error}", Message::decode(&message).map(|m| m.name()));
        }
    }

    /// Takes in the channels' events.
    fn observe(&mut self) {
        for side in 0..2 {
            for event in self.node(side).take_events() {
                match event {
                    ChannelEvent::AddLockedIn { htlc, .. } => {
                        let (number, amount) = self.offered[1 - side][&htlc.id];
                        assert_eq!(amount, htlc.amount);
                        self.open[side].push(Open { id: htlc.id, number });
                    }
                    ChannelEvent::Fulfilled { id, preimage: found } => {
                        assert_eq!(found, preimage(self.offered[side][&id].0));
                    }
                    ChannelEvent::FailLockedIn { id, removal } => {
                        assert!(!matches!(removal, Removal::Fulfill(_)));
                        assert!(self.offered[side].contains_key(&id));
                        self.ended[side] += 1;
                    }
                    ChannelEvent::FulfillLockedIn { .. } | ChannelEvent::RemovalLockedIn { .. } => {
                        self.ended[side] += 1;
                    }
                    ChannelEvent::ShutdownStarted | ChannelEvent::Closed { .. } => {
                        assert!(self.shutting_down, "seed {}", self.seed);
                    }
                    other => panic!("seed {}: {other:?}", self.seed),
                }
            }
        }
    }

    /// Connects, settles everything, and compares with the model.
    fn finish(mut self) -> usize {
        let initial = 1000 * self.pair.a.channel.capacity().unwrap().0;
        if !self.connected {
            self.toggle_connection();
        }
        loop {
            self.pair.settle();
            self.observe();
            if self.open.iter().all(Vec::is_empty) {
                break;
            }
            self.answer(0);
            self.answer(1);
        }
        let seed = self.seed;
        assert_eq!(
            self.pair.a.channel.htlcs().count() + self.pair.b.channel.htlcs().count(),
            0,
            "seed {seed}"
        );
        assert_eq!(self.ended, [self.htlcs, self.htlcs], "seed {seed}: every HTLC ends once for each side");
        let (a, b) = self.pair.a.balances();
        assert_eq!(self.pair.b.balances(), (b, a), "seed {seed}");
        assert_eq!(a.0 + b.0, initial, "seed {seed}");
        let start = self.pair.a.record.iter().find_map(|delta| match delta {
            Delta::Opened { open, .. } => Some(initial - open.push_msat.0),
            _ => None,
        });
        let expected = i64::try_from(start.unwrap()).unwrap() + self.a_gains;
        assert_eq!(i64::try_from(a.0).unwrap(), expected, "seed {seed}");

        if !self.shutting_down {
            self.shut_down(1);
        }
        self.pair.settle();
        let closing = self.pair.a.channel.closing_transaction().expect("both sides agreed");
        assert_eq!(Some(closing), self.pair.b.channel.closing_transaction(), "seed {seed}");
        self.htlcs
    }
}

fn walk(seeds: std::ops::Range<u64>, steps: usize) -> usize {
    seeds
        .map(|seed| {
            let mut walk = Walk::new(seed);
            let shutdown_at = walk.rng.random_range(steps / 2..2 * steps);
            for step in 0..steps {
                if step == shutdown_at {
                    let side = walk.rng.random_range(0..2);
                    walk.shut_down(side);
                }
                walk.step();
            }
            walk.finish()
        })
        .sum()
}

#[test]
fn random_walks_end_where_the_model_does() {
    let htlcs = walk(0..12, 400);
    assert!(htlcs > 12 * 10, "{htlcs} HTLCs are too few to mean anything");
}

/// `FULMEN_WALKS` says how many, for longer runs.
#[test]
fn fresh_random_walks_end_where_the_model_does() {
    let count = std::env::var("FULMEN_WALKS").ok().and_then(|count| count.parse().ok()).unwrap_or(4);
    let age = std::time::SystemTime::UNIX_EPOCH.elapsed().map_or(0, |age| age.as_micros());
    let seed = u64::try_from(age % (1 << 50)).unwrap();
    println!("seeds from {seed}");
    walk(seed..seed + count, 400);
}
