//! The operator's description of the node, which its `node_announcement` carries (BOLT 7).
//!
//! Owns the rules that BOLT 7 sets for the origin of a `node_announcement`. Does not sign or send one.
//!
//! Invariant: a description that exists keeps these rules.

use fulmen_wire::addresses::{NodeAddress, NodeAddresses};
use fulmen_wire::features::Features;

/// The bytes of `alias`.
const ALIAS_BYTES: usize = 32;
/// The most bytes of address descriptors: receivers need not relay announcements that are longer than usual.
const ADDRESS_BYTES_MAX: usize = 1_024;

/// The name, colour, addresses and features that this node announces.
///
/// ```
/// use std::net::Ipv4Addr;
///
/// use fulmen_proto::forward::NodeDescription;
/// use fulmen_wire::addresses::NodeAddress;
///
/// let address = NodeAddress::Ipv4 { address: Ipv4Addr::new(203, 0, 113, 7), port: 9735 };
/// let description = NodeDescription::new("tonitrus", [0x33, 0x66, 0xff], &[address])?;
/// assert_eq!(description.alias(), "tonitrus");
/// assert!(NodeDescription::new("a name of more than thirty-two bytes", [0; 3], &[]).is_err());
/// # Ok::<(), fulmen_proto::forward::DescriptionError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeDescription {
    alias: String,
    rgb_color: [u8; 3],
    addresses: NodeAddresses,
    features: Option<Features>,
}

/// A description that BOLT 7 does not allow in a `node_announcement`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DescriptionError {
    /// The alias does not fit its field.
    #[error("the alias has {0} bytes, above {ALIAS_BYTES}")]
    AliasTooLong(usize),
    /// An address has port 0.
    #[error("{0:?} has port 0")]
    PortZero(NodeAddress),
    /// A Tor onion service of version 2, which no longer exists.
    #[error("Tor onion services of version 2 no longer exist")]
    TorV2,
    /// A hostname is empty, longer than 255 bytes or not ASCII: other characters are written in Punycode.
    #[error("the hostname {} is not of 1 to 255 ASCII bytes", String::from_utf8_lossy(.0))]
    Hostname(Vec<u8>),
    /// More than one hostname.
    #[error("{0} hostnames, where at most one is allowed")]
    Hostnames(usize),
    /// The addresses take more bytes than other nodes can be expected to relay.
    #[error("the addresses take {0} bytes, above {ADDRESS_BYTES_MAX}")]
    AddressesTooLong(usize),
}

impl NodeDescription {
    /// A description with the features that this node offers in `init`. `rgb_color` is red, green and blue; `addresses`
    /// are those at which the node accepts connections, in any order.
    ///
    /// # Errors
    /// The rule of BOLT 7 that it breaks.
    pub fn new(
        alias: &str,
        rgb_color: [u8; 3],
        addresses: &[NodeAddress],
    ) -> Result<NodeDescription, DescriptionError> {
        if alias.len() > ALIAS_BYTES {
            return Err(DescriptionError::AliasTooLong(alias.len()));
        }
        addresses.iter().try_for_each(check_address)?;
        let hostnames =
            addresses.iter().filter(|address| matches!(address, NodeAddress::Hostname { .. })).count();
        if hostnames > 1 {
            return Err(DescriptionError::Hostnames(hostnames));
        }
        let addresses = NodeAddresses::new(addresses);
        if addresses.as_bytes().len() > ADDRESS_BYTES_MAX {
            return Err(DescriptionError::AddressesTooLong(addresses.as_bytes().len()));
        }
        Ok(NodeDescription { alias: alias.to_owned(), rgb_color, addresses, features: None })
    }

    /// The same with other features: those that the embedder adds or leaves out (BOLT 9, context `N`).
    #[must_use]
    pub fn with_features(self, features: Features) -> NodeDescription {
        NodeDescription { features: Some(features), ..self }
    }

    /// The node's name.
    #[must_use]
    pub fn alias(&self) -> &str {
        &self.alias
    }

    /// The name as `node_announcement` carries it, padded with zeros.
    pub(crate) fn padded_alias(&self) -> [u8; ALIAS_BYTES] {
        let mut padded = [0; ALIAS_BYTES];
        padded[..self.alias.len()].copy_from_slice(self.alias.as_bytes());
        padded
    }

    /// Red, green, blue.
    #[must_use]
    pub const fn rgb_color(&self) -> [u8; 3] {
        self.rgb_color
    }

    /// The addresses, in the order of their types.
    #[must_use]
    pub const fn addresses(&self) -> &NodeAddresses {
        &self.addresses
    }

    /// The features, if they are not those of `init`.
    #[must_use]
    pub const fn features(&self) -> Option<&Features> {
        self.features.as_ref()
    }
}

fn check_address(address: &NodeAddress) -> Result<(), DescriptionError> {
    match address {
        NodeAddress::Ipv4 { port, .. }
        | NodeAddress::Ipv6 { port, .. }
        | NodeAddress::Hostname { port, .. }
            if *port == 0 =>
        {
            Err(DescriptionError::PortZero(address.clone()))
        }
        NodeAddress::TorV2(_) => Err(DescriptionError::TorV2),
        NodeAddress::Hostname { hostname, .. }
            if !hostname.is_ascii() || hostname.is_empty() || hostname.len() > 255 =>
        {
            Err(DescriptionError::Hostname(hostname.clone()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    fn check(addresses: &[NodeAddress]) -> Result<NodeDescription, DescriptionError> {
        NodeDescription::new("x", [1, 2, 3], addresses)
    }

    fn hostname(hostname: &[u8]) -> NodeAddress {
        NodeAddress::Hostname { hostname: hostname.to_vec(), port: 9735 }
    }

    #[test]
    fn an_alias_of_32_bytes_fits_and_one_more_does_not() {
        let longest = "é".repeat(16);
        let description = NodeDescription::new(&longest, [0; 3], &[]).expect("32 bytes");
        assert_eq!(&description.padded_alias()[..], longest.as_bytes());
        let padded = NodeDescription::new("ab", [0; 3], &[]).expect("2 bytes").padded_alias();
        assert_eq!((&padded[..2], &padded[2..]), (&b"ab"[..], &[0; 30][..]));
        let longer = format!("{longest}.");
        assert_eq!(NodeDescription::new(&longer, [0; 3], &[]), Err(DescriptionError::AliasTooLong(33)));
    }

    #[test]
    fn addresses_that_bolt_7_forbids_are_refused() {
        let four = |port| NodeAddress::Ipv4 { address: Ipv4Addr::LOCALHOST, port };
        let six = |port| NodeAddress::Ipv6 { address: Ipv6Addr::LOCALHOST, port };
        assert_eq!(check(&[six(1), four(0)]), Err(DescriptionError::PortZero(four(0))));
        assert_eq!(check(&[six(0)]), Err(DescriptionError::PortZero(six(0))));
        let unreachable = NodeAddress::Hostname { hostname: b"x.example".to_vec(), port: 0 };
        assert_eq!(
            check(std::slice::from_ref(&unreachable)),
            Err(DescriptionError::PortZero(unreachable.clone()))
        );
        assert_eq!(check(&[NodeAddress::TorV2([0; 12])]), Err(DescriptionError::TorV2));
        for name in [&b""[..], "é.example".as_bytes(), &[b'a'; 256]] {
            assert_eq!(check(&[hostname(name)]), Err(DescriptionError::Hostname(name.to_vec())));
        }
        assert_eq!(check(&[hostname(b"a"), hostname(b"b")]), Err(DescriptionError::Hostnames(2)));
        let many = vec![six(1); 54];
        assert_eq!(check(&many), Err(DescriptionError::AddressesTooLong(54 * 19)));
        assert!(check(&many[..53]).is_ok());
    }

    #[test]
    fn addresses_are_announced_in_the_order_of_their_types() {
        let four = NodeAddress::Ipv4 { address: Ipv4Addr::LOCALHOST, port: 1 };
        let description = check(&[hostname(b"a"), four.clone()]).expect("allowed");
        let announced: Vec<NodeAddress> = description.addresses().iter().collect();
        assert_eq!(announced, [four, hostname(b"a")]);
    }
}
