//! Restores a shard from arbitrary bytes, read as a checkpoint's chunk and a record. It succeeds or returns an error.
#![no_main]

use fulmen_proto::forward::{NodeConfig, Record, Restoring};
use fulmen_proto::keys::NodeSeed;
use fulmen_wire::units::ChainHash;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (Vec<u8>, Vec<u8>)| {
    let (chunk, record) = input;
    let mut restoring =
        Restoring::new(NodeSeed::new([1; 32]), NodeConfig::new(ChainHash::REGTEST, vec![0, 20]));
    let chunk = restoring.chunk(&chunk);
    let record = Record::decode(&record).map(|record| restoring.record(record));
    if chunk.is_ok() && matches!(record, Ok(Ok(()))) {
        let _ = restoring.finish();
    }
});
