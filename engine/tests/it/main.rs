//! The one integration binary of the engine.

#[cfg(any(feature = "kernel", feature = "rpc"))]
mod chain_conformance;
