//! Keys that are met often, and their tables: with all multiples at hand, verification needs no doublings.
//!
//! Owns which keys have a table, within a bound of memory. A key earns one by [`USES_BEFORE_TABLE`] signatures, which
//! is when building it has paid; the one unused for longest makes room, but never one that the batch at hand needs.
//! Counts of keys without a table are forgotten all at once when they are as many as there can be tables, so that keys
//! met once take bounded memory too.
//!
//! Invariant: a table is that of the key it is found under.
//!
//! Budget: 44 KiB a table; building it takes 50 us where keys come together, 100 us for one alone.

use std::collections::HashMap;

use secp256k1::PublicKey;

use super::field::{Entry, Field};
use super::invert::invert_all;
use super::point::{Affine, Jacobian};
use super::table::{
    KEY_DIGIT_BITS, KEY_DIGITS, KEY_ENTRIES, Table, Workspace, build, load_points, not_exceptional,
    to_affine_all,
};
use crate::scalar::Scalar;

/// Signatures by a key after which a table pays.
const USES_BEFORE_TABLE: u32 = 16;

/// The tables of 64^j Q, for all positions j.
#[derive(Debug)]
pub(crate) struct KeyTable(Box<[Table<KEY_ENTRIES>; KEY_DIGITS]>);

/// A signer's key of which there is a table, or whose base has one.
#[derive(Clone, Copy)]
pub(crate) struct KnownKey<'a> {
    pub(crate) table: &'a KeyTable,
    /// The key is the table's, plus the generator times this.
    pub(crate) offset: Option<Scalar>,
}

/// Keys with tables, and those on the way to one.
#[derive(Debug)]
pub(crate) struct KeyCache {
    tables_max: usize,
    slots: HashMap<Entry, usize>,
    tables: Vec<Slot>,
    uses: HashMap<Entry, u32>,
    batch: u64,
}

/// Room that tables are built in, kept from one to the next.
pub(crate) struct Builder<F: Field> {
    multiples: Vec<Jacobian<F, 1>>,
    inverses: Vec<F::Factor>,
    bases: Vec<Entry>,
    points: Vec<Affine<F>>,
    tables: Vec<Table<KEY_ENTRIES>>,
    room: Workspace<F>,
}

impl<F: Field> Default for Builder<F> {
    fn default() -> Self {
        Builder {
            multiples: Vec::new(),
            inverses: Vec::new(),
            bases: Vec::new(),
            points: Vec::new(),
            tables: Vec::new(),
            room: Workspace::default(),
        }
    }
}

#[derive(Debug)]
struct Slot {
    key: Entry,
    table: KeyTable,
    /// The last batch that used it.
    used: u64,
}

impl KeyTable {
    /// The table of 64^position Q.
    #[inline(always)]
    pub(crate) fn at(&self, position: usize) -> &Table<KEY_ENTRIES> {
        &self.0[position]
    }
}

impl KeyCache {
    /// A cache of as many tables as the memory allows.
    pub(crate) fn new(memory_max_bytes: usize) -> KeyCache {
        KeyCache {
            tables_max: memory_max_bytes
                / (size_of::<[Table<KEY_ENTRIES>; KEY_DIGITS]>() + size_of::<Slot>() + 64),
            slots: HashMap::new(),
            tables: Vec::new(),
            uses: HashMap::new(),
            batch: 0,
        }
    }

    /// The slot of each key, if it has one; builds the tables that are earned.
    pub(crate) fn assign<'a, F: Field>(
        &mut self,
        f: F,
        builder: &mut Builder<F>,
        keys: impl Iterator<Item = &'a PublicKey>,
    ) -> Vec<Option<usize>> {
        self.batch += 1;
        let keys: Vec<Entry> = keys.map(Entry::of).collect();
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
        if self.build_tables(f, builder, &earned) {
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
    fn build_tables<F: Field>(&mut self, f: F, builder: &mut Builder<F>, keys: &[Entry]) -> bool {
        for keys in keys.chunks(F::LANES) {
            for (key, table) in keys.iter().zip(builder.build(f, keys)) {
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

impl<F: Field> Builder<F> {
    /// The tables of as many keys as there are lanes, or fewer.
    ///
    /// The keys' multiples are doubled side by side, and then packed into lanes anew: a key that comes alone fills them
    /// with its own multiples.
    fn build(&mut self, f: F, keys: &[Entry]) -> Vec<KeyTable> {
        let Builder { multiples, inverses, bases, points, tables, room } = self;
        double_up(f, load_points(f, keys), multiples);
        inverses.clear();
        inverses.extend(multiples.iter().map(|point| point.z[0]));
        invert_all(f, inverses, &mut room.products, not_exceptional);
        points.clear();
        to_affine_all(f, multiples, inverses, points);
        bases.clear();
        bases.resize(keys.len() * KEY_DIGITS, Entry::ZERO);
        for (position, point) in points.iter().enumerate() {
            let [x, y] = f.enter(
                #[inline(always)]
                || [f.to_lanes(&point.x), f.to_lanes(&point.y)],
            );
            for lane in 0..keys.len() {
                bases[lane * KEY_DIGITS + position] = Entry::join(x[lane], y[lane]);
            }
        }
        points.clear();
        points.extend(bases.chunks(F::LANES).map(|bases| load_points(f, bases)));
        build(f, points, room, tables);
        let (of_keys, _) = tables[..bases.len()].as_chunks::<KEY_DIGITS>();
        of_keys.iter().map(|tables| KeyTable(Box::new(*tables))).collect()
    }
}

/// Fills `multiples` with 64^j times the points, for all positions j.
fn double_up<F: Field>(f: F, points: Affine<F>, multiples: &mut Vec<Jacobian<F, 1>>) {
    f.enter(
        #[inline(always)]
        || {
            multiples.clear();
            let mut multiple = Jacobian::start(f, [&points]);
            multiples.push(multiple);
            for _ in 1..KEY_DIGITS {
                multiple = multiple.doubled::<KEY_DIGIT_BITS>(f);
                multiples.push(multiple);
            }
        },
    );
}
