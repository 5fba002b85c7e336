//! `mkosi-chroot`, in an image made of the host's shell and a few tools.

use std::collections::BTreeSet;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use mkosi::sandbox::{Exit, HostRoot, Mount, Spec, host_root};

use super::{bind, eventually, output, process_runs, run, spec, unique_seconds};

const TOOLS: [&str; 12] =
    ["sh", "cat", "env", "ls", "sleep", "touch", "id", "stat", "readlink", "mkdir", "grep", "pwd"];

/// Copies these programs of the host and the libraries that they need.
pub fn make_image(root: &Path) {
    let mut files = BTreeSet::new();
    for name in TOOLS {
        let path = ["/usr/bin", "/bin"].map(|dir| Path::new(dir).join(name)).into_iter().find(|path| path.exists());
        let path = path.unwrap_or_else(|| panic!("{name} is missing on this host"));
        let ldd = Command::new("ldd").arg(&path).output().unwrap();
        let text = String::from_utf8(ldd.stdout).unwrap();
        files.extend(text.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from));
        let target = root.join("bin").join(name);
        std::fs::create_dir_all(root.join("bin")).unwrap();
        std::fs::copy(path, target).unwrap();
    }
    for file in files {
        let target = root.join(file.strip_prefix("/").unwrap());
        std::fs::create_dir_all(target.parent().unwrap()).unwrap();
        std::fs::copy(file, target).unwrap();
    }
    std::fs::create_dir_all(root.join("etc")).unwrap();
}

struct Image {
    dir: tempfile::TempDir,
}

impl Image {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        make_image(&dir.path().join("root"));
        Self { dir }
    }

    fn root(&self) -> PathBuf {
        self.dir.path().join("root")
    }

    /// A sandbox with the image at `$BUILDROOT`.
    fn spec(&self, script: &str) -> Spec {
        let mut spec = spec(script);
        spec.mounts.push(bind(&self.root(), "/buildroot", false));
        spec.env.insert("BUILDROOT".to_owned(), "/buildroot".to_owned());
        spec
    }

    /// Every path in the image.
    fn listing(&self) -> String {
        let find = Command::new("find").arg(self.root()).args(["-printf", "%P %y %m %l\n"]).output().unwrap();
        let mut lines: Vec<String> = String::from_utf8(find.stdout).unwrap().lines().map(str::to_owned).collect();
        lines.sort();
        lines.join("\n")
    }
}

#[test]
fn it_runs_in_the_image_and_leaves_no_trace() {
    let image = Image::new();
    let before = image.listing();
    let source = tempfile::tempdir().unwrap();
    std::fs::write(source.path().join("code"), "the code\n").unwrap();
    let mut spec = image.spec(
        "cd /work/src; mkosi-chroot sh -c 'pwd; cat code /run/host/container-manager; echo $SRCDIR $container ${BUILDROOT-none}
            ls /; id -u; echo $$; : >/dev/null && : >/tmp/shared && ls /proc/self >/dev/null'
         ls /tmp",
    );
    spec.env.insert("CHROOT_SRCDIR".to_owned(), "/work/src".to_owned());
    spec.mounts.push(bind(source.path(), "/work/src", true));
    let text = output(&spec);
    let root: Vec<&str> = text.lines().collect();
    assert_eq!(root[..4], ["/work/src", "the code", "mkosi", "/work/src mkosi none"], "{text}");
    assert!(!text.contains("buildroot") && text.contains("work\n0\n2\nshared\n"), "{text}");
    assert_eq!(image.listing(), before);
    let inside = output(&{
        let mut spec = spec;
        spec.argv[2] = "mkosi-chroot touch /made; mkosi-chroot ls /made /work".to_owned();
        spec
    });
    assert_eq!(inside, "/made\n\n/work:\nsrc\n");
    assert!(image.root().join("made").exists() && !image.root().join("work").exists());
}

#[test]
fn status_signals_and_input_pass_through() {
    let image = Image::new();
    assert_eq!(run(&image.spec("exec mkosi-chroot sh -c 'exit 33'")).unwrap().0, Exit::Code(33));
    assert_eq!(run(&image.spec("exec mkosi-chroot sh -c 'kill -KILL $$'")).unwrap().0, Exit::Signal(9));
    assert_eq!(output(&image.spec("echo piped | mkosi-chroot cat")), "piped\n");
    let script = "mkosi-chroot sh -c 'trap \"echo got it; exit 5\" TERM; while :; do sleep 0.01; done' & \
                  sleep 0.3; kill -TERM $!; wait $!; echo $?";
    assert_eq!(output(&image.spec(script)), "got it\n5\n");
}

#[test]
fn a_missing_command_or_shell_is_named() {
    let image = Image::new();
    let (exit, text) = run(&image.spec("exec mkosi-chroot no-such-tool")).unwrap();
    assert!(exit == Exit::Code(127) && text.contains("no-such-tool") && text.contains("image"), "{exit:?} {text}");
    std::fs::remove_file(image.root().join("bin/sh")).unwrap();
    let (exit, text) = run(&image.spec("exec mkosi-chroot sh -c true")).unwrap();
    assert!(exit == Exit::Code(127) && text.contains("could not run sh"), "{exit:?} {text}");
    let mut nowhere = image.spec("exec mkosi-chroot true");
    nowhere.env.insert("BUILDROOT".to_owned(), "/nowhere".to_owned());
    let (exit, text) = run(&nowhere).unwrap();
    assert!(exit == Exit::Code(125) && text.contains("/nowhere") && text.contains("BUILDROOT"), "{exit:?} {text}");
}

#[test]
fn what_a_command_leaves_behind_dies_with_it() {
    let image = Image::new();
    let seconds = unique_seconds();
    let script = format!(
        "mkosi-chroot sh -c 'sleep {seconds} & sleep 0.1'; ps -A -o comm= >/tmp/all; grep -c '^sleep$' /tmp/all; grep -c '^sh$' /tmp/all"
    );
    assert_eq!(output(&image.spec(&script)), "0\n1\n");
    eventually("nothing is left", || !process_runs(&seconds));
}

#[test]
fn several_at_once_share_the_mount_points() {
    let image = Image::new();
    let before = image.listing();
    let script = "for i in 1 2 3 4 5 6 7 8; do mkosi-chroot sh -c \"sleep 0.0$i; cat /work/src/x; sleep 0.0$i; cat /work/src/x\" & done; wait";
    let mut spec = image.spec(script);
    spec.mounts.push(Mount::File { target: "/work/src/x".into(), contents: b"x\n".to_vec(), mode: 0o644 });
    assert_eq!(output(&spec), "x\n".repeat(16));
    assert_eq!(image.listing(), before);
}

#[test]
fn links_of_the_image_do_not_lead_out() {
    let image = Image::new();
    // Not under /tmp, since the image's own link of that name would be part of the way.
    let host = tempfile::tempdir_in("/var/lib").unwrap();
    for name in ["work", "tmp", "run"] {
        symlink(host.path().join(name), image.root().join(name)).unwrap();
    }
    std::fs::remove_dir(image.root().join("etc")).unwrap();
    symlink("/etc", image.root().join("etc")).unwrap();
    let before = image.listing();
    let mut spec = image.spec("mkosi-chroot sh -c 'cat /work/src/x; : >/tmp/here; readlink /etc'");
    spec.mounts.push(Mount::File { target: "/work/src/x".into(), contents: b"x\n".to_vec(), mode: 0o644 });
    assert_eq!(output(&spec), "x\n/etc\n");
    assert_eq!(image.listing(), before);
    assert_eq!(std::fs::read_dir(host.path()).unwrap().count(), 0);
}

#[test]
fn name_resolution_is_mounted_over_and_the_machine_id_protected() {
    let image = Image::new();
    let etc = image.root().join("etc");
    let with_resolv = |script: &str| {
        let mut spec = image.spec(script);
        spec.mounts.push(Mount::File {
            target: "/etc/resolv.conf".into(),
            contents: b"nameserver x\n".to_vec(),
            mode: 0o644,
        });
        spec
    };
    let script = "mkosi-chroot sh -c 'cat /etc/resolv.conf; echo 0123 >/etc/machine-id; cat /etc/machine-id'";
    // Missing in the image.
    let before = image.listing();
    assert_eq!(output(&with_resolv(script)), "nameserver x\n0123\n");
    assert_eq!(image.listing(), before);
    // A link to a file that only a running system has, and an empty machine ID.
    symlink("../run/systemd/resolve/stub-resolv.conf", etc.join("resolv.conf")).unwrap();
    std::fs::write(etc.join("machine-id"), "").unwrap();
    let before = image.listing();
    assert_eq!(output(&with_resolv(script)), "nameserver x\n0123\n");
    assert_eq!(image.listing(), before);
    assert_eq!(std::fs::read_to_string(etc.join("machine-id")).unwrap(), "");
    // A machine ID that was set on purpose is the image's own.
    std::fs::write(etc.join("machine-id"), "uninitialized\n").unwrap();
    assert_eq!(output(&image.spec("mkosi-chroot cat /etc/machine-id")), "uninitialized\n");
}

#[test]
fn it_works_on_an_overlay_and_leaves_the_upper_directory_clean() {
    let image = Image::new();
    let dirs = ["extra", "upper", "work"].map(|name| image.dir.path().join(name));
    dirs.iter().for_each(|dir| std::fs::create_dir(dir).unwrap());
    let [extra, upper, work] = dirs;
    let mut spec = spec("mkosi-chroot touch /new; mkosi-chroot sh -c 'ls /work; touch /etc/conf'");
    spec.env.insert("BUILDROOT".to_owned(), "/buildroot".to_owned());
    let lowers = vec![image.root(), extra];
    spec.mounts.push(Mount::Overlay { lowers, upper: Some((upper.clone(), work)), target: "/buildroot".into() });
    spec.mounts.push(Mount::Directory { target: "/work/out".into(), mode: 0o755 });
    assert_eq!(spec.mounts.len(), host_root(&HostRoot::default()).len() + 2);
    assert_eq!(output(&spec), "out\n");
    let find = Command::new("find").arg(&upper).args(["-printf", "%P\n"]).output().unwrap();
    let mut paths: Vec<_> = std::str::from_utf8(&find.stdout).unwrap().lines().collect();
    paths.sort_unstable();
    assert_eq!(paths, ["", "etc", "etc/conf", "new"]);
}

#[test]
fn a_killed_caller_takes_the_command_with_it() {
    let image = Image::new();
    let seconds = unique_seconds();
    let script = format!(
        "mkosi-chroot sh -c 'trap \"\" TERM; sleep {seconds}' & caller=$!
         until ps -A -o args= | grep -q '^sleep {seconds}'; do sleep 0.05; done
         kill -KILL $caller
         until ! ps -A -o args= | grep -q '^sleep {seconds}'; do sleep 0.05; done; echo gone"
    );
    assert_eq!(output(&image.spec(&script)), "gone\n");
}

#[test]
fn a_command_within_has_the_image_prepared_and_its_users() {
    let image = Image::new();
    std::fs::write(image.root().join("etc/passwd"), "root:x:0:0::/:/bin/sh\nours:x:4711:4711::/:/bin/sh\n").unwrap();
    let before = image.listing();
    let text = output(&image.spec(
        "cd /usr; mkosi-within sh -c 'pwd; id -u ours; ls /usr/bin/env; echo $BUILDROOT
             test -e /buildroot/proc/self/stat && cat /buildroot/run/host/container-manager; exit 0'
         ls /buildroot/run/host 2>&1 | grep -c 'No such'",
    ));
    assert_eq!(text, "/usr\n4711\n/usr/bin/env\n/buildroot\nmkosi\n1\n");
    assert_eq!(image.listing(), before);
}

#[test]
fn no_command_may_mount_or_look_into_the_broker() {
    let image = Image::new();
    let text = output(&image.spec(
        "for pid in 1 2; do head -c 1 /proc/$pid/environ 2>/dev/null && echo read; 
             for f in /proc/$pid/root /proc/$pid/cwd /proc/$pid/exe /proc/$pid/fd/*; do readlink $f; ls -d $f/. 2>/dev/null; cat $f 2>/dev/null; done; done
         mount -t tmpfs none /tmp 2>/dev/null && echo mounted
         mkosi-chroot cat /proc/self/status | grep CapBnd >/tmp/a; grep CapBnd /proc/self/status | cmp - /tmp/a && echo same",
    ));
    assert_eq!(text, "same\n");
}
