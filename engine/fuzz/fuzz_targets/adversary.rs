//! The runtime, its shards and their channels under sequences of hostile actions: no invariant of the simulator's
//! adversary breaks, whatever the sequence.
#![no_main]

use std::sync::LazyLock;

use fulmen_sim::adversary::{Adversary, Script};
use libfuzzer_sys::fuzz_target;

static ADVERSARY: LazyLock<Adversary> = LazyLock::new(|| Adversary::new().expect("the network opens its channels"));

fuzz_target!(|bytes: &[u8]| {
    let script = Script::from_bytes(bytes);
    if let Err(violation) = ADVERSARY.run(&script, None) {
        panic!("{violation:?} after {script:#?}");
    }
});
