//! BOLT 3, appendices A, B, C and F. The vectors' signatures are made without grinding, so that both sides' are
//! reproduced, not only verified.

use bitcoin::consensus::encode::{deserialize, serialize_hex};
use bitcoin::ecdsa;
use bitcoin::hashes::{Hash, sha256};
use bitcoin::sighash::SighashCache;
use bitcoin::{Amount, EcdsaSighashType, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Witness};
use fulmen_wire::units::{
    BlockHeight, CltvDelta, FeeratePerKw, Msat, PaymentHash, PaymentPreimage, Sat, Signature,
};
use secp256k1::Message;
use serde::Deserialize;

use super::{Channel, empty_tx, htlc, secret};
use crate::commitment::{
    ChannelType, CommitmentHtlc, CommitmentParams, CommitmentSpec, CommitmentTx, HtlcDirection, HtlcOutput,
    commitment_number, commitment_weight, funding_output_script, funding_script, htlc_weight, obscure_factor,
};
use crate::keys::{
    ChannelSecrets, CommitmentKeys, CommitmentNumber, PerCommitmentSecret, secp, sign, verify,
};

#[derive(Deserialize)]
struct File {
    funding: FundingVector,
    channel: ChannelVector,
    htlcs: Vec<HtlcVector>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct FundingVector {
    funding_satoshis: u64,
    change_satoshis: u64,
    input_secret: String,
    coinbase_tx: String,
    local_funding_pubkey: String,
    remote_funding_pubkey: String,
    witness_script: String,
    tx: String,
    txid: String,
}

#[derive(Deserialize)]
struct ChannelVector {
    funding_txid: String,
    funding_output_index: u32,
    funding_satoshis: u64,
    commitment_number: u64,
    to_self_delay: u16,
    obscured_number_factor: String,
    local: serde_json::Value,
    remote: serde_json::Value,
    expected: serde_json::Value,
}

#[derive(Deserialize)]
struct HtlcVector {
    id: u64,
    direction: String,
    amount_msat: u64,
    cltv_expiry: u32,
    payment_preimage: String,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    channel_type: String,
    to_local_msat: u64,
    to_remote_msat: u64,
    feerate_per_kw: u32,
    dust_limit_satoshis: u64,
    htlcs: Vec<usize>,
    fee: Option<u64>,
    remote_signature: String,
    tx: String,
    htlc_txs: Vec<HtlcTxVector>,
}

#[derive(Deserialize)]
struct HtlcTxVector {
    htlc: Option<u64>,
    remote_signature: String,
    tx: String,
}

fn file() -> File {
    serde_json::from_str(include_str!("../../../../tests/vectors/bolt03-transactions.json")).unwrap()
}

fn at<'a>(value: &'a serde_json::Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_else(|| panic!("no {name}"))
}

fn der(hex_der: &str) -> Signature {
    let parsed = secp256k1::ecdsa::Signature::from_der(&hex::decode(hex_der).unwrap()).unwrap();
    Signature(parsed.serialize_compact())
}

fn preimage(vector: &HtlcVector) -> PaymentPreimage {
    PaymentPreimage(hex::decode(&vector.payment_preimage).unwrap().try_into().unwrap())
}

/// The vectors' channel: local owns the commitments and opened it.
struct Fixture {
    local: ChannelSecrets,
    remote: ChannelSecrets,
    secret: PerCommitmentSecret,
    keys: CommitmentKeys,
}

impl Fixture {
    fn new(vector: &ChannelVector) -> Fixture {
        let unused = secret(&"77".repeat(32));
        let parts = |side: &serde_json::Value| {
            let of = |name: &str| side[name].as_str().map_or(unused, secret);
            let payment = of("payment_basepoint_secret");
            ChannelSecrets::from_parts(
                of("funding_secret"),
                of("revocation_basepoint_secret"),
                payment,
                of("delayed_payment_basepoint_secret"),
                payment,
                [0; 32],
            )
        };
        let (local, remote) = (parts(&vector.local), parts(&vector.remote));
        let bytes = hex::decode(at(&vector.local, "per_commitment_secret")).unwrap();
        let secret = PerCommitmentSecret::from_bytes(&bytes.try_into().unwrap()).unwrap();
        let keys = CommitmentKeys::derive(local.basepoints(), remote.basepoints(), secret.point());
        Fixture { local, remote, secret, keys }
    }

    fn params(&self, vector: &ChannelVector, case: &Case) -> CommitmentParams {
        let (local, remote) = (self.local.basepoints(), self.remote.basepoints());
        CommitmentParams {
            channel_type: match case.channel_type.as_str() {
                "static_remotekey" => ChannelType::StaticRemotekey,
                "anchors" => ChannelType::Anchors,
                other => panic!("unknown channel type {other}"),
            },
            funding_outpoint: OutPoint {
                txid: vector.funding_txid.parse().unwrap(),
                vout: vector.funding_output_index,
            },
            funding_amount: Sat(vector.funding_satoshis),
            local_funding_pubkey: local.funding,
            remote_funding_pubkey: remote.funding,
            local_is_opener: true,
            dust_limit: Sat(case.dust_limit_satoshis),
            to_self_delay: CltvDelta(vector.to_self_delay),
            obscure_factor: obscure_factor(&local.payment, &remote.payment),
            funding_script: funding_script(&local.funding, &remote.funding),
        }
    }
}

fn spec(case: &Case, htlcs: &[HtlcVector]) -> CommitmentSpec {
    let chosen = case.htlcs.iter().map(|id| {
        let vector = &htlcs[*id];
        CommitmentHtlc {
            id: vector.id,
            direction: match vector.direction.as_str() {
                "offered" => HtlcDirection::Offered,
                "received" => HtlcDirection::Received,
                other => panic!("unknown direction {other}"),
            },
            amount: Msat(vector.amount_msat),
            payment_hash: PaymentHash(sha256::Hash::hash(&preimage(vector).0).to_byte_array()),
            cltv_expiry: BlockHeight(vector.cltv_expiry),
        }
    });
    CommitmentSpec {
        to_local: Msat(case.to_local_msat),
        to_remote: Msat(case.to_remote_msat),
        feerate: FeeratePerKw(case.feerate_per_kw),
        htlcs: chosen.collect(),
    }
}

/// The keys that the vectors name follow from their secrets.
#[test]
fn keys_of_the_vectors() {
    let file = file();
    let Fixture { local, remote, secret: per_commitment, keys } = Fixture::new(&file.channel);
    let point = per_commitment.point();
    let expected = |name: &str| at(&file.channel.expected, name).to_owned();
    let (ours, theirs) = (local.basepoints(), remote.basepoints());
    assert_eq!(ours.funding.to_string(), expected("local_funding_pubkey"));
    assert_eq!(theirs.funding.to_string(), expected("remote_funding_pubkey"));
    assert_eq!(ours.payment.to_string(), expected("local_payment_basepoint"));
    assert_eq!(theirs.payment.to_string(), expected("remote_payment_basepoint"));
    assert_eq!(ours.delayed_payment.to_string(), expected("local_delayed_payment_basepoint"));
    assert_eq!(theirs.revocation.to_string(), expected("remote_revocation_basepoint"));
    assert_eq!(point.to_string(), expected("local_per_commitment_point"));
    assert_eq!(keys.local_htlc_pubkey.to_string(), expected("local_htlcpubkey"));
    assert_eq!(keys.remote_htlc_pubkey.to_string(), expected("remote_htlcpubkey"));
    assert_eq!(keys.local_delayed_pubkey.to_string(), expected("local_delayedpubkey"));
    assert_eq!(keys.revocation_pubkey.to_string(), expected("local_revocation_pubkey"));
    assert_eq!(keys.remote_pubkey.to_string(), expected("remote_payment_basepoint"));
    assert_eq!(local.htlc_key(&point), secret(&expected("local_htlc_secret")));
    assert_eq!(remote.htlc_key(&point), secret(&expected("remote_htlc_secret")));
    assert_eq!(local.delayed_key(&point), secret(&expected("local_delayed_secret")));
    assert_eq!(remote.revocation_key(&per_commitment).public_key(secp()), keys.revocation_pubkey);
    let factor = u64::from_str_radix(&file.channel.obscured_number_factor, 16).unwrap();
    assert_eq!(obscure_factor(&ours.payment, &theirs.payment), factor);
}

/// Appendix B: the funding transaction, its signature included.
#[test]
fn appendix_b_funding() {
    let vector = file().funding;
    let key = |hex: &str| -> secp256k1::PublicKey { hex.parse().unwrap() };
    let (local, remote) = (key(&vector.local_funding_pubkey), key(&vector.remote_funding_pubkey));
    assert_eq!(funding_script(&local, &remote).to_hex_string(), vector.witness_script);
    assert_eq!(funding_script(&remote, &local), funding_script(&local, &remote));

    let coinbase: Transaction = deserialize(&hex::decode(&vector.coinbase_tx).unwrap()).unwrap();
    let key = secret(&vector.input_secret);
    let public = bitcoin::PublicKey::new(key.public_key(secp()));
    let output = |amount, script_pubkey| TxOut { value: Amount::from_sat(amount), script_pubkey };
    let mut tx = Transaction {
        input: vec![TxIn {
            previous_output: OutPoint { txid: coinbase.compute_txid(), vout: 0 },
            script_sig: ScriptBuf::new(),
            sequence: Sequence::MAX,
            witness: Witness::new(),
        }],
        output: vec![
            output(vector.funding_satoshis, funding_output_script(&local, &remote)),
            output(vector.change_satoshis, ScriptBuf::new_p2wpkh(&public.wpubkey_hash().unwrap())),
        ],
        ..empty_tx()
    };
    let spent = &coinbase.output[0].script_pubkey;
    let digest = SighashCache::new(&tx)
        .legacy_signature_hash(0, spent, EcdsaSighashType::All.to_u32())
        .unwrap()
        .to_byte_array();
    let signature = ecdsa::Signature::sighash_all(secp().sign_ecdsa(&Message::from_digest(digest), &key));
    tx.input[0].script_sig =
        bitcoin::script::Builder::new().push_slice(signature.serialize()).push_key(&public).into_script();
    assert_eq!(serialize_hex(&tx), vector.tx);
    assert_eq!(tx.compute_txid().to_string(), vector.txid);
}

/// Appendices C and F: every commitment and HTLC transaction byte for byte, signed by the keys of both sides.
#[test]
fn appendices_c_and_f_transactions() {
    let file = file();
    let fixture = Fixture::new(&file.channel);
    let (mut commitments, mut second_stage) = (0, 0);
    for case in &file.cases {
        let params = fixture.params(&file.channel, case);
        let number = CommitmentNumber(file.channel.commitment_number);
        let spec = spec(case, &file.htlcs);
        let commitment = CommitmentTx::build(&params, &fixture.keys, number, &spec).unwrap();
        let local = fixture.local.sign_funding(&commitment.digest);
        let remote = fixture.remote.sign_funding(&commitment.digest);
        assert_eq!(remote, der(&case.remote_signature), "{}", case.name);
        let signed = commitment.signed(&params, &local, &remote).unwrap();
        assert_eq!(serialize_hex(&signed), case.tx, "{}", case.name);
        assert_eq!(signed.compute_txid(), commitment.txid);
        assert_eq!(commitment_number(&signed, params.obscure_factor), Some(number));
        if let Some(fee) = case.fee {
            assert_eq!(commitment.fee, Sat(fee), "{}", case.name);
        }
        commitments += 1;

        assert_eq!(commitment.htlcs.len(), case.htlc_txs.len(), "{}", case.name);
        for (output, expected) in commitment.htlcs.iter().zip(&case.htlc_txs) {
            let preimage = preimage(&file.htlcs[output.htlc.id as usize]);
            check_htlc_tx(&fixture, &commitment, output, expected, &preimage);
            second_stage += 1;
        }
    }
    assert_eq!((commitments, second_stage), (25, 48));
}

fn check_htlc_tx(
    fixture: &Fixture,
    commitment: &CommitmentTx,
    output: &HtlcOutput,
    expected: &HtlcTxVector,
    preimage: &PaymentPreimage,
) {
    if let Some(id) = expected.htlc {
        assert_eq!(output.htlc.id, id);
    }
    let point = fixture.secret.point();
    let htlc_tx = commitment.htlc_tx(output);
    let remote = sign(&output.digest, &fixture.remote.htlc_key(&point));
    let local = sign(&htlc_tx.local_digest, &fixture.local.htlc_key(&point));
    assert!(verify(&output.digest, &der(&expected.remote_signature), &fixture.keys.remote_htlc_pubkey));
    assert_eq!(remote, der(&expected.remote_signature));
    let preimage = (output.htlc.direction == HtlcDirection::Received).then_some(preimage);
    let signed = htlc_tx.signed(&remote, &local, preimage).unwrap();
    assert_eq!(serialize_hex(&signed), expected.tx);
    assert_eq!(signed.compute_txid(), htlc_tx.txid);
}

/// Appendix A: the expected weights are those of real transactions whose signatures have their longest form.
#[test]
fn appendix_a_weights() {
    for channel_type in [ChannelType::StaticRemotekey, ChannelType::Anchors] {
        let channel = Channel::new(channel_type);
        let anchors = channel_type == ChannelType::Anchors;
        let keys = channel.keys(CommitmentNumber::FIRST);
        let htlcs = vec![
            htlc(0, HtlcDirection::Offered, Msat(20_000_000)),
            htlc(1, HtlcDirection::Received, Msat(30_000_000)),
        ];
        let spec = CommitmentSpec {
            to_local: Msat(450_000_000),
            to_remote: Msat(500_000_000),
            feerate: FeeratePerKw(1000),
            htlcs: htlcs.clone(),
        };
        let commitment = CommitmentTx::build(&channel.params, &keys, CommitmentNumber::FIRST, &spec).unwrap();
        // Witness: count, nothing, two signatures of 73 bytes with their lengths, the script with its length.
        let with_witness = |tx: &Transaction, witness: u64| tx.weight().to_wu() + 2 + witness;
        // With anchors the appendix counts three bytes for the number of outputs, which is one byte here.
        let spare = if anchors { 8 } else { 0 };
        let witness = 1 + 1 + 2 * 74 + 1 + channel.params.funding_script.len() as u64;
        let expected = commitment_weight(channel_type, 2) - spare;
        assert_eq!(with_witness(&commitment.tx, witness), expected);
        for output in &commitment.htlcs {
            let script = output.witness_script.len() as u64;
            // An expiry of 500 takes two bytes where the appendix counts four for later heights; and the weight of
            // HTLC-success is overstated by one, as the appendix says.
            let (selector, spare) = match output.htlc.direction {
                HtlcDirection::Offered => (1, 0),
                HtlcDirection::Received => (33, 2 + 1),
            };
            let witness = 1 + 1 + 2 * 74 + selector + 1 + script;
            let weight = with_witness(&commitment.htlc_tx(output).tx, witness);
            assert_eq!(weight, htlc_weight(channel_type, output.htlc.direction) - spare);
        }
    }
}
