//! Runs `mkosi` without root: starts it again inside a user namespace in which it is root, and the user's
//! subordinate ids are the others. Knows nothing of sandboxes.

use std::collections::VecDeque;
use std::ffi::{CString, OsString};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::mount::MountPropagationFlags;
use rustix::pipe::{PipeFlags, pipe_with};

use super::fault::{Fault, Tried};
use super::reap::{self, Quit};
use super::run::executable;
use super::sys;
use super::wire::Message;

/// The name of the hidden entry, as first argument.
pub(super) const INIT: &str = "userns-init";
/// The ids that an image can have: 0 to 65535, of which 0 is the user.
const SUBORDINATE: u64 = 65_535;

/// Why `mkosi` can't run without root here.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The tools that map subordinate ids are missing.
    #[error("{0} is not in $PATH or /usr/bin: install it (package uidmap or shadow-utils), or run as root")]
    NoTool(&'static str),
    /// The ids could not be mapped.
    #[error("{tool} could not map {user}'s subordinate ids: {text}")]
    Map {
        /// The tool.
        tool: &'static str,
        /// The user's name, or number.
        user: String,
        /// What it said.
        text: String,
    },
    /// Something else failed; the text says what was tried and why it failed.
    #[error("{0}")]
    Setup(String),
}

impl From<Fault> for Error {
    fn from(fault: Fault) -> Self {
        Self::Setup(fault.to_string())
    }
}

/// Whether this process is in the machine's own user namespace, where root is the real root.
pub(super) fn is_initial() -> bool {
    std::fs::read_to_string("/proc/self/uid_map").is_ok_and(|map| map.split_whitespace().eq(["0", "0", "4294967295"]))
}

/// Whether files can be given to all of the users and groups `first`, `first + 1` and so on, `count` in all.
pub fn has_ids(first: u32, count: u32) -> bool {
    let (first, end) = (u64::from(first), u64::from(first) + u64::from(count));
    let mapped = |map: &str| {
        let text = std::fs::read_to_string(map).unwrap_or_default();
        text.lines().any(|line| {
            let mut numbers = line.split_whitespace().filter_map(|number| number.parse::<u64>().ok());
            match (numbers.next(), numbers.next(), numbers.next()) {
                (Some(inside), Some(_), Some(length)) => inside <= first && end <= inside.saturating_add(length),
                _ => false,
            }
        })
    };
    ["/proc/self/uid_map", "/proc/self/gid_map"].into_iter().all(mapped)
}

/// Whether there is but one user here, root: the user namespace of a user without subordinate ids. Owners can't be kept
/// then.
pub fn has_single_id() -> bool {
    std::fs::read_to_string("/proc/self/uid_map").is_ok_and(|map| {
        let mut fields = map.split_whitespace();
        fields.next() == Some("0") && fields.nth(1) == Some("1") && fields.next().is_none()
    })
}

/// A run of ids on the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Range {
    start: u64,
    count: u64,
}

/// Makes this process root: returns at once when it is; otherwise starts the same command line again inside a user
/// namespace and ends as that one ends. To be called before any thread is started.
///
/// # Errors
/// When the machine isn't set up for it; the message says what to do.
pub fn enter_user_namespace() -> Result<(), Error> {
    if rustix::process::geteuid().is_root() {
        return Ok(());
    }
    match again()? {
        Message::Signal(signal) => sys::die_by(signal),
        Message::Exit(code) => std::process::exit(code),
        Message::Fault(text) | Message::Command(_, text) => Err(Error::Setup(text)),
    }
}

fn again() -> Result<Message, Error> {
    let uid = rustix::process::getuid().as_raw();
    let gid = rustix::process::getgid().as_raw();
    let name = nix::unistd::User::from_uid(uid.into()).ok().flatten().map_or(uid.to_string(), |user| user.name);
    let ranges = ["/etc/subuid", "/etc/subgid"]
        .map(|file| subordinate(&std::fs::read_to_string(file).unwrap_or_default(), &name, uid));
    let single = ranges.iter().any(Vec::is_empty);
    let pipe = || pipe_with(PipeFlags::CLOEXEC).tried(|| "make a pipe".to_owned());
    let ((ready, ready_end), (go_end, go)) = (pipe()?, pipe()?);
    let args: Vec<OsString> = std::env::args_os().collect();
    let mut command = Command::new(executable());
    command
        .arg0(args.first().cloned().unwrap_or_else(|| "mkosi".into()))
        .args([INIT, &ready_end.as_raw_fd().to_string(), &go_end.as_raw_fd().to_string()])
        .args(args.iter().skip(1));
    sys::keep_fds(&mut command, vec![ready_end.as_raw_fd(), go_end.as_raw_fd()]);
    // Blocked before the child is there: its end must not be missed.
    sys::block_signals();
    let child = command.spawn().tried(|| format!("start {} again", executable().display()))?;
    drop((command, ready_end, go_end));
    let mut text = String::new();
    File::from(ready).read_to_string(&mut text).tried(|| "hear from the user namespace".to_owned())?;
    if text != "ready" {
        return Err(Error::Setup(if text.is_empty() {
            "the user namespace's process ended early".to_owned()
        } else {
            text
        }));
    }
    if single {
        map_own_id(child.id(), uid, gid)?;
    } else {
        let [uids, gids] = &ranges;
        for (tool, own, ranges) in [("newuidmap", uid, uids), ("newgidmap", gid, gids)] {
            let ran = Command::new(find(tool)?).arg(child.id().to_string()).args(mapping(own, ranges)).output();
            let ran = ran.tried(|| format!("run {tool}"))?;
            if !ran.status.success() {
                let text = String::from_utf8_lossy(&ran.stderr).trim().to_owned();
                return Err(Error::Map { tool, user: name, text });
            }
        }
    }
    File::from(go).write_all(b"g").tried(|| "start the command in the user namespace".to_owned())?;
    let pid = i32::try_from(child.id()).map_err(|_| Error::Setup("a process id is too large".to_owned()))?;
    Ok(reap::wait(pid, Quit::Forward))
}

/// Makes the user root of a namespace that has no other id, which needs nobody's permission (user_namespaces(7)).
fn map_own_id(child: u32, uid: u32, gid: u32) -> Result<(), Error> {
    let process = Path::new("/proc").join(child.to_string());
    let lines =
        [("setgroups", "deny".to_owned()), ("gid_map", format!("0 {gid} 1")), ("uid_map", format!("0 {uid} 1"))];
    for (file, line) in lines {
        let path = process.join(file);
        std::fs::write(&path, line).tried(|| format!("write {}", path.display()))?;
    }
    Ok(())
}

/// The hidden entry: in a user namespace of its own, waits for its ids and becomes the real command line.
pub(super) fn main(args: &[OsString]) -> ! {
    let fd = |at: usize| args.get(at)?.to_str()?.parse().ok().and_then(|number| sys::take_fd(number).ok());
    let (Some(ready), Some(go)) = (fd(2), fd(3)) else {
        crate::tell!("{INIT}: this is for mkosi's own use");
        std::process::exit(2);
    };
    match enter() {
        Ok(()) => {
            let _ = File::from(ready).write_all(b"ready");
        }
        Err(fault) => {
            let _ = File::from(ready).write_all(fault.to_string().as_bytes());
            std::process::exit(1);
        }
    }
    // Nothing comes when the parent could not map the ids; it has said so then.
    if File::from(go).read_exact(&mut [0]).is_err() {
        std::process::exit(1);
    }
    let error = become_command(args);
    crate::tell!("mkosi: {error}");
    std::process::exit(1)
}

fn enter() -> super::fault::Result<()> {
    sys::unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWNS).tried_or(
        || "make a user namespace".to_owned(),
        |number| match number {
            libc::ENOSPC => "no more are allowed: see sysctl user.max_user_namespaces",
            libc::EPERM | libc::EACCES => {
                "they are forbidden for users: see sysctl kernel.unprivileged_userns_clone and \
                 kernel.apparmor_restrict_unprivileged_userns, or run as root"
            }
            libc::EINVAL => "the kernel was built without them: run as root",
            _ => "",
        },
    )
}

fn become_command(args: &[OsString]) -> Fault {
    let root = || -> super::fault::Result<()> {
        // With one id the groups stay, and are nobody's in the namespace.
        if !has_single_id() {
            nix::unistd::setgroups(&[]).tried(|| "drop the supplementary groups".to_owned())?;
        }
        nix::unistd::setresgid(0.into(), 0.into(), 0.into()).tried(|| "become group 0".to_owned())?;
        nix::unistd::setresuid(0.into(), 0.into(), 0.into()).tried(|| "become user 0".to_owned())?;
        // A change of user clears this, so it comes after.
        rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))
            .tried(|| "tie this process's life to its parent's".to_owned())?;
        rustix::mount::mount_change("/", MountPropagationFlags::REC | MountPropagationFlags::PRIVATE)
            .tried(|| "make the mounts of the new namespace private".to_owned())
    };
    if let Err(fault) = root() {
        return fault;
    }
    sys::unblock_signals();
    let name = args.first().cloned().unwrap_or_default();
    let argv = std::iter::once(&name).chain(args.iter().skip(4)).map(|arg| CString::new(arg.as_bytes()));
    let env = std::env::vars_os().map(|(key, value)| CString::new([key.as_bytes(), b"=", value.as_bytes()].concat()));
    let (Ok(argv), Ok(env)) = (argv.collect::<Result<Vec<_>, _>>(), env.collect::<Result<Vec<_>, _>>()) else {
        return Fault::Wrong("an argument or a variable has a NUL byte".to_owned());
    };
    let error = sys::exec(&c"/proc/self/exe".to_owned(), &argv, &env);
    Fault::Refused { what: "start mkosi again in the user namespace".to_owned(), error, hint: String::new() }
}

fn find(tool: &'static str) -> Result<PathBuf, Error> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain([PathBuf::from("/usr/bin")])
        .map(|directory| directory.join(tool))
        .find(|path| path.is_file())
        .ok_or(Error::NoTool(tool))
}

/// The user's ranges in the text of `/etc/subuid` or `/etc/subgid` (`subuid(5)`), in order.
fn subordinate(text: &str, name: &str, uid: u32) -> Vec<Range> {
    let uid = uid.to_string();
    text.lines()
        .filter_map(|line| {
            let mut fields = line.trim().split(':');
            let owner = fields.next()?;
            let (start, count) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
            ((owner == name || owner == uid) && count > 0).then_some(Range { start, count })
        })
        .collect()
}

/// The arguments of `newuidmap(1)` after the process id: inside, outside, count, again and again.
fn mapping(own: u32, ranges: &[Range]) -> Vec<String> {
    let mut map = VecDeque::from([(0, u64::from(own), 1)]);
    let mut inside = 1;
    for range in ranges {
        let count = range.count.min(SUBORDINATE + 1 - inside);
        if count == 0 {
            break;
        }
        map.push_back((inside, range.start, count));
        inside += count;
    }
    map.into_iter().flat_map(|(inside, outside, count)| [inside, outside, count]).map(|n| n.to_string()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ranges_are_found_by_name_and_by_number() {
        let text = "other:1:2\nme:100000:65536\n# x\n1000:300000:10\nme:bad:1\nme:5:0\n";
        let expected = [Range { start: 100_000, count: 65_536 }, Range { start: 300_000, count: 10 }];
        assert_eq!(subordinate(text, "me", 1000), expected);
        assert_eq!(subordinate(text, "nobody", 1), []);
    }

    #[test]
    fn a_map_takes_what_an_image_can_have() {
        let ranges = [Range { start: 100_000, count: 65_536 }, Range { start: 9, count: 9 }];
        assert_eq!(mapping(1000, &ranges), ["0", "1000", "1", "1", "100000", "65535"]);
        let short = [Range { start: 100_000, count: 10 }, Range { start: 200_000, count: 5 }];
        assert_eq!(mapping(1000, &short), ["0", "1000", "1", "1", "100000", "10", "11", "200000", "5"]);
    }

    proptest! {
        #[test]
        fn any_text_is_read(text in "\\PC*", name in "[a-z]{0,3}") {
            for range in subordinate(&text, &name, 0) {
                prop_assert!(range.count > 0);
            }
        }

        #[test]
        fn no_id_above_the_limit_is_mapped(counts in prop::collection::vec(1_u64..100_000, 0..5)) {
            let ranges: Vec<_> = counts.iter().map(|count| Range { start: 1 << 20, count: *count }).collect();
            let map = mapping(1, &ranges);
            let total: u64 = map.chunks(3).map(|part| part[2].parse::<u64>().unwrap()).sum();
            prop_assert_eq!(total, (counts.iter().sum::<u64>() + 1).min(SUBORDINATE + 1));
        }
    }
}
