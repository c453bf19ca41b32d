//! Updates that cross on the wire, and peers that use it: no commitment falls below the relay fee, and no change of the
//! fee rate turns more HTLCs to dust than our limit.

use super::*;
use crate::channel::Reaction;
use crate::commitment::commitment_fee;
use fulmen_wire::message::{CommitmentSigned, UpdateAddHtlc, UpdateFee};
use fulmen_wire::units::Signature;

/// An `update_add_htlc` to `node`, whatever its sender can afford.
fn raw_add(node: &Node, amount: Msat) -> Message {
    let message = UpdateAddHtlc {
        channel_id: node.channel.id(),
        id: node.channel.funded().unwrap().updates.next_id(Side::Remote),
        amount_msat: amount,
        payment_hash: hash_of(&preimage(0)),
        cltv_expiry: BlockHeight(500),
        onion_routing_packet: OnionPacket::from_bytes(Box::new([0; 1366])),
        path_key: None,
        unknown: Default::default(),
    };
    message.into()
}

fn raw_fee(node: &Node, feerate: u32) -> Message {
    let feerate_per_kw = FeeratePerKw(feerate);
    UpdateFee { channel_id: node.channel.id(), feerate_per_kw, unknown: Default::default() }.into()
}

fn receive(node: &mut Node, message: &Message) -> Result<(), ChannelError> {
    node.receive(&message.encode())
}

/// A channel without anchors whose acceptor has room for 60 HTLCs of 150,000 sat.
fn without_anchors() -> Pair {
    let mut setup = Setup::new(ChannelType::StaticRemotekey);
    (setup.funding, setup.push) = (Sat(16_000_000), Msat(12_000_000_000));
    Pair::ready(&setup)
}

/// `b` adds HTLCs that `a` acknowledges but never signs.
fn acknowledged_only(pair: &mut Pair, batches: u64, amount: Msat) {
    for batch in 0..batches {
        for number in 0..50 {
            pair.b.add(amount, 50 * batch + number);
        }
        pair.b.commit();
        while pair.b_to_a() {}
        while pair.a_to_b() {}
    }
}

#[test]
fn an_update_fee_does_not_turn_acknowledged_htlcs_to_dust() {
    let mut pair = without_anchors();
    acknowledged_only(&mut pair, 1, Msat(150_000_000));
    let fee = raw_fee(&pair.b, 250_000);
    let error = receive(&mut pair.b, &fee).unwrap_err();
    assert!(matches!(error, ChannelError::DustExposure { .. }), "{error}");
    assert_eq!(pair.b.channel.reaction(&error), Reaction::Warn);
    // A rate at which all of them keep their outputs is accepted.
    let fee = raw_fee(&pair.b, 200_000);
    receive(&mut pair.b, &fee).unwrap();
}

#[test]
fn an_update_fee_that_crosses_our_htlcs_does_not_turn_them_to_dust() {
    let mut pair = without_anchors();
    for number in 0..60 {
        pair.b.add(Msat(150_000_000), number);
    }
    let fee = raw_fee(&pair.b, 250_000);
    let error = receive(&mut pair.b, &fee).unwrap_err();
    assert!(matches!(error, ChannelError::DustExposure { .. }), "{error}");
    // They are withdrawn, so that the peer's next attempt does not meet them again.
    pair.b.react(&error);
    let dropped = |event: &&ChannelEvent| matches!(event, ChannelEvent::AddDropped { .. });
    assert_eq!(pair.b.events.iter().filter(dropped).count(), 60);
    assert_eq!(pair.b.channel.state(), State::Normal);
}

#[test]
fn a_commitment_of_the_peer_with_too_much_dust_is_not_signed() {
    let mut pair = without_anchors();
    for number in 0..60 {
        pair.b.add(Msat(150_000_000), number);
    }
    // The checks of single messages prevent this: a rate of the peer that stands beside our additions all the same.
    let signature = Signature([1; 64]);
    for delta in [
        Delta::FeeUpdated { feerate: FeeratePerKw(250_000) },
        Delta::CommitmentReceived { signature, htlc_signatures: Vec::new() },
    ] {
        let _ = pair.b.channel.apply(Plan::of(delta), &[]);
    }
    let plan = pair.b.channel.plan_turn_end(&CONTEXT).expect("something is due");
    assert!(plan.disconnect && matches!(plan.send[..], [Message::Warning(_)]), "{plan:?}");
    assert!(matches!(plan.deltas[..], [Delta::AdditionsDropped, Delta::Disconnected]), "{plan:?}");
    let effects = pair.b.channel.apply(plan, &[]);
    assert!(effects.disconnect);
    assert!(pair.b.channel.plan_turn_end(&CONTEXT).is_none());
}

#[test]
fn the_opener_cannot_spend_the_fee_of_htlcs_it_acknowledged() {
    let mut pair = Pair::with_type(ChannelType::Anchors);
    acknowledged_only(&mut pair, 3, Msat(1_000_000));
    // All but reserve, anchors and the fee of a commitment with this HTLC alone.
    let add = raw_add(&pair.b, Msat((600_000 - 10_000 - 660 - 1_296) * 1_000));
    let error = receive(&mut pair.b, &add).unwrap_err();
    assert!(matches!(error, ChannelError::HtlcNotAffordable { .. }), "{error}");
    assert_eq!(pair.b.channel.reaction(&error), Reaction::Warn);
}

#[test]
fn a_commitment_below_the_relay_fee_is_refused() {
    let mut pair = Pair::with_type(ChannelType::Anchors);
    acknowledged_only(&mut pair, 6, Msat(1_000_000));
    pair.disconnect();
    pair.connect();
    while pair.b_to_a() {}
    while pair.a_to_b() {}
    // After a reconnection the addition may be older than the peer's acknowledgement; the whole commitment is checked.
    let add = raw_add(&pair.b, Msat((600_000 - 10_000 - 660 - 1_296) * 1_000));
    receive(&mut pair.b, &add).unwrap();
    let before = describe(pair.b.channel.clone());
    let signed = CommitmentSigned {
        channel_id: pair.b.channel.id(),
        signature: Signature([1; 64]),
        htlc_signatures: vec![Signature([1; 64]); 301],
        funding_txid: None,
        unknown: Default::default(),
    };
    let error = receive(&mut pair.b, &signed.into()).unwrap_err();
    assert!(matches!(error, ChannelError::CommitmentFeeTooLow { .. }), "{error}");
    assert_eq!(pair.b.channel.reaction(&error), Reaction::Warn);
    assert_eq!(describe(pair.b.channel.clone()), before);
}

#[test]
fn a_peer_cannot_add_htlcs_whose_fee_we_cannot_pay() {
    let mut setup = Setup::new(ChannelType::Anchors);
    setup.push = Msat(975_000_000);
    let mut pair = Pair::ready(&setup);
    // Of 25,000 sat, 10,000 are our reserve and 660 the anchors; 13,216 are left for (13,216 - 1,124) / 172 = 76 HTLCs.
    for _ in 0..76 {
        let add = raw_add(&pair.a, Msat(400_000));
        receive(&mut pair.a, &add).unwrap();
    }
    let add = raw_add(&pair.a, Msat(400_000));
    let error = receive(&mut pair.a, &add).unwrap_err();
    assert!(matches!(error, ChannelError::FeeOfOpenerNotAffordable { .. }), "{error}");
    assert_eq!(pair.a.channel.reaction(&error), Reaction::Warn);
    // One without an output costs nothing.
    let add = raw_add(&pair.a, Msat(353_000));
    receive(&mut pair.a, &add).unwrap();
}

#[test]
fn htlcs_that_cross_the_openers_leave_the_fee_payable() {
    let mut setup = Setup::new(ChannelType::Anchors);
    (setup.funding, setup.push) = (Sat(100_000), Msat(50_000_000));
    let mut pair = Pair::ready(&setup);
    // The opener's reserve of 1,000 sat pays for five outputs at 172 sat each.
    let mut added = 0;
    while pair.b.channel.available_out() >= Msat(1_000_000) {
        pair.b.add(Msat(1_000_000), added);
        added += 1;
    }
    assert_eq!(added, 5);
    let all = pair.a.channel.available_out();
    pair.a.add(all, 100);
    pair.settle();
    for node in [&pair.a, &pair.b] {
        let (commitment, _) = node.channel.signed_local_commitment().unwrap();
        assert_eq!(commitment.htlcs.len(), 6);
        assert!(commitment.fee >= commitment_fee(ChannelType::Anchors, FEERATE, 6), "{}", commitment.fee);
    }
}
