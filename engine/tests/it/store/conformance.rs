//! The log, on a simulated disk and in a real directory, held to the suite that any store can run.

use fulmen::store::conformance::{Subject, run};
use fulmen::store::{LogStore, Store};
use fulmen_sim::SimDisk;

use super::model::{NODE, open};

struct Simulated(SimDisk);

impl Subject for Simulated {
    fn fresh(&mut self) -> Box<dyn Store> {
        self.0 = SimDisk::new();
        Box::new(open(self.0.clone()).unwrap())
    }

    fn reopen(&mut self, store: Box<dyn Store>) -> Box<dyn Store> {
        drop(store);
        Box::new(open(self.0.clone()).unwrap())
    }
}

struct Directories(Vec<tempfile::TempDir>);

impl Subject for Directories {
    fn fresh(&mut self) -> Box<dyn Store> {
        self.0.push(tempfile::tempdir().unwrap());
        Box::new(LogStore::open(self.0.last().unwrap().path(), NODE).unwrap())
    }

    fn reopen(&mut self, store: Box<dyn Store>) -> Box<dyn Store> {
        drop(store);
        Box::new(LogStore::open(self.0.last().unwrap().path(), NODE).unwrap())
    }
}

#[test]
fn the_log_on_a_simulated_disk_conforms() {
    run(&mut Simulated(SimDisk::new()));
}

#[test]
fn the_log_in_a_directory_conforms() {
    run(&mut Directories(Vec::new()));
}
