//! The answers that channels await from their peers, and since when.
//!
//! Owns the times, and which wait is too long. Does not react; see `overdue`.
//!
//! The times are seen at ticks, so that each wait lasts up to a second longer. They are no durable state: a restart
//! ends all connections, and waiting begins anew.

use std::collections::BTreeMap;

use fulmen_wire::units::ChannelId;

use crate::channel::{AwaitedAnswer, Channel};
use crate::forward::terms::config::AnswerTimeouts;
use crate::forward::terms::time::Now;
use crate::keys::CommitmentNumber;

/// The answers that channels await, and since when.
#[derive(Debug, Default)]
pub(crate) struct AwaitedAnswers {
    waiting: BTreeMap<ChannelId, Waiting>,
}

/// One channel's wait.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    awaited: Awaited,
    since: Now,
    /// Since when a closing transaction is not agreed on, connected or not.
    closing_since: Option<Now>,
}

/// The answer that a channel awaits, told apart from the same kind of answer to another message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Awaited {
    answer: AwaitedAnswer,
    /// The peer's latest commitment, which a `revoke_and_ack` is for.
    commitment: Option<CommitmentNumber>,
    is_connected: bool,
}

/// What is to be done about a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Overdue {
    /// Warn the peer and break the connection.
    Reconnect(AwaitedAnswer),
    /// Fail the channel.
    Fail(AwaitedAnswer),
}

impl AwaitedAnswers {
    /// Forgets the channels that are gone.
    pub(crate) fn retain(&mut self, is_there: impl Fn(&ChannelId) -> bool) {
        self.waiting.retain(|channel_id, _| is_there(channel_id));
    }

    /// Notes what a channel awaits now, and says whether it has waited too long.
    pub(crate) fn look(
        &mut self,
        channel_id: ChannelId,
        channel: &Channel,
        now: Now,
        timeouts: &AnswerTimeouts,
    ) -> Option<Overdue> {
        let Some(awaited) = awaited(channel) else {
            self.waiting.remove(&channel_id);
            return None;
        };
        let answer = awaited.answer;
        let is_closing = answer == AwaitedAnswer::ClosingSigned;
        let new = Waiting { awaited, since: now, closing_since: is_closing.then_some(now) };
        let waiting = self.waiting.entry(channel_id).or_insert(new);
        if waiting.awaited != awaited {
            let closing_since = waiting.closing_since.or(new.closing_since).filter(|_| is_closing);
            *waiting = Waiting { closing_since, ..new };
        }
        let is_over = |since: Now, timeout_ms| now.unix_ms.saturating_sub(since.unix_ms) >= timeout_ms;
        match answer {
            AwaitedAnswer::AcceptChannel | AwaitedAnswer::FundingCreated | AwaitedAnswer::FundingSigned => {
                is_over(waiting.since, timeouts.opening_ms).then_some(Overdue::Fail(answer))
            }
            _ if waiting.closing_since.is_some_and(|since| is_over(since, timeouts.closing_ms)) => {
                Some(Overdue::Fail(answer))
            }
            _ => {
                let is_late = is_over(waiting.since, timeouts.answer_ms);
                // A channel that is not connected has nobody to warn.
                (is_late && (awaited.is_connected || answer == AwaitedAnswer::ChannelReestablish))
                    .then_some(Overdue::Reconnect(answer))
            }
        }
    }
}

fn awaited(channel: &Channel) -> Option<Awaited> {
    let answer = channel.awaited_answer()?;
    // A peer may keep its `shutdown` until the last HTLC is gone.
    if answer == AwaitedAnswer::Shutdown && channel.htlcs().next().is_some() {
        return None;
    }
    let commitment = channel.commitment_numbers().map(|(_, remote)| remote);
    Some(Awaited { answer, commitment, is_connected: channel.is_connected() })
}
