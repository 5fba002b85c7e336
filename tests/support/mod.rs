//! Projects that the end-to-end tests write, and what the program says of them.
//!
//! Each project has a directory of its own; `CacheDirectory=` keeps its store away from the user's. Knows nothing of
//! what a test wants to prove.

#![allow(dead_code, reason = "each test program uses a part of this")]

pub mod processes;
pub mod repository;
pub mod stores;
pub mod tools;
pub mod user;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// The program.
pub const MKOSI: &str = env!("CARGO_BIN_EXE_mkosi");

/// The image of most tests: a tree with systemd, a build script and a script that runs in the image.
const CONFIGURATION: &str = "\
[Distribution]
Distribution=debian
Release=trixie

[Output]
Output=image
OutputDirectory=mkosi.output
Format=tar
CompressOutput=zstd
CompressLevel=1
ManifestFormat=json

[Content]
Packages=systemd
         udev
         dbus

[Build]
BuildSources=src
";

/// Runs a tool and gives what it printed; it has to succeed.
pub fn tool(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}: these tests need it"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The tree `tools` that a configuration makes. It is kept below this name from one run to the next.
pub fn tree(name: &str, configuration: &str) -> PathBuf {
    let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::create_dir_all(place.join("tools")).unwrap();
    std::fs::write(place.join("tools/mkosi.conf"), configuration).unwrap();
    let mut command = Command::new(MKOSI);
    command.arg("-C").arg(place.join("tools")).arg("--cache-directory").arg(place.join("cache"));
    tool(&mut command);
    place.join("tools/mkosi.output/tools")
}

/// A directory with a project, removed at the end.
pub struct Project {
    dir: tempfile::TempDir,
    /// What `CacheDirectory=` names.
    pub cache: PathBuf,
}

impl Project {
    /// An empty project whose store is below `cache`.
    pub fn empty(cache: &Path) -> Self {
        Self::within(stores::scratch(), cache)
    }

    /// An empty project in a directory below `place`.
    pub fn within(place: &Path, cache: &Path) -> Self {
        let dir = tempfile::Builder::new().prefix("project-").tempdir_in(place).unwrap();
        Self { dir, cache: cache.to_path_buf() }
    }

    /// The project of most tests.
    pub fn new(cache: &Path) -> Self {
        let project = Self::empty(cache);
        project.fill();
        project
    }

    /// Writes the files of the project of most tests.
    pub fn fill(&self) {
        self.write("mkosi.conf", CONFIGURATION);
        self.write("src/hello.sh", "#!/bin/sh\necho hello\n");
        self.write("mkosi.extra/etc/extra", "extra\n");
        self.script("mkosi.build", "install -D -m 0755 \"$SRCDIR/hello.sh\" \"$DESTDIR/usr/bin/hello\"");
        self.script("mkosi.postinst.chroot", "hello > /usr/share/greeting");
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Writes a file, with its directories.
    pub fn write(&self, name: &str, text: &str) {
        let path = self.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    /// Writes a shell script that stops at the first error.
    pub fn script(&self, name: &str, text: &str) {
        self.write(name, &format!("#!/bin/sh\nset -eu\n{text}\n"));
        std::fs::set_permissions(self.path().join(name), std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// Adds to `mkosi.conf`.
    pub fn configure(&self, text: &str) {
        let old = self.read("mkosi.conf");
        self.write("mkosi.conf", &format!("{old}\n{text}"));
    }

    /// Replaces a text of `mkosi.conf` that stands there.
    pub fn reconfigure(&self, from: &str, to: &str) {
        let old = self.read("mkosi.conf");
        assert!(old.contains(from), "{from} in {old}");
        self.write("mkosi.conf", &old.replace(from, to));
    }

    /// Reads a file.
    pub fn read(&self, name: &str) -> String {
        let path = self.path().join(name);
        std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    /// A file of the output directory.
    pub fn output(&self, name: &str) -> PathBuf {
        self.path().join("mkosi.output").join(name)
    }

    /// The bytes of the tar archive, packed.
    pub fn tar(&self) -> Vec<u8> {
        std::fs::read(self.output("image.tar.zst")).unwrap()
    }

    /// The command, not started yet. Nothing of the caller's environment gets in.
    pub fn command<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Command {
        self.command_by(Command::new(MKOSI), arguments)
    }

    /// As [`Project::command`], behind words of another program.
    pub fn command_by<S: AsRef<OsStr>>(&self, mut command: Command, arguments: &[S]) -> Command {
        command
            .env_clear()
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .env("HOME", self.path())
            .env(processes::MARK, self.path())
            .arg("-C")
            .arg(self.path())
            .arg("--cache-directory")
            .arg(&self.cache)
            .args(arguments)
            .stdin(Stdio::null());
        for (name, value) in std::env::vars().filter(|(name, _)| name.to_lowercase().ends_with("_proxy")) {
            command.env(name, value);
        }
        command
    }

    /// Runs it.
    pub fn run(&self, arguments: &[&str]) -> Ran {
        Ran::new(self.command(arguments).output().unwrap())
    }

    /// Runs it; it has to succeed.
    pub fn done(&self, arguments: &[&str]) -> Ran {
        let ran = self.run(arguments);
        assert!(ran.success, "mkosi {arguments:?}: {}", ran.text);
        ran
    }

    /// Builds; it has to succeed, and afterwards there is nothing to do.
    pub fn build(&self) -> Ran {
        let ran = self.done(&[]);
        let again = self.done(&[]);
        assert!(again.stages.is_empty() && again.text.contains("up to date"), "{}\n{}", ran.text, again.text);
        ran
    }

    /// Runs it; it has to fail.
    pub fn fails(&self, arguments: &[&str]) -> Ran {
        let ran = self.run(arguments);
        assert!(!ran.success, "mkosi {arguments:?}: {}", ran.text);
        ran
    }

    /// What `mkosi graph` says.
    pub fn graph(&self, arguments: &[&str]) -> Graph {
        let ran = self.done(&[&["graph", "--format=json"], arguments].concat());
        Graph(serde_json::from_str(&ran.stdout).unwrap_or_else(|error| panic!("{error}: {}", ran.stdout)))
    }

    /// Every record of a stage in the store: its file's name, when it was written, and its inputs. For messages: they tell
    /// what differed when a stage ran that should not.
    pub fn records(&self, stage: &str) -> Vec<String> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir(self.cache.join("store/records")).unwrap().flatten() {
            let bytes = std::fs::read(entry.path()).unwrap_or_default();
            let name = entry.file_name().to_string_lossy().into_owned();
            match serde_json::from_slice::<serde_json::Value>(&bytes) {
                Err(error) => found.push(format!("{name}: {error}")),
                Ok(stored) if stored["record"]["kind"] == stage => {
                    let record = &stored["record"];
                    let (run, finished) = (&stored["run"], &record["finished"]);
                    found.push(format!("{name} of run {run}, {finished}: {:#}", record["inputs"]));
                }
                Ok(_) => {}
            }
        }
        found.sort();
        found
    }

    /// Builds after a change: what `mkosi graph` foretold has to hold.
    pub fn build_as_foretold(&self) -> (Ran, Graph) {
        let graph = self.graph(&[]);
        let foretold = graph.foretold();
        let ran = self.build();
        let unforeseen: Vec<_> = ran.names().filter(|stage| !foretold.contains(*stage)).collect();
        assert!(unforeseen.is_empty(), "not foretold: {unforeseen:?} of {foretold:?}\n{}", ran.text);
        for stage in graph.stages("run") {
            assert!(ran.stages.contains_key(&stage), "foretold, and did not run: {stage}\n{}", ran.text);
        }
        (ran, graph)
    }
}

/// What a run of the program said.
#[derive(Debug)]
pub struct Ran {
    /// Whether it succeeded.
    pub success: bool,
    /// How often each stage ran.
    pub stages: BTreeMap<String, usize>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub text: String,
}

impl Ran {
    /// Reads the output.
    pub fn new(output: Output) -> Self {
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        let mut stages = BTreeMap::new();
        for line in text.lines() {
            // "  main/base                    runs: never built", and "  base (4 images)  runs: ..." for a shared one.
            if let Some((name, _)) = line.split_once(" runs: ").filter(|_| line.starts_with("  ")) {
                let name = name.trim().split(" (").next().unwrap_or_default();
                *stages.entry(name.rsplit('/').next().unwrap_or_default().to_owned()).or_default() += 1;
            }
        }
        let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
        Self { success: output.status.success(), stages, stdout, text }
    }

    /// The stages that ran.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.stages.keys().map(String::as_str)
    }

    /// Checks which stages ran.
    #[track_caller]
    pub fn assert(&self, expected: &[&str]) {
        let expected: BTreeSet<&str> = expected.iter().copied().collect();
        assert_eq!(self.names().collect::<BTreeSet<_>>(), expected, "{}", self.text);
    }

    /// Checks that a text was printed.
    #[track_caller]
    pub fn says(&self, text: &str) {
        assert!(self.text.contains(text), "no {text:?} in: {}", self.text);
    }
}

/// What `mkosi graph --format=json` printed.
#[derive(Debug)]
pub struct Graph(pub serde_json::Value);

impl Graph {
    /// The nodes.
    pub fn nodes(&self) -> &[serde_json::Value] {
        self.0["nodes"].as_array().unwrap()
    }

    /// The stages of the nodes in a state.
    pub fn stages(&self, state: &str) -> BTreeSet<String> {
        let nodes = self.nodes().iter().filter(|node| node["state"] == state);
        nodes.map(|node| node["stage"].as_str().unwrap().to_owned()).collect()
    }

    /// The stages that run, or may.
    pub fn foretold(&self) -> BTreeSet<String> {
        self.stages("run").into_iter().chain(self.stages("may run")).collect()
    }

    /// The reasons of a stage.
    pub fn reasons(&self, stage: &str) -> String {
        let nodes = self.nodes().iter().filter(|node| node["stage"] == stage);
        nodes.map(|node| node["reasons"].to_string()).collect()
    }

    /// The keys by image and stage.
    pub fn keys(&self) -> BTreeMap<String, String> {
        let text = |node: &serde_json::Value, field: &str| node[field].to_string();
        let known = self.nodes().iter().filter(|node| !node["key"].is_null());
        known.map(|node| (format!("{} {}", text(node, "images"), text(node, "stage")), text(node, "key"))).collect()
    }
}
