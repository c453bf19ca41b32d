//! Answering queries and relaying gossip (BOLT 7, "Query Messages" and "Rebroadcasting").
//!
//! Owns the answers. Sends nothing: the caller takes as many messages as the peer's connection has room for, with
//! [`Gossip::answer`] and [`Gossip::relay`].
//!
//! Messages that pass a peer's filter are relayed in the order of their acceptance, by reading through the store; a
//! peer costs no more than its position there. A channel's announcement is sent at the position where its first
//! update was accepted.
//!
//! Invariants: one query of each kind per peer at a time; a call returns at most one message more than was asked for;
//! nothing is relayed to a peer without a filter, and no channel without an update.

use std::io;

use fulmen_wire::message::{
    ChannelUpdateChecksums, ChannelUpdateTimestamps, Message, QueryFlags, ReplyChannelRange,
    ReplyShortChannelIdsEnd,
};
use fulmen_wire::tlv::UnknownTlvs;
use fulmen_wire::units::{BlockHeight, NodeId, Scid};
use thiserror::Error;

use super::config::RANGE_SCIDS_MAX;
use super::index::ChannelEntry;
use super::peer::{Filter, RangeQuery, ScidsQuery};
use super::store::{Location, Record, RecordKind};
use super::{Gossip, GossipTime, Log};

/// The most channels in one `reply_channel_range` that carries timestamps or checksums, so that it fits into a
/// message.
const RANGE_SCIDS_WITH_MORE_MAX: usize = 2_700;
/// Limit on the bytes of the store that one call of [`Gossip::relay`] reads.
const WALK_BYTES_MAX: usize = 1 << 20;

/// The reason why a query is not answered.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum QueryRefusal {
    /// It is not a query.
    #[error("{name} is no query")]
    NotAQuery {
        /// The name of the message.
        name: &'static str,
    },
    /// The last query of this kind is not fully answered; the peer must wait for that.
    #[error("{name} before the last one was answered")]
    StillAnswering {
        /// The name of the message.
        name: &'static str,
    },
    /// The peer has exceeded its rate limit.
    #[error("too many queries")]
    RateLimited,
}

impl<L: Log> Gossip<L> {
    /// Accepts a peer's `query_short_channel_ids`, `query_channel_range` or `gossip_timestamp_filter`.
    ///
    /// # Errors
    /// When the message has another type, comes before the last one was answered, or exceeds the rate limit. Nothing
    /// changes then.
    pub fn query(&mut self, peer: NodeId, message: &Message, now: GossipTime) -> Result<(), QueryRefusal> {
        let name = message.name();
        let (ours, end) = (self.config.chain_hash, self.store.end());
        let rate = self.config.queries;
        let peer = self.peer(peer, now).ok_or(QueryRefusal::RateLimited)?;
        let open_queries = &peer.open_queries;
        let busy = match message {
            Message::QueryChannelRange(_) => open_queries.range.is_some(),
            Message::QueryShortChannelIds(_) => open_queries.scids.is_some(),
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
            Message::QueryChannelRange(query) => peer.open_queries.range = Some(RangeQuery::new(query)),
            Message::QueryShortChannelIds(query) => peer.open_queries.scids = Some(ScidsQuery::new(query)),
            Message::GossipTimestampFilter(filter) if filter.chain_hash == ours => {
                peer.open_queries.filter = Some(Filter::new(filter, end));
            }
            _ => {}
        }
        Ok(())
    }

    /// Returns answers to a peer's queries, about `bytes_max` bytes of them; none when all queries are answered.
    ///
    /// # Errors
    /// When the store cannot be read; the channel in question is skipped.
    pub fn answer(&mut self, peer: NodeId, bytes_max: usize) -> io::Result<Vec<Vec<u8>>> {
        let (mut drawn, mut bytes) = (Vec::new(), 0);
        while bytes < bytes_max {
            let Some(state) = self.peers.get_mut(&peer) else { break };
            let start = drawn.len();
            if let Some(mut range) = state.open_queries.range.take() {
                let reply = self.next_range(&mut range);
                let more = !reply.sync_complete;
                if let Some(state) = self.peers.get_mut(&peer).filter(|_| more) {
                    state.open_queries.range = Some(range);
                }
                drawn.push(Message::from(reply).encode());
            } else if let Some(mut scids) = state.open_queries.scids.take() {
                if let Some((scid, flags)) = scids.rest.next() {
                    let told = self.channel_messages(&mut scids, scid, flags, &mut drawn);
                    if let Some(state) = self.peers.get_mut(&peer) {
                        state.open_queries.scids = Some(scids);
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

    /// Returns gossip that passes a peer's filter and was not sent to it yet, about `bytes_max` bytes of it. The
    /// result may be empty although more follows, after a stretch of the store that the filter rejects; see
    /// [`Gossip::has_backlog`].
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn relay(&mut self, peer: NodeId, bytes_max: usize) -> io::Result<Vec<Vec<u8>>> {
        let filter = self.peers.get(&peer).and_then(|peer| peer.open_queries.filter);
        let Some(mut filter) = filter.filter(|filter| filter.cursor < self.store.end()) else {
            return Ok(Vec::new());
        };
        let (mut drawn, mut bytes) = (Vec::new(), 0);
        let mut window = self.store.window(filter.cursor, WALK_BYTES_MAX)?;
        while bytes < bytes_max {
            let Some((offset, record)) = window.next() else { break };
            for location in self.due(&filter, offset, record).into_iter().flatten() {
                let message = self.store.message(location)?;
                bytes += message.len();
                drawn.push(message);
            }
        }
        // An unreadable record in the middle of the store stays unreadable; the peer has to query for the messages
        // after it.
        let stuck = window.offset() == filter.cursor && bytes == 0;
        filter.cursor = if stuck { self.store.end() } else { window.offset() };
        if let Some(peer) = self.peers.get_mut(&peer) {
            peer.open_queries.filter = Some(filter);
        }
        Ok(drawn)
    }

    /// Whether [`Gossip::relay`] has not reached the end of the store for a peer.
    #[must_use]
    pub fn has_backlog(&self, peer: NodeId) -> bool {
        let filter = self.peers.get(&peer).and_then(|peer| peer.open_queries.filter);
        filter.is_some_and(|filter| filter.cursor < self.store.end())
    }

    /// The bytes of the store that [`Gossip::relay`] has not examined for a peer.
    #[must_use]
    pub fn backlog_bytes(&self, peer: NodeId) -> u64 {
        let filter = self.peers.get(&peer).and_then(|peer| peer.open_queries.filter);
        filter.map_or(0, |filter| self.store.end().saturating_sub(filter.cursor))
    }

    /// The unknown ones among these channels, to be queried after a `reply_channel_range`.
    #[must_use]
    pub fn unknown_channels(&self, scids: &[Scid]) -> Vec<Scid> {
        scids.iter().copied().filter(|scid| self.index.channel(*scid).is_none()).collect()
    }

    /// The next reply to a range query; `sync_complete` marks the last.
    fn next_range(&mut self, range: &mut RangeQuery) -> ReplyChannelRange {
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
            let mut public =
                wanted.into_iter().filter(|scid| self.index.channel(*scid).is_some_and(is_public));
            scids = public.by_ref().take(max).collect();
            complete = public.next().is_none();
        }
        let channels: Vec<&ChannelEntry> =
            scids.iter().filter_map(|scid| self.index.channel(*scid)).collect();
        let both = |value: fn(&super::index::Update) -> u32, channel: &ChannelEntry| {
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
        // The next reply starts with the last block of this one, which may have more channels.
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

    /// Adds the messages of one channel that the query asks for.
    fn channel_messages(
        &self,
        query: &mut ScidsQuery,
        scid: Scid,
        flags: QueryFlags,
        drawn: &mut Vec<Vec<u8>>,
    ) -> io::Result<()> {
        if query.chain_hash != self.config.chain_hash {
            return Ok(());
        }
        let Some(channel) = self.index.channel(scid).filter(|channel| is_public(channel)) else {
            return Ok(());
        };
        let mut locations: Vec<Location> = Vec::with_capacity(5);
        locations.extend(flags.contains(QueryFlags::CHANNEL_ANNOUNCEMENT).then_some(channel.announcement));
        let of_ends = [
            (QueryFlags::CHANNEL_UPDATE_1, QueryFlags::NODE_ANNOUNCEMENT_1),
            (QueryFlags::CHANNEL_UPDATE_2, QueryFlags::NODE_ANNOUNCEMENT_2),
        ];
        for (update, (flag, _)) in channel.updates.iter().zip(of_ends) {
            locations.extend(update.filter(|_| flags.contains(flag)).map(|update| update.location));
        }
        for (node, (_, flag)) in channel.nodes.into_iter().zip(of_ends) {
            let node = self.index.node_at(node);
            if flags.contains(flag) && query.nodes.insert(node.id) {
                locations.extend(node.announcement);
            }
        }
        for location in locations {
            drawn.push(self.store.message(location)?);
        }
        Ok(())
    }

    /// The messages that a peer with this filter receives when its position reaches a record.
    fn due(&self, filter: &Filter, offset: u64, record: Record<'_>) -> [Option<Location>; 2] {
        if record.kind != RecordKind::Message {
            return [None; 2];
        }
        match Message::decode(record.payload) {
            Ok(Message::ChannelUpdate(message)) => {
                let direction = message.direction();
                let Some(channel) = self.index.channel(message.short_channel_id) else { return [None; 2] };
                let wanted = channel.updates.iter().flatten().any(|update| filter.passes(update.timestamp));
                let announced = channel.public_at == Some(offset) && wanted && channel.spent_at.is_none();
                let alive =
                    channel.updates[direction.origin()].filter(|update| update.location.offset() == offset);
                let told = channel.spent_at.is_none() || message.is_disabled();
                let update = alive.filter(|update| told && filter.passes(update.timestamp));
                [announced.then_some(channel.announcement), update.map(|update| update.location)]
            }
            Ok(Message::NodeAnnouncement(message)) => {
                let node = self.index.node(message.node_id);
                let location = node.and_then(|node| node.announcement);
                let alive = location.filter(|location| location.offset() == offset);
                [alive.filter(|_| filter.passes(message.timestamp)), None]
            }
            _ => [None; 2],
        }
    }
}

/// Whether a channel is relayed: it has an update and is not spent.
fn is_public(channel: &ChannelEntry) -> bool {
    channel.public_at.is_some() && channel.spent_at.is_none()
}
