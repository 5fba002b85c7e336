//! Kernel modules and firmware: those that the image keeps, and the initrd of each kernel.
//!
//! Knows nothing of what needs what; that is in `boot::modules`.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::apply::{Step, apply, changed_by};
use super::context::BUILDROOT;
use super::{Context, Outputs, StageError};
use crate::boot::kernels::{kernels, versions as kernel_versions};
use crate::boot::look::Look;
use crate::boot::modules::{Kernel, Selection, Wishes, initrd_entries, leftovers, select, versions};
use crate::output::archive::{ArchiveOptions, write_cpio};
use crate::output::{Compression, Compressor};
use crate::sandbox::Mount;
use crate::store::{Artifact, Backend, Kind, Materialise, MergedEntry, MergedTree, copy_tree};
use crate::types::Digest;

/// Where kernels have their modules.
const MODULES: &str = "usr/lib/modules";

/// The settings that say which modules are kept.
struct Settings {
    include: &'static str,
    include_host: &'static str,
    exclude: &'static str,
}

const IMAGE: Settings =
    Settings { include: "KernelModules", include_host: "KernelModulesIncludeHost", exclude: "KernelModulesExclude" };

const INITRD: Settings = Settings {
    include: "KernelInitrdModules",
    include_host: "KernelModulesInitrdIncludeHost",
    exclude: "KernelModulesInitrdExclude",
};

fn wishes(cx: &Context<'_>, settings: &Settings) -> Result<Wishes, StageError> {
    let list = |setting: &str| -> Vec<String> { cx.view.texts(setting).into_iter().map(str::to_owned).collect() };
    // What the host has loaded stands there in place of `yes`.
    let include = [list(settings.include_host), list(settings.include)].concat();
    Wishes::new(&include, &list(settings.exclude), &list("FirmwareFiles"), &list("FirmwareExclude"))
        .map_err(StageError::other)
}

fn choose(
    cx: &mut Context<'_>,
    tree: &MergedTree,
    kernel: &Kernel<'_>,
    wishes: &Wishes,
) -> Result<Selection, StageError> {
    let selection = select(tree, kernel, wishes).map_err(StageError::other)?;
    let (version, modules, all) = (&kernel.version, selection.modules.len(), kernel.count());
    let firmware = selection.firmware.paths.len();
    cx.note(&format!("{version}: {modules} of {all} modules, {firmware} files of firmware"));
    for missing in &selection.missing {
        cx.note(missing);
    }
    Ok(selection)
}

fn depmod(version: &str) -> Step {
    let argv = ["depmod", "--all", "--basedir=/buildroot", version].map(str::to_owned).to_vec();
    Step::Run { argv, accept: Vec::new(), env: Vec::new() }
}

fn remove(paths: Vec<Vec<u8>>) -> Step {
    // Others are no names that a pattern could mean.
    Step::RemovePaths { paths: paths.into_iter().filter_map(|path| String::from_utf8(path).ok()).collect() }
}

/// Removes the modules and firmware that the settings leave out, and lists what modules need of each other where that
/// list is missing or stale.
pub fn image(cx: &mut Context<'_>) -> Result<Outputs, StageError> {
    let tree = cx.merged();
    let wishes = wishes(cx, &IMAGE)?;
    let kernels: Vec<Kernel<'_>> = versions(&tree).iter().map(|version| Kernel::new(&tree, version)).collect();
    let mut steps = Vec::new();
    let mut gone = Vec::new();
    if !wishes.is_empty() && !kernels.is_empty() {
        let selections =
            kernels.iter().map(|kernel| choose(cx, &tree, kernel, &wishes)).collect::<Result<Vec<_>, _>>()?;
        let chosen: Vec<_> = kernels.iter().zip(&selections).collect();
        gone = leftovers(&tree, &chosen);
        if !gone.is_empty() {
            steps.push(remove(gone.clone()));
        }
    }
    // An extension has the modules alone: lists of its own would hide those of the image that it extends.
    if !cx.view.test("Format=sysext,confext,portable,addon") {
        let layers: Vec<_> = cx.layers.iter().map(|layer| layer.dir.clone()).collect();
        let height = |merged: &MergedEntry| layers.iter().rposition(|dir| merged.source.starts_with(dir)).unwrap_or(0);
        for kernel in &kernels {
            let loses = gone.iter().any(|path| path.starts_with(&kernel.dir));
            if loses || kernel.is_stale(height).map_err(StageError::other)? {
                steps.push(depmod(&kernel.version));
            }
        }
    }
    changed_by(cx, &steps)
}

/// Makes the initrd with the modules of each kernel: the files named by the kernels' versions, and that of the kernel
/// that is put out for the output directory.
pub fn initrd(cx: &mut Context<'_>) -> Result<Outputs, StageError> {
    let tree = cx.merged();
    let wishes = wishes(cx, &INITRD)?;
    let kernels: Vec<Kernel<'_>> = versions(&tree).iter().map(|version| Kernel::new(&tree, version)).collect();
    let selections = kernels.iter().map(|kernel| choose(cx, &tree, kernel, &wishes)).collect::<Result<Vec<_>, _>>()?;
    let chosen: Vec<_> = kernels.iter().zip(&selections).collect();
    let lists = own_lists(cx, &tree, &chosen)?;
    let epoch = cx.epoch();
    let mut files = BTreeMap::new();
    for (kernel, selection) in chosen {
        let mut entries = initrd_entries(&tree, kernel, selection);
        for merged in &mut entries {
            if let Some(list) = lists.get(&merged.entry.path) {
                *merged = file(&merged.entry.path, list)?;
            }
            merged.entry.mtime = epoch;
        }
        // Packed modules would only become larger.
        let compression = match cx.view.text("Distribution") {
            Some("debian" | "ubuntu" | "kali") if !kernel.is_packed() => Compression::Zstd,
            _ => Compression::None,
        };
        let digest = archive(cx, &MergedTree { entries }, compression)?;
        files.insert(kernel.version.clone(), digest);
    }
    let split = first(&Look::new(&tree), &files)?.map(|digest| (".kernel-modules-initrd".to_owned(), digest));
    let split = Artifact::Files { files: split.into_iter().collect() };
    Ok(Outputs::from([("files".to_owned(), Artifact::Files { files }), ("split".to_owned(), split)]))
}

/// The initrd of the kernel that the other artifacts of the image are of: the newest with an image, else the newest.
fn first(look: &Look<'_>, files: &BTreeMap<String, Digest>) -> Result<Option<Digest>, StageError> {
    let with_image = kernels(look).map_err(StageError::other)?.into_iter().map(|kernel| kernel.version);
    Ok(with_image.chain(kernel_versions(look)).find_map(|version| files.get(&version).copied()))
}

/// Lists of the modules that are chosen, for each kernel of which some are left out: the files by the paths of those
/// whose place they take.
fn own_lists(
    cx: &mut Context<'_>,
    tree: &MergedTree,
    chosen: &[(&Kernel<'_>, &Selection)],
) -> Result<BTreeMap<Vec<u8>, PathBuf>, StageError> {
    let kernels: Vec<&Kernel<'_>> =
        chosen.iter().filter(|(_, selection)| !selection.whole).map(|(kernel, _)| *kernel).collect();
    let mut lists = BTreeMap::new();
    if kernels.is_empty() {
        return Ok(lists);
    }
    let gone: BTreeSet<Vec<u8>> = leftovers(tree, chosen).into_iter().collect();
    let rest = tree.entries.iter().filter(|merged| !gone.contains(&merged.entry.path)).cloned().collect();
    let rest = MergedTree { entries: rest }.part(&[MODULES]);
    let (mount, upper) = changeable(cx, &rest)?;
    let mut spec = cx.spec(&[]);
    spec.mounts.push(mount);
    apply(cx, spec, &kernels.iter().map(|kernel| depmod(&kernel.version)).collect::<Vec<_>>())?;
    for kernel in kernels {
        let place = upper.join(OsStr::from_bytes(&kernel.dir));
        let Ok(made) = std::fs::read_dir(&place) else { continue };
        for made in made {
            let made = made.map_err(StageError::io("list", &place))?;
            // What depmod left as it was lies in the tree alone.
            if made.file_name().as_bytes().starts_with(b"modules.") && made.path().is_file() {
                lists.insert([&kernel.dir, b"/".as_slice(), made.file_name().as_bytes()].concat(), made.path());
            }
        }
    }
    Ok(lists)
}

/// The mount of a tree that a command may change, and the directory where its changes are.
fn changeable(cx: &Context<'_>, tree: &MergedTree) -> Result<(Mount, PathBuf), StageError> {
    let copies = matches!(cx.store.backend(), Backend::Copy { .. });
    let place = cx.scratch("rest")?;
    copy_tree(tree, &place, &Materialise { read_only: !copies, ..Materialise::default() })?;
    // Where programs look for modules.
    let link = place.join("lib");
    std::os::unix::fs::symlink("usr/lib", &link).map_err(StageError::io("make the link", &link))?;
    let target = PathBuf::from(BUILDROOT);
    if copies {
        let mount = Mount::Bind { source: place.clone(), target, read_only: false, optional: false };
        return Ok((mount, place));
    }
    let (upper, work) = cx.work.overlay(None)?;
    Ok((Mount::Overlay { lowers: vec![place], upper: Some((upper.clone(), work)), target }, upper))
}

/// An entry for a file of the host.
pub(super) fn file(path: &[u8], source: &Path) -> Result<MergedEntry, StageError> {
    let size = source.metadata().map_err(StageError::io("look up", source))?.len();
    let kind = Kind::File { digest: Digest::of(path), size };
    Ok(MergedEntry { entry: entry(path, kind, 0o644), source: source.to_owned() })
}

/// An entry that belongs to root.
pub(super) fn entry(path: &[u8], kind: Kind, mode: u32) -> crate::store::Entry {
    let meta = crate::store::Meta { mode, ..crate::store::Meta::default() };
    crate::store::Entry { path: path.to_vec(), kind, meta, hardlink: None, mtime: 0 }
}

/// Writes a tree as a cpio archive into the store.
pub(super) fn archive(cx: &Context<'_>, tree: &MergedTree, compression: Compression) -> Result<Digest, StageError> {
    let path = cx.work.join("initrd");
    let file = File::create(&path).map_err(StageError::io("make", &path))?;
    let mut out = Compressor::new(compression, None, None, BufWriter::with_capacity(1 << 20, file))
        .map_err(StageError::io("compress to", &path))?;
    write_cpio(tree, &ArchiveOptions::default(), &mut out).map_err(StageError::other)?;
    let mut out = out.finish().map_err(StageError::io("compress to", &path))?;
    out.flush().map_err(StageError::io("write", &path))?;
    drop(out);
    Ok(cx.store.add_file(&path)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boot::kernels::testing::Made;

    #[test]
    fn the_initrd_that_is_put_out_is_of_the_newest_kernel() {
        let of = |kernels: &[(&str, &str)], files: &[&str]| {
            let made = Made::new(kernels);
            let tree = made.tree();
            let files = files.iter().map(|version| ((*version).to_owned(), Digest::of(version.as_bytes()))).collect();
            first(&Look::new(&tree), &files).unwrap()
        };
        let modules = |version: &str| format!("usr/lib/modules/{version}/modules.order");
        let [old, new, newest] = ["6.1.0", "6.12.3", "7.0"].map(modules);
        let (old, new, newest) = ((old.as_str(), ""), (new.as_str(), ""), (newest.as_str(), ""));
        assert_eq!(of(&[old, new], &["6.1.0", "6.12.3"]), Some(Digest::of(b"6.12.3")));
        let image = ("usr/lib/modules/6.12.3/vmlinuz", "x");
        assert_eq!(of(&[old, new, newest, image], &["6.1.0", "6.12.3", "7.0"]), Some(Digest::of(b"6.12.3")));
        assert_eq!(of(&[], &[]), None);
    }
}
