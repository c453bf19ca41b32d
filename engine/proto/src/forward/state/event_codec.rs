//! The byte form of durable events: those that report a change of money or of a channel.
//!
//! Owns the choice of durable events and their bytes. Does not store them, nor number or acknowledge them: the runtime
//! does, in the record of the turn that gave the event.
//!
//! Invariant: tags are never used again for something else. An error comes back as its text and its consequence.

use crate::channel::ChannelError;
use crate::durable::{Decoder, Durable, Encoder, RecordError};
use crate::forward::terms::error::LocalFailure;
use crate::forward::turn::output::{Event, FailureReason};

/// The version of events, their first byte.
const EVENT_VERSION: u8 = 1;

impl Event {
    /// Whether the event reports a change of money or of a channel that its record makes permanent. The others are
    /// requests that the shard repeats, answers to a command, refusals without effect, and messages for others.
    #[must_use]
    pub const fn is_durable(&self) -> bool {
        match self {
            Event::ChannelFunded { .. }
            | Event::ChannelReady { .. }
            | Event::ChannelClosed { .. }
            | Event::ChannelFailed { .. }
            | Event::HtlcSettled { .. }
            | Event::HtlcFailed { .. }
            | Event::PaymentReceived { .. }
            | Event::Forwarded { .. }
            | Event::ForwardFailed { .. } => true,
            Event::FundingNeeded { .. }
            | Event::HtlcIntercepted { .. }
            | Event::HtlcRefused { .. }
            | Event::CommandRefused { .. }
            | Event::PeerWarning { .. }
            | Event::OwnGossip { .. }
            | Event::Gossip { .. } => false,
        }
    }

    /// Appends the byte form of a durable event to `out`; nothing for any other.
    pub fn encode(&self, out: &mut Vec<u8>) {
        if !self.is_durable() {
            return;
        }
        let out = &mut Encoder::new(out, EVENT_VERSION);
        match self {
            Event::ChannelFunded { channel_id, user_id, peer, funding_outpoint } => {
                fields(out, 1, &[channel_id, user_id, peer, funding_outpoint]);
            }
            Event::ChannelReady { channel_id, scid, peer } => fields(out, 2, &[channel_id, scid, peer]),
            Event::ChannelClosed { channel_id, transaction } => fields(out, 3, &[channel_id, transaction]),
            Event::ChannelFailed { channel_id, peer, error, broadcast_allowed } => {
                fields(out, 4, &[channel_id, peer, &**error, broadcast_allowed]);
            }
            Event::HtlcSettled { attempt_id, preimage } => fields(out, 5, &[attempt_id, preimage]),
            Event::HtlcFailed { attempt_id, reason } => fields(out, 6, &[attempt_id, reason]),
            Event::PaymentReceived { payment_hash, amount, parts } => {
                fields(out, 7, &[payment_hash, amount, &(*parts as u64)]);
            }
            Event::Forwarded {
                incoming_channel_id: from,
                outgoing_channel_id: to,
                incoming_amount,
                outgoing_amount,
                fee,
                hold_ms,
            } => fields(out, 8, &[from, to, incoming_amount, outgoing_amount, fee, hold_ms]),
            Event::ForwardFailed {
                incoming_channel_id: from,
                outgoing_channel_id: to,
                outgoing_amount,
                hold_ms,
            } => fields(out, 9, &[from, to, outgoing_amount, hold_ms]),
            _ => debug_assert!(false, "all durable events are above"),
        }
    }

    /// Reads the bytes of [`Event::encode`].
    ///
    /// # Errors
    /// When they are damaged, or of an unknown version.
    pub fn decode(bytes: &[u8]) -> Result<Event, RecordError> {
        let input = &mut Decoder::new(bytes, "an event", EVENT_VERSION)?;
        let event = decode_fields(input)?;
        if input.is_empty() { Ok(event) } else { Err(input.inconsistent("bytes behind an event")) }
    }
}

fn decode_fields(input: &mut Decoder<'_>) -> Result<Event, RecordError> {
    Ok(match input.tag()? {
        (_, 1) => Event::ChannelFunded {
            channel_id: Durable::read(input)?,
            user_id: Durable::read(input)?,
            peer: Durable::read(input)?,
            funding_outpoint: Durable::read(input)?,
        },
        (_, 2) => Event::ChannelReady {
            channel_id: Durable::read(input)?,
            scid: Durable::read(input)?,
            peer: Durable::read(input)?,
        },
        (_, 3) => {
            Event::ChannelClosed { channel_id: Durable::read(input)?, transaction: Durable::read(input)? }
        }
        (_, 4) => Event::ChannelFailed {
            channel_id: Durable::read(input)?,
            peer: Durable::read(input)?,
            error: Box::new(ChannelError::read(input)?),
            broadcast_allowed: Durable::read(input)?,
        },
        (_, 5) => Event::HtlcSettled { attempt_id: Durable::read(input)?, preimage: Durable::read(input)? },
        (_, 6) => Event::HtlcFailed { attempt_id: Durable::read(input)?, reason: Durable::read(input)? },
        (_, 7) => Event::PaymentReceived {
            payment_hash: Durable::read(input)?,
            amount: Durable::read(input)?,
            parts: usize::try_from(u64::read(input)?).unwrap_or(usize::MAX),
        },
        (_, 8) => Event::Forwarded {
            incoming_channel_id: Durable::read(input)?,
            outgoing_channel_id: Durable::read(input)?,
            incoming_amount: Durable::read(input)?,
            outgoing_amount: Durable::read(input)?,
            fee: Durable::read(input)?,
            hold_ms: Durable::read(input)?,
        },
        (_, 9) => Event::ForwardFailed {
            incoming_channel_id: Durable::read(input)?,
            outgoing_channel_id: Durable::read(input)?,
            outgoing_amount: Durable::read(input)?,
            hold_ms: Durable::read(input)?,
        },
        (offset, tag) => return Err(RecordError::UnknownTag { offset, what: "event", tag }),
    })
}

/// A field to write, whatever its type.
trait Field {
    fn write_field(&self, out: &mut Encoder<'_>);
}

impl<T: Durable> Field for T {
    fn write_field(&self, out: &mut Encoder<'_>) {
        self.write(out);
    }
}

fn fields(out: &mut Encoder<'_>, tag: u8, fields: &[&dyn Field]) {
    out.raw().u8(tag);
    fields.iter().for_each(|field| field.write_field(out));
}

/// A failure of our own is kept as its text.
impl Durable for FailureReason {
    fn write(&self, out: &mut Encoder<'_>) {
        match self {
            FailureReason::Remote { packet } => {
                out.raw().u8(1);
                out.bytes(packet);
            }
            FailureReason::Malformed { failure_code } => {
                out.raw().u8(2);
                failure_code.write(out);
            }
            FailureReason::Local(failure) => {
                out.raw().u8(3);
                failure.to_string().write(out);
            }
        }
    }

    fn read(input: &mut Decoder<'_>) -> Result<Self, RecordError> {
        match input.tag()? {
            (_, 1) => Ok(FailureReason::Remote { packet: input.bytes()?.to_vec() }),
            (_, 2) => Ok(FailureReason::Malformed { failure_code: Durable::read(input)? }),
            (_, 3) => Ok(FailureReason::Local(LocalFailure::Recorded { text: Durable::read(input)? })),
            (offset, tag) => Err(RecordError::UnknownTag { offset, what: "failure reason", tag }),
        }
    }

    #[cfg(test)]
    fn sample(sampler: &mut crate::durable::sample::Sampler) -> Self {
        match sampler.below(3) {
            0 => FailureReason::Remote { packet: sampler.array::<40>().to_vec() },
            1 => FailureReason::Malformed { failure_code: Durable::sample(sampler) },
            _ => FailureReason::Local(LocalFailure::Recorded { text: Durable::sample(sampler) }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::durable::sample::Sampler;

    fn encoded(event: &Event) -> Vec<u8> {
        let mut bytes = Vec::new();
        event.encode(&mut bytes);
        bytes
    }

    fn samples(sampler: &mut Sampler) -> [Event; 9] {
        [
            Event::ChannelFunded {
                channel_id: Durable::sample(sampler),
                user_id: Durable::sample(sampler),
                peer: Durable::sample(sampler),
                funding_outpoint: Durable::sample(sampler),
            },
            Event::ChannelReady {
                channel_id: Durable::sample(sampler),
                scid: Durable::sample(sampler),
                peer: Durable::sample(sampler),
            },
            Event::ChannelClosed {
                channel_id: Durable::sample(sampler),
                transaction: Durable::sample(sampler),
            },
            Event::ChannelFailed {
                channel_id: Durable::sample(sampler),
                peer: Durable::sample(sampler),
                error: Box::new(ChannelError::sample(sampler)),
                broadcast_allowed: Durable::sample(sampler),
            },
            Event::HtlcSettled { attempt_id: Durable::sample(sampler), preimage: Durable::sample(sampler) },
            Event::HtlcFailed { attempt_id: Durable::sample(sampler), reason: Durable::sample(sampler) },
            Event::PaymentReceived {
                payment_hash: Durable::sample(sampler),
                amount: Durable::sample(sampler),
                parts: 3,
            },
            Event::Forwarded {
                incoming_channel_id: Durable::sample(sampler),
                outgoing_channel_id: Durable::sample(sampler),
                incoming_amount: Durable::sample(sampler),
                outgoing_amount: Durable::sample(sampler),
                fee: Durable::sample(sampler),
                hold_ms: Durable::sample(sampler),
            },
            Event::ForwardFailed {
                incoming_channel_id: Durable::sample(sampler),
                outgoing_channel_id: Durable::sample(sampler),
                outgoing_amount: Durable::sample(sampler),
                hold_ms: Durable::sample(sampler),
            },
        ]
    }

    #[test]
    fn every_durable_event_comes_back_and_no_prefix_of_it_does() {
        let mut sampler = Sampler::new(7);
        for _ in 0..20 {
            for event in samples(&mut sampler) {
                let bytes = encoded(&event);
                assert_eq!(Event::decode(&bytes).unwrap(), event);
                for length in 0..bytes.len() {
                    assert!(Event::decode(&bytes[..length]).is_err(), "{event:?} cut to {length}");
                }
                let longer = [bytes.as_slice(), &[0]].concat();
                assert!(Event::decode(&longer).is_err(), "{event:?} and a byte");
            }
        }
    }

    #[test]
    fn an_event_without_lasting_effect_has_no_bytes() {
        let warning = Event::PeerWarning { peer: Durable::sample(&mut Sampler::new(1)), text: String::new() };
        assert!(!warning.is_durable());
        assert!(encoded(&warning).is_empty());
    }
}
