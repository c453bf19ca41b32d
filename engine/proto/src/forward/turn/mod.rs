//! The steps of a turn, one file a step, in the order that [`Shard::turn`](crate::forward::Shard::turn) runs them.
//!
//! Owns the methods of `Shard` that decide, and the types a turn consists of. Imports `terms` and `state`.

mod announce;
mod announce_node;
pub(crate) mod announcer;
pub(crate) mod answers;
mod apply;
pub(crate) mod blocks;
mod channel_update;
mod commands;
mod commitments;
mod decide;
pub(crate) mod deferred;
mod doubt;
mod feerate;
mod intercept;
mod keys;
mod messages;
mod offer;
pub(crate) mod open_turn;
pub(crate) mod output;
mod overdue;
pub(crate) mod pongs;
mod resolve;
pub(crate) mod send_bounds;
