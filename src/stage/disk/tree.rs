//! The tree that goes into a disk, and what is looked up in it.

use std::os::unix::fs::MetadataExt;

use rayon::prelude::*;

use super::super::context::BUILDROOT;
use super::super::output::{image_layers, image_tree};
use super::super::{Context, StageError, Tree};
use crate::boot::look::Look;
use crate::boot::wanted::{BIOS, grub_directory};
use crate::output::repart::Boot;
use crate::sandbox::Mount;
use crate::store::{Entry, Kind, Materialise, MergedTree, copy_tree, lower_dirs};
use crate::types::Architecture;

/// Restricts the stage's tree to what the image shows: with `Overlay=` the difference to the base trees.
pub fn restrict(cx: &mut Context<'_>) {
    if cx.view.bool("Overlay") {
        cx.part = Some(image_tree(cx.view, &cx.layers, &cx.needs));
        cx.layers = image_layers(cx.view, &cx.layers, &cx.needs).1.to_vec();
    }
}

/// Whether the tree has to be copied. A mount of what is laid over a base alone would hide the marks of what it removes
/// there, or show marks that count no longer.
fn is_marked(cx: &Context<'_>) -> bool {
    let mark = |entry: &Entry| matches!(entry.kind, Kind::Whiteout | Kind::Directory { opaque: true });
    let entries = cx.layers.iter().flat_map(|layer| &layer.index.entries);
    let shown = cx.part.iter().flat_map(|tree| &tree.entries).map(|merged| &merged.entry);
    cx.view.bool("Overlay") && (cx.layers.is_empty() || entries.chain(shown).any(mark))
}

/// A read-only mount of the stage's tree.
///
/// # Errors
/// When it can't be put together.
pub fn read_only(cx: &Context<'_>) -> Result<Mount, StageError> {
    if is_marked(cx) {
        let directory = cx.scratch("tree")?;
        copy_tree(&cx.merged(), &directory, &Materialise { read_only: true, break_links: false })?;
        return Ok(Mount::Bind { source: directory, target: BUILDROOT.into(), read_only: true, optional: false });
    }
    Ok(Mount::Overlay { lowers: lower_dirs(&cx.layers), upper: None, target: BUILDROOT.into() })
}

/// Makes the stage's tree changeable.
///
/// # Errors
/// When it can't be put together.
pub fn open(cx: &Context<'_>) -> Result<Tree, StageError> {
    if is_marked(cx) { cx.open_copy() } else { cx.open_tree() }
}

/// The time that a disk gets where `SourceDateEpoch=` says none: that of the newest file, so that every file keeps its
/// own. At least the first time that FAT can hold, at most the last one that all file systems can.
pub fn epoch(cx: &Context<'_>, tree: &MergedTree) -> i64 {
    const FAT: i64 = 315_532_800;
    if let Some(epoch) = cx.view.get("SourceDateEpoch").as_number() {
        return epoch;
    }
    let files = tree.entries.par_iter().filter(|merged| !matches!(merged.entry.kind, Kind::Directory { .. }));
    let newest = files.filter_map(|merged| merged.source.symlink_metadata().ok()).map(|meta| meta.mtime()).max();
    newest.unwrap_or(0).clamp(FAT, i64::from(i32::MAX))
}

/// How the disk boots, as the settings and what is in the tree say.
///
/// # Errors
/// When something is asked for that the tree does not have.
pub fn boot(cx: &Context<'_>, tree: &MergedTree) -> Result<Boot, StageError> {
    let bootable = cx.view.text("Bootable").unwrap_or("auto");
    if bootable == "disabled" {
        return Ok(Boot::default());
    }
    let loader = cx
        .view
        .text("Architecture")
        .and_then(|name| name.parse::<Architecture>().ok())
        .and_then(Architecture::efi)
        .map(|name| format!("efi/EFI/BOOT/BOOT{}.EFI", name.to_uppercase()));
    let has = |path: &str| tree.lookup(path.as_bytes()).is_some();
    let uefi = bootable == "enabled" || loader.is_some_and(|loader| has(&loader));
    let wants_bios = cx.view.text("BiosBootloader") == Some("grub") && !cx.view.bool("Overlay");
    let bios = wants_bios && grub_directory(&Look::new(tree), BIOS).is_some();
    if wants_bios && !bios && bootable == "enabled" {
        return Err(StageError::Other(
            "Bootable=yes and BiosBootloader=grub want GRUB for BIOS, and the image has none: add its package to \
             Packages= (grub-pc-bin on Debian)"
                .to_owned(),
        ));
    }
    Ok(Boot { uefi, bios })
}

/// The file system that a distribution installs itself on.
pub fn filesystem(distribution: &str) -> &'static str {
    match distribution {
        "fedora" | "opensuse" => "btrfs",
        "centos" | "rhel" | "rhel-ubi" | "rocky" | "alma" => "xfs",
        _ => "ext4",
    }
}
