//! Frozen bytes: records and a checkpoint as an earlier build wrote them, which every later one must read, or refuse by
//! the name of their version.
//!
//! `engine/tests/vectors/frozen-*.txt` hold a line each: the words of `FORMAT.md` for the content, and the
//! bytes. A tag that comes to mean something else makes other words of them. The lines of a new version are printed by
//!
//!     cargo test -p fulmen-proto frozen -- --nocapture    # with FULMEN_FREEZE=1
//!
//! and the file of the version before stays.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::RecordError;
use crate::channel::{ChannelError, Delta, Removal};
use crate::durable::Durable;
use crate::durable::sample::Sampler;
use crate::forward::{Change, CircuitStage, NodeDescription, Origin, Resolution, RestoreError};

const RECORDS: &str = include_str!("../../../../tests/vectors/frozen-record-1.txt");
const CHECKPOINT: &str = include_str!("../../../../tests/vectors/frozen-checkpoint-2.txt");
const ANNOUNCED: &str = include_str!("../../../../tests/vectors/frozen-checkpoint-2-announced.txt");

/// A line of a file: words, and the bytes that say them.
type Line = (String, Vec<u8>);

fn lines(text: &str) -> Vec<Line> {
    let line = |line: &str| {
        let (words, bytes) = line.rsplit_once(": ")?;
        Some((words.to_owned(), hex::decode(bytes).ok()?))
    };
    text.lines().map(|text| line(text).expect("words and bytes in hex")).collect()
}

fn resolution(resolution: &Resolution) -> &'static str {
    match resolution {
        Resolution::Fulfill(_) => "fulfill",
        Resolution::Relay(_) => "relay",
        Resolution::Fail(_) => "fail",
        Resolution::Malformed { .. } => "malformed",
    }
}

fn removal(removal: &Removal) -> &'static str {
    match removal {
        Removal::Fulfill(_) => "fulfill",
        Removal::Fail(_) => "fail",
        Removal::FailMalformed { .. } => "malformed",
    }
}

/// The words of `FORMAT.md` for a delta.
fn delta_words(delta: &Delta) -> String {
    let words = match delta {
        Delta::Opened { .. } => "opened",
        Delta::Accepted { .. } => "accepted",
        Delta::AcceptReceived { .. } => "accept received",
        Delta::FundingCreatedSent { .. } => "funding created, sent",
        Delta::FundingCreatedReceived { .. } => "funding created, received",
        Delta::FundingSignedReceived { .. } => "funding signed, received",
        Delta::FundingLocked { .. } => "funding locked",
        Delta::ChannelReadyReceived { .. } => "channel ready, received",
        Delta::Added { .. } => "added",
        Delta::Removed { removal: how, .. } => return format!("removed, {}", removal(how)),
        Delta::FeeUpdated { .. } => "fee updated",
        Delta::CommitmentSent => "commitment sent",
        Delta::CommitmentReceived { .. } => "commitment received",
        Delta::RevocationReceived { .. } => "revocation received",
        Delta::ShutdownWanted { .. } => "shutdown wanted",
        Delta::Shutdown { .. } => "shutdown",
        Delta::ClosingOffered { .. } => "closing offered",
        Delta::ClosingReceived { .. } => "closing received",
        Delta::ClosingAgreed { .. } => "closing agreed",
        Delta::AdditionsDropped => "additions dropped",
        Delta::Disconnected => "disconnected",
        Delta::Connected => "connected",
        Delta::Reestablished => "reestablished",
        Delta::Failed { error: ChannelError::PeerError(_) } => "failed, of the peer",
        Delta::Failed { .. } => "failed, any other",
        Delta::FeaturesChanged { .. } => "features changed",
        Delta::FundingUnlocked => "funding unlocked",
    };
    words.to_owned()
}

/// The words of `FORMAT.md` for a change.
fn words(change: &Change) -> String {
    let words = match change {
        Change::Height(_) => "height",
        Change::ChannelBegun { .. } => "channel begun",
        Change::Channel { delta, .. } => return format!("channel moved on, {}", delta_words(delta)),
        Change::ChannelNamed { .. } => "channel named",
        Change::FundingConfirmed { .. } => "funding confirmed",
        Change::ChannelReady { .. } => "channel ready",
        Change::StateDoubted { .. } => "state doubted",
        Change::DoubtEnded { .. } => "doubt ended",
        Change::ChannelForgotten { .. } => "channel forgotten",
        Change::Policy { .. } => "policy set",
        Change::AliasReceived { .. } => "alias received",
        Change::AnnouncementSigned { .. } => "announcement signed",
        Change::ChannelUpdated { .. } => "channel updated",
        Change::PeerPolicy { .. } => "peer's policy",
        Change::NodeAnnounced(_) => "node announced",
        Change::PaymentExpected(_) => "payment expected",
        Change::ExpectedPaymentsPruned(_) => "expected payments pruned",
        Change::OnionSeen { .. } => "onion seen",
        Change::CircuitOpened { circuit, .. } => {
            let stage = match &circuit.stage {
                CircuitStage::Held { .. } => "held",
                CircuitStage::Offered { .. } => "offered",
                CircuitStage::HandedOff(_) => "handed off",
                CircuitStage::PartHandedOff => "part handed off",
                CircuitStage::Intercepted(_) => "intercepted",
                CircuitStage::Resolved(how) => return format!("circuit opened, {}", resolution(how)),
            };
            return format!("circuit opened, {stage}");
        }
        Change::PartHeld { .. } => "part held",
        Change::SetClosed { .. } => "set closed",
        Change::Offered { origin, .. } => match origin {
            Origin::Attempt { .. } => "HTLC offered, attempt",
            Origin::Forward(_) => "HTLC offered, forward",
            Origin::Handoff(_) => "HTLC offered, handoff",
        },
        Change::OfferEnded { .. } => "offer ended",
        Change::Resolved { resolution: how, .. } => return format!("resolved, {}", resolution(how)),
        Change::HandoffAccepted { .. } => "handoff accepted",
        Change::HandoffResolved { .. } => "handoff resolved",
        Change::HandoffAcked { .. } => "handoff acked",
        Change::CircuitClosed { .. } => "circuit closed",
    };
    words.to_owned()
}

/// A record of one change for each of the words.
fn every_record() -> Vec<Line> {
    let mut samples = BTreeMap::new();
    for seed in 0..5_000 {
        let change = Change::sample(&mut Sampler::new(seed));
        let words = words(&change);
        samples.entry(words).or_insert_with(|| records::bytes(&Record { changes: vec![change] }));
    }
    samples.into_iter().collect()
}

/// The checkpoint of a node that holds payments on both its channels.
fn some_checkpoint() -> (NodeSeed, NodeConfig, Vec<Line>) {
    let mut net = Net::line(3);
    for number in 1..=3 {
        // Half of each payment is missing, so that it is held by its receiver.
        let (hash, recipient) = net.invoice(2, number, Msat(2_000_000));
        net.send(0, hash, &net.route(&[0, 1, 2], Msat(1_000_000), 18), &recipient);
        net.invoice(1, 10 + number, Msat(1_000));
    }
    let shard = &net.shards[1];
    let chunks = shard.chunks(ChunkSize { aim: 500, max: 700 });
    let lines = chunks.map(|chunk| (summary(shard), chunk)).collect();
    (net.seeds[1].clone(), shard.config().clone(), lines)
}

/// The checkpoint of a node that is announced with its channel.
fn announced_checkpoint() -> (NodeSeed, NodeConfig, Vec<Line>) {
    let mut net = Net::line_with(2, |_, config| {
        config.description = NodeDescription::new("frozen", [1, 2, 3], &[]).ok();
    });
    announcing::deepen(&mut net);
    let shard = &net.shards[0];
    let chunks = shard.chunks(ChunkSize { aim: 500, max: 700 });
    let lines = chunks.map(|chunk| (summary(shard), chunk)).collect();
    (net.seeds[0].clone(), shard.config().clone(), lines)
}

fn summary(shard: &Shard) -> String {
    let held = shard.occupancy();
    format!(
        "height {}, channels {}, circuits {}, offered {}, onions {}",
        held.height.0, held.channels, held.circuits, held.offered, held.replay_tags
    )
}

/// Prints the lines of a new version if `FULMEN_FREEZE` is set (and `--nocapture` given).
fn print_if_asked(title: &str, lines: &[(String, Vec<u8>)]) {
    if std::env::var_os("FULMEN_FREEZE").is_some() {
        println!("== {title}");
        lines.iter().for_each(|(words, bytes)| println!("{words}: {}", hex::encode(bytes)));
    }
}

#[test]
fn frozen_records_are_read_as_they_were_meant() {
    let (frozen, current) = (lines(RECORDS), every_record());
    print_if_asked("record", &current);
    let kinds: BTreeSet<&String> = frozen.iter().map(|(words, _)| words).collect();
    assert!(current.iter().all(|(words, _)| kinds.contains(words)), "each kind of change is frozen");
    for (expected, bytes) in &frozen {
        let record = Record::decode(bytes).expect("a record of a known version");
        let [change] = record.changes.as_slice() else { panic!("{expected}: {record:?}") };
        assert_eq!(words(change), *expected);
        assert_eq!(records::bytes(&record), *bytes, "{expected}");
    }
}

#[test]
fn a_frozen_checkpoint_makes_the_shard_it_was() {
    let (seed, config, current) = some_checkpoint();
    print_if_asked("checkpoint", &current);
    let shard = thawed(CHECKPOINT, seed, config);
    let held = shard.occupancy();
    assert_eq!((held.channels, held.circuits, held.offered, held.replay_tags), (2, 3, 3, 3));
}

#[test]
fn a_frozen_checkpoint_has_the_announcements_it_had() {
    let (seed, config, current) = announced_checkpoint();
    print_if_asked("announced checkpoint", &current);
    let shard = thawed(ANNOUNCED, seed, config);
    let channel_id = shard.channels().next().expect("one channel").id();
    let announcements = &shard.state.channels[&channel_id].announcements;
    let update = announcements.update.as_deref().expect("made");
    assert!(!update.dont_forward() && update.timestamp > 0);
    let signatures = announcements.peer_signatures.expect("taken");
    assert_eq!(signatures.short_channel_id, update.short_channel_id);
    assert_eq!(announcements.peer_policy.map(|policy| policy.fee_base), Some(Msat(1_000)));
    let node = shard.state.node_announcement.as_deref().expect("made");
    assert_eq!((node.node_id, &node.alias[..7]), (shard.node_id(), &b"frozen\0"[..]));
}

/// The shard of a frozen checkpoint, checked to give the same checkpoint again.
fn thawed(frozen: &str, seed: NodeSeed, config: NodeConfig) -> Shard {
    let frozen = lines(frozen);
    let mut restoring = Restoring::new(seed, config);
    for (_, chunk) in &frozen {
        restoring.chunk(chunk).expect("a checkpoint of a known version");
    }
    let shard = restoring.finish().expect("whole").shard;
    assert_eq!(frozen.first().map(|(words, _)| words.clone()), Some(summary(&shard)));
    let again: Vec<Vec<u8>> = shard.chunks(ChunkSize { aim: 500, max: 700 }).collect();
    assert!(again.iter().eq(frozen.iter().map(|(_, chunk)| chunk)), "the same bytes again");
    shard
}

#[test]
fn a_checkpoint_of_another_version_is_refused_by_name() {
    let (seed, config, lines) = some_checkpoint();
    for version in [1, 3] {
        let mut chunk = lines[0].1.clone();
        chunk[0] = version;
        let error = RecordError::Version { what: "chunk", found: version, known: 2 };
        let refused = Restoring::new(seed.clone(), config.clone()).chunk(&chunk);
        assert_eq!(refused, Err(RestoreError::Chunk { chunk: 0, error }));
    }
}
