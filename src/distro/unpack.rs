//! Unpacks packages several at once, to the state in which `dpkg --unpack` leaves them.
//!
//! dpkg unpacks one package after another and so is bound by one processor's xz. This runs in the sandbox, as the
//! hidden entry [`ENTRY`] of our own executable, in a chroot of the tree, and does just the plain case: packages that
//! are new, that share no file, and that no diversion or override concerns. In every other case it says so by
//! the exit status [`DECLINED`] before anything of dpkg's database is changed, and the caller lets dpkg do it all;
//! files that were written by then are the same that dpkg writes.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::database::{Database, Unpacked};
use super::deb::Deb;
use super::extract::{Claims, Owners, extract};

/// The first argument of the hidden entry; the second is the path of a [`Plan`].
pub const ENTRY: &str = "distro-unpack";
/// The exit status that says: let dpkg do it.
pub(super) const DECLINED: i32 = 75;

/// What is to be unpacked.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Plan {
    /// The root of the tree.
    pub root: PathBuf,
    /// The packages' files, in the order in which dpkg would take them.
    pub debs: Vec<PathBuf>,
    /// Whether documentation is unpacked.
    pub docs: bool,
    /// Whether this is the minimal tree: then nothing is configured yet, configuration files are needed at once, and
    /// the packages' `preinst` scripts are run when all are unpacked.
    pub base: bool,
    /// If there is nothing at all yet, not even a shell: the directories that are links into `/usr`.
    pub first: Option<Vec<String>>,
}

/// Why the parallel way was not gone to its end.
#[derive(Debug)]
pub(super) enum Stop {
    /// A case for dpkg.
    Declined(String),
    /// Something that dpkg could not do either.
    Failed(String),
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Self::Failed(error.to_string())
    }
}

impl Stop {
    pub(super) fn io(action: &str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let text = format!("{action} {}", path.display());
        move |error| Self::Failed(format!("{text}: {error}"))
    }
}

/// Handles the hidden entry of the executable, as `sandbox::hidden_entry` does. Returns when this is none.
pub fn hidden_entry() {
    let args: Vec<OsString> = std::env::args_os().take(3).collect();
    let [_, entry, plan] = args.as_slice() else { return };
    if entry != ENTRY {
        return;
    }
    let code = match main(Path::new(plan)) {
        Ok(()) => 0,
        Err(Stop::Declined(why)) => {
            crate::tell!("leaving the unpacking to dpkg: {why}");
            DECLINED
        }
        Err(Stop::Failed(why)) => {
            crate::tell!("E: unpacking failed: {why}");
            1
        }
    };
    std::process::exit(code);
}

fn main(path: &Path) -> Result<(), Stop> {
    let text = std::fs::read(path).map_err(Stop::io("could not read", path))?;
    let plan: Plan = serde_json::from_slice(&text).map_err(|e| Stop::Failed(format!("the plan is broken: {e}")))?;
    let debs = plan.debs.par_iter().map(|deb| Deb::open(deb).map_err(|e| Stop::Failed(e.to_string())));
    let debs = debs.collect::<Result<Vec<_>, Stop>>()?;
    // The packages lie outside of the root and are opened once more when they are unpacked.
    let files = debs.iter().map(|deb| std::fs::File::open(&deb.path).map_err(Stop::io("could not open", &deb.path)));
    let files = files.collect::<Result<Vec<_>, Stop>>()?;
    std::os::unix::fs::chroot(&plan.root).map_err(Stop::io("could not enter", &plan.root))?;
    std::env::set_current_dir("/")?;
    if let Some(links) = &plan.first {
        begin(links)?;
    }
    let database = Database::read(plan.base)?;
    database.accept(&debs)?;
    let claims = Mutex::new(Claims::new(database.paths()));
    let owners = Owners::read();
    // The largest first, so that no processor ends up with one large package alone.
    let mut order: Vec<usize> = (0..debs.len()).collect();
    order.sort_by_key(|index| std::cmp::Reverse(debs.get(*index).map_or(0, Deb::data_size)));
    let unpack = |index: usize| -> Result<(usize, Vec<String>), Stop> {
        let (Some(deb), Some(file)) = (debs.get(index), files.get(index)) else {
            return Err(Stop::Failed("a package is missing".to_owned()));
        };
        let name = deb.path.display().to_string();
        let paths = extract(deb, file, index, &plan, &claims, &owners).map_err(|stop| match stop {
            Stop::Failed(why) => Stop::Failed(format!("{name}: {why}")),
            declined => declined,
        })?;
        Ok((index, paths))
    };
    let lists: BTreeMap<usize, Vec<String>> =
        order.into_par_iter().with_max_len(1).map(unpack).collect::<Result<_, Stop>>()?;
    let claims = claims.into_inner().map_err(|_| Stop::Failed("a thread panicked".to_owned()))?;
    claims.finish_directories()?;
    if plan.base {
        for deb in &debs {
            preinst(deb)?;
        }
    }
    database.accept_diversions(&claims, &debs)?;
    let unpacked = debs.iter().zip(lists.into_values()).map(|(deb, paths)| Unpacked { deb, paths });
    database.write(&unpacked.collect::<Vec<_>>())?;
    println!("{} packages are unpacked together:", debs.len());
    for deb in &debs {
        let control = deb.control();
        let field = |name: &str| control.get(name).unwrap_or_default().to_owned();
        println!("Unpacking {} ({}) ...", field("Package"), field("Version"));
    }
    Ok(())
}

/// Makes what has to be there before the first package is: the merged `/usr`, and dpkg's empty database.
fn begin(links: &[String]) -> Result<(), Stop> {
    for name in links {
        let (directory, link) = (Path::new("/usr").join(name), Path::new("/").join(name));
        std::fs::create_dir_all(&directory).map_err(Stop::io("could not make", &directory))?;
        if link.symlink_metadata().is_err() {
            let to = Path::new("usr").join(name);
            std::os::unix::fs::symlink(to, &link).map_err(Stop::io("could not make", &link))?;
        }
    }
    let dpkg = Path::new("/var/lib/dpkg");
    for name in ["info", "updates", "triggers"] {
        std::fs::create_dir_all(dpkg.join(name)).map_err(Stop::io("could not make", dpkg))?;
    }
    for name in ["status", "available"] {
        let path = dpkg.join(name);
        if !path.exists() {
            std::fs::write(&path, "").map_err(Stop::io("could not write", &path))?;
        }
    }
    Ok(())
}

/// Runs a package's `preinst` as dpkg does for a package that is new (deb-preinst(5), dpkg(1) on environment).
fn preinst(deb: &Deb) -> Result<(), Stop> {
    use std::os::unix::fs::PermissionsExt;
    if !deb.files.contains_key("preinst") {
        return Ok(());
    }
    let control = deb.control();
    let field = |name: &str| control.get(name).unwrap_or_default().to_owned();
    let directory = Path::new("/var/lib/dpkg/tmp.ci");
    let path = directory.join("preinst");
    std::fs::create_dir_all(directory).map_err(Stop::io("could not make", directory))?;
    // A script may look for what lies beside it: debconf finds its templates there.
    for (name, file) in &deb.files {
        let path = directory.join(name);
        std::fs::write(&path, &file.contents).map_err(Stop::io("could not write", &path))?;
        let mode = std::fs::Permissions::from_mode(file.mode);
        std::fs::set_permissions(&path, mode).map_err(Stop::io("could not change the mode of", &path))?;
    }
    let status = Command::new(&path)
        .arg("install")
        .envs([("DPKG_MAINTSCRIPT_NAME", "preinst"), ("DPKG_MAINTSCRIPT_PACKAGE_REFCOUNT", "1"), ("DPKG_ROOT", "")])
        .envs([("DPKG_MAINTSCRIPT_DEBUG", "0"), ("DPKG_ADMINDIR", "/var/lib/dpkg"), ("DPKG_FORCE", "unsafe-io")])
        .env("DPKG_MAINTSCRIPT_PACKAGE", field("Package"))
        .env("DPKG_MAINTSCRIPT_ARCH", field("Architecture"))
        .env("DPKG_RUNNING_VERSION", "1.21.0")
        .status()
        .map_err(Stop::io("could not run the preinst script of", &deb.path))?;
    std::fs::remove_dir_all(directory).map_err(Stop::io("could not remove", directory))?;
    if status.success() {
        return Ok(());
    }
    Err(Stop::Failed(format!("the preinst script of {} ended with {status}", field("Package"))))
}
