//! Channel graphs to run and measure on: seeded generators, import of lnd `describegraph` snapshots, and export.
//!
//! Owns: [`Topology`] (who is joined to whom, with which capacity and policies), its textual [`Spec`], and its files.
//! Does not own keys, nor the short channel ids of a network that is run: whoever runs a topology assigns them and
//! turns it into a [`fulmen_graph::ChannelGraph`] with [`Topology::channel_graph`].
//!
//! Invariants: the same spec and seed give the same topology, byte for byte, on every machine; values that a snapshot
//! lacks stay absent.

mod components;
mod export;
mod generate;
mod import;
mod model;
mod spec;

pub use import::{Element, ImportError, Place, import, read};
pub use model::{Channel, ConversionError, InboundFee, Label, ModelError, PartialPolicy, Summary, Topology};
pub use spec::{BuildError, Spec, SpecError};
