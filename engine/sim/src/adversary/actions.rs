//! The effect of each action on the world.

use fulmen_proto::channel::Side;
use fulmen_proto::commitment::ChannelType;
use fulmen_proto::forward::Command;
use fulmen_wire::message::Message;
use fulmen_wire::units::{ChannelId, FeeratePerKw, Msat, NodeId, Sat};

use super::honest::Destination;
use super::messages;
use super::script::{Action, Attacker, Payee, SignerAction};
use super::world::{HONEST, LIARS, VICTIM, World};
use crate::draw::Draw;
use crate::payment::NumberedPayment;
use crate::violation::Violation;

/// The series of liars' payments, apart from the honest ones.
const LIARS_SERIES: u8 = 0xbb;
/// The series of payments to signers.
const SIGNERS_SERIES: u8 = 0xcc;
/// The attempt ids of these, apart from the others of liars.
const SIGNERS_ATTEMPT: u64 = 1 << 31;

impl World {
    /// Has an adversary act. Rounds that pass within are not checked; whoever calls checks after it.
    pub(super) fn perform(&mut self, action: &Action) -> Result<(), Violation> {
        match *action {
            Action::Connect { attacker, init } => self.connect_attacker(attacker, init),
            Action::Disconnect(attacker) => self.disconnect(self.attacker(attacker)),
            Action::Hostile { attacker, count, seed } => {
                let mut draw = Draw::new(seed);
                let mut channels = self.channel_ids(VICTIM);
                channels.sort();
                self.each(attacker, count, |_| messages::hostile(&mut draw, &channels));
            }
            Action::Pings { attacker, count, pong_bytes } => {
                let ping = Message::from(messages::ping(pong_bytes)).encode();
                self.each(attacker, count, |_| ping.clone());
            }
            Action::OpenChannels { attacker, count, padding, seed } => {
                let mut draw = Draw::new(seed);
                self.each(attacker, count, |_| {
                    Message::from(messages::open_channel(&mut draw, padding)).encode()
                });
            }
            Action::Error { attacker, text_bytes } => {
                let error = Message::from(messages::error(ChannelId([0; 32]), text_bytes)).encode();
                self.each(attacker, 1, |_| error.clone());
            }
            Action::Pay { liar, payee, count, amount_msat, seed } => {
                self.pay_over(liar, payee, count, Msat(amount_msat), seed);
            }
            Action::Withhold { liar, message_type, withhold: true } => {
                self.tampering[liar].withheld.insert(message_type);
            }
            Action::Withhold { liar, message_type, withhold: false } => {
                self.tampering[liar].withheld.remove(&message_type);
            }
            Action::Silence { liar, silent } => self.tampering[liar].silent = silent,
            Action::Stretch { liar, reason_bytes } => self.tampering[liar].reason_bytes = reason_bytes,
            Action::Repeat { liar, count } => self.tampering[liar].repeat = count,
            Action::Flip { liar, bit } => self.tampering[liar].flip = Some(bit),
            Action::Sign { signer, action, seed } => self.signer_acts(signer, action, seed),
            Action::UpdateFee { liar, feerate } => self.update_fee(liar, FeeratePerKw(feerate)),
            Action::Close { liar } => {
                if let Some(channel_id) = self.channel_ids(LIARS[liar]).first().copied() {
                    self.command(LIARS[liar], Command::CloseChannel { channel_id, script: None });
                }
            }
            Action::Mine { blocks } => (0..blocks).for_each(|_| self.mine()),
            Action::Wait { rounds } => {
                for _ in 0..rounds {
                    self.round()?;
                }
            }
            Action::Crash { operation, seed } => self.crash_at(u64::from(operation), seed),
        }
        Ok(())
    }

    fn attacker(&self, attacker: Attacker) -> NodeId {
        match attacker {
            Attacker::Liar(liar) => self.id(LIARS[liar]),
            Attacker::Stranger(number) => messages::stranger(number),
        }
    }

    fn connect_attacker(&mut self, attacker: Attacker, init: bool) {
        let peer = self.attacker(attacker);
        match attacker {
            Attacker::Liar(liar) => {
                self.disconnect(peer);
                self.connect(LIARS[liar]);
            }
            Attacker::Stranger(_) => {
                self.open(peer);
                // Any node's features will do.
                let init_bytes = self.machines[HONEST[0]].engine.init();
                self.send(peer, if init { init_bytes } else { Message::from(messages::ping(0)).encode() });
            }
        }
    }

    /// Sends `count` messages, connecting first if need be.
    fn each(&mut self, attacker: Attacker, count: u16, mut message: impl FnMut(u16) -> Vec<u8>) {
        let peer = self.attacker(attacker);
        if !self.is_up(peer) {
            self.connect_attacker(attacker, true);
        }
        (0..count).for_each(|number| self.send(peer, message(number)));
    }

    fn pay_over(&mut self, liar: usize, payee: Payee, count: u16, amount: Msat, seed: u64) {
        let (from, other) = (LIARS[liar], LIARS[1 - liar]);
        let to = match payee {
            Payee::Accomplice | Payee::RefusingAccomplice => Destination::Machine(other),
            Payee::Honest => Destination::Machine(HONEST[0]),
            Payee::Nobody => Destination::Nowhere,
            Payee::Victim => Destination::Victim,
        };
        for number in 0..u64::from(count) {
            let payment = NumberedPayment::new(LIARS_SERIES, seed << 32 | number, amount);
            if payee == Payee::Accomplice {
                self.command(other, Command::ExpectPayment(payment.invoice()));
            }
            self.pay(payment, from, to, number);
        }
    }

    fn signer_acts(&mut self, signer: usize, action: SignerAction, seed: u64) {
        if !self.is_up(messages::signer(signer as u16)) {
            self.connect_signer(signer);
        }
        let signing = &mut self.signers[signer];
        let said = match action {
            SignerAction::Reconnect => {
                self.connect_signer(signer);
                return;
            }
            SignerAction::Open { anchors, funds } => {
                signing.funds = funds;
                let kind = if anchors { ChannelType::Anchors } else { ChannelType::StaticRemotekey };
                signing.open(kind, Sat(1_000_000))
            }
            SignerAction::Signs(signs) => {
                signing.signs = signs;
                return;
            }
            SignerAction::Revokes(revokes) => {
                signing.revokes = revokes;
                return;
            }
            SignerAction::Fee { feerate } => signing.ask_fee(FeeratePerKw(feerate)),
            SignerAction::SignBadly { htlcs } => signing.sign_badly(htlcs),
            SignerAction::FailAll => signing.fail_all(),
            SignerAction::ShutDown => signing.shut_down(),
            SignerAction::Add { count, amount_msat } => {
                for number in 0..u64::from(count) {
                    let payment = NumberedPayment::new(LIARS_SERIES, seed << 32 | number, Msat(amount_msat));
                    let to = Destination::Machine(HONEST[0]);
                    let Some(first) = self.signers[signer].scid() else { return };
                    let Some(outgoing) = self.routed(payment, first, to) else { return };
                    let said = self.signers[signer].add(&outgoing);
                    self.utter(signer, said);
                }
                return;
            }
            SignerAction::Receive { liar, count, amount_msat } => {
                for number in 0..u64::from(count) {
                    // A series of its own: these must not be replays of others.
                    let payment =
                        NumberedPayment::new(SIGNERS_SERIES, seed << 32 | number, Msat(amount_msat));
                    self.pay(payment, LIARS[liar], Destination::Signer(signer), SIGNERS_ATTEMPT | number);
                }
                return;
            }
        };
        self.utter(signer, said);
    }

    fn update_fee(&mut self, liar: usize, feerate: FeeratePerKw) {
        let mut opened = Vec::new();
        self.machines[LIARS[liar]].engine.for_each_shard(|shard| {
            let ours = shard.channels().filter(|channel| channel.opener() == Side::Local);
            opened.extend(ours.map(|channel| channel.id()));
        });
        for channel_id in opened {
            self.command(LIARS[liar], Command::UpdateFee { channel_id, feerate });
        }
    }
}
