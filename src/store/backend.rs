//! Whether overlayfs can work on the store's file system.

use std::fs;
use std::path::Path;

use rustix::mount::{MountFlags, UnmountFlags};

use super::root::locked;
use super::{Store, work};

/// How trees are put together from layers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Backend {
    /// With overlay mounts.
    Overlay,
    /// By copying (reflinks where the file system has them).
    Copy {
        /// Why no overlay can be mounted.
        reason: String,
    },
}

impl Store {
    /// What the caller found out with [`probe_overlay`] in a child of its own; overlay until told otherwise.
    pub fn backend(&self) -> Backend {
        locked(&self.backend).clone().unwrap_or(Backend::Overlay)
    }

    /// Sets the backend for the rest of this run.
    pub fn set_backend(&self, backend: Backend) {
        *locked(&self.backend) = Some(backend);
    }
}

/// Tries an overlay mount with its upper directory below `dir`, and that a removal leaves a whiteout there. Needs a
/// mount namespace of the caller's own and the right to mount in it.
///
/// # Errors
/// What failed and why, as the reason for [`Backend::Copy`].
pub fn probe_overlay(dir: &Path) -> Result<(), String> {
    let base = tempfile::Builder::new()
        .prefix("probe.")
        .tempdir_in(dir)
        .map_err(|error| format!("no directory can be made in {}: {error}", dir.display()))?;
    let result = probe(base.path());
    // The kernel leaves a directory of mode 0 behind, which the plain removal can't enter for every user.
    let _ = work::remove_tree(base.path());
    result
}

fn probe(base: &Path) -> Result<(), String> {
    let [lower, upper, work, merged] = ["lower", "upper", "work", "merged"].map(|name| base.join(name));
    for path in [&lower, &upper, &work, &merged] {
        fs::create_dir(path).map_err(|error| format!("{} can't be made: {error}", path.display()))?;
    }
    fs::write(lower.join("gone"), b"").map_err(|error| format!("no file can be made: {error}"))?;
    // Relative to nothing and free of commas and colons, which would end a directory's name in the options.
    let options =
        format!("userxattr,lowerdir={},upperdir={},workdir={}", escape(&lower), escape(&upper), escape(&work));
    let options = std::ffi::CString::new(options).map_err(|_| "the store's path holds a NUL byte".to_owned())?;
    rustix::mount::mount("overlay", &merged, "overlay", MountFlags::empty(), options.as_c_str())
        .map_err(|error| format!("an overlay can't be mounted on {}: {error}", base.display()))?;
    let result = fs::remove_file(merged.join("gone"))
        .and_then(|()| fs::write(merged.join("new"), b"new"))
        .map_err(|error| format!("an overlay on {} can't be written: {error}", base.display()));
    rustix::mount::unmount(&merged, UnmountFlags::DETACH)
        .map_err(|error| format!("the overlay on {} can't be unmounted: {error}", base.display()))?;
    result?;
    use std::os::unix::fs::{FileTypeExt, MetadataExt};
    match fs::symlink_metadata(upper.join("gone")) {
        Ok(meta) if meta.file_type().is_char_device() && meta.rdev() == 0 => Ok(()),
        _ => Err(format!("an overlay on {} leaves no whiteouts", base.display())),
    }
}

/// overlayfs takes a backslash before characters that have a meaning in its options.
fn escape(path: &Path) -> String {
    let mut escaped = String::new();
    for c in path.to_string_lossy().chars() {
        if matches!(c, '\\' | ',' | ':') {
            escaped.push('\\');
        }
        escaped.push(c);
    }
    escaped
}
