//! Two nodes, each an embedded engine with a TCP socket, open a channel: `cargo run -p fulmen --example embed`. A real
//! node has its connections from `fulmen-net` (BOLT 8), and adds a wallet, a store and a chain (`fulmen::chain`).

#![allow(clippy::unwrap_used, reason = "an example reports errors by panicking")]

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use bitcoin::{Amount, Network, TxOut, constants::genesis_block};
use crossbeam::channel::{Receiver, unbounded};
use fulmen::chain::ChainEvent;
use fulmen::proto::forward::{Command, Event, NodeConfig, OpenChannelRequest};
use fulmen::proto::keys::NodeSeed;
use fulmen::runtime::{Connection, Effects, Engine, ReceiveError, Storage};
use fulmen::wire::units::{BlockHeight, ChainHash, Msat, NodeId, Sat};

struct Node {
    engine: Arc<Engine>,
    sockets: Arc<Mutex<HashMap<Connection, TcpStream>>>,
    events: Receiver<Event>,
}

/// Starts an engine whose messages go to the sockets, and whose events go to `events`.
fn node(seed: u8) -> Node {
    let sockets: Arc<Mutex<HashMap<Connection, TcpStream>>> = Arc::default();
    let (table, (sender, events)) = (Arc::clone(&sockets), unbounded());
    let handler = move |effects: Effects| {
        let mut table = table.lock().unwrap();
        for (connection, message) in &effects.send {
            table.get_mut(connection).map(|socket| write(socket, message)); // none: the connection has ended
        }
        let ended = effects.disconnect.iter().filter_map(|connection| table.remove(connection));
        ended.for_each(|socket| socket.shutdown(Shutdown::Both).unwrap_or_default()); // ends the reading thread too
        // `broadcast` would go to the chain, and `resume` to the reading threads.
        effects.events.into_iter().for_each(|event| sender.send(event).unwrap());
    };
    let mut config = NodeConfig::new(ChainHash::REGTEST, [&[0x00, 0x14][..], &[seed; 20]].concat());
    config.channel.minimum_depth = 1;
    let engine = Engine::builder(NodeSeed::new([seed; 32]), config, Storage::Nowhere).start(handler).unwrap();
    engine.chain_in_step(); // the chain is synced; after a restart, give the missed blocks first
    Node { engine: Arc::new(engine), sockets, events }
}

/// Exchanges `init` with the peer, then feeds its messages to the engine from a thread.
fn serve(node: &Node, peer: NodeId, mut socket: TcpStream) {
    write(&mut socket, &node.engine.init()).unwrap();
    let init = read(&mut socket).unwrap();
    // Locked until the socket is in the table: the engine may have something to say at once.
    let mut table = node.sockets.lock().unwrap();
    let connection = node.engine.connected(peer, &init).unwrap();
    table.insert(connection, socket.try_clone().unwrap());
    let engine = Arc::clone(&node.engine);
    std::thread::spawn(move || {
        while let Ok(message) = read(&mut socket) {
            while let Err(ReceiveError::WouldBlock { .. }) = engine.receive(connection, &message) {
                std::thread::yield_now();
            }
        }
        engine.disconnected(connection);
    });
}

fn main() {
    let (alice, bob) = (node(1), node(2));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| serve(&bob, alice.engine.id(), listener.accept().unwrap().0));
        serve(&alice, bob.engine.id(), TcpStream::connect(listener.local_addr().unwrap()).unwrap());
    });
    let (peer, capacity, push) = (bob.engine.id(), Sat(1_000_000), Msat(0));
    let open = Command::OpenChannel(OpenChannelRequest { peer, user_id: 1, capacity, push, policy: None });
    alice.engine.command(open).unwrap();
    let Ok(Event::FundingNeeded { temporary_channel_id, amount, script, .. }) = alice.events.recv() else {
        panic!("bob does not accept")
    };
    let mut block = genesis_block(Network::Regtest);
    let transaction = &mut block.txdata[0]; // stands in for the wallet's transaction
    transaction.output = vec![TxOut { value: Amount::from_sat(amount.0), script_pubkey: script }];
    let fund = Command::FundingTransaction { temporary_channel_id, transaction: transaction.clone() };
    alice.engine.command(fund).unwrap();
    println!("{:?}\n{:?}", alice.events.recv(), bob.events.recv()); // both commitments are signed: safe to broadcast
    let confirmed = ChainEvent::Connected { height: BlockHeight(1), block: Arc::new(block) };
    [&alice, &bob].iter().for_each(|node| node.engine.chain_event(&confirmed));
    println!("{:?}\n{:?}", alice.events.recv(), bob.events.recv()); // the channel is ready
    println!("{:?}, {:?}", alice.engine.shutdown(), bob.engine.shutdown());
}

fn write(socket: &mut TcpStream, message: &[u8]) -> io::Result<()> {
    socket.write_all(&[&(message.len() as u16).to_be_bytes()[..], message].concat())
}

fn read(socket: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut length = [0; 2];
    socket.read_exact(&mut length)?;
    let mut message = vec![0; usize::from(u16::from_be_bytes(length))];
    socket.read_exact(&mut message).map(|()| message)
}
