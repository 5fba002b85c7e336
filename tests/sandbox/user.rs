//! Sandboxes that are started as another process: without root, and with a parent that is killed.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use mkosi::sandbox::{Mount, Spec};

use super::{eventually, process_runs, spec, unique_seconds};

fn tool(command: &mut Command) {
    let ran = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}: these tests need it"));
    assert!(ran.status.success(), "{command:?}: {}", String::from_utf8_lossy(&ran.stderr));
}

/// An ordinary user, for as long as this lives.
struct User {
    name: String,
    /// A place that the user owns, with the executable.
    dir: tempfile::TempDir,
}

impl User {
    fn new(tag: &str) -> Self {
        let name = format!("mkt{tag}{}", std::process::id());
        tool(Command::new("useradd").args(["--no-create-home", "--shell", "/bin/sh", &name]));
        let dir = tempfile::tempdir().unwrap();
        let user = Self { name, dir };
        tool(Command::new("chown").arg(&user.name).arg(user.dir.path()));
        std::fs::copy(env!("CARGO_BIN_EXE_mkosi"), user.executable()).unwrap();
        std::fs::set_permissions(user.executable(), std::fs::Permissions::from_mode(0o755)).unwrap();
        user
    }

    fn executable(&self) -> PathBuf {
        self.dir.path().join("mkosi")
    }

    fn give_ids(&self, count: u32) {
        // Distributions differ in whether useradd gives ids by itself.
        for file in ["/etc/subuid", "/etc/subgid"] {
            let text = std::fs::read_to_string(file).unwrap_or_default();
            let others = text.lines().filter(|line| !line.starts_with(&format!("{}:", self.name)));
            let text: String = others.map(|line| format!("{line}\n")).collect();
            std::fs::write(file, text).unwrap();
        }
        let range = format!("700000-{}", 700_000 + count - 1);
        tool(Command::new("usermod").args(["--add-subuids", &range, "--add-subgids", &range, &self.name]));
    }

    fn run(&self, spec: &Spec) -> Output {
        let mut command = Command::new("runuser");
        command.args(["-u", &self.name, "--"]).arg(self.executable());
        start(&mut command, spec).wait_with_output().unwrap()
    }

    /// A copy of the specification that the user can run: the executable is where the user can read it.
    fn adapt(&self, mut spec: Spec) -> Spec {
        for mount in &mut spec.mounts {
            if let Mount::Bind { source, .. } = mount
                && source == Path::new(env!("CARGO_BIN_EXE_mkosi"))
            {
                *source = self.executable();
            }
        }
        spec
    }
}

impl Drop for User {
    fn drop(&mut self) {
        let _ = Command::new("userdel").arg(&self.name).output();
    }
}

fn start(command: &mut Command, spec: &Spec) -> Child {
    let mut child = command
        .arg("sandbox-run")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .current_dir("/")
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(&serde_json::to_vec(spec).unwrap()).unwrap();
    child
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// One test, since users and their ids are shared by the whole machine.
#[test]
fn an_ordinary_user_is_root_in_a_user_namespace() {
    let user = User::new("a");
    user.give_ids(65_536);
    let image = user.dir.path().join("image");
    let dirs = ["lower1", "lower2", "upper", "work"].map(|name| image.join(name));
    for dir in &dirs {
        std::fs::create_dir_all(dir).unwrap();
    }
    std::fs::write(dirs[0].join("gone"), "").unwrap();
    tool(Command::new("chown").arg("-R").arg(format!("{}:", user.name)).arg(&image));
    let [lower1, lower2, upper, work] = dirs;
    let overlay =
        Mount::Overlay { lowers: vec![lower1, lower2], upper: Some((upper.clone(), work)), target: "/i".into() };

    let with_overlay = |script: &str| {
        let mut spec = user.adapt(spec(script));
        spec.mounts.push(overlay.clone());
        spec
    };
    let ran = user.run(&with_overlay("id -u; cd /i && rm gone && touch mine theirs && chown 1000:65535 theirs && stat -c %u:%g mine theirs; (: >/usr/x) 2>&1 | grep -c -i read-only"));
    assert_eq!(text(&ran), "0\n0:0\n1000:65535\n1\n");
    assert_eq!(ran.status.code(), Some(0));
    use std::os::unix::fs::MetadataExt;
    let theirs = upper.join("theirs").metadata().unwrap();
    assert_eq!((theirs.uid(), theirs.gid()), (700_999, 765_534));
    assert_eq!(upper.join("gone").symlink_metadata().unwrap().rdev(), 0);

    // Exit status and signals pass through every process in between.
    assert_eq!(user.run(&user.adapt(spec("exit 42"))).status.code(), Some(42));
    // runuser reports a signal as a shell does.
    assert_eq!(user.run(&user.adapt(spec("kill -TERM $$"))).status.code(), Some(128 + 15));

    // mkosi-chroot there, too.
    super::chroot::make_image(&image.join("lower2"));
    tool(Command::new("chown").arg("-R").arg(format!("{}:", user.name)).arg(&image));
    let mut in_image = with_overlay("mkosi-chroot sh -c 'echo in $container; echo $$; exit 9'");
    in_image.env.insert("BUILDROOT".to_owned(), "/i".to_owned());
    let ran = user.run(&in_image);
    assert_eq!((text(&ran).as_str(), ran.status.code()), ("in mkosi\n2\n", Some(9)));

    // A short range is used for what it has.
    user.give_ids(10);
    let ran =
        user.run(&user.adapt(spec("tail -n1 /proc/self/uid_map; touch /tmp/x; chown 10 /tmp/x && chown 11 /tmp/x")));
    let said = text(&ran);
    assert!(
        said.split_whitespace().take(3).eq(["1", "700000", "10"]) && said.matches("Invalid argument").count() == 1,
        "{said}"
    );
    drop(user);

    let poor = User::new("b");
    for file in ["/etc/subuid", "/etc/subgid"] {
        let others = std::fs::read_to_string(file).unwrap_or_default();
        let others: String = others
            .lines()
            .filter(|line| !line.starts_with(&format!("{}:", poor.name)))
            .map(|line| format!("{line}\n"))
            .collect();
        std::fs::write(file, others).unwrap();
    }
    // Without ids the user is root all the same, and alone: a change of owner does nothing.
    let ran = poor.run(&poor.adapt(spec(
        "id -u; id -g; tail -n1 /proc/self/uid_map | grep -c ' 1$'; touch /tmp/x; chown 5:6 /tmp/x; stat -c %u:%g /tmp/x
         perl -e 'use POSIX; POSIX::setuid(7) or die; print $<, \"\\n\"'; (: >/usr/x) 2>&1 | grep -c -i read-only",
    )));
    assert_eq!((text(&ran).as_str(), ran.status.code()), ("0\n0\n1\n0:0\n0\n1\n", Some(0)));
    // What takes the machine is ended, whoever started it.
    let seconds = unique_seconds();
    let mut bomb = poor.adapt(spec(&format!("i=0; while [ $i -lt 400 ]; do sleep {seconds} & i=$((i+1)); done; wait")));
    bomb.processes = 200;
    let ran = poor.run(&bomb);
    assert!(text(&ran).contains("more than 200 processes"), "{}", text(&ran));
    assert!(!process_runs(&seconds));
}

#[test]
fn killing_the_parent_kills_everything() {
    let seconds = unique_seconds();
    let spec = spec(&format!("setsid sleep {seconds} & trap '' TERM HUP; sleep {seconds}; sleep {seconds}"));
    let mut child = start(&mut Command::new(env!("CARGO_BIN_EXE_mkosi")), &spec);
    eventually("the command starts", || process_runs(&seconds));
    child.kill().unwrap();
    child.wait().unwrap();
    eventually("everything is dead", || !process_runs(&seconds));
}

#[test]
fn no_descriptor_of_the_parent_gets_in() {
    let secret = tempfile::tempfile().unwrap();
    rustix::io::fcntl_setfd(&secret, rustix::io::FdFlags::empty()).unwrap();
    let text = super::output(&spec(
        "ls -l /proc/self/fd | grep -v -e ' 0 ' -e ' 1 ' -e ' 2 ' | grep -c -e deleted -e memfd; true",
    ));
    assert_eq!(text, "0\n");
}
