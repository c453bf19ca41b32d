//! Two channels that talk to each other in serialized messages, and the helpers that all their tests share.
//!
//! Owns: the harness. The tests stand beside it, one file a phase. Each plan that a test applies is checked here as a
//! driver would, its signatures are made and verified, its deltas are recorded, and the record is replayed.

mod closing;
mod crossing;
mod errors;
mod hostile;
mod normal;
mod opening;
mod reestablish;
mod refusals;
mod walk;

use std::collections::VecDeque;

use bitcoin::hashes::{Hash, sha256};
use bitcoin::{Amount, ScriptBuf, Transaction, TxOut, absolute, transaction};
use fulmen_wire::message::Message;
use fulmen_wire::onion::OnionPacket;
use fulmen_wire::units::{
    BlockHeight, ChainHash, ChannelId, FeeratePerKw, Msat, PaymentHash, PaymentPreimage, Sat, Scid,
};

use super::updates::View;
use super::{
    AcceptRequest, Channel, ChannelCommand, ChannelCommandError, ChannelConfig, ChannelEffects, ChannelError,
    ChannelEvent, Context, Delta, NegotiatedFeatures, OpenRequest, Phase, Plan, Side, State,
};
use crate::commitment::ChannelType;
use crate::keys::{ChannelSecrets, NodeSeed};

const CONTEXT: Context = Context { height: BlockHeight(100), feerate: FeeratePerKw(1000) };
const FUNDING: Sat = Sat(1_000_000);
const FEERATE: FeeratePerKw = FeeratePerKw(1000);

/// The parameters in which the channels of the tests differ.
#[derive(Clone)]
struct Setup {
    a: ChannelConfig,
    b: ChannelConfig,
    features: NegotiatedFeatures,
    funding: Sat,
    push: Msat,
    feerate: FeeratePerKw,
}

impl Setup {
    fn new(channel_type: ChannelType) -> Setup {
        let config = |byte: u8| {
            let mut script = vec![0x00, 20];
            script.extend([byte; 20]);
            ChannelConfig { channel_type, ..ChannelConfig::new(ChainHash::REGTEST, script) }
        };
        Setup {
            a: config(0xaa),
            b: config(0xbb),
            features: NegotiatedFeatures::default(),
            funding: FUNDING,
            push: Msat(400_000_000),
            feerate: FEERATE,
        }
    }

    fn open_request(&self) -> OpenRequest {
        OpenRequest {
            config: self.a.clone(),
            features: self.features,
            secrets: secrets(1),
            temporary_channel_id: ChannelId([9; 32]),
            funding: self.funding,
            push: self.push,
            feerate: self.feerate,
        }
    }

    fn accept_request(&self) -> AcceptRequest {
        AcceptRequest { config: self.b.clone(), features: self.features, secrets: secrets(2) }
    }
}

fn secrets(node: u8) -> ChannelSecrets {
    ChannelSecrets::derive(&NodeSeed::new([node; 32]), 0)
}

fn preimage(number: u64) -> PaymentPreimage {
    let mut bytes = [7; 32];
    bytes[..8].copy_from_slice(&number.to_be_bytes());
    PaymentPreimage(bytes)
}

fn hash_of(preimage: &PaymentPreimage) -> PaymentHash {
    PaymentHash(sha256::Hash::hash(&preimage.0).to_byte_array())
}

fn add(amount: Msat, number: u64) -> ChannelCommand {
    ChannelCommand::AddHtlc {
        amount,
        payment_hash: hash_of(&preimage(number)),
        cltv_expiry: BlockHeight(500 + (number % 7) as u32),
        onion_routing_packet: OnionPacket::from_bytes(Box::new([number as u8; 1366])),
        path_key: None,
    }
}

/// One channel, its record, its messages and its events.
struct Node {
    secrets: ChannelSecrets,
    channel: Channel,
    record: Vec<Delta>,
    sent: VecDeque<Vec<u8>>,
    events: Vec<ChannelEvent>,
    broadcast: Vec<Transaction>,
}

impl Node {
    fn new(secrets: ChannelSecrets, created: super::Created) -> Node {
        let mut node = Node {
            secrets,
            channel: created.channel,
            record: created.deltas,
            sent: VecDeque::new(),
            events: Vec::new(),
            broadcast: Vec::new(),
        };
        node.execute(created.effects);
        node
    }

    fn execute(&mut self, effects: ChannelEffects) {
        self.sent.extend(effects.send.iter().map(Message::encode));
        self.events.extend(effects.events);
        self.broadcast.extend(effects.broadcast);
    }

    /// Checks and applies a plan as a driver does.
    fn run(&mut self, plan: Plan) -> Result<(), ChannelError> {
        if let Some(index) = fulmen_secp::verify_all(&plan.verify).invalid().next() {
            return Err(plan.bad_signature(index));
        }
        let signatures: Vec<_> = plan.sign.iter().map(super::SignJob::sign).collect();
        self.record.extend(plan.deltas.iter().cloned());
        let effects = self.channel.apply(plan, &signatures);
        self.execute(effects);
        self.check_funds();
        Ok(())
    }

    /// Every commitment holds exactly the channel's capacity.
    fn check_funds(&self) {
        if let Some(funded) = self.channel.funded() {
            for (owner, view) in [
                (Side::Local, View::LOCAL_LATEST),
                (Side::Local, View::LOCAL_NEXT),
                (Side::Remote, View::REMOTE_LATEST),
                (Side::Remote, View::REMOTE_NEXT),
                (Side::Local, View::PRUDENT),
                (Side::Local, View::IRREVOCABLE),
            ] {
                assert_eq!(
                    funded.spec(owner, view).total(),
                    funded.params.agreed.funding.to_msat(),
                    "{view:?}"
                );
            }
        }
    }

    /// The record gives the same channel again, and our latest commitment pays out the channel's capacity.
    fn check_record(&self) {
        let replayed = Channel::replay(self.secrets.clone(), self.record.clone()).expect("a record");
        let mut live = self.channel.clone();
        live.replay_end();
        assert_eq!(describe(replayed), describe(live));
        if let Some((commitment, signed)) = self.channel.signed_local_commitment() {
            let paid: u64 = signed.output.iter().map(|output| output.value.to_sat()).sum();
            assert_eq!(Some(Sat(paid + commitment.fee.0)), self.channel.capacity());
        }
    }

    fn receive(&mut self, message: &[u8]) -> Result<(), ChannelError> {
        let message = Message::decode(message).expect("our own messages decode");
        let plan = self.channel.plan(&message, &CONTEXT)?;
        self.run(plan)
    }

    fn react(&mut self, error: &ChannelError) {
        let plan = self.channel.plan_reaction(error);
        self.run(plan).expect("a reaction has nothing to verify");
    }

    fn command(&mut self, command: &ChannelCommand) -> Result<(), ChannelCommandError> {
        let plan = self.channel.plan_command(command)?;
        self.run(plan).expect("a command has nothing to verify");
        Ok(())
    }

    /// Sends the messages due at the end of a turn.
    fn commit(&mut self) {
        while let Some(plan) = self.channel.plan_turn_end(&CONTEXT) {
            self.run(plan).expect("a commitment of ours has nothing to verify");
        }
    }

    fn add(&mut self, amount: Msat, number: u64) -> u64 {
        let id = self.channel.next_htlc_id();
        self.command(&add(amount, number)).expect("the HTLC is within all limits");
        id
    }

    fn fulfill(&mut self, id: u64, number: u64) {
        self.command(&ChannelCommand::FulfillHtlc { id, preimage: preimage(number) }).expect("locked in");
    }

    fn take_events(&mut self) -> Vec<ChannelEvent> {
        std::mem::take(&mut self.events)
    }

    fn balances(&self) -> (Msat, Msat) {
        self.channel.balances().expect("the channel is funded")
    }
}

/// A channel's state in words, without cached results.
fn describe(mut channel: Channel) -> String {
    let funded = match &mut channel.phase {
        Phase::Confirming(funded) | Phase::Normal(funded) => Some(funded),
        Phase::Negotiating(negotiating) => Some(&mut negotiating.funded),
        Phase::Failed(failed) => failed.funded.as_mut(),
        _ => None,
    };
    if let Some(funded) = funded {
        funded.ahead.clear();
        funded.tallies.clear();
    }
    format!("{channel:?}")
}

/// Two nodes with one channel: `a` opened it.
struct Pair {
    a: Node,
    b: Node,
}

impl Pair {
    /// Just after `open_channel` and `accept_channel`, the latter not delivered yet.
    fn begin(setup: &Setup) -> Pair {
        let mut a = Node::new(secrets(1), Channel::open(setup.open_request()).expect("valid terms"));
        let open = a.sent.pop_front().expect("open_channel");
        let Message::OpenChannel(open) = Message::decode(&open).expect("decodes") else { panic!("not open") };
        let b = Node::new(secrets(2), Channel::accept(&open, setup.accept_request()).expect("acceptable"));
        Pair { a, b }
    }

    /// Funded, with the funding transaction yet to confirm.
    fn funded(setup: &Setup) -> Pair {
        let mut pair = Pair::begin(setup);
        pair.settle();
        let needed = pair.a.take_events();
        let [ChannelEvent::FundingNeeded { script_pubkey, amount }] = &needed[..] else {
            panic!("{needed:?}")
        };
        pair.a.command(&ChannelCommand::Fund { transaction: funding(script_pubkey, *amount) }).expect("pays");
        pair.settle();
        pair
    }

    /// Ready for use.
    fn ready(setup: &Setup) -> Pair {
        let mut pair = Pair::funded(setup);
        pair.confirm();
        pair.settle();
        assert_eq!(pair.a.channel.state(), State::Normal);
        assert_eq!(pair.b.channel.state(), State::Normal);
        pair.a.events.clear();
        pair.b.events.clear();
        pair
    }

    fn with_type(channel_type: ChannelType) -> Pair {
        Pair::ready(&Setup::new(channel_type))
    }

    fn confirmed(&self, depth: u32) -> ChannelCommand {
        let funding = self.a.channel.funding_transaction().expect("it is the opener's");
        ChannelCommand::FundingConfirmed { scid: scid(), depth, output: funding.output[1].clone() }
    }

    fn confirm(&mut self) {
        let confirmed = self.confirmed(6);
        self.a.command(&confirmed).expect("confirms");
        self.b.command(&confirmed).expect("confirms");
    }

    /// Delivers one message from `a` to `b`; false when there is none.
    fn a_to_b(&mut self) -> bool {
        let Some(message) = self.a.sent.pop_front() else { return false };
        self.b.receive(&message).unwrap_or_else(|error| panic!("b: {error}"));
        true
    }

    /// Delivers one message from `b` to `a`; false when there is none.
    fn b_to_a(&mut self) -> bool {
        let Some(message) = self.b.sent.pop_front() else { return false };
        self.a.receive(&message).unwrap_or_else(|error| panic!("a: {error}"));
        true
    }

    /// Delivers one message, of `a` if that has one and the choice is `a_first`; false when there is none.
    fn deliver_one(&mut self, a_first: bool) -> bool {
        match (a_first, self.a.sent.is_empty(), self.b.sent.is_empty()) {
            (true, false, _) | (false, false, true) => self.a_to_b(),
            _ => self.b_to_a(),
        }
    }

    /// Lets both sides talk until neither has anything to say.
    fn settle(&mut self) {
        loop {
            self.a.commit();
            self.b.commit();
            if !self.a_to_b() && !self.b_to_a() {
                break;
            }
        }
        self.a.check_record();
        self.b.check_record();
    }

    /// Loses the connection and all messages on it.
    fn disconnect(&mut self) {
        for node in [&mut self.a, &mut self.b] {
            node.command(&ChannelCommand::Disconnected).expect("always possible");
            node.sent.clear();
        }
    }

    fn connect(&mut self) {
        for node in [&mut self.a, &mut self.b] {
            node.command(&connected()).expect("always possible");
        }
    }

    fn reconnect(&mut self) {
        self.disconnect();
        self.connect();
        self.settle();
    }

    /// An HTLC of `a` that both sides have irrevocably committed.
    fn locked_in(&mut self, amount: Msat, number: u64) -> u64 {
        let id = self.a.add(amount, number);
        self.settle();
        assert!(
            self.b
                .take_events()
                .iter()
                .any(|event| matches!(event, ChannelEvent::AddLockedIn { htlc, .. } if htlc.id == id))
        );
        id
    }
}

fn connected() -> ChannelCommand {
    ChannelCommand::Connected { features: NegotiatedFeatures::default() }
}

fn scid() -> Scid {
    Scid::new(100, 1, 0).expect("fits")
}

/// A transaction that pays the funding output, its input made up.
fn funding(script_pubkey: &[u8], amount: Sat) -> Transaction {
    let change = TxOut { value: Amount::from_sat(77), script_pubkey: ScriptBuf::new() };
    let output =
        TxOut { value: Amount::from_sat(amount.0), script_pubkey: ScriptBuf::from(script_pubkey.to_vec()) };
    Transaction {
        version: transaction::Version::TWO,
        lock_time: absolute::LockTime::ZERO,
        input: vec![bitcoin::TxIn::default()],
        output: vec![change, output],
    }
}
