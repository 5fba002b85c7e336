//! Scripts of the user, a function for each kind: sync, prepare, build, postinst, finalize, postoutput, clean.
//!
//! They run on the host's tools with the image at `$BUILDROOT`; one with the suffix `.chroot` runs in the image.
//! Each sees its sources at `$SRCDIR`, and what it changes there is thrown away, but for the two kinds that are there to
//! change them. `docs/scripts.md` tells what a script can rely on.

mod access;
mod carried;
mod clean;
mod environment;
mod run;
mod sources;
mod wrappers;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::json;

pub use carried::latest;
pub use clean::clean;
pub use environment::{Kind, TABLE};
pub use run::variables;

use super::{Context, Outputs, StageError, Tree};
use crate::sandbox::{Mount, Spec};
use crate::store::{Artifact, Materialise, copy_tree, lower_dirs};
use carried::Carried;
use run::Runner;

/// Runs `mkosi.sync` on the user's own source directories.
pub fn sync(cx: &mut Context<'_>) -> Result<Outputs, StageError> {
    let hidden: Vec<_> = run::WRITTEN.iter().filter_map(|setting| cx.view.path(setting)).collect();
    let mounts = sources::writable(cx.view.get("BuildSources"), &hidden);
    Runner { mounts, ..Runner::new(Kind::Sync) }.all(cx, &["final"])?;
    Ok(Outputs::from([("done".to_owned(), Artifact::Value { value: json!(true) })]))
}

/// Runs `mkosi.prepare final`.
pub fn prepare(cx: &mut Context<'_>) -> Result<Outputs, StageError> {
    changing(cx, Kind::Prepare, &["final"], &["packages", "artifacts"])
}

/// Runs `mkosi.prepare build` on the build overlay.
pub fn prepare_build(cx: &mut Context<'_>) -> Result<Outputs, StageError> {
    changing(cx, Kind::Prepare, &["build"], &["packages", "artifacts"])
}

/// Runs `mkosi.postinst final`.
pub fn postinst(cx: &mut Context<'_>) -> Result<Outputs, StageError> {
    changing(cx, Kind::PostInstallation, &["final"], &["out", "packages", "artifacts"])
}

/// Runs `mkosi.finalize`; what it leaves in `$OUTPUTDIR` is published with the image.
pub fn finalize(cx: &mut Context<'_>) -> Result<Outputs, StageError> {
    changing(cx, Kind::Finalize, &["final"], &["out", "artifacts"])
}

/// Runs `mkosi.build`: what it installs to `$DESTDIR` is the output `dest`. Its changes to the tree are thrown away.
pub fn build(cx: &mut Context<'_>) -> Result<Outputs, StageError> {
    let tree = cx.open_tree()?;
    let carried = Carried::restore(cx)?;
    let dest = cx.scratch("dest")?;
    std::fs::set_permissions(&dest, std::fs::Permissions::from_mode(0o755))
        .map_err(StageError::io("set the mode of", &dest))?;
    let runner = Runner { tree: Some(&tree), carried: Some(&carried), dest: Some(&dest), ..Runner::new(Kind::Build) };
    let arguments: Vec<String> = cx.view.texts("arguments").into_iter().map(str::to_owned).collect();
    runner.all(cx, &arguments.iter().map(String::as_str).collect::<Vec<_>>())?;
    let layer = cx.store.add_layer(&dest, None, &cx.ingest())?;
    let mut outputs = Outputs::from([("dest".to_owned(), Artifact::Tree { layers: vec![layer.digest] })]);
    carried.keep(cx, &["out", "packages", "artifacts"], &mut outputs)?;
    Ok(outputs)
}

/// Runs scripts whose changes to the tree become the stage's layer.
fn changing(cx: &mut Context<'_>, kind: Kind, arguments: &[&str], keep: &[&str]) -> Result<Outputs, StageError> {
    let tree = cx.open_tree()?;
    let carried = Carried::restore(cx)?;
    Runner { tree: Some(&tree), carried: Some(&carried), ..Runner::new(kind) }.all(cx, arguments)?;
    let mut outputs = cx.close_tree(tree)?;
    carried.keep(cx, keep, &mut outputs)?;
    Ok(outputs)
}

/// The sandbox of a stage's scripts for a user who looks into it: with the tree, and what is handed on, as the needs have
/// it (those of the stage itself are there when it was built) or as the stage `left` it when it failed. None for a stage
/// that runs no scripts on a tree.
pub fn looked_into(cx: &mut Context<'_>, tree: &Tree, left: Option<&Path>) -> Result<Option<Spec>, StageError> {
    let kind = match cx.stage {
        "prepare" | "prepare-build" => Kind::Prepare,
        "build" => Kind::Build,
        "postinst" => Kind::PostInstallation,
        "finalize" => Kind::Finalize,
        _ => return Ok(None),
    };
    let carried = Carried::restore(cx)?;
    let mut after = Vec::new();
    if let Some(left) = left {
        for (name, target) in [("out", "/work/out"), ("packages", "/work/packages"), ("artifacts", "/work/artifacts")] {
            after.extend(cx.throwaway_copy(name, &left.join(name), target)?);
        }
        after.extend(cx.throwaway_copy("dest", &left.join("dest"), "/work/dest")?);
    } else if kind == Kind::Build {
        let layers = match cx.needs.get("build.dest") {
            Some(Artifact::Tree { layers }) => {
                layers.iter().map(|digest| cx.store.need_layer(digest)).collect::<Result<Vec<_>, _>>()?
            }
            _ => Vec::new(),
        };
        after.push(cx.throwaway("dest", &layers, "/work/dest".into())?);
    }
    let runner = Runner { tree: Some(tree), carried: Some(&carried), after, look: true, ..Runner::new(kind) };
    runner.looked_into(cx).map(Some)
}

/// Runs `mkosi.postoutput` on the files that are about to be published: what is in `$OUTPUTDIR` afterwards is. A
/// directory output is there too, to be read.
pub fn postoutput(cx: &mut Context<'_>) -> Result<Outputs, StageError> {
    let output = cx.view.text("Output").unwrap_or("image").to_owned();
    let carried =
        Carried { out: cx.scratch("out")?, packages: cx.scratch("packages")?, artifacts: cx.scratch("artifacts")? };
    carried::restore_files(cx, &super::output::named_files(&output, &cx.needs), &carried.out)?;
    let mut mounts = Vec::new();
    if cx.view.text("Format") == Some("directory") {
        // The mount point is made beforehand: it is below a directory whose files are taken afterwards.
        let point = carried.out.join(&output);
        std::fs::create_dir_all(&point).map_err(StageError::io("make the directory", &point))?;
        let target = Path::new("/work/out").join(&output);
        let tree = super::output::image_tree(cx.view, &cx.layers, &cx.needs);
        if cx.view.bool("Overlay") && tree.lookup(b"").is_some() {
            // A mount would hide what the difference removes.
            let source = cx.scratch("difference")?;
            copy_tree(&tree, &source, &Materialise { read_only: true, break_links: false })?;
            mounts.push(Mount::Bind { source, target, read_only: true, optional: false });
        } else if !cx.layers.is_empty() {
            mounts.push(Mount::Overlay { lowers: lower_dirs(&cx.layers), upper: None, target });
        }
    }
    Runner { carried: Some(&carried), after: mounts, ..Runner::new(Kind::PostOutput) }.all(cx, &[])?;
    let mut outputs = Outputs::new();
    carried.keep(cx, &["out"], &mut outputs)?;
    Ok(outputs)
}
