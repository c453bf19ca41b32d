//! The crash matrix: a routing node killed under load at every operation of its disk, and its peers' view of it.
//!
//! Owns: the script (a forwarder of two shards between four peers, payments within a shard and across, to be
//! fulfilled and to fail, links that break), the points, and the checks. Drives [`fulmen::Engine`] with its real log,
//! without threads, over [`SimDisk`], so that a point always is the same one. The peers are engines too, on disks
//! that hold.
//!
//! At each point the forwarder's disk dies; the surviving bytes are drawn; the node starts again from them, may die
//! again, goes on with the script, and comes to rest. Then every HTLC is resolved, each payment ended once and alike
//! at both ends, none was offered twice, no channel failed, both ends of each channel agree, nobody has a
//! millisatoshi more or less than the payments made, and each onion the forwarder once took is refused when it comes
//! again.

mod checks;
mod script;
#[cfg(test)]
mod tests;
mod world;

use crate::disk::Survival;
use crate::violation::Violation;

use script::Script;
use world::{Image, World};

/// How long the script is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScriptLength {
    /// A few payments, for every build.
    Short,
    /// Many, with more at once.
    Full,
}

/// A death of the forwarder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CrashPoint {
    /// The operation of its disk that is the last, counted from the start of the script.
    pub operation: u64,
    /// The part of the unsynced data that survives.
    pub survival: Survival,
    /// The seed of the surviving bytes and of the messages that are still delivered.
    pub seed: u64,
    /// The operation, counted from the restart, in which it dies once more.
    pub again: Option<u64>,
}

/// The outcome of the script's payments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CrashOutcome {
    /// Payments that arrived.
    pub settled: usize,
    /// Payments that came to nothing.
    pub failed: usize,
    /// HTLCs that the forwarder had taken and not resolved when it first died.
    pub in_flight: usize,
    /// Onions sent again and refused.
    pub refused: usize,
    /// How often the forwarder died.
    pub deaths: usize,
    /// Checkpoints taken by the forwarder since it last started.
    pub checkpoints: u64,
}

/// A script and the state of all disks before it; [`CrashMatrix::run`] runs it with a crash at any point.
#[derive(Debug)]
pub struct CrashMatrix {
    script: Script,
    /// All disks, with channels open and invoices known.
    image: Image,
    operations: u64,
    undisturbed: CrashOutcome,
}

impl CrashMatrix {
    /// Opens the channels and runs the script once without a death.
    ///
    /// # Errors
    /// When that does not go as it should.
    pub fn new(length: ScriptLength) -> Result<CrashMatrix, Violation> {
        let script = Script::new(length);
        let image = script.open()?;
        let mut world = World::from_image(&image, 0)?;
        // The start from the image precedes the crash point.
        let before = world.forwarder_operations();
        let undisturbed = script.run(&mut world)?;
        let operations = world.forwarder_operations() - before;
        script.expect_undisturbed(&undisturbed)?;
        Ok(CrashMatrix { script, image, operations, undisturbed })
    }

    /// How many points there are.
    #[must_use]
    pub const fn operations(&self) -> u64 {
        self.operations
    }

    /// The outcome of the payments without a crash.
    #[must_use]
    pub const fn undisturbed(&self) -> CrashOutcome {
        self.undisturbed
    }

    /// Runs the script with a death.
    ///
    /// # Errors
    /// With the first violation found.
    pub fn run(&self, point: CrashPoint) -> Result<CrashOutcome, Violation> {
        let mut world = World::from_image(&self.image, point.seed)?;
        world.crash_at(point);
        self.script.run(&mut world)
    }
}
