//! A recording played at a fixed rate, beside adversaries that flood the engine.
//!
//! Owns the pacing of rounds, the adversaries, and the CPU time of the node. An adversary is a stranger without a
//! channel. Its bytes arrive at a fixed rate in a socket's buffer of [`BUFFER_BYTES`]; beyond that the sender waits, as
//! TCP makes it. The reading loop stands for the node's own: it stops reading from a connection that has no credit
//! until the engine resumes it, and its CPU time counts as the node's. An adversary that is disconnected comes back
//! under a new identity at once.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, Sender, unbounded};
use fulmen::runtime::{Connection, Effects, Engine, ReceiveError};
use fulmen_wire::units::NodeId;

use super::{ANSWER_TIMEOUT, Player, Setup, Transcript, process_time};
use crate::line::thread_time;

/// What a socket holds of an adversary's bytes that the node does not read.
const BUFFER_BYTES: usize = 256 << 10;
/// What the node reads of it at once, unless a message is longer.
const READ_BYTES: usize = 4 << 10;
/// How often the reading loop looks at the sockets.
const READ_PERIOD: Duration = Duration::from_millis(2);

/// The measurements of a phase, undisturbed or attacked.
#[derive(Clone, Debug, Default)]
pub struct Phase {
    /// Payments forwarded.
    pub payments: u64,
    /// Its duration.
    pub took: Duration,
    /// CPU time of the node: the engine's threads and the loop that reads the adversaries' connections.
    pub node_cpu: Duration,
    /// From a round's first message to its last answer, sorted.
    pub latencies: Vec<Duration>,
    /// Bytes that the adversaries had to send.
    pub offered_bytes: u64,
    /// Bytes that the node read of them.
    pub read_bytes: u64,
    /// Bytes that the node answered them with.
    pub answered_bytes: u64,
    /// Adversaries that the node disconnected.
    pub disconnects: u64,
}

/// How to attack.
#[derive(Clone, Debug)]
pub struct Attacked {
    /// Time between the beginnings of two rounds of a pair.
    pub round_period: Duration,
    /// Payments of a round.
    pub depth: u64,
    /// Bytes per second that each adversary offers.
    pub bytes_per_second: u64,
    /// For each adversary the message it repeats.
    pub floods: Vec<Vec<u8>>,
}

impl Transcript {
    /// Plays the first half of the rounds undisturbed and the second half under attack.
    ///
    /// # Panics
    /// If an honest payment is not answered as recorded.
    #[must_use]
    pub fn attacked(&self, setup: Setup<'_>, attacked: &Attacked) -> [Phase; 2] {
        let player = self.player(setup);
        let half = self.rounds[0].len() / 2;
        let mut next = vec![0; self.pairs.len()];
        let (sender, effects) = unbounded();
        let mut phases = [Phase::default(), Phase::default()];
        self.play_rounds(&player, 0..half, &mut next, attacked, &sender, &mut phases[0]);
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let (engine, init, over) = (&player.engine, &self.ends[0].1, &over);
            let reading = scope.spawn(move || read_adversaries(engine, init, attacked, &effects, over));
            let rounds = half..self.rounds[0].len();
            self.play_rounds(&player, rounds, &mut next, attacked, &sender, &mut phases[1]);
            over.store(true, Ordering::Relaxed);
            let read = reading.join().expect("the reading loop does not panic");
            let attack = &mut phases[1];
            attack.offered_bytes = read.offered_bytes;
            (attack.read_bytes, attack.answered_bytes) = (read.read_bytes, read.answered_bytes);
            attack.disconnects = read.disconnects;
        });
        drop(player.engine);
        phases
    }

    /// Plays some rounds of all pairs, each when its time has come.
    fn play_rounds(
        &self,
        player: &Player,
        rounds: std::ops::Range<usize>,
        next: &mut [usize],
        attacked: &Attacked,
        others: &Sender<Effects>,
        phase: &mut Phase,
    ) {
        let (start, player_start, process_start) = (Instant::now(), thread_time(), process_time());
        let pairs = self.pairs.len();
        let stagger = attacked.round_period / pairs as u32;
        let mut lines: Vec<Line> = (0..pairs)
            .map(|pair| Line { round: rounds.start, due: start + stagger * pair as u32, ..Line::idle(start) })
            .collect();
        let mut answered = Instant::now();
        while lines.iter().any(|line| line.round < rounds.end) {
            let now = Instant::now();
            for (pair, line) in lines.iter_mut().enumerate() {
                if line.round < rounds.end && !line.is_running && line.due <= now {
                    (line.is_running, line.begun) = (true, now);
                    let end = self.end_of(pair, line.round);
                    player.feed(&self.pairs[pair][..end], &mut next[pair], &mut line.owed);
                }
            }
            let idle = lines.iter().filter(|line| !line.is_running && line.round < rounds.end);
            let until = idle.map(|line| line.due.saturating_duration_since(now)).min();
            let said = player.mailbox.take_within(until.unwrap_or(ANSWER_TIMEOUT));
            for effects in said {
                answered = Instant::now();
                self.answer(player, effects, next, &mut lines, others, (phase, attacked));
            }
            assert!(answered.elapsed() < ANSWER_TIMEOUT, "the engine does not answer");
        }
        phase.took = start.elapsed();
        phase.payments = (rounds.len() * pairs) as u64 * attacked.depth;
        let player_cpu = thread_time() - player_start;
        phase.node_cpu = (process_time() - process_start).saturating_sub(player_cpu);
        phase.latencies.sort_unstable();
    }

    /// The step after a pair's round.
    fn end_of(&self, pair: usize, round: usize) -> usize {
        self.rounds[pair].get(round + 1).copied().unwrap_or(self.pairs[pair].len())
    }

    /// Takes the effects of a turn: answers to honest peers, and the rest for the adversaries.
    fn answer(
        &self,
        player: &Player,
        mut effects: Effects,
        next: &mut [usize],
        lines: &mut [Line],
        others: &Sender<Effects>,
        (phase, attacked): (&mut Phase, &Attacked),
    ) {
        let honest = |connection: &Connection| player.pair_of.contains_key(&connection.peer);
        assert!(!effects.disconnect.iter().any(honest), "an honest peer is disconnected");
        let (answers, rest): (Vec<_>, Vec<_>) =
            std::mem::take(&mut effects.send).into_iter().partition(|(connection, _)| honest(connection));
        for (connection, _) in answers {
            let pair = player.pair_of[&connection.peer];
            let line = &mut lines[pair];
            line.owed = line.owed.checked_sub(1).expect("an answer that was not recorded");
            let end = self.end_of(pair, line.round);
            if line.owed == 0 && next[pair] < end {
                player.feed(&self.pairs[pair][..end], &mut next[pair], &mut line.owed);
            }
            if line.owed == 0 {
                phase.latencies.push(line.begun.elapsed());
                line.due += attacked.round_period;
                (line.round, line.is_running) = (line.round + 1, false);
            }
        }
        effects.send = rest;
        if !effects.is_empty() {
            // After the attack nobody listens.
            let _ = others.send(effects);
        }
    }
}

/// A pair's round in play.
struct Line {
    round: usize,
    due: Instant,
    begun: Instant,
    owed: usize,
    is_running: bool,
}

impl Line {
    fn idle(now: Instant) -> Line {
        Line { round: 0, due: now, begun: now, owed: 0, is_running: false }
    }
}

struct Adversary {
    connection: Connection,
    /// Bytes in the socket's buffer.
    buffered: usize,
    is_blocked: bool,
}

/// Reads from the adversaries until the attack is over.
fn read_adversaries(
    engine: &Engine,
    init: &[u8],
    attacked: &Attacked,
    effects: &Receiver<Effects>,
    over: &AtomicBool,
) -> Phase {
    let mut counts = Phase::default();
    let mut identities = 0;
    let mut connect = || {
        identities += 1;
        let connection = engine.connected(stranger(identities), init).expect("an init that suits");
        Adversary { connection, buffered: 0, is_blocked: false }
    };
    let mut adversaries: Vec<Adversary> = attacked.floods.iter().map(|_| connect()).collect();
    let mut offered_at = Instant::now();
    while !over.load(Ordering::Relaxed) {
        std::thread::sleep(READ_PERIOD);
        let index: HashMap<NodeId, usize> =
            adversaries.iter().enumerate().map(|(index, one)| (one.connection.peer, index)).collect();
        let mut gone = Vec::new();
        for Effects { send, disconnect, resume, .. } in effects.try_iter() {
            counts.answered_bytes += send.iter().map(|(_, bytes)| bytes.len() as u64).sum::<u64>();
            for connection in resume {
                if let Some(index) = index.get(&connection.peer) {
                    adversaries[*index].is_blocked = false;
                }
            }
            gone.extend(disconnect.iter().filter_map(|connection| index.get(&connection.peer).copied()));
        }
        for index in gone {
            counts.disconnects += 1;
            adversaries[index] = connect();
        }
        let earned = attacked.bytes_per_second as f64 * offered_at.elapsed().as_secs_f64();
        offered_at = Instant::now();
        for (adversary, flood) in adversaries.iter_mut().zip(&attacked.floods) {
            counts.offered_bytes += earned as u64;
            // At least one message fits, or a long one would never be read.
            adversary.buffered = (adversary.buffered + earned as usize).min(BUFFER_BYTES);
            let count = adversary.buffered.min(READ_BYTES.max(flood.len())) / flood.len();
            if adversary.is_blocked || count == 0 {
                continue;
            }
            let accepted =
                match engine.receive_all(adversary.connection, (0..count).map(|_| flood.as_slice())) {
                    Ok(()) => count,
                    Err(ReceiveError::WouldBlock { accepted }) => {
                        adversary.is_blocked = true;
                        accepted
                    }
                    Err(ReceiveError::NotConnected(_)) => 0,
                    Err(error) => panic!("an adversary's message is refused: {error}"),
                };
            adversary.buffered -= accepted * flood.len();
            counts.read_bytes += (accepted * flood.len()) as u64;
        }
    }
    counts
}

/// The id of an adversary; no connection of the honest has it.
fn stranger(number: u64) -> NodeId {
    let mut id = [0xad; 33];
    id[0] = 2;
    id[25..].copy_from_slice(&number.to_be_bytes());
    NodeId(id)
}
