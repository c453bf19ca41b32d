//! A fingerprint of a run: SHA-256 over every payment's end, all final balances and all transaction ids.
//!
//! Owns: the contents of the digest and their order. Does not decide when runs must agree: two runs with
//! `--deterministic`, the same seed and the same flags must; threads may interleave otherwise.
//!
//! Invariant: nothing that depends on time, threads or hash-map order is fed.

use std::collections::BTreeMap;

use bitcoin::Txid;
use bitcoin::hashes::Hash;
use fulmen_wire::units::Msat;
use sha2::{Digest, Sha256};

use crate::accounting::ChannelBooks;
use crate::report::Funds;

/// How one payment ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fate {
    /// Whether the preimage came back.
    pub(crate) succeeded: bool,
    /// Routes tried.
    pub(crate) attempts: u32,
    /// The last failure's code; zero for none.
    pub(crate) code: u16,
    /// The channels crossed, or the erring node's place on the route.
    pub(crate) hop: u32,
    /// The amount that left the payer.
    pub(crate) sent: Msat,
}

/// All that is fed.
pub(crate) struct RunDigest<'a> {
    /// How each payment ended, by its number.
    pub(crate) fates: &'a BTreeMap<u64, Fate>,
    /// The channels as they closed.
    pub(crate) channels: &'a [ChannelBooks],
    /// The wallets as they ended.
    pub(crate) funds: &'a Funds,
    /// The ids of all transactions of the run's blocks, in order.
    pub(crate) txids: &'a [Txid],
}

impl RunDigest<'_> {
    /// The digest in hexadecimal.
    pub(crate) fn hex(&self) -> String {
        let mut hash = Sha256::new();
        for (payment, fate) in self.fates {
            hash.update(payment.to_be_bytes());
            hash.update([u8::from(fate.succeeded)]);
            hash.update(fate.attempts.to_be_bytes());
            hash.update(fate.code.to_be_bytes());
            hash.update(fate.hop.to_be_bytes());
            hash.update(fate.sent.0.to_be_bytes());
        }
        for channel in self.channels {
            let balances = channel.closing_balances.unwrap_or_default();
            balances.iter().for_each(|balance| hash.update(balance.0.to_be_bytes()));
        }
        for node in &self.funds.nodes {
            hash.update(node.end_sat.to_be_bytes());
        }
        for txid in self.txids {
            hash.update(txid.to_byte_array());
        }
        hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}
