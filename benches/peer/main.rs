//! Whole builds beside those of two other programs: Debian's mkosi (a Python program) and mmdebstrap.
//!
//! Each round runs everything once, ours and theirs in turn, so that a noisy machine is noisy for all. What is
//! printed is the medians and their ratios; nothing fails because of a time. The packages come from the mirrors of
//! the host's apt, once; what is measured runs on warm package caches. Needs root, and Debian's keyring.
//!
//! `cargo bench --bench peer` runs five rounds, `-- --rounds 3` three, `-- --disk` the disk image alone, `-- --test` one
//! that is not worth looking at, without the disk image.

mod disk;
mod measure;
mod others;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use measure::{Table, run};
use others::{Mmdebstrap, Python};

/// Our program with its store and its projects.
struct Ours {
    dir: PathBuf,
}

impl Ours {
    fn new(dir: &Path) -> Self {
        let ours = Self { dir: dir.join("ours") };
        let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
        for (from, to) in [("debian", "one"), ("debian", "archive"), ("presets", "four")] {
            copy(&examples.join(from), &ours.dir.join(to));
        }
        ours
    }

    fn command(&self, project: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mkosi"));
        command.arg("-C").arg(self.dir.join(project)).arg("--cache-directory").arg(self.dir.join("cache"));
        command.args(arguments);
        command
    }
}

/// The repositories that our builds took their packages from.
fn sources(cache: &Path) -> Option<PathBuf> {
    let layers = fs::read_dir(cache.join("store/layers")).ok()?;
    layers.flatten().map(|layer| layer.path().join("tree/mkosi.sources")).find(|path| path.exists())
}

/// Copies a project without what was built in it.
fn copy(from: &Path, to: &Path) {
    let parent = to.parent().expect("has one");
    fs::create_dir_all(parent).expect("no directory");
    let status = Command::new("cp").arg("-r").arg("--").args([from, to]).status();
    assert!(status.expect("cp starts").success(), "can't copy {}", from.display());
    clear(&to.join("mkosi.output"));
}

/// Removes a tree that may not be there.
fn clear(path: &Path) {
    let status = Command::new("rm").arg("-rf").arg("--").arg(path).status();
    assert!(status.expect("rm starts").success(), "can't remove {}", path.display());
}

/// Changes the file that the build script installs.
fn edit(project: &Path, round: usize) {
    let path = project.join("src/hello.sh");
    let mut text = fs::read_to_string(&path).expect("the example has it");
    text.push_str(&format!("# {round}\n"));
    fs::write(&path, text).expect("not written");
}

const TAR: [&str; 2] = ["--format=tar", "--compress-output=zstd"];

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let has = |word: &str| arguments.iter().any(|argument| argument == word);
    let test = has("--test");
    let place = arguments.iter().position(|argument| argument == "--rounds");
    let asked = place.and_then(|at| arguments.get(at + 1)).and_then(|text| text.parse().ok());
    let rounds = if test { 1 } else { asked.unwrap_or(5) };

    let dir = scratch();
    let mut table = Table::default();
    disk::measure(dir.path(), &mut table, rounds, test);
    if has("--disk") {
        print!("{}", table.text("mkosi"));
        return;
    }
    let ours = Ours::new(dir.path());
    // Warms the pool, and what later runs are rebuilds of.
    let must = |command: Command| run(command, dir.path()).unwrap_or_else(|why| panic!("{why}"));
    must(ours.command("one", &["build"]));
    must(ours.command("archive", &[&TAR[..], &["build"]].concat()));
    must(ours.command("four", &["build"]));

    let sources = sources(&ours.dir.join("cache")).expect("a build leaves its repositories in the store");
    let example = dir.path().join("python-one/one");
    copy(&Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/debian"), &example);
    let python = told(Python::new(dir.path(), &sources, &example, None), "Debian's mkosi");
    let mmdebstrap = told(Mmdebstrap::new(dir.path(), &sources), "mmdebstrap");
    for round in 0..rounds {
        let mut measured = |what: &'static str, who: &'static str, command: Command| {
            match run(command, dir.path()) {
                Ok(time) => table.add(what, who, time),
                // Ours must work; another program may fail on this host, and says why.
                Err(why) => assert!(who != "mkosi", "{why}"),
            }
        };
        clear(&ours.dir.join("one/mkosi.output"));
        measured("full", "mkosi", ours.command("one", &["--no-cache", "build"]));
        if let Some(python) = &python {
            python.forget();
            measured("full", "Debian's mkosi", python.command(&["-ff", "--cache-only=metadata", "build"]));
        }
        if let Some(mmdebstrap) = &mmdebstrap {
            measured("full", "mmdebstrap", mmdebstrap.command());
        }
        measured("no-op", "mkosi", ours.command("one", &["build"]));
        if let Some(python) = &python {
            measured("no-op", "Debian's mkosi", python.command(&["-f", "--cache-only=always", "build"]));
            measured("no-op, output not asked for", "Debian's mkosi", python.command(&["build"]));
        }
        edit(&ours.dir.join("one"), round);
        measured("edit, directory", "mkosi", ours.command("one", &["build"]));
        if let Some(python) = &python {
            edit(&python.project, round);
            measured("edit, directory", "Debian's mkosi", python.command(&["-f", "--cache-only=always", "build"]));
        }
        edit(&ours.dir.join("archive"), round);
        measured("edit, .tar.zst", "mkosi", ours.command("archive", &[&TAR[..], &["build"]].concat()));
        if let Some(python) = &python {
            edit(&python.project, rounds + round);
            let arguments = [&TAR[..], &["-f", "--cache-only=always", "build"]].concat();
            measured("edit, .tar.zst", "Debian's mkosi", python.command(&arguments));
            clear(&python.project.join("mkosi.output"));
            run(python.command(&["--cache-only=always", "build"]), dir.path()).ok();
        }
        clear(&ours.dir.join("four/mkosi.output"));
        measured("full, one of four", "mkosi", ours.command("four", &["--no-cache", "build", "one"]));
        clear(&ours.dir.join("four/mkosi.output"));
        measured("full, four", "mkosi", ours.command("four", &["--no-cache", "build"]));
        measured("no-op, four", "mkosi", ours.command("four", &["build"]));
    }
    print!("{}", table.text("mkosi"));
    table.ratio("four images to one", "full, four", "full, one of four", "mkosi");
}

/// A directory for all of it. What a run that was stopped has left, gigabytes at times, is removed.
fn scratch() -> tempfile::TempDir {
    let top = Path::new(env!("CARGO_TARGET_TMPDIR"));
    for entry in fs::read_dir(top).expect("Cargo makes it").flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let run = name.strip_prefix("peer-").and_then(|rest| rest.split('-').next());
        if run.is_some_and(|run| !Path::new("/proc").join(run).exists()) {
            clear(&entry.path());
        }
    }
    let prefix = format!("peer-{}-", std::process::id());
    tempfile::Builder::new().prefix(&prefix).tempdir_in(top).expect("no temporary directory")
}

/// What another program needs, or nothing and a word about why.
fn told<T>(made: Result<T, String>, name: &str) -> Option<T> {
    made.map_err(|why| println!("note: {name} is left out: {why}")).ok()
}
