//! A payer's side of a payment: from a route to the onion of its first HTLC, and from a returned `reason` to the hop
//! that failed (BOLT 4, "Packet Construction", "Payload for the Last Node", "Origin node").
//!
//! Owns: which payload each hop of a route gets. Does not find routes, does not judge them, does not track attempts:
//! amounts and expiries are taken as given, so that a route which a hop must refuse can be built as well.
//!
//! Invariant: a hop is told the amount and expiry of the HTLC behind it exactly as the route states them; the last one
//! is told those of its own.

use fulmen_wire::onion::OnionPacket;
use fulmen_wire::units::{BlockHeight, Msat, NodeId, PaymentHash, PaymentPreimage, Scid};
use secp256k1::SecretKey;

use crate::onion::{
    self, FinalPayload, ForwardPayload, OnionBuildError, OnionHop, Payload, PaymentData, ReturnedFailure,
    SharedSecrets,
};

/// One channel of a route and the HTLC on it, in the order from payer to payee.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RouteHop {
    /// The node that receives the HTLC.
    pub node_id: NodeId,
    /// The channel the HTLC crosses.
    pub short_channel_id: Scid,
    /// The HTLC's `amount_msat`.
    pub amount: Msat,
    /// The HTLC's `cltv_expiry`.
    pub cltv_expiry: BlockHeight,
}

/// The fields of the payee's payload beyond the amount and expiry of its HTLC.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recipient {
    /// The `payment_data` that the invoice asks for: its secret, and the total over all parts.
    pub payment_data: Option<PaymentData>,
    /// The `payment_metadata` of the invoice.
    pub payment_metadata: Option<Vec<u8>>,
    /// The preimage itself, in a payment without an invoice.
    pub keysend_preimage: Option<PaymentPreimage>,
}

/// One part of a payment, ready to be offered to the first hop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutgoingPayment {
    /// The channel to offer the HTLC on.
    pub short_channel_id: Scid,
    /// The HTLC's hash.
    pub payment_hash: PaymentHash,
    /// The HTLC's amount.
    pub amount: Msat,
    /// The HTLC's expiry.
    pub cltv_expiry: BlockHeight,
    /// The HTLC's onion.
    pub packet: OnionPacket,
    /// The key to a failure that comes back.
    pub secrets: SharedSecrets,
}

impl OutgoingPayment {
    /// Builds the payloads and the onion of a route. `session_key` must be fresh and random for each call.
    ///
    /// # Errors
    /// When the route has no hops, too many for an onion, or a node id that is no point.
    pub fn new(
        session_key: &SecretKey,
        payment_hash: PaymentHash,
        route: &[RouteHop],
        recipient: &Recipient,
    ) -> Result<OutgoingPayment, OnionBuildError> {
        let first = route.first().ok_or(OnionBuildError::NoHops)?;
        let hops = onion_hops(route, recipient);
        let (packet, secrets) = onion::build(session_key, &hops, &payment_hash.0)?;
        Ok(OutgoingPayment {
            short_channel_id: first.short_channel_id,
            payment_hash,
            amount: first.amount,
            cltv_expiry: first.cltv_expiry,
            packet,
            secrets,
        })
    }

    /// Reads the `reason` of the `update_fail_htlc` that came back. A hop is given as its index in the route: the one
    /// at `hop` failed the HTLC of `route[hop]`, most often for the channel of `route[hop + 1]`.
    #[must_use]
    pub fn read_failure(&self, reason: &[u8]) -> ReturnedFailure {
        self.secrets.read_failure(reason)
    }
}

/// The bytes a route takes of the [`HOP_PAYLOADS_LENGTH`](fulmen_wire::onion::HOP_PAYLOADS_LENGTH) that an onion has
/// for payloads.
#[must_use]
pub fn onion_size(route: &[RouteHop], recipient: &Recipient) -> usize {
    onion::payload_size(&onion_hops(route, recipient))
}

fn onion_hops(route: &[RouteHop], recipient: &Recipient) -> Vec<OnionHop> {
    let payload = |index: usize, hop: &RouteHop| match route.get(index + 1) {
        Some(next) => Payload::from(ForwardPayload {
            short_channel_id: next.short_channel_id,
            amt_to_forward: next.amount,
            outgoing_cltv_value: next.cltv_expiry,
        }),
        None => Payload::from(FinalPayload {
            amt_to_forward: hop.amount,
            outgoing_cltv_value: hop.cltv_expiry,
            payment_data: recipient.payment_data,
            payment_metadata: recipient.payment_metadata.clone(),
            keysend_preimage: recipient.keysend_preimage,
            other_records: Vec::new(),
        }),
    };
    let hops = route.iter().enumerate();
    hops.map(|(index, hop)| OnionHop { node_id: hop.node_id, payload: payload(index, hop).encode() })
        .collect()
}

#[cfg(test)]
mod tests {
    use fulmen_wire::onion::HOP_PAYLOADS_LENGTH;
    use fulmen_wire::units::PaymentSecret;
    use proptest::prelude::{any, prop, prop_assert, prop_assert_eq, proptest};
    use proptest::test_runner::Config;

    use super::*;
    use crate::keys::secp;
    use crate::onion::{Failure, Peeled, create_failure, peel, wrap_failure};

    fn secret_key(index: usize) -> SecretKey {
        SecretKey::from_slice(&[index as u8 + 1; 32]).unwrap()
    }

    fn route(htlcs: &[(u64, u64, u32)]) -> Vec<RouteHop> {
        let hop = |(index, (scid, amount, expiry)): (usize, &(u64, u64, u32))| RouteHop {
            node_id: NodeId(secret_key(index).public_key(secp()).serialize()),
            short_channel_id: Scid(*scid),
            amount: Msat(*amount),
            cltv_expiry: BlockHeight(*expiry),
        };
        htlcs.iter().enumerate().map(hop).collect()
    }

    fn recipient() -> Recipient {
        Recipient {
            payment_data: Some(PaymentData {
                payment_secret: PaymentSecret([7; 32]),
                total_msat: Msat::MAX_MONEY,
            }),
            payment_metadata: None,
            keysend_preimage: None,
        }
    }

    proptest! {
        #![proptest_config(Config { cases: 16, ..Config::default() })]

        #[test]
        fn each_hop_is_told_the_next_htlc(
            htlcs in prop::collection::vec((any::<u64>(), 0..=Msat::MAX_MONEY.0, any::<u32>()), 1..=20),
            preimage in prop::option::of(any::<[u8; 32]>()),
            erring: prop::sample::Index,
        ) {
            let route = route(&htlcs);
            let keysend_preimage = preimage.map(PaymentPreimage);
            let recipient = Recipient { keysend_preimage, ..recipient() };
            let hash = PaymentHash([9; 32]);
            if onion_size(&route, &recipient) > HOP_PAYLOADS_LENGTH {
                let built = OutgoingPayment::new(&secret_key(99), hash, &route, &recipient);
                prop_assert!(matches!(built, Err(OnionBuildError::TooLarge { .. })), "{:?}", built);
                return Ok(());
            }
            let payment = OutgoingPayment::new(&secret_key(99), hash, &route, &recipient).unwrap();
            prop_assert_eq!(payment.amount, route[0].amount);
            prop_assert_eq!(payment.cltv_expiry, route[0].cltv_expiry);
            prop_assert_eq!(payment.short_channel_id, route[0].short_channel_id);

            let erring = erring.index(route.len());
            let mut packet = payment.packet.clone();
            let mut secrets = Vec::new();
            for index in 0..=erring {
                match peel(&secret_key(index), &packet, &hash.0).unwrap() {
                    Peeled::Forward { payload, next_packet, shared_secret } => {
                        let told = Payload::decode(&payload).unwrap().into_forward().unwrap();
                        let next = route[index + 1];
                        prop_assert_eq!(told.short_channel_id, next.short_channel_id);
                        prop_assert_eq!(told.amt_to_forward, next.amount);
                        prop_assert_eq!(told.outgoing_cltv_value, next.cltv_expiry);
                        packet = next_packet;
                        secrets.push(shared_secret);
                    }
                    Peeled::Final { payload, shared_secret } => {
                        prop_assert_eq!(index, route.len() - 1);
                        let told = Payload::decode(&payload).unwrap().into_final(&[]).unwrap();
                        prop_assert_eq!(told.amt_to_forward, route[index].amount);
                        prop_assert_eq!(told.outgoing_cltv_value, route[index].cltv_expiry);
                        prop_assert_eq!(told.payment_data, recipient.payment_data);
                        prop_assert_eq!(told.keysend_preimage, keysend_preimage);
                        secrets.push(shared_secret);
                    }
                }
            }
            let failure = Failure::FeeInsufficient { htlc_msat: route[erring].amount };
            let mut reason = create_failure(&secrets[erring], &failure);
            secrets[..erring].iter().rev().for_each(|secret| wrap_failure(secret, &mut reason));
            prop_assert_eq!(payment.read_failure(&reason), ReturnedFailure::From { hop: erring, failure });
        }
    }

    #[test]
    fn a_route_of_mainnet_sizes_may_have_twenty_hops() {
        // Eight bytes of scid, up to 2.9 BTC, present heights, a payment secret: the longest route most nodes build.
        let htlcs = vec![(u64::MAX, 294_967_295_000, 1_000_000); 20];
        let size = onion_size(&route(&htlcs), &recipient());
        assert!(size <= HOP_PAYLOADS_LENGTH, "{size}");
        let built = OutgoingPayment::new(&secret_key(99), PaymentHash([9; 32]), &route(&htlcs), &recipient());
        assert!(built.is_ok());
        let nothing = OutgoingPayment::new(&secret_key(99), PaymentHash([9; 32]), &[], &recipient());
        assert_eq!(nothing.unwrap_err(), OnionBuildError::NoHops);
    }
}
