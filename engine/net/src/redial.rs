//! Which nodes are dialled, where, and when again.
//!
//! Owns: the addresses of a node to dial, the order in which they are tried, and the wait after a failure. Does not
//! dial: the event loop does.
//!
//! Invariant: waits grow with consecutive failures up to a maximum, and are drawn at random between half of it and the
//! whole, so that the peers of a node that restarts do not all return at once.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::address::{Host, PeerAddress};
use crate::limits::ConnectionTimeouts;

/// A connection that lasted as long does not count as a failure when it ends.
const STABLE: Duration = Duration::from_secs(60);

/// A node to be dialled.
#[derive(Debug)]
pub(crate) struct DialPlan {
    /// Whether to dial again whenever there is no connection.
    pub(crate) keep: bool,
    hosts: Vec<(Host, u16)>,
    /// The host that comes next.
    next: usize,
    /// Addresses that the current host's name resolved to and that are still to be tried.
    pub(crate) resolved: VecDeque<SocketAddr>,
    failures: u32,
    /// Whether a dial is under way.
    pub(crate) is_dialling: bool,
    /// When to dial next, if nothing is under way.
    pub(crate) due: Option<Instant>,
    connected: Option<Instant>,
}

impl DialPlan {
    pub(crate) fn new(address: PeerAddress, keep: bool) -> DialPlan {
        DialPlan {
            keep,
            hosts: vec![(address.host, address.port)],
            next: 0,
            resolved: VecDeque::new(),
            failures: 0,
            is_dialling: false,
            due: None,
            connected: None,
        }
    }

    /// Adds an address, to be tried first.
    pub(crate) fn add(&mut self, address: PeerAddress, keep: bool) {
        let host = (address.host, address.port);
        self.hosts.retain(|other| *other != host);
        self.hosts.insert(0, host);
        self.hosts.truncate(HOSTS_MAX);
        self.next = 0;
        self.keep |= keep;
        self.due = None;
    }

    /// The host to dial next.
    pub(crate) fn next_host(&mut self) -> (Host, u16) {
        let host = self.hosts[self.next % self.hosts.len()].clone();
        self.next += 1;
        host
    }

    /// A connection to the node stands, whoever dialled.
    pub(crate) fn connected(&mut self, now: Instant) {
        (self.connected, self.is_dialling, self.due) = (Some(now), false, None);
        self.resolved.clear();
    }

    /// The dial failed, or the connection ended. Returns the wait before the next dial.
    pub(crate) fn ended(&mut self, now: Instant, timeouts: &ConnectionTimeouts, random: u32) -> Duration {
        let was_stable = self.connected.take().is_some_and(|since| now.duration_since(since) >= STABLE);
        if was_stable {
            self.failures = 0;
        }
        let doubled =
            timeouts.redial_min.saturating_mul(1_u32.checked_shl(self.failures).unwrap_or(u32::MAX));
        let longest = doubled.min(timeouts.redial_max);
        self.failures = self.failures.saturating_add(1);
        let wait = longest / 2 + (longest / 2).mul_f64(f64::from(random) / f64::from(u32::MAX));
        (self.is_dialling, self.due) = (false, Some(now + wait));
        wait
    }
}

/// The addresses remembered of a node.
const HOSTS_MAX: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "02eec7245d6b7d2ccb30380bfbe2a3648cd7a942653f5aa340edcea1f283686619";

    fn address(host: &str) -> PeerAddress {
        format!("{KEY}@{host}").parse().unwrap()
    }

    #[test]
    fn waits_double_up_to_the_maximum_and_start_again_after_a_stable_connection() {
        let timeouts = ConnectionTimeouts::default();
        let mut plan = DialPlan::new(address("192.0.2.1"), true);
        let start = Instant::now();
        let mut waits = |random| plan.ended(start, &timeouts, random).as_millis();
        assert_eq!([waits(u32::MAX), waits(u32::MAX), waits(0)], [1_000, 2_000, 2_000]);
        for _ in 0..60 {
            waits(0);
        }
        assert_eq!(waits(u32::MAX), 300_000);
        plan.connected(start);
        assert_eq!(plan.ended(start + STABLE / 2, &timeouts, u32::MAX), Duration::from_secs(300));
        plan.connected(start);
        assert_eq!(plan.ended(start + STABLE, &timeouts, u32::MAX), Duration::from_secs(1));
    }

    #[test]
    fn addresses_are_tried_in_turn_the_newest_first() {
        let mut plan = DialPlan::new(address("192.0.2.1"), false);
        plan.add(address("192.0.2.2"), true);
        plan.add(address("192.0.2.1"), false);
        let hosts: Vec<_> = (0..3).map(|_| plan.next_host().0).collect();
        let ip = |text: &str| Host::Ip(text.parse().unwrap());
        assert_eq!(hosts, [ip("192.0.2.1"), ip("192.0.2.2"), ip("192.0.2.1")]);
        assert!(plan.keep);
    }
}
