//! A payment over one forwarding node, or to it, as the crash matrix and the adversary make them.
//!
//! Owns preimage, invoice, route and onion of such a payment. All follow from a series and a number, so that the same
//! numbers give the same onion: sent again, it is a replay. Does not send anything.

use bitcoin::hashes::{Hash, sha256};
use bitcoin::secp256k1::SecretKey;
use fulmen_proto::forward::{ExpectedPayment, ForwardingPolicy};
use fulmen_proto::onion::PaymentData;
use fulmen_proto::payment::{OutgoingPayment, Recipient, RouteHop};
use fulmen_wire::units::{
    BlockHeight, CltvDelta, Msat, NodeId, PaymentHash, PaymentPreimage, PaymentSecret, Scid,
};

/// The `min_final_cltv_expiry_delta` of all payees.
const FINAL_DELTA: CltvDelta = CltvDelta(18);
/// Blocks that may be found while a payment is under way.
const SPARE_BLOCKS: CltvDelta = CltvDelta(6);

/// A payment of a series.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NumberedPayment {
    pub(crate) hash: PaymentHash,
    pub(crate) amount: Msat,
    preimage: PaymentPreimage,
}

impl NumberedPayment {
    pub(crate) fn new(series: u8, number: u64, amount: Msat) -> NumberedPayment {
        let mut preimage = [series; 32];
        preimage[..8].copy_from_slice(&number.to_be_bytes());
        let preimage = PaymentPreimage(preimage);
        NumberedPayment { preimage, hash: hash_of(preimage), amount }
    }

    /// The payee's invoice.
    pub(crate) fn invoice(&self) -> ExpectedPayment {
        ExpectedPayment {
            payment_hash: self.hash,
            preimage: self.preimage,
            payment_secret: self.secret(),
            amount: Some(self.amount),
            min_final_cltv_expiry_delta: FINAL_DELTA,
            expires_at_unix_ms: u64::MAX,
        }
    }

    /// The fee of the forwarding node, whose policy is the default one.
    pub(crate) fn fee(&self) -> Msat {
        ForwardingPolicy::default().fee(self.amount)
    }

    /// The payment over a forwarding node to a payee, each with the channel that leads to it. None if the route does
    /// not fit an onion.
    pub(crate) fn over(
        &self,
        height: BlockHeight,
        forwarder: (NodeId, Scid),
        payee: (NodeId, Scid),
    ) -> Option<OutgoingPayment> {
        let expiry = expiry(height);
        let before = expiry.saturating_add(ForwardingPolicy::default().cltv_expiry_delta);
        let total = Msat(self.amount.0 + self.fee().0);
        let route = [hop(forwarder, total, before), hop(payee, self.amount, expiry)];
        let data = PaymentData { payment_secret: self.secret(), total_msat: self.amount };
        self.along(&route, Recipient { payment_data: Some(data), ..Recipient::default() })
    }

    /// The payment to a neighbour, with the preimage in the onion.
    pub(crate) fn keysend(&self, height: BlockHeight, payee: (NodeId, Scid)) -> Option<OutgoingPayment> {
        let route = [hop(payee, self.amount, expiry(height))];
        self.along(&route, Recipient { keysend_preimage: Some(self.preimage), ..Recipient::default() })
    }

    fn along(&self, route: &[RouteHop], recipient: Recipient) -> Option<OutgoingPayment> {
        let session_key = SecretKey::from_slice(&self.hash.0).ok()?;
        OutgoingPayment::new(&session_key, self.hash, route, &recipient).ok()
    }

    fn secret(&self) -> PaymentSecret {
        PaymentSecret(self.preimage.0.map(|byte| byte ^ 0x55))
    }
}

/// The payment hash of a preimage.
pub(crate) fn hash_of(preimage: PaymentPreimage) -> PaymentHash {
    PaymentHash(sha256::Hash::hash(&preimage.0).to_byte_array())
}

fn expiry(height: BlockHeight) -> BlockHeight {
    height.saturating_add(FINAL_DELTA).saturating_add(SPARE_BLOCKS)
}

fn hop((node_id, short_channel_id): (NodeId, Scid), amount: Msat, cltv_expiry: BlockHeight) -> RouteHop {
    RouteHop { node_id, short_channel_id, amount, cltv_expiry }
}
