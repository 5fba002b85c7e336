//! Which paths below the build sources a stage neither sees nor hashes.

use std::path::{Path, PathBuf};

use super::Sources;
use crate::config::Image;

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

/// The paths that are hidden from `root`, a build source of `image`, and from its digest. Sorted.
pub fn hidden_paths(image: &Image, root: &Path, sources: Sources) -> Vec<PathBuf> {
    let own = OWN_NAMES.iter().flat_map(|name| SCRIPT_SUFFIXES.iter().map(move |suffix| format!("{name}{suffix}")));
    let mut hidden: Vec<PathBuf> = own.map(|name| root.join(name)).collect();
    if sources != Sources::All {
        hidden.extend(VERSION_CONTROL.iter().map(|name| root.join(name)));
    }
    hidden.extend(WRITTEN.iter().filter_map(|setting| image.path(setting)).map(Path::to_path_buf));
    hidden.retain(|path| path.starts_with(root) && path != root);
    hidden.sort();
    hidden.dedup();
    hidden
}
