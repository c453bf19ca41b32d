//! Tests of the onion: BOLT 4's vectors, and properties over random routes and random bytes.

mod properties;
mod vectors;

use fulmen_wire::units::NodeId;
use secp256k1::SecretKey;

use crate::keys::secp;

/// The node id of a secret key.
fn node_id(secret_key: &SecretKey) -> NodeId {
    NodeId(secret_key.public_key(secp()).serialize())
}
