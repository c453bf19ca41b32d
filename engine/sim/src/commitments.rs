//! The commitments of one channel, as an observer of both ends' messages follows them (BOLT 2, "Normal Operation",
//! "Message Retransmission").
//!
//! Owns a model that follows from sent and delivered messages alone: which updates a `commitment_signed` covers,
//! which are irrevocably committed for whom, which messages may be sent again. Shares no code with the channel under
//! test.
//!
//! Checks: one unanswered `commitment_signed` at a time, none empty; a second one for a number only on a new
//! connection, only when the first was lost, and byte for byte the same, its updates too; `revoke_and_ack` only for a
//! commitment that has a successor, and likewise; ids of HTLCs without gaps, each added and removed by one message
//! for good. An addition that no commitment covers is forgotten with its connection, and its id used again.

use std::collections::BTreeMap;

use fulmen_wire::message::Message;

use crate::violation::{Violation, ensure};

/// Whether an update is new to those who follow HTLCs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sending {
    /// An update sent for the first time, or no update.
    First,
    /// An update sent before, on an earlier connection.
    Repeated,
}

/// An update, identified by its HTLC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Update {
    /// An `update_add_htlc`.
    Add(u64),
    /// A removal of an HTLC of the other side.
    Remove(u64),
    /// An `update_fee`.
    Fee,
}

/// Both ends' messages of one channel; ends are 0 and 1.
#[derive(Debug, Default)]
pub(crate) struct CommitmentModel {
    ends: [EndModel; 2],
    /// Counts commitments and revocations of both ends in the order they were first sent.
    order: u64,
}

/// The messages of one end.
#[derive(Debug, Default)]
struct EndModel {
    session: u64,
    /// The order of the last message that was repeated on this connection.
    resent: u64,
    /// Updates sent on this connection that no commitment covers yet.
    uncovered: Vec<(Update, Vec<u8>)>,
    signed: Vec<Signed>,
    revoked: Vec<Sent>,
    /// How many commitments and revocations reached the other end.
    signed_delivered: usize,
    revoked_delivered: usize,
    /// HTLCs added and removed, by id, as first sent.
    updates: BTreeMap<Update, Vec<u8>>,
    /// The commitment that first covered an update.
    covered: BTreeMap<Update, usize>,
    next_id: u64,
}

#[derive(Debug)]
struct Signed {
    sent: Sent,
    updates: Vec<(Update, Vec<u8>)>,
    /// How many of the other end's commitments it takes up.
    acknowledged: usize,
}

#[derive(Debug)]
struct Sent {
    bytes: Vec<u8>,
    order: u64,
}

impl CommitmentModel {
    /// End `by` sent a message on the connection `session`.
    pub(crate) fn sent(
        &mut self,
        by: usize,
        session: u64,
        message: &Message,
        bytes: &[u8],
    ) -> Result<Sending, Violation> {
        let end = &mut self.ends[by];
        if end.session != session {
            end.session = session;
            end.uncovered.clear();
            end.resent = 0;
        }
        match message {
            Message::UpdateAddHtlc(add) => self.update(by, Update::Add(add.id), bytes),
            Message::UpdateFulfillHtlc(fulfill) => self.update(by, Update::Remove(fulfill.id), bytes),
            Message::UpdateFailHtlc(fail) => self.update(by, Update::Remove(fail.id), bytes),
            Message::UpdateFailMalformedHtlc(fail) => self.update(by, Update::Remove(fail.id), bytes),
            Message::UpdateFee(_) => self.update(by, Update::Fee, bytes),
            Message::CommitmentSigned(_) => self.commitment(by, bytes),
            Message::RevokeAndAck(_) => self.revocation(by, bytes),
            _ => Ok(Sending::First),
        }
    }

    /// The connection of end `by` is gone: both ends forget its additions that no commitment covers, and their ids are
    /// used again. Returns those ids.
    pub(crate) fn disconnected(&mut self, by: usize) -> Vec<u64> {
        let end = &mut self.ends[by];
        let mut forgotten = Vec::new();
        for (update, _) in std::mem::take(&mut end.uncovered) {
            if let Update::Add(id) = update
                && !end.covered.contains_key(&update)
            {
                end.updates.remove(&update);
                end.next_id = end.next_id.min(id);
                forgotten.push(id);
            }
        }
        forgotten
    }

    /// A message of end `by` reached the other end.
    pub(crate) fn delivered(&mut self, by: usize, message: &Message) {
        let end = &mut self.ends[by];
        match message {
            Message::CommitmentSigned(_) => end.signed_delivered += 1,
            Message::RevokeAndAck(_) => end.revoked_delivered += 1,
            _ => {}
        }
    }

    /// Whether an update of the other end is irrevocably committed as far as end `at` can know.
    pub(crate) fn irrevocable(&self, at: usize, update: Update) -> bool {
        let other = &self.ends[1 - at];
        let Some(covered) = other.covered.get(&update) else { return false };
        let answered = other.revoked_delivered;
        let acknowledged = answered.checked_sub(1).map_or(0, |last| self.ends[at].signed[last].acknowledged);
        acknowledged >= *covered
    }

    /// The number of commitments that end `by` signed for the other.
    pub(crate) fn signed(&self, by: usize) -> u64 {
        self.ends[by].signed.len() as u64
    }

    /// The number of its own commitments that end `by` revoked.
    pub(crate) fn revoked(&self, by: usize) -> u64 {
        self.ends[by].revoked.len() as u64
    }

    fn update(&mut self, by: usize, update: Update, bytes: &[u8]) -> Result<Sending, Violation> {
        if let Update::Remove(id) = update {
            ensure!(
                self.irrevocable(by, Update::Add(id)),
                Commitments,
                "end {by} removes HTLC {id}, which is not irrevocably committed"
            );
        }
        let end = &mut self.ends[by];
        let twice = update != Update::Fee && end.uncovered.iter().any(|(known, _)| *known == update);
        ensure!(!twice, Commitments, "end {by} sent {update:?} twice on one connection");
        // Of several fee rates before a signature only the last counts, so that only it need be sent again.
        end.uncovered.retain(|(known, _)| *known != Update::Fee || update != Update::Fee);
        end.uncovered.push((update, bytes.to_vec()));
        if update == Update::Fee {
            return Ok(Sending::First);
        }
        if let Some(first) = end.updates.get(&update) {
            ensure!(first == bytes, Commitments, "end {by} sent another {update:?} than before");
            return Ok(Sending::Repeated);
        }
        if let Update::Add(id) = update {
            ensure!(id == end.next_id, Commitments, "end {by} added HTLC {id}, {} is next", end.next_id);
            end.next_id += 1;
        }
        end.updates.insert(update, bytes.to_vec());
        Ok(Sending::First)
    }

    fn commitment(&mut self, by: usize, bytes: &[u8]) -> Result<Sending, Violation> {
        let acknowledged = self.ends[by].revoked.len();
        let answered = self.ends[1 - by].revoked_delivered;
        let number = self.ends[by].signed.len();
        if number > answered {
            return self.commitment_again(by, bytes);
        }
        let before = self.ends[by].signed.last().map_or(0, |last| last.acknowledged);
        let theirs = &self.ends[1 - by].signed[before..acknowledged];
        let changes = theirs.iter().any(|signed| !signed.updates.is_empty());
        let end = &mut self.ends[by];
        ensure!(
            changes || !end.uncovered.is_empty(),
            Commitments,
            "end {by} signed commitment {} without changes",
            number + 1
        );
        let updates = std::mem::take(&mut end.uncovered);
        for (update, _) in &updates {
            end.covered.entry(*update).or_insert(number + 1);
        }
        self.order += 1;
        let sent = Sent { bytes: bytes.to_vec(), order: self.order };
        end.signed.push(Signed { sent, updates, acknowledged });
        Ok(Sending::First)
    }

    fn commitment_again(&mut self, by: usize, bytes: &[u8]) -> Result<Sending, Violation> {
        let end = &mut self.ends[by];
        let number = end.signed.len();
        ensure!(
            end.signed_delivered < number,
            Commitments,
            "end {by} signed again while commitment {number}, which arrived, is unanswered"
        );
        let last = &end.signed[number - 1];
        ensure!(
            last.sent.bytes == bytes,
            Commitments,
            "end {by} signed commitment {number} twice, differently"
        );
        ensure!(
            last.updates == end.uncovered,
            Commitments,
            "end {by} sent commitment {number} again with other updates: {:?}, then {:?}",
            names(&last.updates),
            names(&end.uncovered)
        );
        end.uncovered.clear();
        let order = last.sent.order;
        end.resend(by, order)
    }

    fn revocation(&mut self, by: usize, bytes: &[u8]) -> Result<Sending, Violation> {
        let received = self.ends[1 - by].signed_delivered;
        let end = &mut self.ends[by];
        let number = end.revoked.len();
        if received > number {
            self.order += 1;
            end.revoked.push(Sent { bytes: bytes.to_vec(), order: self.order });
            return Ok(Sending::First);
        }
        ensure!(
            end.revoked_delivered < number,
            Commitments,
            "end {by} revoked commitment {number}, which has no successor"
        );
        let last = &end.revoked[number - 1];
        ensure!(last.bytes == bytes, Commitments, "end {by} revoked twice, differently");
        let order = last.order;
        end.resend(by, order)
    }
}

impl EndModel {
    /// Messages are repeated in their first order, and once on a connection.
    fn resend(&mut self, by: usize, order: u64) -> Result<Sending, Violation> {
        ensure!(order > self.resent, Commitments, "end {by} sent again out of order, or twice");
        self.resent = order;
        Ok(Sending::Repeated)
    }
}

fn names(updates: &[(Update, Vec<u8>)]) -> Vec<Update> {
    updates.iter().map(|(update, _)| *update).collect()
}
