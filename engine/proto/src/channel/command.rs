//! What the owner of a channel may ask of it.
//!
//! Owns: [`OpenRequest`], [`AcceptRequest`] and [`Command`]. Does not: check or execute them; see
//! [`Channel::plan_command`](super::Channel::plan_command).

use bitcoin::Transaction;
use fulmen_wire::units::{
    BlockHeight, ChannelId, FeeratePerKw, Msat, PaymentHash, PaymentPreimage, Point, Sat, Scid,
};

use super::config::{ChannelConfig, NegotiatedFeatures};
use crate::keys::ChannelSecrets;

/// How to open a channel.
#[derive(Clone, Debug)]
pub struct OpenRequest {
    /// Our terms.
    pub config: ChannelConfig,
    /// What both `init` messages agreed on.
    pub features: NegotiatedFeatures,
    /// Our keys for this channel, never used for another.
    pub secrets: ChannelSecrets,
    /// An id no other channel with this peer has: 32 random bytes.
    pub temporary_channel_id: ChannelId,
    /// The channel's capacity.
    pub funding: Sat,
    /// What of it is the peer's from the start.
    pub push: Msat,
    /// The commitment transactions' first fee rate.
    pub feerate: FeeratePerKw,
}

/// How to answer a peer's `open_channel`.
#[derive(Clone, Debug)]
pub struct AcceptRequest {
    /// Our terms.
    pub config: ChannelConfig,
    /// What both `init` messages agreed on.
    pub features: NegotiatedFeatures,
    /// Our keys for this channel, never used for another.
    pub secrets: ChannelSecrets,
}

/// Something to do with a channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// After [`ChannelEvent::FundingNeeded`](super::ChannelEvent::FundingNeeded): the transaction that pays the
    /// funding output, complete, signed or not, its inputs all segregated-witness so that its id is final.
    Fund {
        /// The transaction.
        transaction: Transaction,
    },
    /// The funding transaction has this many confirmations; sent again with each block until
    /// [`ChannelEvent::Ready`](super::ChannelEvent::Ready).
    FundingConfirmed {
        /// Where the funding output stands.
        scid: Scid,
        /// Confirmations, the first block counted.
        depth: u32,
    },
    /// Offers an HTLC. Its id is [`Channel::next_htlc_id`](super::Channel::next_htlc_id) at that time.
    AddHtlc {
        /// What the peer receives on showing the preimage.
        amount: Msat,
        /// The hash that locks it.
        payment_hash: PaymentHash,
        /// When it times out.
        cltv_expiry: BlockHeight,
        /// The onion for the peer.
        onion_routing_packet: Box<[u8; 1366]>,
        /// The point of a blinded path, if the payment is inside one.
        path_key: Option<Point>,
    },
    /// Claims an HTLC of the peer with its preimage. Taken while disconnected too, and kept until committed.
    FulfillHtlc {
        /// The HTLC.
        id: u64,
        /// Its preimage.
        preimage: PaymentPreimage,
    },
    /// Fails an HTLC of the peer with an encrypted reason. Taken while disconnected too, and kept until committed.
    FailHtlc {
        /// The HTLC.
        id: u64,
        /// The failure onion.
        reason: Vec<u8>,
    },
    /// Fails an HTLC of the peer whose onion cannot be read. Taken while disconnected too, and kept until committed.
    FailMalformedHtlc {
        /// The HTLC.
        id: u64,
        /// The hash of that onion.
        sha256_of_onion: [u8; 32],
        /// The code, its BADONION bit set.
        failure_code: u16,
    },
    /// Sets the commitment transactions' fee rate; only the opener may.
    UpdateFee {
        /// The new rate.
        feerate: FeeratePerKw,
    },
    /// Closes the channel once its HTLCs are gone. Taken while disconnected too.
    Shutdown {
        /// Where our money goes; `None` for the script of our terms.
        scriptpubkey: Option<Vec<u8>>,
    },
    /// The connection is lost.
    Disconnected,
    /// There is a new connection, both `init` messages exchanged: sends `channel_reestablish`.
    Connected,
    /// Gives the channel up: sends an `error`; our latest commitment may be broadcast.
    Fail {
        /// What to tell the peer.
        reason: String,
    },
}

impl Command {
    /// The command's name, for errors and logs.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Command::Fund { .. } => "fund",
            Command::FundingConfirmed { .. } => "funding confirmed",
            Command::AddHtlc { .. } => "add HTLC",
            Command::FulfillHtlc { .. } => "fulfill HTLC",
            Command::FailHtlc { .. } => "fail HTLC",
            Command::FailMalformedHtlc { .. } => "fail malformed HTLC",
            Command::UpdateFee { .. } => "update fee",
            Command::Shutdown { .. } => "shutdown",
            Command::Disconnected => "disconnected",
            Command::Connected => "connected",
            Command::Fail { .. } => "fail",
        }
    }
}
