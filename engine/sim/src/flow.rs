//! Attempts and their HTLCs, hop by hop, as an observer of all channels follows them (BOLT 2, "Forwarding HTLCs").
//!
//! Owns the rules of who may offer, fulfill and fail an HTLC, and when. An attempt's HTLCs are told apart by hash,
//! channel, direction and amount; whoever makes attempts keeps those distinct.
//!
//! Checks: no HTLC but those of attempts; one HTLC per hop, offered only when the one before is irrevocably committed;
//! failed only when the one behind is irrevocably failed or never was; fulfilled only by who knows the preimage; ended
//! once and for good.

use std::collections::BTreeMap;

use bitcoin::hashes::{Hash, sha256};
use fulmen_proto::payment::OutgoingPayment;
use fulmen_wire::message::UpdateAddHtlc;
use fulmen_wire::units::{BlockHeight, Msat, PaymentHash, PaymentPreimage, PaymentSecret};

use crate::commitments::{CommitmentModel, Update};
use crate::violation::{Violation, ensure};

/// A payment, in one part or several.
#[derive(Clone, Debug)]
pub(crate) struct Payment {
    pub(crate) hash: PaymentHash,
    pub(crate) preimage: PaymentPreimage,
    pub(crate) secret: PaymentSecret,
    /// The payee.
    pub(crate) to: usize,
    pub(crate) total: Msat,
    /// Whether the payee knows the hash: it has an invoice, or the attempt carries the preimage.
    pub(crate) payable: bool,
    pub(crate) keysend: bool,
    /// The amount and the number of parts that the payee reported.
    pub(crate) received: Option<(Msat, usize)>,
}

/// One HTLC of an attempt.
#[derive(Clone, Debug)]
pub(crate) struct FlowHop {
    pub(crate) channel: usize,
    pub(crate) from: usize,
    pub(crate) to: usize,
    pub(crate) amount: Msat,
    pub(crate) cltv_expiry: BlockHeight,
    pub(crate) htlc_id: Option<u64>,
    pub(crate) end: Option<End>,
    /// Whether the preimage reached the node that offered it.
    pub(crate) fulfill_delivered: bool,
}

/// How an HTLC or an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Fulfilled,
    Failed,
}

/// A deliberate error in a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Flaw {
    /// The hop whose receiver must fail it, at the latest.
    pub(crate) hop: usize,
    /// The code it must then give, unless something else is wrong at the moment.
    pub(crate) code: u16,
}

/// One part of a payment on one route.
#[derive(Clone, Debug)]
pub(crate) struct Attempt {
    pub(crate) payment: usize,
    pub(crate) hops: Vec<FlowHop>,
    pub(crate) outgoing: OutgoingPayment,
    pub(crate) flaw: Option<Flaw>,
    pub(crate) end: Option<End>,
}

/// All payments and attempts; an attempt's id is its index.
#[derive(Debug, Default)]
pub(crate) struct Flow {
    pub(crate) payments: Vec<Payment>,
    pub(crate) attempts: Vec<Attempt>,
    by_hash: BTreeMap<PaymentHash, usize>,
    by_form: BTreeMap<(PaymentHash, usize, usize, Msat), (usize, usize)>,
    by_htlc: BTreeMap<(usize, usize, u64), (usize, usize)>,
}

impl Flow {
    pub(crate) fn add_payment(&mut self, payment: Payment) -> usize {
        self.by_hash.insert(payment.hash, self.payments.len());
        self.payments.push(payment);
        self.payments.len() - 1
    }

    pub(crate) fn payment_of(&mut self, hash: PaymentHash) -> Option<&mut Payment> {
        let index = *self.by_hash.get(&hash)?;
        self.payments.get_mut(index)
    }

    /// Adds an attempt, if its HTLCs can be told from all others; returns its id.
    pub(crate) fn add_attempt(&mut self, attempt: Attempt) -> Option<u64> {
        let hash = self.payments[attempt.payment].hash;
        let form = |hop: &FlowHop| (hash, hop.channel, hop.from, hop.amount);
        let mut forms: Vec<_> = attempt.hops.iter().map(form).collect();
        if forms.iter().any(|form| self.by_form.contains_key(form)) {
            return None;
        }
        let id = self.attempts.len();
        self.by_form.extend(forms.drain(..).enumerate().map(|(hop, form)| (form, (id, hop))));
        self.attempts.push(attempt);
        Some(id as u64)
    }

    /// Node `from` offers an HTLC on a channel, for the first time. An attempt may name another channel between the
    /// same two nodes, one of `parallel`: BOLT 4 leaves it to a node which of them carries an HTLC on.
    pub(crate) fn added(
        &mut self,
        channel: usize,
        parallel: &[usize],
        from: usize,
        add: &UpdateAddHtlc,
        committed: impl Fn(usize, usize, u64) -> bool,
    ) -> Result<(), Violation> {
        let form = (add.payment_hash, channel, from, add.amount_msat);
        let unoffered =
            |(attempt, hop): &(usize, usize)| self.attempts[*attempt].hops[*hop].htlc_id.is_none();
        let named = |channel: &usize| self.by_form.get(&(form.0, *channel, form.2, form.3)).copied();
        let name = named(&channel).filter(unoffered);
        let name = name.or_else(|| parallel.iter().filter_map(named).find(unoffered)).or(named(&channel));
        ensure!(
            name.is_some(),
            Forwarding,
            "node {from} offers an HTLC that belongs to no attempt: {form:?}"
        );
        let (attempt, hop) = name.unwrap_or_default();
        let hops = &mut self.attempts[attempt].hops;
        ensure!(
            hops[hop].htlc_id.is_none(),
            Forwarding,
            "node {from} offers hop {hop} of attempt {attempt} twice"
        );
        ensure!(
            hops[hop].cltv_expiry == add.cltv_expiry,
            Forwarding,
            "hop {hop} of attempt {attempt} expires at {:?} instead of {:?}",
            add.cltv_expiry,
            hops[hop].cltv_expiry
        );
        if let Some(before) = hop.checked_sub(1).map(|before| &hops[before]) {
            let ready = before.htlc_id.is_some_and(|id| committed(before.channel, from, id));
            ensure!(
                ready && before.end.is_none(),
                Forwarding,
                "node {from} offers hop {hop} of attempt {attempt}, but the one before is not committed"
            );
        }
        hops[hop].htlc_id = Some(add.id);
        hops[hop].channel = channel;
        self.by_htlc.insert((channel, from, add.id), (attempt, hop));
        Ok(())
    }

    /// An HTLC of `from` was forgotten with its connection, in no commitment.
    pub(crate) fn withdrawn(&mut self, channel: usize, from: usize, id: u64) {
        if let Some((attempt, hop)) = self.by_htlc.remove(&(channel, from, id)) {
            self.attempts[attempt].hops[hop].htlc_id = None;
        }
    }

    /// Node `by` ends an HTLC that `from` offered, for the first time; returns its amount.
    pub(crate) fn ended(
        &mut self,
        channel: usize,
        (by, from): (usize, usize),
        id: u64,
        preimage: Option<PaymentPreimage>,
        failed_for_good: impl Fn(usize, usize, u64) -> bool,
    ) -> Result<Msat, Violation> {
        let name = self.by_htlc.get(&(channel, from, id)).copied();
        ensure!(
            name.is_some(),
            Forwarding,
            "node {by} ends an HTLC that never was: {id} of channel {channel}"
        );
        let (index, hop) = name.unwrap_or_default();
        let attempt = &self.attempts[index];
        let payment = &self.payments[attempt.payment];
        let behind = attempt.hops.get(hop + 1);
        ensure!(
            attempt.hops[hop].end.is_none(),
            Forwarding,
            "node {by} ends hop {hop} of attempt {index} twice"
        );
        let end = if let Some(preimage) = preimage {
            let hash = PaymentHash(sha256::Hash::hash(&preimage.0).to_byte_array());
            ensure!(
                hash == payment.hash,
                Forwarding,
                "node {by} fulfills attempt {index} with a wrong preimage"
            );
            let knows = behind.map_or(payment.to == by && payment.payable, |behind| behind.fulfill_delivered);
            ensure!(knows, Forwarding, "node {by} fulfills hop {hop} of attempt {index} without being paid");
            End::Fulfilled
        } else {
            let offered = behind.filter(|behind| behind.htlc_id.is_some());
            let done = offered.is_none_or(|behind| {
                let id = behind.htlc_id.unwrap_or_default();
                behind.end == Some(End::Failed) && failed_for_good(behind.channel, by, id)
            });
            ensure!(done, Forwarding, "node {by} fails hop {hop} of attempt {index} too early: {offered:?}");
            End::Failed
        };
        let hop = &mut self.attempts[index].hops[hop];
        hop.end = Some(end);
        Ok(hop.amount)
    }

    /// The preimage of an HTLC reached the node that offered it.
    pub(crate) fn fulfill_delivered(&mut self, channel: usize, from: usize, id: u64) {
        if let Some((attempt, hop)) = self.by_htlc.get(&(channel, from, id)) {
            self.attempts[*attempt].hops[*hop].fulfill_delivered = true;
        }
    }

    /// An attempt ended, as its sender was told; returns the attempt.
    pub(crate) fn concluded(&mut self, sender: usize, id: u64, end: End) -> Result<&Attempt, Violation> {
        let index = id as usize;
        ensure!(index < self.attempts.len(), Outcomes, "attempt {id} ends, which never began");
        let attempt = &mut self.attempts[index];
        ensure!(attempt.hops[0].from == sender, Outcomes, "node {sender} ends attempt {id} of another");
        ensure!(attempt.end.is_none(), Outcomes, "attempt {id} ends twice");
        attempt.end = Some(end);
        Ok(attempt)
    }

    /// The changes that all fulfilled HTLCs bring to one end of a channel, in millisatoshi.
    pub(crate) fn change(&self, channel: usize, node: usize) -> i128 {
        let hops = self.attempts.iter().flat_map(|attempt| &attempt.hops);
        let settled = hops.filter(|hop| hop.channel == channel && hop.end == Some(End::Fulfilled));
        settled.map(|hop| if hop.from == node { -1 } else { 1 } * i128::from(hop.amount.0)).sum()
    }
}

/// Whether an HTLC offered to end `at` of a channel is irrevocably committed there.
pub(crate) fn add_committed(model: &CommitmentModel, at: usize, id: u64) -> bool {
    model.irrevocable(at, Update::Add(id))
}

/// Whether the removal of an HTLC that end `at` offered is irrevocably committed there.
pub(crate) fn removal_committed(model: &CommitmentModel, at: usize, id: u64) -> bool {
    model.irrevocable(at, Update::Remove(id))
}
