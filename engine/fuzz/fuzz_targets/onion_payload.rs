//! Decodes arbitrary bytes as a hop's payload. An accepted payload encodes to the same bytes; its forwarding or final
//! form survives encoding and decoding.
#![no_main]

use fulmen_proto::onion::{FailureCode, Payload};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| match Payload::decode(bytes) {
    Ok(payload) => {
        assert_eq!(payload.encode(), bytes);
        if let Ok(forward) = payload.clone().into_forward() {
            let again = Payload::decode(&Payload::from(forward).encode()).expect("what we write can be read");
            assert_eq!(again.into_forward(), Ok(forward));
        }
        if let Ok(last) = payload.into_final(&[]) {
            let again =
                Payload::decode(&Payload::from(last.clone()).encode()).expect("what we write can be read");
            assert_eq!(again.into_final(&[]), Ok(last));
        }
    }
    Err(error) => assert_eq!(error.failure().code(), FailureCode::InvalidOnionPayload),
});
