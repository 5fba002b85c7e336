//! Starts a sandbox and waits for it.

use std::fs::File;
use std::io::{Seek, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use rustix::fs::MemfdFlags;
use rustix::pipe::{PipeFlags, pipe_with};

use super::fault::{Fault, Tried};
use super::pump::{Ended, Pump};
use super::sys;
use super::wire::{INIT, Launch, Message, parse_first};
use super::{Mount, Spec};

/// A wish to stop, shared by everything that a run has under way.
#[derive(Clone, Debug, Default)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// Asks everything to stop. May be called from a signal handler.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    /// Whether a stop was asked for.
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

/// Where a sandboxed command's input comes from.
pub enum Input<'a> {
    /// Nothing: `/dev/null`.
    Null,
    /// These bytes.
    Bytes(&'a [u8]),
    /// This process's own standard input (a shell for the user). The command stays in the terminal's session.
    Inherit,
}

/// Where a sandboxed command's output goes.
pub enum Output<'a> {
    /// Standard output and error, in the order written, go to one writer.
    Merged(&'a mut (dyn Write + Send)),
    /// Standard output goes to the first writer, standard error to the second.
    Split(&'a mut (dyn Write + Send), &'a mut (dyn Write + Send)),
    /// This process's own standard output and error.
    Inherit,
}

/// How a sandboxed command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It exited with this status.
    Code(i32),
    /// It was ended by this signal.
    Signal(i32),
}

impl Exit {
    /// Whether it exited with status 0.
    pub fn success(self) -> bool {
        self == Self::Code(0)
    }
}

/// Why a sandbox could not be made or waited for. A command that ran and failed is an [`Exit`], not an error.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The sandbox could not be set up, or the command not be started in it; the text says what was tried, on what,
    /// and why it failed.
    #[error("{0}")]
    Setup(String),
    /// The run was cancelled while the command ran; everything in the sandbox has been killed.
    #[error("cancelled")]
    Cancelled,
    /// The command's output could not be passed on; everything in the sandbox has been killed.
    #[error("could not write the command's output: {0}")]
    Output(#[source] std::io::Error),
}

static EXECUTABLE: OnceLock<PathBuf> = OnceLock::new();

/// Names the `mkosi` executable that sandboxes are started with, for a program that is not `mkosi` itself, like a
/// test. The first call counts.
pub fn set_executable(path: PathBuf) {
    let _ = EXECUTABLE.set(path);
}

/// The executable that sandboxes are started with: this process's own unless [`set_executable`] named another.
pub(super) fn executable() -> &'static Path {
    EXECUTABLE.get().map_or(Path::new("/proc/self/exe"), PathBuf::as_path)
}

impl Spec {
    /// Runs the command to its end. Everything that it left behind is dead when this returns.
    ///
    /// # Errors
    /// When the sandbox can't be made, the run was cancelled, or a writer of `output` failed.
    pub fn run(&self, input: Input<'_>, output: Output<'_>, cancel: &Cancel) -> Result<Exit, Error> {
        if cancel.is_cancelled() {
            return Err(Error::Cancelled);
        }
        let new_session = !matches!(input, Input::Inherit);
        let launch = Launch { spec: self.clone(), parent: std::process::id(), new_session };
        let (mut running, mut pump) = start(&launch, input, output).map_err(|fault| Error::Setup(fault.to_string()))?;
        let ended = pump.run(|request| running.send(request), cancel);
        let waited = running.wait();
        match ended {
            Ended::Cancelled => Err(Error::Cancelled),
            Ended::Output(error) => Err(Error::Output(error)),
            Ended::Normally(status) => match (parse_first(&status), waited) {
                (Some(Message::Exit(code)), _) => Ok(Exit::Code(code)),
                (Some(Message::Signal(signal)), _) => Ok(Exit::Signal(signal)),
                (Some(Message::Fault(text) | Message::Command(_, text)), _) => Err(Error::Setup(text)),
                (None, Ok(how)) => Err(Error::Setup(format!(
                    "the sandbox's own process ended without a report ({how}): is {} the mkosi executable?",
                    executable().display()
                ))),
                (None, Err(error)) => Err(Error::Setup(format!("could not wait for the sandbox: {error}"))),
            },
        }
    }
}

/// What the parent asks of a running sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Request {
    /// The command is to end by itself: SIGTERM.
    Terminate,
    /// Everything is to be killed now.
    Kill,
    /// Not even the killing worked.
    Abandon,
}

/// The outer process of a sandbox. It is killed with all that it holds when this is dropped.
struct Running {
    child: Child,
    waited: bool,
}

impl Running {
    fn send(&self, request: Request) {
        let Ok(pid) = i32::try_from(self.child.id()) else { return };
        sys::kill(
            pid,
            match request {
                Request::Terminate => libc::SIGTERM,
                // See `reap::Quit`: the outer process kills process 1 and waits until all others are gone.
                Request::Kill => libc::SIGQUIT,
                Request::Abandon => libc::SIGKILL,
            },
        );
    }

    fn wait(&mut self) -> std::io::Result<std::process::ExitStatus> {
        self.waited = true;
        self.child.wait()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.waited {
            self.send(Request::Kill);
            let _ = self.child.wait();
        }
    }
}

fn start<'i, 'o>(
    launch: &Launch,
    input: Input<'i>,
    output: Output<'o>,
) -> super::fault::Result<(Running, Pump<'i, 'o>)> {
    let pipe = || pipe_with(PipeFlags::CLOEXEC).tried(|| "make a pipe".to_owned());
    let specification = specification(launch)?;
    let (status, status_end) = pipe()?;
    let mut pump = Pump::new(status);
    let mut command = Command::new(executable());
    command
        .arg0("mkosi")
        .args([INIT, &specification.as_raw_fd().to_string(), &status_end.as_raw_fd().to_string()])
        .env_clear();
    match input {
        Input::Null => command.stdin(Stdio::null()),
        Input::Inherit => command.stdin(Stdio::inherit()),
        Input::Bytes(bytes) => {
            let (reader, writer) = pipe()?;
            pump.input(writer, bytes)?;
            command.stdin(Stdio::from(reader))
        }
    };
    match output {
        Output::Inherit => command.stdout(Stdio::inherit()).stderr(Stdio::inherit()),
        Output::Merged(sink) => {
            let (reader, writer) = pipe()?;
            let copy = writer.try_clone().tried(|| "duplicate a pipe".to_owned())?;
            pump.output(reader, sink)?;
            command.stdout(Stdio::from(writer)).stderr(Stdio::from(copy))
        }
        Output::Split(out, err) => {
            let ((out_reader, out_writer), (err_reader, err_writer)) = (pipe()?, pipe()?);
            pump.output(out_reader, out)?;
            pump.output(err_reader, err)?;
            command.stdout(Stdio::from(out_writer)).stderr(Stdio::from(err_writer))
        }
    };
    let served = launch.spec.mounts.iter().filter_map(|mount| match mount {
        Mount::Served { mount, .. } => Some(*mount),
        _ => None,
    });
    sys::keep_fds(&mut command, served.chain([specification.as_raw_fd(), status_end.as_raw_fd()]).collect());
    let child = command.spawn().tried(|| format!("start the sandbox's own process {}", executable().display()))?;
    // The command holds this side's copies of the pipes' other ends, which end here.
    drop((command, status_end));
    Ok((Running { child, waited: false }, pump))
}

/// The launch in a file in memory, from its start.
fn specification(launch: &Launch) -> super::fault::Result<OwnedFd> {
    let bytes = postcard::to_stdvec(launch)
        .map_err(|error| Fault::Wrong(format!("could not write the sandbox's specification: {error}")))?;
    let what = || "keep the sandbox's specification in memory".to_owned();
    let mut file = File::from(rustix::fs::memfd_create("mkosi-sandbox", MemfdFlags::CLOEXEC).tried(what)?);
    file.write_all(&bytes).and_then(|()| file.rewind()).tried(what)?;
    Ok(OwnedFd::from(file))
}
