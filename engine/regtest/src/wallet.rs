//! A small wallet over one P2WPKH key, for the miner and for every node of a test or load run.
//!
//! Owns its coins as the chain's events tell them, the choice of coins to spend, and the signatures. Does no I/O: who
//! holds a [`WalletSpend`] broadcasts it. It is no wallet for real money: one address, no backup, no fee bumping.
//!
//! Driving contract: feed every [`ChainEvent`] of one chain, in order, to [`Wallet::apply`]. [`Wallet::fund`] reserves
//! coins; once the transaction was broadcast say [`Wallet::sent`], which frees its change for further spends, or say
//! [`Wallet::release`] to have the coins back. No randomness: the same calls give the same transactions.
//!
//! Invariant: a coin is spent by one transaction at most, and `balance().total()` changes, to the satoshi, by
//! the amounts that the chain paid to the address and our transactions paid away, fees included.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use bitcoin::absolute::LockTime;
use bitcoin::bip32::{ChildNumber, Xpriv};
use bitcoin::secp256k1::{All, Message, PublicKey, Secp256k1, SecretKey};
use bitcoin::sighash::{EcdsaSighashType, SighashCache};
use bitcoin::transaction::Version;
use bitcoin::{
    Amount, Block, CompressedPublicKey, NetworkKind, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut,
    Txid, VarInt, Witness,
};
use fulmen::chain::ChainEvent;
use fulmen_wire::units::{BlockHeight, FeeratePerKw, Sat};

use crate::{COINBASE_MATURITY_BLOCKS, RegtestChain, RegtestError, regtest_subsidy};

/// A wallet over one P2WPKH key.
pub struct Wallet {
    secret: SecretKey,
    public: PublicKey,
    script_pubkey: ScriptBuf,
    tip: BlockHeight,
    coins: BTreeMap<OutPoint, Coin>,
    /// Every transaction of ours that was not released, mined or not: a reorganisation may bring any of them back.
    spends: BTreeMap<Txid, Made>,
    /// The changes of each applied block to the coins, to take it back; blocks that changed nothing are left out.
    undos: BTreeMap<BlockHeight, Undo>,
}

/// A transaction of a wallet's own, signed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "its coins stay reserved until it is sent or released"]
pub struct WalletSpend {
    /// The transaction: the outputs asked for in their order, then the change, if any.
    pub transaction: Transaction,
    /// Its fee.
    pub fee: Sat,
    /// The change; zero without a change output.
    pub change: Sat,
}

/// The balance of a wallet by state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Balance {
    /// Can be spent now; change of our own that is not yet mined included.
    pub spendable: Sat,
    /// Coinbase outputs too young to be spent.
    pub immature: Sat,
    /// Reserved by transactions made but neither sent nor released.
    pub reserved: Sat,
}

impl Balance {
    /// All of it.
    #[must_use]
    pub fn total(&self) -> Sat {
        self.spendable.saturating_add(self.immature).saturating_add(self.reserved)
    }
}

/// Why no transaction was made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WalletError {
    /// Not enough coins.
    #[error(
        "{wanted} with fees needed, {} can be spent ({} immature, {} reserved); fund the wallet or mine blocks",
        balance.spendable, balance.immature, balance.reserved
    )]
    Insufficient {
        /// The amount asked for, fee included.
        wanted: Sat,
        /// The wallet's balance.
        balance: Balance,
    },
    /// An output nobody would relay.
    #[error("an output of {value} is below the {minimum} that are relayed")]
    Dust {
        /// The output's value.
        value: Sat,
        /// The least value.
        minimum: Sat,
    },
    /// Too many inputs or outputs.
    #[error("a transaction of weight {weight} exceeds the {maximum} that are relayed; pay in several")]
    TooHeavy {
        /// Its weight.
        weight: u64,
        /// The limit.
        maximum: u64,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Coin {
    value: Sat,
    origin: Origin,
    /// The transaction of ours that spends it.
    spent_by: Option<Txid>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    Mined {
        height: BlockHeight,
        coinbase: bool,
    },
    /// Change of a transaction that is not mined yet: the longest chain of such transactions up to it.
    Waiting {
        ancestors: u32,
    },
}

/// A transaction that the wallet made.
struct Made {
    inputs: Vec<OutPoint>,
    fee: Sat,
    change: Option<(OutPoint, Sat)>,
    ancestors: u32,
    sent: bool,
    mined: bool,
}

#[derive(Default, PartialEq, Eq)]
struct Undo {
    created: Vec<OutPoint>,
    spent: Vec<(OutPoint, Coin)>,
    mined: Vec<Txid>,
}

impl Wallet {
    /// The wallet of a seed: key m/84'/1'/0'/0/0 (BIP 84, test network).
    #[must_use]
    pub fn new(seed: [u8; 32]) -> Wallet {
        let path = [84, 1, 0]
            .map(|index| ChildNumber::Hardened { index })
            .into_iter()
            .chain([ChildNumber::Normal { index: 0 }; 2])
            .collect::<Vec<_>>();
        let secret = Xpriv::new_master(NetworkKind::Test, &seed)
            .and_then(|master| master.derive_priv(secp(), &path))
            .expect("one seed in 2^127 has no key")
            .private_key;
        let public = secret.public_key(secp());
        let script_pubkey = ScriptBuf::new_p2wpkh(&CompressedPublicKey(public).wpubkey_hash());
        Wallet {
            secret,
            public,
            script_pubkey,
            tip: BlockHeight(0),
            coins: BTreeMap::new(),
            spends: BTreeMap::new(),
            undos: BTreeMap::new(),
        }
    }

    /// Where to pay this wallet.
    #[must_use]
    pub fn script_pubkey(&self) -> &ScriptBuf {
        &self.script_pubkey
    }

    /// The wallet's balance.
    #[must_use]
    pub fn balance(&self) -> Balance {
        let mut balance = Balance::default();
        for coin in self.coins.values() {
            let part = match coin.spent_by.and_then(|txid| self.spends.get(&txid)) {
                Some(made) if made.sent => continue,
                Some(_) => &mut balance.reserved,
                None if self.is_immature(coin) => &mut balance.immature,
                None => &mut balance.spendable,
            };
            *part = part.saturating_add(coin.value);
        }
        balance
    }

    /// The fees of all transactions of ours that are in the chain.
    #[must_use]
    pub fn fees_paid(&self) -> Sat {
        self.spends.values().filter(|made| made.mined).map(|made| made.fee).sum()
    }

    /// Applies one step of the chain.
    ///
    /// # Panics
    /// When an event was left out: the balance would be wrong from then on.
    pub fn apply(&mut self, event: &ChainEvent) {
        match event {
            ChainEvent::Connected { height, block } => {
                assert_eq!(height.0, self.tip.0 + 1, "events of one chain come without gaps");
                self.connect(*height, block);
            }
            ChainEvent::Disconnected { height, .. } => {
                assert_eq!(*height, self.tip, "only the last block can be taken back");
                self.disconnect();
            }
        }
    }

    /// Makes a transaction that pays `outputs`, in their order, at `feerate`. Its coins are reserved.
    ///
    /// # Errors
    /// When the wallet cannot pay it; nothing is reserved then.
    pub fn fund(
        &mut self,
        outputs: &[(ScriptBuf, Sat)],
        feerate: FeeratePerKw,
    ) -> Result<WalletSpend, WalletError> {
        for (script, value) in outputs {
            let minimum = Sat(script.minimal_non_dust().to_sat());
            if *value < minimum {
                return Err(WalletError::Dust { value: *value, minimum });
            }
        }
        let paid = outputs
            .iter()
            .map(|(script, value)| TxOut { value: Amount::from_sat(value.0), script_pubkey: script.clone() })
            .collect::<Vec<_>>();
        let wanted: Sat = outputs.iter().map(|(_, value)| *value).sum();
        let coins = self.choose(&paid, wanted, feerate)?;
        let available = self.value_of(&coins);
        let mut transaction = unsigned(&coins, paid);
        let fee_without_change = feerate.fee(signed_weight(&transaction));
        let change_output = TxOut { value: Amount::ZERO, script_pubkey: self.script_pubkey.clone() };
        transaction.output.push(change_output);
        let spare = available.saturating_sub(wanted);
        let mut change = spare.saturating_sub(feerate.fee(signed_weight(&transaction)));
        if change < DUST_P2WPKH {
            transaction.output.pop();
            change = Sat::ZERO;
        } else if let Some(output) = transaction.output.last_mut() {
            output.value = Amount::from_sat(change.0);
        }
        let fee = spare.saturating_sub(change);
        assert!(fee >= fee_without_change, "coins were chosen to cover the fee");
        self.finish(transaction, &coins, fee, change)
    }

    /// Makes transactions that pay `outputs`, any number of them, each transaction as large as is relayed. They count
    /// as sent and spend each other's change: broadcast them in this order.
    ///
    /// # Errors
    /// As [`fund`](Wallet::fund); nothing is reserved then.
    pub fn fan_out(
        &mut self,
        outputs: &[(ScriptBuf, Sat)],
        feerate: FeeratePerKw,
    ) -> Result<Vec<WalletSpend>, WalletError> {
        let mut spends: Vec<WalletSpend> = Vec::new();
        for chunk in outputs.chunks(FAN_OUT_OUTPUTS) {
            match self.fund(chunk, feerate) {
                Ok(spend) => {
                    self.sent(spend.transaction.compute_txid());
                    spends.push(spend);
                }
                Err(error) => {
                    for spend in spends.iter().rev() {
                        self.release(spend.transaction.compute_txid());
                    }
                    return Err(error);
                }
            }
        }
        Ok(spends)
    }

    /// Makes a transaction that pays all that can be spent, but no more than one transaction can carry, to `to`;
    /// `None` when there is nothing.
    ///
    /// # Errors
    /// When the balance does not exceed the fee by the dust limit.
    pub fn sweep(
        &mut self,
        to: &ScriptBuf,
        feerate: FeeratePerKw,
    ) -> Result<Option<WalletSpend>, WalletError> {
        let mut coins = self.candidates();
        coins.truncate(SWEEP_INPUTS);
        if coins.is_empty() {
            return Ok(None);
        }
        let available = self.value_of(&coins);
        let output = TxOut { value: Amount::ZERO, script_pubkey: to.clone() };
        let mut transaction = unsigned(&coins, vec![output]);
        let fee = feerate.fee(signed_weight(&transaction));
        let minimum = Sat(to.minimal_non_dust().to_sat());
        let Some(value) = available.checked_sub(fee).filter(|value| *value >= minimum) else {
            return Err(WalletError::Insufficient {
                wanted: fee.saturating_add(minimum),
                balance: self.balance(),
            });
        };
        transaction.output[0].value = Amount::from_sat(value.0);
        self.finish(transaction, &coins, fee, Sat::ZERO).map(Some)
    }

    /// The transaction was broadcast: its inputs are gone, its change can be spent.
    pub fn sent(&mut self, txid: Txid) {
        let Some(made) = self.spends.get_mut(&txid) else { return };
        made.sent = true;
        if let Some((outpoint, value)) = made.change {
            let origin = Origin::Waiting { ancestors: made.ancestors + 1 };
            self.coins.entry(outpoint).or_insert(Coin { value, origin, spent_by: None });
        }
    }

    /// The transaction will never be in the chain: its coins are free again. One that was mined stays.
    pub fn release(&mut self, txid: Txid) {
        if self.spends.get(&txid).is_none_or(|made| made.mined) {
            return;
        }
        let Some(made) = self.spends.remove(&txid) else { return };
        for outpoint in &made.inputs {
            if let Some(coin) = self.coins.get_mut(outpoint) {
                coin.spent_by = None;
            }
        }
        if let Some((outpoint, _)) = made.change {
            self.coins.remove(&outpoint);
        }
    }

    fn connect(&mut self, height: BlockHeight, block: &Block) {
        let mut undo = Undo::default();
        for (index, transaction) in block.txdata.iter().enumerate() {
            let spends_ours =
                transaction.input.iter().any(|input| self.coins.contains_key(&input.previous_output));
            let pays_us = transaction.output.iter().any(|output| output.script_pubkey == self.script_pubkey);
            if spends_ours || pays_us {
                self.connect_transaction(height, index == 0, transaction, &mut undo);
            }
        }
        if undo != Undo::default() {
            self.undos.insert(height, undo);
        }
        self.tip = height;
    }

    fn connect_transaction(
        &mut self,
        height: BlockHeight,
        coinbase: bool,
        transaction: &Transaction,
        undo: &mut Undo,
    ) {
        let txid = transaction.compute_txid();
        for input in &transaction.input {
            if let Some(coin) = self.coins.remove(&input.previous_output) {
                undo.spent.push((input.previous_output, coin));
            }
        }
        for (vout, output) in (0..).zip(&transaction.output) {
            if output.script_pubkey == self.script_pubkey {
                let outpoint = OutPoint { txid, vout };
                let value = Sat(output.value.to_sat());
                // A child of ours may already spend the change of a transaction only now mined.
                let spent_by = self.coins.get(&outpoint).and_then(|coin| coin.spent_by);
                self.coins
                    .insert(outpoint, Coin { value, origin: Origin::Mined { height, coinbase }, spent_by });
                undo.created.push(outpoint);
            }
        }
        if let Some(made) = self.spends.get_mut(&txid) {
            made.mined = true;
            made.sent = true;
            undo.mined.push(txid);
        }
    }

    /// Takes back the last block. Transactions of ours in it wait to be mined again.
    fn disconnect(&mut self) {
        let undo = self.undos.remove(&self.tip).unwrap_or_default();
        // Which of our transactions spends an output that this block made: still so when the output waits again.
        let mut children = BTreeMap::new();
        for outpoint in undo.created {
            if let Some(coin) = self.coins.remove(&outpoint) {
                children.insert(outpoint, coin.spent_by);
            }
        }
        for (outpoint, coin) in undo.spent {
            match coin.origin {
                Origin::Mined { height, .. } if height == self.tip => {
                    children.insert(outpoint, coin.spent_by)
                }
                Origin::Mined { .. } | Origin::Waiting { .. } => {
                    self.coins.insert(outpoint, coin);
                    None
                }
            };
        }
        self.tip = BlockHeight(self.tip.0 - 1);
        for txid in undo.mined {
            let Some(made) = self.spends.get_mut(&txid) else { continue };
            made.mined = false;
            if let Some((outpoint, value)) = made.change {
                let spent_by = children.get(&outpoint).copied().flatten();
                let origin = Origin::Waiting { ancestors: made.ancestors + 1 };
                self.coins.entry(outpoint).or_insert(Coin { value, origin, spent_by });
            }
        }
    }

    fn is_immature(&self, coin: &Coin) -> bool {
        match coin.origin {
            Origin::Mined { height, coinbase: true } => self.tip.0 + 1 < height.0 + COINBASE_MATURITY_BLOCKS,
            Origin::Mined { .. } | Origin::Waiting { .. } => false,
        }
    }

    /// The coins that can be spent: mined before waiting, valuable before small.
    fn candidates(&self) -> Vec<OutPoint> {
        let rank = |(outpoint, coin): (&OutPoint, &Coin)| match coin.origin {
            _ if coin.spent_by.is_some() || self.is_immature(coin) => None,
            Origin::Mined { .. } => Some((0, u64::MAX - coin.value.0, *outpoint)),
            Origin::Waiting { ancestors } if ancestors < CHAIN_LENGTH_MAX => {
                Some((ancestors, u64::MAX - coin.value.0, *outpoint))
            }
            Origin::Waiting { .. } => None,
        };
        let mut ranked: Vec<_> = self.coins.iter().filter_map(rank).collect();
        ranked.sort_unstable();
        ranked.into_iter().map(|(_, _, outpoint)| outpoint).collect()
    }

    /// Coins that pay `wanted` and the fee: the smallest mined coin that does alone, so that large ones stay whole and
    /// chains short, or else as many as it takes.
    fn choose(
        &self,
        paid: &[TxOut],
        wanted: Sat,
        feerate: FeeratePerKw,
    ) -> Result<Vec<OutPoint>, WalletError> {
        let candidates = self.candidates();
        let outputs: u64 = paid.iter().map(|output| output.weight().to_wu()).sum();
        let need = |inputs: usize| {
            let counts = VarInt::from(inputs).size() + VarInt::from(paid.len()).size();
            let weight = 4 * (VERSION_AND_LOCKTIME_BYTES + counts as u64) + SEGWIT_WEIGHT + outputs;
            wanted.saturating_add(feerate.fee(weight + INPUT_WEIGHT * inputs as u64))
        };
        let alone = candidates.iter().rev().find(|outpoint| {
            let coin = &self.coins[*outpoint];
            matches!(coin.origin, Origin::Mined { .. }) && coin.value >= need(1)
        });
        if let Some(outpoint) = alone {
            return Ok(vec![*outpoint]);
        }
        let mut value = Sat::ZERO;
        for (index, outpoint) in candidates.iter().enumerate() {
            value = value.saturating_add(self.coins[outpoint].value);
            if value >= need(index + 1) {
                return Ok(candidates[..=index].to_vec());
            }
        }
        Err(WalletError::Insufficient { wanted: need(candidates.len().max(1)), balance: self.balance() })
    }

    fn value_of(&self, coins: &[OutPoint]) -> Sat {
        coins.iter().map(|outpoint| self.coins[outpoint].value).sum()
    }

    /// Signs the transaction and reserves its coins.
    fn finish(
        &mut self,
        transaction: Transaction,
        coins: &[OutPoint],
        fee: Sat,
        change: Sat,
    ) -> Result<WalletSpend, WalletError> {
        let weight = signed_weight(&transaction);
        if weight > STANDARD_WEIGHT_MAX {
            return Err(WalletError::TooHeavy { weight, maximum: STANDARD_WEIGHT_MAX });
        }
        let transaction = self.sign(transaction, coins);
        let txid = transaction.compute_txid();
        let mut ancestors = 0;
        for outpoint in coins {
            let coin = self.coins.get_mut(outpoint).expect("chosen from these coins");
            coin.spent_by = Some(txid);
            if let Origin::Waiting { ancestors: above } = coin.origin {
                ancestors = ancestors.max(above);
            }
        }
        let vout = transaction.output.len() as u32 - 1;
        let change_coin = (change > Sat::ZERO).then_some((OutPoint { txid, vout }, change));
        let inputs = coins.to_vec();
        self.spends
            .insert(txid, Made { inputs, fee, change: change_coin, ancestors, sent: false, mined: false });
        Ok(WalletSpend { transaction, fee, change })
    }

    fn sign(&self, mut transaction: Transaction, coins: &[OutPoint]) -> Transaction {
        let mut witnesses = Vec::with_capacity(coins.len());
        let mut cache = SighashCache::new(&transaction);
        for (input, outpoint) in coins.iter().enumerate() {
            let value = Amount::from_sat(self.coins[outpoint].value.0);
            let hash = cache
                .p2wpkh_signature_hash(input, &self.script_pubkey, value, EcdsaSighashType::All)
                .expect("the input exists and the script is P2WPKH");
            let signature = bitcoin::ecdsa::Signature {
                signature: secp().sign_ecdsa(&Message::from(hash), &self.secret),
                sighash_type: EcdsaSighashType::All,
            };
            witnesses.push(Witness::p2wpkh(&signature, &self.public));
        }
        for (input, witness) in transaction.input.iter_mut().zip(witnesses) {
            input.witness = witness;
        }
        transaction
    }
}

/// Mines to `miner` until it can spend `wanted`. Gives back the events this drained from the chain; `miner` has
/// already applied them.
///
/// # Errors
/// [`RegtestError::SubsidyExhausted`] when the subsidy to come cannot make it up: a regtest chain yields 15,000 BTC in
/// all. Otherwise as [`RegtestChain::mine`].
pub fn mine_until(
    chain: &mut dyn RegtestChain,
    miner: &mut Wallet,
    wanted: Sat,
) -> Result<Vec<ChainEvent>, RegtestError> {
    let mut drained = Vec::new();
    loop {
        loop {
            let events = chain.poll()?;
            if events.is_empty() {
                break;
            }
            events.iter().for_each(|event| miner.apply(event));
            drained.extend(events);
        }
        let blocks = blocks_until(miner, wanted)?;
        if blocks == 0 {
            return Ok(drained);
        }
        chain.mine(blocks, &miner.script_pubkey)?;
    }
}

/// How many blocks mined to `miner` make `wanted` spendable.
fn blocks_until(miner: &Wallet, wanted: Sat) -> Result<u32, RegtestError> {
    let mut ripening: BTreeMap<u32, Sat> = BTreeMap::new();
    for coin in miner.coins.values().filter(|coin| coin.spent_by.is_none()) {
        if let Origin::Mined { height, coinbase: true } = coin.origin {
            let value = ripening.entry(height.0).or_default();
            *value = value.saturating_add(coin.value);
        }
    }
    let mut spendable = miner.balance().spendable;
    let mut blocks = 0;
    while spendable < wanted {
        blocks += 1;
        let tip = miner.tip.0.saturating_add(blocks);
        let Some(ripe) = (tip + 1).checked_sub(COINBASE_MATURITY_BLOCKS) else { continue };
        let subsidy = if ripe > miner.tip.0 { regtest_subsidy(BlockHeight(ripe)) } else { Sat::ZERO };
        if ripe > miner.tip.0 && subsidy == Sat::ZERO {
            return Err(RegtestError::SubsidyExhausted { wanted, available: spendable, height: miner.tip });
        }
        spendable = spendable
            .saturating_add(subsidy)
            .saturating_add(ripening.get(&ripe).copied().unwrap_or_default());
    }
    Ok(blocks)
}

/// The transaction without witnesses.
fn unsigned(coins: &[OutPoint], output: Vec<TxOut>) -> Transaction {
    let input = coins
        .iter()
        .map(|outpoint| TxIn {
            previous_output: *outpoint,
            script_sig: ScriptBuf::new(),
            sequence: Sequence::MAX,
            witness: Witness::new(),
        })
        .collect();
    Transaction { version: Version::TWO, lock_time: LockTime::ZERO, input, output }
}

/// The weight of an unsigned transaction once signed, at most.
fn signed_weight(transaction: &Transaction) -> u64 {
    let witnesses = WITNESS_WEIGHT * transaction.input.len() as u64;
    transaction.weight().to_wu() + SEGWIT_WEIGHT + witnesses
}

/// One context for all wallets: making one costs more than a signature.
fn secp() -> &'static Secp256k1<All> {
    static CONTEXT: OnceLock<Secp256k1<All>> = OnceLock::new();
    CONTEXT.get_or_init(Secp256k1::new)
}

/// The weight of the marker and flag of a transaction with witnesses.
const SEGWIT_WEIGHT: u64 = 2;

/// A P2WPKH witness at most: count, signature of 72 bytes and key, each with its length.
const WITNESS_WEIGHT: u64 = 1 + 1 + 72 + 1 + 33;

/// A signed input at most: outpoint, empty script and sequence, and the witness.
const INPUT_WEIGHT: u64 = 4 * (36 + 1 + 4) + WITNESS_WEIGHT;

/// The fixed part of every transaction.
const VERSION_AND_LOCKTIME_BYTES: u64 = 8;

/// The least change worth an output; smaller change goes to the miner.
const DUST_P2WPKH: Sat = Sat(294);

/// The largest transaction Bitcoin nodes relay.
const STANDARD_WEIGHT_MAX: u64 = 400_000;

/// Outputs of one transaction of a fan-out: with P2WSH outputs and a hundred inputs it is still relayed.
const FAN_OUT_OUTPUTS: usize = 1_000;

/// Inputs of one sweep.
const SWEEP_INPUTS: usize = 1_400;

/// The longest chain of waiting transactions; Bitcoin nodes relay 25.
const CHAIN_LENGTH_MAX: u32 = 24;
