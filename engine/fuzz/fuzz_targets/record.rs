//! Decodes arbitrary bytes as a shard's record. An accepted record encodes to bytes that decode to the same record.
#![no_main]

use fulmen_proto::forward::Record;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(record) = Record::decode(bytes) {
        let mut written = Vec::new();
        record.encode(&mut written);
        assert_eq!(Record::decode(&written), Ok(record));
    }
});
