//! The run itself: build, fund, open, pay, close, check.
//!
//! Owns: the order of the stages, and the condition each waits for. A stage returns the input of the next: the funded
//! nodes ([`LiveNetwork`]), their channels ([`OpenChannels`]), the results of the payments ([`Paid`]), and from all
//! of it the report (`summary`). Does not know how nodes work inside, nor how they are run.
//!
//! Invariant: a stage ends when all it began is over; the funds check comes last and reads the chain, not the nodes.

mod summary;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bitcoin::hashes::Hash;
use fulmen::chain::ChainEvent;
use fulmen::runtime::StartError;
use fulmen_graph::snapshot::Snapshot;
use fulmen_proto::forward::{Command, ExpectedPayment, OpenChannelRequest};
use fulmen_topology::ConversionError;
use fulmen_wire::units::{ChannelId, Msat, Scid};
use thiserror::Error;

use crate::cli::RunArgs;
use crate::exec::{Executor, Stall};
use crate::metrics::Metrics;
use crate::network::{self, FUNDING_BLOCKS, Network};
use crate::paying::{DRAWS_PER_PAYMENT, End, FINAL_CLTV_DELTA, Order, Routing};
use crate::progress::Progress;
use crate::report::{self, Report};
use crate::scenario::{self, DrawnPayment, PaymentDraw, ScenarioError};
use crate::seed::Purpose;
use crate::sim_node::{Notice, SimNode, Work};
use crate::stage::StageClock;
use crate::tally::Tally;
use crate::treasury::{Treasury, TreasuryError};

/// Why a run came to nothing.
#[derive(Debug, Error)]
pub(crate) enum RunError {
    /// It cannot begin.
    #[error(transparent)]
    Scenario(#[from] ScenarioError),
    /// The chain's side failed.
    #[error(transparent)]
    Treasury(#[from] TreasuryError),
    /// The report cannot be written.
    #[error(transparent)]
    Report(#[from] report::WriteError),
    /// Threads cannot be started.
    #[error("cannot start the worker threads: {0}; try fewer --workers")]
    Threads(std::io::Error),
    /// A node cannot be started.
    #[error("node {node}: {error}; --store wants a directory without an earlier run's records")]
    Start {
        /// Which node.
        node: usize,
        /// The engine's error.
        #[source]
        error: StartError,
    },
    /// The nodes make no progress.
    #[error(
        "{stage}: {cause} with {done} of {wanted} done; run again with --deterministic to see whether it repeats"
    )]
    Stalled {
        /// The stage.
        stage: &'static str,
        /// Why nothing more comes.
        cause: Stall,
        /// How much was done.
        done: u64,
        /// Of how much.
        wanted: u64,
    },
    /// A node reported an event that must not occur in a healthy run.
    #[error("{stage}: node {node} {what}; run again with --deterministic to see whether it repeats")]
    Trouble {
        /// The stage.
        stage: &'static str,
        /// Which node.
        node: usize,
        /// Its description of it.
        what: String,
    },
    /// The channels do not make a graph.
    #[error("the opened channels make no graph: {0}; this is a bug")]
    Graph(#[from] ConversionError),
}

/// Runs `loadgen run`.
///
/// # Errors
/// When a stage cannot be finished. A failed funds check is not an error here: the report lists its findings.
pub(crate) fn run(args: &RunArgs) -> Result<Report, RunError> {
    let without = if args.hidden_liquidity { Some(once(args, false)?) } else { None };
    let mut report = once(args, true)?;
    report.learning = without.map(|without| report::Learning {
        first_attempt_with: report.payments.ordinary.first_attempt_share(),
        first_attempt_without: without.payments.ordinary.first_attempt_share(),
    });
    Ok(report)
}

/// One run, by payers who learn from the results of payments or do not.
fn once(args: &RunArgs, learning: bool) -> Result<Report, RunError> {
    let begun = Instant::now();
    let progress = Progress::new(args.quiet || args.json);
    if let Some(directory) = &args.report {
        report::prepare(directory)?;
    }
    let (topology, notes) = scenario::topology(args)?;
    // The pass of payers who learn is the last one, and the only one without --hidden-liquidity.
    for note in notes.iter().filter(|_| learning) {
        eprintln!("note: {note}");
    }
    let treasury = Treasury::open(&args.chain, args.seed)?;
    let network = Network::new(topology, &treasury.seed(), args.hidden_liquidity);
    let mut clock = StageClock::default();
    let mut live = clock.time("funding wallets", || LiveNetwork::start(args, network, treasury, progress))?;
    let mut channels = clock.time("opening", || live.open())?;
    let mut paid = clock.time("paying", || live.pay(&channels, learning))?;
    clock.time("closing", || live.close(&mut channels, &mut paid.tally))?;
    live.report(&channels, &paid, clock.into_stages(), begun)
}

/// How many threads the nodes are spread over.
fn workers(args: &RunArgs, nodes: usize) -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    if args.deterministic { 1 } else { args.workers.unwrap_or(cores).min(nodes) }
}

/// A network whose nodes run, with coins in their wallets and connections to their peers.
struct LiveNetwork<'a> {
    args: &'a RunArgs,
    network: Network,
    treasury: Treasury,
    exec: Executor<SimNode>,
    progress: Progress,
}

/// The channels of the network, once each is open.
struct OpenChannels {
    /// In the order the network plans them.
    list: Vec<Opened>,
    /// Their places in `list`.
    by_id: HashMap<ChannelId, usize>,
}

/// A channel that is open, and later closed.
#[derive(Clone, Debug, Default)]
struct Opened {
    id: Option<ChannelId>,
    scid: Option<Scid>,
    /// The balances of opener and acceptor when it was closed.
    balances: [Option<Msat>; 2],
}

/// The results of the payments stage.
struct Paid {
    tally: Tally,
    metrics: Metrics,
    /// Processor time, where the system reports it.
    cpu: Option<Duration>,
    wall: Duration,
}

impl<'a> LiveNetwork<'a> {
    /// Gives every node its coins, starts the nodes, and connects those that will share a channel.
    fn start(
        args: &'a RunArgs,
        network: Network,
        mut treasury: Treasury,
        progress: Progress,
    ) -> Result<LiveNetwork<'a>, RunError> {
        let blocks = treasury.fund_wallets(network.nodes(), network.coins())?;
        let node = |index: usize| {
            let config = network::node_config(treasury.script_of(index).to_bytes());
            let directory = args.store.as_ref().map(|store| store.join(format!("node-{index}")));
            let nodes = Arc::clone(network.directory());
            SimNode::new(index, (network.seed_of(index), config), directory, nodes)
                .map_err(|error| RunError::Start { node: index, error })
        };
        let nodes = (0..network.nodes()).map(node).collect::<Result<_, _>>()?;
        let workers = workers(args, network.nodes());
        let exec = if args.deterministic {
            Executor::virtual_time(nodes, treasury.seed().rng(Purpose::Network, 0))
        } else {
            Executor::threads(nodes, workers).map_err(RunError::Threads)?
        };
        let mut live = LiveNetwork { args, network, treasury, exec, progress };
        live.tell(&blocks);
        let mut met = HashSet::new();
        for channel in live.network.channels() {
            let (one, other) = (channel.opener.min(channel.acceptor), channel.opener.max(channel.acceptor));
            if met.insert((one, other)) {
                live.exec.post(one, Work::Connect(other));
                live.exec.post(other, Work::Connect(one));
            }
        }
        let wanted = 2 * met.len() as u64;
        let mut connected = 0;
        while connected < wanted {
            if let Notice::Connected = live.next("connecting nodes", connected, wanted)? {
                connected += 1;
            }
        }
        Ok(live)
    }

    /// Tells every node about new blocks.
    fn tell(&mut self, blocks: &[Arc<ChainEvent>]) {
        for block in blocks {
            for node in 0..self.network.nodes() {
                self.exec.post(node, Work::Chain(Arc::clone(block)));
            }
        }
    }

    fn next(&mut self, stage: &'static str, done: u64, wanted: u64) -> Result<Notice, RunError> {
        match self.exec.next() {
            Ok(Notice::Trouble { node, what }) => Err(RunError::Trouble { stage, node, what }),
            Ok(notice) => Ok(notice),
            Err(cause) => Err(RunError::Stalled { stage, cause, done, wanted }),
        }
    }

    /// Opens every channel: the negotiation, the funding transactions, the blocks, and both sides' `channel_ready`.
    fn open(&mut self) -> Result<OpenChannels, RunError> {
        const STAGE: &str = "opening channels";
        let wanted = self.network.channels().len() as u64;
        let bar = self.progress.bar("funding", wanted);
        for (index, channel) in self.network.channels().iter().enumerate() {
            let open = OpenChannelRequest {
                peer: self.network.directory().id(channel.acceptor),
                user_id: index as u64,
                capacity: channel.capacity,
                push: channel.push,
                policy: None,
            };
            self.exec.post(channel.opener, Work::Command(Box::new(Command::OpenChannel(open))));
        }
        let mut broadcast = 0;
        while broadcast < wanted {
            match self.next(STAGE, broadcast, wanted)? {
                Notice::FundingNeeded { node, channel, temporary_channel_id, amount, script } => {
                    let transaction = self.treasury.fund(node, channel as usize, &script, amount)?;
                    let command = Command::FundingTransaction { temporary_channel_id, transaction };
                    self.exec.post(node, Work::Command(Box::new(command)));
                }
                Notice::Broadcast(transaction) => {
                    self.treasury.broadcast(&transaction, "funding a channel")?;
                    broadcast += 1;
                    bar.inc(1);
                }
                _ => {}
            }
        }
        let mut blocks = self.treasury.confirm()?;
        blocks.extend(self.treasury.mine(FUNDING_BLOCKS - 1)?);
        let mut channels = self.locate(&blocks);
        self.tell(&blocks);
        let mut ready = 0;
        while ready < 2 * wanted {
            if let Notice::ChannelReady { channel_id, scid } = self.next(STAGE, ready / 2, wanted)? {
                if let Some(index) = channels.by_id.get(&channel_id) {
                    channels.list[*index].scid = Some(scid);
                }
                ready += 1;
            }
        }
        bar.finish();
        Ok(channels)
    }

    /// Finds each channel's id from the blocks that hold its funding output.
    fn locate(&self, blocks: &[Arc<ChainEvent>]) -> OpenChannels {
        let list = vec![Opened::default(); self.network.channels().len()];
        let mut channels = OpenChannels { list, by_id: HashMap::new() };
        for event in blocks {
            let ChainEvent::Connected { block, .. } = &**event else { continue };
            for transaction in &block.txdata {
                let txid = transaction.compute_txid();
                for (output, channel) in self.treasury.audit().fundings_in(transaction) {
                    let wire = fulmen_wire::units::Txid(txid.to_byte_array());
                    let id = ChannelId::from_funding(wire, output);
                    channels.list[channel].id = Some(id);
                    channels.by_id.insert(id, channel);
                }
            }
        }
        channels
    }

    /// Gives the nodes the public graph and sets the policies it shows.
    fn publish(&mut self, channels: &OpenChannels, learning: bool) -> Result<Routing, RunError> {
        let scids: Vec<Scid> = channels.list.iter().map(|channel| channel.scid.unwrap_or_default()).collect();
        let graph = Arc::new(self.network.graph(&scids)?);
        for (channel, opened) in self.network.channels().iter().zip(&channels.list) {
            let Some(channel_id) = opened.id else { continue };
            for (node, policy) in [channel.opener, channel.acceptor].into_iter().zip(channel.policies) {
                self.exec.post(node, Work::Command(Box::new(Command::SetPolicy { channel_id, policy })));
            }
        }
        let routing = Routing {
            snapshot: Arc::new(Snapshot::new(&graph)),
            graph,
            seed: self.treasury.seed(),
            attempts_max: self.args.attempts,
            parts_max: self.args.max_parts,
            learning,
        };
        for node in 0..self.network.nodes() {
            self.exec.post(node, Work::Graph(Box::new(routing.clone())));
        }
        Ok(routing)
    }

    /// Makes all payments, as many at once as allowed.
    fn pay(&mut self, channels: &OpenChannels, learning: bool) -> Result<Paid, RunError> {
        const STAGE: &str = "paying";
        let routing = self.publish(channels, learning)?;
        let wanted = self.args.payments;
        let bar = self.progress.bar("payments", wanted);
        let (begun, cpu) = (self.exec.now(), self.exec.cpu());
        let wall = Instant::now();
        let directory = Arc::clone(self.network.directory());
        let (seed, nodes) = (self.treasury.seed(), self.network.nodes());
        let mut draws =
            PaymentDraw::new(seed, (&routing.graph, &routing.snapshot), &directory, nodes, self.args);
        let mut live: BTreeMap<u64, (DrawnPayment, u64)> = BTreeMap::new();
        let (mut next, mut done) = (0, 0);
        let mut ticks = Ticks::new(begun);
        let (mut tally, mut metrics) = (Tally::new(seed), Metrics::new());
        while done < wanted {
            while next < wanted && live.len() < self.args.in_flight {
                let draw = draws.draw(next, 0)?;
                self.hand_over(next, 0, &draw);
                live.insert(next, (draw, 0));
                next += 1;
            }
            match self.next_ticking(STAGE, done, wanted, &mut ticks)? {
                Notice::Outcome(outcome) => {
                    let Some((draw, redraw)) = live.remove(&outcome.payment) else { continue };
                    if outcome.end == End::NoFaultyRoute && redraw < REDRAWS_MAX {
                        let again = draws.draw(outcome.payment, redraw + 1)?;
                        self.hand_over(outcome.payment, redraw + 1, &again);
                        live.insert(outcome.payment, (again, redraw + 1));
                        continue;
                    }
                    done += 1;
                    metrics.resolved(self.exec.now().saturating_sub(begun), &outcome);
                    tally.resolved(draw.fault, &outcome);
                    bar.inc(1);
                }
                Notice::Refused { payment_hash, scid, amount, available } => {
                    tally.refused(payment_hash, scid, amount, available);
                }
                _ => {}
            }
        }
        let wall = wall.elapsed();
        let cpu = self.exec.cpu().zip(cpu).map(|(after, before)| after.saturating_sub(before));
        bar.finish();
        Ok(Paid { tally, metrics, cpu, wall })
    }

    /// The next notice of a stage in which payments may wait at their payee for parts that do not come: time passes
    /// for the nodes then, though nothing else happens.
    fn next_ticking(
        &mut self,
        stage: &'static str,
        done: u64,
        wanted: u64,
        ticks: &mut Ticks,
    ) -> Result<Notice, RunError> {
        if self.args.max_parts == 1 {
            return self.next(stage, done, wanted);
        }
        loop {
            let now = self.exec.now();
            if now.saturating_sub(ticks.last) >= TICK {
                ticks.last = now;
                ticks.in_silence += 1;
                (0..self.network.nodes()).for_each(|node| self.exec.post(node, Work::Tick));
            }
            let stalled = |cause| RunError::Stalled { stage, cause, done, wanted };
            match self.exec.next_within(TICK).map_err(stalled)? {
                Some(Notice::Trouble { node, what }) => return Err(RunError::Trouble { stage, node, what }),
                Some(notice) => {
                    ticks.in_silence = 0;
                    return Ok(notice);
                }
                None if ticks.in_silence > TICKS_IN_SILENCE_MAX => return Err(stalled(Stall::Silent)),
                None => {}
            }
        }
    }

    /// Gives payment number `payment`, drawn `redraw` times before, to its payer, and its invoice to its payee.
    fn hand_over(&mut self, payment: u64, redraw: u64, draw: &DrawnPayment) {
        let seed = self.treasury.seed();
        // A faulty payment needs no invoice: it fails before its payee, or because its payee knows none.
        if draw.fault.is_none() {
            let invoice = ExpectedPayment {
                payment_hash: seed.payment_hash(payment),
                preimage: seed.preimage(payment),
                payment_secret: seed.payment_secret(payment),
                amount: Some(draw.amount),
                min_final_cltv_expiry_delta: FINAL_CLTV_DELTA,
                expires_at_unix_ms: u64::MAX,
            };
            self.exec.post(draw.to_index, Work::Command(Box::new(Command::ExpectPayment(invoice))));
        }
        let (to, amount, fault) = (draw.to, draw.amount, draw.fault);
        let order = Order { payment, redraw, to, amount, fault, begun: self.exec.now() };
        self.exec.post(draw.from, Work::Pay(order));
    }

    /// Closes every channel by agreement and mines the closings.
    fn close(&mut self, channels: &mut OpenChannels, tally: &mut Tally) -> Result<(), RunError> {
        const STAGE: &str = "closing channels";
        let wanted = channels.list.len() as u64;
        let bar = self.progress.bar("closing", wanted);
        for (channel, opened) in self.network.channels().iter().zip(&channels.list) {
            let Some(channel_id) = opened.id else { continue };
            let close = Command::CloseChannel { channel_id, script: None };
            self.exec.post(channel.opener, Work::Command(Box::new(close)));
        }
        let (mut closed, mut broadcast) = (0, HashSet::new());
        while closed < 2 * wanted || (broadcast.len() as u64) < wanted {
            match self.next(STAGE, closed / 2, wanted)? {
                Notice::ChannelClosed { node, channel_id, balance } => {
                    closed += 1;
                    if let Some(index) = channels.by_id.get(&channel_id) {
                        let acceptor = usize::from(self.network.channels()[*index].acceptor == node);
                        channels.list[*index].balances[acceptor] = balance;
                    }
                }
                Notice::Broadcast(transaction) => {
                    self.treasury.broadcast(&transaction, "closing a channel")?;
                    if broadcast.insert(transaction.compute_txid()) {
                        bar.inc(1);
                    }
                }
                Notice::Refused { payment_hash, scid, amount, available } => {
                    tally.refused(payment_hash, scid, amount, available);
                }
                _ => {}
            }
        }
        let blocks = self.treasury.confirm()?;
        self.tell(&blocks);
        bar.finish();
        Ok(())
    }
}

/// When the nodes last received a tick.
struct Ticks {
    last: Duration,
    /// How often since the last notice.
    in_silence: u32,
}

impl Ticks {
    const fn new(now: Duration) -> Ticks {
        Ticks { last: now, in_silence: 0 }
    }
}

/// The interval of ticks.
const TICK: Duration = Duration::from_secs(1);
/// After how many ticks without a notice a run is stalled: payees wait for ten, and then more may be tried.
const TICKS_IN_SILENCE_MAX: u32 = 60;

/// How often a faulty payment is drawn again before it counts as not causable.
const REDRAWS_MAX: u64 = 80;
const _: () = assert!(REDRAWS_MAX < DRAWS_PER_PAYMENT);
