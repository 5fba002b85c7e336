//! One executable is enough: linked statically, in a root that holds no other program and no library, it makes the first
//! tree, with that the tools tree, and with that an image.
//!
//! Needs root. The first tree and the tools tree are kept below `target/`, as for the other test programs.

mod support;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use support::{Graph, Project, Ran, stores, tool, tools};

/// The executable with a C library of its own. Cargo links what it has built for the tests once more.
fn statically_linked() -> PathBuf {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["rustc", "--quiet", "--offline", "--test=static", "--message-format=json"]);
    if !cfg!(debug_assertions) {
        cargo.arg("--release");
    }
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
    cargo.arg("--target-dir").arg(target).args(["--", "-Ctarget-feature=+crt-static"]);
    let messages = tool(cargo.current_dir(env!("CARGO_MANIFEST_DIR")));
    let messages = messages.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let own = |message: &serde_json::Value| message["target"]["name"] == "static";
    let path = messages.filter(own).find_map(|message| message["executable"].as_str().map(PathBuf::from));
    path.expect("cargo names no executable of the test `static`")
}

/// A root with the executable, the project, and what says how the network and the archive are reached.
fn bare(project: &Project) -> PathBuf {
    let root = stores::directory("bare-");
    for directory in ["cache", "dev", "etc/apt", "proc", "project", "tmp"] {
        std::fs::create_dir_all(root.join(directory)).unwrap();
    }
    std::fs::set_permissions(root.join("tmp"), std::fs::Permissions::from_mode(0o1777)).unwrap();
    let executable = root.join("mkosi");
    std::fs::copy(statically_linked(), &executable).unwrap();
    let program = std::fs::read(&executable).unwrap();
    let needs = |name: &[u8]| program.windows(name.len()).any(|bytes| bytes == name);
    assert!(!needs(b"/lib64/ld-linux") && !needs(b"libc.so.6\0libgcc_s"), "it is not linked statically");
    let copy = |path: &str| {
        let from = Path::new("/").join(path);
        if from.exists() {
            tool(Command::new("cp").arg("-rL").arg(from).arg(root.join(path)));
        }
    };
    // Which mirror there is for these tests is known to the host's apt alone.
    for path in ["etc/apt/sources.list", "etc/apt/sources.list.d", "etc/hosts", "etc/os-release", "etc/resolv.conf"] {
        copy(path);
    }
    std::fs::write(root.join("project/mkosi.conf"), project.read("mkosi.conf")).unwrap();
    root
}

/// Runs the executable there: a mount namespace of its own, with the kernel's file systems and the store.
fn run(root: &Path, arguments: &[&str]) -> Ran {
    let mounts = "mount --bind \"$0\" \"$0\" && mount --bind \"$1\" \"$0/cache\" && mount -t proc proc \"$0/proc\" && \
                  mount --rbind /dev \"$0/dev\" && cd \"$0\" && shift && exec chroot . /mkosi -C /project \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation=private", "--", "sh", "-euc", mounts]);
    command.arg(root).arg(tools::cache()).args(arguments).env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    for (name, value) in std::env::vars().filter(|(name, _)| name.to_lowercase().ends_with("_proxy")) {
        command.env(name, value);
    }
    let ran = Ran::new(command.output().unwrap());
    assert!(ran.success, "mkosi {arguments:?}: {}", ran.text);
    ran
}

#[test]
fn an_image_is_built_where_there_is_nothing_else() {
    let project = Project::empty(tools::cache());
    project.write(
        "mkosi.conf",
        &format!(
            "{}CacheDirectory=/cache\n[Distribution]\nDistribution=debian\nRelease=trixie\n\
             [Output]\nFormat=tar\nCompressOutput=none\n",
            tools::CONFIGURATION
        ),
    );
    let root = bare(&project);
    // Where earlier runs of this test have left all of it, names and mirrors are asked again at least.
    let graph = run(&root, &["graph", "--format=json"]);
    let graph: serde_json::Value = serde_json::from_str(&graph.stdout).unwrap();
    let seed = graph["nodes"]
        .as_array()
        .unwrap()
        .iter()
        .find(|node| node["stage"] == "seed-packages" && node["state"] != "skipped");
    let seed = seed.expect("the first tree is part of the graph");
    let again: &[&str] = if seed["state"] == "cached" { &["--refresh"] } else { &[] };
    let ran = run(&root, again);
    assert!(ran.stages.contains_key("seed-packages"), "{}", ran.text);
    let names = tool(Command::new("tar").arg("-tf").arg(root.join("project/image.tar")));
    assert!(names.lines().any(|name| name.trim_start_matches("./") == "usr/bin/dpkg"), "{names}");
    let ran = run(&root, &[]);
    assert!(ran.stages.is_empty(), "{}", ran.text);
    assert!(!root.join("usr").exists() && !root.join("bin").exists() && !root.join("lib64").exists());

    // On this host, which has a package manager, the wish is enough. Its keyring, if it has one, finds the same.
    project.reconfigure("CacheDirectory=/cache\n", "ToolsTreeBootstrap=yes\n");
    let ran = project.done(&[]);
    assert!(ran.names().all(|stage| ["publish", "seed-packages"].contains(&stage)), "{}", ran.text);
    project.reconfigure("ToolsTreeBootstrap=yes", "ToolsTreeBootstrap=no");
    let Graph(graph) = project.graph(&[]);
    let runs = graph["nodes"].as_array().unwrap().iter().any(|n| n["stage"] == "seed" && n["state"] != "skipped");
    assert!(!runs, "{graph:#}");
}
