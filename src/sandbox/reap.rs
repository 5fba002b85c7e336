//! Waits for a child, hands signals on to it and buries orphans. For processes with a single thread that have all
//! signals blocked. Knows nothing of sandboxes.

use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::sys;
use super::wire::Message;

/// What a signal that a process sent does to the child.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Quit {
    /// SIGQUIT goes on to the child like the others.
    Forward,
    /// SIGQUIT kills the child: it is the parent's way to end a sandbox for good.
    Kill,
}

/// Waits until the child ends and gives how it did. Other children are reaped meanwhile.
///
/// Signals that the terminal sent reach the child by themselves, since it is in the same process group.
pub(super) fn wait(child: i32, quit: Quit) -> Message {
    loop {
        match sys::next_signal() {
            (libc::SIGCHLD, _) => {
                if let Some(end) = reap(child) {
                    return end;
                }
            }
            (libc::SIGQUIT, true) if quit == Quit::Kill => sys::kill(child, libc::SIGKILL),
            // Ctrl-Z stops the child; the shell must see this process stop with it.
            (libc::SIGTSTP, false) => sys::stop(),
            (
                signal @ (libc::SIGTERM
                | libc::SIGINT
                | libc::SIGHUP
                | libc::SIGQUIT
                | libc::SIGUSR1
                | libc::SIGUSR2
                | libc::SIGWINCH
                | libc::SIGCONT),
                true,
            ) => sys::kill(child, signal),
            _ => {}
        }
    }
}

/// Reaps every child that has ended, and tells how the one that counts did.
fn reap(child: i32) -> Option<Message> {
    let mut end = None;
    loop {
        match waitpid(Pid::from_raw(-1), Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, code)) if pid.as_raw() == child => end = Some(Message::Exit(code)),
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid.as_raw() == child => {
                end = Some(Message::Signal(signal as i32));
            }
            Ok(WaitStatus::StillAlive) => return end,
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            // A real-time signal's number has no name in the crate and is reported as an error, with the child gone.
            Err(nix::errno::Errno::EINVAL) => end = end.or(Some(Message::Signal(libc::SIGKILL))),
            Err(_) => return end.or(Some(Message::Exit(1))),
        }
    }
}
