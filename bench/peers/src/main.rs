//! Fulmen against other implementations, in one run: alternating, thread CPU time, medians.
//!
//! Owns the command line and the form of the results. One file a comparison; the README lists every case.

use clap::{Parser, Subcommand};

mod forward;
mod gossip;
mod measure;
mod route;
mod store;
mod verify;

/// Fulmen against other implementations, in one run on one machine.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    comparison: Comparison,
}

#[derive(Subcommand)]
enum Comparison {
    /// Forwarding HTLCs against LDK's ChannelManager.
    Forward(forward::Options),
    /// Taking in signed gossip against LDK's NetworkGraph.
    Gossip(gossip::Options),
    /// Making records durable, against embedded databases.
    Store(store::Options),
    /// One part of `forward`, in a process of its own.
    #[command(hide = true)]
    ForwardRestart(forward::restart::Options),
    /// Finding routes against LDK's `find_route`.
    Route(route::Options),
    /// Signature verification, key parsing and key derivation against libsecp256k1.
    Verify(verify::Options),
}

fn main() {
    match Arguments::parse().comparison {
        Comparison::Forward(options) => forward::run(&options),
        Comparison::Gossip(options) => gossip::run(&options),
        Comparison::Store(options) => store::run(&options),
        Comparison::ForwardRestart(options) => forward::restart::run(&options),
        Comparison::Route(options) => route::run(&options),
        Comparison::Verify(options) => verify::run(&options),
    }
}
