//! The forwarder's process: a production engine on a disk store, fed by the frames of its driver.
//!
//! Owns: turning frames into calls of the engine and the engine's effects into frames. It is made to be killed: it
//! keeps nothing but the engine's store, and ends when its input ends.

use std::collections::HashMap;
use std::io::{self, BufReader, BufWriter, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bitcoin::Block;
use bitcoin::consensus::{deserialize, serialize};
use crossbeam::channel::{Receiver, Sender, unbounded};
use fulmen::chain::ChainEvent;
use fulmen::runtime::{Connection, Effects, Engine, EventId, ReceiveError, Storage};
use fulmen_proto::forward::Event;
use fulmen_proto::keys::NodeSeed;
use fulmen_wire::units::NodeId;
use serde::{Deserialize, Serialize};

use super::frame::Frame;
use crate::network::node_config;

/// How long a peer's messages wait when the engine will not take more of them.
const RETRY: Duration = Duration::from_micros(200);

/// The settings of a forwarder.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Start {
    /// The seed of its keys.
    pub(super) seed: [u8; 32],
    /// Where its channels pay on closing.
    pub(super) script: Vec<u8>,
    /// Where its store is.
    pub(super) directory: PathBuf,
    /// Worker threads; one per core when absent.
    pub(super) workers: Option<usize>,
}

/// A forwarder's account of itself.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(super) struct Account {
    /// Its channels.
    pub(super) channels: Vec<ChannelAccount>,
    /// Received HTLCs not removed for good.
    pub(super) circuits: usize,
    /// Offered HTLCs not resolved.
    pub(super) offered: usize,
    /// Forwards fulfilled since it was started.
    pub(super) forwards: u64,
    /// Processor time of its threads since it was started.
    pub(super) cpu_us: u64,
    /// Times its store waited for the disk since it was started.
    pub(super) syncs: u64,
    /// Bytes its store wrote since it was started.
    pub(super) bytes_written: u64,
}

/// One channel, as the forwarder sees it.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct ChannelAccount {
    /// Its id.
    pub(super) id: [u8; 32],
    /// The forwarder's balance.
    pub(super) local_msat: u64,
    /// The peer's balance.
    pub(super) remote_msat: u64,
    /// HTLCs in a commitment or on their way there.
    pub(super) htlcs: usize,
    /// Whether updates are under way.
    pub(super) settling: bool,
}

/// Lives until the input ends.
pub(crate) fn run() -> ExitCode {
    let input = BufReader::with_capacity(1 << 20, io::stdin().lock());
    match live(input) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: the forwarder's process: {error}");
            ExitCode::FAILURE
        }
    }
}

fn live(mut input: BufReader<impl io::Read>) -> io::Result<()> {
    let Some(Frame::Start(json)) = Frame::read(&mut input)? else {
        return Err(io::Error::other("this command is for loadgen stress, which says first what to do"));
    };
    let start: Start = serde_json::from_slice(&json)?;
    let (sender, receiver) = unbounded();
    let output = std::thread::spawn(move || speak(&receiver));
    let mut forwarder = Forwarder::new(start, sender)?;
    if forwarder.listen(&mut input)? {
        // The driver is gone: whatever is not in the store is lost, as in any other crash.
        return Ok(());
    }
    let Forwarder { engine, sender, .. } = forwarder;
    engine.shutdown().map_err(io::Error::other)?;
    drop((engine, sender));
    // A driver that has stopped listening does not mind.
    let _ = output.join();
    Ok(())
}

/// Writes frames in order until nobody has more to say or the driver is gone.
fn speak(frames: &Receiver<Frame>) -> io::Result<()> {
    let mut output = BufWriter::with_capacity(1 << 20, io::stdout().lock());
    for frame in frames {
        frame.write(&mut output)?;
        if frames.is_empty() {
            output.flush()?;
        }
    }
    output.flush()
}

/// Sends the engine's effects to the driver. The backlog of frames to be written is bounded by the slots of the
/// channels: a peer that gets no answer offers no more.
fn tell(sender: &Sender<Frame>, forwards: &AtomicU64, effects: Effects) {
    let numbered = effects.numbered_events().filter_map(|(id, event)| {
        let EventId { shard, number } = id?;
        Some(Frame::Event { shard, number, is_forward: matches!(event, Event::Forwarded { .. }) })
    });
    let numbered: Vec<Frame> = numbered.collect();
    let Effects { send, disconnect, broadcast, events, .. } = effects;
    let fulfilled = events.iter().filter(|event| matches!(event, Event::Forwarded { .. })).count();
    forwards.fetch_add(fulfilled as u64, Ordering::Relaxed);
    let messages = send.into_iter().map(|(Connection { peer, .. }, bytes)| Frame::Message { peer, bytes });
    let hangups = disconnect.into_iter().map(|gone| Frame::Trouble(format!("hangs up on {}", gone.peer)));
    let transactions = broadcast.iter().map(|transaction| Frame::Broadcast(serialize(transaction)));
    let told = events.into_iter().filter_map(|event| match event {
        Event::ChannelFailed { channel_id, error, .. } => {
            Some(Frame::ForceClose(format!("channel {channel_id}: {error}")))
        }
        Event::CommandRefused { .. } | Event::PeerWarning { .. } => {
            Some(Frame::Trouble(format!("{event:?}")))
        }
        _ => None,
    });
    for frame in messages.chain(hangups).chain(transactions).chain(told).chain(numbered) {
        // Without a driver there is nobody to tell.
        let _ = sender.send(frame);
    }
}

/// The engine and who is connected.
struct Forwarder {
    engine: Engine,
    sender: Sender<Frame>,
    connections: HashMap<NodeId, Connection>,
    forwards: Arc<AtomicU64>,
    /// Messages read and not yet fed, peer by peer.
    pending: Vec<(NodeId, Vec<Vec<u8>>)>,
}

impl Forwarder {
    fn new(start: Start, sender: Sender<Frame>) -> io::Result<Forwarder> {
        let (seed, config) = (NodeSeed::new(start.seed), node_config(start.script));
        let mut builder = Engine::builder(seed, config, Storage::Directory(start.directory)).keep_events();
        if let Some(workers) = start.workers {
            builder = builder.workers(workers);
        }
        let forwards = Arc::new(AtomicU64::new(0));
        let (to_driver, counted) = (sender.clone(), Arc::clone(&forwards));
        let handler = move |effects| tell(&to_driver, &counted, effects);
        let engine = builder.start(handler).map_err(io::Error::other)?;
        let height =
            engine.stats().shards.iter().map(|shard| shard.occupancy.height).min().unwrap_or_default();
        let _ = sender.send(Frame::Ready { height, init: engine.init() });
        Ok(Forwarder { engine, sender, connections: HashMap::new(), forwards, pending: Vec::new() })
    }

    /// Executes the driver's frames; true if the driver went away without an end frame.
    fn listen(&mut self, input: &mut BufReader<impl io::Read>) -> io::Result<bool> {
        loop {
            if input.buffer().is_empty() {
                self.feed()?;
            }
            let Some(frame) = Frame::read(input)? else { return Ok(true) };
            if let Frame::Message { peer, bytes } = frame {
                match self.pending.iter_mut().find(|(from, _)| *from == peer) {
                    Some((_, messages)) => messages.push(bytes),
                    None => self.pending.push((peer, vec![bytes])),
                }
                continue;
            }
            self.feed()?;
            match frame {
                Frame::Connect { peer, init } => {
                    self.engine.chain_in_step(); // the driver gives the missed blocks before the first connection
                    let connection = self.engine.connected(peer, &init).map_err(io::Error::other)?;
                    self.connections.insert(peer, connection);
                }
                Frame::Block { height, bytes } => {
                    let block: Block = deserialize(&bytes).map_err(io::Error::other)?;
                    self.engine.chain_event(&ChainEvent::Connected { height, block: block.into() });
                }
                Frame::Acknowledge { shard, number } => self.engine.acknowledge(EventId { shard, number }),
                Frame::Ask => {
                    let account = serde_json::to_vec(&self.account())?;
                    let _ = self.sender.send(Frame::Account(account));
                }
                Frame::Stop => return Ok(false),
                other => return Err(io::Error::other(format!("the driver said {other:?}"))),
            }
        }
    }

    /// Gives the engine the messages read, each peer's together.
    fn feed(&mut self) -> io::Result<()> {
        for (peer, messages) in std::mem::take(&mut self.pending) {
            let Some(connection) = self.connections.get(&peer) else { continue };
            let mut rest = &messages[..];
            while !rest.is_empty() {
                match self.engine.receive_all(*connection, rest.iter().map(Vec::as_slice)) {
                    Ok(()) => break,
                    Err(ReceiveError::WouldBlock { accepted }) => {
                        rest = &rest[accepted..];
                        std::thread::sleep(RETRY);
                    }
                    // The engine has said why; the driver counts it.
                    Err(ReceiveError::NotConnected(_)) => break,
                    Err(error) => return Err(io::Error::other(error)),
                }
            }
        }
        Ok(())
    }

    fn account(&self) -> Account {
        let stats = self.engine.stats();
        let mut account = Account {
            forwards: self.forwards.load(Ordering::Relaxed),
            syncs: stats.store.syncs,
            bytes_written: stats.store.record_bytes + stats.store.checkpoint_bytes,
            cpu_us: cpu_us(),
            ..Account::default()
        };
        self.engine.for_each_shard(|shard| {
            let occupancy = shard.occupancy();
            account.circuits += occupancy.circuits;
            account.offered += occupancy.offered;
            account.channels.extend(shard.channels().filter_map(|channel| {
                let (local, remote) = channel.balances()?;
                Some(ChannelAccount {
                    id: channel.id().0,
                    local_msat: local.0,
                    remote_msat: remote.0,
                    htlcs: channel.htlcs().count(),
                    settling: channel.is_settling(),
                })
            }));
        });
        account
    }
}

/// Processor time of this process's threads, as far as the system reports it.
fn cpu_us() -> u64 {
    let Ok(tasks) = std::fs::read_dir("/proc/self/task") else { return 0 };
    let times = tasks.flatten().filter_map(|task| {
        let text = std::fs::read_to_string(task.path().join("schedstat")).ok()?;
        crate::metrics::parse_schedstat(&text)
    });
    times.map(|time| u64::try_from(time.as_micros()).unwrap_or(u64::MAX)).sum()
}
