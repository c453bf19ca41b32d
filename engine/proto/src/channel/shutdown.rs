//! Starting to close (BOLT 2, "Closing Initiation: `shutdown`").
//!
//! Owns: the allowed forms of closing scripts, the script committed to when opening, and when `shutdown` may leave.
//! Does not: negotiate the closing fee; see [`negotiate`](super::negotiate).

use fulmen_wire::message::{Message, Shutdown};
use fulmen_wire::tlv::UnknownTlvs;

use super::command::ChannelCommandError;
use super::config::NegotiatedFeatures;
use super::delta::Delta;
use super::effect::Plan;
use super::error::ChannelError;
use super::funded::{Funded, Link};
use super::htlc::{Side, Stage};

impl Funded {
    /// Plans the peer's `shutdown`, and to answer it.
    pub(super) fn plan_shutdown(&self, message: &Shutdown) -> Result<Plan, ChannelError> {
        let found = &message.scriptpubkey;
        if let Some(expected) = &self.shutdown.received {
            // Sent again after a reconnection, and only then.
            return if expected == found { Ok(Plan::default()) } else { Err(mismatch(expected, found)) };
        }
        if !is_allowed(found, &self.params.agreed.features) {
            return Err(ChannelError::ShutdownScriptForm(found.clone()));
        }
        if let Some(expected) =
            self.params.agreed.remote_shutdown_scriptpubkey.as_ref().filter(|it| *it != found)
        {
            return Err(mismatch(expected, found));
        }
        if self.updates.any_add_at(Side::Remote, Stage::Proposed) {
            return Err(ChannelError::ShutdownWithPendingUpdates);
        }
        let mut plan = Plan::of(Delta::Shutdown { by: Side::Remote, scriptpubkey: found.clone() });
        if self.shutdown.wanted.is_none() {
            let scriptpubkey = self.params.agreed.config.shutdown_scriptpubkey.clone();
            if !is_allowed(&scriptpubkey, &self.params.agreed.features) {
                return Err(ChannelError::OwnShutdownScriptForm);
            }
            plan.deltas.push(Delta::ShutdownWanted { scriptpubkey });
        }
        Ok(plan)
    }

    /// Plans to shut down as soon as our updates are signed.
    pub(super) fn plan_shutdown_wanted(
        &self,
        scriptpubkey: Option<&[u8]>,
    ) -> Result<Plan, ChannelCommandError> {
        if self.shutdown.wanted.is_some() {
            return Err(ChannelCommandError::AlreadyShuttingDown);
        }
        let config = &self.params.agreed.config;
        let scriptpubkey = scriptpubkey.unwrap_or(&config.shutdown_scriptpubkey);
        if !is_allowed(scriptpubkey, &self.params.agreed.features) {
            return Err(ChannelCommandError::ShutdownScriptForm(scriptpubkey.to_vec()));
        }
        if config.commit_shutdown_script && scriptpubkey != config.shutdown_scriptpubkey {
            return Err(ChannelCommandError::ShutdownScriptMismatch);
        }
        Ok(Plan::of(Delta::ShutdownWanted { scriptpubkey: scriptpubkey.to_vec() }))
    }

    /// Plans the `shutdown` that is wanted, once no update of ours waits to be signed.
    pub(super) fn plan_shutdown_due(&self) -> Option<Plan> {
        let scriptpubkey = self.shutdown.wanted.as_ref()?;
        let pending = self.updates.any_at(Side::Local, Stage::Proposed);
        if self.shutdown.sent.is_some() || self.link != Link::Up || pending {
            return None;
        }
        let mut plan = Plan::of(Delta::Shutdown { by: Side::Local, scriptpubkey: scriptpubkey.clone() });
        plan.send.push(self.shutdown_message(scriptpubkey));
        Some(plan)
    }

    /// Our `shutdown`.
    pub(super) fn shutdown_message(&self, scriptpubkey: &[u8]) -> Message {
        let message = Shutdown {
            channel_id: self.params.channel_id,
            scriptpubkey: scriptpubkey.to_vec(),
            unknown: UnknownTlvs::default(),
        };
        message.into()
    }
}

/// Whether a closing script has one of the forms that BOLT 2 allows.
pub(super) fn is_allowed(script: &[u8], features: &NegotiatedFeatures) -> bool {
    match *script {
        [0x00, 20, ref program @ ..] => program.len() == 20,
        [0x00, 32, ref program @ ..] => program.len() == 32,
        [0x51..=0x60, length @ 2..=40, ref program @ ..] => {
            features.shutdown_anysegwit && program.len() == usize::from(length)
        }
        _ => false,
    }
}

fn mismatch(expected: &[u8], found: &[u8]) -> ChannelError {
    ChannelError::ShutdownScriptMismatch { expected: expected.to_vec(), found: found.to_vec() }
}
