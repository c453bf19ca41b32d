//! One suite for every chain backend: users of the `Chain` traits may rely on exactly this behaviour.
//!
//! Runs on the kernel, and on a real bitcoind where `BITCOIND_EXE` names one.

use bitcoin::absolute::LockTime;
use bitcoin::hashes::Hash;
use bitcoin::transaction::Version;
use bitcoin::{Amount, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Witness};
use fulmen::chain::rpc::RpcChain;
use fulmen::chain::{ChainError, ChainEvent, RefusalKind};
use fulmen_regtest::bitcoind::Bitcoind;
use fulmen_regtest::kernel::KernelChain;
use fulmen_regtest::wallet::{Wallet, WalletError, WalletSpend, mine_until};
use fulmen_regtest::{RegtestChain, RegtestError, daemon};
use fulmen_wire::units::{BlockHeight, FeeratePerKw, Sat};

const RATE: FeeratePerKw = FeeratePerKw(1_000);
const COIN: u64 = 100_000_000;

/// A chain, and a miner who can spend 150 BTC on it.
struct Bench<'a> {
    chain: &'a mut dyn RegtestChain,
    miner: Wallet,
}

impl<'a> Bench<'a> {
    fn new(chain: &'a mut dyn RegtestChain) -> Bench<'a> {
        let mut miner = Wallet::new([1; 32]);
        mine_until(chain, &mut miner, Sat(150 * COIN)).unwrap();
        Bench { chain, miner }
    }

    fn mine(&mut self, blocks: u32) -> Vec<ChainEvent> {
        self.chain.mine(blocks, &self.miner.script_pubkey().clone()).unwrap();
        self.poll()
    }

    fn poll(&mut self) -> Vec<ChainEvent> {
        let mut events = Vec::new();
        loop {
            let more = self.chain.poll().unwrap();
            if more.is_empty() {
                return events;
            }
            more.iter().for_each(|event| self.miner.apply(event));
            events.extend(more);
        }
    }

    fn height(&mut self) -> u32 {
        self.chain.tip().unwrap().height.0
    }

    fn broadcast(&mut self, spend: &WalletSpend) {
        self.chain.broadcast(&spend.transaction).unwrap();
        self.miner.sent(spend.transaction.compute_txid());
    }

    /// The transaction is refused for this reason, and nothing moved.
    fn refused(&mut self, transaction: &Transaction, kind: RefusalKind) {
        let tip = self.chain.tip().unwrap();
        let waiting = self.chain.mempool_txids().unwrap();
        let error = self.chain.broadcast(transaction).expect_err("refused");
        assert_eq!(error.kind(), Some(kind), "{error}");
        assert_eq!(self.chain.tip().unwrap(), tip);
        assert_eq!(self.chain.mempool_txids().unwrap(), waiting);
    }

    /// An output anyone can spend, mined in the last block.
    fn open_output(&mut self) -> (OutPoint, Sat) {
        let spend = self.miner.fund(&[(open_script(), Sat(100_000))], RATE).unwrap();
        self.broadcast(&spend);
        self.mine(1);
        (OutPoint { txid: spend.transaction.compute_txid(), vout: 0 }, Sat(100_000))
    }
}

/// The script a coin that anyone can spend pays to: the witness script is `OP_TRUE`.
fn open_script() -> ScriptBuf {
    ScriptBuf::new_p2wsh(&ScriptBuf::from_bytes(vec![0x51]).wscript_hash())
}

/// Spends an output of [`open_script`] to `to`.
fn spend_open(from: (OutPoint, Sat), to: &ScriptBuf, lock_time: LockTime, sequence: Sequence) -> Transaction {
    Transaction {
        version: Version::TWO,
        lock_time,
        input: vec![TxIn {
            previous_output: from.0,
            script_sig: ScriptBuf::new(),
            sequence,
            witness: Witness::from_slice(&[[0x51]]),
        }],
        output: vec![TxOut { value: Amount::from_sat(from.1.0 - 1_000), script_pubkey: to.clone() }],
    }
}

fn mines_funds_broadcasts_and_confirms(chain: &mut dyn RegtestChain) {
    let genesis = chain.tip().unwrap();
    assert_eq!(genesis.height, BlockHeight(0));
    assert_eq!(genesis.hash, bitcoin::constants::genesis_block(bitcoin::Network::Regtest).block_hash());
    assert!(chain.fee_estimate().unwrap() >= FeeratePerKw::FLOOR);
    let mut bench = Bench::new(chain);
    let before = bench.miner.balance().total();
    let payee = Wallet::new([2; 32]);
    let spend = bench.miner.fund(&[(payee.script_pubkey().clone(), Sat(COIN))], RATE).unwrap();
    bench.broadcast(&spend);
    let txid = spend.transaction.compute_txid();
    assert_eq!(bench.chain.mempool_txids().unwrap(), [txid]);
    bench.chain.broadcast(&spend.transaction).expect("again is no error");
    let events = bench.mine(1);
    let [ChainEvent::Connected { height, block }] = &events[..] else { panic!("{events:?}") };
    assert_eq!(block.txdata[1].compute_txid(), txid);
    assert_eq!(bench.chain.block(*height).unwrap().as_ref(), Some(block));
    assert_eq!(bench.chain.block(BlockHeight(height.0 + 1)).unwrap(), None);
    assert_eq!(bench.chain.tip().unwrap().hash, block.block_hash());
    assert!(bench.chain.mempool_txids().unwrap().is_empty());
    bench.chain.broadcast(&spend.transaction).expect("in the chain is no error");
    // The miner paid itself the fee, so only the payment is gone.
    let after = bench.miner.balance().total();
    assert_eq!(before.0 + 50 * COIN, after.0 + COIN);
    assert_eq!(bench.miner.fees_paid(), spend.fee);
    assert_eq!(spend.fee.0 + spend.change.0 + COIN, 50 * COIN);
}

fn refuses_what_the_next_block_cannot_hold(chain: &mut dyn RegtestChain) {
    let mut bench = Bench::new(chain);
    let to = Wallet::new([2; 32]).script_pubkey().clone();

    // A coinbase output one block before it is mature.
    let open = bench.chain.mine(1, &open_script()).unwrap();
    bench.poll();
    let height = bench.height();
    let block = bench.chain.block(BlockHeight(height)).unwrap().unwrap();
    assert_eq!(block.block_hash(), open[0]);
    let coinbase = OutPoint { txid: block.txdata[0].compute_txid(), vout: 0 };
    let value = Sat(block.txdata[0].output[0].value.to_sat());
    let young = spend_open((coinbase, value), &to, LockTime::ZERO, Sequence::MAX);
    bench.mine(98);
    bench.refused(&young, RefusalKind::ImmatureCoinbase);
    bench.mine(1);
    bench.chain.broadcast(&young).expect("100 blocks later it may be spent");

    // A bad signature.
    let good = bench.miner.fund(&[(to.clone(), Sat(50_000))], RATE).unwrap();
    let mut bad = good.transaction.clone();
    let mut signature = bad.input[0].witness.nth(0).unwrap().to_vec();
    signature[20] ^= 1;
    let key = bad.input[0].witness.nth(1).unwrap().to_vec();
    bad.input[0].witness = Witness::from_slice(&[signature, key]);
    bench.refused(&bad, RefusalKind::Script);

    // A double spend, of a transaction in the mempool and of a mined one.
    bench.broadcast(&good);
    let mut double = good.transaction.clone();
    double.output.swap(0, 1);
    bench.refused(&double, RefusalKind::DoubleSpend);
    bench.mine(1);
    bench.refused(&double, RefusalKind::MissingInput);

    // More out than in, an output that never was, and no inputs at all.
    let from = bench.open_output();
    let mut greedy = spend_open(from, &to, LockTime::ZERO, Sequence::MAX);
    greedy.output[0].value = Amount::from_sat(from.1.0 + 1);
    bench.refused(&greedy, RefusalKind::Overspent);
    let nowhere = OutPoint { txid: bitcoin::Txid::all_zeros(), vout: 7 };
    bench.refused(
        &spend_open((nowhere, from.1), &to, LockTime::ZERO, Sequence::MAX),
        RefusalKind::MissingInput,
    );
    let mut twice = spend_open(from, &to, LockTime::ZERO, Sequence::MAX);
    twice.input.push(twice.input[0].clone());
    bench.refused(&twice, RefusalKind::Malformed);
}

fn holds_locktimes_to_the_block(chain: &mut dyn RegtestChain) {
    let mut bench = Bench::new(chain);
    let to = Wallet::new([2; 32]).script_pubkey().clone();

    // Locktime 3 blocks above the tip: the block after that height is the first that may have it.
    let from = bench.open_output();
    let unlock = bench.height() + 3;
    let lock_time = LockTime::from_height(unlock).unwrap();
    let locked = spend_open(from, &to, lock_time, Sequence::ENABLE_LOCKTIME_NO_RBF);
    bench.mine(2);
    bench.refused(&locked, RefusalKind::Locktime);
    bench.mine(1);
    bench.chain.broadcast(&locked).expect("the locktime has passed");
    bench.mine(1);

    // An age of 3 blocks: the third block above the output's is the first that may have it.
    let from = bench.open_output();
    let aged = spend_open(from, &to, LockTime::ZERO, Sequence::from_height(3));
    bench.mine(1);
    bench.refused(&aged, RefusalKind::SequenceLock);
    bench.mine(1);
    bench.chain.broadcast(&aged).expect("the age is reached");
    let events = bench.mine(1);
    let [ChainEvent::Connected { block, .. }] = &events[..] else { panic!("{events:?}") };
    assert_eq!(block.txdata[1].compute_txid(), aged.compute_txid());

    // An age of zero is reached by a parent that waits, an age of one is not.
    let parent = bench.miner.fund(&[(open_script(), Sat(100_000))], RATE).unwrap();
    bench.broadcast(&parent);
    let output = (OutPoint { txid: parent.transaction.compute_txid(), vout: 0 }, Sat(100_000));
    bench.refused(
        &spend_open(output, &to, LockTime::ZERO, Sequence::from_height(1)),
        RefusalKind::SequenceLock,
    );
    let child = spend_open(output, &to, LockTime::ZERO, Sequence::from_height(0));
    bench.chain.broadcast(&child).expect("spends a parent that waits");
    let events = bench.mine(1);
    let [ChainEvent::Connected { block, .. }] = &events[..] else { panic!("{events:?}") };
    assert_eq!(block.txdata.len(), 3);
}

fn reports_reorganisations_in_order(chain: &mut dyn RegtestChain) {
    let mut bench = Bench::new(chain);
    let before = bench.miner.balance();
    let payee = Wallet::new([2; 32]).script_pubkey().clone();
    let spend = bench.miner.fund(&[(payee, Sat(COIN))], RATE).unwrap();
    bench.broadcast(&spend);
    let old = [bench.mine(1), bench.mine(1)].concat();
    let tip = bench.height();
    let new = bench.chain.reorganize(2, &bench.miner.script_pubkey().clone()).unwrap();
    let events = bench.poll();
    let hash = |event: &ChainEvent| match event {
        ChainEvent::Connected { height, block } => (height.0, block.block_hash(), true),
        ChainEvent::Disconnected { height, hash } => (height.0, *hash, false),
    };
    let seen: Vec<_> = events.iter().map(hash).collect();
    let expected = [
        (tip, hash(&old[1]).1, false),
        (tip - 1, hash(&old[0]).1, false),
        (tip - 1, new[0], true),
        (tip, new[1], true),
        (tip + 1, new[2], true),
    ];
    assert_eq!(seen, expected);
    let txid = spend.transaction.compute_txid();
    assert_eq!(bench.chain.mempool_txids().unwrap(), [txid], "what was mined waits again");
    assert_eq!(bench.miner.fees_paid(), Sat::ZERO);
    // Three blocks later, the payment and its fee are out of the wallet but not yet with payee and miner.
    assert_eq!(bench.miner.balance().total().0, before.total().0 + 150 * COIN - COIN - spend.fee.0);
    let events = bench.mine(1);
    let [ChainEvent::Connected { block, .. }] = &events[..] else { panic!("{events:?}") };
    assert_eq!(block.txdata[1].compute_txid(), txid);
    assert_eq!(bench.miner.fees_paid(), spend.fee);
    assert_eq!(bench.miner.balance().total().0, before.total().0 + 200 * COIN - COIN);
    let height = bench.height();
    let error = bench.chain.reorganize(height + 1, &ScriptBuf::new()).unwrap_err();
    assert!(matches!(error, RegtestError::ReorgTooDeep { .. }), "{error}");
}

fn fans_out_and_sweeps_back_to_the_satoshi(chain: &mut dyn RegtestChain) {
    let mut bench = Bench::new(chain);
    let start = bench.miner.balance().total();
    let mut nodes: Vec<Wallet> = (0..100_u8).map(|index| Wallet::new([index + 100; 32])).collect();
    let mut history = Vec::new();
    for height in 1..=bench.height() {
        let block = bench.chain.block(BlockHeight(height)).unwrap().unwrap();
        history.push(ChainEvent::Connected { height: BlockHeight(height), block });
    }
    let outputs: Vec<_> =
        (0..).zip(&nodes).map(|(i, node)| (node.script_pubkey().clone(), Sat(COIN / 10 + i))).collect();
    let spends = bench.miner.fan_out(&outputs, RATE).unwrap();
    let mut fees = Sat::ZERO;
    for spend in &spends {
        bench.chain.broadcast(&spend.transaction).unwrap();
        fees = fees.checked_add(spend.fee).unwrap();
    }
    history.extend(bench.mine(1));
    let mut mined = 50 * COIN + fees.0;
    for (i, node) in (0..).zip(&mut nodes) {
        history.iter().for_each(|event| node.apply(event));
        assert_eq!(node.balance().spendable, Sat(COIN / 10 + i));
        let spend = node.sweep(bench.miner.script_pubkey(), RATE).unwrap().expect("there is something");
        bench.chain.broadcast(&spend.transaction).unwrap();
        node.sent(spend.transaction.compute_txid());
        fees = fees.checked_add(spend.fee).unwrap();
        mined += spend.fee.0;
    }
    let events = bench.mine(1);
    mined += 50 * COIN;
    for node in &mut nodes {
        events.iter().for_each(|event| node.apply(event));
        assert_eq!(node.balance().total(), Sat::ZERO);
        assert!(matches!(node.sweep(&open_script(), RATE), Ok(None)));
    }
    let end = bench.miner.balance().total().0;
    assert_eq!(start.0 + mined, end + fees.0);
}

fn says_what_cannot_be_paid(chain: &mut dyn RegtestChain) {
    let mut bench = Bench::new(chain);
    let to = Wallet::new([2; 32]).script_pubkey().clone();
    let before = bench.miner.balance();
    let error = bench.miner.fund(&[(to.clone(), Sat(20_000 * COIN))], RATE).unwrap_err();
    assert!(matches!(error, WalletError::Insufficient { .. }), "{error}");
    let error = bench.miner.fund(&[(to.clone(), Sat(293))], RATE).unwrap_err();
    assert!(matches!(error, WalletError::Dust { minimum: Sat(294), .. }), "{error}");
    let error = mine_until(bench.chain, &mut bench.miner, Sat(15_000 * COIN)).unwrap_err();
    assert!(matches!(error, RegtestError::SubsidyExhausted { .. }), "{error}");
    // Everything but the fee can be paid, and a released transaction gives all of it back.
    let fee = bench.miner.sweep(&to, RATE).unwrap().unwrap();
    let all = Sat(before.spendable.0 - fee.fee.0);
    assert_eq!(bench.miner.balance().reserved, before.spendable);
    bench.miner.release(fee.transaction.compute_txid());
    assert_eq!(bench.miner.balance(), before);
    let error = bench.miner.fund(&[(to.clone(), Sat(all.0 + 1))], RATE).unwrap_err();
    assert!(matches!(error, WalletError::Insufficient { .. }), "{error}");
    let spend = bench.miner.fund(&[(to, all)], RATE).unwrap();
    assert_eq!((spend.fee, spend.change), (fee.fee, Sat::ZERO));
    bench.broadcast(&spend);
    bench.mine(1);
}

/// One test for each check, each on a new chain from `$open`, which also returns a guard that keeps the chain running.
macro_rules! suite {
    ($backend:ident, $open:path) => {
        mod $backend {
            suite!(@tests $open,
                mines_funds_broadcasts_and_confirms,
                refuses_what_the_next_block_cannot_hold,
                holds_locktimes_to_the_block,
                reports_reorganisations_in_order,
                fans_out_and_sweeps_back_to_the_satoshi,
                says_what_cannot_be_paid,
            );
        }
    };
    (@tests $open:path, $($check:ident,)*) => {$(
        #[test]
        fn $check() {
            if let Some((mut chain, _keeper)) = $open() {
                super::$check(&mut chain);
            }
        }
    )*};
}

fn open_kernel() -> Option<(KernelChain, ())> {
    Some((KernelChain::in_memory().unwrap(), ()))
}

suite!(kernel, super::open_kernel);

fn open_rpc() -> Option<(RpcChain, Bitcoind)> {
    let Some(program) = std::env::var_os("BITCOIND_EXE") else {
        static ONCE: std::sync::Once = std::sync::Once::new();
        // Written past the test harness, which hides the output of a passing test.
        ONCE.call_once(|| {
            let message =
                b"\nSKIPPED: chain conformance over JSON-RPC; set BITCOIND_EXE to a bitcoind to run it\n";
            std::io::Write::write_all(&mut std::io::stderr(), message).unwrap();
        });
        return None;
    };
    let daemon = Bitcoind::start(program.as_ref()).unwrap();
    let chain = daemon::connect(daemon.url()).unwrap();
    Some((chain, daemon))
}

suite!(rpc, super::open_rpc);

#[test]
fn a_wrong_password_is_refused() {
    if let Some((_, daemon)) = open_rpc() {
        let url = daemon.url().replace("regtest", "wrong");
        let Err(error) = daemon::connect(&url) else { panic!("connected") };
        assert!(matches!(error, RegtestError::Chain(ChainError::Unauthorized { .. })), "{error}");
    }
}
