//! The messages of BOLT 1, 2 and 7, and [`Message`], any one of them.
//!
//! Owns: the message types and their numbers. Each message is a struct with the fields of its BOLT, by their names;
//! known TLV records are optional fields, unknown odd ones are kept in `unknown`, and the bytes after the fields of a
//! signed announcement in `extension`. Does not know in which order messages may come.
//!
//! Invariant: [`Message::encode`] returns exactly the bytes that [`Message::decode`] accepted.

mod channel;
mod gossip;
mod queries;
mod setup;

pub use channel::{
    ATTRIBUTION_HMACS, ATTRIBUTION_HOPS, AcceptChannel, AttributionData, ChannelReady, ChannelReestablish,
    ClosingSigned, CommitmentSigned, FeeRange, FundingCreated, FundingRetransmission, FundingSigned,
    OpenChannel, RevokeAndAck, Shutdown, UpdateAddHtlc, UpdateFailHtlc, UpdateFailMalformedHtlc, UpdateFee,
    UpdateFulfillHtlc,
};
pub use gossip::{
    AnnouncementSignatures, ChannelAnnouncement, ChannelUpdate, Direction, NodeAnnouncement, signed_region,
};
pub use queries::{
    ChannelUpdateChecksums, ChannelUpdateTimestamps, GossipTimestampFilter, QueryChannelRange, QueryFlags,
    QueryOption, QueryShortChannelIds, ReplyChannelRange, ReplyShortChannelIdsEnd,
};
pub use setup::{ErrorMessage, Init, Ping, Pong, TEXT_MAX_BYTES, Warning};

use crate::codec::{DecodeError, MESSAGE_MAX_BYTES, Reader, Writer};
use crate::field::Payload;
use crate::units::ChannelId;

/// Declares [`Message`] and the functions that treat every variant alike.
macro_rules! messages {
    ($($name:ident)*) => {
        /// A message of any type.
        ///
        /// ```
        /// use fulmen_wire::codec::DecodeError;
        /// use fulmen_wire::message::Message;
        ///
        /// // An unknown odd type is kept, an unknown even one refused (BOLT 1).
        /// let odd = Message::decode(&[0x7f, 0xff, 1, 2]);
        /// assert_eq!(odd, Ok(Message::Unknown { message_type: 0x7fff, bytes: vec![1, 2] }));
        /// let even = Message::decode(&[0x7f, 0xfe]);
        /// assert_eq!(even, Err(DecodeError::UnknownEvenMessage { message_type: 0x7ffe }));
        /// ```
        #[derive(Clone, Debug, PartialEq, Eq)]
        #[non_exhaustive]
        pub enum Message {
            $(#[doc = concat!("[`", stringify!($name), "`]")] $name($name),)*
            /// A message of an odd type that is not known here: to be ignored.
            Unknown {
                /// Its type, which is odd.
                message_type: u16,
                /// Everything behind its type.
                bytes: Vec<u8>,
            },
        }

        impl Message {
            /// The message's type.
            #[must_use]
            pub const fn type_number(&self) -> u16 {
                match self {
                    $(Message::$name(_) => $name::TYPE,)*
                    Message::Unknown { message_type, .. } => *message_type,
                }
            }

            /// The message's name in the BOLTs; "unknown" when it has none here.
            #[must_use]
            pub const fn name(&self) -> &'static str {
                match self {
                    $(Message::$name(_) => $name::NAME,)*
                    Message::Unknown { .. } => "unknown",
                }
            }

            fn write_payload(&self, writer: &mut Writer<'_>) {
                match self {
                    $(Message::$name(message) => message.write_payload(writer),)*
                    Message::Unknown { bytes, .. } => writer.bytes(bytes),
                }
            }

            fn read_payload(message_type: u16, reader: &mut Reader<'_>) -> Result<Message, DecodeError> {
                match message_type {
                    $($name::TYPE => $name::read_payload(reader).map(Message::$name),)*
                    _ if message_type.is_multiple_of(2) => Err(DecodeError::UnknownEvenMessage { message_type }),
                    _ => Ok(Message::Unknown { message_type, bytes: reader.take_rest().to_vec() }),
                }
            }
        }

        $(impl From<$name> for Message {
            fn from(message: $name) -> Message {
                Message::$name(message)
            }
        })*

        #[cfg(test)]
        impl crate::sample::Described for Message {
            fn layout(&self) -> crate::sample::Layout {
                match self {
                    $(Message::$name(message) => message.layout(),)*
                    Message::Unknown { .. } => crate::sample::Layout { fields: Vec::new(), tlvs: Vec::new() },
                }
            }
        }

        #[cfg(test)]
        impl crate::sample::Sample for Message {
            fn sample(sampler: &mut crate::sample::Sampler) -> Message {
                use crate::sample::Sample;
                let samplers: &[fn(&mut crate::sample::Sampler) -> Message] =
                    &[$(|sampler| Message::$name(Sample::sample(sampler)),)* |sampler| Message::Unknown {
                        message_type: u16::sample(sampler) | 0x4001,
                        bytes: Sample::sample(sampler),
                    }];
                samplers[sampler.below(samplers.len())](sampler)
            }
        }
    };
}

messages! {
    Warning Init ErrorMessage Ping Pong
    OpenChannel AcceptChannel FundingCreated FundingSigned ChannelReady Shutdown ClosingSigned
    UpdateAddHtlc UpdateFulfillHtlc UpdateFailHtlc CommitmentSigned RevokeAndAck UpdateFee
    UpdateFailMalformedHtlc ChannelReestablish
    ChannelAnnouncement NodeAnnouncement ChannelUpdate AnnouncementSignatures
    QueryShortChannelIds ReplyShortChannelIdsEnd QueryChannelRange ReplyChannelRange GossipTimestampFilter
}

impl Message {
    /// Decodes one whole message: its two-byte type and everything after it.
    ///
    /// # Errors
    /// A [`DecodeError`] with the offset of the field that is malformed, cut short or left over. Unknown odd types and
    /// TLV records are no errors.
    pub fn decode(bytes: &[u8]) -> Result<Message, DecodeError> {
        if bytes.len() > MESSAGE_MAX_BYTES {
            return Err(DecodeError::MessageTooLong { length: bytes.len() });
        }
        let mut reader = Reader::new(bytes);
        let message_type = reader.u16()?;
        let message = Message::read_payload(message_type, &mut reader)?;
        reader.finish()?;
        Ok(message)
    }

    /// The message as bytes, from its type on.
    ///
    /// # Panics
    ///
    /// When it is longer than 65,535 bytes, which no decoded message is.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        // Enough for the frequent long messages, so that their buffers are not moved while they grow.
        let room = match self {
            Message::UpdateAddHtlc(_) => 1_536,
            Message::CommitmentSigned(message) => 128 + 64 * message.htlc_signatures.len(),
            _ => 256,
        };
        let mut bytes = Vec::with_capacity(room);
        self.encode_into(&mut bytes);
        bytes
    }

    /// Appends the message to `out`, so that a buffer can be used again. Panics as [`Message::encode`] does.
    pub fn encode_into(&self, out: &mut Vec<u8>) {
        let start = out.len();
        let mut writer = Writer::new(out);
        writer.u16(self.type_number());
        self.write_payload(&mut writer);
        let length = out.len() - start;
        assert!(length <= MESSAGE_MAX_BYTES, "{} of {length} bytes", self.name());
    }

    /// The channel a message is about, by its temporary id while it has no other. `None` for messages that are not
    /// about a channel with the peer.
    #[must_use]
    pub const fn channel_id(&self) -> Option<ChannelId> {
        Some(match self {
            Message::Warning(message) => message.channel_id,
            Message::ErrorMessage(message) => message.channel_id,
            Message::OpenChannel(message) => message.temporary_channel_id,
            Message::AcceptChannel(message) => message.temporary_channel_id,
            Message::FundingCreated(message) => message.temporary_channel_id,
            Message::FundingSigned(message) => message.channel_id,
            Message::ChannelReady(message) => message.channel_id,
            Message::Shutdown(message) => message.channel_id,
            Message::ClosingSigned(message) => message.channel_id,
            Message::UpdateAddHtlc(message) => message.channel_id,
            Message::UpdateFulfillHtlc(message) => message.channel_id,
            Message::UpdateFailHtlc(message) => message.channel_id,
            Message::UpdateFailMalformedHtlc(message) => message.channel_id,
            Message::CommitmentSigned(message) => message.channel_id,
            Message::RevokeAndAck(message) => message.channel_id,
            Message::UpdateFee(message) => message.channel_id,
            Message::ChannelReestablish(message) => message.channel_id,
            Message::AnnouncementSignatures(message) => message.channel_id,
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests;
