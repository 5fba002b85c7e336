//! The rights that a sandboxed command doesn't have, even as root: capabilities and system calls that reach past its
//! namespaces. Knows nothing of specifications.

use super::fault::{Result, Tried};
use super::{Rights, sys};

/// What is taken away.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Whether the network is the host's: then its settings may not be changed.
    pub(super) host_network: bool,
    /// Whether there is no user but root: then changes of owner do nothing, and succeed.
    pub(super) single_id: bool,
    /// What is left to the command all the same.
    pub(super) rights: Rights,
}

/// Capabilities (`linux/capability.h`) that no package or image step needs and that change the machine itself:
/// DAC_READ_SEARCH (opens files by handle, past the mounts; DAC_OVERRIDE still reads everything), SYS_MODULE,
/// SYS_RAWIO, SYS_PTRACE (reaches into the sandbox's own processes, which keep their rights; a debugger of one's own
/// processes needs none), SYS_PACCT, SYS_ADMIN (mounts; `mkosi-chroot` has the broker for them), SYS_BOOT, SYS_RESOURCE, SYS_TIME,
/// SYS_TTY_CONFIG, AUDIT_CONTROL, MAC_OVERRIDE, MAC_ADMIN, SYSLOG, WAKE_ALARM, BLOCK_SUSPEND, AUDIT_READ, PERFMON, BPF,
/// CHECKPOINT_RESTORE.
const DROPPED: [u32; 20] = [2, 16, 17, 19, 20, 21, 22, 24, 25, 26, 30, 32, 33, 34, 35, 36, 37, 38, 39, 40];
const NET_ADMIN: u32 = 12;
const SYS_ADMIN: u32 = 21;
const MAC_ADMIN: u32 = 33;

/// `CLONE_NEWUSER`: in a user namespace of its own a command of the real root would get back what was taken away.
const NEW_USER: u32 = 0x1000_0000;

/// Every `CLONE_NEW*` that `clone` takes.
const NEW_ANY: u32 = 0x7e02_0000;

/// System call numbers of one architecture.
struct Calls {
    /// `AUDIT_ARCH_*`.
    architecture: u32,
    /// Calls that fail with EPERM. Most need a dropped capability anyway; this holds where a nested user namespace gives
    /// one back.
    forbidden: &'static [libc::c_long],
    /// Calls that fail with EPERM for one that has SYS_ADMIN for labels alone: mounts and namespaces.
    mounts: &'static [libc::c_long],
    /// Calls that fail with ENOSYS: the kernel's key rings are no part of any namespace. Programs (libcryptsetup, PAM)
    /// have a way around a kernel without them, but none around one that refuses.
    absent: &'static [libc::c_long],
    /// Calls that change an owner, a user or a group. Where there is one id alone they would fail, and no package could
    /// be installed, so that they do nothing there: everything belongs to root.
    owners: &'static [libc::c_long],
    ioctl: libc::c_long,
    /// The calls whose first argument may hold [`NEW_USER`].
    namespaces: [libc::c_long; 2],
    /// Hands flags over in memory, where a filter can't see them; libraries fall back to `clone`.
    clone3: libc::c_long,
    /// Numbers from here on belong to another way of calling (x32), which nothing uses: ENOSYS.
    end: u32,
}

/// The calls of this program's own architecture.
const NATIVE: Calls = Calls {
    architecture: NATIVE_ARCHITECTURE,
    forbidden: &[
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
    ],
    mounts: &[
        libc::SYS_mount,
        libc::SYS_umount2,
        libc::SYS_pivot_root,
        libc::SYS_unshare,
        libc::SYS_setns,
        libc::SYS_sethostname,
        libc::SYS_setdomainname,
        libc::SYS_quotactl,
        libc::SYS_fanotify_init,
        // From here on the numbers are the same everywhere: open_tree, move_mount, fsopen, fsconfig, fsmount, fspick,
        // mount_setattr, quotactl_fd.
        428,
        429,
        430,
        431,
        432,
        433,
        442,
        443,
    ],
    absent: &[libc::SYS_add_key, libc::SYS_request_key, libc::SYS_keyctl],
    owners: &[
        #[cfg(target_arch = "x86_64")]
        libc::SYS_chown,
        #[cfg(target_arch = "x86_64")]
        libc::SYS_lchown,
        libc::SYS_fchown,
        libc::SYS_fchownat,
        libc::SYS_setgroups,
        libc::SYS_setuid,
        libc::SYS_setgid,
        libc::SYS_setreuid,
        libc::SYS_setregid,
        libc::SYS_setresuid,
        libc::SYS_setresgid,
        libc::SYS_setfsuid,
        libc::SYS_setfsgid,
    ],
    ioctl: libc::SYS_ioctl,
    namespaces: [libc::SYS_unshare, libc::SYS_clone],
    clone3: 435,
    end: 0x4000_0000,
};

/// `AUDIT_ARCH_*` of this program.
#[cfg(target_arch = "x86_64")]
const NATIVE_ARCHITECTURE: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const NATIVE_ARCHITECTURE: u32 = 0xc000_00b7;
#[cfg(target_arch = "riscv64")]
const NATIVE_ARCHITECTURE: u32 = 0xc000_00f3;
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64")))]
const NATIVE_ARCHITECTURE: u32 = 0;

/// The calls of 32-bit programs on x86-64 (`arch/x86/entry/syscalls/syscall_32.tbl`), in the order of [`NATIVE`]; then
/// `stime` and `clock_settime64`.
const I386: Calls = Calls {
    architecture: 0x4000_0003,
    forbidden: &[128, 350, 129, 283, 88, 87, 115, 79, 264, 51, 357, 336, 374, 342, 103, 25, 404],
    // The old umount as well.
    mounts: &[21, 52, 217, 310, 346, 74, 121, 131, 338, 428, 429, 430, 431, 432, 433, 442, 443, 22],
    absent: &[286, 287, 288],
    // chown, lchown, fchown, setgroups, set*id with 16-bit ids; those with 32-bit ids; fchownat.
    owners: &[
        182, 16, 95, 81, 23, 46, 70, 71, 164, 170, 138, 139, 198, 203, 204, 206, 207, 208, 210, 212, 213, 214, 215,
        216, 298,
    ],
    ioctl: 54,
    namespaces: [310, 120],
    clone3: 435,
    end: 0x4000_0000,
};

/// The calls of 32-bit programs on arm64 (`arch/arm/tools/syscall.tbl`), in the order of [`NATIVE`]; then
/// `clock_settime64`.
const ARM: Calls = Calls {
    architecture: 0x4000_0028,
    forbidden: &[128, 379, 129, 347, 88, 87, 115, 79, 262, 51, 386, 364, 388, 371, 103, 404],
    mounts: &[21, 52, 218, 337, 375, 74, 121, 131, 367, 428, 429, 430, 431, 432, 433, 442, 443],
    absent: &[309, 310, 311],
    // As on i386.
    owners: &[
        182, 16, 95, 81, 23, 46, 70, 71, 164, 170, 138, 139, 198, 203, 204, 206, 207, 208, 210, 212, 213, 214, 215,
        216, 325,
    ],
    ioctl: 54,
    namespaces: [337, 120],
    clone3: 435,
    end: 0x4000_0000,
};

/// Every architecture whose calls this machine takes.
const fn architectures() -> &'static [Calls] {
    if cfg!(target_arch = "x86_64") {
        &[NATIVE, I386]
    } else if cfg!(target_arch = "aarch64") {
        &[NATIVE, ARM]
    } else {
        &[NATIVE]
    }
}

impl Limits {
    /// Takes the rights away from this process, for good.
    pub(super) fn apply(&self) -> Result<()> {
        let kept = match self.rights {
            Rights::Usual => [].as_slice(),
            Rights::Labels | Rights::Mounts => &[SYS_ADMIN, MAC_ADMIN],
        };
        let dropped = DROPPED.into_iter().filter(|capability| !kept.contains(capability));
        for capability in dropped.chain(self.host_network.then_some(NET_ADMIN)) {
            sys::drop_capability(capability).tried(|| format!("drop capability number {capability}"))?;
        }
        rustix::thread::set_no_new_privs(true).tried(|| "forbid set-user-ID programs".to_owned())?;
        match sys::install_filter(&mut filter(super::userns::is_initial(), self.single_id, self.rights)) {
            // A kernel without seccomp filters: the dropped capabilities have to do.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(()),
            other => other.tried(|| "install the system call filter".to_owned()),
        }
    }
}

/// Offsets in `struct seccomp_data`; of 64-bit arguments the low half comes first on the machines supported.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const FIRST_ARGUMENT: u32 = 16;
const SECOND_ARGUMENT: u32 = 24;

fn statement(code: u32, k: u32) -> libc::sock_filter {
    libc::sock_filter { code: code as u16, jt: 0, jf: 0, k }
}

fn jump_if_equal(k: u32, yes: u8, no: u8) -> libc::sock_filter {
    libc::sock_filter { code: (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16, jt: yes, jf: no, k }
}

fn jump(code: u32, k: u32, yes: u8, no: u8) -> libc::sock_filter {
    libc::sock_filter { code: (libc::BPF_JMP | code | libc::BPF_K) as u16, jt: yes, jf: no, k }
}

/// The filter as a program for the kernel, each architecture's part after the other. Calls of an architecture that is not
/// among them can't be made on such a machine.
fn filter(real_root: bool, single_id: bool, rights: Rights) -> Vec<libc::sock_filter> {
    let load = |offset| statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset);
    let give = |what| statement(libc::BPF_RET | libc::BPF_K, what);
    let allow = give(libc::SECCOMP_RET_ALLOW);
    let refuse = give(libc::SECCOMP_RET_ERRNO | libc::EPERM as u32);
    let absent = give(libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32);
    let nothing = give(libc::SECCOMP_RET_ERRNO);
    let mut program = vec![load(ARCHITECTURE)];
    for calls in architectures() {
        let mut part = vec![load(NUMBER), jump(libc::BPF_JGE, calls.end, 0, 1), absent];
        let mounts = calls.mounts.iter().filter(|_| rights == Rights::Labels);
        for call in calls.forbidden.iter().chain(mounts) {
            part.extend([jump_if_equal(*call as u32, 0, 1), refuse]);
        }
        for call in calls.absent {
            part.extend([jump_if_equal(*call as u32, 0, 1), absent]);
        }
        for call in calls.owners.iter().filter(|_| single_id) {
            part.extend([jump_if_equal(*call as u32, 0, 1), nothing]);
        }
        if real_root {
            part.extend([jump_if_equal(calls.clone3 as u32, 0, 1), absent]);
            for call in calls.namespaces {
                part.extend([
                    jump_if_equal(call as u32, 0, 4),
                    load(FIRST_ARGUMENT),
                    jump(libc::BPF_JSET, if rights == Rights::Labels { NEW_ANY } else { NEW_USER }, 0, 1),
                    refuse,
                    allow,
                ]);
            }
        }
        part.extend([
            jump_if_equal(calls.ioctl as u32, 1, 0),
            allow,
            load(SECOND_ARGUMENT),
            jump_if_equal(libc::TIOCSTI as u32, 1, 0),
            jump_if_equal(libc::TIOCLINUX as u32, 0, 1),
            refuse,
            allow,
        ]);
        // A conditional jump reaches 255 steps at most; the plain one any number.
        program.push(jump_if_equal(calls.architecture, 1, 0));
        program.push(statement(libc::BPF_JMP | libc::BPF_JA, part.len() as u32));
        program.extend(part);
    }
    program.push(allow);
    program
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs the program as the kernel would, for a call number and the low halves of its first two arguments.
    fn verdict(real_root: bool, architecture: u32, number: u32, arguments: [u32; 2]) -> u32 {
        run(&filter(real_root, false, Rights::Usual), architecture, number, arguments)
    }

    fn run(program: &[libc::sock_filter], architecture: u32, number: u32, arguments: [u32; 2]) -> u32 {
        let (mut at, mut register) = (0, 0);
        loop {
            let step = program[at];
            at += 1;
            let mut branch = |holds: bool| at += usize::from(if holds { step.jt } else { step.jf });
            match u32::from(step.code) {
                code if code == libc::BPF_LD | libc::BPF_W | libc::BPF_ABS => {
                    register = match step.k {
                        NUMBER => number,
                        ARCHITECTURE => architecture,
                        FIRST_ARGUMENT => arguments[0],
                        SECOND_ARGUMENT => arguments[1],
                        other => panic!("loads from {other}"),
                    };
                }
                code if code == libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K => branch(register == step.k),
                code if code == libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K => branch(register >= step.k),
                code if code == libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K => branch(register & step.k != 0),
                code if code == libc::BPF_JMP | libc::BPF_JA => at += step.k as usize,
                _ => return step.k,
            }
        }
    }

    const REFUSED: u32 = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;
    const ABSENT: u32 = libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32;

    #[test]
    fn with_one_id_a_change_of_owner_does_nothing() {
        let program = filter(false, true, Rights::Usual);
        for calls in architectures() {
            for number in 0..600 {
                let expected = match calls.owners.contains(&number) {
                    true => libc::SECCOMP_RET_ERRNO,
                    false => verdict(false, calls.architecture, number as u32, [0, 0]),
                };
                assert_eq!(run(&program, calls.architecture, number as u32, [0, 0]), expected, "{number}");
            }
        }
    }

    #[test]
    fn labels_come_without_mounts_and_namespaces() {
        let (labels, mounts) = (filter(true, false, Rights::Labels), filter(true, false, Rights::Mounts));
        for calls in architectures() {
            for number in (0..600).filter(|number| !calls.namespaces.contains(number)) {
                let usual = verdict(true, calls.architecture, number as u32, [0, 0]);
                let expected = if calls.mounts.contains(&number) { REFUSED } else { usual };
                assert_eq!(run(&labels, calls.architecture, number as u32, [0, 0]), expected, "{number}");
                assert_eq!(run(&mounts, calls.architecture, number as u32, [0, 0]), usual, "{number}");
            }
            let [unshare, clone] = calls.namespaces.map(|call| call as u32);
            let new = |kind: libc::c_int| [kind as u32 | 0x11, 0];
            assert_eq!(run(&labels, calls.architecture, unshare, [0, 0]), REFUSED);
            assert_eq!(run(&labels, calls.architecture, clone, new(libc::CLONE_NEWNS)), REFUSED);
            assert_eq!(run(&labels, calls.architecture, clone, new(0)), libc::SECCOMP_RET_ALLOW);
            assert_eq!(run(&mounts, calls.architecture, unshare, new(libc::CLONE_NEWNS)), libc::SECCOMP_RET_ALLOW);
            assert_eq!(run(&mounts, calls.architecture, unshare, new(NEW_USER as libc::c_int)), REFUSED);
        }
    }

    #[test]
    fn the_filter_refuses_what_it_names_and_nothing_else() {
        for calls in architectures() {
            let of = |real_root, number: libc::c_long, arguments| {
                verdict(real_root, calls.architecture, number as u32, arguments)
            };
            for number in 0..600 {
                let expected = match () {
                    () if calls.forbidden.contains(&number) => REFUSED,
                    () if calls.absent.contains(&number) => ABSENT,
                    () => libc::SECCOMP_RET_ALLOW,
                };
                assert_eq!(of(false, number, [0, 0]), expected, "{number}");
                let expected = if number == calls.clone3 { ABSENT } else { expected };
                assert_eq!(of(true, number, [0, 0]), expected, "{number}");
            }
            for request in [libc::TIOCSTI, libc::TIOCLINUX] {
                assert_eq!(of(true, calls.ioctl, [0, request as u32]), REFUSED);
            }
            assert_eq!(of(true, calls.ioctl, [0, libc::TIOCGWINSZ as u32]), libc::SECCOMP_RET_ALLOW);
            for call in calls.namespaces {
                assert_eq!(of(true, call, [NEW_USER | 0x11, 0]), REFUSED);
                assert_eq!(of(true, call, [0x11, NEW_USER]), libc::SECCOMP_RET_ALLOW);
                assert_eq!(of(false, call, [NEW_USER, 0]), libc::SECCOMP_RET_ALLOW);
            }
            assert_eq!(verdict(true, calls.architecture, 0x4000_0000 + 165, [0, 0]), ABSENT);
        }
        assert_eq!(verdict(true, 1, libc::SYS_bpf as u32, [0, 0]), libc::SECCOMP_RET_ALLOW);
    }
}
