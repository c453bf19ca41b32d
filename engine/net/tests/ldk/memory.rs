//! The engine's tests with LDK in memory, whose stand-ins are used here too.

#[path = "../../../tests/it/ldk/net.rs"]
mod net;
#[path = "../../../tests/it/ldk/node.rs"]
pub(crate) mod node;
