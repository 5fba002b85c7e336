//! Where programs come from: a directory that is a tools tree, the default one, and what lies over them.
//!
//! Needs root, apt, and programs of systemd. The default tools tree is built once and kept below `target/`.

mod support;

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use support::{Graph, Project, Ran, stores, tool, tools};

/// A tools tree of a few of the host's programs, with the libraries that they and the program itself need.
fn small_tree(project: &Project, programs: &[&str]) -> PathBuf {
    let tree = stores::directory("tree-");
    for directory in ["usr/bin", "usr/lib", "usr/lib64", "etc/ssl/certs"] {
        std::fs::create_dir_all(tree.join(directory)).unwrap();
    }
    for name in ["bin", "sbin", "lib", "lib64"] {
        let points_to = if name == "sbin" { "usr/bin".to_owned() } else { format!("usr/{name}") };
        std::os::unix::fs::symlink(points_to, tree.join(name)).unwrap();
    }
    let copy = |path: &Path, to: &Path| {
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        std::fs::copy(path, to).unwrap();
    };
    let found: Vec<_> = programs.iter().map(|name| Path::new("/usr/bin").join(name)).collect();
    for program in found.iter().map(std::path::PathBuf::as_path).chain([Path::new(support::MKOSI)]) {
        for library in tool(Command::new("ldd").arg(program)).split_whitespace().filter(|word| word.starts_with('/')) {
            // What lies in /lib there lies in /usr/lib here: links of the tree lead there.
            let place = library.trim_start_matches('/');
            let place = if place.starts_with("usr/") { place.to_owned() } else { format!("usr/{place}") };
            copy(Path::new(library), &tree.join(place));
        }
    }
    for program in &found {
        copy(program, &tree.join("usr/bin").join(program.file_name().unwrap()));
    }
    std::fs::write(tree.join("usr/lib/word"), "one\n").unwrap();
    project.configure(&format!("[Build]\nToolsTree={}\n", tree.display()));
    tree
}

/// A project without a distribution, whose script leaves a report in the image.
fn custom(script: &str) -> Project {
    let project = Project::empty(&stores::directory("cache-"));
    project.write(
        "mkosi.conf",
        "[Distribution]\nDistribution=custom\n[Output]\nOutputDirectory=mkosi.output\nFormat=directory\n[Build]\n",
    );
    project.write("mkosi.extra/usr/extra", "extra\n");
    project.script("mkosi.postinst", script);
    project
}

/// Runs the program where another file lies in the place of one of the host's.
fn with_another(file: &Path, place: &Path, project: &Project, arguments: &[&str]) -> Ran {
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", "mount --bind \"$0\" \"$1\" && shift && exec \"$@\""]);
    command.arg(file).arg(place).arg(support::MKOSI);
    let ran = Ran::new(project.command_by(command, arguments).output().unwrap());
    assert!(ran.success, "{}", ran.text);
    ran
}

/// Runs the program where the host has no programs at all, but for this one.
fn without_programs(project: &Project) -> Ran {
    let empty = stores::directory("empty-");
    let mut command = Command::new("unshare");
    // mount(8) itself goes last.
    let places = "/usr/local/sbin /usr/local/bin /usr/libexec /usr/lib/systemd /usr/lib/apt /usr/sbin /usr/bin";
    let script = format!("for place in {places}; do [ ! -d $place ] || mount --bind \"$0\" $place; done; exec \"$@\"");
    command.args(["--mount", "sh", "-euc", &script]).arg(&empty).arg(support::MKOSI);
    let ran = Ran::new(project.command_by::<&str>(command, &[]).output().unwrap());
    assert!(ran.success, "{}", ran.text);
    ran
}

#[test]
fn another_version_of_a_library_runs_what_is_linked_to_it() {
    let project = custom("true");
    project.write("mkosi.skeleton/usr/lib/udev/hwdb.d/20-test.hwdb", "test:one\n WORD=1\n");
    // Where systemd of Debian 12 looks.
    std::os::unix::fs::symlink("usr/lib", project.path().join("mkosi.skeleton/lib")).unwrap();
    project.build();
    let database = std::fs::read(project.output("image/usr/lib/udev/hwdb.bin")).unwrap();
    // Any one but those of all programs, mkosi's own among them.
    let libraries = tool(Command::new("ldd").arg("/usr/bin/systemd-hwdb"));
    let library = libraries.split_whitespace().filter(|word| word.starts_with('/')).map(Path::new);
    let mut library =
        library.filter(|path| !["libc.so", "libgcc", "ld-"].iter().any(|own| path.to_string_lossy().contains(own)));
    let library = library.next_back().unwrap_or_else(|| panic!("systemd-hwdb has no library of its own: {libraries}"));
    let name = library.file_name().unwrap().to_string_lossy().into_owned();
    let other = project.path().join("other");
    tool(Command::new("cp").args(["-pL"]).arg(library).arg(&other));
    let mut bytes = std::fs::read(&other).unwrap();
    bytes.push(0);
    std::fs::write(&other, bytes).unwrap();
    let graph = with_another(&other, library, &project, &["graph", "--format=json"]);
    let graph = Graph(serde_json::from_str(&graph.stdout).unwrap());
    let reasons = graph.reasons("hwdb");
    assert!(reasons.contains(&format!("`systemd-hwdb`: its library `{name}` changed")), "{reasons}");
    let foretold = graph.stages("run");
    let foretold: Vec<&str> = foretold.iter().map(String::as_str).collect();
    let ran = with_another(&other, library, &project, &[]);
    ran.assert(&foretold);
    ran.says(&format!("library `{name}` changed"));
    with_another(&other, library, &project, &[]).assert(&[]);
    project.build().assert(&[]);
    assert_eq!(std::fs::read(project.output("image/usr/lib/udev/hwdb.bin")).unwrap(), database);
}

fn report(project: &Project) -> String {
    project.read("mkosi.output/image/report")
}

/// The stages of a graph in a state, of an image.
fn stages(graph: &Graph, image: &str, states: &[&str]) -> BTreeSet<String> {
    let of = |node: &&serde_json::Value| {
        node["images"][0] == image && states.contains(&node["state"].as_str().unwrap_or_default())
    };
    graph.nodes().iter().filter(of).map(|node| node["stage"].as_str().unwrap().to_owned()).collect()
}

/// What may run when a `mkosi.prepare` comes into a tools tree.
const AFTER_PREPARE: [&str; 10] = [
    "prepare",
    "hwdb",
    "extra",
    "configure",
    "bootloader",
    "modules",
    "microcode",
    "remove",
    "modules-initrd",
    "kernel",
];

const REPORT: &str = "exec >\"$BUILDROOT/report\" 2>&1\n";

#[test]
fn programs_come_from_the_tree_and_a_change_of_it_runs_them_again() {
    let project = custom(&format!("{REPORT}cat /usr/lib/word\nls / || echo there is no ls\nmkosi-chroot true || :"));
    let tree = small_tree(&project, &["cat", "sh"]);
    project.build();
    assert!(
        report(&project).starts_with("one\n") && report(&project).contains("there is no ls"),
        "{}",
        report(&project)
    );

    // Those of the host are not needed.
    std::fs::write(tree.join("usr/lib/word"), "alone\n").unwrap();
    assert!(without_programs(&project).stages.contains_key("postinst"));
    assert!(report(&project).starts_with("alone\n"), "{}", report(&project));

    // A library, data: whatever it is. What no program makes is not made again.
    std::fs::write(tree.join("usr/lib/word"), "two\n").unwrap();
    let (ran, graph) = project.build_as_foretold();
    assert!(report(&project).starts_with("two\n"), "{}", report(&project));
    assert!(graph.reasons("postinst").contains("the tools tree changed"), "{}", graph.reasons("postinst"));
    assert!(ran.stages.contains_key("postinst") && !ran.stages.contains_key("extra"), "{}", ran.text);
    // Another owner is another tree, another time is not.
    tool(Command::new("touch").arg("-d@1").arg(tree.join("usr/lib/word")));
    project.build().assert(&[]);
    tool(Command::new("chown").arg("7").arg(tree.join("usr/lib/word")));
    assert!(project.build().stages.contains_key("postinst"));
    // `mkosi.tools/` is one by itself.
    project.reconfigure(&format!("ToolsTree={}\n", tree.display()), "");
    std::fs::rename(tree, project.path().join("mkosi.tools")).unwrap();
    project.build().assert(&[]);
}

#[test]
fn what_lies_over_the_tools_is_seen_and_counts() {
    let project = custom(&format!(
        "{REPORT}over; extra; cat /etc/over.conf /etc/ssl/certs/over.pem\n[ -e /usr/bin/env ] && echo all the rest"
    ));
    project.write("mkosi.sandbox/etc/over.conf", "configuration\n");
    project.write("mkosi.sandbox/etc/ssl/certs/over.pem", "certificate\n");
    project.script("mkosi.sandbox/usr/local/bin/over", "echo over");
    project.script("search/extra", "echo extra");
    project.write("mkosi.conf", &format!("{}ExtraSearchPaths=search\n", project.read("mkosi.conf")));
    let all = "over\nextra\nconfiguration\ncertificate\nall the rest\n";
    project.build();
    assert_eq!(report(&project), all);
    project.write("mkosi.sandbox/etc/over.conf", "another\n");
    let (_, graph) = project.build_as_foretold();
    assert!(graph.reasons("sandbox-trees").contains("`SandboxTrees=`"));
    assert_eq!(report(&project), all.replace("configuration", "another"));
    project.script("search/extra", "echo more");
    project.build();
    assert_eq!(report(&project), all.replace("configuration", "another").replace("extra", "more"));
    // The same over a tools tree.
    let tree = small_tree(&project, &["cat", "env", "sh"]);
    std::fs::write(tree.join("etc/ssl/certs/own.pem"), "own\n").unwrap();
    project.build();
    assert_eq!(report(&project), all.replace("configuration", "another").replace("extra", "more"));
}

#[test]
fn a_program_that_is_missing_is_told_with_the_way_to_get_it() {
    let project = Project::new(&stores::fresh());
    small_tree(&project, &["sh"]);
    project.configure("[Distribution]\nRepositoryKeyCheck=no\n");
    let ran = project.fails(&[]);
    ran.says("main/sync: ");
    ran.says("`apt-");
    ran.says("install the package `apt`");
    ran.says("ToolsTree=default");
}

#[test]
fn the_default_tools_tree_is_built_once_and_used_by_all() {
    let cache = tools::cache();
    let project = Project::new(cache);
    project.configure(tools::CONFIGURATION);
    project.script("mkosi.finalize", "systemd-repart --version >\"$BUILDROOT/usr/share/version\"");
    // Another project has built it.
    let ran: Ran = project.build();
    assert!(!ran.text.contains("  tools/"), "{}", ran.text);
    let packed = project.output("image.tar.zst");
    let version = tool(Command::new("tar").args(["--zstd", "-xOf"]).arg(packed).arg("./usr/share/version"));
    assert!(version.starts_with("systemd 257"), "{version}");

    // What the tree is made of changes: the stages that run programs run again, and give what they gave.
    // Another change in each run: the store is kept between them.
    let run = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos();
    project.script("more", &format!("echo {run} >\"$BUILDROOT/usr/share/more\""));
    project.write("mkosi.tools.conf", "[Content]\nPrepareScripts=more\n");
    let graph = project.graph(&[]);
    assert_eq!(stages(&graph, "tools", &["run", "may run"]), BTreeSet::from(AFTER_PREPARE.map(str::to_owned)));
    assert!(graph.reasons("base").contains("the tools tree"), "{}", graph.reasons("base"));
    let ran = project.build();
    for stage in ["base", "packages", "postinst", "finalize"] {
        assert!(ran.stages.contains_key(stage), "{stage}: {}", ran.text);
    }
    for stage in ["sync", "extra", "tar", "manifest", "publish"] {
        assert!(!ran.text.contains(&format!("main/{stage} ")), "{stage}: {}", ran.text);
    }
}

/// The default tools tree as a small one of its own, whose layers nothing but a running verb keeps.
#[test]
fn clean_up_leaves_a_tree_in_use_alone() {
    let project = Project::empty(&stores::directory("cache-"));
    project.write(
        "mkosi.conf",
        "[Distribution]\nDistribution=custom\n[Output]\nFormat=none\n\
         [Build]\nToolsTree=default\nToolsTreeDistribution=custom\n",
    );
    project.write("resources/mkosi-tools/mkosi.conf", "[Output]\nOutput=mkosi.tools\n");
    project.script(
        "resources/mkosi-tools/mkosi.prepare",
        "cd \"$BUILDROOT\"; mkdir -p usr/bin usr/lib usr/lib64 etc; echo one >usr/lib/word
         for name in bin lib lib64; do ln -s usr/$name $name; done
         for name in cat sh; do
             cp /usr/bin/$name usr/bin
             for file in $(ldd /usr/bin/$name | grep -o '/lib[^ ]*'); do
                 mkdir -p \"usr${file%/*}\"; cp \"$file\" \"usr$file\"
             done
         done",
    );
    let mut child = project
        .command(&["-f", "box", "--", "sh", "-c", "echo ready; read line; cat /usr/lib/word; exit 5"])
        .env("MKOSI_RESOURCES", project.path().join("resources"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    output.read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    let layers = || std::fs::read_dir(project.cache.join("store/layers")).unwrap().count();
    let clean = || project.done(&["store", "gc", "--max-size=0", "--keep-days=0"]);
    clean();
    assert!(layers() > 0);
    child.stdin.take().unwrap().write_all(b"go\n").unwrap();
    line.clear();
    output.read_line(&mut line).unwrap();
    assert_eq!((line.as_str(), child.wait().unwrap().code()), ("one\n", Some(5)));
    // Who kept it ends with it, a moment later.
    while layers() > 0 {
        clean();
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}
