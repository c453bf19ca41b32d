//! A peer of the forwarder: a node in the driver's process that pays and is paid, and lives through every crash.
//!
//! Owns its node, its books and the HTLCs it was offered. Does not decide whom it pays.
//!
//! Invariant: the books know payments only; they are kept from the node's events, never from a channel's balance.

use std::collections::HashMap;

use fulmen::chain::ChainEvent;
use fulmen::driver::ShardDriver;
use fulmen_proto::channel::State;
use fulmen_proto::forward::{
    ChannelRef, Command, Event, ExpectedPayment, FailureReason, Now, OpenChannel, SendHtlc,
};
use fulmen_proto::onion::ReturnedFailure;
use fulmen_proto::payment::{OutgoingPayment, Recipient, RouteHop};
use fulmen_wire::units::{ChannelId, Msat, NodeId, PaymentHash, Sat, Scid};

use crate::accounting::Ledger;

/// One peer.
pub(super) struct End {
    pub(super) node: ShardDriver,
    forwarder: NodeId,
    channel: Option<(ChannelId, Scid)>,
    pub(super) ledger: Ledger,
    /// Its HTLCs in flight, by attempt.
    paying: HashMap<u64, OutgoingPayment>,
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
        End {
            node,
            forwarder,
            channel: None,
            ledger: Ledger::default(),
            paying: HashMap::new(),
            offered: HashMap::new(),
        }
    }

    /// Opens its channel.
    pub(super) fn open(&mut self, capacity: Sat, push: Msat) {
        let peer = self.forwarder;
        let open = OpenChannel { peer, user_id: 1, capacity, push, policy: None };
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

    /// Pays over the forwarder: `route` has two hops.
    pub(super) fn pay(
        &mut self,
        attempt_id: u64,
        session_key: &bitcoin::secp256k1::SecretKey,
        payment_hash: PaymentHash,
        route: &[RouteHop; 2],
        recipient: &Recipient,
    ) -> Result<(), String> {
        let payment = OutgoingPayment::new(session_key, payment_hash, route, recipient);
        let payment = payment.map_err(|error| error.to_string())?;
        self.node.command(Command::SendHtlc(SendHtlc::new(attempt_id, &payment)));
        self.paying.insert(attempt_id, payment);
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

    /// An HTLC proposed and not committed before a crash comes again under its own id; under another it is a second one.
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
            Event::HtlcSettled { attempt_id, .. } => {
                let Some(payment) = self.paying.remove(&attempt_id) else {
                    return Some(Notice::Trouble(format!("payment {attempt_id} ended twice")));
                };
                self.ledger.paid = self.ledger.paid.saturating_add(payment.amount);
                Notice::Settled(attempt_id)
            }
            Event::HtlcFailed { attempt_id, reason } => {
                let Some(payment) = self.paying.remove(&attempt_id) else {
                    return Some(Notice::Trouble(format!("payment {attempt_id} ended twice")));
                };
                Notice::Failed(attempt_id, why(&payment, &reason))
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

/// The BOLT 4 code a payment failed with, or the kind of failure without one.
fn why(payment: &OutgoingPayment, reason: &FailureReason) -> String {
    match reason {
        FailureReason::Remote { packet } => match payment.read_failure(packet) {
            ReturnedFailure::From { failure, .. } => failure.code().to_string(),
            ReturnedFailure::Unreadable => "unreadable_failure".to_owned(),
        },
        FailureReason::Malformed { failure_code } => format!("code_{failure_code:#06x}"),
        FailureReason::Local(_) => "own_channel".to_owned(),
    }
}

const UPDATE_ADD_HTLC: u16 = 128;
