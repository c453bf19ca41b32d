//! The update log: every HTLC and fee change of a channel with its progress, and the one reducer over it.
//!
//! Owns: the updates, their stages, and the contents of every commitment that follow from them (BOLT 2,
//! "Normal Operation"). Does not: check limits, know keys, or build transactions.
//!
//! Invariant: the only balance stored is ours without any HTLC still in the log; every other balance is derived by
//! [`Updates::reduce`]. Updates past [`Stage::Irrevocable`] are in every commitment, so they can leave the log.

use std::collections::{BTreeMap, btree_map};

use fulmen_wire::units::{FeeratePerKw, Msat};

use super::effect::ChannelEvent;
use super::htlc::{Htlc, HtlcEntry, PendingRemoval, Removal, Side, Stage, UpdateOrder};

/// A change of the fee rate on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FeeUpdate {
    pub(super) feerate: FeeratePerKw,
    pub(super) stage: Stage,
    pub(super) order: UpdateOrder,
}

/// The stages from which updates count, per sender. They define one commitment, or one way to look at the channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct View {
    /// For additions (and fee changes) sent by us.
    pub(super) local_adds: Stage,
    /// For removals sent by us.
    pub(super) local_removals: Stage,
    /// For additions (and fee changes) sent by the peer.
    pub(super) remote_adds: Stage,
    /// For removals sent by the peer.
    pub(super) remote_removals: Stage,
}

impl View {
    const fn of(local: Stage, remote: Stage) -> View {
        View { local_adds: local, local_removals: local, remote_adds: remote, remote_removals: remote }
    }

    /// Our latest signed commitment.
    pub(super) const LOCAL_LATEST: View = View::of(Stage::InSender, Stage::InReceiver);
    /// Our next commitment, as the peer would sign it now.
    pub(super) const LOCAL_NEXT: View = View::of(Stage::Acknowledged, Stage::Proposed);
    /// The peer's latest commitment that we signed.
    pub(super) const REMOTE_LATEST: View = View::of(Stage::InReceiver, Stage::InSender);
    /// The peer's next commitment, as we would sign it now.
    pub(super) const REMOTE_NEXT: View = View::of(Stage::Proposed, Stage::Acknowledged);
    /// Only updates that cannot be undone any more.
    pub(super) const IRREVOCABLE: View = View::of(Stage::Irrevocable, Stage::Irrevocable);
    /// Every addition, but removals only once the peer has acknowledged ours, or we theirs. An amount affordable here
    /// is affordable in every commitment that holds the updates known now. The peer may add or raise the fee rate
    /// before it learns of ours; how far that can go is bounded in [`limits`](super::limits).
    pub(super) const PRUDENT: View = View {
        local_adds: Stage::Proposed,
        local_removals: Stage::Acknowledged,
        remote_adds: Stage::Proposed,
        remote_removals: Stage::Acknowledged,
    };

    /// The peer's view when it sent an update: its own updates, and ours up to its last `revoke_and_ack`, which came
    /// before the update on the same connection.
    pub(super) const PEER_KNEW: View = View {
        local_adds: Stage::Acknowledged,
        local_removals: Stage::Acknowledged,
        remote_adds: Stage::Proposed,
        remote_removals: Stage::Proposed,
    };

    /// The peer's least view when it first sent an update that it may be repeating after a reconnection: it may
    /// have acknowledged additions of ours in between, but has not signed them.
    pub(super) const PEER_KNEW_BEFORE: View = View { local_adds: Stage::InSender, ..View::PEER_KNEW };

    const fn adds(&self, side: Side) -> Stage {
        match side {
            Side::Local => self.local_adds,
            Side::Remote => self.remote_adds,
        }
    }

    const fn removals(&self, side: Side) -> Stage {
        match side {
            Side::Local => self.local_removals,
            Side::Remote => self.remote_removals,
        }
    }
}

/// The contents of a [`View`].
#[derive(Clone, Debug)]
pub(super) struct Balances<'a> {
    /// Ours, before fee and anchors, without HTLCs.
    pub(super) local: Msat,
    /// The peer's, before fee and anchors, without HTLCs.
    pub(super) remote: Msat,
    /// The fee rate.
    pub(super) feerate: FeeratePerKw,
    /// The HTLCs, ours first, each direction by id.
    pub(super) htlcs: Vec<&'a HtlcEntry>,
}

impl Balances<'_> {
    /// One side's balance.
    pub(super) fn of(&self, side: Side) -> Msat {
        match side {
            Side::Local => self.local,
            Side::Remote => self.remote,
        }
    }
}

/// Updates that our next `commitment_signed` would cover.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct UnsignedUpdates {
    /// Fulfillments: both sides know the preimage already, and nobody waits for them to be committed.
    pub(super) fulfilled: usize,
    /// Additions, failures and fee changes: forwards and upstream failures wait for them.
    pub(super) others: usize,
}

/// Both balances, with the amounts of some HTLCs moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Moved {
    local: i128,
    remote: i128,
}

impl Moved {
    /// Moves an HTLC's amount as far as the view shows; returns whether the HTLC is pending in it.
    ///
    /// Every amount is moved at most twice: from its offerer into the HTLC, and from there to whom the removal gives
    /// it.
    pub(super) fn count(&mut self, view: View, entry: &HtlcEntry) -> bool {
        if entry.added < view.adds(entry.offered_by) {
            return false;
        }
        let amount = i128::from(entry.htlc.amount.0);
        let (offerer, receiver) = match entry.offered_by {
            Side::Local => (&mut self.local, &mut self.remote),
            Side::Remote => (&mut self.remote, &mut self.local),
        };
        match &entry.removal {
            Some(removal) if removal.stage >= view.removals(entry.offered_by.other()) => {
                if removal.removal.is_fulfill() {
                    *offerer -= amount;
                    *receiver += amount;
                }
                false
            }
            _ => {
                *offerer -= amount;
                true
            }
        }
    }

    /// One side's balance. Plans only admit updates that their sender can pay, so in a commitment none falls below
    /// zero. In [`View::PRUDENT`] the peer's may, when it spends an HTLC's amount as soon as it claims it; it is zero
    /// then.
    pub(super) fn balance(&self, side: Side) -> Msat {
        let balance = match side {
            Side::Local => self.local,
            Side::Remote => self.remote,
        };
        Msat(u64::try_from(balance.max(0)).unwrap_or(u64::MAX))
    }
}

/// An update of ours that the peer may not have, for retransmission.
#[derive(Clone, Copy, Debug)]
pub(super) enum Unacknowledged<'a> {
    /// An `update_add_htlc`.
    Add(&'a Htlc),
    /// A removal.
    Remove(u64, &'a Removal),
    /// An `update_fee`.
    Fee(FeeratePerKw),
}

/// The update log of one channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Updates {
    pub(super) capacity: Msat,
    pub(super) opener: Side,
    /// Our balance if no HTLC of the log existed.
    pub(super) settled_local: Msat,
    /// The fee rate if no fee update of the log existed.
    pub(super) feerate: FeeratePerKw,
    pub(super) fees: Vec<FeeUpdate>,
    pub(super) offered: BTreeMap<u64, HtlcEntry>,
    pub(super) received: BTreeMap<u64, HtlcEntry>,
    pub(super) next_offered_id: u64,
    pub(super) next_received_id: u64,
    pub(super) latest_order: UpdateOrder,
}

impl Updates {
    /// The log of a new channel; `local` is our part of `capacity`.
    pub(super) fn new(capacity: Msat, opener: Side, local: Msat, feerate: FeeratePerKw) -> Updates {
        Updates {
            capacity,
            opener,
            settled_local: local,
            feerate,
            fees: Vec::new(),
            offered: BTreeMap::new(),
            received: BTreeMap::new(),
            next_offered_id: 0,
            next_received_id: 0,
            latest_order: UpdateOrder::default(),
        }
    }

    /// The one reducer: balances, fee rate and HTLCs of a view. [`Moved`] moves the amounts.
    pub(super) fn reduce(&self, view: View) -> Balances<'_> {
        let mut moved = self.settled();
        let mut htlcs = Vec::with_capacity(self.offered.len() + self.received.len());
        htlcs.extend(self.entries().filter(|entry| moved.count(view, entry)));
        let pending: i128 = htlcs.iter().map(|entry| i128::from(entry.htlc.amount.0)).sum();
        assert_eq!(
            moved.local + moved.remote + pending,
            i128::from(self.capacity.0),
            "balances and HTLCs add up to the capacity in {view:?}"
        );
        let (local, remote) = (moved.balance(Side::Local), moved.balance(Side::Remote));
        Balances { local, remote, feerate: self.feerate(view), htlcs }
    }

    /// Both balances if no HTLC of the log existed: where the reducer begins.
    pub(super) fn settled(&self) -> Moved {
        let local = i128::from(self.settled_local.0);
        Moved { local, remote: i128::from(self.capacity.0) - local }
    }

    /// The fee rate of a view.
    pub(super) fn feerate(&self, view: View) -> FeeratePerKw {
        let mut latest_first = self.fees.iter().rev();
        let fee = latest_first.find(|fee| fee.stage >= view.adds(self.opener));
        fee.map_or(self.feerate, |fee| fee.feerate)
    }

    /// All HTLCs, ours first, each direction by id.
    pub(super) fn entries(&self) -> impl Iterator<Item = &HtlcEntry> {
        self.offered.values().chain(self.received.values())
    }

    /// The HTLC that `by` offered under `id`.
    pub(super) fn entry(&self, by: Side, id: u64) -> Option<&HtlcEntry> {
        match by {
            Side::Local => self.offered.get(&id),
            Side::Remote => self.received.get(&id),
        }
    }

    /// The id of the next HTLC that `by` offers.
    pub(super) fn next_id(&self, by: Side) -> u64 {
        match by {
            Side::Local => self.next_offered_id,
            Side::Remote => self.next_received_id,
        }
    }

    /// Every fee rate that some commitment has or may yet have, the irrevocable one first.
    pub(super) fn feerates(&self) -> impl Iterator<Item = FeeratePerKw> {
        std::iter::once(self.feerate).chain(self.fees.iter().map(|fee| fee.feerate))
    }

    /// Whether an update of `by` stands at this stage.
    pub(super) fn any_at(&self, by: Side, stage: Stage) -> bool {
        (self.opener == by && self.fees.iter().any(|fee| fee.stage == stage))
            || self.entries().any(|entry| {
                if entry.offered_by == by {
                    entry.added == stage
                } else {
                    entry.removal.as_ref().is_some_and(|removal| removal.stage == stage)
                }
            })
    }

    /// The updates that our next `commitment_signed` covers.
    pub(super) fn unsigned(&self) -> UnsignedUpdates {
        let mut unsigned = UnsignedUpdates::default();
        for entry in self.entries() {
            let (adds_at, removals_at) = match entry.offered_by {
                Side::Local => (Stage::Proposed, Stage::Acknowledged),
                Side::Remote => (Stage::Acknowledged, Stage::Proposed),
            };
            unsigned.others += usize::from(entry.added == adds_at);
            if let Some(pending) = entry.removal.as_ref().filter(|pending| pending.stage == removals_at) {
                let kind =
                    if pending.removal.is_fulfill() { &mut unsigned.fulfilled } else { &mut unsigned.others };
                *kind += 1;
            }
        }
        let fees_at = match self.opener {
            Side::Local => Stage::Proposed,
            Side::Remote => Stage::Acknowledged,
        };
        unsigned.others += self.fees.iter().filter(|fee| fee.stage == fees_at).count();
        unsigned
    }

    /// Whether an addition of `by` stands at this stage.
    pub(super) fn any_add_at(&self, by: Side, stage: Stage) -> bool {
        self.entries().any(|entry| entry.offered_by == by && entry.added == stage)
    }

    /// Whether the peer may still remove an HTLC of ours.
    pub(super) fn any_offered_unresolved(&self) -> bool {
        self.offered.values().any(|entry| entry.removal.is_none())
    }

    /// Whether there is neither an HTLC nor a fee change on its way.
    pub(super) fn is_empty(&self) -> bool {
        self.offered.is_empty() && self.received.is_empty() && self.fees.is_empty()
    }

    /// Our updates at this stage in the order they were sent.
    pub(super) fn unacknowledged(&self, stage: Stage) -> Vec<Unacknowledged<'_>> {
        let adds = self.offered.values().filter(|entry| entry.added == stage);
        let mut updates: Vec<_> = adds.map(|entry| (entry.order, Unacknowledged::Add(&entry.htlc))).collect();
        for entry in self.received.values() {
            if let Some(pending) = entry.removal.as_ref().filter(|removal| removal.stage == stage) {
                updates.push((pending.order, Unacknowledged::Remove(entry.htlc.id, &pending.removal)));
            }
        }
        if self.opener == Side::Local {
            let fees = self.fees.iter().filter(|fee| fee.stage == stage);
            updates.extend(fees.map(|fee| (fee.order, Unacknowledged::Fee(fee.feerate))));
        }
        updates.sort_by_key(|(order, _)| *order);
        updates.into_iter().map(|(_, update)| update).collect()
    }

    /// Folds an addition.
    pub(super) fn add(&mut self, by: Side, htlc: Htlc, over_dust_exposure: bool) -> &HtlcEntry {
        let order = self.next_order();
        let (entries, next_id) = match by {
            Side::Local => (&mut self.offered, &mut self.next_offered_id),
            Side::Remote => (&mut self.received, &mut self.next_received_id),
        };
        *next_id = htlc.id + 1;
        let entry = HtlcEntry {
            offered_by: by,
            added: Stage::Proposed,
            removal: None,
            over_dust_exposure,
            order,
            htlc,
        };
        match entries.entry(entry.htlc.id) {
            btree_map::Entry::Vacant(vacant) => vacant.insert(entry),
            btree_map::Entry::Occupied(mut occupied) => {
                occupied.insert(entry);
                occupied.into_mut()
            }
        }
    }

    /// Folds a removal by `by`, the HTLC's receiver.
    pub(super) fn remove(&mut self, by: Side, id: u64, removal: Removal) {
        let order = self.next_order();
        let entries = match by {
            Side::Local => &mut self.received,
            Side::Remote => &mut self.offered,
        };
        if let Some(entry) = entries.get_mut(&id) {
            entry.removal = Some(PendingRemoval { removal, stage: Stage::Proposed, order });
        }
    }

    /// Folds a fee change of the opener.
    pub(super) fn set_fee(&mut self, feerate: FeeratePerKw) {
        let order = self.next_order();
        // A change that nobody signed yet is replaced: only the last one before a signature counts.
        self.fees.retain(|fee| fee.stage > Stage::Proposed);
        self.fees.push(FeeUpdate { feerate, stage: Stage::Proposed, order });
    }

    /// Folds a `commitment_signed` of `signer`: its proposals enter the other side's commitment, and the updates that
    /// the other side acknowledged-proposed enters there too.
    pub(super) fn commitment_signed(&mut self, signer: Side) {
        self.advance(signer, Stage::Proposed, Stage::InReceiver);
        self.advance(signer.other(), Stage::Acknowledged, Stage::InSender);
    }

    /// Folds a `revoke_and_ack` of `revoker` and reports the updates that became irrevocable.
    pub(super) fn revoke_and_ack(&mut self, revoker: Side, events: &mut Vec<ChannelEvent>) {
        self.advance(revoker.other(), Stage::InReceiver, Stage::Acknowledged);
        for entry in self.received.values() {
            if revoker == Side::Remote && entry.added == Stage::InSender {
                events.push(ChannelEvent::AddLockedIn {
                    htlc: entry.htlc.clone(),
                    over_dust_exposure: entry.over_dust_exposure,
                });
            }
        }
        self.advance(revoker, Stage::InSender, Stage::Irrevocable);
        self.settle(events);
    }

    /// Forgets the peer's unsigned proposals; ours stay, to be sent again.
    pub(super) fn forget_proposals_of_peer(&mut self) {
        // The forgotten HTLCs carry the latest ids, which the peer uses again for the same HTLCs or others.
        let first = self.received.values().find(|entry| entry.added == Stage::Proposed);
        self.next_received_id = first.map_or(self.next_received_id, |entry| entry.htlc.id);
        self.received.retain(|_, entry| entry.added > Stage::Proposed);
        for entry in self.offered.values_mut() {
            if entry.removal.as_ref().is_some_and(|removal| removal.stage == Stage::Proposed) {
                entry.removal = None;
            }
        }
        if self.opener == Side::Remote {
            self.fees.retain(|fee| fee.stage > Stage::Proposed);
        }
    }

    /// Forgets our unsigned additions.
    pub(super) fn drop_unsigned_additions(&mut self, events: &mut Vec<ChannelEvent>) {
        // Additions are signed in the order of their ids, so that these carry the latest.
        let first = self.offered.values().find(|entry| entry.added == Stage::Proposed);
        let Some(first) = first.map(|entry| entry.htlc.id) else { return };
        let dropped = self.offered.split_off(&first);
        self.next_offered_id = first;
        events.extend(dropped.into_keys().map(|id| ChannelEvent::AddDropped { id }));
    }

    /// The position of one more update.
    fn next_order(&mut self) -> UpdateOrder {
        self.latest_order.0 += 1;
        self.latest_order
    }

    /// Moves every update of `by` at `from` to `to`.
    fn advance(&mut self, by: Side, from: Stage, to: Stage) {
        let (adds, removals) = match by {
            Side::Local => (&mut self.offered, &mut self.received),
            Side::Remote => (&mut self.received, &mut self.offered),
        };
        for entry in adds.values_mut().filter(|entry| entry.added == from) {
            entry.added = to;
            if by == Side::Local && to >= Stage::Acknowledged {
                entry.htlc.onion_routing_packet = None;
            }
        }
        for removal in removals.values_mut().filter_map(|entry| entry.removal.as_mut()) {
            if removal.stage == from {
                removal.stage = to;
            }
        }
        if self.opener == by {
            for fee in self.fees.iter_mut().filter(|fee| fee.stage == from) {
                fee.stage = to;
            }
            // Of changes that have come equally far only the last counts; an opener may send many.
            let latest: Vec<FeeUpdate> = std::mem::take(&mut self.fees);
            for fee in latest {
                self.fees.retain(|earlier| earlier.stage != fee.stage);
                self.fees.push(fee);
            }
        }
    }

    /// Moves updates that are in every commitment out of the log and into the settled values.
    fn settle(&mut self, events: &mut Vec<ChannelEvent>) {
        let done = |removal: &PendingRemoval| removal.stage == Stage::Irrevocable;
        let ended: Vec<(Side, u64)> = self
            .entries()
            .filter(|entry| entry.removal.as_ref().is_some_and(done))
            .map(|entry| (entry.offered_by, entry.htlc.id))
            .collect();
        for (offered_by, id) in ended {
            let entries = match offered_by {
                Side::Local => &mut self.offered,
                Side::Remote => &mut self.received,
            };
            let Some(entry) = entries.remove(&id) else { continue };
            let Some(PendingRemoval { removal, .. }) = entry.removal else { continue };
            let (amount, fulfilled) = (entry.htlc.amount, removal.is_fulfill());
            match (offered_by, fulfilled) {
                (Side::Local, true) => self.settled_local = self.settled_local.saturating_sub(amount),
                (Side::Remote, true) => self.settled_local = self.settled_local.saturating_add(amount),
                (_, false) => {}
            }
            events.push(match offered_by {
                Side::Local if fulfilled => ChannelEvent::FulfillLockedIn { id },
                Side::Local => ChannelEvent::FailLockedIn { id, removal },
                Side::Remote => ChannelEvent::RemovalLockedIn { id, fulfilled },
            });
        }
        let irrevocable = self.fees.iter().rev().find(|fee| fee.stage == Stage::Irrevocable);
        self.feerate = irrevocable.map_or(self.feerate, |fee| fee.feerate);
        self.fees.retain(|fee| fee.stage < Stage::Irrevocable);
    }
}
