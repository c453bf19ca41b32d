//! Fee rates of commitments, held against that of the chain (BOLT 2 "Updating Fees: `update_fee`", "The `open_channel`
//! Message").
//!
//! Owns: our own rate following the chain's, and the least rate of a peer. Does not know absolute bounds; the channel
//! does.
//!
//! With anchors a commitment only has to be relayed, since either side can bump its fee afterwards; so the least rate
//! of a peer depends on the chain's in channels without them alone.

use fulmen_wire::units::{ChannelId, FeeratePerKw};

use super::open_turn::OpenTurn;
use crate::channel::{self, ChannelError, Side};
use crate::commitment::ChannelType;
use crate::forward::shard::Shard;

/// A peer's rate without anchors may be this many times below the chain's: estimates of honest nodes differ.
const PEER_RATE_DIVISOR: u32 = 4;
/// Our own rate is updated when it differs from the chain's by more than this part of itself: each update costs both
/// sides a commitment.
const OWN_RATE_DIVISOR: u32 = 5;

impl Shard {
    /// Takes a new estimate, which the channels we opened follow.
    pub(crate) fn set_feerate(&mut self, turn: &mut OpenTurn, feerate: FeeratePerKw) {
        self.feerate = Some(feerate);
        let limits = &self.config.channel.limits;
        let target = feerate.clamp(limits.feerate_min, limits.feerate_max);
        let strays = |rate: FeeratePerKw| rate.0.abs_diff(target.0) > rate.0 / OWN_RATE_DIVISOR;
        let channels = self.state.channels.iter().filter(|(_, entry)| {
            entry.channel.opener() == Side::Local
                && entry.channel.state() == channel::State::Normal
                && entry.channel.is_connected()
                && entry.channel.feerate().is_some_and(strays)
        });
        let channels: Vec<ChannelId> = channels.map(|(channel_id, _)| *channel_id).collect();
        for channel_id in channels {
            let command = channel::ChannelCommand::UpdateFee { feerate: target };
            self.command_channel_if_possible(turn, channel_id, command);
        }
    }

    /// Checks a rate that a peer chose for a channel of this type.
    ///
    /// # Errors
    /// When a commitment with it would take too long to confirm.
    pub(crate) fn check_peer_feerate(
        &self,
        channel_type: Option<ChannelType>,
        found: FeeratePerKw,
    ) -> Result<(), ChannelError> {
        let estimate = self.feerate.filter(|_| channel_type == Some(ChannelType::StaticRemotekey));
        let min = FeeratePerKw(estimate.map_or(0, |estimate| estimate.0 / PEER_RATE_DIVISOR));
        if found < min { Err(ChannelError::FeerateTooLow { found, min }) } else { Ok(()) }
    }
}
