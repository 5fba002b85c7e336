//! What makes an image boot: the boot loader, kernels, unified kernel images and their signatures.
//!
//! `crate::boot` knows the names, texts and argument lists; here they meet the settings, the tree and the sandbox.

mod artifacts;
mod formats;
mod kernel;
mod keys;
mod loaders;
mod parts;
mod type1;
mod uki;

pub use artifacts::run as artifacts;
pub use formats::{addon, esp as esp_kernel, uki as unified};
pub use kernel::run as kernel;
pub use loaders::run as bootloader;
pub use parts::run as parts;

use std::path::PathBuf;

use super::apply::Step;
use super::{Context, StageError};
use crate::boot::wanted::Wishes;
use crate::sandbox::{Mount, Spec};
use crate::store::Artifact;
use crate::types::Architecture;

/// The tests that the declarations of the stages name, word for word.
const ESP: &str = "Format=esp";
const DISK: &str = "Format=disk";
const FITS: &str = "Format!=cpio,none,oci,uki,sysext,confext,portable,addon";

/// What the settings say of booting.
fn wishes(cx: &Context<'_>) -> Result<Wishes, StageError> {
    let text = |setting: &str, default: &str| cx.view.text(setting).unwrap_or(default).to_owned();
    let overlay = cx.view.bool("Overlay");
    Ok(Wishes {
        bootable: text("Bootable", "auto"),
        bootloader: text("Bootloader", "systemd-boot"),
        bios_bootloader: text("BiosBootloader", "none"),
        shim: text("ShimBootloader", "none"),
        unified: text("UnifiedKernelImages", "auto"),
        architecture: architecture(cx)?,
        esp: cx.view.test(ESP),
        disk: cx.view.test(DISK),
        fits: cx.view.test(FITS) && !overlay,
        overlay,
    })
}

fn architecture(cx: &Context<'_>) -> Result<Architecture, StageError> {
    match cx.view.text("Architecture") {
        Some(name) => name.parse().map_err(StageError::Other),
        None => Ok(Architecture::host()),
    }
}

/// The path in the sandbox of the first of these programs that is there.
fn tool(cx: &Context<'_>, names: &[&str]) -> Option<String> {
    names.iter().find_map(|name| cx.tools.find(name)).map(|path| path.to_string_lossy().into_owned())
}

/// A path of the tree as the sandbox has it.
fn inside(path: &str) -> String {
    format!("{}/{path}", super::context::BUILDROOT)
}

/// A read-only mount of a file.
fn file_mount(source: PathBuf, target: &str) -> Mount {
    Mount::Bind { source, target: target.into(), read_only: true, optional: false }
}

/// A file with these contents in the sandbox.
fn text_mount(target: &str, contents: impl Into<Vec<u8>>) -> Mount {
    Mount::File { target: target.into(), contents: contents.into(), mode: 0o644 }
}

/// A step that runs a program.
fn program(argv: Vec<String>, env: &[(String, String)]) -> Step {
    Step::Run { argv, accept: Vec::new(), env: env.to_vec() }
}

/// The stage's sandbox with a fixed time, for programs that put the time into what they sign.
fn signing_spec(cx: &Context<'_>) -> Spec {
    let mut spec = cx.spec(&[]);
    spec.env.insert("SOURCE_DATE_EPOCH".to_owned(), cx.epoch().to_string());
    spec
}

/// The directory on the host that a sandbox puts results in, which it has at `/work/out`.
fn results(cx: &Context<'_>, spec: &mut Spec) -> Result<PathBuf, StageError> {
    let out = cx.scratch("out")?;
    let target = "/work/out".into();
    spec.mounts.push(Mount::Bind { source: out.clone(), target, read_only: false, optional: false });
    Ok(out)
}

/// Variables of the user for the programs that sign: they tell engines and providers where things are.
fn environment(cx: &Context<'_>) -> Vec<(String, String)> {
    super::script::variables(cx).into_iter().collect()
}

/// The files of a need by name, mounted below `directory`; gives name and path in the sandbox, in the order of names.
fn mount_files(
    cx: &Context<'_>,
    need: &str,
    directory: &str,
    mounts: &mut Vec<Mount>,
) -> Result<Vec<(String, String)>, StageError> {
    let Some(Artifact::Files { files }) = cx.needs.get(need) else { return Ok(Vec::new()) };
    let mut found = Vec::new();
    for (index, (name, digest)) in files.iter().enumerate() {
        let target = format!("{directory}/{index:02}");
        mounts.push(file_mount(cx.store.need_file(digest)?, &target));
        found.push((name.clone(), target));
    }
    Ok(found)
}
