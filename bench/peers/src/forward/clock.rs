//! Clocks: CPU time of this thread and of this process, and wall-clock time.
//!
//! The operating system's accounting: kernel time that a thread causes by its calls is part of its CPU time.

use rustix::time::{ClockId, clock_gettime};

/// CPU time of the calling thread so far, in nanoseconds.
pub(super) fn thread_cpu_ns() -> u64 {
    nanoseconds(ClockId::ThreadCPUTime)
}

/// CPU time of all threads of this process so far, those that ended included, in nanoseconds.
pub(super) fn process_cpu_ns() -> u64 {
    nanoseconds(ClockId::ProcessCPUTime)
}

/// Wall-clock time since an arbitrary start, in nanoseconds; monotonic.
pub(super) fn wall_ns() -> u64 {
    nanoseconds(ClockId::Monotonic)
}

fn nanoseconds(clock: ClockId) -> u64 {
    let time = clock_gettime(clock);
    time.tv_sec.unsigned_abs() * 1_000_000_000 + time.tv_nsec.unsigned_abs()
}
