//! Enters the image on behalf of the sandbox's commands.
//!
//! A command in a sandbox may not mount anything: whoever can mount as the real root reaches the machine's devices and
//! the kernel's settings. So `mkosi-chroot` asks a process that kept its rights, a child of the sandbox's process 1,
//! through a socket: it hands over its streams, its environment and the command, passes signals on, and ends as the
//! command ends. What the broker mounts is fixed (`chroot`), and the command that it starts has as few rights as the one
//! that asked. Knows nothing of stages.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};
use serde::{Deserialize, Serialize};

use super::chroot;
use super::fault::{Fault, Result, Tried};
use super::harden::Limits;
use super::sys::{self, Fork};
use super::wire::{Message, Status, parse_first};

/// Where the broker listens in a sandbox.
pub(super) const SOCKET: &str = "/run/mkosi/enter";
/// An environment and arguments larger than this can't be executed anyway.
const MAX_REQUEST: u32 = 16 << 20;

/// What a command is asked to be run as.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Request {
    pub(super) argv: Vec<String>,
    pub(super) env: BTreeMap<String, String>,
    pub(super) cwd: PathBuf,
    pub(super) umask: u32,
    pub(super) buildroot: PathBuf,
    /// Whether the sandbox's root stays the root, with the image prepared below it.
    pub(super) within: bool,
    /// The caller's process group: the terminal's signals go to the command too.
    pub(super) group: i32,
}

/// Makes the socket, if the sandbox has a place for it.
pub(super) fn listen() -> Option<UnixListener> {
    Path::new(SOCKET).parent().filter(|directory| directory.is_dir())?;
    UnixListener::bind(SOCKET).ok()
}

/// Serves until the sandbox ends. Runs in a child of process 1.
pub(super) fn serve(listener: &UnixListener, limits: Limits) -> ! {
    sys::ignore_children();
    loop {
        let Ok((connection, _)) = listener.accept() else { std::process::exit(1) };
        if let Ok(Fork::Child) = sys::fork() {
            sys::block_signals();
            let code = match attend(&connection, limits) {
                Ok(()) => 0,
                Err(fault) => {
                    send(&connection, &Message::Fault(fault.to_string()));
                    1
                }
            };
            std::process::exit(code)
        }
    }
}

fn send(connection: &UnixStream, message: &Message) {
    if let Ok(copy) = connection.try_clone() {
        Status(File::from(OwnedFd::from(copy))).send(message);
    }
}

/// Runs one request in a child, and hands on the signals that come through the connection. When the other end is gone
/// the child is killed, and with it all that is in the image.
fn attend(connection: &UnixStream, limits: Limits) -> Result<()> {
    let (request, streams) = receive(connection)?;
    match sys::fork().tried(|| "start a process for the image".to_owned())? {
        Fork::Child => {
            let message = run(&request, &streams, limits).unwrap_or_else(|fault| Message::Fault(fault.to_string()));
            send(connection, &message);
            std::process::exit(0)
        }
        Fork::Parent(child) => {
            drop(streams);
            let what = || "watch the process in the image".to_owned();
            let pid = rustix::process::Pid::from_raw(child)
                .ok_or_else(|| Fault::Wrong("a process has no number".to_owned()))?;
            let ended = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).tried(what)?;
            let mut open = true;
            loop {
                let mut fds = vec![PollFd::new(&ended, PollFlags::IN)];
                if open {
                    fds.push(PollFd::new(connection, PollFlags::IN));
                }
                if poll(&mut fds, None).is_err() {
                    continue;
                }
                let ready = |at: usize| fds.get(at).is_some_and(|fd| !fd.revents().is_empty());
                if ready(0) {
                    return Ok(());
                }
                if ready(1) {
                    let mut signal = [0];
                    match (&mut &*connection).read(&mut signal) {
                        Ok(1) => sys::kill(child, i32::from(signal[0])),
                        _ => {
                            open = false;
                            sys::kill(child, libc::SIGKILL);
                        }
                    }
                }
            }
        }
    }
}

fn run(request: &Request, streams: &[OwnedFd], limits: Limits) -> Result<Message> {
    let [input, output, error] = streams else {
        return Err(Fault::Wrong("the request came without its three streams".to_owned()));
    };
    let what = || "take over the caller's streams".to_owned();
    rustix::stdio::dup2_stdin(input).tried(what)?;
    rustix::stdio::dup2_stdout(output).tried(what)?;
    rustix::stdio::dup2_stderr(error).tried(what)?;
    // Without a terminal the caller is in a session of its own, and its group can't be joined nor has to be.
    let _ = nix::unistd::setpgid(nix::unistd::Pid::from_raw(0), nix::unistd::Pid::from_raw(request.group));
    chroot::visit(request, limits)
}

fn receive(connection: &UnixStream) -> Result<(Request, Vec<OwnedFd>)> {
    let what = || "read a request to enter the image".to_owned();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut length = [0_u8; 4];
    let received =
        recvmsg(connection, &mut [IoSliceMut::new(&mut length)], &mut control, RecvFlags::CMSG_CLOEXEC).tried(what)?;
    let mut streams = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(fds) = message {
            streams.extend(fds);
        }
    }
    let size = u32::from_le_bytes(length);
    if received.bytes != length.len() || size > MAX_REQUEST {
        return Err(Fault::Wrong("a request to enter the image is damaged".to_owned()));
    }
    let mut bytes = vec![0; size as usize];
    (&mut &*connection).read_exact(&mut bytes).tried(what)?;
    let request = serde_json::from_slice(&bytes)
        .map_err(|error| Fault::Wrong(format!("a request to enter the image can't be read: {error}")))?;
    Ok((request, streams))
}

/// The other side: asks the broker to run a command, passes signals on, and gives how it ended.
pub(super) fn ask(request: &Request) -> Result<Message> {
    let mut connection = UnixStream::connect(SOCKET).tried_or(
        || format!("reach {SOCKET}"),
        |number| match number {
            libc::ENOENT => "this works only in a sandbox of mkosi",
            _ => "",
        },
    )?;
    let what = || "ask for the image to be entered".to_owned();
    let bytes = serde_json::to_vec(request).map_err(|error| Fault::Wrong(error.to_string()))?;
    let length = u32::try_from(bytes.len()).ok().filter(|length| *length <= MAX_REQUEST);
    let length = length.ok_or_else(|| Fault::Wrong("arguments and environment are too long".to_owned()))?;
    let streams: [BorrowedFd<'_>; 3] = [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    control.push(SendAncillaryMessage::ScmRights(&streams));
    let signals = signals()?;
    sendmsg(&connection, &[IoSlice::new(&length.to_le_bytes())], &mut control, SendFlags::NOSIGNAL).tried(what)?;
    connection.write_all(&bytes).tried(what)?;
    // The command alone holds the streams now.
    super::init::release_streams()?;
    let mut answer = Vec::new();
    loop {
        let mut fds =
            [PollFd::new(&connection, PollFlags::IN), PollFd::from_borrowed_fd(signals.as_fd(), PollFlags::IN)];
        if poll(&mut fds, None).is_err() {
            continue;
        }
        let ready = |at: usize| fds.get(at).is_some_and(|fd| !fd.revents().is_empty());
        let (answered, signalled) = (ready(0), ready(1));
        if signalled && let Ok(Some(info)) = signals.read_signal() {
            hand_on(&mut connection, info.ssi_signo, info.ssi_code <= 0);
        }
        if answered {
            let mut buffer = [0; 4096];
            match connection.read(&mut buffer) {
                Ok(0) | Err(_) => break,
                Ok(read) => answer.extend_from_slice(buffer.get(..read).unwrap_or_default()),
            }
        }
    }
    parse_first(&answer).ok_or_else(|| Fault::Wrong("the process in the image was killed".to_owned()))
}

/// Signals that the terminal sent reach the command by themselves, since it is in the same process group.
fn hand_on(connection: &mut UnixStream, number: u32, by_a_process: bool) {
    match i32::try_from(number) {
        Ok(libc::SIGTSTP) if !by_a_process => sys::stop(),
        Ok(
            signal @ (libc::SIGTERM
            | libc::SIGINT
            | libc::SIGHUP
            | libc::SIGQUIT
            | libc::SIGUSR1
            | libc::SIGUSR2
            | libc::SIGWINCH
            | libc::SIGCONT),
        ) if by_a_process => {
            let _ = connection.write_all(&[u8::try_from(signal).unwrap_or(0)]);
        }
        _ => {}
    }
}

/// Turns signals into something that can be waited for next to the connection.
fn signals() -> Result<SignalFd> {
    sys::block_signals();
    let mut set = SigSet::all();
    for fault in [Signal::SIGSEGV, Signal::SIGBUS, Signal::SIGILL, Signal::SIGFPE, Signal::SIGABRT, Signal::SIGTRAP] {
        set.remove(fault);
    }
    SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
        .map_err(std::io::Error::from)
        .tried(|| "listen for signals".to_owned())
}
