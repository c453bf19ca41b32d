//! Keys that are met often, and their tables: with all multiples at hand, verification needs no doublings.
//!
//! Owns which keys have a table, within a bound of memory. A key earns one by [`USES_BEFORE_TABLE`] signatures, which is
//! when building it has paid; the one unused for longest makes room, but never one that the batch at hand needs. Counts
//! of keys without a table are forgotten all at once when they are as many as there can be tables, so that keys met
//! once take bounded memory too.
//!
//! Invariant: a table is that of the key it is found under.
//!
//! Budget: 26 KiB and 13 us a table.

use std::collections::HashMap;

use super::invert::invert_all;
use super::lanes::Ifma;
use super::multiply::lanes_of;
use super::point::{Accumulator, Affine, Jacobian};
use super::table::{DIGITS, Entry, Table, Workspace, build, load_points};
use crate::VerifyJob;

/// Signatures by a key after which a table pays.
const USES_BEFORE_TABLE: u32 = 9;

/// The tables of 32^j Q, for all positions j.
#[derive(Debug)]
pub(crate) struct KeyTable(Box<[Table; DIGITS]>);

/// Keys with tables, and those on the way to one.
#[derive(Debug)]
pub(crate) struct KeyCache {
    tables_max: usize,
    slots: HashMap<Entry, usize>,
    tables: Vec<Slot>,
    uses: HashMap<Entry, u32>,
    batch: u64,
}

#[derive(Debug)]
struct Slot {
    key: Entry,
    table: KeyTable,
    /// The last batch that used it.
    used: u64,
}

impl KeyTable {
    /// The table of 32^position Q.
    #[inline(always)]
    pub(crate) fn at(&self, position: usize) -> &Table {
        &self.0[position]
    }
}

impl KeyCache {
    /// A cache of as many tables as the memory allows.
    pub(crate) fn new(memory_max_bytes: usize) -> KeyCache {
        KeyCache {
            tables_max: memory_max_bytes / (size_of::<[Table; DIGITS]>() + size_of::<Slot>() + 64),
            slots: HashMap::new(),
            tables: Vec::new(),
            uses: HashMap::new(),
            batch: 0,
        }
    }

    /// The slot of each job's key, if it has one; builds the tables that are earned.
    #[target_feature(enable = "avx512f,avx512ifma")]
    pub(crate) fn assign(&mut self, ifma: Ifma, jobs: &[VerifyJob]) -> Vec<Option<usize>> {
        self.batch += 1;
        let keys: Vec<Entry> = jobs.iter().map(|job| Entry::of(&job.key)).collect();
        let mut earned = Vec::new();
        let mut assigned: Vec<Option<usize>> = Vec::with_capacity(keys.len());
        for key in &keys {
            let slot = self.slots.get(key).copied();
            if let Some(slot) = slot {
                self.tables[slot].used = self.batch;
            } else if self.count(key) == USES_BEFORE_TABLE {
                earned.push(*key);
            }
            assigned.push(slot);
        }
        if self.build_tables(ifma, &earned) {
            for (slot, key) in assigned.iter_mut().zip(&keys).filter(|(slot, _)| slot.is_none()) {
                *slot = self.slots.get(key).copied();
            }
        }
        assigned
    }

    /// The table in a slot that [`KeyCache::assign`] gave.
    pub(crate) fn table(&self, slot: usize) -> &KeyTable {
        &self.tables[slot].table
    }

    /// How often a key without a table was met, this time included.
    fn count(&mut self, key: &Entry) -> u32 {
        if self.tables_max == 0 {
            return 0;
        }
        if self.uses.len() >= self.tables_max.max(64) && !self.uses.contains_key(key) {
            self.uses.clear();
        }
        let uses = self.uses.entry(*key).or_default();
        *uses += 1;
        *uses
    }

    /// Gives tables to keys while there is room; returns whether any got one.
    #[target_feature(enable = "avx512f,avx512ifma")]
    fn build_tables(&mut self, ifma: Ifma, keys: &[Entry]) -> bool {
        let mut room = Workspace::default();
        for keys in keys.chunks(8) {
            for (key, table) in keys.iter().zip(key_tables(ifma, keys, &mut room)) {
                self.uses.remove(key);
                let slot = Slot { key: *key, table, used: self.batch };
                if self.tables.len() < self.tables_max {
                    self.slots.insert(*key, self.tables.len());
                    self.tables.push(slot);
                    continue;
                }
                let oldest = self.tables.iter_mut().enumerate().min_by_key(|(_, slot)| slot.used);
                let Some((index, old)) = oldest.filter(|(_, slot)| slot.used < self.batch) else {
                    return true;
                };
                self.slots.remove(&old.key);
                *old = slot;
                self.slots.insert(*key, index);
            }
        }
        !keys.is_empty()
    }
}

/// The tables of one to eight keys.
#[target_feature(enable = "avx512f,avx512ifma")]
fn key_tables(ifma: Ifma, keys: &[Entry], room: &mut Workspace) -> Vec<KeyTable> {
    let base = load_points(ifma, &lanes_of(keys));
    let mut multiples = vec![Jacobian::<1>::start(ifma, [&base])];
    for position in 1..DIGITS {
        multiples.push(multiples[position - 1].times_32());
    }
    let mut inverses = multiples.iter().map(|point| point.z[0]).collect();
    let finite = |_, _| debug_assert!(false, "a multiple of a point of prime order is not at infinity");
    invert_all(ifma, &mut inverses, &mut room.products, finite);
    let mut points: Vec<Affine> = Vec::with_capacity(DIGITS);
    for (point, inverse) in multiples.iter().zip(&inverses) {
        points.push(point.to_affine(ifma, inverse));
    }
    let mut tables = Vec::new();
    build(ifma, &points, room, &mut tables);
    (0..keys.len())
        .map(|lane| {
            let mut table = Box::new([Table::EMPTY; DIGITS]);
            for (position, table) in table.iter_mut().enumerate() {
                *table = tables[8 * position + lane];
            }
            KeyTable(table)
        })
        .collect()
}
