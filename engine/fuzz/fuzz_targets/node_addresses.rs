//! Parses arbitrary bytes as a node's addresses. The list keeps the bytes; a list built from the parsed addresses has
//! as many, and if they are sorted by type, its bytes are a prefix of the input.
#![no_main]

use fulmen_wire::addresses::NodeAddresses;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(list) = NodeAddresses::from_bytes(bytes) else { return };
    assert_eq!(list.as_bytes(), bytes);
    let addresses: Vec<_> = list.iter().collect();
    let again = NodeAddresses::new(&addresses);
    assert!(again.as_bytes().len() <= bytes.len());
    let sorted = addresses.is_sorted_by_key(|address| address.descriptor_type());
    assert!(!sorted || bytes.starts_with(again.as_bytes()));
    assert_eq!(again.iter().count(), addresses.len());
});
