//! Directories of the host in a virtual machine, through virtiofsd.
//!
//! Knows nothing of what they are for.

use std::os::fd::AsRawFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use super::error::{Result, RunError};
use super::process::Helper;
use super::terminal::hand_down;
use super::tools::Tools;
use crate::output::foreign;

/// A longer name does not fit (the virtio specification, 5.11.4).
const LONGEST_TAG: usize = 36;

/// Whose files they are in the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owners {
    /// Everyone keeps their own.
    Kept,
    /// The owner of the directory is root in the machine, and owns what is made there.
    OwnerIsRoot,
    /// They are of the foreign range of ids, which is the machine's own from zero on.
    Foreign,
}

/// A directory as it is to be seen in the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct How {
    /// Whose files they are.
    pub owners: Owners,
    /// Whether new files get the label that the system in the machine, with SELinux, gives them.
    pub labels: bool,
}

impl How {
    /// A directory of the user's.
    pub const OF_USER: Self = Self { owners: Owners::OwnerIsRoot, labels: false };
}

/// The tag of a mount.
///
/// # Errors
/// When it is too long.
pub fn tag(target: &Path) -> Result<String> {
    let tag = target.to_string_lossy().into_owned();
    if tag.len() <= LONGEST_TAG {
        return Ok(tag);
    }
    Err(RunError::unfit(
        format!("`{tag}` is too long for a mount in a virtual machine, which may have {LONGEST_TAG} bytes"),
        "choose a shorter target",
    ))
}

/// The arguments for QEMU: a file system behind the socket. `number` keeps their names apart.
pub fn arguments(socket: &Path, tag: &str, number: usize) -> Vec<String> {
    let (socket, tag) = (super::qemu::escaped(socket), tag.replace(',', ",,"));
    vec![
        "-chardev".to_owned(),
        format!("socket,id=fs{number},path={socket}"),
        "-device".to_owned(),
        format!("vhost-user-fs-pci,queue-size=1024,chardev=fs{number},tag={tag}"),
    ]
}

/// A directory that is shared as long as this lives.
pub struct Shared {
    /// Where QEMU finds it.
    pub socket: PathBuf,
    /// The mount's tag.
    pub tag: String,
    _helper: Helper,
}

/// Shares `source`. The socket lies in `directory`.
///
/// # Errors
/// When virtiofsd is missing or can't be started.
pub fn start(directory: &Path, number: usize, source: &Path, tag: String, how: How, tools: &Tools) -> Result<Shared> {
    let hint = "install virtiofsd, the one that is written in Rust (package virtiofsd)";
    let purpose = "show directories of the host to a virtual machine";
    let virtiofsd = program(tools).ok_or_else(|| tools.missing("virtiofsd", purpose, hint))?;
    let meta = source.metadata().map_err(RunError::io("share", source))?;
    let me = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let owner =
        Some((meta.uid(), meta.gid())).filter(|owner| how.owners == Owners::OwnerIsRoot && me.0 == 0 && *owner != me);
    let socket = directory.join(format!("fs{number}"));
    let listener = UnixListener::bind(&socket).map_err(RunError::io("make the socket", &socket))?;
    hand_down(&listener).map_err(RunError::io("hand down the socket", &socket))?;
    let mut command = tools.command_as(&virtiofsd, owner);
    command.args(options(owner.unwrap_or(me), how)).arg("--shared-dir").arg(source);
    command.args(["--fd", &listener.as_raw_fd().to_string()]);
    Ok(Shared { socket, tag, _helper: Helper::start(&mut command)? })
}

/// The options that follow from who runs it. Another user than root gets a user namespace in which it is root, so that
/// files of its own are root's in the machine.
fn options((uid, gid): (u32, u32), how: How) -> Vec<String> {
    let root = uid == 0;
    let mut options = vec!["--xattr", "--no-announce-submounts", "--log-level=error"];
    if root {
        options.extend(["--sandbox=chroot", "--modcaps=-mknod"]);
    } else {
        options.push("--sandbox=namespace");
    }
    options.push(match how.owners {
        Owners::Kept | Owners::Foreign if root => "--inode-file-handles=prefer",
        _ => "--inode-file-handles=never",
    });
    if how.labels {
        options.push("--security-label");
    }
    let mut options: Vec<String> = options.into_iter().map(str::to_owned).collect();
    if !root {
        options.extend([("uid", uid), ("gid", gid)].map(|(kind, id)| format!("--{kind}-map=:0:{id}:1:")));
    }
    if how.owners == Owners::Foreign {
        let (first, count) = (foreign::FIRST, foreign::COUNT);
        options.extend(["uid", "gid"].map(|id| format!("--translate-{id}=map:0:{first}:{count}")));
    }
    options
}

/// The program. An older one in C, which QEMU came with, takes other options.
fn program(tools: &Tools) -> Option<PathBuf> {
    tools.find(&["virtiofsd"]).filter(|path| !path.to_string_lossy().ends_with("/lib/qemu/virtiofsd"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_follow_from_the_owners() {
        let how = |owners, labels| How { owners, labels };
        let said = |id, how| options((id, id), how).split_off(3).join(" ");
        let root = "--sandbox=chroot --modcaps=-mknod";
        assert_eq!(said(0, how(Owners::Kept, false)), format!("{root} --inode-file-handles=prefer"));
        assert_eq!(said(0, how(Owners::Kept, true)), format!("{root} --inode-file-handles=prefer --security-label"));
        assert_eq!(
            said(7, How::OF_USER),
            "--sandbox=namespace --inode-file-handles=never --uid-map=:0:7:1: --gid-map=:0:7:1:"
        );
        assert_eq!(
            said(0, how(Owners::Foreign, false)),
            format!(
                "{root} --inode-file-handles=prefer --translate-uid=map:0:2147352576:65536 \
                 --translate-gid=map:0:2147352576:65536"
            )
        );
    }

    #[test]
    fn tags() {
        assert_eq!(tag(Path::new("/root/src")).unwrap(), "/root/src");
        assert!(tag(Path::new(&format!("/{}", "x".repeat(36)))).is_err());
        assert_eq!(
            arguments(Path::new("/s"), "a,b", 0),
            ["-chardev", "socket,id=fs0,path=/s", "-device", "vhost-user-fs-pci,queue-size=1024,chardev=fs0,tag=a,,b"]
        );
    }
}
