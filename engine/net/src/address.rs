//! The address of a node, in the form that operators exchange: `pubkey@host:port`.
//!
//! Owns parsing and printing. Does not resolve names, and does not check that the key is a point of the curve: the
//! handshake does.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use fulmen_wire::units::NodeId;

/// The port of Lightning nodes on mainnet (BOLT 1), taken when an address names none.
const DEFAULT_PORT: u16 = 9735;

/// The longest host name (RFC 1035), an onion service's 62 characters included.
const HOST_BYTES_MAX: usize = 253;

/// A node and where to dial it.
///
/// # Examples
///
/// ```
/// use fulmen_net::{Host, PeerAddress};
///
/// let key = "02eec7245d6b7d2ccb30380bfbe2a3648cd7a942653f5aa340edcea1f283686619";
/// let address: PeerAddress = format!("{key}@[2001:db8::1]:9736").parse()?;
/// assert_eq!(address.port, 9736);
/// assert!(matches!(address.host, Host::Ip(ip) if ip.is_ipv6()));
/// assert_eq!(address.to_string(), format!("{key}@[2001:db8::1]:9736"));
/// # Ok::<(), fulmen_net::AddressError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PeerAddress {
    /// The node's public key, which the handshake authenticates.
    pub node_id: NodeId,
    /// Its host.
    pub host: Host,
    /// Its TCP port, never zero.
    pub port: u16,
}

/// Where a node listens.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Host {
    /// An IP address.
    Ip(IpAddr),
    /// A name to resolve, or an onion service to reach by a proxy.
    Name(String),
}

/// Why a text is no address of a node.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AddressError {
    /// There is no `@` between key and host.
    #[error("{0:?} is not of the form pubkey@host:port")]
    NoKey(String),
    /// The key is not 66 hexadecimal digits that begin with 02 or 03.
    #[error("{0:?} is no compressed public key: 66 hexadecimal digits, the first two 02 or 03")]
    Key(String),
    /// The host is empty, too long, or has characters that no host name has.
    #[error("{0:?} is no host: a name, an IPv4 address, or an IPv6 address in brackets")]
    Host(String),
    /// The port is no number from 1 to 65535.
    #[error("{0:?} is no port: a number from 1 to 65535")]
    Port(String),
}

impl FromStr for PeerAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<PeerAddress, AddressError> {
        let (key, place) = text.split_once('@').ok_or_else(|| AddressError::NoKey(text.to_owned()))?;
        let node_id = parse_key(key).ok_or_else(|| AddressError::Key(key.to_owned()))?;
        let (host, port) = split_port(place);
        let host = parse_host(host).ok_or_else(|| AddressError::Host(host.to_owned()))?;
        let port = match port {
            None => DEFAULT_PORT,
            Some(port) => {
                let number = port.parse().ok().filter(|number| *number != 0);
                number.ok_or_else(|| AddressError::Port(port.to_owned()))?
            }
        };
        Ok(PeerAddress { node_id, host, port })
    }
}

impl fmt::Display for PeerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let PeerAddress { node_id, host, port } = self;
        match host {
            Host::Ip(IpAddr::V6(ip)) => write!(f, "{node_id}@[{ip}]:{port}"),
            Host::Ip(IpAddr::V4(ip)) => write!(f, "{node_id}@{ip}:{port}"),
            Host::Name(name) => write!(f, "{node_id}@{name}:{port}"),
        }
    }
}

fn parse_key(digits: &str) -> Option<NodeId> {
    let mut key = [0; 33];
    let bytes = digits.as_bytes();
    if bytes.len() != 2 * key.len() {
        return None;
    }
    for (byte, pair) in key.iter_mut().zip(bytes.chunks(2)) {
        let digit = |at: usize| char::from(pair[at]).to_digit(16);
        *byte = (digit(0)? << 4 | digit(1)?) as u8;
    }
    matches!(key[0], 2 | 3).then_some(NodeId(key))
}

/// Splits the port off, if there is one. An IPv6 address with a port stands in brackets.
fn split_port(place: &str) -> (&str, Option<&str>) {
    if place.parse::<Ipv6Addr>().is_ok() {
        return (place, None);
    }
    match place.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (place, None),
    }
}

fn parse_host(host: &str) -> Option<Host> {
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    if let Some(bare) = bare {
        return bare.parse().ok().map(|ip: Ipv6Addr| Host::Ip(ip.into()));
    }
    if let Ok(ip) = host.parse() {
        return Some(Host::Ip(ip));
    }
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    let is_valid = !host.is_empty() && host.len() <= HOST_BYTES_MAX && host.bytes().all(is_name);
    is_valid.then(|| Host::Name(host.to_ascii_lowercase()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "02eec7245d6b7d2ccb30380bfbe2a3648cd7a942653f5aa340edcea1f283686619";

    fn parse(place: &str) -> Result<PeerAddress, AddressError> {
        format!("{KEY}@{place}").parse()
    }

    #[test]
    fn addresses_of_every_form_come_back_as_written() {
        for place in
            ["192.0.2.7:1", "[2001:db8::1]:65535", "node.example:9735", "expyuzz4wqqyqhjn.onion:9735"]
        {
            let address = parse(place).unwrap();
            assert_eq!(address.to_string(), format!("{KEY}@{place}"));
            assert_eq!(address.to_string().parse(), Ok(address));
        }
    }

    #[test]
    fn a_missing_port_is_the_one_of_bolt_1() {
        for place in ["192.0.2.7", "2001:db8::1", "[2001:db8::1]", "node.example"] {
            assert_eq!(parse(place).unwrap().port, 9735, "{place}");
        }
    }

    #[test]
    fn faults_are_named() {
        assert_eq!(
            "node.example:9735".parse::<PeerAddress>().unwrap_err(),
            AddressError::NoKey("node.example:9735".into())
        );
        for key in ["02", &KEY.replace("02", "04"), &format!("{KEY}00"), &KEY.replace('e', "g")] {
            let address = format!("{key}@node.example");
            assert_eq!(address.parse::<PeerAddress>(), Err(AddressError::Key(key.to_owned())));
        }
        for host in ["", "[::1", "no de", "a/b", &"x".repeat(254)] {
            assert!(matches!(parse(&format!("{host}:1")), Err(AddressError::Host(_))), "{host}");
        }
        for port in ["0", "65536", "", "http", "-1"] {
            assert!(matches!(parse(&format!("node.example:{port}")), Err(AddressError::Port(_))), "{port}");
        }
    }
}
