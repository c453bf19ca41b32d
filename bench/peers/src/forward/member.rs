//! The interface between the network and its members: the forwarder in the middle, and the ends that pay and are paid.
//!
//! Everything crosses as the bytes of BOLT 1 messages, whoever speaks, so that the forwarders can be exchanged without
//! the ends noticing.

use bitcoin::absolute::LockTime;
use bitcoin::{
    Amount, Block, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Txid, Witness, hashes::Hash,
};
use fulmen::wire::units::{NodeId, PaymentHash, PaymentSecret, Sat, Scid};

/// The capacity of every channel. Half of it starts on either side.
pub(super) const CAPACITY: Sat = Sat(16_000_000);
/// The forwarder's fee for each HTLC, more than either implementation asks.
pub(super) const FEE_MSAT: u64 = 2_000;
/// The blocks an HTLC gives the forwarder, and the payee.
pub(super) const CLTV_DELTA: u32 = 100;

/// A node as the links see it.
pub(super) trait Member {
    /// Its public key.
    fn id(&self) -> NodeId;
    /// The `init` it would send.
    fn init(&self) -> Vec<u8>;
    /// A connection to `peer` stands; `init` is its first message.
    fn connected(&mut self, peer: NodeId, init: &[u8], inbound: bool);
    /// A block was connected.
    fn block(&mut self, block: &Block, height: u32);
    /// A message came.
    fn receive(&mut self, peer: NodeId, message: &[u8]);
    /// Processes the received messages. True when there is more to poll or to process.
    fn work(&mut self) -> bool;
    /// The messages to send.
    fn poll(&mut self) -> Vec<(NodeId, Vec<u8>)>;
}

/// The node that is measured.
pub(super) trait Forwarder: Member {
    /// Opens a channel of [`CAPACITY`] to a connected peer.
    fn open(&mut self, peer: NodeId, user_id: u64);
    /// The funding transactions made since last asked.
    fn fundings(&mut self) -> Vec<Transaction>;
    /// Its usage so far.
    fn usage(&self) -> Usage;
}

/// A node that pays and is paid.
pub(super) trait Endpoint: Member {
    /// Its channel with the forwarder, once that is usable.
    fn scid(&self) -> Option<Scid>;
    /// Something to pay it by, any amount.
    fn invoice(&mut self) -> (PaymentHash, PaymentSecret);
    /// Pays over the forwarder.
    fn pay(&mut self, payment: &Payment);
    /// How many of its payments have arrived.
    fn settled(&self) -> u64;
    /// How many HTLCs its channel holds.
    fn htlcs(&self) -> usize;
}

/// One payment of two hops.
pub(super) struct Payment {
    pub(super) forwarder: NodeId,
    pub(super) payee: NodeId,
    pub(super) payee_scid: Scid,
    pub(super) amount_msat: u64,
    pub(super) payment_hash: PaymentHash,
    pub(super) payment_secret: PaymentSecret,
    /// The height of the chain.
    pub(super) height: u32,
}

/// The usage of a forwarder so far.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Usage {
    pub(super) cpu_ns: u64,
    /// How often it waited for its disk.
    pub(super) syncs: u64,
    pub(super) bytes_written: u64,
}

/// A transaction that pays `amount` to `script` out of nowhere: nobody here checks inputs.
pub(super) fn funding(amount: Sat, script_pubkey: ScriptBuf) -> Transaction {
    Transaction {
        version: bitcoin::transaction::Version::TWO,
        lock_time: LockTime::ZERO,
        input: vec![TxIn {
            previous_output: OutPoint::new(Txid::from_byte_array([7; 32]), 0),
            script_sig: ScriptBuf::new(),
            sequence: Sequence::MAX,
            witness: Witness::from_slice(&[[1; 64]]),
        }],
        output: vec![TxOut { value: Amount::from_sat(amount.0), script_pubkey }],
    }
}
