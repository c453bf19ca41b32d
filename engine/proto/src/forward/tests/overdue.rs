//! Peers that do not answer (`AnswerTimeouts`).

use super::*;
use crate::channel::{AwaitedAnswer, ChannelError, State};

/// Lets time pass in ticks of a second.
fn pass(net: &mut Net, seconds: u64) {
    for _ in 0..seconds {
        net.now.unix_ms += 1_000;
        net.inputs.iter_mut().for_each(|inputs| inputs.push(Input::Tick));
        while net.step() {}
    }
}

fn state(net: &Net, node: usize) -> State {
    let channel_id = net.channels[0].channel_id;
    net.shards[node].channel(ChannelRef::Id(channel_id)).expect("it lives").state()
}

/// Node 0 has signed a commitment, and node 1's answers are lost.
fn unrevoked() -> (Net, u64) {
    // Node 1 is patient: it awaits the answer to its own commitment, which does not reach node 0.
    let mut net = Net::line_with(2, |node, config| {
        if node == 1 {
            config.answer_timeouts.answer_ms = u64::MAX;
        }
    });
    net.dropped = Some(Vec::new());
    let (hash, recipient) = net.invoice(1, 1, Msat(1_000_000));
    let attempt = net.queue(0, hash, &net.route(&[0, 1], Msat(1_000_000), 18), &recipient);
    for _ in 0..5 {
        net.step();
        net.wires.remove(&(1, 0));
    }
    (net, attempt)
}

#[test]
fn a_peer_that_does_not_revoke_is_warned_and_reconnected() {
    let (mut net, attempt) = unrevoked();
    pass(&mut net, 119);
    assert_eq!(net.dropped, Some(vec![]));
    pass(&mut net, 3);
    assert_eq!(net.dropped, Some(vec![(0, net.ids[1])]));
    let warned =
        |event: &Event| matches!(event, Event::PeerWarning { text, .. } if text.contains("revoke_and_ack"));
    assert_eq!(net.count(1, warned), 1);
    assert_eq!(state(&net, 0), State::Normal);
    net.cut(0, 1);
    net.connect(0, 1);
    assert!(matches!(net.outcome(0, attempt), Some(Outcome::Settled(_))));
    pass(&mut net, 300);
    assert_eq!(net.dropped.as_ref().map(Vec::len), Some(1), "nothing is awaited any more");
    net.check_at_rest();
}

#[test]
fn a_channel_that_is_busy_is_not_overdue() {
    let mut net = Net::line(2);
    for number in 0..200 {
        let (hash, recipient) = net.invoice(1, number, Msat(1_000_000));
        // At each tick, an answer to another commitment is awaited.
        let attempt = net.queue(0, hash, &net.route(&[0, 1], Msat(1_000_000), 18), &recipient);
        net.step();
        net.now.unix_ms += 1_000;
        net.inputs[0].push(Input::Tick);
        net.pump();
        assert!(matches!(net.outcome(0, attempt), Some(Outcome::Settled(_))));
    }
    net.check_at_rest();
}

#[test]
fn a_peer_that_does_not_reestablish_is_reconnected() {
    let mut net = Net::line(2);
    net.dropped = Some(Vec::new());
    net.cut(0, 1);
    let input = Input::connected(net.ids[1], local_features());
    net.inputs[0].push(input);
    pass(&mut net, 119);
    assert_eq!(net.dropped, Some(vec![]));
    pass(&mut net, 3);
    assert_eq!(net.dropped, Some(vec![(0, net.ids[1])]));
    net.connect(0, 1);
    assert_eq!(state(&net, 0), State::Normal);
}

#[test]
fn a_closing_that_is_not_agreed_on_fails_after_a_day_and_not_before() {
    let mut net = Net::line_with(2, |_, config| config.answer_timeouts.closing_ms = 600_000);
    net.dropped = Some(Vec::new());
    let channel_id = net.channels[0].channel_id;
    net.inputs[0].push(Input::Command(Command::CloseChannel { channel_id, script: None }));
    for _ in 0..10 {
        net.step();
        let answers = net.wires.entry((1, 0)).or_default();
        answers.retain(|bytes| !matches!(Message::decode(bytes), Ok(Message::ClosingSigned(_))));
    }
    assert_eq!(state(&net, 0), State::Negotiating);
    pass(&mut net, 125);
    assert_eq!(net.dropped, Some(vec![(0, net.ids[1])]));
    net.cut(0, 1);
    pass(&mut net, 465);
    assert_eq!(state(&net, 0), State::Negotiating, "a peer that is away may return");
    pass(&mut net, 20);
    assert_eq!(state(&net, 0), State::Failed);
    let overdue = ChannelError::AnswerOverdue(AwaitedAnswer::ClosingSigned);
    let failed = |event: &Event| matches!(event, Event::ChannelFailed { error, .. } if **error == overdue);
    assert_eq!(net.count(0, failed), 1);
}

#[test]
fn an_opening_that_does_not_go_on_is_forgotten() {
    let mut net = Net::unconnected(2, |_, _| {});
    net.connect(0, 1);
    let open =
        OpenChannelRequest { peer: net.ids[1], user_id: 9, capacity: CAPACITY, push: Msat(0), policy: None };
    // The embedder of node 0 gives no funding transaction.
    net.command(0, Command::OpenChannel(open));
    assert_eq!(net.shards[1].channels().count(), 1);
    pass(&mut net, 599);
    assert_eq!(net.shards[1].channels().count(), 1);
    pass(&mut net, 3);
    assert_eq!([0, 1].map(|node| net.shards[node].channels().count()), [0, 0]);
}
