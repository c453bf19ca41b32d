//! Mining and reorganising on a bitcoind: [`RegtestChain`] for a [`RpcChain`] that is connected to a regtest daemon.
//!
//! Owns the calls that make blocks. Invariant: none of them is made to a daemon of another network.

use bitcoin::consensus::encode::serialize_hex;
use bitcoin::{BlockHash, Network, ScriptBuf, Txid};
use fulmen::chain::rpc::RpcChain;
use fulmen::chain::{Chain, ChainError};
use fulmen_wire::units::{BlockHeight, Sat};
use serde_json::json;

use crate::assemble::{self, Slot};
use crate::{RegtestChain, RegtestError};

/// Connects as [`RpcChain::connect`] does, to a regtest daemon only.
///
/// # Errors
/// [`RegtestError::WrongNetwork`], and as [`RpcChain::connect`].
pub fn connect(url: &str) -> Result<RpcChain, RegtestError> {
    let chain = RpcChain::connect(url)?;
    check_network(&chain)?;
    Ok(chain)
}

impl RegtestChain for RpcChain {
    fn mine(&mut self, blocks: u32, reward_to: &ScriptBuf) -> Result<Vec<BlockHash>, RegtestError> {
        check_network(self)?;
        let descriptor = format!("raw({})", reward_to.to_hex_string());
        let mut hashes = Vec::new();
        let mut left = blocks;
        while left > 0 {
            // Few enough for an answer before the connection times out.
            let now = left.min(MINE_AT_ONCE);
            let answer = self.client().call("generatetodescriptor", &[json!(now), json!(descriptor)])?;
            for hash in answer.as_array().into_iter().flatten() {
                hashes.push(self.client().parse("generatetodescriptor", hash)?);
            }
            left -= now;
        }
        Ok(hashes)
    }

    fn reorganize(&mut self, depth: u32, reward_to: &ScriptBuf) -> Result<Vec<BlockHash>, RegtestError> {
        check_network(self)?;
        let tip = self.tip()?;
        let Some(fork) = tip.height.0.checked_sub(depth) else {
            return Err(RegtestError::ReorgTooDeep { depth, height: tip.height });
        };
        let mut time = 0;
        let mut parent = tip.hash;
        // Later than each of the last eleven blocks is above their median.
        for height in fork.saturating_sub(10)..=fork {
            parent = hash_at(self, height)?;
            let header = self.client().call("getblockheader", &[json!(parent.to_string())])?;
            let seen = header["time"].as_u64().and_then(|time| u32::try_from(time).ok());
            time = time.max(seen.ok_or_else(|| self.client().unexpected("getblockheader", "no time"))?);
        }
        let tag = assemble::branch_tag(tip.hash);
        let mut hashes = Vec::new();
        for height in fork + 1..=tip.height.0 + 1 {
            time = time.saturating_add(1);
            let slot = Slot { parent, height: BlockHeight(height), time, reward_to, tag };
            let block = assemble::block(&slot, Vec::new(), Sat::ZERO);
            parent = block.block_hash();
            let verdict = self.client().call("submitblock", &[json!(serialize_hex(&block))])?;
            // A block that does not become the tip at once is "inconclusive".
            if let Some(reason) = verdict.as_str().filter(|verdict| *verdict != "inconclusive") {
                return Err(RegtestError::BlockRefused {
                    height: slot.height,
                    hash: parent,
                    reason: reason.to_owned(),
                });
            }
            hashes.push(parent);
        }
        Ok(hashes)
    }

    fn mempool_txids(&mut self) -> Result<Vec<Txid>, RegtestError> {
        let answer = self.client().call("getrawmempool", &[])?;
        let txids = answer.as_array().into_iter().flatten();
        Ok(txids.map(|txid| self.client().parse("getrawmempool", txid)).collect::<Result<_, ChainError>>()?)
    }
}

fn check_network(chain: &RpcChain) -> Result<(), RegtestError> {
    match chain.network() {
        Network::Regtest => Ok(()),
        network => Err(RegtestError::WrongNetwork {
            url: chain.client().address().to_owned(),
            network: network.to_core_arg(),
        }),
    }
}

/// The hash of the best chain's block at `height`.
fn hash_at(chain: &RpcChain, height: u32) -> Result<BlockHash, ChainError> {
    let answer = chain.client().call("getblockhash", &[json!(height)])?;
    chain.client().parse("getblockhash", &answer)
}

/// Blocks mined in one call: few enough for an answer before the connection times out.
const MINE_AT_ONCE: u32 = 50;
