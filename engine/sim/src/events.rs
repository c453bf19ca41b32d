//! What nodes tell their operators, and whether the stories agree.
//!
//! Owns the answers that need no draw (a funding transaction where one is wanted), and the bookkeeping of outcomes.
//!
//! Checks: an attempt's outcome is what its first HTLC did; a failure comes from where it was reported, and says nothing
//! that the route does not deserve; the payee is paid once, exactly by the attempts that settle; fees are differences.

use bitcoin::OutPoint;
use fulmen_proto::channel::CommandError as ChannelCommandError;
use fulmen_proto::forward::{Command, CommandError, Event, FailureReason};
use fulmen_proto::onion::{FailureCode, ReturnedFailure};
use fulmen_wire::units::{ChannelId, Msat, PaymentHash, PaymentPreimage};

use crate::chain::funding_transaction;
use crate::flow::{Attempt, End, removal_committed};
use crate::network::Network;
use crate::violation::{Checker, Violation, ensure};

/// What may befall a route without a flaw, when links break, blocks are late, channels are empty or close.
const MISHAPS: [FailureCode; 8] = [
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
    /// Takes in what a node tells.
    pub(crate) fn event(&mut self, node: usize, event: Event) -> Result<(), Violation> {
        match event {
            Event::FundingNeeded { temporary_channel_id, user_id, amount, script, .. } => {
                let transaction = funding_transaction(user_id, amount, script);
                let outpoint = OutPoint { txid: transaction.compute_txid(), vout: 0 };
                self.channels[user_id as usize - 1].outpoint = Some(outpoint);
                self.command(node, Command::FundingTransaction { temporary_channel_id, transaction });
            }
            Event::ChannelFunded { channel_id, funding_outpoint, .. } => {
                return self.channel_funded(node, channel_id, funding_outpoint);
            }
            Event::ChannelReady { channel_id, scid, .. } => {
                let number = self.by_channel_id[&channel_id];
                let facts = &mut self.channels[number];
                facts.scid = Some(scid);
                let end = facts.end_of(node);
                ensure!(!facts.ready[end], Outcomes, "channel {number} is ready twice at node {node}");
                facts.ready[end] = true;
            }
            Event::ChannelClosed { channel_id, transaction } => {
                let number = self.by_channel_id[&channel_id];
                let facts = &mut self.channels[number];
                let end = facts.end_of(node);
                facts.closed[end] = Some(transaction.compute_txid());
            }
            Event::ChannelFailed { error, .. } => {
                return Err(Violation::new(
                    Checker::Peace,
                    format!("node {node} gives up a channel: {error}"),
                ));
            }
            Event::PeerWarning { text, .. } => {
                return Err(Violation::new(Checker::Peace, format!("node {node} is warned: {text}")));
            }
            Event::CommandRefused { error } => return check_refusal(node, &error),
            Event::HtlcSettled { attempt_id, preimage } => {
                return self.attempt_settled(node, attempt_id, preimage);
            }
            Event::HtlcFailed { attempt_id, reason } => {
                return self.attempt_failed(node, attempt_id, &reason);
            }
            Event::PaymentReceived { payment_hash, amount, parts } => {
                return self.paid(node, payment_hash, amount, parts);
            }
            Event::Forwarded { incoming_amount, outgoing_amount, fee, .. } => {
                ensure!(
                    incoming_amount.checked_sub(outgoing_amount) == Some(fee),
                    Money,
                    "node {node} earns {fee} between {incoming_amount} and {outgoing_amount}"
                );
                self.counts.forwards += 1;
                self.places[node].books.fees += fee.0;
            }
            Event::HtlcRefused { payment_hash, code, .. } => {
                *self.places[node].refusals.entry((payment_hash, code)).or_default() += 1;
            }
            _ => {}
        }
        Ok(())
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
            let what = format!("node {node} has a channel that nobody opened: {outpoint}");
            return Err(Violation::new(Checker::Outcomes, what));
        };
        facts.channel_id = Some(channel_id);
        let end = facts.end_of(node);
        facts.funded[end] = true;
        self.by_channel_id.insert(channel_id, number);
        Ok(())
    }

    fn paid(
        &mut self,
        node: usize,
        payment_hash: PaymentHash,
        amount: Msat,
        parts: usize,
    ) -> Result<(), Violation> {
        self.places[node].books.received += amount.0;
        let payment = self.flow.payment_of(payment_hash);
        let Some(payment) = payment.filter(|payment| payment.to == node && payment.payable) else {
            let what = format!("node {node} is paid for {payment_hash:?}, which it never asked for");
            return Err(Violation::new(Checker::Outcomes, what));
        };
        ensure!(payment.received.is_none(), Outcomes, "{payment_hash:?} is paid twice");
        payment.received = Some((amount, parts));
        Ok(())
    }

    fn attempt_settled(&mut self, node: usize, id: u64, preimage: PaymentPreimage) -> Result<(), Violation> {
        let attempt = self.flow.concluded(node, id, End::Fulfilled)?;
        ensure!(attempt.hops[0].fulfil_delivered, Outcomes, "attempt {id} settles without a preimage");
        ensure!(attempt.flaw.is_none(), Outcomes, "attempt {id} settles despite {:?}", attempt.flaw);
        let (amount, payment) = (attempt.hops[0].amount, attempt.payment);
        let known = self.flow.payments[payment].preimage;
        ensure!(preimage == known, Outcomes, "attempt {id} settles with a wrong preimage");
        self.places[node].books.paid += amount.0;
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
            first.htlc_id.is_some_and(|htlc| removal_committed(&self.dances[first.channel], end, htlc));
        ensure!(
            for_good && first.end == Some(End::Failed),
            Outcomes,
            "attempt {id} fails before its HTLC does"
        );
        let (reporter, code) = reporter(id, &attempt, reason)?;
        let place = &mut self.places[reporter];
        let reported = place.refusals.get_mut(&(hash, code)).filter(|count| **count > 0);
        let Some(reported) = reported else {
            return Err(unreported(id, reporter, hash, code));
        };
        *reported -= 1;
        Ok(())
    }
}

/// The node that refused an attempt and the code it gave, by what its sender reads.
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
                let what = format!("the failure of attempt {id} cannot be read");
                return Err(Violation::new(Checker::Outcomes, what));
            }
        },
        FailureReason::Local(_) => (0, FailureCode::TemporaryNodeFailure),
    };
    let deserved = attempt.flaw.is_some_and(|flaw| flaw.hop == hop && flaw.code == code.to_u16());
    ensure!(
        deserved || MISHAPS.contains(&code),
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

fn unreported(id: u64, reporter: usize, hash: PaymentHash, code: u16) -> Violation {
    let what = format!(
        "attempt {id} fails at node {reporter} with {code:#x}, which reported no such thing for {hash:?}"
    );
    Violation::new(Checker::Outcomes, what)
}

/// Commands are drawn without asking first, so that some come at a wrong moment.
fn check_refusal(node: usize, error: &CommandError) -> Result<(), Violation> {
    let CommandError::Channel { error: cause, .. } = error else {
        return Err(Violation::new(Checker::Outcomes, format!("node {node} refuses a command: {error}")));
    };
    let expected = matches!(
        cause,
        ChannelCommandError::NotConnected
            | ChannelCommandError::NotPossible { .. }
            | ChannelCommandError::ShuttingDown
            | ChannelCommandError::AlreadyShuttingDown
            | ChannelCommandError::FeeNotAffordable { .. }
            | ChannelCommandError::DustExposure { .. }
    );
    ensure!(expected, Outcomes, "node {node} refuses a command: {error}");
    Ok(())
}
