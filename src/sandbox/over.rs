//! Runs a program of a tools tree on the host's own file system: `/usr` and what belongs to it are the tree's, everything
//! else is the host's, descriptors and terminal too. For programs that work on the host, like a virtual machine monitor.
//!
//! This process moves to a mount namespace and a root of its own for that and becomes the program: no rights are taken
//! away. Knows nothing of sandboxes.

use std::ffi::{CString, OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::Mount;
use super::fault::{Fault, Result, Tried, show};
use super::root::{Base, enter};
use super::sys;
use super::tree::Links;

/// The hidden first argument.
pub(super) const ENTRY: &str = "tools-init";

/// Where this program is, in a directory of its own, for programs of a tools tree: its own place may be below `/usr`.
pub const OVER_EXECUTABLE: &str = "/mkosi/mkosi";

/// Directories of programs and libraries, which are links into `/usr` on most distributions. A host's library among
/// those of the tree would do harm, so what the tree lacks of these is not there.
const DIRECTORIES: [&str; 7] = ["usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32"];
/// What of `/etc` belongs to what is in `/usr`, where the rest of `/etc` is the host's.
const OF_ETC: [&str; 2] = ["/etc/alternatives", "/etc/ld.so.cache"];
/// What of `/etc` is the host's where the rest is the tree's: who is who, and the way to the network.
const HOSTS_ETC: [&str; 8] = [
    "/etc/group",
    "/etc/gshadow",
    "/etc/hosts",
    "/etc/machine-id",
    "/etc/nsswitch.conf",
    "/etc/passwd",
    "/etc/resolv.conf",
    "/etc/shadow",
];

/// How a program of a tools tree sees the host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Over {
    /// The directories that the tools tree is made of, lowest first; none for a program of the host.
    pub lowers: Vec<PathBuf>,
    /// Whether `/etc` is the tree's too, but for what tells who is who.
    pub etc: bool,
    /// The user and group that it runs as, other than who starts it.
    pub owner: Option<(u32, u32)>,
    /// Files and directories of the host, and where it sees them, read-only: places that are there without them.
    pub binds: Vec<(PathBuf, PathBuf)>,
}

impl Over {
    /// The arguments that start `program`, a path in the tree or a name to look for in `PATH`, when this executable is
    /// run with them.
    pub fn arguments(&self, program: &Path) -> Vec<OsString> {
        let owner = self.owner.map_or("-".to_owned(), |(uid, gid)| format!("{uid}:{gid}"));
        let [lowers, binds] = [self.lowers.len(), self.binds.len()].map(|count| count.to_string());
        let head = [ENTRY, if self.etc { "etc" } else { "usr" }, &owner, &lowers, &binds];
        let binds = self.binds.iter().flat_map(|(source, target)| [source, target]);
        let paths = self.lowers.iter().chain(binds).map(|path| path.as_os_str().to_owned());
        head.into_iter().map(OsString::from).chain(paths).chain([program.as_os_str().to_owned()]).collect()
    }

    /// Reads the arguments behind the hidden one; gives the program and its arguments too.
    fn parse(args: &[OsString]) -> Option<(Self, &[OsString])> {
        let [etc, owner, lowers, binds, rest @ ..] = args else { return None };
        let owner = match owner.to_str()? {
            "-" => None,
            text => text.split_once(':').and_then(|(uid, gid)| Some((uid.parse().ok()?, gid.parse().ok()?))),
        };
        let (lowers, rest) = rest.split_at_checked(lowers.to_str()?.parse().ok()?)?;
        let (binds, argv) = rest.split_at_checked(binds.to_str()?.parse::<usize>().ok()?.checked_mul(2)?)?;
        argv.first()?;
        let lowers = lowers.iter().map(PathBuf::from).collect();
        let binds =
            binds.chunks_exact(2).filter_map(|pair| Some((pair.first()?.into(), pair.get(1)?.into()))).collect();
        Some((Self { lowers, etc: etc == "etc", owner, binds }, argv))
    }

    /// The program in arguments that [`Over::arguments`] gave.
    pub fn program_of(args: &[OsString]) -> Option<&OsStr> {
        Self::parse(args.get(1..)?).and_then(|(_, argv)| argv.first()).map(OsString::as_os_str)
    }

    /// The steps that make the root. `names` are the entries of the host's root directory, `there` tells what the host
    /// has.
    fn mounts(&self, names: &[OsString], there: impl Fn(&Path) -> bool) -> Vec<Mount> {
        let tools = |name: &OsString| {
            !self.lowers.is_empty() && (DIRECTORIES.iter().any(|own| name == own) || (self.etc && name == "etc"))
        };
        let own = Path::new(OVER_EXECUTABLE).parent().and_then(Path::file_name);
        let own = own.filter(|_| !self.lowers.is_empty());
        let host = names.iter().filter(|name| !tools(name) && own != Some(name));
        let mut mounts: Vec<Mount> = host.map(|name| Mount::Same { path: Path::new("/").join(name) }).collect();
        let bind = |source: PathBuf, target: PathBuf| Mount::Bind { source, target, read_only: true, optional: true };
        let binds = self.binds.iter().map(|(source, target)| bind(source.clone(), target.clone()));
        if self.lowers.is_empty() {
            mounts.extend(binds);
            return mounts;
        }
        let mut parts: Vec<PathBuf> = DIRECTORIES.iter().map(|name| Path::new("/").join(name)).collect();
        let mut points = Vec::new();
        if self.etc {
            parts.push("/etc".into());
            let files = HOSTS_ETC.iter().map(PathBuf::from).filter(|path| there(path));
            points = match self.lowers.as_slice() {
                // A tree that is one directory is shown without an overlay, which not everyone can mount.
                [tree] => files.filter(|path| is_file(&tree.join(path.strip_prefix("/").unwrap_or(path)))).collect(),
                _ => files.collect(),
            };
        } else {
            // Nothing is made in the host's /etc to mount them on.
            parts.extend(OF_ETC.iter().map(PathBuf::from).filter(|path| there(path)));
        }
        let over = points.clone();
        if self.lowers.len() == 1 {
            points.clear();
        }
        mounts.push(Mount::Parts { lowers: self.lowers.clone(), parts, points });
        mounts.extend(over.into_iter().map(|path| bind(path.clone(), path)));
        mounts.extend(std::env::current_exe().ok().map(|executable| bind(executable, OVER_EXECUTABLE.into())));
        mounts.extend(binds);
        mounts
    }

    fn enter(&self) -> Result<()> {
        let here = std::env::current_dir();
        if rustix::process::geteuid().is_root() {
            sys::unshare(libc::CLONE_NEWNS).tried(|| "make a mount namespace".to_owned())?;
        } else {
            alone()?;
        }
        let entries = std::fs::read_dir("/").tried(|| "read the directory /".to_owned())?;
        let mut names: Vec<OsString> = entries.flatten().map(|entry| entry.file_name()).collect();
        names.sort();
        enter(&Base::OfHost, &self.mounts(&names, |path| path.symlink_metadata().is_ok()), Links::Cope)?;
        // A directory below /usr is not there any more: a program that needs it says so.
        if let Ok(here) = here
            && let Err(error) = rustix::process::chdir(&here)
            && self.etc
        {
            return Err(error).tried(|| format!("enter {}, where the tools tree's own files are", show(&here)));
        }
        if let Some((uid, gid)) = self.owner {
            let what = || format!("become the user {uid}");
            nix::unistd::setgroups(&[]).tried(what)?;
            nix::unistd::setresgid(gid.into(), gid.into(), gid.into()).tried(what)?;
            nix::unistd::setresuid(uid.into(), uid.into(), uid.into()).tried(what)?;
        }
        Ok(())
    }
}

fn is_file(path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|meta| meta.is_file())
}

/// The hidden entry.
pub(super) fn main(args: &[OsString]) -> ! {
    let Some((over, argv)) = args.get(2..).and_then(Over::parse) else {
        crate::tell!("{ENTRY}: this is for mkosi's own use");
        std::process::exit(2);
    };
    let program = argv.first().cloned().unwrap_or_default();
    let fault = match over.enter() {
        Ok(()) => become_program(&program, argv),
        Err(fault) => fault,
    };
    let whose = if over.lowers.is_empty() { "" } else { " of the tools tree" };
    crate::tell!("mkosi: can't run {}{whose}: {fault}", program.to_string_lossy());
    std::process::exit(127)
}

/// A user namespace in which the user is the same: what it takes to mount.
fn alone() -> Result<()> {
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    sys::unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWNS).tried(|| "make a user namespace".to_owned())?;
    for (file, text) in
        [("setgroups", "deny".to_owned()), ("uid_map", format!("{uid} {uid} 1")), ("gid_map", format!("{gid} {gid} 1"))]
    {
        let path = format!("/proc/self/{file}");
        std::fs::write(&path, text).tried(|| format!("write {path}"))?;
    }
    Ok(())
}

fn become_program(program: &OsStr, argv: &[OsString]) -> Fault {
    let c_string = |text: &[u8]| CString::new(text).map_err(|_| Fault::Wrong("an argument has a NUL byte".to_owned()));
    let argv: Result<Vec<CString>> = argv.iter().map(|word| c_string(word.as_bytes())).collect();
    let env: Result<Vec<CString>> = std::env::vars_os()
        .map(|(name, value)| c_string(&[name.as_bytes(), b"=", value.as_bytes()].concat()))
        .collect();
    let (argv, env) = match (argv, env) {
        (Ok(argv), Ok(env)) => (argv, env),
        (Err(fault), _) | (_, Err(fault)) => return fault,
    };
    let search = std::env::var_os("PATH").unwrap_or_default();
    let candidates: Vec<PathBuf> = match program.as_bytes().contains(&b'/') {
        true => vec![PathBuf::from(program)],
        false => std::env::split_paths(&search).map(|directory| directory.join(program)).collect(),
    };
    let mut refused = None;
    for path in &candidates {
        let error = match c_string(path.as_os_str().as_bytes()) {
            Ok(path) => sys::exec(&path, &argv, &env),
            Err(fault) => return fault,
        };
        let there = path.symlink_metadata().is_ok_and(|meta| !meta.is_dir());
        if refused.is_none() && there {
            refused = Some((path, error));
        }
    }
    match refused {
        Some((path, error)) => Fault::Refused { what: format!("start {}", show(path)), error, hint: String::new() },
        None => Fault::Wrong(format!("it is in none of {}", search.to_string_lossy())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn over(lowers: &[&str], etc: bool) -> Over {
        Over { lowers: lowers.iter().map(PathBuf::from).collect(), etc, ..Over::default() }
    }

    #[test]
    fn arguments_come_back() {
        let binds = vec![("/x".into(), "/run/x".into()), ("/y".into(), "/run/y".into())];
        for over in [
            over(&["/a", "/b"], true),
            Over { owner: Some((7, 8)), ..over(&["/a"], false) },
            Over { binds, ..over(&["/a"], false) },
        ] {
            let mut arguments = over.arguments(Path::new("/usr/bin/x"));
            assert_eq!(Over::program_of(&arguments), Some(OsStr::new("/usr/bin/x")));
            arguments.push("-y".into());
            let (read, argv) = Over::parse(&arguments[1..]).unwrap();
            assert_eq!((read, argv.len()), (over, 2));
        }
        assert_eq!(Over::program_of(&["x".into()]), None);
        assert_eq!(Over::parse(&["etc", "-", "3", "0", "/a"].map(OsString::from)), None);
        assert_eq!(Over::parse(&["etc", "-", "0", "1", "/a"].map(OsString::from)), None);
    }

    #[test]
    fn the_host_without_its_programs() {
        let names = ["bin", "etc", "home", "mkosi", "usr"].map(OsString::from);
        let same = |over: &Over| -> Vec<PathBuf> {
            let mounts = over.mounts(&names, |path| !path.ends_with("alternatives"));
            mounts
                .into_iter()
                .filter_map(|mount| match mount {
                    Mount::Same { path } => Some(path),
                    _ => None,
                })
                .collect()
        };
        let parts = |over: &Over| {
            let mounts = over.mounts(&names, |path| !path.ends_with("alternatives") && !path.ends_with("shadow"));
            let found = mounts.into_iter().find_map(|mount| match mount {
                Mount::Parts { parts, points, .. } => Some((parts, points)),
                _ => None,
            });
            found.unwrap()
        };
        let usr = over(&["/a", "/b"], false);
        assert_eq!(same(&usr), ["/etc", "/home"].map(PathBuf::from));
        let (shown, points) = parts(&usr);
        assert!(shown.contains(&"/usr".into()) && shown.contains(&"/etc/ld.so.cache".into()), "{shown:?}");
        assert!(!shown.contains(&"/etc/alternatives".into()), "nothing is made on the host");
        assert!(points.is_empty());
        let etc = over(&["/a", "/b"], true);
        assert_eq!(same(&etc), ["/home"].map(PathBuf::from));
        let (shown, points) = parts(&etc);
        assert!(shown.contains(&"/etc".into()) && points.contains(&"/etc/passwd".into()), "{shown:?} {points:?}");
        assert!(!points.contains(&"/etc/shadow".into()));
        // A program of the host itself, for which something is to stand elsewhere.
        let binds = vec![("/a".into(), "/home/a".into())];
        let host = Over { binds, ..over(&[], false) };
        assert_eq!(same(&host), ["/bin", "/etc", "/home", "/mkosi", "/usr"].map(PathBuf::from));
        assert_eq!(host.mounts(&names, |_| true).len(), 6);
    }
}
