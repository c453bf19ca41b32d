//! The queue in front of the gossip thread, bounded in bytes for each peer and in all.
//!
//! Owns the accounting. Announcements are encoded once, when they are queued, and counted with their encoded size;
//! any thread may queue.
//!
//! Invariant: the bytes counted for a peer are those of its messages in the queue, so that a peer that floods the
//! queue delays only its own gossip, and control inputs always find room while fewer than [`CONTROL_MAX`] wait.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crossbeam::channel::{Receiver, RecvTimeoutError, Sender};
use fulmen_graph::gossip::Source;
use fulmen_wire::message::Message;
use fulmen_wire::units::NodeId;

use super::GossipInput;

/// Bytes of all peers' messages in the queue.
const QUEUE_BYTES_MAX: usize = 32 << 20;

/// Bytes of one peer's messages in the queue.
const QUEUE_BYTES_PER_PEER_MAX: usize = 8 << 20;

/// Inputs other than messages of peers in the queue. They come from the embedder.
const CONTROL_MAX: usize = 4_096;

/// Bytes counted for a message beside its encoding: the queue's slot and the allocation, rounded up.
const ENTRY_BYTES: usize = 128;

/// An input in the queue.
#[derive(Debug)]
pub(super) enum Queued {
    /// An announcement, encoded.
    Announcement {
        from: Source,
        message: Vec<u8>,
    },
    /// Another message of a peer, and its encoded size.
    Query {
        peer: NodeId,
        message: Box<Message>,
        bytes: usize,
    },
    Control(GossipInput),
}

/// The end that any thread may offer inputs to.
#[derive(Debug)]
pub(super) struct Queue {
    sender: Sender<Queued>,
    usage: Arc<Mutex<Usage>>,
}

/// The end of the gossip thread.
#[derive(Debug)]
pub(super) struct QueueReader {
    receiver: Receiver<Queued>,
    usage: Arc<Mutex<Usage>>,
}

#[derive(Debug, Default)]
struct Usage {
    bytes: usize,
    by_peer: BTreeMap<NodeId, usize>,
    controls: usize,
}

/// An empty queue.
pub(super) fn bounded() -> (Queue, QueueReader) {
    let (sender, receiver) = crossbeam::channel::unbounded();
    let usage = Arc::new(Mutex::new(Usage::default()));
    (Queue { sender, usage: Arc::clone(&usage) }, QueueReader { receiver, usage })
}

impl Queue {
    /// Queues an input unless it would exceed a bound; returns whether it was queued.
    pub(super) fn offer(&self, input: GossipInput) -> bool {
        let queued = Queued::from(input);
        if !self.usage.lock().unwrap_or_else(PoisonError::into_inner).add(&queued) {
            return false;
        }
        self.sender.send(queued).is_ok()
    }
}

impl QueueReader {
    /// Waits for inputs, at most `timeout`, and takes up to `max` of them.
    pub(super) fn next_batch(&self, max: usize, timeout: Duration) -> Result<Vec<Queued>, RecvTimeoutError> {
        let first = self.receiver.recv_timeout(timeout)?;
        let batch: Vec<Queued> = std::iter::once(first).chain(self.receiver.try_iter()).take(max).collect();
        let mut usage = self.usage.lock().unwrap_or_else(PoisonError::into_inner);
        batch.iter().for_each(|queued| usage.remove(queued));
        Ok(batch)
    }
}

impl From<GossipInput> for Queued {
    fn from(input: GossipInput) -> Queued {
        match input {
            GossipInput::Own(message) => {
                Queued::Announcement { from: Source::Own, message: message.encode() }
            }
            GossipInput::Message { peer, message } => match *message {
                Message::ChannelAnnouncement(_)
                | Message::ChannelUpdate(_)
                | Message::NodeAnnouncement(_) => {
                    Queued::Announcement { from: Source::Peer(peer), message: message.encode() }
                }
                _ => {
                    let bytes = message.encode().len();
                    Queued::Query { peer, message, bytes }
                }
            },
            control => Queued::Control(control),
        }
    }
}

impl Usage {
    /// Counts an input, or refuses it without a change.
    fn add(&mut self, queued: &Queued) -> bool {
        let Some((peer, bytes)) = queued.peer_bytes() else {
            let fits = self.controls < CONTROL_MAX;
            self.controls += usize::from(fits);
            return fits;
        };
        let used = self.by_peer.get(&peer).copied().unwrap_or_default();
        if self.bytes + bytes > QUEUE_BYTES_MAX || used + bytes > QUEUE_BYTES_PER_PEER_MAX {
            return false;
        }
        self.bytes += bytes;
        self.by_peer.insert(peer, used + bytes);
        true
    }

    fn remove(&mut self, queued: &Queued) {
        let Some((peer, bytes)) = queued.peer_bytes() else {
            self.controls -= 1;
            return;
        };
        self.bytes -= bytes;
        if let Some(used) = self.by_peer.get_mut(&peer) {
            *used -= bytes;
            if *used == 0 {
                self.by_peer.remove(&peer);
            }
        }
    }
}

impl Queued {
    /// The peer that an input is counted for, and its bytes; `None` for inputs of the embedder.
    fn peer_bytes(&self) -> Option<(NodeId, usize)> {
        match self {
            Queued::Announcement { from: Source::Peer(peer), message } => {
                Some((*peer, message.len() + ENTRY_BYTES))
            }
            Queued::Query { peer, bytes, .. } => Some((*peer, bytes + ENTRY_BYTES)),
            Queued::Announcement { from: Source::Own, .. } | Queued::Control(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use fulmen_wire::message::Warning;
    use fulmen_wire::tlv::UnknownTlvs;
    use fulmen_wire::units::{BlockHeight, ChannelId};

    use super::*;

    fn padded(tag: u8) -> GossipInput {
        let data = vec![0; 60_000];
        let message = Warning { channel_id: ChannelId([0; 32]), data, unknown: UnknownTlvs::default() };
        GossipInput::Message { peer: NodeId([tag; 33]), message: Box::new(message.into()) }
    }

    #[test]
    fn a_flood_of_large_messages_is_dropped_for_its_peer_alone() {
        let (queue, reader) = bounded();
        let taken = (0..1_000).filter(|_| queue.offer(padded(1))).count();
        assert_eq!(taken, QUEUE_BYTES_PER_PEER_MAX / (60_000 + 36 + ENTRY_BYTES));
        assert!(queue.offer(padded(2)), "another peer has its share");
        for tag in 3..20 {
            while queue.offer(padded(tag)) {}
        }
        let bytes = |queue: &Queue| queue.usage.lock().map(|usage| usage.bytes).expect("not poisoned");
        assert!(bytes(&queue) <= QUEUE_BYTES_MAX);
        assert!(!queue.offer(padded(20)), "the queue is full of messages");
        let controls = (0..5_000).filter(|_| queue.offer(GossipInput::Tip(BlockHeight(1)))).count();
        assert_eq!(controls, CONTROL_MAX, "and still takes the embedder's inputs");

        let all = reader.next_batch(usize::MAX, Duration::from_secs(1)).expect("queued");
        assert!(all.len() > CONTROL_MAX);
        assert_eq!((bytes(&queue), reader.usage.lock().expect("not poisoned").by_peer.len()), (0, 0));
        assert!(queue.offer(padded(1)) && queue.offer(GossipInput::Tip(BlockHeight(2))));
    }
}
