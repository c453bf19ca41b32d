//! The byte form of records.
//!
//! Owns: how a [`Record`], each [`Change`] and its fields are written; `FORMAT.md` says it in words. Does not store
//! anything, and adds no checksum: the store does.
//!
//! Budget: a forwarded HTLC takes at most 2 kB over its whole life where commitments are shared by many, its onion of
//! 1,366 bytes included; the test `bytes_of_a_forward` counts them.
//!
//! Invariant: tags are never used again for something else, and a field is only ever added under a new tag.

use std::collections::BTreeMap;

use super::change::{Change, Record};
use super::channels::{Policies, PreviousPolicy};
use crate::channel::{Delta, Side};
use crate::durable::{Decoder, Durable, Encoder, RecordError, durable_enum, durable_struct};
use crate::forward::terms::circuit::{Circuit, CircuitStage, Forward, Offer, Origin, Resolution};
use crate::forward::terms::config::{ForwardingPolicy, InboundFee};
use crate::forward::terms::ids::{IncomingHtlc, OutgoingHtlc};
use crate::forward::terms::input::ExpectedPayment;
use crate::forward::terms::time::Now;

/// The version of records, their first byte.
const RECORD_VERSION: u8 = 1;

impl Record {
    /// Appends the record's byte form to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        // Some seven changes and 1.8 kB make a forward.
        out.reserve(256 * self.changes.len());
        let mut out = Encoder::new(out, RECORD_VERSION);
        for (change, is_derived) in self.changes.iter().zip(self.derived_onions()) {
            out.omit_onions(is_derived);
            change.write(&mut out);
        }
    }

    /// Of each change whether it adds an HTLC whose onion follows from that of a received one, which this shard or the
    /// one that handed it over has stored: an onion is stored once.
    fn derived_onions(&self) -> Vec<bool> {
        let mut forwards = BTreeMap::new();
        let mut derived = vec![false; self.changes.len()];
        for (change, is_derived) in self.changes.iter().zip(&mut derived).rev() {
            match change {
                Change::Offered { outgoing, origin } => {
                    forwards.insert(*outgoing, !matches!(origin, Origin::Attempt { .. }));
                }
                // An id dropped in this turn may be used again: the offer that follows the addition is its own.
                Change::Channel { channel_id, delta: Delta::Added { by: Side::Local, htlc, .. } } => {
                    let outgoing = OutgoingHtlc { channel_id: *channel_id, htlc_id: htlc.id };
                    *is_derived = forwards.remove(&outgoing).unwrap_or(false);
                }
                _ => {}
            }
        }
        derived
    }

    /// Reads the bytes of [`Record::encode`]. A channel's error comes back as
    /// [`ChannelError::Recorded`](crate::channel::ChannelError::Recorded), an onion that follows from that of a
    /// received HTLC as `None`, all else as it was.
    ///
    /// # Errors
    /// When the bytes are not a whole record of a known version.
    pub fn decode(bytes: &[u8]) -> Result<Record, RecordError> {
        let mut input = Decoder::new(bytes, "record", RECORD_VERSION)?;
        let mut changes = Vec::new();
        while !input.is_empty() {
            changes.push(Change::read(&mut input)?);
        }
        Ok(Record { changes })
    }
}

durable_enum!(Change, "change" {
    0 => Height(height),
    1 => ChannelBegun { channel_id, peer, user_id, key_index, policy },
    2 => Channel { channel_id, delta },
    3 => ChannelNamed { temporary_channel_id, channel_id },
    4 => ChannelReady { channel_id, scid },
    5 => ChannelForgotten { channel_id },
    6 => Policy { channel_id, policy, previous_until },
    7 => PaymentExpected(payment),
    8 => ExpectedPaymentsPruned(now),
    9 => OnionSeen { tag, htlc, cltv_expiry },
    10 => CircuitOpened { incoming, circuit },
    11 => PartHeld { payment_hash, incoming, total, deadline },
    12 => SetClosed { payment_hash, paid },
    13 => Offered { outgoing, origin },
    14 => OfferEnded { outgoing },
    15 => Resolved { incoming, resolution },
    16 => HandoffResolved { incoming, resolution },
    17 => HandoffAcked { incoming },
    18 => CircuitClosed { incoming },
    19 => HandoffAccepted { incoming },
    20 => FundingConfirmed { channel_id },
    21 => StateDoubted { channel_id },
    22 => DoubtEnded { channel_id },
    23 => AliasReceived { channel_id, alias },
    24 => AnnouncementSigned { channel_id, signatures },
    25 => ChannelUpdated { channel_id, update },
    26 => PeerPolicy { channel_id, policy },
    27 => NodeAnnounced(announcement),
});

durable_enum!(CircuitStage, "stage of a circuit" {
    0 => Held { amt_to_forward },
    1 => Offered { outgoing },
    2 => HandedOff(offer),
    3 => Resolved(resolution),
    4 => Intercepted(offer),
    5 => PartHandedOff,
});

durable_enum!(Origin, "origin" {
    0 => Attempt { attempt_id },
    1 => Forward(forward),
    2 => Handoff(forward),
});

durable_enum!(Resolution, "resolution" {
    0 => Fulfill(preimage),
    1 => Relay(reason),
    2 => Fail(failure),
    3 => Malformed { failure_code, sha256_of_onion },
});

durable_struct! {
    Circuit { amount, cltv_expiry, payment_hash, shared_secret, stage }
    Forward { incoming, incoming_amount, outgoing_amount, received_at }
    IncomingHtlc { channel_id, htlc_id }
    OutgoingHtlc { channel_id, htlc_id }
    Offer { scid, incoming_amount, inbound_fee, incoming_cltv_expiry, amount, cltv_expiry, received_at, payment_hash }
    ExpectedPayment { payment_hash, preimage, payment_secret, amount, min_final_cltv_expiry_delta, expires_at_unix_ms }
    InboundFee { base_msat, proportional_millionths }
    Now { unix_ms }
    Policies { current, previous }
    PreviousPolicy { policy, until }
    ForwardingPolicy {
        fee_base, fee_proportional_millionths, cltv_expiry_delta, htlc_minimum, htlc_maximum, disabled, inbound_fee,
    }
}
