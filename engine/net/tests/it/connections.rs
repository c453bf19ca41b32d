//! Connections as an operator sees them: limits, dialling, names and proxies, signs of life, and the end.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use fulmen::runtime::{Effects, Handler};
use fulmen_net::{
    CloseReason, ConnectionDirection, ConnectionEvent, ConnectionLimits, DialError, Host, NetConfig,
    NetStartError, PeerAddress, PeerNetwork, ProxyScope, SocksProxy,
};
use fulmen_proto::keys::NodeSeed;
use fulmen_wire::addresses::{NodeAddress, NodeAddresses};
use fulmen_wire::message::Message;
use fulmen_wire::units::{ChainHash, NodeId};

use crate::chain::SharedChain;
use crate::client::{Client, client_id, ping};
use crate::fulmen_node::{FulmenNode, Settings};
use crate::wait::wait;

fn node(seed: u8, change: impl FnOnce(&mut Settings)) -> FulmenNode {
    let mut settings = Settings::new(seed);
    change(&mut settings);
    FulmenNode::start(settings, &SharedChain::new())
}

fn last_failure(node: &FulmenNode, peer: NodeId) -> Option<(DialError, bool)> {
    node.peer_events().iter().rev().find_map(|event| match event {
        ConnectionEvent::DialFailed { peer: with, error, retry_after } if *with == peer => {
            Some((error.clone(), retry_after.is_some()))
        }
        _ => None,
    })
}

#[test]
fn our_init_names_the_chain_and_the_peers_address() {
    let node = node(1, |_| {});
    let (client, init) = Client::connect(1, node.id(), node.address()).unwrap();
    let Ok(Message::Init(init)) = Message::decode(&init) else { panic!("an init") };
    assert_eq!(init.networks, Some(vec![ChainHash::REGTEST]));
    let SocketAddr::V4(address) = client.stream.local_addr().unwrap() else { panic!("an IPv4 address") };
    let expected = NodeAddress::Ipv4 { address: *address.ip(), port: address.port() };
    let seen = NodeAddresses::from_bytes(&init.remote_addr.unwrap()).unwrap();
    assert_eq!(seen.iter().collect::<Vec<_>>(), [expected]);
}

#[test]
fn a_silent_peer_is_pinged_and_one_that_does_not_answer_is_closed() {
    let node = node(1, |settings| {
        settings.net.timeouts.ping_after = Duration::from_millis(100);
        settings.net.timeouts.pong = Duration::from_secs(2);
    });
    let (mut alive, _) = Client::connect(1, node.id(), node.address()).unwrap();
    let start = std::time::Instant::now();
    let (mut dead, _) = Client::connect(2, node.id(), node.address()).unwrap();
    for _ in 0..3 {
        while alive.receive().unwrap() != ping(0) {}
        alive.send(&[0, 19, 0, 0]).unwrap();
    }
    assert!(start.elapsed() < Duration::from_secs(5), "a ping each tenth of a second: {:?}", start.elapsed());
    assert!(dead.closed());
    let reason = |event: &ConnectionEvent| match event {
        ConnectionEvent::Disconnected { peer, reason, .. } if *peer == dead.id => Some(reason.clone()),
        _ => None,
    };
    wait("the embedder is told", || {
        let found = node.peer_events().iter().find_map(reason);
        matches!(found, Some(CloseReason::Unresponsive(_)))
    });
    assert!(node.is_connected(alive.id));
}

#[test]
fn limits_hold_and_a_kept_node_is_admitted_beyond_them() {
    let node = node(1, |settings| {
        settings.net.limits =
            ConnectionLimits { connections_max: 2, connections_per_ip_max: 4, ..ConnectionLimits::default() };
    });
    let connect = |number| Client::connect(number, node.id(), node.address());
    let mut first = connect(1).unwrap().0;
    let second = connect(2).unwrap().0;
    assert!(Client::connect(3, node.id(), node.address()).is_err(), "there are two already");
    wait("it is counted", || node.network.stats().over_limit == 1);
    // One that the operator keeps is admitted; its own address does not answer.
    let nowhere = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    node.keep_connected(client_id(4), nowhere);
    wait("the dial fails", || last_failure(&node, client_id(4)).is_some());
    let mut kept = connect(4).unwrap().0;
    kept.ping().unwrap();
    // Four connections of one address are the most.
    let half_open = TcpStream::connect(node.address()).unwrap();
    wait("it is accepted", || node.network.stats().accepted == 5);
    let mut over = TcpStream::connect(node.address()).unwrap();
    wait("it is counted", || node.network.stats().over_ip_limit == 1);
    assert_eq!(over.read(&mut [0; 1]).unwrap_or(0), 0);
    drop((half_open, second));
    wait("the places are returned", || node.network.stats().connections == 2);
    first.ping().unwrap();
}

#[test]
fn faults_of_a_start_are_named() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let config = |limits| NetConfig { listen: vec![address], limits, ..NetConfig::default() };
    let small = ConnectionLimits { connections_max: 10, handshakes_max: 10, ..ConnectionLimits::default() };
    let error = PeerNetwork::bind(config(small), |_| {}).unwrap_err();
    assert!(matches!(error, NetStartError::Listen { address: named, .. } if named == address), "{error}");
    assert!(error.to_string().starts_with(&format!("cannot listen on {address}: ")), "{error}");
    let many = ConnectionLimits { connections_max: 1 << 40, ..small };
    let error = PeerNetwork::bind(config(many), |_| {}).unwrap_err();
    assert!(matches!(error, NetStartError::Descriptors { needed, .. } if needed > 1 << 40), "{error}");
    let none = ConnectionLimits { connections_max: 0, ..small };
    assert!(matches!(PeerNetwork::bind(config(none), |_| {}), Err(NetStartError::Limits(_))));
}

#[test]
fn dials_that_fail_say_why_and_kept_nodes_are_dialled_again() {
    let node = node(1, |settings| settings.net.timeouts.dial = Duration::from_millis(300));
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let dial = |node_id, host: Host, port| {
        node.network.connect(PeerAddress { node_id, host, port });
        wait("the dial fails", || last_failure(&node, node_id).is_some());
        let (error, is_retried) = last_failure(&node, node_id).unwrap();
        assert!(!is_retried);
        error
    };
    let error = dial(client_id(1), Host::Ip(closed.ip()), closed.port());
    assert!(
        matches!(error, DialError::Connect { error: std::io::ErrorKind::ConnectionRefused, .. }),
        "{error}"
    );
    let error = dial(client_id(2), Host::Name("abc.onion".into()), 9735);
    assert!(matches!(&error, DialError::NoProxy(name) if name == "abc.onion"), "{error}");
    let error = dial(client_id(3), Host::Name("no-such-name.invalid".into()), 9735);
    assert!(matches!(&error, DialError::Resolve { name, .. } if name == "no-such-name.invalid"), "{error}");
    let error = dial(node.id(), Host::Ip(closed.ip()), 1);
    assert!(matches!(error, DialError::OwnNode), "{error}");
    // No point of the curve has x = 5.
    let off_curve = NodeId(std::array::from_fn(|at| if at == 0 { 2 } else { 5 * u8::from(at == 32) }));
    let error = dial(off_curve, Host::Ip(closed.ip()), 1);
    assert!(matches!(error, DialError::NodeId(named) if named == off_curve), "{error}");
    // A listener that never accepts a handshake: another node's key, so act one is refused.
    let other = self::node(2, |_| {});
    let address = other.address();
    let error = dial(client_id(5), Host::Ip(address.ip()), address.port());
    assert!(
        matches!(error, DialError::Closed(CloseReason::ClosedByPeer | CloseReason::Socket(_))),
        "{error}"
    );

    // A node that comes up later is reached by a name, after failures.
    let kept = NodeSeed::new([3; 32]).node_secret();
    let kept = NodeId(kept.public_key(fulmen_proto::keys::secp()).serialize());
    node.network.keep_connected(PeerAddress {
        node_id: kept,
        host: Host::Name("localhost".into()),
        port: closed.port(),
    });
    wait("it is dialled again", || last_failure(&node, kept).is_some_and(|(_, is_retried)| is_retried));
    let late = self::node(3, |settings| settings.net.listen = vec![closed]);
    wait("it is reached", || node.is_connected(late.id()) && late.is_connected(node.id()));
    late.network.disconnect(node.id());
    wait("it is reached again", || late.connections_with(node.id()) == 2);
    node.network.forget(kept);
    late.network.disconnect(node.id());
    wait("it is gone", || !node.is_connected(kept));
    std::thread::sleep(Duration::from_millis(600));
    assert_eq!(late.connections_with(node.id()), 2, "a forgotten node is not dialled");
}

/// A proxy that connects to `target` whatever it is asked for, and says the name it was asked for.
fn proxy(target: SocketAddr) -> (SocketAddr, std::sync::mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, asked) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let (mut client, _) = listener.accept().unwrap();
        let mut greeting = [0; 3];
        client.read_exact(&mut greeting).unwrap();
        assert_eq!(greeting, [5, 1, 0]);
        client.write_all(&[5, 0]).unwrap();
        let mut head = [0; 5];
        client.read_exact(&mut head).unwrap();
        assert_eq!(head[..4], [5, 1, 0, 3], "the name goes to the proxy");
        let mut name = vec![0; usize::from(head[4]) + 2];
        client.read_exact(&mut name).unwrap();
        name.truncate(name.len() - 2);
        sender.send(String::from_utf8(name).unwrap()).unwrap();
        let server = TcpStream::connect(target).unwrap();
        client.write_all(&[5, 0, 0, 1, 127, 0, 0, 1, 0, 1]).unwrap();
        let (mut from, mut to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
        std::thread::spawn(move || std::io::copy(&mut from, &mut to));
        let (mut from, mut to) = (server, client);
        let _ = std::io::copy(&mut from, &mut to);
    });
    (address, asked)
}

#[test]
fn an_onion_service_is_reached_by_the_proxy() {
    let service = node(2, |_| {});
    let (address, asked) = proxy(service.address());
    let node = node(1, |settings| {
        settings.net.proxy = Some(SocksProxy { address, scope: ProxyScope::OnionServices, login: None });
    });
    let host = Host::Name("expyuzz4wqqyqhjn.onion".into());
    node.network.connect(PeerAddress { node_id: service.id(), host, port: 9735 });
    wait("both ends connect", || node.is_connected(service.id()) && service.is_connected(node.id()));
    assert_eq!(asked.recv().unwrap(), "expyuzz4wqqyqhjn.onion");
    let direction = |event: &ConnectionEvent| match event {
        ConnectionEvent::Connected { direction, .. } => Some(*direction),
        _ => None,
    };
    assert_eq!(node.peer_events().iter().find_map(direction), Some(ConnectionDirection::Outbound));
}

/// Two nodes that dial each other at once settle on one connection, on either number of loops.
#[test]
fn nodes_that_dial_each_other_settle_on_one_connection() {
    for loops in [1, 3] {
        let (one, other) =
            (node(1, |settings| settings.net.loops = loops), node(2, |settings| settings.net.loops = loops));
        one.keep_connected(other.id(), other.address());
        other.keep_connected(one.id(), one.address());
        wait("both ends connect", || one.is_connected(other.id()) && other.is_connected(one.id()));
        std::thread::sleep(Duration::from_millis(500));
        assert!(one.is_connected(other.id()) && other.is_connected(one.id()));
        let stats = (one.network.stats().connections, other.network.stats().connections);
        assert_eq!(stats, (1, 1));
        let count = (one.connections_with(other.id()), other.connections_with(one.id()));
        assert!(count.0 <= 3 && count.1 <= 3, "they do not chase each other: {count:?}");
    }
}

/// Messages that wait when the network is shut down are written first.
#[test]
fn a_drain_writes_the_messages_that_wait() {
    let node = node(1, |_| {});
    let (mut client, _) = Client::connect(1, node.id(), node.address()).unwrap();
    wait("it is connected", || node.is_connected(client.id));
    let connection = node.peer_events().iter().find_map(|event| match event {
        ConnectionEvent::Connected { connection, .. } => Some(*connection),
        _ => None,
    });
    let connection = connection.unwrap();
    let message = |number: u8| [&[0xff, 0xff][..], &[number; 50_000]].concat();
    let send = (0..120).map(|number| (connection, message(number))).collect();
    node.network.handler(|_: Effects| {}).effects(Effects { send, ..Effects::default() });
    let reader = std::thread::spawn(move || {
        let mut number = 0;
        while let Ok(received) = client.receive() {
            if received[0] == 0xff {
                assert_eq!(received, message(number));
                number += 1;
            }
        }
        number
    });
    node.shutdown();
    assert_eq!(reader.join().unwrap(), 120);
}
