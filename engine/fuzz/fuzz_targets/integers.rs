//! Reads BigSize and truncated integers (`tu16`, `tu32`, `tu64`, BOLT 1) from arbitrary bytes. Accepted encodings are
//! minimal: writing the value again gives the same bytes.
#![no_main]

use fulmen_wire::codec::{Reader, Writer};
use libfuzzer_sys::fuzz_target;

fn written(write: impl FnOnce(&mut Writer<'_>)) -> Vec<u8> {
    let mut bytes = Vec::new();
    write(&mut Writer::new(&mut bytes));
    bytes
}

fuzz_target!(|bytes: &[u8]| {
    let mut reader = Reader::new(bytes);
    while let Ok(value) = reader.bigsize() {
        let encoded = written(|writer| writer.bigsize(value));
        assert!(bytes[..reader.offset()].ends_with(&encoded), "{value}");
    }
    if let Ok(value) = Reader::new(bytes).tu64() {
        assert_eq!(written(|writer| writer.tu64(value)), bytes);
    }
    if let Ok(value) = Reader::new(bytes).tu32() {
        assert_eq!(written(|writer| writer.tu32(value)), bytes);
    }
    if let Ok(value) = Reader::new(bytes).tu16() {
        assert_eq!(written(|writer| writer.tu16(value)), bytes);
    }
    if let Ok(amount) = Reader::new(bytes).tu64_msat() {
        assert_eq!(Reader::new(bytes).tu64(), Ok(amount.0));
    }
});
