//! No input makes a decoder allocate more than a small multiple of its length.
//!
//! A binary of its own, because it replaces the allocator by one that counts.

use fulmen_wire::message::Message;

/// The bytes decoding asks for, freed or not.
fn allocated_by_decoding(bytes: &[u8]) -> usize {
    let counted = allocation_counter::measure(|| drop(Message::decode(bytes)));
    usize::try_from(counted.bytes_total).expect("no test allocates that much")
}

const TYPES: [u16; 30] = [
    1, 16, 17, 18, 19, 32, 33, 34, 35, 36, 38, 39, 128, 130, 131, 132, 133, 134, 135, 136, 256, 257, 258,
    259, 261, 262, 263, 264, 265, 513,
];

/// A query flag is kept in eight bytes and may come in one; freed buffers that grew are counted as well.
const MULTIPLE: usize = 9;
/// Buffers that do not depend on the length: the onion of an HTLC, attribution data.
const CONSTANT: usize = 4096;

#[test]
fn decoding_allocates_no_more_than_a_small_multiple_of_its_input() {
    let mut most = 0;
    for message_type in TYPES {
        // Bytes of one value claim every kind of length: none, short, long, longer than the message.
        for filler in [0x00, 0x01, 0x02, 0x03, 0xfc, 0xfd, 0xfe, 0xff] {
            for length in (0..600).chain([1000, 1500, 5000, 20_000, 65_533]) {
                let mut bytes = message_type.to_be_bytes().to_vec();
                bytes.resize(2 + length, filler);
                let allocated = allocated_by_decoding(&bytes);
                assert!(
                    allocated <= bytes.len() * MULTIPLE + CONSTANT,
                    "type {message_type}, {length} times {filler:#04x}: {allocated} bytes"
                );
                most = most.max(allocated);
            }
        }
    }
    let mut flags = 261u16.to_be_bytes().to_vec();
    flags.extend([7; 32]);
    flags.extend([0, 1, 0, 1, 0xfd, 0xff, 0x00, 0]);
    flags.resize(flags.len() + 0xfeff, 1);
    let allocated = allocated_by_decoding(&flags);
    assert!(allocated >= 0xfeff * 8, "the flags were not read: {allocated}");
    assert!(allocated <= flags.len() * MULTIPLE + CONSTANT, "{allocated} bytes for {} flags", 0xfeff);
    assert!(most > 60_000, "no long field was read: {most}");
}
