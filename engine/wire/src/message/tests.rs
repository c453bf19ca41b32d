//! Properties that hold for every message.

use proptest::prelude::*;

use super::*;
use crate::sample::{Described, Sample, Sampler};
use crate::units::Scid;

/// A random message whose arrays have the lengths they must have.
fn message(seed: u64) -> Message {
    let mut sampler = Sampler(seed);
    let mut message = Message::sample(&mut sampler);
    let fit = |length: usize, ids: &mut Vec<Scid>| ids.resize(length, Scid(length as u64));
    match &mut message {
        Message::QueryShortChannelIds(query) => {
            if let Some(flags) = &query.query_flags {
                fit(flags.len(), &mut query.short_channel_ids);
            }
        }
        Message::ReplyChannelRange(reply) => {
            if let Some(timestamps) = &reply.timestamps {
                fit(timestamps.len(), &mut reply.short_channel_ids);
            }
            if let Some(checksums) = &mut reply.checksums {
                let filler = crate::message::ChannelUpdateChecksums::sample(&mut sampler);
                checksums.resize(reply.short_channel_ids.len(), filler);
            }
        }
        _ => {}
    }
    message
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn decoding_what_was_encoded_gives_the_same_message(seed: u64) {
        let message = message(seed);
        let bytes = message.encode();
        prop_assert_eq!(Message::decode(&bytes), Ok(message));
    }

    #[test]
    fn encoding_what_was_decoded_gives_the_same_bytes(
        seed: u64,
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let mut bytes = message(seed).encode();
        for (index, byte) in edits {
            let index = index.index(bytes.len());
            bytes[index] = byte;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len() + 1));
        }
        if let Ok(message) = Message::decode(&bytes) {
            prop_assert_eq!(message.encode(), bytes);
        }
    }

    #[test]
    fn no_bytes_behind_any_type_panic(number: u16, known in 0usize..40, payload: Vec<u8>) {
        let types: [u16; 30] = [
            1, 16, 17, 18, 19, 32, 33, 34, 35, 36, 38, 39, 128, 130, 131, 132, 133, 134, 135, 136, 256, 257, 258,
            259, 261, 262, 263, 264, 265, 513,
        ];
        let mut bytes = types.get(known).unwrap_or(&number).to_be_bytes().to_vec();
        bytes.extend(payload);
        if let Ok(message) = Message::decode(&bytes) {
            prop_assert_eq!(message.encode(), bytes);
        }
    }

    #[test]
    fn a_message_cut_short_is_not_the_message(seed: u64, cut: prop::sample::Index) {
        let message = message(seed);
        let bytes = message.encode();
        let shorter = &bytes[..cut.index(bytes.len())];
        prop_assert_ne!(Message::decode(shorter), Ok(message));
    }

    #[test]
    fn signatures_sign_what_follows_them(seed: u64) {
        let message = message(seed);
        let bytes = message.encode();
        let (signed, start) = match &message {
            Message::ChannelAnnouncement(announcement) => (Some(announcement.signed_bytes()), 258),
            Message::NodeAnnouncement(announcement) => (Some(announcement.signed_bytes()), 66),
            Message::ChannelUpdate(update) => (Some(update.signed_bytes()), 66),
            _ => (None, 0),
        };
        prop_assert_eq!(signed_region(&bytes), signed.as_deref());
        prop_assert!(signed.is_none_or(|signed| signed == bytes[start..]));
    }
}

/// How wide the BOLTs say a field is.
#[derive(Debug, serde::Deserialize)]
#[serde(untagged)]
enum Width {
    Fixed(usize),
    /// A `u16` count and as many elements of this many bytes.
    Counted {
        element: usize,
    },
}

/// A message as the BOLTs describe it.
#[derive(Debug, serde::Deserialize)]
struct BoltLayout {
    r#type: u16,
    name: String,
    fields: Vec<(String, Width)>,
    tlvs: Vec<(u64, String, Option<usize>)>,
}

/// Round trips cannot tell whether two fields are swapped; the BOLTs' own tables can.
#[test]
fn layouts_are_those_of_the_bolts() {
    let layouts: Vec<BoltLayout> =
        serde_json::from_str(include_str!("../../../tests/vectors/message-layouts.json")).unwrap();
    let mut unseen: Vec<_> = layouts.iter().map(|layout| layout.r#type).collect();
    assert_eq!(unseen.len(), 29);
    for seed in 0..2000 {
        let message = message(seed);
        if let Message::Unknown { .. } = message {
            continue;
        }
        let number = message.type_number();
        unseen.retain(|other| *other != number);
        let expected = layouts.iter().find(|layout| layout.r#type == number).expect("listed");
        check_layout(&message, expected);
    }
    assert!(unseen.is_empty(), "no sample of {unseen:?}");
}

fn check_layout(message: &Message, expected: &BoltLayout) {
    assert_eq!(message.name(), expected.name);
    let layout = message.layout();
    let names: Vec<_> = layout.fields.iter().map(|(name, _)| *name).collect();
    let expected_names: Vec<_> = expected.fields.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, expected_names, "{}", message.name());
    for ((name, bytes), (_, width)) in layout.fields.iter().zip(&expected.fields) {
        let width = match width {
            Width::Fixed(width) => *width,
            Width::Counted { element } => 2 + element * usize::from(u16::from_be_bytes([bytes[0], bytes[1]])),
        };
        assert_eq!(bytes.len(), width, "{} {name}", message.name());
    }
    let mut start = message.type_number().to_be_bytes().to_vec();
    layout.fields.iter().for_each(|(_, bytes)| start.extend(bytes));
    assert!(message.encode().starts_with(&start), "{}", message.name());

    let tlvs: Vec<_> = layout.tlvs.iter().map(|(number, name, _)| (*number, *name)).collect();
    let expected_tlvs: Vec<_> =
        expected.tlvs.iter().map(|(number, name, _)| (*number, name.as_str())).collect();
    assert_eq!(tlvs, expected_tlvs, "{}", message.name());
    for ((_, name, value), (_, _, width)) in layout.tlvs.iter().zip(&expected.tlvs) {
        if let (Some(value), Some(width)) = (value, width) {
            assert_eq!(value.len(), *width, "{} {name}", message.name());
        }
    }
}

#[test]
fn too_long_is_refused_and_the_longest_is_not() {
    let longest = Message::Unknown { message_type: 0x7fff, bytes: vec![7; MESSAGE_MAX_BYTES - 2] };
    let mut bytes = longest.encode();
    assert_eq!(Message::decode(&bytes), Ok(longest));
    bytes.push(7);
    assert_eq!(Message::decode(&bytes), Err(DecodeError::MessageTooLong { length: 65_536 }));
}

#[test]
#[should_panic(expected = "pong of 65536 bytes")]
fn we_do_not_make_messages_that_are_too_long() {
    let _ = Message::from(Pong { ignored: vec![0; 65_532], unknown: Default::default() }).encode();
}

#[test]
fn unknown_types_follow_the_rule_of_odd() {
    assert_eq!(Message::decode(&[0x7f, 0xfe]), Err(DecodeError::UnknownEvenMessage { message_type: 0x7ffe }));
    let odd = Message::decode(&[0x7f, 0xff, 1, 2]).unwrap();
    assert_eq!(odd, Message::Unknown { message_type: 0x7fff, bytes: vec![1, 2] });
    assert_eq!((odd.name(), odd.channel_id()), ("unknown", None));
}

#[test]
fn the_longest_pong_a_ping_may_ask_for_fits() {
    let ping = |num_pong_bytes| Ping { num_pong_bytes, ignored: Vec::new(), unknown: Default::default() };
    let pong = ping(65_531).pong().unwrap();
    assert_eq!(Message::from(pong).encode().len(), MESSAGE_MAX_BYTES);
    assert_eq!(ping(65_532).pong(), None);
}

#[test]
fn a_peers_words_are_shown_only_as_printable_ascii() {
    let warning = Warning {
        channel_id: ChannelId([0; 32]),
        data: b"a\x1b[31m\xff~".to_vec(),
        unknown: Default::default(),
    };
    assert_eq!(warning.text(), "a?[31m?~");
}

#[test]
fn of_a_long_error_text_the_first_kilobyte_is_kept() {
    let error = ErrorMessage {
        channel_id: ChannelId([0; 32]),
        data: vec![b'x'; 65_499],
        unknown: Default::default(),
    };
    assert_eq!(error.text(), "x".repeat(TEXT_MAX_BYTES));
}

#[test]
fn errors_say_where_and_what() {
    let mut bytes = Message::from(UpdateFee {
        channel_id: ChannelId([1; 32]),
        feerate_per_kw: crate::units::FeeratePerKw(253),
        unknown: Default::default(),
    })
    .encode();
    assert_eq!(
        Message::decode(&bytes[..36]),
        Err(DecodeError::Truncated { offset: 34, needed: 4, remaining: 2 })
    );
    bytes.extend([2, 0]);
    assert_eq!(Message::decode(&bytes), Err(DecodeError::UnknownEvenTlv { offset: 38, tlv_type: 2 }));
    assert_eq!(Message::decode(&bytes).unwrap_err().to_string(), "at offset 38: unknown even tlv type 2");
}
