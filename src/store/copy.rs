//! The copying backend, for file systems that overlayfs can't work on: puts a tree together from its layers, and finds
//! the layer that a change to such a copy makes. The layer is the one that an overlay would have given.

use std::fs::{self, File, OpenOptions, Permissions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use rustix::fs::{CWD, FileType, Mode};

use super::error::Context;
use super::scan;
use super::walk::{host_path, set_xattr};
use super::work::{apply_meta, make_whiteout, set_mtime};
use super::{Entry, Ingest, Kind, Layer, MergedTree, Store, StoreError, canon, labels};

/// How a tree is put together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Materialise {
    /// Nothing will be written there, so files may be links to those in the store where no reflinks can be made.
    pub read_only: bool,
    /// Make each further link of a file a file of its own. A stage that writes to one of several links then changes
    /// that one alone, as it would in an overlay, where a write copies the one up.
    pub break_links: bool,
}

/// Makes the tree of `layers` (lowest first) at `dest`, which is a new or an empty directory.
///
/// # Errors
/// When something can't be made, or the disk is full.
pub fn materialise(layers: &[Layer], dest: &Path, options: &Materialise) -> Result<(), StoreError> {
    copy_tree(&MergedTree::new(layers), dest, options)
}

/// Makes a merged tree at `dest`, which is a new or an empty directory; whiteouts as overlayfs has them.
///
/// # Errors
/// When something can't be made, or the disk is full.
pub fn copy_tree(tree: &MergedTree, dest: &Path, options: &Materialise) -> Result<(), StoreError> {
    fs::create_dir_all(dest).context("make", dest)?;
    let is_directory = |entry: &Entry| matches!(entry.kind, Kind::Directory { .. });
    let target = |entry: &Entry| host_path(dest, &entry.path);
    // Directories come before what they hold, so in order; files then in any order; links after the files; and the
    // metadata of directories last, when nothing changes in them any more.
    for merged in tree.entries.iter().filter(|merged| is_directory(&merged.entry) && !merged.entry.path.is_empty()) {
        let path = target(&merged.entry);
        fs::create_dir(&path).context("make", &path)?;
    }
    let linked = |entry: &Entry| if options.break_links { None } else { entry.hardlink.clone() };
    tree.entries
        .par_iter()
        .filter(|merged| !is_directory(&merged.entry) && linked(&merged.entry).is_none())
        .try_for_each(|merged| copy_entry(&merged.entry, &merged.source, &target(&merged.entry), options))?;
    for merged in &tree.entries {
        if let Some(first) = linked(&merged.entry) {
            let path = target(&merged.entry);
            fs::hard_link(host_path(dest, &first), &path).context("link", &path)?;
        }
    }
    for merged in tree.entries.iter().rev().filter(|merged| is_directory(&merged.entry)) {
        let path = target(&merged.entry);
        apply_meta(&path, &merged.entry)?;
        set_mtime(&path, merged.entry.mtime)?;
    }
    Ok(())
}

fn copy_entry(entry: &Entry, source: &Path, path: &Path, options: &Materialise) -> Result<(), StoreError> {
    let node = |kind, device| {
        rustix::fs::mknodat(CWD, path, kind, Mode::from_raw_mode(0o600), device).context("make the node", path)
    };
    match &entry.kind {
        Kind::File { .. } => {
            if copy_content(source, path, options.read_only)? {
                // It is the store's own file, with its metadata.
                return Ok(());
            }
        }
        Kind::Symlink { target } => {
            std::os::unix::fs::symlink(std::ffi::OsStr::from_bytes(target), path).context("make the link", path)?;
        }
        Kind::Character { device: (major, minor) } => {
            node(FileType::CharacterDevice, rustix::fs::makedev(*major, *minor))?;
        }
        Kind::Block { device: (major, minor) } => node(FileType::BlockDevice, rustix::fs::makedev(*major, *minor))?,
        Kind::Fifo => node(FileType::Fifo, 0)?,
        Kind::Whiteout => make_whiteout(path)?,
        Kind::Directory { .. } | Kind::Socket => return Ok(()),
    }
    apply_meta(path, entry)?;
    set_mtime(path, entry.mtime)
}

/// Copies a file's content. Tells whether it became a link to the source instead.
fn copy_content(source: &Path, path: &Path, read_only: bool) -> Result<bool, StoreError> {
    let from = File::open(source).context("open", source)?;
    let new = || OpenOptions::new().write(true).create_new(true).open(path).context("make", path);
    let mut to = new()?;
    if rustix::fs::ioctl_ficlone(&to, &from).is_ok() {
        return Ok(false);
    }
    if read_only {
        fs::remove_file(path).context("remove", path)?;
        if fs::hard_link(source, path).is_ok() {
            return Ok(true);
        }
        to = new()?;
    }
    // Lets the kernel copy, and share what can be shared.
    let mut from = from;
    std::io::copy(&mut from, &mut to).context("write", path)?;
    Ok(false)
}

/// Finds what changed from `lower` to the tree at `changed`, and makes of it, at `upper`, the upper directory that an
/// overlay would have had, in canonical form. What changed is moved there, so `changed` is of no use afterwards; both
/// are on one file system.
///
/// # Errors
/// When something can't be read or moved.
pub fn diff(lower: &MergedTree, changed: &Path, upper: &Path, opts: &Ingest) -> Result<(), StoreError> {
    let mut scanned = scan::scan_plain(changed)?;
    if !opts.labels {
        labels::settle(&mut scanned.raws, Some(lower));
    }
    let plan = canon::difference(lower, scanned);
    let kept = &plan.kept;
    fs::create_dir_all(upper).context("make", upper)?;
    // Moving needs a way in and out of each directory, whatever its mode; the modes are set at the end.
    for raw in kept {
        let (from, to) = (host_path(changed, &raw.entry.path), host_path(upper, &raw.entry.path));
        match raw.entry.kind {
            Kind::Directory { .. } => {
                if !raw.entry.path.is_empty() {
                    fs::create_dir(&to).context("make", &to)?;
                }
                fs::set_permissions(&to, Permissions::from_mode(0o700)).context("set the mode of", &to)?;
                fs::set_permissions(&from, Permissions::from_mode(0o700)).context("set the mode of", &from)?;
            }
            Kind::Whiteout => make_whiteout(&to)?,
            _ => {
                fs::rename(&from, &to).context("move", &from)?;
                escape_attributes(&to, &raw.entry)?;
            }
        }
    }
    for raw in kept.iter().rev().filter(|raw| matches!(raw.entry.kind, Kind::Directory { .. })) {
        let mut entry = raw.entry.clone();
        entry.meta.xattrs = entry.meta.xattrs.into_iter().map(|(name, value)| (scan::to_layer(&name), value)).collect();
        apply_meta(&host_path(upper, &entry.path), &entry)?;
    }
    Ok(())
}

/// An attribute that looks like overlayfs' own gets the name that overlayfs would give it in the upper directory.
fn escape_attributes(path: &Path, entry: &Entry) -> Result<(), StoreError> {
    for (name, value) in &entry.meta.xattrs {
        let stored = scan::to_layer(name);
        if stored != *name {
            set_xattr(path, &stored, value)?;
            rustix::fs::lremovexattr(path, std::ffi::OsStr::from_bytes(name))
                .context("remove an attribute of", path)?;
        }
    }
    Ok(())
}

impl Store {
    /// As [`Store::add_layer`], from a changed copy of `lower` that [`materialise`] made below a work directory. The
    /// copy is of no use afterwards.
    ///
    /// # Errors
    /// When something can't be read or moved, or the disk is full.
    pub fn add_layer_from_diff(&self, changed: &Path, lower: &MergedTree, opts: &Ingest) -> Result<Layer, StoreError> {
        let work = self.work_dir("diff")?;
        let upper: PathBuf = work.join("upper");
        diff(lower, changed, &upper, opts).map_err(|error| error.in_store(&self.dir))?;
        self.add_layer(&upper, Some(lower), opts)
    }
}
