//! The final node: payments in parts, their timeout, disagreeing parts, keysend, overpayment.

use super::*;

const TOTAL: Msat = Msat(90_000_000);

fn parts(net: &mut Net, shares: &[u64]) -> (PaymentHash, Vec<u64>) {
    let (hash, recipient) = net.invoice(2, 1, TOTAL);
    let attempts = shares
        .iter()
        .map(|share| {
            let route = net.route(&[0, 1, 2], Msat(*share), 18);
            net.queue(0, hash, &route, &recipient)
        })
        .collect();
    (hash, attempts)
}

#[test]
fn parts_are_held_until_the_last_one_comes() {
    let mut net = Net::line(3);
    let (hash, mut attempts) = parts(&mut net, &[20_000_000, 30_000_000]);
    net.pump();
    assert!(attempts.iter().all(|attempt| net.outcome(0, *attempt).is_none()));
    assert_eq!(net.shards[2].occupancy().incomplete_sets, 1);
    let (_, recipient) = net.invoice(2, 1, TOTAL);
    assert!(matches!(net.events[2].last(), Some(Event::CommandRefused { .. })), "the hash is taken");
    let route = net.route(&[0, 1, 2], Msat(40_000_000), 18);
    attempts.push(net.send(0, hash, &route, &recipient));
    for attempt in attempts {
        assert_eq!(net.outcome(0, attempt), Some(Outcome::Settled(PaymentPreimage([1; 32]))));
    }
    let received = Event::PaymentReceived { payment_hash: hash, amount: TOTAL, parts: 3 };
    assert_eq!(net.count(2, |event| *event == received), 1);
    net.check_at_rest();
}

#[test]
fn incomplete_parts_fail_after_the_timeout_and_not_before() {
    let mut net = Net::line(3);
    let (_, attempts) = parts(&mut net, &[20_000_000, 30_000_000]);
    net.pump();
    net.wait(59_999);
    assert!(attempts.iter().all(|attempt| net.outcome(0, *attempt).is_none()));
    net.wait(1);
    for attempt in attempts {
        assert_eq!(net.outcome(0, attempt), Some(Outcome::Failed(1, Failure::MppTimeout)));
    }
    net.check_at_rest();
}

#[test]
fn held_parts_fail_before_they_expire() {
    let mut net = Net::line(3);
    let (_, attempts) = parts(&mut net, &[20_000_000]);
    net.pump();
    let expiry = net.height.0 + 18;
    net.mine(BlockHeight(expiry - 4), &[]);
    assert_eq!(net.outcome(0, attempts[0]), None);
    net.mine(BlockHeight(expiry - 3), &[]);
    assert_eq!(net.outcome(0, attempts[0]), Some(Outcome::Failed(1, Failure::MppTimeout)));
    net.check_at_rest();
}

#[test]
fn parts_that_name_different_totals_all_fail() {
    let mut net = Net::line(3);
    let (hash, mut attempts) = parts(&mut net, &[20_000_000]);
    let payment_secret = PaymentSecret([1 ^ 0xff; 32]);
    let payment_data = Some(PaymentData { payment_secret, total_msat: Msat(TOTAL.0 + 1) });
    let recipient = Recipient { payment_data, ..Recipient::default() };
    let route = net.route(&[0, 1, 2], Msat(30_000_000), 18);
    attempts.push(net.send(0, hash, &route, &recipient));
    let height = net.height;
    for (attempt, amount) in attempts.into_iter().zip([20_000_000, 30_000_000]) {
        let failure = Failure::IncorrectOrUnknownPaymentDetails { htlc_msat: Msat(amount), height };
        assert_eq!(net.outcome(0, attempt), Some(Outcome::Failed(1, failure)));
    }
    net.check_at_rest();
    let (_, recipient) = net.invoice(2, 9, TOTAL);
    let route = net.route(&[0, 1, 2], TOTAL, 18);
    let hash = hash_of(PaymentPreimage([9; 32]));
    let attempt = net.send(0, hash, &route, &recipient);
    assert!(matches!(net.outcome(0, attempt), Some(Outcome::Settled(_))));
}

#[test]
fn keysend_needs_no_invoice() {
    let mut net = Net::line(3);
    let preimage = PaymentPreimage([42; 32]);
    let recipient = Recipient { keysend_preimage: Some(preimage), ..Recipient::default() };
    let route = net.route(&[0, 1, 2], Msat(5_000_000), 18);
    let attempt = net.send(0, hash_of(preimage), &route, &recipient);
    assert_eq!(net.outcome(0, attempt), Some(Outcome::Settled(preimage)));
    let mut net = Net::line_with(3, |_, config| config.accept_keysend = false);
    let attempt = net.send(0, hash_of(preimage), &route, &recipient);
    assert!(matches!(
        net.outcome(0, attempt),
        Some(Outcome::Failed(1, Failure::IncorrectOrUnknownPaymentDetails { .. }))
    ));
    net.check_at_rest();
}

#[test]
fn a_payment_is_received_once_and_at_most_twice_over() {
    let mut net = Net::line(3);
    let (hash, recipient) = net.invoice(2, 1, TOTAL);
    let overpaid = Msat(TOTAL.0 + 5_000_000);
    let route = net.route(&[0, 1, 2], overpaid, 18);
    let attempt = net.send(0, hash, &route, &recipient);
    assert!(matches!(net.outcome(0, attempt), Some(Outcome::Settled(_))));
    let received = Event::PaymentReceived { payment_hash: hash, amount: overpaid, parts: 1 };
    assert_eq!(net.count(2, |event| *event == received), 1);
    let attempt = net.send(0, hash, &route, &recipient);
    assert!(matches!(
        net.outcome(0, attempt),
        Some(Outcome::Failed(1, Failure::IncorrectOrUnknownPaymentDetails { .. }))
    ));
    net.check_at_rest();
}

#[test]
fn parts_that_together_overpay_more_than_twice_are_refused() {
    for (first, second, taken) in [(45_000_000, 140_000_000, false), (60_000_000, 120_000_000, true)] {
        let mut net = Net::line(3);
        let (hash, recipient) = net.invoice(2, 1, Msat(90_000_000));
        let route = net.route(&[0, 1, 2], Msat(first), 18);
        let held = net.send(0, hash, &route, &recipient);
        assert_eq!(net.outcome(0, held), None);
        let route = net.route(&[0, 1, 2], Msat(second), 18);
        let attempt = net.send(0, hash, &route, &recipient);
        if taken {
            assert!(matches!(net.outcome(0, attempt), Some(Outcome::Settled(_))));
            continue;
        }
        assert!(matches!(
            net.outcome(0, attempt),
            Some(Outcome::Failed(1, Failure::IncorrectOrUnknownPaymentDetails { .. }))
        ));
        // The payment can still be completed.
        assert_eq!(net.outcome(0, held), None);
        let route = net.route(&[0, 1, 2], Msat(first), 18);
        let rest = net.send(0, hash, &route, &recipient);
        for attempt in [held, rest] {
            assert!(matches!(net.outcome(0, attempt), Some(Outcome::Settled(_))));
        }
        net.check_at_rest();
    }
}
