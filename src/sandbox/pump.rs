//! Moves a sandbox's input and output while it runs, in bounded memory, and keeps an eye on the wish to stop. Knows
//! nothing of processes: it asks for what is to be sent to them.

use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::Cancel;
use super::fault::{Result, Tried};
use super::run::Request;

/// How long a command gets to end by itself when the run is cancelled.
const GRACE: Duration = Duration::from_secs(2);
/// How long the kernel gets to end everything after that.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often the wish to stop is looked at.
const TICK_NANOSECONDS: i64 = 50_000_000;
/// More than this on the status pipe is nothing that this program wrote.
const MAX_STATUS: usize = 1 << 20;

/// How the pumping ended.
pub(super) enum Ended {
    /// The sandbox is gone; this came through the status pipe.
    Normally(Vec<u8>),
    /// The sandbox is gone because a stop was asked for.
    Cancelled,
    /// The sandbox is gone because its output could not be passed on.
    Output(io::Error),
}

/// The open ends of a sandbox's pipes.
pub(super) struct Pump<'i, 'o> {
    status: OwnedFd,
    input: Option<(OwnedFd, &'i [u8])>,
    outputs: Vec<(OwnedFd, &'o mut (dyn Write + Send))>,
}

fn non_blocking(fd: &OwnedFd) -> Result<()> {
    rustix::io::ioctl_fionbio(fd, true).tried(|| "set up a pipe".to_owned())
}

impl<'i, 'o> Pump<'i, 'o> {
    pub(super) fn new(status: OwnedFd) -> Self {
        Self { status, input: None, outputs: Vec::new() }
    }

    /// Writes these bytes to the pipe, and closes it at their end or when nobody reads any more.
    pub(super) fn input(&mut self, writer: OwnedFd, bytes: &'i [u8]) -> Result<()> {
        non_blocking(&writer)?;
        self.input = Some((writer, bytes));
        Ok(())
    }

    /// Copies what comes through the pipe to a writer.
    pub(super) fn output(&mut self, reader: OwnedFd, sink: &'o mut (dyn Write + Send)) -> Result<()> {
        non_blocking(&reader)?;
        self.outputs.push((reader, sink));
        Ok(())
    }

    /// Pumps until the sandbox's own processes have let go of the status pipe.
    pub(super) fn run(&mut self, send: impl Fn(Request), cancel: &Cancel) -> Ended {
        let mut status = Vec::new();
        let mut buffer = vec![0_u8; 128 << 10];
        let mut stopping = Stopping::default();
        let mut failure = None;
        loop {
            if cancel.is_cancelled() || failure.is_some() {
                stopping.step(&send, failure.is_some());
            }
            let ready = self.wait();
            if ready.input {
                self.feed();
            }
            // The status end is looked at before the outputs are read: all that was written is in the pipes by then.
            let over = ready.status && self.read_status(&mut status, &mut buffer);
            if let Err(error) = self.drain(&mut buffer, over) {
                failure.get_or_insert(error);
            }
            if over {
                return match failure {
                    Some(error) => Ended::Output(error),
                    None if stopping.began() => Ended::Cancelled,
                    None => Ended::Normally(status),
                };
            }
        }
    }

    fn wait(&self) -> Ready {
        let mut fds = vec![PollFd::new(&self.status, PollFlags::IN)];
        fds.extend(self.input.iter().map(|(fd, _)| PollFd::new(fd, PollFlags::OUT)));
        fds.extend(self.outputs.iter().map(|(fd, _)| PollFd::new(fd, PollFlags::IN)));
        let tick = Timespec { tv_sec: 0, tv_nsec: TICK_NANOSECONDS };
        // An interrupted wait is one that ended early; the next round looks again.
        let _ = poll(&mut fds, Some(&tick));
        let is = |at: usize| fds.get(at).is_some_and(|fd| !fd.revents().is_empty());
        Ready { status: is(0), input: self.input.is_some() && is(1) }
    }

    fn feed(&mut self) {
        let Some((fd, rest)) = &mut self.input else { return };
        let done = match rustix::io::write(&*fd, rest) {
            Ok(length) => {
                *rest = rest.get(length..).unwrap_or_default();
                rest.is_empty()
            }
            Err(Errno::AGAIN | Errno::INTR) => false,
            // EPIPE: the command doesn't want the rest.
            Err(_) => true,
        };
        if done {
            self.input = None;
        }
    }

    /// Reads from the status pipe; tells whether its other end is closed.
    fn read_status(&self, status: &mut Vec<u8>, buffer: &mut [u8]) -> bool {
        match rustix::io::read(&self.status, &mut *buffer) {
            Ok(0) => true,
            Ok(length) => {
                if status.len() < MAX_STATUS {
                    status.extend_from_slice(buffer.get(..length).unwrap_or_default());
                }
                false
            }
            Err(Errno::INTR | Errno::AGAIN) => false,
            Err(_) => true,
        }
    }

    /// Copies what the outputs hold: one buffer of each, or with `all` everything that is there. A pipe whose other
    /// end is closed, or whose writer failed, is dropped.
    fn drain(&mut self, buffer: &mut [u8], all: bool) -> io::Result<()> {
        let mut result = Ok(());
        self.outputs.retain_mut(|(fd, sink)| {
            loop {
                match rustix::io::read(&*fd, &mut *buffer) {
                    Ok(0) => return false,
                    Ok(length) => {
                        if let Err(error) = sink.write_all(buffer.get(..length).unwrap_or_default()) {
                            result = Err(error);
                            return false;
                        }
                        if !all {
                            return true;
                        }
                    }
                    Err(Errno::INTR) => {}
                    Err(Errno::AGAIN) => return true,
                    Err(_) => return false,
                }
            }
        });
        result
    }
}

struct Ready {
    status: bool,
    input: bool,
}

/// The stages of ending a sandbox, by the clock.
#[derive(Default)]
struct Stopping {
    asked: Option<Instant>,
    killed: Option<Instant>,
    abandoned: bool,
}

impl Stopping {
    fn began(&self) -> bool {
        self.asked.is_some()
    }

    fn step(&mut self, send: &impl Fn(Request), at_once: bool) {
        let asked = *self.asked.get_or_insert_with(|| {
            send(Request::Terminate);
            Instant::now()
        });
        if self.killed.is_none() && (at_once || asked.elapsed() >= GRACE) {
            send(Request::Kill);
            self.killed = Some(Instant::now());
        }
        if !self.abandoned && self.killed.is_some_and(|at| at.elapsed() >= PATIENCE) {
            send(Request::Abandon);
            self.abandoned = true;
        }
    }
}
