//! Cuts and damages a stream of sealed messages: those before the damage come out as they went in, none after it.
#![no_main]

use fulmen_proto::noise::{Initiator, Opened, Responder};
use libfuzzer_sys::fuzz_target;
use secp256k1::{Secp256k1, SecretKey};

fuzz_target!(|bytes: &[u8]| {
    let key = |byte| SecretKey::from_slice(&[byte; 32]).expect("a scalar");
    let (initiator, one) = Initiator::new(&key(1), key(2), &key(3).public_key(&Secp256k1::signing_only()));
    let (responder, two) = Responder::new(&key(3), key(4), &one).expect("the right act");
    let (mut ours, three) = initiator.finish(&two).expect("the right act");
    let (mut theirs, _) = responder.finish(&three).expect("the right act");

    // The first byte says how many messages there are, the next three where and how to damage the stream.
    let [count, at @ .., change] = *bytes.first_chunk::<4>().unwrap_or(&[0; 4]);
    let messages: Vec<&[u8]> = bytes.chunks(usize::from(count) + 1).collect();
    let (mut stream, mut ends) = (Vec::new(), Vec::new());
    for message in &messages {
        ours.sealer.seal(message, &mut stream).expect("short enough");
        ends.push(stream.len());
    }
    let at = usize::from(u16::from_be_bytes(at));
    if let Some(byte) = stream.get_mut(at) {
        *byte ^= change;
    }
    let whole = if change == 0 { messages.len() } else { ends.partition_point(|end| *end <= at) };

    let (mut start, mut opened) = (0, 0);
    for end in (0..=stream.len()).step_by(usize::from(count) + 7).chain([stream.len()]) {
        while let Ok(Opened::Message { message, end }) =
            theirs.opener.open(&mut stream[start..end.max(start)])
        {
            assert_eq!(&stream[start..][message], messages[opened]);
            start += end;
            opened += 1;
        }
    }
    assert_eq!(opened, whole);
});
