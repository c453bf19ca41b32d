//! The invariants of a run at rest.
//!
//! Owns the money of each machine, and the comparison of the engines' balances with the payments' outcomes.

use std::collections::BTreeMap;

use fulmen_proto::forward::Event;
use fulmen_wire::units::ChannelId;

use super::script::Payment;
use super::world::{FORWARDER, World};
use crate::violation::{Violation, ensure};

/// The sum of each machine's balances.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Holdings(Vec<u64>);

impl Holdings {
    pub(super) fn of(world: &World) -> Holdings {
        let all = std::iter::once(FORWARDER).chain(world.peers());
        Holdings(all.map(|machine| balances(world, machine).values().map(|(ours, _)| ours).sum()).collect())
    }
}

/// Both balances of each channel of a machine, its own first.
fn balances(world: &World, machine: usize) -> BTreeMap<ChannelId, (u64, u64)> {
    let mut found = BTreeMap::new();
    world.engine(machine).for_each_shard(|shard| {
        found.extend(shard.channels().filter_map(|channel| {
            let (ours, theirs) = channel.balances()?;
            Some((channel.id(), (ours.0, theirs.0)))
        }));
    });
    found
}

/// Checks everything, given which payments arrived and the holdings before them.
pub(super) fn check_rest(
    world: &World,
    payments: &[Payment],
    ends: &BTreeMap<u64, bool>,
    before: &Holdings,
) -> Result<(), Violation> {
    check_quiet(world)?;
    check_agreement(world)?;
    let mut expected: Vec<i128> = before.0.iter().map(|held| i128::from(*held)).collect();
    for (number, payment) in (0..).zip(payments) {
        let settled = ends.get(&number) == Some(&true);
        let received = world.seen.events.iter().filter(|(machine, event)| {
            *machine == payment.to
                && matches!(event, Event::PaymentReceived { payment_hash, .. } if *payment_hash == payment.numbered.hash)
        });
        let received = received.count();
        ensure!(
            received == usize::from(settled),
            Outcomes,
            "payment {number}: its sender says settled {settled}, its payee told of it {received} times"
        );
        let offered = world.seen.offered.get(&payment.numbered.hash).map_or(0, |offered| offered.len());
        ensure!(
            offered <= 1 && (offered == 1 || !settled),
            Forwarding,
            "payment {number}, settled {settled}, was offered on {offered} times"
        );
        if settled {
            let (amount, fee) = (i128::from(payment.numbered.amount.0), i128::from(payment.numbered.fee().0));
            expected[payment.from] -= amount + fee;
            expected[FORWARDER] += fee;
            expected[payment.to] += amount;
        }
    }
    let now: Vec<i128> = Holdings::of(world).0.into_iter().map(i128::from).collect();
    ensure!(now == expected, Money, "machines hold {now:?}, the payments say {expected:?}");
    Ok(())
}

/// Nothing is in flight or owed anywhere.
fn check_quiet(world: &World) -> Result<(), Violation> {
    for machine in std::iter::once(FORWARDER).chain(world.peers()) {
        let mut left = Vec::new();
        world.engine(machine).for_each_shard(|shard| {
            let occupancy = shard.occupancy();
            let owed = shard.unanswered_handoffs().count();
            let busy = shard.channels().filter(|channel| {
                channel.htlcs().next().is_some() || channel.is_settling() || !channel.is_usable()
            });
            let busy = busy.count();
            if occupancy.circuits + occupancy.offered + occupancy.incomplete_sets + owed + busy > 0 {
                left.push(format!("{occupancy:?}, {owed} handoffs owed, {busy} channels busy or unusable"));
            }
        });
        ensure!(left.is_empty(), Progress, "machine {machine} has left: {left:?}");
    }
    Ok(())
}

/// Both ends of each channel hold the same.
fn check_agreement(world: &World) -> Result<(), Violation> {
    let ours = balances(world, FORWARDER);
    let mut seen = 0;
    for peer in world.peers() {
        for (channel_id, (theirs, forwarders)) in balances(world, peer) {
            let known = ours.get(&channel_id).copied();
            ensure!(
                known == Some((forwarders, theirs)),
                Money,
                "channel {channel_id}: the forwarder says {known:?}, peer {peer} ({forwarders}, {theirs})"
            );
            seen += 1;
        }
    }
    ensure!(seen == ours.len(), NoComplaints, "of {} channels the peers have {seen}", ours.len());
    Ok(())
}
