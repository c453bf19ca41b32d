//! Directories a chain lives in.
//!
//! Owns the naming and removal of temporary ones. Invariant: a temporary directory is new when made and gone when
//! dropped; one that was asked for is never removed.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::RegtestError;

/// A directory; a temporary one goes when this is dropped.
#[derive(Debug)]
pub(super) struct ChainDirectory {
    path: PathBuf,
    temporary: bool,
}

impl ChainDirectory {
    /// Makes the directory wanted, if it is not there, or else a temporary one.
    pub(super) fn make(wanted: Option<&Path>) -> Result<ChainDirectory, RegtestError> {
        let failed = |path: &Path, source| RegtestError::Directory { path: path.to_owned(), source };
        if let Some(path) = wanted {
            std::fs::create_dir_all(path).map_err(|source| failed(path, source))?;
            return Ok(ChainDirectory { path: path.to_owned(), temporary: false });
        }
        static SERIAL: AtomicU64 = AtomicU64::new(0);
        loop {
            let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
            let path = std::env::temp_dir().join(format!("fulmen-chain-{}-{serial}", std::process::id()));
            match std::fs::create_dir(&path) {
                Ok(()) => return Ok(ChainDirectory { path, temporary: true }),
                // Left behind by an earlier process of this id: take the next name.
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(failed(&path, error)),
            }
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for ChainDirectory {
    fn drop(&mut self) {
        if self.temporary {
            // Nothing depends on the directory any more; one that cannot be removed is only litter.
            let _ = std::fs::remove_dir_all(&self.path);
        }
    }
}
