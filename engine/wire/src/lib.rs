//! Lightning units, TLV streams and messages.

#![forbid(unsafe_code)]

pub mod units;
