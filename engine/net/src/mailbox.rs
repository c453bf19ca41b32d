//! The commands that other threads give to an event loop.
//!
//! Owns: the queue and the decision when a loop must be woken. Does not bound the queue: the engine bounds the messages
//! it makes for each peer, and a loop takes all commands each time it wakes.
//!
//! Invariant: a command that was queued is seen before the loop sleeps again.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use fulmen::runtime::Connection;
use fulmen_wire::units::NodeId;
use mio::Waker;
use mio::net::TcpStream;

use crate::address::PeerAddress;
use crate::admission::OriginPermit;
use crate::socket::PeerSocket;

/// One thing for a loop to do.
#[derive(Debug)]
pub(crate) enum LoopCommand {
    /// Effects of a turn of the engine.
    Effects { send: Vec<(Connection, Vec<u8>)>, disconnect: Vec<Connection>, resume: Vec<Connection> },
    /// An accepted connection, with its place among those of its address.
    Accepted(TcpStream, SocketAddr, OriginPermit),
    /// A connection that another loop has authenticated.
    Adopt(Box<PeerSocket>),
    /// Dial a node, once or whenever it is not connected.
    Dial { address: PeerAddress, keep: bool },
    /// The addresses of a name.
    Resolved { peer: NodeId, name: String, result: io::Result<Vec<SocketAddr>> },
    /// Do not dial this node again.
    Forget(NodeId),
    /// Close the connection to a node.
    Disconnect(NodeId),
    /// Write what waits, until this time, and end.
    Drain(Instant),
    /// End at once.
    Stop,
}

/// A loop's queue of commands.
#[derive(Debug)]
pub(crate) struct Mailbox {
    queue: Mutex<Vec<LoopCommand>>,
    waker: Waker,
    /// Whether the loop has been woken for the commands in the queue.
    is_woken: AtomicBool,
}

impl Mailbox {
    pub(crate) fn new(waker: Waker) -> Mailbox {
        Mailbox { queue: Mutex::default(), waker, is_woken: AtomicBool::new(false) }
    }

    /// Queues a command and wakes the loop if nobody has.
    pub(crate) fn send(&self, command: LoopCommand) {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).push(command);
        if !self.is_woken.swap(true, Ordering::SeqCst)
            && let Err(error) = self.waker.wake()
        {
            tracing::error!(%error, "cannot wake an event loop");
        }
    }

    /// Takes all queued commands.
    pub(crate) fn take(&self) -> Vec<LoopCommand> {
        // Cleared first: a command queued after the next line wakes the loop again.
        self.is_woken.store(false, Ordering::SeqCst);
        std::mem::take(&mut self.queue.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
