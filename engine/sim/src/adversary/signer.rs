//! A liar with its own signer: a peer that drives channel machines by hand.
//!
//! Owns the channels of such a peer. Its signatures are valid, and everything else is its choice: it adds HTLCs that it
//! cannot pay, raises the fee rate at any moment, acknowledges and never signs, signs and never revokes, or leaves a
//! channel half open. An engine behind a [`Tampering`](super::tamper::Tampering) link cannot, since it refuses to make
//! such updates. Does not sign commitments that pay less than nodes relay; it sends a made-up signature then.

use std::collections::BTreeMap;

use bitcoin::{OutPoint, Transaction, TxOut};
use fulmen_proto::channel::{
    Channel, ChannelCommand, ChannelConfig, ChannelEvent, Context, Delta, Htlc, NegotiatedFeatures,
    OpenRequest, Plan, Side, SignJob, Stage, State,
};
use fulmen_proto::commitment::ChannelType;
use fulmen_proto::keys::{ChannelSecrets, NodeSeed};
use fulmen_proto::payment::OutgoingPayment;
use fulmen_wire::message::{CommitmentSigned, Message, UpdateAddHtlc};
use fulmen_wire::units::{BlockHeight, ChainHash, ChannelId, FeeratePerKw, Msat, Sat, Scid, Signature};

use super::messages::update_fee;
use crate::chain::funding_transaction;

/// What a signer gives the network.
#[derive(Debug, Default)]
pub(super) struct Said {
    pub(super) send: Vec<Vec<u8>>,
    pub(super) broadcast: Vec<Transaction>,
}

/// A peer that signs for itself.
#[derive(Clone, Debug)]
pub(super) struct Signer {
    number: u16,
    seed: NodeSeed,
    channels: BTreeMap<ChannelId, Channel>,
    /// The funding outputs seen in the chain.
    places: BTreeMap<ChannelId, (Scid, TxOut)>,
    opened: u64,
    height: BlockHeight,
    /// Whether it signs commitments.
    pub(super) signs: bool,
    /// Whether it sends the `revoke_and_ack`s that it owes.
    pub(super) revokes: bool,
    /// Whether it gives funding transactions to the chain.
    pub(super) funds: bool,
}

impl Signer {
    pub(super) fn new(number: u16) -> Signer {
        Signer {
            number,
            seed: NodeSeed::new([0x5a ^ number as u8; 32]),
            channels: BTreeMap::new(),
            places: BTreeMap::new(),
            opened: 0,
            height: BlockHeight(0),
            signs: true,
            revokes: true,
            funds: true,
        }
    }

    /// A new connection: every channel is to be reestablished.
    pub(super) fn connected(&mut self) -> Said {
        let mut said = Said::default();
        for command in [
            ChannelCommand::Disconnected,
            ChannelCommand::Connected { features: NegotiatedFeatures::default() },
        ] {
            self.command_all(&command, &mut said);
        }
        said
    }

    /// Opens a channel, half of which is the victim's.
    pub(super) fn open(&mut self, channel_type: ChannelType, capacity: Sat) -> Said {
        let key_index = self.opened;
        self.opened += 1;
        let script = [&[0, 20][..], &[self.number as u8; 20]].concat();
        let mut config = ChannelConfig::new(ChainHash::REGTEST, script);
        config.channel_type = channel_type;
        config.minimum_depth = 1;
        config.max_dust_htlc_exposure = Msat::MAX_MONEY;
        let mut temporary_channel_id = ChannelId([0x77 ^ self.number as u8; 32]);
        temporary_channel_id.0[..8].copy_from_slice(&key_index.to_be_bytes());
        let request = OpenRequest {
            config,
            features: NegotiatedFeatures::default(),
            secrets: ChannelSecrets::derive(&self.seed, key_index),
            temporary_channel_id,
            funding: capacity,
            push: Msat(capacity.to_msat().0 / 2),
            feerate: FeeratePerKw(1_000),
        };
        let mut said = Said::default();
        if let Ok(created) = Channel::open(request) {
            self.channels.insert(temporary_channel_id, created.channel);
            said.send.extend(created.effects.send.iter().map(Message::encode));
        }
        said
    }

    /// Takes a message of the victim. One that its own state does not allow is ignored.
    pub(super) fn take(&mut self, bytes: &[u8]) -> Said {
        let mut said = Said::default();
        let Ok(message) = Message::decode(bytes) else { return said };
        let Some(channel_id) = message.channel_id() else { return said };
        let Some(channel) = self.channels.get(&channel_id) else { return said };
        if let Ok(plan) = channel.plan(&message, &self.context()) {
            self.apply(channel_id, plan, &mut said);
        }
        said
    }

    /// Signs what waits to be signed, if it signs at all.
    pub(super) fn commit(&mut self) -> Said {
        let mut said = Said::default();
        let ids: Vec<ChannelId> = self.channels.keys().copied().filter(|_| self.signs).collect();
        for channel_id in ids {
            while let Some(plan) =
                self.channels.get(&channel_id).and_then(|channel| channel.plan_turn_end(&self.context()))
            {
                self.apply(channel_id, plan, &mut said);
            }
        }
        said
    }

    /// Takes a block, in which its fundings may be.
    pub(super) fn block(&mut self, height: BlockHeight, transactions: &[Transaction]) -> Said {
        self.height = height;
        for (channel_id, channel) in &self.channels {
            let Some(OutPoint { txid, vout }) = channel.funding_outpoint() else { continue };
            let at = transactions.iter().position(|transaction| transaction.compute_txid() == txid);
            let place = at.and_then(|index| Scid::new(height.0, index as u32, vout as u16).zip(Some(index)));
            if let Some((scid, index)) = place {
                let output = transactions[index].output[vout as usize].clone();
                self.places.insert(*channel_id, (scid, output));
            }
        }
        let mut said = Said::default();
        for (channel_id, (scid, output)) in self.places.clone() {
            let depth = height.0 + 1 - scid.block();
            let confirmed = ChannelCommand::FundingConfirmed { scid, depth, output };
            self.command(channel_id, &confirmed, &mut said);
        }
        said
    }

    /// Asks for a fee rate on all its channels, affordable or not.
    pub(super) fn ask_fee(&mut self, feerate: FeeratePerKw) -> Said {
        let mut said = Said::default();
        for channel_id in self.usable() {
            let send = vec![update_fee(channel_id, feerate.0).into()];
            let deltas = vec![Delta::FeeUpdated { feerate }];
            self.apply(channel_id, Plan { deltas, send, ..Plan::default() }, &mut said);
        }
        said
    }

    /// Adds an HTLC on each of its channels, affordable or not.
    pub(super) fn add(&mut self, payment: &OutgoingPayment) -> Said {
        let &OutgoingPayment { amount, payment_hash, cltv_expiry, ref packet, .. } = payment;
        let mut said = Said::default();
        for channel_id in self.usable() {
            let Some(channel) = self.channels.get(&channel_id) else { continue };
            let message = UpdateAddHtlc {
                channel_id,
                id: channel.next_htlc_id(),
                amount_msat: amount,
                payment_hash,
                cltv_expiry,
                onion_routing_packet: packet.clone(),
                path_key: None,
                unknown: Default::default(),
            };
            let htlc = Htlc {
                id: message.id,
                amount,
                payment_hash,
                cltv_expiry,
                onion_routing_packet: Some(packet.clone()),
                path_key: None,
            };
            let deltas = vec![Delta::Added { by: Side::Local, htlc, over_dust_exposure: false }];
            self.apply(channel_id, Plan { deltas, send: vec![message.into()], ..Plan::default() }, &mut said);
        }
        said
    }

    /// Fails every HTLC that the victim has offered.
    pub(super) fn fail_all(&mut self) -> Said {
        let mut said = Said::default();
        for channel_id in self.usable() {
            let Some(channel) = self.channels.get(&channel_id) else { continue };
            let offered = channel.htlcs().filter(|entry| {
                entry.offered_by == Side::Remote
                    && entry.added == Stage::Irrevocable
                    && entry.removal.is_none()
            });
            let ids: Vec<u64> = offered.map(|entry| entry.htlc.id).collect();
            for id in ids {
                let fail = ChannelCommand::FailHtlc { id, reason: vec![0x5a; 292] };
                self.command(channel_id, &fail, &mut said);
            }
        }
        said
    }

    /// Wants to close its channels.
    pub(super) fn shut_down(&mut self) -> Said {
        let mut said = Said::default();
        self.command_all(&ChannelCommand::Shutdown { scriptpubkey: None }, &mut said);
        said
    }

    /// Signs nothing, and says so with as many signatures as HTLCs there may be.
    pub(super) fn sign_badly(&self, htlcs: u16) -> Said {
        let signature = Signature([0x11; 64]);
        let message = |channel_id| {
            Message::from(CommitmentSigned {
                channel_id,
                signature,
                htlc_signatures: vec![signature; usize::from(htlcs)],
                funding_txid: None,
                unknown: Default::default(),
            })
        };
        let send = self.usable().into_iter().map(|channel_id| message(channel_id).encode()).collect();
        Said { send, broadcast: Vec::new() }
    }

    /// The place of one of its usable channels.
    pub(super) fn scid(&self) -> Option<Scid> {
        self.channels.values().filter(|channel| channel.is_usable()).find_map(Channel::scid)
    }

    /// How many HTLCs the victim has offered it.
    pub(super) fn offered(&self) -> usize {
        self.channels.values().map(|channel| channel.in_flight(Side::Remote).0).sum()
    }

    fn usable(&self) -> Vec<ChannelId> {
        let open = self.channels.iter().filter(|(_, channel)| {
            channel.is_connected() && matches!(channel.state(), State::Normal | State::ShuttingDown)
        });
        open.map(|(channel_id, _)| *channel_id).collect()
    }

    fn context(&self) -> Context {
        Context { height: self.height, feerate: FeeratePerKw(1_000) }
    }

    fn command_all(&mut self, command: &ChannelCommand, said: &mut Said) {
        let ids: Vec<ChannelId> = self.channels.keys().copied().collect();
        ids.into_iter().for_each(|channel_id| self.command(channel_id, command, said));
    }

    fn command(&mut self, channel_id: ChannelId, command: &ChannelCommand, said: &mut Said) {
        let Some(channel) = self.channels.get(&channel_id) else { return };
        if let Ok(plan) = channel.plan_command(command) {
            self.apply(channel_id, plan, said);
        }
    }

    fn apply(&mut self, channel_id: ChannelId, plan: Plan, said: &mut Said) {
        let Some(channel) = self.channels.get_mut(&channel_id) else { return };
        let signatures: Vec<Signature> = plan.sign.iter().map(SignJob::sign).collect();
        let effects = channel.apply(plan, &signatures);
        let withheld = |message: &Message| matches!(message, Message::RevokeAndAck(_)) && !self.revokes;
        said.send.extend(effects.send.iter().filter(|message| !withheld(message)).map(Message::encode));
        if self.funds {
            said.broadcast.extend(effects.broadcast);
        }
        let mut channel_id = channel_id;
        for event in effects.events {
            match event {
                ChannelEvent::FundingNeeded { script_pubkey, amount } => {
                    let key_index = channel_id.0.first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes));
                    let number = 1 << 60 | u64::from(self.number) << 32 | key_index;
                    let transaction = funding_transaction(number, amount, script_pubkey.into());
                    self.command(channel_id, &ChannelCommand::Fund { transaction }, said);
                }
                ChannelEvent::IdAssigned { channel_id: permanent } => {
                    if let Some(channel) = self.channels.remove(&channel_id) {
                        self.channels.insert(permanent, channel);
                        channel_id = permanent;
                    }
                }
                ChannelEvent::FundingBroadcast { transaction } if self.funds => {
                    said.broadcast.push(transaction);
                }
                _ => {}
            }
        }
    }
}
