//! Answers of peers that do not come (BOLT 2: `revoke_and_ack`, `closing_signed` and others).
//!
//! Owns the reaction when a channel has waited too long for an answer: a warning and a new connection, on which the
//! peer sends the answer again. A channel fails only where BOLT 2 asks for it (`closing_signed`, "after a reasonable
//! amount of time"), and while it is opened, which costs nothing. Does not keep the times; `answers` does. Does not
//! know when an HTLC must be resolved; see `blocks`.

use fulmen_wire::message::Warning;
use fulmen_wire::units::ChannelId;

use super::answers::Overdue;
use super::open_turn::OpenTurn;
use crate::channel::{ChannelCommand, ChannelError};
use crate::forward::shard::Shard;

impl Shard {
    /// Reacts to answers that are overdue.
    pub(crate) fn demand_answers(&mut self, turn: &mut OpenTurn) {
        let (answers, channels) = (&mut self.answers, &self.state.channels);
        answers.retain(|channel_id| channels.contains_key(channel_id));
        let overdue: Vec<(ChannelId, Overdue)> = channels
            .iter()
            .filter_map(|(channel_id, entry)| {
                let overdue =
                    answers.look(*channel_id, &entry.channel, turn.now, &self.config.answer_timeouts);
                Some((*channel_id, overdue?))
            })
            .collect();
        for (channel_id, overdue) in overdue {
            // An earlier one may have ended the connection.
            let Some(entry) = self.state.channels.get(&channel_id) else { continue };
            let peer = entry.peer;
            match overdue {
                Overdue::Fail(answer) => {
                    let overdue = ChannelCommand::AnswerOverdue { answer };
                    self.command_channel_if_possible(turn, channel_id, overdue);
                }
                Overdue::Reconnect(answer) if self.peers.contains_key(&peer) => {
                    let text = ChannelError::AnswerOverdue(answer).to_string();
                    tracing::debug!(%channel_id, %peer, text, "connection ended");
                    self.send(turn, peer, Warning::new(channel_id, &text));
                    self.drop_peer(turn, peer);
                }
                Overdue::Reconnect(_) => {}
            }
        }
    }
}
