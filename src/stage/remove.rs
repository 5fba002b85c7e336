//! `RemoveFiles=`, `CleanPackageMetadata=`, and directories of an extension that hold nothing.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::apply::{Step, changed_by};
use super::{Context, Outputs, StageError};
use crate::config::Value;
use crate::store::{Artifact, Kind, MergedTree};

/// What package managers keep in a tree, by the program that reads it.
const METADATA: &[(&str, &[&str])] = &[
    ("apt", &["/var/lib/apt"]),
    ("dpkg", &["/var/lib/dpkg"]),
    ("apk", &["/usr/lib/apk/db", "/var/cache/apk", "/lib/apk/db"]),
    ("dnf5", &["/usr/lib/sysimage/libdnf5"]),
    ("dnf", &["/var/lib/dnf"]),
    ("rpm", &["/var/lib/rpm", "/usr/lib/sysimage/rpm"]),
    ("pacman", &["/var/lib/pacman"]),
    ("zypper", &["/var/lib/zypp", "/var/cache/zypp"]),
];

/// Removes files. Package metadata goes when asked for, and by itself where the image could not use it: the program
/// that reads it is not installed.
pub fn run(cx: &mut Context<'_>) -> Result<Outputs, StageError> {
    let mut steps = Vec::new();
    let merged = cx.merged();
    let clean = cx.view.get("CleanPackageMetadata");
    let (always, never) = match clean {
        Value::Bool(clean) => (*clean, !*clean),
        Value::Text(text) => (text == "enabled", text == "disabled"),
        _ => (false, false),
    };
    // Without a request a directory or tar keeps it: such a tree is a base for others.
    let automatic = cx.view.test("Format!=directory,tar");
    for (program, paths) in METADATA {
        let installed = ["usr/bin", "usr/sbin", "bin", "sbin"]
            .iter()
            .any(|dir| merged.lookup(format!("{dir}/{program}").as_bytes()).is_some());
        if never || !(always || (automatic && !installed)) {
            continue;
        }
        steps.extend(paths.iter().map(|path| Step::Remove { pattern: (*path).to_owned() }));
    }
    steps.extend(cx.view.texts("RemoveFiles").into_iter().map(|text| Step::Remove { pattern: text.to_owned() }));
    // An extension is laid over a system: it is to bring what it adds, and to say nothing of the rest.
    if cx.view.test("Format=sysext,confext,addon") {
        steps.push(Step::RemoveEmpty { keep: directories_below(cx)? });
    }
    changed_by(cx, &steps)
}

/// The directories of the base trees, where only what differs from these is put out.
fn directories_below(cx: &Context<'_>) -> Result<BTreeSet<PathBuf>, StageError> {
    let Some(Artifact::Tree { layers }) = cx.needs.get("base.lower") else { return Ok(BTreeSet::new()) };
    let layers = layers.iter().map(|digest| cx.store.need_layer(digest)).collect::<Result<Vec<_>, _>>()?;
    let entries = MergedTree::new(&layers).entries.into_iter();
    let directories = entries.filter(|merged| matches!(merged.entry.kind, Kind::Directory { .. }));
    Ok(directories.filter_map(|merged| String::from_utf8(merged.entry.path).ok()).map(PathBuf::from).collect())
}
