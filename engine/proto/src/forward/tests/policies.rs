//! Policies that change while payments flow, and forwards that take another channel to the same peer.

use super::*;
use crate::forward::{CommandError, InboundFee, IncomingHtlc, Offer, PolicyError};

const AMOUNT: Msat = Msat(20_000_000);
const TEN_MINUTES_MS: u64 = 10 * 60 * 1_000;

/// Pays from node 0 over node 1 to node 2, the first HTLC worth `less` than the default policy asks.
fn pay(net: &mut Net, number: u8, amount: Msat, less: u64) -> Outcome {
    let (hash, recipient) = net.invoice(2, number, amount);
    let mut route = net.route(&[0, 1, 2], amount, 18);
    route[0].amount.0 -= less;
    let attempt = net.send(0, hash, &route, &recipient);
    net.outcome(0, attempt).expect("the payment ends")
}

fn set_policy(net: &mut Net, channel: usize, change: impl FnOnce(&mut ForwardingPolicy)) {
    let mut policy = ForwardingPolicy::default();
    change(&mut policy);
    let channel_id = net.channels[channel].channel_id;
    net.command(1, Command::SetPolicy { channel_id, policy });
}

/// The channels that forwards of node 1 went out on, in order.
fn taken(net: &Net) -> Vec<usize> {
    let place = |id: &ChannelId| net.channels.iter().position(|channel| channel.channel_id == *id);
    let outgoing = net.events[1].iter().filter_map(|event| match event {
        Event::Forwarded { outgoing_channel_id, .. } => place(outgoing_channel_id),
        _ => None,
    });
    outgoing.collect()
}

#[test]
fn the_policy_before_is_good_for_ten_minutes() {
    let mut net = Net::line(3);
    set_policy(&mut net, 1, |policy| policy.fee_base = Msat(5_000));
    let until = net.now.unix_ms + TEN_MINUTES_MS;
    assert!(matches!(pay(&mut net, 1, AMOUNT, 0), Outcome::Settled(_)));
    net.restart(1);
    net.wait(until - net.now.unix_ms - 1);
    assert!(matches!(pay(&mut net, 2, AMOUNT, 0), Outcome::Settled(_)));
    net.wait(1);
    assert!(matches!(pay(&mut net, 3, AMOUNT, 0), Outcome::Failed(0, Failure::FeeInsufficient { .. })));
    net.check_at_rest();
}

#[test]
fn a_channel_switched_off_is_off_at_once() {
    let mut net = Net::line(3);
    set_policy(&mut net, 1, |policy| policy.disabled = true);
    assert_eq!(pay(&mut net, 1, AMOUNT, 0), Outcome::Failed(0, Failure::ChannelDisabled));
    net.check_at_rest();
}

#[test]
fn a_policy_that_cannot_be_meant_is_refused() {
    let mut net = Net::line(3);
    set_policy(&mut net, 1, |policy| policy.htlc_minimum = Msat(u64::MAX));
    let Some(Event::CommandRefused { error: CommandError::Policy(error) }) = net.events[1].pop() else {
        panic!("the policy is refused");
    };
    assert!(matches!(error, PolicyError::EmptyRange { .. }));
    assert!(matches!(pay(&mut net, 1, AMOUNT, 0), Outcome::Settled(_)));
}

#[test]
fn an_inbound_discount_is_the_senders() {
    let mut net = Net::line(3);
    let discount = InboundFee { base_msat: -700, proportional_millionths: 0 };
    assert!(matches!(pay(&mut net, 1, AMOUNT, 700), Outcome::Failed(0, Failure::FeeInsufficient { .. })));
    set_policy(&mut net, 0, |policy| policy.inbound_fee = discount);
    assert!(matches!(pay(&mut net, 2, AMOUNT, 700), Outcome::Settled(_)));
    assert!(matches!(pay(&mut net, 3, AMOUNT, 701), Outcome::Failed(0, Failure::FeeInsufficient { .. })));
    net.check_at_rest();
}

/// Three channels from node 1 to node 2: the first empty on node 1's side, the others with much and little.
fn parallel() -> Net {
    let mut net = Net::line(3);
    let half = CAPACITY.to_msat().0 / 2;
    for pushed in [0, 2 * half - 400_000_000] {
        net.open(1, 2, CAPACITY, Msat(pushed));
    }
    let available =
        net.shards[1].channel(ChannelRef::Scid(net.channels[1].scid)).map(|c| c.available_out()).unwrap();
    let (hash, recipient) = net.invoice(2, 200, available);
    let route = net.route(&[1, 2], available, 18);
    let attempt = net.send(1, hash, &route, &recipient);
    assert!(matches!(net.outcome(1, attempt), Some(Outcome::Settled(_))));
    net
}

#[test]
fn another_channel_to_the_same_peer_carries_what_the_named_one_cannot() {
    let mut net = parallel();
    // The smallest that suffices first, and the large one when the small one is used up.
    let outcomes = (1..=3).map(|number| pay(&mut net, number, Msat(90_000_000), 0));
    assert!(outcomes.into_iter().all(|outcome| matches!(outcome, Outcome::Settled(_))));
    assert_eq!(taken(&net), [3, 3, 3]);
    assert!(matches!(pay(&mut net, 4, Msat(400_000_000), 0), Outcome::Settled(_)));
    assert_eq!(taken(&net), [3, 3, 3, 2]);
    net.check_at_rest();
}

#[test]
fn another_channel_is_taken_only_where_its_own_policy_allows() {
    let mut net = parallel();
    for channel in [2, 3] {
        set_policy(&mut net, channel, |policy| policy.fee_base = Msat(9_000));
    }
    net.wait(TEN_MINUTES_MS);
    assert_eq!(pay(&mut net, 1, AMOUNT, 0), Outcome::Failed(0, Failure::TemporaryChannelFailure));
    set_policy(&mut net, 2, |_| {});
    assert!(matches!(pay(&mut net, 2, AMOUNT, 0), Outcome::Settled(_)));
    assert_eq!(taken(&net), [2]);
    net.check_at_rest();
}

#[test]
fn a_channel_that_closes_leaves_its_forwards_to_the_others() {
    let mut net = parallel();
    net.command(1, Command::CloseChannel { channel_id: net.channels[1].channel_id, script: None });
    assert!(matches!(pay(&mut net, 1, Msat(90_000_000), 0), Outcome::Settled(_)));
    assert_eq!(taken(&net), [3]);
}

#[test]
fn what_comes_in_after_our_shutdown_goes_nowhere() {
    let mut net = Net::line(3);
    let (hash, recipient) = net.invoice(2, 1, AMOUNT);
    let route = net.route(&[0, 1, 2], AMOUNT, 18);
    // The HTLC and the shutdown cross each other.
    let channel_id = net.channels[0].channel_id;
    net.inputs[1].push(Input::Command(Command::CloseChannel { channel_id, script: None }));
    let attempt = net.send(0, hash, &route, &recipient);
    assert_eq!(net.outcome(0, attempt), Some(Outcome::Failed(0, Failure::TemporaryChannelFailure)));
    assert_eq!(net.count(1, |event| matches!(event, Event::ChannelClosed { .. })), 1);
}

/// Three nodes, the middle one holding what it carries on; a payment on its way, and the middle one's event about
/// it.
fn intercepted() -> (Net, u64, IncomingHtlc, Offer) {
    let mut net = Net::line_with(3, |node, config| config.intercept = node == 1);
    let (hash, recipient) = net.invoice(2, 1, AMOUNT);
    let route = net.route(&[0, 1, 2], AMOUNT, 18);
    let attempt = net.send(0, hash, &route, &recipient);
    let held = net.events[1].iter().find_map(|event| match event {
        Event::HtlcIntercepted { incoming, offer } => Some((*incoming, *offer)),
        _ => None,
    });
    let (incoming, offer) = held.expect("the middle node asks");
    assert_eq!((offer.amount, offer.scid), (AMOUNT, net.channels[1].scid));
    assert_eq!(net.outcome(0, attempt), None);
    (net, attempt, incoming, offer)
}

fn times_told(net: &Net) -> usize {
    net.count(1, |event| matches!(event, Event::HtlcIntercepted { .. }))
}

#[test]
fn a_held_forward_goes_on_when_told_to_also_after_a_restart() {
    for restarts in 0..=2 {
        let (mut net, attempt, incoming, _) = intercepted();
        for _ in 0..restarts {
            net.restart(1);
        }
        assert_eq!(times_told(&net), 1 + restarts);
        net.wait(1_500);
        net.command(1, Command::ResumeHtlc { incoming });
        assert!(matches!(net.outcome(0, attempt), Some(Outcome::Settled(_))));
        let held = |event: &Event| matches!(event, Event::Forwarded { hold_ms: 1_500, .. });
        assert_eq!(net.count(1, held), 1);
        net.command(1, Command::ResumeHtlc { incoming });
        let Some(Event::CommandRefused { error }) = net.events[1].pop() else { panic!("it is gone") };
        assert_eq!(error, CommandError::NotIntercepted(incoming));
        net.check_at_rest();
    }
}

#[test]
fn a_held_forward_fails_when_told_to_or_refused_or_too_late() {
    let (mut net, attempt, incoming, _) = intercepted();
    net.restart(1);
    net.command(1, Command::FailHtlc { incoming, failure: Failure::RequiredChannelFeatureMissing });
    assert_eq!(net.outcome(0, attempt), Some(Outcome::Failed(0, Failure::RequiredChannelFeatureMissing)));
    net.check_at_rest();

    // An HTLC that would have been refused at once is refused when it is resumed.
    let (mut net, attempt, incoming, _) = intercepted();
    set_policy(&mut net, 1, |policy| policy.disabled = true);
    net.command(1, Command::ResumeHtlc { incoming });
    assert_eq!(net.outcome(0, attempt), Some(Outcome::Failed(0, Failure::ChannelDisabled)));
    net.check_at_rest();

    let (mut net, attempt, _, offer) = intercepted();
    let last = BlockHeight(offer.incoming_cltv_expiry.0 - 19);
    net.mine(last, &[]);
    assert_eq!(net.outcome(0, attempt), None);
    net.mine(BlockHeight(last.0 + 1), &[]);
    assert_eq!(net.outcome(0, attempt), Some(Outcome::Failed(0, Failure::ExpiryTooSoon)));
    net.check_at_rest();
}

#[test]
fn a_forward_that_comes_back_is_told_with_its_hold_time() {
    let mut net = Net::line(4);
    let (hash, recipient) = net.invoice(3, 1, AMOUNT);
    let mut route = net.route(&[0, 1, 2, 3], AMOUNT, 18);
    route[1].amount.0 -= 1;
    let attempt = net.send(0, hash, &route, &recipient);
    assert!(matches!(net.outcome(0, attempt), Some(Outcome::Failed(1, Failure::FeeInsufficient { .. }))));
    assert_eq!(net.count(1, |event| matches!(event, Event::ForwardFailed { hold_ms: 0, .. })), 1);
    net.check_at_rest();
}
