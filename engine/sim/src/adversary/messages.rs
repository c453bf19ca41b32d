//! Hostile messages: every kind of BOLT 1, 2 and 7, with fields at their extremes.
//!
//! Owns the draw of single messages. Which of them are well-formed, and in which order they come, is left to chance; a
//! liar that has to hold signed state (an HTLC irrevocably committed, say) is an engine behind a
//! [`Tampering`](super::tamper::Tampering) link instead.

use bitcoin::secp256k1::SecretKey;
use fulmen_proto::keys::secp;
use fulmen_wire::features::Features;
use fulmen_wire::message::{
    AcceptChannel, AnnouncementSignatures, ChannelReady, ChannelReestablish, ClosingSigned, CommitmentSigned,
    ErrorMessage, FundingCreated, FundingSigned, Message, OpenChannel, Ping, Pong, RevokeAndAck, Shutdown,
    UpdateAddHtlc, UpdateFailHtlc, UpdateFailMalformedHtlc, UpdateFee, UpdateFulfillHtlc, Warning,
};
use fulmen_wire::onion::{OnionPacket, PACKET_LENGTH};
use fulmen_wire::units::{
    BlockHeight, ChainHash, ChannelId, CltvDelta, FeeratePerKw, Msat, NodeId, PaymentHash, PaymentPreimage,
    Point, Sat, Scid, Signature, Txid,
};

use crate::draw::Draw;

/// The longest field of bytes that any of these messages has room for.
const FIELD_BYTES_MAX: u64 = 65_400;

/// The id of a node whose key nobody else has.
pub(super) fn stranger(number: u16) -> NodeId {
    NodeId(point(&[&[0xad; 30][..], &number.to_be_bytes()].concat()).0)
}

/// The id of a peer that signs for itself.
pub(super) fn signer(number: u16) -> NodeId {
    NodeId(point(&[&[0xac; 30][..], &number.to_be_bytes()].concat()).0)
}

/// A message of any kind about one of `channels`, about all, or about none that exists.
pub(super) fn hostile(draw: &mut Draw, channels: &[ChannelId]) -> Vec<u8> {
    if draw.percent(10) {
        let length = draw.pick(&[0, 1, 2, 34, 300, 65_535]);
        let mut bytes = draw.pick(&[17_u16, 32, 33, 128, 132, 136, 256, 258, 0x7fff]).to_be_bytes().to_vec();
        bytes.resize_with(length, || draw.between(0, 255) as u8);
        return bytes;
    }
    let channel_id = channel(draw, channels);
    let kind = draw.between(0, 18);
    let message =
        if kind < 7 { update(draw, kind, channel_id) } else { beside_updates(draw, kind, channel_id) };
    message.encode()
}

/// An update, its commitment or its revocation; `kind` below 7.
fn update(draw: &mut Draw, kind: u64, channel_id: ChannelId) -> Message {
    let unknown = Default::default();
    match kind {
        0 => UpdateAddHtlc {
            channel_id,
            id: number(draw),
            amount_msat: Msat(number(draw)),
            payment_hash: PaymentHash(draw.bytes()),
            cltv_expiry: BlockHeight(number(draw) as u32),
            onion_routing_packet: OnionPacket::from_bytes(Box::new(
                [draw.between(0, 255) as u8; PACKET_LENGTH],
            )),
            path_key: None,
            unknown,
        }
        .into(),
        1 => UpdateFulfillHtlc {
            channel_id,
            id: number(draw),
            payment_preimage: PaymentPreimage(draw.bytes()),
            attribution_data: None,
            unknown,
        }
        .into(),
        2 => {
            let reason = bytes(draw);
            UpdateFailHtlc { channel_id, id: number(draw), reason, attribution_data: None, unknown }.into()
        }
        3 => UpdateFailMalformedHtlc {
            channel_id,
            id: number(draw),
            sha256_of_onion: draw.bytes(),
            failure_code: draw.pick(&[0, 0x8000, 0xc004, 0xffff]),
            unknown,
        }
        .into(),
        4 => {
            let count = draw.pick(&[0, 1, 483, 1_000]);
            let htlc_signatures = vec![signature(draw); count];
            let signature = signature(draw);
            CommitmentSigned { channel_id, signature, htlc_signatures, funding_txid: None, unknown }.into()
        }
        5 => RevokeAndAck {
            channel_id,
            per_commitment_secret: draw.bytes(),
            next_per_commitment_point: any_point(draw),
            unknown,
        }
        .into(),
        _ => update_fee(channel_id, draw.pick(&[0, 252, 253, 5_000, 250_000, u32::MAX])).into(),
    }
}

/// A message of another kind, 7 and above.
fn beside_updates(draw: &mut Draw, kind: u64, channel_id: ChannelId) -> Message {
    let unknown = Default::default();
    match kind {
        7 => ChannelReestablish {
            channel_id,
            next_commitment_number: number(draw),
            next_revocation_number: number(draw),
            your_last_per_commitment_secret: draw.bytes(),
            my_current_per_commitment_point: any_point(draw),
            next_funding: None,
            my_current_funding_locked: None,
            unknown,
        }
        .into(),
        8 => Shutdown { channel_id, scriptpubkey: bytes(draw), unknown }.into(),
        9 => ClosingSigned {
            channel_id,
            fee_satoshis: Sat(number(draw)),
            signature: signature(draw),
            fee_range: None,
            unknown,
        }
        .into(),
        10 => ErrorMessage { channel_id, data: bytes(draw), unknown }.into(),
        11 => Warning { channel_id, data: bytes(draw), unknown }.into(),
        12 => ping(draw.pick(&[0, 1, 65_531, 65_535])).into(),
        13 => Pong { ignored: bytes(draw), unknown }.into(),
        14 => ChannelReady { channel_id, second_per_commitment_point: any_point(draw), alias: None, unknown }
            .into(),
        15 => FundingCreated {
            temporary_channel_id: channel_id,
            funding_txid: Txid(draw.bytes()),
            funding_output_index: draw.pick(&[0, 1, u16::MAX]),
            signature: signature(draw),
            unknown,
        }
        .into(),
        16 => FundingSigned { channel_id, signature: signature(draw), unknown }.into(),
        17 => AnnouncementSignatures {
            channel_id,
            short_channel_id: Scid(number(draw)),
            node_signature: signature(draw),
            bitcoin_signature: signature(draw),
            unknown,
        }
        .into(),
        _ => accept_channel(draw, channel_id).into(),
    }
}

/// An acceptable `open_channel` whose `channel_type` starts with `padding` zero bytes.
pub(super) fn open_channel(draw: &mut Draw, padding: u16) -> OpenChannel {
    let mut channel_type = vec![0; usize::from(padding)];
    channel_type.extend_from_slice(Features::channel_type_anchors().as_bytes());
    OpenChannel {
        chain_hash: ChainHash::REGTEST,
        temporary_channel_id: ChannelId(draw.bytes()),
        funding_satoshis: Sat(1_000_000),
        push_msat: Msat(0),
        dust_limit_satoshis: Sat(546),
        max_htlc_value_in_flight_msat: Msat(1_000_000_000),
        channel_reserve_satoshis: Sat(10_000),
        htlc_minimum_msat: Msat(1),
        feerate_per_kw: FeeratePerKw(253),
        to_self_delay: CltvDelta(144),
        max_accepted_htlcs: 483,
        funding_pubkey: any_point(draw),
        revocation_basepoint: any_point(draw),
        payment_basepoint: any_point(draw),
        delayed_payment_basepoint: any_point(draw),
        htlc_basepoint: any_point(draw),
        first_per_commitment_point: any_point(draw),
        channel_flags: 0,
        upfront_shutdown_script: Some(Vec::new()),
        channel_type: Some(Features::from_bytes(&channel_type)),
        unknown: Default::default(),
    }
}

pub(super) fn update_fee(channel_id: ChannelId, feerate: u32) -> UpdateFee {
    UpdateFee { channel_id, feerate_per_kw: FeeratePerKw(feerate), unknown: Default::default() }
}

pub(super) fn ping(num_pong_bytes: u16) -> Ping {
    Ping { num_pong_bytes, ignored: Vec::new(), unknown: Default::default() }
}

/// An `error` about a channel, or about all when the id is zero, with `text_bytes` of text.
pub(super) fn error(channel_id: ChannelId, text_bytes: u16) -> ErrorMessage {
    let data = vec![b'x'; usize::from(text_bytes).min(FIELD_BYTES_MAX as usize)];
    ErrorMessage { channel_id, data, unknown: Default::default() }
}

fn accept_channel(draw: &mut Draw, temporary_channel_id: ChannelId) -> AcceptChannel {
    AcceptChannel {
        temporary_channel_id,
        dust_limit_satoshis: Sat(number(draw)),
        max_htlc_value_in_flight_msat: Msat(number(draw)),
        channel_reserve_satoshis: Sat(number(draw)),
        htlc_minimum_msat: Msat(number(draw)),
        minimum_depth: number(draw) as u32,
        to_self_delay: CltvDelta(number(draw) as u16),
        max_accepted_htlcs: number(draw) as u16,
        funding_pubkey: any_point(draw),
        revocation_basepoint: any_point(draw),
        payment_basepoint: any_point(draw),
        delayed_payment_basepoint: any_point(draw),
        htlc_basepoint: any_point(draw),
        first_per_commitment_point: any_point(draw),
        upfront_shutdown_script: Some(vec![0; draw.pick(&[0, 1, 22, 34, 60_000])]),
        channel_type: Some(Features::channel_type_anchors()),
        unknown: Default::default(),
    }
}

fn channel(draw: &mut Draw, channels: &[ChannelId]) -> ChannelId {
    match draw.between(0, 9) {
        0 => ChannelId([0; 32]),
        1 => ChannelId(draw.bytes()),
        _ if channels.is_empty() => ChannelId(draw.bytes()),
        _ => draw.pick(channels),
    }
}

/// A number at one of the places where checks change their answer.
fn number(draw: &mut Draw) -> u64 {
    let near =
        draw.pick(&[0, 1, 483, 546, 100_000, 500_000_000, 1 << 48, 2_100_000_000_000_000_000, u64::MAX]);
    if draw.percent(30) { draw.between(0, 1_000) } else { near }
}

fn bytes(draw: &mut Draw) -> Vec<u8> {
    let length = draw.pick(&[0, 1, 22, 34, 292, 1_024, FIELD_BYTES_MAX]);
    vec![draw.between(0, 255) as u8; length as usize]
}

fn signature(draw: &mut Draw) -> Signature {
    let mut bytes = [0; 64];
    bytes[..32].copy_from_slice(&draw.bytes());
    bytes[32..].copy_from_slice(&draw.bytes());
    bytes[32] &= 0x7f;
    Signature(bytes)
}

/// Mostly a point on the curve, now and then bytes that only look like one.
fn any_point(draw: &mut Draw) -> Point {
    if draw.percent(5) {
        return Point([2; 33]);
    }
    point(&draw.bytes())
}

fn point(secret: &[u8]) -> Point {
    let secret = SecretKey::from_slice(secret).expect("no draw is zero or above the order");
    Point(secret.public_key(secp()).serialize())
}
