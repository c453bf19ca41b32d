//! The seam between the log and the file system: the operations of a directory that a log needs.
//!
//! Owns the [`Disk`] and [`DiskFile`] traits and [`Directory`], the real thing. A simulated disk takes its place in
//! tests, so the traits promise no more than POSIX does: bytes are durable after [`DiskFile::sync`], names after
//! [`Disk::sync_names`]; before that, a crash may lose any part of them, in any order.

use std::fmt::Debug;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Seek, Write};
use std::path::{Path, PathBuf};

use super::error::{Operation, StoreError};

/// The file whose lock says that a process has the directory open.
const LOCK_NAME: &str = "lock";

/// A directory of files.
pub trait Disk: Debug + Send + Sync {
    /// Names and lengths of the files, in any order.
    ///
    /// # Errors
    /// The system's error.
    fn list(&self) -> io::Result<Vec<(String, u64)>>;

    /// All of a file.
    ///
    /// # Errors
    /// The system's error.
    fn read(&self, name: &str) -> io::Result<Vec<u8>>;

    /// Makes an empty file, in place of one that has the name already.
    ///
    /// # Errors
    /// The system's error.
    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>>;

    /// Cuts a file to a length, durably.
    ///
    /// # Errors
    /// The system's error.
    fn truncate(&self, name: &str, bytes: u64) -> io::Result<()>;

    /// Gives a file another name, in place of one that has it already.
    ///
    /// # Errors
    /// The system's error.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Deletes a file.
    ///
    /// # Errors
    /// The system's error.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Makes the files' names durable: those made, given and deleted before.
    ///
    /// # Errors
    /// The system's error.
    fn sync_names(&self) -> io::Result<()>;
}

/// A file open for writing, from its beginning on.
pub trait DiskFile: Debug + Send {
    /// Writes after the last write: into the reserved room, and beyond its end.
    ///
    /// # Errors
    /// The system's error; part of the bytes may have been written.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// Extends the file by `bytes` zeros, durable with the next sync. Later writes replace them; syncing those is
    /// cheaper, since the length of the file does not change.
    ///
    /// # Errors
    /// The system's error.
    fn reserve(&mut self, bytes: u64) -> io::Result<()>;

    /// Cuts off the room that is left, durably.
    ///
    /// # Errors
    /// The system's error.
    fn trim(&mut self) -> io::Result<()>;

    /// Makes all writes durable.
    ///
    /// # Errors
    /// The system's error. Bytes written since the last success may never become durable then.
    fn sync(&mut self) -> io::Result<()>;
}

/// A directory of the file system, locked against other processes for as long as this value lives.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    /// Held for its lock.
    _lock: File,
}

impl Directory {
    /// Opens a directory, making it if there is none.
    ///
    /// # Errors
    /// When it cannot be made or looked into, or another process has it open.
    pub fn open(path: impl Into<PathBuf>) -> Result<Directory, StoreError> {
        let path = path.into();
        let shown = path.display().to_string();
        std::fs::create_dir_all(&path).map_err(|error| StoreError::io(Operation::Create, &shown, error))?;
        if let Some(parent) = path.parent() {
            sync_directory(parent).map_err(|error| StoreError::io(Operation::Sync, &shown, error))?;
        }
        let lock = OpenOptions::new().write(true).create(true).truncate(false).open(path.join(LOCK_NAME));
        let lock = lock.map_err(|error| StoreError::io(Operation::Create, LOCK_NAME, error))?;
        match lock.try_lock() {
            Ok(()) => Ok(Directory { path, _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(StoreError::Locked { directory: shown }),
            Err(TryLockError::Error(error)) => Err(StoreError::io(Operation::Lock, LOCK_NAME, error)),
        }
    }
}

impl Disk for Directory {
    fn list(&self) -> io::Result<Vec<(String, u64)>> {
        let mut files = Vec::new();
        for entry in std::fs::read_dir(&self.path)? {
            let entry = entry?;
            let metadata = entry.metadata()?;
            if metadata.is_file() {
                files.push((entry.file_name().to_string_lossy().into_owned(), metadata.len()));
            }
        }
        Ok(files)
    }

    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        std::fs::read(self.path.join(name))
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(File::create(self.path.join(name))?))
    }

    fn truncate(&self, name: &str, bytes: u64) -> io::Result<()> {
        let file = OpenOptions::new().write(true).open(self.path.join(name))?;
        file.set_len(bytes)?;
        file.sync_all()
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        std::fs::rename(self.path.join(from), self.path.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        std::fs::remove_file(self.path.join(name))
    }

    fn sync_names(&self) -> io::Result<()> {
        sync_directory(&self.path)
    }
}

impl DiskFile for File {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.write_all(bytes)
    }

    fn reserve(&mut self, bytes: u64) -> io::Result<()> {
        // Nothing is written: a hole reads as zeros and takes no space.
        self.set_len(self.metadata()?.len() + bytes)
    }

    fn trim(&mut self) -> io::Result<()> {
        let written = self.stream_position()?;
        self.set_len(written)?;
        self.sync_all()
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_data()
    }
}

/// Makes the names in a directory durable. Windows keeps them with the files, and lets nobody open a directory.
fn sync_directory(path: &Path) -> io::Result<()> {
    if cfg!(windows) || path.as_os_str().is_empty() {
        return Ok(());
    }
    File::open(path)?.sync_all()
}
