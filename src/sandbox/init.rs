//! The hidden entry `sandbox-init` and what it shares with `mkosi-chroot`: from a process with a single thread to a
//! command in namespaces of its own. Knows nothing of who asked and why.
//!
//! Three processes: the outer one stays in the caller's namespaces and waits; its child is process 1 of the new PID
//! namespace, makes the root file system and reaps; the command is that one's child. When process 1 ends, the kernel
//! kills all that is left in the namespace before its parent gets to see the end.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags};

use super::broker;
use super::command::Command;
use super::fault::{Result, Tried};
use super::harden::Limits;
use super::reap::{self, Quit};
use super::root::{self, Base};
use super::sys::{self, Fork};
use super::tree::Links;
use super::warden::{self, Bounds};
use super::wire::{Launch, Message, Status};
use super::{Mount, Rights};

/// All that process 1 has to set up.
pub(super) struct Inside<'a> {
    pub(super) base: Base<'a>,
    pub(super) mounts: &'a [Mount],
    pub(super) links: Links,
    /// `CLONE_NEW*` besides PID and mounts.
    pub(super) namespaces: libc::c_int,
    pub(super) hostname: Option<&'a str>,
    /// Whether commands may have the image entered for them.
    pub(super) broker: bool,
    pub(super) command: Command<'a>,
}

/// The hidden entry: reads the launch from one inherited descriptor, reports on another.
pub(super) fn main(launch_fd: &str, status_fd: &str) -> ! {
    let take = |number: &str| number.parse().ok().and_then(|number| sys::take_fd(number).ok());
    let (Some(launch), Some(status)) = (take(launch_fd), take(status_fd)) else {
        crate::tell!("{}: this is for mkosi's own use", super::wire::INIT);
        std::process::exit(2);
    };
    let status = Status(File::from(status));
    match outer(launch, &status) {
        Ok(()) => std::process::exit(0),
        Err(fault) => {
            status.send(&Message::Fault(fault.to_string()));
            std::process::exit(1)
        }
    }
}

fn outer(launch: OwnedFd, status: &Status) -> Result<()> {
    let mut bytes = Vec::new();
    File::from(launch).read_to_end(&mut bytes).tried(|| "read the sandbox's specification".to_owned())?;
    let launch: Launch = postcard::from_bytes(&bytes)
        .map_err(|error| super::fault::Fault::Wrong(format!("the sandbox's specification can't be read: {error}")))?;
    die_with_parent()?;
    if u32::try_from(nix::unistd::getppid().as_raw()) != Ok(launch.parent) {
        std::process::exit(1);
    }
    if launch.new_session {
        rustix::process::setsid().tried(|| "start a session of its own".to_owned())?;
    }
    let spec = &launch.spec;
    let mut namespaces = libc::CLONE_NEWIPC | libc::CLONE_NEWUTS;
    if !spec.network {
        namespaces |= libc::CLONE_NEWNET;
    }
    let inside = Inside {
        base: Base::Empty { writable: spec.writable_root },
        mounts: &spec.mounts,
        links: Links::Follow,
        namespaces,
        hostname: Some(&spec.hostname),
        broker: true,
        command: Command {
            argv: &spec.argv,
            env: &spec.env,
            cwd: &spec.cwd,
            umask: spec.umask,
            new_session: launch.new_session,
            harden: Some(Limits {
                host_network: spec.network,
                single_id: super::userns::has_single_id(),
                rights: spec.rights,
            }),
        },
    };
    let warden = warden::start(Bounds { processes: spec.processes, memory: spec.memory }, status);
    let ended = run(&inside, status, Quit::Kill);
    if let Some(warden) = warden {
        // It holds the status pipe.
        sys::kill(warden, libc::SIGKILL);
        let _ = nix::sys::wait::waitpid(nix::unistd::Pid::from_raw(warden), None);
    }
    match ended? {
        Message::Exit(_) => {}
        // Process 1 has no other way to tell that it was killed.
        killed => status.send(&killed),
    }
    Ok(())
}

/// Runs a command inside new namespaces. Gives how process 1 ended; how the command did is on the status pipe by
/// then.
pub(super) fn run(inside: &Inside<'_>, status: &Status, quit: Quit) -> Result<Message> {
    sys::block_signals();
    rustix::process::umask(Mode::empty());
    sys::unshare(libc::CLONE_NEWPID).tried_or(|| "make a PID namespace".to_owned(), namespace_hint)?;
    let (alive, keep_alive) =
        rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).tried(|| "make a pipe".to_owned())?;
    match sys::fork().tried(|| "start the first process of the sandbox".to_owned())? {
        Fork::Parent(child) => {
            drop(alive);
            // The command alone holds its input and output, so that the other ends see when it lets go of them.
            let released = release_streams();
            let end = reap::wait(child, quit);
            drop(keep_alive);
            released.map(|()| end)
        }
        Fork::Child => {
            drop(keep_alive);
            if let Err(fault) = first_process(inside, status, &alive) {
                status.send(&Message::Fault(fault.to_string()));
                std::process::exit(1);
            }
            std::process::exit(0)
        }
    }
}

/// Process 1 of the new PID namespace.
fn first_process(inside: &Inside<'_>, status: &Status, alive: &OwnedFd) -> Result<()> {
    die_with_parent()?;
    // The parent's process id can't be seen from here; the pipe tells whether it was gone before the line above.
    let mut poll = [rustix::event::PollFd::new(alive, rustix::event::PollFlags::IN)];
    let now = rustix::time::Timespec { tv_sec: 0, tv_nsec: 0 };
    if rustix::event::poll(&mut poll, Some(&now)).is_ok_and(|ready| ready > 0) {
        std::process::exit(1);
    }
    if inside.broker {
        // Where memory runs out, the kernel is to end something in here before anything else of the machine. It may be
        // that this is not allowed; then its own choice has to do.
        let _ = std::fs::write("/proc/self/oom_score_adj", "500");
    }
    sys::unshare(libc::CLONE_NEWNS | inside.namespaces)
        .tried_or(|| "make mount, IPC, UTS and network namespaces".to_owned(), namespace_hint)?;
    if let Some(hostname) = inside.hostname {
        rustix::system::sethostname(hostname.as_bytes()).tried(|| format!("set the host name to {hostname:?}"))?;
    }
    if inside.namespaces & libc::CLONE_NEWNET != 0 {
        sys::loopback_up().tried(|| "bring up the loopback interface".to_owned())?;
    }
    root::enter(&inside.base, inside.mounts, inside.links)?;
    if let (true, Some(limits)) = (inside.broker, inside.command.harden)
        && let Some(listener) = broker::listen()
        && let Fork::Child = sys::fork().tried(|| "start the process that enters images".to_owned())?
    {
        die_with_parent()?;
        release_streams()?;
        // What is in the image has no part in such rights.
        broker::serve(&listener, Limits { rights: Rights::Usual, ..limits });
    }
    match sys::fork().tried(|| "start the command's process".to_owned())? {
        Fork::Child => {
            status.send(&inside.command.exec());
            std::process::exit(127)
        }
        Fork::Parent(child) => {
            release_streams()?;
            status.send(&reap::wait(child, Quit::Forward));
            Ok(())
        }
    }
}

/// Has the kernel kill this process when its parent dies.
pub(super) fn die_with_parent() -> Result<()> {
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))
        .tried(|| "tie the sandbox's life to its parent's".to_owned())
}

/// Points the three standard streams to the null device; to the root directory where there is none.
pub(super) fn release_streams() -> Result<()> {
    let open = |path: &Path, flags| rustix::fs::openat(CWD, path, flags | OFlags::CLOEXEC, Mode::empty());
    let nothing = open(Path::new("/dev/null"), OFlags::RDWR)
        .or_else(|_| open(Path::new("/"), OFlags::PATH))
        .tried(|| "open /dev/null".to_owned())?;
    rustix::stdio::dup2_stdin(nothing.as_fd())
        .and_then(|()| rustix::stdio::dup2_stdout(nothing.as_fd()))
        .and_then(|()| rustix::stdio::dup2_stderr(nothing.as_fd()))
        .tried(|| "let go of the command's input and output".to_owned())
}

fn namespace_hint(number: i32) -> &'static str {
    match number {
        libc::EPERM => "namespaces need root or a user namespace; in a container it must be privileged",
        libc::ENOSPC => "a limit of /proc/sys/user/max_*_namespaces is reached",
        libc::EINVAL => "the kernel was built without namespaces",
        _ => "",
    }
}
