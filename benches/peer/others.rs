//! The programs that ours is measured beside, from the host or as Debian's packages from the host's mirrors.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::clear;
use crate::measure::run;

/// Fetches Debian packages of the repositories in `sources` and unpacks them, with an apt that shares no state with
/// the host's.
fn unpack(dir: &Path, sources: &Path, package: &str) -> Result<PathBuf, String> {
    let apt = dir.join("apt");
    for sub in ["lists/partial", "cache/archives/partial"] {
        fs::create_dir_all(apt.join(sub)).map_err(|error| error.to_string())?;
    }
    let path = |name: &str| apt.join(name).to_string_lossy().into_owned();
    fs::write(apt.join("status"), "").map_err(|error| error.to_string())?;
    fs::copy(sources, apt.join("mkosi.sources")).map_err(|error| error.to_string())?;
    let config = format!(
        "Dir::State::lists \"{}\";\nDir::State::status \"{}\";\nDir::Cache \"{}\";\nDir::Etc::sourceparts \"/dev/null\";\n\
         Dir::Etc::sourcelist \"{}\";\nAPT::Sandbox::User \"root\";\n",
        path("lists"),
        path("status"),
        path("cache"),
        path("mkosi.sources")
    );
    fs::write(apt.join("apt.conf"), config).map_err(|error| error.to_string())?;
    let program = |name: &str, arguments: &[&str]| {
        let mut command = Command::new(name);
        command.args(arguments).env("APT_CONFIG", apt.join("apt.conf")).current_dir(&apt);
        run(command, dir).map(drop)
    };
    program("apt-get", &["update"])?;
    program("apt-get", &["download", package])?;
    let files = fs::read_dir(&apt).map_err(|error| error.to_string())?;
    let begins = format!("{package}_");
    let deb = files.flatten().map(|file| file.path()).find(|path| {
        path.file_name().and_then(|name| name.to_str()).is_some_and(|n| n.starts_with(&begins) && n.ends_with(".deb"))
    });
    let deb = deb.ok_or_else(|| format!("apt-get left no package {package}"))?;
    let tree = dir.join(package);
    program("dpkg-deb", &["-x", &deb.to_string_lossy(), &tree.to_string_lossy()])?;
    Ok(tree)
}

/// Debian's mkosi.
pub struct Python {
    dir: PathBuf,
    tools: Option<PathBuf>,
    modules: PathBuf,
    pub project: PathBuf,
}

impl Python {
    /// Fetches it and builds a project once, for its caches: with the programs of a tools tree, or the host's.
    pub fn new(dir: &Path, sources: &Path, project: &Path, tools: Option<&Path>) -> Result<Self, String> {
        let tree = unpack(dir, sources, "mkosi")?;
        let name = project.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let python = Self {
            dir: dir.join("python").join(name),
            tools: tools.map(Path::to_owned),
            modules: tree.join("usr/lib/python3/dist-packages"),
            project: project.to_owned(),
        };
        // The same repositories as ours. Its own list names one for debug symbols, which few mirrors carry.
        let list = python.dir.join("configuration/etc/apt/sources.list.d");
        for path in [&list, &python.dir.join("cache"), &python.dir.join("packages"), &python.dir.join("work")] {
            fs::create_dir_all(path).map_err(|error| error.to_string())?;
        }
        fs::copy(sources, list.join("mkosi.sources")).map_err(|error| error.to_string())?;
        run(python.command(&["--version"]), dir)?;
        run(python.command(&["build"]), dir)?;
        Ok(python)
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        // The distribution's: another one may lack its modules.
        let system = Path::new("/usr/bin/python3");
        let mut command = Command::new(if system.exists() { system } else { Path::new("python3") });
        command.args(["-m", "mkosi", "--incremental=yes"]).current_dir(&self.project);
        command.env("PYTHONPATH", &self.modules).env("PYTHONDONTWRITEBYTECODE", "");
        let directories = [
            ("--cache-dir", "cache"),
            ("--package-cache-dir", "packages"),
            ("--workspace-dir", "work"),
            ("--sandbox-tree", "configuration"),
        ];
        for (option, name) in directories {
            command.arg(option).arg(self.dir.join(name));
        }
        if let Some(tools) = &self.tools {
            command.arg("--tools-tree").arg(tools);
        }
        command.args(arguments);
        command
    }

    /// Throws away what it built, and keeps its packages.
    pub fn forget(&self) {
        clear(&self.project.join("mkosi.output"));
        clear(&self.dir.join("cache"));
        fs::create_dir_all(self.dir.join("cache")).expect("no directory");
    }
}

/// mmdebstrap, with the packages of the example.
pub struct Mmdebstrap {
    program: PathBuf,
    dir: PathBuf,
    sources: PathBuf,
}

impl Mmdebstrap {
    /// Takes the host's or fetches it, and runs it once for its packages.
    pub fn new(dir: &Path, sources: &Path) -> Result<Self, String> {
        let mut version = Command::new("mmdebstrap");
        version.arg("--version");
        let program = match run(version, dir) {
            Ok(_) => PathBuf::from("mmdebstrap"),
            Err(_) => unpack(dir, sources, "mmdebstrap")?.join("usr/bin/mmdebstrap"),
        };
        let mmdebstrap = Self { program, dir: dir.join("bootstrap"), sources: dir.join("bootstrap/mkosi.sources") };
        fs::create_dir_all(mmdebstrap.dir.join("packages")).map_err(|error| error.to_string())?;
        fs::copy(sources, &mmdebstrap.sources).map_err(|error| error.to_string())?;
        run(mmdebstrap.command(), dir)?;
        Ok(mmdebstrap)
    }

    /// A directory with the example's packages, from a kept package cache in the way that its manual shows.
    pub fn command(&self) -> Command {
        let tree = self.dir.join("tree");
        clear(&tree);
        let packages = self.dir.join("packages");
        let mut command = Command::new(&self.program);
        command.args(["--variant=minbase", "--format=directory", "--mode=root"]);
        command.args([
            "--include=systemd,systemd-sysv,udev,dbus,less",
            "--skip=download/empty",
            "--skip=essential/unlink",
        ]);
        command.arg(r#"--setup-hook=mkdir -p "$1/var/cache/apt/archives/""#);
        command.arg(format!("--setup-hook=sync-in '{}' /var/cache/apt/archives/", packages.display()));
        command.arg(format!("--customize-hook=sync-out /var/cache/apt/archives '{}'", packages.display()));
        command.arg("trixie").arg(&tree).arg(&self.sources);
        command
    }
}
