//! What is said about configurations that are broken: as text, and never with a panic or a hang.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;

use mkosi::cli::options;
use mkosi::config::{Diagnostics, HostFacts, LoadInput, Loaded, Value, load, table};
use mkosi::types::Architecture;
use proptest::prelude::*;

struct Project {
    _keep: tempfile::TempDir,
    root: PathBuf,
}

impl Project {
    fn new(files: &[(&str, &str)]) -> Self {
        let keep = tempfile::tempdir().expect("a temporary directory");
        let root = keep.path().canonicalize().expect("it exists").join("project");
        std::fs::create_dir(&root).expect("the project");
        let project = Self { _keep: keep, root };
        for (path, text) in files {
            project.write(path, text.as_bytes());
        }
        project
    }

    fn write(&self, path: &str, bytes: &[u8]) {
        let path = self.root.join(path);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("directories");
        std::fs::write(path, bytes).expect("a file");
    }

    fn load(&self, arguments: &[&str]) -> Result<Loaded, Diagnostics> {
        let invocation = options::parse(arguments.iter().map(OsString::from), &self.root).expect("arguments");
        load(&LoadInput {
            directory: invocation.directory,
            options: invocation.settings,
            images: invocation.images,
            environment: BTreeMap::from([("PATH".to_owned(), "/usr/bin:/bin".to_owned())]),
            host: HostFacts::new(Some("debian"), Some("trixie"), Architecture::X86_64).with_systemd("257"),
            resources: None,
        })
    }

    /// Everything that is said, with paths seen from the project.
    fn said(&self, arguments: &[&str]) -> String {
        let (end, said) = match self.load(arguments) {
            Ok(loaded) => ("loaded", loaded.warnings),
            Err(diagnostics) => ("refused", diagnostics.0),
        };
        let mut text: Vec<String> = said.into_iter().map(|one| one.relative_to(&self.root).to_string()).collect();
        text.push(end.to_owned());
        text.join("\n\n").replace(&*self.root.to_string_lossy(), "$D")
    }
}

#[test]
fn ten_thousand_drop_ins() {
    let project = Project::new(&[("mkosi.conf", "[Distribution]\nDistribution=debian\n")]);
    for index in 0..10_000 {
        // Not in their order, and some of them twice.
        let package = index * 7919 % 9_000;
        let text = format!(
            "[Match]\nDistribution=debian\n[Content]\nPackages=p{package:04}\nHostname=h{index}\nWarn=1\n[Build]\n\
             Environment=E{index}=1\n"
        );
        project.write(&format!("mkosi.conf.d/{index:04}.conf"), text.as_bytes());
    }
    let loaded = project.load(&["summary"]).expect("it is fine");
    let main = loaded.image("main").expect("the main image");
    let packages = main.texts("Packages");
    assert_eq!(packages.len(), 10_000);
    assert!(packages.is_sorted());
    assert_eq!(main.text("Hostname"), Some("h9999"));
    assert_eq!(
        main.values.get("Environment").map(|one| one.value.clone()),
        Some(Value::Map((0..10_000).map(|index| (format!("E{index}"), Value::text("1"))).collect(),))
    );
    assert_eq!(loaded.files["main"].len(), 10_001);
    // Each has its place.
    assert_eq!(loaded.warnings.len(), 10_000);
}

#[test]
fn many_errors_in_one_run() {
    let project = Project::new(&[
        (
            "mkosi.conf",
            "[Distribution]\nDistribution=debain\n\n[Output]\nFormat=dsk\nManifestFormat=\n    json\n    jsn\nOutputSize=big\n\n\
             [Content]\nPakcages=x\nBootable=maybe\nExtraTrees=a:relative\nSkeletonTrees=mkosi.skeletn\n\n[Contnt]\nA=b\n\
             [Output]\nsplit\n[Open\n",
        ),
        ("mkosi.skeleton2/x", ""),
    ]);
    insta::assert_snapshot!(project.said(&["--compress-output=zsdt", "--sector-size=100"]));
}

#[test]
fn old_and_misplaced_names() {
    let project = Project::new(&[(
        "mkosi.conf",
        "[Host]\nQemuMem=1G\nQemuMem=2G\nQemuGui=yes\n[Content]\n@Format=directory\nWithNetwork=yes\n",
    )]);
    insta::assert_snapshot!(project.said(&[]));
}

#[test]
fn an_indented_section() {
    let project = Project::new(&[(
        "mkosi.conf",
        "[Content]\nPackages=a\n  [Output]\n  Format=tar\nEnvironment=A=1\n  Release=2\n",
    )]);
    insta::assert_snapshot!(project.said(&[]));
}

#[test]
fn conditions() {
    let project = Project::new(&[
        ("mkosi.conf", "[Match]\nDistributon=debian\n[Assert]\nRelease=sid\n[Content]\nPackages=a\n"),
        ("mkosi.conf.d/a.conf", "[Match]\nArchitecture=x86_64\n"),
        ("mkosi.conf.d/b.conf", "[Assert]\nFormat=|tar\nFormat=|cpio\n"),
    ]);
    insta::assert_snapshot!(project.said(&[]));
    project.write("mkosi.conf", b"[Assert]\nRelease=sid\n[TriggerAssert]\nFormat=tar\n");
    insta::assert_snapshot!(project.said(&[]));
}

#[test]
fn links_directories_and_bytes() {
    let project = Project::new(&[("mkosi.conf", "[Output]\nFormat=directory\n")]);
    std::fs::create_dir_all(project.root.join("mkosi.conf.d/directory.conf")).expect("a directory");
    symlink("nowhere", project.root.join("mkosi.conf.d/10-gone.conf")).expect("a link");
    symlink("nowhere", project.root.join("mkosi.extra")).expect("a link");
    symlink("..", project.root.join("mkosi.conf.d/up")).expect("a link");
    project.write("mkosi.conf.d/latin.conf", b"[Content]\nHostname=caf\xe9 # x\n");
    insta::assert_snapshot!(project.said(&[]));
    std::fs::remove_file(project.root.join("mkosi.conf")).expect("removed");
    std::fs::create_dir(project.root.join("mkosi.conf")).expect("a directory");
    insta::assert_snapshot!("a_directory_as_mkosi_conf", project.said(&[]));
}

#[test]
fn includes() {
    let project = Project::new(&[
        ("mkosi.conf", "[Include]\nInclude=a.conf\n    mkosi-vm\n    b.cnf\n"),
        ("a.conf", "[Include]\nInclude=b.conf\n"),
        ("b.conf", "[Include]\nInclude=a.conf\n"),
    ]);
    insta::assert_snapshot!(project.said(&[]));
    project.write("mkosi.conf", b"[Include]\nInclude=a.conf\n    mkosi-vm\n");
    insta::assert_snapshot!("includes_cycle_and_builtin", project.said(&[]));
}

#[test]
fn images() {
    let project = Project::new(&[
        ("mkosi.conf", "[Config]\nDependencies=base\n    fnial\n"),
        ("mkosi.images/base.conf", "[Runtime]\nRAM=1G\n"),
        ("mkosi.images/final/mkosi.conf", "[Config]\nDependencies=bsae\n"),
    ]);
    insta::assert_snapshot!(project.said(&[]));
    project.write("mkosi.conf", b"[Config]\nDependencies=base\n");
    project.write("mkosi.images/base.conf", b"[Config]\nDependencies=final\n");
    project.write("mkosi.images/final/mkosi.conf", b"[Config]\nDependencies=base\n");
    insta::assert_snapshot!("images_in_a_circle", project.said(&[]));
    project.write("mkosi.images/final/mkosi.conf", b"");
    insta::assert_snapshot!("an_image_that_is_not_there", project.said(&["build", "finel"]));
}

#[test]
fn programs() {
    let project = Project::new(&[("mkosi.version", "#!/bin/sh\necho no tags here >&2\nexit 3\n")]);
    insta::assert_snapshot!(project.said(&[]));
    let executable = |mode| {
        std::fs::set_permissions(project.root.join("mkosi.version"), std::fs::Permissions::from_mode(mode))
            .expect("mode");
    };
    executable(0o755);
    insta::assert_snapshot!("a_failing_program", project.said(&[]));
    project.write("mkosi.version", b"#!/bin/sh\necho \"$PWD\" | sed 's,.*/,,'\n");
    let loaded = project.load(&[]).expect("loaded");
    assert_eq!(loaded.images[0].text("ImageVersion"), Some("project"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Any text as configuration: words of the language in any order, and any characters at all.
    #[test]
    fn no_text_is_a_panic(
        words in proptest::collection::vec(
            prop_oneof![
                Just("[Match]\n".to_owned()), Just("[Content]\n".to_owned()), Just("[TriggerAssert]\n".to_owned()),
                Just("  ".to_owned()), Just("=".to_owned()), Just("|!".to_owned()), Just("%".to_owned()),
                Just("Include=mkosi.conf\n".to_owned()), Just("%o".to_owned()), Just("\n".to_owned()),
                "[A-Za-z]{1,6}=", "[a-z0-9:/,.!'\"*\\[-]{0,6}", "\\PC{0,4}",
                (0..table::SETTINGS.len(), "[a-z0-9:/,.!'\"*\\[-]{0,8}")
                    .prop_map(|(index, text)| format!("{}={text}\n", table::SETTINGS[index].name)),
            ],
            0..30,
        ),
    ) {
        let text = words.concat();
        let project = Project::new(&[("mkosi.conf", &text), ("mkosi.images/a.conf", &text)]);
        let _ = project.said(&[]);
    }
}

#[test]
fn no_project() {
    let project = Project::new(&[]);
    assert_eq!(project.load(&[]).expect("loaded").images.len(), 1);
    assert_eq!(project.load(&["-C", ""]).expect("loaded").images[0].get("BuildSources").items(), []);
    let said = project.said(&["-C", "nowhere"]);
    assert!(said.contains("does not exist") && said.ends_with("refused"), "{said}");
    project.write("file", b"");
    let said = project.said(&["-C", "file"]);
    assert!(said.contains("no directory") && said.ends_with("refused"), "{said}");
}

#[test]
fn what_has_no_end_is_not_read() {
    let project = Project::new(&[("mkosi.conf", "[Include]\nInclude=/dev/zero\n")]);
    let text = project.load(&[]).expect_err("refused").to_string();
    assert!(text.contains("this is a device"), "{text}");
    for (name, text) in [("mkosi.conf", ""), ("mkosi.conf.d/a.conf", ""), ("mkosi.version", ""), ("i.conf", "Include=")]
    {
        let project = Project::new(&[(
            "mkosi.conf.d/b.conf",
            &format!("[Include]\n{text}{}", text.replace("Include=", "i.conf")),
        )]);
        nix::unistd::mkfifo(&project.root.join(name), nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
        let said = project.load(&[]).expect_err("refused").to_string();
        assert!(said.contains("this is a pipe or socket"), "{name}: {said}");
    }
    let project = Project::new(&[("mkosi.conf", "[Output]\nImageId=x\n")]);
    std::fs::create_dir(project.root.join("mkosi.conf.d")).expect("a directory");
    symlink("/dev/null", project.root.join("mkosi.conf.d/10.conf")).expect("a link");
    assert_eq!(project.load(&[]).expect("loaded").image("main").and_then(|main| main.text("ImageId")), Some("x"));
}
