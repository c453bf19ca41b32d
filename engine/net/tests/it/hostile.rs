//! Clients that misbehave: honest peers notice nothing, and each bound holds.

use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use fulmen::runtime::{Connection, Effects, Handler};
use fulmen_net::{CloseReason, ConnectionEvent, ConnectionLimits};
use fulmen_wire::units::NodeId;

use crate::chain::SharedChain;
use crate::client::{Client, is_hung_up};
use crate::fulmen_node::{FulmenNode, Settings};
use crate::load::idle_connections;
use crate::wait::wait;

fn node(change: impl FnOnce(&mut Settings)) -> FulmenNode {
    let mut settings = Settings::new(1);
    settings.net.limits = ConnectionLimits {
        connections_max: 500,
        connections_per_ip_max: 20_000,
        handshakes_max: 20,
        ..ConnectionLimits::default()
    };
    change(&mut settings);
    FulmenNode::start(settings, &SharedChain::new())
}

fn client(number: u32, node: &FulmenNode) -> Client {
    Client::connect(number, node.id(), node.address()).unwrap().0
}

fn end_of(node: &FulmenNode, peer: NodeId) -> Option<CloseReason> {
    node.peer_events().iter().rev().find_map(|event| match event {
        ConnectionEvent::Disconnected { peer: with, reason, .. } if *with == peer => Some(reason.clone()),
        _ => None,
    })
}

fn connection_of(node: &FulmenNode, peer: NodeId) -> Connection {
    let found = node.peer_events().iter().rev().find_map(|event| match event {
        ConnectionEvent::Connected { peer: with, connection, .. } if *with == peer => Some(*connection),
        _ => None,
    });
    found.expect("the peer is connected")
}

/// Half-open connections by the hundred: the oldest go, the honest stay, and a new peer still gets in.
#[test]
fn a_flood_of_half_open_handshakes_displaces_strangers_alone() {
    let node = node(|_| {});
    let mut honest = client(1, &node);
    let mut silent: Vec<TcpStream> = Vec::new();
    let count = idle_connections(400).max(400) as u32;
    for number in 0..count {
        silent.push(TcpStream::connect(node.address()).unwrap());
        // Descriptors of closed connections are given back.
        if silent.len() > 1_000 {
            silent.drain(1..500);
        }
        if number % 100 == 50 {
            honest.ping().unwrap();
            client(2 + number, &node).ping().unwrap();
        }
    }
    let displaced = u64::from(count) - 20;
    wait("all but twenty are displaced", || node.network.stats().displaced >= displaced);
    assert!(is_hung_up(&mut silent[0]), "the oldest is closed");
    let stats = node.network.stats();
    let honest_count = 1 + u64::from(count) / 100;
    assert_eq!((stats.accepted, stats.displaced), (u64::from(count) + honest_count, displaced), "{stats:?}");
    honest.ping().unwrap();
}

/// Garbage costs its sender the connection at once, whichever act it stands for.
#[test]
fn garbage_ends_a_handshake() {
    let node = node(|_| {});
    let mut honest = client(1, &node);
    let mut failed = 0;
    for first in [0_u8, 1, 0xff] {
        let mut stream = TcpStream::connect(node.address()).unwrap();
        stream.write_all(&[first; 50]).unwrap();
        assert!(is_hung_up(&mut stream));
        failed += 1;
        wait("it is counted", || node.network.stats().failed == failed);
    }
    // A client whose first message after the handshake is no frame, and one whose first message is no init.
    let mut stream = Client::handshake(2, node.id(), node.address()).unwrap().stream;
    stream.write_all(&[7; 100]).unwrap();
    assert!(is_hung_up(&mut stream));
    let mut early = Client::handshake(3, node.id(), node.address()).unwrap();
    early.send(&[0, 18, 0, 0, 0, 0]).unwrap();
    assert!(early.closed());
    wait("both are counted", || node.network.stats().failed == failed + 2);
    honest.ping().unwrap();
    assert_eq!(node.network.stats().connections, 1);
}

/// A handshake byte by byte, and a peer without an `init`, end after the time for both.
#[test]
fn slow_handshakes_time_out() {
    let node = node(|settings| settings.net.timeouts.handshake = Duration::from_millis(300));
    let mut honest = client(1, &node);
    let start = Instant::now();
    let mut slow = TcpStream::connect(node.address()).unwrap();
    let mut mute = Client::handshake(2, node.id(), node.address()).unwrap();
    while slow.write_all(&[0]).is_ok() {
        std::thread::sleep(Duration::from_millis(20));
        assert!(start.elapsed() < Duration::from_secs(10), "it is never closed");
    }
    assert!(mute.closed());
    wait("both are counted", || node.network.stats().timed_out == 2);
    honest.ping().unwrap();
}

/// A stream of messages beyond the engine's credit is held back, not dropped, and the peer is not cut off.
#[test]
fn reading_stops_at_the_engines_credit_and_goes_on() {
    let node = node(|settings| settings.credit = Some((4, 16 << 10)));
    let mut talker = client(1, &node);
    let mut honest = client(2, &node);
    // An odd type that nobody knows: it takes a turn and has no answer.
    let message = [&[0xff, 0xff][..], &[7; 1_000]].concat();
    let mut stream = Vec::new();
    for number in 0..5_000 {
        talker.seal(&message, &mut stream);
        if stream.len() > 100_000 {
            talker.stream.write_all(&std::mem::take(&mut stream)).unwrap();
        }
        if number % 1_000 == 0 {
            honest.ping().unwrap();
        }
    }
    talker.stream.write_all(&stream).unwrap();
    talker.ping().unwrap();
    assert!(end_of(&node, talker.id).is_none());
}

/// A peer that reads nothing is closed once the stated bytes wait for it, or after the stated time.
#[test]
fn a_peer_that_does_not_read_is_cut_off() {
    let node = node(|settings| settings.net.timeouts.stalled_write = Duration::from_millis(400));
    let (greedy, idle) = (client(1, &node), client(2, &node));
    let mut honest = client(3, &node);
    wait("all are connected", || [&greedy, &idle, &honest].iter().all(|peer| node.is_connected(peer.id)));
    let handler = node.network.handler(|_: Effects| {});
    let send = |peer: NodeId, messages: usize| {
        let connection = connection_of(&node, peer);
        let send = (0..messages).map(|_| (connection, vec![0xff; 60_000])).collect();
        handler.effects(Effects { send, ..Effects::default() });
    };
    // The kernel's buffers take some megabytes; the cut-off is 8 MiB.
    send(greedy.id, 140);
    wait("it is cut off", || matches!(end_of(&node, greedy.id), Some(CloseReason::NotReading { .. })));
    send(idle.id, 130);
    honest.ping().unwrap();
    wait("it is cut off", || matches!(end_of(&node, idle.id), Some(CloseReason::Stalled(_))));
    honest.ping().unwrap();
}
