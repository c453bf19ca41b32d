//! The vectors of BOLT 1 (appendices A to D) and of BOLT 7's extended queries.

use std::collections::BTreeMap;

use fulmen_wire::codec::{DecodeError, Reader, Writer};
use fulmen_wire::message::{ChannelUpdateChecksums, ChannelUpdateTimestamps, Message};
use fulmen_wire::tlv::TlvRecords;
use fulmen_wire::units::Scid;
use proptest::prelude::*;
use serde::Deserialize;

use crate::namespaces::{read_n1, read_n2};

macro_rules! vectors {
    ($file:literal) => {
        serde_json::from_str(include_str!(concat!("../../../tests/vectors/", $file)))
            .expect("readable vectors")
    };
}

fn unhex(digits: &str) -> Vec<u8> {
    hex::decode(digits).expect("hexadecimal digits")
}

/// The error's variant, by which vectors name it.
fn variant(error: &DecodeError) -> String {
    format!("{error:?}").split([' ', '{']).next().unwrap_or_default().to_owned()
}

fn written(write: impl FnOnce(&mut Writer<'_>)) -> Vec<u8> {
    let mut bytes = Vec::new();
    write(&mut Writer::new(&mut bytes));
    bytes
}

#[derive(Deserialize)]
struct BigSize {
    bytes: String,
    value: Option<u64>,
    error: Option<String>,
}

#[test]
fn bigsize() {
    let vectors: Vec<BigSize> = vectors!("bolt01-bigsize.json");
    assert_eq!(vectors.len(), 18);
    for vector in vectors {
        let bytes = unhex(&vector.bytes);
        let mut reader = Reader::new(&bytes);
        match reader.bigsize() {
            Ok(value) => {
                assert_eq!(Some(value), vector.value, "{}", vector.bytes);
                assert!(reader.is_empty());
                assert_eq!(written(|writer| writer.bigsize(value)), bytes);
            }
            Err(error) => assert_eq!(Some(variant(&error)), vector.error, "{}", vector.bytes),
        }
    }
}

#[derive(Deserialize)]
struct Signed {
    value: i64,
    bytes: String,
}

/// Each vector is written in the narrowest type that holds it.
#[test]
fn signed_integers() {
    let vectors: Vec<Signed> = vectors!("bolt01-signed.json");
    assert_eq!(vectors.len(), 23);
    for Signed { value, bytes } in vectors {
        let encoded = unhex(&bytes);
        let mut reader = Reader::new(&encoded);
        let (read, rewritten) = if let Ok(narrow) = i8::try_from(value) {
            (reader.s8().map(i64::from), written(|writer| writer.s8(narrow)))
        } else if let Ok(narrow) = i16::try_from(value) {
            (reader.s16().map(i64::from), written(|writer| writer.s16(narrow)))
        } else if let Ok(narrow) = i32::try_from(value) {
            (reader.s32().map(i64::from), written(|writer| writer.s32(narrow)))
        } else {
            (reader.s64(), written(|writer| writer.s64(value)))
        };
        assert_eq!((read, rewritten), (Ok(value), encoded.clone()), "{bytes}");
        assert_eq!(reader.finish(), Ok(()));
    }
}

#[derive(Deserialize)]
struct TlvStream {
    namespaces: Vec<String>,
    stream: String,
    error: Option<String>,
    #[serde(default)]
    values: BTreeMap<String, String>,
}

#[test]
fn tlv_streams() {
    let vectors: Vec<TlvStream> = vectors!("bolt01-tlv.json");
    assert_eq!(vectors.len(), 57);
    for vector in &vectors {
        let bytes = unhex(&vector.stream);
        for namespace in &vector.namespaces {
            let read = if namespace == "n1" { read_n1(&bytes) } else { read_n2(&bytes) };
            match read {
                Ok(stream) => {
                    assert_eq!(vector.error, None, "{} should not be read", vector.stream);
                    let expected = vector.values.iter().map(|(name, value)| (name.as_str(), value.clone()));
                    assert_eq!(stream.values(), expected.collect());
                    assert_eq!(stream.write(namespace), bytes);
                }
                Err(error) => assert_eq!(Some(variant(&error)), vector.error, "{}", vector.stream),
            }
        }
    }
}

/// The types of the records at the start of a stream.
fn types(bytes: &[u8]) -> Vec<u64> {
    TlvRecords::new(Reader::new(bytes)).map_while(Result::ok).map(|record| record.tlv_type).collect()
}

/// BOLT 1 on appending any of its streams to any valid one: valid if the types still rise.
#[test]
fn appended_tlv_streams() {
    let vectors: Vec<TlvStream> = vectors!("bolt01-tlv.json");
    let (mut refused, mut read) = (0, 0);
    for namespace in ["n1", "n2"] {
        let here: Vec<_> = vectors
            .iter()
            .filter(|vector| vector.namespaces.iter().any(|other| other == namespace))
            .map(|vector| (unhex(&vector.stream), vector.error.is_none()))
            .collect();
        for (first, _) in here.iter().filter(|(_, valid)| *valid) {
            for (second, valid) in &here {
                let both = [first.as_slice(), second].concat();
                let outcome = if namespace == "n1" { read_n1(&both) } else { read_n2(&both) };
                let rising = match (types(first).last(), types(second).first()) {
                    (Some(last), Some(next)) => last < next,
                    _ => true,
                };
                assert_eq!(outcome.is_ok(), *valid && rising, "{namespace} {}", hex::encode(&both));
                if outcome.is_ok() { read += 1 } else { refused += 1 }
            }
        }
    }
    assert!(read > 100 && refused > 500, "{read} read, {refused} refused");
}

#[derive(Deserialize)]
struct Extension {
    bytes: String,
    valid: bool,
}

#[test]
fn init_extensions() {
    let vectors: Vec<Extension> = vectors!("bolt01-init.json");
    assert_eq!(vectors.len(), 5);
    for Extension { bytes, valid } in vectors {
        let encoded = unhex(&bytes);
        let decoded = Message::decode(&encoded);
        assert_eq!(decoded.is_ok(), valid, "{bytes}: {decoded:?}");
        if let Ok(message) = decoded {
            assert_eq!(message.name(), "init");
            assert_eq!(message.encode(), encoded);
        }
    }
}

#[derive(Deserialize)]
struct Query {
    bytes: String,
    error: Option<String>,
    #[serde(default)]
    message: String,
    #[serde(default)]
    chain_hash: String,
    #[serde(default)]
    first_blocknum: u32,
    #[serde(default)]
    number_of_blocks: u32,
    sync_complete: Option<u8>,
    query_option: Option<u64>,
    #[serde(default)]
    short_channel_ids: Vec<String>,
    timestamps: Option<Vec<[u32; 2]>>,
    checksums: Option<Vec<[u32; 2]>>,
}

fn strings(scids: &[Scid]) -> Vec<String> {
    scids.iter().map(Scid::to_string).collect()
}

fn check_query(vector: &Query, message: Message) {
    match (vector.message.as_str(), message) {
        ("QueryChannelRange", Message::QueryChannelRange(query)) => {
            assert_eq!(query.chain_hash.to_string(), vector.chain_hash);
            assert_eq!(query.first_blocknum.0, vector.first_blocknum);
            assert_eq!(query.number_of_blocks, vector.number_of_blocks);
            assert_eq!(query.query_option.map(|option| option.0), vector.query_option);
        }
        ("ReplyChannelRange", Message::ReplyChannelRange(reply)) => {
            assert_eq!(reply.chain_hash.to_string(), vector.chain_hash);
            assert_eq!(reply.first_blocknum.0, vector.first_blocknum);
            assert_eq!(reply.number_of_blocks, vector.number_of_blocks);
            assert_eq!(Some(u8::from(reply.sync_complete)), vector.sync_complete);
            assert_eq!(strings(&reply.short_channel_ids), vector.short_channel_ids);
            let pair =
                |stamps: &ChannelUpdateTimestamps| [stamps.timestamp_node_id_1, stamps.timestamp_node_id_2];
            assert_eq!(reply.timestamps.map(|all| all.iter().map(pair).collect()), vector.timestamps);
            let pair = |sums: &ChannelUpdateChecksums| [sums.checksum_node_id_1, sums.checksum_node_id_2];
            assert_eq!(reply.checksums.map(|all| all.iter().map(pair).collect()), vector.checksums);
        }
        ("QueryShortChannelIds", Message::QueryShortChannelIds(query)) => {
            assert_eq!(query.chain_hash.to_string(), vector.chain_hash);
            assert_eq!(strings(&query.short_channel_ids), vector.short_channel_ids);
            assert_eq!(query.query_flags, None);
        }
        (expected, other) => panic!("{other:?} instead of {expected}"),
    }
}

#[test]
fn extended_queries() {
    let vectors: Vec<Query> = vectors!("bolt07-queries.json");
    assert_eq!(vectors.len(), 10);
    assert_eq!(vectors.iter().filter(|vector| vector.error.is_some()).count(), 5);
    for vector in &vectors {
        let encoded = unhex(&vector.bytes);
        match Message::decode(&encoded) {
            Ok(message) => {
                assert_eq!(message.encode(), encoded);
                check_query(vector, message);
            }
            Err(error) => assert_eq!(Some(variant(&error)), vector.error, "{}", vector.bytes),
        }
    }
}

/// Arrays that do not match the short channel ids, made out of a vector whose arrays do.
#[test]
fn query_arrays_must_match() {
    let vectors: Vec<Query> = vectors!("bolt07-queries.json");
    let reply = vectors.iter().find(|vector| vector.checksums.is_some()).expect("a reply with arrays");
    let Ok(Message::ReplyChannelRange(reply)) = Message::decode(&unhex(&reply.bytes)) else {
        panic!("not a reply")
    };
    let mut short = reply.clone();
    short.checksums.as_mut().expect("checksums").pop();
    let error = Message::decode(&Message::from(short).encode()).unwrap_err();
    assert!(
        matches!(error, DecodeError::ArrayCount { array: "checksums", expected: 3, actual: 2, .. }),
        "{error:?}"
    );
    let mut bytes = Message::from(reply).encode();
    bytes[45] = 7;
    assert_eq!(Message::decode(&bytes), Err(DecodeError::UnknownArrayEncoding { offset: 45, encoding: 7 }));
}

proptest! {
    #[test]
    fn truncated_integers_round_trip(value: u64) {
        let value = value >> (value % 64);
        let bytes = written(|writer| writer.tu64(value));
        prop_assert_eq!(Reader::new(&bytes).tu64(), Ok(value));
        prop_assert_eq!(bytes.len(), (71 - value.leading_zeros() as usize) / 8);
        let narrow = value as u32;
        prop_assert_eq!(Reader::new(&written(|writer| writer.tu32(narrow))).tu32(), Ok(narrow));
        let narrow = value as u16;
        prop_assert_eq!(Reader::new(&written(|writer| writer.tu16(narrow))).tu16(), Ok(narrow));
    }

    #[test]
    fn truncated_integers_of_any_bytes(bytes in prop::collection::vec(0u8..3, 0..10)) {
        let minimal = bytes.first() != Some(&0);
        prop_assert_eq!(Reader::new(&bytes).tu16().is_ok(), minimal && bytes.len() <= 2);
        prop_assert_eq!(Reader::new(&bytes).tu32().is_ok(), minimal && bytes.len() <= 4);
        prop_assert_eq!(Reader::new(&bytes).tu64().is_ok(), minimal && bytes.len() <= 8);
    }

    #[test]
    fn any_tlv_stream_is_refused_or_round_trips(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
        if let Ok(stream) = read_n1(&bytes) {
            prop_assert_eq!(stream.write("n1"), bytes.clone());
        }
        if let Ok(stream) = read_n2(&bytes) {
            prop_assert_eq!(stream.write("n2"), bytes);
        }
    }
}

#[test]
fn amounts_above_all_bitcoin_are_refused() {
    let most = written(|writer| writer.tu64(0x1d24_b2df_ac52_0000));
    assert_eq!(Reader::new(&most).tu64_msat().map(|amount| amount.0), Ok(0x1d24_b2df_ac52_0000));
    let more = written(|writer| writer.tu64(0x1d24_b2df_ac52_0001));
    assert_eq!(variant(&Reader::new(&more).tu64_msat().unwrap_err()), "AmountTooLarge");
}
