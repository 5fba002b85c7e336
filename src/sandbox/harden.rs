//! The rights that a sandboxed command doesn't have, even as root: capabilities and system calls that reach past its
//! namespaces. Knows nothing of specifications.

use super::fault::{Result, Tried};
use super::sys;

/// What is taken away.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Whether the network is the host's: then its settings may not be changed.
    pub(super) host_network: bool,
}

/// Capabilities (`linux/capability.h`) that no package or image step needs and that change the machine itself:
/// DAC_READ_SEARCH (opens files by handle, past the mounts; DAC_OVERRIDE still reads everything), SYS_MODULE,
/// SYS_RAWIO, SYS_PACCT, SYS_BOOT, SYS_TIME, SYS_TTY_CONFIG, AUDIT_CONTROL, MAC_OVERRIDE, MAC_ADMIN, SYSLOG,
/// WAKE_ALARM, BLOCK_SUSPEND, AUDIT_READ, PERFMON, BPF.
const DROPPED: [u32; 16] = [2, 16, 17, 20, 22, 25, 26, 30, 32, 33, 34, 35, 36, 37, 38, 39];
const NET_ADMIN: u32 = 12;

/// System calls that fail with EPERM. Most need a dropped capability anyway; this holds where a nested user namespace
/// gives one back.
const FORBIDDEN: [libc::c_long; 15] = [
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_acct,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_open_by_handle_at,
    libc::SYS_syslog,
];

/// System calls that fail with ENOSYS: the kernel's key rings are no part of any namespace. Programs (libcryptsetup,
/// PAM) have a way around a kernel without them, but none around one that refuses.
const ABSENT: [libc::c_long; 3] = [libc::SYS_add_key, libc::SYS_request_key, libc::SYS_keyctl];

impl Limits {
    /// Takes the rights away from this process, for good.
    pub(super) fn apply(&self) -> Result<()> {
        for capability in DROPPED.into_iter().chain(self.host_network.then_some(NET_ADMIN)) {
            sys::drop_capability(capability).tried(|| format!("drop capability number {capability}"))?;
        }
        rustix::thread::set_no_new_privs(true).tried(|| "forbid set-user-ID programs".to_owned())?;
        match sys::install_filter(&mut filter()) {
            // A kernel without seccomp filters: the dropped capabilities have to do.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(()),
            other => other.tried(|| "install the system call filter".to_owned()),
        }
    }
}

/// Offsets in `struct seccomp_data`; of 64-bit arguments the low half comes first on the machines supported.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const SECOND_ARGUMENT: u32 = 24;

/// `AUDIT_ARCH_*` of the system calls that the numbers above belong to.
#[cfg(target_arch = "x86_64")]
const NATIVE: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const NATIVE: u32 = 0xc000_00b7;
#[cfg(target_arch = "riscv64")]
const NATIVE: u32 = 0xc000_00f3;
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64")))]
const NATIVE: u32 = 0;

fn statement(code: u32, k: u32) -> libc::sock_filter {
    libc::sock_filter { code: code as u16, jt: 0, jf: 0, k }
}

fn jump_if_equal(k: u32, yes: u8, no: u8) -> libc::sock_filter {
    libc::sock_filter { code: (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16, jt: yes, jf: no, k }
}

/// The filter as a program for the kernel: native calls that are forbidden, and the two terminal requests that push
/// input into a shared terminal, fail with EPERM. Calls of another architecture (32-bit programs) pass.
fn filter() -> Vec<libc::sock_filter> {
    let load = |offset| statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset);
    let allow = statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW);
    let refuse = statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32);
    let mut program = vec![load(ARCHITECTURE), jump_if_equal(NATIVE, 1, 0), allow, load(NUMBER)];
    for call in FORBIDDEN {
        program.extend([jump_if_equal(call as u32, 0, 1), refuse]);
    }
    let absent = statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32);
    for call in ABSENT {
        program.extend([jump_if_equal(call as u32, 0, 1), absent]);
    }
    program.extend([
        jump_if_equal(libc::SYS_ioctl as u32, 1, 0),
        allow,
        load(SECOND_ARGUMENT),
        jump_if_equal(libc::TIOCSTI as u32, 1, 0),
        jump_if_equal(libc::TIOCLINUX as u32, 0, 1),
        refuse,
        allow,
    ]);
    program
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs the program as the kernel would, for a call number and a second argument.
    fn verdict(architecture: u32, number: u32, argument: u32) -> u32 {
        let program = filter();
        let (mut at, mut register) = (0, 0);
        loop {
            let step = program[at];
            at += 1;
            match u32::from(step.code) {
                code if code == libc::BPF_LD | libc::BPF_W | libc::BPF_ABS => {
                    register = match step.k {
                        NUMBER => number,
                        ARCHITECTURE => architecture,
                        SECOND_ARGUMENT => argument,
                        other => panic!("loads from {other}"),
                    };
                }
                code if code == libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K => {
                    at += usize::from(if register == step.k { step.jt } else { step.jf });
                }
                _ => return step.k,
            }
        }
    }

    #[test]
    fn the_filter_refuses_what_it_names_and_nothing_else() {
        let refuse = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;
        for call in FORBIDDEN {
            assert_eq!(verdict(NATIVE, call as u32, 0), refuse, "{call}");
            assert_eq!(verdict(NATIVE ^ 1, call as u32, 0), libc::SECCOMP_RET_ALLOW, "{call}");
        }
        for call in ABSENT {
            assert_eq!(verdict(NATIVE, call as u32, 0), libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32, "{call}");
        }
        for number in 0..600 {
            if !FORBIDDEN.iter().chain(&ABSENT).any(|call| *call == i64::from(number)) {
                assert_eq!(verdict(NATIVE, number, 0), libc::SECCOMP_RET_ALLOW, "{number}");
            }
        }
        assert_eq!(verdict(NATIVE, libc::SYS_ioctl as u32, libc::TIOCSTI as u32), refuse);
        assert_eq!(verdict(NATIVE, libc::SYS_ioctl as u32, libc::TIOCLINUX as u32), refuse);
        assert_eq!(verdict(NATIVE, libc::SYS_ioctl as u32, libc::TIOCGWINSZ as u32), libc::SECCOMP_RET_ALLOW);
    }
}
