//! The run itself: build, fund, open, pay, close, check.
//!
//! Owns: the order of the stages, what each waits for, and the collection of what the report shows. Does not know how
//! nodes work inside, nor how they are run.
//!
//! Invariant: a stage ends when all it began is over; the funds check comes last and reads the chain, not the nodes.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bitcoin::hashes::Hash;
use fulmen::chain::ChainEvent;
use fulmen::runtime::StartError;
use fulmen_graph::ChannelGraph;
use fulmen_graph::snapshot::Snapshot;
use fulmen_proto::forward::{Command, ExpectedPayment, OpenChannel};
use fulmen_topology::ConversionError;
use fulmen_wire::units::{ChannelId, Msat, Scid};
use thiserror::Error;

use crate::accounting::{self, ChannelBooks};
use crate::cli::RunArgs;
use crate::digest::RunDigest;
use crate::exec::{Executor, Stall};
use crate::metrics::Metrics;
use crate::network::{self, Network};
use crate::paying::{DRAWS_PER_PAYMENT, End, FINAL_CLTV_DELTA, Order, Outcome, Routing};
use crate::peer::{Notice, Peer, Work};
use crate::progress::Progress;
use crate::report::{self, Crypto, Report, Stage};
use crate::scenario::{self, Draw, Lottery, ScenarioError};
use crate::seed::Purpose;
use crate::tally::Tally;
use crate::treasury::{Treasury, TreasuryError};

/// Blocks mined on top of the funding transactions: enough for any `minimum_depth` of the run.
const FUNDING_BLOCKS: u32 = 6;

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
        /// What the engine says.
        #[source]
        error: StartError,
    },
    /// The nodes do not go on.
    #[error(
        "{stage}: {cause} with {done} of {wanted} done; run again with --deterministic to see whether it repeats"
    )]
    Stalled {
        /// What was going on.
        stage: &'static str,
        /// Why nothing more comes.
        cause: Stall,
        /// How much was done.
        done: u64,
        /// Of how much.
        wanted: u64,
    },
    /// A node met what a healthy run does not.
    #[error("{stage}: node {node} {what}; run again with --deterministic to see whether it repeats")]
    Trouble {
        /// What was going on.
        stage: &'static str,
        /// Which node.
        node: usize,
        /// What it says.
        what: String,
    },
    /// The channels do not make a graph.
    #[error("the opened channels make no graph: {0}; this is a bug")]
    Graph(#[from] ConversionError),
}

/// Runs what `args` ask for.
///
/// # Errors
/// When a stage cannot be finished. A funds check that finds something is no error here: the report says so.
pub(crate) fn run(args: &RunArgs) -> Result<Report, RunError> {
    let without = if args.hidden_liquidity { Some(once(args, false)?) } else { None };
    let mut report = once(args, true)?;
    report.learning = without.map(|without| report::Learning {
        first_attempt_with: report.payments.ordinary.first_attempt_share(),
        first_attempt_without: without.payments.ordinary.first_attempt_share(),
    });
    Ok(report)
}

/// One run, by senders who learn from the results of payments or do not.
fn once(args: &RunArgs, learning: bool) -> Result<Report, RunError> {
    let begun = Instant::now();
    let progress = Progress::new(args.quiet || args.json);
    if let Some(directory) = &args.report {
        report::prepare(directory)?;
    }
    let topology = scenario::topology(args)?;
    let treasury = Treasury::open(&args.chain, args.seed)?;
    let network = Network::new(topology, &treasury.seed(), args.hidden_liquidity);
    let mut run = Run::new(args, learning, network, treasury, progress)?;
    run.stage("endowing", Run::endow)?;
    run.stage("opening", Run::open)?;
    run.stage("paying", Run::pay)?;
    run.stage("closing", Run::close)?;
    run.finish(begun)
}

/// A run in the making.
struct Run<'a> {
    args: &'a RunArgs,
    learning: bool,
    network: Network,
    treasury: Treasury,
    exec: Executor<Peer>,
    progress: Progress,
    channels: Vec<Opened>,
    by_id: HashMap<ChannelId, usize>,
    graph: Arc<ChannelGraph>,
    tally: Tally,
    metrics: Metrics,
    cpu: Option<Duration>,
    paying: Duration,
    stages: Vec<Stage>,
}

/// What is known of a channel once it is open.
#[derive(Clone, Debug, Default)]
struct Opened {
    id: Option<ChannelId>,
    scid: Option<Scid>,
    /// How many of its two nodes say that it is ready.
    ready: u8,
    /// What opener and acceptor held at the end.
    balances: [Option<Msat>; 2],
}

impl<'a> Run<'a> {
    fn new(
        args: &'a RunArgs,
        learning: bool,
        network: Network,
        treasury: Treasury,
        progress: Progress,
    ) -> Result<Run<'a>, RunError> {
        let channels = vec![Opened::default(); network.channels().len()];
        // The nodes are made when their wallets are: an executor without actors stands in until then.
        let exec = Executor::virtual_time(Vec::new(), treasury.seed().rng(Purpose::Network, 0));
        Ok(Run {
            args,
            learning,
            network,
            exec,
            progress,
            channels,
            by_id: HashMap::new(),
            graph: Arc::new(ChannelGraph::new()),
            tally: Tally::new(treasury.seed()),
            treasury,
            metrics: Metrics::new(),
            cpu: None,
            paying: Duration::ZERO,
            stages: Vec::new(),
        })
    }

    fn stage(
        &mut self,
        name: &'static str,
        run: impl FnOnce(&mut Run<'a>) -> Result<(), RunError>,
    ) -> Result<(), RunError> {
        let begun = Instant::now();
        run(self)?;
        self.stages.push(Stage { name, wall_s: begun.elapsed().as_secs_f64() });
        Ok(())
    }

    fn workers(&self) -> usize {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        if self.args.deterministic { 1 } else { self.args.workers.unwrap_or(cores).min(self.network.nodes()) }
    }

    /// Gives every node its coins, starts the nodes, and connects those that will share a channel.
    fn endow(&mut self) -> Result<(), RunError> {
        let blocks = self.treasury.endow(self.network.nodes(), self.network.coins())?;
        let node = |index: usize| {
            let config = network::node_config(self.treasury.script_of(index).to_bytes());
            let directory = self.args.store.as_ref().map(|store| store.join(format!("node-{index}")));
            let nodes = Arc::clone(self.network.directory());
            Peer::new(index, (self.network.seed_of(index), config), directory, nodes)
                .map_err(|error| RunError::Start { node: index, error })
        };
        let peers = (0..self.network.nodes()).map(node).collect::<Result<_, _>>()?;
        self.exec = if self.args.deterministic {
            Executor::virtual_time(peers, self.treasury.seed().rng(Purpose::Network, 0))
        } else {
            Executor::threads(peers, self.workers()).map_err(RunError::Threads)?
        };
        self.tell(&blocks);
        let mut met = HashSet::new();
        for channel in self.network.channels() {
            let (one, other) = (channel.opener.min(channel.acceptor), channel.opener.max(channel.acceptor));
            if met.insert((one, other)) {
                self.exec.post(one, Work::Connect(other));
                self.exec.post(other, Work::Connect(one));
            }
        }
        let wanted = 2 * met.len() as u64;
        let mut connected = 0;
        while connected < wanted {
            if let Notice::Connected = self.next("connecting nodes", connected, wanted)? {
                connected += 1;
            }
        }
        Ok(())
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
    fn open(&mut self) -> Result<(), RunError> {
        const STAGE: &str = "opening channels";
        let wanted = self.channels.len() as u64;
        let bar = self.progress.bar("funding", wanted);
        for (index, channel) in self.network.channels().iter().enumerate() {
            let open = OpenChannel {
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
        let blocks = self.treasury.mine(FUNDING_BLOCKS)?;
        self.place(&blocks);
        self.tell(&blocks);
        let mut ready = 0;
        while ready < 2 * wanted {
            if let Notice::ChannelReady { channel_id, scid } = self.next(STAGE, ready / 2, wanted)? {
                if let Some(channel) = self.by_id.get(&channel_id).map(|index| &mut self.channels[*index]) {
                    channel.scid = Some(scid);
                    channel.ready += 1;
                }
                ready += 1;
            }
        }
        bar.finish();
        Ok(())
    }

    /// Finds each channel's id and place from the blocks that hold its funding output.
    fn place(&mut self, blocks: &[Arc<ChainEvent>]) {
        for event in blocks {
            let ChainEvent::Connected { block, .. } = &**event else { continue };
            for transaction in &block.txdata {
                let txid = transaction.compute_txid();
                for (output, channel) in self.treasury.audit().fundings_in(transaction) {
                    let wire = fulmen_wire::units::Txid(txid.to_byte_array());
                    let id = ChannelId::from_funding(wire, output);
                    self.channels[channel].id = Some(id);
                    self.by_id.insert(id, channel);
                }
            }
        }
    }

    /// Publishes the graph to the nodes and sets the policies it shows.
    fn publish(&mut self) -> Result<Arc<Snapshot>, RunError> {
        let scids: Vec<Scid> = self.channels.iter().map(|channel| channel.scid.unwrap_or_default()).collect();
        self.graph = Arc::new(self.network.graph(&scids)?);
        for (channel, opened) in self.network.channels().iter().zip(&self.channels) {
            let Some(channel_id) = opened.id else { continue };
            for (node, policy) in [channel.opener, channel.acceptor].into_iter().zip(channel.policies) {
                self.exec.post(node, Work::Command(Box::new(Command::SetPolicy { channel_id, policy })));
            }
        }
        let snapshot = Arc::new(Snapshot::new(&self.graph));
        let routing = Routing {
            graph: Arc::clone(&self.graph),
            snapshot: Arc::clone(&snapshot),
            seed: self.treasury.seed(),
            attempts_max: self.args.attempts,
            parts_max: self.args.max_parts,
            learning: self.learning,
        };
        for node in 0..self.network.nodes() {
            self.exec.post(node, Work::Graph(Box::new(routing.clone())));
        }
        Ok(snapshot)
    }

    /// Makes all payments, as many at once as allowed.
    fn pay(&mut self) -> Result<(), RunError> {
        const STAGE: &str = "paying";
        let snapshot = self.publish()?;
        let wanted = self.args.payments;
        let bar = self.progress.bar("payments", wanted);
        let (begun, cpu) = (self.exec.now(), self.exec.cpu());
        let wall = Instant::now();
        let graph = Arc::clone(&self.graph);
        let directory = Arc::clone(self.network.directory());
        let (seed, nodes) = (self.treasury.seed(), self.network.nodes());
        let mut lottery = Lottery::new(seed, (&graph, &snapshot), &directory, nodes, self.args);
        let mut live: BTreeMap<u64, (Draw, u64)> = BTreeMap::new();
        let (mut next, mut done) = (0, 0);
        let mut ticks = Ticks::new(self.exec.now());
        while done < wanted {
            while next < wanted && live.len() < self.args.in_flight {
                let draw = lottery.draw(next, 0)?;
                self.hand_over(next, 0, &draw);
                live.insert(next, (draw, 0));
                next += 1;
            }
            match self.next_ticking(STAGE, done, wanted, &mut ticks)? {
                Notice::Outcome(outcome) => {
                    let Some((draw, redraw)) = live.remove(&outcome.payment) else { continue };
                    if outcome.end == End::NoFaultyRoute && redraw < REDRAWS_MAX {
                        let again = lottery.draw(outcome.payment, redraw + 1)?;
                        self.hand_over(outcome.payment, redraw + 1, &again);
                        live.insert(outcome.payment, (again, redraw + 1));
                        continue;
                    }
                    done += 1;
                    self.resolved(&draw, &outcome, begun);
                    bar.inc(1);
                }
                Notice::Refused { payment_hash, scid, amount, available } => {
                    self.tally.refused(payment_hash, scid, amount, available);
                }
                _ => {}
            }
        }
        self.paying = wall.elapsed();
        self.cpu = self.exec.cpu().zip(cpu).map(|(after, before)| after.saturating_sub(before));
        bar.finish();
        Ok(())
    }

    /// The next notice of a stage in which payments may wait at their payee for parts that do not come: time passes for the
    /// nodes then, though nothing else happens.
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
    fn hand_over(&mut self, payment: u64, redraw: u64, draw: &Draw) {
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

    fn resolved(&mut self, draw: &Draw, outcome: &Outcome, begun: Duration) {
        let at = self.exec.now().saturating_sub(begun);
        if outcome.end == End::Succeeded {
            let parts = outcome.payer.settled.iter();
            let hops = parts.map(|part| u32::try_from(part.route.hops.len()).unwrap_or(u32::MAX));
            self.metrics.succeeded(at, outcome.latency, hops);
        } else {
            self.metrics.failed(at);
        }
        self.tally.resolved(draw.fault, outcome);
    }

    /// Closes every channel by agreement and mines the closings.
    fn close(&mut self) -> Result<(), RunError> {
        const STAGE: &str = "closing channels";
        let wanted = self.channels.len() as u64;
        let bar = self.progress.bar("closing", wanted);
        for (channel, opened) in self.network.channels().iter().zip(&self.channels) {
            let Some(channel_id) = opened.id else { continue };
            let close = Command::CloseChannel { channel_id, script: None };
            self.exec.post(channel.opener, Work::Command(Box::new(close)));
        }
        let (mut closed, mut broadcast) = (0, HashSet::new());
        while closed < 2 * wanted || (broadcast.len() as u64) < wanted {
            match self.next(STAGE, closed / 2, wanted)? {
                Notice::ChannelClosed { node, channel_id, balance } => {
                    closed += 1;
                    if let Some(index) = self.by_id.get(&channel_id) {
                        let acceptor = usize::from(self.network.channels()[*index].acceptor == node);
                        self.channels[*index].balances[acceptor] = balance;
                    }
                }
                Notice::Broadcast(transaction) => {
                    self.treasury.broadcast(&transaction, "closing a channel")?;
                    if broadcast.insert(transaction.compute_txid()) {
                        bar.inc(1);
                    }
                }
                Notice::Refused { payment_hash, scid, amount, available } => {
                    self.tally.refused(payment_hash, scid, amount, available);
                }
                _ => {}
            }
        }
        let blocks = self.treasury.mine(1)?;
        self.tell(&blocks);
        bar.finish();
        Ok(())
    }

    /// Checks the funds and writes everything down.
    fn finish(self, begun: Instant) -> Result<Report, RunError> {
        let workers = self.workers();
        let Run { args, network, treasury, exec, channels, tally, metrics, cpu, paying, stages, .. } = self;
        let peers = exec.finish().map_err(|cause| RunError::Stalled {
            stage: "ending",
            cause,
            done: 0,
            wanted: 0,
        })?;
        let books = books(&network, &channels);
        let funds = check_funds(&treasury, &peers, &books);
        let digest =
            RunDigest { fates: tally.fates(), channels: &books, funds: &funds, txids: treasury.txids() }
                .hex();
        let forwards: u64 = peers.iter().map(|peer| peer.ledger().forwards).sum();
        let seconds = paying.as_secs_f64().max(1e-9);
        let cpu = cpu.map(|cpu| cpu.as_secs_f64());
        Ok(Report {
            schema: report::SCHEMA,
            version: env!("CARGO_PKG_VERSION"),
            seed: args.seed,
            settings: settings(args, workers),
            topology: report::Topology {
                spec: args.topology.clone(),
                nodes: network.nodes() as u64,
                channels: channels.len() as u64,
                capacity_sat: network.capacity().0,
            },
            chain: report::ChainFigures {
                backend: args.chain.to_string(),
                blocks: treasury.blocks(),
                channels_opened: treasury.audit().channels_opened(),
                channels_closed: treasury.audit().channels_closed(),
            },
            payments: tally.payments(),
            parts: tally.parts(),
            faulty: tally.faulty(),
            forwards,
            fees_earned_msat: peers.iter().map(|peer| peer.ledger().earned).sum::<Msat>().0,
            hops: metrics.hops(),
            throughput: report::Throughput {
                payments_per_s: args.payments as f64 / seconds,
                forwards_per_s: forwards as f64 / seconds,
            },
            latency_us: metrics.latency(),
            learning: None,
            funds,
            crypto: peers.iter().map(Peer::crypto).fold(Crypto::default(), Crypto::plus),
            cpu: report::Cpu {
                nodes_s: cpu,
                us_per_forward: cpu.filter(|_| forwards > 0).map(|cpu| cpu * 1e6 / forwards as f64),
            },
            digest,
            stages,
            wall_s: begun.elapsed().as_secs_f64(),
            plots: report::Plots {
                latency: metrics.latency_buckets(),
                timeline: metrics.timeline(),
                edges: edges(&network),
            },
        })
    }
}

/// When the nodes were last told that time has passed.
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

/// How often nodes are told that time has passed.
const TICK: Duration = Duration::from_secs(1);
/// After how many ticks without a notice a run is stalled: payees wait for ten, and then more may be tried.
const TICKS_IN_SILENCE_MAX: u32 = 60;

/// The channels as the funds check needs them.
fn books(network: &Network, channels: &[Opened]) -> Vec<ChannelBooks> {
    let pairs = network.channels().iter().zip(channels);
    pairs
        .map(|(planned, opened)| ChannelBooks {
            opener: planned.opener,
            acceptor: planned.acceptor,
            push: planned.push,
            closing_balances: opened.balances[0].zip(opened.balances[1]).map(|(one, other)| [one, other]),
        })
        .collect()
}

/// Both halves of the funds check, and that no node still holds anything.
fn check_funds(treasury: &Treasury, peers: &[Peer], books: &[ChannelBooks]) -> report::Funds {
    let ledgers: Vec<_> = peers.iter().map(|peer| peer.ledger().clone()).collect();
    let mut funds = accounting::check(treasury.audit(), &ledgers, books);
    for (node, peer) in peers.iter().enumerate().filter(|(_, peer)| peer.unresolved() > 0) {
        funds.conserved = false;
        funds.findings.push(format!("node {node} still holds {} HTLCs or payments", peer.unresolved()));
    }
    funds
}

/// How often a faulty payment is drawn again before it counts as not causable.
const REDRAWS_MAX: u64 = 80;
const _: () = assert!(REDRAWS_MAX < DRAWS_PER_PAYMENT);
/// Networks with more channels are not drawn.
const EDGES_MAX: usize = 3_000;

/// The channels to draw; none for a network too large for it.
fn edges(network: &Network) -> Vec<report::Edge> {
    if network.channels().len() > EDGES_MAX {
        return Vec::new();
    }
    let index = |node: usize| u32::try_from(node).unwrap_or(u32::MAX);
    let edge = |channel: &network::PlannedChannel| report::Edge {
        a: index(channel.opener),
        b: index(channel.acceptor),
        capacity_sat: channel.capacity.0,
    };
    network.channels().iter().map(edge).collect()
}

fn settings(args: &RunArgs, workers: usize) -> report::Settings {
    report::Settings {
        payments: args.payments,
        in_flight: args.in_flight as u64,
        amount_min_msat: args.amount_msat.min.0,
        amount_max_msat: args.amount_msat.max.0,
        faulty_share: args.faulty,
        attempts: args.attempts,
        max_parts: args.max_parts as u64,
        hidden_liquidity: args.hidden_liquidity,
        deterministic: args.deterministic,
        workers: workers as u64,
    }
}
