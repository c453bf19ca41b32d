//! The durable form of what a turn changed, and the state it folds into.
//!
//! Owns [`Change`], the [`State`] of a shard and the one function that folds one into the other. Does not decide
//! anything. What a connection or a clock brings is no state: it is told anew after a restart.
//!
//! Invariant: a shard's state changes through `State::apply` alone, and each change applied is in the turn's record, so
//! folding the records from the first gives the same state again.

use std::collections::BTreeMap;

use bitcoin::hashes::Hash;
use fulmen_wire::units::{BlockHeight, ChannelId, Msat, NodeId, PaymentHash, Scid, Txid};

use crate::channel::{Channel, Delta, Htlc, Side};
use crate::onion::ReplayTag;

use super::channels::Channels;
use super::circuit::{Circuit, Circuits, Origin};
use super::config::ForwardingPolicy;
use super::handoff::{IncomingHtlc, OutgoingHtlc, Resolution};
use super::input::{ExpectedPayment, Now};
use super::receiver::Receiver;
use super::replay::ReplayMemory;

/// What a turn changed, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// The changes.
    pub changes: Vec<Change>,
}

impl Record {
    /// Whether the turn changed nothing, so that nothing needs to be made durable.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }
}

/// One change of a shard's state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The chain grew or shrank to this height.
    Height(BlockHeight),
    /// A channel was begun; its first delta follows.
    ChannelBegun {
        /// Its temporary id.
        channel_id: ChannelId,
        /// The peer.
        peer: NodeId,
        /// The operator's name for it; zero when the peer opened it.
        user_id: u64,
        /// Which of the node's channel keys it uses.
        key_index: u64,
        /// Its policy.
        policy: ForwardingPolicy,
    },
    /// A channel moved on.
    Channel {
        /// The channel.
        channel_id: ChannelId,
        /// How.
        delta: Delta,
    },
    /// A channel got its permanent id.
    ChannelNamed {
        /// Its temporary id.
        temporary_channel_id: ChannelId,
        /// Its permanent id.
        channel_id: ChannelId,
    },
    /// A channel can carry HTLCs.
    ChannelReady {
        /// The channel.
        channel_id: ChannelId,
        /// Its place in the chain.
        scid: Scid,
    },
    /// A channel that was never funded was given up.
    ChannelForgotten {
        /// The channel.
        channel_id: ChannelId,
    },
    /// A channel's policy was set.
    Policy {
        /// The channel.
        channel_id: ChannelId,
        /// Its policy.
        policy: ForwardingPolicy,
        /// Until when the policy before is good too.
        previous_until: Now,
    },
    /// A payment hash became payable.
    PaymentExpected(ExpectedPayment),
    /// The expected payments that expired by this time were forgotten.
    ExpectedPaymentsPruned(Now),
    /// An onion was accepted.
    OnionSeen {
        /// The onion.
        tag: ReplayTag,
        /// The HTLC it came with.
        htlc: IncomingHtlc,
        /// Until when it is remembered.
        cltv_expiry: BlockHeight,
    },
    /// A received HTLC was decided on, or an intercepted one was carried on.
    CircuitOpened {
        /// The HTLC.
        incoming: IncomingHtlc,
        /// What was decided.
        circuit: Circuit,
    },
    /// A received HTLC joined a set.
    PartHeld {
        /// What the set is locked to.
        payment_hash: PaymentHash,
        /// The HTLC.
        incoming: IncomingHtlc,
        /// The total of the set.
        total: Msat,
        /// When the set is given up, if this is its first part.
        deadline: Now,
    },
    /// All HTLCs of a set were resolved alike.
    SetClosed {
        /// What the set was locked to.
        payment_hash: PaymentHash,
        /// Whether they were fulfilled.
        paid: bool,
    },
    /// An HTLC was offered.
    Offered {
        /// The HTLC.
        outgoing: OutgoingHtlc,
        /// For whom.
        origin: Origin,
    },
    /// The end of an offered HTLC is known.
    OfferEnded {
        /// The HTLC.
        outgoing: OutgoingHtlc,
    },
    /// It is known how a received HTLC ends.
    Resolved {
        /// The HTLC.
        incoming: IncomingHtlc,
        /// How.
        resolution: Resolution,
    },
    /// Another shard's HTLC is held here, as a part of a payment to us.
    HandoffAccepted {
        /// The HTLC.
        incoming: IncomingHtlc,
    },
    /// This shard decided how another shard's HTLC is to be removed.
    HandoffResolved {
        /// The HTLC.
        incoming: IncomingHtlc,
        /// How.
        resolution: Resolution,
    },
    /// The other shard has recorded the resolution of its HTLC, which is forgotten here.
    HandoffAcked {
        /// The HTLC.
        incoming: IncomingHtlc,
    },
    /// The removal of a received HTLC is irrevocable.
    CircuitClosed {
        /// The HTLC.
        incoming: IncomingHtlc,
    },
}

/// A channel with what the shard adds to it.
#[derive(Debug)]
pub(crate) struct ChannelEntry {
    pub(crate) peer: NodeId,
    pub(crate) user_id: u64,
    /// Which of the node's channel keys it uses.
    pub(crate) key_index: u64,
    pub(crate) policies: Policies,
    /// The height at which it was begun.
    pub(crate) begun_at: BlockHeight,
    pub(crate) channel: Channel,
}

/// A channel's policy, and the one before it for as long as senders may not know better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Policies {
    pub(crate) current: ForwardingPolicy,
    pub(crate) previous: Option<PreviousPolicy>,
}

/// A policy that was replaced, and until when it is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PreviousPolicy {
    pub(crate) policy: ForwardingPolicy,
    pub(crate) until: Now,
}

impl Policies {
    pub(crate) const fn new(current: ForwardingPolicy) -> Policies {
        Policies { current, previous: None }
    }

    pub(crate) fn set(&mut self, policy: ForwardingPolicy, until: Now) {
        self.previous = Some(PreviousPolicy { policy: self.current, until });
        self.current = policy;
    }

    /// The policies an HTLC may satisfy, the current one first. What the operator switches off is off at once.
    pub(crate) fn accepted(&self, now: Now) -> impl Iterator<Item = ForwardingPolicy> + use<> {
        let disabled = self.current.disabled;
        let previous = self.previous.filter(|previous| now < previous.until);
        let previous = previous.map(|previous| ForwardingPolicy { disabled, ..previous.policy });
        [Some(self.current), previous].into_iter().flatten()
    }
}

/// The durable state of a shard.
#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) height: BlockHeight,
    pub(crate) next_key_index: u64,
    pub(crate) channels: Channels,
    pub(crate) scids: BTreeMap<Scid, ChannelId>,
    pub(crate) circuits: Circuits,
    pub(crate) receiver: Receiver,
    pub(crate) replay: ReplayMemory,
}

impl ChannelEntry {
    /// Whether a peer opened the channel and its funding was not seen to confirm.
    pub(crate) fn is_unconfirmed(&self) -> bool {
        self.channel.opener() == Side::Remote && self.channel.scid().is_none()
    }

    /// Whether this output of this transaction is the channel's funding output.
    pub(crate) fn is_funded_by(&self, txid: Txid, output: u16) -> bool {
        self.channel.funding_outpoint().is_some_and(|outpoint| {
            outpoint.txid.to_byte_array() == txid.0 && outpoint.vout == u32::from(output)
        })
    }
}

impl State {
    /// A received HTLC, while its channel has it.
    pub(crate) fn received_htlc(&self, incoming: IncomingHtlc) -> Option<&Htlc> {
        let entry = self.channels.get(&incoming.channel_id)?;
        entry.channel.htlc(Side::Remote, incoming.htlc_id).map(|entry| &entry.htlc)
    }

    /// The state of a shard without channels. Key indexes carry the shard's number on top, so that two shards of a node
    /// never use one twice.
    pub(crate) fn new(shard: u16) -> State {
        State { next_key_index: u64::from(shard) << 48, ..State::default() }
    }

    /// Folds a change into the state. The deltas of channels are folded by the channels themselves.
    pub(crate) fn apply(&mut self, change: &Change) {
        match change {
            Change::Height(height) => {
                self.height = *height;
                self.replay.prune(*height);
            }
            Change::ChannelBegun { key_index, .. } => self.next_key_index = key_index + 1,
            Change::Channel { .. } => {}
            Change::ChannelNamed { temporary_channel_id, channel_id } => {
                if let Some(entry) = self.channels.remove(temporary_channel_id) {
                    self.channels.insert(*channel_id, entry);
                }
            }
            Change::ChannelReady { channel_id, scid } => {
                self.scids.insert(*scid, *channel_id);
            }
            Change::ChannelForgotten { channel_id } => {
                self.channels.remove(channel_id);
            }
            Change::Policy { channel_id, policy, previous_until } => {
                if let Some(entry) = self.channels.get_mut(channel_id) {
                    entry.policies.set(*policy, *previous_until);
                }
            }
            Change::PaymentExpected(payment) => self.receiver.register(payment.clone()),
            Change::ExpectedPaymentsPruned(now) => self.receiver.prune(*now),
            Change::OnionSeen { tag, htlc, cltv_expiry } => self.replay.remember(*tag, *htlc, *cltv_expiry),
            Change::PartHeld { payment_hash, incoming, total, deadline } => {
                self.receiver.hold(*payment_hash, *incoming, *total, *deadline);
            }
            Change::SetClosed { payment_hash, paid } => self.receiver.close_set(*payment_hash, *paid),
            circuits => self.circuits.apply(circuits),
        }
    }
}
