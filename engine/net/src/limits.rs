//! Bounds of the connections of a node, in bytes, number and time.
//!
//! Owns the figures and their defaults, and refuses those under which no channel works. Does not enforce them: the
//! event loops do.
//!
//! Invariant: checked limits leave room for one message of the largest size in each direction.

use std::time::Duration;

use fulmen_proto::noise::FRAME_BYTES_MAX;

/// Bounds of the connections of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// Authenticated connections at once, in both directions together. Above, inbound connections are refused unless
    /// the node is one to stay connected with; connections that this side dials count but are not refused.
    pub connections_max: usize,
    /// Inbound connections at once from one IPv4 address, or from one IPv6 network of 64 bits.
    pub connections_per_ip_max: usize,
    /// Inbound connections that have not finished their handshake. One more replaces the oldest of them.
    pub handshakes_max: usize,
    /// Bytes read from a connection and not yet accepted by the engine. Above, the socket is not read.
    pub read_bytes_max: usize,
    /// Bytes of messages to a connection that the socket has not accepted. Above, the socket is not read either.
    pub unwritten_bytes_max: usize,
    /// Bytes of messages to a connection that the socket has not accepted, above which it is closed.
    pub unwritten_bytes_cut_off: usize,
}

/// How long a connection may do nothing, and how soon a lost one is dialled again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionTimeouts {
    /// From dialling to a TCP connection with the node or the proxy. A name is resolved before, for as long as the
    /// system's resolver takes.
    pub dial: Duration,
    /// From a TCP connection to the peer's `init`, a proxy's work included. An onion service may need 30 s.
    pub handshake: Duration,
    /// Without a byte from the peer until a `ping` is sent. BOLT 1 asks for 30 s at least.
    pub ping_after: Duration,
    /// From a `ping` to any byte from the peer; then the connection is closed.
    pub pong: Duration,
    /// Without a byte accepted by the socket while messages wait; then the connection is closed.
    pub stalled_write: Duration,
    /// The wait before a peer is dialled again after the first failure; doubled by each further one.
    pub redial_min: Duration,
    /// The longest such wait.
    pub redial_max: Duration,
}

/// Limits under which no channel works.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LimitsError {
    /// A bound is zero.
    #[error("{name} is 0: no peer could connect")]
    Zero {
        /// The field.
        name: &'static str,
    },
    /// A buffer is shorter than a message.
    #[error("{name} is {bytes} bytes, and a message may have {FRAME_BYTES_MAX}")]
    TooShort {
        /// The field.
        name: &'static str,
        /// Its bytes.
        bytes: usize,
    },
    /// A connection would be closed before reading from it stops.
    #[error("unwritten_bytes_cut_off is {cut_off} bytes, below unwritten_bytes_max with {max}")]
    CutOffTooEarly {
        /// `unwritten_bytes_cut_off`.
        cut_off: usize,
        /// `unwritten_bytes_max`.
        max: usize,
    },
}

impl Default for ConnectionLimits {
    fn default() -> ConnectionLimits {
        ConnectionLimits {
            connections_max: 1_000,
            connections_per_ip_max: 8,
            handshakes_max: 100,
            read_bytes_max: 256 << 10,
            unwritten_bytes_max: 1 << 20,
            unwritten_bytes_cut_off: 8 << 20,
        }
    }
}

impl Default for ConnectionTimeouts {
    fn default() -> ConnectionTimeouts {
        ConnectionTimeouts {
            dial: Duration::from_secs(30),
            handshake: Duration::from_secs(30),
            ping_after: Duration::from_secs(60),
            pong: Duration::from_secs(30),
            stalled_write: Duration::from_secs(30),
            redial_min: Duration::from_secs(1),
            redial_max: Duration::from_secs(300),
        }
    }
}

impl ConnectionLimits {
    /// Checks that peers can connect and messages fit.
    ///
    /// # Errors
    /// The first field that is too small.
    pub fn check(&self) -> Result<(), LimitsError> {
        for (name, number) in [
            ("connections_max", self.connections_max),
            ("connections_per_ip_max", self.connections_per_ip_max),
            ("handshakes_max", self.handshakes_max),
        ] {
            if number == 0 {
                return Err(LimitsError::Zero { name });
            }
        }
        for (name, bytes) in
            [("read_bytes_max", self.read_bytes_max), ("unwritten_bytes_max", self.unwritten_bytes_max)]
        {
            if bytes < FRAME_BYTES_MAX {
                return Err(LimitsError::TooShort { name, bytes });
            }
        }
        let (cut_off, max) = (self.unwritten_bytes_cut_off, self.unwritten_bytes_max);
        if cut_off < max { Err(LimitsError::CutOffTooEarly { cut_off, max }) } else { Ok(()) }
    }

    /// The most bytes that buffers of all authenticated connections hold together.
    #[must_use]
    pub const fn buffer_bytes_max(&self) -> usize {
        let each = self.read_bytes_max.saturating_add(self.unwritten_bytes_cut_off);
        self.connections_max.saturating_mul(each)
    }

    /// The file descriptors that as many sockets take.
    #[must_use]
    pub const fn descriptors(&self) -> usize {
        self.connections_max.saturating_add(self.handshakes_max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_work_and_bound_memory() {
        let limits = ConnectionLimits::default();
        assert_eq!(limits.check(), Ok(()));
        assert_eq!(limits.buffer_bytes_max(), 8_650_752_000);
        assert_eq!(limits.descriptors(), 1_100);
    }

    #[test]
    fn limits_without_room_for_a_peer_or_a_message_are_refused() {
        let limits = ConnectionLimits::default();
        let none = ConnectionLimits { handshakes_max: 0, ..limits };
        assert_eq!(none.check(), Err(LimitsError::Zero { name: "handshakes_max" }));
        let bytes = FRAME_BYTES_MAX - 1;
        let short = ConnectionLimits { unwritten_bytes_max: bytes, ..limits };
        assert_eq!(short.check(), Err(LimitsError::TooShort { name: "unwritten_bytes_max", bytes }));
        let largest = ConnectionLimits { unwritten_bytes_max: bytes + 1, ..limits };
        assert_eq!(largest.check(), Ok(()));
        let early = ConnectionLimits { unwritten_bytes_cut_off: (1 << 20) - 1, ..limits };
        let refused = LimitsError::CutOffTooEarly { cut_off: (1 << 20) - 1, max: 1 << 20 };
        assert_eq!(early.check(), Err(refused));
    }
}
