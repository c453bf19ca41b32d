//! The messages of BOLT 1: `init`, `error`, `warning`, `ping` and `pong`.
//!
//! Owns: their fields and bytes. Does not react to them; the peer connection does.
//!
//! Invariant: `text` replaces every byte of a peer's text that is not printable ASCII.

use crate::features::Features;
use crate::field::message;
use crate::units::{ChainHash, ChannelId};

message! {
    /// The first message on a connection: which features the sender supports or requires.
    Init = 16, "init" {
        /// The features below 14, for old nodes; to be read together with `features`.
        globalfeatures: Features,
        /// The features.
        features: Features,
    }
    tlvs {
        /// The chains the sender will gossip or open channels for.
        1 => networks: Vec<ChainHash>,
        /// The receiver's address as the sender sees it: one address descriptor, which
        /// [`NodeAddresses::from_bytes`](crate::addresses::NodeAddresses::from_bytes) parses.
        3 => remote_addr: Vec<u8>,
    }
}

impl Init {
    /// An `init` with these features, for these chains.
    #[must_use]
    pub fn new(features: Features, networks: Vec<ChainHash>) -> Init {
        Init {
            globalfeatures: Features::default(),
            features,
            networks: Some(networks),
            remote_addr: None,
            unknown: Default::default(),
        }
    }

    /// Both feature fields as one, as BOLT 1 has the receiver read them.
    #[must_use]
    pub fn combined_features(&self) -> Features {
        self.globalfeatures.union(&self.features)
    }
}

message! {
    /// The sender fails the channel, or all of them when `channel_id` is zero.
    ErrorMessage = 17, "error" {
        /// The channel that fails.
        channel_id: ChannelId,
        /// The sender's text: print only [`ErrorMessage::text`].
        data: Vec<u8>,
    }
    tlvs {}
}

impl ErrorMessage {
    /// An error about a channel.
    #[must_use]
    pub fn new(channel_id: ChannelId, text: &str) -> ErrorMessage {
        ErrorMessage { channel_id, data: bounded_text(text), unknown: Default::default() }
    }

    /// The first [`TEXT_MAX_BYTES`] bytes of the sender's text, every byte that is not printable ASCII replaced by `?`.
    #[must_use]
    pub fn text(&self) -> String {
        printable(&self.data)
    }
}

message! {
    /// Reports a problem without failing a channel.
    Warning = 1, "warning" {
        /// The channel it is about; zero when it is about none.
        channel_id: ChannelId,
        /// The sender's text: print only [`Warning::text`].
        data: Vec<u8>,
    }
    tlvs {}
}

impl Warning {
    /// A warning about a channel.
    #[must_use]
    pub fn new(channel_id: ChannelId, text: &str) -> Warning {
        Warning { channel_id, data: bounded_text(text), unknown: Default::default() }
    }

    /// The first [`TEXT_MAX_BYTES`] bytes of the sender's text, every byte that is not printable ASCII replaced by `?`.
    #[must_use]
    pub fn text(&self) -> String {
        printable(&self.data)
    }
}

message! {
    /// Asks for a `pong`, to see that the peer is alive or to pad the traffic.
    Ping = 18, "ping" {
        /// How many bytes the `pong` is to carry; from 65,532 on there is to be none.
        num_pong_bytes: u16,
        /// Padding.
        ignored: Vec<u8>,
    }
    tlvs {}
}

impl Ping {
    /// The `pong` that answers, or `None` when BOLT 1 has the `ping` ignored.
    #[must_use]
    pub fn pong(&self) -> Option<Pong> {
        (self.num_pong_bytes < 65_532)
            .then(|| Pong { ignored: vec![0; usize::from(self.num_pong_bytes)], unknown: Default::default() })
    }
}

message! {
    /// Answers a `ping`.
    Pong = 19, "pong" {
        /// Padding, as long as the `ping` asked for.
        ignored: Vec<u8>,
    }
    tlvs {}
}

/// The most bytes of text that our `error` and `warning` carry, and that we keep of a peer's: the text of one `error`
/// may be stored once for each channel of its sender.
pub const TEXT_MAX_BYTES: usize = 1024;

fn bounded_text(text: &str) -> Vec<u8> {
    text.bytes().take(TEXT_MAX_BYTES).collect()
}

fn printable(data: &[u8]) -> String {
    data.iter()
        .take(TEXT_MAX_BYTES)
        .map(|&byte| if (32..=126).contains(&byte) { char::from(byte) } else { '?' })
        .collect()
}
