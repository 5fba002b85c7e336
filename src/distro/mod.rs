//! Debian and Ubuntu: package metadata, resolution, download and installation through the host's own apt and dpkg.
//!
//! Every tool runs in a sandbox with configuration, state and caches of its own; the host's are never read or
//! written, except for its mirrors and its network settings. `docs/debian.md` describes how. Knows nothing of
//! graphs, stages or configuration beyond the plain parameters that it is handed.

mod apt;
mod archives;
mod clean;
mod configuration;
mod database;
pub mod deb;
pub mod deb822;
mod download;
mod error;
mod extract;
mod host;
mod install;
mod local;
mod order;
mod proxy;
mod resolve;
mod seed;
mod sources;
mod sync;
mod unpack;

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::sandbox::{Cancel, Tools};
use crate::types::Architecture;

pub use clean::{Installed, installed};
pub use configuration::{Configuration, Tree};
pub use download::{download, is_in_pool, pool_path};
pub use error::Error;
pub use host::Host;
pub use install::{InstallOptions, install, install_base, install_seed, remove};
pub use local::{Local, is_local, local_preferences};
pub use proxy::Proxy;
pub use resolve::{Request, Resolution, prepare_cache, resolve};
pub use seed::{seed_download, seed_packages};
pub use sources::{ETC, KEYRINGS, Repositories, Settings, Source};
pub use sync::{SyncInfo, sync};
pub use unpack::hidden_entry;

/// A distribution that this module installs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Distribution {
    /// Debian.
    Debian,
    /// Ubuntu.
    Ubuntu,
}

impl Distribution {
    /// Its name in configuration files and in os-release's `ID=`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Debian => "debian",
            Self::Ubuntu => "ubuntu",
        }
    }
}

/// What is built.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// The distribution.
    pub distribution: Distribution,
    /// Its release: a code name (`trixie`, `noble`) or a suite (`stable`, `unstable`, `devel`).
    pub release: String,
    /// The architecture of the packages.
    pub architecture: Architecture,
}

/// One exact package of a repository.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Package {
    /// Its name.
    pub name: String,
    /// Its version with epoch and revision.
    pub version: String,
    /// dpkg's name of its architecture, `all` for instance.
    pub architecture: String,
    /// SHA-256 of the `.deb` in lower-case hexadecimal digits.
    pub sha256: String,
    /// The size of the `.deb` in bytes.
    pub size: u64,
    /// Where the mirror has it. Never part of what identifies a package.
    pub uri: String,
    /// The `.deb`'s own name, `libc6_2.41-12_amd64.deb` for instance.
    pub filename: String,
    /// Whether it came in as a dependency only (`apt-mark showauto`).
    pub automatic: bool,
}

/// What every function here needs from its caller.
pub struct Cx<'a> {
    /// The wish to stop.
    pub cancel: &'a Cancel,
    /// Takes everything that the tools print.
    pub log: &'a mut (dyn Write + Send),
    /// Where the tools come from.
    pub tools: Tools,
    /// An existing directory on the host for temporary files, on the file system of the pool and the outputs.
    pub work: PathBuf,
    /// Whether our own executable unpacks packages several at once where it can; dpkg's way, one after another, has
    /// the same result.
    pub parallel: bool,
}

impl Cx<'_> {
    /// Writes a line of our own to the log. A log that can't be written is no reason to fail.
    fn note(&mut self, text: &str) {
        let _ = writeln!(self.log, "{text}");
    }
}

/// The programs that the functions here run, by what they are run for. All must be in the tools' `PATH`, except for
/// `apt-helper`, which lies in apt's library directory.
pub fn tools() -> BTreeMap<&'static str, &'static [&'static str]> {
    BTreeMap::from([
        ("sync", ["apt-get", "gpgv"].as_slice()),
        ("resolve", ["apt-get", "apt-cache"].as_slice()),
        ("download", ["/usr/lib/apt/apt-helper"].as_slice()),
        ("install", ["dpkg", "dpkg-deb", "sh", "tar", "xargs", "rm", "cat", "mkdir", "ln", "chroot"].as_slice()),
        ("remove", ["apt-get", "dpkg", "sh", "rm"].as_slice()),
    ])
}
