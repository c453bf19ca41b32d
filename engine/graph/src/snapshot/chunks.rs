//! Edges in chunks that snapshots share until one of them writes to a chunk.
//!
//! Owns [`Chunks`], the copy-on-write mechanism alone.
//!
//! Invariant: a copy costs a reference count per chunk, a write to a copy one chunk.

use std::ops::Range;
use std::sync::Arc;

use crate::snapshot::Edge;

/// The fewest edges of a chunk: 16 kB. Small in tests, so that small graphs have several chunks.
const CHUNK_EDGES_MIN: usize = if cfg!(test) { 128 } else { 512 };

/// The most chunks, unless [`CHUNK_EDGES_MIN`] requires fewer: each is counted when a snapshot is derived from
/// another.
const CHUNKS_MAX: usize = 1024;

/// Edges in chunks of one size.
#[derive(Clone, Debug)]
pub(crate) struct Chunks {
    chunks: Box<[Arc<[Edge]>]>,
    /// The logarithm of the chunk's size: an edge's number shifted right by it is the chunk's.
    shift: u32,
}

impl Chunks {
    pub(crate) fn new(edges: &[Edge]) -> Chunks {
        let size = (edges.len() / CHUNKS_MAX).max(CHUNK_EDGES_MIN).next_power_of_two();
        Chunks { chunks: edges.chunks(size).map(Arc::from).collect(), shift: size.trailing_zeros() }
    }

    #[inline]
    pub(crate) fn at(&self, edge: u32) -> &Edge {
        let mask = (1_u32 << self.shift) - 1;
        &self.chunks[(edge >> self.shift) as usize][(edge & mask) as usize]
    }

    /// Replaces an edge; copies its chunk if another snapshot shares it.
    pub(crate) fn put(&mut self, number: u32, edge: Edge) {
        let mask = (1_u32 << self.shift) - 1;
        Arc::make_mut(&mut self.chunks[(number >> self.shift) as usize])[(number & mask) as usize] = edge;
    }

    /// Edges of consecutive numbers in runs: the number of the run's first edge, and the run.
    #[inline]
    pub(crate) fn runs(&self, edges: Range<u32>) -> impl Iterator<Item = (u32, &[Edge])> {
        let mask = (1_u32 << self.shift) - 1;
        let mut start = edges.start;
        std::iter::from_fn(move || {
            if start >= edges.end {
                return None;
            }
            let first = start;
            let chunk = &self.chunks[(first >> self.shift) as usize];
            let length = (edges.end - first).min(mask + 1 - (first & mask));
            start += length;
            Some((first, &chunk[(first & mask) as usize..][..length as usize]))
        })
    }

    /// The size in bytes, including chunks shared with other snapshots.
    pub(crate) fn bytes(&self) -> usize {
        size_of_val(&*self.chunks)
            + self.chunks.iter().map(|chunk| 2 * size_of::<usize>() + size_of_val(&**chunk)).sum::<usize>()
    }

    #[cfg(test)]
    pub(crate) fn chunks(&self) -> &[Arc<[Edge]>] {
        &self.chunks
    }
}
