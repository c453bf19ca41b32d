//! A connection before its peer is authenticated: the proxy's dialogue and the handshake.
//!
//! Owns: which bytes come next, and the answers to them. Reads no byte beyond the part that comes next, so that nothing
//! is buffered when the connection is handed on.
//!
//! Invariant: an unauthenticated peer costs one key agreement for each act that it has sent whole, and memory for one.

use std::io::{ErrorKind, Read};

use fulmen_proto::keys::secp;
use fulmen_proto::noise::{ACT_ONE_BYTES, ACT_THREE_BYTES, ACT_TWO_BYTES, Initiator, Responder, Transport};
use fulmen_wire::units::NodeId;
use rand::TryRng;
use rand::rngs::SysRng;
use secp256k1::{PublicKey, SecretKey};

use crate::error::CloseReason;
use crate::socks::{SocksClient, SocksStep};

/// The node's secret key, overwritten when dropped.
#[derive(Clone)]
pub(crate) struct NodeKey(SecretKey);

/// The steps before authentication.
#[derive(Debug)]
pub(crate) struct Opening {
    step: Step,
    /// The bytes of the next part that have come.
    buffer: Vec<u8>,
    needed: usize,
}

/// The part that comes next.
#[derive(Debug)]
enum Step {
    ActOne,
    ActTwo(Initiator, PublicKey),
    ActThree(Responder),
    Proxy(SocksClient, PublicKey),
    Done,
}

/// The result of [`Opening::advance`].
#[derive(Debug)]
pub(crate) enum Progress {
    /// The next part is not whole.
    Waiting,
    /// A part was answered with these bytes.
    Answered(Vec<u8>),
    /// The peer is authenticated. The bytes are to be sent first.
    Authenticated { peer: NodeId, transport: Transport, answer: Vec<u8> },
}

impl NodeKey {
    pub(crate) const fn new(secret: SecretKey) -> NodeKey {
        NodeKey(secret)
    }
}

impl Drop for NodeKey {
    fn drop(&mut self) {
        self.0.non_secure_erase();
    }
}

impl std::fmt::Debug for NodeKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("NodeKey(..)")
    }
}

impl Opening {
    /// Waits for a peer's act one.
    pub(crate) fn accept() -> Opening {
        Opening { step: Step::ActOne, buffer: Vec::new(), needed: ACT_ONE_BYTES }
    }

    /// Begins a handshake with `peer`; returns act one too.
    pub(crate) fn dial(node_key: &NodeKey, peer: PublicKey) -> Result<(Opening, Vec<u8>), CloseReason> {
        let (initiator, act_one) = Initiator::new(&node_key.0, fresh_key()?, &peer);
        let step = Step::ActTwo(initiator, peer);
        Ok((Opening { step, buffer: Vec::new(), needed: ACT_TWO_BYTES }, act_one.to_vec()))
    }

    /// Begins a dialogue with a proxy, behind which `peer` is.
    pub(crate) fn proxied(client: SocksClient, peer: PublicKey) -> Opening {
        let needed = client.needed();
        Opening { step: Step::Proxy(client, peer), buffer: Vec::new(), needed }
    }

    /// Reads the next part; answers it if it is whole.
    pub(crate) fn advance(
        &mut self,
        socket: &mut impl Read,
        node_key: &NodeKey,
    ) -> Result<Progress, CloseReason> {
        while self.buffer.len() < self.needed {
            let had = self.buffer.len();
            self.buffer.resize(self.needed, 0);
            let read = socket.read(&mut self.buffer[had..]);
            self.buffer.truncate(had + *read.as_ref().unwrap_or(&0));
            match read {
                Ok(0) => return Err(CloseReason::ClosedByPeer),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Progress::Waiting),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(CloseReason::Socket(error.kind())),
            }
        }
        let part = std::mem::take(&mut self.buffer);
        self.answer(&part, node_key)
    }

    fn answer(&mut self, part: &[u8], node_key: &NodeKey) -> Result<Progress, CloseReason> {
        match std::mem::replace(&mut self.step, Step::Done) {
            Step::Proxy(mut client, peer) => match client.read(part)? {
                SocksStep::Send(bytes) => {
                    self.needed = client.needed();
                    self.step = Step::Proxy(client, peer);
                    Ok(Progress::Answered(bytes))
                }
                SocksStep::Connected => {
                    let (opening, act_one) = Opening::dial(node_key, peer)?;
                    *self = opening;
                    Ok(Progress::Answered(act_one))
                }
            },
            Step::ActOne => {
                let (responder, act_two) = Responder::new(&node_key.0, fresh_key()?, whole(part))?;
                (self.step, self.needed) = (Step::ActThree(responder), ACT_THREE_BYTES);
                Ok(Progress::Answered(act_two.to_vec()))
            }
            Step::ActTwo(initiator, peer) => {
                let (transport, act_three) = initiator.finish(whole(part))?;
                let peer = NodeId(peer.serialize());
                Ok(Progress::Authenticated { peer, transport, answer: act_three.to_vec() })
            }
            Step::ActThree(responder) => {
                let (transport, peer) = responder.finish(whole(part))?;
                if peer == node_key.0.public_key(secp()) {
                    return Err(CloseReason::OwnNode);
                }
                let peer = NodeId(peer.serialize());
                Ok(Progress::Authenticated { peer, transport, answer: Vec::new() })
            }
            // An opening that has failed or ended is not advanced again.
            Step::Done => Ok(Progress::Waiting),
        }
    }
}

/// A part whose length was waited for.
fn whole<const BYTES: usize>(part: &[u8]) -> &[u8; BYTES] {
    part.try_into().expect("as many bytes were read as the act has")
}

/// A key for one handshake.
fn fresh_key() -> Result<SecretKey, CloseReason> {
    loop {
        let mut bytes = [0; 32];
        SysRng.try_fill_bytes(&mut bytes).map_err(|_| CloseReason::Randomness)?;
        // All but one in 2^128 strings of 32 bytes are keys.
        if let Ok(key) = SecretKey::from_slice(&bytes) {
            return Ok(key);
        }
    }
}
