//! The values that go into a shard, come out of it and are kept by it: identifiers, inputs, handoffs, settings, errors.
//!
//! Owns types and the checks that need nothing else. Does not import `state`, `turn` or `Shard`.

pub(crate) mod circuit;
pub(crate) mod config;
pub(crate) mod description;
pub(crate) mod error;
pub(crate) mod handoff;
pub(crate) mod ids;
pub(crate) mod input;
pub(crate) mod peer;
pub(crate) mod policy;
pub(crate) mod time;
