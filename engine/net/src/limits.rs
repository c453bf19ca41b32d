//! Bounds of the connections of a node, in bytes and in number.
//!
//! Owns the figures and their defaults, and refuses those under which no channel works. Does not enforce them: the
//! event loop to come does.
//!
//! Invariant: checked limits leave room for one message of the largest size in each direction.

/// A transport message at most (BOLT 8): an encrypted length of 18 bytes, and 65,535 bytes with their tag of 16.
pub(crate) const TRANSPORT_MESSAGE_BYTES_MAX: usize = 18 + 65_535 + 16;

/// Bounds of the connections of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// Connections at once, in both directions together.
    pub connections_max: usize,
    /// Connections at once from one IP address.
    pub connections_per_ip_max: usize,
    /// Connections that have not finished their handshake.
    pub handshakes_max: usize,
    /// Bytes read from a connection and not yet accepted by the engine. Above, the socket is not read.
    pub read_bytes_max: usize,
    /// Bytes of messages to a connection that the socket has not accepted. Above, the socket is not read either.
    pub unwritten_bytes_max: usize,
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
    #[error("{name} is {bytes} bytes, and a message may have {TRANSPORT_MESSAGE_BYTES_MAX}")]
    TooShort {
        /// The field.
        name: &'static str,
        /// Its bytes.
        bytes: usize,
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
            if bytes < TRANSPORT_MESSAGE_BYTES_MAX {
                return Err(LimitsError::TooShort { name, bytes });
            }
        }
        Ok(())
    }

    /// The most bytes that buffers of all connections hold together.
    #[must_use]
    pub const fn buffer_bytes_max(&self) -> usize {
        self.connections_max.saturating_mul(self.read_bytes_max.saturating_add(self.unwritten_bytes_max))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_work_and_bound_memory() {
        let limits = ConnectionLimits::default();
        assert_eq!(limits.check(), Ok(()));
        assert_eq!(limits.buffer_bytes_max(), 1_310_720_000);
    }

    #[test]
    fn limits_without_room_for_a_peer_or_a_message_are_refused() {
        let limits = ConnectionLimits::default();
        let none = ConnectionLimits { handshakes_max: 0, ..limits };
        assert_eq!(none.check(), Err(LimitsError::Zero { name: "handshakes_max" }));
        let bytes = TRANSPORT_MESSAGE_BYTES_MAX - 1;
        let short = ConnectionLimits { unwritten_bytes_max: bytes, ..limits };
        assert_eq!(short.check(), Err(LimitsError::TooShort { name: "unwritten_bytes_max", bytes }));
        let largest = ConnectionLimits { unwritten_bytes_max: bytes + 1, ..limits };
        assert_eq!(largest.check(), Ok(()));
    }
}
