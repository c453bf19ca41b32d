//! Waiting for other threads, with an end.

use std::time::{Duration, Instant};

/// How long nothing that was to happen may fail to.
const PATIENCE: Duration = Duration::from_secs(30);

/// Waits until `done`, and fails with `wanted` if that takes too long.
pub(crate) fn wait(wanted: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < PATIENCE, "in vain: {wanted}");
        std::thread::sleep(Duration::from_millis(2));
    }
}
