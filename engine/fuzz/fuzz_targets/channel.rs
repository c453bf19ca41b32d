//! One or more channels of two nodes under a sequence of choices: payments, fee changes, lost connections,
//! crashes and closings, at times that the bytes choose. Checked against the simulator's models: every commitment, no
//! millisatoshi created or lost, each restart from records equal to the state, everything resolved in the end.
#![no_main]

use fulmen_sim::{Options, run_choices};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Err(failure) = run_choices(bytes, 2, Options::default()) {
        panic!("{failure}");
    }
});
