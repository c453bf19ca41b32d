//! The events of all nodes, and whether they agree.
//!
//! Owns the immediate answers to events (funding transactions), and the bookkeeping of outcomes.
//!
//! Checks: an attempt ends as its first HTLC did; a failure comes from the node that reported it, with a code that the
//! route's flaw or its circumstances explain; the payee is paid once, exactly by the attempts that settle; fees are the
//! differences of amounts.

use bitcoin::OutPoint;
use fulmen_proto::channel::ChannelCommandError;
use fulmen_proto::forward::{Command, CommandError, Event, FailureReason};
use fulmen_proto::onion::{FailureCode, ReturnedFailure};
use fulmen_wire::units::{ChannelId, Msat, PaymentHash, PaymentPreimage, Scid};

use crate::chain::funding_transaction;
use crate::flow::{Attempt, End, removal_committed};
use crate::network::Network;
use crate::violation::{Violation, ensure, violation};

/// Failures that a route without a flaw may meet, since links break, blocks are late, and channels run empty or close.
const TOLERATED_FAILURES: [FailureCode; 8] = [
    FailureCode::TemporaryChannelFailure,
    FailureCode::TemporaryNodeFailure,
    FailureCode::PermanentChannelFailure,
    FailureCode::UnknownNextPeer,
    FailureCode::ExpiryTooSoon,
    FailureCode::AmountBelowMinimum,
    FailureCode::IncorrectOrUnknownPaymentDetails,
    FailureCode::MppTimeout,
];

impl Network {
    /// Checks an event against the models and records it.
    pub(crate) fn event(&mut self, node: usize, event: Event) -> Result<(), Violation> {
        match event {
            Event::FundingNeeded { temporary_channel_id, user_id, amount, script, .. } => {
                let transaction = funding_transaction(user_id, amount, script);
                let outpoint = OutPoint { txid: transaction.compute_txid(), vout: 0 };
                self.channels[user_id as usize - 1].outpoint = Some(outpoint);
                self.command(node, Command::FundingTransaction { temporary_channel_id, transaction });
                Ok(())
            }
            Event::ChannelFunded { channel_id, funding_outpoint, .. } => {
                self.channel_funded(node, channel_id, funding_outpoint)
            }
            Event::ChannelReady { channel_id, scid, .. } => self.channel_ready(node, channel_id, scid),
            Event::ChannelClosed { channel_id, transaction } => {
                let facts = &mut self.channels[self.by_channel_id[&channel_id]];
                let end = facts.end_of(node);
                facts.closed[end] = Some(transaction.compute_txid());
                Ok(())
            }
            Event::ChannelFailed { error, .. } => {
                violation!(NoComplaints, "node {node} fails a channel: {error}")
            }
            Event::PeerWarning { text, .. } => violation!(NoComplaints, "node {node} is warned: {text}"),
            Event::CommandRefused { error } => check_refusal(node, &error),
            Event::HtlcSettled { attempt_id, preimage } => self.attempt_settled(node, attempt_id, preimage),
            Event::HtlcFailed { attempt_id, reason } => self.attempt_failed(node, attempt_id, &reason),
            Event::PaymentReceived { payment_hash, amount, parts } => {
                self.payment_received(node, payment_hash, amount, parts)
            }
            Event::Forwarded { incoming_amount, outgoing_amount, fee, .. } => {
                self.forwarded(node, incoming_amount, outgoing_amount, fee)
            }
            Event::HtlcRefused { payment_hash, code, .. } => {
                *self.nodes[node].refusals.entry((payment_hash, code)).or_default() += 1;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn channel_funded(
        &mut self,
        node: usize,
        channel_id: ChannelId,
        outpoint: OutPoint,
    ) -> Result<(), Violation> {
        let facts = self.channels.iter_mut().enumerate();
        let mut facts = facts.filter(|(_, facts)| facts.outpoint == Some(outpoint));
        let Some((number, facts)) = facts.next() else {
            return violation!(Outcomes, "node {node} has a channel that nobody opened: {outpoint}");
        };
        facts.channel_id = Some(channel_id);
        let end = facts.end_of(node);
        facts.funded[end] = true;
        self.by_channel_id.insert(channel_id, number);
        Ok(())
    }

    fn channel_ready(&mut self, node: usize, channel_id: ChannelId, scid: Scid) -> Result<(), Violation> {
        let number = self.by_channel_id[&channel_id];
        let facts = &mut self.channels[number];
        facts.scid = Some(scid);
        let end = facts.end_of(node);
        ensure!(!facts.ready[end], Outcomes, "channel {number} is ready twice at node {node}");
        facts.ready[end] = true;
        Ok(())
    }

    fn forwarded(&mut self, node: usize, incoming: Msat, outgoing: Msat, fee: Msat) -> Result<(), Violation> {
        ensure!(
            incoming.checked_sub(outgoing) == Some(fee),
            Money,
            "node {node} earns {fee} between {incoming} and {outgoing}"
        );
        self.counts.forwards += 1;
        self.nodes[node].totals.fees += fee.0;
        Ok(())
    }

    fn payment_received(
        &mut self,
        node: usize,
        payment_hash: PaymentHash,
        amount: Msat,
        parts: usize,
    ) -> Result<(), Violation> {
        self.nodes[node].totals.received += amount.0;
        let payment = self.flow.payment_of(payment_hash);
        let Some(payment) = payment.filter(|payment| payment.to == node && payment.payable) else {
            return violation!(
                Outcomes,
                "node {node} is paid for {payment_hash:?}, which it has no invoice for"
            );
        };
        ensure!(payment.received.is_none(), Outcomes, "{payment_hash:?} is paid twice");
        payment.received = Some((amount, parts));
        Ok(())
    }

    fn attempt_settled(&mut self, node: usize, id: u64, preimage: PaymentPreimage) -> Result<(), Violation> {
        let attempt = self.flow.concluded(node, id, End::Fulfilled)?;
        ensure!(attempt.hops[0].fulfill_delivered, Outcomes, "attempt {id} settles without a preimage");
        ensure!(attempt.flaw.is_none(), Outcomes, "attempt {id} settles despite {:?}", attempt.flaw);
        let (amount, payment) = (attempt.hops[0].amount, attempt.payment);
        let known = self.flow.payments[payment].preimage;
        ensure!(preimage == known, Outcomes, "attempt {id} settles with a wrong preimage");
        self.nodes[node].totals.paid += amount.0;
        Ok(())
    }

    fn attempt_failed(&mut self, node: usize, id: u64, reason: &FailureReason) -> Result<(), Violation> {
        let attempt = self.flow.concluded(node, id, End::Failed)?.clone();
        let hash = self.flow.payments[attempt.payment].hash;
        let first = &attempt.hops[0];
        if let FailureReason::Local(_) = reason {
            ensure!(first.htlc_id.is_none(), Outcomes, "attempt {id} fails locally, but left");
            return Ok(());
        }
        let end = self.channels[first.channel].end_of(node);
        let for_good =
            first.htlc_id.is_some_and(|htlc| removal_committed(&self.commitments[first.channel], end, htlc));
        ensure!(
            for_good && first.end == Some(End::Failed),
            Outcomes,
            "attempt {id} fails before its HTLC does"
        );
        let (reporter, code) = reporter(id, &attempt, reason)?;
        let sim_node = &mut self.nodes[reporter];
        let reported = sim_node.refusals.get_mut(&(hash, code)).filter(|count| **count > 0);
        let Some(reported) = reported else {
            return violation!(
                Outcomes,
                "attempt {id} fails at node {reporter} with {code:#x}, which reported no such thing for {hash:?}"
            );
        };
        *reported -= 1;
        Ok(())
    }
}

/// The node that refused an attempt and its code, as the sender reads them.
fn reporter(id: u64, attempt: &Attempt, reason: &FailureReason) -> Result<(usize, u16), Violation> {
    let (hop, code) = match reason {
        FailureReason::Malformed { failure_code } => (0, FailureCode::from_u16(*failure_code)),
        FailureReason::Remote { packet } => match attempt.outgoing.read_failure(packet) {
            // A node that cannot read its onion is reported by the one before it.
            ReturnedFailure::From { hop, failure } if failure.code().is_bad_onion() => {
                (hop + 1, failure.code())
            }
            ReturnedFailure::From { hop, failure } => (hop, failure.code()),
            ReturnedFailure::Unreadable => {
                return violation!(Outcomes, "the failure of attempt {id} cannot be read");
            }
        },
        FailureReason::Local(_) => (0, FailureCode::TemporaryNodeFailure),
    };
    let deserved = attempt.flaw.is_some_and(|flaw| flaw.hop == hop && flaw.code == code.to_u16());
    ensure!(
        deserved || TOLERATED_FAILURES.contains(&code),
        Outcomes,
        "attempt {id} with flaw {:?} fails at hop {hop} of {} with {}",
        attempt.flaw,
        attempt.hops.len(),
        code.name()
    );
    ensure!(
        hop < attempt.hops.len() && attempt.flaw.is_none_or(|flaw| hop <= flaw.hop),
        Outcomes,
        "attempt {id} with flaw {:?} fails only at hop {hop} of {}",
        attempt.flaw,
        attempt.hops.len()
    );
    Ok((attempt.hops[hop].to, code.to_u16()))
}

/// Commands are drawn without regard to the state, so that some have to be refused.
fn check_refusal(node: usize, error: &CommandError) -> Result<(), Violation> {
    let CommandError::Channel { error: cause, .. } = error else {
        return violation!(Outcomes, "node {node} refuses a command: {error}");
    };
    let expected = matches!(
        cause,
        ChannelCommandError::NotConnected
            | ChannelCommandError::NotPossible { .. }
            | ChannelCommandError::ShuttingDown
            | ChannelCommandError::AlreadyShuttingDown
            | ChannelCommandError::FeerateUnchanged(_)
            | ChannelCommandError::FeeNotAffordable { .. }
            | ChannelCommandError::DustExposure { .. }
    );
    ensure!(expected, Outcomes, "node {node} refuses a command: {error}");
    Ok(())
}
