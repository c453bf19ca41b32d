//! Who may connect: the number of connections in all and from one address.
//!
//! Owns: the counts that the event loops share. A permit returns its place when dropped. Does not count unfinished
//! handshakes, which each loop bounds for itself.
//!
//! Invariant: each permit is one connection.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The counts of all loops.
#[derive(Debug)]
pub(crate) struct Admission {
    connections: AtomicUsize,
    connections_max: usize,
    by_origin: Mutex<HashMap<Origin, usize>>,
    by_origin_max: usize,
}

/// The place of an authenticated connection.
#[derive(Debug)]
pub(crate) struct ConnectionPermit(Arc<Admission>);

/// The place of an inbound connection among those of its address.
#[derive(Debug)]
pub(crate) struct OriginPermit(Arc<Admission>, Origin);

/// An IPv4 address, or the upper 64 bits of an IPv6 address: whoever has one of these has all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Origin {
    V4(Ipv4Addr),
    V6([u8; 8]),
}

impl Origin {
    fn of(address: IpAddr) -> Origin {
        match address.to_canonical() {
            IpAddr::V4(address) => Origin::V4(address),
            IpAddr::V6(address) => Origin::V6(network(address)),
        }
    }
}

fn network(address: Ipv6Addr) -> [u8; 8] {
    let [a, b, c, d, e, f, g, h, ..] = address.octets();
    [a, b, c, d, e, f, g, h]
}

impl Admission {
    pub(crate) fn new(connections_max: usize, by_origin_max: usize) -> Arc<Admission> {
        Arc::new(Admission {
            connections: AtomicUsize::new(0),
            connections_max,
            by_origin: Mutex::default(),
            by_origin_max,
        })
    }

    /// A place for an authenticated connection; `always` gives one above the maximum too.
    pub(crate) fn connection(self: &Arc<Self>, always: bool) -> Option<ConnectionPermit> {
        let before = self.connections.fetch_add(1, Ordering::Relaxed);
        let permit = ConnectionPermit(Arc::clone(self));
        (always || before < self.connections_max).then_some(permit)
    }

    /// A place for a connection from this address.
    pub(crate) fn origin(self: &Arc<Self>, address: IpAddr) -> Option<OriginPermit> {
        let origin = Origin::of(address);
        let mut counts = self.counts();
        let count = counts.entry(origin).or_default();
        if *count >= self.by_origin_max {
            return None;
        }
        *count += 1;
        drop(counts);
        Some(OriginPermit(Arc::clone(self), origin))
    }

    /// The number of authenticated connections.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    fn counts(&self) -> MutexGuard<'_, HashMap<Origin, usize>> {
        self.by_origin.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for OriginPermit {
    fn drop(&mut self) {
        let mut counts = self.0.counts();
        if let Some(count) = counts.get_mut(&self.1) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.1);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_counted_and_returned() {
        let admission = Admission::new(2, 1);
        let places: Vec<_> = (0..2).map(|_| admission.connection(false)).collect();
        assert!(places.iter().all(Option::is_some));
        assert!(admission.connection(false).is_none());
        assert!(admission.connection(true).is_some(), "a node to stay connected with is never refused");
        drop(places);
        assert_eq!(admission.connections(), 0);
    }

    #[test]
    fn an_ipv6_network_counts_as_one_address() {
        let admission = Admission::new(9, 1);
        let parse = |text: &str| text.parse::<IpAddr>().unwrap();
        let place = admission.origin(parse("2001:db8:0:1::1"));
        assert!(place.is_some());
        assert!(admission.origin(parse("2001:db8:0:1:ffff::2")).is_none());
        assert!(admission.origin(parse("2001:db8:0:2::1")).is_some());
        assert!(admission.origin(parse("192.0.2.1")).is_some());
        let mapped = admission.origin(parse("192.0.2.1"));
        assert!(mapped.is_some() && admission.origin(parse("::ffff:192.0.2.1")).is_none());
        drop(place);
        assert!(admission.origin(parse("2001:db8:0:1::3")).is_some());
        drop(mapped);
        assert!(admission.counts().is_empty(), "no address is remembered without a connection");
    }
}
