//! Loop devices for a command that makes file systems on them (loop(4)). Knows nothing of what they are used for.

use std::fs::File;
use std::path::{Path, PathBuf};

use super::fault::{Fault, Result, Tried};
use super::{Error, Mount, started_as_root, sys};

/// Gives out the numbers of devices, and makes new ones.
const CONTROL: &str = "/dev/loop-control";

/// How many devices a command finds free at least. Others may take some of them meanwhile.
const FREE: usize = 8;

/// More devices than any machine has: whoever looks for a free one ends here.
const MOST: u32 = 4096;

/// The mounts that show a sandbox all loop devices of the machine, some of them free, and `/sys`, where programs look up
/// what they are.
///
/// # Errors
/// When the machine has none, or this user may not use them.
pub fn loop_devices() -> std::result::Result<Vec<Mount>, Error> {
    if !started_as_root() {
        return Err(Error::Setup("only root can use loop devices".to_owned()));
    }
    let devices = devices().map_err(|fault| Error::Setup(fault.to_string()))?;
    let mut mounts =
        vec![Mount::Bind { source: "/sys".into(), target: "/sys".into(), read_only: true, optional: false }];
    mounts.extend(devices.into_iter().map(|path| Mount::Bind {
        source: path.clone(),
        target: path,
        read_only: false,
        optional: false,
    }));
    Ok(mounts)
}

/// The devices, the one that gives them out first.
fn devices() -> Result<Vec<PathBuf>> {
    let what = || format!("open {CONTROL}");
    let control = File::options().read(true).write(true).open(CONTROL).tried_or(what, |number| match number {
        libc::ENOENT | libc::ENXIO => "the kernel has no loop devices here: load the module (`modprobe loop`)",
        libc::EPERM | libc::EACCES => "a container has to be given them",
        _ => "",
    })?;
    let mut found = vec![PathBuf::from(CONTROL)];
    let mut free = 0;
    for number in 0..MOST {
        if free == FREE {
            break;
        }
        let path = PathBuf::from(format!("/dev/loop{number}"));
        if !path.exists() {
            let made = sys::add_loop_device(&control, number);
            if made.as_ref().is_err_and(|error| error.raw_os_error() != Some(libc::EEXIST)) {
                made.tried(|| format!("make the loop device {}", path.display()))?;
            }
            if !path.exists() {
                return Err(Fault::Wrong(format!(
                    "{} is not there although the kernel has that device: mkosi needs a /dev that the kernel fills",
                    path.display()
                )));
            }
        }
        free += usize::from(!Path::new(&format!("/sys/block/loop{number}/loop/backing_file")).exists());
        found.push(path);
    }
    Ok(found)
}
