//! The course of a stress run: open, load, kill, check, close.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bitcoin::consensus::{deserialize, serialize};
use bitcoin::secp256k1::Secp256k1;
use crossbeam::channel::{Receiver, RecvTimeoutError};
use fulmen::chain::ChainEvent;
use fulmen::driver::ShardDriver;
use fulmen::pay::{PaymentId, PaymentLimits, PaymentRequest};
use fulmen_graph::Direction;
use fulmen_graph::path::{Limits, PathHop};
use fulmen_proto::forward::{Command, ExpectedPayment, ForwardingPolicy, Now};
use fulmen_proto::keys::NodeSeed;
use fulmen_wire::units::{BlockHeight, Msat, NodeId};
use rand::RngExt;
use rand_chacha::ChaCha20Rng;

use super::StressError;
use super::deliveries::{Deliveries, EventCounts};
use super::end::{End, Notice};
use super::forwarder::Start;
use super::frame::Frame;
use super::life::Life;
use super::report::{Crash, Forwarder, Payments, Plots, Settings, StressReport};
use crate::accounting::{self, ChannelBooks, Ledger};
use crate::cli::StressArgs;
use crate::fault;
use crate::metrics::Metrics;
use crate::network::{FUNDING_BLOCKS, FUNDING_MARGIN, node_config};
use crate::paying::FINAL_CLTV_DELTA;
use crate::report::{self, ChainFigures, Stage, Throughput};
use crate::seed::Purpose;
use crate::stage::StageClock;
use crate::treasury::Treasury;

/// Blocks more than asked that an HTLC gets: one is mined at every death, and all see it at their own time.
const EXPIRY_MARGIN_BLOCKS: u32 = 12;
/// How long anything that is waited for may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long the driver waits for the forwarder's next word before it looks at the clock.
const LISTEN: Duration = Duration::from_millis(2);
/// How often the forwarder is asked for its account.
const ASK: Duration = Duration::from_millis(100);
/// How many of the forwarder's words are taken up before the peers go on.
const FRAMES_MAX: usize = 512;
/// How often, of ten, a forwarder that is recovering is killed again.
const AGAIN_IN_TEN: u32 = 2;
/// At most so long after it was started again.
const AGAIN: Duration = Duration::from_millis(60);
/// How many findings are written down.
const FINDINGS_MAX: usize = 20;
/// How often a payer that has enough is looked for.
const DRAWS: usize = 4;

/// Runs `loadgen stress`.
///
/// # Errors
/// When the run cannot be finished. A failed check is not an error here: the report lists its findings.
pub(crate) fn run(args: &StressArgs) -> Result<StressReport, StressError> {
    if let Some(directory) = &args.report {
        report::prepare(directory)?;
    }
    let store = match &args.store {
        Some(directory) => tempfile::tempdir_in(directory),
        None => tempfile::tempdir(),
    };
    let store = store.map_err(StressError::Store)?;
    let mut course = Course::new(args, store.path().join("store"))?;
    let mut clock = StageClock::default();
    clock.time("opening", || course.open())?;
    clock.time("load", || course.load())?;
    clock.time("closing", || course.close())?;
    Ok(course.finish(clock.into_stages()))
}

/// A run in the making.
struct Course<'a> {
    args: &'a StressArgs,
    begun: Instant,
    treasury: Treasury,
    start: Start,
    forwarder_id: NodeId,
    life: Option<Life>,
    ends: Vec<End>,
    push: Vec<Msat>,
    blocks: Vec<Arc<ChainEvent>>,
    rng: ChaCha20Rng,
    payments: BTreeMap<u64, Payment>,
    next_payment: u64,
    counts: Payments,
    metrics: Metrics,
    crash: Crash,
    deliveries: Deliveries,
    /// Different events that an HTLC was forwarded.
    forwards_told: u64,
    restarts: Metrics,
    spent: Spent,
    findings: Vec<String>,
    /// Funding and closing transactions seen.
    broadcast: BTreeSet<bitcoin::Txid>,
    ready: usize,
    closed: usize,
    load: Duration,
    /// The balances of each channel's opener and acceptor when it was closed.
    balances: Vec<Option<[Msat; 2]>>,
}

/// A payment under way.
struct Payment {
    begun: Instant,
    /// Whether it was under way at a kill.
    crashed: bool,
}

/// The forwarder's resource use, summed over its lives.
#[derive(Default)]
struct Spent {
    forwards: u64,
    cpu_us: u64,
    syncs: u64,
    bytes_written: u64,
}

impl<'a> Course<'a> {
    fn new(args: &'a StressArgs, directory: PathBuf) -> Result<Course<'a>, StressError> {
        let mut treasury = Treasury::open(&args.chain, args.seed)?;
        let seed = treasury.seed();
        let coin = args.capacity_sat.saturating_add(FUNDING_MARGIN);
        let nodes = args.peers + 1;
        let blocks = treasury.fund_wallets(nodes, (1..nodes).map(|node| (node, coin)))?;
        let keys = |node: usize| seed.bytes(Purpose::NodeKeys, node as u64);
        let secret = NodeSeed::new(keys(0)).node_secret();
        let forwarder_id = NodeId(secret.public_key(&Secp256k1::signing_only()).serialize());
        let end = |node: usize| {
            let config = node_config(treasury.script_of(node).to_bytes());
            End::new(ShardDriver::new(NodeSeed::new(keys(node)), config), forwarder_id)
        };
        let mut ends: Vec<End> = (1..nodes).map(end).collect();
        for end in &mut ends {
            blocks.iter().for_each(|block| end.chain_event(block));
        }
        let mut rng = seed.rng(Purpose::Push, 0);
        let half = args.capacity_sat.to_msat().0 / 2;
        let push = (0..args.peers).map(|_| Msat(half - rng.random_range(0..100_000))).collect();
        let script = treasury.script_of(0).to_bytes();
        let start = Start { seed: keys(0), script, directory, workers: args.workers };
        Ok(Course {
            args,
            begun: Instant::now(),
            start,
            forwarder_id,
            life: None,
            ends,
            push,
            blocks,
            rng: seed.rng(Purpose::Crash, 0),
            payments: BTreeMap::new(),
            next_payment: 0,
            counts: Payments::default(),
            metrics: Metrics::new(),
            crash: Crash::default(),
            deliveries: Deliveries::default(),
            forwards_told: 0,
            restarts: Metrics::new(),
            spent: Spent::default(),
            findings: Vec::new(),
            broadcast: BTreeSet::new(),
            ready: 0,
            closed: 0,
            load: Duration::ZERO,
            balances: vec![None; args.peers],
            treasury,
        })
    }

    /// Opens a channel from every peer to the forwarder.
    fn open(&mut self) -> Result<(), StressError> {
        const WHEN: &str = "opening channels";
        self.awaken(WHEN)?;
        for (end, push) in self.ends.iter_mut().zip(&self.push) {
            end.open(self.args.capacity_sat, *push);
        }
        let wanted = self.ends.len();
        self.until(WHEN, |course| course.broadcast.len() == wanted)?;
        let blocks = self.treasury.confirm()?;
        self.follow(blocks)?;
        self.mine(FUNDING_BLOCKS - 1)?;
        self.until(WHEN, |course| course.ready == wanted)?;
        self.broadcast.clear();
        self.settle(WHEN)
    }

    /// Payments for as long as asked, with deaths in between.
    fn load(&mut self) -> Result<(), StressError> {
        const WHEN: &str = "paying";
        let end = Instant::now() + self.args.duration;
        let mut next_kill = self.next_kill();
        let mut asked = Instant::now();
        let mut resumed = Instant::now();
        while Instant::now() < end {
            self.top_up();
            self.pump(WHEN)?;
            if next_kill.is_some_and(|kill| Instant::now() >= kill) {
                self.load += resumed.elapsed();
                self.crash()?;
                next_kill = self.next_kill();
                resumed = Instant::now();
            }
            if asked.elapsed() >= ASK {
                asked = Instant::now();
                self.say(WHEN, &Frame::Ask)?;
            }
        }
        self.load += resumed.elapsed();
        self.settle(WHEN)?;
        self.check();
        Ok(())
    }

    /// The next death: somewhere between a fifth and nine fifths of the time asked for, so that it hits anything.
    fn next_kill(&mut self) -> Option<Instant> {
        let every = self.args.kill_every?;
        Some(Instant::now() + every.mul_f64(self.rng.random_range(0.2..1.8)))
    }

    /// One death or more, recovery, and the checks.
    fn crash(&mut self) -> Result<(), StressError> {
        const WHEN: &str = "recovering from a kill";
        self.kill()?;
        self.awaken(WHEN)?;
        while self.rng.random_ratio(AGAIN_IN_TEN, 10) {
            let again = Instant::now() + AGAIN.mul_f64(self.rng.random_range(0.0..1.0));
            while Instant::now() < again {
                self.pump(WHEN)?;
            }
            self.crash.kills_in_recovery += 1;
            self.kill()?;
            self.awaken(WHEN)?;
        }
        self.settle(WHEN)?;
        self.check();
        Ok(())
    }

    /// Kills the forwarder. The frames it had written are delivered to the peers, or lost with the connections.
    fn kill(&mut self) -> Result<(), StressError> {
        let Some(life) = self.life.take() else { return Ok(()) };
        self.spent.add(&life);
        let said = life.kill();
        self.deliveries.killed(Instant::now());
        self.crash.kills += 1;
        for payment in self.payments.values_mut().filter(|payment| !payment.crashed) {
            payment.crashed = true;
            self.crash.in_flight_at_kill += 1;
        }
        let delivered = self.rng.random_bool(0.5);
        for frame in said {
            if delivered || !matches!(frame, Frame::Message { .. }) {
                self.hear(frame)?;
            }
        }
        for index in 0..self.ends.len() {
            let now = self.now();
            for notice in self.ends[index].disconnected(now) {
                self.notice(index, notice)?;
            }
        }
        self.mine(1)
    }

    /// Starts the forwarder, sends it the blocks it has missed, and connects it to every peer.
    fn awaken(&mut self, when: &'static str) -> Result<(), StressError> {
        let begun = Instant::now();
        let mut life = Life::start(&self.start).map_err(|cause| StressError::Forwarder { when, cause })?;
        if self.crash.kills > 0 {
            self.restarts.succeeded(self.begun.elapsed(), begun.elapsed(), [1].into_iter());
        }
        let missed = self.blocks.iter().filter_map(|event| block_frame(event, life.height));
        let mut frames: Vec<Frame> = missed.collect();
        for end in &mut self.ends {
            frames.push(Frame::Connect { peer: end.node.id(), init: end.node.init() });
            if let Err(error) = end.node.connected(self.forwarder_id, &life.init) {
                self.findings.push(format!("{when}: a peer does not take the forwarder's init: {error}"));
            }
        }
        for frame in &frames {
            life.send(frame).map_err(|cause| StressError::Forwarder { when, cause })?;
        }
        let delivered_again = std::mem::take(&mut life.delivered_again);
        self.life = Some(life);
        for event in delivered_again {
            self.hear(event)?;
        }
        self.pump(when)
    }

    /// Makes payments until enough are under way.
    fn top_up(&mut self) {
        while self.payments.len() < self.args.in_flight {
            if let Err(what) = self.pay() {
                self.find(what);
                return;
            }
        }
    }

    fn pay(&mut self) -> Result<(), String> {
        let number = self.next_payment;
        self.next_payment += 1;
        let seed = self.treasury.seed();
        let mut rng = seed.rng(Purpose::Payment, number);
        let amount = Msat(rng.random_range(self.args.amount_msat.min.0..=self.args.amount_msat.max.0));
        let policy = ForwardingPolicy::default();
        let sent = amount.saturating_add(policy.fee(amount));
        let mut from = rng.random_range(0..self.ends.len());
        for _ in 0..DRAWS {
            if self.ends[from].spendable() >= sent {
                break;
            }
            from = rng.random_range(0..self.ends.len());
        }
        let to = (from + rng.random_range(1..self.ends.len())) % self.ends.len();
        let (payment_hash, payment_secret) = (seed.payment_hash(number), seed.payment_secret(number));
        let expiry = BlockHeight(self.height().0 + EXPIRY_MARGIN_BLOCKS).saturating_add(FINAL_CLTV_DELTA);
        let scid = |end: &End| end.scid().ok_or("a channel has no place in the chain");
        let ids = [self.ends[from].node.id(), self.forwarder_id, self.ends[to].node.id()];
        let hop = |nodes: [NodeId; 2], scid, amount, cltv_expiry| PathHop {
            from: nodes[0],
            to: nodes[1],
            scid,
            direction: if nodes[0] < nodes[1] { Direction::OneToTwo } else { Direction::TwoToOne },
            amount,
            cltv_expiry,
            fee: Msat::ZERO,
        };
        let hops = vec![
            hop(
                [ids[0], ids[1]],
                scid(&self.ends[from])?,
                sent,
                expiry.saturating_add(policy.cltv_expiry_delta),
            ),
            hop([ids[1], ids[2]], scid(&self.ends[to])?, amount, expiry),
        ];
        self.ends[to].expect(ExpectedPayment {
            payment_hash,
            preimage: seed.preimage(number),
            payment_secret,
            amount: Some(amount),
            min_final_cltv_expiry_delta: FINAL_CLTV_DELTA,
            expires_at_unix_ms: u64::MAX,
        });
        let id = PaymentId::new(number).ok_or("has made too many payments")?;
        let entropy = seed.bytes(Purpose::SessionKey, number);
        let hash = (payment_hash, payment_secret);
        let request = PaymentRequest {
            limits: PaymentLimits {
                route: Limits::default(),
                parts_max: 1,
                rounds_max: 1,
                deadline_unix_ms: None,
            },
            ..PaymentRequest::new(id, ids[2], amount, hash, FINAL_CLTV_DELTA, entropy)
        };
        let route = fault::route(hops, self.height());
        self.ends[from].pay(request, route)?;
        self.counts.sent += 1;
        self.payments.insert(number, Payment { begun: Instant::now(), crashed: false });
        Ok(())
    }

    /// Runs the peers' queued work, then handles the forwarder's frames for a while.
    fn pump(&mut self, when: &'static str) -> Result<(), StressError> {
        for index in 0..self.ends.len() {
            self.work(when, index)?;
        }
        let gone = |cause| StressError::Forwarder { when, cause };
        let Some(life) = &mut self.life else { return Ok(()) };
        life.flush().map_err(gone)?;
        let (frames, is_over) = take_frames(&life.frames, LISTEN);
        for frame in frames {
            self.hear(frame)?;
        }
        if !is_over {
            for (shard, number) in self.deliveries.acknowledge(Instant::now()) {
                self.say(when, &Frame::Acknowledge { shard, number })?;
            }
        }
        if is_over {
            return Err(gone(io::Error::other("it ended by itself; its last output stands above")));
        }
        Ok(())
    }

    fn work(&mut self, when: &'static str, index: usize) -> Result<(), StressError> {
        let now = self.now();
        let peer = self.ends[index].node.id();
        loop {
            let notices = self.ends[index].work(now);
            if notices.is_empty() {
                return Ok(());
            }
            for notice in notices {
                match notice {
                    Notice::Send(bytes) => self.say(when, &Frame::Message { peer, bytes })?,
                    notice => self.notice(index, notice)?,
                }
            }
        }
    }

    fn say(&mut self, when: &'static str, frame: &Frame) -> Result<(), StressError> {
        match &mut self.life {
            Some(life) => life.send(frame).map_err(|cause| StressError::Forwarder { when, cause }),
            None => Ok(()),
        }
    }

    /// Handles a frame of the forwarder.
    fn hear(&mut self, frame: Frame) -> Result<(), StressError> {
        match frame {
            Frame::Message { peer, bytes } => {
                let end = self.ends.iter_mut().find(|end| end.node.id() == peer);
                let wrong = end.and_then(|end| end.receive(&bytes));
                wrong.into_iter().for_each(|what| self.find(what));
            }
            Frame::Broadcast(bytes) => match deserialize(&bytes) {
                Ok(transaction) => self.offer(&transaction)?,
                Err(error) => self.find(format!("the forwarder broadcasts no transaction: {error}")),
            },
            Frame::Account(json) => match (serde_json::from_slice(&json), &mut self.life) {
                (Ok(account), Some(life)) => life.account = account,
                (Ok(_), None) => {}
                (Err(error), _) => self.find(format!("the forwarder's account: {error}")),
            },
            Frame::ForceClose(text) => self.force_closed(format!("the forwarder: {text}")),
            Frame::Trouble(text) => self.find(format!("the forwarder: {text}")),
            Frame::Event { shard, number, is_forward } => {
                let is_new = self.deliveries.deliver(shard, number);
                self.forwards_told += u64::from(is_new && is_forward);
            }
            other => self.find(format!("the forwarder said {other:?}")),
        }
        Ok(())
    }

    /// Handles an event of a peer.
    fn notice(&mut self, index: usize, notice: Notice) -> Result<(), StressError> {
        match notice {
            Notice::Send(_) => {}
            Notice::FundingNeeded { temporary_channel_id, amount, script } => {
                let transaction = self.treasury.fund(index + 1, index, &script, amount)?;
                let command = Command::FundingTransaction { temporary_channel_id, transaction };
                self.ends[index].node.command(command);
            }
            Notice::Ready => self.ready += 1,
            Notice::Closed => {
                self.closed += 1;
                let id = self.ends[index].channel().map(|channel| channel.id().0);
                let own = self.ends[index].channel().and_then(|channel| channel.balances());
                let accounts = self.life.iter().flat_map(|life| &life.account.channels);
                let other = accounts.into_iter().find(|account| Some(account.id) == id);
                self.balances[index] = own.zip(other).map(|((own, _), other)| [own, Msat(other.local_msat)]);
            }
            Notice::Broadcast(transaction) => self.offer(&transaction)?,
            Notice::Settled(number) => self.resolved(number, None),
            Notice::Failed(number, reason) => self.resolved(number, Some(reason)),
            Notice::ForceClose(text) => self.force_closed(format!("peer {index}: {text}")),
            Notice::Trouble(text) => self.find(format!("peer {index}: {text}")),
        }
        Ok(())
    }

    /// Offers the chain a transaction once: both sides of a channel broadcast its closing, and a restart repeats.
    fn offer(&mut self, transaction: &bitcoin::Transaction) -> Result<(), StressError> {
        let known = self.treasury.txids().contains(&transaction.compute_txid());
        if !known && self.broadcast.insert(transaction.compute_txid()) {
            self.treasury.broadcast(transaction, "a transaction of the run")?;
        }
        Ok(())
    }

    fn resolved(&mut self, number: u64, failure: Option<String>) {
        let Some(payment) = self.payments.remove(&number) else {
            self.find(format!("payment {number} was resolved twice"));
            return;
        };
        self.crash.resolved += u64::from(payment.crashed);
        match failure {
            None => {
                self.counts.succeeded += 1;
                self.metrics.succeeded(self.begun.elapsed(), payment.begun.elapsed(), [2].into_iter());
            }
            Some(reason) => {
                self.counts.failed += 1;
                *self.counts.failures.entry(reason).or_default() += 1;
                self.metrics.failed(self.begun.elapsed());
            }
        }
    }

    fn force_closed(&mut self, what: String) {
        self.crash.force_closes += 1;
        self.find(what);
    }

    fn find(&mut self, what: String) {
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(what);
        }
    }

    /// Waits until nothing is under way at either end of any channel; payments that remain count as lost.
    fn settle(&mut self, when: &'static str) -> Result<(), StressError> {
        let quiet =
            |course: &mut Course<'_>| course.payments.is_empty() && course.ends.iter().all(End::is_quiet);
        match self.until(when, quiet) {
            Err(StressError::Stalled { .. }) => {
                let lost = self.payments.len();
                self.find(format!(
                    "{when}: {lost} payments are not resolved, or a channel does not come to rest"
                ));
                self.crash.lost += lost as u64;
                self.payments.clear();
            }
            other => other?,
        }
        // The forwarder says of itself that nothing is under way, and says so of this moment.
        for _ in 0..PATIENCE.as_millis() / LISTEN.as_millis() {
            if let Some(life) = &mut self.life {
                life.account.channels.clear();
            }
            self.say(when, &Frame::Ask)?;
            self.until(when, |course| course.life.iter().all(|life| !life.account.channels.is_empty()))?;
            if self.life.iter().all(|life| life.is_at_rest()) {
                return Ok(());
            }
        }
        self.find(format!("{when}: the forwarder does not come to rest"));
        Ok(())
    }

    /// Checks every channel's balances at both ends against the sum of its payments.
    fn check(&mut self) {
        self.crash.checks += 1;
        let mut findings = Vec::new();
        for (index, end) in self.ends.iter().enumerate() {
            let capacity = self.args.capacity_sat.to_msat();
            let Ledger { received, paid, .. } = end.ledger;
            let expected = (capacity.0 - self.push[index].0 + received.0).checked_sub(paid.0);
            let own = end.channel().and_then(|channel| channel.balances());
            let id = end.channel().map(|channel| channel.id().0);
            let accounts = self.life.iter().flat_map(|life| &life.account.channels);
            let others = accounts.into_iter().find(|account| Some(account.id) == id);
            let other = others.map(|account| (Msat(account.remote_msat), Msat(account.local_msat)));
            let wanted = expected.map(|own| (Msat(own), Msat(capacity.0 - own)));
            if wanted.is_none() || own != wanted || other != wanted {
                let kills = self.crash.kills;
                findings.push(format!(
                    "after {kills} kills, channel of peer {index}: payments make it {wanted:?}, the peer has {own:?}, \
                     the forwarder {other:?}"
                ));
            }
        }
        findings.extend(self.check_events());
        findings.into_iter().for_each(|finding| self.find(finding));
    }

    /// Checks that no durable event is missing: with nothing under way, each payment that succeeded was forwarded once.
    fn check_events(&self) -> Option<String> {
        let EventCounts { missing, after_acknowledgement, .. } = self.deliveries.counts;
        let (told, succeeded) = (self.forwards_told, self.counts.succeeded);
        let is_sound = missing == 0 && after_acknowledgement == 0 && told == succeeded;
        (!is_sound).then(|| {
            format!(
                "after {} kills, events tell of {told} forwards of {succeeded}; {missing} events are missing, \
                 {after_acknowledgement} came again after their acknowledgement was durable",
                self.crash.kills
            )
        })
    }

    /// Closes every channel by agreement and mines the closings.
    fn close(&mut self) -> Result<(), StressError> {
        const WHEN: &str = "closing channels";
        self.ends.iter_mut().for_each(End::close);
        let wanted = self.ends.len();
        self.until(WHEN, |course| course.closed == wanted && course.broadcast.len() == wanted)?;
        let blocks = self.treasury.confirm()?;
        self.follow(blocks)?;
        if let Some(life) = self.life.take() {
            self.spent.add(&life);
            life.stop().map_err(|cause| StressError::Forwarder { when: WHEN, cause })?;
        }
        Ok(())
    }

    fn until(
        &mut self,
        when: &'static str,
        mut done: impl FnMut(&mut Course<'a>) -> bool,
    ) -> Result<(), StressError> {
        let begun = Instant::now();
        while !done(self) {
            if begun.elapsed() > PATIENCE {
                let what =
                    format!("{} payments and {} channels are not done", self.payments.len(), self.ends.len());
                return Err(StressError::Stalled { when, what, seconds: PATIENCE.as_secs() });
            }
            self.pump(when)?;
        }
        Ok(())
    }

    /// Mines, and hands the blocks to the peers and a running forwarder.
    fn mine(&mut self, blocks: u32) -> Result<(), StressError> {
        let blocks = self.treasury.mine(blocks)?;
        self.follow(blocks)
    }

    fn follow(&mut self, blocks: Vec<Arc<ChainEvent>>) -> Result<(), StressError> {
        for event in blocks {
            self.ends.iter_mut().for_each(|end| end.chain_event(&event));
            if let Some(frame) = block_frame(&event, BlockHeight(0)) {
                self.say("mining", &frame)?;
            }
            self.blocks.push(event);
        }
        Ok(())
    }

    fn height(&self) -> BlockHeight {
        match self.blocks.last().map(|event| &**event) {
            Some(ChainEvent::Connected { height, .. }) => *height,
            _ => BlockHeight(0),
        }
    }

    fn now(&self) -> Now {
        Now { unix_ms: u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX) }
    }

    /// Checks the funds and writes everything down.
    fn finish(mut self, stages: Vec<Stage>) -> StressReport {
        let total =
            |amount: fn(&Ledger) -> Msat| self.ends.iter().map(|end| amount(&end.ledger).0).sum::<u64>();
        let (paid, received) = (total(|ledger| ledger.paid), total(|ledger| ledger.received));
        // The forwarder's own count of its fees dies with it: they must equal the difference between paid and received.
        let earned = Msat(paid.saturating_sub(received));
        let forwarder = Ledger { earned, forwards: self.counts.succeeded, ..Ledger::default() };
        let mut ledgers = vec![forwarder];
        ledgers.extend(self.ends.iter().map(|end| end.ledger.clone()));
        let books: Vec<ChannelBooks> = self
            .push
            .iter()
            .zip(&self.balances)
            .enumerate()
            .map(|(index, (push, balances))| ChannelBooks {
                opener: index + 1,
                acceptor: 0,
                push: *push,
                closing_balances: *balances,
            })
            .collect();
        let mut funds = accounting::check(self.treasury.audit(), &ledgers, &books);
        funds.conserved &= self.findings.is_empty();
        funds.findings.append(&mut self.findings);
        self.crash.restart_us = self.restarts.latency();
        self.crash.events = self.deliveries.counts;
        let args = self.args;
        let seconds = self.load.as_secs_f64().max(1e-9);
        StressReport {
            schema: report::SCHEMA,
            version: env!("CARGO_PKG_VERSION"),
            seed: args.seed,
            settings: settings(args),
            chain: ChainFigures {
                backend: args.chain.to_string(),
                blocks: self.treasury.blocks(),
                channels_opened: self.treasury.audit().channels_opened(),
                channels_closed: self.treasury.audit().channels_closed(),
            },
            throughput: Throughput {
                payments_per_s: (self.counts.succeeded + self.counts.failed) as f64 / seconds,
                forwards_per_s: self.counts.succeeded as f64 / seconds,
            },
            payments: self.counts,
            forwards: self.spent.forwards,
            latency_us: self.metrics.latency(),
            crash: self.crash,
            forwarder: self.spent.per_forward(),
            funds,
            stages,
            wall_s: self.begun.elapsed().as_secs_f64(),
            plots: Plots { latency: self.metrics.latency_buckets(), timeline: self.metrics.timeline() },
        }
    }
}

impl Spent {
    fn add(&mut self, life: &Life) {
        self.forwards += life.account.forwards;
        self.cpu_us += life.account.cpu_us;
        self.syncs += life.account.syncs;
        self.bytes_written += life.account.bytes_written;
    }

    fn per_forward(&self) -> Forwarder {
        let each = |total: u64| if self.forwards == 0 { 0.0 } else { total as f64 / self.forwards as f64 };
        Forwarder {
            cpu_us_per_forward: each(self.cpu_us),
            syncs_per_forward: each(self.syncs),
            bytes_per_forward: each(self.bytes_written),
        }
    }
}

/// The frames that have arrived, at most [`FRAMES_MAX`], waiting for the first one for at most `wait`; and whether
/// there will be no more. Frames beyond the limit stay in the channel.
fn take_frames(frames: &Receiver<Frame>, wait: Duration) -> (Vec<Frame>, bool) {
    match frames.recv_timeout(wait) {
        Ok(first) => (std::iter::once(first).chain(frames.try_iter().take(FRAMES_MAX - 1)).collect(), false),
        Err(error) => (Vec::new(), error == RecvTimeoutError::Disconnected),
    }
}

/// The frame of a block above `height`, for the forwarder.
fn block_frame(event: &ChainEvent, height: BlockHeight) -> Option<Frame> {
    match event {
        ChainEvent::Connected { height: at, block } if *at > height => {
            Some(Frame::Block { height: *at, bytes: serialize(&**block) })
        }
        _ => None,
    }
}

fn settings(args: &StressArgs) -> Settings {
    Settings {
        duration_s: args.duration.as_secs_f64(),
        kill_every_s: args.kill_every.map(|every| every.as_secs_f64()),
        peers: args.peers as u64,
        capacity_sat: args.capacity_sat.0,
        in_flight: args.in_flight as u64,
        amount_min_msat: args.amount_msat.min.0,
        amount_max_msat: args.amount_msat.max.0,
        workers: args.workers.map(|workers| workers as u64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crossbeam::channel::unbounded;

    #[test]
    fn no_frame_is_lost_or_reordered_however_many_arrive_at_once() {
        let (sender, receiver) = unbounded();
        for number in 0..10_000_u32 {
            sender.send(Frame::Trouble(number.to_string())).unwrap();
        }
        drop(sender);
        let mut taken = Vec::new();
        loop {
            let (frames, is_over) = take_frames(&receiver, Duration::ZERO);
            assert!(frames.len() <= FRAMES_MAX);
            taken.extend(frames.into_iter().map(|frame| match frame {
                Frame::Trouble(text) => text,
                other => panic!("{other:?} was not sent"),
            }));
            if is_over {
                break;
            }
        }
        assert!(taken.into_iter().eq((0..10_000).map(|number: u32| number.to_string())));
    }
}
