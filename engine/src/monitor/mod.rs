//! Where the funding outputs of a shard's channels stand in the chain: confirmed how deep, taken out, or spent.
//!
//! Owns the funding outputs of a shard's channels from the moment a channel names one until the shard forgets the
//! channel. Does not own the chain: its caller gives it each step, in the chain's order. Does not act on anything: its
//! results are inputs of the shard.
//!
//! Invariants: a channel is told every depth of its funding up to the one that makes it ready, 12 at least; and
//! whatever it was told, it is told again when a reorganisation changes it, also after a restart.

use std::collections::{BTreeMap, BTreeSet};

use bitcoin::hashes::Hash;
use bitcoin::{Amount, Block, OutPoint, Transaction, TxOut};
use fulmen_proto::channel::Channel;
use fulmen_proto::commitment::funding_output_script;
use fulmen_proto::forward::{ChannelRef, Confirmation, Event, Input, Shard};
use fulmen_wire::units::{BlockHeight, Scid, Txid};

use crate::chain::ChainEvent;

/// Depths that are reported of every funding, even if its channel is ready earlier: BOLT 7 announces channels six
/// blocks deep, and the peer counts its own blocks.
const REPORTED_DEPTH_MIN: u32 = 12;

/// The funding outputs of a shard, and the height of the chain.
#[derive(Debug, Default)]
pub(crate) struct FundingMonitor {
    height: BlockHeight,
    fundings: BTreeMap<OutPoint, Funding>,
}

/// One funding output.
#[derive(Clone, Debug)]
struct Funding {
    /// The depths up to this one are reported.
    reported_depth_max: u32,
    place: Option<Place>,
}

/// A funding output in the chain.
#[derive(Clone, Debug)]
struct Place {
    height: BlockHeight,
    scid: Scid,
    output: TxOut,
}

impl FundingMonitor {
    /// Monitors the funding outputs of a shard's channels. One whose channel is ready was in the chain at its short
    /// channel id; the others are found in blocks to come, or in earlier ones that are given again.
    pub(crate) fn of(shard: &Shard) -> FundingMonitor {
        let mut monitor = FundingMonitor { height: shard.occupancy().height, ..FundingMonitor::default() };
        shard.channels().for_each(|channel| monitor.take_up(channel));
        monitor
    }

    /// Takes up the channels that a turn of the shard funded, and drops those that it ended.
    pub(crate) fn follow(&mut self, events: &[Event], shard: &Shard) {
        for event in events {
            match event {
                Event::ChannelFunded { channel_id, .. } => {
                    if let Some(channel) = shard.channel(ChannelRef::Id(*channel_id)) {
                        self.take_up(channel);
                    }
                }
                Event::ChannelFailed { .. } => {
                    let funding: BTreeSet<OutPoint> =
                        shard.channels().filter_map(Channel::funding_outpoint).collect();
                    self.fundings.retain(|outpoint, _| funding.contains(outpoint));
                }
                _ => {}
            }
        }
    }

    fn take_up(&mut self, channel: &Channel) {
        let Some(outpoint) = channel.funding_outpoint() else { return };
        let minimum_depth = channel.minimum_depth().unwrap_or_default();
        let reported_depth_max = minimum_depth.max(REPORTED_DEPTH_MIN);
        let place = channel.scid().zip(funding_output(channel)).map(|(scid, output)| Place {
            height: BlockHeight(scid.block()),
            scid,
            output,
        });
        self.fundings.insert(outpoint, Funding { reported_depth_max, place });
    }

    /// Takes a step of the chain and gives the inputs it means for the shard, in their order: the height with the
    /// depths of fundings, then fundings that were spent.
    ///
    /// A block at a height that was passed already, without its having been disconnected, is one given again after a
    /// restart: fundings are looked for in it, and the height stays.
    pub(crate) fn chain_event(&mut self, event: &ChainEvent) -> Vec<Input> {
        match event {
            ChainEvent::Connected { height, block } => self.block_connected(*height, block),
            ChainEvent::Disconnected { height, .. } => vec![self.block_disconnected(*height)],
        }
    }

    fn block_connected(&mut self, height: BlockHeight, block: &Block) -> Vec<Input> {
        self.height = self.height.max(height);
        let mut spent = Vec::new();
        if !self.fundings.is_empty() {
            for (index, transaction) in (0..).zip(&block.txdata) {
                self.find_fundings(height, index, transaction);
                let outpoints = transaction.input.iter().map(|input| input.previous_output);
                for outpoint in outpoints.filter(|outpoint| self.fundings.contains_key(outpoint)) {
                    spent.push(Input::FundingSpent { outpoint, height, transaction: transaction.clone() });
                }
            }
        }
        let depths = self.fundings.iter().filter_map(|(outpoint, funding)| {
            let place = funding.place.as_ref()?;
            let depth = self.height.blocks_above(place.height) + 1;
            (depth <= funding.reported_depth_max).then(|| confirmation(outpoint, place, depth))
        });
        let confirmations = depths.collect();
        [Input::Block { height: self.height, confirmations }].into_iter().chain(spent).collect()
    }

    fn find_fundings(&mut self, height: BlockHeight, index: u32, transaction: &Transaction) {
        let txid = transaction.compute_txid();
        let all = OutPoint::new(txid, 0)..=OutPoint::new(txid, u32::MAX);
        for (outpoint, funding) in self.fundings.range_mut(all) {
            funding.place = place(height, index, transaction, outpoint.vout);
        }
    }

    /// The fundings of the block that is gone have depth 0; each is found again when another block has it.
    fn block_disconnected(&mut self, height: BlockHeight) -> Input {
        self.height = BlockHeight(height.0.saturating_sub(1));
        let mut confirmations = Vec::new();
        for (outpoint, funding) in &mut self.fundings {
            if let Some(gone) = funding.place.take_if(|place| place.height >= height) {
                confirmations.push(confirmation(outpoint, &gone, 0));
            }
        }
        Input::Block { height: self.height, confirmations }
    }
}

fn confirmation(outpoint: &OutPoint, place: &Place, depth: u32) -> Confirmation {
    let Place { scid, output, .. } = place;
    let txid = Txid(outpoint.txid.to_byte_array());
    Confirmation { txid, scid: *scid, depth, output: output.clone() }
}

/// The funding output that the channel's terms ask for.
fn funding_output(channel: &Channel) -> Option<TxOut> {
    let (ours, theirs) = channel.funding_pubkeys()?;
    let value = Amount::from_sat(channel.capacity()?.0);
    Some(TxOut { value, script_pubkey: funding_output_script(&ours, &theirs) })
}

/// The output that a transaction at this place has at an index that a peer named; it may have none there.
fn place(height: BlockHeight, index: u32, transaction: &Transaction, vout: u32) -> Option<Place> {
    let output = transaction.output.get(usize::try_from(vout).ok()?)?;
    // BOLT 2 carries a funding output's index in 16 bits, so that a larger one never comes to be a channel.
    let scid = Scid::new(height.0, index, u16::try_from(vout).ok()?)?;
    Some(Place { height, scid, output: output.clone() })
}

#[cfg(test)]
mod tests;
