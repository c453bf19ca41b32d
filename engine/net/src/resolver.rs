//! Host names to addresses, on a thread for it, since the system's resolver blocks.
//!
//! Owns: the thread and its bounded queue. One name is resolved at a time; a server that does not answer delays other
//! names by the system's timeout, but no connection and no address given as numbers.

use std::io;
use std::net::ToSocketAddrs;

use crossbeam::channel::{Receiver, Sender, bounded};
use fulmen_wire::units::NodeId;

use crate::mailbox::LoopCommand;

/// The names that may wait.
const LOOKUPS_MAX: usize = 1_024;

/// A name to resolve for a loop.
#[derive(Debug)]
pub(crate) struct Lookup {
    pub(crate) loop_index: usize,
    pub(crate) peer: NodeId,
    pub(crate) name: String,
    pub(crate) port: u16,
}

/// The queue of the thread.
#[derive(Debug)]
pub(crate) struct Resolver(Sender<Lookup>);

impl Resolver {
    /// A queue and its other end, for [`run`].
    pub(crate) fn new() -> (Resolver, Receiver<Lookup>) {
        let (sender, receiver) = bounded(LOOKUPS_MAX);
        (Resolver(sender), receiver)
    }

    /// Queues a name; false when too many wait. The answer is [`LoopCommand::Resolved`].
    pub(crate) fn look_up(&self, lookup: Lookup) -> bool {
        self.0.try_send(lookup).is_ok()
    }
}

/// Resolves names until `answer`, which is given a loop and a command for it, says that the network is gone.
pub(crate) fn run(lookups: &Receiver<Lookup>, answer: impl Fn(usize, LoopCommand) -> bool) {
    for Lookup { loop_index, peer, name, port } in lookups {
        let result = (name.as_str(), port).to_socket_addrs().map(Vec::from_iter).and_then(|addresses| {
            let none = || io::Error::new(io::ErrorKind::NotFound, "the name has no address");
            if addresses.is_empty() { Err(none()) } else { Ok(addresses) }
        });
        if !answer(loop_index, LoopCommand::Resolved { peer, name, result }) {
            return;
        }
    }
}
