//! Adversaries with a budget of bytes against one node, and the honest payments over it that must go on.
//!
//! Owns the network (a victim of one to three shards, two honest peers, two liars and two signers with channels of both
//! kinds, any number of strangers), scripts of adversaries' actions, their run, and the invariants. Drives
//! [`fulmen::Engine`] with its real log on a [`SimDisk`](crate::SimDisk), without threads, so that a script always does
//! the same.
//!
//! A liar is a real engine whose messages are tampered with on their way: signatures stay valid, so that lies reach the
//! states deep inside a channel. A signer drives channel machines by hand and signs whatever it wants. A stranger is an
//! id without an engine that sends any bytes. Both send messages of every kind at any time, fields at their extremes,
//! at their largest; fall silent; withhold, repeat and damage messages; reconnect; and the victim's power fails
//! meanwhile. See [`Action`] for the grammar, and `checks` for the invariants.
//!
//! ```no_run
//! use fulmen_sim::adversary::{Adversary, Script};
//!
//! let adversary = Adversary::new()?;
//! let script = Script::draw(7, 200_000);
//! if let Err(violation) = adversary.run(&script, None) {
//!     let shortest = adversary.shrink(&script, None);
//!     println!("{violation:?} after {:#?}", shortest.actions);
//! }
//! # Ok::<(), fulmen_sim::Violation>(())
//! ```

mod actions;
mod checks;
mod honest;
mod messages;
mod meter;
mod network;
mod script;
mod signer;
mod tamper;
#[cfg(test)]
mod tests;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use crate::violation::{Checker, Violation, ensure};

use honest::HonestPayments;
pub use meter::{CallCost, Meter};
pub use script::{Action, Attacker, Payee, Script, SignerAction};
use world::{HONEST, Image, LIARS, World};

/// Bytes that adversaries may have the victim take in one run, whatever their script costs.
const BUDGET_BYTES: u64 = 24 << 20;
/// Rounds between two actions.
const ROUNDS_PER_ACTION: u64 = 3;
/// Rounds until an honest payment must have ended once adversaries are silent; its own deadline comes first.
const ROUNDS_TO_REST: u64 = 2_000;
/// Honest payments after the victim's last restart.
const LAST_PAYMENTS: u64 = 2;

/// The counters of a run without violations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AttackReport {
    /// Bytes that adversaries had the victim take.
    pub attack_bytes: u64,
    /// Messages of theirs.
    pub attack_messages: u64,
    /// Honest payments that settled.
    pub settled: u64,
    /// Honest payments that failed, all while the victim died.
    pub failed: u64,
    /// Times that the victim started again.
    pub restarts: u64,
    /// The most HTLCs that the victim had offered to signers at once.
    pub offered_to_signers: usize,
    /// The most bytes of heap that one call of the victim allocated at once.
    pub heap_peak: u64,
    /// The heap of the victim at the end of the script, less its heap before; its disk is left out.
    pub heap: u64,
    /// Bytes of records that the victim wrote since it last started during the script.
    pub written: u64,
    /// The victim's CPU time, as far as the meter measures it.
    pub cpu: Duration,
}

/// The network before any adversary acts, from which each run starts.
#[derive(Debug)]
pub struct Adversary {
    /// By the victim's number of shards, from one.
    images: Vec<Image>,
}

impl Adversary {
    /// Opens the channels.
    ///
    /// # Errors
    /// When that does not go as it should.
    pub fn new() -> Result<Adversary, Violation> {
        let images = (1..=3).map(network::open).collect::<Result<_, _>>()?;
        Ok(Adversary { images })
    }

    /// Runs a script, measuring the victim's heap if there is a meter.
    ///
    /// # Errors
    /// With the first violation.
    pub fn run(&self, script: &Script, meter: Option<Meter>) -> Result<AttackReport, Violation> {
        let run = catch_unwind(AssertUnwindSafe(|| self.run_unguarded(script, meter)));
        run.unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
            Err(Violation::new(Checker::Alive, format!("a panic: {text}")))
        })
    }

    fn run_unguarded(&self, script: &Script, meter: Option<Meter>) -> Result<AttackReport, Violation> {
        let shards = usize::from(script.shards).clamp(1, self.images.len());
        let mut world = World::from_image(&self.images[shards - 1], BUDGET_BYTES, meter)?;
        let mut payments = HonestPayments::default();
        HONEST.into_iter().chain(LIARS).for_each(|machine| world.connect(machine));
        (0..world.signers.len()).for_each(|signer| world.connect_signer(signer));
        rest(&mut world, &mut payments)?;
        let honest: Vec<_> = HONEST.into_iter().flat_map(|machine| world.channel_ids(machine)).collect();
        world.watch(honest);
        let heap_before = world.spent.heap;
        for action in &script.actions {
            if matches!(action, Action::Mine { .. }) {
                // HTLCs in honest channels would expire among many blocks.
                rest(&mut world, &mut payments)?;
            }
            world.perform(action)?;
            payments.send(&mut world);
            for _ in 0..ROUNDS_PER_ACTION {
                round(&mut world, &mut payments)?;
            }
        }
        rest(&mut world, &mut payments)?;
        let (heap, written) = (world.spent.heap.saturating_sub(heap_before), world.written());
        // The power fails once more, whatever adversaries left on the disk.
        world.crash_at(0, 0);
        for _ in 0..LAST_PAYMENTS {
            payments.send(&mut world);
            rest(&mut world, &mut payments)?;
        }
        ensure!(payments.settled > 0, Progress, "no honest payment settled");
        Ok(AttackReport {
            attack_bytes: world.spent.attack_bytes,
            attack_messages: world.spent.attack_messages,
            settled: payments.settled,
            failed: payments.failed,
            restarts: world.spent.restarts,
            offered_to_signers: world.spent.offered_to_signers,
            heap_peak: world.spent.heap_peak,
            heap,
            written,
            cpu: world.spent.cpu,
        })
    }

    /// The shortest script found that still ends in a violation: actions are left out, then repetitions.
    #[must_use]
    pub fn shrink(&self, script: &Script, meter: Option<Meter>) -> Script {
        shrink_while(script, |script| self.run(script, meter).is_err())
    }
}

/// The shortest script found that still fails: actions are left out, then repetitions.
fn shrink_while(script: &Script, fails: impl Fn(&Script) -> bool) -> Script {
    let mut shortest = script.clone();
    let mut chunk = shortest.actions.len().div_ceil(2).max(1);
    loop {
        let mut start = 0;
        let mut removed = false;
        while start < shortest.actions.len() {
            let mut shorter = shortest.clone();
            shorter.actions.drain(start..(start + chunk).min(shortest.actions.len()));
            if fails(&shorter) {
                (shortest, removed) = (shorter, true);
            } else {
                start += chunk;
            }
        }
        if chunk == 1 && !removed {
            break;
        }
        chunk = chunk.div_ceil(2);
    }
    for index in 0..shortest.actions.len() {
        while let Some(halved) = shortest.actions[index].halved() {
            let mut smaller = shortest.clone();
            smaller.actions[index] = halved;
            if !fails(&smaller) {
                break;
            }
            shortest = smaller;
        }
    }
    shortest
}

fn round(world: &mut World, payments: &mut HonestPayments) -> Result<bool, Violation> {
    let busy = world.round()?;
    world.check(payments.sent)?;
    payments.check(world)?;
    Ok(busy)
}

/// Rounds until no honest payment is under way and no HTLC is left in an honest channel.
fn rest(world: &mut World, payments: &mut HonestPayments) -> Result<(), Violation> {
    for _ in 0..ROUNDS_TO_REST {
        let busy = round(world, payments)?;
        if !payments.under_way() && !busy && world.honest_channels_are_idle() {
            return Ok(());
        }
    }
    ensure!(!payments.under_way(), Progress, "an honest payment never ends");
    Ok(())
}
