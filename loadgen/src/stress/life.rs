//! One life of the forwarder: its process, from its start to its end or its death.
//!
//! Owns the process and the pipes to it. The process is ended by its own id when the life is dropped, whatever the
//! reason; and it ends by itself when its input does, should this process be ended without a chance to do anything.

use std::io::{self, BufReader, BufWriter, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

use crossbeam::channel::{Receiver, RecvTimeoutError, unbounded};
use fulmen_wire::units::BlockHeight;

use super::forwarder::{Account, Start};
use super::frame::Frame;

/// A forwarder that runs, or has died.
pub(super) struct Life {
    process: Child,
    input: BufWriter<ChildStdin>,
    /// Its frames, until it has ended.
    pub(super) frames: Receiver<Frame>,
    /// The events of its earlier lives that it delivered again before it was ready.
    pub(super) delivered_again: Vec<Frame>,
    /// The height it woke up at.
    pub(super) height: BlockHeight,
    /// Its `init`.
    pub(super) init: Vec<u8>,
    /// Its last account of itself.
    pub(super) account: Account,
}

/// How long a forwarder may take to be ready.
const READY: Duration = Duration::from_secs(60);
/// How long it may take to end when asked to.
const ENDING: Duration = Duration::from_secs(30);
/// How often an end is looked for.
const LOOK: Duration = Duration::from_millis(5);

impl Life {
    /// Starts a forwarder and waits until it is ready.
    ///
    /// # Errors
    /// When it does not get there.
    pub(super) fn start(start: &Start) -> io::Result<Life> {
        let mut process = Command::new(std::env::current_exe()?)
            .arg("forwarder")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let (Some(input), Some(output)) = (process.stdin.take(), process.stdout.take()) else {
            return Err(io::Error::other("the forwarder's process has no pipes"));
        };
        // The backlog here is bounded like the forwarder's output: by the slots of its channels.
        let (sender, frames) = unbounded();
        std::thread::spawn(move || {
            let mut output = BufReader::with_capacity(1 << 20, output);
            while let Ok(Some(frame)) = Frame::read(&mut output) {
                if sender.send(frame).is_err() {
                    return;
                }
            }
        });
        let mut life = Life {
            process,
            input: BufWriter::with_capacity(1 << 20, input),
            frames,
            delivered_again: Vec::new(),
            height: BlockHeight(0),
            init: Vec::new(),
            account: Account::default(),
        };
        life.send(&Frame::Start(serde_json::to_vec(start)?))?;
        life.flush()?;
        loop {
            match life.frames.recv_timeout(READY) {
                Ok(Frame::Ready { height, init }) => {
                    (life.height, life.init) = (height, init);
                    return Ok(life);
                }
                Ok(event @ Frame::Event { .. }) => life.delivered_again.push(event),
                Ok(frame) => return Err(io::Error::other(format!("its first word was {frame:?}"))),
                Err(RecvTimeoutError::Timeout) => return Err(io::Error::other("it was not ready in time")),
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(io::Error::other("it ended before it was ready; what it said stands above"));
                }
            }
        }
    }

    /// Says something; it leaves with [`Life::flush`].
    ///
    /// # Errors
    /// When the forwarder is gone.
    pub(super) fn send(&mut self, frame: &Frame) -> io::Result<()> {
        frame.write(&mut self.input)
    }

    /// Writes the buffered frames out.
    ///
    /// # Errors
    /// When the forwarder is gone.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.input.flush()
    }

    /// Whether its last account has nothing under way.
    pub(super) fn is_at_rest(&self) -> bool {
        let Account { channels, circuits, offered, .. } = &self.account;
        *circuits == 0
            && *offered == 0
            && channels.iter().all(|channel| channel.htlcs == 0 && !channel.settling)
    }

    /// Kills it (SIGKILL) and returns the frames it had written that were not read yet.
    pub(super) fn kill(mut self) -> Vec<Frame> {
        self.end_now();
        self.frames.iter().collect()
    }

    /// Asks it to end, and waits.
    ///
    /// # Errors
    /// When it does not, or says that something went wrong.
    pub(super) fn stop(mut self) -> io::Result<()> {
        self.send(&Frame::Stop)?;
        self.flush()?;
        let looks = ENDING.as_millis() / LOOK.as_millis();
        for _ in 0..looks {
            if let Some(status) = self.process.try_wait()? {
                return if status.success() { Ok(()) } else { Err(io::Error::other(status.to_string())) };
            }
            std::thread::sleep(LOOK);
        }
        Err(io::Error::other("it did not end in time"))
    }

    fn end_now(&mut self) {
        // It may have ended by itself; a process that was waited for is not signalled.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        self.end_now();
    }
}
