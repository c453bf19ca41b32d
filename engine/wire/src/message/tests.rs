//! Properties that hold for every message.

use proptest::prelude::*;

use super::*;
use crate::sample::{Sample, Sampler};
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

#[test]
fn samples_cover_every_message() {
    let mut seen: Vec<u16> =
        (0..2000).map(|seed| message(seed).type_number()).filter(|n| *n < 0x4000).collect();
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen.len(), 29, "{seen:?}");
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
