//! A peer by hand: BOLT 8 over a blocking socket, to send anything at any pace.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use bitcoin::secp256k1::{PublicKey, SecretKey};
use fulmen_proto::forward::{NodeConfig, local_init};
use fulmen_proto::keys::{NodeSeed, secp};
use fulmen_proto::noise::{ACT_TWO_BYTES, Initiator, LENGTH_BYTES, Opened, TAG_BYTES, Transport};
use fulmen_wire::message::Message;
use fulmen_wire::units::{ChainHash, NodeId};

/// A connected peer.
pub(crate) struct Client {
    pub(crate) id: NodeId,
    pub(crate) stream: TcpStream,
    transport: Transport,
}

/// A `ping` that asks for so many bytes.
pub(crate) fn ping(bytes: u16) -> Vec<u8> {
    let [high, low] = bytes.to_be_bytes();
    vec![0, 18, high, low, 0, 0]
}

/// The secret key of the client `number`.
pub(crate) fn client_key(number: u32) -> SecretKey {
    NodeSeed::new([200; 32]).key(b"client", u64::from(number))
}

pub(crate) fn client_id(number: u32) -> NodeId {
    NodeId(client_key(number).public_key(secp()).serialize())
}

impl Client {
    /// The handshake alone.
    pub(crate) fn handshake(number: u32, node: NodeId, address: SocketAddr) -> io::Result<Client> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        stream.set_nodelay(true)?;
        let secret = client_key(number);
        let ephemeral = NodeSeed::new([201; 32]).key(b"ephemeral", u64::from(number));
        let node = PublicKey::from_slice(&node.0).unwrap();
        let (initiator, act_one) = Initiator::new(&secret, ephemeral, &node);
        stream.write_all(&act_one)?;
        let mut act_two = [0; ACT_TWO_BYTES];
        stream.read_exact(&mut act_two)?;
        let (transport, act_three) = initiator.finish(&act_two).unwrap();
        stream.write_all(&act_three)?;
        Ok(Client { id: client_id(number), stream, transport })
    }

    /// Handshake and `init`; returns the node's `init` too.
    pub(crate) fn connect(number: u32, node: NodeId, address: SocketAddr) -> io::Result<(Client, Vec<u8>)> {
        let mut client = Client::handshake(number, node, address)?;
        let config = NodeConfig::new(ChainHash::REGTEST, Vec::new());
        client.send(&Message::from(local_init(&config)).encode())?;
        let init = client.receive()?;
        Ok((client, init))
    }

    pub(crate) fn send(&mut self, message: &[u8]) -> io::Result<()> {
        let mut sealed = Vec::new();
        self.seal(message, &mut sealed);
        self.stream.write_all(&sealed)
    }

    pub(crate) fn seal(&mut self, message: &[u8], out: &mut Vec<u8>) {
        self.transport.sealer.seal(message, out).unwrap();
    }

    pub(crate) fn receive(&mut self) -> io::Result<Vec<u8>> {
        let mut buffer = vec![0; LENGTH_BYTES];
        self.stream.read_exact(&mut buffer)?;
        loop {
            match self.transport.opener.open(&mut buffer).map_err(io::Error::other)? {
                Opened::Message { message, end } => {
                    assert_eq!(end, buffer.len());
                    assert_eq!(end, message.end + TAG_BYTES);
                    return Ok(buffer[message].to_vec());
                }
                Opened::Incomplete { needed } => {
                    let had = buffer.len();
                    buffer.resize(needed, 0);
                    self.stream.read_exact(&mut buffer[had..])?;
                }
            }
        }
    }

    /// Sends a `ping` and waits for its `pong`; gossip queries that come before it are ignored.
    pub(crate) fn ping(&mut self) -> io::Result<()> {
        self.send(&ping(8))?;
        while self.receive()?[..2] != [0, 19] {}
        Ok(())
    }

    /// Waits until the node closes the connection.
    pub(crate) fn closed(&mut self) -> bool {
        loop {
            match self.receive() {
                Ok(_) => {}
                Err(error) => return is_closed(&error),
            }
        }
    }
}

/// Whether an error is the end of a connection, not of patience.
pub(crate) fn is_closed(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), UnexpectedEof | ConnectionReset | BrokenPipe | ConnectionAborted)
}

/// Reads until the other side closes a bare socket.
pub(crate) fn is_hung_up(stream: &mut TcpStream) -> bool {
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut bytes = [0; 1_024];
    loop {
        match stream.read(&mut bytes) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) => return is_closed(&error),
        }
    }
}
