//! The log on disk, held to its promises: over a simulated disk that dies, errs and rots, and over a real directory.
//!
//! Owns a busy script of appends and checkpoints with a model beside it. The model of a shard is the list of its
//! records; its checkpoint is that list, so that a replay can be compared with it.

mod conformance;
mod crashes;
mod damage;
mod directory;
mod frozen;
mod model;
