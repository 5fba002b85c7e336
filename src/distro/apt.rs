//! Runs apt in a sandbox on a configuration, state and cache of its own.
//!
//! Everything lies under `/apt` there: `apt.conf` (named by `APT_CONFIG`), `etc` in place of `/etc/apt`, `lists`,
//! `cache` and `status`. So nothing of the host's `/etc/apt` or `/var/lib` is read, hooks included.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use super::configuration::Configuration;
use super::{Cx, Error, Repositories};
use crate::sandbox::{Cancel, Exit, HostRoot, Input, Mount, Output, Spec, host_root};

/// One run of a program of apt.
pub(super) struct Apt<'a> {
    /// The repositories.
    pub repositories: &'a Repositories,
    /// The text of the `.sources` file.
    pub sources: &'a str,
    /// A directory on the host for `/apt/lists`.
    pub lists: &'a Path,
    /// Whether the lists are changed: then the host's network is shared too.
    pub update: bool,
    /// A directory on the host for `/apt/cache`.
    pub cache: &'a Path,
    /// The contents of dpkg's status file.
    pub status: &'a str,
    /// Whether recommended packages are installed.
    pub recommends: bool,
}

/// Where the repositories stand, below `etc`.
const OWN_SOURCES: &str = "sources.list.d/mkosi.sources";

/// What a program printed and how it ended.
pub(super) struct Printed {
    pub exit: Exit,
    pub stdout: String,
    pub stderr: String,
}

impl Printed {
    /// The lines of an explanation: what stands on standard error, `W:` and `N:` lines after the errors.
    pub fn errors(&self) -> String {
        let lines = || self.stderr.lines().map(str::trim).filter(|l| !l.is_empty());
        let errors: Vec<&str> = lines().filter(|l| l.starts_with("E:") || l.starts_with("Err:")).collect();
        if errors.is_empty() { lines().collect::<Vec<_>>().join("\n") } else { errors.join("\n") }
    }
}

impl Apt<'_> {
    /// Runs it; what it prints on standard error goes to the log as well.
    pub fn run<S: AsRef<str>>(&self, cx: &mut Cx<'_>, argv: &[S]) -> Result<Printed, Error> {
        let mut mounts = tools(cx, self.update);
        mounts.extend(self.mounts());
        let mut env = environment(cx);
        env.insert("APT_CONFIG".to_owned(), "/apt/apt.conf".to_owned());
        if self.update {
            env.extend(self.repositories.proxy.environment());
        }
        let argv: Vec<String> = argv.iter().map(|a| a.as_ref().to_owned()).collect();
        let spec = Spec { argv, env, mounts, network: self.update, ..Spec::default() };
        run(cx, &spec)
    }

    fn mounts(&self) -> Vec<Mount> {
        let bind = |source: &Path, target: &str, read_only| Mount::Bind {
            source: source.to_owned(),
            target: PathBuf::from(target),
            read_only,
            optional: false,
        };
        let mut mounts = self.repositories.mounts.clone();
        if self.update {
            mounts.extend(self.repositories.proxy.mounts());
        }
        mounts.extend(self.repositories.etc("/apt/etc"));
        mounts.push(Mount::Directory { target: PathBuf::from("/apt/state"), mode: 0o755 });
        // The user's own file of that name stands in its place.
        if !self.repositories.files.contains_key(OWN_SOURCES) {
            mounts.push(file(&format!("/apt/etc/{OWN_SOURCES}"), self.sources.as_bytes()));
        }
        mounts.push(file("/apt/apt.conf", self.configuration().as_bytes()));
        mounts.push(file("/apt/status", self.status.as_bytes()));
        mounts.push(bind(self.lists, "/apt/lists", !self.update));
        mounts.push(bind(self.cache, "/apt/cache", false));
        mounts
    }

    fn configuration(&self) -> String {
        Configuration {
            architecture: self.repositories.target.architecture.debian(),
            directory: "/apt",
            lists: "/apt/lists",
            recommends: self.recommends,
            key_check: self.repositories.key_check,
            acquire: &self.repositories.acquire,
            tree: None,
        }
        .text()
    }
}

/// The words of apt's methods for a file that the other side doesn't have: of http(s), of file and copy.
pub(super) const NOT_THERE: [&str; 4] = [" 404 ", " 410 ", "File not found", "No such file"];

/// The environment of every tool here: the same on every host.
pub(super) fn environment(cx: &Cx<'_>) -> BTreeMap<String, String> {
    let pairs = [
        // dpkg and apt hand this on to scripts in the tree, where the directories of our own don't exist.
        ("PATH", cx.tools.path("/usr/sbin:/usr/bin:/sbin:/bin")),
        ("LC_ALL", "C.UTF-8".to_owned()),
        ("HOME", "/root".to_owned()),
        ("TMPDIR", "/tmp".to_owned()),
        ("DEBIAN_FRONTEND", "noninteractive".to_owned()),
        ("DEBCONF_INTERACTIVE_SEEN", "true".to_owned()),
    ];
    pairs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// The steps that show the tools.
pub(super) fn tools(cx: &Cx<'_>, network: bool) -> Vec<Mount> {
    host_root(&HostRoot { tools: cx.tools.clone(), network, ..HostRoot::default() })
}

/// A small file with these contents.
pub(super) fn file(path: &str, contents: &[u8]) -> Mount {
    Mount::File { target: PathBuf::from(path), contents: contents.to_vec(), mode: 0o644 }
}

/// Runs a specification, collects what it prints, and copies standard error to the log.
pub(super) fn run(cx: &mut Cx<'_>, spec: &Spec) -> Result<Printed, Error> {
    let mut stdout = Vec::new();
    let mut stderr = Tee { kept: Vec::new(), log: &mut *cx.log };
    let exit = start(cx.cancel, spec, Output::Split(&mut stdout, &mut stderr))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok(Printed { exit, stderr: text(&stderr.kept), stdout: text(&stdout) })
}

/// Runs a specification with all that it prints on the log, and keeps the end of that.
pub(super) fn run_logged(cx: &mut Cx<'_>, spec: &Spec) -> Result<Printed, Error> {
    let mut all = Tee { kept: Vec::new(), log: &mut *cx.log };
    let exit = start(cx.cancel, spec, Output::Merged(&mut all))?;
    // A shell says by 127 that it found no such program, and dpkg runs in no other place here.
    if let Some(tool) = missing_in_shell(&String::from_utf8_lossy(&all.kept)).filter(|_| exit == Exit::Code(127)) {
        return Err(Error::MissingTool { package: "dpkg".to_owned(), tool });
    }
    Ok(Printed { exit, stdout: String::new(), stderr: String::from_utf8_lossy(&all.kept).into_owned() })
}

/// Runs it, and tells a tool that is missing from other faults of a sandbox.
fn start(cancel: &Cancel, spec: &Spec, output: Output<'_>) -> Result<Exit, Error> {
    let missing = |tool: &str| {
        let tool = tool.rsplit('/').next().unwrap_or(tool);
        let package = if tool.starts_with("dpkg") { "dpkg" } else { "apt" };
        Error::MissingTool { tool: tool.to_owned(), package: package.to_owned() }
    };
    let tool = spec.argv.first().map_or("", String::as_str);
    match spec.run(Input::Null, output, cancel) {
        Err(crate::sandbox::Error::Setup(text)) if text.starts_with(&format!("could not run {tool}: ")) => {
            Err(missing(tool))
        }
        other => Ok(other?),
    }
}

/// `/apt/script: 14: dpkg: not found`
fn missing_in_shell(text: &str) -> Option<String> {
    let line = text.lines().rev().find_map(|l| l.strip_suffix(": not found"))?;
    Some(line.rsplit(' ').next().unwrap_or(line).to_owned())
}

struct Tee<'a> {
    kept: Vec<u8>,
    log: &'a mut (dyn Write + Send),
}

impl Write for Tee<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.kept.extend_from_slice(bytes);
        // A log that can't be written is no reason to stop.
        let _ = self.log.write_all(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.log.flush()
    }
}
