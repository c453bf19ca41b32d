//! Two ways to run the same nodes: on worker threads in real time, or one by one in virtual time.
//!
//! Owns: scheduling, the queues between nodes, and the delays of a virtual network. Does not know how nodes work: an
//! [`Actor`] takes work and gives back messages to other actors and notices to the driver.
//!
//! Threads. Actors are dealt out over workers; each worker owns its actors and an inbox of bounded length. Bounded
//! queues between threads that all write to each other can deadlock when two wait for room in each other's. Here
//! nobody waits to write: a batch that does not fit stays in the writer's backlog while it goes on reading, so every
//! inbox keeps draining. A backlog is bounded in turn by the payments in flight, each of which has a bounded number
//! of messages outstanding, and the driver bounds those.
//!
//! Virtual. Messages arrive after a delay drawn from the seed, in order for each pair of actors; whatever arrives at
//! one actor in the same instant is one turn.
//!
//! Invariant: between two actors, and from the driver to all actors together, work arrives in the order it was posted.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap, VecDeque};
use std::path::PathBuf;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, RecvTimeoutError, Select, Sender, TryRecvError, TrySendError, bounded};
use rand::RngExt;
use rand_chacha::ChaCha20Rng;
use thiserror::Error;

/// Something that takes work in turns.
pub(crate) trait Actor: Send + 'static {
    /// Its input.
    type Work: Send + 'static;
    /// Its output to the driver.
    type Notice: Send + 'static;

    /// One turn over all that waits, at `now` since the executor began.
    fn turn(&mut self, work: Vec<Self::Work>, now: Duration) -> Outbox<Self::Work, Self::Notice>;
}

/// The output of a turn.
#[derive(Debug)]
pub(crate) struct Outbox<W, N> {
    /// To other actors, by index.
    pub(crate) messages: Vec<(usize, W)>,
    /// To the driver.
    pub(crate) notices: Vec<N>,
}

impl<W, N> Default for Outbox<W, N> {
    fn default() -> Outbox<W, N> {
        Outbox { messages: Vec::new(), notices: Vec::new() }
    }
}

/// Why no notice will come.
#[derive(Debug, Error)]
pub(crate) enum Stall {
    /// Nothing is left to do, yet something was waited for.
    #[error("nothing is left to run")]
    Idle,
    /// Nothing came for a long time.
    #[error("nothing happened for {} s", STALL.as_secs())]
    Silent,
    /// A worker panicked; its message is on standard error.
    #[error("a worker thread failed")]
    WorkerLost,
}

/// How long the driver waits for a notice before it calls the run stalled.
const STALL: Duration = Duration::from_secs(60);
/// Batches an inbox holds.
const INBOX_BATCHES: usize = 256;

/// Runs actors.
pub(crate) enum Executor<A: Actor> {
    /// On worker threads.
    Threads(Threads<A>),
    /// In virtual time, on the calling thread.
    Virtual(Box<Virtual<A>>),
}

impl<A: Actor> Executor<A> {
    /// Runs `actors` on `workers` threads.
    ///
    /// # Errors
    /// When a thread cannot be started.
    pub(crate) fn threads(actors: Vec<A>, workers: usize) -> std::io::Result<Executor<A>> {
        Threads::new(actors, workers, INBOX_BATCHES).map(Executor::Threads)
    }

    /// Runs `actors` in virtual time, delays drawn from `rng`.
    pub(crate) fn virtual_time(actors: Vec<A>, rng: ChaCha20Rng) -> Executor<A> {
        Executor::Virtual(Box::new(Virtual::new(actors, rng)))
    }

    /// Gives `actor` work.
    pub(crate) fn post(&mut self, actor: usize, work: A::Work) {
        match self {
            Executor::Threads(threads) => threads.post(actor, work),
            Executor::Virtual(world) => world.post(actor, work),
        }
    }

    /// The next notice, waited for.
    ///
    /// # Errors
    /// When none will come.
    pub(crate) fn next(&mut self) -> Result<A::Notice, Stall> {
        match self {
            Executor::Threads(threads) => threads.next(),
            Executor::Virtual(world) => world.next(),
        }
    }

    /// The next notice, waited for no longer than `wait`; `None` when there is none by then. Virtual time passes
    /// meanwhile only as far as nothing happens in it.
    ///
    /// # Errors
    /// When a worker has ended.
    pub(crate) fn next_within(&mut self, wait: Duration) -> Result<Option<A::Notice>, Stall> {
        match self {
            Executor::Threads(threads) => threads.next_within(wait),
            Executor::Virtual(world) => Ok(world.next_within(wait)),
        }
    }

    /// The time since the executor began.
    pub(crate) fn now(&self) -> Duration {
        match self {
            Executor::Threads(threads) => threads.start.elapsed(),
            Executor::Virtual(world) => world.now,
        }
    }

    /// The processor time of all workers so far, where the system reports it.
    pub(crate) fn cpu(&self) -> Option<Duration> {
        match self {
            Executor::Threads(threads) => threads.cpu_files.iter().map(cpu_of).sum(),
            Executor::Virtual(_) => crate::metrics::thread_cpu(),
        }
    }

    /// Ends the workers and gives the actors back, in order.
    ///
    /// # Errors
    /// When a worker panicked.
    pub(crate) fn finish(self) -> Result<Vec<A>, Stall> {
        match self {
            Executor::Threads(threads) => threads.finish(),
            Executor::Virtual(world) => Ok(world.actors),
        }
    }
}

/// An entry of an inbox.
enum Post<W> {
    /// Work for actors of this worker.
    Batch(Batch<W>),
    /// The end.
    Stop,
}

/// Work for actors of one worker, by the actors' indices.
struct Batch<W> {
    worker: usize,
    messages: Vec<(usize, W)>,
}

/// Actors on worker threads.
pub(crate) struct Threads<A: Actor> {
    start: Instant,
    inboxes: Vec<Sender<Post<A::Work>>>,
    notices: Receiver<Vec<A::Notice>>,
    workers: Vec<JoinHandle<Vec<(usize, A)>>>,
    cpu_files: Vec<PathBuf>,
    /// The driver's posts that no inbox has room for yet. One queue for all, so that a post is in
    /// its inbox before anything posted later is in any.
    outgoing: VecDeque<Batch<A::Work>>,
    arrived: VecDeque<A::Notice>,
}

impl<A: Actor> Threads<A> {
    fn new(actors: Vec<A>, workers: usize, inbox_batches: usize) -> std::io::Result<Threads<A>> {
        let workers = workers.clamp(1, actors.len().max(1));
        let start = Instant::now();
        let (inboxes, receivers): (Vec<_>, Vec<_>) = (0..workers).map(|_| bounded(inbox_batches)).unzip();
        let (notice_sender, notices) = bounded(inbox_batches);
        let (cpu_sender, cpu_receiver) = bounded(workers);
        let mut dealt: Vec<Vec<(usize, A)>> = (0..workers).map(|_| Vec::new()).collect();
        for (index, actor) in actors.into_iter().enumerate() {
            dealt[index % workers].push((index, actor));
        }
        let mut handles = Vec::new();
        for (id, (actors, inbox)) in dealt.into_iter().zip(receivers).enumerate() {
            let waiting = actors.iter().map(|_| Vec::new()).collect();
            let backlog = (0..workers).map(|_| VecDeque::new()).collect();
            let worker = Worker {
                id,
                start,
                actors,
                waiting,
                inbox,
                outlets: inboxes.clone(),
                backlog,
                notices: notice_sender.clone(),
                notice_backlog: VecDeque::new(),
            };
            let cpu_sender = cpu_sender.clone();
            let run = move || {
                // The channel has room for every worker; a driver already gone is no reason to fail.
                let _ = cpu_sender.send(thread_cpu_file());
                drop(cpu_sender);
                worker.run()
            };
            handles.push(std::thread::Builder::new().name(format!("worker-{id}")).spawn(run)?);
        }
        drop(cpu_sender);
        let cpu_files = cpu_receiver.iter().flatten().collect();
        let (outgoing, arrived) = (VecDeque::new(), VecDeque::new());
        Ok(Threads { start, inboxes, notices, workers: handles, cpu_files, outgoing, arrived })
    }

    fn post(&mut self, actor: usize, work: A::Work) {
        let worker = actor % self.inboxes.len();
        match self.outgoing.back_mut() {
            Some(batch) if batch.worker == worker => batch.messages.push((actor, work)),
            _ => self.outgoing.push_back(Batch { worker, messages: vec![(actor, work)] }),
        }
    }

    /// Moves the driver's posts into the inboxes, in order, as far as there is room.
    fn flush(&mut self) -> Result<(), Stall> {
        while let Some(batch) = self.outgoing.pop_front() {
            match self.inboxes[batch.worker].try_send(Post::Batch(batch)) {
                Ok(()) => {}
                Err(TrySendError::Full(Post::Batch(batch))) => {
                    self.outgoing.push_front(batch);
                    return Ok(());
                }
                Err(_) => return Err(Stall::WorkerLost),
            }
        }
        Ok(())
    }

    fn next(&mut self) -> Result<A::Notice, Stall> {
        self.next_within(STALL)?.ok_or(Stall::Silent)
    }

    fn next_within(&mut self, wait: Duration) -> Result<Option<A::Notice>, Stall> {
        let begun = Instant::now();
        loop {
            self.flush()?;
            if let Some(notice) = self.arrived.pop_front() {
                return Ok(Some(notice));
            }
            let left = wait.saturating_sub(begun.elapsed());
            if left.is_zero() {
                return Ok(None);
            }
            // With posts left over, look again soon; without, only a dead worker needs looking for.
            let pause = Duration::from_millis(if self.outgoing.is_empty() { 500 } else { 1 });
            match self.notices.recv_timeout(pause.min(left)) {
                Ok(batch) => self.arrived.extend(batch),
                Err(RecvTimeoutError::Disconnected) => return Err(Stall::WorkerLost),
                Err(RecvTimeoutError::Timeout) => {
                    if self.workers.iter().any(JoinHandle::is_finished) {
                        return Err(Stall::WorkerLost);
                    }
                }
            }
        }
    }

    fn finish(mut self) -> Result<Vec<A>, Stall> {
        for inbox in &self.inboxes {
            // Workers drain their inboxes, so this ends; a dead one is found when it is joined.
            let _ = inbox.send(Post::Stop);
        }
        // Notices nobody reads any more must not keep a worker from its end.
        drop(self.notices);
        let mut actors = Vec::new();
        for worker in self.workers.drain(..) {
            actors.extend(worker.join().map_err(|_| Stall::WorkerLost)?);
        }
        actors.sort_by_key(|(index, _)| *index);
        Ok(actors.into_iter().map(|(_, actor)| actor).collect())
    }
}

/// One thread and its actors.
struct Worker<A: Actor> {
    id: usize,
    start: Instant,
    actors: Vec<(usize, A)>,
    /// Work by actor, in the order it came.
    waiting: Vec<Vec<A::Work>>,
    inbox: Receiver<Post<A::Work>>,
    outlets: Vec<Sender<Post<A::Work>>>,
    /// Batches that the other inboxes had no room for.
    backlog: Vec<VecDeque<Batch<A::Work>>>,
    notices: Sender<Vec<A::Notice>>,
    notice_backlog: VecDeque<Vec<A::Notice>>,
}

impl<A: Actor> Worker<A> {
    fn run(mut self) -> Vec<(usize, A)> {
        loop {
            if self.waiting.iter().all(Vec::is_empty) {
                self.await_something();
            }
            loop {
                match self.inbox.try_recv() {
                    Ok(Post::Batch(batch)) => self.sort(batch.messages),
                    Ok(Post::Stop) | Err(TryRecvError::Disconnected) => return self.actors,
                    Err(TryRecvError::Empty) => break,
                }
            }
            self.turns();
            self.flush();
        }
    }

    /// Waits until the inbox has something, or a backlog has room to go.
    fn await_something(&mut self) {
        let mut select = Select::new();
        select.recv(&self.inbox);
        for (outlet, backlog) in self.outlets.iter().zip(&self.backlog) {
            if !backlog.is_empty() {
                select.send(outlet);
            }
        }
        if !self.notice_backlog.is_empty() {
            select.send(&self.notices);
        }
        select.ready();
    }

    fn sort(&mut self, messages: Vec<(usize, A::Work)>) {
        for (actor, work) in messages {
            self.waiting[actor / self.outlets.len()].push(work);
        }
    }

    /// One turn of each actor that has work.
    fn turns(&mut self) {
        let workers = self.outlets.len();
        let mut batches: Vec<Vec<(usize, A::Work)>> = (0..workers).map(|_| Vec::new()).collect();
        let mut notices = Vec::new();
        for slot in 0..self.actors.len() {
            if self.waiting[slot].is_empty() {
                continue;
            }
            let work = std::mem::take(&mut self.waiting[slot]);
            let outbox = self.actors[slot].1.turn(work, self.start.elapsed());
            notices.extend(outbox.notices);
            for (actor, work) in outbox.messages {
                batches[actor % workers].push((actor, work));
            }
        }
        let own = std::mem::take(&mut batches[self.id]);
        self.sort(own);
        for (worker, messages) in batches.into_iter().enumerate().filter(|(_, messages)| !messages.is_empty())
        {
            self.backlog[worker].push_back(Batch { worker, messages });
        }
        if !notices.is_empty() {
            self.notice_backlog.push_back(notices);
        }
    }

    /// Sends as much as there is room for.
    fn flush(&mut self) {
        for (outlet, backlog) in self.outlets.iter().zip(&mut self.backlog) {
            while let Some(batch) = backlog.pop_front() {
                // A worker that has ended takes nothing more; the driver finds out why.
                if let Err(TrySendError::Full(Post::Batch(batch))) = outlet.try_send(Post::Batch(batch)) {
                    backlog.push_front(batch);
                    break;
                }
            }
        }
        while let Some(batch) = self.notice_backlog.pop_front() {
            if let Err(TrySendError::Full(batch)) = self.notices.try_send(batch) {
                self.notice_backlog.push_front(batch);
                break;
            }
        }
    }
}

/// Where the calling thread's processor time can be read by others.
fn thread_cpu_file() -> Option<PathBuf> {
    let own = std::fs::read_link("/proc/thread-self").ok()?;
    Some(PathBuf::from("/proc").join(own).join("schedstat"))
}

fn cpu_of(file: &PathBuf) -> Option<Duration> {
    crate::metrics::parse_schedstat(&std::fs::read_to_string(file).ok()?)
}

/// The shortest delay of the virtual network.
const DELAY_MIN: Duration = Duration::from_micros(1_000);
/// By how many steps a delay may exceed it.
const DELAY_STEPS: u32 = 8;
/// One step; coarse, so that messages often arrive together, as they do under load.
const DELAY_STEP: Duration = Duration::from_micros(250);

/// Actors in virtual time.
pub(crate) struct Virtual<A: Actor> {
    now: Duration,
    actors: Vec<A>,
    rng: ChaCha20Rng,
    /// Arrivals by time, then by the order they were posted; the work itself lies in `messages`.
    queue: BinaryHeap<Reverse<(Duration, u64)>>,
    messages: HashMap<u64, (usize, A::Work)>,
    posted: u64,
    /// The latest arrival between two actors: a later message does not overtake it.
    latest: HashMap<(usize, usize), Duration>,
    arrived: VecDeque<A::Notice>,
}

impl<A: Actor> Virtual<A> {
    fn new(actors: Vec<A>, rng: ChaCha20Rng) -> Virtual<A> {
        Virtual {
            now: Duration::ZERO,
            actors,
            rng,
            queue: BinaryHeap::new(),
            messages: HashMap::new(),
            posted: 0,
            latest: HashMap::new(),
            arrived: VecDeque::new(),
        }
    }

    fn post(&mut self, actor: usize, work: A::Work) {
        self.arrive(self.now, actor, work);
    }

    fn arrive(&mut self, at: Duration, actor: usize, work: A::Work) {
        self.queue.push(Reverse((at, self.posted)));
        self.messages.insert(self.posted, (actor, work));
        self.posted += 1;
    }

    fn next(&mut self) -> Result<A::Notice, Stall> {
        loop {
            if let Some(notice) = self.arrived.pop_front() {
                return Ok(notice);
            }
            let Some(Reverse((at, _))) = self.queue.peek().copied() else { return Err(Stall::Idle) };
            self.now = at;
            self.instant(at);
        }
    }

    fn next_within(&mut self, wait: Duration) -> Option<A::Notice> {
        let end = self.now + wait;
        loop {
            if let Some(notice) = self.arrived.pop_front() {
                return Some(notice);
            }
            let next = self.queue.peek().map(|Reverse((at, _))| *at).filter(|at| *at <= end);
            let Some(at) = next else {
                self.now = end;
                return None;
            };
            self.now = at;
            self.instant(at);
        }
    }

    /// Delivers everything due at `at`: one turn of each receiver.
    fn instant(&mut self, at: Duration) {
        let mut turns: BTreeMap<usize, Vec<A::Work>> = BTreeMap::new();
        while let Some(Reverse((time, number))) =
            self.queue.peek().copied().filter(|Reverse((time, _))| *time == at)
        {
            debug_assert_eq!(time, at);
            self.queue.pop();
            if let Some((actor, work)) = self.messages.remove(&number) {
                turns.entry(actor).or_default().push(work);
            }
        }
        for (from, work) in turns {
            let outbox = self.actors[from].turn(work, at);
            self.arrived.extend(outbox.notices);
            for (to, work) in outbox.messages {
                let delay = DELAY_MIN + DELAY_STEP * self.rng.random_range(0..=DELAY_STEPS);
                let latest = self.latest.entry((from, to)).or_default();
                *latest = (*latest).max(at + delay);
                let time = *latest;
                self.arrive(time, to, work);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seed::{Purpose, Seed};

    /// Passes each number on to the next actor, one less each time, and notifies the driver when it reaches zero;
    /// checks that messages of one actor arrive in order.
    struct Relay {
        index: usize,
        actors: usize,
        sent: u64,
        seen: HashMap<usize, u64>,
    }

    struct Token {
        from: usize,
        number: u64,
        left: u32,
        name: u64,
    }

    impl Actor for Relay {
        type Work = Token;
        type Notice = (u64, usize, Duration);

        fn turn(&mut self, work: Vec<Token>, now: Duration) -> Outbox<Token, Self::Notice> {
            let mut outbox = Outbox::default();
            for token in work {
                if token.from != usize::MAX {
                    let seen = self.seen.entry(token.from).or_default();
                    assert!(token.number > *seen, "out of order");
                    *seen = token.number;
                }
                if token.left == 0 {
                    outbox.notices.push((token.name, self.index, now));
                    continue;
                }
                self.sent += 1;
                let to = (self.index + 1 + token.name as usize % 3) % self.actors;
                let left = token.left - 1;
                outbox
                    .messages
                    .push((to, Token { from: self.index, number: self.sent, left, name: token.name }));
            }
            outbox
        }
    }

    fn relays(actors: usize) -> Vec<Relay> {
        (0..actors).map(|index| Relay { index, actors, sent: 0, seen: HashMap::new() }).collect()
    }

    fn token(name: u64) -> Token {
        Token { from: usize::MAX, number: 0, left: 50, name }
    }

    #[test]
    fn tiny_queues_under_a_flood_do_not_deadlock() {
        let mut threads = Threads::new(relays(7), 3, 1).unwrap();
        for name in 0..2_000 {
            threads.post(name as usize % 7, token(name));
        }
        let mut names: Vec<u64> = (0..2_000).map(|_| threads.next().unwrap().0).collect();
        names.sort_unstable();
        assert!(names.iter().copied().eq(0..2_000));
        let actors = threads.finish().unwrap();
        assert!(actors.iter().enumerate().all(|(index, actor)| actor.index == index));
    }

    #[test]
    fn a_worker_that_panics_is_noticed() {
        struct Bomb;
        impl Actor for Bomb {
            type Work = ();
            type Notice = ();
            fn turn(&mut self, _: Vec<()>, _: Duration) -> Outbox<(), ()> {
                panic!("on purpose");
            }
        }
        let mut threads = Threads::new(vec![Bomb, Bomb], 2, 4).unwrap();
        threads.post(1, ());
        assert!(matches!(threads.next(), Err(Stall::WorkerLost)));
    }

    #[test]
    fn virtual_time_repeats_itself() {
        let run = |number| {
            let rng = Seed::new(number, b"").rng(Purpose::Network, 0);
            let mut world = Executor::virtual_time(relays(5), rng);
            (0..40).for_each(|name| world.post(name as usize % 5, token(name)));
            let notices: Vec<_> = (0..40).map(|_| world.next().unwrap()).collect();
            assert!(matches!(world.next(), Err(Stall::Idle)));
            notices
        };
        assert_eq!(run(1), run(1));
        assert_ne!(run(1), run(2));
        assert!(run(1).iter().all(|(_, _, at)| *at >= DELAY_MIN * 50));
    }
}
