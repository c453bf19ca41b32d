//! The gossip queries of BOLT 7.
//!
//! Owns: their fields and bytes, and the uncompressed arrays in them. Answers no query.
//!
//! Invariant: an array that belongs to a list of short channel ids has as many elements as the list. Compressed
//! arrays, which BOLT 7 forbids, are refused without inflating them.

use core::ops::BitOr;

use crate::codec::{DecodeError, Reader, Writer};
use crate::field::{Field, TlvValue, message, read_elements};
use crate::units::{BlockHeight, ChainHash, Scid};

/// Reads an array's encoding type, of which only "uncompressed" is allowed.
fn read_encoding(reader: &mut Reader<'_>) -> Result<(), DecodeError> {
    let offset = reader.offset();
    match reader.u8()? {
        0 => Ok(()),
        1 => Err(DecodeError::CompressedArray { offset }),
        encoding => Err(DecodeError::UnknownArrayEncoding { offset, encoding }),
    }
}

/// `encoded_short_ids`: a length, the encoding type and the ids.
impl Field for Vec<Scid> {
    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let length = reader.u16()?;
        let mut array = reader.sub_reader(u64::from(length))?;
        read_encoding(&mut array)?;
        read_elements::<Scid, 8>(&mut array)
    }

    fn write(&self, writer: &mut Writer<'_>) {
        let length = u16::try_from(1 + self.len() * 8).expect("a message has room for 8,191 ids at most");
        writer.u16(length);
        writer.u8(0);
        self.iter().for_each(|scid| scid.write(writer));
    }
}

/// Checks that an optional array has as many elements as there are short channel ids.
fn check_count<T>(
    offset: usize,
    array: &'static str,
    elements: Option<&Vec<T>>,
    scids: &[Scid],
) -> Result<(), DecodeError> {
    match elements {
        Some(elements) if elements.len() != scids.len() => {
            Err(DecodeError::ArrayCount { offset, array, expected: scids.len(), actual: elements.len() })
        }
        _ => Ok(()),
    }
}

/// Which messages a querier asks for about one channel: the bits of `query_flag`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueryFlags(pub u64);

impl QueryFlags {
    /// The `channel_announcement`.
    pub const CHANNEL_ANNOUNCEMENT: QueryFlags = QueryFlags(1);
    /// The `channel_update` of `node_id_1`.
    pub const CHANNEL_UPDATE_1: QueryFlags = QueryFlags(1 << 1);
    /// The `channel_update` of `node_id_2`.
    pub const CHANNEL_UPDATE_2: QueryFlags = QueryFlags(1 << 2);
    /// The `node_announcement` of `node_id_1`.
    pub const NODE_ANNOUNCEMENT_1: QueryFlags = QueryFlags(1 << 3);
    /// The `node_announcement` of `node_id_2`.
    pub const NODE_ANNOUNCEMENT_2: QueryFlags = QueryFlags(1 << 4);
    /// Everything, which a query without flags asks for.
    pub const ALL: QueryFlags = QueryFlags(u64::MAX);

    /// Whether every bit of `flags` is set.
    #[must_use]
    pub const fn contains(self, flags: QueryFlags) -> bool {
        self.0 & flags.0 == flags.0
    }
}

impl BitOr for QueryFlags {
    type Output = QueryFlags;

    fn bitor(self, other: QueryFlags) -> QueryFlags {
        QueryFlags(self.0 | other.0)
    }
}

impl TlvValue for Vec<QueryFlags> {
    fn read_value(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        read_encoding(reader)?;
        let mut flags = Vec::with_capacity(reader.remaining());
        while !reader.is_empty() {
            flags.push(QueryFlags(reader.bigsize()?));
        }
        Ok(flags)
    }

    fn write_value(&self, writer: &mut Writer<'_>) {
        writer.u8(0);
        self.iter().for_each(|flags| writer.bigsize(flags.0));
    }
}

message! {
    /// Asks for the announcements and updates of some channels.
    QueryShortChannelIds = 261, "query_short_channel_ids" {
        /// The chain they are on.
        chain_hash: ChainHash,
        /// The channels.
        short_channel_ids: Vec<Scid>,
    }
    tlvs {
        /// The messages asked for, channel by channel; all of them without this record.
        1 => query_flags: Vec<QueryFlags>,
    }
    validate array_counts
}

impl QueryShortChannelIds {
    fn array_counts(&self, offset: usize) -> Result<(), DecodeError> {
        check_count(offset, "query flags", self.query_flags.as_ref(), &self.short_channel_ids)
    }
}

message! {
    /// Ends the answer to `query_short_channel_ids`.
    ReplyShortChannelIdsEnd = 262, "reply_short_channel_ids_end" {
        /// The chain.
        chain_hash: ChainHash,
        /// Whether the sender keeps up with the chain's channels.
        full_information: bool,
    }
    tlvs {}
}

/// Which arrays a querier asks for beside the ids of channels: the bits of `query_option_flags`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueryOption(pub u64);

impl QueryOption {
    /// The timestamps of the channels' updates.
    pub const TIMESTAMPS: QueryOption = QueryOption(1);
    /// The checksums of the channels' updates.
    pub const CHECKSUMS: QueryOption = QueryOption(1 << 1);

    /// Whether every bit of `options` is set.
    #[must_use]
    pub const fn contains(self, options: QueryOption) -> bool {
        self.0 & options.0 == options.0
    }
}

impl TlvValue for QueryOption {
    fn read_value(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        reader.bigsize().map(QueryOption)
    }

    fn write_value(&self, writer: &mut Writer<'_>) {
        writer.bigsize(self.0);
    }
}

message! {
    /// Asks for the channels funded in a range of blocks.
    QueryChannelRange = 263, "query_channel_range" {
        /// The chain.
        chain_hash: ChainHash,
        /// The first block.
        first_blocknum: BlockHeight,
        /// How many blocks.
        number_of_blocks: u32,
    }
    tlvs {
        /// The arrays asked for beside the ids.
        1 => query_option: QueryOption,
    }
}

/// When the two nodes of a channel updated it last; zero when never.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChannelUpdateTimestamps {
    /// Of the update of `node_id_1`.
    pub timestamp_node_id_1: u32,
    /// Of the update of `node_id_2`.
    pub timestamp_node_id_2: u32,
}

impl Field for ChannelUpdateTimestamps {
    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(ChannelUpdateTimestamps { timestamp_node_id_1: reader.u32()?, timestamp_node_id_2: reader.u32()? })
    }

    fn write(&self, writer: &mut Writer<'_>) {
        writer.u32(self.timestamp_node_id_1);
        writer.u32(self.timestamp_node_id_2);
    }
}

impl TlvValue for Vec<ChannelUpdateTimestamps> {
    fn read_value(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        read_encoding(reader)?;
        read_elements::<ChannelUpdateTimestamps, 8>(reader)
    }

    fn write_value(&self, writer: &mut Writer<'_>) {
        writer.u8(0);
        self.iter().for_each(|timestamps| timestamps.write(writer));
    }
}

/// CRC32C of a channel's two updates without signature and timestamp; zero when there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChannelUpdateChecksums {
    /// Of the update of `node_id_1`.
    pub checksum_node_id_1: u32,
    /// Of the update of `node_id_2`.
    pub checksum_node_id_2: u32,
}

impl Field for ChannelUpdateChecksums {
    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(ChannelUpdateChecksums { checksum_node_id_1: reader.u32()?, checksum_node_id_2: reader.u32()? })
    }

    fn write(&self, writer: &mut Writer<'_>) {
        writer.u32(self.checksum_node_id_1);
        writer.u32(self.checksum_node_id_2);
    }
}

impl TlvValue for Vec<ChannelUpdateChecksums> {
    fn read_value(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        read_elements::<ChannelUpdateChecksums, 8>(reader)
    }

    fn write_value(&self, writer: &mut Writer<'_>) {
        self.iter().for_each(|checksums| checksums.write(writer));
    }
}

message! {
    /// Answers `query_channel_range`, in full or for some of its blocks.
    ReplyChannelRange = 264, "reply_channel_range" {
        /// The chain.
        chain_hash: ChainHash,
        /// The first block this answer is about.
        first_blocknum: BlockHeight,
        /// How many blocks it is about.
        number_of_blocks: u32,
        /// Whether this is the last answer.
        sync_complete: bool,
        /// The channels.
        short_channel_ids: Vec<Scid>,
    }
    tlvs {
        /// When each channel was updated.
        1 => timestamps: Vec<ChannelUpdateTimestamps>,
        /// A checksum of each channel's updates.
        3 => checksums: Vec<ChannelUpdateChecksums>,
    }
    validate array_counts
}

impl ReplyChannelRange {
    fn array_counts(&self, offset: usize) -> Result<(), DecodeError> {
        check_count(offset, "timestamps", self.timestamps.as_ref(), &self.short_channel_ids)?;
        check_count(offset, "checksums", self.checksums.as_ref(), &self.short_channel_ids)
    }
}

message! {
    /// Asks for announcements of a span of time from now on.
    GossipTimestampFilter = 265, "gossip_timestamp_filter" {
        /// The chain.
        chain_hash: ChainHash,
        /// The lowest timestamp.
        first_timestamp: u32,
        /// How many seconds from there.
        timestamp_range: u32,
    }
    tlvs {}
}
