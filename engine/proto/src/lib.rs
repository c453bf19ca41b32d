//! Not written yet.

pub mod commitment;
pub mod keys;
