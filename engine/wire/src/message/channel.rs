//! The messages of BOLT 2: a channel's establishment (version 1), close and normal operation.
//!
//! Owns: their fields and bytes. Does not check their order or values; the channel does.
//!
//! Invariant: every combination of values here has an encoding.

use crate::codec::{DecodeError, Reader, Writer};
use crate::features::Features;
use crate::field::{Field, TlvValue, message};
use crate::onion::OnionPacket;
use crate::units::{
    BlockHeight, ChainHash, ChannelId, CltvDelta, FeeratePerKw, Msat, PaymentHash, PaymentPreimage, Point,
    Sat, Scid, Signature, Txid,
};

message! {
    /// Proposes a channel.
    OpenChannel = 32, "open_channel" {
        /// The chain to fund it on.
        chain_hash: ChainHash,
        /// Names the channel until it is funded.
        temporary_channel_id: ChannelId,
        /// The capacity of the channel, all of it paid by the sender.
        funding_satoshis: Sat,
        /// The receiver's first balance, given to it by the sender.
        push_msat: Msat,
        /// The smallest output of the sender's commitment transactions.
        dust_limit_satoshis: Sat,
        /// The largest sum of HTLCs the receiver may have offered at a time.
        max_htlc_value_in_flight_msat: Msat,
        /// The balance that the receiver must keep.
        channel_reserve_satoshis: Sat,
        /// The smallest HTLC the sender accepts.
        htlc_minimum_msat: Msat,
        /// The fee rate of the first commitments.
        feerate_per_kw: FeeratePerKw,
        /// The delay in blocks of the receiver's own outputs.
        to_self_delay: CltvDelta,
        /// The largest number of HTLCs the receiver may have offered at a time.
        max_accepted_htlcs: u16,
        /// The sender's key of the funding output.
        funding_pubkey: Point,
        /// For revocation keys.
        revocation_basepoint: Point,
        /// For the key of `to_remote`.
        payment_basepoint: Point,
        /// For keys of delayed outputs.
        delayed_payment_basepoint: Point,
        /// For keys of HTLC outputs.
        htlc_basepoint: Point,
        /// The per-commitment point of the sender's first commitment.
        first_per_commitment_point: Point,
        /// Bit 0: announce the channel.
        channel_flags: u8,
    }
    tlvs {
        /// The script a mutual close will pay the sender to; empty when it commits to none.
        0 => upfront_shutdown_script: Vec<u8>,
        /// The type of channel proposed.
        1 => channel_type: Features,
    }
}

impl OpenChannel {
    /// Whether the channel is to be announced to the network.
    #[must_use]
    pub const fn announce_channel(&self) -> bool {
        self.channel_flags & 1 != 0
    }
}

message! {
    /// Accepts a proposed channel.
    AcceptChannel = 33, "accept_channel" {
        /// The proposal it accepts.
        temporary_channel_id: ChannelId,
        /// The smallest output of the sender's commitment transactions.
        dust_limit_satoshis: Sat,
        /// The largest sum of HTLCs the receiver may have offered at a time.
        max_htlc_value_in_flight_msat: Msat,
        /// The balance that the receiver must keep.
        channel_reserve_satoshis: Sat,
        /// The smallest HTLC the sender accepts.
        htlc_minimum_msat: Msat,
        /// The confirmations after which the sender sends `channel_ready`.
        minimum_depth: u32,
        /// The delay in blocks of the receiver's own outputs.
        to_self_delay: CltvDelta,
        /// The largest number of HTLCs the receiver may have offered at a time.
        max_accepted_htlcs: u16,
        /// The sender's key of the funding output.
        funding_pubkey: Point,
        /// For revocation keys.
        revocation_basepoint: Point,
        /// For the key of `to_remote`.
        payment_basepoint: Point,
        /// For keys of delayed outputs.
        delayed_payment_basepoint: Point,
        /// For keys of HTLC outputs.
        htlc_basepoint: Point,
        /// The per-commitment point of the sender's first commitment.
        first_per_commitment_point: Point,
    }
    tlvs {
        /// The script a mutual close will pay the sender to; empty when it commits to none.
        0 => upfront_shutdown_script: Vec<u8>,
        /// The type of channel, which must be the one proposed.
        1 => channel_type: Features,
    }
}

message! {
    /// Names the funding transaction and signs the receiver's first commitment.
    FundingCreated = 34, "funding_created" {
        /// The channel.
        temporary_channel_id: ChannelId,
        /// The funding transaction.
        funding_txid: Txid,
        /// Its output that funds the channel.
        funding_output_index: u16,
        /// The signature for the receiver's first commitment.
        signature: Signature,
    }
    tlvs {}
}

message! {
    /// Signs the funder's first commitment.
    FundingSigned = 35, "funding_signed" {
        /// The channel, from here on by its final id.
        channel_id: ChannelId,
        /// The signature for the receiver's first commitment.
        signature: Signature,
    }
    tlvs {}
}

message! {
    /// The funding transaction is deep enough for the sender.
    ChannelReady = 36, "channel_ready" {
        /// The channel.
        channel_id: ChannelId,
        /// The per-commitment point of the sender's second commitment.
        second_per_commitment_point: Point,
    }
    tlvs {
        /// An id the receiver may use for the channel in routes to the sender.
        1 => alias: Scid,
    }
}

message! {
    /// Stops new HTLCs, and closes the channel once the pending ones are resolved.
    Shutdown = 38, "shutdown" {
        /// The channel.
        channel_id: ChannelId,
        /// The script to pay the sender to.
        scriptpubkey: Vec<u8>,
    }
    tlvs {}
}

/// The fees of a closing transaction its proposer would accept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FeeRange {
    /// The least.
    pub min_fee_satoshis: Sat,
    /// The most.
    pub max_fee_satoshis: Sat,
}

impl TlvValue for FeeRange {
    fn read_value(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(FeeRange { min_fee_satoshis: Field::read(reader)?, max_fee_satoshis: Field::read(reader)? })
    }

    fn write_value(&self, writer: &mut Writer<'_>) {
        self.min_fee_satoshis.write(writer);
        self.max_fee_satoshis.write(writer);
    }
}

message! {
    /// Proposes a fee for the closing transaction and signs it.
    ClosingSigned = 39, "closing_signed" {
        /// The channel.
        channel_id: ChannelId,
        /// The fee.
        fee_satoshis: Sat,
        /// The signature for the closing transaction with this fee.
        signature: Signature,
    }
    tlvs {
        /// The fees the sender would accept.
        1 => fee_range: FeeRange,
    }
}

message! {
    /// Offers an HTLC.
    UpdateAddHtlc = 128, "update_add_htlc" {
        /// The channel.
        channel_id: ChannelId,
        /// Counts the HTLCs the sender offered in this channel.
        id: u64,
        /// The amount.
        amount_msat: Msat,
        /// SHA-256 of the preimage.
        payment_hash: PaymentHash,
        /// The height from which the sender can reclaim the HTLC on chain.
        cltv_expiry: BlockHeight,
        /// The onion with the instructions for the receiver (BOLT 4).
        onion_routing_packet: OnionPacket,
    }
    tlvs {
        /// The point that unblinds the receiver's hop of a blinded path.
        0 => path_key: Point,
    }
}

/// How many hops attribution data covers (BOLT 4).
pub const ATTRIBUTION_HOPS: usize = 20;
/// How many truncated HMACs attribution data has: one for each hop and each place it may have.
pub const ATTRIBUTION_HMACS: usize = 210;

/// How long each hop held an HTLC, and the proof of who says so (BOLT 4 `attribution_data`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttributionData {
    /// For each hop, the time it held the HTLC.
    pub htlc_hold_times: [u32; ATTRIBUTION_HOPS],
    /// The first four bytes of each HMAC.
    pub truncated_hmacs: [[u8; 4]; ATTRIBUTION_HMACS],
}

impl TlvValue for Box<AttributionData> {
    fn read_value(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let mut data = Box::new(AttributionData {
            htlc_hold_times: [0; ATTRIBUTION_HOPS],
            truncated_hmacs: [[0; 4]; ATTRIBUTION_HMACS],
        });
        for time in &mut data.htlc_hold_times {
            *time = reader.u32()?;
        }
        for hmac in &mut data.truncated_hmacs {
            *hmac = reader.array()?;
        }
        Ok(data)
    }

    fn write_value(&self, writer: &mut Writer<'_>) {
        self.htlc_hold_times.iter().for_each(|time| writer.u32(*time));
        self.truncated_hmacs.iter().for_each(|hmac| writer.bytes(hmac));
    }
}

message! {
    /// Settles an HTLC the receiver offered.
    UpdateFulfillHtlc = 130, "update_fulfill_htlc" {
        /// The channel.
        channel_id: ChannelId,
        /// The HTLC.
        id: u64,
        /// The preimage of its payment hash.
        payment_preimage: PaymentPreimage,
    }
    tlvs {
        /// How long each hop held the HTLC.
        1 => attribution_data: Box<AttributionData>,
    }
}

message! {
    /// Fails an HTLC the receiver offered.
    UpdateFailHtlc = 131, "update_fail_htlc" {
        /// The channel.
        channel_id: ChannelId,
        /// The HTLC.
        id: u64,
        /// Why, encrypted for the sender of the payment (BOLT 4).
        reason: Vec<u8>,
    }
    tlvs {
        /// How long each hop held the HTLC.
        1 => attribution_data: Box<AttributionData>,
    }
}

message! {
    /// Fails an HTLC the receiver offered because its onion is not readable.
    UpdateFailMalformedHtlc = 135, "update_fail_malformed_htlc" {
        /// The channel.
        channel_id: ChannelId,
        /// The HTLC.
        id: u64,
        /// The hash of the onion as it arrived.
        sha256_of_onion: [u8; 32],
        /// Why: a code with the BADONION bit (BOLT 4).
        failure_code: u16,
    }
    tlvs {}
}

message! {
    /// Signs the receiver's next commitment, which contains all updates so far.
    CommitmentSigned = 132, "commitment_signed" {
        /// The channel.
        channel_id: ChannelId,
        /// The signature for the commitment transaction.
        signature: Signature,
        /// A signature for each HTLC transaction, in the order of the commitment's outputs.
        htlc_signatures: Vec<Signature>,
    }
    tlvs {
        /// The funding transaction the commitment spends, when there are several.
        1 => funding_txid: Txid,
    }
}

message! {
    /// Revokes the sender's previous commitment.
    RevokeAndAck = 133, "revoke_and_ack" {
        /// The channel.
        channel_id: ChannelId,
        /// The secret of the commitment it revokes.
        per_commitment_secret: [u8; 32],
        /// The point of the commitment after the next.
        next_per_commitment_point: Point,
    }
    tlvs {}
}

message! {
    /// Changes the commitments' fee rate.
    UpdateFee = 134, "update_fee" {
        /// The channel.
        channel_id: ChannelId,
        /// The new rate.
        feerate_per_kw: FeeratePerKw,
    }
    tlvs {}
}

/// A funding transaction, and which of its messages must be sent again after a reconnection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FundingRetransmission {
    /// The funding transaction.
    pub txid: Txid,
    /// Bit 0: the message that belongs to it (`commitment_signed` or `announcement_signatures`).
    pub retransmit_flags: u8,
}

impl TlvValue for FundingRetransmission {
    fn read_value(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(FundingRetransmission { txid: Field::read(reader)?, retransmit_flags: Field::read(reader)? })
    }

    fn write_value(&self, writer: &mut Writer<'_>) {
        self.txid.write(writer);
        self.retransmit_flags.write(writer);
    }
}

message! {
    /// The sender's state after a reconnection, so that both sides know which messages were lost.
    ChannelReestablish = 136, "channel_reestablish" {
        /// The channel.
        channel_id: ChannelId,
        /// The number of the next commitment the sender expects to be signed.
        next_commitment_number: u64,
        /// The number of the next commitment the sender expects to be revoked.
        next_revocation_number: u64,
        /// The last secret received; zero when there was none.
        your_last_per_commitment_secret: [u8; 32],
        /// The per-commitment point of the sender's current commitment.
        my_current_per_commitment_point: Point,
    }
    tlvs {
        /// A funding transaction that is signed only in part.
        1 => next_funding: FundingRetransmission,
        /// The funding transaction the sender locked last.
        5 => my_current_funding_locked: FundingRetransmission,
    }
}
