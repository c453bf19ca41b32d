//! The rules for removing an HTLC (BOLT 2, "Removing an HTLC").
//!
//! Owns: [`RemovalError`] and the checks that every removal passes, whichever side sends it. Does not plan the removal;
//! see [`normal`](super::normal).

use bitcoin::hashes::{Hash, sha256};
use fulmen_wire::units::{PaymentHash, PaymentPreimage};
use thiserror::Error;

use super::htlc::{HtlcEntry, Removal, Stage};

/// The bit that marks failures of an onion that the next hop could not read (BOLT 4).
const BADONION: u16 = 0x8000;

/// A removal that breaks a rule of BOLT 2.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum RemovalError {
    /// No HTLC has this id (any more).
    #[error("no HTLC with id {0}")]
    UnknownHtlc(u64),
    /// The HTLC is not yet irrevocably committed.
    #[error("HTLC {0} is not irrevocably committed")]
    NotCommitted(u64),
    /// An earlier removal of the HTLC is pending.
    #[error("HTLC {0} is already being removed")]
    AlreadyRemoved(u64),
    /// The preimage does not hash to the payment hash.
    #[error("the preimage for HTLC {id} does not hash to {payment_hash}")]
    WrongPreimage {
        /// The HTLC.
        id: u64,
        /// Its hash.
        payment_hash: PaymentHash,
    },
    /// The failure code of `update_fail_malformed_htlc` lacks the BADONION bit.
    #[error("failure code {failure_code:#06x} for HTLC {id} lacks the BADONION bit")]
    NotBadOnion {
        /// The HTLC.
        id: u64,
        /// The code.
        failure_code: u16,
    },
}

impl RemovalError {
    /// Checks the removal of HTLC `id` by the side that received it; `entry` is that HTLC, if it exists.
    pub(super) fn check(entry: Option<&HtlcEntry>, id: u64, removal: &Removal) -> Result<(), RemovalError> {
        if let Removal::FailMalformed { failure_code, .. } = *removal
            && failure_code & BADONION == 0
        {
            return Err(RemovalError::NotBadOnion { id, failure_code });
        }
        let entry = entry.ok_or(RemovalError::UnknownHtlc(id))?;
        let payment_hash = entry.htlc.payment_hash;
        match removal {
            Removal::Fulfill(preimage) if hash(preimage) != payment_hash => {
                Err(RemovalError::WrongPreimage { id, payment_hash })
            }
            _ if entry.added < Stage::Irrevocable => Err(RemovalError::NotCommitted(id)),
            _ if entry.removal.is_some() => Err(RemovalError::AlreadyRemoved(id)),
            _ => Ok(()),
        }
    }
}

/// The payment hash of a preimage.
fn hash(preimage: &PaymentPreimage) -> PaymentHash {
    PaymentHash(sha256::Hash::hash(&preimage.0).to_byte_array())
}
