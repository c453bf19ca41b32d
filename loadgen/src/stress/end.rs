//! A peer of the forwarder: a node in the driver's process that pays and is paid, and lives through every crash.
//!
//! Owns its node, its books and the HTLCs it was offered. Does not decide whom it pays.
//!
//! Invariant: the books know payments only; they are kept from the node's events, never from a channel's balance.

use std::collections::{BTreeMap, HashMap};

use fulmen::chain::ChainEvent;
use fulmen::driver::ShardDriver;
use fulmen::pay::{
    Payer, PayerConfig, PayerView, PaymentRequest, PaymentUpdate, RouteRequest, Router, UnknownAttempt,
};
use fulmen_graph::ChannelGraph;
use fulmen_graph::path::reservations::Reservations;
use fulmen_graph::path::{FirstHop, NoRoute, Route};
use fulmen_graph::snapshot::Snapshot;
use fulmen_proto::channel::State;
use fulmen_proto::forward::{ChannelRef, Command, Event, ExpectedPayment, Now, OpenChannelRequest};
use fulmen_wire::units::{BlockHeight, ChannelId, Msat, NodeId, PaymentHash, Sat, Scid};

use crate::accounting::Ledger;
use crate::tally::name_of;

/// One peer.
pub(super) struct End {
    pub(super) node: ShardDriver,
    forwarder: NodeId,
    channel: Option<(ChannelId, Scid)>,
    pub(super) ledger: Ledger,
    payer: Payer,
    /// An empty graph: routes are given with their payments.
    snapshot: Snapshot,
    own_channels: BTreeMap<Scid, FirstHop>,
    /// The id of the first HTLC that the forwarder offered for each payment hash.
    offered: HashMap<PaymentHash, u64>,
}

/// An event of an end for the driver.
#[derive(Debug)]
pub(super) enum Notice {
    /// A message for the forwarder.
    Send(Vec<u8>),
    /// The channel it opens needs this output.
    FundingNeeded {
        /// Its name until it is funded.
        temporary_channel_id: ChannelId,
        /// The output's amount.
        amount: Sat,
        /// To which script.
        script: bitcoin::ScriptBuf,
    },
    /// Its channel is ready.
    Ready,
    /// Its channel was closed by agreement.
    Closed,
    /// A transaction to broadcast.
    Broadcast(bitcoin::Transaction),
    /// A payment it made arrived.
    Settled(u64),
    /// A payment it made came to nothing, for this reason.
    Failed(u64, String),
    /// Its channel failed.
    ForceClose(String),
    /// Something else that a healthy run does not meet.
    Trouble(String),
}

impl End {
    /// A peer of `forwarder`.
    pub(super) fn new(node: ShardDriver, forwarder: NodeId) -> End {
        let config = PayerConfig { payments_max: usize::MAX, ..PayerConfig::default() };
        let payer = Payer::new(node.id(), config, Reservations::new());
        End {
            node,
            forwarder,
            channel: None,
            ledger: Ledger::default(),
            payer,
            snapshot: Snapshot::new(&ChannelGraph::new()),
            own_channels: BTreeMap::new(),
            offered: HashMap::new(),
        }
    }

    /// Opens its channel.
    pub(super) fn open(&mut self, capacity: Sat, push: Msat) {
        let peer = self.forwarder;
        let open = OpenChannelRequest { peer, user_id: 1, capacity, push, policy: None };
        self.node.command(Command::OpenChannel(open));
    }

    /// Closes its channel by agreement.
    pub(super) fn close(&mut self) {
        if let Some((channel_id, _)) = self.channel {
            self.node.command(Command::CloseChannel { channel_id, script: None });
        }
    }

    /// Its channel, once ready.
    pub(super) fn channel(&self) -> Option<&fulmen_proto::channel::Channel> {
        let (channel_id, _) = self.channel?;
        self.node.shard().channel(ChannelRef::Id(channel_id))
    }

    /// Where its channel stands in the chain.
    pub(super) fn scid(&self) -> Option<Scid> {
        self.channel.map(|(_, scid)| scid)
    }

    /// The amount it could pay now.
    pub(super) fn spendable(&self) -> Msat {
        let normal = self.channel().filter(|channel| channel.state() == State::Normal);
        normal.map_or(Msat::ZERO, |channel| channel.available_out())
    }

    /// Whether its channel is in use and nothing is under way on it.
    pub(super) fn is_quiet(&self) -> bool {
        self.channel().is_some_and(|channel| channel.htlcs().next().is_none() && !channel.is_settling())
    }

    /// Is willing to be paid.
    pub(super) fn expect(&mut self, invoice: ExpectedPayment) {
        self.node.command(Command::ExpectPayment(invoice));
    }

    /// Makes a payment over `route`, which is tried once.
    ///
    /// # Errors
    /// Why the payer refuses it.
    pub(super) fn pay(&mut self, request: PaymentRequest, route: Route) -> Result<(), String> {
        let view = view(&self.snapshot, &self.own_channels);
        let updates = self.payer.begin(request, &view, &mut FixedRoute(Some(route)));
        for update in updates.map_err(|error| error.to_string())? {
            match update {
                PaymentUpdate::Send(send) => self.node.command(Command::SendHtlc(send)),
                PaymentUpdate::Ended(outcome) => return Err(format!("is not sent: {:?}", outcome.result)),
                _ => {}
            }
        }
        Ok(())
    }

    /// A message came from the forwarder. `Some` describes a violation: one payment offered twice.
    pub(super) fn receive(&mut self, message: &[u8]) -> Option<String> {
        let twice = self.offered_twice(message);
        match self.node.receive(self.forwarder, message) {
            Ok(()) => twice,
            Err(error) => Some(format!("a message of the forwarder is refused: {error}")),
        }
    }

    /// An HTLC proposed and not committed before a crash comes again under its own id; under another it is a second
    /// one.
    fn offered_twice(&mut self, message: &[u8]) -> Option<String> {
        if message.len() < 82 || message[..2] != UPDATE_ADD_HTLC.to_be_bytes() {
            return None;
        }
        let id = u64::from_be_bytes(message[34..42].try_into().ok()?);
        let payment_hash = PaymentHash(message[50..82].try_into().ok()?);
        let first = *self.offered.entry(payment_hash).or_insert(id);
        (first != id).then(|| format!("payment {payment_hash} was forwarded twice, as HTLC {first} and {id}"))
    }

    /// The connection is gone, with the messages on it.
    pub(super) fn disconnected(&mut self, now: Now) -> Vec<Notice> {
        self.node.disconnected(self.forwarder);
        let mut notices = self.work(now);
        notices.retain(|notice| !matches!(notice, Notice::Send(_)));
        notices
    }

    /// The chain took a step.
    pub(super) fn chain_event(&mut self, event: &ChainEvent) {
        self.node.chain_event(event);
    }

    /// Does everything that waits.
    pub(super) fn work(&mut self, now: Now) -> Vec<Notice> {
        let mut notices = Vec::new();
        while self.node.has_work(now) {
            let outbox = self.node.turn(now);
            notices.extend(outbox.send.into_iter().map(|(_, bytes)| Notice::Send(bytes)));
            notices.extend(outbox.broadcast.into_iter().map(Notice::Broadcast));
            let hangups = outbox.disconnect.iter();
            notices.extend(hangups.map(|_| Notice::Trouble("hangs up on the forwarder".to_owned())));
            for event in outbox.events {
                notices.extend(self.event(event));
            }
        }
        notices
    }

    /// The verdict on a payment whose only HTLC has ended.
    fn ended(&mut self, updates: Result<Vec<PaymentUpdate>, UnknownAttempt>) -> Option<Notice> {
        let updates = match updates {
            Ok(updates) => updates,
            Err(error) => return Some(Notice::Trouble(format!("an HTLC ended twice: {error}"))),
        };
        updates.into_iter().find_map(|update| match update {
            PaymentUpdate::Ended(outcome) => {
                self.ledger.paid = self.ledger.paid.saturating_add(outcome.sent());
                let number = outcome.id.number();
                Some(match outcome.failures.last() {
                    None => Notice::Settled(number),
                    Some(failure) => Notice::Failed(number, name_of(&failure.cause)),
                })
            }
            _ => None,
        })
    }

    fn event(&mut self, event: Event) -> Option<Notice> {
        Some(match event {
            Event::FundingNeeded { temporary_channel_id, amount, script, .. } => {
                Notice::FundingNeeded { temporary_channel_id, amount, script }
            }
            Event::ChannelReady { channel_id, scid, .. } => {
                self.channel = Some((channel_id, scid));
                Notice::Ready
            }
            Event::ChannelClosed { .. } => Notice::Closed,
            Event::HtlcSettled { attempt_id, preimage } => {
                let view = view(&self.snapshot, &self.own_channels);
                let updates = self.payer.htlc_settled(attempt_id, preimage, &view);
                return self.ended(updates);
            }
            Event::HtlcFailed { attempt_id, reason } => {
                let view = view(&self.snapshot, &self.own_channels);
                let updates = self.payer.htlc_failed(attempt_id, &reason, &view, &mut FixedRoute(None));
                return self.ended(updates);
            }
            Event::PaymentReceived { amount, .. } => {
                self.ledger.received = self.ledger.received.saturating_add(amount);
                return None;
            }
            Event::ChannelFailed { channel_id, error, .. } => {
                Notice::ForceClose(format!("channel {channel_id}: {error}"))
            }
            Event::CommandRefused { .. } | Event::PeerWarning { .. } => Notice::Trouble(format!("{event:?}")),
            _ => return None,
        })
    }
}

/// A payer's only route.
struct FixedRoute(Option<Route>);

impl Router for FixedRoute {
    fn find_parts(&mut self, request: &RouteRequest<'_>) -> Result<Vec<Route>, NoRoute> {
        let amount = request.query.amount;
        self.0.take().map(|route| vec![route]).ok_or(NoRoute::Unreachable { amount })
    }
}

fn view<'a>(snapshot: &'a Snapshot, own_channels: &'a BTreeMap<Scid, FirstHop>) -> PayerView<'a> {
    PayerView { snapshot, own_channels, height: BlockHeight(0), unix_ms: 0 }
}

const UPDATE_ADD_HTLC: u16 = 128;
