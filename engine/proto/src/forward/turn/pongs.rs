//! How much of a peer's `ping`s is answered (BOLT 1 "The `ping` and `pong` Messages").
//!
//! Owns the budget of each peer. A ping of 6 bytes asks for a pong of up to 65,535, and BOLT 1 lets a node expect no
//! more than one ping in 30 seconds; so pongs are bounded by bytes, and pings beyond the bound are ignored.
//!
//! Invariant: the pongs to one peer take at most [`PONG_BYTES_MAX`] bytes in any turn and any second.

use std::collections::BTreeMap;

use fulmen_wire::message::Pong;
use fulmen_wire::units::NodeId;

use crate::forward::terms::time::Now;

/// The most bytes of pongs to a peer in a second: one of the longest and a thousand short ones.
pub(crate) const PONG_BYTES_MAX: usize = 1 << 17;
/// Bytes that a pong counts beyond its padding: its type, length and place in memory.
const PONG_OVERHEAD_BYTES: usize = 64;
/// How long a budget lasts, in milliseconds.
const PERIOD_MS: u64 = 1_000;

/// The pongs sent to each connected peer in the current second.
#[derive(Debug, Default)]
pub(crate) struct PongBudgets {
    /// When the peer's second began, in ms, and the bytes of pongs since.
    peers: BTreeMap<NodeId, (u64, usize)>,
}

impl PongBudgets {
    /// Whether a pong may be sent; it counts then.
    pub(crate) fn allows(&mut self, peer: NodeId, now: Now, pong: &Pong) -> bool {
        let (since, bytes) = self.peers.entry(peer).or_insert((now.unix_ms, 0));
        if now.unix_ms.saturating_sub(*since) >= PERIOD_MS {
            (*since, *bytes) = (now.unix_ms, 0);
        }
        let cost = pong.ignored.len() + PONG_OVERHEAD_BYTES;
        let allowed = *bytes + cost <= PONG_BYTES_MAX;
        if allowed {
            *bytes += cost;
        }
        allowed
    }

    /// Forgets a peer that is no longer connected.
    pub(crate) fn forget(&mut self, peer: NodeId) {
        self.peers.remove(&peer);
    }
}
