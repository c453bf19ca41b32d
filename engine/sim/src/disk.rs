//! A disk that dies, tears writes and loses unsynced data: the worst that POSIX allows.
//!
//! Owns [`SimDisk`], which stands in for a directory under the engine's log. Bytes survive a crash for certain only
//! after their file was synced, names only after the directory was; of the rest any part may survive, in any order. A
//! sync that failed never makes its bytes durable, however often it is repeated. Does not model two processes in one
//! directory.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fulmen::store::{Disk, DiskFile};

use crate::draw::Draw;

/// The bytes a disk writes as one when it tears a write; real ones write more.
const SECTOR_BYTES: usize = 64;

/// The part of the unsynced data that survives a crash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Survival {
    /// Nothing.
    None,
    /// Everything: the system wrote it by itself, or only the process died.
    All,
    /// Of each file a drawn part from its start; names as drawn.
    Prefix,
    /// Of each file sectors as drawn, zeros between them; names as drawn.
    Sectors,
}

impl Survival {
    /// Every kind.
    pub const EACH: [Survival; 4] = [Survival::None, Survival::All, Survival::Prefix, Survival::Sectors];
}

/// A directory on a simulated disk. Clones are the same disk.
#[derive(Clone, Debug, Default)]
pub struct SimDisk(Arc<Mutex<DiskState>>);

#[derive(Debug, Default)]
struct DiskState {
    files: BTreeMap<u64, SimFile>,
    names: BTreeMap<String, u64>,
    durable_names: BTreeMap<String, u64>,
    /// Changes of the names since they were durable.
    name_changes: Vec<NameChange>,
    next_file: u64,
    operations: u64,
    syncs: u64,
    fault: Option<(u64, Fault)>,
    is_dead: bool,
    /// Syncs succeed and do nothing.
    ignores_syncs: bool,
}

#[derive(Clone, Debug, Default)]
struct SimFile {
    bytes: Vec<u8>,
    durable: Vec<u8>,
    /// How many bytes of both are the same ones: fewer than were durable once the file was cut or written over.
    safe: usize,
    /// How short the file was since it was durable.
    shortest: usize,
    /// How far it was written since then.
    written: usize,
    /// A sync has failed: bytes that were not durable then never will be.
    is_broken: bool,
}

#[derive(Clone, Debug)]
enum NameChange {
    Made { name: String, file: u64 },
    Renamed { from: String, to: String },
    Removed { name: String },
}

#[derive(Clone, Copy, Debug)]
enum Fault {
    Death,
    Error(io::ErrorKind),
}

/// The result of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum OperationOutcome {
    Succeed,
    /// Succeed, as far as a crash lets it, and be the last.
    Die,
    Fail(io::ErrorKind),
}

impl SimDisk {
    /// An empty disk.
    #[must_use]
    pub fn new() -> SimDisk {
        SimDisk::default()
    }

    /// How many operations there were that change something or make it durable: the points at which it can die.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.state().operations
    }

    /// How many syncs there were.
    #[must_use]
    pub fn syncs(&self) -> u64 {
        self.state().syncs
    }

    /// Has the disk die in this operation, counted from zero: it and all later ones fail.
    pub fn die_at(&self, operation: u64) {
        self.state().fault = Some((operation, Fault::Death));
    }

    /// Has this operation fail, counted from zero; later ones do not.
    pub fn fail_at(&self, operation: u64, error: io::ErrorKind) {
        self.state().fault = Some((operation, Fault::Error(error)));
    }

    /// Lets syncs succeed from now on without making anything durable, to test that checks notice.
    pub fn ignore_syncs(&self) {
        self.state().ignores_syncs = true;
    }

    /// Whether it has died.
    #[must_use]
    pub fn is_dead(&self) -> bool {
        self.state().is_dead
    }

    /// The disk that a restart finds, whether this one died by itself or its process was killed.
    #[must_use]
    pub fn after_crash(&self, survival: Survival, seed: u64) -> SimDisk {
        let mut draw = Draw::new(seed);
        let state = self.state();
        let mut names = state.durable_names.clone();
        for change in &state.name_changes {
            let survives = match survival {
                Survival::None => false,
                Survival::All => true,
                Survival::Prefix | Survival::Sectors => draw.percent(50),
            };
            if survives {
                change.apply(&mut names);
            }
        }
        let mut files = BTreeMap::new();
        for (number, file) in &state.files {
            if names.values().any(|named| named == number) {
                let bytes = file.after_crash(survival, &mut draw);
                files.insert(
                    *number,
                    SimFile {
                        safe: bytes.len(),
                        shortest: bytes.len(),
                        written: 0,
                        durable: bytes.clone(),
                        bytes,
                        is_broken: false,
                    },
                );
            }
        }
        SimDisk(Arc::new(Mutex::new(DiskState {
            files,
            durable_names: names.clone(),
            names,
            next_file: state.next_file,
            ..DiskState::default()
        })))
    }

    /// Flips one bit of a file, as a disk does that rots.
    pub fn flip(&self, name: &str, bit: u64) {
        let mut state = self.state();
        let Some(number) = state.names.get(name).copied() else { return };
        let Some(file) = state.files.get_mut(&number) else { return };
        for bytes in [&mut file.bytes, &mut file.durable] {
            if let Some(byte) = usize::try_from(bit / 8).ok().and_then(|at| bytes.get_mut(at)) {
                *byte ^= 1 << (bit % 8);
            }
        }
    }

    /// The memory that the files' bytes take.
    pub(crate) fn heap_bytes(&self) -> usize {
        self.state().files.values().map(|file| file.bytes.capacity() + file.durable.capacity()).sum()
    }

    fn state(&self) -> MutexGuard<'_, DiskState> {
        // A test that panics elsewhere may still look at the disk.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl DiskState {
    /// Counts an operation and decides its outcome.
    fn operation(&mut self) -> io::Result<OperationOutcome> {
        if self.is_dead {
            return Err(died());
        }
        let number = self.operations;
        self.operations += 1;
        match self.fault {
            Some((at, Fault::Death)) if at == number => {
                self.is_dead = true;
                Ok(OperationOutcome::Die)
            }
            Some((at, Fault::Error(kind))) if at == number => Ok(OperationOutcome::Fail(kind)),
            _ => Ok(OperationOutcome::Succeed),
        }
    }

    fn change_names(&mut self, change: NameChange) -> io::Result<()> {
        let outcome = self.operation()?;
        if let OperationOutcome::Fail(kind) = outcome {
            return Err(kind.into());
        }
        change.apply(&mut self.names);
        self.name_changes.push(change);
        outcome.result()
    }

    fn number(&self, name: &str) -> io::Result<u64> {
        self.names.get(name).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn file(&mut self, number: u64) -> io::Result<&mut SimFile> {
        self.files.get_mut(&number).ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl OperationOutcome {
    fn result(self) -> io::Result<()> {
        match self {
            OperationOutcome::Succeed => Ok(()),
            OperationOutcome::Die => Err(died()),
            OperationOutcome::Fail(kind) => Err(kind.into()),
        }
    }
}

fn died() -> io::Error {
    io::Error::other("the disk has died")
}

impl NameChange {
    fn apply(&self, names: &mut BTreeMap<String, u64>) {
        match self {
            NameChange::Made { name, file } => {
                names.insert(name.clone(), *file);
            }
            NameChange::Renamed { from, to } => {
                if let Some(file) = names.remove(from) {
                    names.insert(to.clone(), file);
                }
            }
            NameChange::Removed { name } => {
                names.remove(name);
            }
        }
    }
}

impl SimFile {
    fn sync(&mut self) {
        if !self.is_broken {
            self.durable.clone_from(&self.bytes);
            self.safe = self.bytes.len();
            self.shortest = self.bytes.len();
            self.written = 0;
        }
    }

    /// Writes at an offset, over existing bytes and past the end.
    fn write(&mut self, at: usize, bytes: &[u8]) {
        self.safe = self.safe.min(at);
        let over = bytes.len().min(self.bytes.len() - at);
        self.bytes[at..at + over].copy_from_slice(&bytes[..over]);
        self.bytes.extend(&bytes[over..]);
        self.written = self.written.max(at + bytes.len());
    }

    fn reserve(&mut self, bytes: usize) {
        self.bytes.resize(self.bytes.len() + bytes, 0);
        self.written = self.bytes.len();
    }

    fn cut(&mut self, bytes: usize) {
        self.bytes.truncate(bytes);
        self.safe = self.safe.min(bytes);
        self.shortest = self.shortest.min(bytes);
        self.written = self.written.min(bytes);
    }

    fn after_crash(&self, survival: Survival, draw: &mut Draw) -> Vec<u8> {
        match survival {
            Survival::None => self.durable.clone(),
            Survival::All => self.bytes.clone(),
            Survival::Prefix | Survival::Sectors => {
                if self.shortest < self.durable.len() && draw.percent(50) {
                    // The cut did not survive.
                    return self.durable.clone();
                }
                // Bytes that were not cut are there, perhaps as they were before they were overwritten.
                let before = &self.durable[..self.durable.len().min(self.shortest)];
                let end = draw.between(self.safe as u64, self.written.max(self.safe) as u64) as usize;
                let mut bytes = self.bytes[..end].to_vec();
                if survival == Survival::Sectors {
                    for start in (self.safe..end).step_by(SECTOR_BYTES) {
                        if draw.percent(50) {
                            let sector = &mut bytes[start..end.min(start + SECTOR_BYTES)];
                            sector.fill(0);
                            let before = before.get(start..).unwrap_or_default();
                            let kept = before.len().min(sector.len());
                            sector[..kept].copy_from_slice(&before[..kept]);
                        }
                    }
                }
                bytes.extend(before.get(end..).unwrap_or_default());
                bytes
            }
        }
    }
}

impl Disk for SimDisk {
    fn list(&self) -> io::Result<Vec<(String, u64)>> {
        let state = self.state();
        let length = |number| state.files.get(number).map_or(0, |file| file.bytes.len() as u64);
        Ok(state.names.iter().map(|(name, number)| (name.clone(), length(number))).collect())
    }

    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        let mut state = self.state();
        if state.is_dead {
            return Err(died());
        }
        let number = state.number(name)?;
        Ok(state.file(number)?.bytes.clone())
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let mut state = self.state();
        let number = if let Ok(number) = state.number(name) {
            // Making a file that exists cuts it, which is as durable as any other write.
            let outcome = state.operation()?;
            if !matches!(outcome, OperationOutcome::Fail(_)) {
                state.file(number)?.cut(0);
            }
            outcome.result()?;
            number
        } else {
            let number = state.next_file;
            state.next_file += 1;
            state.files.insert(number, SimFile::default());
            state.change_names(NameChange::Made { name: name.to_owned(), file: number })?;
            number
        };
        Ok(Box::new(Handle { disk: self.clone(), number, written: 0 }))
    }

    fn truncate(&self, name: &str, bytes: u64) -> io::Result<()> {
        let mut state = self.state();
        let number = state.number(name)?;
        let outcome = state.operation()?;
        let file = state.file(number)?;
        if !matches!(outcome, OperationOutcome::Fail(_)) {
            file.cut(usize::try_from(bytes).unwrap_or(usize::MAX));
        }
        if outcome == OperationOutcome::Succeed {
            file.sync();
        }
        outcome.result()
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.state();
        state.number(from)?;
        state.change_names(NameChange::Renamed { from: from.to_owned(), to: to.to_owned() })
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.state();
        state.number(name)?;
        state.change_names(NameChange::Removed { name: name.to_owned() })
    }

    fn sync_names(&self) -> io::Result<()> {
        let mut state = self.state();
        let outcome = state.operation()?;
        state.syncs += u64::from(outcome == OperationOutcome::Succeed);
        if outcome == OperationOutcome::Succeed && !state.ignores_syncs {
            state.durable_names = state.names.clone();
            state.name_changes.clear();
        }
        outcome.result()
    }
}

/// A file open on a [`SimDisk`].
#[derive(Debug)]
struct Handle {
    disk: SimDisk,
    number: u64,
    written: usize,
}

impl DiskFile for Handle {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.disk.state();
        let outcome = state.operation()?;
        // A write that fails is short.
        let written =
            if matches!(outcome, OperationOutcome::Fail(_)) { bytes.len() / 2 } else { bytes.len() };
        state.file(self.number)?.write(self.written, &bytes[..written]);
        self.written += written;
        outcome.result()
    }

    fn reserve(&mut self, bytes: u64) -> io::Result<()> {
        let mut state = self.disk.state();
        let outcome = state.operation()?;
        if !matches!(outcome, OperationOutcome::Fail(_)) {
            state.file(self.number)?.reserve(usize::try_from(bytes).unwrap_or(usize::MAX));
        }
        outcome.result()
    }

    fn trim(&mut self) -> io::Result<()> {
        let mut state = self.disk.state();
        let outcome = state.operation()?;
        if !matches!(outcome, OperationOutcome::Fail(_)) {
            state.file(self.number)?.cut(self.written);
        }
        drop(state);
        outcome.result()?;
        self.sync()
    }

    fn sync(&mut self) -> io::Result<()> {
        let mut state = self.disk.state();
        let outcome = state.operation()?;
        state.syncs += u64::from(outcome == OperationOutcome::Succeed);
        let ignores_syncs = state.ignores_syncs;
        let file = state.file(self.number)?;
        match outcome {
            OperationOutcome::Succeed if ignores_syncs => {}
            OperationOutcome::Succeed => file.sync(),
            OperationOutcome::Fail(_) => file.is_broken = true,
            OperationOutcome::Die => {}
        }
        outcome.result()
    }
}
