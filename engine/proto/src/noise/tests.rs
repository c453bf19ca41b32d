//! The vectors of BOLT 8, appendix A, and properties of streams that are cut and damaged anywhere.

use proptest::prelude::*;
use secp256k1::{PublicKey, SecretKey};
use serde_json::Value;

use super::*;
use crate::keys::secp;

fn vectors() -> Vec<Value> {
    serde_json::from_str(include_str!("../../../tests/vectors/bolt08-transport.json")).unwrap()
}

fn bytes(value: &Value) -> Vec<u8> {
    hex::decode(value.as_str().unwrap()).unwrap()
}

fn secret(value: &Value) -> SecretKey {
    SecretKey::from_slice(&bytes(value)).unwrap()
}

/// The name of an error in the appendix.
fn name(error: HandshakeError) -> String {
    let number = |act| match act {
        Act::One => 1,
        Act::Two => 2,
        Act::Three => 3,
    };
    match error {
        // The appendix prints the version for acts two and three alone.
        HandshakeError::Version { act: Act::One, .. } => "ACT1_BAD_VERSION".to_owned(),
        HandshakeError::Version { act, version } => format!("ACT{}_BAD_VERSION {version}", number(act)),
        HandshakeError::Key { act, .. } => format!("ACT{}_BAD_PUBKEY", number(act)),
        HandshakeError::StaticKeyTag => "ACT3_BAD_CIPHERTEXT".to_owned(),
        HandshakeError::Tag { act } => format!("ACT{}_BAD_TAG", number(act)),
    }
}

/// Both keys of a transport as the appendix prints them: `sk,rk`.
fn keys(transport: &Transport) -> (Vec<u8>, Vec<u8>) {
    let (sending, receiving) = transport.keys();
    (sending.to_vec(), receiving.to_vec())
}

fn printed_keys(step: &Value) -> (Vec<u8>, Vec<u8>) {
    (bytes(&step["sk"]), bytes(&step["rk"]))
}

#[test]
fn the_initiator_does_as_the_appendix_says() {
    let mut checked = 0;
    for vector in vectors() {
        let title = vector["name"].as_str().unwrap();
        if !title.starts_with("transport-initiator") {
            continue;
        }
        let responder = PublicKey::from_slice(&bytes(&vector["rs.pub"])).unwrap();
        let (initiator, act_one) =
            Initiator::new(&secret(&vector["ls.priv"]), secret(&vector["e.priv"]), &responder);
        let steps = vector["steps"].as_array().unwrap();
        assert_eq!(act_one.as_slice(), bytes(&steps[0]["output"]), "{title}");
        let input = bytes(&steps[1]["input"]);
        let finished = match <&[u8; ACT_TWO_BYTES]>::try_from(input.as_slice()) {
            Ok(act_two) => initiator.finish(act_two).map_err(name),
            Err(_) => Err("ACT2_READ_FAILED".to_owned()),
        };
        match finished {
            Ok((transport, act_three)) => {
                assert_eq!(act_three.as_slice(), bytes(&steps[2]["output"]), "{title}");
                assert_eq!(keys(&transport), printed_keys(&steps[3]), "{title}");
            }
            Err(error) => assert_eq!(error, steps[2]["error"].as_str().unwrap(), "{title}"),
        }
        checked += 1;
    }
    assert_eq!(checked, 5);
}

#[test]
fn the_responder_does_as_the_appendix_says() {
    let mut checked = 0;
    for vector in vectors() {
        let title = vector["name"].as_str().unwrap();
        if !title.starts_with("transport-responder") {
            continue;
        }
        let mut steps = vector["steps"].as_array().unwrap().iter();
        let outcome = (|| {
            let input = bytes(&steps.next().unwrap()["input"]);
            let act_one = input.as_slice().try_into().map_err(|_| "ACT1_READ_FAILED".to_owned())?;
            let (responder, act_two) =
                Responder::new(&secret(&vector["ls.priv"]), secret(&vector["e.priv"]), act_one)
                    .map_err(name)?;
            assert_eq!(act_two.as_slice(), bytes(&steps.next().unwrap()["output"]), "{title}");
            let input = bytes(&steps.next().unwrap()["input"]);
            let act_three = input.as_slice().try_into().map_err(|_| "ACT3_READ_FAILED".to_owned())?;
            responder.finish(act_three).map_err(name)
        })();
        let last = steps.next().unwrap();
        match outcome {
            Ok((transport, peer)) => {
                assert_eq!(keys(&transport), printed_keys(last), "{title}");
                let initiator = SecretKey::from_slice(&[0x11; 32]).unwrap();
                assert_eq!(peer, initiator.public_key(secp()), "{title}");
            }
            Err(error) => assert_eq!(error, last["error"].as_str().unwrap(), "{title}"),
        }
        assert_eq!(steps.next(), None, "{title}");
        checked += 1;
    }
    assert_eq!(checked, 10);
}

#[test]
fn messages_are_sealed_as_the_appendix_says_over_two_rotations() {
    let vectors = vectors();
    let vector = vectors.iter().find(|vector| vector["name"] == "transport-message test").unwrap();
    let key = |name: &str| cipher::Key::new(bytes(&vector[name]).try_into().unwrap());
    let mut sending = Transport::new(key("sk"), key("rk"), &key("ck"));
    let mut receiving = Transport::new(key("rk"), key("sk"), &key("ck"));
    let mut outputs = vector["steps"].as_array().unwrap().iter().peekable();
    for number in 0..=1001 {
        let mut sealed = Vec::new();
        sending.sealer.seal(b"hello", &mut sealed).unwrap();
        if let Some(step) = outputs.next_if(|step| step["message"] == number) {
            assert_eq!(sealed, bytes(&step["output"]), "message {number}");
        }
        let opened = receiving.opener.open(&mut sealed).unwrap();
        assert_eq!(opened, Opened::Message { message: 18..23, end: 39 });
        assert_eq!(&sealed[18..23], b"hello");
    }
    assert_eq!(outputs.next(), None);
}

/// Two ends that have shaken hands.
fn connected() -> (Transport, Transport) {
    let secret = |byte| SecretKey::from_slice(&[byte; 32]).unwrap();
    let (initiator, act_one) = Initiator::new(&secret(1), secret(2), &secret(3).public_key(secp()));
    let (responder, act_two) = Responder::new(&secret(3), secret(4), &act_one).unwrap();
    let (ours, act_three) = initiator.finish(&act_two).unwrap();
    let (theirs, peer) = responder.finish(&act_three).unwrap();
    assert_eq!(peer, secret(1).public_key(secp()));
    (ours, theirs)
}

/// Opens everything in `buffer`; returns the messages and leaves the unopened rest.
fn open_all(opener: &mut Opener, buffer: &mut Vec<u8>) -> Result<Vec<Vec<u8>>, FrameError> {
    let (mut messages, mut start) = (Vec::new(), 0);
    while let Opened::Message { message, end } = opener.open(&mut buffer[start..])? {
        messages.push(buffer[start..][message].to_vec());
        start += end;
    }
    buffer.drain(..start);
    Ok(messages)
}

#[test]
fn the_longest_message_passes_and_a_longer_one_is_refused() {
    let (mut ours, mut theirs) = connected();
    let longest = vec![7; MESSAGE_BYTES_MAX];
    let mut sealed = Vec::new();
    let error = ours.sealer.seal(&[0; MESSAGE_BYTES_MAX + 1], &mut sealed);
    assert_eq!(error, Err(MessageTooLong { bytes: MESSAGE_BYTES_MAX + 1 }));
    assert!(sealed.is_empty());
    ours.sealer.seal(&longest, &mut sealed).unwrap();
    ours.sealer.seal(&[], &mut sealed).unwrap();
    assert_eq!(sealed.len(), FRAME_BYTES_MAX + LENGTH_BYTES + TAG_BYTES);
    assert_eq!(open_all(&mut theirs.opener, &mut sealed), Ok(vec![longest, Vec::new()]));
}

#[test]
fn progress_of_an_incomplete_message_is_told_in_bytes() {
    let (mut ours, mut theirs) = connected();
    let mut sealed = Vec::new();
    ours.sealer.seal(&[9; 100], &mut sealed).unwrap();
    for (has, needed) in [(0, 18), (17, 18), (18, 134), (19, 134), (133, 134)] {
        assert_eq!(theirs.opener.open(&mut sealed[..has]), Ok(Opened::Incomplete { needed }));
    }
    assert_eq!(theirs.opener.open(&mut sealed), Ok(Opened::Message { message: 18..118, end: 134 }));
}

#[test]
fn a_node_with_another_key_is_found_out_by_either_side() {
    let secret = |byte| SecretKey::from_slice(&[byte; 32]).unwrap();
    let (_, act_one) = Initiator::new(&secret(1), secret(2), &secret(9).public_key(secp()));
    let refused = Responder::new(&secret(3), secret(4), &act_one).unwrap_err();
    assert_eq!(refused, HandshakeError::Tag { act: Act::One });
    let (initiator, _) = Initiator::new(&secret(1), secret(2), &secret(3).public_key(secp()));
    let (_, other_act_one) = Initiator::new(&secret(1), secret(5), &secret(3).public_key(secp()));
    let (_, act_two) = Responder::new(&secret(3), secret(4), &other_act_one).unwrap();
    assert_eq!(initiator.finish(&act_two).unwrap_err(), HandshakeError::Tag { act: Act::Two });
}

#[test]
fn secrets_do_not_print() {
    let secret = |byte| SecretKey::from_slice(&[byte; 32]).unwrap();
    let (initiator, act_one) = Initiator::new(&secret(1), secret(2), &secret(3).public_key(secp()));
    let (responder, act_two) = Responder::new(&secret(3), secret(4), &act_one).unwrap();
    assert_eq!(format!("{initiator:?} {responder:?}"), "Initiator(..) Responder(..)");
    let (transport, _) = initiator.finish(&act_two).unwrap();
    assert_eq!(format!("{transport:?}"), "Transport { sealer: Sealer(..), opener: Opener(..) }");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever the pieces in which a stream arrives, the messages come out whole and in order, over rotations.
    #[test]
    fn streams_survive_any_cut(
        lengths in prop::collection::vec(0_usize..300, 1..700),
        pieces in prop::collection::vec(1_usize..4_000, 1..50),
    ) {
        let (mut ours, mut theirs) = connected();
        let messages: Vec<Vec<u8>> =
            lengths.iter().zip(0_u32..).map(|(length, byte)| vec![byte as u8; *length]).collect();
        let mut sealed = Vec::new();
        messages.iter().for_each(|message| ours.sealer.seal(message, &mut sealed).unwrap());
        let (mut buffer, mut opened, mut rest) = (Vec::new(), Vec::new(), sealed.as_slice());
        for piece in pieces.iter().cycle() {
            let (now, later) = rest.split_at((*piece).min(rest.len()));
            buffer.extend_from_slice(now);
            opened.extend(open_all(&mut theirs.opener, &mut buffer).unwrap());
            rest = later;
            if rest.is_empty() {
                break;
            }
        }
        prop_assert_eq!(opened, messages);
        prop_assert!(buffer.is_empty());
    }

    /// A flipped bit is noticed where it is, and nothing is opened from there on.
    #[test]
    fn damage_ends_a_stream(position in 0_usize..3 * 134, bit in 0_u8..8) {
        let (mut ours, mut theirs) = connected();
        let mut sealed = Vec::new();
        (0..3).for_each(|byte| ours.sealer.seal(&[byte; 100], &mut sealed).unwrap());
        sealed[position] ^= 1_u8 << bit;
        let mut opened = 0;
        let error = loop {
            match theirs.opener.open(&mut sealed[134 * opened..]) {
                Ok(_) => opened += 1,
                Err(error) => break error,
            }
        };
        prop_assert_eq!(opened, position / 134);
        let in_length = position % 134 < LENGTH_BYTES;
        let expected = if in_length { FrameError::LengthTag } else { FrameError::MessageTag { bytes: 100 } };
        prop_assert_eq!(error, expected);
        prop_assert_eq!(theirs.opener.open(&mut []), Err(expected));
    }

    /// Arbitrary bytes are refused at every act.
    #[test]
    fn garbage_is_no_act(garbage in prop::array::uniform32(any::<u8>()), start in 0_u8..4) {
        let secret = |byte| SecretKey::from_slice(&[byte; 32]).unwrap();
        let mut act: [u8; ACT_ONE_BYTES] = core::array::from_fn(|at| garbage[at % 32]);
        (act[0], act[1]) = (start % 2, start);
        prop_assert!(Responder::new(&secret(3), secret(4), &act).is_err());
        let (initiator, act_one) = Initiator::new(&secret(1), secret(2), &secret(3).public_key(secp()));
        prop_assert!(initiator.finish(&act).is_err());
        let (responder, _) = Responder::new(&secret(3), secret(4), &act_one).unwrap();
        let act: [u8; ACT_THREE_BYTES] = core::array::from_fn(|at| garbage[at % 32]);
        prop_assert!(responder.finish(&act).is_err());
    }
}
