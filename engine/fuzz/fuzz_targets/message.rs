//! Decodes arbitrary bytes as a BOLT 1 message. An accepted message encodes to the same bytes, and the bytes a
//! signature covers are those of its region in the input.
#![no_main]

use fulmen_wire::message::{Message, signed_region};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let region = signed_region(bytes);
    let Ok(message) = Message::decode(bytes) else { return };
    let encoded = message.encode();
    assert_eq!(encoded, bytes, "{message:?}");
    assert_eq!(Message::decode(&encoded).as_ref(), Ok(&message));
    match &message {
        Message::ChannelAnnouncement(announcement) => {
            assert_eq!(region, Some(announcement.signed_bytes().as_slice()));
        }
        Message::NodeAnnouncement(announcement) => {
            assert_eq!(region, Some(announcement.signed_bytes().as_slice()));
            assert!(announcement.addresses.iter().count() <= announcement.addresses.as_bytes().len());
        }
        Message::ChannelUpdate(update) => assert_eq!(region, Some(update.signed_bytes().as_slice())),
        Message::Init(init) => drop(init.combined_features()),
        Message::Warning(warning) => assert!(warning.text().is_ascii()),
        Message::ErrorMessage(error) => assert!(error.text().is_ascii()),
        _ => {}
    }
});
