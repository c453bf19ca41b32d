//! A peer that lies: bytes changed, messages repeated, left out and reordered. Nothing panics, every
//! commitment still adds up, and a refusal changes nothing.

use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::*;

/// One life of `a` beside a hostile `b`; returns how many messages were refused.
fn life(seed: u64, steps: usize) -> usize {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let channel_type = if rng.random() { ChannelType::Anchors } else { ChannelType::StaticRemotekey };
    let mut pair = Pair::with_type(channel_type);
    let mut seen: Vec<Vec<u8>> = Vec::new();
    let mut refusals = 0;
    for number in 0..steps as u64 {
        for node in [&mut pair.a, &mut pair.b] {
            match rng.random_range(0..12) {
                0..3 => drop(node.command(&add(Msat(rng.random_range(1..30_000_000)), number))),
                3 => drop(node.command(&ChannelCommand::FulfillHtlc {
                    id: number / 8,
                    preimage: preimage(number / 8),
                })),
                4 => drop(node.command(&ChannelCommand::FailHtlc { id: number / 8, reason: vec![0; 9] })),
                5 => drop(
                    node.command(&ChannelCommand::UpdateFee { feerate: FeeratePerKw(900 + number as u32) }),
                ),
                6 if number > 30 => drop(node.command(&ChannelCommand::Shutdown { scriptpubkey: None })),
                7 if rng.random_ratio(1, 8) => {
                    node.command(&ChannelCommand::Disconnected).unwrap();
                    node.command(&connected()).unwrap();
                }
                _ => node.commit(),
            }
        }
        while let Some(message) = pair.a.sent.pop_front() {
            // `b` is only a source of messages: its own refusals do not matter here.
            let _ = pair.b.receive(&message);
        }
        seen.extend(pair.b.sent.drain(..));
        let honest = seen.len().saturating_sub(3);
        let mut message =
            match (rng.random_range(0..4), seen.get(honest..).and_then(|last| last.choose(&mut rng))) {
                (0..3, Some(message)) => message.clone(),
                _ => seen.choose(&mut rng).cloned().unwrap_or_default(),
            };
        if !message.is_empty() && rng.random_ratio(1, 3) {
            let index = rng.random_range(0..message.len());
            message[index] ^= 1 << rng.random_range(0..8);
        }
        let Ok(decoded) = Message::decode(&message) else { continue };
        let before = describe(pair.a.channel.clone());
        let result = match pair.a.channel.plan(&decoded, &CONTEXT) {
            Ok(plan) => pair.a.run(plan),
            Err(error) => Err(error),
        };
        if let Err(error) = result {
            refusals += 1;
            assert_eq!(describe(pair.a.channel.clone()), before, "seed {seed}: {error}");
            if rng.random_ratio(1, 40) {
                pair.a.react(&error);
            }
        }
    }
    pair.a.check_record();
    refusals
}

#[test]
fn nothing_a_peer_sends_does_harm() {
    let refusals: usize = (0..40).map(|seed| life(seed, 80)).sum();
    assert!(refusals > 300, "{refusals}");
}

/// The text of an error is written at least twice, for the peer and for the record.
#[test]
fn the_text_of_an_error_does_not_grow_with_a_script_of_the_peer() {
    let long = vec![0xab; 65_000];
    let features = fulmen_wire::features::Features::from_bytes(&long);
    let errors = [
        ChannelError::ShutdownScriptForm(long.clone()),
        ChannelError::ShutdownScriptMismatch { expected: long.clone(), found: long.clone() },
        ChannelError::UpfrontScriptForm(long.clone()),
        ChannelError::ChannelTypeUnsuitable(features),
    ];
    for error in errors {
        let text = error.to_string();
        assert!(text.len() < 300 && text.contains("abab... (65000 bytes)"), "{} bytes of text", text.len());
    }
    let error = ChannelCommandError::ShutdownScriptForm(long).to_string();
    assert!(error.len() < 300, "{} bytes of text", error.len());
    let short = ChannelError::ShutdownScriptForm(vec![0x00, 0x14]).to_string();
    assert_eq!(short, "closing script 0014 has no allowed form");
}
