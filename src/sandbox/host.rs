//! The mount steps that show the host's tools, or those of a tools tree, to a sandbox and nothing else of the host. Knows
//! nothing of what the tools are used for.

use std::path::{Path, PathBuf};

use super::Mount;
use super::run::executable;

/// The directory in a sandbox where the executable stands under its other names; first in [`PATH`].
pub const BIN: &str = "/run/mkosi/bin";
/// Where the executable itself is in a sandbox.
pub const EXECUTABLE: &str = "/run/mkosi/exe";
/// The search path for programs in a sandbox made by [`host_root`], but for [`Tools::search`].
pub const PATH: &str = "/run/mkosi/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Where the directories of [`Tools::search`] are in a sandbox, by their number.
pub const SEARCH: &str = "/run/mkosi/search";

/// Where the programs of a sandbox come from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tools {
    /// The directories that the tools tree is made of, lowest first. None: the host's own programs.
    pub layers: Vec<PathBuf>,
    /// Trees that lie over the tools: the configuration of package managers above all (`SandboxTrees=`), lowest first.
    pub trees: Vec<PathBuf>,
    /// Directories of the host in which programs are looked for first (`ExtraSearchPaths=`).
    pub search: Vec<PathBuf>,
    /// Whether certificates are the host's although the programs are those of a tools tree.
    pub host_certificates: bool,
}

impl Tools {
    /// The directories of [`Tools::search`] as the sandbox has them.
    pub fn search_paths(&self) -> impl Iterator<Item = PathBuf> {
        (0..self.search.len()).map(|number| Path::new(SEARCH).join(number.to_string()))
    }

    /// Whether a path of the sandbox is that of the tools, of the trees over them or of mkosi itself: what the host has
    /// there is not to be mounted over it.
    pub fn shows(&self, path: &Path) -> bool {
        let tools = ["/usr"].iter().chain(&TOOL_DIRECTORIES).chain(&STORES).chain(&ETC).chain(&CERTIFICATES);
        let opt = ["/opt"]
            .into_iter()
            .filter(|opt| !self.layers.is_empty() || self.trees.iter().any(|tree| inside(tree, opt).is_dir()));
        let path_text = path.to_string_lossy();
        tools.chain(&OURS).copied().chain(opt).any(|place| path.starts_with(place))
            || self.trees.iter().any(|tree| inside(tree, &path_text).symlink_metadata().is_ok())
    }

    /// A `PATH` with the directories of [`Tools::search`] in it, after our own programs and before all others.
    pub fn path(&self, path: &str) -> String {
        let search = self.search_paths().map(|path| path.display().to_string());
        let (own, others): (Vec<&str>, Vec<&str>) = path.split(':').partition(|directory| *directory == BIN);
        let own = own.into_iter().map(str::to_owned);
        own.chain(search).chain(others.into_iter().map(str::to_owned)).collect::<Vec<_>>().join(":")
    }
}

/// What [`host_root`] shows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostRoot {
    /// Where the programs come from.
    pub tools: Tools,
    /// Whether the network is the host's: name resolution is then set up as on the host.
    pub network: bool,
    /// Whether `/sys` is the host's, read-only; it is empty otherwise.
    pub sys: bool,
    /// More names that the executable stands under in [`BIN`], next to `mkosi-chroot`.
    pub names: Vec<String>,
}

/// Directories that hold tools, and are links into `/usr` on most distributions.
const TOOL_DIRECTORIES: [&str; 6] = ["/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"];
/// Where distributions that don't use `/usr` keep everything.
const STORES: [&str; 2] = ["/nix", "/gnu"];

/// What tools need of `/etc`.
const ETC: [&str; 6] = [
    "/etc/alternatives",
    "/etc/crypto-policies",
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/pki/rpm-gpg",
];

/// Certificates, but not the private keys that lie beside them.
const CERTIFICATES: [&str; 9] = [
    "/etc/ca-certificates",
    "/etc/ca-certificates.conf",
    "/etc/pki/ca-trust",
    "/etc/pki/tls/cert.pem",
    "/etc/pki/tls/certs",
    "/etc/pki/tls/openssl.cnf",
    "/etc/ssl/certs",
    "/etc/ssl/openssl.cnf",
    "/var/lib/ca-certificates",
];

/// What is always made here, whatever a sandbox tree says.
const OURS: [&str; 8] =
    ["/dev", "/etc/group", "/etc/mtab", "/etc/passwd", "/etc/resolv.conf", "/proc", "/run/mkosi", "/sys"];

const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/usr/sbin/nologin\n";
const GROUP: &str = "root:x:0:\ntty:x:5:\nnogroup:x:65534:\n";
const NSSWITCH: &str = "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\n";
const HOSTS: &str = "127.0.0.1 localhost\n::1 localhost\n";

/// The steps that make a root file system of the tools: `/usr` and what belongs to it read-only, a few files in
/// `/etc`, private `/proc`, `/dev`, `/run`, `/tmp` and `/var/tmp`, and the executable itself in [`BIN`].
pub fn host_root(options: &HostRoot) -> Vec<Mount> {
    let tools = &options.tools;
    let mut mounts = if tools.layers.is_empty() { of_host(tools) } else { vec![of_tree(tools)] };
    if tools.layers.is_empty() || tools.host_certificates {
        mounts.extend(CERTIFICATES.iter().flat_map(|path| under_trees(path, &tools.trees)));
    }
    mounts.extend([
        file("/etc/passwd", PASSWD),
        file("/etc/group", GROUP),
        Mount::Symlink { target: "/etc/mtab".into(), points_to: "/proc/self/mounts".into() },
        Mount::Proc { target: "/proc".into() },
        Mount::Dev { target: "/dev".into() },
        Mount::Tmpfs { target: "/run".into(), mode: 0o755 },
        Mount::Tmpfs { target: "/tmp".into(), mode: 0o1777 },
        Mount::Tmpfs { target: "/var/tmp".into(), mode: 0o1777 },
    ]);
    let own = |path: &str| !tools.trees.iter().any(|tree| inside(tree, path).symlink_metadata().is_ok());
    if own("/etc/nsswitch.conf") {
        mounts.push(file("/etc/nsswitch.conf", NSSWITCH));
    }
    if options.network {
        mounts.push(from_host("/etc/resolv.conf", true));
    }
    match options.network {
        _ if !own("/etc/hosts") => {}
        true => mounts.push(from_host("/etc/hosts", true)),
        false => mounts.push(file("/etc/hosts", HOSTS)),
    }
    mounts.extend(tools.trees.iter().flat_map(|tree| files_of(tree, Path::new("/"))));
    mounts.push(if options.sys {
        from_host("/sys", false)
    } else {
        Mount::Directory { target: "/sys".into(), mode: 0o555 }
    });
    mounts.extend(own_names(options));
    let search = tools.search.iter().zip(tools.search_paths());
    mounts.extend(search.map(|(source, target)| read_only(source, target, false)));
    mounts
}

/// The host's own programs.
fn of_host(tools: &Tools) -> Vec<Mount> {
    let mut mounts = under_trees("/usr", &tools.trees);
    if tools.trees.iter().any(|tree| inside(tree, "/opt").is_dir()) {
        mounts.extend(under_trees("/opt", &tools.trees));
    }
    for path in TOOL_DIRECTORIES {
        mounts.push(match std::fs::read_link(path) {
            Ok(points_to) => Mount::Symlink { target: path.into(), points_to },
            Err(_) => from_host(path, true),
        });
    }
    mounts.extend(STORES.iter().map(|path| from_host(path, true)));
    mounts.extend(ETC.iter().flat_map(|path| under_trees(path, &tools.trees)));
    mounts
}

/// The path on the host of what `path` is in a tree.
fn inside(tree: &Path, path: &str) -> PathBuf {
    tree.join(path.trim_start_matches('/'))
}

/// What the host has at a path, and over it what the trees have.
fn under_trees(path: &str, trees: &[PathBuf]) -> Vec<Mount> {
    let over: Vec<PathBuf> =
        trees.iter().map(|tree| inside(tree, path)).filter(|path| path.symlink_metadata().is_ok()).collect();
    match over.last() {
        // A host need not have any programs.
        None => vec![from_host(path, true)],
        Some(top) if !top.is_dir() => vec![read_only(top, path, false)],
        Some(_) => {
            let lowest = PathBuf::from(path);
            let lowers = Some(lowest).filter(|path| path.is_dir()).into_iter().chain(over).collect();
            vec![Mount::Overlay { lowers, upper: None, target: path.into() }]
        }
    }
}

/// The files and links of a tree that lie where nothing of the tools does, each at its place.
fn files_of(tree: &Path, directory: &Path) -> Vec<Mount> {
    let Ok(entries) = std::fs::read_dir(inside(tree, &directory.to_string_lossy())) else { return Vec::new() };
    let mut entries: Vec<_> = entries.flatten().collect();
    entries.sort_by_key(std::fs::DirEntry::file_name);
    let mut mounts = Vec::new();
    for entry in entries {
        let (source, target) = (entry.path(), directory.join(entry.file_name()));
        let shown = ["/usr", "/opt"].iter().chain(&TOOL_DIRECTORIES).chain(&STORES).chain(&ETC).chain(&CERTIFICATES);
        if shown.chain(&OURS).any(|path| Path::new(path) == target) {
            continue;
        }
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => mounts.extend(files_of(tree, &target)),
            Ok(kind) if kind.is_symlink() => {
                if let Ok(points_to) = std::fs::read_link(&source) {
                    mounts.push(Mount::Symlink { target, points_to });
                }
            }
            Ok(kind) if kind.is_file() => mounts.push(read_only(&source, target, false)),
            _ => {}
        }
    }
    mounts
}

/// The programs of a tools tree. Links in it are resolved within it.
fn of_tree(tools: &Tools) -> Mount {
    let certificates: &[&str] = if tools.host_certificates { &[] } else { &CERTIFICATES };
    let lowers = tools.layers.iter().chain(&tools.trees).cloned().collect();
    let parts = ["/usr", "/opt"].iter().chain(&TOOL_DIRECTORIES).chain(&STORES).chain(&ETC).chain(certificates);
    Mount::Parts { lowers, parts: parts.map(PathBuf::from).collect(), points: Vec::new() }
}

/// The executable and its names.
fn own_names(options: &HostRoot) -> impl Iterator<Item = Mount> {
    let executable = executable();
    // The link in /proc stands for a mount of the parent's namespace, which can't be copied from another.
    let source = executable
        .starts_with("/proc")
        .then(std::env::current_exe)
        .and_then(Result::ok)
        .unwrap_or_else(|| executable.to_owned());
    let mut names: Vec<&str> =
        options.names.iter().map(String::as_str).chain([super::chroot::NAME, super::chroot::WITHIN]).collect();
    names.sort_unstable();
    names.dedup();
    let links: Vec<Mount> = names
        .into_iter()
        .map(|name| Mount::Symlink { target: Path::new(BIN).join(name), points_to: EXECUTABLE.into() })
        .collect();
    std::iter::once(read_only(&source, EXECUTABLE, false)).chain(links)
}

fn from_host(path: &str, optional: bool) -> Mount {
    read_only(Path::new(path), path, optional)
}

fn read_only(source: &Path, target: impl Into<PathBuf>, optional: bool) -> Mount {
    Mount::Bind { source: source.to_owned(), target: target.into(), read_only: true, optional }
}

fn file(target: &str, contents: &str) -> Mount {
    Mount::File { target: target.into(), contents: contents.as_bytes().to_vec(), mode: 0o644 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sources(options: &HostRoot) -> Vec<PathBuf> {
        host_root(options)
            .into_iter()
            .filter_map(|mount| match mount {
                Mount::Bind { source, read_only, .. } => {
                    assert!(read_only, "{}", source.display());
                    Some(source)
                }
                _ => None,
            })
            .collect()
    }

    #[test]
    fn places_of_the_tools_are_told_from_the_others() {
        let tree = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(tree.path().join("etc/softhsm")).unwrap();
        std::fs::write(tree.path().join("etc/softhsm/softhsm2.conf"), "").unwrap();
        let of_host = Tools::default();
        let with_trees = Tools { trees: vec![tree.path().to_owned()], ..Tools::default() };
        let of_tree = Tools { layers: vec!["/tools".into()], ..Tools::default() };
        for (path, expected) in [
            ("/usr/lib/softhsm/libsofthsm2.so", [true, true, true]),
            ("/etc/ssl/openssl.cnf", [true, true, true]),
            ("/run/mkosi/exe", [true, true, true]),
            ("/etc/softhsm/softhsm2.conf", [false, true, false]),
            ("/opt/vendor/module.so", [false, false, true]),
            ("/home/me/softhsm2.conf", [false, false, false]),
            ("/usrlocal", [false, false, false]),
        ] {
            assert_eq!([&of_host, &with_trees, &of_tree].map(|tools| tools.shows(Path::new(path))), expected, "{path}");
        }
    }

    #[test]
    fn the_network_decides_about_name_resolution() {
        let resolv = PathBuf::from("/etc/resolv.conf");
        assert!(!sources(&HostRoot::default()).contains(&resolv));
        assert!(sources(&HostRoot { network: true, ..HostRoot::default() }).contains(&resolv));
    }

    #[test]
    fn tools_come_from_the_tools_tree() {
        let layers = vec![PathBuf::from("/tree")];
        let own = [PathBuf::from("/sys"), PathBuf::from("/proc/self/exe")];
        let with = |host_certificates| {
            let tools = Tools { layers: layers.clone(), host_certificates, ..Tools::default() };
            HostRoot { tools, ..HostRoot::default() }
        };
        let parts = |options: &HostRoot| match &host_root(options)[0] {
            Mount::Parts { lowers, parts, .. } => {
                assert_eq!(*lowers, layers);
                parts.clone()
            }
            other => panic!("{other:?}"),
        };
        let certificates = PathBuf::from("/etc/ssl/certs");
        assert!(parts(&with(false)).contains(&PathBuf::from("/usr")));
        assert!(parts(&with(false)).contains(&certificates));
        assert!(!parts(&with(true)).contains(&certificates));
        assert!(sources(&with(true)).contains(&certificates));
        let others: Vec<PathBuf> = sources(&with(false)).into_iter().filter(|path| !own.contains(path)).collect();
        assert!(others.iter().all(|path| std::env::current_exe().is_ok_and(|exe| exe == *path)), "{others:?}");
    }

    #[test]
    fn programs_are_looked_for_in_the_extra_directories_first() {
        let tools = Tools { search: vec!["/a".into(), "/b".into()], ..Tools::default() };
        assert_eq!(
            tools.path("/run/mkosi/bin:/usr/bin"),
            "/run/mkosi/bin:/run/mkosi/search/0:/run/mkosi/search/1:/usr/bin"
        );
        assert_eq!(Tools::default().path(PATH), PATH);
        let options = HostRoot { tools, ..HostRoot::default() };
        assert!(sources(&options).ends_with(&["/a".into(), "/b".into()]));
    }

    #[test]
    fn names_stand_once_and_sorted() {
        let options = HostRoot { names: ["zz", "aa", "aa"].map(str::to_owned).to_vec(), ..HostRoot::default() };
        let links: Vec<PathBuf> = host_root(&options)
            .into_iter()
            .filter_map(|mount| match mount {
                Mount::Symlink { target, .. } if target.starts_with(BIN) => Some(target),
                _ => None,
            })
            .collect();
        assert_eq!(links, ["aa", "mkosi-chroot", "mkosi-within", "zz"].map(|name| Path::new(BIN).join(name)));
    }
}
