//! Sandboxes, run for real: as root, and in a user namespace.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use mkosi::sandbox::{Cancel, Error, Exit, Input, Mount, Output, Spec, set_executable};

/// The host's tools and a shell command.
fn spec(script: &str) -> Spec {
    set_executable(PathBuf::from(env!("CARGO_BIN_EXE_mkosi")));
    let bind = |path: &str| Mount::Bind { source: path.into(), target: path.into(), read_only: true, optional: true };
    Spec {
        argv: ["sh", "-c", script].map(str::to_owned).to_vec(),
        env: BTreeMap::from([("PATH".to_owned(), "/usr/bin:/bin:/usr/sbin:/sbin".to_owned())]),
        mounts: vec![
            bind("/usr"),
            bind("/bin"),
            bind("/sbin"),
            bind("/lib"),
            bind("/lib64"),
            Mount::Proc { target: "/proc".into() },
            Mount::Dev { target: "/dev".into() },
            Mount::Tmpfs { target: "/tmp".into(), mode: 0o1777 },
        ],
        ..Spec::default()
    }
}

fn run(spec: &Spec) -> Result<(Exit, String), Error> {
    let mut text = Vec::new();
    let exit = spec.run(Input::Null, Output::Merged(&mut text), &Cancel::default())?;
    Ok((exit, String::from_utf8(text).unwrap()))
}

/// Runs a script that must succeed, and gives what it printed.
fn output(spec: &Spec) -> String {
    let (exit, text) = run(spec).unwrap();
    assert_eq!(exit, Exit::Code(0), "{text}");
    text
}

#[test]
fn exit_status_and_signals_come_back() {
    assert_eq!(run(&spec("exit 0")).unwrap().0, Exit::Code(0));
    assert_eq!(run(&spec("exit 77")).unwrap().0, Exit::Code(77));
    assert_eq!(run(&spec("kill -TERM $$")).unwrap().0, Exit::Signal(15));
    assert_eq!(run(&spec("kill -KILL $$")).unwrap().0, Exit::Signal(9));
}

#[test]
fn a_hundred_lowers() {
    let dir = tempfile::tempdir().unwrap();
    let long = "x".repeat(100);
    let lowers: Vec<PathBuf> = (0..100)
        .map(|number| {
            let lower = dir.path().join(format!("{long}:{number},"));
            std::fs::create_dir(&lower).unwrap();
            std::fs::write(lower.join(format!("file{number}")), "").unwrap();
            std::fs::write(lower.join("top"), number.to_string()).unwrap();
            lower
        })
        .collect();
    let (upper, work) = (dir.path().join("upper"), dir.path().join("work"));
    std::fs::create_dir(&upper).unwrap();
    std::fs::create_dir(&work).unwrap();
    let mut spec = spec("cd /image && ls | wc -l && cat top && rm file7 && echo new >added");
    spec.mounts.push(Mount::Overlay { lowers, upper: Some((upper.clone(), work)), target: "/image".into() });
    assert_eq!(output(&spec), "101\n99");
    assert_eq!(std::fs::read_to_string(upper.join("added")).unwrap(), "new\n");
    assert!(upper.join("file7").symlink_metadata().is_ok(), "no whiteout");
    // The same upper directory again, twice: the mark of a volatile mount is not in the way.
    spec.argv[2] = "cat /image/added; ls /image/file7".to_owned();
    let (exit, text) = run(&spec).unwrap();
    assert!(text.starts_with("new\n") && exit != Exit::Code(0), "{text}");
    assert!(Path::new("/image").symlink_metadata().is_err());
}
