//! The callback with which a run measures the victim, heap and CPU time of one call, and its result. The binary
//! supplies it: a library has no allocator of its own to ask.

use std::time::Duration;

/// The cost of a call.
#[derive(Clone, Copy, Debug, Default)]
pub struct CallCost {
    /// Bytes of heap allocated less bytes freed.
    pub heap_net_bytes: i64,
    /// The most bytes of heap that the call held at once.
    pub heap_peak_bytes: u64,
    /// CPU time.
    pub cpu: Duration,
}

/// Runs the call exactly once and measures it, with the allocator and the clock of the binary.
#[derive(Clone, Copy, Debug)]
pub struct Meter(pub fn(&mut dyn FnMut()) -> CallCost);
