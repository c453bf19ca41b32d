//! Peels arbitrary bytes, as they are and under a valid HMAC, since an origin may write anything in place of payloads.
#![no_main]

use fulmen_proto::onion::{PeelError, PeelReaction, Peeled, peel};
use fulmen_wire::onion::{OnionPacket, PACKET_LENGTH};
use hmac::{Hmac, KeyInit, Mac};
use libfuzzer_sys::fuzz_target;
use secp256k1::ecdh::SharedSecret;
use secp256k1::{Secp256k1, SecretKey};
use sha2::Sha256;

fn hmac(key: &[u8], message: &[u8]) -> [u8; 32] {
    let mac: Hmac<Sha256> = Hmac::new_from_slice(key).expect("any length will do");
    mac.chain_update(message).finalize().into_bytes().into()
}

fuzz_target!(|bytes: &[u8]| {
    let mut packet = [0; PACKET_LENGTH];
    let length = bytes.len().min(PACKET_LENGTH);
    packet[..length].copy_from_slice(&bytes[..length]);
    let node_key = SecretKey::from_slice(&[1; 32]).expect("a scalar");
    let error =
        peel(&node_key, &OnionPacket::from_bytes(Box::new(packet)), &[]).expect_err("nobody guesses an HMAC");
    assert!(matches!(error.reaction(), PeelReaction::FailMalformed { .. }));

    let session_key = SecretKey::from_slice(&[2; 32]).expect("a scalar");
    let public_key = session_key.public_key(&Secp256k1::signing_only());
    let node_id = node_key.public_key(&Secp256k1::signing_only());
    let secret = SharedSecret::new(&node_id, &session_key);
    packet.copy_within(..1300, 34);
    packet[0] = 0;
    packet[1..34].copy_from_slice(&public_key.serialize());
    let authentic = hmac(&hmac(b"mu", secret.as_ref()), &packet[34..1334]);
    packet[1334..].copy_from_slice(&authentic);
    match peel(&node_key, &OnionPacket::from_bytes(Box::new(packet)), &[]) {
        Ok(Peeled::Forward { payload, next_packet, .. }) => {
            assert!((2..=1265).contains(&payload.len()));
            assert_eq!(next_packet.version(), 0);
        }
        Ok(Peeled::Final { payload, .. }) => assert!((2..=1265).contains(&payload.len())),
        Err(error) => assert!(matches!(error, PeelError::Framing { .. })),
    }
});
