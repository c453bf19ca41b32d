//! Recorded gossip passes the whole store: every message is accepted, and none after a bit flips.
//!
//! The recording holds few announcements. Channels between its signers are made up for the updates, and their
//! announcements bypass the verifier: the test covers the signatures of the recorded messages.

#![expect(clippy::disallowed_methods, reason = "the recording is a file")]

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;

use flate2::read::GzDecoder;

use super::*;
use crate::gossip::store::{Record, RecordKind, file_header, write_record};

/// Rounds in which no channel, direction or node has two messages, so that none of them supersedes another.
fn rounds(messages: &[Recorded]) -> Vec<Vec<usize>> {
    let mut counts: BTreeMap<Vec<u8>, usize> = BTreeMap::new();
    let mut rounds: Vec<Vec<usize>> = Vec::new();
    for (index, recorded) in messages.iter().enumerate() {
        let subject = match Message::decode(&recorded.bytes).unwrap() {
            Message::ChannelAnnouncement(message) => message.short_channel_id.0.to_be_bytes().to_vec(),
            Message::ChannelUpdate(message) => {
                let id = message.short_channel_id.0.to_be_bytes();
                [&id[..], &[message.direction() as u8]].concat()
            }
            Message::NodeAnnouncement(message) => message.node_id.0.to_vec(),
            other => panic!("{} in a recording of gossip", other.name()),
        };
        let round = counts.entry(subject).or_default();
        if rounds.len() == *round {
            rounds.push(Vec::new());
        }
        rounds[*round].push(index);
        *round += 1;
    }
    rounds
}

/// A store in which every signer has the channels of its messages, with made-up announcements; and the same with the
/// recorded announcements.
fn bases(messages: &[Recorded]) -> [Vec<u8>; 2] {
    let mut announced = BTreeMap::new();
    let mut channels: BTreeMap<Scid, [Option<NodeId>; 2]> = BTreeMap::new();
    for recorded in messages {
        match Message::decode(&recorded.bytes).unwrap() {
            Message::ChannelAnnouncement(message) => {
                announced.insert(message.short_channel_id, recorded.bytes.as_slice());
            }
            Message::ChannelUpdate(message) => {
                let ends = channels.entry(message.short_channel_id).or_default();
                ends[message.direction().origin()] = recorded.signer;
            }
            Message::NodeAnnouncement(message) => {
                // Somewhere below all real channels.
                let id = Scid::new(channels.len() as u32 + 1, 0, 0).unwrap();
                channels.insert(id, [Some(message.node_id), None]);
            }
            _ => {}
        }
    }
    let mut log = file_header(ChainHash::BITCOIN).to_vec();
    for (id, ends) in channels.into_iter().filter(|(id, _)| !announced.contains_key(id)) {
        let mut message = unsigned_announcement(id, super::ends(1, 2));
        (message.node_id_1, message.node_id_2) = (ends[0].unwrap_or(LOWEST), ends[1].unwrap_or(HIGHEST));
        assert!(message.node_id_1 < message.node_id_2, "{id}");
        let mut bytes = vec![Message::from(message).encode()];
        if id.block() < 400_000 {
            bytes.push(Message::from(unsigned_update(id, Direction::OneToTwo, 1)).encode());
        }
        for payload in bytes {
            write_record(&mut log, Record { kind: RecordKind::Message, at: 0, payload: &payload });
        }
    }
    let mut after = log.clone();
    for payload in announced.into_values() {
        write_record(&mut after, Record { kind: RecordKind::Message, at: 0, payload });
    }
    [log, after]
}

/// Below and above all ids.
const LOWEST: NodeId = NodeId(far_end(2, 0));
const HIGHEST: NodeId = NodeId(far_end(3, 0xff));

const fn far_end(prefix: u8, rest: u8) -> [u8; 33] {
    let mut id = [rest; 33];
    id[0] = prefix;
    id
}

#[test]
fn recorded_gossip_is_believed_and_not_with_a_flipped_bit() {
    let Some(path) = std::env::var_os("FULMEN_GOSSIP") else {
        // Written to the descriptor itself, since the test harness captures the output of macros.
        let note = "\nSKIPPED: FULMEN_GOSSIP names no recording, so no recorded gossip was ingested\n";
        std::io::stderr().write_all(note.as_bytes()).unwrap();
        return;
    };
    let messages = read(Path::new(&path));
    let (rounds, [first_base, later_base]) = (rounds(&messages), bases(&messages));
    let config = GossipConfig { stale_after_seconds: u32::MAX, ..plain_config() };
    let ingest = |round: usize, messages: &[Vec<u8>]| {
        let log = if round == 0 { &first_base } else { &later_base };
        let mut gossip = Gossip::open(config.clone(), Verifier::new(), log.clone(), |_| {}).unwrap();
        let incoming: Vec<IncomingGossip<'_>> =
            messages.iter().map(|message| IncomingGossip { from: Source::Own, message }).collect();
        gossip.ingest(&incoming, GossipTime { unix_seconds: 1_765_000_000, tip: None })
    };
    let (mut accepted, mut signatures) = (0, 0);
    for (number, round) in rounds.iter().enumerate() {
        let batch: Vec<Vec<u8>> = round.iter().map(|index| messages[*index].bytes.clone()).collect();
        let outcome = ingest(number, &batch);
        assert_eq!(outcome.refused, [], "every message is believed");
        assert_eq!(outcome.accepted, batch.len());
        accepted += batch.len();
        signatures += batch.iter().map(|message| if message[1] == 0 { 4 } else { 1 }).sum::<usize>();
    }
    assert_eq!((accepted, messages.len()), (messages.len(), messages.len()));
    println!("{accepted} messages with {signatures} signatures believed in {} rounds", rounds.len());
    for seed in 1..=3 {
        let mut source = seed;
        let mut verified = 0;
        for (number, round) in rounds.iter().enumerate() {
            let mut flipped: Vec<Vec<u8>> = Vec::new();
            for index in round {
                let mut bytes = messages[*index].bytes.clone();
                // Splitmix64 on 128 bits.
                source += 0x9E37_79B9_7F4A_7C15_u128;
                let mixed = (source ^ source >> 29).wrapping_mul(0xBF58_476D_1CE4_E5B9_94D0_49BB_1331_11EB);
                let bit = usize::try_from((mixed >> 64) % (8 * bytes.len() as u128)).unwrap();
                bytes[bit / 8] ^= 1 << (bit % 8);
                flipped.push(bytes);
            }
            let outcome = ingest(number, &flipped);
            assert_eq!((outcome.accepted, outcome.changes.len()), (0, 0), "seed {seed}");
            let forged = outcome.refused.iter().filter(|refused| refused.why == Refusal::InvalidSignature);
            verified += forged.count();
        }
        assert!(verified > messages.len() / 2, "most go as far as the verifier");
    }
}

struct Recorded {
    bytes: Vec<u8>,
    /// The signer, where the message does not state it.
    signer: Option<NodeId>,
}

fn read(path: &Path) -> Vec<Recorded> {
    let bytes = std::fs::read(path).unwrap();
    let mut rest = bytes.strip_prefix(b"GSP\x01").unwrap();
    let signers = BufReader::new(GzDecoder::new(File::open(path.with_extension("signers.csv.gz")).unwrap()));
    let mut messages = Vec::new();
    for line in signers.lines().skip(1) {
        let (length, after) = match rest[0] {
            0xfd => (usize::from(u16::from_be_bytes([rest[1], rest[2]])), &rest[3..]),
            length => (usize::from(length), &rest[1..]),
        };
        let (message, after) = after.split_at(length);
        rest = after;
        let signer = line.unwrap().split(',').nth(5).and_then(parse_id);
        messages.push(Recorded { bytes: message.to_vec(), signer });
    }
    assert!(rest.is_empty(), "a signer for each message");
    messages
}

fn parse_id(hex: &str) -> Option<NodeId> {
    let byte = |at: usize| u8::from_str_radix(hex.get(2 * at..2 * at + 2)?, 16).ok();
    let bytes: Option<Vec<u8>> = (0..33).map(byte).collect();
    bytes?.try_into().ok().map(NodeId)
}
