//! Telling others: queries answered and gossip passed on (BOLT 7, "Query Messages" and "Rebroadcasting").
//!
//! Owns what a peer has asked for and how far it has been told. Sends nothing: the caller draws messages, as many as the
//! peer's connection takes, with [`Gossip::answer`] and [`Gossip::relay`].
//!
//! What a peer's filter lets through is told in the order in which it was believed, by walking the store; all a peer costs
//! is its place there. A channel's announcement goes out at the place where its first update was believed.
//!
//! Invariants: one query of each kind a peer at a time; no draw gives more than was asked for and one message; nothing is
//! relayed to a peer without a filter, and no channel without an update.

use std::collections::BTreeSet;
use std::io;

use fulmen_wire::message::{
    ChannelUpdateChecksums, ChannelUpdateTimestamps, GossipTimestampFilter, Message, QueryChannelRange,
    QueryFlags, QueryOption, QueryShortChannelIds, ReplyChannelRange, ReplyShortChannelIdsEnd,
};
use fulmen_wire::tlv::UnknownTlvs;
use fulmen_wire::units::{BlockHeight, ChainHash, NodeId, Scid};
use thiserror::Error;

use super::index::Channel;
use super::store::{FILE_HEADER, Kind, Place, Record};
use super::{Gossip, GossipTime, Log};

/// How many channels are told in one `reply_channel_range`, and how many with timestamps and checksums.
pub(super) const RANGE_SCIDS_MAX: usize = 8_000;
const RANGE_SCIDS_WITH_MORE_MAX: usize = 2_700;
/// How much of the store is looked through in one draw.
const WALK_BYTES_MAX: usize = 1 << 20;

/// Why a query is not answered.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum QueryRefusal {
    /// It is none.
    #[error("{name} is no query")]
    NotAQuery {
        /// What it is.
        name: &'static str,
    },
    /// The last one of this kind is not answered yet: the peer should have waited.
    #[error("{name} before the last one was answered")]
    StillAnswering {
        /// What it is.
        name: &'static str,
    },
    /// The peer has asked too often.
    #[error("too many queries")]
    RateLimited,
}

/// What a peer has asked for and was not told yet.
#[derive(Debug, Default)]
pub(super) struct Asked {
    range: Option<Range>,
    scids: Option<Scids>,
    filter: Option<Filter>,
}

/// What is left of a `query_channel_range`.
#[derive(Clone, Copy, Debug)]
struct Range {
    chain_hash: ChainHash,
    /// The first block of the next reply.
    block: u32,
    /// The block behind the last.
    end: u64,
    /// The last channel that was told.
    told: Option<Scid>,
    timestamps: bool,
    checksums: bool,
}

/// What is left of a `query_short_channel_ids`.
#[derive(Debug)]
struct Scids {
    chain_hash: ChainHash,
    rest: std::vec::IntoIter<(Scid, QueryFlags)>,
    /// The nodes whose announcements were told.
    nodes: BTreeSet<NodeId>,
}

/// A `gossip_timestamp_filter` and how far in the store it was followed.
#[derive(Clone, Copy, Debug)]
struct Filter {
    first: u32,
    range: u32,
    cursor: u64,
}

impl Filter {
    fn passes(&self, timestamp: u32) -> bool {
        timestamp.checked_sub(self.first).is_some_and(|after| after < self.range)
    }
}

impl Asked {
    /// How far the peer was told what it wants to hear of.
    pub(super) fn cursor_mut(&mut self) -> Option<&mut u64> {
        self.filter.as_mut().map(|filter| &mut filter.cursor)
    }
}

impl<L: Log> Gossip<L> {
    /// Takes in a peer's `query_short_channel_ids`, `query_channel_range` or `gossip_timestamp_filter`.
    ///
    /// # Errors
    /// When it is none of these, comes before the last was answered, or too often; nothing changes then.
    pub fn query(&mut self, peer: NodeId, message: &Message, now: GossipTime) -> Result<(), QueryRefusal> {
        let name = message.name();
        let (ours, end) = (self.config.chain_hash, self.store.end());
        let rate = self.config.queries;
        let peer = self.peer(peer, now).ok_or(QueryRefusal::RateLimited)?;
        let asked = &peer.asked;
        let busy = match message {
            Message::QueryChannelRange(_) => asked.range.is_some(),
            Message::QueryShortChannelIds(_) => asked.scids.is_some(),
            Message::GossipTimestampFilter(_) => false,
            _ => return Err(QueryRefusal::NotAQuery { name }),
        };
        if busy {
            return Err(QueryRefusal::StillAnswering { name });
        }
        if !peer.queries.take(rate, now.unix_seconds) {
            return Err(QueryRefusal::RateLimited);
        }
        match message {
            Message::QueryChannelRange(query) => peer.asked.range = Some(range_of(query)),
            Message::QueryShortChannelIds(query) => peer.asked.scids = Some(scids_of(query)),
            Message::GossipTimestampFilter(filter) if filter.chain_hash == ours => {
                peer.asked.filter = Some(filter_of(filter, end));
            }
            _ => {}
        }
        Ok(())
    }

    /// Draws answers to a peer's queries, of about `bytes_max`; nothing when all is answered.
    ///
    /// # Errors
    /// When the store cannot be read; the channel at hand is skipped.
    pub fn answer(&mut self, peer: NodeId, bytes_max: usize) -> io::Result<Vec<Vec<u8>>> {
        let (mut drawn, mut bytes) = (Vec::new(), 0);
        while bytes < bytes_max {
            let Some(state) = self.peers.get_mut(&peer) else { break };
            let start = drawn.len();
            if let Some(mut range) = state.asked.range.take() {
                let reply = self.next_range(&mut range);
                let more = !reply.sync_complete;
                if let Some(state) = self.peers.get_mut(&peer).filter(|_| more) {
                    state.asked.range = Some(range);
                }
                drawn.push(Message::from(reply).encode());
            } else if let Some(mut scids) = state.asked.scids.take() {
                if let Some((scid, flags)) = scids.rest.next() {
                    let told = self.tell_channel(&mut scids, scid, flags, &mut drawn);
                    if let Some(state) = self.peers.get_mut(&peer) {
                        state.asked.scids = Some(scids);
                    }
                    told?;
                } else {
                    let full_information = scids.chain_hash == self.config.chain_hash;
                    let end = ReplyShortChannelIdsEnd {
                        chain_hash: scids.chain_hash,
                        full_information,
                        unknown: UnknownTlvs::default(),
                    };
                    drawn.push(Message::from(end).encode());
                }
            } else {
                break;
            }
            bytes += drawn[start..].iter().map(Vec::len).sum::<usize>();
        }
        Ok(drawn)
    }

    /// Draws gossip that a peer's filter lets through and that it was not told yet, of about `bytes_max`. Nothing may come
    /// although there is more, after a stretch of the store that the filter does not let through; [`Gossip::has_backlog`]
    /// tells.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn relay(&mut self, peer: NodeId, bytes_max: usize) -> io::Result<Vec<Vec<u8>>> {
        let filter = self.peers.get(&peer).and_then(|peer| peer.asked.filter);
        let Some(mut filter) = filter.filter(|filter| filter.cursor < self.store.end()) else {
            return Ok(Vec::new());
        };
        let (mut drawn, mut bytes) = (Vec::new(), 0);
        let mut window = self.store.window(filter.cursor, WALK_BYTES_MAX)?;
        while bytes < bytes_max {
            let Some((offset, record)) = window.next() else { break };
            for place in self.due(&filter, offset, record).into_iter().flatten() {
                let message = self.store.message(place)?;
                bytes += message.len();
                drawn.push(message);
            }
        }
        // A record that cannot be read in the middle of the store will never be; what follows it has to be asked for.
        let stuck = window.offset() == filter.cursor && bytes == 0;
        filter.cursor = if stuck { self.store.end() } else { window.offset() };
        if let Some(peer) = self.peers.get_mut(&peer) {
            peer.asked.filter = Some(filter);
        }
        Ok(drawn)
    }

    /// Whether [`Gossip::relay`] has not come to the end of the store for a peer.
    #[must_use]
    pub fn has_backlog(&self, peer: NodeId) -> bool {
        let filter = self.peers.get(&peer).and_then(|peer| peer.asked.filter);
        filter.is_some_and(|filter| filter.cursor < self.store.end())
    }

    /// How much of the store lies before [`Gossip::relay`] for a peer, let through or not.
    #[must_use]
    pub fn backlog_bytes(&self, peer: NodeId) -> u64 {
        let filter = self.peers.get(&peer).and_then(|peer| peer.asked.filter);
        filter.map_or(0, |filter| self.store.end().saturating_sub(filter.cursor))
    }

    /// Which of these channels are not known: what to ask for after a `reply_channel_range`.
    #[must_use]
    pub fn unknown_channels(&self, scids: &[Scid]) -> Vec<Scid> {
        scids.iter().copied().filter(|scid| self.index.channel(*scid).is_none()).collect()
    }

    /// The next reply to a range query, which ends with it when it says so.
    fn next_range(&mut self, range: &mut Range) -> ReplyChannelRange {
        let max =
            if range.timestamps || range.checksums { RANGE_SCIDS_WITH_MORE_MAX } else { RANGE_SCIDS_MAX };
        let max = max.min(self.config.reply_scids_max.max(1));
        let mut scids: Vec<Scid> = Vec::new();
        let mut complete = true;
        if range.chain_hash == self.config.chain_hash {
            let sorted = self.index.sorted();
            let start = match range.told {
                Some(told) => sorted.partition_point(|scid| *scid <= told),
                None => sorted.partition_point(|scid| scid.block() < range.block),
            };
            let end = sorted.partition_point(|scid| u64::from(scid.block()) < range.end).max(start);
            let wanted = sorted[start..end].to_vec();
            let mut public = wanted.into_iter().filter(|scid| self.index.channel(*scid).is_some_and(is_told));
            scids = public.by_ref().take(max).collect();
            complete = public.next().is_none();
        }
        let channels: Vec<&Channel> = scids.iter().filter_map(|scid| self.index.channel(*scid)).collect();
        let both = |value: fn(&super::index::Update) -> u32, channel: &Channel| {
            channel.updates.map(|update| update.as_ref().map_or(0, value))
        };
        let timestamps = range.timestamps.then(|| {
            let each = channels.iter().map(|channel| both(|update| update.timestamp, channel));
            each.map(|[timestamp_node_id_1, timestamp_node_id_2]| ChannelUpdateTimestamps {
                timestamp_node_id_1,
                timestamp_node_id_2,
            })
            .collect()
        });
        let checksums = range.checksums.then(|| {
            let each = channels.iter().map(|channel| both(|update| update.checksum, channel));
            each.map(|[checksum_node_id_1, checksum_node_id_2]| ChannelUpdateChecksums {
                checksum_node_id_1,
                checksum_node_id_2,
            })
            .collect()
        });
        let first = range.block;
        // The next reply starts with the block that this one ends in, which may have more channels.
        let last = scids.last().map_or(first, |scid| scid.block());
        let behind = if complete { range.end } else { u64::from(last) + 1 };
        range.told = scids.last().copied().or(range.told);
        range.block = last;
        ReplyChannelRange {
            chain_hash: range.chain_hash,
            first_blocknum: BlockHeight(first),
            number_of_blocks: u32::try_from(behind - u64::from(first)).unwrap_or(u32::MAX),
            sync_complete: complete,
            short_channel_ids: scids,
            timestamps,
            checksums,
            unknown: UnknownTlvs::default(),
        }
    }

    /// Draws what was asked for of one channel.
    fn tell_channel(
        &self,
        query: &mut Scids,
        scid: Scid,
        flags: QueryFlags,
        drawn: &mut Vec<Vec<u8>>,
    ) -> io::Result<()> {
        if query.chain_hash != self.config.chain_hash {
            return Ok(());
        }
        let Some(channel) = self.index.channel(scid).filter(|channel| is_told(channel)) else {
            return Ok(());
        };
        let mut places: Vec<Place> = Vec::with_capacity(5);
        places.extend(flags.contains(QueryFlags::CHANNEL_ANNOUNCEMENT).then_some(channel.announcement));
        let of_ends = [
            (QueryFlags::CHANNEL_UPDATE_1, QueryFlags::NODE_ANNOUNCEMENT_1),
            (QueryFlags::CHANNEL_UPDATE_2, QueryFlags::NODE_ANNOUNCEMENT_2),
        ];
        for (update, (flag, _)) in channel.updates.iter().zip(of_ends) {
            places.extend(update.filter(|_| flags.contains(flag)).map(|update| update.place));
        }
        for (node, (_, flag)) in channel.nodes.into_iter().zip(of_ends) {
            let node = self.index.node_at(node);
            if flags.contains(flag) && query.nodes.insert(node.id) {
                places.extend(node.announcement);
            }
        }
        for place in places {
            drawn.push(self.store.message(place)?);
        }
        Ok(())
    }

    /// What a peer with this filter is told when its walk comes to a record.
    fn due(&self, filter: &Filter, offset: u64, record: Record<'_>) -> [Option<Place>; 2] {
        if record.kind != Kind::Message {
            return [None; 2];
        }
        match Message::decode(record.payload) {
            Ok(Message::ChannelUpdate(message)) => {
                let direction = message.direction();
                let Some(channel) = self.index.channel(message.short_channel_id) else { return [None; 2] };
                let wanted = channel.updates.iter().flatten().any(|update| filter.passes(update.timestamp));
                let announced = channel.public_at == Some(offset) && wanted && channel.spent_at.is_none();
                let alive =
                    channel.updates[direction.origin()].filter(|update| update.place.offset() == offset);
                let told = channel.spent_at.is_none() || message.is_disabled();
                let update = alive.filter(|update| told && filter.passes(update.timestamp));
                [announced.then_some(channel.announcement), update.map(|update| update.place)]
            }
            Ok(Message::NodeAnnouncement(message)) => {
                let node = self.index.node(message.node_id);
                let place = node.and_then(|node| node.announcement);
                let alive = place.filter(|place| place.offset() == offset);
                [alive.filter(|_| filter.passes(message.timestamp)), None]
            }
            _ => [None; 2],
        }
    }
}

/// Whether others are told of a channel: it has an update and is not spent.
fn is_told(channel: &Channel) -> bool {
    channel.public_at.is_some() && channel.spent_at.is_none()
}

fn range_of(query: &QueryChannelRange) -> Range {
    let options = query.query_option.unwrap_or(QueryOption(0));
    Range {
        chain_hash: query.chain_hash,
        block: query.first_blocknum.0,
        end: u64::from(query.first_blocknum.0) + u64::from(query.number_of_blocks),
        told: None,
        timestamps: options.contains(QueryOption::TIMESTAMPS),
        checksums: options.contains(QueryOption::CHECKSUMS),
    }
}

fn scids_of(query: &QueryShortChannelIds) -> Scids {
    let flags = |index: usize| query.query_flags.as_ref().map_or(QueryFlags::ALL, |flags| flags[index]);
    let scids = query.short_channel_ids.iter().enumerate();
    let all: Vec<(Scid, QueryFlags)> = scids.map(|(index, scid)| (*scid, flags(index))).collect();
    Scids { chain_hash: query.chain_hash, rest: all.into_iter(), nodes: BTreeSet::new() }
}

fn filter_of(filter: &GossipTimestampFilter, end: u64) -> Filter {
    // Nothing can be as late as that: who asks so wants silence.
    let silent = filter.first_timestamp == u32::MAX || filter.timestamp_range == 0;
    let cursor = if silent { end } else { FILE_HEADER as u64 };
    Filter { first: filter.first_timestamp, range: filter.timestamp_range, cursor }
}
