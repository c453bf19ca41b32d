//! The frames between the driver and the forwarder's process, over the forwarder's standard input and output.
//!
//! A frame is four bytes of length (big-endian, of the rest), one byte for its kind, and its fields: ids are 33
//! bytes, numbers big-endian, the last field takes the rest. Pipes, so that the forwarder sees the end of its input,
//! and ends, however its driver died; and so that nothing listens anywhere.
//!
//! Owns the frames and their bytes. Does not know when which is said; see [`super::forwarder`].

use std::io::{self, Read, Write};

use fulmen_wire::units::{BlockHeight, NodeId};

/// One thing said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Frame {
    /// To the forwarder, first: its settings, as JSON.
    Start(Vec<u8>),
    /// From the forwarder, after the events that it delivers again: it has restored its store and can be fed.
    Ready {
        /// The height of the last block it knows.
        height: BlockHeight,
        /// Its `init`; the id is in its account.
        init: Vec<u8>,
    },
    /// To the forwarder: a connection stands, and this is the peer's `init`.
    Connect {
        /// The peer.
        peer: NodeId,
        /// Its `init`.
        init: Vec<u8>,
    },
    /// Both ways: a BOLT message.
    Message {
        /// Whom it is from or to: the other one is the forwarder.
        peer: NodeId,
        /// Its bytes, from the type on.
        bytes: Vec<u8>,
    },
    /// To the forwarder: a block.
    Block {
        /// Its height.
        height: BlockHeight,
        /// Its bytes.
        bytes: Vec<u8>,
    },
    /// From the forwarder: a transaction to broadcast.
    Broadcast(Vec<u8>),
    /// To the forwarder: give your account.
    Ask,
    /// From the forwarder: its account, as JSON.
    Account(Vec<u8>),
    /// From the forwarder: a channel failed, for this reason.
    ForceClose(String),
    /// From the forwarder: something else that a healthy run does not meet.
    Trouble(String),
    /// From the forwarder: a durable event.
    Event {
        /// Its shard.
        shard: u16,
        /// Its number among the shard's.
        number: u64,
        /// Whether it says that an HTLC was forwarded and fulfilled.
        is_forward: bool,
    },
    /// To the forwarder: the events of a shard up to a number are handled.
    Acknowledge {
        /// The shard.
        shard: u16,
        /// The number.
        number: u64,
    },
    /// To the forwarder: finish the queued work and end.
    Stop,
}

/// More than any block, and than the account of any number of channels that a run can open.
const LENGTH_MAX: usize = 64 << 20;

impl Frame {
    /// Writes the frame.
    ///
    /// # Errors
    /// When the other side is gone.
    pub(super) fn write(&self, to: &mut impl Write) -> io::Result<()> {
        let (tag, head, rest): (u8, Vec<u8>, &[u8]) = match self {
            Frame::Start(json) => (0, Vec::new(), json),
            Frame::Ready { height, init } => (1, height.0.to_be_bytes().to_vec(), init),
            Frame::Connect { peer, init } => (2, peer.0.to_vec(), init),
            Frame::Message { peer, bytes } => (3, peer.0.to_vec(), bytes),
            Frame::Block { height, bytes } => (4, height.0.to_be_bytes().to_vec(), bytes),
            Frame::Broadcast(bytes) => (5, Vec::new(), bytes),
            Frame::Ask => (6, Vec::new(), &[]),
            Frame::Account(json) => (7, Vec::new(), json),
            Frame::ForceClose(text) => (8, Vec::new(), text.as_bytes()),
            Frame::Trouble(text) => (9, Vec::new(), text.as_bytes()),
            Frame::Stop => (10, Vec::new(), &[]),
            Frame::Event { shard, number, is_forward } => {
                let fields = [&shard.to_be_bytes()[..], &number.to_be_bytes(), &[u8::from(*is_forward)]];
                (11, fields.concat(), &[])
            }
            Frame::Acknowledge { shard, number } => {
                (12, [&shard.to_be_bytes()[..], &number.to_be_bytes()].concat(), &[])
            }
        };
        let length = u32::try_from(1 + head.len() + rest.len()).map_err(io::Error::other)?;
        to.write_all(&length.to_be_bytes())?;
        to.write_all(&[tag])?;
        to.write_all(&head)?;
        to.write_all(rest)
    }

    /// Reads the next frame; `None` when the other side has ended, in the middle of a frame or between two.
    ///
    /// # Errors
    /// When the input is no frame.
    pub(super) fn read(from: &mut impl Read) -> io::Result<Option<Frame>> {
        let mut length = [0; 4];
        if !filled(from, &mut length)? {
            return Ok(None);
        }
        let length = u32::from_be_bytes(length) as usize;
        if length == 0 || length > LENGTH_MAX {
            return Err(invalid(format!("a frame of {length} bytes")));
        }
        let mut bytes = vec![0; length];
        if !filled(from, &mut bytes)? {
            return Ok(None);
        }
        Frame::parse(&bytes).map(Some)
    }

    fn parse(bytes: &[u8]) -> io::Result<Frame> {
        let (tag, rest) = (bytes[0], &bytes[1..]);
        let text = || String::from_utf8_lossy(rest).into_owned();
        let short = || invalid(format!("frame {tag} has {} bytes", rest.len()));
        let peer = || rest.split_first_chunk::<33>().map(|(id, rest)| (NodeId(*id), rest.to_vec()));
        let height = || {
            let split = rest.split_first_chunk::<4>();
            split.map(|(height, rest)| (BlockHeight(u32::from_be_bytes(*height)), rest.to_vec()))
        };
        let event = || {
            let (shard, rest) = rest.split_first_chunk::<2>()?;
            let (number, rest) = rest.split_first_chunk::<8>()?;
            Some((u16::from_be_bytes(*shard), u64::from_be_bytes(*number), rest))
        };
        Ok(match tag {
            0 => Frame::Start(rest.to_vec()),
            1 => height().map(|(height, init)| Frame::Ready { height, init }).ok_or_else(short)?,
            2 => peer().map(|(peer, init)| Frame::Connect { peer, init }).ok_or_else(short)?,
            3 => peer().map(|(peer, bytes)| Frame::Message { peer, bytes }).ok_or_else(short)?,
            4 => height().map(|(height, bytes)| Frame::Block { height, bytes }).ok_or_else(short)?,
            5 => Frame::Broadcast(rest.to_vec()),
            6 => Frame::Ask,
            7 => Frame::Account(rest.to_vec()),
            8 => Frame::ForceClose(text()),
            9 => Frame::Trouble(text()),
            10 => Frame::Stop,
            11 => {
                let (shard, number, rest) = event().ok_or_else(short)?;
                Frame::Event { shard, number, is_forward: rest.first() == Some(&1) }
            }
            12 => {
                let (shard, number, _) = event().ok_or_else(short)?;
                Frame::Acknowledge { shard, number }
            }
            _ => return Err(invalid(format!("there is no frame {tag}"))),
        })
    }
}

/// Fills `bytes`; false when the other side ended first.
fn filled(from: &mut impl Read, bytes: &mut [u8]) -> io::Result<bool> {
    match from.read_exact(bytes) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

fn invalid(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_out_as_they_went_in() {
        let peer = NodeId([2; 33]);
        let height = BlockHeight(7);
        let frames = [
            Frame::Start(b"{}".to_vec()),
            Frame::Ready { height, init: vec![1, 2] },
            Frame::Connect { peer, init: vec![] },
            Frame::Message { peer, bytes: vec![3; 100] },
            Frame::Block { height, bytes: vec![4] },
            Frame::Broadcast(vec![5]),
            Frame::Ask,
            Frame::Account(b"[]".to_vec()),
            Frame::ForceClose("why".to_owned()),
            Frame::Trouble("what".to_owned()),
            Frame::Event { shard: 3, number: 1 << 40, is_forward: true },
            Frame::Acknowledge { shard: 3, number: 1 << 40 },
            Frame::Stop,
        ];
        let mut bytes = Vec::new();
        frames.iter().for_each(|frame| frame.write(&mut bytes).expect("written"));
        let mut rest = &bytes[..];
        for frame in frames {
            assert_eq!(Frame::read(&mut rest).expect("a frame"), Some(frame));
        }
        assert_eq!(Frame::read(&mut rest).expect("an end"), None);
        for cut in 0..bytes.len().min(40) {
            // A process that dies in the middle of a frame has ended, no more.
            let mut rest = &bytes[..cut];
            while Frame::read(&mut rest).expect("frames, then an end").is_some() {}
        }
    }

    #[test]
    fn what_is_no_frame_is_told() {
        for bytes in [&[0, 0, 0, 0][..], &[255; 4], &[0, 0, 0, 1, 99], &[0, 0, 0, 2, 3, 1]] {
            assert!(Frame::read(&mut &bytes[..]).is_err(), "{bytes:?}");
        }
    }
}
