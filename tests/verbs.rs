//! Verbs that need no store, as the program runs them.

use std::path::Path;
use std::process::{Command, Output};

fn run(directory: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_mkosi"))
        .args(arguments)
        .current_dir(directory)
        .stdin(std::process::Stdio::null())
        .output()
        .expect("the program runs")
}

fn text(directory: &Path, arguments: &[&str]) -> String {
    let output = run(directory, arguments);
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{arguments:?}: {errors}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

fn main_image(directory: &Path, arguments: &[&str]) -> serde_json::Value {
    let arguments: Vec<&str> = arguments.iter().copied().chain(["summary", "--json"]).collect();
    let json: serde_json::Value = serde_json::from_str(&text(directory, &arguments)).expect("JSON");
    json["Images"].as_array().and_then(|images| images.last()).cloned().expect("an image")
}

#[test]
fn a_new_project_says_what_it_is() {
    let directory = tempfile::tempdir().expect("a directory");
    let refused = run(directory.path(), &["graph"]);
    assert!(!refused.status.success());
    assert!(String::from_utf8_lossy(&refused.stderr).contains("no configuration in"), "{refused:?}");
    assert!(text(directory.path(), &["-d", "debian", "init"]).contains("written  mkosi.conf"));
    let output = run(directory.path(), &["summary"]);
    assert!(output.status.success() && output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    let before = std::fs::read(directory.path().join("mkosi.conf")).expect("the file");
    assert!(text(directory.path(), &["-d", "ubuntu", "init"]).contains("exists   mkosi.conf"));
    assert_eq!(std::fs::read(directory.path().join("mkosi.conf")).expect("the file"), before);
    assert!(!run(directory.path(), &["-d", "nothing", "init"]).status.success());
}

#[test]
fn versions_go_up() {
    let directory = tempfile::tempdir().expect("a directory");
    std::fs::write(directory.path().join("mkosi.conf"), "[Output]\nImageId=box\n").expect("written");
    text(directory.path(), &["bump"]);
    text(directory.path(), &["bump"]);
    assert_eq!(main_image(directory.path(), &[])["ImageVersion"], "2");
    text(directory.path(), &["--image-version=7.1", "bump"]);
    text(directory.path(), &["bump"]);
    assert_eq!(main_image(directory.path(), &[])["Output"], "box_7.2");
    assert!(!run(directory.path(), &["-C", "", "bump"]).status.success());
}

#[test]
fn built_in_configurations_are_there() {
    let directory = tempfile::tempdir().expect("a directory");
    let conf = directory.path().join("mkosi.conf");
    std::fs::write(&conf, "[Distribution]\nDistribution=debian\nRelease=trixie\n[Include]\nInclude=mkosi-vm\n")
        .expect("written");
    let json: serde_json::Value = serde_json::from_str(&text(directory.path(), &["summary", "--json"])).expect("JSON");
    let names: Vec<_> = json["Images"].as_array().expect("images").iter().map(|image| &image["Image"]).collect();
    assert_eq!(names, ["default-initrd", "main"]);
    std::fs::write(&conf, "[Include]\nInclude=mkosi-obs\n").expect("written");
    let output = run(directory.path(), &["summary"]);
    assert!(!output.status.success() && String::from_utf8_lossy(&output.stderr).contains("`mkosi-obs`"));
}

#[test]
fn the_manual_and_completions() {
    let directory = tempfile::tempdir().expect("a directory");
    assert!(text(directory.path(), &["documentation"]).contains("# SYNOPSIS"));
    assert!(text(directory.path(), &["documentation", "graph", "--doc-format=man"]).starts_with(".TH"));
    assert!(text(directory.path(), &["completion", "zsh"]).starts_with("#compdef mkosi"));
    assert!(!run(directory.path(), &["completion"]).status.success());
    assert!(!run(directory.path(), &["documentation", "nothing"]).status.success());
}

#[test]
fn clean_removes_outputs_and_nothing_of_the_project() {
    let directory = tempfile::tempdir().expect("a directory");
    let there = |name: &str| directory.path().join(name).symlink_metadata().is_ok();
    let write = |name: &str| {
        let path = directory.path().join(name);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("directories");
        std::fs::write(path, "").expect("a file");
    };
    let configure = |text: &str| {
        let text =
            format!("[Distribution]\nDistribution=debian\nRelease=trixie\nArchitecture=x86-64\n[Output]\n{text}");
        std::fs::write(directory.path().join("mkosi.conf"), text).expect("written");
    };
    let clean = |more: &[&str]| run(directory.path(), &[&["--cache-directory=cache"], more, &["clean"]].concat());
    // An image that is called like the files of a project, and one like its sources.
    for name in
        ["mkosi.extra/file", "mkosi.nspawn", "src/main.c", "src.raw", "src.conf", "build/debian~trixie~x86-64/a"]
    {
        write(name);
    }
    configure("ImageId=mkosi\nFormat=disk\n");
    assert!(clean(&[]).status.success());
    configure("Output=src\nFormat=disk\n[Build]\nBuildDirectory=build\n");
    let image = std::fs::File::open(directory.path().join("src.raw")).expect("the image");
    std::fs::rename(directory.path().join("src"), directory.path().join("source")).expect("renamed");
    std::os::unix::fs::symlink("src.raw", directory.path().join("src")).expect("a link");
    rustix::fs::flock(&image, rustix::fs::FlockOperation::LockShared).expect("locked");
    let refused = clean(&[]);
    assert!(!refused.status.success() && there("src.raw"), "{refused:?}");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("in use"), "{refused:?}");
    drop(image);
    assert!(clean(&[]).status.success());
    assert!(!there("src.raw") && !there("src"));
    std::fs::rename(directory.path().join("source"), directory.path().join("src")).expect("renamed");
    assert!(clean(&[]).status.success());
    for name in
        ["mkosi.conf", "mkosi.extra/file", "mkosi.nspawn", "src/main.c", "src.conf", "build/debian~trixie~x86-64/a"]
    {
        assert!(there(name), "{name}");
    }
    assert!(clean(&["-f"]).status.success());
    assert!(there("build") && !there("build/debian~trixie~x86-64/a"));
}
