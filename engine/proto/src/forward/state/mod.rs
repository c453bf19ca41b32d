//! The durable state of a shard, the changes that fold into it, and the byte form of both.
//!
//! Owns everything that survives a restart. Imports `terms`, and neither `turn` nor `Shard`.

pub(crate) mod announcing;
pub(crate) mod change;
pub(crate) mod channels;
pub(crate) mod checkpoint;
pub(crate) mod circuits;
mod codec;
mod event_codec;
pub(crate) mod item;
pub(crate) mod receiver;
pub(crate) mod replay;
pub(crate) mod shard_state;
