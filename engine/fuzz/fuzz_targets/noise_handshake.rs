//! Feeds arbitrary acts to both roles of the BOLT 8 handshake, and damages acts that are right: nothing panics, and no
//! act passes but the right one.
#![no_main]

use fulmen_proto::noise::{ACT_ONE_BYTES, ACT_THREE_BYTES, Initiator, Responder};
use libfuzzer_sys::fuzz_target;
use secp256k1::{Secp256k1, SecretKey};

fn key(byte: u8) -> SecretKey {
    SecretKey::from_slice(&[byte; 32]).expect("a scalar")
}

/// `act` with the fuzzer's bytes xored in; `None` if they change nothing.
fn damaged<const BYTES: usize>(act: &[u8; BYTES], bytes: &[u8]) -> Option<[u8; BYTES]> {
    let mut damaged = *act;
    damaged.iter_mut().zip(bytes).for_each(|(byte, change)| *byte ^= change);
    (damaged != *act).then_some(damaged)
}

fuzz_target!(|bytes: &[u8]| {
    let responder_id = key(3).public_key(&Secp256k1::signing_only());
    let (initiator, act_one) = Initiator::new(&key(1), key(2), &responder_id);
    for act in damaged(&[0; ACT_ONE_BYTES], bytes).into_iter().chain(damaged(&act_one, bytes)) {
        assert!(act == act_one || Responder::new(&key(3), key(4), &act).is_err());
    }
    let (responder, act_two) = Responder::new(&key(3), key(4), &act_one).expect("the right act");
    if let Some(act) = damaged(&act_two, bytes) {
        assert!(initiator.finish(&act).is_err());
        let act: [u8; ACT_THREE_BYTES] = std::array::from_fn(|at| bytes.get(at).copied().unwrap_or_default());
        assert!(responder.finish(&act).is_err());
    } else {
        let (_, act_three) = initiator.finish(&act_two).expect("the right act");
        let finished = responder.finish(&damaged(&act_three, bytes).unwrap_or(act_three));
        assert_eq!(finished.is_ok(), damaged(&act_three, bytes).is_none());
    }
});
