//! The invariants that hold whatever adversaries do.
//!
//! Checked after each round: the engine runs; its memory and its files stay within a fixed amount and a multiple of
//! the bytes that adversaries sent; it is no millisatoshi poorer, in-flight HTLCs whose preimage it knows counted as
//! its own; each commitment pays the relay fee at least, and no more of the HTLCs that the victim offered is trimmed
//! from it than the limit on dust allows; no offered HTLC is left past its expiry; no onion is carried on twice, over
//! whatever channels it came. Checked of honest payments: each settles in time.

use std::collections::{BTreeMap, BTreeSet};

use fulmen_proto::channel::{Channel, HtlcEntry, Side, Stage, State};
use fulmen_proto::commitment::{HtlcDirection, commitment_weight};
use fulmen_proto::forward::ForwardingPolicy;
use fulmen_proto::keys::CommitmentNumber;
use fulmen_wire::message::Message;
use fulmen_wire::units::{BlockHeight, ChannelId, FeeratePerKw, PaymentHash};

use super::world::{Spent, VICTIM, World};
use crate::violation::{Violation, ensure};

/// Bounds on the victim's memory and writes: a fixed amount and a multiple of the bytes that adversaries sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    heap_fixed: u64,
    heap_per_byte: u64,
    /// Within one call of the engine.
    peak_fixed: u64,
    peak_per_byte: u64,
    written_fixed: u64,
    written_per_byte: u64,
    written_per_payment: u64,
}

impl Default for Bounds {
    fn default() -> Bounds {
        Bounds {
            heap_fixed: 8 << 20,
            heap_per_byte: 40,
            peak_fixed: 32 << 20,
            peak_per_byte: 40,
            written_fixed: 4 << 20,
            written_per_byte: 12,
            written_per_payment: 64 << 10,
        }
    }
}

/// The most that may be trimmed: the default of the victim's `max_dust_htlc_exposure`, and as much again of HTLCs that
/// crossed a rise of the fee rate.
const DUST_EXPOSURE_MAX_MSAT: u64 = 2 * 5_000_000;

/// Blocks that the victim has after an offered HTLC's expiry to fail the channel (BOLT 2, "`cltv_expiry_delta`
/// Selection").
const GRACE_BLOCKS: u32 = 3;

/// State of earlier rounds that the checks compare with.
#[derive(Clone, Debug, Default)]
pub(super) struct Watched {
    honest: BTreeSet<ChannelId>,
    wealth_msat: u64,
    commitments: BTreeMap<ChannelId, CommitmentNumber>,
    /// What the victim owned of each channel that was opened later, when it was first seen: that is no gain.
    pushed_msat: BTreeMap<ChannelId, u64>,
    /// The HTLC that the victim offered for each payment hash: a hash stands for one onion.
    offered: BTreeMap<PaymentHash, Offered>,
}

/// An HTLC that the victim offered.
#[derive(Clone, Copy, Debug)]
struct Offered {
    htlc: (ChannelId, u64),
    /// The height from which its onion may have been forgotten, since the HTLC it came with has expired.
    forgotten_at: BlockHeight,
}

impl Watched {
    pub(super) fn is_honest(&self, channel_id: ChannelId) -> bool {
        self.honest.contains(&channel_id)
    }
}

impl World {
    /// Records the victim's wealth before the first action.
    pub(super) fn watch(&mut self, honest: impl IntoIterator<Item = ChannelId>) {
        self.watched.honest = honest.into_iter().collect();
        self.watched.wealth_msat = self.wealth_msat();
        self.watched.pushed_msat =
            self.channel_ids(VICTIM).into_iter().map(|channel_id| (channel_id, 0)).collect();
    }

    /// Notes an HTLC that the victim offers. A payment is offered on once, on one channel, until it has expired; sent
    /// again it has its id.
    pub(super) fn note_offer(&mut self, bytes: &[u8]) -> Result<(), Violation> {
        let Ok(Message::UpdateAddHtlc(add)) = Message::decode(bytes) else { return Ok(()) };
        let forgotten_at = add.cltv_expiry.saturating_add(ForwardingPolicy::default().cltv_expiry_delta);
        let offered = Offered { htlc: (add.channel_id, add.id), forgotten_at };
        match self.watched.offered.get(&add.payment_hash) {
            Some(first) if self.chain.height() < first.forgotten_at => ensure!(
                first.htlc == offered.htlc,
                Forwarding,
                "the victim carries an onion on twice: as HTLC {:?} and as {:?}",
                first.htlc,
                offered.htlc
            ),
            _ => {
                self.watched.offered.insert(add.payment_hash, offered);
            }
        }
        Ok(())
    }

    /// Whether no HTLC is in a channel between the victim and an honest peer.
    pub(super) fn honest_channels_are_idle(&self) -> bool {
        let mut idle = true;
        self.machines[VICTIM].engine.for_each_shard(|shard| {
            let mut honest = shard.channels().filter(|channel| self.watched.is_honest(channel.id()));
            idle &= honest.all(|channel| channel.htlcs().next().is_none());
        });
        idle
    }

    /// The victim's balances, and the incoming HTLCs whose preimage it knows.
    fn wealth_msat(&self) -> u64 {
        let mut wealth = 0;
        self.machines[VICTIM].engine.for_each_shard(|shard| {
            for channel in shard.channels() {
                let incoming = channel.htlcs().filter(|entry| {
                    entry.offered_by == Side::Remote && self.known_hashes.contains(&entry.htlc.payment_hash)
                });
                let claimable: u64 = incoming.map(|entry| entry.htlc.amount.0).sum();
                wealth += channel.balances().map_or(0, |(ours, _)| ours.0) + claimable;
            }
        });
        wealth
    }

    /// What the victim owned at first of the channels that were opened since.
    fn pushed_msat(&mut self) -> u64 {
        let (mut sum, known) = (0, &mut self.watched.pushed_msat);
        self.machines[VICTIM].engine.for_each_shard(|shard| {
            for channel in shard.channels() {
                let Some((ours, _)) = channel.balances() else { continue };
                sum += *known.entry(channel.id()).or_insert(ours.0);
            }
        });
        sum
    }

    /// Checks everything that holds at any time.
    pub(super) fn check(&mut self, payments: u64) -> Result<(), Violation> {
        self.check_growth(payments)?;
        let wealth = self.wealth_msat();
        let least = self.watched.wealth_msat + self.pushed_msat();
        ensure!(wealth >= least, Money, "the victim had {least} msat and has {wealth}");
        let height = self.chain.height();
        let mut result = Ok(());
        let commitments = &mut self.watched.commitments;
        self.machines[VICTIM].engine.for_each_shard(|shard| {
            for channel in shard.channels() {
                let checked = check_deadlines(channel, height).and_then(|()| {
                    let Some((number, _)) = channel.commitment_numbers() else { return Ok(()) };
                    if commitments.insert(channel.id(), number) == Some(number) {
                        return Ok(());
                    }
                    check_commitment(channel)
                });
                if result.is_ok() {
                    result = checked;
                }
            }
        });
        result
    }

    fn check_growth(&mut self, payments: u64) -> Result<(), Violation> {
        let Spent { attack_bytes, heap, heap_peak, .. } = self.spent;
        let bounds = self.bounds;
        let most = bounds.heap_fixed + bounds.heap_per_byte * attack_bytes;
        ensure!(
            heap <= most,
            Growth,
            "{heap} bytes of heap after {attack_bytes} bytes of attack; {most} at most"
        );
        let most = bounds.peak_fixed + bounds.peak_per_byte * attack_bytes;
        ensure!(
            heap_peak <= most,
            Growth,
            "{heap_peak} bytes of heap within a call after {attack_bytes} bytes of attack; {most} at most"
        );
        let store = self.machines[VICTIM].engine.stats().store;
        let most = bounds.written_fixed
            + bounds.written_per_byte * attack_bytes
            + bounds.written_per_payment * payments;
        let written = self.written();
        ensure!(
            written <= most,
            Growth,
            "{written} bytes of records after {attack_bytes} bytes of attack and {payments} payments; {most} at most"
        );
        // A checkpoint is due once the log has grown by its size, so that files stay within twice the log's bound.
        let most = 2 * most;
        ensure!(store.file_bytes <= most, Growth, "{} bytes of files; {most} at most", store.file_bytes);
        Ok(())
    }
}

fn check_deadlines(channel: &Channel, height: BlockHeight) -> Result<(), Violation> {
    if !matches!(channel.state(), State::Normal | State::ShuttingDown) {
        return Ok(());
    }
    let overdue = channel
        .htlcs()
        .find(|entry| entry.offered_by == Side::Local && entry.htlc.cltv_expiry.0 + GRACE_BLOCKS < height.0);
    ensure!(
        overdue.is_none(),
        Money,
        "at height {} channel {} still offers an HTLC that expired at {}",
        height.0,
        channel.id(),
        overdue.map_or(0, |entry| entry.htlc.cltv_expiry.0)
    );
    Ok(())
}

/// Checks that our commitment can be relayed, and that its trimmed HTLCs are within the exposure we allow.
fn check_commitment(channel: &Channel) -> Result<(), Violation> {
    let (Some((commitment, _)), Some(capacity)) = (channel.signed_local_commitment(), channel.capacity())
    else {
        return Ok(());
    };
    let outputs: u64 = commitment.tx.output.iter().map(|output| output.value.to_sat()).sum();
    let weight = commitment_weight(commitment.channel_type, commitment.htlcs.len());
    let (fee, least) = (capacity.0 - outputs, FeeratePerKw::FLOOR.fee(weight));
    ensure!(
        fee >= least.0,
        Money,
        "commitment {:?} of {} pays a fee of {fee} sat; no node relays it for less than {least}",
        commitment.number,
        channel.id()
    );
    let has_output = |entry: &HtlcEntry| {
        commitment
            .htlcs
            .iter()
            .any(|output| output.htlc.id == entry.htlc.id && output.htlc.direction == HtlcDirection::Offered)
    };
    let in_commitment = |entry: &&HtlcEntry| {
        entry.offered_by == Side::Local
            && entry.added >= Stage::InSender
            && entry.removal.as_ref().is_none_or(|removal| removal.stage < Stage::InReceiver)
    };
    let trimmed = channel.htlcs().filter(in_commitment).filter(|entry| !has_output(entry));
    let trimmed: u64 = trimmed.map(|entry| entry.htlc.amount.0).sum();
    ensure!(
        trimmed <= DUST_EXPOSURE_MAX_MSAT,
        Money,
        "commitment {:?} of {} trims {trimmed} msat that the victim offered",
        commitment.number,
        channel.id()
    );
    Ok(())
}
