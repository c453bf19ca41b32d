//! The funds check: on chain to the satoshi, and per node to the millisatoshi.
//!
//! Owns: [`ChainAudit`], which reads every block of the run and keeps its own set of unspent outputs, and [`Ledger`],
//! which notes the amounts each node paid, received and earned. The two never share a number: the audit knows blocks
//! and scripts only, the ledgers know payments only, and [`check`] holds one against the other.
//!
//! Asks channels for one balance only: that of each side at the closing, whose fraction of a
//! satoshi (or whole output, below dust) a transaction cannot carry. It is named apart and bounded.
//!
//! Invariant: an output the audit cannot attribute is reported as strayed, never ignored.

use std::collections::HashMap;

use bitcoin::{Block, OutPoint, ScriptBuf, Transaction, TxOut};
use fulmen_wire::units::{Msat, Sat};

use crate::report::{Funds, NodeFunds};

/// Who can spend an output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    /// The wallet of the node of this index.
    Node(usize),
    /// The channel of this index: both its nodes together.
    Channel(usize),
    /// The miner.
    Miner,
}

/// A closing transaction, as the blocks show it.
#[derive(Clone, Debug)]
pub(crate) struct Closing {
    /// The fee it paid the miner.
    pub(crate) fee: Sat,
    /// The amounts it paid the nodes.
    pub(crate) paid: Vec<(usize, Sat)>,
}

/// A reading of every block since the run began.
#[derive(Debug, Default)]
pub(crate) struct ChainAudit {
    owners: HashMap<ScriptBuf, Owner>,
    unspent: HashMap<OutPoint, TxOut>,
    started: bool,
    start: HashMap<usize, u64>,
    fees: u64,
    /// The fees of each node's own transactions.
    wallet_fees: HashMap<usize, u64>,
    fundings: HashMap<usize, u64>,
    closings: HashMap<usize, Closing>,
    findings: Vec<String>,
}

impl ChainAudit {
    /// Nothing read yet.
    pub(crate) fn new() -> ChainAudit {
        ChainAudit::default()
    }

    /// Says who owns `script`. Must be said before the block that first spends one of its outputs is read.
    pub(crate) fn own(&mut self, script: ScriptBuf, owner: Owner) {
        self.owners.insert(script, owner);
    }

    /// Takes every wallet's balance now as its balance at the start of the run.
    pub(crate) fn start(&mut self) {
        self.start = self.wallets();
        self.started = true;
    }

    /// Reads the next block.
    pub(crate) fn connect(&mut self, block: &Block) {
        for transaction in &block.txdata {
            let spent = self.spend(transaction);
            let txid = transaction.compute_txid();
            for (index, output) in transaction.output.iter().enumerate() {
                if output.script_pubkey.is_op_return() {
                    continue;
                }
                let outpoint =
                    OutPoint { txid, vout: u32::try_from(index).expect("a block bounds its outputs") };
                self.unspent.insert(outpoint, output.clone());
                if let Some(Owner::Channel(channel)) = self.owners.get(&output.script_pubkey) {
                    self.fundings.insert(*channel, output.value.to_sat());
                }
            }
            if self.started && !transaction.is_coinbase() {
                self.attribute(transaction, &spent);
            }
        }
    }

    /// The outputs of `transaction` that fund a channel, with the channel's index.
    pub(crate) fn fundings_in<'a>(
        &'a self,
        transaction: &'a Transaction,
    ) -> impl Iterator<Item = (u16, usize)> + 'a {
        let outputs = (0..=u16::MAX).zip(&transaction.output);
        outputs.filter_map(|(index, output)| match self.owners.get(&output.script_pubkey) {
            Some(Owner::Channel(channel)) => Some((index, *channel)),
            _ => None,
        })
    }

    /// Channels whose funding output the chain holds or held.
    pub(crate) fn channels_opened(&self) -> u64 {
        self.fundings.len() as u64
    }

    /// Channels whose funding output is spent.
    pub(crate) fn channels_closed(&self) -> u64 {
        self.closings.len() as u64
    }

    /// The closing of a channel, if a block holds it.
    pub(crate) fn closing(&self, channel: usize) -> Option<&Closing> {
        self.closings.get(&channel)
    }

    /// The balance of each node's wallet, in satoshi.
    pub(crate) fn wallets(&self) -> HashMap<usize, u64> {
        let mut wallets = HashMap::new();
        for output in self.unspent.values() {
            if let Some(Owner::Node(node)) = self.owners.get(&output.script_pubkey) {
                *wallets.entry(*node).or_default() += output.value.to_sat();
            }
        }
        wallets
    }

    fn spend(&mut self, transaction: &Transaction) -> Vec<Option<TxOut>> {
        if transaction.is_coinbase() {
            return Vec::new();
        }
        transaction.input.iter().map(|input| self.unspent.remove(&input.previous_output)).collect()
    }

    /// Books a transaction's fee on its payer.
    fn attribute(&mut self, transaction: &Transaction, spent: &[Option<TxOut>]) {
        let owner = |output: &TxOut| self.owners.get(&output.script_pubkey).copied();
        let spenders: Vec<Option<Owner>> = spent.iter().flatten().map(owner).collect();
        let ours = spenders.iter().any(|spender| matches!(spender, Some(Owner::Node(_) | Owner::Channel(_))));
        if !ours {
            // Transactions of others, such as a bitcoind's own wallet, touch neither side of the equation.
            return;
        }
        let txid = transaction.compute_txid();
        let first = spenders.first().copied().flatten();
        if spent.iter().any(Option::is_none) || spenders.iter().any(|spender| *spender != first) {
            self.findings.push(format!("transaction {txid} spends outputs of more than one owner"));
            return;
        }
        let inputs: u64 = spent.iter().flatten().map(|output| output.value.to_sat()).sum();
        let outputs: u64 = transaction.output.iter().map(|output| output.value.to_sat()).sum();
        let Some(fee) = inputs.checked_sub(outputs) else {
            self.findings.push(format!("transaction {txid} pays out more than it spends"));
            return;
        };
        self.fees += fee;
        match first {
            Some(Owner::Node(node)) => *self.wallet_fees.entry(node).or_default() += fee,
            Some(Owner::Channel(channel)) => {
                let paid = transaction.output.iter().filter_map(|output| match owner(output) {
                    Some(Owner::Node(node)) => Some((node, Sat(output.value.to_sat()))),
                    _ => None,
                });
                let closing = Closing { fee: Sat(fee), paid: paid.collect() };
                self.closings.insert(channel, closing);
            }
            Some(Owner::Miner) | None => {}
        }
    }

    fn total(&self, wanted: impl Fn(Option<&Owner>) -> bool) -> u64 {
        let outputs = self.unspent.values();
        outputs
            .filter(|output| wanted(self.owners.get(&output.script_pubkey)))
            .map(|output| output.value.to_sat())
            .sum()
    }
}

/// The amounts that one node paid, received and earned, from its own events.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ledger {
    /// Payments received.
    pub(crate) received: Msat,
    /// Forwarding fees earned.
    pub(crate) earned: Msat,
    /// Payments made, routing fees included.
    pub(crate) paid: Msat,
    /// Forwards fulfilled.
    pub(crate) forwards: u64,
}

/// A channel as the funds check needs it: who opened it, and how it stood when it closed.
#[derive(Clone, Debug)]
pub(crate) struct ChannelBooks {
    /// The node that funded it and pays for its closing.
    pub(crate) opener: usize,
    /// The other node.
    pub(crate) acceptor: usize,
    /// The opener's `push_msat`: the acceptor's balance at the start.
    pub(crate) push: Msat,
    /// The balances of opener and acceptor when the closing was agreed, if it was.
    pub(crate) closing_balances: Option<[Msat; 2]>,
}

/// The largest output below dust a closing may leave out; a larger difference is a finding, not rounding.
const TRIMMED_MAX: Msat = Msat(546_000);

/// The part of a channel's balances that its closing did not pay out.
struct ClosingCosts {
    /// The opener's mining fee.
    fee: Msat,
    /// Amounts the transaction could not carry: the opener's and the acceptor's.
    rounding: [Msat; 2],
}

/// Holds the chain's figures against the ledgers. `ledgers` has one entry a node.
pub(crate) fn check(audit: &ChainAudit, ledgers: &[Ledger], channels: &[ChannelBooks]) -> Funds {
    let mut findings = audit.findings.clone();
    let end_wallets = audit.wallets();
    let wallets_sat: u64 = end_wallets.values().sum();
    let in_channels_sat = audit.total(|owner| matches!(owner, Some(Owner::Channel(_))));
    let start_sat: u64 = audit.start.values().sum();
    let end_sat = wallets_sat + in_channels_sat;
    let chain_holds = start_sat == end_sat + audit.fees;
    if !chain_holds {
        findings.push(format!(
            "on chain: {start_sat} sat at the start, but {end_sat} sat at the end and {} sat of mining fees",
            audit.fees
        ));
    }

    let mut nodes: Vec<Equation> = ledgers
        .iter()
        .enumerate()
        .map(|(node, ledger)| Equation {
            start: sat_to_msat(audit.start.get(&node)),
            end: sat_to_msat(end_wallets.get(&node)),
            fees: sat_to_msat(audit.wallet_fees.get(&node)),
            ledger: ledger.clone(),
            ..Equation::default()
        })
        .collect();
    for (index, books) in channels.iter().enumerate() {
        nodes[books.opener].pushed_out += u128::from(books.push.0);
        nodes[books.acceptor].pushed_in += u128::from(books.push.0);
        match closing_costs(audit, index, books) {
            Ok(costs) => {
                nodes[books.opener].fees += u128::from(costs.fee.0);
                nodes[books.opener].rounding += u128::from(costs.rounding[0].0);
                nodes[books.acceptor].rounding += u128::from(costs.rounding[1].0);
            }
            Err(finding) => findings.push(finding),
        }
    }
    let shown: Vec<NodeFunds> =
        nodes.iter().enumerate().map(|(node, equation)| equation.shown(node)).collect();
    for (funds, equation) in shown.iter().zip(&nodes).filter(|(funds, _)| !funds.balanced) {
        findings.push(format!("node {}: the books are off by {} msat", funds.node, equation.difference()));
    }
    let nodes_balanced = shown.iter().filter(|node| node.balanced).count();
    Funds {
        start_sat,
        end_sat,
        mining_fees_sat: audit.fees,
        in_channels_sat,
        strayed_sat: start_sat.saturating_sub(end_sat + audit.fees),
        nodes_balanced: nodes_balanced as u64,
        rounding_msat: shown.iter().map(|node| node.rounding_msat).sum(),
        conserved: chain_holds && nodes_balanced == ledgers.len() && findings.is_empty(),
        findings,
        nodes: shown,
    }
}

fn sat_to_msat(sat: Option<&u64>) -> u128 {
    u128::from(sat.copied().unwrap_or(0)) * 1000
}

/// Splits the balances that a closing did not pay out into the opener's fee and both sides' rounding, and bounds the
/// rounding.
fn closing_costs(audit: &ChainAudit, index: usize, books: &ChannelBooks) -> Result<ClosingCosts, String> {
    let Some(closing) = audit.closing(index) else {
        return Err(format!("channel {index} was not closed on chain"));
    };
    let Some(balances) = books.closing_balances else {
        return Err(format!("channel {index} was closed on chain, but its nodes do not say how"));
    };
    let [opener, acceptor] = balances;
    let paid = |node: usize| -> u64 {
        closing.paid.iter().filter(|(to, _)| *to == node).map(|(_, sat)| sat.0).sum()
    };
    let short = |balance: Msat, sat: u64| balance.checked_sub(Sat(sat).to_msat());
    // The acceptor pays no fee: whatever it is short of is rounding. The opener's shortfall is the fee, whole
    // satoshi, and its own rounding, the rest. Together they equal the miner's fee, or a balance is wrong.
    let (Some(acceptor_rounding), Some(opener_short)) =
        (short(acceptor, paid(books.acceptor)), short(opener, paid(books.opener)))
    else {
        return Err(format!("the closing of channel {index} paid a node more than it held"));
    };
    if acceptor_rounding.saturating_add(opener_short) != closing.fee.to_msat() {
        return Err(format!("the balances of channel {index} do not add up to its capacity"));
    }
    let opener_rounding = Msat(opener_short.0 % 1000);
    let limit = |paid: u64| if paid == 0 { TRIMMED_MAX } else { Msat(999) };
    if acceptor_rounding > limit(paid(books.acceptor)) {
        return Err(format!(
            "the closing of channel {index} paid the acceptor {acceptor_rounding} too little"
        ));
    }
    Ok(ClosingCosts {
        fee: Msat(opener_short.0 - opener_rounding.0),
        rounding: [opener_rounding, acceptor_rounding],
    })
}

/// One node's books.
#[derive(Clone, Debug, Default)]
struct Equation {
    start: u128,
    end: u128,
    fees: u128,
    pushed_in: u128,
    pushed_out: u128,
    rounding: u128,
    ledger: Ledger,
}

impl Equation {
    /// The node's balance above that in its books, in millisatoshi.
    fn difference(&self) -> i128 {
        let signed = |amount: u128| i128::try_from(amount).unwrap_or(i128::MAX);
        let gained = u128::from(self.ledger.received.0) + u128::from(self.ledger.earned.0) + self.pushed_in;
        let spent = u128::from(self.ledger.paid.0) + self.pushed_out + self.fees + self.rounding;
        (signed(self.end) - signed(self.start)) - (signed(gained) - signed(spent))
    }

    fn shown(&self, node: usize) -> NodeFunds {
        let narrow = |amount: u128| u64::try_from(amount).unwrap_or(u64::MAX);
        NodeFunds {
            node: node as u64,
            start_sat: narrow(self.start / 1000),
            end_sat: narrow(self.end / 1000),
            received_msat: self.ledger.received.0,
            pushed_in_msat: narrow(self.pushed_in),
            earned_msat: self.ledger.earned.0,
            paid_msat: self.ledger.paid.0,
            pushed_out_msat: narrow(self.pushed_out),
            onchain_fees_sat: narrow(self.fees / 1000),
            rounding_msat: narrow(self.rounding),
            balanced: self.difference() == 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bitcoin::absolute::LockTime;
    use bitcoin::block::{Header, Version};
    use bitcoin::hashes::Hash;
    use bitcoin::{Amount, BlockHash, CompactTarget, Sequence, TxIn, TxMerkleNode, Witness, transaction};

    fn script(byte: u8) -> ScriptBuf {
        ScriptBuf::from_bytes(vec![0, 1, byte])
    }

    fn transaction(inputs: &[OutPoint], outputs: &[(u8, u64)]) -> Transaction {
        let input = |previous_output: &OutPoint| TxIn {
            previous_output: *previous_output,
            script_sig: ScriptBuf::new(),
            sequence: Sequence::MAX,
            witness: Witness::new(),
        };
        let output =
            |(byte, sat): &(u8, u64)| TxOut { value: Amount::from_sat(*sat), script_pubkey: script(*byte) };
        Transaction {
            version: transaction::Version::TWO,
            lock_time: LockTime::ZERO,
            input: inputs.iter().map(input).collect(),
            output: outputs.iter().map(output).collect(),
        }
    }

    fn block(txdata: &[&Transaction]) -> Block {
        let header = Header {
            version: Version::TWO,
            prev_blockhash: BlockHash::all_zeros(),
            merkle_root: TxMerkleNode::all_zeros(),
            time: 0,
            bits: CompactTarget::from_consensus(0),
            nonce: 0,
        };
        Block { header, txdata: txdata.iter().map(|transaction| (*transaction).clone()).collect() }
    }

    fn out(transaction: &Transaction, vout: u32) -> OutPoint {
        OutPoint { txid: transaction.compute_txid(), vout }
    }

    /// Node 0 opens a channel of 1,000,000 sat to node 1 (push 400,000,000 msat), pays it 1,000,500 msat, and closes
    /// with `closing` as its outputs.
    fn run(closing: &[(u8, u64)], balances: [Msat; 2], ledgers: &[Ledger]) -> Funds {
        let mut audit = ChainAudit::new();
        audit.own(script(0), Owner::Node(0));
        audit.own(script(1), Owner::Node(1));
        audit.own(script(100), Owner::Channel(0));
        let coinbase = transaction(&[OutPoint::null()], &[(9, 5_000_000_000)]);
        let fan_out = transaction(&[out(&coinbase, 0)], &[(0, 2_000_000), (1, 50_000), (9, 4_997_949_000)]);
        audit.connect(&block(&[&coinbase, &fan_out]));
        audit.start();
        let funding = transaction(&[out(&fan_out, 0)], &[(100, 1_000_000), (0, 999_800)]);
        let stranger = transaction(&[OutPoint { txid: fan_out.compute_txid(), vout: 77 }], &[(8, 5)]);
        audit.connect(&block(&[&funding, &stranger]));
        let close = transaction(&[out(&funding, 0)], closing);
        audit.connect(&block(&[&close]));
        assert_eq!((audit.channels_opened(), audit.channels_closed()), (1, 1));
        let books = ChannelBooks {
            opener: 0,
            acceptor: 1,
            push: Msat(400_000_000),
            closing_balances: Some(balances),
        };
        check(&audit, ledgers, &[books])
    }

    fn ledgers() -> Vec<Ledger> {
        let paid = Ledger { paid: Msat(1_000_500), ..Ledger::default() };
        let received = Ledger { received: Msat(1_000_500), ..Ledger::default() };
        vec![paid, received]
    }

    const BALANCES: [Msat; 2] = [Msat(598_999_500), Msat(401_000_500)];

    #[test]
    fn an_honest_run_is_conserved_with_its_rounding_named() {
        let funds = run(&[(0, 598_699), (1, 401_000)], BALANCES, &ledgers());
        assert_eq!(funds.findings, Vec::<String>::new());
        assert!(funds.conserved);
        assert_eq!((funds.start_sat, funds.end_sat, funds.mining_fees_sat), (2_050_000, 2_049_499, 501));
        assert_eq!(funds.nodes_balanced, 2);
        assert_eq!(funds.rounding_msat, 1_000);
        assert_eq!(funds.nodes[0].onchain_fees_sat, 500, "200 for the funding, 300 for the closing");
    }

    #[test]
    fn a_satoshi_paid_to_a_stranger_is_found() {
        let funds = run(&[(0, 598_698), (1, 401_000), (7, 1)], BALANCES, &ledgers());
        assert!(!funds.conserved);
        assert_eq!(funds.strayed_sat, 1);
    }

    #[test]
    fn a_millisatoshi_missing_from_the_books_is_found() {
        let mut books = ledgers();
        books[0].paid = Msat(1_000_499);
        let funds = run(&[(0, 598_699), (1, 401_000)], BALANCES, &books);
        assert!(!funds.conserved);
        assert_eq!(funds.nodes_balanced, 1);
        assert!(funds.findings[0].contains("node 0"), "{:?}", funds.findings);
    }

    #[test]
    fn a_closing_that_shifts_a_satoshi_is_found() {
        for closing in [[(0, 598_700), (1, 400_999)], [(0, 598_698), (1, 401_001)]] {
            let funds = run(&closing, BALANCES, &ledgers());
            assert!(!funds.conserved, "{closing:?}");
        }
    }

    #[test]
    fn balances_that_exceed_the_channel_are_found() {
        let funds = run(&[(0, 598_699), (1, 401_000)], [Msat(598_999_501), Msat(401_000_500)], &ledgers());
        assert!(funds.findings.iter().any(|finding| finding.contains("add up")), "{:?}", funds.findings);
    }

    #[test]
    fn a_channel_left_open_is_found() {
        let mut audit = ChainAudit::new();
        audit.own(script(0), Owner::Node(0));
        audit.own(script(100), Owner::Channel(0));
        let coinbase = transaction(&[OutPoint::null()], &[(0, 1_000)]);
        audit.connect(&block(&[&coinbase]));
        audit.start();
        let funding = transaction(&[out(&coinbase, 0)], &[(100, 900)]);
        audit.connect(&block(&[&funding]));
        let books = ChannelBooks { opener: 0, acceptor: 1, push: Msat::ZERO, closing_balances: None };
        let funds = check(&audit, &[Ledger::default(), Ledger::default()], &[books]);
        assert_eq!((funds.in_channels_sat, funds.conserved), (900, false));
        assert!(funds.findings.iter().any(|finding| finding.contains("not closed")));
    }
}
