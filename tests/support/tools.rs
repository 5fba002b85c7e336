//! A store with a built default tools tree, for the tests of every program that builds or runs images with the tools
//! of Debian trixie (systemd-repart, ukify, mkfs and so on), whatever the host has.
//!
//!     let project = Project::empty(tools::cache());
//!     project.write("mkosi.conf", &format!("{}...", tools::CONFIGURATION));
//!     project.build();
//!
//! The tools are built once and stay below `target/` between runs, for all test programs: their store is shared, so
//! that a test must not harm it and can't count on what else is in it. `ToolsTreePackages=` adds to the tree: that is
//! another tree on the same base, which costs as long as the packages take to be installed. Most tests don't need
//! that.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use super::{Project, stores};

/// What a project's configuration says to get the tree: without profiles it has what makes images, and nothing that
/// runs them. The section that is open afterwards is `[Build]`.
pub const CONFIGURATION: &str = "\
[Build]
ToolsTree=default
ToolsTreeDistribution=debian
ToolsTreeRelease=trixie
ToolsTreeProfiles=
";

/// Adds what runs images to the tree, for the few tests that do that with the tree's programs: all have the same one.
pub const RUNNING: &str = "\
[Build]
ToolsTreePackages=openssh-client ovmf python3-virt-firmware qemu-system-x86 swtpm swtpm-tools systemd-container virtiofsd
";

/// How large the store may get by what tests leave there.
const SIZE: &str = "6G";

/// What `CacheDirectory=` has to name: its store has the tools tree of [`CONFIGURATION`].
pub fn cache() -> &'static Path {
    static CACHE: OnceLock<PathBuf> = OnceLock::new();
    CACHE.get_or_init(|| {
        let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("build/tools");
        if !cache.join("store").exists() {
            stores::fill(&cache);
        }
        // The smallest image that runs a program of the tree.
        let project = Project::empty(&cache);
        project.write("mkosi.conf", CONFIGURATION);
        project.configure("[Distribution]\nDistribution=custom\n[Output]\nFormat=none\n");
        project.script("mkosi.postinst", "systemd-repart --version");
        project.done(&["store", "gc", &format!("--max-size={SIZE}")]);
        project.done(&[]);
        cache
    })
}
