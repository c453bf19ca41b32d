//! Decodes arbitrary bytes as failure messages and returned failure packets. A decoded message survives encoding and
//! the way back to the payer; a packet made without any hop's secret is unreadable.
#![no_main]

use fulmen_proto::onion::{
    Failure, ReturnedFailure, SharedSecret, SharedSecrets, create_failure, wrap_failure,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let failure = Failure::decode(&bytes[..bytes.len().min(4096)]);
    assert_eq!(Failure::decode(&failure.encode()), failure);

    let hops = [[1; 32], [2; 32], [3; 32]].map(SharedSecret::from_bytes);
    let secrets = SharedSecrets::from_secrets(hops.to_vec());
    assert_eq!(secrets.read_failure(bytes), ReturnedFailure::Unreadable);

    let hop = bytes.first().map_or(0, |byte| usize::from(*byte) % hops.len());
    let mut reason = create_failure(&hops[hop], &failure);
    hops[..hop].iter().rev().for_each(|secret| wrap_failure(secret, &mut reason));
    assert_eq!(secrets.read_failure(&reason), ReturnedFailure::From { hop, failure });
});
