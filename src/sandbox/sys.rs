//! The few system calls that no safe wrapper offers. Knows nothing of specifications.
#![allow(unsafe_code)]

use std::ffi::CString;
use std::io;
use std::mem::{size_of, zeroed};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::sys::signal::Signal;

/// `MOUNT_ATTR_RDONLY` of `mount_setattr(2)`.
pub const ATTR_RDONLY: u64 = 0x1;
/// `MOUNT_ATTR_NOSUID`.
pub const ATTR_NOSUID: u64 = 0x2;
/// `MOUNT_ATTR_NODEV`.
pub const ATTR_NODEV: u64 = 0x4;

/// `struct mount_attr` of `mount_setattr(2)`.
#[repr(C)]
struct MountAttr {
    attr_set: u64,
    attr_clr: u64,
    propagation: u64,
    userns_fd: u64,
}

fn check(result: libc::c_long) -> io::Result<libc::c_long> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Adds attributes to the mount that a descriptor stands for, and with `recursive` to all mounts below it.
pub fn set_mount_attributes(mount: BorrowedFd<'_>, attributes: u64, recursive: bool) -> io::Result<()> {
    let attr = MountAttr { attr_set: attributes, attr_clr: 0, propagation: 0, userns_fd: 0 };
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is a NUL-terminated empty string, and the structure is of the size that is passed.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const attr,
            size_of::<MountAttr>(),
        )
    };
    check(result).map(drop)
}

/// Has the kernel make the loop device of this number, through its control device.
pub fn add_loop_device(control: impl AsFd, number: u32) -> io::Result<()> {
    /// `LOOP_CTL_ADD` of `linux/loop.h`.
    const ADD: libc::c_ulong = 0x4c80;
    // SAFETY: the request takes a number and no pointer.
    check(unsafe { libc::ioctl(control.as_fd().as_raw_fd(), ADD as _, libc::c_ulong::from(number)) }.into()).map(drop)
}

/// What `fork(2)` returned.
pub enum Fork {
    /// In the parent: the child's process id.
    Parent(i32),
    /// In the child.
    Child,
}

/// Forks. Only for a process with a single thread, where everything may be called in the child.
pub fn fork() -> io::Result<Fork> {
    // SAFETY: the hidden entries that call this never start a thread, so the child may run any code.
    let result = unsafe { libc::fork() };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else if result == 0 {
        Ok(Fork::Child)
    } else {
        Ok(Fork::Parent(result))
    }
}

/// Moves this single-threaded process (with `CLONE_NEWPID`: its children) to new namespaces.
pub fn unshare(flags: libc::c_int) -> io::Result<()> {
    // SAFETY: none of the flags used here (namespaces) lets memory or descriptors be invalidated.
    check(libc::c_long::from(unsafe { libc::unshare(flags) })).map(drop)
}

/// Takes over a descriptor that was inherited under this number.
///
/// # Errors
/// When no such descriptor is open.
pub fn take_fd(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: F_GETFD only inspects.
    check(libc::c_long::from(unsafe { libc::fcntl(number, libc::F_GETFD) }))?;
    // SAFETY: the descriptor is open, and the hidden entries take each inherited number just once.
    let fd = unsafe { OwnedFd::from_raw_fd(number) };
    rustix::io::fcntl_setfd(fd.as_fd(), rustix::io::FdFlags::CLOEXEC)?;
    Ok(fd)
}

/// Lets the command's process keep these descriptors, under the same numbers. They stay closed on exec for every
/// other process that this one starts meanwhile.
pub fn keep_fds(command: &mut Command, fds: Vec<RawFd>) {
    // SAFETY: the closure calls fcntl alone, which is async-signal-safe, and allocates nothing.
    unsafe {
        command.pre_exec(move || {
            for fd in &fds {
                check(libc::c_long::from(libc::fcntl(*fd, libc::F_SETFD, 0)))?;
            }
            Ok(())
        });
    }
}

/// Marks every descriptor from 3 up as closed on exec.
pub fn close_on_exec_from_3() -> io::Result<()> {
    // SAFETY: only sets a flag on descriptors.
    check(unsafe { libc::syscall(libc::SYS_close_range, 3_u32, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) }).map(drop)
}

/// Gives every signal its default disposition and empties the mask, as a new program expects it.
pub fn reset_signals() {
    // Straight to the kernel: the C library keeps two signals to itself, which may have been inherited as ignored.
    // All zeros are SIG_DFL, no flags and an empty mask, whatever the order of the fields.
    let default = [0_u64; 8];
    for number in 1..=64_i32 {
        // SAFETY: the buffer is larger than the kernel's structure on every machine, and SIG_DFL installs no code.
        // The numbers that can't be changed fail harmlessly.
        unsafe {
            libc::syscall(libc::SYS_rt_sigaction, number, default.as_ptr(), std::ptr::null_mut::<u64>(), 8_usize)
        };
    }
    unblock_signals();
}

/// Blocks all signals but the ones that report a fault of the program itself, and drops no disposition but that of
/// SIGCHLD, which must not be ignored where children are waited for.
pub fn block_signals() {
    // SAFETY: the set is initialised by sigfillset before it is used; SIG_DFL installs no code.
    unsafe {
        libc::signal(libc::SIGCHLD, libc::SIG_DFL);
        let mut set: libc::sigset_t = zeroed();
        libc::sigfillset(&raw mut set);
        for fault in [libc::SIGSEGV, libc::SIGBUS, libc::SIGILL, libc::SIGFPE, libc::SIGABRT, libc::SIGTRAP] {
            libc::sigdelset(&raw mut set, fault);
        }
        libc::sigprocmask(libc::SIG_SETMASK, &raw const set, std::ptr::null_mut());
    }
}

/// Has the kernel bury children by itself.
pub fn ignore_children() {
    // SAFETY: SIG_IGN installs no code.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
}

/// Lets all signals through again.
pub fn unblock_signals() {
    // SAFETY: the set is initialised by sigemptyset before it is used.
    unsafe {
        let mut set: libc::sigset_t = zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const set, std::ptr::null_mut());
    }
}

/// Waits for the next blocked signal. The second value tells whether a process sent it (and not the terminal or
/// the kernel).
pub fn next_signal() -> (i32, bool) {
    loop {
        // SAFETY: both structures are plain data, the set is initialised by sigfillset before it is used.
        let (number, info) = unsafe {
            let mut set: libc::sigset_t = zeroed();
            let mut info: libc::siginfo_t = zeroed();
            libc::sigfillset(&raw mut set);
            (libc::sigwaitinfo(&raw const set, &raw mut info), info)
        };
        if number > 0 {
            return (number, info.si_code <= 0);
        }
    }
}

/// Sends a signal by number, and says nothing when the process is gone.
pub fn kill(pid: i32, signal: i32) {
    // 0 and the negative numbers stand for groups of processes.
    if pid <= 0 {
        return;
    }
    // SAFETY: no memory is involved.
    unsafe { libc::kill(pid, signal) };
}

/// Stops this process until it is continued. Nothing happens to process 1 of a namespace.
pub fn stop() {
    kill(i32::try_from(std::process::id()).unwrap_or(0), libc::SIGSTOP);
}

/// Ends this process by a signal, for a parent that looks at how its child ended.
pub fn die_by(signal: i32) -> ! {
    // A core file of this process would tell nothing about the one that really crashed.
    let _ = rustix::process::setrlimit(
        rustix::process::Resource::Core,
        rustix::process::Rlimit { current: Some(0), maximum: Some(0) },
    );
    reset_signals();
    if Signal::try_from(signal).is_ok() {
        kill(i32::try_from(std::process::id()).unwrap_or(0), signal);
    }
    std::process::exit(128 + signal)
}

/// Replaces this process by a program.
pub fn exec(path: &CString, argv: &[CString], env: &[CString]) -> io::Error {
    let pointers = |strings: &[CString]| -> Vec<*const libc::c_char> {
        strings.iter().map(|s| s.as_ptr()).chain([std::ptr::null()]).collect()
    };
    let (argv, env) = (pointers(argv), pointers(env));
    // SAFETY: both arrays end with a null pointer, and the strings outlive the call.
    unsafe { libc::execve(path.as_ptr(), argv.as_ptr(), env.as_ptr()) };
    io::Error::last_os_error()
}

/// Brings the loopback interface of this network namespace up.
pub fn loopback_up() -> io::Result<()> {
    let socket = rustix::net::socket_with(
        rustix::net::AddressFamily::INET,
        rustix::net::SocketType::DGRAM,
        rustix::net::SocketFlags::CLOEXEC,
        None,
    )?;
    // SAFETY: ifreq is plain data, and the request reads a NUL-terminated name and the flags out of it.
    unsafe {
        let mut request: libc::ifreq = zeroed();
        for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
            *to = *from as libc::c_char;
        }
        request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
        check(libc::c_long::from(libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request))).map(drop)
    }
}

/// Has users, groups and hosts looked up by the C library itself, in `/etc` and by DNS, whatever `/etc/nsswitch.conf`
/// says. Else a C library that is linked statically loads modules of the host's, which may be another version.
pub fn own_name_services() {
    #[cfg(target_env = "gnu")]
    {
        // <nss.h>: of the GNU C library alone.
        unsafe extern "C" {
            fn __nss_configure_lookup(database: *const libc::c_char, services: *const libc::c_char) -> libc::c_int;
        }
        for (database, services) in [(c"passwd", c"files"), (c"group", c"files"), (c"hosts", c"files dns")] {
            // SAFETY: two strings that end and that live as long as the program. Nothing was looked up yet.
            unsafe { __nss_configure_lookup(database.as_ptr(), services.as_ptr()) };
        }
    }
}

/// Takes a capability out of the bounding set, so that no program run from here on can have it. A capability that
/// this kernel doesn't know is passed over.
pub fn drop_capability(number: u32) -> io::Result<()> {
    // SAFETY: prctl with plain numbers.
    let result = unsafe { libc::prctl(libc::PR_CAPBSET_DROP, libc::c_ulong::from(number), 0, 0, 0) };
    match check(libc::c_long::from(result)) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(()),
        other => other.map(drop),
    }
}

/// Installs a system call filter for this process and all that it starts (`seccomp(2)`).
pub fn install_filter(program: &mut [libc::sock_filter]) -> io::Result<()> {
    let length = u16::try_from(program.len()).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
    let program = libc::sock_fprog { len: length, filter: program.as_mut_ptr() };
    // SAFETY: the program's length is that of the slice, which outlives the call.
    let result = unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program, 0, 0) };
    check(libc::c_long::from(result)).map(drop)
}
