//! `fulmend`, the daemon: its command line.
//!
//! Owns the arguments and the exit code. Reads and checks a configuration file and prints the settings that result; it
//! does not run a node yet, and says so.

mod config;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

use config::Config;

/// A Lightning node. This version checks a configuration; it does not run a node yet.
#[derive(Debug, Parser)]
#[command(name = "fulmend", version)]
struct Arguments {
    /// The configuration file: lines of `name = value`, comments behind `#`.
    #[arg(long, value_name = "FILE")]
    check_config: PathBuf,
}

fn main() -> ExitCode {
    let Arguments { check_config } = Arguments::parse();
    match Config::read(&check_config) {
        Ok(config) => {
            print!("{config}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{}: {error}", check_config.display());
            ExitCode::FAILURE
        }
    }
}
