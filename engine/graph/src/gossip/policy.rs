//! The rule when an update becomes a policy of the graph (BOLT 7, `channel_update`, and BOLT 9 for unknown features).
//!
//! Invariant: a direction has a policy in the graph exactly when its last update may be used by routes.

use fulmen_wire::message::{ChannelUpdate, Message};
use fulmen_wire::units::{Msat, Sat};

use super::index::{ChannelEntry, Index};
use super::outcome::GossipOutcome;
use super::{Gossip, GraphChange, Log};
use crate::{Direction, Policy};

impl Policy {
    /// The policy of an update.
    pub(super) const fn of(update: &ChannelUpdate) -> Policy {
        Policy {
            fee_base: update.fee_base_msat.msat(),
            fee_proportional_millionths: update.fee_proportional_millionths.0,
            cltv_expiry_delta: update.cltv_expiry_delta,
            htlc_minimum: update.htlc_minimum_msat,
            htlc_maximum: update.htlc_maximum_msat,
            disabled: update.is_disabled(),
        }
    }
}

/// Whether routes may use a direction under this policy.
pub(super) fn is_usable(
    index: &Index,
    channel: &ChannelEntry,
    direction: Direction,
    policy: &Policy,
) -> bool {
    let limit = channel.funding.map_or(Msat::MAX_MONEY, Sat::to_msat);
    channel.routable
        && index.origin(channel, direction).routable
        && policy.htlc_minimum <= policy.htlc_maximum
        && policy.htlc_maximum <= limit
}

/// The capacity that a channel must have for this `htlc_maximum`; zero when that exceeds all money and so cannot be
/// true.
pub(super) fn capacity_for(htlc_maximum: Msat) -> Sat {
    if htlc_maximum <= Msat::MAX_MONEY { Sat(htlc_maximum.0.div_ceil(1_000)) } else { Sat::ZERO }
}

impl<L: Log> Gossip<L> {
    /// Updates the graph's policy of a direction to its last update.
    pub(super) fn set_policy(
        &mut self,
        outcome: &mut GossipOutcome,
        position: usize,
        direction: Direction,
        policy: Policy,
    ) {
        let channel = self.index.channel_at(position);
        let scid = channel.scid;
        let usable = is_usable(&self.index, channel, direction, &policy);
        let was_set = channel.policy_set[direction.origin()];
        if usable {
            outcome.changes.push(GraphChange::PolicySet { scid, direction, policy });
        } else if was_set {
            outcome.changes.push(GraphChange::PolicyRemoved { scid, direction });
        }
        self.index.channel_at_mut(position).policy_set[direction.origin()] = usable;
    }

    /// The same after a change of the channel or the node; the update is read from the store.
    pub(super) fn review_policy(
        &mut self,
        outcome: &mut GossipOutcome,
        position: usize,
        direction: Direction,
    ) {
        let channel = self.index.channel_at(position);
        let scid = channel.scid;
        let Some(update) = channel.updates[direction.origin()] else { return };
        let message = self.store.message(update.location).ok().and_then(|bytes| Message::decode(&bytes).ok());
        if let Some(Message::ChannelUpdate(update)) = message {
            return self.set_policy(outcome, position, direction, Policy::of(&update));
        }
        // Without the update it is unknown whether the policy may still be used.
        outcome.unreadable += 1;
        let policy_set = &mut self.index.channel_at_mut(position).policy_set[direction.origin()];
        if std::mem::take(policy_set) {
            outcome.changes.push(GraphChange::PolicyRemoved { scid, direction });
        }
    }
}
