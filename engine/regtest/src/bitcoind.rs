//! A bitcoind of our own for tests and load: started on a free port of this machine, gone when dropped.
//!
//! Owns the process and its temporary directory. Not for a daemon with anything to lose: it is killed, not asked to
//! stop.
//!
//! Invariant: the process ends with the value, and only that process does.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use fulmen::chain::ChainError;
use fulmen::chain::rpc::RpcChain;

use crate::RegtestError;
use crate::directory::ChainDirectory;

/// A running bitcoind on a fresh regtest chain.
pub struct Bitcoind {
    process: Child,
    url: String,
    _directory: ChainDirectory,
}

/// Why no bitcoind runs.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BitcoindError {
    /// The program cannot be run.
    #[error("cannot run {}: {source}; name the bitcoind program", program.display())]
    Spawn {
        /// The program.
        program: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// It ended, or does not answer.
    #[error("{} does not answer: {reason}; run it by hand with -regtest to see why", program.display())]
    Silent {
        /// The program.
        program: PathBuf,
        /// Its exit status, or the last error of a call.
        reason: String,
    },
    /// The place for its chain could not be made, or no port is free.
    #[error(transparent)]
    Chain(#[from] RegtestError),
}

impl Bitcoind {
    /// Starts `program` and waits until it answers.
    ///
    /// # Errors
    /// When the program cannot be run or does not answer.
    pub fn start(program: &Path) -> Result<Bitcoind, BitcoindError> {
        let directory = ChainDirectory::make(None)?;
        let port =
            free_port().map_err(|source| BitcoindError::Spawn { program: program.to_owned(), source })?;
        let process = Command::new(program)
            .arg(format!("-datadir={}", directory.path().display()))
            .arg(format!("-rpcport={port}"))
            .arg(format!("-rpcuser={USER}"))
            .arg(format!("-rpcpassword={PASSWORD}"))
            .args(ARGUMENTS)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|source| BitcoindError::Spawn { program: program.to_owned(), source })?;
        let url = format!("http://{USER}:{PASSWORD}@127.0.0.1:{port}");
        let mut daemon = Bitcoind { process, url, _directory: directory };
        daemon
            .wait_for_answer()
            .map_err(|reason| BitcoindError::Silent { program: program.to_owned(), reason })?;
        Ok(daemon)
    }

    /// Where it answers, for [`RpcChain::connect`].
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    fn wait_for_answer(&mut self) -> Result<(), String> {
        let deadline = Instant::now() + START_WAIT_MAX;
        loop {
            match RpcChain::connect(&self.url) {
                Ok(_) => return Ok(()),
                Err(ChainError::Unreachable { .. }) if Instant::now() < deadline => {}
                Err(error) => return Err(error.to_string()),
            }
            if let Some(status) = self.process.try_wait().map_err(|error| error.to_string())? {
                return Err(format!("it ended with {status}"));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Bitcoind {
    fn drop(&mut self) {
        // A process that has already ended cannot be killed; either way it is gone after the wait.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A port nobody listens on. Another process may take it before the daemon does; then the daemon ends and says so.
fn free_port() -> std::io::Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

/// No peers, no wallet, nothing kept, and blocks as large as may be.
const ARGUMENTS: [&str; 10] = [
    "-regtest",
    "-server",
    "-rpcbind=127.0.0.1",
    "-rpcallowip=127.0.0.1",
    "-listen=0",
    "-connect=0",
    "-disablewallet",
    "-persistmempool=0",
    "-printtoconsole=0",
    "-blockmaxweight=3996000",
];

/// The login of a daemon that only this machine can reach and that guards nothing.
const USER: &str = "fulmen";

/// See [`USER`].
const PASSWORD: &str = "regtest";

/// How long the daemon may take until it listens.
const START_WAIT_MAX: Duration = Duration::from_secs(60);
