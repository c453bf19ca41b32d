//! The addresses of a node (BOLT 7, "The `node_announcement` Message").
//!
//! Owns: [`NodeAddress`], one address descriptor, and [`NodeAddresses`], the list of them an announcement carries.
//! Connects to nothing and resolves nothing.
//!
//! Invariant: a list keeps its bytes, because they are signed; its descriptors up to the first of an unknown type are
//! whole. The bytes from there on are kept unread, since the length of an unknown descriptor is unknown.

use core::net::{Ipv4Addr, Ipv6Addr};

use crate::codec::{DecodeError, Reader, Writer};
use crate::field::Field;

/// Where a node can be reached.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NodeAddress {
    /// IPv4.
    Ipv4 {
        /// The address.
        address: Ipv4Addr,
        /// The port.
        port: u16,
    },
    /// IPv6.
    Ipv6 {
        /// The address.
        address: Ipv6Addr,
        /// The port.
        port: u16,
    },
    /// A Tor onion service of the version that no longer exists: to be ignored.
    TorV2([u8; 12]),
    /// A Tor onion service, version 3.
    TorV3 {
        /// Public key, checksum and version.
        onion_address: [u8; 35],
        /// The port.
        port: u16,
    },
    /// A name to look up.
    Hostname {
        /// The name, which should be ASCII but is not known to be.
        hostname: Vec<u8>,
        /// The port.
        port: u16,
    },
}

impl NodeAddress {
    /// Reads a descriptor, or nothing when its type is unknown: then its length is, too.
    fn read(reader: &mut Reader<'_>) -> Result<Option<NodeAddress>, DecodeError> {
        let address = match reader.u8()? {
            1 => NodeAddress::Ipv4 { address: Ipv4Addr::from(reader.array::<4>()?), port: reader.u16()? },
            2 => NodeAddress::Ipv6 { address: Ipv6Addr::from(reader.array::<16>()?), port: reader.u16()? },
            3 => NodeAddress::TorV2(reader.array()?),
            4 => NodeAddress::TorV3 { onion_address: reader.array()?, port: reader.u16()? },
            5 => {
                let length = reader.u8()?;
                NodeAddress::Hostname {
                    hostname: reader.bytes(u64::from(length))?.to_vec(),
                    port: reader.u16()?,
                }
            }
            _ => return Ok(None),
        };
        Ok(Some(address))
    }

    /// Appends the descriptor. Of a hostname only the first 255 bytes fit.
    fn write(&self, writer: &mut Writer<'_>) {
        match self {
            NodeAddress::Ipv4 { address, port } => {
                writer.u8(1);
                writer.bytes(&address.octets());
                writer.u16(*port);
            }
            NodeAddress::Ipv6 { address, port } => {
                writer.u8(2);
                writer.bytes(&address.octets());
                writer.u16(*port);
            }
            NodeAddress::TorV2(bytes) => {
                writer.u8(3);
                writer.bytes(bytes);
            }
            NodeAddress::TorV3 { onion_address, port } => {
                writer.u8(4);
                writer.bytes(onion_address);
                writer.u16(*port);
            }
            NodeAddress::Hostname { hostname, port } => {
                let hostname = &hostname[..hostname.len().min(255)];
                writer.u8(5);
                writer.u8(hostname.len() as u8);
                writer.bytes(hostname);
                writer.u16(*port);
            }
        }
    }

    /// The type that starts the descriptor; descriptors are to stand in the order of these.
    #[must_use]
    pub const fn descriptor_type(&self) -> u8 {
        match self {
            NodeAddress::Ipv4 { .. } => 1,
            NodeAddress::Ipv6 { .. } => 2,
            NodeAddress::TorV2(_) => 3,
            NodeAddress::TorV3 { .. } => 4,
            NodeAddress::Hostname { .. } => 5,
        }
    }
}

/// The `addresses` of a `node_announcement`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeAddresses {
    bytes: Vec<u8>,
}

impl NodeAddresses {
    /// A list of these addresses, put into the order of their types as BOLT 7 wants it.
    #[must_use]
    pub fn new(addresses: &[NodeAddress]) -> NodeAddresses {
        let mut sorted: Vec<_> = addresses.iter().collect();
        sorted.sort_by_key(|address| address.descriptor_type());
        let mut bytes = Vec::new();
        let mut writer = Writer::new(&mut bytes);
        sorted.into_iter().for_each(|address| address.write(&mut writer));
        NodeAddresses { bytes }
    }

    /// Parses the list from the bytes of an announcement.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`] when a descriptor of a known type is cut short.
    pub fn from_bytes(bytes: &[u8]) -> Result<NodeAddresses, DecodeError> {
        NodeAddresses::read_all(Reader::new(bytes))
    }

    /// The list as the announcement carries it.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The addresses up to the first of an unknown type.
    pub fn iter(&self) -> impl Iterator<Item = NodeAddress> + '_ {
        let mut reader = Reader::new(&self.bytes);
        core::iter::from_fn(move || {
            if reader.is_empty() {
                return None;
            }
            NodeAddress::read(&mut reader).expect("descriptors of known types were checked to be whole")
        })
        .fuse()
    }

    fn read_all(mut reader: Reader<'_>) -> Result<NodeAddresses, DecodeError> {
        let bytes = reader.clone().take_rest().to_vec();
        while !reader.is_empty() && NodeAddress::read(&mut reader)?.is_some() {}
        Ok(NodeAddresses { bytes })
    }
}

impl Field for NodeAddresses {
    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let length = reader.u16()?;
        NodeAddresses::read_all(reader.sub_reader(u64::from(length))?)
    }

    fn write(&self, writer: &mut Writer<'_>) {
        writer.bytes_u16(&self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all_kinds() -> Vec<NodeAddress> {
        vec![
            NodeAddress::Ipv4 { address: Ipv4Addr::new(127, 0, 0, 1), port: 9735 },
            NodeAddress::Ipv6 { address: Ipv6Addr::LOCALHOST, port: 9735 },
            NodeAddress::TorV2([7; 12]),
            NodeAddress::TorV3 { onion_address: [9; 35], port: 1 },
            NodeAddress::Hostname { hostname: b"example.com".to_vec(), port: 2 },
        ]
    }

    #[test]
    fn every_kind_round_trips_in_order() {
        let mut shuffled = all_kinds();
        shuffled.reverse();
        let list = NodeAddresses::new(&shuffled);
        assert_eq!(list.iter().collect::<Vec<_>>(), all_kinds());
        assert_eq!(list.as_bytes().len(), 7 + 19 + 13 + 38 + 15);
        assert_eq!(NodeAddresses::from_bytes(list.as_bytes()).unwrap(), list);
    }

    #[test]
    fn what_follows_an_unknown_type_is_kept_unread() {
        let mut bytes = NodeAddresses::new(&all_kinds()[..1]).as_bytes().to_vec();
        bytes.extend([77, 1, 2]);
        let list = NodeAddresses::from_bytes(&bytes).unwrap();
        assert_eq!(list.iter().count(), 1);
        assert_eq!(list.as_bytes(), bytes);
    }

    #[test]
    fn a_known_type_cut_short_is_an_error() {
        let whole = NodeAddresses::new(&all_kinds());
        let bytes = whole.as_bytes();
        let ends = [0, 7, 26, 39, 77, 92];
        for length in 0..=bytes.len() {
            let parsed = NodeAddresses::from_bytes(&bytes[..length]);
            assert_eq!(parsed.is_ok(), ends.contains(&length), "{length} bytes: {parsed:?}");
        }
    }
}
