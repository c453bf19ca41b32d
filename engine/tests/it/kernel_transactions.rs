//! Every transaction of BOLT 3 and BOLT 5 on a chain that enforces Bitcoin's real consensus rules: accepted when valid;
//! refused one block early, with a byte of a signature changed, with a wrong key, with a lock made shorter.
//!
//! Both kinds of channel, the commitments of both sides. `court` is the judge.

mod court;

use bitcoin::absolute::LockTime;
use bitcoin::hashes::{Hash, sha256};
use bitcoin::secp256k1::{Message, SecretKey};
use bitcoin::sighash::SighashCache;
use bitcoin::{
    Amount, EcdsaSighashType, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, WPubkeyHash, Witness,
};
use fulmen::chain::RefusalKind::{ImmatureCoinbase, Locktime, SequenceLock};
use fulmen_proto::commitment::{
    Anchor, ChannelType, ClosingParams, ClosingTx, ClosingVariant, CommitmentHtlc, CommitmentParams,
    CommitmentSpec, CommitmentTx, HtlcDirection, HtlcOutput, HtlcTx, OutputSpend, funding_output_script,
    funding_script, obscure_factor, sweep,
};
use fulmen_proto::keys::{ChannelSecrets, CommitmentKeys, CommitmentNumber, NodeSeed, secp, sign};
use fulmen_wire::units::{
    BlockHeight, CltvDelta, FeeratePerKw, Msat, PaymentHash, PaymentPreimage, Sat, Signature,
};

use court::{Case, Court};

const CAPACITY: Sat = Sat(1_000_000);
const RATE: FeeratePerKw = FeeratePerKw(1000);
const NUMBER: CommitmentNumber = CommitmentNumber(5);
const PREIMAGE: PaymentPreimage = PaymentPreimage([42; 32]);
const TYPES: [ChannelType; 2] = [ChannelType::StaticRemotekey, ChannelType::Anchors];

/// How a channel ends in a test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// Both sides sign a closing transaction.
    Mutual,
    /// The owner publishes its commitment and claims its outputs.
    OwnerTakes,
    /// The owner publishes its commitment and the other side takes both HTLCs.
    OtherTakes,
    /// The owner publishes a revoked commitment, and is punished at once.
    Revoked,
    /// The owner publishes a revoked commitment and its HTLC transactions before it is punished.
    RevokedLate,
}

const ENDS: [End; 5] = [End::Mutual, End::OwnerTakes, End::OtherTakes, End::Revoked, End::RevokedLate];

/// One channel, seen from the side whose commitment is published.
struct Channel {
    owner: ChannelSecrets,
    other: ChannelSecrets,
    params: CommitmentParams,
}

impl Channel {
    /// The channel that key index `index` belongs to; `owner_opened` says whose commitment is published.
    fn new(channel_type: ChannelType, index: u64, owner_opened: bool, funding_outpoint: OutPoint) -> Channel {
        let opener = ChannelSecrets::derive(&NodeSeed::new([1; 32]), index);
        let accepter = ChannelSecrets::derive(&NodeSeed::new([2; 32]), index);
        let factor = obscure_factor(&opener.basepoints().payment, &accepter.basepoints().payment);
        let (owner, other) = if owner_opened { (opener, accepter) } else { (accepter, opener) };
        let (ours, theirs) = (owner.basepoints().funding, other.basepoints().funding);
        let params = CommitmentParams {
            channel_type,
            funding_outpoint,
            funding_amount: CAPACITY,
            local_funding_pubkey: ours,
            remote_funding_pubkey: theirs,
            local_is_opener: owner_opened,
            dust_limit: Sat(354),
            // Scripts encode numbers up to 16 as single opcodes: one delay of each kind.
            to_self_delay: CltvDelta(if owner_opened { 20 } else { 12 }),
            obscure_factor: factor,
            funding_script: funding_script(&ours, &theirs),
        };
        Channel { owner, other, params }
    }

    /// The commitment that is published: one HTLC each way, expiring at `expiry`.
    fn commitment(&self, expiry: u32) -> CommitmentTx {
        let payment_hash = PaymentHash(sha256::Hash::hash(&PREIMAGE.0).to_byte_array());
        let htlc = |id, direction, amount| CommitmentHtlc {
            id,
            direction,
            amount: Msat(amount),
            payment_hash,
            cltv_expiry: BlockHeight(expiry),
        };
        let spec = CommitmentSpec {
            to_local: Msat(400_000_500),
            to_remote: Msat(499_999_500),
            feerate: RATE,
            htlcs: vec![
                htlc(0, HtlcDirection::Offered, 60_000_000),
                htlc(0, HtlcDirection::Received, 40_000_000),
            ],
        };
        let point = self.owner.per_commitment_point(NUMBER);
        let keys = CommitmentKeys::derive(self.owner.basepoints(), self.other.basepoints(), point);
        CommitmentTx::build(&self.params, &keys, NUMBER, &spec).unwrap()
    }

    /// The commitment as a case: both must sign, each with its own funding key.
    fn commitment_case(&self, commitment: &CommitmentTx) -> Case {
        let (ours, theirs) =
            (self.owner.sign_funding(&commitment.digest), self.other.sign_funding(&commitment.digest));
        let stranger = sign(&commitment.digest, self.owner.payment_key());
        let signed =
            |ours: &Signature, theirs: &Signature| commitment.signed(&self.params, ours, theirs).unwrap();
        let wrong = vec![signed(&stranger, &theirs), signed(&ours, &stranger), signed(&theirs, &ours)];
        let name =
            if self.params.local_is_opener { "the opener's commitment" } else { "the accepter's commitment" };
        Case::new(name, signed(&ours, &theirs), wrong)
    }

    /// The keys of the published commitment, and of the one before, which must not do.
    fn keys(&self, key: impl Fn(&Channel, CommitmentNumber) -> SecretKey) -> [SecretKey; 2] {
        [NUMBER, NUMBER.previous().unwrap()].map(|number| key(self, number))
    }

    fn delayed_keys(&self) -> [SecretKey; 2] {
        self.keys(|channel, number| channel.owner.delayed_key(&channel.owner.per_commitment_point(number)))
    }

    fn revocation_keys(&self) -> [SecretKey; 2] {
        self.keys(|channel, number| {
            channel.other.revocation_key(&channel.owner.per_commitment_secret(number))
        })
    }

    fn other_htlc_keys(&self) -> [SecretKey; 2] {
        self.keys(|channel, number| channel.other.htlc_key(&channel.owner.per_commitment_point(number)))
    }

    fn owner_htlc_keys(&self) -> [SecretKey; 2] {
        self.keys(|channel, number| channel.owner.htlc_key(&channel.owner.per_commitment_point(number)))
    }
}

fn to_anyone() -> ScriptBuf {
    ScriptBuf::new_p2wsh(&ScriptBuf::from_bytes(vec![0x51]).wscript_hash())
}

/// A spend of an output mined at `parent` as a case, with the right key and a wrong one. Wrong as well: a transaction
/// that demands one block's delay less than the script.
fn spend_case(name: &'static str, spend: &OutputSpend, [right, wrong]: [SecretKey; 2], parent: u32) -> Case {
    // An anchor is worth less than its spend costs.
    let rate = if spend.amount <= Sat(330) { FeeratePerKw(0) } else { RATE };
    let unsigned = sweep(vec![spend.clone()], to_anyone(), rate).unwrap().tx;
    let signed = |mut tx: Transaction, key: SecretKey| {
        tx.input[0].witness = spend.witness(&sign(&spend.digest(&tx, 0), &key)).unwrap();
        tx
    };
    let mut refused = Vec::new();
    if spend.needs_signature() {
        refused.push(signed(unsigned.clone(), wrong));
    }
    let delay = spend.sequence.0;
    let delayed = delay < 0xffff;
    if delayed {
        let mut sooner = unsigned.clone();
        sooner.input[0].sequence = Sequence(delay - 1);
        refused.push(signed(sooner, right));
    }
    if spend.lock_time.0 > 0 {
        let mut sooner = unsigned.clone();
        sooner.lock_time = LockTime::from_consensus(spend.lock_time.0 - 1);
        refused.push(signed(sooner, right));
    }
    let case = Case::new(name, signed(unsigned, right), refused);
    if spend.lock_time.0 > 0 {
        case.not_before(spend.lock_time.0 + 1, Locktime)
    } else if delayed {
        case.not_before(parent + delay, SequenceLock)
    } else {
        case
    }
}

/// An HTLC transaction as a case: both must sign with their HTLC keys.
fn htlc_case(
    channel: &Channel,
    commitment: &CommitmentTx,
    output: &HtlcOutput,
    parent: u32,
) -> (Case, HtlcTx) {
    let htlc_tx = commitment.htlc_tx(output);
    let [ours, our_stale] = channel.owner_htlc_keys().map(|key| sign(&htlc_tx.local_digest, &key));
    let [theirs, their_stale] = channel.other_htlc_keys().map(|key| sign(&output.digest, &key));
    let received = output.htlc.direction == HtlcDirection::Received;
    let preimage = received.then_some(&PREIMAGE);
    let signed = |theirs: &Signature, ours: &Signature| htlc_tx.signed(theirs, ours, preimage).unwrap();
    let good = signed(&theirs, &ours);
    let mut wrong = vec![signed(&their_stale, &ours), signed(&theirs, &our_stale)];
    let case = if received {
        // Another preimage in its place.
        let mut items = good.input[0].witness.to_vec();
        items[3] = vec![41; 32];
        let mut other = good.clone();
        other.input[0].witness = Witness::from_slice(&items);
        wrong.push(other);
        let case = Case::new("HTLC-success", good, wrong);
        match channel.params.channel_type {
            ChannelType::StaticRemotekey => case,
            ChannelType::Anchors => case.not_before(parent + 1, SequenceLock),
        }
    } else {
        let mut sooner = good.clone();
        sooner.lock_time = LockTime::from_consensus(output.htlc.cltv_expiry.0 - 1);
        wrong.push(sooner);
        Case::new("HTLC-timeout", good, wrong).not_before(output.htlc.cltv_expiry.0 + 1, Locktime)
    };
    (case, htlc_tx)
}

fn mutual(channel: &Channel) -> Vec<Case> {
    let params = ClosingParams {
        funding_outpoint: channel.params.funding_outpoint,
        funding_amount: CAPACITY,
        local_funding_pubkey: channel.params.local_funding_pubkey,
        remote_funding_pubkey: channel.params.remote_funding_pubkey,
        local_is_opener: channel.params.local_is_opener,
        to_local: Msat(400_000_000),
        to_remote: Msat(600_000_000),
        local_script: to_anyone(),
        remote_script: to_anyone(),
        dust_limit: Sat(354),
        fee: Sat(700),
    };
    let closing = ClosingTx::build(&params, ClosingVariant::Both).unwrap();
    let (ours, theirs) =
        (channel.owner.sign_funding(&closing.digest), channel.other.sign_funding(&closing.digest));
    let stranger = sign(&closing.digest, channel.owner.payment_key());
    let wrong = vec![closing.signed(&stranger, &theirs).unwrap(), closing.signed(&ours, &stranger).unwrap()];
    vec![Case::new("mutual close", closing.signed(&ours, &theirs).unwrap(), wrong)]
}

fn owner_takes(channel: Channel, commitment: CommitmentTx) -> Vec<Case> {
    let published = channel.commitment_case(&commitment);
    vec![published.then(move |parent| {
        let params = &channel.params;
        let delayed = channel.delayed_keys();
        let payment = [*channel.other.payment_key(), *channel.owner.payment_key()];
        let mut cases = vec![
            spend_case(
                "to_local after its delay",
                &commitment.to_local_spend(params).unwrap(),
                delayed,
                parent,
            ),
            spend_case("to_remote", &commitment.to_remote_spend().unwrap(), payment, parent),
        ];
        if let Some(spend) = commitment.anchor_spend(params, Anchor::Local) {
            let keys = [*channel.owner.funding_key(), *channel.other.funding_key()];
            cases.push(spend_case("the owner's anchor", &spend, keys, parent));
            let spend = commitment.anchor_spend_by_anyone(params, Anchor::Remote).unwrap();
            cases.push(spend_case("the other side's anchor by anyone", &spend, delayed, parent));
        }
        for output in &commitment.htlcs {
            let (case, htlc_tx) = htlc_case(&channel, &commitment, output, parent);
            let spend = commitment.second_stage_spend(params, &htlc_tx);
            cases.push(case.then(move |parent| {
                vec![spend_case("second stage after its delay", &spend, delayed, parent)]
            }));
        }
        cases
    })]
}

fn other_takes(channel: Channel, commitment: CommitmentTx) -> Vec<Case> {
    let published = channel.commitment_case(&commitment);
    vec![published.then(move |parent| {
        let params = &channel.params;
        let mut cases = Vec::new();
        for output in &commitment.htlcs {
            let (name, preimage) = match output.htlc.direction {
                HtlcDirection::Offered => ("offered HTLC with the preimage", Some(&PREIMAGE)),
                HtlcDirection::Received => ("received HTLC after its timeout", None),
            };
            let spend = commitment.htlc_spend_by_remote(output, preimage).unwrap();
            cases.push(spend_case(name, &spend, channel.other_htlc_keys(), parent));
        }
        if let Some(spend) = commitment.anchor_spend(params, Anchor::Remote) {
            let keys = [*channel.other.funding_key(), *channel.owner.funding_key()];
            cases.push(spend_case("the other side's anchor", &spend, keys, parent));
            let spend = commitment.anchor_spend_by_anyone(params, Anchor::Local).unwrap();
            cases.push(spend_case("the owner's anchor by anyone", &spend, keys, parent));
        }
        cases
    })]
}

fn revoked(channel: Channel, commitment: CommitmentTx) -> Vec<Case> {
    let published = channel.commitment_case(&commitment);
    vec![published.then(move |parent| {
        let keys = channel.revocation_keys();
        let to_local = commitment.to_local_penalty().unwrap();
        let mut cases = vec![spend_case("penalty on to_local", &to_local, keys, parent)];
        for output in &commitment.htlcs {
            let name = match output.htlc.direction {
                HtlcDirection::Offered => "penalty on an offered HTLC",
                HtlcDirection::Received => "penalty on a received HTLC",
            };
            cases.push(spend_case(name, &commitment.htlc_penalty(output), keys, parent));
        }
        cases
    })]
}

/// The HTLC transactions come first, so that only their outputs are left to punish; the last penalty takes two
/// outputs at once.
fn revoked_late(channel: Channel, commitment: CommitmentTx) -> Vec<Case> {
    let published = channel.commitment_case(&commitment);
    vec![published.then(move |parent| {
        let keys = channel.revocation_keys();
        let mut cases = Vec::new();
        for output in &commitment.htlcs {
            let (case, htlc_tx) = htlc_case(&channel, &commitment, output, parent);
            let penalty = |htlc_tx: &HtlcTx| {
                commitment.second_stage_penalty(OutPoint { txid: htlc_tx.txid, vout: 0 }, htlc_tx.amount)
            };
            let second_stage = penalty(&htlc_tx);
            let justice = vec![commitment.to_local_penalty().unwrap(), second_stage.clone()];
            cases.push(match output.htlc.direction {
                HtlcDirection::Received => case.then(move |parent| {
                    vec![spend_case("penalty on HTLC-success", &second_stage, keys, parent)]
                }),
                HtlcDirection::Offered => case.then(move |_| {
                    let sweep = sweep(justice, to_anyone(), RATE).unwrap();
                    let [right, wrong] = keys.map(|key| sweep.signed(|_| key));
                    vec![Case::new("penalty on to_local and HTLC-timeout", right, vec![wrong])]
                }),
            });
        }
        cases
    })]
}

/// The key of the coinbase that pays for everything.
fn miner() -> SecretKey {
    NodeSeed::new([9; 32]).key(b"miner", 0)
}

fn miner_script() -> ScriptBuf {
    ScriptBuf::new_p2wpkh(&WPubkeyHash::hash(&miner().public_key(secp()).serialize()))
}

/// Signs input `index`, which spends `amount` of the miner's.
fn sign_as_miner(tx: &mut Transaction, index: usize, amount: Amount, key: &SecretKey) {
    let digest = SighashCache::new(&*tx)
        .p2wpkh_signature_hash(index, &miner_script(), amount, EcdsaSighashType::All)
        .unwrap();
    let signature = secp().sign_ecdsa(&Message::from_digest(digest.to_byte_array()), key);
    let signature = bitcoin::ecdsa::Signature::sighash_all(signature);
    tx.input[index].witness = Witness::p2wpkh(&signature, &miner().public_key(secp()));
}

fn input(previous_output: OutPoint) -> TxIn {
    TxIn {
        previous_output,
        script_sig: ScriptBuf::new(),
        sequence: Sequence::ENABLE_RBF_NO_LOCKTIME,
        witness: Witness::new(),
    }
}

/// Funds a channel for each end, and one more whose output is the last but the change. Judged too: a coinbase may not
/// be spent too early.
fn fund(court: &mut Court, channel_type: ChannelType, owner_opened: bool) -> (Vec<Channel>, OutPoint) {
    let coinbase = court.first_coinbase();
    let count = ENDS.len() as u64 + 1;
    let unfunded = |index| Channel::new(channel_type, index, owner_opened, OutPoint::null());
    let mut output: Vec<TxOut> = (0..count)
        .map(|index| unfunded(index).params)
        .map(|params| TxOut {
            value: Amount::from_sat(CAPACITY.0),
            script_pubkey: funding_output_script(&params.local_funding_pubkey, &params.remote_funding_pubkey),
        })
        .collect();
    output.push(TxOut { value: Amount::from_sat(1_000_000), script_pubkey: miner_script() });
    let mut tx = Transaction {
        version: bitcoin::transaction::Version::TWO,
        lock_time: LockTime::ZERO,
        input: vec![input(OutPoint { txid: coinbase.compute_txid(), vout: 0 })],
        output,
    };
    let mut stranger = tx.clone();
    let amount = coinbase.output[0].value;
    sign_as_miner(&mut tx, 0, amount, &miner());
    sign_as_miner(&mut stranger, 0, amount, &NodeSeed::new([8; 32]).node_secret());
    let txid = tx.compute_txid();
    court.judge(vec![Case::new("funding", tx, vec![stranger]).not_before(101, ImmatureCoinbase)]);

    let outpoint = |vout: u64| OutPoint { txid, vout: vout as u32 };
    let channels =
        (0..count).map(|index| Channel::new(channel_type, index, owner_opened, outpoint(index))).collect();
    (channels, outpoint(count))
}

/// With anchors an HTLC transaction carries no fee: the owner adds an input that pays one, and the other side's
/// signature still holds. Its output is punished where the chain shows it.
fn joined_htlc_tx(channel: Channel, commitment: CommitmentTx, coin: OutPoint) -> Vec<Case> {
    let published = channel.commitment_case(&commitment);
    vec![published.then(move |parent| {
        let received = |output: &&HtlcOutput| output.htlc.direction == HtlcDirection::Received;
        let output = commitment.htlcs.iter().find(received).unwrap();
        let htlc_tx = commitment.htlc_tx(output);
        let mut tx = htlc_tx.tx.clone();
        tx.input.push(input(coin));
        tx.output.push(TxOut { value: Amount::from_sat(990_000), script_pubkey: miner_script() });
        sign_as_miner(&mut tx, 1, Amount::from_sat(1_000_000), &miner());
        let digest = htlc_tx.local_digest_in(&tx, 0).unwrap();
        assert_eq!(htlc_tx.local_digest_in(&tx, 1), None);
        let theirs = sign(&output.digest, &channel.other_htlc_keys()[0]);
        let [signed, stale] = channel.owner_htlc_keys().map(|key| {
            let mut tx = tx.clone();
            tx.input[0].witness = htlc_tx.witness(&theirs, &sign(&digest, &key), Some(&PREIMAGE)).unwrap();
            tx
        });
        let mut less = signed.clone();
        less.output[0].value -= Amount::ONE_SAT;
        let penalty = commitment
            .second_stage_penalty(OutPoint { txid: signed.compute_txid(), vout: 0 }, htlc_tx.amount);
        let keys = channel.revocation_keys();
        let case = Case::new("HTLC-success with a fee input", signed, vec![stale, less]);
        vec![case.not_before(parent + 1, SequenceLock).then(move |parent| {
            vec![spend_case("penalty on HTLC-success with a fee input", &penalty, keys, parent)]
        })]
    })]
}

/// Judges every end of a channel of this type, commitments published by one side.
fn judge_all(channel_type: ChannelType, owner_opened: bool) -> Court {
    let mut court = Court::new(miner_script());
    let (channels, coin) = fund(&mut court, channel_type, owner_opened);
    let mut channels = channels.into_iter();
    for (end, channel) in ENDS.into_iter().zip(&mut channels) {
        let commitment = channel.commitment(court.height() + 30);
        let cases = match end {
            End::Mutual => mutual(&channel),
            End::OwnerTakes => owner_takes(channel, commitment),
            End::OtherTakes => other_takes(channel, commitment),
            End::Revoked => revoked(channel, commitment),
            End::RevokedLate => revoked_late(channel, commitment),
        };
        court.judge(cases);
    }
    let last = channels.next().unwrap();
    if channel_type == ChannelType::Anchors {
        let commitment = last.commitment(court.height() + 30);
        court.judge(joined_htlc_tx(last, commitment, coin));
    }
    court
}

/// Cases of every channel type, with the number of times each was accepted.
const BOTH: [(&str, u32); 16] = [
    ("HTLC-success", 2),
    ("HTLC-timeout", 2),
    ("funding", 1),
    ("mutual close", 1),
    ("offered HTLC with the preimage", 1),
    ("penalty on HTLC-success", 1),
    ("penalty on a received HTLC", 1),
    ("penalty on an offered HTLC", 1),
    ("penalty on to_local", 1),
    ("penalty on to_local and HTLC-timeout", 1),
    ("received HTLC after its timeout", 1),
    ("second stage after its delay", 2),
    ("to_local after its delay", 1),
    ("to_remote", 1),
    ("the accepter's commitment", 0),
    ("the opener's commitment", 0),
];

/// Further cases of channels with anchors.
const ANCHORS: [(&str, u32); 6] = [
    ("HTLC-success with a fee input", 1),
    ("penalty on HTLC-success with a fee input", 1),
    ("the other side's anchor", 1),
    ("the other side's anchor by anyone", 1),
    ("the owner's anchor", 1),
    ("the owner's anchor by anyone", 1),
];

#[test]
fn every_transaction_is_accepted_when_valid_and_refused_when_not() {
    for channel_type in TYPES {
        for owner_opened in [true, false] {
            let court = judge_all(channel_type, owner_opened);
            let anchors = channel_type == ChannelType::Anchors;
            let commitment =
                if owner_opened { "the opener's commitment" } else { "the accepter's commitment" };
            let added: &[(&str, u32)] = if anchors { &ANCHORS } else { &[] };
            let mut expected: Vec<(&str, u32)> = BOTH.iter().chain(added).copied().collect();
            expected.retain(|(_, count)| *count > 0);
            expected.push((commitment, if anchors { 5 } else { 4 }));
            expected.sort_unstable();
            let accepted: Vec<_> = court.accepted.into_iter().collect();
            assert_eq!(accepted, expected, "{channel_type:?}");
            assert!(court.refused > 100, "{}", court.refused);
        }
    }
}
