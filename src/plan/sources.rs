//! Which paths below the build sources a stage neither sees nor hashes.

use std::ops::Deref;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Sources;
use crate::config::Image;
use crate::types::{Digest, Encoder};

/// Paths that are not seen of a source, sorted. A thousand images that have their outputs in one project hide the same tens
/// of thousands: these are shared, and compared by their digest.
#[derive(Clone, Debug)]
pub struct Hidden {
    paths: Arc<[PathBuf]>,
    digest: Digest,
}

impl Hidden {
    /// These paths.
    pub fn new(mut paths: Vec<PathBuf>) -> Self {
        paths.sort();
        paths.dedup();
        let mut encoder = Encoder::new("mkosi.hidden", 1);
        encoder.list(paths.len());
        for path in &paths {
            encoder.bytes(path.as_os_str().as_bytes());
        }
        Self { digest: encoder.finish(), paths: paths.into() }
    }

    /// The paths, to be kept.
    pub fn paths(&self) -> Arc<[PathBuf]> {
        Arc::clone(&self.paths)
    }

    /// What is equal for equal paths.
    pub fn digest(&self) -> Digest {
        self.digest
    }
}

impl Deref for Hidden {
    type Target = [PathBuf];

    fn deref(&self) -> &[PathBuf] {
        &self.paths
    }
}

impl PartialEq for Hidden {
    fn eq(&self, other: &Self) -> bool {
        self.digest == other.digest
    }
}

impl Eq for Hidden {}

impl std::hash::Hash for Hidden {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.digest.hash(state);
    }
}

/// Names in a project directory that are configuration or made by a build. Each enters keys through the setting
/// that it stands for, so that an edit of `mkosi.extra/` is no change of the sources.
const OWN_NAMES: &[&str] = &[
    "mkosi.builddir",
    "mkosi.cache",
    "mkosi.clean",
    "mkosi.conf",
    "mkosi.conf.d",
    "mkosi.configure",
    "mkosi.credentials",
    "mkosi.crt",
    "mkosi.env",
    "mkosi.extra",
    "mkosi.extra.tar",
    "mkosi.finalize",
    "mkosi.images",
    "mkosi.key",
    "mkosi.local",
    "mkosi.local.conf",
    "mkosi.nspawn",
    "mkosi.output",
    "mkosi.packages",
    "mkosi.passphrase",
    "mkosi.pkgcache",
    "mkosi.pkgmngr",
    "mkosi.postinst",
    "mkosi.postoutput",
    "mkosi.prepare",
    "mkosi.presets",
    "mkosi.build",
    "mkosi.profiles",
    "mkosi.repart",
    "mkosi.rootpw",
    "mkosi.sandbox",
    "mkosi.skeleton",
    "mkosi.skeleton.tar",
    "mkosi.sync",
    "mkosi.sysupdate",
    "mkosi.tools",
    "mkosi.tools.conf",
    "mkosi.uki-profiles",
    "mkosi.version",
    "mkosi.workspace",
];

/// Suffixes that scripts have beside their plain name.
const SCRIPT_SUFFIXES: &[&str] = &["", ".chroot", ".d"];

/// Directories of version control.
const VERSION_CONTROL: &[&str] = &[".git", ".hg", ".svn", ".jj"];

/// Settings whose directories a build writes to.
const WRITTEN: &[&str] =
    &["OutputDirectory", "CacheDirectory", "WorkspaceDirectory", "BuildDirectory", "PackageCacheDirectory"];

/// The paths that are hidden from `root`, a build source of `image`, and from its digest.
pub fn hidden_paths(image: &Image, root: &Path, sources: Sources) -> Hidden {
    let own = OWN_NAMES.iter().flat_map(|name| SCRIPT_SUFFIXES.iter().map(move |suffix| format!("{name}{suffix}")));
    let mut hidden: Vec<PathBuf> = own.map(|name| root.join(name)).collect();
    if sources != Sources::All {
        hidden.extend(VERSION_CONTROL.iter().map(|name| root.join(name)));
    }
    hidden.extend(WRITTEN.iter().filter_map(|setting| image.path(setting)).map(Path::to_path_buf));
    hidden.retain(|path| path.starts_with(root) && path != root);
    Hidden::new(hidden)
}
