//! The trace of a run: a digest over all steps, and the last lines as text.
//!
//! Invariant: two runs with the same digest delivered the same bytes at the same times.

use std::collections::VecDeque;
use std::fmt;

use bitcoin::hashes::{Hash, HashEngine, sha256};

/// How many lines a failure shows.
const TAIL_LINES: usize = 80;

/// The record of a run.
pub(crate) struct Trace {
    engine: sha256::HashEngine,
    tail: VecDeque<String>,
    echo: bool,
}

impl Trace {
    pub(crate) fn new(echo: bool) -> Trace {
        Trace { engine: sha256::HashEngine::default(), tail: VecDeque::new(), echo }
    }

    /// Notes a line, and bytes that belong to it but are too long to read.
    pub(crate) fn note(&mut self, at_ms: u64, line: fmt::Arguments<'_>, bytes: &[u8]) {
        let line = format!("{at_ms} {line}");
        self.engine.input(line.as_bytes());
        self.engine.input(&(bytes.len() as u64).to_le_bytes());
        self.engine.input(bytes);
        if self.echo {
            eprintln!("{line}");
        }
        if self.tail.len() == TAIL_LINES {
            self.tail.pop_front();
        }
        self.tail.push_back(line);
    }

    pub(crate) fn digest(&self) -> [u8; 32] {
        sha256::Hash::from_engine(self.engine.clone()).to_byte_array()
    }

    pub(crate) fn tail(&self) -> Vec<String> {
        self.tail.iter().cloned().collect()
    }
}
