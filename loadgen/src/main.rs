//! `loadgen`: drives Fulmen across synthetic and real topologies and accounts for every satoshi.
//!
//! Owns: the process: reading the command line, choosing the command, and the exit status. The modules own the rest.
//!
//! Invariant: a failure prints one line on standard error: the error and its remedy.

mod accounting;
mod cli;
mod digest;
mod driver;
mod exec;
mod fault;
mod metrics;
mod network;
mod page;
mod paying;
mod progress;
mod report;
mod route;
mod scenario;
mod seed;
mod sim_node;
mod stage;
mod stress;
mod table;
mod tally;
mod treasury;

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;
use cli::{Cli, Command, RunArgs, StressArgs};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// The exit status of a wrong command line.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return wrong_usage(&error),
    };
    log_to_stderr();
    match cli.command {
        Command::Run(args) => run(&args),
        Command::Stress(args) => stress(&args),
        Command::Forwarder => stress::run_forwarder(),
        Command::Route(args) => show(route::run(&args)),
    }
}

/// Logs errors, or the levels that `RUST_LOG` names: `RUST_LOG=fulmen=debug loadgen run`.
fn log_to_stderr() {
    // `EnvFilter` also matches fields, by a regular-expression engine that nothing else here needs.
    let levels = std::env::var("RUST_LOG").ok().and_then(|levels| levels.parse::<Targets>().ok());
    let levels = levels.unwrap_or_else(|| Targets::new().with_default(LevelFilter::ERROR));
    let stderr = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    tracing_subscriber::registry().with(stderr).with(levels).init();
}

fn run(args: &RunArgs) -> ExitCode {
    conclude(driver::run(args).and_then(|report| {
        if let Some(directory) = &args.report {
            report.write(directory)?;
        }
        let shown = if args.json { report.json()? } else { table::render(&report, args.report.as_deref()) };
        Ok((shown, report.funds.conserved))
    }))
}

fn stress(args: &StressArgs) -> ExitCode {
    conclude(stress::run(args).and_then(|report| {
        if let Some(directory) = &args.report {
            report.write(directory)?;
        }
        let shown = if args.json { report.json()? } else { report.table() };
        Ok((shown, report.is_sound()))
    }))
}

/// Prints the report of a run, or the line that says why there is none. The status is success only if the report is
/// sound.
fn conclude(finished: Result<(String, bool), impl std::fmt::Display>) -> ExitCode {
    match finished {
        Ok((text, is_sound)) => {
            let status = print(&text);
            if is_sound { status } else { ExitCode::FAILURE }
        }
        Err(error) => fail(&error),
    }
}

/// Prints the answer to a query and its warnings, or the line that says why there is none.
fn show(found: Result<route::Answer, route::RouteError>) -> ExitCode {
    match found {
        Ok(answer) => {
            for warning in &answer.warnings {
                eprintln!("warning: {warning}");
            }
            print(&answer.text)
        }
        Err(error) => fail(&error),
    }
}

fn print(text: &str) -> ExitCode {
    let mut out = std::io::stdout();
    match writeln!(out, "{}", text.trim_end()).and_then(|()| out.flush()) {
        Ok(()) => ExitCode::SUCCESS,
        // A reader that went away, as `head` does, is no failure.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            fail(&format!("the report cannot be written to standard output: {error}; make room there"))
        }
    }
}

fn fail(error: &impl std::fmt::Display) -> ExitCode {
    eprintln!("error: {error}");
    ExitCode::FAILURE
}

/// Help and version go to standard output and are no mistakes; anything else is one line.
fn wrong_usage(error: &clap::Error) -> ExitCode {
    match error.kind() {
        ErrorKind::DisplayHelp
        | ErrorKind::DisplayVersion
        | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            let _ = error.print();
            if error.use_stderr() { ExitCode::from(USAGE) } else { ExitCode::SUCCESS }
        }
        _ => {
            eprintln!("{}", cli::one_line(error));
            ExitCode::from(USAGE)
        }
    }
}
