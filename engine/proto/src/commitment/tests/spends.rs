//! Spends of commitment outputs: their demands on the transaction, that their digests are Bitcoin's, that their
//! witnesses are laid out as BOLT 3 says. Whether Bitcoin accepts them is for the tests on a chain to say.

use bitcoin::hashes::{Hash, sha256};
use bitcoin::sighash::SighashCache;
use bitcoin::{Amount, EcdsaSighashType, OutPoint, ScriptBuf, Transaction, Witness};
use fulmen_wire::units::{BlockHeight, FeeratePerKw, Msat, PaymentHash, PaymentPreimage, Sat, Signature};
use secp256k1::SecretKey;

use super::{Channel, htlc};
use crate::commitment::{
    Anchor, ChannelType, CommitmentSpec, CommitmentTx, HtlcDirection, HtlcWitnessError, OutputSpend,
    SweepError, sweep,
};
use crate::keys::{CommitmentNumber, sign};

const NUMBER: CommitmentNumber = CommitmentNumber(9);
const PREIMAGE: PaymentPreimage = PaymentPreimage([42; 32]);

/// A commitment with one HTLC each way.
fn commitment(channel: &Channel) -> CommitmentTx {
    let hash = PaymentHash(sha256::Hash::hash(&PREIMAGE.0).to_byte_array());
    let mut htlcs = vec![
        htlc(0, HtlcDirection::Offered, Msat(20_000_000)),
        htlc(1, HtlcDirection::Received, Msat(30_000_000)),
    ];
    htlcs.iter_mut().for_each(|htlc| htlc.payment_hash = hash);
    let spec = CommitmentSpec {
        to_local: Msat(450_000_000),
        to_remote: Msat(500_000_000),
        feerate: FeeratePerKw(1000),
        htlcs,
    };
    CommitmentTx::build(&channel.params, &channel.keys(NUMBER), NUMBER, &spec).unwrap()
}

fn destination() -> ScriptBuf {
    let mut script = vec![0, 20];
    script.extend([7; 20]);
    ScriptBuf::from_bytes(script)
}

/// The expected form of a spend.
struct Expected {
    spend: OutputSpend,
    key: Option<SecretKey>,
    sequence: u32,
    lock_time: u32,
    /// The witness between the signature and the script (or key).
    selector: Option<Vec<u8>>,
}

fn expected(channel: &Channel, commitment: &CommitmentTx) -> Vec<Expected> {
    let params = &channel.params;
    let anchors = params.channel_type == ChannelType::Anchors;
    let one_if_anchors = if anchors { 1 } else { 0xffff_fffd };
    let point = commitment.keys.per_commitment_point;
    let revealed = channel.local.per_commitment_secret(NUMBER);
    let revocation = Some(channel.remote.revocation_key(&revealed));
    let delayed = Some(channel.local.delayed_key(&point));
    let their_htlc = Some(channel.remote.htlc_key(&point));
    let row = |spend, key, sequence, selector: Option<&[u8]>| Expected {
        spend,
        key,
        sequence,
        lock_time: 0,
        selector: selector.map(<[u8]>::to_vec),
    };
    let revocation_pubkey = commitment.keys.revocation_pubkey.serialize();
    let mut rows = vec![
        row(commitment.to_local_spend(params).unwrap(), delayed, 144, Some(&[])),
        row(commitment.to_local_penalty().unwrap(), revocation, 0xffff_fffd, Some(&[1])),
        row(commitment.to_remote_spend().unwrap(), Some(*channel.remote.payment_key()), one_if_anchors, None),
    ];
    for output in &commitment.htlcs {
        let preimage = (output.htlc.direction == HtlcDirection::Offered).then_some(&PREIMAGE);
        let by_remote = commitment.htlc_spend_by_remote(output, preimage).unwrap();
        let selector: &[u8] = preimage.map_or(&[], |preimage| &preimage.0);
        rows.push(Expected {
            lock_time: if preimage.is_some() { 0 } else { 500 },
            ..row(by_remote, their_htlc, one_if_anchors, Some(selector))
        });
        let penalty = commitment.htlc_penalty(output);
        rows.push(row(penalty, revocation, 0xffff_fffd, Some(&revocation_pubkey)));
        let second = commitment.htlc_tx(output);
        rows.push(row(commitment.second_stage_spend(params, &second), delayed, 144, Some(&[])));
        let outpoint = OutPoint { txid: second.txid, vout: 0 };
        let penalty = commitment.second_stage_penalty(outpoint, second.amount);
        rows.push(row(penalty, revocation, 0xffff_fffd, Some(&[1])));
    }
    if anchors {
        let keys = [channel.local.funding_key(), channel.remote.funding_key()];
        for (anchor, key) in [Anchor::Local, Anchor::Remote].into_iter().zip(keys) {
            let own = commitment.anchor_spend(params, anchor).unwrap();
            rows.push(row(own, Some(*key), 0xffff_fffd, None));
            let anyones = commitment.anchor_spend_by_anyone(params, anchor).unwrap();
            rows.push(row(anyones, None, 16, Some(&[])));
        }
    }
    rows
}

fn digest_by_bitcoin(tx: &Transaction, index: usize, spend: &OutputSpend, witness: &Witness) -> [u8; 32] {
    let (amount, all) = (Amount::from_sat(spend.amount.0), EcdsaSighashType::All);
    let mut cache = SighashCache::new(tx);
    let script = spend.script_pubkey();
    if script.is_p2wpkh() {
        cache.p2wpkh_signature_hash(index, &script, amount, all).unwrap().to_byte_array()
    } else {
        let witness_script = ScriptBuf::from_bytes(witness.last().unwrap().to_vec());
        assert_eq!(witness_script.to_p2wsh(), script);
        cache.p2wsh_signature_hash(index, &witness_script, amount, all).unwrap().to_byte_array()
    }
}

#[test]
fn spends_are_what_their_scripts_demand() {
    for channel_type in [ChannelType::StaticRemotekey, ChannelType::Anchors] {
        let channel = Channel::new(channel_type);
        let commitment = commitment(&channel);
        let rows = expected(&channel, &commitment);
        assert_eq!(rows.len(), if channel_type == ChannelType::Anchors { 15 } else { 11 });
        for row in &rows {
            assert_eq!(row.spend.sequence.0, row.sequence);
            assert_eq!(row.spend.lock_time, BlockHeight(row.lock_time));
            assert_eq!(row.spend.needs_signature(), row.key.is_some());
            if row.spend.outpoint.txid == commitment.txid {
                let output = &commitment.tx.output[row.spend.outpoint.vout as usize];
                assert_eq!(output.script_pubkey, row.spend.script_pubkey());
                assert_eq!(Sat(output.value.to_sat()), row.spend.amount);
            }
        }
        check_sweep(&rows);
    }
}

/// Sweeps all of them at once, as no chain would accept, to look at digests, witnesses and weight.
fn check_sweep(rows: &[Expected]) {
    let spends: Vec<OutputSpend> = rows.iter().map(|row| row.spend.clone()).collect();
    let swept = sweep(spends, destination(), FeeratePerKw(1000)).unwrap();
    let key_of = |spend: &OutputSpend| {
        let row = rows.iter().find(|row| row.spend == *spend).unwrap();
        row.key.expect("no key is asked for where none is needed")
    };
    let signed = swept.signed(key_of);
    assert_eq!(signed.lock_time.to_consensus_u32(), 500);
    let value: u64 = rows.iter().map(|row| row.spend.amount.0).sum();
    assert_eq!(signed.output[0].value.to_sat() + swept.fee.0, value);
    // Signatures are at most two bytes shorter than counted, the count of inputs takes two bytes less.
    let (weight, counted) = (signed.weight().to_wu(), swept.fee.0);
    assert!(weight <= counted && counted <= weight + 3 * rows.len() as u64 + 8, "{weight} {counted}");

    for (index, (row, digest)) in rows.iter().zip(swept.digests()).enumerate() {
        let witness = &signed.input[index].witness;
        assert_eq!(digest, digest_by_bitcoin(&swept.tx, index, &row.spend, witness));
        assert_eq!(digest, row.spend.digest(&swept.tx, index));
        let mut items: Vec<Vec<u8>> = Vec::new();
        if let Some(key) = &row.key {
            let signature = secp256k1::ecdsa::Signature::from_compact(&sign(&digest, key).0).unwrap();
            items.push(bitcoin::ecdsa::Signature::sighash_all(signature).to_vec());
        }
        items.extend(row.selector.clone());
        let last = witness.last().unwrap();
        items.push(last.to_vec());
        assert_eq!(witness.to_vec(), items);
        assert_eq!(signed.input[index].sequence, row.spend.sequence);
    }
}

#[test]
fn a_remote_spend_needs_what_its_direction_needs() {
    let channel = Channel::new(ChannelType::Anchors);
    let commitment = commitment(&channel);
    for output in &commitment.htlcs {
        let wrong = (output.htlc.direction == HtlcDirection::Received).then_some(&PREIMAGE);
        assert_eq!(commitment.htlc_spend_by_remote(output, wrong), None);
    }
}

#[test]
fn htlc_witnesses_refuse_the_wrong_preimage() {
    let channel = Channel::new(ChannelType::StaticRemotekey);
    let commitment = commitment(&channel);
    let good = sign(&[1; 32], channel.local.funding_key());
    for output in &commitment.htlcs {
        let tx = commitment.htlc_tx(output);
        assert_eq!(tx.spends(), output);
        let result = |preimage: Option<PaymentPreimage>| tx.witness(&good, &good, preimage.as_ref()).err();
        let (none, right, wrong) =
            (result(None), result(Some(PREIMAGE)), result(Some(PaymentPreimage([1; 32]))));
        match output.htlc.direction {
            HtlcDirection::Offered => {
                assert_eq!(none, None);
                assert_eq!(right, Some(HtlcWitnessError::UnexpectedPreimage));
                assert_eq!(wrong, Some(HtlcWitnessError::UnexpectedPreimage));
            }
            HtlcDirection::Received => {
                assert_eq!(none, Some(HtlcWitnessError::MissingPreimage));
                assert_eq!(right, None);
                assert_eq!(wrong, Some(HtlcWitnessError::WrongPreimage));
            }
        }
        let broken = Signature([0xff; 64]);
        let preimage = (output.htlc.direction == HtlcDirection::Received).then_some(&PREIMAGE);
        assert!(matches!(tx.signed(&broken, &good, preimage), Err(HtlcWitnessError::Signature(_))));
    }
    let broken = Signature([0xff; 64]);
    assert!(commitment.signed(&channel.params, &good, &broken).is_err());
}

#[test]
fn a_sweep_must_be_worth_it() {
    let channel = Channel::new(ChannelType::Anchors);
    let commitment = commitment(&channel);
    assert_eq!(sweep(Vec::new(), destination(), FeeratePerKw(253)), Err(SweepError::Empty));
    let anchor = || vec![commitment.anchor_spend(&channel.params, Anchor::Local).unwrap()];
    let refused = sweep(anchor(), destination(), FeeratePerKw(253)).unwrap_err();
    assert!(matches!(refused, SweepError::Uneconomical { value: Sat(330), dust_limit: Sat(294), .. }));
    let free = sweep(anchor(), destination(), FeeratePerKw(0)).unwrap();
    assert_eq!((free.fee, free.tx.output[0].value.to_sat()), (Sat(0), 330));
}
