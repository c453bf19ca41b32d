//! Reads arbitrary bytes as a TLV stream in a namespace with every kind of value. An accepted stream is written as the
//! same bytes.
#![no_main]

use fulmen_wire::codec::{Reader, Writer};
use fulmen_wire::tlv::{StreamWriter, read_stream};
use fulmen_wire::units::Point;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let (mut amount, mut point, mut rest, mut number): (
        Option<u64>,
        Option<Point>,
        Option<Vec<u8>>,
        Option<u16>,
    ) = Default::default();
    let unknown = read_stream(&mut Reader::new(bytes), |tlv_type, value| {
        match tlv_type {
            1 => amount = Some(value.tu64()?),
            2 => point = Some(value.point()?),
            3 => rest = Some(value.take_rest().to_vec()),
            254 => number = Some(value.u16()?),
            _ => return Ok(false),
        }
        Ok(true)
    });
    let Ok(unknown) = unknown else { return };
    let mut written = Vec::new();
    let mut writer = Writer::new(&mut written);
    let mut stream = StreamWriter::new(&mut writer, &unknown);
    stream.optional(1, amount.as_ref(), |value, writer| writer.tu64(*value));
    stream.optional(2, point.as_ref(), |value, writer| writer.bytes(&value.0));
    stream.optional(3, rest.as_ref(), |value, writer| writer.bytes(value));
    stream.optional(254, number.as_ref(), |value, writer| writer.u16(*value));
    stream.finish();
    assert_eq!(written, bytes);
});
