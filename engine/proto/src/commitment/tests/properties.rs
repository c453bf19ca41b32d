//! Properties of commitments and closing transactions: money is conserved, dust is trimmed exactly, order is canonical.

use bitcoin::hashes::Hash;
use bitcoin::sighash::SighashCache;
use bitcoin::transaction::Version;
use bitcoin::{Amount, EcdsaSighashType, ScriptBuf, Sequence, Transaction, TxOut};
use fulmen_wire::units::{BlockHeight, FeeratePerKw, Msat, PaymentHash, Sat};
use proptest::prelude::*;

use super::{Channel, htlc};
use crate::commitment::{
    ANCHOR_OUTPUT, ChannelType, ClosingError, ClosingParams, ClosingTx, ClosingVariant, CommitmentError,
    CommitmentHtlc, CommitmentSpec, CommitmentTx, HtlcDirection, commitment_fee, commitment_number,
    is_trimmed, trim_threshold,
};
use crate::keys::CommitmentNumber;

const TYPES: [ChannelType; 2] = [ChannelType::StaticRemotekey, ChannelType::Anchors];

fn total(tx: &Transaction) -> Sat {
    Sat(tx.output.iter().map(|output| output.value.to_sat()).sum())
}

fn any_type() -> impl Strategy<Value = ChannelType> {
    prop_oneof![Just(ChannelType::StaticRemotekey), Just(ChannelType::Anchors)]
}

/// HTLCs around the dust limits, some of them equal in amount, hash or expiry.
fn any_htlcs() -> impl Strategy<Value = Vec<CommitmentHtlc>> {
    let one =
        (any::<bool>(), prop_oneof![0u64..3_000_000, Just(2_000_000), Just(20_000_000)], 0u8..3, 500u32..503);
    prop::collection::vec(one, 0..12).prop_map(|drawn| {
        let build = |(id, (offered, amount, hash, expiry)): (usize, (bool, u64, u8, u32))| CommitmentHtlc {
            id: id as u64,
            direction: if offered { HtlcDirection::Offered } else { HtlcDirection::Received },
            amount: Msat(amount),
            payment_hash: PaymentHash([hash; 32]),
            cltv_expiry: BlockHeight(expiry),
        };
        drawn.into_iter().enumerate().map(build).collect()
    })
}

/// Splits the capacity that the HTLCs leave.
fn spec(capacity: Sat, local_share: u64, feerate: u32, htlcs: Vec<CommitmentHtlc>) -> CommitmentSpec {
    let held: Msat = htlcs.iter().map(|htlc| htlc.amount).sum();
    let left = capacity.to_msat().checked_sub(held).unwrap();
    let to_local = Msat(left.0 / 1000 * local_share + left.0 % 1000);
    let to_remote = left.checked_sub(to_local).unwrap();
    CommitmentSpec { to_local, to_remote, feerate: FeeratePerKw(feerate), htlcs }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn money_is_conserved_and_outputs_are_exact(
        channel_type in any_type(),
        opener: bool,
        share in prop_oneof![0u64..=1000, Just(0), Just(1000)],
        feerate in prop_oneof![0u32..5000, 0u32..2_000_000],
        htlcs in any_htlcs(),
        number in 0u64..1 << 48,
    ) {
        let mut channel = Channel::new(channel_type);
        channel.params.local_is_opener = opener;
        let (params, number) = (&channel.params, CommitmentNumber(number));
        let spec = spec(params.funding_amount, share, feerate, htlcs);
        let commitment = match CommitmentTx::build(params, &channel.keys(number), number, &spec) {
            Ok(commitment) => commitment,
            Err(error) => {
                let opener_balance = if opener { spec.to_local } else { spec.to_remote };
                prop_assert_eq!(channel_type, ChannelType::Anchors, "{}", error);
                prop_assert!(opener_balance < Msat(660_000), "{error}");
                return Ok(());
            }
        };

        prop_assert_eq!(total(&commitment.tx).checked_add(commitment.fee), Some(params.funding_amount));
        prop_assert_eq!(commitment_number(&commitment.tx, params.obscure_factor), Some(number));
        for htlc in &spec.htlcs {
            let trimmed =
                is_trimmed(channel_type, spec.feerate, htlc.direction, params.dust_limit, htlc.amount);
            let outputs: Vec<_> = commitment.htlcs.iter().filter(|output| output.htlc == *htlc).collect();
            prop_assert_eq!(outputs.len(), usize::from(!trimmed));
        }
        for output in &commitment.htlcs {
            let on_chain = &commitment.tx.output[output.vout as usize];
            prop_assert_eq!(&on_chain.script_pubkey, &output.witness_script.to_p2wsh());
            prop_assert_eq!(Sat(on_chain.value.to_sat()), output.htlc.amount.floor_sat());
            check_second_stage(&commitment, output)?;
        }
        check_balances(&channel, &spec, &commitment)?;
        check_order(&commitment)?;
        let funding = SighashCache::new(&commitment.tx).p2wsh_signature_hash(
            0, &params.funding_script, Amount::from_sat(params.funding_amount.0), EcdsaSighashType::All);
        prop_assert_eq!(commitment.digest, funding.unwrap().to_byte_array());
    }

    #[test]
    fn both_sides_agree_whatever_the_order_of_htlcs(
        channel_type in any_type(), htlcs in any_htlcs(), seed in any::<u64>(),
    ) {
        let channel = Channel::new(channel_type);
        let number = CommitmentNumber(7);
        let spec = spec(channel.params.funding_amount, 500, 300, htlcs);
        let mut shuffled = spec.clone();
        shuffled.htlcs.sort_by_key(|htlc| (htlc.id + 1).wrapping_mul(seed | 1));
        let build = |spec| CommitmentTx::build(&channel.params, &channel.keys(number), number, spec).unwrap();
        prop_assert_eq!(build(&spec), build(&shuffled));
    }

    #[test]
    fn closing_conserves_money_and_is_the_same_for_both(
        share in 0u64..=1_000_000_000, fee in 0u64..1_200_000, opener: bool, dust in 300u64..1000,
    ) {
        let params = closing(share, fee, opener, dust);
        let mirrored = ClosingParams {
            local_funding_pubkey: params.remote_funding_pubkey,
            remote_funding_pubkey: params.local_funding_pubkey,
            local_is_opener: !params.local_is_opener,
            to_local: params.to_remote,
            to_remote: params.to_local,
            local_script: params.remote_script.clone(),
            remote_script: params.local_script.clone(),
            ..params.clone()
        };
        let ours = ClosingTx::build(&params, ClosingVariant::Both);
        let theirs = ClosingTx::build(&mirrored, ClosingVariant::Both);
        match (ours, theirs) {
            (Ok(ours), Ok(theirs)) => {
                prop_assert_eq!(&ours.tx, &theirs.tx);
                prop_assert_eq!(ours.digest, theirs.digest);
                prop_assert_eq!((ours.to_local, ours.to_remote), (theirs.to_remote, theirs.to_local));
                prop_assert_eq!(total(&ours.tx).checked_add(ours.fee), Some(params.funding_amount));
                prop_assert!(ours.fee >= params.fee && !ours.tx.output.is_empty());
                let order = |output: &TxOut| (output.value, output.script_pubkey.to_bytes());
                prop_assert!(ours.tx.output.is_sorted_by_key(order));
                prop_assert!(ours.tx.output.iter().all(|output| output.value.to_sat() >= dust));
            }
            (ours, theirs) => prop_assert_eq!(ours, theirs),
        }
    }
}

fn closing(to_local_msat: u64, fee: u64, local_is_opener: bool, dust_limit: u64) -> ClosingParams {
    let channel = Channel::new(ChannelType::Anchors);
    ClosingParams {
        funding_outpoint: channel.params.funding_outpoint,
        funding_amount: channel.params.funding_amount,
        local_funding_pubkey: channel.params.local_funding_pubkey,
        remote_funding_pubkey: channel.params.remote_funding_pubkey,
        local_is_opener,
        to_local: Msat(to_local_msat),
        to_remote: Msat(1_000_000_000 - to_local_msat),
        local_script: ScriptBuf::from_bytes(vec![0x51]),
        remote_script: ScriptBuf::from_bytes(vec![0x52]),
        dust_limit: Sat(dust_limit),
        fee: Sat(fee),
    }
}

/// The digest computed from parts is the one of the transaction built.
fn check_second_stage(
    commitment: &CommitmentTx,
    output: &crate::commitment::HtlcOutput,
) -> Result<(), TestCaseError> {
    let htlc_tx = commitment.htlc_tx(output);
    let digest = |sighash| {
        let amount = Amount::from_sat(output.amount.0);
        let mut cache = SighashCache::new(&htlc_tx.tx);
        cache.p2wsh_signature_hash(0, &output.witness_script, amount, sighash).unwrap().to_byte_array()
    };
    let by_peer = match commitment.channel_type {
        ChannelType::StaticRemotekey => EcdsaSighashType::All,
        ChannelType::Anchors => EcdsaSighashType::SinglePlusAnyoneCanPay,
    };
    prop_assert_eq!(output.digest, digest(by_peer));
    prop_assert_eq!(htlc_tx.local_digest, digest(EcdsaSighashType::All));
    prop_assert_eq!(htlc_tx.txid, htlc_tx.tx.compute_txid());
    Ok(())
}

/// `to_local`, `to_remote` and the anchors exist exactly when they should, with the right amounts.
fn check_balances(
    channel: &Channel,
    spec: &CommitmentSpec,
    commitment: &CommitmentTx,
) -> Result<(), TestCaseError> {
    let params = &channel.params;
    let anchors = params.channel_type == ChannelType::Anchors;
    let cost = commitment_fee(params.channel_type, spec.feerate, commitment.htlcs.len())
        .saturating_add(if anchors { Sat(660) } else { Sat::ZERO });
    let expected = |balance: Msat, pays: bool| {
        let balance = balance.floor_sat().saturating_sub(if pays { cost } else { Sat::ZERO });
        (balance >= params.dust_limit).then_some(balance)
    };
    let found = |vout: Option<u32>| vout.map(|vout| Sat(commitment.tx.output[vout as usize].value.to_sat()));
    let (local, remote) = (found(commitment.to_local), found(commitment.to_remote));
    prop_assert_eq!(local, expected(spec.to_local, params.local_is_opener));
    prop_assert_eq!(remote, expected(spec.to_remote, !params.local_is_opener));
    let anchor = |balance: Option<Sat>| {
        (anchors && (balance.is_some() || !commitment.htlcs.is_empty())).then_some(ANCHOR_OUTPUT)
    };
    prop_assert_eq!(found(commitment.local_anchor), anchor(local));
    prop_assert_eq!(found(commitment.remote_anchor), anchor(remote));
    let named =
        [commitment.to_local, commitment.to_remote, commitment.local_anchor, commitment.remote_anchor];
    let placed = named.iter().flatten().count() + commitment.htlcs.len();
    prop_assert_eq!(placed, commitment.tx.output.len());
    Ok(())
}

/// BIP 69, then `cltv_expiry` among HTLCs.
fn check_order(commitment: &CommitmentTx) -> Result<(), TestCaseError> {
    let expiry = |vout: usize| {
        let found = commitment.htlcs.iter().find(|output| output.vout as usize == vout);
        found.map_or(0, |output| output.htlc.cltv_expiry.0)
    };
    let keys: Vec<_> = commitment
        .tx
        .output
        .iter()
        .enumerate()
        .map(|(vout, output)| (output.value, output.script_pubkey.to_bytes(), expiry(vout)))
        .collect();
    prop_assert!(keys.is_sorted());
    prop_assert!(commitment.htlcs.is_sorted_by_key(|output| output.vout));
    Ok(())
}

/// One millisatoshi decides whether an HTLC has an output, and one satoshi whether a balance has one.
#[test]
fn trim_boundaries() {
    for channel_type in TYPES {
        for direction in [HtlcDirection::Offered, HtlcDirection::Received] {
            for feerate in [0, 253, 647, 5000, 25_000].map(FeeratePerKw) {
                let channel = Channel::new(channel_type);
                let threshold = trim_threshold(channel_type, feerate, direction, channel.params.dust_limit);
                let least = threshold.to_msat().0;
                for (amount, has_output) in
                    [(least - 1000, false), (least - 1, false), (least, true), (least + 1, true)]
                {
                    let htlcs = vec![htlc(0, direction, Msat(amount))];
                    let spec =
                        CommitmentSpec { feerate, ..spec(channel.params.funding_amount, 500, 0, htlcs) };
                    let number = CommitmentNumber::FIRST;
                    let built =
                        CommitmentTx::build(&channel.params, &channel.keys(number), number, &spec).unwrap();
                    assert_eq!(built.htlcs.len(), usize::from(has_output), "{amount} msat at {feerate}");
                }
            }
        }
    }
    let fee =
        |direction| trim_threshold(ChannelType::StaticRemotekey, FeeratePerKw(5000), direction, Sat(546));
    // The example of BOLT 3, "Fee Calculation".
    assert_eq!((fee(HtlcDirection::Offered), fee(HtlcDirection::Received)), (Sat(3861), Sat(4061)));
}

#[test]
fn balance_boundaries() {
    for channel_type in TYPES {
        let channel = Channel::new(channel_type);
        let number = CommitmentNumber::FIRST;
        let dust = channel.params.dust_limit.to_msat().0;
        for (balance, has_output) in [(0, false), (dust - 1, false), (dust, true), (dust + 999, true)] {
            let spec = CommitmentSpec {
                to_local: Msat(1_000_000_000 - balance),
                to_remote: Msat(balance),
                feerate: FeeratePerKw(1000),
                htlcs: Vec::new(),
            };
            let built = CommitmentTx::build(&channel.params, &channel.keys(number), number, &spec).unwrap();
            assert_eq!(built.to_remote.is_some(), has_output, "{balance} msat");
            let anchor = channel_type == ChannelType::Anchors && has_output;
            assert_eq!(built.remote_anchor.is_some(), anchor);
        }
    }
}

#[test]
fn an_unbalanced_spec_is_refused() {
    let channel = Channel::new(ChannelType::Anchors);
    let number = CommitmentNumber::FIRST;
    for held in [999_999_999, 1_000_000_001] {
        let spec = CommitmentSpec {
            to_local: Msat(held),
            to_remote: Msat::ZERO,
            feerate: FeeratePerKw(253),
            htlcs: Vec::new(),
        };
        let built = CommitmentTx::build(&channel.params, &channel.keys(number), number, &spec);
        let expected = CommitmentError::Unbalanced { held: Msat(held), funding: Sat(1_000_000) };
        assert_eq!(built, Err(expected));
    }
}

/// The opener's last satoshi go to fees; but an anchor needs a balance that pays for it.
#[test]
fn anchors_need_an_opener_who_can_pay_them() {
    let channel = Channel::new(ChannelType::Anchors);
    let number = CommitmentNumber::FIRST;
    let build = |to_local: u64, htlcs: Vec<CommitmentHtlc>| {
        let held: Msat = htlcs.iter().map(|htlc| htlc.amount).sum();
        let to_remote = Msat(1_000_000_000 - held.0 - to_local);
        let spec = CommitmentSpec { to_local: Msat(to_local), to_remote, feerate: FeeratePerKw(1000), htlcs };
        CommitmentTx::build(&channel.params, &channel.keys(number), number, &spec)
    };
    let one = || vec![htlc(0, HtlcDirection::Received, Msat(1_000_000))];
    assert_eq!(build(660_000, one()).unwrap().fee, Sat(0));
    assert_eq!(build(700_000, one()).unwrap().fee, Sat(40));
    let error =
        |outputs| CommitmentError::AnchorsUnaffordable { outputs: Sat(outputs), funding: Sat(1_000_000) };
    assert_eq!(build(659_000, one()), Err(error(1_000_001)));
    // Without HTLCs the opener, who has no output, has no anchor.
    assert_eq!(build(330_000, Vec::new()).unwrap().fee, Sat(0));
    assert_eq!(build(329_000, Vec::new()), Err(error(1_000_001)));
}

#[test]
fn closing_refuses_what_cannot_be_paid() {
    let build = |params: &ClosingParams, variant| {
        ClosingTx::build(params, variant).map(|tx| (tx.to_local, tx.to_remote))
    };
    let both = ClosingVariant::Both;
    let error = ClosingError::FeeExceedsBalance { fee: Sat(401), balance: Sat(400) };
    assert_eq!(build(&closing(400_999, 401, true, 546), both), Err(error));
    assert_eq!(build(&closing(400_999, 401, false, 546), both), Ok((None, Some(Sat(999_198)))));
    let params = closing(500_000_000, 1000, true, 546);
    assert_eq!(build(&params, both), Ok((Some(Sat(499_000)), Some(Sat(500_000)))));
    assert_eq!(build(&params, ClosingVariant::WithoutLocal), Ok((None, Some(Sat(500_000)))));
    assert_eq!(build(&params, ClosingVariant::WithoutRemote), Ok((Some(Sat(499_000)), None)));
    // 546 sat are an output, 545 are not.
    let local = |to_local| ClosingTx::build(&closing(to_local, 0, true, 546), both).unwrap().to_local;
    assert_eq!((local(545_999), local(546_000)), (None, Some(Sat(546))));
    let dust = closing(0, 999_800, false, 546);
    assert_eq!(build(&dust, both), Err(ClosingError::NoOutputs { dust_limit: Sat(546) }));
    let unbalanced = ClosingParams { to_local: Msat(1), ..closing(0, 0, true, 546) };
    let error = ClosingError::Unbalanced { held: Msat(1_000_000_001), funding: Sat(1_000_000) };
    assert_eq!(build(&unbalanced, both), Err(error));
}

#[test]
fn closing_is_final_at_once() {
    let params = closing(500_000_000, 1000, true, 546);
    let tx = ClosingTx::build(&params, ClosingVariant::Both).unwrap().tx;
    assert_eq!((tx.version, tx.lock_time.to_consensus_u32()), (Version::TWO, 0));
    assert_eq!((tx.input.len(), tx.input[0].sequence), (1, Sequence::MAX));
    // Of equal amounts, the lesser script stands first.
    let even = ClosingParams { fee: Sat(0), ..params };
    let tx = ClosingTx::build(&even, ClosingVariant::Both).unwrap().tx;
    assert_eq!(
        tx.output.iter().map(|output| output.script_pubkey.as_bytes()[0]).collect::<Vec<_>>(),
        [0x51, 0x52]
    );
}

/// Only a transaction with both marks of a commitment and one input has a number.
#[test]
fn other_transactions_have_no_commitment_number() {
    let channel = Channel::new(ChannelType::Anchors);
    let number = CommitmentNumber(0x1234_5678_9abc);
    let spec = spec(channel.params.funding_amount, 500, 253, Vec::new());
    let built = CommitmentTx::build(&channel.params, &channel.keys(number), number, &spec).unwrap();
    let found = |tx: &Transaction| commitment_number(tx, channel.params.obscure_factor);
    assert_eq!(found(&built.tx), Some(number));
    let mut other = built.tx.clone();
    other.input[0].sequence = Sequence(other.input[0].sequence.0 ^ 1 << 24);
    assert_eq!(found(&other), None);
    let mut other = built.tx.clone();
    other.lock_time =
        bitcoin::absolute::LockTime::from_consensus(other.lock_time.to_consensus_u32() ^ 1 << 29);
    assert_eq!(found(&other), None);
    let mut other = built.tx.clone();
    other.input.push(other.input[0].clone());
    assert_eq!(found(&other), None);
    let closing = ClosingTx::build(&closing(500_000_000, 0, true, 546), ClosingVariant::Both).unwrap();
    assert_eq!(found(&closing.tx), None);
}
