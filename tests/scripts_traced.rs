//! What a script reads of its sources is noted, and nothing else of them runs it again. These tests need root, and a
//! user of their own.

#[path = "scripts/project.rs"]
mod project;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use project::Project;

/// Reads in every way that there is, each of files of its own.
const READER: &str = r#"
cd $SRCDIR
cat plain >/dev/null
python3 -I -c 'import mmap, os
f = os.open("mapped", os.O_RDONLY)
print(mmap.mmap(f, 0, prot=mmap.PROT_READ)[:1])'
./tool
cat link/inside >/dev/null
. ./sourced
if [ -e absent ]; then cat absent; fi
[ ! -e nowhere/below ]
ls listed >/dev/null
readlink pointer >/dev/null
stat -c %a looked >/dev/null
seq 1 200 | xargs -P 8 -I @ cat many/@ >/dev/null
cat hard-one >/dev/null
find found -type f -exec cat {} + >/dev/null
cp -a copied $BUILDROOT/copied
echo changed >plain; echo new >made; rm -r gone; mv moved elsewhere; cat plain made elsewhere
"#;

fn reader(project: &Project) {
    for name in ["plain", "mapped", "sourced", "looked", "hard-one", "unread", "moved", "real/inside", "real/other"] {
        project.write(&format!("src/{name}"), "true\n");
    }
    for name in ["listed/a", "unlisted/a", "found/deep/er/file", "copied/file", "gone/file", ".git/index"] {
        project.write(&format!("src/{name}"), "true\n");
    }
    for number in 0..=200 {
        project.write(&format!("src/many/{number}"), "many\n");
    }
    project.script("src/tool", "exit 0");
    project.write("src/mkosi.extra/hidden", "");
    let link = |to: &str, from: &str| std::os::unix::fs::symlink(to, project.path().join("src").join(from)).unwrap();
    link("real", "link");
    link("anywhere", "pointer");
    std::fs::hard_link(project.path().join("src/hard-one"), project.path().join("src/hard-two")).unwrap();
    project.script("mkosi.postinst", READER);
}

/// The state and the reasons of a stage, as `mkosi graph` tells them.
fn state(project: &Project, stage: &str) -> (String, Vec<String>) {
    let output = project.command(&["graph", "--format=json"]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let graph: serde_json::Value = serde_json::from_str(&text)
        .unwrap_or_else(|e| panic!("{e}: {text}{}", String::from_utf8_lossy(&output.stderr)));
    let node = graph["nodes"].as_array().unwrap().iter().find(|node| node["stage"] == stage).unwrap().clone();
    let reasons = node["reasons"].as_array().unwrap().iter().map(|reason| reason.as_str().unwrap().to_owned());
    (node["state"].as_str().unwrap().to_owned(), reasons.collect())
}

#[track_caller]
fn cached(project: &Project, stage: &str, what: &str) {
    assert_eq!(state(project, stage), ("cached".to_owned(), Vec::new()), "{what}");
}

#[track_caller]
fn runs(project: &Project, stage: &str, reason: &str) {
    let (state, reasons) = state(project, stage);
    assert!(state == "run" && reasons.iter().any(|found| found == reason), "no {reason:?}: {state} {reasons:?}");
}

/// Nothing of its own runs it, though what it works on may.
#[track_caller]
fn stays(project: &Project, stage: &str) {
    let (state, reasons) = state(project, stage);
    assert!(state == "may run" && reasons.iter().all(|reason| reason.starts_with("needs ")), "{state} {reasons:?}");
}

#[test]
fn just_what_was_read_counts() {
    let project = Project::new();
    reader(&project);
    project.done(&[]);
    assert_eq!(project.read("src/plain"), "true\n");
    assert!(!project.exists("src/made") && project.exists("src/moved"));
    assert!(project.done(&[]).contains("up to date"));
    let src = project.path().join("src");
    // Each change is undone again, and then the first result fits.
    let edit = |name: &str, reason: Option<&str>| {
        let old = std::fs::read(src.join(name)).unwrap();
        // Of the same size: the content alone tells.
        std::fs::write(src.join(name), String::from_utf8_lossy(&old).replace("true", "eurt").replace('n', "m"))
            .unwrap();
        match reason {
            Some(reason) => runs(&project, "postinst", reason),
            None => cached(&project, "postinst", name),
        }
        std::fs::write(src.join(name), old).unwrap();
        cached(&project, "postinst", &format!("{name} as before"));
    };
    for name in ["plain", "mapped", "sourced", "moved", "hard-one", "real/inside", "found/deep/er/file", "copied/file"]
    {
        edit(name, Some(&format!("`src/{name}` changed")));
    }
    for name in ["many/1", "many/200", "tool"] {
        edit(name, Some(&format!("`src/{name}` changed")));
    }
    for name in ["unread", "many/0", "real/other", "listed/a", "unlisted/a", "looked", ".git/index"] {
        edit(name, None);
    }
    let create = |name: &str, reason: Option<&str>| {
        project.write(&format!("src/{name}"), "");
        match reason {
            Some(reason) => runs(&project, "postinst", reason),
            None => cached(&project, "postinst", name),
        }
        std::fs::remove_file(src.join(name)).unwrap();
        cached(&project, "postinst", &format!("without {name}"));
    };
    create("absent", Some("`src/absent` is there now (it was looked for)"));
    create("listed/b", Some("the names in `src/listed` changed"));
    create("found/deep/b", Some("the names in `src/found/deep` changed"));
    create("unlisted/b", None);
    create("mkosi.extra/b", None);
    create("another", None);
    project.write("src/nowhere/below", "");
    runs(&project, "postinst", "`src/nowhere` is there now (it was looked for)");
    std::fs::remove_dir_all(src.join("nowhere")).unwrap();
    cached(&project, "postinst", "all as it was");
}

#[test]
fn kinds_modes_and_targets_count_where_they_were_seen() {
    let project = Project::new();
    reader(&project);
    project.done(&[]);
    let src = project.path().join("src");
    let mode =
        |name: &str, mode| std::fs::set_permissions(src.join(name), std::fs::Permissions::from_mode(mode)).unwrap();
    mode("looked", 0o600);
    runs(&project, "postinst", "`src/looked` has another mode or size");
    mode("looked", 0o644);
    mode("unread", 0o600);
    cached(&project, "postinst", "the mode of a file that was not looked at");
    std::fs::remove_file(src.join("pointer")).unwrap();
    runs(&project, "postinst", "`src/pointer` is gone");
    std::os::unix::fs::symlink("nowhere!", src.join("pointer")).unwrap();
    runs(&project, "postinst", "`src/pointer` points elsewhere");
    std::fs::remove_file(src.join("pointer")).unwrap();
    std::fs::create_dir(src.join("pointer")).unwrap();
    runs(&project, "postinst", "`src/pointer` is something else now");
    std::fs::remove_dir(src.join("pointer")).unwrap();
    std::os::unix::fs::symlink("anywhere", src.join("pointer")).unwrap();
    // Neither times nor owners.
    std::fs::File::options().write(true).open(src.join("plain")).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
    std::os::unix::fs::chown(src.join("plain"), Some(1234), Some(1234)).unwrap();
    cached(&project, "postinst", "as it was");
    project.done(&["store", "verify"]);
}

/// A script that takes another way looks at other files: each way has its own notes.
#[test]
fn each_way_through_a_script_is_remembered() {
    let project = Project::new();
    project.write("src/which", "a");
    project.write("src/a", "one\n");
    project.write("src/b", "two\n");
    project.script("mkosi.postinst", "cat $SRCDIR/$(cat $SRCDIR/which) >$BUILDROOT/it");
    project.script("mkosi.finalize", "cat $SRCDIR/b >/dev/null");
    let build = |expected: &str, ran: bool| {
        let text = project.done(&[]);
        assert_eq!(text.contains("main/postinst"), ran, "{text}");
        assert_eq!(project.output("image/it"), expected);
    };
    build("one\n", true);
    project.write("src/which", "b");
    build("two\n", true);
    project.write("src/a", "ONE\n");
    build("two\n", false);
    project.write("src/which", "a");
    build("ONE\n", true);
    project.write("src/a", "one\n");
    build("one\n", false);
    project.write("src/which", "b");
    build("two\n", false);
    project.write("src/b", "TWO\n");
    build("TWO\n", true);
    // A second store knows nothing, and comes to the same keys.
    let keys = |project: &Project, cache: &str| {
        let output = project.command(&["--cache-directory", cache, "graph", "--format=json"]).output().unwrap();
        let graph: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let nodes = graph["nodes"].as_array().unwrap();
        nodes.iter().map(|node| format!("{} {}", node["stage"], node["key"])).collect::<Vec<_>>()
    };
    let other = project.path().join("other").display().to_string();
    project.done(&["--cache-directory", &other, "-f"]);
    let first = project.path().join("mkosi.cache").display().to_string();
    assert_eq!(keys(&project, &first), keys(&project, &other));
    // What led to no record any more goes.
    project.done(&["store", "gc"]);
    cached(&project, "postinst", "after a clean-up");
}

#[test]
fn build_scripts_are_followed_when_that_is_asked_for() {
    let project = Project::new();
    project.write("src/unread", "1\n");
    project.script("mkosi.build", "cp $SRCDIR/code $OUTPUTDIR");
    project.script("mkosi.postinst", "cat $SRCDIR/code");
    project.done(&[]);
    project.write("src/unread", "2\n");
    runs(&project, "build", "a file of the build sources changed");
    stays(&project, "postinst");
    project.configure("[Build]\nTraceSources=yes\n");
    project.done(&[]);
    project.write("src/unread", "3\n");
    cached(&project, "build", "a file that it did not read");
    project.write("src/code", "new\n");
    runs(&project, "build", "`src/code` changed");
    // What the build directory keeps may stand for files that were read the last time.
    project.configure("[Build]\nBuildDirectory=mkosi.builddir\n");
    project.done(&[]);
    project.write("src/unread", "4\n");
    runs(&project, "build", "a file of the build sources changed");
    project.configure("[Build]\nTraceSources=no\n");
    project.done(&[]);
    project.write("src/unread", "5\n");
    runs(&project, "postinst", "a file of the build sources changed");
}

#[test]
fn sources_within_sources_are_told_apart() {
    let project = Project::new();
    let conf = project.read("mkosi.conf").replace("BuildSources=src", "BuildSources=src inner:within/it");
    project.write("mkosi.conf", &conf);
    project.write("inner/file", "inner\n");
    project.write("inner/other", "inner\n");
    project.script("mkosi.postinst", "cat $SRCDIR/code $SRCDIR/within/it/file");
    project.script("mkosi.finalize", "test ! -e $SRCDIR/nothing");
    project.done(&[]);
    project.write("inner/other", "changed\n");
    cached(&project, "postinst", "inner/other");
    project.write("inner/file", "changed\n");
    runs(&project, "postinst", "`inner/file` changed");
    stays(&project, "finalize");
}

#[test]
fn the_next_script_of_a_stage_sees_what_one_left_in_the_sources() {
    let project = Project::new();
    project.write("src/d/old", "old\n");
    project.write("src/d/gone", "gone\n");
    project
        .script("mkosi.finalize.d/1", "cd $SRCDIR; echo new >>d/old; mkdir d/e; echo e >d/e/f; rm d/gone; mv code d");
    project
        .script("mkosi.finalize.d/2", "cd $SRCDIR; ls -R >$OUTPUTDIR/names; cat d/old d/e/f d/code >$OUTPUTDIR/text");
    project.done(&[]);
    assert_eq!(project.output("names"), ".:\nd\n\n./d:\ncode\ne\nold\n\n./d/e:\nf\n");
    assert_eq!(project.output("text"), "old\nnew\ne\nthe code\n");
    assert!(project.done(&[]).contains("up to date"));
    project.write("src/d/gone", "is not read, and its name is taken out of a directory that is listed\n");
    runs(&project, "finalize", "`src/d/gone` has another mode or size");
}

#[test]
fn a_failure_is_not_remembered() {
    let project = Project::new();
    project.script("mkosi.postinst", "cat $SRCDIR/later >$BUILDROOT/read");
    let text = project.fails(&[]);
    assert!(text.contains("later") && text.contains("status 1"), "{text}");
    project.write("src/later", "there\n");
    project.done(&[]);
    assert_eq!(project.output("image/read"), "there\n");
    std::fs::remove_file(project.path().join("src/later")).unwrap();
    runs(&project, "postinst", "`src/later` is gone");
    project.fails(&[]);
}

/// Waits until something holds.
#[track_caller]
fn wait(what: &str, holds: impl Fn() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < Duration::from_secs(60), "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A script that reads and does not end.
const WAITING: &str = "cat $SRCDIR/code >$BUILDROOT/read; echo reached >&2; sleep 1000";

fn lines(project: &Project) -> String {
    let logs = project.path().join("mkosi.cache/store/logs");
    let mut text = String::new();
    for entry in std::fs::read_dir(logs).into_iter().flatten().flatten() {
        text += &std::fs::read_to_string(entry.path()).unwrap_or_default();
    }
    text
}

#[test]
fn a_kill_leaves_no_mount_and_a_sound_store() {
    let project = Project::new();
    project.script("mkosi.postinst", WAITING);
    let mut child = project.command(&[]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    wait("the script reads", || lines(&project).contains("reached"));
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains("fuse mkosi"), "{mounts}");
    child.kill().unwrap();
    child.wait().unwrap();
    wait("everything has ended", || {
        let processes = std::fs::read_dir("/proc").unwrap().flatten();
        let mut namespaces = processes.filter_map(|p| std::fs::read_to_string(p.path().join("mountinfo")).ok());
        let own = project.path().display().to_string();
        !namespaces.any(|text| text.contains("fuse mkosi") && text.contains(&own))
    });
    project.script("mkosi.postinst", "cat $SRCDIR/code >$BUILDROOT/read");
    project.done(&[]);
    assert_eq!(project.output("image/read"), "the code\n");
    project.done(&["store", "verify"]);
}

#[test]
fn what_changes_while_it_is_read_is_not_kept() {
    let project = Project::new();
    project.script("mkosi.postinst", "cat $SRCDIR/code >$BUILDROOT/read; echo reached >&2; sleep 3");
    let child = project.command(&[]).stderr(Stdio::piped()).spawn().unwrap();
    wait("the script reads", || lines(&project).contains("reached"));
    project.write("src/code", "another\n");
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && text.contains("src/code` changed while it was read"), "{text}");
    assert_eq!(project.output("image/read"), "the code\n");
    assert!(project.done(&[]).contains("main/postinst"));
    assert_eq!(project.output("image/read"), "another\n");
    assert!(project.done(&[]).contains("up to date"));
}

#[test]
fn without_the_device_all_of_the_sources_counts() {
    let project = Project::new();
    project.write("src/unread", "1\n");
    project.script("mkosi.postinst", "cat $SRCDIR/code; test ! -e $SRCDIR/mkosi.extra; echo x >$SRCDIR/code");
    project.script("mkosi.finalize", "cat $SRCDIR/code");
    project.write("src/mkosi.extra/hidden", "");
    let without = || {
        let own = project.command(&[]);
        let mut command = Command::new("unshare");
        command.args(["-m", "sh", "-c", "mount --bind /dev/null /dev/fuse && exec \"$@\"", "sh"]);
        command.arg(own.get_program()).args(own.get_args()).stdin(Stdio::null());
        let output = command.output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{text}");
        text
    };
    let text = without();
    assert_eq!(text.matches("all of the sources counts").count(), 1, "{text}");
    assert!(without().contains("up to date"));
    project.write("src/unread", "2\n");
    runs(&project, "postinst", "`src` changed");
    let text = without();
    assert!(text.contains("main/postinst") && text.contains("main/finalize"), "{text}");
    // With the device it is noted what is read, and what was known before holds all the same.
    assert!(project.done(&[]).contains("up to date"));
    project.write("src/code", "new\n");
    project.done(&[]);
    project.write("src/unread", "3\n");
    cached(&project, "postinst", "a file that it did not read");
}

/// An ordinary user with subordinate ids.
struct User(String);

impl Drop for User {
    fn drop(&mut self) {
        let _ = Command::new("userdel").arg(&self.0).output();
    }
}

fn tool(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_user_comes_to_the_same() {
    let user = User(format!("mktraced{}", std::process::id()));
    tool(Command::new("useradd").args(["--no-create-home", "--shell", "/bin/sh", &user.0]));
    tool(Command::new("usermod").args(["--add-subuids", "820000-885535", "--add-subgids", "820000-885535", &user.0]));
    let place = tempfile::tempdir().unwrap();
    std::fs::set_permissions(place.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let program = place.path().join("mkosi");
    std::fs::copy(Path::new(env!("CARGO_BIN_EXE_mkosi")), &program).unwrap();
    let project = Project::new_in(place.path());
    reader(&project);
    tool(Command::new("chown").args(["-R", &format!("{0}:{0}", user.0)]).arg(place.path()));
    let run = |arguments: &[&str]| {
        let own = project.command(arguments);
        let mut command = Command::new("runuser");
        command.args(["-u", &user.0, "--"]).arg(&program).args(own.get_args()).stdin(Stdio::null());
        let output = command.env("HOME", project.path()).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{arguments:?}: {text}");
        (String::from_utf8_lossy(&output.stdout).into_owned(), text)
    };
    let (_, text) = run(&[]);
    assert!(text.contains("main/postinst") && !text.contains("can't be noted"), "{text}");
    project.write("src/unread", "2\n");
    assert!(run(&[]).1.contains("up to date"));
    project.write("src/mapped", "2\n");
    let (graph, _) = run(&["graph"]);
    assert!(graph.contains("`src/mapped` changed"), "{graph}");
    assert!(run(&[]).1.contains("main/postinst"));
}
