//! The seam through which a run measures the victim: heap and CPU time of one call. Does not measure.

use std::time::Duration;

/// The cost of a call.
#[derive(Clone, Copy, Debug, Default)]
pub struct CallCost {
    /// Bytes of heap allocated less bytes freed.
    pub heap_kept: i64,
    /// The most bytes of heap that the call held at once.
    pub heap_most: u64,
    /// CPU time.
    pub cpu: Duration,
}

/// Measures the cost of a call, with the allocator and the clock that the binary has.
#[derive(Clone, Copy, Debug)]
pub struct Meter(pub fn(&mut dyn FnMut()) -> CallCost);
