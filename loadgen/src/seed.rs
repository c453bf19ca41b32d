//! One seed for everything random.
//!
//! Owns: the derivation of independent streams from `--seed`, each named by its purpose and a number. Does not keep
//! state: the same name always gives the same stream, whatever else was drawn before.
//!
//! Invariant: no two purposes share a stream, so that adding one draw somewhere changes nothing elsewhere.

use fulmen_wire::units::{PaymentHash, PaymentPreimage, PaymentSecret};
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng;
use sha2::{Digest, Sha256};

/// The root of all randomness of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seed([u8; 32]);

/// The purpose of a stream.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Purpose {
    /// A node's keys; numbered by node.
    NodeKeys,
    /// A node's wallet; numbered by node.
    Wallet,
    /// The miner's wallet.
    Miner,
    /// How much of a channel is pushed to the acceptor; numbered by channel.
    Push,
    /// Who pays whom how much; numbered by payment.
    Payment,
    /// A payment's preimage; numbered by payment.
    Preimage,
    /// A payment's secret; numbered by payment.
    PaymentSecret,
    /// An onion's session key; numbered by attempt.
    SessionKey,
    /// Which rule a faulty route breaks where; numbered by attempt.
    Fault,
    /// The virtual network's delays.
    Network,
    /// When a forwarder under stress dies.
    Crash,
}

impl Purpose {
    const fn label(self) -> &'static [u8] {
        match self {
            Purpose::NodeKeys => b"node keys",
            Purpose::Wallet => b"wallet",
            Purpose::Miner => b"miner",
            Purpose::Push => b"push",
            Purpose::Payment => b"payment",
            Purpose::Preimage => b"preimage",
            Purpose::PaymentSecret => b"payment secret",
            Purpose::SessionKey => b"session key",
            Purpose::Fault => b"fault",
            Purpose::Network => b"network",
            Purpose::Crash => b"crash",
        }
    }
}

impl Seed {
    /// The root for `--seed`. `salt` distinguishes runs that share a chain: keys used twice there would find the coins
    /// of an earlier run.
    pub(crate) fn new(number: u64, salt: &[u8]) -> Seed {
        let hash =
            Sha256::new().chain_update(b"loadgen").chain_update(number.to_be_bytes()).chain_update(salt);
        Seed(hash.finalize().into())
    }

    /// Thirty-two bytes for one purpose.
    pub(crate) fn bytes(&self, purpose: Purpose, number: u64) -> [u8; 32] {
        let hash = Sha256::new()
            .chain_update(self.0)
            .chain_update(number.to_be_bytes())
            .chain_update(purpose.label());
        hash.finalize().into()
    }

    /// A generator for one purpose.
    pub(crate) fn rng(&self, purpose: Purpose, number: u64) -> ChaCha20Rng {
        ChaCha20Rng::from_seed(self.bytes(purpose, number))
    }

    /// The preimage of a payment.
    pub(crate) fn preimage(&self, payment: u64) -> PaymentPreimage {
        PaymentPreimage(self.bytes(Purpose::Preimage, payment))
    }

    /// The hash that locks a payment.
    pub(crate) fn payment_hash(&self, payment: u64) -> PaymentHash {
        PaymentHash(Sha256::digest(self.preimage(payment).0).into())
    }

    /// The `payment_secret` of a payment's invoice.
    pub(crate) fn payment_secret(&self, payment: u64) -> PaymentSecret {
        PaymentSecret(self.bytes(Purpose::PaymentSecret, payment))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_decide_streams() {
        let seed = Seed::new(1, b"");
        assert_eq!(seed.bytes(Purpose::Payment, 3), Seed::new(1, b"").bytes(Purpose::Payment, 3));
        assert_ne!(seed.bytes(Purpose::Payment, 3), seed.bytes(Purpose::Payment, 4));
        assert_ne!(seed.bytes(Purpose::Payment, 3), seed.bytes(Purpose::Preimage, 3));
        assert_ne!(seed.bytes(Purpose::Payment, 3), Seed::new(1, b"tip").bytes(Purpose::Payment, 3));
        assert_ne!(seed.bytes(Purpose::Payment, 3), Seed::new(2, b"").bytes(Purpose::Payment, 3));
    }
}
