//! Fee rates: ours follow the chain's, and those of peers are held against it.

use fulmen_wire::units::FeeratePerKw;

use super::*;
use crate::channel::State;
use crate::commitment::ChannelType;

fn feerate(net: &Net, node: usize, other: usize) -> Option<FeeratePerKw> {
    let channel_id = net.channel(node, other).channel_id;
    net.shards[node].channel(ChannelRef::Id(channel_id)).and_then(crate::channel::Channel::feerate)
}

fn estimate(net: &mut Net, node: usize, feerate: u32) {
    net.inputs[node].push(Input::Feerate(FeeratePerKw(feerate)));
    net.pump();
}

/// A network whose first node opens channels without anchors at this rate.
fn without_anchors(feerate: u32, anchors_only: bool) -> Net {
    let mut net = Net::unconnected(2, |_, config| {
        config.channel.channel_type = ChannelType::StaticRemotekey;
        config.feerate = FeeratePerKw(feerate);
        config.anchors_only = anchors_only;
    });
    net.connect(0, 1);
    net
}

/// Whether node 1 accepts a channel of node 0.
fn accepts(net: &mut Net) -> bool {
    let open =
        OpenChannelRequest { peer: net.ids[1], user_id: 9, capacity: CAPACITY, push: Msat(0), policy: None };
    net.command(0, Command::OpenChannel(open));
    net.count(0, |event| matches!(event, Event::FundingNeeded { .. })) == 1
}

#[test]
fn the_rate_of_a_channel_we_opened_follows_the_chains() {
    let mut net = Net::line(3);
    assert_eq!(feerate(&net, 1, 2), Some(FeeratePerKw(1_000)));
    estimate(&mut net, 1, 1_200);
    assert_eq!(feerate(&net, 1, 2), Some(FeeratePerKw(1_000)), "too small a difference for an update");
    estimate(&mut net, 1, 2_000);
    assert_eq!(
        (feerate(&net, 1, 2), feerate(&net, 2, 1)),
        (Some(FeeratePerKw(2_000)), Some(FeeratePerKw(2_000)))
    );
    assert_eq!(feerate(&net, 0, 1), Some(FeeratePerKw(1_000)), "its opener sets it");
    estimate(&mut net, 1, 1);
    assert_eq!(feerate(&net, 1, 2), Some(FeeratePerKw::FLOOR));
    let (hash, recipient) = net.invoice(2, 1, Msat(1_000_000));
    let attempt = net.send(0, hash, &net.route(&[0, 1, 2], Msat(1_000_000), 18), &recipient);
    assert!(matches!(net.outcome(0, attempt), Some(Outcome::Settled(_))));
    net.check_at_rest();
}

#[test]
fn a_channel_without_anchors_is_accepted_only_where_the_operator_allows() {
    assert!(!accepts(&mut without_anchors(1_000, true)));
    assert!(accepts(&mut without_anchors(1_000, false)));
}

#[test]
fn a_rate_far_below_the_chains_is_refused_without_anchors() {
    for (rate, accepted) in [(2_499, false), (2_500, true)] {
        let mut net = without_anchors(rate, false);
        estimate(&mut net, 1, 10_000);
        assert_eq!(accepts(&mut net), accepted, "{rate}");
    }
    let mut net = without_anchors(2_500, false);
    net.open(0, 1, CAPACITY, Msat(CAPACITY.to_msat().0 / 2));
    estimate(&mut net, 1, 10_001);
    let channel_id = net.channels[0].channel_id;
    let update = |net: &mut Net, feerate: u32| {
        net.command(0, Command::UpdateFee { channel_id, feerate: FeeratePerKw(feerate) });
        net.shards[1].channel(ChannelRef::Id(channel_id)).expect("it lives").state()
    };
    assert_eq!(update(&mut net, 2_600), State::Normal);
    // The update is refused and the connection broken; the channel goes on at the earlier rate.
    net.dropped = Some(Vec::new());
    assert_eq!(update(&mut net, 2_400), State::Normal);
    assert_eq!(net.dropped, Some(vec![(1, net.ids[0])]));
    let channel = net.shards[1].channel(ChannelRef::Id(channel_id)).expect("it lives");
    assert_eq!(channel.feerate(), Some(FeeratePerKw(2_600)));
}
