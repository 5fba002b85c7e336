//! Scripts that try to change the host, to read what isn't theirs, or never to end: as root and as a user with
//! subordinate ids. Each way has to fail. These tests need root, and a user of their own.

#[path = "scripts/project.rs"]
mod project;

use std::io::Read;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use project::Project;

/// What a script gets to see of the victim, and how it tells of a success. `tried` counts, so that a script that ended
/// early is no success of ours.
const HEAD: &str = r#"
broke() { echo "BROKE: $*"; }
tried() { count=$((${count-0} + 1)); }
# must_fail WHAT COMMAND...
must_fail() { what=$1; shift; tried; if ("$@") >/dev/null 2>&1; then broke "$what"; fi; }
writes() { : >>"$1"; }
"#;

/// Ways that work alike for every kind of script. `@VICTIM@` is a directory of the host, `@DISK@` the numbers of the
/// device that it lies on, `@PID@` a process of the host, `@PORT@` and `@ABSTRACT@` sockets of the host.
const ATTACKS: &str = r#"
# The host's files.
for d in / /usr /usr/bin /usr/lib /etc /etc/alternatives /var /opt /home /root /boot /srv /bin /sbin /lib /proc /sys @VICTIM@; do
    must_fail "write to $d" writes "$d/hostile-@MARK@"
done
for d in /tmp /var/tmp /run /dev /dev/shm; do tried; : 2>/dev/null >"$d/hostile-@MARK@" || echo "can't write to $d"; done
must_fail "replace sh" rm -f /usr/bin/sh
must_fail "change a mode" chmod 4777 /usr/bin/env
tried; chown 12345 /usr/bin/env 2>/dev/null; [ "$(stat -c %u /usr/bin/env)" != 12345 ] || broke "change an owner"
must_fail "change a time" touch -d @0 /usr/bin/env
must_fail "read the victim" cat @VICTIM@/secret
must_fail "find the victim" sh -c 'find / -xdev -name secret-@MARK@ 2>/dev/null | grep -q .'
must_fail "read the victim through process 1" cat /proc/1/root@VICTIM@/secret
must_fail "read the host's passwords" cat /etc/shadow
# Mounts.
for what in / /usr /etc/passwd /proc/sys /run/mkosi/exe "$SRCDIR"; do
    must_fail "remount $what" mount -o remount,bind,rw "$what"
    must_fail "unmount $what" umount -l "$what"
done
mkdir -p /tmp/mnt
for type in proc sysfs devtmpfs tmpfs debugfs tracefs securityfs cgroup2 efivarfs configfs bpf mqueue devpts; do
    must_fail "mount $type" mount -t $type none /tmp/mnt
done
must_fail "bind" mount --bind /usr /tmp/mnt
must_fail "move the root" pivot_root /tmp/mnt /tmp/mnt
# Devices.
for d in /tmp /run /dev /dev/shm /var/tmp "${BUILDROOT-/tmp}" "${OUTPUTDIR-/tmp}" "${DESTDIR-/tmp}"; do
    rm -f "$d/disk"
    mknod "$d/disk" b @DISK@ 2>/dev/null; tried
    if [ -b "$d/disk" ] && head -c 1 "$d/disk" >/dev/null 2>&1; then broke "read the disk through $d"; fi
    must_fail "mount the disk" mount "$d/disk" /tmp/mnt
    rm -f "$d/disk"; mknod "$d/disk" c 1 1 2>/dev/null; tried
    if [ -c "$d/disk" ] && head -c 1 "$d/disk" >/dev/null 2>&1; then broke "read memory through $d"; fi
    rm -f "$d/disk"
done
# The kernel.
for file in sysrq-trigger sys/kernel/core_pattern sys/kernel/modprobe sys/vm/drop_caches sys/kernel/sysrq irq/default_smp_affinity; do
    must_fail "open /proc/$file" writes /proc/$file
done
for file in /sys/power/state /sys/kernel/uevent_helper /proc/kcore /proc/kmsg /proc/1/mem /proc/2/mem; do
    must_fail "open $file" writes $file
    must_fail "read $file" head -c 1 $file
done
for file in mem kmem kmsg port kvm fuse loop-control loop0 net/tun mapper/control sda vda nvme0n1; do
    must_fail "see the device $file" test -e /dev/$file
done
# System calls by number: forbidden ones have to fail as forbidden or absent, whatever their arguments.
call() {
    tried
    error=$(perl -e 'my ($n, @a) = @ARGV; $! = 0; syscall($n, map { /^\d+$/ ? $_ + 0 : $_ } @a); print $! + 0' "$@" 2>&1) || return 0
    case $error in 1|38) ;; *) broke "system call $*: error $error" ;; esac
}
if [ "$(uname -m)" = x86_64 ]; then
    call 175 0 0 0      # init_module
    call 313 0 0 0      # finit_module
    call 176 0 0        # delete_module
    call 246 0 0 0 0    # kexec_load
    call 169 0 0 0      # reboot
    call 227 99 0       # clock_settime
    call 164 0 0        # settimeofday
    call 167 0 0        # swapon
    call 163 0          # acct
    call 321 0 0 0      # bpf
    call 298 0 0 0 0 0  # perf_event_open
    call 304 0 0 0      # open_by_handle_at
    call 250 0 0 0 0 0  # keyctl
    call 103 10 0 0     # syslog
    call 1073742164 0   # a number of x32
    call 430 0 0        # fsopen
    for pid in 1 2; do
        call 101 16 $pid 0 0      # ptrace, attach
    done
fi
# A namespace of one's own gives no power over what was there.
tried
if unshare --user --map-root-user --mount sh -c 'mount -o remount,bind,rw /usr || mount -o remount,rw /usr || umount /proc/sys' >/dev/null 2>&1
then broke "mounts in a user namespace"; fi
must_fail "a disk in a user namespace" unshare --user --map-root-user sh -c 'mknod /tmp/ns-disk b @DISK@ && head -c 1 /tmp/ns-disk'
must_fail "a control group in a user namespace" unshare --user --map-root-user --mount --cgroup sh -c \
    'mount -t cgroup2 none /tmp/mnt && [ -e /tmp/mnt/cgroup.kill ] && [ -w /tmp/mnt/cgroup.kill ] && echo 0 >/tmp/mnt/cgroup.procs'
must_fail "enter namespaces of process 1" nsenter -t 1 -m -p cat @VICTIM@/secret
# Processes and sockets.
must_fail "signal a process of the host" kill -0 @PID@
if [ "${network-}" != yes ]; then
    must_fail "reach a port of the host" perl -e 'use Socket; socket(S, PF_INET, SOCK_STREAM, 0) or exit 1;
        connect(S, sockaddr_in(@PORT@, inet_aton("127.0.0.1"))) or exit 1'
    must_fail "reach an abstract socket of the host" perl -e 'use Socket; socket(S, PF_UNIX, SOCK_STREAM, 0) or exit 1;
        connect(S, pack("S a*", PF_UNIX, "\0@ABSTRACT@")) or exit 1'
fi
must_fail "change the host name" hostname hostile
must_fail "raise limits" prlimit --nofile=99999999 true
echo "tried $count"
"#;

/// The same in the image, where there are no tools for most of it: the rights that would be needed are gone.
const IN_IMAGE: &str = r#"
mkosi-chroot sh -c 'grep -E "^(CapEff|CapPrm|CapBnd|NoNewPrivs|Seccomp):" /proc/self/status' >/tmp/status
grep -E '^(CapEff|CapPrm|CapBnd|NoNewPrivs|Seccomp):' /proc/self/status >/tmp/own-status
tried; cmp -s /tmp/status /tmp/own-status || broke "more rights in the image: $(cat /tmp/status /tmp/own-status)"
must_fail "write to the host from the image" mkosi-chroot sh -c ': >>/proc/sys/kernel/core_pattern'
must_fail "see the victim from the image" mkosi-chroot cat @VICTIM@/secret
BUILDROOT=/ ; must_fail "enter what is no image" mkosi-chroot sh -c ': >/usr/hostile-@MARK@'
BUILDROOT=/usr; must_fail "enter the host's /usr" env BUILDROOT=/usr mkosi-chroot sh -c ': >/hostile-@MARK@'
BUILDROOT=/buildroot
echo "in the image too"
"#;

/// A directory of the host with something to steal and to destroy, and sockets of the host.
struct Victim {
    dir: tempfile::TempDir,
    port: std::net::TcpListener,
    abstract_name: String,
    _abstract: UnixListener,
    process: std::process::Child,
}

impl Victim {
    fn new(tag: &str) -> Self {
        use std::os::linux::net::SocketAddrExt;
        let dir = tempfile::Builder::new().prefix("victim-").tempdir_in("/var/tmp").unwrap();
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
        std::fs::write(dir.path().join("secret"), "secret").unwrap();
        let mark = dir.path().file_name().unwrap().to_string_lossy().into_owned();
        std::fs::write(dir.path().join(format!("secret-{mark}")), "").unwrap();
        let abstract_name = format!("mkosi-hostile-{tag}-{}", std::process::id());
        let address = std::os::unix::net::SocketAddr::from_abstract_name(&abstract_name).unwrap();
        Self {
            dir,
            port: std::net::TcpListener::bind("127.0.0.1:0").unwrap(),
            _abstract: UnixListener::bind_addr(&address).unwrap(),
            abstract_name,
            process: Command::new("sleep").arg("600").spawn().unwrap(),
        }
    }

    fn mark(&self) -> String {
        self.dir.path().file_name().unwrap().to_string_lossy().into_owned()
    }

    fn fill(&self, text: &str) -> String {
        let device = self.dir.path().metadata().unwrap().dev();
        let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
        // A process of the host whose number no sandbox comes to.
        let pid = self.process.id();
        text.replace("@VICTIM@", &self.dir.path().to_string_lossy())
            .replace("@MARK@", &self.mark())
            .replace("@DISK@", &format!("{major} {minor}"))
            .replace("@PID@", &pid.to_string())
            .replace("@PORT@", &self.port.local_addr().unwrap().port().to_string())
            .replace("@ABSTRACT@", &self.abstract_name)
    }

    /// Nothing has changed, here and where scripts may write to places of their own.
    fn check(&mut self) {
        assert!(self.process.try_wait().unwrap().is_none(), "the process was killed");
        let mut names: Vec<_> = std::fs::read_dir(self.dir.path())
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names, ["secret".to_owned(), format!("secret-{}", self.mark())]);
        assert_eq!(std::fs::read_to_string(self.dir.path().join("secret")).unwrap(), "secret");
        for place in ["/", "/usr", "/etc", "/tmp", "/var/tmp", "/run", "/dev", "/dev/shm"] {
            let path = Path::new(place).join(format!("hostile-{}", self.mark()));
            assert!(path.symlink_metadata().is_err(), "{}", path.display());
        }
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The logs of all stages of a project.
fn logs(project: &Project) -> String {
    let mut text = String::new();
    for entry in std::fs::read_dir(project.path().join("mkosi.cache/store/logs")).unwrap() {
        text.push_str(&std::fs::read_to_string(entry.unwrap().path()).unwrap());
    }
    text
}

const KINDS: [&str; 6] =
    ["mkosi.sync", "mkosi.prepare", "mkosi.build", "mkosi.postinst", "mkosi.finalize", "mkosi.postoutput"];

fn write_attacks(project: &Project, victim: &Victim) {
    for kind in KINDS {
        let network = if matches!(kind, "mkosi.sync" | "mkosi.prepare") { "network=yes" } else { "" };
        let image = if matches!(kind, "mkosi.sync" | "mkosi.postoutput") { "" } else { IN_IMAGE };
        let text = format!("set +eu\n{network}\n{HEAD}{ATTACKS}{image}");
        project.script(kind, &victim.fill(&text));
    }
}

fn check_log(log: &str) {
    let broke: Vec<&str> = log.lines().filter(|line| line.contains("BROKE")).collect();
    assert!(broke.is_empty(), "{}", broke.join("\n"));
    // `prepare` runs twice.
    let tried = log.lines().filter_map(|line| line.strip_prefix("tried ")).collect::<Vec<_>>();
    assert!(tried.len() == 7 && tried.iter().all(|n| n.parse::<u32>().unwrap() > 90), "{tried:?}");
    assert_eq!(log.matches("in the image too").count(), 5);
}

#[test]
fn nothing_of_the_host_is_changed_by_root() {
    let project = Project::new();
    let mut victim = Victim::new("root");
    write_attacks(&project, &victim);
    project.done(&[]);
    check_log(&logs(&project));
    victim.check();
}

#[test]
fn nothing_of_the_host_is_changed_by_a_user() {
    try_as_user("s", true);
}

#[test]
fn nothing_of_the_host_is_changed_by_a_user_without_subordinate_ids() {
    try_as_user("p", false);
}

fn try_as_user(tag: &str, ids: bool) {
    let tool = |command: &mut Command| {
        let ran = command.output().unwrap();
        assert!(ran.status.success(), "{command:?}: {}", String::from_utf8_lossy(&ran.stderr));
    };
    let name = format!("mkh{tag}{}", std::process::id());
    tool(Command::new("useradd").args(["--no-create-home", "--shell", "/bin/sh", &name]));
    struct Remove(String);
    impl Drop for Remove {
        fn drop(&mut self) {
            let _ = Command::new("userdel").arg(&self.0).output();
        }
    }
    let _remove = Remove(name.clone());
    if ids {
        tool(Command::new("usermod").args(["--add-subuids", "800000-865535", "--add-subgids", "800000-865535", &name]));
    } else {
        for file in ["/etc/subuid", "/etc/subgid"] {
            tool(Command::new("sed").args(["-i", &format!("/^{name}:/d"), file]));
        }
    }
    let project = Project::new_in(Path::new("/var/tmp"));
    let mut victim = Victim::new(tag);
    write_attacks(&project, &victim);
    let executable: PathBuf = project.path().join(".mkosi-executable");
    std::fs::copy(env!("CARGO_BIN_EXE_mkosi"), &executable).unwrap();
    tool(Command::new("chown").arg("-R").arg(format!("{name}:")).arg(project.path()));
    let mut command = Command::new("runuser");
    command.args(["-u", &name, "--"]).arg(&executable).arg("-C").arg(project.path());
    command.arg("--cache-directory").arg(project.path().join("mkosi.cache")).env_clear();
    command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("HOME", project.path()).current_dir("/");
    let ran = command.output().unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    check_log(&logs(&project));
    victim.check();
}

#[test]
fn links_in_outputs_lead_nowhere() {
    let project = Project::new();
    let mut victim = Victim::new("links");
    project.configure("[Content]\nPackageDirectories=debs\n[Build]\nBuildDirectory=mkosi.builddir\nBuildSourcesEphemeral=buildcache\n[Validation]\nHostname=x\n");
    let conf = project
        .read("mkosi.conf")
        .replace("[Validation]\nHostname", "[Content]\nHostname")
        .replace("BuildSources=src", "BuildSources=.");
    project.write("mkosi.conf", &conf);
    project.write("debs/a.deb", "a");
    project.write("out/sub/x", "");
    let links = victim.fill(
        "for d in $OUTPUTDIR $ARTIFACTDIR $PACKAGEDIR ${DESTDIR-$OUTPUTDIR}; do
             ln -sfn @VICTIM@ $d/directory; ln -sf @VICTIM@/secret $d/file; ln -sf @VICTIM@/new $d/new
         done
         ln -sf @VICTIM@/made $PACKAGEDIR/b.deb; rm -f $PACKAGEDIR/a.deb; ln -s @VICTIM@/a $PACKAGEDIR/a.deb",
    );
    project.script("mkosi.prepare", &victim.fill("rm -f $PACKAGEDIR/a.deb; ln -s @VICTIM@/a $PACKAGEDIR/a.deb"));
    project.script(
        "mkosi.build",
        &(links.clone()
            + &victim.fill(
                "\nrm -rf $SRCDIR/out $BUILDDIR/*; ln -s @VICTIM@ $SRCDIR/out; ln -s @VICTIM@ $BUILDDIR/link
                 mkdir -p $DESTDIR/usr; ln -s @VICTIM@ $DESTDIR/opt; ln -s ../../../../../../..@VICTIM@ $DESTDIR/srv",
            )),
    );
    project.script(
        "mkosi.postinst",
        &(links.clone()
            + &victim.fill(
                "\nrm -rf $BUILDROOT/etc $BUILDROOT/var; ln -s @VICTIM@ $BUILDROOT/etc; ln -s @VICTIM@ $BUILDROOT/var",
            )),
    );
    project.write("mkosi.extra/opt/from-extra", "x");
    project.write("mkosi.extra/srv/from-extra", "x");
    project.script("mkosi.finalize", "mkosi-chroot sh -c 'echo 1 >/etc/machine-id' || true; useradd -u 999 x || true");
    // Where the output directory is below a directory that a script makes a link of in the kept sources.
    project.write(
        "mkosi.conf",
        &project.read("mkosi.conf").replace("OutputDirectory=mkosi.output", "OutputDirectory=out/sub"),
    );
    // A file where the image has a link that leads out is an error or lies in the image; it is never on the host.
    let (_, said) = project.run(&[]);
    victim.check();
    // The scripts with the links did run.
    assert!(logs(&project).contains("running mkosi.build") && project.exists("mkosi.builddir"), "{said}");
    project.write("mkosi.extra/opt/from-extra", "y");
    let _ = project.run(&["-f"]);
    victim.check();
    assert_eq!(project.read("debs/a.deb"), "a");
}

/// Whether a process of the host has this among its arguments.
fn process_runs(argument: &str) -> bool {
    std::fs::read_dir("/proc").unwrap().flatten().any(|entry| {
        std::fs::read(entry.path().join("cmdline"))
            .is_ok_and(|line| line.split(|byte| *byte == 0).any(|arg| arg == argument.as_bytes()))
    })
}

#[test]
fn what_a_script_leaves_behind_dies_with_it() {
    let project = Project::new();
    let seconds = format!("8{}.5", std::process::id());
    project.script(
        "mkosi.postinst",
        &format!(
            "trap '' TERM HUP INT
             i=0; while [ $i -lt 200 ]; do setsid sh -c 'trap \"\" TERM HUP; sleep {seconds}; sleep {seconds}' >/dev/null 2>&1 & i=$((i + 1)); done
             setsid nohup sleep {seconds} & mkosi-chroot sh -c 'sleep {seconds} &' ; kill -STOP $! ; echo started"
        ),
    );
    let begun = Instant::now();
    project.done(&[]);
    assert!(begun.elapsed() < Duration::from_secs(300));
    assert!(!process_runs(&seconds));
}

#[test]
fn a_script_that_kills_everything_harms_itself_alone() {
    let project = Project::new();
    let mut victim = Victim::new("kill");
    project.script("mkosi.postinst", "kill -9 -1; kill -9 1; kill -9 2; exit 5");
    project.fails(&[]);
    victim.check();
    project.script(
        "mkosi.postinst",
        "kill -9 1; kill -9 2; sleep 0.1; mkosi-chroot true 2>/tmp/said && exit 1; test -s /tmp/said",
    );
    project.done(&[]);
}

#[test]
fn a_script_that_ignores_the_end_is_killed() {
    let project = Project::new();
    let seconds = format!("7{}.5", std::process::id());
    project.script("mkosi.postinst", &format!("trap '' TERM INT HUP QUIT; while :; do sleep {seconds} || :; done"));
    let mut child = project.command(&[]).stderr(std::process::Stdio::null()).spawn().unwrap();
    let begun = Instant::now();
    while !process_runs(&seconds) {
        assert!(begun.elapsed() < Duration::from_secs(300));
        std::thread::sleep(Duration::from_millis(20));
    }
    let pid = rustix::process::Pid::from_raw(child.id() as i32).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    assert!(!child.wait().unwrap().success());
    assert!(!process_runs(&seconds));
}

#[test]
fn a_flood_of_output_is_handled_in_bounded_memory() {
    let project = Project::new();
    // A line without an end, and more than the log keeps.
    project.script(
        "mkosi.postinst",
        "head -c 200M /dev/zero; yes $(head -c 4000 /dev/zero | tr '\\0' x) | head -c 200M; echo; echo the end; exit 6",
    );
    let mut child = project.command(&[]).stderr(std::process::Stdio::piped()).spawn().unwrap();
    let mut said = String::new();
    child.stderr.take().unwrap().take(1 << 20).read_to_string(&mut said).unwrap();
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
    if let Some(peak) = status.lines().find_map(|line| line.strip_prefix("VmHWM:")) {
        let kilobytes: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
        assert!(kilobytes < 300_000, "{kilobytes} kB");
    }
    assert!(!child.wait().unwrap().success());
    assert!(said.contains("the end") && said.contains("status 6"), "{said}");
    let log = std::fs::read_dir(project.path().join("mkosi.cache/store/logs")).unwrap();
    let largest = log.map(|entry| entry.unwrap().metadata().unwrap().len()).max().unwrap();
    assert!(largest < 300 << 20, "{largest}");
}

#[test]
fn a_script_that_fills_the_disk_fails_and_leaves_a_store_that_works() {
    let project = Project::new();
    let cache = project.path().join("mkosi.cache");
    std::fs::create_dir(&cache).unwrap();
    struct Mounted(PathBuf);
    impl Drop for Mounted {
        fn drop(&mut self) {
            let _ = Command::new("umount").arg("-l").arg(&self.0).status();
        }
    }
    let ran = Command::new("mount").args(["-t", "tmpfs", "-o", "size=96m", "none"]).arg(&cache).status().unwrap();
    assert!(ran.success());
    let mounted = Mounted(cache);
    for place in ["$OUTPUTDIR", "$BUILDROOT", "$SRCDIR", "$ARTIFACTDIR"] {
        project.script("mkosi.postinst", &format!("head -c 300M /dev/zero >{place}/big"));
        let text = project.fails(&[]);
        assert!(text.contains("No space left"), "{place}: {text}");
    }
    project.script("mkosi.postinst", "echo fine >$OUTPUTDIR/fine");
    project.done(&[]);
    assert_eq!(project.output("fine"), "fine\n");
    drop(mounted);
}
