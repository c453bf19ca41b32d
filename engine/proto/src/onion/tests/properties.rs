//! Properties of the onion over random routes, and over bytes nobody vouches for.

use fulmen_wire::onion::{HOP_PAYLOADS_LENGTH, OnionPacket};
use fulmen_wire::units::{BlockHeight, Msat, NodeId, PaymentPreimage, PaymentSecret, Scid};
use proptest::prelude::{Just, Strategy, any, prop, prop_assert, prop_assert_eq, prop_oneof, proptest};
use proptest::test_runner::Config;
use secp256k1::SecretKey;

use super::node_id;
use crate::onion::{
    Failure, FailureCode, FinalPayload, ForwardPayload, OnionBuildError, OnionHop, OtherRecord, Payload,
    PayloadError, PaymentData, PeelError, PeelJob, PeelReaction, Peeled, ReturnedFailure, SharedSecret,
    SharedSecrets, build, create_failure, hop_size, payload_size, peel, peel_batch, wrap_failure,
};

fn secret_key() -> impl Strategy<Value = SecretKey> {
    any::<[u8; 32]>().prop_filter_map("not a scalar", |bytes| SecretKey::from_slice(&bytes).ok())
}

/// Nodes and payloads of up to 27 hops that fit into a packet.
fn route() -> impl Strategy<Value = Vec<(SecretKey, Vec<u8>)>> {
    let hop = (secret_key(), prop_oneof![4 => 2..60_usize, 1 => 240..270_usize])
        .prop_flat_map(|(key, length)| (Just(key), prop::collection::vec(any::<u8>(), length)));
    prop::collection::vec(hop, 1..=27).prop_map(|mut hops| {
        let mut room = HOP_PAYLOADS_LENGTH;
        let fitting = hops.iter().take_while(|(_, payload)| {
            let left = room.checked_sub(hop_size(payload.len()));
            room = left.unwrap_or(room);
            left.is_some()
        });
        let count = fitting.count();
        hops.truncate(count);
        hops
    })
}

fn hops(route: &[(SecretKey, Vec<u8>)]) -> Vec<OnionHop> {
    route.iter().map(|(key, payload)| OnionHop { node_id: node_id(key), payload: payload.clone() }).collect()
}

fn failure() -> impl Strategy<Value = Failure> {
    let hash = || any::<[u8; 32]>();
    let amount = || any::<u64>().prop_map(Msat);
    let height = || any::<u32>().prop_map(BlockHeight);
    prop_oneof![
        prop::sample::select(vec![
            Failure::TemporaryNodeFailure,
            Failure::PermanentNodeFailure,
            Failure::RequiredNodeFeatureMissing,
            Failure::TemporaryChannelFailure,
            Failure::PermanentChannelFailure,
            Failure::RequiredChannelFeatureMissing,
            Failure::UnknownNextPeer,
            Failure::ExpiryTooSoon,
            Failure::ChannelDisabled,
            Failure::ExpiryTooFar,
            Failure::MppTimeout,
        ]),
        hash().prop_map(|sha256_of_onion| Failure::InvalidOnionVersion { sha256_of_onion }),
        hash().prop_map(|sha256_of_onion| Failure::InvalidOnionHmac { sha256_of_onion }),
        hash().prop_map(|sha256_of_onion| Failure::InvalidOnionKey { sha256_of_onion }),
        hash().prop_map(|sha256_of_onion| Failure::InvalidOnionBlinding { sha256_of_onion }),
        amount().prop_map(|htlc_msat| Failure::AmountBelowMinimum { htlc_msat }),
        amount().prop_map(|htlc_msat| Failure::FeeInsufficient { htlc_msat }),
        amount().prop_map(|incoming_htlc_amt| Failure::FinalIncorrectHtlcAmount { incoming_htlc_amt }),
        height().prop_map(|cltv_expiry| Failure::IncorrectCltvExpiry { cltv_expiry }),
        height().prop_map(|cltv_expiry| Failure::FinalIncorrectCltvExpiry { cltv_expiry }),
        (amount(), height())
            .prop_map(|(htlc_msat, height)| Failure::IncorrectOrUnknownPaymentDetails { htlc_msat, height }),
        (any::<u64>(), any::<u16>())
            .prop_map(|(tlv_type, offset)| Failure::InvalidOnionPayload { tlv_type, offset }),
        (0x5000..0x6000_u16, prop::collection::vec(any::<u8>(), 0..400))
            .prop_map(|(failure_code, data)| Failure::Other { failure_code, data }),
    ]
}

fn payload() -> impl Strategy<Value = Payload> {
    let amount = || prop::option::of((0..=Msat::MAX_MONEY.0).prop_map(Msat));
    let bytes = || prop::option::of(prop::collection::vec(any::<u8>(), 0..80));
    let data = (any::<[u8; 32]>(), 0..=Msat::MAX_MONEY.0).prop_map(|(secret, total)| PaymentData {
        payment_secret: PaymentSecret(secret),
        total_msat: Msat(total),
    });
    let point = any::<[u8; 33]>().prop_map(|mut bytes| {
        bytes[0] = 2 | bytes[0] & 1;
        fulmen_wire::units::Point(bytes)
    });
    let others = prop::collection::btree_map(
        prop_oneof![(0..32_767_u64).prop_map(|half| 2 * half + 1), 65_536..5_000_000_000_u64],
        prop::collection::vec(any::<u8>(), 0..20),
        0..4,
    );
    (
        (amount(), prop::option::of(any::<u32>()), prop::option::of(any::<u64>()), prop::option::of(data)),
        (bytes(), prop::option::of(point), bytes(), amount(), prop::option::of(any::<[u8; 32]>()), others),
    )
        .prop_map(
            |((amount, expiry, scid, data), (encrypted, key, metadata, total, preimage, others))| Payload {
                amt_to_forward: amount,
                outgoing_cltv_value: expiry.map(BlockHeight),
                short_channel_id: scid.map(Scid),
                payment_data: data,
                encrypted_recipient_data: encrypted,
                current_path_key: key,
                payment_metadata: metadata,
                total_amount_msat: total,
                keysend_preimage: preimage.map(PaymentPreimage),
                other_records: others
                    .into_iter()
                    .map(|(tlv_type, value)| OtherRecord { tlv_type, value })
                    .collect(),
            },
        )
}

proptest! {
    #![proptest_config(Config { cases: 24, ..Config::default() })]

    #[test]
    fn peeling_a_built_packet_returns_the_payloads(route in route(), session in secret_key(), data: [u8; 32]) {
        let (mut packet, secrets) = build(&session, &hops(&route), &data).unwrap();
        for (index, (key, expected)) in route.iter().enumerate() {
            match peel(key, &packet, &data).unwrap() {
                Peeled::Forward { payload, next_packet, shared_secret } => {
                    prop_assert!(index + 1 < route.len());
                    prop_assert_eq!(&payload, expected);
                    prop_assert_eq!(shared_secret, secrets.as_slice()[index]);
                    packet = next_packet;
                }
                Peeled::Final { payload, shared_secret } => {
                    prop_assert_eq!(index + 1, route.len());
                    prop_assert_eq!(&payload, expected);
                    prop_assert_eq!(shared_secret, secrets.as_slice()[index]);
                }
            }
        }
    }

    #[test]
    fn a_changed_packet_is_refused(
        route in route(), session in secret_key(), data: [u8; 32], position in 0..1366_usize, flip in 1..=255_u8,
    ) {
        let (packet, _) = build(&session, &hops(&route), &data).unwrap();
        let mut bytes = Box::new(*packet.as_bytes());
        bytes[position] ^= flip;
        let error = peel(&route[0].0, &OnionPacket::from_bytes(bytes.clone()), &data).unwrap_err();
        let expected: &[FailureCode] = match position {
            0 => &[FailureCode::InvalidOnionVersion],
            1..34 => &[FailureCode::InvalidOnionKey, FailureCode::InvalidOnionHmac],
            _ => &[FailureCode::InvalidOnionHmac],
        };
        let PeelReaction::FailMalformed { failure_code, sha256_of_onion } = error.reaction() else {
            panic!("{error} must be reported as malformed");
        };
        prop_assert!(expected.contains(&failure_code), "{}", failure_code);
        let digest: [u8; 32] = <sha2::Sha256 as sha2::Digest>::digest(&bytes[..]).into();
        prop_assert_eq!(sha256_of_onion, digest);
    }

    #[test]
    fn another_payment_hash_or_node_is_refused(
        route in route(), session in secret_key(), data: [u8; 32], other: [u8; 32], stranger in secret_key(),
    ) {
        let (packet, _) = build(&session, &hops(&route), &data).unwrap();
        for (key, associated_data) in [(&route[0].0, &other), (&stranger, &data)] {
            let refused = peel(key, &packet, associated_data);
            let by_hmac = matches!(refused, Err(PeelError::Hmac { .. }));
            prop_assert!(by_hmac);
        }
    }

    #[test]
    fn a_failure_from_any_hop_reaches_the_origin(
        secrets in prop::collection::vec(any::<[u8; 32]>(), 1..=30), erring: prop::sample::Index,
        failure in failure(), damage in prop::option::of((any::<prop::sample::Index>(), 1..=255_u8)),
    ) {
        let secrets: Vec<SharedSecret> = secrets.into_iter().map(SharedSecret::from_bytes).collect();
        let hop = erring.index(secrets.len());
        let mut reason = create_failure(&secrets[hop], &failure);
        prop_assert!(reason.len() >= 292);
        for secret in secrets[..hop].iter().rev() {
            wrap_failure(secret, &mut reason);
        }
        let expected = match damage {
            Some((position, flip)) => {
                let position = position.index(reason.len());
                reason[position] ^= flip;
                ReturnedFailure::Unreadable
            }
            None => ReturnedFailure::From { hop, failure },
        };
        prop_assert_eq!(SharedSecrets::from_secrets(secrets).read_failure(&reason), expected);
    }
}

proptest! {
    #![proptest_config(Config { cases: 256, ..Config::default() })]

    #[test]
    fn a_failure_survives_its_encoding(failure in failure(), extra in prop::collection::vec(any::<u8>(), 0..40)) {
        let mut bytes = failure.encode();
        prop_assert_eq!(&Failure::decode(&bytes), &failure);
        prop_assert_eq!(&bytes[..2], failure.code().to_u16().to_be_bytes());
        // Bytes behind the message are ignored, but belong to it when nothing is known about it.
        if !matches!(failure, Failure::Other { .. }) {
            bytes.extend(extra);
            prop_assert_eq!(Failure::decode(&bytes), failure);
        }
    }

    #[test]
    fn a_payload_survives_its_encoding(payload in payload()) {
        let decoded = Payload::decode(&payload.encode());
        prop_assert_eq!(decoded, Ok(payload));
    }

    #[test]
    fn a_payload_that_is_read_is_written_back(bytes in prop::collection::vec(any::<u8>(), 0..24)) {
        if let Ok(payload) = Payload::decode(&bytes) {
            prop_assert_eq!(payload.encode(), bytes);
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..1500), key in secret_key(), code: u16,
    ) {
        if let Err(error) = Payload::decode(&bytes) {
            prop_assert_eq!(error.failure().code(), FailureCode::InvalidOnionPayload);
        }
        // Failure::decode is total: its result encodes again.
        let failure = Failure::decode(&[&code.to_be_bytes(), bytes.as_slice()].concat());
        prop_assert_eq!(failure.code().to_u16(), code);
        prop_assert!(failure.encode().len() >= 2);
        let secrets = SharedSecrets::from_secrets(vec![SharedSecret::from_bytes([7; 32])]);
        prop_assert_eq!(secrets.read_failure(&bytes), ReturnedFailure::Unreadable);
        let mut packet = Box::new([0; 1366]);
        let length = bytes.len().min(1366);
        packet[..length].copy_from_slice(&bytes[..length]);
        prop_assert!(peel(&key, &OnionPacket::from_bytes(packet), &[]).is_err());
    }
}

/// An origin can frame a payload as it likes: build a packet whose hop payloads begin with these bytes.
fn packet_beginning_with(key: &SecretKey, session: &SecretKey, plain: &[u8]) -> OnionPacket {
    use crate::onion::keys::KeyKind;
    use hmac::Mac;
    let hop = OnionHop { node_id: node_id(key), payload: vec![0; 2] };
    let (packet, secrets) = build(session, &[hop], &[]).unwrap();
    let secret = &secrets.as_slice()[0];
    let mut bytes = Box::new(*packet.as_bytes());
    let mut stream = vec![0; plain.len()];
    secret.derive(KeyKind::Rho).stream().apply(&mut stream);
    for (index, (byte, stream)) in plain.iter().zip(stream).enumerate() {
        bytes[34 + index] = byte ^ stream;
    }
    let mac = secret.derive(KeyKind::Mu).mac().chain_update(&bytes[34..1334]).finalize();
    bytes[1334..].copy_from_slice(&mac.into_bytes());
    OnionPacket::from_bytes(bytes)
}

#[test]
fn wrongly_framed_payloads_are_answered_to_the_origin() {
    let key = SecretKey::from_slice(&[1; 32]).unwrap();
    let session = SecretKey::from_slice(&[2; 32]).unwrap();
    let refused: [&[u8]; 8] = [
        &[0],                      // the legacy format
        &[1, 7],                   // reserved
        &[0xfd, 0x00, 0xfc],       // not minimal
        &[0xfd, 0x04, 0xf2],       // 1266: its HMAC ends one byte behind the packet
        &[0xfd, 0xff, 0xff],       // far behind it
        &[0xfe, 0, 0, 0, 20],      // not minimal
        &[0xfe, 0xff, 0xff, 0xff], // beyond any packet
        &[0xff; 9],
    ];
    for plain in refused {
        let packet = packet_beginning_with(&key, &session, plain);
        let error = peel(&key, &packet, &[]).unwrap_err();
        let PeelReaction::Fail { failure, .. } = error.reaction() else {
            panic!("{plain:?} is authentic, so the origin can be told: {error}");
        };
        assert_eq!(failure, Failure::InvalidOnionPayload { tlv_type: 0, offset: 0 }, "{plain:?}");
    }
    for (plain, length) in [([2, 0, 0], 2), ([0xfd, 0x00, 0xfd], 253), ([0xfd, 0x04, 0xf1], 1265)] {
        let packet = packet_beginning_with(&key, &session, &plain);
        match peel(&key, &packet, &[]).unwrap() {
            Peeled::Forward { payload, .. } | Peeled::Final { payload, .. } => {
                assert_eq!(payload.len(), length)
            }
        }
    }
}

#[test]
fn a_packet_is_built_up_to_its_last_byte() {
    let session = SecretKey::from_slice(&[2; 32]).unwrap();
    let key = SecretKey::from_slice(&[1; 32]).unwrap();
    let hop = |length| OnionHop { node_id: node_id(&key), payload: vec![5; length] };
    let full = [hop(100), hop(1300 - 133 - 35)];
    assert_eq!(payload_size(&full), HOP_PAYLOADS_LENGTH);
    let (packet, _) = build(&session, &full, &[]).unwrap();
    let Peeled::Forward { next_packet, .. } = peel(&key, &packet, &[]).unwrap() else { panic!("last") };
    let Peeled::Final { payload, .. } = peel(&key, &next_packet, &[]).unwrap() else { panic!("not last") };
    assert_eq!(payload, full[1].payload);

    let size = HOP_PAYLOADS_LENGTH + 1;
    let too_large = build(&session, &[hop(100), hop(1300 - 133 - 34)], &[]);
    assert_eq!(too_large.unwrap_err(), OnionBuildError::TooLarge { size });
    assert_eq!(build(&session, &[], &[]).unwrap_err(), OnionBuildError::NoHops);
    let short = build(&session, &[hop(2), hop(1)], &[]);
    assert_eq!(short.unwrap_err(), OnionBuildError::PayloadTooShort { hop: 1, length: 1 });
    let node_id = NodeId([5; 33]);
    let nobody = build(&session, &[hop(2), OnionHop { node_id, payload: vec![0; 2] }], &[]);
    assert_eq!(nobody.unwrap_err(), OnionBuildError::InvalidNodeId { hop: 1, node_id });
}

#[test]
fn a_batch_keeps_order_and_errors_apart() {
    let session = SecretKey::from_slice(&[2; 32]).unwrap();
    let key = SecretKey::from_slice(&[1; 32]).unwrap();
    let build = |payload: u8| {
        let hop = OnionHop { node_id: node_id(&key), payload: vec![payload; 4] };
        build(&session, &[hop], &[payload]).unwrap().0
    };
    let packets: Vec<_> = (0..4).map(build).collect();
    let hashes = [[0], [1], [77], [3]];
    let jobs: Vec<PeelJob<'_>> =
        packets.iter().zip(&hashes).map(|(packet, hash)| PeelJob { packet, associated_data: hash }).collect();
    for (index, result) in peel_batch(&key, &jobs).into_iter().enumerate() {
        match result {
            Ok(Peeled::Final { payload, .. }) if index != 2 => assert_eq!(payload, [index as u8; 4]),
            Err(PeelError::Hmac { .. }) if index == 2 => {}
            other => panic!("job {index}: {other:?}"),
        }
    }
}

#[test]
fn roles_require_their_records() {
    let complete = ForwardPayload {
        short_channel_id: Scid(7),
        amt_to_forward: Msat(1000),
        outgoing_cltv_value: BlockHeight(500),
    };
    let full = Payload::from(complete);
    assert_eq!(full.clone().into_forward(), Ok(complete));
    for tlv_type in [2, 4, 6] {
        let mut payload = full.clone();
        match tlv_type {
            2 => payload.amt_to_forward = None,
            4 => payload.outgoing_cltv_value = None,
            _ => payload.short_channel_id = None,
        }
        let missing = PayloadError::Missing { tlv_type };
        assert_eq!(payload.clone().into_forward(), Err(missing.clone()));
        assert_eq!(missing.failure(), Failure::InvalidOnionPayload { tlv_type, offset: 0 });
        assert_eq!(payload.into_final(&[]).is_ok(), tlv_type == 6);
    }

    let last = FinalPayload {
        amt_to_forward: Msat(1000),
        outgoing_cltv_value: BlockHeight(500),
        payment_data: None,
        payment_metadata: None,
        keysend_preimage: Some(PaymentPreimage([3; 32])),
        other_records: vec![OtherRecord { tlv_type: 65_536, value: vec![1] }],
    };
    let payload = Payload::decode(&Payload::from(last.clone()).encode()).unwrap();
    assert_eq!(payload.clone().into_final(&[65_536]), Ok(last.clone()));
    assert_eq!(last.total_msat(), Msat(1000));
    let refused = Err(PayloadError::Unsupported { tlv_type: 65_536, offset: 0 });
    assert_eq!(payload.into_final(&[]), refused);
}

#[test]
fn bad_records_are_named_with_their_offset() {
    let cases: [(&[u8], u64, u16); 8] = [
        (&[2, 1, 5, 20, 0], 20, 3),                          // unknown even
        (&[2, 1, 5, 2, 1, 5], 2, 3),                         // twice
        (&[4, 1, 5, 2, 1, 5], 2, 3),                         // out of order
        (&[2, 1, 5, 4, 5, 1, 1, 1, 1, 1], 4, 3),             // too long for a tu32
        (&[2, 1, 0], 2, 0),                                  // not minimal
        (&[2, 1, 5, 6, 7, 0, 0, 0, 0, 0, 0, 0], 6, 3),       // a scid of seven bytes
        (&[2, 1, 5, 6, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0], 6, 3), // a scid of nine
        (&[2, 8, 0xff, 0, 0, 0, 0, 0, 0, 0], 2, 0),          // more than all bitcoin
    ];
    for (bytes, tlv_type, offset) in cases {
        let error = Payload::decode(bytes).unwrap_err();
        assert_eq!(error.failure(), Failure::InvalidOnionPayload { tlv_type, offset }, "{bytes:?}: {error}");
    }
    for stream in [&[2_u8, 9, 1][..], &[0xfd, 0, 2], &[2], &[0xff, 1]] {
        assert!(matches!(Payload::decode(stream), Err(PayloadError::Stream { .. })), "{stream:?}");
    }
}

#[test]
fn a_malformed_report_becomes_a_failure_of_ours() {
    let hash = [9; 32];
    for code in
        [FailureCode::InvalidOnionVersion, FailureCode::InvalidOnionHmac, FailureCode::InvalidOnionKey]
    {
        let failure = Failure::from_malformed(code.to_u16(), hash).unwrap();
        assert_eq!(failure.code(), code);
        assert_eq!(failure.encode()[2..], hash);
    }
    let unknown = Failure::from_malformed(0x8123, hash).unwrap();
    assert_eq!(Failure::decode(&unknown.encode()), unknown);
    let refused = Failure::from_malformed(FailureCode::UnknownNextPeer.to_u16(), hash);
    assert_eq!(refused.unwrap_err().failure_code, 0x400a);
}

#[test]
fn replay_tags_follow_the_secret() {
    let [one, two] = [[1; 32], [2; 32]].map(SharedSecret::from_bytes);
    assert_eq!(one.replay_tag(), SharedSecret::from_bytes(one.to_bytes()).replay_tag());
    assert_ne!(one.replay_tag(), two.replay_tag());
    assert_eq!(format!("{one:?}"), "SharedSecret(..)");
}
