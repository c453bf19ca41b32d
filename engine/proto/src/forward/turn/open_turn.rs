//! A turn while it runs, and its inputs sorted by kind.
//!
//! Owns the values that the steps of a turn hand to each other. Does not do any of the steps.

use std::collections::BTreeSet;

use bitcoin::{OutPoint, Txid};
use fulmen_wire::units::{BlockHeight, ChannelId, FeeratePerKw, NodeId, Scid};

use super::output::Turn;
use super::send_bounds::SentBytes;
use crate::channel::Htlc;
use crate::forward::terms::circuit::{Circuit, CircuitStage};
use crate::forward::terms::config::ForwardingPolicy;
use crate::forward::terms::handoff::Handoff;
use crate::forward::terms::ids::IncomingHtlc;
use crate::forward::terms::input::{Command, Confirmation, Input, PeerInput};
use crate::forward::terms::time::Now;
use crate::onion::SharedSecret;

/// A turn while it runs: its output so far, and the input of later steps.
#[derive(Debug)]
pub(crate) struct OpenTurn {
    pub(crate) now: Now,
    /// The output.
    pub(crate) out: Turn,
    /// HTLCs that became irrevocably committed, in order.
    pub(crate) locked_in: Vec<LockedIn>,
    /// Channels with a plan that waits for its signatures to be verified: their state must stay as it is.
    pub(crate) awaiting_verification: BTreeSet<ChannelId>,
    /// Received HTLCs that are resolved and that their channels have not removed yet.
    pub(crate) resolved: Vec<IncomingHtlc>,
    /// Channels that may have something to commit.
    pub(crate) touched: BTreeSet<ChannelId>,
    /// The bytes of the output's messages.
    pub(crate) sent: SentBytes,
}

/// A channel that is being opened, as the shard sees it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NewChannel {
    pub(crate) peer: NodeId,
    pub(crate) user_id: u64,
    pub(crate) key_index: u64,
    pub(crate) policy: ForwardingPolicy,
}

/// A received HTLC that waits for its decision.
#[derive(Debug)]
pub(crate) struct LockedIn {
    pub(crate) incoming: IncomingHtlc,
    pub(crate) htlc: Htlc,
    pub(crate) over_dust_exposure: bool,
}

impl LockedIn {
    /// The circuit of this HTLC at a stage.
    pub(crate) fn circuit(&self, shared_secret: Option<SharedSecret>, stage: CircuitStage) -> Circuit {
        let Htlc { amount, cltv_expiry, payment_hash, .. } = self.htlc;
        Circuit { amount, cltv_expiry, payment_hash, shared_secret, stage }
    }
}

/// The inputs of a turn by kind, each kind in the order given.
#[derive(Default)]
pub(crate) struct Sorted {
    pub(crate) of_peers: Vec<PeerInput>,
    pub(crate) blocks: Vec<(BlockHeight, Vec<Confirmation>)>,
    /// Funding outputs that were spent, and by which transaction.
    pub(crate) spent: Vec<(OutPoint, Txid)>,
    pub(crate) siblings: Option<Vec<Scid>>,
    pub(crate) new_siblings: Vec<Scid>,
    /// Whether another shard has announced a channel.
    pub(crate) sibling_announced: bool,
    pub(crate) commands: Vec<Command>,
    pub(crate) handoffs: Vec<Handoff>,
    pub(crate) feerate: Option<FeeratePerKw>,
    pub(crate) in_step: bool,
    pub(crate) ticked: bool,
}

impl Sorted {
    pub(crate) fn new(inputs: impl IntoIterator<Item = Input>) -> Sorted {
        let mut sorted = Sorted::default();
        for input in inputs {
            match input {
                Input::Peer(input) => sorted.of_peers.push(input),
                Input::Command(command) => sorted.commands.push(command),
                Input::Block { height, confirmations } => sorted.blocks.push((height, confirmations)),
                Input::FundingSpent { outpoint, transaction, .. } => {
                    sorted.spent.push((outpoint, transaction.compute_txid()));
                }
                Input::Handoff(handoff) => sorted.handoffs.push(handoff),
                Input::SiblingChannels(scids) => sorted.siblings = Some(scids),
                Input::SiblingChannel(scid) => sorted.new_siblings.push(scid),
                Input::SiblingAnnounced => sorted.sibling_announced = true,
                Input::Feerate(feerate) => sorted.feerate = Some(feerate),
                Input::ChainInStep => sorted.in_step = true,
                Input::Tick => sorted.ticked = true,
                Input::Wake => {}
            }
        }
        sorted
    }
}
