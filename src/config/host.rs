//! What the defaults know of the host and of the distributions.
//!
//! Knows nothing of settings.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use super::table::DISTRIBUTION;
use crate::types::Architecture;

/// The machine that mkosi runs on. Tests make one up.
#[derive(Clone, Debug)]
pub struct HostFacts {
    /// The distribution, if it is one that images can be made of.
    pub distribution: Option<String>,
    /// Its release.
    pub release: Option<String>,
    /// The machine's architecture.
    pub architecture: Architecture,
    /// The file with the certificates of certificate authorities.
    pub certificates: Option<PathBuf>,
    systemd: OnceLock<Option<String>>,
}

impl HostFacts {
    /// A host that was made up.
    pub fn new(distribution: Option<&str>, release: Option<&str>, architecture: Architecture) -> Self {
        Self {
            distribution: distribution.map(str::to_owned),
            release: release.map(str::to_owned),
            architecture,
            certificates: None,
            systemd: OnceLock::new(),
        }
    }

    /// The same with a version of systemd, which is asked for otherwise.
    pub fn with_systemd(mut self, version: &str) -> Self {
        self.systemd = OnceLock::from(Some(version.to_owned()));
        self
    }

    /// The host below `root`.
    pub fn detect(root: &Path) -> Self {
        let (distribution, release) = os_release(root);
        let certificates = ["/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/certs/ca-certificates.crt"]
            .into_iter()
            .map(PathBuf::from)
            .find(|path| path.exists());
        Self {
            distribution: distribution.filter(|name| DISTRIBUTION.find(name).is_some()),
            release,
            architecture: Architecture::host(),
            certificates,
            systemd: OnceLock::new(),
        }
    }

    /// The version of systemd on the host. Asked for once, and only when a configuration matches on it.
    pub fn systemd_version(&self) -> Option<&str> {
        self.systemd
            .get_or_init(|| {
                let output = std::process::Command::new("systemctl").arg("--version").output().ok()?;
                let text = String::from_utf8_lossy(&output.stdout).into_owned();
                text.split_whitespace().nth(1).map(str::to_owned)
            })
            .as_deref()
    }
}

/// The distribution and release of the system below `root`, by os-release(5).
pub fn os_release(root: &Path) -> (Option<String>, Option<String>) {
    let text = ["etc/os-release", "usr/lib/os-release"]
        .into_iter()
        .find_map(|path| std::fs::read_to_string(root.join(path)).ok())
        .unwrap_or_default();
    let fields: BTreeMap<&str, String> = text
        .lines()
        .filter_map(|line| line.trim().split_once('='))
        .map(|(key, value)| (key, super::words::quoted(value).unwrap_or_default().join(" ")))
        .collect();
    let field = |name: &str| fields.get(name).filter(|value| !value.is_empty()).cloned();
    let id = field("ID");
    let like = field("ID_LIKE").unwrap_or_default();
    let known = id.iter().map(String::as_str).chain(like.split_whitespace()).find_map(|id| match id {
        "azurelinux" => Some("azure"),
        id => DISTRIBUTION.find(id),
    });
    let mut release = match id.as_deref() {
        Some("opensuse-tumbleweed") => Some("tumbleweed".to_owned()),
        _ => field("VERSION_ID"),
    };
    if known.is_some_and(|name| matches!(name, "debian" | "ubuntu" | "kali")) {
        release = field("VERSION_CODENAME").or(release);
    }
    if let (Some(known), None) = (known, &release) {
        release = Some(default_release(known)).filter(|release| !release.is_empty()).map(str::to_owned);
    }
    (known.map(str::to_owned).or(id), release)
}

/// The release of a distribution that is newest without a number.
pub fn default_release(distribution: &str) -> &'static str {
    match distribution {
        "fedora" => "rawhide",
        "debian" => "testing",
        "kali" => "kali-rolling",
        "ubuntu" => "devel",
        "postmarketos" => "edge",
        "arch" => "rolling",
        "opensuse" => "tumbleweed",
        "mageia" => "cauldron",
        "centos" | "rhel" | "rhel-ubi" | "rocky" | "alma" => "10",
        "openmandriva" => "cooker",
        "azure" => "3.0",
        _ => "",
    }
}

/// The distribution whose packages make the default tools tree.
pub fn tools_distribution(distribution: &str) -> &str {
    match distribution {
        "ubuntu" => "debian",
        "centos" | "rhel" | "rhel-ubi" | "rocky" | "alma" => "fedora",
        other => other,
    }
}

/// The file system that the distribution's installer makes by default, `%F`.
pub fn filesystem(distribution: &str) -> &'static str {
    match distribution {
        "fedora" | "opensuse" => "btrfs",
        "centos" | "rhel" | "rhel-ubi" | "rocky" | "alma" => "xfs",
        _ => "ext4",
    }
}

/// Whether a package of the distribution has a kernel in it.
pub fn is_kernel_package(distribution: &str, package: &str) -> bool {
    match distribution {
        "arch" => {
            matches!(package, "linux" | "linux-lts" | "linux-zen" | "linux-hardened" | "linux-rt" | "linux-rt-lts")
        }
        "debian" | "kali" => package.starts_with("linux-image-"),
        "ubuntu" => package.starts_with("linux-") && !package.starts_with("linux-tools-"),
        "opensuse" => matches!(package, "kernel-default" | "kernel-kvmsmall"),
        "postmarketos" => {
            package.starts_with("linux-")
                && !["-doc", "-dev", "-manual"].iter().any(|end| package.ends_with(end))
                && !["linux-tools-", "linux-firmware-"].iter().any(|start| package.starts_with(start))
                && !["linux-timemachine", "linux-headers", "linux-apfs-rw-src"].contains(&package)
        }
        "custom" => false,
        _ => matches!(package, "kernel" | "kernel-core"),
    }
}

/// Whether the distribution's keys are fetched over the network where the host's own are of no use: by rpm and pacman.
pub fn fetches_keys(distribution: &str) -> bool {
    !matches!(distribution, "debian" | "ubuntu" | "kali" | "custom")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn detect(text: &str) -> (Option<String>, Option<String>) {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("etc")).unwrap();
        std::fs::write(root.path().join("etc/os-release"), text).unwrap();
        os_release(root.path())
    }

    #[test]
    fn os_releases() {
        let some = |a: &str, b: &str| (Some(a.to_owned()), Some(b.to_owned()));
        assert_eq!(detect("ID=debian\nVERSION_ID=\"12\"\nVERSION_CODENAME=bookworm\n"), some("debian", "bookworm"));
        assert_eq!(detect("ID=fedora\nVERSION_ID=42\n"), some("fedora", "42"));
        assert_eq!(
            detect("ID=opensuse-tumbleweed\nID_LIKE=\"opensuse suse\"\nVERSION_ID=2\n"),
            some("opensuse", "tumbleweed")
        );
        assert_eq!(detect("ID=arch\n"), some("arch", "rolling"));
        assert_eq!(detect("ID=nixos\nVERSION_ID=25\n"), some("nixos", "25"));
        assert_eq!(detect("garbage"), (None, None));
    }
}
