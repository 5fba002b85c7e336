//! What `mkosi summary` and `mkosi cat-config` print for people.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use mkosi::cli::{cat_config, summary};
use mkosi::config::{HostFacts, LoadInput, Loaded, load};
use mkosi::types::Architecture;

fn case(name: &str, images: &[&str]) -> (PathBuf, Loaded) {
    let project = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/config").join(name).join("project");
    let project = project.canonicalize().expect("the project");
    let input = LoadInput {
        directory: Some(project.clone()),
        options: Vec::new(),
        images: images.iter().map(|image| (*image).to_owned()).collect(),
        environment: BTreeMap::new(),
        host: HostFacts::new(Some("debian"), Some("trixie"), Architecture::X86_64),
        resources: None,
    };
    (project, load(&input).expect("loaded"))
}

#[test]
fn a_summary() {
    let (project, loaded) = case("scopes", &[]);
    insta::assert_snapshot!(summary::text(&loaded, &project, false));
    let all = summary::text(&loaded, &project, true);
    assert!(all.contains("  Hostname") && all.lines().count() > 400, "{}", all.lines().count());
}

#[test]
fn a_summary_of_one_image() {
    let (project, loaded) = case("scopes", &["b"]);
    let text = summary::text(&loaded, &project, false);
    assert!(text.starts_with("image b\n") && !text.contains("image a"), "{text}");
}

#[test]
fn secrets_stay_secret() {
    let (project, loaded) = case("secrets", &[]);
    let text = summary::text(&loaded, &project, true);
    assert!(text.contains("(set)") && !text.contains("$6$abc"), "{text}");
}

#[test]
fn files() {
    let (project, loaded) = case("profiles", &[]);
    insta::assert_snapshot!(cat_config::render(&loaded, &project).expect("readable"));
}

#[test]
fn the_program_says_what_is_wrong_and_fails() {
    let directory = tempfile::tempdir().expect("a directory");
    std::fs::write(directory.path().join("mkosi.conf"), "[Output]\nFormat=dsk\n").expect("written");
    let run = |arguments: &[&str]| {
        Command::new(env!("CARGO_BIN_EXE_mkosi"))
            .args(arguments)
            .current_dir(directory.path())
            .output()
            .expect("the program runs")
    };
    let output = run(&["summary"]);
    assert!(!output.status.success() && output.stdout.is_empty());
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("mkosi.conf:2:8") && text.contains("did you mean `disk`"), "{text}");
    let output = run(&["--format=tar", "summary", "--json"]);
    assert!(!output.status.success(), "an option does not mend a file");
    std::fs::write(directory.path().join("mkosi.conf"), "[Output]\nFormat=disk\n").expect("written");
    let output = run(&["--format=tar", "summary", "--json"]);
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(json["Images"][0]["Format"], "tar");
}
