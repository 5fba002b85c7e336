//! The default tools tree for the verbs that run programs: found in the store, and kept there as long as they run.
//!
//! A user's store can only be opened in a user namespace, and who runs an image must stay the user. So a process of its
//! own opens the store, tells the directories of the tree, and stays: as long as it has the store open, no clean-up
//! removes them.

use std::ffi::{OsStr, OsString};
use std::io::{Read as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::arguments::SHOW_TOOLS;
use super::build::choose_backend;
use super::options::Invocation;
use super::session::Session;
use crate::config::Loaded;
use crate::exec::show_tree;
use crate::plan::TOOLS_IMAGE;

/// What stands at the end: a NUL byte behind the last directory, as behind each, and one more.
const END: &[u8] = b"\0\0";

/// Asks a process of its own for the directories that the tree is made of, lowest first. They stay as long as this
/// process, or what it becomes. Nothing when there is no tree to be had: the other one has said why.
///
/// # Errors
/// When it can't be started.
pub fn ask() -> anyhow::Result<Option<Vec<PathBuf>>> {
    let mut arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    arguments.insert(0, format!("--{SHOW_TOOLS}={}", std::process::id()).into());
    let mut child = Command::new("/proc/self/exe")
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        // Ctrl-C is for what this process runs.
        .process_group(0)
        .spawn()
        .context("can't start mkosi again to look for the tools tree")?;
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    // It stays, so its output has no end unless it failed.
    while let Some(stdout) = child.stdout.as_mut().filter(|_| !bytes.ends_with(END)) {
        let count = stdout.read(&mut buffer).context("can't read where the tools tree is")?;
        if count == 0 {
            return Ok(None);
        }
        bytes.extend_from_slice(buffer.get(..count).unwrap_or_default());
    }
    let names = bytes.split(|byte| *byte == 0).filter(|name| !name.is_empty());
    Ok(Some(names.map(|name| PathBuf::from(OsStr::from_bytes(name))).collect()))
}

/// Tells the directories of the tree on standard output and stays until the process `user` has ended.
///
/// # Errors
/// When the tree is not there as it would be built now.
pub fn show(invocation: &Invocation, loaded: &Loaded, user: u32) -> anyhow::Result<()> {
    let pid = i32::try_from(user).ok().and_then(Pid::from_raw).context("this is for mkosi's own use")?;
    let user = pidfd_open(pid, PidfdFlags::empty()).context("who asks for the tools tree is gone")?;
    let session = Session::open(invocation, loaded, false)?;
    choose_backend(&session.store);
    let Some(tree) = show_tree(&session.plan, &session.store, TOOLS_IMAGE)? else {
        bail!(
            "the default tools tree is not built, or what it is made of has changed since\n  hint: build with \
             `mkosi build`, or add -f to do that now; --tools-tree=no takes the host's programs"
        );
    };
    let mut bytes = Vec::new();
    for directory in &tree.directories {
        bytes.extend_from_slice(directory.as_os_str().as_bytes());
        bytes.push(0);
    }
    bytes.push(0);
    std::io::stdout().write_all(&bytes).and_then(|()| std::io::stdout().flush()).context("can't tell where it is")?;
    loop {
        // Readable when the process has ended (pidfd_open(2)).
        match poll(&mut [PollFd::new(&user, PollFlags::IN)], None) {
            Ok(_) => return Ok(()),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error).context("can't wait for who uses the tools tree"),
        }
    }
}
