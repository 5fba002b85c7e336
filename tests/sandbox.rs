//! Sandboxes, run for real. These tests need root: they make namespaces and mounts, and a user of their own.

use std::collections::BTreeMap;
use std::io::Write;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use mkosi::sandbox::{
    Cancel, Error, Exit, HostRoot, Input, Mount, Output, PATH, Spec, host_root, probe_overlay, probe_served,
    set_executable,
};

#[path = "sandbox/chroot.rs"]
mod chroot;
#[path = "sandbox/user.rs"]
mod user;

/// The host's tools and a shell command.
fn spec(script: &str) -> Spec {
    set_executable(PathBuf::from(env!("CARGO_BIN_EXE_mkosi")));
    Spec {
        argv: ["sh", "-c", script].map(str::to_owned).to_vec(),
        env: BTreeMap::from([("PATH".to_owned(), PATH.to_owned())]),
        mounts: host_root(&HostRoot::default()),
        ..Spec::default()
    }
}

fn run(spec: &Spec) -> Result<(Exit, String), Error> {
    let mut text = Vec::new();
    let exit = spec.run(Input::Null, Output::Merged(&mut text), &Cancel::default())?;
    Ok((exit, String::from_utf8(text).unwrap()))
}

/// Runs a command that must succeed, and gives what it printed.
fn output(spec: &Spec) -> String {
    let (exit, text) = run(spec).unwrap();
    assert_eq!(exit, Exit::Code(0), "{text}");
    text
}

fn setup_error(spec: &Spec) -> String {
    match run(spec) {
        Err(Error::Setup(text)) => text,
        other => panic!("{other:?}"),
    }
}

fn bind(source: &Path, target: &str, read_only: bool) -> Mount {
    Mount::Bind { source: source.to_owned(), target: target.into(), read_only, optional: false }
}

/// Waits until something holds; a minute is far more than any of it takes.
fn eventually(what: &str, holds: impl Fn() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(300), "{what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Whether a process of the host has this among its arguments.
fn process_runs(argument: &str) -> bool {
    std::fs::read_dir("/proc").unwrap().flatten().any(|entry| {
        std::fs::read(entry.path().join("cmdline"))
            .is_ok_and(|line| line.split(|byte| *byte == 0).any(|arg| arg == argument.as_bytes()))
    })
}

/// An argument for `sleep` that no other process has.
fn unique_seconds() -> String {
    static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let number = NEXT.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
    format!("9{}.{number}", std::process::id())
}

#[test]
fn what_takes_the_machine_is_ended() {
    let seconds = unique_seconds();
    let mut bomb = spec(&format!("i=0; while [ $i -lt 400 ]; do sleep {seconds} & i=$((i+1)); done; wait"));
    bomb.processes = 200;
    let error = bomb.run(Input::Null, Output::Merged(&mut Vec::new()), &Cancel::default()).unwrap_err().to_string();
    assert!(error.contains("more than 200 processes"), "{error}");
    assert!(!process_runs(&seconds));
    // `tail` keeps all that it is asked for, and then can't get rid of it.
    let mut eater = spec(&format!("head -c 300M /dev/zero | tail -c 300M | sleep {seconds}"));
    eater.memory = Some(100 << 20);
    let error = eater.run(Input::Null, Output::Merged(&mut Vec::new()), &Cancel::default()).unwrap_err().to_string();
    assert!(error.contains("MiB of memory"), "{error}");
    assert!(!process_runs(&seconds));
    // A sandbox that keeps to its bounds is left alone, and is the first to go where the kernel has to choose.
    let mut plain = spec("cat /proc/self/oom_score_adj; sleep 0.3");
    (plain.processes, plain.memory) = (200, Some(1 << 30));
    assert_eq!(output(&plain), "500\n");
}

#[test]
fn exit_status_and_signals_come_back() {
    assert_eq!(run(&spec("exit 0")).unwrap().0, Exit::Code(0));
    assert_eq!(run(&spec("exit 77")).unwrap().0, Exit::Code(77));
    assert_eq!(run(&spec("kill -TERM $$")).unwrap().0, Exit::Signal(15));
    assert_eq!(run(&spec("kill -KILL $$")).unwrap().0, Exit::Signal(9));
}

#[test]
fn the_environment_is_exactly_the_specified_one() {
    let mut spec = spec("");
    spec.argv = vec!["env".to_owned()];
    spec.env.insert("EMPTY".to_owned(), String::new());
    spec.env.insert("LINES_".to_owned(), "a\nb".to_owned());
    assert_eq!(output(&spec), format!("EMPTY=\nLINES_=a\nb\nPATH={PATH}\n"));
}

#[test]
fn identity_and_process_state_are_those_of_a_fresh_process() {
    let mut spec = spec(
        "id -u; id -g; umask; pwd; cat /proc/sys/kernel/hostname; ls /proc/self/fd | wc -l; \
         grep -E 'SigBlk|SigIgn' /proc/self/status; ps -o sid= -p $$ | tr -d ' '; echo $$",
    );
    spec.hostname = "box".to_owned();
    spec.umask = 0o027;
    spec.cwd = "/usr".into();
    let text = output(&spec);
    let lines: Vec<&str> = text.lines().collect();
    // 4 descriptors: the three streams and the one that ls reads the directory with.
    assert_eq!(lines[..6], ["0", "0", "0027", "/usr", "box", "4"], "{text}");
    assert!(lines[6..8].iter().all(|line| line.ends_with("0000000000000000")), "{text}");
    assert_eq!(lines[8], lines[9], "the command leads its own session: {text}");
}

#[test]
fn input_and_split_output_are_wired() {
    let bytes = vec![b'x'; 3 << 20];
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let command = spec("wc -c; echo problem >&2");
    let exit = command.run(Input::Bytes(&bytes), Output::Split(&mut out, &mut err), &Cancel::default()).unwrap();
    assert_eq!(exit, Exit::Code(0));
    assert_eq!(String::from_utf8(out).unwrap().trim(), bytes.len().to_string());
    assert_eq!(err, b"problem\n");
    // A command that doesn't read its input hangs nobody.
    let exit = spec("exit 3").run(Input::Bytes(&bytes), Output::Merged(&mut Vec::new()), &Cancel::default()).unwrap();
    assert_eq!(exit, Exit::Code(3));
}

#[test]
fn the_host_is_read_only_and_nearly_invisible() {
    let text = output(&spec(
        "for f in /usr/x /usr/bin/x /usr/bin/sh /etc/x /etc/passwd /x /var/x /run/mkosi/exe /sys/x /proc/sys/kernel/core_pattern; do
            (: >>$f) 2>/dev/null && echo \"wrote $f\"; done
         mkdir /x 2>/dev/null && echo made /x
         rm -f /usr/bin/env 2>/dev/null && echo removed
         for f in /tmp/x /run/x /var/tmp/x /dev/shm/x; do : >$f || echo \"could not write $f\"; done
         ls -A /; ls -A /etc; cat /etc/passwd",
    ));
    for bad in ["wrote", "made", "removed", "could not", "shadow", "root:$", "home", "boot", "ssh"] {
        assert!(!text.contains(bad), "{bad} in {text}");
    }
    assert!(text.contains("root:x:0:0") && text.contains("ld.so.cache"), "{text}");
    assert!(!Path::new("/tmp/x").exists() && !Path::new("/dev/shm/x").exists());
}

#[test]
fn rights_that_reach_the_machine_are_gone() {
    let text = output(&spec(
        "mknod /tmp/disk b 7 0 && (head -c1 /tmp/disk) 2>&1 | grep -c 'ermission denied'
         date -s 2001-01-01 >/dev/null 2>&1 && echo set the clock
         (echo b >/proc/sysrq-trigger) 2>/dev/null && echo pulled the trigger
         dmesg >/dev/null 2>&1 && echo read the kernel log
         grep -E 'NoNewPrivs|Seccomp:' /proc/self/status",
    ));
    assert_eq!(text, "1\nNoNewPrivs:\t1\nSeccomp:\t2\n");
}

#[test]
fn without_the_network_there_is_loopback_alone_and_it_is_up() {
    let text = output(&spec(
        "tail -n +3 /proc/net/dev | cut -d: -f1; ls /etc/resolv.conf 2>&1 | wc -l; tail -n +2 /proc/net/route",
    ));
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    assert_eq!(lines[..2], ["lo", "1"], "{text}");
    assert_eq!(lines.len(), 2, "there is a route: {text}");
    // The address of an interface that is down has no entry of its own in the table of local addresses.
    assert!(output(&spec("cat /proc/net/fib_trie")).contains("127.0.0.1"));
    let mut with = spec("tail -n +3 /proc/net/dev | cut -d: -f1");
    with.network = true;
    let host = std::fs::read_to_string("/proc/net/dev").unwrap();
    let expected: Vec<&str> = host.lines().skip(2).filter_map(|line| line.split(':').next()).collect();
    assert_eq!(output(&with).lines().collect::<Vec<_>>(), expected);
}

#[test]
fn only_its_own_processes_are_seen_and_what_is_left_dies() {
    let seconds = unique_seconds();
    let script = format!("ls /proc | grep -c '^[0-9]'; setsid nohup sleep {seconds} & sleep 0.1; echo $$");
    let start = Instant::now();
    let text = output(&spec(&script));
    let lines: Vec<&str> = text.lines().collect();
    // Process 1, the one that enters images, the shell, ls and grep.
    assert_eq!(lines, ["5", "3"], "{text}");
    assert!(start.elapsed() < Duration::from_secs(300), "the left-over process kept the pipe");
    assert!(!process_runs(&seconds));
}

#[test]
fn cancelling_ends_a_command_that_ignores_it() {
    let (seconds, cancel) = (unique_seconds(), Cancel::default());
    let command = spec(&format!("trap '' TERM; sleep {seconds} & sleep {seconds}; sleep {seconds}"));
    let start = Instant::now();
    std::thread::scope(|scope| {
        let running = scope.spawn(|| command.run(Input::Null, Output::Merged(&mut Vec::new()), &cancel));
        eventually("the command starts", || process_runs(&seconds));
        cancel.cancel();
        assert!(matches!(running.join().unwrap(), Err(Error::Cancelled)));
    });
    assert!(start.elapsed() > Duration::from_secs(2) && start.elapsed() < Duration::from_secs(300));
    assert!(!process_runs(&seconds));
    assert!(matches!(command.run(Input::Null, Output::Inherit, &cancel), Err(Error::Cancelled)));
}

#[test]
fn cancelling_lets_a_command_clean_up() {
    let dir = tempfile::tempdir().unwrap();
    let (seconds, cancel) = (unique_seconds(), Cancel::default());
    let mut command = spec(&format!("trap 'echo bye >/out/said; exit' TERM; sleep {seconds} & wait"));
    command.mounts.push(bind(dir.path(), "/out", false));
    std::thread::scope(|scope| {
        let running = scope.spawn(|| command.run(Input::Null, Output::Merged(&mut Vec::new()), &cancel));
        eventually("the command starts", || process_runs(&seconds));
        cancel.cancel();
        assert!(matches!(running.join().unwrap(), Err(Error::Cancelled)));
    });
    assert_eq!(std::fs::read_to_string(dir.path().join("said")).unwrap(), "bye\n");
}

/// Counts, and keeps nothing.
#[derive(Default)]
struct Counter {
    bytes: u64,
    fail_after: Option<u64>,
}

impl Write for Counter {
    fn write(&mut self, buffer: &[u8]) -> std::io::Result<usize> {
        self.bytes += buffer.len() as u64;
        match self.fail_after {
            Some(limit) if self.bytes > limit => Err(std::io::Error::from(std::io::ErrorKind::StorageFull)),
            _ => Ok(buffer.len()),
        }
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_gigabyte_of_output_streams_through() {
    let memory = || {
        let text = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = text.lines().find(|line| line.starts_with("VmHWM")).unwrap().to_owned();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
    };
    let before = memory();
    let mut counter = Counter::default();
    let command = spec("head -c 1G /dev/zero; (sleep 0.2; head -c 100 /dev/zero) & wait");
    command.run(Input::Null, Output::Merged(&mut counter), &Cancel::default()).unwrap();
    assert_eq!(counter.bytes, (1 << 30) + 100);
    assert!(memory() - before < 100 << 10, "{} KiB more", memory() - before);
}

#[test]
fn a_writer_that_fails_ends_the_command() {
    let mut counter = Counter { fail_after: Some(1 << 20), ..Counter::default() };
    let seconds = unique_seconds();
    let command = spec(&format!("sleep {seconds} & head -c 100M /dev/zero; sleep {seconds}"));
    let result = command.run(Input::Null, Output::Merged(&mut counter), &Cancel::default());
    assert!(matches!(&result, Err(Error::Output(error)) if error.kind() == std::io::ErrorKind::StorageFull));
    assert!(!process_runs(&seconds));
}

#[test]
fn a_hundred_lowers_with_long_and_odd_names() {
    let dir = tempfile::tempdir().unwrap();
    let long = "x".repeat(100);
    let lowers: Vec<PathBuf> = (0..100)
        .map(|number| {
            let lower = dir.path().join(format!("{long}:{number},\\"));
            std::fs::create_dir(&lower).unwrap();
            std::fs::write(lower.join(format!("file{number}")), "").unwrap();
            std::fs::write(lower.join("top"), number.to_string()).unwrap();
            lower
        })
        .collect();
    let (upper, work) = (dir.path().join("upper"), dir.path().join("work"));
    std::fs::create_dir(&upper).unwrap();
    std::fs::create_dir(&work).unwrap();
    let mut spec = spec("cd /image && ls | wc -l && cat top && rm file7 && echo new >added && mkdir -p d && rmdir d");
    let overlay = |upper| Mount::Overlay { lowers: lowers.clone(), upper, target: "/image".into() };
    spec.mounts.push(overlay(Some((upper.clone(), work))));
    assert_eq!(output(&spec), "101\n99");
    assert_eq!(std::fs::read_to_string(upper.join("added")).unwrap(), "new\n");
    let whiteout = upper.join("file7").symlink_metadata().unwrap();
    assert!(whiteout.file_type().is_char_device() && whiteout.rdev() == 0);
    assert_eq!(std::fs::read_dir(&upper).unwrap().count(), 2);
    // The same upper directory again: the mark of a volatile mount is not in the way.
    spec.argv[2] = "cat /image/added; ls /image/file7".to_owned();
    let (exit, text) = run(&spec).unwrap();
    assert!(text.starts_with("new\n") && exit != Exit::Code(0), "{text}");
    // Without an upper directory, and with one layer alone, it can only be read.
    spec.argv[2] = "cd /image; ls | wc -l; touch x".to_owned();
    *spec.mounts.last_mut().unwrap() = overlay(None);
    let (_, text) = run(&spec).unwrap();
    assert!(text.starts_with("101\n") && text.contains("Read-only"), "{text}");
    *spec.mounts.last_mut().unwrap() =
        Mount::Overlay { lowers: lowers[..1].to_vec(), upper: None, target: "/image".into() };
    let (_, text) = run(&spec).unwrap();
    assert!(text.starts_with("2\n") && text.contains("Read-only"), "{text}");
}

#[test]
fn an_upper_directory_on_nothing_takes_the_changes_itself() {
    let dir = tempfile::tempdir().unwrap();
    let upper = (dir.path().join("upper"), dir.path().join("work"));
    std::fs::create_dir(&upper.0).unwrap();
    let mut spec = spec("echo base >/image/file; rm -f /image/nothing");
    spec.mounts.push(Mount::Overlay { lowers: vec![], upper: Some(upper.clone()), target: "/image".into() });
    output(&spec);
    assert_eq!(std::fs::read_to_string(upper.0.join("file")).unwrap(), "base\n");
}

#[test]
fn errors_name_what_was_tried_and_where() {
    let dir = tempfile::tempdir().unwrap();
    let with = |mount: Mount| {
        let mut spec = spec("true");
        spec.mounts.push(mount);
        setup_error(&spec)
    };
    let text = with(bind(&dir.path().join("missing"), "/x", true));
    assert!(text.contains("missing") && text.contains("No such file"), "{text}");
    let text = with(bind(dir.path(), "/usr/no/such/place", true));
    assert!(text.contains("/usr/no") && text.contains("read-only"), "{text}");
    assert!(!Path::new("/usr/no").exists());
    let text = with(bind(dir.path(), "/etc/passwd", true));
    assert!(text.contains("/etc/passwd") && text.contains("not a directory"), "{text}");
    let lowers = vec![dir.path().join("a"), dir.path().join("b")];
    let text = with(Mount::Overlay { lowers, upper: None, target: "/x".into() });
    assert!(text.contains("lower directory") && text.contains("/a"), "{text}");
    let text = with(Mount::Overlay { lowers: vec![], upper: None, target: "/x".into() });
    assert!(text.contains("no directories") && text.contains("/x"), "{text}");
    let mut wrong = spec("true");
    wrong.cwd = "/no/such/dir".into();
    assert!(setup_error(&wrong).contains("/no/such/dir"));
    wrong = spec("");
    wrong.argv = vec!["no-such-program".to_owned()];
    assert!(setup_error(&wrong).contains("no-such-program"));
    wrong.argv = vec!["/etc/passwd".to_owned()];
    assert!(setup_error(&wrong).contains("executable"));
    wrong.argv = vec!["a\0b".to_owned()];
    assert!(setup_error(&wrong).contains("NUL"));
    wrong.argv.clear();
    assert!(setup_error(&wrong).contains("no command"));
}

#[test]
fn links_in_the_new_root_do_not_lead_out() {
    let dir = tempfile::tempdir().unwrap();
    let (image, host) = (dir.path().join("image"), dir.path().join("host"));
    std::fs::create_dir_all(image.join("etc")).unwrap();
    std::fs::create_dir(&host).unwrap();
    std::os::unix::fs::symlink(&host, image.join("out")).unwrap();
    std::os::unix::fs::symlink(format!("../../../../../../..{}", host.display()), image.join("up")).unwrap();
    let mut spec = spec("true");
    for link in ["out", "up"] {
        spec.mounts.truncate(host_root(&HostRoot::default()).len());
        spec.mounts.push(bind(&image, "/image", false));
        spec.mounts.push(Mount::Directory { target: format!("/image/{link}/made").into(), mode: 0o755 });
        let text = setup_error(&spec);
        assert!(text.contains(link) && text.contains("points to nothing"), "{text}");
    }
    assert_eq!(std::fs::read_dir(&host).unwrap().count(), 0);
}

#[test]
fn small_files_directories_and_a_writable_root() {
    let mut spec = spec(
        "cat /etc/motd; stat -c %a /etc/motd /deep/er; (echo x >/etc/motd) 2>/dev/null || echo refused; echo y >/y && cat /y",
    );
    spec.writable_root = true;
    spec.mounts.push(Mount::File { target: "/etc/motd".into(), contents: b"hi\n".to_vec(), mode: 0o640 });
    spec.mounts.push(Mount::Directory { target: "/deep/er".into(), mode: 0o2770 });
    assert_eq!(output(&spec), "hi\n640\n2770\nrefused\ny\n");
}

#[test]
fn dev_has_the_usual_nodes_and_a_terminal_can_be_made() {
    let text = output(&spec(
        "echo x >/dev/null; head -c2 /dev/zero | wc -c; head -c2 /dev/urandom | wc -c; echo y | cat /dev/stdin
         (echo z >/dev/full) 2>/dev/null || echo full; test -c /dev/ptmx && test -c /dev/tty && stat -c %a /dev/shm
         script -qec 'tty' /dev/null </dev/null",
    ));
    assert_eq!(text.replace('\r', ""), "2\n2\ny\nfull\n1777\n/dev/pts/0\n");
}

#[test]
fn nothing_stays_mounted_and_no_descriptor_stays_open() {
    let mounts = || std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let before = mounts();
    output(&spec("true"));
    assert_eq!(mounts(), before);
}

#[test]
fn the_probe_tells_whether_overlays_work() {
    spec("");
    let dir = tempfile::tempdir().unwrap();
    probe_overlay(dir.path()).unwrap();
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    let text = probe_overlay(Path::new("/proc")).unwrap_err();
    assert!(text.contains("/proc"), "{text}");
    probe_served(dir.path()).unwrap();
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    let text = probe_served(Path::new("/proc")).unwrap_err();
    assert!(text.contains("/proc"), "{text}");
}

#[test]
fn no_way_up_leads_to_the_host() {
    let text = output(&spec("ls /; echo --; ls /usr/..; echo --; grep -c ' / / ' /proc/self/mountinfo"));
    let parts: Vec<&str> = text.split("--\n").collect();
    assert_eq!(parts[0], parts[1], "{text}");
    assert_eq!(parts[2], "1\n", "more than one root is mounted");
}
