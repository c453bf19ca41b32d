//! Virtual time: what is to happen, and when.
//!
//! Invariant: time never runs backwards, and what is due at one moment happens in the order it was put down.

use std::collections::BTreeMap;

/// Things to happen, by time.
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

    /// Puts something down for `at_ms`, or for now if that is past.
    pub(crate) fn at(&mut self, at_ms: u64, what: T) {
        self.due.insert((at_ms.max(self.now_ms), self.next), what);
        self.next += 1;
    }

    pub(crate) fn after(&mut self, delay_ms: u64, what: T) {
        self.at(self.now_ms + delay_ms, what);
    }

    /// Takes the next thing, and moves the time to it.
    pub(crate) fn pop(&mut self) -> Option<T> {
        let ((at_ms, _), what) = self.due.pop_first()?;
        self.now_ms = at_ms;
        Some(what)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.due.values()
    }
}
