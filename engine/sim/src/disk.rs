//! A disk that dies, tears what it writes and forgets what was not synced: the worst that POSIX allows.
//!
//! Owns [`SimDisk`], which stands in for a directory under the engine's log. Bytes survive a crash for certain only after
//! their file was synced, names only after the directory was; of the rest any part may survive, in any order. A sync that
//! failed never makes good what it lost, however often it is repeated. Does not model what a process sees when two of
//! them share a directory.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fulmen::store::{Disk, DiskFile};

use crate::draw::Draw;

/// The bytes a disk writes as one when it tears a write; real ones write more.
const SECTOR_BYTES: usize = 64;

/// How much of what was not synced survives a crash.
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
pub struct SimDisk(Arc<Mutex<Platters>>);

#[derive(Debug, Default)]
struct Platters {
    files: BTreeMap<u64, SimFile>,
    names: BTreeMap<String, u64>,
    durable_names: BTreeMap<String, u64>,
    /// What changed the names since they were durable.
    name_changes: Vec<NameChange>,
    next_file: u64,
    operations: u64,
    syncs: u64,
    fault: Option<(u64, Fault)>,
    is_dead: bool,
    /// Syncs succeed and do nothing.
    lies: bool,
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
    /// A sync has failed: what was not durable then never will be.
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

/// What an operation has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Happen,
    /// Happen, as far as a crash lets it, and be the last.
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
        self.platters().operations
    }

    /// How many syncs there were.
    #[must_use]
    pub fn syncs(&self) -> u64 {
        self.platters().syncs
    }

    /// Has the disk die in this operation, counted from zero: it and all later ones fail.
    pub fn die_at(&self, operation: u64) {
        self.platters().fault = Some((operation, Fault::Death));
    }

    /// Has this operation fail, counted from zero; later ones do not.
    pub fn fail_at(&self, operation: u64, error: io::ErrorKind) {
        self.platters().fault = Some((operation, Fault::Error(error)));
    }

    /// Has syncs succeed from now on without making anything durable: what checks are checked with.
    pub fn lie(&self) {
        self.platters().lies = true;
    }

    /// Whether it has died.
    #[must_use]
    pub fn is_dead(&self) -> bool {
        self.platters().is_dead
    }

    /// The disk that a restart finds, whether this one died by itself or its process was killed.
    #[must_use]
    pub fn after_crash(&self, survival: Survival, seed: u64) -> SimDisk {
        let mut draw = Draw::new(seed);
        let platters = self.platters();
        let mut names = platters.durable_names.clone();
        for change in &platters.name_changes {
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
        for (number, file) in &platters.files {
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
        SimDisk(Arc::new(Mutex::new(Platters {
            files,
            durable_names: names.clone(),
            names,
            next_file: platters.next_file,
            ..Platters::default()
        })))
    }

    /// Flips one bit of a file, as a disk does that rots.
    pub fn flip(&self, name: &str, bit: u64) {
        let mut platters = self.platters();
        let Some(number) = platters.names.get(name).copied() else { return };
        let Some(file) = platters.files.get_mut(&number) else { return };
        for bytes in [&mut file.bytes, &mut file.durable] {
            if let Some(byte) = usize::try_from(bit / 8).ok().and_then(|at| bytes.get_mut(at)) {
                *byte ^= 1 << (bit % 8);
            }
        }
    }

    fn platters(&self) -> MutexGuard<'_, Platters> {
        // A test that panics elsewhere may still look at the disk.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Platters {
    /// Counts an operation and says what becomes of it.
    fn operation(&mut self) -> io::Result<Fate> {
        if self.is_dead {
            return Err(died());
        }
        let number = self.operations;
        self.operations += 1;
        match self.fault {
            Some((at, Fault::Death)) if at == number => {
                self.is_dead = true;
                Ok(Fate::Die)
            }
            Some((at, Fault::Error(kind))) if at == number => Ok(Fate::Fail(kind)),
            _ => Ok(Fate::Happen),
        }
    }

    fn change_names(&mut self, change: NameChange) -> io::Result<()> {
        let fate = self.operation()?;
        if let Fate::Fail(kind) = fate {
            return Err(kind.into());
        }
        change.apply(&mut self.names);
        self.name_changes.push(change);
        fate.result()
    }

    fn number(&self, name: &str) -> io::Result<u64> {
        self.names.get(name).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn file(&mut self, number: u64) -> io::Result<&mut SimFile> {
        self.files.get_mut(&number).ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl Fate {
    fn result(self) -> io::Result<()> {
        match self {
            Fate::Happen => Ok(()),
            Fate::Die => Err(died()),
            Fate::Fail(kind) => Err(kind.into()),
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

    /// Writes at a place, over what stands there and past the end.
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
                // What was not cut is there, be it as it was before it was written over.
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
        let platters = self.platters();
        let length = |number| platters.files.get(number).map_or(0, |file| file.bytes.len() as u64);
        Ok(platters.names.iter().map(|(name, number)| (name.clone(), length(number))).collect())
    }

    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        let mut platters = self.platters();
        if platters.is_dead {
            return Err(died());
        }
        let number = platters.number(name)?;
        Ok(platters.file(number)?.bytes.clone())
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let mut platters = self.platters();
        let number = if let Ok(number) = platters.number(name) {
            // Making a file that exists cuts it, which is as durable as any other write.
            let fate = platters.operation()?;
            if !matches!(fate, Fate::Fail(_)) {
                platters.file(number)?.cut(0);
            }
            fate.result()?;
            number
        } else {
            let number = platters.next_file;
            platters.next_file += 1;
            platters.files.insert(number, SimFile::default());
            platters.change_names(NameChange::Made { name: name.to_owned(), file: number })?;
            number
        };
        Ok(Box::new(Handle { disk: self.clone(), number, written: 0 }))
    }

    fn truncate(&self, name: &str, bytes: u64) -> io::Result<()> {
        let mut platters = self.platters();
        let number = platters.number(name)?;
        let fate = platters.operation()?;
        let file = platters.file(number)?;
        if !matches!(fate, Fate::Fail(_)) {
            file.cut(usize::try_from(bytes).unwrap_or(usize::MAX));
        }
        if fate == Fate::Happen {
            file.sync();
        }
        fate.result()
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut platters = self.platters();
        platters.number(from)?;
        platters.change_names(NameChange::Renamed { from: from.to_owned(), to: to.to_owned() })
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut platters = self.platters();
        platters.number(name)?;
        platters.change_names(NameChange::Removed { name: name.to_owned() })
    }

    fn sync_names(&self) -> io::Result<()> {
        let mut platters = self.platters();
        let fate = platters.operation()?;
        platters.syncs += u64::from(fate == Fate::Happen);
        if fate == Fate::Happen && !platters.lies {
            platters.durable_names = platters.names.clone();
            platters.name_changes.clear();
        }
        fate.result()
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
        let mut platters = self.disk.platters();
        let fate = platters.operation()?;
        // A write that fails is short.
        let written = if matches!(fate, Fate::Fail(_)) { bytes.len() / 2 } else { bytes.len() };
        platters.file(self.number)?.write(self.written, &bytes[..written]);
        self.written += written;
        fate.result()
    }

    fn reserve(&mut self, bytes: u64) -> io::Result<()> {
        let mut platters = self.disk.platters();
        let fate = platters.operation()?;
        if !matches!(fate, Fate::Fail(_)) {
            platters.file(self.number)?.reserve(usize::try_from(bytes).unwrap_or(usize::MAX));
        }
        fate.result()
    }

    fn trim(&mut self) -> io::Result<()> {
        let mut platters = self.disk.platters();
        let fate = platters.operation()?;
        if !matches!(fate, Fate::Fail(_)) {
            platters.file(self.number)?.cut(self.written);
        }
        drop(platters);
        fate.result()?;
        self.sync()
    }

    fn sync(&mut self) -> io::Result<()> {
        let mut platters = self.disk.platters();
        let fate = platters.operation()?;
        platters.syncs += u64::from(fate == Fate::Happen);
        let lies = platters.lies;
        let file = platters.file(self.number)?;
        match fate {
            Fate::Happen if lies => {}
            Fate::Happen => file.sync(),
            Fate::Fail(_) => file.is_broken = true,
            Fate::Die => {}
        }
        fate.result()
    }
}
