//! A chain of any network behind the JSON-RPC of a bitcoind.
//!
//! Owns the walk of events along the daemon's best chain, and the translation of its refusals. Keeps no keys and asks
//! for no wallet there: coins are found in the blocks. Needs no index and no notification either, only polling.
//!
//! Invariants: a poll reports at most 1,000 blocks, and blocks of 64 MiB and one more in serialized form, so that a
//! walk from the genesis block takes bounded memory; an event is reported only when its block extends or ends the chain
//! reported before, even when the daemon's chain changes between two calls. Other users of the daemon may mine and
//! spend; they are simply seen.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bitcoin::consensus::encode::{deserialize_hex, serialize_hex};
use bitcoin::{Block, BlockHash, Network, Transaction};
use fulmen_wire::units::{BlockHeight, FeeratePerKw};
use serde_json::json;

use super::{BroadcastError, Chain, ChainError, ChainEvent, RefusalKind, Tip};
use client::RpcAnswer;
pub use client::RpcClient;

mod client;

/// A chain behind the JSON-RPC of a bitcoind.
pub struct RpcChain {
    client: RpcClient,
    network: Network,
    /// The hashes of the chain reported so far, or about to be: element 0 is the genesis block.
    reported: Vec<BlockHash>,
    pending: Vec<ChainEvent>,
    /// Blocks in `pending`, and their bytes in serialized form.
    pending_blocks: usize,
    pending_bytes: usize,
}

impl RpcChain {
    /// Connects to `http://user:password@host:port`, and waits for the daemon to finish its start.
    ///
    /// # Errors
    /// When the URL is not one, nothing answers, the password is wrong, or the network is unknown.
    pub fn connect(url: &str) -> Result<RpcChain, ChainError> {
        let client = RpcClient::new(url, PROBE_TIMEOUT)?;
        let deadline = Instant::now() + START_WAIT_MAX;
        let info = loop {
            match client.ask("getblockchaininfo", &[])? {
                RpcAnswer::Result(info) => break info,
                RpcAnswer::Refused { code: RPC_IN_WARMUP, .. } if Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(100));
                }
                RpcAnswer::Refused { code: RPC_IN_WARMUP, message } => {
                    return Err(ChainError::Starting { url: client.address().to_owned(), message });
                }
                RpcAnswer::Refused { code, message } => {
                    return Err(ChainError::Rpc { method: "getblockchaininfo", code, message });
                }
            }
        };
        let name = info["chain"].as_str().unwrap_or("unnamed");
        let network = Network::from_core_arg(name).map_err(|_| ChainError::UnknownNetwork {
            url: client.address().to_owned(),
            network: name.to_owned(),
        })?;
        let genesis = bitcoin::constants::genesis_block(network).block_hash();
        let client = RpcClient::new(url, CALL_TIMEOUT)?;
        let (reported, pending) = (vec![genesis], Vec::new());
        Ok(RpcChain { client, network, reported, pending, pending_blocks: 0, pending_bytes: 0 })
    }

    /// The network the daemon runs.
    #[must_use]
    pub fn network(&self) -> Network {
        self.network
    }

    /// The connection, for methods that [`Chain`] has no use for.
    #[must_use]
    pub fn client(&self) -> &RpcClient {
        &self.client
    }

    /// The hash of the best chain's block at `height`, or `None` above its tip.
    fn hash_at(&self, height: usize) -> Result<Option<BlockHash>, ChainError> {
        match self.client.ask("getblockhash", &[json!(height)])? {
            RpcAnswer::Result(hash) => self.client.parse("getblockhash", &hash).map(Some),
            RpcAnswer::Refused { code: RPC_INVALID_PARAMETER, .. } => Ok(None),
            RpcAnswer::Refused { code, message } => {
                Err(ChainError::Rpc { method: "getblockhash", code, message })
            }
        }
    }

    fn block_by_hash(&self, hash: BlockHash) -> Result<Arc<Block>, ChainError> {
        let hex = self.client.call("getblock", &[json!(hash.to_string()), json!(0)])?;
        let block = hex.as_str().and_then(|hex| deserialize_hex::<Block>(hex).ok());
        let block = block.filter(|block| block.block_hash() == hash);
        block.map(Arc::new).ok_or_else(|| self.client.unexpected("getblock", "not the block asked for"))
    }

    /// Brings `pending` towards the daemon's best chain, as far as a poll goes; a change meanwhile waits for the next
    /// poll.
    fn follow(&mut self) -> Result<(), ChainError> {
        let best: BlockHash =
            self.client.parse("getbestblockhash", &self.client.call("getbestblockhash", &[])?)?;
        if self.reported.last() == Some(&best) {
            return Ok(());
        }
        while self.reported.len() > 1 {
            let height = self.reported.len() - 1;
            let hash = self.reported[height];
            if self.hash_at(height)? == Some(hash) {
                break;
            }
            self.reported.pop();
            self.pending.push(ChainEvent::Disconnected { height: BlockHeight(height as u32), hash });
        }
        while self.pending_blocks < POLL_BLOCKS_MAX
            && self.pending_bytes < POLL_BYTES_MAX
            && let Some(hash) = self.hash_at(self.reported.len())?
        {
            let block = self.block_by_hash(hash)?;
            if self.reported.last() != Some(&block.header.prev_blockhash) {
                break;
            }
            let height = BlockHeight(self.reported.len() as u32);
            self.reported.push(hash);
            self.pending_blocks += 1;
            self.pending_bytes += block.total_size();
            self.pending.push(ChainEvent::Connected { height, block });
        }
        Ok(())
    }
}

impl Chain for RpcChain {
    fn tip(&mut self) -> Result<Tip, ChainError> {
        let info = self.client.call("getblockchaininfo", &[])?;
        let height = info["blocks"].as_u64().and_then(|height| u32::try_from(height).ok());
        let height = height.ok_or_else(|| self.client.unexpected("getblockchaininfo", "no height"))?;
        let hash = self.client.parse("getblockchaininfo", &info["bestblockhash"])?;
        Ok(Tip { height: BlockHeight(height), hash })
    }

    fn block(&mut self, height: BlockHeight) -> Result<Option<Arc<Block>>, ChainError> {
        self.hash_at(height.0 as usize)?.map(|hash| self.block_by_hash(hash)).transpose()
    }

    fn poll(&mut self) -> Result<Vec<ChainEvent>, ChainError> {
        self.follow()?;
        (self.pending_blocks, self.pending_bytes) = (0, 0);
        Ok(std::mem::take(&mut self.pending))
    }

    fn broadcast(&mut self, transaction: &Transaction) -> Result<(), BroadcastError> {
        // A fee limit of zero is none: the caller has chosen the fee.
        match self.client.ask("sendrawtransaction", &[json!(serialize_hex(transaction)), json!(0)])? {
            RpcAnswer::Result(_) | RpcAnswer::Refused { code: RPC_ALREADY_IN_CHAIN, .. } => Ok(()),
            RpcAnswer::Refused { message, .. } if message.contains("txn-already-") => Ok(()),
            RpcAnswer::Refused { code: RPC_DESERIALIZATION, message } => {
                Err(refused(transaction, RefusalKind::Malformed, message))
            }
            RpcAnswer::Refused { code: RPC_VERIFY_ERROR | RPC_VERIFY_REJECTED, message } => {
                Err(refused(transaction, refusal_kind(&message), message))
            }
            RpcAnswer::Refused { code, message } => {
                Err(ChainError::Rpc { method: "sendrawtransaction", code, message }.into())
            }
        }
    }

    fn fee_estimate(&mut self) -> Result<FeeratePerKw, ChainError> {
        // Without enough traffic, as on most regtest chains, the answer holds errors instead of a rate.
        let answer = self.client.call("estimatesmartfee", &[json!(FEE_TARGET_BLOCKS)])?;
        let bitcoin_per_kvb = answer["feerate"].as_f64().unwrap_or(0.0);
        let sat_per_kw = (bitcoin_per_kvb * 100_000_000.0 / 4.0).ceil();
        // The conversion saturates; no sane rate comes near the limit.
        Ok(FeeratePerKw(sat_per_kw as u32).max(FeeratePerKw::FLOOR))
    }
}

fn refused(transaction: &Transaction, kind: RefusalKind, reason: String) -> BroadcastError {
    BroadcastError::Refused { txid: transaction.compute_txid(), kind, reason }
}

/// The rule behind a bitcoind's words. The words are part of its interface and tested by its own functional tests;
/// unknown ones count as policy.
fn refusal_kind(message: &str) -> RefusalKind {
    let known = REFUSALS.iter().find(|(words, _)| message.contains(words));
    known.map_or(RefusalKind::Policy, |(_, kind)| *kind)
}

/// In this order: some words are part of others.
const REFUSALS: [(&str, RefusalKind); 14] = [
    ("non-BIP68-final", RefusalKind::SequenceLock),
    ("non-final", RefusalKind::Locktime),
    ("txn-mempool-conflict", RefusalKind::DoubleSpend),
    ("insufficient fee", RefusalKind::DoubleSpend),
    ("replacement", RefusalKind::DoubleSpend),
    ("bad-txns-spends-conflicting-tx", RefusalKind::DoubleSpend),
    ("bad-txns-inputs-missingorspent", RefusalKind::MissingInput),
    ("missing-inputs", RefusalKind::MissingInput),
    ("bad-txns-premature-spend-of-coinbase", RefusalKind::ImmatureCoinbase),
    ("bad-txns-in-belowout", RefusalKind::Overspent),
    ("script-verify-flag-failed", RefusalKind::Script),
    ("non-mandatory-script-verify-flag", RefusalKind::Script),
    ("bad-txns-", RefusalKind::Malformed),
    ("coinbase", RefusalKind::Malformed),
];

/// The most blocks of one poll.
const POLL_BLOCKS_MAX: usize = 1_000;

/// The most bytes of serialized blocks in one poll, the last block aside.
const POLL_BYTES_MAX: usize = 64 << 20;

const RPC_INVALID_PARAMETER: i32 = -8;
const RPC_DESERIALIZATION: i32 = -22;
const RPC_VERIFY_ERROR: i32 = -25;
const RPC_VERIFY_REJECTED: i32 = -26;
const RPC_ALREADY_IN_CHAIN: i32 = -27;
const RPC_IN_WARMUP: i32 = -28;

/// How long a daemon may take to start.
const START_WAIT_MAX: Duration = Duration::from_secs(60);

/// How long the first calls may take: whatever else listens on the port may never answer.
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a call may take.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// Within how many blocks a transaction at the estimated rate should be mined.
const FEE_TARGET_BLOCKS: u32 = 6;

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Read, Write};
    use std::net::TcpListener;

    use super::*;

    /// Connects to a server that answers one call with `reply`, whatever was asked.
    fn connect_to(reply: String) -> ChainError {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let url = format!("http://user:secret@{}", listener.local_addr().unwrap());
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 4096];
            let mut read = 0;
            while !request[..read].ends_with(b"}") {
                read += stream.read(&mut request[read..]).unwrap();
            }
            stream.write_all(reply.as_bytes()).unwrap();
        });
        let Err(error) = RpcChain::connect(&url) else { panic!("connected") };
        server.join().unwrap();
        assert!(!error.to_string().contains("secret"), "{error}");
        assert!(!error.to_string().contains('\n'), "{error}");
        error
    }

    fn json_reply(result: &str) -> String {
        let body = format!(r#"{{"jsonrpc":"2.0","id":1,"result":{result}}}"#);
        format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())
    }

    /// A regtest chain of `length` empty blocks on the genesis block.
    fn empty_blocks(length: usize) -> Vec<Block> {
        let mut blocks = vec![bitcoin::constants::genesis_block(Network::Regtest)];
        while blocks.len() <= length {
            let mut next = blocks[blocks.len() - 1].clone();
            next.header.prev_blockhash = next.block_hash();
            next.header.time += 1;
            blocks.push(next);
        }
        blocks
    }

    /// The daemon's answer to a call.
    fn answer(blocks: &[Block], request: &serde_json::Value) -> serde_json::Value {
        let parameter = &request["params"][0];
        match request["method"].as_str() {
            Some("getblockchaininfo") => json!({ "chain": "regtest" }),
            Some("getbestblockhash") => json!(blocks[blocks.len() - 1].block_hash().to_string()),
            Some("getblockhash") => {
                let height = parameter.as_u64().unwrap() as usize;
                blocks.get(height).map_or(json!(null), |block| json!(block.block_hash().to_string()))
            }
            Some("getblock") => {
                let asked = |block: &&Block| json!(block.block_hash().to_string()) == *parameter;
                json!(serialize_hex(blocks.iter().find(asked).unwrap()))
            }
            method => panic!("{method:?}"),
        }
    }

    /// Serves the chain of `blocks`.
    fn serve(listener: &TcpListener, blocks: &[Block]) {
        serve_with(listener, |request| {
            let result = answer(blocks, request);
            let error = if result.is_null() { json!({ "code": -8, "message": "" }) } else { json!(null) };
            let body = json!({ "id": request["id"], "result": result, "error": error }).to_string();
            format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())
        });
    }

    /// Answers calls on one connection after the other, until one ends without a call.
    fn serve_with(listener: &TcpListener, mut reply: impl FnMut(&serde_json::Value) -> String) {
        loop {
            let mut stream = BufReader::new(listener.accept().unwrap().0);
            let mut calls = 0;
            loop {
                let mut length = 0;
                let mut line = String::new();
                while stream.read_line(&mut line).unwrap() > 2 {
                    let (name, value) = line.trim_end().split_once(':').unwrap_or_default();
                    if name.eq_ignore_ascii_case("content-length") {
                        length = value.trim().parse().unwrap();
                    }
                    line.clear();
                }
                if length == 0 {
                    break;
                }
                calls += 1;
                let mut body = vec![0; length];
                stream.read_exact(&mut body).unwrap();
                let request: serde_json::Value = serde_json::from_slice(&body).unwrap();
                stream.get_mut().write_all(reply(&request).as_bytes()).unwrap();
            }
            if calls == 0 {
                return;
            }
        }
    }

    #[test]
    fn a_chain_far_behind_the_daemon_is_told_in_bounded_polls() {
        let blocks = empty_blocks(POLL_BLOCKS_MAX + 10);
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| serve(&listener, &blocks));
            let mut chain = RpcChain::connect(&format!("http://user:secret@{address}")).unwrap();
            let mut heights = Vec::new();
            for expected in [POLL_BLOCKS_MAX, 10, 0] {
                let events = chain.poll().unwrap();
                assert_eq!(events.len(), expected);
                heights.extend(events.iter().map(|event| match event {
                    ChainEvent::Connected { height, .. } => height.0,
                    ChainEvent::Disconnected { .. } => panic!("nothing was reorganised"),
                }));
            }
            assert!(heights.into_iter().eq(1..=POLL_BLOCKS_MAX as u32 + 10));
            // So many bytes of blocks fill a poll too: nothing is asked for beyond them.
            chain.reported.truncate(1);
            chain.pending_bytes = POLL_BYTES_MAX;
            assert_eq!(chain.poll().unwrap(), []);
            drop(chain);
            drop(std::net::TcpStream::connect(address).unwrap());
        });
    }

    #[test]
    fn a_daemon_that_is_busy_for_a_moment_is_asked_again() {
        let blocks = empty_blocks(1);
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let mut calls = 0;
        let reply = |request: &serde_json::Value| {
            calls += 1;
            match calls {
                1 => "HTTP/1.1 429 Too Many Requests\r\nContent-Length: 4\r\n\r\nbusy".to_owned(),
                2 => "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n".to_owned(),
                _ => {
                    let result = answer(&blocks, request);
                    let body = json!({ "id": request["id"], "result": result, "error": null }).to_string();
                    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())
                }
            }
        };
        std::thread::scope(|scope| {
            scope.spawn(|| serve_with(&listener, reply));
            let chain = RpcChain::connect(&format!("http://user:secret@{address}")).unwrap();
            assert_eq!(chain.network(), Network::Regtest);
            drop(chain);
            drop(std::net::TcpStream::connect(address).unwrap());
        });
        assert_eq!(calls, 3);
    }

    #[test]
    fn each_way_to_fail_to_connect_has_its_name() {
        let error = connect_to(json_reply(r#"{"chain":"liquidv1"}"#));
        assert!(
            matches!(&error, ChainError::UnknownNetwork { network, .. } if network == "liquidv1"),
            "{error}"
        );
        let error = connect_to("HTTP/1.1 401 Unauthorized\r\n\r\n".to_owned());
        assert!(matches!(&error, ChainError::Unauthorized { user, .. } if user == "user"), "{error}");
        let error = connect_to("HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n".to_owned());
        assert!(matches!(error, ChainError::Forbidden { .. }), "{error}");
        for reply in [
            "HTTP/1.1 502 Bad Gateway\r\nContent-Length: 5\r\n\r\nhello",
            "HTTP/1.1 502 Bad Gateway\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        ] {
            let error = connect_to(reply.to_owned());
            assert!(matches!(error, ChainError::Gateway { .. }), "{error}");
        }
        let error = connect_to("220 mail.example.org ESMTP\r\n".to_owned());
        assert!(matches!(error, ChainError::UnexpectedAnswer { .. }), "{error}");
        let error = connect_to("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello".to_owned());
        assert!(matches!(error, ChainError::UnexpectedAnswer { .. }), "{error}");
        let free = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap();
        let Err(error) = RpcChain::connect(&format!("http://user:secret@{free}")) else {
            panic!("connected")
        };
        assert!(matches!(error, ChainError::Unreachable { .. }), "{error}");
        let Err(error) = RpcChain::connect("127.0.0.1:18443") else { panic!("connected") };
        assert!(matches!(error, ChainError::Url { .. }), "{error}");
    }
}
