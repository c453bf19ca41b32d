//! When channels sign: the last step of a turn (BOLT 2, "Committing Updates So Far").
//!
//! Owns the batching of commitments. Does not build or sign them; see
//! [`Channel::plan_turn_end`](crate::channel::Channel::plan_turn_end).
//!
//! Policy. What a turn brings a channel goes into one `commitment_signed` at the turn's end, after every message,
//! command, block and decision. An idle channel so signs what others wait for at once; one whose last
//! `commitment_signed` is unanswered gathers updates until the answer. Two things wait longer:
//!
//! - A `commitment_signed` that covers only fulfillments. The preimages have been sent already, and no forward depends
//!   on the removals; the next addition is signed together with them. Otherwise it is sent after 0.2 s
//!   ([`Shard::wake_at`]); or, while it would sign more HTLCs again than it removes, and eight at least, with the first
//!   [`Input::Tick`](crate::forward::Input::Tick) that comes a second later.
//! - One that would sign [sixteen](crate::channel::CommitDelay::Brief) *young* HTLCs again for each of its updates,
//!   fulfillments aside. Young HTLCs were added in the last 0.2 s, and are likely to be resolved soon. It is sent as
//!   soon as the ratio falls below sixteen, because HTLCs are resolved or no longer young, or because updates join it;
//!   in any case after 2 ms for each young HTLC, 0.2 s at most. A `revoke_and_ack` that is due then waits with it,
//!   unless an HTLC of ours is with the peer, which may hold back its preimage until it is answered. The wait lets the
//!   peer gather further additions, for each of which it would sign all young HTLCs again. Additions it has signed are
//!   not delayed, since an HTLC is forwarded only once both sides are committed to it.
//!
//! Arithmetic. Each `commitment_signed` signs every untrimmed HTLC pending in it, so an HTLC is signed by us once for
//! each of them from the one that adds it to the last before the one that removes it, on either channel. Two is the
//! least a forward can do with, and as many are checked. Of n HTLCs in flight that move in g groups, one behind the
//! other, every group's additions sign the others once more, and so do its removals: nearly 4 g made per forward if
//! nothing waits, 2 g if fulfillments do, and 2 if small groups wait for the end of a large one. The peers set g: one
//! that signs its first addition at once and gathers the rest until the answer makes groups of 1 and n - 1 of any wave,
//! and of every closed loop; there each lone one that is paid ahead brings the next, and each costs the peer n
//! signatures and us n checks.
//!
//! What waiting costs. Where HTLCs come evenly, r a second, r * 0.2 s of them are young and a sixteenth of that must
//! gather: the first waits for 12 ms, independent of r, and none if fewer than 80 per second arrive on a channel. One
//! that comes behind a burst waits for longer: for 32 ms behind sixteen that are not resolved meanwhile. The wait saves
//! 20 us of signing for each young HTLC, as much of the peer's checking, and the same both ways for its answer. HTLCs
//! held for longer than 0.2 s delay nothing.
//!
//! Measured, HTLC signatures checked and made per forward, 700,000 msat: 2.00 and 2.00 at any depth between shards
//! (example `turn`). Between LDK nodes (`bench/peers`), 100 in flight: 3.0 and 2.0 in waves, 4.7 and 2.1 in a closed
//! loop (6.1 and 2.2 if answers never waited, 5.5 and 4.1 if additions did not); 400 in flight: 3.0 and 2.0. There,
//! LDK's own forwarder takes 4 to 8 of each at 100, and 4 to 7 at 400. One in flight, payment after payment: 2
//! commitments signed per forward instead of 4, at 4.0 and 2.0 instead of 2.0 and 2.0, which takes a fifth less of the
//! processor.
//!
//! Invariant: no channel waits for longer than a second and the time between two ticks, and none that another step
//! depends on for longer than briefly.

use fulmen_wire::units::{ChannelId, Signature};

use crate::channel::{CommitDelay, Plan, Side, SignJob};

use super::open_turn::OpenTurn;
use crate::forward::shard::Shard;

impl Shard {
    /// Lets those channels wait that had better; time's passing ends all waiting.
    pub(crate) fn defer_commitments(&mut self, turn: &mut OpenTurn, ticked: bool) {
        let now = turn.now;
        let overdue = match ticked {
            true => self.deferred.take_due_at_tick(now),
            false => self.deferred.take_due(now),
        };
        for channel_id in &overdue {
            self.deferred.release_revocation(*channel_id, &mut turn.out.send);
        }
        turn.touched.retain(|channel_id| {
            let Some(entry) = self.state.channels.get(channel_id) else {
                self.deferred.drop_revocation(*channel_id);
                return true;
            };
            let delay = entry.channel.commit_delay(self.deferred.young_from(*channel_id, now));
            self.deferred.note(*channel_id, now, entry.channel.latest_update_order());
            match delay {
                _ if overdue.contains(channel_id) => {}
                CommitDelay::Long => self.deferred.defer_until_tick(*channel_id, now),
                CommitDelay::Brief { ms, answer } => {
                    self.deferred.defer_briefly(*channel_id, now, ms);
                    if answer {
                        self.deferred.hold_revocation(*channel_id, &mut turn.out.send);
                        return false;
                    }
                }
                CommitDelay::None => self.deferred.cancel(*channel_id),
            }
            self.deferred.release_revocation(*channel_id, &mut turn.out.send);
            delay == CommitDelay::None
        });
        turn.touched.extend(overdue);
    }

    /// Has every touched channel send what it owes its peer: `commitment_signed` first of all. All signatures of a
    /// round are made as one batch; a channel may owe more than one message, and so take part in a few rounds.
    pub(crate) fn sign_commitments(&mut self, turn: &mut OpenTurn) {
        let context = self.context();
        while !turn.touched.is_empty() {
            let touched = std::mem::take(&mut turn.touched);
            self.derive_keys(&touched, Side::Remote);
            let planned: Vec<(ChannelId, Plan)> = touched
                .into_iter()
                .filter_map(|channel_id| {
                    let plan = self.state.channels.get(&channel_id)?.channel.plan_turn_end(&context)?;
                    Some((channel_id, plan))
                })
                .collect();
            let jobs = planned.iter().flat_map(|(_, plan)| &plan.sign);
            let signatures: Vec<Signature> = jobs.map(SignJob::sign).collect();
            self.counters.ecdsa_signed += signatures.len() as u64;
            let mut signatures = signatures.as_slice();
            for (channel_id, plan) in planned {
                let (mine, others) = signatures.split_at(plan.sign.len());
                signatures = others;
                self.apply_signed(turn, channel_id, plan, mine);
            }
        }
    }
}
