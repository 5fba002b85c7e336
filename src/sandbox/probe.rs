//! Tries out whether a directory can hold the upper directory of an overlay, also of one over a file system that this
//! program serves. Knows nothing of what it is for.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::MountPropagationFlags;

use super::fault::{Fault, Result, Tried, show};
use super::overlay::{Overlay, attach};
use super::run::executable;
use super::{serve, sys};
use crate::reads::{Recorder, View};

/// The name of the hidden entry, as first argument.
pub(super) const ENTRY: &str = "sandbox-probe-overlay";

/// Tells whether overlays can have their upper directories under this directory.
///
/// # Errors
/// When they can't; the text says why and what to do. Nothing stays behind.
pub fn probe_overlay(dir: &Path) -> std::result::Result<(), String> {
    let place = place_in(dir)?;
    run(place.path(), None).map_err(|text| format!("overlays don't work in {}: {text}", show(dir)))
}

/// Tells whether overlays over what this program serves ([`serve`]) can have their upper directories under this
/// directory. Not all kernels let FUSE be the lower file system of an overlay.
///
/// # Errors
/// When they can't, or nothing can be served; the text says why. Nothing stays behind.
pub fn probe_served(dir: &Path) -> std::result::Result<(), String> {
    let place = place_in(dir)?;
    let source = place.path().join("served");
    let made = std::fs::create_dir(&source).and_then(|()| std::fs::write(source.join("file"), "low"));
    let view = made.and_then(|()| View::open(&source, &[]));
    let view = view.map_err(|error| format!("could not make the directory {}: {error}", show(&source)))?;
    let served = serve(Arc::new(Recorder::new(view)))?;
    run(place.path(), Some(&served)).map_err(|text| format!("overlays over FUSE don't work here: {text}"))
}

fn place_in(dir: &Path) -> std::result::Result<tempfile::TempDir, String> {
    tempfile::Builder::new()
        .prefix(".mkosi-probe-")
        .tempdir_in(dir)
        .map_err(|error| format!("could not make a directory in {}: {error}", show(dir)))
}

/// Probes in a process of its own, since it is for good that one enters a mount namespace.
fn run(place: &Path, served: Option<&OwnedFd>) -> std::result::Result<(), String> {
    let mut command = Command::new(executable());
    command.arg0("mkosi").arg(ENTRY).arg(place).stdin(Stdio::null());
    if let Some(served) = served {
        command.arg(served.as_raw_fd().to_string());
        sys::keep_fds(&mut command, vec![served.as_raw_fd()]);
    }
    let ran = command.output().map_err(|error| format!("could not start {}: {error}", executable().display()))?;
    let text = String::from_utf8_lossy(&ran.stderr).trim().to_owned();
    match (ran.status.success(), text.is_empty()) {
        (true, _) => Ok(()),
        (false, false) => Err(text),
        (false, true) => Err(format!("the probe ended with {}", ran.status)),
    }
}

/// The hidden entry: mounts an overlay in a directory, in a mount namespace that ends with this process.
/// A number of a descriptor is that of a served file system, which then lies below.
pub(super) fn main(place: &Path, served: Option<&str>) -> ! {
    match probe(place, served) {
        Ok(()) => std::process::exit(0),
        Err(fault) => {
            crate::tell!("{fault}");
            std::process::exit(1)
        }
    }
}

fn probe(place: &Path, served: Option<&str>) -> Result<()> {
    sys::unshare(libc::CLONE_NEWNS).tried(|| "make a mount namespace".to_owned())?;
    rustix::mount::mount_change("/", MountPropagationFlags::REC | MountPropagationFlags::PRIVATE)
        .tried(|| "make the mounts of the new namespace private".to_owned())?;
    let [low, high, upper, work, merged] = ["low", "high", "upper", "work", "merged"].map(|name| place.join(name));
    for path in [&low, &high, &upper, &work, &merged] {
        std::fs::create_dir(path).tried(|| format!("make the directory {}", show(path)))?;
    }
    let file = |directory: &Path| directory.join("file");
    std::fs::write(file(&low), "low").tried(|| format!("write {}", show(&file(&low))))?;
    let overlay = match served {
        None => {
            let lowers: [PathBuf; 2] = [low, high];
            Overlay::open(&lowers, Some(&(upper.clone(), work)))?
        }
        Some(number) => {
            let what = || "mount a file system that the caller serves".to_owned();
            let number =
                number.parse().map_err(|_| Fault::Wrong(format!("`{number}` is not the number of a descriptor")))?;
            let mount = sys::take_fd(number).tried(what)?;
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let point = rustix::fs::openat(CWD, &low, flags, Mode::empty()).tried(what)?;
            attach(&mount, point.as_fd()).tried(what)?;
            let lower = rustix::fs::openat(&mount, ".", flags, Mode::empty()).tried(what)?;
            Overlay::over(lower, Overlay::open_upper(&(upper.clone(), work))?)
        }
    };
    let point = rustix::fs::openat(CWD, &merged, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
        .tried(|| format!("open {}", show(&merged)))?;
    overlay.mount(point.as_fd())?;
    let in_merged = file(&merged);
    std::fs::read(&in_merged).tried(|| "read a file in the overlay".to_owned())?;
    std::fs::write(&in_merged, "new").tried(|| "write to a file in the overlay".to_owned())?;
    std::fs::remove_file(&in_merged).tried(|| "remove a file in the overlay".to_owned())?;
    if in_merged.exists() || std::fs::symlink_metadata(file(&upper)).is_err() {
        return Err(Fault::Wrong("a removed file leaves no whiteout in the upper directory".to_owned()));
    }
    Ok(())
}
