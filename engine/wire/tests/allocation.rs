//! No input makes a decoder allocate more than a small multiple of its length.
//!
//! A binary of its own, because it replaces the allocator by one that counts, and a single test, because whatever ran
//! beside it would be counted, too.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use fulmen_wire::message::Message;

thread_local! {
    static ALLOCATED: Cell<usize> = const { Cell::new(0) };
}

/// Counts the bytes a thread asks for, freed or not.
struct Counting;

// SAFETY: every method passes its arguments on to `System`, whose contract is the same, and touches nothing but a
// thread-local number that needs no allocation.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATED.set(ALLOCATED.get() + layout.size());
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of `dealloc`, and `pointer` came from `System`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The bytes decoding asks for.
fn allocated_by_decoding(bytes: &[u8]) -> usize {
    let before = ALLOCATED.get();
    let decoded = Message::decode(bytes);
    let after = ALLOCATED.get();
    drop(decoded);
    after - before
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
