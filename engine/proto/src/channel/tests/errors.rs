//! Every refusal, of a peer's message or of our own command. A refusal changes nothing.

use super::*;
use fulmen_wire::features::Features;
use fulmen_wire::message::{
    AcceptChannel, ChannelReady, CommitmentSigned, FundingCreated, FundingSigned, OpenChannel, RevokeAndAck,
    Shutdown, UpdateAddHtlc, UpdateFailHtlc, UpdateFailMalformedHtlc, UpdateFee, UpdateFulfillHtlc,
};
use fulmen_wire::units::{CltvDelta, Point, Signature};

use crate::channel::{Reaction, RemovalError, Stage};
use crate::keys::NodeSeed;

/// A point that has the form of one, its coordinate beyond the field.
const OFF_CURVE: Point = {
    let mut bytes = [0xff; 33];
    bytes[0] = 2;
    Point(bytes)
};

/// The variant's name.
fn name(error: &impl std::fmt::Debug) -> String {
    let debug = format!("{error:?}");
    debug.split([' ', '(', '{']).next().unwrap_or_default().to_owned()
}

fn open_message(setup: &Setup) -> OpenChannel {
    let mut created = Channel::open(setup.open_request()).expect("valid terms");
    let Some(Message::OpenChannel(open)) = created.effects.send.pop() else { panic!("no open_channel") };
    open
}

#[test]
fn unacceptable_open_channels() {
    type Change = fn(&mut OpenChannel);
    let cases: [(&str, Change); 23] = [
        ("UnknownChain", |open| open.chain_hash = ChainHash::BITCOIN),
        ("ChannelTypeMissing", |open| open.channel_type = None),
        ("ChannelTypeUnsuitable", |open| open.channel_type = Some(Features::default())),
        ("ChannelTypeUnsuitable", |open| {
            open.channel_type = Some(Features::from_bytes(&[0x40, 0, 0, 0x40, 0x10, 0]));
        }),
        ("FundingTooSmall", |open| open.funding_satoshis = Sat(999)),
        ("FundingTooLarge", |open| open.funding_satoshis = Sat(u64::MAX)),
        ("PushTooLarge", |open| open.push_msat = Msat(1_000_000_001)),
        ("DustLimitTooSmall", |open| open.dust_limit_satoshis = Sat(353)),
        ("DustLimitTooLarge", |open| open.dust_limit_satoshis = Sat(10_001)),
        ("ReserveBelowDustLimit", |open| open.channel_reserve_satoshis = Sat(353)),
        ("ReserveBelowDustLimit", |open| {
            open.dust_limit_satoshis = Sat(400);
            open.channel_reserve_satoshis = Sat(399);
        }),
        ("ReserveTooLarge", |open| open.channel_reserve_satoshis = Sat(200_001)),
        ("MaxAcceptedHtlcsTooLarge", |open| open.max_accepted_htlcs = 484),
        ("MaxAcceptedHtlcsTooSmall", |open| open.max_accepted_htlcs = 0),
        ("HtlcMinimumTooLarge", |open| open.htlc_minimum_msat = Msat(100_000_001)),
        ("MaxHtlcValueInFlightTooSmall", |open| open.max_htlc_value_in_flight_msat = Msat(999)),
        ("ToSelfDelayTooLong", |open| open.to_self_delay = CltvDelta(2017)),
        ("FeerateTooLow", |open| open.feerate_per_kw = FeeratePerKw(249)),
        ("FeerateTooHigh", |open| open.feerate_per_kw = FeeratePerKw(250_001)),
        ("OpenerCannotPay", |open| open.push_msat = Msat(999_000_000)),
        ("BothWithinReserve", |open| {
            open.funding_satoshis = Sat(3_000);
            open.push_msat = Msat(500_000);
            open.channel_reserve_satoshis = Sat(1_000);
        }),
        ("InvalidPoint", |open| open.htlc_basepoint = OFF_CURVE),
        ("UpfrontScriptForm", |open| open.upfront_shutdown_script = Some(vec![0x51])),
    ];
    let setup = Setup::new(ChannelType::Anchors);
    for (expected, change) in cases {
        let mut open = open_message(&setup);
        let _ = Channel::accept(&open, setup.accept_request()).expect("acceptable so far");
        change(&mut open);
        let error = Channel::accept(&open, setup.accept_request()).expect_err(expected);
        assert_eq!(name(&error), expected, "{error}");
        assert!(matches!(Channel::refusal(&open, &error), Message::ErrorMessage(_)));
    }
    let mut with_point = open_message(&setup);
    with_point.first_per_commitment_point = Point([0; 33]);
    assert!(Channel::accept(&with_point, setup.accept_request()).is_err());
}

#[test]
fn unacceptable_accept_channels() {
    type Change = fn(&mut AcceptChannel);
    let cases: [(&str, Change); 12] = [
        ("ChannelTypeMissing", |accept| accept.channel_type = None),
        ("ChannelTypeUnsuitable", |accept| {
            accept.channel_type = Some(Features::channel_type_static_remotekey());
        }),
        ("ReserveBelowDustLimit", |accept| accept.channel_reserve_satoshis = Sat(353)),
        ("ReserveBelowDustLimit", |accept| {
            accept.channel_reserve_satoshis = Sat(10_000);
            accept.dust_limit_satoshis = Sat(10_000);
        }),
        ("DustLimitTooSmall", |accept| accept.dust_limit_satoshis = Sat(353)),
        ("DustLimitTooLarge", |accept| accept.dust_limit_satoshis = Sat(10_001)),
        ("MinimumDepthTooLarge", |accept| accept.minimum_depth = 145),
        ("MaxAcceptedHtlcsTooLarge", |accept| accept.max_accepted_htlcs = 484),
        ("ToSelfDelayTooLong", |accept| accept.to_self_delay = CltvDelta(2017)),
        ("InvalidPoint", |accept| accept.funding_pubkey = OFF_CURVE),
        ("UpfrontScriptForm", |accept| accept.upfront_shutdown_script = Some(vec![0x00, 20])),
        ("WrongChannel", |accept| accept.temporary_channel_id = ChannelId([8; 32])),
    ];
    let mut setup = Setup::new(ChannelType::Anchors);
    setup.a.channel_reserve_millionths = 2_000;
    for (expected, change) in cases {
        let mut pair = Pair::begin(&setup);
        let message = pair.b.sent.pop_front().unwrap();
        let Ok(Message::AcceptChannel(mut accept)) = Message::decode(&message) else { panic!() };
        change(&mut accept);
        let error = pair.a.receive(&Message::from(accept).encode()).expect_err(expected);
        assert_eq!(name(&error), expected, "{error}");
    }
}

#[test]
fn signatures_of_the_first_commitments_are_checked() {
    let setup = Setup::new(ChannelType::Anchors);
    let mut pair = Pair::begin(&setup);
    pair.settle();
    let events = pair.a.take_events();
    let [ChannelEvent::FundingNeeded { script_pubkey, amount }] = &events[..] else { panic!() };
    pair.a.command(&ChannelCommand::Fund { transaction: funding(script_pubkey, *amount) }).unwrap();
    let created = pair.a.sent.pop_front().unwrap();
    let Ok(Message::FundingCreated(good)) = Message::decode(&created) else { panic!() };
    let bad = FundingCreated { signature: Signature([1; 64]), ..good.clone() };
    let refused = pair.b.receive(&Message::from(bad).encode());
    assert_eq!(refused, Err(ChannelError::BadCommitmentSignature));
    pair.b.receive(&Message::from(good).encode()).unwrap();
    let Ok(Message::FundingSigned(good)) = Message::decode(&pair.b.sent.pop_front().unwrap()) else {
        panic!()
    };
    let bad = FundingSigned { signature: Signature([1; 64]), ..good.clone() };
    let refused = pair.a.receive(&Message::from(bad).encode());
    assert_eq!(refused, Err(ChannelError::BadCommitmentSignature));
    assert!(pair.a.take_events().iter().all(|event| !matches!(event, ChannelEvent::FundingBroadcast { .. })));
    pair.a.receive(&Message::from(good).encode()).unwrap();

    let ready = ChannelReady {
        channel_id: pair.a.channel.id(),
        second_per_commitment_point: OFF_CURVE,
        alias: None,
        unknown: Default::default(),
    };
    let refused = pair.a.receive(&Message::from(ready).encode()).unwrap_err();
    assert!(matches!(refused, ChannelError::InvalidPoint(_)));
}

/// A message of `a` that adds an HTLC without the sender's own checks.
fn add_message(pair: &Pair, amount: Msat) -> UpdateAddHtlc {
    UpdateAddHtlc {
        channel_id: pair.a.channel.id(),
        id: pair.b.channel.funded().unwrap().updates.next_id(Side::Remote),
        amount_msat: amount,
        payment_hash: hash_of(&preimage(0)),
        cltv_expiry: BlockHeight(500),
        onion_routing_packet: OnionPacket::from_bytes(Box::new([0; 1366])),
        path_key: None,
        unknown: Default::default(),
    }
}

fn refused(node: &mut Node, message: impl Into<Message>) -> ChannelError {
    let before = describe(node.channel.clone());
    let error = node.receive(&message.into().encode()).expect_err("must be refused");
    assert_eq!(describe(node.channel.clone()), before, "{error}");
    error
}

#[test]
fn unacceptable_additions() {
    let mut setup = Setup::new(ChannelType::Anchors);
    setup.b.htlc_minimum = Msat(1000);
    setup.b.max_accepted_htlcs = 2;
    setup.b.max_htlc_value_in_flight = Msat(550_000_000);
    let mut pair = Pair::ready(&setup);
    let add = |pair: &Pair, amount: u64| add_message(pair, Msat(amount));

    let zero = add(&pair, 0);
    assert_eq!(refused(&mut pair.b, zero), ChannelError::HtlcAmountZero { id: 0 });
    let small = add(&pair, 999);
    let expected = ChannelError::HtlcBelowMinimum { amount: Msat(999), min: Msat(1000) };
    assert_eq!(refused(&mut pair.b, small), expected);
    let skipped = UpdateAddHtlc { id: 1, ..add(&pair, 1000) };
    let expected = ChannelError::HtlcIdOutOfOrder { expected: 0, found: 1 };
    assert_eq!(refused(&mut pair.b, skipped), expected);
    let late = UpdateAddHtlc { cltv_expiry: BlockHeight(500_000_000), ..add(&pair, 1000) };
    let expected = ChannelError::CltvExpiryNotAHeight(BlockHeight(500_000_000));
    assert_eq!(refused(&mut pair.b, late), expected);
    let other = UpdateAddHtlc { channel_id: ChannelId([3; 32]), ..add(&pair, 1000) };
    let error = refused(&mut pair.b, other);
    assert_eq!((name(&error).as_str(), error.reaction()), ("WrongChannel", Reaction::Ignore));
    let much = add(&pair, 550_000_001);
    let expected = ChannelError::TooMuchInFlight { total: Msat(550_000_001), max: Msat(550_000_000) };
    assert_eq!(refused(&mut pair.b, much), expected);

    for number in 0..2 {
        pair.a.add(Msat(1000), number);
    }
    pair.settle();
    let third = add(&pair, 1000);
    assert_eq!(refused(&mut pair.b, third), ChannelError::TooManyHtlcs { count: 3, max: 2 });
    assert_eq!(pair.a.command(&super::add(Msat(1000), 3)), Err(ChannelCommandError::TooManyHtlcs { max: 2 }));
}

#[test]
fn additions_beyond_the_balance() {
    for opener_sends in [true, false] {
        let mut pair = Pair::with_type(ChannelType::Anchors);
        // The opener has 600,000 satoshi, of which 10,000 are its reserve, 660 its anchors and 1,296 the fee.
        let limit = if opener_sends { 600_000 - 10_000 - 660 - 1296 } else { 400_000 - 10_000 };
        if !opener_sends {
            std::mem::swap(&mut pair.a, &mut pair.b);
        }
        let message = add_message(&pair, Msat(limit * 1000 + 1));
        let error = refused(&mut pair.b, message);
        assert!(
            matches!(error, ChannelError::HtlcNotAffordable { available, .. } if available == Msat(limit * 1000)),
            "{error}"
        );
        let message = Message::from(add_message(&pair, Msat(limit * 1000)));
        pair.b.receive(&message.encode()).unwrap();
    }
}

#[test]
fn unacceptable_removals() {
    let mut pair = Pair::with_type(ChannelType::Anchors);
    let channel_id = pair.a.channel.id();
    let fulfill = |id, number| UpdateFulfillHtlc {
        channel_id,
        id,
        payment_preimage: preimage(number),
        attribution_data: None,
        unknown: Default::default(),
    };
    let fail = |id| UpdateFailHtlc {
        channel_id,
        id,
        reason: vec![],
        attribution_data: None,
        unknown: Default::default(),
    };
    assert_eq!(refused(&mut pair.a, fulfill(0, 1)), ChannelError::Removal(RemovalError::UnknownHtlc(0)));
    assert_eq!(refused(&mut pair.a, fail(0)), ChannelError::Removal(RemovalError::UnknownHtlc(0)));
    let unknown = ChannelCommand::FailHtlc { id: 0, reason: vec![] };
    assert_eq!(pair.b.command(&unknown), Err(ChannelCommandError::Removal(RemovalError::UnknownHtlc(0))));

    pair.a.add(Msat(1_000_000), 1);
    pair.a.commit();
    while pair.a_to_b() {}
    assert_eq!(pair.b.channel.htlc(Side::Remote, 0).unwrap().added, Stage::Acknowledged);
    assert_eq!(refused(&mut pair.a, fulfill(0, 1)), ChannelError::Removal(RemovalError::NotCommitted(0)));
    let early = ChannelCommand::FulfillHtlc { id: 0, preimage: preimage(1) };
    assert_eq!(pair.b.command(&early), Err(ChannelCommandError::Removal(RemovalError::NotCommitted(0))));
    pair.settle();

    let error = refused(&mut pair.a, fulfill(0, 2));
    assert!(matches!(error, ChannelError::Removal(RemovalError::WrongPreimage { id: 0, .. })));
    let wrong = ChannelCommand::FulfillHtlc { id: 0, preimage: preimage(2) };
    assert!(matches!(
        pair.b.command(&wrong),
        Err(ChannelCommandError::Removal(RemovalError::WrongPreimage { id: 0, .. }))
    ));
    let malformed = UpdateFailMalformedHtlc {
        channel_id,
        id: 0,
        sha256_of_onion: [0; 32],
        failure_code: 0x4005,
        unknown: Default::default(),
    };
    let expected = ChannelError::Removal(RemovalError::NotBadOnion { id: 0, failure_code: 0x4005 });
    assert_eq!(refused(&mut pair.a, malformed), expected);
    let malformed =
        ChannelCommand::FailMalformedHtlc { id: 0, sha256_of_onion: [0; 32], failure_code: 0x4005 };
    assert_eq!(
        pair.b.command(&malformed),
        Err(ChannelCommandError::Removal(RemovalError::NotBadOnion { id: 0, failure_code: 0x4005 }))
    );
    let long = ChannelCommand::FailHtlc { id: 0, reason: vec![0; 65_535] };
    assert_eq!(pair.b.command(&long), Err(ChannelCommandError::ReasonTooLong(65_535)));
    let longest = ChannelCommand::FailHtlc { id: 0, reason: vec![0; 65_535 - 2 - 32 - 8 - 2] };
    assert!(pair.b.channel.plan_command(&longest).unwrap().send[0].encode().len() <= 65_535);

    pair.b.fulfill(0, 1);
    let twice = ChannelCommand::FailHtlc { id: 0, reason: vec![] };
    assert_eq!(pair.b.command(&twice), Err(ChannelCommandError::Removal(RemovalError::AlreadyRemoved(0))));
    pair.b_to_a();
    assert_eq!(refused(&mut pair.a, fail(0)), ChannelError::Removal(RemovalError::AlreadyRemoved(0)));
}

#[test]
fn unacceptable_fees() {
    let mut setup = Setup::new(ChannelType::StaticRemotekey);
    setup.b.max_dust_htlc_exposure = Msat(1_000_000);
    let mut pair = Pair::ready(&setup);
    let channel_id = pair.a.channel.id();
    let fee = |feerate| UpdateFee {
        channel_id,
        feerate_per_kw: FeeratePerKw(feerate),
        unknown: Default::default(),
    };
    assert_eq!(refused(&mut pair.a, fee(2000)), ChannelError::UpdateFeeNotByOpener);
    assert!(matches!(refused(&mut pair.b, fee(252)), ChannelError::FeerateTooLow { .. }));
    assert!(matches!(refused(&mut pair.b, fee(250_001)), ChannelError::FeerateTooHigh { .. }));
    let low = ChannelCommand::UpdateFee { feerate: FeeratePerKw(252) };
    assert!(matches!(pair.a.command(&low), Err(ChannelCommandError::FeerateOutOfRange { .. })));
    // 1,500 satoshi survive a thousand per kiloweight, not two thousand.
    pair.locked_in(Msat(1_500_000), 1);
    assert!(matches!(refused(&mut pair.b, fee(2000)), ChannelError::DustExposure { .. }));
    let mut pair = Pair::ready(&setup);
    let amount = Msat(pair.a.channel.available_out().0 - 10_000_000);
    pair.locked_in(amount, 1);
    assert!(matches!(refused(&mut pair.b, fee(20_000)), ChannelError::FeeNotAffordable { .. }));
    let raise = ChannelCommand::UpdateFee { feerate: FeeratePerKw(20_000) };
    assert!(matches!(pair.a.command(&raise), Err(ChannelCommandError::FeeNotAffordable { .. })));

    setup.a.max_dust_htlc_exposure = Msat(1_000_000);
    let mut pair = Pair::ready(&setup);
    pair.locked_in(Msat(1_500_000), 1);
    let raise = ChannelCommand::UpdateFee { feerate: FeeratePerKw(2000) };
    assert!(matches!(pair.a.command(&raise), Err(ChannelCommandError::DustExposure { .. })));
}

#[test]
fn unacceptable_commitments() {
    let mut pair = Pair::with_type(ChannelType::Anchors);
    let channel_id = pair.a.channel.id();
    let empty = CommitmentSigned {
        channel_id,
        signature: Signature([1; 64]),
        htlc_signatures: vec![],
        funding_txid: None,
        unknown: Default::default(),
    };
    assert_eq!(refused(&mut pair.b, empty), ChannelError::BadCommitmentSignature);

    pair.a.add(Msat(1_000_000), 1);
    pair.a.add(Msat(2_000_000), 2);
    pair.a.commit();
    pair.a_to_b();
    pair.a_to_b();
    let Ok(Message::CommitmentSigned(good)) = Message::decode(&pair.a.sent.pop_front().unwrap()) else {
        panic!()
    };
    let bad = CommitmentSigned { signature: Signature([1; 64]), ..good.clone() };
    assert_eq!(refused(&mut pair.b, bad), ChannelError::BadCommitmentSignature);
    let mut bad = good.clone();
    bad.htlc_signatures.swap(0, 1);
    assert_eq!(refused(&mut pair.b, bad), ChannelError::BadHtlcSignature { index: 0 });
    let mut bad = good.clone();
    bad.htlc_signatures[1].0[5] ^= 1;
    assert_eq!(refused(&mut pair.b, bad), ChannelError::BadHtlcSignature { index: 1 });
    let mut bad = good.clone();
    bad.htlc_signatures.pop();
    assert_eq!(refused(&mut pair.b, bad), ChannelError::HtlcSignatureCount { expected: 2, found: 1 });
    let mut high_s = good.clone();
    negate_s(&mut high_s.signature);
    assert_eq!(refused(&mut pair.b, high_s), ChannelError::BadCommitmentSignature);
    pair.b.receive(&Message::from(good).encode()).unwrap();

    let Ok(Message::RevokeAndAck(good)) = Message::decode(&pair.b.sent.pop_front().unwrap()) else {
        panic!()
    };
    let wrong = RevokeAndAck { per_commitment_secret: [7; 32], ..good.clone() };
    let error = refused(&mut pair.a, wrong);
    assert!(matches!(error, ChannelError::WrongRevocationSecret(_)));
    let none = RevokeAndAck { per_commitment_secret: [0; 32], ..good.clone() };
    assert!(matches!(refused(&mut pair.a, none), ChannelError::WrongRevocationSecret(_)));
    let off_curve = RevokeAndAck { next_per_commitment_point: OFF_CURVE, ..good.clone() };
    assert!(matches!(refused(&mut pair.a, off_curve), ChannelError::InvalidPoint(_)));
    pair.a.receive(&Message::from(good.clone()).encode()).unwrap();
    assert_eq!(refused(&mut pair.a, good), ChannelError::UnexpectedRevocation);
}

/// The other, non-standard half of a signature's two forms: s becomes the group's order less s.
fn negate_s(signature: &mut Signature) {
    let order = [
        0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfe, 0xba,
        0xae, 0xdc, 0xe6, 0xaf, 0x48, 0xa0, 0x3b, 0xbf, 0xd2, 0x5e, 0x8c, 0xd0, 0x36, 0x41, 0x41u8,
    ];
    let mut borrow = 0i16;
    for i in (0..32).rev() {
        let difference = i16::from(order[i]) - i16::from(signature.0[32 + i]) - borrow;
        borrow = i16::from(difference < 0);
        signature.0[32 + i] = (difference & 0xff) as u8;
    }
}

#[test]
fn secrets_must_come_from_one_seed() {
    let mut pair = Pair::with_type(ChannelType::Anchors);
    // A peer that reveals right secrets of unrelated seeds: its next point is another seed's.
    let foreign = ChannelSecrets::derive(&NodeSeed::new([99; 32]), 0);
    pair.a.add(Msat(1_000_000), 1);
    pair.a.commit();
    while pair.a_to_b() {}
    let Ok(Message::RevokeAndAck(mut revoke)) = Message::decode(&pair.b.sent.pop_front().unwrap()) else {
        panic!()
    };
    let number = crate::keys::CommitmentNumber;
    revoke.next_per_commitment_point = crate::keys::to_point(&foreign.per_commitment_point(number(2)));
    pair.a.receive(&Message::from(revoke).encode()).unwrap();
    // The second secret, for commitment 1, is still of the true seed; that of commitment 2 is not.
    let mut error = None;
    for round in 0..3u64 {
        let id = pair.a.channel.next_htlc_id();
        pair.a.add(Msat(1_000_000), id);
        pair.a.commit();
        let secret = if round == 0 { secrets(2) } else { foreign.clone() };
        let revoke = RevokeAndAck {
            channel_id: pair.a.channel.id(),
            per_commitment_secret: secret.per_commitment_secret(number(round + 1)).reveal(),
            next_per_commitment_point: crate::keys::to_point(
                &foreign.per_commitment_point(number(round + 3)),
            ),
            unknown: Default::default(),
        };
        error = pair.a.receive(&Message::from(revoke).encode()).err();
        if error.is_some() {
            break;
        }
    }
    assert!(matches!(error, Some(ChannelError::RevocationSecretNotDerived(_))), "{error:?}");
}

#[test]
fn unacceptable_shutdowns() {
    let mut pair = Pair::with_type(ChannelType::Anchors);
    let channel_id = pair.a.channel.id();
    let shutdown = |scriptpubkey: Vec<u8>| Shutdown { channel_id, scriptpubkey, unknown: Default::default() };
    let mut script = vec![0x00, 20];
    script.extend([0xaa; 20]);
    let error = refused(&mut pair.b, shutdown(vec![0x76, 0xa9]));
    assert_eq!((name(&error).as_str(), error.reaction()), ("ShutdownScriptForm", Reaction::Warn));
    let form = ChannelCommand::Shutdown { scriptpubkey: Some(vec![]) };
    assert_eq!(pair.a.command(&form), Err(ChannelCommandError::ShutdownScriptForm(vec![])));
    pair.a.add(Msat(1_000_000), 1);
    pair.a_to_b();
    assert_eq!(refused(&mut pair.b, shutdown(script.clone())), ChannelError::ShutdownWithPendingUpdates);
    pair.settle();
    pair.b.receive(&Message::from(shutdown(script.clone())).encode()).unwrap();
    script[5] ^= 1;
    let error = refused(&mut pair.b, shutdown(script));
    assert!(matches!(error, ChannelError::ShutdownScriptMismatch { .. }));
    let late = add_message(&pair, Msat(1_000_000));
    assert_eq!(refused(&mut pair.b, late), ChannelError::AddAfterShutdown { id: 1 });
}

#[test]
fn unacceptable_commands() {
    let mut setup = Setup::new(ChannelType::Anchors);
    setup.b.htlc_minimum = Msat(1000);
    setup.b.max_htlc_value_in_flight = Msat(5_000_000);
    setup.a.max_dust_htlc_exposure = Msat(300_000);
    let mut pair = Pair::funded(&setup);
    let early = pair.a.command(&add(Msat(1_000_000), 1));
    assert_eq!(early, Err(ChannelCommandError::NotPossible { command: "add HTLC", state: "confirming" }));
    pair.confirm();
    pair.settle();
    assert_eq!(pair.a.command(&add(Msat(0), 1)), Err(ChannelCommandError::HtlcAmountZero));
    let below = ChannelCommandError::HtlcBelowMinimum { amount: Msat(999), min: Msat(1000) };
    assert_eq!(pair.a.command(&add(Msat(999), 1)), Err(below));
    let over = ChannelCommandError::TooMuchInFlight { total: Msat(5_000_001), max: Msat(5_000_000) };
    assert_eq!(pair.a.command(&add(Msat(5_000_001), 1)), Err(over));
    assert!(matches!(
        pair.b.command(&add(Msat(390_000_001), 1)),
        Err(ChannelCommandError::InsufficientBalance { .. })
    ));
    let exposure = ChannelCommandError::DustExposure { exposure: Msat(300_001), max: Msat(300_000) };
    assert_eq!(pair.a.command(&add(Msat(300_001), 1)), Err(exposure));
    let ChannelCommand::AddHtlc { amount, payment_hash, onion_routing_packet, path_key, .. } =
        add(Msat(1_000_000), 1)
    else {
        panic!()
    };
    let cltv_expiry = BlockHeight(500_000_000);
    let late = ChannelCommand::AddHtlc { amount, payment_hash, cltv_expiry, onion_routing_packet, path_key };
    assert_eq!(pair.a.command(&late), Err(ChannelCommandError::CltvExpiryNotAHeight(cltv_expiry)));
}

#[test]
fn errors_of_the_peer_fail_the_channel_and_warnings_do_not() {
    let mut pair = Pair::with_type(ChannelType::Anchors);
    let id = pair.a.channel.id();
    pair.a.receive(&Message::from(fulmen_wire::message::Warning::new(id, "hm")).encode()).unwrap();
    let unexpected = pair.a.receive(&Message::from(open_message(&Setup::new(ChannelType::Anchors))).encode());
    assert!(matches!(unexpected, Err(ChannelError::WrongChannel { .. })));
    let error = ChannelError::UnexpectedMessage { message: "open_channel", state: "normal" };
    pair.a.react(&error);
    let warning = Message::decode(&pair.a.sent.pop_front().unwrap()).unwrap();
    assert!(matches!(warning, Message::Warning(_)));
    assert_eq!(pair.a.channel.state(), State::Normal);
    let message = fulmen_wire::message::ErrorMessage::new(id, "sorry");
    let error = pair.a.receive(&Message::from(message).encode()).unwrap_err();
    assert_eq!(error, ChannelError::PeerError("sorry".to_owned()));
    pair.a.react(&error);
    assert_eq!(pair.a.channel.failure(), Some(&error));
    assert!(matches!(pair.a.take_events()[..], [ChannelEvent::Failed { broadcast_allowed: true, .. }]));
    let (commitment, _) = pair.a.channel.signed_local_commitment().unwrap();
    assert_eq!(commitment.number, crate::keys::CommitmentNumber(0));
    // A failed channel stays silent.
    let add = add_message(&pair, Msat(1000));
    pair.a.receive(&Message::from(add).encode()).unwrap();
    assert!(pair.a.sent.is_empty() && pair.a.channel.plan_turn_end(&CONTEXT).is_none());
}
