//! The one integration binary of the crate.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod gossip;
