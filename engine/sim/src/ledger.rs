//! The balance of every node and channel, computed from settled HTLCs and compared with the engine's (BOLT 2, BOLT 3).
//!
//! Owns the facts of channels, the sums of the HTLCs settled in each, and each node's totals according to its events.
//!
//! Checks: a channel's balance is, at every step and on both sides, its first balance and the HTLCs that settled
//! there; a commitment's outputs, fee and trimmed HTLCs are the capacity; the gain of a node's channels is the sum
//! received and earned less the sum paid.

use std::collections::BTreeSet;

use bitcoin::{OutPoint, Transaction, Txid};
use fulmen_proto::channel::{Channel, Side};
use fulmen_proto::commitment::{ANCHOR_OUTPUT, ChannelType, commitment_weight};
use fulmen_wire::units::{ChannelId, Msat, Sat, Scid};

use crate::violation::{Violation, ensure};

/// A channel, whose ends are 0, the opener, and 1.
#[derive(Debug)]
pub(crate) struct ChannelFacts {
    pub(crate) ends: [usize; 2],
    pub(crate) capacity: Sat,
    pub(crate) push: Msat,
    pub(crate) channel_id: Option<ChannelId>,
    pub(crate) outpoint: Option<OutPoint>,
    pub(crate) scid: Option<Scid>,
    /// Which ends reported it funded, ready, closed.
    pub(crate) funded: [bool; 2],
    pub(crate) ready: [bool; 2],
    pub(crate) closed: [Option<Txid>; 2],
    /// Whether an end was commanded to close it.
    pub(crate) closing: bool,
    sides: [Account; 2],
}

/// The balance of one end of a channel, according to the messages.
#[derive(Debug, Default)]
struct Account {
    /// The change by HTLCs that are gone from this end.
    settled_msat: i128,
    /// Fulfilled HTLCs that are still there, by who offered them, id and amount.
    settling: BTreeSet<(bool, u64, u64)>,
    /// The commitment looked at last.
    commitment: u64,
}

/// A node's gains and losses according to its events, in millisatoshi.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct EventTotals {
    pub(crate) received: u64,
    pub(crate) paid: u64,
    pub(crate) fees: u64,
}

impl ChannelFacts {
    pub(crate) fn new(ends: [usize; 2], capacity: Sat, push: Msat) -> ChannelFacts {
        ChannelFacts {
            ends,
            capacity,
            push,
            channel_id: None,
            outpoint: None,
            scid: None,
            funded: [false; 2],
            ready: [false; 2],
            closed: [None; 2],
            closing: false,
            sides: [Account::default(), Account::default()],
        }
    }

    /// Which end a node is.
    pub(crate) fn end_of(&self, node: usize) -> usize {
        usize::from(self.ends[1] == node)
    }

    /// The first balance of an end, in millisatoshi.
    pub(crate) fn first(&self, end: usize) -> i128 {
        let pushed = i128::from(self.push.0);
        if end == 0 { i128::from(self.capacity.to_msat().0) - pushed } else { pushed }
    }

    /// An HTLC that end `offered_by` offered was fulfilled by the other, though it is still in both's commitments.
    pub(crate) fn fulfilled(&mut self, offered_by: usize, id: u64, amount: Msat) {
        for (end, account) in self.sides.iter_mut().enumerate() {
            account.settling.insert((end == offered_by, id, amount.0));
        }
    }

    /// Compares an end's account with the engine's.
    pub(crate) fn check(&mut self, end: usize, channel: &Channel) -> Result<(), Violation> {
        let (capacity, first) = (self.capacity.to_msat(), self.first(end));
        let Some((ours, theirs)) = channel.balances() else { return Ok(()) };
        let account = &mut self.sides[end];
        let gone = |(mine, id, _): &(bool, u64, u64)| {
            channel.htlc(if *mine { Side::Local } else { Side::Remote }, *id).is_none()
        };
        let left: Vec<(bool, u64, u64)> = account.settling.iter().copied().filter(gone).collect();
        for settled in left {
            account.settling.remove(&settled);
            account.settled_msat += if settled.0 { -1 } else { 1 } * i128::from(settled.2);
        }
        let expected = first + account.settled_msat;
        ensure!(
            i128::from(ours.0) == expected && ours.checked_add(theirs) == Some(capacity),
            Money,
            "channel {:?}: end {end} has {ours} of {capacity} (and the other {theirs}), the ledger says {expected}",
            channel.id()
        );
        let Some((number, _)) = channel.commitment_numbers() else { return Ok(()) };
        ensure!(account.commitment <= number.0, Commitments, "end {end} went back to commitment {number:?}");
        if account.commitment < number.0 {
            account.commitment = number.0;
            check_commitment(channel)?;
        }
        Ok(())
    }
}

/// Checks that a commitment accounts for the whole capacity.
fn check_commitment(channel: &Channel) -> Result<(), Violation> {
    let (Some((commitment, _)), Some(capacity)) = (channel.signed_local_commitment(), channel.capacity())
    else {
        return Ok(());
    };
    let outputs: u64 = commitment.tx.output.iter().map(|output| output.value.to_sat()).sum();
    let fee = commitment.feerate.fee(commitment_weight(commitment.channel_type, commitment.htlcs.len()));
    let (ours, theirs) = (channel.in_flight(Side::Local), channel.in_flight(Side::Remote));
    let in_flight = ours.1.saturating_add(theirs.1);
    let in_outputs: Sat = commitment.htlcs.iter().map(|output| output.amount).sum();
    let dust_limit = channel.terms(Side::Local).map_or(Sat::ZERO, |terms| terms.dust_limit);
    // Sums without an output: trimmed HTLCs, balances and anchors too small for an output, and the
    // fractions of a satoshi.
    let trimmed = in_flight.saturating_sub(in_outputs.to_msat()).floor_sat();
    let small = [commitment.to_local, commitment.to_remote].iter().filter(|output| output.is_none()).count();
    let anchors = match commitment.channel_type {
        ChannelType::Anchors => 2 * ANCHOR_OUTPUT.0,
        ChannelType::StaticRemotekey => 0,
    };
    let fractions = (ours.0 + theirs.0 + 3) as u64;
    let spare = trimmed.0 + small as u64 * dust_limit.0 + anchors + fractions;
    let kept = capacity.0.checked_sub(outputs);
    ensure!(
        kept.is_some_and(|kept| kept <= fee.0 + spare
            && (kept >= fee.0 || commitment.to_local.is_none() || commitment.to_remote.is_none())),
        Money,
        "commitment {:?} of {:?} pays {outputs} of {capacity}; its fee is {fee}, and at most {spare} are too small",
        commitment.number,
        channel.id()
    );
    Ok(())
}

/// Checks the outputs of a closing transaction against both ends' balances, in millisatoshi, and scripts.
pub(crate) fn check_closing(
    transaction: &Transaction,
    capacity: Sat,
    balances: [i128; 2],
    scripts: [&[u8]; 2],
) -> Result<(), Violation> {
    /// More than any dust limit in use here.
    const DUST_SAT: i128 = 600;
    /// More than a closing transaction costs at any rate in use here.
    const FEE_SAT_MAX: i128 = 40_000;
    let pays = |script: &[u8]| -> i128 {
        let outputs = transaction.output.iter().filter(|output| output.script_pubkey.as_bytes() == script);
        outputs.map(|output| i128::from(output.value.to_sat())).sum()
    };
    let (opener, other) = (pays(scripts[0]), pays(scripts[1]));
    let (owed_opener, owed_other) = (balances[0] / 1000, balances[1] / 1000);
    ensure!(
        transaction.output.len() == usize::from(opener > 0) + usize::from(other > 0),
        Closing,
        "the closing transaction pays others: {transaction:?}"
    );
    ensure!(
        balances[0] + balances[1] == i128::from(capacity.to_msat().0),
        Money,
        "the ledger holds {balances:?}, the channel {capacity}"
    );
    ensure!(
        other == owed_other || (other == 0 && owed_other < DUST_SAT),
        Closing,
        "the closing transaction pays {other} sat to the acceptor, who has {owed_other}"
    );
    let fee = owed_opener - opener;
    ensure!(
        fee > 0 && (fee < FEE_SAT_MAX || opener == 0),
        Closing,
        "the closing transaction pays {opener} sat to the opener, who has {owed_opener}"
    );
    Ok(())
}
