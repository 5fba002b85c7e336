//! Configure scripts, run for real in a sandbox: these tests need root.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use mkosi::cli::configure;
use mkosi::config::{HostFacts, LoadInput, Loaded, Value, load};
use mkosi::types::Architecture;

fn write(path: &Path, text: &str, mode: u32) {
    std::fs::create_dir_all(path.parent().expect("a parent")).expect("directories");
    std::fs::write(path, text).expect("written");
    std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).expect("a mode");
}

fn loaded(project: &Path) -> Loaded {
    mkosi::sandbox::set_executable(PathBuf::from(env!("CARGO_BIN_EXE_mkosi")));
    load(&LoadInput {
        directory: Some(project.canonicalize().expect("a directory")),
        options: Vec::new(),
        images: Vec::new(),
        environment: BTreeMap::new(),
        host: HostFacts::new(Some("debian"), Some("trixie"), Architecture::X86_64),
        resources: None,
    })
    .expect("loaded")
}

fn project(script: &str) -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    write(
        &directory.path().join("mkosi.conf"),
        "[Distribution]\nDistribution=debian\nRelease=trixie\nArchitecture=arm64\n[Output]\nImageId=box\n\
         [Content]\nPackages=a b\n[Config]\nProfiles=x,y\n[Build]\nEnvironment=OWN=1\n",
        0o644,
    );
    write(&directory.path().join("mkosi.configure"), script, 0o755);
    directory
}

fn failure(script: &str) -> String {
    let project = project(script);
    configure::run(&mut loaded(project.path()), &BTreeMap::new(), false).expect_err("it fails").to_string()
}

#[test]
fn a_script_changes_values_and_knows_what_is_built() {
    let project = project(
        "#!/usr/bin/env python3\nimport json, os, sys\nconfig = json.load(sys.stdin)\n\
         config['Hostname'] = open('name').read().strip()\nconfig['Packages'].append('c')\n\
         config['Environment'] = dict(os.environ)\njson.dump(config, sys.stdout)\n",
    );
    write(&project.path().join("name"), "from-a-file\n", 0o644);
    let mut loaded = loaded(project.path());
    configure::run(&mut loaded, &BTreeMap::new(), false).expect("it ran");
    let main = loaded.image("main").expect("the main image");
    assert_eq!(main.text("Hostname"), Some("from-a-file"));
    assert_eq!(main.texts("Packages"), ["a", "b", "c"]);
    let Value::Map(environment) = main.get("Environment") else { panic!("{:?}", main.get("Environment")) };
    let of = |name: &str| environment.get(name).and_then(Value::as_text);
    for (name, value) in [
        ("DISTRIBUTION", "debian"),
        ("RELEASE", "trixie"),
        ("ARCHITECTURE", "arm64"),
        ("DISTRIBUTION_ARCHITECTURE", "arm64"),
        ("QEMU_ARCHITECTURE", "aarch64"),
        ("EFI_ARCHITECTURE", "aa64"),
        ("PROFILES", "x y"),
        ("SRCDIR", "/work/src"),
        ("IMAGE_ID", "box"),
        ("MKOSI_DEBUG", "0"),
        ("OWN", "1"),
    ] {
        assert_eq!(of(name), Some(value), "{name}");
    }
    assert_eq!(of("HOME"), None, "nothing of the caller's environment");
}

#[test]
fn scripts_run_in_order_for_each_image_and_see_what_others_changed() {
    let project = project("#!/bin/sh\nsed 's/\"Hostname\":[^,]*/\"Hostname\":\"one\"/'\necho to people >&2\n");
    let images = project.path().join("mkosi.images/sub");
    write(&images.join("mkosi.conf"), "[Content]\nHostname=sub\n", 0o644);
    write(&project.path().join("second"), "#!/bin/sh\nsed 's/\"Hostname\":\"one\"/\"Hostname\":\"two\"/'\n", 0o755);
    let conf = project.path().join("mkosi.conf");
    let text = std::fs::read_to_string(&conf).expect("the configuration");
    write(&conf, &format!("{text}[Config]\nConfigureScripts=second\n"), 0o644);
    let mut loaded = loaded(project.path());
    configure::run(&mut loaded, &BTreeMap::new(), false).expect("they ran");
    assert_eq!(loaded.image("main").and_then(|image| image.text("Hostname")), Some("two"));
    assert_eq!(loaded.image("sub").and_then(|image| image.text("Hostname")), Some("sub"));
}

#[test]
fn nonsense_is_an_error_with_the_script_and_the_line() {
    let text = failure("#!/bin/sh\nprintf '{\\n  \"Hostname\": nonsense\\n}'\n");
    assert!(text.contains("mkosi.configure") && text.contains("line 2"), "{text}");
    assert!(text.contains("2 |   \"Hostname\": nonsense"), "{text}");
    let text = failure("#!/bin/sh\n");
    assert!(text.contains("mkosi.configure") && text.contains("no JSON"), "{text}");
    let text = failure("#!/bin/sh\necho '{\"Hostnam\": 1}'\n");
    assert!(text.contains("`Hostnam`"), "{text}");
    let text = failure("#!/bin/sh\necho '{\"Packages\": \"a\"}'\n");
    assert!(text.contains("`Packages`"), "{text}");
    let text = failure("#!/bin/sh\necho '{\"Dependencies\": [\"gone\"]}'\n");
    assert!(text.contains("`gone`"), "{text}");
    let text = failure("#!/bin/sh\nexit 3\n");
    assert!(text.contains("ended with status 3"), "{text}");
    let text = failure("#!/bin/sh\ncat >/dev/null; touch x || exit 7; echo '{}'\n");
    assert!(text.contains("ended with status 7"), "the project is read-only: {text}");
}

#[test]
fn the_executable_bit() {
    let project = project("#!/bin/sh\ncat\n");
    let script = project.path().join("mkosi.configure");
    write(&script, "#!/bin/sh\nsed 's/\"Hostname\":null/\"Hostname\":\"x\"/'\n", 0o644);
    let text = configure::run(&mut loaded(project.path()), &BTreeMap::new(), false).expect_err("refused").to_string();
    assert!(text.contains("chmod +x"), "{text}");
    let conf = project.path().join("mkosi.conf");
    let text = std::fs::read_to_string(&conf).expect("the configuration");
    write(&conf, &format!("{text}MakeScriptsExecutable=yes\n"), 0o644);
    let mut loaded = loaded(project.path());
    configure::run(&mut loaded, &BTreeMap::new(), false).expect("it ran");
    assert_eq!(loaded.image("main").and_then(|image| image.text("Hostname")), Some("x"));
    assert_eq!(script.metadata().expect("it is there").permissions().mode() & 0o777, 0o644, "untouched");
}
