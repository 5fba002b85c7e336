//! Installs and removes packages in a tree with the host's dpkg and apt, which run the packages' own scripts in a
//! chroot of the tree.
//!
//! The minimal tree can't be installed by dpkg alone: the first scripts would find no shell. So its packages are
//! unpacked first without scripts, as debootstrap does, and then installed over themselves. Nothing here has the
//! network.

mod script;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use self::script::{EPILOGUE, PROLOGUE, quote};
use super::apt::{Printed, environment, file, run_logged, tools};
use super::configuration::{Configuration, Tree};
use super::deb::Deb;
use super::unpack::{ENTRY, Plan};
use super::{Cx, Error, Package, Target, pool_path};
use crate::sandbox::{BIN, EXECUTABLE, Mount, Spec};

/// Where the tree is seen.
const BUILDROOT: &str = "/buildroot";

/// How packages are installed.
#[derive(Clone, Debug)]
pub struct InstallOptions {
    /// What is built.
    pub target: Target,
    /// `WithDocs=`: whether documentation is unpacked. Copyright files always are.
    pub docs: bool,
    /// `SOURCE_DATE_EPOCH` of the packages' scripts (the day of the last password change stands in /etc/shadow for
    /// one); without it, the time at which the newest of the packages was built.
    pub epoch: Option<u64>,
    /// More variables for the packages' scripts.
    pub environment: BTreeMap<String, String>,
    /// Components for the sources file of an image that gets apt: those of `Repositories=`.
    pub components: Vec<String>,
}

impl InstallOptions {
    /// The defaults for a target.
    pub fn new(target: &Target) -> Self {
        let (environment, components) = (BTreeMap::new(), Vec::new());
        Self { target: target.clone(), docs: true, epoch: None, environment, components }
    }
}

/// What `WithDocs=no` leaves out, but for copyright files.
pub(super) const DOCS: [&str; 5] =
    ["usr/share/doc/*", "usr/share/man/*", "usr/share/groff/*", "usr/share/gtk-doc/*", "usr/share/info/*"];

/// Makes the minimal tree: `root` is a mount at `/buildroot` that takes the changes, on nothing or on trees that
/// are to lie below (skeleton trees). `packages` is [`super::Resolution::base`].
///
/// # Errors
/// When a package is missing in the pool, or dpkg or a script fails.
pub fn install_base(
    cx: &mut Cx<'_>,
    root: Mount,
    pool: &Path,
    packages: &[Package],
    options: &InstallOptions,
) -> Result<(), Error> {
    let work = Work::new(cx, root, pool, packages, options)?;
    work.run(cx, "unpacking the base", &work.bootstrap_script(), Kernel::Partly)?;
    work.run(cx, "installing the base", &work.install_script(true)?, Kernel::Whole)
}

/// Makes a minimal tree with nothing but our own executable: it unpacks, and then the tree's own dpkg configures, in the
/// tree. `packages` is what [`super::seed_packages`] found.
///
/// # Errors
/// When a package is missing in the pool, or a script fails.
pub fn install_seed(
    cx: &mut Cx<'_>,
    root: Mount,
    pool: &Path,
    packages: &[Package],
    options: &InstallOptions,
) -> Result<(), Error> {
    let work = Work { within: true, ..Work::new(cx, root, pool, packages, options)? };
    let debs = work.debs.iter().map(|(path, _)| path.clone()).collect();
    let plan = Plan { root: BUILDROOT.into(), debs, docs: options.docs, base: true, first: Some(work.links()) };
    let plan = serde_json::to_vec(&plan)
        .map_err(|error| Error::Install { what: "unpacking the first tree".to_owned(), detail: error.to_string() })?;
    let argv = [EXECUTABLE, ENTRY, "/apt/script"].map(str::to_owned).to_vec();
    work.start(cx, "unpacking the first tree", &plan, argv, Kernel::Partly)?;
    let script = work.install_script(true)?;
    let chroot = format!("{BIN}/mkosi-chroot");
    let argv = [chroot.as_str(), "sh", "-c", script.as_str()].map(str::to_owned).to_vec();
    work.start(cx, "configuring the first tree", b"", argv, Kernel::None)
}

/// Installs packages on a tree, as [`super::Resolution::packages`] or `build` has them.
///
/// # Errors
/// As [`install_base`].
pub fn install(
    cx: &mut Cx<'_>,
    root: Mount,
    pool: &Path,
    packages: &[Package],
    options: &InstallOptions,
) -> Result<(), Error> {
    if packages.is_empty() {
        return Ok(());
    }
    let work = Work::new(cx, root, pool, packages, options)?;
    work.run(cx, "installing packages", &work.install_script(false)?, Kernel::Whole)
}

/// Purges packages from a tree, and with them the automatically installed ones that nothing needs any more.
///
/// # Errors
/// When a package is unknown, or apt, dpkg or a script fails.
pub fn remove(cx: &mut Cx<'_>, root: Mount, names: &[String], options: &InstallOptions) -> Result<(), Error> {
    if names.is_empty() {
        return Ok(());
    }
    let work = Work { root, debs: Vec::new(), packages: &[], options, parallel: false, within: false };
    let names: BTreeSet<&String> = names.iter().collect();
    let names: Vec<String> = names.into_iter().map(|n| quote(n)).collect();
    let configuration = Configuration {
        architecture: options.target.architecture.debian(),
        directory: "/apt",
        lists: "/apt/lists",
        recommends: false,
        key_check: true,
        acquire: &[],
        tree: Some(work.tree()),
    };
    let script = format!(
        "{PROLOGUE}mkdir -p /tmp/apt/archives/partial $R/var/lib/apt\n\
         printf %s {} >/tmp/apt.conf\n\
         APT_CONFIG=/tmp/apt.conf apt-get -o Dir::Cache=/tmp/apt purge -- {}\n\
         {EPILOGUE}",
        quote(&configuration.text()),
        names.join(" ")
    );
    work.run(cx, "removing packages", &script, Kernel::Whole)
}

/// One change of a tree.
struct Work<'a> {
    root: Mount,
    /// The packages' files as the sandbox sees them, and what is in them.
    debs: Vec<(PathBuf, Deb)>,
    packages: &'a [Package],
    options: &'a InstallOptions,
    parallel: bool,
    /// Whether the tree's own tools are used, in the tree, in place of the host's.
    within: bool,
}

/// Which of the kernel's file systems are mounted in the tree.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kernel {
    /// None: who enters the tree mounts them.
    None,
    /// `/proc` and `/dev`: `/tmp` and `/run` themselves are being unpacked.
    Partly,
    /// `/tmp` and `/run` too.
    Whole,
}

impl<'a> Work<'a> {
    fn new(
        cx: &Cx<'_>,
        root: Mount,
        pool: &Path,
        packages: &'a [Package],
        options: &'a InstallOptions,
    ) -> Result<Self, Error> {
        use rayon::prelude::*;
        let open = |package: &Package| {
            let path = pool_path(pool, package);
            if !path.exists() {
                let why = "it is not there".to_owned();
                return Err(Error::Pool { path, package: package.filename.clone(), why });
            }
            Ok((Path::new("/apt/pool").join(&package.filename), Deb::open(&path)?))
        };
        let debs = packages.par_iter().map(open).collect::<Result<Vec<_>, Error>>()?;
        Ok(Self { root, debs, packages, options, parallel: cx.parallel, within: false })
    }

    /// Runs a shell script with the tree at `/buildroot`.
    fn run(&self, cx: &mut Cx<'_>, what: &str, script: &str, kernel: Kernel) -> Result<(), Error> {
        let argv = vec!["sh".to_owned(), "/apt/script".to_owned()];
        self.start(cx, what, script.as_bytes(), argv, kernel)
    }

    /// Runs a command with the tree at `/buildroot`, and `script` at `/apt/script`.
    fn start(
        &self,
        cx: &mut Cx<'_>,
        what: &str,
        script: &[u8],
        argv: Vec<String>,
        kernel: Kernel,
    ) -> Result<(), Error> {
        // dpkg looks up the owners of files in the users of the system that it runs on: the tree's, not the tools'.
        let users =
            ["passwd", "group"].map(|name| (Path::new("/etc").join(name), Path::new("/buildroot/etc").join(name)));
        let is_users =
            |mount: &Mount| matches!(mount, Mount::File { target, .. } if users.iter().any(|(own, _)| own == target));
        let mut mounts = tools(cx, false);
        mounts.retain(|mount| !is_users(mount));
        mounts.extend(users.clone().map(|(target, points_to)| Mount::Symlink { target, points_to }));
        for directory in
            ["/apt/etc/apt.conf.d", "/apt/etc/sources.list.d", "/apt/etc/preferences.d", "/apt/lists", "/apt/pool"]
        {
            mounts.push(Mount::Directory { target: PathBuf::from(directory), mode: 0o755 });
        }
        for (target, deb) in &self.debs {
            let (source, target) = (deb.path.clone(), target.clone());
            mounts.push(Mount::Bind { source, target, read_only: true, optional: false });
        }
        mounts.push(self.root.clone());
        let path = |name: &str| Path::new(BUILDROOT).join(name);
        if kernel != Kernel::None {
            mounts.push(Mount::Proc { target: path("proc") });
            mounts.push(Mount::Dev { target: path("dev") });
        }
        if kernel == Kernel::Whole {
            mounts.push(Mount::Tmpfs { target: path("tmp"), mode: 0o1777 });
            mounts.push(Mount::Tmpfs { target: path("run"), mode: 0o755 });
        }
        mounts.push(file("/apt/script", script));
        let mut env = environment(cx);
        if self.within {
            env.insert("BUILDROOT".to_owned(), BUILDROOT.to_owned());
        }
        // debconf writes what it has in hashes in their own order, which perl changes with every process otherwise.
        env.insert("PERL_HASH_SEED".to_owned(), "0".to_owned());
        let newest = self.debs.iter().map(|(_, deb)| deb.timestamp).max();
        if let Some(epoch) = self.options.epoch.or(newest) {
            env.insert("SOURCE_DATE_EPOCH".to_owned(), epoch.to_string());
        }
        env.extend(self.options.environment.clone());
        let spec = Spec { argv, env, mounts, ..Spec::default() };
        let printed = run_logged(cx, &spec)?;
        if printed.exit.success() { Ok(()) } else { Err(failure(what, &printed)) }
    }

    fn tree(&self) -> Tree<'_> {
        Tree { root: if self.within { "/" } else { BUILDROOT }, docs: self.options.docs }
    }
}

/// The lines that say why: dpkg's and apt's errors with the line before each, or else the end of the output.
fn failure(what: &str, printed: &Printed) -> Error {
    let lines: Vec<&str> = printed.stderr.lines().collect();
    let is_error = |l: &str| l.starts_with("dpkg: error") || l.starts_with("E: ") || l.contains("error processing");
    let mut picked = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        if is_error(line) {
            let from = at.saturating_sub(3);
            picked.extend(lines.get(from..(at + 2).min(lines.len())).unwrap_or_default());
        }
    }
    picked.dedup();
    if picked.is_empty() {
        picked = lines.get(lines.len().saturating_sub(10)..).unwrap_or_default().iter().collect();
    }
    let detail = picked.iter().take(40).map(|l| **l).collect::<Vec<_>>().join("\n");
    Error::Install { what: what.to_owned(), detail }
}
