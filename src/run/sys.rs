//! The system calls that no safe wrapper offers. Knows nothing of machines.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};

/// `VHOST_VSOCK_SET_GUEST_CID` of `linux/vhost.h`.
const SET_GUEST_CID: libc::c_ulong = 0x4008_AF60;

/// Gives the virtual machine behind an opening of `/dev/vhost-vsock` its connection id.
///
/// # Errors
/// `EADDRINUSE` when another machine has it.
pub fn set_guest_cid(device: BorrowedFd<'_>, cid: u64) -> io::Result<()> {
    // SAFETY: the request reads a 64-bit number from the pointer, which is valid for the call.
    let result = unsafe { libc::ioctl(device.as_raw_fd(), SET_GUEST_CID as _, &raw const cid) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Whether the kernel gives this process an io_uring(7).
pub fn has_io_uring() -> bool {
    // `struct io_uring_params` has 120 bytes, all of which may be zero.
    let mut parameters = [0_u64; 15];
    // SAFETY: the kernel reads and writes one structure of that size, which is aligned and valid for the call.
    let result = unsafe { libc::syscall(libc::SYS_io_uring_setup, 1, parameters.as_mut_ptr()) };
    let Ok(fd) = i32::try_from(result) else { return false };
    if fd < 0 {
        return false;
    }
    // SAFETY: the kernel has just made this descriptor for us, and nobody else knows of it.
    drop(unsafe { OwnedFd::from_raw_fd(fd) });
    true
}
