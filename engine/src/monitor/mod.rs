//! From blocks to depths: where the funding outputs of a shard's channels stand in the chain.
//!
//! Owns the outputs that are watched, from the moment a channel names one until it is buried. Does not own the chain:
//! steps are told in the order the chain takes them.
//!
//! Invariant: what is told of an output is what the blocks given so far say, reorganisations included.

use std::collections::{BTreeMap, BTreeSet};

use bitcoin::hashes::Hash;
use bitcoin::{Block, OutPoint, Transaction, TxOut};
use fulmen_proto::forward::{Confirmation, Event, Input, Shard};
use fulmen_wire::units::{BlockHeight, Scid, Txid};

use crate::chain::ChainEvent;

/// The depth at which a funding transaction is no longer watched: BOLT 7 announces channels six blocks deep, and a
/// reorganisation past twice that is beyond what any channel survives.
const FUNDING_WATCH_BLOCKS: u32 = 12;

/// The funding outputs of a shard, and the height of the chain.
#[derive(Debug, Default)]
pub(crate) struct FundingMonitor {
    height: BlockHeight,
    /// The outputs that are watched, and where each stands once it does.
    fundings: BTreeMap<OutPoint, Option<Place>>,
}

/// A funding output in the chain.
#[derive(Clone, Debug)]
struct Place {
    height: BlockHeight,
    scid: Scid,
    output: TxOut,
}

impl FundingMonitor {
    /// Monitors the funding outputs of a shard's channels that are not yet deep enough.
    pub(crate) fn of(shard: &Shard) -> FundingMonitor {
        let unplaced = shard.channels().filter(|channel| channel.scid().is_none());
        let fundings = unplaced.filter_map(|channel| Some((channel.funding_outpoint()?, None))).collect();
        FundingMonitor { height: shard.occupancy().height, fundings }
    }

    /// Takes up the channels that a turn of the shard funded, and drops those that it ended.
    pub(crate) fn follow(&mut self, events: &[Event], shard: &Shard) {
        for event in events {
            match event {
                Event::ChannelFunded { funding_outpoint, .. } => {
                    self.fundings.insert(*funding_outpoint, None);
                }
                Event::ChannelFailed { .. } => {
                    let funding: BTreeSet<OutPoint> =
                        shard.channels().filter_map(|channel| channel.funding_outpoint()).collect();
                    self.fundings.retain(|outpoint, _| funding.contains(outpoint));
                }
                _ => {}
            }
        }
    }

    /// Takes a step of the chain, and gives what the shard is to be told: the height, and how deep the funding outputs
    /// that still matter are. A block at a height that was passed already, without its having been disconnected, is
    /// given again after a restart to those who look for what it holds, and does not change the height.
    pub(crate) fn chain_event(&mut self, event: &ChainEvent) -> Input {
        match event {
            ChainEvent::Connected { height, block } => self.block_connected(*height, block),
            ChainEvent::Disconnected { height, .. } => self.block_disconnected(*height),
        }
    }

    fn block_connected(&mut self, height: BlockHeight, block: &Block) -> Input {
        self.height = self.height.max(height);
        if !self.fundings.is_empty() {
            for (index, transaction) in (0..).zip(&block.txdata) {
                let txid = transaction.compute_txid();
                let all = OutPoint::new(txid, 0)..=OutPoint::new(txid, u32::MAX);
                for (outpoint, place) in self.fundings.range_mut(all) {
                    *place = find(height, index, transaction, outpoint.vout);
                }
            }
        }
        let told = self.tell_height();
        let height = self.height;
        self.fundings.retain(|_, place| {
            place.as_ref().is_none_or(|place| height.blocks_above(place.height) < FUNDING_WATCH_BLOCKS)
        });
        told
    }

    fn block_disconnected(&mut self, height: BlockHeight) -> Input {
        self.height = BlockHeight(height.0.saturating_sub(1));
        for place in self.fundings.values_mut() {
            *place = place.take().filter(|place| place.height < height);
        }
        self.tell_height()
    }

    fn tell_height(&self) -> Input {
        let confirmations = self.fundings.iter().filter_map(|(outpoint, place)| {
            let Place { height, scid, output } = place.as_ref()?;
            let depth = self.height.blocks_above(*height) + 1;
            let txid = Txid(outpoint.txid.to_byte_array());
            Some(Confirmation { txid, scid: *scid, depth, output: output.clone() })
        });
        Input::Block { height: self.height, confirmations: confirmations.collect() }
    }
}

/// What a transaction at this place has at an output that a peer named; it may not be there.
fn find(height: BlockHeight, index: u32, transaction: &Transaction, vout: u32) -> Option<Place> {
    let output = transaction.output.get(usize::try_from(vout).ok()?)?;
    // BOLT 2 carries a funding output's index in 16 bits, so that a larger one never comes to be a channel.
    let scid = Scid::new(height.0, index, u16::try_from(vout).ok()?)?;
    Some(Place { height, scid, output: output.clone() })
}
