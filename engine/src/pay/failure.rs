//! Why an HTLC of a payment failed, and which part of its route is to blame (BOLT 4, "Failure Messages", the origin's
//! part).
//!
//! Owns the reading of a failure: decrypting it, finding the hop, and judging which channel or node to avoid. Does
//! not act on it: the payment does.
//!
//! Invariant: every failure has a verdict that keeps the same HTLC from being sent over the same route again, or ends
//! the payment; `mpp_timeout` alone leaves the route as good as it was.

use std::collections::BTreeMap;

use fulmen_graph::path::{FirstHop, PathHop};
use fulmen_proto::channel::ChannelCommandError;
use fulmen_proto::forward::{FailureReason, LocalFailure};
use fulmen_proto::onion::{FailureCode, ReturnedFailure, SharedSecrets};
use fulmen_wire::units::{Msat, Scid};

/// An HTLC of a payment that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailedPart {
    /// The HTLC.
    pub attempt_id: u64,
    /// The erring node's place on the route: 0 is the payer, 1 its peer, and so on.
    pub place: usize,
    /// The failure.
    pub cause: FailureCause,
    /// The channel the erring node was to forward over; `None` for the payee.
    pub channel: Option<Scid>,
    /// The amount it was to forward; for the payee, the amount it was to receive.
    pub amount: Msat,
    /// If the payer's own channel refused: the amount that could be spent there when the payer learned of it.
    pub own_spendable: Option<Msat>,
}

/// The failure of an HTLC.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FailureCause {
    /// A node on the route answered with this code.
    Remote(FailureCode),
    /// The peer could not read the onion, and answered with this code.
    Malformed(FailureCode),
    /// Some node on the route returned bytes that no hop's key decrypts.
    Unreadable,
    /// The HTLC never left this node.
    Local(LocalFailure),
}

impl FailureCause {
    /// The BOLT 4 code, if there is one.
    #[must_use]
    pub const fn code(&self) -> Option<FailureCode> {
        match self {
            FailureCause::Remote(code) | FailureCause::Malformed(code) => Some(*code),
            FailureCause::Unreadable | FailureCause::Local(_) => None,
        }
    }
}

/// The consequence of a failure for the route. Hops are counted from zero, the payer's own channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// This hop's channel did not have the amount.
    Liquidity { hop: usize },
    /// This hop's channel cannot be used for another reason.
    Channel { hop: usize },
    /// The node at the end of this hop cannot be used.
    Node { hop: usize },
    /// Some hop after the first: the route is not used again as it is.
    Unknown,
    /// The payee held the HTLC until the rest of the payment was overdue.
    Overdue,
    /// The payee does not take the payment.
    Refused,
}

impl Verdict {
    /// How many hops carried the HTLC, of a route of `hops`.
    pub(super) fn reached(self, hops: usize) -> usize {
        match self {
            Verdict::Liquidity { hop } | Verdict::Channel { hop } => hop,
            Verdict::Node { hop } => hop + 1,
            Verdict::Unknown => 0,
            Verdict::Overdue | Verdict::Refused => hops,
        }
    }
}

/// Reads why the HTLC `attempt_id` over `hops` failed.
pub(super) fn read(
    attempt_id: u64,
    reason: &FailureReason,
    hops: &[PathHop],
    secrets: &SharedSecrets,
    own_channels: &BTreeMap<Scid, FirstHop>,
) -> (FailedPart, Verdict) {
    let (place, cause) = match reason {
        FailureReason::Remote { packet } => match secrets.read_failure(packet) {
            ReturnedFailure::From { hop, failure } => (hop + 1, FailureCause::Remote(failure.code())),
            ReturnedFailure::Unreadable => (1, FailureCause::Unreadable),
        },
        FailureReason::Malformed { failure_code } => {
            (1, FailureCause::Malformed(FailureCode::from_u16(*failure_code)))
        }
        FailureReason::Local(failure) => (0, FailureCause::Local(failure.clone())),
    };
    let hop = hops.get(place);
    let own = hop.filter(|_| place == 0).and_then(|hop| own_channels.get(&hop.scid));
    let verdict = judge(place, &cause, hops.len());
    let failed = FailedPart {
        attempt_id,
        place,
        cause,
        channel: hop.map(|hop| hop.scid),
        amount: hop.or(hops.last()).map_or(Msat::ZERO, |hop| hop.amount),
        own_spendable: own.map(|own| own.spendable),
    };
    (failed, verdict)
}

/// The verdict on a failure by the node at `place` of a route of `hops` channels.
fn judge(place: usize, cause: &FailureCause, hops: usize) -> Verdict {
    let is_payee = place >= hops;
    match cause {
        FailureCause::Local(LocalFailure::Refused { error, .. }) if is_short(error) => {
            Verdict::Liquidity { hop: 0 }
        }
        FailureCause::Local(_) => Verdict::Channel { hop: 0 },
        // A peer that is the payee itself is asked no second time.
        FailureCause::Unreadable | FailureCause::Malformed(_) if is_payee => Verdict::Refused,
        FailureCause::Unreadable => Verdict::Unknown,
        FailureCause::Malformed(_) => Verdict::Node { hop: 0 },
        FailureCause::Remote(FailureCode::MppTimeout) if is_payee => Verdict::Overdue,
        // The node before the payee did not forward as its onion said.
        FailureCause::Remote(
            FailureCode::FinalIncorrectCltvExpiry | FailureCode::FinalIncorrectHtlcAmount,
        ) if is_payee && hops > 1 => Verdict::Channel { hop: hops - 1 },
        FailureCause::Remote(_) if is_payee => Verdict::Refused,
        FailureCause::Remote(FailureCode::TemporaryChannelFailure) => Verdict::Liquidity { hop: place },
        FailureCause::Remote(code) if code.is_node() || code.is_bad_onion() => {
            Verdict::Node { hop: place - 1 }
        }
        FailureCause::Remote(_) => Verdict::Channel { hop: place },
    }
}

/// Whether the payer's own channel would have taken a smaller amount.
const fn is_short(error: &ChannelCommandError) -> bool {
    matches!(
        error,
        ChannelCommandError::InsufficientBalance { .. } | ChannelCommandError::TooMuchInFlight { .. }
    )
}

#[cfg(test)]
mod tests {
    use fulmen_proto::forward::ChannelRef;
    use fulmen_wire::units::ChannelId;

    use super::*;

    #[test]
    fn verdicts_follow_code_and_place() {
        let remote = |place, code| judge(place, &FailureCause::Remote(code), 3);
        assert_eq!(remote(1, FailureCode::TemporaryChannelFailure), Verdict::Liquidity { hop: 1 });
        assert_eq!(remote(2, FailureCode::FeeInsufficient), Verdict::Channel { hop: 2 });
        assert_eq!(remote(2, FailureCode::TemporaryNodeFailure), Verdict::Node { hop: 1 });
        assert_eq!(remote(2, FailureCode::InvalidOnionHmac), Verdict::Node { hop: 1 });
        assert_eq!(remote(3, FailureCode::MppTimeout), Verdict::Overdue);
        assert_eq!(remote(1, FailureCode::MppTimeout), Verdict::Channel { hop: 1 });
        assert_eq!(remote(3, FailureCode::IncorrectOrUnknownPaymentDetails), Verdict::Refused);
        assert_eq!(remote(3, FailureCode::FinalIncorrectHtlcAmount), Verdict::Channel { hop: 2 });
        let direct = judge(1, &FailureCause::Remote(FailureCode::FinalIncorrectHtlcAmount), 1);
        assert_eq!(direct, Verdict::Refused);
        assert_eq!(judge(1, &FailureCause::Unreadable, 3), Verdict::Unknown);
        assert_eq!(judge(1, &FailureCause::Unreadable, 1), Verdict::Refused);
        assert_eq!(
            judge(1, &FailureCause::Malformed(FailureCode::InvalidOnionKey), 3),
            Verdict::Node { hop: 0 }
        );
        let local = |failure| judge(0, &FailureCause::Local(failure), 3);
        assert_eq!(
            local(LocalFailure::UnknownChannel(ChannelRef::Scid(Scid(1)))),
            Verdict::Channel { hop: 0 }
        );
        let refused = |error| local(LocalFailure::Refused { channel_id: ChannelId([1; 32]), error });
        assert_eq!(refused(ChannelCommandError::TooManyHtlcs { max: 483 }), Verdict::Channel { hop: 0 });
        let short = ChannelCommandError::InsufficientBalance { amount: Msat(2), available: Msat(1) };
        assert_eq!(refused(short), Verdict::Liquidity { hop: 0 });
    }
}
