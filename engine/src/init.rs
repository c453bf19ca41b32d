//! The first message of a connection: the peer's `init` (BOLT 1).
//!
//! Owns the step from its bytes to the features that both sides may use, for the engine and for [`ShardDriver`] alike.
//! Does not know connections.
//!
//! [`ShardDriver`]: crate::driver::ShardDriver

use fulmen_proto::forward::{InitError, NodeConfig, negotiate};
use fulmen_wire::codec::DecodeError;
use fulmen_wire::features::Features;
use fulmen_wire::message::Message;

/// Why a peer's first message is not an acceptable `init`. The connection is to be closed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FirstMessageError {
    /// The message does not decode.
    #[error("the peer's first message is broken: {0}")]
    Broken(#[from] DecodeError),
    /// The message is not `init`.
    #[error("the peer's first message is {0}, not init")]
    NotInit(&'static str),
    /// The peer requires a feature that we lack, or lacks one that we require.
    #[error(transparent)]
    Refused(#[from] InitError),
}

/// The peer's features, from the first message it sent.
pub(crate) fn accept_init(config: &NodeConfig, bytes: &[u8]) -> Result<Features, FirstMessageError> {
    match Message::decode(bytes)? {
        Message::Init(init) => Ok(negotiate(config, &init)?),
        message => Err(FirstMessageError::NotInit(message.name())),
    }
}
