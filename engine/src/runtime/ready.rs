//! The list of shards that have something waiting, and the workers that sleep for want of such.
//!
//! Owns: who is woken when. Does not know what a shard is.
//!
//! A worker that finds nothing sleeps at once. Looking a few times before, as channels of the usual kind do, is repaid where
//! the next thing comes within a microsecond; here it comes when a peer has answered, and by then the looking was a tenth
//! of all that a lone forward costs. Nobody is woken while all workers are awake.
//!
//! Invariant: while something is in the list, a worker is awake or has been woken: a worker that takes something and
//! leaves more wakes another, so that one woken for what somebody else has taken leaves nothing behind.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering, fence};
use std::thread::Thread;
use std::time::{Duration, Instant};

use crossbeam::queue::ArrayQueue;

use super::shard_cell::lock;

/// A bounded list that workers wait at.
#[derive(Debug)]
pub(super) struct Ready<T> {
    list: ArrayQueue<T>,
    /// As many as `sleepers` holds, to be read without its lock.
    asleep: AtomicUsize,
    /// Those that sleep or are about to, the last to lie down last: it is woken first, its memory still warm.
    sleepers: Mutex<Vec<Thread>>,
}

impl<T> Ready<T> {
    /// A list with room for so many.
    pub(super) fn new(room: usize) -> Ready<T> {
        Ready { list: ArrayQueue::new(room), asleep: AtomicUsize::new(0), sleepers: Mutex::default() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Puts something at the end, if there is room, and sees to it that a worker is awake.
    pub(super) fn push(&self, next: T) {
        let _ = self.list.push(next);
        self.wake_one();
    }

    /// Takes the first, if there is one.
    pub(super) fn try_take(&self) -> Option<T> {
        self.list.pop()
    }

    /// Takes the first, waiting for it, if for long enough in vain then none. Without a `patience` it waits until there is.
    pub(super) fn take(&self, patience: Option<Duration>) -> Option<T> {
        let until = patience.map(|patience| Instant::now() + patience);
        loop {
            if let Some(next) = self.taken() {
                return Some(next);
            }
            self.lie_down();
            // Whoever pushed before this looks saw nobody asleep; what it pushed is seen here.
            if let Some(next) = self.list.pop() {
                self.get_up();
                self.pass_on();
                return Some(next);
            }
            match until {
                None => std::thread::park(),
                Some(until) => std::thread::park_timeout(until.saturating_duration_since(Instant::now())),
            }
            self.get_up();
            if until.is_some_and(|until| Instant::now() >= until) {
                return self.taken();
            }
        }
    }

    fn taken(&self) -> Option<T> {
        let next = self.list.pop()?;
        self.pass_on();
        Some(next)
    }

    /// Wakes another worker if something is left.
    fn pass_on(&self) {
        if !self.list.is_empty() {
            self.wake_one();
        }
    }

    fn wake_one(&self) {
        // Between a push and the look at who sleeps there is a fence, as there is between lying down and the look at the
        // list: of two threads, one sees what the other did.
        fence(Ordering::SeqCst);
        if self.asleep.load(Ordering::SeqCst) == 0 {
            return;
        }
        let mut sleepers = lock(&self.sleepers);
        let sleeper = sleepers.pop();
        self.asleep.store(sleepers.len(), Ordering::SeqCst);
        drop(sleepers);
        if let Some(sleeper) = sleeper {
            sleeper.unpark();
        }
    }

    fn lie_down(&self) {
        let mut sleepers = lock(&self.sleepers);
        sleepers.push(std::thread::current());
        self.asleep.store(sleepers.len(), Ordering::SeqCst);
        drop(sleepers);
        fence(Ordering::SeqCst);
    }

    /// Takes this thread off the sleepers, if nobody has who woke it.
    fn get_up(&self) {
        let me = std::thread::current().id();
        let mut sleepers = lock(&self.sleepers);
        sleepers.retain(|sleeper| sleeper.id() != me);
        self.asleep.store(sleepers.len(), Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn nothing_is_forgotten_and_patience_ends() {
        let ready = Ready::new(4);
        assert_eq!(ready.take(Some(Duration::from_millis(1))), None);
        ready.push(1);
        ready.push(2);
        assert_eq!((ready.take(None), ready.try_take(), ready.try_take()), (Some(1), Some(2), None));
        assert_eq!(ready.asleep.load(Ordering::SeqCst), 0);
    }

    #[test]
    fn workers_take_everything_between_them() {
        const EACH: usize = 20_000;
        let ready = Arc::new(Ready::new(2 * EACH + 3));
        let workers: Vec<_> = (0..3)
            .map(|_| {
                let ready = Arc::clone(&ready);
                std::thread::spawn(move || {
                    let mut count = 0;
                    while let Some(Some(())) = ready.take(None) {
                        count += 1;
                    }
                    count
                })
            })
            .collect();
        let feeders: Vec<_> = (0..2)
            .map(|_| {
                let ready = Arc::clone(&ready);
                std::thread::spawn(move || {
                    for number in 0..EACH {
                        ready.push(Some(()));
                        if number % 64 == 0 {
                            std::thread::yield_now();
                        }
                    }
                })
            })
            .collect();
        feeders.into_iter().for_each(|feeder| feeder.join().unwrap());
        (0..3).for_each(|_| ready.push(None));
        let taken: usize = workers.into_iter().map(|worker| worker.join().unwrap()).sum();
        assert_eq!(taken, 2 * EACH);
    }
}
