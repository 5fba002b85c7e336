//! `mkosi-chroot COMMAND...`: runs a command in the image at `$BUILDROOT`, from within a sandbox. Knows nothing of
//! which stage calls it.
//!
//! The mounting is done by the sandbox's broker. The image's own root becomes the command's root, in mount and PID namespaces of their own, so that mounts and
//! left-over processes end with the command. Mount points that the image lacks are made before and removed after.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, FlockOperation, Mode, OFlags};
use serde::{Deserialize, Serialize};

use super::Mount;
use super::broker::{self, Request};
use super::command::Command;
use super::fault::{Fault, Result, Tried, show};
use super::harden::Limits;
use super::init::{self, Inside};
use super::reap::Quit;
use super::root::Base;
use super::sys;
use super::tree::{Kind, Links, Tree};
use super::wire::{Message, Status, first_message};

/// The name that the executable has to be called by.
pub(super) const NAME: &str = "mkosi-chroot";
/// The name for commands that run outside the image and work on it: the image has its `/proc` and so on, and its users
/// and groups are those of the command.
pub(super) const WITHIN: &str = "mkosi-within";
/// The exit status when the image could not be entered at all.
const FAILED: i32 = 125;
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Variables that have another value inside the image; it stands in `CHROOT_` and the name.
const RENAMED: [&str; 5] = ["SRCDIR", "DESTDIR", "BUILDDIR", "OUTPUTDIR", "SCRIPT"];

/// The entry, by the executable's name; [`WITHIN`] keeps the sandbox's root.
pub(super) fn main(args: Vec<String>, within: bool) -> ! {
    let args = if args.is_empty() { vec!["/bin/sh".to_owned()] } else { args };
    let Ok(stderr) = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stderr(), 3) else { std::process::exit(FAILED) };
    let result = run(args, within);
    // What comes after this is the report.
    let _ = rustix::stdio::dup2_stderr(stderr);
    match result {
        Ok(Message::Exit(code)) => std::process::exit(code),
        Ok(Message::Signal(signal)) => sys::die_by(signal),
        Ok(Message::Command(code, text)) => fail(code, &format!("{text} in the image")),
        Ok(Message::Fault(text)) => fail(FAILED, &text),
        Err(fault) => fail(FAILED, &fault.to_string()),
    }
}

fn fail(code: i32, text: &str) -> ! {
    crate::tell!("{NAME}: {text}");
    std::process::exit(code)
}

fn run(argv: Vec<String>, within: bool) -> Result<Message> {
    let umask = rustix::process::umask(Mode::empty()).bits();
    rustix::process::umask(Mode::from_raw_mode(umask));
    let caller: BTreeMap<String, String> = std::env::vars_os()
        .filter_map(|(key, value)| Some((key.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    let here = std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/"));
    let buildroot = caller.get("BUILDROOT").map(PathBuf::from).filter(|path| path != Path::new("/"));
    let Some(buildroot) = buildroot else {
        // Within the image already.
        let env = environment(caller.into_iter());
        return Ok(Command { argv: &argv, env: &env, cwd: &here, umask, new_session: false, harden: None }.exec());
    };
    let (env, cwd) = match within {
        true => (caller, here),
        false if here.starts_with("/work") => (environment(caller.into_iter()), here),
        false => (environment(caller.into_iter()), PathBuf::from("/")),
    };
    let group = nix::unistd::getpgrp().as_raw();
    broker::ask(&Request { argv, env, cwd, umask, buildroot, within, group })
}

/// Runs a command in the image, or next to it; for the broker. Gives how it ended.
pub(super) fn visit(request: &Request, limits: Limits) -> Result<Message> {
    let mut visit = Visit::begin(&request.buildroot)?;
    if request.within {
        visit.stay_outside(&request.buildroot);
    }
    let what = || "make a pipe".to_owned();
    let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).tried(what)?;
    let status = Status(File::from(writer));
    let inside = Inside {
        base: Base::Directory(if request.within { Path::new("/") } else { &request.buildroot }),
        mounts: &visit.mounts,
        links: Links::Cope,
        namespaces: 0,
        hostname: None,
        broker: false,
        command: Command {
            argv: &request.argv,
            env: &request.env,
            cwd: &request.cwd,
            umask: request.umask,
            new_session: false,
            harden: Some(limits),
        },
    };
    let ended = init::run(&inside, &status, Quit::Forward);
    visit.end();
    drop(status);
    let ended = ended?;
    Ok(first_message(File::from(reader)).unwrap_or(ended))
}

/// The command's environment: that of the caller, with the paths as they are in the image.
fn environment(vars: impl Iterator<Item = (String, String)>) -> BTreeMap<String, String> {
    let mut env: BTreeMap<String, String> = vars.collect();
    env.remove("BUILDROOT");
    for name in RENAMED {
        if let Some(value) = env.remove(&format!("CHROOT_{name}")) {
            env.insert(name.to_owned(), value);
        }
    }
    env.insert("PATH".to_owned(), PATH.to_owned());
    env.insert("container".to_owned(), "mkosi".to_owned());
    env
}

/// A stay in an image: what is mounted there, and what had to be made for it.
struct Visit {
    tree: Tree,
    mounts: Vec<Mount>,
    /// Shared by all that are in the image; whoever is alone in the end cleans up for all.
    lock: OwnedFd,
    record: Option<File>,
    /// Takes what is written to `/etc/machine-id`; gone with this value.
    _machine_id: Option<tempfile::NamedTempFile>,
}

/// A line of the record of what was made.
#[derive(Serialize, Deserialize)]
struct Made {
    path: PathBuf,
    directory: bool,
}

impl Visit {
    fn begin(buildroot: &Path) -> Result<Self> {
        let what = || format!("open the image {} ($BUILDROOT)", show(buildroot));
        let open = |flags| rustix::fs::openat(CWD, buildroot, flags | OFlags::CLOEXEC, Mode::empty());
        let root = open(OFlags::PATH | OFlags::DIRECTORY).tried(what)?;
        let lock = open(OFlags::RDONLY | OFlags::DIRECTORY).tried(what)?;
        rustix::fs::flock(&lock, FlockOperation::LockShared).tried(|| format!("lock the image {}", show(buildroot)))?;
        let record = record(&root);
        let mut visit = Self { tree: Tree::new(root), mounts: Vec::new(), lock, record, _machine_id: None };
        match visit.plan() {
            Ok(()) => Ok(visit),
            Err(fault) => {
                visit.end();
                Err(fault)
            }
        }
    }

    /// Decides on the mounts and makes the mount points that the image lacks.
    fn plan(&mut self) -> Result<()> {
        self.own(Mount::Proc { target: "/proc".into() }, "/proc")?;
        self.bind("/dev", "/dev", false, Kind::Directory)?;
        if Path::new("/sys").is_dir() {
            self.bind("/sys", "/sys", true, Kind::Directory)?;
        }
        self.own(Mount::Tmpfs { target: "/run".into(), mode: 0o755 }, "/run")?;
        self.mounts.push(Mount::File {
            target: "/run/host/container-manager".into(),
            contents: b"mkosi\n".to_vec(),
            mode: 0o644,
        });
        for path in ["/tmp", "/var/tmp"] {
            if Path::new(path).is_dir() {
                self.bind(path, path, false, Kind::Directory)?;
            }
        }
        self.work()?;
        // An image without /etc is left alone, and so is one whose /etc leads nowhere.
        if self.tree.open_with(Path::new("/etc"), OFlags::PATH | OFlags::DIRECTORY).is_ok() {
            if Path::new("/etc/resolv.conf").exists() {
                self.bind("/etc/resolv.conf", "/etc/resolv.conf", true, Kind::File)?;
            }
            self.machine_id()?;
        }
        Ok(())
    }

    /// Turns the mounts to ones below the image's place in the sandbox, whose root stays the command's root.
    fn stay_outside(&mut self, buildroot: &Path) {
        let below = |path: &Path| buildroot.join(path.strip_prefix("/").unwrap_or(path));
        for mount in &mut self.mounts {
            match mount {
                Mount::Bind { target, .. }
                | Mount::Overlay { target, .. }
                | Mount::Served { target, .. }
                | Mount::Tmpfs { target, .. }
                | Mount::Proc { target }
                | Mount::Dev { target }
                | Mount::Symlink { target, .. }
                | Mount::Directory { target, .. }
                | Mount::File { target, .. } => *target = below(target),
                // No image is entered with tools of its own, or with the host around it.
                Mount::Parts { .. } | Mount::Same { .. } => {}
            }
        }
        // The process numbers of the new namespace are those of the image's /proc and the sandbox's own alike.
        self.mounts.push(Mount::Proc { target: "/proc".into() });
        for name in ["/etc/passwd", "/etc/group"] {
            let regular = self
                .tree
                .open_nofollow(Path::new(name))
                .and_then(rustix::fs::fstat)
                .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile);
            if regular && Path::new(name).is_file() {
                self.mounts.push(Mount::Bind {
                    source: below(Path::new(name)),
                    target: name.into(),
                    read_only: true,
                    optional: true,
                });
            }
        }
    }

    fn own(&mut self, mount: Mount, target: &str) -> Result<()> {
        self.tree.mount_point(Path::new(target), Kind::Directory, Links::Cope)?;
        self.mounts.push(mount);
        Ok(())
    }

    fn bind(&mut self, source: &str, target: &str, read_only: bool, kind: Kind) -> Result<()> {
        self.tree.mount_point(Path::new(target), kind, Links::Cope)?;
        self.mounts.push(Mount::Bind { source: source.into(), target: target.into(), read_only, optional: false });
        Ok(())
    }

    /// The sandbox's work directories, below an empty directory so that nothing is made in the image for each.
    fn work(&mut self) -> Result<()> {
        if !Path::new("/work").is_dir() {
            return Ok(());
        }
        self.own(Mount::Tmpfs { target: "/work".into(), mode: 0o755 }, "/work")?;
        let names = std::fs::read_dir("/work").and_then(Iterator::collect::<std::io::Result<Vec<_>>>);
        let mut paths: Vec<PathBuf> =
            names.tried(|| "list /work in the sandbox".to_owned())?.iter().map(std::fs::DirEntry::path).collect();
        paths.sort();
        for path in paths {
            self.mounts.push(Mount::Bind { source: path.clone(), target: path, read_only: false, optional: true });
        }
        Ok(())
    }

    /// Keeps tools from giving the image a machine ID that every copy of it would share. They may write one, but
    /// to a file that is thrown away.
    fn machine_id(&mut self) -> Result<()> {
        let path = Path::new("/etc/machine-id");
        let set = match self.tree.open_with(path, OFlags::RDONLY | OFlags::NONBLOCK) {
            Ok(fd) => rustix::fs::fstat(&fd).is_ok_and(|stat| stat.st_size > 0),
            Err(_) => false,
        };
        if set {
            return Ok(());
        }
        let what = || "make a stand-in for /etc/machine-id".to_owned();
        let stand_in = tempfile::Builder::new()
            .prefix(".machine-id-")
            .tempfile_in("/run")
            .or_else(|_| tempfile::NamedTempFile::new())
            .tried(what)?;
        rustix::fs::fchmod(stand_in.as_file(), Mode::from_raw_mode(0o644)).tried(what)?;
        let source = stand_in.path().to_str().ok_or_else(|| Fault::Wrong(what()))?.to_owned();
        self.bind(&source, "/etc/machine-id", false, Kind::File)?;
        self._machine_id = Some(stand_in);
        Ok(())
    }

    /// Removes what was made, unless another command is in the image and needs it: that one removes it then.
    fn end(mut self) {
        if let Some(record) = &mut self.record {
            for (path, kind) in &self.tree.made {
                let made = Made { path: path.clone(), directory: *kind == Kind::Directory };
                if let Ok(mut line) = serde_json::to_vec(&made) {
                    line.push(b'\n');
                    let _ = record.write_all(&line);
                }
            }
        }
        if rustix::fs::flock(&self.lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            return;
        }
        if let Some(record) = &mut self.record {
            let mut text = String::new();
            if record.rewind().and_then(|()| record.read_to_string(&mut text)).is_ok() {
                self.tree.made = text
                    .lines()
                    .filter_map(|line| serde_json::from_str::<Made>(line).ok())
                    .map(|made| (made.path, if made.directory { Kind::Directory } else { Kind::File }))
                    .collect();
                let _ = record.set_len(0);
            }
        }
        self.tree.remove_made();
    }
}

/// A file of the sandbox's own that lists what was made in this image. Without a place for it, each command removes
/// what it made itself.
fn record(root: &OwnedFd) -> Option<File> {
    let stat = rustix::fs::fstat(root).ok()?;
    let path = format!("/run/.{NAME}-{}-{}", stat.st_dev, stat.st_ino);
    File::options().create(true).append(true).read(true).open(path).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_those_of_the_image() {
        let vars = [
            ("BUILDROOT", "/buildroot"),
            ("SRCDIR", "/here"),
            ("CHROOT_SRCDIR", "/work/src"),
            ("DESTDIR", "/kept"),
            ("PATH", "/run/mkosi/bin"),
            ("USER", "x"),
        ];
        let env = environment(vars.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
        let env: Vec<_> = env.iter().map(|(key, value)| format!("{key}={value}")).collect();
        assert_eq!(env, ["DESTDIR=/kept", &format!("PATH={PATH}"), "SRCDIR=/work/src", "USER=x", "container=mkosi"]);
    }
}
