//! Runs a program of a tools tree on the host's own file system: its `/usr` lies over the host's, everything else is the
//! host's, descriptors and terminal too. For programs that work on the host, like a virtual machine monitor.
//!
//! This process moves to a mount namespace of its own for that and becomes the program. Knows nothing of sandboxes.

use std::ffi::{CString, OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::mount::MountPropagationFlags;

use super::fault::{Fault, Result, Tried};
use super::sys;

/// The hidden first argument.
pub(super) const ENTRY: &str = "tools-init";

/// Directories of programs and libraries, which are links into `/usr` on most distributions.
const DIRECTORIES: [&str; 7] = ["usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32"];
/// Files of `/etc` that belong to what is in `/usr`.
const FILES: [&str; 2] = ["etc/alternatives", "etc/ld.so.cache"];

/// The arguments that start `program`, a path in the tree, of the tree `tools` when this executable is run with them.
pub fn tools_arguments(tools: &Path, program: &Path) -> [OsString; 3] {
    [ENTRY.into(), tools.as_os_str().to_owned(), program.as_os_str().to_owned()]
}

/// The hidden entry: the tree, the program and its arguments.
pub(super) fn main(args: &[OsString]) -> ! {
    let (Some(tools), Some(program)) = (args.get(2), args.get(3)) else {
        eprintln!("{ENTRY}: this is for mkosi's own use");
        std::process::exit(2);
    };
    let fault = match mount(Path::new(tools)) {
        Ok(()) => become_program(program, args.get(3..).unwrap_or_default()),
        Err(fault) => fault,
    };
    eprintln!("mkosi: can't run {} of the tools tree: {fault}", program.to_string_lossy());
    std::process::exit(127)
}

fn mount(tools: &Path) -> Result<()> {
    if rustix::process::geteuid().is_root() {
        sys::unshare(libc::CLONE_NEWNS).tried(|| "make a mount namespace".to_owned())?;
    } else {
        alone()?;
    }
    // What the host mounts later shows here too, and nothing of this on the host.
    rustix::mount::mount_change("/", MountPropagationFlags::REC | MountPropagationFlags::DOWNSTREAM)
        .tried(|| "make the mounts of the new namespace private".to_owned())?;
    for name in DIRECTORIES.iter().chain(&FILES) {
        let (source, target) = (tools.join(name), Path::new("/").join(name));
        let is_link = |path: &Path| path.symlink_metadata().is_ok_and(|meta| meta.is_symlink());
        if is_link(&source) || is_link(&target) || !source.exists() || !target.exists() {
            continue;
        }
        rustix::mount::mount_bind_recursive(&source, &target)
            .tried(|| format!("put {} over {}", source.display(), target.display()))?;
    }
    Ok(())
}

/// A user namespace in which the user is the same: what it takes to mount.
fn alone() -> Result<()> {
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    sys::unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWNS).tried(|| "make a user namespace".to_owned())?;
    for (file, text) in
        [("setgroups", "deny".to_owned()), ("uid_map", format!("{uid} {uid} 1")), ("gid_map", format!("{gid} {gid} 1"))]
    {
        let path = format!("/proc/self/{file}");
        std::fs::write(&path, text).tried(|| format!("write {path}"))?;
    }
    Ok(())
}

fn become_program(program: &OsStr, argv: &[OsString]) -> Fault {
    let c_string = |text: &[u8]| CString::new(text).map_err(|_| Fault::Wrong("an argument has a NUL byte".to_owned()));
    let argv: Result<Vec<CString>> = argv.iter().map(|word| c_string(word.as_bytes())).collect();
    let env: Result<Vec<CString>> = std::env::vars_os()
        .map(|(name, value)| c_string(&[name.as_bytes(), b"=", value.as_bytes()].concat()))
        .collect();
    match (c_string(program.as_bytes()), argv, env) {
        (Ok(path), Ok(argv), Ok(env)) => {
            let error = sys::exec(&path, &argv, &env);
            Fault::Refused { what: "start it".to_owned(), error, hint: String::new() }
        }
        (Err(fault), ..) | (_, Err(fault), _) | (.., Err(fault)) => fault,
    }
}
