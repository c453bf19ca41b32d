//! BOLT 4's vectors, byte for byte. The numbers stand in `engine/tests/vectors/bolt04-onion.json`.

use fulmen_wire::onion::OnionPacket;
use fulmen_wire::units::{BlockHeight, Msat, NodeId, Scid};
use secp256k1::SecretKey;
use serde::Deserialize;

use crate::onion::failure_packet::{create_failure, seal, unsealed};
use crate::onion::keys::KeyKind;
use crate::onion::{
    Failure, FailureCode, OnionHop, Payload, PayloadError, PeelJob, Peeled, ReturnedFailure, SharedSecret,
    SharedSecrets, build, hop_size, payload_size, peel, peel_batch, wrap_failure,
};

#[derive(Deserialize)]
struct Vectors {
    packet: Packet,
    blinded_route_packet: Packet,
    short_failure: ShortFailure,
    long_failure: LongFailure,
}

#[derive(Deserialize)]
struct Packet {
    session_key: Hex,
    associated_data: Hex,
    hops: Vec<PacketHop>,
    onion: Hex,
}

#[derive(Deserialize)]
struct PacketHop {
    node_id: Hex,
    secret_key: Option<Hex>,
    payload: Hex,
}

#[derive(Deserialize)]
struct ShortFailure {
    failure_message: Hex,
    hops: Vec<FailureKeys>,
    um_key: Hex,
    unsealed_without_hmac: Hex,
    reason_at_origin: Hex,
}

#[derive(Deserialize)]
struct FailureKeys {
    shared_secret: Hex,
    ammag_key: Hex,
}

#[derive(Deserialize)]
struct LongFailure {
    failure_message: Hex,
    um_key: Hex,
    unsealed: Hex,
    unsealed_without_hmac: Hex,
    stages_from_erring_node: Vec<Stage>,
}

#[derive(Deserialize)]
struct Stage {
    shared_secret: Hex,
    ammag_key: Hex,
    stream: Hex,
    reason: Hex,
}

#[derive(Deserialize)]
#[serde(try_from = "String")]
struct Hex(Vec<u8>);

impl TryFrom<String> for Hex {
    type Error = hex::FromHexError;

    fn try_from(digits: String) -> Result<Hex, hex::FromHexError> {
        hex::decode(digits).map(Hex)
    }
}

impl Hex {
    fn array<const N: usize>(&self) -> [u8; N] {
        self.0.as_slice().try_into().unwrap()
    }

    fn secret_key(&self) -> SecretKey {
        SecretKey::from_slice(&self.0).unwrap()
    }

    fn shared_secret(&self) -> SharedSecret {
        SharedSecret::from_bytes(self.array())
    }

    /// The bytes behind a payload's length.
    fn without_length(&self) -> Vec<u8> {
        self.0[if self.0[0] == 0xfd { 3 } else { 1 }..].to_vec()
    }
}

impl Packet {
    fn hops(&self) -> Vec<OnionHop> {
        let hop = |hop: &PacketHop| OnionHop {
            node_id: NodeId(hop.node_id.array()),
            payload: hop.payload.without_length(),
        };
        self.hops.iter().map(hop).collect()
    }

    fn build(&self) -> (OnionPacket, SharedSecrets) {
        build(&self.session_key.secret_key(), &self.hops(), &self.associated_data.0).unwrap()
    }
}

fn vectors() -> Vectors {
    serde_json::from_str(include_str!("../../../../tests/vectors/bolt04-onion.json")).unwrap()
}

#[test]
fn packet_is_built_byte_for_byte() {
    let vector = vectors().packet;
    let (packet, secrets) = vector.build();
    assert_eq!(packet.as_bytes()[..], vector.onion.0);
    assert_eq!(packet.version(), 0);
    assert_eq!(
        packet.public_key().0,
        vector.session_key.secret_key().public_key(crate::keys::secp()).serialize()
    );
    assert_eq!(packet.hop_payloads()[..], vector.onion.0[34..1334]);
    assert_eq!(packet.hmac()[..], vector.onion.0[1334..]);
    let expected: Vec<SharedSecret> =
        vectors().short_failure.hops.iter().map(|hop| hop.shared_secret.shared_secret()).collect();
    assert_eq!(secrets.as_slice(), expected);
    let sizes = vector.hops.iter().map(|hop| hop.payload.0.len() + 32).sum::<usize>();
    assert_eq!(payload_size(&vector.hops()), sizes);
    assert_eq!((hop_size(252), hop_size(253)), (285, 288));
}

#[test]
fn packet_is_peeled_by_every_hop() {
    let vector = vectors().packet;
    let secrets = vector.build().1;
    let mut packet = OnionPacket::from_bytes(Box::new(vector.onion.array()));
    let last = vector.hops.len() - 1;
    for (index, hop) in vector.hops.iter().enumerate() {
        let secret_key = hop.secret_key.as_ref().unwrap().secret_key();
        let job = PeelJob { packet: &packet, associated_data: &vector.associated_data.0 };
        let peeled = peel_batch(&secret_key, &[job]).remove(0).unwrap();
        assert_eq!(peeled, peel(&secret_key, &packet, &vector.associated_data.0).unwrap());
        assert_eq!(*peeled.shared_secret(), secrets.as_slice()[index]);
        match peeled {
            Peeled::Forward { payload, next_packet, .. } if index < last => {
                assert_eq!(payload, hop.payload.without_length());
                packet = next_packet;
            }
            Peeled::Final { payload, .. } if index == last => {
                assert_eq!(payload, hop.payload.without_length());
            }
            other => panic!("hop {index} is told {other:?}"),
        }
    }
}

#[test]
fn packet_payloads_are_read() {
    let hops = vectors().packet.hops();
    let amounts = [15_000, 14_000, 12_500, 10_000];
    let expiries = [1500, 1400, 1250, 1000];
    for (index, hop) in hops[..4].iter().enumerate() {
        let payload = Payload::decode(&hop.payload).unwrap();
        assert_eq!(payload.encode(), hop.payload);
        let forward = payload.into_forward().unwrap();
        assert_eq!(forward.short_channel_id, Scid(index as u64 + 1));
        assert_eq!(forward.amt_to_forward, Msat(amounts[index]));
        assert_eq!(forward.outgoing_cltv_value, BlockHeight(expiries[index]));
    }
    let payload = Payload::decode(&hops[4].payload).unwrap();
    assert_eq!(payload.encode(), hops[4].payload);
    let last = payload.into_final(&[]).unwrap();
    assert_eq!((last.amt_to_forward, last.outgoing_cltv_value), (Msat(10_000), BlockHeight(1000)));
    assert_eq!(last.total_msat(), Msat(10_000));
    let secret = "24a33562c54507a9334e79f0dc4f17d407e6d7c61f0e2f3d0d38599502f61704";
    assert_eq!(last.payment_data.unwrap().payment_secret.to_string(), secret);
    assert_eq!(last.other_records.len(), 1);
    assert_eq!(last.other_records[0].tlv_type, 301);
}

#[test]
fn blinded_route_packet_is_built_and_its_payloads_read() {
    let vector = vectors().blinded_route_packet;
    assert_eq!(vector.build().0.as_bytes()[..], vector.onion.0);
    let payloads: Vec<Payload> =
        vector.hops().iter().map(|hop| Payload::decode(&hop.payload).unwrap()).collect();
    for (payload, hop) in payloads.iter().zip(vector.hops()) {
        // The vector puts type 12 behind type 10 and 18 behind 10: an increasing stream each.
        assert_eq!(payload.encode(), hop.payload);
    }
    let alice = payloads[0].clone().into_forward().unwrap();
    assert_eq!(alice.amt_to_forward, Msat(110_125));
    assert_eq!(alice.outgoing_cltv_value, BlockHeight(749_150));
    assert_eq!(alice.short_channel_id, Scid(10));
    assert!(payloads[1].current_path_key.is_some());
    let eve = &payloads[4];
    assert_eq!((eve.amt_to_forward, eve.total_amount_msat), (Some(Msat(100_000)), Some(Msat(150_000))));
    for blinded in &payloads[1..] {
        let refused = PayloadError::Unsupported { tlv_type: 10, offset: 0 };
        assert_eq!(blinded.clone().into_forward().unwrap_err(), refused);
        assert_eq!(blinded.clone().into_final(&[]).unwrap_err(), refused);
    }
}

#[test]
fn short_failure_at_every_stage() {
    let vector = vectors().short_failure;
    let failure = Failure::decode(&vector.failure_message.0);
    assert_eq!(failure, Failure::TemporaryNodeFailure);
    let erring = vector.hops.last().unwrap().shared_secret.shared_secret();
    assert_eq!(erring.derive(KeyKind::Um).bytes(), vector.um_key.array());
    assert_eq!(unsealed(&erring, &vector.failure_message.0, 256)[32..], vector.unsealed_without_hmac.0);

    let mut reason = create_failure(&erring, &failure);
    for hop in vector.hops.iter().rev().skip(1) {
        let secret = hop.shared_secret.shared_secret();
        assert_eq!(secret.derive(KeyKind::Ammag).bytes(), hop.ammag_key.array());
        wrap_failure(&secret, &mut reason);
    }
    assert_eq!(reason, vector.reason_at_origin.0);
    let secrets = SharedSecrets::from_secrets(
        vector.hops.iter().map(|hop| hop.shared_secret.shared_secret()).collect(),
    );
    assert_eq!(secrets.read_failure(&reason), ReturnedFailure::From { hop: 4, failure });
}

#[test]
fn long_failure_at_every_stage() {
    let vector = vectors().long_failure;
    let stages = &vector.stages_from_erring_node;
    let erring = stages[0].shared_secret.shared_secret();
    assert_eq!(erring.derive(KeyKind::Um).bytes(), vector.um_key.array());
    let unsealed = unsealed(&erring, &vector.failure_message.0, 1024);
    assert_eq!(unsealed[32..], vector.unsealed_without_hmac.0);
    assert_eq!(unsealed, vector.unsealed.0);

    let mut reason = seal(&erring, &vector.failure_message.0, 1024);
    for (index, stage) in stages.iter().enumerate() {
        let secret = stage.shared_secret.shared_secret();
        assert_eq!(secret.derive(KeyKind::Ammag).bytes(), stage.ammag_key.array());
        let mut stream = vec![0; stage.stream.0.len()];
        secret.derive(KeyKind::Ammag).stream().apply(&mut stream);
        assert_eq!(stream, stage.stream.0);
        if index > 0 {
            wrap_failure(&secret, &mut reason);
        }
        assert_eq!(reason, stage.reason.0);

        // Whoever stands behind this stage as origin reads the same.
        let secrets: Vec<SharedSecret> =
            stages[..=index].iter().rev().map(|stage| stage.shared_secret.shared_secret()).collect();
        let failure =
            Failure::IncorrectOrUnknownPaymentDetails { htlc_msat: Msat(100), height: BlockHeight(800_000) };
        let read = SharedSecrets::from_secrets(secrets).read_failure(&reason);
        assert_eq!(read, ReturnedFailure::From { hop: index, failure });
    }
}

#[test]
fn failure_codes_have_their_numbers() {
    let numbers = [
        0x2002, 0x6002, 0x6003, 0xc004, 0xc005, 0xc006, 0x1007, 0x4008, 0x4009, 0x400a, 0x100b, 0x100c,
        0x100d, 0x100e, 0x400f, 18, 19, 0x1014, 21, 0x4016, 23, 0xc018,
    ];
    assert_eq!(FailureCode::ALL.iter().map(|code| code.to_u16()).collect::<Vec<_>>(), numbers);
    for number in numbers {
        let code = FailureCode::from_u16(number);
        assert!(!matches!(code, FailureCode::Other(_)));
        assert_eq!(FailureCode::from_u16(code.to_u16()), code);
        assert_eq!(code.to_string(), code.name());
    }
    assert_eq!(FailureCode::from_u16(17), FailureCode::Other(17));
}
