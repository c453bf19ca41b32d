//! Whether an HTLC that came in may go out on a channel: the operator's policy and the safety of its expiry (BOLT 4
//! "Failure Messages", BOLT 7 "HTLC Fees").
//!
//! Owns the checks that need nothing but the two HTLCs, the policy and the height. Does not know whether the channel
//! has the balance: that is asked of the channel afterwards, and only then, so that a probe which breaks the public
//! policy learns nothing of the balance. Of several faults the one that BOLT 4 lists first is reported, but
//! `temporary_channel_failure` always last for that reason.
//!
//! An amount above `htlc_maximum_msat` is a `temporary_channel_failure`: BOLT 4 has no code for it.

use fulmen_wire::units::BlockHeight;

use crate::onion::Failure;

use super::circuit::Offer;
use super::config::{ExpiryLimits, ForwardingPolicy};

/// Checks an offer against the policy of the channel it is to go out on.
///
/// # Errors
/// The failure for the sender.
pub fn check_forward(
    offer: &Offer,
    policy: &ForwardingPolicy,
    limits: &ExpiryLimits,
    height: BlockHeight,
) -> Result<(), Failure> {
    if offer.amount < policy.htlc_minimum {
        return Err(Failure::AmountBelowMinimum { htlc_msat: offer.amount });
    }
    let needed = policy.incoming_amount(offer.amount, offer.inbound_fee);
    if needed.is_none_or(|needed| offer.incoming_amount < needed) {
        return Err(Failure::FeeInsufficient { htlc_msat: offer.incoming_amount });
    }
    // Unsaturated on purpose: a sum held at the maximum would let an absurd outgoing expiry pass.
    let expiry_needed = u64::from(offer.cltv_expiry.0) + u64::from(policy.cltv_expiry_delta.0);
    if u64::from(offer.incoming_cltv_expiry.0) < expiry_needed {
        return Err(Failure::IncorrectCltvExpiry { cltv_expiry: offer.cltv_expiry });
    }
    if offer.incoming_cltv_expiry <= height.saturating_add(limits.incoming_min)
        || offer.cltv_expiry <= height.saturating_add(limits.outgoing_min)
    {
        return Err(Failure::ExpiryTooSoon);
    }
    if policy.disabled {
        return Err(Failure::ChannelDisabled);
    }
    if offer.incoming_cltv_expiry > height.saturating_add(limits.max) {
        return Err(Failure::ExpiryTooFar);
    }
    if offer.amount > policy.htlc_maximum {
        return Err(Failure::TemporaryChannelFailure);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use fulmen_wire::units::{CltvDelta, Msat, PaymentHash, Scid};

    use super::*;
    use crate::forward::terms::config::InboundFee;
    use crate::forward::terms::time::Now;

    const HEIGHT: BlockHeight = BlockHeight(700_000);
    const LIMITS: ExpiryLimits = ExpiryLimits {
        incoming_min: CltvDelta(18),
        outgoing_min: CltvDelta(3),
        offered_grace: CltvDelta(2),
        fulfilled_min: CltvDelta(10),
        max: CltvDelta(2016),
    };
    const POLICY: ForwardingPolicy = ForwardingPolicy {
        fee_base: Msat(1_000),
        fee_proportional_millionths: 250,
        cltv_expiry_delta: CltvDelta(40),
        htlc_minimum: Msat(5_000),
        htlc_maximum: Msat(90_000_000),
        disabled: false,
        inbound_fee: InboundFee { base_msat: 0, proportional_millionths: 0 },
    };

    fn offer(amount: u64) -> Offer {
        Offer {
            scid: Scid(1),
            incoming_amount: Msat(amount + POLICY.fee(Msat(amount)).0),
            inbound_fee: InboundFee::default(),
            incoming_cltv_expiry: BlockHeight(HEIGHT.0 + 100),
            amount: Msat(amount),
            cltv_expiry: BlockHeight(HEIGHT.0 + 60),
            received_at: Now::default(),
            payment_hash: PaymentHash([0; 32]),
        }
    }

    fn check(offer: &Offer) -> Result<(), Failure> {
        check_forward(offer, &POLICY, &LIMITS, HEIGHT)
    }

    #[test]
    fn an_amount_at_either_limit_passes_and_one_beyond_fails() {
        assert_eq!(check(&offer(5_000)), Ok(()));
        assert_eq!(check(&offer(4_999)), Err(Failure::AmountBelowMinimum { htlc_msat: Msat(4_999) }));
        assert_eq!(check(&offer(90_000_000)), Ok(()));
        assert_eq!(check(&offer(90_000_001)), Err(Failure::TemporaryChannelFailure));
    }

    #[test]
    fn a_fee_one_short_fails() {
        let mut offer = offer(10_000_000);
        assert_eq!(offer.incoming_amount, Msat(10_003_500));
        offer.incoming_amount.0 -= 1;
        assert_eq!(check(&offer), Err(Failure::FeeInsufficient { htlc_msat: Msat(10_003_499) }));
        offer.amount = Msat(u64::MAX);
        assert_eq!(check(&offer), Err(Failure::FeeInsufficient { htlc_msat: Msat(10_003_499) }));
    }

    #[test]
    fn a_discount_of_the_incoming_channel_lowers_the_fee() {
        let mut offer = offer(10_000_000);
        offer.inbound_fee = InboundFee { base_msat: -500, proportional_millionths: 0 };
        offer.incoming_amount.0 -= 500;
        assert_eq!(check(&offer), Ok(()));
        offer.incoming_amount.0 -= 1;
        assert!(matches!(check(&offer), Err(Failure::FeeInsufficient { .. })));
    }

    #[test]
    fn a_delta_one_short_fails() {
        let mut offer = offer(10_000);
        assert_eq!(check(&offer), Ok(()));
        offer.cltv_expiry.0 += 1;
        assert_eq!(check(&offer), Err(Failure::IncorrectCltvExpiry { cltv_expiry: offer.cltv_expiry }));
        offer.cltv_expiry = BlockHeight(u32::MAX);
        assert_eq!(check(&offer), Err(Failure::IncorrectCltvExpiry { cltv_expiry: offer.cltv_expiry }));
        offer.incoming_cltv_expiry = BlockHeight(u32::MAX);
        assert!(check(&offer).is_err(), "a saturated sum must not make an expiry fit");
    }

    #[test]
    fn an_expiry_at_the_safety_margins_fails() {
        let mut offer = offer(10_000);
        offer.incoming_cltv_expiry = BlockHeight(HEIGHT.0 + 44);
        offer.cltv_expiry = BlockHeight(HEIGHT.0 + 4);
        assert_eq!(check(&offer), Ok(()));
        offer.cltv_expiry = BlockHeight(HEIGHT.0 + 3);
        assert_eq!(check(&offer), Err(Failure::ExpiryTooSoon));
        let limits = ExpiryLimits { incoming_min: CltvDelta(44), outgoing_min: CltvDelta(0), ..LIMITS };
        assert_eq!(check_forward(&offer, &POLICY, &limits, HEIGHT), Err(Failure::ExpiryTooSoon));
        let limits = ExpiryLimits { incoming_min: CltvDelta(43), ..limits };
        assert_eq!(check_forward(&offer, &POLICY, &limits, HEIGHT), Ok(()));
    }

    #[test]
    fn an_expiry_beyond_the_maximum_fails() {
        let mut offer = offer(10_000);
        offer.incoming_cltv_expiry = BlockHeight(HEIGHT.0 + 2016);
        assert_eq!(check(&offer), Ok(()));
        offer.incoming_cltv_expiry.0 += 1;
        assert_eq!(check(&offer), Err(Failure::ExpiryTooFar));
    }

    #[test]
    fn a_disabled_channel_fails_what_is_otherwise_right() {
        let policy = ForwardingPolicy { disabled: true, ..POLICY };
        assert_eq!(check_forward(&offer(10_000), &policy, &LIMITS, HEIGHT), Err(Failure::ChannelDisabled));
    }

    #[test]
    fn the_fault_that_bolt_4_lists_first_is_reported() {
        let mut offer = offer(1);
        offer.incoming_amount = Msat(0);
        offer.incoming_cltv_expiry = HEIGHT;
        let policy = ForwardingPolicy { disabled: true, ..POLICY };
        let code =
            |offer: &Offer| check_forward(offer, &policy, &LIMITS, HEIGHT).map_err(|f| f.code().to_u16());
        assert_eq!(code(&offer), Err(0x100b));
        offer.amount = Msat(5_000);
        assert_eq!(code(&offer), Err(0x100c));
        offer.incoming_amount = Msat(6_001);
        assert_eq!(code(&offer), Err(0x100d));
        offer.cltv_expiry = BlockHeight(HEIGHT.0 - 40);
        assert_eq!(code(&offer), Err(0x100e));
        offer.incoming_cltv_expiry = BlockHeight(HEIGHT.0 + 5_000);
        offer.cltv_expiry = BlockHeight(HEIGHT.0 + 100);
        assert_eq!(code(&offer), Err(0x1014));
    }
}
