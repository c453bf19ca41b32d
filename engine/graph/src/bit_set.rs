//! A set of dense numbers (nodes, edges, blocks) that is emptied in time proportional to its members.
//!
//! Owns [`BitSet`], the only place that does arithmetic on words of bits. Searches keep one and reuse it from query
//! to query, so that a query costs no pass over the whole graph.

/// Bits in a word.
const WORD: u32 = u64::BITS;

/// Numbers below a bound set by [`BitSet::clear`] or by the largest one inserted with [`BitSet::insert_growing`].
#[derive(Clone, Debug, Default)]
pub(crate) struct BitSet {
    words: Vec<u64>,
    /// Each member once, in the order of insertion.
    members: Vec<u32>,
}

impl BitSet {
    /// Empties the set and makes room for the numbers below `bound`.
    pub(crate) fn clear(&mut self, bound: usize) {
        for member in self.members.drain(..) {
            self.words[(member / WORD) as usize] = 0;
        }
        self.words.resize(bound.div_ceil(WORD as usize), 0);
    }

    /// Adds a number below the bound.
    #[inline]
    pub(crate) fn insert(&mut self, number: u32) {
        let word = &mut self.words[(number / WORD) as usize];
        let bit = 1 << (number % WORD);
        if *word & bit == 0 {
            *word |= bit;
            self.members.push(number);
        }
    }

    /// Adds a number, raising the bound if needed.
    pub(crate) fn insert_growing(&mut self, number: u32) {
        let words = (number / WORD) as usize + 1;
        if self.words.len() < words {
            self.words.resize(words, 0);
        }
        self.insert(number);
    }

    /// Whether a number is a member; none above the bound is.
    #[inline]
    pub(crate) fn contains(&self, number: u32) -> bool {
        self.words.get((number / WORD) as usize).is_some_and(|word| word >> (number % WORD) & 1 == 1)
    }

    /// The members in the order in which they were inserted.
    pub(crate) fn members(&self) -> &[u32] {
        &self.members
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_kept_once_and_clearing_forgets_all() {
        let mut set = BitSet::default();
        assert!(!set.contains(0) && set.members().is_empty());
        set.clear(130);
        for number in [0, 63, 64, 129, 64] {
            set.insert(number);
        }
        assert_eq!(set.members(), [0, 63, 64, 129]);
        assert!((0..200).all(|number| set.contains(number) == [0, 63, 64, 129].contains(&number)));
        set.insert_growing(1_000);
        assert!(set.contains(1_000));
        set.clear(10);
        assert!(set.members().is_empty() && (0..2_000).all(|number| !set.contains(number)));
    }
}
