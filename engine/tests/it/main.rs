//! The one integration binary of the engine.
