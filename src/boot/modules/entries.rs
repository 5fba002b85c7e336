//! What a selection makes of a tree: what goes from it, and what the initrd of a kernel's modules holds.

use std::collections::BTreeSet;

use super::kernel::Kernel;
use super::links::join;
use super::{FIRMWARE, Selection};
use crate::store::{Kind, MergedEntry, MergedTree, is_below, parent, path_order};

/// Where a processor's microcode is among the firmware; kept whatever the settings say.
pub fn microcode_directory(path: &[u8]) -> bool {
    ["amd-ucode", "intel-ucode"].iter().any(|name| is_below(path, &join(FIRMWARE, name.as_bytes())))
}

/// The modules of `kernels` and the firmware that no selection has, as paths below the root, and the directories that
/// have nothing else; deepest first.
pub fn leftovers(tree: &MergedTree, kernels: &[(&Kernel<'_>, &Selection)]) -> Vec<Vec<u8>> {
    let kept = |path: &[u8]| {
        kernels.iter().any(|(_, selection)| selection.modules.contains(path) || selection.firmware.paths.contains(path))
    };
    let modules = kernels.iter().flat_map(|(kernel, _)| kernel.modules.values().copied());
    let firmware = tree.below(FIRMWARE).iter().filter(|merged| {
        !matches!(merged.entry.kind, Kind::Directory { .. }) && !microcode_directory(&merged.entry.path)
    });
    let files = modules.chain(firmware).map(|merged| &merged.entry.path).filter(|path| !kept(path));
    let mut gone: BTreeSet<&[u8]> = files.map(Vec::as_slice).collect();
    // From below: a directory goes when all that it holds goes.
    let tops = kernels.iter().map(|(kernel, _)| kernel.dir.as_slice()).chain([FIRMWARE]);
    for top in tops {
        for merged in tree.below(top).iter().rev() {
            let path = merged.entry.path.as_slice();
            let children = || tree.below(path).iter().map(|child| child.entry.path.as_slice());
            if matches!(merged.entry.kind, Kind::Directory { .. })
                && children().next().is_some()
                && children().all(|child| gone.contains(child))
            {
                gone.insert(path);
            }
        }
    }
    let mut gone: Vec<Vec<u8>> = gone.into_iter().map(<[u8]>::to_vec).collect();
    gone.sort_by(|a, b| path_order(b, a));
    gone
}

/// What the initrd of a kernel's modules holds, in order: the modules and firmware, what is about all modules, the
/// vDSO's debug files, and the directories above.
pub fn initrd_entries(tree: &MergedTree, kernel: &Kernel<'_>, selection: &Selection) -> Vec<MergedEntry> {
    let about = tree.below(&kernel.dir).iter().map(|merged| &merged.entry.path).filter(|path| {
        let rest = path.get(kernel.dir.len() + 1..).unwrap_or_default();
        (rest.starts_with(b"modules") && !rest.contains(&b'/')) || rest == b"vdso" || rest.starts_with(b"vdso/")
    });
    let mut paths: BTreeSet<&[u8]> = about.map(Vec::as_slice).collect();
    paths.extend(selection.modules.iter().chain(&selection.firmware.paths).map(Vec::as_slice));
    paths.insert(&kernel.dir);
    let above: Vec<&[u8]> =
        paths.iter().flat_map(|path| std::iter::successors(parent(path), |path| parent(path))).collect();
    paths.extend(above);
    let mut entries: Vec<MergedEntry> = paths.into_iter().filter_map(|path| tree.lookup(path).cloned()).collect();
    for merged in &mut entries {
        if let (Kind::Symlink { target }, Some(direct)) =
            (&mut merged.entry.kind, selection.firmware.direct.get(&merged.entry.path))
        {
            target.clone_from(direct);
        }
    }
    entries.sort_by(|a, b| path_order(&a.entry.path, &b.entry.path));
    entries
}
