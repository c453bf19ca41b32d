//! Settings of the operator: the limits of new channels, the policy of existing ones, the rules of receiving.
//!
//! Owns the values and their defaults (BOLT 2 channel parameters, BOLT 7 routing policy, the safety margins BOLT 2
//! derives in "`cltv_expiry_delta` Selection"). Does not check anything: `policy`, `receiver` and the channel do.

use fulmen_wire::units::{
    ChainHash, CltvDelta, FeeBaseMsat, FeeProportionalMillionths, FeeratePerKw, Msat, PaymentHash, Sat,
};

use super::description::NodeDescription;
use crate::channel::ChannelConfig;

/// A node's settings, shared by all channels of a shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeConfig {
    /// Which of the node's shards this is: no two of them use the same channel keys.
    pub shard: u16,
    /// How many shards the node has.
    pub shards: u16,
    /// The terms of channels we open and accept, and the bounds we hold peers to.
    pub channel: ChannelConfig,
    /// The largest channel opened or accepted.
    pub capacity_max: Sat,
    /// The fee rate of openings and closings until the first [`Input::Feerate`](crate::forward::Input::Feerate).
    pub feerate: FeeratePerKw,
    /// Whether peers may only open channels with anchor outputs. Without anchors a commitment cannot be fee-bumped, and
    /// the opener alone chooses its fee rate.
    pub anchors_only: bool,
    /// The most channels one peer may have with us, counting those being opened.
    pub channels_per_peer_max: usize,
    /// The most channels that one peer may be opening with us, no funding transaction named yet. They end with the
    /// connection, and take some 10 kB each.
    pub unfunded_channels_per_peer_max: usize,
    /// The most channels that one peer may have opened with us whose named funding transaction is not confirmed. Naming
    /// one costs nothing, and such a channel is remembered for 2,160 blocks.
    pub unconfirmed_channels_per_peer_max: usize,
    /// The most such channels of all peers together: identities cost nothing either. A peer that has a confirmed
    /// channel is not bound by it, so that strangers cannot keep it from opening another.
    pub unconfirmed_channels_max: usize,
    /// The most onions that a shard remembers against replay. Each takes some 130 bytes of memory (80 more in a node of
    /// several shards) and 60 of a checkpoint until its HTLC expires; while there are as many, the shard accepts no
    /// HTLC.
    pub replay_tags_max: usize,
    /// The policy a channel starts with.
    pub policy: ForwardingPolicy,
    /// The node as its `node_announcement` describes it; none is made without. [`Command::DescribeNode`] replaces it.
    ///
    /// [`Command::DescribeNode`]: crate::forward::Command::DescribeNode
    pub description: Option<NodeDescription>,
    /// The age at which an announced `channel_update` or `node_announcement` of ours is made again, in milliseconds.
    /// Nodes forget a channel whose updates are older than two weeks (BOLT 7, "Pruning the Network View").
    pub announcement_refresh_ms: u64,
    /// How long a peer is away, in milliseconds, before an announced channel with it is announced as disabled.
    pub disable_after_ms: u64,
    /// How long HTLCs that satisfy a channel's policy before the last change are still taken: senders learn of a change
    /// by gossip, and BOLT 7 asks for ten minutes.
    pub policy_grace_ms: u64,
    /// The safety margins of forwarding.
    pub expiry: ExpiryLimits,
    /// How long answers of peers are awaited.
    pub answer_timeouts: AnswerTimeouts,
    /// The most bytes of messages in one turn.
    pub send_bytes: SendLimits,
    /// Whether HTLCs are decided on, and offered, only after
    /// [`Input::ChainInStep`](crate::forward::Input::ChainInStep). A node that was off for days would otherwise forward
    /// HTLCs that have expired meanwhile.
    pub awaits_chain: bool,
    /// Whether each forward is held until the embedder resumes or fails it.
    pub intercept: bool,
    /// How long an incomplete multi-part set is held, counted from its first part: BOLT 4 asks for 60 s at least.
    pub mpp_timeout_ms: u64,
    /// Whether payments that carry their own preimage are taken without an invoice.
    pub accept_keysend: bool,
    /// The `min_final_cltv_expiry_delta` asked of keysend payments, which have no invoice to say it.
    pub keysend_min_final_cltv_expiry_delta: CltvDelta,
}

impl NodeConfig {
    /// Customary settings; closed channels pay to `shutdown_scriptpubkey` unless a command says otherwise.
    #[must_use]
    pub fn new(chain_hash: ChainHash, shutdown_scriptpubkey: Vec<u8>) -> NodeConfig {
        NodeConfig {
            shard: 0,
            shards: 1,
            channel: ChannelConfig::new(chain_hash, shutdown_scriptpubkey),
            capacity_max: Sat(21_000_000 * 100_000_000),
            feerate: FeeratePerKw(1_000),
            anchors_only: true,
            channels_per_peer_max: 1_000,
            unfunded_channels_per_peer_max: 16,
            unconfirmed_channels_per_peer_max: 16,
            unconfirmed_channels_max: 10_000,
            replay_tags_max: 1_000_000,
            policy: ForwardingPolicy::default(),
            description: None,
            announcement_refresh_ms: 10 * 24 * 60 * 60 * 1_000,
            disable_after_ms: 20 * 60 * 1_000,
            policy_grace_ms: 10 * 60 * 1_000,
            expiry: ExpiryLimits::default(),
            answer_timeouts: AnswerTimeouts::default(),
            send_bytes: SendLimits::default(),
            awaits_chain: false,
            intercept: false,
            mpp_timeout_ms: 60_000,
            accept_keysend: true,
            keysend_min_final_cltv_expiry_delta: CltvDelta(18),
        }
    }

    /// The shard that receives what is paid to us under this hash: it knows the expected payment and counts the parts,
    /// on any channel, so that an invoice is paid once and by all its parts.
    #[must_use]
    pub fn receiver(&self, payment_hash: PaymentHash) -> u16 {
        u16::from_be_bytes([payment_hash.0[0], payment_hash.0[1]]) % self.shards.max(1)
    }
}

/// The terms on which a channel forwards HTLCs: the fields of its BOLT 7 `channel_update`.
///
/// An HTLC above `htlc_maximum` is refused with `temporary_channel_failure`: BOLT 4 has no code for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ForwardingPolicy {
    /// `fee_base_msat`: asked of every HTLC.
    pub fee_base: Msat,
    /// `fee_proportional_millionths`: asked per millionth of the amount forwarded.
    pub fee_proportional_millionths: u32,
    /// `cltv_expiry_delta`: the blocks by which the outgoing HTLC must expire before the incoming one.
    pub cltv_expiry_delta: CltvDelta,
    /// `htlc_minimum_msat`: the smallest HTLC forwarded.
    pub htlc_minimum: Msat,
    /// `htlc_maximum_msat`: the largest HTLC forwarded.
    pub htlc_maximum: Msat,
    /// The `disable` bit: nothing is forwarded out on this channel.
    pub disabled: bool,
    /// The surcharge or discount for HTLCs that come in on this channel. It is no part of a `channel_update`.
    pub inbound_fee: InboundFee,
}

/// A fee on HTLCs that come in on a channel, on top of the outgoing channel's fee: negative to attract traffic,
/// positive to deter it. Senders that do not know of it pay the outgoing channel's fee alone, so positive ones turn
/// them away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InboundFee {
    /// Asked of every HTLC, in millisatoshi.
    pub base_msat: i32,
    /// Millionths of the incoming amount before this fee: the outgoing amount plus its fee.
    pub proportional_millionths: i32,
}

impl InboundFee {
    /// The fee for an HTLC of this amount, in millisatoshi, rounded down.
    #[must_use]
    pub const fn msat(self, amount: Msat) -> i128 {
        let proportional = (amount.0 as i128 * self.proportional_millionths as i128).div_euclid(1_000_000);
        self.base_msat as i128 + proportional
    }
}

/// A policy that cannot be meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyError {
    /// No HTLC could be large enough and small enough.
    #[error("htlc_minimum {minimum} is above htlc_maximum {maximum}")]
    EmptyRange {
        /// The smallest HTLC.
        minimum: Msat,
        /// The largest.
        maximum: Msat,
    },
    /// Fees above the amount itself.
    #[error("fee_proportional_millionths {0} is above 1000000: more than the amount forwarded")]
    FeeAboveAmount(u32),
    /// A base fee that no `channel_update` can carry.
    #[error("fee_base {0} is above {max} msat, the most that a channel_update can carry", max = u32::MAX)]
    FeeBaseTooLarge(Msat),
    /// The outgoing HTLC could be claimed when the incoming one has expired.
    #[error("cltv_expiry_delta is 0: an HTLC claimed at its expiry could not be claimed upstream")]
    NoDelta,
}

impl ForwardingPolicy {
    /// The fee asked for forwarding `amount` (BOLT 7 "HTLC Fees"), held at `u64::MAX`.
    #[must_use]
    pub fn fee(&self, amount: Msat) -> Msat {
        let rate = FeeProportionalMillionths(self.fee_proportional_millionths);
        rate.forwarding_fee(self.fee_base, amount).unwrap_or(Msat(u64::MAX))
    }

    /// The amount that must come in, over a channel with this inbound fee, for `amount` to go out: at least `amount`,
    /// however large the discount. `None` past `u64`.
    #[must_use]
    pub fn incoming_amount(&self, amount: Msat, inbound_fee: InboundFee) -> Option<Msat> {
        let before = amount.checked_add(self.fee(amount))?;
        let needed = i128::from(before.0) + inbound_fee.msat(before);
        u64::try_from(needed.max(i128::from(amount.0))).ok().map(Msat)
    }

    /// Whether the policy can be meant.
    ///
    /// # Errors
    /// The rule that it breaks.
    pub fn check(&self) -> Result<(), PolicyError> {
        if self.htlc_minimum > self.htlc_maximum {
            return Err(PolicyError::EmptyRange { minimum: self.htlc_minimum, maximum: self.htlc_maximum });
        }
        if self.fee_base > FeeBaseMsat(u32::MAX).msat() {
            return Err(PolicyError::FeeBaseTooLarge(self.fee_base));
        }
        if self.fee_proportional_millionths > 1_000_000 {
            return Err(PolicyError::FeeAboveAmount(self.fee_proportional_millionths));
        }
        if self.cltv_expiry_delta == CltvDelta(0) {
            return Err(PolicyError::NoDelta);
        }
        Ok(())
    }
}

impl Default for ForwardingPolicy {
    fn default() -> ForwardingPolicy {
        ForwardingPolicy {
            fee_base: Msat(1_000),
            fee_proportional_millionths: 100,
            cltv_expiry_delta: CltvDelta(34),
            htlc_minimum: Msat(1),
            htlc_maximum: Msat::MAX_MONEY,
            disabled: false,
            inbound_fee: InboundFee::default(),
        }
    }
}

/// How near to and how far from the present an HTLC may expire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExpiryLimits {
    /// An incoming HTLC that expires within this many blocks is not forwarded: past that its fulfillment could no
    /// longer be enforced on chain (BOLT 2's "deadline for received HTLCs", `2R+G+S`).
    pub incoming_min: CltvDelta,
    /// An outgoing HTLC that would expire within this many blocks is not offered.
    pub outgoing_min: CltvDelta,
    /// An HTLC we offered fails its channel when it is still pending this many blocks past its expiry: BOLT 2's grace
    /// period `G`, for a peer whose view of the chain is a little behind.
    pub offered_grace: CltvDelta,
    /// A received HTLC whose preimage we know fails its channel when it is still pending this many blocks before its
    /// expiry. BOLT 2 finds 18 reasonable; fewer leave payments that arrive with the customary final expiry delta of 18
    /// some blocks in which the peer may answer.
    pub fulfilled_min: CltvDelta,
    /// BOLT 4 `max_htlc_cltv`: an incoming HTLC that expires later than this is not forwarded.
    pub max: CltvDelta,
}

/// How long a peer may take to answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AnswerTimeouts {
    /// The longest wait on one connection for `channel_reestablish`, `revoke_and_ack`, `shutdown` and `closing_signed`,
    /// in milliseconds; then the peer is warned and the connection ends.
    pub answer_ms: u64,
    /// The longest wait for `accept_channel`, `funding_created` and `funding_signed`, in milliseconds; then the channel
    /// is forgotten. A person at the other end may have to sign the funding transaction.
    pub opening_ms: u64,
    /// The longest that both sides may take to agree on a closing transaction, connected or not, in milliseconds; then
    /// the channel fails.
    pub closing_ms: u64,
}

impl Default for AnswerTimeouts {
    fn default() -> AnswerTimeouts {
        AnswerTimeouts { answer_ms: 120_000, opening_ms: 600_000, closing_ms: 86_400_000 }
    }
}

/// The most bytes of messages that a turn may hold, as far as they are not owed for HTLCs that end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SendLimits {
    /// To one peer. Its connection ends when there are more, and it is sent the rest on the next one.
    pub peer: usize,
    /// To all peers together. While there are more, peers that reconnect have to come again.
    pub turn: usize,
}

impl Default for SendLimits {
    fn default() -> SendLimits {
        SendLimits { peer: 16 << 20, turn: 256 << 20 }
    }
}

impl Default for ExpiryLimits {
    fn default() -> ExpiryLimits {
        ExpiryLimits {
            incoming_min: CltvDelta(18),
            outgoing_min: CltvDelta(3),
            offered_grace: CltvDelta(2),
            fulfilled_min: CltvDelta(10),
            max: CltvDelta(2016),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fees_are_rounded_down_and_never_wrap() {
        let policy =
            ForwardingPolicy { fee_base: Msat(200), fee_proportional_millionths: 2000, ..Default::default() };
        assert_eq!(policy.fee(Msat(4_999_999)), Msat(10_199));
        assert_eq!(policy.fee(Msat(5_000_000)), Msat(10_200));
        let absurd = ForwardingPolicy { fee_proportional_millionths: u32::MAX, ..policy };
        assert_eq!(absurd.fee(Msat(u64::MAX)), Msat(u64::MAX));
    }

    #[test]
    fn an_inbound_fee_adds_or_lets_off_but_never_makes_a_loss() {
        let policy = ForwardingPolicy {
            fee_base: Msat(1_000),
            fee_proportional_millionths: 500,
            ..Default::default()
        };
        let needed = |base_msat, proportional_millionths| {
            policy.incoming_amount(Msat(1_000_000), InboundFee { base_msat, proportional_millionths })
        };
        assert_eq!(needed(0, 0), Some(Msat(1_001_500)));
        // 100 millionths of 1,001,500, rounded down.
        assert_eq!(needed(7, 100), Some(Msat(1_001_607)));
        // A discount is rounded in the payer's favour.
        assert_eq!(needed(-7, -100), Some(Msat(1_001_392)));
        assert_eq!(needed(i32::MIN, i32::MIN), Some(Msat(1_000_000)));
        assert_eq!(policy.incoming_amount(Msat(u64::MAX), InboundFee::default()), None);
        let dear = InboundFee { base_msat: i32::MAX, proportional_millionths: i32::MAX };
        assert_eq!(policy.incoming_amount(Msat(u64::MAX / 2), dear), None);
    }

    #[test]
    fn policies_that_cannot_be_meant_are_told_apart() {
        let policy = ForwardingPolicy::default();
        assert_eq!(policy.check(), Ok(()));
        let empty = ForwardingPolicy { htlc_minimum: Msat(2), htlc_maximum: Msat(1), ..policy };
        assert_eq!(empty.check(), Err(PolicyError::EmptyRange { minimum: Msat(2), maximum: Msat(1) }));
        let dear = ForwardingPolicy { fee_proportional_millionths: 1_000_001, ..policy };
        assert_eq!(dear.check(), Err(PolicyError::FeeAboveAmount(1_000_001)));
        let unsayable = ForwardingPolicy { fee_base: Msat(1 << 32), ..policy };
        assert_eq!(unsayable.check(), Err(PolicyError::FeeBaseTooLarge(Msat(1 << 32))));
        assert_eq!(ForwardingPolicy { fee_base: Msat((1 << 32) - 1), ..policy }.check(), Ok(()));
        let hasty = ForwardingPolicy { cltv_expiry_delta: CltvDelta(0), ..policy };
        assert_eq!(hasty.check(), Err(PolicyError::NoDelta));
    }
}
