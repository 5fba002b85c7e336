//! The socket between host and virtual machine (vsock(7)): its device and the machine's connection id.
//!
//! Knows nothing of what is said over it.

use std::fs::File;
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use super::error::{Result, RunError};
use super::settings::VsockCid;
use super::sys;

/// The device of the host.
pub const DEVICE: &str = "/dev/vhost-vsock";
/// Numbers below have a meaning of their own.
const FIRST: u32 = 3;
/// The one above means "any".
const LAST: u32 = u32::MAX - 1;
/// How many numbers are tried.
const TRIES: u32 = 128;

/// The number that follows from the path of an image, and from how often it was taken already.
pub fn hashed(image: &Path, attempt: u32) -> u32 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(image.as_os_str().as_bytes());
    if attempt > 0 {
        hasher.update(&attempt.to_le_bytes());
    }
    let mut bytes = [0; 4];
    hasher.finalize_xof().fill(&mut bytes);
    u32::from_le_bytes(bytes).clamp(FIRST, LAST)
}

/// Gives the machine behind `device` a connection id.
///
/// # Errors
/// When the wished one is taken, or none is free.
pub fn claim(device: &File, wished: VsockCid, image: &Path) -> Result<u32> {
    let take = |cid: u32| sys::set_guest_cid(device.as_fd(), u64::from(cid));
    let (cid, how) = match wished {
        VsockCid::Number(cid) => (cid, "VSockCID="),
        VsockCid::Hash => (hashed(image, 0), "VSockCID=hash"),
        VsockCid::Auto => {
            for attempt in 0..TRIES {
                let cid = hashed(image, attempt);
                match take(cid) {
                    Ok(()) => return Ok(cid),
                    Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
                    Err(error) => return Err(RunError::io("set the connection id of", DEVICE)(error)),
                }
            }
            return Err(RunError::unfit("no connection id for VSock is free", "end another virtual machine"));
        }
    };
    match take(cid) {
        Ok(()) => Ok(cid),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => Err(RunError::unfit(
            format!("another virtual machine has the connection id {cid} ({how})"),
            "VSockCID=auto takes one that is free",
        )),
        Err(error) => Err(RunError::io("set the connection id of", DEVICE)(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_follow_from_the_path() {
        let one = hashed(Path::new("/a"), 0);
        assert_eq!(one, hashed(Path::new("/a"), 0));
        assert_ne!(one, hashed(Path::new("/b"), 0));
        assert_ne!(one, hashed(Path::new("/a"), 1));
        assert!((FIRST..=LAST).contains(&one));
    }
}
