//! Peeling one layer off an onion (BOLT 4, "Onion Decryption").
//!
//! Owns: authentication, decryption, the split into this hop's payload and the next packet, and the reaction to an
//! onion that cannot be peeled. Does not parse the payload or remember onions; see [`SharedSecret::replay_tag`].
//!
//! Invariant: nothing of a packet is used before its HMAC is verified.
//!
//! Budget: 56 us for a single hop, nearly all for two point multiplications. A batch does one of them for eight hops at
//! once, which leaves 36 us per hop. `bench/benches/onion.rs` checks it.

use fulmen_secp::{MultiplyJob, multiply_points, parse_keys};
use fulmen_wire::onion::{HMAC_LENGTH, HOP_PAYLOADS_LENGTH, OnionPacket};
use fulmen_wire::units::Point;
use hmac::Mac;
use secp256k1::{PublicKey, SecretKey};
use sha2::{Digest, Sha256};

use super::failure::{Failure, FailureCode};
use super::keys::{KeyKind, SharedSecret};
use super::packet::PAYLOAD_LENGTH_MIN;
use crate::keys::to_point;

/// The contents of an onion for this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Peeled {
    /// The node is to forward.
    Forward {
        /// The TLV payload, without its length.
        payload: Vec<u8>,
        /// The onion for the next node.
        next_packet: OnionPacket,
        /// The key to failures, to be kept with the HTLC.
        shared_secret: SharedSecret,
    },
    /// The node is the last one.
    Final {
        /// The TLV payload, without its length.
        payload: Vec<u8>,
        /// The key to failures, to be kept with the HTLC.
        shared_secret: SharedSecret,
    },
}

impl Peeled {
    /// The secret shared with the origin, in either role.
    #[must_use]
    pub const fn shared_secret(&self) -> &SharedSecret {
        match self {
            Peeled::Forward { shared_secret, .. } | Peeled::Final { shared_secret, .. } => shared_secret,
        }
    }
}

/// Why an onion cannot be peeled.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PeelError {
    /// A version we do not know.
    #[error("the onion's version is {version}, not 0")]
    Version {
        /// The version byte.
        version: u8,
        /// Identifies the onion to whoever sent it.
        sha256_of_onion: [u8; 32],
    },
    /// The ephemeral key is not on the curve.
    #[error("the onion's key {public_key} is not a point")]
    Key {
        /// The bytes in its place.
        public_key: Point,
        /// Identifies the onion to whoever sent it.
        sha256_of_onion: [u8; 32],
    },
    /// The packet was altered, is not for this node, or belongs to another payment hash.
    #[error("the onion's hmac does not match")]
    Hmac {
        /// Identifies the onion to whoever sent it.
        sha256_of_onion: [u8; 32],
    },
    /// The origin itself framed the payload wrongly: its length is no canonical BigSize, is 0 (the legacy format) or
    /// 1, or reaches past the packet.
    #[error("the payload's length is not valid")]
    Framing {
        /// The origin's secret; as the packet is authentic, the origin can be told.
        shared_secret: SharedSecret,
    },
}

/// How an HTLC with an onion that cannot be peeled is failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeelReaction {
    /// With `update_fail_malformed_htlc`: there is no secret to encrypt a failure with.
    FailMalformed {
        /// A code with the BADONION bit.
        failure_code: FailureCode,
        /// The hash of the onion as received.
        sha256_of_onion: [u8; 32],
    },
    /// With `update_fail_htlc`: a failure packet under the secret.
    Fail {
        /// The failure for the origin.
        failure: Failure,
        /// The secret to encrypt it with.
        shared_secret: SharedSecret,
    },
}

impl PeelError {
    /// How BOLT 2 and 4 have the HTLC failed.
    #[must_use]
    pub const fn reaction(&self) -> PeelReaction {
        let (failure_code, sha256_of_onion) = match *self {
            PeelError::Version { sha256_of_onion, .. } => (FailureCode::InvalidOnionVersion, sha256_of_onion),
            PeelError::Key { sha256_of_onion, .. } => (FailureCode::InvalidOnionKey, sha256_of_onion),
            PeelError::Hmac { sha256_of_onion } => (FailureCode::InvalidOnionHmac, sha256_of_onion),
            PeelError::Framing { shared_secret } => {
                return PeelReaction::Fail {
                    failure: Failure::InvalidOnionPayload { tlv_type: 0, offset: 0 },
                    shared_secret,
                };
            }
        };
        PeelReaction::FailMalformed { failure_code, sha256_of_onion }
    }
}

/// One onion to be peeled by the node whose batch this is.
#[derive(Clone, Copy, Debug)]
pub struct PeelJob<'a> {
    /// The onion as received.
    pub packet: &'a OnionPacket,
    /// The data that the onion commits to: the HTLC's payment hash.
    pub associated_data: &'a [u8],
}

/// Peels a batch of onions with the node's key; results stand in the order of the jobs.
///
/// Ephemeral keys are parsed, and blinded for the next hops, for all onions at once.
#[must_use]
pub fn peel_batch(secret_key: &SecretKey, jobs: &[PeelJob<'_>]) -> Vec<Result<Peeled, PeelError>> {
    let keys: Vec<[u8; 33]> = jobs.iter().map(PeelJob::key_bytes).collect();
    let keys = parse_keys(&keys);
    let opened = jobs.iter().zip(keys).map(|(job, key)| Opened::new(secret_key, job, key.ok()));
    let opened: Vec<Result<Opened, PeelError>> = opened.collect();
    let blinding: Vec<MultiplyJob> =
        opened.iter().filter_map(|opened| opened.as_ref().ok()?.blinding).collect();
    let mut next_keys = multiply_points(&blinding).into_iter();
    let peeled = jobs.iter().zip(opened).map(|(job, opened)| {
        let opened = opened?;
        let next_key = opened.blinding.and_then(|_| next_keys.next().flatten());
        opened.peeled(job, next_key)
    });
    peeled.collect()
}

/// Peels one onion with the node's key.
///
/// # Errors
/// If the packet is not authentic or not well formed; [`PeelError::reaction`] gives the answer.
pub fn peel(
    secret_key: &SecretKey,
    packet: &OnionPacket,
    associated_data: &[u8],
) -> Result<Peeled, PeelError> {
    let jobs = [PeelJob { packet, associated_data }];
    peel_batch(secret_key, &jobs).pop().expect("a batch gives one result for each job")
}

impl PeelJob<'_> {
    fn key_bytes(&self) -> [u8; 33] {
        self.packet.public_key().0
    }

    fn invalid_key(&self) -> PeelError {
        PeelError::Key { public_key: Point(self.key_bytes()), sha256_of_onion: sha256(self.packet) }
    }
}

/// An onion that is authentic, decrypted and well framed.
struct Opened {
    shared_secret: SharedSecret,
    payload: Vec<u8>,
    /// Of a hop that is not the last: the next packet without its key.
    next: Option<OnionPacket>,
    /// The multiplication that gives that key.
    blinding: Option<MultiplyJob>,
}

impl Opened {
    fn new(
        secret_key: &SecretKey,
        job: &PeelJob<'_>,
        public_key: Option<PublicKey>,
    ) -> Result<Opened, PeelError> {
        let packet = job.packet;
        if packet.version() != 0 {
            return Err(PeelError::Version { version: packet.version(), sha256_of_onion: sha256(packet) });
        }
        let public_key = public_key.ok_or_else(|| job.invalid_key())?;
        let shared_secret = SharedSecret::new(&public_key, secret_key);

        let mac = shared_secret.derive(KeyKind::Mu).mac();
        let mac = mac.chain_update(packet.hop_payloads()).chain_update(job.associated_data);
        // The comparison takes the same time wherever the bytes differ.
        if mac.verify_slice(packet.hmac()).is_err() {
            return Err(PeelError::Hmac { sha256_of_onion: sha256(packet) });
        }

        let mut plain = [0; 2 * HOP_PAYLOADS_LENGTH];
        plain[..HOP_PAYLOADS_LENGTH].copy_from_slice(packet.hop_payloads());
        let mut stream = shared_secret.derive(KeyKind::Rho).stream();
        stream.apply(&mut plain[..HOP_PAYLOADS_LENGTH]);
        let framed = Framed::read(&plain).ok_or(PeelError::Framing { shared_secret })?;
        let payload = plain[framed.start..framed.end].to_vec();
        let next_hmac: [u8; HMAC_LENGTH] =
            plain[framed.end..framed.end + HMAC_LENGTH].try_into().expect("32 bytes");
        let next = next_hmac.iter().any(|byte| *byte != 0).then(|| {
            let shift = framed.end + HMAC_LENGTH;
            // Only as much of the stream's second half is drawn as moves into the next packet.
            stream.apply(&mut plain[HOP_PAYLOADS_LENGTH..HOP_PAYLOADS_LENGTH + shift]);
            let payloads = &plain[shift..shift + HOP_PAYLOADS_LENGTH];
            OnionPacket::from_parts(&Point([0; 33]), payloads.try_into().expect("1,300 bytes"), &next_hmac)
        });
        let factor = next.as_ref().and_then(|_| shared_secret.blinding_factor(&job.key_bytes()));
        let blinding = factor.map(|scalar| MultiplyJob { point: public_key, scalar });
        Ok(Opened { shared_secret, payload, next, blinding })
    }

    fn peeled(self, job: &PeelJob<'_>, next_key: Option<PublicKey>) -> Result<Peeled, PeelError> {
        let Opened { shared_secret, payload, next, .. } = self;
        let Some(mut next_packet) = next else { return Ok(Peeled::Final { payload, shared_secret }) };
        next_packet.set_public_key(&to_point(&next_key.ok_or_else(|| job.invalid_key())?));
        Ok(Peeled::Forward { payload, next_packet, shared_secret })
    }
}

/// Where a decrypted payload starts and ends; its HMAC, behind it, is inside the packet too.
struct Framed {
    start: usize,
    end: usize,
}

impl Framed {
    fn read(plain: &[u8; 2 * HOP_PAYLOADS_LENGTH]) -> Option<Framed> {
        let (start, length) = match plain[0] {
            0xfd => (3, usize::from(u16::from_be_bytes([plain[1], plain[2]]))),
            0xfe | 0xff => return None,
            short => (1, usize::from(short)),
        };
        let canonical = start == 1 || length >= 0xfd;
        let fits = start + length + HMAC_LENGTH <= HOP_PAYLOADS_LENGTH;
        (canonical && fits && length >= PAYLOAD_LENGTH_MIN).then_some(Framed { start, end: start + length })
    }
}

fn sha256(packet: &OnionPacket) -> [u8; 32] {
    Sha256::digest(packet.as_bytes()).into()
}
