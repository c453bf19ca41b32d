//! The crash matrix: a routing node killed at every point at which it touches its disk, under load, and what its peers see.
//!
//! Owns: the script (a forwarder of two shards between four peers, payments within a shard and across, to be fulfilled and
//! to fail, links that break), the points, and the checks. Drives [`fulmen::Engine`] with its real log, without threads,
//! over [`SimDisk`], so that a point always is the same one. The peers are engines too, on disks that hold.
//!
//! At each point the forwarder's disk dies; what survives is drawn; the node starts again from that, may die again, goes on
//! with the script, and comes to rest. Then every HTLC is resolved, each payment ended once and alike at both ends, none
//! was offered twice, no channel failed, both ends of each channel agree, nobody has a millisatoshi more or less than the
//! payments made, and each onion the forwarder once took is refused when it comes again.

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
pub enum Length {
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
    /// What survives of what was not synced.
    pub survival: Survival,
    /// What is drawn: which bytes, which messages were still delivered.
    pub seed: u64,
    /// The operation, counted from the restart, in which it dies once more.
    pub again: Option<u64>,
}

/// What became of the script's payments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
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

/// The script, ready to be killed anywhere.
#[derive(Debug)]
pub struct CrashMatrix {
    script: Script,
    /// All disks, with channels open and invoices known.
    image: Image,
    operations: u64,
    undisturbed: Outcome,
}

impl CrashMatrix {
    /// Opens the channels and runs the script once without a death.
    ///
    /// # Errors
    /// When that does not go as it should.
    pub fn new(length: Length) -> Result<CrashMatrix, Violation> {
        let script = Script::new(length);
        let image = script.open()?;
        let mut world = World::from_image(&image, 0)?;
        // What it takes to start from the image lies behind when the forwarder is doomed.
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

    /// What becomes of the payments when nobody dies.
    #[must_use]
    pub const fn undisturbed(&self) -> Outcome {
        self.undisturbed
    }

    /// Runs the script with a death.
    ///
    /// # Errors
    /// With the first violation found.
    pub fn run(&self, point: CrashPoint) -> Result<Outcome, Violation> {
        let mut world = World::from_image(&self.image, point.seed)?;
        world.doom(point);
        self.script.run(&mut world)
    }
}
