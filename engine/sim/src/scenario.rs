//! A run: a network drawn from the seed, traffic under faults, healing, and the end of every channel.
//!
//! Owns the order of events, and the checks at rest. Does not execute the steps; `network` does.
//!
//! Checks at rest: nothing is in flight, both ends of a channel agree with the ledger to the millisatoshi, each
//! node's totals balance, every attempt has ended, each payment was received exactly by the attempts that settled,
//! every channel carries an HTLC again, all close, and the closing transactions pay the ledger's balances.

use fulmen_proto::channel::{Side, State};
use fulmen_proto::commitment::ChannelType;
use fulmen_proto::forward::{ChannelRef, Command, ForwardingPolicy, NodeConfig, Now, OpenChannelRequest};
use fulmen_wire::units::{ChainHash, CltvDelta, FeeratePerKw, Msat, Sat};

use crate::draw::Draw;
use crate::flow::End;
use crate::ledger::{ChannelFacts, check_closing};
use crate::network::{LinkFaults, Network, Step, UserAction};
use crate::trace::Trace;
use crate::violation::{RunFailure, Violation, ensure, violation};

/// How to run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Whether to print the trace during the run.
    pub echo: bool,
}

/// The counters of a run without violations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// A digest over every step, message and event.
    pub digest: [u8; 32],
    /// How long it took in virtual time.
    pub virtual_ms: u64,
    /// Nodes.
    pub nodes: usize,
    /// Channels.
    pub channels: usize,
    /// HTLCs that senders offered, and how many of them were fulfilled.
    pub attempts: (usize, usize),
    /// HTLCs carried on and fulfilled.
    pub forwards: u64,
    /// Messages written.
    pub messages: u64,
    /// Times that a link broke.
    pub disconnects: u64,
    /// Times that a node died and started again.
    pub crashes: u64,
    /// Fee changes asked for.
    pub fee_changes: u64,
}

/// Runs the network that a seed stands for.
///
/// # Errors
/// With the first violation a checker finds.
pub fn run(seed: u64, options: Options) -> Result<Report, Box<RunFailure>> {
    let _guard = SeedOnPanic(seed);
    let mut run = Run::new(Draw::new(seed), NODES_MAX, options);
    run.finish(seed)
}

/// Runs a network of at most `nodes_max` nodes, at least 2, whose choices (sizes, payments, faults and their times) are
/// the bytes, and after them those of a fixed seed.
///
/// # Errors
/// With the first violation a checker finds, under seed 0.
pub fn run_choices(choices: &[u8], nodes_max: u64, options: Options) -> Result<Report, Box<RunFailure>> {
    Run::new(Draw::chosen(choices), nodes_max.max(2), options).finish(0)
}

/// Prints the seed when the code under test panics.
struct SeedOnPanic(u64);

impl Drop for SeedOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("panic in the run of seed {}", self.0);
        }
    }
}

struct Run {
    network: Network,
    /// How long traffic lasts.
    traffic_ms: u64,
    /// Whether everything stays fine, so that faults and their absence are both covered.
    fault_free: bool,
    nodes_max: u64,
}

/// The most nodes of a run that a seed stands for.
const NODES_MAX: u64 = 5;

impl Run {
    fn new(mut draw: Draw, nodes_max: u64, options: Options) -> Run {
        let faults = LinkFaults {
            enabled: false,
            uptime_ms: draw.pick(&[500, 3_000, 20_000]),
            downtime_ms: draw.pick(&[20, 400, 4_000]),
            slow_percent: draw.pick(&[0, 2, 10]),
            block_delay_ms: draw.pick(&[300, 10_000]),
            crash_percent: draw.pick(&[0, 1, 5]),
        };
        let traffic_ms = draw.between(2_000, 30_000);
        let fault_free = draw.percent(10);
        let network = Network::new(draw, faults, Trace::new(options.echo));
        Run { network, traffic_ms, fault_free, nodes_max }
    }

    fn finish(&mut self, seed: u64) -> Result<Report, Box<RunFailure>> {
        match self.run() {
            Ok(()) => Ok(self.report()),
            Err(violation) => Err(Box::new(RunFailure {
                seed,
                at_ms: self.network.agenda.now_ms(),
                violation,
                tail: self.network.trace.tail(),
            })),
        }
    }

    fn run(&mut self) -> Result<(), Violation> {
        self.draw_nodes();
        self.open_channels()?;
        self.traffic()?;
        self.heal()?;
        self.check_rest()?;
        self.use_every_channel()?;
        self.close_everything()?;
        self.check_ends()
    }

    fn report(&self) -> Report {
        let network = &self.network;
        let settled = network.flow.attempts.iter().filter(|attempt| attempt.end == Some(End::Fulfilled));
        Report {
            digest: network.trace.digest(),
            virtual_ms: network.agenda.now_ms(),
            nodes: network.nodes.len(),
            channels: network.channels.len(),
            attempts: (network.flow.attempts.len(), settled.count()),
            forwards: network.counts.forwards,
            messages: network.counts.messages,
            disconnects: network.counts.disconnects,
            crashes: network.counts.crashes,
            fee_changes: network.counts.fee_changes,
        }
    }

    fn draw_nodes(&mut self) {
        let nodes = self.network.draw.between(2, self.nodes_max);
        // A peer whose limit is lower may fail a channel over an `update_fee` that its opener finds harmless (BOLT 2).
        let max_dust_htlc_exposure = Msat(self.network.draw.pick(&[5_000_000, 50_000_000]));
        for node in 0..nodes {
            let draw = &mut self.network.draw;
            let mut config = NodeConfig::new(ChainHash::REGTEST, script_of(node as usize));
            config.feerate = FeeratePerKw(draw.pick(&[253, 1_000, 2_500]));
            config.mpp_timeout_ms = draw.pick(&[3_000, 20_000, 60_000]);
            config.policy = ForwardingPolicy {
                fee_base: Msat(draw.between(1, 2_000)),
                fee_proportional_millionths: draw.between(0, 5_000) as u32,
                cltv_expiry_delta: CltvDelta(draw.between(10, 60) as u16),
                ..ForwardingPolicy::default()
            };
            config.anchors_only = false;
            let channel = &mut config.channel;
            channel.minimum_depth = draw.between(1, 3) as u32;
            channel.dust_limit = Sat(draw.pick(&[354, 546]));
            channel.htlc_minimum = Msat(draw.pick(&[1, 1, 1_000]));
            channel.max_accepted_htlcs = draw.pick(&[5, 30, 483]);
            channel.max_dust_htlc_exposure = max_dust_htlc_exposure;
            if draw.percent(20) {
                channel.channel_type = ChannelType::StaticRemotekey;
            }
            channel.commit_shutdown_script = draw.percent(30);
            if draw.percent(20) {
                channel.max_htlc_value_in_flight = Msat(30_000_000);
            }
            let lag_ms = draw.pick(&[0, 5, 50, 400]);
            self.network.add_node(config, lag_ms);
        }
    }

    fn open_channels(&mut self) -> Result<(), Violation> {
        let nodes = self.network.nodes.len();
        let extra = self.network.draw.between(0, 2) as usize;
        for number in 0..nodes - 1 + extra {
            let network = &mut self.network;
            // The first channels make a tree, so that everybody can be reached.
            let (one, other) = if number + 1 < nodes {
                (number + 1, network.draw.index(number + 1))
            } else {
                let one = network.draw.index(nodes);
                (one, (one + 1 + network.draw.index(nodes - 1)) % nodes)
            };
            let ends = if network.draw.percent(50) { [one, other] } else { [other, one] };
            network.link(ends);
            let capacity = Sat(network.draw.pick(&[30_000, 200_000, 1_000_000, 10_000_000]));
            let push = Msat(capacity.to_msat().0 / 100 * network.draw.pick(&[0, 5, 50, 50, 80]));
            network.channels.push(ChannelFacts::new(ends, capacity, push));
            network.commitments.push(crate::commitments::CommitmentModel::default());
        }
        for link in 0..self.network.links.len() {
            self.network.agenda.after(0, Step::Connect { link });
        }
        self.network.agenda.after(0, Step::Tick);
        self.until_quiet(10_000)?;
        for number in 0..self.network.channels.len() {
            let ChannelFacts { ends, capacity, push, .. } = self.network.channels[number];
            let peer = self.network.nodes[ends[1]].id;
            let open = OpenChannelRequest { peer, user_id: number as u64 + 1, capacity, push, policy: None };
            self.network.command(ends[0], Command::OpenChannel(open));
        }
        self.until_quiet(60_000)?;
        for (number, facts) in self.network.channels.iter().enumerate() {
            ensure!(facts.funded == [true; 2], Progress, "channel {number} is not funded: {facts:?}");
        }
        Ok(())
    }

    fn traffic(&mut self) -> Result<(), Violation> {
        let (start, length) = (self.network.agenda.now_ms(), self.traffic_ms);
        let network = &mut self.network;
        let payments = network.draw.pick(&[5, 30, 100]);
        // Most runs let the channels become ready first; in the others faults hit that too.
        let head_start = if network.draw.percent(70) { 1_000 } else { length };
        let faulty_from = if network.draw.percent(70) { start + 1_500 } else { start };
        for block in 0..3 {
            let at_ms = start + network.draw.between(0, head_start) + block;
            network.agenda.at(at_ms, Step::Mine);
        }
        let mut plan = vec![(UserAction::Pay, payments), (UserAction::Recall, 3)];
        plan.push((UserAction::ChangeFee, network.draw.pick(&[0, 5, 20])));
        plan.push((UserAction::Close, network.draw.pick(&[0, 0, 1, 3])));
        for (act, count) in plan {
            for _ in 0..count {
                let from = if act == UserAction::Close { length / 3 } else { 500 };
                let at_ms = start + network.draw.between(from, length);
                network.agenda.at(at_ms, Step::UserAction(act));
            }
        }
        for _ in 0..network.draw.between(0, 5) {
            let at_ms = start + network.draw.between(0, length);
            network.agenda.at(at_ms, Step::Mine);
        }
        self.until(faulty_from)?;
        self.network.faults.enabled = !self.fault_free;
        for link in 0..self.network.links.len() {
            let delay_ms = self.network.draw.between(0, self.network.faults.uptime_ms);
            self.network.agenda.after(delay_ms, Step::Sever { link });
        }
        self.until(start + length)
    }

    /// Ends the faults: links come up and stay, blocks arrive, everything comes to rest.
    fn heal(&mut self) -> Result<(), Violation> {
        self.network.faults.enabled = false;
        for link in 0..self.network.links.len() {
            self.network.agenda.after(0, Step::Connect { link });
        }
        for block in 0..3 {
            self.network.agenda.after(block * 500, Step::Mine);
        }
        self.until_quiet(400_000)
    }

    /// Does every step up to a time.
    fn until(&mut self, end_ms: u64) -> Result<(), Violation> {
        while self.network.agenda.now_ms() < end_ms {
            self.step()?;
        }
        Ok(())
    }

    /// Does steps until nothing but time passes.
    fn until_quiet(&mut self, most_ms: u64) -> Result<(), Violation> {
        let end_ms = self.network.agenda.now_ms() + most_ms;
        loop {
            let ticked = self.step()?;
            if ticked && self.is_quiet() {
                return Ok(());
            }
            ensure!(
                self.network.agenda.now_ms() < end_ms,
                Progress,
                "no rest within {most_ms} ms: {:?}",
                self.unfinished()
            );
        }
    }

    /// Does one step; returns whether it was a tick. All turns of a tick end before the next tick.
    fn step(&mut self) -> Result<bool, Violation> {
        let Some(step) = self.network.agenda.pop() else {
            return violation!(Progress, "nothing will ever happen again");
        };
        let tick = matches!(step, Step::Tick);
        if tick {
            self.network.agenda.after(1_000, Step::Tick);
        }
        self.network.step(step)?;
        Ok(tick)
    }

    fn is_quiet(&self) -> bool {
        let network = &self.network;
        let now = Now { unix_ms: network.agenda.now_ms() };
        let idle = |step: &Step| matches!(step, Step::Tick | Step::Turn { .. } | Step::Sever { .. });
        network.agenda.iter().all(idle)
            && !network.nodes.iter().any(|sim_node| sim_node.driver.has_work(now))
            && self.unfinished().is_empty()
    }

    /// Everything that is still in flight.
    fn unfinished(&self) -> Vec<String> {
        let mut left = Vec::new();
        for (id, attempt) in self.network.flow.attempts.iter().enumerate() {
            if attempt.end.is_none() {
                left.push(format!("attempt {id}: {:?}", attempt.hops));
            }
        }
        for (node, sim_node) in self.network.nodes.iter().enumerate() {
            let held = sim_node.driver.occupancy();
            if (held.circuits, held.offered, held.incomplete_sets) != (0, 0, 0) {
                left.push(format!("node {node}: {held:?}"));
            }
            for channel in sim_node.driver.shard().channels() {
                let state = channel.state();
                if channel.htlcs().next().is_some() || channel.is_settling() {
                    left.push(format!("node {node}: channel {:?} is not at rest ({state:?})", channel.id()));
                }
                if matches!(state, State::ShuttingDown | State::Negotiating) {
                    left.push(format!("node {node}: channel {:?} is {state:?}", channel.id()));
                }
            }
        }
        left
    }

    fn check_rest(&self) -> Result<(), Violation> {
        let network = &self.network;
        for (number, facts) in network.channels.iter().enumerate() {
            let channel_id = facts.channel_id.map(ChannelRef::Id);
            for end in 0..2 {
                let node = facts.ends[end];
                let channel = channel_id.and_then(|id| network.nodes[node].driver.shard().channel(id));
                let Some(channel) = channel else {
                    return violation!(Progress, "node {node} lost channel {number}");
                };
                let usable = channel.is_usable() && facts.ready[end];
                let over = facts.closing && facts.closed == [facts.closed[0]; 2] && facts.closed[0].is_some();
                ensure!(
                    usable || over,
                    Progress,
                    "channel {number} is {:?} at node {node}, and not usable",
                    channel.state()
                );
                let expected = facts.first(end) + network.flow.change(number, node);
                let ours = channel.balances().map(|(ours, _)| i128::from(ours.0));
                ensure!(
                    ours == Some(expected),
                    Money,
                    "node {node} has {ours:?} in channel {number}, its attempts make {expected}"
                );
            }
        }
        self.check_payments()?;
        (0..network.nodes.len()).try_for_each(|node| {
            network.check_restart(node)?;
            self.check_totals(node)
        })
    }

    fn check_payments(&self) -> Result<(), Violation> {
        let flow = &self.network.flow;
        for (number, payment) in flow.payments.iter().enumerate() {
            let attempts = flow.attempts.iter().filter(|attempt| attempt.payment == number);
            let settled = attempts.filter(|attempt| attempt.end == Some(End::Fulfilled));
            let amounts: Vec<Msat> =
                settled.filter_map(|attempt| attempt.hops.last().map(|hop| hop.amount)).collect();
            let told = (!amounts.is_empty()).then(|| (amounts.iter().copied().sum(), amounts.len()));
            ensure!(
                payment.received == told,
                Outcomes,
                "payment {number} was received as {:?}, its attempts paid {told:?}",
                payment.received
            );
        }
        for (id, attempt) in flow.attempts.iter().enumerate() {
            let same = attempt.hops.iter().all(|hop| hop.htlc_id.is_none() || hop.end == attempt.end);
            ensure!(same, Outcomes, "the HTLCs of attempt {id} end differently: {:?}", attempt.hops);
        }
        for (node, sim_node) in self.network.nodes.iter().enumerate() {
            let unheard: usize = sim_node.refusals.values().sum();
            ensure!(
                unheard == 0,
                Outcomes,
                "node {node} refused HTLCs, and nobody heard: {:?}",
                sim_node.refusals
            );
        }
        Ok(())
    }

    fn check_totals(&self, node: usize) -> Result<(), Violation> {
        let sim_node = &self.network.nodes[node];
        let totals = sim_node.totals;
        let mut gained = 0;
        for facts in self.network.channels.iter().filter(|facts| facts.ends.contains(&node)) {
            let channel = facts.channel_id.and_then(|id| sim_node.driver.shard().channel(ChannelRef::Id(id)));
            let ours =
                channel.and_then(|channel| channel.balances()).map_or(0, |(ours, _)| i128::from(ours.0));
            gained += ours - facts.first(facts.end_of(node));
        }
        let told = i128::from(totals.received) + i128::from(totals.fees) - i128::from(totals.paid);
        ensure!(gained == told, Money, "node {node} gained {gained} msat, its totals say {told}: {totals:?}");
        Ok(())
    }

    /// Pays something over every channel that is open, both ways.
    fn use_every_channel(&mut self) -> Result<(), Violation> {
        let mut attempts = Vec::new();
        for number in 0..self.network.channels.len() {
            let ChannelFacts { ends, channel_id, closing, .. } = self.network.channels[number];
            let Some(channel_id) = channel_id.filter(|_| !closing) else { continue };
            for end in 0..2 {
                let (from, to) = (ends[end], ends[1 - end]);
                let shard = self.network.nodes[from].driver.shard();
                let channel = shard.channel(ChannelRef::Id(channel_id));
                let available = channel.map_or(Msat::ZERO, |channel| channel.available_out());
                let least = channel.and_then(|channel| channel.terms(Side::Remote));
                let least = least.map_or(Msat::ZERO, |terms| terms.htlc_minimum);
                if available < least.max(Msat(1_000)) {
                    continue;
                }
                let amount = available.min(Msat(900_000));
                let payment = self.network.new_payment(to, amount, true, false);
                // The invoice is registered before the HTLC can arrive, as the sender's turn comes at the same time.
                let attempt = self.network.attempt(payment, &[(number, to)], amount, None, |_| {});
                attempts.extend(attempt);
                self.until_quiet(60_000)?;
            }
        }
        for id in attempts {
            let attempt = &self.network.flow.attempts[id as usize];
            ensure!(attempt.end == Some(End::Fulfilled), Progress, "a healed channel fails: {attempt:?}");
        }
        self.check_rest()
    }

    fn close_everything(&mut self) -> Result<(), Violation> {
        for number in 0..self.network.channels.len() {
            if !self.network.channels[number].closing {
                self.network.close(number);
            }
        }
        self.until_quiet(120_000)?;
        self.network.agenda.after(0, Step::Mine);
        self.until_quiet(120_000)
    }

    /// Compares the closing transactions with the ledger.
    fn check_ends(&self) -> Result<(), Violation> {
        let network = &self.network;
        for (number, facts) in network.channels.iter().enumerate() {
            let transaction = facts.outpoint.and_then(|outpoint| network.chain.spender(&outpoint));
            let Some(transaction) = transaction else {
                return violation!(Closing, "channel {number} is not closed: {facts:?}");
            };
            let txid = Some(transaction.compute_txid());
            ensure!(
                facts.closed == [txid; 2],
                Closing,
                "channel {number} is closed by {txid:?}, its ends say {:?}",
                facts.closed
            );
            let balance = |end: usize| facts.first(end) + network.flow.change(number, facts.ends[end]);
            let scripts = facts.ends.map(script_of);
            check_closing(transaction, facts.capacity, [balance(0), balance(1)], [&scripts[0], &scripts[1]])?;
        }
        Ok(())
    }
}

/// Where a node's money goes when a channel closes.
fn script_of(node: usize) -> Vec<u8> {
    let mut script = vec![0, 20];
    script.extend([node as u8 + 1; 20]);
    script
}
