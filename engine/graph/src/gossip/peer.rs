//! The state kept of a peer: its rate limits, and the queries and the filter that are still to be answered (BOLT 7,
//! "Query Messages").
//!
//! Owns the data; [`super::serve`] answers from it.
//!
//! Invariant: at most one query of each kind and one filter, so that a peer's state is bounded by the size of one
//! message.

use std::collections::BTreeSet;

use fulmen_wire::message::{
    GossipTimestampFilter, QueryChannelRange, QueryFlags, QueryOption, QueryShortChannelIds,
};
use fulmen_wire::units::{ChainHash, NodeId, Scid};

use super::limits::Bucket;
use super::store::FILE_HEADER;

/// The state of a peer.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) connected: bool,
    pub(super) messages: Bucket,
    pub(super) faults: Bucket,
    pub(super) queries: Bucket,
    pub(super) open_queries: PeerQueries,
}

/// The queries of a peer that are not fully answered.
#[derive(Debug, Default)]
pub(super) struct PeerQueries {
    pub(super) range: Option<RangeQuery>,
    pub(super) scids: Option<ScidsQuery>,
    pub(super) filter: Option<Filter>,
}

/// The rest of a `query_channel_range`.
#[derive(Clone, Copy, Debug)]
pub(super) struct RangeQuery {
    pub(super) chain_hash: ChainHash,
    /// The first block of the next reply.
    pub(super) block: u32,
    /// The block after the last.
    pub(super) end: u64,
    /// The last channel of the previous reply.
    pub(super) told: Option<Scid>,
    pub(super) timestamps: bool,
    pub(super) checksums: bool,
}

/// The rest of a `query_short_channel_ids`.
#[derive(Debug)]
pub(super) struct ScidsQuery {
    pub(super) chain_hash: ChainHash,
    /// Channels with their query flags.
    pub(super) rest: std::vec::IntoIter<(Scid, QueryFlags)>,
    /// The nodes whose announcements were sent.
    pub(super) nodes: BTreeSet<NodeId>,
}

/// A `gossip_timestamp_filter` and the place in the store up to which it was answered.
#[derive(Clone, Copy, Debug)]
pub(super) struct Filter {
    first: u32,
    range: u32,
    pub(super) cursor: u64,
}

impl PeerQueries {
    /// The place in the store up to which the filter was answered.
    pub(super) fn cursor_mut(&mut self) -> Option<&mut u64> {
        self.filter.as_mut().map(|filter| &mut filter.cursor)
    }
}

impl RangeQuery {
    pub(super) fn new(query: &QueryChannelRange) -> RangeQuery {
        let options = query.query_option.unwrap_or(QueryOption(0));
        RangeQuery {
            chain_hash: query.chain_hash,
            block: query.first_blocknum.0,
            end: u64::from(query.first_blocknum.0) + u64::from(query.number_of_blocks),
            told: None,
            timestamps: options.contains(QueryOption::TIMESTAMPS),
            checksums: options.contains(QueryOption::CHECKSUMS),
        }
    }
}

impl ScidsQuery {
    pub(super) fn new(query: &QueryShortChannelIds) -> ScidsQuery {
        let flags = |index: usize| query.query_flags.as_ref().map_or(QueryFlags::ALL, |flags| flags[index]);
        let scids = query.short_channel_ids.iter().enumerate();
        let all: Vec<(Scid, QueryFlags)> = scids.map(|(index, scid)| (*scid, flags(index))).collect();
        ScidsQuery { chain_hash: query.chain_hash, rest: all.into_iter(), nodes: BTreeSet::new() }
    }
}

impl Filter {
    /// A filter over a store that ends at `end`.
    pub(super) fn new(filter: &GossipTimestampFilter, end: u64) -> Filter {
        // No timestamp passes such a filter: the peer wants no gossip.
        let silent = filter.first_timestamp == u32::MAX || filter.timestamp_range == 0;
        let cursor = if silent { end } else { FILE_HEADER as u64 };
        Filter { first: filter.first_timestamp, range: filter.timestamp_range, cursor }
    }

    pub(super) fn passes(&self, timestamp: u32) -> bool {
        timestamp.checked_sub(self.first).is_some_and(|after| after < self.range)
    }
}
