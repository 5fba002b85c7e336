//! Tries out whether a directory can hold the upper directory of an overlay. Knows nothing of what it is for.

use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::MountPropagationFlags;

use super::fault::{Fault, Result, Tried, show};
use super::overlay::Overlay;
use super::run::executable;
use super::sys;

/// The name of the hidden entry, as first argument.
pub(super) const ENTRY: &str = "sandbox-probe-overlay";

/// Tells whether overlays can have their upper directories under this directory.
///
/// # Errors
/// When they can't; the text says why and what to do. Nothing stays behind.
pub fn probe_overlay(dir: &Path) -> std::result::Result<(), String> {
    let place = tempfile::Builder::new()
        .prefix(".mkosi-probe-")
        .tempdir_in(dir)
        .map_err(|error| format!("could not make a directory in {}: {error}", show(dir)))?;
    let ran = Command::new(executable())
        .arg0("mkosi")
        .arg(ENTRY)
        .arg(place.path())
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("could not start {}: {error}", executable().display()))?;
    let text = String::from_utf8_lossy(&ran.stderr).trim().to_owned();
    match (ran.status.success(), text.is_empty()) {
        (true, _) => Ok(()),
        (false, false) => Err(format!("overlays don't work in {}: {text}", show(dir))),
        (false, true) => Err(format!("overlays don't work in {}: the probe ended with {}", show(dir), ran.status)),
    }
}

/// The hidden entry: mounts an overlay in a directory, in a mount namespace that ends with this process.
pub(super) fn main(place: &Path) -> ! {
    match probe(place) {
        Ok(()) => std::process::exit(0),
        Err(fault) => {
            eprintln!("{fault}");
            std::process::exit(1)
        }
    }
}

fn probe(place: &Path) -> Result<()> {
    sys::unshare(libc::CLONE_NEWNS).tried(|| "make a mount namespace".to_owned())?;
    rustix::mount::mount_change("/", MountPropagationFlags::REC | MountPropagationFlags::PRIVATE)
        .tried(|| "make the mounts of the new namespace private".to_owned())?;
    let [low, high, upper, work, merged] = ["low", "high", "upper", "work", "merged"].map(|name| place.join(name));
    for path in [&low, &high, &upper, &work, &merged] {
        std::fs::create_dir(path).tried(|| format!("make the directory {}", show(path)))?;
    }
    let file = |directory: &Path| directory.join("file");
    std::fs::write(file(&low), "low").tried(|| format!("write {}", show(&file(&low))))?;
    let lowers: [PathBuf; 2] = [low, high];
    let overlay = Overlay::open(&lowers, Some(&(upper.clone(), work)))?;
    let point = rustix::fs::openat(CWD, &merged, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
        .tried(|| format!("open {}", show(&merged)))?;
    overlay.mount(point.as_fd())?;
    let in_merged = file(&merged);
    std::fs::write(&in_merged, "new").tried(|| "write to a file in the overlay".to_owned())?;
    std::fs::remove_file(&in_merged).tried(|| "remove a file in the overlay".to_owned())?;
    if in_merged.exists() || std::fs::symlink_metadata(file(&upper)).is_err() {
        return Err(Fault::Wrong("a removed file leaves no whiteout in the upper directory".to_owned()));
    }
    Ok(())
}
