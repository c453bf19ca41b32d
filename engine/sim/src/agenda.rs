//! Virtual time and the queue of future steps.
//!
//! Invariant: time never runs backwards, and steps that are due at one moment come in the order of their insertion.

use std::collections::BTreeMap;

/// Future steps, by time.
#[derive(Debug)]
pub(crate) struct Agenda<T> {
    now_ms: u64,
    next: u64,
    due: BTreeMap<(u64, u64), T>,
}

impl<T> Agenda<T> {
    pub(crate) fn new() -> Agenda<T> {
        Agenda { now_ms: 1_000_000, next: 0, due: BTreeMap::new() }
    }

    pub(crate) fn now_ms(&self) -> u64 {
        self.now_ms
    }

    /// Schedules a step for `at_ms`, or for now if that is past.
    pub(crate) fn at(&mut self, at_ms: u64, step: T) {
        self.due.insert((at_ms.max(self.now_ms), self.next), step);
        self.next += 1;
    }

    pub(crate) fn after(&mut self, delay_ms: u64, step: T) {
        self.at(self.now_ms + delay_ms, step);
    }

    /// Removes the next step, and moves the time to it.
    pub(crate) fn pop(&mut self) -> Option<T> {
        let ((at_ms, _), step) = self.due.pop_first()?;
        self.now_ms = at_ms;
        Some(step)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.due.values()
    }
}
