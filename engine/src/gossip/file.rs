//! The file of the gossip store; `fulmen_graph::gossip` describes its contents.
//!
//! Writes are not synced: gossip that a crash tears off is fetched again. Only a rewritten file is synced, before it
//! replaces the old one, so that a crash leaves one of the two.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use fulmen_graph::gossip::Log;

/// A gossip store in a file.
#[derive(Debug)]
pub struct FileLog {
    path: PathBuf,
    file: File,
}

impl FileLog {
    /// Opens the file, or creates an empty one.
    ///
    /// # Errors
    /// When the operating system cannot open or create the file.
    pub fn open(path: &Path) -> io::Result<FileLog> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        Ok(FileLog { path: path.to_owned(), file })
    }
}

impl Log for FileLog {
    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let mut file = &self.file;
        file.seek(SeekFrom::Start(offset))?;
        file.read_exact(buffer)
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.set_len(offset)?;
        self.file.seek(SeekFrom::Start(offset))?;
        self.file.write_all(bytes)
    }

    fn replace(&mut self, contents: &[u8]) -> io::Result<()> {
        let mut partial = self.path.clone().into_os_string();
        partial.push(".partial");
        let mut file =
            OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&partial)?;
        file.write_all(contents)?;
        file.sync_all()?;
        std::fs::rename(&partial, &self.path)?;
        self.file = file;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_does_what_a_vector_does() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("gossip");
        let (mut file, mut memory) = (FileLog::open(&path).expect("opened"), Vec::new());
        let logs: [&mut dyn Log; 2] = [&mut file, &mut memory];
        for log in logs {
            log.write_at(0, b"abcdef").expect("written");
            log.write_at(3, b"xy").expect("cut and written");
            let mut bytes = [0; 4];
            log.read_at(1, &mut bytes).expect("there");
            assert_eq!((&bytes, log.len().expect("told")), (b"bcxy", 5));
            assert!(log.read_at(2, &mut bytes).is_err(), "past the end");
            log.replace(b"new").expect("replaced");
            log.write_at(3, b"er").expect("written");
        }
        drop(file);
        assert_eq!(std::fs::read(&path).expect("there"), b"newer");
        assert_eq!(memory, b"newer");
        assert_eq!(FileLog::open(&path).expect("opened").len().expect("told"), 5);
    }
}
