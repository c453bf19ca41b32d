//! The queue of ready shards, and the workers that sleep while it is empty.
//!
//! Owns: which worker is woken, and when. Does not know shards: an element is any value.
//!
//! A worker that finds the queue empty sleeps at once. Spinning first, as most channels do, pays off where the next
//! element comes within a microsecond; here it comes when a peer has answered, and spinning took a tenth of the
//! processor time of a lone forward. A push wakes nobody while all workers are awake.
//!
//! Invariant: while the queue is not empty, a worker is awake or has been woken. A worker that pops an element and
//! leaves others wakes another worker, so that a worker woken for an element that is already gone strands nothing.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering, fence};
use std::thread::Thread;
use std::time::{Duration, Instant};

use crossbeam::queue::ArrayQueue;

use super::shard_cell::lock;

/// A bounded queue that workers sleep on.
#[derive(Debug)]
pub(super) struct Ready<T> {
    list: ArrayQueue<T>,
    /// The length of `sleepers`, readable without its lock.
    asleep: AtomicUsize,
    /// Workers asleep or about to sleep. The last one is woken first: its caches are the warmest.
    sleepers: Mutex<Vec<Thread>>,
}

impl<T> Ready<T> {
    /// An empty queue with room for `room` elements.
    pub(super) fn new(room: usize) -> Ready<T> {
        Ready { list: ArrayQueue::new(room), asleep: AtomicUsize::new(0), sleepers: Mutex::default() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Appends an element, if there is room, and wakes a worker if one sleeps.
    pub(super) fn push(&self, next: T) {
        let _ = self.list.push(next);
        self.wake_one();
    }

    /// Pops the front; `None` when empty.
    pub(super) fn try_take(&self) -> Option<T> {
        self.list.pop()
    }

    /// Pops the front, blocking for at most `timeout`; `None` if it expires. Without a timeout, blocks until there is
    /// one.
    pub(super) fn take(&self, timeout: Option<Duration>) -> Option<T> {
        let until = timeout.map(|timeout| Instant::now() + timeout);
        loop {
            if let Some(next) = self.taken() {
                return Some(next);
            }
            self.lie_down();
            // An element pushed before this worker counted as asleep woke nobody: it is seen here.
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

    /// Wakes another worker if elements are left.
    fn pass_on(&self) {
        if !self.list.is_empty() {
            self.wake_one();
        }
    }

    fn wake_one(&self) {
        // Pairs with the fence in `lie_down`: of a thread that pushes and one that falls asleep, one sees the other's
        // write.
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

    /// Removes this thread from the sleepers, unless the thread that woke it has done so.
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
    fn nothing_is_forgotten_and_a_timeout_ends() {
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
