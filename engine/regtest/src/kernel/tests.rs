//! The kernel chain against itself: the engine mines all that the mempool takes, and nothing that it refuses.

use std::collections::BTreeMap;

use bitcoin::absolute::LockTime;
use bitcoin::script::Builder;
use bitcoin::transaction::Version;
use bitcoin::{Amount, OutPoint, Sequence, TxIn, TxOut, Witness, opcodes};
use proptest::prelude::{Strategy, any, prop};
use proptest::test_runner::{Config, TestCaseError, TestRunner};

use super::*;

mod wallets;

/// A script anyone can spend; enough to mine to.
fn anyone() -> ScriptBuf {
    ScriptBuf::from_bytes(vec![0x51])
}

#[test]
fn mining_extends_the_chain_and_reports_it() {
    let mut chain = KernelChain::in_memory().unwrap();
    let hashes = chain.mine(160, &anyone()).unwrap();
    assert_eq!(chain.tip().unwrap(), Tip { height: BlockHeight(160), hash: hashes[159] });
    let events = chain.poll().unwrap();
    assert_eq!(events.len(), 160);
    for (index, event) in events.iter().enumerate() {
        let ChainEvent::Connected { height, block } = event else { panic!("{event:?}") };
        assert_eq!((height.0 as usize, block.block_hash()), (index + 1, hashes[index]));
    }
    assert!(chain.poll().unwrap().is_empty());
    assert_eq!(chain.block(BlockHeight(160)).unwrap().unwrap().txdata[0].output[0].value.to_btc(), 25.0);
    assert_eq!(chain.block(BlockHeight(161)).unwrap(), None);
}

#[test]
fn a_chain_on_disk_is_there_again() {
    let directory = tempfile::tempdir().unwrap();
    let config = KernelConfig { directory: Some(directory.path().to_owned()), ..KernelConfig::default() };
    let mut chain = KernelChain::open(config.clone()).unwrap();
    chain.mine(3, &anyone()).unwrap();
    let (tip, utxos) = (chain.tip().unwrap(), std::mem::take(&mut chain.utxos));
    let Err(error) = KernelChain::open(config.clone()) else { panic!("opened twice") };
    assert!(matches!(error, RegtestError::Open { .. }), "{error}");
    drop(chain);
    let mut chain = KernelChain::open(config).unwrap();
    assert_eq!(chain.tip().unwrap(), tip);
    assert_eq!(chain.utxos, utxos);
    assert_eq!(chain.poll().unwrap().len(), 3);
    chain.mine(1, &anyone()).unwrap();
}

#[test]
fn a_temporary_chain_leaves_nothing_behind() {
    let chain = KernelChain::in_memory().unwrap();
    let path = chain.engine.path().to_owned();
    assert!(path.is_dir());
    drop(chain);
    assert!(!path.exists());
}

#[test]
fn an_invalid_block_moves_nothing() {
    let mut chain = KernelChain::in_memory().unwrap();
    chain.mine(2, &anyone()).unwrap();
    let tip = chain.tip().unwrap();
    let mut block = chain.template(&anyone());
    block.txdata[0].output[0].value += bitcoin::Amount::ONE_SAT;
    block.header.merkle_root = block.compute_merkle_root().unwrap();
    while block.header.validate_pow(block.header.target()).is_err() {
        block.header.nonce += 1;
    }
    let error = chain.submit(&Arc::new(block)).unwrap_err();
    assert!(matches!(error, RegtestError::BlockRefused { .. }), "{error}");
    assert_eq!(chain.tip().unwrap(), tip);
    assert_eq!(chain.poll().unwrap().len(), 2);
}

#[test]
fn the_same_calls_give_the_same_chain() {
    let tip = || {
        let mut chain = KernelChain::in_memory().unwrap();
        chain.mine(5, &anyone()).unwrap();
        chain.reorganize(2, &anyone()).unwrap();
        chain.tip().unwrap()
    };
    assert_eq!(tip(), tip());
}

/// A step of the property.
#[derive(Clone, Debug)]
enum Step {
    /// Offers a transaction.
    Offer(Draft),
    /// Mines blocks.
    Mine(u32),
    /// Replaces blocks.
    Reorganize(u32),
    /// Lets time jump ahead.
    Sleep(u32),
}

/// A transaction in terms of the outputs that exist when its turn comes.
#[derive(Clone, Debug)]
struct Draft {
    /// Picks the outputs to spend, and how old each must be.
    inputs: Vec<(u16, Lock)>,
    lock_time: Absolute,
    version: i32,
    outputs: u8,
    fault: Fault,
}

/// A relative locktime near the output's age.
#[derive(Clone, Copy, Debug)]
enum Lock {
    Final,
    NoAge,
    Blocks(u8),
    Time(u8),
}

/// An absolute locktime near the tip.
#[derive(Clone, Copy, Debug)]
enum Absolute {
    None,
    Height(i8),
    Time(i8),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    None,
    Overspend,
    WrongWitness,
    UnknownInput,
    SameInputTwice,
    NoOutputs,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let lock = proptest::prop_oneof![
        4 => proptest::prelude::Just(Lock::Final),
        1 => proptest::prelude::Just(Lock::NoAge),
        3 => (0..6_u8).prop_map(Lock::Blocks),
        3 => (0..8_u8).prop_map(Lock::Time),
    ];
    let lock_time = proptest::prop_oneof![
        3 => proptest::prelude::Just(Absolute::None),
        2 => (-2..=3_i8).prop_map(Absolute::Height),
        2 => (-2..=3_i8).prop_map(Absolute::Time),
    ];
    let fault = proptest::prop_oneof![
        12 => proptest::prelude::Just(Fault::None),
        1 => proptest::prelude::Just(Fault::Overspend),
        1 => proptest::prelude::Just(Fault::WrongWitness),
        1 => proptest::prelude::Just(Fault::UnknownInput),
        1 => proptest::prelude::Just(Fault::SameInputTwice),
        1 => proptest::prelude::Just(Fault::NoOutputs),
    ];
    let version = proptest::prop_oneof![4 => 2..=3_i32, 1 => -1..=1_i32];
    let draft = (prop::collection::vec((any::<u16>(), lock), 1..3), lock_time, version, 1..4_u8, fault)
        .prop_map(|(inputs, lock_time, version, outputs, fault)| Draft {
            inputs,
            lock_time,
            version,
            outputs,
            fault,
        });
    let step = proptest::prop_oneof![
        12 => draft.prop_map(Step::Offer),
        3 => (1..3_u32).prop_map(Step::Mine),
        1 => (1..4_u32).prop_map(Step::Reorganize),
        1 => (1..4_000_u32).prop_map(Step::Sleep),
    ];
    prop::collection::vec(step, 10..60)
}

/// A chain with coins anyone can spend, and every output ever made by a transaction on it.
struct World {
    chain: KernelChain,
    outputs: Vec<(OutPoint, Amount)>,
    taken: u32,
    refused: BTreeMap<String, u32>,
}

impl World {
    fn new() -> World {
        let mut chain = KernelChain::in_memory().unwrap();
        chain.mine(110, &open_script()).unwrap();
        let mut world = World { chain, outputs: Vec::new(), taken: 0, refused: BTreeMap::new() };
        let (coinbase, value) = world.coinbase(1);
        let input = TxIn {
            previous_output: coinbase,
            witness: Witness::from_slice(&[witness_script()]),
            ..TxIn::default()
        };
        let share = TxOut { value: value / 16, script_pubkey: open_script() };
        let split = Transaction {
            version: Version::TWO,
            lock_time: LockTime::ZERO,
            input: vec![input],
            output: vec![share; 16],
        };
        world.chain.accept(&split).unwrap();
        world.chain.mine(1, &open_script()).unwrap();
        world.learn(&split);
        world
    }

    /// The coinbase output of the block at `height`.
    fn coinbase(&self, height: u32) -> (OutPoint, Amount) {
        let coinbase = &self.chain.block_applied(BlockHeight(height)).txdata[0];
        (OutPoint { txid: coinbase.compute_txid(), vout: 0 }, coinbase.output[0].value)
    }

    /// An output to spend: one in ten a coinbase about to mature, the others new rather than old.
    fn pick(&self, pick: u16) -> (OutPoint, Amount) {
        if pick.is_multiple_of(10) {
            return self.coinbase(self.chain.tip_applied().height.0 - 101 + u32::from(pick / 10 % 5));
        }
        let distance = (usize::from(pick) * usize::from(pick) * self.outputs.len()) >> 32;
        self.outputs[self.outputs.len() - 1 - distance]
    }

    fn learn(&mut self, transaction: &Transaction) {
        let txid = transaction.compute_txid();
        for (vout, output) in (0..).zip(&transaction.output) {
            if output.script_pubkey == open_script() {
                self.outputs.push((OutPoint { txid, vout }, output.value));
            }
        }
    }

    fn step(&mut self, step: &Step) -> Result<(), TestCaseError> {
        match step {
            Step::Offer(draft) => self.offer(&self.transaction(draft))?,
            Step::Mine(blocks) => {
                self.chain.mine(*blocks, &open_script()).expect("a template is valid");
            }
            Step::Reorganize(depth) => {
                self.chain.reorganize(*depth, &open_script()).expect("empty blocks are valid");
            }
            Step::Sleep(seconds) => {
                let tip = self.chain.tip_applied().height;
                self.chain.set_time(self.chain.time_above(tip) + seconds);
            }
        }
        Ok(())
    }

    fn transaction(&self, draft: &Draft) -> Transaction {
        let tip = self.chain.tip_applied().height;
        let mut value = Amount::ZERO;
        let mut input = Vec::new();
        for (pick, lock) in &draft.inputs {
            let (previous_output, amount) = self.pick(*pick);
            value += amount;
            let sequence = match lock {
                Lock::Final => Sequence::MAX,
                Lock::NoAge => Sequence::ENABLE_LOCKTIME_NO_RBF,
                Lock::Blocks(age) => Sequence::from_height(u16::from(*age)),
                Lock::Time(units) => Sequence::from_512_second_intervals(u16::from(*units)),
            };
            let witness = Witness::from_slice(&[witness_script()]);
            input.push(TxIn { previous_output, script_sig: ScriptBuf::new(), sequence, witness });
        }
        match draft.fault {
            Fault::WrongWitness => input[0].witness = Witness::from_slice(&[[0x52]]),
            Fault::UnknownInput => input[0].previous_output.vout += 100,
            Fault::SameInputTwice => input.push(input[0].clone()),
            Fault::None | Fault::Overspend | Fault::NoOutputs => {}
        }
        if draft.fault == Fault::Overspend {
            value += Amount::from_sat(u64::from(draft.outputs));
        }
        let outputs = if draft.fault == Fault::NoOutputs { 0 } else { u64::from(draft.outputs) };
        let share = value / u64::from(draft.outputs);
        let output = (0..outputs).map(|_| TxOut { value: share, script_pubkey: open_script() }).collect();
        let lock_time = match draft.lock_time {
            Absolute::None => LockTime::ZERO,
            Absolute::Height(offset) => {
                LockTime::from_height(tip.0.saturating_add_signed(offset.into())).unwrap()
            }
            Absolute::Time(offset) => {
                LockTime::from_time(self.chain.median_time(tip).saturating_add_signed(offset.into())).unwrap()
            }
        };
        Transaction { version: Version(draft.version), lock_time, input, output }
    }

    /// Offers the transaction; one that is refused must make the next block invalid.
    fn offer(&mut self, transaction: &Transaction) -> Result<(), TestCaseError> {
        match self.chain.accept(transaction) {
            Ok(()) => {
                self.taken += 1;
                self.learn(transaction);
            }
            Err(error) => {
                *self.refused.entry(format!("{:?}", error.kind())).or_default() += 1;
                let tip = self.chain.tip_applied();
                let block = self.block_with(transaction);
                let outcome = self.chain.submit(&Arc::new(block));
                proptest::prop_assert!(
                    matches!(outcome, Err(RegtestError::BlockRefused { .. })),
                    "refused for {error}, and yet the engine mines {transaction:?}"
                );
                proptest::prop_assert_eq!(self.chain.tip_applied(), tip);
            }
        }
        Ok(())
    }

    /// The next block with `transaction` at its end. It claims no fees, so that only the transaction can be wrong.
    fn block_with(&self, transaction: &Transaction) -> Block {
        let tip = self.chain.tip_applied();
        let (mut transactions, _) = self.chain.mempool.select(&open_script());
        transactions.push(transaction.clone());
        let slot = Slot {
            parent: tip.hash,
            height: BlockHeight(tip.height.0 + 1),
            time: self.chain.time_above(tip.height),
            reward_to: &open_script(),
            tag: *b"refused!",
        };
        assemble::block(&slot, transactions, Sat::ZERO)
    }
}

/// `OP_TRUE`: the coins of these tests are anyone's.
fn witness_script() -> ScriptBuf {
    Builder::new().push_opcode(opcodes::OP_TRUE).into_script()
}

fn open_script() -> ScriptBuf {
    ScriptBuf::new_p2wsh(&witness_script().wscript_hash())
}

#[test]
fn the_mempool_takes_exactly_what_the_engine_mines() {
    let mut runner = TestRunner::new(Config { failure_persistence: None, ..Config::with_cases(48) });
    let mut totals: BTreeMap<String, u32> = BTreeMap::new();
    let totals_ref = std::cell::RefCell::new(&mut totals);
    runner
        .run(&steps(), |steps| {
            let mut world = World::new();
            for step in &steps {
                world.step(step)?;
            }
            // Everything that waits can be mined now, whatever the steps were.
            world.chain.mine(1, &open_script()).expect("a template is valid");
            proptest::prop_assert!(world.chain.mempool_txids().unwrap().is_empty());
            let mut index = UtxoSet::default();
            for (height, applied) in (1..).zip(&world.chain.applied) {
                index.connect(BlockHeight(height), &applied.block);
            }
            proptest::prop_assert!(index == world.chain.utxos, "the index differs from its blocks");
            let mut totals = totals_ref.borrow_mut();
            *totals.entry("taken".to_owned()).or_default() += world.taken;
            for (kind, count) in world.refused {
                *totals.entry(kind).or_default() += count;
            }
            Ok(())
        })
        .unwrap();
    // The cases must have met every rule, or they prove nothing about it.
    for kind in [
        "taken",
        "Malformed",
        "MissingInput",
        "DoubleSpend",
        "ImmatureCoinbase",
        "Locktime",
        "SequenceLock",
        "Overspent",
        "Script",
    ] {
        assert!(totals.get(kind).is_some_and(|count| *count >= 5), "{kind} hardly met: {totals:?}");
    }
}
