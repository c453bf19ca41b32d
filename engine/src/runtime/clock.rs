//! The time an engine goes by.
//!
//! Owns the seam through which time comes in: threads ask a [`Clock`], an engine without threads is told at each step.
//! Two kinds: the time of the world, which invoices expire by, and a steady one, which latencies are measured by.

use std::fmt::Debug;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use fulmen_proto::forward::Now;

/// Tells the time.
pub trait Clock: Send + Sync + Debug + 'static {
    /// The time of the world.
    fn now(&self) -> Now;

    /// The time since some fixed moment; never goes back.
    fn elapsed(&self) -> Duration;
}

/// The machine's clocks.
#[derive(Clone, Copy, Debug)]
pub struct SystemClock {
    start: Instant,
}

impl Default for SystemClock {
    fn default() -> SystemClock {
        SystemClock { start: Instant::now() }
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Now {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Now { unix_ms: u64::try_from(since.as_millis()).unwrap_or(u64::MAX) }
    }

    fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }
}
