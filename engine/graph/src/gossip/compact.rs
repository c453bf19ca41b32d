//! Rewriting the store when too much of it is dead, that is, superseded or removed.
//!
//! Invariant: live records keep their order, so that an announcement still precedes the records that depend on it,
//! and a peer's position in the old log has an equivalent in the new one.

use std::io;

use fulmen_wire::message::Message;

use super::index::Update;
use super::store::{FILE_HEADER, Location, Record, RecordKind, file_header, location_of, write_record};
use super::{Gossip, Log};
use crate::Direction;

/// A store with fewer dead bytes is not rewritten.
const DEAD_BYTES_MIN: u64 = 4 << 20;
/// Bytes read at a time.
const WINDOW_BYTES: usize = 1 << 20;

/// A message that is moved.
enum Moved {
    Announcement(usize, Location),
    Update(usize, Direction, Location),
    Node(u32, Location),
}

impl Moved {
    /// Its new location.
    const fn location(&self) -> Location {
        match self {
            Moved::Announcement(_, location) | Moved::Update(_, _, location) | Moved::Node(_, location) => {
                *location
            }
        }
    }
}

impl<L: Log> Gossip<L> {
    /// Rewrites the store if more than a third of it is dead; returns whether it was rewritten.
    ///
    /// # Errors
    /// When the log cannot be read or replaced; nothing is changed then.
    pub fn compact(&mut self) -> io::Result<bool> {
        let dead = self.store.dead_bytes();
        if dead < DEAD_BYTES_MIN || dead * 3 < self.store.end() {
            return Ok(false);
        }
        self.rewrite()?;
        Ok(true)
    }

    /// Rewrites the store with its live records.
    pub(super) fn rewrite(&mut self) -> io::Result<()> {
        let mut contents = file_header(self.store.chain_hash()).to_vec();
        for node in &self.banned {
            write_record(&mut contents, Record { kind: RecordKind::Banned, at: 0, payload: &node.0 });
        }
        let mut moves = Vec::new();
        let mut offset = FILE_HEADER as u64;
        while offset < self.store.end() {
            let mut window = self.store.window(offset, WINDOW_BYTES)?;
            while let Some((at, record)) = window.next() {
                let Some(moved) = self.alive(at, record, contents.len() as u64) else { continue };
                write_record(&mut contents, record);
                if let Moved::Announcement(position, _) = moved {
                    self.write_channel_state(&mut contents, position);
                }
                moves.push((at, moved));
            }
            if window.offset() == offset {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "a record of the store is damaged"));
            }
            offset = window.offset();
        }
        self.store.replace(&contents)?;
        for cursor in self.peers.values_mut().filter_map(|peer| peer.open_queries.cursor_mut()) {
            let next = moves.partition_point(|(from, _)| from < cursor);
            *cursor = moves.get(next).map_or(self.store.end(), |(_, moved)| moved.location().offset());
        }
        for (_, moved) in moves {
            self.follow(moved);
        }
        for position in 0..self.index.channel_count() {
            // The first update that is left. A peer whose position lies between it and the former first one receives
            // the channel twice.
            let channel = self.index.channel_at_mut(position);
            channel.public_at = channel.updates.iter().flatten().map(|update| update.location.offset()).min();
        }
        Ok(())
    }

    /// The new location of a record, if it is a live message.
    fn alive(&self, offset: u64, record: Record<'_>, to: u64) -> Option<Moved> {
        if record.kind != RecordKind::Message {
            return None;
        }
        let (from, to) = (location_of(offset, record.payload), location_of(to, record.payload));
        match Message::decode(record.payload).ok()? {
            Message::ChannelAnnouncement(message) => {
                let position = self.index.position(message.short_channel_id)?;
                let alive = self.index.channel_at(position).announcement == from;
                alive.then_some(Moved::Announcement(position, to))
            }
            Message::ChannelUpdate(message) => {
                let position = self.index.position(message.short_channel_id)?;
                let direction = message.direction();
                let update = self.index.channel_at(position).updates[direction.origin()]?;
                (update.location == from).then_some(Moved::Update(position, direction, to))
            }
            Message::NodeAnnouncement(message) => {
                let position = self.index.node_position(message.node_id)?;
                let alive = self.index.node_at(position).announcement == Some(from);
                alive.then_some(Moved::Node(position, to))
            }
            _ => None,
        }
    }

    /// Writes the state of a channel beside its messages.
    fn write_channel_state(&self, contents: &mut Vec<u8>, position: usize) {
        let channel = self.index.channel_at(position);
        let scid = channel.scid.0.to_le_bytes();
        if let Some(value) = channel.funding {
            let mut payload = [0; 16];
            payload[..8].copy_from_slice(&scid);
            payload[8..].copy_from_slice(&value.0.to_le_bytes());
            write_record(contents, Record { kind: RecordKind::Funded, at: 0, payload: &payload });
        }
        if let Some(at) = channel.spent_at {
            write_record(contents, Record { kind: RecordKind::Spent, at: at.0, payload: &scid });
        }
    }

    fn follow(&mut self, moved: Moved) {
        match moved {
            Moved::Announcement(position, location) => {
                self.index.channel_at_mut(position).announcement = location;
            }
            Moved::Update(position, direction, location) => {
                let update = &mut self.index.channel_at_mut(position).updates[direction.origin()];
                *update = update.map(|update| Update { location, ..update });
            }
            Moved::Node(position, location) => self.index.node_at_mut(position).announcement = Some(location),
        }
    }
}
