//! The byte form of a channel's deltas.
//!
//! Owns: the encoding of each [`Delta`] and its fields; `FORMAT.md` describes the bytes. Does not fold anything.
//!
//! Invariant: tags are never used again for something else, and a field is only ever added under a new tag.

use fulmen_wire::message::TEXT_MAX_BYTES;

use super::config::{ChannelConfig, NegotiatedFeatures, PeerLimits};
use super::delta::Delta;
use super::error::ChannelError;
use super::htlc::{Htlc, Removal, Side, Stage, UpdateOrder};
#[cfg(test)]
use crate::durable::sample::Sampler;
use crate::durable::{Decoder, Durable, Encoder, RecordError, durable_enum, durable_struct};

durable_enum!(Delta, "delta" {
    0 => Opened { config, features, open },
    1 => Accepted { config, features, open, accept },
    2 => AcceptReceived { accept },
    3 => FundingCreatedSent { transaction, output },
    4 => FundingCreatedReceived { outpoint, signature },
    5 => FundingSignedReceived { signature },
    6 => FundingLocked { scid },
    7 => ChannelReadyReceived { second_per_commitment_point },
    8 => Added { by, htlc, over_dust_exposure },
    9 => Removed { by, id, removal },
    10 => FeeUpdated { feerate },
    11 => CommitmentSent,
    12 => CommitmentReceived { signature, htlc_signatures },
    13 => RevocationReceived { per_commitment_secret, next_per_commitment_point },
    14 => ShutdownWanted { scriptpubkey },
    15 => Shutdown { by, scriptpubkey },
    16 => ClosingOffered { fee, range },
    17 => ClosingReceived { fee },
    18 => ClosingAgreed { fee, transaction },
    19 => AdditionsDropped,
    20 => Disconnected,
    21 => Connected,
    22 => Reestablished,
    23 => Failed { error },
    24 => FeaturesChanged { features },
    25 => FundingUnlocked,
});

durable_enum!(Side, "side" {
    0 => Local,
    1 => Remote,
});

durable_enum!(Stage, "stage" {
    0 => Proposed,
    1 => InReceiver,
    2 => Acknowledged,
    3 => InSender,
    4 => Irrevocable,
});

durable_enum!(Removal, "removal" {
    0 => Fulfill(preimage),
    1 => Fail(reason),
    2 => FailMalformed { sha256_of_onion, failure_code },
});

durable_struct! {
    NegotiatedFeatures { large_channel, upfront_shutdown_script, shutdown_anysegwit }
    ChannelConfig {
        chain_hash, channel_type, announce_channel, dust_limit, max_htlc_value_in_flight,
        channel_reserve_millionths, htlc_minimum, to_self_delay, max_accepted_htlcs, minimum_depth,
        max_dust_htlc_exposure, shutdown_scriptpubkey, commit_shutdown_script, limits,
    }
    PeerLimits {
        funding_min, dust_limit_max, to_self_delay_max, channel_reserve_millionths_max, htlc_minimum_max,
        max_htlc_value_in_flight_min, max_accepted_htlcs_min, minimum_depth_max, feerate_min, feerate_max,
    }
}

impl Durable for UpdateOrder {
    fn write(&self, out: &mut Encoder<'_>) {
        self.0.write(out);
    }

    fn read(input: &mut Decoder<'_>) -> Result<Self, RecordError> {
        Durable::read(input).map(UpdateOrder)
    }

    #[cfg(test)]
    fn sample(sampler: &mut Sampler) -> Self {
        UpdateOrder(Durable::sample(sampler))
    }
}

impl Durable for Htlc {
    fn write(&self, out: &mut Encoder<'_>) {
        self.id.write(out);
        self.amount.write(out);
        self.payment_hash.write(out);
        self.cltv_expiry.write(out);
        match &self.onion_routing_packet {
            Some(onion) if !out.omits_onions() => {
                out.raw().u8(1);
                out.raw().bytes(onion.as_bytes());
            }
            _ => out.raw().u8(0),
        }
        self.path_key.write(out);
    }

    fn read(input: &mut Decoder<'_>) -> Result<Self, RecordError> {
        Ok(Htlc {
            // The largest id has none after it.
            id: input.number(u64::MAX - 1)?,
            amount: Durable::read(input)?,
            payment_hash: Durable::read(input)?,
            cltv_expiry: Durable::read(input)?,
            onion_routing_packet: Durable::read(input)?,
            path_key: Durable::read(input)?,
        })
    }

    #[cfg(test)]
    fn sample(sampler: &mut Sampler) -> Self {
        Htlc {
            id: sampler.number(u64::MAX - 1),
            amount: Durable::sample(sampler),
            payment_hash: Durable::sample(sampler),
            cltv_expiry: Durable::sample(sampler),
            onion_routing_packet: Durable::sample(sampler),
            path_key: Durable::sample(sampler),
        }
    }
}

/// A restart needs two things of an error: its text, at most [`TEXT_MAX_BYTES`] of it, and whether our commitment may
/// be broadcast.
impl Durable for ChannelError {
    fn write(&self, out: &mut Encoder<'_>) {
        match self {
            ChannelError::PeerError(text) => {
                out.raw().u8(0);
                stored_text(text).write(out);
            }
            other => {
                out.raw().u8(1);
                stored_text(&other.to_string()).write(out);
                other.broadcast_allowed().write(out);
            }
        }
    }

    fn read(input: &mut Decoder<'_>) -> Result<Self, RecordError> {
        match input.tag()? {
            (_, 0) => Durable::read(input).map(ChannelError::PeerError),
            (_, 1) => {
                let text = Durable::read(input)?;
                Ok(ChannelError::Recorded { text, broadcast_allowed: Durable::read(input)? })
            }
            (offset, tag) => Err(RecordError::UnknownTag { offset, what: "channel error", tag }),
        }
    }

    #[cfg(test)]
    fn sample(sampler: &mut Sampler) -> Self {
        let text = Durable::sample(sampler);
        if bool::sample(sampler) {
            ChannelError::PeerError(text)
        } else {
            ChannelError::Recorded { text, broadcast_allowed: Durable::sample(sampler) }
        }
    }
}

/// The text of an error as it is stored: whole characters, [`TEXT_MAX_BYTES`] at most. A peer can make an error quote
/// its script of 65 kB, and one message fail a thousand channels.
fn stored_text(text: &str) -> String {
    let ends = text.char_indices().map(|(at, character)| at + character.len_utf8());
    let end = ends.take_while(|end| *end <= TEXT_MAX_BYTES).last().unwrap_or(0);
    text[..end].to_owned()
}
