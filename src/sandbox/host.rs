//! The mount steps that show the host's tools, and nothing else of the host, to a sandbox. Knows nothing of what the
//! tools are used for.

use std::path::{Path, PathBuf};

use super::Mount;
use super::run::executable;

/// The directory in a sandbox where the executable stands under its other names; first in [`PATH`].
pub const BIN: &str = "/run/mkosi/bin";
/// Where the executable itself is in a sandbox.
pub const EXECUTABLE: &str = "/run/mkosi/exe";
/// The search path for programs in a sandbox made by [`host_root`].
pub const PATH: &str = "/run/mkosi/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What [`host_root`] shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostRoot {
    /// The root directory that the tools come from: `/`, or a tools tree.
    pub tools: PathBuf,
    /// Whether the network is the host's: name resolution is then set up as on the host.
    pub network: bool,
    /// Whether `/sys` is the host's, read-only; it is empty otherwise.
    pub sys: bool,
    /// More names that the executable stands under in [`BIN`], next to `mkosi-chroot`.
    pub names: Vec<String>,
}

impl Default for HostRoot {
    fn default() -> Self {
        Self { tools: PathBuf::from("/"), network: false, sys: false, names: Vec::new() }
    }
}

/// Directories that hold tools, and are links into `/usr` on most distributions.
const TOOL_DIRECTORIES: [&str; 6] = ["bin", "sbin", "lib", "lib32", "lib64", "libx32"];

/// What tools need of `/etc`. Certificates, but not the private keys that lie beside them.
const ETC: [&str; 14] = [
    "alternatives",
    "ca-certificates",
    "ca-certificates.conf",
    "crypto-policies",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "pki/ca-trust",
    "pki/rpm-gpg",
    "pki/tls/cert.pem",
    "pki/tls/certs",
    "pki/tls/openssl.cnf",
    "ssl/certs",
    "ssl/openssl.cnf",
];

const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/usr/sbin/nologin\n";
const GROUP: &str = "root:x:0:\ntty:x:5:\nnogroup:x:65534:\n";
const NSSWITCH: &str = "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\n";
const HOSTS: &str = "127.0.0.1 localhost\n::1 localhost\n";

/// The steps that make a root file system of the host's tools: `/usr` and what belongs to it read-only, a few files
/// in `/etc`, private `/proc`, `/dev`, `/run`, `/tmp` and `/var/tmp`, and the executable itself in [`BIN`].
pub fn host_root(options: &HostRoot) -> Vec<Mount> {
    let tools = options.tools.as_path();
    let mut mounts = vec![read_only(&tools.join("usr"), "/usr", false)];
    for name in TOOL_DIRECTORIES {
        let (source, target) = (tools.join(name), Path::new("/").join(name));
        match std::fs::read_link(&source) {
            Ok(points_to) => mounts.push(Mount::Symlink { target, points_to }),
            Err(_) => mounts.push(read_only(&source, target, true)),
        }
    }
    for name in ["nix", "gnu"] {
        mounts.push(read_only(&tools.join(name), Path::new("/").join(name), true));
    }
    mounts.extend(ETC.iter().map(|name| read_only(&tools.join("etc").join(name), Path::new("/etc").join(name), true)));
    mounts.extend([
        file("/etc/passwd", PASSWD),
        file("/etc/group", GROUP),
        file("/etc/nsswitch.conf", NSSWITCH),
        Mount::Symlink { target: "/etc/mtab".into(), points_to: "/proc/self/mounts".into() },
        Mount::Proc { target: "/proc".into() },
        Mount::Dev { target: "/dev".into() },
        Mount::Tmpfs { target: "/run".into(), mode: 0o755 },
        Mount::Tmpfs { target: "/tmp".into(), mode: 0o1777 },
        Mount::Tmpfs { target: "/var/tmp".into(), mode: 0o1777 },
    ]);
    if options.network {
        mounts.push(read_only(Path::new("/etc/resolv.conf"), "/etc/resolv.conf", true));
        mounts.push(read_only(Path::new("/etc/hosts"), "/etc/hosts", true));
    } else {
        mounts.push(file("/etc/hosts", HOSTS));
    }
    mounts.push(if options.sys {
        read_only(Path::new("/sys"), "/sys", false)
    } else {
        Mount::Directory { target: "/sys".into(), mode: 0o555 }
    });
    mounts.extend(own_names(options));
    mounts
}

/// The steps that make a root file system without any tools: the private parts of [`host_root`], and the executable.
pub fn bare_root() -> Vec<Mount> {
    let mut mounts = vec![
        file("/etc/passwd", PASSWD),
        file("/etc/group", GROUP),
        file("/etc/nsswitch.conf", NSSWITCH),
        file("/etc/hosts", HOSTS),
        Mount::Proc { target: "/proc".into() },
        Mount::Dev { target: "/dev".into() },
        Mount::Tmpfs { target: "/run".into(), mode: 0o755 },
        Mount::Tmpfs { target: "/tmp".into(), mode: 0o1777 },
        Mount::Tmpfs { target: "/var/tmp".into(), mode: 0o1777 },
        Mount::Directory { target: "/sys".into(), mode: 0o555 },
    ];
    mounts.extend(own_names(&HostRoot::default()));
    mounts
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
    fn the_network_decides_about_name_resolution() {
        let resolv = PathBuf::from("/etc/resolv.conf");
        assert!(!sources(&HostRoot::default()).contains(&resolv));
        assert!(sources(&HostRoot { network: true, ..HostRoot::default() }).contains(&resolv));
    }

    #[test]
    fn tools_come_from_the_tools_tree() {
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("usr/bin", dir.path().join("bin")).unwrap();
        let options = HostRoot { tools: dir.path().to_owned(), ..HostRoot::default() };
        assert!(sources(&options).contains(&dir.path().join("usr")));
        let link = Mount::Symlink { target: "/bin".into(), points_to: "usr/bin".into() };
        assert!(host_root(&options).contains(&link));
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
