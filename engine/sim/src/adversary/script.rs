//! Scripts: the actions of the adversaries, drawn from a seed within a budget of bytes.
//!
//! Owns the grammar of actions and their draw. Each action carries a seed for its own details, so that a script with
//! some actions removed still does the same in those that are left: this is what makes a failing script shrink.

use crate::draw::Draw;

/// The most bytes a reason can have in an `update_fail_htlc`.
const REASON_BYTES_MAX: u16 = 65_491;

/// Who acts: an engine with channels that lies, or an id with no channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attacker {
    /// One of the two lying engines, 0 or 1. Both have channels with the victim.
    Liar(usize),
    /// A node id that anybody can make up.
    Stranger(u16),
}

/// Where a liar's payment goes, over the victim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Payee {
    /// The other liar, which fulfills it.
    Accomplice,
    /// The other liar, which fails it.
    RefusingAccomplice,
    /// An honest node, which knows no such payment.
    Honest,
    /// A channel that does not exist.
    Nobody,
    /// The victim itself, with the preimage in the onion.
    Victim,
}

/// Something that a peer does which signs for itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignerAction {
    /// Connects (again).
    Reconnect,
    /// Opens one more channel.
    Open {
        /// Whether it has anchors.
        anchors: bool,
        /// Whether the funding transaction is given to the chain, here and until the next opening.
        funds: bool,
    },
    /// Signs commitments, or stops doing so; it acknowledges all the same.
    Signs(bool),
    /// Sends `revoke_and_ack`, or stops doing so; it signs all the same.
    Revokes(bool),
    /// Asks for a fee rate, whether it can pay it or not.
    Fee {
        /// The rate in sat per 1,000 weight.
        feerate: u32,
    },
    /// Adds HTLCs, whether it can pay them or not.
    Add {
        /// How many HTLCs.
        count: u16,
        /// Of how much each, in millisatoshi.
        amount_msat: u64,
    },
    /// Has a liar pay it over the victim.
    Receive {
        /// Which liar.
        liar: usize,
        /// How many HTLCs.
        count: u16,
        /// Of how much each, in millisatoshi.
        amount_msat: u64,
    },
    /// Sends a `commitment_signed` whose signatures are made up.
    SignBadly {
        /// How many signatures of HTLCs it has.
        htlcs: u16,
    },
    /// Fails every HTLC that it was offered.
    FailAll,
    /// Sends `shutdown`.
    ShutDown,
}

/// Something an adversary does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Action {
    /// Connects (again), with an `init` or with something else first.
    Connect {
        /// Who.
        attacker: Attacker,
        /// Whether the first message is an `init`.
        init: bool,
    },
    /// Closes the connection.
    Disconnect(Attacker),
    /// Sends messages of any kind with fields at their extremes.
    Hostile {
        /// Who.
        attacker: Attacker,
        /// How many messages.
        count: u16,
        /// The seed of the details.
        seed: u64,
    },
    /// Sends pings.
    Pings {
        /// Who.
        attacker: Attacker,
        /// How many.
        count: u16,
        /// The length of the pong asked for.
        pong_bytes: u16,
    },
    /// Proposes channels that are never funded.
    OpenChannels {
        /// Who.
        attacker: Attacker,
        /// How many.
        count: u16,
        /// Zero bytes before the `channel_type`.
        padding: u16,
        /// The seed of the details.
        seed: u64,
    },
    /// Sends an `error` about all channels.
    Error {
        /// Who.
        attacker: Attacker,
        /// The length of its text.
        text_bytes: u16,
    },
    /// Pays over the victim.
    Pay {
        /// Which liar.
        liar: usize,
        /// To whom.
        payee: Payee,
        /// How many HTLCs.
        count: u16,
        /// Of how much each, in millisatoshi.
        amount_msat: u64,
        /// The seed of hashes and onions; the same seed repeats the same onions.
        seed: u64,
    },
    /// Withholds messages of one type, or stops doing so.
    Withhold {
        /// Which liar.
        liar: usize,
        /// The message type.
        message_type: u16,
        /// Whether to withhold them from now on.
        withhold: bool,
    },
    /// Sends nothing, or starts sending again; messages in between are lost.
    Silence {
        /// Which liar.
        liar: usize,
        /// Whether to be silent from now on.
        silent: bool,
    },
    /// Stretches the reasons of the HTLCs it fails.
    Stretch {
        /// Which liar.
        liar: usize,
        /// The length of the reasons; zero leaves them.
        reason_bytes: u16,
    },
    /// Sends its next messages twice.
    Repeat {
        /// Which liar.
        liar: usize,
        /// How many messages.
        count: u8,
    },
    /// Flips a bit of its next message.
    Flip {
        /// Which liar.
        liar: usize,
        /// Which bit, modulo the length.
        bit: u32,
    },
    /// Asks for a fee rate in the channels it opened.
    UpdateFee {
        /// Which liar.
        liar: usize,
        /// The rate in sat per 1,000 weight.
        feerate: u32,
    },
    /// A peer that signs for itself acts, on all its channels.
    Sign {
        /// Which signer, 0 or 1. The channel of the first has no anchors.
        signer: usize,
        /// What it does.
        action: SignerAction,
        /// The seed of hashes and onions; the same seed repeats the onions of other liars.
        seed: u64,
    },
    /// Closes one of its channels by agreement.
    Close {
        /// Which liar.
        liar: usize,
    },
    /// Blocks are found.
    Mine {
        /// How many.
        blocks: u16,
    },
    /// Time passes.
    Wait {
        /// How many rounds of 20 ms.
        rounds: u16,
    },
    /// The victim's machine loses power.
    Crash {
        /// The operation of its disk, counted from now, that is the last.
        operation: u8,
        /// The seed of the surviving bytes.
        seed: u64,
    },
}

/// The actions of one run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Script {
    /// How many shards the victim has.
    pub shards: u16,
    /// The actions, in order.
    pub actions: Vec<Action>,
}

impl Script {
    /// The script that a seed stands for: actions until they cost `budget_bytes`, roughly.
    #[must_use]
    pub fn draw(seed: u64, budget_bytes: u64) -> Script {
        let mut draw = Draw::new(seed);
        let shards = draw.pick(&[1, 2, 3]);
        // A run has a mood: adversaries that do everything at once seldom get deep into one thing.
        let kinds: Vec<u64> = (0..draw.between(2, 6)).map(|_| draw.between(0, KINDS - 1)).collect();
        let (mut actions, mut bytes) = (Vec::new(), 0);
        while bytes < budget_bytes && actions.len() < ACTIONS_MAX {
            let kind = if draw.percent(70) { draw.pick(&kinds) } else { draw.between(0, KINDS - 1) };
            let action = Action::draw(&mut draw, kind);
            bytes += action.bytes();
            actions.push(action);
        }
        Script { shards, actions }
    }

    /// The script that any bytes stand for, for fuzzers.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Script {
        let mut draw = Draw::given(bytes);
        let shards = draw.pick(&[1, 2, 3]);
        let mut actions = Vec::new();
        while !draw.is_exhausted() && actions.len() < ACTIONS_MAX {
            let kind = draw.between(0, KINDS - 1);
            actions.push(Action::draw(&mut draw, kind));
        }
        Script { shards, actions }
    }
}

/// The kinds of actions that are drawn.
const KINDS: u64 = 20;

/// So many actions that a run ends although the drawn ones cost no bytes.
const ACTIONS_MAX: usize = 60;

impl Action {
    fn draw(draw: &mut Draw, kind: u64) -> Action {
        let liar = draw.index(2);
        let stranger = Attacker::Stranger(draw.between(0, 40) as u16);
        let attacker = if draw.percent(60) { Attacker::Liar(liar) } else { stranger };
        let seed = draw.between(0, u64::MAX - 1);
        match kind {
            0 => Action::Connect { attacker, init: draw.percent(90) },
            1 => Action::Disconnect(attacker),
            2 | 3 => Action::Hostile { attacker, count: draw.between(1, 30) as u16, seed },
            4 => Action::Pings {
                attacker,
                count: draw.pick(&[1, 50, 2_000]),
                pong_bytes: draw.pick(&[0, 1_000, 65_531, 65_535]),
            },
            5 => Action::OpenChannels {
                attacker: if draw.percent(70) { stranger } else { attacker },
                count: draw.pick(&[1, 20, 300]),
                padding: draw.pick(&[0, 0, 1, 60_000]),
                seed,
            },
            6 => Action::Error { attacker, text_bytes: draw.pick(&[0, 100, 65_400]) },
            7 | 8 => Action::Pay {
                liar,
                payee: draw.pick(&[
                    Payee::Accomplice,
                    Payee::RefusingAccomplice,
                    Payee::RefusingAccomplice,
                    Payee::Honest,
                    Payee::Nobody,
                    Payee::Victim,
                ]),
                count: draw.pick(&[1, 10, 60, 150]),
                amount_msat: draw.pick(&[1, 1_000, 400_000, 1_000_000, 3_000_000]),
                seed: seed % 3,
            },
            9 => Action::Withhold {
                liar,
                message_type: draw.pick(&[130, 131, 132, 132, 133, 133, 136, 39]),
                withhold: draw.percent(50),
            },
            10 => Action::Silence { liar, silent: draw.percent(50) },
            11 => Action::Stretch { liar, reason_bytes: draw.pick(&[0, 292, 2_000, REASON_BYTES_MAX]) },
            12 => {
                if draw.percent(50) {
                    Action::Repeat { liar, count: draw.between(1, 5) as u8 }
                } else {
                    Action::Flip { liar, bit: seed as u32 }
                }
            }
            13 => Action::UpdateFee { liar, feerate: draw.pick(&[253, 1_000, 10_000, 100_000, 250_000]) },
            14 => Action::Close { liar },
            15 => {
                if draw.percent(30) {
                    Action::Crash { operation: draw.between(0, 6) as u8, seed }
                } else {
                    Action::Mine { blocks: draw.pick(&[1, 6, 150]) }
                }
            }
            16 => Action::Wait { rounds: draw.pick(&[1, 10, 100]) },
            _ => Action::Sign { signer: draw.index(2), action: SignerAction::draw(draw), seed: seed % 3 },
        }
    }

    /// About how many bytes it sends to the victim.
    fn bytes(&self) -> u64 {
        match self {
            Action::Hostile { count, .. } => u64::from(*count) * 3_000,
            Action::Pings { count, .. } => u64::from(*count) * 6,
            Action::OpenChannels { count, padding, .. } => u64::from(*count) * (330 + u64::from(*padding)),
            Action::Error { text_bytes, .. } => u64::from(*text_bytes),
            Action::Pay { count, .. }
            | Action::Sign {
                action: SignerAction::Add { count, .. } | SignerAction::Receive { count, .. },
                ..
            } => u64::from(*count) * 1_600,
            _ => 100,
        }
    }

    /// The same action with fewer repetitions, if it has any to spare.
    pub(super) fn halved(&self) -> Option<Action> {
        let mut action = *self;
        let count = match &mut action {
            Action::Hostile { count, .. }
            | Action::Pings { count, .. }
            | Action::OpenChannels { count, .. }
            | Action::Pay { count, .. }
            | Action::Sign {
                action: SignerAction::Add { count, .. } | SignerAction::Receive { count, .. },
                ..
            } => count,
            Action::Mine { blocks } => blocks,
            Action::Wait { rounds } => rounds,
            _ => return None,
        };
        *count /= 2;
        (*count > 0).then_some(action)
    }
}

impl SignerAction {
    fn draw(draw: &mut Draw) -> SignerAction {
        match draw.between(0, 13) {
            0 => SignerAction::Reconnect,
            1 => SignerAction::Open { anchors: draw.percent(50), funds: draw.percent(70) },
            2 | 3 => SignerAction::Signs(draw.percent(50)),
            4 => SignerAction::Revokes(draw.percent(60)),
            5 | 6 => SignerAction::Fee { feerate: draw.pick(&[253, 1_000, 5_000, 50_000, 250_000]) },
            7 | 8 => SignerAction::Add {
                count: draw.pick(&[1, 10, 150, 400]),
                amount_msat: draw.pick(&[1, 400_000, 3_000_000, 4_900_000_000]),
            },
            9..=11 => SignerAction::Receive {
                liar: draw.index(2),
                count: draw.pick(&[1, 10, 60, 150]),
                amount_msat: draw.pick(&[1, 400_000, 1_000_000, 30_000_000]),
            },
            12 => draw.pick(&[SignerAction::SignBadly { htlcs: 0 }, SignerAction::SignBadly { htlcs: 150 }]),
            _ => draw.pick(&[SignerAction::FailAll, SignerAction::FailAll, SignerAction::ShutDown]),
        }
    }
}
